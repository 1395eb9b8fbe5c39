"""The lens: DuckDB in memory over the Parquet files, one read-only SELECT at a time.

Records: `executions`, `artifacts`, `edges`, `datasets`, `dataset_artifacts`, `drift`. Content of recorded artifacts:
`labels`, `kinematics`, `windows`, `tracks`, `objects`, `metrics`, `clips`, `cameras`, `models`. A content row carries
its `artifact` and, once per dataset version that holds the artifact, `dataset`, `version` and `latest` (null, null
and false where it is in none): `WHERE dataset = 'streets' AND version = 3` travels in time, `WHERE latest` does not.

Only the tables that a query names are set up, so that a question about executions opens no label file.
"""

import logging
import re
from collections.abc import Callable

import duckdb
import pyarrow as pa

from catalogs.log import CommitLog
from catalogs.objects import ObjectStore
from catalogs.records import RECORDS, ArtifactRef
from schemas.artifact import ARTIFACT_TYPES
from schemas.cameras import CameraPath
from schemas.codec import decode
from schemas.errors import WorldlineError

# The newest execution of a key is the visible one; failures stand beside it.
_RECORD_VIEWS = {
    "executions": """
        SELECT key, stage, version, code, config, seed, status, error_type, error_message,
            make_timestamp((started_at * 1e6)::BIGINT) AS started_at, seconds, peak_memory_bytes,
            machine, packages, code_files, commit
        FROM records WHERE record = 'error' OR record = 'execution'
        QUALIFY record = 'error' OR row_number() OVER (PARTITION BY record, key ORDER BY commit DESC) = 1""",
    "artifacts": """
        SELECT output.digest AS digest, arg_max(output.kind, commit) AS kind,
            arg_max(output.schema_version, commit) AS schema_version, arg_max(output.level, commit) AS level,
            arg_max(output.bytes, commit) AS bytes, arg_max(output.facts, commit) AS facts,
            arg_max(output.parts, commit) AS parts, min(commit) AS commit
        FROM (SELECT unnest(outputs) AS output, commit FROM records WHERE record IN ('execution', 'source'))
        GROUP BY output.digest""",
    "edges": """
        WITH visible AS (SELECT key, inputs, outputs FROM records WHERE record = 'execution'
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY commit DESC) = 1)
        SELECT key AS execution_key, input.slot AS slot, 'in' AS direction, kind, input.digest AS digest
        FROM (SELECT key, unnest(inputs) AS input FROM visible) LEFT JOIN artifacts ON artifacts.digest = input.digest
        UNION ALL
        SELECT key, output.slot, 'out', output.kind, output.digest FROM (SELECT key, unnest(outputs) AS output FROM visible)""",
    "datasets": """
        SELECT dataset, dataset_version AS version, dataset_version = max(dataset_version) OVER (PARTITION BY dataset) AS latest,
            make_timestamp((recorded_at * 1e6)::BIGINT) AS published_at, manifest, recipe, lock,
            len(roles) AS artifacts, len(executions) AS executions, commit
        FROM records WHERE record = 'dataset'""",
    "dataset_artifacts": """
        SELECT dataset, version, latest, member.role AS role, member.digest AS digest, kind
        FROM (SELECT dataset, dataset_version AS version, unnest(roles) AS member,
                dataset_version = max(dataset_version) OVER (PARTITION BY dataset) AS latest
            FROM records WHERE record = 'dataset') LEFT JOIN artifacts ON artifacts.digest = member.digest""",
    "drift": """
        SELECT key, stage, lost.slot AS slot, kept.digest AS kept_digest, lost.digest AS other_digest, machine, packages, commit
        FROM (SELECT key, stage, unnest(outputs) AS lost, machine, packages, commit FROM records WHERE record = 'drift') AS other
        LEFT JOIN (SELECT execution_key, slot, digest FROM edges WHERE direction = 'out') AS kept
            ON kept.execution_key = other.key AND kept.slot = lost.slot""",
}
_RECORD_VIEWS_NEED = {"edges": ("artifacts",), "dataset_artifacts": ("artifacts",), "drift": ("artifacts", "edges")}

