"""Made-up reconstructions and footage with known truth, for the pose tests."""

import cv2
import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from schemas.artifact import make_table
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import GPS_FIXES, Clip
from schemas.media import Video
from worldline.cameras import Similarity

LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # looks along x, z up
INTRINSICS = np.array([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]])
CAMERA_HEIGHT = 1.6
LATITUDE, LONGITUDE = 48.0, 11.0


def clip_of(frames: np.ndarray, **fields: object) -> Clip:
    return Clip(frames=Video.from_array(frames), times_s=np.arange(len(frames)) * 0.1, name="test", **fields)


def blank_clip(count: int, **fields: object) -> Clip:
    return clip_of(np.zeros((count, 4, 4, 3), np.uint8), **fields)


def true_drive(count: int = 60, pitch: float = 0.05, seed: int = 0) -> np.ndarray:
    """Camera-to-world poses of a 30 m drive along a gentle curve, camera pitched down, ground at z = -1.6."""
    heading = np.linspace(0, 0.5, count)
    step = 0.5
    xy = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * step, axis=0)
    shake = np.random.default_rng(seed).normal(size=(count, 3)) * 0.003
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    for index in range(count):
        turn = Rotation.from_euler("ZY", [heading[index], pitch]) * Rotation.from_rotvec(shake[index])
        poses[index, :3, :3] = turn.as_matrix() @ LEVEL
        poses[index, :2, 3] = xy[index] - xy[0]
    return poses


def reconstruction(poses: np.ndarray, path_from_world: Similarity, seed: int = 0, noise: float = 0.01, ground: bool = True):
    """A path and cloud as structure from motion would give: road, kerb, house walls, car roofs, a few points underground."""
    rng = np.random.default_rng(seed)
    road = rng.uniform([0, -6, -CAMERA_HEIGHT], [45, 6, -CAMERA_HEIGHT], (300, 3))
    walls = rng.uniform([0, 9, -CAMERA_HEIGHT], [45, 9.5, 8], (400, 3)) * np.where(rng.random((400, 1)) < 0.5, [1, -1, 1], 1)
    roofs = rng.uniform([5, 3, -0.2], [40, 5, -0.1], (150, 3))
    stray = rng.uniform([0, -6, -4], [45, 6, -2], (10, 3))
    world = np.concatenate([road, walls, roofs, stray] if ground else [walls + np.array([0, 0, 3])])
    frames, indices, pixels = [], [], []
    for index, pose in enumerate(poses):
        local = (world - pose[:3, 3]) @ pose[:3, :3]
        xy = local[:, :2] / local[:, 2:] * 500 + [320, 180]
        seen = (local[:, 2] > 2) & (local[:, 2] < 30) & np.all((xy > 0) & (xy < [640, 360]), axis=1)
        frames.append(np.full(seen.sum(), index))
        indices.append(np.flatnonzero(seen))
        pixels.append(xy[seen])
    noisy = world + rng.normal(size=world.shape) * noise
    cloud = PointCloud(
        xyz=path_from_world.points(noisy),
        rgb=np.zeros((len(world), 3), np.uint8),
        error_px=np.full(len(world), 0.5, np.float32),
        observation_frame=np.concatenate(frames).astype(np.int32),
        observation_point=np.concatenate(indices).astype(np.int32),
        observation_xy_px=np.concatenate(pixels).astype(np.float32),
    )
    return path_of(path_from_world.poses(poses)), cloud


def path_of(poses: np.ndarray, verdict: str = "moving", registered: np.ndarray | None = None, **fields: object) -> CameraPath:
    values: dict[str, object] = {
        "times_s": np.arange(len(poses)) * 0.1,
        "world_from_camera": poses,
        "registered": np.ones(len(poses), bool) if registered is None else registered,
        "intrinsics": INTRINSICS,
        "distortion": np.zeros(4),
        "width": 640,
        "height": 360,
        "verdict": verdict,
        "scale_source": "none",
        "scale_sigma": 0.0,
        "gravity_source": "none",
        "gravity_sigma_rad": 0.0,
        "reprojection_error_px": 0.5,
    }
    return CameraPath(**(values | fields))  # type: ignore[arg-type]


