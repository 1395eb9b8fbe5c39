"""Mirrored copies of clips: what goes left goes right, so that no side is the more common answer.

Pictures, camera and tracks are reflected together, and kinematics and questions are made from the copy like from any clip:
boxes in referring phrases, sides, turns and clock hours are those of the flipped pictures, and every export shows these.
A copy shares its source with the original, so both come into the same split.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.media import Video
from schemas.tracks import TRACK_SAMPLES, Tracks
from stages.contract import Progress, stage
from worldline.kinematics.definitions import wrap_angle


@dataclasses.dataclass(frozen=True)
class MirrorConfig:
    """Nothing to choose: a copy is the reflection of the whole clip, left to right."""


@stage("label.mirror", version=1)
def mirror_clip(
    clip: Clip, path: CameraPath, tracks: Tracks, config: MirrorConfig, *, seed: int, progress: Progress
) -> tuple[Clip, CameraPath, Tracks]:
    """Return a clip, its camera path and its tracks as a mirror beside the road would show them.

    The world is reflected in its x-z plane (y becomes -y) and the camera in its own y-z plane, so that rotations stay
    rotations. Pixel coordinates x become width - x.

    Args:
        clip: the clip. What a receiver of GPS or an inertial unit measured fits no mirrored world and is left out.
        path: its camera path.
        tracks: its tracks.
        config: none.
        seed: not used.
        progress: called once.

    Returns:
        The mirrored clip, whose provenance says so, path and tracks.
    """
    frames = Video.from_array(clip.frames.at(range(len(clip.frames)))[:, :, ::-1])
    progress(1, 1, f"{len(frames)} frames flipped")
    mirrored = dataclasses.replace(
        clip,
        frames=frames,
        name=f"{clip.name} mirrored",
        intrinsics=None if clip.intrinsics is None else _mirrored_intrinsics(clip.intrinsics, clip.size[0]),
        gps=None,
        attitudes=None,
        provenance=clip.provenance | {"mirrored": True},
    )
    return mirrored, mirror_path(path), mirror_tracks(tracks, path.width)


def mirror_path(path: CameraPath) -> CameraPath:
    """Return the path of a camera that sees the mirrored world as the flipped pictures show it."""
    poses = np.diag([1.0, -1.0, 1.0, 1.0]) @ path.world_from_camera @ np.diag([-1.0, 1.0, 1.0, 1.0])
    poses[~path.registered] = np.eye(4)
    return dataclasses.replace(
        path,
        world_from_camera=poses,
        intrinsics=_mirrored_intrinsics(path.intrinsics, path.width),
        distortion=path.distortion * np.array([1.0, 1.0, 1.0, -1.0]),  # p2 bends along x
    )


def mirror_tracks(tracks: Tracks, width: int) -> Tracks:
    """Return tracks through the mirrored world, with boxes in pictures that are `width` pixels wide."""
    columns = {name: tracks.samples[name].combine_chunks() for name in TRACK_SAMPLES.names}
    numbers = {
        name: columns[name].to_numpy(zero_copy_only=False).astype(float) for name in ("y", "cov_xy", "yaw_rad", "x0_px", "x1_px")
    }
    changed = {"y": -numbers["y"], "cov_xy": -numbers["cov_xy"], "yaw_rad": wrap_angle(-numbers["yaw_rad"])}
    changed |= {"x0_px": width - numbers["x1_px"], "x1_px": width - numbers["x0_px"]}
    columns |= {name: pa.array(values, from_pandas=True) for name, values in changed.items()}
    samples = make_table(TRACK_SAMPLES, columns)
    return dataclasses.replace(tracks, samples=samples)


def _mirrored_intrinsics(intrinsics: np.ndarray, width: int) -> np.ndarray:
    mirrored = intrinsics.copy()
    mirrored[0, 2] = width - intrinsics[0, 2]
    mirrored[0, 1] = -intrinsics[0, 1]
    return mirrored
