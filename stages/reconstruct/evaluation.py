"""Measure a 4D scene on views that it was not fitted to: how it looks, and how its surfaces move.

The whole image flatters every method, because most of it stands still; what a motion model is for shows in the dynamic region,
the pixels whose true instance is a mover.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.spatial import cKDTree

from schemas.scenes import Scene4D
from stages.reconstruct.fitting import one_torch_thread
from stages.reconstruct.seeding import unproject
from stages.reconstruct.views import Views
from worldline.metrics import gradient_magnitude_similarity, psnr, ssim
from worldline.motion import state_at, velocity_at
from worldline.scenes import draw_scene
from worldline.splatting import Cameras, rasterize

COVERED = 0.5  # alpha from which on a pixel shows the scene's surface
PRESENT = 0.1  # opacity from which on a Gaussian is part of a surface
STANDING = 0.05  # share of the median true speed below which a direction says nothing


@dataclass(frozen=True)
class Scores:
    """How views of a scene compare with the truth, each `[V]`; NaN in the dynamic region where no mover is seen.

    Attributes:
        psnr_db: of the whole image.
        ssim: of the whole image.
        gms: gradient-magnitude similarity of the whole image.
        dynamic_psnr_db: of the dynamic region.
        dynamic_gms: of the dynamic region.
    """

    psnr_db: np.ndarray
    ssim: np.ndarray
    gms: np.ndarray
    dynamic_psnr_db: np.ndarray
    dynamic_gms: np.ndarray

    def means(self) -> dict[str, float]:
        """Return the mean of each over the views that have it, NaN where none has (PSNR is averaged in dB, as papers do)."""
        present = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        present = {name: values[np.isfinite(values)] for name, values in present.items()}
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in present.items()}


def score_views(scene: Scene4D, views: Views) -> Scores:
    """Draw each view of a scene and compare it with its image.

    Args:
        scene: over the views' times, in their unit.
        views: `labels` say where movers are.
    """
    rows = np.full((len(views.times), len(fields(Scores))), np.nan)
    with one_torch_thread():
        for view, time in enumerate(views.times):
            image = draw_scene(scene, float(time), views.camera_from_world[view], views.intrinsics, *views.size)
            target = torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))
            dynamic = torch.from_numpy(views.labels[view] > 0)
            rows[view] = (
                psnr(image, target),
                float(ssim(image, target)),
                gradient_magnitude_similarity(image, target),
                psnr(image, target, dynamic),
                gradient_magnitude_similarity(image, target, dynamic),
            )
    return Scores(*rows.T)


def join_scores(parts: list[Scores]) -> Scores:
    """Put the views of several scenes together, as if one method had drawn them."""
    return Scores(*(np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(Scores)))


@dataclass(frozen=True)
class VelocityError:
    """How a scene's motion compares with that of the true surfaces.

    Attributes:
        angle_deg: median angle between the two, degrees.
        ratio: median of the scene's speed over the true one.
        pixels: how many were compared.
    """

    angle_deg: float
    ratio: float
    pixels: int


def compare_velocities(scene: Scene4D, views: Views, velocities: np.ndarray) -> VelocityError:
    """Compare `velocity_at` of the Gaussians on moving surfaces with the surfaces' own velocities.

    Each pixel of a mover shows a point of its surface; the Gaussian with the nearest centre of those that are `PRESENT`
    speaks for it.

    Args:
        scene: over the views' times, in their unit.
        views: with `depths`; `labels` say where movers are.
        velocities: `[V, H, W, 3]` true velocities of the visible surfaces in the world, units per unit of the views' times.

    Raises:
        ValueError: if the views know no depth.
    """
    if views.depths is None:
        raise ValueError("compare_velocities: the views know no depth, so where their surfaces are is not known")
    found, true = [], []
    for view, time in enumerate(views.times):
        y, x = np.nonzero(_moving(views, velocities, view))
        gaussians = state_at(scene, float(time))
        present = np.flatnonzero(gaussians.opacities.numpy() > PRESENT)
        if not len(x) or not len(present):
            continue
        surface = unproject(views, np.full(len(x), view), np.stack([x, y], axis=1) + 0.5, views.depths[view, y, x])
        nearest = cKDTree(gaussians.means.numpy()[present]).query(surface)[1]
        found.append(velocity_at(scene, float(time)).numpy()[present[nearest]])
        true.append(velocities[view, y, x])
    return _median_error(found, true)


def compare_drawn_velocities(scene: Scene4D, views: Views, velocities: np.ndarray) -> VelocityError:
    """Compare the scene flow that a scene draws with the true one; harder than `compare_velocities`.

    The velocities of the Gaussians are splatted as features and divided by alpha. Where Gaussians behind each other move
    differently, a pixel shows their mean, which is shorter than any of them. Compared are pixels of movers with an alpha
    above `COVERED`. Arguments are those of `compare_velocities`; depths are not needed.
    """
    found, true = [], []
    with one_torch_thread(), torch.no_grad():
        for view, time in enumerate(views.times):
            camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
            rendering = rasterize(
                state_at(scene, float(time)), camera, features=velocity_at(scene, float(time)), antialiased=True
            )
            assert rendering.features is not None
            alphas = rendering.alphas[0, ..., 0].double().numpy()
            chosen = _moving(views, velocities, view) & (alphas > COVERED)
            found.append(rendering.features[0].double().numpy()[chosen] / alphas[chosen][:, None])
            true.append(velocities[view][chosen])
    return _median_error(found, true)


def _moving(views: Views, velocities: np.ndarray, view: int) -> np.ndarray:
    """Return `[H, W]` the pixels of movers, but those that hardly move: a spinning thing's axis has no direction."""
    speeds = np.linalg.norm(velocities, axis=-1)
    slowest = STANDING * np.median(speeds[views.labels > 0]) if (views.labels > 0).any() else 0.0
    return (views.labels[view] > 0) & (speeds[view] > slowest)


def _median_error(found: list[np.ndarray], true: list[np.ndarray]) -> VelocityError:
    ours, theirs = (np.concatenate([np.zeros((0, 3)), *parts]) for parts in (found, true))
    if not len(theirs):
        return VelocityError(float("nan"), float("nan"), 0)
    angles = np.arctan2(np.linalg.norm(np.cross(ours, theirs), axis=1), np.einsum("pi,pi->p", ours, theirs))
    ratios = np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    # Something that stands still has no direction; a right angle is neither praise nor blame.
    angles[ratios == 0] = np.pi / 2
    return VelocityError(float(np.degrees(np.median(angles))), float(np.median(ratios)), len(theirs))
