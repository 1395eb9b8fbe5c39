"""Fit moving Gaussians to views by gradient descent on what they look like.

Every random draw of step k comes from a generator seeded with (seed, k), and the whole state is arrays: a fit that
is stopped after any step and continued from its checkpoint takes the same steps as one that was not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from stages.reconstruct.optimizer import adam_step, choose_relocations, share_opacity
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.views import Views
from worldline.cameras import rotation_from_quaternion
from worldline.gaussians import Gaussians
from worldline.metrics import ssim
from worldline.metrics.images import WINDOW
from worldline.motion import gaussian_flow
from worldline.scenes import NEAR_SHARE
from worldline.splatting import Cameras, rasterize

# Step sizes of Adam. Positions (and what moves them) are multiplied with the distance to the nearest camera, so that one
# step is the same number of pixels for near and far Gaussians.
RATES = {
    "means": 3e-3,
    "quats": 4e-3,
    "log_scales": 3e-2,
    "logits": 5e-2,
    "colors": 2e-2,
    "time_centers": 5e-4,
    "position_polynomial": 3e-3,
    "position_fourier": 1e-3,
    "rotation_polynomial": 2e-3,
    "rotation_fourier": 1e-3,
    "color_polynomial": 4e-3,
    "color_fourier": 2e-3,
}
FINAL_POSITION_RATE = 0.03  # of the first one; exponential in between, as in 3DGS
FINAL_RATE = 0.3  # of the other parameters
POSITIONS = ("means", "position_polynomial", "position_fourier")
OPACITY_RANGE = (0.005, 0.9999)
SPLIT_SIZE = 0.8  # of a Gaussian and its copies, beyond what sharing its opacity makes of them
SPLIT_SPREAD = 0.7  # of a standard deviation: how far copies go
MOTION = tuple(RATES)[5:]


@dataclass
class FitState:
    """All that a fit knows, and all that a checkpoint holds.

    Attributes:
        values: parameters by name, float32.
        first: Adam's running means, by name.
        second: Adam's running mean squares, by name.
        importance: `[N]`, each Gaussian's image gradients summed since the last relocation.
        distance: `[N]`, from each Gaussian to the nearest camera at the last relocation.
    """

    values: dict[str, np.ndarray]
    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]
    importance: np.ndarray
    distance: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything by flat names, for a checkpoint."""
        parts = {"values": self.values, "first": self.first, "second": self.second}
        flat = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return flat | {"importance": self.importance, "distance": self.distance}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "FitState":
        """Take back what `arrays` gave."""
        parts: dict[str, dict[str, np.ndarray]] = {"values": {}, "first": {}, "second": {}}
        for name, array in arrays.items():
            if "/" in name:
                part, key = name.split("/")
                parts[part][key] = array
        return cls(**parts, importance=arrays["importance"], distance=arrays["distance"])


def initial_state(seeds: Seeds, cameras: np.ndarray, harmonics: int, color_powers: int, rotation_powers: int) -> FitState:
    """Make parameters from seeds and camera centres `[V, 3]`: round, half transparent, moving as the seeds do."""
    count, moving = len(seeds.means), len(seeds.centers)
    opacities = np.full(count, 0.35)
    opacities[:moving] = 0.5
    values = {
        "means": seeds.means,
        "quats": np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        "log_scales": np.log(np.repeat(seeds.sizes[:, None], 3, axis=1)),
        "logits": np.log(opacities / (1 - opacities)),
        "colors": seeds.colors,
        "time_centers": seeds.centers,
        "position_polynomial": seeds.position_polynomial,
        "position_fourier": np.zeros((moving, 2 * harmonics, 3)),
        "rotation_polynomial": np.zeros((moving, rotation_powers, 4)),
        "rotation_fourier": np.zeros((moving, 0, 4)),
        "color_polynomial": np.zeros((moving, color_powers, 3)),
        "color_fourier": np.zeros((moving, 0, 3)),
    }
    values = {name: np.ascontiguousarray(array, np.float32) for name, array in values.items()}
    first, second = ({name: np.zeros_like(array) for name, array in values.items()} for _ in range(2))
    return FitState(values, first, second, np.zeros(count, np.float32), camera_distances(values["means"], cameras))


