"""Candidates of VLM4D's kinds about one window (arXiv 2508.02095): translation, turns, and both from an object's own view.

Directions are those of the motion over the ground, so a camera that drives past a parked car sees it "not moving".
"""

import numpy as np

from schemas.cameras import CameraPath
from stages.label.candidates import (
    Candidates,
    Margins,
    Rule,
    displacements,
    make,
    noise_sigma,
    reasons,
    rows_of,
    states_at,
    window_pairs,
)
from worldline.kinematics.definitions import camera_direction_word, wrap_angle
from worldline.kinematics.words import choose, is_none

_RATIO = 1.5  # how many times larger the larger component of a direction must be
_IN_FRONT_RAD = np.radians(60)
_AHEAD_RAD, _ASIDE_RAD, _BEHIND_RAD = np.radians(15), np.radians(30), np.radians(150)


def view_candidates(
    windows: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    path: CameraPath,
    gravity: bool,
    scale_sigma: float,
    margins: Margins,
) -> list[Candidates]:
    """Return translation, turns and perspective of every window.

    Args:
        windows: `KINEMATIC_WINDOWS` as arrays.
        states: `KINEMATIC_STATES` as arrays.
        path: where the camera looks.
        gravity: whether the direction of gravity is known; without it `single_candidates` asks for the camera's view.
        scale_sigma: relative error of the scale, common to all lengths.
        margins: how clear an answer must be.
    """
    objects = rows_of(windows, np.flatnonzero(windows["track_id"] != 0))
    return [
        _translation(objects, states, path, gravity, scale_sigma, margins),
        *_turns(windows, margins),
        _own_place(windows, states, scale_sigma, margins),
        _from_another(windows, states, scale_sigma, margins),
    ]


def _motion_word(right: np.ndarray, away: np.ndarray, sigma_rad: np.ndarray) -> np.ndarray:
    """Name a motion in a viewer's axes, None within two standard deviations of the other word."""
    spare = np.pi / 4 - np.arctan2(np.minimum(np.abs(right), np.abs(away)), np.maximum(np.abs(right), np.abs(away)))
    with np.errstate(invalid="ignore"):
        return choose([spare >= 2 * sigma_rad], [camera_direction_word(right, away, _RATIO)])


def _direction_sigma(windows: dict[str, np.ndarray], scale_sigma: float) -> np.ndarray:
    """Return the standard deviation of the direction of a window's displacement in radians."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return noise_sigma(windows, "displacement", scale_sigma) / windows["displacement_p50"]


def heading_sigma(state: dict[str, np.ndarray], scale_sigma: float) -> np.ndarray:
    """Return the standard deviation of a state's heading in radians: that of its speed, across the motion, over its speed."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return noise_sigma(state, "speed", scale_sigma) / state["speed_p50"]


def camera_axes(path: CameraPath, time_s: np.ndarray) -> np.ndarray:
    """Return `[K, 3, 3]` camera axes (right, down, forward, as columns) in the world at the frame nearest to each time."""
    known = np.flatnonzero(path.registered)
    if not len(known):
        return np.full((len(time_s), 3, 3), np.nan)
    after = np.clip(np.searchsorted(path.times_s[known], time_s), 1, max(len(known) - 1, 1))
    after = np.minimum(after, len(known) - 1)
    before = np.maximum(after - 1, 0)
    late = path.times_s[known[after]] - time_s < time_s - path.times_s[known[before]]
    return path.world_from_camera[known[np.where(late, after, before)], :3, :3]


def _base(windows: dict[str, np.ndarray]) -> list[Rule]:
    undecided = (windows["state"] != "moving") & (windows["state"] != "static")
    # A camera that stands still may yet turn.
    still_camera = (windows["track_id"] == 0) & (windows["state"] == "static")
    return [(~is_none(windows["rejected"]), windows["rejected"]), (undecided, "undecided"), (still_camera, "static")]


def _translation(
    windows: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    path: CameraPath,
    gravity: bool,
    scale_sigma: float,
    margins: Margins,
) -> Candidates:
    """Return the direction of each object's motion in the camera's axes at the beginning of the window."""
    axes = camera_axes(path, windows["start_s"])
    moved = displacements(windows, states)
    right, away = ((moved * axes[..., axis]).sum(-1) for axis in (0, 2))
    sigma = _direction_sigma(windows, scale_sigma)
    moving = windows["state"] == "moving"
    word = choose([moving, windows["state"] == "static"], [_motion_word(right, away, sigma), "none"])
    elsewhere = (windows["rejected"] == "no_world_position") | (~gravity & is_none(windows["rejected"]))
    rules: list[Rule] = [
        (elsewhere, "told_as_movement_direction"),
        *_base(windows),
        (moving & ~(sigma <= margins.max_direction_sigma), "uncertain"),
        (is_none(word), "direction_undefined"),
    ]
    return make("translation", "translation", windows, reasons(rules), "camera", word=word)


