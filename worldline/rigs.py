"""Rigs: the pose of a camera at its own time, and of a row at the row's time; where a camera sits, from two solved paths.

The path of a rig is known at the times of its reference camera. Other cameras fire between those times, and the rows of a
rolling shutter are exposed one after the other: their poses are interpolated on SE(3), positions linearly and rotations
at constant rate. Between frames h apart that leaves an error of at most a h^2 / 8 under an acceleration a: 4 mm at 3 m/s^2
and 10 Hz.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from worldline.cameras import (
    interpolate_poses,
    invert_rigid,
    mean_rotation,
    rotation_angle,
    vector_from_rotation,
)

_MEDIAN_OF_NORM = 1.5382  # median length of a spatial error of unit standard deviation per axis (Maxwell)
_OUTLIER_SIGMAS = 4.0


def camera_poses(
    times_s: Float64[np.ndarray, " T"],
    world_from_rig: Float64[np.ndarray, "T 4 4"],
    camera_from_rig: Float64[np.ndarray, "4 4"],
    query_s: Float64[np.ndarray, " Q"],
) -> Float64[np.ndarray, "Q 4 4"]:
    """Return `world_from_camera` of one camera of a rig at its own times; beyond the ends of the path the end pose is held.

    Args:
        times_s: increasing times at which the rig's pose is known, in seconds.
        world_from_rig: those poses.
        camera_from_rig: where the camera sits.
        query_s: when the camera's frames (or rows) were exposed, on the same clock.
    """
    return interpolate_poses(times_s, world_from_rig, query_s) @ invert_rigid(camera_from_rig)


def row_times(time_s: float, readout_s: float, rows: np.ndarray, height: int) -> np.ndarray:
    """Return when image rows were exposed in a rolling shutter that reads from top to bottom.

    Args:
        time_s: of the middle of the image.
        readout_s: from the first row to the last; negative where the sensor is mounted upside down.
        rows: y coordinates in pixels, the first row's centre at 0.5.
        height: of the image in pixels.
    """
    return time_s + readout_s * (np.asarray(rows, np.float64) / height - 0.5)


def row_poses(
    times_s: Float64[np.ndarray, " T"],
    world_from_rig: Float64[np.ndarray, "T 4 4"],
    camera_from_rig: Float64[np.ndarray, "4 4"],
    time_s: float,
    readout_s: float,
    height: int,
) -> Float64[np.ndarray, "H 4 4"]:
    """Return `world_from_camera` at the exposure of every row of one frame of a rolling shutter."""
    rows = np.arange(height) + 0.5
    return camera_poses(times_s, world_from_rig, camera_from_rig, row_times(time_s, readout_s, rows, height))


class Placement(NamedTuple):
    """Where a camera sits on a rig, how sure that is (per axis), and from how many of its frames."""

    camera_from_rig: Float64[np.ndarray, "4 4"]
    rotation_sigma_rad: float
    position_sigma: float
    frames: int


def place_camera(
    times_s: Float64[np.ndarray, " T"],
    world_from_rig: Float64[np.ndarray, "T 4 4"],
    camera_times_s: Float64[np.ndarray, " S"],
    world_from_camera: Float64[np.ndarray, "S 4 4"],
    max_gap_s: float,
) -> Placement | None:
    """Find where a camera sits from poses of rig and camera in one world, each at its own times.

    Every frame of the camera gives one place relative to the interpolated path; the result is their mean without those more
    than four robust standard deviations from the middle, in position or in rotation. Sigmas are those of a mean of independent
    frames, and say nothing of an error that all frames share (a wrong clock: speed times offset).

    Args:
        times_s: increasing.
        world_from_rig: poses of the reference camera at those times.
        camera_times_s: on the same clock.
        world_from_camera: poses of the camera at its times.
        max_gap_s: frames that fall into a longer hole of the path, or outside of it, do not count.

    Returns:
        None where fewer than two frames count.
    """
    after = np.clip(np.searchsorted(times_s, camera_times_s), 1, max(len(times_s) - 1, 1))
    inside = (camera_times_s >= times_s[0]) & (camera_times_s <= times_s[-1])
    if len(times_s) > 1:
        inside &= times_s[after] - times_s[after - 1] <= max_gap_s
    if inside.sum() < 2:
        return None
    there = interpolate_poses(times_s, world_from_rig, camera_times_s[inside])
    places = invert_rigid(world_from_camera[inside]) @ there
    rotation, centre = mean_rotation(places[:, :3, :3]), np.median(_centres(places), axis=0)
    for _ in range(3):
        turn = rotation_angle(rotation.T @ places[:, :3, :3])
        shift = np.linalg.norm(_centres(places) - centre, axis=1)
        kept = _inliers(turn) & _inliers(shift)
        rotation, centre = mean_rotation(places[kept, :3, :3]), _centres(places[kept]).mean(axis=0)
    count = int(kept.sum())
    camera_from_rig = np.eye(4)
    camera_from_rig[:3, :3], camera_from_rig[:3, 3] = rotation, -rotation @ centre
    turns = vector_from_rotation(rotation.T @ places[kept, :3, :3])
    shifts = _centres(places[kept]) - centre
    spread = [float(np.sqrt((part**2).sum() / (3 * max(count - 1, 1)) / count)) for part in (turns, shifts)]
    return Placement(camera_from_rig, spread[0], spread[1], count)


def _centres(camera_from_rig: np.ndarray) -> np.ndarray:
    """Return the cameras' centres `[N, 3]` in the rig's frame: these do not move when the camera turns."""
    return invert_rigid(camera_from_rig)[:, :3, 3]


def _inliers(lengths: np.ndarray) -> np.ndarray:
    limit = _OUTLIER_SIGMAS * np.median(lengths) / _MEDIAN_OF_NORM
    return lengths <= max(float(limit), 1e-9)
