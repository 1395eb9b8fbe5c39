"""A clip that numpy draws: a textured wall, a moving patch on it, and a camera that slides past."""

import numpy as np

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import Masks

WIDTH, HEIGHT, FRAMES, FOCAL, WALL = 64, 40, 24, 60.0, 4.0
PATCH_VELOCITY = 0.5  # along x, units per second; the clip is 2.3 s long


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    waves = [np.sin(3.1 * x + 1.7 * y), np.sin(4.3 * y - 1.1 * x + 1), np.sin(2.3 * x + 5 * np.sin(y))]
    return 0.5 + 0.3 * np.stack(waves, axis=-1)


def film() -> tuple[Clip, CameraPath, PointCloud, Masks]:
    times = np.arange(FRAMES) / 10
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = np.linspace(-1.5, 1.5, FRAMES)
    rows, columns = np.meshgrid(np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5, indexing="ij")
    frames, labels = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8), np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    for frame, time in enumerate(times):
        x, y = (columns - WIDTH / 2) / FOCAL * WALL + poses[frame, 0, 3], (rows - HEIGHT / 2) / FOCAL * WALL
        local = x + 0.6 - PATCH_VELOCITY * time
        patch = (np.abs(local) < 0.35) & (np.abs(y - 0.2) < 0.4)
        stripes = 0.5 + 0.45 * np.sign(np.sin(12 * local))[..., None] * np.array([1.0, -1.0, 0.3])
        frames[frame] = np.round(255 * np.where(patch[..., None], stripes, texture(x, y)))
        labels[frame] = 7 * patch
    rng = np.random.default_rng(0)
    xyz = np.concatenate([rng.uniform([-3.6, -1.3], [3.6, 1.3], (300, 2)), np.full((300, 1), WALL)], axis=1)
    point = np.tile(np.arange(300, dtype=np.int32), FRAMES)
    cloud = PointCloud(
        xyz=xyz,
        rgb=np.round(255 * texture(xyz[:, 0], xyz[:, 1])).astype(np.uint8),
        error_px=np.zeros(300, np.float32),
        observation_frame=np.repeat(np.arange(FRAMES, dtype=np.int32), 300),
        observation_point=point,
        observation_xy_px=np.zeros((len(point), 2), np.float32),
    )
    path = CameraPath(
        times_s=times, world_from_camera=poses, registered=np.ones(FRAMES, bool),
        distortion=np.zeros(4), width=WIDTH, height=HEIGHT,
        intrinsics=np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]]), verdict="moving",
        scale_source="none", scale_sigma=0.0, gravity_source="none", gravity_sigma_rad=0.0, reprojection_error_px=0.1,
    )  # fmt: skip
    clip = Clip(frames=Video.from_array(frames), times_s=times, name="wall")
    return clip, path, cloud, Masks(Video.from_array(labels), 1.0, "drawn")
