"""Draw a 4D scene as it was fitted."""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from schemas.scenes import Scene4D
from worldline.motion import state_at
from worldline.motion.native_4d import cut
from worldline.motion.space_time import join_cuts
from worldline.splatting import Cameras, Rendering, SurfelRendering, rasterize, rasterize_surfels

# Gaussians whose centre is nearer than this share of the scene's typical depth are not drawn: a fit leaves unseen
# ones there, and a camera that passes through one sees nothing else.
NEAR_SHARE = 0.02


class SceneView(NamedTuple):
    """What a camera sees of a scene.

    Attributes:
        colors: `[H, W, 3]` in [0, 1], over the scene's background.
        opacity: `[H, W]` in [0, 1].
        depths: `[H, W]` mean depth along the optical axis of what a pixel shows, in the scene's unit; 0 where nothing is.
    """

    colors: Tensor
    opacity: Tensor
    depths: Tensor


def draw_scene(
    scene: Scene4D, time_s: float, camera_from_world: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> Tensor:
    """Return the image `[H, W, 3]` in [0, 1] that a camera sees at a time; see `view_scene`."""
    return view_scene(scene, time_s, camera_from_world, intrinsics, width, height).colors


def view_scene(
    scene: Scene4D, time_s: float, camera_from_world: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> SceneView:
    """Return what a camera sees at a time.

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
        return SceneView(background.expand(height, width, 3).clone(), torch.zeros(height, width), torch.zeros(height, width))
    gaussians = state_at(scene, time_s)
    depths = gaussians.means.double().numpy() @ camera_from_world[2, :3] + camera_from_world[2, 3]
    ahead = depths[depths > 0]
    near = NEAR_SHARE * float(np.median(ahead)) if len(ahead) else 0.01
    camera = Cameras.single(camera_from_world, intrinsics, width, height)
    drawn: Rendering | SurfelRendering
    with torch.no_grad():
        if scene.primitive == "surfel":
            drawn = rasterize_surfels(gaussians, camera, near_plane=near, backgrounds=background[None])
        else:
            drawn = rasterize(gaussians, camera, near_plane=near, backgrounds=background[None], antialiased=True, depths=True)
    assert drawn.depths is not None
    return SceneView(drawn.colors[0].clamp(0.0, 1.0), drawn.alphas[0, ..., 0], drawn.depths[0, ..., 0])


# What is a length in each scene; all else is an angle, a share, a colour or a time.
_LENGTHS = ("means", "scales")
_LENGTHS_OF_MOTION = ("position_polynomial", "position_fourier", "velocities", "agent_positions")


def rescale_scene(scene: Scene4D, factor: float) -> Scene4D:
    """Return the same scene in another unit of length.

    Args:
        scene: in one unit.
        factor: that unit's length in the new one (1000 from metres to millimetres).
    """
    lengths = {name: (getattr(scene, name) * np.float32(factor)).astype(np.float32) for name in _LENGTHS}
    moved = {name: (array * factor).astype(array.dtype) for name, array in scene.motion.items() if name in _LENGTHS_OF_MOTION}
    scaled = dataclasses.replace(scene, **lengths, motion=dict(scene.motion) | moved)
    return _rescaled_native(scene, scaled, factor) if scene.motion_model == "native_4d" and factor != 1.0 else scaled


def _rescaled_native(scene: Scene4D, scaled: Scene4D, factor: float) -> Scene4D:
    """Scale space but not time: the axes of 4D Gaussians turn where they lean into time."""
    left, right = (torch.from_numpy(array).double() for array in (scene.quats, scene.motion["right_quats"]))
    sizes = np.concatenate([scene.scales, scene.motion["time_scales"][:, None]], axis=1)
    velocities, variances, covars = (array.numpy() for array in cut(left, right, torch.from_numpy(sizes).double()))
    joined = join_cuts(factor * velocities, np.sqrt(variances), factor**2 * covars)
    quats, right_quats, scales, time_scales = (array.astype(np.float32) for array in joined)
    motion = dict(scaled.motion) | {"right_quats": right_quats, "time_scales": time_scales}
    return dataclasses.replace(scaled, quats=quats, scales=scales, motion=motion)
