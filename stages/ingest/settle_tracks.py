"""From boxes as a source gives them to tracks that can be trusted: what is wrong with them is counted, never hidden.

Every row that a reader found ends as a sample or under one reason for which it was dropped, and the counts add up.
What can be told apart is repaired and counted too: an id that stands for two classes at once, a track that jumps, a
size that is missing.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64
from pydantic import NonNegativeFloat, PositiveFloat

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.errors import WorldlineError
from schemas.reports import FIGURES, Metrics
from schemas.tracks import ANNOTATED_MOTION, ANNOTATED_OBJECTS, TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.ingest.box_extents import image_extents
from stages.ingest.class_names import our_class_names
from stages.ingest.ego_poses import Timeline
from worldline.box_corners import upright_corners

SCALE_SOURCE = "annotations"
# Why a row was dropped, in the order in which it is asked, with what the reason means.
_DROPPED = {
    "not_an_object": "the source marks it as no object (DontCare, an invalid state, the car itself)",
    "no_id": "without an id",
    "no_time": "without a readable time, or in no frame of the log",
    "time_far_off": "in a frame whose time lies apart from the run that holds most frames by more than max_pause_s",
    "time_backwards": "in a frame whose time is not later than that of frames before it",
    "outside_span": "outside start_s to end_s",
    "no_ego_pose": "given relative to the car in a frame without a usable pose of the car",
    "no_position": "a coordinate is not a number",
    "impossible_position": "further than 10,000 km from the origin",
    "repeated": "word for word the same as another row",
    "duplicate_id": "two different boxes with one id in one frame, and nothing tells which is right",
    "outlier": "far off the line through the samples before and after",
}
_FARTHEST_M, _FARTHEST_S = 1e7, 1e11
_LARGEST_BOX_M = 100.0
_SPEED_WITHOUT_HISTORY_MPS = 60.0
_MOST_CELLS = 40_000_000


@dataclass(frozen=True)
class AnnotationRules:
    """How annotated boxes become tracks.

    Attributes:
        start_s, end_s: span in seconds from the log's first frame; None goes to the end.
        max_pause_s: frames are one log where no pause between them is longer; of several such runs the one with most frames is
            taken, so that one wrong date does not stretch a log over years.
        position_sigma_m: standard deviation of a box's centre, for sources that state none.
        min_jump_m: a sample this far from where its neighbours on both sides point is a jump, or further where the track's own
            noise is larger (five times the median misfit).
        jump_mps2: to which comes what so large an acceleration does in the time between the samples.
        max_step_s: jumps are looked for between samples no further apart than this.
    """

    start_s: NonNegativeFloat = 0.0
    end_s: PositiveFloat | None = None
    max_pause_s: PositiveFloat = 600.0
    position_sigma_m: PositiveFloat = 0.05
    min_jump_m: PositiveFloat = 2.0
    jump_mps2: PositiveFloat = 20.0
    max_step_s: PositiveFloat = 1.5


@dataclass(frozen=True)
class AnnotatedBoxes:
    """Boxes as a source gives them, one entry per row.

    Attributes:
        source_id: `[N]` strings, null where a row has none.
        source_class: `[N]` strings, null where a row has none.
        frame: `[N]` index into the timeline, -1 where a row belongs to no frame.
        position: `[N, 3]` in the world, metres.
        position_is: "bottom" or "centre" of the box.
        size: `[N, 3]` length along the heading, width and height in metres; None where the format has none.
        yaw_rad: `[N]` heading; None where the format has none.
        boxes_px: `[N, 4]` extent in the image; None projects the boxes where a camera is calibrated.
        moving: `[N]` 1 where the annotators say that it moves, 0 where they say that it does not, NaN elsewhere.
        covariance: `[N, 4]` xx, xy, yy and zz of the position in square metres.
        dropped: rows that the reader itself refuses, by reason.
        notes: what else the reader found, as (name, count, unit, detail).
    """

    source_id: pa.Array
    source_class: pa.Array
    frame: Int64[np.ndarray, " N"]
    position: Float64[np.ndarray, "N 3"]
    position_is: str
    size: Float64[np.ndarray, "N 3"] | None = None
    yaw_rad: Float64[np.ndarray, " N"] | None = None
    boxes_px: Float64[np.ndarray, "N 4"] | None = None
    moving: Float64[np.ndarray, " N"] | None = None
    covariance: Float64[np.ndarray, "N 4"] | None = None
    dropped: Mapping[str, Bool[np.ndarray, " N"]] = field(default_factory=dict)
    notes: Sequence[tuple[str, float, str, str]] = ()


def settle_tracks(
    boxes: AnnotatedBoxes, timeline: Timeline, rules: AnnotationRules, provenance: Mapping[str, Any]
) -> tuple[Tracks, CameraPath, Metrics]:
    """Check rows against each other and make tracks of those that stand.

    Args:
        boxes: all rows of a log.
        timeline: its frames, and where the camera was.
        rules: limits.
        provenance: what is kept with the tracks; errors name its `log`, and its `format`, which is the stage's name.

    Returns:
        The tracks, numbered from 1 in the order of their ids (numbers by value); the camera's path on the frames that stand;
        and a figure for every count.

    Raises:
        WorldlineError: if no frame of the log stands, or so many objects times frames that nothing downstream can hold them.
    """
    log, settings = str(provenance["log"]), f"ingest.{provenance['format']}.rules"
    reason = _Reasons(len(boxes.frame))
    for name, mask in boxes.dropped.items():
        reason.drop(name, mask)
    names, identity = _identities(boxes.source_id)
    reason.drop("no_id", np.array([name == "" for name in names], bool)[identity])
    frame, kept_frames = _drop_unplaced(boxes, timeline.times_s, rules, reason)
    if not len(kept_frames):
        raise WorldlineError(f"{log}: no frame has a readable time in the span of {settings}.start_s and end_s: widen it")
    classes, class_code = _codes(boxes.source_class)
    shared = _tell_apart(boxes, frame, identity, class_code, reason)
    identity = len(classes) * identity + np.where(np.isin(identity, shared), class_code, 0)
    rows = np.flatnonzero(reason.free)
    rows = rows[np.lexsort((frame[rows], identity[rows]))]
    times = timeline.times_s
    outlier = _outliers(identity[rows], times[frame[rows]], boxes.position[rows], rules)
    reason.drop("outlier", np.isin(np.arange(len(reason.code)), rows[outlier]))
    rows = rows[~outlier]
    breaks = _breaks(identity[rows], times[frame[rows]], boxes.position[rows], rules)
    new_track = breaks.copy()
    new_track[:1] = True
    new_track[1:] |= np.diff(identity[rows]) != 0
    row = np.cumsum(new_track) - 1
    count = int(row[-1]) + 1 if len(rows) else 0
    seconds = times[kept_frames[-1]] - times[kept_frames[0]]
    if count * max(len(kept_frames), 10 * seconds) > _MOST_CELLS:
        raise WorldlineError(
            f"{log} has {count} objects in {len(kept_frames)} frames over {seconds:.0f} s, more than can be labelled at once: "
            f"give a shorter span with {settings}.start_s and end_s"
        )

    size, repaired_sizes = _repair_sizes(boxes.size, rows, row)
    yaw = np.full(len(rows), np.nan) if boxes.yaw_rad is None else boxes.yaw_rad[rows]
    with np.errstate(invalid="ignore"):
        yaw = np.arctan2(np.sin(yaw), np.cos(yaw))
    bottom = boxes.position[rows].copy()
    if boxes.position_is == "centre":
        bottom[:, 2] -= np.nan_to_num(size[:, 2]) / 2
    path = _camera_path(timeline, kept_frames)
    clip_frame = np.searchsorted(kept_frames, frame[rows])
    samples = _samples(row, clip_frame, bottom, size, yaw, path, boxes, rows, rules)
    class_of, changes = _majority(row, class_code[rows], count)
    source_class = [classes[code] for code in class_of]
    class_names = our_class_names(source_class)
    source_ids = names[identity[rows][np.flatnonzero(new_track)] // len(classes)].tolist()
    tracks = Tracks(
        samples=samples,
        objects=_objects(row, path.times_s[clip_frame], class_names),
        origin="boxes",
        scale_source=SCALE_SOURCE,
        scale_sigma=0.0,
        gravity_source="given",
        annotated_objects=make_table(
            ANNOTATED_OBJECTS, {"track_id": np.arange(1, count + 1), "source_id": source_ids, "source_class": source_class}
        ),
        annotated_motion=None if boxes.moving is None else _motion(row, clip_frame, boxes.moving[rows]),
        provenance=dict(provenance),
    )
    found = np.bincount(row, minlength=count)
    unknown = [f"{name!r}" for name in sorted({s for s, c in zip(source_class, class_names, strict=True) if c == "unknown"})]
    figures = [
        ("tracks.rows", len(boxes.frame), "rows", f"boxes in {log}"),
        ("tracks.samples", len(rows), "rows", "that became samples of a track"),
        ("tracks.objects", count, "objects", "followed"),
        ("tracks.frames", len(kept_frames), "frames", f"of {len(times)} in the log"),
        ("tracks.frames_without_pose", int((~path.registered).sum()), "frames", "in which the car's own pose is unknown"),
        ("tracks.one_sample", int((found == 1).sum()), "objects", "seen only once: no motion can be told"),
        ("tracks.class_unknown", class_names.count("unknown"), "objects", f"called unknown: {', '.join(unknown[:5]) or 'none'}"),
        ("tracks.class_changes", changes, "objects", "whose class is not the same in all rows; the most frequent counts"),
        ("tracks.id_shared", len(shared), "ids", "stood for objects of several classes at once, told apart by class"),
        ("tracks.identity_breaks", int(breaks.sum()), "breaks", "a track jumps: cut in two there"),
        ("tracks.size_repaired", repaired_sizes, "rows", "zero, negative or unreadable size: the track's own median, or none"),
        ("tracks.yaw_unknown", int(np.isnan(yaw).sum()) if boxes.yaw_rad is not None else 0, "rows", "unreadable heading"),
        *boxes.notes,
        *reason.figures(names, boxes, frame),
    ]
    return tracks, path, _metrics(figures)


def _metrics(figures: Sequence[tuple[str, float, str, str]]) -> Metrics:
    """Return figures as an artifact, sorted by name."""
    rows = [{"name": name, "value": float(value), "unit": unit, "detail": detail} for name, value, unit, detail in figures]
    return Metrics(figures=rows_to_table(FIGURES, sorted(rows, key=lambda row: str(row["name"]))))


class _Reasons:
    """Why each row was dropped: the first reason counts."""

    def __init__(self, rows: int) -> None:
        self.code = np.zeros(rows, int)  # 0 stands

    @property
    def free(self) -> np.ndarray:
        return self.code == 0

    def drop(self, name: str, mask: np.ndarray) -> None:
        self.code[mask & self.free] = 1 + list(_DROPPED).index(name)

    def figures(self, names: np.ndarray, boxes: AnnotatedBoxes, frame: np.ndarray) -> list[tuple[str, float, str, str]]:
        """Return a count per reason, with the first rows that it befell."""
        found = []
        for code, (name, meaning) in enumerate(_DROPPED.items(), start=1):
            rows = np.flatnonzero(self.code == code)
            some = [f"{boxes.source_id[index].as_py() or '(no id)'} in frame {frame[index]}" for index in rows[:3].tolist()]
            detail = meaning + (f"; first {', '.join(some)}" if some else "")
            found.append((f"tracks.dropped.{name}", float(len(rows)), "rows", detail))
        return found


def _codes(words: pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the distinct words ("" for null) and the index of each row's."""
    encoded = pc.fill_null(words, "").dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _identities(source_id: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct ids in order (by value where all are whole numbers) and the place of each row's among them."""
    words, code = _codes(source_id)
    numeric = all(word.lstrip("-").isdecimal() for word in words if word)
    order = sorted(range(len(words)), key=lambda index: (int(words[index] or -1) if numeric else 0, words[index]))
    place = np.empty(len(words), np.int64)
    place[order] = np.arange(len(words))
    return np.array([words[index] for index in order], object), place[code] if len(code) else code


def _drop_unplaced(
    boxes: AnnotatedBoxes, times_s: np.ndarray, rules: AnnotationRules, reason: _Reasons
) -> tuple[np.ndarray, np.ndarray]:
    """Drop rows without a usable time or place; return the frame of each, -1 where the log has none such, and the frames kept."""
    near, forward, inside = _standing_frames(times_s, rules)
    kept_frames = np.flatnonzero(forward & inside)
    frame = np.where((boxes.frame >= 0) & (boxes.frame < len(forward)), boxes.frame, -1)
    if not len(kept_frames):  # perhaps the log has no frame at all
        return frame, kept_frames
    in_frame = np.maximum(frame, 0)
    reason.drop("no_time", (frame < 0) | ~np.isfinite(times_s[in_frame]))
    reason.drop("time_far_off", ~near[in_frame])
    reason.drop("time_backwards", ~forward[in_frame])
    reason.drop("outside_span", ~inside[in_frame])
    finite = np.isfinite(boxes.position).all(1)
    reason.drop("no_position", ~finite)
    distance: np.ndarray = np.abs(np.where(finite[:, None], boxes.position, 0)).max(axis=1)
    reason.drop("impossible_position", distance > _FARTHEST_M)
    return frame, kept_frames


def _standing_frames(times_s: np.ndarray, rules: AnnotationRules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which frames are in the run with most frames, which of them go forward in time, and which lie in the span.

    Of times that go backwards as few as possible are given up: the longest increasing subsequence stays.
    """
    near, forward = np.zeros((2, len(times_s)), bool)
    readable = np.flatnonzero(np.abs(times_s) < _FARTHEST_S)
    if len(readable):
        order = readable[np.argsort(times_s[readable], kind="stable")]
        run = np.cumsum(np.diff(times_s[order], prepend=times_s[order[0]]) > rules.max_pause_s)
        near[order] = run == np.bincount(run).argmax()
    readable = np.flatnonzero(near)
    forward[readable[increasing(times_s[readable])]] = True
    start = times_s[forward].min(initial=_FARTHEST_S)
    inside = forward & (times_s >= start + rules.start_s - 1e-9)
    if rules.end_s is not None:
        inside &= times_s <= start + rules.end_s + 1e-9
    return near, forward, inside


def increasing(values: np.ndarray) -> np.ndarray:
    """Return `[N]` whether each value belongs to the longest strictly increasing subsequence (patience sorting)."""
    if len(values) < 2 or (np.diff(values) > 0).all():
        return np.ones(len(values), bool)
    tails: list[float] = []  # smallest last value of a subsequence of each length, and where it stands
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values.tolist()):
        place = bisect_left(tails, value)
        before.append(ends[place - 1] if place else -1)
        tails[place : place + 1], ends[place : place + 1] = [value], [index]
    chosen = np.zeros(len(values), bool)
    index = ends[-1]
    while index >= 0:
        chosen[index] = True
        index = before[index]
    return chosen


def _tell_apart(
    boxes: AnnotatedBoxes, frame: np.ndarray, identity: np.ndarray, class_code: np.ndarray, reason: _Reasons
) -> np.ndarray:
    """Drop rows that repeat or contradict each other; return the ids of which each class is an object of its own."""
    frames = int(frame.max(initial=0)) + 1

    def contradictions(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows that stand, and for each whether another with its key says something else."""
        rows = np.flatnonzero(reason.free)
        _, first, group = np.unique(key[rows], return_index=True, return_inverse=True)
        differs = np.zeros(len(rows), bool)
        for values in (boxes.position, boxes.size, boxes.yaw_rad, class_code):
            if values is not None:
                wide = values[rows] if values.ndim == 2 else values[rows, None]
                differs |= ~((wide == wide[first][group]) | (np.isnan(wide) & np.isnan(wide[first][group]))).all(1)
        repeated = ~differs
        repeated[first] = False
        reason.drop("repeated", np.isin(np.arange(len(key)), rows[repeated]))
        return rows, np.isin(group, group[differs])

    rows, contradicted = contradictions(identity * frames + frame)
    shared = np.unique(identity[rows[contradicted]])
    if len(shared):
        own = identity * (int(class_code.max()) + 1) + np.where(np.isin(identity, shared), class_code, 0)
        rows, contradicted = contradictions(own * frames + frame)
        reason.drop("duplicate_id", np.isin(np.arange(len(frame)), rows[contradicted]))
        mixed = rows[np.isin(identity[rows], shared) & ~contradicted]
        kinds = np.unique(np.stack([identity[mixed], class_code[mixed]], -1), axis=0)[:, 0]
        shared = shared[np.isin(shared, kinds[1:][kinds[1:] == kinds[:-1]])]
    return shared


def _outliers(owner: np.ndarray, time: np.ndarray, position: np.ndarray, rules: AnnotationRules) -> np.ndarray:
    """Return which samples stand alone between two jumps that cancel: without them the track goes straight on."""
    breaks = _breaks(owner, time, position, rules)
    alone = np.zeros(len(owner), bool)
    if len(owner) > 2:
        alone[1:-1] = breaks[1:-1] & breaks[2:] & (owner[2:] == owner[:-2])
    if not alone.any():
        return alone
    rest = np.flatnonzero(~alone)
    bridged = ~_breaks(owner[rest], time[rest], position[rest], rules)
    after = np.searchsorted(rest, np.flatnonzero(alone))
    alone[alone] = bridged[np.minimum(after, len(rest) - 1)]
    return alone


def _breaks(owner: np.ndarray, time: np.ndarray, position: np.ndarray, rules: AnnotationRules) -> np.ndarray:
    """Return `[M]` whether a track jumps on the way to this sample: neither its motion before nor that after leads there."""
    breaks = np.zeros(len(owner), bool)
    if len(owner) < 2:
        return breaks
    step, span = np.diff(position, axis=0), np.diff(time)
    linked = (np.diff(owner) == 0) & (span <= rules.max_step_s)
    velocity = step / np.where(linked, span, 1.0)[:, None]
    misfit, allowed = np.full((2, len(span)), np.nan), np.full((2, len(span)), np.nan)
    pair = linked[1:] & linked[:-1]
    misfit[0, 1:] = np.where(pair, np.linalg.norm(step[1:] - velocity[:-1] * span[1:, None], axis=1), np.nan)
    misfit[1, :-1] = np.where(pair, np.linalg.norm(step[:-1] - velocity[1:] * span[:-1, None], axis=1), np.nan)
    allowed[0, 1:] = span[1:] * np.maximum(span[1:], span[:-1])
    allowed[1, :-1] = span[:-1] * np.maximum(span[1:], span[:-1])
    noise = _median_by_owner(misfit[0], owner[1:])
    excess = misfit - rules.jump_mps2 * allowed - np.fmax(rules.min_jump_m, 5 * noise)
    speed = np.linalg.norm(velocity, axis=1)
    lone = np.isnan(misfit).all(0)
    least = np.where(lone, (speed - _SPEED_WITHOUT_HISTORY_MPS) * span - rules.min_jump_m, np.fmin(*excess))
    jump = linked & (least > 0)
    # The first and the last step have one neighbour: if that one jumps farther, it is the one to blame.
    one_sided = jump & np.isnan(misfit).any(0) & ~lone
    faster = np.zeros(len(span), bool)
    faster[1:] = pair & jump[:-1] & (speed[:-1] > speed[1:])
    faster[:-1] |= pair & jump[1:] & (speed[1:] > speed[:-1])
    breaks[1:] = jump & ~(one_sided & faster)
    return breaks


def _median_by_owner(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return for each entry the median of its owner's values, NaN where it has none; owners stand together."""
    told = np.isfinite(values)
    names, group = np.unique(owner, return_inverse=True)
    count = np.bincount(group[told], minlength=len(names))
    order = np.flatnonzero(told)[np.lexsort((values[told], group[told]))]
    start = np.cumsum(count) - count
    median = np.full(len(names), np.nan)
    has = count > 0
    low, high = (values[order[(start + offset)[has]]] for offset in ((count - 1) // 2, count // 2))
    median[has] = (low + high) / 2
    return median[group]


def _repair_sizes(size: np.ndarray | None, rows: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, int]:
    """Return sizes `[M, 3]` with the track's own median where one is no size, NaN where the track has none; and how many.

    A side that no row gives (NGSIM has no heights) is unknown, and nothing to repair.
    """
    if size is None:
        return np.full((len(rows), 3), np.nan), 0
    given = np.isfinite(size).any(0)
    size = size[rows].copy()
    with np.errstate(invalid="ignore"):
        wrong = ~((size > 0) & (size < _LARGEST_BOX_M))
    size[wrong] = np.nan
    for axis in range(3):
        size[:, axis] = np.where(wrong[:, axis], _median_by_owner(size[:, axis], row), size[:, axis])
    return size, int((wrong & given).any(1).sum())


def _majority(row: np.ndarray, code: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Return the most frequent code of each of `count` tracks (the smaller of equals), and how many tracks have several."""
    pairs, often = np.unique(np.stack([row, code], -1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -often, pairs[:, 0]))
    first = np.searchsorted(pairs[order, 0], np.arange(count))
    return pairs[order[first], 1], int((np.bincount(pairs[:, 0], minlength=count) > 1).sum())


def _camera_path(timeline: Timeline, kept: np.ndarray) -> CameraPath:
    known = timeline.known[kept]
    calibrated = timeline.intrinsics is not None
    return CameraPath(
        times_s=timeline.times_s[kept] - timeline.times_s[kept[0]],
        world_from_camera=np.where(known[:, None, None], timeline.world_from_camera[kept], np.eye(4)),
        registered=known,
        intrinsics=timeline.intrinsics if timeline.intrinsics is not None else np.eye(3),
        distortion=np.zeros(4),
        width=timeline.width if calibrated else 0,
        height=timeline.height if calibrated else 0,
        verdict="moving" if known.any() else "none",
        scale_source=SCALE_SOURCE,
        scale_sigma=0.0,
        gravity_source="given",
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.0,
    )


def _objects(row: np.ndarray, time_s: np.ndarray, class_names: list[str]) -> pa.Table:
    """Return `TRACK_OBJECTS` of tracks whose samples stand in order of time."""
    count = len(class_names)
    first, last = np.searchsorted(row, np.arange(count)), np.searchsorted(row, np.arange(count), side="right") - 1
    columns = {
        "track_id": np.arange(1, count + 1),
        "class_name": class_names,
        "colour": [""] * count,
        "first_s": time_s[first],
        "last_s": time_s[last],
        "samples": last - first + 1,
    }
    return make_table(TRACK_OBJECTS, columns)


def _motion(row: np.ndarray, frame: np.ndarray, moving: np.ndarray) -> pa.Table:
    """Return `ANNOTATED_MOTION` of the samples of which the annotators tell."""
    told = np.isfinite(moving)
    return make_table(ANNOTATED_MOTION, {"track_id": row[told] + 1, "frame": frame[told], "moving": moving[told] > 0.5})


def _samples(
    row: np.ndarray,
    frame: np.ndarray,
    bottom: np.ndarray,
    size: np.ndarray,
    yaw: np.ndarray,
    path: CameraPath,
    boxes: AnnotatedBoxes,
    rows: np.ndarray,
    rules: AnnotationRules,
) -> pa.Table:
    """Return `TRACK_SAMPLES` of the rows that stand."""
    pose = path.world_from_camera[frame]
    away = np.linalg.norm(bottom - pose[:, :3, 3], axis=1)
    seen = np.full((len(rows), 4), np.nan)
    if boxes.boxes_px is not None:
        seen = np.where(np.isfinite(boxes.boxes_px[rows]).all(1)[:, None], boxes.boxes_px[rows], np.nan)
    elif path.width:
        whole = path.registered[frame] & np.isfinite(size).all(1) & np.isfinite(yaw)
        corners = upright_corners(bottom[whole], size[whole], yaw[whole])
        seen[whole] = image_extents(corners, pose[whole], path.intrinsics, path.width, path.height)
    with np.errstate(invalid="ignore"):
        border = (seen[:, :2] <= 0).any(1) | (path.width > 0) & (seen[:, 2:] >= (path.width, path.height)).any(1)
    covariance = np.full((len(rows), 4), np.nan) if boxes.covariance is None else boxes.covariance[rows]
    variance = rules.position_sigma_m**2
    stated = np.isfinite(covariance).all(1) & (covariance[:, [0, 2, 3]] > 0).all(1)
    stated &= covariance[:, 1] ** 2 <= covariance[:, 0] * covariance[:, 2]
    covariance = np.where(stated[:, None], covariance, [variance, 0.0, variance, variance])
    columns: dict[str, Any] = {"track_id": row + 1, "frame": frame, "time_s": path.times_s[frame]}
    columns |= dict(zip(("x", "y", "z"), bottom.T, strict=True))
    columns |= dict(zip(("cov_xx", "cov_xy", "cov_yy", "cov_zz"), covariance.T, strict=True))
    columns |= {"range": np.where(path.registered[frame], away, np.nan)}
    columns |= dict(zip(("length", "width", "height"), size.T, strict=True))
    columns |= {"yaw_rad": yaw}
    columns |= dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), seen.T, strict=True))
    columns |= {"visible": np.full(len(rows), np.nan), "touches_border": border}
    return make_table(TRACK_SAMPLES, {name: pa.array(values, from_pandas=True) for name, values in columns.items()})
