"""Recorded frames seen from where nobody drove: every pixel of a new view looked up where recorded cameras saw its surface.

First the view's own depth: surfaces of recorded frames are projected into it, and of the depths that meet in a pixel one is
chosen that recorded frames agree on: those that see it there count for it, those that see through it against it, as in
Merrell et al., "Real-time visibility-based fusion of depth maps", ICCV 2007. Then colours, by the rules of Buehler et al.,
"Unstructured lumigraph rendering", SIGGRAPH 2001: a source counts more the nearer its ray is to the new one and the finer it
saw the surface, and not at all where its own surface lies elsewhere.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float64, UInt8

from worldline.cameras import invert_rigid
from worldline.driving.boxes import NEAR_M
from worldline.driving.stereo import Recording, choose, motions, moving_box, smooth
from worldline.driving.surfaces import LOWEST_M

_VOTED = 8  # depths that are kept per pixel
_SEEN_THROUGH, _HIDDEN, _SPREAD, _ALONE, _JUMP = 60.0, 12.0, 0.6, 8.0, 10.0  # costs in grey levels
_SOON, _SAME_TIME = 8.0, 2.0  # frames after which a source's word counts a third, and how much that of the same time counts
_SPAN = 20  # frames before and after that are looked up
_AGREE, _AGREE_LEAST = 0.06, 0.003  # relative and absolute difference of inverse depths that are one surface
_BEST_OF = 0.15  # penalty beyond the best source's within which sources are blended
_BLENDED = 5


@dataclass(frozen=True, eq=False)
class Seen:
    """What recorded frames show of a view.

    Attributes:
        picture: `[H, W, 3]`, 0 where nothing is known.
        known: `[H, W]` how far the picture can be trusted, 0 to 1.
        inverse_depths: `[H, W]` 1/m along the optical axis, 0 for the sky, NaN where nothing is known.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    known: Float64[np.ndarray, "H W"]
    inverse_depths: Float64[np.ndarray, "H W"]


def see(recording: Recording, allowed: np.ndarray, frame: int, world_from_camera: np.ndarray) -> Seen:
    """Return what recorded frames show of a view at the time of a frame, with the same intrinsics and size.

    From where a recorded frame of that time was taken, the view is that frame.

    Args:
        recording: frames and their surfaces.
        allowed: `[T]` frames that may be looked up.
        frame: the one at whose time the view is.
        world_from_camera: `[4, 4]` of the view.
    """
    height, width = recording.inverse_depths.shape[1:]
    if allowed[frame] and np.array_equal(world_from_camera, recording.world_from_camera[frame]):
        return Seen(recording.frames[frame], np.ones((height, width)), recording.inverse_depths[frame])
    number = np.arange(len(allowed))
    use = np.flatnonzero(allowed & recording.registered & (np.abs(number - frame) <= _SPAN))
    here, there = recording.boxes[frame], [recording.boxes[source] for source in use]
    cameras = recording.world_from_camera[use]
    source_from_view = invert_rigid(cameras)[:, None] @ motions(here, there) @ world_from_camera
    most = max((len(each.track_ids) for each in there), default=0) + 1
    view_from_source = np.full((len(use), most, 4, 4), np.nan)
    for place, boxes in enumerate(there):
        moved = motions(boxes, [here])[0]
        view_from_source[place, : len(moved)] = invert_rigid(world_from_camera) @ moved @ cameras[place]
    box_from_view = invert_rigid(here.world_from_box()) @ world_from_camera
    inverse_depths, intrinsics = recording.inverse_depths[use], recording.intrinsics
    values, counts = _vote(inverse_depths, recording.labels[use], view_from_source, intrinsics)
    exposed = recording.gains[frame] / recording.gains[use]
    frames = (recording.frames[use] * exposed[:, None, None, None]).astype(np.float32)
    apart = np.abs(use - frame).astype(np.float64)
    costs = _weigh(values, counts, frames, inverse_depths, source_from_view, apart, box_from_view, here.sizes, intrinsics)
    inverse = smooth(choose(values, costs, counts, np.zeros((height, width, 3)), _JUMP))
    picture, known = _look_up(
        inverse, frames, inverse_depths, recording.beside[use], source_from_view, apart, box_from_view, here.sizes, intrinsics
    )
    return Seen(np.rint(np.minimum(picture, 255)).astype(np.uint8), known, inverse)


