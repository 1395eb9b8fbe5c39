"""Waymo Open Motion scenarios: one record of a TFRecord file as tracks, read without TensorFlow or generated code.

Field numbers are those of the published `scenario.proto` (Ettinger et al., "Large scale interactive motion forecasting for
autonomous driving: the Waymo open motion dataset", ICCV 2021). States give the box's centre in a world with z up.
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import NonNegativeInt

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline, heading_poses
from stages.ingest.protobuf_wire import Value, fields, read_columns
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.tfrecord import Record, find_records, read_record

# Scenario, Track and ObjectState of scenario.proto.
_TIMESTAMPS, _TRACKS, _SCENARIO_ID, _OWN_TRACK = 1, 2, 5, 6
_TRACK_ID, _TRACK_TYPE, _TRACK_STATES = 1, 2, 3
_STATE_FIELDS = (2, 3, 4, 5, 6, 7, 8, 11)  # centre x, y, z, length, width, height, heading, valid
_TYPES = {1: "TYPE_VEHICLE", 2: "TYPE_PEDESTRIAN", 3: "TYPE_CYCLIST", 4: "TYPE_OTHER"}


@dataclass(frozen=True)
class WaymoMotionConfig:
    """How a Waymo motion scenario is read.

    Attributes:
        record: which record of the file, counted from 0.
        rules: how boxes become tracks.
    """

    record: NonNegativeInt = 0
    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.waymo_motion", version=1)
def ingest_waymo_motion(
    source: Source, config: WaymoMotionConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read one scenario as tracks in its own world; the car that recorded it is the path, and no object.

    Raises:
        WorldlineError: if the record is missing, damaged or no scenario.
    """
    file, path = next(iter(source.files.items()))
    shown = f"{source.name}, record {config.record}"
    records, trouble = _records(path, path.stat().st_mtime_ns)
    if config.record >= len(records):
        raise WorldlineError(f"{shown}: the file has {len(records)} readable records{trouble and f', because {trouble}'}")
    data = memoryview(read_record(path, records[config.record], shown))
    try:
        scenario = _parse(data)
        states = [message for track in scenario.tracks for message in track[2]]
        if not scenario.tracks or not scenario.times_s:
            raise ValueError("it has no tracks or no timestamps")
        values = read_columns(states, {number: column for column, number in enumerate(_STATE_FIELDS)})
    except (ValueError, OverflowError) as error:
        raise WorldlineError(
            f"{shown} is no Scenario ({error}): give the motion data set's scenario files, not its tf.Examples"
        ) from error
    progress(1, 2, f"{len(scenario.tracks)} objects")

    times = np.array(scenario.times_s)
    count = np.array([len(track[2]) for track in scenario.tracks], int)
    owner = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    valid = values[:, 7] == 1
    centre, heading = values[:, :3], values[:, 6]
    own = owner == scenario.own_track
    at = step[own & valid & (step < len(times))]
    poses, known = np.tile(np.eye(4), (len(times), 1, 1)), np.zeros(len(times), bool)
    mine = np.flatnonzero(own & valid & (step < len(times)))
    poses[at], known[at] = heading_poses(centre[mine], heading[mine])

    kept = np.flatnonzero(~own)
    ids = pa.array([str(track[0]) for track in scenario.tracks], pa.string())
    classes = pa.array([_TYPES.get(track[1], "TYPE_UNSET") for track in scenario.tracks], pa.string())
    boxes = AnnotatedBoxes(
        source_id=ids.take(pa.array(owner[kept])),
        source_class=classes.take(pa.array(owner[kept])),
        frame=np.where(step < len(times), step, -1)[kept],
        position=centre[kept],
        position_is="centre",
        size=values[kept, 3:6],
        yaw_rad=heading[kept],
        dropped={"not_an_object": ~valid[kept]},
    )
    provenance = {
        "format": "waymo_motion",
        "log": scenario.name or shown,
        "source": content_digest(source),
        "file": file,
        "camera": "",
        "time_source": "timestamps_seconds",
        "epoch_ns": None,
    }
    progress(2, 2, "tracks")
    return settle_tracks(boxes, Timeline(times, poses @ EGO_FROM_FORWARD_CAMERA, known), config.rules, provenance)


def scenario_name(path: Path, record: Record) -> str:
    """Return the id of the scenario in a record, "" where it has none.

    Raises:
        WorldlineError: if the record is damaged or holds no message.
    """
    data = memoryview(read_record(path, record, path.name))
    try:
        for number, _, value in fields(data):
            if number == _SCENARIO_ID and isinstance(value, memoryview):
                return bytes(value).decode(errors="replace")
    except ValueError as error:
        raise WorldlineError(f"{path.name} is no file of Scenarios ({error})") from error
    return ""


@functools.lru_cache(maxsize=4)
def _records(path: Path, changed_ns: int) -> tuple[list[Record], str]:
    """Return where the records lie; kept until the file changes, because every scenario of a file asks for them."""
    return find_records(path)


@dataclass
class _Scenario:
    """What is read of a scenario: tracks as (id, type, messages of their states)."""

    name: str = ""
    times_s: list[float] = field(default_factory=list)
    own_track: int = -1
    tracks: list[tuple[int, int, list[memoryview]]] = field(default_factory=list)


def _parse(data: memoryview) -> _Scenario:
    scenario = _Scenario()
    for number, kind, value in fields(data):
        if number == _TIMESTAMPS:
            scenario.times_s += _doubles(value) if isinstance(value, memoryview) else [float(value)]
        elif number == _TRACKS and isinstance(value, memoryview):
            scenario.tracks.append(_track(value))
        elif number == _SCENARIO_ID and isinstance(value, memoryview):
            scenario.name = bytes(value).decode(errors="replace")
        elif number == _OWN_TRACK and kind == 0:
            scenario.own_track = int(_signed(value))
    return scenario


def _track(data: memoryview) -> tuple[int, int, list[memoryview]]:
    identity = kind_of_object = 0
    states = []
    for number, kind, value in fields(data):
        if number == _TRACK_STATES and isinstance(value, memoryview):
            states.append(value)
        elif number == _TRACK_ID and kind == 0:
            identity = _signed(value)
        elif number == _TRACK_TYPE and kind == 0:
            kind_of_object = _signed(value)
    return identity, kind_of_object, states


def _doubles(packed: memoryview) -> list[float]:
    return np.frombuffer(packed, "<f8").tolist()


def _signed(value: Value) -> int:
    """Return a varint as the signed number that it stands for."""
    assert isinstance(value, int)
    return value - (1 << 64) if value >= 1 << 63 else value
