"""Where an artifact came from: the closure of executions upstream of it, as a list, a table and a manifest."""

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalogs.log import CommitLog
from catalogs.records import ArtifactRef, Execution, listed, output_slots
from schemas.artifact import rows_to_table
from schemas.canonical import canonical_json
from schemas.errors import WorldlineError
from schemas.reports import LINEAGE_EDGES, LINEAGE_NODES, Lineage

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

MANIFEST_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{4,64}")


def upstream(log: CommitLog, digests: Sequence[str]) -> list[Execution]:
    """Return every execution upstream of artifacts, makers before users.

    Where several executions made the same artifact, the first recorded one counts; its inputs were recorded before
    it, so that the closure has no cycle. The order depends on names and digests only, not on when things ran.
    """
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
        producer = log.producer(digest)
        if producer is None or producer.key in ordered:
            continue
        stack.append((digest, producer))
        stack.extend((producer.inputs[name], None) for name in sorted(producer.inputs, reverse=True))
    return list(ordered.values())


def lineage_of(catalog: "Catalog", identifier: str) -> Lineage:
    """Return all executions upstream of an artifact (digest or prefix), execution (key), dataset version or question.

    Raises:
        WorldlineError: if nothing has this identifier; the message names the nearest.
    """
    if "@" in identifier or catalog.log.datasets(identifier):
        version = catalog.dataset(identifier)
        return as_artifact([found for key in version.executions if (found := catalog.log.execution(key))], catalog.log)
    if _HEX.fullmatch(identifier):
        query = "SELECT key FROM executions WHERE key >= ? AND key < ? ORDER BY key LIMIT 5"
        keys = [key for (key,) in catalog.log.rows(query, (identifier, identifier + "g"))]
        digests = catalog.digests_like(identifier)
        if len(keys) == 1 and not digests:
            execution = catalog.log.execution(keys[0])
            assert execution is not None
            return as_artifact([*upstream(catalog.log, sorted(execution.inputs.values())), execution], catalog.log)
        if (keys and digests) or len(keys) > 1:
            raise WorldlineError(f"{identifier} could mean {listed(keys + digests)}: give more digits")
        if digests:
            return as_artifact(upstream(catalog.log, [catalog.artifact(identifier).digest]), catalog.log)
    questions = _questions_like(catalog, identifier)
    if len(questions) == 1:
        return as_artifact(upstream(catalog.log, questions), catalog.log)
    if questions:
        raise WorldlineError(
            f"{identifier} is the question id in {len(questions)} artifacts {listed(questions)}: give one of these"
        )
    names = difflib.get_close_matches(identifier, sorted({version.name for version in catalog.log.datasets()}), n=3, cutoff=0.4)
    hint = f"; did you mean the dataset {listed(names)}?" if names else ": give NAME@3, or four or more digits of a digest"
    raise WorldlineError(f"no artifact, execution, dataset or question {identifier} in {catalog.home}{hint}")


def _questions_like(catalog: "Catalog", identifier: str) -> list[str]:
    quoted = identifier.replace("'", "''")
    exact = catalog.sql(f"SELECT DISTINCT artifact FROM labels WHERE question_id = '{quoted}' ORDER BY 1")
    if not exact.num_rows and len(identifier) >= 4:
        exact = catalog.sql(f"SELECT DISTINCT artifact FROM labels WHERE starts_with(question_id, '{quoted}') ORDER BY 1")
    return exact.column(0).to_pylist()


def as_artifact(executions: Sequence[Execution], log: CommitLog) -> Lineage:
    """Return executions and the artifacts between them as the tables that reports draw."""
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for execution in executions:
        config = canonical_json(execution.config)
        nodes.append({"execution_key": execution.key, "stage": execution.stage, "version": execution.version,
                      "config": config, "seed": execution.seed})  # fmt: skip
        for slot, digest in sorted(execution.inputs.items()):
            known = log.artifact(digest)
            edges.append(_edge(execution.key, slot, "in", known.kind if known else "", digest))
        for slot, ref in zip(output_slots(execution.outputs), execution.outputs, strict=True):
            edges.append(_edge(execution.key, slot, "out", ref.kind, ref.digest))
    return Lineage(nodes=rows_to_table(LINEAGE_NODES, nodes), edges=rows_to_table(LINEAGE_EDGES, edges))


def _edge(key: str, slot: str, direction: str, kind: str, digest: str) -> dict[str, Any]:
    return {"execution_key": key, "slot": slot, "direction": direction, "kind": kind, "digest": digest}


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

    `sources` are the artifacts that no execution made; a rebuild must be given their bytes.
    """
    made = {ref.digest for execution in executions for ref in execution.outputs}
    needed = {digest for execution in executions for digest in execution.inputs.values()} | set(artifacts.values())
    sources = [ref for digest in sorted(needed - made) if (ref := log.artifact(digest)) is not None]
    return {
        "manifest": MANIFEST_VERSION,
        "name": name,
        "version": version,
        "recipe": recipe,
        "artifacts": dict(sorted(artifacts.items())),
        "sources": [_described(ref) for ref in sources],
        "executions": [
            {
                "key": execution.key,
                "stage": execution.stage,
                "version": execution.version,
                "code": execution.code,
                "code_files": execution.code_files,
                "config": execution.config,
                "seed": execution.seed,
                "inputs": execution.inputs,
                "outputs": [_described(ref) for ref in execution.outputs],
                "packages": execution.packages,
            }
            for execution in executions
        ],
        "lock": lock,
    }


def _described(ref: ArtifactRef) -> dict[str, Any]:
    return {"digest": ref.digest, "kind": ref.kind, "schema_version": ref.schema_version, "bytes": ref.bytes, "parts": ref.parts}
