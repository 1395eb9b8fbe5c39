"""Fit Gaussians of any motion model to views by gradient descent on what they look like.

Every random draw of step k comes from a generator seeded with (seed, k), and the whole state is arrays: a fit that
is stopped after any step and continued from its checkpoint takes the same steps as one that was not.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from stages.reconstruct import losses
from stages.reconstruct.checkpoint import load_checkpoint, save_checkpoint
from stages.reconstruct.cousins import CousinRules, choose_pair, first_appearance, seen_as_generated
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
    measure_neighbours,
    to_scene,
)
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views, halve
from worldline.gaussians import Gaussians
from worldline.metrics import psnr
from worldline.metrics.images import WINDOW
from worldline.motion import MODELS, regularisers
from worldline.scenes import NEAR_SHARE
from worldline.splatting import (
    Cameras,
    Rendering,
    SurfelRendering,
    depth_distortion,
    normal_consistency,
    rasterize,
    rasterize_surfels,
)


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
    cousins: CousinRules | None = None,
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
        validation: `[V]` indices of views that say when to stop, where `settings.patience` asks for it.
        background: `[3]` RGB behind the Gaussians.
        seed: of all randomness.
        near_plane: Gaussians whose centre is nearer to a camera are not drawn; in the unit of the views.
        cousins: what generated views are worth, where there are some.
        after_step: called with the number of steps taken and the mean squared error of the last one's views before it.
        checkpoints: folder to continue from and to leave checkpoints in.

    Returns:
        The scene in the unit of the views, over the time span [0, 1]. With `settings.patience`, the state that drew the
        validation views best.

    Raises:
        WorldlineError: for views or seeds with numbers that are not finite, where there is nothing to fit, and for surfels that
            are native 4D Gaussians.
    """
    _refuse(views, seeds, training)
    if model == "native_4d" and settings.primitive == "surfel":
        raise WorldlineError(
            "primitive=surfel does not go with native_4d, whose Gaussians are cuts of 4D ones: take another method"
        )
    seeds = with_motion(seeds, model, np.random.default_rng([seed, 0, 1]))
    if not len(seeds.means):
        return to_scene(initial_state(seeds, settings.primitive, settings.harmonics), model, settings.primitive, background)
    pyramid = build_pyramid(views, settings.resolutions)
    behind = torch.from_numpy(np.asarray(background, np.float32))
    with one_torch_thread():
        saved = load_checkpoint(checkpoints) if checkpoints is not None else None
        if saved is not None:
            start, state = saved[0], FitState.from_arrays(saved[1])
        else:
            start, state = 0, initial_state(seeds, settings.primitive, settings.harmonics)
            if cousins is not None and cousins.appearance:
                first_appearance(state, views)
            _measure(state, views, settings)
        for step in range(start, settings.steps):
            level = min(len(pyramid) - 1, step * 2 * len(pyramid) // settings.steps)
            if cousins is not None and cousins.pairing:
                chosen = choose_pair(views, training, settings.batch, step, seed)
            else:
                chosen = _choose(training, settings.batch, step, seed)
            error = _step(state, model, pyramid[level], chosen, behind, near_plane, settings, cousins, step, seed)
            if not np.isfinite(error):
                raise WorldlineError(f"the fit came apart at step {step + 1}: its images are not numbers; try another seed")
            done = step + 1
            if done % settings.grow_every == 0:
                if done <= settings.grow_until * settings.steps:
                    GROWTHS[settings.growth](state, settings, np.random.default_rng([seed, step, 2]))
                _measure(state, views, settings)
            last = done == settings.steps
            if settings.patience and len(validation) and (last or done % settings.evaluate_every == 0):
                decibels = _score(state, model, views, validation, behind, near_plane, settings.primitive == "surfel")
                last = _remember(state, decibels, settings.patience) or last
            after_step(done, error)
            if last:
                break
            if checkpoints is not None and done % settings.checkpoint_every == 0:
                save_checkpoint(checkpoints, done, state.arrays())
    state.restore_best()
    return to_scene(state, model, settings.primitive, background)


def _measure(state: FitState, views: Views, settings: FitSettings) -> None:
    measure_distances(state, views.centers)
    if settings.rigidity_weight:
        measure_neighbours(state)


def _refuse(views: Views, seeds: Seeds, training: np.ndarray) -> None:
    """Refuse what no fit can come back from.

    Raises:
        WorldlineError: naming what is not finite, or that there is nothing to fit.
    """
    given = {
        "camera poses": views.camera_from_world,
        "camera intrinsics": views.intrinsics,
        "times of the views": views.times,
        "means of the first Gaussians": seeds.means,
        "sizes of the first Gaussians": seeds.sizes,
        "colors of the first Gaussians": seeds.colors,
        **{f"{name} of the first Gaussians": array for name, array in seeds.motion.items()},
    }
    for name, array in given.items():
        if not np.isfinite(array).all():
            raise WorldlineError(f"the {name} hold numbers that are not finite: fit views and seeds without NaN")
    if not len(training):
        raise WorldlineError("there is no view to fit: every one of them is held out")


def _remember(state: FitState, decibels: float, patience: int) -> bool:
    """Keep the state if no other was as good, and return whether to stop."""
    if decibels > state.waited[0]:
        state.waited[:] = decibels, 0
        state.keep_best()
    else:
        state.waited[1] += 1
    return bool(state.waited[1] >= patience)


def _score(
    state: FitState, model: str, views: Views, validation: np.ndarray, background: Tensor, near: float, surfels: bool
) -> float:
    """Return the mean PSNR in dB of views that are not fitted."""
    canonical, motion = activate(*(_tensors(part) for part in (state.values, state.fixed)))
    decibels = []
    for view in validation:
        with torch.no_grad():
            gaussians = MODELS[model].state_at(canonical, motion, float(views.times[view]))
            drawn = draw(gaussians, views, int(view), background, near, surfels=surfels)
        decibels.append(psnr(drawn.colors, _target(views, int(view))))
    return float(np.mean(decibels))


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


class Drawn(NamedTuple):
    """One view of Gaussians: images `[H, W, ...]` and what the rasteriser knows."""

    colors: Tensor
    alphas: Tensor
    depths: Tensor | None
    features: Tensor | None
    meta: dict[str, Any]
    surfels: SurfelRendering | None


def draw(
    gaussians: Gaussians, views: Views, view: int, background: Tensor, near: float, *, surfels: bool = False,
    features: Tensor | None = None, depths: bool = False,
) -> Drawn:  # fmt: skip
    """Rasterise one view of Gaussians, or of surfels, as fits do: antialiased, so that resolutions can change."""
    camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
    rendering: Rendering | SurfelRendering
    if surfels:
        rendering = rasterize_surfels(gaussians, camera, features=features, near_plane=near, backgrounds=background[None])
    else:
        rendering = rasterize(
            gaussians, camera, features=features, depths=depths, near_plane=near, backgrounds=background[None], antialiased=True
        )
    images = (rendering.colors, rendering.alphas, rendering.depths, rendering.features)
    colors, alphas, deep, further = (None if image is None else image[0] for image in images)
    assert colors is not None
    assert alphas is not None
    return Drawn(
        colors, alphas[..., 0], None if deep is None else deep[..., 0], further, rendering.meta,
        rendering if isinstance(rendering, SurfelRendering) else None,
    )  # fmt: skip


def _choose(training: np.ndarray, batch: int, step: int, seed: int) -> list[int]:
    """Return the views of a step: every epoch goes through all of them in another order."""
    chosen = []
    for index in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(index, len(training))
        chosen.append(int(np.random.default_rng([seed, epoch, 1]).permutation(training)[place]))
    return chosen


def _step(
    state: FitState, model: str, views: Views, chosen: list[int], background: Tensor, near: float, settings: FitSettings,
    cousins: CousinRules | None, step: int, seed: int,
) -> float:  # fmt: skip
    """Take one step and return the mean squared error of its recorded views (of all, without any) before it."""
    leaves = {name: array.requires_grad_() for name, array in _tensors(state.values).items()}
    fixed = _tensors(state.fixed)
    canonical, motion = activate(leaves, fixed)
    wants_depth = settings.depth_weight > 0 and views.depths is not None
    objects = (fixed["instances"] > 0).float()[:, None] if settings.mask_weight and "instances" in fixed else None
    surfels = settings.primitive == "surfel"
    loss, errors, pulled, pair = torch.zeros(()), [], [], []
    for view in chosen:
        gaussians = MODELS[model].state_at(canonical, motion, float(views.times[view]))
        drawn = draw(gaussians, views, view, background, near, surfels=surfels, features=objects, depths=wants_depth)
        drawn.meta["means2d"].retain_grad()
        pulled.append(drawn.meta["means2d"])
        target = _target(views, view)
        if settings.ignore_labelled:
            target = torch.where(torch.from_numpy(views.labels[view] > 0)[..., None], drawn.colors.detach(), target)
        generated = views.generated is not None and bool(views.generated[view])
        if generated and cousins is not None:
            shown = seen_as_generated(drawn.colors, leaves, views, view)
            cost = cousins.weight * losses.image_difference(shown, target, settings.ssim_weight)
        else:
            cost = _view_loss(drawn, target, views, view, settings)
        loss = loss + cost / len(chosen)
        pair.append(drawn.colors)
        errors.append((generated, float((drawn.colors.detach() - target).square().mean())))
    if cousins is not None and cousins.pairing and cousins.features is not None:
        halfway = len(pair) // 2  # recorded views first, then their cousins in the same order
        for recorded, novel in zip(pair[:halfway], pair[halfway:], strict=True):
            apart = (cousins.features(recorded) - cousins.features(novel)).abs().mean()
            loss = loss + cousins.feature_weight * apart / halfway
    loss = loss + _scene_loss(state, model, canonical, motion, settings, np.random.default_rng([seed, step, 3]))
    loss.backward()
    for means2d in pulled:
        pull = means2d.grad[0].norm(dim=-1).numpy()
        state.importance += pull * np.float32(0.5 * len(chosen) * max(views.size))
        state.seen += pull > 0
    _descend(state, leaves, step, settings)
    of_recorded = [error for generated, error in errors if not generated]
    return float(np.mean(of_recorded or [error for _, error in errors]))


def _view_loss(drawn: Drawn, target: Tensor, views: Views, view: int, settings: FitSettings) -> Tensor:
    """Return what one view costs."""
    loss = losses.image_difference(drawn.colors, target, settings.ssim_weight)
    if settings.depth_weight and views.depths is not None and drawn.depths is not None:
        known = torch.from_numpy(np.ascontiguousarray(views.depths[view]))
        loss = loss + settings.depth_weight * losses.depth_difference(drawn.depths, drawn.alphas, known)
    if drawn.features is not None:
        labelled = torch.from_numpy(views.labels[view] > 0)
        loss = loss + settings.mask_weight * losses.mask_difference(drawn.features[..., 0], labelled)
    if settings.sky_weight and views.sky is not None:
        sky = torch.from_numpy(np.ascontiguousarray(views.sky[view]))
        loss = loss + settings.sky_weight * losses.sky_opacity(drawn.alphas, sky)
    if drawn.surfels is not None:
        loss = loss + settings.normal_weight * normal_consistency(drawn.surfels)
        loss = loss + settings.distortion_weight * depth_distortion(drawn.surfels)
    return loss


def _scene_loss(
    state: FitState, model: str, canonical: Gaussians, motion: dict[str, Tensor], settings: FitSettings, rng: np.random.Generator
) -> Tensor:
    """Return what the scene costs beside what it looks like."""
    loss = torch.zeros(())
    if settings.opacity_weight:
        loss = loss + settings.opacity_weight * canonical.opacities.mean()
    if settings.motion_weight and state.movers:
        loss = loss + settings.motion_weight * losses.bending(motion)
    if settings.rigidity_weight or settings.smoothness_weight:
        early, late = np.sort(rng.uniform(size=2))
        now = MODELS[model].state_at(canonical, motion, float(early))
        if settings.smoothness_weight:
            soon = MODELS[model].state_at(canonical, motion, float(early + 0.01 * rng.standard_normal()))
            loss = loss + settings.smoothness_weight * regularisers.time_smoothness(soon.means, now.means)
        if settings.rigidity_weight:
            then = MODELS[model].state_at(canonical, motion, float(late))
            neighbours = regularisers.Neighbours(torch.from_numpy(state.neighbours), torch.from_numpy(state.closeness))
            now, then = (_first(gaussians, len(state.neighbours)) for gaussians in (now, then))
            loss = loss + settings.rigidity_weight * regularisers.rigidity(now, then, neighbours)
    return loss


def _first(gaussians: Gaussians, count: int) -> Gaussians:
    return Gaussians(*(None if array is None else array[:count] for array in gaussians))  # type: ignore[arg-type]


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _target(views: Views, view: int) -> Tensor:
    """Return the image `[H, W, 3]` in [0, 1]."""
    return torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))


def _descend(state: FitState, leaves: dict[str, Tensor], step: int, settings: FitSettings) -> None:
    """Take one step of Adam with each parameter's own rate."""
    for name, value in state.values.items():
        gradient = leaves[name].grad
        if gradient is None:
            continue
        parameter = PARAMETERS[name]
        final = settings.final_place_rate if parameter.final is None else parameter.final
        rates = np.full(len(value), parameter.rate * final ** (step / settings.steps), np.float32)
        if parameter.travels:
            rates *= np.median(state.distance) if parameter.rows == "scene" else state.distance[: len(value)]
        adam_step(value, gradient.numpy(), state.first[name], state.second[name], rates, step + 1)
    hold_in_range(state.values)
