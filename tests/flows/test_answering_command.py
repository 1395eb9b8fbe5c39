"""`worldline score` on questions of a dataset version and on files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from catalogs.catalog import Catalog, Execution
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import rows_to_table
from schemas.labels import QUESTIONS, REJECTIONS, Questions

ROWS = [
    {"question_id": "far", "kind": "traveled_distance", "question": "How far?", "answer": "10 meters", "answer_value": 10.0,
     "answer_unit": "m"},
    {"question_id": "when", "kind": "direction_timestamp", "question": "When?", "answer": "from 2.0 to 6.0 seconds",
     "answer_value": 2.0, "answer_end_value": 6.0, "answer_unit": "s"},
    {"question_id": "who", "kind": "speed_comparison", "answer_value": 2.0, "answer_unit": "", "answer": "the red car",
     "question": "Which is faster on average between 1 and 3 seconds: the red car or the camera?"},
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with one version of three questions."""
    catalog = Catalog.open(tmp_path / "home")
    blank = dict.fromkeys(QUESTIONS.names)
    rows = rows_to_table(QUESTIONS, [blank | row for row in ROWS])
    with catalog.scratch_folder() as scratch:
        made = catalog.put(Questions(rows=rows, rejections=REJECTIONS.empty_table()), scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        catalog.record(Execution(key=hashlib.sha256(b"toy").hexdigest(), stage="label.toy", version=1, code="c", code_files={},
                                 config={}, seed=0, inputs={}, outputs=(made,), status="ok", started_at=0.0, seconds=1.0,
                                 peak_memory_bytes=1, machine={}, packages={}, **fields))  # fmt: skip
    publish(catalog, "toys", {"source": "toy"}, {"questions": made.digest}, {})
    return catalog.home


def replies(folder: Path, **texts: str) -> str:
    path = folder / "replies.jsonl"
    path.write_text("".join(json.dumps({"question_id": key, "response": text}) + "\n" for key, text in texts.items()))
    return str(path)


def test_questions_of_a_version_are_scored(home, tmp_path, capsys):
    answers = replies(
        tmp_path, far="about 33 feet", when="from 3 to 6 s", who="The camera is slower than the red car.", other="x"
    )
    assert main(["score", answers, "--questions", "toys@1", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "within 25 %" in said
    assert "1 answers belong to no question, such as other" in said
    assert main(["score", answers, "--questions", "toys", "--json", "--home", str(home)]) == 0
    kinds = {row["kind"]: row for row in json.loads(capsys.readouterr().out)["kinds"]}
    assert {kind: row["correct_share"] for kind, row in kinds.items()} == dict.fromkeys(
        ["traveled_distance", "direction_timestamp", "speed_comparison", "all"], 1.0
    )
    assert kinds["direction_timestamp"]["iou_mean"] == 0.75
    assert kinds["traveled_distance"]["error_mean"] == pytest.approx(33 * 0.3048 - 10)
    assert kinds["speed_comparison"]["error_mean"] is None


def test_other_rules_and_what_cannot_be_read_are_told(home, tmp_path, capsys):
    answers = replies(tmp_path, far="no idea", when="from 3 to 6 s")
    assert main(["score", answers, "--questions", "toys", "--rules", "vsi", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "mean relative accuracy" in said
    assert "unreadable  far: 'no idea'" in said
    assert main(["score", answers, "--questions", "toys", "--rules", "vsi", "--json", "--home", str(home)]) == 0
    kinds = {row["kind"]: row for row in json.loads(capsys.readouterr().out)["kinds"]}
    assert (kinds["direction_timestamp"]["no_rule"], kinds["speed_comparison"]["missing"]) == (1, 1)
    assert kinds["traveled_distance"]["unparsed"] == 1


def test_questions_of_a_file_need_no_workspace(tmp_path, capsys):
    path = tmp_path / "vlm4d.json"
    path.write_text(json.dumps([{"id": "v1", "question_type": "multiple-choice", "question": "Which way?",
                                 "choices": {"A": "left", "B": "right"}, "answer": "right"}]))  # fmt: skip
    answers = replies(tmp_path, v1="It goes to the right.")
    assert main(["score", answers, "--questions", str(path), "--rules", "mcq", "--home", str(tmp_path / "none")]) == 0
    assert "100" in capsys.readouterr().out


def test_bad_input_is_one_sentence(home, tmp_path, capsys):
    answers = replies(tmp_path, far="10 m")
    for arguments, message in [
        ([str(tmp_path / "none.json"), "--questions", "toys"], "none.json is not there"),
        ([answers, "--questions", str(tmp_path / "none.json")], "none.json is not there"),
        ([replies(tmp_path, nobody="1"), "--questions", "toys"], "none of the 1 answers belongs to one of the 3 questions"),
    ]:
        assert main(["score", *arguments, "--home", str(home)]) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
