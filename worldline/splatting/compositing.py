"""Alpha-composite projected Gaussians front to back, splat by splat, with a hand-written backward.

Kerbl et al., "3D Gaussian splatting", 2023, equation 3: C = sum_i c_i alpha_i prod_{j<i} (1 - alpha_j), with gsplat's rules:
alpha at most 0.999, contributions under 1/255 skipped, a pixel finished where its transmittance would fall to 1e-4.

A GPU gives each pixel a thread that walks a list of Gaussians. A CPU does better the other way round: walk the Gaussians
in depth order, and for each the pixels inside its ellipse, row by row, eight at a time without a branch. The image is cut
into tiles that stay in the nearest cache and are worked on independently; inside a tile each channel is a plane of its own.
A Gaussian that touches several tiles has a gradient slot for each, summed in the order of the tiles.
"""

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.splatting.projection import ALPHA_THRESHOLD, CHUNK
from worldline.splatting.vectors import (
    LANES,
    count,
    exp2,
    get,
    greater,
    load,
    magnitude,
    pattern,
    prefetch,
    put,
    root,
    select,
    smaller,
    splat,
    store,
    store_floor,
    store_run,
    total,
    totals,
    variables,
)  # fmt: skip
from worldline.threads import map_pieces

TILE_WIDTH, TILE_ROWS = 64, 16
TILE = TILE_WIDTH * TILE_ROWS
BLOCK_WIDTH, BLOCK_ROWS = 4, 2  # the pixels of a vector
ACROSS, DOWN = TILE_WIDTH // BLOCK_WIDTH, TILE_ROWS // BLOCK_ROWS  # blocks of a tile: at most 16, and as many as lanes
BLOCKS = ACROSS * DOWN
LISTED = BLOCKS + 16  # room for a list of blocks and what is written after its end
PIECES = 32
AHEAD = 8  # entries by which a packed Gaussian is asked for before it is used
LOG2_E, LN_2 = math.log2(math.e), math.log(2.0)
ALPHA_MAXIMUM = 0.999
LOG2_THRESHOLD = math.log2(ALPHA_THRESHOLD)
TRANSMITTANCE_MINIMUM = 1e-4
MARGIN = 0.01  # pixels around an ellipse, for rounding; what lies outside is masked
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

_X = pattern([0.5, 1.5, 2.5, 3.5, 0.5, 1.5, 2.5, 3.5])  # pixel centres in a block
_Y = pattern([0.5, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 1.5])
_EVEN_ROWS = pattern([0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5])  # of a tile

# The columns of a packed Gaussian; its colour follows. Its alpha at (dx, dy) from its centre is 2 to the power of
# XX dx^2 + XY dx dy + YY dy^2 + PEAK: an exponent of base 2 saves work, and so does the opacity in it.
U, V, XX, XY, YY, PEAK, OPACITY, REACH_X, REACH_Y, SLOPE, WIDTH2, NARROWING, COLOR = range(13)


@numba.njit(nogil=True, cache=True)
def _pack(order, means2d, conics, opacities, colors, start, stop, packed):  # type: ignore[no-untyped-def]
    """Write what the kernels read of each Gaussian, in depth order.

    At `dy` from the centre alpha reaches the threshold over u - SLOPE dy -+ sqrt(WIDTH2 - NARROWING dy^2).
    """
    for rank in range(start, stop):
        i = order[rank]
        a, b, c = float(conics[i, 0]), float(conics[i, 1]), float(conics[i, 2])
        peak = math.log2(opacities[i])
        reach = max(2.0 * LN_2 * (peak - LOG2_THRESHOLD), 0.0)  # twice the exponent at which alpha falls to the threshold
        determinant, inverse = max(a * c - b * b, 1e-30), 1.0 / a
        spread = reach / determinant
        row = packed[rank]
        row[U], row[V], row[OPACITY], row[PEAK] = means2d[i, 0], means2d[i, 1], opacities[i], peak
        row[XX], row[XY], row[YY] = -0.5 * LOG2_E * a, -LOG2_E * b, -0.5 * LOG2_E * c
        row[REACH_X], row[REACH_Y] = math.sqrt(spread * c) + MARGIN, math.sqrt(spread * a) + MARGIN
        row[SLOPE], row[WIDTH2], row[NARROWING] = b * inverse, reach * inverse, determinant * inverse * inverse
        for k in range(colors.shape[1]):
            row[COLOR + k] = colors[i, k]


