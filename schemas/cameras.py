"""Camera paths, sparse points and the ground: level 1 geometry of a clip."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from schemas.artifact import ADDED, Artifact


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
        verdict: what kind of motion was found: "moving", "static" (tripod), "rotation", "textureless", "failed".
        scale_source: "none" (lengths are in arbitrary units), "gps", "camera_height", "given"; several that were fused are
            joined by a plus sign ("gps+camera_height").
        scale_sigma: relative standard deviation of the metric scale; 0 where the source is "none".
        gravity_source: "none", "ground_plane", "camera_up", "given".
        gravity_sigma_rad: standard deviation of the up direction.
        reprojection_error_px: mean over the observations; 0 where nothing was triangulated.
        strategy: how the path was solved, and why so, in one phrase for people; None where nothing was chosen.
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

    @property
    def metric(self) -> bool:
        """Whether lengths are metres."""
        return self.scale_source != "none"

    def facts(self) -> dict[str, Any]:
        """Return verdict, registered share, path length and scale."""
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

    def facts(self) -> dict[str, Any]:
        """Return the number of points and observations."""
        return {"points": len(self.xyz), "observations": len(self.observation_point)}


@dataclass(frozen=True, eq=False)
class GroundPlane(Artifact):
    """The road plane `normal . x + offset = 0` in the world frame, with `normal` pointing up.

    Attributes:
        found: false where no plane could be fitted; the other fields are then zeros.
        normal: unit vector `[3]`.
        offset: signed distance of the world origin over the plane, in the camera path's unit.
        sigma: standard deviation of the inliers' distance to the plane, same unit.
        inliers: number of points on the plane.
    """

    level: ClassVar[int] = 2
    found: bool
    normal: Float64[np.ndarray, "3"]
    offset: float
    sigma: float
    inliers: int

    def facts(self) -> dict[str, Any]:
        """Return whether it was found, and how well it fits."""
        return {"found": self.found, "sigma": self.sigma, "inliers": self.inliers}
