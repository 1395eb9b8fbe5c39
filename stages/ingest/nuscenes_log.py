"""A nuScenes scene as a driving log: JSON tables, the front camera's images, the lidar's sweeps, and the map where it is.

    v1.0-*/*.json                      the tables (or in the folder itself)
    samples/, sweeps/                  images and sweeps under the names that sample_data gives
    maps/expansion/LOCATION.json       the map expansion; optional

Frames are all images of the camera between the scene's first and last key frame, at 12 Hz. Boxes are annotated at key frames,
twice a second, at the lidar's time; at an image's own time a box lies on the straight line between the key frames before and
after. Sweeps are those of key frames: float32 rows of x, y, z, intensity and ring in the lidar's frame.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from pydantic import PositiveFloat

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.driving import RoadMap
from schemas.errors import WorldlineError
from stages.contract import Progress, stage
from stages.ingest.driving_log import (
    DrivingLog,
    EgoBody,
    LogSelection,
    RecordedLog,
    Sweep,
    assemble_log,
    pick_frames,
    read_frames,
    read_points,
    road_map,
)
from stages.ingest.ego_poses import rigid_poses, turned_yaw
from stages.ingest.nuscenes import Record, annotated_motion, find_scene, ordered_samples, read_table, vectors
from stages.ingest.settle_tracks import AnnotatedBoxes
from stages.ingest.timing import check_selection
from worldline.cameras import scale_intrinsics

LIDAR = "LIDAR_TOP"
_SWEEP_COLUMNS = 5
_EARLY_S = 0.06  # an image at a key frame may be taken this long before or after the key frame's own time
_LONGEST_GAP_S = 0.75  # between key frames that a box is drawn between
_MAP_REACH_M = 80.0
_MAP_LINES = {"lane_divider": "lane_line", "road_divider": "lane_line"}
_MAP_AREAS = {"lane": "drivable", "road_segment": "drivable", "ped_crossing": "crosswalk"}


@dataclass(frozen=True, kw_only=True)
class NuscenesLogConfig(LogSelection):
    """How a nuScenes scene is read as a driving log, beside `LogSelection`.

    Attributes:
        scene: its name ("scene-0061"); empty takes the first.
        camera: channel whose images are the frames.
        length_m, width_m: of the car (a Renault Zoe).
        middle_m: the point on the ground under its middle, in the frame of ego_pose, which lies on the ground under the middle of
            the rear axle (x forward, y left, z up).
    """

    scene: str = ""
    camera: str = "CAM_FRONT"
    length_m: PositiveFloat = 4.08
    width_m: PositiveFloat = 1.73
    middle_m: tuple[float, float, float] = (1.38, 0.0, 0.0)


@stage("ingest.nuscenes_log", version=1)
def ingest_nuscenes_log(source: Source, config: NuscenesLogConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read one scene of the nuScenes tables as a driving log.

    Raises:
        WorldlineError: if a file is missing or does not parse, there is no such scene, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    scene, samples, images, sweeps = scene_data(source, config.scene, config.camera)
    if not images:
        raise WorldlineError(f"{source.name}: {scene['name']} has no images of {config.camera}: name another camera")
    micros = [int(row["timestamp"]) for row in images]
    places = pick_frames([(instant - micros[0]) / 1e6 for instant in micros], config, source.name)
    kept = [images[place] for place in places]
    names = [str(row["filename"]) for row in kept]
    if missing := [name for name in names if name not in source.files]:
        raise WorldlineError(f"{source.name} has no {missing[0]} ({len(missing)} images lack): complete samples and sweeps")
    video, original = read_frames(source, names, config.max_side, progress)

    sensors = {row["token"]: row for row in read_table(source, "calibrated_sensor")}
    ego, known = _ego_poses(source, kept)
    mounted, usable = _mounted(sensors, kept)
    matrix = np.array(sensors[kept[0]["calibrated_sensor_token"]].get("camera_intrinsic") or np.nan, float)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise WorldlineError(
            f"{source.name}: calibrated_sensor.json has no camera_intrinsic of {config.camera}: download it again"
        )
    calibrated = (kept[0].get("width") or original[0], kept[0].get("height") or original[1])  # images may be smaller copies
    epoch_ns = micros[places[0]] * 1000
    middle = np.eye(4)
    middle[:3, 3] = config.middle_m
    clip = Clip(
        frames=video,
        times_s=np.array([micros[place] - micros[places[0]] for place in places]) / 1e6,
        name=str(scene["name"]),
        epoch_ns=epoch_ns,
        intrinsics=scale_intrinsics(matrix, video.shape[2] / calibrated[0], video.shape[1] / calibrated[1]),
        provenance={
            "kind": "nuscenes_log",
            "source": content_digest(source),
            "camera": config.camera,
            "original_width_px": original[0],
            "original_height_px": original[1],
            "frames_in_source": len(images),
        },
    )
    log = RecordedLog(
        clip=clip,
        world_from_camera=ego @ mounted,
        known=known & usable,
        world_from_ego=ego @ middle,
        boxes=_boxes(source, samples, np.array([micros[place] for place in places])),
        kept=range(len(kept)),
        body=EgoBody(config.length_m, config.width_m),
        road_map=_map(source, scene, ego[known, :3, 3]),
        sweeps=_sweeps(source, sweeps, sensors, micros[places[0]], micros[places[-1]]),
        provenance={
            "format": "nuscenes_log",
            "log": str(scene["name"]),
            "source": content_digest(source),
            "camera": config.camera,
            "time_source": "timestamp",
            "epoch_ns": epoch_ns,
        },
    )
    return assemble_log(log)


def scene_data(source: Source, name: str, camera: str) -> tuple[Record, list[Record], list[Record], list[Record]]:
    """Return a scene, its samples in order, and the sample_data of its images and of its key frames' sweeps in order of time.

    Raises:
        WorldlineError: if a table is missing or is no JSON, or there is no such scene.
    """
    scene = find_scene(read_table(source, "scene"), name, source.name)
    samples = ordered_samples(scene, [row for row in read_table(source, "sample") if row.get("scene_token") == scene["token"]])
    samples = [row for row in samples if isinstance(row.get("timestamp"), int)]
    instants = [row["timestamp"] for row in samples]
    first, last = min(instants, default=0) - 1e6 * _EARLY_S, max(instants, default=0) + 1e6 * _EARLY_S
    channel_of = {row["token"]: row.get("channel") for row in read_table(source, "sensor")}
    channels = {row["token"]: channel_of.get(row.get("sensor_token")) for row in read_table(source, "calibrated_sensor")}
    tokens = {row["token"] for row in samples}
    images: dict[int, Record] = {}
    sweeps: dict[int, Record] = {}
    for row in read_table(source, "sample_data"):
        instant, channel = row.get("timestamp"), channels.get(row.get("calibrated_sensor_token"))
        if row.get("sample_token") not in tokens or not isinstance(instant, int) or not first <= instant <= last:
            continue
        if channel == camera:
            images.setdefault(instant, row)
        elif channel == LIDAR and row.get("is_key_frame") is not False:
            sweeps.setdefault(instant, row)
    in_order = [[rows[instant] for instant in sorted(rows)] for rows in (images, sweeps)]
    return scene, samples, in_order[0], in_order[1]


def _ego_poses(source: Source, rows: Iterable[Record]) -> tuple[Float64[np.ndarray, "N 4 4"], Bool[np.ndarray, " N"]]:
    """Return the car's poses at some sample_data, and which are known."""
    wanted = [row.get("ego_pose_token") for row in rows]
    there = set(wanted)
    poses = {row["token"]: row for row in read_table(source, "ego_pose") if row["token"] in there}
    told = [poses.get(token, {}) for token in wanted]
    return rigid_poses(vectors(told, "rotation", 4), vectors(told, "translation", 3))


