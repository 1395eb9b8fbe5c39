"""GPS fixes from a CSV beside a video, or from the EXIF block of photos."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.artifact import rows_to_table
from schemas.clips import GPS_FIXES
from schemas.errors import WorldlineError

_NEEDED = ("time_s", "latitude_deg", "longitude_deg")


def read_gps_csv(path: Path, name: str, first_kept_s: float) -> pa.Table:
    """Return the fixes of a CSV file in `GPS_FIXES` columns, sorted by time.

    Args:
        path: file with a header row of the column names; `altitude_m` and `speed_mps` may be absent or empty.
        name: what a message calls the file.
        first_kept_s: time of the clip's first frame; `time_s` of the file counts from the video's first frame.

    Raises:
        WorldlineError: naming the file and the line or column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in _NEEDED if column not in (reader.fieldnames or ())]
            if missing:
                raise WorldlineError(f"{name} has no column {missing[0]}: its header must be {','.join(GPS_FIXES.names)}")
            rows = [_row(row, f"{name}, line {reader.line_num}") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WorldlineError(
            f"{name} is not a CSV text file ({error}): its header must be {','.join(GPS_FIXES.names)}"
        ) from error
    for row in rows:
        row["time_s"] -= first_kept_s
    return rows_to_table(GPS_FIXES, sorted(rows, key=lambda row: row["time_s"]))


def _row(row: Mapping[str, str | None], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column in GPS_FIXES.names:
        text = (row.get(column) or "").strip()
        try:
            values[column] = float(text) if text else None
        except ValueError as error:
            raise WorldlineError(f"{where}: {column} is '{text}', which is not a number") from error
        if (values[column] is None and column in _NEEDED) or not math.isfinite(values[column] or 0.0):
            raise WorldlineError(f"{where}: {column} must be a finite number")
    if abs(values["latitude_deg"]) > 90 or abs(values["longitude_deg"]) > 360:
        raise WorldlineError(f"{where}: latitude {values['latitude_deg']}, longitude {values['longitude_deg']} lie on no globe")
    return values


def exif_position(gps: Mapping[int, Any]) -> tuple[float, float, float | None, float | None] | None:
    """Return (latitude in degrees, longitude in degrees, altitude in m, speed in m/s) of an EXIF GPS block.

    Tags by number as in the EXIF 2.32 standard, section 4.6.6: 1 to 4 latitude and longitude with their
    references, 5 and 6 altitude, 12 and 13 speed and its unit. None where there is no usable position.
    """
    try:
        latitude = _degrees(gps[2]) * (-1 if str(gps.get(1, "N")).upper().startswith("S") else 1)
        longitude = _degrees(gps[4]) * (-1 if str(gps.get(3, "E")).upper().startswith("W") else 1)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # also catches NaN, which 0/0 rationals give
        return None
    altitude, speed = _number(gps.get(6)), _number(gps.get(13))
    if altitude is not None and gps.get(5) in (1, b"\x01"):
        altitude = -altitude
    if speed is not None:
        speed *= {"M": 0.44704, "N": 1852 / 3600}.get(str(gps.get(12, "K"))[:1].upper(), 1 / 3.6)
    return latitude, longitude, altitude, speed


def _degrees(parts: Any) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    return degrees + minutes / 60 + seconds / 3600


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
