"""Metric scale from known lengths: the camera's height over the ground, the distance of two cameras."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from schemas.cameras import GroundPlane
from stages.pose.scale_estimate import ScaleEstimate


@dataclass(frozen=True)
class SizeConfig:
    """Known lengths and how trustworthy they are.

    Attributes:
        camera_height_m: height of the camera over the ground in metres, where the clip gives none; 0 means unknown.
        camera_height_sigma_m: its standard deviation.
        camera_height_sigma: relative standard deviation of a camera height that the clip gives without one.
    """

    camera_height_m: float = 0.0
    camera_height_sigma_m: float = 0.05
    camera_height_sigma: float = 0.05


def scale_from_camera_height(height_m: float, sigma_m: float, ground: GroundPlane) -> ScaleEstimate:
    """Scale that makes the cameras' mean height over the ground the given one.

    Args:
        height_m: given height, with standard deviation `sigma_m`.
        sigma_m: of the given height.
        ground: plane in the path's frame.
    """
    if not ground.found or ground.camera_height is None or ground.camera_height_sigma is None:
        return ScaleEstimate("camera_height", refused="no ground plane was found")
    sigma = float(np.hypot(sigma_m / height_m, ground.camera_height_sigma))
    return ScaleEstimate("camera_height", height_m / ground.camera_height, sigma, ground.inliers)


def scale_from_baseline(
    estimated: Float64[np.ndarray, " N"] | float, given_m: float, sigma_m: float, estimated_sigma: float = 0.0
) -> ScaleEstimate:
    """Scale that makes the distance between two synchronised cameras the given one.

    Args:
        estimated: that distance in the path's unit, once, or at every instant at which both were solved (the median
            counts, and the spread, over the square root of the count, joins the sigma).
        given_m: known distance in metres, with standard deviation `sigma_m`.
        sigma_m: of the given distance.
        estimated_sigma: relative standard deviation of the estimated distance that its spread does not show: a baseline
            is short beside the scene, so an error of calibration moves all instants alike.
    """
    lengths = np.atleast_1d(np.asarray(estimated, np.float64))
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if len(lengths) == 0 or given_m <= 0:
        return ScaleEstimate("baseline", refused="the two cameras were never solved together at two places")
    middle = float(np.median(lengths))
    spread = 1.4826 * float(np.median(np.abs(lengths - middle))) * 1.2533 / np.sqrt(len(lengths)) / middle
    sigma = float(np.sqrt((sigma_m / given_m) ** 2 + spread**2 + estimated_sigma**2))
    return ScaleEstimate("baseline", given_m / middle, sigma, len(lengths))
