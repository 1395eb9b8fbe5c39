"""What lies beside the images of a KITTI drive: their time stamps and the records of its OXTS unit (GPS and inertial).

Layouts (Geiger et al., Vision meets Robotics: The KITTI Dataset, IJRR 2013, and the devkits' readme files): raw drives hold
`image_0X/{timestamps.txt, data/*.png}` and `oxts/{timestamps.txt, data/*.txt}` with one record a file; tracking
sequences hold `image_0X/NNNN/*.png` and `oxts/NNNN.txt` with one record a line for every image. A record is 30 numbers:
latitude and longitude in degrees, altitude in m, roll, pitch and yaw in radians (yaw 0 is east), velocities north, east,
forward, left and up in m/s, ...
"""

import datetime
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.artifact import Files, make_table
from schemas.clips import ATTITUDES, GPS_FIXES, Source
from schemas.errors import WorldlineError

STAMPS_FILE = "timestamps.txt"
_OXTS_STAMPS, _OXTS_RECORDS, _OXTS_LINES = "oxts/timestamps.txt", "oxts/data/", "oxts.txt"
_NUMBERS = 30
_MARGIN_S = 1.0
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)?")


def files_beside_images(images: Path) -> Files:
    """Return the files of a KITTI drive that belong to a folder of its images, by the names under which they are read."""
    files = Files()
    camera = images.parent if images.name == "data" else images
    drive = camera.parent
    if images.name == "data" and camera.name.startswith("image_"):
        found = {STAMPS_FILE: camera / STAMPS_FILE, _OXTS_STAMPS: drive / _OXTS_STAMPS}
        found |= {f"{_OXTS_RECORDS}{record.name}": record for record in sorted((drive / _OXTS_RECORDS).glob("*.txt"))}
    elif drive.name.startswith("image_"):
        found = {_OXTS_LINES: drive.parent / "oxts" / f"{images.name}.txt"}
    else:
        return files
    files.update({name: path for name, path in found.items() if path.is_file()})
    return files


def stamp_to_unix_seconds(line: str) -> Decimal | None:
    """Return the exact Unix seconds of a line like "2011-09-26 13:02:25.964389445" (taken as UTC), None for another."""
    found = _STAMP.fullmatch(line.strip())
    if found is None:
        return None
    try:
        moment = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return Decimal(int(moment.timestamp())) + Decimal(f"0{found[2] or ''}")


def read_oxts(
    source: Source, image_times_s: list[float], first_kept: int, end_s: float, epoch_ns: int | None
) -> tuple[pa.Table, pa.Table] | None:
    """Return fixes (`GPS_FIXES`, speed over ground) and `ATTITUDES` of a drive, or None where the source has no records.

    Args:
        source: files as `files_beside_images` names them.
        image_times_s: times of all images of the source, from the first.
        first_kept: index of the clip's first image, whose time is the clip's zero.
        end_s: time of the clip's last frame; a second beyond either end is kept.
        epoch_ns: absolute time of the first image of the source, which raw drives need to relate the two clocks.

    Raises:
        WorldlineError: naming the file, the line and the field.
    """
    records = sorted(name for name in source.files if name.startswith(_OXTS_RECORDS))
    if records:
        lines = [(f"{source.name}/{name}", source.files[name].read_text(errors="replace").strip()) for name in records]
        times = _record_times(source, len(records), epoch_ns)
    elif _OXTS_LINES in source.files:
        text = source.files[_OXTS_LINES].read_text(errors="replace").splitlines()
        lines = [(f"{source.name}/{_OXTS_LINES}, line {number}", line) for number, line in enumerate(text, 1) if line.strip()]
        if len(lines) != len(image_times_s):
            raise WorldlineError(
                f"{source.name}/{_OXTS_LINES} has {len(lines)} records for {len(image_times_s)} images: give one line per image"
            )
        times = np.array(image_times_s)
    else:
        return None
    values = np.array([_record(line, where) for where, line in lines])
    times = times - image_times_s[first_kept]
    near = (times >= -_MARGIN_S) & (times <= end_s + _MARGIN_S)
    latitude, longitude, altitude, roll, pitch, yaw, north, east = values[near, :8].T
    fixes = (times[near], latitude, longitude, altitude, np.hypot(north, east))
    attitudes = (times[near], roll, pitch, yaw)
    return (
        make_table(GPS_FIXES, dict(zip(GPS_FIXES.names, fixes, strict=True))),
        make_table(ATTITUDES, dict(zip(ATTITUDES.names, attitudes, strict=True))),
    )


def _record_times(source: Source, count: int, epoch_ns: int | None) -> np.ndarray:
    """Return the times of the records in seconds from the first image."""
    if _OXTS_STAMPS not in source.files or epoch_ns is None:
        absent = STAMPS_FILE if _OXTS_STAMPS in source.files else _OXTS_STAMPS
        raise WorldlineError(f"{source.name} has oxts records but no {absent} to tell their times: add that file of the drive")
    name = f"{source.name}/{_OXTS_STAMPS}"
    text = [line for line in source.files[_OXTS_STAMPS].read_text(errors="replace").splitlines() if line.strip()]
    instants = []
    for number, line in enumerate(text, 1):
        instant = stamp_to_unix_seconds(line)
        if instant is None:
            raise WorldlineError(f"{name}, line {number}: '{line.strip()}' is no time like 2011-09-26 13:02:25.964389445")
        instants.append(instant)
    if len(instants) != count:
        raise WorldlineError(f"{name} holds {len(instants)} times for {count} records in oxts/data: give one line per record")
    times = np.array([float(instant - Decimal(epoch_ns) / 1_000_000_000) for instant in instants])
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        raise WorldlineError(f"{name}, line {late[0] + 2}: the time does not increase: put the records in order")
    return times


def _record(line: str, where: str) -> list[float]:
    """Return the numbers of one record."""
    cells = line.split()
    if len(cells) != _NUMBERS:
        raise WorldlineError(f"{where}: {len(cells)} numbers instead of the {_NUMBERS} of an oxts record: download it again")
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise WorldlineError(f"{where}: an oxts record must hold {_NUMBERS} numbers ({error})") from error
    if not np.isfinite(values[:8]).all() or abs(values[0]) > 90 or abs(values[1]) > 360:
        raise WorldlineError(
            f"{where}: latitude {cells[0]}, longitude {cells[1]} and what follows must be finite and on the globe"
        )
    return values
