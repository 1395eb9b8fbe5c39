"""Questions and answers from files: our own, and the shapes in which public benchmarks come.

| shape | told by | read as |
|---|---|---|
| ours (labels of a dataset version, a Parquet export) | `question_id`, `answer_unit` | number, interval or words |
| VLM4D | `choices` {A..D}, `answer` = text of one | option |
| STI-Bench | `Candidates` {A..E}, `Answer` = letter | option |
| VSI-Bench | `question_type`, `ground_truth`, `options` ["A. ...", ...] or null | option, or number in the unit of its type |
| SpatialRGPT-Bench | `qa_info` {type, category}, `conversations` | number read from the true answer, or words |
| STRIDE-QA-Bench | `qa_category`, `gt_value` {quantity: number}, `unit` {quantity: unit} | a number per quantity |
| LLaVA, Qwen, ShareGPT | `conversations` or `messages` | number read from the true answer, or words |

Files are JSON (a list), JSON lines or Parquet; a folder of Parquet files counts as one. Checked against the benchmarks' own
code: VLM4D, VSI-Bench, STRIDE-QA-Bench and SpatialRGPT-Bench (fields, not data); STI-Bench's columns are from its paper.
ST-VLM published no files: questions of its seven kinds are read in our shape or as conversations.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import WorldlineError
from worldline.answers.choices import parse_choice
from worldline.answers.quantities import UNITS, parse_interval, parse_quantity
from worldline.answers.scoring import Question

_VSI_UNITS = {
    "object_abs_distance": "m", "object_size_estimation": "cm", "room_size_estimation": "m2", "object_counting": "count",
    "room_size": "m2", "object_size": "cm", "object_count": "count",
}  # fmt: skip
_RGPT_UNITS = {"direction": "o'clock"}
_UNIT_NAMES = {
    "meters": "m", "meter": "m", "metres": "m", "degrees": "deg", "degree": "deg", "°": "deg", "seconds": "s", "kmh": "km/h",
    "kph": "km/h", "m/s^2": "m/s2", "m/s²": "m/s2", "m^2": "m2", "m²": "m2", "clock": "o'clock", "oclock": "o'clock",
    "number": "count",
}  # fmt: skip
_IDS = ("question_id", "id", "qid", "ID", "label_id")
_REPLIES = ("response", "prediction", "pred", "model_answer", "output", "text", "answer")


def read_questions(path: Path, multiple_choice: bool = False) -> list[Question]:
    """Read the questions of a file or folder; see the module for the shapes and `to_questions` for multiple choice.

    Raises:
        WorldlineError: if it is not there, is no table of questions, or a row lacks what its shape needs.
    """
    return to_questions(_read_rows(path), str(path), multiple_choice)


def to_questions(rows: Sequence[Mapping[str, Any]], name: str, multiple_choice: bool = False) -> list[Question]:
    """Return the questions of rows, each in any of the shapes of this module.

    Args:
        rows: the fields of each question.
        name: of the file, for messages.
        multiple_choice: replies choose among the options of our questions wherever there are any; else only where the
            answer is in words.

    Raises:
        WorldlineError: if a row has no known shape, or a field that its shape needs is missing or strange.
    """
    questions: list[Question] = []
    for number, row in enumerate(rows, 1):
        try:
            questions += _read_question(row, multiple_choice)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            missing = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
            raise WorldlineError(f"{name}: question {number} cannot be read ({missing})") from error
    return questions


def read_replies(path: Path) -> dict[str, str]:
    """Read a model's replies by question id: an object {id: reply}, or rows with an id and a reply.

    The reply is in the field "response", "prediction", "pred", "model_answer", "output", "text" or "answer", the first that
    there is.

    Raises:
        WorldlineError: if it is not there, has other fields, or answers a question twice.
    """
    if path.suffix == ".json" and path.is_file():
        held = _parse_json(path)
        if isinstance(held, dict) and not any(name in held for name in _IDS):
            return {str(key): _as_text(value) for key, value in held.items()}
    replies: dict[str, str] = {}
    for number, row in enumerate(_read_rows(path), 1):
        key = next((row[name] for name in _IDS if row.get(name) is not None), None)
        field = next((name for name in _REPLIES if name in row), None)
        if key is None or field is None:
            wanted = "an id (question_id or id)" if key is None else f"a reply ({', '.join(_REPLIES)})"
            raise WorldlineError(f"{path}: answer {number} has no {wanted}; its fields are {', '.join(row)}")
        if str(key) in replies:
            raise WorldlineError(f"{path}: question {key} is answered twice: keep one of the two")
        replies[str(key)] = _as_text(row[field])
    return replies


# -- files ---------------------------------------------------------------------------------------------------------------


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        labels = path / "labels" if (path / "labels").is_dir() else path
        files = sorted(labels.glob("*.parquet"))
        if not files:
            raise WorldlineError(f"{path} holds no Parquet files: name a file of questions, or the folder of a Parquet export")
        return [row for file in files for row in _read_parquet(file)]
    if not path.is_file():
        raise WorldlineError(f"{path} is not there: name a JSON, JSONL or Parquet file")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    held = _parse_json(path) if path.suffix == ".json" else _parse_lines(path)
    if isinstance(held, dict):
        lists = [value for value in held.values() if isinstance(value, list)]
        held = lists[0] if len(lists) == 1 else held
    if not isinstance(held, list) or not held or not all(isinstance(row, dict) for row in held):
        raise WorldlineError(f"{path} holds no list of objects: one object a question is needed, as JSON or JSON lines")
    return held


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        raise WorldlineError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from error


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WorldlineError(f"{path} is no JSON: {error}") from error


def _parse_lines(path: Path) -> list[Any]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError) as error:
        raise WorldlineError(f"{path} cannot be read as text: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise WorldlineError(f"{path}: line {number} is no JSON: {error}") from error
    return rows


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


# -- shapes --------------------------------------------------------------------------------------------------------------


def _read_question(row: Mapping[str, Any], multiple_choice: bool) -> list[Question]:
    if "answer_unit" in row or "answer_value" in row:
        return [_ours(row, multiple_choice)]
    if "gt_value" in row:
        return _stride(row)
    if "qa_info" in row:
        return [_spatial_rgpt(row)]
    if "Candidates" in row:
        return [_multiple_choice(row, "Candidates", "Answer", str(row.get("Task") or "multiple-choice"))]
    if row.get("choices"):
        return [_multiple_choice(row, "choices", "answer", str(row.get("question_type") or row.get("kind") or "multiple-choice"))]
    if "ground_truth" in row and "question_type" in row:
        return [_vsi(row)]
    if "conversations" in row or "messages" in row:
        return [_conversation(row)]
    raise ValueError(f"its fields {', '.join(sorted(row))} are of no shape that is known here")


def _ours(row: Mapping[str, Any], multiple_choice: bool) -> Question:
    given: dict[str, Any] = {"id": str(row["question_id"]), "kind": str(row["kind"]), "text": str(row["question"])}
    options = row.get("choices") or row.get("options")
    # Numbers are scored as numbers, and comparisons by the object that a reply names, by more of its words than one.
    if options and (multiple_choice or not (row.get("answer_unit") or str(row["kind"]).endswith("_comparison"))):
        return Question(**given, **_options(options, str(row["answer"])))
    unit = str(row.get("answer_unit") or "")
    unit = _UNIT_NAMES.get(unit, unit)
    value = _number(row.get("answer_value"))
    if not unit and math.isfinite(value) and parse_quantity(str(row["answer"]), "count") is not None:
        unit = "count" if re.fullmatch(r"\s*\d+\s*", str(row["answer"])) else ""
    if unit and unit not in UNITS:
        raise ValueError(f"its answer_unit {unit!r} is none of {', '.join(UNITS)}")
    if unit and not math.isfinite(value):
        raise ValueError(f"its answer_value is no number, but answer_unit is {unit!r}")
    end = _number(row.get("answer_end_value"))
    return Question(**given, answer=str(row["answer"]), unit=unit, value=value if unit else math.nan, end_value=end)


def _multiple_choice(row: Mapping[str, Any], options: str, answer: str, kind: str) -> Question:
    text = row.get("question") or row.get("Question")
    return Question(_id(row), kind, str(text), **_options(row[options], str(row[answer])))


def _vsi(row: Mapping[str, Any]) -> Question:
    kind, text, true = str(row["question_type"]), str(row["question"]), str(row["ground_truth"])
    if row.get("options"):
        return Question(_id(row), kind, text, **_options(row["options"], true))
    if kind not in _VSI_UNITS:
        raise ValueError(f"its question_type {kind!r} has no options and no unit is known for it")
    return Question(_id(row), kind, text, true, _VSI_UNITS[kind], float(true))


def _stride(row: Mapping[str, Any]) -> list[Question]:
    """Return one question per quantity; "direction" is a bearing in degrees."""
    found = []
    for quantity, value in row["gt_value"].items():
        if value is None:
            continue
        unit = str((row.get("unit") or {}).get(quantity) or {"distance": "m", "direction": "deg", "velocity": "m/s"}[quantity])
        unit = _UNIT_NAMES.get(unit, unit)
        if unit not in UNITS:
            raise ValueError(f"its unit {unit!r} of {quantity} is none of {', '.join(UNITS)}")
        kind = f"{row['qa_category']}.{quantity}"
        found.append(Question(_id(row), kind, str(row.get("question", "")), str(row.get("gt", "")), unit, float(value)))
    return found


def _spatial_rgpt(row: Mapping[str, Any]) -> Question:
    info = row["qa_info"]
    text, answer = _turns(row) if "conversations" in row else (row["question"], row.get("gt") or row["answer"])
    if info["type"] != "quantitative":
        return Question(_id(row), info["category"], text, _yes_no_or(answer))
    unit = _RGPT_UNITS.get(info["category"], "m")
    value = parse_quantity(answer, unit)
    if value is None:
        raise ValueError(f"its answer {answer!r} holds no number in {unit}")
    return Question(_id(row), info["category"], text, answer, unit, value)


def _conversation(row: Mapping[str, Any]) -> Question:
    """Return the question of the first turn; its unit is the first that its answer can be read in."""
    text, answer = _turns(row)
    kind = str(row.get("kind") or row.get("question_type") or row.get("task") or "conversation")
    interval = parse_interval(answer) if re.search(r"\b(?:from|between)\b.*\d", answer.lower()) else None
    if interval is not None:
        return Question(_id(row), kind, text, answer, "s", *interval)
    for unit in ("o'clock", "km/h", "m", "s", "deg"):
        if re.search(_UNIT_IN_ANSWER[unit], answer.lower()):
            value = parse_quantity(answer, unit)
            if value is not None:
                return Question(_id(row), kind, text, answer, unit, value)
    return Question(_id(row), kind, text, _yes_no_or(answer))


_UNIT_IN_ANSWER = {
    "o'clock": r"clock", "km/h": r"\d\s*(?:km/h|kmh|kph|mph|m/s|kilomet\w+ per|met\w+ per|miles per)",
    "m": r"\d\s*(?:m|cm|mm|km|ft|feet|foot|in|inch\w*|yards?|miles?|\w*met(?:er|re)s?)\b(?!/)", "s": r"\d\s*s(?:ec\w*)?\b",
    "deg": r"\d\s*(?:deg|°)",
}  # fmt: skip


def _turns(row: Mapping[str, Any]) -> tuple[str, str]:
    turns = row.get("conversations") or row["messages"]
    said = [str(turn.get("value", turn.get("content"))) for turn in turns]
    who = [str(turn.get("from", turn.get("role"))) for turn in turns]
    start = next((place for place, speaker in enumerate(who) if speaker in ("human", "user")), 0)
    if start + 1 >= len(said):
        raise ValueError("its conversation has no answer")
    return re.sub(r"<(?:video|image)>\s*", "", said[start]), said[start + 1]


def _options(given: Any, answer: str) -> dict[str, Any]:
    """Return `options` and `answer` of a question: options by letter, and the letter of the true one."""
    if isinstance(given, str):
        given = json.loads(given)
    if isinstance(given, Mapping):
        options = {str(letter): str(text) for letter, text in given.items() if text is not None}
    else:
        texts = [re.sub(r"^\(?[A-Z]\)?[.):]\s*", "", str(text)) for text in given]
        options = {chr(ord("A") + place): text for place, text in enumerate(texts)}
    exact = [letter for letter, text in options.items() if text.strip().lower() == answer.strip().lower()]
    true = answer.strip() if answer.strip() in options else exact[0] if len(exact) == 1 else parse_choice(answer, options)
    if true is None:
        raise ValueError(f"its answer {answer!r} is none of its options {', '.join(options.values())}")
    return {"options": options, "answer": true}


def _yes_no_or(answer: str) -> str:
    first = re.match(r"\W*(yes|no)\b", answer.lower())
    return first[1] if first else answer


def _id(row: Mapping[str, Any]) -> str:
    for name in _IDS:
        if row.get(name) is not None:
            return str(row[name])
    raise KeyError("question_id")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
