"""Taking a source down: it and everything made from it leaves the workspace, in all versions, and may not come back.

What goes is decided and recorded in one commit; the bytes go after it. The commit names them, so that a takedown that
dies in between is finished by the next one, or by `gc`.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from catalogs.consolidation import consolidate
from catalogs.contents import artifact_refs, clip_of, measure
from catalogs.downstream import follow
from catalogs.garbage import referenced
from catalogs.governance import origin_like
from catalogs.lineage import rows_in
from catalogs.log import CommitLog
from catalogs.records import RECORDS, ArtifactRef, DatasetVersion, Note, note_row, read_dataset
from catalogs.standing import standing
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.reports import Lineage, Report

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_TAKEDOWN = "takedown-"  # begins the subjects of our removals


@dataclass(frozen=True)
class TouchedVersion:
    """A dataset version that loses artifacts.

    Attributes:
        reference: NAME@V.
        lost, artifacts: how many of its artifacts go.
        deleted: it loses all of them, and is deleted with the reason of the takedown.
    """

    reference: str
    lost: int
    artifacts: int
    deleted: bool


@dataclass(frozen=True)
class Takedown:
    """What a takedown removed, or would remove.

    Attributes:
        source, name: digest and name of the source.
        versions: by reference.
        artifacts: digests that go, the source included.
        executions: keys that go.
        rows: number of rows that go, by table.
        bytes: size of the objects that go, in bytes.
    """

    source: str
    name: str
    versions: tuple[TouchedVersion, ...]
    artifacts: tuple[str, ...]
    executions: tuple[str, ...]
    rows: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class _Plan:
    """What goes: artifacts by digest, execution keys, objects, and files of the workspace beside them."""

    refs: dict[str, ArtifactRef]
    keys: frozenset[str]
    versions: tuple[DatasetVersion, ...]  # that lose artifacts
    objects: frozenset[str]  # SHA-256; some may be shared with what stays
    files: tuple[str, ...]  # relative to the workspace


def takedown(catalog: "Catalog", source: str, *, reason: str, author: str | None = None, dry_run: bool = False) -> Takedown:
    """Remove a source and everything that was made from it and could not be made without it.

    An artifact stays if the same bits were also made without the source (an empty truth, say). Versions keep their
    names and numbers and load what is left. Exports made earlier lie outside of the catalog and are not touched.

    Args:
        catalog: the workspace.
        source: digest (or its first digits) or name of the source.
        reason: why; it stays on record.
        author: who says so.
        dry_run: only tell what would go.

    Raises:
        WorldlineError: if there is no such source, something made it, or a build or another removal is running.
    """
    if not reason.strip():
        raise WorldlineError(f"say why {source} is taken down: the reason stays on record")
    if dry_run:
        digest = _source_like(catalog, source)
        return _report(catalog, digest, _plan(catalog, digest))
    with catalog.log.lease(exclusive=True) as held:
        if not held:
            raise WorldlineError(
                f"{source} cannot be taken down while {catalog.home} is built in or exported from: wait until that is done"
            )
        finish_takedowns(catalog)
        digest = _source_like(catalog, source)
        plan = _plan(catalog, digest)
        report = _report(catalog, digest, plan)
        notes = _notes(catalog, digest, plan, report, reason, author)
        with catalog.log.write() as commit:
            for note in notes:
                commit.append(note_row(note))
        finish_takedowns(catalog)
    return report


def finish_takedowns(catalog: "Catalog") -> int:
    """Remove the bytes that recorded takedowns left; the caller holds the exclusive lease.

    Returns:
        How many takedowns were unfinished.
    """
    unfinished = [note for note in catalog.log.notes("takedown") if note.body.get("objects") or note.body.get("files")]
    if not unfinished:
        return 0
    needed = referenced(catalog)
    shutil.rmtree(catalog.home / "derived", ignore_errors=True)  # packed rows of loose artifacts; made again when asked for
    for note in unfinished:
        catalog.objects.discard(sorted(set(note.body["objects"]) - needed))
        for name in note.body["files"]:
            path = catalog.home / PurePosixPath(name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        catalog.note(Note("takedown", note.subject, {"name": note.body["name"]}, note.reason, note.author))
    return len(unfinished)


def removed_roles(log: CommitLog, version: DatasetVersion) -> dict[str, str]:
    """Return the roles of a version whose artifacts are gone, with a reason for people."""
    reasons = {digest: note for note in log.notes("removal") for digest in note.body["digests"]}
    lost = {digest for digest in version.artifacts.values() if digest in reasons}
    lost -= artifact_refs(log, lost).keys()  # it may have been recorded again
    return {role: _reason(reasons[digest]) for role, digest in version.artifacts.items() if digest in lost}


def _reason(removal: Note) -> str:
    return f"{'taken down' if removal.subject.startswith(_TAKEDOWN) else 'removed'} ({removal.reason or 'nobody says why'})"


def _source_like(catalog: "Catalog", identifier: str) -> str:
    try:
        digest = origin_like(catalog, identifier)
    except WorldlineError:
        for note in catalog.log.notes("takedown"):
            if identifier == note.body["name"] or (len(identifier) >= 4 and note.subject.startswith(identifier)):
                raise WorldlineError(f"{identifier} was taken down already ({note.reason})") from None
        raise
    if catalog.log.artifact(digest) is None or catalog.producer(digest) is not None:
        raise WorldlineError(f"{identifier} did not come in from outside: take down a source, by its digest or name")
    return digest


# -- what goes ---------------------------------------------------------------------------------------------------------


def _plan(catalog: "Catalog", source: str) -> _Plan:
    digests, keys = _made_only_from(catalog.log, source)
    versions = _versions_with(catalog.log, digests)
    digests |= _lineage_that_names(catalog, versions, digests)
    refs = artifact_refs(catalog.log, digests)
    objects = {sha256 for ref in refs.values() for sha256 in ref.parts.values()}
    objects |= _objects_of_executions(catalog.log, keys)
    spoilt, failed = _spoilt_records(catalog.log, digests, keys)
    for version in versions:
        tables = catalog.log.note("tables", version.reference)
        objects |= {name for names in tables.body["tables"].values() for name in names} if tables else set()
    reports = [_report_file(version, role) for version in versions for role, digest in version.artifacts.items()
               if digest in refs and refs[digest].kind == Report.kind]  # fmt: skip
    folders = sorted(catalog.home.glob("checkpoints/*"))
    checkpoints = [f"checkpoints/{path.name}" for path in folders if path.name.partition("-")[0] in keys | failed]
    return _Plan(refs, frozenset(keys), tuple(versions), frozenset(objects | spoilt), (*reports, *checkpoints))


def _versions_with(log: CommitLog, digests: set[str]) -> list[DatasetVersion]:
    """Return all versions that hold any of some artifacts, deleted ones too; one is in memory at a time."""
    found = []
    for name, number in log.rows("SELECT name, version FROM datasets ORDER BY name, version"):
        ((body,),) = log.rows("SELECT body FROM datasets WHERE name = ? AND version = ?", (name, number))
        version = read_dataset(json.loads(body))
        if not digests.isdisjoint(version.artifacts.values()):
            found.append(version)
    return found


def _report_file(version: DatasetVersion, role: str) -> str:
    """Return the page that a build wrote beside the objects (see `tasks.build`)."""
    clip = clip_of(role)
    return f"reports/{version.name}-{version.version}{'-' if clip else ''}{clip}.html"


def _made_only_from(log: CommitLog, source: str) -> tuple[set[str], set[str]]:
    """Return the artifacts that could not be made without a source, and the executions that used any of these.

    Bits that an execution also made from other things are not the source's; what is made in a circle from itself is.
    """
    keys, digests = follow(log, (), [source])
    makers: dict[str, set[str]] = defaultdict(set)
    outputs: dict[str, set[str]] = defaultdict(set)
    for digest, key in rows_in(log, "SELECT digest, key FROM edges WHERE direction = 'out' AND digest IN", digests):
        makers[digest].add(key)
        outputs[key].add(digest)
    needs: dict[str, set[str]] = defaultdict(set)  # inputs that are not known to be clean yet
    users: dict[str, set[str]] = defaultdict(set)
    for digest, key in rows_in(log, "SELECT digest, key FROM edges WHERE direction = 'in' AND digest IN", digests):
        needs[key].add(digest)
        users[digest].add(key)
    clean = {digest for digest in digests if makers[digest] - keys}
    frontier = set(clean)
    while frontier:
        digest = frontier.pop()
        for key in users[digest]:
            needs[key].discard(digest)
            if not needs[key]:
                frontier |= outputs[key] - clean - {source}
                clean |= outputs[key] - {source}
    return digests - clean, {key for key in keys if needs[key]}


def _lineage_that_names(catalog: "Catalog", versions: Iterable[DatasetVersion], digests: set[str]) -> set[str]:
    """Return the lineage pages of versions that tell of removed artifacts; no execution links them to these."""
    members = {digest for version in versions for digest in version.artifacts.values()} - digests
    found = set()
    for digest, ref in artifact_refs(catalog.log, members).items():
        if ref.kind == Lineage.kind and catalog.objects.exists(ref.parts["edges.parquet"]):
            edges = pq.read_table(catalog.objects.path(ref.parts["edges.parquet"]), columns=["digest"])
            if digests & set(edges["digest"].to_pylist()):
                found.add(digest)
    return found


def _objects_of_executions(log: CommitLog, keys: Iterable[str]) -> set[str]:
    bodies = rows_in(log, "SELECT body FROM executions WHERE key IN", keys)
    return {part["sha256"] for (body,) in bodies for output in json.loads(body)["outputs"] for part in output["parts"]}


def _spoilt_records(log: CommitLog, digests: set[str], keys: set[str]) -> tuple[set[str], set[str]]:
    """Return objects of drifted outputs, which the index does not know, and keys of failed executions."""
    import pyarrow.dataset as pads  # here, because it takes a quarter of a second and few need it

    files = [str(path) for path in log.files()]
    wanted = pads.field("record").isin(["drift", "error"])
    columns = ["record", "key", "inputs", "outputs"]
    table = pads.dataset(files, schema=RECORDS, format="parquet").to_table(columns=columns, filter=wanted)
    objects, failed = set(), set()
    for row in table.to_pylist():
        if row["key"] in keys or any(item["digest"] in digests for item in row["inputs"]):
            failed.add(row["key"])
            objects |= {part["sha256"] for output in row["outputs"] or () for part in output["parts"]}
    return objects, failed


# -- what is said of it ------------------------------------------------------------------------------------------------


def _report(catalog: "Catalog", source: str, plan: _Plan) -> Takedown:
    gone = set(plan.refs)
    alive = {item.reference for item in standing(catalog.log)}
    versions = []
    for version in plan.versions:
        lost = sum(digest in gone for digest in version.artifacts.values())
        left = set(version.artifacts.values()) - gone
        emptied = version.reference in alive and not artifact_refs(catalog.log, left)
        versions.append(TouchedVersion(version.reference, lost, len(version.artifacts), emptied))
    size = sum(catalog.objects.size(name) or 0 for name in plan.objects - _kept_objects(catalog.log, plan))
    name = str(plan.refs[source].facts.get("name") or plan.refs[source].kind)
    return Takedown(source, name, tuple(versions), tuple(sorted(gone)), tuple(sorted(plan.keys)), _rows(catalog, plan), size)


def _kept_objects(log: CommitLog, plan: _Plan) -> set[str]:
    """Return the objects of a plan that something else refers to."""
    kept: set[str] = set()
    for column, table, gone in (("digest", "artifacts", plan.refs.keys()), ("key", "executions", plan.keys)):
        for name, body in log.rows(f"SELECT {column}, body FROM {table}"):
            if name in gone:
                continue
            row: dict[str, Any] = json.loads(body)
            for item in row["outputs"] if table == "executions" else [row]:
                kept |= plan.objects & {part["sha256"] for part in item["parts"]}
    return kept


def _rows(catalog: "Catalog", plan: _Plan) -> dict[str, int]:
    whole = {digest: digest for digest, ref in plan.refs.items() if catalog.whole(ref)}
    rows = measure(catalog, whole).rows
    clips = sum(ref.kind == Clip.kind for ref in plan.refs.values())
    return {name: count for name, count in {"clips": clips, **rows}.items() if count}


def _notes(catalog: "Catalog", source: str, plan: _Plan, report: Takedown, reason: str, author: str | None) -> list[Note]:
    """Return everything that the one commit of a takedown says; consolidated tables are rewritten here, before it."""
    alive = {item.reference for item in standing(catalog.log)}
    notes = []
    for version, touched in zip(plan.versions, report.versions, strict=True):
        if touched.deleted:
            notes.append(Note("deleted", version.reference, {}, f"everything in it was taken down: {reason}", author))
        if catalog.log.note("tables", version.reference) is not None:
            stays = version.reference in alive and not touched.deleted
            left = {role: digest for role, digest in version.artifacts.items() if digest not in plan.refs} if stays else {}
            notes.append(Note("tables", version.reference, {"tables": consolidate(catalog, left)}))
    removal = {"digests": sorted(plan.refs), "keys": sorted(plan.keys)}
    waste = {"name": report.name, "objects": sorted(plan.objects), "files": list(plan.files)}
    return [
        Note("takedown", source, waste, reason, author),
        Note("removal", f"{_TAKEDOWN}{source}", removal, reason, author),
        *notes,
    ]
