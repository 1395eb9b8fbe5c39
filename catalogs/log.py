"""The commit log: what was recorded, in which order, atomically.

A commit is one immutable Parquet file of `RECORDS` rows plus one database transaction that registers the file and
indexes its rows (SQLite or Postgres, see `catalogs.databases`; the SQL here is one text for both). The file is durable
before the transaction commits, and readers only open registered files, so that a commit is seen whole or not at all.
Numbers are given out under the write lock. The files are the truth: a file whose writer died before its transaction
did is whole all the same, and the next writer takes it in before it adds its own; so a log that is lost, or older than
its files, is made again from them.
"""

import contextlib
import hashlib
import json
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.databases import Database, Row, Undo
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
from catalogs.stores import Store, hash_blocks
from schemas.canonical import hash_file
from schemas.errors import WorldlineError

# 2: artifacts.kind; 3: notes; 4: headings, hashes and copies of files. An older log is made anew from the Parquet files,
# which is every migration there is.
LOG_VERSION = 4
_SEGMENT_ROWS = 1_000_000  # larger segments are not merged again
_RETIRED_SECONDS = 600.0  # a query that listed its files before a merge may still open them for this long
_DOCUMENTS = ("code_files", "machine", "packages")  # equal in thousands of executions: kept once
# One row gains nothing from compression, dictionaries or statistics, and they cost 1 of 1.6 ms; segments have them.
_COMMIT_LAYOUT = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
_COPIED_BYTES = 16 << 20  # the database keeps the bytes of files up to this size, to write them again where they are damaged
_IDENTITY = "tables/workspace"  # the file that says which workspace a store belongs to

_SCHEMA = """
CREATE TABLE workspace (identity TEXT NOT NULL);
CREATE TABLE files (name TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL,
    sha256 TEXT NOT NULL);
CREATE INDEX files_last ON files (last);
CREATE TABLE copies (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE retired (name TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE documents (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE executions (key TEXT PRIMARY KEY, number INTEGER NOT NULL, stage TEXT NOT NULL, body TEXT NOT NULL,
    code_files INTEGER NOT NULL, machine INTEGER NOT NULL, packages INTEGER NOT NULL);
CREATE INDEX executions_stage ON executions (stage, number);
CREATE TABLE artifacts (digest TEXT PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX artifacts_kind ON artifacts (kind);
CREATE TABLE edges (digest TEXT, direction TEXT, key TEXT, slot TEXT,
    PRIMARY KEY (digest, direction, key, slot)) WITHOUT ROWID;
CREATE INDEX edges_key ON edges (key);
CREATE TABLE datasets (name TEXT, version INTEGER, number INTEGER NOT NULL, fingerprint TEXT NOT NULL, heading TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (name, version));
CREATE TABLE notes (record TEXT, subject TEXT, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (record, subject));
"""

INDEX_TABLES = ("documents", "executions", "artifacts", "edges", "datasets", "notes")  # all that the files say


