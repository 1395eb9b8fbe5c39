"""Corners of boxes, and the part of a box that lies before a plane.

Bit k of a corner's number tells on which side of axis k it lies.
"""

import numpy as np
from jaxtyping import Bool, Float64

SIDES = (np.arange(8)[:, None] >> np.arange(3)) & 1  # [8, 3]: 0 on the negative side of an axis, 1 on the positive
_LOW, _HIGH = np.array([(low, low | 1 << axis) for axis in range(3) for low in range(8) if not low >> axis & 1]).T


def centred_corners(sizes: np.ndarray) -> Float64[np.ndarray, "*N 8 3"]:
    """Return the corners of boxes of some sizes `[*N, 3]` in their own frames, whose origin is the middle of the bottom face."""
    return (SIDES - [0.5, 0.5, 0.0]) * sizes[..., None, :]


def upright_corners(bottoms: np.ndarray, sizes: np.ndarray, yaws_rad: np.ndarray) -> Float64[np.ndarray, "N 8 3"]:
    """Return the corners of upright boxes in the world.

    Args:
        bottoms: `[N, 3]` centres of the bottom faces.
        sizes: `[N, 3]` length along the heading, width across it, height.
        yaws_rad: `[N]` heading, from +x towards +y.
    """
    local = centred_corners(sizes)
    cos, sin = np.cos(yaws_rad)[:, None], np.sin(yaws_rad)[:, None]
    turned = np.stack([cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]], -1)
    return turned + bottoms[:, None, :]


def cut_at_plane(corners: np.ndarray, near: float) -> tuple[Float64[np.ndarray, "*N 20 3"], Bool[np.ndarray, "*N 20"]]:
    """Return points whose hull is the part of each box with z of at least `near`, and which of them count.

    They are the corners and where the 12 edges cross the plane: a corner behind a camera would come out on the wrong side of
    its picture.

    Args:
        corners: `[*N, 8, 3]` numbered as in this module, in the camera's axes.
        near: along z.
    """
    before = corners[..., 2] >= near
    low, high = corners[..., _LOW, :], corners[..., _HIGH, :]
    crossing = before[..., _LOW] != before[..., _HIGH]
    rise = np.where(crossing, high[..., 2] - low[..., 2], 1.0)
    cuts = low + ((near - low[..., 2]) / rise)[..., None] * (high - low)
    return np.concatenate([corners, cuts], axis=-2), np.concatenate([before, crossing], axis=-1)
