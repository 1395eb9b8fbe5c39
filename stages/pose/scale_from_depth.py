"""Metric scale from a depth model that was trained to tell metres.

In each frame the model's depth at the triangulated points over their depth along the path's own axis has a median; over the
frames these medians scatter by what the model gets wrong from view to view. What it gets wrong everywhere (a camera
unlike those it was trained on) shows in nothing, so a floor is added to the sigma.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from schemas.cameras import CameraPath, PointCloud
from schemas.depth import DepthVideo
from stages.pose.drifting_noise import regress
from stages.pose.scale_estimate import ScaleEstimate


@dataclass(frozen=True)
class DepthScaleConfig:
    """How trustworthy a metric depth model is.

    Attributes:
        model_sigma: relative standard deviation of what the model gets wrong throughout a clip.
        change_sigma: the same of what it gets wrong between the two ends of a clip, for drift.
        min_points: triangulated points that a frame must show.
        correlation_s: time over which a model makes the same error, since the views are nearly the same.
    """

    model_sigma: float = 0.15
    change_sigma: float = 0.05
    min_points: int = 10
    correlation_s: float = 2.0


@dataclass(frozen=True)
class DepthRatios:
    """Log of metres per unit of the path by frame: `frames` `[N]` and `logs` `[N]`."""

    frames: Int64[np.ndarray, " N"]
    logs: Float64[np.ndarray, " N"]


def depth_ratios(path: CameraPath, points: PointCloud, depth: DepthVideo, config: DepthScaleConfig) -> DepthRatios:
    """Compare a model's depth with that of the points, frame by frame."""
    across, down = depth.scale
    frames, logs = [], []
    for frame in np.flatnonzero(path.registered[: len(depth)]):
        here = points.observation_frame == frame
        pose = path.world_from_camera[frame]
        own = (points.xyz[points.observation_point[here]] - pose[:3, 3]) @ pose[:3, 2]
        (image,) = depth.at([int(frame)])
        column = np.clip((points.observation_xy_px[here, 0] * across).astype(int), 0, image.shape[1] - 1)
        row = np.clip((points.observation_xy_px[here, 1] * down).astype(int), 0, image.shape[0] - 1)
        told = image[row, column]
        valid = (told > 0) & (own > 0)
        if valid.sum() >= config.min_points:
            frames.append(frame)
            logs.append(float(np.median(np.log(told[valid] / own[valid]))))
    return DepthRatios(np.array(frames, np.int64), np.array(logs, np.float64))


def scale_from_depth(path: CameraPath, ratios: DepthRatios, common_sigma: float, config: DepthScaleConfig) -> ScaleEstimate:
    """Scale that makes the points as far away as the model says, over the registered frames.

    Args:
        path: its registered frames count.
        ratios: from `depth_ratios`.
        common_sigma: of what the model gets wrong in all of them.
        config: trust.
    """
    counted = path.registered[ratios.frames]
    if counted.sum() < 2:
        reason = f"{counted.sum()} frames show {config.min_points} points with depth, not 2"
        return ScaleEstimate("depth_model", observations=int(counted.sum()), refused=reason)
    logs, times = ratios.logs[counted], path.times_s[ratios.frames[counted]]
    fitted = regress(np.ones((len(logs), 1)), logs, times, correlation_s=config.correlation_s, least_drift=0.0)
    if fitted is None:
        return ScaleEstimate("depth_model", observations=len(logs), refused="the frames contradict each other")
    sigma = float(np.hypot(np.sqrt(fitted.covariance[0, 0]), common_sigma))
    return ScaleEstimate("depth_model", float(np.exp(fitted.coefficients[0])), sigma, fitted.used)
