"""Stage `generate.tune_street_video`: train a given world model further, on few examples.

The repair model of one log: its examples are the log's own frames, and their prior is what an under-fitted scene shows of
the same views (Ni et al., "ReconDreamer", CVPR 2025).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.models import Model
from schemas.reports import Metrics
from stages.contract import Progress, stage
from stages.generate.train_street_video import TOLERANCES, train
from worldline.diffusion.settings import TrainingSettings, pin_machine


@dataclass(frozen=True, kw_only=True)
class TuneStreetVideoConfig(TrainingSettings):
    """How the model is trained further; see `TrainingSettings`."""

    steps: Annotated[int, Field(ge=1)] = 400
    rate: Annotated[float, Field(gt=0)] = 1e-4
    hold_out_every: Annotated[int, Field(ge=0)] = 0


@stage(
    "generate.tune_street_video",
    version=1,
    environment_packages=("torch", "diffusers", "numpy", "opencv-python-headless"),
    tolerance=TOLERANCES,
    pin=pin_machine,
)
def tune_street_video(
    model: Model,
    conditions: tuple[Conditions, ...],
    drawn: tuple[Conditions, ...],
    clips: tuple[Clip, ...],
    config: TuneStreetVideoConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Model, Metrics]:
    """Train a model of streets further.

    Args:
        model: where it starts.
        conditions: of the examples' views, with recorded frames warped into them as prior: not those of the same time.
        drawn: the same with a drawing of an under-fitted scene as prior, in the same order.
        clips: the true frames of the same views, in the same order.
        config: how it is trained.
        seed: of all draws.
        progress: called after every step.
        checkpoints: folder to continue from, and of the model's files.

    Raises:
        WorldlineError: if the model cannot be read, conditions and clips do not go together, or nothing is left to train on.
    """
    from worldline.diffusion.network import open_network

    tuned, metrics = train(open_network(model), conditions, drawn, clips, config, seed, progress, checkpoints)
    return Model(**{**vars(tuned), "training": {**tuned.training, "started_from": model.training}}), metrics
