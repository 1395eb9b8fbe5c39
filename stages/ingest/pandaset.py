"""PandaSet scenes: one camera of a driving log, with GPS, true camera poses and true boxes.

Layout and axes follow the PandaSet devkit (Hesai and Scale AI, https://pandaset.org): `camera/NAME/{NN.jpg,
intrinsics.json, poses.json, timestamps.json}`, `meta/{gps.json, timestamps.json}`; boxes are read from
`cuboids.csv.gz` (the columns of the devkit's tables plus `frame`).
"""

import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from schemas.artifact import Files, make_table
from schemas.clips import GPS_FIXES, Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.tracks import TRUTH_BOXES, Truth
from stages.contract import Progress, stage
from stages.ingest.box_extents import image_extents
from stages.ingest.pictures import (
    check_camera_height,
    fitted_size,
    keep_frame,
    pinhole_matrix,
    read_picture,
    resize,
    stack_frames,
)
from stages.ingest.timing import FramePicker, check_selection
from worldline.box_corners import upright_corners

# All six cameras were calibrated at this width (devkit README); smaller copies of the images scale with it.
_CALIBRATED_WIDTH = 1920
_GPS_MARGIN_S = 1.0
_MOTION_WINDOW_S = 0.5
_MOVING_MPS = 0.3
_CLASS_NAMES = {
    "Pedestrian with Object": "pedestrian",
    "Pickup Truck": "truck",
    "Medium-sized Truck": "truck",
    "Semi-truck": "truck",
    "Cones": "cone",
    "Other Vehicle - Construction Vehicle": "construction vehicle",
    "Other Vehicle - Uncommon": "vehicle",
    "Other Vehicle - Pedicab": "pedicab",
}


@dataclass(frozen=True)
class PandasetConfig:
    """How a PandaSet scene is read.

    Attributes:
        camera: folder under `camera/`; several, joined by plus signs, are read by `ingest.pandaset_rig` instead.
        start_s, end_s: span in seconds from the first frame; None goes to the end.
        max_frames: stop after this many frames.
        max_side: longer side of the frames in pixels; larger ones are shrunk, None keeps them.
        frames_per_second: keep at most this many frames per second; None keeps all.
        camera_height_m, camera_height_sigma_m: height of the camera over the road, where known, in metres.
        require_boxes: refuse a scene without `cuboids.csv.gz`; false reads its frames and poses alone.
    """

    camera: str = "front_camera"
    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    frames_per_second: float | None = None
    camera_height_m: float | None = None
    camera_height_sigma_m: float | None = None
    require_boxes: bool = True


