"""Dense depth of recorded frames: surfaces that lasers measured, spread over the picture so that other frames agree.

Every pixel chooses among a few candidates: the depth measured there, those of measured surfaces around, what stands below it
continued upwards (houses and trees are higher than lasers reach), the road's plane, the sky, and the depth at which the
pixel looks most alike in other frames. The choice makes the picture consistent with other frames and smooth but for edges:
semi-global matching (Hirschmüller, PAMI 30(2), 2008) over lists of candidates in place of disparities. Sky is also told by its
colour, learnt from the log's own frames: a first choice by geometry says which colours are sky and which are not.

Depths are kept as inverse depths (1/m along the optical axis), 0 for the sky and NaN where nothing is known.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.ndimage import gaussian_filter

from worldline.cameras import invert_rigid, pixel_rays
from worldline.driving.boxes import NEAR_M, Boxes
from worldline.driving.surfaces import GROWN_M, LOWEST_M, ScenePoints, measured_depths
from worldline.threads import map_pieces

CANDIDATES = 10
_SWEEP, _SWEPT = 24, 0.15  # inverse depths that are tried for pixels without a measurement, and the largest of them
_BASELINES_M = (1.5, 3.0, 6.0)  # other frames are compared that were taken so far before and behind
_MOVING_M = 0.3  # boxes that get no farther than this in the whole log stand still
# What is said against a candidate before it is compared, in grey levels.
_BESIDE_MEASURED, _BESIDE, _PER_PIXEL, _ROAD, _SKY, _STANDING, _ALIKE = 10.0, 3.0, 0.2, 4.0, 2.0, 2.0, 6.0
_UNSEEN = 12.0  # difference of a candidate that no other frame shows
_LARGEST_DIFFERENCE = 40.0
_JUMP = 20.0  # what an edge of depth costs where there is none in the picture
_CONTRAST = 45.0  # sum over the channels at which an edge of depth is three quarters cheaper
_SPREAD_M = 3.0  # things reach so far to the side of what a laser sees of them: crowns of trees
_FARTHEST_ROAD_M = 120.0
_SKY_WEIGHT, _SKY_MOST = 5.0, 3.0  # grey levels per unit of log odds of a colour, and the largest odds believed
_COLOURS = 16  # bins per channel
_EXPOSURE_STEPS = (1, 4)  # frames apart that are compared in brightness
_DARK, _BRIGHT, _LEAST_PIXELS = 25.0, 230.0, 100  # grey levels that follow the exposure, and how many pixels must agree
_SLOPE = 0.004  # inverse depth per pixel: how fast the road's changes from row to row


@dataclass(frozen=True, eq=False)
class Recording:
    """Recorded frames with the surface that each of them shows.

    Attributes:
        frames: `[T, H, W, 3]` uint8.
        world_from_camera: `[T, 4, 4]`.
        intrinsics: `[3, 3]` of the frames.
        registered: `[T]` frames whose pose is known; others have no surface.
        boxes: of every frame, those that move in the log.
        inverse_depths: `[T, H, W]`.
        labels: `[T, H, W]` 1 + the row of the moving box that each pixel shows, 0 for what stands still.
        beside: `[T, H, W]` the same with a margin: a pixel wide, and the road under the boxes.
        gains: `[T]` how bright each frame is exposed, about 1.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    world_from_camera: Float64[np.ndarray, "T 4 4"]
    intrinsics: Float64[np.ndarray, "3 3"]
    registered: np.ndarray
    boxes: list[Boxes]
    inverse_depths: Float64[np.ndarray, "T H W"]
    labels: Int64[np.ndarray, "T H W"]
    beside: Int64[np.ndarray, "T H W"]
    gains: Float64[np.ndarray, " T"]


