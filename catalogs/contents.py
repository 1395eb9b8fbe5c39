"""What a set of artifacts holds, in numbers: rows by table, labels by kind and answer, figures."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from catalogs.lineage import read_artifacts as artifact_refs
from catalogs.records import ArtifactRef, DatasetVersion
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    import duckdb

    from catalogs.catalog import Catalog

_FETCHED_AT_ONCE = 16
# table -> (kind, part): the tables of which a version's rows are counted
COUNTED = {
    "labels": ("Questions", "rows.parquet"),
    "kinematics": ("Kinematics", "states.parquet"),
    "windows": ("Kinematics", "windows.parquet"),
    "tracks": ("Tracks", "samples.parquet"),
    "objects": ("Tracks", "objects.parquet"),
    "metrics": ("Metrics", "figures.parquet"),
}
# Numbers as answers are told apart by their magnitude (up to 1, 2, 5, 10, 20, ...), because "36.2 km/h" occurs once.
_TOLD = "answer_value IS NULL OR answer_unit = 'o''clock'"  # words, and the hours of a clock
_BINNED = f"""
    SELECT *, CASE WHEN {_TOLD} THEN coalesce(answer, '')
        WHEN abs(answer_value) < 0.5 THEN format('-0.5 to 0.5 {{}}', answer_unit)
        WHEN answer_value > 0 THEN format('{{:g}} to {{:g}} {{}}', low, high, answer_unit)
        ELSE format('{{:g}} to {{:g}} {{}}', -high, -low, answer_unit) END AS told
    FROM (SELECT *, ten * CASE WHEN size >= 5 * ten THEN 5 WHEN size >= 2 * ten THEN 2 ELSE 1 END AS low,
            ten * CASE WHEN size >= 5 * ten THEN 10 WHEN size >= 2 * ten THEN 5 ELSE 2 END AS high
        FROM (SELECT *, pow(10, floor(log10(size) + 1e-9)) AS ten FROM (SELECT *, greatest(abs(answer_value), 0.5) AS size
            FROM read_parquet(?, union_by_name = true))))"""


@dataclass(frozen=True)
class Figure:
    """A metric over the artifacts that hold it: mean of the finite values, their unit and how many there were."""

    mean: float
    unit: str
    count: int


@dataclass(frozen=True)
class Contents:
    """What some artifacts hold.

    Attributes:
        artifacts, clips: how many.
        bytes: of all parts of the artifacts.
        rows: number of rows by table (`COUNTED`).
        labels: number of questions by kind and answer.
        figures: metrics by name.
    """

    artifacts: int
    clips: int
    bytes: int
    rows: dict[str, int]
    labels: dict[tuple[str, str], int]
    figures: dict[str, Figure]


def clip_of(role: str) -> str:
    """Return the clip that a role belongs to: what stands before its "/", "" where there is none."""
    return role.rpartition("/")[0]


def question_ids_among(catalog: "Catalog", digests: Iterable[str], wanted: Iterable[str]) -> set[str]:
    """Return which of the wanted question ids stand in these artifacts."""
    asked = sorted(set(wanted))
    paths = _paths(catalog, [ref for ref in artifact_refs(catalog.log, digests).values() if ref.kind == "Questions"], "labels")
    if not asked or not paths:
        return set()
    import duckdb  # here, because every look into the catalog imports this module

    with duckdb.connect(":memory:") as connection:
        connection.register("asked", pa.table({"id": asked}))
        found = connection.execute(
            "SELECT DISTINCT question_id FROM read_parquet(?) WHERE question_id IN (SELECT id FROM asked)", [paths]
        )
        return {name for (name,) in found.fetchall()}


def contents_of(catalog: "Catalog", version: DatasetVersion) -> Contents:
    """Count what a published version holds, from its consolidated files where it has some.

    Raises:
        WorldlineError: if an object that holds rows is lost.
    """
    note = catalog.log.note("tables", version.reference)
    return measure(catalog, version.artifacts, version.rejected, note.body["tables"] if note else None)


def measure(
    catalog: "Catalog",
    artifacts: Mapping[str, str],
    rejected: Sequence[str] = (),
    tables: Mapping[str, Sequence[str]] | None = None,
    refs: Mapping[str, ArtifactRef] | None = None,
) -> Contents:
    """Count what artifacts hold; an artifact in two roles counts once, a rejected question not at all.

    Args:
        catalog: the workspace.
        artifacts: digest by role.
        rejected: question ids that do not count.
        tables: SHA-256 of Parquet objects that hold a table's rows for just these artifacts, where consolidated.
        refs: the artifacts by digest, where the caller has them.

    Raises:
        WorldlineError: if an object that holds rows is lost.
    """
    if refs is None:
        refs = artifact_refs(catalog.log, artifacts.values())
    consolidated = tables or {}
    paths = {
        table: _local(catalog, consolidated[table], table)
        if table in consolidated
        else _paths(catalog, [ref for ref in refs.values() if ref.kind == kind], table)
        for table, (kind, _) in COUNTED.items()
    }
    import duckdb  # here, because every look into the catalog imports this module

    with duckdb.connect(":memory:") as connection:
        rows = {table: _count(connection, found) for table, found in paths.items()}
        labels = _labels(connection, paths["labels"], rejected)
        figures = _figures(connection, paths["metrics"])
    rows["labels"] = sum(labels.values())
    clips = {clip_of(role) for role in artifacts if "/" in role} or ({""} if artifacts else set())
    return Contents(len(refs), len(clips), sum(ref.bytes for ref in refs.values()), rows, labels, figures)


def _paths(catalog: "Catalog", refs: Sequence[ArtifactRef], table: str) -> list[str]:
    part = COUNTED[table][1]
    return _local(catalog, [ref.parts[part] for ref in refs if part in ref.parts], table)


def _local(catalog: "Catalog", names: Sequence[str], table: str) -> list[str]:
    """Return where objects lie on this machine; a remote store is asked for several at once."""

    def find(name: str) -> Path:
        with contextlib.suppress(FileNotFoundError):
            if (path := catalog.objects.path(name)).is_file():
                return path
        raise WorldlineError(f"the table {table} has lost the object {name[:12]}: worldline verify says what needs it")

    wanted = sorted(set(names))
    if len(wanted) <= _FETCHED_AT_ONCE:
        return [str(find(name)) for name in wanted]
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        return [str(path) for path in pool.map(find, wanted)]


def _count(connection: "duckdb.DuckDBPyConnection", paths: list[str]) -> int:
    if not paths:
        return 0
    (found,) = connection.execute("SELECT count(*) FROM read_parquet(?)", [paths]).fetchall()  # all: else it stays open
    return int(found[0])


def _labels(connection: "duckdb.DuckDBPyConnection", paths: list[str], rejected: Sequence[str]) -> dict[tuple[str, str], int]:
    if not paths:
        return {}
    connection.register("rejected", pa.table({"id": pa.array(sorted(set(rejected)), pa.string())}))
    query = f"""SELECT coalesce(kind, ''), told, count(*) FROM ({_BINNED})
        WHERE question_id NOT IN (SELECT id FROM rejected) GROUP BY 1, 2 ORDER BY 1, 2"""
    return {(kind, answer): count for kind, answer, count in connection.execute(query, [paths]).fetchall()}


def _figures(connection: "duckdb.DuckDBPyConnection", paths: list[str]) -> dict[str, Figure]:
    if not paths:
        return {}
    query = """SELECT name, avg(value), min(unit), count(*) FROM read_parquet(?, union_by_name = true)
        WHERE isfinite(value) GROUP BY name ORDER BY name"""
    found = connection.execute(query, [paths]).fetchall()
    return {name: Figure(mean, unit or "", count) for name, mean, unit, count in found if math.isfinite(mean)}
