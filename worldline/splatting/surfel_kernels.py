"""Project surfels (flat Gaussians) to what their images are made of, with a hand-written backward.

Huang, Yu, Chen, Geiger, Gao, "2D Gaussian splatting for geometrically accurate radiance fields", 2024, section 4. A surfel
with centre p, tangents t1, t2 (already as long as its scales) in the camera's frame is the plane p + s1 t1 + s2 t2, and a
point (s1, s2) of it has the weight exp(-(s1^2 + s2^2) / 2). Its pixel, seen from the pixel of the centre, is

    dx = (a1 s1 + a2 s2) / (z + w1 s1 + w2 s2),   dy = (b1 s1 + b2 s2) / (z + w1 s1 + w2 s2)

with a = fx (t_x - p_x / p_z t_z), b = fy (t_y - p_y / p_z t_z), w = t_z and z = p_z: the paper's ray transform (equation 8)
moved to the centre, which costs no precision far from the image's corner. The ray of a pixel is then met at

    s1 = z (b2 dx - a2 dy) / q,   s2 = z (a1 dy - b1 dx) / q,   depth = z D / q,
    q = D + E dx + F dy,   D = a1 b2 - a2 b1,   E = w2 b1 - w1 b2,   F = w1 a2 - w2 a1,

which is linear over linear along a row of pixels. D = 0 where the surfel is seen edge-on, q / D <= 0 where the meeting is
not in front of the camera. A round spot of variance 1 / 2 square pixel stands in where it covers more (the paper's
low-pass filter, equation 11); like gsplat 1.5.3 we put it at the middle of the surfel's image at one standard deviation.
"""

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.splatting.projection import ALPHA_THRESHOLD, CHUNK, _rotation, _rotation_backward
from worldline.threads import map_pieces

FILTER = 2.0  # inverse variance of the low-pass filter in 1 / pixel^2


@numba.njit(nogil=True, cache=True, inline="always")
def _camera_frame(mean, rotation, view, point, axes):  # type: ignore[no-untyped-def]
    """Write a centre and the columns of a rotation in the camera's frame."""
    for j in range(3):
        point[j] = view[j, 0] * mean[0] + view[j, 1] * mean[1] + view[j, 2] * mean[2] + view[j, 3]
        for k in range(3):
            axes[j, k] = view[j, 0] * rotation[0, k] + view[j, 1] * rotation[1, k] + view[j, 2] * rotation[2, k]


@numba.njit(nogil=True, cache=True, inline="always")
def _extent(plane, along, level):  # type: ignore[no-untyped-def]
    """Return middle and half size, along one image axis, of the ellipse s1^2 + s2^2 <= 2 level."""
    w1, w2, z = plane[4], plane[5], plane[6]
    first, second = plane[2 * along], plane[2 * along + 1]
    square = 2.0 * level
    ahead = z * z - square * (w1 * w1 + w2 * w2)
    middle = -square * (first * w1 + second * w2) / ahead
    return middle, math.sqrt(middle * middle + square * (first * first + second * second) / ahead)


@numba.njit(nogil=True, cache=True, inline="always")
def _pixels(low, high, size):  # type: ignore[no-untyped-def]
    """Return the pixels [first, last) whose centres lie between two positions, with a margin for rounding."""
    low, high = max(low, -1.0), min(high, size + 1.0)
    return max(0, math.ceil(low - 0.51)), min(size, math.floor(high - 0.49) + 1)


