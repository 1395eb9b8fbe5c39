"""A plain folder as a driving log: frames, poses in any format of `worldline.camera_files`, boxes in our own table.

    images/                                 frames (or in the folder itself), with their times as for `ingest.frames`
    transforms.json, sparse/0, poses.txt    the camera's poses: nerfstudio, COLMAP, TUM or KITTI; metres, z up
    boxes.parquet, boxes.csv, boxes.csv.gz  the others, as docs/tracks.md describes tables; rows of class "ego" are the vehicle
    map.json                                a list of {"kind": ..., "points": [[x, y, z], ...]}
    lidar/NNN.npz, lidar/NNN.bin            points: xyz [N, 3], origin [3] and time_s; or float32 rows of x, y, z, intensity

Everything is in one world. docs/driving_logs.md describes each file.
"""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from pydantic import PositiveFloat

from schemas.artifact import Files
from schemas.cameras import CameraPath
from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.driving import RoadMap
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import Progress, stage
from stages.ingest.driving_log import (
    DrivingLog,
    EgoBody,
    LogSelection,
    RecordedLog,
    Sweep,
    assemble_log,
    ego_under_camera,
    height_over_road,
    no_boxes,
    read_map,
    read_points,
)
from stages.ingest.frames import FramesConfig, FrameTimes, image_times, ingest_frames
from stages.ingest.settle_tracks import AnnotatedBoxes
from stages.ingest.text_columns import numbers
from stages.ingest.track_table import boxes_of_rows, ego_poses_of_rows, ego_rows, read_tracks
from stages.pose.given import GivenConfig, read_given_poses
from worldline.camera_files import undistorter

FRAMES, POSES, MAP_FILE = "frames", "poses", "map.json"
BOX_FILES = ("boxes.parquet", "boxes.csv", "boxes.csv.gz")
_SWEEP = re.compile(r"lidar/(?:.*?)(\d+)\.(npz|bin)")
_USUAL_HEIGHT_M = 1.6


@dataclass(frozen=True, kw_only=True)
class PlainLogConfig(LogSelection):
    """How a plain folder is read, beside `LogSelection`.

    Attributes:
        rate_hz: of the frames, where neither a file of times nor EXIF tells theirs.
        intrinsics: (fx, fy, cx, cy) in pixels of the images, pixel centres at +0.5; needed with TUM and KITTI trajectories.
        up: axis of the poses' world that points up. Boxes, map and lidar are in the same world, so only "z" goes with them.
        time_tolerance_s: a frame takes the pose of a TUM trajectory that lies at most so far from it in time.
        position: which point of a box the table's x, y and z are: "bottom" (the middle of its bottom face) or "centre".
        length_m, width_m: of the recording vehicle.
        camera_height_m: over the road; None measures it by the lidar (1.6 m where there is none). Not where the table has rows
            of class "ego".
        camera_forward_m: how far the camera stands before the vehicle's middle. Not where the table has rows of class "ego".
    """

    rate_hz: PositiveFloat = 10.0
    intrinsics: tuple[float, float, float, float] | None = None
    up: Literal["x", "y", "z", "-y"] = "z"
    time_tolerance_s: PositiveFloat = 0.02
    position: Literal["bottom", "centre"] = "bottom"
    length_m: PositiveFloat = 4.7
    width_m: PositiveFloat = 1.9
    camera_height_m: PositiveFloat | None = None
    camera_forward_m: float = 1.0


