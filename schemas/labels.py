"""Kinematic states, windows and questions: what training code reads."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from schemas.artifact import Artifact

EGO_TRACK_ID = 0  # the camera itself; objects are numbered from 1


def _interval(name: str) -> list[tuple[str, pa.DataType]]:
    """Columns of a quantity with its 5 %, 50 % and 95 % quantiles."""
    return [(f"{name}_p5", pa.float64()), (f"{name}_p50", pa.float64()), (f"{name}_p95", pa.float64())]


# One row per track and grid time. Lengths in metres where scale_source is not "none", else in scene units (and
# speeds in scene units per second); null where the track has no world position.
KINEMATIC_STATES = pa.schema(
    [
        ("track_id", pa.int32()),
        ("time_s", pa.float64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("z", pa.float64()),
        *_interval("speed"),
        *_interval("acceleration"),
        ("heading_rad", pa.float64()),  # direction of travel on the ground, counter-clockwise from world x; null if slow
        ("range", pa.float64()),
        ("bearing_rad", pa.float64()),  # from the camera's forward direction, left positive
        ("closing_speed", pa.float64()),
        ("state", pa.string()),  # "moving", "static" or "undecided"
    ]
)

# One row per track and window.
KINEMATIC_WINDOWS = pa.schema(
    [
        ("track_id", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        *_interval("distance"),  # path length on the grid
        *_interval("displacement"),
        *_interval("speed"),  # distance / duration
        ("state", pa.string()),  # "moving", "static" or "undecided"
        ("clock", pa.int8()),  # heading at the end against the start, 12 = same, clockwise from above; null if undefined
        ("clock_sigma_hours", pa.float64()),
        ("turn", pa.string()),  # "straight", "left", "right", "u_turn" or null
        ("image_motion", pa.string()),  # "left", "right", "toward", "away", "none" in the camera frame, or null
        ("visible", pa.float64()),  # share of samples present in the window
        ("metric", pa.bool_()),  # lengths may be told in metres
        ("rejected", pa.string()),  # why no label is made from it, or null
    ]
)

# One row per question.
QUESTIONS = pa.schema(
    [
        ("question_id", pa.string()),  # digest of the content, stable
        ("kind", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("answer_value", pa.float64()),  # number behind the answer, null for words
        ("answer_unit", pa.string()),  # "m", "km/h", "o'clock", "s", "count", or ""
        ("answer_p5", pa.float64()),
        ("answer_p95", pa.float64()),
        ("answer_end_value", pa.float64()),  # end of an interval answer, else null
        ("track_ids", pa.list_(pa.int32())),
        ("frames", pa.list_(pa.int32())),  # frames that the question refers to: start, end
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("wording", pa.int32()),  # index of the template
        ("requires_level", pa.int32()),
        ("metric", pa.bool_()),
        ("scale_source", pa.string()),
        ("scale_sigma", pa.float64()),
        # Columns from here on are null in questions asked before there were any.
        ("options", pa.list_(pa.string())),  # of a multiple choice, the answer among them at a random place; empty: none
        # What a direction is told against: "self_initial" (12 o'clock is the object's own heading when the window begins),
        # "ego" (12 is the camera's forward direction), "other_object" (the heading of the object that is named first),
        # "self" (the object's own left and right), "camera" (the camera's axes when the window begins), "above", or "".
        ("reference", pa.string()),
        ("fx_px", pa.float64()),  # intrinsics of the clip's camera, null where the clip has no pictures
        ("fy_px", pa.float64()),
        ("cx_px", pa.float64()),
        ("cy_px", pa.float64()),
    ]
)

REJECTIONS = pa.schema([("kind", pa.string()), ("reason", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True, eq=False)
class Kinematics(Artifact):
    """How the camera (track 0) and every object move, each quantity with a 90 % interval.

    Attributes:
        states: `KINEMATIC_STATES`, sorted by track and time.
        windows: `KINEMATIC_WINDOWS`, sorted by track and start.
        grid_s: spacing of the states in seconds.
        scale_source, scale_sigma, gravity_source: copied from the tracks.
    """

    level: ClassVar[int] = 3
    TABLES: ClassVar = {"states": KINEMATIC_STATES, "windows": KINEMATIC_WINDOWS}
    states: pa.Table
    windows: pa.Table
    grid_s: float
    scale_source: str
    scale_sigma: float
    gravity_source: str

    def facts(self) -> dict[str, Any]:
        """Return the number of states and windows."""
        return {"states": self.states.num_rows, "windows": self.windows.num_rows, "scale_source": self.scale_source}


@dataclass(frozen=True, eq=False)
class Questions(Artifact):
    """Questions with answers, and a count of every candidate that was not asked.

    Attributes:
        rows: `QUESTIONS`, sorted by kind and id.
        rejections: `REJECTIONS`.
    """

    level: ClassVar[int] = 4
    TABLES: ClassVar = {"rows": QUESTIONS, "rejections": REJECTIONS}
    rows: pa.Table
    rejections: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return the number of questions."""
        return {"questions": self.rows.num_rows}