class CommitLog:
    """The log of one workspace; any number of threads and processes may read and commit at once."""

    def __init__(self, home: Path, store: Store, database: Database) -> None:
        self.home = home
        self.tables = store.folder / "tables"
        self.store = store
        self.database = database
        self.rebuilt: str | None = None  # what was done where the log was missing or old
        with database.errors():
            if not self._ready():
                self._create()
            self._check_identity()
            self._check_order()

    def _ready(self) -> bool:
        """Return whether the log has the tables of this version; refuse one that is not ours or newer than us."""
        version = self.database.version()
        if version is not None and version > LOG_VERSION:
            raise WorldlineError(
                f"the log {self.database.where} was written by a newer Worldline (log version {version}, this one reads up to "
                f"{LOG_VERSION}): upgrade it"
            )
        return version == LOG_VERSION

    def _create(self) -> None:
        """Create the tables and fill them from the Parquet files of an earlier log, where there are any, in one transaction."""
        self.database.prepare()
        with self.database.transaction():
            if self._ready():
                return
            old = self.database.version()
            self.database.begin_schema(_SCHEMA.strip().removesuffix(";").split(";\n"), LOG_VERSION)
            self.database.execute("INSERT INTO workspace VALUES (?)", (self._claim_store(),))
            files = self._replay()
        if files:
            why = "missing" if old is None else "of an older version"
            self.rebuilt = f"the commit log {self.database.where} was {why} and was rebuilt from {files} files of records"

    def _claim_store(self) -> str:
        """Return whose store this is; a store that nobody has used yet becomes that of this log."""
        identity = uuid.uuid4().hex
        try:
            self._mark_store(identity, new=True)
        except FileExistsError:
            return self._stored_identity() or identity
        return identity

    def _stored_identity(self) -> str | None:
        try:
            return b"".join(self.store.blocks(_IDENTITY)).decode(errors="replace")
        except FileNotFoundError:
            return None

    def _mark_store(self, identity: str, *, new: bool = False) -> None:
        with self.store.new_file() as path:
            path.write_text(identity)
            self.store.place(path, _IDENTITY, new=new)

    def _check_identity(self) -> None:
        """Refuse a store that belongs to another log, before either is damaged; mark one again that has lost its mark."""
        ((identity,),) = self.database.execute("SELECT identity FROM workspace")
        stored = self._stored_identity()
        if stored == identity:
            return
        newest = self.database.execute("SELECT name, sha256 FROM files ORDER BY last DESC LIMIT 1")
        if self._holds(*newest[0]) if newest else stored is None:
            self._mark_store(identity)
            return
        raise WorldlineError(
            f"the log {self.database.where} and the store {self.store.address} belong to different workspaces: correct "
            f"`store` or `log` in {self.home / 'worldline.toml'}"
        )

    def _holds(self, name: str, sha256: str) -> bool:
        """Return whether the store has one of this log's files."""
        try:
            return hash_blocks(self.store.blocks(f"tables/{name}")) == sha256
        except FileNotFoundError:
            return False

    def _check_order(self) -> None:
        """Take in what lies beyond the log, and refuse where that can only be done by rebuilding it."""
        segments = [name for name in self.store.names("tables/segments/") if name.endswith(".parquet")]
        newest = max((span_of(name)[1] for name in segments), default=0)
        last = self._last()  # read after the listing, so that it is not older than a merge in progress
        if newest > last:
            raise WorldlineError(
                f"the log {self.database.where} ends with commit {last}, but the tables beside it go on to {newest} (was it "
                "restored from a backup?): `worldline repair` rebuilds it from them"
            )
        if self._is_there(last + 1):
            with self.write():
                pass

    def _replay(self) -> int:
        """Apply every Parquet file in commit order. Segments win over the commits that they were merged from."""
        spans = []
        for folder in ("tables/segments/", "tables/commits/"):
            for name in self.store.names(folder):
                if name.endswith(".parquet"):
                    first, last = span_of(name)
                    spans.append((first, -last, name))
        covered, files = 0, 0
        for first, minus_last, name in sorted(spans):
            if first <= covered:
                continue
            if first != covered + 1:
                raise WorldlineError(
                    f"the commit log cannot be rebuilt from {self.store.address}: the file of commit {covered + 1} is missing; "
                    "restore it from a backup"
                )
            self._take_in(name, first, -minus_last)
            covered, files = -minus_last, files + 1
        return files

    def _take_in(self, name: str, first: int, last: int) -> None:
        """Index the rows of a file that nothing has registered yet, and register it."""
        table, sha256 = self.read(name.removeprefix("tables/"))
        for row in table.to_pylist():
            _apply(self.database, row)
        self._register(name.removeprefix("tables/"), first, last, table.num_rows, sha256)
        self._keep_copy(name.removeprefix("tables/"), self.store.local(name).read_bytes())

    def _register(self, name: str, first: int, last: int, rows: int, sha256: str) -> None:
        self.database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", (name, first, last, rows, sha256))

    def _keep_copy(self, name: str, data: bytes) -> None:
        if len(data) <= _COPIED_BYTES:
            self.database.execute("INSERT INTO copies VALUES (?, ?)", (name, zlib.compress(data, 1)))

    def restore(self, name: str) -> bool:
        """Write a damaged or missing file of the log again from the copy in the database; return whether there was one.

        Raises:
            WorldlineError: if the copy is damaged too.
        """
        with self.database.errors(), self.database.transaction():
            query = "SELECT copies.body, files.sha256 FROM copies JOIN files USING (name) WHERE name = ?"
            found = self.database.execute(query, (name,))
            if not found:
                return False
            ((body, sha256),) = found
            with self.store.new_file() as path:
                with contextlib.suppress(zlib.error):
                    path.write_bytes(zlib.decompress(body))
                if hash_file(path) != sha256:
                    raise WorldlineError(f"tables/{name} is damaged, and so is its copy in {self.database.where}")
                self.store.place(path, f"tables/{name}")
        return True

    def _last(self) -> int:
        return int(self.database.execute("SELECT coalesce(max(last), 0) FROM files")[0][0])

    def _is_there(self, number: int) -> bool:
        """Return whether there is a file of this commit now (sizes may be remembered, times are not)."""
        return self.store.modified(_commit_file(number)) is not None

    def read(self, name: str, sha256: str | None = None) -> tuple[pa.Table, str]:
        """Return the rows of one of the log's Parquet files (columns that it lacks are null) and the SHA-256 of its bytes.

        Raises:
            WorldlineError: if it is missing, is not Parquet, or has not the bytes that were registered.
        """
        try:
            path = self.store.local(f"tables/{name}")
            found = hash_file(path)
            if sha256 is not None and found != sha256:
                raise WorldlineError(f"{path} is damaged: its bytes are not those that were recorded")
            return pq.read_table(path, schema=RECORDS), found
        except (pa.ArrowException, OSError) as error:
            raise WorldlineError(
                f"tables/{name} in {self.store.address} cannot be read ({error}): restore it from a backup"
            ) from error

    # -- writing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def write(self) -> Iterator["Commit"]:
        """Hold the write lock and collect rows; leaving the block commits them all, an exception none.

        Raises:
            WorldlineError: if the disk is full, the log damaged or not reachable, or the folder not writable; nothing is
                then recorded, unless the connection to Postgres broke in the very moment of committing.
        """
        with self.database.errors(), self.database.transaction() as undo:
            last = self._last()
            while self._is_there(last + 1):  # whole, but its writer died before its transaction
                last += 1
                self._take_in(_commit_file(last), last, last)
            commit = Commit(self.database, last + 1)
            yield commit
            if commit.rows:
                table = pa.Table.from_pylist(commit.rows, schema=RECORDS)
                sha256 = self._place(table, _commit_file(commit.number), _COMMIT_LAYOUT, undo)
                name = _commit_file(commit.number).removeprefix("tables/")
                self._register(name, commit.number, commit.number, len(commit.rows), sha256)

    def _place(self, table: pa.Table, name: str, layout: dict[str, Any], undo: Undo) -> str:
        """Write a file of the log that no other writer can have replaced, and return the SHA-256 of its bytes."""
        with pa.BufferOutputStream() as stream:
            pq.write_table(table, stream, **layout)
            data = stream.getvalue().to_pybytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self._keep_copy(name.removeprefix("tables/"), data)
        with self.store.new_file() as path:
            path.write_bytes(data)
            try:
                self.store.place(path, name, new=True)
            except FileExistsError as error:
                raise WorldlineError(
                    f"{name} was written by another host in the same moment (this one had lost the connection to "
                    f"{self.database.where}): run this again"
                ) from error
        undo.append(lambda: self.store.remove([name]))
        return sha256

    def compact(self, minimum: int = 100) -> int:
        """Merge commit files into a segment if there are at least `minimum`; return how many were merged.

        Segments of at most twice the rows join in, so that their number grows with the logarithm of the commits.
        Merged files stay for ten minutes, for queries that listed them before.
        """
        columns = "SELECT name, first, last, rows, sha256 FROM files"
        loose_query = f"{columns} WHERE name LIKE 'commits/%' ORDER BY first"
        if len(self.rows(loose_query)) < max(minimum, 1):
            return 0
        with self.database.errors(), self.database.transaction() as undo:
            loose = self.database.execute(loose_query)
            merged, rows = list(loose), sum(item[3] for item in loose)
            for segment in self.database.execute(f"{columns} WHERE name LIKE 'segments/%' ORDER BY first DESC"):
                if segment[3] > min(2 * rows, _SEGMENT_ROWS):
                    break
                merged.insert(0, segment)
                rows += segment[3]
            if loose:  # else another process was faster
                self._merge(merged, undo)
            query = "SELECT name FROM retired WHERE at < ?"
            stale = self.database.execute(query, (time.time() - _RETIRED_SECONDS,))
            self.database.execute_all("DELETE FROM retired WHERE name = ?", stale)
        self.store.remove([f"tables/{name}" for (name,) in stale])
        return len(loose)

    def _merge(self, files: list[Row], undo: Undo) -> None:
        first, last = files[0][1], files[-1][2]
        name = f"segments/{first:012d}-{last:012d}.parquet"
        table = pa.concat_tables([self.read(name, sha256)[0] for name, _, _, _, sha256 in files])
        for known in ("files", "copies"):
            self.database.execute_all(f"DELETE FROM {known} WHERE name = ?", [(name,) for name, *_ in files])
        merged, left = self._left_over_segments(name)
        if merged is None:
            sha256 = self._place(table, f"tables/{name}", {"compression": "zstd"}, undo)
        else:  # by a merger that died, or was cut off, before its transaction
            kept, sha256 = self.read(merged)
            self._keep_copy(merged, self.store.local(f"tables/{merged}").read_bytes())
            if not kept.equals(table):
                raise WorldlineError(f"tables/{merged} in {self.store.address} is damaged: delete it, nothing refers to it")
        self._register(name, first, last, table.num_rows, sha256)
        self.database.execute("DELETE FROM retired WHERE name = ?", (name,))
        retired = [(name, time.time()) for name in (*left, *(name for name, *_ in files))]
        self.database.execute_all("INSERT INTO retired VALUES (?, ?) ON CONFLICT (name) DO NOTHING", retired)

    def _left_over_segments(self, wanted: str) -> tuple[str | None, list[str]]:
        """Return the segment of this name and all others that are there and neither registered nor retired."""
        known = {name for (name,) in self.database.execute("SELECT name FROM files UNION SELECT name FROM retired")}
        names = [name.removeprefix("tables/") for name in self.store.names("tables/segments/")]
        return (wanted if wanted in names else None), [name for name in names if name not in known and name != wanted]

    def lease(self, *, exclusive: bool) -> contextlib.AbstractContextManager[bool]:
        """Hold the workspace for building (shared) or for removing what builds may need (exclusive), as long as the block lasts.

        Yields:
            Whether the lease was had: a shared one always (it waits), an exclusive one only if nobody builds.
        """
        return self.database.lease(exclusive=exclusive)

    # -- reading ---------------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Answer a question about the index from one consistent snapshot."""
        with self.database.errors():
            return self.database.execute(sql, parameters)

    def files(self) -> list[Path]:
        """Return the registered Parquet files in commit order."""
        return [self.store.local(f"tables/{name}") for (name,) in self.rows("SELECT name FROM files ORDER BY first")]

    def execution(self, key: str) -> Execution | None:
        """Return the visible execution of a key; failed ones are not in the index."""
        return _execution(self.database, key)

    def artifact(self, digest: str) -> ArtifactRef | None:
        """Return a recorded artifact by its full digest."""
        return _artifact(self.database, digest)

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
        return _note(self.database, record, subject)

    def notes(self, record: str) -> list[Note]:
        """Return the newest note of a kind on every subject, by subject."""
        query = "SELECT body FROM notes WHERE record = ? ORDER BY subject"
        return [read_note(json.loads(body)) for (body,) in self.rows(query, (record,))]


