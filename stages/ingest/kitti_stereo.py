"""KITTI raw drives (synchronised and rectified): two cameras with a known baseline, and the fixes of the inertial unit.

Layout as in Geiger et al., Vision meets robotics: the KITTI dataset, IJRR 2013: `image_02/data/NNNNNNNNNN.png` and
`image_03/data` (or the grey pair 00 and 01) with `image_02/timestamps.txt`, `oxts/data` with `oxts/timestamps.txt`, and
`calib_cam_to_cam.txt` in the drive's folder or the one above it, of whose rectified projections `P_rect_0N` = K [1 | t]
the intrinsics and the places are read.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.rigs import RigClip
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.kitti import read_oxts, stamp_to_unix_seconds
from stages.ingest.pictures import read_picture
from stages.ingest.rig_sets import RigConfig, Strip, assemble_rig_clip, check_rig_config, reference_clip
from stages.ingest.source import KITTI_CALIBRATION, kitti_pair


@stage("ingest.kitti_stereo", version=1)
def ingest_kitti_stereo(source: Source, config: RigConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth, RigClip]:
    """Read a stereo pair of a KITTI raw drive. The pair is triggered as one, so that the left camera's times hold for both.

    Returns:
        The left camera's clip with the drive's fixes, no truth, and the rig.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    check_rig_config(config)
    folders = kitti_pair(source.files)
    if folders is None:
        raise WorldlineError(
            f"{source.name} has no stereo pair image_02 and image_03 (or image_00 and image_01): complete the drive, or give "
            "one of its folders of images"
        )
    projections = _read_projections(source)
    clock = _read_times(source, f"{folders[0]}/timestamps.txt")
    strips = [_strip(source, folder, projections, clock) for folder in folders]
    provenance = {"kind": "kitti_stereo", "source": content_digest(source), "times": f"{folders[0]}/timestamps.txt"}
    rig_clip = assemble_rig_clip(source.name, strips, config, progress, provenance)
    epoch_ns = clock[_number(_images(source, folders[0])[0])]
    start_s = rig_clip.provenance["first_kept_s"]
    seconds = strips[0].times_s - strips[0].times_s[0]
    kept = int(np.searchsorted(seconds, start_s - 1e-6))
    oxts = read_oxts(source, seconds.tolist(), kept, float(rig_clip.times_s[rig_clip.reference][-1]), epoch_ns)
    gps, attitudes = oxts or (None, None)
    clip = reference_clip(rig_clip, config, epoch_ns=epoch_ns + round(start_s * 1e9), gps=gps, attitudes=attitudes)
    return clip, Truth.unavailable(), rig_clip


def _images(source: Source, folder: str) -> list[str]:
    return sorted(name for name in source.files if re.fullmatch(rf"{folder}/data/\d+\.(png|jpg)", name))


def _number(name: str) -> int:
    return int(PurePosixPath(name).stem)


def _strip(source: Source, folder: str, projections: dict[str, np.ndarray], clock: list[int]) -> Strip:
    images = _images(source, folder)
    numbers = [_number(name) for name in images]
    if not images or numbers[-1] >= len(clock):
        raise WorldlineError(
            f"{source.name}/{folder} has {len(images)} images and {len(clock)} timestamps: each image needs one, by its number"
        )
    key = f"P_rect_{folder[-2:]}"
    if key not in projections:
        raise WorldlineError(f"{source.name}: {KITTI_CALIBRATION} gives no {key}: take the file of the same day as the drive")
    matrix, place = projections[key][:, :3], np.eye(4)
    place[:3, 3] = np.linalg.solve(matrix, projections[key][:, 3])
    return Strip(
        name=folder,
        times_s=np.array([(clock[number] - clock[0]) / 1e9 for number in numbers]),
        read=partial(_read, source, images),
        # KITTI counts pixels from the centre of the first one, clips from its corner
        intrinsics=(matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5),
        camera_from_body=place,
    )


def _read(source: Source, images: list[str], indices: Sequence[int], take: Callable[[np.ndarray], None]) -> None:
    for index in indices:
        take(read_picture(source.files[images[index]], f"{source.name}/{images[index]}"))


def _read_projections(source: Source) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for line in _text(source, KITTI_CALIBRATION).splitlines():
        key, _, values = line.partition(":")
        if key.startswith("P_rect_"):
            try:
                found[key] = np.array(values.split(), np.float64).reshape(3, 4)
            except ValueError as error:
                raise WorldlineError(f"{source.name}: {key} in {KITTI_CALIBRATION} is not 12 numbers ({error})") from None
    return found


def _read_times(source: Source, name: str) -> list[int]:
    """Return the Unix nanoseconds of a file of time stamps."""
    times = []
    for number, line in enumerate(filter(None, map(str.strip, _text(source, name).splitlines())), 1):
        instant = stamp_to_unix_seconds(line)
        if instant is None:
            raise WorldlineError(f"{source.name}/{name}, line {number}: '{line}' is not a date and time")
        times.append(int(instant * 1_000_000_000))
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise WorldlineError(f"{source.name}/{name}: times do not increase from line to line")
    return times


def _text(source: Source, name: str) -> str:
    path: Path | None = source.files.get(name)
    if path is None:
        raise WorldlineError(f"{source.name} has no {name}, which a KITTI raw drive needs: complete the folder")
    return path.read_text(errors="replace")
