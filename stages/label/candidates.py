"""Candidates of questions, and those of ST-VLM's seven kinds: the numbers behind each, and why some are not asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.labels import Kinematics
from worldline.kinematics.definitions import (
    KMH_PER_MPS,
    angle_between,
    clock_hour,
    relative_direction_word,
    wrap_angle,
)
from worldline.kinematics.words import choose, is_none

_Z90 = 3.29  # standard deviations between the 5 % and the 95 % quantile of a normal distribution


@dataclass(frozen=True)
class Candidates:
    """Possible questions of one kind in one bank of wordings, one entry per row.

    Attributes:
        kind: what rows of questions are grouped by. bank: key of `WORDINGS`.
        reference: what a direction is told against, see `QUESTIONS`.
        first, second: `[K]` track ids, second -1 where there is none.
        start_s, end_s: `[K]` the window that is asked about.
        value, low, high, end_value: `[K]` number behind the answer, its 5 and 95 % quantiles, end of an interval.
        word: `[K]` word of the answer ("left", "same") or of the direction asked for; or None.
        subject: `[K]` what the question is about where it is no track ("cars", "the green car"), or None.
        code: `[K]` whole numbers that tell apart candidates of the same objects and window.
        reason: `[K]` why it is not asked, or None.
    """

    kind: str
    bank: str
    reference: str
    first: np.ndarray
    second: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    end_value: np.ndarray
    word: np.ndarray
    subject: np.ndarray
    code: np.ndarray
    reason: np.ndarray


@dataclass(frozen=True)
class Margins:
    """How clear an answer must be.

    Attributes:
        max_relative_sigma: of a distance or speed, scale included.
        min_ratio: larger over smaller, in comparisons.
        min_sigmas: difference over its standard deviation (the scale's error is common and does not count).
        max_direction_sigma: standard deviation over length of a displacement whose direction is compared.
        max_clock_sigma_hours: of a movement direction.
        max_turn_sigma_hours: of the change of direction by which a turn is named.
        min_interval_s: shortest interval asked for. max_span_s: longest window of such a question.
    """

    max_relative_sigma: float = 0.2
    min_ratio: float = 1.25
    min_sigmas: float = 2.0
    max_direction_sigma: float = 0.15
    max_clock_sigma_hours: float = 0.5
    max_turn_sigma_hours: float = 0.33
    min_interval_s: float = 1.0
    max_span_s: float = 20.0


Rule = tuple[np.ndarray, str | np.ndarray]  # where it applies, and the reason


def reasons(rules: Sequence[Rule]) -> np.ndarray:
    """Return the first reason that applies, None where none does."""
    return choose([applies for applies, _ in rules], [text for _, text in rules])


def make(
    kind: str, bank: str, windows: dict[str, np.ndarray], reason: np.ndarray, reference: str = "", **values: np.ndarray
) -> Candidates:
    """Return candidates of one bank; what is not among `values` is empty, and the first object is the windows' track."""
    count = len(reason)
    blank = {name: np.full(count, np.nan) for name in ("value", "low", "high", "end_value")}
    blank |= {name: np.full(count, None, object) for name in ("word", "subject")}
    defaults = blank | {"second": np.full(count, -1), "code": np.zeros(count, np.int64)}
    window = {"first": windows["track_id"], "start_s": windows["start_s"], "end_s": windows["end_s"]}
    return Candidates(kind=kind, bank=bank, reference=reference, reason=reason, **(defaults | window | values))


def single_candidates(windows: dict[str, np.ndarray], camera_terms: bool, margins: Margins) -> list[Candidates]:
    """Return distance, speed and direction of every window.

    Args:
        windows: `KINEMATIC_WINDOWS` as arrays.
        camera_terms: ask directions of located objects too in the camera's view (there is no gravity for a clock).
        margins: how clear an answer must be.
    """
    rejected = ~is_none(windows["rejected"])
    still = windows["state"] != "moving"
    base: list[Rule] = [(rejected, windows["rejected"]), (still, windows["state"])]
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = (windows["distance_p95"] - windows["distance_p5"]) / _Z90 / windows["distance_p50"]
    vague = ~(sigma <= margins.max_relative_sigma)
    metric = [*base, (~windows["metric"].astype(bool), "no_metric_scale"), (vague, "uncertain")]
    distance = {name: windows[f"distance_{q}"] for name, q in (("value", "p50"), ("low", "p5"), ("high", "p95"))}
    speed = {name: KMH_PER_MPS * windows[f"speed_{q}"] for name, q in (("value", "p50"), ("low", "p5"), ("high", "p95"))}
    unclear = np.isnan(windows["clock"])
    turning = ~(windows["clock_sigma_hours"] <= margins.max_clock_sigma_hours)
    clock = [*base, (unclear, "direction_undefined"), (turning, "uncertain")]
    hours = {"value": windows["clock"]}
    unlocated = windows["rejected"] == "no_world_position"
    in_view = unlocated | (camera_terms & ~rejected & (windows["track_id"] != 0))
    unseen = [(~in_view, "told_as_clock_direction"), (is_none(windows["image_motion"]), "direction_undefined")]
    chosen = np.flatnonzero(in_view)
    seen = {name: values[chosen] for name, values in windows.items()}
    return [
        make("traveled_distance", "traveled_distance", windows, reasons(metric), "", **distance),
        make("traveling_speed", "traveling_speed", windows, reasons(metric), "", **speed),
        make("movement_direction", "movement_direction", windows, reasons(clock), "self_initial", **hours),
        make(
            "movement_direction",
            "movement_direction.image",
            seen,
            reasons(unseen)[chosen],
            "camera",
            word=seen["image_motion"],
        ),
    ]


def pair_candidates(
    windows: dict[str, np.ndarray], states: dict[str, np.ndarray], scale_sigma: float, margins: Margins
) -> list[Candidates]:
    """Return comparisons of every two objects in the same window; they need no scale."""
    a, b = window_pairs(windows)
    rejected = ~(is_none(a["rejected"]) & is_none(b["rejected"]))
    still = (a["state"] != "moving") | (b["state"] != "moving")
    base = [(rejected, "window_rejected"), (still, "not_both_moving")]
    which = {"first": a["track_id"], "second": b["track_id"]}
    result = []
    for kind, quantity in (("distance_comparison", "distance"), ("speed_comparison", "speed")):
        mine, other = a[f"{quantity}_p50"], b[f"{quantity}_p50"]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = mine / other
            sigma = np.hypot(noise_sigma(a, quantity, scale_sigma), noise_sigma(b, quantity, scale_sigma))
            close = ~(np.maximum(ratio, 1 / ratio) >= margins.min_ratio)
            noisy = ~(np.abs(mine - other) > margins.min_sigmas * sigma)
        reason = reasons([*base, (close, "ratio_below_margin"), (noisy, "difference_within_noise")])
        result.append(make(kind, kind, a, reason, "", value=ratio, **which))
    moved = displacements(a, states), displacements(b, states)
    word = relative_direction_word(angle_between(*moved))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = [noise_sigma(side, "displacement", scale_sigma) / side["displacement_p50"] for side in (a, b)]
    vague = ~(np.maximum(*spread) <= margins.max_direction_sigma)
    reason = reasons([*base, (vague, "uncertain"), (is_none(word), "angle_between_classes")])
    result.append(make("direction_comparison", "direction_comparison", a, reason, "", word=word, **which))
    chosen = (a["rejected"] == "no_world_position") & (b["rejected"] == "no_world_position")
    seen, other_seen = ({name: values[chosen] for name, values in side.items()} for side in (a, b))
    result.append(_seen_pairs(seen, other_seen))
    return result


def window_pairs(windows: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the windows of every two tracks at the same time, each pair once, that of the smaller id first."""
    order = np.lexsort((windows["track_id"], windows["end_s"], windows["start_s"]))
    start = windows["start_s"][order]
    after = np.searchsorted(start, start, side="right") - np.arange(len(start)) - 1
    first = np.repeat(np.arange(len(start)), after)
    second = np.arange(len(first)) - np.repeat(np.cumsum(after) - after, after) + first + 1
    return rows_of(windows, order[first]), rows_of(windows, order[second])


def rows_of(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the chosen rows of every column."""
    return {name: values[rows] for name, values in columns.items()}


def noise_sigma(windows: dict[str, np.ndarray], quantity: str, scale_sigma: float) -> np.ndarray:
    """Return the standard deviation of a quantity without the share of the scale, which all tracks have in common."""
    total = (windows[f"{quantity}_p95"] - windows[f"{quantity}_p5"]) / _Z90
    common = 2 * np.sinh(_Z90 / 2 * scale_sigma) / _Z90 * windows[f"{quantity}_p50"]  # the scale's draws are log-normal
    return np.sqrt(np.maximum(total**2 - common**2, (0.1 * total) ** 2))


def displacements(windows: dict[str, np.ndarray], states: dict[str, np.ndarray]) -> np.ndarray:
    """Return `[K, 3]` displacement of each window from the states' positions."""
    first, last = (places_at(states, windows["track_id"], windows[name]) for name in ("start_s", "end_s"))
    return last - first


def places_at(states: dict[str, np.ndarray], track_id: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Return `[K, 3]` position of each track at a grid time, NaN where there is none."""
    return np.stack(list(states_at(states, track_id, time_s, ("x", "y", "z")).values()), -1)


MOTION = ("x", "y", "range", "bearing_rad", "heading_rad", "speed_p5", "speed_p50", "speed_p95")


def states_at(
    states: dict[str, np.ndarray], track_id: np.ndarray, time_s: np.ndarray, names: tuple[str, ...] = MOTION
) -> dict[str, np.ndarray]:
    """Return the numbers `[K]` of each track's state at a grid time, NaN where there is none."""
    if not len(states["time_s"]):
        return {name: np.full(len(time_s), np.nan) for name in names}
    key = states["track_id"] * 1e6 + np.rint(states["time_s"] * 1000) / 1000
    wanted = track_id * 1e6 + np.rint(time_s * 1000) / 1000
    index = np.clip(np.searchsorted(key, wanted - 1e-4), 0, len(key) - 1)
    there = np.abs(key[index] - wanted) < 1e-3
    return {name: np.where(there, states[name][index], np.nan) for name in names}


def _seen_pairs(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Candidates:
    """Return comparisons of image motion of objects without world positions."""
    mine, other = a["image_motion"], b["image_motion"]
    same = mine == other
    opposite = np.zeros(len(mine), bool)
    for pair in (("left", "right"), ("toward", "away")):
        opposite |= ((mine == pair[0]) & (other == pair[1])) | ((mine == pair[1]) & (other == pair[0]))
    known = ~(is_none(mine) | is_none(other) | (mine == "none") | (other == "none"))
    word = choose([same & known, opposite], ["same", "opposite"])
    reason = choose([is_none(word)], ["direction_undefined"])
    which = {"first": a["track_id"], "second": b["track_id"]}
    return make("direction_comparison", "direction_comparison.image", a, reason, "camera", word=word, **which)


def interval_candidates(
    labels: np.ndarray, grid: np.ndarray, ids: np.ndarray, blocked: np.ndarray, bank: str, askable: int, margins: Margins
) -> Candidates:
    """Return one candidate per run of equal direction in each labelled span of a track.

    Args:
        labels: `[N, G]` direction per grid time: codes from 1, 0 where there is none.
        grid: `[G]` seconds.
        ids: `[N]` track ids.
        blocked: `[N, G]` grid times inside a rejected window.
        bank: wordings; the codes are clock hours, or indices from 1 into the words of seen directions.
        askable: codes above it are part of a span but not asked about (standing still, in between).
        margins: shortest interval and longest span.
    """
    reach = round(margins.max_span_s / (grid[1] - grid[0])) if len(grid) > 1 else 0
    padded = np.zeros((len(labels), len(grid) + 1), labels.dtype)
    padded[:, : len(grid)] = labels
    flat = padded.ravel()  # a zero ends every row, so runs never cross rows
    row = np.repeat(np.arange(len(labels)), len(grid) + 1)
    change = np.append(True, flat[1:] != flat[:-1]) if len(flat) else np.zeros(0, bool)
    begin = np.flatnonzero(change)
    end = np.append(begin[1:], len(flat)) - 1
    spans = np.append(True, (flat[1:] > 0) != (flat[:-1] > 0)) if len(flat) else np.zeros(0, bool)
    span_begin = np.flatnonzero(spans)[np.cumsum(spans) - 1] if len(flat) else np.zeros(0, int)
    span_ends = np.append(np.flatnonzero(spans)[1:], len(flat)) - 1
    span_end = np.minimum(span_ends[np.cumsum(spans) - 1], span_begin + reach) if len(flat) else np.zeros(0, int)
    keep = (flat[begin] > 0) & (flat[begin] <= askable) & (begin < span_end[begin])
    begin, end = begin[keep], end[keep]
    low, high = span_begin[begin], span_end[begin]
    end = np.minimum(end, high)
    offset = row[begin] * (len(grid) + 1)
    seconds = grid[end - offset] - grid[begin - offset] if len(begin) else np.zeros(0)
    code = flat[begin]
    repeats = np.zeros(len(begin), int)
    _, group, size = np.unique(low * 64 + code, return_inverse=True, return_counts=True)
    repeats = size[group] if len(begin) else repeats
    stops = np.concatenate([[0], np.cumsum(np.pad(blocked, ((0, 0), (0, 1))).ravel())])
    rejected = stops[high + 1] - stops[low] > 0
    rules: list[Rule] = [
        (rejected, "window_rejected"),
        ((begin == low) & (end == high), "constant_direction"),
        (seconds < margins.min_interval_s - 1e-9, "interval_too_short"),
        (repeats > 1, "interval_not_unique"),
    ]
    window = {"track_id": ids[row[begin]], "start_s": grid[low - offset], "end_s": grid[high - offset]}
    times = {"value": grid[begin - offset], "end_value": grid[end - offset]}
    reference = "camera" if bank.endswith(".image") else "self_initial"
    return make("direction_timestamp", bank, window, reasons(rules), reference, code=code.astype(np.int64), **times)


def clock_timeline(kinematics: Kinematics, states: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return clock hours relative to the start of each moving span `[N, G]` (0 where not moving), the grid and the ids."""
    if not len(states["time_s"]):
        return np.zeros((0, 0), int), np.zeros(0), np.zeros(0, int)
    ids, row = np.unique(states["track_id"].astype(int), return_inverse=True)
    start = states["time_s"].min()
    column = np.rint((states["time_s"] - start) / kinematics.grid_s).astype(int)
    grid = start + kinematics.grid_s * np.arange(column.max() + 1)
    heading = np.full((len(ids), len(grid)), np.nan)
    heading[row, column] = np.where(states["state"] == "moving", states["heading_rad"], np.nan)
    known = np.isfinite(heading)
    edge = known.copy()
    edge[:, 1:] &= ~known[:, :-1]
    begin = np.maximum.accumulate(np.where(edge, np.arange(len(grid)), 0), axis=1)
    angle = -wrap_angle(heading - np.take_along_axis(heading, begin, 1))
    return np.where(known, clock_hour(np.nan_to_num(angle)), 0), grid, ids
