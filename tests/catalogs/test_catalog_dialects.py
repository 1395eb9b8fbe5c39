"""Where a workspace may lie, what its settings may say, and how a log of another day, tool or state is met."""

import copy
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from catalog_workers import commit_many, figures, hold_lease, key_of, make, put, run_of

from benchmarks import servers
from catalogs.catalog import Catalog
from catalogs.databases import Sqlite, open_database
from catalogs.records import Note, execution_row
from catalogs.repair import bad_files, index_difference, repair
from catalogs.upkeep import verify
from catalogs.versions import publish
from catalogs.workspace import Settings, check_file_system, read_settings
from schemas.errors import WorldlineError

RELEASED = sorted((Path(__file__).parent / "released").iterdir())
BOTH = pytest.mark.both_dialects


def settings_of(folder: Path, text: str) -> Settings:
    folder.mkdir(exist_ok=True)
    (folder / "worldline.toml").write_text(text)
    return read_settings(folder)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_workspace_without_settings_lies_in_its_folder(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings(None, None, {})


def test_settings_name_a_database_a_store_and_its_options(tmp_path: Path) -> None:
    text = 'log = "postgresql://me@db/w"\nstore = "s3://b/p"\n[store_options]\nregion = "x"\nallow_http = true\n'
    assert settings_of(tmp_path, text) == Settings("postgresql://me@db/w", "s3://b/p", {"region": "x", "allow_http": "true"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("log =", r"worldline\.toml is not TOML"),
        ("logs = 'x'", "unknown key logs"),
        ("log = 3", "log must be a URL in quotes"),
        ("log = 'mysql://db/w'", "must look like postgresql://"),
        ("log = 'postgresql://db'", "must look like postgresql://"),
        ("log = 'postgresql://me:secret@db/w'", "set PGPASSWORD in the environment"),
        ("log = 'postgresql://db/w'\nstore = 'ftp://x'", "must look like s3://"),
        ("store = 's3://b'", "reached from several hosts and SQLite cannot"),
        ("store_options = 3", "store_options must be a table"),
    ],
)
def test_wrong_settings_are_one_sentence_and_nothing_is_made(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WorldlineError, match=said) as caught:
        settings_of(tmp_path, text)
    assert "\n" not in str(caught.value)
    with pytest.raises(WorldlineError, match=said):
        Catalog.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["worldline.toml"]


def test_a_catalog_opens_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLDLINE_HOME", raising=False)
    assert Catalog.open().home == tmp_path / "worldline-data"
    monkeypatch.setenv("WORLDLINE_HOME", str(tmp_path / "elsewhere"))
    assert Catalog.open().home == tmp_path / "elsewhere"


def test_a_database_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    settings_of(tmp_path, "log = 'postgresql://me@127.0.0.1:9/w'")
    with pytest.raises(WorldlineError, match=r"the database w on 127\.0\.0\.1:9 cannot be reached"):
        Catalog.open(tmp_path)


def test_a_database_that_does_not_exist_is_one_sentence(tmp_path: Path, postgres: str) -> None:
    settings_of(tmp_path, f"log = '{postgres}/nowhere'")
    with pytest.raises(WorldlineError, match='database "nowhere" does not exist'):
        Catalog.open(tmp_path)


# -- where a workspace may lie -----------------------------------------------------------------------------------------

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:40 / /data/shared rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2
31 30 254:1 / /data/shared/local rw,relatime - xfs /dev/vdb rw
32 22 0:41 / /mnt/my\\040stick rw,relatime - exfat /dev/sda1 rw
33 22 0:42 / /mnt/bucket rw,relatime - fuse.s3fs s3fs rw
34 22 0:43 / /mnt/overlay rw,relatime - fuse.fuse-overlayfs overlay rw
"""


@pytest.mark.parametrize("home", ["/data/shared/drives", "/mnt/bucket/x"])
def test_sqlite_on_a_network_file_system_is_refused_with_a_sentence_that_names_postgres(home: str) -> None:
    with pytest.raises(WorldlineError, match=r"network file system .* keep the log in Postgres"):
        check_file_system(Path(home), MOUNTS)


def test_a_file_system_without_atomic_renames_is_refused() -> None:
    with pytest.raises(WorldlineError, match=r"cannot replace a file in one step \(exfat\)"):
        check_file_system(Path("/mnt/my stick/data"), MOUNTS)


@pytest.mark.parametrize("home", ["/home/me", "/data/shared/local/x", "/data/shared2", "/mnt/overlay/x"])
def test_a_local_disk_is_taken_also_below_a_network_mount(home: str) -> None:
    check_file_system(Path(home), MOUNTS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB that can be mounted again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_workspace_is_one_sentence_and_nothing_changes(small_disk: Path, processes: ForkServerContext) -> None:
    home = small_disk / "home"
    worker = processes.Process(target=commit_many, args=(home, 0, 2))  # which leaves no file open
    worker.start()
    worker.join()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(WorldlineError) as caught:
        make(Catalog.open(home), "a", 1)
    assert "\n" not in str(caught.value)
    assert str(home) in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_one_sentence_and_loses_nothing(small_disk: Path) -> None:
    catalog = Catalog.open(small_disk / "home")
    made = [make(catalog, "first", 1)]
    with pytest.raises(WorldlineError) as caught:  # noqa: PT012
        for number in range(10_000):
            made.append(make(catalog, str(number), number))
    assert "\n" not in str(caught.value)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    catalog = Catalog.open(catalog.home)
    assert [catalog.find(execution.key) for execution in made] == made
    assert verify(catalog) == []
    assert index_difference(catalog.log) is None
    assert make(catalog, "after", 2) == catalog.find(key_of("after"))


# -- logs of other days and tools --------------------------------------------------------------------------------------


def test_the_sqlite_file_of_another_tool_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("home").mkdir()
    with sqlite3.connect(tmp_path / "home" / "catalog.sqlite") as other:
        other.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / "home" / "catalog.sqlite").read_bytes()
    with pytest.raises(WorldlineError, match="was not made by Worldline"):
        Catalog.open(tmp_path / "home")
    with pytest.raises(WorldlineError, match="was not made by Worldline"):
        repair(tmp_path / "home")
    assert (tmp_path / "home" / "catalog.sqlite").read_bytes() == before


def test_the_schema_of_another_tool_is_refused_and_left_alone(home: Path, postgres: str) -> None:
    servers.make_database(postgres, "theirs")
    other = open_database(home, f"{postgres}/theirs")
    other.execute("CREATE SCHEMA worldline")
    other.execute("CREATE TABLE worldline.maps (x int)")
    settings_of(home, f"log = '{postgres}/theirs'")
    with pytest.raises(WorldlineError, match=r"schema worldline in theirs on .* was not made by Worldline"):
        Catalog.open(home)
    assert other.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'worldline'") == [("maps",)]


def test_a_log_that_another_process_creates_meanwhile_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, execute = tmp_path / "home", Sqlite.execute
    others: list[threading.Thread] = []

    def execute_and_let_another_create(self: Sqlite, sql: str, parameters: Sequence[Any] = ()) -> Any:
        rows = execute(self, sql, parameters)
        if sql == "PRAGMA user_version" and not others:
            others.append(threading.Thread(target=Catalog.open, args=(home,)))
            others[0].start()
            others[0].join(1.0)
        return rows

    monkeypatch.setattr(Sqlite, "execute", execute_and_let_another_create)
    catalog = Catalog.open(home)
    others[0].join(60.0)
    assert make(catalog, "a", 1) == Catalog.open(home).find(key_of("a"))


@BOTH
def test_a_workspace_of_a_newer_version_is_refused(catalog: Catalog) -> None:
    first = make(catalog, "a", 1)
    catalog.log.database.execute("UPDATE log SET version = 99")
    if not (catalog.home / "worldline.toml").exists():
        catalog.log.database.execute("PRAGMA user_version = 99")
    for use in (Catalog.open, repair):
        with pytest.raises(WorldlineError, match=r"written by a newer Worldline .log version 99"):
            use(catalog.home)
    assert catalog.find(first.key) == first


def test_a_folder_in_whose_place_a_file_is_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorldlineError, match=r"cannot be used"):
        Catalog.open(tmp_path / "file")


def test_two_logs_cannot_share_one_store(catalog: Catalog, tmp_path: Path, postgres: str) -> None:
    make(catalog, "a", 1)
    servers.make_database(postgres, "second")
    settings_of(tmp_path / "other", f"log = '{postgres}/second'")
    Catalog.open(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "worldline.toml", catalog.home)  # this folder's bytes, that database's log
    with pytest.raises(WorldlineError, match="belong to different workspaces"):
        Catalog.open(catalog.home)


@BOTH
def test_a_store_that_lost_its_mark_gets_it_again(catalog: Catalog) -> None:
    made = make(catalog, "a", 1)
    mark = b"".join(catalog.store.blocks("tables/workspace"))
    overwrite(catalog, "tables/workspace", b"\xff" + mark[1:])
    assert Catalog.open(catalog.home).find(made.key) == made
    catalog.store.remove(["tables/workspace"])
    assert Catalog.open(catalog.home).find(made.key) == made
    assert b"".join(catalog.store.blocks("tables/workspace")) == mark


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.name)
def test_everything_in_a_released_workspace_is_there_today(released: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(released, home)
    (home / "objects" / "incoming").mkdir(parents=True, exist_ok=True)
    catalog = Catalog.open(home)
    first, second = catalog.find(key_of("first")), catalog.find(key_of("second"))
    assert first is not None
    assert second is not None
    assert first == run_of(key_of("first"), "toy.make", first.outputs, {"source": put(catalog, figures(1)).digest})
    assert first.outputs == (put(catalog, figures(2)),)
    assert second == run_of(key_of("second"), "toy.refine", (put(catalog, figures(3)),), {"figures": first.outputs[0].digest})
    version = catalog.dataset("released@1")
    assert (version.recipe, version.lock) == ({"name": "released", "iterations": 800}, {"numpy": "2.0"})
    assert version.artifacts == {"figures": second.outputs[0].digest}
    assert (version.held, version.splits, version.rejected) == (None, {} if released.name == "log-2" else {"": "train"}, ())
    if released.name != "log-2":  # which knew no notes
        assert catalog.dataset("released@paper").reference == "released@1"
        assert catalog.sql("SELECT licence, place FROM terms").to_pylist() == [{"licence": "CC-BY-4.0", "place": "Main Street"}]
    errors = catalog.sql("SELECT error_type, error_message FROM executions WHERE status = 'error'").to_pylist()
    assert errors == [{"error_type": "OSError", "error_message": "the disk is gone"}]
    drift = catalog.sql("SELECT key, other_digest FROM drift").to_pylist()
    assert drift == [{"key": key_of("second"), "other_digest": put(catalog, figures(4)).digest}]
    assert catalog.sql("SELECT count(*) AS n FROM metrics WHERE dataset = 'released' AND version = 1").to_pylist() == [{"n": 20}]
    assert verify(catalog) == []


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.name)
def test_old_and_new_records_answer_one_query_before_and_after_they_are_merged(released: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(released, home)
    catalog = Catalog.open(home)
    new = make(catalog, "new", 9)
    publish(catalog, "today", {}, {"figures": new.outputs[0].digest}, {})
    catalog.note(Note("tag", "today@best", {"version": 1}))
    query = "SELECT dataset, version, held FROM datasets ORDER BY 1"
    expected = [{"dataset": name, "version": 1, "held": None} for name in ("released", "today")]
    assert catalog.sql(query).to_pylist() == expected
    assert catalog.log.compact(minimum=1) > 0
    assert catalog.sql(query).to_pylist() == expected
    assert catalog.sql("SELECT count(*) AS n FROM executions WHERE status = 'ok'").to_pylist() == [{"n": 3}]
    assert index_difference(catalog.log) is None


def test_a_workspace_of_the_first_log_is_brought_up_to_date_without_loss(catalog: Catalog) -> None:
    first = make(catalog, "a", 1)
    publish(catalog, "nightly", {}, {"figures": first.outputs[0].digest}, {})
    log = catalog.log.database
    for statement in ("DROP INDEX artifacts_kind", "ALTER TABLE artifacts DROP COLUMN kind", "DROP TABLE notes",
                      "DROP TABLE copies", "DROP TABLE workspace", "DROP TABLE log", "PRAGMA user_version = 1"):  # fmt: skip
        log.execute(statement)
    catalog.store.remove(["tables/workspace"])
    again = Catalog.open(catalog.home)
    assert again.find(first.key) == first
    assert again.dataset("nightly").artifacts == {"figures": first.outputs[0].digest}
    assert verify(again) == []


# -- repair ------------------------------------------------------------------------------------------------------------


def busy(catalog: Catalog) -> None:
    """Fill a log with one of everything, some of it merged."""
    first = make(catalog, "a", 1)
    make(catalog, "a", 2)  # drift
    catalog.log.compact(minimum=1)
    catalog.record(run_of(key_of("b"), "toy.make", (), status="error", error_type="E", error_message="no"))
    publish(catalog, "nightly", {"x": 1}, {"figures": first.outputs[0].digest}, {"numpy": "2"})
    catalog.note(Note("tag", "nightly@best", {"version": 1}))


def overwrite(catalog: Catalog, name: str, data: bytes) -> None:
    with catalog.store.new_file() as path:
        path.write_bytes(data)
        catalog.store.place(path, name)


@BOTH
def test_a_whole_log_needs_no_repair(catalog: Catalog) -> None:
    busy(catalog)
    assert repair(catalog.home) == []


@BOTH
@pytest.mark.parametrize("folder", ["commits", "segments"])
def test_any_flipped_bit_in_a_record_file_is_found_and_the_file_written_again(catalog: Catalog, folder: str) -> None:
    busy(catalog)
    name = next(name for name in catalog.store.names(f"tables/{folder}") if "1-" in name or "4." in name)
    whole = b"".join(catalog.store.blocks(name))
    positions = random.Random(3)
    for _ in range(3):
        flipped = bytearray(whole)
        flipped[positions.randrange(len(whole))] ^= 1 << positions.randrange(8)
        overwrite(catalog, name, bytes(flipped))
        assert bad_files(catalog.log) == [(name, "damaged")]
        assert repair(catalog.home) == [f"{name} was damaged and was written again"]
        assert b"".join(catalog.store.blocks(name)) == whole


@BOTH
def test_a_lost_record_file_is_written_again(catalog: Catalog) -> None:
    busy(catalog)
    name = list(catalog.store.names("tables/commits"))[-1]
    catalog.store.remove([name])
    assert repair(catalog.home) == [f"{name} was missing and was written again"]
    assert repair(catalog.home) == []


@BOTH
def test_a_wrong_index_is_found_kept_aside_and_made_again(catalog: Catalog) -> None:
    busy(catalog)
    catalog.log.database.execute("UPDATE executions SET stage = 'toy.other'")
    assert "executions" in (index_difference(catalog.log) or "")
    aside, rebuilt = repair(catalog.home)
    assert "was damaged" in aside
    assert "is kept as" in aside
    assert "was rebuilt from" in rebuilt
    again = Catalog.open(catalog.home)
    assert index_difference(again.log) is None
    assert again.dataset("nightly@1").recipe == {"x": 1}


def test_a_flipped_byte_anywhere_in_the_sqlite_file_loses_nothing(catalog: Catalog) -> None:
    busy(catalog)
    path, found = catalog.home / "catalog.sqlite", catalog.find(key_of("a"))
    catalog.log.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    catalog.log.database._local.connection.close()  # type: ignore[attr-defined]
    whole, positions = path.read_bytes(), random.Random(5)
    for position in (0, 18, 61, 70, *(positions.randrange(len(whole)) for _ in range(12))):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << positions.randrange(8)
        for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
            (catalog.home / name).unlink(missing_ok=True)
        path.write_bytes(bytes(flipped))
        repair(catalog.home)
        again = Catalog.open(catalog.home)
        assert again.find(key_of("a")) == found
        assert index_difference(again.log) is None
        again.log.database._local.connection.close()  # type: ignore[attr-defined]


def test_a_damaged_log_says_how_to_get_it_back(catalog: Catalog) -> None:
    make(catalog, "a", 1)
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (catalog.home / name).unlink(missing_ok=True)
    (catalog.home / "catalog.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(WorldlineError, match=r"is damaged .*`worldline repair` keeps it aside"):
        Catalog.open(catalog.home)
    aside, _ = repair(catalog.home)
    assert Path(aside.rpartition(" ")[2]).read_bytes() == b"not a database" * 1000
    assert Catalog.open(catalog.home).find(key_of("a")) is not None


def test_nothing_is_changed_where_neither_can_be_made_from_the_other(catalog: Catalog) -> None:
    busy(catalog)
    catalog.store.remove(["tables/commits/000000000004.parquet"])
    path = catalog.home / "catalog.sqlite"
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (catalog.home / name).unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(WorldlineError, match="file of commit 4 is missing"):
        repair(catalog.home)
    assert path.read_bytes() == b"not a database" * 1000


# -- locks and speed ---------------------------------------------------------------------------------------------------


@BOTH
def test_a_killed_process_gives_its_lease_back(catalog: Catalog, processes: ForkServerContext) -> None:
    ready = processes.SimpleQueue()
    worker = processes.Process(target=hold_lease, args=(catalog.home, ready))
    worker.start()
    assert ready.get() is True
    with catalog.log.lease(exclusive=True) as alone:
        assert not alone
    with catalog.log.lease(exclusive=False) as shared:
        assert shared
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    for _ in range(50):  # a server takes a moment to see that the other end is gone
        with catalog.log.lease(exclusive=True) as alone:
            if alone:
                return
        time.sleep(0.1)
    raise AssertionError("the lease of a dead process is still held")


def test_a_lost_connection_is_made_again_between_questions_and_told_within_a_commit(home: Path, postgres: str) -> None:
    servers.make_database(postgres, "restarted")
    settings_of(home, f"log = '{postgres}/restarted'")
    catalog, other = Catalog.open(home), open_database(home, f"{postgres}/restarted")
    made = make(catalog, "a", 1)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'restarted' AND pid != pg_backend_pid()"
    other.execute(cut)
    assert catalog.find(made.key) == made
    ref = put(catalog, figures(2))
    with pytest.raises(WorldlineError, match="restarted"), catalog.log.write() as commit:  # noqa: PT012
        other.execute(cut)
        commit.append({"record": "source", "outputs": []})
    catalog.adopt(ref)
    assert catalog.artifact(ref.digest) == ref
    assert index_difference(catalog.log) is None


@pytest.mark.parametrize("home", ["postgres+s3"], indirect=True)
@pytest.mark.parametrize("overtaken", [True, False])
def test_a_writer_that_lost_its_lock_while_it_uploads_overwrites_nothing(home: Path, overtaken: bool) -> None:
    slow, other = Catalog.open(home), Catalog.open(home)
    ref, place = put(slow, figures(1)), slow.store.place
    promised = []

    def late(path: Path, name: str, *, new: bool = False) -> None:
        other.log.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid != pg_backend_pid() AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        if overtaken:
            promised.append(make(other, "fast", 2))
        place(path, name, new=new)

    slow.log.store = copy.copy(slow.store)  # the process shares one store otherwise
    slow.log.store.place = late  # type: ignore[method-assign]
    with pytest.raises(WorldlineError, match="run this again"):
        slow.adopt(ref)
    promised.append(make(other, "later", 3))
    again = Catalog.open(home)
    assert [again.find(execution.key) for execution in promised] == promised
    assert (again.log.artifact(ref.digest) is None) == overtaken  # whole and not overtaken: taken in by the next writer
    assert bad_files(again.log) == []
    assert index_difference(again.log) is None


def test_ten_thousand_lookups_take_less_than_two_seconds(catalog: Catalog) -> None:
    made = make(catalog, "a", 1)
    with catalog.log.write() as commit:
        for number in range(1000):
            commit.append(execution_row(run_of(key_of(str(number)), "toy.make", made.outputs), "execution"))
    started = time.process_time()  # of this process alone: the machine may be busy
    found = [catalog.find(key_of(str(number % 1000))) for number in range(10_000)]
    assert time.process_time() - started < 2.0
    assert all(found)
