"""Questions and answers about motion: the kinds of ST-VLM (arXiv 2503.19355) and of VLM4D (arXiv 2508.02095).

They are asked only where the answer is sure: every possible question is a candidate, and one that is not asked is counted
under its reason. Distances and speeds need a trusted scale, directions need gravity, comparisons need neither. Objects
without any world position (a camera on a tripod, no scale) get directions in the camera's view alone. Each question can
also be put as a multiple choice.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.label.candidates import (
    Candidates,
    Margins,
    clock_timeline,
    interval_candidates,
    pair_candidates,
    rows_of,
    single_candidates,
)
from stages.label.image_motion import image_motion_word, image_rates
from stages.label.options import make_options
from stages.label.phrases import mix, referring_phrases, render
from stages.label.relation_candidates import relation_candidates
from stages.label.rounding import DISTANCE_STEPS, SPEED_STEPS, in_text, rounded_text
from stages.label.scene_candidates import absent_candidates, count_candidates
from stages.label.timeline_candidates import timeline_candidates
from stages.label.view_candidates import view_candidates
from stages.label.wordings import ANSWERS, COUNTED_MOTIONS, IMAGE_WORDINGS, SEEN_DIRECTIONS, WORDINGS
from worldline.kinematics.words import choose, is_none

_UNITS = {
    "traveled_distance": "m", "traveling_speed": "km/h", "movement_direction": "o'clock", "direction_timestamp": "s",
    "clock_bearing": "o'clock", "clock_heading": "o'clock", "closing_speed": "km/h", "time_to_contact": "s",
    "stop_count": "count", "turn_count": "count", "counting": "count",
}  # fmt: skip
_COMPARISONS = ("distance_comparison", "speed_comparison", "direction_comparison")
_SEEN_CODES = ("left", "right", "toward", "away")


@dataclass(frozen=True)
class QuestionsConfig:
    """What is asked.

    Attributes:
        max_per_kind: at most so many questions of a bank of wordings.
        absent_share: share of all questions that ask for an object that is not there, as far as there are candidates.
        max_answer_share: no answer in words, and no clock hour, takes a larger share of its kind than this (a kind with
            one answer only keeps two questions): most objects go straight on, and "12 o'clock" would teach nothing.
        include_camera: ask about the camera's own motion too.
        image_threshold: rate of bearing (rad/s) or of log size (1/s) that counts as image motion.
        margins: how clear an answer must be.
    """

    max_per_kind: int = 200
    max_answer_share: float = 0.4
    absent_share: float = 0.1
    include_camera: bool = True
    image_threshold: float = 0.03
    margins: Margins = field(default_factory=Margins)


@stage("label.questions", version=2)
def ask_questions(
    kinematics: Kinematics, tracks: Tracks, path: CameraPath, config: QuestionsConfig, *, seed: int, progress: Progress
) -> Questions:
    """Ask what the kinematics can answer.

    Args:
        kinematics: states and windows.
        tracks: boxes, colours and classes of the same objects, for the phrases that point at them.
        path: frame times and calibration of the camera.
        config: quotas and margins.
        seed: of the choice of wordings, of who is named first and of what a quota keeps; each derives from the
            question's own content, never from its place in the list.
        progress: called per kind.

    Returns:
        Questions sorted by kind and id, and counts of all candidates that were not asked.
    """
    windows, states = _arrays(kinematics.windows), _arrays(kinematics.states)
    if not config.include_camera:
        windows = {name: values[windows["track_id"] != EGO_TRACK_ID] for name, values in windows.items()}
        states = {name: values[states["track_id"] != EGO_TRACK_ID] for name, values in states.items()}
    gravity, sigma, margins = kinematics.gravity_source != "none", kinematics.scale_sigma, config.margins
    candidates = single_candidates(windows, not gravity, margins)
    candidates += pair_candidates(windows, states, sigma, margins)
    candidates += _interval_kinds(kinematics, tracks, path, windows, states, config)
    seen = view_candidates(windows, states, path, gravity, sigma, margins)
    candidates += seen + relation_candidates(windows, states, path, gravity, sigma, margins)
    objects = rows_of(windows, np.flatnonzero(windows["track_id"] != EGO_TRACK_ID))
    candidates += [count_candidates(objects, seen[0], tracks), absent_candidates(windows, tracks)]
    asked: list[_BankQuestions] = []
    refused: Counter[tuple[str, str]] = Counter()
    named = _name_all(candidates, tracks, path)
    contents = _contents(candidates, [np.flatnonzero(is_none(reason)) for _, reason in named], seed)
    for index, (group, (phrases, reason), content) in enumerate(zip(candidates, named, contents, strict=True)):
        most = config.max_per_kind
        if group.kind == "absent_object":  # the last of the kinds
            others = sum(len(part.rows) for part in asked)
            most = min(most, round(others * config.absent_share / (1 - config.absent_share)))
        rows, content = _choose(group, reason, content, most, config.max_answer_share)
        asked.append(_ask(group, rows, content, [phrase[rows] for phrase in phrases]))
        refused.update({(group.kind, why): count for why, count in Counter(reason.tolist()).items() if why is not None})
        progress(index + 1, len(candidates), group.kind)
    kinds = sorted(refused)
    counted = {
        "kind": [kind for kind, _ in kinds],
        "reason": [why for _, why in kinds],
        "count": [refused[kind] for kind in kinds],
    }
    return Questions(rows=_table(asked, kinematics, path), rejections=make_table(REJECTIONS, counted))


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    """Return columns as arrays: numbers as float64 with NaN for null, words as objects with None."""
    result = {}
    for name in table.schema.names:
        column = table[name]
        if pa.types.is_string(column.type):
            result[name] = column.to_numpy(zero_copy_only=False).astype(object)
        else:
            result[name] = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return result


def _interval_kinds(
    kinematics: Kinematics,
    tracks: Tracks,
    path: CameraPath,
    windows: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    config: QuestionsConfig,
) -> list[Candidates]:
    """Return candidates about longer spans: stops and turns, and "when does it move toward", on the clock and as seen."""
    hours, grid, ids = clock_timeline(kinematics, states)
    blocked, gravity = _blocked(windows, ids, grid), kinematics.gravity_source != "none"
    result = timeline_candidates(states, blocked, grid, ids, gravity, kinematics.scale_sigma, config.margins)
    if gravity:
        result.append(interval_candidates(hours, grid, ids, blocked, "direction_timestamp", 12, config.margins))
    unlocated = np.unique(windows["track_id"][windows["rejected"] == "no_world_position"]).astype(int)
    unlocated = unlocated[unlocated != EGO_TRACK_ID]
    samples = _arrays(tracks.samples)
    mine = np.isin(samples["track_id"], unlocated)
    samples = {name: values[mine] for name, values in samples.items()}
    row = np.searchsorted(unlocated, samples["track_id"])
    steps = int((path.times_s[-1] - path.times_s[0]) / kinematics.grid_s + 1e-6) + 1 if len(path.times_s) else 0
    grid = (path.times_s[0] if len(path.times_s) else 0.0) + kinematics.grid_s * np.arange(steps)
    bearing, growth = image_rates(row, samples["time_s"], samples, path, len(unlocated), grid)
    words = image_motion_word(bearing, growth, config.image_threshold, 1.5)
    codes = np.select([words == word for word in _SEEN_CODES], np.arange(1, len(_SEEN_CODES) + 1), len(_SEEN_CODES) + 1)
    codes = np.where(np.isfinite(bearing), codes, 0)
    free = windows["rejected"] == "no_world_position"
    blocked = _blocked({name: values[~free] for name, values in windows.items()}, unlocated, grid)
    result.append(
        interval_candidates(codes, grid, unlocated, blocked, "direction_timestamp.image", len(_SEEN_CODES), config.margins)
    )
    return result


def _blocked(windows: dict[str, np.ndarray], ids: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return `[N, G]` grid times inside a rejected window of the track (its ends, seen in part, do not count)."""
    change = np.zeros((len(ids), len(grid) + 1))
    reasons = windows["rejected"]
    bad = ~is_none(reasons) & (reasons != "partly_seen") & np.isin(windows["track_id"], ids)
    row = np.searchsorted(ids, windows["track_id"][bad])
    np.add.at(change, (row, np.searchsorted(grid, windows["start_s"][bad] - 1e-6)), 1)
    np.add.at(change, (row, np.searchsorted(grid, windows["end_s"][bad] + 1e-6)), -1)
    return np.cumsum(change, axis=1)[:, : len(grid)] > 0