@numba.njit(nogil=True, cache=True)
def _vote(
    inverse_depths: np.ndarray, labels: np.ndarray, cameras: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project the pixels of sources into the view, each as large as it is seen there.

    Args:
        inverse_depths: `[S, H, W]`.
        labels: `[S, H, W]` which motion each pixel follows.
        cameras: `[S, B + 1, 4, 4]` the view from each source, by motion; NaN where a motion is not known.
        intrinsics: `[3, 3]` of both.

    Returns:
        Inverse depths `[H, W, V]` in the view of those that are most often met, and their number `[H, W]`.
    """
    number, height, width = inverse_depths.shape
    values, votes, offsets = np.zeros((3, height, width, _VOTED))
    counts = np.zeros((height, width), np.int64)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    for s in range(number):
        for row in range(height):
            y = (row + 0.5 - cy) / fy
            for column in range(width):
                q = inverse_depths[s, row, column]
                pose = cameras[s, labels[s, row, column]]
                if np.isnan(q) or np.isnan(pose[0, 0]):
                    continue
                x = (column + 0.5 - cx) / fx
                c = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] + q * pose[2, 3]  # depth here over depth there
                if c <= NEAR_M * q + 1e-6:
                    continue
                u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] + q * pose[0, 3]) / c + cx - 0.5
                v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] + q * pose[1, 3]) / c + cy - 0.5
                half = min(0.5 * max(1.0, 1.0 / c) + 0.1, 4.0)
                if u < -half or v < -half or u > width - 1 + half or v > height - 1 + half:
                    continue
                seen = q / c
                for r in range(max(0, math.ceil(v - half)), min(height, math.floor(v + half) + 1)):
                    for k in range(max(0, math.ceil(u - half)), min(width, math.floor(u + half) + 1)):
                        apart = (r - v) ** 2 + (k - u) ** 2
                        weight = min(1.0, c) * math.exp(-apart)
                        at, weakest = -1, 0
                        for j in range(counts[r, k]):
                            if abs(values[r, k, j] - seen) < 0.05 * max(values[r, k, j], seen) + 0.0008:
                                at = j
                                break
                            if votes[r, k, j] < votes[r, k, weakest]:
                                weakest = j
                        if at >= 0:
                            votes[r, k, at] += weight
                            if apart < offsets[r, k, at]:
                                values[r, k, at], offsets[r, k, at] = seen, apart
                            continue
                        if counts[r, k] < _VOTED:
                            weakest = counts[r, k]
                            counts[r, k] += 1
                        elif votes[r, k, weakest] >= weight:
                            continue
                        values[r, k, weakest], votes[r, k, weakest], offsets[r, k, weakest] = seen, weight, apart
    return values, counts


@numba.njit(nogil=True, cache=True)
def _weigh(
    values: np.ndarray,
    counts: np.ndarray,
    frames: np.ndarray,
    inverse_depths: np.ndarray,
    cameras: np.ndarray,
    apart: np.ndarray,
    box_from_view: np.ndarray,
    sizes: np.ndarray,
    intrinsics: np.ndarray,
) -> np.ndarray:
    """Return what each candidate costs `[H, W, V]`: sources that see through it, how their colours differ, what would hide it.

    `cameras` `[S, B + 1, 4, 4]` are the sources from the view, by motion, and `apart` `[S]` how many frames away they are.
    """
    number, height, width = inverse_depths.shape
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    costs = np.full((height, width, _VOTED), 1e3)
    support = np.zeros(_VOTED)
    colours = np.zeros((number, 3))
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            x = (column + 0.5 - cx) / fx
            for k in range(counts[row, column]):
                q = values[row, column, k]
                motion = moving_box(x, y, q, box_from_view, sizes, LOWEST_M)
                through, agreed, found = 0.0, 0.0, 0
                for s in range(number):
                    pose = cameras[s, motion]
                    c = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] + q * pose[2, 3]
                    if not c > NEAR_M * q + 1e-6:
                        continue
                    u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] + q * pose[0, 3]) / c + cx - 0.5
                    v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] + q * pose[1, 3]) / c + cy - 0.5
                    if u < 0 or v < 0 or u >= width - 1 or v >= height - 1:
                        continue
                    own, there = inverse_depths[s, int(v + 0.5), int(u + 0.5)], q / c
                    vote = math.exp(-apart[s] / _SOON) if apart[s] > 0 else _SAME_TIME
                    if abs(own - there) < _AGREE * max(there, own) + _AGREE_LEAST:
                        left, top = int(u), int(v)
                        du, dv = u - left, v - top
                        for channel in range(3):
                            upper = (1 - du) * frames[s, top, left, channel] + du * frames[s, top, left + 1, channel]
                            lower = (1 - du) * frames[s, top + 1, left, channel] + du * frames[s, top + 1, left + 1, channel]
                            colours[found, channel] = (1 - dv) * upper + dv * lower
                        found += 1
                        agreed += vote
                    elif own < there:
                        through += vote
                spread = 10.0
                if found > 1:
                    spread = 0.0
                    for channel in range(3):
                        mean = colours[:found, channel].mean()
                        for i in range(found):
                            spread += abs(colours[i, channel] - mean)
                    spread = min(spread / (3 * found), 25.0)
                share = agreed / (agreed + through + 0.5)
                support[k] = share * min(1.0, found / 3.0)
                costs[row, column, k] = _SEEN_THROUGH * (1 - share) + _SPREAD * spread + (_ALONE if found < 2 else 0.0)
            for k in range(counts[row, column]):
                for j in range(counts[row, column]):
                    if values[row, column, j] > values[row, column, k] * 1.05 + 0.001:
                        costs[row, column, k] += _HIDDEN * support[j]
    return costs


@numba.njit(nogil=True, cache=True)
def _look_up(
    inverse: np.ndarray,
    frames: np.ndarray,
    inverse_depths: np.ndarray,
    labels: np.ndarray,
    cameras: np.ndarray,
    apart: np.ndarray,
    box_from_view: np.ndarray,
    sizes: np.ndarray,
    intrinsics: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of the view and how far to trust them; arguments as for `_weigh`."""
    number, height, width = inverse_depths.shape
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    picture, trust = np.zeros((height, width, 3)), np.zeros((height, width))
    colours, penalties, order = np.zeros((number, 3)), np.zeros(number), np.zeros(number, np.int64)
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            q = inverse[row, column]
            if np.isnan(q):
                continue
            x = (column + 0.5 - cx) / fx
            motion = moving_box(x, y, q, box_from_view, sizes, LOWEST_M)
            found = 0
            for s in range(number):
                pose = cameras[s, motion]
                ra = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]  # the view's ray in the source's axes
                rb = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]
                rc = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]
                a, b, c = ra + q * pose[0, 3], rb + q * pose[1, 3], rc + q * pose[2, 3]  # the source's own
                if not c > NEAR_M * q + 1e-6:
                    continue
                u, v = fx * a / c + cx - 0.5, fy * b / c + cy - 0.5
                if u < 0 or v < 0 or u > width - 1 or v > height - 1:
                    continue
                there = q / c
                left, top = min(int(u), width - 2), min(int(v), height - 2)
                du, dv = u - left, v - top
                total, red, green, blue = 0.0, 0.0, 0.0, 0.0
                for j in range(4):  # of the four pixels around, those that show another surface do not count
                    r, k = top + j // 2, left + j % 2
                    own = inverse_depths[s, r, k]
                    if not abs(own - there) < _AGREE * (own + there) + _AGREE_LEAST or (labels[s, r, k] > 0) != (motion > 0):
                        continue
                    weight = (dv if j >= 2 else 1 - dv) * (du if j % 2 else 1 - du)
                    total += weight
                    red += weight * frames[s, r, k, 0]
                    green += weight * frames[s, r, k, 1]
                    blue += weight * frames[s, r, k, 2]
                if total < 0.3:
                    continue
                colours[found, 0], colours[found, 1], colours[found, 2] = red / total, green / total, blue / total
                crossed = (rb * c - rc * b) ** 2 + (rc * a - ra * c) ** 2 + (ra * b - rb * a) ** 2
                lengths = (ra * ra + rb * rb + rc * rc) * (a * a + b * b + c * c)
                angle = math.asin(min(1.0, math.sqrt(crossed / lengths)))
                coarser = math.log(c)
                penalty = angle / 0.3 + 0.02 * apart[s] + 0.5 * (1 - total)
                penalty += coarser if coarser > 0 else 0.3 * max(0.0, -coarser - 0.7)
                border = min(min(u, width - 1 - u), min(v, height - 1 - v))
                penalty *= 1.0 + max(0.0, 1.0 - border / 6.0)  # no seam where a source ends
                at = found
                while at > 0 and penalties[order[at - 1]] > penalty:
                    order[at] = order[at - 1]
                    at -= 1
                order[at] = found
                penalties[found] = penalty
                found += 1
            if found == 0:
                continue
            best = penalties[order[0]]
            total = 0.0
            for j in range(min(found, _BLENDED)):
                beyond = penalties[order[j]] - best
                if beyond < _BEST_OF:
                    weight = (1 - beyond / _BEST_OF) / (penalties[order[j]] + 1e-6)
                    total += weight
                    for channel in range(3):
                        picture[row, column, channel] += weight * colours[order[j], channel]
            for channel in range(3):
                picture[row, column, channel] /= total
            trust[row, column] = math.exp(-0.7 * best) * min(1.0, 0.5 + 0.25 * found)
    return picture, trust
