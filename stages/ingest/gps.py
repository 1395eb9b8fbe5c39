"""GPS fixes and wheel speeds from a CSV beside a video, or fixes from the EXIF block of photos."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.artifact import rows_to_table
from schemas.clips import GPS_FIXES, WHEEL_SPEEDS
from schemas.errors import WorldlineError

_FASTEST_MPS = 150.0


def read_gps_csv(path: Path, name: str, first_kept_s: float) -> pa.Table:
    """Return the fixes of a CSV file in `GPS_FIXES` columns, sorted by time.

    Args:
        path: file with a header row of the column names; `altitude_m` and `speed_mps` may be absent or empty.
        name: what a message calls the file.
        first_kept_s: time of the clip's first frame; `time_s` of the file counts from the video's first frame.

    Raises:
        WorldlineError: naming the file and the line or column.
    """
    rows = _read_rows(path, name, GPS_FIXES, ("time_s", "latitude_deg", "longitude_deg"))
    for where, row in rows:
        if abs(row["latitude_deg"]) > 90 or abs(row["longitude_deg"]) > 360:
            raise WorldlineError(f"{where}: latitude {row['latitude_deg']}, longitude {row['longitude_deg']} lie on no globe")
    return _in_clip_time(GPS_FIXES, rows, first_kept_s)


def read_speed_csv(path: Path, name: str, first_kept_s: float) -> pa.Table:
    """Return the wheel speeds of a CSV file in `WHEEL_SPEEDS` columns, sorted by time.

    Args:
        path: file with the header `time_s,speed_mps`.
        name: what a message calls the file.
        first_kept_s: time of the clip's first frame; `time_s` of the file counts from the video's first frame.

    Raises:
        WorldlineError: naming the file and the line or column.
    """
    return _in_clip_time(WHEEL_SPEEDS, _read_rows(path, name, WHEEL_SPEEDS, ("time_s", "speed_mps")), first_kept_s)


def _read_rows(path: Path, name: str, schema: pa.Schema, needed: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a CSV file as numbers (None where empty), each with where it stands."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in needed if column not in (reader.fieldnames or ())]
            if missing:
                raise WorldlineError(f"{name} has no column {missing[0]}: its header must be {','.join(schema.names)}")
            numbered = ((f"{name}, line {reader.line_num}", row) for row in reader)
            return [(where, _row(row, where, schema, needed)) for where, row in numbered]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WorldlineError(f"{name} is not a CSV text file ({error}): its header must be {','.join(schema.names)}") from error


def _row(row: Mapping[str, str | None], where: str, schema: pa.Schema, needed: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column in schema.names:
        text = (row.get(column) or "").strip()
        try:
            values[column] = float(text) if text else None
        except ValueError as error:
            raise WorldlineError(f"{where}: {column} is '{text}', which is not a number") from error
        if (values[column] is None and column in needed) or not math.isfinite(values[column] or 0.0):
            raise WorldlineError(f"{where}: {column} must be a finite number")
    if abs(values["speed_mps"] or 0.0) > _FASTEST_MPS:
        raise WorldlineError(
            f"{where}: speed_mps is {values['speed_mps']:g}, faster than any road vehicle: give metres per second, not km/h"
        )
    return values


def _in_clip_time(schema: pa.Schema, rows: list[tuple[str, dict[str, Any]]], first_kept_s: float) -> pa.Table:
    """Return rows as a table sorted by time, which counts from the clip's first frame."""
    rows.sort(key=lambda row: row[1]["time_s"])
    return rows_to_table(schema, [{**row, "time_s": row["time_s"] - first_kept_s} for _, row in rows])


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