def _name_all(candidates: list[Candidates], tracks: Tracks, path: CameraPath) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Return the phrases of both objects of every candidate, and why it is not asked by now; all groups are named at once."""
    places: list[tuple[int, int, np.ndarray]] = []
    phrases = [[np.full(len(group.reason), None, object) for _ in range(2)] for group in candidates]
    for number, group in enumerate(candidates):
        for side, ids in enumerate((group.first, group.second)):
            places.append((number, side, np.flatnonzero(is_none(group.reason) & (ids >= 0))))

    asked = [
        np.stack([(group.first, group.second)[side], group.start_s, group.end_s])[:, rows]
        for number, side, rows in places
        for group in (candidates[number],)
    ]
    ids, start_s, end_s = np.concatenate(asked, axis=1)
    phrase, why = referring_phrases(tracks, path, ids, start_s, end_s)
    reasons = [group.reason.copy() for group in candidates]
    begin = 0
    for number, side, rows in places:
        phrases[number][side][rows] = phrase[begin : begin + len(rows)]
        unnamed = ~is_none(why[begin : begin + len(rows)])
        reasons[number][rows[unnamed]] = why[begin : begin + len(rows)][unnamed]
        begin += len(rows)
    return list(zip(phrases, reasons, strict=True))


def _contents(candidates: list[Candidates], rows: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Return hashes of what the candidates in `rows` of each group ask, from which all about a question is drawn."""
    sizes, banks = [len(chosen) for chosen in rows], list(WORDINGS)
    bank = np.repeat([banks.index(group.bank) for group in candidates], sizes)
    first, second, start_s, end_s, code = (
        np.concatenate([getattr(group, name)[chosen] for group, chosen in zip(candidates, rows, strict=True)])
        for name in ("first", "second", "start_s", "end_s", "code")
    )
    milliseconds = [np.rint(times * 1000).astype(np.int64) for times in (start_s, end_s)]
    return np.split(mix(seed, bank, first.astype(int), second.astype(int), *milliseconds, code), np.cumsum(sizes)[:-1])


