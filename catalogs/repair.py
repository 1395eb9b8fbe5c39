"""Bringing back a commit log that is lost, damaged or older than its files.

The log's Parquet files and its database hold the same records twice: each is made again from the other.
"""

import contextlib
import hashlib
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from catalogs.databases import Database, Sqlite, open_database
from catalogs.log import INDEX_TABLES, CommitLog, span_of
from catalogs.stores import Store, hash_blocks, open_store
from catalogs.workspace import read_settings
from schemas.errors import WorldlineError


def repair(home: Path) -> list[str]:
    """Write bad record files again from the database, and the database from the record files where that is bad.

    A damaged database is kept under another name. Nothing is changed where neither can be made from the other.

    Args:
        home: the workspace's folder; it need not be possible to open it as a catalog.

    Returns:
        What was done, one sentence each; empty where nothing was wrong.

    Raises:
        WorldlineError: if the log belongs to another tool or a newer version, something builds in the workspace, or
            records are lost.
    """
    home = home.expanduser().resolve()
    settings = read_settings(home)
    store, database = open_store(home, settings), open_database(home, settings.log)
    with database.errors(), database.lease(exclusive=True) as alone:
        if not alone:
            raise WorldlineError(f"{home} cannot be repaired while something builds in it: wait for it to end, or stop it")
        wrong, done = _damage(database), list[str]()
        if wrong is None:
            wrong = _older_than_files(database, store)
        if wrong is None:
            log = CommitLog(home, store, database)  # makes a missing one by itself
            done += [log.rebuilt] if log.rebuilt else []
            done += [f"{name} was {state} and was written again" for name, state in bad_files(log) if _restored(log, name)]
            wrong = index_difference(log)
        if wrong is not None:
            with _replayed(home, store):  # raises where a file is missing or damaged, before anything is changed
                pass
            done.append(f"the log {database.where} was damaged ({wrong}) and is kept as {database.set_aside()}")
            log = CommitLog(home, store, open_database(home, settings.log))
            done += [log.rebuilt] if log.rebuilt else []
    return done


def bad_files(log: CommitLog) -> list[tuple[str, str]]:
    """Return every registered file of the log that is "damaged" or "missing", by its name in the store."""
    bad = []
    for name, sha256 in log.rows("SELECT name, sha256 FROM files ORDER BY first"):
        try:
            found = hash_blocks(log.store.blocks(f"tables/{name}"))
            if found not in (sha256, _hash_of_copy(log, name)):  # where file and copy agree, it is the log that errs
                bad.append((f"tables/{name}", "damaged"))
        except FileNotFoundError:
            bad.append((f"tables/{name}", "missing"))
    return bad


def index_difference(log: CommitLog) -> str | None:
    """Compare the database with what its files say; return the first difference, or None. Nobody can write meanwhile.

    Raises:
        WorldlineError: if a file is missing or damaged.
    """
    with log.write():  # which first takes in what a dead writer left
        wrong = log.database.check()
        if wrong is not None:
            return wrong
        end = 0
        for name, first, last in log.database.execute("SELECT name, first, last FROM files ORDER BY first"):
            if (first, last) != span_of(name) or first != end + 1:
                return f"the place of {name} is not what its name says"
            end = last
        for name, sha256 in log.database.execute("SELECT name, sha256 FROM files JOIN copies USING (name)"):
            if _hash_of_copy(log, name) != sha256:
                return f"its copy of {name} is not what was recorded"
        with _replayed(log.home, log.store) as fresh:
            for table in INDEX_TABLES:
                query = f"SELECT * FROM {table}"
                found, expected = set(log.database.execute(query)), set(fresh.database.execute(query))
                if found != expected:
                    odd = min(found ^ expected, key=repr)
                    return f"{table} {str(odd[0])[:40]} is not what the files say"
    return None


def _hash_of_copy(log: CommitLog, name: str) -> str | None:
    """Return the SHA-256 of the file that the database keeps a copy of, or None where there is none or it is damaged."""
    for (body,) in log.database.execute("SELECT body FROM copies WHERE name = ?", (name,)):
        with contextlib.suppress(zlib.error):
            return hashlib.sha256(zlib.decompress(body)).hexdigest()
    return None


def _damage(database: Database) -> str | None:
    """Return what makes the database unusable, or None; a foreign or newer one raises."""
    try:
        database.version()
    except sqlite3.DatabaseError as error:
        return str(error)
    return database.check()


def _older_than_files(database: Database, store: Store) -> str | None:
    """Return why the log cannot have registered all that lies in the store, or None."""
    if database.version() is None:
        return None
    newest = max((span_of(name)[1] for name in store.names("tables/segments") if name.endswith(".parquet")), default=0)
    ((last,),) = database.execute("SELECT coalesce(max(last), 0) FROM files")
    return f"it ends with commit {last}, its files with {newest}" if newest > last else None


def _restored(log: CommitLog, name: str) -> bool:
    if not log.restore(name.removeprefix("tables/")):
        raise WorldlineError(f"{name} in {log.store.address} is damaged and too large for a copy: restore it from a backup")
    return True


@contextlib.contextmanager
def _replayed(home: Path, store: Store) -> Iterator[CommitLog]:
    """Make a log in memory from the files of a store."""
    with tempfile.TemporaryDirectory() as locks:
        yield CommitLog(home, store, Sqlite(Path(":memory:"), Path(locks)))
