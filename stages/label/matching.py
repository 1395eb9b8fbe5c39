"""Which true object each estimated track follows, and where the true objects are on a time grid."""

from dataclasses import dataclass

import numpy as np

from schemas.cameras import CameraPath
from schemas.labels import Kinematics
from schemas.tracks import Tracks, Truth
from worldline.kinematics.definitions import box_iou, cumulative_path

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


def motion_on_grid(kinematics: Kinematics, path: CameraPath, truth: Truth) -> TrueMotion:
    """Return where the true objects and the camera are at the grid times of estimated kinematics."""
    times = path.times_s
    steps = int((times[-1] - times[0]) / kinematics.grid_s + 1e-6) + 1 if len(times) else 0
    grid = (times[0] if len(times) else 0.0) + kinematics.grid_s * np.arange(steps)
    return true_motion(truth, times, grid)


def metres_per_unit(kinematics: Kinematics, path: CameraPath, truth: Truth) -> tuple[float, str]:
    """Return metres per unit of the estimate: 1 where it claims metres, else from the camera's path; NaN if unknown."""
    if kinematics.scale_source != "none":
        return 1.0, f"as told, scale from {kinematics.scale_source}"
    known = path.registered
    if path.verdict != "moving" or known.sum() < 2 or len(truth.world_from_camera) != len(known):
        return np.nan, "no scale"
    lengths = [
        np.linalg.norm(np.diff(w[known, :3, 3], axis=0), axis=1).sum() for w in (truth.world_from_camera, path.world_from_camera)
    ]
    return (
        lengths[0] / lengths[1] if lengths[1] > 0 else np.nan
    ), "without scale of its own: camera path scaled to its true length"


def true_samples(tracks: Tracks, match: Match, truth: Truth) -> np.ndarray:
    """Return for each sample of the tracks the row in `truth.boxes` of its true object in the same frame, `[M]`, -1 for none."""
    frame = tracks.samples["frame"].to_numpy().astype(np.int64)
    owner = match.truth_ids[np.searchsorted(match.track_ids, tracks.samples["track_id"].to_numpy().astype(np.int64))]
    boxes, frames = truth.boxes, max(int(frame.max(initial=0)), len(truth.annotated)) + 1
    key = boxes["track_id"].to_numpy().astype(np.int64) * frames + boxes["frame"].to_numpy()
    if not len(key):
        return np.full(len(frame), -1)
    order = np.argsort(key, kind="stable")
    wanted = owner * frames + frame
    index = order[np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)]
    return np.where((owner >= 0) & (key[index] == wanted), index, -1)


def window_truth(
    start_s: np.ndarray, end_s: np.ndarray, truth_id: np.ndarray, motion: TrueMotion
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return true path length `[K]` of each window (NaN where not annotated throughout), and its row and grid indices."""
    if not len(motion.ids) or not len(motion.grid):
        nothing = np.zeros(len(start_s), int)
        return np.full(len(start_s), np.nan), nothing, nothing, nothing
    row = np.minimum(np.searchsorted(motion.ids, truth_id), len(motion.ids) - 1)
    first, last = (np.abs(motion.grid - times[:, None]).argmin(1) for times in (start_s, end_s))
    path = cumulative_path(motion.positions)
    absent = np.concatenate([np.zeros((len(path), 1)), np.cumsum(np.isnan(motion.positions[..., 0]), axis=1)], axis=1)
    whole = (absent[row, last + 1] - absent[row, first] == 0) & (motion.ids[row] == truth_id)
    return np.where(whole, path[row, last] - path[row, first], np.nan), row, first, last


def owners_of(track_ids: np.ndarray, match: Match) -> np.ndarray:
    """Return the true object of each track id; the camera (0) is itself, and -1 is none."""
    ids = np.concatenate([[0], match.track_ids])
    owners = np.concatenate([[0], match.truth_ids])
    index = np.minimum(np.searchsorted(ids, track_ids), len(ids) - 1)
    return np.where(ids[index] == track_ids, owners[index], -1)