def _choose(
    group: Candidates, reason: np.ndarray, content: np.ndarray, most: int, max_answer_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most `most` candidates of one bank, and write into `reason` why each other one is not asked.

    Args:
        group: the candidates.
        reason: `[K]` why each is not asked by now, or None.
        content: `[n]` hashes of those without a reason.
        most: at most so many.
        max_answer_share: largest share of one answer.

    Returns:
        Rows of the chosen ones and their hashes.
    """
    rows = np.flatnonzero(is_none(reason))
    keep = _balanced(group, rows, content, max_answer_share)
    reason[rows[~keep]] = "answer_too_common"
    rows, content = rows[keep], content[keep]
    ranked = np.argsort(content, kind="stable")
    reason[rows[ranked[most:]]] = "quota"
    chosen = np.sort(ranked[:most])
    return rows[chosen], content[chosen]


def _balanced(group: Candidates, rows: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Return which of `rows` to keep so that no answer takes more than `share` of its bank."""
    in_words = group.bank in ANSWERS or _UNITS.get(group.kind) in ("o'clock", "count")
    if not in_words or group.kind == "absent_object" or share >= 1 or not len(rows):
        return np.ones(len(rows), bool)
    words, numbers = group.word[rows], np.char.mod("%d", np.nan_to_num(group.value[rows]).astype(int))
    answers = np.where(np.isfinite(group.value[rows]), numbers, words).astype(str)
    _, answer, count = np.unique(answers, return_inverse=True, return_counts=True)
    for _ in range(len(count)):  # capping one answer makes the next one's share larger
        others = count.sum() - count
        count = np.minimum(count, np.maximum(2, np.floor(share / (1 - share) * others)).astype(int))
    ranked = np.lexsort((order, answer))
    place = np.arange(len(rows)) - np.searchsorted(answer[ranked], answer[ranked])
    keep = np.zeros(len(rows), bool)
    keep[ranked] = place < count[answer[ranked]]
    return keep


@dataclass(frozen=True)
class _BankQuestions:
    """The questions of one bank: `[K]` rows of its candidates, and what is told of each.

    Attributes:
        group: the candidates.
        rows: `[K]` those that are asked.
        wording: `[K]` index of the template.
        ids: `[K, n]` tracks asked about, that which is named first before the other.
        value: `[K]` numbers behind the answers, of the first against the second.
        question, answer: `[K]` texts.
        options: `[K, m]` texts, None where there are none.
    """

    group: Candidates
    rows: np.ndarray
    wording: np.ndarray
    ids: np.ndarray
    value: np.ndarray
    question: np.ndarray
    answer: np.ndarray
    options: np.ndarray


def _ask(group: Candidates, rows: np.ndarray, content: np.ndarray, names: list[np.ndarray]) -> _BankQuestions:
    """Put the chosen candidates of one bank as questions; `content` are their hashes, `names` the phrases of both objects."""
    templates = WORDINGS[group.bank]
    wording = (content % np.uint64(len(templates))).astype(int)
    first, second, value = group.first[rows], group.second[rows], group.value[rows]
    if group.kind in _COMPARISONS:  # who is named first must not tell the answer
        swap = (content >> np.uint64(40)) % np.uint64(2) == 1
        first, second = np.where(swap, second, first), np.where(swap, first, second)
        names = [np.where(swap, names[1], names[0]), np.where(swap, names[0], names[1])]
        value = np.where(swap, 1 / value, value)
    values = {
        "object": np.where(is_none(group.subject[rows]), names[0], group.subject[rows]),
        "other": names[1],
        "asked": _asked(group, rows),
        "start": in_text("%.1f", group.start_s[rows]),
        "end": in_text("%.1f", group.end_s[rows]),
    }
    answer = _answers(group, rows, value, names)
    named = (2 if _paired(group) else 1) if is_none(group.subject).all() else 0
    return _BankQuestions(
        group=group,
        rows=rows,
        wording=wording,
        ids=np.stack([first, second], 1)[:, :named],
        value=value,
        question=render(templates, wording, values),
        answer=answer,
        options=make_options(group, rows, answer, value, names, content),
    )


def _paired(group: Candidates) -> bool:
    """Whether questions of the bank are about two objects."""
    return bool(group.second.max(initial=-1) >= 0)


def _table(asked: list[_BankQuestions], kinematics: Kinematics, path: CameraPath) -> pa.Table:
    """Write the questions of all banks out as `QUESTIONS`."""
    groups, sizes = [part.group for part in asked], [len(part.rows) for part in asked]
    count = sum(sizes)
    question, answer, value, wording = (
        np.concatenate([getattr(part, name) for part in asked]) for name in ("question", "answer", "value", "wording")
    )
    low, high, end_value, start, end = (
        np.concatenate([getattr(part.group, name)[part.rows] for part in asked])
        for name in ("low", "high", "end_value", "start_s", "end_s")
    )
    content = [item.tolist() for item in (question, answer, value, low, high, start, end)]
    focal = np.isfinite(path.intrinsics).all() and path.intrinsics[0, 0] > 1

    def each(values: list[Any]) -> np.ndarray:
        """Repeat what is the same for all questions of a bank."""
        return np.repeat(np.array(values, object if isinstance(values[0], str) else None), sizes)

    columns = {
        "question_id": [_identity(*item) for item in zip(*content, strict=True)],
        "kind": each([group.kind for group in groups]),
        "question": question,
        "answer": answer,
        "answer_value": pa.array(value, from_pandas=True),
        "answer_unit": each([_unit(group) for group in groups]),
        "answer_p5": pa.array(low, from_pandas=True),
        "answer_p95": pa.array(high, from_pandas=True),
        "answer_end_value": pa.array(end_value, from_pandas=True),
        "track_ids": _lists([part.ids.astype(np.int32) for part in asked]),
        "frames": _lists([np.stack([_nearest(path.times_s, start), _nearest(path.times_s, end)], 1).astype(np.int32)]),
        "start_s": start,
        "end_s": end,
        "wording": (wording + IMAGE_WORDINGS * each([group.bank.endswith(".image") for group in groups])).astype(np.int32),
        "requires_level": each([4 if _paired(group) else 3 for group in groups]).astype(np.int32),
        "metric": each([group.kind in ("traveled_distance", "traveling_speed", "closing_speed") for group in groups]),
        "scale_source": np.full(count, kinematics.scale_source, object),
        "scale_sigma": np.full(count, kinematics.scale_sigma),
        "options": _lists([part.options for part in asked]),
        "reference": each([group.reference for group in groups]),
    }
    for name, place in (("fx_px", (0, 0)), ("fy_px", (1, 1)), ("cx_px", (0, 2)), ("cy_px", (1, 2))):
        columns[name] = pa.array(np.full(count, path.intrinsics[place] if focal else np.nan), from_pandas=True)
    return make_table(QUESTIONS, columns).sort_by([("kind", "ascending"), ("question_id", "ascending")]).combine_chunks()


def _nearest(times_s: np.ndarray, wanted_s: np.ndarray) -> np.ndarray:
    """Return the index of the frame nearest to each time, the earlier of two that are equally near."""
    after = np.searchsorted(times_s, wanted_s).clip(0, max(len(times_s) - 1, 0))
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(times_s[after] - wanted_s) < np.abs(times_s[before] - wanted_s), after, before)


