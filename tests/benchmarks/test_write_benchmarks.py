"""The page of benchmarks shows what the files say, failures included."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks.harness import run_bench

WRITER = Path(__file__).resolve().parents[2] / "docs" / "write_benchmarks.py"


@pytest.fixture
def write_page():
    return runpy.run_path(str(WRITER))["write_page"]


def test_every_figure_is_a_row_and_one_that_failed_has_no_value(tmp_path, write_page):
    documents = [
        run_bench("toy_benches.ways_to_fail", tmp_path / only, quick=True, only=only) for only in ("toy.size", "toy.broken")
    ]
    page = write_page(json.loads(json.dumps(documents)))
    assert "| `toy.size` | 10 | rows | 12 rows of another | run 1 |" in page
    assert "| `toy.broken` | - |  |  | failed: ValueError: the disk is made of cheese |" in page


def test_the_page_says_where_when_and_how_it_was_measured(tmp_path, write_page):
    document = run_bench("toy_benches.ways_to_fail", tmp_path, quick=True, only="toy.size")
    page = write_page([document])
    assert f"{document['machine']['cores']} cores" in page
    assert document["commit"][:12] in page
    assert "quick (small sizes) run" in page
    assert f"duckdb {document['machine']['packages']['duckdb']}" in page


def test_files_that_hold_parts_of_one_bench_share_a_section(tmp_path, write_page):
    only = ("toy.size", "toy.broken")
    documents = [run_bench("toy_benches.ways_to_fail", tmp_path / name, quick=True, only=name) for name in only]
    page = write_page(documents)
    assert page.count("\n## ") == 1
    assert all(f"| `{name}` |" in page for name in only)


def test_a_bench_that_was_not_measured_again_keeps_its_section(tmp_path, write_page):
    document = run_bench("toy_benches.ways_to_fail", tmp_path, quick=True, only="toy.size")
    other = {**document, "bench": "other", "figures": [{**document["figures"][0], "id": "other.size"}]}
    page = write_page([document], before=write_page([other, document]))
    assert page.count("\n## ") == 2
    assert page.count("`other.size`") == page.count("`toy.size`") == 1


def test_of_a_bench_that_was_measured_again_in_part_the_other_figures_stay_with_their_own_date(tmp_path, write_page):
    document = run_bench("toy_benches.ways_to_fail", tmp_path, quick=True, only="toy.size")
    (size,) = document["figures"]
    case = {**document["cases"][0], "measured_at": 0.0}
    old = {**document, "cases": [case], "figures": [{**size, "value": 9.0}, {**size, "id": "toy.other"}]}
    page = write_page([document], before=write_page([old]))
    first, second = page.split("\n## ")[1:]
    assert "1970-01-01" in first
    assert "`toy.other`" in first
    assert "`toy.size`" not in first
    assert "| `toy.size` | 10 |" in second


def test_a_bar_in_a_text_does_not_break_the_table(tmp_path, write_page):
    document = run_bench("toy_benches.ways_to_fail", tmp_path, only="toy.size")
    document["figures"][0]["detail"] = "a | b\nc"
    assert "| a \\| b c |" in write_page([document])


def test_without_files_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(WRITER)])
    with pytest.raises(SystemExit, match="name the files that worldline bench --json wrote"):
        runpy.run_path(str(WRITER), run_name="__main__")
