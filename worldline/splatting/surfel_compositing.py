"""Composite surfels where rays meet them, front to back, with a hand-written backward.

`worldline.splatting.surfel_kernels` has the formulas of the meeting. The rules are those of gsplat 1.5.3: alpha at most 0.999,
contributions under 1/255 skipped, a pixel finished where its transmittance would fall to 1e-4. The way is that of
`worldline.splatting.compositing`: surfel by surfel in depth order over tiles that stay in cache, row by row, eight pixels at
a time without a branch.
"""

# numba gives an intrinsic's first parameter itself, and a kernel its types, which mypy cannot know.
# mypy: disable-error-code="call-arg, var-annotated"

import math
from typing import Any

import numba
import numpy as np
import torch

from worldline.splatting.projection import ALPHA_THRESHOLD
from worldline.splatting.surfel_kernels import FILTER
from worldline.splatting.vectors import (
    count,
    exp2,
    get,
    load,
    magnitude,
    pattern,
    put,
    select,
    smaller,
    splat,
    store,
    total,
    variables,
)
from worldline.threads import map_pieces

TILE_WIDTH = 64  # a multiple of the lanes of a vector
TILE_ROWS = 16
TILE = TILE_WIDTH * TILE_ROWS
PIECES = 32
ALPHA_MAXIMUM = 0.999
TRANSMITTANCE_MINIMUM = 1e-4
FAR = 1e30  # a squared distance at which nothing is left
OPEN = 1e12  # a squared width that reaches over every image
MARGIN = 0.01  # pixels around a surfel's image, for rounding; what lies outside is masked
LOG2_E = 1.0 / math.log(2.0)
LOG2_THRESHOLD = math.log2(ALPHA_THRESHOLD)
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
_STEPS = pattern(range(8))

# The columns of a packed surfel; its colour follows.
U, V, A1, A2, B1, B2, W1, W2, Z, D, E, F, SPOT_X, SPOT_Y, SPOT_FAR, REACH2, PEAK, OPACITY = range(18)
SLOPE, SHIFT, MIDDLE, WIDTH2, NARROWING, COLOR = range(18, 24)


@numba.njit(nogil=True, cache=True)
def _pack(order, means2d, planes, opacities, colors, packed):  # type: ignore[no-untyped-def]
    """Write what the kernels read of each surfel, in depth order.

    The image of s1^2 + s2^2 <= 2 ln(255 opacity) covers, in the row at `dy` from the centre, the columns
    SLOPE dy + SHIFT -+ sqrt(WIDTH2 - NARROWING (dy - MIDDLE)^2); without bound where it is no ellipse.
    """
    for rank in range(len(order)):
        i = order[rank]
        row = packed[rank]
        row[U], row[V], row[OPACITY], row[PEAK] = means2d[i, 0], means2d[i, 1], opacities[i], math.log2(opacities[i])
        for k in range(7):
            row[A1 + k] = planes[i, k]
        for k in range(colors.shape[1]):
            row[COLOR + k] = colors[i, k]
        a1, a2, b1, b2 = float(planes[i, 0]), float(planes[i, 1]), float(planes[i, 2]), float(planes[i, 3])
        w1, w2, z = float(planes[i, 4]), float(planes[i, 5]), float(planes[i, 6])
        d, e, f = a1 * b2 - a2 * b1, w2 * b1 - w1 * b2, w1 * a2 - w2 * a1
        row[D], row[E], row[F] = d, e, f
        square = 2.0 * math.log(opacities[i] / ALPHA_THRESHOLD)
        behind = w1 * w1 + w2 * w2 - z * z
        row[SPOT_X], row[SPOT_Y], row[SPOT_FAR], row[REACH2] = 0.0, 0.0, FAR, -1.0
        if behind < 0.0:  # the filter sits at the middle of the image of s1^2 + s2^2 <= 1, if that is in front of the camera
            row[SPOT_X], row[SPOT_Y] = (a1 * w1 + a2 * w2) / behind, (b1 * w1 + b2 * w2) / behind
            row[SPOT_FAR], row[REACH2] = 0.0, square / FILTER
        # z^2 |b dx - a dy|^2 <= square (d + e dx + f dy)^2, or p dx^2 + 2 (q1 dy + q0) dx + r2 dy^2 + 2 r1 dy + r0 <= 0
        p, q1, q0 = z * z * (b1 * b1 + b2 * b2) - square * e * e, -z * z * (a1 * b1 + a2 * b2) - square * e * f, -square * d * e
        r2, r1, r0 = z * z * (a1 * a1 + a2 * a2) - square * f * f, -square * d * f, -square * d * d
        determinant = p * r2 - q1 * q1
        row[SLOPE], row[SHIFT], row[MIDDLE], row[WIDTH2], row[NARROWING] = 0.0, 0.0, 0.0, OPEN, 0.0
        if d == 0.0:  # seen from its edge: no ray meets it
            row[WIDTH2] = -1.0
        elif p > 0.0 and determinant > 0.0 and z * z > square * (w1 * w1 + w2 * w2):
            middle, narrowing = (q1 * q0 - p * r1) / determinant, determinant / (p * p)
            row[SLOPE], row[SHIFT], row[MIDDLE], row[NARROWING] = -q1 / p, -q0 / p, middle, narrowing
            row[WIDTH2] = (q0 * q0 - p * r0) / (p * p) + narrowing * middle * middle


