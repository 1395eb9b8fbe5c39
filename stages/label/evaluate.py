"""Labels against the truth: which movers were found, how far off the numbers are, how many answers are right.

Travelled distance, speed, clock direction and their comparisons do not depend on the frame, so the estimated and the
true world need no alignment; positions are compared relative to the camera of the same frame. Answers are judged by
ST-VLM's rules (arXiv 2503.19355): numbers within 25 %, clock hours exactly, intervals with IoU of at least 0.5.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath
from schemas.labels import Kinematics, Questions
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Tracks, Truth
from stages.contract import Progress, stage
from stages.label.matching import (
    Match,
    TrueMotion,
    match_tracks,
    metres_per_unit,
    motion_on_grid,
    owners_of,
    true_samples,
    window_truth,
)
from stages.label.phrases import read_back
from stages.label.true_words import true_approach, true_clock_hours, true_motion_words
from stages.label.wordings import IMAGE_WORDINGS, SEEN_DIRECTIONS, WORDINGS
from worldline.kinematics.definitions import (
    KMH_PER_MPS,
    angle_between,
    camera_direction_word,
    clock_hour,
    clockwise_angle,
    interval_iou,
)
from worldline.kinematics.words import choose, is_none


@dataclass(frozen=True)
class LabelEvaluationConfig:
    """Rules of the comparison; the figures' details repeat them.

    Attributes:
        visible_range_m: true movers up to this range count as visible.
        visible_seconds: if they move in view for this long.
        visible_path_m: and this far.
        min_iou: overlap of a track's box with a true box that makes a frame of the match.
        min_share: share of the track's annotated frames that must match.
        min_distance_m: relative errors are taken where the truth moved this far in the window.
        moving_mps: true mean speed of a moving window.
        static_mps: true mean speed of a static window; between the two it is neither.
    """

    visible_range_m: float = 40.0
    visible_seconds: float = 2.0
    visible_path_m: float = 2.0
    min_iou: float = 0.3
    min_share: float = 0.5
    min_distance_m: float = 1.0
    moving_mps: float = 0.5
    static_mps: float = 0.25


@dataclass(frozen=True)
class _Figure:
    name: str
    value: float
    unit: str
    detail: str


@stage("label.evaluate", version=1)
def evaluate_labels(
    tracks: Tracks,
    kinematics: Kinematics,
    questions: Questions,
    path: CameraPath,
    truth: Truth,
    config: LabelEvaluationConfig,
    *,
    seed: int,
    progress: Progress,
) -> Metrics:
    """Compare tracks, windows and answers with the truth.

    Args:
        tracks: estimated tracks.
        kinematics: states and windows made from them.
        questions: questions asked about them.
        path: estimated camera path.
        truth: true boxes and cameras of the clip; without them only counts are given.
        config: rules.
        seed: not used, nothing is drawn.
        progress: called at the end.

    Returns:
        Figures with units; a figure that has nothing to be measured on is left out.
    """
    kept = pc.sum(pc.is_null(kinematics.windows["rejected"])).as_py() or 0
    figures = [
        _Figure("labels.tracks", tracks.objects.num_rows, "tracks", "objects followed"),
        _Figure("labels.windows_kept", kept, "windows", f"of {kinematics.windows.num_rows}, the camera's included"),
        _Figure("labels.questions", questions.rows.num_rows, "questions", "asked, all kinds"),
    ]
    if truth.available and truth.boxes.num_rows:
        match = match_tracks(tracks, truth, config.min_iou, config.min_share)
        motion = motion_on_grid(kinematics, path, truth)
        scale, scale_detail = metres_per_unit(kinematics, path, truth)
        figures += _object_figures(tracks, kinematics, match, path, truth, config)
        figures += _position_figures(tracks, match, path, truth, scale, scale_detail)
        figures += _window_figures(kinematics, match, motion, scale, scale_detail, config)
        figures += _answer_figures(questions, match, motion, truth, path)
    progress(1, 1, f"{len(figures)} figures")
    figures = sorted((f for f in figures if np.isfinite(f.value)), key=lambda f: f.name)
    rows = [{"name": f.name, "value": float(f.value), "unit": f.unit, "detail": f.detail} for f in figures]
    return Metrics(figures=rows_to_table(FIGURES, rows))


def visible_movers(path: CameraPath, truth: Truth, config: LabelEvaluationConfig) -> np.ndarray:
    """Return the sorted ids of the true objects that move in view, near, long and far enough, by the config's rules."""
    boxes = truth.boxes
    frame = boxes["frame"].to_numpy().astype(np.int64)
    place = np.stack([boxes[name].to_numpy() for name in "xyz"], -1)
    away = np.linalg.norm(place - truth.world_from_camera[frame, :3, 3], axis=1)
    moving = boxes["moving"].to_numpy(zero_copy_only=False).astype(bool)
    seen = np.isfinite(boxes["x0_px"].to_numpy()) & moving & (away <= config.visible_range_m)
    ids, row = np.unique(boxes["track_id"].to_numpy().astype(np.int64)[seen], return_inverse=True)
    frame, place, time = frame[seen], place[seen], boxes["time_s"].to_numpy()[seen]
    order = np.lexsort((time, row))
    row, place, time = row[order], place[order], time[order]
    annotated = path.times_s[truth.annotated] if len(path.times_s) == len(truth.annotated) else time
    usual = float(np.median(np.diff(annotated))) if len(annotated) > 1 else 0.0
    seconds = np.bincount(row, minlength=len(ids)) * usual
    net = np.zeros(len(ids))
    first = np.searchsorted(row, np.arange(len(ids)))
    np.maximum.at(net, row, np.linalg.norm(place - place[first[row]], axis=1) if len(row) else np.zeros(0))
    return ids[(seconds >= config.visible_seconds - 1e-6) & (net >= config.visible_path_m)]


