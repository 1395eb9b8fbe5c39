"""Many processes at once, and processes that die: nothing acknowledged is lost, nothing partial is seen, leftovers go."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pyarrow as pa
import pytest
from catalog_workers import (
    ACTIONS,
    build_until_killed,
    commit_many,
    compute_same,
    die_at,
    figures,
    hold_scratch,
    key_of,
    make,
    publish_one,
    run_of,
)
from conftest import DIALECTS

from catalogs.catalog import Catalog
from catalogs.lens import TABLES
from catalogs.repair import index_difference, repair
from catalogs.upkeep import verify
from catalogs.versions import publish
from schemas.codec import content_digest
from schemas.errors import WorldlineError

BOTH = pytest.mark.both_dialects


def dump(catalog: Catalog) -> tuple[list[str], dict[str, list[str]]]:
    """All that the index and the tables say."""
    names = ("executions", "artifacts", "edges", "datasets", "notes", "files")
    index = [repr(catalog.log.rows(f"SELECT * FROM {name} ORDER BY 1, 2, 3")) for name in names]
    tables = {name: sorted(map(repr, catalog.sql(f"SELECT * FROM {name}").to_pylist())) for name in TABLES}
    return index, tables


def lose_log(catalog: Catalog) -> None:
    """Remove the log's database, as if its disk had died."""
    if (catalog.home / "worldline.toml").exists():
        catalog.log.database.execute("DROP SCHEMA worldline CASCADE")
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (catalog.home / name).unlink(missing_ok=True)


def assert_whole(catalog: Catalog) -> None:
    assert verify(catalog) == []
    assert index_difference(catalog.log) is None
    assert not list((catalog.home / "scratch").iterdir())
    assert not list(catalog.store.incoming.iterdir())
    for key in catalog.sql("SELECT key FROM executions").column("key").to_pylist():
        execution = catalog.find(key)
        assert execution is not None
        assert content_digest(catalog.load(execution.outputs[0].digest)) == execution.outputs[0].digest
    figures_recorded = catalog.sql(
        "SELECT artifact, count(*) AS rows FROM (SELECT DISTINCT artifact, name FROM metrics) GROUP BY 1"
    )
    assert set(figures_recorded.column("rows").to_pylist()) <= {20}


@BOTH
def test_concurrent_writers_lose_nothing_and_every_query_sees_whole_commits(
    catalog: Catalog, processes: ForkServerContext
) -> None:
    workers = [processes.Process(target=commit_many, args=(catalog.home, worker, 25)) for worker in range(6)]
    for worker in workers:
        worker.start()
    seen = 0
    while any(worker.is_alive() for worker in workers):
        counts = catalog.sql("SELECT count(*) AS runs, (SELECT count(*) FROM metrics) AS rows FROM executions").to_pylist()[0]
        runs, rows = counts["runs"], counts["rows"]
        assert runs >= seen
        assert rows % 20 == 0
        seen = runs
        catalog.log.compact(minimum=20)
    assert [worker.exitcode for worker in workers] == [0] * 6
    keys = {key_of(f"{worker}/{index}") for worker in range(6) for index in range(25)}
    assert set(catalog.sql("SELECT key FROM executions").column("key").to_pylist()) == keys
    assert all(catalog.find(key) for key in keys)
    assert catalog.sql("SELECT count(*) AS n FROM metrics").to_pylist() == [{"n": 6 * 25 * 20}]


@BOTH
def test_two_processes_that_compute_one_key_both_get_the_visible_result(home: Path, processes: ForkServerContext) -> None:
    results = processes.Queue()
    workers = [processes.Process(target=compute_same, args=(home, seed, results)) for seed in (1, 2, 3, 3)]
    for worker in workers:
        worker.start()
    digests = {results.get(timeout=60) for _ in workers}
    assert len(digests) == 1
    catalog = Catalog.open(home)
    assert {ref.digest for ref in catalog.find(key_of("shared")).outputs} == digests  # type: ignore[union-attr]
    drifted = set(catalog.sql("SELECT other_digest FROM drift").column(0).to_pylist())
    assert drifted == {content_digest(figures(seed)) for seed in (1, 2, 3)} - digests


@BOTH
def test_concurrent_publishers_get_distinct_versions_and_equal_ones_share_theirs(
    catalog: Catalog, processes: ForkServerContext
) -> None:
    make(catalog, "base", 1)
    results = processes.Queue()
    recipes = [1, 2, 3, 4]
    workers = [processes.Process(target=publish_one, args=(catalog.home, recipe, results)) for recipe in recipes]
    for worker in workers:
        worker.start()
    published = {results.get(timeout=60) for _ in workers}
    assert {version for version, _ in published} == {1, 2, 3, 4}
    latest = catalog.dataset("raced")
    again = publish(catalog, "raced", latest.recipe, latest.artifacts, {})
    assert (again.reference, again.manifest) == (latest.reference, latest.manifest)
    assert len(catalog.datasets()) == 4


