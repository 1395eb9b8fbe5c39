"""Adam with a step size per Gaussian, and the relocation of Gaussians that do little."""

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


def choose_relocations(
    mass: np.ndarray, importance: np.ndarray, share: float, groups: list[slice], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pick the Gaussians that do least, and for each a better place beside another one of its group.

    Kheradmand et al., "3D Gaussian splatting as Markov chain Monte Carlo", 2024, section 3.2, relocate what became
    transparent; a short fit has no time to wait for that, so a fixed share goes each time. Places are drawn in proportion
    to `importance`. Groups keep what moves and what stands still apart.

    Args:
        mass: `[N]` how much each Gaussian covers.
        importance: `[N]` how hard the images pull at it.
        share: of each group that is relocated.
        groups: slices of the N.
        rng: source of randomness.

    Returns:
        Indices of the relocated and of the Gaussians beside which they go.
    """
    moved, sources = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for group in groups:
        chosen = np.argsort(mass[group], kind="stable")[: int(share * len(mass[group]))]
        weight = importance[group].astype(np.float64)
        weight[chosen] = 0.0
        if not len(chosen) or not weight.sum() > 0:
            continue
        moved.append(chosen + group.start)
        sources.append(rng.choice(len(weight), size=len(chosen), p=weight / weight.sum()) + group.start)
    return np.concatenate(moved), np.concatenate(sources)


def share_opacity(opacities: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return opacity and size factor with which `copies` Gaussians at one place look like the one that was there.

    Kheradmand et al. 2024, equation 9: o' = 1 - (1 - o)^(1/n) and
    s' = s o / sum_{i=1..n} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1).

    Args:
        opacities: `[P]` of the Gaussians that are shared.
        copies: `[P]` how many there are afterwards, themselves included; counted as 51 beyond that.
    """
    copies = np.minimum(copies, 51)
    shared = 1.0 - (1.0 - opacities) ** (1.0 / copies)
    factors = np.empty(len(opacities))
    for row, (opacity, count) in enumerate(zip(shared, copies, strict=True)):
        # sum_k C(i-1, k) (-1)^k o^(k+1) / sqrt(k+1), summed over i = 1..n, is sum_k C(n, k+1) (-1)^k o^(k+1) / sqrt(k+1)
        k = np.arange(count)
        signs = np.where(k % 2, -1.0, 1.0)
        factors[row] = opacities[row] / np.sum(_binomials(int(count))[1:] * signs * opacity ** (k + 1) / np.sqrt(k + 1))
    return shared, factors


def _binomials(n: int) -> np.ndarray:
    """Return C(n, 0) to C(n, n)."""
    row = np.ones(n + 1)
    for k in range(1, n + 1):
        row[k] = row[k - 1] * (n - k + 1) / k
    return row
