"""What lidar knows of the views of a log: depths in each frame, and coloured points of what stands still."""

import dataclasses
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from schemas.driving import LidarSweeps
from stages.reconstruct.box_seeds import Boxes
from stages.reconstruct.views import Views
from worldline.box_corners import centred_corners, cut_at_plane
from worldline.cameras import transform_points

_NEAR_M = 0.5


def with_lidar_depths(views: Views, lidar: LidarSweeps, times_s: np.ndarray, scale: float) -> Views:
    """Return the views with the depth of the sweep nearest in time, at the pixels that it hit; 0 elsewhere.

    A sweep counts for a frame only within half of the time between frames: what moves has gone on by then.

    Args:
        views: whose unit is `scale` metres.
        lidar: sweeps in metres.
        times_s: `[T]` times of the clip's frames.
        scale: length of one unit of the views in metres.
    """
    if not len(lidar.times_s):
        return views
    width, height = views.size
    depths = np.zeros((len(views.frames), height, width), np.float32)
    for view, points in sweeps_of(lidar, times_s, views.frames):
        pose = views.camera_from_world[view]
        column, row, depth = project_points(pose, views.intrinsics, views.size, points / scale, _NEAR_M / scale)
        order = np.argsort(-depth, kind="stable")  # the nearest is written last
        depths[view, row[order], column[order]] = depth[order]
    return dataclasses.replace(views, depths=depths)


def sweeps_of(lidar: LidarSweeps, times_s: np.ndarray, frames: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and points `[N, 3]` in metres of the frames that have a sweep within half of the time between frames.

    Args:
        lidar: at least one sweep.
        times_s: `[T]` times of the clip's frames.
        frames: indices of frames; the number yielded counts them.
    """
    starts = np.searchsorted(lidar.sweep, np.arange(len(lidar.times_s) + 1))
    patience = 0.5 * float(np.median(np.diff(times_s))) + 1e-6 if len(times_s) > 1 else np.inf
    for number, frame in enumerate(frames):
        sweep = int(np.abs(lidar.times_s - times_s[frame]).argmin())
        if abs(lidar.times_s[sweep] - times_s[frame]) <= patience:
            yield number, lidar.xyz[starts[sweep] : starts[sweep + 1]].astype(np.float64)


def project_points(
    camera_from_world: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], points: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns, rows and depths of the points `[N, 3]` that fall into a picture of `size`, beyond `near`."""
    local = transform_points(camera_from_world, points)
    local = local[local[:, 2] > near]
    pixels = local @ intrinsics.T
    column, row = np.floor(pixels[:, :2] / pixels[:, 2:]).astype(np.int64).T
    width, height = size
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return column[inside], row[inside], local[inside, 2]


def label_boxes(views: Views, boxes: Boxes) -> Views:
    """Return the views with the regions of the boxes as labels (agent k is k + 1), nearer ones over farther ones.

    The region is the hull of the box's corners with its edges cut at the near plane: a little more than the object.
    """
    labels = np.zeros(views.labels.shape, np.uint16)
    for view, frame in enumerate(views.frames):
        found = []
        for agent in np.flatnonzero(boxes.alive[:, frame]):
            corners = transform_points(
                views.camera_from_world[view] @ boxes.world_from_agent[agent, frame], centred_corners(boxes.sizes[agent])
            )
            points, kept = cut_at_plane(corners, 0.1 * float(np.linalg.norm(boxes.sizes[agent])))
            if kept.any():
                found.append((float(corners[:, 2].mean()), int(agent), points[kept]))
        for _, number, cut in sorted(found, reverse=True, key=lambda item: item[:2]):
            pixels = cut @ views.intrinsics.T
            hull = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).clip(-1e4, 1e4).astype(np.float32))
            cv2.fillConvexPoly(labels[view], np.rint(hull - 0.5).astype(np.int32), [number + 1])
    return dataclasses.replace(views, labels=labels)
