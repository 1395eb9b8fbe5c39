"""The frames that a scene is fitted to: reduced, undistorted, with their cameras and moving regions."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.motion import Masks
from worldline.cameras import invert_rigid, scale_intrinsics

_BY_VIEW = ("images", "labels", "camera_from_world", "times", "frames", "depths", "sky", "generated")


@dataclass(frozen=True)
class Views:
    """Registered frames at one resolution.

    Attributes:
        images: `[V, H, W, 3]` uint8.
        labels: `[V, H, W]` uint16, 0 where static, k where moving object k is.
        camera_from_world: `[V, 4, 4]`.
        intrinsics: `[3, 3]` in pixels of `images`.
        times: `[V]` normalised: 0 at the clip's first frame, 1 at its last.
        frames: `[V]` index in the clip.
        depths: `[V, H, W]` float32 camera z, 0 where unknown, or None.
        sky: `[V, H, W]` bool, or None.
        generated: `[V]` bool, images that a model made of places where no camera was, or None where all are recorded.
    """

    images: np.ndarray
    labels: np.ndarray
    camera_from_world: np.ndarray
    intrinsics: np.ndarray
    times: np.ndarray
    frames: np.ndarray
    depths: np.ndarray | None = None
    sky: np.ndarray | None = None
    generated: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.images.shape[2], self.images.shape[1]

    @property
    def centers(self) -> np.ndarray:
        """Camera centres `[V, 3]`."""
        return invert_rigid(self.camera_from_world)[:, :3, 3]


def load_views(clip: Clip, path: CameraPath, masks: Masks, max_side: int) -> Views:
    """Reduce the registered frames so that their longer side is at most `max_side` pixels, and remove lens distortion."""
    frames = np.flatnonzero(path.registered)
    width, height = _reduced_size(clip.size, max_side)
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    lookup = _undistortion(intrinsics, path.distortion, width, height) if np.any(path.distortion) else None
    images = np.empty((len(frames), height, width, 3), np.uint8)
    for view, frame in enumerate(_chosen(clip.frames, frames)):
        images[view] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        if lookup is not None:
            images[view] = cv2.remap(images[view], *lookup, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    labels = np.empty((len(frames), height, width), np.uint16)
    for view, label in enumerate(_chosen(masks.labels, frames)):
        labels[view] = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        if lookup is not None:
            labels[view] = cv2.remap(labels[view], *lookup, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    span = max(float(path.times_s[-1] - path.times_s[0]), 1e-9)
    times = (path.times_s[frames] - path.times_s[0]) / span
    return Views(images, labels, invert_rigid(path.world_from_camera[frames]), intrinsics, times, frames)


def halve(views: Views) -> Views:
    """Return the views at half the resolution (odd last rows and columns are dropped)."""
    width, height = views.size[0] // 2, views.size[1] // 2
    even = views.images[:, : 2 * height, : 2 * width].astype(np.uint16)
    images = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2] + 2) // 4
    # Of labels, depths and sky one pixel in four: a mean of two depths lies on neither surface.
    fewer = {
        name: array[:, : 2 * height : 2, : 2 * width : 2]
        for name in ("labels", "depths", "sky")
        if (array := getattr(views, name)) is not None
    }
    return dataclasses.replace(
        views,
        images=images.astype(np.uint8),
        intrinsics=scale_intrinsics(views.intrinsics, 0.5, 0.5),
        **fewer,
    )


def choose_views(views: Views, chosen: np.ndarray) -> Views:
    """Return some of the views."""
    pick = {name: array[chosen] for name in _BY_VIEW if (array := getattr(views, name)) is not None}
    return dataclasses.replace(views, **pick)


def _reduced_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    factor = min(1.0, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _chosen(video: Iterable[np.ndarray], frames: np.ndarray) -> Iterable[np.ndarray]:
    wanted = set(frames.tolist())
    return (frame for index, frame in enumerate(video) if index in wanted)


def _undistortion(intrinsics: np.ndarray, distortion: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    # OpenCV counts pixel centres from 0, the house from 0.5.
    shifted = intrinsics - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return cv2.initUndistortRectifyMap(shifted, distortion, None, shifted, (width, height), cv2.CV_32FC1)