def _object_figures(
    tracks: Tracks, kinematics: Kinematics, match: Match, path: CameraPath, truth: Truth, config: LabelEvaluationConfig
) -> list[_Figure]:
    """Return how many true movers were visible and found, and how many tracks follow nothing."""
    visible = visible_movers(path, truth, config)
    rule = (
        f"true objects marked as moving, with their box in view, within {config.visible_range_m:g} m of the camera, for "
        f"{config.visible_seconds:g} s in all, that got {config.visible_path_m:g} m away from where they were first seen so; "
        "occlusion by other objects is not known and not taken off"
    )
    found = np.isin(visible, match.truth_ids).sum()
    how = f"a track's box overlaps theirs by {config.min_iou:g}, or is centred in it, in {config.min_share:.0%} of its frames"
    windows = kinematics.windows
    labelled = pc.and_(pc.is_null(windows["rejected"]), pc.equal(windows["state"], "moving"))
    labelled_ids = windows["track_id"].filter(labelled).to_numpy().astype(np.int64)
    told = np.isin(visible, match.truth_ids[np.isin(match.track_ids, labelled_ids)]).sum()
    false = (match.judged & (match.truth_ids < 0)).sum()
    return [
        _Figure("labels.movers_visible", len(visible), "objects", rule),
        _Figure("labels.movers_found", found, "objects", f"of the visible movers, those of which {how}"),
        _Figure(
            "labels.movers_labelled", told, "objects", "of the movers found, those with a window that is kept and called moving"
        ),
        _Figure("labels.false_objects", false, "tracks", f"of {tracks.objects.num_rows}, the others matched: {how}"),
    ]


def _position_figures(
    tracks: Tracks, match: Match, path: CameraPath, truth: Truth, scale: float, scale_detail: str
) -> list[_Figure]:
    """Return the median distance of matched samples from the true bottom centre, both relative to the frame's camera."""
    samples = tracks.samples
    frame = samples["frame"].to_numpy().astype(np.int64)
    place = np.stack([samples[name].to_numpy() for name in "xyz"], -1).astype(float)
    index = true_samples(tracks, match, truth)
    good = (index >= 0) & np.isfinite(place).all(1) & path.registered[frame]
    if not good.any() or not np.isfinite(scale):
        return []
    frame, place, index = frame[good], place[good], index[good]
    true = np.stack([truth.boxes[name].to_numpy() for name in "xyz"], -1)[index]
    relative = [
        np.einsum("mji,mj->mi", poses[frame, :3, :3], points - poses[frame, :3, 3])
        for poses, points in ((path.world_from_camera, place), (truth.world_from_camera, true))
    ]
    error = np.linalg.norm(scale * relative[0] - relative[1], axis=1)
    detail = f"bottom centre against the true one, relative to the camera, {len(error)} samples of matched tracks; {scale_detail}"
    return [_Figure("labels.position_error_median_m", float(np.median(error)), "m", detail)]


