"""Metric scale from known lengths: the camera's height over the ground, the distance of two cameras, objects' heights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from schemas.cameras import CameraPath, GroundPlane
from schemas.errors import WorldlineError
from stages.pose.scale_estimate import ScaleEstimate, weighted_mean
from worldline.cameras import pixel_rays

# Height in metres and its standard deviation over the objects of a kind: adults and passenger cars of all sorts.
HEIGHTS_M = {"person": (1.70, 0.10), "car": (1.52, 0.12)}


@dataclass(frozen=True)
class KnownObject:
    """An object that stands on the ground in one frame, with a known height.

    Attributes:
        frame: index of the frame.
        box_px: left, top, right and bottom of the object in that frame, in pixels of the clip; the bottom is where it
            touches the ground, the whole height must be in view.
        height_m: its height; 0 takes that of its kind.
        height_sigma_m: standard deviation of a given height.
        kind: "person" or "car", where no height is given.
    """

    frame: int
    box_px: tuple[float, float, float, float]
    height_m: float = 0.0
    height_sigma_m: float = 0.05
    kind: str = ""


@dataclass(frozen=True)
class SizeConfig:
    """Known lengths and how trustworthy they are.

    Attributes:
        camera_height_m: height of the camera over the ground in metres, where the clip gives none; 0 means unknown.
        camera_height_sigma_m: its standard deviation.
        camera_height_sigma: relative standard deviation of a camera height that the clip gives without one.
        known_objects: objects that people measured, or whose kind they know, in frames of the clip.
        box_sigma_px: standard deviation of the top and of the bottom of their boxes.
        kind_sigma: relative standard deviation of the mean height of a kind where the clip was taken: all its objects share it.
    """

    camera_height_m: float = 0.0
    camera_height_sigma_m: float = 0.05
    camera_height_sigma: float = 0.05
    known_objects: tuple[KnownObject, ...] = ()
    box_sigma_px: float = 2.0
    kind_sigma: float = 0.03


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


def scale_from_known_objects(path: CameraPath, ground: GroundPlane, config: SizeConfig) -> ScaleEstimate:
    """Scale that gives the known objects their heights where they stand on the ground plane.

    Objects are independent up to what they share: the ground plane's distance, and the mean of their kind.

    Raises:
        WorldlineError: if an object names no frame of the clip, no box, or neither height nor a known kind.
    """
    source, objects = "known_size", config.known_objects
    for number, item in enumerate(objects):
        check_object(item, f"pose.scale.sizes.known_objects[{number}]", len(path.registered))
    seen = [item for item in objects if path.registered[item.frame]]
    if not ground.found or ground.camera_height_sigma is None or ground.normal_sigma_rad is None:
        return ScaleEstimate(source, refused="no ground plane was found for the objects to stand on")
    logs, sigmas = [], []
    for item in seen:
        height = height_over_ground(path, item.frame, item.box_px, ground.normal, ground.offset)
        given, given_sigma = (item.height_m, item.height_sigma_m) if item.height_m > 0 else HEIGHTS_M[item.kind]
        if height is None:
            continue
        logs.append(float(np.log(given / height)))
        sigmas.append(float(np.hypot(given_sigma / given, _measuring_sigma(path, ground, item, height, config.box_sigma_px))))
    if not logs:
        return ScaleEstimate(source, refused="no object's bottom lies on the ground in a solved frame")
    mean, own_sigma, birge = weighted_mean(logs, sigmas)
    shared = config.kind_sigma if any(item.height_m <= 0 for item in seen) else 0.0
    sigma = float(np.sqrt((birge * own_sigma) ** 2 + ground.camera_height_sigma**2 + shared**2))
    return ScaleEstimate(source, float(np.exp(mean)), sigma, len(logs))


def check_object(item: KnownObject, where: str, frames: int) -> None:
    """Refuse an object that cannot tell a scale.

    Raises:
        WorldlineError: naming the setting.
    """
    left, top, right, bottom = item.box_px
    if not 0 <= item.frame < frames:
        raise WorldlineError(f"{where}.frame={item.frame}: the clip has the frames 0 to {frames - 1}")
    if not (np.isfinite(item.box_px).all() and left < right and top < bottom):
        raise WorldlineError(f"{where}.box_px={list(item.box_px)}: give left, top, right and bottom in pixels, top first")
    if item.height_m <= 0 and item.kind not in HEIGHTS_M:
        raise WorldlineError(f"{where}: give height_m in metres, or a kind among {', '.join(HEIGHTS_M)}")
    if item.height_m > 0 and item.height_sigma_m <= 0:
        raise WorldlineError(f"{where}.height_sigma_m={item.height_sigma_m}: it must be positive")


def height_over_ground(
    path: CameraPath, frame: int, box_px: Sequence[float], normal: Float64[np.ndarray, "3"], offset: float
) -> float | None:
    """Return how high an upright object is, in the path's unit, that fills a box and stands on a plane; None if it cannot.

    The ray through the middle of the bottom meets the plane `normal . x + offset = 0` at P. The top lies where `P + h normal`
    comes nearest to the ray through the middle of the top.
    """
    left, top, right, bottom = box_px
    pose = path.world_from_camera[frame]
    ends = np.array([[(left + right) / 2, top], [(left + right) / 2, bottom]])
    up_ray, down_ray = pixel_rays(ends, path.intrinsics, path.distortion) @ pose[:3, :3].T
    fall = -float(down_ray @ normal)
    over = float(pose[:3, 3] @ normal) + offset
    if fall <= 0 or over <= 0:
        return None
    foot = pose[:3, 3] + down_ray * over / fall
    # nearest points of the lines foot + h normal and centre + s ray
    system = np.stack([normal, -up_ray], axis=1)
    height, _ = np.linalg.lstsq(system, pose[:3, 3] - foot, rcond=None)[0]
    return float(height) if height > 0 else None


def _measuring_sigma(path: CameraPath, ground: GroundPlane, item: KnownObject, height: float, box_sigma_px: float) -> float:
    """Return the relative sigma of an object's height from the rows of its box and the tilt of the plane (differences)."""
    left, top, right, bottom = item.box_px
    pose = path.world_from_camera[item.frame]
    towards = pose[:3, 2] - (pose[:3, 2] @ ground.normal) * ground.normal
    towards /= max(float(np.linalg.norm(towards)), 1e-9)
    turned = ground.normal + (ground.normal_sigma_rad or 0.0) * towards
    turned /= np.linalg.norm(turned)
    about = path.world_from_camera[path.registered, :3, 3].mean(axis=0)  # the plane's height under the cameras stays
    offset = ground.offset + float(about @ (ground.normal - turned))
    others = [
        height_over_ground(path, item.frame, (left, top - box_sigma_px, right, bottom), ground.normal, ground.offset),
        height_over_ground(path, item.frame, (left, top, right, bottom - box_sigma_px), ground.normal, ground.offset),
        height_over_ground(path, item.frame, item.box_px, turned, offset),
    ]
    return float(np.sqrt(sum(1.0 if other is None else np.log(other / height) ** 2 for other in others)))
