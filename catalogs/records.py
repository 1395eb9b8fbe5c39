"""What the catalog remembers: artifacts, executions and dataset versions, and the one Arrow schema that holds them.

Every commit is a Parquet file of rows in the schema `RECORDS`; a row's `record` says what it is:

- "execution": a stage ran. A later one for the same key supersedes it (only written where its objects were lost).
- "error": a stage failed. Never a hit.
- "drift": outputs of an execution whose key had other digests on record.
- "source": an artifact that no execution made.
- "dataset": a published version.
- anything in `NOTES`: what people and the catalog say about a subject later; the newest note on a subject counts.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
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
        held: why the publish gate keeps this version from being the latest, or None.
        splits: "train", "val" or "test" by clip (the part of a role before its "/", "" where there is none).
        rejected: question ids and artifact digests that a person had rejected when it was published.
        facts: what it held when it was published: `bytes`, `clips`, `rows` by table, `splits` (clips by split).
    """

    name: str
    version: int
    recipe: dict[str, Any]
    artifacts: dict[str, str]
    executions: tuple[str, ...]
    lock: dict[str, Any]
    manifest: str
    published_at: float
    held: str | None = None
    splits: dict[str, str] = dataclasses.field(default_factory=dict)
    rejected: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Heading:
    """A dataset version without what grows with its size, so that listing versions of 100,000 clips costs nothing.

    Attributes:
        name, version, recipe, lock, manifest, published_at, held: as in `DatasetVersion`.
        commit: number of the commit that published it.
        artifacts, executions, rejected: how many there are of each.
        facts: as in `DatasetVersion`.
    """

    name: str
    version: int
    recipe: dict[str, Any]
    lock: dict[str, Any]
    manifest: str
    published_at: float
    held: str | None
    commit: int
    artifacts: int
    executions: int
    rejected: int
    facts: dict[str, Any]

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


NOTES = {
    "tag": "NAME@TAG: the version that a tag names (`version`, null where the tag was removed)",
    "deleted": "NAME@V: this version was deleted by a person",
    "tables": "NAME@V: the consolidated Parquet files of this version (`tables`: SHA-256 list by table)",
    "review": "a digest, a question id or NAME@V: a person's `verdict`, accept or reject",
    "terms": "artifact digest: `licence` (SPDX), `terms`, `attribution`, `place`, as its owner gave them",
    "takedown": "source digest: it was withdrawn and may not come in again",
    "removal": "a unique name: these artifacts (`digests`) and executions (`keys`) were removed on purpose",
}


@dataclass(frozen=True)
class Note:
    """Something said about a subject after it was recorded.

    Attributes:
        record: a key of `NOTES`.
        subject: what it is about.
        body: what is said, in plain JSON types.
        reason, author: why and by whom, where a person said it.
        recorded_at: Unix time in seconds.
    """

    record: str
    subject: str
    body: dict[str, Any]
    reason: str | None = None
    author: str | None = None
    recorded_at: float = 0.0


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
        ("held", pa.string()),
        ("splits", pa.string()),
        ("rejected", pa.list_(pa.string())),
        ("facts", pa.string()),  # of a dataset version
        ("subject", pa.string()),
        ("body", pa.string()),
        ("reason", pa.string()),
        ("author", pa.string()),
    ]
)
Record = dict[str, Any]


def listed(items: Sequence[str]) -> str:
    """Return names for a message, digests cut to what a person needs."""
    return ", ".join(item[:16] for item in items)


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
        "held": version.held,
        "splits": canonical_json(version.splits),
        "rejected": list(version.rejected),
        "facts": canonical_json(version.facts),
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
        held=row.get("held"),
        splits=json.loads(row.get("splits") or "{}"),
        rejected=tuple(row.get("rejected") or ()),
        facts=json.loads(row.get("facts") or "{}"),
    )


def heading_row(row: Record) -> Record:
    """Return a dataset row of `RECORDS` with counts in place of what grows with the version's size."""
    counted = {"roles": len(row["roles"]), "executions": len(row["executions"]), "rejected": len(row["rejected"] or ())}
    kept = ("dataset", "dataset_version", "recipe", "lock", "manifest", "recorded_at", "held", "commit", "facts")
    return {**{name: row[name] for name in kept}, **counted}


def read_heading(row: Record) -> Heading:
    """Return the `Heading` in what `heading_row` made."""
    return Heading(
        name=row["dataset"],
        version=row["dataset_version"],
        recipe=json.loads(row["recipe"]),
        lock=json.loads(row["lock"]),
        manifest=row["manifest"],
        published_at=row["recorded_at"],
        held=row["held"],
        commit=row["commit"],
        artifacts=row["roles"],
        executions=row["executions"],
        rejected=row["rejected"],
        facts=json.loads(row.get("facts") or "{}"),
    )


def note_row(note: Note) -> Record:
    """Return a note as a row of `RECORDS`."""
    if note.record not in NOTES:
        raise ValueError(f"{note.record} is not a kind of note: {', '.join(NOTES)}")
    said = {"reason": note.reason, "author": note.author}
    return {"record": note.record, "subject": note.subject, "body": canonical_json(note.body), **said}


def read_note(row: Record) -> Note:
    """Invert `note_row`."""
    body = json.loads(row["body"])
    return Note(row["record"], row["subject"], body, row.get("reason"), row.get("author"), row["recorded_at"])
