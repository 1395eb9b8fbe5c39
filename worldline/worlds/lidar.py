"""A spinning laser on the roof: distances along fixed beams, from depth that is drawn at the sensor's place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.driving import LidarSweeps
from worldline.worlds.scene import Lens, Scene

# One picture holds the whole field: 250 px of focal length put neighbouring beams at least two pixels apart.
_FOCAL_PX = 250.0


@dataclass(frozen=True)
class LaserScanner:
    """A laser with a fan of beams that turns about the vertical.

    Attributes:
        beams: number of beams in the fan.
        lowest_deg, highest_deg: their elevations, evenly spaced.
        field_deg: horizontal field, the same to both sides of straight ahead, at most 140.
        step_deg: horizontal angle between shots.
        height_m: of the sensor over the road.
        range_m: what is further away returns nothing.
        sigma_m: standard deviation of the distance.
    """

    beams: int = 48
    lowest_deg: float = -24.0
    highest_deg: float = 3.0
    field_deg: float = 130.0
    step_deg: float = 0.6
    height_m: float = 1.9
    range_m: float = 80.0
    sigma_m: float = 0.02


def scan(scene: Scene, scanner: LaserScanner, times_s: Sequence[float], rng: np.random.Generator) -> LidarSweeps:
    """Return a sweep at each time, all of a sweep's points taken at one instant (no motion during the turn).

    A beam goes through the centre of the pixel nearest to its direction, so that points lie on surfaces but for the noise.

    Raises:
        WorldlineError: if this machine has no OpenGL, in hardware or in software.
    """
    from worldline.worlds.renderer import Renderer  # here, because VTK takes 1.4 s to load

    half = np.radians(scanner.field_deg / 2)
    azimuth = np.arange(-half, half, np.radians(scanner.step_deg))
    elevation = np.radians(np.linspace(scanner.lowest_deg, scanner.highest_deg, scanner.beams))
    right, down = np.tan(azimuth)[None, :], -np.tan(elevation)[:, None] / np.cos(azimuth)[None, :]
    right = np.broadcast_to(right, down.shape)
    lens = Lens(2 * int(np.ceil(_FOCAL_PX * right.max()) + 1), 2 * int(np.ceil(_FOCAL_PX * np.abs(down).max()) + 1), _FOCAL_PX)
    column = np.floor(right * _FOCAL_PX + lens.width / 2).astype(int).ravel()
    row = np.floor(down * _FOCAL_PX + lens.height / 2).astype(int).ravel()
    offset = np.stack([column + 0.5 - lens.width / 2, row + 0.5 - lens.height / 2, np.full(len(row), _FOCAL_PX)], axis=-1)
    ray = offset / _FOCAL_PX
    length = np.linalg.norm(ray, axis=1)
    clouds, origins = [], []
    with Renderer(scene, lens, colour=False) as renderer:
        for time in times_s:
            pose = scene.ego.world_from_actor(float(time)) @ _mounted(scanner.height_m)
            depth, _ = renderer.draw_depth(pose, float(time))
            distance = depth[row, column] * length
            hit = (distance > 0) & (distance < scanner.range_m)
            noisy = distance[hit] + scanner.sigma_m * rng.standard_normal(int(hit.sum()))
            points = (ray[hit] / length[hit, None] * noisy[:, None]) @ pose[:3, :3].T + pose[:3, 3]
            clouds.append(points.astype(np.float32))
            origins.append(pose[:3, 3])
    return LidarSweeps(
        times_s=np.asarray(times_s, float),
        origins=np.stack(origins),
        xyz=np.concatenate(clouds),
        sweep=np.repeat(np.arange(len(clouds), dtype=np.int32), [len(cloud) for cloud in clouds]),
    )


def _mounted(height_m: float) -> np.ndarray:
    """Return the pose `[4, 4]` in the ego frame (x forward, y left, z up) of level OpenCV axes that look forward."""
    return np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, height_m], [0, 0, 0, 1]], float)
