"""Where an artifact came from: the closure of executions upstream of it, as a list, a table and a manifest.

Edges are read level by level in few large queries, so that a version of 100,000 artifacts takes seconds.
`catalogs.downstream` follows the same edges the other way.
"""

import dataclasses
import difflib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalogs.log import CommitLog
from catalogs.records import RECORDS, ArtifactRef, Execution, listed, output_slots, read_execution, read_output
from schemas.artifact import ARTIFACT_TYPES, make_table
from schemas.canonical import TaggedHash, canonical_json
from schemas.errors import WorldlineError
from schemas.reports import LINEAGE_EDGES, LINEAGE_NODES, Lineage

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

MANIFEST_VERSION = 2  # 2: code files and packages are kept once; sources have their facts
_HEX = re.compile(r"[0-9a-f]{4,64}")
_AT_ONCE = 500  # values in one IN-list; both databases take more, and larger lists gain nothing


@dataclass(frozen=True)
class Subject:
    """What an identifier stands for in a catalog.

    Attributes:
        what: "artifact", "execution", "dataset" or "question".
        name: its full name for people.
        keys: executions that it names.
        digests: artifacts that it names.
    """

    what: str
    name: str
    keys: tuple[str, ...]
    digests: tuple[str, ...]


def upstream(log: CommitLog, digests: Sequence[str]) -> list[Execution]:
    """Return every execution upstream of artifacts, makers before users.

    Where several executions made the same artifact, the first recorded one counts whose inputs can be had without it,
    so that the closure has no cycle. The order depends on names and digests only, not on when things ran.
    """
    makers = _makers(log, digests)
    executions = read_executions(log, makers.values())
    ordered: dict[str, Execution] = {}
    seen: set[str] = set()
    stack: list[tuple[str, Execution | None]] = [(digest, None) for digest in reversed(digests)]
    while stack:
        digest, finished = stack.pop()
        if finished is not None:
            ordered.setdefault(finished.key, finished)
            continue
        if digest in seen:
            continue
        seen.add(digest)
        maker = executions.get(makers.get(digest, ""))
        if maker is None or maker.key in ordered:
            continue
        stack.append((digest, maker))
        stack.extend((maker.inputs[name], None) for name in sorted(maker.inputs, reverse=True))
    return list(ordered.values())


def _makers(log: CommitLog, digests: Iterable[str]) -> dict[str, str]:
    """Return the key of the execution that counts as the maker of every artifact upstream (sources have none)."""
    numbers: dict[str, int] = {}  # of every execution that made one of the artifacts
    inputs: dict[str, set[str]] = {}
    outputs: dict[str, list[str]] = {}
    pending, seen = set(digests), set(digests)
    while pending:
        query = "SELECT digest, key, number FROM edges JOIN executions USING (key) WHERE direction = 'out' AND digest IN"
        unread = set()
        for digest, key, number in rows_in(log, query, pending):
            if key not in numbers:
                unread.add(key)
                numbers[key], inputs[key], outputs[key] = number, set(), []
            outputs[key].append(digest)
        for key, digest in rows_in(log, "SELECT key, digest FROM edges WHERE direction = 'in' AND key IN", unread):
            inputs[key].add(digest)
        pending = {digest for key in unread for digest in inputs[key]} - seen
        seen |= pending
    # Executions in the order of recording, each when its inputs are there: one that was recorded again after its
    # objects were lost stands behind its users, and must not come out as made from what was made from it.
    made = {digest for items in outputs.values() for digest in items}
    missing = {key: len(needed & made) for key, needed in inputs.items()}
    users: dict[str, list[str]] = {}
    for key, needed in inputs.items():
        for digest in needed & made:
            users.setdefault(digest, []).append(key)
    ready = [(numbers[key], key) for key, count in missing.items() if count == 0]
    heapq.heapify(ready)
    makers: dict[str, str] = {}
    while ready:
        _, key = heapq.heappop(ready)
        for digest in outputs[key]:
            if digest in makers:
                continue
            makers[digest] = key
            for user in users.get(digest, ()):
                missing[user] -= 1
                if missing[user] == 0:
                    heapq.heappush(ready, (numbers[user], user))
    return makers


