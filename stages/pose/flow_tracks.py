"""Corners followed from frame to frame, for footage that has too little texture for features that describe themselves.

On smooth surfaces SIFT finds little and recognises less of it; a corner that is followed by optical flow needs no description
(Shi and Tomasi, Good Features to Track, CVPR 1994). It can be followed only while it stays in view, so it closes no loops.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int32

from stages.pose.footage import find_corners, track, working_images

_APART_PX = 6.0  # at the working size: closer to a corner that is followed already no other is begun
_LOOKED_AT = 5


@dataclass(frozen=True)
class FlowTracks:
    """Corners that were followed, one row per sighting, in order of frames.

    Attributes:
        frame: `[N]` index of the frame.
        track: `[N]` number of the corner, the same in all frames that it was followed through.
        xy: `[N, 2]` pixels, pixel centres at +0.5.
    """

    frame: Int32[np.ndarray, " N"]
    track: Int32[np.ndarray, " N"]
    xy: Float32[np.ndarray, "N 2"]


def follow_corners(frames: Iterable[np.ndarray], size: tuple[int, int], strength: float) -> FlowTracks:
    """Follow corners through RGB frames, beginning new ones wherever none is followed; two frames are held at a time.

    Args:
        frames: `[H, W, 3]` each.
        size: width and height in pixels.
        strength: that a corner must have, as in `stages.pose.footage.FootageConfig`.
    """
    rows_frame: list[np.ndarray] = []
    rows_track: list[np.ndarray] = []
    rows_xy: list[np.ndarray] = []
    before: np.ndarray | None = None
    at, numbers, begun = np.zeros((0, 2), np.float32), np.zeros(0, np.int32), 0
    for index, frame in enumerate(frames):
        (image,), factor = working_images([frame], size)
        if before is not None and len(at):
            there, alive = track(before, image, at, at)
            at, numbers = there[alive], numbers[alive]
        fresh = find_corners(image, strength)
        if len(at) and len(fresh):
            distance = np.linalg.norm(fresh[:, None] - at[None], axis=2).min(axis=1)
            fresh = fresh[distance > _APART_PX]
        at = np.concatenate([at, fresh]).astype(np.float32)
        numbers = np.concatenate([numbers, np.arange(begun, begun + len(fresh), dtype=np.int32)])
        begun += len(fresh)
        rows_frame.append(np.full(len(at), index, np.int32))
        rows_track.append(numbers)
        rows_xy.append(((at + 0.5) * factor).astype(np.float32))
        before = image
    return FlowTracks(np.concatenate(rows_frame), np.concatenate(rows_track), np.concatenate(rows_xy))


def features_per_frame(frames: Iterable[np.ndarray], peak_threshold: float) -> float:
    """Return how many SIFT features the median of some RGB frames has at COLMAP's `peak_threshold`."""
    # OpenCV divides the threshold by its three layers per octave
    finder = cv2.SIFT_create(contrastThreshold=3 * peak_threshold)  # type: ignore[attr-defined]
    return float(np.median([len(finder.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None)) for frame in frames]))


def spread_frames(count: int) -> list[int]:
    """Return a few indices spread over a clip."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, _LOOKED_AT).round())]
