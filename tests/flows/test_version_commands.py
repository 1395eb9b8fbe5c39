"""`datasets`, `show`, `diff`, `tag`, `untag`, `delete` and `splits`: tables for people with units, documents for programs."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from catalogs.catalog import ArtifactRef, Catalog, Execution, Note
from catalogs.gates import Gate
from catalogs.splits import SplitRule
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import Artifact, Files, make_table
from schemas.clips import Source
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.reports import FIGURES, Metrics


def questions(*answers: str) -> Questions:
    columns: dict[str, Any] = {name: [None] * len(answers) for name in QUESTIONS.names}
    columns |= {"question_id": [f"q{index:019d}" for index in range(len(answers))], "kind": ["turn"] * len(answers)}
    return Questions(make_table(QUESTIONS, columns | {"answer": list(answers)}), REJECTIONS.empty_table())


def metrics(value: float) -> Metrics:
    columns = {"name": ["pose.ate"], "value": [value], "unit": ["m"], "detail": [""]}
    return Metrics(pa.table(columns, schema=FIGURES))


def put(catalog: Catalog, artifact: Artifact) -> ArtifactRef:
    with catalog.scratch_folder() as scratch:
        return catalog.put(artifact, scratch)


def made(catalog: Catalog, stage: str, artifact: Artifact, inputs: dict[str, str]) -> str:
    ref = put(catalog, artifact)
    key = (stage + ref.digest).encode().hex()[:64].ljust(64, "0")
    run = Execution(key, stage, 1, "c0de", {"stages/toy.py": "f1"}, {}, 0, inputs, (ref,), "ok", None, None, 0.0, 1.0, 1, {}, {})
    return catalog.record(run).outputs[0].digest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace in which streets@1 is the latest and streets@2, with fewer labels, is held."""
    catalog = Catalog.open(tmp_path / "home")
    gate = Gate(min_rows={"labels": 3})
    sources = []
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(name.encode())
        sources.append(catalog.adopt(put(catalog, Source(Files({name: tmp_path / name}), "video", name))).digest)
    for features, answers, ate in ((800, ["left", "left", "right", "right"], 0.5), (1200, ["left", "right"], 0.75)):
        roles = {"a/labels": made(catalog, "toy.questions", questions(*answers), {"source": sources[0]})}
        roles["b/metrics"] = made(catalog, "toy.metrics", metrics(ate), {"source": sources[1]})
        publish(catalog, "streets", {"source": ["a.mp4", "b.mp4"], "features": features}, roles, {}, gate=gate)
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> tuple[int, str, str]:
    try:
        status = main([*arguments, "--home", str(home)])
    except SystemExit as leaving:  # argparse
        status = int(leaving.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def document(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> Any:
    status, out, err = run(capsys, home, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_datasets_lists_state_tags_sizes_and_sources(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    run(capsys, home, "tag", "streets@1", "golden")
    rows = document(capsys, home, "datasets")
    assert [(row["version"], row["state"], row["tags"], row["artifacts"], row["clips"], row["labels"]) for row in rows] == [
        (1, "latest", "golden", 2, 2, 4),
        (2, "held: 2 rows of labels, at least 3 are asked", "", 2, 2, 2),
    ]
    assert [row["source"] for row in rows] == ["2 sources"] * 2
    catalog = Catalog.open(home)
    sizes = [sum(catalog.artifact(item).bytes for item in version.artifacts.values()) / 1e6 for version in catalog.datasets()]
    assert [row["MB"] for row in rows] == sizes
    assert "MB" in run(capsys, home, "datasets")[1]


def test_show_says_how_a_version_stands_and_what_it_holds(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    run(capsys, home, "tag", "streets@2", "bad")
    shown = document(capsys, home, "show", "streets@2")
    assert (shown["latest"], shown["held"], shown["tags"]) == (False, "2 rows of labels, at least 3 are asked", ["bad"])
    assert shown["facts"]["rows"] == {"labels": 2, "metrics": 1}
    assert sum(shown["facts"]["splits"].values()) == 2
    assert set(shown["splits"]) == {"a", "b"}
    assert shown["artifacts"]["a/labels"]["licence"] == "unknown"
    status, out, _ = run(capsys, home, "show", "streets@bad")
    assert status == 0
    for text in ("streets@2", "tagged bad", "held     2 rows of labels", "2 labels", "MB", "of 2 clips", "licence  unknown"):
        assert text in out


def test_diff_names_what_differs_with_units_and_the_setting_behind_it(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    found = document(capsys, home, "diff", "streets@1", "streets@2")
    assert found["rows"]["labels"] == [4, 2]
    assert found["settings"] == [{"name": "features", "a": "800", "b": "1200"}]
    status, out, _ = run(capsys, home, "diff", "streets@1", "streets@2")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert ["pose.ate", "0.5", "0.75", "+0.25", "(+50.0", "%)", "m"] in lines
    assert ["labels", "4", "2", "-2"] in lines
    assert ["features", "800", "1200"] in lines
    assert "artifacts  2 different" in out
    equal = run(capsys, home, "diff", "streets", "streets@1")[1]
    assert equal.splitlines() == ["streets@1 -> streets@1", "artifacts  2 the same"]


def test_tags_are_given_and_taken(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert document(capsys, home, "tag", "streets", "golden") == {"tag": "streets@golden", "names": "streets@1"}
    assert document(capsys, home, "untag", "streets@golden") == {"removed": "streets@golden", "named": "streets@1"}
    status, out, err = run(capsys, home, "tag", "streets", "7")
    assert (status, out) == (1, "")
    assert "'7' cannot be a tag" in err


def test_delete_needs_a_reason_and_tells_who_deleted(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run(capsys, home, "delete", "streets@2")[0] == 2
    assert document(capsys, home, "delete", "streets@2", "--reason", "too few", "--author", "ada")["deleted"] == "streets@2"
    status, _, err = run(capsys, home, "show", "streets@2")
    assert status == 1
    assert "by ada (too few)" in err
    assert [row["version"] for row in document(capsys, home, "datasets")] == [1]


def test_splits_are_shown_and_a_leak_makes_it_fail(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    shown = document(capsys, home, "splits", "streets")
    assert shown["leaks"] == []
    assert set(shown["splits"]) == {"a", "b"}
    status, out, _ = run(capsys, home, "splits", "streets")
    assert status == 0
    assert "share sources, worlds, named places, positions within 100 m: nothing found" in out


def test_a_leak_is_named_and_makes_splits_fail(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    catalog = Catalog.open(home)
    sources = [catalog.adopt(put(catalog, metrics(float(value)))).digest for value in range(8)]
    halves = SplitRule(train=0.5, val=0.0, test=0.5)
    roles = {f"{index}/metrics": source for index, source in enumerate(sources)}
    version = publish(catalog, "roads", {}, roles, {}, split_rule=halves)
    assert set(version.splits.values()) == {"train", "test"}
    for source in sources:  # told only after publishing
        catalog.note(Note("terms", source, {"place": "Lombard Street"}))
    status, out, err = run(capsys, home, "splits", "roads")
    assert status == 1
    assert "Lombard Street" in out
    assert err.startswith("worldline: 1 things are shared by clips of different splits of roads@1: build it again")
