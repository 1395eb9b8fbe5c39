"""Poses of the car that carries the sensors, as annotated logs give them, and the camera path made from them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial.transform import Rotation, Slerp

# OpenCV axes (x right, y down, z forward) of a camera that looks along the car's x (x forward, y left, z up).
EGO_FROM_FORWARD_CAMERA = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

_FARTHEST_M = 1e8


@dataclass(frozen=True)
class Timeline:
    """The instants of a log, and the camera at each.

    Attributes:
        times_s: `[F]` seconds from any origin, in the order of the log; NaN where unreadable.
        world_from_camera: `[F, 4, 4]` OpenCV axes; a camera that looks forward from the car's origin where none is calibrated.
        known: `[F]` frames whose pose is known; all false where the log has no car of its own.
        intrinsics: of the camera, `[3, 3]`, pixel centres at +0.5; None where none is calibrated.
        width, height: of its images in pixels; 0 where none is calibrated.
    """

    times_s: Float64[np.ndarray, " F"]
    world_from_camera: Float64[np.ndarray, "F 4 4"]
    known: Bool[np.ndarray, " F"]
    intrinsics: Float64[np.ndarray, "3 3"] | None = None
    width: int = 0
    height: int = 0


def rigid_poses(
    quaternion_wxyz: Float64[np.ndarray, "N 4"], translation: Float64[np.ndarray, "N 3"]
) -> tuple[Float64[np.ndarray, "N 4 4"], Bool[np.ndarray, " N"]]:
    """Return poses, and which are usable: identity where the place is none on Earth or the quaternion far from unit length."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(quaternion_wxyz, axis=1)
        usable = (np.abs(translation) < _FARTHEST_M).all(1) & (np.abs(length - 1) < 0.1)
    poses = np.tile(np.eye(4), (len(translation), 1, 1))
    if usable.any():
        poses[usable, :3, :3] = Rotation.from_quat(quaternion_wxyz[usable], scalar_first=True).as_matrix()
        poses[usable, :3, 3] = translation[usable]
    return poses, usable


def heading_poses(
    position: Float64[np.ndarray, "N 3"], yaw_rad: Float64[np.ndarray, " N"]
) -> tuple[Float64[np.ndarray, "N 4 4"], Bool[np.ndarray, " N"]]:
    """Return upright poses with x along the heading, and which are usable: those of finite numbers."""
    half = np.asarray(yaw_rad) / 2
    return rigid_poses(np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], -1), position)


def poses_at(
    instants: np.ndarray, poses: Float64[np.ndarray, "N 4 4"], wanted: np.ndarray, max_gap: float
) -> tuple[Float64[np.ndarray, "M 4 4"], Bool[np.ndarray, " M"]]:
    """Return poses at wanted instants, and which are known: interpolated where none was taken at just that time.

    Args:
        instants: `[N]` of the poses, in any order and unit.
        poses: at these instants; of several at one instant the first counts.
        wanted: `[M]` in the same unit.
        max_gap: nothing is interpolated between poses further apart than this.
    """
    result = np.tile(np.eye(4), (len(wanted), 1, 1))
    instants, first = np.unique(instants, return_index=True)
    poses = poses[first]
    if not len(instants):
        return result, np.zeros(len(wanted), bool)
    after = np.minimum(np.searchsorted(instants, wanted), len(instants) - 1)
    exact = instants[after] == wanted
    before = np.where(exact, after, np.maximum(after - 1, 0))
    gap = instants[after] - instants[before]
    known = exact | ((instants[before] < wanted) & (wanted < instants[after]) & (gap <= max_gap))
    result[exact] = poses[after[exact]]
    between = np.flatnonzero(known & ~exact)
    if len(between):
        low, high = poses[before[between]], poses[after[between]]
        share = ((wanted - instants[before]) / np.maximum(gap, 1e-300))[between]
        result[between, :3, 3] = low[:, :3, 3] + share[:, None] * (high[:, :3, 3] - low[:, :3, 3])
        turns = Slerp((instants - instants[0]).astype(float), Rotation.from_matrix(poses[:, :3, :3]))
        result[between, :3, :3] = turns((wanted[between] - instants[0]).astype(float)).as_matrix()
    return result, known


def turned_yaw(rotations: Float64[np.ndarray, "N 3 3"], local_heading: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, " N"]:
    """Return the angle of a local heading in the world's ground plane, counter-clockwise from x."""
    heading = np.einsum("nij,nj->ni", rotations, local_heading)
    return np.arctan2(heading[:, 1], heading[:, 0])


def moved_points(poses: Float64[np.ndarray, "N 4 4"], points: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 3"]:
    """Take each point through the pose of its own row."""
    return np.einsum("nij,nj->ni", poses[:, :3, :3], points) + poses[:, :3, 3]