BYTES_THEN_RECORD = {"object file written, not named", "object file named", "commit file written, not named", "commit file named"}
MOMENTS = {
    "record": BYTES_THEN_RECORD,
    "publish": BYTES_THEN_RECORD,
    "compact": {"segment file written, not named", "segment file named"},
    "gc": {"commit file named", "object file about to be removed", "object file removed"},
    "takedown": {"commit file named", "object file about to be removed", "object file removed"},
}
QUICK = [("sqlite+folder", name) for name in ("record", "publish", "compact", "gc")]
QUICK += [("postgres+s3", name) for name in ("record", "publish")]
EVERY = [
    pytest.param(dialect, name, marks=() if (dialect, name) in QUICK else pytest.mark.slow)
    for dialect in DIALECTS
    for name in ACTIONS
]


@pytest.mark.parametrize(("home", "action"), EVERY, indirect=["home"])
def test_a_process_killed_at_any_moment_of_an_action_leaves_a_whole_catalog(
    home: Path, action: str, processes: ForkServerContext
) -> None:
    catalog = Catalog.open(home)
    base = make(catalog, "base", 1)
    publish(catalog, "kept", {}, {"figures": base.outputs[0].digest}, {})
    survived, named = 1, set()
    while True:
        moments = processes.SimpleQueue()
        worker = processes.Process(target=die_at, args=(home, action, survived, moments))
        worker.start()
        worker.join(60)
        if worker.exitcode == 0:
            break
        assert worker.exitcode == -signal.SIGKILL
        moment = moments.get()
        named.add(moment)
        catalog = Catalog.open(home)
        assert_whole(catalog)
        assert catalog.find(base.key) == base
        if action == "record":
            committed = moment in ("transaction committed", "commit file named", "transaction about to be committed")
            assert (catalog.find(key_of(f"record {survived}")) is not None) == committed  # a whole file is taken in
            kept = (home / "checkpoints" / key_of(f"record {survived}")).exists()
            assert kept != committed  # kept exactly where a build would resume
        ACTIONS[action](catalog, f"{action} {survived}")
        assert_whole(catalog)
        survived += 1
    assert named >= {"transaction about to be committed", "transaction committed", *MOMENTS[action]}
    versions = [version.version for version in catalog.datasets() if version.name == "doomed"]
    assert versions == (list(range(1, survived + 1)) if action == "publish" else [])


ROUNDS = [("sqlite+folder", 8), *(pytest.param(dialect, 200, marks=pytest.mark.slow) for dialect in DIALECTS)]


@pytest.mark.parametrize(("home", "rounds"), ROUNDS, indirect=["home"])
def test_processes_killed_at_random_moments_lose_nothing_acknowledged(
    home: Path, rounds: int, tmp_path: Path, processes: ForkServerContext
) -> None:
    acknowledged = tmp_path / "acknowledged"
    moments = random.Random(0)
    for number in range(rounds):
        known = acknowledged.stat().st_size if acknowledged.exists() else 0
        worker = processes.Process(target=build_until_killed, args=(home, acknowledged, number))
        worker.start()
        while worker.is_alive() and not (acknowledged.exists() and acknowledged.stat().st_size > known):
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.2))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        catalog = Catalog.open(home)
        promised = acknowledged.read_text().splitlines()
        assert all(catalog.find(key) for key in promised)
        if number % 10 == 7 or number == rounds - 1:
            assert_whole(catalog)
    versions = [version.version for version in catalog.datasets()]
    assert versions == list(range(1, len(versions) + 1))
    catalog.log.compact(minimum=1)  # a segment whose merger died holds the same rows, but only the next merge registers it
    before = dump(catalog)
    lose_log(catalog)
    assert dump(Catalog.open(home)) == before


def test_a_living_process_keeps_its_scratch_folder(catalog: Catalog, processes: ForkServerContext) -> None:
    ready = processes.Queue()
    worker = processes.Process(target=hold_scratch, args=(catalog.home, ready))
    worker.start()
    folder = Path(ready.get(timeout=60))
    catalog.sweep()
    assert folder.exists()
    worker.kill()
    worker.join()
    assert catalog.sweep() == 1
    assert not folder.exists()


@BOTH
@pytest.mark.parametrize("merged", [False, True])
def test_a_lost_log_is_rebuilt_from_the_commit_files(catalog: Catalog, merged: bool, caplog: pytest.LogCaptureFixture) -> None:
    first = make(catalog, "a", 1)
    make(catalog, "a", 2)  # drift
    second = make(catalog, "b", 3, {"figures": first.outputs[0].digest})
    publish(catalog, "nightly", {"x": 1}, {"figures": second.outputs[0].digest}, {"numpy": "2"})
    catalog.objects.discard([first.outputs[0].parts["figures.parquet"]])
    make(catalog, "a", 6)  # takes the place of the lost one
    if merged:
        assert catalog.log.compact(minimum=1) == 5
    make(catalog, "c", 4)
    before = dump(catalog)
    lose_log(catalog)
    rebuilt = Catalog.open(catalog.home)
    assert "was missing and was rebuilt" in caplog.text
    assert dump(rebuilt) == before
    make(rebuilt, "d", 5)
    assert rebuilt.sql("SELECT max(commit) AS n FROM executions").to_pylist() == [{"n": 7}]


