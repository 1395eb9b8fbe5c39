"""Stage `generate.street_video`: the frames of a view that nobody filmed, made by the world model from its conditions."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.models import Model
from stages.contract import Progress, Tolerance, stage
from worldline.diffusion.settings import pin_machine


@dataclass(frozen=True)
class StreetVideoConfig:
    """How frames are made.

    Attributes:
        steps: from noise to frames. 1 gives the mean of what the model holds possible: nearest to the truth, which is what a fit
            wants, and smoother; more draw one possibility, whose details are the model's own.
        window: frames that the model sees at once; those that it was trained with, or more.
        overlap: frames that two windows share.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
        dtype: "float32", "bfloat16" (mixed precision), or "auto" (bfloat16 on CUDA and on processors that multiply it).
        threads: of torch on the processor, which decide how sums are cut; 0 takes all.
    """

    steps: Annotated[int, Field(ge=1)] = 1
    window: Annotated[int, Field(ge=2)] = 8
    overlap: Annotated[int, Field(ge=0)] = 4
    device: str = "auto"
    dtype: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0


def measure_frames(recorded: Clip, remade: Clip) -> float:
    """Return the mean absolute difference of two clips' frames in grey levels; infinite where their sizes differ."""
    if recorded.frames.shape != remade.frames.shape:
        return float("inf")
    pairs = zip(recorded.frames, remade.frames, strict=True)
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]))


@stage(
    "generate.street_video",
    version=1,
    environment_packages=("torch", "diffusers", "numpy"),
    # on a processor with the same number of threads the bytes are equal; the sums of a GPU come in any order
    tolerance={Clip: Tolerance("mean difference of the frames", 0.5, "grey levels", measure_frames)},
    pin=pin_machine,
)
def generate_street_video(
    conditions: Conditions, drawn: Conditions, model: Model, config: StreetVideoConfig, *, seed: int, progress: Progress
) -> Clip:
    """Make the frames.

    Args:
        conditions: of the view, with recorded frames warped into it as prior; both sides multiples of 16 pixels.
        drawn: the same with a drawing of a scene fitted to the recorded frames as prior.
        model: of role "street_video".
        config: how.
        seed: of the noise, which is drawn on the CPU: it means the same on every device.
        progress: called after every step.

    Returns:
        The clip, with the times of the conditions; it knows no intrinsics, which its path carries.

    Raises:
        WorldlineError: if the model cannot be read, the size does not fit, or windows overlap wholly.
    """
    from worldline.diffusion.devices import torch_threads
    from worldline.diffusion.network import open_network
    from worldline.diffusion.sampling import sample_frames
    from worldline.diffusion.windows import check_size

    if config.overlap >= config.window:
        raise WorldlineError(f"overlap is {config.overlap} frames: it must be less than window ({config.window} frames)")
    check_size(conditions, drawn)
    pinned = pin_machine(config)
    network = open_network(model).to(pinned.device)
    with torch_threads(pinned.threads):
        frames = sample_frames(
            network,
            conditions,
            drawn,
            steps=config.steps,
            window=config.window,
            overlap=config.overlap,
            seed=seed,
            device=pinned.device,
            dtype=pinned.dtype,
            after_step=lambda done: progress(done, config.steps, "denoising steps"),
        )
    return Clip(
        frames=Video.from_array(frames),
        times_s=conditions.times_s,
        name=f"street_video:{conditions.text}",
        provenance={
            "kind": "generated",
            "generator": "worldline.diffusion",
            "model": content_digest(model),
            "training": model.training,
            "seed": seed,
            "steps": config.steps,
            "window": config.window,
            "overlap": config.overlap,
            "text": conditions.text,
            "prior_sources": [drawn.prior_source, conditions.prior_source],
        },
    )
