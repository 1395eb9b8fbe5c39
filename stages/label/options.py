"""Options of multiple choices, made from the answers: wrong ones that nothing but the clip tells from the right one.

The right option stands at every place equally often, and where options are numbers it is the smallest, the second, ... of
them equally often, so that nobody who has not seen the clip can guess it. All is drawn from the content of the question.
"""

import numpy as np

from stages.label.candidates import Candidates
from stages.label.phrases import mix
from stages.label.rounding import DISTANCE_STEPS, SPEED_STEPS, in_text, rounded_text
from stages.label.wordings import ANSWERS
from worldline.kinematics.words import choose

_COUNT = 4
_LADDER = np.array([0.26, 0.4, 0.65, 1.0, 1.5, 2.5, 3.9])  # a multiple choice is four neighbours of it, the answer among them
_CLOSEST = 0.25  # no wrong number lies within this share of the right one
_CLOCK_OFFSETS = np.array([-5, -4, -3, -2, 2, 3, 4, 5])
_SHIFTS = 9  # places of equally long intervals, from one end of the span to the other
_SALT = 77


def make_options(
    group: Candidates, rows: np.ndarray, answer: np.ndarray, value: np.ndarray, names: list[np.ndarray], content: np.ndarray
) -> np.ndarray:
    """Return `[K, n]` options, None throughout where there are none; the answer is one of them.

    Args:
        group: candidates of one bank.
        rows: `[K]` those that are asked.
        answer: `[K]` answers as texts.
        value: `[K]` numbers behind them.
        names: `[K]` phrases of both objects.
        content: `[K]` uint64 hashes of the questions' content, from which everything is drawn.
    """
    if not len(rows):
        return np.full((0, 1), None, object)
    draw = mix(_SALT, content.view(np.int64))
    match group.kind:
        case "traveled_distance":
            texts = _scaled(value, (group.high - group.low)[rows] / 3.29, DISTANCE_STEPS, " meters", answer, draw)
        case "time_to_contact":
            texts = _scaled(value, (group.high - group.low)[rows] / 3.29, DISTANCE_STEPS, " seconds", answer, draw)
        case "traveling_speed" | "closing_speed":
            texts = _scaled(value, (group.high - group.low)[rows] / 3.29, SPEED_STEPS, " km/h", answer, draw)
        case "distance_comparison" | "speed_comparison":
            texts = np.stack(names, 1)
        case "direction_timestamp":
            texts = _shifted(group, rows, answer, draw)
        case _ if group.bank in ANSWERS:
            texts = np.tile(np.array(list(ANSWERS[group.bank].values()), object), (len(rows), 1))
        case _ if answer[0].endswith("clock"):
            order = _ranks(draw, len(_CLOCK_OFFSETS))
            offsets = np.concatenate([np.zeros((len(rows), 1)), _CLOCK_OFFSETS[order[:, : _COUNT - 1]]], 1)
            hours = (np.nan_to_num(value)[:, None] + offsets - 1) % 12 + 1
            texts = in_text("%d o'clock", hours)
        case _:
            number = np.nan_to_num(value).astype(int)
            below = (draw % np.uint64(_COUNT)).astype(int)
            texts = in_text("%d", np.maximum(number - below, 0)[:, None] + np.arange(_COUNT))
    return np.take_along_axis(texts, _ranks(mix(_SALT, draw.view(np.int64)), texts.shape[1]), 1)


def _ranks(draw: np.ndarray, count: int) -> np.ndarray:
    """Return `[K, count]` random permutations."""
    return mix(np.arange(count), draw.view(np.int64)[:, None]).argsort(1)


def _scaled(
    value: np.ndarray, sigma: np.ndarray, steps: tuple[float, float, float], unit: str, answer: np.ndarray, draw: np.ndarray
) -> np.ndarray:
    """Return four numbers of a ladder around each value; none where rounding brings them too near to each other."""
    first = (draw % np.uint64(_COUNT)).astype(int)[:, None] + np.arange(_COUNT)
    factors = _LADDER[first]
    numbers = rounded_text((value[:, None] * factors).ravel(), np.repeat(sigma, _COUNT), steps).reshape(-1, _COUNT)
    numbers = np.where(factors == 1, np.array([text.removesuffix(unit) for text in answer], object)[:, None], numbers)
    told = numbers.astype(float)
    right = np.where(factors == 1, told, 0).sum(1)[:, None]
    near = ((np.abs(told - right) <= _CLOSEST * right) & (factors != 1)).any(1) | (np.diff(told, axis=1) <= 0).any(1)
    return choose([np.broadcast_to(~near[:, None], numbers.shape)], [numbers + unit])


def _shifted(group: Candidates, rows: np.ndarray, answer: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """Return each interval and three as long elsewhere in its span; none where it leaves no room for them.

    Their temporal intersection over union with the right one is below a quarter.
    """
    start, end = group.start_s[rows], group.end_s[rows]
    begin, length = group.value[rows], (group.end_value - group.value)[rows]
    step = (end - length - start)[:, None] / (_SHIFTS - 1)
    places = np.round((start[:, None] + step * np.arange(_SHIFTS)) * 2) / 2
    fresh = np.concatenate([np.ones((len(rows), 1), bool), np.diff(places, axis=1) > 0], 1)
    usable = fresh & (np.abs(places - begin[:, None]) >= 0.6 * length[:, None])
    order = _ranks(draw, _SHIFTS)
    usable_first = np.argsort(~np.take_along_axis(usable, order, 1), 1, kind="stable")[:, : _COUNT - 1]
    chosen = np.take_along_axis(places, np.take_along_axis(order, usable_first, 1), 1)
    texts = "from " + in_text("%.1f", chosen) + " to " + in_text("%.1f", chosen + length[:, None]) + " seconds"
    texts = np.concatenate([answer[:, None], texts], 1)
    return choose([np.broadcast_to((usable.sum(1) >= _COUNT - 1)[:, None], texts.shape)], [texts])
