"""Stage `label.audit`: every window beside the truth, and beside what better inputs would have made of it.

Errors are split by giving the estimator the truth bit by bit, on the same frames of the same tracks: true boxes, poses
and scale leave what smoothing does; true boxes seen from the estimated poses add the poses' error; the estimated tracks
at the true scale add that of tracking; all estimated adds that of the scale. Tracks made of true boxes state no
covariance, so that their noise is read off themselves.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifact import make_table
from schemas.audits import AUDITED_OBJECTS, AUDITED_WINDOWS, LabelAudit
from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID, Kinematics
from schemas.tracks import TRACK_SAMPLES, Tracks, Truth
from stages.contract import Progress, no_progress, stage
from stages.label.evaluate import LabelEvaluationConfig, visible_movers
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
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
from worldline.cameras import umeyama
from worldline.kinematics.definitions import clock_hour, clockwise_angle
from worldline.kinematics.words import is_none

_COVARIANCES = ("cov_xx", "cov_xy", "cov_yy", "cov_zz")


@dataclass(frozen=True)
class AuditConfig:
    """Rules of the comparison, and how the kinematics were measured that are measured again from better inputs.

    Attributes:
        rules: which movers count as visible, and when a track follows a true object.
        kinematics: settings of the stage that made the audited kinematics.
        min_camera_path_m: the true scale is read off the camera's path where it is this long; else off the objects' ranges.
    """

    rules: LabelEvaluationConfig = field(default_factory=LabelEvaluationConfig)
    kinematics: KinematicsConfig = field(default_factory=KinematicsConfig)
    min_camera_path_m: float = 2.0


@stage("label.audit", version=1)
def audit_labels(
    tracks: Tracks,
    kinematics: Kinematics,
    path: CameraPath,
    truth: Truth,
    config: AuditConfig,
    *,
    seed: int,
    progress: Progress,
) -> LabelAudit:
    """Put every measured window beside the truth.

    Args:
        tracks: estimated tracks.
        kinematics: made from them with `config.kinematics`.
        path: estimated camera path.
        truth: true boxes and cameras of the clip; without them no window and no object is told of.
        config: rules.
        seed: of the draws of the kinematics that are measured again.
        progress: called per variant.
    """
    if not truth.available or not truth.boxes.num_rows or len(truth.world_from_camera) != len(path.times_s):
        return LabelAudit(AUDITED_WINDOWS.empty_table(), AUDITED_OBJECTS.empty_table(), kinematics.scale_source)
    match = match_tracks(tracks, truth, config.rules.min_iou, config.rules.min_share)
    motion = motion_on_grid(kinematics, path, truth)
    told, _ = metres_per_unit(kinematics, path, truth)
    true_scale = _true_scale(tracks, match, path, truth, config)
    windows = _windows(tracks, kinematics, match, motion, truth, told, config)
    windows["tracking_distance_m"] = windows["distance_p50_m"] / told * true_scale
    progress(1, 3, "the estimate")
    variants = {
        "smoothing": (truth.world_from_camera, np.ones(len(path.times_s), bool)),
        "pose": (_scaled(path.world_from_camera, true_scale), path.registered),
    }
    for done, (name, (poses, registered)) in enumerate(variants.items(), 2):
        windows[f"{name}_distance_m"] = _from_true_boxes(
            windows, tracks, match, path, truth, poses, registered, config.kinematics, seed
        )
        progress(done, 3, f"true boxes: {name}")
    return LabelAudit(
        windows=make_table(AUDITED_WINDOWS, {name: _nullable(windows[name]) for name in AUDITED_WINDOWS.names}),
        objects=_objects(tracks, windows, match, path, truth, told, config),
        scale_source=kinematics.scale_source,
    )


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)


def _scaled(poses: np.ndarray, scale: float) -> np.ndarray:
    scaled = poses.copy()
    scaled[:, :3, 3] *= scale
    return scaled


def _true_scale(tracks: Tracks, match: Match, path: CameraPath, truth: Truth, config: AuditConfig) -> float:
    """Return true metres per unit of the estimate, NaN where nothing tells: from the camera's path, else from ranges."""
    known = path.registered
    true = truth.world_from_camera[known, :3, 3]
    if path.verdict == "moving" and np.linalg.norm(np.diff(true, axis=0), axis=1).sum() >= config.min_camera_path_m:
        return float(umeyama(path.world_from_camera[known, :3, 3], true, with_scale=True).scale)
    index = true_samples(tracks, match, truth)
    away = tracks.samples["range"].to_numpy(zero_copy_only=False).astype(float)
    frame = tracks.samples["frame"].to_numpy().astype(np.int64)
    use = (index >= 0) & np.isfinite(away)
    if not use.any():
        return np.nan
    place = _places(truth)[index[use]]
    return float(np.median(np.linalg.norm(place - truth.world_from_camera[frame[use], :3, 3], axis=1) / away[use]))


