"""Stage `pose.rig_camera`: any one camera of a rig as a clip with a path, for the stages that take one camera."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.rigs import Rig, RigClip
from stages.contract import Progress, stage
from worldline.rigs import camera_poses


@dataclass(frozen=True)
class RigCameraConfig:
    """Which camera `pose.rig_camera` takes.

    Attributes:
        camera: its name; empty takes the reference.
        max_gap_s: the rig's path is not interpolated over longer holes.
    """

    camera: str = ""
    max_gap_s: float = 0.5


@stage("pose.rig_camera", version=1)
def take_camera(
    rig_clip: RigClip, path: CameraPath, rig: Rig, config: RigCameraConfig, *, seed: int, progress: Progress
) -> tuple[Clip, CameraPath]:
    """Return what one camera filmed, and where it was at its own times: the rig's path interpolated, times its place.

    A frame is registered where its time lies within the path's registered frames, and not in a hole of it. The rows of a
    rolling shutter get one pose, that of the middle row (`worldline.rigs.row_poses` has those of all).

    Args:
        rig_clip: what all cameras filmed.
        path: of the reference, solved or aligned.
        rig: in the path's unit.
        config: which camera.
        seed: not used.
        progress: one step.

    Raises:
        WorldlineError: if the rig has no such camera, or does not know where it sits.
    """
    progress(0, 1)
    name = config.camera or rig.cameras[0]
    if name not in rig.cameras:
        raise WorldlineError(f"pose.rig_camera.camera={name} is no camera of {rig_clip.name}: it has {', '.join(rig.cameras)}")
    number = rig.cameras.index(name)
    if rig.placed_by[number] == "none":
        raise WorldlineError(
            f"where camera {name} of {rig_clip.name} sits was neither given nor found: give its camera_from_rig in rig.json"
        )
    clip = rig_clip.clip(name)
    known, poses = path.times_s[path.registered], path.world_from_camera[path.registered]
    registered = _covered(known, clip.times_s, config.max_gap_s)
    world_from_camera = np.repeat(np.eye(4)[None], len(clip.times_s), axis=0)
    if registered.any():
        world_from_camera[registered] = camera_poses(known, poses, rig.camera_from_rig[number], clip.times_s[registered])
    width, height = rig_clip.size(name)
    return clip, dataclasses.replace(
        path,
        times_s=clip.times_s,
        world_from_camera=world_from_camera,
        registered=registered,
        intrinsics=rig.intrinsics[number],
        distortion=rig.distortion[number],
        width=width,
        height=height,
    )


def _covered(known_s: np.ndarray, query_s: np.ndarray, max_gap_s: float) -> np.ndarray:
    """Return which times lie on a known one, or between two that are at most `max_gap_s` apart."""
    if len(known_s) == 0:
        return np.zeros(len(query_s), bool)
    after = np.searchsorted(known_s, query_s)
    right, left = known_s[np.minimum(after, len(known_s) - 1)], known_s[np.maximum(after - 1, 0)]
    return (query_s == right) | ((query_s > left) & (query_s < right) & (right - left <= max_gap_s))
