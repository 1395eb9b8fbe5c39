"""KITTI as driving logs: a sequence of the tracking benchmark, or a synchronised and rectified raw drive.

    label_02/NNNN.txt, calib/NNNN.txt, oxts/NNNN.txt    as `ingest.kitti_tracking` reads them
    image_02/NNNN/FFFFFF.png                            the left colour camera
    velodyne/NNNN/FFFFFF.bin                            float32 rows of x, y, z, reflectance in the lidar's frame; optional

    image_02/{data/FFFFFFFFFF.png, timestamps.txt}      of a raw drive
    oxts/data/FFFFFFFFFF.txt, velodyne_points/data/FFFFFFFFFF.bin
    calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt      in the drive's folder or the one above
    tracklet_labels.xml                                 boxes in the lidar's frame, by their bottom centres; optional

KITTI has no map. Its images are rectified: the path's camera is a pinhole. Boxes in pixels are those of the 3D boxes, as for
every log, not the label's own, which leave out what is hidden.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
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
    no_boxes,
    pick_frames,
    read_frames,
    read_points,
)
from stages.ingest.ego_poses import moved_points, turned_yaw
from stages.ingest.kitti import stamp_to_unix_seconds
from stages.ingest.kitti_tracking import KittiSequence, calibrate, oxts_poses, read_matrices, read_sequence
from stages.ingest.settle_tracks import AnnotatedBoxes
from stages.ingest.timing import check_selection
from worldline.cameras import scale_intrinsics

_IMAGE, _SWEEP = re.compile(r"image_02/[^/]+/(\d+)\.(?:png|jpg)"), re.compile(r"velodyne(?:_points)?/[^/]+/(\d+)\.bin")
RAW_CALIBRATION = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt", "calib_imu_to_velo.txt")
RAW_TIMES, TRACKLETS = "image_02/timestamps.txt", "tracklet_labels.xml"


@dataclass(frozen=True, kw_only=True)
class KittiLogConfig(LogSelection):
    """How a sequence is read as a driving log, beside `LogSelection`.

    Attributes:
        rate_hz: of the frames where no file of timestamps lies beside them; the benchmark states 10.
        length_m, width_m: of the car (a VW Passat estate).
        middle_m: the point on the ground under its middle, in the frame of the inertial sensor (x forward, y left, z up), which
            sits 0.93 m up near the rear axle, left of the middle.
    """

    rate_hz: PositiveFloat = 10.0
    length_m: PositiveFloat = 4.77
    width_m: PositiveFloat = 1.82
    middle_m: tuple[float, float, float] = (1.3, -0.32, -0.93)


@stage("ingest.kitti_log", version=1)
def ingest_kitti_log(source: Source, config: KittiLogConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read a sequence or a raw drive as a driving log; its world is x east, y north, z up.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    raw = RAW_CALIBRATION[0] in source.files
    sequence = read_raw_drive(source) if raw else read_sequence(source, config.rate_hz)
    images = {int(match[1]): name for name in source.files if (match := _IMAGE.fullmatch(name))}
    frames = [frame for frame in sorted(images) if frame < len(sequence.times_s) and np.isfinite(sequence.times_s[frame])]
    if not frames:
        where = "data" if raw else source.name
        raise WorldlineError(f"{source.name} has no images image_02/{where}/FFFFFF.png: complete the folder")
    origin_s = sequence.times_s[frames[0]]
    places = pick_frames([float(sequence.times_s[frame] - origin_s) for frame in frames], config, source.name)
    kept = [frames[place] for place in places]
    video, original = read_frames(source, [images[frame] for frame in kept], config.max_side, progress)
    seconds = sequence.times_s[kept] - sequence.times_s[kept[0]]
    epoch_ns = None if sequence.epoch_ns is None else sequence.epoch_ns + round(float(sequence.times_s[kept[0]]) * 1e9)
    clip = Clip(
        frames=video,
        times_s=seconds,
        name=source.name,
        epoch_ns=epoch_ns,
        intrinsics=scale_intrinsics(sequence.intrinsics, video.shape[2] / original[0], video.shape[1] / original[1]),
        provenance={
            "kind": "kitti_log",
            "source": content_digest(source),
            "camera": "image_02",
            "original_width_px": original[0],
            "original_height_px": original[1],
            "frames_in_source": len(images),
        },
    )
    middle = np.eye(4)
    middle[:3, 3] = config.middle_m
    log = RecordedLog(
        clip=clip,
        world_from_camera=sequence.world_from_camera[kept],
        known=sequence.known[kept],
        world_from_ego=sequence.world_from_imu[kept] @ middle,
        boxes=replace(sequence.boxes, boxes_px=None),
        kept=kept,
        body=EgoBody(config.length_m, config.width_m),
        road_map=RoadMap.none(),
        sweeps=[
            _sweep(source, name, time_s, sequence.world_from_lidar[frame])
            for frame, time_s, name in _sweep_files(source, kept, seconds.tolist())
            if sequence.known[frame]
        ],
        provenance={
            "format": "kitti_log",
            "log": source.name,
            "source": content_digest(source),
            "camera": "image_02",
            "time_source": sequence.time_source,
            "epoch_ns": epoch_ns,
        },
        scale_source="annotations" if TRACKLETS in source.files or not raw else "given",
    )
    return assemble_log(log)


def read_raw_drive(source: Source) -> KittiSequence:
    """Read poses, calibration and tracklets of a raw drive; its frames are counted by the numbers of its files.

    Raises:
        WorldlineError: if a file is missing or does not parse.
    """
    if missing := [name for name in (*RAW_CALIBRATION, RAW_TIMES) if name not in source.files]:
        raise WorldlineError(f"{source.name} has no {missing[0]}: put the day's calibration and the drive's timestamps beside it")
    matrices = {name: read_matrices(source.files[name]) for name in RAW_CALIBRATION}
    nothing = np.zeros(0)
    cameras, lidar, imu = (matrices[name] for name in RAW_CALIBRATION)
    calibrated = calibrate(
        {
            "R_rect": cameras.get("R_rect_00", nothing),
            "P2": cameras.get("P_rect_02", nothing),
            "Tr_velo_cam": _rigid(lidar),
            "Tr_imu_velo": _rigid(imu),
        },
        f"{source.name}/calib_*.txt",
    )
    stamps = [stamp_to_unix_seconds(line) for line in source.files[RAW_TIMES].read_text(errors="replace").splitlines()]
    told = [stamp for stamp in stamps if stamp is not None]
    if not told:
        raise WorldlineError(f"{source.name}/{RAW_TIMES} holds no times such as 2011-09-26 13:02:25.964389445: copy it again")
    seconds = [np.nan if stamp is None else float(stamp - told[0]) for stamp in stamps]
    records = {int(match[1]): name for name in source.files if (match := re.fullmatch(r"oxts/data/(\d+)\.txt", name))}
    lines = [
        source.files[records[frame]].read_text(errors="replace").partition("\n")[0] if frame in records else "-"
        for frame in range(len(stamps))
    ]
    world_from_imu, known, _ = oxts_poses(lines, f"{source.name}/oxts")
    world_from_rectified = world_from_imu @ np.linalg.inv(calibrated.rectified_from_imu)
    world_from_lidar = world_from_rectified @ calibrated.rectified_from_lidar
    return KittiSequence(
        times_s=np.array(seconds),
        time_source=RAW_TIMES,
        epoch_ns=int(told[0] * 1_000_000_000),
        world_from_imu=world_from_imu,
        world_from_camera=world_from_rectified @ calibrated.rectified_from_camera,
        world_from_lidar=world_from_lidar,
        known=known,
        intrinsics=calibrated.intrinsics,
        boxes=_tracklets(source, world_from_lidar, known) if TRACKLETS in source.files else no_boxes(),
    )


def _rigid(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return [R | T] as twelve numbers, fewer where the file lacks one."""
    rotation, translation = found.get("R", np.zeros(0)), found.get("T", np.zeros(0))
    if rotation.size != 9 or translation.size != 3:
        return np.zeros(0)
    return np.column_stack([rotation.reshape(3, 3), translation]).ravel()


