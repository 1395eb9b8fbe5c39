"""Candidates of clock directions from the camera or from another object, and of how two things move relative to each other.

Clock hours are told in the middle of their 30 degrees only; distances are those between centres.
"""

import numpy as np

from schemas.cameras import CameraPath
from stages.label.candidates import (
    Candidates,
    Margins,
    Rule,
    make,
    noise_sigma,
    places_at,
    reasons,
    rows_of,
    states_at,
    window_pairs,
)
from stages.label.view_candidates import camera_axes, heading_sigma
from worldline.kinematics.definitions import KMH_PER_MPS, clock_edge_distance, clock_hour, wrap_angle
from worldline.kinematics.words import choose, is_none

_EDGE_RAD = np.radians(3)  # no hour is told closer to its border, or within two standard deviations
_Z95 = 1.645
_SAME_RAD, _ALONG_RAD = np.radians(30), np.radians(15)
_LANE_M, _BESIDE_M, _FAR_M = 1.5, 6.0, 60.0  # sideways in the same lane, sideways when passing, and along a road
_CLEAR_M = 2.0  # ahead or behind by this much beyond two standard deviations
_LEAST_CHANGE, _NO_CHANGE = 0.1, 0.03  # of the distance, as a share of it
_CLOSING_MPS, _SHORTEST_CONTACT_S, _LONGEST_CONTACT_S = 0.5, 1.0, 10.0

Columns = dict[str, np.ndarray]


def relation_candidates(
    windows: Columns, states: Columns, path: CameraPath, gravity: bool, scale_sigma: float, margins: Margins
) -> list[Candidates]:
    """Return clock directions with two references, relations, closing speeds and times to contact.

    Args:
        windows: `KINEMATIC_WINDOWS` as arrays.
        states: `KINEMATIC_STATES` as arrays.
        path: where the camera looks.
        gravity: whether the direction of gravity is known; clocks and relations need it, distances do not.
        scale_sigma: relative error of the scale, common to all lengths.
        margins: how clear an answer must be.
    """
    first, second = window_pairs(windows)
    viewer, other = (
        {name: np.concatenate([one[name], two[name]]) for name in windows} for one, two in ((first, second), (second, first))
    )
    return [
        *_from_camera(rows_of(windows, np.flatnonzero(windows["track_id"] != 0)), states, path, gravity, scale_sigma),
        *_between(viewer, other, states, gravity, scale_sigma, margins),
        *_distances(first, second, states, scale_sigma, margins),
    ]


def _hours(kind: str, bank: str, reference: str, windows: Columns, rules: list[Rule], clockwise: np.ndarray, sigma: np.ndarray,
           **which: np.ndarray) -> Candidates:  # fmt: skip
    """Return a clock direction, where no rule stands against it and it is clear of the border between two hours."""
    with np.errstate(invalid="ignore"):
        clear = clock_edge_distance(np.nan_to_num(clockwise)) >= np.fmax(_EDGE_RAD, 2 * sigma)
        undefined = ~np.isfinite(clockwise) | ~np.isfinite(sigma)
    rules = [*rules, (undefined, "direction_undefined"), (~clear, "between_hours")]
    hour = clock_hour(np.nan_to_num(clockwise)).astype(float)
    return make(kind, bank, windows, reasons(rules), reference, value=hour, **which)


def _place_sigma(windows: Columns, scale_sigma: float) -> np.ndarray:
    """Return the standard deviation of an object's place: at most that of its displacement."""
    return noise_sigma(windows, "displacement", scale_sigma)


