"""Labels beside the truth, window by window and object by object: what an audit sums up."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from schemas.artifact import Artifact

# One row per window of an estimated object track that has a full set of measurements. Lengths are metres: those of an
# estimate without metres are scaled by the true length of the camera's path.
AUDITED_WINDOWS = pa.schema(
    [
        ("track_id", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("truth_id", pa.int32()),  # the true object that the track follows, -1 for none
        ("class_name", pa.string()),  # the true class, null without a true object
        ("range_m", pa.float64()),  # true mean distance from the camera; null where the truth does not cover the window
        ("track_seconds", pa.float64()),  # from the track's first sample to its last
        ("state", pa.string()),  # "moving", "static" or "undecided"
        ("rejected", pa.string()),  # why no label is made from it, or null
        ("true_distance_m", pa.float64()),  # null where the truth does not cover the window
        ("distance_p5_m", pa.float64()),
        ("distance_p50_m", pa.float64()),
        ("distance_p95_m", pa.float64()),
        ("clock", pa.int8()),
        ("true_clock", pa.int8()),  # null where the true object is too slow to have a direction
        # What the estimator makes of the same window from better inputs, or null where it makes nothing of it:
        ("smoothing_distance_m", pa.float64()),  # from true boxes, poses and scale
        ("pose_distance_m", pa.float64()),  # from true boxes and scale, seen from the estimated poses
        ("tracking_distance_m", pa.float64()),  # from estimated tracks and poses, at the true scale
    ]
)

# One row per true mover that was visible, and per estimated track that follows nothing true.
AUDITED_OBJECTS = pa.schema(
    [
        ("object_id", pa.int32()),  # of the truth, or of the track
        ("kind", pa.string()),  # "mover" or "false"
        ("class_name", pa.string()),
        ("range_m", pa.float64()),  # mean distance from the camera while in view
        ("speed_mps", pa.float64()),  # mean true speed while in view; null for false tracks
        ("seconds", pa.float64()),  # in view; of a false track its length
        ("found", pa.bool_()),  # a track follows it
        ("labelled", pa.bool_()),  # it has a window that is kept and called moving
    ]
)


@dataclass(frozen=True, eq=False)
class LabelAudit(Artifact):
    """The labels of a clip beside the truth.

    Attributes:
        windows: `AUDITED_WINDOWS`, sorted by track and start.
        objects: `AUDITED_OBJECTS`, movers before false tracks, sorted by id.
        scale_source: where the estimate has its metres from; "none" where it has none.
    """

    level: ClassVar[int] = 3
    TABLES: ClassVar = {"windows": AUDITED_WINDOWS, "objects": AUDITED_OBJECTS}
    windows: pa.Table
    objects: pa.Table
    scale_source: str

    def facts(self) -> dict[str, Any]:
        """Return how many windows and objects were compared."""
        return {"windows": self.windows.num_rows, "objects": self.objects.num_rows, "scale_source": self.scale_source}
