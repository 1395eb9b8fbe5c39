"""How well surfels find the direction of surfaces: an arm that bends, filmed by ten cameras, measured from three others.

Three fits of Gaussian-Flow to the same pictures from the same random start: surfels, surfels without the loss that lays them
onto the surface that they form, and 3D Gaussians, whose shortest axes stand in for normals. Compared are pixels of the arm with
the normals of the analytic world.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figure, figure

SIZE = 128  # pixels, width and height
PRIMITIVES = 8000
STEPS = 2000
SEEDS = (0, 1, 2)
METHODS = ("surfels", "surfels_without_normal_loss", "gaussians")
IDS = tuple(f"reconstruct.arm.{method}.{figure}" for method in METHODS for figure in ("normal_error_deg", "psnr_db"))


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fit to make."""

    method: str
    seed: int
    quick: bool


def measure_arm(folder: Path, quick: bool) -> Sequence[Figure]:
    """Fit the arm with every method and seed (quick: one, smaller and shorter) and return medians over the seeds."""
    seeds = SEEDS[:1] if quick else SEEDS
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for method, seed in ((method, seed) for method in METHODS for seed in seeds):
        result = run_fit(Fit(method, seed, quick))
        found[method].append(result)
        told = f"{result['normal_error_deg']:.1f} degrees, {result['psnr_db']:.2f} dB, {result['seconds']:.0f} s"
        print(f"  {method} seed {seed}: {told}", file=sys.stderr, flush=True)
    return figures(found, quick)


def run_fit(fit: Fit) -> dict[str, float]:
    """Fit, and return `normal_error_deg`, `psnr_db`, `dynamic_psnr_db` on held-out cameras, and `seconds` of the fit."""
    import time

    from stages.reconstruct.evaluation import score_views
    from stages.reconstruct.fitting import fit_scene
    from stages.reconstruct.seeding import random_seeds
    from stages.reconstruct.settings import FitSettings
    from worldline.worlds.protocols import capture
    from worldline.worlds.toys import HIGH, LOW

    size, count, steps = (SIZE // 2, PRIMITIVES // 4, STEPS // 2) if fit.quick else (SIZE, PRIMITIVES, STEPS)
    film = capture("arm", "multi", size=size, seed=fit.seed, split="train")
    views = _views(film)
    rng = np.random.default_rng([fit.seed, 1])
    seeds = random_seeds(LOW, HIGH, count, rng)
    settings = FitSettings(steps=steps)
    if fit.method != "gaussians":
        quats = rng.standard_normal((count, 4))  # flat ones must start in all directions
        seeds = dataclasses.replace(seeds, quats=quats / np.linalg.norm(quats, axis=1, keepdims=True))
        settings = dataclasses.replace(settings, primitive="surfel")
    if fit.method == "surfels_without_normal_loss":
        settings = dataclasses.replace(settings, normal_weight=0.0)
    every, none = np.arange(len(views.times)), np.zeros(0, np.int64)
    start = time.perf_counter()
    scene = fit_scene(
        views, seeds, "gaussian_flow", settings, training=every, validation=none, background=film.background, seed=fit.seed
    )
    seconds = time.perf_counter() - start
    film = capture("arm", "multi", size=size, seed=fit.seed, split="heldout_views")
    views = _views(film)
    scores = score_views(scene, views).means()
    return {
        "normal_error_deg": normal_error_deg(scene, views, film.normals),
        "psnr_db": scores["psnr_db"],
        "dynamic_psnr_db": scores["dynamic_psnr_db"],
        "seconds": seconds,
    }


def normal_error_deg(scene: Any, views: Any, truth: np.ndarray) -> float:
    """Return the median angle in degrees between drawn and true normals, over the pixels of movers.

    A pixel that nothing covers counts as 90 degrees.

    Args:
        scene: of surfels, or of Gaussians.
        views: whose labels say where the movers are.
        truth: `[V, H, W, 3]` unit normals in the camera's frame.
    """
    import torch

    from worldline.motion import state_at

    angles = []
    with torch.no_grad():
        for view, time_s in enumerate(views.times):
            world = _draw_normals(state_at(scene, float(time_s)), views, view, scene.primitive == "surfel")
            drawn = world.double().numpy() @ views.camera_from_world[view, :3, :3].T
            length = np.linalg.norm(drawn, axis=-1)
            cosine = np.einsum("hwi,hwi->hw", drawn, truth[view]) / np.maximum(length, 1e-9)
            angles.append(np.degrees(np.arccos(np.clip(np.where(length > 1e-6, cosine, 0.0), -1, 1)))[views.labels[view] > 0])
    return float(np.median(np.concatenate(angles)))


def _draw_normals(gaussians: Any, views: Any, view: int, surfels: bool) -> Any:
    """Return world normals `[H, W, 3]` of any length: those of surfels, or the shortest axes of Gaussians."""
    import torch

    from worldline.cameras import rotation_from_quaternion
    from worldline.scenes import NEAR_SHARE
    from worldline.splatting import Cameras, rasterize, rasterize_surfels

    camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
    if surfels:
        return rasterize_surfels(gaussians, camera, near_plane=NEAR_SHARE).normals[0]
    rotations = rotation_from_quaternion(gaussians.quats.double().numpy())
    shortest = gaussians.scales.argmin(dim=-1).numpy()
    axes = np.take_along_axis(rotations, shortest[:, None, None], axis=2)[..., 0]
    pose = views.camera_from_world[view]
    eye = -pose[:3, :3].T @ pose[:3, 3]
    away = np.einsum("ni,ni->n", axes, gaussians.means.double().numpy() - eye) > 0
    axes = np.where(away[:, None], -axes, axes).astype(np.float32)
    drawn = rasterize(gaussians, camera, features=torch.from_numpy(axes), near_plane=NEAR_SHARE, antialiased=True)
    assert drawn.features is not None
    return drawn.features[0]


def _views(film: Any) -> Any:
    from stages.reconstruct.views import Views

    count = np.arange(len(film.times))
    return Views(film.images, film.instances, film.camera_from_world, film.intrinsics, film.times, count)


def figures(found: dict[str, list[dict[str, float]]], quick: bool) -> list[Figure]:
    """Return medians over the seeds of every method, each beside the others."""

    def values(method: str, name: str) -> np.ndarray:
        return np.array([result[name] for result in found[method]])

    size, count, steps = (SIZE // 2, PRIMITIVES // 4, STEPS // 2) if quick else (SIZE, PRIMITIVES, STEPS)
    rows = []
    for method in METHODS:
        for name, unit, what in (
            ("normal_error_deg", "degrees", "median angle to the true normals, pixels of the arm, held-out cameras"),
            ("psnr_db", "dB", "PSNR, whole image, held-out cameras"),
        ):
            own = values(method, name)
            others = "; ".join(f"{other} {np.median(values(other, name)):.2f}" for other in METHODS if other != method)
            seeds = ", ".join(f"{value:.2f}" for value in own)
            detail = f"{what}; median of seeds ({seeds}); {size} px, {count} primitives, {steps} steps of Gaussian-Flow, "
            detail += f"{np.median(values(method, 'seconds')):.0f} s a fit"
            rows.append(figure(f"reconstruct.arm.{method}.{name}", float(np.median(own)), unit, others, detail))
    return rows
