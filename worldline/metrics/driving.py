"""Measures of driving videos filmed along trajectories that nobody drove.

Novel trajectory agent IoU and novel trajectory lane IoU (NTA-IoU and NTL-IoU) are those of DriveDreamer4D (Zhao et al.,
CVPR 2025, section 4.1): are the vehicles, and the lane lines, where the annotations say that the new camera sees them?
Both ask a network of somebody's choosing, which is why this module knows none:

    a detector of vehicles is any `detect(images [T, H, W, 3] uint8) -> list of T arrays [n, 5] (x0, y0, x1, y1, score)`,
    a segmenter of lane lines any `segment(images) -> [T, H, W] bool`, and
    features, for the Frechet distance, any `features(images) -> [T, D]`.

A score is worth what its network is worth, so print beside it the score of the true frames: the ceiling.
Everything is in pixels with pixel centres at +0.5, and nothing is rounded to whole pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

Detector = Callable[[UInt8[np.ndarray, "T H W 3"]], list[np.ndarray]]
Segmenter = Callable[[UInt8[np.ndarray, "T H W 3"]], Bool[np.ndarray, "T H W"]]
Features = Callable[[UInt8[np.ndarray, "T H W 3"]], Float[np.ndarray, "T D"]]

NTA_THRESHOLD_PX = 10.0  # between centres, in an image NTA_WIDTH_PX wide
NTA_WIDTH_PX = 480.0
_NEAREST_M = 0.3  # lines are cut here, before they reach the plane of the camera
_SUBPIXEL_BITS = 4


def box_iou(first: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "N M"]:
    """Return intersection over union of every box `[N, 4]` (x0, y0, x1, y1) with every other `[M, 4]`; 0 for empty boxes."""
    first, second = np.reshape(first, (-1, 1, 4)), np.reshape(second, (1, -1, 4))
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1) for boxes in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared, dtype=np.float64), where=union > 0)


def hidden_shares(boxes: np.ndarray, ranges: np.ndarray) -> Float[np.ndarray, " N"]:
    """Return which share of each box `[N, 4]` lies behind the boxes that are nearer to the camera.

    A stand-in for visibility where nobody measured it: boxes are taken to be full, so it is somewhat too large.

    Args:
        boxes: in pixels.
        ranges: `[N]` distance of each object from the camera.
    """
    shares = np.zeros(len(boxes))
    for index, box in enumerate(np.asarray(boxes, np.float64)):
        nearer = boxes[np.asarray(ranges) < ranges[index]]
        nearer = np.concatenate([np.maximum(nearer[:, :2], box[:2]), np.minimum(nearer[:, 2:], box[2:])], axis=1)
        nearer = nearer[(nearer[:, 2] > nearer[:, 0]) & (nearer[:, 3] > nearer[:, 1])]
        if not len(nearer):
            continue
        # The union of the covering rectangles, summed over the cells that all their edges cut the box into.
        x, y = np.unique(nearer[:, 0::2]), np.unique(nearer[:, 1::2])
        wide = (nearer[:, :1] <= x[:-1]) & (nearer[:, 2:3] >= x[1:])
        tall = (nearer[:, 1:2] <= y[:-1]) & (nearer[:, 3:] >= y[1:])
        covered = (wide[:, :, None] & tall[:, None, :]).any(axis=0)
        shares[index] = (covered * np.outer(np.diff(x), np.diff(y))).sum() / np.prod(box[2:] - box[:2])
    return shares


def counted_boxes(
    boxes: np.ndarray,
    width: float,
    height: float,
    *,
    hidden: np.ndarray | None = None,
    max_hidden: float = 0.5,
    min_side_px: float = 0.0,
) -> Bool[np.ndarray, " N"]:
    """Return which boxes `[N, 4]` enter NTA-IoU; use one choice for all the methods that are compared.

    As published a box counts where it lies fully inside the image. Boxes that were cut at the border to fit into it touch
    it, and do not count. The published script counts cars that hide behind others; give `hidden` to leave those out, which
    no method can show, and `min_side_px` to leave out what the detector cannot see at this size.

    Args:
        boxes: projected boxes in pixels.
        width: of the image in pixels.
        height: of the image in pixels.
        hidden: `[N]` share of each that is hidden, such as `hidden_shares`, or 1 minus a measured visibility.
        max_hidden: the largest share that counts.
        min_side_px: the smallest shorter side that counts.
    """
    boxes = np.reshape(boxes, (-1, 4))
    inside = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < (width, height)).all(axis=1)
    large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= min_side_px
    return inside & large & (np.ones(len(boxes), bool) if hidden is None else np.asarray(hidden) <= max_hidden)


def nta_scores(boxes: np.ndarray, detections: np.ndarray, width: float) -> Float[np.ndarray, " N"]:
    """Return the score of every annotated box of one frame (DriveDreamer4D, eq. 12).

    Of all detections the one whose centre is nearest to the box's is taken: the score is their IoU if the centres are less
    than 10 px of a 480 px wide image apart, else 0. A detection may serve two boxes, as published.

    Args:
        boxes: `[N, 4]` annotated boxes in pixels.
        detections: `[M, 4 or more]` found boxes.
        width: of the image in pixels; the threshold is measured by it.
    """
    if not len(boxes) or not len(detections):
        return np.zeros(len(boxes))
    boxes, found = np.asarray(boxes, np.float64), np.asarray(detections, np.float64)[:, :4]
    away = np.linalg.norm(_centres(boxes)[:, None] - _centres(found)[None], axis=-1)
    nearest = away.argmin(axis=1)
    rows = np.arange(len(boxes))
    near = away[rows, nearest] < NTA_THRESHOLD_PX * width / NTA_WIDTH_PX
    return np.where(near, box_iou(boxes, found)[rows, nearest], 0.0)


def nta_iou(boxes: Sequence[np.ndarray], detections: Sequence[np.ndarray], width: float) -> float:
    """Return the mean score over the boxes of all frames, 0 to 1; NaN where there is no box. See `nta_scores`.

    The published figure is the mean over scenes and trajectories of this.

    Raises:
        ValueError: if the numbers of frames differ.
    """
    if len(boxes) != len(detections):
        raise ValueError(f"nta_iou needs one array of detections per frame, got {len(detections)} for {len(boxes)} frames")
    scores = np.concatenate([np.zeros(0), *(nta_scores(own, found, width) for own, found in zip(boxes, detections, strict=True))])
    return float(scores.mean()) if len(scores) else float("nan")


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def lane_thickness_px(height: int) -> int:
    """Return how thick lines are drawn: 20 px in an image of 1280 px as published, and at least 3 px."""
    return max(3, round(height / 64))


def draw_lane_lines(
    lines: Sequence[np.ndarray],
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
    *,
    farthest_m: float = 75.0,
    highest_m: float = 10.0,
) -> Bool[np.ndarray, "H W"]:
    """Draw the lines of a map as a camera sees them, whatever stands in front of them (as published).

    Every piece of a line is cut at a plane before the camera and at the farthest depth, so that none is flipped by a
    point behind the camera.

    Args:
        lines: polylines `[n, 3]` in the world, metres.
        world_from_camera: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]` of an image of this size.
        width: pixels.
        height: pixels.
        farthest_m: largest depth that is drawn.
        highest_m: pieces that begin or end farther than this above or below the camera are left out.
    """
    image = np.zeros((height, width), np.uint8)
    rotation, centre = world_from_camera[:3, :3], world_from_camera[:3, 3]
    for line in lines:
        points = (np.asarray(line, np.float64) - centre) @ rotation
        start, end = points[:-1], points[1:]
        near, far = np.minimum(start[:, 2], end[:, 2]), np.maximum(start[:, 2], end[:, 2])
        level = np.maximum(np.abs(start[:, 1]), np.abs(end[:, 1])) < highest_m
        kept = level & (far > _NEAREST_M) & (near < farthest_m)
        for a, b in zip(start[kept], end[kept], strict=True):
            a, b = _cut(a, b, farthest_m), _cut(b, a, farthest_m)
            pixels = np.stack([a, b]) @ intrinsics.T
            xy = pixels[:, :2] / pixels[:, 2:] - 0.5  # OpenCV's pixel centres are whole numbers
            ends = np.rint(np.clip(xy, -30000, 30000) * 2**_SUBPIXEL_BITS).astype(int).tolist()
            cv2.line(image, ends[0], ends[1], 1, lane_thickness_px(height), shift=_SUBPIXEL_BITS)
    return image.astype(bool)


def _cut(point: np.ndarray, other: np.ndarray, farthest_m: float) -> np.ndarray:
    """Move a point along the line to another until its depth is allowed."""
    depth = np.clip(point[2], _NEAREST_M, farthest_m)
    if depth == point[2]:
        return point
    return point + (depth - point[2]) / (other[2] - point[2]) * (other - point)


class LaneScores(NamedTuple):
    """Agreement of lane masks, each 0 to 1, NaN where no frame has a lane line in either mask.

    Attributes:
        mean: IoU averaged over background and lane line, then over frames: NTL-IoU as published. The background alone
            brings it to almost 0.5, so read `lane` beside it.
        lane: IoU of the lane lines alone, averaged over frames.
        pooled_mean, pooled_lane: the same with the pixels of all frames counted together, which does not swing with
            frames that show a few pixels of line.
        frames: number of frames that count: those with a lane line in at least one mask.
    """

    mean: float
    lane: float
    pooled_mean: float
    pooled_lane: float
    frames: int


def ntl_iou(found: Bool[np.ndarray, "T H W"], drawn: Bool[np.ndarray, "T H W"]) -> LaneScores:
    """Compare the lane lines found in frames with those that the map puts there (DriveDreamer4D's NTL-IoU).

    Raises:
        ValueError: if the masks differ in shape.
    """
    if found.shape != drawn.shape:
        raise ValueError(f"ntl_iou needs masks of one shape, got {list(found.shape)} and {list(drawn.shape)}")
    both, either = (found & drawn).sum(axis=(1, 2)), (found | drawn).sum(axis=(1, 2))
    pixels = found.shape[1] * found.shape[2]
    shown = either > 0
    if not shown.any():
        unknown = float("nan")
        return LaneScores(unknown, unknown, unknown, unknown, 0)
    both, either = both[shown].astype(np.float64), either[shown].astype(np.float64)
    # Background: what neither mask marks, over what at least one of them leaves unmarked.
    clear, any_clear = pixels - either, pixels - both
    lane = both / either
    background = np.divide(clear, any_clear, out=np.ones_like(clear), where=any_clear > 0)
    pooled_lane = float(both.sum() / either.sum())
    pooled_background = float(clear.sum() / any_clear.sum()) if any_clear.sum() else 1.0
    mean = float((lane + background).mean() / 2)
    return LaneScores(mean, float(lane.mean()), (pooled_lane + pooled_background) / 2, pooled_lane, int(shown.sum()))


def frechet_distance(first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "M D"]) -> float:
    """Return the squared Frechet distance of two sets of features taken for Gaussian (Heusel et al., NeurIPS 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It is "FID" only with the pool features of InceptionV3 of the very weights
    that FID names; with other features it is a distance of their own scale, to be compared with nothing else.
    With fewer images than features the covariances are singular, and the figure is biased upwards: compare equal numbers.

    Raises:
        ValueError: if a set has fewer than two features or their sizes differ.
    """
    if len(first) < 2 or len(second) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"frechet_distance needs two or more features of one size, got {first.shape} and {second.shape}")
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    offset = first.mean(axis=0) - second.mean(axis=0)
    one, two = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    # tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2): unlike the root of
    # the product, which is not symmetric, it stays real where the covariances are singular.
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ two @ root), 0, None)).sum()
    return float(max(offset @ offset + np.trace(one) + np.trace(two) - 2 * shared, 0.0))


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_scenes(
    values: Float[np.ndarray, "S K"], figure: Callable[[np.ndarray], np.ndarray | float], *, samples: int = 10_000, seed: int = 0
) -> Interval:
    """Return a figure of several methods' means over scenes, with its 95 % interval paired by scene.

    Whole scenes are drawn with replacement (Efron 1979; the percentile interval), all methods' values of a scene together:
    frames and boxes of a scene are not independent of one another, and what is hard about a scene is hard for every method.

    Args:
        values: one row per scene, one column per method.
        figure: of the means `[..., K]`, such as `lambda m: m[..., 1] - m[..., 0]`; `gap_closed` is another.
        samples: number of draws.
        seed: of the draws.
    """
    values = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(values), (samples, len(values)))
    drawn = np.asarray(figure(values[chosen].mean(axis=1)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(figure(values.mean(axis=0))), float(low), float(high))


def gap_closed(means: Float[np.ndarray, "... 3"]) -> np.ndarray:
    """Return which share of the way from the first method to the third (an oracle) the second goes; NaN without a gap."""
    gap = means[..., 2] - means[..., 0]
    return np.divide(means[..., 1] - means[..., 0], gap, out=np.full_like(gap, np.nan), where=gap != 0)
