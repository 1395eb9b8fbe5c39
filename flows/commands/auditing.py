"""The command `audit`: labels against the truth."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from flows.printing import Add, open_catalog, print_json, print_table

if TYPE_CHECKING:
    from stages.label.audit_figures import AuditFigure

_GROUPED = ("class", "range", "speed", "track length")


def add_commands(add: Add) -> None:
    """Add this command to the command line."""
    text = "compare a version's labels with the truth of its clips, by class, range, speed and track length"
    parser = add("audit", _audit, text)
    parser.add_argument("dataset", metavar="NAME[@V]")


def _audit(options: argparse.Namespace) -> None:
    from stages.label.audit_figures import sum_up
    from tasks.auditing import audit_version

    found = audit_version(open_catalog(options), options.dataset, quiet=options.json)
    figures = sum_up(list(found.audits.values()))
    if options.json:
        document = {"dataset": found.reference, "clips": sorted(found.audits), "without_truth": found.without_truth}
        print_json(document | {"figures": [dataclasses.asdict(item) for item in figures]})
        return
    count, lacking = len(found.audits), len(found.without_truth)
    print(
        f"{found.reference}  labels of {count} {'clip' if count == 1 else 'clips'} against the truth"
        f"{f'; {lacking} without truth left out' if lacking else ''}"
    )
    print("errors are of travelled distance; mean speed is distance over time, so that its relative error is the same")
    everything = [item for item in figures if item.grouping == "all"]
    print_table(["all labels", "value", "unit", "of"], [[item.measure, item.value, item.unit, item.count] for item in everything])
    for grouping in (*_GROUPED, "confusion", "rejected", "risk and coverage", "error split"):
        mine = [item for item in figures if item.grouping == grouping]
        if mine:
            print()
            _print_group(grouping, mine)


def _print_group(grouping: str, figures: "list[AuditFigure]") -> None:
    """Print one line per group, one column per measure with its unit."""
    heading = {"confusion": "truth", "rejected": "reason", "risk and coverage": "candidates kept", "error split": "input"}.get(
        grouping, grouping
    )
    told = {(item.group, item.measure): item.value for item in figures}
    groups = list(dict.fromkeys(item.group for item in figures))
    if grouping == "error split":  # what each step adds has a column of its own in common
        added = [item.measure for item in figures if item.measure.startswith("added by ")]
        rows = [
            [group, told[group, "error, median"], told[group, "error, mean"], told[group, name], name.removeprefix("added by ")]
            for group, name in zip(groups, added, strict=True)
        ]
        print_table([heading, "error, median (%)", "error, mean (%)", "adds to the median (%)", "by"], rows)
        return
    measures = list(dict.fromkeys((item.measure, item.unit) for item in figures))
    columns = [name if unit in ("objects", "windows") else f"{name} ({unit})" for name, unit in measures]
    # objects and windows have tables of their own, so that both fit a terminal
    for units in ({"objects"}, {unit for _, unit in measures} - {"objects"}):
        chosen = [index for index, (_, unit) in enumerate(measures) if unit in units]
        rows = [[group, *(told.get((group, measures[index][0])) for index in chosen)] for group in groups]
        rows = [row for row in rows if any(value is not None for value in row[1:])]
        if rows:
            print_table([heading, *(columns[index] for index in chosen)], rows)