class Commit:
    """Rows being recorded under the write lock."""

    def __init__(self, database: Database, number: int) -> None:
        self.number = number
        self.rows: list[Record] = []
        self._database = database

    def append(self, row: Record) -> Record:
        """Add a row to the commit and to the index; return it with its commit number and time."""
        row = {**dict.fromkeys(RECORDS.names), **row, "commit": self.number, "recorded_at": time.time()}
        self.rows.append(row)
        _apply(self._database, row)
        return row

    def execution(self, key: str) -> Execution | None:
        """Return the visible execution of a key as of this commit."""
        return _execution(self._database, key)

    def artifact(self, digest: str) -> ArtifactRef | None:
        """Return an artifact as of this commit."""
        return _artifact(self._database, digest)

    def note(self, record: str, subject: str) -> Note | None:
        """Return the newest note of a kind on a subject as of this commit."""
        return _note(self._database, record, subject)

    def latest(self, name: str) -> tuple[DatasetVersion, str] | None:
        """Return the latest version of a dataset and its fingerprint."""
        query = "SELECT body, fingerprint FROM datasets WHERE name = ? ORDER BY version DESC LIMIT 1"
        found = self._database.execute(query, (name,))
        return (read_dataset(json.loads(found[0][0])), found[0][1]) if found else None


