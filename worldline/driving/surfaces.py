"""Points that lasers measured over a whole log, and the surfaces that they show in a view."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32

from schemas.driving import LidarSweeps
from worldline.cameras import invert_rigid
from worldline.driving.boxes import NEAR_M, Boxes

GROWN_M = 0.2  # points so close to a box belong to what is in it, or are not to be trusted
LOWEST_M = 0.1  # the lowest points in a box are of the road below


@dataclass(frozen=True, eq=False)
class ScenePoints:
    """Points of a log, apart by what they are on.

    Attributes:
        static: `[N, 3]` world frame, metres.
        on_tracks: `[n, 3]` of each track, in the frame of its box (see `Boxes.world_from_box`).
    """

    static: Float32[np.ndarray, "N 3"]
    on_tracks: dict[int, Float32[np.ndarray, "n 3"]]

    def at(self, boxes: Boxes) -> np.ndarray:
        """Return all points `[M, 3]` in the world as they lie when the boxes do."""
        points = [self.static]
        for track, pose in zip(boxes.track_ids, boxes.world_from_box(), strict=True):
            own = self.on_tracks.get(int(track))
            if own is not None:
                points.append((own @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32))
        return np.concatenate(points)


def part_points(lidar: LidarSweeps, boxes: list[Boxes], times_s: np.ndarray) -> ScenePoints:
    """Part the points of all sweeps into those that stand still and those in boxes.

    Args:
        lidar: sweeps.
        boxes: of every frame; a sweep is parted by those of the frame nearest in time.
        times_s: `[T]` of the frames.
    """
    static: list[np.ndarray] = [np.zeros((0, 3), np.float32)]
    on_tracks: dict[int, list[np.ndarray]] = {}
    bounds = np.searchsorted(lidar.sweep, np.arange(len(lidar.times_s) + 1))
    for number, time in enumerate(lidar.times_s):
        points = lidar.xyz[bounds[number] : bounds[number + 1]]
        here = boxes[int(np.abs(times_s - time).argmin())]
        free = np.ones(len(points), bool)
        for track, pose, size in zip(here.track_ids, here.world_from_box(), here.sizes, strict=True):
            reach = np.hypot(size[0], size[1]) / 2 + 2 * GROWN_M
            near = np.flatnonzero(np.abs(points[:, :2] - pose[:2, 3]).max(axis=1) < reach)
            local = (points[near] - pose[:3, 3]) @ pose[:3, :3]
            grown = (np.abs(local - [0, 0, size[2] / 2]) < size / 2 + GROWN_M).all(axis=1)
            free[near[grown]] = False
            inside = grown & (local[:, 2] > LOWEST_M)
            on_tracks.setdefault(int(track), []).append(local[inside].astype(np.float32))
        static.append(points[free])
    return ScenePoints(np.concatenate(static), {track: np.concatenate(parts) for track, parts in on_tracks.items()})


def measured_depths(
    points: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return depths along the optical axis that points show in a view, and the same with small gaps closed.

    Points that shine through the gaps of a nearer surface are dropped. Both are `[H, W]`, infinite where nothing is known.

    Args:
        points: `[M, 3]` in the world.
        world_from_camera: `[4, 4]`.
        intrinsics: `[3, 3]`.
        width: of the view in pixels.
        height: of the view in pixels.
    """
    measured = _hide(_splat(points, invert_rigid(world_from_camera), intrinsics, height, width), max(width // 64, 2))
    return measured, _close(measured, max(width // 16, 4))


@numba.njit(nogil=True, cache=True)
def _splat(points: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return for every pixel the depth of the point nearest to its centre, of those on the nearest surface in it.

    The nearest point alone would draw the road, of which a pixel sees metres, half a pixel too near.
    """
    nearest, chosen, offset = np.full((height, width), np.inf), np.full((height, width), np.inf), np.full((height, width), np.inf)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    for again in range(2):
        for k in range(len(points)):
            x, y, z = points[k, 0], points[k, 1], points[k, 2]
            depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
            if depth < NEAR_M:
                continue
            u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]) / depth + cx
            v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]) / depth + cy
            if not (0 <= u < width and 0 <= v < height):
                continue
            column, row = int(u), int(v)
            if not again:
                nearest[row, column] = min(nearest[row, column], depth)
            elif depth < 1.1 * nearest[row, column] + 0.1:
                apart = (u - column - 0.5) ** 2 + (v - row - 0.5) ** 2
                if apart < offset[row, column]:
                    chosen[row, column], offset[row, column] = depth, apart
    return chosen


@numba.njit(nogil=True, cache=True)
def _hide(nearest: np.ndarray, reach: int) -> np.ndarray:
    """Drop depths that shine through a nearer surface: one that is met in most directions around the pixel."""
    height, width = nearest.shape
    kept = nearest.copy()
    for row in range(height):
        for column in range(width):
            own = nearest[row, column]
            if not np.isfinite(own):
                continue
            limit = own * 0.93 - 0.3
            closed = 0
            for direction in range(8):
                dy = (-1, -1, -1, 0, 1, 1, 1, 0)[direction]
                dx = (-1, 0, 1, 1, 1, 0, -1, -1)[direction]
                for step in range(1, reach + 1):
                    y, x = row + dy * step, column + dx * step
                    if y < 0 or x < 0 or y >= height or x >= width:
                        break
                    if nearest[y, x] < limit:
                        closed += 1
                        break
            if closed >= 6:
                kept[row, column] = np.inf
    return kept


@numba.njit(nogil=True, cache=True)
def _close(depth: np.ndarray, reach: int) -> np.ndarray:
    """Fill empty pixels on straight lines between measured ones of one surface, where inverse depth is linear."""
    height, width = depth.shape
    filled = depth.copy()
    found, steps = np.zeros(8), np.zeros(8)
    for row in range(height):
        for column in range(width):
            if np.isfinite(depth[row, column]):
                continue
            for direction in range(8):
                dy = (-1, -1, -1, 0, 1, 1, 1, 0)[direction]
                dx = (-1, 0, 1, 1, 1, 0, -1, -1)[direction]
                found[direction] = 0.0
                for step in range(1, reach + 1):
                    y, x = row + dy * step, column + dx * step
                    if y < 0 or x < 0 or y >= height or x >= width:
                        break
                    if np.isfinite(depth[y, x]):
                        found[direction] = 1.0 / depth[y, x]
                        steps[direction] = step * (1.414 if dx != 0 and dy != 0 else 1.0)
                        break
            total, weight = 0.0, 0.0
            for direction in range(4):
                a, b = found[direction], found[direction + 4]
                span = steps[direction] + steps[direction + 4]
                if a == 0.0 or b == 0.0 or abs(a - b) > 0.1 * max(a, b) + 0.002 * span:
                    continue
                total += (a * steps[direction + 4] + b * steps[direction]) / span**3
                weight += 1 / span**2
            if weight > 0:
                filled[row, column] = weight / total
    return filled
