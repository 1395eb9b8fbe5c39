"""KITTI's tracking benchmark: `label_02/NNNN.txt`, `calib/NNNN.txt` and `oxts/NNNN.txt`, as tracks in the world.

Labels are in the frame of the rectified camera 0 (x right, y down, z forward); a location is the middle of the box's
bottom face, and rotation_y turns about the downward axis (Geiger, Lenz, Urtasun, "Are we ready for autonomous driving?
The KITTI vision benchmark suite", CVPR 2012, and the readme of its development kit). The car's pose comes from GPS and
inertial sensors through the Mercator projection of the raw data's development kit (Geiger, Lenz, Stiller, Urtasun,
"Vision meets robotics: the KITTI dataset", IJRR 2013): x east, y north, z up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64
from pydantic import PositiveFloat
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import Timeline, moved_points, turned_yaw
from stages.ingest.pictures import read_picture
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.text_columns import numbers, read_words

_EARTH_RADIUS_M = 6378137.0
_LABEL_COLUMNS = (
    *("frame", "track", "class", "truncated", "occluded", "alpha", "x0", "y0", "x1", "y1"),
    *("height", "width", "length", "x", "y", "z", "rotation_y"),
)
_OXTS_COLUMNS = ("latitude", "longitude", "altitude", "roll", "pitch", "yaw", "north_mps", "east_mps")
_DRIVING_MPS = 2.0
_IMAGE_SIZE = (1242, 375)


@dataclass(frozen=True)
class KittiTrackingConfig:
    """How a sequence of the KITTI tracking benchmark is read.

    Attributes:
        frames_per_second: rate of the frames where no file of timestamps lies beside them; the benchmark states 10.
        rules: how boxes become tracks.
    """

    frames_per_second: PositiveFloat = 10.0
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@dataclass(frozen=True)
class KittiSequence:
    """One sequence in a world with x east, y north, z up and its origin at the first camera; one entry per frame.

    Attributes:
        times_s: `[F]` seconds.
        time_source, epoch_ns: where they come from, and the absolute time of the first in Unix nanoseconds where dates are told.
        world_from_imu, world_from_camera, world_from_lidar: `[F, 4, 4]` poses of the inertial sensor, of the left colour camera
            (OpenCV axes) and of the lidar; the first and last have x forward, y left, z up.
        known: `[F]` frames whose pose is known.
        intrinsics: `[3, 3]` of the left colour camera, pixel centres at +0.5.
        boxes: the labels.
    """

    times_s: Float64[np.ndarray, " F"]
    time_source: str
    epoch_ns: int | None
    world_from_imu: Float64[np.ndarray, "F 4 4"]
    world_from_camera: Float64[np.ndarray, "F 4 4"]
    world_from_lidar: Float64[np.ndarray, "F 4 4"]
    known: Bool[np.ndarray, " F"]
    intrinsics: Float64[np.ndarray, "3 3"]
    boxes: AnnotatedBoxes


class KittiCalibration(NamedTuple):
    """Rectified camera 0 from the inertial sensor, from the lidar and from camera 2 `[4, 4]`, and camera 2's matrix `[3, 3]`."""

    rectified_from_imu: np.ndarray
    rectified_from_lidar: np.ndarray
    rectified_from_camera: np.ndarray
    intrinsics: np.ndarray


