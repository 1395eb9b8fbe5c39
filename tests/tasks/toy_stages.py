"""Stages in a module of their own that tests rewrite, with the real fingerprint of that module."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalogs.catalog import Catalog
from schemas.artifact import Files
from schemas.clips import Source
from stages import contract, fingerprint
from tasks import accepting, edge, rebuild
from tasks import build as build_module
from tasks.build import Build, Handle
from tasks.progress import Display

MODULE = '''
"""Toys."""
from dataclasses import dataclass
from pathlib import Path

from schemas.artifact import make_table
from schemas.clips import Source
from schemas.reports import FIGURES, Lineage, Metrics
from stages.contract import Progress, Tolerance, stage

SCALE = {scale}


@dataclass(frozen=True)
class MeasureConfig:
    factor: float = 1.0


@dataclass(frozen=True)
class SmoothConfig:
    offset: float = 0.5{settings}


@dataclass(frozen=True)
class PageConfig:
    title: str = "toys"


def figures(**values):
    names = sorted(values)
    count = len(names)
    rows = {{"name": names, "value": [values[name] for name in names], "unit": ["m"] * count, "detail": [""] * count}}
    return Metrics(make_table(FIGURES, rows))


def measure(source: Source, config: MeasureConfig, *, seed: int, progress: Progress) -> Metrics:
    Path({runs!r}).open("a").write("measure\\n")
    size = sum(path.stat().st_size for path in source.files.values())
    return figures(area=2.0, length=size * SCALE * config.factor)


def smooth(metrics: Metrics, config: SmoothConfig, *, seed: int, progress: Progress) -> Metrics:
    Path({runs!r}).open("a").write("smooth\\n")
    return figures(length=metrics.figures["value"][1].as_py() + config.offset{noise})


def page(smooth: Metrics, lineage: Lineage, config: PageConfig, *, seed: int, progress: Progress) -> Metrics:
    Path({runs!r}).open("a").write("page\\n")
    return figures(executions=float(lineage.nodes.num_rows), length=smooth.figures["value"][0].as_py())


stage("toy.measure", version={version})(measure)
stage("toy.smooth", version=1{tolerance})(smooth)
stage("toy.page", version=1)(page)
'''


class Toys:
    """A project of one stage module, and builds with it."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder, self.home, self._runs = folder, folder / "home", folder / "runs"
        self.file = folder / "project" / "stages" / "toys.py"
        self.file.parent.mkdir(parents=True)
        monkeypatch.setattr(fingerprint, "_ROOT", folder / "project")
        for module in (contract, build_module, edge, rebuild, accepting):
            monkeypatch.setattr(module, "STAGES", {})
        for module in (build_module, rebuild, accepting):
            monkeypatch.setattr(module, "load_stages", lambda: None)
        self.write()

    def write(self, scale: float = 3.0, version: int = 1, tolerance: str = "", settings: str = "", noise: str = "") -> None:
        """Rewrite the module and load it, as a new process would."""
        text = MODULE.format(
            scale=scale, version=version, tolerance=tolerance, settings=settings, noise=noise, runs=str(self._runs)
        )
        self.load(text)

    def edit(self, change: Callable[[str], str]) -> None:
        """Change the module's text and load it."""
        self.load(change(self.file.read_text()))

    def load(self, text: str) -> None:
        self.file.write_text(text)
        fingerprint._hash_module.cache_clear()
        contract.STAGES.clear()
        spec = importlib.util.spec_from_file_location("stages.toys", self.file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["stages.toys"] = module
        os.utime(self.file, (os.path.getmtime(self.file), os.path.getmtime(self.file) + len(text)))  # never from bytecode
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = before
        for module in (build_module, edge, rebuild, accepting):
            module.STAGES.clear()  # type: ignore[attr-defined]
            module.STAGES.update(contract.STAGES)  # type: ignore[attr-defined]

    def source(self, data: bytes = b"street", name: str = "street.mp4") -> Source:
        path = self.folder / "films" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return Source(files=Files({name: path}), layout="video", name=name)

    def build(self, clips: dict[str, bytes] | None = None, **settings: Any) -> Build:
        """Publish `toys` with one chain of executions per source."""
        build = Build({"name": "toys", "seed": 0, "toy": settings}, self.home, Display(quiet=True))
        made: dict[str, Handle] = {}
        for name, data in (clips or {"street.mp4": b"street"}).items():
            (measured,) = build.run("toy.measure", source=build._given(self.source(data, name)))
            (smoothed,) = build.run("toy.smooth", metrics=measured)
            lineage = build.lineage({"measured": measured, "smoothed": smoothed})
            (page,) = build.run("toy.page", smooth=smoothed, lineage=lineage)
            made |= {f"{name}/measured": measured, f"{name}/smoothed": smoothed, f"{name}/page": page}
        build.finish(made)
        return build

    def runs(self) -> list[str]:
        """Return what ran since the last time."""
        lines = self._runs.read_text().split() if self._runs.exists() else []
        self._runs.write_text("")
        return lines

    @property
    def catalog(self) -> Catalog:
        return Catalog.open(self.home)
