"""What moves against the widest rigid motion of a pair of frames: from point tracks alone, before any path is known.

Several essential matrices are fitted to a pair of frames one after the other (sequential RANSAC), each to the tracks that
the ones before do not explain (MAGSAC++: Barath et al., CVPR 2020). The street is the one whose tracks cover most of the
picture: their number times the area over which they are spread. A bus may carry more tracks, but it is compact, and the
street surrounds it. A track may be explained only by a point in front of the camera: what drives away along its epipolar
line, faster than the camera, would lie behind it. (Traffic that is slower or oncoming can hide there; it is found when the
path is known.) Motions told apart by several essential matrices: Torr, "Geometric motion segmentation and model selection"
(Phil. Trans. 1998).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64
from pydantic import PositiveFloat, PositiveInt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from schemas.motion import PointTracks
from stages.label.region_masks import paint_labels


@dataclass(frozen=True)
class PairMotionConfig:
    """How rigid motions are told apart.

    Attributes:
        pair_seconds: how far apart the frames of a pair are.
        every: a pair begins at every so many frames.
        error_px: distance from the epipolar line up to which a track is explained, at 640 pixels of width and below.
        flow_share: plus this share of the track's displacement, which the tracker gets wrong.
        hypotheses: rigid motions looked for.
        max_tracks: tracks of a pair that hypotheses are fitted to.
        min_pairs: pairs in which a track must have been seen for a verdict.
        min_share: share of them in which it must move.
        neighbours: tracks around it, and
        min_agreement: the share of them that must move as well.
        link_share: moving tracks closer than this share of the image width belong together, and
        min_tracks: so many make a region.
    """

    pair_seconds: PositiveFloat = 0.5
    every: PositiveInt = 2
    error_px: PositiveFloat = 1.0
    flow_share: float = 0.01
    hypotheses: PositiveInt = 3
    max_tracks: PositiveInt = 1500
    min_pairs: PositiveInt = 2
    min_share: PositiveFloat = 0.6
    neighbours: PositiveInt = 8
    min_agreement: PositiveFloat = 0.6
    link_share: PositiveFloat = 0.05
    min_tracks: PositiveInt = 15


def spread_area(xy_px: Float64[np.ndarray, "N 2"]) -> float:
    """Return the number of points times the area of their spread (square root of the covariance's determinant), in pixels."""
    return len(xy_px) * float(np.sqrt(max(np.linalg.det(np.cov(xy_px.T)), 0.0))) if len(xy_px) >= 3 else 0.0


def moving_regions_of_pairs(
    point_tracks: PointTracks, xy_px: np.ndarray, K: np.ndarray, size: tuple[int, int], config: PairMotionConfig
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Yield per frame, at half resolution, the regions of the tracks that move against the street in most of their pairs.

    Args:
        point_tracks: of the clip.
        xy_px: their positions `[N, T, 2]` without lens distortion.
        K: pinhole matrix.
        size: width and height of the clip.
        config: thresholds.
    """
    visible = point_tracks.visible
    frame_count = visible.shape[1]
    gap = max(1, min(frame_count - 1, round(config.pair_seconds / float(np.median(np.diff(point_tracks.times_s))))))
    moved, tested = np.zeros((2, len(visible)), np.int64)
    for frame in range(0, frame_count - gap, config.every):
        both = np.flatnonzero(visible[:, frame] & visible[:, frame + gap])
        if len(both) >= 50:
            first, second = (xy_px[both, index].astype(np.float64) for index in (frame, frame + gap))
            tested[both] += 1
            moved[both] += ~explained_by_street(first, second, K, config.error_px * max(size[0], 640) / 640, config)
    judged = tested >= config.min_pairs
    moving = judged & (moved >= config.min_share * tested)
    for frame in range(frame_count):
        seen = np.flatnonzero(visible[:, frame] & judged)
        position = point_tracks.xy_px[seen, frame].astype(np.float64)
        yield paint_moving(position, moving[seen], size, config)


def paint_moving(
    xy_px: Float64[np.ndarray, "N 2"], moving: Bool[np.ndarray, " N"], size: tuple[int, int], config: PairMotionConfig
) -> Bool[np.ndarray, "h w"]:
    """Return, at half resolution, the regions that moving tracks fill among the others of a frame; scattered ones fill none."""
    return paint_labels(xy_px, _regions(xy_px, moving, size[0], config), size, 0.5, 6.0) > 0


def _regions(xy_px: np.ndarray, moving: np.ndarray, width: int, config: PairMotionConfig) -> np.ndarray:
    """Number the regions, 0 for what stands still or is scattered."""
    label = np.zeros(len(xy_px), np.int64)
    if moving.sum() < config.min_tracks:
        return label
    _, near = cKDTree(xy_px).query(xy_px, min(config.neighbours + 1, len(xy_px)))
    rows = np.flatnonzero(moving & (moving[near].mean(axis=1) >= config.min_agreement))
    pairs = (
        cKDTree(xy_px[rows]).query_pairs(config.link_share * width, output_type="ndarray") if len(rows) else np.zeros((0, 2), int)
    )
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(rows), len(rows)))
    _, part = connected_components(graph, directed=False)
    label[rows] = np.where(np.bincount(part)[part] >= config.min_tracks, part + 1, 0)
    return label


def explained_by_street(
    first: Float64[np.ndarray, "N 2"],
    second: Float64[np.ndarray, "N 2"],
    K: np.ndarray,
    error_px: float,
    config: PairMotionConfig,
) -> Bool[np.ndarray, " N"]:
    """Return which tracks of a pair of frames the widest rigid motion explains; all where none was found."""
    best, best_area = np.ones(len(first), bool), 0.0
    left = np.ones(len(first), bool)
    limit = error_px + config.flow_share * np.linalg.norm(second - first, axis=1)
    for _ in range(config.hypotheses):
        rows = np.flatnonzero(left)
        if len(rows) < 30:
            break
        rows = rows[:: -(-len(rows) // config.max_tracks)]
        essential, inliers = cv2.findEssentialMat(first[rows], second[rows], K, cv2.USAC_MAGSAC, 0.999, error_px, 1000)
        if essential is None or essential.shape[0] < 3:
            break
        _, rotation, translation, _, _ = cv2.recoverPose(
            essential[:3], first[rows], second[rows], K, distanceThresh=1e9, mask=inliers.copy()
        )
        across, along = flow_of_translation(first, second, K, rotation, translation[:, 0])
        explained = (np.abs(across) < limit) & (along > -limit)
        if (area := spread_area(second[explained])) > best_area:
            best, best_area = explained, area
        left &= np.abs(across) > 1.5 * limit
    return best


def flow_of_translation(
    first: Float64[np.ndarray, "N 2"],
    second: Float64[np.ndarray, "N 2"],
    K: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Return the flow that the rotation leaves, in pixels: across the epipolar line, and along it towards nearer points."""
    inverse, ones = np.linalg.inv(K), np.ones((len(first), 1))
    rays = np.hstack([first, ones]) @ inverse.T @ rotation.T
    far = rays[:, :2] / rays[:, 2:]
    flow = ((np.hstack([second, ones]) @ inverse.T)[:, :2] - far) * K[0, 0]
    # a point at inverse depth r is seen at (far + r t) / (1 + r t_z): it leaves `far` in this direction
    direction = translation[:2] - translation[2] * far
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    return flow[:, 0] * direction[:, 1] - flow[:, 1] * direction[:, 0], np.einsum("na,na->n", flow, direction)
