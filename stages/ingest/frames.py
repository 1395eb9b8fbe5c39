"""Folders of images: natural order, upright, with times and positions from files beside them or from EXIF."""

import datetime
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from schemas.artifact import rows_to_table
from schemas.clips import GPS_FIXES, Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.ingest.gps import exif_position, read_gps_csv, read_speed_csv
from stages.ingest.kitti import read_oxts, stamp_to_unix_seconds
from stages.ingest.pictures import (
    check_camera_height,
    fitted_size,
    given_intrinsics,
    keep_frame,
    read_picture,
    resize,
    stack_frames,
    unreadable_image,
)
from stages.ingest.source import GPS_FILE, IMAGE_SUFFIXES, SPEED_FILE, TIME_FILES, natural_order
from stages.ingest.timing import FramePicker, check_selection

_EXIF_BLOCK, _GPS_BLOCK = 0x8769, 0x8825
_TAKEN, _TAKEN_FRACTION, _TAKEN_OFFSET, _FOCAL_35MM, _DESCRIPTION = 0x9003, 0x9291, 0x9011, 0xA405, 0x010E
# Diagonal of a 36 x 24 mm frame: "35 mm equivalent" focal lengths compare diagonals (CIPA DCG-001).
_FILM_DIAGONAL_MM = float(np.hypot(36, 24))
_UNIX_SECONDS_FROM, _UNIX_NANOSECONDS_FROM = Decimal(10) ** 8, Decimal(10) ** 15


@dataclass(frozen=True)
class FramesConfig:
    """How a folder of images is read.

    Attributes:
        frames_per_second: rate that is assumed where neither `timestamps.csv`, `times.txt` nor EXIF gives increasing times.
        start_s, end_s: span in seconds from the first image; None goes to the end.
        max_frames: stop after this many images; None keeps all.
        max_side: longer side of the frames in pixels; larger ones are shrunk by area, None keeps them.
        keep_frames_per_second: keep at most this many images per second, by their times; None keeps all.
        intrinsics: (fx, fy, cx, cy) in pixels of the upright originals, pixel centres at +0.5; scaled with the frames.
        camera_height_m, camera_height_sigma_m: height of the camera over the ground and its standard deviation.
    """

    frames_per_second: float = 10.0
    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    keep_frames_per_second: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    camera_height_m: float | None = None
    camera_height_sigma_m: float | None = None


