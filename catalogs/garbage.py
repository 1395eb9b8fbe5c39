"""What a workspace no longer needs, and removing it without ever taking what something running needs.

What is kept: versions that were not deleted and everything they came from; what was recorded within the grace period
(and what that came from), because a build that was interrupted goes on from it; sources adopted within it. All else
is forgotten in one commit, and the bytes go after it, so that a process killed in between leaves bytes that nothing
refers to, which the next collection removes. Objects, whatever refers to them, go only when they were put before the
grace period.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from catalogs import leases
from catalogs.lineage import rows_in, upstream
from catalogs.log import CommitLog
from catalogs.records import DatasetVersion, Note, note_row
from catalogs.stores import object_digest, object_name
from catalogs.versions import living, standing
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

GRACE_SECONDS = 7 * 86_400.0
_UNRECORDED_SECONDS = 86_400.0  # longer than any build has between putting an object and recording it
_UNREFERENCED = "nothing recorded refers to it"
_AT_ONCE = 2_000


@dataclass(frozen=True)
class Garbage:
    """Something that goes.

    Attributes:
        kind: "object", "execution", "artifact" (made by one), "source", "report" or "checkpoint".
        name: SHA-256, execution key, digest, or path in the workspace.
        bytes: what removing it frees; executions, artifacts and sources free what their objects do.
        reason: why it is not needed.
    """

    kind: str
    name: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class Collection:
    """What a collection removed, or would remove.

    Attributes:
        garbage: everything that goes, by kind and name.
        building: something builds in the workspace, so that nothing that was ever recorded goes this time.
    """

    garbage: tuple[Garbage, ...]
    building: bool


def collect_garbage(catalog: "Catalog", *, dry_run: bool = True, grace_seconds: float = GRACE_SECONDS) -> Collection:
    """Remove what nothing needs, and merge commit files.

    While something builds, only objects go that nothing recorded refers to (none, in a remote store) and that were put
    more than a day ago, whatever the grace period: a build is about to record what it puts.

    Args:
        catalog: the workspace.
        dry_run: only tell what would go.
        grace_seconds: what was recorded or put later than this ago stays.

    Raises:
        WorldlineError: if the workspace cannot be used or its disk is full; then nothing recorded was forgotten.
    """
    since = time.time() - grace_seconds
    with catalog.log.lease(exclusive=True) as alone:
        put_before = since if alone else min(since, time.time() - _UNRECORDED_SECONDS)
        if alone and not dry_run:
            _finish_takedowns(catalog)
        with catalog.log.write() as commit:  # nothing is recorded while it is decided what goes
            keys, digests = _kept(catalog.log, since)
            forgotten = _forgotten(catalog.log, keys, digests) if alone else []
            loose = _loose_objects(catalog, forgotten, put_before) if alone or not catalog.store.remote else []
            if not dry_run:  # first what needs no record: a full disk may have no space for one
                _remove_objects(catalog, [item for item in loose if item.reason == _UNREFERENCED], put_before)
            if not dry_run and forgotten:
                commit.append(note_row(_removal(commit.number, forgotten)))
        files = [*_old_reports(catalog), *_old_checkpoints(catalog, since)] if alone else []
        if not dry_run and alone:
            _remove_objects(catalog, loose, put_before)
            _remove_files(catalog, files)
    if not dry_run:
        catalog.log.compact()
    found = sorted([*forgotten, *loose, *files], key=lambda item: (item.kind, item.name))
    return Collection(tuple(found), building=not alone)


# -- what records refer to ---------------------------------------------------------------------------------------------


def referenced(catalog: "Catalog") -> set[str]:
    """Return the objects that recorded artifacts, executions and living versions refer to."""
    return _needed(catalog.log, frozenset(), frozenset())


def bodies(log: CommitLog, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key and body of every row of "executions" (documents left out) or "artifacts"; memory stays bounded."""
    key, last = ("key" if table == "executions" else "digest"), ""
    while rows := log.rows(f"SELECT {key}, body FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {_AT_ONCE}", (last,)):
        for name, body in rows:
            yield name, json.loads(body)
        last = rows[-1][0]


def objects_of_version(log: CommitLog, version: DatasetVersion) -> dict[str, str]:
    """Return the objects that are a version's own, each with what it is: its manifest and its consolidated tables."""
    note = log.note("tables", version.reference)
    tables = note.body["tables"] if note is not None else {}
    return {version.manifest: "manifest", **{sha256: f"table {name}" for name, names in tables.items() for sha256 in names}}


def _needed(log: CommitLog, keys: Iterable[str], digests: Iterable[str]) -> set[str]:
    """Return the objects that anything refers to but these executions and artifacts."""
    names = {sha256 for version in living(log) for sha256 in objects_of_version(log, version)}
    for table, without in (("executions", keys), ("artifacts", digests)):
        for name, body in bodies(log, table):
            if name not in without:
                names |= objects_of_body(body)
    return names


def objects_of_body(body: dict[str, Any]) -> set[str]:
    """Return the objects of an artifact, or of an execution's outputs."""
    return {part["sha256"] for output in body.get("outputs", [body]) for part in output["parts"]}


# -- what goes ---------------------------------------------------------------------------------------------------------


