"""The colour of a Gaussian from where it is seen: real spherical harmonics of degrees 0 to 4.

Signs and order are those of gsplat and of 3DGS PLY files: Y_l^m at index l^2 + l + m, with the Condon-Shortley phase.
The functions are written as Q_lm(z) C_m(x, y) and Q_lm(z) S_m(x, y), where C_m + i S_m = (x + iy)^m and Q_lm is a polynomial
(Sloan, "Efficient spherical harmonic evaluation", JCGT 2013). `harmonic_basis` says it in torch; a numba kernel with a
hand-written backward says the same on the CPU, where the sums over Gaussians must not depend on the number of threads.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from worldline.threads import map_pieces

DC = 0.5 / math.sqrt(math.pi)  # Y_0^0: a colour is 0.5 + DC times the first coefficient of a PLY file
MAXIMUM_DEGREE = 4
CHUNK = 4096  # Gaussians per piece of work: fixed, so that sums over pieces do not depend on the number of threads

# Factors of Y_l^m, m >= 0, in front of the polynomials below.
_K10, _K11 = math.sqrt(3 / (4 * math.pi)), math.sqrt(3 / (4 * math.pi))
_K20, _K21, _K22 = (math.sqrt(value / math.pi) for value in (5 / 16, 15 / 4, 15 / 16))
_K30, _K31, _K32, _K33 = (math.sqrt(value / math.pi) for value in (7 / 16, 21 / 32, 105 / 16, 35 / 32))
_K40, _K41, _K42 = 3 / 16 / math.sqrt(math.pi), 0.75 * math.sqrt(2.5 / math.pi), 0.375 * math.sqrt(5 / math.pi)
_K43, _K44 = 0.75 * math.sqrt(17.5 / math.pi), 3 / 16 * math.sqrt(35 / math.pi)


def harmonic_basis(directions: Tensor, degree: int) -> Tensor:
    """Return the real spherical harmonics `[..., (degree + 1)^2]` at directions `[..., 3]` of any length but zero."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    c2, s2 = x * x - y * y, 2 * x * y
    c3, s3 = x * c2 - y * s2, x * s2 + y * c2
    c4, s4 = x * c3 - y * s3, x * s3 + y * c3
    zz = z * z
    q31, q42, q41 = 5 * zz - 1, 7 * zz - 1, z * (7 * zz - 3)
    bands = [
        [torch.full_like(x, DC)],
        [-_K11 * y, _K10 * z, -_K11 * x],
        [_K22 * s2, -_K21 * z * y, _K20 * (3 * zz - 1), -_K21 * z * x, _K22 * c2],
        [-_K33 * s3, _K32 * z * s2, -_K31 * q31 * y, _K30 * z * (5 * zz - 3), -_K31 * q31 * x, _K32 * z * c2, -_K33 * c3],
        [
            _K44 * s4, -_K43 * z * s3, _K42 * q42 * s2, -_K41 * q41 * y, _K40 * (zz * (35 * zz - 30) + 3),
            -_K41 * q41 * x, _K42 * q42 * c2, -_K43 * z * c3, _K44 * c4,
        ],
    ]  # fmt: skip
    return torch.stack([function for band in bands[: degree + 1] for function in band], dim=-1)


def harmonic_degree(count: int) -> int:
    """Return the degree of which there are `count` harmonics beyond the constant one: 0, 3, 8, 15 or 24.

    Raises:
        ValueError: for another count.
    """
    degree = math.isqrt(count + 1) - 1
    if (degree + 1) ** 2 != count + 1 or degree > MAXIMUM_DEGREE:
        raise ValueError(f"harmonics: there are 0, 3, 8, 15 or 24 beyond the constant one (degrees 0 to 4), not {count}")
    return degree


def camera_centers(camera_from_world: Tensor) -> Tensor:
    """Return the centres `[..., 3]` in the world of cameras `[..., 4, 4]`."""
    return torch.linalg.solve(camera_from_world[..., :3, :3], -camera_from_world[..., :3, 3:])[..., 0]


