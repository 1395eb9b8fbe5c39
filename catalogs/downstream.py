"""What something touched: every execution, artifact and dataset version downstream of a source, stage, file, package or model.

downstream_of(catalog, "label.moving_regions@1").datasets   # which datasets used the detector we found a bug in?
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.lineage import Subject, find, find_digits, rows_in
from catalogs.log import CommitLog
from catalogs.records import listed
from catalogs.standing import latest, standing
from schemas.canonical import hash_file
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


@dataclass(frozen=True)
class TouchedExecution:
    """An execution that something touched.

    Attributes:
        key, stage, version: of the execution.
        direct: it is, or itself used, what was asked about; else it used something made from that.
    """

    key: str
    stage: str
    version: int
    direct: bool


@dataclass(frozen=True)
class TouchedDataset:
    """A dataset version that something touched.

    Attributes:
        reference: "NAME@V".
        state: "latest", "living", "held" or "deleted".
        roles: its roles whose artifacts are touched.
        artifacts: how many artifacts it has in all.
    """

    reference: str
    state: str
    roles: tuple[str, ...]
    artifacts: int


@dataclass(frozen=True)
class Downstream:
    """Everything that something touched.

    Attributes:
        subject: what was asked about.
        executions: in the order of recording.
        artifacts: kind by digest, of what those executions made and of the artifacts asked about.
        datasets: by name and version.
    """

    subject: Subject
    executions: tuple[TouchedExecution, ...]
    artifacts: dict[str, str]
    datasets: tuple[TouchedDataset, ...]


def downstream_of(catalog: "Catalog", identifier: str) -> Downstream:
    """Return what an identifier touched.

    Args:
        catalog: the workspace.
        identifier: a stage ("label.moving_regions") or version of one ("label.moving_regions@1"), a code file
            ("stages/label/floating.py"), one state of it ("FILE@FINGERPRINT") or a constant in it ("FILE:NAME@VALUE"), a
            package ("numpy==2.1.3", "numpy==2.1.*"), the path of a file or folder that was a source, the name of a source
            or of a model, a text that is a setting in a config (a model's "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"), a dataset
            version, an artifact's digest, an execution's key, or a question id.

    Raises:
        WorldlineError: if nothing recorded has this identifier; the message names the nearest.
    """
    subject = _subject(catalog, identifier)
    if subject.what == "dataset":  # what used its artifacts, not what made them
        subject = dataclasses.replace(subject, keys=())
    keys, digests = follow(catalog.log, subject.keys, subject.digests)
    users = {
        key for (key,) in rows_in(catalog.log, "SELECT key FROM edges WHERE direction = 'in' AND digest IN", subject.digests)
    }
    direct = users | set(subject.keys)
    found = rows_in(catalog.log, "SELECT key, stage, number, body FROM executions WHERE key IN", keys)
    recorded = sorted((number, key, stage, json.loads(body)["version"]) for key, stage, number, body in found)
    executions = tuple(TouchedExecution(key, stage, version, key in direct) for _, key, stage, version in recorded)
    artifacts = dict(rows_in(catalog.log, "SELECT digest, kind FROM artifacts WHERE digest IN", digests))
    return Downstream(subject, executions, dict(sorted(artifacts.items())), _datasets(catalog.log, digests))


def follow(log: CommitLog, keys: Iterable[str], digests: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the executions and artifacts downstream of some executions and artifacts, these included."""
    keys, digests = set(keys), set(digests)
    new_keys, new_digests = set(keys), set(digests)
    while new_keys or new_digests:
        outputs = rows_in(log, "SELECT digest FROM edges WHERE direction = 'out' AND key IN", new_keys)
        new_digests |= {digest for (digest,) in outputs} - digests
        digests |= new_digests
        users = rows_in(log, "SELECT key FROM edges WHERE direction = 'in' AND digest IN", new_digests)
        new_keys = {key for (key,) in users} - keys
        keys |= new_keys
        new_digests = set()
    return keys, digests


def _datasets(log: CommitLog, digests: set[str]) -> tuple[TouchedDataset, ...]:
    stands = {item.reference: item for item in standing(log)}
    newest = latest(log)
    touched = []
    for version in log.datasets():
        roles = tuple(role for role, digest in sorted(version.artifacts.items()) if digest in digests)
        if not roles:
            continue
        stand = stands.get(version.reference)
        if stand is None:
            state = "deleted"
        elif stand.held is not None:
            state = "held"
        else:
            state = "latest" if newest[version.name] == version.version else "living"
        touched.append(TouchedDataset(version.reference, state, roles, len(version.artifacts)))
    return tuple(touched)


# -- what an identifier stands for ------------------------------------------------------------------------------------


def _subject(catalog: "Catalog", identifier: str) -> Subject:
    log = catalog.log
    if "==" in identifier:
        return _package(log, identifier)
    digits = find_digits(catalog, identifier)  # first, because it asks indexes only
    if digits is not None:
        return digits
    stages = [stage for (stage,) in log.rows("SELECT DISTINCT stage FROM executions ORDER BY stage")]
    name, _, state = identifier.partition("@")
    if name in stages:
        return _stage(log, name, state.removeprefix("v"))
    files = _documents(log, "code_files")
    if any(name in document for document in files.values()):
        return _code_file(log, name, state, files)
    if Path(identifier).expanduser().exists():
        return _path(catalog, Path(identifier).expanduser())
    named = _named(log, identifier)
    if named:
        return Subject("source", identifier, (), tuple(named))
    using = _configured(log, identifier.removeprefix("model:"))
    if using:
        return Subject("setting", identifier, tuple(using), ())
    found = find(catalog, identifier)
    if found is not None:
        return found
    datasets = [dataset for (dataset,) in log.rows("SELECT DISTINCT name FROM datasets")]
    known = {*stages, *datasets, *_names(log), *(file for document in files.values() for file in document if ":" not in file)}
    near = difflib.get_close_matches(identifier, sorted(known), n=3, cutoff=0.5)
    recorded = {document[name] for document in _documents(log, "packages").values() if name in document}
    if recorded:
        raise WorldlineError(
            f"{name} is a package: name its version, as in {' or '.join(f'{name}=={v}' for v in sorted(recorded))}"
        )
    hint = f"did you mean {' or '.join(near)}?" if near else "name a stage, code file, package, source, artifact or dataset"
    raise WorldlineError(f"nothing recorded in {catalog.home} is or used {identifier}: {hint}")


def _stage(log: CommitLog, stage: str, version: str) -> Subject:
    rows = log.rows("SELECT key, body FROM executions WHERE stage = ? ORDER BY key", (stage,))
    by_version: dict[str, list[str]] = {}
    for key, body in rows:
        by_version.setdefault(str(json.loads(body)["version"]), []).append(key)
    if not version:
        return Subject("stage", stage, tuple(key for key, _ in rows), ())
    if version not in by_version:
        raise WorldlineError(f"{stage} never ran as version {version}: it ran as {', '.join(sorted(by_version))}")
    return Subject("stage version", f"{stage}@{version}", tuple(by_version[version]), ())


def _documents(log: CommitLog, column: str) -> dict[int, dict[str, str]]:
    """Return the distinct documents that executions have in a column, by number."""
    query = f"SELECT id, body FROM documents WHERE id IN (SELECT DISTINCT {column} FROM executions)"
    return {number: json.loads(body) for number, body in log.rows(query)}


def _with_document(log: CommitLog, column: str, numbers: Iterable[int]) -> tuple[str, ...]:
    keys: list[str] = []
    for number in numbers:
        keys += [key for (key,) in log.rows(f"SELECT key FROM executions WHERE {column} = ?", (number,))]
    return tuple(sorted(keys))


def _code_file(log: CommitLog, file: str, state: str, documents: dict[int, dict[str, str]]) -> Subject:
    states = {document[file] for document in documents.values() if file in document}
    if state and not any(known.startswith(state) for known in states):
        raise WorldlineError(f"{file} was never used with the fingerprint {state}: it was with {listed(sorted(states))}")
    numbers = [number for number, document in documents.items() if file in document and document[file].startswith(state)]
    return Subject("code file", f"{file}@{state}" if state else file, _with_document(log, "code_files", numbers), ())


def _package(log: CommitLog, identifier: str) -> Subject:
    package, _, asked = (part.strip() for part in identifier.partition("=="))
    documents = _documents(log, "packages")
    recorded = {document[package] for document in documents.values() if package in document}
    if not recorded:
        names = sorted({name for document in documents.values() for name in document})
        near = difflib.get_close_matches(package, names, n=3, cutoff=0.5) or names
        raise WorldlineError(f"no recorded execution says which {package} it ran with: recorded are {', '.join(near)}")

    def matches(version: str) -> bool:
        return version.startswith(asked[:-1]) if asked.endswith(".*") else version == asked

    if not any(matches(version) for version in recorded):
        raise WorldlineError(f"nothing ran with {identifier}: executions ran with {package} {', '.join(sorted(recorded))}")
    numbers = [number for number, document in documents.items() if package in document and matches(document[package])]
    return Subject("package", identifier, _with_document(log, "packages", numbers), ())


def _path(catalog: "Catalog", path: Path) -> Subject:
    """Find the sources that hold a file, or any file of a folder, by its bytes."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    hashes = {hash_file(file) for file in files}
    digests = [ref.digest for ref in catalog.log.artifacts("Source") if hashes & set(ref.parts.values())]
    if not digests:
        raise WorldlineError(
            f"no source in {catalog.home} holds the bytes of {path}: it was never built from, or was changed since"
        )
    return Subject("source", str(path), (), tuple(digests))


def _named(log: CommitLog, name: str) -> list[str]:
    """Return the sources and models that people call so, or that hold a file of this name."""
    refs = [ref for kind in ("Source", "Model") for ref in log.artifacts(kind)]
    return [ref.digest for ref in refs if ref.facts.get("name") == name or f"files/{name}" in ref.parts]


def _names(log: CommitLog) -> list[str]:
    refs = [ref for kind in ("Source", "Model") for ref in log.artifacts(kind)]
    return sorted({ref.facts["name"] for ref in refs if ref.facts.get("name")})


def _configured(log: CommitLog, value: str) -> list[str]:
    """Return the executions whose config has exactly this text as a setting that is not a number."""
    pattern = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = log.rows("SELECT key, body FROM executions WHERE body LIKE ? ESCAPE '\\' ORDER BY key", (f"%{pattern}%",))
    return [key for key, body in rows if value in _texts(json.loads(json.loads(body)["config"]))]


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for item in value.values() for text in _texts(item)}
    if isinstance(value, list):
        return {text for item in value for text in _texts(item)}
    return {value} if isinstance(value, str) else set()
