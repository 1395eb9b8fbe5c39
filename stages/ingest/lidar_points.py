"""Stage `ingest.lidar_points`: the static scene of a log as coloured points, from its sweeps, boxes and frames."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.driving import LidarSweeps
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from worldline.cameras import invert_rigid, scale_intrinsics, transform_points

_BUFFER = 4  # pixels of a frame per cell of the buffer that tells hidden points
_BEHIND = 1.05  # a point this much farther than the nearest in its cell is hidden
_NEAR_M, _GROWTH_M = 0.5, 0.2


@dataclass(frozen=True)
class LidarPointsConfig:
    """Which points are kept.

    Attributes:
        voxel_m: edge of the cells of which each keeps one point.
        most: points in all; a random choice of them where there are more.
        minimum_travel_m: points in boxes of tracks that go farther than this are left out: they move.
    """

    voxel_m: Annotated[float, Field(gt=0)] = 0.12
    most: Annotated[int, Field(ge=1)] = 60000
    minimum_travel_m: Annotated[float, Field(ge=0)] = 1.0


@stage("ingest.lidar_points", version=1)
def colour_lidar_points(
    clip: Clip, path: CameraPath, tracks: Tracks, lidar: LidarSweeps, config: LidarPointsConfig, *, seed: int, progress: Progress
) -> PointCloud:
    """Gather the sweeps' points outside moving boxes, one per cell, with the colour of the nearest frame that sees each.

    A point that no frame sees is left out. Observations are the frames in which it is not hidden behind others. The error of
    each is 0: it was measured, not triangulated.
    """
    xyz = _thin(lidar.xyz[_outside(tracks, lidar, config.minimum_travel_m)].astype(np.float64), config.voxel_m)
    rng = np.random.default_rng([seed, 0])
    xyz = xyz[np.sort(rng.permutation(len(xyz))[: config.most])]
    width, height = clip.size
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    rgb, nearest = np.zeros((len(xyz), 3), np.uint8), np.full(len(xyz), np.inf)
    frames, points, places = [], [], []
    for frame, image in enumerate(clip.frames):
        if not path.registered[frame]:
            continue
        local = transform_points(invert_rigid(path.world_from_camera[frame]), xyz)
        ahead = np.flatnonzero(local[:, 2] > _NEAR_M)
        xy = (local[ahead] @ intrinsics.T)[:, :2] / local[ahead, 2:]
        inside = ((xy >= 0) & (xy < [width, height])).all(axis=1)
        index, xy, depth = ahead[inside], xy[inside], local[ahead[inside], 2]
        shown = _in_front(xy, depth, width, height)
        index, xy, depth = index[shown], xy[shown], depth[shown]
        closer = depth < nearest[index]
        column, row = np.floor(xy[closer]).astype(int).T
        rgb[index[closer]], nearest[index[closer]] = image[row, column], depth[closer]
        frames.append(np.full(len(index), frame, np.int32))
        points.append(index.astype(np.int32))
        places.append(xy.astype(np.float32))
        progress(frame + 1, len(path.registered), "frames")
    if not frames or not np.isfinite(nearest).any():
        return PointCloud.none()
    seen = np.isfinite(nearest)
    renumbered = np.cumsum(seen) - 1
    return PointCloud(
        xyz=xyz[seen],
        rgb=rgb[seen],
        error_px=np.zeros(int(seen.sum()), np.float32),
        observation_frame=np.concatenate(frames),
        observation_point=renumbered[np.concatenate(points)].astype(np.int32),
        observation_xy_px=np.concatenate(places),
    )


def _outside(tracks: Tracks, lidar: LidarSweeps, minimum_travel: float) -> np.ndarray:
    """Return which points `[N]` lie in no box of what moves, grown a little, at the time of their sweep."""
    wanted = ("track_id", "time_s", "x", "y", "z", "length", "width", "height", "yaw_rad")
    rows = tracks.samples.select(wanted).drop_null()
    track, time, x, y, z, length, width, height, yaw = (rows[name].to_numpy() for name in wanted)
    outside = np.ones(len(lidar.xyz), bool)
    starts = np.searchsorted(lidar.sweep, np.arange(len(lidar.times_s) + 1))
    for number in np.unique(track):
        own = np.flatnonzero(track == number)
        own = own[np.argsort(time[own], kind="stable")]
        place = np.stack([x[own], y[own], z[own]], axis=1)
        if np.linalg.norm(place - place[0], axis=1).max() < minimum_travel:
            continue
        half = np.array([np.median(length[own]), np.median(width[own]), np.median(height[own])]) / 2 + _GROWTH_M
        step = float(np.median(np.diff(time[own]))) if len(own) > 1 else 0.1
        for sweep in np.flatnonzero((lidar.times_s > time[own[0]] - step) & (lidar.times_s < time[own[-1]] + step)):
            now = lidar.times_s[sweep]
            bottom = np.array([np.interp(now, time[own], place[:, axis]) for axis in range(3)])
            turn = np.interp(now, time[own], np.unwrap(yaw[own]))
            section = slice(starts[sweep], starts[sweep + 1])
            offset = lidar.xyz[section] - bottom
            offset[:, 2] -= half[2] - _GROWTH_M
            along = offset[:, 0] * np.cos(turn) + offset[:, 1] * np.sin(turn)
            across = offset[:, 1] * np.cos(turn) - offset[:, 0] * np.sin(turn)
            outside[section] &= ~(np.abs(np.stack([along, across, offset[:, 2]], axis=1)) < half).all(axis=1)
    return outside


def _thin(xyz: np.ndarray, voxel: float) -> np.ndarray:
    """Return one of the points `[N, 3]` in each cell of a grid: the first."""
    cells = np.floor(xyz / voxel).astype(np.int64)
    return xyz[np.sort(np.unique(cells, axis=0, return_index=True)[1])]


def _in_front(xy: np.ndarray, depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return which points `[N]` no other point hides, by the nearest depth in coarse cells of the image."""
    across = width // _BUFFER + 1
    column, row = (xy // _BUFFER).astype(np.int64).T
    cell = row * across + column
    nearest = np.full(across * (height // _BUFFER + 1), np.inf)
    np.minimum.at(nearest, cell, depth)
    return depth <= _BEHIND * nearest[cell]