def _from_camera(windows: Columns, states: Columns, path: CameraPath, gravity: bool, scale_sigma: float) -> list[Candidates]:
    """Return where each object is, and where it heads, when the window ends, with 12 o'clock where the camera looks."""
    end = states_at(states, windows["track_id"], windows["end_s"])
    forward = camera_axes(path, windows["end_s"])[:, :2, 2]
    yaw = np.arctan2(forward[:, 1], forward[:, 0])
    base: list[Rule] = [
        (~is_none(windows["rejected"]), windows["rejected"]),
        (np.full(len(yaw), not gravity), "no_gravity"),
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = _place_sigma(windows, scale_sigma) / end["range"]
    still: Rule = (windows["state"] != "moving", windows["state"])
    heading = heading_sigma(end, scale_sigma)
    return [
        _hours("clock_bearing", "clock_bearing", "ego", windows, base, -end["bearing_rad"], sigma),
        _hours("clock_heading", "clock_heading", "ego", windows, [*base, still], -wrap_angle(end["heading_rad"] - yaw), heading),
    ]


def _between(
    viewer: Columns, other: Columns, states: Columns, gravity: bool, scale_sigma: float, margins: Margins
) -> list[Candidates]:
    """Return clock directions of one with 12 o'clock where another heads, and which of them follows or overtakes which."""
    begin, end, other_begin, other_end = (
        states_at(states, side["track_id"], side[name]) for side in (viewer, other) for name in ("start_s", "end_s")
    )
    which = {"first": viewer["track_id"], "second": other["track_id"]}
    upright: Rule = (np.full(len(viewer["start_s"]), not gravity), "no_gravity")
    rejected: Rule = (~(is_none(viewer["rejected"]) & is_none(other["rejected"])), "window_rejected")
    base: list[Rule] = [upright, rejected, (viewer["state"] != "moving", "viewer_not_moving")]
    moving: Rule = (other["state"] != "moving", "not_both_moving")
    place = np.hypot(_place_sigma(viewer, scale_sigma), _place_sigma(other, scale_sigma))
    heading = heading_sigma(end, scale_sigma)
    ahead, aside = _offset(begin, other_begin)
    last_ahead, last_aside = _offset(end, other_end)
    turned = wrap_angle(other_end["heading_rad"] - end["heading_rad"])
    with np.errstate(invalid="ignore", divide="ignore"):
        bearing_sigma = np.hypot(heading, place / np.hypot(last_ahead, last_aside))
        heading_spread = np.hypot(heading, heading_sigma(other_end, scale_sigma))
        first_turned = np.abs(wrap_angle(other_begin["heading_rad"] - begin["heading_rad"]))
        widest, narrowest = np.fmax(first_turned, np.abs(turned)), np.fmin(first_turned, np.abs(turned))
        clear = _CLEAR_M + 2 * place
        beside = np.fmax(np.abs(aside), np.abs(last_aside))
        along = (widest <= _ALONG_RAD) & (beside + place <= _LANE_M)
        gap = np.fmin(np.abs(ahead), np.abs(last_ahead))
        near = along & (gap >= clear) & (np.fmax(np.abs(ahead), np.abs(last_ahead)) <= _FAR_M)
        passes = (widest <= _SAME_RAD) & (beside <= _BESIDE_M) & (gap >= clear)
        lanes = (widest <= _SAME_RAD) & (np.fmin(np.abs(aside), np.abs(last_aside)) - 2 * place >= 1.5 * _LANE_M)
        conditions = [
            passes & (ahead > 0) & (last_ahead < 0),
            passes & (ahead < 0) & (last_ahead > 0),
            near & (ahead > 0) & (last_ahead > 0),
            near & (ahead < 0) & (last_ahead < 0),
            lanes & (ahead * last_ahead > 0),
            narrowest >= np.pi - _SAME_RAD,
            (narrowest >= 2 * _SAME_RAD) & (widest <= 4 * _SAME_RAD),
        ]
    word = choose(conditions, ["overtakes", "overtaken", "follows", "leads", "same", "opposite", "crossing"])
    rules: list[Rule] = [
        *base,
        moving,
        (~(viewer["metric"].astype(bool) & other["metric"].astype(bool)), "no_metric_scale"),
        (~(heading_spread <= margins.max_direction_sigma), "uncertain"),
        (is_none(word), "no_clear_relation"),
    ]
    bearing = np.arctan2(-last_aside, last_ahead)
    return [
        _hours("clock_bearing", "clock_bearing.other", "other_object", viewer, base, -bearing, bearing_sigma, **which),
        _hours("clock_heading", "clock_heading.other", "other_object", viewer, [*base, moving], -turned, heading_spread, **which),
        make("relation", "relation", viewer, reasons(rules), "other_object", word=word, **which),
    ]


def _offset(viewer: Columns, other: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return how far another thing is ahead, and to the right, of one that heads where it goes."""
    east, north = other["x"] - viewer["x"], other["y"] - viewer["y"]
    cosine, sine = np.cos(viewer["heading_rad"]), np.sin(viewer["heading_rad"])
    return east * cosine + north * sine, east * sine - north * cosine


def _distances(a: Columns, b: Columns, states: Columns, scale_sigma: float, margins: Margins) -> list[Candidates]:
    """Return whether two come nearer to each other, how fast on average, and how long it would take them to meet."""
    middle = (a["start_s"] + a["end_s"]) / 2
    spacing = np.diff(np.unique(states["time_s"])).min(initial=np.inf)
    middle = a["start_s"] + np.round((middle - a["start_s"]) / spacing) * spacing if np.isfinite(spacing) else middle
    begin, half, end = (_distance(a, b, states, time) for time in (a["start_s"], middle, a["end_s"]))
    seconds = a["end_s"] - a["start_s"]
    sigma = np.hypot(_place_sigma(a, scale_sigma), _place_sigma(b, scale_sigma))
    which = {"first": a["track_id"], "second": b["track_id"]}
    decided = [np.isin(side["state"].astype(str), ("moving", "static")) for side in (a, b)]
    base: list[Rule] = [
        (~(is_none(a["rejected"]) & is_none(b["rejected"])), "window_rejected"),
        (~(decided[0] & decided[1]), "undecided"),
        ((a["state"] != "moving") & (b["state"] != "moving"), "neither_moving"),
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = end - begin
        least = np.fmax(2 * sigma, _LEAST_CHANGE * begin)
        steady = np.abs(half - (begin + end) / 2) <= np.abs(change) / 2
        same = np.fmax(np.abs(change), np.abs(half - begin)) + 2 * sigma <= _NO_CHANGE * begin
        word = choose([same, (change <= -least) & steady, (change >= least) & steady], ["constant", "approaching", "receding"])
        closing, rate_sigma = -change / seconds, sigma / seconds
        relative = np.hypot(rate_sigma / closing, scale_sigma)
        contact = end / closing
        contact_sigma = np.hypot(rate_sigma / closing, sigma / end)
    metric = a["metric"].astype(bool) & b["metric"].astype(bool)
    nearing: Rule = (word != "approaching", "not_approaching")
    speed_rules: list[Rule] = [
        *base,
        nearing,
        (~metric, "no_metric_scale"),
        (~(closing >= _CLOSING_MPS), "too_slow"),
        (~(relative <= margins.max_relative_sigma), "uncertain"),
    ]
    contact_rules: list[Rule] = [
        *base,
        nearing,
        (~(contact <= _LONGEST_CONTACT_S), "too_far_off"),
        (contact < _SHORTEST_CONTACT_S, "all_but_there"),
        (~(contact_sigma <= margins.max_relative_sigma), "uncertain"),
    ]
    kmh = KMH_PER_MPS * closing
    return [
        make("range_change", "range_change", a, reasons([*base, (is_none(word), "no_clear_change")]), "", word=word, **which),
        make("closing_speed", "closing_speed", a, reasons(speed_rules), "", **_normal(kmh, relative), **which),
        make("time_to_contact", "time_to_contact", a, reasons(contact_rules), "", **_normal(contact, contact_sigma), **which),
    ]  # fmt: skip


def _normal(value: np.ndarray, relative: np.ndarray) -> Columns:
    """Return a number with the 5 and 95 % quantiles of a normal distribution."""
    return {"value": value, "low": value * (1 - _Z95 * relative), "high": value * (1 + _Z95 * relative)}


def _distance(a: Columns, b: Columns, states: Columns, time_s: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places_at(states, a["track_id"], time_s) - places_at(states, b["track_id"], time_s), axis=-1)