# table -> (artifact type, field): the Parquet part of every recorded artifact of the type
_PART_TABLES = {
    "labels": ("Questions", "rows"),
    "kinematics": ("Kinematics", "states"),
    "windows": ("Kinematics", "windows"),
    "tracks": ("Tracks", "samples"),
    "objects": ("Tracks", "objects"),
    "metrics": ("Metrics", "figures"),
}
_CLIPS = pa.schema(
    [
        ("name", pa.string()),
        ("frames", pa.int64()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("duration_s", pa.float64()),
    ]
)
_CAMERAS = pa.schema(
    [
        ("frame", pa.int32()),
        ("time_s", pa.float64()),
        ("registered", pa.bool_()),
        ("world_from_camera", pa.list_(pa.float64())),  # 16 numbers, row by row
        ("x", pa.float64()),  # camera centre in the world
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("fx", pa.float64()),
        ("fy", pa.float64()),
        ("cx", pa.float64()),
        ("cy", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("verdict", pa.string()),
        ("scale_source", pa.string()),
        ("scale_sigma", pa.float64()),
    ]
)
_MODELS = pa.schema([("name", pa.string()), ("trained_on", pa.string())])
_MADE_TABLES: dict[str, tuple[str, pa.Schema]] = {
    "clips": ("Clip", _CLIPS),
    "cameras": ("CameraPath", _CAMERAS),
    "models": ("Model", _MODELS),
}
TABLES = (*_RECORD_VIEWS, *_PART_TABLES, *_MADE_TABLES)


def answer(sql: str, log: CommitLog, objects: ObjectStore) -> pa.Table:
    """Answer one SELECT.

    Raises:
        WorldlineError: if the SQL is wrong, is not a single SELECT, or names something unknown.
    """
    wanted = {name for name in TABLES if re.search(rf"\b{name}\b", sql, re.IGNORECASE)}
    with duckdb.connect(":memory:") as connection:
        _refuse_writing(connection, sql)
        _show_records(connection, log, wanted)
        _show_content(connection, log, objects, wanted)
        # From here on the query can neither write nor read outside the catalog's own files.
        folders = [f"{objects.folder}/", f"{log.tables}/"]
        connection.execute(f"SET allowed_directories = {_literal(folders)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise _explained(error) from error


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


def _show_records(connection: duckdb.DuckDBPyConnection, log: CommitLog, wanted: set[str]) -> None:
    files = [str(path) for path in log.files()]
    if files:
        connection.execute(f"CREATE VIEW records AS SELECT * FROM read_parquet({_literal(files)}, union_by_name = false)")
    else:
        connection.register("records", RECORDS.empty_table())
    needed = set(wanted)
    for name in wanted:
        needed.update(_RECORD_VIEWS_NEED.get(name, ()))
    if wanted & {*_PART_TABLES, *_MADE_TABLES}:
        needed.update(("artifacts", "dataset_artifacts"))
    for name, definition in _RECORD_VIEWS.items():
        if name in needed:
            connection.execute(f"CREATE VIEW {name} AS {definition}")


def _show_content(connection: duckdb.DuckDBPyConnection, log: CommitLog, objects: ObjectStore, wanted: set[str]) -> None:
    content = {name: kind for name, (kind, _) in (_PART_TABLES | _MADE_TABLES).items() if name in wanted}
    if not content:
        return
    refs = {kind: log.artifacts(kind) for kind in content.values()}
    for name, kind in content.items():
        if name in _PART_TABLES:
            _show_parts(connection, name, refs[kind], objects)
        else:
            schema = _MADE_TABLES[name][1]
            rows = _MAKERS[name](refs[kind], objects) if name in _MAKERS else []
            connection.register(f"{name}_rows", pa.Table.from_pylist(rows, schema=_with_artifact(schema)))
        connection.execute(
            f"CREATE VIEW {name} AS SELECT rows.*, dataset, version, coalesce(latest, false) AS latest "
            f"FROM {name}_rows AS rows LEFT JOIN dataset_artifacts AS member ON member.digest = rows.artifact"
        )


def _show_parts(connection: duckdb.DuckDBPyConnection, name: str, refs: list[ArtifactRef], objects: ObjectStore) -> None:
    """Set up `{name}_rows` over one Parquet part of every artifact; equal parts are read once and joined to each owner."""
    kind, field = _PART_TABLES[name]
    owners = [(ref.digest, str(objects.path(ref.parts[f"{field}.parquet"]))) for ref in refs]
    present = [(digest, path) for digest, path in owners if objects.exists(path.rsplit("/", 2)[1] + path.rsplit("/", 1)[1])]
    _tell_missing(name, len(owners) - len(present), len(owners))
    schema = ARTIFACT_TYPES[kind].TABLES[field]
    if not present:
        connection.register(f"{name}_rows", _with_artifact(schema).empty_table())
        return
    table = pa.table({"artifact": [digest for digest, _ in present], "path": [path for _, path in present]})
    connection.register(f"{name}_owners", table)
    paths = _literal(sorted({path for _, path in present}))
    columns = ", ".join(f'parts."{column}"' for column in schema.names)
    connection.execute(
        f"CREATE VIEW {name}_rows AS SELECT {columns}, owners.artifact FROM "
        f"read_parquet({paths}, filename = true) AS parts JOIN {name}_owners AS owners ON owners.path = parts.filename"
    )


def _clip_rows(refs: list[ArtifactRef], objects: ObjectStore) -> list[dict[str, object]]:
    return [{**{name: ref.facts.get(name) for name in _CLIPS.names}, "artifact": ref.digest} for ref in refs]


def _camera_rows(refs: list[ArtifactRef], objects: ObjectStore) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    whole = [ref for ref in refs if all(objects.exists(sha256) for sha256 in ref.parts.values())]
    _tell_missing("cameras", len(refs) - len(whole), len(refs))
    for ref in whole:
        path = decode({name: objects.path(sha256) for name, sha256 in ref.parts.items()})
        assert isinstance(path, CameraPath)
        (fx, _, cx), (_, fy, cy), _ = path.intrinsics.tolist()
        shared = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": path.width, "height": path.height, "verdict": path.verdict,
                  "scale_source": path.scale_source, "scale_sigma": path.scale_sigma, "artifact": ref.digest}  # fmt: skip
        for frame, matrix in enumerate(path.world_from_camera):
            x, y, z = matrix[:3, 3].tolist()
            rows.append({"frame": frame, "time_s": float(path.times_s[frame]), "registered": bool(path.registered[frame]),
                         "world_from_camera": matrix.ravel().tolist(), "x": x, "y": y, "z": z, **shared})  # fmt: skip
    return rows


_MAKERS: dict[str, Callable[[list[ArtifactRef], ObjectStore], list[dict[str, object]]]] = {
    "clips": _clip_rows,
    "cameras": _camera_rows,
}


def _with_artifact(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("artifact", pa.string()))


def _tell_missing(name: str, missing: int, total: int) -> None:
    if missing:
        logging.getLogger(__name__).warning(
            "%d of %d artifacts behind table %s are not on disk and left out", missing, total, name
        )


def _literal(items: list[str]) -> str:
    quoted = ", ".join("'" + item.replace("'", "''") + "'" for item in items)
    return f"[{quoted}]"
