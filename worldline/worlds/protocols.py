"""How a small world is filmed: which cameras at which times, and what is held out.

`multi`: ten cameras that stand still, twelve times. `mono`: a hundred times, each seen by one camera at a random place, as
in D-NeRF (Pumarola et al., CVPR 2021). `orbit`: one camera that goes once around in 24 frames.

Held out are three cameras that no protocol trains on: at times that are trained on, and half way between such times.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

from worldline.cameras import invert_rigid, rigid
from worldline.worlds.raycast import cast
from worldline.worlds.toys import BACKGROUND, JUMPS, TOYS

SPLITS = ("train", "heldout_views", "heldout_times")
TIMES = {"multi": 12, "mono": 100, "orbit": 24}  # protocols and how many times each is filmed at
CAMERAS, HELDOUT_CAMERAS = 10, 3
HELDOUT_TIMES = 12  # at most, per held-out camera
DISTANCE, TARGET = 4.2, np.array([0.0, 0.0, 0.4])  # of the cameras, and from what
FIELD_OF_VIEW = np.radians(42.0)


@dataclass(frozen=True, eq=False)
class Capture:
    """Pictures of a world with all that is true of them.

    Attributes:
        images: `[V, H, W, 3]`.
        instances: `[V, H, W]`, 0 where static or empty.
        depths: `[V, H, W]` along the optical axis in scene units, 0 where empty.
        normals: `[V, H, W, 3]` unit, camera frame, towards the camera; 0 where empty.
        velocities: `[V, H, W, 3]` of the visible surface in the world, scene units per normalised time; 0 where empty.
        camera_from_world: `[V, 4, 4]`.
        intrinsics: `[3, 3]` in pixels.
        times: `[V]` normalised.
        cameras: `[V]` which camera took the view; views of one camera share their pose where it stands still.
        background: `[3]` RGB in [0, 1] where a ray meets nothing.
    """

    images: UInt8[np.ndarray, "V H W 3"]
    instances: UInt16[np.ndarray, "V H W"]
    depths: Float32[np.ndarray, "V H W"]
    normals: Float32[np.ndarray, "V H W 3"]
    velocities: Float32[np.ndarray, "V H W 3"]
    camera_from_world: Float64[np.ndarray, "V 4 4"]
    intrinsics: Float64[np.ndarray, "3 3"]
    times: Float64[np.ndarray, " V"]
    cameras: np.ndarray
    background: Float64[np.ndarray, "3"]


def capture(
    scene_name: str, protocol: str, *, size: int = 128, seed: int = 0, split: str = "train", supersampling: int = 4
) -> Capture:
    """Film a world.

    Args:
        scene_name: one of `worldline.worlds.toys.TOYS`.
        protocol: "multi", "mono" or "orbit".
        size: width and height in pixels.
        seed: chooses the cameras; the world is the same for all.
        split: "train"; "heldout_views" (held-out cameras at trained times); "heldout_times" (the same cameras half way between
            trained times, but not where the scene jumps just then, because both sides would be right).
        supersampling: rays per pixel along each side.

    Raises:
        ValueError: if scene, protocol or split is unknown.
    """
    for name, value, known in (("scene_name", scene_name, TOYS), ("protocol", protocol, TIMES), ("split", split, SPLITS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    poses, times, cameras = _schedule(scene_name, protocol, split, seed)
    focal = size / 2 / np.tan(FIELD_OF_VIEW / 2)
    intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    camera_from_world = invert_rigid(poses)
    pictures = [
        cast(TOYS[scene_name](float(time)), pose, intrinsics, size, size, background=BACKGROUND, supersampling=supersampling)
        for pose, time in zip(camera_from_world, times, strict=True)
    ]
    return Capture(
        images=np.stack([picture.rgb for picture in pictures]),
        instances=np.stack([picture.instances for picture in pictures]),
        depths=np.stack([picture.depths for picture in pictures]),
        normals=np.stack([picture.normals for picture in pictures]),
        velocities=np.stack([picture.velocities for picture in pictures]),
        camera_from_world=camera_from_world,
        intrinsics=intrinsics,
        times=times,
        cameras=cameras,
        background=BACKGROUND,
    )


def _schedule(scene_name: str, protocol: str, split: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return poses `[V, 4, 4]` world from camera, times `[V]` and camera numbers `[V]`."""
    trained = np.linspace(0.0, 1.0, TIMES[protocol])
    if split == "train":
        if protocol == "multi":
            poses = _ring(CAMERAS, np.random.default_rng([seed, 0]))
            cameras = np.tile(np.arange(CAMERAS), len(trained))
            return poses[cameras], np.repeat(trained, CAMERAS), cameras
        poses = _random(len(trained), np.random.default_rng([seed, 1])) if protocol == "mono" else orbit(len(trained), seed)
        return poses, trained, np.arange(len(trained)) if protocol == "mono" else np.zeros(len(trained), int)
    if split == "heldout_times":
        trained = (trained[1:] + trained[:-1]) / 2
        jumps = np.array(JUMPS.get(scene_name, ()))
        trained = trained[~np.isclose(trained[:, None], jumps).any(axis=1)]
    asked = trained[np.unique(np.linspace(0, len(trained) - 1, min(HELDOUT_TIMES, len(trained))).round().astype(int))]
    poses = _random(HELDOUT_CAMERAS, np.random.default_rng([seed, 2]))
    cameras = np.tile(np.arange(HELDOUT_CAMERAS), len(asked))
    return poses[cameras], np.repeat(asked, HELDOUT_CAMERAS), cameras


def _ring(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return cameras evenly around the scene, high and low in turn."""
    azimuth = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    elevation = np.radians(np.where(np.arange(count) % 2, 48.0, 22.0) + rng.uniform(-5, 5, count))
    return look_at(azimuth, elevation)


def _random(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return cameras anywhere around and above the scene, each in a sector of its own where they are few."""
    sector = rng.permutation(count)
    azimuth = 2 * np.pi * (sector + rng.uniform(0, 1, count)) / count
    return look_at(azimuth, np.arcsin(rng.uniform(np.sin(np.radians(15.0)), np.sin(np.radians(55.0)), count)))


def orbit(count: int, seed: int) -> np.ndarray:
    """Return poses `[count, 4, 4]` of one turn around the scene at one height, from an azimuth that the seed chooses."""
    start = np.random.default_rng([seed, 3]).uniform(0, 2 * np.pi)
    return look_at(start + 2 * np.pi * np.arange(count) / count, np.full(count, np.radians(28.0)))


def look_at(azimuth: np.ndarray, elevation: np.ndarray, distance: float = DISTANCE) -> np.ndarray:
    """Return poses `[V, 4, 4]` world from camera that look at `TARGET` from azimuths and elevations `[V]` in radians."""
    zero = np.zeros_like(azimuth)
    away = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=-1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), zero], axis=-1)
    down = np.cross(-away, right)
    return rigid(np.stack([right, down, -away], axis=-1), TARGET + distance * away)
