"""What people ask the catalog: SQL over tables, dataset versions, lineage."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalog_workers import figures, key_of, make, put, run_of

from catalogs.catalog import Catalog, Execution
from catalogs.lineage import lineage_of
from catalogs.records import Note
from catalogs.tables import TABLES
from catalogs.versions import publish
from schemas.artifact import Artifact, make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.canonical import canonical_json
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.labels import KINEMATIC_STATES, KINEMATIC_WINDOWS, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks


def table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    return rows_to_table(schema, [{**dict.fromkeys(schema.names), **row} for row in rows])


def questions(*ids: str) -> Questions:
    rows = [{"question_id": name, "kind": "speed", "answer": "36 km/h", "answer_value": 36.0, "track_ids": [0]} for name in ids]
    return Questions(table(QUESTIONS, rows), table(REJECTIONS, []))


def clip(seed: int = 0) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (3, 16, 24, 3), dtype=np.uint8)
    return Clip(Video.from_array(frames), np.array([0.0, 0.5, 1.5]), "drive")


def camera_path() -> CameraPath:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = [0.0, 1.0, 2.5]
    intrinsics = np.array([[500.0, 0, 12], [0, 510.0, 8], [0, 0, 1]])
    times, seen = np.array([0.0, 0.5, 1.5]), np.array([True, True, False])
    return CameraPath(times, poses, seen, intrinsics, np.zeros(4), 24, 16, "moving", "gps", 0.02, "given", 0.01, 0.5)


def kinematics() -> Kinematics:
    states = table(KINEMATIC_STATES, [{"track_id": 0, "time_s": time, "speed_p50": 10.0} for time in (0.0, 0.1)])
    return Kinematics(
        states, table(KINEMATIC_WINDOWS, [{"track_id": 0, "start_s": 0.0, "end_s": 1.0}]), 0.1, "gps", 0.02, "given"
    )


def tracks() -> Tracks:
    samples = table(TRACK_SAMPLES, [{"track_id": 1, "frame": frame, "x": float(frame)} for frame in range(4)])
    return Tracks(samples, table(TRACK_OBJECTS, [{"track_id": 1, "class_name": "car"}]), "video", "gps", 0.02, "given")


def ran(catalog: Catalog, name: str, stage: str, artifact: Artifact, inputs: dict[str, str] | None = None) -> Execution:
    return catalog.record(run_of(key_of(name), stage, (put(catalog, artifact),), inputs))


def chain(catalog: Catalog) -> dict[str, Execution]:
    """source -> clip -> path -> kinematics (of clip and path) -> questions, and a bystander."""
    source = catalog.adopt(put(catalog, figures(99)))
    made = {"clip": ran(catalog, "clip", "ingest.toy", clip(), {"source": source.digest})}
    digest = {"clip": made["clip"].outputs[0].digest}
    steps: list[tuple[str, Artifact, list[str]]] = [
        ("path", camera_path(), ["clip"]),
        ("tracks", tracks(), ["clip", "path"]),
        ("kinematics", kinematics(), ["path", "tracks"]),
        ("questions", questions("a" * 20, "b" * 20), ["kinematics"]),
        ("bystander", figures(3), ["clip"]),
    ]
    for name, artifact, needs in steps:
        made[name] = ran(catalog, name, f"toy.{name}", artifact, {need: digest[need] for need in needs})
        digest[name] = made[name].outputs[0].digest
    return made


def stages_of(catalog: Catalog, identifier: str) -> list[str]:
    return lineage_of(catalog, identifier).nodes.column("stage").to_pylist()


UPSTREAM = ["ingest.toy", "toy.path", "toy.tracks", "toy.kinematics", "toy.questions"]


def test_an_empty_catalog_answers_with_empty_tables_of_the_same_columns(catalog: Catalog, tmp_path: Any) -> None:
    full = Catalog.open(tmp_path / "full")
    made = chain(full)
    digest = made["questions"].outputs[0].digest
    publish(full, "streets", {}, {"a/clip": made["clip"].outputs[0].digest, "a/questions": digest}, {})
    for note in (
        Note("tag", "streets@good", {"version": 1}),
        Note("review", digest, {"verdict": "accept"}),
        Note("terms", digest, {"licence": "CC0-1.0"}),
        Note("takedown", "0" * 64, {}),
    ):
        full.note(note)
    for name in TABLES:
        empty, filled = catalog.sql(f"SELECT * FROM {name}"), full.sql(f"SELECT * FROM {name}")
        assert empty.num_rows == 0
        assert empty.schema == filled.schema, name
        assert filled.num_rows > 0 or name in ("drift", "models", "cousins")


def test_content_tables_hold_the_rows_of_recorded_artifacts(catalog: Catalog) -> None:
    made = chain(catalog)
    put(catalog, questions("c" * 20))  # not recorded
    labels = catalog.sql("SELECT question_id, answer_value, artifact, dataset, latest FROM labels ORDER BY 1").to_pylist()
    digest = made["questions"].outputs[0].digest
    unpublished = {"answer_value": 36.0, "artifact": digest, "dataset": None, "latest": False}
    assert labels == [{"question_id": name * 20, **unpublished} for name in "ab"]
    assert catalog.sql("SELECT sum(x) AS x FROM tracks").to_pylist() == [{"x": 6.0}]
    assert catalog.sql("SELECT class_name FROM objects").to_pylist() == [{"class_name": "car"}]
    assert catalog.sql("SELECT count(*) AS n FROM kinematics JOIN windows USING (artifact, track_id)").to_pylist() == [{"n": 2}]
    assert catalog.sql("SELECT name, frames, width_px, duration_s FROM clips").to_pylist() == [
        {"name": "drive", "frames": 3, "width_px": 24, "duration_s": 1.5}
    ]
    cameras = catalog.sql("SELECT frame, time_s, x, fy, registered FROM cameras ORDER BY frame").to_pylist()
    assert cameras[2] == {"frame": 2, "time_s": 1.5, "x": 2.5, "fy": 510.0, "registered": False}


def test_executions_and_edges_can_be_joined(catalog: Catalog) -> None:
    made = chain(catalog)
    sql = (
        "SELECT e.stage, e.config->>'$.iterations' AS iterations FROM executions e JOIN edges ON e.key = edges.execution_key "
        f"WHERE direction = 'in' AND digest = '{made['path'].outputs[0].digest}' ORDER BY 1"
    )
    assert catalog.sql(sql).to_pylist() == [{"stage": f"toy.{name}", "iterations": "800"} for name in ("kinematics", "tracks")]


def test_a_label_shows_once_per_dataset_version_and_latest_picks_the_last(catalog: Catalog) -> None:
    made = chain(catalog)
    digest = made["questions"].outputs[0].digest
    for iterations in (1, 2):
        publish(catalog, "streets", {"iterations": iterations}, {"questions": digest}, {})
    count = "SELECT count(*) AS n FROM labels WHERE "
    assert catalog.sql(count + "dataset = 'streets' AND version = 1").to_pylist() == [{"n": 2}]
    assert catalog.sql(count + "latest").to_pylist() == [{"n": 2}]
    assert catalog.sql(count + "true").to_pylist() == [{"n": 4}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM lables", "no table lables: the tables are executions, artifacts"),
        ("SELECT answr FROM labels", "Candidate bindings"),
        ("SELEC 1", "syntax error"),
        ("", "single SELECT"),
        ("SELECT 1; SELECT 2", "single SELECT"),
        ("DROP VIEW labels", "never written by SQL"),
        ("CREATE TABLE x AS SELECT 1", "never written by SQL"),
        ("COPY (SELECT 1) TO 'OBJECTS/evil'", "never written by SQL"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'OBJECTS/evil'", "never written by SQL"),
        ("SET enable_external_access = true", "never written by SQL"),
        ("ATTACH 'OBJECTS/evil' AS evil", "never written by SQL"),
        ("ATTACH '/etc/passwd' AS evil (TYPE sqlite)", "never written by SQL"),
        ("INSTALL httpfs", "never written by SQL"),
        ("LOAD httpfs", "never written by SQL"),
        ("PRAGMA database_list", "never written by SQL"),
        ("PRAGMA enable_external_access = true", "never written by SQL"),
        ("EXPORT DATABASE 'OBJECTS/evil'", "never written by SQL"),
        ("CALL pragma_version()", "never written by SQL"),
        ("COPY labels TO 'OBJECTS/evil.parquet' (FORMAT parquet)", "never written by SQL"),
        ("COPY labels FROM '/etc/passwd'", "never written by SQL"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SELECT * FROM '/etc/passwd'", "no table|disabled by configuration"),
        ("SELECT * FROM read_parquet('OBJECTS/../catalog.sqlite')", "disabled by configuration"),
        ("SELECT * FROM glob('/etc/*')", "disabled by configuration"),
        ("SELECT * FROM query('SELECT * FROM read_csv(''/etc/passwd'')')", "disabled by configuration"),
        ("SELECT * FROM labels, read_csv('https://example.com/x.csv')", "disabled by configuration"),
        ("SELECT getenv('HOME')", "getenv"),
        ("SELECT * FROM enable_logging(storage = 'file', storage_path = 'OBJECTS/evil')", "locked"),
    ],
)
def test_sql_that_is_wrong_or_reaches_out_is_one_clear_sentence(catalog: Catalog, sql: str, message: str) -> None:
    make(catalog, "a", 1)
    before = sorted(catalog.home.rglob("*"))
    with pytest.raises(WorldlineError, match=message) as caught:
        catalog.sql(sql.replace("OBJECTS", str(catalog.objects.folder)))
    assert "\n" not in str(caught.value)
    assert sorted(catalog.home.rglob("*")) == before


@pytest.mark.parametrize("name", ["quo'te", "space and (brackets)", "émoji🙂"])
def test_a_workspace_may_have_any_folder_name(tmp_path: Any, name: str) -> None:
    catalog = Catalog.open(tmp_path / name)
    chain(catalog)
    assert catalog.sql("SELECT count(*) AS n FROM labels").to_pylist() == [{"n": 2}]


def test_publishing_twice_gives_the_same_version_and_a_change_gives_the_next(catalog: Catalog) -> None:
    digest = chain(catalog)["questions"].outputs[0].digest
    first = publish(catalog, "streets", {"rate": 0.1}, {"questions": digest}, {"numpy": "2.0"})
    assert publish(catalog, "streets", {"rate": 0.1}, {"questions": digest}, {"numpy": "2.1"}) == first
    second = publish(catalog, "streets", {"rate": 0.2}, {"questions": digest}, {"numpy": "2.1"})
    assert (first.version, second.version) == (1, 2)
    assert publish(catalog, "streets", {"rate": 0.1}, {"questions": digest}, {}).version == 3  # not the latest: a new one
    assert catalog.dataset("streets@1").manifest == first.manifest
    assert catalog.dataset("streets").version == 3
    assert [version.reference for version in catalog.datasets()] == ["streets@1", "streets@2", "streets@3"]


def test_the_manifest_alone_says_how_to_rebuild_and_does_not_depend_on_when_or_where(catalog: Catalog, tmp_path: Any) -> None:
    made = chain(catalog)
    other = Catalog.open(tmp_path / "other")
    make(other, "unrelated", 5)
    chain(other)
    published = [
        publish(home, "streets", {"rate": 0.1}, {"questions": made["questions"].outputs[0].digest}, {"numpy": "2.0"})
        for home in (catalog, other)
    ]
    assert published[0].manifest == published[1].manifest
    text = catalog.objects.path(published[0].manifest).read_text()
    manifest = json.loads(text)
    assert canonical_json(manifest) == text
    assert [execution["stage"] for execution in manifest["executions"]] == UPSTREAM
    assert [source["digest"] for source in manifest["sources"]] == [made["clip"].inputs["source"]]
    known = {source["digest"] for source in manifest["sources"]}
    for execution in manifest["executions"]:
        assert set(execution["inputs"].values()) <= known
        assert execution["config"] == {"iterations": 800, "rate": 0.1}
        known |= {output["digest"] for output in execution["outputs"]}
    assert set(manifest["artifacts"].values()) <= known


@pytest.mark.parametrize("name", ["../up", "a/b", "", "it's", "🙂", "a@1", ".hidden", "x" * 101])
def test_a_dataset_name_that_could_do_harm_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(WorldlineError, match="cannot name a dataset"):
        publish(catalog, name, {}, {"figures": make(catalog, "a", 1).outputs[0].digest}, {})
    assert catalog.datasets() == []


def test_only_recorded_and_whole_artifacts_can_be_published(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    with pytest.raises(WorldlineError, match=r"its figures .* is not in the catalog"):
        publish(catalog, "streets", {}, {"figures": put(catalog, figures(2)).digest}, {})
    catalog.objects.path(execution.outputs[0].parts["meta.json"]).unlink()
    with pytest.raises(WorldlineError, match="build it again"):
        publish(catalog, "streets", {}, {"figures": execution.outputs[0].digest}, {})
    assert catalog.sql("SELECT * FROM datasets").num_rows == 0


def test_unknown_datasets_and_versions_name_what_there_is(catalog: Catalog) -> None:
    with pytest.raises(WorldlineError, match="nothing has been published"):
        catalog.dataset("streets")
    publish(catalog, "streets", {}, {"figures": make(catalog, "a", 1).outputs[0].digest}, {})
    for reference, message in {"stretes": "there is streets", "streets@7": "it has 1 to 1", "streets@x": "it has 1 to 1"}.items():
        with pytest.raises(WorldlineError, match=message):
            catalog.dataset(reference)


def test_lineage_reaches_everything_upstream_and_nothing_else_from_any_identifier(catalog: Catalog) -> None:
    made = chain(catalog)
    digest = made["questions"].outputs[0].digest
    publish(catalog, "streets", {}, {"questions": digest}, {})
    for identifier in (digest, digest[:8], made["questions"].key, "a" * 20, "aaaaaaaa", "streets@1", "streets"):
        assert stages_of(catalog, identifier) == UPSTREAM
    assert stages_of(catalog, made["path"].key[:10]) == ["ingest.toy", "toy.path"]
    assert stages_of(catalog, made["clip"].inputs["source"]) == []
    edges = lineage_of(catalog, digest).edges.to_pylist()
    assert len(edges) == 12
    assert {"execution_key": key_of("clip"), "slot": "source", "direction": "in", "kind": "Metrics",
            "digest": made["clip"].inputs["source"]} in edges  # fmt: skip
    for unknown in ("0" * 12, "nobody", "it's"):
        with pytest.raises(WorldlineError, match="no artifact, execution, dataset or question"):
            lineage_of(catalog, unknown)
    with pytest.raises(WorldlineError, match="did you mean the dataset streets"):
        lineage_of(catalog, "street")


def test_lineage_follows_the_first_maker_where_several_made_the_same_bytes(catalog: Catalog) -> None:
    first = make(catalog, "first", 1, stage="toy.first")
    digest = first.outputs[0].digest
    make(catalog, "identity", 1, {"figures": digest}, stage="toy.identity")  # gives back its own input
    assert stages_of(catalog, digest) == ["toy.first"]
    assert catalog.producer(digest) == first
    assert catalog.producer(put(catalog, figures(8)).digest) is None


def test_a_query_tells_when_objects_behind_a_table_are_gone(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    keep, lose = make(catalog, "a", 1), make(catalog, "b", 2)
    catalog.objects.path(lose.outputs[0].parts["figures.parquet"]).unlink()
    assert catalog.sql("SELECT DISTINCT artifact FROM metrics").to_pylist() == [{"artifact": keep.outputs[0].digest}]
    assert "1 of 2 artifacts behind table metrics are not on disk" in caplog.text


def test_two_artifacts_that_share_a_part_both_show_their_rows(catalog: Catalog) -> None:
    shared = make_table(KINEMATIC_STATES, {name: [] for name in KINEMATIC_STATES.names})
    windows = table(KINEMATIC_WINDOWS, [{"track_id": 0}])
    for name, grid_s in (("coarse", 0.5), ("fine", 0.1)):
        ran(catalog, name, "toy.kinematics", Kinematics(shared, windows, grid_s, "gps", 0.02, "given"))
    assert catalog.sql("SELECT count(DISTINCT artifact) AS n FROM windows").to_pylist() == [{"n": 2}]
