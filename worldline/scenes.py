"""Draw a 4D scene as it was fitted."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from schemas.scenes import Scene4D
from worldline.motion import state_at
from worldline.splatting import Cameras, rasterize, rasterize_surfels

# Gaussians whose centre is nearer than this share of the scene's typical depth are not drawn: a fit leaves unseen
# ones there, and a camera that passes through one sees nothing else.
NEAR_SHARE = 0.02


def draw_scene(
    scene: Scene4D, time_s: float, camera_from_world: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> Tensor:
    """Return the image `[H, W, 3]` in [0, 1] that a camera sees at a time.

    Gaussians are drawn in the rasteriser's antialiased mode, like in the fit, so that a scene looks the same at every
    resolution; surfels by the rasteriser of surfels.

    Args:
        scene: in the frame and unit of a camera path.
        time_s: seconds of the clip.
        camera_from_world: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]` in pixels of the image to draw, pixel centres at +0.5.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    background = torch.from_numpy(scene.background.astype(np.float32))
    if not len(scene.means):
        return background.expand(height, width, 3).clone()
    gaussians = state_at(scene, time_s)
    depths = gaussians.means.double().numpy() @ camera_from_world[2, :3] + camera_from_world[2, 3]
    ahead = depths[depths > 0]
    near = NEAR_SHARE * float(np.median(ahead)) if len(ahead) else 0.01
    camera = Cameras.single(camera_from_world, intrinsics, width, height)
    with torch.no_grad():
        if scene.primitive == "surfel":
            colors = rasterize_surfels(gaussians, camera, near_plane=near, backgrounds=background[None]).colors
        else:
            colors = rasterize(gaussians, camera, near_plane=near, backgrounds=background[None], antialiased=True).colors
    return colors[0].clamp(0.0, 1.0)


# What is a length in each scene; all else is an angle, a share, a colour or a time.
_LENGTHS = ("means", "scales")
_LENGTHS_OF_MOTION = ("position_polynomial", "position_fourier", "velocities", "agent_positions")


def rescale_scene(scene: Scene4D, factor: float) -> Scene4D:
    """Return the same scene in another unit of length.

    Args:
        scene: in one unit.
        factor: that unit's length in the new one (1000 from metres to millimetres).
    """
    lengths = {name: getattr(scene, name) * np.float32(factor) for name in _LENGTHS}
    moved = {name: array * np.float32(factor) for name, array in scene.motion.items() if name in _LENGTHS_OF_MOTION}
    return dataclasses.replace(scene, **lengths, motion=dict(scene.motion) | moved)