@numba.njit(nogil=True, cache=True)
def _list_tiles(boxes, columns, tiles):  # type: ignore[no-untyped-def]
    """Return the surfels, whose boxes are in depth order, of each tile.

    Returns:
        Offsets `[tiles + 1]` of the lists, `[M]` ranks and `[M]` slots in them, `[R + 1]` offsets of the slots of a surfel.
    """
    offsets, slots_of = np.zeros(tiles + 1, np.int64), np.zeros(len(boxes) + 1, np.int64)
    for rank in range(len(boxes)):
        x0, x1, y0, y1 = boxes[rank, 0], boxes[rank, 1], boxes[rank, 2], boxes[rank, 3]
        across = range(x0 // TILE_WIDTH, (x1 - 1) // TILE_WIDTH + 1)
        down = range(y0 // TILE_ROWS, (y1 - 1) // TILE_ROWS + 1)
        slots_of[rank + 1] = slots_of[rank] + len(across) * len(down)
        for y in down:
            for x in across:
                offsets[y * columns + x + 1] += 1
    for tile in range(tiles):
        offsets[tile + 1] += offsets[tile]
    ranks, slots, fill = np.empty(offsets[tiles], np.int32), np.empty(offsets[tiles], np.int64), offsets[:tiles].copy()
    for rank in range(len(boxes)):
        x0, x1, y0, y1 = boxes[rank, 0], boxes[rank, 1], boxes[rank, 2], boxes[rank, 3]
        slot = slots_of[rank]
        for y in range(y0 // TILE_ROWS, (y1 - 1) // TILE_ROWS + 1):
            for x in range(x0 // TILE_WIDTH, (x1 - 1) // TILE_WIDTH + 1):
                tile = y * columns + x
                ranks[fill[tile]], slots[fill[tile]] = rank, slot
                fill[tile] += 1
                slot += 1
    return offsets, ranks, slots, slots_of


@numba.njit(nogil=True, cache=True, inline="always")
def _span(row, u, dy, x0, x1):  # type: ignore[no-untyped-def]
    """Return the columns [first, last) of a tile that a surfel or its filter reaches at `dy` from its centre, within [x0, x1).

    The first is the start of a vector.
    """
    low, high = float(x1), float(x0)
    width2 = row[WIDTH2] - row[NARROWING] * (dy - row[MIDDLE]) ** 2
    if width2 >= 0.0:
        half, middle = math.sqrt(width2), u + row[SLOPE] * dy + row[SHIFT]
        low, high = middle - half, middle + half
    reach2 = row[REACH2] - (dy - row[SPOT_Y]) ** 2
    if reach2 >= 0.0:
        half, middle = math.sqrt(reach2), u + row[SPOT_X]
        low, high = min(low, middle - half), max(high, middle + half)
    first, last = max(low - MARGIN, x0), min(high + MARGIN, x1)
    return max(x0, math.ceil(first - 0.5)) & ~7, min(x1, math.floor(last - 0.5) + 1)


@numba.njit(nogil=True, cache=True, inline="always")
def _meet(dx, z, d, e, line, b1, b2, n1, n2, spot_x, aside):  # type: ignore[no-untyped-def]
    """Return where the rays of eight neighbouring pixels meet a surfel.

    Along a row, q = e dx + line, s1 q = z (b2 dx - n1) and s2 q = z (n2 - b1 dx). `aside` is what the row adds to the squared
    distance from the filter.

    Returns:
        s1, s2 and z / q, any number where they do not meet; s1^2 + s2^2, far where they do not meet; columns from the filter and
        the filter's squared distance, on the scale of s1^2 + s2^2.
    """
    number = type(z)
    q = dx * e + line
    over = z / q
    s1, s2 = (dx * b2 - n1) * over, (n2 - dx * b1) * over
    square = select(q * d > number(0.0), s1 * s1 + s2 * s2, splat(number(FAR)))
    beside = dx - spot_x
    return s1, s2, over, square, beside, beside * beside * number(FILTER) + aside


@numba.njit(nogil=True, cache=True, inline="always")
def _open_pixels(rows, across, entries, transmittance, end):  # type: ignore[no-untyped-def]
    """Start the pixels of a tile; beyond the border of the image no entry counts."""
    transmittance[:] = -1
    end[:] = 0
    for y in range(rows):
        for x in range(across):
            transmittance[y * TILE_WIDTH + x] = 1
            end[y * TILE_WIDTH + x] = entries


@numba.njit(nogil=True, cache=True, inline="always")
def _write_pixels(top, left, rows, across, channels, transmittance, light, flat, image, planes):  # type: ignore[no-untyped-def]
    """Write a tile into the images; `flat` are its depth, median depth and distortion."""
    for y in range(rows):
        for x in range(across):
            place = y * TILE_WIDTH + x
            transmittance[place] = abs(transmittance[place])
            planes[0, top + y, left + x] = 1 - transmittance[place]
            for k in range(3):
                planes[1 + k, top + y, left + x] = flat[k, place]
            for k in range(len(channels)):
                image[top + y, left + x, k] = light[k * TILE + place]


@numba.njit(nogil=True, cache=True, inline="always")
def _read_pixels(top, left, rows, across, channels, transmittance, behind, v_image, v_planes, v_light, v_flat):  # type: ignore[no-untyped-def]
    """Read the gradients of a tile; alpha = 1 - transmittance counts like a black background."""
    behind[:] = 0
    for y in range(rows):
        for x in range(across):
            place = y * TILE_WIDTH + x
            behind[place] = -transmittance[place] * v_planes[0, top + y, left + x]
            for k in range(3):
                v_flat[k, place] = v_planes[1 + k, top + y, left + x]
            for k in range(len(channels)):
                v_light[k * TILE + place] = v_image[top + y, left + x, k]


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
def _composite(  # type: ignore[no-untyped-def]
    packed, boxes, offsets, ranks, first, last, columns, width, height, channels, at_hit,
    image, planes, transmittances, deep, ends, halfways, stops,
):  # fmt: skip
    """Composite tiles `first` to `last`; `channels` is a tuple as long as a colour.

    `planes` are images of alpha, depth, median depth and distortion. A pixel's transmittance is kept negative once it is
    finished; `ends` is the entry that finished it, `halfways` the last before which more than half of the light passed.
    `stops` is the entry of a tile that finished the last of its pixels.
    """
    number = packed.dtype.type
    light = np.empty(len(channels) * TILE, packed.dtype)
    flat = np.empty((3, TILE), packed.dtype)
    depth, median, distortion = flat[0], flat[1], flat[2]
    color, nothing = variables(number(0.0), channels), splat(number(0.0))
    for tile in range(first, last):
        left, top = (tile % columns) * TILE_WIDTH, (tile // columns) * TILE_ROWS
        rows, across = min(TILE_ROWS, height - top), min(TILE_WIDTH, width - left)
        transmittance, end, halfway = transmittances[tile], ends[tile], halfways[tile]
        start, stop = offsets[tile], offsets[tile + 1]
        light[:] = 0
        flat[:] = 0
        halfway[:] = -1
        _open_pixels(rows, across, stop - start, transmittance, end)
        live = rows * across
        entry = start
        while entry < stop and live > 0:
            row = packed[ranks[entry]]
            u, v, turn = row[U] - number(left), row[V] - number(top), splat(number(entry - start))
            z, d, e, b1, b2 = row[Z], row[D], row[E], row[B1], row[B2]
            for k in range(len(channels)):
                put(color, k, splat(row[COLOR + k]))
            box = boxes[ranks[entry]]
            x0, x1 = max(0, box[0] - left), min(TILE_WIDTH, box[1] - left)
            for y in range(max(0, box[2] - top), min(rows, box[3] - top)):
                dy = number(y) + number(0.5) - v
                begin, stop_x = _span(row, u, dy, x0, x1)
                line, n1, n2 = d + row[F] * dy, row[A2] * dy, row[A1] * dy
                aside = number(FILTER) * (dy - row[SPOT_Y]) ** 2 + row[SPOT_FAR]
                for x in range(begin, stop_x, 8):
                    place = y * TILE_WIDTH + x
                    dx = _STEPS(u) + (number(x) + number(0.5) - u)
                    _, _, over, square, _, blurred = _meet(dx, z, d, e, line, b1, b2, n1, n2, row[SPOT_X], aside)
                    exponent = smaller(square, blurred) * number(-0.5 * LOG2_E) + row[PEAK]
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
                    here = splat(z)
                    if at_hit:
                        here = select(square <= blurred, over * d, here)
                    # Sum over pairs of w_i w_j |m_i - m_j|, told apart by their order, as in gsplat.
                    nearer = load(depth, place)
                    spread = weight * (here * (number(1.0) - before) - nearer)
                    store(distortion, place, load(distortion, place) + spread * number(2.0))
                    store(depth, place, nearer + weight * here)
                    early = (before > number(0.5)) & (weight > number(0.0))
                    store(median, place, select(early, here, load(median, place)))
                    store(halfway, place, select(early, turn, load(halfway, place)))
                    finished = count((before > number(0.0)) & (after <= number(TRANSMITTANCE_MINIMUM)))
                    if finished > 0:
                        live -= finished
                        for lane in range(place, place + 8):
                            if transmittance[lane] < 0:
                                end[lane] = min(end[lane], number(entry - start))
            entry += 1
        stops[tile] = entry
        deep[tile] = depth
        _write_pixels(top, left, rows, across, channels, transmittance, light, flat, image, planes)


@numba.njit(nogil=True, cache=True, inline="always")
def _pull_depth(here, weight, before, nearer_depth, all_alpha, all_depth, v_depth, v_spread):  # type: ignore[no-untyped-def]
    """Return the gradients by a surfel's weight and by its depth, of depth and of twice the distortion.

    With W and M the sums of weights and of weights times depths m over the surfels in front, half the distortion is
    sum_i w_i (m_i W_i - M_i).
    """
    nearer = before * -1.0 + 1.0
    v_weight = here * v_depth + v_spread * ((here * nearer - nearer_depth) * 2.0 + all_depth - here * all_alpha)
    return v_weight, weight * (v_depth + v_spread * (nearer * 2.0 - all_alpha + weight))


@numba.njit(nogil=True, cache=True, inline="always")
def _walk_back(row, box, left, top, rows, turn, channels, at_hit, color, v_color, pixels, slot):  # type: ignore[no-untyped-def]
    """Turn the pixels of a tile back over one surfel and write its gradient into its slot.

    `box` are the pixels that it can reach, `rows` those of the tile in the image, `turn` is the number of the entry, `pixels`
    are planes of the tile.
    """
    transmittance, depth, behind, total_transmittance, total_depth, end, halfway, v_light, v_depth, v_median, v_distortion = (
        pixels
    )
    number = type(turn)
    one, two, nothing = number(1.0), number(2.0), splat(number(0.0))
    u, v = row[U] - number(left), row[V] - number(top)
    z, d, e, b1, b2 = row[Z], row[D], row[E], row[B1], row[B2]
    for k in range(len(channels)):
        put(color, k, splat(row[COLOR + k]))
        put(v_color, k, nothing)
    sum_o = sum_z = sum_d = sum_spot_x = sum_spot_y = nothing
    # Sums over pixels of the gradients by q and by the numerators of s1, s2; plain, times dx, times dy.
    sum_q = sum_qx = sum_qy = sum_1 = sum_1x = sum_1y = sum_2 = sum_2x = sum_2y = nothing
    x0, x1 = max(0, box[0] - left), min(TILE_WIDTH, box[1] - left)
    for y in range(max(0, box[2] - top), min(rows, box[3] - top)):
        dy = number(y) + number(0.5) - v
        begin, stop_x = _span(row, u, dy, x0, x1)
        line, n1, n2 = d + row[F] * dy, row[A2] * dy, row[A1] * dy
        aside = number(FILTER) * (dy - row[SPOT_Y]) ** 2 + row[SPOT_FAR]
        row_q = row_1 = row_2 = row_spot = nothing
        for x in range(begin, stop_x, 8):
            place = y * TILE_WIDTH + x
            dx = _STEPS(u) + (number(x) + number(0.5) - u)
            s1, s2, over, square, beside, blurred = _meet(dx, z, d, e, line, b1, b2, n1, n2, row[SPOT_X], aside)
            exponent = smaller(square, blurred) * number(-0.5 * LOG2_E) + row[PEAK]
            drawn = (exponent >= number(LOG2_THRESHOLD)) & (load(end, place) > turn)
            raw = select(drawn, exp2(exponent), nothing)
            meets = (square <= blurred) & drawn
            # What is not met may be infinite, and times zero still would be.
            s1, s2, over = select(meets, s1, nothing), select(meets, s2, nothing), select(meets, over, nothing)
            square = select(meets, square, nothing)
            alpha = smaller(raw, number(ALPHA_MAXIMUM))
            through = one / (one - alpha)
            before = load(transmittance, place) * through
            store(transmittance, place, before)
            weight = alpha * before
            here = splat(z)
            if at_hit:
                here = select(meets, over * d, here)
            nearer_depth = load(depth, place) - weight * here
            store(depth, place, nearer_depth)
            seen, v_here = _pull_depth(
                here, weight, before, nearer_depth, one - load(total_transmittance, place), load(total_depth, place),
                load(v_depth, place), load(v_distortion, place) * two,
            )  # fmt: skip
            half = load(halfway, place)
            v_here = v_here + select((half >= turn) & (half <= turn), load(v_median, place), nothing)
            for k in range(len(channels)):
                v_pixel = load(v_light, k * TILE + place)
                seen = seen + v_pixel * get(color, k)
                put(v_color, k, get(v_color, k) + weight * v_pixel)
            later = load(behind, place)
            v_alpha = before * seen - later * through
            store(behind, place, later + weight * seen)
            v_sigma = select(raw <= number(ALPHA_MAXIMUM), raw * v_alpha, nothing)
            sum_o = sum_o + v_sigma
            v_met = select(meets, v_sigma, nothing)
            v_spot = v_sigma - v_met
            v_over = nothing - v_met * square
            if at_hit:
                v_hit = select(meets, v_here, nothing)
                v_over = v_over + v_hit * here
                sum_d = sum_d + v_hit * over
                v_here = v_here - v_hit
            sum_z = sum_z + v_here
            v_q = v_over * over
            row_q = row_q + v_q
            sum_qx = sum_qx + v_q * dx
            v_1, v_2 = v_met * s1 * over, v_met * s2 * over
            row_1, row_2 = row_1 + v_1, row_2 + v_2
            sum_1x, sum_2x = sum_1x + v_1 * dx, sum_2x + v_2 * dx
            row_spot, sum_spot_x = row_spot + v_spot, sum_spot_x + v_spot * beside
        sum_q, sum_1, sum_2 = sum_q + row_q, sum_1 + row_1, sum_2 + row_2
        sum_qy, sum_1y, sum_2y = sum_qy + row_q * dy, sum_1y + row_1 * dy, sum_2y + row_2 * dy
        sum_spot_y = sum_spot_y + row_spot * (dy - row[SPOT_Y])
    for k in range(len(channels)):
        slot[10 + k] = total(get(v_color, k))
    slot[9] = total(sum_o) / row[OPACITY]
    slot[8] = total(sum_z)
    _write_slot(
        row, -total(sum_q) / z, -total(sum_qx) / z, -total(sum_qy) / z, -total(sum_1), -total(sum_1x), -total(sum_1y),
        -total(sum_2), -total(sum_2x), -total(sum_2y), total(sum_d), number(FILTER) * total(sum_spot_x),
        number(FILTER) * total(sum_spot_y), slot,
    )  # fmt: skip


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
def _composite_backward(  # type: ignore[no-untyped-def]
    packed, boxes, offsets, ranks, slots, first, last, columns, width, height, channels, at_hit,
    transmittances, deep, ends, halfways, stops, v_image, v_planes, gradients,
):  # fmt: skip
    """Walk the entries of tiles `first` to `last` back to front and write each one's gradient into its slot.

    A pixel starts with its final transmittance and depth, which are turned back step by step. `behind` holds, per pixel, what
    lies behind the current surfel, weighted and multiplied with the incoming gradient: one number instead of a colour. A
    slot holds the gradients by (u, v, a1, a2, b1, b2, w1, w2, z, opacity, colour...).
    """
    number = packed.dtype.type
    v_light, v_flat = np.zeros(len(channels) * TILE, packed.dtype), np.zeros((3, TILE), packed.dtype)
    state = np.empty((3, TILE), packed.dtype)
    transmittance, depth, behind = state[0], state[1], state[2]
    color, v_color = variables(number(0.0), channels), variables(number(0.0), channels)
    for tile in range(first, last):
        left, top = (tile % columns) * TILE_WIDTH, (tile // columns) * TILE_ROWS
        rows, across = min(TILE_ROWS, height - top), min(TILE_WIDTH, width - left)
        start = offsets[tile]
        transmittance[:] = transmittances[tile]
        depth[:] = deep[tile]
        _read_pixels(top, left, rows, across, channels, transmittance, behind, v_image, v_planes, v_light, v_flat)
        kept = (transmittances[tile], deep[tile], ends[tile], halfways[tile])
        pixels = (transmittance, depth, behind, *kept, v_light, v_flat[0], v_flat[1], v_flat[2])
        for entry in range(stops[tile], offsets[tile + 1]):
            gradients[slots[entry]] = 0
        for entry in range(stops[tile] - 1, start - 1, -1):
            turn, slot = number(entry - start), gradients[slots[entry]]
            box = boxes[ranks[entry]]
            _walk_back(packed[ranks[entry]], box, left, top, rows, turn, channels, at_hit, color, v_color, pixels, slot)


@numba.njit(nogil=True, cache=True, inline="always")
def _write_slot(row, q, qx, qy, n1, n1x, n1y, n2, n2x, n2y, v_d, spot_x, spot_y, slot):  # type: ignore[no-untyped-def]
    """Write the gradients by the centre's pixel (0, 1) and the plane (2 to 8), to whose last something is there already.

    `q`, `qx`, `qy` are sums over pixels of the gradient by q, plain, times dx and times dy; `n1...` and `n2...` the same by
    (b2 dx - a2 dy) and (a1 dy - b1 dx); `v_d` is the gradient by D beyond that through q, `spot_...` that by the filter's place.
    """
    a1, a2, b1, b2, w1, w2, z = row[A1], row[A2], row[B1], row[B2], row[W1], row[W2], row[Z]
    d, e, f = row[D], row[E], row[F]
    v_d += q
    slot[0] = spot_x - (e * q + b2 * n1 - b1 * n2)
    slot[1] = spot_y - (f * q - a2 * n1 + a1 * n2)
    slot[2], slot[3] = v_d * b2 - qy * w2 + n2y, -v_d * b1 + qy * w1 - n1y
    slot[4], slot[5] = -v_d * a2 + qx * w2 - n2x, v_d * a1 - qx * w1 + n1x
    slot[6], slot[7] = qy * a2 - qx * b2, qx * b1 - qy * a1
    slot[8] -= (d * q + e * qx + f * qy) / z
    if row[REACH2] >= 0:
        # The filter is off the centre's pixel by (a . w, b . w) / behind.
        behind = w1 * w1 + w2 * w2 - z * z
        v_x, v_y = spot_x / behind, spot_y / behind
        v_behind = -(v_x * row[SPOT_X] + v_y * row[SPOT_Y])
        slot[2] += v_x * w1
        slot[3] += v_x * w2
        slot[4] += v_y * w1
        slot[5] += v_y * w2
        slot[6] += v_x * a1 + v_y * b1 + 2 * v_behind * w1
        slot[7] += v_x * a2 + v_y * b2 + 2 * v_behind * w2
        slot[8] -= 2 * v_behind * z


@numba.njit(nogil=True, cache=True)
def _sum_slots(order, slots_of, gradients, summed):  # type: ignore[no-untyped-def]
    """Write the sum of each surfel's slots, in the order of the tiles."""
    for rank in range(len(order)):
        row = summed[order[rank]]
        for slot in range(slots_of[rank], slots_of[rank + 1]):
            for k in range(gradients.shape[1]):
                row[k] += gradients[slot, k]


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
            Colours `[H, W, D]`, and `[4, H, W]`: alphas, depths summed like colours, median depths and distortion.
        """
        arrays = [tensor.detach().contiguous().numpy() for tensor in (means2d, planes, opacities, colors)]
        dtype, channels = arrays[0].dtype, tuple(range(colors.shape[1]))
        visible = np.flatnonzero(boxes.numpy()[:, 0] < boxes.numpy()[:, 1])
        order = visible[np.argsort(arrays[1][visible, 6], kind="stable")]
        packed, ranked = np.empty((len(order), COLOR + len(channels)), dtype), boxes.numpy()[order]
        _pack(order, *arrays, packed)
        columns = -(-width // TILE_WIDTH)
        tiles = columns * -(-height // TILE_ROWS)
        offsets, ranks, slots, slots_of = _list_tiles(ranked, columns, tiles)
        image, flat = np.zeros((height, width, len(channels)), dtype), np.zeros((4, height, width), dtype)
        transmittances, deep, ends, halfways = (np.empty((tiles, TILE), dtype) for _ in range(4))
        kept = (transmittances, deep, ends, halfways, np.empty(tiles, np.int64))
        cuts = _cut(offsets)

        def piece(index: int) -> None:
            span = (cuts[index], cuts[index + 1], columns, width, height, channels, at_hit)
            _composite(packed, ranked, offsets, ranks, *span, image, flat, *kept)  # type: ignore[call-arg]

        map_pieces(piece, len(cuts) - 1)
        ctx.packed, ctx.lists, ctx.kept = (packed, ranked), (order, offsets, ranks, slots, slots_of), kept
        ctx.shape = (len(arrays[0]), columns, width, height, channels, at_hit)
        return torch.from_numpy(image), torch.from_numpy(flat)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_image, v_flat):  # type: ignore[no-untyped-def]
        """Return the gradients by means2d, planes, opacities and colours."""
        order, offsets, ranks, slots, slots_of = ctx.lists
        total_count, *view = ctx.shape
        upstream = [v.contiguous().numpy() for v in (v_image, v_flat)]
        gradients = np.empty((len(slots), 10 + v_image.shape[2]), upstream[0].dtype)
        cuts = _cut(offsets)

        def piece(index: int) -> None:
            span = (cuts[index], cuts[index + 1], *view)
            _composite_backward(*ctx.packed, offsets, ranks, slots, *span, *ctx.kept, *upstream, gradients)  # type: ignore[call-arg]

        map_pieces(piece, len(cuts) - 1)
        summed = np.zeros((total_count, gradients.shape[1]), gradients.dtype)
        _sum_slots(order, slots_of, gradients, summed)
        summed_ = torch.from_numpy(summed)
        return summed_[:, :2], summed_[:, 2:9], summed_[:, 9], summed_[:, 10:], None, None, None, None


def _cut(offsets: np.ndarray) -> np.ndarray:
    """Return the bounds of at most PIECES runs of tiles with about the same number of entries."""
    marks = np.searchsorted(offsets, np.linspace(0, offsets[-1], PIECES + 1)[1:-1])
    return np.unique(np.concatenate([[0], marks, [len(offsets) - 1]]))
