"""Images with pose, lens and the points seen in them: what COLMAP models and transforms.json hold."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from schemas.cameras import CameraPath, PointCloud


@dataclass(frozen=True, eq=False)
class PosedImages:
    """N images, each with a pose and a lens.

    Attributes:
        names: their files, relative to the folder of images.
        world_from_camera: `[N, 4, 4]` in OpenCV's camera axes.
        intrinsics: pinhole matrices `[N, 3, 3]` in pixels, pixel centres at +0.5.
        distortion: OpenCV (k1, k2, p1, p2) of each.
        sizes_px: width and height of each.
        points: points of the scene; `observation_frame` counts these images.
    """

    names: tuple[str, ...]
    world_from_camera: Float64[np.ndarray, "N 4 4"]
    intrinsics: Float64[np.ndarray, "N 3 3"]
    distortion: Float64[np.ndarray, "N 4"]
    sizes_px: Int64[np.ndarray, "N 2"]
    points: PointCloud

    def lenses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first image of every different lens `[L]`, and which of these every image `[N]` has."""
        rows = np.concatenate([self.intrinsics.reshape(-1, 9), self.distortion, self.sizes_px], axis=1)
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        return first[order], np.argsort(order)[inverse.reshape(-1)]


def posed_images(path: CameraPath, points: PointCloud | None, names: Sequence[str]) -> PosedImages:
    """Return the registered frames of a path as images.

    Args:
        path: of T frames.
        points: points in its world, with observations in its frames; None for no points.
        names: file names of all T frames.
    """
    frame = np.flatnonzero(path.registered)
    count = len(frame)
    image_of_frame = np.full(len(path.registered), -1)
    image_of_frame[frame] = np.arange(count)
    points = PointCloud.none() if points is None else points
    seen = image_of_frame[points.observation_frame] >= 0
    return PosedImages(
        names=tuple(names[int(index)] for index in frame),
        world_from_camera=path.world_from_camera[frame],
        intrinsics=np.repeat(path.intrinsics[None], count, axis=0),
        distortion=np.repeat(path.distortion[None], count, axis=0),
        sizes_px=np.repeat(np.array([[path.width, path.height]]), count, axis=0),
        points=dataclasses.replace(
            points,
            observation_frame=image_of_frame[points.observation_frame[seen]].astype(np.int32),
            observation_point=points.observation_point[seen],
            observation_xy_px=points.observation_xy_px[seen],
        ),
    )
