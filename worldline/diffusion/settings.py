"""How a network is trained and measured, as people set it."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field

from worldline.diffusion.devices import count_threads, resolve_device, resolve_dtype

Settings = TypeVar("Settings")  # with device, dtype and threads


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network is trained.

    Attributes:
        steps: of the optimiser.
        rate: largest step size; it rises over 50 steps and falls along a cosine to a fiftieth.
        batch: windows per step.
        window: frames of a window.
        crop_width, crop_height: pixels of the part of the frames that a step sees; multiples of 16.
        pure_noise: share of the windows that are trained to be predicted from noise alone; the others at any level.
        drop_text: share of the windows whose words are kept from the network, so that it can do without.
        average: decay of the running mean of the weights, which is what is kept.
        checkpoint_every: steps between checkpoints.
        hold_out_every: clips of every so many-th name (one street has one name, from wherever it is filmed) are measured and
            not trained on; 0 trains on all and measures none.
        held_out_frames: the first frames of a held out example, which are measured.
        sampling_steps: from noise to frames, where they are measured.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
        dtype: "float32", "bfloat16" (mixed precision), or "auto" (bfloat16 on CUDA and on processors that multiply it).
        threads: of torch on the processor, which decide how sums are cut; 0 takes all.
    """

    steps: Annotated[int, Field(ge=1)] = 4000
    rate: Annotated[float, Field(gt=0)] = 8e-4
    batch: Annotated[int, Field(ge=1)] = 1
    window: Annotated[int, Field(ge=2)] = 8
    crop_width: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    crop_height: Annotated[int, Field(ge=16, multiple_of=16)] = 96
    pure_noise: Annotated[float, Field(ge=0, le=1)] = 0.5
    drop_text: Annotated[float, Field(ge=0, le=1)] = 0.1
    average: Annotated[float, Field(ge=0, lt=1)] = 0.995
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    hold_out_every: Annotated[int, Field(ge=0)] = 12
    held_out_frames: Annotated[int, Field(ge=1)] = 16
    sampling_steps: Annotated[int, Field(ge=1)] = 4
    device: str = "auto"
    dtype: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0


def pin_machine(settings: Settings) -> Settings:
    """Return settings with this machine's device, number format and threads in them, where they leave them to it.

    Raises:
        WorldlineError: if the device is not there or the number format unknown.
    """
    asked: Any = settings
    device = resolve_device(asked.device)
    pinned: Settings = dataclasses.replace(
        asked, device=device, dtype=resolve_dtype(asked.dtype, device), threads=asked.threads or count_threads()
    )
    return pinned
