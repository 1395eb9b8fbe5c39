"""Frames that show the picture before them again: a frozen stream, or a rate raised by showing frames twice.

Copies carry no new evidence, and their own times would make a camera that stops and goes: they are left out of the
reconstruction and get the pose of the picture that they repeat. A copy that went through a lossy codec is not exact: what
gives it away is that it differs from its picture far less than frames of this clip differ otherwise, and nowhere much.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Int32

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.media import Video

_SIDE_PX, _BLOCK_PX = 320, 16
_EXACT = 0.02  # mean difference in grey levels up to which nothing changed
_COPY_SHARE = 0.2  # of the difference that this clip's neighbouring frames usually have
_COPY_MEAN, _COPY_BLOCK = 1.0, 4.0  # grey levels by which a copy, and no block of it, may differ from its picture


def find_repeats(frames: Iterable[np.ndarray], size: tuple[int, int]) -> Int32[np.ndarray, " T"]:
    """Return for each frame (RGB) the index of the first frame of the run that shows its picture: its own where it is new."""
    factor = max(max(size) / _SIDE_PX, 1.0)
    small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    grey = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), small, interpolation=cv2.INTER_AREA) for f in frames]
    steps = [_difference(a, b)[0] for a, b in itertools.pairwise(grey)]
    # even where most of a clip is frozen, its liveliest frames say what new pictures look like
    usual = float(np.percentile(steps, 95)) if steps else 0.0
    limit = max(_EXACT, min(_COPY_SHARE * usual, _COPY_MEAN))
    shown = np.arange(len(grey), dtype=np.int32)
    for index in range(1, len(grey)):
        if steps[index - 1] > limit:
            continue
        # against the picture itself, so that a slow drift does not pass as copies of copies
        mean, worst = _difference(grey[shown[index - 1]], grey[index])
        if mean <= limit and worst <= _COPY_BLOCK:
            shown[index] = shown[index - 1]
    return shown


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the mean absolute difference of two grey images, and that of the block in which it is largest."""
    difference = cv2.absdiff(a, b).astype(np.float32)
    height, width = difference.shape
    blocks = (max(1, width // _BLOCK_PX), max(1, height // _BLOCK_PX))
    return float(difference.mean()), float(cv2.resize(difference, blocks, interpolation=cv2.INTER_AREA).max())


def keep_frames(clip: Clip, kept: np.ndarray) -> Clip:
    """Return the clip of these frames only."""
    return dataclasses.replace(clip, frames=Video.from_array(clip.frames.at(list(kept))), times_s=clip.times_s[kept])


def repeat_poses(path: CameraPath, cloud: PointCloud, clip: Clip, shown: np.ndarray) -> tuple[CameraPath, PointCloud]:
    """Return the path and cloud of all frames of a clip from those of its distinct frames.

    Args:
        path: of the frames that differ, in order.
        cloud: seen from them.
        clip: with all frames.
        shown: for each frame the index of the one whose picture it shows, as `find_repeats` returns.
    """
    kept, of_kept = np.unique(shown, return_inverse=True)
    whole = dataclasses.replace(
        path,
        times_s=clip.times_s,
        world_from_camera=path.world_from_camera[of_kept],
        registered=path.registered[of_kept],
        repeats=shown,
    )
    return whole, dataclasses.replace(cloud, observation_frame=kept[cloud.observation_frame].astype(np.int32))
