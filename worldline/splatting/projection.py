"""Project 3D Gaussians to the image: local affine (EWA) approximation, forward and hand-written backward.

Zwicker et al., "EWA splatting", 2002; Kerbl et al., "3D Gaussian splatting", 2023, section 4. Conventions are those of
gsplat 1.5.3: OpenCV cameras, pixel centres at +0.5, the direction in which the Jacobian is taken clamped to 0.3 times the
half field of view beyond the image border, `eps2d` added to the diagonal of the image covariance.
"""

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.threads import map_pieces

ALPHA_THRESHOLD = 1.0 / 255.0
CHUNK = 4096  # Gaussians per piece of work: fixed, so that sums over pieces do not depend on the number of threads


@numba.njit(nogil=True, cache=True, inline="always")
def _rotation(quat, rotation):  # type: ignore[no-untyped-def]
    """Write the rotation matrix of a wxyz quaternion of any length and return the inverse of that length."""
    inverse = 1.0 / math.sqrt(max(quat[0] ** 2 + quat[1] ** 2 + quat[2] ** 2 + quat[3] ** 2, 1e-24))
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    rotation[0, 0] = 1 - 2 * (y * y + z * z)
    rotation[0, 1] = 2 * (x * y - w * z)
    rotation[0, 2] = 2 * (x * z + w * y)
    rotation[1, 0] = 2 * (x * y + w * z)
    rotation[1, 1] = 1 - 2 * (x * x + z * z)
    rotation[1, 2] = 2 * (y * z - w * x)
    rotation[2, 0] = 2 * (x * z - w * y)
    rotation[2, 1] = 2 * (y * z + w * x)
    rotation[2, 2] = 1 - 2 * (x * x + y * y)
    return inverse


@numba.njit(nogil=True, cache=True, inline="always")
def _rotation_backward(quat, inverse, v, out):  # type: ignore[no-untyped-def]
    """Write the gradient by the raw quaternion from the gradient `v` by the rotation matrix."""
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    vw = 2 * (x * (v[2, 1] - v[1, 2]) + y * (v[0, 2] - v[2, 0]) + z * (v[1, 0] - v[0, 1]))
    vx = 2 * (-2 * x * (v[1, 1] + v[2, 2]) + y * (v[0, 1] + v[1, 0]) + z * (v[0, 2] + v[2, 0]) + w * (v[2, 1] - v[1, 2]))
    vy = 2 * (x * (v[0, 1] + v[1, 0]) - 2 * y * (v[0, 0] + v[2, 2]) + z * (v[1, 2] + v[2, 1]) + w * (v[0, 2] - v[2, 0]))
    vz = 2 * (x * (v[0, 2] + v[2, 0]) + y * (v[1, 2] + v[2, 1]) - 2 * z * (v[0, 0] + v[1, 1]) + w * (v[1, 0] - v[0, 1]))
    along = vw * w + vx * x + vy * y + vz * z  # the length of the quaternion has no effect
    out[0] = (vw - along * w) * inverse
    out[1] = (vx - along * x) * inverse
    out[2] = (vy - along * y) * inverse
    out[3] = (vz - along * z) * inverse


@numba.njit(nogil=True, cache=True, inline="always")
def _clamped(value, low, high):  # type: ignore[no-untyped-def]
    return min(max(value, low), high)


@numba.njit(nogil=True, cache=True, inline="always")
def _limits(K, width, height):  # type: ignore[no-untyped-def]
    """Return the range of x/z and y/z in which the Jacobian is taken."""
    margin_x, margin_y = 0.15 * width / K[0, 0], 0.15 * height / K[1, 1]
    return (
        -K[0, 2] / K[0, 0] - margin_x,
        (width - K[0, 2]) / K[0, 0] + margin_x,
        -K[1, 2] / K[1, 1] - margin_y,
        (height - K[1, 2]) / K[1, 1] + margin_y,
    )


