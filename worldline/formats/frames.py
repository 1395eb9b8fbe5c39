"""Which way is up: from the house's world frame (right-handed, z up) to that of a file, and back.

| up | frame | axes of (x, y, z) of ours |
|---|---|---|
| `z` | ours, as it is | x, y, z |
| `y` | glTF, SPZ: x right, y up | x, z, -y |
| `-y` | most 3DGS PLY files, because COLMAP's first camera looks along z with y down | x, -z, y |

A rotation turns means and quaternions, and the harmonics too: colours depend on directions of the world.
"""

import dataclasses

import numpy as np
import torch

from schemas.errors import WorldlineError
from worldline.cameras import quaternion_from_rotation
from worldline.formats.moments import Moment
from worldline.splatting.harmonics import harmonic_basis, harmonic_degree

FILE_FROM_WORLD = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


def _spread(count: int) -> np.ndarray:
    """Return directions spread evenly over the sphere (a Fibonacci lattice), `[count, 3]`."""
    k = np.arange(count)
    z, angle = 1 - (2 * k + 1) / count, k * np.pi * (3 - np.sqrt(5))
    return np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)


_DIRECTIONS = _spread(64)


def into_frame(moment: Moment, up: str) -> Moment:
    """Return Gaussians of the house's frame in the frame of a file with this axis up."""
    return turned(moment, frame_of_world(up))


def out_of_frame(moment: Moment, up: str) -> Moment:
    """Return Gaussians of a file with this axis up in the house's frame."""
    return turned(moment, frame_of_world(up).T)


def frame_of_world(up: str) -> np.ndarray:
    """Return the rotation from the house's world frame to that of a file with this axis up, `[3, 3]`."""
    if up not in FILE_FROM_WORLD:
        raise WorldlineError(f"{up!r} is no way up: there is {', '.join(FILE_FROM_WORLD)}")
    return FILE_FROM_WORLD[up]


def turned(moment: Moment, rotation: np.ndarray) -> Moment:
    """Return the Gaussians turned about the origin by a rotation matrix `[3, 3]`."""
    if np.array_equal(rotation, np.eye(3)):
        return moment
    quats = _product(quaternion_from_rotation(rotation), moment.quats)
    harmonics = None if moment.harmonics is None else turned_harmonics(moment.harmonics, rotation)
    return dataclasses.replace(moment, means=moment.means @ rotation.T, quats=quats, harmonics=harmonics)


def turned_harmonics(harmonics: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return coefficients `[N, K, 3]` of the same colours after everything was turned by `rotation`.

    What was seen towards d is now seen towards R d. The harmonics of a degree turn into each other, Y(R d) = D Y(d) (Wigner's
    matrix in the real basis), and D is orthogonal, so the new coefficients are D c. D is solved for from fixed directions.
    """
    degree = harmonic_degree(harmonics.shape[1])
    towards = (torch.from_numpy(directions) for directions in (_DIRECTIONS, _DIRECTIONS @ rotation.T))
    before, after = (harmonic_basis(directions, degree).numpy()[:, 1:] for directions in towards)
    turning = (np.linalg.pinv(before) @ after).T
    return np.einsum("kj,njc->nkc", turning, harmonics)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return Hamilton's product of quaternions wxyz."""
    a, b, c, d = np.moveaxis(left, -1, 0)
    w, x, y, z = np.moveaxis(right, -1, 0)
    parts = (a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y,
             a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w)  # fmt: skip
    return np.stack(parts, axis=-1)
