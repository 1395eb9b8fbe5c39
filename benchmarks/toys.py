"""Toy stages that take no time of their own, so that what is measured around them is the engine's."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.catalog import ArtifactRef, Execution
from schemas.artifact import make_table
from schemas.motion import PointTracks
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


def toy_tracks(number: int) -> PointTracks:
    """Return an artifact that is no table and differs with `number`."""
    values = np.random.default_rng(number).normal(size=(1, ROWS, 2)).astype(np.float32)
    return PointTracks(
        times_s=np.arange(ROWS) / 10.0, xy_px=values, visible=np.ones((1, ROWS), bool), first_frame=np.zeros(1, np.int32)
    )


@stage("toy.clip", version=1)
def make_clip(config: ClipConfig, *, seed: int, progress: Progress) -> PointTracks:
    """Make one toy clip."""
    return toy_tracks(config.clip)


@stage("toy.step", version=1)
def take_step(tracks: PointTracks, config: StepConfig, *, seed: int, progress: Progress) -> PointTracks:
    """Return another artifact that depends on the one given."""
    return toy_tracks(_number(tracks) + config.step)


@stage("toy.measure", version=1)
def measure_tracks(tracks: PointTracks, config: StepConfig, *, seed: int, progress: Progress) -> Metrics:
    """Return figures that depend on what is measured."""
    return toy_figures(_number(tracks) + config.step)


@stage("toy.page", version=1)
def make_page(tracks: PointTracks, lineage: Lineage, config: StepConfig, *, seed: int, progress: Progress) -> Metrics:
    """Stand for a report: it takes the lineage of what it shows."""
    return toy_figures(_number(tracks) + lineage.nodes.num_rows)


def _number(tracks: PointTracks) -> int:
    return int(abs(float(tracks.xy_px[0, 0, 0])) * 1e9)


def toy_build(
    home: Path, name: str, clips: range, recipe: Mapping[str, Any] | None = None, depth: int = STAGES_PER_CLIP
) -> Build:
    """Run the toy flow, shaped like a real one, for some clips, and publish them as a version of the dataset `name`.

    Every clip is `depth` executions: its making, a chain of steps, two measurements, and a page that takes the lineage
    of all of them; three in ten give tables of figures, as in `pseudo_labels`.
    """
    given = {"name": name, "seed": 0, "clips": [clips.start, clips.stop], **(recipe or {})}
    build = Build(given, home, Display(quiet=True))
    build.finish(run_toy_flow(build, clips, depth))
    return build


def run_toy_flow(build: Build, clips: range, depth: int = STAGES_PER_CLIP) -> dict[str, Handle]:
    """Run the stages of some toy clips and return their artifacts by role."""
    artifacts: dict[str, Handle] = {}
    for clip in clips:
        (tracks,) = build.run("toy.clip", {"clip": clip})
        made = {f"{clip:06d}/clip": tracks}
        for step in range(depth - 4):
            (tracks,) = build.run("toy.step", {"step": step}, tracks=tracks)
            made[f"{clip:06d}/step{step}"] = tracks
        for step in range(2):
            (made[f"{clip:06d}/metrics{step}"],) = build.run("toy.measure", {"step": step}, tracks=tracks)
        (page,) = build.run("toy.page", tracks=tracks, lineage=build.lineage(made))
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
