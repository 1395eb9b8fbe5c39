"""Where an artifact came from: the closure of executions upstream of it, as a list, a table and a manifest."""

from collections.abc import Sequence
from typing import Any

from catalogs.log import CommitLog
from catalogs.records import ArtifactRef, Execution, output_slots
from schemas.artifact import rows_to_table
from schemas.canonical import canonical_json
from schemas.reports import LINEAGE_EDGES, LINEAGE_NODES, Lineage

MANIFEST_VERSION = 1


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
