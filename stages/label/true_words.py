"""True answers to questions of VLM4D's kinds and about two things, for `label.evaluate`."""

import numpy as np

from worldline.kinematics.definitions import KMH_PER_MPS, camera_direction_word, clock_hour, clockwise_angle
from worldline.kinematics.words import choose

_STANDS_M = 0.5
_TURNS_RAD, _TURNS_AROUND_RAD = np.radians(20), np.radians(140)  # midway between the classes that are told
_STAYS = 0.06  # of the distance: between what counts as constant and as a change
_SEEN = {"left": "left", "right": "right", "toward": "toward it", "away": "away from it"}


def true_motion_words(
    kind: np.ndarray,
    paired: np.ndarray,
    headed: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    moved: np.ndarray,
    other_moved: np.ndarray,
) -> np.ndarray:
    """Return `[K]` true answers to turning, rotation and perspective, None for all other kinds.

    Args:
        kind: `[K]`.
        paired: `[K]` whether a second object is named: its motion is what a perspective is about.
        headed: `[K, 3]` true direction of travel of the first object when the window begins.
        first: `[K, 3]` its first step in the window.
        last: `[K, 3]` its last step.
        moved: `[K, 3]` its displacement.
        other_moved: `[K, 3]` displacement of the second object.
    """
    turned, aside = clockwise_angle(first, last), clockwise_angle(headed, moved)
    stands, other_stands = (np.linalg.norm(step, axis=-1) < _STANDS_M for step in (moved, other_moved))
    turning = [stands, np.abs(turned) >= _TURNS_AROUND_RAD, turned >= _TURNS_RAD, turned <= -_TURNS_RAD]
    sense = [stands, turned >= _TURNS_RAD, turned <= -_TURNS_RAD]
    place = [stands, aside >= _TURNS_RAD, aside <= -_TURNS_RAD]
    ahead = headed[:, :2] / np.maximum(np.linalg.norm(headed[:, :2], axis=-1), 1e-9)[:, None]
    right = other_moved[:, 0] * ahead[:, 1] - other_moved[:, 1] * ahead[:, 0]
    seen = camera_direction_word(right, (other_moved[:, :2] * ahead).sum(-1), 1.0)
    return choose(
        [kind == "turning", kind == "rotation", (kind == "perspective") & ~paired, kind == "perspective"],
        [
            choose(turning, ["not moving", "it turns around", "right", "left"], "straight on"),
            choose(sense, ["not moving", "clockwise", "counter-clockwise"], "neither, it goes straight on"),
            choose(place, ["in the same place", "to the right", "to the left"], "straight ahead"),
            choose([other_stands, *(seen == word for word in _SEEN)], ["not moving", *_SEEN.values()]),
        ],
    )


def true_clock_hours(
    kind: np.ndarray, place: np.ndarray, forward: np.ndarray, other: np.ndarray, other_forward: np.ndarray
) -> np.ndarray:
    """Return `[K]` the hour at which another thing is (clock_bearing), or to which it heads (clock_heading); NaN for others.

    Args:
        kind: `[K]`.
        place: `[K, 3]` of the one whose forward direction is 12 o'clock.
        forward: `[K, 3]` that direction.
        other: `[K, 3]` place of the other.
        other_forward: `[K, 3]` its direction of travel.
    """
    angles = clockwise_angle(forward, other - place), clockwise_angle(forward, other_forward)
    hours = [np.where(np.isfinite(angle), clock_hour(np.nan_to_num(angle)), np.nan) for angle in angles]
    return np.select([kind == "clock_bearing", kind == "clock_heading"], hours, np.nan)


def true_approach(begin_m: np.ndarray, end_m: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what became of a distance in words, the closing speed in km/h and the time to contact in seconds, all `[K]`."""
    change = end_m - begin_m
    conditions = [np.abs(change) <= _STAYS * begin_m, change < 0, change > 0]
    words = choose(conditions, ["their distance stays the same", "they approach each other", "they move apart"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return words, -KMH_PER_MPS * change / seconds, -end_m / change * seconds