@numba.njit(nogil=True, cache=True)
def _list_tiles(packed, width, height, columns, tiles):  # type: ignore[no-untyped-def]
    """Return the Gaussians of each tile in depth order.

    Returns:
        Offsets `[tiles + 1]` of the lists, `[M]` ranks and `[M]` slots in them, `[R + 1]` offsets of the slots of a Gaussian.
    """
    count = len(packed)
    boxes = np.empty((count, 4), np.int32)
    offsets, slots_of = np.zeros(tiles + 1, np.int64), np.zeros(count + 1, np.int64)
    for rank in range(count):
        row = packed[rank]
        left = max(0, math.ceil(row[U] - row[REACH_X] - 0.5))
        right = min(width, math.floor(row[U] + row[REACH_X] - 0.5) + 1)
        top = max(0, math.ceil(row[V] - row[REACH_Y] - 0.5))
        bottom = min(height, math.floor(row[V] + row[REACH_Y] - 0.5) + 1)
        if left >= right or top >= bottom:
            left = right = top = bottom = 0
        else:
            left, right = left // TILE_WIDTH, (right - 1) // TILE_WIDTH + 1
            top, bottom = top // TILE_ROWS, (bottom - 1) // TILE_ROWS + 1
        boxes[rank, 0], boxes[rank, 1], boxes[rank, 2], boxes[rank, 3] = left, right, top, bottom
        slots_of[rank + 1] = slots_of[rank] + (right - left) * (bottom - top)
        for y in range(top, bottom):
            for x in range(left, right):
                offsets[y * columns + x + 1] += 1
    for tile in range(tiles):
        offsets[tile + 1] += offsets[tile]
    ranks, slots, fill = np.empty(offsets[tiles], np.int32), np.empty(offsets[tiles], np.int64), offsets[:tiles].copy()
    for rank in range(count):
        slot = slots_of[rank]
        for y in range(boxes[rank, 2], boxes[rank, 3]):
            for x in range(boxes[rank, 0], boxes[rank, 1]):
                tile = y * columns + x
                ranks[fill[tile]], slots[fill[tile]] = rank, slot
                fill[tile] += 1
                slot += 1
    return offsets, ranks, slots, slots_of


