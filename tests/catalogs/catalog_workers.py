"""What the catalog tests build, and what their other processes run."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.catalog import ArtifactRef, Catalog, DatasetVersion, Execution
from catalogs.garbage import collect_garbage
from catalogs.takedowns import finish_takedowns, takedown
from catalogs.versions import publish
from schemas.artifact import make_table
from schemas.canonical import hash_file
from schemas.codec import content_digest, encode
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


def die_at(home: Path, action: str, moment: int, moments: Any) -> None:
    """Do something, and die at the n-th moment at which something outside of this process is about to change, or just has.

    Args:
        home: the workspace.
        action: a key of `ACTIONS`.
        moment: which one, from 1 on; where there are fewer, the action ends as it should.
        moments: queue for the name of the moment.
    """
    catalog = Catalog.open(home)
    name = f"{action} {moment}"
    prepare(catalog, action, name)
    count = 0

    def passing(name: str) -> None:
        nonlocal count
        count += 1
        if count == moment:
            moments.put(name)
            os.kill(os.getpid(), signal.SIGKILL)

    place, remove, execute = catalog.store.place, catalog.store.remove, catalog.log.database.execute

    def dying_place(path: Path, name: str, **options: Any) -> None:
        passing(f"{_kind(name)} file written, not named")
        place(path, name, **options)
        passing(f"{_kind(name)} file named")

    def dying_remove(names: Any, **options: Any) -> None:
        for name in names:
            passing(f"{_kind(name)} file about to be removed")
            remove([name], **options)
            passing(f"{_kind(name)} file removed")

    def dying_execute(sql: str, parameters: Any = ()) -> Any:
        if sql == "COMMIT":
            passing("transaction about to be committed")
        rows = execute(sql, parameters)
        if sql == "COMMIT":
            passing("transaction committed")
        return rows

    catalog.store.place, catalog.store.remove = dying_place, dying_remove  # type: ignore[method-assign]
    catalog.log.database.execute = dying_execute  # type: ignore[method-assign]
    ACTIONS[action](catalog, name)


def prepare(catalog: Catalog, action: str, name: str) -> None:
    """Make what an action works on; again is a no-op."""
    if action == "compact":
        for number in range(2):
            make(catalog, f"{name}/{number}", number)
    if action == "gc":
        put(catalog, figures(seed_of(name)))  # and never recorded
        make(catalog, f"{name}/unpublished", seed_of(name) + 1)
    if action == "takedown":
        source = catalog.adopt(put(catalog, figures(seed_of(name))))
        made = make(catalog, f"{name}/made", seed_of(name) + 1, {"source": source.digest})
        publish(catalog, "fed", {"from": name}, {"figures": made.outputs[0].digest, "base": figures_digest(catalog)}, {})


def seed_of(name: str) -> int:
    return int(key_of(name)[:6], 16)


def _kind(name: str) -> str:
    return {"objects": "object", "commits": "commit", "segments": "segment"}[name.split("/")[-2 if name[0] == "t" else 0]]


def record_doomed(catalog: Catalog, name: str) -> None:
    (catalog.checkpoint_folder(key_of(name)) / "state").write_bytes(b"half way")
    with catalog.scratch_folder() as scratch:
        (scratch / "leftover").write_bytes(b"x")
        made = figures(seed_of(name))
        catalog.record(run_of(key_of(name), "toy.make", (catalog.put(made, scratch),)))


def publish_doomed(catalog: Catalog, name: str) -> None:
    publish(catalog, "doomed", {"build": name}, {"figures": figures_digest(catalog)}, {})


def compact_doomed(catalog: Catalog, _: str) -> None:
    catalog.log.compact(minimum=1)


def collect_doomed(catalog: Catalog, _: str) -> None:
    collect_garbage(catalog, dry_run=False, grace_seconds=-1.0)


def take_down_doomed(catalog: Catalog, name: str) -> None:
    digest = content_digest(figures(seed_of(name)))
    if catalog.log.note("takedown", digest) is None:
        takedown(catalog, digest, reason="its owner asked")
    finish_takedowns(catalog)  # as the next garbage collection does
    assert not any(catalog.objects.exists(made) for made in parts_of(catalog, name))


def parts_of(catalog: Catalog, name: str) -> list[str]:
    """The objects that only a source that was taken down, or what was made of it, has."""
    with catalog.scratch_folder() as scratch:
        return [hash_file(encode(figures(seed_of(name) + number), scratch)["figures.parquet"]) for number in (0, 1)]


ACTIONS: dict[str, Callable[[Catalog, str], None]] = {
    "record": record_doomed,
    "publish": publish_doomed,
    "compact": compact_doomed,
    "gc": collect_doomed,
    "takedown": take_down_doomed,
}


def hold_scratch(home: Path, ready: Any) -> None:
    with Catalog.open(home).scratch_folder() as scratch:
        ready.put(str(scratch))
        time.sleep(600)


def hold_lease(home: Path, ready: Any) -> None:
    with Catalog.open(home).log.lease(exclusive=False) as held:
        ready.put(held)
        time.sleep(600)
