"""Stage `pose.align_rig`: a rig in the unit that `pose.align` gave to its path."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from schemas.cameras import CameraPath
from schemas.rigs import Rig
from stages.contract import Progress, stage


@dataclass(frozen=True)
class AlignRigConfig:
    """How `pose.align_rig` works: there is nothing to choose."""


@stage("pose.align_rig", version=1)
def align_rig(rig: Rig, camera: CameraPath, path: CameraPath, config: AlignRigConfig, *, seed: int, progress: Progress) -> Rig:
    """Return the rig with its distances in the unit of `path`, and the path's word on scale.

    The rig's frame is that of its reference camera, so that moving the world changes nothing else of it.

    Args:
        rig: as `pose.rig` solved it.
        camera: the path solved with it.
        path: the same path after `pose.align`.
        config: empty.
        seed: not used.
        progress: one step.
    """
    progress(0, 1)
    before, after = (_extent(item) for item in (camera, path))
    factor = after / before if before > 0 else 1.0
    places = rig.camera_from_rig.copy()
    places[:, :3, 3] *= factor
    return dataclasses.replace(
        rig,
        camera_from_rig=places,
        position_sigma=rig.position_sigma * factor,
        scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
    )


def _extent(path: CameraPath) -> float:
    """Return the root of the summed squares of the camera's distances to its first place."""
    centres = path.world_from_camera[path.registered, :3, 3]
    return float(np.linalg.norm(centres - centres[:1]))
