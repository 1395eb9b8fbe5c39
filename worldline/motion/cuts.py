"""Cuts of 4D Gaussians at a moment, for many at once: needed at every step of a fit, so compiled, backward pass by hand.

`worldline.motion.native_4d.cut` is the readable twin: it says what is computed, and computes it on a GPU.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor


def cut_gaussians(left: Tensor, right: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return velocities `[N, 3]`, variances in time `[N]` and conditional covariances `[N, 3, 3]`.

    Args:
        left: `[N, 4]` quaternions of any length, on the CPU.
        right: `[N, 4]` the same.
        sizes: `[N, 4]` standard deviations along x, y, z and time before rotation.
    """
    return _Cut.apply(left, right, sizes)


def product_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return index and sign `[4, 4]` of the matrix of v -> q v, then of v -> v conj(q), on the axes (x, y, z, t).

    An entry of a matrix is sign times the component `index` of q. A point is the quaternion (t, x, y, z).
    """
    # e_a e_b = sign e_c for the units (1, i, j, k), as (c, sign).
    units = (
        ((0, 1), (1, 1), (2, 1), (3, 1)),
        ((1, 1), (0, -1), (3, 1), (2, -1)),
        ((2, 1), (3, -1), (0, -1), (1, 1)),
        ((3, 1), (2, 1), (1, -1), (0, -1)),
    )
    axis = (3, 0, 1, 2)  # on which a component of a point lies
    tables = np.zeros((4, 4, 4), np.int64)
    for a in range(4):
        for b in range(4):
            c, sign = units[a][b]
            tables[0, axis[c], axis[b]], tables[1, axis[c], axis[b]] = a, sign
            tables[2, axis[c], axis[a]], tables[3, axis[c], axis[a]] = b, sign if b == 0 else -sign
    return tables[0], tables[1], tables[2], tables[3]


_LEFT_INDEX, _LEFT_SIGN, _RIGHT_INDEX, _RIGHT_SIGN = product_tables()


@numba.njit(nogil=True, cache=True)
def _rotate(left, right, left_matrix, right_matrix, rotation):  # type: ignore[no-untyped-def]
    """Write both matrices and their product, from quaternions of any length; return the lengths."""
    length_left = math.sqrt(left[0] ** 2 + left[1] ** 2 + left[2] ** 2 + left[3] ** 2)
    length_right = math.sqrt(right[0] ** 2 + right[1] ** 2 + right[2] ** 2 + right[3] ** 2)
    for i in range(4):
        for j in range(4):
            left_matrix[i, j] = _LEFT_SIGN[i, j] * left[_LEFT_INDEX[i, j]] / length_left
            right_matrix[i, j] = _RIGHT_SIGN[i, j] * right[_RIGHT_INDEX[i, j]] / length_right
    for i in range(4):
        for j in range(4):
            rotation[i, j] = 0.0
            for k in range(4):
                rotation[i, j] += left_matrix[i, k] * right_matrix[k, j]
    return length_left, length_right


@numba.njit(nogil=True, cache=True)
def _condition(rotation, sizes, factor, rest, velocity):  # type: ignore[no-untyped-def]
    """Write Sigma = factor factor^T, the velocity, and what is left of space without its part along time; return Sigma_tt."""
    variance = 0.0
    for j in range(4):
        for i in range(4):
            factor[i, j] = rotation[i, j] * sizes[j]
        variance += factor[3, j] ** 2
    for a in range(3):
        velocity[a] = 0.0
        for j in range(4):
            velocity[a] += factor[a, j] * factor[3, j]
        velocity[a] /= variance
        for j in range(4):
            rest[a, j] = factor[a, j] - velocity[a] * factor[3, j]
    return variance


@numba.njit(nogil=True, cache=True)
def _forward(left, right, sizes, velocities, variances, covars):  # type: ignore[no-untyped-def]
    left_matrix, right_matrix, rotation, factor = np.empty((4, 4)), np.empty((4, 4)), np.empty((4, 4)), np.empty((4, 4))
    rest, velocity = np.empty((3, 4)), np.empty(3)
    for n in range(len(left)):
        _rotate(left[n], right[n], left_matrix, right_matrix, rotation)
        variances[n] = _condition(rotation, sizes[n], factor, rest, velocity)
        for a in range(3):
            velocities[n, a] = velocity[a]
            for b in range(3):
                total = 0.0
                for j in range(4):
                    total += rest[a, j] * rest[b, j]
                covars[n, a, b] = total


@numba.njit(nogil=True, cache=True)
def _backward(left, right, sizes, by_velocities, by_variances, by_covars, by_left, by_right, by_sizes):  # type: ignore[no-untyped-def]
    left_matrix, right_matrix, rotation, factor = np.empty((4, 4)), np.empty((4, 4)), np.empty((4, 4)), np.empty((4, 4))
    rest, velocity, by_factor, slopes = np.empty((3, 4)), np.empty(3), np.empty((4, 4)), np.empty((2, 4))
    for n in range(len(left)):
        lengths = _rotate(left[n], right[n], left_matrix, right_matrix, rotation)
        variance = _condition(rotation, sizes[n], factor, rest, velocity)
        by_variance = by_variances[n]
        by_factor[3] = 0.0
        for a in range(3):
            by_velocity = by_velocities[n, a]
            for j in range(4):
                by_rest = 0.0
                for b in range(3):
                    by_rest += (by_covars[n, a, b] + by_covars[n, b, a]) * rest[b, j]
                by_factor[a, j] = by_rest
                by_velocity -= by_rest * factor[3, j]
                by_factor[3, j] -= by_rest * velocity[a]
            by_variance -= by_velocity * velocity[a] / variance
            for j in range(4):
                by_factor[a, j] += by_velocity / variance * factor[3, j]
                by_factor[3, j] += by_velocity / variance * factor[a, j]
        for j in range(4):
            by_factor[3, j] += 2.0 * by_variance * factor[3, j]
            total = 0.0
            for i in range(4):
                total += by_factor[i, j] * rotation[i, j]
                by_factor[i, j] *= sizes[n, j]  # from here on the derivative by the rotation
            by_sizes[n, j] = total
        slopes[:] = 0.0
        for i in range(4):
            for j in range(4):
                by_left_entry, by_right_entry = 0.0, 0.0
                for k in range(4):
                    by_left_entry += by_factor[i, k] * right_matrix[j, k]
                    by_right_entry += left_matrix[k, i] * by_factor[k, j]
                slopes[0, _LEFT_INDEX[i, j]] += _LEFT_SIGN[i, j] * by_left_entry
                slopes[1, _RIGHT_INDEX[i, j]] += _RIGHT_SIGN[i, j] * by_right_entry
        _through_length(left[n], lengths[0], slopes[0], by_left[n])
        _through_length(right[n], lengths[1], slopes[1], by_right[n])


@numba.njit(nogil=True, cache=True)
def _through_length(quat, length, slope, out):  # type: ignore[no-untyped-def]
    """Write the derivative by a quaternion, given that by the unit quaternion."""
    along = 0.0
    for k in range(4):
        along += quat[k] * slope[k] / length
    for k in range(4):
        out[k] = (slope[k] - along * quat[k] / length) / length


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, sizes):  # type: ignore[no-untyped-def]
        ctx.arrays = [tensor.detach().contiguous().numpy() for tensor in (left, right, sizes)]
        count, dtype = len(left), ctx.arrays[0].dtype
        results = np.empty((count, 3), dtype), np.empty(count, dtype), np.empty((count, 3, 3), dtype)
        _forward(*ctx.arrays, *results)  # type: ignore[call-arg]
        return tuple(torch.from_numpy(array) for array in results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *slopes):  # type: ignore[no-untyped-def]
        found = [np.empty_like(array) for array in ctx.arrays]
        _backward(*ctx.arrays, *(slope.contiguous().numpy() for slope in slopes), *found)
        return tuple(torch.from_numpy(array) for array in found)