def _commit_file(number: int) -> str:
    return f"tables/commits/{number:012d}.parquet"


def span_of(name: str) -> tuple[int, int]:
    """Return the first and last commit of a file by its name."""
    begin, _, end = Path(name).stem.partition("-")
    return int(begin), int(end or begin)


def _apply(database: Database, row: Record) -> None:
    """Index one row; the rule is the same when it is recorded and when a lost log is rebuilt."""
    number, outputs = row["commit"], row["outputs"] or []
    match row["record"]:
        case "execution":
            edges = [(item["digest"], "in", row["key"], item["slot"]) for item in row["inputs"]]
            edges += [(item["digest"], "out", row["key"], item["slot"]) for item in outputs]
            database.execute("DELETE FROM edges WHERE key = ?", (row["key"],))
            database.execute_all("INSERT INTO edges VALUES (?, ?, ?, ?)", edges)
            documents = [(_document_id(row[name]), row[name]) for name in _DOCUMENTS]
            database.execute_all("INSERT INTO documents VALUES (?, ?) ON CONFLICT (id) DO NOTHING", documents)
            body = {name: value for name, value in row.items() if value is not None and name not in _DOCUMENTS}
            values = (row["key"], number, row["stage"], json.dumps(body, ensure_ascii=False), *(id_ for id_, _ in documents))
            database.execute(_EXECUTION, values)
        case "source":
            pass
        case "dataset":
            body = {name: value for name, value in row.items() if value is not None}
            database.execute(
                "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?)",
                (
                    row["dataset"],
                    row["dataset_version"],
                    number,
                    row["fingerprint"],
                    json.dumps(heading_row(row), ensure_ascii=False),
                    json.dumps(body, ensure_ascii=False),
                ),
            )
            return
        case note if note in NOTES:
            body = {name: value for name, value in row.items() if value is not None}
            database.execute(_NOTE, (note, row["subject"], number, json.dumps(body, ensure_ascii=False)))
            if note == "removal":
                _remove(database, json.loads(row["body"]))
            return
        case _:  # errors and drift are told by queries; the index never offers them
            return
    artifacts = {item["digest"]: (item["digest"], number, item["kind"], json.dumps(item, ensure_ascii=False)) for item in outputs}
    database.execute_all(_ARTIFACT, list(artifacts.values()))