def _kept(log: CommitLog, since: float) -> tuple[set[str], set[str]]:
    """Return the executions (keys) and artifacts (digests) that living versions or what was recorded since a time need."""
    first = _first_commit_since(log, since)
    keys = {key for (key,) in log.rows("SELECT key FROM executions WHERE number >= ?", (first,))}
    digests = {digest for (digest,) in log.rows("SELECT digest FROM artifacts WHERE number >= ?", (first,))}
    inputs = {digest for (digest,) in rows_in(log, "SELECT digest FROM edges WHERE direction = 'in' AND key IN", keys)}
    keys |= {execution.key for execution in upstream(log, sorted(inputs | digests))}
    for version in living(log):
        keys.update(version.executions)
        digests.update(version.artifacts.values())
    digests |= {digest for (digest,) in rows_in(log, "SELECT digest FROM edges WHERE key IN", keys)}
    return keys, digests


def _first_commit_since(log: CommitLog, since: float) -> int:
    """Return the number of the first commit recorded since a time, or one that no commit has yet."""
    first = 1 << 62
    for (name,) in log.rows("SELECT name FROM files ORDER BY first DESC"):
        try:
            table = pq.read_table(log.store.local(f"tables/{name}"), columns=["commit", "recorded_at"])
        except (OSError, ValueError) as error:
            raise WorldlineError(
                f"nothing was removed: tables/{name} in {log.store.address} cannot be read ({error}): run `worldline repair`"
            ) from error
        recent = [number for number, at in zip(*table.to_pydict().values(), strict=True) if at >= since]
        if not recent and table.num_rows:
            break  # all earlier ones are older
        first = min([first, *recent])
    return first


def _forgotten(log: CommitLog, keys: set[str], digests: set[str]) -> list[Garbage]:
    """Return the executions that are not kept, and the artifacts of which none made by a kept one is left."""
    alive = {item.reference for item in standing(log)}
    deleted = [version for version in log.datasets() if version.reference not in alive]
    of_version = {name: version.reference for version in deleted for name in (*version.executions, *version.artifacts.values())}

    def reason(name: str) -> str:
        return f"of the deleted version {of_version[name]}" if name in of_version else "of no version, past the grace period"

    runs = [key for (key,) in log.rows("SELECT key FROM executions") if key not in keys]
    made = {digest for (digest,) in log.rows("SELECT DISTINCT digest FROM edges WHERE direction = 'out'")}
    artifacts = [digest for (digest,) in log.rows("SELECT digest FROM artifacts") if digest not in digests]
    return [
        *(Garbage("execution", key, 0, reason(key)) for key in runs),
        *(Garbage("artifact" if digest in made else "source", digest, 0, reason(digest)) for digest in artifacts),
    ]


def _removal(number: int, forgotten: list[Garbage]) -> Note:
    keys = [item.name for item in forgotten if item.kind == "execution"]
    digests = [item.name for item in forgotten if item.kind != "execution"]
    return Note("removal", f"gc-{number}", {"keys": keys, "digests": digests}, reason="nothing needed it", author="gc")


def _loose_objects(catalog: "Catalog", forgotten: list[Garbage], since: float) -> list[Garbage]:
    """Return the objects put before a time that nothing refers to once these executions and artifacts are forgotten."""
    gone = {item.name for item in forgotten}
    needed = _needed(catalog.log, gone, gone)
    reasons: dict[str, str] = {}
    for table, kinds in (("executions", ("execution",)), ("artifacts", ("artifact", "source"))):
        reason = {item.name: item.reason for item in forgotten if item.kind in kinds}
        for name, body in bodies(catalog.log, table) if reason else ():
            if name in reason:
                reasons.update(dict.fromkeys(objects_of_body(body), reason[name]))
    found = []
    for entry in catalog.store.entries("objects"):
        sha256 = object_digest(entry.name)
        if sha256 is not None and sha256 not in needed and entry.modified < since:
            found.append(Garbage("object", sha256, entry.size, reasons.get(sha256, _UNREFERENCED)))
    return found


def _old_reports(catalog: "Catalog") -> list[Garbage]:
    """Return the reports of deleted versions, beside their objects in the folder `reports`."""
    alive = {f"{item.name}-{item.version}" for item in standing(catalog.log)}
    dead = {f"{item.name}-{item.version}": item.reference for item in catalog.log.headings()}
    found = []
    for path in sorted((catalog.home / "reports").glob("*.html")):
        owners = [stem for stem in dead if path.stem == stem or path.stem.startswith(f"{stem}-")]
        if owners and not alive.intersection(owners):
            reason = f"of the deleted version {dead[max(owners, key=len)]}"
            found.append(Garbage("report", f"reports/{path.name}", path.stat().st_size, reason))
    return found


def _old_checkpoints(catalog: "Catalog", since: float) -> list[Garbage]:
    """Return the checkpoints that nobody went on from since a time."""
    found = []
    for folder in sorted((catalog.home / "checkpoints").iterdir()):
        stats = [path.stat() for path in (folder, *folder.rglob("*"))]
        if max(stat.st_mtime for stat in stats) < since:
            size = sum(stat.st_size for stat in stats[1:])
            found.append(
                Garbage("checkpoint", f"checkpoints/{folder.name}", size, "of an interrupted run, past the grace period")
            )
    return found


# -- removing ----------------------------------------------------------------------------------------------------------


def _finish_takedowns(catalog: "Catalog") -> None:
    from catalogs.takedowns import finish_takedowns  # which uses this module

    finish_takedowns(catalog)


def _remove_objects(catalog: "Catalog", loose: list[Garbage], since: float) -> None:
    catalog.store.remove([object_name(item.name) for item in loose], placed_before=since)


def _remove_files(catalog: "Catalog", files: list[Garbage]) -> None:
    for item in files:
        path: Path = catalog.home / item.name
        if item.kind == "report":
            path.unlink(missing_ok=True)
        elif (lease := leases.hold(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            leases.release(lease)
