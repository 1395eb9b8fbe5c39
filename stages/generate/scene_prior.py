"""What a reconstruction shows of a novel view, as the prior of a world model that repairs it.

Rendered novel views with their holes and floaters are what ReconDreamer (CVPR 2025) and Difix3D+ (CVPR 2025) have a diffusion
model restore.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from schemas.cameras import CameraPath
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.scenes import Scene4D
from stages.contract import Progress, no_progress, stage
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.scenes import view_scene


@dataclass(frozen=True)
class ScenePriorConfig:
    """What of a drawing is believed.

    Attributes:
        least_opacity: where less than this share of the light is stopped, no depth is told.
    """

    least_opacity: Annotated[float, Field(ge=0, le=1)] = 0.5


@stage("generate.scene_prior", version=1, environment_packages=("torch",))
def draw_scene_prior(
    scene: Scene4D,
    conditions: Conditions,
    novel_path: CameraPath,
    config: ScenePriorConfig,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> Conditions:
    """Return the conditions with a prior drawn from a scene: `known` is its opacity, and depth is that of the drawing.

    Args:
        scene: fitted to the log that the conditions are of, in its path's frame and unit.
        conditions: of the novel path.
        novel_path: the camera.
        config: what is believed.
        seed: not used, nothing is random.
        progress: called per frame.

    Raises:
        WorldlineError: if path and conditions differ in their number of frames.
    """
    count, height, width = conditions.known.shape
    if len(novel_path.times_s) != count:
        raise WorldlineError(
            f"generate.scene_prior: conditions have {count} frames, the path {len(novel_path.times_s)}: give those of one log"
        )
    intrinsics = scale_intrinsics(novel_path.intrinsics, width / novel_path.width, height / novel_path.height)
    prior = np.zeros((count, height, width, 3), np.uint8)
    known, depth_cm = np.zeros((count, height, width), np.uint16), np.zeros((count, height, width), np.uint16)
    for frame, time in enumerate(conditions.times_s):
        camera = invert_rigid(novel_path.world_from_camera[frame])
        view = view_scene(scene, float(time), camera, intrinsics, width, height)
        opacity = view.opacity.numpy()
        prior[frame] = np.rint(255 * view.colors.numpy())
        known[frame] = np.rint(255 * opacity)
        centimetres = np.rint(100 * view.depths.numpy())
        told = (opacity >= config.least_opacity) & (centimetres <= np.iinfo(np.uint16).max)
        depth_cm[frame] = np.where(told, centimetres, 0)
        progress(frame + 1, count, "frames drawn")
    return dataclasses.replace(
        conditions,
        prior=Video.from_array(prior),
        known=Video.from_array(known),
        depth_cm=Video.from_array(depth_cm),
        prior_source="scene",
    )
