"""KITTI raw drives (synchronised and rectified): two cameras with a known baseline, and the fixes of the inertial unit.

Layout as in Geiger et al., Vision meets robotics: the KITTI dataset, IJRR 2013: `image_02/data/NNNNNNNNNN.png` and
`image_03/data` (or the grey pair 00 and 01) with `image_02/timestamps.txt`, `oxts/data` with `oxts/timestamps.txt`, and
`calib_cam_to_cam.txt` in the drive's folder or the one above it, of whose rectified projections `P_rect_0N` = K [1 | t]
the intrinsics and the places are read.
"""

import datetime
import itertools
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.clips import GPS_FIXES, Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.rigs import RigClip
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.pictures import read_picture
from stages.ingest.rig_sets import RigConfig, Strip, assemble_rig_clip, check_rig_config, reference_clip
from stages.ingest.source import KITTI_CALIBRATION, kitti_pair

_GPS_MARGIN_S = 1.0
_LATITUDE, _LONGITUDE, _ALTITUDE, _NORTH_MPS, _EAST_MPS = 0, 1, 2, 6, 7  # columns of an oxts file (dataformat.txt)


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
            f"{source.name} has no stereo pair image_02 and image_03 (or image_00 and image_01): complete the drive"
        )
    projections = _read_projections(source)
    clock = _read_times(source, f"{folders[0]}/timestamps.txt")
    strips = [_strip(source, folder, projections, clock) for folder in folders]
    provenance = {"kind": "kitti_stereo", "source": content_digest(source), "times": f"{folders[0]}/timestamps.txt"}
    rig_clip = assemble_rig_clip(source.name, strips, config, progress, provenance)
    first = int(_number(next(name for name in _images(source, folders[0]))))
    start_ns = clock[first] + round(rig_clip.provenance["first_kept_s"] * 1e9)
    gps = _read_fixes(source, start_ns, float(rig_clip.times_s[rig_clip.reference][-1]))
    return reference_clip(rig_clip, config, epoch_ns=start_ns, gps=gps), Truth.unavailable(), rig_clip


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
    """Return Unix nanoseconds of lines such as `2011-09-26 13:02:25.951199337` (taken as UTC, which the files do not say)."""
    times = []
    for number, line in enumerate(filter(None, map(str.strip, _text(source, name).splitlines())), 1):
        whole, _, fraction = line.partition(".")
        try:
            moment = datetime.datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.UTC)
            times.append(int(moment.timestamp()) * 1_000_000_000 + int(Decimal(f"0.{fraction or 0}") * 1_000_000_000))
        except (ValueError, ArithmeticError):
            raise WorldlineError(f"{source.name}/{name}, line {number}: '{line}' is not a date and time") from None
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise WorldlineError(f"{source.name}/{name}: times do not increase from line to line")
    return times


def _read_fixes(source: Source, start_ns: int, end_s: float) -> pa.Table | None:
    """Return the fixes from a second before the clip to a second after."""
    names = sorted(name for name in source.files if re.fullmatch(r"oxts/data/\d+\.txt", name))
    if not names or "oxts/timestamps.txt" not in source.files:
        return None
    clock = _read_times(source, "oxts/timestamps.txt")
    rows = []
    for name in names:
        try:
            values = [float(word) for word in source.files[name].read_text().split()]
            time_s = (clock[_number(name)] - start_ns) / 1e9
            speed = float(np.hypot(values[_NORTH_MPS], values[_EAST_MPS]))
        except (ValueError, IndexError) as error:
            raise WorldlineError(f"{source.name}/{name} is no line of 30 numbers with a timestamp ({error})") from None
        if -_GPS_MARGIN_S <= time_s <= end_s + _GPS_MARGIN_S:
            rows.append((time_s, values[_LATITUDE], values[_LONGITUDE], values[_ALTITUDE], speed))
    columns = list(zip(*rows, strict=True)) or [()] * len(GPS_FIXES)
    return make_table(GPS_FIXES, dict(zip(GPS_FIXES.names, columns, strict=True)))


def _text(source: Source, name: str) -> str:
    path: Path | None = source.files.get(name)
    if path is None:
        raise WorldlineError(f"{source.name} has no {name}, which a KITTI raw drive needs: complete the folder")
    return path.read_text(errors="replace")
