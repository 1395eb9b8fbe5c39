"""Stage `pose.align`: put a solved camera path into the world frame: z up, metres where a source of scale allows them.

World frame: origin at the first registered camera; z against gravity; x along that camera's viewing direction, laid flat;
y to its left. Gravity is the normal of the ground plane where one is found, else the mean up direction of the images.
Without a source of scale the unit is chosen so that the median distance from a camera to a point it sees is 10; that is
a convention to keep numbers readable and says nothing about metres (`scale_source` is "none").
"""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from stages.contract import Progress, stage
from stages.pose.ground import GroundConfig, Plane, fit_ground, prior_up
from stages.pose.scale import (
    ScaleConfig,
    ScaleEstimate,
    fuse,
    scale_from_camera_height,
    scale_from_gps_positions,
    scale_from_gps_speed,
)
from worldline.cameras import Similarity

MEDIAN_DISTANCE_WITHOUT_SCALE = 10.0


@dataclass(frozen=True)
class AlignConfig:
    """How `pose.align` finds gravity and metres.

    Attributes:
        camera_height_m: height of the camera over the ground in metres, where the clip gives none; 0 means unknown.
        camera_height_sigma_m: its standard deviation.
        camera_up_sigma_rad: standard deviation of gravity where only the images' up direction is known.
        road_slope_sigma_rad: standard deviation of the slope of the ground against the horizontal.
        ground: how the plane is fitted.
        scale: how trustworthy the sources of scale are.
    """

    camera_height_m: float = 0.0
    camera_height_sigma_m: float = 0.05
    camera_up_sigma_rad: float = 0.15
    road_slope_sigma_rad: float = 0.02
    ground: GroundConfig = field(default_factory=GroundConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)


@stage("pose.align", version=1)
def align_to_world(
    clip: Clip, path: CameraPath, points: PointCloud, config: AlignConfig, *, seed: int, progress: Progress
) -> tuple[CameraPath, PointCloud, GroundPlane]:
    """Give a path gravity, scale and origin; the points and the ground plane come along.

    Where no frame is registered everything is passed on unchanged, with `gravity_source` "none".
    """
    poses = path.world_from_camera[path.registered]
    if len(poses) == 0:
        return path, points, no_ground()
    progress(0, 2, "ground plane")
    plane = fit_ground(path, points, config.ground, seed) if path.verdict == "moving" else None
    up = plane.normal if plane else prior_up(poses)
    progress(1, 2, "scale")
    estimate = find_scale(clip, path, plane, up, config) if path.verdict == "moving" else None
    scale = estimate.scale if estimate else unit_scale(path, points)
    world_from_path = world_similarity(poses[0], up, scale)
    progress(2, 2, f"scale from {estimate.source}" if estimate else "no source of scale")
    return (
        moved_path(path, world_from_path, plane, estimate, config),
        dataclasses.replace(points, xyz=world_from_path.points(points.xyz)),
        moved_ground(plane, world_from_path) if plane else no_ground(),
    )


def find_scale(clip: Clip, path: CameraPath, plane: Plane | None, up: np.ndarray, config: AlignConfig) -> ScaleEstimate | None:
    """Fuse what the clip and the config offer: GPS positions, GPS speed, camera height."""
    estimates = []
    if clip.gps is not None:
        estimates.append(scale_from_gps_positions(path, clip.gps, up, config.scale))
        estimates.append(scale_from_gps_speed(path, clip.gps, config.scale))
    height, sigma = clip.camera_height_m, clip.camera_height_sigma_m
    if height is None and config.camera_height_m > 0:
        height, sigma = config.camera_height_m, config.camera_height_sigma_m
    if height is not None and plane is not None:
        estimates.append(scale_from_camera_height(height, sigma, plane.height, plane.height_sigma, config.scale))
    return fuse([estimate for estimate in estimates if estimate is not None])


def unit_scale(path: CameraPath, points: PointCloud) -> float:
    """Return the factor that makes the median distance from camera to observed point 10 units; 1 without points."""
    if len(points.observation_point) == 0:
        return 1.0
    centres = path.world_from_camera[points.observation_frame, :3, 3]
    distance = np.linalg.norm(points.xyz[points.observation_point] - centres, axis=1)
    return MEDIAN_DISTANCE_WITHOUT_SCALE / float(np.median(distance))


def world_similarity(first_pose: np.ndarray, up: np.ndarray, scale: float) -> Similarity:
    """Return `world_from_path`: first camera at the origin, `up` to z, its viewing direction laid flat to x."""
    forward = first_pose[:3, 2] - (first_pose[:3, 2] @ up) * up
    if np.linalg.norm(forward) < 0.1:  # it looks straight down or up: take the top of the image instead
        forward = -first_pose[:3, 1] + (first_pose[:3, 1] @ up) * up
    x = forward / np.linalg.norm(forward)
    rotation = np.stack([x, np.cross(up, x), up])
    return Similarity(scale, rotation, -scale * rotation @ first_pose[:3, 3])


def moved_path(
    path: CameraPath, world_from_path: Similarity, plane: Plane | None, estimate: ScaleEstimate | None, config: AlignConfig
) -> CameraPath:
    """Return the path in the world frame with what is now known of scale and gravity."""
    poses = path.world_from_camera.copy()
    poses[path.registered] = world_from_path.poses(poses[path.registered])
    gravity_sigma = np.hypot(plane.normal_sigma_rad, config.road_slope_sigma_rad) if plane else config.camera_up_sigma_rad
    return dataclasses.replace(
        path,
        world_from_camera=poses,
        scale_source=estimate.source if estimate else "none",
        scale_sigma=estimate.sigma if estimate else 0.0,
        gravity_source="ground_plane" if plane else "camera_up",
        gravity_sigma_rad=float(gravity_sigma),
    )


def moved_ground(plane: Plane, world_from_path: Similarity) -> GroundPlane:
    """Return the plane in the world frame."""
    normal = world_from_path.rotation @ plane.normal
    offset = world_from_path.scale * plane.offset - float(normal @ world_from_path.translation)
    return GroundPlane(found=True, normal=normal, offset=offset, sigma=plane.sigma * world_from_path.scale, inliers=plane.inliers)


def no_ground() -> GroundPlane:
    """Return the plane that was not found."""
    return GroundPlane(found=False, normal=np.zeros(3), offset=0.0, sigma=0.0, inliers=0)
