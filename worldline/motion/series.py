"""Series in time for many Gaussians at once: evaluated at every step of a fit, so compiled, with a backward pass by hand.

`worldline.motion.gaussian_flow.series` is the readable twin: it says what is computed, and computes it on a GPU.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor


def evaluate_series(local: Tensor, polynomial: Tensor, fourier: Tensor) -> Tensor:
    """Return `[M, D]`: sum_n a_n t^n + sum_l b_l sin(2 pi l t) + c_l (cos(2 pi l t) - 1), each row at its own time.

    Args:
        local: `[M]` times t, on the CPU.
        polynomial: `[M, P, D]` coefficients a of the powers 1 to P.
        fourier: `[M, 2 L, D]` coefficients b, then c.
    """
    return _Series.apply(local, polynomial, fourier)


@numba.njit(nogil=True, cache=True)
def _forward(local, polynomial, fourier, out):  # type: ignore[no-untyped-def]
    powers, harmonics, width = polynomial.shape[1], fourier.shape[1] // 2, polynomial.shape[2]
    for i in range(len(local)):
        t = local[i]
        term = out.dtype.type(1.0)
        for k in range(width):
            out[i, k] = 0
        for n in range(powers):
            term *= t
            for k in range(width):
                out[i, k] += term * polynomial[i, n, k]
        if harmonics:
            sine1, cosine1 = math.sin(2 * math.pi * t), math.cos(2 * math.pi * t)
            sine, cosine = sine1, cosine1
            for order in range(harmonics):
                for k in range(width):
                    out[i, k] += sine * fourier[i, order, k] + (cosine - 1) * fourier[i, harmonics + order, k]
                sine, cosine = sine * cosine1 + cosine * sine1, cosine * cosine1 - sine * sine1


@numba.njit(nogil=True, cache=True)
def _backward(local, polynomial, fourier, slope, by_local, by_polynomial, by_fourier):  # type: ignore[no-untyped-def]
    powers, harmonics, width = polynomial.shape[1], fourier.shape[1] // 2, polynomial.shape[2]
    for i in range(len(local)):
        t = local[i]
        total = 0.0
        before, term = 1.0, t
        for n in range(powers):
            for k in range(width):
                by_polynomial[i, n, k] = term * slope[i, k]
                total += (n + 1) * before * polynomial[i, n, k] * slope[i, k]
            before, term = term, term * t
        if harmonics:
            sine1, cosine1 = math.sin(2 * math.pi * t), math.cos(2 * math.pi * t)
            sine, cosine = sine1, cosine1
            for order in range(harmonics):
                rate = 2 * math.pi * (order + 1)
                for k in range(width):
                    by_fourier[i, order, k] = sine * slope[i, k]
                    by_fourier[i, harmonics + order, k] = (cosine - 1) * slope[i, k]
                    total += rate * (cosine * fourier[i, order, k] - sine * fourier[i, harmonics + order, k]) * slope[i, k]
                sine, cosine = sine * cosine1 + cosine * sine1, cosine * cosine1 - sine * sine1
        by_local[i] = total


class _Series(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local, polynomial, fourier):  # type: ignore[no-untyped-def]
        ctx.arrays = [tensor.detach().contiguous().numpy() for tensor in (local, polynomial, fourier)]
        out = np.empty((len(local), polynomial.shape[2]), ctx.arrays[1].dtype)
        _forward(*ctx.arrays, out)  # type: ignore[call-arg]
        return torch.from_numpy(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):  # type: ignore[no-untyped-def]
        slopes = [np.empty_like(array) for array in ctx.arrays]
        _backward(*ctx.arrays, slope.contiguous().numpy(), *slopes)  # type: ignore[call-arg]
        return tuple(torch.from_numpy(array) for array in slopes)
