"""What the catalog promises to tasks: found if recorded and whole, the first result stays, nothing is half there."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from catalog_workers import figures, key_of, make, put, run_of

from catalogs.catalog import Catalog, Execution
from catalogs.stores import object_name
from schemas.artifact import Files
from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.reports import Metrics

pytestmark = pytest.mark.both_dialects


def lose(catalog: Catalog, execution: Execution, part: str) -> None:
    catalog.objects.discard([execution.outputs[0].parts[part]])


def truncate(catalog: Catalog, execution: Execution, part: str) -> None:
    sha256 = execution.outputs[0].parts[part]
    with catalog.store.new_file() as path:
        path.write_bytes(catalog.objects.path(sha256).read_bytes()[:-10])
        catalog.store.place(path, object_name(sha256))


def test_a_recorded_execution_is_found_with_every_field(catalog: Catalog) -> None:
    source = catalog.adopt(put(catalog, figures(1)))
    output = put(catalog, figures(2))
    execution = run_of(key_of("a"), "toy.make", (output,), {"source": source.digest})
    assert catalog.record(execution) == execution
    assert catalog.find(execution.key) == execution
    assert Catalog.open(catalog.home).find(execution.key) == execution
    assert catalog.find(key_of("b")) is None


def test_what_was_put_is_invisible_until_it_is_recorded(catalog: Catalog) -> None:
    ref = put(catalog, figures(1))
    assert catalog.sql("SELECT * FROM artifacts").num_rows == 0
    with pytest.raises(WorldlineError, match="no artifact"):
        Catalog.open(catalog.home).artifact(ref.digest)
    catalog.record(run_of(key_of("a"), "toy.make", (ref,)))
    assert catalog.sql("SELECT digest FROM artifacts").to_pylist() == [{"digest": ref.digest}]


def test_an_artifact_loads_as_it_was_put(catalog: Catalog, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), dtype=np.uint8)
    (tmp_path / "drive.bin").write_bytes(b"drive" * 1000)
    clip = Clip(Video.from_array(frames), np.array([0.0, 0.04, 0.1]), "drive", provenance={"source": "x"})
    source = Source(Files({"drive.bin": tmp_path / "drive.bin"}), "video", "drive")
    for artifact in (clip, source, figures(3)):
        ref = catalog.adopt(put(catalog, artifact))
        loaded = catalog.load(ref.digest[:12])
        assert content_digest(loaded) == content_digest(artifact) == ref.digest
        again = put(catalog, loaded)  # its files are the store's own objects now
        assert again == ref


def test_a_given_file_may_change_after_it_was_put(catalog: Catalog, tmp_path: Path) -> None:
    given = tmp_path / "drive.bin"
    given.write_bytes(b"before")
    ref = catalog.adopt(put(catalog, Source(Files({"drive.bin": given}), "video", "drive")))
    given.write_bytes(b"after!")
    loaded = catalog.load(ref.digest)
    assert isinstance(loaded, Source)
    assert loaded.files["drive.bin"].read_bytes() == b"before"
    assert os.access(given, os.W_OK)


def test_objects_are_named_by_their_bytes_and_read_only(catalog: Catalog) -> None:
    make(catalog, "a", 1)
    names = list(catalog.objects.all())
    assert len(names) == 2
    assert all(catalog.objects.verify(name) for name in names)
    assert all(catalog.objects.path(name).stat().st_mode & 0o222 == 0 for name in names)


def test_a_missing_part_is_a_miss_and_recording_again_heals_it(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    lose(catalog, execution, "figures.parquet")
    assert catalog.find(execution.key) is None
    with pytest.raises(WorldlineError, match=r"lost its part figures\.parquet"):
        catalog.load(execution.outputs[0].digest)
    assert make(catalog, "a", 1) == execution
    assert catalog.find(execution.key) == execution
    assert catalog.sql("SELECT * FROM drift").num_rows == 0
    assert catalog.sql("SELECT * FROM executions").num_rows == 1


def test_a_truncated_part_is_a_miss(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    truncate(catalog, execution, "figures.parquet")
    assert catalog.find(execution.key) is None


def test_the_first_result_of_a_key_stays_and_another_one_is_kept_as_drift(catalog: Catalog) -> None:
    first = make(catalog, "a", 1)
    assert make(catalog, "a", 1) == first
    assert catalog.sql("SELECT * FROM drift").num_rows == 0
    other = put(catalog, figures(2))
    assert catalog.record(run_of(first.key, "toy.make", (other,))) == first
    assert catalog.find(first.key) == first
    drift = catalog.sql("SELECT key, slot, kept_digest, other_digest FROM drift").to_pylist()
    assert drift == [{"key": first.key, "slot": "Metrics", "kept_digest": first.outputs[0].digest, "other_digest": other.digest}]
    assert catalog.sql("SELECT * FROM artifacts").num_rows == 1


def test_a_different_result_takes_the_place_of_a_lost_one_and_the_lost_one_is_drift(catalog: Catalog) -> None:
    first = make(catalog, "a", 1)
    lose(catalog, first, "figures.parquet")
    second = make(catalog, "a", 2)
    assert catalog.find(first.key) == second
    assert catalog.sql("SELECT kept_digest, other_digest FROM drift").to_pylist() == [
        {"kept_digest": second.outputs[0].digest, "other_digest": first.outputs[0].digest}
    ]
    assert catalog.sql("SELECT digest FROM edges").to_pylist() == [{"digest": second.outputs[0].digest}]


def test_errors_are_rows_and_never_hits(catalog: Catalog) -> None:
    failed = run_of(key_of("a"), "toy.make", (), status="error", error_type="ValueError", error_message="no ground")
    for _ in range(2):
        catalog.record(failed)
    assert catalog.find(failed.key) is None
    assert catalog.last_execution("toy.make") is None
    rows = catalog.sql("SELECT status, error_type, error_message FROM executions").to_pylist()
    assert rows == [{"status": "error", "error_type": "ValueError", "error_message": "no ground"}] * 2
    assert make(catalog, "a", 1) == catalog.find(failed.key)


def test_an_execution_with_unknown_inputs_or_outputs_is_refused(catalog: Catalog) -> None:
    ref = put(catalog, figures(1))
    with pytest.raises(ValueError, match="input source"):
        catalog.record(run_of(key_of("a"), "toy.make", (ref,), {"source": "0" * 64}))
    catalog.objects.discard([ref.parts["meta.json"]])
    with pytest.raises(ValueError, match="put Metrics"):
        catalog.record(run_of(key_of("a"), "toy.make", (ref,)))
    assert catalog.sql("SELECT * FROM executions").num_rows == 0


def test_the_last_execution_prefers_shared_inputs_over_newness(catalog: Catalog) -> None:
    clips = [catalog.adopt(put(catalog, figures(seed))).digest for seed in (1, 2)]
    for name, clip in (("old", clips[0]), ("new", clips[1])):
        make(catalog, name, 3, {"clip": clip})
    assert catalog.last_execution("toy.make", {"clip": clips[0]}).key == key_of("old")  # type: ignore[union-attr]
    assert catalog.last_execution("toy.make").key == key_of("new")  # type: ignore[union-attr]
    assert catalog.last_execution("toy.other") is None


def test_artifacts_are_named_by_a_prefix_and_errors_name_the_nearest(catalog: Catalog) -> None:
    digest = make(catalog, "a", 1).outputs[0].digest
    assert catalog.artifact(digest[:6]).digest == digest
    with pytest.raises(WorldlineError, match=f"nearest are {digest[:16]}"):
        catalog.artifact(digest[:6] + ("0" if digest[6] != "0" else "1"))
    make(catalog, "b", 2)
    with pytest.raises(WorldlineError, match="could mean"):
        catalog.artifact("")


def test_figures_that_are_not_finite_are_null_in_facts(catalog: Catalog) -> None:
    table = figures(1, rows=1).figures
    empty = table.set_column(1, "value", [[float("nan")]])
    assert put(catalog, Metrics(empty)).facts == {"figure.000": None}


def test_a_catalog_travels_to_other_processes_as_its_folder(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    assert pickle.loads(pickle.dumps(catalog)).find(execution.key) == execution


def test_checkpoints_last_until_the_execution_is_recorded(catalog: Catalog) -> None:
    key = key_of("a")
    (catalog.checkpoint_folder(key) / "state").write_text("half way")
    catalog.record(run_of(key, "toy.make", (), status="error", error_type="E", error_message="interrupted"))
    assert (Catalog.open(catalog.home).checkpoint_folder(key) / "state").read_text() == "half way"
    make(catalog, "a", 1)
    assert not list((catalog.home / "checkpoints").iterdir())
