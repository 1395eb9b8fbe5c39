"""What the catalog remembers: artifacts, executions and dataset versions, and the one Arrow schema that holds them.

Every commit is a Parquet file of rows in the schema `RECORDS`; a row's `record` says what it is:

- "execution": a stage ran. A later one for the same key supersedes it (only written where its objects were lost).
- "error": a stage failed. Never a hit.
- "drift": outputs of an execution whose key had other digests on record.
- "source": an artifact that no execution made.
- "dataset": a published version.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.canonical import canonical_json


@dataclass(frozen=True)
class ArtifactRef:
    """An artifact by its content digest, as flows and records carry it: no arrays, no paths.

    Attributes:
        digest: content digest of the artifact.
        kind, schema_version, level: of its type.
        bytes: total size of its parts.
        facts: a few figures for listings.
        parts: SHA-256 of each stored part, by part name.
    """

    digest: str
    kind: str
    schema_version: int
    level: int
    bytes: int
    facts: dict[str, Any]
    parts: dict[str, str]


@dataclass(frozen=True)
class Execution:
    """One run of a stage: what went in, what came out, and everything that its key was made of.

    Attributes:
        key: execution key.
        stage, version, code: name, declared version and code fingerprint of the stage.
        code_files: fingerprint of each source file behind `code`.
        config: resolved config in plain JSON types.
        seed: random seed.
        inputs: artifact digest by parameter name.
        outputs: artifacts in the order of the stage's return annotation; empty for an error.
        status: "ok" or "error".
        error_type, error_message: of an error, else None.
        started_at: Unix time in seconds.  seconds: wall time.  peak_memory_bytes: of the process.
        machine, packages: where it ran and with which versions.
    """

    key: str
    stage: str
    version: int
    code: str
    code_files: dict[str, str]
    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    outputs: tuple[ArtifactRef, ...]
    status: str
    error_type: str | None
    error_message: str | None
    started_at: float
    seconds: float
    peak_memory_bytes: int
    machine: dict[str, Any]
    packages: dict[str, str]


@dataclass(frozen=True)
class DatasetVersion:
    """An immutable published version.

    Attributes:
        name, version: `name@version` names it.
        recipe: the resolved config that built it.
        artifacts: artifact digest by role.
        executions: keys of all executions upstream of the artifacts, inputs first.
        lock: package versions of the environment.
        manifest: SHA-256 of the manifest object, which alone suffices to rebuild the version.
        published_at: Unix time in seconds.
    """

    name: str
    version: int
    recipe: dict[str, Any]
    artifacts: dict[str, str]
    executions: tuple[str, ...]
    lock: dict[str, Any]
    manifest: str
    published_at: float

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


_PART = pa.struct([("name", pa.string()), ("sha256", pa.string())])
_OUTPUT = pa.struct(
    [
        ("slot", pa.string()),
        ("digest", pa.string()),
        ("kind", pa.string()),
        ("schema_version", pa.int32()),
        ("level", pa.int32()),
        ("bytes", pa.int64()),
        ("facts", pa.string()),
        ("parts", pa.list_(_PART)),
    ]
)
RECORDS = pa.schema(
    [
        ("commit", pa.int64()),
        ("record", pa.string()),
        ("recorded_at", pa.float64()),
        ("key", pa.string()),
        ("stage", pa.string()),
        ("version", pa.int32()),
        ("code", pa.string()),
        ("code_files", pa.string()),
        ("config", pa.string()),
        ("seed", pa.int64()),
        ("inputs", pa.list_(pa.struct([("slot", pa.string()), ("digest", pa.string())]))),
        ("outputs", pa.list_(_OUTPUT)),
        ("status", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("started_at", pa.float64()),
        ("seconds", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("machine", pa.string()),
        ("packages", pa.string()),
        ("dataset", pa.string()),
        ("dataset_version", pa.int32()),
        ("manifest", pa.string()),
        ("fingerprint", pa.string()),  # of recipe and artifacts
        ("recipe", pa.string()),
        ("roles", pa.list_(pa.struct([("role", pa.string()), ("digest", pa.string())]))),
        ("executions", pa.list_(pa.string())),
        ("lock", pa.string()),
    ]
)
Record = dict[str, Any]


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts in JSON's types; figures that are not finite become None, because JSON has no word for them."""

    def plain(value: Any) -> Any:
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return {key: plain(value) for key, value in facts.items()}


