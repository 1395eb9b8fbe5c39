"""Where the first Gaussians of a filmed drive go: on the sparse points, between them, far away, and on what moves.

Sparse points are few and sit on corners. The rest of each image is filled with points at the depth of the triangulated points
around them, and at a far shell where there are none (the sky). What moves was never triangulated: an object is
placed at the depth of the ground where its region ends below, frame by frame, and a polynomial through these places
is the first guess of its motion.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from schemas.cameras import PointCloud
from stages.reconstruct.seeding import OPACITY, Seeds, unproject
from stages.reconstruct.views import Views

NEIGHBOURS = 4
EMPTY_RADIUS = 0.12  # of the image width: a pixel with no triangulated point so near belongs to the far shell
MOVING_OPACITY = 0.5
FAR_FACTOR = 3.0  # distance of the far shell over the 95th percentile of the points' depths


@dataclass(frozen=True)
class DepthField:
    """Depths of triangulated points as seen in each view.

    Attributes:
        trees: k-d tree over the pixel positions of each view's points, None where it sees none.
        depths: their depths, per view.
        far: depth of the far shell.
        typical: median depth.
        reach: pixels within which a point says something about a pixel.
    """

    trees: list[cKDTree | None]
    depths: list[np.ndarray]
    far: float
    typical: float
    reach: float

    def at(self, view: int, pixels: np.ndarray) -> np.ndarray:
        """Return depths `[P]` at `pixels` `[P, 2]`: mean inverse depth of the nearest points, or the far shell."""
        tree = self.trees[view]
        if tree is None:
            return np.full(len(pixels), self.typical if not any(self.trees) else self.far)
        count = min(NEIGHBOURS, len(self.depths[view]))
        distance, index = tree.query(pixels, k=count)
        distance, index = distance.reshape(-1, count), index.reshape(-1, count)
        weight = 1.0 / (distance + 1.0)
        inverse = (weight / self.depths[view][index]).sum(axis=1) / weight.sum(axis=1)
        return np.where(distance[:, 0] > self.reach, self.far, 1.0 / inverse)


def measure_depths(views: Views, points: PointCloud, scale: float) -> DepthField:
    """Project the points into the views that observed them; `scale` divides the points' coordinates."""
    trees: list[cKDTree | None] = []
    depths = []
    by_frame = np.argsort(points.observation_frame, kind="stable")
    starts = np.searchsorted(points.observation_frame[by_frame], [views.frames, views.frames + 1])
    for view in range(len(views.frames)):
        seen = np.unique(points.observation_point[by_frame[starts[0, view] : starts[1, view]]])
        pose = views.camera_from_world[view]
        camera = points.xyz[seen] / scale @ pose[:3, :3].T + pose[:3, 3]
        camera = camera[camera[:, 2] > 1e-3]
        pixels = camera @ views.intrinsics.T
        trees.append(cKDTree(pixels[:, :2] / pixels[:, 2:]) if len(camera) else None)
        depths.append(camera[:, 2])
    every = np.concatenate(depths) if depths else np.zeros(0)
    typical, far = (float(np.median(every)), FAR_FACTOR * float(np.percentile(every, 95))) if len(every) else (1.0, 1.0)
    return DepthField(trees, depths, far, typical, EMPTY_RADIUS * views.size[0])


_REWEIGHTINGS = 6  # rounds of the robust fit of an object's path; it has settled by then


@dataclass(frozen=True)
class Sightings:
    """Of each Gaussian on a moving object: when it was picked, and how its object moves about then.

    Attributes:
        times: `[M]` normalised.
        paths: `[M, P, 3]` coefficients of the displacement from its place then, by powers 1 to P of the time since.
    """

    times: np.ndarray
    paths: np.ndarray