@stage("ingest.plain_log", version=1)
def ingest_plain_log(source: Source, config: PlainLogConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read a folder of frames, poses, boxes, map and lidar as a driving log.

    Rows of the table belong to the frame that they name (`frame`, counted from 0 over all images) or to the one nearest in time.
    Frames without a pose are kept and not registered. A lens that the poses' files tell is taken out of the frames.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    images = _part(source, FRAMES, "frames")
    clip, _ = ingest_frames(
        images,
        FramesConfig(
            frames_per_second=config.rate_hz,
            start_s=config.start_s,
            end_s=config.end_s,
            max_frames=config.max_frames,
            max_side=config.max_side,
            keep_frames_per_second=config.frames_per_second,
            intrinsics=config.intrinsics,
        ),
        seed=seed,
        progress=progress,
    )
    names, times = image_times(images, config.rate_hz)
    kept = [names.index(name) for name in clip.provenance["files"]]
    others = [name for name in source.files if name in (*BOX_FILES, MAP_FILE) or _SWEEP.fullmatch(name)]
    if config.up != "z" and others:
        raise WorldlineError(
            f"{source.name}: ingest.plain_log.up={config.up} turns the poses and leaves {others[0]} as it is: write all of them "
            "in a world with z up"
        )
    poses = _part(source, POSES, _pose_layout(source))
    given = GivenConfig(metric=True, up=config.up, time_tolerance_s=config.time_tolerance_s)
    path = _path(clip, times.seconds[kept[0]], poses, given)
    clip = _pinhole_clip(clip, path, source)
    sweeps = _sweeps(source, times, kept, path)
    table = next((name for name in BOX_FILES if name in source.files), None)
    boxes, ego, told = no_boxes(), path.world_from_camera, np.zeros(len(kept), bool)
    if table is not None:
        boxes, ego, told = _table(source, table, times, kept, config.position)
    if not told.any():
        places = path.world_from_camera[path.registered, :3, 3]
        height = config.camera_height_m or height_over_road(
            (sweep.points, places[np.linalg.norm(places - sweep.origin, axis=1).argmin()]) for sweep in sweeps
        )
        ego = ego_under_camera(path.world_from_camera, height or _USUAL_HEIGHT_M, config.camera_forward_m)
        told = path.registered
    log = RecordedLog(
        clip=clip,
        world_from_camera=path.world_from_camera,
        known=path.registered,
        world_from_ego=ego,
        ego_known=told,
        boxes=boxes,
        kept=kept,
        body=EgoBody(config.length_m, config.width_m),
        road_map=read_map(source, MAP_FILE) if MAP_FILE in source.files else RoadMap.none(),
        sweeps=sweeps,
        provenance={
            "format": "plain_log",
            "log": source.name,
            "source": content_digest(source),
            "camera": "",
            "time_source": times.origin,
            "epoch_ns": clip.epoch_ns,
        },
        scale_source="annotations" if table is not None else "given",
    )
    return assemble_log(log)


def _part(source: Source, folder: str, layout: str) -> Source:
    """Return the files below a folder as a source of their own."""
    files = {name.removeprefix(f"{folder}/"): path for name, path in source.files.items() if name.startswith(f"{folder}/")}
    if not files:
        raise WorldlineError(f"{source.name} holds no {folder}: a plain driving log is described in docs/driving_logs.md")
    return Source(Files(files), layout, source.name)


def _pose_layout(source: Source) -> str:
    names = [name.removeprefix(f"{POSES}/") for name in source.files if name.startswith(f"{POSES}/")]
    if any(name.endswith(".json") for name in names):
        return "transforms"
    return "colmap" if any(name.startswith("cameras.") for name in names) else "trajectory"


def _path(clip: Clip, first_s: float, poses: Source, given: GivenConfig) -> CameraPath:
    """Return the path of a clip by poses whose times count from the first image, `first_s` before the clip's first frame."""
    epoch_ns = None if clip.epoch_ns is None else clip.epoch_ns - round(first_s * 1e9)
    path, _ = read_given_poses(replace(clip, times_s=clip.times_s + first_s, epoch_ns=epoch_ns), poses, given)
    return replace(path, times_s=clip.times_s)


def _pinhole_clip(clip: Clip, path: CameraPath, source: Source) -> Clip:
    """Return the clip with the path's lens taken out of its frames."""
    frames = clip.frames
    if path.distortion.any():
        repair = undistorter(path.intrinsics, path.distortion, *clip.size)
        frames = Video.from_array(np.stack([repair(frame) for frame in clip.frames]))
    provenance = {**clip.provenance, "kind": "plain_log", "source": content_digest(source)}
    return replace(clip, frames=frames, intrinsics=path.intrinsics, provenance=provenance)


def _table(
    source: Source, name: str, times: FrameTimes, kept: Sequence[int], position: str
) -> tuple[AnnotatedBoxes, Float64[np.ndarray, "T 4 4"], Bool[np.ndarray, " T"]]:
    """Return the boxes of a table, and the vehicle's pose in the kept frames of which the table tells it.

    Boxes in pixels are those of the 3D boxes, as for every log: the table's own would be of frames of another size.
    """
    table, broken = read_tracks(source.files[name], f"{source.name}/{name}")
    count = len(times.seconds)
    if "frame" in table.column_names:
        given = np.nan_to_num(numbers(table["frame"]), nan=-1.0)
        frame = np.where((given == np.floor(given)) & (given >= 0) & (given < count), given, -1).astype(np.int64)
    else:
        frame = _nearest(_seconds(table, times, f"{source.name}/{name}"), np.array(times.seconds))
    if table.num_rows and (frame < 0).all():
        raise WorldlineError(
            f"{source.name}/{name}: no row belongs to a frame: give a column frame, or times as in {times.origin}"
        )
    is_ego = ego_rows(table)
    note = ("tracks.broken_lines", broken, "lines", f"of {name} with another number of fields than the header")
    boxes = replace(boxes_of_rows(table, np.flatnonzero(~is_ego), frame, position, {}, (note,)), boxes_px=None)
    poses, known = ego_poses_of_rows(table, np.flatnonzero(is_ego & (frame >= 0)), frame, count)
    return boxes, poses[kept], known[kept]


def _seconds(table: pa.Table, times: FrameTimes, shown: str) -> Float64[np.ndarray, " N"]:
    """Return each row's time in seconds from the first image."""
    if "time_s" in table.column_names:
        return numbers(table["time_s"]) - float(times.first_s)
    if times.epoch_ns is None:
        raise WorldlineError(
            f"{shown} has Unix times and the frames have none: give a column frame, or timestamps.csv in Unix time"
        )
    return (numbers(table["timestamp_ns"]) - times.epoch_ns) / 1e9


def _nearest(seconds: Float64[np.ndarray, " N"], frames_s: Float64[np.ndarray, " F"]) -> np.ndarray:
    """Return the frame nearest to each time, -1 where none is within half the usual step between frames."""
    reach = float(np.median(np.diff(frames_s))) / 2 + 1e-6
    wanted = np.nan_to_num(seconds, nan=-np.inf)
    place = np.clip(np.searchsorted((frames_s[1:] + frames_s[:-1]) / 2, wanted), 0, len(frames_s) - 1)
    return np.where(np.abs(frames_s[place] - wanted) <= reach, place, -1)


def _sweeps(source: Source, times: FrameTimes, kept: Sequence[int], path: CameraPath) -> list[Sweep]:
    """Return the sweeps within the span of the kept frames; without a time of its own one is of the frame of its number.

    Without an origin of its own it is taken to be where the camera is in the frame nearest in time.

    Raises:
        WorldlineError: if a file does not hold points.
    """
    found = sorted((int(match[1]), name) for name in source.files if (match := _SWEEP.fullmatch(name)))
    first_s, last_s = times.seconds[kept[0]], times.seconds[kept[-1]]
    sweeps = []
    for number, name in found:
        shown = f"{source.name}/{name}"
        time_s, origin = None, None
        if PurePosixPath(name).suffix == ".bin":
            points = read_points(source.files[name], shown, 4)[:, :3].astype(np.float64)
        else:
            try:
                with np.load(source.files[name], allow_pickle=False) as arrays:
                    points = arrays["xyz"].astype(np.float64).reshape(-1, 3)
                    origin = arrays["origin"].astype(np.float64).reshape(3) if "origin" in arrays else None
                    time_s = float(arrays["time_s"]) - float(times.first_s) if "time_s" in arrays else None
            except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
                raise WorldlineError(
                    f"{shown} must hold xyz [N, 3] and may hold origin [3] and time_s ({error!r}): write it again"
                ) from error
        if time_s is None:
            if number >= len(times.seconds):
                raise WorldlineError(f"{shown} is of frame {number} by its name, and there are {len(times.seconds)} frames")
            time_s = times.seconds[number]
        if not first_s - 1e-6 <= time_s <= last_s + 1e-6:
            continue
        if origin is None:
            nearest = np.abs(np.where(path.registered, path.times_s - (time_s - first_s), np.inf)).argmin()
            origin = path.world_from_camera[nearest, :3, 3]
        sweeps.append(Sweep(time_s - first_s, origin, points[np.isfinite(points).all(1)]))
    return sweeps
