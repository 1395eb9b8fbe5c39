"""NGSIM vehicle trajectories (US Federal Highway Administration): a road filmed from above, as tracks along the road.

Positions are those of the vehicle's front centre in feet: local x from the left edge of the road, local y along it. That
makes a right-handed frame with z up, which is kept: x across the road to the right, y along it. The box is set half its
length behind the front, along the road. No camera is known.
"""

from dataclasses import dataclass, field

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
from stages.ingest.text_columns import numbers, read_csv

NEEDED = ("vehicle_id", "frame_id", "global_time", "local_x", "local_y", "v_length", "v_width", "v_class")
_FOOT_M = 0.3048
_CLASSES = {1: "motorcycle", 2: "auto", 3: "truck"}
# A vehicle is in every frame from when it enters to when it leaves; its number is used again after some minutes.
_NEW_VEHICLE_S = 5.0


@dataclass(frozen=True)
class NgsimConfig:
    """How a table of NGSIM trajectories is read.

    Attributes:
        location: of the column Location ("us-101", "i-80", "lankershim", "peachtree"), where one table holds several; empty
            takes the first.
        rules: how boxes become tracks; a table of 45 minutes needs `start_s` and `end_s`.
    """

    location: str = ""
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.ngsim", version=1)
def ingest_ngsim(source: Source, config: NgsimConfig, *, seed: int, progress: Progress) -> tuple[Tracks, CameraPath, Metrics]:
    """Read a table of trajectories as tracks.

    Raises:
        WorldlineError: if the table does not parse, lacks a column or has no such location.
    """
    name, path = next(iter(source.files.items()))
    table, broken = read_csv(path, source.name)
    table = table.rename_columns([column.strip().lower() for column in table.column_names])
    if missing := [column for column in NEEDED if column not in table.column_names]:
        raise WorldlineError(f"{source.name} lacks the columns {', '.join(missing)} of an NGSIM table: download it again")
    location = ""
    if "location" in table.column_names and table.num_rows:
        there = pc.unique(table["location"]).to_pylist()
        location = config.location or str(there[0])
        if location not in there:
            raise WorldlineError(f"{source.name} has no location={location}: it has {', '.join(map(str, there))}")
        table = table.filter(pc.equal(table["location"], location))
    progress(1, 2, f"{table.num_rows} rows")
    column = {item: numbers(table[item]) for item in NEEDED}
    milliseconds = column["global_time"]
    instants = np.unique(milliseconds[np.isfinite(milliseconds)])
    frame = np.where(np.isfinite(milliseconds), np.searchsorted(instants, milliseconds), -1)
    length, width = column["v_length"] * _FOOT_M, column["v_width"] * _FOOT_M
    back = np.where(np.isfinite(length) & (length > 0), length / 2, 0.0)
    position = np.stack([column["local_x"] * _FOOT_M, column["local_y"] * _FOOT_M - back, 0 * back], -1)
    boxes = AnnotatedBoxes(
        source_id=_vehicles(column["vehicle_id"], milliseconds / 1000),
        source_class=_classes(column["v_class"]),
        frame=frame,
        position=position,
        position_is="bottom",
        size=np.stack([length, width, np.full(len(length), np.nan)], -1),
        yaw_rad=np.full(len(length), np.pi / 2),
        notes=(("tracks.broken_lines", broken, "lines", f"of {name} with another number of fields than the header"),),
    )
    count = len(instants)
    timeline = Timeline((instants - instants[:1]) / 1000, np.tile(np.eye(4), (count, 1, 1)), np.zeros(count, bool))
    provenance = {
        "format": "ngsim",
        "log": f"{source.name} {location}".strip(),
        "source": content_digest(source),
        "camera": "",
        "time_source": "Global_Time",
        "epoch_ns": int(instants[0]) * 1_000_000 if count else None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, timeline, config.rules, provenance)


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
