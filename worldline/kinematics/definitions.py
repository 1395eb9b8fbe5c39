"""The quantities that kinematic labels tell, as functions on arrays. All are frame-free or say which frame they need.

Definitions follow ST-VLM (arXiv 2503.19355) with what its formulas leave open pinned down: path length on a stated
time grid, and a signed clock direction in bins that are centred on the hour (SpatialRGPT's floor division puts them
half an hour off).
"""

import numpy as np

from worldline.kinematics.words import choose

KMH_PER_MPS = 3.6
HOUR_RAD = np.pi / 6


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Wrap radians into [-pi, pi)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def cumulative_path(positions: np.ndarray) -> np.ndarray:
    """Return the path length from the first position up to each, `[..., G]` for positions `[..., G, 3]`.

    Steps that touch a NaN position count as zero: differences of the result are path lengths only where all
    positions between are finite.
    """
    steps = np.linalg.norm(np.diff(positions, axis=-2), axis=-1)
    total = np.cumsum(np.nan_to_num(steps), axis=-1)
    return np.concatenate([np.zeros_like(total[..., :1]), total], axis=-1) if total.shape[-1] else np.zeros(positions.shape[:-1])


def clockwise_angle(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the angle from direction `first` to `last`, clockwise seen from above, in [-pi, pi].

    Args:
        first: `[..., 2 or 3]` direction in a frame whose z points up; z is ignored.
        last: the same of the other direction.
    """
    cross = first[..., 0] * last[..., 1] - first[..., 1] * last[..., 0]
    dot = first[..., 0] * last[..., 0] + first[..., 1] * last[..., 1]
    return -np.arctan2(cross, dot)


def clock_hour(clockwise: np.ndarray) -> np.ndarray:
    """Return the clock hour 1..12 nearest to a clockwise angle in radians: 0 is 12 o'clock, pi/2 is 3 o'clock."""
    hour = np.rint(np.asarray(clockwise) / HOUR_RAD).astype(np.int64) % 12
    return np.where(hour == 0, 12, hour)


def clock_edge_distance(clockwise: np.ndarray) -> np.ndarray:
    """Return how far an angle lies from the nearest border between two clock hours, in radians (0 to pi/12)."""
    hours = np.asarray(clockwise) / HOUR_RAD
    return (0.5 - np.abs(hours - np.rint(hours))) * HOUR_RAD


def clock_difference(hour: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the circular difference of two clock hours, 0 to 6."""
    difference = np.abs(np.asarray(hour) - np.asarray(other)) % 12
    return np.minimum(difference, 12 - difference)


def turn_word(clockwise_total: np.ndarray, turning: float, u_turn: float, straight: float) -> np.ndarray:
    """Name the turn of an unwrapped change of heading: "straight", "left", "right", "u_turn" or None between them.

    Args:
        clockwise_total: change of heading over the window, clockwise positive, radians; NaN gives None.
        turning: smallest change of a turn in radians.
        u_turn: smallest change of a U-turn.
        straight: changes below it are none.
    """
    size = np.abs(clockwise_total)
    side = np.where(clockwise_total > 0, "right", "left").astype(object)
    return choose([size < straight, size >= u_turn, size >= turning], ["straight", "u_turn", side])


def camera_direction_word(right: np.ndarray, away: np.ndarray, ratio: float) -> np.ndarray:
    """Name a motion in the camera's axes: "left", "right", "toward", "away", or None where neither axis dominates.

    Args:
        right: component along the camera's x axis.
        away: component along its viewing direction, in the same unit.
        ratio: how many times larger the larger component must be.
    """
    lateral, radial = np.abs(right), np.abs(away)
    known = np.isfinite(right) & np.isfinite(away) & (lateral + radial > 0)
    conditions = [known & (lateral >= ratio * radial), known & (radial >= ratio * lateral)]
    words = [np.where(right > 0, "right", "left").astype(object), np.where(away > 0, "away", "toward").astype(object)]
    return choose(conditions, words)


def relative_direction_word(angle: np.ndarray) -> np.ndarray:
    """Name the angle between two motions: "same" up to 30 degrees, "crossing" 60 to 120, "opposite" from 150, else None."""
    degrees = np.degrees(np.abs(angle))
    conditions = [degrees <= 30, degrees >= 150, (degrees >= 60) & (degrees <= 120)]
    return choose(conditions, ["same", "opposite", "crossing"])


def angle_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the unsigned angle between vectors `[..., 3]` in radians; NaN where one of them is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (first * second).sum(-1) / (np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1))
    return np.arccos(np.clip(cosine, -1, 1))


def interval_iou(start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray) -> np.ndarray:
    """Return the temporal intersection over union of intervals."""
    overlap = np.maximum(0.0, np.minimum(end, other_end) - np.maximum(start, other_start))
    union = (end - start) + (other_end - other_start) - overlap
    return np.where(union > 0, overlap / np.where(union > 0, union, 1.0), 0.0)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes `[..., 4]` (x0, y0, x1, y1), broadcast; 0 where one is NaN."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (others[..., 2:] - others[..., :2]).prod(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(overlap / (areas - overlap))
