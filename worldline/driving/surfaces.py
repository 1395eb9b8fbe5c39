"""What a camera of a driving log would see and how far away, from the points that lasers measured over the whole log."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Int32

from schemas.driving import LidarSweeps
from worldline.cameras import invert_rigid
from worldline.driving.boxes import NEAR_M, Boxes

_GROWN_M = 0.2  # points so close to a box belong to what is in it, or are not to be trusted
STATIC = -1


@dataclass(frozen=True, eq=False)
class ScenePoints:
    """Points of a log, apart by what they are on.

    Attributes:
        static: `[N, 3]` world frame, metres.
        on_tracks: `[n, 3]` of each track, in the frame of its box (see `Boxes.world_from_box`).
    """

    static: Float32[np.ndarray, "N 3"]
    on_tracks: dict[int, Float32[np.ndarray, "n 3"]]

    def at(self, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
        """Return all points `[M, 3]` in the world as they lie when the boxes do, and of which track each is (or `STATIC`)."""
        points, labels = [self.static], [np.full(len(self.static), STATIC, np.int32)]
        for track, pose in zip(boxes.track_ids, boxes.world_from_box(), strict=True):
            own = self.on_tracks.get(int(track))
            if own is not None:
                points.append((own @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32))
                labels.append(np.full(len(own), track, np.int32))
        return np.concatenate(points), np.concatenate(labels)


def part_points(lidar: LidarSweeps, boxes: list[Boxes], times_s: np.ndarray) -> ScenePoints:
    """Part the points of all sweeps into those that stand still and those in boxes.

    Args:
        lidar: sweeps.
        boxes: of every frame; a sweep is parted by those of the frame nearest in time.
        times_s: `[T]` of the frames.
    """
    static: list[np.ndarray] = []
    on_tracks: dict[int, list[np.ndarray]] = {}
    bounds = np.searchsorted(lidar.sweep, np.arange(len(lidar.times_s) + 1))
    for number, time in enumerate(lidar.times_s):
        points = lidar.xyz[bounds[number] : bounds[number + 1]]
        here = boxes[int(np.abs(times_s - time).argmin())]
        free = np.ones(len(points), bool)
        for track, pose, size in zip(here.track_ids, here.world_from_box(), here.sizes, strict=True):
            near = np.flatnonzero(np.abs(points[:, :2] - pose[:2, 3]).max(axis=1) < np.hypot(size[0], size[1]) / 2 + _GROWN_M)
            local = (points[near] - pose[:3, 3].astype(np.float32)) @ pose[:3, :3].astype(np.float32)
            centred = np.abs(local - [0, 0, size[2] / 2])
            grown = (centred < size / 2 + _GROWN_M).all(axis=1)
            inside = grown & (local[:, 2] > 0.1)  # the lowest points are of the road below
            free[near[grown]] = False
            on_tracks.setdefault(int(track), []).append(local[inside])
        static.append(points[free])
    empty = np.zeros((0, 3), np.float32)
    return ScenePoints(np.concatenate([empty, *static]), {track: np.concatenate(parts) for track, parts in on_tracks.items()})


@dataclass(frozen=True, eq=False)
class Surface:
    """What a view meets first at every pixel.

    Attributes:
        depth_m: `[H, W]` along the optical axis; infinite in the sky, NaN where unknown.
        label: `[H, W]` track it belongs to, `STATIC` for all that stands still.
        sure: `[H, W]` 1 where points were measured, falling to 0 with the distance from them.
    """

    depth_m: Float32[np.ndarray, "H W"]
    label: Int32[np.ndarray, "H W"]
    sure: Float32[np.ndarray, "H W"]


def view_surface(
    points: np.ndarray,
    labels: np.ndarray,
    ground: np.ndarray,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
) -> Surface:
    """Splat points into a view, hide what lies behind surfaces, and close the gaps.

    Args:
        points: `[M, 3]` world.
        labels: `[M]`.
        ground: `[4]` plane (normal, offset) of the road, n . x + d = 0, which fills what is empty below the horizon.
        world_from_camera: `[4, 4]`.
        intrinsics: `[3, 3]`.
        width: of the view in pixels.
        height: of the view in pixels.
    """
    camera_from_world = invert_rigid(world_from_camera)
    nearest = np.full((height, width), np.inf, np.float32)
    label = np.full((height, width), STATIC, np.int32)
    _splat(points, labels, camera_from_world, intrinsics, nearest, label)
    reach = max(width // 64, 2)
    depth = _hide(nearest, reach)
    sure = np.isfinite(depth).astype(np.float32)
    depth, label, sure = _close(depth, label, sure, max(width // 10, 8))
    rays = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    rays = np.concatenate([rays, np.ones((height, width, 1))], -1) @ np.linalg.inv(intrinsics).T
    directions = rays @ world_from_camera[:3, :3].T
    falling = directions @ ground[:3]
    with np.errstate(divide="ignore"):
        road = -(world_from_camera[:3, 3] @ ground[:3] + ground[3]) / falling
    empty = ~np.isfinite(depth)
    depth = np.where(empty, np.where((road > 0) & (road < 60.0), road, np.inf), depth).astype(np.float32)
    return Surface(depth, label, sure)


@numba.njit(nogil=True, cache=True)
def _splat(
    points: np.ndarray,
    labels: np.ndarray,
    camera_from_world: np.ndarray,
    intrinsics: np.ndarray,
    nearest: np.ndarray,
    label: np.ndarray,
) -> None:
    """Keep the nearest point of every pixel."""
    height, width = nearest.shape
    pose = camera_from_world.astype(np.float32)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    for k in range(len(points)):
        x, y, z = points[k]
        depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
        if depth < NEAR_M:
            continue
        u = fx * (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]) / depth + cx
        v = fy * (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]) / depth + cy
        if u < 0 or v < 0 or u >= width or v >= height:
            continue
        column, row = int(u), int(v)
        if depth < nearest[row, column]:
            nearest[row, column] = depth
            label[row, column] = labels[k]


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
                dy = (-1, -1, -1, 0, 0, 1, 1, 1)[direction]
                dx = (-1, 0, 1, -1, 1, -1, 0, 1)[direction]
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
def _close(depth: np.ndarray, label: np.ndarray, sure: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill empty pixels along straight lines between measured ones on the same surface; else with the farther side."""
    height, width = depth.shape
    filled, labels, certain = depth.copy(), label.copy(), sure.copy()
    found = np.zeros(8, np.float32)
    steps = np.zeros(8, np.float32)
    marks = np.zeros(8, np.int32)
    for row in range(height):
        for column in range(width):
            if np.isfinite(depth[row, column]):
                continue
            count = 0
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
                        marks[direction] = label[y, x]
                        count += 1
                        break
            if count < 3:
                continue
            total, weight, mark = 0.0, 0.0, -1
            for direction in range(4):
                a, b = found[direction], found[direction + 4]
                if a == 0.0 or b == 0.0 or marks[direction] != marks[direction + 4]:
                    continue
                if abs(a - b) > 0.1 * max(a, b) + 0.002 * (steps[direction] + steps[direction + 4]):
                    continue
                span = steps[direction] + steps[direction + 4]
                share = 1.0 / (span * span)
                total += share * (a * steps[direction + 4] + b * steps[direction]) / span
                weight += share
                mark = marks[direction]
            if weight > 0:
                filled[row, column] = weight / total
                labels[row, column] = mark
                certain[row, column] = min(1.0, 2.0 * np.sqrt(weight))
                continue
            up = found[0] > 0.0 or found[1] > 0.0 or found[2] > 0.0
            if not up:
                continue  # open to the sky
            farthest = -1
            for direction in range(8):
                if found[direction] > 0.0 and (farthest < 0 or found[direction] < found[farthest]):
                    farthest = direction
            filled[row, column] = 1.0 / found[farthest]
            labels[row, column] = marks[farthest]
            certain[row, column] = 0.3
    return filled, labels, certain
