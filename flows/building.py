"""How every flow begins, and how the command line runs one."""

import functools
import importlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import prefect

from flows.recipes import compose_recipe
from schemas.errors import WorldlineError
from tasks.build import Build
from tasks.configs import nearest
from tasks.progress import Display

_EXECUTORS = ("auto", "local", "prefect")

# A flow takes plain JSON values and only chains stages. `NAME.fn(...)` runs it in this process without any server,
# `NAME(...)` under Prefect, and a deployment calls the same function; all give equal digests.
flow: Any = functools.partial(prefect.flow, persist_result=False)


def begin(name: str, overrides: Sequence[str], home: str, *, explain: bool, quiet: bool) -> Build:
    """Compose a flow's recipe and open its build.

    Raises:
        WorldlineError: what is wrong with the settings, in one sentence.
    """
    recipe = compose_recipe(name, overrides)
    del recipe["execute"]  # where a flow runs is no part of what it makes
    return Build(recipe, Path(home).absolute(), Display(quiet=quiet or explain), explain=explain)


def run_flow(name: str, overrides: Sequence[str], home: Path, *, explain: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Run a flow where its `execute` setting says and return its outcome, with the wall time in `seconds`."""
    started = time.monotonic()
    executor = compose_recipe(name, overrides)["execute"]
    if executor not in _EXECUTORS:
        raise WorldlineError(f"execute={executor} is not known{nearest(str(executor), _EXECUTORS)}")
    if executor == "auto":
        executor = "prefect" if os.environ.get("PREFECT_API_URL") else "local"
    function = getattr(importlib.import_module(f"flows.{name}"), name)
    run = function.fn
    if executor == "prefect" and not explain:
        # A Prefect flow run costs 10 to 17 s before its first task: where everything is recorded none is started.
        planned = run(tuple(overrides), str(home), explain=True, quiet=True)
        if any(decision["action"] != "keep" for decision in planned["decisions"]):
            run = function
    outcome: dict[str, Any] = run(tuple(overrides), str(home), explain=explain, quiet=quiet)
    return outcome | {"seconds": time.monotonic() - started}


def combinations(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield one list of overrides per combination of comma-separated values ("a=1,2")."""
    choices = []
    for text in overrides:
        key, _, values = text.partition("=")
        listed = values.startswith("[")  # one value: a list
        choices.append([text] if listed else [f"{key}={value}" for value in values.split(",")])
    for combination in itertools.product(*choices):
        yield list(combination)
