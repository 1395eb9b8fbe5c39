"""A dataset version's tables in few sorted files: the same rows, written once, whatever changes around them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_workers import key_of, put, run_of
from test_catalog_questions import camera_path, clip, kinematics, questions, table

import catalogs.consolidation as consolidation
from catalogs.catalog import Catalog
from catalogs.consolidation import consolidate
from catalogs.records import DatasetVersion, Note, dataset_row
from catalogs.tables import CONTENT_TABLES, TABLES
from schemas.artifact import ARTIFACT_TYPES, Artifact
from schemas.labels import QUESTIONS, REJECTIONS, Questions


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "WORTH_IT", 1)


def record(catalog: Catalog, artifact: Artifact) -> str:
    ref = put(catalog, artifact)
    return catalog.record(run_of(key_of(ref.digest), f"toy.{ref.kind}", (ref,))).outputs[0].digest


def asked(number: int, count: int = 3) -> Questions:
    rows = [{"question_id": f"{number:04d}-{index}", "kind": "speed", "answer_value": float(index)} for index in range(count)]
    return Questions(table(QUESTIONS, rows), table(REJECTIONS, []))


def show(catalog: Catalog, name: str, number: int, digests: list[str], *, consolidated: bool = True, **other: Any) -> list[str]:
    """Record a version as `publish` does, and return its label files."""
    artifacts = {f"clip{index:04d}/labels": digest for index, digest in enumerate(digests)}
    version = DatasetVersion(name, number, {}, artifacts, (), {}, "0" * 64, 0.0, **other)
    tables = consolidate(catalog, artifacts) if consolidated else {}
    with catalog.log.write() as commit:
        commit.append(dataset_row(version, f"{name}{number}"))
    if consolidated:
        catalog.note(Note("tables", version.reference, {"tables": tables}))
    return list(tables.get("labels", []))


def rows(catalog: Catalog, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in catalog.sql(sql).to_pylist()]


def lose_rows(catalog: Catalog, digest: str) -> None:
    catalog.objects.path(catalog.artifact(digest).parts["rows.parquet"]).unlink()


def test_every_table_shows_the_same_rows_from_consolidated_files_as_from_parts(catalog: Catalog) -> None:
    made = [clip(1), clip(2), camera_path(), kinematics(), questions("a" * 20, "b" * 20), asked(1)]
    digests = [record(catalog, artifact) for artifact in made]
    show(catalog, "plain", 1, digests, consolidated=False)
    show(catalog, "packed", 1, digests)
    for name in CONTENT_TABLES:
        columns = f"SELECT * EXCLUDE (dataset) FROM {name} WHERE dataset = '{{}}' ORDER BY ALL"
        plain, packed = (catalog.sql(columns.format(dataset)) for dataset in ("plain", "packed"))
        assert packed.equals(plain), name
    assert rows(catalog, "SELECT count(*) FROM frames WHERE dataset = 'packed'") == [(6,)]
    assert rows(catalog, "SELECT DISTINCT time_s FROM frames ORDER BY 1") == [(0.0,), (0.5,), (1.5,)]


def test_a_query_about_a_consolidated_version_opens_no_part(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(5)]
    show(catalog, "streets", 1, digests)
    for digest in digests:
        lose_rows(catalog, digest)
    assert rows(catalog, "SELECT count(*) FROM labels WHERE latest") == [(15,)]
    assert rows(catalog, "SELECT count(*) FROM labels") == [(15,)]  # and no artifact is loose


def test_a_query_about_one_version_opens_no_file_of_another(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    old, new, loose = ([record(catalog, asked(number)) for number in some] for some in ((1, 2), (3, 4), (5, 6)))
    (lost,) = show(catalog, "streets", 1, old)
    show(catalog, "streets", 2, new)
    catalog.objects.path(lost).unlink()
    for digest in (*old, *loose):
        lose_rows(catalog, digest)
    for condition in ("latest", "dataset = 'streets' AND version = 2", "version > 1"):
        assert rows(catalog, f"SELECT count(*) FROM labels WHERE {condition}") == [(6,)]
    assert caplog.text == ""
    assert rows(catalog, "SELECT count(*) FROM labels") == [(6,)]
    assert "lost" in caplog.text  # this one looked for all of them
    assert "not on disk" in caplog.text


def test_a_label_is_found_by_its_id_in_one_row_group(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "ROW_GROUP_ROWS", 10)
    digests = [record(catalog, asked(number, 10)) for number in (7, 3, 9, 1)]
    (name,) = show(catalog, "streets", 1, digests)
    metadata = pq.ParquetFile(catalog.objects.path(name)).metadata
    spans = [metadata.row_group(index).column(0).statistics for index in range(metadata.num_row_groups)]
    assert [(span.min, span.max) for span in spans] == [(f"{n:04d}-0", f"{n:04d}-9") for n in (1, 3, 7, 9)]


def test_a_version_that_adds_a_little_writes_a_little(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(20)]
    first = show(catalog, "streets", 1, digests)
    second = show(catalog, "streets", 2, [*digests, record(catalog, asked(20))])
    (added,) = set(second) - set(first)
    assert set(first) < set(second)
    assert pq.read_metadata(catalog.objects.path(added)).num_rows == 3
    assert rows(catalog, "SELECT version, count(*) FROM labels GROUP BY 1 ORDER BY 1") == [(1, 60), (2, 63)]


def test_a_version_that_drops_artifacts_shows_none_of_their_rows(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(6)]
    show(catalog, "streets", 1, digests)
    for digest in digests[1:]:
        lose_rows(catalog, digest)  # what stays comes from the earlier version's file
    show(catalog, "streets", 2, digests[1:])
    sql = "SELECT DISTINCT artifact FROM labels WHERE version = 2 ORDER BY 1"
    assert rows(catalog, sql) == [(digest,) for digest in sorted(digests[1:])]


def test_many_small_files_are_merged(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "_SMALL_SEGMENTS", 4)
    digests: list[str] = []
    counts = []
    for number in range(1, 12):
        digests.append(record(catalog, asked(number)))
        counts.append(len(show(catalog, "streets", number, digests)))
    assert counts == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]
    assert rows(catalog, "SELECT count(*), count(DISTINCT question_id) FROM labels WHERE latest") == [(33, 33)]


def test_files_are_cut_at_the_size_that_memory_is_bounded_by(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "SEGMENT_ROWS", 12)
    monkeypatch.setattr(consolidation, "_PARTS_AT_ONCE", 2)
    names = show(catalog, "streets", 1, [record(catalog, asked(number)) for number in range(10)])
    assert [pq.read_metadata(catalog.objects.path(name)).num_rows for name in names] == [12, 12, 6]


def test_the_same_artifacts_give_the_same_files(catalog: Catalog, tmp_path: Path) -> None:
    other = Catalog.open(tmp_path / "other")
    names = [
        show(home, "streets", 1, [record(home, asked(number)) for number in order])
        for home, order in ((catalog, range(6)), (other, range(5, -1, -1)))
    ]
    assert names[0] == names[1]


def test_a_small_version_is_left_to_its_parts(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "WORTH_IT", 3)
    digests = [record(catalog, asked(number)) for number in range(3)]
    assert consolidate(catalog, {"a/labels": digests[0], "b/labels": digests[1]}) == {}
    assert len(consolidate(catalog, dict(zip("abc", digests, strict=True)))["labels"]) == 1


def test_where_a_consolidated_file_is_lost_the_parts_still_answer(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    digests = [record(catalog, asked(number)) for number in range(4)]
    (name,) = show(catalog, "streets", 1, digests)
    catalog.objects.path(name).unlink()
    assert rows(catalog, "SELECT count(*) FROM labels WHERE latest") == [(12,)]
    assert "1 of 1 files of table labels of streets@1 are lost" in caplog.text


# -- what shows -----------------------------------------------------------------------------------------------------------


def test_what_people_rejected_shows_in_other_versions_only(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(3)]
    for name, consolidated in (("packed", True), ("plain", False)):
        show(catalog, name, 1, digests, consolidated=consolidated)
        show(catalog, name, 2, digests, consolidated=consolidated, rejected=("0001-1", digests[2]))
        sql = f"SELECT version, count(*) FROM labels WHERE dataset = '{name}' GROUP BY 1 ORDER BY 1"
        assert rows(catalog, sql) == [(1, 9), (2, 5)]
        sql = f"SELECT count(*) FROM labels WHERE dataset = '{name}' AND version = 2 AND question_id = '0001-1'"
        assert rows(catalog, sql) == [(0,)]


def test_a_deleted_version_does_not_show_and_its_artifacts_stay(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(3)]
    show(catalog, "streets", 1, digests[:2])
    show(catalog, "streets", 2, digests)
    catalog.note(Note("deleted", "streets@2", {}, "wrong", "me"))
    sql = "SELECT version, latest, count(*) FROM labels GROUP BY ALL ORDER BY ALL"
    assert rows(catalog, sql) == [(1, True, 6), (None, False, 3)]
    assert rows(catalog, "SELECT dataset, version, latest FROM datasets") == [("streets", 1, True)]
    assert rows(catalog, "SELECT DISTINCT version FROM dataset_artifacts") == [(1,)]


def test_a_held_version_is_not_the_latest(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(2)]
    show(catalog, "streets", 1, digests[:1])
    show(catalog, "streets", 2, digests, held="too few labels")
    assert rows(catalog, "SELECT version, latest, held FROM datasets ORDER BY 1") == [
        (1, True, None),
        (2, False, "too few labels"),
    ]
    assert rows(catalog, "SELECT DISTINCT version FROM labels WHERE latest") == [(1,)]


def test_what_was_removed_shows_nowhere_until_it_is_recorded_again(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(2)]
    key = key_of(digests[0])
    catalog.note(Note("removal", "takedown-1", {"digests": digests[:1], "keys": [key]}))
    counts = {
        "artifacts": f"SELECT count(*) FROM artifacts WHERE digest = '{digests[0]}'",
        "executions": f"SELECT count(*) FROM executions WHERE key = '{key}'",
        "edges": f"SELECT count(*) FROM edges WHERE digest = '{digests[0]}'",
        "labels": f"SELECT count(*) FROM labels WHERE artifact = '{digests[0]}'",
    }
    assert {name: rows(catalog, sql) for name, sql in counts.items()} == {name: [(0,)] for name in counts}
    assert rows(catalog, "SELECT count(*) FROM artifacts") == [(1,)]
    record(catalog, asked(0))
    found = {name: rows(catalog, sql) for name, sql in counts.items()}
    assert found == {"artifacts": [(1,)], "executions": [(1,)], "edges": [(1,)], "labels": [(3,)]}


def test_a_pruned_query_answers_as_one_over_everything(catalog: Catalog) -> None:
    digests = [record(catalog, asked(number)) for number in range(6)]
    show(catalog, "a", 1, digests[:2])
    show(catalog, "a", 2, digests[:3], consolidated=False)
    show(catalog, "b", 1, digests[2:5])
    catalog.sql("SELECT 1")
    everything = catalog.sql("SELECT * FROM labels").to_pylist()
    total = len(everything)
    assert total == 3 * (2 + 3 + 3 + 1)
    filters = {
        "dataset = 'a' AND version = 2": lambda row: (row["dataset"], row["version"]) == ("a", 2),
        "latest": lambda row: row["latest"],
        "NOT latest": lambda row: not row["latest"],
        "dataset IS NULL": lambda row: row["dataset"] is None,
        "coalesce(dataset, 'none') IN ('none', 'b')": lambda row: row["dataset"] in (None, "b"),
        "version > 1 OR question_id = '0000-0'": lambda row: (row["version"] or 0) > 1 or row["question_id"] == "0000-0",
        "version = (SELECT max(version) FROM datasets)": lambda row: row["version"] == 2,
        "(dataset, version) IN (SELECT dataset, version FROM datasets WHERE latest)": lambda row: row["latest"],
        "EXISTS (FROM labels AS other WHERE other.artifact = l.artifact AND other.dataset = 'b')": lambda row: (
            row["artifact"] in digests[2:5]
        ),
    }
    for condition, holds in filters.items():
        expected = sum(1 for row in everything if holds(row))
        assert rows(catalog, f"SELECT count(*) FROM labels AS l WHERE {condition}") == [(expected,)], condition
    with_two = (
        "WITH old AS (SELECT * FROM labels WHERE dataset = 'a' AND version = 1), new AS (FROM labels WHERE dataset = 'b') "
        "SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM new), (SELECT count(*) FROM labels)"
    )
    assert rows(catalog, with_two) == [(6, 9, total)]


@pytest.mark.parametrize("name", ["quo'te", "émoji🙂 and (brackets)"])
def test_a_workspace_of_any_folder_name_shows_consolidated_files(tmp_path: Path, name: str) -> None:
    catalog = Catalog.open(tmp_path / name)
    show(catalog, "streets", 1, [record(catalog, asked(number)) for number in range(3)])
    assert rows(catalog, "SELECT count(*) FROM labels WHERE latest") == [(9,)]


def test_clips_of_any_name_are_told_in_datasets_and_splits(catalog: Catalog) -> None:
    names = ["it's", "émoji🙂", 'quo"te', "a/b", ""]
    digests = [record(catalog, asked(number)) for number in range(len(names))]
    artifacts = {f"{name}/labels" if name else "labels": digest for name, digest in zip(names, digests, strict=True)}
    version = DatasetVersion("streets", 1, {}, artifacts, (), {}, "0" * 64, 0.0, splits=dict.fromkeys(names, "train"))
    with catalog.log.write() as commit:
        commit.append(dataset_row(version, "streets"))
    assert rows(catalog, "SELECT clip FROM dataset_artifacts ORDER BY digest") == [
        (name,) for _, name in sorted(zip(digests, names, strict=True))
    ]
    assert sorted(rows(catalog, "SELECT clip, split FROM splits WHERE latest")) == sorted((name, "train") for name in names)
    assert rows(catalog, "SELECT count(*) FROM dataset_artifacts WHERE clip = 'émoji🙂' OR clip = 'it''s'") == [(2,)]


def test_tables_and_their_columns_can_be_looked_up(catalog: Catalog) -> None:
    show(catalog, "streets", 1, [record(catalog, asked(1))])
    assert {name for (name, *_) in rows(catalog, "SHOW TABLES")} == set(TABLES)
    assert [name for name, *_ in rows(catalog, "DESCRIBE labels")][-4:] == ["artifact", "dataset", "version", "latest"]


def test_sums_of_integers_are_integers(catalog: Catalog) -> None:
    show(catalog, "streets", 1, [record(catalog, asked(1))])
    assert catalog.sql("SELECT sum(bytes) AS bytes FROM artifacts").schema.field("bytes").type == pa.int64()


# -- schemas change -------------------------------------------------------------------------------------------------------


@pytest.fixture
def newer_schema(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what turns today's schema of questions into tomorrow's: a column more, a column wider, a column less."""

    def upgrade() -> None:
        columns = [field for field in QUESTIONS if field.name != "wording"]
        columns = [field.with_type(pa.int64()) if field.name == "requires_level" else field for field in columns]
        later = pa.schema([*columns, ("asked_by", pa.string())])
        monkeypatch.setitem(ARTIFACT_TYPES["Questions"].TABLES, "rows", later)

    return upgrade


