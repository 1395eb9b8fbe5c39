"""Candidates of VLM4D's continuity kinds: how often a thing stops or turns while it is seen, and in which order it turns."""

import numpy as np

from stages.label.candidates import Candidates, Margins, Rule, make, reasons
from stages.label.view_candidates import heading_sigma
from worldline.kinematics.definitions import wrap_angle
from worldline.kinematics.words import choose

TURN_RAD = np.radians(30)  # a run of turning to one side counts as a turn from here on,
NO_TURN_RAD = np.radians(15)  # and as none up to here; between them nothing is told
_TURNING_RATE = np.radians(5)  # rad/s; slower changes of heading are none
_MAX_HEADING_SIGMA = (TURN_RAD - NO_TURN_RAD) / 2 / np.sqrt(2)  # so that two sigma of a difference fit between the two
_LONGEST_DOUBT_S = 1.5


def timeline_candidates(
    states: dict[str, np.ndarray],
    blocked: np.ndarray,
    grid: np.ndarray,
    ids: np.ndarray,
    gravity: bool,
    scale_sigma: float,
    margins: Margins,
) -> list[Candidates]:
    """Return one candidate of each kind per stretch of time in which a track is known throughout.

    A stop is a change from "moving" to "static", which have hysteresis between them (`KinematicsConfig`). A turn is a run of
    headings that change to the same side, by `TURN_RAD` in all.

    Args:
        states: `KINEMATIC_STATES` as arrays, sorted by track and time.
        blocked: `[N, G]` grid times inside a rejected window.
        grid: `[G]` seconds.
        ids: `[N]` track ids.
        gravity: whether the direction of gravity is known; there are no headings without it.
        scale_sigma: relative error of the scale.
        margins: longest stretch.
    """
    step = grid[1] - grid[0] if len(grid) > 1 else 1.0
    shape = (len(ids), len(grid))
    row = np.searchsorted(ids, states["track_id"])
    column = np.rint((states["time_s"] - (grid[0] if len(grid) else 0.0)) / step).astype(int)
    state = np.zeros(shape, int)  # 1 moving, 2 static, 3 undecided, 0 unknown
    state[row, column] = np.select([states["state"] == "moving", states["state"] == "static"], [1, 2], 3)
    heading, doubt = np.full(shape, np.nan), np.zeros(shape)
    heading[row, column] = states["heading_rad"]
    doubt[row, column] = np.where(np.isfinite(states["heading_rad"]), heading_sigma(states, scale_sigma), 0.0)

    begin, end = _stretches((state > 0) & ~blocked, round(margins.max_span_s / step))
    decided = np.where(state == 3, 0, state)
    decided = _carried(decided, decided > 0)
    stops = np.zeros(shape, int)
    stops[:, 1:] = (decided[:, 1:] == 2) & (decided[:, :-1] == 1)
    heading = _carried(heading, np.isfinite(heading))
    change = np.zeros(shape)
    change[:, 1:] = np.nan_to_num(wrap_angle(np.diff(heading, axis=1)))
    sides = np.where(np.abs(change) >= _TURNING_RATE * step, np.sign(change), 0).astype(int)
    gap = (sides[:, 1:-1] == 0) & (sides[:, :-2] == sides[:, 2:])
    sides[:, 1:-1] = np.where(gap, sides[:, :-2], sides[:, 1:-1])  # one calm step does not end a turn
    fresh = np.zeros(sides.size + 1, bool)
    fresh[begin + 1] = True  # the first change belongs to what came before the stretch
    run_begin, run_end, side, turned = _turn_runs(sides.ravel(), change.ravel(), fresh[:-1], len(grid))
    is_turn, unsure = turned >= TURN_RAD, (turned > NO_TURN_RAD) & (turned < TURN_RAD)

    owner = np.searchsorted(begin, run_begin - 1, side="right") - 1
    inside = (owner >= 0) & (run_end <= end[np.maximum(owner, 0)]) if len(begin) else np.zeros(len(run_begin), bool)
    touching = (owner >= 0) & (run_begin <= end[np.maximum(owner, 0)]) if len(begin) else inside
    count = len(begin)
    turns = np.bincount(owner[inside & is_turn], minlength=count)
    unclear = np.bincount(owner[touching & (unsure | (is_turn & ~inside))], minlength=count) > 0
    order = _first_two(owner[inside & is_turn], side[inside & is_turn], count)
    total = np.concatenate([[0], np.cumsum(stops.ravel())])
    stopped = total[end + 1] - total[begin + 1] if count else np.zeros(0, int)

    duration = (end - begin) * step
    moving = np.concatenate([[0], np.cumsum((state == 1).ravel())])
    moves = (moving[end + 1] - moving[begin] > 0) if count else np.zeros(0, bool)
    undecided = _longest(state.ravel() == 3, begin, end) * step
    vague = _largest(np.nan_to_num(doubt, nan=np.inf).ravel(), begin, end)
    base: list[Rule] = [
        (duration < 2 * margins.min_interval_s, "too_short"),
        (~moves, "never_moving"),
        (undecided > _LONGEST_DOUBT_S, "undecided"),
    ]
    upright: Rule = (np.full(count, not gravity), "no_gravity")
    turn_rules: list[Rule] = [*base, upright, (vague > _MAX_HEADING_SIGMA, "uncertain"), (unclear, "turn_between_classes")]
    window = {"track_id": ids[begin // len(grid)] if count else ids[:0], "start_s": grid[begin % max(len(grid), 1)]}
    window["end_s"] = grid[end % max(len(grid), 1)]
    ordered: list[Rule] = [*turn_rules, (turns > 2, "more_than_two_turns")]
    return [
        make("stop_count", "stop_count", window, reasons(base), value=stopped.astype(float)),
        make("turn_count", "turn_count", window, reasons(turn_rules), "self", value=turns.astype(float)),
        make("turn_order", "turn_order", window, reasons(ordered), "self", word=order),
    ]


def _stretches(known: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first and last flat index of each run of `known`, cut off after `longest` steps."""
    edges = np.diff(np.pad(known, ((0, 0), (1, 1))).astype(int), axis=1)
    row, column = np.nonzero(edges[:, :-1] == 1)
    end = np.nonzero(edges[:, 1:] == -1)[1]
    width = known.shape[1]
    return row * width + column, row * width + np.minimum(end, column + longest)


def _carried(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return values `[N, G]` with the last known one carried on."""
    last = np.maximum.accumulate(np.where(known, np.arange(values.shape[1]), 0), axis=1)
    return np.take_along_axis(values, last, 1)


def _turn_runs(
    sides: np.ndarray, change: np.ndarray, fresh: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return first and last flat index, side (1 left, -1 right) and angle of every run of turning to the same side."""
    if not len(sides):
        nothing = np.zeros(0, int)
        return nothing, nothing, nothing, np.zeros(0)
    cut = np.append(True, sides[1:] != sides[:-1]) | fresh | (np.arange(len(sides)) % width == 0)
    begin = np.flatnonzero(cut)
    end = np.append(begin[1:], len(sides)) - 1
    total = np.abs(np.add.reduceat(change, begin))
    turning = sides[begin] != 0
    return begin[turning], end[turning], sides[begin[turning]], total[turning]


def _first_two(owner: np.ndarray, side: np.ndarray, count: int) -> np.ndarray:
    """Return "none", "left", "left_right" ... for each of `count` stretches: the sides of its first two turns."""
    first = np.searchsorted(owner, np.arange(count))
    number = np.bincount(owner, minlength=count)
    padded = np.append(side, [0, 0])
    one, two = np.where(number > 0, padded[first], 0), np.where(number > 1, padded[first + 1], 0)
    names = {1: "left", -1: "right"}
    conditions = [one == 0] + [(one == a) & (two == b) for a in names for b in (0, *names)]
    words = ["none"] + [names[a] + (f"_{names[b]}" if b else "") for a in names for b in (0, *names)]
    return choose(conditions, words)


def _longest(flags: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the length of the longest run of flags inside each stretch."""
    index, start = np.arange(len(flags)), np.zeros(len(flags), int)
    start[begin] = begin
    clear = np.maximum.accumulate(np.maximum(np.where(flags, -1, index), start - 1))
    return _largest(np.where(flags, index - clear, 0), begin, end)


def _largest(values: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the largest of the values from `begin` to `end` of each stretch."""
    if not len(begin):
        return np.zeros(0)
    return np.maximum.reduceat(np.append(values, 0), np.stack([begin, end + 1], 1).ravel())[::2]
