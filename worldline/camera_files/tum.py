"""Trajectories as the TUM RGB-D benchmark has them: a line `time x y z qx qy qz qw` for every pose.

Times are seconds, positions and quaternions are those of the camera in the world, the quaternion has its real part last.
Format: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldline.camera_files.lines import number_rows, refuse, write_rows
from worldline.cameras import quaternion_from_rotation, rigid, rotation_from_quaternion


def write_tum(times_s: Float64[np.ndarray, " N"], world_from_camera: Float64[np.ndarray, "N 4 4"], path: Path | str) -> None:
    """Write poses with their times; reading them back gives the same numbers up to the rounding of a rotation.

    Raises:
        WorldlineError: if it cannot be written.
    """
    quaternion = quaternion_from_rotation(world_from_camera[:, :3, :3])
    rows = np.concatenate([times_s[:, None], world_from_camera[:, :3, 3], np.roll(quaternion, -1, axis=1)], axis=1)
    write_rows(rows, Path(path))


def read_tum(path: Path | str) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, "N 4 4"]]:
    """Read times in seconds `[N]` and poses `world_from_camera` `[N, 4, 4]`.

    Raises:
        WorldlineError: if a line is not eight numbers, times do not increase, or a quaternion is zero.
    """
    path = Path(path)
    rows = number_rows(path, 8, "TUM trajectory", "time x y z qx qy qz qw")
    late = np.flatnonzero(np.diff(rows[:, 0]) <= 0)
    if len(late):
        refuse(path, f"its times do not increase after {rows[late[0], 0]:g} s", "sort the lines by their first number")
    quaternion = np.roll(rows[:, 4:], 1, axis=1)
    norm = np.linalg.norm(quaternion, axis=1)
    if not np.all((norm > 0.5) & (norm < 2.0)):
        refuse(path, f"{rows[np.argmin(norm), 4:].tolist()} is no quaternion", "write time x y z qx qy qz qw")
    return rows[:, 0], rigid(rotation_from_quaternion(quaternion), rows[:, 1:4])
