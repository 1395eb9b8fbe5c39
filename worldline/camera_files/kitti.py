"""Trajectories as KITTI's odometry benchmark has them: twelve numbers a frame, the upper three rows of the pose.

A file has one line for every frame, and no times: a frame without a pose cannot be told. KITTI's own files begin with the
identity, because their world is the first camera; any world is written and read here.
Format: https://www.cvlibs.net/datasets/kitti/eval_odometry.php.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from worldline.camera_files.lines import number_rows, refuse, write_rows
from worldline.cameras import nearest_rotation, rigid


def write_kitti(world_from_camera: Float64[np.ndarray, "N 4 4"], path: Path | str) -> None:
    """Write the poses of all frames.

    Raises:
        WorldlineError: if it cannot be written.
    """
    write_rows(world_from_camera[:, :3].reshape(-1, 12), Path(path))


def read_kitti(path: Path | str) -> Float64[np.ndarray, "N 4 4"]:
    """Read poses `world_from_camera` `[N, 4, 4]`.

    Rotations that were rounded are made rotations again.

    Raises:
        WorldlineError: if a line is not twelve numbers or no pose.
    """
    path = Path(path)
    upper = number_rows(path, 12, "KITTI trajectory", "the first three rows of a 4 x 4 pose").reshape(-1, 3, 4)
    rotation = np.stack([nearest_rotation(matrix) for matrix in upper[:, :, :3]])
    wrong = np.abs(rotation - upper[:, :, :3]).max(axis=(1, 2)) > 0.01
    if wrong.any():
        refuse(path, f"pose {np.argmax(wrong) + 1} has no rotation", "write the first three rows of 4 x 4 poses")
    return rigid(rotation, upper[:, :, 3])
