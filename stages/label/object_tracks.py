"""Object tracks in the world from labelled regions, point tracks and the ground plane.

A mover's position is not determined by structure from motion; its contact with the road is. Per object: outlines of the
regions, tied together by the tracked points (`box_smoothing`), lower edge on the ground plane (`ground_contact`), and
from there to the middle of the footprint by half the object's extent along the viewing ray.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks, PointTracks
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.contract import Progress, no_progress, stage
from stages.label.box_smoothing import Similarities, frame_similarities, smooth_edge, unbroken_stretches
from stages.label.ground_contact import Contact, intersect_ground, steady_contact_rows
from stages.label.hidden_feet import hidden_share
from stages.label.object_appearance import class_and_size, colour_word
from stages.label.outlines import Outlines, cut_outline, measure_outlines


@dataclass(frozen=True)
class ObjectTracksConfig:
    """What is needed to keep an object, and how noisy its outline is.

    Attributes:
        min_seconds: shorter tracks are dropped.
        min_samples: so are tracks with fewer samples.
        outline_sigma_px: standard deviation of an outline's edge in one frame (at 960 pixels of width).
        painted_reach_px: `reach_px` of the moving regions: so far at most were they painted beyond the tracked points.
        break_tolerance_px: tracks that miss the others' similarity over half a second by more (at 960 too) sit on something else.
        contact_sigma_px: of the lower edge (at 960 too), where it is put beside the object's changes of scale: its errors
            (shadow, bumper, corners found beside the edge) last for many frames.
        contact_height_sigma: height of that edge over the road (bumper, sill, shoe), in heights of the camera.
        road_slope_sigma: how far the road leaves the fitted plane, in metres per metre of range.
        max_range_sigma: samples whose range is uncertain by a larger share carry no position.
        min_travel_sigmas: a region that claims to move must travel so many standard deviations over the ground,
        min_travel_heights: and so many heights of the camera; otherwise it is dropped.
    """

    min_seconds: float = 0.9
    min_samples: int = 5
    outline_sigma_px: float = 2.5
    painted_reach_px: float = 6.0
    break_tolerance_px: float = 1.5
    contact_sigma_px: float = 5.0
    contact_height_sigma: float = 0.03
    road_slope_sigma: float = 0.004
    max_range_sigma: float = 0.3
    min_travel_sigmas: float = 1.25
    min_travel_heights: float = 0.5


@stage("label.object_tracks", version=3)
def track_objects(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    ground: GroundPlane,
    point_tracks: PointTracks,
    masks: Masks,
    config: ObjectTracksConfig = ObjectTracksConfig(),
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Tracks:
    """Turn labelled regions into object tracks; positions are null where ground, pose or contact are missing."""
    regions, background = measure_outlines(clip, masks, point_tracks, config.painted_reach_px)
    outlines = _one_thing_each(regions, clip, config)
    behind = point_tracks.xy_px[background], point_tracks.visible[background]
    samples: list[dict] = []
    objects: list[dict] = []
    for done, outline in enumerate(outlines, start=1):
        rows = _track_one(outline, behind, clip, path, ground, config)
        if rows:
            samples.extend(rows[0])
            objects.append(rows[1])
        progress(done, len(outlines), "objects")
    return Tracks(
        samples=rows_to_table(TRACK_SAMPLES, samples) if samples else TRACK_SAMPLES.empty_table(),
        objects=rows_to_table(TRACK_OBJECTS, objects) if objects else TRACK_OBJECTS.empty_table(),
        origin="video",
        scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
        gravity_source=path.gravity_source,
    )


def _one_thing_each(outlines: list[Outlines], clip: Clip, config: ObjectTracksConfig) -> list[Outlines]:
    """Cut regions where they go over to something else; the longest part keeps the region's name, others get new ones."""
    parts, unused = [], max((outline.name for outline in outlines), default=0) + 1
    for outline in outlines:
        tolerance_px = config.break_tolerance_px * clip.size[0] / 960
        stretches = unbroken_stretches(outline.xy_px, outline.point_visible, _step_s(clip.times_s), tolerance_px)
        stretches.sort(key=lambda stretch: stretch.start - stretch.stop)
        for place, stretch in enumerate(stretches):
            parts.append(cut_outline(outline, outline.name if place == 0 else unused, stretch))
            unused += place > 0
    return sorted(parts, key=lambda outline: outline.name)


