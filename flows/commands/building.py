"""Commands that make things: `build`, `explain`, `doctor`."""

import argparse
import statistics
from typing import Any

from flows.printing import Add, print_json, print_table, show_rows, workspace
from schemas.errors import WorldlineError


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    for name, command, text in (
        ("build", _build, "run a flow and publish a dataset version"),
        ("explain", _explain, "say which stages a build would run, and why"),
    ):
        parser = add(name, command, text)
        parser.add_argument("flow", metavar="FLOW")
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as source=street.mp4")
        if name == "build":
            parser.add_argument("-m", "--multirun", action="store_true", help="one build per combination of a=1,2 b=3,4")
            parser.add_argument("--quiet", action="store_true", help="no progress")
    add("doctor", _doctor, "show which backends this machine has")


def _build(options: argparse.Namespace) -> None:
    from flows.building import combinations, run_flow

    for overrides in combinations(options.overrides) if options.multirun else [options.overrides]:
        outcome = run_flow(options.flow, overrides, workspace(options), quiet=options.quiet or options.json)
        if options.json:
            print_json(outcome)
            continue
        _show_outcome(outcome)


def _show_outcome(outcome: dict[str, Any]) -> None:
    ran = sum(decision["action"] == "run" for decision in outcome["decisions"])
    if ran == 0:
        print(f"nothing to do: every stage of {outcome['dataset']} is recorded")
    if len({row["clip"] for row in outcome["figures"]}) > 1:
        by_name: dict[tuple[str, str], list[float]] = {}
        for row in outcome["figures"]:
            by_name.setdefault((row["name"], row["unit"]), []).append(row["value"])
        rows = [[name, len(some), statistics.median(some), min(some), max(some), unit] for (name, unit), some in by_name.items()]
        print_table(["figure", "clips", "median", "lowest", "highest", "unit"], rows)
    else:
        print_table(["figure", "value", "unit"], [[row["name"], row["value"], row["unit"]] for row in outcome["figures"]])
    print(f"dataset  {outcome['dataset']}")
    for report in outcome["reports"][:5]:
        print(f"report   {report}")
    if len(outcome["reports"]) > 5:
        print(f"         and {len(outcome['reports']) - 5} more beside it")
    print(f"ran      {ran} of {len(outcome['decisions'])} stages in {outcome['seconds']:.1f} s")
    if outcome["held"]:
        raise WorldlineError(f"{outcome['dataset']} is held and does not become the latest: {outcome['held']}")
    if outcome["failures"]:
        told = "; ".join(f"{clip}: {sentence}" for clip, sentence in list(outcome["failures"].items())[:3])
        rest = f"; and {len(outcome['failures']) - 3} more" if len(outcome["failures"]) > 3 else ""
        raise WorldlineError(f"{_counted(len(outcome['failures']), 'clip')} missing from {outcome['dataset']}: {told}{rest}")


def _explain(options: argparse.Namespace) -> None:
    from flows.building import run_flow

    outcome = run_flow(options.flow, options.overrides, workspace(options), explain=True)
    decisions = outcome["decisions"]
    if options.json:
        print_json(outcome)
        return
    several = len({decision["clip"] for decision in decisions}) > 1
    rows = []
    for decision in decisions:
        row = [decision["stage"], decision["action"], decision["why"], _duration(decision["seconds"])]
        rows.append([decision["clip"], *row] if several else row)
    print_table([*(["clip"] if several else []), "stage", "action", "why", "took before"], rows)
    sure = [decision["seconds"] for decision in decisions if decision["action"] == "run"]
    perhaps = [decision["seconds"] or 0.0 for decision in decisions if decision["action"] == "may run"]
    if sure or perhaps:
        least = sum(seconds or 0.0 for seconds in sure)
        unknown = sum(seconds is None for seconds in sure)
        print(
            f"about {_duration(least)}"
            + (f" to {_duration(least + sum(perhaps))}" if perhaps else "")
            + (f", and {unknown} stages that never ran before" if unknown else "")
        )
    else:
        print("nothing to do: every stage is recorded")


def _counted(count: int, noun: str) -> str:
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def _doctor(options: argparse.Namespace) -> None:
    from flows.doctor import examine_backends

    rows = [[item.step, item.backend, "yes" if item.available else "no", item.needs] for item in examine_backends()]
    show_rows(options, ["step", "backend", "here", "needs"], rows)
