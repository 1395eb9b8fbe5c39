"""Alpha-composite projected Gaussians front to back, splat by splat, with a hand-written backward.

Kerbl et al., "3D Gaussian splatting", 2023, equation 3: C = sum_i c_i alpha_i prod_{j<i} (1 - alpha_j), with gsplat's rules:
alpha at most 0.999, contributions under 1/255 skipped, a pixel finished where its transmittance would fall to 1e-4.

A GPU gives each pixel a thread that walks a list of Gaussians. A CPU does better the other way round: walk the Gaussians
in depth order, and for each the pixels inside its ellipse, row by row, over an image that stays in cache. The image
is cut into bands of rows that are worked on independently; a Gaussian that spans several bands has a gradient slot in
each, summed in the order of the bands.
"""

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.splatting.projection import ALPHA_THRESHOLD
from worldline.threads import map_pieces

BAND_ROWS = 16
ALPHA_MAXIMUM = 0.999
TRANSMITTANCE_MINIMUM = 1e-4
NEVER = np.iinfo(np.int32).max


@numba.njit(nogil=True, cache=True)
def _list_bands(order, means2d, radii, height, bands):  # type: ignore[no-untyped-def]
    """Return the Gaussians of each band in depth order: (offsets `[bands + 1]`, ids `[M]`)."""
    first, last = np.empty(len(order), np.int32), np.empty(len(order), np.int32)
    offsets = np.zeros(bands + 1, np.int64)
    for rank in range(len(order)):
        i = order[rank]
        top = max(0, math.floor(means2d[i, 1] - radii[i, 1]))
        bottom = min(height - 1, math.ceil(means2d[i, 1] + radii[i, 1]))
        first[rank], last[rank] = top // BAND_ROWS, bottom // BAND_ROWS
        for band in range(first[rank], last[rank] + 1):
            offsets[band + 1] += 1
    for band in range(bands):
        offsets[band + 1] += offsets[band]
    ids, fill = np.empty(offsets[bands], np.int32), offsets[:bands].copy()
    for rank in range(len(order)):
        for band in range(first[rank], last[rank] + 1):
            ids[fill[band]] = order[rank]
            fill[band] += 1
    return offsets, ids


@numba.njit(nogil=True, cache=True, inline="always")
def _row_span(u, dy, a, b, c, level, width):  # type: ignore[no-untyped-def]
    """Return the pixels [x0, x1) of a row at `dy` from the centre in which the exponent stays above -level."""
    discriminant = (b * dy) ** 2 - a * (c * dy * dy - 2.0 * level)
    if discriminant < 0.0:
        return 0, 0
    half, middle = math.sqrt(discriminant) / a + 0.01, u - b * dy / a - 0.5
    return max(0, math.ceil(middle - half)), min(width, math.floor(middle + half) + 1)


@numba.njit(nogil=True, cache=True, fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}, error_model="numpy")
def _composite(means2d, conics, opacities, colors, ids, start, stop, row0, row1, channels, image, transmittance, finished):  # type: ignore[no-untyped-def]
    """Composite entries `start` to `stop` into rows `row0` to `row1`; `channels` is a tuple as long as a colour."""
    width = image.shape[1]
    number = means2d.dtype.type
    for entry in range(start, stop):
        i = ids[entry]
        u, v, opacity = means2d[i, 0], means2d[i, 1], opacities[i]
        a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
        level = math.log(opacity / ALPHA_THRESHOLD)
        reach = math.sqrt(2.0 * level * a / max(a * c - b * b, 1e-30)) + 0.01
        y0, y1 = max(row0, math.ceil(v - 0.5 - reach)), min(row1, math.floor(v - 0.5 + reach) + 1)
        for y in range(y0, y1):
            dy = number(y + 0.5) - v
            x0, x1 = _row_span(u, dy, a, b, c, level, width)
            constant, slope = number(0.5) * c * dy * dy, b * dy
            for x in range(x0, x1):
                dx = number(x + 0.5) - u
                sigma = constant + dx * (slope + number(0.5) * a * dx)
                alpha = min(number(ALPHA_MAXIMUM), opacity * math.exp(-sigma))
                if sigma < 0 or alpha < number(ALPHA_THRESHOLD) or entry >= finished[y, x]:
                    continue
                before = transmittance[y, x]
                after = before * (number(1.0) - alpha)
                if after <= number(TRANSMITTANCE_MINIMUM):
                    finished[y, x] = entry
                    continue
                weight = alpha * before
                for k in range(len(channels)):
                    image[y, x, k] += weight * colors[i, k]
                transmittance[y, x] = after