def view_colors(means: Tensor, colors: Tensor, harmonics: Tensor, camera_from_world: Tensor) -> Tensor:
    """Return the colours in which cameras see Gaussians: max(0, colors + sum_k Y_k(direction) harmonics_k), k of degrees >= 1.

    The direction is that from the camera's centre to the Gaussian's. As in gsplat, nothing is detached: the result is
    differentiable by everything, so a colour that depends on the view also pulls at the Gaussian's and the camera's place.

    Args:
        means: `[..., N, 3]` in the world.
        colors: `[..., N, 3]`, or `[..., C, N, 3]` by camera.
        harmonics: `[..., N, K, 3]`, or `[..., C, N, K, 3]` by camera, K = 0, 3, 8, 15 or 24.
        camera_from_world: `[..., C, 4, 4]`.

    Returns:
        `[..., C, N, 3]`.
    """
    batch, cameras, count = means.shape[:-2], camera_from_world.shape[-3], means.shape[-2]
    degree = harmonic_degree(harmonics.shape[-2])
    centers = camera_centers(camera_from_world)
    if not means.is_cuda:
        flat = math.prod(batch)
        by_camera = (flat, cameras if colors.dim() == len(batch) + 3 else 1, count)
        return _ViewColors.apply(
            means.reshape(flat, count, 3), centers.reshape(flat, cameras, 3), colors.reshape(*by_camera, 3),
            harmonics.reshape(*by_camera, harmonics.shape[-2], 3), degree,
        ).reshape(*batch, cameras, count, 3)  # fmt: skip
    if colors.dim() == len(batch) + 2:
        colors, harmonics = colors.unsqueeze(-3), harmonics.unsqueeze(-4)
    basis = harmonic_basis(means.unsqueeze(-3) - centers.unsqueeze(-2), degree)[..., 1:]
    return (colors + (basis.unsqueeze(-2) @ harmonics).squeeze(-2)).clamp(min=0.0)


@numba.njit(nogil=True, cache=True, inline="always")
def _write_basis(x, y, z, degree, out):  # type: ignore[no-untyped-def]
    """Write the harmonics of degrees 1 to `degree` at a unit direction; `out[k]` is harmonic k + 1."""
    zz = z * z
    if degree > 0:
        out[0], out[1], out[2] = -_K11 * y, _K10 * z, -_K11 * x
    c2, s2 = x * x - y * y, 2 * x * y
    if degree > 1:
        out[3], out[7] = _K22 * s2, _K22 * c2
        out[4], out[6] = -_K21 * z * y, -_K21 * z * x
        out[5] = _K20 * (3 * zz - 1)
    c3, s3 = x * c2 - y * s2, x * s2 + y * c2
    if degree > 2:
        q = _K31 * (5 * zz - 1)
        out[8], out[14] = -_K33 * s3, -_K33 * c3
        out[9], out[13] = _K32 * z * s2, _K32 * z * c2
        out[10], out[12] = -q * y, -q * x
        out[11] = _K30 * z * (5 * zz - 3)
    if degree > 3:
        q2, q1 = _K42 * (7 * zz - 1), _K41 * z * (7 * zz - 3)
        out[15], out[23] = _K44 * (x * s3 + y * c3), _K44 * (x * c3 - y * s3)
        out[16], out[22] = -_K43 * z * s3, -_K43 * z * c3
        out[17], out[21] = q2 * s2, q2 * c2
        out[18], out[20] = -q1 * y, -q1 * x
        out[19] = _K40 * (zz * (35 * zz - 30) + 3)