def _turns(windows: dict[str, np.ndarray], margins: Margins) -> list[Candidates]:
    """Return which way each object turns, as it sees it itself, and in which sense, seen from above."""
    moving, still = windows["state"] == "moving", windows["state"] == "static"
    turn = choose([moving, still], [windows["turn"], "none"])
    vague = moving & ~(windows["clock_sigma_hours"] <= margins.max_turn_sigma_hours)
    rules = [*_base(windows), (is_none(turn), "direction_undefined"), (vague, "uncertain")]
    sense = choose(
        [turn == "left", turn == "right", turn == "straight", still], ["counter_clockwise", "clockwise", "straight", "none"]
    )
    both_ways = is_none(sense)  # a turn around may have gone either way
    return [
        make("turning", "turning", windows, reasons(rules), "self", word=turn),
        make("rotation", "rotation", windows, reasons([*rules, (both_ways, "direction_undefined")]), "above", word=sense),
    ]


def _own_place(windows: dict[str, np.ndarray], states: dict[str, np.ndarray], scale_sigma: float, margins: Margins) -> Candidates:
    """Return on which side of its own first heading each object ends up."""
    begin = states_at(states, windows["track_id"], windows["start_s"])
    moved = displacements(windows, states)
    angle = -wrap_angle(np.arctan2(moved[:, 1], moved[:, 0]) - begin["heading_rad"])
    sigma = np.hypot(_direction_sigma(windows, scale_sigma), heading_sigma(begin, scale_sigma))
    moving = windows["state"] == "moving"
    with np.errstate(invalid="ignore"):
        aside = (np.abs(angle) >= _ASIDE_RAD) & (np.abs(angle) <= _BEHIND_RAD)
        conditions = [windows["state"] == "static", moving & (np.abs(angle) <= _AHEAD_RAD), moving & aside]
        word = choose(conditions, ["none", "ahead", np.where(angle > 0, "right", "left").astype(object)])
    rules: list[Rule] = [
        *_base(windows),
        (moving & ~(sigma <= (_ASIDE_RAD - _AHEAD_RAD) / 2), "uncertain"),
        (is_none(word), "direction_undefined"),
    ]
    return make("perspective", "perspective.own", windows, reasons(rules), "self", word=word)


def _from_another(
    windows: dict[str, np.ndarray], states: dict[str, np.ndarray], scale_sigma: float, margins: Margins
) -> Candidates:
    """Return how each object (or the camera) moves for another one that sees it in front, in its axes when the window begins."""
    first, second = window_pairs(windows)
    viewer, seen = (
        {name: np.concatenate([one[name], other[name]]) for name in windows} for one, other in ((first, second), (second, first))
    )
    objects = np.flatnonzero(viewer["track_id"] != 0)
    viewer, seen = rows_of(viewer, objects), rows_of(seen, objects)
    stand = states_at(states, viewer["track_id"], viewer["start_s"])
    place = states_at(states, seen["track_id"], seen["start_s"])
    heading = stand["heading_rad"]
    offset = np.arctan2(place["y"] - stand["y"], place["x"] - stand["x"]) - heading
    moved = displacements(seen, states)
    away = moved[:, 0] * np.cos(heading) + moved[:, 1] * np.sin(heading)
    right = moved[:, 0] * np.sin(heading) - moved[:, 1] * np.cos(heading)
    own, other = heading_sigma(stand, scale_sigma), _direction_sigma(seen, scale_sigma)
    moving = seen["state"] == "moving"
    sigma = np.where(moving, np.hypot(own, other), own)
    word = choose([moving, seen["state"] == "static"], [_motion_word(right, away, sigma), "none"])
    with np.errstate(invalid="ignore"):
        rules: list[Rule] = [
            (~(is_none(viewer["rejected"]) & is_none(seen["rejected"])), "window_rejected"),
            (np.isnan(heading) | (viewer["state"] != "moving"), "viewer_not_moving"),
            (~(np.abs(wrap_angle(offset)) <= _IN_FRONT_RAD), "not_in_front"),
            (~moving & (seen["state"] != "static"), "undecided"),
            (~(sigma <= margins.max_direction_sigma), "uncertain"),
            (is_none(word), "direction_undefined"),
        ]
    which = {"first": viewer["track_id"], "second": seen["track_id"]}
    return make("perspective", "perspective", viewer, reasons(rules), "other_object", word=word, **which)
