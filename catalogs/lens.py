"""The lens: DuckDB in memory over the Parquet files, one read-only SELECT at a time.

Which tables there are, and their columns, stands in `catalogs.tables`. A content row carries its `artifact` and, once
per living dataset version that holds the artifact, `dataset`, `version` and `latest` (null, null and false where it
is in none): `WHERE dataset = 'streets' AND version = 3` travels in time, `WHERE latest` does not.

A query is planned twice: first over empty tables, one for every dataset version that a table could show, to see which
of them its plan would read; then the views are set up over the files of these alone.
"""

import contextlib
import re
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from catalogs.log import CommitLog
from catalogs.objects import ObjectStore
from catalogs.tables import CONTENT_TABLES, RECORD_TABLES, TABLES, with_artifact
from catalogs.views import Shown, Views, create_empty, shown_versions
from schemas.errors import WorldlineError

_LOOSE = "loose"


def answer(sql: str, log: CommitLog, objects: ObjectStore) -> pa.Table:
    """Answer one SELECT.

    Raises:
        WorldlineError: if the SQL is wrong, is not a single SELECT, or names something unknown.
    """
    named = {name for name in TABLES if re.search(rf"\b{name}\b", sql, re.IGNORECASE)}
    named = named or set(TABLES)  # SHOW TABLES
    versions = shown_versions(log) if named - {"executions", "artifacts", "edges", "drift"} else []
    read = _planned(sql, named, versions)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET parquet_metadata_cache = true")
        views = Views(connection, log, objects, versions)
        for name in sorted(named & set(CONTENT_TABLES)):
            shown = [item for index, item in enumerate(versions) if f"{name}_{index}" in read]
            views.show_content(name, shown, loose=f"{name}_{_LOOSE}" in read)
        views.show_records(named & read & set(RECORD_TABLES))
        views.show_empty((named - read) & set(RECORD_TABLES))
        # From here on the query can neither write nor read outside the files behind its tables.
        connection.execute("SET allowed_paths = $files", {"files": sorted(views.files)})
        _lock(connection)
        try:
            return _with_plain_integers(connection.sql(sql).to_arrow_table())
        except duckdb.Error as error:
            raise _explained(error) from error


def _with_plain_integers(table: pa.Table) -> pa.Table:
    """Return sums of integers, which come as decimals of 38 digits, as 64-bit integers where they fit."""
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            with contextlib.suppress(pa.ArrowInvalid):
                table = table.set_column(index, field.name, table.column(index).cast(pa.int64()))
    return table


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _planned(sql: str, names: set[str], versions: Sequence[Shown]) -> set[str]:
    """Return which tables, and which versions of content tables, the plan of a query reads.

    Raises:
        WorldlineError: if the SQL is wrong or not a single SELECT.
    """
    with duckdb.connect(":memory:") as connection:
        _refuse_writing(connection, sql)
        # Statistics know that these tables are empty, and would leave them all out.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        for name in names:
            if name in RECORD_TABLES:
                create_empty(connection, name, RECORD_TABLES[name])
            else:
                _outline(connection, name, versions)
        _lock(connection)
        try:
            plan = connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
        except duckdb.Error as error:
            raise _explained(error) from error
    return set(re.findall(r'"Table": "memory\.main\.(\w+)"', plan[0][1]))


def _outline(connection: duckdb.DuckDBPyConnection, name: str, versions: Sequence[Shown]) -> None:
    """Create a content table with one empty table for each version, told apart by constants like the real ones."""
    table = CONTENT_TABLES[name]
    create_empty(connection, f"{name}_{_LOOSE}", with_artifact(table.columns))
    branches = [f"SELECT *, NULL::VARCHAR AS dataset, NULL::INTEGER AS version, false AS latest FROM {name}_{_LOOSE}"]
    tables = []
    for index, item in enumerate(versions):
        dataset = item.heading.name.replace("'", "''")
        tables.append(f"CREATE TABLE {name}_{index} AS FROM {name}_{_LOOSE}")
        branches.append(
            f"SELECT *, '{dataset}' AS dataset, {item.heading.version}::INTEGER AS version, {item.latest} AS latest "
            f"FROM {name}_{index}"
        )
    if tables:
        connection.execute(";".join(tables))
    connection.execute(f"CREATE VIEW {name} AS {' UNION ALL '.join(branches)}")


def _refuse_writing(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _explained(error) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise WorldlineError("the catalog answers one SELECT at a time and is never written by SQL: ask with a single SELECT")


def _explained(error: duckdb.Error) -> WorldlineError:
    message = str(error)
    missing = re.search(r"Table with name (\S+) does not exist", message)
    if missing:
        return WorldlineError(f"the catalog has no table {missing.group(1)}: the tables are {', '.join(TABLES)}")
    text = re.sub(r"\s+", " ", message.split("LINE ")[0].split("\n\n")[0]).strip()
    return WorldlineError(f"the query failed: {text}")