@numba.njit(nogil=True, cache=True, inline="always")
def _basis_gradient(x, y, z, degree, v):  # type: ignore[no-untyped-def]
    """Return the gradient by (x, y, z) of sum_k v[k] Y_(k+1), as polynomials of three free variables.

    `vc`m and `vs`m are the gradients by C_m and S_m; d(C_m + i S_m) = m (C_(m-1) + i S_(m-1)) (dx + i dy).
    """
    zz = z * z
    vc1 = vs1 = vc2 = vs2 = vc3 = vs3 = vc4 = vs4 = vz = x * 0.0
    c2, s2 = x * x - y * y, 2 * x * y
    c3, s3 = x * c2 - y * s2, x * s2 + y * c2
    if degree > 0:
        vs1, vc1, vz = -_K11 * v[0], -_K11 * v[2], _K10 * v[1]
    if degree > 1:
        vs2, vc2 = _K22 * v[3], _K22 * v[7]
        vs1, vc1 = vs1 - _K21 * z * v[4], vc1 - _K21 * z * v[6]
        vz += 6 * _K20 * z * v[5] - _K21 * (y * v[4] + x * v[6])
    if degree > 2:
        q = _K31 * (5 * zz - 1)
        vs3, vc3 = -_K33 * v[8], -_K33 * v[14]
        vs2, vc2 = vs2 + _K32 * z * v[9], vc2 + _K32 * z * v[13]
        vs1, vc1 = vs1 - q * v[10], vc1 - q * v[12]
        vz += _K32 * (s2 * v[9] + c2 * v[13]) - 10 * _K31 * z * (y * v[10] + x * v[12]) + _K30 * (15 * zz - 3) * v[11]
    if degree > 3:
        q2, q1 = _K42 * (7 * zz - 1), _K41 * z * (7 * zz - 3)
        vs4, vc4 = _K44 * v[15], _K44 * v[23]
        vs3, vc3 = vs3 - _K43 * z * v[16], vc3 - _K43 * z * v[22]
        vs2, vc2 = vs2 + q2 * v[17], vc2 + q2 * v[21]
        vs1, vc1 = vs1 - q1 * v[18], vc1 - q1 * v[20]
        vz += 14 * _K42 * z * (s2 * v[17] + c2 * v[21]) - _K41 * (21 * zz - 3) * (y * v[18] + x * v[20])
        vz += _K40 * z * (140 * zz - 60) * v[19] - _K43 * (s3 * v[16] + c3 * v[22])
    vx = vc1 + 2 * (vc2 * x + vs2 * y) + 3 * (vc3 * c2 + vs3 * s2) + 4 * (vc4 * c3 + vs4 * s3)
    vy = vs1 + 2 * (vs2 * x - vc2 * y) + 3 * (vs3 * c2 - vc3 * s2) + 4 * (vs4 * c3 - vc4 * s3)
    return vx, vy, vz


@numba.njit(nogil=True, cache=True)
def _color(means, center, colors, harmonics, degree, start, stop, seen):  # type: ignore[no-untyped-def]
    """Write the colours of Gaussians `start` to `stop` as one camera sees them."""
    basis = np.empty(24, means.dtype)
    count = harmonics.shape[1]
    for i in range(start, stop):
        dx, dy, dz = means[i, 0] - center[0], means[i, 1] - center[1], means[i, 2] - center[2]
        inverse = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        _write_basis(dx * inverse, dy * inverse, dz * inverse, degree, basis)
        red, green, blue = colors[i, 0], colors[i, 1], colors[i, 2]
        for k in range(count):
            red += basis[k] * harmonics[i, k, 0]
            green += basis[k] * harmonics[i, k, 1]
            blue += basis[k] * harmonics[i, k, 2]
        seen[i, 0], seen[i, 1], seen[i, 2] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)