def _track_one(
    outline: Outlines,
    behind: tuple[np.ndarray, np.ndarray],
    clip: Clip,
    path: CameraPath,
    ground: GroundPlane,
    config: ObjectTracksConfig,
) -> tuple[list[dict], dict] | None:
    """Samples and object row of one region, or None where it has too little support."""
    seen = np.flatnonzero(outline.seen)
    times_s = clip.times_s[outline.frames]
    if len(seen) < config.min_samples or times_s[seen[-1]] - times_s[seen[0]] < config.min_seconds:
        return None
    outline_sigma_px = config.outline_sigma_px * clip.size[0] / 960
    motion = frame_similarities(outline.xy_px, outline.point_visible)
    box, sigma = _smooth_box(outline, motion, outline_sigma_px)
    hidden = hidden_share(box[seen], outline.frames[seen], *behind)
    if np.isfinite(hidden):
        hidden_px = hidden * (box[:, 3] - box[:, 1])
        box[:, 3] += hidden_px
        outline = replace(outline, edges=outline.edges + hidden_px[:, None] * [0, 0, 0, 1])
    placed = _place_on_ground(outline, box, sigma, path, ground, config) if np.isfinite(hidden) else None
    if placed is not None and not _really_moves(placed, times_s, path, ground, outline.frames, config):
        return None
    size = class_and_size(box, placed, times_s, path, outline.frames)
    width, height = clip.size
    rows = []
    for index in seen:
        x0, y0, x1, y1 = box[index]
        here = placed if placed is not None and bool(np.isfinite(placed.xyz[index]).all()) else None
        known = here is not None
        centre = size.centre[index] if known else [None] * 3
        covariance = None if here is None else here.covariance[index] + np.diag([size.centre_sigma**2, size.centre_sigma**2, 0])
        rows.append(
            {
                "track_id": outline.name,
                "frame": int(outline.frames[index]),
                "time_s": float(times_s[index]),
                **{axis: None if value is None else float(value) for axis, value in zip("xyz", centre, strict=True)},
                "cov_xx": None if covariance is None else float(covariance[0, 0]),
                "cov_xy": None if covariance is None else float(covariance[0, 1]),
                "cov_yy": None if covariance is None else float(covariance[1, 1]),
                "cov_zz": None if covariance is None else float(covariance[2, 2]),
                "range": float(np.linalg.norm(centre - path.world_from_camera[outline.frames[index], :3, 3])) if known else None,
                "length": size.length,
                "width": size.width,
                "height": size.height,
                "yaw_rad": size.yaw_rad[index] if known and np.isfinite(size.yaw_rad[index]) else None,
                "x0_px": float(np.clip(x0, 0, width)),
                "y0_px": float(np.clip(y0, 0, height)),
                "x1_px": float(np.clip(x1, 0, width)),
                "y1_px": float(np.clip(y1, 0, height)),
                "visible": float(outline.visible_share[index]),
                "touches_border": bool(x0 < 3 or y0 < 3 or x1 > width - 3 or y1 > height - 3),
            }
        )
    return rows, {
        "track_id": outline.name,
        "class_name": size.class_name,
        "colour": colour_word(outline.body_rgb, outline.road_rgb),
        "first_s": rows[0]["time_s"],
        "last_s": rows[-1]["time_s"],
        "samples": len(rows),
    }


