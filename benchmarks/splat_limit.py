"""What this machine can do of the rasteriser's arithmetic, if nothing had to be fetched, masked, listed or summed.

Loops over registers, with the vectors of the rasteriser's own kernels and several independent blocks in flight. Counted
per pair of a pixel and a Gaussian, with D channels:

- forward: 1 exponential of base 2 (1 rounding, 1 subtraction, 6 multiply-adds, 3 whole-number operations), 2 additions, 2
  multiplications and 3 multiply-adds for its exponent, 1 minimum, 1 multiplication, 1 subtraction, D multiply-adds;
- backward: the same exponential, exponent and minimum, 1 subtraction, 1 division, 6 multiplications, 1 subtraction, 6
  additions or multiply-adds for the exponent's moments, 2 multiply-adds, and 2 D multiply-adds.

Comparisons, selections, loads and stores are not counted: the kernels need them, the arithmetic does not.
"""

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from worldline.splatting.vectors import exp2, get, pattern, put, smaller, splat, store, variables
from worldline.threads import map_pieces

IN_FLIGHT = (1, 2, 3, 4)  # independent blocks; the fastest is the limit
LANES = 8
_X = pattern([0.5, 1.5, 2.5, 3.5, 0.5, 1.5, 2.5, 3.5])
_Y = pattern([0.5, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 1.5])
_FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
_ROW = np.array([-0.02, 0.003, -0.01, -40.0, 0.3, 0.2, 0.1], np.float32)  # so faint that transmittance stays 1 and no sum grows


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
def _forward(rounds, row, blocks, channels, out):  # type: ignore[no-untyped-def]
    number = row.dtype.type
    xx, xy, yy, peak = row[0], row[1], row[2], row[3]
    near_x, near_y, step = _X(xx), _Y(xx), number(0.0)
    transmittance, light = variables(xx, blocks), variables(xx, (*blocks, *blocks, *blocks))
    for block in range(len(blocks)):
        put(transmittance, block, splat(number(1.0)))
        for k in range(len(channels)):
            put(light, block * len(channels) + k, splat(number(0.0)))
    for _ in range(rounds):
        step = step + number(1e-6)  # so that nothing is the same twice
        for block in range(len(blocks)):
            dx, dy = near_x + (step + number(block)), near_y + step
            exponent = dx * (dx * xx + dy * xy) + (dy * (dy * yy) + peak)
            alpha = smaller(exp2(exponent), number(0.999))
            weight = alpha * get(transmittance, block)
            put(transmittance, block, get(transmittance, block) - weight)
            for k in range(len(channels)):
                put(light, block * len(channels) + k, get(light, block * len(channels) + k) + weight * row[4 + k])
    result = splat(number(0.0))
    for block in range(len(blocks)):
        result = result + get(transmittance, block)
        for k in range(len(channels)):
            result = result + get(light, block * len(channels) + k)
    store(out, 0, result)


@numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
def _backward(rounds, row, blocks, channels, out):  # type: ignore[no-untyped-def]
    number = row.dtype.type
    xx, xy, yy, peak = row[0], row[1], row[2], row[3]
    near_x, near_y, step = _X(xx), _Y(xx), number(0.0)
    transmittance, behind, v_color = variables(xx, blocks), variables(xx, blocks), variables(xx, channels)
    sum_0 = sum_x = sum_y = sum_xx = sum_xy = sum_yy = splat(number(0.0))
    for block in range(len(blocks)):
        put(transmittance, block, splat(number(1.0)))
        put(behind, block, splat(number(0.5)))
    for k in range(len(channels)):
        put(v_color, k, splat(number(0.0)))
    for _ in range(rounds):
        step = step + number(1e-6)  # so that nothing is the same twice
        for block in range(len(blocks)):
            dx, dy = near_x + (step + number(block)), near_y + step
            exponent = dx * (dx * xx + dy * xy) + (dy * (dy * yy) + peak)
            raw = exp2(exponent)
            alpha = smaller(raw, number(0.999))
            through = number(1.0) / (number(1.0) - alpha)
            before = get(transmittance, block) * through
            put(transmittance, block, before)
            weight = alpha * before
            seen = splat(number(0.0))
            for k in range(len(channels)):
                v_pixel = near_x * row[4 + k]
                seen = seen + v_pixel * row[4 + k]
                put(v_color, k, get(v_color, k) + weight * v_pixel)
            later = get(behind, block)
            v_sigma = raw * (before * seen - later * through)
            put(behind, block, later + weight * seen)
            sum_0 = sum_0 + v_sigma
            v_x, v_y = v_sigma * dx, v_sigma * dy
            sum_x, sum_y = sum_x + v_x, sum_y + v_y
            sum_xx, sum_xy, sum_yy = sum_xx + v_x * dx, sum_xy + v_x * dy, sum_yy + v_y * dy
    result = sum_0 + sum_x + sum_y + sum_xx + sum_xy + sum_yy
    for block in range(len(blocks)):
        result = result + get(transmittance, block) + get(behind, block)
    for k in range(len(channels)):
        result = result + get(v_color, k)
    store(out, 0, result)


def seconds_per_pair(backward: bool, seconds: float = 0.01, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the shortest time per pair of D = 3 channels, on as many threads as numba has."""
    return min(_time(_backward if backward else _forward, tuple(range(count)), seconds, clock) for count in IN_FLIGHT)


def _time(kernel: Any, blocks: tuple[int, ...], seconds: float, clock: Callable[[], float]) -> float:
    threads, rounds = numba.get_num_threads(), 1000
    outs = np.zeros((threads, LANES), np.float32)
    while True:
        start = clock()
        map_pieces(lambda index, rounds=rounds: kernel(rounds, _ROW, blocks, (0, 1, 2), outs[index]), threads)  # type: ignore[misc]
        taken = clock() - start
        if taken > seconds:
            return taken / (rounds * len(blocks) * LANES * threads)
        rounds *= 2