@stage("ingest.pandaset", version=1)
def ingest_pandaset(source: Source, config: PandasetConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth]:
    """Read one camera of a PandaSet scene as a clip, and its annotations as truth.

    The truth's world frame is PandaSet's own: metres, z up, origin near the car's first position. Camera poses are
    those of `poses.json` at the camera's own times. Boxes belong to the lidar sweep of the same number, whose spinning
    sensor passes the front camera's view within 9 ms of the exposure (measured on scene 002), so their time is taken to
    be the frame's.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    check_camera_height(config.camera_height_m, config.camera_height_sigma_m)
    folder = f"camera/{config.camera}"
    frame_file = re.compile(rf"{re.escape(folder)}/\d+\.(jpg|png)")
    images = sorted(filter(frame_file.fullmatch, source.files), key=lambda name: int(PurePosixPath(name).stem))
    camera_ns = nanoseconds(read_json(source, f"{folder}/timestamps.json"), f"{folder}/timestamps.json")
    poses = read_json(source, f"{folder}/poses.json")
    if not images or not len(images) == len(camera_ns) == len(poses):
        raise WorldlineError(
            f"{source.name}/{folder} has {len(images)} images, {len(camera_ns)} timestamps and {len(poses)} poses: "
            "each frame needs one of each"
        )
    picker = FramePicker(config, config.frames_per_second)
    kept = [index for index in range(len(images)) if picker.take((camera_ns[index] - camera_ns[0]) / 1e9)]
    if len(kept) < 2:
        raise WorldlineError(f"{source.name}: {len(kept)} frames lie in the chosen span and a clip needs at least 2: widen it")

    frames: list[np.ndarray] = []
    original = size = (0, 0)
    for done, index in enumerate(kept):
        picture = read_picture(source.files[images[index]], f"{source.name}/{images[index]}")
        if done == 0:
            original = (picture.shape[1], picture.shape[0])
            size = fitted_size(*original, config.max_side)
        elif picture.shape[1::-1] != original:
            raise WorldlineError(f"{source.name}/{images[index]} differs in size from {images[kept[0]]}: frames must agree")
        keep_frame(frames, resize(picture, *size), source.name)
        progress(done + 1, len(kept), "frames")

    intrinsics = scaled_intrinsics(read_json(source, f"{folder}/intrinsics.json"), original, size)
    epoch_ns = camera_ns[kept[0]]
    times_s = np.array([(camera_ns[index] - epoch_ns) / 1e9 for index in kept])
    world_from_camera = np.stack([pose_matrix(poses[index], f"{source.name}/{folder}/poses.json") for index in kept])
    boxes, annotated = _read_boxes(source, config, np.array(kept), camera_ns, world_from_camera, intrinsics, size)
    clip = Clip(
        frames=stack_frames(frames),
        times_s=times_s,
        name=source.name,
        epoch_ns=epoch_ns,
        intrinsics=intrinsics,
        gps=read_gps(source, epoch_ns, float(times_s[-1])),
        camera_height_m=config.camera_height_m,
        camera_height_sigma_m=config.camera_height_sigma_m,
        provenance={
            "kind": "pandaset",
            "source": content_digest(source),
            "camera": config.camera,
            "original_width_px": original[0],
            "original_height_px": original[1],
            "frames_in_source": len(images),
            "dropped_out_of_order": picker.out_of_order,
        },
    )
    truth = Truth(available=True, world_from_camera=world_from_camera, intrinsics=intrinsics, boxes=boxes, annotated=annotated)
    return clip, truth


def read_json(source: Source, name: str) -> Any:
    """Return a parsed file of the scene, its numbers with a point as decimals."""
    if name not in source.files:
        raise WorldlineError(f"{source.name} has no {name}, which the PandaSet layout needs: complete the folder")
    try:
        return json.loads(source.files[name].read_text(), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{source.name}/{name} is not readable JSON ({error}): download that file again") from error


def nanoseconds(seconds: Iterable[Any], name: str) -> list[int]:
    """Unix nanoseconds, exact: float64 seconds of this century resolve only 0.24 microseconds."""
    try:
        return [int(Decimal(value) * 1_000_000_000) for value in seconds]
    except (ArithmeticError, TypeError, ValueError) as error:
        raise WorldlineError(f"{name} must hold one Unix time in seconds per frame ({error})") from error


def pose_matrix(pose: Any, name: str) -> np.ndarray:
    """Return camera-to-world `[4, 4]` of one entry of poses.json (heading is wxyz)."""
    matrix = np.eye(4)
    try:
        heading = [float(pose["heading"][axis]) for axis in "wxyz"]
        matrix[:3, :3] = Rotation.from_quat(heading, scalar_first=True).as_matrix()
        matrix[:3, 3] = [float(pose["position"][axis]) for axis in "xyz"]
    except (KeyError, TypeError, ValueError) as error:
        raise WorldlineError(f"{name}: each pose needs position x, y, z and heading w, x, y, z ({error!r})") from error
    return matrix


def scaled_intrinsics(given: Any, original: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Scale the calibration to the kept size; PandaSet puts pixel centres at whole numbers, clips at +0.5."""
    to_original = original[0] / _CALIBRATED_WIDTH
    try:
        fx, fy, cx, cy = (float(given[name]) for name in ("fx", "fy", "cx", "cy"))
    except (KeyError, TypeError, ValueError) as error:
        raise WorldlineError(f"intrinsics.json must give the numbers fx, fy, cx and cy ({error!r})") from error
    scale_x, scale_y = (to_original * after / before for after, before in zip(size, original, strict=True))
    return pinhole_matrix(fx, fy, cx + 0.5, cy + 0.5, scale_x=scale_x, scale_y=scale_y)


