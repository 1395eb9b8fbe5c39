"""NGSIM vehicle trajectories (US Federal Highway Administration): a road filmed from above, as tracks along the road.

Positions are those of the vehicle's front centre in feet: local x from the left edge of the road, local y along it. That
makes a right-handed frame with z up, which is kept: x across the road to the right, y along it. The table has no heading:
it is the direction of travel, and the box is set half its length behind the front. No camera is known.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import Timeline
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.text_columns import csv_batches, numbers, word_batches

NEEDED = ("vehicle_id", "global_time", "local_x", "local_y", "v_length", "v_width", "v_class")
# Columns of the text files without a header in which the data were first given out.
TEXT_COLUMNS = (
    *("vehicle_id", "frame_id", "total_frames", "global_time", "local_x", "local_y", "global_x", "global_y"),
    *("v_length", "v_width", "v_class", "v_vel", "v_acc", "lane_id", "preceding", "following", "space_headway", "time_headway"),
)
PART_S = 60.0  # a recording of 15 or 45 minutes is as many clips
_FOOT_M = 0.3048
_CLASSES = {1: "motorcycle", 2: "auto", 3: "truck"}
# A vehicle is in every frame from when it enters to when it leaves; its number is used again after some minutes.
_NEW_VEHICLE_S = 5.0
_LONGEST_MS = 86_400_000.0
# The heading is that of the way gone from a second before to a second after, where it is at least this long.
_HEADING_ROWS, _HEADING_M = 10, 1.0


@dataclass(frozen=True)
class NgsimConfig:
    """How a table of NGSIM trajectories is read.

    Attributes:
        location: of the column Location ("us-101", "i-80", "lankershim", "peachtree"), where one table holds several; empty
            takes the first.
        part: which minute of the recording, counted from 0; -1 takes all of it at once.
        rules: how boxes become tracks.
    """

    location: str = ""
    part: int = -1
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.ngsim", version=1)
def ingest_ngsim(source: Source, config: NgsimConfig, *, seed: int, progress: Progress) -> tuple[Tracks, CameraPath, Metrics]:
    """Read a table of trajectories as tracks.

    Raises:
        WorldlineError: if the table does not parse, lacks a column or has no such location.
    """
    name, path = next(iter(source.files.items()))
    rows = read_rows(path, path.stat().st_mtime_ns, source.name, config.location)
    progress(1, 2, f"{len(rows.vehicle)} rows")
    chosen = np.flatnonzero(_minutes(rows.column["global_time"]) == config.part) if config.part >= 0 else slice(None)
    column = {item: values[chosen] for item, values in rows.column.items()}
    milliseconds, yaw = column["global_time"], rows.yaw_rad[chosen]
    ids = pa.array(rows.names, pa.string()).take(pa.array(rows.vehicle[chosen], mask=rows.vehicle[chosen] < 0))
    instants = np.unique(milliseconds[np.isfinite(milliseconds)])
    frame = np.where(np.isfinite(milliseconds), np.searchsorted(instants, milliseconds), -1)
    length, width = column["v_length"] * _FOOT_M, column["v_width"] * _FOOT_M
    back = np.where(np.isfinite(length) & (length > 0), length / 2, 0.0)
    front = np.stack([column["local_x"] * _FOOT_M, column["local_y"] * _FOOT_M, 0 * back], -1)
    ahead = np.nan_to_num(np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], -1))
    boxes = AnnotatedBoxes(
        source_id=ids,
        source_class=_classes(column["v_class"]),
        frame=frame,
        position=front - back[:, None] * ahead,
        position_is="bottom",
        size=np.stack([length, width, np.full(len(length), np.nan)], -1),
        yaw_rad=yaw,
        notes=(
            ("tracks.broken_lines", rows.broken, "lines", f"of {name} with another number of fields than the others"),
            ("tracks.no_location", rows.nowhere, "rows", f"of {name} name no location and belong to no log"),
        ),
    )
    count = len(instants)
    timeline = Timeline((instants - instants[:1]) / 1000, np.tile(np.eye(4), (count, 1, 1)), np.zeros(count, bool))
    provenance = {
        "format": "ngsim",
        "log": f"{source.name} {rows.location}".strip() + (f", minute {config.part}" if config.part >= 0 else ""),
        "source": content_digest(source),
        "camera": "",
        "time_source": "Global_Time",
        "epoch_ns": int(instants[0]) * 1_000_000 if count else None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, timeline, config.rules, provenance)


@dataclass(frozen=True)
class Rows:
    """The trajectories of one location of a table, one entry per row.

    Attributes:
        location: of the column Location; "" where the table has none.
        column: `[N]` numbers by the names of `NEEDED`, as the table gives them; NaN where it gives none.
        vehicle: `[N]` index into `names`, -1 where a row has no number.
        names: "17", or "17/2" for the second vehicle that bears the number 17.
        yaw_rad: `[N]` direction of travel, NaN for vehicles that go nowhere.
        broken: lines of the whole table that do not parse.
        nowhere: rows of the whole table without a location, where others have one.
    """

    location: str
    column: dict[str, np.ndarray]
    vehicle: np.ndarray
    names: list[str]
    yaw_rad: np.ndarray
    broken: int
    nowhere: int


@functools.lru_cache(maxsize=1)
def read_rows(path: Path, changed_ns: int, shown: str, location: str) -> Rows:
    """Return the rows of a location ("" is the first that the table names).

    They are kept until another is asked for or the file changes (`changed_ns`), because every minute of a recording asks for
    them again. The file is read part by part: what is held are the numbers of one location, and not the text of all.

    Raises:
        WorldlineError: if the table does not parse, lacks a column or has no such location.
    """
    found: list[dict[str, np.ndarray]] = []
    places: set[str] = set()
    broken = nowhere = 0
    for table, failed in _parts(path, shown):
        broken += failed
        where = _locations(table)
        places |= set(where.unique().to_pylist())
        location = location or next(filter(None, where.unique().to_pylist()), "")
        here = table.filter(pc.equal(where, location))
        nowhere += pc.sum(pc.equal(where, "")).as_py() or 0
        # The data portal writes thousands with commas in some of its exports.
        found.append({name: numbers(pc.replace_substring(here[name], ",", "")) for name in NEEDED})
    places -= {""}
    if places and location not in places:
        raise WorldlineError(f"{shown} has no location={location}: it has {', '.join(sorted(places))}")
    column = {name: np.concatenate([part[name] for part in found]) if found else np.zeros(0) for name in NEEDED}
    vehicle, names = _vehicles(column["vehicle_id"], column["global_time"] / 1000)
    place = np.stack([column["local_x"], column["local_y"]], -1) * _FOOT_M
    yaw = _headings(vehicle, column["global_time"], place)
    return Rows(location, column, vehicle, names, yaw, broken, nowhere if places else 0)


def recorded_parts(path: Path, shown: str) -> list[tuple[str, int]]:
    """Return location and number of every minute of a table, or (location, -1) for one that is no longer than two.

    Raises:
        WorldlineError: as `read_rows` does.
    """
    times: dict[str, list[np.ndarray]] = {}
    for table, _ in _parts(path, shown):
        where = _locations(table)
        for place in where.unique().to_pylist():
            here = table["global_time"].filter(pc.equal(where, place))
            times.setdefault(place, []).append(numbers(pc.replace_substring(here, ",", "")))
    found: list[tuple[str, int]] = []
    for place in sorted(times) if any(times) else [""]:
        minutes = np.unique(_minutes(np.concatenate(times.get(place, [np.zeros(0)]))))
        whole = len(minutes) == 0 or minutes[-1] < 2
        found += [(place, -1)] if whole else [(place, int(minute)) for minute in minutes]
    return [(place, minute) for place, minute in found if place] or found  # of a table with places, rows without are in none


def _parts(path: Path, shown: str) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the columns of a table by their names in small letters, part by part, and how many lines of it are broken.

    Its form is told by the name that it was given under: a file of the catalog is called by its digest alone.
    """
    words = shown.lower().endswith(".txt")
    for batch, broken in word_batches(path, shown, TEXT_COLUMNS) if words else csv_batches(path, shown, (*NEEDED, "location")):
        batch = batch.rename_columns([column.lower() for column in batch.schema.names])
        if missing := [column for column in NEEDED if column not in batch.schema.names]:
            raise WorldlineError(f"{shown} lacks the columns {', '.join(missing)} of an NGSIM table: download it again")
        yield batch, broken


