"""Stage `reconstruct.gaussian_flow`: a 4D scene of Gaussians from one moving camera.

Kerbl et al. 2023 (3D Gaussian splatting) for what stands still, Lin et al. 2024 (Gaussian-Flow, `worldline.motion.gaussian_flow`)
for what moves, Kheradmand et al. 2024 (3DGS-MCMC) for a fixed budget without opacity resets. The moving regions say
where Gaussians may move; everything else stays where it is, at all times.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks
from schemas.reports import FIGURES, Metrics
from schemas.scenes import Scene4D
from stages.contract import Progress, stage
from stages.reconstruct.checkpoint import load_checkpoint, save_checkpoint
from stages.reconstruct.fitting import MOTION, FitState, Schedule, draw, fit, gaussians_at, initial_state, one_torch_thread
from stages.reconstruct.seeding import measure_depths, seed_gaussians
from stages.reconstruct.views import Views, halve, load_views
from worldline.metrics import psnr, ssim
from worldline.metrics.images import WINDOW


@dataclass(frozen=True)
class GaussianFlowConfig:
    """How the scene is fitted.

    Attributes:
        max_side: longer side in pixels of the frames that are fitted.
        gaussians: how many Gaussians, fixed over the fit.
        steps: optimisation steps, one frame each.
        hold_out_every: every k-th registered frame is kept for evaluation and never fitted; 0 fits all frames.
        moving_share: largest share of the Gaussians that may move.
        position_powers: polynomial order of the positions of moving Gaussians.
        position_harmonics: Fourier order of their positions.
        rotation_powers: polynomial order of their rotations.
        color_powers: polynomial order of their colours.
        ssim_weight: weight of D-SSIM against L1 in the loss.
        motion_weight: price of motion that is not straight, of turning and of changing colour.
        opacity_weight: price of opacity, which frees Gaussians that are not needed.
        relocate_every: steps between relocations.
        relocate_share: share of the Gaussians, those that cover least, that each relocation moves to where they are needed.
        resolutions: how many resolutions the fit climbs through, each twice the last.
        checkpoint_every: steps between checkpoints.
    """

    max_side: Annotated[int, Field(ge=16)] = 320
    gaussians: Annotated[int, Field(ge=16)] = 16000
    steps: Annotated[int, Field(ge=1)] = 1500
    hold_out_every: NonNegativeInt = 8
    moving_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    position_powers: NonNegativeInt = 3
    position_harmonics: NonNegativeInt = 2
    rotation_powers: NonNegativeInt = 1
    color_powers: NonNegativeInt = 1
    ssim_weight: float = 0.2
    motion_weight: float = 1e-4
    opacity_weight: float = 2e-3
    relocate_every: Annotated[int, Field(ge=1)] = 50
    relocate_share: Annotated[float, Field(ge=0, le=1)] = 0.04
    resolutions: Annotated[int, Field(ge=1)] = 2
    checkpoint_every: Annotated[int, Field(ge=1)] = 200


@stage("reconstruct.gaussian_flow", version=1, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_gaussian_flow(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    config: GaussianFlowConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene to the registered frames and measure it on frames that were held out.

    Without triangulated points (a camera on a tripod) everything lies on a layer at unit depth: the scene then explains the
    frames from where they were taken, and nothing else. Without registered frames the scene is empty.
    """
    start_s, end_s = float(clip.times_s[0]), float(clip.times_s[-1])
    if not path.registered.any():
        return _empty_scene(path, start_s, end_s), Metrics(rows_to_table(FIGURES, []))
    full = load_views(clip, path, masks, config.max_side)
    count = len(full.frames)
    held_out = (
        np.arange(count) % config.hold_out_every == config.hold_out_every // 2 if config.hold_out_every else np.zeros(count, bool)
    )
    if held_out.all():
        held_out[:] = False
    training = np.flatnonzero(~held_out)
    scale = _unit(full, points)
    full = dataclasses.replace(full, camera_from_world=_rescaled(full.camera_from_world, scale))
    pyramid = [full]
    while len(pyramid) < config.resolutions and min(pyramid[0].size) >= 4 * WINDOW:
        pyramid.insert(0, halve(pyramid[0]))
    background = torch.from_numpy(np.median(full.images[training].reshape(-1, 3), axis=0).astype(np.float32) / 255.0)
    with one_torch_thread():
        state = _run(full, pyramid, points, training, background, scale, config, seed, progress, checkpoints)
        figures = _measure(state, full, held_out, background)
    scene = _to_scene(state, scale, path, background, start_s, end_s)
    return scene, Metrics(rows_to_table(FIGURES, sorted(figures, key=lambda row: row["name"])))


def _unit(views: Views, points: PointCloud) -> float:
    """Return the length that becomes 1 in the fit: the typical depth of the scene, 1 where there are no points."""
    return measure_depths(views, points, 1.0).typical if len(points.xyz) else 1.0


