import dataclasses
import errno
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from catalog_workers import key_of, put, run_of

from catalogs import exports
from catalogs.catalog import Catalog
from catalogs.exports import export
from catalogs.governance import give_terms, review
from catalogs.versions import publish
from schemas.artifact import Files, rows_to_table
from schemas.clips import Clip, Source
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.media import Video

LICENCES = {"free": "CC-BY-4.0", "bound": "CC-BY-NC-4.0", "nobody": None}


def questions(*ids: str) -> Questions:
    blank: dict[str, Any] = dict.fromkeys(QUESTIONS.names) | {"kind": "speed", "question": "How fast?", "answer": "20 km/h"}
    rows = rows_to_table(QUESTIONS, [blank | {"question_id": name} for name in ids])
    return Questions(rows=rows, rejections=REJECTIONS.empty_table())


def clip(name: str, seed: int) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (3, 8, 12, 3)).astype(np.uint8)
    return Clip(frames=Video.from_array(frames), times_s=np.array([0.0, 0.1, 0.25]), name=name)


@pytest.fixture
def streets(catalog: Catalog, tmp_path: Path) -> Catalog:
    """A version of three clips, each with two questions: one free, one not for money, one that nobody speaks of."""
    artifacts = {}
    for number, (name, licence) in enumerate(LICENCES.items()):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
        files = Files({f"{name}.mp4": tmp_path / f"{name}.mp4"})
        given = catalog.adopt(put(catalog, Source(files=files, layout="video", name=f"{name}.mp4"))).digest
        if licence:
            give_terms(catalog, given, licence=licence, attribution=f"{name} people")
        film = put(catalog, clip(name, number))
        catalog.record(run_of(key_of(f"{name} clip"), "ingest.toy", (film,), {"source": given}))
        labels = put(catalog, questions(f"{name}-b", f"{name}-a"))
        catalog.record(run_of(key_of(f"{name} labels"), "label.toy", (labels,), {"clip": film.digest}))
        artifacts |= {f"{name}/clip": film.digest, f"{name}/labels": labels.digest}
    publish(catalog, "streets", {"source": "three"}, artifacts, {})
    return catalog


def ids(folder: Path) -> list[str]:
    return sorted(pandas.read_parquet(folder / "labels")["question_id"])


@pytest.mark.both_dialects
def test_an_export_holds_every_row_and_clip_with_its_licence(streets, tmp_path):
    report = export(streets, "streets", "parquet", tmp_path / "out")
    assert ids(tmp_path / "out") == ["bound-a", "bound-b", "free-a", "free-b", "nobody-a", "nobody-b"]
    assert (report.rows["labels"], report.rows["clips"], report.rows["frames"], report.clips) == (6, 3, 9, 3)
    files = f"{tmp_path}/out/labels/*.parquet"
    assert duckdb.sql(f"SELECT DISTINCT clip, licence, attribution FROM '{files}' ORDER BY clip").fetchall() == [
        ("bound", "CC-BY-NC-4.0", "bound people"),
        ("free", "CC-BY-4.0", "free people"),
        ("nobody", "unknown", ""),
    ]


def test_rows_are_sorted_by_clip_and_then_by_what_their_table_is_sorted_by(streets, tmp_path):
    export(streets, "streets", "parquet", tmp_path / "out")
    for path in (tmp_path / "out" / "labels").iterdir():
        rows = pq.read_table(path).select(["clip", "question_id"]).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["clip"], row["question_id"]))


@pytest.mark.both_dialects
def test_the_exported_video_decodes_to_the_frames_of_the_clip(streets, tmp_path):
    export(streets, "streets", "parquet", tmp_path / "out")
    rows = pandas.read_parquet(tmp_path / "out" / "clips")
    file = rows[rows["clip"] == "bound"]["video"].item()
    decoded = Video.open(tmp_path / "out" / file, (3, 8, 12, 3)).array()
    assert np.array_equal(decoded, clip("bound", 1).frames.array())


def test_hugging_face_loads_an_exported_folder(streets, tmp_path):
    export(streets, "streets", "parquet", tmp_path / "out")
    cache = str(tmp_path / "cache")
    files = str(tmp_path / "out" / "labels" / "*.parquet")
    assert datasets.load_dataset("parquet", data_files=files, cache_dir=cache)["train"].num_rows == 6
    by_card = datasets.load_dataset(str(tmp_path / "out"), "labels", cache_dir=cache)
    splits = {path.name.rpartition("-")[0] for path in (tmp_path / "out" / "labels").iterdir()}
    assert set(by_card) == splits
    assert sorted(row["question_id"] for split in by_card.values() for row in split) == ids(tmp_path / "out")


