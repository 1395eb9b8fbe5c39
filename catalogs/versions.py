"""Dataset versions: published once, immutable, told apart by what they hold."""

import dataclasses
import difflib
import re
from typing import TYPE_CHECKING, Any

from catalogs import lineage
from catalogs.log import CommitLog
from catalogs.records import DatasetVersion, dataset_row, listed
from schemas.canonical import TaggedHash, canonical_json
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_dataset_name(name: str) -> None:
    """Raise a `WorldlineError` if a dataset cannot have this name."""
    if not _DATASET_NAME.fullmatch(name):
        raise WorldlineError(
            f"{name!r} cannot name a dataset: use up to 100 letters, digits, dots, dashes and underscores, "
            "starting with a letter or digit"
        )


def publish(
    catalog: "Catalog", name: str, recipe: dict[str, Any], artifacts: dict[str, str], lock: dict[str, Any]
) -> DatasetVersion:
    """Publish a new version of a dataset, or return the latest one if recipe and artifacts are the same.

    Args:
        catalog: the workspace.
        name: letters, digits, dots, dashes and underscores.
        recipe: the resolved config.
        artifacts: artifact digest by role.
        lock: package versions of the environment.

    Raises:
        WorldlineError: if the name is not allowed, or an artifact is unknown, not recorded, or not whole.
    """
    check_dataset_name(name)
    refs = {role: catalog.log.artifact(digest) for role, digest in sorted(artifacts.items())}
    for role, ref in refs.items():
        if ref is None or not catalog.whole(ref):
            raise WorldlineError(
                f"{name} cannot be published: its {role} {artifacts[role][:12]} is not in the catalog; build it again"
            )
    executions = lineage.upstream(catalog.log, sorted(artifacts.values()))
    fingerprint = TaggedHash("dataset/1").json(recipe).json(artifacts).hexdigest()
    with catalog.log.write() as commit:
        latest = commit.latest(name)
        if latest is not None and latest[1] == fingerprint:
            return latest[0]
        number = latest[0].version + 1 if latest else 1
        manifest = lineage.manifest(name, number, recipe, artifacts, executions, lock, catalog.log)
        digest = catalog.objects.put_bytes(canonical_json(manifest).encode())
        keys = tuple(execution.key for execution in executions)
        version = DatasetVersion(name, number, recipe, dict(sorted(artifacts.items())), keys, lock, digest, published_at=0.0)
        row = commit.append(dataset_row(version, fingerprint))
    return dataclasses.replace(version, published_at=row["recorded_at"])


def living(log: CommitLog, name: str | None = None) -> list[DatasetVersion]:
    """Return the versions that were not deleted, of one dataset or of all, by name and version."""
    deleted = {note.subject for note in log.notes("deleted")}
    return [version for version in log.datasets(name) if version.reference not in deleted]


def latest(log: CommitLog) -> dict[str, int]:
    """Return the version that each dataset's bare name stands for: the last one that lives and is not held."""
    return {version.name: version.version for version in living(log) if version.held is None}


def resolve(log: CommitLog, reference: str) -> DatasetVersion:
    """Return a version by "NAME@3", or the latest one by "NAME".

    Raises:
        WorldlineError: if there is none; the message names what there is.
    """
    name, _, number = reference.partition("@")
    known = living(log, name)
    if not known:
        names = sorted({version.name for version in living(log)})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        hint = f"there is {listed(near)}" if near else "nothing has been published here yet"
        raise WorldlineError(f"no dataset {name} in {log.tables.parent}: {hint}")
    if not number:
        return known[-1]
    for version in known:
        if str(version.version) == number.removeprefix("v"):
            return version
    raise WorldlineError(f"{name} has no version {number}: it has {known[0].version} to {known[-1].version}")