def _window_figures(
    kinematics: Kinematics, match: Match, motion: TrueMotion, scale: float, scale_detail: str, config: LabelEvaluationConfig
) -> list[_Figure]:
    """Return errors of distance and speed, coverage of the intervals and the static or moving decision, over objects' windows."""
    table = kinematics.windows
    names = ("track_id", "start_s", "end_s", "distance_p5", "distance_p50", "distance_p95", "speed_p50")
    columns = {name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names}
    state = table["state"].to_numpy(zero_copy_only=False).astype(object)
    kept = table["rejected"].is_null().to_numpy(zero_copy_only=False)
    owner = owners_of(columns["track_id"].astype(np.int64), match)
    distance, *_ = window_truth(columns["start_s"], columns["end_s"], owner, motion)
    speed = distance / (columns["end_s"] - columns["start_s"])
    objects = (owner > 0) & np.isfinite(distance) & kept
    figures = []
    used = objects & (state == "moving") & (distance >= config.min_distance_m) & np.isfinite(scale)
    if used.any():
        error = np.abs(scale * columns["distance_p50"][used] / distance[used] - 1) * 100
        speed_error = np.abs(scale * columns["speed_p50"][used] / speed[used] - 1) * 100
        covered = (distance[used] >= scale * columns["distance_p5"][used]) & (
            distance[used] <= scale * columns["distance_p95"][used]
        )
        tracks = len(np.unique(columns["track_id"][used]))
        detail = (
            f"{used.sum()} windows of {tracks} tracks, not rejected, called moving, "
            f"true path at least {config.min_distance_m:g} m; {scale_detail}"
        )
        figures += [
            _Figure("labels.distance_error_median_percent", float(np.median(error)), "%", detail),
            _Figure("labels.distance_error_mean_percent", float(np.mean(error)), "%", detail),
            _Figure("labels.distance_within_25_percent", float(np.mean(error <= 25) * 100), "%", detail),
            _Figure("labels.speed_error_median_percent", float(np.median(speed_error)), "%", f"mean speed of {detail}"),
            _Figure("labels.coverage90_distance", float(covered.mean()), "share", f"truth within the 90 % interval: {detail}"),
        ]
    decided = objects & (state != "undecided")
    truly = [decided & (speed > config.moving_mps), decided & (speed < config.static_mps)]
    recalls = [float((state[rows] == word).mean()) for rows, word in zip(truly, ("moving", "static"), strict=True) if rows.any()]
    if recalls:
        detail = (
            f"mean of the recalls of {truly[0].sum()} moving (true mean speed over {config.moving_mps:g} m/s) and "
            f"{truly[1].sum()} static windows (below {config.static_mps:g} m/s), of those decided and not rejected"
        )
        figures.append(_Figure("labels.static_moving_accuracy", float(np.mean(recalls)), "share", detail))
    return figures


def _answer_figures(questions: Questions, match: Match, motion: TrueMotion, truth: Truth, path: CameraPath) -> list[_Figure]:
    """Return the share of answers that the truth confirms, in all and per kind."""
    rows = questions.rows
    if not rows.num_rows:
        return []
    verdict = judge_answers(questions, match, motion, truth)
    kinds = rows["kind"].to_numpy(zero_copy_only=False).astype(object)
    judged = np.isfinite(verdict)
    rule = "answered again from the truth: numbers within 25 %, clock hours exactly, intervals with IoU of 0.5, words the same"
    figures = [_Figure("labels.questions_judged", int(judged.sum()), "questions", "all their objects matched to true ones")]
    if judged.any():
        figures.append(
            _Figure("labels.answers_right_share", float(verdict[judged].mean()), "share", f"of {judged.sum()}, {rule}")
        )
    for kind in sorted(set(kinds)):  # seven at most
        mine = judged & (kinds == kind)
        if mine.any():
            name = f"labels.answers_right_share.{kind}"
            figures.append(_Figure(name, float(verdict[mine].mean()), "share", f"of {mine.sum()}"))
    return figures


