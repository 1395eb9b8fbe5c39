"""Train the network on windows of clips whose true frames are known.

Every random draw of step k comes from a generator seeded with (seed, k), and the whole state is arrays: a training that is
stopped after any step and continued from its checkpoint ends in the same weights on the same number of threads.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Float64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from worldline.diffusion.devices import autocast, torch_threads
from worldline.diffusion.network import DIFFERENCE_GAIN, StreetVideoNetwork
from worldline.diffusion.settings import TrainingSettings
from worldline.diffusion.windows import (
    BOXES,
    PRIOR,
    Inputs,
    Window,
    check_size,
    crop,
    degrade,
    mirror,
    read_window,
    to_inputs,
    to_targets,
)

Example = tuple[Conditions, Conditions, Clip]  # with warped frames as prior, with a scene's drawing as prior, and the truth
_CHECKPOINT = "training.safetensors"
_BOX_WEIGHT, _HOLE_WEIGHT, _EDGE_WEIGHT = 1.0, 2.0, 0.25
# Of a difference, in [-1, 1]: below it the loss is square, as the figure by which frames are measured is, above it straight.
_SMALL = 0.2
_WARM_UP = 50  # steps


def train_network(
    network: StreetVideoNetwork,
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    seed: int,
    checkpoints: Path,
    after_step: Callable[[int, float, float], None] = lambda done, loss, of_prior: None,
) -> Float64[np.ndarray, "steps 2"]:
    """Train the network in place and leave the running mean of its weights in it.

    Args:
        network: as it starts; on return it is on the CPU, ready to be asked.
        examples: conditions of views, warped and drawn, and the clips that are to be made of them.
        settings: with device, dtype and threads resolved.
        seed: of all randomness but the network's own start.
        checkpoints: folder to continue from and to leave checkpoints in.
        after_step: called with the number of steps taken, the loss of the last one and what the filled prior would have lost.

    Returns:
        The loss of every step, and that of the filled prior on the same windows.

    Raises:
        WorldlineError: if there are no examples, sizes do not go together, or the loss is no number.
    """
    if not examples:
        raise WorldlineError("there is nothing to train on: give at least one clip with its conditions that is not held out")
    for conditions, drawn, clip in examples:
        check_size(conditions, drawn, clip)
    with torch_threads(settings.threads):
        network.to(settings.device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-2)
        average = EMAModel(network.parameters(), decay=settings.average, use_ema_warmup=True, power=3 / 4)
        average.to(settings.device)
        losses = _load(checkpoints, network, optimizer, average)
        for step in range(len(losses), settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * _rate_share(step, settings.steps)
            loss, of_prior = _step(network, optimizer, examples, settings, np.random.default_rng([seed, step]))
            if not math.isfinite(loss):
                raise WorldlineError(f"the training came apart at step {step + 1}: its loss is no number; lower rate")
            average.step(network.parameters())
            losses.append((loss, of_prior))
            after_step(step + 1, loss, of_prior)
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
                _save(checkpoints, network, optimizer, average, losses)
        average.copy_to(network.parameters())
        network.to("cpu").eval()
    return np.array(losses)


def _step(
    network: StreetVideoNetwork,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    settings: TrainingSettings,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Take one step and return the loss before it, and that of the filled prior."""
    windows = [draw_window(examples, settings, rng) for _ in range(settings.batch)]
    inputs, targets = to_inputs(windows), to_targets(windows)
    pure = rng.random(settings.batch) < settings.pure_noise
    level = torch.from_numpy(np.where(pure, 1.0, rng.random(settings.batch)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(targets.shape, dtype=np.float32))
    inputs = inputs.to(settings.device)
    targets, level, noise = (item.to(settings.device) for item in (targets, level, noise))
    filled = inputs.planes[:, :, PRIOR]
    spread = level[:, None, None, None, None]
    noisy = (1 - spread) * (targets - filled) * DIFFERENCE_GAIN + spread * noise
    with autocast(settings.device, settings.dtype):
        predicted = network.forward(noisy, level, inputs)
    loss = _loss(filled + predicted.float() / DIFFERENCE_GAIN, targets, inputs)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach()), float(_loss(filled, targets, inputs))


def draw_window(examples: Sequence[Example], settings: TrainingSettings, rng: np.random.Generator) -> Window:
    """Return a random window of the examples: cropped, mirrored or not, its warped frames made worse or not."""
    conditions, drawn, clip = examples[int(rng.integers(len(examples)))]
    length = min(settings.window, len(clip.times_s))
    first = int(rng.integers(len(clip.times_s) - length + 1))
    window = read_window(conditions, drawn, range(first, first + length), clip)
    window = degrade(crop(window, settings.crop_width, settings.crop_height, rng), rng)
    if rng.random() < 0.5:
        window = mirror(window)
    return window._replace(text="") if rng.random() < settings.drop_text else window


def _loss(frames: Float[Tensor, "B F 3 H W"], targets: Float[Tensor, "B F 3 H W"], inputs: Inputs) -> Float[Tensor, ""]:
    """Return how far frames are from the truth: pixels, weighted where boxes and holes are, and their edges."""
    known, boxes = inputs.planes[:, :, 7:8], inputs.planes[:, :, BOXES].amax(2, keepdim=True)
    weight = 1 + _BOX_WEIGHT * (boxes > 0) + _HOLE_WEIGHT * (1 - known)
    error = frames - targets
    edges = sum(_robust(error.diff(dim=axis)).mean() for axis in (-1, -2))
    return (weight * _robust(error)).mean() + _EDGE_WEIGHT * edges


def _robust(error: Tensor) -> Tensor:
    return (error.square() + _SMALL**2).sqrt() - _SMALL


def _rate_share(step: int, steps: int) -> float:
    falling = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    return falling * min(1.0, (step + 1) / _WARM_UP)


def _save(
    folder: Path,
    network: StreetVideoNetwork,
    optimizer: torch.optim.Optimizer,
    average: EMAModel,
    losses: list[tuple[float, float]],
) -> None:
    """Write the whole state; a kill at any moment leaves the old file or the new one."""
    arrays = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    arrays |= {f"average.{index}": tensor for index, tensor in enumerate(average.shadow_params)}
    for index, values in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
    arrays["losses"] = torch.tensor(losses, dtype=torch.float64)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_CHECKPOINT}.{os.getpid()}.tmp"
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in arrays.items()}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(folder / _CHECKPOINT)


def _load(
    folder: Path, network: StreetVideoNetwork, optimizer: torch.optim.Optimizer, average: EMAModel
) -> list[tuple[float, float]]:
    """Put the state of a whole checkpoint into place, and return the losses so far; none where there is no checkpoint."""
    try:
        arrays = load_file(folder / _CHECKPOINT)
    except (FileNotFoundError, SafetensorError):
        return []
    network.load_state_dict({name: arrays[f"network.{name}"] for name in network.state_dict()})
    for index, tensor in enumerate(average.shadow_params):
        tensor.copy_(arrays[f"average.{index}"])
    state = optimizer.state_dict()
    state["state"] = {
        index: {name: arrays[f"optimizer.{index}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
        for index in range(len(average.shadow_params))
    }
    optimizer.load_state_dict(state)
    losses = [(own, of_prior) for own, of_prior in arrays["losses"].tolist()]
    average.optimization_step = len(losses)
    return losses
