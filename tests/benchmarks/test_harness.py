"""A bench gives raw figures: what fails is one of them, and what is finished is not measured again."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.harness import run_bench
from flows.command_line import main
from schemas.errors import WorldlineError

BENCH = "toy_benches.ways_to_fail"  # beside this file


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name the code that is measured; this checkout may change while the tests run."""
    named = {"hash": "one"}
    monkeypatch.setattr(harness, "measured_code", lambda: (named["hash"], "c0ffee"))
    return named


def figures(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in document["figures"]}


def runs(folder: Path) -> int:
    return int((folder / "runs").read_text())


def test_a_figure_is_the_raw_value_with_its_unit_and_what_to_read_it_against(tmp_path):
    document = run_bench(BENCH, tmp_path, only="toy.size")
    assert document["figures"] == [
        {"id": "toy.size", "value": 1000.0, "unit": "rows", "compared_with": "12 rows of another", "detail": "run 1"}
    ]
    assert (document["bench"], document["commit"], document["quick"]) == ("ways_to_fail", "c0ffee", False)
    assert document["machine"]["cores"] >= 1
    assert json.loads(json.dumps(document)) == document


def test_a_quick_run_says_so_and_is_kept_apart_from_a_full_one(tmp_path):
    run_bench(BENCH, tmp_path, only="toy.size")
    document = run_bench(BENCH, tmp_path, only="toy.size", quick=True)
    assert document["quick"] is True
    assert figures(document)["toy.size"]["value"] == 10.0


def test_a_finished_case_is_kept_and_not_measured_again(tmp_path):
    first = run_bench(BENCH, tmp_path, only="toy.size")
    again = run_bench(BENCH, tmp_path, only="toy.size")
    assert runs(tmp_path) == 1
    assert again["figures"] == first["figures"]
    assert again["cases"] == first["cases"]


def test_other_code_is_measured_anew(tmp_path, code):
    run_bench(BENCH, tmp_path, only="toy.size")
    code["hash"] = "two"
    run_bench(BENCH, tmp_path, only="toy.size")
    assert runs(tmp_path) == 2


def test_starting_fresh_forgets_what_was_finished(tmp_path):
    run_bench(BENCH, tmp_path, only="toy.size")
    run_bench(BENCH, tmp_path, only="toy.size", fresh=True)
    assert runs(tmp_path) == 2


def test_a_case_that_raises_is_a_figure_without_a_value_that_says_why_and_is_tried_again(tmp_path):
    document = run_bench(BENCH, tmp_path, only="toy.broken")
    assert [(row["id"], row["value"]) for row in document["figures"]] == [("toy.broken", None), ("toy.broken_share", None)]
    assert {row["detail"] for row in document["figures"]} == {"failed: ValueError: the disk is made of cheese"}
    (tmp_path / "mended").touch()
    assert figures(run_bench(BENCH, tmp_path, only="toy.broken"))["toy.broken_share"]["value"] == 0.5


def test_a_killed_case_and_one_that_hangs_are_figures_too(tmp_path):
    found = figures(run_bench(BENCH, tmp_path, only="toy.killed")) | figures(run_bench(BENCH, tmp_path, only="toy.for_ever"))
    assert found["toy.killed"]["detail"] == "failed: its process was ended by SIGKILL"
    assert found["toy.for_ever"]["detail"] == "failed: still running after 2 s"


def test_what_is_not_finite_or_not_reported_has_no_value(tmp_path):
    found = figures(run_bench(BENCH, tmp_path, only="toy.half"))
    assert found["toy.half"]["value"] is None
    assert found["toy.other_half"] == harness.figure("toy.other_half", None, "", detail="the case did not report it")


def test_a_case_works_in_an_empty_folder_that_goes_with_it(tmp_path):
    run_bench(BENCH, tmp_path, only="toy.size")
    run_bench(BENCH, tmp_path, only="toy.size", fresh=True)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_case_on_a_workspace_goes_on_from_what_a_stopped_run_left_until_it_is_run_afresh(tmp_path):
    stopped, again = (figures(run_bench(BENCH, tmp_path, only="toy.workspace"))["toy.workspace"]["value"] for _ in range(2))
    assert (stopped, again) == (None, 2)
    afresh = figures(run_bench(BENCH, tmp_path, only="toy.workspace", fresh=True))["toy.workspace"]
    assert afresh["detail"] == "failed: ValueError: stopped half way"


@pytest.mark.parametrize(("bench", "only", "named"), [("nothing", "", "there is catalog"), (BENCH, "toy.sice", "toy.size")])
def test_an_unknown_bench_or_figure_names_what_there_is(bench, only, named, tmp_path):
    with pytest.raises(WorldlineError, match=named):
        run_bench(bench, tmp_path, only=only)


def test_the_command_writes_the_file_prints_the_figures_and_fails_where_a_case_failed(tmp_path, capsys):
    file = tmp_path / "figures.json"
    arguments = ["bench", BENCH, "--folder", str(tmp_path / "work"), "--json", str(file), "--quick"]
    assert main([*arguments, "--only", "toy.size"]) == 0
    assert figures(json.loads(file.read_text()))["toy.size"]["value"] == 10.0
    assert "12 rows of another" in capsys.readouterr().out
    assert main([*arguments, "--only", "toy.broken"]) == 1
    assert figures(json.loads(file.read_text()))["toy.broken"]["value"] is None
    assert "1 of 1 cases failed (broken)" in capsys.readouterr().err


def test_without_a_checkout_the_command_says_so_in_one_sentence(tmp_path, monkeypatch, capsys):
    from flows.commands import benching

    monkeypatch.setattr(benching, "__file__", str(tmp_path / "site-packages" / "flows" / "commands" / "benching.py"))
    assert main(["bench", "catalog"]) == 1
    assert capsys.readouterr().err == (
        "worldline: the benches are not part of an installed Worldline: run worldline bench from a git checkout\n"
    )