def gps_of(poses: np.ndarray, noise_m: float, seed: int = 0, outliers: int = 0, speed: bool = False) -> pa.Table:
    """Fixes at the cameras' positions; x is east. Metres to degrees by the WGS84 radii of curvature at the latitude."""
    rng = np.random.default_rng(seed)
    east_north = poses[:, :2, 3] + rng.normal(size=(len(poses), 2)) * noise_m
    east_north[rng.choice(len(poses), outliers, replace=False)] += 40.0
    sine = np.sin(np.radians(LATITUDE))
    e2 = 0.00669437999014
    meridian = 6378137.0 * (1 - e2) / (1 - e2 * sine**2) ** 1.5
    normal = 6378137.0 / np.sqrt(1 - e2 * sine**2)
    velocity = np.gradient(poses[:, :3, 3], 0.1, axis=0)
    return make_table(
        GPS_FIXES,
        {
            "time_s": np.arange(len(poses)) * 0.1,
            "latitude_deg": LATITUDE + np.degrees(east_north[:, 1] / meridian),
            "longitude_deg": LONGITUDE + np.degrees(east_north[:, 0] / (normal * np.cos(np.radians(LATITUDE)))),
            "altitude_m": rng.normal(size=len(poses)) * 3 * noise_m,
            "speed_mps": np.linalg.norm(velocity, axis=1) if speed else [None] * len(poses),
        },
    )


def texture(side: int, seed: int, stretch: int = 1) -> np.ndarray:
    """A random texture with detail at several scales, RGB `[side, stretch * side, 3]`."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, stretch * side, 3), np.float32)
    for cells, weight in ((8, 70), (32, 70), (128, 40)):
        grid = rng.random((cells, stretch * cells, 3), np.float32) - 0.5
        total += weight * cv2.resize(grid, (stretch * side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def draw_corridor(poses: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Film a textured corridor (floor z = -1.6, ceiling z = 3, walls y = -3 and 3, end x = 30) from camera-to-world poses."""
    quads = [  # corner, first edge, second edge
        ([-5, -3, -1.6], [35, 0, 0], [0, 6, 0]),
        ([-5, -3, 3.0], [35, 0, 0], [0, 6, 0]),
        ([-5, -3, -1.6], [35, 0, 0], [0, 0, 4.6]),
        ([-5, 3, -1.6], [35, 0, 0], [0, 0, 4.6]),
        ([30, -3, -1.6], [0, 6, 0], [0, 0, 4.6]),
    ]
    # no texture repeats: repetition would make honest matching impossible
    textures = [texture(512, seed, stretch=1 if seed == 4 else 6) for seed in range(len(quads))]
    pixels = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1)
    rays = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1) @ np.linalg.inv(intrinsics).T
    film = np.zeros((len(poses), size[1], size[0], 3), np.uint8)
    for index, pose in enumerate(poses):
        directions = rays @ pose[:3, :3].T
        nearest = np.full(pixels.shape[:2], np.inf)
        for (corner, first, second), image in zip(quads, textures, strict=True):
            edges = np.array([first, second], float)
            normal = np.cross(*edges)
            distance = (np.array(corner) - pose[:3, 3]) @ normal / (directions @ normal)
            at = pose[:3, 3] + distance[..., None] * directions - corner
            u, v = (np.clip((at @ edge) / (edge @ edge), -1, 2) for edge in edges)
            hit = (distance > 0) & (distance < nearest) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
            at_u, at_v = ((part * (side - 1)).astype(np.float32) for part, side in ((u, image.shape[1]), (v, image.shape[0])))
            shade = cv2.remap(image, at_u, at_v, cv2.INTER_LINEAR)
            film[index][hit] = shade[hit]
            nearest[hit] = distance[hit]
    return film