def _unit(group: Candidates) -> str:
    return "" if group.bank.endswith(".image") and group.kind != "direction_timestamp" else _UNITS.get(group.kind, "")


def _identity(question: str, answer: str, *numbers: float) -> str:
    """Return the digest of a question's content; numbers are written as NumPy 2 writes its own, which ids began with."""
    told = "), np.float64(".join(map(repr, numbers))
    return hashlib.sha256(f"({question!r}, {answer!r}, np.float64({told}))".encode()).hexdigest()[:32]


def _lists(parts: Sequence[np.ndarray]) -> pa.ListArray:
    """Return a list per row of arrays `[K, n]` one below the other, of the values that are there (are not None)."""
    there = [~is_none(part) if part.dtype == object else np.ones(part.shape, bool) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.sum(1) for part in there]))]).astype(np.int32)
    values = np.concatenate([part[known] for part, known in zip(parts, there, strict=True)])
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.string() if values.dtype == object else None))


def _asked(group: Candidates, rows: np.ndarray) -> np.ndarray:
    """Return the direction that a timestamp question asks for, or the motion that is counted, in words."""
    if group.kind == "counting":
        return choose([group.word[rows] == word for word in COUNTED_MOTIONS], list(COUNTED_MOTIONS.values()), "")
    if group.kind != "direction_timestamp":
        return np.full(len(rows), "", object)
    code = group.code[rows]
    if group.bank.endswith(".image"):
        return np.array(["", *(SEEN_DIRECTIONS[word] for word in _SEEN_CODES)], object)[code]
    return in_text("%d o'clock", code)


def _answers(group: Candidates, rows: np.ndarray, value: np.ndarray, names: list[np.ndarray]) -> np.ndarray:
    """Return the answers as short texts."""
    match group.kind:
        case "traveled_distance":
            return rounded_text(value, (group.high - group.low)[rows] / 3.29, DISTANCE_STEPS) + " meters"
        case "traveling_speed" | "closing_speed":
            return rounded_text(value, (group.high - group.low)[rows] / 3.29, SPEED_STEPS) + " km/h"
        case "time_to_contact":
            return rounded_text(value, (group.high - group.low)[rows] / 3.29, DISTANCE_STEPS) + " seconds"
        case "direction_timestamp":
            return "from " + in_text("%.1f", value) + " to " + in_text("%.1f", group.end_value[rows]) + " seconds"
        case "distance_comparison" | "speed_comparison":
            return np.where(value > 1, names[0], names[1])
    if group.bank in ANSWERS:
        texts = ANSWERS[group.bank]
        return choose([group.word[rows] == word for word in texts], list(texts.values()), "")
    form = "%d o'clock" if _UNITS[group.kind] == "o'clock" else "%d"
    return in_text(form, np.nan_to_num(value))
