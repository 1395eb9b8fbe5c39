"""`verify`, `repair` and `gc` as a person types them."""

import json
from pathlib import Path

import numpy as np
import pytest

from catalogs.catalog import Catalog, Execution
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import make_table
from schemas.reports import FIGURES, Metrics


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with one published execution, and one object that nothing refers to."""
    catalog = Catalog.open(tmp_path / "home")
    refs = []
    for value in (1.0, 2.0):
        table = make_table(FIGURES, {"name": ["x"], "value": np.array([value]), "unit": ["m"], "detail": [""]})
        with catalog.scratch_folder() as scratch:
            refs.append(catalog.put(Metrics(table), scratch))
    catalog.record(
        Execution(
            key="a" * 64,
            stage="toy.make",
            version=1,
            code="c0de",
            code_files={},
            config={},
            seed=0,
            inputs={},
            outputs=(refs[0],),
            status="ok",
            error_type=None,
            error_message=None,
            started_at=0.0,
            seconds=1.0,
            peak_memory_bytes=1,
            machine={},
            packages={},
        )
    )
    publish(catalog, "nightly", {}, {"figures": refs[0].digest}, {})
    return catalog.home


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_verify_names_what_is_damaged_and_repair_heals_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--home", str(home)]) == 0
    catalog = Catalog.open(home)
    flip_a_byte(catalog.log.files()[0])
    manifest = catalog.dataset("nightly").manifest
    flip_a_byte(catalog.objects.path(manifest))
    capsys.readouterr()
    assert main(["verify", "--home", str(home), "--json"]) == 1
    printed = capsys.readouterr()
    assert {row["kind"]: row["name"] for row in json.loads(printed.out)} == {
        "record file": "tables/commits/000000000001.parquet",
        "manifest": manifest,
    }
    assert printed.err == "worldline: 1 manifest, 1 record file damaged or missing: run `worldline repair`\n"
    assert main(["verify", "nightly", "--home", str(home)]) == 1
    assert main(["repair", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "tables/commits/000000000001.parquet was damaged and was written again" in said
    assert "made again from the records" in said
    assert main(["verify", "--home", str(home)]) == 0


def test_gc_lists_first_and_removes_when_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = len(list(Catalog.open(home).objects.all()))
    assert main(["gc", "--home", str(home), "--grace-days", "0", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["removed"], listed["building"]) == (False, False)
    assert [(item["kind"], item["reason"]) for item in listed["garbage"]] == [("object", "nothing recorded refers to it")]
    assert len(list(Catalog.open(home).objects.all())) == objects
    assert main(["gc", "--home", str(home), "--grace-days", "0", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "nothing recorded refers to it" in said
    assert "removed 0.00 MB" in said
    assert len(list(Catalog.open(home).objects.all())) == objects - 1
    assert main(["verify", "--home", str(home)]) == 0


def test_a_negative_grace_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--home", str(home), "--grace-days", "-1", "--yes"]) == 1
    assert "must not be negative" in capsys.readouterr().err
