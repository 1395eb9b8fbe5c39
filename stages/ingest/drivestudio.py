"""Scenes as drivestudio's preprocessing leaves them (https://github.com/ziyc/drivestudio), whichever data set they came from.

    images/TTT_C.jpg           frame TTT of camera C
    intrinsics/C.txt           fx fy cx cy k1 k2 p1 p2 k3 in pixels of the images (OpenCV's lens)
    extrinsics/C.txt           4x4 camera to ego; or extrinsics/TTT_C.txt, camera to world
    ego_pose/TTT.txt           4x4 ego to world
    lidar/TTT.bin              float32 rows, in the ego's frame; lidar_pose/TTT.txt (lidar to world) where they are in the lidar's
    instances/instances_info.json    class, and pose and size of the box in every frame

The data sets differ in what the files mean:

| data set | extrinsics | camera axes | ego's origin and axes | lidar rows |
|---|---|---|---|---|
| waymo | camera to ego | x forward, y left, z up | rear axle, x forward | 14: origin, point, flow, labels |
| kitti | camera to ego | OpenCV | lidar on the roof, x forward | 4 |
| argoverse | camera to ego | OpenCV | rear axle, x forward | 4 |
| nuscenes | camera to world, each frame | OpenCV | not told | 4, in the lidar's frame |
| pandaset | camera to world, each frame | OpenCV | PandaSet's sensor frame, y forward | 5 |

Where the ego's forward axis is not told (nuscenes, pandaset), the vehicle stands upright under the camera and heads where it
looks. PandaSet's boxes keep that set's axes (width along x). nuPlan's `.pcd` sweeps are not read. A scene that Worldline
exported has `worldline.json` besides, with the frames' times, the vehicle's size (null where the ego is the camera), and which
frames have a sweep of their own, and `map.json` where there is a map.
"""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from pydantic import NonNegativeInt, PositiveFloat

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
    ego_under_camera,
    height_over_road,
    no_boxes,
    pick_frames,
    read_frames,
    read_map,
    read_points,
    without_lens,
)
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, turned_yaw
from stages.ingest.pictures import pinhole_matrix
from stages.ingest.settle_tracks import AnnotatedBoxes
from stages.ingest.timing import check_selection
from worldline.cameras import nearest_rotation

INSTANCES, OWN_FILE, MAP_FILE = "instances/instances_info.json", "worldline.json", "map.json"
_LIDAR_COLUMNS = {"waymo": 14, "kitti": 4, "argoverse": 4, "nuscenes": 4, "pandaset": 5}
# The point on the ground under the vehicle's middle, in the frame of its poses.
_MIDDLES_M = {"waymo": (1.43, 0.0, 0.0), "kitti": (0.0, 0.0, -1.73), "argoverse": (1.4, 0.0, -0.33)}
_USUAL_HEIGHT_M = 1.6


@dataclass(frozen=True, kw_only=True)
class DrivestudioConfig(LogSelection):
    """How a processed scene is read, beside `LogSelection`.

    Attributes:
        camera: number of the camera.
        dataset: which data set the scene was made from; "auto" tells it from the files (OpenCV's axes are taken for kitti).
        rate_hz: of the frames, where no `worldline.json` tells their times.
        length_m, width_m: of the recording vehicle, where no `worldline.json` tells them.
        middle_m: the point on the ground under its middle, in the frame of the ego's poses (x forward, y left, z up); None for
            the data set's usual vehicle. Not for nuscenes and pandaset.
        camera_height_m: over the road, for nuscenes and pandaset; None measures it by the lidar (1.6 m where there is none).
        camera_forward_m: how far the camera stands before the vehicle's middle, for nuscenes and pandaset.
    """

    camera: NonNegativeInt = 0
    dataset: Literal["auto", "waymo", "kitti", "argoverse", "nuscenes", "pandaset"] = "auto"
    rate_hz: PositiveFloat = 10.0
    length_m: PositiveFloat = 4.7
    width_m: PositiveFloat = 2.0
    middle_m: tuple[float, float, float] | None = None
    camera_height_m: PositiveFloat | None = None
    camera_forward_m: float = 0.4


