"""Many processes commit at once: how many commits a second, beside simpler things, and whether each one is there and whole."""

import hashlib
import multiprocessing
import os
import sqlite3
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Figure, figure

PROCESSES, COMMITS, ROWS = 8, 50, 20
ASKED = 100.0  # commits per second


@dataclass(frozen=True)
class Burst:
    """What some processes did at once.

    Attributes:
        wall_s: from their common start to the end of the last one.
        waits_s: seconds of every commit.
        acknowledged: names of the commits that returned.
        errors: one line for every commit that raised.
    """

    wall_s: float
    waits_s: list[float]
    acknowledged: list[str]
    errors: list[str]

    @property
    def per_second(self) -> float:
        """Acknowledged commits per second."""
        return len(self.acknowledged) / self.wall_s

    def __str__(self) -> str:
        p50, p95 = (1000 * float(np.percentile(self.waits_s, q)) for q in (50, 95))
        return f"{self.per_second:.0f}/s (p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {1000 * max(self.waits_s):.0f} ms)"


def name_of(worker: int, index: int) -> str:
    """Return the name of one commit."""
    return f"{worker}/{index}"


# A writer opens its place before the start and then yields one call per commit.
Writer = Callable[[Path, int, int], list[tuple[str, Callable[[], Any]]]]


def commit_artifacts(home: Path, worker: int, commits: int) -> list[tuple[str, Callable[[], Any]]]:
    """Put an artifact of 20 rows and record the execution that made it: what a stage's end costs."""
    from benchmarks.toys import toy_execution, toy_figures
    from catalogs.catalog import Catalog

    catalog = Catalog.open(home)

    def commit(number: int, name: str) -> None:
        with catalog.scratch_folder() as scratch:
            ref = catalog.put(toy_figures(number, ROWS), scratch)
            catalog.record(toy_execution(name, (ref,)))

    return [(name_of(worker, i), _call(commit, worker * 100_000 + i, name_of(worker, i))) for i in range(commits)]


def commit_records(home: Path, worker: int, commits: int) -> list[tuple[str, Callable[[], Any]]]:
    """Record executions whose artifacts were put before the start."""
    from benchmarks.toys import toy_execution, toy_figures
    from catalogs.catalog import Catalog

    catalog = Catalog.open(home)
    steps = []
    with catalog.scratch_folder() as scratch:
        for index in range(commits):
            ref = catalog.put(toy_figures(worker * 100_000 + index, ROWS), scratch)
            steps.append((name_of(worker, index), _call(catalog.record, toy_execution(name_of(worker, index), (ref,)))))
    return steps


