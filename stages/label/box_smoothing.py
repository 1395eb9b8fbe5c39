"""Boxes of an object over time: noisy outlines tied together by the motion of the points tracked on the object.

The outline of a mask wanders by pixels from frame to frame; the similarity that maps the object's tracked points from
one frame to the next is good to tenths of a pixel, and for an object of fixed size its scale is the inverse ratio of
the two ranges. Each edge of the box is therefore estimated as a chain: measured by the outline where it can be seen,
carried by the similarity from frame to frame, solved for all frames at once by inverse variances with Huber weights.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

LINK_SECONDS = (0.5, 1.5)  # beside the step from each frame to the next
LEAST_LOG_SCALE = 0.004  # of the best link: what turning, and depth within the object, make of its scale
UNKNOWN_LOG_SCALE = 0.2  # of a step without enough tracks


@dataclass(frozen=True)
class Similarities:
    """Motion between consecutive frames, `x' = scale * x + shift`, for `[F-1]` steps.

    Attributes:
        scale: `[F-1]`.
        shift: `[F-1, 2]` pixels.
        sigma_px: `[F-1]` standard deviation of where the step puts a point of the object.
    """

    scale: Float64[np.ndarray, " S"]
    shift: Float64[np.ndarray, "S 2"]
    sigma_px: Float64[np.ndarray, " S"]


def frame_similarities(xy_px: np.ndarray, visible: Bool[np.ndarray, "N F"], unknown_sigma_px: float = 40.0) -> Similarities:
    """Fit scale and shift between consecutive frames to an object's tracks by trimmed least squares.

    Args:
        xy_px: `[N, F, 2]` positions of the tracks on the object.
        visible: where they were seen.
        unknown_sigma_px: standard deviation of a step without enough tracks.
    """
    steps = visible.shape[1] - 1
    scale, shift, sigma = np.ones(steps), np.zeros((steps, 2)), np.full(steps, unknown_sigma_px)
    for step in range(steps):
        both = visible[:, step] & visible[:, step + 1]
        if both.sum() < 4:
            continue
        fit = _fit_similarity(xy_px[both, step].astype(np.float64), xy_px[both, step + 1].astype(np.float64))
        factor = float(np.clip(fit.factor, 0.7, 1.4))
        scale[step], shift[step] = factor, fit.mean_after - factor * fit.mean_before
        # the residual is mostly systematic (depth within the object, turning), so more tracks do not average it out
        sigma[step] = 0.15 + 0.25 * fit.error_px
    return Similarities(scale, shift, sigma)


@dataclass(frozen=True)
class _Fit:
    """A trimmed similarity: its scale, the centres that it maps onto each other, median residual, spread and count kept."""

    factor: float
    mean_before: np.ndarray
    mean_after: np.ndarray
    error_px: float
    spread_px: float
    kept: int


def _fit_similarity(before: np.ndarray, after: np.ndarray) -> _Fit:
    kept = np.ones(len(before), bool)
    for _ in range(4):
        mean_before, mean_after = before[kept].mean(axis=0), after[kept].mean(axis=0)
        a, b = before[kept] - mean_before, after[kept] - mean_after
        factor = float((a * b).sum() / max((a * a).sum(), 1e-9))
        error = np.linalg.norm(after - (factor * (before - mean_before) + mean_after), axis=1)
        spread = float(np.sqrt((a * a).sum(axis=1).mean()))
        kept = error <= max(2.5 * float(np.median(error)), 0.1)
        if kept.sum() < 4:
            break
    return _Fit(factor, mean_before, mean_after, float(np.median(error)), spread, int(kept.sum()))


@dataclass(frozen=True)
class ScaleLinks:
    """How an object's size in the image changes between pairs of frames, `log size[later] = log size[earlier] + log_scale`.

    Attributes:
        earlier, later: `[L]` frames.
        log_scale: `[L]` natural logarithm of the ratio of sizes.
        sigma: `[L]` its standard deviation.
    """

    earlier: Int64[np.ndarray, " L"]
    later: Int64[np.ndarray, " L"]
    log_scale: Float64[np.ndarray, " L"]
    sigma: Float64[np.ndarray, " L"]


def link_frames(seconds: float, step_s: float) -> int:
    """Return how many frames of `step_s` seconds are nearest to a time, at least one."""
    return max(1, round(seconds / step_s))


def scale_links(rows_px: np.ndarray, visible: Bool[np.ndarray, "N F"], step_s: float) -> ScaleLinks:
    """Fit the change of scale from frame to frame, and between those half and one and a half seconds apart, to common tracks.

    A point h over the road is seen f (H - h) / Z rows under the horizon by a camera at height H: while h stays, its rows
    follow the inverse of its own depth Z, whatever side the object shows. Distances between points do not: the side of an
    object that passes is foreshortened by its turning to the camera, and widens by the square of the inverse depth.

    Points of the background beside the outline are dragged along by it for a few frames, and change the scale of every
    step a little, always the same way. They do not last: what the longest links are fitted to lies on the object, and where
    there is enough of it, the shorter ones are fitted to it alone.

    Args:
        rows_px: `[N, F]` how far the tracks on the object are under the horizon; negative above it.
        visible: where they were seen.
        step_s: seconds from frame to frame.
    """
    links = []
    frames = visible.shape[1]
    followed, lasted = np.zeros((2, len(visible)), np.int64)
    for gap in sorted({1, *(link_frames(seconds, step_s) for seconds in LINK_SECONDS)}, reverse=True):
        least = 4 if gap == 1 else 6
        on_object = (lasted > 0) & (2 * followed >= lasted)
        for first in range(frames - gap):
            both = np.flatnonzero(visible[:, first] & visible[:, first + gap])
            if on_object[both].sum() >= least:
                both = both[on_object[both]]
            if len(both) < least:
                continue
            factor, error_px, lever_px, kept = _fit_factor(rows_px[both, first], rows_px[both, first + gap])
            lasted[both] += 1
            followed[both[kept]] += 1
            if not factor > 0 or not lever_px > 0:
                continue
            sigma = LEAST_LOG_SCALE + (0.15 + error_px) / lever_px / np.sqrt(np.clip(kept.sum(), 1, 16))
            links.append((first, first + gap, np.log(factor), sigma))
    table = np.array(links, np.float64).reshape(-1, 4)
    return ScaleLinks(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])


def _fit_factor(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """Fit `after = factor * before` by trimmed least squares; return factor, median residual, root mean square, which follow."""
    kept = np.ones(len(before), bool)
    for _ in range(4):
        a, b = before[kept], after[kept]
        factor = float((a * b).sum() / max((a * a).sum(), 1e-9))
        lever = float(np.sqrt((a * a).mean()))
        error = np.abs(after - factor * before)
        kept = error <= max(2.5 * float(np.median(error)), 0.1)
        if kept.sum() < 4:
            break
    return factor, float(np.median(error)), lever, kept


def unbroken_stretches(
    xy_px: np.ndarray,
    visible: Bool[np.ndarray, "N F"],
    step_s: float,
    tolerance_px: float,
    min_share: float = 0.5,
    min_lasting: float = 0.25,
) -> list[slice]:
    """Return the stretches of frames in which the tracks stay on one thing, in order; all frames where nothing breaks.

    Over half a second, tracks that sit on one thing mostly last and mostly follow one similarity. Where they do not for
    half a second on end, the region went over to something else (one object passed before another).

    Args:
        xy_px: `[N, F, 2]` positions of the tracks on the region.
        visible: where they were seen.
        step_s: seconds from frame to frame.
        tolerance_px: how far a track may miss the similarity of the others, beside 5 % of how far it got and 10 % of how far
            they are spread (walkers are not rigid).
        min_share: so many must follow it, as a share of those that last,
        min_lasting: and so many must last. Fewer than 6 tracks tell nothing, and nothing is cut there.
    """
    gap, frames = link_frames(LINK_SECONDS[0], step_s), visible.shape[1]
    if frames <= gap:
        return [slice(0, frames)]
    holds = np.ones(frames - gap, bool)
    for first in range(frames - gap):
        both = visible[:, first] & visible[:, first + gap]
        count = int(visible[:, first].sum())
        if count < 6:
            continue
        holds[first] = both.sum() >= max(4, min_lasting * count)
        if holds[first]:
            before, after = xy_px[both, first].astype(np.float64), xy_px[both, first + gap].astype(np.float64)
            fit = _fit_similarity(before, after)
            miss = np.linalg.norm(after - fit.mean_after - fit.factor * (before - fit.mean_before), axis=1)
            reach = float(np.median(np.linalg.norm(after - before, axis=1)))
            holds[first] = (miss < tolerance_px + 0.05 * reach + 0.1 * fit.spread_px).mean() >= min_share
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]])))
    stretches: list[slice] = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stretches and begin < stretches[-1].stop:  # a pause of less than `gap` frames is no break
            begin = stretches.pop().start
        stretches.append(slice(begin, end + gap))
    return stretches


def steady_log_rows(
    rows_px: Float64[np.ndarray, " F"], sigma_px: float, links: ScaleLinks
) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, " F"]]:
    """Estimate in all frames the logarithm of how many rows under the horizon an object of fixed size touches the road.

    The rows are proportional to the inverse range, and so is the size. Measured rows and links are solved for together by
    inverse variances with Huber weights.

    Args:
        rows_px: measured rows, NaN where the edge was not seen.
        sigma_px: their standard deviation.
        links: changes of scale.

    Returns:
        Values and standard deviations; NaN and infinity everywhere if nothing was measured.
    """
    count = len(rows_px)
    seen = np.flatnonzero(np.isfinite(rows_px) & (rows_px > 2 * sigma_px))
    if not len(seen):
        return np.full(count, np.nan), np.full(count, np.inf)
    target, noise = np.log(rows_px[seen]), sigma_px / rows_px[seen]
    chain = np.arange(count - 1)
    first, second = np.concatenate([links.earlier, chain]), np.concatenate([links.later, chain + 1])
    step = np.concatenate([links.log_scale, np.zeros(count - 1)])
    step_sigma = np.concatenate([links.sigma, np.full(count - 1, UNKNOWN_LOG_SCALE)])
    robust, robust_step = np.ones(len(seen)), np.ones(len(step))
    for _ in range(10):
        information, vector = np.zeros((count, count)), np.zeros(count)
        weight = robust / noise**2
        information[seen, seen] = weight
        vector[seen] = weight * target
        weight = robust_step / step_sigma**2
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            np.add.at(information, (row, column), sign * weight)
        np.add.at(vector, first, -weight * step)
        np.add.at(vector, second, weight * step)
        covariance = np.linalg.inv(information)
        value = covariance @ vector
        error = np.abs(value[seen] - target) / noise
        robust = np.where(error > 1.5, 1.5 / np.maximum(error, 1e-9), 1.0)
        error = np.abs(value[second] - value[first] - step) / step_sigma
        robust_step = np.where(error > 1.5, 1.5 / np.maximum(error, 1e-9), 1.0)
    return value, np.sqrt(np.diag(covariance))


def smooth_edge(
    measured: Float64[np.ndarray, " F"],
    sigma_px: Float64[np.ndarray, " F"],
    scale: Float64[np.ndarray, " S"],
    shift: Float64[np.ndarray, " S"],
    step_sigma_px: Float64[np.ndarray, " S"],
) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, " F"]]:
    """Estimate an edge coordinate in all frames; return it with its standard deviation.

    Args:
        measured: the outline's coordinate, NaN where it cannot be seen.
        sigma_px: its standard deviation.
        scale: of the motion between consecutive frames.
        shift: along this coordinate.
        step_sigma_px: standard deviation of that motion.

    Returns:
        NaN and infinity everywhere if nothing was measured.
    """
    count = len(measured)
    seen = np.isfinite(measured)
    if not seen.any():
        return np.full(count, np.nan), np.full(count, np.inf)
    target = np.where(seen, measured, 0.0)
    base = np.where(seen, 1 / sigma_px**2, 0.0)
    robust = np.ones(count)
    step_weight = 1 / step_sigma_px**2
    rows = np.arange(count - 1)
    for _ in range(8):
        information = np.zeros((count, count))
        np.fill_diagonal(information, base * robust)
        vector = base * robust * target
        # (x' - scale x - shift)^2 / sigma^2
        information[rows, rows] += step_weight * scale**2
        information[rows + 1, rows + 1] += step_weight
        information[rows, rows + 1] -= step_weight * scale
        information[rows + 1, rows] -= step_weight * scale
        vector[:-1] -= step_weight * scale * shift
        vector[1:] += step_weight * shift
        covariance = np.linalg.inv(information)
        value = covariance @ vector
        error = np.abs(target - value) / sigma_px
        robust = np.where(error > 1.5, 1.5 / np.maximum(error, 1e-9), 1.0)
    return value, np.sqrt(np.diag(covariance))
