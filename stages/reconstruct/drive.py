"""From a filmed drive to a scene: what the stages that fit one moving camera share.

Each of them adds the first Gaussians of its motion model; the frames, the unit, the fit and the figures are the same.
"""

import dataclasses
from collections.abc import Callable
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
from stages.contract import Progress
from stages.reconstruct.cousins import CousinRules
from stages.reconstruct.driving_seeds import measure_depths
from stages.reconstruct.fitting import draw, fit_scene, one_torch_thread
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views, choose_views, load_views
from worldline import motion
from worldline.metrics import gradient_magnitude_similarity, psnr, ssim
from worldline.metrics.images import WINDOW
from worldline.scenes import NEAR_SHARE, rescale_scene


@dataclass(frozen=True, kw_only=True)
class DriveSettings(FitSettings):
    """How a scene is fitted to the frames of one moving camera, beside what every fit has (`FitSettings`).

    Attributes:
        max_side: longer side in pixels of the frames that are fitted.
        gaussians: how many Gaussians there are at first.
        hold_out_every: every k-th registered frame is kept for evaluation and never fitted; 0 fits all frames.
        moving_share: largest share of the Gaussians that begin on moving regions; the share of moving pixels decides below it.
    """

    max_side: Annotated[int, Field(ge=16)] = 320
    gaussians: Annotated[int, Field(ge=16)] = 16000
    hold_out_every: NonNegativeInt = 8
    moving_share: Annotated[float, Field(ge=0, le=1)] = 0.3


@dataclass(frozen=True)
class Drive:
    """The frames of a drive, ready to be fitted.

    Attributes:
        views: all registered frames; the unit of their cameras is the scene's typical depth.
        held_out: `[V]` bool, those that are never fitted.
        stopping: `[V]` bool, those of the held-out that say when to stop (every second one), and are not scored then.
        scale: length of that unit in the camera path's.
        background: `[3]` the median colour of what stands still in the fitted frames.
    """

    views: Views
    held_out: np.ndarray
    stopping: np.ndarray
    scale: float
    background: np.ndarray

    @property
    def generated(self) -> np.ndarray:
        """`[V]` bool, views that a model made."""
        return np.zeros(len(self.held_out), bool) if self.views.generated is None else self.views.generated

    @property
    def training(self) -> Views:
        """The recorded frames that are fitted."""
        return choose_views(self.views, np.flatnonzero(~self.held_out & ~self.generated))


def open_drive(clip: Clip, path: CameraPath, points: PointCloud, masks: Masks, settings: DriveSettings) -> Drive:
    """Load the registered frames and measure the scene's unit: its typical depth, 1 where there are no points."""
    views = load_views(clip, path, masks, settings.max_side)
    count, every = len(views.frames), settings.hold_out_every
    held_out = np.arange(count) % every == every // 2 if every else np.zeros(count, bool)
    if held_out.all():
        held_out[:] = False
    scale = measure_depths(views, points, 1.0).typical if len(points.xyz) else 1.0
    poses = views.camera_from_world.copy()
    poses[:, :3, 3] /= scale
    views = dataclasses.replace(views, camera_from_world=poses)
    standing = views.images[~held_out][views.labels[~held_out] == 0]
    background = np.median(standing, axis=0) / 255.0 if len(standing) else np.full(3, 0.5)
    stopping = held_out & (np.cumsum(held_out) % 2 == 0) & bool(settings.patience)
    return Drive(views, held_out, stopping, scale, background)