def seed_drive(
    views: Views, points: PointCloud, scale: float, count: int, moving_share: float, powers: int, rng: np.random.Generator
) -> tuple[Seeds, Sightings]:
    """Place `count` Gaussians, those on moving objects first.

    Args:
        views: the training views, with camera positions already divided by `scale`.
        points: sparse points in the camera path's unit.
        scale: length of one unit of the fit in the camera path's unit.
        count: how many Gaussians.
        moving_share: largest share of them on moving regions; the share of moving pixels decides below it.
        powers: polynomial order of the motion.
        rng: source of randomness.
    """
    field = measure_depths(views, points, scale)
    share = float((views.labels > 0).mean())
    moving, sightings = _seed_moving(views, field, round(count * min(moving_share, 4.0 * share)), powers, rng)
    room = count - len(moving.means)
    kept = np.sort(rng.permutation(len(points.xyz))[: room // 2])
    fill_means, fill_colors, fill_pixel = _fill(views, field, room - len(kept), rng)
    means = np.concatenate([points.xyz[kept] / scale, fill_means])
    # A Gaussian reaches to its neighbours, but is at most some pixels large from the nearest camera:
    # large ones make a fit slow and blurred.
    distance = cKDTree(means).query(means, k=min(4, len(means)))[0].reshape(len(means), -1)[:, 1:]
    spacing = distance.mean(axis=1) if distance.shape[1] else np.full(len(means), fill_pixel.mean() if len(fill_pixel) else 0.01)
    pixel = _pixel_size(views, means)
    sizes = np.clip(0.5 * spacing, 0.4 * pixel, 4.0 * pixel)
    seeds = Seeds(
        means=np.concatenate([moving.means, means]),
        sizes=np.concatenate([moving.sizes, sizes]),
        colors=np.concatenate([moving.colors, points.rgb[kept] / 255.0, fill_colors]),
        opacities=np.concatenate([moving.opacities, np.full(len(means), OPACITY)]),
        instances=np.concatenate([moving.instances, np.zeros(len(means), np.int32)]),
    )
    return seeds, sightings


def _pixel_size(views: Views, means: np.ndarray) -> np.ndarray:
    """Return the width of a pixel at the points, from the nearest camera `[P]`."""
    if not len(means):
        return np.zeros(0)
    return cKDTree(views.centers).query(means)[0] / views.intrinsics[0, 0]


def _fill(views: Views, field: DepthField, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points on static pixels of random views: means, colours and the width of a pixel there."""
    width, height = views.size
    view = np.sort(rng.integers(len(views.images), size=3 * count))
    x, y = rng.integers(width, size=len(view)), rng.integers(height, size=len(view))
    chosen = np.flatnonzero(views.labels[view, y, x] == 0)
    chosen = np.sort(rng.permutation(chosen)[:count]) if len(chosen) >= count else np.resize(np.arange(len(view)), count)
    view, x, y = view[chosen], x[chosen], y[chosen]
    pixels = np.stack([x, y], axis=1) + 0.5
    depths = np.concatenate([field.at(v, pixels[view == v]) for v in np.unique(view)]) if count else np.zeros(0)
    depths = np.where(depths < field.far, depths * np.exp(0.05 * rng.standard_normal(len(depths))), depths)
    return unproject(views, view, pixels, depths), views.images[view, y, x] / 255.0, depths / views.intrinsics[0, 0]


def _seed_moving(views: Views, field: DepthField, count: int, powers: int, rng: np.random.Generator) -> tuple[Seeds, Sightings]:
    """Place Gaussians on the moving objects, each with its object's motion around the time at which it was picked."""
    view, y, x = np.nonzero(views.labels)
    label = views.labels[view, y, x]
    chosen = np.sort(rng.permutation(len(view))[:count])
    parts = []
    for k in np.unique(label[chosen]):
        trajectory = follow_object(views, field, int(k), powers)
        picked = chosen[label[chosen] == k]
        v, pixels = view[picked], np.stack([x[picked], y[picked]], axis=1) + 0.5
        pose = views.camera_from_world[v]
        anchors = np.stack([np.polynomial.polynomial.polyval(views.times[v], trajectory[:, axis]) for axis in range(3)], axis=1)
        depths = np.maximum(np.einsum("pj,pj->p", pose[:, 2, :3], anchors) + pose[:, 2, 3], 0.05 * field.typical)
        area = np.bincount(view[label == k], minlength=len(views.images))[v]
        sizes = 0.7 * np.sqrt(area / len(picked)).clip(1.0, 8.0) * depths / views.intrinsics[0, 0]
        paths = np.stack([_shift(trajectory, time)[1:] for time in views.times[v]])
        means = unproject(views, v, pixels, depths)
        colors = views.images[v, y[picked], x[picked]] / 255.0
        parts.append((means, sizes, colors, np.full(len(v), k, np.int32), views.times[v], paths))
    if not parts:
        parts = [(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), np.zeros(0, np.int32), np.zeros(0), np.zeros((0, powers, 3)))]
    means, sizes, colors, instances, times, paths = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    seeds = Seeds(means, sizes, colors, np.full(len(means), MOVING_OPACITY), instances=instances)
    return seeds, Sightings(times, paths)


def follow_object(views: Views, field: DepthField, label: int, powers: int) -> np.ndarray:
    """Fit a polynomial in normalised time to an object's contact points with the ground.

    The depth of a contact point is uncertain by its square, so near sightings count for more. Where the image border cuts
    the object its contact is not seen; such frames count only if there are no others. The order grows with the number
    of sightings, and a small ridge keeps the terms beyond constant speed down.

    Returns:
        Coefficients `[powers + 1, 3]`, lowest power first.
    """
    width, height = views.size
    times, places, depths, cut = [], [], [], []
    for view in np.flatnonzero((views.labels == label).any(axis=(1, 2))):
        rows, columns = np.nonzero(views.labels[view] == label)
        bottom = rows >= np.percentile(rows, 95)
        foot = np.array([[columns[bottom].mean() + 0.5, rows.max() + 1.0]])
        depth = field.at(int(view), foot)
        times.append(views.times[view])
        depths.append(float(depth[0]))
        places.append(unproject(views, np.array([view]), foot, depth)[0])
        cut.append(rows.max() >= height - 1 or columns.min() == 0 or columns.max() >= width - 1)
    spread = np.square(depths)  # of a contact point, up to a factor
    order = min(powers, max(0, len(times) // 6))
    trust = np.where(cut, 1e-3, 1.0)
    weights, solved = trust / spread, np.zeros((order + 1, 3))
    offset = float(np.average(times, weights=weights))
    centred = np.asarray(times) - offset
    design = np.polynomial.polynomial.polyvander(centred, order)
    for _ in range(_REWEIGHTINGS):
        weights = weights / weights.sum()
        ridge = np.diag([1e-3 * float(weights @ centred ** (2 * power)) if power > 1 else 1e-12 for power in range(order + 1)])
        solved = np.linalg.solve(
            design.T @ (weights[:, None] * design) + ridge, design.T @ (weights[:, None] * np.asarray(places))
        )
        off = np.linalg.norm(design @ solved - np.asarray(places), axis=1) / spread
        # Sightings that slid onto something else are far off the path of the rest (Cauchy weights).
        weights = trust / spread**2 / (1.0 + np.square(off / max(2.0 * float(np.median(off)), 1e-12)))
    return np.concatenate([_shift(solved, -offset), np.zeros((powers - order, 3))])


def _shift(coefficients: np.ndarray, by: float) -> np.ndarray:
    """Return the coefficients `[P, D]` of p(t + by), lowest power first."""
    powers = range(len(coefficients))
    matrix = np.array([[math.comb(high, low) * by ** (high - low) if high >= low else 0.0 for high in powers] for low in powers])
    return matrix @ coefficients
