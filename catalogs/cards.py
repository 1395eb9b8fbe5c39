"""The card of an export: what it holds, whose it is, how it was made and how to load it, in one README.md.

Its head is the YAML that Hugging Face reads, so that `datasets.load_dataset(FOLDER, TABLE)` finds tables and splits.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from catalogs.governance import Origin
from catalogs.licences import UNKNOWN
from catalogs.lineage import rows_in

if TYPE_CHECKING:
    from catalogs.exports import Export, Selection

_HUB_LICENCES = {
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-NC-SA-3.0",
    "MIT",
    "Apache-2.0",
}
_ROWS = {
    "labels": "questions with answers",
    "kinematics": "states of a track at a time",
    "windows": "windows of a track",
    "tracks": "sightings of an object in a frame",
    "objects": "objects",
    "metrics": "figures",
    "clips": "clips",
    "frames": "frames",
    "cameras": "camera poses",
    "models": "models",
    "scenes": "4D scenes",
    "shards": "files of clips",
    "boxes": "boxes of an object in a frame",
    "blurred": "faces and number plates that were found in a frame, and blurred",
    "paths": "camera paths",
    "poses": "frames with a pose",
    "unposed": "frames without a pose, left out",
}

_VIDEOS = (
    "They are lossless (FFV1 in Matroska); the column `video` of the table clips names the file, and the table frames has "
    "the exact times."
)
_UNITS = (
    'Lengths are in metres and speeds in m/s where `scale_source` is not "none", else in scene units; labels tell their unit '
    "in `answer_unit`. Angles are in radians, times in seconds from the start of the clip. Every row tells its `clip`, "
    "`split`, `licence`, `attribution` and the `artifact` it came from."
)


def card(selection: "Selection", report: "Export", origins: Sequence[Origin], folder: Path, about: str = "") -> str:
    """Return the text of README.md.

    Args:
        selection: what was written.
        report: how much of it.
        origins: of everything in it, by subject.
        folder: where it was written; the tables in it are named with their splits.
        about: what is to be said of other files in it.
    """
    splits = {
        table: sorted({path.name.rpartition("-")[0] for path in (folder / table).glob("*.parquet")}) for table in report.rows
    }
    return "\n".join(
        [
            *_head(report, splits),
            f"# {report.reference}",
            "",
            f"Exported as {report.format} by Worldline, a 4D data engine. `manifest.json` names every artifact in it; "
            "`sha256sum -c SHA256SUMS` checks every file.",
            "",
            *_what(report, splits, about),
            *_how_to_load(report, splits),
            *_whose(report, origins),
            *_how_made(selection),
        ]
    )


def _head(report: "Export", splits: Mapping[str, Sequence[str]]) -> list[str]:
    only = next(iter(report.licences)) if len(report.licences) == 1 else ""
    tables = {table: found for table, found in splits.items() if found}
    lines = ["---", f"license: {only.lower() if only in _HUB_LICENCES else 'other'}", *(["configs:"] if tables else [])]
    for table, found in tables.items():
        lines += [f"- config_name: {table}", "  data_files:"]
        for split in found:
            lines += [f"  - split: {split}", f'    path: "{table}/{split}-*.parquet"']
    return [*lines, "---", ""]


def _what(report: "Export", splits: Mapping[str, Sequence[str]], about: str) -> list[str]:
    lines = ["## What it holds", "", "| table | rows | what a row is | splits |", "|---|---|---|---|"]
    for table, count in report.rows.items():
        lines.append(f"| {table} | {count} | {_ROWS[table]} | {', '.join(splits[table])} |")
    if any(splits.values()):
        lines += ["", f"The frames of the clips ({report.clips}) lie in `videos/`. {_VIDEOS}", "", _UNITS]
    lines += ["", about, ""] if about else [""]
    if report.split:
        lines += [f"Only the split {report.split} was exported.", ""]
    for item in report.left_out:
        rows = ", ".join(f"{count} rows of {table}" for table, count in item.rows.items()) or "no rows"
        lines += [f"Left out, because {item.licence} does not allow {report.licence} use: {item.clips} clips, {rows}.", ""]
    if report.others:
        others = ", ".join(f"{count} {kind}" for kind, count in report.others.items())
        lines += [f"The version also holds {others}, for which {report.format} has no place.", ""]
    if report.missing:
        lines += [f"Taken down or lost since it was published: {len(report.missing)} artifacts.", ""]
    return lines


def _whose(report: "Export", origins: Sequence[Origin]) -> list[str]:
    lines = ["## Licences", "", "| licence | artifacts |", "|---|---|"]
    lines += [f"| {licence} | {count} |" for licence, count in report.licences.items()]
    lines += ["", "Everything here was made from:", ""]
    lines += [_origin_line(origin) for origin in origins] or ["- nothing that came from outside"]
    if any(origin.licence == UNKNOWN for origin in origins):
        lines += ["", '"unknown" means that nobody has said what holds: ask before you use it.']
    return [*lines, ""]


def _origin_line(origin: Origin) -> str:
    told = [f"{name}: {value}" for name, value in (("attribution", origin.attribution), ("terms", origin.terms)) if value]
    return " ".join(f"- {origin.name} ({origin.subject[:40]}), {'; '.join([origin.licence, *told])}".split())


def _how_made(selection: "Selection") -> list[str]:
    version = selection.version
    found = rows_in(selection.catalog.log, "SELECT stage FROM executions WHERE key IN", version.executions)
    stages = Counter(stage for (stage,) in found)
    ran = ", ".join(f"{stage} ({count})" for stage, count in sorted(stages.items())) or "no recorded execution"
    recipe = json.dumps(version.recipe, indent=2, ensure_ascii=False, sort_keys=True)
    return ["## How it was made", "", f"Stages and how often each ran for this version: {ran}.", "",
            "<details><summary>Recipe</summary>", "", "```json", recipe, "```", "", "</details>", ""]  # fmt: skip


def _how_to_load(report: "Export", splits: Mapping[str, Sequence[str]]) -> list[str]:
    tables = [table for table, found in splits.items() if found]
    if not tables:
        return []
    table = "labels" if "labels" in tables else tables[0]
    split = splits[table][0]
    return [
        "## How to load it",
        "",
        "```python",
        "import datasets",
        "import duckdb",
        "import pandas",
        "",
        f'rows = pandas.read_parquet("{table}")  # all splits',
        f"rows = duckdb.sql(\"SELECT * FROM '{table}/*.parquet'\")",
        f'rows = datasets.load_dataset(".", "{table}", split="{split}")',
        "```",
        "",
    ]