def gaussians_at(values: dict[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time, from raw parameters."""
    canonical = Gaussians(
        means=values["means"],
        quats=values["quats"],
        scales=values["log_scales"].exp(),
        opacities=values["logits"].sigmoid(),
        colors=values["colors"],
    )
    motion = {name: values[name] for name in MOTION} | {"moving": torch.arange(len(values["time_centers"]))}
    return gaussian_flow.state_at(canonical, motion, time)


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


def draw(gaussians: Gaussians, views: Views, view: int, background: Tensor) -> tuple[Tensor, dict]:
    """Rasterise one view: image `[H, W, 3]` and the rasteriser's `meta`."""
    camera = Cameras.single(views.camera_from_world[view], views.intrinsics, *views.size)
    rendering = rasterize(gaussians, camera, near_plane=NEAR_SHARE, backgrounds=background[None], antialiased=True)
    return rendering.colors[0], rendering.meta


@dataclass(frozen=True)
class Schedule:
    """The weights and moments of a fit; see `GaussianFlowConfig`."""

    steps: int
    ssim_weight: float
    motion_weight: float
    opacity_weight: float
    relocate_every: int
    relocate_share: float
    seed: int


def fit(
    state: FitState,
    pyramid: list[Views],
    training: np.ndarray,
    background: Tensor,
    schedule: Schedule,
    start: int,
    after_step: Callable[[int, float], None],
) -> None:
    """Take steps `start` to `schedule.steps` in place, one view each.

    Args:
        state: parameters and moments.
        pyramid: the views at rising resolutions; each gets an equal share of the first half, the last the rest.
        training: indices of the views to fit.
        background: `[3]`.
        schedule: how.
        start: number of steps already taken.
        after_step: called with the number of steps taken and the mean squared error of the last.
    """
    for step in range(start, schedule.steps):
        level = min(len(pyramid) - 1, step * 2 * len(pyramid) // schedule.steps)
        views = pyramid[level]
        order = np.random.default_rng([schedule.seed, step // len(training), 1]).permutation(training)
        error = _step(state, views, int(order[step % len(training)]), background, schedule, step)
        done = step + 1
        if done % schedule.relocate_every == 0:
            if done <= 0.85 * schedule.steps:
                _relocate(state, schedule.relocate_share, np.random.default_rng([schedule.seed, step, 2]))
            state.distance = camera_distances(state.values["means"], pyramid[-1].centers)
        after_step(done, error)


def camera_distances(means: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Return the distance of each point to the nearest camera, `[N]` float32."""
    return cKDTree(cameras).query(means)[0].astype(np.float32).clip(1e-3)


def _step(state: FitState, views: Views, view: int, background: Tensor, schedule: Schedule, step: int) -> float:
    """Take one step and return the mean squared error of the view before it."""
    leaves = {name: torch.from_numpy(array).requires_grad_() for name, array in state.values.items()}
    gaussians = gaussians_at(leaves, float(views.times[view]))
    image, meta = draw(gaussians, views, view, background)
    meta["means2d"].retain_grad()
    target = torch.from_numpy(views.images[view].astype(np.float32) / np.float32(255.0))
    loss = (1.0 - schedule.ssim_weight) * (image - target).abs().mean()
    if min(views.size) >= WINDOW:
        loss = loss + schedule.ssim_weight * (1.0 - ssim(image, target))
    loss = loss + schedule.opacity_weight * gaussians.opacities.mean()
    moving = len(leaves["time_centers"])
    if moving:
        # The farther from straight motion, the dearer: everything beyond the linear term pays.
        bent = leaves["position_polynomial"][:, 1:].abs().sum() + leaves["position_fourier"].abs().sum()
        turned = leaves["rotation_polynomial"].abs().sum() + leaves["color_polynomial"].abs().sum()
        loss = loss + schedule.motion_weight * (bent + turned) / moving
    loss.backward()
    state.importance += meta["means2d"].grad[0].norm(dim=-1).numpy()
    _descend(state, leaves, schedule, step)
    return float((image.detach() - target).square().mean())


def _descend(state: FitState, leaves: dict[str, Tensor], schedule: Schedule, step: int) -> None:
    progress = step / max(schedule.steps, 1)
    for name, value in state.values.items():
        gradient = leaves[name].grad
        if gradient is None:
            continue
        rate = np.full(
            len(value), RATES[name] * (FINAL_POSITION_RATE if name in POSITIONS else FINAL_RATE) ** progress, np.float32
        )
        if name in POSITIONS:
            rate *= state.distance[: len(value)]
        adam_step(value, gradient.numpy(), state.first[name], state.second[name], rate, step + 1)
    np.clip(state.values["colors"], 0.0, 1.0, out=state.values["colors"])


def _relocate(state: FitState, share: float, rng: np.random.Generator) -> None:
    """Move the Gaussians that cover least beside those whose image pulls most, and forget the momentum of both.

    Copies at one place would get equal gradients and stay together: each is put somewhere inside its source, and both
    become smaller (the split of Kerbl et al. 2023, section 5.2).
    """
    opacities = 1.0 / (1.0 + np.exp(-state.values["logits"].astype(np.float64)))
    # What it covers in the nearest camera's image: its two longer axes, seen from there.
    axes = np.sort(state.values["log_scales"], axis=1)[:, 1:].sum(axis=1)
    mass = opacities * np.exp(axes) / np.square(state.distance)
    moving, count = len(state.values["time_centers"]), len(opacities)
    groups = [slice(0, moving), slice(moving, count)]
    dead, source = choose_relocations(mass, state.importance, share, groups, rng)
    state.importance[:] = 0
    if not len(dead):
        return
    shared, copies = np.unique(source, return_counts=True)
    opacity, factor = share_opacity(opacities[shared], copies + 1)
    opacity = opacity.clip(*OPACITY_RANGE)
    state.values["logits"][shared] = np.log(opacity / (1.0 - opacity))
    state.values["log_scales"][shared] += np.log(SPLIT_SIZE * factor)[:, None].astype(np.float32)
    for name, value in state.values.items():
        rows = dead < len(value)
        value[dead[rows]] = value[source[rows]]
        touched = shared[shared < len(value)]
        for moments in (state.first[name], state.second[name]):
            moments[dead[rows]] = 0
            moments[touched] = 0
    rotations = rotation_from_quaternion(state.values["quats"][dead])
    inside = SPLIT_SPREAD * np.exp(state.values["log_scales"][dead]) * rng.standard_normal((len(dead), 3))
    state.values["means"][dead] += np.einsum("nij,nj->ni", rotations, inside).astype(np.float32)
