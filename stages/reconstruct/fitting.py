"""Fit Gaussians of any motion model to views by gradient descent on what they look like.

Every random draw of step k comes from a generator seeded with (seed, k), and the whole state is arrays: a fit that
is stopped after any step and continued from its checkpoint takes the same steps as one that was not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from schemas.scenes import Scene4D
from stages.reconstruct import losses
from stages.reconstruct.checkpoint import load_checkpoint, save_checkpoint
from stages.reconstruct.growth import GROWTHS
from stages.reconstruct.motion_seeds import with_motion
from stages.reconstruct.optimizer import adam_step
from stages.reconstruct.parameters import (
    PARAMETERS,
    FitState,
    activate,
    hold_in_range,
    initial_state,
    measure_distances,
    to_scene,
)
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views, halve
from worldline.gaussians import Gaussians
from worldline.metrics.images import WINDOW
from worldline.motion import MODELS
from worldline.scenes import NEAR_SHARE
from worldline.splatting import Cameras, rasterize


def fit_scene(
    views: Views,
    seeds: Seeds,
    model: str,
    settings: FitSettings,
    *,
    training: np.ndarray,
    validation: np.ndarray,
    background: np.ndarray,
    seed: int,
    near_plane: float = NEAR_SHARE,
    after_step: Callable[[int, float], None] = lambda done, error: None,
    checkpoints: Path | None = None,
) -> Scene4D:
    """Fit a scene of one motion model.

    Args:
        views: at full resolution, times in [0, 1].
        seeds: the first Gaussians; arrays of the motion model that they lack are given their usual start.
        model: name in `worldline.motion.MODELS`.
        settings: how.
        training: `[T]` indices of the views to fit.
        validation: `[V]` indices of views that are never fitted.
        background: `[3]` RGB behind the Gaussians.
        seed: of all randomness.
        near_plane: Gaussians whose centre is nearer to a camera are not drawn; in the unit of the views.
        after_step: called with the number of steps taken and the mean squared error of the last one's views before it.
        checkpoints: folder to continue from and to leave checkpoints in.

    Returns:
        The scene in the unit of the views, over the time span [0, 1].
    """
    pyramid = build_pyramid(views, settings.resolutions)
    behind = torch.from_numpy(np.asarray(background, np.float32))
    seeds = with_motion(seeds, model, np.random.default_rng([seed, 0, 1]))
    with one_torch_thread():
        saved = load_checkpoint(checkpoints) if checkpoints is not None else None
        if saved is not None:
            start, state = saved[0], FitState.from_arrays(saved[1])
        else:
            start, state = 0, initial_state(seeds, settings.primitive, settings.harmonics)
            measure_distances(state, views.centers)
        for step in range(start, settings.steps):
            level = min(len(pyramid) - 1, step * 2 * len(pyramid) // settings.steps)
            chosen = _choose(training, settings.batch, step, seed)
            error = _step(state, model, pyramid[level], chosen, behind, near_plane, settings, step)
            done = step + 1
            if done % settings.grow_every == 0:
                if done <= settings.grow_until * settings.steps:
                    GROWTHS[settings.growth](state, settings, np.random.default_rng([seed, step, 2]))
                measure_distances(state, views.centers)
            after_step(done, error)
            if checkpoints is not None and done % settings.checkpoint_every == 0 and done < settings.steps:
                save_checkpoint(checkpoints, done, state.arrays())
    return to_scene(state, model, settings.primitive, background)


def build_pyramid(views: Views, resolutions: int) -> list[Views]:
    """Return the views at rising resolutions, at most so many, none too small for SSIM."""
    pyramid = [views]
    while len(pyramid) < resolutions and min(pyramid[0].size) >= 4 * WINDOW:
        pyramid.insert(0, halve(pyramid[0]))
    return pyramid


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread: its sums are cut by the number of threads, and its share of the work is small.

    The kernels of `worldline.splatting` have their own threads, which do not change results.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw(gaussians: Gaussians, views: Views, view: int, background: Tensor, near: float) -> tuple[Tensor, dict]:
    """Rasterise one view: image `[H, W, 3]` and the rasteriser's `meta`."""
    camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
    rendering = rasterize(gaussians, camera, near_plane=near, backgrounds=background[None], antialiased=True)
    return rendering.colors[0], rendering.meta


def _choose(training: np.ndarray, batch: int, step: int, seed: int) -> list[int]:
    """Return the views of a step: every epoch goes through all of them in another order."""
    chosen = []
    for index in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(index, len(training))
        chosen.append(int(np.random.default_rng([seed, epoch, 1]).permutation(training)[place]))
    return chosen


def _step(
    state: FitState, model: str, views: Views, chosen: list[int], background: Tensor, near: float, settings: FitSettings,
    step: int,
) -> float:  # fmt: skip
    """Take one step and return the mean squared error of its views before it."""
    leaves = {name: torch.from_numpy(array).requires_grad_() for name, array in state.values.items()}
    canonical, motion = activate(leaves, {name: torch.from_numpy(array) for name, array in state.fixed.items()})
    loss, errors, drawn = torch.zeros(()), [], []
    for view in chosen:
        gaussians = MODELS[model].state_at(canonical, motion, float(views.times[view]))
        image, meta = draw(gaussians, views, view, background, near)
        meta["means2d"].retain_grad()
        drawn.append(meta)
        target = torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))
        loss = loss + losses.image_difference(image, target, settings.ssim_weight) / len(chosen)
        errors.append(float((image.detach() - target).square().mean()))
    if settings.opacity_weight:
        loss = loss + settings.opacity_weight * canonical.opacities.mean()
    if settings.motion_weight and state.movers:
        loss = loss + settings.motion_weight * losses.bending(motion)
    loss.backward()
    for meta in drawn:
        pull = meta["means2d"].grad[0].norm(dim=-1).numpy()
        state.importance += pull * np.float32(0.5 * len(chosen) * max(views.size))
        state.seen += pull > 0
    _descend(state, leaves, step, step / settings.steps)
    return float(np.mean(errors))


def _descend(state: FitState, leaves: dict[str, Tensor], step: int, progress: float) -> None:
    """Take one step of Adam with each parameter's own rate."""
    for name, value in state.values.items():
        gradient = leaves[name].grad
        if gradient is None:
            continue
        parameter = PARAMETERS[name]
        rates = np.full(len(value), parameter.rate * parameter.final**progress, np.float32)
        if parameter.travels:
            rates *= np.median(state.distance) if parameter.rows == "scene" else state.distance[: len(value)]
        adam_step(value, gradient.numpy(), state.first[name], state.second[name], rates, step + 1)
    hold_in_range(state.values)
