"""The command `score`: what a model's answers to questions are worth."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

from flows.printing import Add, open_catalog, print_json, print_table
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from worldline.answers.scoring import Question

_SHOWN = 10  # replies that could not be read


def add_commands(add: Add) -> None:
    """Add this command to the command line."""
    parser = add(
        "score", _score, "score a model's free text answers to questions, by published rules and without a language model"
    )
    parser.add_argument("answers", type=Path, metavar="ANSWERS", help="JSON, JSONL or Parquet with an id and a reply per row")
    parser.add_argument(
        "--questions", required=True, metavar="FILE|NAME[@V]",
        help="questions of a dataset version, or a file of ours, VLM4D, VSI-Bench, STI-Bench, STRIDE-QA or SpatialRGPT-Bench",
    )  # fmt: skip
    parser.add_argument("--rules", default="st_vlm", choices=["st_vlm", "rgpt", "stride", "vsi", "mcq"], help="(st_vlm)")


def _score(options: argparse.Namespace) -> None:
    from worldline.answers.question_files import read_replies
    from worldline.answers.scoring import RULES, score

    rules = RULES[options.rules]
    report = score(_questions(options), read_replies(options.answers), rules)
    if options.json:
        kinds = [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in (dataclasses.asdict(item) for item in report.kinds)
        ]
        unread = {"unknown": report.unknown, "unparsed": report.unparsed}
        print_json({"rules": options.rules, "source": rules.source, "kinds": kinds, **unread})
        return
    print(rules.source)
    columns = ["kind", "questions", "missing", "unreadable", "no rule", "right %", "score %", "mean error", "median error",
               "unit", "mean relative error %", "mean IoU"]  # fmt: skip
    print_table(
        columns,
        [
            [item.kind, item.questions, item.missing, item.unparsed, item.no_rule, _percent(item.correct_share),
             _percent(item.score), _told(item.error_mean), _told(item.error_median),
             "1 - IoU" if math.isfinite(item.iou_mean) else item.unit, _percent(item.relative_error_mean), _told(item.iou_mean)]
            for item in report.kinds
        ],
    )  # fmt: skip
    if report.unknown:
        print(f"unknown     {len(report.unknown)} answers belong to no question, such as {report.unknown[0]}")
    for key, reply in list(report.unparsed.items())[:_SHOWN]:
        print(f"unreadable  {key}: {reply[:120]!r}")
    if len(report.unparsed) > _SHOWN:
        print(f"and {len(report.unparsed) - _SHOWN} more that could not be read: see --json")


def _questions(options: argparse.Namespace) -> "list[Question]":
    from worldline.answers.question_files import read_questions, to_questions

    path, multiple_choice = Path(options.questions), options.rules == "mcq"
    if path.exists() or path.suffix in (".json", ".jsonl", ".parquet"):
        return read_questions(path, multiple_choice)
    version = open_catalog(options).dataset(options.questions)
    rows = version.table("labels").to_pylist()
    if not rows:
        raise WorldlineError(f"{version.reference} has no questions: score against a version with labels")
    return to_questions(rows, version.reference, multiple_choice)


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else 100 * share


def _told(value: float) -> float | None:
    return None if math.isnan(value) else value