def judge_answers(questions: Questions, match: Match, motion: TrueMotion, truth: Truth) -> np.ndarray:
    """Answer each question from the truth and compare by ST-VLM's rules.

    Returns:
        `[K]` 1 right, 0 wrong, NaN where an object is not matched or the truth does not tell.
    """
    table = questions.rows
    kind = table["kind"].to_numpy(zero_copy_only=False).astype(object)
    answer = table["answer"].to_numpy(zero_copy_only=False).astype(object)
    value, end_value = (table[name].to_numpy(zero_copy_only=False) for name in ("answer_value", "answer_end_value"))
    start, end = table["start_s"].to_numpy(), table["end_s"].to_numpy()
    seen = table["wording"].to_numpy() >= IMAGE_WORDINGS
    lists = table["track_ids"].combine_chunks()
    flat = lists.flatten().to_numpy()
    named = lists.value_lengths().to_numpy()
    offset, paired = np.cumsum(named) - named, named > 1
    flat = np.append(flat, [-1, -1])  # what asks about no object in particular may come last
    owners = [owners_of(np.where(named > place, flat[offset + place], -1), match) for place in (0, 1)]
    distance, row, first, last = window_truth(start, end, owners[0], motion)
    other_distance, other_row, *_ = window_truth(start, end, owners[1], motion)
    known = np.isfinite(distance) & (~paired | np.isfinite(other_distance))
    place = motion.positions
    right = np.full(len(kind), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        near = np.abs(value / distance - 1) <= 0.25
        fast = np.abs(value / (KMH_PER_MPS * distance / (end - start)) - 1) <= 0.25
        larger = (value > 1) == (distance > other_distance)
    moved, other_moved = (place[index, last] - place[index, first] for index in (row, other_row))
    steps = (
        place[row, np.minimum(first + 1, last)] - place[row, first],
        place[row, last] - place[row, np.maximum(last - 1, first)],
    )
    hour = clock_hour(np.nan_to_num(clockwise_angle(*steps)))
    degrees = np.degrees(np.nan_to_num(angle_between(moved, other_moved)))
    relation = choose([degrees <= 45, degrees >= 135], ["same", "opposite"], "crossing")
    word = _seen_words(moved, table["frames"].combine_chunks().flatten().to_numpy()[::2], truth)
    other_word = _seen_words(other_moved, table["frames"].combine_chunks().flatten().to_numpy()[::2], truth)
    opposite = {"left": "right", "right": "left", "toward": "away", "away": "toward"}
    mirrored = choose([word == key for key in opposite], list(opposite.values()))
    pair_word = choose([word == other_word, mirrored == other_word], ["same", "opposite"])
    told = choose([word == key for key in SEEN_DIRECTIONS], list(SEEN_DIRECTIONS.values()))
    around = place[row, np.minimum(first + 1, last)] - place[row, np.maximum(first - 1, 0)]
    headed = np.where(np.isfinite(around), around, steps[0])
    own_words = true_motion_words(kind, paired, headed, *steps, moved, other_moved)
    gaps = [np.linalg.norm(place[row, when] - place[other_row, when], axis=-1) for when in (first, last)]
    change, closing, contact = true_approach(gaps[0], gaps[1], end - start)
    hours = _clock_hours(
        kind, paired, row, other_row, last, table["frames"].combine_chunks().flatten().to_numpy()[1::2], motion, truth
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        closes, meets = (np.abs(value / true - 1) <= 0.25 for true in (closing, contact))
    asked = _asked_hour(table)
    iou = _interval_iou(value, end_value, asked, row, first, last, motion)
    rules = [
        (kind == "traveled_distance", near, known),
        (kind == "traveling_speed", fast, known),
        ((kind == "movement_direction") & ~seen, value == hour, known),
        ((kind == "movement_direction") & seen, answer == told, known & ~is_none(told)),
        (kind == "translation", answer == told, known & ~is_none(told)),
        (~is_none(own_words), answer == own_words, known),
        (np.isfinite(hours), value == hours, known),
        (kind == "range_change", answer == change, known),
        (kind == "closing_speed", closes, known),
        (kind == "time_to_contact", meets, known),
        ((kind == "direction_timestamp") & ~seen, iou >= 0.5, known & np.isfinite(asked)),
        (np.isin(kind.astype(str), ("distance_comparison", "speed_comparison")), larger, known),
        ((kind == "direction_comparison") & ~seen, answer == relation, known),
        (
            (kind == "direction_comparison") & seen,
            answer == pair_word,
            known & ~is_none(word) & ~is_none(other_word),
        ),
    ]
    for applies, correct, told_by_truth in rules:
        right = np.where(applies & told_by_truth, correct.astype(float), right)
    return right


def _clock_hours(
    kind: np.ndarray,
    paired: np.ndarray,
    row: np.ndarray,
    other_row: np.ndarray,
    last: np.ndarray,
    frame: np.ndarray,
    motion: TrueMotion,
    truth: Truth,
) -> np.ndarray:
    """Return the true hours of clock questions when their windows end; NaN for other kinds, and without a true camera."""
    place = motion.positions
    if not len(truth.world_from_camera) or place.shape[1] < 2:
        return np.full(len(kind), np.nan)
    after, before = np.minimum(last + 1, place.shape[1] - 1), np.maximum(last - 1, 0)
    headings = []
    for index in (row, other_row):
        around = place[index, after] - place[index, before]
        headings.append(np.where(np.isfinite(around), around, place[index, last] - place[index, before]))
    camera, pair = truth.world_from_camera[frame], paired[:, None]
    return true_clock_hours(
        kind,
        np.where(pair, place[row, last], camera[:, :3, 3]),
        np.where(pair, headings[0], camera[:, :3, 2]),
        np.where(pair, place[other_row, last], place[row, last]),
        np.where(pair, headings[1], headings[0]),
    )


def _seen_words(moved: np.ndarray, frame: np.ndarray, truth: Truth) -> np.ndarray:
    """Name true displacements in the axes of the true camera; "none" below 0.5 m."""
    if not len(truth.world_from_camera):
        return np.full(len(moved), None, object)
    axes = truth.world_from_camera[frame, :3, :3]
    word = camera_direction_word((moved * axes[..., 0]).sum(-1), (moved * axes[..., 2]).sum(-1), 1.0)
    return np.where(np.linalg.norm(moved, axis=-1) < 0.5, "none", word)


def _asked_hour(table: pa.Table) -> np.ndarray:
    """Return the clock hour that each "when does it move toward" question asks for, NaN for all others."""
    kind = table["kind"].to_numpy(zero_copy_only=False).astype(object)
    wording = np.where(kind == "direction_timestamp", table["wording"].to_numpy(), -1)
    text = read_back(WORDINGS["direction_timestamp"], wording, table["question"], "asked")
    hours = pc.struct_field(pc.extract_regex(text, r"^(?P<hour>\d+) o'clock$"), "hour")
    return pc.cast(hours, pa.float64()).to_numpy(zero_copy_only=False).astype(float)


def _interval_iou(
    value: np.ndarray,
    end_value: np.ndarray,
    asked: np.ndarray,
    row: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    motion: TrueMotion,
) -> np.ndarray:
    """Return the IoU of answered intervals with the longest true interval in which the asked hour holds, `[K]`."""
    if motion.positions.shape[1] < 2:
        return np.zeros(len(value))
    steps = np.diff(motion.positions, axis=1)[row]  # [K, G - 1, 3]
    start = np.take_along_axis(steps, np.minimum(first, steps.shape[1] - 1)[:, None, None], 1)
    index = np.arange(steps.shape[1])
    holds = clock_hour(np.nan_to_num(clockwise_angle(np.broadcast_to(start, steps.shape), steps))) == asked[:, None]
    holds &= (index >= first[:, None]) & (index < last[:, None]) & np.isfinite(steps[..., 0])
    ends = np.cumsum(holds, axis=1)
    length = ends - np.maximum.accumulate(np.where(holds, 0, ends), axis=1)  # steps of the run up to here
    stop = length.argmax(1)
    longest = length[np.arange(len(length)), stop]
    true_end = motion.grid[stop + 1]
    true_start = motion.grid[np.maximum(stop + 1 - longest, 0)]
    return np.where(longest > 0, interval_iou(value, end_value, true_start, true_end), 0.0)
