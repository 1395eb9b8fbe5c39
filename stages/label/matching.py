"""Which true object each estimated track follows, and where the true objects are on a time grid."""

from dataclasses import dataclass

import numpy as np

from schemas.tracks import Tracks, Truth
from worldline.kinematics.definitions import box_iou

_BOX = ("x0_px", "y0_px", "x1_px", "y1_px")
_ROWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Match:
    """Estimated tracks against true objects.

    Attributes:
        track_ids: `[N]` estimated tracks.
        truth_ids: `[N]` true object of each, -1 where there is none.
        judged: `[N]` whether the track has samples in annotated frames.
    """

    track_ids: np.ndarray
    truth_ids: np.ndarray
    judged: np.ndarray


@dataclass(frozen=True)
class TrueMotion:
    """True objects and the camera (id 0) on a time grid.

    Attributes:
        ids: `[N]` sorted.
        grid: `[G]` seconds.
        positions: `[N, G, 3]` NaN where an object is not annotated within 0.6 s on both sides.
    """

    ids: np.ndarray
    grid: np.ndarray
    positions: np.ndarray


def match_tracks(tracks: Tracks, truth: Truth, min_iou: float, min_share: float) -> Match:
    """Match each track to the true object whose box it meets in most of its annotated frames.

    A frame counts if the boxes overlap by `min_iou`, or the track's centre lies inside the true box and neither box is
    more than four times as large as the other (a mask seldom fills the projected cuboid). One true object may be
    followed by several tracks, one after the other.

    Args:
        tracks: estimated tracks with boxes in pixels.
        truth: true boxes of the same frames.
        min_iou: overlap that counts.
        min_share: share of a track's annotated samples that must count.
    """
    ids = tracks.objects["track_id"].to_numpy().astype(np.int64)
    frame = tracks.samples["frame"].to_numpy().astype(np.int64)
    row = np.searchsorted(ids, tracks.samples["track_id"].to_numpy().astype(np.int64))
    boxes = np.stack([tracks.samples[name].to_numpy() for name in _BOX], -1).astype(float)
    usable = np.isfinite(boxes).all(1) & truth.annotated[frame]
    row, frame, boxes = row[usable], frame[usable], boxes[usable]
    seen = np.stack([truth.boxes[name].to_numpy() for name in _BOX], -1).astype(float)
    known = np.isfinite(seen).all(1)
    true_id = truth.boxes["track_id"].to_numpy().astype(np.int64)[known]
    true_frame, seen = truth.boxes["frame"].to_numpy().astype(np.int64)[known], seen[known]
    order = np.argsort(true_frame, kind="stable")
    low = np.searchsorted(true_frame[order], frame)
    count = np.searchsorted(true_frame[order], frame, side="right") - low
    query = np.repeat(np.arange(len(frame)), count)
    other = order[np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)]
    hit = np.zeros(len(query))
    for begin in range(0, len(query), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        mine, true = boxes[query[part]], seen[other[part]]
        overlap = box_iou(mine, true)
        centre = (mine[:, :2] + mine[:, 2:]) / 2
        inside = ((centre >= true[:, :2]) & (centre <= true[:, 2:])).all(1)
        sizes = (mine[:, 2:] - mine[:, :2]).prod(1), (true[:, 2:] - true[:, :2]).prod(1)
        alike = np.maximum(*sizes) <= 4 * np.minimum(*sizes)
        hit[part] = np.where((overlap >= min_iou) | (inside & alike), 1.0 + overlap, 0.0)
    names, column = np.unique(true_id, return_inverse=True)
    votes = np.zeros((len(ids), len(names) + 1))
    score = np.zeros_like(votes)
    np.add.at(votes, (row[query], column[other]), hit > 0)
    np.add.at(score, (row[query], column[other]), hit)
    samples = np.bincount(row, minlength=len(ids))
    best = score.argmax(1)
    good = (votes[np.arange(len(ids)), best] >= min_share * np.maximum(samples, 1)) & (samples > 0)
    matched = np.where(good, np.append(names, -1)[best], -1) if len(ids) else np.zeros(0, int)
    return Match(ids, matched, samples > 0)


def true_motion(truth: Truth, times_s: np.ndarray, grid: np.ndarray, max_gap_s: float = 0.6) -> TrueMotion:
    """Interpolate true positions linearly at grid times; the camera is object 0.

    Args:
        truth: boxes and camera poses.
        times_s: `[T]` of the frames.
        grid: `[G]` seconds.
        max_gap_s: nothing is interpolated across longer gaps between annotations.
    """
    boxes = truth.boxes
    object_id = boxes["track_id"].to_numpy().astype(np.int64)
    time = boxes["time_s"].to_numpy()
    place = np.stack([boxes[name].to_numpy() for name in "xyz"], -1)
    if len(truth.world_from_camera) == len(times_s) and len(times_s):
        object_id = np.concatenate([np.zeros(len(times_s), np.int64), object_id])
        time = np.concatenate([times_s, time])
        place = np.concatenate([truth.world_from_camera[:, :3, 3], place])
    order = np.lexsort((time, object_id))
    object_id, time, place = object_id[order], time[order], place[order]
    ids = np.unique(object_id)
    positions = np.full((len(ids), len(grid), 3), np.nan)
    if not len(ids) or not len(grid):
        return TrueMotion(ids, grid, positions)
    # One searchsorted for all objects: shift every object's times into a range of its own.
    shift = max(np.ptp(np.concatenate([time, grid])), 1.0) + 10.0
    origin = min(time.min(), grid.min())
    key = np.searchsorted(ids, object_id) * shift + time - origin
    wanted = (np.arange(len(ids))[:, None] * shift + grid - origin).ravel()
    after = np.searchsorted(key, wanted - 1e-6)
    after = np.minimum(after, len(key) - 1)
    owner = np.repeat(np.arange(len(ids)), len(grid))
    exact = np.abs(key[after] - wanted) < 1e-5
    before = np.where(exact, after, np.maximum(after - 1, 0))
    row = np.searchsorted(ids, object_id)
    gap = key[after] - key[before]
    good = (row[after] == owner) & (row[before] == owner) & (gap <= max_gap_s) & (key[after] >= wanted - 1e-5)
    share = np.where(gap > 0, (wanted - key[before]) / np.where(gap > 0, gap, 1.0), 0.0)
    values = place[before] + np.clip(share, 0, 1)[:, None] * (place[after] - place[before])
    positions[:] = np.where(good[:, None], values, np.nan).reshape(positions.shape)
    return TrueMotion(ids, grid, positions)
