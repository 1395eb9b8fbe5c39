"""Stage `pose.ground`: the ground under a camera path, as a robust plane through the points below the cameras.

Candidates come from RANSAC (Fischler and Bolles 1981) gated by what is known of a camera that travels: it looks about
upright and moves about parallel to the ground. Little lies under the ground, so points below a candidate count against
it; that tells a road from the car roofs and kerbs beside it. The winner is refined by reweighted least squares.
"""

from dataclasses import dataclass

import numpy as np

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from stages.contract import Progress, stage
from stages.pose.gravity import GravityConfig, up_from_cameras


@dataclass(frozen=True)
class GroundConfig:
    """How the ground plane is found.

    Attributes:
        hypotheses: random planes that are tried.
        max_tilt_rad: largest angle between the plane's normal and the prior up direction.
        tolerance: distance to the plane that counts as on it, over the camera's height, for a near point; it grows
            with range (error of triangulation).
        max_range: points farther from their nearest camera than this many camera heights are left out.
        min_inliers: fewer points than this are no plane.
        max_normal_sigma_rad: a plane whose normal is less certain than this was not found.
        height_sigma: relative standard deviation of a road's height under the camera against the fitted plane (crown,
            kerbs, unevenness), added to the uncertainty of the fit.
    """

    hypotheses: int = 2000
    max_tilt_rad: float = 0.2
    tolerance: float = 0.03
    max_range: float = 15.0
    min_inliers: int = 20
    max_normal_sigma_rad: float = 0.05
    height_sigma: float = 0.01


@stage("pose.ground", version=1)
def find_ground(path: CameraPath, points: PointCloud, config: GroundConfig, *, seed: int, progress: Progress) -> GroundPlane:
    """Fit the ground plane in the path's own frame; `found` is false where the points show none or the camera stood still."""
    progress(0, 1)
    return (fit_ground(path, points, config, seed) if path.verdict == "moving" else None) or GroundPlane.none()


def nearest_views(path: CameraPath, points: PointCloud) -> tuple[np.ndarray, np.ndarray]:
    """Return for each point the centre `[N, 3]` of the nearest camera that saw it, and its distance `[N]`."""
    centres = path.world_from_camera[points.observation_frame, :3, 3]
    distance = np.linalg.norm(points.xyz[points.observation_point] - centres, axis=1)
    order = np.lexsort((distance, points.observation_point))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(points.observation_point[order]) > 0
    chosen = order[first]
    nearest, ranges = np.full((len(points.xyz), 3), np.nan), np.full(len(points.xyz), np.inf)
    nearest[points.observation_point[chosen]] = centres[chosen]
    ranges[points.observation_point[chosen]] = distance[chosen]
    return nearest, ranges


def fit_ground(path: CameraPath, points: PointCloud, config: GroundConfig, seed: int) -> GroundPlane | None:
    """Fit the ground plane, or return None where the points do not show one."""
    poses = path.world_from_camera[path.registered]
    if len(poses) == 0 or len(points.xyz) < config.min_inliers:
        return None
    up = up_from_cameras(poses, GravityConfig()).up
    nearest, ranges = nearest_views(path, points)
    below = np.einsum("ni,i->n", nearest - points.xyz, up) > 0.02 * ranges
    candidates, ranges = points.xyz[below], ranges[below]
    if len(candidates) < config.min_inliers:
        return None
    best = _best_hypothesis(candidates, ranges, poses[:, :3, 3], up, config, np.random.default_rng(seed))
    return None if best is None else _refine(candidates, ranges, poses[:, :3, 3], *best, config)


def _tolerances(ranges: np.ndarray, height: np.ndarray | float, config: GroundConfig) -> np.ndarray:
    """Distances `[..., N]` up to which points at `ranges` `[N]` count as on a plane `height` `[...]` below the camera."""
    height = np.asarray(height)[..., None]
    return config.tolerance * height * (1 + (ranges / (5 * height)) ** 2)