@BOTH
def test_merging_commit_files_changes_no_answer(catalog: Catalog) -> None:
    for index in range(6):
        make(catalog, str(index), index)
    before = dump(catalog)[1]
    assert catalog.log.compact(minimum=7) == 0
    assert catalog.log.compact(minimum=6) == 6
    assert len(catalog.log.files()) == 1
    assert dump(catalog)[1] == before
    make(catalog, "later", 9)
    assert len(catalog.log.files()) == 2
    assert catalog.sql("SELECT * FROM executions").num_rows == 7


def test_the_number_of_segments_grows_with_the_logarithm_of_the_commits(catalog: Catalog) -> None:
    for index in range(24):
        catalog.record(run_of(key_of(str(index)), "toy.make", (), status="error", error_type="E", error_message=str(index)))
        catalog.log.compact(minimum=2)
    assert len(catalog.log.files()) <= 5
    assert catalog.sql("SELECT count(*) AS n FROM executions").to_pylist() == [{"n": 24}]
    before = dump(catalog)
    lose_log(catalog)
    assert dump(Catalog.open(catalog.home)) == before


@BOTH
def test_threads_may_share_one_catalog(catalog: Catalog) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda index: make(catalog, str(index), index), range(40)))
    assert [catalog.find(key_of(str(index))) for index in range(40)] == made
    assert catalog.sql("SELECT count(*) AS n FROM executions").to_pylist() == [{"n": 40}]
    assert not list((catalog.home / "scratch").iterdir())


def test_a_forked_child_keeps_no_lock_of_its_parent(catalog: Catalog) -> None:
    with catalog.log.write(), catalog.scratch_folder():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        assert make(catalog, "a", 1) == catalog.find(key_of("a"))
        assert child.is_alive()  # nobody waited for it
        assert not list((catalog.home / "scratch").iterdir())
    finally:
        child.kill()
        child.join()


@BOTH
def test_a_gap_in_the_commit_files_is_told_and_not_papered_over(catalog: Catalog) -> None:
    for index in range(3):
        make(catalog, str(index), index)
    lose_log(catalog)
    catalog.store.remove(["tables/commits/000000000002.parquet"])
    with pytest.raises(WorldlineError, match="file of commit 2 is missing"):
        Catalog.open(catalog.home)


def back_up(catalog: Catalog, folder: Path) -> Path:
    with sqlite3.connect(catalog.home / "catalog.sqlite") as log, sqlite3.connect(folder / "backup") as backup:
        log.backup(backup)
    return folder / "backup"


def test_a_log_restored_from_a_backup_catches_up_with_its_files(catalog: Catalog, tmp_path: Path) -> None:
    make(catalog, "0", 0)
    backup = back_up(catalog, tmp_path)
    for index in (1, 2, 3):
        make(catalog, str(index), index)
    before = dump(catalog)
    lose_log(catalog)
    os.replace(backup, catalog.home / "catalog.sqlite")
    assert dump(Catalog.open(catalog.home)) == before


def test_a_log_older_than_a_merge_is_refused_and_repaired(catalog: Catalog, tmp_path: Path) -> None:
    make(catalog, "0", 0)
    backup = back_up(catalog, tmp_path)
    for index in (1, 2, 3):
        make(catalog, str(index), index)
    catalog.log.compact(minimum=1)
    before = dump(catalog)
    lose_log(catalog)
    os.replace(backup, catalog.home / "catalog.sqlite")
    with pytest.raises(WorldlineError, match=r"ends with commit 1, but the tables beside it go on to 4.*worldline repair"):
        Catalog.open(catalog.home)
    aside, rebuilt = repair(catalog.home)
    assert "is kept as" in aside
    assert "rebuilt from 1 files" in rebuilt
    assert dump(Catalog.open(catalog.home)) == before


@BOTH
def test_a_commit_that_fails_leaves_no_trace(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    make(catalog, "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(catalog.log, "_register", full_disk)  # the file is there, its transaction fails
        with pytest.raises(WorldlineError, match="No space left on device"):
            make(catalog, "b", 2)
        patch.setattr("catalogs.catalog.encode", full_disk)
        with pytest.raises(WorldlineError, match="No space left on device"):
            make(catalog, "b", 2)
    assert catalog.find(key_of("b")) is None
    assert list(catalog.store.names("tables/commits")) == ["tables/commits/000000000001.parquet"]
    make(catalog, "b", 2)
    assert catalog.sql("SELECT key FROM executions").num_rows == 2
    assert isinstance(catalog.sql("SELECT 1 AS one"), pa.Table)
