"""Where an upright region goes on below its lower edge: legs without texture, which no tracked point belongs to.

Trousers seldom have texture, so that a walker's points, and with them the region, end at the waist, and the road under
that edge lies twice too far. Under what stands on the road where its region ends, points of the background are as many as
beside it. Over all frames together, the missing ones tell how far the object goes on: the change of rate of two Poisson
processes, at the step of the greatest likelihood.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

UPRIGHT = 0.7  # width over height of a region that may be a walker's upper half
STEPS = 13  # below the edge, of a tenth of the region's height each
LEAST_STEPS = 3  # less is the painted edge
LEAST_EXPECTED = 8.0  # background points that must be missing, or else it is chance
FOUND = 0.1  # share of the expected points that are found where a leg is (between two legs, and dragged along)
MOST_FOUND = 0.25


def hidden_share(
    box: Float64[np.ndarray, "F 4"],
    frames: Int64[np.ndarray, " F"],
    xy_px: Float32[np.ndarray, "N T 2"],
    visible: Bool[np.ndarray, "N T"],
) -> float:
    """Return how far an object goes on below its box, as a share of the box's height; 0 where nothing is missing.

    Infinity where the background does not come back: the region is a small part of something tall.

    Args:
        box: x0, y0, x1, y1 of the object's region, steady over time.
        frames: of the clip, of each box.
        xy_px: positions of points on no moving object.
        visible: where they were seen.
    """
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    good = np.isfinite(box).all(axis=1) & (height > 4) & (width > 2)
    if not good.any() or np.median(width[good] / height[good]) > UPRIGHT:
        return 0.0
    found, beside = np.zeros(STEPS), np.zeros(STEPS)
    for index in np.flatnonzero(good):
        x, y = xy_px[visible[:, frames[index]], frames[index]].T
        away = np.abs(x - (box[index, 0] + box[index, 2]) / 2) / width[index]
        step = np.floor((y - box[index, 3]) / height[index] * 10)
        inside = (step >= 0) & (step < STEPS)
        found += np.bincount(step[inside & (away < 0.25)].astype(int), minlength=STEPS)
        beside += np.bincount(step[inside & (away > 1.0) & (away < 3.0)].astype(int), minlength=STEPS)
    expected = np.maximum(beside / 8, 1e-3)  # the strips beside are eight times as wide
    likelihood = []
    for end in range(STEPS + 1):
        after = found[end:].sum() / expected[end:].sum() if end < STEPS else 1.0
        mean = expected * np.where(np.arange(STEPS) < end, FOUND, max(after, 2 * FOUND))
        likelihood.append((found * np.log(mean) - mean).sum())
    end = int(np.argmax(likelihood))
    missing = expected[:end].sum()
    if end < LEAST_STEPS or missing < LEAST_EXPECTED or found[:end].sum() > MOST_FOUND * missing:
        return 0.0
    return end / 10 if end < STEPS else np.inf
