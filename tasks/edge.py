"""The Prefect edge: one stage execution as one Prefect task, recorded in the catalog and nowhere else.

Prefect shows, schedules, retries and distributes; it is not the memory. Its result cache is off, and the catalog is
asked before a task is made, because a cache hit in Prefect costs as much as a run. Outside a Prefect flow run the same
function is called directly, with the same retries, so that the default build needs no server.
"""

import fcntl
import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from catalogs.catalog import ArtifactRef, Catalog, Execution
from stages.contract import STAGES, parameters
from tasks.configs import make_config
from tasks.keys import item_seed
from tasks.memory import forget_peak_memory, peak_memory
from tasks.progress import Display

_RETRIES = 1


@dataclass(frozen=True)
class Work:
    """One execution to do: digests and plain values only, so that any worker with the catalog can do it."""

    home: str
    key: str
    stage: str
    code: str
    code_files: dict[str, str]
    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    why: str
    quiet: bool


def execute(work: Work) -> tuple[ArtifactRef, ...]:
    """Run one stage execution through the catalog, as a Prefect task if a flow run is active.

    Raises:
        WorldlineError: what the stage says is wrong with its input; recorded as an error row first.
    """
    if FlowRunContext.get() is not None:
        return _stage_task.with_options(name=work.stage)(work)
    for attempt in range(_RETRIES + 1):
        try:
            return _run(work)
        except OSError:
            if attempt == _RETRIES:
                raise
    raise AssertionError("unreachable")


def _is_transient(_task: Any, _run_: Any, state: Any) -> bool:
    """Retry what may go away by itself (disk, network); never what a stage says of its input."""
    return isinstance(state.result(raise_on_failure=False), OSError)


@task(cache_policy=NO_CACHE, persist_result=False, retries=_RETRIES, retry_delay_seconds=1, retry_condition_fn=_is_transient)
def _stage_task(work: Work) -> tuple[ArtifactRef, ...]:
    return _run(work)


def _run(work: Work) -> tuple[ArtifactRef, ...]:
    catalog, display = Catalog.open(Path(work.home)), Display(quiet=work.quiet)
    with catalog.log.lease(exclusive=False), _sole_worker(Path(work.home), work.key):
        found = catalog.find(work.key)  # another process may have finished it while we waited
        if found is not None:
            display.kept(work.stage)
            return found.outputs
        started = time.time()
        forget_peak_memory()  # so that it is that of one stage; stages in threads of one process share it
        try:
            with display.running(work.stage, work.why) as progress, catalog.scratch_folder() as scratch:
                results = _call_stage(work, catalog, progress)
                outputs = []
                for index, result in enumerate(results):
                    folder = scratch / str(index)
                    folder.mkdir()
                    outputs.append(catalog.put(result, folder))
        except Exception as error:
            catalog.record(_execution(work, (), started, error))
            raise
        return catalog.record(_execution(work, tuple(outputs), started, None)).outputs


def _call_stage(work: Work, catalog: Catalog, progress: Any) -> tuple[Any, ...]:
    stage = STAGES[work.stage]
    config = make_config(stage.config_type, work.config, work.stage)
    arguments = parameters(stage, {slot: catalog.load(digest) for slot, digest in work.inputs.items()})
    arguments |= {"config": config, "seed": item_seed(work.seed, work.stage, work.inputs), "progress": progress}
    if stage.resumable:
        arguments["checkpoints"] = catalog.checkpoint_folder(work.key)
    returned = stage.function(**arguments)
    results = returned if isinstance(returned, tuple) else (returned,)
    if tuple(type(result) for result in results) != stage.outputs:
        raise TypeError(f"{work.stage} returned {[type(result).__name__ for result in results]}, not its declared outputs")
    return results


def _execution(work: Work, outputs: tuple[ArtifactRef, ...], started: float, error: Exception | None) -> Execution:
    return Execution(
        key=work.key,
        stage=work.stage,
        version=STAGES[work.stage].version,
        code=work.code,
        code_files=work.code_files,
        config=work.config,
        seed=work.seed,
        inputs=work.inputs,
        outputs=outputs,
        status="error" if error else "ok",
        error_type=type(error).__name__ if error else None,
        error_message=str(error) if error else None,
        started_at=started,
        seconds=time.time() - started,
        peak_memory_bytes=peak_memory(),
        machine=machine(),
        packages=packages(),
    )


@contextmanager
def _sole_worker(home: Path, key: str) -> Iterator[None]:
    """Let one process at a time work on a key; the lock goes with the process, however it ends."""
    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / key
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_at(path, lock.fileno()):
                continue  # the one we waited for has finished and removed the file: queue at its successor
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def machine() -> dict[str, Any]:
    """Return the facts about this host that are recorded with every execution."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def packages() -> dict[str, str]:
    """Return the versions of the packages that Worldline depends on."""
    return dict(_packages())


@functools.cache  # reading them takes 60 ms, and what a process has loaded stays what it is
def _packages() -> dict[str, str]:
    required = [Requirement(text) for text in importlib.metadata.requires("worldline") or []]
    return {item.name: importlib.metadata.version(item.name) for item in required if item.marker is None}
