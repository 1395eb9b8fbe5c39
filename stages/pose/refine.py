"""Stage `pose.refine`: the camera's path a second time, without the features that lie on what moves.

Whether a pass can be believed is told by point tracks: could each be a fixed point of the scene (`fit_static`)? Where a mover
took the first pass along (a bus that hides a third of the street carries most of its texture), the street contradicts it,
and the masks found with it are wrong. Then what moves is first taken from the tracks alone (`pair_motion`), and once more,
more exactly, from the path that was solved without it; the path that the tracks contradict least is kept. Where the first
pass can be believed, the masks found with it are enough, and where they hide little it stands. The truth is never asked.

Masking what moves before structure from motion, and solving twice: Bescos et al., DynaSLAM (IEEE RA-L 2018).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

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
from stages.pose.colmap import MAPPING, READING, ColmapConfig, map_frames
from stages.pose.pair_motion import PairMotionConfig, moving_regions_of_pairs, paint_moving
from stages.pose.segment import SEGMENTED


@dataclass(frozen=True)
class RefineConfig:
    """When a second pass is worth its time, and which of the two is kept.

    Attributes:
        max_contradiction: share of the tracks of a frame, outside what moves by pairs of frames, that may contradict a path
            which can be believed there.
        max_doubtful_share: share of frames in which it need not be believed.
        min_masked_share: share of the first pass's observations that must lie on what moves; with fewer it stands, because
            bundle adjustment copes with a few percent.
        grow_px: how far masks are widened, at 960 pixels of width (scales with it): descriptors look beyond their point.
        window_seconds: span of the static test around each tested frame.
        test_every: a path is judged in every so many frames,
        test_tracks: by at most so many tracks in each.
        min_residual_px: residual up to which a track agrees with a path, at 960 pixels of width; no less than at 640.
        flow_share: or up to this share of its displacement.
        worse_by: relative increase of the mean misfit up to which the second pass is still kept, where the first is believed.
        pairs: how rigid motions are told apart before a path is known.
        colmap: how the second pass reconstructs; the recipe gives it the settings of the first.
    """

    max_contradiction: PositiveFloat = 0.4
    max_doubtful_share: PositiveFloat = 0.1
    min_masked_share: PositiveFloat = 0.05
    grow_px: PositiveFloat = 12.0
    window_seconds: PositiveFloat = 1.2
    test_every: PositiveInt = 3
    test_tracks: PositiveInt = 1500
    min_residual_px: PositiveFloat = 1.5
    flow_share: PositiveFloat = 0.15
    worse_by: float = 0.05
    pairs: PairMotionConfig = field(default_factory=PairMotionConfig)
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
    xy_px = undistorted(point_tracks.xy_px, path)
    by_pairs = list(moving_regions_of_pairs(point_tracks, xy_px, path.intrinsics, clip.size, config.pairs))
    street = list(grown(by_pairs, clip.size, config.grow_px))
    tested = np.arange(0, len(clip.frames), config.test_every)

    def judge(one: CameraPath) -> Agreement:
        return judge_tracks(one, point_tracks, tested, config, config.test_tracks)

    def is_doubted(one: CameraPath) -> bool:
        return float(doubtful_frames(judge(one), street, config)[tested].mean()) > config.max_doubtful_share

    believed = not is_doubted(path)
    if believed:
        moving = [np.asarray(labels) > 0 for labels in masks.labels]
    else:
        by_pairs = [one | two for one, two in zip(by_pairs, segmented(masks, by_pairs), strict=True)]
        moving = by_pairs
    intrinsics = clip.intrinsics if clip.intrinsics is not None else path.intrinsics
    turns = (config.colmap,) if believed else both_mappers(config.colmap)
    for turn, colmap in enumerate(turns):
        ignored = list(grown(moving, clip.size, config.grow_px))
        if turn == 0 and masked_share(points, ignored) < config.min_masked_share:
            break
        steps = _Steps(progress, turn, len(turns))
        refined, cloud = map_frames(clip, intrinsics, colmap, seed, steps, ignored)
        allowed = 1 + config.worse_by if believed else 1.0
        if misfit_outside(judge(refined), ignored) <= allowed * misfit_outside(judge(path), ignored):
            words = ", ".join(filter(None, [refined.strategy, f"pass {turn + 2} without what moves"]))
            path, points = replace(refined, strategy=words), cloud
        if turn + 1 < len(turns):
            moving = moving_against(path, point_tracks, clip.size, by_pairs, config)
    return path, points


def both_mappers(config: ColmapConfig) -> tuple[ColmapConfig, ...]:
    """Return the config with incremental mapping, then with global mapping; twice as it is where it names one.

    Where a mover hides what is near, few points tie one half of a clip to the other, and global positioning can set the halves
    apart by any distance (measured: a leap of 18 m in a path of 25 m). Resectioning frame by frame cannot, but bears what is
    left of the mover less well.
    """
    if config.mapper != "auto":
        return config, config
    return replace(config, mapper="incremental"), replace(config, mapper="global")


@dataclass(frozen=True)
class _Steps:
    """Passes the steps of one solution on as part of all."""

    progress: Progress
    turn: int
    turns: int

    def __call__(self, done: int, note: str) -> None:
        whole = READING + MAPPING
        self.progress(self.turn * whole + done, self.turns * whole, note)


def judge_tracks(
    path: CameraPath, point_tracks: PointTracks, frames: np.ndarray, config: RefineConfig, most: int | None = None
) -> Agreement:
    """Test whether tracks (at most `most` per frame) can be fixed points of the scene, in some frames; see `Agreement`."""
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
        tracks = tracks[:: -(-len(tracks) // most)] if most and len(tracks) else tracks
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


def doubtful_frames(agreement: Agreement, moving: list[np.ndarray], config: RefineConfig) -> Bool[np.ndarray, " T"]:
    """Return the frames in which too many of the tracks outside what moves by pairs of frames contradict the path."""
    outside = ~_inside(agreement.frame, agreement.xy_px, moving)
    count = np.bincount(agreement.frame[outside], minlength=len(moving))
    contradict = np.bincount(agreement.frame[outside & ~agreement.agrees], minlength=len(moving))
    return contradict > config.max_contradiction * np.maximum(count, 1)


def segmented(masks: Masks, like: list[np.ndarray]) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Yield what a learned segmenter says may move, which holds whatever the path, at the size of `like`."""
    for labels, other in zip(masks.labels, like, strict=True):
        whole = (np.asarray(labels) == SEGMENTED).astype(np.uint8)
        yield cv2.resize(whole, other.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def moving_against(
    path: CameraPath, point_tracks: PointTracks, size: tuple[int, int], by_pairs: list[np.ndarray], config: RefineConfig
) -> list[np.ndarray]:
    """Return the regions of each frame whose tracks contradict the path; those by pairs where the path is in doubt."""
    agreement = judge_tracks(path, point_tracks, np.arange(len(by_pairs)), config)
    doubtful = doubtful_frames(agreement, list(grown(by_pairs, size, config.grow_px)), config)
    regions = list(by_pairs)
    for frame in np.flatnonzero(~doubtful):
        here = agreement.frame == frame
        if here.any():
            regions[frame] = paint_moving(agreement.xy_px[here], ~agreement.agrees[here], size, config.pairs)
    return regions


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


def grown(masks: Iterable[np.ndarray], size: tuple[int, int], grow_px: float) -> Iterator[np.ndarray]:
    """Yield masks at the clip's size, widened on all sides by `grow_px` at 960 pixels of width."""
    side = 1 + 2 * round(grow_px * size[0] / 960)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    for mask in masks:
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        yield cv2.dilate(whole, kernel) > 0
