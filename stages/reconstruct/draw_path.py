"""Stage `reconstruct.draw_path`: video and depth of a scene along a camera path, driven or not."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.depth import DepthVideo, half_bits_of
from schemas.media import Video
from schemas.scenes import Scene4D
from stages.contract import Progress, stage
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.motion import state_at
from worldline.scenes import NEAR_SHARE
from worldline.splatting import Cameras, rasterize

_SOLID = 0.5  # a pixel that the scene covers less than this has no depth


@dataclass(frozen=True)
class DrawPathConfig:
    """How large the frames are.

    Attributes:
        max_side: longer side in pixels; never larger than the path's own images.
    """

    max_side: Annotated[int, Field(ge=16)] = 320


@stage("reconstruct.draw_path", version=1, environment_packages=("torch", "numba", "numpy"))
def draw_path(
    scene: Scene4D, path: CameraPath, config: DrawPathConfig, *, seed: int, progress: Progress
) -> tuple[Clip, DepthVideo]:
    """Draw what a scene of Gaussians shows along a path, at the path's times; depth is that of the opacity-weighted mean.

    Surfels and scenes without Gaussians are drawn as the background, without depth.
    """
    factor = min(1.0, config.max_side / max(path.width, path.height))
    width, height = round(path.width * factor), round(path.height * factor)
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    background = torch.from_numpy(scene.background.astype(np.float32))
    images = np.empty((len(path.times_s), height, width, 3), np.uint8)
    bits = np.zeros((len(path.times_s), height, width), np.uint16)
    images[:] = np.rint(255 * scene.background)
    for frame, time_s in enumerate(path.times_s if len(scene.means) else ()):
        camera_from_world = invert_rigid(path.world_from_camera[frame])
        gaussians = state_at(scene, float(time_s))
        ahead = gaussians.means.double().numpy() @ camera_from_world[2, :3] + camera_from_world[2, 3]
        near = NEAR_SHARE * float(np.median(ahead[ahead > 0])) if (ahead > 0).any() else 0.01
        with torch.no_grad():
            drawn = rasterize(
                gaussians, Cameras.single(camera_from_world, intrinsics, width, height), depths=True, near_plane=near,
                backgrounds=background[None], antialiased=True,
            )  # fmt: skip
        images[frame] = np.rint(255 * drawn.colors[0].clamp(0, 1).numpy())
        assert drawn.depths is not None
        solid = drawn.alphas[0, ..., 0].numpy() > _SOLID
        bits[frame] = half_bits_of(np.where(solid, drawn.depths[0, ..., 0].numpy(), 0.0))
        progress(frame + 1, len(path.times_s), "frames drawn")
    clip = Clip(
        frames=Video.from_array(images),
        times_s=path.times_s,
        name=f"{scene.motion_model} scene",
        intrinsics=intrinsics,
        provenance={"kind": "drawn", "generator": "reconstruct.draw_path", "motion_model": scene.motion_model},
    )
    quantity = "metric_depth" if scene.scale_source != "none" else "none"
    if quantity == "none":
        return clip, DepthVideo.none()
    depth = DepthVideo(path.times_s, quantity, Video.from_array(bits), width, height, "reconstruct.draw_path", "", "", "")
    return clip, depth
