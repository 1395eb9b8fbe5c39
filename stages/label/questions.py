"""Questions and answers about motion: ST-VLM's seven kinds (arXiv 2503.19355), asked only where the answer is sure.

Every possible question is a candidate; one that is not asked is counted under its reason. Distances and speeds need a
trusted scale, directions need gravity, comparisons need neither. Objects without any world position (a camera on a
tripod, no scale) get directions in the camera's view alone.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.label.candidates import Candidates, Margins, clock_timeline, interval_candidates, pair_candidates, single_candidates
from stages.label.image_motion import image_motion_word, image_rates
from stages.label.phrases import mix, referring_phrases, render
from stages.label.wordings import IMAGE_WORDINGS, SEEN_DIRECTIONS, WORDINGS
from worldline.kinematics.words import choose, is_none

_UNITS = {"traveled_distance": "m", "traveling_speed": "km/h", "movement_direction": "o'clock", "direction_timestamp": "s"}
_STEPS = np.array([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0])
_SEEN_CODES = ("left", "right", "toward", "away")


@dataclass(frozen=True)
class QuestionsConfig:
    """What is asked.

    Attributes:
        max_per_kind: at most so many questions of a kind.
        max_answer_share: no answer in words, and no clock hour, takes a larger share of its kind than this (a kind with
            one answer only keeps two questions): most objects go straight on, and "12 o'clock" would teach nothing.
        include_camera: ask about the camera's own motion too.
        image_threshold: rate of bearing (rad/s) or of log size (1/s) that counts as image motion.
        margins: how clear an answer must be.
    """

    max_per_kind: int = 200
    max_answer_share: float = 0.4
    include_camera: bool = True
    image_threshold: float = 0.03
    margins: Margins = field(default_factory=Margins)


@stage("label.questions", version=1)
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
    candidates = single_candidates(windows, kinematics.gravity_source == "none", config.margins)
    candidates += pair_candidates(windows, states, kinematics.scale_sigma, config.margins)
    candidates += _interval_kinds(kinematics, tracks, path, windows, states, config)
    blocks, refused = [], []
    named = _name_all(candidates, tracks, path)
    for index, (group, (phrases, reason)) in enumerate(zip(candidates, named, strict=True)):
        block, reasons = _ask(group, phrases, reason, kinematics, path, config, seed)
        blocks.append(block)
        refused.append(reasons)
        progress(index + 1, len(candidates), group.kind)
    rows = pa.concat_tables(blocks).sort_by([("kind", "ascending"), ("question_id", "ascending")]).combine_chunks()
    counted = pa.concat_tables(refused).group_by(["kind", "reason"]).aggregate([("count", "sum")])
    counted = counted.rename_columns(["kind", "reason", "count"]).select(REJECTIONS.names).cast(REJECTIONS)
    return Questions(rows=rows, rejections=counted.sort_by([("kind", "ascending"), ("reason", "ascending")]).combine_chunks())


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
    """Return candidates of "when does it move toward": on the clock, and in the camera's view where nothing is located."""
    result = []
    if kinematics.gravity_source != "none":
        hours, grid, ids = clock_timeline(kinematics, states)
        result.append(
            interval_candidates(hours, grid, ids, _blocked(windows, ids, grid), "direction_timestamp", 12, config.margins)
        )
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


def _ask(
    group: Candidates,
    phrases: list[np.ndarray],
    reason: np.ndarray,
    kinematics: Kinematics,
    path: CameraPath,
    config: QuestionsConfig,
    seed: int,
) -> tuple[pa.Table, pa.Table]:
    """Turn one bank's candidates into questions, and count those that are not asked."""
    code = _code(group)
    bank = list(WORDINGS).index(group.bank)
    milliseconds = [np.rint(times * 1000).astype(np.int64) for times in (group.start_s, group.end_s)]
    what = mix(seed, bank, group.first.astype(int), group.second.astype(int), *milliseconds, code)
    open_rows = np.flatnonzero(is_none(reason))
    kept = open_rows[_balanced(group, open_rows, what[open_rows], config)]
    reason[np.setdiff1d(open_rows, kept)] = "answer_too_common"
    ranked = kept[np.argsort(what[kept], kind="stable")]
    reason[ranked[config.max_per_kind :]] = "quota"
    chosen = np.sort(ranked[: config.max_per_kind])
    names, counts = np.unique(reason[~is_none(reason)].astype(str), return_counts=True)
    refused = make_table(REJECTIONS, {"kind": [group.kind] * len(names), "reason": names.tolist(), "count": counts.tolist()})
    return _table(group, chosen, what, phrases, kinematics, path), refused


