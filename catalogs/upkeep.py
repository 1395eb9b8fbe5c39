"""Looking after a workspace: hash every object again, and remove what nothing needs."""

import json
import time
from typing import TYPE_CHECKING

from catalogs.records import DatasetVersion

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


def verify(catalog: "Catalog", dataset: str | None = None) -> list[tuple[str, str]]:
    """Hash every object, or those of one dataset version and of all executions that it came from.

    Nothing is changed: an object found damaged can be deleted, then the next build makes it again.

    Returns:
        The SHA-256 of each bad object with "damaged" or "missing", sorted.
    """
    needed = referenced(catalog, catalog.dataset(dataset) if dataset else None)
    checked = needed if dataset else needed | set(catalog.objects.all())
    found = {
        name: "damaged" if catalog.objects.exists(name) else "missing" for name in checked if not catalog.objects.verify(name)
    }
    return sorted(found.items())


def referenced(catalog: "Catalog", version: DatasetVersion | None = None) -> set[str]:
    """Objects that recorded artifacts and datasets refer to, or those that one dataset version came from."""
    if version is not None:
        executions = [found for key in version.executions if (found := catalog.log.execution(key))]
        refs = [ref for execution in executions for ref in execution.outputs]
        given = [catalog.log.artifact(digest) for digest in version.artifacts.values()]
        given += [catalog.log.artifact(digest) for execution in executions for digest in execution.inputs.values()]
        refs += [ref for ref in given if ref is not None]
        return {version.manifest, *(name for ref in refs for name in ref.parts.values())}
    names = {version.manifest for version in catalog.log.datasets()}
    for (body,) in catalog.log.rows("SELECT body FROM artifacts"):
        names.update(part["sha256"] for part in json.loads(body)["parts"])
    for (body,) in catalog.log.rows("SELECT body FROM executions"):
        names.update(part["sha256"] for output in json.loads(body)["outputs"] for part in output["parts"])
    return names


def collect_garbage(catalog: "Catalog", *, dry_run: bool = True, grace_seconds: float = 7 * 86400.0) -> list[tuple[str, int]]:
    """Remove objects that nothing recorded refers to, and merge commit files.

    Args:
        catalog: the workspace.
        dry_run: only tell what would go.
        grace_seconds: objects put or touched later than this ago stay: a running build may be about to record them.

    Returns:
        SHA-256 and size in bytes of each object that goes.
    """
    with catalog.log.write():
        newest = time.time() - grace_seconds
        unused = [name for name in catalog.objects.all() if catalog.objects.untouched_since(name, newest)]
        needed = referenced(catalog)
        gone = [(name, catalog.objects.size(name) or 0) for name in unused if name not in needed]
        if not dry_run:
            catalog.objects.discard([name for name, _ in gone])
    if not dry_run:
        catalog.log.compact()
    return gone
