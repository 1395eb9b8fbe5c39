"""Adam with a step size per Gaussian."""

import numba
import numpy as np

from worldline.threads import map_pieces

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-15
ROWS = 8192


@numba.njit(nogil=True, cache=True)
def _adam_rows(values, gradients, first, second, rates, correction1, correction2, start, stop):  # type: ignore[no-untyped-def]
    one = np.float32(1.0)
    beta1, beta2, epsilon = np.float32(BETA1), np.float32(BETA2), np.float32(EPSILON)
    for i in range(start, stop):
        rate = rates[i] * correction1
        for j in range(values.shape[1]):
            g = gradients[i, j]
            first[i, j] = beta1 * first[i, j] + (one - beta1) * g
            second[i, j] = beta2 * second[i, j] + (one - beta2) * g * g
            values[i, j] -= rate * first[i, j] / (np.sqrt(second[i, j] * correction2) + epsilon)


def adam_step(
    values: np.ndarray, gradients: np.ndarray, first: np.ndarray, second: np.ndarray, rates: np.ndarray, step: int
) -> None:
    """Take Adam step number `step` (from 1) in place (Kingma and Ba, 2015, algorithm 1).

    Args:
        values: `[N, ...]` float32 parameters.
        gradients: like `values`.
        first: like `values`, running mean of the gradients.
        second: like `values`, running mean of their squares.
        rates: `[N]` float32 step size of each row.
        step: counts from 1.
    """
    if not values.size:
        return
    flat = [array.reshape(len(values), -1) for array in (values, gradients, first, second)]
    corrections = np.float32(1.0 / (1.0 - BETA1**step)), np.float32(1.0 / (1.0 - BETA2**step))

    def piece(index: int) -> None:
        _adam_rows(*flat, rates, *corrections, index * ROWS, min((index + 1) * ROWS, len(values)))  # type: ignore[call-arg]

    map_pieces(piece, -(-len(values) // ROWS))
