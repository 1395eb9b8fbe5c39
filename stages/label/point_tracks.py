"""Point tracks: pyramidal Lucas-Kanade from frame to frame, checked forward and backward, replenished on a grid.

Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker" (2000), with the forward-backward error of
Kalal et al., "Forward-backward error" (ICPR 2010). Frames are read once, in order; two grey frames are held.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pydantic import PositiveInt

from schemas.clips import Clip
from schemas.motion import PointTracks
from stages.contract import Progress, no_progress, stage


@dataclass(frozen=True)
class PointTracksConfig:
    """How densely and how strictly points are followed.

    Attributes:
        cells_across: the image width is divided into so many cells; every empty cell gets a new point in each frame,
            where the image has texture.
        min_texture: smallest eigenvalue of the structure tensor (OpenCV's scale) that counts as texture.
        window_px: side of the patch that is followed (at 960 pixels of width and more). Patches of the background that reach
            over an object's edge are dragged along by it, so they are smaller where objects are, down to `min_window_px`.
        min_window_px: smaller ones do not hold a point.
        max_forward_backward_px: a point whose way there and back ends farther from its start is lost.
        max_values: upper bound of points times frames; the grid is coarsened to stay below it (memory: 9 bytes each).
    """

    cells_across: PositiveInt = 130
    min_texture: float = 1e-4
    window_px: PositiveInt = 11
    min_window_px: PositiveInt = 9
    max_forward_backward_px: float = 0.6
    max_values: PositiveInt = 12_000_000


@stage("label.point_tracks", version=2)
def track_points(
    clip: Clip, config: PointTracksConfig = PointTracksConfig(), *, seed: int = 0, progress: Progress = no_progress
) -> PointTracks:
    """Follow image points through the clip.

    Returns:
        Tracks of at least two frames in order of their first frame, then row and column of the first position.
    """
    frame_count, (width, height) = len(clip.frames), clip.size
    grid_px = _affordable_grid(config, frame_count, width, height)
    window_px = min(config.window_px, max(config.min_window_px, round(config.window_px * width / 960) | 1))
    finished: list[tuple[int, np.ndarray]] = []
    alive: list[list[np.ndarray]] = []
    firsts: list[int] = []
    previous, points = None, np.zeros((0, 2), np.float32)
    for frame, image in enumerate(clip.frames):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if previous is not None and len(points):
            moved, kept = _follow(previous, grey, points, window_px, config)
            for index in np.flatnonzero(~kept):
                finished.append((firsts[index], np.array(alive[index])))
            survivors = np.flatnonzero(kept)
            alive, firsts = [alive[index] for index in survivors], [firsts[index] for index in survivors]
            points = moved[kept]
            for trail, point in zip(alive, points, strict=True):
                trail.append(point)
        fresh = _new_points(grey, points, grid_px, config)
        points = np.concatenate([points, fresh])
        alive.extend([point] for point in fresh)
        firsts.extend([frame] * len(fresh))
        previous = grey
        progress(frame + 1, frame_count, f"{len(points)} points")
    finished.extend((first, np.array(trail)) for first, trail in zip(firsts, alive, strict=True))
    return _as_table([item for item in finished if len(item[1]) >= 2], clip.times_s)


def _affordable_grid(config: PointTracksConfig, frame_count: int, width: int, height: int) -> int:
    """Coarsen the grid until a track per cell and every tenth frame stays within `max_values`."""
    grid_px = max(4, round(width / config.cells_across))
    while (width / grid_px) * (height / grid_px) * (1 + frame_count / 10) * frame_count > config.max_values * 4:
        grid_px += 1
    return grid_px


def _follow(
    previous: np.ndarray, current: np.ndarray, points: np.ndarray, window_px: int, config: PointTracksConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return where `[N, 2]` points went and which of them can be believed."""
    size = (window_px, window_px)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03)
    # OpenCV puts pixel centres at integers, this project at +0.5
    start = (points - 0.5).reshape(-1, 1, 2)
    nowhere: Any = None  # no initial guess; OpenCV's type stubs do not allow it
    ahead, found, _ = cv2.calcOpticalFlowPyrLK(previous, current, start, nowhere, winSize=size, maxLevel=4, criteria=stop)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(current, previous, ahead, nowhere, winSize=size, maxLevel=4, criteria=stop)
    error = np.linalg.norm((back - start)[:, 0], axis=1)
    moved = ahead[:, 0] + 0.5
    height, width = current.shape
    inside = (moved > 1).all(axis=1) & (moved[:, 0] < width - 1) & (moved[:, 1] < height - 1)
    kept = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (error < config.max_forward_backward_px) & inside
    return moved.astype(np.float32), kept & _one_per_place(moved, kept)


def _one_per_place(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Drop the later of two tracks that ended in the same 2x2 pixel cell (merged tracks say nothing new)."""
    cells = np.floor(points / 2).astype(np.int64)
    keys = np.where(kept, cells[:, 1] * 100_003 + cells[:, 0], -1 - np.arange(len(points)))
    unique = np.zeros(len(points), bool)
    unique[np.unique(keys, return_index=True)[1]] = True
    return unique


def _new_points(grey: np.ndarray, points: np.ndarray, grid_px: int, config: PointTracksConfig) -> np.ndarray:
    """Return the strongest corner of every textured grid cell that holds no point, `[M, 2]` at +0.5 centres."""
    height, width = grey.shape
    rows, columns = height // grid_px, width // grid_px
    if rows == 0 or columns == 0:
        return np.zeros((0, 2), np.float32)
    strength = cv2.cornerMinEigenVal(grey, 5, ksize=3)
    strength[:4], strength[-4:], strength[:, :4], strength[:, -4:] = 0, 0, 0, 0
    blocks = strength[: rows * grid_px, : columns * grid_px].reshape(rows, grid_px, columns, grid_px)
    cells = blocks.swapaxes(1, 2).reshape(rows, columns, -1)
    best = cells.argmax(axis=2)
    textured = np.take_along_axis(cells, best[..., None], axis=2)[..., 0] > config.min_texture
    taken = (points / grid_px).astype(int)
    taken = taken[(taken[:, 0] < columns) & (taken[:, 1] < rows)]
    textured[taken[:, 1], taken[:, 0]] = False
    row, column = np.nonzero(textured)
    inner = best[row, column]
    x, y = column * grid_px + inner % grid_px, row * grid_px + inner // grid_px
    return np.stack([x, y], axis=1).astype(np.float32) + np.float32(0.5)


def _as_table(trails: list[tuple[int, np.ndarray]], times_s: np.ndarray) -> PointTracks:
    trails.sort(key=lambda item: (item[0], item[1][0, 1], item[1][0, 0]))
    positions = np.zeros((len(trails), len(times_s), 2), np.float32)
    visible = np.zeros((len(trails), len(times_s)), bool)
    for index, (first, trail) in enumerate(trails):
        positions[index, first : first + len(trail)] = trail
        visible[index, first : first + len(trail)] = True
    return PointTracks(times_s, positions, visible, np.array([first for first, _ in trails], np.int32))