def moving_boxes(boxes: list[Boxes]) -> list[Boxes]:
    """Return of every frame the boxes of tracks that move in the log."""
    places: dict[int, list[np.ndarray]] = {}
    for here in boxes:
        for track, bottom in zip(here.track_ids.tolist(), here.bottoms, strict=True):
            places.setdefault(track, []).append(bottom)
    moving = [track for track, seen in places.items() if np.ptp(np.array(seen), axis=0).max() > _MOVING_M]
    return [here.chosen(np.flatnonzero(np.isin(here.track_ids, moving))) for here in boxes]


def read_surfaces(
    frames: np.ndarray,
    world_from_camera: np.ndarray,
    registered: np.ndarray,
    intrinsics: np.ndarray,
    boxes: list[Boxes],
    points: ScenePoints,
    ground: np.ndarray,
) -> Recording:
    """Find the surface of every registered frame.

    Args:
        frames: `[T, H, W, 3]` uint8.
        world_from_camera: `[T, 4, 4]`.
        registered: `[T]`.
        intrinsics: `[3, 3]` of the frames.
        boxes: of every frame.
        points: of the log.
        ground: `[T, 4]` plane of the road under the vehicle (normal, offset): n . x + d = 0.
    """
    count, height, width = frames.shape[:3]
    moving = moving_boxes(boxes)
    steps = np.linalg.norm(np.diff(world_from_camera[:, :3, 3], axis=0), axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    smooth_frames = frames.astype(np.float64)
    known = np.flatnonzero(registered)

    def gather(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frame = int(known[number])
        pose = world_from_camera[frame]
        measured, filled = measured_depths(points.at(boxes[frame]), pose, intrinsics, width, height)
        values, costs, counts = _gather(measured, filled, pose, intrinsics, ground[frame], max(width // 10, 6))
        others = _compared(travelled, registered, frame)
        cameras = (
            invert_rigid(world_from_camera[others])[:, None] @ motions(moving[frame], [moving[other] for other in others]) @ pose
        )
        box_from_camera = invert_rigid(moving[frame].world_from_box()) @ pose
        _compare(
            values, costs, counts, measured, smooth_frames[frame], smooth_frames[others], cameras, box_from_camera,
            moving[frame].sizes, intrinsics,
        )  # fmt: skip
        return values, costs, counts

    def choose_first(number: int) -> np.ndarray:
        values, costs, counts = lists[number]
        return choose(values, costs, counts, smooth_frames[known[number]], _JUMP)

    lists = map_pieces(gather, len(known))
    odds = _sky_odds(frames[known], map_pieces(choose_first, len(known)))
    inverse_depths = np.full((count, height, width), np.nan)
    labels, beside = np.zeros((2, count, height, width), np.int64)

    def settle(number: int) -> None:
        frame = int(known[number])
        values, costs, counts = lists[number]
        levels = frames[frame] // (256 // _COLOURS)
        sky = (values == 0) & (np.arange(CANDIDATES) < counts[..., None])
        costs -= np.where(sky, _SKY_WEIGHT * odds[levels[..., 0], levels[..., 1], levels[..., 2]][..., None], 0.0)
        inverse_depths[frame] = smooth(choose(values, costs, counts, smooth_frames[frame], _JUMP))
        box_from_camera = invert_rigid(moving[frame].world_from_box()) @ world_from_camera[frame]
        _label(inverse_depths[frame], box_from_camera, moving[frame].sizes, intrinsics, labels[frame], beside[frame])

    map_pieces(settle, len(known))
    gains = _exposures(frames, world_from_camera, intrinsics, inverse_depths, beside)
    return Recording(frames, world_from_camera, intrinsics, registered, moving, inverse_depths, labels, beside, gains)


def motions(here: Boxes, elsewhen: list[Boxes]) -> np.ndarray:
    """Return how boxes have moved `[S, N + 1, 4, 4]` in the world from one frame to others; first what stands still.

    NaN where a box of this frame is not in another one.

    Args:
        here: N boxes.
        elsewhen: boxes of S other frames.
    """
    found = np.full((len(elsewhen), len(here.track_ids) + 1, 4, 4), np.nan)
    found[:, 0] = np.eye(4)
    back = invert_rigid(here.world_from_box())
    for number, there in enumerate(elsewhen):
        poses = dict(zip(there.track_ids.tolist(), there.world_from_box(), strict=True))
        for row, track in enumerate(here.track_ids.tolist()):
            if track in poses:
                found[number, row + 1] = poses[track] @ back[row]
    return found


def _exposures(
    frames: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray, inverse_depths: np.ndarray, beside: np.ndarray
) -> np.ndarray:
    """Return how bright each frame is exposed `[T]`: by what stands still in it and in frames soon after, with mean log 0."""
    count, height, width = inverse_depths.shape
    light = frames.mean(axis=-1)
    rows, columns = (index.ravel() for index in np.mgrid[1 : height - 1 : 3, 1 : width - 1 : 3])
    rays = pixel_rays(np.stack([columns, rows], axis=1) + 0.5, intrinsics)
    equations, ratios = [np.ones(count)], [0.0]
    for step in _EXPOSURE_STEPS:
        for frame in range(count - step):
            other = frame + step
            q = inverse_depths[frame, rows, columns]
            pose = invert_rigid(world_from_camera[other]) @ world_from_camera[frame]
            seen = rays @ pose[:3, :3].T + q[:, None] * pose[:3, 3]
            with np.errstate(divide="ignore", invalid="ignore"):
                pixels = np.floor((seen @ intrinsics.T)[:, :2] / seen[:, 2:])
                shown = (seen[:, 2] > 0) & ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
            shown = np.flatnonzero(shown & (beside[frame, rows, columns] == 0))
            x, y = pixels[shown].astype(int).T
            there, own = inverse_depths[other, y, x], q[shown] / seen[shown, 2]
            before, after = light[frame, rows[shown], columns[shown]], light[other, y, x]
            fair = (np.minimum(before, after) > _DARK) & (np.maximum(before, after) < _BRIGHT)
            agree = np.flatnonzero(fair & (np.abs(there - own) < 0.05 * there + 0.002))
            if len(agree) >= _LEAST_PIXELS:
                equations.append(np.eye(count)[other] - np.eye(count)[frame])
                ratios.append(float(np.median(np.log(after[agree] / before[agree]))))
    return np.exp(np.linalg.lstsq(np.array(equations), np.array(ratios), rcond=None)[0])


def _compared(travelled: np.ndarray, registered: np.ndarray, frame: int) -> np.ndarray:
    """Return the frames taken about `_BASELINES_M` before and behind a frame."""
    apart = np.where(registered, travelled - travelled[frame], np.inf)
    nearest = {int(np.abs(apart - sign * step).argmin()) for step in _BASELINES_M for sign in (-1, 1)}
    return np.array(sorted(other for other in nearest if abs(apart[other]) > _BASELINES_M[0] / 4), np.int64)


def _sky_odds(frames: np.ndarray, chosen: list[np.ndarray]) -> np.ndarray:
    """Return the log odds of each colour `[16, 16, 16]` to be sky, by what was chosen in frames for sky and for something."""
    sky, other = np.zeros((2, _COLOURS, _COLOURS, _COLOURS))
    for frame, inverse in zip(frames, chosen, strict=True):
        levels = frame // (256 // _COLOURS)
        for counts, pixels in ((sky, inverse == 0), (other, inverse > 0)):
            np.add.at(counts, tuple(levels[pixels].T), 1)
    shares = [gaussian_filter(counts, 0.8) / max(counts.sum(), 1) for counts in (sky, other)]
    return np.clip(np.log((shares[0] + 1e-5) / (shares[1] + 1e-5)), -_SKY_MOST, _SKY_MOST)


@numba.njit(nogil=True, cache=True, inline="always")
def _add(q: float, penalty: float, values: np.ndarray, penalties: np.ndarray, count: int) -> int:
    """Append a candidate unless it is there, and return how many there are."""
    for k in range(count):
        if abs(values[k] - q) < 0.06 * max(values[k], q) + 0.0008:
            penalties[k] = min(penalties[k], penalty)
            return count
    if count == len(values):
        return count
    values[count], penalties[count] = q, penalty
    return count + 1


@numba.njit(nogil=True, cache=True)
def _gather(
    measured: np.ndarray,
    filled: np.ndarray,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    ground: np.ndarray,
    reach: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return candidates `[H, W, C]`, what is said against each of them, and their number `[H, W]`."""
    height, width = measured.shape
    values, penalties = np.zeros((height, width, CANDIDATES)), np.zeros((height, width, CANDIDATES))
    counts = np.zeros((height, width), np.int64)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    up, above = np.zeros(3), ground[3]
    for i in range(3):
        above += ground[i] * world_from_camera[i, 3]
        for j in range(3):
            up[i] += world_from_camera[j, i] * ground[j]
    top = np.full(width, -1, np.int64)
    for column in range(width):
        for row in range(height):
            if np.isfinite(measured[row, column]):
                top[column] = row
                break
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            x = (column + 0.5 - cx) / fx
            count = 0
            own, against = values[row, column], penalties[row, column]
            known = np.isfinite(measured[row, column])
            if np.isfinite(filled[row, column]):
                count = _add(1.0 / filled[row, column], 0.0, own, against, count)
            for direction in range(8):
                dy = (-1, -1, -1, 0, 1, 1, 1, 0)[direction]
                dx = (-1, 0, 1, 1, 1, 0, -1, -1)[direction]
                for step in range(1, (3 if known else reach) + 1):
                    r, c = row + dy * step, column + dx * step
                    if r < 0 or c < 0 or r >= height or c >= width:
                        break
                    if np.isfinite(measured[r, c]):
                        penalty = (_BESIDE_MEASURED if known else _BESIDE) + _PER_PIXEL * step
                        count = _add(1.0 / measured[r, c], penalty, own, against, count)
                        break
            falling = -(up[0] * x + up[1] * y + up[2])
            if not known and falling > above / _FARTHEST_ROAD_M:
                count = _add(falling / above, _ROAD, own, against, count)
            if not known and falling < 0.02:
                count = _add(0.0, _SKY, own, against, count)
                for step in range(width):  # what stands in this column and in those beside, up to here
                    if step * 3.0 / fx > _SPREAD_M or count >= CANDIDATES - 2:
                        break
                    for side in (-1, 1):
                        c = column + side * step
                        if c < 0 or c >= width or top[c] < row or (step == 0 and side == 1):
                            continue
                        z = measured[top[c], c]
                        aside = step * z / fx
                        if aside > _SPREAD_M:
                            continue
                        foot = (top[c] + 0.5 - cy) / fy
                        z += z * (y - foot) / (up[1] - y * up[2]) * up[2]
                        if z > 1.0:
                            count = _add(1.0 / z, _STANDING + 1.5 * aside, own, against, count)
            counts[row, column] = count
    return values, penalties, counts


@numba.njit(nogil=True, cache=True)
def moving_box(x: float, y: float, q: float, box_from_camera: np.ndarray, sizes: np.ndarray, lowest: float) -> int:
    """Return 1 + the box that the point with inverse depth q on the ray (x, y, 1) lies in, 0 where it lies in none."""
    if not q > 0.0:
        return 0
    z = 1.0 / q
    for box in range(len(sizes)):
        pose = box_from_camera[box]
        if abs(z * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]) + pose[0, 3]) > sizes[box, 0] / 2 + GROWN_M:
            continue
        if abs(z * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]) + pose[1, 3]) > sizes[box, 1] / 2 + GROWN_M:
            continue
        if lowest < z * (pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]) + pose[2, 3] < sizes[box, 2] + GROWN_M:
            return box + 1
    return 0


@numba.njit(nogil=True, cache=True)
def _label(
    inverse: np.ndarray,
    box_from_camera: np.ndarray,
    sizes: np.ndarray,
    intrinsics: np.ndarray,
    strict: np.ndarray,
    wide: np.ndarray,
) -> None:
    """Fill the labels of a frame and those with a margin; see `Recording`."""
    height, width = inverse.shape
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            x = (column + 0.5 - cx) / fx
            q = inverse[row, column]
            strict[row, column] = moving_box(x, y, q, box_from_camera, sizes, LOWEST_M)
            box = moving_box(x, y, q, box_from_camera, sizes, -2 * LOWEST_M)
            if box:
                for r in range(max(row - 1, 0), min(row + 2, height)):
                    for c in range(max(column - 1, 0), min(column + 2, width)):
                        wide[r, c] = box


@numba.njit(nogil=True, cache=True)
def _difference(
    colour: np.ndarray,
    q: float,
    x: float,
    y: float,
    others: np.ndarray,
    cameras: np.ndarray,
    motion: int,
    intrinsics: np.ndarray,
    sorted_: np.ndarray,
) -> float:
    """Return by how many grey levels a pixel differs from other frames if its inverse depth is q; their better half counts."""
    number, height, width = others.shape[:3]
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    found = 0
    for k in range(number):
        pose = cameras[k, motion]
        if np.isnan(pose[0, 0]):
            continue
        c = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] + q * pose[2, 3]
        if c < NEAR_M * q + 1e-6:
            continue
        u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] + q * pose[0, 3]) / c + cx - 0.5
        v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] + q * pose[1, 3]) / c + cy - 0.5
        if u < 0 or v < 0 or u >= width - 1 or v >= height - 1:
            continue
        left, top = int(u), int(v)
        du, dv = u - left, v - top
        total = 0.0
        for channel in range(3):
            upper = (1 - du) * others[k, top, left, channel] + du * others[k, top, left + 1, channel]
            lower = (1 - du) * others[k, top + 1, left, channel] + du * others[k, top + 1, left + 1, channel]
            total += abs((1 - dv) * upper + dv * lower - colour[channel])
        total = min(total / 3, _LARGEST_DIFFERENCE)
        at = found
        while at > 0 and sorted_[at - 1] > total:
            sorted_[at] = sorted_[at - 1]
            at -= 1
        sorted_[at] = total
        found += 1
    if found == 0:
        return _UNSEEN
    return sorted_[: (found + 1) // 2].mean()


@numba.njit(nogil=True, cache=True)
def _compare(
    values: np.ndarray,
    costs: np.ndarray,
    counts: np.ndarray,
    measured: np.ndarray,
    picture: np.ndarray,
    others: np.ndarray,
    cameras: np.ndarray,
    box_from_camera: np.ndarray,
    sizes: np.ndarray,
    intrinsics: np.ndarray,
) -> None:
    """Add to the costs how much each candidate differs, and the candidates at which unmeasured pixels look most alike."""
    height, width = counts.shape
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    sorted_, sweep = np.zeros(max(len(others), 1)), np.zeros(_SWEEP)
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            x = (column + 0.5 - cx) / fx
            count = counts[row, column]
            colour = picture[row, column]
            if not np.isfinite(measured[row, column]) and count < CANDIDATES and len(others):
                best = -1
                for k in range(_SWEEP):
                    q = _SWEPT * ((k + 1) / _SWEEP) ** 2
                    motion = moving_box(x, y, q, box_from_camera, sizes, LOWEST_M)
                    sweep[k] = _difference(colour, q, x, y, others, cameras, motion, intrinsics, sorted_)
                for k in range(1, _SWEEP - 1):
                    if sweep[k] <= min(sweep[k - 1], sweep[k + 1]) and (best < 0 or sweep[k] < sweep[best]):
                        best = k
                if best >= 0:
                    alike = _SWEPT * ((best + 1) / _SWEEP) ** 2
                    count = _add(alike, _ALIKE, values[row, column], costs[row, column], count)
                    counts[row, column] = count
            for k in range(count):
                q = values[row, column, k]
                motion = moving_box(x, y, q, box_from_camera, sizes, LOWEST_M)
                costs[row, column, k] += _difference(colour, q, x, y, others, cameras, motion, intrinsics, sorted_)


@numba.njit(nogil=True, cache=True)
def choose(values: np.ndarray, costs: np.ndarray, counts: np.ndarray, picture: np.ndarray, jump_cost: float) -> np.ndarray:
    """Return the candidate `[H, W]` that is cheapest summed over paths from eight directions, NaN where there is none."""
    height, width, most = values.shape
    sums, path = np.zeros((height, width, most)), np.zeros((height, width, most))
    for direction in range(8):
        dy = (-1, -1, -1, 0, 1, 1, 1, 0)[direction]
        dx = (-1, 0, 1, 1, 1, 0, -1, -1)[direction]
        for i in range(height):
            row = i if dy <= 0 else height - 1 - i
            for j in range(width):
                column = j if dx <= 0 else width - 1 - j
                r, c = row + dy, column + dx
                before = counts[r, c] if 0 <= r < height and 0 <= c < width else 0
                weight, least = 0.0, 0.0
                if before:
                    contrast = 0.0
                    for channel in range(3):
                        contrast += abs(picture[row, column, channel] - picture[r, c, channel])
                    weight = jump_cost * (0.25 + 0.75 * math.exp(-contrast / _CONTRAST))
                    least = path[r, c, :before].min()
                for k in range(counts[row, column]):
                    cheapest = least + weight
                    for m in range(before):
                        a, b = values[row, column, k], values[r, c, m]
                        jump = min(1.0, max(0.0, abs(a - b) - _SLOPE) / (_SLOPE + 0.15 * max(a, b)))
                        cheapest = min(cheapest, path[r, c, m] + weight * jump)
                    path[row, column, k] = costs[row, column, k] + cheapest - least
                    sums[row, column, k] += path[row, column, k]
    chosen = np.full((height, width), np.nan)
    for row in range(height):
        for column in range(width):
            if counts[row, column]:
                chosen[row, column] = values[row, column, sums[row, column, : counts[row, column]].argmin()]
    return chosen


@numba.njit(nogil=True, cache=True)
def smooth(inverse: np.ndarray) -> np.ndarray:
    """Return inverse depths without the noise of single measurements: of planes fitted to each pixel's surface around it.

    The inverse depth of a plane is linear in the picture's coordinates.
    """
    radius = 2
    height, width = inverse.shape
    result = inverse.copy()
    for row in range(height):
        for column in range(width):
            own = inverse[row, column]
            if not own > 0.0:
                continue
            n, sx, sy, sxx, sxy, syy, sq, sxq, syq = 0.0, 0.0, 0.0, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    r, c = row + dy, column + dx
                    if r < 0 or c < 0 or r >= height or c >= width:
                        continue
                    off = inverse[r, c] - own
                    if not abs(off) < 0.04 * own + 0.0005 + _SLOPE * (abs(dy) + 0.3 * abs(dx)):
                        continue
                    weight = math.exp(-0.5 * (dx * dx + dy * dy) / (0.6 * radius) ** 2)
                    n += weight
                    sx += weight * dx
                    sy += weight * dy
                    sxx += weight * dx * dx
                    sxy += weight * dx * dy
                    syy += weight * dy * dy
                    sq += weight * off
                    sxq += weight * dx * off
                    syq += weight * dy * off
            det = n * (sxx * syy - sxy * sxy) - sx * (sx * syy - sxy * sy) + sy * (sx * sxy - sxx * sy)
            if det > 1e-9:
                level = sq * (sxx * syy - sxy * sxy) - sx * (sxq * syy - sxy * syq) + sy * (sxq * sxy - sxx * syq)
                result[row, column] = max(own + level / det, 1e-4)
    return result
