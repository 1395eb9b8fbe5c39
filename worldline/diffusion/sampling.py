"""Frames from noise: few deterministic steps, on overlapping windows that agree after every step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float, UInt8
from torch import Tensor

from schemas.driving import Conditions
from worldline.diffusion.devices import autocast
from worldline.diffusion.network import DIFFERENCE_GAIN, StreetVideoNetwork
from worldline.diffusion.windows import PRIOR, WARPED, Inputs, read_window, to_inputs


def sample_frames(
    network: StreetVideoNetwork,
    conditions: Conditions,
    drawn: Conditions,
    *,
    steps: int,
    window: int,
    overlap: int,
    seed: int,
    device: str = "cpu",
    dtype: str = "float32",
    frames: int | None = None,
    after_step: Callable[[int], None] = lambda done: None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Make the frames that the conditions ask for.

    All windows of a clip take each step together, and where they overlap the mean of what they predict is taken, weighted
    towards the window in whose middle the frame lies (Bar-Tal et al., "MultiDiffusion", ICML 2023): no window is the
    first whose errors the others inherit, and there are no seams.

    Args:
        network: on `device`.
        conditions: of the view, with recorded frames warped into it as prior.
        drawn: the same with a scene's drawing as prior; the conditions themselves where there is none.
        steps: from noise to frames; one gives the mean of what the network holds possible.
        window: frames that the network sees at once.
        overlap: frames that two windows share.
        seed: of the noise, which is drawn on the CPU, so that a seed means the same on every device.
        device: torch's name.
        dtype: "float32", or "bfloat16" for mixed precision.
        frames: the first so many; None takes all.
        after_step: called with the number of steps taken.
    """
    count = min(len(conditions.times_s), frames or len(conditions.times_s))
    starts = window_starts(count, window, overlap)
    window = min(window, count)
    parts = [to_inputs([read_window(conditions, drawn, range(start, start + window))]) for start in starts]
    filled = _joined(parts, starts, count)
    noise = torch.randn(filled.shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        difference = denoise(network, noise, parts, starts, steps, device, dtype, after_step)
    return _to_frames(filled + difference / DIFFERENCE_GAIN)


def draw_priors(
    conditions: Conditions, drawn: Conditions, frames: int
) -> tuple[UInt8[np.ndarray, "T H W 3"], UInt8[np.ndarray, "T H W 3"]]:
    """Return the first frames of the filled prior and of the warped frames, as the network is given them."""
    planes = to_inputs([read_window(conditions, drawn, range(frames))]).planes[0]
    return _to_frames(planes[:, PRIOR]), _to_frames(planes[:, WARPED])


def denoise(
    network: StreetVideoNetwork,
    noise: Float[Tensor, "T 3 H W"],
    parts: list[Inputs],
    starts: list[int],
    steps: int,
    device: str,
    dtype: str,
    after_step: Callable[[int], None],
) -> Float[Tensor, "T 3 H W"]:
    """Return the enlarged difference to the filled prior that the noise becomes.

    Euler's method on the straight paths of Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023.
    """
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist())
    length = parts[0].planes.shape[1]
    weight = (0.5 + torch.minimum(torch.arange(length), torch.arange(length - 1, -1, -1)))[:, None, None, None]
    state = noise
    for step, time in enumerate(scheduler.timesteps):
        level = scheduler.sigmas[step]
        total, weights = torch.zeros_like(state), torch.zeros(len(state), 1, 1, 1)
        for start, inputs in zip(starts, parts, strict=True):
            noisy = state[None, start : start + length].to(device)
            with autocast(device, dtype):
                predicted = network.forward(noisy, level[None].to(device), inputs.to(device))[0]
            total[start : start + length] += weight * predicted.float().cpu()
            weights[start : start + length] += weight
        velocity = (state - total / weights) / level
        state = scheduler.step(velocity, time, state).prev_sample
        after_step(step + 1)
    return state


def window_starts(count: int, window: int, overlap: int) -> list[int]:
    """Return the first frames of windows that cover `count` frames, sharing at least `overlap` where there are several."""
    stride = max(window - overlap, 1)
    return [*range(0, max(count - window, 0), stride), max(count - window, 0)]


def _joined(parts: list[Inputs], starts: list[int], count: int) -> Float[Tensor, "T 3 H W"]:
    filled = torch.zeros(count, *parts[0].planes.shape[2:])[:, PRIOR]
    for start, inputs in zip(starts, parts, strict=True):
        filled[start : start + inputs.planes.shape[1]] = inputs.planes[0, :, PRIOR]
    return filled


def _to_frames(pictures: Float[Tensor, "T 3 H W"]) -> UInt8[np.ndarray, "T H W 3"]:
    levels = ((pictures + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
