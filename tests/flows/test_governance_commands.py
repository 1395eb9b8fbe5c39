"""Terms, reviews, takedowns and exports from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs.catalog import Catalog, Execution
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import Files
from schemas.clips import Clip, Source
from schemas.media import Video


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with a version of one clip, made from street.mp4."""
    catalog = Catalog.open(tmp_path / "home")
    (tmp_path / "street.mp4").write_bytes(b"not really a video")
    frames = Video.from_array(np.zeros((2, 8, 12, 3), np.uint8))
    with catalog.scratch_folder() as scratch:
        files = Files({"street.mp4": tmp_path / "street.mp4"})
        given = catalog.adopt(catalog.put(Source(files=files, layout="video", name="street.mp4"), scratch))
        clip = catalog.put(Clip(frames=frames, times_s=np.array([0.0, 0.1]), name="street"), scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        run = Execution(key="a" * 64, stage="ingest.toy", version=1, code="c", code_files={}, config={}, seed=0,
                        inputs={"source": given.digest}, outputs=(clip,), status="ok", started_at=0.0, seconds=1.0,
                        peak_memory_bytes=1, machine={}, packages={}, **fields)  # fmt: skip
        catalog.record(run)
    publish(catalog, "streets", {"source": "street.mp4"}, {"clip": clip.digest}, {})
    return catalog.home


@pytest.fixture
def worldline(home: Path, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, Any, str]:
        status = main([*arguments, "--home", str(home), "--json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out) if printed.out else None, printed.err

    return run


def test_terms_given_for_a_source_are_shown_for_the_version(worldline):
    worldline("terms", "street.mp4", "--licence", "pandaset", "--attribution", "Hesai and Scale", "--place", "Palo Alto")
    status, (row,), _ = worldline("terms", "streets")
    assert (status, row["name"], row["licence"]) == (0, "street.mp4", "CC-BY-4.0")
    assert (row["attribution"], row["place"]) == ("Hesai and Scale", "Palo Alto")


def test_a_commercial_export_needs_terms_that_allow_it(worldline, tmp_path):
    out = str(tmp_path / "out")
    status, _, said = worldline("export", "streets", "parquet", out, "--licence", "commercial")
    assert (status, said.count("\n")) == (1, 1)
    assert "worldline terms" in said
    worldline("terms", "street.mp4", "--licence", "CC-BY-4.0")
    status, report, _ = worldline("export", "streets", "parquet", out, "--licence", "commercial")
    assert (status, report["clips"], report["licences"]) == (0, 1, {"CC-BY-4.0": 1})


def test_an_export_into_a_folder_that_exists_is_refused_and_the_folder_kept(worldline, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    status, _, said = worldline("export", "streets", "parquet", str(out))
    assert (status, said.count("\n")) == (1, 1)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_review_is_recorded_under_the_full_digest(worldline, home):
    digest = Catalog.open(home).dataset("streets").artifacts["clip"]
    status, (row,), _ = worldline("review", digest[:10], "reject", "--reason", "too dark", "--author", "Ann")
    assert (status, row) == (0, {"subject": digest, "verdict": "reject", "reason": "too dark", "author": "Ann"})


def test_a_takedown_without_yes_only_tells(worldline, home):
    status, planned, said = worldline("takedown", "street.mp4", "--reason", "asked")
    assert (status, planned["removed"], "--yes" in said) == (0, False, True)
    assert Catalog.open(home).dataset("streets").missing == {}


def test_a_takedown_with_yes_removes_and_says_what(worldline):
    status, done, _ = worldline("takedown", "street.mp4", "--reason", "asked", "--yes")
    assert (status, done["removed"], done["rows"]) == (0, True, {"clips": 1})
    assert [item["deleted"] for item in done["versions"]] == [True]
    assert worldline("datasets")[1] == []
    assert worldline("verify")[:2] == (0, [])