def _replacing(table: str, key: str, *columns: str) -> str:
    """Return an INSERT that replaces the row with the same key."""
    marks = ", ".join("?" * (len(columns) + key.count(",") + 1))
    kept = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {kept}"


_EXECUTION = _replacing("executions", "key", "number", "stage", "body", *_DOCUMENTS)
_ARTIFACT = _replacing("artifacts", "digest", "number", "kind", "body")
_NOTE = _replacing("notes", "record, subject", "number", "body")


def _remove(database: Database, removed: dict[str, list[str]]) -> None:
    """Forget artifacts and executions; they may be recorded again later."""
    keys, digests = [(key,) for key in removed["keys"]], [(digest,) for digest in removed["digests"]]
    database.execute_all("DELETE FROM executions WHERE key = ?", keys)
    database.execute_all("DELETE FROM edges WHERE key = ?", keys)
    database.execute_all("DELETE FROM artifacts WHERE digest = ?", digests)


def _document_id(body: str) -> int:
    """Name a document by 63 bits of its hash: no look-up when it is recorded, and none of its length in an index."""
    return int.from_bytes(hashlib.sha256(body.encode()).digest()[:8], "big") >> 1


def _execution(database: Database, key: str) -> Execution | None:
    query = (
        "SELECT e.body, c.body, m.body, p.body FROM executions e JOIN documents c ON c.id = e.code_files "
        "JOIN documents m ON m.id = e.machine JOIN documents p ON p.id = e.packages WHERE e.key = ?"
    )
    found = database.execute(query, (key,))
    if not found:
        return None
    documents = dict(zip(_DOCUMENTS, found[0][1:], strict=True))
    return read_execution({**dict.fromkeys(RECORDS.names), **json.loads(found[0][0]), **documents})


def _artifact(database: Database, digest: str) -> ArtifactRef | None:
    found = database.execute("SELECT body FROM artifacts WHERE digest = ?", (digest,))
    return read_output(json.loads(found[0][0])) if found else None


def _note(database: Database, record: str, subject: str) -> Note | None:
    found = database.execute("SELECT body FROM notes WHERE record = ? AND subject = ?", (record, subject))
    return read_note(json.loads(found[0][0])) if found else None
