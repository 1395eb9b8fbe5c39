"""Driving logs beyond their frames, the trajectories that nobody drove, and what a world model is told of them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int32, UInt8

from schemas.artifact import Artifact
from schemas.media import Video

# One row per line of the map; its points are those between its offset and the next row's.
MAP_ELEMENTS = pa.schema(
    [
        ("element_id", pa.int32()),
        ("kind", pa.string()),  # one of `MAP_KINDS`
        ("first_point", pa.int32()),
        ("points", pa.int32()),
    ]
)
# "drivable" is a closed polygon of where a vehicle may be (several may overlap); the others are polylines.
MAP_KINDS = ("lane_line", "road_edge", "crosswalk", "drivable")

# One row per frame of a trajectory: how it passed the checks.
TRAJECTORY_CHECKS = pa.schema(
    [
        ("frame", pa.int32()),
        ("forward_m", pa.float64()),  # offset from the recorded position in the first ego frame
        ("left_m", pa.float64()),
        ("clearance_m", pa.float64()),  # from the ego's footprint to the nearest other box's; null where there is none
        ("nearest_track", pa.int32()),  # null where there is none
        ("on_road", pa.bool_()),  # the whole footprint lies in drivable area; null where the log has no map
        ("held", pa.bool_()),  # the search held the offset here, because what was asked for was not safe
    ]
)


@dataclass(frozen=True, eq=False)
class RoadMap(Artifact):
    """Lines and areas of the road in the world frame; without elements where the log has no map.

    Attributes:
        elements: `MAP_ELEMENTS`, sorted by element.
        xyz: `[P, 3]` the points of all elements, metres, world frame.
    """

    level: ClassVar[int] = 2
    TABLES: ClassVar = {"elements": MAP_ELEMENTS}
    elements: pa.Table
    xyz: Float64[np.ndarray, "P 3"]

    @classmethod
    def none(cls) -> "RoadMap":
        """Return the map of a log that has none."""
        return cls(MAP_ELEMENTS.empty_table(), np.zeros((0, 3)))

    def lines(self, kind: str) -> list[np.ndarray]:
        """Return the points `[n, 3]` of every element of a kind."""
        rows = zip(*(self.elements[name].to_pylist() for name in ("kind", "first_point", "points")), strict=True)
        return [self.xyz[first : first + count] for own, first, count in rows if own == kind]

    def facts(self) -> dict[str, Any]:
        """Return how many elements of each kind there are."""
        return {kind: len(self.lines(kind)) for kind in MAP_KINDS}


@dataclass(frozen=True, eq=False)
class LidarSweeps(Artifact):
    """Points that lasers measured, in the world frame; without sweeps where the log has none.

    Attributes:
        times_s: `[S]` time of each sweep, seconds of the clip.
        origins: `[S, 3]` where the sensor stood.
        xyz: `[N, 3]` metres, world frame.
        sweep: `[N]` which sweep each point is of, rising.
    """

    level: ClassVar[int] = 1
    times_s: Float64[np.ndarray, " S"]
    origins: Float64[np.ndarray, "S 3"]
    xyz: Float32[np.ndarray, "N 3"]
    sweep: Int32[np.ndarray, " N"]

    @classmethod
    def none(cls) -> "LidarSweeps":
        """Return the sweeps of a log that has none."""
        return cls(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3), np.float32), np.zeros(0, np.int32))

    def facts(self) -> dict[str, Any]:
        """Return the number of sweeps and points."""
        return {"sweeps": len(self.times_s), "points": len(self.xyz)}


@dataclass(frozen=True, eq=False)
class Trajectory(Artifact):
    """Where the ego vehicle is at every frame: as it drove, or as nobody did.

    Attributes:
        name: such as "recorded" or "lane_change_left_3.0m".
        manoeuvre: "recorded", "lane_change_left", "lane_change_right", "accelerate", "decelerate", "spline" or "given".
        times_s: `[T]` the clip's frame times.
        world_from_ego: `[T, 4, 4]`, ego frame x forward, y left, z up, origin on the ground under the vehicle's middle.
        length_m, width_m: of the ego's footprint, centred on its origin.
        accepted: whether it does what was asked for as far as it must (the search may hold on the way).
        reason: why it was rejected, or where it had to hold; "" where nothing is to be said.
        checks: `TRAJECTORY_CHECKS`, one row per frame; empty for the recorded one.
    """

    level: ClassVar[int] = 3
    TABLES: ClassVar = {"checks": TRAJECTORY_CHECKS}
    name: str
    manoeuvre: str
    times_s: Float64[np.ndarray, " T"]
    world_from_ego: Float64[np.ndarray, "T 4 4"]
    length_m: float
    width_m: float
    accepted: bool
    reason: str
    checks: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return its manoeuvre, whether it was accepted and why not, and its largest offset to the left."""
        left = self.checks["left_m"].to_numpy() if self.checks.num_rows else np.zeros(1)
        return {
            "manoeuvre": self.manoeuvre,
            "accepted": self.accepted,
            "reason": self.reason,
            "largest_left_m": float(left[np.abs(left).argmax()]),
        }


