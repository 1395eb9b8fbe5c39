"""From the frames of several cameras, each with its own times, to one clip of a rig: sets, sizes, places.

What every layout of rigs shares. Each brings `Strip`s (one per camera: times on one clock, and a way to read frames) with
what is known of each camera.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.rigs import RigClip
from stages.contract import Progress
from stages.ingest.pictures import check_camera_height, fitted_size, keep_frame, pinhole_matrix, resize, stack_frames
from stages.ingest.timing import FramePicker, check_selection
from worldline.cameras import invert_rigid

_RIGID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RigConfig:
    """How a rig is read.

    Attributes:
        start_s, end_s: span in seconds from the reference's first frame; None goes to the end.
        max_frames: stop after this many frames of the reference; None keeps all.
        max_side: longer side of the frames in pixels; larger ones are shrunk by area, None keeps them.
        keep_frames_per_second: keep at most this many frames of the reference per second, by their times; None keeps all.
        tolerance_s: a frame belongs to the frame of the reference that is nearest in time, if it is this near; None takes
            half the reference's usual interval.
        frames_per_second: rate that is assumed of folders of images in which nothing gives times.
        position_sigma: standard deviation of a given place, relative to the distance to the reference, where `rig.json` has none.
        rotation_sigma_rad: the same of a given orientation, about each axis.
        camera_height_m, camera_height_sigma_m: height of the reference over the ground and its standard deviation.
    """

    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    keep_frames_per_second: float | None = None
    tolerance_s: float | None = None
    frames_per_second: float = 10.0
    position_sigma: float = 0.005
    rotation_sigma_rad: float = 0.001
    camera_height_m: float | None = None
    camera_height_sigma_m: float | None = None


@dataclass(frozen=True)
class Strip:
    """The frames of one camera of a rig.

    Attributes:
        name: of the camera.
        times_s: of all its frames on the rig's clock (seconds from any instant, the same for all cameras), increasing.
        read: calls its second argument with every frame of these indices, RGB `[H, W, 3]` uint8 upright, in increasing order.
        intrinsics: (fx, fy, cx, cy) in pixels of the frames as read, pixel centres at +0.5; None where unknown.
        distortion: OpenCV (k1, k2, p1, p2).
        camera_from_body: `[4, 4]` in metres from a frame that all cameras share; None where unknown.
        position_sigma_m, rotation_sigma_rad: of that; None takes the config's.
        readout_s: of a rolling shutter.
    """

    name: str
    times_s: np.ndarray
    read: Callable[[Sequence[int], Callable[[np.ndarray], None]], None]
    intrinsics: tuple[float, float, float, float] | None
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    camera_from_body: np.ndarray | None = None
    position_sigma_m: float | None = None
    rotation_sigma_rad: float | None = None
    readout_s: float = 0.0


def check_rig_config(config: RigConfig) -> None:
    """Refuse settings that can keep nothing, or that are no trust in anything.

    Raises:
        WorldlineError: naming the field.
    """
    check_selection(config, config.keep_frames_per_second, config.max_side)
    check_selection(config, config.frames_per_second, config.max_side)
    check_camera_height(config.camera_height_m, config.camera_height_sigma_m)
    for name in ("position_sigma", "rotation_sigma_rad"):
        if not 0 < getattr(config, name) < 1:
            raise WorldlineError(f"{name} is {getattr(config, name)}: give a small positive number")
    if config.tolerance_s is not None and config.tolerance_s <= 0:
        raise WorldlineError(f"tolerance_s is {config.tolerance_s} s: it must be positive")


def assemble_rig_clip(
    name: str, strips: list[Strip], config: RigConfig, progress: Progress, provenance: dict[str, Any]
) -> RigClip:
    """Choose frames of the reference (the first strip), find those that belong to them, and read them.

    Raises:
        WorldlineError: if fewer than two frames are kept, a camera has none that belongs to any, sizes differ within a
            camera, or intrinsics are known of some cameras only.
    """
    unknown = [strip.name for strip in strips if strip.intrinsics is None]
    if unknown and len(unknown) < len(strips):
        raise WorldlineError(f"{name}: camera {unknown[0]} has no intrinsics while others have: give them for all or for none")
    reference = strips[0]
    first_s = float(reference.times_s[0])
    picker = FramePicker(config, config.keep_frames_per_second)
    kept = [index for index, time_s in enumerate(reference.times_s - first_s) if picker.take(float(time_s))]
    if len(kept) < 2:
        raise WorldlineError(
            f"{name}: {len(kept)} of {len(reference.times_s)} frames of {reference.name} lie in the chosen span and a clip needs "
            "at least 2: check start_s, end_s and keep_frames_per_second"
        )
    start_s = float(reference.times_s[kept[0]])
    times = reference.times_s[kept]
    tolerance = config.tolerance_s if config.tolerance_s is not None else 0.5 * float(np.median(np.diff(times)))
    chosen = [np.array(kept)]
    sets = [np.arange(len(kept))]
    for strip in strips[1:]:
        found = nearest_frames(times, strip.times_s, tolerance)
        if (found >= 0).sum() < 2:
            raise WorldlineError(
                f"{name}: fewer than 2 frames of camera {strip.name} are within {tolerance:.3g} s of one of {reference.name}: "
                "check its timestamps and time_offset_s, or raise tolerance_s"
            )
        chosen.append(found[found >= 0])
        sets.append(np.where(found >= 0, np.cumsum(found >= 0) - 1, -1))
    total, done = sum(map(len, chosen)), 0
    frames: dict[str, Video] = {}
    matrices = np.zeros((len(strips), 3, 3))
    for number, (strip, indices) in enumerate(zip(strips, chosen, strict=True)):
        frames[strip.name], original = _read_frames(name, strip, indices, config, done, total, progress)
        done += len(indices)
        if strip.intrinsics is not None:
            height, width = frames[strip.name].shape[1:3]
            matrices[number] = pinhole_matrix(*strip.intrinsics, scale_x=width / original[0], scale_y=height / original[1])
    places, placed = _places(strips)
    distance = np.linalg.norm(places[:, :3, 3], axis=1)
    return RigClip(
        name=name,
        cameras=[strip.name for strip in strips],
        frames=frames,
        times_s={strip.name: strip.times_s[indices] - start_s for strip, indices in zip(strips, chosen, strict=True)},
        sets=np.stack(sets, axis=1).astype(np.int32),
        calibrated=not unknown,
        intrinsics=matrices,
        distortion=np.array([strip.distortion for strip in strips], np.float64),
        placed=placed,
        camera_from_rig=places,
        position_sigma_m=_sigmas(placed, [strip.position_sigma_m for strip in strips], config.position_sigma * distance),
        rotation_sigma_rad=_sigmas(
            placed, [strip.rotation_sigma_rad for strip in strips], np.full(len(strips), config.rotation_sigma_rad)
        ),
        readout_s=np.array([strip.readout_s for strip in strips]),
        provenance=provenance
        | {
            "tolerance_s": tolerance,
            "first_kept_s": start_s - first_s,
            "frames_in_source": {strip.name: len(strip.times_s) for strip in strips},
            "dropped_out_of_order": picker.out_of_order,
        },
    )


def reference_clip(rig_clip: RigClip, config: RigConfig, **known: Any) -> Clip:
    """Return what the reference filmed as a clip like any other, with what else is `known` of it."""
    return dataclasses.replace(
        rig_clip.clip(rig_clip.reference),
        camera_height_m=config.camera_height_m,
        camera_height_sigma_m=config.camera_height_sigma_m,
        **known,
    )


def nearest_frames(times_s: np.ndarray, other_s: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Return for each of `times_s` `[N]` the index of the nearest of `other_s` within the tolerance, -1 where there is none.

    Both increase. A frame belongs to one set only: of two that it is nearest to, the nearer one.
    """
    after = np.clip(np.searchsorted(other_s, times_s), 1, max(len(other_s) - 1, 1))
    candidates = np.stack([after - 1, np.minimum(after, len(other_s) - 1)])
    away = np.abs(other_s[candidates] - times_s)
    best = away.argmin(axis=0)
    found, distance = candidates[best, np.arange(len(times_s))], away.min(axis=0)
    found = np.where(distance <= tolerance_s, found, -1)
    for index in np.unique(found[found >= 0]):
        rows = np.flatnonzero(found == index)
        found[rows[rows != rows[distance[rows].argmin()]]] = -1
    return found


