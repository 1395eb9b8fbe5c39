"""Camera paths, sparse points and the ground: level 1 geometry of a clip."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from schemas.artifact import ADDED, Artifact

SCALE_ESTIMATES = pa.schema(
    [
        ("source", pa.string()),  # "gps_position", "gps_speed", "wheel_speed", "camera_height", "baseline", ...
        ("quantity", pa.string()),  # "scale" in metres per unit, or "drift": scale of the last third over that of the first
        ("value", pa.float64()),  # null where refused before it came to a value
        ("sigma", pa.float64()),  # relative standard deviation
        ("observations", pa.int32()),  # that it rests on
        ("used", pa.bool_()),
        ("reason", pa.string()),  # why it was not used
    ]
)
GRAVITY_ESTIMATES = pa.schema(
    [
        ("source", pa.string()),  # "ground_plane", "camera_up", "gps", "inertial", "given"
        ("x", pa.float64()),  # up direction in the path's frame
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("sigma_best_rad", pa.float64()),  # along the axis of tilt that it knows best, and along the one at right angles
        ("sigma_worst_rad", pa.float64()),
        ("used", pa.bool_()),
        ("reason", pa.string()),  # why it was not used
    ]
)


@dataclass(frozen=True, eq=False)
class CameraPath(Artifact):
    """Pose and calibration of every frame of a clip.

    World frame: right-handed, z up where `gravity_source` is not "none", origin at the first registered camera.
    Camera frame: OpenCV (x right, y down, z forward).

    Attributes:
        times_s: the clip's frame times.
        world_from_camera: `[T, 4, 4]`; identity where `registered` is false.
        registered: frames whose pose was solved.
        intrinsics: pinhole matrix `[3, 3]` in pixels, pixel centres at +0.5.
        distortion: OpenCV (k1, k2, p1, p2); zeros for a pinhole.
        width, height: image size in pixels that the intrinsics belong to.
        verdict: what kind of motion was found: "moving", "static" (tripod), "rotation", "textureless", "failed", "none"
            (annotated tracks without any camera; nothing is then registered).
        scale_source: "none" (lengths are in arbitrary units), "gps", "wheel_speed", "camera_height", "known_size",
            "depth_model", "baseline", "given", "annotations"; several that were fused are joined by a plus sign
            ("gps+camera_height").
        scale_sigma: relative standard deviation of the metric scale; 0 where the source is "none".
        gravity_source: "none", "ground_plane", "camera_up", "gps", "inertial", "given", joined in the same way.
        gravity_sigma_rad: standard deviation of the up direction.
        reprojection_error_px: mean over the observations; 0 where nothing was triangulated.
        strategy: how the path was solved, and why so, in one phrase for people; None where nothing was chosen.
        repeats: `[T]` index of the frame whose picture each frame shows: its own, or that of the first of a run of copies,
            whose pose they get; None where no frame is a copy.
    """

    level: ClassVar[int] = 1
    times_s: Float64[np.ndarray, " T"]
    world_from_camera: Float64[np.ndarray, "T 4 4"]
    registered: Bool[np.ndarray, " T"]
    intrinsics: Float64[np.ndarray, "3 3"]
    distortion: Float64[np.ndarray, "4"]
    width: int
    height: int
    verdict: str
    scale_source: str
    scale_sigma: float
    gravity_source: str
    gravity_sigma_rad: float
    reprojection_error_px: float
    strategy: str | None = field(default=None, metadata=ADDED)
    repeats: Int32[np.ndarray, " T"] | None = field(default=None, metadata=ADDED)

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.scale_source != "none"

    def facts(self) -> dict[str, Any]:
        """Return verdict, registered share, path length, scale, and how many frames are copies where there are any."""
        positions = self.world_from_camera[self.registered, :3, 3]
        length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) if len(positions) else 0.0
        return {
            "verdict": self.verdict,
            "registered": int(self.registered.sum()),
            "frames": len(self.registered),
            "path_length_m" if self.metric else "path_length_scene_units": length,
            "scale_source": self.scale_source,
            "scale_sigma": self.scale_sigma,
            "gravity_source": self.gravity_source,
            "reprojection_error_px": self.reprojection_error_px,
            **({} if self.strategy is None else {"strategy": self.strategy}),
            **({} if self.repeats is None else {"repeated_frames": int((self.repeats != np.arange(len(self.repeats))).sum())}),
        }


@dataclass(frozen=True, eq=False)
class PointCloud(Artifact):
    """Triangulated points of the static scene, in the frame and unit of the camera path made with them.

    Attributes:
        xyz: `[N, 3]`.
        rgb: `[N, 3]`.
        error_px: mean reprojection error per point.
        observation_frame, observation_point: `[M]` index of frame and point of each observation.
        observation_xy_px: `[M, 2]` where the point was seen.
    """

    level: ClassVar[int] = 1
    xyz: Float64[np.ndarray, "N 3"]
    rgb: UInt8[np.ndarray, "N 3"]
    error_px: Float32[np.ndarray, " N"]
    observation_frame: Int32[np.ndarray, " M"]
    observation_point: Int32[np.ndarray, " M"]
    observation_xy_px: Float32[np.ndarray, "M 2"]

    @classmethod
    def none(cls) -> "PointCloud":
        """Return a cloud without points."""
        return cls(
            xyz=np.zeros((0, 3)),
            rgb=np.zeros((0, 3), np.uint8),
            error_px=np.zeros(0, np.float32),
            observation_frame=np.zeros(0, np.int32),
            observation_point=np.zeros(0, np.int32),
            observation_xy_px=np.zeros((0, 2), np.float32),
        )

    def facts(self) -> dict[str, Any]:
        """Return the number of points and observations."""
        return {"points": len(self.xyz), "observations": len(self.observation_point)}


@dataclass(frozen=True, eq=False)
class GroundPlane(Artifact):
    """The road plane `normal . x + offset = 0` in the frame and unit of the camera path that it came with.

    Attributes:
        found: false where no plane could be fitted; the other fields are then zeros.
        normal: unit vector `[3]` towards the cameras: up.
        offset: signed distance of the origin over the plane, in the camera path's unit.
        sigma: standard deviation of the inliers' distance to the plane, same unit.
        inliers: number of points on the plane.
        normal_sigma_rad: standard deviation of the normal's direction.
        camera_height: mean distance of the cameras from it, in the path's unit.
        camera_height_sigma: its relative standard deviation.
    """

    level: ClassVar[int] = 2
    found: bool
    normal: Float64[np.ndarray, "3"]
    offset: float
    sigma: float
    inliers: int
    normal_sigma_rad: float | None = field(default=None, metadata=ADDED)
    camera_height: float | None = field(default=None, metadata=ADDED)
    camera_height_sigma: float | None = field(default=None, metadata=ADDED)

    @classmethod
    def none(cls) -> "GroundPlane":
        """Return the plane that was not found."""
        return cls(found=False, normal=np.zeros(3), offset=0.0, sigma=0.0, inliers=0)

    def facts(self) -> dict[str, Any]:
        """Return whether it was found, and how well it fits."""
        return {"found": self.found, "sigma": self.sigma, "inliers": self.inliers}


@dataclass(frozen=True, eq=False)
class MetricScale(Artifact):
    """How many metres a unit of a solved camera path is, which way is up in its frame, and how sure both are.

    Attributes:
        scale: metres per unit of the path; None where no source tells it.
        sigma: relative standard deviation of the scale, made for intervals: plus and minus 1.645 of it hold the true scale
            nine times in ten. It counts the noise of every source, what the sources share, their disagreement, and
            drift of the scale along the path.
        source: as in `CameraPath.scale_source`.
        drift: relative change of the scale from the first third of the distance driven to the last; None where it
            cannot be told.
        drift_sigma: its standard deviation.
        drift_source: the sources that told it, "none" where none did.
        up: unit vector `[3]` against gravity in the path's frame; a guess where `gravity_source` is "none".
        gravity_source: as in `CameraPath.gravity_source`.
        gravity_sigma_rad: standard deviation of `up` along the tilt that is known worst.
        estimates: `SCALE_ESTIMATES`: every source that was looked at.
        gravity_estimates: `GRAVITY_ESTIMATES`.
    """

    level: ClassVar[int] = 1
    TABLES: ClassVar = {"estimates": SCALE_ESTIMATES, "gravity_estimates": GRAVITY_ESTIMATES}
    scale: float | None
    sigma: float
    source: str
    drift: float | None
    drift_sigma: float | None
    drift_source: str
    up: Float64[np.ndarray, "3"]
    gravity_source: str
    gravity_sigma_rad: float
    estimates: pa.Table
    gravity_estimates: pa.Table

    def facts(self) -> dict[str, Any]:
        """Return scale, drift and gravity with their sources and standard deviations."""
        return {
            "metres_per_unit": self.scale,
            "sigma": self.sigma,
            "source": self.source,
            "drift": self.drift,
            "drift_sigma": self.drift_sigma,
            "gravity_source": self.gravity_source,
            "gravity_sigma_rad": self.gravity_sigma_rad,
        }