@numba.njit(nogil=True, cache=True, inline="always")
def _image_from_world_affine(view, K, px, py, pz, tx, ty, affine):  # type: ignore[no-untyped-def]
    """Write the 2x3 product of the projection's Jacobian at (tx, ty, pz) and the camera's rotation."""
    for j in range(3):
        affine[0, j] = K[0, 0] / pz * (view[0, j] - tx / pz * view[2, j])
        affine[1, j] = K[1, 1] / pz * (view[1, j] - ty / pz * view[2, j])


@numba.njit(nogil=True, cache=True)
def _project(  # type: ignore[no-untyped-def]
    means, quats, scales, covars, opacities, view, K, width, height, near, far, eps2d, radius_clip, compensate, start, stop,
    means2d, conics, depths, compensations, radii,
):  # fmt: skip
    """Project Gaussians `start` to `stop`; `covars` replaces quats and scales where it is not empty."""
    low_x, high_x, low_y, high_y = _limits(K, width, height)
    rotation, affine = np.empty((3, 3), means.dtype), np.empty((2, 3), means.dtype)
    for i in range(start, stop):
        m = means[i]
        px = view[0, 0] * m[0] + view[0, 1] * m[1] + view[0, 2] * m[2] + view[0, 3]
        py = view[1, 0] * m[0] + view[1, 1] * m[1] + view[1, 2] * m[2] + view[1, 3]
        pz = view[2, 0] * m[0] + view[2, 1] * m[1] + view[2, 2] * m[2] + view[2, 3]
        if not (near <= pz <= far):
            continue
        tx, ty = pz * _clamped(px / pz, low_x, high_x), pz * _clamped(py / pz, low_y, high_y)
        _image_from_world_affine(view, K, px, py, pz, tx, ty, affine)
        xx = xy = yy = 0.0
        if len(covars):
            for j in range(3):
                for k in range(3):
                    xx += affine[0, j] * covars[i, j, k] * affine[0, k]
                    xy += affine[0, j] * covars[i, j, k] * affine[1, k]
                    yy += affine[1, j] * covars[i, j, k] * affine[1, k]
        else:
            _rotation(quats[i], rotation)
            for k in range(3):
                ux = affine[0, 0] * rotation[0, k] + affine[0, 1] * rotation[1, k] + affine[0, 2] * rotation[2, k]
                uy = affine[1, 0] * rotation[0, k] + affine[1, 1] * rotation[1, k] + affine[1, 2] * rotation[2, k]
                ux, uy = ux * scales[i, k], uy * scales[i, k]
                xx, xy, yy = xx + ux * ux, xy + ux * uy, yy + uy * uy
        determinant_sharp = xx * yy - xy * xy
        xx, yy = xx + eps2d, yy + eps2d
        determinant = xx * yy - xy * xy
        if not determinant > 0.0:
            continue
        compensation = math.sqrt(max(determinant_sharp / determinant, 0.0))
        opacity = opacities[i] * compensation if compensate else opacities[i]
        if opacity < ALPHA_THRESHOLD:
            continue
        # The smallest box around the pixels in which alpha can reach the threshold (Radl et al. 2024, section B.2).
        extend = min(3.33, math.sqrt(2.0 * math.log(opacity / ALPHA_THRESHOLD)))
        radius_x, radius_y = math.ceil(extend * math.sqrt(xx)), math.ceil(extend * math.sqrt(yy))
        u, v = K[0, 0] * px / pz + K[0, 2], K[1, 1] * py / pz + K[1, 2]
        if radius_x <= radius_clip and radius_y <= radius_clip:
            continue
        if u + radius_x <= 0 or u - radius_x >= width or v + radius_y <= 0 or v - radius_y >= height:
            continue
        means2d[i, 0], means2d[i, 1], depths[i], compensations[i] = u, v, pz, compensation
        conics[i, 0], conics[i, 1], conics[i, 2] = yy / determinant, -xy / determinant, xx / determinant
        radii[i, 0], radii[i, 1] = min(radius_x, 1 << 20), min(radius_y, 1 << 20)