def _mounted(
    sensors: Mapping[str, Record], rows: Sequence[Record]
) -> tuple[Float64[np.ndarray, "N 4 4"], Bool[np.ndarray, " N"]]:
    """Return where the sensor of each sample_data sits on the car."""
    told = [sensors.get(str(row.get("calibrated_sensor_token")), {}) for row in rows]
    return rigid_poses(vectors(told, "rotation", 4), vectors(told, "translation", 3))


def _sweeps(source: Source, rows: Sequence[Record], sensors: Mapping[str, Record], first_us: int, last_us: int) -> list[Sweep]:
    """Return the sweeps whose files are there, in the span of the frames and half a tenth of a second around it."""
    rows = [row for row in rows if str(row.get("filename")) in source.files]
    rows = [row for row in rows if first_us - 1e6 * _EARLY_S <= row["timestamp"] <= last_us + 1e6 * _EARLY_S]
    if not rows:
        return []
    ego, known = _ego_poses(source, rows)
    mounted, usable = _mounted(sensors, rows)
    poses = ego @ mounted
    sweeps = []
    for index in np.flatnonzero(known & usable).tolist():
        name = str(rows[index]["filename"])
        points = read_points(source.files[name], f"{source.name}/{name}", _SWEEP_COLUMNS)[:, :3].astype(np.float64)
        pose = poses[index]
        sweeps.append(Sweep((rows[index]["timestamp"] - first_us) / 1e6, pose[:3, 3], points @ pose[:3, :3].T + pose[:3, 3]))
    return sweeps