def commit_to_sqlite(home: Path, worker: int, commits: int) -> list[tuple[str, Callable[[], Any]]]:
    """Insert the same rows into one SQLite table, durably (WAL, synchronous FULL), and no Parquet file, object or index."""
    connection = sqlite3.connect(home / "rows.sqlite", timeout=120.0, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (commit_name TEXT, name TEXT, value REAL, unit TEXT, detail TEXT)")

    def commit(number: int, name: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", [(name, *row) for row in _rows(number)])
        connection.execute("COMMIT")

    return [(name_of(worker, i), _call(commit, worker * 100_000 + i, name_of(worker, i))) for i in range(commits)]


def commit_to_folder(home: Path, worker: int, commits: int) -> list[tuple[str, Callable[[], Any]]]:
    """Write the same rows as one durable Parquet file each into a folder, without any log."""

    def commit(number: int, name: str) -> None:
        columns: list[Any] = [list(column) for column in zip(*_rows(number), strict=True)]
        table = pa.table(dict(zip(("name", "value", "unit", "detail"), columns, strict=True)))
        path = home / f"{hashlib.sha256(name.encode()).hexdigest()}.parquet"
        with path.with_suffix(".tmp").open("wb") as stream:
            pq.write_table(table, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path.with_suffix(".tmp"), path)
        descriptor = os.open(home, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    return [(name_of(worker, i), _call(commit, worker * 100_000 + i, name_of(worker, i))) for i in range(commits)]


def _rows(number: int) -> list[tuple[str, float, str, str]]:
    values = np.random.default_rng(number).normal(size=ROWS)
    return [(f"figure.{index:03d}", float(value), "m", "") for index, value in enumerate(values)]


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def burst(writer: Writer, home: Path, processes: int, commits: int) -> Burst:
    """Let some processes commit at once; what a commit raises is counted and the next one tried."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes + 1), context.Queue()
    workers = [context.Process(target=_work, args=(writer, home, number, commits, start, results)) for number in range(processes)]
    for worker in workers:
        worker.start()
    start.wait(300)
    began = time.perf_counter()
    gathered = [results.get(timeout=600) for _ in workers]
    wall = max(ended for *_, ended in gathered) - began
    for worker in workers:
        worker.join()
    waits, acknowledged, errors = ([item for found in gathered for item in found[column]] for column in range(3))
    return Burst(wall, waits, acknowledged, errors)


def _work(writer: Writer, home: Path, worker: int, commits: int, start: Any, results: Any) -> None:
    steps = writer(home, worker, commits)
    start.wait(300)
    waits, acknowledged, errors = [], [], []
    for name, commit in steps:
        began = time.perf_counter()
        try:
            commit()
        except Exception:
            errors.append(f"{name}: {traceback.format_exc().strip().splitlines()[-1]}")
        else:
            acknowledged.append(name)
        waits.append(time.perf_counter() - began)
    results.put((waits, acknowledged, errors, time.perf_counter()))  # one clock for all processes of a host


def measure_commits(folder: Path, quick: bool) -> list[Figure]:
    """Measure put + record by 8 processes at once, what each half takes, and two simpler things beside it."""
    homes = {name: folder / name for name in ("catalog", "records", "sqlite", "files")}
    for home in homes.values():
        home.mkdir()
    _create(homes["catalog"])
    _create(homes["records"])
    full = burst(commit_artifacts, homes["catalog"], PROCESSES, COMMITS)
    records = burst(commit_records, homes["records"], PROCESSES, COMMITS)
    rows = burst(commit_to_sqlite, homes["sqlite"], PROCESSES, COMMITS)
    files = burst(commit_to_folder, homes["files"], PROCESSES, COMMITS)
    detail = f"{PROCESSES} processes x {COMMITS} commits of {ROWS} rows. put + record {full}; record alone {records}"
    peers = f"{ASKED:.0f}/s asked; SQLite rows alone {rows}; a folder of Parquet files without a log {files}"
    return [figure("catalog.commits_per_s", full.per_second, "1/s", peers, detail), *count_losses(homes["catalog"], full)]


def measure_s3(folder: Path, quick: bool) -> list[Figure]:
    """Measure put + record by several processes at once with the log in Postgres and the objects in an S3 server."""
    from benchmarks import servers

    os.environ.update(servers.S3_CREDENTIALS)
    processes, commits = (4, 10) if quick else (8, 50)
    home, data, bucket = folder / "home", folder / "postgres", folder / "s3"
    for place in (home, data, bucket):
        place.mkdir()
    with servers.postgres_server(data) as database, servers.s3_server(bucket) as endpoint:
        servers.make_bucket(endpoint, "bench")
        (home / "worldline.toml").write_text(servers.workspace_settings(database, endpoint, "bench"))
        _create(home)
        done = burst(commit_artifacts, home, processes, commits)
        rate = figure(
            "catalog.s3.commits_per_s",
            done.per_second,
            "1/s",
            "right at any rate asked; SQLite and a local folder: catalog.commits_per_s",
            f"{processes} processes x {commits} commits of {ROWS} rows, Postgres and moto's S3 server (one Python process) on "
            f"this host: put + record {done}",
        )
        return [rate, *count_losses(home, done, "catalog.s3", processes * commits)]


def _create(home: Path) -> None:
    from catalogs.catalog import Catalog

    Catalog.open(home)


def count_losses(home: Path, done: Burst, prefix: str = "catalog", total: int = PROCESSES * COMMITS) -> list[Figure]:
    """Return how many acknowledged commits are not there, are there in part, and how many raised, with the first of each."""
    from benchmarks.toys import toy_execution
    from catalogs.catalog import Catalog
    from catalogs.upkeep import verify

    catalog = Catalog.open(home)
    found = {name: catalog.find(toy_execution(name, ()).key) for name in done.acknowledged}
    lost = [name for name, execution in found.items() if execution is None]
    counted = catalog.sql("SELECT artifact, count(DISTINCT name) AS rows FROM metrics GROUP BY artifact").to_pylist()
    rows = {row["artifact"]: row["rows"] for row in counted}
    whole = [name for name, execution in found.items() if execution and rows.get(execution.outputs[0].digest) == ROWS]
    partial = sorted(set(done.acknowledged) - set(whole) - set(lost))
    partial += [f"verify: {finding}" for finding in verify(catalog)]
    of = f"of {len(done.acknowledged)} acknowledged commits of {total}"
    return [
        figure(f"{prefix}.lost", len(lost), "commits", "0 asked", f"{of}{_first(lost)}"),
        figure(f"{prefix}.partial", len(partial), "commits", "0 asked", f"{of}; every one has its {ROWS} rows{_first(partial)}"),
        figure(f"{prefix}.caller_errors", len(done.errors), "errors", "0 asked", f"of {total} commits{_first(done.errors)}"),
    ]


def _first(items: list[str]) -> str:
    return f"; the first: {items[0]}" if items else ""