def read_gps(source: Source, epoch_ns: int, end_s: float) -> pa.Table | None:
    """Return the fixes from one second before the clip to one second after; speed from the east and north velocities."""
    if "meta/gps.json" not in source.files or "meta/timestamps.json" not in source.files:
        return None
    fixes = read_json(source, "meta/gps.json")
    fix_ns = nanoseconds(read_json(source, "meta/timestamps.json"), "meta/timestamps.json")
    rows = []
    try:
        for fix, instant_ns in zip(fixes, fix_ns, strict=True):
            time_s = (instant_ns - epoch_ns) / 1e9
            if -_GPS_MARGIN_S <= time_s <= end_s + _GPS_MARGIN_S:
                speed = float(np.hypot(float(fix["xvel"]), float(fix["yvel"])))
                rows.append((time_s, float(fix["lat"]), float(fix["long"]), float(fix["height"]), speed))
    except (KeyError, TypeError, ValueError) as error:
        raise WorldlineError(
            f"{source.name}/meta/gps.json must give lat, long, height, xvel and yvel for each of meta/timestamps.json ({error!r})"
        ) from error
    columns = list(zip(*rows, strict=True)) or [()] * len(GPS_FIXES)
    return make_table(GPS_FIXES, dict(zip(GPS_FIXES.names, columns, strict=True)))


@dataclass(frozen=True)
class _Cuboids:
    """Annotated boxes of a whole scene, one entry per object and frame, sorted by object and frame."""

    track: np.ndarray
    frame: np.ndarray
    class_name: list[str]
    centre: np.ndarray
    size: np.ndarray  # width, length, height
    yaw: np.ndarray  # of the box's own x axis, as annotated
    still: np.ndarray  # the annotators say that it does not move
    known_moving: np.ndarray


def _read_boxes(
    source: Source,
    config: PandasetConfig,
    kept: np.ndarray,
    camera_ns: list[int],
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
) -> tuple[pa.Table, np.ndarray]:
    """Return the boxes of the kept frames in `TRUTH_BOXES` columns, and which kept frames are annotated."""
    if "cuboids.csv.gz" not in source.files:
        if config.require_boxes:
            raise WorldlineError(
                f"{source.name} has no cuboids.csv.gz, and PandaSet's own annotations/cuboids/*.pkl.gz are pickles, which "
                "Worldline never opens: convert them to one CSV, or set require_boxes=false to go on without true boxes"
            )
        return TRUTH_BOXES.empty_table(), np.zeros(len(kept), bool)
    cuboids = _read_cuboids(source.files, source.name)
    moving = _moving(cuboids, np.array([(instant - camera_ns[0]) / 1e9 for instant in camera_ns]))
    clip_frame = np.searchsorted(kept, cuboids.frame)
    chosen = np.flatnonzero(np.isin(cuboids.frame, kept))
    frame = clip_frame[chosen]
    # PandaSet's box points along its own +y, so a heading (direction of +x) is a quarter turn further.
    yaw = np.arctan2(np.cos(cuboids.yaw[chosen]), -np.sin(cuboids.yaw[chosen]))
    width, length, height = cuboids.size[chosen].T
    bottom = cuboids.centre[chosen] - np.stack([0 * height, 0 * height, height / 2], axis=1)
    corners = upright_corners(bottom, np.stack([length, width, height], axis=1), yaw)
    extents = image_extents(corners, world_from_camera[frame], intrinsics, *size)
    times_s = np.array([(camera_ns[index] - camera_ns[kept[0]]) / 1e9 for index in kept])
    columns: dict[str, Any] = {
        "track_id": cuboids.track[chosen],
        "frame": frame,
        "time_s": times_s[frame],
        "class_name": [cuboids.class_name[index] for index in chosen],
        **dict(zip("xyz", bottom.T, strict=True)),
        "length": length,
        "width": width,
        "height": height,
        "yaw_rad": yaw,
        "moving": moving[chosen],
    }
    for name, values in zip(("x0_px", "y0_px", "x1_px", "y1_px"), extents.T, strict=True):
        columns[name] = pa.array(values, mask=np.isnan(values))
    return make_table(TRUTH_BOXES, columns), np.isin(np.arange(len(kept)), frame)


