"""Motion in the image of a camera that stands still or only turns: what can be told without any world position.

With the object at depth Z, a bearing that changes by da is a sideways motion of Z da, and a size that grows by the
factor s is an approach of Z ln s: both in units of the same unknown Z, so which of them dominates needs no scale.
A camera that itself travels mixes its own motion in, and nothing is told.
"""

import numpy as np

from schemas.cameras import CameraPath
from worldline.kinematics.definitions import camera_direction_word, wrap_angle
from worldline.kinematics.words import choose

_HALF_WINDOW_S = 0.75


def tells_image_motion(path: CameraPath) -> bool:
    """Whether the camera stands still or only turns, so that image motion is object motion."""
    return path.verdict in ("static", "rotation")


def bearing_and_size(columns: dict[str, np.ndarray], path: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    """Return each sample's bearing (right positive, radians, in a fixed frame) and log of its box height.

    Args:
        columns: samples of `TRACK_SAMPLES` as arrays, NaN for null.
        path: a path with `tells_image_motion`.

    Returns:
        Two `[M]` arrays, NaN where the box is missing, touches the border or the frame has no pose.
    """
    inverse = np.linalg.inv(path.intrinsics)
    centre = np.stack([columns["x0_px"] + columns["x1_px"], columns["y0_px"] + columns["y1_px"]], -1) / 2
    rays = np.concatenate([centre, np.ones((len(centre), 1))], -1) @ inverse.T
    frame = columns["frame"].astype(int)
    known = np.ones(len(frame), bool)
    if path.verdict == "rotation":
        known = path.registered[frame]
        reference = path.world_from_camera[np.argmax(path.registered), :3, :3]
        rays = np.einsum("ji,mjk,mk->mi", reference, path.world_from_camera[frame, :3, :3], rays)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.log(columns["y1_px"] - columns["y0_px"])
    known &= np.isfinite(size) & ~columns["touches_border"].astype(bool)
    return np.where(known, np.arctan2(rays[:, 0], rays[:, 2]), np.nan), np.where(known, size, np.nan)


def image_rates(
    row: np.ndarray, time_s: np.ndarray, columns: dict[str, np.ndarray], path: CameraPath, rows: int, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rates of bearing and of log size per track and grid time, `[rows, G]` per second, by local linear fits.

    NaN where fewer than four usable samples lie within 0.75 s, or they do not lie on both sides.
    """
    rates = np.full((2, rows, len(grid)), np.nan)
    if not tells_image_motion(path) or not len(row):
        return rates[0], rates[1]
    bearing, size = bearing_and_size(columns, path)
    usable = np.isfinite(bearing)
    row, time_s, bearing, size = row[usable], time_s[usable], bearing[usable], size[usable]
    if not len(row):
        return rates[0], rates[1]
    reference = np.zeros(rows)
    reference[row[::-1]] = bearing[::-1]
    bearing = wrap_angle(bearing - reference[row])
    with np.errstate(invalid="ignore", divide="ignore"):
        order = np.argsort(time_s, kind="stable")
        first, stop = (np.searchsorted(time_s[order], grid + reach) for reach in (-_HALF_WINDOW_S - 1e-6, _HALF_WINDOW_S + 1e-6))
        for index, centre in enumerate(grid):
            near = order[first[index] : stop[index]]
            owner, shift = row[near], time_s[near] - centre
            count = np.bincount(owner, minlength=rows)
            mean = np.bincount(owner, shift, rows) / count
            centred = shift - mean[owner]
            spread = np.bincount(owner, centred**2, rows)
            both = (np.bincount(owner, shift <= 0, rows) > 0) & (np.bincount(owner, shift >= 0, rows) > 0)
            good = (count >= 4) & (spread > 0.05) & both
            for kind, values in enumerate((bearing, size)):
                rates[kind, good, index] = (np.bincount(owner, centred * values[near], rows) / spread)[good]
    return rates[0], rates[1]


def image_motion_word(bearing: np.ndarray, growth: np.ndarray, threshold: float, ratio: float) -> np.ndarray:
    """Name image motion from the change of bearing and of log size: "left", "right", "toward", "away", "none" or None.

    Args:
        bearing: change of bearing in radians, right positive.
        growth: change of log size.
        threshold: both below it count as "none"; between it and twice it nothing is told.
        ratio: how far the larger change must exceed the other.
    """
    word = camera_direction_word(bearing, -growth, ratio)
    size = np.maximum(np.abs(bearing), np.abs(growth))
    return choose([size < threshold, size > 2 * threshold], ["none", word])