@dataclass(frozen=True, eq=False)
class Conditions(Artifact):
    """What a world model is told of a view that nobody filmed: canvases, aligned with the frames to be made.

    Attributes:
        times_s: `[T]` of the frames to be made.
        boxes: `[T, H, W, 3]` uint8, one channel per class group (vehicle, pedestrian, cyclist): 0 outside; faces of the boxes
            in shades that tell front, side and back, painted from far to near.
        road: `[T, H, W, 3]` uint8, one channel per kind of line (lane_line, road_edge, crosswalk).
        depth_cm: `[T, H, W]` uint16 depth along the optical axis of what is known to be there, 0 where unknown.
        prior: `[T, H, W, 3]` uint8 what the recorded frames show of the view, warped into it; 0 where nothing does.
        known: `[T, H, W]` uint8 how far the prior can be trusted, 0 to 255.
        first_frame: `[H, W, 3]` the first recorded frame.
        text: what happens, such as "the ego vehicle changes to the left lane".
        offset_m: `[T, 2]` forward and left of the recorded position.
        prior_source: "lidar" or "depth" (recorded frames warped by it), "scene" (drawn from a reconstruction) or "none".
    """

    level: ClassVar[int] = 2
    times_s: Float64[np.ndarray, " T"]
    boxes: Video
    road: Video
    depth_cm: Video
    prior: Video
    known: Video
    first_frame: UInt8[np.ndarray, "H W 3"]
    text: str
    offset_m: Float64[np.ndarray, "T 2"]
    prior_source: str

    def facts(self) -> dict[str, Any]:
        """Return frames, size, text and where the prior comes from."""
        _, height, width = self.known.shape
        return {
            "frames": len(self.times_s),
            "width_px": width,
            "height_px": height,
            "text": self.text,
            "prior_source": self.prior_source,
        }


# One row per generated frame.
COUSINS = pa.schema(
    [
        ("trajectory", pa.string()),  # its name
        ("manoeuvre", pa.string()),
        ("frame", pa.int32()),  # of the generated clip and of the recorded one: they show the same time
        ("time_s", pa.float64()),
        ("recorded", pa.string()),  # digest of the recorded clip
        ("generated", pa.string()),  # digest of the generated one
        ("generator", pa.string()),  # stage that made it
        ("model", pa.string()),  # name or digest of the weights
        ("seed", pa.int64()),  # of the noise; null where it has none
        ("forward_m", pa.float64()),  # offset of the ego from where it was
        ("left_m", pa.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class CousinLinks(Artifact):
    """Which recorded frame each generated one is a cousin of: the same time, seen from where nobody was.

    Attributes:
        rows: `COUSINS`, sorted by trajectory and frame.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"rows": COUSINS}
    rows: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return the number of trajectories and generated frames."""
        return {"trajectories": len(set(self.rows["trajectory"].to_pylist())), "generated_frames": self.rows.num_rows}
