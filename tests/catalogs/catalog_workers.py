"""What the catalog tests build, and what their other processes run."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import catalogs.catalog
import catalogs.log
import catalogs.stores
from catalogs.catalog import ArtifactRef, Catalog, DatasetVersion, Execution
from catalogs.versions import publish
from schemas.artifact import make_table
from schemas.reports import FIGURES, Metrics


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def figures(seed: int, rows: int = 20) -> Metrics:
    values = np.random.default_rng(seed).normal(size=rows)
    names = [f"figure.{index:03d}" for index in range(rows)]
    return Metrics(make_table(FIGURES, {"name": names, "value": values, "unit": ["m"] * rows, "detail": [""] * rows}))


def run_of(
    key: str, stage: str, outputs: tuple[ArtifactRef, ...], inputs: dict[str, str] | None = None, **other: Any
) -> Execution:
    fields: dict[str, Any] = {
        "key": key,
        "stage": stage,
        "version": 1,
        "code": "c0de",
        "code_files": {"stages/toy.py": "f1"},
        "config": {"iterations": 800, "rate": 0.1},
        "seed": 7,
        "inputs": inputs or {},
        "outputs": outputs,
        "status": "ok",
        "error_type": None,
        "error_message": None,
        "started_at": 1000.5,
        "seconds": 2.25,
        "peak_memory_bytes": 1 << 20,
        "machine": {"cpu": "toy", "cores": 2},
        "packages": {"numpy": "2.0"},
    }
    return Execution(**(fields | other))


def put(catalog: Catalog, artifact: Any) -> ArtifactRef:
    with catalog.scratch_folder() as scratch:
        return catalog.put(artifact, scratch)


def make(catalog: Catalog, name: str, seed: int, inputs: dict[str, str] | None = None, stage: str = "toy.make") -> Execution:
    return catalog.record(run_of(key_of(name), stage, (put(catalog, figures(seed)),), inputs))


# -- programs of other processes --------------------------------------------------------------------------------------


def commit_many(home: Path, worker: int, commits: int) -> None:
    catalog = Catalog.open(home)
    for index in range(commits):
        make(catalog, f"{worker}/{index}", seed=worker * 1000 + index)


def compute_same(home: Path, seed: int, results: Any) -> None:
    results.put(make(Catalog.open(home), "shared", seed).outputs[0].digest)


def publish_one(home: Path, recipe: int, results: Any) -> None:
    catalog = Catalog.open(home)
    version: DatasetVersion = publish(catalog, "raced", {"iterations": recipe}, {"figures": figures_digest(catalog)}, {})
    results.put((version.version, version.manifest))


def figures_digest(catalog: Catalog) -> str:
    execution = catalog.find(key_of("base"))
    assert execution is not None
    return execution.outputs[0].digest


def build_until_killed(home: Path, acknowledged: Path, round_number: int) -> None:
    """Record, publish and merge without end; a line in `acknowledged` says which key has been promised."""
    catalog = Catalog.open(home)
    with acknowledged.open("a") as promises:
        for index in range(100_000):
            name = f"{round_number}/{index}"
            (catalog.checkpoint_folder(key_of(name)) / "state").write_bytes(b"x" * 1000)
            execution = make(catalog, name, seed=round_number * 1000 + index)
            promises.write(execution.key + "\n")
            promises.flush()
            if index % 5 == 4:
                publish(catalog, "nightly", {"build": name}, {"figures": execution.outputs[0].digest}, {})
            if index % 7 == 6:
                catalog.log.compact(minimum=3)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_before_moving(suffix: str) -> Callable[[], None]:
    """Die in the rename that gives a file with this suffix (objects have none) its final name."""
    rename = os.replace

    def replace(source: Any, destination: Any) -> None:
        if Path(destination).suffix == suffix:
            die()
        rename(source, destination)

    def arm() -> None:
        os.replace = replace  # type: ignore[assignment]

    return arm


def _patch(owner: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(owner, name, die)


COMMIT_POINTS: dict[str, Callable[[], None]] = {
    "object written, not named": _die_before_moving(""),
    "object named, folder not synced": _patch(catalogs.stores, "sync_folder"),
    "objects stored, nothing recorded": _patch(catalogs.catalog.Catalog, "record"),
    "transaction open, no file": _patch(catalogs.log, "_write_table"),
    "commit file written, not named": _die_before_moving(".parquet"),
    "commit file named, not registered": _patch(catalogs.log, "sync_folder"),
    "committed, checkpoints left": _patch(catalogs.catalog.Catalog, "_release_checkpoints"),
}


def die_at(home: Path, point: str) -> None:
    catalog = Catalog.open(home)
    (catalog.checkpoint_folder(key_of("doomed")) / "state").write_bytes(b"half way")
    with catalog.scratch_folder() as scratch:
        (scratch / "leftover").write_bytes(b"x")
        artifact = figures(5)
        COMMIT_POINTS[point]()
        catalog.record(run_of(key_of("doomed"), "toy.make", (catalog.put(artifact, scratch),)))


def hold_scratch(home: Path, ready: Any) -> None:
    with Catalog.open(home).scratch_folder() as scratch:
        ready.put(str(scratch))
        time.sleep(600)
