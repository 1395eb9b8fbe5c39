"""Argoverse 2 motion forecasting: `scenario_ID.parquet`, the tracks of one scenario in its city (metres, 10 steps a second).

Columns follow the data set's user guide and `av2.datasets.motion_forecasting.data_schema` (Wilson et al., "Argoverse 2: next
generation datasets for self-driving perception and forecasting", NeurIPS datasets 2021): positions are those of the objects'
centres on the ground plane, headings are in the city's frame, and there are no sizes. The car that recorded is the track "AV".
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.cameras import CameraPath
from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline, heading_poses
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.text_columns import numbers

NEEDED = ("track_id", "object_type", "timestep", "position_x", "position_y", "heading")
OWN_TRACK = "AV"
_STEPS_PER_SECOND = 10.0  # as published; the table has a step's number only


@dataclass(frozen=True)
class Argoverse2MotionConfig:
    """How a motion forecasting scenario is read.

    Attributes:
        rules: how boxes become tracks.
    """

    rules: AnnotationRules = field(default_factory=AnnotationRules)


@stage("ingest.argoverse2_motion", version=1)
def ingest_argoverse2_motion(
    source: Source, config: Argoverse2MotionConfig, *, seed: int, progress: Progress
) -> tuple[Tracks, CameraPath, Metrics]:
    """Read one scenario as tracks in its city; the path is that of the car that recorded it, which is no object.

    Raises:
        WorldlineError: if the file does not parse or lacks a column.
    """
    name, path = next(iter(source.files.items()))
    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorldlineError(f"{name} is not a readable Parquet file ({error}): download it again") from error
    if missing := [column for column in NEEDED if column not in table.column_names]:
        raise WorldlineError(f"{name} lacks the columns {', '.join(missing)} of a scenario: download it again")
    progress(1, 2, f"{table.num_rows} rows")
    step = numbers(table["timestep"])
    steps = np.unique(step[np.isfinite(step)])
    frame = np.where(np.isfinite(step), np.searchsorted(steps, step), -1)
    ids, classes = (table[column].cast(pa.string()).combine_chunks() for column in ("track_id", "object_type"))
    own = pc.fill_null(pc.equal(ids, OWN_TRACK), False).to_numpy(zero_copy_only=False)
    x, y, heading = (numbers(table[column]) for column in ("position_x", "position_y", "heading"))
    position = np.stack([x, y, np.where(np.isfinite(x), 0.0, np.nan)], -1)
    poses, known = np.tile(np.eye(4), (len(steps), 1, 1)), np.zeros(len(steps), bool)
    mine = np.flatnonzero(own & (frame >= 0))
    poses[frame[mine]], known[frame[mine]] = heading_poses(position[mine], heading[mine])
    boxes = AnnotatedBoxes(
        source_id=ids,
        source_class=classes,
        frame=frame,
        position=position,
        position_is="bottom",
        yaw_rad=heading,
        dropped={"not_an_object": own},
    )
    provenance = {
        "format": "argoverse2_motion",
        "log": source.name,
        "source": content_digest(source),
        "camera": "",
        "time_source": f"timestep, {_STEPS_PER_SECOND:g} per second",
        "epoch_ns": _epoch_ns(table),
    }
    progress(2, 2, "tracks")
    timeline = Timeline(steps / _STEPS_PER_SECOND, poses @ EGO_FROM_FORWARD_CAMERA, known)
    return settle_tracks(boxes, timeline, config.rules, provenance)


def _epoch_ns(table: pa.Table) -> int | None:
    """Return when the scenario begins, where the table says it in whole nanoseconds."""
    if "start_timestamp" not in table.column_names or not pa.types.is_integer(table["start_timestamp"].type):
        return None
    first: int | None = pc.min(table["start_timestamp"]).as_py()
    return first
