"""NGSIM vehicle trajectories (US Federal Highway Administration): a road filmed from above, as tracks along the road.

Positions are those of the vehicle's front centre in feet: local x from the left edge of the road, local y along it. That
makes a right-handed frame with z up, which is kept: x across the road to the right, y along it. The table has no heading:
it is the direction of travel, and the box is set half its length behind the front. No camera is known.
"""

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
from stages.ingest.text_columns import numbers, read_csv, read_words

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
_LAST_DATE_MS = 1e15
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
    column, where, broken = read_rows(path, source.name)
    location = config.location or (where[0] if where else "")
    if where:
        if location not in where:
            raise WorldlineError(f"{source.name} has no location={location}: it has {', '.join(sorted(set(where)))}")
        here = np.array([word == location for word in where], bool)
        column = {item: values[here] for item, values in column.items()}
    milliseconds = column["global_time"]
    progress(1, 2, f"{len(milliseconds)} rows")
    ids = _vehicles(column["vehicle_id"], milliseconds / 1000)
    yaw = _headings(ids, milliseconds, np.stack([column["local_x"], column["local_y"]], -1) * _FOOT_M)
    if config.part >= 0:
        begin = np.nanmin(milliseconds, initial=np.inf) + 1000 * PART_S * config.part
        chosen = (milliseconds >= begin) & (milliseconds < begin + 1000 * PART_S) | np.isnan(milliseconds) & (config.part == 0)
        column = {item: values[chosen] for item, values in column.items()}
        milliseconds, yaw, ids = milliseconds[chosen], yaw[chosen], ids.filter(pa.array(chosen))
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
        notes=(("tracks.broken_lines", broken, "lines", f"of {name} with another number of fields than the others"),),
    )
    count = len(instants)
    timeline = Timeline((instants - instants[:1]) / 1000, np.tile(np.eye(4), (count, 1, 1)), np.zeros(count, bool))
    provenance = {
        "format": "ngsim",
        "log": f"{source.name} {location}".strip() + (f", minute {config.part}" if config.part >= 0 else ""),
        "source": content_digest(source),
        "camera": "",
        "time_source": "Global_Time",
        "epoch_ns": int(instants[0]) * 1_000_000 if count else None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, timeline, config.rules, provenance)


def read_rows(path: Path, shown: str) -> tuple[dict[str, np.ndarray], list[str], int]:
    """Return the columns of a table by name, the location of each row (empty where it has none), and how many lines are broken.

    Raises:
        WorldlineError: if it does not parse or lacks a column.
    """
    if path.suffix.lower() == ".txt":
        table, broken = read_words(path, shown, TEXT_COLUMNS)
    else:
        table, broken = read_csv(path, shown, (*NEEDED, "location"))
        table = table.rename_columns([column.lower() for column in table.column_names])
    if missing := [column for column in NEEDED if column not in table.column_names]:
        raise WorldlineError(f"{shown} lacks the columns {', '.join(missing)} of an NGSIM table: download it again")
    # The data portal writes thousands with commas in some of its exports.
    columns = {item: numbers(pc.replace_substring(table[item], ",", "")) for item in NEEDED}
    where = pc.fill_null(table["location"], "").to_pylist() if "location" in table.column_names else []
    return columns, where, broken


def recorded_parts(path: Path, shown: str) -> list[tuple[str, int]]:
    """Return location and number of every minute of a table, or (location, -1) for one that is no longer than two.

    Raises:
        WorldlineError: as `read_rows` does.
    """
    columns, where, _ = read_rows(path, shown)
    places = np.array(where or [""] * len(columns["global_time"]), object)
    found: list[tuple[str, int]] = []
    for place in sorted(set(places.tolist())) or [""]:
        here = columns["global_time"][np.equal(places, place) & (np.abs(columns["global_time"]) < _LAST_DATE_MS)]
        minutes = np.unique(((here - here.min(initial=np.inf)) // (1000 * PART_S)).astype(np.int64)) if len(here) else np.zeros(0)
        whole = len(minutes) == 0 or minutes[-1] < 2
        found += [(place, -1)] if whole else [(place, int(minute)) for minute in minutes]
    return found


def _headings(ids: pa.Array, time: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the direction of travel of each row, NaN for vehicles that go nowhere; one that stands keeps its last heading."""
    code = pc.fill_null(ids, "").dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.lexsort((np.nan_to_num(time), code))
    owner, where, index = code[order], place[order], np.arange(len(order))
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


def _vehicles(number: np.ndarray, time_s: np.ndarray) -> pa.Array:
    """Return "17", or "17/2" for the second vehicle that bears the number 17; null where there is no number."""
    numbered = np.isfinite(number)
    known = np.flatnonzero(np.isfinite(number) & np.isfinite(time_s))
    order = known[np.lexsort((time_s[known], number[known]))]
    new = np.ones(len(order), bool)
    new[1:] = np.diff(number[order]) != 0
    again = ~new
    again[1:] &= np.diff(time_s[order]) > _NEW_VEHICLE_S
    turn = np.cumsum(again)
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    turn = turn - turn[first] + 1
    words = np.char.mod("%d", number[order].astype(np.int64))
    words = np.where(turn > 1, np.char.add(np.char.add(words, "/"), np.char.mod("%d", turn)), words)
    ids = np.full(len(number), None, object)
    ids[numbered] = np.char.mod("%d", number[numbered].astype(np.int64))
    ids[order] = words
    return pa.array(ids, pa.string())


def _classes(code: np.ndarray) -> pa.Array:
    words = np.full(len(code), "", object)
    for number, name in _CLASSES.items():
        words[code == number] = name
    return pa.array(words, pa.string())