@stage("ingest.frames", version=2)
def ingest_frames(source: Source, config: FramesConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth]:
    """Read a folder of images as a clip; there is no truth.

    Images are taken in natural order (frame2 before frame10). Times come from `timestamps.csv`, `times.txt` or
    `timestamps.txt`, else from EXIF if it increases from image to image, else from the configured rate;
    `provenance["times"]` says which. Fixes come from `gps.csv`, else from the oxts records of a KITTI drive (which also
    tell its attitude), else from the GPS blocks of the photos; the wheels' speed comes from `speed.csv`. The EXIF focal
    length is only a prior, so it goes to `provenance["focal_prior_px"]`, in pixels of the clip, and not into the
    intrinsics. `provenance["files"]` names the images.

    Raises:
        WorldlineError: if an image is missing or unreadable, sizes differ, times do not parse, or fewer than two are kept.
    """
    check_selection(config, config.keep_frames_per_second, config.max_side)
    check_selection(config, config.frames_per_second, config.max_side)
    check_camera_height(config.camera_height_m, config.camera_height_sigma_m)
    names = natural_order([name for name in source.files if name.lower().endswith(IMAGE_SUFFIXES)])
    if not names:
        raise WorldlineError(f"{source.name} holds no images: give a folder of jpg, png, tif, bmp or webp files")
    if len(names) == 1:
        raise WorldlineError(f"{source.name} holds one image ({names[0]}), and one frame has no motion: give at least 2")
    photos = [_read_photo(source.files[name], f"{source.name}/{name}") for name in names]
    times = _find_times(source, names, photos, config.frames_per_second)
    picker = FramePicker(config, config.keep_frames_per_second)
    kept = [index for index, time_s in enumerate(times.seconds) if picker.take(time_s)]
    if len(kept) < 2:
        raise WorldlineError(
            f"{source.name}: {len(kept)} of {len(names)} images lie in the chosen span and a clip needs at least 2: "
            "check start_s, end_s and keep_frames_per_second"
        )
    frames: list[np.ndarray] = []
    original = size = (0, 0)
    for done, index in enumerate(kept):
        picture = read_picture(source.files[names[index]], f"{source.name}/{names[index]}")
        if done == 0:
            original = (picture.shape[1], picture.shape[0])
            size = fitted_size(*original, config.max_side)
        elif picture.shape[1::-1] != original:
            raise WorldlineError(
                f"{source.name}/{names[index]} is {picture.shape[1]}x{picture.shape[0]} pixels but {names[kept[0]]} is "
                f"{original[0]}x{original[1]}: all frames of a clip must have one size"
            )
        keep_frame(frames, resize(picture, *size), source.name)
        progress(done + 1, len(kept), "frames")
    first_s = times.seconds[kept[0]]
    times_s = np.array([times.seconds[index] for index in kept]) - first_s
    oxts = read_oxts(source, times.seconds, kept[0], float(times_s[-1]), times.epoch_ns)
    clip = Clip(
        frames=stack_frames(frames),
        times_s=times_s,
        name=source.name,
        epoch_ns=None if times.epoch_ns is None else times.epoch_ns + round(first_s * 1e9),
        intrinsics=given_intrinsics(config.intrinsics, original, size),
        gps=_find_fixes(source, photos, times.seconds, kept, oxts[0] if oxts else None),
        wheel_speed=read_speed_csv(source.files[SPEED_FILE], f"{source.name}/{SPEED_FILE}", first_s)
        if SPEED_FILE in source.files
        else None,
        attitudes=oxts[1] if oxts else None,
        camera_height_m=config.camera_height_m,
        camera_height_sigma_m=config.camera_height_sigma_m,
        provenance={
            "kind": "frames",
            "source": content_digest(source),
            "times": times.origin,
            "first_file": names[kept[0]],
            "last_file": names[kept[-1]],
            "files": [names[index] for index in kept],
            "original_width_px": original[0],
            "original_height_px": original[1],
            "frames_in_source": len(names),
            "dropped_out_of_order": picker.out_of_order,
            "stopped_at_max_frames": picker.finished and len(kept) == config.max_frames,
            **_focal_prior([photos[index] for index in kept], size),
        },
    )
    return clip, Truth.unavailable()


@dataclass
class _Photo:
    """What the EXIF block of an image says; all of it may be absent."""

    taken: datetime.datetime | None = None
    focal_35mm: float | None = None
    position: tuple[float, float, float | None, float | None] | None = None


@dataclass
class FrameTimes:
    """Seconds from the first image for each image, their origin, and the absolute time of the first.

    Attributes:
        seconds: one per image.
        origin: where they come from.
        epoch_ns: absolute time of the first image in Unix nanoseconds, where known.
        first_s: what the file of times says of the first image, in seconds.
    """

    seconds: list[float]
    origin: str
    epoch_ns: int | None = field(default=None)
    first_s: Decimal = Decimal(0)


def image_times(source: Source, frames_per_second: float) -> tuple[list[str], FrameTimes]:
    """Return the images of a folder in natural order, and their times as `ingest.frames` finds them.

    Raises:
        WorldlineError: if an image is unreadable or a file of times does not parse.
    """
    names = natural_order([name for name in source.files if name.lower().endswith(IMAGE_SUFFIXES)])
    photos = [_read_photo(source.files[name], f"{source.name}/{name}") for name in names]
    return names, _find_times(source, names, photos, frames_per_second)


def _read_photo(path: Path, name: str) -> _Photo:
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            details, gps = exif.get_ifd(_EXIF_BLOCK), exif.get_ifd(_GPS_BLOCK)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable_image(name, error) from error
    focal = details.get(_FOCAL_35MM)
    return _Photo(
        taken=_capture_time(details, exif.get(_DESCRIPTION)),
        focal_35mm=float(focal) if isinstance(focal, int | float) and focal > 0 else None,
        position=exif_position(gps) if gps else None,
    )