def _read_cuboids(files: Files, scene: str) -> _Cuboids:
    """Parse and deduplicate; track ids count from 1 in the order of the kept objects' uuids."""
    by_uuid: dict[str, list[dict[str, str]]] = defaultdict(list)
    try:
        with gzip.open(files["cuboids.csv.gz"], "rt", newline="") as stream:
            for row in csv.DictReader(stream):
                by_uuid[row["uuid"]].append(row)
        kept = without_siblings(by_uuid)
        rows: list[tuple[int, dict[str, str]]] = []
        for track, uuid in enumerate(sorted(kept), start=1):
            rows.extend((track, row) for row in sorted(by_uuid[uuid], key=lambda row: int(row["frame"])))
        motion = [row["attributes.object_motion"] for _, row in rows]
        return _Cuboids(
            track=np.array([track for track, _ in rows], np.int32),
            frame=np.array([int(row["frame"]) for _, row in rows], np.int32),
            class_name=[_CLASS_NAMES.get(row["label"], row["label"].lower()) for _, row in rows],
            centre=np.array([[float(row[f"position.{axis}"]) for axis in "xyz"] for _, row in rows]).reshape(-1, 3),
            size=np.array([[float(row[f"dimensions.{axis}"]) for axis in "xyz"] for _, row in rows]).reshape(-1, 3),
            yaw=np.array([float(row["yaw"]) for _, row in rows]),
            still=np.array(
                [
                    row["stationary"] == "True" or word in ("Parked", "Stopped")
                    for word, (_, row) in zip(motion, rows, strict=True)
                ],
                bool,
            ),
            known_moving=np.array([word == "Moving" for word in motion], bool),
        )
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise WorldlineError(f"{scene}/cuboids.csv.gz does not parse ({error!r}): download that file again") from error


def without_siblings(by_uuid: dict[str, list[dict[str, str]]]) -> list[str]:
    """Return one uuid per object.

    An object that both lidars saw is annotated twice, and each copy names the other in `cuboids.sibling_id`. The copy
    with more frames is kept; of equals, that of sensor 0 (the spinning lidar, which triggers the cameras), then the
    smaller uuid. A pair counts if either copy names the other, because a few ids are cut short. Copies are never mixed
    frame by frame: they see the object at different instants, and a mixture would jump.
    """
    partner: dict[str, str] = {}
    for uuid, rows in sorted(by_uuid.items()):
        for sibling in sorted({row["cuboids.sibling_id"] for row in rows} & set(by_uuid)):
            partner[uuid], partner[sibling] = sibling, uuid

    def preference(uuid: str) -> tuple[int, int, str]:
        rows = by_uuid[uuid]
        return -len(rows), int(Counter(row["cuboids.sensor_id"] for row in rows).most_common(1)[0][0]), uuid

    return [uuid for uuid in by_uuid if uuid not in partner or preference(uuid) <= preference(partner[uuid])]


def _moving(cuboids: _Cuboids, times_s: np.ndarray) -> np.ndarray:
    """Return for each box whether the object moves in that frame.

    It does where it covers at least 0.3 m/s over the second around the frame (shorter at the ends of its track) and
    the annotators call it neither parked nor stopped nor stationary. Their word "Moving" alone is not enough: it is given
    once for a whole track, also while the car waits; and pedestrians have no such word. A track of one frame has no
    displacement, so there the word decides.
    """
    moving = np.zeros(len(cuboids.track), bool)
    for track in np.unique(cuboids.track):
        rows = np.flatnonzero(cuboids.track == track)
        instants = times_s[cuboids.frame[rows]]
        first = np.searchsorted(instants, instants - _MOTION_WINDOW_S - 1e-3)
        last = np.searchsorted(instants, instants + _MOTION_WINDOW_S + 1e-3, side="right") - 1
        if len(rows) == 1:
            moving[rows] = cuboids.known_moving[rows]
            continue
        travelled = np.linalg.norm((cuboids.centre[rows[last]] - cuboids.centre[rows[first]])[:, :2], axis=1)
        moving[rows] = travelled >= _MOVING_MPS * (instants[last] - instants[first])
        alone = first == last
        moving[rows[alone]] = cuboids.known_moving[rows[alone]]
    return moving & ~cuboids.still
