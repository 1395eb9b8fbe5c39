"""Commands that read: `datasets`, `show`, `query`, `report`."""

import argparse
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.printing import Add, open_catalog, print_json, print_table, show_rows
from schemas.errors import WorldlineError

_SHOWN = 100  # artifacts


def add_commands(add: Add) -> None:
    """Add these commands to the command line."""
    add("datasets", _datasets, "list dataset versions")
    parser = add("show", _show, "show a dataset version")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("--all", action="store_true", help=f"all artifacts, not the first {_SHOWN}")
    add("query", _query, "ask the catalog in SQL").add_argument("sql", metavar="SQL")
    parser = add("report", _report, "write a dataset version's report to a file")
    parser.add_argument("dataset", metavar="NAME[@V]")
    parser.add_argument("destination", nargs="?", type=Path, metavar="FILE")


def _datasets(options: argparse.Namespace) -> None:
    from catalogs.versions import latest, standing

    log = open_catalog(options).log
    headings, newest = {item.reference: item for item in log.headings()}, latest(log)
    rows = []
    for item in standing(log):
        heading = headings[item.reference]
        state = f"held: {item.held}" if item.held else "latest" if newest[item.name] == item.version else ""
        facts = heading.facts  # none in versions from before they were kept
        size = facts["bytes"] / 1e6 if facts else None
        rows.append(
            [item.name, item.version, state, ", ".join(item.tags), heading.artifacts, facts.get("clips"),
             facts.get("rows", {}).get("labels", 0) if facts else None, size if options.json or size is None else f"{size:.1f}",
             _day(item.published_at), _source(heading.recipe)]
        )  # fmt: skip
    columns = ["name", "version", "state", "tags", "artifacts", "clips", "labels", "MB", "published", "source"]
    show_rows(options, columns, rows)


def _show(options: argparse.Namespace) -> None:
    from catalogs.contents import artifact_refs
    from catalogs.governance import licences_of
    from catalogs.versions import latest, standing

    catalog = open_catalog(options)
    version = catalog.dataset(options.dataset)
    stands = next(item for item in standing(catalog.log, version.name) if item.version == version.version)
    gone = version.missing
    there = sorted(version.artifacts.keys() - gone.keys())
    shown = there[: None if options.json or options.all else _SHOWN]
    refs = artifact_refs(catalog.log, [version.artifacts[role] for role in shown])
    licence = licences_of(catalog, refs) if len(shown) == len(there) else {}
    if options.json:
        print_json(
            {
                "name": version.name,
                "version": version.version,
                "latest": latest(catalog.log, version.name).get(version.name) == version.version,
                "held": stands.held,
                "tags": stands.tags,
                "facts": version.facts,
                "splits": version.splits,
                "rejected": version.rejected,
                "recipe": version.recipe,
                "artifacts": {
                    role: {
                        "kind": refs[digest].kind,
                        "digest": digest,
                        "bytes": refs[digest].bytes,
                        "licence": licence[digest].expression if digest in licence else None,
                        "facts": refs[digest].facts,
                    }
                    for role, digest in version.artifacts.items()
                    if role not in gone
                },
                "gone": gone,
            }
        )
        return
    tags = f"  tagged {', '.join(stands.tags)}" if stands.tags else ""
    print(f"{version.reference}  published {_day(version.published_at)}{tags}  source={_source(version.recipe)}")
    if stands.held:
        print(f"held     {stands.held}")
    if version.facts:
        rows = ", ".join(f"{count} {table}" for table, count in version.facts["rows"].items())
        splits = ", ".join(f"{count} {name}" for name, count in version.facts["splits"].items() if count)
        print(f"holds    {len(version.artifacts)} artifacts, {version.facts['bytes'] / 1e6:.1f} MB, rows: {rows or 'none'}")
        print(f"splits   {splits} of {version.facts['clips']} clips")
    if version.rejected:
        print(f"without  {len(version.rejected)} artifacts and questions that people rejected")
    for reason in sorted(set(gone.values())):
        print(f"gone     {sum(item == reason for item in gone.values())} of these artifacts: {reason}")
    if licence:
        print(f"licence  {' and '.join(sorted({item.expression for item in licence.values() if item.origins})) or 'none needed'}")
    named = [(role, refs[version.artifacts[role]]) for role in shown]
    table = [[role, item.kind, f"{item.bytes / 1e6:.2f}", item.digest[:12], _facts(item.facts)] for role, item in named]
    print_table(["role", "kind", "MB", "digest", "facts"], table)
    if len(shown) < len(there):
        print(f"and {len(there) - len(shown)} more artifacts: see --all or --json")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _source(recipe: Mapping[str, Any]) -> str:
    source = recipe.get("source", "")
    return source if isinstance(source, str) else f"{len(source)} sources"


def _facts(facts: Mapping[str, Any]) -> str:
    shown = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in facts.items()]
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _query(options: argparse.Namespace) -> None:
    table = open_catalog(options).sql(options.sql)
    show_rows(options, table.column_names, [list(row.values()) for row in table.to_pylist()])


def _report(options: argparse.Namespace) -> None:
    version = open_catalog(options).dataset(options.dataset)
    if "report" not in version.artifacts:
        raise WorldlineError(f"{version.name}@{version.version} has no report")
    destination = options.destination or Path(f"{version.name}-{version.version}.html")
    report: Any = version.load("report")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report.files["report.html"], destination)
    except OSError as error:
        raise WorldlineError(f"the report cannot be written to {destination} ({error.strerror}): name a new file") from None
    print(destination)