def fit_drive(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    model: str,
    settings: DriveSettings,
    make_seeds: Callable[[Drive, np.random.Generator], Seeds],
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
    prepare: Callable[[Drive], Drive] = lambda drive: drive,
    cousins: CousinRules | None = None,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene to the registered frames and measure it on frames that were held out.

    Without triangulated points (a camera on a tripod) everything lies on a layer at unit depth: the scene then explains the
    frames from where they were taken, and nothing else. Without registered frames the scene is empty.

    Args:
        clip: the frames.
        path: their cameras.
        points: triangulated in them.
        masks: what moves.
        model: name in `worldline.motion.MODELS`.
        settings: how.
        make_seeds: the first Gaussians and the motion model's arrays for them, in the drive's unit.
        seed: of all randomness.
        progress: told of every tenth step.
        checkpoints: folder.
        prepare: what else the drive's views know, such as depths, or generated views.
        cousins: what generated views are worth, where there are some.
    """
    start_s, end_s = float(clip.times_s[0]), float(clip.times_s[-1])
    if not path.registered.any():
        return _empty_scene(path, start_s, end_s), Metrics(rows_to_table(FIGURES, []))
    drive = prepare(open_drive(clip, path, points, masks, settings))
    training = np.flatnonzero(~drive.held_out)
    errors: list[float] = []

    def after_step(done: int, error: float) -> None:
        errors.append(error)
        if done % 10 == 0 or done == settings.steps:
            decibels = -10 * np.log10(np.mean(errors[-len(training) :]))
            progress(done, settings.steps, f"PSNR {decibels:.1f} dB")

    scene = fit_scene(
        drive.views, make_seeds(drive, np.random.default_rng([seed, 0])), model, settings, training=training,
        validation=np.flatnonzero(drive.stopping), background=drive.background, seed=seed, after_step=after_step,
        checkpoints=checkpoints, cousins=cousins,
    )  # fmt: skip
    with one_torch_thread():
        figures = measure(scene, drive)
    scene = dataclasses.replace(
        rescale_scene(scene, drive.scale),
        start_s=start_s,
        end_s=end_s,
        scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
    )
    return scene, Metrics(rows_to_table(FIGURES, sorted(figures, key=lambda row: row["name"])))


def measure(scene: Scene4D, drive: Drive) -> list[dict]:
    """Draw every view and return the figures."""
    views, made = drive.views, drive.generated & ~drive.held_out
    scored, fitted = drive.held_out & ~drive.stopping & ~drive.generated, ~drive.held_out & ~drive.generated
    background = torch.from_numpy(scene.background.astype(np.float32))
    whole, moving, similar, edges = np.full((4, len(views.frames)), np.nan)
    for view in range(len(views.frames)):
        with torch.no_grad():
            gaussians = motion.state_at(scene, float(views.times[view]))
            drawn = draw(gaussians, views, view, background, NEAR_SHARE, surfels=scene.primitive == "surfel")
        image = drawn.colors.clamp(0, 1)
        target = torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))
        whole[view] = psnr(image, target)
        moving[view] = psnr(image, target, torch.from_numpy(views.labels[view] > 0))
        if min(views.size) >= WINDOW:
            similar[view] = float(ssim(image, target))
            edges[view] = gradient_magnitude_similarity(image, target)
    size = "x".join(map(str, views.size))
    unseen = f"{{}} frames that were neither fitted nor asked when to stop, {size} px" if drive.stopping.any() else (
        f"{{}} frames that were not fitted, {size} px"
    )  # fmt: skip
    measured = [
        ("heldout_psnr_db", whole[scored], "dB", unseen),
        ("heldout_ssim", similar[scored], "of 1", unseen),
        ("heldout_gms", edges[scored], "of 1", f"gradient-magnitude similarity, {unseen}"),
        ("moving_psnr_db", moving[scored], "dB", f"moving regions of {unseen}"),
        ("train_psnr_db", whole[fitted], "dB", f"{{}} fitted frames, {size} px"),
        ("generated_psnr_db", whole[made], "dB", f"{{}} generated frames that were fitted, {size} px"),
    ]
    figures = [
        {"name": f"reconstruct.{name}", "value": float(good.mean()), "unit": unit, "detail": detail.format(len(good))}
        for name, scores, unit, detail in measured
        if len(good := scores[np.isfinite(scores)])
    ]
    return [*figures, _count(scene)]


def _count(scene: Scene4D) -> dict:
    count = len(scene.means)
    if scene.motion_model == "gaussian_flow":
        movers = len(scene.motion["moving"])
    elif scene.motion_model == "rigid_agents":
        movers = int((scene.motion["agents"] > 0).sum())
    else:
        movers = 0 if scene.motion_model == "static" else count
    return {"name": "reconstruct.gaussians", "value": float(count), "unit": "gaussians", "detail": f"{movers} of them can move"}


def _empty_scene(path: CameraPath, start_s: float, end_s: float) -> Scene4D:
    none = np.zeros((0, 3), np.float32)
    return Scene4D(
        motion_model="static", means=none, quats=np.zeros((0, 4), np.float32), scales=none, opacities=np.zeros(0, np.float32),
        colors=none, motion={}, start_s=start_s, end_s=end_s, background=np.full(3, 0.5), scale_source=path.scale_source,
        scale_sigma=path.scale_sigma,
    )  # fmt: skip
