"""The views behind the tables: records from the log's Parquet files, content from the files of versions and artifacts.

A dataset version that was consolidated shows the rows of its own files; a smaller one, and artifacts that no living
version holds ("loose"), show the rows of the artifacts' own parts. Each of these is a branch of the view with the
dataset and version as constants, so that a query about one version opens no other version's files.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from catalogs.contents import artifact_refs
from catalogs.log import CommitLog
from catalogs.objects import ObjectStore
from catalogs.records import RECORDS, ArtifactRef, Heading, Note
from catalogs.standing import Standing, read_version, standing
from catalogs.tables import CONTENT_TABLES, RECORD_TABLES, ContentTable, read_rows, with_artifact
from schemas.canonical import canonical_json

_INSERTED_ROWS = 200
_KEPT_FROM = 1000  # artifacts of a kind, from which on it is worth keeping which of them are loose
_PACKED_FROM = 2048  # loose artifacts, from which on whole blocks of them are packed
_FETCHERS = 16  # files fetched at once from a remote store


_CONSTANTS = pa.schema([("dataset", pa.string()), ("version", pa.int32()), ("latest", pa.bool_())])
_NONE = "NULL::VARCHAR AS dataset, NULL::INTEGER AS version, false AS latest"  # of what is in no version
_HOLDERS = pa.schema([("path", pa.string()), *_CONSTANTS])
_PLACES = pa.schema([("artifact", pa.string()), ("path", pa.string())])
_OWNERS = pa.schema([("artifact", pa.string()), *_CONSTANTS])
_REJECTABLE = ("question_id", "artifact")


@dataclass(frozen=True, eq=False)
class Shown:
    """A living dataset version as the views show it.

    Attributes:
        heading: its name, number and counts.
        standing: how it stands today.
        latest: whether the dataset's bare name stands for it.
        files: SHA-256 of its consolidated files by table; None where it has none.
    """

    heading: Heading
    standing: Standing
    latest: bool
    files: Mapping[str, Sequence[str]] | None

    @property
    def constants(self) -> dict[str, Any]:
        """What its rows carry."""
        return {"dataset": self.heading.name, "version": self.heading.version, "latest": self.latest}


def shown_versions(log: CommitLog) -> list[Shown]:
    """Return the living versions by name and number."""
    states = {item.reference: item for item in standing(log)}
    latest = {item.name: item.version for item in states.values() if item.held is None}
    files = {note.subject: note.body["tables"] for note in log.notes("tables")}
    return [
        Shown(item, states[item.reference], latest.get(item.name) == item.version, files.get(item.reference))
        for item in log.headings()
        if item.reference in states
    ]


_NOT_REMOVED = "ANTI JOIN removed ON removed.id = records.key AND removed.commit > records.commit"
_NOT_SUPERSEDED = "ANTI JOIN superseded ON superseded.key = records.key AND superseded.newest > records.commit"
_SUPERSEDED = (
    "CREATE TABLE superseded AS SELECT key, max(commit) AS newest FROM records WHERE record = 'execution' "
    "GROUP BY key HAVING count(*) > 1"
)
_RECORDED_VERSIONS = (
    "CREATE VIEW recorded_versions AS "
    "SELECT records.dataset, living_versions.version, latest, roles, splits, rejected FROM records JOIN living_versions "
    "ON records.dataset = living_versions.dataset AND dataset_version = living_versions.version "
    "WHERE record = 'dataset'"
)
_FROM_RECORDS = {
    "executions": """
        SELECT key, stage, version, code, config, seed, status, error_type, error_message,
            make_timestamp((started_at * 1e6)::BIGINT) AS started_at, seconds, peak_memory_bytes,
            machine, packages, code_files, commit
        FROM (SELECT * FROM recorded_executions UNION ALL BY NAME SELECT * FROM records WHERE record = 'error')""",
    "artifacts": """
        SELECT output.digest AS digest, arg_max(output.kind, commit) AS kind,
            arg_max(output.schema_version, commit) AS schema_version, arg_max(output.level, commit) AS level,
            arg_max(output.bytes, commit) AS bytes, arg_max(output.facts, commit) AS facts,
            arg_max(output.parts, commit) AS parts, min(commit) AS commit
        FROM (SELECT unnest(outputs) AS output, commit FROM records WHERE record IN ('execution', 'source')) AS made
        ANTI JOIN removed ON removed.id = output.digest AND removed.commit > made.commit
        GROUP BY output.digest""",
    "edges": """
        SELECT key AS execution_key, input.slot AS slot, 'in' AS direction, kind, input.digest AS digest
        FROM (SELECT key, unnest(inputs) AS input FROM recorded_executions)
        LEFT JOIN artifacts ON artifacts.digest = input.digest
        UNION ALL
        SELECT key, output.slot, 'out', output.kind, output.digest
        FROM (SELECT key, unnest(outputs) AS output FROM recorded_executions)""",
    "dataset_artifacts": """
        SELECT dataset, version, latest, member.role AS role,
            regexp_extract(member.role, '^(.*)/[^/]*$', 1) AS clip,
            member.digest AS digest, kind
        FROM (SELECT dataset, version, latest, unnest(roles) AS member FROM recorded_versions)
        LEFT JOIN artifacts ON artifacts.digest = member.digest""",
    "splits": """
        SELECT dataset, version, latest, entry.key AS clip, entry.value AS split
        FROM (SELECT dataset, version, latest, unnest(map_entries(CAST(splits::JSON AS MAP(VARCHAR, VARCHAR)))) AS entry
            FROM recorded_versions WHERE splits IS NOT NULL)""",
    "drift": """
        SELECT key, stage, lost.slot AS slot, kept.digest AS kept_digest, lost.digest AS other_digest, machine, packages, commit
        FROM (SELECT key, stage, unnest(outputs) AS lost, machine, packages, commit FROM records WHERE record = 'drift') AS other
        LEFT JOIN (SELECT execution_key, slot, digest FROM edges WHERE direction = 'out') AS kept
            ON kept.execution_key = other.key AND kept.slot = lost.slot""",
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "executions": ("recorded_executions",),
    "edges": ("artifacts", "recorded_executions"),
    "dataset_artifacts": ("artifacts", "recorded_versions"),
    "splits": ("recorded_versions",),
    "drift": ("edges",),
}


class Views:
    """The views of one DuckDB connection; `files` are those that they read."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, log: CommitLog, objects: ObjectStore, versions: Sequence[Shown]):
        self.files: set[str] = set()
        self._connection, self._log, self._objects, self._versions = connection, log, objects, versions
        self._removed = _removals(log)
        self._registered = 0
        self._shown: set[str] = set()

    # -- records ----------------------------------------------------------------------------------------------------

    def show_records(self, names: Iterable[str]) -> None:
        """Create the views of record tables."""
        for name in names:
            if name in _NOTE_ROWS:
                kind, row_of = _NOTE_ROWS[name]
                rows = [row_of(note) | _said(note) for note in self._log.notes(kind)]
                self._register(name, RECORD_TABLES[name], [row for row in rows if row.get("version", 0) is not None])
            elif name == "datasets":
                self._register(name, RECORD_TABLES[name], [_dataset_row(item) for item in self._versions])
            else:
                self._show_from_records(name)

    def show_empty(self, names: Iterable[str]) -> None:
        """Create record tables of which no row is asked for."""
        for name in names:
            if name not in self._shown:
                create_empty(self._connection, name, RECORD_TABLES[name])

    def _show_from_records(self, name: str) -> None:
        """Create a view over the log's Parquet files, after those that it needs."""
        if name in self._shown:
            return
        if "records" not in self._shown:
            self._shown.add("records")
            self._connection.execute(f"CREATE VIEW records AS {self._parquet(list(map(str, self._log.files())), RECORDS)}")
            removed = [{"id": what, "commit": number} for what, number in self._removed.items()]
            self._register("removed", pa.schema([("id", pa.string()), ("commit", pa.int64())]), removed)
        self._shown.add(name)
        for other in _NEEDS.get(name, ()):
            self._show_from_records(other)
        if name == "recorded_executions":
            self._show_recorded_executions()
        elif name == "recorded_versions":
            self._register("living_versions", _CONSTANTS, [item.constants for item in self._versions])
            self._connection.execute(_RECORDED_VERSIONS)
        else:
            self._connection.execute(f"CREATE VIEW {name} AS {_FROM_RECORDS[name]}")

    def _show_recorded_executions(self) -> None:
        """The newest execution of a key is the visible one. Most keys have one: joins that would drop nothing are left out."""
        self._connection.execute(_SUPERSEDED)
        ((superseded,),) = self._connection.execute("SELECT count(*) FROM superseded").fetchall()
        joins = f"{_NOT_SUPERSEDED if superseded else ''} {_NOT_REMOVED if self._removed else ''}"
        self._connection.execute(
            f"CREATE VIEW recorded_executions AS SELECT records.* FROM records {joins} WHERE records.record = 'execution'"
        )

    # -- content ----------------------------------------------------------------------------------------------------

    def show_content(self, name: str, versions: Sequence[Shown], *, loose: bool) -> None:
        """Create the view of a content table over these versions and, if asked, over what no living version holds."""
        table = CONTENT_TABLES[name]
        files = {item: self._consolidated(name, item) for item in versions}
        in_parts = [item for item, paths in files.items() if paths is None]
        branches = self._files_branch(name, {item: paths for item, paths in files.items() if paths})
        if table.from_facts and (in_parts or loose):
            branches.append(self._facts_branch(table, in_parts, loose=loose))
        elif in_parts or loose:
            unheld = self._loose(table.kind) if loose else []
            if len(unheld) >= _PACKED_FROM:
                packed, unheld = self._packed(name, unheld)
                branches += packed
            branches += self._parts_branch(name, self._members(table, in_parts, unheld), in_parts)
        if branches:
            self._connection.execute(f"CREATE VIEW {name} AS {' UNION ALL '.join(branches)}")
        else:
            create_empty(self._connection, name, content_columns(table))

    def _files_branch(self, name: str, files: Mapping[Shown, Sequence[str]]) -> list[str]:
        """Return a SELECT over the consolidated files of versions; a file that several of them share is read once."""
        columns = with_artifact(CONTENT_TABLES[name].columns)
        rejected = self._rejected(name, list(files))
        if not files:
            return []
        if len(files) == 1:
            ((item, paths),) = files.items()
            dataset, version, latest = item.constants.values()
            constants = f"{_text(dataset)} AS dataset, {version}::INTEGER AS version, {latest} AS latest"
            return [f"SELECT * FROM (SELECT *, {constants} FROM ({self._parquet(paths, columns)})) AS rows{rejected}"]
        holders = [{"path": path, **item.constants} for item, paths in files.items() for path in paths]
        source = self._parquet(sorted({path for paths in files.values() for path in paths}), columns, filename=True)
        held = (
            "SELECT read.* EXCLUDE (filename), holder.dataset, holder.version, holder.latest "
            f"FROM ({source}) AS read JOIN {self._given(_HOLDERS, holders)} AS holder ON holder.path = read.filename"
        )
        return [f"SELECT * FROM ({held}) AS rows{rejected}"]

    def _consolidated(self, name: str, item: Shown) -> list[str] | None:
        """Return the paths of a version's files for a table; None where it has none, or some are lost."""
        if item.files is None or name not in item.files:
            return None
        wanted = item.files[name]
        paths = local_paths(self._objects, wanted)
        if len(paths) < len(set(wanted)):
            logging.getLogger(__name__).warning(
                "%d of %d files of table %s of %s are lost; its artifacts are read one by one instead",
                len(set(wanted)) - len(paths), len(set(wanted)), name, item.heading.reference,
            )  # fmt: skip
            return None
        return [paths[sha256] for sha256 in wanted]

    def _packed(self, name: str, loose: list[str]) -> tuple[list[str], list[str]]:
        """Return a SELECT over what is packed of many loose artifacts, and those that are not."""
        from catalogs.packing import packed

        folder = self._log.home / "derived" / name
        paths, rest = packed(folder, name, loose, self._objects, lambda some: artifact_refs(self._log, some))
        if not paths:
            return [], rest
        source = self._parquet(paths, with_artifact(CONTENT_TABLES[name].columns))
        return [f"SELECT *, {_NONE} FROM ({source}) AS rows"], rest

    def _members(
        self, table: ContentTable, versions: Sequence[Shown], loose: Sequence[str]
    ) -> list[tuple[ArtifactRef, Shown | None]]:
        """Return the artifacts of a table's kind in each of these versions, and the loose ones with None."""
        digests = {item: sorted(set(read_version(self._log, item.standing).artifacts.values())) for item in versions}
        refs = artifact_refs(self._log, [*loose, *(digest for held in digests.values() for digest in held)])
        pairs: list[tuple[ArtifactRef | None, Shown | None]] = [(refs.get(digest), None) for digest in loose]
        pairs += [(refs.get(digest), item) for item, held in digests.items() for digest in held]
        return [(ref, item) for ref, item in pairs if ref is not None and ref.kind == table.kind and table.readable(ref)]

    def _loose(self, kind: str) -> list[str]:
        """Return the recorded artifacts of a kind that no living version holds; worked out once between two commits."""
        ((commit,),) = self._log.rows("SELECT coalesce(max(last), 0) FROM files")
        kept = self._log.home / "derived" / f"loose-{kind}.json"
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(kept.read_text())
            if known["commit"] == commit:
                return list(known["digests"])
        recorded = [
            digest for (digest,) in self._log.rows("SELECT digest FROM artifacts WHERE kind = ? ORDER BY number, digest", (kind,))
        ]
        if not recorded or not self._versions:
            return recorded
        unheld = self._unheld(recorded)
        loose = [digest for digest in recorded if digest in unheld]
        if len(recorded) > _KEPT_FROM:
            with contextlib.suppress(OSError):  # a full disk or a read-only folder: it is worked out each time
                kept.parent.mkdir(exist_ok=True)
                temporary = kept.with_name(f".{uuid.uuid4().hex}")
                temporary.write_text(json.dumps({"commit": commit, "digests": loose}))
                temporary.replace(kept)
        return loose

    def _unheld(self, digests: list[str]) -> set[str]:
        self._show_from_records("recorded_versions")
        given = self._given(pa.schema([("digest", pa.string())]), [{"digest": digest} for digest in digests])
        held = "SELECT unnest(roles).digest AS held FROM recorded_versions"
        found = self._connection.execute(f"SELECT digest FROM {given} ANTI JOIN ({held}) ON held = digest")
        return {digest for (digest,) in found.fetchall()}

    def _rejected(self, name: str, items: Sequence[Shown]) -> str:
        """Return the clause that leaves out the labels that people had rejected when a version was published."""
        if name != "labels" or not any(item.heading.rejected for item in items):
            return ""
        self._show_from_records("recorded_versions")
        known = "SELECT dataset, version, unnest(rejected) AS id FROM recorded_versions"
        same = "known.dataset = rows.dataset AND known.version = rows.version"
        clauses = (f"NOT EXISTS (FROM ({known}) AS known WHERE {same} AND known.id = rows.{column})" for column in _REJECTABLE)
        return f" WHERE {' AND '.join(clauses)}"

    def _facts_branch(self, table: ContentTable, versions: Sequence[Shown], *, loose: bool) -> str:
        """Return a SELECT of rows that stand in the records themselves, over versions and perhaps loose artifacts."""
        self._show_from_records("artifacts")
        self._show_from_records("recorded_versions")
        columns = [_fact(name, kind) for name, kind in self._types(f"FROM {self._given(table.columns, [])}").items()]
        some = f"SELECT {', '.join(columns)}, digest AS artifact"
        held = "SELECT dataset, version, latest, unnest(roles).digest AS held FROM recorded_versions"
        wanted = " OR ".join(f"(dataset, version) = ({_text(item.heading.name)}, {item.heading.version})" for item in versions)
        branches = []
        if versions:
            members = f"SELECT DISTINCT dataset, version, latest, held FROM ({held}) WHERE {wanted}"
            branches.append(
                f"{some}, dataset, version, latest FROM artifacts JOIN ({members}) ON held = digest WHERE kind = '{table.kind}'"
            )
        if loose:
            branches.append(
                f"{some}, {_NONE} FROM artifacts ANTI JOIN ({held}) AS members ON held = digest WHERE kind = '{table.kind}'"
            )
        return " UNION ALL ".join(branches)

    def _parts_branch(self, name: str, members: list[tuple[ArtifactRef, Shown | None]], versions: Sequence[Shown]) -> list[str]:
        table = CONTENT_TABLES[name]
        refs = {ref.digest: ref for ref, _ in members}
        paths = local_paths(self._objects, [ref.parts[part] for ref in refs.values() for part in table.needs])
        whole = {digest: ref for digest, ref in refs.items() if all(ref.parts[part] in paths for part in table.needs)}
        if len(whole) < len(refs):
            logging.getLogger(__name__).warning(
                "%d of %d artifacts behind table %s are not on disk and left out", len(refs) - len(whole), len(refs), name
            )
        if not whole:
            return []
        none = dict.fromkeys(_CONSTANTS.names) | {"latest": False}
        rows = [{"artifact": ref.digest, **(item.constants if item else none)} for ref, item in members if ref.digest in whole]
        owners = self._given(_OWNERS, rows)
        columns = ", ".join(f'parts."{column}"' for column in table.columns.names)
        if table.field:  # equal parts are read once and joined to each artifact that has them
            part = table.needs[0]
            places = {digest: paths[ref.parts[part]] for digest, ref in whole.items()}
            places_name = self._given(_PLACES, [{"artifact": digest, "path": path} for digest, path in places.items()])
            source = self._parquet(sorted(set(places.values())), table.columns, filename=True)
            placed = f"({source}) AS parts JOIN {places_name} AS places ON places.path = parts.filename"
            join = f"{placed} JOIN {owners} AS owners USING (artifact)"
        else:
            made = pa.concat_tables(
                [read_rows(table, ref, {part: Path(paths[ref.parts[part]]) for part in table.needs}) for ref in whole.values()]
            )
            self._connection.register(f"made_{name}", made)
            join = f"made_{name} AS parts JOIN {owners} AS owners USING (artifact)"
        branch = f"SELECT {columns}, artifact, owners.dataset, owners.version, owners.latest FROM {join}"
        return [f"SELECT * FROM ({branch}) AS rows{self._rejected(name, versions)}"]

    # -- connection -------------------------------------------------------------------------------------------------

    def _parquet(self, paths: Sequence[str], schema: pa.Schema, *, filename: bool = False) -> str:
        """Return a SELECT of today's columns over Parquet files, some of which may have been written under other schemas."""
        today = self._given(schema, [])
        if not paths:
            return f"SELECT * FROM {today}"
        self.files.update(paths)
        told = f", filename = {str(filename).lower()}"
        source = f"read_parquet([{', '.join(map(_text, paths))}], union_by_name = true{told})"
        present = self._types(f"SELECT * FROM {source}")
        columns = []
        for name, kind in self._types(f"FROM {today}").items():
            quoted = '"' + name + '"'
            value = "NULL" if name not in present else quoted
            columns.append(quoted if present.get(name) == kind else f"{value}::{kind} AS {quoted}")
        columns += ["filename"] if filename else []
        return f"SELECT {', '.join(columns)} FROM {source}"

    def _types(self, query: str) -> dict[str, str]:
        return {name: kind for name, kind, *_ in self._connection.execute(f"DESCRIBE {query}").fetchall()}

    def _register(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
        """Create a table of rows. Small ones are inserted, because making Arrow arrays of Python values imports pandas."""
        if len(rows) > _INSERTED_ROWS:
            self._connection.register(name, pa.Table.from_pylist(rows, schema=schema))
            return
        create_empty(self._connection, name, schema)
        if rows:
            places = ", ".join(["?"] * len(schema))
            values = [row.get(column) for row in rows for column in schema.names]
            self._connection.execute(f"INSERT INTO {name} VALUES {', '.join([f'({places})'] * len(rows))}", values)

    def _given(self, schema: pa.Schema, rows: list[dict[str, Any]]) -> str:
        """Create a table of rows under a name of its own."""
        self._registered += 1
        self._register(f"given_{self._registered}", schema, rows)
        return f"given_{self._registered}"


def local_paths(objects: ObjectStore, names: Iterable[str]) -> dict[str, str]:
    """Return where each of these objects lies on this machine, fetching what is remote; lost ones are left out."""

    def find(sha256: str) -> tuple[str, str] | None:
        try:
            path = objects.path(sha256)
        except FileNotFoundError:
            return None
        return (sha256, str(path)) if path.is_file() else None

    wanted = sorted(set(names))
    with ThreadPoolExecutor(_FETCHERS) as pool:
        found = pool.map(find, wanted) if len(wanted) > _FETCHERS else map(find, wanted)
        return dict(pair for pair in found if pair)


def create_empty(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    """Create an empty table with the columns of an Arrow schema."""
    connection.register(f"{name}_schema", pa.Table.from_batches([], schema=schema))
    connection.execute(f"CREATE TABLE {name} AS FROM {name}_schema")
    connection.unregister(f"{name}_schema")


def content_columns(table: ContentTable) -> pa.Schema:
    """Return all columns of a content table."""
    return pa.schema([*with_artifact(table.columns), *_CONSTANTS])


def _removals(log: CommitLog) -> dict[str, int]:
    """Return what was removed on purpose and the number of the commit that last removed it."""
    removed: dict[str, int] = {}
    for number, body in log.rows("SELECT number, body FROM notes WHERE record = 'removal' ORDER BY number"):
        said = json.loads(json.loads(body)["body"])
        removed |= dict.fromkeys([*said["keys"], *said["digests"]], number)
    return removed


def _dataset_row(item: Shown) -> dict[str, Any]:
    heading = item.heading
    documents = {"recipe": canonical_json(heading.recipe), "lock": canonical_json(heading.lock)}
    counts = {"artifacts": heading.artifacts, "executions": heading.executions, "commit": heading.commit}
    when = _time(heading.published_at)
    return {
        **item.constants,
        "published_at": when,
        "held": item.standing.held,
        "manifest": heading.manifest,
        **documents,
        **counts,
    }


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _said(note: Note) -> dict[str, Any]:
    return {"reason": note.reason, "author": note.author, "recorded_at": _time(note.recorded_at)}


def _tag_row(note: Note) -> dict[str, Any]:
    dataset, _, tag = note.subject.partition("@")
    return {"dataset": dataset, "tag": tag, "version": note.body.get("version")}  # null where it was taken away


def _terms_row(note: Note) -> dict[str, Any]:
    return {"artifact": note.subject, **{name: note.body.get(name) for name in ("licence", "terms", "attribution", "place")}}


# table -> (kind of note, its row)
_NOTE_ROWS: dict[str, tuple[str, Callable[[Note], dict[str, Any]]]] = {
    "tags": ("tag", _tag_row),
    "reviews": ("review", lambda note: {"subject": note.subject, "verdict": note.body.get("verdict")}),
    "terms": ("terms", _terms_row),
    "takedowns": ("takedown", lambda note: {"artifact": note.subject}),
}


def _fact(name: str, kind: str) -> str:
    """Return the expression of a column that stands in an artifact's facts; `facts` itself is all of them."""
    return "facts" if name == "facts" else f"(facts->>'{name}')::{kind} AS \"{name}\""


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
