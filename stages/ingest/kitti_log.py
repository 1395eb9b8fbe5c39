"""A sequence of KITTI's tracking benchmark as a driving log: labels, poses and calibration, with its images and sweeps.

    label_02/NNNN.txt, calib/NNNN.txt, oxts/NNNN.txt    as `ingest.kitti_tracking` reads them
    image_02/NNNN/FFFFFF.png                            the left colour camera
    velodyne/NNNN/FFFFFF.bin                            float32 rows of x, y, z, reflectance in the lidar's frame; optional

The benchmark has no map. Its images are rectified: the path's camera is a pinhole. Boxes in pixels are those of the 3D boxes, as
for every log, not the label's own, which leave out what is hidden.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from pydantic import PositiveFloat

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.driving import RoadMap
from schemas.errors import WorldlineError
from stages.contract import Progress, stage
from stages.ingest.driving_log import (
    DrivingLog,
    EgoBody,
    RecordedLog,
    Sweep,
    assemble_log,
    pick_frames,
    read_frames,
    read_points,
)
from stages.ingest.kitti_tracking import read_sequence
from stages.ingest.timing import check_selection
from worldline.cameras import scale_intrinsics

_IMAGE, _SWEEP = re.compile(r"image_02/[^/]+/(\d+)\.(?:png|jpg)"), re.compile(r"velodyne/[^/]+/(\d+)\.bin")


@dataclass(frozen=True)
class KittiLogConfig:
    """How a sequence is read as a driving log.

    Attributes:
        rate_hz: of the frames where no file of timestamps lies beside them; the benchmark states 10.
        start_s, end_s: span in seconds from the first frame; None goes to the end.
        max_frames: stop after this many frames.
        max_side: longer side of the frames in pixels, before they are cut to multiples of 16; larger ones are shrunk, None keeps
            them.
        frames_per_second: keep at most this many frames per second; None keeps all.
        length_m, width_m: of the car (a VW Passat estate).
        middle_m: the point on the ground under its middle, in the frame of the inertial sensor (x forward, y left, z up), which
            sits 0.93 m up near the rear axle, left of the middle.
    """

    rate_hz: PositiveFloat = 10.0
    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    frames_per_second: float | None = None
    length_m: PositiveFloat = 4.77
    width_m: PositiveFloat = 1.82
    middle_m: tuple[float, float, float] = (1.3, -0.32, -0.93)


@stage("ingest.kitti_log", version=1)
def ingest_kitti_log(source: Source, config: KittiLogConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read a sequence of KITTI tracking as a driving log; its world is x east, y north, z up.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_selection(config, config.frames_per_second, config.max_side)
    sequence = read_sequence(source, config.rate_hz)
    images = {int(match[1]): name for name in source.files if (match := _IMAGE.fullmatch(name))}
    frames = [frame for frame in sorted(images) if frame < len(sequence.times_s) and np.isfinite(sequence.times_s[frame])]
    if not frames:
        raise WorldlineError(f"{source.name} has no images image_02/{source.name}/FFFFFF.png: put them beside the labels")
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
    )
    return assemble_log(log)


def _sweep_files(source: Source, kept: list[int], seconds: list[float]) -> list[tuple[int, float, str]]:
    """Return the sweeps of the kept frames as (frame, time, file); some sequences lack a few."""
    found = {int(match[1]): name for name in source.files if (match := _SWEEP.fullmatch(name))}
    return [(frame, time_s, found[frame]) for frame, time_s in zip(kept, seconds, strict=True) if frame in found]


def _sweep(source: Source, name: str, time_s: float, world_from_lidar: np.ndarray) -> Sweep:
    points = read_points(source.files[name], f"{source.name}/{name}", 4)[:, :3].astype(np.float64)
    return Sweep(time_s, world_from_lidar[:3, 3], points @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3])
