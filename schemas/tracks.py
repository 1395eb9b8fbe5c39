"""Object tracks in the world, estimated or true."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64

from schemas.artifact import ADDED, Artifact
from schemas.media import Video

# One row per object and frame. x, y, z: centre of the object's footprint on the ground (bottom centre of its box),
# world frame, metres where the tracks' scale_source is not "none"; null where only the image position is known.
# Covariance of (x, y, z) in the same unit squared. Box in pixels of the clip.
TRACK_SAMPLES = pa.schema(
    [
        ("track_id", pa.int32()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("cov_xx", pa.float64()),
        ("cov_xy", pa.float64()),
        ("cov_yy", pa.float64()),
        ("cov_zz", pa.float64()),
        ("range", pa.float64()),  # from the camera, same unit
        ("length", pa.float64()),  # box size along heading, across it, and up; null where unknown
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("yaw_rad", pa.float64()),  # heading of the box in the world's ground plane; null where unknown
        ("x0_px", pa.float64()),
        ("y0_px", pa.float64()),
        ("x1_px", pa.float64()),
        ("y1_px", pa.float64()),
        ("visible", pa.float64()),  # share of the object that is seen, 0 to 1
        ("touches_border", pa.bool_()),
    ]
)

# One row per object.
TRACK_OBJECTS = pa.schema(
    [
        ("track_id", pa.int32()),
        ("class_name", pa.string()),  # "car", "pedestrian", ..., "unknown"
        ("colour", pa.string()),  # a colour word, or "" where none is clear
        ("first_s", pa.float64()),
        ("last_s", pa.float64()),
        ("samples", pa.int32()),
    ]
)

# What the source of annotated tracks calls each object.
ANNOTATED_OBJECTS = pa.schema([("track_id", pa.int32()), ("source_id", pa.string()), ("source_class", pa.string())])

# One row per sample of which the annotators say whether the object moves.
ANNOTATED_MOTION = pa.schema([("track_id", pa.int32()), ("frame", pa.int32()), ("moving", pa.bool_())])

# One row per true object and frame; boxes in the truth's own world frame, metres.
TRUTH_BOXES = pa.schema(
    [
        ("track_id", pa.int32()),
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("class_name", pa.string()),
        ("x", pa.float64()),  # bottom centre
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("length", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("yaw_rad", pa.float64()),
        ("moving", pa.bool_()),  # this object moves in this frame
        ("x0_px", pa.float64()),  # extent of the projected box, clipped to the image; null where out of view
        ("y0_px", pa.float64()),
        ("x1_px", pa.float64()),
        ("y1_px", pa.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class Tracks(Artifact):
    """Objects followed through the world.

    Attributes:
        samples: `TRACK_SAMPLES`, sorted by track and frame.
        objects: `TRACK_OBJECTS`, sorted by track.
        origin: "video" (estimated from pixels) or "boxes" (annotated).
        scale_source, scale_sigma, gravity_source: copied from the camera path.
        annotated_objects: `ANNOTATED_OBJECTS`, sorted by track; annotated tracks only.
        annotated_motion: `ANNOTATED_MOTION`, sorted by track and frame, where the source tells.
        provenance: of annotated tracks: format, log, camera, where the times come from, epoch in nanoseconds if known.
    """

    level: ClassVar[int] = 3
    TABLES: ClassVar = {
        "samples": TRACK_SAMPLES,
        "objects": TRACK_OBJECTS,
        "annotated_objects": ANNOTATED_OBJECTS,
        "annotated_motion": ANNOTATED_MOTION,
    }
    samples: pa.Table
    objects: pa.Table
    origin: str
    scale_source: str
    scale_sigma: float
    gravity_source: str
    annotated_objects: pa.Table | None = field(default=None, metadata=ADDED)
    annotated_motion: pa.Table | None = field(default=None, metadata=ADDED)
    provenance: dict[str, Any] | None = field(default=None, metadata=ADDED)

    def facts(self) -> dict[str, Any]:
        """Return how many objects, in how many samples, on what scale."""
        return {"objects": self.objects.num_rows, "samples": self.samples.num_rows, "scale_source": self.scale_source}


@dataclass(frozen=True, eq=False)
class Truth(Artifact):
    """What is known of a clip beyond its pixels. Only evaluation stages may read it.

    Attributes:
        available: false for a plain video; the other fields are then empty.
        world_from_camera: `[T, 4, 4]` in the truth's own gravity-aligned metric frame, OpenCV camera axes.
        intrinsics: `[3, 3]`.
        boxes: `TRUTH_BOXES`.
        annotated: `[T]` frames in which boxes are given.
        instances: `[T, H, W]` uint16 object ids, 0 elsewhere (procedural worlds).
        depth_2mm: `[T, H, W]` uint16 depth along the optical axis in units of 2 mm (up to 131 m), 0 where none.
    """

    level: ClassVar[int] = 3
    TABLES: ClassVar = {"boxes": TRUTH_BOXES}
    available: bool
    world_from_camera: Float64[np.ndarray, "T 4 4"]
    intrinsics: Float64[np.ndarray, "3 3"]
    boxes: pa.Table
    annotated: Bool[np.ndarray, " T"]
    instances: Video | None = None
    depth_2mm: Video | None = None

    @classmethod
    def unavailable(cls) -> "Truth":
        """Return the truth of a plain video: none."""
        return cls(
            available=False,
            world_from_camera=np.zeros((0, 4, 4)),
            intrinsics=np.zeros((3, 3)),
            boxes=TRUTH_BOXES.empty_table(),
            annotated=np.zeros(0, bool),
        )

    def facts(self) -> dict[str, Any]:
        """Return whether there is any truth, and of how many objects."""
        return {"available": self.available, "boxes": self.boxes.num_rows}