@numba.njit(nogil=True, cache=True)
def _color_backward(  # type: ignore[no-untyped-def]
    means, center, colors, harmonics, degree, start, stop, v_seen, v_means, v_center, v_colors, v_harmonics
):
    """Add one camera's gradients of Gaussians `start` to `stop` to the `v_` arrays of the inputs."""
    basis, v_basis = np.empty(24, means.dtype), np.empty(24, means.dtype)
    count = harmonics.shape[1]
    for i in range(start, stop):
        if v_seen[i, 0] == 0.0 and v_seen[i, 1] == 0.0 and v_seen[i, 2] == 0.0:
            continue
        dx, dy, dz = means[i, 0] - center[0], means[i, 1] - center[1], means[i, 2] - center[2]
        inverse = 1.0 / max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
        x, y, z = dx * inverse, dy * inverse, dz * inverse
        _write_basis(x, y, z, degree, basis)
        v_basis[:] = 0.0
        for channel in range(3):
            value = colors[i, channel]
            for k in range(count):
                value += basis[k] * harmonics[i, k, channel]
            if value < 0.0:
                continue  # clamped
            v = v_seen[i, channel]
            v_colors[i, channel] += v
            for k in range(count):
                v_harmonics[i, k, channel] += basis[k] * v
                v_basis[k] += harmonics[i, k, channel] * v
        vx, vy, vz = _basis_gradient(x, y, z, degree, v_basis)
        along = vx * x + vy * y + vz * z  # how far away the camera is has no effect
        vx, vy, vz = (vx - along * x) * inverse, (vy - along * y) * inverse, (vz - along * z) * inverse
        v_means[i, 0] += vx
        v_means[i, 1] += vy
        v_means[i, 2] += vz
        v_center[0] -= vx
        v_center[1] -= vy
        v_center[2] -= vz


class _ViewColors(torch.autograd.Function):
    """`view_colors` on the CPU, flattened to B moments of C cameras; colours have one set for all cameras, or C."""

    @staticmethod
    def forward(ctx: Any, means, centers, colors, harmonics, degree: int):  # type: ignore[no-untyped-def]
        """Return `[B, C, N, 3]` from `[B, N, 3]`, `[B, C, 3]`, `[B, 1 or C, N, 3]` and `[B, 1 or C, N, K, 3]`."""
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means, centers, colors, harmonics)]
        means_, centers_, colors_, harmonics_ = arrays
        (moments, cameras), count, sets = centers_.shape[:2], means_.shape[1], colors_.shape[1]
        seen = np.empty((moments, cameras, count, 3), means_.dtype)
        chunks = -(-count // CHUNK)

        def piece(index: int) -> None:
            image, chunk = divmod(index, chunks)
            b, c = divmod(image, cameras)
            own = (b, c % sets)
            span = (chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            _color(means_[b], centers_[b, c], colors_[own], harmonics_[own], degree, *span, seen[b, c])

        map_pieces(piece, moments * cameras * chunks)
        ctx.arrays, ctx.degree = arrays, degree
        return torch.from_numpy(seen)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_seen):  # type: ignore[no-untyped-def]
        """Return the gradients by means, centres, colours and harmonics."""
        means, centers, colors, harmonics = ctx.arrays
        v_seen_ = v_seen.contiguous().numpy()
        (moments, cameras), count, sets = centers.shape[:2], means.shape[1], colors.shape[1]
        v_means, v_colors, v_harmonics = np.zeros_like(means), np.zeros_like(colors), np.zeros_like(harmonics)
        chunks = -(-count // CHUNK)
        v_centers = np.zeros((chunks, *centers.shape), means.dtype)

        def piece(index: int) -> None:
            b, chunk = divmod(index, chunks)
            span = (chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            for c in range(cameras):
                own = (b, c % sets)
                inputs = (means[b], centers[b, c], colors[own], harmonics[own], ctx.degree, *span, v_seen_[b, c])
                _color_backward(*inputs, v_means[b], v_centers[chunk, b, c], v_colors[own], v_harmonics[own])  # type: ignore[call-arg]

        map_pieces(piece, moments * chunks)
        gradients = (v_means, v_centers.sum(axis=0), v_colors, v_harmonics)
        return *(torch.from_numpy(gradient) for gradient in gradients), None