def test_a_commercial_export_holds_only_what_its_licences_allow_and_counts_the_rest(streets, tmp_path):
    report = export(streets, "streets", "parquet", tmp_path / "out", licence="commercial")
    assert ids(tmp_path / "out") == ["free-a", "free-b"]
    assert [path.name.split("-")[0] for path in (tmp_path / "out" / "videos").iterdir()] == ["free"]
    assert [(item.licence, item.clips, item.rows) for item in report.left_out] == [
        ("CC-BY-NC-4.0", 1, {"labels": 2}),
        ("unknown", 1, {"labels": 2}),
    ]
    assert "bound people" not in (tmp_path / "out" / "README.md").read_text()


def test_a_commercial_export_of_nothing_fails_in_one_sentence(streets, tmp_path):
    give_terms(streets, "free.mp4", licence="CC-BY-NC-4.0")
    with pytest.raises(WorldlineError, match="nothing in streets@1 may go out for commercial use: its 6 rows"):
        export(streets, "streets", "parquet", tmp_path / "out", licence="commercial")
    assert not (tmp_path / "out").exists()


def test_a_split_is_exported_alone(streets, tmp_path):
    splits = streets.dataset("streets").splits
    chosen = splits["free"]
    export(streets, "streets", "parquet", tmp_path / "out", split=chosen)
    expected = sorted(f"{name}-{letter}" for name in LICENCES if splits[name] == chosen for letter in "ab")
    assert ids(tmp_path / "out") == expected


def test_a_rejected_question_does_not_go_out(streets, tmp_path):
    review(streets, "free-a", "reject", reason="wrong")
    version = streets.dataset("streets@1")
    publish(streets, "streets", {"source": "three"}, version.artifacts, {})
    export(streets, "streets@2", "parquet", tmp_path / "out")
    assert "free-a" not in ids(tmp_path / "out")
    assert "free-b" in ids(tmp_path / "out")


def test_every_file_of_an_export_is_listed_with_its_checksum(streets, tmp_path):
    export(streets, "streets", "parquet", tmp_path / "out")
    listed = dict(reversed(line.split("  ")) for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines())
    files = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert listed.keys() == files.keys() - {"SHA256SUMS"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == listed[name] for name in listed)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["dataset"] == "streets@1"


def test_the_card_names_licences_attributions_and_counts(streets, tmp_path):
    export(streets, "streets", "parquet", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# streets@1" in card
    assert "| labels | 6 | questions with answers |" in card
    assert "attribution: free people" in card
    assert "| CC-BY-NC-4.0 | 2 |" in card


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_a_destination_that_exists_is_refused_and_left_as_it_is(streets, tmp_path, what):
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "dangling link": lambda: out.symlink_to("nowhere")}[what]()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WorldlineError, match="exists already"):
        export(streets, "streets", "parquet", out)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"form": "csv"}, "no format: there is parquet"),
        ({"licence": "any"}, "commercial, redistribution"),
        ({"split": "night"}, "split of streets@1"),
        ({"reference": "streets@7"}, "no version 7"),
        ({"destination": "home/out"}, "inside the workspace"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_sentence(streets, tmp_path, asked, said):
    asked = {"reference": "streets", "form": "parquet", "destination": "out"} | asked
    with pytest.raises(WorldlineError, match=said) as refused:
        export(streets, asked.pop("reference"), asked.pop("form"), tmp_path / asked.pop("destination"), **asked)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.glob(".*partial")) == []


def test_a_full_disk_leaves_nothing_behind(streets, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(exports.FORMATS, "parquet", dataclasses.replace(exports.FORMATS["parquet"], write=full))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WorldlineError, match="No space left"):
        export(streets, "streets", "parquet", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_destination_below_a_file_is_refused_in_one_sentence(streets, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorldlineError, match="cannot be written"):
        export(streets, "streets", "parquet", tmp_path / "file" / "out")


def _die_while_writing(home: Path, out: Path) -> None:
    dead = dataclasses.replace(exports.FORMATS["parquet"], write=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    exports.FORMATS["parquet"] = dead
    export(Catalog.open(home), "streets", "parquet", out)


def test_an_export_that_was_killed_leaves_no_destination_and_the_next_one_sweeps_it(streets, tmp_path, processes):
    process = processes.Process(target=_die_while_writing, args=(streets.home, tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    export(streets, "streets", "parquet", tmp_path / "out")
    assert list(tmp_path.glob(".*partial")) == []


def test_an_artifact_with_a_damaged_part_is_never_exported(streets, tmp_path):
    ref = streets.artifact(streets.dataset("streets").artifacts["free/clip"])
    path = streets.objects.path(ref.parts["frames.mkv"])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorldlineError, match="lost bytes"):
        export(streets, "streets", "parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
