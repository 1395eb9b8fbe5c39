"""Stage `generate.train_street_video`: train the world model on views whose true frames are known.

The examples are conditions of trajectories that nobody drove and the frames that a procedural world shows along them: the
model learns to make one picture of what a scene fitted to the recorded frames shows of a view and of those frames warped into
it, and to draw what the boxes and the lines of the road say. Some examples are held out, and both the model and what it is
told are measured on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from schemas.artifact import Artifact, rows_to_table
from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.models import Model
from schemas.reports import FIGURES, Metrics
from stages.contract import Progress, Tolerance, stage
from worldline.diffusion.scores import Squares
from worldline.diffusion.settings import TrainingSettings, pin_machine

if TYPE_CHECKING:  # torch and diffusers take seconds to load, and most runs never need them
    from worldline.diffusion.network import StreetVideoNetwork


def measure_weights(recorded: Model, remade: Model) -> float:
    """Return the spread of the difference of two models' weights, as a share of the weights' own."""
    from worldline.diffusion.network import open_network

    pairs = list(zip(open_network(recorded).parameters(), open_network(remade).parameters(), strict=True))
    return (sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(a.square().sum()) for a, _ in pairs)) ** 0.5


# On a processor with the same number of threads the bytes are equal; the sums of a GPU come in any order.
TOLERANCES: dict[type[Artifact], Tolerance] = {
    Model: Tolerance("relative difference of the weights", 0.1, "share", measure_weights),
    Metrics: Tolerance("largest difference of a figure", 0.3, "dB"),
}


@dataclass(frozen=True, kw_only=True)
class TrainStreetVideoConfig(TrainingSettings):
    """What is trained and how; see `TrainingSettings`.

    Attributes:
        channels: of the network at 1/4, 1/8 and 1/16 of the pixels; multiples of 32.
        layers: residual blocks of the network on each level.
    """

    channels: tuple[int, int, int] = (64, 96, 128)
    layers: Annotated[int, Field(ge=1)] = 1


@stage(
    "generate.train_street_video",
    version=1,
    environment_packages=("torch", "diffusers", "numpy", "opencv-python-headless"),
    tolerance=TOLERANCES,
    pin=pin_machine,
)
def train_street_video(
    conditions: tuple[Conditions, ...],
    drawn: tuple[Conditions, ...],
    clips: tuple[Clip, ...],
    config: TrainStreetVideoConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Model, Metrics]:
    """Train a model of streets from nothing.

    Args:
        conditions: of the examples' views, with recorded frames warped into them as prior.
        drawn: the same with a drawing of a scene fitted to the recorded frames as prior, in the same order.
        clips: the true frames of the same views, in the same order.
        config: what is trained and how.
        seed: of the network's first weights and of all draws.
        progress: called after every step.
        checkpoints: folder to continue from, and of the model's files.

    Raises:
        WorldlineError: if conditions and clips do not go together or nothing is left to train on.
    """
    import torch

    from worldline.diffusion.network import StreetVideoNetwork

    if any(channels % 32 for channels in config.channels):
        raise WorldlineError(f"channels are {list(config.channels)}: they must be multiples of 32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StreetVideoNetwork(channels=config.channels, layers=config.layers)
    return train(network, conditions, drawn, clips, config, seed, progress, checkpoints)


def train(
    network: "StreetVideoNetwork",
    conditions: Sequence[Conditions],
    drawn: Sequence[Conditions],
    clips: Sequence[Clip],
    config: TrainingSettings,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Model, Metrics]:
    """Train a network further from where it stands and measure it on what was held out; see `train_street_video`."""
    import diffusers
    import torch

    from worldline.diffusion.network import ROLE, save_network
    from worldline.diffusion.training import train_network

    if not len(conditions) == len(drawn) == len(clips):
        raise WorldlineError(
            f"there are {len(conditions)} conditions, {len(drawn)} drawn ones and {len(clips)} clips: give one of each for every "
            "example, in the same order"
        )
    settings = pin_machine(config)
    names = list(dict.fromkeys(clip.name for clip in clips))
    unseen = set(names[config.hold_out_every - 1 :: config.hold_out_every]) if config.hold_out_every else set()
    examples = list(zip(conditions, drawn, clips, strict=True))
    training = [example for example in examples if example[2].name not in unseen]
    held_out = [example for example in examples if example[2].name in unseen]
    recent: list[tuple[float, float]] = []

    def report(done: int, loss: float, of_prior: float) -> None:
        recent[:] = [*recent[-199:], (loss, of_prior)]
        own, untrained = np.mean(recent, axis=0)
        progress(done, settings.steps, f"loss {own:.4f}, of the prior alone {untrained:.4f}")

    losses = train_network(network, training, settings, seed=seed, checkpoints=checkpoints, after_step=report)
    model = Model(
        files=save_network(network, checkpoints / "model"),
        role=ROLE,
        architecture=type(network).__name__,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training={
            "examples": len(training),
            "frames": sum(len(clip.times_s) for *_, clip in training),
            "width_px": clips[0].size[0],
            "height_px": clips[0].size[1],
            "steps": settings.steps,
            "windows_per_step": settings.batch,
            "frames_per_window": settings.window,
            "seed": seed,
            "loss": float(np.mean(losses[-200:, 0])),
            "loss_of_prior": float(np.mean(losses[-200:, 1])),
            "device": settings.device,
            "dtype": settings.dtype,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
    )
    return model, _measure(model, held_out, settings, losses, seed)


def _measure(
    model: Model,
    held_out: Sequence[tuple[Conditions, Conditions, Clip]],
    settings: TrainingSettings,
    losses: np.ndarray,
    seed: int,
) -> Metrics:
    """Measure the model as it was saved on examples that it has not seen, beside its input and its mean prediction."""
    from worldline.diffusion.devices import torch_threads
    from worldline.diffusion.network import open_network
    from worldline.diffusion.sampling import draw_priors, sample_frames

    network = open_network(model).to(settings.device)
    found = {name: Squares() for name in ("prior", "warped", "sample", "mean")}
    for conditions, drawn, clip in held_out:
        frames = min(settings.held_out_frames, len(clip.times_s))
        truth = clip.frames.at(range(frames))
        places = {
            "": np.ones(truth.shape[:3], bool),
            "hole_": conditions.known.at(range(frames)) == 0,
            "box_": conditions.boxes.at(range(frames)).any(axis=-1),
        }
        for name, own in zip(("prior", "warped"), draw_priors(conditions, drawn, frames), strict=True):
            found[name].add(own, truth, places)
        for name, steps in (("mean", 1), ("sample", settings.sampling_steps)):
            with torch_threads(settings.threads):
                made = sample_frames(
                    network,
                    conditions,
                    drawn,
                    steps=steps,
                    window=settings.window,
                    overlap=settings.window // 2,
                    seed=seed,
                    device=settings.device,
                    dtype=settings.dtype,
                    frames=frames,
                )
            found[name].add(made, truth, places)
    last = f"mean of the last {min(200, len(losses))} steps"
    rows = [
        ("street_video.loss", float(np.mean(losses[-200:, 0])), "", last),
        ("street_video.prior_loss", float(np.mean(losses[-200:, 1])), "", f"of the filled prior, {last}"),
    ]
    says = {
        "prior": "of the drawing of a scene fitted to the recorded frames, which is the model's input",
        "warped": "of the recorded frames warped into the view, which are the model's other input",
        "mean": "of the model's prediction from noise in one step",
        "sample": f"of frames made in {settings.sampling_steps} steps",
    }
    where = {"": "all pixels", "hole_": "pixels where nothing was known", "box_": "pixels inside boxes"}
    for name, squares in found.items():
        for place, decibels in squares.psnr_db().items():
            detail = f"{says[name]}, on {where[place]} of {len(held_out)} examples that were held out"
            rows.append((f"street_video.{name}_{place}psnr_db", decibels, "dB", detail))
    names = ("name", "value", "unit", "detail")
    return Metrics(figures=rows_to_table(FIGURES, [dict(zip(names, row, strict=True)) for row in sorted(rows)]))