def _rescaled(camera_from_world: np.ndarray, scale: float) -> np.ndarray:
    poses = camera_from_world.copy()
    poses[:, :3, 3] /= scale
    return poses


def _run(
    full: Views,
    pyramid: list[Views],
    points: PointCloud,
    training: np.ndarray,
    background: torch.Tensor,
    scale: float,
    config: GaussianFlowConfig,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> FitState:
    """Fit from the last checkpoint, or from seeds where there is none."""
    saved = load_checkpoint(checkpoints)
    if saved is not None:
        start, state = saved[0], FitState.from_arrays(saved[1])
    else:
        shown = Views(
            full.images[training], full.labels[training], full.camera_from_world[training], full.intrinsics,
            full.times[training], full.frames[training],
        )  # fmt: skip
        rng = np.random.default_rng([seed, 0])
        seeds = seed_gaussians(shown, points, scale, config.gaussians, config.moving_share, config.position_powers, rng)
        start, state = (
            0,
            initial_state(seeds, full.centers, config.position_harmonics, config.color_powers, config.rotation_powers),
        )
    weights = (config.ssim_weight, config.motion_weight, config.opacity_weight)
    schedule = Schedule(config.steps, *weights, config.relocate_every, config.relocate_share, seed)
    errors: list[float] = []

    def after_step(done: int, error: float) -> None:
        errors.append(error)
        if done % 10 == 0 or done == config.steps:
            progress(done, config.steps, f"PSNR {-10 * np.log10(np.mean(errors[-len(training) :])):.1f} dB")
        if done % config.checkpoint_every == 0 and done < config.steps:
            save_checkpoint(checkpoints, done, state.arrays())

    fit(state, pyramid, training, background, schedule, start, after_step)
    return state


def _measure(state: FitState, views: Views, held_out: np.ndarray, background: torch.Tensor) -> list[dict]:
    """Draw every view and return the figures."""
    values = {name: torch.from_numpy(array) for name, array in state.values.items()}
    whole, moving, similar = np.full((3, len(views.frames)), np.nan)
    for view in range(len(views.frames)):
        image = draw(gaussians_at(values, float(views.times[view])), views, view, background)[0].clamp(0, 1)
        target = torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))
        whole[view] = psnr(image, target)
        moving[view] = psnr(image, target, torch.from_numpy(views.labels[view] > 0))
        if min(views.size) >= WINDOW:
            similar[view] = float(ssim(image, target))
    size = "x".join(map(str, views.size))
    measured = [
        ("heldout_psnr_db", whole[held_out], "dB", f"{{}} frames that were not fitted, {size} px"),
        ("heldout_ssim", similar[held_out], "of 1", f"{{}} frames that were not fitted, {size} px"),
        ("moving_psnr_db", moving[held_out], "dB", f"moving regions of {{}} frames that were not fitted, {size} px"),
        ("train_psnr_db", whole[~held_out], "dB", f"{{}} fitted frames, {size} px"),
    ]
    figures = [
        {"name": f"reconstruct.{name}", "value": float(good.mean()), "unit": unit, "detail": detail.format(len(good))}
        for name, scores, unit, detail in measured
        if len(good := scores[np.isfinite(scores)])
    ]
    count, movers = len(values["means"]), len(values["time_centers"])
    detail = f"{movers} of them can move"
    figures.append({"name": "reconstruct.gaussians", "value": float(count), "unit": "gaussians", "detail": detail})
    return figures


def _to_scene(state: FitState, scale: float, path: CameraPath, background: torch.Tensor, start_s: float, end_s: float) -> Scene4D:
    values = {name: torch.from_numpy(array) for name, array in state.values.items()}
    # Positions go back to the camera path's unit; a series in time scales like the positions it moves.
    positions = ("position_polynomial", "position_fourier")
    motion = {name: (values[name] * scale if name in positions else values[name]).numpy() for name in MOTION}
    return Scene4D(
        motion_model="gaussian_flow",
        means=(values["means"] * scale).numpy(),
        quats=torch.nn.functional.normalize(values["quats"], dim=-1).numpy(),
        scales=(values["log_scales"].exp() * scale).numpy(),
        opacities=values["logits"].sigmoid().numpy(),
        colors=values["colors"].numpy(),
        motion=motion | {"moving": np.arange(len(motion["time_centers"]))},
        start_s=start_s,
        end_s=end_s,
        background=background.double().numpy(),
        scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
    )


def _empty_scene(path: CameraPath, start_s: float, end_s: float) -> Scene4D:
    none = np.zeros((0, 3), np.float32)
    return Scene4D(
        motion_model="static", means=none, quats=np.zeros((0, 4), np.float32), scales=none, opacities=np.zeros(0, np.float32),
        colors=none, motion={}, start_s=start_s, end_s=end_s, background=np.full(3, 0.5), scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
    )  # fmt: skip
