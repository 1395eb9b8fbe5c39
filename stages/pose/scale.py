"""Stage `pose.scale`: how many metres a unit of a solved camera path is, which way is up, and how sure both are.

Each source gives its own estimate with its own sigma, in a module by what it rests on: what was driven, known lengths.
Those that can be trusted are fused by inverse variance (`scale_estimate.fuse`), and every one is kept in a table with
the reason why it was or was not used. The same sources over the first and the last third of the way tell whether the
scale drifts along it. `pose.align` then applies the result.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from schemas.artifact import rows_to_table
from schemas.cameras import SCALE_ESTIMATES, CameraPath, GroundPlane, MetricScale, PointCloud
from schemas.clips import Clip
from schemas.depth import DepthVideo
from stages.contract import Progress, stage
from stages.pose.gravity import (
    GravityConfig,
    GravityEstimate,
    fuse_gravity,
    gravity_table,
    isotropic,
    up_from_altitudes,
    up_from_attitudes,
    up_from_cameras,
    up_from_ground,
)
from stages.pose.scale_drift import drift_between, drift_of_camera_height
from stages.pose.scale_estimate import ScaleEstimate, fuse, judged
from stages.pose.scale_from_depth import DepthScaleConfig, depth_ratios, scale_from_depth
from stages.pose.scale_from_sizes import SizeConfig, scale_from_camera_height, scale_from_known_objects
from stages.pose.scale_from_travel import TravelConfig, scale_from_gps_speed, scale_from_positions, scale_from_wheel_speed

# A scale that changes linearly by d between the middles of the outer thirds spreads by d / sqrt(12) / (2 / 3) about its mean.
_SPREAD_OF_DRIFT = 0.433


@dataclass(frozen=True)
class ScaleConfig:
    """How `pose.scale` finds metres and gravity.

    Attributes:
        max_sigma: an estimate with a larger relative standard deviation is refused.
        travel: trust in positions and speeds.
        sizes: known lengths and the trust in them.
        depth: trust in a metric depth model.
        gravity: trust in the sources of gravity.
    """

    max_sigma: float = 0.2
    travel: TravelConfig = field(default_factory=TravelConfig)
    sizes: SizeConfig = field(default_factory=SizeConfig)
    depth: DepthScaleConfig = field(default_factory=DepthScaleConfig)
    gravity: GravityConfig = field(default_factory=GravityConfig)


@stage("pose.scale", version=1)
def find_scale(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    depth: DepthVideo,
    config: ScaleConfig,
    *,
    seed: int,
    progress: Progress,
) -> MetricScale:
    """Fuse what the clip and the config offer on metres and on gravity.

    Args:
        clip: for its GPS and its camera height.
        path: in any unit and frame, as `pose.colmap` gives it; `pose.given` may tell of metres, and that z is up.
        points: of the path.
        ground: plane in the path's frame, from `pose.ground`.
        depth: used where a model gave it in metres.
        config: known lengths and trust.
        seed: not used.
        progress: two steps.
    """
    progress(0, 2, "gravity")
    directions = gravity_estimates(clip, path, ground, config)
    gravity, reasons = fuse_gravity(directions, config.gravity)
    up = gravity.up if gravity else directions[0].up if directions else np.array([0.0, -1.0, 0.0])
    progress(1, 2, "scale")
    scales, drifts = (
        ([], []) if path.verdict != "moving" and not path.metric else estimate_all(clip, path, points, ground, depth, up, config)
    )
    scales, drifts = ([judged(item, config.max_sigma) for item in items] for items in (scales, drifts))
    fused, drift = fuse(scales), fuse(drifts)
    if fused is not None and fused.sigma > config.max_sigma:  # each for itself was certain enough
        contradiction = f"the sources contradict each other: together their relative sigma is {fused.sigma:.2g}"
        scales = [item if item.refused else dataclasses.replace(item, refused=contradiction) for item in scales]
        fused = None
    progress(2, 2, f"scale from {fused.source}" if fused else "no source of scale")
    return MetricScale(
        scale=fused.scale if fused else None,
        sigma=widened_by_drift(fused.sigma, drift) if fused else 0.0,
        source=fused.source if fused else "none",
        drift=drift.scale - 1 if drift else None,
        drift_sigma=drift.sigma if drift else None,
        drift_source=drift.source if drift else "none",
        up=up,
        gravity_source=gravity.source if gravity else "none",
        gravity_sigma_rad=gravity.sigmas[1] if gravity else 0.0,
        estimates=rows_to_table(
            SCALE_ESTIMATES, [_row("scale", item) for item in scales] + [_row("drift", item) for item in drifts]
        ),
        gravity_estimates=gravity_table(directions, reasons),
    )


def gravity_estimates(clip: Clip, path: CameraPath, ground: GroundPlane, config: ScaleConfig) -> list[GravityEstimate]:
    """Return what each source says of up; none where no frame is registered."""
    poses, trust = path.world_from_camera[path.registered], config.gravity
    if len(poses) == 0:
        return []
    by_cameras = up_from_cameras(poses, trust)
    estimates = [by_cameras]
    if trust.up_in_first_camera is not None:
        given = poses[0, :3, :3] @ np.array(trust.up_in_first_camera)
        estimates.append(isotropic("given", given, trust.up_sigma_rad))
    elif path.gravity_source == "given":  # z is up already
        estimates.append(isotropic("given", np.array([0.0, 0.0, 1.0]), path.gravity_sigma_rad))
    if ground.found:
        estimates.append(up_from_ground(ground, trust))
    if clip.attitudes is not None:
        estimates.append(up_from_attitudes(path, clip.attitudes, trust))
    if clip.gps is not None and path.verdict == "moving":
        about = ground.normal if ground.found else by_cameras.up
        estimates.append(up_from_altitudes(path, clip.gps, about, trust, config.travel))
    return estimates


def estimate_all(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    depth: DepthVideo,
    up: np.ndarray,
    config: ScaleConfig,
) -> tuple[list[ScaleEstimate], list[ScaleEstimate]]:
    """Return what each source at hand says of the scale, and of the scale over the last third of the way against the first."""
    scales: list[ScaleEstimate] = []
    drifts: list[ScaleEstimate] = []

    def over_thirds(estimator: Callable[[CameraPath], ScaleEstimate]) -> None:
        scales.append(estimator(path))
        drifts.append(drift_between(path, estimator))

    if path.metric:  # given poses, or those of a rig: every set of its frames measures its baselines anew, so that nothing drifts
        scales.append(ScaleEstimate(path.scale_source, 1.0, path.scale_sigma, int(path.registered.sum())))
    gps, travel = clip.gps, config.travel
    no_common_error = dataclasses.replace(travel, wheel_scale_sigma=0.0)
    if gps is not None:
        over_thirds(lambda part: scale_from_positions(part, gps, up, travel))
        over_thirds(lambda part: scale_from_gps_speed(part, gps, up, travel))
    speeds = clip.wheel_speed
    if speeds is not None:
        scales.append(scale_from_wheel_speed(path, speeds, travel))
        drifts.append(drift_between(path, lambda part: scale_from_wheel_speed(part, speeds, no_common_error)))
    height = known_camera_height(clip, config.sizes)
    if height is not None:
        scales.append(scale_from_camera_height(*height, ground))
        drifts.append(drift_of_camera_height(path, ground))
    if config.sizes.known_objects:
        scales.append(scale_from_known_objects(path, ground, config.sizes))
    if depth.quantity == "metric_depth":
        ratios = depth_ratios(path, points, depth, config.depth)
        scales.append(scale_from_depth(path, ratios, config.depth.model_sigma, config.depth))
        drifts.append(
            drift_between(path, lambda part: scale_from_depth(part, ratios, config.depth.change_sigma / np.sqrt(2), config.depth))
        )
    return scales, drifts


def known_camera_height(clip: Clip, config: SizeConfig) -> tuple[float, float] | None:
    """Return the camera's height and its standard deviation in metres from the clip, else from the config."""
    if clip.camera_height_m is not None:
        sigma_m = clip.camera_height_sigma_m
        return clip.camera_height_m, config.camera_height_sigma * clip.camera_height_m if sigma_m is None else sigma_m
    return (config.camera_height_m, config.camera_height_sigma_m) if config.camera_height_m > 0 else None


def widened_by_drift(sigma: float, drift: ScaleEstimate | None) -> float:
    """Return the sigma of one scale for a whole path along which the scale drifts, as far as the drift is more than noise."""
    if drift is None:
        return sigma
    real = max(float(np.log(drift.scale)) ** 2 - drift.sigma**2, 0.0)
    return float(np.sqrt(sigma**2 + _SPREAD_OF_DRIFT**2 * real))


def _row(quantity: str, estimate: ScaleEstimate) -> dict[str, object]:
    known = bool(np.isfinite(estimate.scale))
    return {
        "source": estimate.source,
        "quantity": quantity,
        "value": estimate.scale if known else None,
        "sigma": estimate.sigma if known else None,
        "observations": estimate.observations,
        "used": not estimate.refused,
        "reason": estimate.refused,
    }
