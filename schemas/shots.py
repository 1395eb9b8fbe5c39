"""Shots: the parts of a clip between its cuts, each filmed in one go."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from schemas.artifact import Artifact

SHOTS = pa.schema(
    [
        ("start_frame", pa.int32()),
        ("end_frame", pa.int32()),  # the first frame that is not part of it
        ("start_s", pa.float64()),  # time of the first frame in the clip
        ("opens_with", pa.string()),  # "clip", "cut" or "blank" (frames that show nothing)
        ("evidence", pa.string()),  # what told the cut, with figures
        ("kept", pa.bool_()),  # false where it is too short to be worked on
    ]
)


@dataclass(frozen=True, eq=False)
class Shots(Artifact):
    """Where a clip is cut.

    Attributes:
        shots: `SHOTS` in order; together they hold every frame once.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"shots": SHOTS}
    shots: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return how many shots there are, and how many are worked on."""
        return {"shots": self.shots.num_rows, "kept": sum(self.shots["kept"].to_pylist())}