@numba.njit(nogil=True, cache=True)
def _project_backward(  # type: ignore[no-untyped-def]
    means, quats, scales, covars, view, K, width, height, eps2d, start, stop, conics, compensations, radii,
    v_means2d, v_conics, v_depths, v_compensations,
    v_means, v_quats, v_scales, v_covars, v_view,
):  # fmt: skip
    """Add the gradients of Gaussians `start` to `stop` to the `v_` arrays of the inputs."""
    low_x, high_x, low_y, high_y = _limits(K, width, height)
    fx, fy = K[0, 0], K[1, 1]
    dtype = means.dtype
    rotation, v_rotation = np.empty((3, 3), dtype), np.empty((3, 3), dtype)
    affine, v_affine = np.empty((2, 3), dtype), np.empty((2, 3), dtype)
    for i in range(start, stop):
        if radii[i, 0] <= 0:
            continue
        m = means[i]
        px = view[0, 0] * m[0] + view[0, 1] * m[1] + view[0, 2] * m[2] + view[0, 3]
        py = view[1, 0] * m[0] + view[1, 1] * m[1] + view[1, 2] * m[2] + view[1, 3]
        pz = view[2, 0] * m[0] + view[2, 1] * m[1] + view[2, 2] * m[2] + view[2, 3]
        tx, ty = pz * _clamped(px / pz, low_x, high_x), pz * _clamped(py / pz, low_y, high_y)
        _image_from_world_affine(view, K, px, py, pz, tx, ty, affine)
        # Gradient by the image covariance S, from its inverse X = S^-1: -X G X with the off-diagonal split in two.
        a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
        ga, gb, gc = v_conics[i, 0], 0.5 * v_conics[i, 1], v_conics[i, 2]
        h00, h01, h10, h11 = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
        gxx, gxy, gyy = -(h00 * a + h01 * b), -(h00 * b + h01 * c), -(h10 * b + h11 * c)
        compensation = compensations[i]
        if v_compensations[i] != 0.0 and compensation > 1e-6:
            # compensation^2 = det S0 / det S with S = S0 + eps I; the derivative of det S0 is its adjugate.
            determinant = 1.0 / (a * c - b * b)
            sharp_xx, sharp_yy, xy = c * determinant - eps2d, a * determinant - eps2d, -b * determinant
            factor, square = 0.5 * v_compensations[i] / compensation, compensation * compensation
            gxx += factor * (sharp_yy / determinant - square * a)
            gxy += factor * (-xy / determinant - square * b)
            gyy += factor * (sharp_xx / determinant - square * c)
        v_affine[:] = 0.0
        if len(covars):
            for j in range(3):
                for k in range(3):
                    first = gxx * affine[0, k] + gxy * affine[1, k]
                    second = gxy * affine[0, k] + gyy * affine[1, k]
                    v_covars[i, j, k] += affine[0, j] * first + affine[1, j] * second
                    v_affine[0, j] += 2 * first * covars[i, k, j]
                    v_affine[1, j] += 2 * second * covars[i, k, j]
        else:
            inverse = _rotation(quats[i], rotation)
            for k in range(3):
                ux = affine[0, 0] * rotation[0, k] + affine[0, 1] * rotation[1, k] + affine[0, 2] * rotation[2, k]
                uy = affine[1, 0] * rotation[0, k] + affine[1, 1] * rotation[1, k] + affine[1, 2] * rotation[2, k]
                s = scales[i, k]
                vx, vy = 2 * (gxx * ux + gxy * uy) * s, 2 * (gxy * ux + gyy * uy) * s
                v_scales[i, k] += vx * ux + vy * uy
                vx, vy = vx * s, vy * s
                for j in range(3):
                    v_affine[0, j] += vx * rotation[j, k]
                    v_affine[1, j] += vy * rotation[j, k]
                    v_rotation[j, k] = affine[0, j] * vx + affine[1, j] * vy
            _rotation_backward(quats[i], inverse, v_rotation, v_quats[i])
        # affine = J W with J = [[fx/z, 0, -fx tx/z^2], [0, fy/z, -fy ty/z^2]]
        v00 = v02 = v11 = v12 = 0.0
        for j in range(3):
            v00 += v_affine[0, j] * view[0, j]
            v02 += v_affine[0, j] * view[2, j]
            v11 += v_affine[1, j] * view[1, j]
            v12 += v_affine[1, j] * view[2, j]
            v_view[0, j] += fx / pz * v_affine[0, j]
            v_view[1, j] += fy / pz * v_affine[1, j]
            v_view[2, j] -= (fx * tx * v_affine[0, j] + fy * ty * v_affine[1, j]) / (pz * pz)
        u_grad, v_grad = v_means2d[i, 0], v_means2d[i, 1]
        vpx, vpy = fx / pz * u_grad, fy / pz * v_grad
        vpz = v_depths[i] - (fx * px * u_grad + fy * py * v_grad + fx * v00 + fy * v11) / (pz * pz)
        if tx == px or low_x < px / pz < high_x:
            vpx -= fx / (pz * pz) * v02
            vpz += 2 * fx * tx / (pz * pz * pz) * v02
        else:
            vpz += fx * tx / (pz * pz * pz) * v02
        if ty == py or low_y < py / pz < high_y:
            vpy -= fy / (pz * pz) * v12
            vpz += 2 * fy * ty / (pz * pz * pz) * v12
        else:
            vpz += fy * ty / (pz * pz * pz) * v12
        for j in range(3):
            v_means[i, j] += view[0, j] * vpx + view[1, j] * vpy + view[2, j] * vpz
            v_view[0, j] += vpx * m[j]
            v_view[1, j] += vpy * m[j]
            v_view[2, j] += vpz * m[j]
        v_view[0, 3] += vpx
        v_view[1, 3] += vpy
        v_view[2, 3] += vpz


