"""Commands that make things: `build`, `explain`, `rebuild`, `doctor`."""

import argparse
import tempfile
from pathlib import Path

from flows.printing import Add, open_catalog, print_json, print_table, show_rows, workspace
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
    parser = add("rebuild", _rebuild, "make a dataset version again in an empty workspace and compare")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="keep the new workspace here (default: discard it)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add("doctor", _doctor, "show which backends this machine has")


def _build(options: argparse.Namespace) -> None:
    from flows.building import combinations, run_flow

    for overrides in combinations(options.overrides) if options.multirun else [options.overrides]:
        outcome = run_flow(options.flow, overrides, workspace(options), quiet=options.quiet or options.json)
        if options.json:
            print_json(outcome)
            continue
        ran = sum(decision["action"] == "run" for decision in outcome["decisions"])
        if ran == 0:
            print(f"nothing to do: every stage of {outcome['dataset']} is recorded")
        print_table(["figure", "value", "unit"], [[row["name"], row["value"], row["unit"]] for row in outcome["figures"]])
        print(f"dataset  {outcome['dataset']}")
        print(f"report   {outcome['report']}")
        print(f"ran      {ran} of {len(outcome['decisions'])} stages in {outcome['seconds']:.1f} s")


def _explain(options: argparse.Namespace) -> None:
    from flows.building import run_flow

    outcome = run_flow(options.flow, options.overrides, workspace(options), explain=True)
    show_rows(options, ["stage", "action", "why"], [list(decision.values()) for decision in outcome["decisions"]])


def _rebuild(options: argparse.Namespace) -> None:
    from tasks.rebuild import rebuild_dataset

    catalog, quiet = open_catalog(options), options.quiet or options.json
    with tempfile.TemporaryDirectory(dir=catalog.home, prefix="rebuild-") as temporary:
        remade = rebuild_dataset(catalog, options.dataset, (options.into or Path(temporary)).absolute(), quiet=quiet)
    rows = [[item.stage, item.kind, item.level, item.code, item.recorded[:12], item.remade[:12]] for item in remade]
    show_rows(options, ["stage", "kind", "level", "code", "recorded", "remade"], rows)
    different = sum(item.level == "different" for item in remade)
    if different:
        raise WorldlineError(f"{different} of {len(remade)} artifacts of {options.dataset} came out different")


def _doctor(options: argparse.Namespace) -> None:
    from flows.doctor import examine_backends

    rows = [[item.step, item.backend, "yes" if item.available else "no", item.needs] for item in examine_backends()]
    show_rows(options, ["step", "backend", "here", "needs"], rows)