def renewed(number: int) -> Questions:
    """Return questions under tomorrow's schema."""
    return Questions(
        table(ARTIFACT_TYPES["Questions"].TABLES["rows"], [{"question_id": f"{number:04d}-0", "asked_by": "a person"}]),
        table(REJECTIONS, []),
    )


@pytest.mark.parametrize("consolidated", [True, False])
def test_versions_from_before_and_after_a_new_column_are_read_in_one_query(
    catalog: Catalog, newer_schema: Callable[[], None], consolidated: bool
) -> None:
    old = [record(catalog, asked(number)) for number in range(3)]
    show(catalog, "streets", 1, old, consolidated=consolidated)
    record(catalog, asked(9))  # loose
    newer_schema()
    show(catalog, "streets", 2, [*old, record(catalog, renewed(5))], consolidated=consolidated)
    record(catalog, renewed(8))  # loose
    sql = "SELECT version, asked_by, count(*) FROM labels GROUP BY ALL ORDER BY ALL"
    assert rows(catalog, sql) == [
        (1, None, 9),
        (2, "a person", 1),
        (2, None, 9),
        (None, "a person", 1),
        (None, None, 3),
    ]
    shown = catalog.sql("SELECT * FROM labels WHERE version = 1").schema
    assert shown.equals(catalog.sql("SELECT * FROM labels WHERE version = 2").schema)
    assert "wording" not in shown.names
    assert shown.field("requires_level").type == pa.int64()


