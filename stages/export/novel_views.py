"""Pictures of a 4D scene from the camera's own path and from a path that nobody took."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from schemas.cameras import CameraPath, PointCloud
from schemas.scenes import Scene4D
from worldline.scenes import draw_scene

NO_POSE_GREY = 96  # what a frame without a pose is painted with
_DIFFERENCE_FULL = 64.0  # mean absolute difference of 8-bit colours that is drawn with the brightest colour


@dataclass(frozen=True)
class NovelPath:
    """A camera path that was not driven.

    Attributes:
        world_from_camera: `[T, 4, 4]`.
        shift, sway: lateral offset to the camera's right and the amplitude of the sway about it, in the path's unit.
        period_s: period of the sway.
    """

    world_from_camera: Float64[np.ndarray, "T 4 4"]
    shift: float
    sway: float
    period_s: float


def shift_path(path: CameraPath, shift: float, sway: float, period_s: float) -> NovelPath:
    """Move every camera sideways along its own x axis by `shift + sway sin(2 pi t / period_s)`; directions stay.

    This is the lane change with which driving reconstructions are commonly tested: what the lens never saw comes into view.
    """
    offset = shift + sway * np.sin(2 * np.pi * (path.times_s - path.times_s[0]) / period_s)
    moved = path.world_from_camera.copy()
    moved[:, :3, 3] += offset[:, None] * moved[:, :3, 0]
    return NovelPath(moved, shift, sway, period_s)


def median_depth(path: CameraPath, points: PointCloud) -> float:
    """Return the median depth of the points before the middle registered camera, in the path's unit; 0 if unknown."""
    indices = np.flatnonzero(path.registered)
    if not len(indices) or not len(points.xyz):
        return 0.0
    camera_from_world = np.linalg.inv(path.world_from_camera[indices[len(indices) // 2]])
    depth = points.xyz @ camera_from_world[2, :3] + camera_from_world[2, 3]
    return float(np.median(depth[depth > 0])) if np.any(depth > 0) else 0.0


def render_path(
    scene: Scene4D,
    path: CameraPath,
    world_from_camera: Float64[np.ndarray, "T 4 4"],
    frames: np.ndarray,
    size: tuple[int, int],
    tick: Callable[[], None],
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Render the scene at the times of `frames`, grey where the frame has no pose.

    Args:
        scene: the scene.
        path: times, calibration and which frames are registered.
        world_from_camera: poses to render from, in the scene's frame.
        frames: indices of the frames.
        size: width and height of the pictures.
        tick: called after each picture.

    Yields:
        RGB `[h, w, 3]`.
    """
    width, height = size
    intrinsics = scale_intrinsics(path, size)
    for frame in frames:
        if not path.registered[frame]:
            yield np.full((height, width, 3), NO_POSE_GREY, np.uint8)
        else:
            time_s = float(np.clip(path.times_s[frame], scene.start_s, scene.end_s))
            image = draw_scene(scene, time_s, np.linalg.inv(world_from_camera[frame]), intrinsics, width, height)
            yield (image * 255).round().to(torch.uint8).numpy()
        tick()


def scale_intrinsics(path: CameraPath, size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    """Return the pinhole matrix for pictures of `size` (width, height); centres at +0.5 make this a plain scaling."""
    return np.diag([size[0] / path.width, size[1] / path.height, 1.0]) @ path.intrinsics


def undistort(frame: UInt8[np.ndarray, "h w 3"], path: CameraPath) -> UInt8[np.ndarray, "h w 3"]:
    """Remove lens distortion, so that a frame can be compared with a pinhole rendering; unchanged where there is none."""
    if not np.any(path.distortion):
        return frame
    matrix = scale_intrinsics(path, (frame.shape[1], frame.shape[0]))
    matrix[:2, 2] -= 0.5  # OpenCV puts pixel centres at whole numbers
    return np.asarray(cv2.undistort(frame, matrix, path.distortion))


def draw_difference(
    first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"], valid: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the mean absolute colour difference as a picture from black to pale yellow; grey where not `valid`."""
    if not valid:
        return np.full(first.shape, NO_POSE_GREY, np.uint8)
    error = np.abs(first.astype(np.float32) - second.astype(np.float32)).mean(axis=2)
    grey = np.clip(error * (255.0 / _DIFFERENCE_FULL), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB))


def shown_psnr(
    clip_frames: UInt8[np.ndarray, "T h w 3"], renders: UInt8[np.ndarray, "T h w 3"], valid: Bool[np.ndarray, " T"]
) -> float | None:
    """Return the mean over frames of the peak signal-to-noise ratio in dB, or None where no frame is valid."""
    errors = [
        np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
        for first, second, use in zip(clip_frames, renders, valid, strict=True)
        if use
    ]
    return float(np.mean(10 * np.log10(255.0**2 / np.maximum(errors, 1e-3)))) if errors else None