@stage("ingest.drivestudio", version=1)
def ingest_drivestudio(source: Source, config: DrivestudioConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read a processed scene as a driving log; the layout has no map, but one in `map.json` is taken (docs/driving_logs.md).

    Images are freed of lens distortion, so that the path is that of a pinhole with the same matrix. Frames without a pose are
    kept and not registered.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    images = _images(source, config.camera)
    own = _own_file(source)
    frames = sorted(images)
    times = own["times_s"] if own else [number / config.rate_hz for number in range(frames[-1] + 1)]
    if len(times) <= frames[-1]:
        raise WorldlineError(f"{source.name}/{OWN_FILE} has {len(times)} times, and there is an image {images[frames[-1]]}")
    places = pick_frames([times[frame] - times[frames[0]] for frame in frames], config, source.name)
    kept = [frames[place] for place in places]
    dataset = config.dataset if config.dataset != "auto" else _dataset(source, config.camera)

    values = _numbers(source, f"intrinsics/{config.camera}.txt", 9).ravel()
    matrix = pinhole_matrix(*values[:4])
    video, original = read_frames(
        source, [images[frame] for frame in kept], config.max_side, progress, without_lens(matrix, values[4:].tolist())
    )
    height_px, width_px = video.shape[1:3]
    poses, known = _camera_poses(source, config.camera, kept, dataset)
    first_s = times[kept[0]]
    clip = Clip(
        frames=video,
        times_s=np.array([times[frame] - first_s for frame in kept]),
        name=source.name,
        epoch_ns=own["epoch_ns"] + round(first_s * 1e9) if own and own["epoch_ns"] is not None else None,
        intrinsics=pinhole_matrix(*values[:4], scale_x=width_px / original[0], scale_y=height_px / original[1]),
        provenance={
            "kind": "drivestudio",
            "dataset": dataset,
            "source": content_digest(source),
            "camera": str(config.camera),
            "original_width_px": original[0],
            "original_height_px": original[1],
            "frames_in_source": len(frames),
        },
    )
    if not known.any():
        raise WorldlineError(
            f"{source.name}: no frame of camera {config.camera} has a usable pose: complete ego_pose or extrinsics"
        )
    sweeps = _sweeps(source, kept, [times[frame] - first_s for frame in kept], dataset, own)
    world_from_ego, body = _ego(source, kept, poses, known, sweeps, dataset, config, own)
    boxes = _boxes(source, dataset == "pandaset") if INSTANCES in source.files else no_boxes()
    log = RecordedLog(
        clip=clip,
        world_from_camera=poses,
        known=known,
        world_from_ego=world_from_ego,
        boxes=boxes,
        kept=kept,
        body=body,
        road_map=read_map(source, MAP_FILE) if MAP_FILE in source.files else RoadMap.none(),
        sweeps=sweeps,
        provenance={
            "format": "drivestudio",
            "dataset": dataset,
            "log": source.name,
            "source": content_digest(source),
            "camera": str(config.camera),
            "time_source": OWN_FILE if own else f"{config.rate_hz:g} frames per second",
            "epoch_ns": clip.epoch_ns,
        },
        scale_source="annotations" if INSTANCES in source.files else "given",
    )
    return assemble_log(log)


def _images(source: Source, camera: int) -> dict[int, str]:
    """Return the images of a camera by frame."""
    pattern = re.compile(rf"images/(\d+)_{camera}\.(jpg|jpeg|png)")
    found = {int(match[1]): name for name in source.files if (match := pattern.fullmatch(name))}
    if not found:
        raise WorldlineError(f"{source.name} has no images/TTT_{camera}.jpg: choose another camera, or complete the folder")
    return found


def _own_file(source: Source) -> dict[str, Any] | None:
    """Return what Worldline wrote beside a scene that it exported."""
    if OWN_FILE not in source.files:
        return None
    told = _json(source, OWN_FILE)
    try:
        times_s = [float(time_s) for time_s in told["times_s"]]
        if any(after <= before for before, after in itertools.pairwise(times_s)):
            raise ValueError("its times do not increase")
        return {
            "times_s": times_s,
            "epoch_ns": None if told["epoch_ns"] is None else int(told["epoch_ns"]),
            "body": None if told["length_m"] is None else EgoBody(float(told["length_m"]), float(told["width_m"])),
            "sweeps": {int(frame): float(time_s) for frame, time_s in told["sweeps"]},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WorldlineError(f"{source.name}/{OWN_FILE} is not as Worldline writes it ({error!r}): export again") from error


def _json(source: Source, name: str) -> Any:
    try:
        return json.loads(source.files[name].read_bytes())
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{source.name}/{name} is not readable JSON ({error}): copy it again") from error


def _numbers(source: Source, name: str, count: int) -> np.ndarray:
    """Return the numbers of a text file.

    Raises:
        WorldlineError: if it is missing or holds another count of numbers.
    """
    if name not in source.files:
        raise WorldlineError(f"{source.name} has no {name}, which drivestudio's layout needs: complete the folder")
    try:
        values = np.array(source.files[name].read_text().split(), float)
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{source.name}/{name} does not parse as numbers ({error}): copy it again") from error
    if len(values) != count:
        raise WorldlineError(f"{source.name}/{name} holds {len(values)} numbers where {count} belong: copy it again")
    return values


def _pose(source: Source, name: str) -> np.ndarray | None:
    """Return a rigid pose; None where the file is missing or tells none."""
    if name not in source.files:
        return None
    matrix = _numbers(source, name, 16).reshape(4, 4)
    if not np.isfinite(matrix).all() or not 0.9 < np.linalg.det(matrix[:3, :3]) < 1.1:
        return None
    matrix[:3, :3] = nearest_rotation(matrix[:3, :3])
    matrix[3] = [0.0, 0.0, 0.0, 1.0]
    return matrix


def _poses(source: Source, names: Sequence[str]) -> tuple[Float64[np.ndarray, "T 4 4"], Bool[np.ndarray, " T"]]:
    """Return the poses of some files, and which are known."""
    found = [_pose(source, name) for name in names]
    return np.stack([np.eye(4) if pose is None else pose for pose in found]), np.array([pose is not None for pose in found])


def _dataset(source: Source, camera: int) -> str:
    """Return which data set's habits the files have."""
    if f"extrinsics/{camera}.txt" not in source.files:
        return "pandaset" if any(name.startswith("ego_pose/") for name in source.files) else "nuscenes"
    mounted = _pose(source, f"extrinsics/{camera}.txt")
    if mounted is None:
        raise WorldlineError(f"{source.name}/extrinsics/{camera}.txt is no rigid pose: copy it again")
    # Of a level camera, Waymo's z axis points up, OpenCV's y axis down.
    return "waymo" if mounted[2, 2] > -mounted[2, 1] else "kitti"


def _camera_poses(
    source: Source, camera: int, kept: Sequence[int], dataset: str
) -> tuple[Float64[np.ndarray, "T 4 4"], Bool[np.ndarray, " T"]]:
    if dataset in ("nuscenes", "pandaset"):
        return _poses(source, [f"extrinsics/{frame:03d}_{camera}.txt" for frame in kept])
    mounted = _pose(source, f"extrinsics/{camera}.txt")
    if mounted is None:
        raise WorldlineError(f"{source.name} has no extrinsics/{camera}.txt that is a rigid pose: copy it again")
    poses, known = _poses(source, [f"ego_pose/{frame:03d}.txt" for frame in kept])
    return poses @ mounted @ (EGO_FROM_FORWARD_CAMERA if dataset == "waymo" else np.eye(4)), known


def _ego(
    source: Source,
    kept: Sequence[int],
    poses: Float64[np.ndarray, "T 4 4"],
    known: Bool[np.ndarray, " T"],
    sweeps: Sequence[Sweep],
    dataset: str,
    config: DrivestudioConfig,
    own: dict[str, Any] | None,
) -> tuple[Float64[np.ndarray, "T 4 4"], EgoBody]:
    """Return the vehicle's poses on the ground under its middle, and the vehicle."""
    if dataset in ("nuscenes", "pandaset") or (own and own["body"] is None):
        body = EgoBody(config.length_m, config.width_m)
        places = poses[known, :3, 3]
        height = config.camera_height_m or height_over_road(
            (sweep.points, places[np.linalg.norm(places - sweep.origin, axis=1).argmin()]) for sweep in sweeps
        )
        return ego_under_camera(poses, height or _USUAL_HEIGHT_M, config.camera_forward_m), body
    usual = (0.0, 0.0, 0.0) if own else _MIDDLES_M[dataset]
    body = own["body"] if own else EgoBody(config.length_m, config.width_m)
    middle = np.eye(4)
    middle[:3, 3] = config.middle_m if config.middle_m is not None else usual
    return _poses(source, [f"ego_pose/{frame:03d}.txt" for frame in kept])[0] @ middle, body


def _sweeps(
    source: Source, kept: Sequence[int], seconds: Sequence[float], dataset: str, own: dict[str, Any] | None
) -> list[Sweep]:
    """Return the sweeps of the kept frames whose pose is known, at the times of their frames unless Worldline wrote others."""
    folder = "lidar_pose" if dataset == "nuscenes" else "ego_pose"
    sweeps = []
    for frame, time_s in zip(kept, seconds, strict=True):
        name = f"lidar/{frame:03d}.bin"
        pose = _pose(source, f"{folder}/{frame:03d}.txt")
        if name not in source.files or pose is None or (own and frame not in own["sweeps"]):
            continue
        rows = read_points(source.files[name], f"{source.name}/{name}", _LIDAR_COLUMNS[dataset]).astype(float)
        points = rows[:, 3:6] if dataset == "waymo" else rows[:, :3]
        origin = rows[:, :3].mean(0) if dataset == "waymo" and len(rows) else np.zeros(3)
        if own:
            time_s += own["sweeps"][frame] - own["times_s"][frame]
        sweeps.append(Sweep(time_s, pose[:3, :3] @ origin + pose[:3, 3], points @ pose[:3, :3].T + pose[:3, 3]))
    return sweeps


def _boxes(source: Source, width_first: bool) -> AnnotatedBoxes:
    """Return the boxes of all frames; their poses are those of their centres.

    Raises:
        WorldlineError: if the file does not have the fields of `instances_info.json`.
    """
    ids, classes, frames, poses, sizes = [], [], [], [], []
    try:
        for number, instance in _json(source, INSTANCES).items():
            told = instance["frame_annotations"]
            count = len(told["frame_idx"])
            ids += [number] * count
            classes += [str(instance.get("worldline_class", instance["class_name"]))] * count
            frames += [int(frame) for frame in told["frame_idx"]]
            poses += [np.array(pose, float).reshape(4, 4) for pose in told["obj_to_world"]]
            sizes += [np.array(size, float).reshape(3) for size in told["box_size"]]
        if not len(ids) == len(poses) == len(sizes):
            raise ValueError(f"{len(ids)} frames, {len(poses)} poses and {len(sizes)} sizes")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WorldlineError(
            f"{source.name}/{INSTANCES} needs class_name and frame_annotations (frame_idx, obj_to_world, box_size) of each "
            f"instance ({error!r}): copy it again"
        ) from error
    matrices, size = np.array(poses).reshape(-1, 4, 4), np.array(sizes).reshape(-1, 3)
    ahead = np.tile([0.0, 1.0, 0.0] if width_first else [1.0, 0.0, 0.0], (len(ids), 1))
    return AnnotatedBoxes(
        source_id=pa.array(ids, pa.string()),
        source_class=pa.array(classes, pa.string()),
        frame=np.array(frames, np.int64),
        position=matrices[:, :3, 3],
        position_is="centre",
        size=size[:, [1, 0, 2]] if width_first else size,
        yaw_rad=turned_yaw(matrices[:, :3, :3], ahead),
    )