@numba.njit(nogil=True, cache=True, inline="always")
def _place(x, y):  # type: ignore[no-untyped-def]
    """Return where a pixel of a tile is kept: block after block."""
    return (y // BLOCK_ROWS * ACROSS + x // BLOCK_WIDTH) * LANES + y % BLOCK_ROWS * BLOCK_WIDTH + x % BLOCK_WIDTH


@numba.njit(nogil=True, cache=True, inline="always")
def _list_blocks(row, left, top, alive, spans, blocks, start):  # type: ignore[no-untyped-def]
    """List from `start` on the blocks of a tile that an ellipse touches, where rows of blocks are `alive`; return how many.

    All rows are worked out at once: their spans as vectors, their blocks as runs of whole numbers of which only the first few
    are kept. No branch depends on the shape.
    """
    number = row.dtype.type
    u, v = row[U] - number(left), row[V] - number(top)
    nothing, width = splat(number(0.0)), splat(number(TILE_WIDTH))
    dy = _EVEN_ROWS(u) - v
    first, last = width, nothing
    for _ in range(BLOCK_ROWS):
        half = root(greater(row[WIDTH2] - dy * dy * row[NARROWING], nothing)) + number(MARGIN)
        middle = (u + number(0.5)) - dy * row[SLOPE]
        reached = magnitude(dy) <= row[REACH_Y]
        first = select(reached, smaller(first, middle - half), first)
        last = select(reached, greater(last, middle + half), last)
        dy = dy + number(1.0)
    store_floor(spans, 0, greater(first, nothing) * number(1.0 / BLOCK_WIDTH))
    store_floor(spans, LANES, smaller(last, width) * number(1.0 / BLOCK_WIDTH) + number(1.0 - 1.0 / BLOCK_WIDTH))
    found = start
    for y in range(DOWN):
        store_run(blocks, found, y * ACROSS + spans[y])
        found += max(0, spans[LANES + y] - spans[y]) * alive[y]
    return found - start


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
def _composite(  # type: ignore[no-untyped-def]
    packed, offsets, ranks, first, last, columns, width, height, channels, image, alphas, transmittances, ends, stops
):
    """Composite tiles `first` to `last`; `channels` is a tuple as long as a colour.

    A pixel's transmittance is kept negative once it is finished; `ends` is the entry that finished it. `stops` is
    the entry of a tile that finished the last of its pixels.
    """
    number = packed.dtype.type
    light = np.empty(len(channels) * TILE, packed.dtype)
    color = variables(number(0.0), channels)
    nothing = splat(number(0.0))
    spans, blocks = np.empty(2 * LANES, np.int32), np.empty(2 * LISTED, np.uint8)
    alive, living = np.empty(DOWN, np.int32), np.empty(DOWN, np.int32)
    corners = np.empty((BLOCKS, 2), packed.dtype)
    for index in range(BLOCKS):
        corners[index, 0], corners[index, 1] = index % ACROSS * BLOCK_WIDTH, index // ACROSS * BLOCK_ROWS
    for tile in range(first, last):
        left, top = (tile % columns) * TILE_WIDTH, (tile // columns) * TILE_ROWS
        rows, across = min(TILE_ROWS, height - top), min(TILE_WIDTH, width - left)
        transmittance, end = transmittances[tile], ends[tile]
        start, stop = offsets[tile], offsets[tile + 1]
        light[:] = 0
        end[:] = 0  # beyond the border of the image no entry counts: what lies there is left over from another tile
        transmittance[:] = -1
        for y in range(rows):
            for x in range(across):
                transmittance[_place(x, y)] = 1
                end[_place(x, y)] = stop - start
        for y in range(DOWN):
            living[y] = across * max(0, min(BLOCK_ROWS, rows - y * BLOCK_ROWS))
            alive[y] = living[y] > 0
        live = rows * across
        entry, here, upcoming = start, 0, 0
        if start < stop:
            upcoming = _list_blocks(packed[ranks[start]], left, top, alive, spans, blocks, here)
        while entry < stop and live > 0:
            prefetch(packed, ranks[min(entry + AHEAD, stop - 1)])
            # The next list is made before this one is used, so that the processor can do both at once.
            found, listed, here = upcoming, here, LISTED - here
            upcoming = _list_blocks(packed[ranks[min(entry + 1, stop - 1)]], left, top, alive, spans, blocks, here)
            row = packed[ranks[entry]]
            u, v = row[U] - number(left), row[V] - number(top)
            xx, xy, yy, peak = row[XX], row[XY], row[YY], row[PEAK]
            for k in range(len(channels)):
                put(color, k, splat(row[COLOR + k]))
            near_x, near_y = _X(u) - u, _Y(u) - v
            for index in range(listed, listed + found):
                block = np.intp(blocks[index])
                place = block * LANES
                dx, dy = near_x + corners[block, 0], near_y + corners[block, 1]
                exponent = dx * (dx * xx + dy * xy) + (dy * (dy * yy) + peak)
                alpha = smaller(exp2(exponent), number(ALPHA_MAXIMUM))
                alpha = select(exponent >= number(LOG2_THRESHOLD), alpha, nothing)
                before = load(transmittance, place)
                weight = alpha * before
                after = before - weight
                goes_on = after > number(TRANSMITTANCE_MINIMUM)
                weight = select(goes_on, weight, nothing)
                store(transmittance, place, select(goes_on, after, nothing - magnitude(before)))
                for k in range(len(channels)):
                    store(light, k * TILE + place, load(light, k * TILE + place) + weight * get(color, k))
                finished = count((before > number(0.0)) & (after <= number(TRANSMITTANCE_MINIMUM)))
                if finished > 0:
                    live -= finished
                    living[block // ACROSS] -= finished
                    alive[block // ACROSS] = living[block // ACROSS] > 0
                    for lane in range(place, place + LANES):
                        if transmittance[lane] < 0:
                            end[lane] = min(end[lane], number(entry - start))
            entry += 1
        stops[tile] = entry
        for y in range(rows):
            for x in range(across):
                place = _place(x, y)
                transmittance[place] = abs(transmittance[place])
                alphas[top + y, left + x] = number(1.0) - transmittance[place]
                for k in range(len(channels)):
                    image[top + y, left + x, k] = light[k * TILE + place]


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
def _composite_backward(  # type: ignore[no-untyped-def]
    packed, offsets, ranks, slots, first, last, columns, width, height, channels, transmittances, ends, stops, v_image, v_alphas,
    gradients,
):  # fmt: skip
    """Walk the entries of tiles `first` to `last` back to front and write each one's gradient into its slot.

    A pixel starts with its final transmittance, which is turned back step by step. `behind` holds, per pixel,
    the light from behind the current Gaussian, already multiplied with the incoming gradient: one number instead of a
    colour. A slot holds the gradients by (u, v, conic a, b, c, opacity, colour...).
    """
    number = packed.dtype.type
    v_light = np.zeros(len(channels) * TILE, packed.dtype)
    transmittance, behind = np.empty(TILE, packed.dtype), np.empty(TILE, packed.dtype)
    color, v_color = variables(number(0.0), channels), variables(number(0.0), channels)
    nothing = splat(number(0.0))
    spans, blocks = np.empty(2 * LANES, np.int32), np.empty(2 * LISTED, np.uint8)
    alive = np.ones(DOWN, np.int32)
    corners = np.empty((BLOCKS, 2), packed.dtype)
    for index in range(BLOCKS):
        corners[index, 0], corners[index, 1] = index % ACROSS * BLOCK_WIDTH, index // ACROSS * BLOCK_ROWS
    for tile in range(first, last):
        left, top = (tile % columns) * TILE_WIDTH, (tile // columns) * TILE_ROWS
        rows, across = min(TILE_ROWS, height - top), min(TILE_WIDTH, width - left)
        end, start = ends[tile], offsets[tile]
        transmittance[:] = transmittances[tile]
        behind[:] = 0
        for y in range(rows):
            for x in range(across):
                place = _place(x, y)
                # alpha = 1 - transmittance counts like a black background
                behind[place] = -transmittance[place] * v_alphas[top + y, left + x]
                for k in range(len(channels)):
                    v_light[k * TILE + place] = v_image[top + y, left + x, k]
        for entry in range(stops[tile], offsets[tile + 1]):
            gradients[slots[entry]] = 0
        here, upcoming = 0, 0
        if stops[tile] > start:
            upcoming = _list_blocks(packed[ranks[stops[tile] - 1]], left, top, alive, spans, blocks, here)
        for entry in range(stops[tile] - 1, start - 1, -1):
            prefetch(packed, ranks[max(entry - AHEAD, start)])
            found, listed, here = upcoming, here, LISTED - here
            upcoming = _list_blocks(packed[ranks[max(entry - 1, start)]], left, top, alive, spans, blocks, here)
            row = packed[ranks[entry]]
            u, v = row[U] - number(left), row[V] - number(top)
            xx, xy, yy, peak = row[XX], row[XY], row[YY], row[PEAK]
            turn = number(entry - start)
            for k in range(len(channels)):
                put(color, k, splat(row[COLOR + k]))
                put(v_color, k, nothing)
            sum_0 = sum_x = sum_y = sum_xx = sum_xy = sum_yy = nothing
            near_x, near_y = _X(u) - u, _Y(u) - v
            for index in range(listed, listed + found):
                block = np.intp(blocks[index])
                place = block * LANES
                dx, dy = near_x + corners[block, 0], near_y + corners[block, 1]
                exponent = dx * (dx * xx + dy * xy) + (dy * (dy * yy) + peak)
                raw = select((exponent >= number(LOG2_THRESHOLD)) & (load(end, place) > turn), exp2(exponent), nothing)
                alpha = smaller(raw, number(ALPHA_MAXIMUM))
                through = number(1.0) / (number(1.0) - alpha)
                before = load(transmittance, place) * through
                store(transmittance, place, before)
                weight = alpha * before
                seen = nothing
                for k in range(len(channels)):
                    v_pixel = load(v_light, k * TILE + place)
                    seen = seen + v_pixel * get(color, k)
                    put(v_color, k, get(v_color, k) + weight * v_pixel)
                later = load(behind, place)
                v_alpha = before * seen - later * through
                store(behind, place, later + weight * seen)
                v_sigma = select(raw <= number(ALPHA_MAXIMUM), raw * v_alpha, nothing)
                sum_0 = sum_0 + v_sigma
                v_x, v_y = v_sigma * dx, v_sigma * dy
                sum_x, sum_y = sum_x + v_x, sum_y + v_y
                sum_xx, sum_xy, sum_yy = sum_xx + v_x * dx, sum_xy + v_x * dy, sum_yy + v_y * dy
            slot = gradients[slots[entry]]
            for k in range(2, len(channels)):
                slot[6 + k] = total(get(v_color, k))
            first_color = get(v_color, 0)
            second_color = get(v_color, 1) if len(channels) > 1 else nothing
            store(slot, 0, totals(sum_x, sum_y, sum_xx, sum_xy, sum_yy, sum_0, first_color, second_color))


@numba.njit(nogil=True, cache=True)
def _sum_slots(order, slots_of, gradients, packed, start, stop, summed):  # type: ignore[no-untyped-def]
    """Write the gradients of Gaussians `start` to `stop` from the sums of their slots."""
    for rank in range(start, stop):
        row, splat_ = summed[order[rank]], packed[rank]
        for slot in range(slots_of[rank], slots_of[rank + 1]):
            for k in range(row.shape[0]):
                row[k] += gradients[slot, k]
        x, y = row[0], row[1]
        row[0] = -LN_2 * (2.0 * splat_[XX] * x + splat_[XY] * y)
        row[1] = -LN_2 * (splat_[XY] * x + 2.0 * splat_[YY] * y)
        row[2], row[3], row[4] = -0.5 * row[2], -row[3], -0.5 * row[4]
        row[5] /= splat_[OPACITY]


def _depth_order(depths: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the visible Gaussians from near to far, the one with the smaller index first where depths are equal."""
    if depths.dtype != np.float32:
        return visible[np.argsort(depths[visible], kind="stable")]
    # Sorting whole numbers of depth and index is several times faster than a stable argsort.
    bits = depths[visible].view(np.int32).astype(np.int64)
    bits ^= (bits >> 31) & 0x7FFFFFFF  # in the order of the numbers, negative ones too
    keys = (bits << 32) | visible
    keys.sort()
    return keys & 0xFFFFFFFF


def _cut(offsets: np.ndarray) -> np.ndarray:
    """Return the bounds of at most PIECES runs of tiles with about the same number of entries."""
    marks = np.searchsorted(offsets, np.linspace(0, offsets[-1], PIECES + 1)[1:-1])
    return np.unique(np.concatenate([[0], marks, [len(offsets) - 1]]))


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
        dtype, channels = arrays[0].dtype, tuple(range(colors.shape[1]))
        order = _depth_order(depths.detach().numpy(), np.flatnonzero(radii.numpy()[:, 0] > 0))
        packed = np.empty((len(order), COLOR + len(channels)), dtype)

        def pack(index: int) -> None:
            _pack(order, *arrays, index * CHUNK, min((index + 1) * CHUNK, len(order)), packed)  # type: ignore[call-arg]

        map_pieces(pack, -(-len(order) // CHUNK))
        columns = -(-width // TILE_WIDTH)
        tiles = columns * -(-height // TILE_ROWS)
        offsets, ranks, slots, slots_of = _list_tiles(packed, width, height, columns, tiles)
        image, alphas = np.empty((height, width, len(channels)), dtype), np.empty((height, width), dtype)
        transmittances, ends = np.empty((tiles, TILE), dtype), np.empty((tiles, TILE), dtype)
        stops, cuts = np.empty(tiles, np.int64), _cut(offsets)

        def piece(index: int) -> None:
            span = (*cuts[index : index + 2], columns, width, height, channels)
            _composite(packed, offsets, ranks, *span, image, alphas, transmittances, ends, stops)  # type: ignore[call-arg]

        map_pieces(piece, len(cuts) - 1)
        ctx.lists = packed, offsets, ranks, slots
        ctx.order, ctx.cuts, ctx.count = (order, slots_of), cuts, len(arrays[0])
        ctx.pixels = transmittances, ends, stops
        return torch.from_numpy(image), torch.from_numpy(alphas)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_image, v_alpha):  # type: ignore[no-untyped-def]
        """Return the gradients by means2d, conics, opacities and colours."""
        height, width, depth = v_image.shape
        channels, (order, slots_of), cuts = tuple(range(depth)), ctx.order, ctx.cuts
        columns = -(-width // TILE_WIDTH)
        upstream = v_image.contiguous().numpy(), v_alpha.contiguous().numpy()
        gradients = np.empty((slots_of[-1], max(6 + depth, LANES)), upstream[0].dtype)

        def piece(index: int) -> None:
            span = (*cuts[index : index + 2], columns, width, height, channels)
            _composite_backward(*ctx.lists, *span, *ctx.pixels, *upstream, gradients)  # type: ignore[call-arg]

        map_pieces(piece, len(cuts) - 1)
        summed = np.zeros((ctx.count, 6 + depth), gradients.dtype)

        def sum_up(index: int) -> None:
            span = (index * CHUNK, min((index + 1) * CHUNK, len(order)))
            _sum_slots(order, slots_of, gradients, ctx.lists[0], *span, summed)  # type: ignore[call-arg]

        map_pieces(sum_up, -(-len(order) // CHUNK))
        result = torch.from_numpy(summed)
        return result[:, :2], result[:, 2:5], result[:, 5], result[:, 6:], None, None, None, None
