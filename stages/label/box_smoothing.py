"""Boxes of an object over time: noisy outlines tied together by the motion of the points tracked on the object.

The outline of a mask wanders by pixels from frame to frame; the similarity that maps the object's tracked points from
one frame to the next is good to tenths of a pixel, and for an object of fixed size its scale is the inverse ratio of
the two ranges. Each edge of the box is therefore estimated as a chain: measured by the outline where it can be seen,
carried by the similarity from frame to frame, solved for all frames at once by inverse variances with Huber weights.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64


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
        before, after = xy_px[both, step].astype(np.float64), xy_px[both, step + 1].astype(np.float64)
        kept = np.ones(len(before), bool)
        for _ in range(4):
            mean_before, mean_after = before[kept].mean(axis=0), after[kept].mean(axis=0)
            a, b = before[kept] - mean_before, after[kept] - mean_after
            factor = float((a * b).sum() / max((a * a).sum(), 1e-9))
            error = np.linalg.norm(after - (factor * (before - mean_before) + mean_after), axis=1)
            kept = error <= max(2.5 * float(np.median(error)), 0.1)
            if kept.sum() < 4:
                break
        factor = float(np.clip(factor, 0.7, 1.4))
        scale[step], shift[step] = factor, mean_after - factor * mean_before
        # the residual is mostly systematic (depth within the object, turning), so more tracks do not average it out
        sigma[step] = 0.15 + 0.25 * float(np.median(error))
    return Similarities(scale, shift, sigma)


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