def _smooth_box(outline: Outlines, motion: Similarities, outline_sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed `[F, 4]` box edges (x0, y0, x1, y1) and their standard deviations; measured edges where no track carries."""
    box, sigma = np.empty_like(outline.edges), np.empty_like(outline.edges)
    noise = np.full(len(outline.frames), outline_sigma_px)
    for edge in range(4):
        box[:, edge], sigma[:, edge] = smooth_edge(
            outline.edges[:, edge], noise, motion.scale, motion.shift[:, edge % 2], motion.sigma_px
        )
        if edge != 3 and not np.isfinite(box[:, edge]).any():
            # never seen free of other regions or the border: what is visible of it bounds it loosely
            box[:, edge] = outline.clipped_edges[:, edge]
            sigma[:, edge] = 0.25 * (outline.clipped_edges[:, 3] - outline.clipped_edges[:, 1])
        missing = ~np.isfinite(box[:, edge])
        box[missing, edge] = outline.clipped_edges[missing, edge]
    return box, sigma


def _place_on_ground(
    outline: Outlines,
    box: np.ndarray,
    sigma: np.ndarray,
    path: CameraPath,
    ground: GroundPlane,
    config: ObjectTracksConfig,
) -> Contact | None:
    """Ground contact of the middle of the lower edge, NaN where it is not known well enough; None without ground or poses."""
    if not ground.found or path.verdict in ("failed", "textureless"):
        return None
    frames = outline.frames
    poses = path.world_from_camera[frames]
    usable = np.isfinite(box).all(axis=1) & np.isfinite(sigma).all(axis=1)
    across = np.where(usable, (box[:, 0] + box[:, 2]) / 2, 0.0)
    measured = np.isfinite(outline.edges[:, 3])
    lowest = _pinhole(np.stack([across, np.where(measured, outline.edges[:, 3], np.nan_to_num(box[:, 3]))], axis=1), path)
    lowest[~measured, 1] = np.nan
    row, row_sigma, below_horizon = steady_contact_rows(
        lowest,
        config.contact_sigma_px * path.width / 960,
        _pinhole(outline.xy_px.astype(np.float64), path),
        outline.point_visible,
        _step_s(path.times_s),
        poses,
        path.intrinsics,
        ground.normal,
        ground.offset,
    )
    usable &= np.isfinite(row) & np.isfinite(row_sigma)
    middle = np.where(usable[:, None], np.stack([lowest[:, 0], row], axis=1), 0.0)
    height_px = config.contact_height_sigma * np.nan_to_num(below_horizon)
    spread = np.stack([np.hypot(sigma[:, 0], sigma[:, 2]) / 2, np.hypot(row_sigma, height_px)], axis=1)
    spread = np.where(usable[:, None], spread, 1.0)
    flat_range = intersect_ground(
        middle, np.ones_like(middle), poses, path.intrinsics, ground.normal, ground.offset, ground.sigma
    ).range
    slope_sigma = np.hypot(ground.sigma, config.road_slope_sigma * np.nan_to_num(flat_range))
    contact = intersect_ground(middle, spread, poses, path.intrinsics, ground.normal, ground.offset, slope_sigma)
    along = np.sqrt(np.maximum(np.linalg.eigvalsh(np.nan_to_num(contact.covariance[:, :2, :2]))[:, -1], 0))
    registered = path.registered[frames] | (path.verdict == "static")
    good = usable & registered & (along < config.max_range_sigma * np.nan_to_num(contact.range, nan=0.0))
    return Contact(np.where(good[:, None], contact.xyz, np.nan), contact.covariance, contact.range, contact.depth)


def _step_s(times_s: np.ndarray) -> float:
    """Seconds from frame to frame."""
    return float(np.median(np.diff(times_s)))


def _pinhole(xy_px: np.ndarray, path: CameraPath) -> np.ndarray:
    """Return `[..., 2]` pixels without distortion."""
    if not path.distortion.any() or not xy_px.size:
        return xy_px
    flat = cv2.undistortPoints(xy_px.reshape(-1, 1, 2), path.intrinsics, path.distortion, P=path.intrinsics)
    return np.asarray(flat.reshape(xy_px.shape), np.float64)


def _really_moves(
    placed: Contact, times_s: np.ndarray, path: CameraPath, ground: GroundPlane, frames: np.ndarray, config: ObjectTracksConfig
) -> bool:
    """Whether the object stands on the ground and its footprint travels farther than its uncertainty explains."""
    known = np.flatnonzero(np.isfinite(placed.xyz).all(axis=1))
    if len(known) < config.min_samples:
        return False
    camera_height = float(np.median(path.world_from_camera[frames, :3, 3] @ ground.normal + ground.offset))
    blocks = np.array_split(known, 5)
    place = np.array([np.median(placed.xyz[block], axis=0) for block in blocks])
    covariance = np.array([np.median(placed.covariance[block], axis=0) for block in blocks])
    for i, j in ((0, 2), (1, 3), (2, 4), (0, 3), (1, 4), (0, 4)):  # far ends of a track may be too uncertain to tell
        travel = place[j] - place[i]
        distance = float(np.linalg.norm(travel[:2]))
        direction = travel / max(distance, 1e-9)
        # errors of the contact line are shared by neighbouring frames, so each block counts once
        sigma = float(np.sqrt(direction @ (covariance[i] + covariance[j]) @ direction))
        if distance > config.min_travel_sigmas * sigma and distance > config.min_travel_heights * camera_height:
            return True
    return False
