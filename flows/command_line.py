"""The command line: `worldline COMMAND ...`.

Every command that reads prints a table for people and, with `--json`, one JSON document for programs. Exit status: 0
done, 1 the work failed (one sentence on stderr), 2 wrong usage, 130 interrupted.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from schemas.errors import WorldlineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(item.startswith("-") for item in rest)):
        parser.error(f"unknown: {' '.join(rest)}")
    if rest:  # settings after an option, which argparse does not join to those before it
        options.overrides += rest
    try:
        options.command(options)
    except WorldlineError as error:
        if options.debug:
            raise
        print(f"worldline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "worldline: interrupted; finished stages are kept and a reconstruction goes on from its last checkpoint: "
            "run the same command again",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the reader of our pipe has gone)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"worldline: {message}; see worldline --help\n")


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    shared.add_argument("--home", type=Path, default=None, help="workspace (default $WORLDLINE_HOME or ./worldline-data)")
    shared.add_argument("--json", action="store_true", help="print one JSON document")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = _Parser(prog="worldline", description="A 4D data engine: from video to versioned 4D datasets.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[shared], help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    for name, command, text in (
        ("build", _build, "run a flow and publish a dataset version"),
        ("explain", _explain, "say which stages a build would run, and why"),
    ):
        sub = add(name, command, text)
        sub.add_argument("flow", metavar="FLOW")
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as source=street.mp4")
        if name == "build":
            sub.add_argument("-m", "--multirun", action="store_true", help="one build per combination of a=1,2 b=3,4")
            sub.add_argument("--quiet", action="store_true", help="no progress")
    add("datasets", _datasets, "list dataset versions")
    add("show", _show, "show a dataset version").add_argument("dataset", metavar="NAME[@V]")
    add("query", _query, "ask the catalog in SQL").add_argument("sql", metavar="SQL")
    add("lineage", _lineage, "show what an artifact, dataset or question came from").add_argument("identifier", metavar="ID")
    sub = add("report", _report, "write a dataset version's report to a file")
    sub.add_argument("dataset", metavar="NAME[@V]")
    sub.add_argument("destination", nargs="?", type=Path, default=None, metavar="FILE")
    sub = add("rebuild", _rebuild, "make a dataset version again in an empty workspace and compare")
    sub.add_argument("dataset", metavar="NAME[@V]")
    sub.add_argument(
        "--into", type=Path, default=None, metavar="FOLDER", help="keep the new workspace here (default: discard it)"
    )
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub = add("verify", _verify, "hash every object again and name what is damaged or missing")
    sub.add_argument("dataset", nargs="?", default=None, metavar="NAME[@V]")
    sub = add("gc", _gc, "list the objects that nothing needs; remove them with --yes")
    sub.add_argument("--yes", action="store_true", help="remove them")
    sub.add_argument("--grace-days", type=float, default=7.0, help="keep what was touched later than this ago (default 7)")
    add("doctor", _doctor, "show which backends this machine has")
    return parser


def workspace(options: argparse.Namespace) -> Path:
    """Return the workspace folder that the options or the environment name."""
    return (options.home or Path(os.environ.get("WORLDLINE_HOME", "worldline-data"))).expanduser().absolute()


def _build(options: argparse.Namespace) -> None:
    from flows.building import combinations, run_flow

    for overrides in combinations(options.overrides) if options.multirun else [options.overrides]:
        outcome = run_flow(options.flow, overrides, workspace(options), quiet=options.quiet or options.json)
        if options.json:
            _print_json(outcome)
            continue
        ran = sum(decision["action"] == "run" for decision in outcome["decisions"])
        if ran == 0:
            print(f"nothing to do: every stage of {outcome['dataset']} is recorded")
        _table(["figure", "value", "unit"], [[row["name"], row["value"], row["unit"]] for row in outcome["figures"]])
        print(f"dataset  {outcome['dataset']}")
        print(f"report   {outcome['report']}")
        print(f"ran      {ran} of {len(outcome['decisions'])} stages in {outcome['seconds']:.1f} s")


def _explain(options: argparse.Namespace) -> None:
    from flows.building import run_flow

    outcome = run_flow(options.flow, options.overrides, workspace(options), explain=True)
    _show_rows(options, ["stage", "action", "why"], [list(decision.values()) for decision in outcome["decisions"]])


def _datasets(options: argparse.Namespace) -> None:
    versions = _catalog(options).datasets()
    rows = [[item.name, item.version, len(item.artifacts), item.recipe.get("source", "")] for item in versions]
    _show_rows(options, ["name", "version", "artifacts", "source"], rows)


def _show(options: argparse.Namespace) -> None:
    catalog = _catalog(options)
    version = catalog.dataset(options.dataset)
    artifacts = [catalog.artifact(digest) for digest in version.artifacts.values()]
    if options.json:
        _print_json(
            {
                "name": version.name,
                "version": version.version,
                "recipe": version.recipe,
                "artifacts": {
                    role: {"kind": item.kind, "digest": item.digest, "bytes": item.bytes, "facts": item.facts}
                    for role, item in zip(version.artifacts, artifacts, strict=True)
                },
            }
        )
        return
    print(f"{version.name}@{version.version}  source={version.recipe.get('source')}")
    rows = [
        [role, item.kind, f"{item.bytes / 1e6:.2f}", item.digest[:12], _facts(item.facts)]
        for role, item in zip(version.artifacts, artifacts, strict=True)
    ]
    _table(["role", "kind", "MB", "digest", "facts"], rows)


def _facts(facts: Mapping[str, Any]) -> str:
    shown = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in facts.items()]
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _query(options: argparse.Namespace) -> None:
    table = _catalog(options).query(options.sql)
    _show_rows(options, table.column_names, [list(row.values()) for row in table.to_pylist()])


def _lineage(options: argparse.Namespace) -> None:
    lineage = _catalog(options).lineage(options.identifier)
    edges: dict[tuple[str, str], list[str]] = {}
    for edge in lineage.edges.to_pylist():
        edges.setdefault((edge["execution_key"], edge["direction"]), []).append(f"{edge['kind']} {edge['digest'][:12]}")
    rows = [
        [
            node["stage"],
            node["version"],
            node["execution_key"][:12],
            ", ".join(edges.get((node["execution_key"], "in"), [])),
            ", ".join(edges.get((node["execution_key"], "out"), [])),
        ]
        for node in lineage.nodes.to_pylist()
    ]
    _show_rows(options, ["stage", "version", "execution", "from", "made"], rows)


def _report(options: argparse.Namespace) -> None:
    catalog = _catalog(options)
    version = catalog.dataset(options.dataset)
    if "report" not in version.artifacts:
        raise WorldlineError(f"{version.name}@{version.version} has no report")
    destination = options.destination or Path(f"{version.name}-{version.version}.html")
    report: Any = catalog.load(version.artifacts["report"])
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report.files["report.html"], destination)
    except OSError as error:
        raise WorldlineError(f"the report cannot be written to {destination} ({error.strerror}): name a new file") from None
    print(destination)


def _rebuild(options: argparse.Namespace) -> None:
    from tasks.rebuild import rebuild_dataset

    catalog, quiet = _catalog(options), options.quiet or options.json
    with tempfile.TemporaryDirectory(dir=catalog.home, prefix="rebuild-") as temporary:
        remade = rebuild_dataset(catalog, options.dataset, (options.into or Path(temporary)).absolute(), quiet=quiet)
    rows = [[item.stage, item.kind, item.level, item.code, item.recorded[:12], item.remade[:12]] for item in remade]
    _show_rows(options, ["stage", "kind", "level", "code", "recorded", "remade"], rows)
    different = sum(item.level == "different" for item in remade)
    if different:
        raise WorldlineError(f"{different} of {len(remade)} artifacts of {options.dataset} came out different")


def _verify(options: argparse.Namespace) -> None:
    bad = _catalog(options).verify(options.dataset)
    _show_rows(options, ["object", "found"], bad)
    if bad:
        raise WorldlineError(f"{len(bad)} objects are damaged or missing: delete the damaged ones and build again")


def _gc(options: argparse.Namespace) -> None:
    gone = _catalog(options).gc(dry_run=not options.yes, grace_seconds=options.grace_days * 86400)
    _show_rows(options, ["object", "bytes"], gone)
    if not options.json:
        size = sum(count for _, count in gone) / 1e6
        print(f"{'removed' if options.yes else 'would remove'} {len(gone)} objects, {size:.1f} MB")


def _doctor(options: argparse.Namespace) -> None:
    from flows.doctor import examine_backends

    rows = [[item.step, item.backend, "yes" if item.available else "no", item.needs] for item in examine_backends()]
    _show_rows(options, ["step", "backend", "here", "needs"], rows)


def _catalog(options: argparse.Namespace) -> Any:
    from catalogs.catalog import Catalog

    home = workspace(options)
    if not home.is_dir():
        raise WorldlineError(f"there is no workspace at {home}: build a dataset first, or name one with --home")
    return Catalog.open(home)


def _show_rows(options: argparse.Namespace, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    if options.json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        _table(columns, rows)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: cut to the width of a terminal where it has many columns, uncut into a file or pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis" if len(columns) > 6 else "fold", no_wrap=len(columns) > 6)
    count = 0
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell) for cell in row))
        count += 1
    console.print(table)
    if count == 0:
        console.print("(no rows)")
