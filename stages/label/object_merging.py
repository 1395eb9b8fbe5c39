"""Pieces of one object that its texture does not connect: merged where they move as one body and stand at one place.

Two groups of tracks are one object if, over their common frames, the similarity fitted to the larger one also carries
the smaller one, they are not farther apart than a vehicle is wide with nothing static seen between them, and they do
not stand side by side on the road at different ranges. The last does not part a higher piece that, were its lower edge
on the road, would be too narrow for anything that moves like its neighbour: it hangs on the neighbour's side and has no
ground contact of its own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64


@dataclass(frozen=True)
class MergingConfig:
    """When two groups are one object.

    Attributes:
        step_frames: motion is compared over so many frames.
        residual_px: the larger group's motion must carry the smaller one to within this (at 960 pixels of width),
        residual_share: plus this share of the displacement.
        gap_heights: largest gap between the groups, in heights of the camera at their range.
        contact_jump: groups side by side whose ranges differ by this natural logarithm are two objects,
        jump_residual: unless the motion fits to this share of the allowed residual,
        hanging_residual: or the higher one hangs on the lower one and the motion fits to this share.
        hanging_width: a hanging piece is narrower, at its own range, than this many heights of the camera,
        united_width: and the two together are no wider than this many, at the range of the lower one.
        min_common_frames: frames that they must be seen together.
        min_comparable_share: share of these in which enough tracks last for their motion to be compared.
        agree_share: share of these frames in which all of this must hold,
        narrow_agree_share: and if the two together are narrower than `hanging_width` (walkers are not rigid).
    """

    step_frames: int = 10
    residual_px: float = 2.0
    residual_share: float = 0.12
    gap_heights: float = 0.6
    contact_jump: float = 0.25
    jump_residual: float = 0.125
    hanging_residual: float = 0.75
    hanging_width: float = 0.75
    united_width: float = 1.7
    min_common_frames: int = 6
    min_comparable_share: float = 0.3
    agree_share: float = 0.6
    narrow_agree_share: float = 0.7


@dataclass(frozen=True)
class _Group:
    """Tracks of one group and their extent in every frame (5th to 95th percentile; NaN with fewer than 3 points)."""

    tracks: np.ndarray
    low: np.ndarray
    high: np.ndarray
    contact: np.ndarray


def merge_objects(
    objects: Int64[np.ndarray, " N"],
    xy_px: Float32[np.ndarray, "N T 2"],
    visible: Bool[np.ndarray, "N T"],
    below_horizon_px: Float64[np.ndarray, "N T"] | None,
    static_px: list[np.ndarray],
    width: int,
    config: MergingConfig,
    min_tracks: int,
) -> Int64[np.ndarray, " N"]:
    """Return the objects after merging; larger ones absorb smaller ones, smallest first.

    Args:
        objects: object of each track, 0 for none.
        xy_px: positions.
        visible: where they exist.
        below_horizon_px: rows under the horizon, or None where there is no ground (gaps are then measured in the
            groups' own heights).
        static_px: positions of the points that stand still, by frame.
        width: of the image.
        config: thresholds.
        min_tracks: smaller groups are not compared.
    """
    merged = objects.copy()
    names, sizes = np.unique(objects[objects > 0], return_counts=True)
    kept = [int(name) for name in names[np.argsort(-sizes, kind="stable")] if (objects == name).sum() >= min_tracks]
    groups = {name: _describe(merged == name, xy_px, visible, below_horizon_px) for name in kept}
    for _ in range(2):
        for position, small in reversed(list(enumerate(kept))):
            scores = [
                (_agreement(groups[large], groups[small], xy_px, visible, static_px, width, config), -rank, large)
                for rank, large in enumerate(kept[:position])
            ]
            best = max(scores, default=(0.0, 0, 0))
            if best[0] >= config.agree_share:
                merged[merged == small] = best[2]
                groups[best[2]] = _describe(merged == best[2], xy_px, visible, below_horizon_px)
                kept.remove(small)
    return merged


def _describe(members: np.ndarray, xy_px: np.ndarray, visible: np.ndarray, below_horizon_px: np.ndarray | None) -> _Group:
    tracks = np.flatnonzero(members)
    frames = visible.shape[1]
    low, high, contact = np.full((frames, 2), np.nan), np.full((frames, 2), np.nan), np.full(frames, np.nan)
    for frame in range(frames):
        here = tracks[visible[tracks, frame]]
        if len(here) < 3:
            continue
        low[frame], high[frame] = np.percentile(xy_px[here, frame], (5, 95), axis=0)
        if below_horizon_px is not None:
            contact[frame] = max(float(np.percentile(below_horizon_px[here, frame], 95)), 4.0)
    return _Group(tracks, low, high, contact)


def _agreement(
    large: _Group,
    small: _Group,
    xy_px: np.ndarray,
    visible: np.ndarray,
    static_px: list[np.ndarray],
    width: int,
    config: MergingConfig,
) -> float:
    """Share of the common frames in which two groups look like one object; 0 with too few common frames."""
    common = np.flatnonzero(np.isfinite(large.low[:, 0]) & np.isfinite(small.low[:, 0]))
    if len(common) < config.min_common_frames:
        return 0.0
    common = common[:: max(1, len(common) // 20)]
    misfits = np.array([_misfit(large.tracks, small.tracks, frame, xy_px, visible, width, config) for frame in common.tolist()])
    comparable = np.isfinite(misfits)
    if comparable.sum() < max(3, config.min_comparable_share * len(common)):
        return 0.0
    agrees = [
        _adjacent(large, small, frame, static_px[frame], config) and misfit < _allowed_misfit(large, small, frame, config)
        for frame, misfit in zip(common[comparable].tolist(), misfits[comparable].tolist(), strict=True)
    ]
    share = float(np.mean(agrees))
    return share if share >= config.narrow_agree_share or _united_width(large, small, common) >= config.hanging_width else 0.0


def _united_width(large: _Group, small: _Group, frames: np.ndarray) -> float:
    """Median width of both groups together, in heights of the camera at the range of the lower one; infinity without ground."""
    width = np.fmax(large.high[frames, 0], small.high[frames, 0]) - np.fmin(large.low[frames, 0], small.low[frames, 0])
    contact = np.fmax(large.contact[frames], small.contact[frames])
    return float(np.median(width / contact)) if np.isfinite(contact).all() else np.inf


def _allowed_misfit(large: _Group, small: _Group, frame: int, config: MergingConfig) -> float:
    """How well two groups must move together, given how they stand on the road."""
    if not _contact_jumps(large, small, frame, config):
        return 1.0
    return config.hanging_residual if _hangs(large, small, frame, config) else config.jump_residual


def _hangs(large: _Group, small: _Group, frame: int, config: MergingConfig) -> bool:
    """Whether the group with the higher lower edge is too narrow to stand there, and fits on the side of the other one."""
    higher = min(large, small, key=lambda group: float(group.contact[frame]))
    own_width = (higher.high[frame, 0] - higher.low[frame, 0]) / higher.contact[frame]
    return bool(own_width < config.hanging_width and _united_width(large, small, np.array([frame])) < config.united_width)


def _adjacent(large: _Group, small: _Group, frame: int, static_px: np.ndarray, config: MergingConfig) -> bool:
    low_a, high_a, low_b, high_b = large.low[frame], large.high[frame], small.low[frame], small.high[frame]
    gap_x, gap_y = np.maximum(np.maximum(low_a, low_b) - np.minimum(high_a, high_b), 0)
    contacts = large.contact[frame], small.contact[frame]
    known = bool(np.isfinite(contacts).all())
    unit = max(contacts) if known else max(high_a[1] - low_a[1], high_b[1] - low_b[1])
    if max(gap_x, gap_y) > config.gap_heights * unit:
        return False
    if gap_x > 0:
        left, right = min(high_a[0], high_b[0]) + 2, max(low_a[0], low_b[0]) - 2
        top, bottom = min(low_a[1], low_b[1]), max(high_a[1], high_b[1])
        x, y = static_px[:, 0], static_px[:, 1]
        if ((x > left) & (x < right) & (y > top) & (y < bottom)).sum() > 2:
            return False
    return True


def _contact_jumps(large: _Group, small: _Group, frame: int, config: MergingConfig) -> bool:
    """Whether two groups stand side by side and seem to touch the road at different ranges."""
    contacts = large.contact[frame], small.contact[frame]
    low_a, high_a, low_b, high_b = large.low[frame], large.high[frame], small.low[frame], small.high[frame]
    overlap = min(high_a[0], high_b[0]) - max(low_a[0], low_b[0])
    side_by_side = overlap < 0.5 * min(high_a[0] - low_a[0], high_b[0] - low_b[0])
    return bool(np.isfinite(contacts).all() and side_by_side and abs(np.log(contacts[0] / contacts[1])) > config.contact_jump)


def _misfit(
    large: np.ndarray, small: np.ndarray, frame: int, xy_px: np.ndarray, visible: np.ndarray, width: int, config: MergingConfig
) -> float:
    """How far the larger group's similarity misses the smaller one, in units of what is allowed over `step_frames`.

    Forward, or backward where the tracks end; over half or a quarter of the frames, and as much of the allowance, where
    few tracks last longer (objects that pass close by); infinity where too few tracks last even that long.
    """
    for share in (1.0, 0.5, 0.25):
        step = max(2, round(share * config.step_frames))
        for other in (frame + step, frame - step):
            if not 0 <= other < visible.shape[1]:
                continue
            a = large[visible[large, frame] & visible[large, other]]
            b = small[visible[small, frame] & visible[small, other]]
            if len(a) < 4 or len(b) < 3:
                continue
            before, after = xy_px[a, frame].astype(np.float64), xy_px[a, other].astype(np.float64)
            centre_before, centre_after = np.median(before, axis=0), np.median(after, axis=0)
            x, y = before - centre_before, after - centre_after
            scale = float((x * y).sum() / max((x * x).sum(), 1e-9))
            predicted = scale * (xy_px[b, frame] - centre_before) + centre_after
            residual = float(np.median(np.linalg.norm(xy_px[b, other] - predicted, axis=1)))
            displacement = float(np.median(np.linalg.norm(xy_px[b, other] - xy_px[b, frame], axis=1)))
            return residual / (share * config.residual_px * width / 960 + config.residual_share * displacement)
    return np.inf
