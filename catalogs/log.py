"""The commit log: what was recorded, in which order, atomically.

A commit is one immutable Parquet file of `RECORDS` rows plus one SQLite transaction that registers the file and
indexes its rows. The file is on disk before the transaction commits, and readers only open registered files, so
that a commit is seen whole or not at all. Numbers are given out under the write lock: the file of a commit that
died before its transaction is overwritten by the next one. Everything in SQLite can be made again from the files.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.leases import release
from catalogs.objects import sync_folder
from catalogs.records import (
    NOTES,
    RECORDS,
    ArtifactRef,
    DatasetVersion,
    Execution,
    Heading,
    Note,
    Record,
    heading_row,
    read_dataset,
    read_execution,
    read_heading,
    read_note,
    read_output,
)
from schemas.errors import WorldlineError

LOG_VERSION = (
    3  # 2: artifacts.kind; 3: notes. An older log is made anew from the Parquet files, which is every migration there is
)
_APPLICATION_ID = 0x57444C4E  # "WDLN"
_NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs")
_SEGMENT_ROWS = 1_000_000  # larger segments are not merged again
_RETIRED_SECONDS = 600.0  # a query that listed its files before a merge may still open them for this long
_DOCUMENTS = ("code_files", "machine", "packages")  # equal in thousands of executions: kept once
# One row gains nothing from compression, dictionaries or statistics, and they cost 1 of 1.6 ms; segments have them.
_COMMIT_LAYOUT = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}

_SCHEMA = """
CREATE TABLE files (name TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE INDEX files_last ON files (last);
CREATE TABLE retired (name TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE documents (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE executions (key TEXT PRIMARY KEY, number INTEGER NOT NULL, stage TEXT NOT NULL, body TEXT NOT NULL,
    code_files INTEGER NOT NULL, machine INTEGER NOT NULL, packages INTEGER NOT NULL);
CREATE INDEX executions_stage ON executions (stage, number);
CREATE TABLE artifacts (digest TEXT PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX artifacts_kind ON artifacts (kind);
CREATE TABLE edges (digest TEXT, direction TEXT, key TEXT, slot TEXT,
    PRIMARY KEY (digest, direction, key, slot)) WITHOUT ROWID;
CREATE INDEX edges_key ON edges (key);
CREATE TABLE datasets (name TEXT, version INTEGER, number INTEGER NOT NULL, fingerprint TEXT NOT NULL, heading TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (name, version)) WITHOUT ROWID;
CREATE TABLE notes (record TEXT, subject TEXT, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (record, subject));
"""


class CommitLog:
    """The log of one workspace on a local disk; any number of threads and processes may read and commit at once."""

    def __init__(self, home: Path) -> None:
        self.tables = home / "tables"
        self._path = home / "catalog.sqlite"
        self._queue_path = home / "catalog.lock"
        self._local = threading.local()
        _refuse_network_file_system(home)
        for folder in ("commits", "segments"):
            (self.tables / folder).mkdir(parents=True, exist_ok=True)
        with _sqlite_errors(self._path):
            if not self._ready():
                with self._turn():
                    self._create()

    # -- connections -----------------------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection; one from before a fork is left alone, as SQLite demands."""
        if getattr(self._local, "owner", None) != os.getpid():
            connection = sqlite3.connect(self._path, timeout=120.0, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection, self._local.owner = connection, os.getpid()
        return self._local.connection

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait in line for the write lock: the kernel wakes the next one at once, SQLite's own waiting sleeps and retries."""
        descriptor = os.open(self._queue_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            release(descriptor)

    def _ready(self) -> bool:
        """Return whether the log has the tables of this version; refuse one that is not ours or newer than us."""
        connection = self._connection()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if version == 0 and application == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return False
        if application != _APPLICATION_ID:
            raise WorldlineError(f"{self._path} was not made by Worldline: choose another workspace folder with --home")
        if version > LOG_VERSION:
            raise WorldlineError(
                f"{self._path} was written by a newer Worldline (log version {version}, this one reads up to {LOG_VERSION}): "
                "upgrade it"
            )
        return bool(version == LOG_VERSION)

    def _create(self) -> None:
        """Create the tables and fill them from the Parquet files of an earlier log, where there are any, in one transaction."""
        if self._ready():
            return
        connection = self._connection()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            old = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            for (name,) in old:
                connection.execute(f"DROP TABLE {name}")
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            files = self._replay(connection)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LOG_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        if files:
            why = "of an older version" if old else "missing"
            logging.getLogger(__name__).warning("the commit log %s was %s and was rebuilt from %d files", self._path, why, files)

    def _replay(self, connection: sqlite3.Connection) -> int:
        """Apply every Parquet file in commit order. Segments win over the commits that they were merged from."""
        spans = []
        for path in [*self.tables.glob("segments/[0-9]*.parquet"), *self.tables.glob("commits/[0-9]*.parquet")]:
            begin, _, end = path.stem.partition("-")
            spans.append((int(begin), -int(end or begin), path.relative_to(self.tables).as_posix()))
        covered, files = 0, 0
        for first, minus_last, name in sorted(spans):
            if first <= covered:
                continue
            if first != covered + 1:
                raise WorldlineError(
                    f"the commit log cannot be rebuilt from {self.tables}: the file of commit {covered + 1} is missing; "
                    "restore it from a backup"
                )
            try:
                rows = pq.read_table(self.tables / name, schema=RECORDS).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise WorldlineError(f"the commit log cannot be rebuilt: {self.tables / name} is damaged ({error})") from error
            for row in rows:
                _apply(connection, row)
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (name, first, -minus_last, len(rows)))
            covered, files = -minus_last, files + 1
        return files

    # -- writing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self) -> Iterator["Commit"]:
        """Hold the write lock and collect rows; leaving the block commits them all, an exception none.

        Raises:
            WorldlineError: if the disk is full, the log damaged, or the folder not writable; nothing is then recorded.
        """
        with self._transaction() as (connection, files):
            (last,) = connection.execute("SELECT coalesce(max(last), 0) FROM files").fetchone()
            if (self.tables / f"commits/{last + 2:012d}.parquet").exists():
                raise WorldlineError(
                    f"{self._path} is older than the tables beside it (was it restored from a backup?): move it away, "
                    "and the next command rebuilds it from them"
                )
            commit = Commit(connection, last + 1)
            yield commit
            if commit.rows:
                name = f"commits/{commit.number:012d}.parquet"
                files.append(self.tables / name)
                _write_table(pa.Table.from_pylist(commit.rows, schema=RECORDS), files[0], _COMMIT_LAYOUT)
                values = (name, commit.number, commit.number, len(commit.rows))
                connection.execute("INSERT INTO files VALUES (?, ?, ?, ?)", values)

    def compact(self, minimum: int = 100) -> int:
        """Merge commit files into a segment if there are at least `minimum`; return how many were merged.

        Segments of at most twice the rows join in, so that their number grows with the logarithm of the commits.
        Merged files stay on disk for ten minutes, for queries that listed them before.
        """
        loose_query = "SELECT name, first, last, rows FROM files WHERE name LIKE 'commits/%' ORDER BY first"
        if len(self.rows(loose_query)) < max(minimum, 1):
            return 0
        with self._transaction() as (connection, files):
            loose = connection.execute(loose_query).fetchall()
            merged, rows = list(loose), sum(item[3] for item in loose)
            query = "SELECT name, first, last, rows FROM files WHERE name LIKE 'segments/%' ORDER BY first DESC"
            for segment in connection.execute(query).fetchall():
                if segment[3] > min(2 * rows, _SEGMENT_ROWS):
                    break
                merged.insert(0, segment)
                rows += segment[3]
            if loose:  # else another process was faster
                files.append(self._merge(connection, merged))
            stale = connection.execute("SELECT name FROM retired WHERE at < ?", (time.time() - _RETIRED_SECONDS,)).fetchall()
            connection.executemany("DELETE FROM retired WHERE name = ?", stale)
        for (name,) in stale:
            (self.tables / name).unlink(missing_ok=True)
        return len(loose)

    def _merge(self, connection: sqlite3.Connection, files: list[tuple[str, int, int, int]]) -> Path:
        first, last = files[0][1], files[-1][2]
        segment = f"segments/{first:012d}-{last:012d}.parquet"
        table = pa.concat_tables([pq.read_table(self.tables / name, schema=RECORDS) for name, *_ in files])
        _write_table(table, self.tables / segment, {"compression": "zstd"})
        connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name, *_ in files])
        connection.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (segment, first, last, table.num_rows))
        connection.executemany("INSERT OR REPLACE INTO retired VALUES (?, ?)", [(name, time.time()) for name, *_ in files])
        return self.tables / segment

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, list[Path]]]:
        """Hold the write lock and commit at the end; an exception rolls back and removes the files listed by then."""
        connection = self._connection()
        files: list[Path] = []
        with _sqlite_errors(self._path), self._turn():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection, files
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # else it was committed
                    for path in files:
                        path.unlink(missing_ok=True)
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def lease(self, *, exclusive: bool) -> Iterator[bool]:
        """Hold the workspace for building (shared) or for removing what builds may need (exclusive), as long as the block lasts.

        Yields:
            Whether the lease was had: a shared one always (it waits), an exclusive one only if nobody builds.
        """
        descriptor = os.open(self._queue_path.with_name("builds.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
            held = True
        except BlockingIOError:
            held = False
        try:
            yield held
        finally:
            release(descriptor)

    # -- reading ---------------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Answer a question about the index from one consistent snapshot."""
        with _sqlite_errors(self._path):
            return self._connection().execute(sql, parameters).fetchall()

    def files(self) -> list[Path]:
        """Return the registered Parquet files in commit order."""
        return [self.tables / name for (name,) in self.rows("SELECT name FROM files ORDER BY first")]

    def execution(self, key: str) -> Execution | None:
        """Return the visible execution of a key; failed ones are not in the index."""
        return _execution(self._connection(), key)

    def artifact(self, digest: str) -> ArtifactRef | None:
        """Return a recorded artifact by its full digest."""
        return _artifact(self._connection(), digest)

    def artifacts(self, kind: str) -> list[ArtifactRef]:
        """Return all recorded artifacts of a kind by digest."""
        query = "SELECT body FROM artifacts WHERE kind = ? ORDER BY digest"
        return [read_output(json.loads(body)) for (body,) in self.rows(query, (kind,))]

    def producer(self, digest: str) -> Execution | None:
        """Return the execution that first made an artifact."""
        query = "SELECT key FROM edges JOIN executions USING (key) WHERE digest = ? AND direction = 'out' ORDER BY number LIMIT 1"
        found = self.rows(query, (digest,))
        return self.execution(found[0][0]) if found else None

    def datasets(self, name: str | None = None) -> list[DatasetVersion]:
        """Return all versions, or those of one name, by name and version."""
        query = "SELECT body FROM datasets WHERE name = coalesce(?, name) ORDER BY name, version"
        return [read_dataset(json.loads(body)) for (body,) in self.rows(query, (name,))]

    def headings(self, name: str | None = None) -> list[Heading]:
        """Return the headings of all versions, or of those of one name, by name and version."""
        query = "SELECT heading FROM datasets WHERE name = coalesce(?, name) ORDER BY name, version"
        return [read_heading(json.loads(heading)) for (heading,) in self.rows(query, (name,))]

    def note(self, record: str, subject: str) -> Note | None:
        """Return the newest note of a kind on a subject."""
        return _note(self._connection(), record, subject)

    def notes(self, record: str) -> list[Note]:
        """Return the newest note of a kind on every subject, by subject."""
        query = "SELECT body FROM notes WHERE record = ? ORDER BY subject"
        return [read_note(json.loads(body)) for (body,) in self.rows(query, (record,))]


class Commit:
    """Rows being recorded under the write lock."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self.number = number
        self.rows: list[Record] = []
        self._connection = connection

    def append(self, row: Record) -> Record:
        """Add a row to the commit and to the index; return it with its commit number and time."""
        row = {**dict.fromkeys(RECORDS.names), **row, "commit": self.number, "recorded_at": time.time()}
        self.rows.append(row)
        _apply(self._connection, row)
        return row

    def execution(self, key: str) -> Execution | None:
        """Return the visible execution of a key as of this commit."""
        return _execution(self._connection, key)

    def artifact(self, digest: str) -> ArtifactRef | None:
        """Return an artifact as of this commit."""
        return _artifact(self._connection, digest)

    def note(self, record: str, subject: str) -> Note | None:
        """Return the newest note of a kind on a subject as of this commit."""
        return _note(self._connection, record, subject)

    def latest(self, name: str) -> tuple[DatasetVersion, str] | None:
        """Return the latest version of a dataset and its fingerprint."""
        query = "SELECT body, fingerprint FROM datasets WHERE name = ? ORDER BY version DESC LIMIT 1"
        found = self._connection.execute(query, (name,)).fetchone()
        return (read_dataset(json.loads(found[0])), found[1]) if found else None


def _apply(connection: sqlite3.Connection, row: Record) -> None:
    """Index one row; the rule is the same when it is recorded and when a lost log is rebuilt."""
    number, outputs = row["commit"], row["outputs"] or []
    match row["record"]:
        case "execution":
            connection.execute("DELETE FROM edges WHERE key = ?", (row["key"],))
            edges = [(item["digest"], "in", row["key"], item["slot"]) for item in row["inputs"]]
            edges += [(item["digest"], "out", row["key"], item["slot"]) for item in outputs]
            connection.executemany("INSERT INTO edges VALUES (?, ?, ?, ?)", edges)
            documents = [_document(connection, row[name]) for name in _DOCUMENTS]
            body = {name: value for name, value in row.items() if value is not None and name not in _DOCUMENTS}
            connection.execute(
                "INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row["key"], number, row["stage"], json.dumps(body, ensure_ascii=False), *documents),
            )
        case "source":
            pass
        case "dataset":
            body = {name: value for name, value in row.items() if value is not None}
            connection.execute(
                "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?)",
                (row["dataset"], row["dataset_version"], number, row["fingerprint"],
                 json.dumps(heading_row(row), ensure_ascii=False), json.dumps(body, ensure_ascii=False)),  # fmt: skip
            )
            return
        case note if note in NOTES:
            body = {name: value for name, value in row.items() if value is not None}
            connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)",
                (note, row["subject"], number, json.dumps(body, ensure_ascii=False)),
            )
            if note == "removal":
                _remove(connection, json.loads(row["body"]))
            return
        case _:  # errors and drift are told by queries; the index never offers them
            return
    for item in outputs:
        values = (item["digest"], number, item["kind"], json.dumps(item, ensure_ascii=False))
        connection.execute("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?)", values)


def _remove(connection: sqlite3.Connection, removed: dict[str, list[str]]) -> None:
    """Forget artifacts and executions; they may be recorded again later."""
    keys, digests = [(key,) for key in removed["keys"]], [(digest,) for digest in removed["digests"]]
    connection.executemany("DELETE FROM executions WHERE key = ?", keys)
    connection.executemany("DELETE FROM edges WHERE key = ?", keys)
    connection.executemany("DELETE FROM artifacts WHERE digest = ?", digests)


def _document(connection: sqlite3.Connection, body: str) -> int:
    connection.execute("INSERT INTO documents (body) VALUES (?) ON CONFLICT DO NOTHING", (body,))
    return int(connection.execute("SELECT id FROM documents WHERE body = ?", (body,)).fetchone()[0])


def _execution(connection: sqlite3.Connection, key: str) -> Execution | None:
    query = (
        "SELECT e.body, c.body, m.body, p.body FROM executions e JOIN documents c ON c.id = e.code_files "
        "JOIN documents m ON m.id = e.machine JOIN documents p ON p.id = e.packages WHERE e.key = ?"
    )
    found = connection.execute(query, (key,)).fetchone()
    if found is None:
        return None
    documents = dict(zip(_DOCUMENTS, found[1:], strict=True))
    return read_execution({**dict.fromkeys(RECORDS.names), **json.loads(found[0]), **documents})


def _artifact(connection: sqlite3.Connection, digest: str) -> ArtifactRef | None:
    found = connection.execute("SELECT body FROM artifacts WHERE digest = ?", (digest,)).fetchone()
    return read_output(json.loads(found[0])) if found else None


def _note(connection: sqlite3.Connection, record: str, subject: str) -> Note | None:
    found = connection.execute("SELECT body FROM notes WHERE record = ? AND subject = ?", (record, subject)).fetchone()
    return read_note(json.loads(found[0])) if found else None


def _write_table(table: pa.Table, path: Path, layout: dict[str, Any]) -> None:
    """Write a Parquet file that appears under its name only when its bytes are on disk."""
    temporary = path.with_name(f".{path.name}.tmp")  # one writer at a time, so that a leftover is overwritten
    try:
        with temporary.open("wb") as stream:
            pq.write_table(table, stream, **layout)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """Turn what the disk or SQLite refuses into one sentence."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # defects of ours
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_ERROR":  # wrong SQL: a defect of ours
            raise
        raise WorldlineError(
            f"the catalog {path} could not be used ({error}): check that its disk has space and that its folder can be written"
        ) from error
    except sqlite3.DatabaseError as error:
        raise WorldlineError(
            f"the commit log {path} is damaged ({error}): move it away together with its -wal and -shm files, and the next "
            "command rebuilds it from the tables beside it"
        ) from error
    except OSError as error:
        raise WorldlineError(f"the catalog {path} could not be written ({error.strerror or error})") from error


def _refuse_network_file_system(home: Path) -> None:
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return
    best, kind = "", ""
    for line in mounts.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split(" ")[4].replace("\\040", " ")
        if home.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, rest.split(" ")[0]
    if kind.removeprefix("fuse.") in (*_NETWORK_FILE_SYSTEMS, "sshfs", "s3fs", "gcsfuse"):
        raise WorldlineError(
            f"{home} lies on a network file system ({kind}), where the catalog's SQLite log can lose data: "
            "choose a folder on a local disk with --home"
        )
