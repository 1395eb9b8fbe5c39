"""The cameras that a rasteriser draws into."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

CameraModel = Literal["pinhole", "ortho", "fisheye", "equirectangular"]


@dataclass(frozen=True)
class Cameras:
    """One or several cameras with images of one size.

    Attributes:
        camera_from_world: `[..., C, 4, 4]`, OpenCV axes.
        intrinsics: `[..., C, 3, 3]` in pixels, pixel centres at +0.5.
        width, height: of the images in pixels.
        model: how rays become pixels. "pinhole"; "ortho": focal lengths in pixels per unit; "fisheye": equidistant without
            distortion, what lies in front of the camera's plane; "equirectangular": longitude to the right and latitude
            downwards, the whole sphere over the image with the camera's z axis in its middle; intrinsics are not read.
    """

    camera_from_world: Tensor
    intrinsics: Tensor
    width: int
    height: int
    model: CameraModel = "pinhole"

    @classmethod
    def single(
        cls, camera_from_world: np.ndarray, intrinsics: np.ndarray, width: int, height: int, model: CameraModel = "pinhole"
    ) -> "Cameras":
        """Return one float32 camera (C = 1) from matrices `[4, 4]` and `[3, 3]`."""
        pose, matrix = (torch.from_numpy(np.asarray(array, np.float32))[None] for array in (camera_from_world, intrinsics))
        return cls(pose, matrix, width, height, model)