def _places(truth: Truth) -> np.ndarray:
    return np.stack([truth.boxes[name].to_numpy() for name in "xyz"], -1)


def _windows(
    tracks: Tracks,
    kinematics: Kinematics,
    match: Match,
    motion: TrueMotion,
    truth: Truth,
    told: float,
    config: AuditConfig,
) -> dict[str, np.ndarray]:
    """Return the columns of the measured windows of objects, without those of the variants."""
    table = kinematics.windows
    table = table.filter(pc.and_(pc.not_equal(table["track_id"], EGO_TRACK_ID), pc.is_valid(table["distance_p50"])))
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("track_id", "start_s", "end_s", "state", "rejected")}
    columns |= {f"distance_{name}_m": told * table[f"distance_{name}"].to_numpy() for name in ("p5", "p50", "p95")}
    owner = owners_of(columns["track_id"].astype(np.int64), match)
    distance, row, first, last = window_truth(columns["start_s"], columns["end_s"], owner, motion)
    whole = np.isfinite(distance)
    columns |= {"truth_id": owner, "true_distance_m": distance}
    ids, begin = np.unique(truth.boxes["track_id"].to_numpy(), return_index=True)
    names = truth.boxes["class_name"].to_numpy(zero_copy_only=False).astype(object)[begin]
    place = np.minimum(np.searchsorted(ids, owner), len(ids) - 1)
    columns["class_name"] = np.where(owner >= 0, names[place], None)
    lengths = dict(
        zip(
            tracks.objects["track_id"].to_pylist(),
            (tracks.objects["last_s"].to_numpy() - tracks.objects["first_s"].to_numpy()).tolist(),
            strict=True,
        )
    )
    columns["track_seconds"] = np.array([lengths[track] for track in columns["track_id"].tolist()], float)

    ego = motion.positions[np.searchsorted(motion.ids, EGO_TRACK_ID)]
    away = np.linalg.norm(motion.positions - ego, axis=-1)
    steps = int((last - first).max(initial=1))
    inside = np.minimum(first[:, None] + np.arange(steps + 1), away.shape[1] - 1)
    columns["range_m"] = np.where(whole, away[row[:, None], inside].mean(1), np.nan)
    step_s = kinematics.grid_s
    begin_step = motion.positions[row, np.minimum(first + 1, last)] - motion.positions[row, first]
    end_step = motion.positions[row, last] - motion.positions[row, np.maximum(last - 1, first)]
    slowest = np.minimum(*(np.linalg.norm(step[:, :2], axis=1) for step in (begin_step, end_step)))
    with np.errstate(invalid="ignore"):
        clear = whole & (slowest >= config.rules.moving_mps * step_s)
    hour = clock_hour(np.nan_to_num(clockwise_angle(begin_step, end_step)))
    columns["true_clock"] = np.where(clear, hour, np.nan)
    columns["clock"] = table["clock"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return columns


def _from_true_boxes(
    windows: dict[str, np.ndarray],
    tracks: Tracks,
    match: Match,
    path: CameraPath,
    truth: Truth,
    world_from_camera: np.ndarray,
    registered: np.ndarray,
    config: KinematicsConfig,
    seed: int,
) -> np.ndarray:
    """Return the distance `[K]` of each window, in metres, from true boxes seen in the true cameras and put before others."""
    index = true_samples(tracks, match, truth)
    frame = tracks.samples["frame"].to_numpy().astype(np.int64)
    use = (index >= 0) & registered[frame]
    result = np.full(len(windows["track_id"]), np.nan)
    if not use.any() or not np.isfinite(world_from_camera[registered]).all():
        return result
    frame, index = frame[use], index[use]
    true, estimated = truth.world_from_camera[frame], world_from_camera[frame]
    offset = np.einsum("mji,mj->mi", true[:, :3, :3], _places(truth)[index] - true[:, :3, 3])
    place = estimated[:, :3, 3] + np.einsum("mij,mj->mi", estimated[:, :3, :3], offset)
    samples = tracks.samples.filter(pa.array(use))
    columns = {name: samples[name].combine_chunks() for name in TRACK_SAMPLES.names}
    columns |= {name: pa.array(place[:, axis]) for axis, name in enumerate("xyz")}
    columns |= {name: pa.nulls(len(frame), pa.float64()) for name in _COVARIANCES}
    columns["range"] = pa.array(np.linalg.norm(offset, axis=1))
    given = dataclasses.replace(
        tracks, samples=make_table(TRACK_SAMPLES, columns), scale_source="given", scale_sigma=0.0, gravity_source="given"
    )
    seen_from = dataclasses.replace(path, world_from_camera=world_from_camera, registered=registered)
    table = estimate_kinematics(given, seen_from, config, seed=seed, progress=no_progress).windows
    found = {
        (track, round(start, 6)): distance
        for track, start, distance in zip(
            *(table[name].to_pylist() for name in ("track_id", "start_s", "distance_p50")), strict=True
        )
    }
    for row, (track, start) in enumerate(zip(windows["track_id"].tolist(), windows["start_s"].tolist(), strict=True)):
        distance = found.get((track, round(start, 6)))
        result[row] = np.nan if distance is None else distance
    return result


def _objects(
    tracks: Tracks,
    windows: dict[str, np.ndarray],
    match: Match,
    path: CameraPath,
    truth: Truth,
    told: float,
    config: AuditConfig,
) -> pa.Table:
    """Return a row per visible mover and per track that follows nothing."""
    labelled = (windows["state"] == "moving") & is_none(windows["rejected"])
    told_tracks = np.unique(windows["track_id"][labelled])
    told_objects = match.truth_ids[np.isin(match.track_ids, told_tracks)]
    boxes = truth.boxes
    owner, frame = boxes["track_id"].to_numpy().astype(np.int64), boxes["frame"].to_numpy().astype(np.int64)
    time, place = boxes["time_s"].to_numpy(), _places(truth)
    seen = boxes["x0_px"].is_valid().to_numpy()
    away = np.linalg.norm(place - truth.world_from_camera[frame, :3, 3], axis=1)
    names = boxes["class_name"].to_pylist()
    rows: list[tuple[Any, ...]] = []
    for mover in visible_movers(path, truth, config.rules).tolist():
        mine = np.flatnonzero((owner == mover) & seen)
        mine = mine[np.argsort(time[mine], kind="stable")]
        duration = float(time[mine[-1]] - time[mine[0]])
        # half-second steps, so that the noise of annotations is not summed up
        marks = np.unique([*np.searchsorted(time[mine], np.arange(time[mine[0]], time[mine[-1]], 0.5)).tolist(), len(mine) - 1])
        travelled = float(np.linalg.norm(np.diff(place[mine[marks]], axis=0), axis=1).sum())
        rows.append(
            (
                mover,
                "mover",
                names[mine[0]],
                float(away[mine].mean()),
                travelled / duration,
                duration,
                mover in match.truth_ids,
                mover in told_objects,
            )
        )
    objects = {row["track_id"]: row for row in tracks.objects.to_pylist()}
    samples, of_sample = (
        tracks.samples["range"].to_numpy(zero_copy_only=False).astype(float),
        tracks.samples["track_id"].to_numpy(),
    )
    for track in match.track_ids[match.judged & (match.truth_ids < 0)].tolist():
        mine = samples[of_sample == track]
        mine = mine[np.isfinite(mine)]
        item = objects[track]
        rows.append(
            (
                track,
                "false",
                item["class_name"],
                told * float(mine.mean()) if len(mine) else None,
                None,
                item["last_s"] - item["first_s"],
                False,
                track in told_tracks,
            )
        )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(AUDITED_OBJECTS)
    return make_table(AUDITED_OBJECTS, {name: list(values) for name, values in zip(AUDITED_OBJECTS.names, columns, strict=True)})