def _code(group: Candidates) -> np.ndarray:
    """Return an integer that tells apart candidates of the same objects and window."""
    return group.word.astype(np.int64) if group.kind == "direction_timestamp" else np.zeros(len(group.reason), np.int64)


def _balanced(group: Candidates, rows: np.ndarray, order: np.ndarray, config: QuestionsConfig) -> np.ndarray:
    """Return which of `rows` to keep so that no answer dominates its kind."""
    unbalanced = group.kind in ("movement_direction", "direction_comparison") and config.max_answer_share < 1
    if not unbalanced or not len(rows):
        return np.ones(len(rows), bool)
    words = group.word[rows]
    answers = np.where(is_none(words), np.char.mod("%d", np.nan_to_num(group.value[rows]).astype(int)), words).astype(str)
    _, answer, count = np.unique(answers, return_inverse=True, return_counts=True)
    share = config.max_answer_share
    for _ in range(len(count)):  # capping one answer makes the next one's share larger
        others = count.sum() - count
        count = np.minimum(count, np.maximum(2, np.floor(share / (1 - share) * others)).astype(int))
    ranked = np.lexsort((order, answer))
    place = np.arange(len(rows)) - np.searchsorted(answer[ranked], answer[ranked])
    keep = np.zeros(len(rows), bool)
    keep[ranked] = place < count[answer[ranked]]
    return keep


def _table(
    group: Candidates,
    rows: np.ndarray,
    what: np.ndarray,
    phrases: list[np.ndarray],
    kinematics: Kinematics,
    path: CameraPath,
) -> pa.Table:
    """Write the chosen candidates out as `QUESTIONS`."""
    templates = WORDINGS[group.bank]
    wording = (what[rows] % np.uint64(len(templates))).astype(int)
    first, second, value = group.first[rows], group.second[rows], group.value[rows]
    names = [phrase[rows] for phrase in phrases]
    if group.second.max(initial=-1) >= 0:  # who is named first must not tell the answer
        swap = (what[rows] >> np.uint64(40)) % np.uint64(2) == 1
        first, second = np.where(swap, second, first), np.where(swap, first, second)
        names = [np.where(swap, names[1], names[0]), np.where(swap, names[0], names[1])]
        value = np.where(swap, 1 / value, value)
    start, end = group.start_s[rows], group.end_s[rows]
    seconds = {"start": np.char.mod("%.1f", start), "end": np.char.mod("%.1f", end)}
    values = {"object": names[0], "other": names[1], "asked": _asked(group, rows)} | seconds
    question = render(templates, wording, values)
    answer = _answers(group, rows, value, names)
    unit = "" if group.bank.endswith(".image") and group.kind != "direction_timestamp" else _UNITS.get(group.kind, "")
    paired = group.second.max(initial=-1) >= 0
    numbers = np.stack([first, second], 1)[:, : 2 if paired else 1].astype(np.int32)
    width = numbers.shape[1]
    track_ids = pa.ListArray.from_arrays(np.arange(0, numbers.size + 1, width, dtype=np.int32), pa.array(numbers.ravel()))
    nearest = np.stack([np.abs(path.times_s[None] - times[:, None]).argmin(1) for times in (start, end)], 1).astype(np.int32)
    frames = pa.ListArray.from_arrays(np.arange(0, nearest.size + 1, 2, dtype=np.int32), pa.array(nearest.ravel()))
    content = [question, answer, value, group.low[rows], group.high[rows], start, end]
    columns = {
        "question_id": [hashlib.sha256(repr(item).encode()).hexdigest()[:32] for item in zip(*content, strict=True)],
        "kind": np.full(len(rows), group.kind, object),
        "question": question,
        "answer": answer,
        "answer_value": pa.array(value, from_pandas=True),
        "answer_unit": np.full(len(rows), unit, object),
        "answer_p5": pa.array(group.low[rows], from_pandas=True),
        "answer_p95": pa.array(group.high[rows], from_pandas=True),
        "answer_end_value": pa.array(group.end_value[rows], from_pandas=True),
        "track_ids": track_ids,
        "frames": frames,
        "start_s": start,
        "end_s": end,
        "wording": (wording + IMAGE_WORDINGS * group.bank.endswith(".image")).astype(np.int32),
        "requires_level": np.full(len(rows), 4 if paired else 3, np.int32),
        "metric": np.full(len(rows), group.kind in ("traveled_distance", "traveling_speed")),
        "scale_source": np.full(len(rows), kinematics.scale_source, object),
        "scale_sigma": np.full(len(rows), kinematics.scale_sigma),
    }
    return make_table(QUESTIONS, columns)


