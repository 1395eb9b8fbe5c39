"""Commands that read: `datasets`, `show`, `query`, `report`."""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.printing import Add, open_catalog, print_json, print_table, show_rows
from schemas.errors import WorldlineError


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    add("datasets", _datasets, "list dataset versions")
    add("show", _show, "show a dataset version").add_argument("dataset", metavar="NAME[@V]")
    add("query", _query, "ask the catalog in SQL").add_argument("sql", metavar="SQL")
    parser = add("report", _report, "write a dataset version's report to a file")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("destination", nargs="?", type=Path, metavar="FILE")


def _datasets(options: argparse.Namespace) -> None:
    versions = open_catalog(options).datasets()
    rows = [[item.name, item.version, len(item.artifacts), item.recipe.get("source", "")] for item in versions]
    show_rows(options, ["name", "version", "artifacts", "source"], rows)


def _show(options: argparse.Namespace) -> None:
    catalog = open_catalog(options)
    version = catalog.dataset(options.dataset)
    artifacts = [catalog.artifact(digest) for digest in version.artifacts.values()]
    if options.json:
        print_json(
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
    print_table(["role", "kind", "MB", "digest", "facts"], rows)


def _facts(facts: Mapping[str, Any]) -> str:
    shown = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in facts.items()]
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _query(options: argparse.Namespace) -> None:
    table = open_catalog(options).sql(options.sql)
    show_rows(options, table.column_names, [list(row.values()) for row in table.to_pylist()])


def _report(options: argparse.Namespace) -> None:
    catalog = open_catalog(options)
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
