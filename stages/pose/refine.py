"""Stage `pose.refine`: the camera's path a second time, without the features that lie on what moves.

The first pass is judged by point tracks that it has not seen: could each be a fixed point of the scene (`fit_static`)? Where
the greater part of the picture contradicts it, it followed a mover (a bus that hides a third of the street, and carries
most of its texture), and what it explains is left out instead of what contradicts it. "Greater" is the number of tracks
times the area over which they are spread: a mover is compact, the street surrounds it. The same test says whether the
second pass is the better one; the truth is not asked.

Masking what moves before structure from motion, and solving twice: Bescos et al., DynaSLAM (IEEE RA-L 2018).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import PositiveFloat, PositiveInt

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks, PointTracks
from stages.contract import Progress, stage
from stages.label.motion_hypotheses import fit_static
from stages.label.moving_regions import undistorted
from stages.label.region_masks import paint_labels
from stages.pose.colmap import MAPPING, READING, ColmapConfig, guess_intrinsics, map_frames


@dataclass(frozen=True)
class RefineConfig:
    """When a second pass is worth its time, and which of the two is kept.

    Attributes:
        min_masked_share: share of the first pass's observations that must lie on what moves; with fewer it stands, because
            bundle adjustment copes with a few percent.
        grow_px: how far masks are widened, at 960 pixels of width (scales with it): descriptors look beyond their point.
        window_seconds: span of the static test around each tested frame.
        test_every: the static test looks at every so many frames.
        min_residual_px: residual up to which a track agrees with a path, at 960 pixels of width; no less than at 640.
        flow_share: or up to this share of its displacement.
        worse_by: relative increase of the mean misfit up to which the second pass is still kept.
        colmap: how the second pass reconstructs; the flow gives the settings of the first.
    """

    min_masked_share: PositiveFloat = 0.05
    grow_px: PositiveFloat = 8.0
    window_seconds: PositiveFloat = 1.2
    test_every: PositiveInt = 3
    min_residual_px: PositiveFloat = 1.5
    flow_share: PositiveFloat = 0.15
    worse_by: float = 0.05
    colmap: ColmapConfig = field(default_factory=ColmapConfig)


@dataclass(frozen=True)
class Agreement:
    """How point tracks agree with a path in the tested frames.

    Attributes:
        frame, track: `[M]` which track in which frame.
        xy_px: `[M, 2]` where it was seen.
        misfit: `[M]` residual of the best fixed point over the limit, at most 1; 1 where the frame has no pose.
    """

    frame: Int64[np.ndarray, " M"]
    track: Int64[np.ndarray, " M"]
    xy_px: Float64[np.ndarray, "M 2"]
    misfit: Float64[np.ndarray, " M"]

    @property
    def agrees(self) -> Bool[np.ndarray, " M"]:
        """Which of them can be fixed points."""
        return self.misfit < 1


@stage("pose.refine", version=1, environment_packages=("pycolmap", "opencv-python-headless"))
def refine_camera_path(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    point_tracks: PointTracks,
    config: RefineConfig,
    *,
    seed: int,
    progress: Progress,
) -> tuple[CameraPath, PointCloud]:
    """Solve the path again without what moves, and return the better pass.

    Args:
        clip: the frames.
        path: of `pose.colmap`, in a frame of its own.
        points: made with it.
        masks: what moves, by the first pass or by a learned segmenter.
        point_tracks: of the clip.
        config: limits.
        seed: of COLMAP.
        progress: gets the steps of the second pass.

    Returns:
        The second pass where there was one and it is not worse; else path and points as they are.
    """
    if path.verdict not in ("moving", "failed") or not len(point_tracks.visible):
        return path, points
    tested = np.arange(0, len(clip.frames), config.test_every)
    first = judge_tracks(path, point_tracks, tested, config)
    followed_mover = explained_area(first, first.agrees) < explained_area(first, ~first.agrees) and path.registered.any()
    if followed_mover:
        everywhere = judge_tracks(path, point_tracks, np.arange(len(clip.frames)), config)
        ignored = list(grown(agreeing_regions(everywhere, clip), clip.size, config.grow_px))
    else:
        ignored = list(grown((np.asarray(labels) > 0 for labels in masks.labels), clip.size, config.grow_px))
        if masked_share(points, ignored) < config.min_masked_share:
            return path, points
    intrinsics = clip.intrinsics if clip.intrinsics is not None else guess_intrinsics(clip.size, config.colmap.focal_guess)
    refined, cloud = map_frames(
        clip, intrinsics, config.colmap, seed, lambda done, note: progress(done, READING + MAPPING, note), ignored
    )
    second = judge_tracks(refined, point_tracks, tested, config)
    if followed_mover:
        better = explained_area(second, second.agrees) > explained_area(first, first.agrees)
    else:
        better = misfit_outside(second, ignored) <= (1 + config.worse_by) * misfit_outside(first, ignored)
    return (refined, cloud) if better else (path, points)


def judge_tracks(path: CameraPath, point_tracks: PointTracks, frames: np.ndarray, config: RefineConfig) -> Agreement:
    """Test whether tracks can be fixed points of the scene, in some frames; see `Agreement`."""
    xy_px, visible = undistorted(point_tracks.xy_px, path), point_tracks.visible
    half = max(2, round(config.window_seconds / 2 / float(np.median(np.diff(path.times_s)))))
    step = max(1, half // 6)
    limit_px = config.min_residual_px * max(path.width, 640) / 960
    rows: list[tuple[np.ndarray, ...]] = []
    for frame in frames.tolist():
        window = np.arange(frame - half // step * step, frame + half + 1, step)
        window = window[(window >= 0) & (window < len(path.times_s))]
        tracks = np.flatnonzero(visible[:, frame])
        tracks = tracks[visible[np.ix_(tracks, window)].sum(axis=1) >= min(5, len(window))]
        posed = window[path.registered[window]]
        misfit = np.ones(len(tracks))
        if path.registered[frame] and len(posed) >= 3 and len(tracks):
            fit = fit_static(
                xy_px[np.ix_(tracks, posed)].astype(np.float64),
                visible[np.ix_(tracks, posed)],
                path.world_from_camera[posed],
                path.intrinsics,
                int(np.searchsorted(posed, frame)),
                None,
            )
            misfit = np.minimum(fit.residual_px / np.maximum(limit_px, config.flow_share * fit.flow_px), 1.0)
        rows.append((np.full(len(tracks), frame), tracks, point_tracks.xy_px[tracks, frame].astype(np.float64), misfit))
    frame_of, track, xy, misfits = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Agreement(frame_of, track, xy, misfits)


def explained_area(agreement: Agreement, chosen: Bool[np.ndarray, " M"]) -> float:
    """Return the sum over frames of the number of chosen tracks times the area of their spread, in pixels."""
    total = 0.0
    for frame in np.unique(agreement.frame):
        xy = agreement.xy_px[chosen & (agreement.frame == frame)]
        if len(xy) >= 3:
            total += len(xy) * float(np.sqrt(max(np.linalg.det(np.cov(xy.T)), 0.0)))
    return total


def misfit_outside(agreement: Agreement, ignored: list[np.ndarray]) -> float:
    """Return the mean misfit of the tracks that do not lie in the masks; 1 where there are none."""
    outside = ~_inside(agreement.frame, agreement.xy_px, ignored)
    return float(agreement.misfit[outside].mean()) if outside.any() else 1.0


def masked_share(points: PointCloud, ignored: list[np.ndarray]) -> float:
    """Return the share of observations in the masks; of the pixels where there are no observations."""
    if not len(points.observation_point):
        return float(np.mean([mask.mean() for mask in ignored]))
    return float(_inside(points.observation_frame, points.observation_xy_px, ignored).mean())


def _inside(frame: np.ndarray, xy_px: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    height, width = masks[0].shape
    column = np.clip(xy_px[:, 0].astype(int), 0, width - 1)
    row = np.clip(xy_px[:, 1].astype(int), 0, height - 1)
    inside = np.zeros(len(frame), bool)
    for index, mask in enumerate(masks):
        here = frame == index
        inside[here] = mask[row[here], column[here]]
    return inside


def agreeing_regions(agreement: Agreement, clip: Clip) -> Iterator[np.ndarray]:
    """Yield the regions whose tracks agree with the path, frame by frame, bool at half resolution."""
    for frame in range(len(clip.frames)):
        here = agreement.frame == frame
        yield paint_labels(agreement.xy_px[here], agreement.agrees[here].astype(np.int64), clip.size, 0.5, 6.0) > 0


def grown(masks: Iterator[np.ndarray], size: tuple[int, int], grow_px: float) -> Iterator[np.ndarray]:
    """Yield masks at the clip's size, widened on all sides by `grow_px` at 960 pixels of width."""
    side = 1 + 2 * round(grow_px * size[0] / 960)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    for mask in masks:
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        yield cv2.dilate(whole, kernel) > 0
