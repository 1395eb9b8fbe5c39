"""Drift of the scale along a path: the scale over the last third of the distance driven against that over the first.

What all of a clip shares cancels: a wheel's circumference, the error of a given camera height.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from schemas.cameras import CameraPath, GroundPlane
from stages.pose.scale_estimate import ScaleEstimate


def first_and_last_third(path: CameraPath) -> tuple[CameraPath, CameraPath]:
    """Return the path with only the frames of the first, and only those of the last third of its length registered."""
    frames = np.flatnonzero(path.registered)
    steps = np.linalg.norm(np.diff(path.world_from_camera[frames, :3, 3], axis=0), axis=1)
    share = np.concatenate([[0.0], np.cumsum(steps)]) / max(float(steps.sum()), 1e-300)
    thirds = []
    for chosen in (share <= 1 / 3, share >= 2 / 3):
        registered = np.zeros_like(path.registered)
        registered[frames[chosen]] = True
        thirds.append(dataclasses.replace(path, registered=registered))
    return thirds[0], thirds[1]


def drift_between(path: CameraPath, estimate: Callable[[CameraPath], ScaleEstimate]) -> ScaleEstimate:
    """Return the ratio of the scales that an estimator gives for the last and the first third."""
    first, last = (estimate(part) for part in first_and_last_third(path))
    refused = f"in the first third {first.refused}" if first.refused else ""
    refused = refused or (f"in the last third {last.refused}" if last.refused else "")
    if refused:
        return ScaleEstimate(first.source, refused=refused)
    count = first.observations + last.observations
    return ScaleEstimate(first.source, last.scale / first.scale, float(np.hypot(first.sigma, last.sigma)), count)


def drift_of_camera_height(path: CameraPath, ground: GroundPlane) -> ScaleEstimate:
    """Return what a camera at a constant height tells: where it seems to sink towards the ground, a unit became longer.

    Its sigma counts the tilt of the plane over the distance between the thirds, and the unevenness of the road twice.
    """
    if not ground.found or ground.camera_height_sigma is None or ground.normal_sigma_rad is None:
        return ScaleEstimate("camera_height", refused="no ground plane was found")
    centres = [part.world_from_camera[part.registered, :3, 3] for part in first_and_last_third(path)]
    heights = [float((third @ ground.normal + ground.offset).mean()) for third in centres]
    if min(heights) <= 0:
        return ScaleEstimate("camera_height", refused="the ground plane cuts the path")
    apart = float(np.linalg.norm(centres[1].mean(axis=0) - centres[0].mean(axis=0)))
    tilt = ground.normal_sigma_rad * apart / float(np.mean(heights))
    sigma = float(np.hypot(tilt, np.sqrt(2) * ground.camera_height_sigma))
    return ScaleEstimate("camera_height", heights[0] / heights[1], sigma, ground.inliers)
