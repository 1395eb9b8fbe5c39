"""Measure a 4D scene on views that it was not fitted to: how it looks, and how its surfaces move.

The whole image flatters every method, because most of it stands still; what a motion model is for shows in the dynamic region,
the pixels whose true instance is a mover.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from schemas.scenes import Scene4D
from stages.reconstruct.fitting import one_torch_thread
from stages.reconstruct.views import Views
from worldline.metrics import gradient_magnitude_similarity, psnr, ssim
from worldline.motion import state_at, velocity_at
from worldline.scenes import draw_scene
from worldline.splatting import Cameras, rasterize

COVERED = 0.5  # alpha from which on a pixel shows the scene's surface
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
    """Compare a scene's closed-form velocities with those of the surfaces that pixels show.

    The velocities of the Gaussians are splatted as features, and divided by alpha: what a pixel shows is how its surface moves.
    Compared are the pixels of movers that the scene covers.

    Args:
        scene: over the views' times, in their unit.
        views: `labels` say where movers are.
        velocities: `[V, H, W, 3]` true velocities of the visible surfaces in the world, units per unit of the views' times.
    """
    moving = (views.labels > 0) & (np.linalg.norm(velocities, axis=-1) > 0)
    if not moving.any():
        return VelocityError(float("nan"), float("nan"), 0)
    slowest = STANDING * np.median(np.linalg.norm(velocities[moving], axis=-1))
    found, true = [], []
    with one_torch_thread(), torch.no_grad():
        for view, time in enumerate(views.times):
            camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
            rendering = rasterize(
                state_at(scene, float(time)), camera, features=velocity_at(scene, float(time)), antialiased=True
            )
            assert rendering.features is not None
            alphas = rendering.alphas[0, ..., 0].double().numpy()
            features = rendering.features[0].double().numpy()
            chosen = moving[view] & (alphas > COVERED) & (np.linalg.norm(velocities[view], axis=-1) > slowest)
            found.append(features[chosen] / alphas[chosen][:, None])
            true.append(velocities[view][chosen].astype(np.float64))
    return _median_error(np.concatenate(found), np.concatenate(true))


def _median_error(found: np.ndarray, true: np.ndarray) -> VelocityError:
    if not len(true):
        return VelocityError(float("nan"), float("nan"), 0)
    angles = np.arctan2(np.linalg.norm(np.cross(found, true), axis=1), np.einsum("pi,pi->p", found, true))
    ratios = np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    # Something that stands still has no direction; a right angle is neither praise nor blame.
    angles[ratios == 0] = np.pi / 2
    return VelocityError(float(np.degrees(np.median(angles))), float(np.median(ratios)), len(true))