class Project(torch.autograd.Function):
    """Differentiable projection of N Gaussians into one camera."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, covars, opacities, viewmat, K, settings):  # type: ignore[no-untyped-def]
        """Project; the opacities only decide which pixels a Gaussian can reach."""
        width, height, near, far, eps2d, radius_clip, compensate = settings
        tensors = (means, quats, scales, covars, opacities, viewmat, K)
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        count, dtype = len(arrays[0]), arrays[0].dtype
        means2d, conics = np.zeros((count, 2), dtype), np.zeros((count, 3), dtype)
        depths, compensations = np.zeros(count, dtype), np.zeros(count, dtype)
        radii = np.zeros((count, 2), np.int32)
        outputs = (means2d, conics, depths, compensations, radii)

        def piece(index: int) -> None:
            stop = min((index + 1) * CHUNK, count)
            limits = (width, height, near, far, eps2d, radius_clip, compensate)
            _project(*arrays, *limits, index * CHUNK, stop, *outputs)  # type: ignore[call-arg]

        map_pieces(piece, -(-count // CHUNK))
        ctx.arrays, ctx.outputs, ctx.settings = arrays, outputs, settings
        result = tuple(torch.from_numpy(output) for output in outputs)
        ctx.mark_non_differentiable(result[4])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_means2d, v_conics, v_depths, v_compensations, _):  # type: ignore[no-untyped-def]
        """Return the gradients by means, quats, scales, covars and viewmat."""
        means, quats, scales, covars, _opacities, view, K = ctx.arrays
        _, conics, _, compensations, radii = ctx.outputs
        width, height, eps2d = ctx.settings[0], ctx.settings[1], ctx.settings[4]
        upstream = [v.contiguous().numpy() for v in (v_means2d, v_conics, v_depths, v_compensations)]
        gradients = [np.zeros_like(array) for array in (means, quats, scales, covars)]
        pieces = -(-len(means) // CHUNK)
        v_views = np.zeros((max(pieces, 1), 4, 4), means.dtype)

        def piece(index: int) -> None:
            stop = min((index + 1) * CHUNK, len(means))
            inputs = (means, quats, scales, covars, view, K, width, height, eps2d, index * CHUNK, stop)
            _project_backward(*inputs, conics, compensations, radii, *upstream, *gradients, v_views[index])  # type: ignore[call-arg]

        map_pieces(piece, pieces)
        v_means, v_quats, v_scales, v_covars = (torch.from_numpy(gradient) for gradient in gradients)
        return v_means, v_quats, v_scales, v_covars, None, torch.from_numpy(v_views.sum(axis=0)), None, None
