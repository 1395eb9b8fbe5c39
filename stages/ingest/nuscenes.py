"""nuScenes: one scene of its JSON tables (v1.0) as tracks in the map's frame; no development kit is needed.

Tables and units follow Caesar et al., "nuScenes: a multimodal dataset for autonomous driving", CVPR 2020, and the schema
page of its development kit: microseconds, boxes by their centres with sizes as width, length, height, rotations as w, x,
y, z from the object to the world.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline, rigid_poses, turned_yaw
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks

NEEDED = ("scene", "sample", "sample_annotation", "instance", "category", "ego_pose", "sample_data")
OPTIONAL = ("attribute", "calibrated_sensor", "sensor")
_MOVING = {
    **{"vehicle.moving": 1.0, "vehicle.parked": 0.0, "vehicle.stopped": 0.0},
    **{"pedestrian.moving": 1.0, "pedestrian.standing": 0.0, "pedestrian.sitting_lying_down": 0.0},
}


@dataclass(frozen=True)
class NuscenesConfig:
    """How a nuScenes scene is read.

    Attributes:
        scene: name of the scene ("scene-0061"); empty takes the first.
        camera: channel whose path and pixels are told, where the tables have its calibration.
        rules: how boxes become tracks.
    """

    scene: str = ""
    camera: str = "CAM_FRONT"
    rules: AnnotationRules = field(default_factory=AnnotationRules)


Record = dict[str, Any]


@stage("ingest.nuscenes", version=1)
def ingest_nuscenes(
    source: Source, config: NuscenesConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read the keyframe annotations of one scene as tracks.

    Frames are the scene's samples at their own timestamps. The camera's pose at a sample is that of its key frame, whose
    exposure is within 50 ms of it.

    Raises:
        WorldlineError: if a table is missing or is no JSON, or there is no such scene.
    """
    tables = {name: read_table(source, name) for name in NEEDED}
    tables |= {name: read_table(source, name) if _has(source, name) else [] for name in OPTIONAL}
    scene = find_scene(tables["scene"], config.scene, source.name)
    samples = ordered_samples(scene, [row for row in tables["sample"] if row.get("scene_token") == scene["token"]])
    place = {row["token"]: index for index, row in enumerate(samples)}
    microseconds = [_whole(row.get("timestamp")) for row in samples]
    told = [value for value in microseconds if value is not None]
    origin = min(told, default=0)
    times = np.array([np.nan if value is None else (value - origin) / 1e6 for value in microseconds])
    progress(1, 2, f"{len(samples)} samples")

    rows = [row for row in tables["sample_annotation"] if row.get("sample_token") in place]
    instances = {row["token"]: row.get("category_token") for row in tables["instance"]}
    categories = {row["token"]: str(row.get("name", "")) for row in tables["category"]}
    attributes = {row["token"]: row.get("name") for row in tables["attribute"]}
    classes = [categories.get(instances.get(row.get("instance_token")), "") for row in rows]
    rotation, upright = rigid_poses(vectors(rows, "rotation", 4), np.zeros((len(rows), 3)))
    yaw = turned_yaw(rotation[:, :3, :3], np.tile([1.0, 0, 0], (len(rows), 1)))
    width, length, height = vectors(rows, "size", 3).T
    boxes = AnnotatedBoxes(
        source_id=pa.array([row.get("instance_token") for row in rows], pa.string()),
        source_class=pa.array(classes, pa.string()),
        frame=np.array([place[row["sample_token"]] for row in rows], np.int64),
        position=vectors(rows, "translation", 3),
        position_is="centre",
        size=np.stack([length, width, height], -1),
        yaw_rad=np.where(upright, yaw, np.nan),
        moving=np.array([annotated_motion(row.get("attribute_tokens"), attributes) for row in rows], float),
    )
    timeline = _timeline(tables, times, place, config.camera)
    provenance = {
        "format": "nuscenes",
        "log": str(scene["name"]),
        "source": content_digest(source),
        "camera": config.camera if timeline.intrinsics is not None else "",
        "time_source": "timestamp",
        "epoch_ns": origin * 1000 if told else None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, timeline, config.rules, provenance)


def read_table(source: Source, name: str) -> list[Record]:
    """Return the records of one table that have a token.

    Raises:
        WorldlineError: if it is missing or no list of records.
    """
    found = [file for file in source.files if PurePosixPath(file).name == f"{name}.json"]
    if not found:
        raise WorldlineError(f"{source.name} has no {name}.json, which the nuScenes tables need: complete the folder")
    path = source.files[found[0]]
    return _records(path, f"{source.name}/{found[0]}", path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=len(NEEDED) + len(OPTIONAL))