def rows_in(log: CommitLog, query: str, values: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query that ends in "IN", for any number of values."""
    distinct = sorted(set(values))
    for start in range(0, len(distinct), _AT_ONCE):
        some = distinct[start : start + _AT_ONCE]
        yield from log.rows(f"{query} ({', '.join('?' * len(some))})", tuple(some))


def read_executions(log: CommitLog, keys: Iterable[str]) -> dict[str, Execution]:
    """Return the visible executions among many keys; equal documents are read once and shared."""
    documents: dict[int, dict[str, Any]] = {}
    query = "SELECT body, code_files, machine, packages FROM executions WHERE key IN"
    found = list(rows_in(log, query, keys))
    wanted = {number for row in found for number in row[1:]}
    for start in range(0, len(ids := sorted(wanted)), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        for number, body in log.rows(f"SELECT id, body FROM documents WHERE id IN ({', '.join('?' * len(some))})", tuple(some)):
            documents[number] = json.loads(body)
    empty = {**dict.fromkeys(RECORDS.names), "code_files": "{}", "machine": "{}", "packages": "{}"}
    executions = {}
    for body, *numbers in found:
        execution = read_execution({**empty, **json.loads(body)})
        code_files, machine, packages = (documents[number] for number in numbers)
        execution = dataclasses.replace(execution, code_files=code_files, machine=machine, packages=packages)
        executions[execution.key] = execution
    return executions


def read_artifacts(log: CommitLog, digests: Iterable[str]) -> dict[str, ArtifactRef]:
    """Return the recorded artifacts among many digests."""
    rows = rows_in(log, "SELECT digest, body FROM artifacts WHERE digest IN", digests)
    return {digest: read_output(json.loads(body)) for digest, body in rows}


def lineage_of(catalog: "Catalog", identifier: str) -> Lineage:
    """Return all executions upstream of an artifact (digest or prefix), execution (key), dataset version or question.

    Raises:
        WorldlineError: if nothing has this identifier; the message names the nearest.
    """
    subject = identify(catalog, identifier)
    if subject.what == "dataset":
        executions = read_executions(catalog.log, subject.keys)
        return as_artifact([executions[key] for key in subject.keys if key in executions], catalog.log)
    if subject.what == "execution":
        execution = read_executions(catalog.log, subject.keys)[subject.keys[0]]
        return as_artifact([*upstream(catalog.log, sorted(execution.inputs.values())), execution], catalog.log)
    return as_artifact(upstream(catalog.log, subject.digests), catalog.log)


def identify(catalog: "Catalog", identifier: str) -> Subject:
    """Return what an artifact's digest, an execution's key (or four or more digits of either), NAME[@V] or a question id names.

    Raises:
        WorldlineError: if nothing or several things have this identifier; the message names the nearest.
    """
    found = find(catalog, identifier)
    if found is not None:
        return found
    if "@" in identifier:
        catalog.dataset(identifier)  # raises, and says what datasets there are
    names = [name for (name,) in catalog.log.rows("SELECT DISTINCT name FROM datasets ORDER BY name")]
    near = difflib.get_close_matches(identifier, names, n=3, cutoff=0.4)
    hint = f"; did you mean the dataset {listed(near)}?" if near else ": give NAME@3, or four or more digits of a digest"
    raise WorldlineError(f"no artifact, execution, dataset or question {identifier} in {catalog.home}{hint}")


def find(catalog: "Catalog", identifier: str) -> Subject | None:
    """Return what `identify` does, or None if nothing has this identifier.

    Raises:
        WorldlineError: if several things have it, or a dataset has no such version.
    """
    if catalog.log.rows("SELECT 1 FROM datasets WHERE name = ? LIMIT 1", (identifier.partition("@")[0],)):
        version = catalog.dataset(identifier)
        return Subject("dataset", version.reference, tuple(version.executions), tuple(sorted(version.artifacts.values())))
    return find_digits(catalog, identifier) or _find_question(catalog, identifier)


def find_digits(catalog: "Catalog", identifier: str) -> Subject | None:
    """Return the artifact or execution whose digest or key begins so, if these are four or more hexadecimal digits.

    Raises:
        WorldlineError: if several begin so.
    """
    if not _HEX.fullmatch(identifier):
        return None
    query = "SELECT key FROM executions WHERE key >= ? AND key < ? ORDER BY key LIMIT 5"
    keys = [key for (key,) in catalog.log.rows(query, (identifier, identifier + "g"))]
    digests = catalog.digests_like(identifier)
    if len(keys) + len(digests) > 1:
        raise WorldlineError(f"{identifier} could mean {listed(keys + digests)}: give more digits")
    if keys:
        return Subject("execution", keys[0], (keys[0],), ())
    return Subject("artifact", digests[0], (), (digests[0],)) if digests else None


def _find_question(catalog: "Catalog", identifier: str) -> Subject | None:
    questions = questions_like(catalog, identifier)
    if len(questions) > 1:
        raise WorldlineError(
            f"{identifier} is the question id in {len(questions)} artifacts {listed(questions)}: give one of these"
        )
    return Subject("question", identifier, (), (questions[0],)) if questions else None


def summary_of(catalog: "Catalog", keys: Iterable[str]) -> list[tuple[str, int, int]]:
    """Return stage, number of executions and number of distinct states of the code, by stage, of many executions."""
    counts: dict[str, int] = {}
    codes: dict[str, set[int]] = {}
    for stage, code in rows_in(catalog.log, "SELECT stage, code_files FROM executions WHERE key IN", keys):
        counts[stage] = counts.get(stage, 0) + 1
        codes.setdefault(stage, set()).add(code)
    return [(stage, count, len(codes[stage])) for stage, count in sorted(counts.items())]


def questions_like(catalog: "Catalog", identifier: str) -> list[str]:
    """Return the digests of the artifacts with a question of this id, or whose id begins so."""
    quoted = identifier.replace("'", "''")
    exact = catalog.sql(f"SELECT DISTINCT artifact FROM labels WHERE question_id = '{quoted}' ORDER BY 1")
    if not exact.num_rows and len(identifier) >= 4:
        exact = catalog.sql(f"SELECT DISTINCT artifact FROM labels WHERE starts_with(question_id, '{quoted}') ORDER BY 1")
    return exact.column(0).to_pylist()


def as_artifact(executions: Sequence[Execution], log: CommitLog) -> Lineage:
    """Return executions and the artifacts between them as the tables that reports draw."""
    made = {ref.digest: ref.kind for execution in executions for ref in execution.outputs}
    given = {digest for execution in executions for digest in execution.inputs.values()} - made.keys()
    return lineage_table(executions, made | dict(rows_in(log, "SELECT digest, kind FROM artifacts WHERE digest IN", given)))


def lineage_table(executions: Sequence[Execution], kinds: dict[str, str]) -> Lineage:
    """Return executions as a `Lineage`, given the kind of every artifact between them by digest ("" where unknown)."""
    nodes: list[tuple[Any, ...]] = []
    edges: list[tuple[str, ...]] = []
    for execution in executions:
        key = execution.key
        nodes.append((key, execution.stage, execution.version, canonical_json(execution.config), execution.seed))
        edges += [(key, slot, "in", kinds.get(digest, ""), digest) for slot, digest in sorted(execution.inputs.items())]
        slots = output_slots(execution.outputs)
        edges += [(key, slot, "out", ref.kind, ref.digest) for slot, ref in zip(slots, execution.outputs, strict=True)]
    return Lineage(nodes=_table(LINEAGE_NODES, nodes), edges=_table(LINEAGE_EDGES, edges))


def _table(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema.names)
    return make_table(schema, dict(zip(schema.names, map(list, columns), strict=True)))


def manifest(
    name: str,
    version: int,
    recipe: dict[str, Any],
    artifacts: dict[str, str],
    executions: Sequence[Execution],
    lock: dict[str, Any],
    log: CommitLog,
) -> dict[str, Any]:
    """Return everything that a rebuild of a dataset version needs, without times, hosts or paths.

    `sources` are the artifacts that no execution made; a rebuild must be given their bytes. `documents` are the code
    files and packages of the executions, by a hash: thousands of executions share a few.
    """
    made = {ref.digest for execution in executions for ref in execution.outputs}
    needed = {digest for execution in executions for digest in execution.inputs.values()} | set(artifacts.values())
    sources = read_artifacts(log, needed - made)
    documents: dict[str, Any] = {}
    names: dict[int, str] = {}  # by identity: `upstream` shares equal documents

    def kept(document: dict[str, str]) -> str:
        if id(document) not in names:
            names[id(document)] = TaggedHash("document/1").json(document).hexdigest()
            documents[names[id(document)]] = document
        return names[id(document)]

    return {
        "manifest": MANIFEST_VERSION,
        "name": name,
        "version": version,
        "recipe": recipe,
        "artifacts": dict(sorted(artifacts.items())),
        "sources": [{**_described(ref), "facts": ref.facts} for _, ref in sorted(sources.items())],
        "executions": [
            {
                "key": execution.key,
                "stage": execution.stage,
                "version": execution.version,
                "code": execution.code,
                "code_files": kept(execution.code_files),
                "config": execution.config,
                "seed": execution.seed,
                "inputs": execution.inputs,
                "outputs": [_described(ref) for ref in execution.outputs],
                "packages": kept(execution.packages),
            }
            for execution in executions
        ],
        "documents": documents,
        "lock": lock,
    }


def _described(ref: ArtifactRef) -> dict[str, Any]:
    return {"digest": ref.digest, "kind": ref.kind, "schema_version": ref.schema_version, "bytes": ref.bytes, "parts": ref.parts}


@dataclass(frozen=True)
class Manifest:
    """A dataset version as its manifest has it.

    Attributes:
        name, version, recipe, lock: of the version.
        artifacts: digest by role.
        sources: the artifacts that no execution made, by digest.
        executions: makers before users; without times and machines.
    """

    name: str
    version: int
    recipe: dict[str, Any]
    artifacts: dict[str, str]
    sources: dict[str, ArtifactRef]
    executions: tuple[Execution, ...]
    lock: dict[str, Any]


def read_manifest(data: bytes) -> Manifest:
    """Invert `manifest`, for every released version of it.

    Raises:
        WorldlineError: if these are not the bytes of a manifest, or it was written by a newer Worldline.
    """
    try:
        said = json.loads(data)
        number = said["manifest"]
    except (ValueError, KeyError, TypeError):
        raise WorldlineError("this is not the manifest of a dataset version: it has no field manifest") from None
    if number > MANIFEST_VERSION:
        raise WorldlineError(f"the manifest has version {number}, this Worldline reads up to {MANIFEST_VERSION}: upgrade it")
    documents = said.get("documents", {})
    levels = {name: kind.level for name, kind in ARTIFACT_TYPES.items()}

    def ref(item: dict[str, Any]) -> ArtifactRef:
        return ArtifactRef(**{"facts": {}, "level": levels.get(item["kind"], 0), **item})

    def document(item: Any) -> dict[str, str]:
        return documents[item] if isinstance(item, str) else item  # version 1 has them in place

    executions = tuple(
        Execution(
            **{name: item[name] for name in ("key", "stage", "version", "code", "config", "seed", "inputs")},
            code_files=document(item["code_files"]),
            packages=document(item["packages"]),
            outputs=tuple(ref(output) for output in item["outputs"]),
            status="ok",
            error_type=None,
            error_message=None,
            started_at=0.0,
            seconds=0.0,
            peak_memory_bytes=0,
            machine={},
        )
        for item in said["executions"]
    )
    sources = {item["digest"]: ref(item) for item in said["sources"]}
    return Manifest(said["name"], said["version"], said["recipe"], said["artifacts"], sources, executions, said["lock"])