def check_rigid(matrix: np.ndarray, what: str) -> np.ndarray:
    """Return a given `[4, 4]` transform with an exact rotation.

    Raises:
        WorldlineError: if it is not one of a rigid body.
    """
    rotation = matrix[:3, :3]
    residual = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not np.isfinite(matrix).all() or residual > _RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise WorldlineError(f"{what} is not a rigid transform: its upper left 3x3 must be a rotation matrix")
    u, _, vt = np.linalg.svd(rotation)
    exact = np.eye(4)
    exact[:3, :3], exact[:3, 3] = u @ vt, matrix[:3, 3]
    return exact


def _places(strips: list[Strip]) -> tuple[np.ndarray, np.ndarray]:
    """Return `camera_from_rig` `[C, 4, 4]` with the reference as the rig's frame, and which are given `[C]`."""
    body = strips[0].camera_from_body
    places, placed = np.repeat(np.eye(4)[None], len(strips), axis=0), np.zeros(len(strips), bool)
    placed[0] = True
    for number, strip in enumerate(strips[1:], 1):
        if body is not None and strip.camera_from_body is not None:
            places[number], placed[number] = strip.camera_from_body @ invert_rigid(body), True
    return places, placed


def _sigmas(placed: np.ndarray, given: list[float | None], otherwise: np.ndarray) -> np.ndarray:
    chosen = np.array([rest if sigma is None else sigma for sigma, rest in zip(given, otherwise, strict=True)], np.float64)
    chosen[~placed] = chosen[0] = 0.0
    return chosen


def _read_frames(
    name: str, strip: Strip, indices: np.ndarray, config: RigConfig, done: int, total: int, progress: Progress
) -> tuple[Video, tuple[int, int]]:
    """Return the chosen frames of a camera in their kept size, and the size (width, height) that they were read in."""
    frames: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []

    def take(picture: np.ndarray) -> None:
        sizes.append((picture.shape[1], picture.shape[0]))
        if sizes[-1] != sizes[0]:
            raise WorldlineError(
                f"{name}: frame {len(sizes)} of camera {strip.name} is {sizes[-1][0]}x{sizes[-1][1]} pixels and the first "
                f"{sizes[0][0]}x{sizes[0][1]}: all frames of a camera must have one size"
            )
        keep_frame(frames, resize(picture, *fitted_size(*sizes[0], config.max_side)), name)
        progress(done + len(frames), total, f"frames of {strip.name}")

    strip.read([int(index) for index in indices], take)
    return stack_frames(frames), sizes[0]
