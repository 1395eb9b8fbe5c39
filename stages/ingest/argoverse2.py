"""Argoverse 2 sensor logs: `annotations.feather` in the car's frame and `city_SE3_egovehicle.feather`, as tracks in the city.

Columns follow Wilson et al., "Argoverse 2: next generation datasets for self-driving perception and forecasting", NeurIPS
datasets 2021, and its user guide: nanosecond timestamps of lidar sweeps, quaternions as qw, qx, qy, qz, boxes by their
centres.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
from pydantic import NonNegativeFloat

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline, moved_points, poses_at, rigid_poses, turned_yaw
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.text_columns import numbers

# The sensor data set's own boxes, or those of scenario mining, which list the car itself among the objects.
ANNOTATIONS = ("annotations.feather", "annotations_with_ego.feather", "sm_annotations.feather")
EGO_POSES, EGO_CATEGORY = "city_SE3_egovehicle.feather", "EGO_VEHICLE"
CALIBRATION = ("calibration/egovehicle_SE3_sensor.feather", "calibration/intrinsics.feather")
_QUATERNION, _TRANSLATION = ("qw", "qx", "qy", "qz"), ("tx_m", "ty_m", "tz_m")


@dataclass(frozen=True)
class Argoverse2Config:
    """How an Argoverse 2 log is read.

    Attributes:
        camera: whose path and pixels are told, where the log has its calibration.
        max_pose_gap_s: a pose of the car is interpolated between neighbours no further apart than this.
        rules: how boxes become tracks.
    """

    camera: str = "ring_front_center"
    max_pose_gap_s: NonNegativeFloat = 0.2
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.argoverse2", version=1)
def ingest_argoverse2(
    source: Source, config: Argoverse2Config, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read a log's annotations as tracks in its city's frame (metres, z up).

    Raises:
        WorldlineError: if a file is missing, does not parse or lacks a column.
    """
    wanted = ("timestamp_ns", "track_uuid", "category", "length_m", "width_m", "height_m", *_QUATERNION, *_TRANSLATION)
    name = next((name for name in ANNOTATIONS if name in source.files), ANNOTATIONS[0])
    rows = read_feather(source, name, wanted)
    poses = read_feather(source, EGO_POSES, ("timestamp_ns", *_QUATERNION, *_TRANSLATION))
    progress(1, 2, f"{rows.num_rows} boxes")
    instant, has_time = _nanoseconds(rows["timestamp_ns"])
    instants = np.unique(instant[has_time])
    pose_ns, pose_has_time = _nanoseconds(poses["timestamp_ns"])
    world_from_ego, usable = rigid_poses(_stacked(poses, _QUATERNION), _stacked(poses, _TRANSLATION))
    usable &= pose_has_time
    at_frames, known = poses_at(pose_ns[usable], world_from_ego[usable], instants, config.max_pose_gap_s * 1e9)

    frame = np.where(has_time, np.searchsorted(instants, instant), -1)
    pose = at_frames[np.maximum(frame, 0)] if len(instants) else np.tile(np.eye(4), (len(frame), 1, 1))
    in_ego, upright = rigid_poses(_stacked(rows, _QUATERNION), np.zeros((rows.num_rows, 3)))
    yaw = turned_yaw(pose[:, :3, :3] @ in_ego[:, :3, :3], np.tile([1.0, 0, 0], (rows.num_rows, 1)))
    category = _strings(rows["category"])
    boxes = AnnotatedBoxes(
        source_id=_strings(rows["track_uuid"]),
        source_class=category,
        frame=frame,
        position=moved_points(pose, _stacked(rows, _TRANSLATION)),
        position_is="centre",
        size=_stacked(rows, ("length_m", "width_m", "height_m")),
        yaw_rad=np.where(upright, yaw, np.nan),
        dropped={
            "not_an_object": pc.fill_null(pc.equal(category, EGO_CATEGORY), False).to_numpy(zero_copy_only=False),
            "no_ego_pose": (frame >= 0) & ~(known[np.maximum(frame, 0)] if len(known) else np.zeros(len(frame), bool)),
        },
        notes=(("tracks.broken_poses", int((~usable).sum()), "rows", f"of {EGO_POSES} that give no pose"),),
    )
    ego_from_camera, intrinsics, width, height = _camera(source, config.camera)
    seconds = (instants - instants[:1]) / 1e9
    timeline = Timeline(seconds, at_frames @ ego_from_camera, known, intrinsics, width, height)
    provenance = {
        "format": "argoverse2",
        "log": source.name,
        "source": content_digest(source),
        "camera": config.camera if intrinsics is not None else "",
        "time_source": "timestamp_ns",
        "epoch_ns": int(instants[0]) if len(instants) else None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, timeline, config.rules, provenance)


def read_feather(source: Source, name: str, columns: tuple[str, ...]) -> pa.Table:
    """Return these columns of a feather file.

    Raises:
        WorldlineError: if the file is missing, does not parse or lacks a column.
    """
    if name not in source.files:
        raise WorldlineError(f"{source.name} has no {name}, which an Argoverse 2 log needs: complete the folder")
    try:
        table = feather.read_table(source.files[name], memory_map=False)
        table.validate(full=True)
        missing = [column for column in columns if column not in table.column_names]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorldlineError(f"{source.name}/{name} is not a readable feather file ({error}): download it again") from error
    if missing:
        raise WorldlineError(f"{source.name}/{name} lacks the columns {', '.join(missing)}: download it again")
    return table.select(list(columns))


def _nanoseconds(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return whole nanoseconds and which rows have them; float64 would round them to 256."""
    if not pa.types.is_integer(column.type):
        values = numbers(column)
        return np.nan_to_num(values).astype(np.int64), np.isfinite(values)
    known = column.is_valid().to_numpy()
    return column.fill_null(0).cast(pa.int64()).to_numpy(), known


def _stacked(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    return np.stack([numbers(table[name]) for name in names], -1)


def _strings(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()


def _camera(source: Source, camera: str) -> tuple[np.ndarray, np.ndarray | None, int, int]:
    """Return the car from the camera, its matrix and the size of its images; looking forward where there is none."""
    if not all(name in source.files for name in CALIBRATION):
        return EGO_FROM_FORWARD_CAMERA, None, 0, 0
    extrinsics = read_feather(source, CALIBRATION[0], ("sensor_name", *_QUATERNION, *_TRANSLATION))
    lenses = read_feather(source, CALIBRATION[1], ("sensor_name", "fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px"))
    mounted = _row_of(extrinsics, camera, source.name)
    lens = _row_of(lenses, camera, source.name)
    pose, usable = rigid_poses(*(np.array([[mounted[name] for name in names]], float) for names in (_QUATERNION, _TRANSLATION)))
    matrix = np.array([[lens["fx_px"], 0, lens["cx_px"]], [0, lens["fy_px"], lens["cy_px"]], [0, 0, 1]], float)
    if not usable[0] or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise WorldlineError(f"{source.name}: the calibration of {camera} is damaged: download the folder calibration again")
    return pose[0], matrix, int(lens["width_px"]), int(lens["height_px"])


def _row_of(table: pa.Table, camera: str, log: str) -> dict[str, Any]:
    names = table["sensor_name"].to_pylist()
    if camera not in names:
        raise WorldlineError(f"{log} has no calibration of camera={camera}: it has {', '.join(map(str, names))}")
    row: dict[str, Any] = table.slice(names.index(camera), 1).to_pylist()[0]
    return row