@numba.njit(nogil=True, cache=True, fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}, error_model="numpy")
def _composite_backward(  # type: ignore[no-untyped-def]
    means2d, conics, opacities, colors, ids, start, stop, row0, row1, channels, finished, transmittance, behind, v_image,
    gradients,
):  # fmt: skip
    """Walk the entries back to front and write each one's gradient into its slot.

    `transmittance` holds each pixel's final transmittance and is turned back step by step. `behind` holds, per pixel,
    the light from behind the current Gaussian, already multiplied with the incoming gradient: one number instead of a
    colour. A slot holds the gradients by (u, v, conic a, b, c, opacity, colour...).
    """
    width = v_image.shape[1]
    number = means2d.dtype.type
    v_color = np.zeros(len(channels), means2d.dtype)
    for entry in range(stop - 1, start - 1, -1):
        i = ids[entry]
        u, v, opacity = means2d[i, 0], means2d[i, 1], opacities[i]
        a, b, c = conics[i, 0], conics[i, 1], conics[i, 2]
        level = math.log(opacity / ALPHA_THRESHOLD)
        reach = math.sqrt(2.0 * level * a / max(a * c - b * b, 1e-30)) + 0.01
        y0, y1 = max(row0, math.ceil(v - 0.5 - reach)), min(row1, math.floor(v - 0.5 + reach) + 1)
        v_opacity = number(0.0)
        sum_x = sum_y = sum_xx = sum_xy = sum_yy = number(0.0)
        v_color[:] = 0
        for y in range(y0, y1):
            dy = number(y + 0.5) - v
            x0, x1 = _row_span(u, dy, a, b, c, level, width)
            constant, slope = number(0.5) * c * dy * dy, b * dy
            row_sum = row_x = row_xx = number(0.0)
            for x in range(x0, x1):
                dx = number(x + 0.5) - u
                sigma = constant + dx * (slope + number(0.5) * a * dx)
                falloff = math.exp(-sigma)
                raw = opacity * falloff
                alpha = min(number(ALPHA_MAXIMUM), raw)
                if sigma < 0 or alpha < number(ALPHA_THRESHOLD) or entry >= finished[y, x]:
                    continue
                through = number(1.0) / (number(1.0) - alpha)
                before = transmittance[y, x] * through
                transmittance[y, x] = before
                weight = alpha * before
                seen = number(0.0)
                for k in range(len(channels)):
                    seen += colors[i, k] * v_image[y, x, k]
                    v_color[k] += weight * v_image[y, x, k]
                v_alpha = before * seen - behind[y, x] * through
                behind[y, x] += weight * seen
                if raw <= number(ALPHA_MAXIMUM):
                    v_opacity += falloff * v_alpha
                    v_sigma = raw * v_alpha
                    row_sum += v_sigma
                    row_x += v_sigma * dx
                    row_xx += v_sigma * dx * dx
            sum_x += row_x
            sum_y += row_sum * dy
            sum_xx += row_xx
            sum_xy += row_x * dy
            sum_yy += row_sum * dy * dy
        slot = gradients[entry]
        slot[0] = a * sum_x + b * sum_y
        slot[1] = b * sum_x + c * sum_y
        slot[2], slot[3], slot[4] = -number(0.5) * sum_xx, -sum_xy, -number(0.5) * sum_yy
        slot[5] = v_opacity
        for k in range(len(channels)):
            slot[6 + k] = v_color[k]


@numba.njit(nogil=True, cache=True)
def _sum_slots(ids, slots, total):  # type: ignore[no-untyped-def]
    """Add each entry's gradient to its Gaussian, in the order of the bands."""
    for entry in range(len(ids)):
        i = ids[entry]
        for k in range(slots.shape[1]):
            total[i, k] += slots[entry, k]


class Composite(torch.autograd.Function):
    """Differentiable compositing of one image from projected Gaussians."""

    @staticmethod
    def forward(ctx: Any, means2d, conics, opacities, colors, depths, radii, width: int, height: int):  # type: ignore[no-untyped-def]
        """Composite.

        Args:
            ctx: autograd's context.
            means2d: `[N, 2]` pixels.
            conics: `[N, 3]` upper triangle of the inverse image covariances.
            opacities: `[N]`.
            colors: `[N, D]`.
            depths: `[N]`, the order; not differentiated.
            radii: `[N, 2]` half sizes of the boxes in pixels, 0 for a Gaussian that is not seen.
            width: of the image.
            height: of the image.

        Returns:
            Colours `[H, W, D]` and alphas `[H, W]`.
        """
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means2d, conics, opacities, colors)]
        radii_, depths_ = radii.numpy(), depths.detach().numpy()
        dtype, channels = arrays[0].dtype, tuple(range(colors.shape[1]))
        visible = np.flatnonzero(radii_[:, 0] > 0)
        order = visible[np.argsort(depths_[visible], kind="stable")]
        bands = -(-height // BAND_ROWS)
        offsets, ids = _list_bands(order, arrays[0], radii_, height, bands)
        image, transmittance = np.zeros((height, width, len(channels)), dtype), np.ones((height, width), dtype)
        finished = np.full((height, width), NEVER, np.int32)

        def piece(band: int) -> None:
            rows = (band * BAND_ROWS, min((band + 1) * BAND_ROWS, height))
            _composite(*arrays, ids, offsets[band], offsets[band + 1], *rows, channels, image, transmittance, finished)  # type: ignore[call-arg]

        map_pieces(piece, bands)
        ctx.arrays, ctx.lists, ctx.finished, ctx.transmittance = arrays, (offsets, ids), finished, transmittance
        return torch.from_numpy(image), torch.from_numpy(1.0 - transmittance)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_image, v_alpha):  # type: ignore[no-untyped-def]
        """Return the gradients by means2d, conics, opacities and colours."""
        arrays, (offsets, ids), finished = ctx.arrays, ctx.lists, ctx.finished
        height = v_image.shape[0]
        channels = tuple(range(v_image.shape[2]))
        v_image_ = v_image.contiguous().numpy()
        transmittance = ctx.transmittance.copy()
        behind = -transmittance * v_alpha.numpy()  # alpha = 1 - transmittance counts like a black background
        slots = np.empty((len(ids), 6 + len(channels)), v_image_.dtype)

        def piece(band: int) -> None:
            rows = (band * BAND_ROWS, min((band + 1) * BAND_ROWS, height))
            span = (ids, offsets[band], offsets[band + 1], *rows, channels)
            _composite_backward(*arrays, *span, finished, transmittance, behind, v_image_, slots)  # type: ignore[call-arg]

        map_pieces(piece, len(offsets) - 1)
        total = np.zeros((len(arrays[0]), slots.shape[1]), slots.dtype)
        _sum_slots(ids, slots, total)
        gradients = torch.from_numpy(total)
        return gradients[:, :2], gradients[:, 2:5], gradients[:, 5], gradients[:, 6:], None, None, None, None
