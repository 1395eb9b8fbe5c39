"""Project surfels (flat Gaussians) and composite where rays meet them, with a hand-written backward.

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

Splats are walked one by one over bands of rows, as in `worldline.splatting.compositing`.
"""

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.splatting.projection import ALPHA_THRESHOLD, CHUNK, _rotation, _rotation_backward
from worldline.threads import map_pieces

BAND_ROWS = 16
ALPHA_MAXIMUM = 0.999
TRANSMITTANCE_MINIMUM = 1e-4
FILTER = 2.0  # inverse variance of the low-pass filter in 1 / pixel^2
NEVER = np.iinfo(np.int32).max
FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}


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


@numba.njit(nogil=True, cache=True)
def _list_bands(order, boxes, bands):  # type: ignore[no-untyped-def]
    """Return the surfels of each band of rows in depth order: (offsets `[bands + 1]`, ids `[M]`)."""
    offsets = np.zeros(bands + 1, np.int64)
    for i in order:
        for band in range(boxes[i, 2] // BAND_ROWS, (boxes[i, 3] - 1) // BAND_ROWS + 1):
            offsets[band + 1] += 1
    for band in range(bands):
        offsets[band + 1] += offsets[band]
    ids, fill = np.empty(offsets[bands], np.int32), offsets[:bands].copy()
    for i in order:
        for band in range(boxes[i, 2] // BAND_ROWS, (boxes[i, 3] - 1) // BAND_ROWS + 1):
            ids[fill[band]] = i
            fill[band] += 1
    return offsets, ids


@numba.njit(nogil=True, cache=True, inline="always")
def _spot(plane):  # type: ignore[no-untyped-def]
    """Return where the low-pass filter sits, from the centre's pixel, and whether there is one.

    It is the middle of the image of s1^2 + s2^2 <= 1, which has none where that reaches the camera's plane.
    """
    w1, w2, z = plane[4], plane[5], plane[6]
    behind = w1 * w1 + w2 * w2 - z * z
    if behind >= 0.0:
        return plane[0] * 0, plane[0] * 0, False
    return (plane[0] * w1 + plane[1] * w2) / behind, (plane[2] * w1 + plane[3] * w2) / behind, True


@numba.njit(nogil=True, cache=True, inline="always")
def _row_span(plane, D, E, F, spot_x, spot_y, filtered, u, dy, level, x0, x1):  # type: ignore[no-untyped-def]
    """Return the pixels of a row at `dy` from the centre in which the surfel or its filter can reach the threshold."""
    a1, a2, b1, b2, z = plane[0], plane[1], plane[2], plane[3], plane[6]
    square, row = 2.0 * level, D + F * dy
    low, high = 1e30, -1e30
    # (z |b dx - a dy|)^2 <= square q^2 is P dx^2 + 2 Q dx + R <= 0
    P = z * z * (b1 * b1 + b2 * b2) - square * E * E
    Q = -z * z * (a1 * b1 + a2 * b2) * dy - square * E * row
    R = z * z * (a1 * a1 + a2 * a2) * dy * dy - square * row * row
    discriminant = Q * Q - P * R
    if not P > 0.0:
        return x0, x1  # open to a side: a surfel that reaches the camera's plane, or a dot
    if discriminant >= 0.0:
        half = math.sqrt(discriminant) / P
        low, high = -Q / P - half, -Q / P + half
    reach = square / FILTER - (dy - spot_y) ** 2
    if filtered and reach >= 0.0:
        low, high = min(low, spot_x - math.sqrt(reach)), max(high, spot_x + math.sqrt(reach))
    if low > high:
        return x0, x0
    first, last = max(low + u, -1.0), min(high + u, x1 + 1.0)
    return max(x0, math.ceil(first - 0.51)), min(x1, math.floor(last - 0.49) + 1)


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _composite(  # type: ignore[no-untyped-def]
    means2d, planes, opacities, colors, boxes, ids, start, stop, row0, row1, channels, at_hit,
    image, transmittance, depth, median, distortion, finished, halfway,
):  # fmt: skip
    """Composite entries `start` to `stop` into rows `row0` to `row1`; `channels` is a tuple as long as a colour."""
    number = means2d.dtype.type
    far = number(1e30)
    for entry in range(start, stop):
        i = ids[entry]
        u, v, opacity, plane = means2d[i, 0], means2d[i, 1], opacities[i], planes[i]
        a1, a2, b1, b2, w1, w2, z = plane[0], plane[1], plane[2], plane[3], plane[4], plane[5], plane[6]
        D, E, F = a1 * b2 - a2 * b1, w2 * b1 - w1 * b2, w1 * a2 - w2 * a1
        spot_x, spot_y, filtered = _spot(plane)
        level = math.log(opacity / ALPHA_THRESHOLD)
        for y in range(max(row0, boxes[i, 2]), min(row1, boxes[i, 3])):
            dy = number(y + 0.5) - v
            x0, x1 = _row_span(plane, D, E, F, spot_x, spot_y, filtered, u, dy, level, boxes[i, 0], boxes[i, 1])
            row = D + F * dy
            for x in range(x0, x1):
                dx = number(x + 0.5) - u
                q = row + E * dx
                square, here = far, z
                if q * D > 0:
                    over = z / q
                    s1, s2 = (b2 * dx - a2 * dy) * over, (a1 * dy - b1 * dx) * over
                    square, here = s1 * s1 + s2 * s2, D * over
                    if not square < far:  # overflow: nearly edge-on
                        square = far
                blurred = number(FILTER) * ((dx - spot_x) ** 2 + (dy - spot_y) ** 2) if filtered else far
                meets = square <= blurred
                alpha = min(number(ALPHA_MAXIMUM), opacity * math.exp(number(-0.5) * min(square, blurred)))
                if alpha < number(ALPHA_THRESHOLD) or entry >= finished[y, x]:
                    continue
                before = transmittance[y, x]
                after = before * (number(1.0) - alpha)
                if after <= number(TRANSMITTANCE_MINIMUM):
                    finished[y, x] = entry
                    continue
                weight = alpha * before
                if not (at_hit and meets):
                    here = z
                for k in range(len(channels)):
                    image[y, x, k] += weight * colors[i, k]
                # Sum over pairs of w_i w_j |m_i - m_j|, told apart by their order, as in gsplat.
                distortion[y, x] += number(2.0) * weight * (here * (number(1.0) - before) - depth[y, x])
                depth[y, x] += weight * here
                if before > number(0.5):
                    median[y, x], halfway[y, x] = here, entry
                transmittance[y, x] = after


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _composite_backward(  # type: ignore[no-untyped-def]
    means2d, planes, opacities, colors, boxes, ids, start, stop, row0, row1, channels, at_hit,
    transmittance, depth, alphas, depths, finished, halfway, behind, v_image, v_depth, v_median, v_distortion, gradients,
):  # fmt: skip
    """Walk the entries back to front and write each one's gradient into its slot.

    `transmittance` and `depth` hold each pixel's final values and are turned back step by step; `alphas` and `depths` keep
    them. `behind` holds, per pixel, what lies behind the current surfel, weighted and multiplied with the incoming
    gradient. A slot holds the gradients by (u, v, a1, a2, b1, b2, w1, w2, z, opacity, colour...).
    """
    number = means2d.dtype.type
    zero, one, two, far = number(0.0), number(1.0), number(2.0), number(1e30)
    v_color = np.zeros(len(channels), means2d.dtype)
    for entry in range(stop - 1, start - 1, -1):
        i = ids[entry]
        u, v, opacity, plane = means2d[i, 0], means2d[i, 1], opacities[i], planes[i]
        a1, a2, b1, b2, w1, w2, z = plane[0], plane[1], plane[2], plane[3], plane[4], plane[5], plane[6]
        D, E, F = a1 * b2 - a2 * b1, w2 * b1 - w1 * b2, w1 * a2 - w2 * a1
        spot_x, spot_y, filtered = _spot(plane)
        level = math.log(opacity / ALPHA_THRESHOLD)
        v_color[:] = 0
        v_opacity = v_z = v_spot_x = v_spot_y = v_D = zero
        # Sums over pixels of the gradients by q and by the numerators n1, n2 of s1, s2; plain, times dx, times dy.
        sum_q = sum_qx = sum_qy = sum_1 = sum_1x = sum_1y = sum_2 = sum_2x = sum_2y = zero
        for y in range(max(row0, boxes[i, 2]), min(row1, boxes[i, 3])):
            dy = number(y + 0.5) - v
            x0, x1 = _row_span(plane, D, E, F, spot_x, spot_y, filtered, u, dy, level, boxes[i, 0], boxes[i, 1])
            row = D + F * dy
            row_q = row_1 = row_2 = zero
            for x in range(x0, x1):
                dx = number(x + 0.5) - u
                q = row + E * dx
                square, here, s1, s2, over = far, z, zero, zero, zero
                if q * D > 0:
                    over = z / q
                    s1, s2 = (b2 * dx - a2 * dy) * over, (a1 * dy - b1 * dx) * over
                    square, here = s1 * s1 + s2 * s2, D * over
                    if not square < far:  # overflow: nearly edge-on
                        square = far
                blurred = number(FILTER) * ((dx - spot_x) ** 2 + (dy - spot_y) ** 2) if filtered else far
                meets = square <= blurred
                falloff = math.exp(number(-0.5) * min(square, blurred))
                raw = opacity * falloff
                alpha = min(number(ALPHA_MAXIMUM), raw)
                if alpha < number(ALPHA_THRESHOLD) or entry >= finished[y, x]:
                    continue
                if not (at_hit and meets):
                    here = z
                through = one / (one - alpha)
                before = transmittance[y, x] * through
                transmittance[y, x] = before
                weight = alpha * before
                depth_before = depth[y, x] - weight * here
                depth[y, x] = depth_before
                seen = here * v_depth[y, x]
                for k in range(len(channels)):
                    seen += colors[i, k] * v_image[y, x, k]
                    v_color[k] += weight * v_image[y, x, k]
                # distortion = 2 sum_i w_i (m_i W_<i - M_<i) with W, M the sums of weights and of weights times depths
                nearer, total = one - before, alphas[y, x]
                seen += two * v_distortion[y, x] * (two * (here * nearer - depth_before) + depths[y, x] - here * total)
                v_here = weight * (v_depth[y, x] + two * v_distortion[y, x] * (two * nearer - total + weight))
                if halfway[y, x] == entry:
                    v_here += v_median[y, x]
                v_alpha = before * seen - behind[y, x] * through
                behind[y, x] += weight * seen
                v_square = zero
                if raw <= number(ALPHA_MAXIMUM):
                    v_opacity += falloff * v_alpha
                    v_square = number(-0.5) * raw * v_alpha
                if meets:
                    v_s1, v_s2, v_q = two * v_square * s1, two * v_square * s2, two * v_square * square
                    if at_hit:
                        v_q += v_here * here
                        v_D += v_here * over
                    else:
                        v_z += v_here
                    v_q = -v_q / q
                    row_q += v_q
                    sum_qx += v_q * dx
                    row_1 += v_s1 * over
                    sum_1x += v_s1 * over * dx
                    row_2 += v_s2 * over
                    sum_2x += v_s2 * over * dx
                else:
                    v_z += v_here
                    v_spot_x -= two * number(FILTER) * v_square * (dx - spot_x)
                    v_spot_y -= two * number(FILTER) * v_square * (dy - spot_y)
            sum_q, sum_1, sum_2 = sum_q + row_q, sum_1 + row_1, sum_2 + row_2
            sum_qy, sum_1y, sum_2y = sum_qy + row_q * dy, sum_1y + row_1 * dy, sum_2y + row_2 * dy
        slot = gradients[entry]
        slot[0] = -(E * sum_q + b2 * sum_1 - b1 * sum_2)
        slot[1] = -(F * sum_q - a2 * sum_1 + a1 * sum_2)
        slot[8] = v_z - (D * sum_q + E * sum_qx + F * sum_qy) / z
        v_D += sum_q
        slot[2], slot[3] = v_D * b2 - sum_qy * w2 + sum_2y, -v_D * b1 + sum_qy * w1 - sum_1y
        slot[4], slot[5] = -v_D * a2 + sum_qx * w2 - sum_2x, v_D * a1 - sum_qx * w1 + sum_1x
        slot[6], slot[7] = sum_qy * a2 - sum_qx * b2, sum_qx * b1 - sum_qy * a1
        if filtered:
            _spot_backward(plane, spot_x, spot_y, v_spot_x, v_spot_y, slot)
        slot[9] = v_opacity
        for k in range(len(channels)):
            slot[10 + k] = v_color[k]


@numba.njit(nogil=True, cache=True, inline="always")
def _spot_backward(plane, spot_x, spot_y, v_x, v_y, slot):  # type: ignore[no-untyped-def]
    """Add what the filter's place owes to the centre's pixel (0, 1) and to the plane (2 to 8)."""
    w1, w2, z = plane[4], plane[5], plane[6]
    behind = w1 * w1 + w2 * w2 - z * z
    slot[0] += v_x
    slot[1] += v_y
    v_x, v_y = v_x / behind, v_y / behind
    v_behind = -(v_x * spot_x + v_y * spot_y)
    slot[2] += v_x * w1
    slot[3] += v_x * w2
    slot[4] += v_y * w1
    slot[5] += v_y * w2
    slot[6] += v_x * plane[0] + v_y * plane[2] + 2 * v_behind * w1
    slot[7] += v_x * plane[1] + v_y * plane[3] + 2 * v_behind * w2
    slot[8] -= 2 * v_behind * z


@numba.njit(nogil=True, cache=True)
def _sum_slots(ids, slots, total):  # type: ignore[no-untyped-def]
    """Add each entry's gradient to its surfel, in the order of the bands."""
    for entry in range(len(ids)):
        i = ids[entry]
        for k in range(slots.shape[1]):
            total[i, k] += slots[entry, k]


class CompositeSurfels(torch.autograd.Function):
    """Differentiable compositing of one image from projected surfels."""

    @staticmethod
    def forward(ctx: Any, means2d, planes, opacities, colors, boxes, width: int, height: int, at_hit: bool):  # type: ignore[no-untyped-def]
        """Composite.

        Args:
            ctx: autograd's context.
            means2d: `[N, 2]` pixels.
            planes: `[N, 7]` as `ProjectSurfels` gives them.
            opacities: `[N]`.
            colors: `[N, D]`, normals among them.
            boxes: `[N, 4]` pixels that a surfel can reach.
            width: of the image.
            height: of the image.
            at_hit: a surfel's depth at a pixel is where the ray meets it; otherwise that of its centre.

        Returns:
            Colours `[H, W, D]`, and `[H, W]`: alphas, depths summed like colours, median depths and distortion.
        """
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means2d, planes, opacities, colors)]
        boxes_ = boxes.numpy()
        dtype, channels = arrays[0].dtype, tuple(range(colors.shape[1]))
        visible = np.flatnonzero(boxes_[:, 0] < boxes_[:, 1])
        order = visible[np.argsort(arrays[1][visible, 6], kind="stable")]
        bands = -(-height // BAND_ROWS)
        offsets, ids = _list_bands(order, boxes_, bands)
        image, transmittance = np.zeros((height, width, len(channels)), dtype), np.ones((height, width), dtype)
        depth, median, distortion = np.zeros((3, height, width), dtype)
        finished, halfway = np.full((height, width), NEVER, np.int32), np.full((height, width), -1, np.int32)
        outputs = (image, transmittance, depth, median, distortion, finished, halfway)

        def piece(band: int) -> None:
            rows = (band * BAND_ROWS, min((band + 1) * BAND_ROWS, height))
            _composite(*arrays, boxes_, ids, offsets[band], offsets[band + 1], *rows, channels, at_hit, *outputs)  # type: ignore[call-arg]

        map_pieces(piece, bands)
        ctx.arrays, ctx.lists, ctx.at_hit = arrays, (boxes_, offsets, ids), at_hit
        ctx.pixels = (transmittance, depth, finished, halfway)
        planes_ = (image, 1.0 - transmittance, depth.copy(), median, distortion)
        return tuple(torch.from_numpy(plane) for plane in planes_)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_image, v_alpha, v_depth, v_median, v_distortion):  # type: ignore[no-untyped-def]
        """Return the gradients by means2d, planes, opacities and colours."""
        arrays, (boxes, offsets, ids) = ctx.arrays, ctx.lists
        transmittance, depth, finished, halfway = ctx.pixels
        height, channels = v_image.shape[0], tuple(range(v_image.shape[2]))
        upstream = [v.contiguous().numpy() for v in (v_image, v_depth, v_median, v_distortion)]
        behind = -transmittance * v_alpha.numpy()  # alpha = 1 - transmittance counts like a black background
        pixels = (transmittance.copy(), depth.copy(), 1.0 - transmittance, depth, finished, halfway, behind)
        slots = np.empty((len(ids), 10 + len(channels)), upstream[0].dtype)

        def piece(band: int) -> None:
            rows = (band * BAND_ROWS, min((band + 1) * BAND_ROWS, height))
            span = (boxes, ids, offsets[band], offsets[band + 1], *rows, channels, ctx.at_hit)
            _composite_backward(*arrays, *span, *pixels, *upstream, slots)  # type: ignore[call-arg]

        map_pieces(piece, len(offsets) - 1)
        total = np.zeros((len(arrays[0]), slots.shape[1]), slots.dtype)
        _sum_slots(ids, slots, total)
        gradients = torch.from_numpy(total)
        return gradients[:, :2], gradients[:, 2:9], gradients[:, 9], gradients[:, 10:], None, None, None, None
