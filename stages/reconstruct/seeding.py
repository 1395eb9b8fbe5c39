"""Where the first Gaussians go when nothing but a box, a cloud of points or depth maps is known.

What one moving camera films has an initialisation of its own: `stages.reconstruct.driving_seeds`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from stages.reconstruct.views import Views

OPACITY = 0.35


@dataclass(frozen=True)
class Seeds:
    """Initial Gaussians.

    Attributes:
        means: `[N, 3]`.
        sizes: `[N]` standard deviations, or `[N, 3]` along the axes of `quats`.
        colors: `[N, 3]` in [0, 1].
        opacities: `[N]` between 0 and 1.
        quats: `[N, 4]` wxyz, or None for no rotation.
        instances: `[N]` int32 which object each belongs to, 0 for none; None where that is not known.
        motion: arrays of the motion model by name, as `Scene4D.motion` has them; empty for its usual start.
            Gaussian-Flow's `moving` must list the first of the N.
    """

    means: np.ndarray
    sizes: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray
    quats: np.ndarray | None = None
    instances: np.ndarray | None = None
    motion: Mapping[str, np.ndarray] = field(default_factory=dict)


def random_seeds(low: np.ndarray, high: np.ndarray, count: int, rng: np.random.Generator) -> Seeds:
    """Place grey Gaussians anywhere in a box, as large as their share of it.

    Args:
        low: `[3]` corner of the box.
        high: `[3]` opposite corner.
        count: how many.
        rng: source of randomness.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    means = rng.uniform(low, high, (count, 3))
    size = 0.5 * float(np.prod(high - low) / max(count, 1)) ** (1 / 3)
    colors = np.clip(0.5 + 0.1 * rng.standard_normal((count, 3)), 0.0, 1.0)
    return Seeds(means, np.full(count, size), colors, np.full(count, 0.1))


def seeds_from_points(points: np.ndarray, colors: np.ndarray, count: int, rng: np.random.Generator) -> Seeds:
    """Place Gaussians on points, each reaching halfway to its neighbours.

    Args:
        points: `[P, 3]`.
        colors: `[P, 3]` in [0, 1].
        count: how many at most; where there are more points, a random choice of them.
        rng: source of randomness.
    """
    kept = np.sort(rng.permutation(len(points))[:count])
    means = np.asarray(points, np.float64)[kept]
    return Seeds(means, 0.5 * neighbour_spacing(means), np.asarray(colors, np.float64)[kept], np.full(len(kept), OPACITY))


def seeds_from_depth(views: Views, count: int, rng: np.random.Generator) -> Seeds:
    """Place Gaussians on random pixels of known depth, with their colours, labels and the size of the pixels they stand for.

    Args:
        views: with `depths`.
        count: how many.
        rng: source of randomness.

    Raises:
        ValueError: if the views have no pixel of known depth.
    """
    if views.depths is None or not (views.depths > 0).any():
        raise ValueError("seeds_from_depth: the views know no depth")
    known = np.flatnonzero(views.depths.ravel() > 0)
    chosen = np.sort(rng.choice(known, size=count, replace=count > len(known)))
    view, y, x = np.unravel_index(chosen, views.depths.shape)
    depths = views.depths[view, y, x].astype(np.float64)
    means = unproject(views, view, np.stack([x, y], axis=1) + 0.5, depths)
    share = np.sqrt(len(known) / count).clip(1.0, 16.0)  # pixels of all views for each Gaussian: views see the same surface
    pixel = depths / views.intrinsics[0, 0]
    sizes = np.minimum(0.5 * share * pixel, np.maximum(0.5 * neighbour_spacing(means), 0.4 * pixel))
    return Seeds(
        means=means,
        sizes=sizes,
        colors=views.images[view, y, x] / 255.0,
        opacities=np.full(count, OPACITY),
        instances=views.labels[view, y, x].astype(np.int32),
    )


def neighbour_spacing(means: np.ndarray) -> np.ndarray:
    """Return `[N]` mean distance of each point to its three nearest others; 0.01 for a point alone."""
    if len(means) < 2:
        return np.full(len(means), 0.01)
    distance = cKDTree(means).query(means, k=min(4, len(means)))[0][:, 1:]
    return np.maximum(distance.mean(axis=1), 1e-6)


def unproject(views: Views, view: np.ndarray, pixels: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Return world points `[P, 3]` of pixels `[P, 2]` at depths `[P]`, each in its own view `[P]`."""
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(views.intrinsics).T
    pose = views.camera_from_world[view]
    return np.einsum("pji,pj->pi", pose[:, :3, :3], rays * depths[:, None] - pose[:, :3, 3])
