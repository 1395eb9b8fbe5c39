"""Motion models: each answers where its Gaussians are at a time, and how fast they move there.

A model is one module with `state_at(canonical, motion, time)` and `velocity_at(canonical, motion, time)` on a normalised
time in [0, 1]; `MODELS` names them. `state_at(scene, time_s)` is the way in for everybody who holds a `Scene4D`.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType

import torch
from torch import Tensor

from schemas.scenes import Scene4D
from worldline.gaussians import Gaussians
from worldline.motion import gaussian_birth, gaussian_flow, native_4d, periodic_vibration, rigid_agents, static

__all__ = ["MODELS", "Gaussians", "state_at", "states_at", "velocity_at"]

MODELS: Mapping[str, ModuleType] = {
    "static": static,
    "gaussian_flow": gaussian_flow,
    "native_4d": native_4d,
    "periodic_vibration": periodic_vibration,
    "rigid_agents": rigid_agents,
    "gaussian_birth": gaussian_birth,
}


def state_at(scene: Scene4D, time_s: float) -> Gaussians:
    """Return the scene's Gaussians at a time in seconds of the clip.

    Times outside the fitted span give the state at its nearer end: a polynomial says nothing beyond it.
    """
    return MODELS[scene.motion_model].state_at(*_tensors(scene), _normalised(scene, time_s))


def states_at(scene: Scene4D, times_s: Sequence[float]) -> Gaussians:
    """Return the scene's Gaussians at T times, every array with a leading dimension `[T, N, ...]`: one batch to draw."""
    states = [state_at(scene, time_s) for time_s in times_s]
    columns = {name: [getattr(state, name) for state in states] for name in Gaussians._fields}
    return Gaussians(**{name: torch.stack(parts) for name, parts in columns.items() if parts[0] is not None})


def velocity_at(scene: Scene4D, time_s: float) -> Tensor:
    """Return `[N, 3]` velocities of the Gaussians' centres at a time, in scene units per second.

    Closed form. Zero outside the fitted span, where `state_at` stands still.
    """
    if not scene.start_s <= time_s <= scene.end_s or scene.end_s <= scene.start_s:
        return torch.zeros(scene.means.shape)
    velocity = MODELS[scene.motion_model].velocity_at(*_tensors(scene), _normalised(scene, time_s))
    return velocity / (scene.end_s - scene.start_s)


def _normalised(scene: Scene4D, time_s: float) -> float:
    span = scene.end_s - scene.start_s
    return float(min(max((time_s - scene.start_s) / span, 0.0), 1.0)) if span > 0 else 0.0


def _tensors(scene: Scene4D) -> tuple[Gaussians, dict[str, Tensor]]:
    arrays = (scene.means, scene.quats, scene.scales, scene.opacities, scene.colors)
    canonical = Gaussians(*map(torch.from_numpy, arrays))
    if scene.harmonics is not None:
        canonical = canonical._replace(harmonics=torch.from_numpy(scene.harmonics))
    return canonical, {name: torch.from_numpy(array) for name, array in scene.motion.items()}
