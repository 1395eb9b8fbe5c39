"""The two databases that the commit log can live in, behind the few functions that it needs of one.

SQLite serves one host: WAL, `BEGIN IMMEDIATE`, and a queue of `flock`s in which writers wait without polling.
Postgres serves many: an advisory lock of the transaction is the write lock, advisory locks of a session are the
leases, so that the server takes back what a killed process held. The log's SQL is one text for both, with `?` for
parameters; what differs is here. SQLite is used without SQLAlchemy in between: a lookup by key costs 4 microseconds
of its own, 15 to 50 with it, and importing it as much as all else that a look into the catalog imports.
"""

import contextlib
import fcntl
import os
import re
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from catalogs.leases import release
from catalogs.workspace import check_file_system
from schemas.errors import WorldlineError

Row = tuple[Any, ...]
Undo = list[Callable[[], None]]
_APPLICATION_ID = 0x57444C4E  # "WDLN"
_WRITING, _BUILDING = 1, 2  # second numbers of Postgres' advisory locks


class Database(Protocol):
    """A database that holds one log. Any number of threads and processes may use it at once."""

    where: str  # how messages name it

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and return its rows, seen from one snapshot; outside `transaction` it commits by itself."""

    def execute_all(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""

    def transaction(self) -> contextlib.AbstractContextManager[Undo]:
        """Hold the write lock; commit at the end, or roll back on an exception.

        Yields a list: what is put there is called, with the lock still held, where it is sure that nothing was committed.
        """

    def lease(self, *, exclusive: bool) -> contextlib.AbstractContextManager[bool]:
        """Hold the right to build (shared: waits) or to remove (exclusive: yields whether it was free) within the block."""

    def version(self) -> int | None:
        """Return the version of the log in it, or None where it is empty; raise a `WorldlineError` if it is not a log."""

    def prepare(self) -> None:
        """Choose what cannot be chosen within a transaction, before the tables are created."""

    def begin_schema(self, statements: Sequence[str], version: int) -> None:
        """Drop what a log of another version left and create the tables, within `transaction`."""

    def set_aside(self) -> str:
        """Keep a damaged log under another name, so that the next use starts with an empty one; return the name."""

    def check(self) -> str | None:
        """Return what the database itself finds wrong with its storage, or None."""

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Turn what the disk or the server refuses within the block into one sentence."""


def open_database(home: Path, url: str | None) -> Database:
    """Open the database at a Postgres URL, or the SQLite file of the folder.

    Raises:
        WorldlineError: if it cannot be reached or used.
    """
    if url is not None:
        return Postgres(url)
    check_file_system(home)
    return Sqlite(home / "catalog.sqlite", home)