def output_row(slot: str, ref: ArtifactRef) -> Record:
    """Return an artifact as an element of the column `outputs`."""
    return {
        "slot": slot,
        "digest": ref.digest,
        "kind": ref.kind,
        "schema_version": ref.schema_version,
        "level": ref.level,
        "bytes": ref.bytes,
        "facts": canonical_json(ref.facts),
        "parts": [{"name": name, "sha256": ref.parts[name]} for name in sorted(ref.parts)],
    }


def read_output(row: Record) -> ArtifactRef:
    """Invert `output_row`."""
    return ArtifactRef(
        digest=row["digest"],
        kind=row["kind"],
        schema_version=row["schema_version"],
        level=row["level"],
        bytes=row["bytes"],
        facts=json.loads(row["facts"]),
        parts={part["name"]: part["sha256"] for part in row["parts"]},
    )


def output_slots(outputs: tuple[ArtifactRef, ...]) -> list[str]:
    """Name each output by its kind; a kind that repeats is numbered from the second one on."""
    slots: list[str] = []
    for ref in outputs:
        repeats = sum(slot.split("#")[0] == ref.kind for slot in slots)
        slots.append(f"{ref.kind}#{repeats + 1}" if repeats else ref.kind)
    return slots


def execution_row(execution: Execution, record: str) -> Record:
    """Return an execution as a row of `RECORDS`, as "execution", "error" or "drift"."""
    return {
        "record": record,
        "key": execution.key,
        "stage": execution.stage,
        "version": execution.version,
        "code": execution.code,
        "code_files": canonical_json(execution.code_files),
        "config": canonical_json(execution.config),
        "seed": execution.seed,
        "inputs": [{"slot": slot, "digest": execution.inputs[slot]} for slot in sorted(execution.inputs)],
        "outputs": [output_row(*pair) for pair in zip(output_slots(execution.outputs), execution.outputs, strict=True)],
        "status": execution.status,
        "error_type": execution.error_type,
        "error_message": execution.error_message,
        "started_at": execution.started_at,
        "seconds": execution.seconds,
        "peak_memory_bytes": execution.peak_memory_bytes,
        "machine": canonical_json(execution.machine),
        "packages": canonical_json(execution.packages),
    }


def read_execution(row: Record) -> Execution:
    """Invert `execution_row`."""
    return Execution(
        key=row["key"],
        stage=row["stage"],
        version=row["version"],
        code=row["code"],
        code_files=json.loads(row["code_files"]),
        config=json.loads(row["config"]),
        seed=row["seed"],
        inputs={item["slot"]: item["digest"] for item in row["inputs"]},
        outputs=tuple(read_output(item) for item in row["outputs"]),
        status=row["status"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        started_at=row["started_at"],
        seconds=row["seconds"],
        peak_memory_bytes=row["peak_memory_bytes"],
        machine=json.loads(row["machine"]),
        packages=json.loads(row["packages"]),
    )


def dataset_row(version: DatasetVersion, fingerprint: str) -> Record:
    """Return a dataset version as a row of `RECORDS`."""
    return {
        "record": "dataset",
        "dataset": version.name,
        "dataset_version": version.version,
        "manifest": version.manifest,
        "fingerprint": fingerprint,
        "recipe": canonical_json(version.recipe),
        "roles": [{"role": role, "digest": version.artifacts[role]} for role in sorted(version.artifacts)],
        "executions": list(version.executions),
        "lock": canonical_json(version.lock),
    }


def read_dataset(row: Record) -> DatasetVersion:
    """Invert `dataset_row`."""
    return DatasetVersion(
        name=row["dataset"],
        version=row["dataset_version"],
        recipe=json.loads(row["recipe"]),
        artifacts={item["role"]: item["digest"] for item in row["roles"]},
        executions=tuple(row["executions"]),
        lock=json.loads(row["lock"]),
        manifest=row["manifest"],
        published_at=row["recorded_at"],
    )
