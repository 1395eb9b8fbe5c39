"""Moving regions without learned weights: which tracked points cannot be fixed points of the scene, grouped into objects.

Per frame, every point track is tested against the static hypothesis over a window of frames (`motion_hypotheses`);
tracks that fail in most of their frames are grouped into objects with an identity over time (`motion_groups`) and
painted into label masks (`region_masks`). With a fixed camera the same test reduces to "does the point move".
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from pydantic import PositiveFloat

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import Masks, PointTracks
from stages.contract import Progress, no_progress, stage
from stages.label.floating import floating_points
from stages.label.motion_groups import GroupingConfig, objects_from_pieces, piece_of_points, smooth_velocities
from stages.label.motion_hypotheses import fit_static
from stages.label.object_merging import MergingConfig, merge_objects
from stages.label.region_masks import paint_labels


@dataclass(frozen=True)
class MovingRegionsConfig:
    """What counts as moving, and how finely it is drawn.

    Attributes:
        window_seconds: span of the static test around each frame.
        min_residual_px: residual below which nothing is called moving (at 960 pixels of width; scales with it).
        noise_ratio: and below this many times the frame's median residual.
        flow_share: and below this share of the track's own displacement (a drifting track on near structure).
        min_track_frames: frames in which a track must have failed the static test.
        min_moving_share: and as a share of the frames in which it was tested.
        min_floating_frames: frames in which a track must float over the road (oncoming objects).
        min_object_tracks: tracks that an object needs.
        min_object_seconds: how long it must be seen.
        min_purity: share of an object's own tracks among all that do not belong to other objects in its extent.
        min_mask_width: masks are halved in size as long as they stay at least this wide.
        reach_px: how far masks extend beyond the outermost tracked points.
        grouping: how points become objects.
        merging: which of these are one.
    """

    window_seconds: PositiveFloat = 1.2
    min_residual_px: float = 1.5
    noise_ratio: float = 3.0
    flow_share: float = 0.15
    min_track_frames: int = 4
    min_moving_share: float = 0.5
    min_floating_frames: int = 3
    min_object_tracks: int = 12
    min_object_seconds: float = 0.7
    min_purity: float = 0.77
    min_mask_width: int = 480
    reach_px: float = 6.0
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
    merging: MergingConfig = field(default_factory=MergingConfig)


@stage("label.moving_regions", version=1)
def find_moving_regions(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    point_tracks: PointTracks,
    config: MovingRegionsConfig = MovingRegionsConfig(),
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Masks:
    """Label the regions of every frame that move in the world."""
    frame_count, (width, height) = len(clip.frames), clip.size
    usable = usable_frames(path)
    objects = np.zeros(len(point_tracks.visible), np.int64)
    standing = np.zeros(len(objects), bool)
    if usable.sum() >= 3 and len(objects):
        xy_px = undistorted(point_tracks.xy_px, path)
        half_window = max(2, round(config.window_seconds / 2 / float(np.median(np.diff(clip.times_s)))))
        moving, standing = _moving_tracks(xy_px, point_tracks.visible, path, ground, usable, half_window, config, progress)
        objects[moving] = _objects_of_tracks(xy_px, point_tracks.visible, moving, standing, path, ground, half_window, config)
        objects = _supported_only(objects, standing, point_tracks.xy_px, point_tracks.visible, clip.times_s, config)
    scale = 1.0
    while width * scale / 2 >= config.min_mask_width:
        scale /= 2
    shape = (frame_count, round(height * scale), round(width * scale))
    labels = np.zeros(shape, np.uint16)
    for frame in range(frame_count):
        seen = np.flatnonzero(point_tracks.visible[:, frame] & (standing | (objects > 0)))
        position = point_tracks.xy_px[seen, frame].astype(np.float64)
        labels[frame] = paint_labels(position, objects[seen], clip.size, scale, config.reach_px)
        progress(frame_count + frame + 1, 2 * frame_count, "masks")
    method = "static hypothesis per point track" if usable.any() else "none: no camera path"
    return Masks(Video.from_array(labels), scale, method)


def usable_frames(path: CameraPath) -> np.ndarray:
    """Frames whose pose can be used; a fixed camera needs none and uses all."""
    return np.ones(len(path.times_s), bool) if path.verdict == "static" else path.registered


def undistorted(xy_px: np.ndarray, path: CameraPath) -> np.ndarray:
    """Return where the points would lie in the pinhole image with the same intrinsics."""
    if not path.distortion.any():
        return xy_px
    K = path.intrinsics
    flat = np.ascontiguousarray(xy_px.reshape(-1, 1, 2), np.float64)
    return cv2.undistortPoints(flat, K, path.distortion, P=K).reshape(xy_px.shape).astype(np.float32)


def _moving_tracks(
    xy_px: np.ndarray,
    visible: np.ndarray,
    path: CameraPath,
    ground: GroundPlane,
    usable: np.ndarray,
    half_window: int,
    config: MovingRegionsConfig,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the tracks that fail the static test in most of their frames, and which tracks `[N]` pass it."""
    plane = (ground.normal, ground.offset) if ground.found and path.verdict != "static" else None
    frame_count = visible.shape[1]
    tested, failed, floated = np.zeros((3, len(visible)), np.int64)
    step = max(1, half_window // 6)
    for frame in np.flatnonzero(usable):
        window = np.arange(frame - half_window // step * step, frame + half_window + 1, step)
        window = window[(window >= 0) & (window < frame_count)]
        window = window[usable[window]]
        tracks = np.flatnonzero(visible[:, frame])
        seen = visible[np.ix_(tracks, window)]
        reference = int(np.searchsorted(window, frame))
        fit = fit_static(
            xy_px[np.ix_(tracks, window)].astype(np.float64),
            seen,
            path.world_from_camera[window],
            path.intrinsics,
            reference,
            plane,
        )
        enough = fit.frames >= min(5, max(3, len(window) - 2))
        noise = float(np.median(fit.residual_px[enough])) if enough.any() else 0.0
        threshold = max(config.min_residual_px * path.width / 960, config.noise_ratio * noise)
        tested[tracks] += enough
        fails = enough & (fit.residual_px > np.maximum(threshold, config.flow_share * fit.flow_px))
        failed[tracks] += fails
        if plane is not None:
            floated[tracks] += floating_points(fit, xy_px[tracks, frame], enough & ~fails, path.width)
        progress(int(frame) + 1, 2 * frame_count, "static test")
    fails_often = (failed >= config.min_track_frames) & (failed >= config.min_moving_share * tested)
    floats_often = (floated >= config.min_floating_frames) & (failed + floated >= 0.7 * config.min_moving_share * tested)
    moving = fails_often | floats_often
    standing = ~moving & (tested >= 3) & (failed + floated <= 0.3 * tested)
    return np.flatnonzero(moving), standing


def _objects_of_tracks(
    all_xy_px: np.ndarray,
    all_visible: np.ndarray,
    moving: np.ndarray,
    standing: np.ndarray,
    path: CameraPath,
    ground: GroundPlane,
    half_window: int,
    config: MovingRegionsConfig,
) -> np.ndarray:
    """Object of each moving track, 0 for none."""
    xy_px, visible = all_xy_px[moving], all_visible[moving]
    static_px = [all_xy_px[standing & all_visible[:, frame], frame] for frame in range(visible.shape[1])]
    velocity = smooth_velocities(xy_px, visible, max(1, half_window // 2))
    pieces = np.full(visible.shape, -1, np.int64)
    below = np.zeros(visible.shape) if ground.found else None
    for frame in range(visible.shape[1]):
        here = np.flatnonzero(visible[:, frame])
        position = xy_px[here, frame]
        rows = None
        if below is not None:
            below[here, frame] = rows = rows_below_horizon(position, path, ground, frame)
        pieces[here, frame] = piece_of_points(position, velocity[here, frame], rows, path.width, config.grouping)
    objects = objects_from_pieces(pieces, config.grouping)
    return merge_objects(objects, xy_px, visible, below, static_px, path.width, config.merging, config.min_object_tracks // 2)


def rows_below_horizon(xy_px: np.ndarray, path: CameraPath, ground: GroundPlane, frame: int) -> np.ndarray:
    """Return the distance in pixels of points under the horizon of the ground plane, negative above it."""
    world_from_camera = path.world_from_camera[frame]
    normal = ground.normal @ world_from_camera[:3, :3] @ np.linalg.inv(path.intrinsics)
    return -(normal[0] * xy_px[:, 0] + normal[1] * xy_px[:, 1] + normal[2]) / float(np.linalg.norm(normal[:2]))


def _supported_only(
    objects: np.ndarray,
    standing: np.ndarray,
    xy_px: np.ndarray,
    visible: np.ndarray,
    times_s: np.ndarray,
    config: MovingRegionsConfig,
) -> np.ndarray:
    """Number the objects with enough support from 1, by first appearance; the others become 0.

    An object fills its extent with tracks of its own. What slides along the edges of standing things (occlusion
    corners, reflections, wires) has points that stand still among its own.
    """
    kept: list[tuple[int, int]] = []
    for name in np.unique(objects[objects > 0]):
        own = np.flatnonzero(objects == name)
        frames = np.flatnonzero(visible[own].sum(axis=0) >= 4)
        if len(own) < config.min_object_tracks or not len(frames):
            continue
        if times_s[frames[-1]] - times_s[frames[0]] < config.min_object_seconds:
            continue
        purity = [_purity(own, standing, frame, xy_px, visible) for frame in frames.tolist()]
        if np.median(purity) >= config.min_purity:
            kept.append((int(frames[0]), int(name)))
    renamed = np.zeros_like(objects)
    for index, (_, name) in enumerate(sorted(kept), start=1):
        renamed[objects == name] = index
    return renamed


def _purity(own: np.ndarray, standing: np.ndarray, frame: int, xy_px: np.ndarray, visible: np.ndarray) -> float:
    """Share of an object's own tracks among its own and the standing ones in its extent (5th to 95th percentile)."""
    here = xy_px[own[visible[own, frame]], frame]
    others = xy_px[standing & visible[:, frame], frame]
    low, high = np.percentile(here, (5, 95), axis=0)
    mine, foreign = (int(((xy >= low) & (xy <= high)).all(axis=1).sum()) for xy in (here, others))
    return mine / max(mine + foreign, 1)
