"""PandaSet scenes as rigs: several cameras of a log, each at its own times.

The layout is that of `stages.ingest.pandaset`. The log carries no table of where its cameras sit; they are placed by what
its `poses.json` say of each against the reference's, interpolated to the camera's own times, as a mean over all frames.
Nothing else of these poses reaches the rig: the path is in the truth alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.rigs import RigClip
from schemas.tracks import TRUTH_BOXES, Truth
from stages.contract import Progress, stage
from stages.ingest.pandaset import nanoseconds, pose_matrix, read_gps, read_json, scaled_intrinsics
from stages.ingest.pictures import read_picture
from stages.ingest.rig_sets import RigConfig, Strip, assemble_rig_clip, check_rig_config, reference_clip
from stages.ingest.source import IMAGE_SUFFIXES
from worldline.rigs import place_camera

REFERENCE = "front_camera"
_MAX_GAP_S = 0.5


@stage("ingest.pandaset_rig", version=1)
def ingest_pandaset_rig(source: Source, config: RigConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth, RigClip]:
    """Read several cameras of a PandaSet scene; the reference is the front camera, else the first by name.

    Returns:
        The reference's clip with the log's fixes, its true poses (no boxes), and the rig.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_rig_config(config)
    cameras = sorted({PurePosixPath(name).parts[1] for name in source.files if name.startswith("camera/")})
    cameras.sort(key=lambda camera: camera != REFERENCE)
    clocks = [nanoseconds(read_json(source, name), name) for name in (f"camera/{camera}/timestamps.json" for camera in cameras)]
    paths = [_poses(source, camera) for camera in cameras]
    origin = clocks[0][0]
    times = [np.array([(instant - origin) / 1e9 for instant in clock]) for clock in clocks]
    strips = []
    for camera, seconds, path in zip(cameras, times, paths, strict=True):
        images = _images(source, camera)
        if not len(images) == len(seconds) == len(path):
            raise WorldlineError(
                f"{source.name}/camera/{camera} has {len(images)} images, {len(seconds)} timestamps and {len(path)} poses: each "
                "frame needs one of each"
            )
        place = place_camera(times[0], paths[0], seconds, path, _MAX_GAP_S)
        height, width = read_picture(source.files[images[0]], f"{source.name}/{images[0]}").shape[:2]
        given = read_json(source, f"camera/{camera}/intrinsics.json")
        matrix = scaled_intrinsics(given, (width, height), (width, height))
        strips.append(
            Strip(
                name=camera,
                times_s=seconds,
                read=partial(_read, source, images),
                intrinsics=(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]),
                camera_from_body=place.camera_from_rig if place else None,
            )
        )
    provenance = {"kind": "pandaset_rig", "source": content_digest(source), "times": "timestamps.json"}
    rig_clip = assemble_rig_clip(source.name, strips, config, progress, provenance)
    kept_s = rig_clip.times_s[cameras[0]] + rig_clip.provenance["first_kept_s"]
    kept = np.searchsorted(times[0], kept_s - 1e-6)
    epoch_ns = clocks[0][int(kept[0])]
    truth = Truth(
        available=True,
        world_from_camera=paths[0][kept],
        intrinsics=rig_clip.intrinsics[0],
        boxes=TRUTH_BOXES.empty_table(),
        annotated=np.zeros(len(kept), bool),
    )
    gps = read_gps(source, epoch_ns, float(kept_s[-1] - kept_s[0]))
    return reference_clip(rig_clip, config, epoch_ns=epoch_ns, gps=gps), truth, rig_clip


def _poses(source: Source, camera: str) -> np.ndarray:
    name = f"camera/{camera}/poses.json"
    return np.array([pose_matrix(pose, f"{source.name}/{name}") for pose in read_json(source, name)]).reshape(-1, 4, 4)


def _images(source: Source, camera: str) -> list[str]:
    folder = PurePosixPath("camera") / camera
    images = [name for name in source.files if PurePosixPath(name).parent == folder and name.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(images, key=lambda name: int(PurePosixPath(name).stem))


def _read(source: Source, images: list[str], indices: Sequence[int], take: Callable[[np.ndarray], None]) -> None:
    for index in indices:
        take(read_picture(source.files[images[index]], f"{source.name}/{images[index]}"))
