"""Toy stages that take no time of their own, so that what is measured around them is the engine's."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.catalog import ArtifactRef, Execution
from schemas.artifact import make_table
from schemas.reports import FIGURES, Lineage, Metrics
from stages.contract import Progress, stage
from tasks.build import Build, Handle
from tasks.progress import Display

ROWS = 20  # of every toy artifact
STAGES_PER_CLIP = 10


@dataclass(frozen=True)
class ClipConfig:
    """Which toy clip to make."""

    clip: int = 0


@dataclass(frozen=True)
class StepConfig:
    """Which step of a chain of equal ones this is."""

    step: int = 0


def toy_figures(number: int, rows: int = ROWS) -> Metrics:
    """Return an artifact of `rows` figures that differs with `number`."""
    values = np.random.default_rng(number).normal(size=rows)
    names = [f"figure.{index:03d}" for index in range(rows)]
    return Metrics(make_table(FIGURES, {"name": names, "value": values, "unit": ["m"] * rows, "detail": [""] * rows}))


@stage("toy.clip", version=1)
def make_clip(config: ClipConfig, *, seed: int, progress: Progress) -> Metrics:
    """Make the figures of one toy clip."""
    return toy_figures(config.clip)


@stage("toy.step", version=1)
def take_step(figures: Metrics, config: StepConfig, *, seed: int, progress: Progress) -> Metrics:
    """Return other figures that depend on those given."""
    first = figures.figures.column("value").to_numpy()[0]
    return toy_figures(int(abs(first) * 1e9) + config.step)


@stage("toy.page", version=1)
def make_page(figures: Metrics, lineage: Lineage, config: StepConfig, *, seed: int, progress: Progress) -> Metrics:
    """Stand for a report: it takes the lineage of what it shows."""
    return toy_figures(lineage.nodes.num_rows)


def toy_build(
    home: Path, name: str, clips: range, recipe: Mapping[str, Any] | None = None, depth: int = STAGES_PER_CLIP
) -> Build:
    """Run the toy flow, shaped like a real one, for some clips, and publish them as a version of the dataset `name`.

    Every clip is a chain of `depth` executions: a source, steps, and a page that takes the lineage of the steps.
    """
    given = {"name": name, "seed": 0, "clips": [clips.start, clips.stop], **(recipe or {})}
    build = Build(given, home, Display(quiet=True))
    build.finish(run_toy_flow(build, clips, depth))
    return build


def run_toy_flow(build: Build, clips: range, depth: int = STAGES_PER_CLIP) -> dict[str, Handle]:
    """Run the stages of some toy clips and return their artifacts by role."""
    artifacts: dict[str, Handle] = {}
    for clip in clips:
        (figures,) = build.run("toy.clip", {"clip": clip})
        made = {f"{clip:06d}/source": figures}
        for step in range(depth - 2):
            (figures,) = build.run("toy.step", {"step": step}, figures=figures)
            made[f"{clip:06d}/step{step}"] = figures
        (page,) = build.run("toy.page", figures=figures, lineage=build.lineage(made))
        artifacts |= made | {f"{clip:06d}/page": page}
    return artifacts


def toy_execution(name: str, outputs: tuple[ArtifactRef, ...]) -> Execution:
    """Return a record as an execution leaves it, under a key made from `name`."""
    return Execution(
        key=hashlib.sha256(name.encode()).hexdigest(),
        stage="toy.clip",
        version=1,
        code="c0de",
        code_files={"stages/toy.py": "f1"},
        config={"iterations": 800, "rate": 0.1},
        seed=7,
        inputs={},
        outputs=outputs,
        status="ok",
        error_type=None,
        error_message=None,
        started_at=1000.5,
        seconds=2.25,
        peak_memory_bytes=1 << 20,
        machine={"system": "toy", "cores": 2},
        packages={"numpy": "2"},
    )