@numba.njit(nogil=True, cache=True)
def _project(  # type: ignore[no-untyped-def]
    means, quats, scales, opacities, view, K, width, height, near, far, radius_clip, start, stop,
    means2d, planes, normals, radii, boxes,
):  # fmt: skip
    """Project surfels `start` to `stop`; what is not seen keeps an empty box."""
    rotation, axes, point = np.empty((3, 3), means.dtype), np.empty((3, 3), means.dtype), np.empty(3, means.dtype)
    for i in range(start, stop):
        _rotation(quats[i], rotation)
        _camera_frame(means[i], rotation, view, point, axes)
        z = point[2]
        if not (near < z < far) or opacities[i] < ALPHA_THRESHOLD:
            continue
        x, y = point[0] / z, point[1] / z
        plane = planes[i]
        for k in range(2):
            size = scales[i, k]
            plane[k] = K[0, 0] * size * (axes[0, k] - x * axes[2, k])
            plane[2 + k] = K[1, 1] * size * (axes[1, k] - y * axes[2, k])
            plane[4 + k] = size * axes[2, k]
        plane[6] = z
        u, v = K[0, 0] * x + K[0, 2], K[1, 1] * y + K[1, 2]
        means2d[i, 0], means2d[i, 1] = u, v
        level = math.log(opacities[i] / ALPHA_THRESHOLD)
        steep = plane[4] * plane[4] + plane[5] * plane[5]
        if z * z > 1.0001 * 2.0 * level * steep:
            middle_x, half_x = _extent(plane, 0, level)
            middle_y, half_y = _extent(plane, 1, level)
        else:  # reaches to where it can be seen at any pixel
            middle_x, half_x, middle_y, half_y = 0.5 * width - u, 0.5 * width, 0.5 * height - v, 0.5 * height
        spot_x, spot_y, spot = 0.0, 0.0, 0.0
        if z * z > steep:
            spot_x = -(plane[0] * plane[4] + plane[1] * plane[5]) / (z * z - steep)
            spot_y = -(plane[2] * plane[4] + plane[3] * plane[5]) / (z * z - steep)
            spot = math.sqrt(2.0 * level / FILTER)
        left, right = min(middle_x - half_x, spot_x - spot), max(middle_x + half_x, spot_x + spot)
        top, bottom = min(middle_y - half_y, spot_y - spot), max(middle_y + half_y, spot_y + spot)
        radius_x, radius_y = math.ceil(max(-left, right)), math.ceil(max(-top, bottom))
        if radius_x <= radius_clip and radius_y <= radius_clip:
            continue
        x0, x1 = _pixels(u + left, u + right, width)
        y0, y1 = _pixels(v + top, v + bottom, height)
        if x0 >= x1 or y0 >= y1:
            continue
        toward = axes[0, 2] * point[0] + axes[1, 2] * point[1] + axes[2, 2] * point[2]
        for j in range(3):
            normals[i, j] = rotation[j, 2] if toward < 0.0 else -rotation[j, 2]
        radii[i, 0], radii[i, 1] = max(1.0, min(radius_x, 1 << 20)), max(1.0, min(radius_y, 1 << 20))
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = x0, x1, y0, y1


@numba.njit(nogil=True, cache=True)
def _project_backward(  # type: ignore[no-untyped-def]
    means, quats, scales, view, K, boxes, start, stop, v_means2d, v_planes, v_normals, v_means, v_quats, v_scales, v_view
):
    """Add the gradients of surfels `start` to `stop` to the `v_` arrays of the inputs."""
    dtype = means.dtype
    fx, fy = K[0, 0], K[1, 1]
    rotation, v_rotation = np.empty((3, 3), dtype), np.empty((3, 3), dtype)
    axes, v_axes, point = np.empty((3, 3), dtype), np.empty((3, 2), dtype), np.empty(3, dtype)
    for i in range(start, stop):
        if boxes[i, 0] >= boxes[i, 1]:
            continue
        inverse = _rotation(quats[i], rotation)
        _camera_frame(means[i], rotation, view, point, axes)
        z = point[2]
        x, y = point[0] / z, point[1] / z
        v_plane = v_planes[i]
        v_x, v_y = fx * v_means2d[i, 0], fy * v_means2d[i, 1]
        for k in range(2):
            size = scales[i, k]
            tangent_x, tangent_y = fx * v_plane[k], fy * v_plane[2 + k]
            tangent_z = v_plane[4 + k] - x * tangent_x - y * tangent_y
            v_x -= tangent_x * size * axes[2, k]
            v_y -= tangent_y * size * axes[2, k]
            v_scales[i, k] += tangent_x * axes[0, k] + tangent_y * axes[1, k] + tangent_z * axes[2, k]
            v_axes[0, k], v_axes[1, k], v_axes[2, k] = size * tangent_x, size * tangent_y, size * tangent_z
        toward = axes[0, 2] * point[0] + axes[1, 2] * point[1] + axes[2, 2] * point[2]
        v_point = (v_x / z, v_y / z, v_plane[6] - (v_x * x + v_y * y) / z)
        for j in range(3):
            v_rotation[j, 2] = v_normals[i, j] if toward < 0.0 else -v_normals[i, j]
            for k in range(2):
                v_rotation[j, k] = view[0, j] * v_axes[0, k] + view[1, j] * v_axes[1, k] + view[2, j] * v_axes[2, k]
            for k in range(3):
                v_view[j, k] += v_axes[j, 0] * rotation[k, 0] + v_axes[j, 1] * rotation[k, 1] + v_point[j] * means[i, k]
                v_means[i, j] += view[k, j] * v_point[k]
            v_view[j, 3] += v_point[j]
        _rotation_backward(quats[i], inverse, v_rotation, v_quats[i])