def _boxes(source: Source, samples: Sequence[Record], images_us: np.ndarray) -> AnnotatedBoxes:
    """Return the boxes at the images' times: between key frames on the straight line, at the first and last as annotated."""
    instant = {row["token"]: int(row["timestamp"]) for row in samples}
    categories = {row["token"]: str(row.get("name", "")) for row in read_table(source, "category")}
    classes = {row["token"]: categories.get(row.get("category_token"), "") for row in read_table(source, "instance")}
    attributes = {row["token"]: row.get("name") for row in optional_table(source, "attribute")}
    by_instance: dict[str, list[Record]] = defaultdict(list)
    for row in read_table(source, "sample_annotation"):
        if row.get("sample_token") in instant:
            by_instance[str(row.get("instance_token"))].append(row)
    ids: list[str] = []
    parts: list[np.ndarray] = []  # frame, x, y, z, length, width, height, yaw, moving
    for token, rows in sorted(by_instance.items()):
        rows.sort(key=lambda row: instant[row["sample_token"]])
        times_us = np.array([instant[row["sample_token"]] for row in rows])
        frame, before, after, share = _between(times_us, images_us)
        rotation, upright = rigid_poses(vectors(rows, "rotation", 4), np.zeros((len(rows), 3)))
        yaw = np.where(upright, turned_yaw(rotation[:, :3, :3], np.tile([1.0, 0, 0], (len(rows), 1))), np.nan)
        turn = np.arctan2(np.sin(yaw[after] - yaw[before]), np.cos(yaw[after] - yaw[before]))
        place, size = vectors(rows, "translation", 3), vectors(rows, "size", 3)[:, [1, 0, 2]]
        moving = np.array([annotated_motion(row.get("attribute_tokens"), attributes) for row in rows], float)
        numbers = [
            frame,
            *(place[before] + share[:, None] * (place[after] - place[before])).T,
            *size[before].T,
            yaw[before] + share * turn,
            moving[np.where(share < 0.5, before, after)],
        ]
        parts.append(np.stack(numbers, -1))
        ids += [token] * len(frame)
    table = np.concatenate(parts) if parts else np.zeros((0, 9))
    return AnnotatedBoxes(
        source_id=pa.array(ids, pa.string()),
        source_class=pa.array([classes.get(token, "") for token in ids], pa.string()),
        frame=table[:, 0].astype(np.int64),
        position=table[:, 1:4],
        position_is="centre",
        size=table[:, 4:7],
        yaw_rad=table[:, 7],
        moving=table[:, 8],
    )


def _between(times_us: np.ndarray, images_us: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images at which an object is known, the annotations before and after each, and how far it is on the way."""
    after = np.clip(np.searchsorted(times_us, images_us), 0, len(times_us) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(times_us[before] - images_us) < np.abs(times_us[after] - images_us), before, after)
    inside = (times_us[before] <= images_us) & (images_us <= times_us[after])
    inside &= times_us[after] - times_us[before] <= 1e6 * _LONGEST_GAP_S
    alone = ~inside & (np.abs(times_us[nearest] - images_us) <= 1e6 * _EARLY_S)
    before, after = np.where(alone, nearest, before), np.where(alone, nearest, after)
    gap = times_us[after] - times_us[before]
    share = np.where(gap > 0, (images_us - times_us[before]) / np.maximum(gap, 1), 0.0)
    frame = np.flatnonzero(inside | alone)
    return frame, before[frame], after[frame], share[frame]


def optional_table(source: Source, name: str) -> list[Record]:
    """Return the records of a table, none where there is no such table."""
    there = any(PurePosixPath(file).name == f"{name}.json" for file in source.files)
    return read_table(source, name) if there else []


def _map(source: Source, scene: Record, ego: Float64[np.ndarray, "N 3"]) -> RoadMap:
    """Return lanes, junctions, dividers and crossings of the map expansion near the path, at the height of the car's place there.

    Areas with holes are left out: whole road networks around blocks of houses.

    Raises:
        WorldlineError: if the map's file is not as nuScenes writes it.
    """
    location = next(
        (row.get("location") for row in optional_table(source, "log") if row["token"] == scene.get("log_token")), None
    )
    name = f"maps/expansion/{location}.json"
    if name not in source.files or not len(ego):
        return RoadMap.none()
    try:
        told = json.loads(source.files[name].read_bytes())
        nodes = {row["token"]: (float(row["x"]), float(row["y"])) for row in told["node"]}
        lines = {row["token"]: row["node_tokens"] for row in told["line"]}
        areas = {row["token"]: row["exterior_node_tokens"] for row in told["polygon"] if not row.get("holes")}
        found = [(kind, lines[row["line_token"]]) for layer, kind in _MAP_LINES.items() for row in told.get(layer, [])]
        found += [
            (kind, areas[row["polygon_token"]])
            for layer, kind in _MAP_AREAS.items()
            for row in told.get(layer, [])
            if row["polygon_token"] in areas
        ]
        elements = [(kind, np.array([nodes[token] for token in tokens]).reshape(-1, 2)) for kind, tokens in found]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorldlineError(f"{source.name}/{name} is no map expansion of nuScenes ({error!r}): download it again") from error
    return road_map(_near(elements, ego), f"{source.name}/{name}")


def _near(elements: Sequence[tuple[str, np.ndarray]], ego: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the elements within reach of the path, each point at the height of the path's point nearest to it."""
    near = []
    for kind, points in elements:
        if len(points) < (3 if kind == "drivable" else 2):
            continue
        distance = np.linalg.norm(points[:, None] - ego[None, :, :2], axis=2)
        if distance.min() <= _MAP_REACH_M:
            near.append((kind, np.column_stack([points, ego[distance.argmin(1), 2]])))
    return near