@stage("ingest.kitti_tracking", version=1)
def ingest_kitti_tracking(
    source: Source, config: KittiTrackingConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read one sequence's labels as tracks in a world with x east, y north, z up and its origin at the first camera.

    The path is that of the left colour camera (image_02), whose pixels the labels' boxes count. The benchmark carries no
    timestamps; `timestamps/NNNN.txt` (seconds, or the raw data's date and time, a line per frame) is taken where it lies
    beside the labels.

    Raises:
        WorldlineError: if a file is missing or holds no usable line.
    """
    sequence = read_sequence(source, config.frames_per_second)
    progress(1, 2, f"{len(sequence.boxes.frame)} labels")
    width, height = _image_size(source)
    timeline = Timeline(sequence.times_s, sequence.world_from_camera, sequence.known, sequence.intrinsics, width, height)
    provenance = {
        "format": "kitti_tracking",
        "log": source.name,
        "source": content_digest(source),
        "camera": "image_02",
        "time_source": sequence.time_source,
        "epoch_ns": sequence.epoch_ns,
    }
    progress(2, 2, "tracks")
    return settle_tracks(sequence.boxes, timeline, config.rules, provenance)


def read_sequence(source: Source, frames_per_second: float) -> KittiSequence:
    """Read labels, calibration and poses of one sequence.

    Raises:
        WorldlineError: if a file is missing or holds no usable line.
    """
    label, calibration, oxts = (_file(source, folder) for folder in ("label_02", "calib", "oxts"))
    rows, broken = read_words(source.files[label], f"{source.name}/{label}", _LABEL_COLUMNS)
    calibrated = calibrate(read_matrices(source.files[calibration]), f"{source.name}/{calibration}")
    lines = source.files[oxts].read_text(errors="replace").splitlines()
    world_from_imu, known, speed = oxts_poses(lines, f"{source.name}/{oxts}")
    times, time_source, epoch_ns = _times(source, len(known), frames_per_second)

    world_from_rectified = world_from_imu @ np.linalg.inv(calibrated.rectified_from_imu)
    world_from_camera = world_from_rectified @ calibrated.rectified_from_camera
    origin = world_from_camera[np.argmax(known), :3, 3] if known.any() else np.zeros(3)
    for poses in (world_from_imu, world_from_rectified, world_from_camera):
        poses[:, :3, 3] -= origin
    column = {name: numbers(rows[name]) for name in _LABEL_COLUMNS if name != "class"}
    given = np.nan_to_num(column["frame"], nan=-1.0)
    frame = np.where((given >= 0) & (given < len(known)) & (given == np.floor(given)), given, -1).astype(np.int64)
    pose = world_from_rectified[np.maximum(frame, 0)]
    turn = column["rotation_y"]
    boxes = AnnotatedBoxes(
        source_id=pc.if_else(pa.array(np.isfinite(column["track"])), rows["track"].combine_chunks(), None),
        source_class=rows["class"].combine_chunks(),
        frame=frame,
        position=moved_points(pose, np.stack([column[name] for name in "xyz"], -1)),
        position_is="bottom",
        size=np.stack([column[name] for name in ("length", "width", "height")], -1),
        yaw_rad=turned_yaw(pose[:, :3, :3], np.stack([np.cos(turn), 0 * turn, -np.sin(turn)], -1)),
        boxes_px=np.stack([column[name] + 0.5 for name in ("x0", "y0", "x1", "y1")], -1),
        dropped={
            "not_an_object": pc.equal(rows["class"], "DontCare").to_numpy() | (column["track"] < 0),
            "no_ego_pose": (frame >= 0) & ~known[np.maximum(frame, 0)],
        },
        notes=(
            ("tracks.broken_lines", broken, "lines", f"of {label} with fewer than {len(_LABEL_COLUMNS)} words"),
            ("tracks.broken_poses", int((~known).sum()), "lines", f"of {oxts} that give no pose"),
            *_rate_of_driving(world_from_imu, known, speed),
        ),
    )
    return KittiSequence(
        times_s=times,
        time_source=time_source,
        epoch_ns=epoch_ns,
        world_from_imu=world_from_imu,
        world_from_camera=world_from_camera,
        world_from_lidar=world_from_rectified @ calibrated.rectified_from_lidar,
        known=known,
        intrinsics=calibrated.intrinsics,
        boxes=boxes,
    )


def _file(source: Source, folder: str) -> str:
    found = [name for name in source.files if PurePosixPath(name).parent.name == folder and name.endswith(".txt")]
    if not found:
        raise WorldlineError(
            f"{source.name} has no file {folder}/{source.name}.txt: tracks need label_02, calib and oxts side by side"
        )
    return found[0]


def read_matrices(path: Path) -> dict[str, np.ndarray]:
    """Return the numbers of a calibration file by the key of their line."""
    found: dict[str, np.ndarray] = {}
    for line in path.read_text(errors="replace").splitlines():
        key, *values = line.replace(":", " ").split()[:13] or [""]
        try:
            found[key] = np.array(values, float)
        except ValueError:
            continue
    return found


def calibrate(found: Mapping[str, np.ndarray], shown: str) -> KittiCalibration:
    """Return where the sensors are from the matrices R_rect, Tr_velo_cam, Tr_imu_velo and P2.

    Raises:
        WorldlineError: if one is missing or no such matrix; `shown` is the file's name.
    """

    def matrix(*keys: str, shape: tuple[int, int]) -> np.ndarray:
        """Return the first of these matrices, padded to 4x4."""
        for key in keys:
            if key in found and found[key].size == shape[0] * shape[1] and np.isfinite(found[key]).all():
                padded = np.eye(4)
                padded[: shape[0], : shape[1]] = found[key].reshape(shape)
                return padded
        raise WorldlineError(f"{shown} has no matrix {keys[0]} of {shape[0]}x{shape[1]} numbers: copy it again")

    rectify = matrix("R_rect", "R0_rect", "R_rect_00", shape=(3, 3))
    camera_from_lidar = matrix("Tr_velo_cam", "Tr_velo_to_cam", shape=(3, 4))
    lidar_from_imu = matrix("Tr_imu_velo", "Tr_imu_to_velo", shape=(3, 4))
    projection = matrix("P2", shape=(3, 4))
    intrinsics = projection[:3, :3].copy()
    if abs(np.linalg.det(intrinsics)) < 1e-9:
        raise WorldlineError(f"{shown}: P2 is no camera matrix: copy it again")
    camera_from_imu = rectify @ camera_from_lidar @ lidar_from_imu
    if not 0.9 < np.linalg.det(camera_from_imu) < 1.1:
        raise WorldlineError(f"{shown}: R_rect, Tr_velo_cam and Tr_imu_velo are no rotations: copy it again")
    rectified_from_camera = np.eye(4)
    rectified_from_camera[:3, 3] = -np.linalg.solve(intrinsics, projection[:3, 3])
    intrinsics[:2, 2] += 0.5  # KITTI puts pixel centres at whole numbers
    return KittiCalibration(camera_from_imu, rectify @ camera_from_lidar, rectified_from_camera, intrinsics)


def oxts_poses(records: Sequence[str], shown: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the world from the inertial sensor `[F, 4, 4]`, which are known, and the speed over ground, NaN if not told.

    Args:
        records: one line of numbers a frame; empty lines at the end are none.
        shown: what an error calls them.

    Raises:
        WorldlineError: if no record tells a pose.
    """
    lines = [line.split()[: len(_OXTS_COLUMNS)] for line in records]
    while lines and not lines[-1]:
        lines.pop()
    packets = np.full((len(lines), len(_OXTS_COLUMNS)), np.nan)
    padded = [line + [""] * (len(_OXTS_COLUMNS) - len(line)) for line in lines]
    for index, words in enumerate(zip(*padded, strict=True)):
        packets[:, index] = numbers(pa.array(words, pa.string()))
    latitude, longitude, altitude, roll, pitch, yaw, north_mps, east_mps = packets.T
    known = np.isfinite(packets[:, :6]).all(1) & (np.abs(latitude) < 89) & (np.abs(longitude) <= 180) & (np.abs(altitude) < 1e5)
    if not known.any():
        raise WorldlineError(f"{shown} has no line with latitude, longitude, altitude, roll, pitch and yaw: copy it again")
    poses = np.tile(np.eye(4), (len(lines), 1, 1))
    poses[known, :3, :3] = Rotation.from_euler("ZYX", np.stack([yaw, pitch, roll], -1)[known]).as_matrix()
    scale = np.cos(np.radians(latitude[known][0]))
    east = scale * _EARTH_RADIUS_M * np.radians(longitude[known])
    north = scale * _EARTH_RADIUS_M * np.log(np.tan(np.pi / 4 + np.radians(latitude[known]) / 2))
    place = np.stack([east, north, altitude[known]], -1)
    poses[known, :3, 3] = place - place[0]
    with np.errstate(over="ignore"):
        return poses, known, np.hypot(north_mps, east_mps)


def _rate_of_driving(poses: np.ndarray, known: np.ndarray, speed: np.ndarray) -> list[tuple[str, float, str, str]]:
    """Return the frame rate at which the car's speed takes it from place to place: a check of the stated one."""
    step = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1)
    mean = (speed[1:] + speed[:-1]) / 2
    with np.errstate(invalid="ignore"):
        driving = known[1:] & known[:-1] & (mean > _DRIVING_MPS) & (mean < 100) & (step > 0)
    if driving.sum() < 10:
        return []
    rate = float(mean[driving].sum() / step[driving].sum())
    detail = "at which the car's own speed explains its places; set ingest.kitti_tracking.frames_per_second where it differs"
    return [("tracks.frames_per_second_by_speed", rate, "frames/s", detail)]


def _times(source: Source, frames: int, rate: float) -> tuple[np.ndarray, str, int | None]:
    """Return seconds per frame, where they come from, and the epoch of the first in nanoseconds where dates are given."""
    found = [name for name in source.files if "timestamps" in name]
    if not found:
        return np.arange(frames) / rate, f"{rate:g} frames per second", None
    lines = source.files[found[0]].read_text(errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) != frames:
        raise WorldlineError(f"{source.name}/{found[0]} has {len(lines)} lines for {frames} frames: give one time per frame")
    seconds = numbers(pa.array(lines, pa.string()))
    if np.isfinite(seconds).any():
        return seconds, found[0], None
    nanoseconds = [_date_ns(line) for line in lines]
    told = [value for value in nanoseconds if value is not None]
    if not told:
        raise WorldlineError(f"{source.name}/{found[0]} holds neither seconds nor dates: write one time per line")
    times = np.array([np.nan if value is None else (value - told[0]) / 1e9 for value in nanoseconds])
    return times, found[0], told[0]


def _date_ns(text: str) -> int | None:
    """Return Unix nanoseconds of "2011-09-26 13:02:25.964389445", None where it is no date."""
    date, _, fraction = text.strip().partition(".")
    try:
        whole = datetime.strptime(date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        return int(whole.timestamp()) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    except ValueError:
        return None


def _image_size(source: Source) -> tuple[int, int]:
    """Return width and height of the first image where one lies beside the labels, else those of most sequences."""
    images = [name for name in source.files if name.endswith((".png", ".jpg"))]
    if not images:
        return _IMAGE_SIZE
    picture = read_picture(source.files[images[0]], f"{source.name}/{images[0]}")
    return picture.shape[1], picture.shape[0]