def _locations(table: pa.RecordBatch) -> pa.Array:
    """Return the location of each row, "" where it has none."""
    if "location" not in table.schema.names:
        return pa.array([""] * table.num_rows, pa.string())
    return pc.utf8_trim_whitespace(pc.fill_null(table["location"], ""))


def _minutes(milliseconds: np.ndarray) -> np.ndarray:
    """Return the minute of the recording in which each time lies, from 0.

    A time that is none, or a day and more from most others, goes into the first, where it is told why it was dropped.
    """
    minute = np.zeros(len(milliseconds), np.int64)
    if np.isfinite(milliseconds).any():
        near = np.abs(milliseconds - np.nanmedian(milliseconds)) < _LONGEST_MS
        minute[near] = (milliseconds[near] - milliseconds[near].min()) // (1000 * PART_S)
    return minute


def _headings(vehicle: np.ndarray, time: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the direction of travel of each row, NaN for vehicles that go nowhere; one that stands keeps its last heading."""
    order = np.lexsort((np.nan_to_num(time), vehicle))
    owner, where, index = vehicle[order], place[order], np.arange(len(order))
    begin, end = np.searchsorted(owner, owner), np.searchsorted(owner, owner, side="right") - 1
    way = where[np.minimum(index + _HEADING_ROWS, end)] - where[np.maximum(index - _HEADING_ROWS, begin)]
    with np.errstate(invalid="ignore", over="ignore"):
        told = np.hypot(way[:, 0], way[:, 1]) >= _HEADING_M
    last = np.maximum.accumulate(np.where(told, index, -1))
    following = np.minimum.accumulate(np.where(told, index, len(order))[::-1])[::-1]
    source = np.where(last >= begin, last, np.where(following <= end, following, -1))
    heading = np.full(len(order), np.nan)
    heading[order] = np.where(source >= 0, np.arctan2(way[source, 1], way[source, 0]), np.nan) if len(order) else heading
    return heading


def _vehicles(number: np.ndarray, time_s: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the vehicle of each row, -1 where it has no number, and their names; see `Rows`."""
    numbered = np.flatnonzero(np.isfinite(number))
    known = numbered[np.isfinite(time_s[numbered])]
    order = known[np.lexsort((time_s[known], number[known]))]
    new = np.ones(len(order), bool)
    new[1:] = np.diff(number[order]) != 0
    again = ~new
    again[1:] &= np.diff(time_s[order]) > _NEW_VEHICLE_S
    turn = np.zeros(len(number), np.int64)  # a row without a time is of the first that bears its number
    so_far = np.cumsum(again)
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    turn[order] = so_far - so_far[first]
    whole = number[numbered].astype(np.int64)
    pairs, mine = np.unique(np.stack([whole, turn[numbered]], -1), axis=0, return_inverse=True)
    vehicle = np.full(len(number), -1)
    vehicle[numbered] = mine
    return vehicle, [f"{bearer}/{index + 1}" if index else f"{bearer}" for bearer, index in pairs.tolist()]


def _classes(code: np.ndarray) -> pa.Array:
    words = np.full(len(code), "", object)
    for number, name in _CLASSES.items():
        words[code == number] = name
    return pa.array(words, pa.string())