def _capture_time(details: dict[int, Any], description: Any) -> datetime.datetime | None:
    """Return DateTimeOriginal with its fraction and offset, or the capture time that Mapillary's app writes."""
    try:
        if _TAKEN in details:
            taken = datetime.datetime.strptime(str(details[_TAKEN]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
            fraction = re.sub(r"\D", "", str(details.get(_TAKEN_FRACTION, "")))
            taken += datetime.timedelta(seconds=float(f"0.{fraction or 0}"))
            offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", str(details.get(_TAKEN_OFFSET, "")).strip("\0 "))
            if offset:
                minutes = (int(offset[2]) * 60 + int(offset[3])) * (-1 if offset[1] == "-" else 1)
                taken = taken.replace(tzinfo=datetime.timezone(datetime.timedelta(minutes=minutes)))
            return taken
        captured = json.loads(description)["MAPCaptureTime"]
        return datetime.datetime.strptime(captured + "000", "%Y_%m_%d_%H_%M_%S_%f")
    except (TypeError, ValueError, KeyError):
        return None


def _find_times(source: Source, names: list[str], photos: list[_Photo], rate: float) -> FrameTimes:
    for time_file in TIME_FILES:
        if time_file in source.files:
            return read_time_file(source.files[time_file], f"{source.name}/{time_file}", names, time_file)
    taken = [photo.taken for photo in photos]
    zones = {None if moment is None else moment.tzinfo is None for moment in taken}
    if None not in taken and len(zones) == 1:
        moments = [moment for moment in taken if moment is not None]
        seconds = [(moment - moments[0]).total_seconds() for moment in moments]
        if all(after > before for before, after in itertools.pairwise(seconds)):
            since_epoch = None
            if moments[0].tzinfo is not None:
                delta = moments[0] - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
                since_epoch = (delta // datetime.timedelta(microseconds=1)) * 1000
            return FrameTimes(seconds, "exif", since_epoch)
    return FrameTimes([index / rate for index in range(len(names))], f"assumed {rate:g} frames per second")


def read_time_file(path: Path, name: str, names: list[str], origin: str) -> FrameTimes:
    """Read one time per image: bare numbers in the images' order, or rows that pair a file name with a number.

    Numbers are seconds; from 1e8 on they are Unix seconds and from 1e15 on Unix nanoseconds. A header and lines
    starting with # are skipped. KITTI's stamps, such as 2011-09-26 13:02:25.964389445, are Unix seconds of UTC.
    """
    values: list[Decimal] = []
    by_name: dict[str, Decimal] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        stamp = stamp_to_unix_seconds(line)
        cells = [cell.strip() for cell in re.split(r"[,;\s]+", line.strip()) if cell.strip()] if stamp is None else [str(stamp)]
        if not cells or line.lstrip().startswith("#"):
            continue
        instants = [value for value in map(_decimal, cells) if value is not None]
        files = [Path(cell).name for cell in cells if Path(cell).name in names]
        if not instants and not values and not by_name:
            continue  # the header
        if len(files) == 1 and instants:
            by_name[files[0]] = instants[0]
        elif len(cells) == 1 and instants:
            values.append(instants[0])
        else:
            raise WorldlineError(f"{name}, line {number}: '{line.strip()}' is neither a time nor an image's name and its time")
    if by_name:
        missing = [item for item in names if item not in by_name]
        if missing:
            raise WorldlineError(f"{name} gives no time for {missing[0]}: add a row for it")
        values = [by_name[item] for item in names]
    if len(values) != len(names):
        raise WorldlineError(f"{name} holds {len(values)} times for {len(names)} images: give one line per image")
    unit = Decimal(1_000_000_000) if values[0] >= _UNIX_NANOSECONDS_FROM else Decimal(1)
    epoch_ns = int(values[0] / unit * 1_000_000_000) if values[0] >= _UNIX_SECONDS_FROM else None
    return FrameTimes([float((value - values[0]) / unit) for value in values], origin, epoch_ns, values[0] / unit)


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _find_fixes(
    source: Source, photos: list[_Photo], seconds: Sequence[float], kept: list[int], oxts: pa.Table | None
) -> pa.Table | None:
    if GPS_FILE in source.files:
        return read_gps_csv(source.files[GPS_FILE], f"{source.name}/{GPS_FILE}", seconds[kept[0]])
    if oxts is not None:
        return oxts
    rows = []
    for index in kept:
        position = photos[index].position
        if position is not None:
            rows.append(dict(zip(GPS_FIXES.names, (seconds[index] - seconds[kept[0]], *position), strict=True)))
    return rows_to_table(GPS_FIXES, rows) if rows else None


def _focal_prior(photos: list[_Photo], size: tuple[int, int]) -> dict[str, float]:
    """Return the focal length that all photos agree on, in pixels of frames of this size."""
    focals = {photo.focal_35mm for photo in photos}
    focal = focals.pop() if len(focals) == 1 else None
    return {} if focal is None else {"focal_prior_px": focal / _FILM_DIAGONAL_MM * float(np.hypot(*size))}