def _best_hypothesis(
    xyz: np.ndarray, ranges: np.ndarray, centres: np.ndarray, up: np.ndarray, config: GroundConfig, rng: np.random.Generator
) -> tuple[np.ndarray, float] | None:
    """Return the normal and offset with the best score among planes through random triples, or None."""
    triples = xyz[rng.integers(0, len(xyz), (config.hypotheses, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    norms = np.linalg.norm(normals, axis=1)
    kept = norms > 1e-12
    normals, triples = normals[kept] / norms[kept, None], triples[kept]
    normals *= np.where(normals @ up < 0, -1.0, 1.0)[:, None]
    offsets = -np.einsum("hi,hi->h", normals, triples[:, 0])
    heights = normals @ centres.T + offsets[:, None]
    mean_height = heights.mean(axis=1)
    legal = (normals @ up > np.cos(config.max_tilt_rad)) & (heights.min(axis=1) > 0.3 * mean_height)
    if not legal.any():
        return None
    normals, offsets, mean_height = normals[legal], offsets[legal], mean_height[legal]
    signed = normals @ xyz.T + offsets[:, None]
    tolerance = _tolerances(ranges, mean_height, config)
    near = ranges < config.max_range * mean_height[:, None]
    # a point counts by how well it can tell: far ones have a wide tolerance and would fit any plane
    weight = near * (config.tolerance * mean_height[:, None] / tolerance)
    score = (weight * (1 - (signed / tolerance) ** 2).clip(0)).sum(axis=1) - (weight * (signed < -2 * tolerance)).sum(axis=1)
    winner = int(np.argmax(score))
    return (normals[winner], float(offsets[winner])) if score[winner] > 0 else None


def _refine(
    xyz: np.ndarray, ranges: np.ndarray, centres: np.ndarray, normal: np.ndarray, offset: float, config: GroundConfig
) -> GroundPlane | None:
    """Refit a plane to the points near it by least squares with Tukey's weights, with the covariance of the fit."""
    for _ in range(20):
        height = float((centres @ normal + offset).mean())
        if height <= 0:
            return None
        signed = xyz @ normal + offset
        tolerance = _tolerances(ranges, height, config)
        scaled = signed / tolerance
        on = (np.abs(scaled) < 1) & (ranges < config.max_range * height)
        if on.sum() < config.min_inliers:
            return None
        weight = (1 - scaled[on] ** 2) ** 2 / tolerance[on] ** 2
        # the plane as a height field over its own tangent directions, centred under the cameras
        first = np.linalg.svd(normal[None])[2][1]
        tangents = np.stack([first, np.cross(normal, first)])
        design = np.column_stack([(xyz[on] - centres.mean(axis=0)) @ tangents.T, np.ones(on.sum())])
        information = design.T @ (weight[:, None] * design)
        slope_x, slope_y, lift = np.linalg.solve(information, design.T @ (weight * signed[on]))
        turned = normal - slope_x * tangents[0] - slope_y * tangents[1]
        anchor = centres.mean(axis=0) - normal * (centres.mean(axis=0) @ normal + offset) + lift * normal
        normal = turned / np.linalg.norm(turned)
        offset = float(-normal @ anchor)
    variance = float((weight * signed[on] ** 2).sum() / weight.sum())
    # residuals are scaled by the tolerance, so the information matrix is turned into a covariance by their spread
    spread = float(np.average(scaled[on] ** 2, weights=(1 - scaled[on] ** 2) ** 2))
    covariance = np.linalg.inv(information) * max(spread, 1e-12)
    normal_sigma = float(np.sqrt(np.linalg.eigvalsh(covariance[:2, :2])[-1]))
    height = float((centres @ normal + offset).mean())
    if normal_sigma > config.max_normal_sigma_rad:
        return None
    return GroundPlane(
        found=True,
        normal=normal,
        offset=offset,
        sigma=float(np.sqrt(variance)),
        inliers=int(on.sum()),
        normal_sigma_rad=normal_sigma,
        camera_height=height,
        camera_height_sigma=float(np.hypot(np.sqrt(covariance[2, 2]) / height, config.height_sigma)),
    )