def test_an_artifact_written_before_a_column_was_can_be_loaded(catalog: Catalog, newer_schema: Callable[[], None]) -> None:
    digest = record(catalog, asked(1))
    newer_schema()
    loaded = catalog.load(digest)
    assert isinstance(loaded, Questions)
    assert loaded.rows.schema.names[-1] == "asked_by"
    assert loaded.rows.column("asked_by").null_count == 3
    assert loaded.rows.column("answer_value").to_pylist() == [0.0, 1.0, 2.0]


def test_record_files_from_before_newer_columns_are_read_beside_new_ones(catalog: Catalog) -> None:
    first = record(catalog, asked(1))
    for path in catalog.log.files():
        rows_before = pq.read_table(path)
        path.chmod(0o644)
        pq.write_table(rows_before.drop_columns(["held", "splits", "rejected", "subject", "body", "reason", "author"]), path)
    second = record(catalog, asked(2))
    show(catalog, "streets", 1, [first, second])
    assert rows(catalog, "SELECT count(*) FROM executions") == [(2,)]
    assert rows(catalog, "SELECT digest FROM dataset_artifacts ORDER BY role") == [(first,), (second,)]


def test_models_are_told_from_the_facts_of_whatever_artifact_is_one(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.artifact.ARTIFACT_TYPES", dict(ARTIFACT_TYPES))

    @dataclasses.dataclass(frozen=True, eq=False)
    class Model(Artifact):
        weights: np.ndarray

        def facts(self) -> dict[str, Any]:
            return {"name": "small-tracker", "trained_on": "streets@3", "parameters": 1200}

    digest = record(catalog, Model(np.zeros(3)))
    found = rows(catalog, "SELECT name, trained_on, facts->>'parameters', artifact FROM models")
    assert found == [("small-tracker", "streets@3", "1200", digest)]


# -- many loose artifacts -------------------------------------------------------------------------------------------------


def test_many_loose_artifacts_are_packed_once_and_show_the_same_rows(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [record(catalog, asked(number)) for number in range(7)]
    before = catalog.sql("SELECT * FROM labels ORDER BY ALL")
    monkeypatch.setattr("catalogs.views._PACKED_FROM", 4)
    monkeypatch.setattr("catalogs.packing.BLOCK", 3)
    assert catalog.sql("SELECT * FROM labels ORDER BY ALL").equals(before)
    files = sorted((catalog.home / "derived" / "labels").rglob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == [9, 9]
    for digest in digests[:6]:
        lose_rows(catalog, digest)  # their rows are packed
    record(catalog, asked(7))
    assert rows(catalog, "SELECT count(*) FROM labels") == [(24,)]
    assert sorted((catalog.home / "derived" / "labels").rglob("*.parquet")) == files


def test_what_is_packed_goes_when_it_is_loose_no_more(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogs.views._PACKED_FROM", 2)
    monkeypatch.setattr("catalogs.packing.BLOCK", 2)
    digests = [record(catalog, asked(number)) for number in range(6)]
    assert rows(catalog, "SELECT count(*) FROM labels") == [(18,)]
    show(catalog, "streets", 1, digests[:3])
    assert rows(catalog, "SELECT dataset, count(*) FROM labels GROUP BY 1 ORDER BY 1") == [("streets", 9), (None, 9)]
    assert len(list((catalog.home / "derived" / "labels").iterdir())) == 1


def test_a_block_with_a_lost_part_is_not_packed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("catalogs.views._PACKED_FROM", 2)
    monkeypatch.setattr("catalogs.packing.BLOCK", 2)
    digests = [record(catalog, asked(number)) for number in range(4)]
    lose_rows(catalog, digests[0])
    assert rows(catalog, "SELECT count(*) FROM labels") == [(9,)]
    assert "1 of 2 artifacts behind table labels are not on disk" in caplog.text