def _asked(group: Candidates, rows: np.ndarray) -> np.ndarray:
    """Return the direction that a timestamp question asks for, in words."""
    if group.kind != "direction_timestamp":
        return np.full(len(rows), "", object)
    code = group.word[rows].astype(int)
    if group.bank.endswith(".image"):
        return np.array(["", *(SEEN_DIRECTIONS[word] for word in _SEEN_CODES)], object)[code]
    return np.char.mod("%d o'clock", code).astype(object)


def _answers(group: Candidates, rows: np.ndarray, value: np.ndarray, names: list[np.ndarray]) -> np.ndarray:
    """Return the answers as short texts."""
    match group.kind:
        case "traveled_distance":
            return rounded_text(value, (group.high - group.low)[rows] / 3.29, base_steps=(0.1, 0.5, 1.0)) + " meters"
        case "traveling_speed":
            return rounded_text(value, (group.high - group.low)[rows] / 3.29, base_steps=(1.0, 1.0, 1.0)) + " km/h"
        case "direction_timestamp":
            start, end = np.char.mod("%.1f", value), np.char.mod("%.1f", group.end_value[rows])
            return np.char.add(np.char.add(np.char.add("from ", start), np.char.add(" to ", end)), " seconds").astype(object)
        case "distance_comparison" | "speed_comparison":
            return np.where(value > 1, names[0], names[1])
    if group.bank == "movement_direction":
        return np.char.mod("%d o'clock", np.nan_to_num(value).astype(int)).astype(object)
    if group.bank == "movement_direction.image":
        words = group.word[rows]
        keys = list(SEEN_DIRECTIONS)
        return choose([words == key for key in keys], [SEEN_DIRECTIONS[key] for key in keys], "")
    return group.word[rows]


def rounded_text(value: np.ndarray, sigma: np.ndarray, base_steps: tuple[float, float, float]) -> np.ndarray:
    """Round numbers to what their standard deviation allows, as texts.

    Args:
        value: `[K]`.
        sigma: `[K]` standard deviations.
        base_steps: finest rounding below 10, below 50 and above.

    Returns:
        `[K]` texts such as "7.3", "24.5" or "120".
    """
    finest = np.select([np.abs(value) < 10, np.abs(value) < 50], base_steps[:2], base_steps[2])
    allowed = _STEPS[np.clip(np.searchsorted(_STEPS, np.minimum(sigma, _STEPS[-1])), 0, len(_STEPS) - 1)]
    step = np.maximum(finest, np.where(np.isfinite(sigma), allowed, finest))
    # Never round half of the number away.
    step = np.where(step > np.abs(value) / 2, np.maximum(finest, _STEPS[0]), step)
    number = np.rint(value / step) * step
    return np.where(step < 1, np.char.mod("%.1f", number), np.char.mod("%.0f", number)).astype(object)