class ProjectSurfels(torch.autograd.Function):
    """Differentiable projection of N surfels into one camera."""

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, viewmat, K, settings):  # type: ignore[no-untyped-def]
        """Project.

        Args:
            ctx: autograd's context.
            means: `[N, 3]`.
            quats: `[N, 4]` wxyz of any length.
            scales: `[N, 3]`, of which the first two are read.
            opacities: `[N]`, which only decide which pixels a surfel can reach.
            viewmat: `[4, 4]` camera_from_world.
            K: `[3, 3]`.
            settings: width, height, near plane, far plane, radius under which nothing is drawn.

        Returns:
            means2d `[N, 2]` pixels of the centres, planes `[N, 7]` as (a1, a2, b1, b2, w1, w2, z), normals `[N, 3]` in the
            world and turned to the camera, radii `[N, 2]` (0 for what is not seen) and boxes `[N, 4]` as x0, x1, y0, y1.
        """
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means, quats, scales, opacities, viewmat, K)]
        count, dtype = len(arrays[0]), arrays[0].dtype
        outputs = [np.zeros((count, columns), dtype) for columns in (2, 7, 3)]
        outputs += [np.zeros((count, columns), np.int32) for columns in (2, 4)]

        def piece(index: int) -> None:
            _project(*arrays, *settings, index * CHUNK, min((index + 1) * CHUNK, count), *outputs)  # type: ignore[call-arg]

        map_pieces(piece, -(-count // CHUNK))
        ctx.arrays, ctx.boxes = arrays, outputs[4]
        result = tuple(torch.from_numpy(output) for output in outputs)
        ctx.mark_non_differentiable(*result[3:])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_means2d, v_planes, v_normals, *_):  # type: ignore[no-untyped-def]
        """Return the gradients by means, quats, scales and viewmat."""
        means, quats, scales, _opacities, view, K = ctx.arrays
        upstream = [v.contiguous().numpy() for v in (v_means2d, v_planes, v_normals)]
        gradients = [np.zeros_like(array) for array in (means, quats, scales)]
        pieces = -(-len(means) // CHUNK)
        v_views = np.zeros((max(pieces, 1), 4, 4), means.dtype)

        def piece(index: int) -> None:
            span = (index * CHUNK, min((index + 1) * CHUNK, len(means)))
            _project_backward(means, quats, scales, view, K, ctx.boxes, *span, *upstream, *gradients, v_views[index])  # type: ignore[call-arg]

        map_pieces(piece, pieces)
        v_means, v_quats, v_scales = (torch.from_numpy(gradient) for gradient in gradients)
        return v_means, v_quats, v_scales, None, torch.from_numpy(v_views.sum(axis=0)), None, None
