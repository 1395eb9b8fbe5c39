"""A build where everything is up to date, as a whole process: how long the engine takes to find that out.

Prefect's own share is measured beside it: what importing it takes inside our process, and what its ephemeral server
and its tasks would take if the catalog were asked from within them.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, figure

ASKED_S = 15.0
_PREFECT_TASKS = 200


@dataclass(frozen=True)
class Told:
    """What one whole process took.

    Attributes:
        wall_s: from its start to its end.
        steps_s: seconds by step.
        actions: how many executions were kept or run.
        dataset: what it published.
        peak_mb: peak memory of the process in MB.
    """

    wall_s: float
    steps_s: dict[str, float]
    actions: dict[str, int]
    dataset: str
    peak_mb: float

    @property
    def executions(self) -> int:
        """Executions in the flow."""
        return sum(self.actions.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.steps_s.items())


def build_here(home: str, clips: str) -> None:
    """Do what `worldline build` does, with toy stages, in this process, and print what each step took."""
    steps: dict[str, float] = {}
    last = time.perf_counter()

    def step(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        steps[name], last = now - last, now

    importlib.import_module("tasks")  # sets Prefect's environment
    importlib.import_module("prefect")
    step("importing prefect")
    importlib.import_module("flows.pseudo_labels")
    step("importing flows")
    from flows.recipes import compose_recipe
    from stages.contract import load_stages

    load_stages()
    step("importing stages")
    recipe = compose_recipe("pseudo_labels", ("name=noop",))
    step("recipe")
    from benchmarks.toys import run_toy_flow
    from tasks.build import Build
    from tasks.progress import Display

    del recipe["execute"]
    build = Build({**recipe, "clips": clips}, Path(home), Display(quiet=True))
    step("opening")
    artifacts = run_toy_flow(build, range(int(clips)))
    step("executions")
    outcome = build.finish(artifacts)
    step("publishing")
    actions = [decision.action for decision in build.decisions]
    counts = {action: actions.count(action) for action in sorted(set(actions))}
    print(json.dumps({"steps_s": steps, "actions": counts, "dataset": outcome["dataset"]}))


def build_apart(home: Path, clips: int) -> Told:
    """Run `build_here` as a process of its own.

    Raises:
        RuntimeError: if it fails.
    """
    wall, printed, peak = _python("build_here", str(home), str(clips))
    told = json.loads(printed.strip().splitlines()[-1])
    return Told(wall, told["steps_s"], told["actions"], told["dataset"], peak)


def prefect_here(tasks: str) -> None:
    """Run a Prefect flow without tasks and one with some that do nothing, and print what they took."""
    importlib.import_module("tasks")  # sets Prefect's environment as a build has it
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(cache_policy=NO_CACHE, persist_result=False)
    def nothing(number: int) -> int:
        return number

    @flow(persist_result=False)
    def chain(count: int) -> int:
        return sum(nothing(number) for number in range(count))

    seconds = []
    for count in (0, 0, int(tasks)):
        began = time.perf_counter()
        chain(count)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"start_s": seconds[0] - seconds[1], "task_s": (seconds[2] - seconds[1]) / int(tasks)}))


def _python(function: str, *arguments: str, environment: dict[str, str] | None = None) -> tuple[float, str, float]:
    """Call a function of this module in a fresh interpreter; return seconds, what it printed and its peak memory in MB."""
    code = f"import sys; from benchmarks.catalog_noop import {function}; {function}(*sys.argv[1:])"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{function} ended with status {process.returncode}")
    return time.perf_counter() - began, printed, usage.ru_maxrss / 1e3


def measure_noop(folder: Path, quick: bool) -> list[Figure]:
    """Build 1,000 and then 10,000 executions, each once for real and once with nothing to do."""
    from benchmarks.toys import STAGES_PER_CLIP

    prefect = _prefect_alone(folder)
    figures: list[Figure] = []
    small: Told | None = None
    for executions in (1000, 10_000):
        made = build_apart(folder / "home", executions // STAGES_PER_CLIP)
        print(f"    {made.actions} in {made.wall_s:.0f} s", file=sys.stderr, flush=True)
        again = build_apart(folder / "home", executions // STAGES_PER_CLIP)
        if again.actions != {"keep": executions} or again.dataset != made.dataset:
            raise RuntimeError(f"the second build did {again.actions} and published {again.dataset} beside {made.dataset}")
        figures += _figures(made, again, small, prefect)
        small = small or again
    return [
        *figures,
        figure(
            "catalog.prefect_start_s", prefect["start_s"], "s", detail="Prefect alone: its ephemeral server, once per process"
        ),
        figure("catalog.prefect_task_ms", 1000 * prefect["task_s"], "ms", detail=f"Prefect alone: {_PREFECT_TASKS} empty tasks"),
    ]


def _figures(made: Told, again: Told, small: Told | None, prefect: dict[str, Any]) -> list[Figure]:
    count = again.executions
    share = again.steps_s["importing prefect"]
    would = prefect["start_s"] + count * prefect["task_s"]
    asked = f"{ASKED_S:.0f} s asked" if small is None else f"{again.wall_s / small.wall_s:.1f} x the time of 1,000"
    peers = f"{asked}; Prefect's own share of it {share:.1f} s (import), and {would:.0f} s more if every look-up were its task"
    ran = made.actions.get("run", 0)
    detail = (
        f"whole process, {count:,} executions kept: {again}; {1000 * again.steps_s['executions'] / count:.2f} ms per "
        f"execution, peak {again.peak_mb:.0f} MB; the first build ran {ran:,} in {made.wall_s:.0f} s "
        f"({1000 * made.steps_s['executions'] / max(ran, 1):.0f} ms each)"
    )
    return [
        figure(f"catalog.noop_{count}_s", again.wall_s, "s", peers, detail),
        figure(f"catalog.noop_{count}_prefect_s", share, "s", "", "of which Prefect's own: its import; no server starts"),
    ]


def _prefect_alone(folder: Path) -> dict[str, Any]:
    (folder / "prefect").mkdir(parents=True)
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": "", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    _, printed, _ = _python("prefect_here", str(_PREFECT_TASKS), environment=home)
    return dict(json.loads(printed.strip().splitlines()[-1]))