def _tracklets(source: Source, world_from_lidar: np.ndarray, known: np.ndarray) -> AnnotatedBoxes:
    """Return the boxes of a drive's tracklets in the frames whose pose is known.

    Raises:
        WorldlineError: if the file is no XML of tracklets.
    """
    ids: list[str] = []
    classes: list[str] = []
    rows: list[list[float]] = []  # frame, x, y, z, length, width, height, yaw
    try:
        root = ElementTree.fromstring(source.files[TRACKLETS].read_bytes())
        for number, item in enumerate(root.findall("./tracklets/item")):
            first = int(_text(item, "first_frame"))
            size = [float(_text(item, name)) for name in ("l", "w", "h")]
            for step, told in enumerate(item.findall("./poses/item")):
                ids.append(str(number))
                classes.append(_text(item, "objectType"))
                x, y, z, turned = (float(_text(told, name)) for name in ("tx", "ty", "tz", "rz"))
                rows.append([first + step, x, y, z, *size, turned])
    except (ElementTree.ParseError, ValueError) as error:
        raise WorldlineError(f"{source.name}/{TRACKLETS} is no XML of KITTI's tracklets ({error}): copy it again") from error
    table = np.array(rows).reshape(-1, 8)
    frame = table[:, 0].astype(np.int64)
    inside = (frame >= 0) & (frame < len(known))
    pose = world_from_lidar[np.where(inside, frame, 0)]
    turn = table[:, 7]
    return AnnotatedBoxes(
        source_id=pa.array(ids, pa.string()),
        source_class=pa.array(classes, pa.string()),
        frame=np.where(inside, frame, -1),
        position=moved_points(pose, table[:, 1:4]),
        position_is="bottom",
        size=table[:, 4:7],
        yaw_rad=turned_yaw(pose[:, :3, :3], np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)),
        dropped={"no_ego_pose": inside & ~known[np.where(inside, frame, 0)]},
    )


def _text(item: ElementTree.Element, name: str) -> str:
    found = item.findtext(name)
    if found is None:
        raise ValueError(f"an item has no {name}")
    return found


def _sweep_files(source: Source, kept: list[int], seconds: list[float]) -> list[tuple[int, float, str]]:
    """Return the sweeps of the kept frames as (frame, time, file); some sequences lack a few."""
    found = {int(match[1]): name for name in source.files if (match := _SWEEP.fullmatch(name))}
    return [(frame, time_s, found[frame]) for frame, time_s in zip(kept, seconds, strict=True) if frame in found]


def _sweep(source: Source, name: str, time_s: float, world_from_lidar: np.ndarray) -> Sweep:
    points = read_points(source.files[name], f"{source.name}/{name}", 4)[:, :3].astype(np.float64)
    return Sweep(time_s, world_from_lidar[:3, 3], points @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3])