def _records(path: Path, shown: str, changed_ns: int) -> list[Record]:
    """Return a parsed table; kept until the file changes, because every scene of a release reads the same tables."""
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{shown} is not readable JSON ({error}): download that file again") from error
    if not isinstance(records, list):
        raise WorldlineError(f"{shown} is not a list of records: download that file again")
    return [record for record in records if isinstance(record, dict) and isinstance(record.get("token"), str)]


def find_scene(scenes: list[Record], name: str, release: str) -> Record:
    """Return a scene by its name, the first for "".

    Raises:
        WorldlineError: if there is none.
    """
    for scene in scenes:
        if not name or scene.get("name") == name:
            return {"name": scene["token"], **scene}
    some = ", ".join(str(scene.get("name")) for scene in scenes[:3]) or "none"
    raise WorldlineError(f"{release} has no scene {name or 'at all'}: it has {some}")


def _has(source: Source, name: str) -> bool:
    return any(PurePosixPath(file).name == f"{name}.json" for file in source.files)


def ordered_samples(scene: Record, samples: list[Record]) -> list[Record]:
    """Return samples by the chain of `next` from the scene's first, then those that it does not reach."""
    by_token = {row["token"]: row for row in samples}
    ordered: dict[str, Record] = {}
    token = scene.get("first_sample_token")
    while isinstance(token, str) and token in by_token and token not in ordered:
        ordered[token] = by_token[token]
        token = by_token[token].get("next")
    rest = [row for row in samples if row["token"] not in ordered]
    return [*ordered.values(), *sorted(rest, key=lambda row: (_whole(row.get("timestamp")) or 0, row["token"]))]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**62 else None


def vectors(rows: list[Record], name: str, length: int) -> np.ndarray:
    """Return `[N, length]` numbers, NaN for a row that has none there."""
    nothing = [np.nan] * length

    def vector(row: Record) -> list[float]:
        value = row.get(name)
        whole = isinstance(value, list) and len(value) == length and all(isinstance(item, int | float) for item in value)
        return [float(item) for item in value] if whole and value is not None else nothing

    return np.array([vector(row) for row in rows], float).reshape(len(rows), length)


def annotated_motion(tokens: Any, attributes: dict[str, Any]) -> float:
    """Return 1 or 0 where an attribute says that the object moves or does not, else NaN."""
    for token in tokens if isinstance(tokens, list) else []:
        name = attributes.get(token) if isinstance(token, str) else None
        if name in _MOVING:
            return _MOVING[name]
    return np.nan


def _timeline(tables: dict[str, list[Record]], times: np.ndarray, place: dict[str, int], camera: str) -> Timeline:
    """Return where the camera was at each sample; where it is not calibrated, the car of whichever sensor is told of."""
    channels = {row["token"]: row.get("channel") for row in tables["sensor"]}
    sensors = {row["token"]: row for row in tables["calibrated_sensor"]}
    data = [row for row in tables["sample_data"] if row.get("sample_token") in place and row.get("is_key_frame") is not False]

    def channel(row: Record) -> Any:
        return channels.get(sensors.get(row.get("calibrated_sensor_token"), {}).get("sensor_token"))

    mine = [row for row in data if channel(row) == camera]
    lens = sensors[mine[0]["calibrated_sensor_token"]] if mine else {}
    ego_from_camera, intrinsics, size = _lens(lens, mine)
    chosen = mine if intrinsics is not None else sorted(data, key=lambda row: channel(row) != "LIDAR_TOP")
    wanted = {row.get("ego_pose_token") for row in chosen}
    poses = {row["token"]: row for row in tables["ego_pose"] if row["token"] in wanted}
    by_frame: dict[int, Record] = {}
    for row in chosen:
        if row.get("ego_pose_token") in poses:
            by_frame.setdefault(place[row["sample_token"]], poses[row["ego_pose_token"]])
    rows = [by_frame.get(index, {}) for index in range(len(times))]
    world_from_ego, known = rigid_poses(vectors(rows, "rotation", 4), vectors(rows, "translation", 3))
    return Timeline(times, world_from_ego @ ego_from_camera, known, intrinsics, *size)


def _lens(sensor: Record, data: list[Record]) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int]]:
    """Return the car from the camera, its matrix and image size; looking forward where any of them is missing."""
    pose, usable = rigid_poses(vectors([sensor], "rotation", 4), vectors([sensor], "translation", 3))
    matrix = vectors([{"row": row} for row in sensor.get("camera_intrinsic") or []], "row", 3)
    size = [_whole(data[0].get(name)) or 0 for name in ("width", "height")] if data else [0, 0]
    if not usable[0] or matrix.shape != (3, 3) or not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or min(size) <= 0:
        return EGO_FROM_FORWARD_CAMERA, None, (0, 0)
    return pose[0], matrix, (size[0], size[1])