class Sqlite:
    """The log in one file on a local disk (":memory:" for one that is only compared with)."""

    def __init__(self, path: Path, locks: Path) -> None:
        self.path = path
        self.where = str(path)
        self._queue_path = locks / "catalog.lock"
        self._leases_path = locks / "builds.lock"
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection; one from before a fork is left alone, as SQLite demands."""
        if getattr(self._local, "owner", None) != os.getpid():
            connection = sqlite3.connect(self.path, timeout=120.0, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection, self._local.owner = connection, os.getpid()
        connection = self._local.connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement."""
        return self._connection().execute(sql, parameters).fetchall()

    def execute_all(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        self._connection().executemany(sql, parameters)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Undo]:
        """Hold the write lock; commit at the end, or roll back."""
        connection, undo = self._connection(), Undo()
        with self._turn():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield undo
                self.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # else it was committed
                    for action in undo:
                        action()
                    self.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait in line for the write lock: the kernel wakes the next one at once, SQLite's own waiting sleeps and retries."""
        descriptor = os.open(self._queue_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            release(descriptor)

    @contextlib.contextmanager
    def lease(self, *, exclusive: bool) -> Iterator[bool]:
        """Hold the right to build or to remove."""
        descriptor = os.open(self._leases_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
            held = True
        except BlockingIOError:
            held = False
        try:
            yield held
        finally:
            release(descriptor)

    def version(self) -> int | None:
        """Return the version of the log, or None where there is none."""
        with self._snapshot():
            ((version,),) = self.execute("PRAGMA user_version")
            ((application,),) = self.execute("PRAGMA application_id")
            if version == 0 and application == 0 and not self.execute("SELECT 1 FROM sqlite_master LIMIT 1"):
                return None
            if application != _APPLICATION_ID:
                if self.execute("SELECT 1 FROM sqlite_master WHERE name = 'executions_stage'"):
                    raise sqlite3.DatabaseError("its header has changed")
                raise WorldlineError(f"{self.path} was not made by Worldline: choose another workspace folder with --home")
            if self.execute("SELECT 1 FROM sqlite_master WHERE name = 'log'") and self.execute("SELECT version FROM log") != [
                (version,)
            ]:
                raise sqlite3.DatabaseError("its header has changed")  # one flipped bit is not a newer version
            return int(version)

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Read several things as of one moment: another process may be creating the log between them."""
        connection = self._connection()
        if connection.in_transaction:
            yield
            return
        self.execute("BEGIN")
        try:
            yield
        finally:
            if connection.in_transaction:
                self.execute("ROLLBACK")

    def prepare(self) -> None:
        """Choose write-ahead logging."""
        with self._turn():
            self.execute("PRAGMA journal_mode = WAL")

    def begin_schema(self, statements: Sequence[str], version: int) -> None:
        """Replace all tables."""
        for (name,) in self.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
            self.execute(f"DROP TABLE {name}")
        for statement in statements:
            self.execute(statement)
        self.execute("CREATE TABLE log (version INTEGER)")
        self.execute("INSERT INTO log VALUES (?)", (version,))
        self.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self.execute(f"PRAGMA user_version = {version}")

    def set_aside(self) -> str:
        """Rename the log."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
        with self._turn():
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        self._local = threading.local()
        return str(aside)

    def check(self) -> str | None:
        """Return what is wrong with the storage."""
        try:
            found = self.execute("PRAGMA integrity_check(1)")
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if found == [("ok",)] else str(found[0][0])

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what is refused into one sentence."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # defects of ours
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_ERROR":  # wrong SQL: a defect of ours
                raise
            raise WorldlineError(
                f"the catalog {self.path} could not be used ({error}): check that its disk has space and that its folder can "
                "be written"
            ) from error
        except sqlite3.DatabaseError as error:
            raise WorldlineError(
                f"the commit log {self.path} is damaged ({error}): `worldline repair` keeps it aside and rebuilds it from the "
                "tables beside it"
            ) from error
        except OSError as error:
            raise WorldlineError(f"the catalog {self.path} could not be written ({error.strerror or error})") from error


class Postgres:
    """The log in the schema `worldline` of a Postgres database, one workspace per database."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        unknown = sorted(set(query) - {"host", "port", "sslmode"})
        if unknown:
            raise WorldlineError(
                f"{url}: {unknown[0]} is not understood after the question mark: there are host, port and sslmode"
            )
        self._host, self._port = parts.hostname or query.get("host") or "localhost", parts.port or int(query.get("port", 5432))
        self._user = unquote(parts.username or os.environ.get("PGUSER") or "postgres")
        self._database = unquote(parts.path.strip("/"))
        self._encryption = query.get("sslmode", "disable")
        self.where = f"{self._database} on {self._host}:{self._port}"
        self._local = threading.local()

    def _connect(self) -> Any:
        import pg8000.dbapi  # 60 ms that a workspace with SQLite does not pay

        secure = None
        if self._encryption != "disable":
            secure = ssl.create_default_context()
            if self._encryption == "require":  # encrypted, and as in libpq the server's name is not checked
                secure.check_hostname, secure.verify_mode = False, ssl.CERT_NONE
        password = os.environ.get("PGPASSWORD")  # read at each connection, so that none is kept or pickled
        connection = pg8000.dbapi.connect(
            self._user, database=self._database, password=password, ssl_context=secure, sock=self._socket(),
            host=None, application_name="worldline",
        )  # fmt: skip
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            "SET search_path = worldline; SET synchronous_commit = on; SET lock_timeout = '300s'; "
            # a host that vanished gives its locks back after a minute, not after the two hours of TCP's default
            "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
        )
        return connection

    def _socket(self) -> socket.socket:
        """Connect within 30 s; afterwards an answer may take long (a lock), but a server that vanished is noticed."""
        if self._host.startswith("/"):
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return connected
        connected = socket.create_connection((self._host, self._port), timeout=30.0)
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connected

    def _connection(self) -> Any:
        if getattr(self._local, "owner", None) != os.getpid():
            self._local.connection, self._local.owner, self._local.writing = self._connect(), os.getpid(), False
        return self._local.connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement."""
        import pg8000.exceptions

        for attempt in (1, 2):
            connection = self._connection()
            try:
                return _run(connection, sql, parameters)
            except pg8000.exceptions.DatabaseError:
                raise  # an answer
            except BaseException as error:  # no answer, or one of which the rest is still on its way
                in_transaction = self._local.writing
                self._forget()
                if in_transaction or attempt == 2 or not isinstance(error, pg8000.exceptions.InterfaceError | OSError):
                    raise  # else the server was restarted between two questions: ask once more
        raise AssertionError("unreachable")

    def execute_all(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        head, values, tail = _split_values(sql)
        step = 1 if values is None else max(1, 30_000 // max(1, len(parameters[0]) if parameters else 1))
        for start in range(0, len(parameters), step):
            rows = parameters[start : start + step]
            text = sql if values is None else f"{head}{', '.join([values] * len(rows))}{tail}"
            self.execute(text, [value for row in rows for value in row])

    def _forget(self) -> None:
        with contextlib.suppress(Exception):
            self._local.connection.close()
        self._local.owner = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Undo]:
        """Hold the write lock; commit at the end, or roll back."""
        undo = Undo()
        self.execute("BEGIN ISOLATION LEVEL READ COMMITTED")  # later ones take their snapshot before they wait for the lock
        self._local.writing = True
        try:
            self.execute("SELECT pg_advisory_xact_lock(?, ?)", (_APPLICATION_ID, _WRITING))
            try:
                yield undo
            except BaseException:
                if self._still_connected():  # then the lock is still ours too
                    for action in undo:
                        action()
                    self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")  # where this fails, nobody knows whether it happened: nothing is undone
        finally:
            if getattr(self._local, "owner", None) == os.getpid():
                self._local.writing = False

    def _still_connected(self) -> bool:
        """Return whether the server answers on this connection, be it that the transaction has failed."""
        import pg8000.exceptions

        try:
            if getattr(self._local, "owner", None) != os.getpid():
                return False
            self.execute("SELECT 1")
        except pg8000.exceptions.DatabaseError as error:
            return _code(error) == "25P02"  # it answers that the transaction is aborted
        except (pg8000.exceptions.InterfaceError, OSError):
            return False
        return True

    @contextlib.contextmanager
    def lease(self, *, exclusive: bool) -> Iterator[bool]:
        """Hold the right to build or to remove."""
        connection = self._connect()  # one of its own: the lock lives and dies with the session
        key = (_APPLICATION_ID, _BUILDING)
        try:
            if exclusive:
                ((held,),) = _run(connection, "SELECT pg_try_advisory_lock(?, ?)", key)
            else:
                _run(connection, "SELECT pg_advisory_lock_shared(?, ?)", key)
                held = True
            yield bool(held)
        finally:
            connection.close()

    def version(self) -> int | None:
        """Return the version of the log, or None where there is none."""
        tables = {name for (name,) in self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'worldline'")}
        if not tables:
            return None
        if "log" not in tables:
            raise WorldlineError(f"the schema worldline in {self.where} was not made by Worldline: choose another database")
        return int(self.execute("SELECT version FROM log")[0][0])

    def begin_schema(self, statements: Sequence[str], version: int) -> None:
        """Replace all tables."""
        for statement in (
            "DROP SCHEMA IF EXISTS worldline CASCADE",
            "CREATE SCHEMA worldline",
            "CREATE TABLE log (version BIGINT)",
        ):
            self.execute(statement)
        for statement in statements:
            self.execute(_for_postgres(statement))
        self.execute("INSERT INTO log VALUES (?)", (version,))

    def set_aside(self) -> str:
        """Rename the log."""
        aside = f"worldline_damaged_{time.strftime('%Y%m%dT%H%M%S').lower()}"
        with self.transaction():
            self.execute(f"ALTER SCHEMA worldline RENAME TO {aside}")
        return f"the schema {aside} in {self.where}"

    def check(self) -> str | None:
        """Return what is wrong with the storage."""
        return None  # the server checks its own storage

    def prepare(self) -> None:
        """There is nothing to choose."""

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what is refused into one sentence."""
        import pg8000.exceptions

        try:
            yield
        except pg8000.exceptions.InterfaceError as error:
            raise WorldlineError(
                f"the database {self.where} cannot be reached ({error}): check that the server runs and run this again; what "
                "was recorded before stays"
            ) from error
        except pg8000.exceptions.DatabaseError as error:
            code, said = _code(error), error.args[0].get("M", error) if isinstance(error.args[0], dict) else error
            if code[:2] in ("22", "23", "42") and code != "42501":
                raise  # defects of ours
            raise WorldlineError(f"the database {self.where} refused ({said}): put that right and run this again") from error
        except (TimeoutError, ConnectionError) as error:
            raise WorldlineError(
                f"the database {self.where} cannot be reached, or the connection broke ({error}): check that the server runs and "
                "run this again"
            ) from error
        except OSError as error:
            raise WorldlineError(f"the catalog in {self.where} could not be written ({error.strerror or error})") from error


def _run(connection: Any, sql: str, parameters: Sequence[Any]) -> list[Row]:
    cursor = connection.cursor()
    cursor.execute(_placeholders(sql) if parameters else sql, tuple(parameters))
    return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


@lru_cache(maxsize=512)
def _placeholders(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=512)
def _split_values(sql: str) -> tuple[str, str | None, str]:
    """Split "INSERT INTO t VALUES (?, ?) ..." around its row of values."""
    found = re.fullmatch(r"(INSERT INTO .*?VALUES )(\([?, ]+\))(.*)", sql, re.DOTALL)
    return (found.group(1), found.group(2), found.group(3)) if found else (sql, None, "")


def _for_postgres(statement: str) -> str:
    """Return a CREATE statement written for SQLite in Postgres' words; text compares by code point, as in SQLite."""
    for sqlite, postgres in (
        (r" WITHOUT ROWID", ""),
        (r"\bBLOB\b", "BYTEA"),
        (r"\bINTEGER\b", "BIGINT"),
        (r"\bREAL\b", "DOUBLE PRECISION"),
    ):
        statement = re.sub(sqlite, postgres, statement)
    return re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', statement)


def _code(error: Exception) -> str:
    """Return the five characters by which Postgres names an error."""
    said = error.args[0] if error.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""
