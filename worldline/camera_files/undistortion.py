"""Images as a pinhole camera would have taken them, for programs that know no lens but that."""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from worldline.camera_files.images import PosedImages
from worldline.cameras import distort, pixel_centres, pixel_rays


def undistorted(images: PosedImages) -> PosedImages:
    """Return the same images with pinholes for lenses: what was seen in them moves, focal lengths and sizes stay."""
    frame, pixels = images.points.observation_frame, images.points.observation_xy_px.astype(np.float64)
    for index in range(len(images.names)):
        here, matrix = frame == index, images.intrinsics[index]
        rays = pixel_rays(pixels[here], matrix, images.distortion[index])
        pixels[here] = rays[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
    points = dataclasses.replace(images.points, observation_xy_px=pixels.astype(np.float32))
    return dataclasses.replace(images, distortion=np.zeros_like(images.distortion), points=points)


def undistorter(
    intrinsics: Float64[np.ndarray, "3 3"], distortion: Float64[np.ndarray, "4"], width: int, height: int
) -> Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W 3"]]:
    """Return a function that takes a frame of a lens to that of a pinhole with the same matrix and size.

    Pixels are interpolated linearly; those that the lens did not see are black.
    """
    if not distortion.any():
        return lambda frame: frame
    rays = pixel_rays(pixel_centres(width, height), intrinsics)
    seen = distort(rays[..., :2], distortion) @ intrinsics[:2, :2].T + intrinsics[:2, 2]
    column, row = (np.ascontiguousarray(seen[..., axis] - 0.5, np.float32) for axis in (0, 1))  # OpenCV counts from centres
    return lambda frame: np.asarray(cv2.remap(frame, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
