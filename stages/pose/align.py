"""Stage `pose.align`: put a solved camera path into the world frame: z up, metres where a source of scale allows them.

World frame: origin at the first registered camera; z against gravity; x along that camera's viewing direction, laid flat;
y to its left. Without a source of scale the unit is chosen so that the median distance from a camera to a point it sees
is 10; that is a convention to keep numbers readable and says nothing about metres (`scale_source` is "none"). Without
known gravity z is a guess (`gravity_source` is "none").
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from schemas.cameras import CameraPath, GroundPlane, MetricScale, PointCloud
from stages.contract import Progress, stage
from worldline.cameras import Similarity


@dataclass(frozen=True)
class AlignConfig:
    """How `pose.align` chooses the unit.

    Attributes:
        median_distance_without_scale: units from a camera to the median point that it sees, where there are no metres.
    """

    median_distance_without_scale: float = 10.0


@stage("pose.align", version=2)
def align_to_world(
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    scale: MetricScale,
    config: AlignConfig,
    *,
    seed: int,
    progress: Progress,
) -> tuple[CameraPath, PointCloud, GroundPlane]:
    """Give a path gravity, scale and origin; the points and the ground plane come along.

    Where no frame is registered everything is passed on unchanged, with `gravity_source` "none".
    """
    progress(0, 1)
    poses = path.world_from_camera[path.registered]
    if len(poses) == 0:
        return path, points, ground
    unit = unit_scale(path, points, config.median_distance_without_scale) if scale.scale is None else scale.scale
    world_from_path = world_similarity(poses[0], scale.up, unit)
    return (
        moved_path(path, world_from_path, scale),
        dataclasses.replace(points, xyz=world_from_path.points(points.xyz)),
        moved_ground(ground, world_from_path),
    )


def unit_scale(path: CameraPath, points: PointCloud, median_distance: float) -> float:
    """Return the factor that makes the median distance from camera to observed point this many units; 1 without points."""
    if len(points.observation_point) == 0:
        return 1.0
    centres = path.world_from_camera[points.observation_frame, :3, 3]
    distance = np.linalg.norm(points.xyz[points.observation_point] - centres, axis=1)
    return median_distance / float(np.median(distance))


def world_similarity(first_pose: np.ndarray, up: np.ndarray, scale: float) -> Similarity:
    """Return `world_from_path`: first camera at the origin, `up` to z, its viewing direction laid flat to x."""
    forward = first_pose[:3, 2] - (first_pose[:3, 2] @ up) * up
    if np.linalg.norm(forward) < 0.1:  # it looks straight down or up: take the top of the image instead
        forward = -first_pose[:3, 1] + (first_pose[:3, 1] @ up) * up
    x = forward / np.linalg.norm(forward)
    rotation = np.stack([x, np.cross(up, x), up])
    return Similarity(scale, rotation, -scale * rotation @ first_pose[:3, 3])


def moved_path(path: CameraPath, world_from_path: Similarity, scale: MetricScale) -> CameraPath:
    """Return the path in the world frame with what is now known of scale and gravity."""
    poses = path.world_from_camera.copy()
    poses[path.registered] = world_from_path.poses(poses[path.registered])
    return dataclasses.replace(
        path,
        world_from_camera=poses,
        scale_source=scale.source,
        scale_sigma=scale.sigma,
        gravity_source=scale.gravity_source,
        gravity_sigma_rad=scale.gravity_sigma_rad,
    )


def moved_ground(ground: GroundPlane, world_from_path: Similarity) -> GroundPlane:
    """Return the plane in the world frame."""
    if not ground.found:
        return ground
    normal = world_from_path.rotation @ ground.normal
    return dataclasses.replace(
        ground,
        normal=normal,
        offset=world_from_path.scale * ground.offset - float(normal @ world_from_path.translation),
        sigma=ground.sigma * world_from_path.scale,
        camera_height=None if ground.camera_height is None else ground.camera_height * world_from_path.scale,
    )
