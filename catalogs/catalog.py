"""The catalog of a workspace: what tasks and the command line use.

    catalog = Catalog.open(Path("worldline-data"))
    if (known := catalog.find(key)) is None:
        with catalog.scratch_folder() as scratch:
            outputs = tuple(catalog.put(artifact, scratch) for artifact in stage(...))
            known = catalog.record(Execution(key, ..., outputs=outputs))

Bytes lie in the object store, records in the commit log; nothing is visible before its record is committed.
"""

import contextlib
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs import leases, standing
from catalogs.databases import open_database
from catalogs.datasets import Dataset
from catalogs.log import Commit, CommitLog
from catalogs.objects import ObjectStore
from catalogs.records import (
    ArtifactRef,
    DatasetVersion,
    Execution,
    Note,
    execution_row,
    listed,
    note_row,
    output_row,
    plain_facts,
)
from catalogs.stores import open_store
from catalogs.workspace import default_home, read_settings
from schemas.artifact import Artifact
from schemas.canonical import hash_file
from schemas.codec import content_digest, decode, encode
from schemas.errors import WorldlineError

__all__ = ["ArtifactRef", "Catalog", "DatasetVersion", "Execution", "Note"]

_HASHED_ON_LOAD = 1 << 20  # parts up to this size are hashed when loaded (about 1 ms); larger ones are checked by size
_CHECKPOINT_LEASES: dict[Path, int] = {}  # checkpoint folders that this process holds


class Catalog:
    """One workspace folder. Safe to share between threads; pickles as its folder, for workers in other processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = read_settings(home)
        self.store = open_store(home, settings)
        self.log = CommitLog(home, self.store, open_database(home, settings.log))
        if self.log.rebuilt:
            logging.getLogger(__name__).warning(self.log.rebuilt)
        self.objects = ObjectStore(self.store)
        self._scratch, self._checkpoints = home / "scratch", home / "checkpoints"
        for folder in (self._scratch, self._checkpoints):
            folder.mkdir(exist_ok=True)
        self._put: dict[str, ArtifactRef] = {}  # put by this process and perhaps not recorded yet

    @classmethod
    def open(cls, home: Path | str | None = None) -> "Catalog":
        """Open a workspace, creating it on first use, and sweep what dead processes left behind.

        Args:
            home: its folder; $WORLDLINE_HOME or else `worldline-data` in the current folder by default.

        Raises:
            WorldlineError: if the folder cannot be written, lies on a network file system, or belongs to another
                tool or a newer version; or if the database or store of its `worldline.toml` cannot be reached.
        """
        home = Path(home or default_home()).expanduser().resolve()
        try:
            home.mkdir(parents=True, exist_ok=True)
            catalog = cls(home)
            catalog.sweep()
        except OSError as error:
            raise WorldlineError(
                f"the workspace {home} cannot be used ({error.strerror or error}): choose another with --home"
            ) from error
        return catalog

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalog.open, (self.home,)

    # -- executions ------------------------------------------------------------------------------------------------

    def find(self, key: str) -> Execution | None:
        """Return the recorded execution of a key if all parts of all its outputs are on disk, else None."""
        execution = self.log.execution(key)
        return execution if execution is not None and self.intact(execution) else None

    def put(self, artifact: Artifact, scratch: Path) -> ArtifactRef:
        """Store an artifact's parts durably; no query shows it until an execution that made it is recorded.

        Args:
            artifact: what to store; files that it refers to are copied, files in `scratch` are moved.
            scratch: an existing folder for temporary files, best from `scratch_folder`.

        Raises:
            WorldlineError: if the disk is full, a file that the artifact refers to cannot be read, or it was taken down.
        """
        digest = content_digest(artifact)
        _refuse_withdrawn(artifact.kind, digest, self.log.note("takedown", digest))  # not a byte of it
        try:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            paths = encode(artifact, folder)
        except OSError as error:
            raise WorldlineError(f"{artifact.kind} could not be written to {scratch} ({error.strerror or error})") from error
        size = sum(path.stat().st_size for path in paths.values())
        parts = {name: self.objects.put(path, take=path.parent == folder) for name, path in sorted(paths.items())}
        shutil.rmtree(folder)
        facts = plain_facts(artifact.facts())
        ref = ArtifactRef(digest, artifact.kind, artifact.schema_version, artifact.level, size, facts, parts)
        self._put[digest] = ref
        return ref

    def adopt(self, ref: ArtifactRef) -> ArtifactRef:
        """Record an artifact that no execution made (a source that a person brought); again is a no-op.

        Raises:
            WorldlineError: if it was taken down.
        """
        with self.log.write() as commit:
            self._adopt(commit, ref)
        return ref

    def record(self, execution: Execution) -> Execution:
        """Record an execution in one transaction and return the one that is visible under its key.

        The first execution of a key stays. If another gives other digests, these are kept as drift. Only where
        objects of the first one are lost, the new one takes its place. Inputs that this process put and nobody
        recorded are adopted with it.

        Raises:
            ValueError: if an input is unknown, or an output was not put (a defect of the caller).
        """
        if execution.status == "ok":
            with self.log.write() as commit:
                self._check_ready(commit, execution)  # under the lock, so that `gc` cannot come between
                visible = self._record_ok(commit, execution)
            self._release_checkpoints(execution.key, remove=True)
            return visible
        with self.log.write() as commit:
            commit.append(execution_row(execution, "error"))
        self._release_checkpoints(execution.key, remove=False)
        return execution

    def _check_ready(self, commit: Commit, execution: Execution) -> None:
        if not execution.outputs:
            raise ValueError(f"{execution.stage} has no outputs to record")
        for ref in execution.outputs:
            if not self.whole(ref):
                raise ValueError(f"{execution.stage}: put {ref.kind} {ref.digest[:12]} before recording it")
        for name, digest in execution.inputs.items():
            if digest not in self._put and commit.artifact(digest) is None:
                raise ValueError(f"{execution.stage}: input {name} {digest[:12]} is not in the catalog: put or adopt it first")

    def _record_ok(self, commit: Commit, execution: Execution) -> Execution:
        first = commit.execution(execution.key)
        drifted = first is not None and [ref.digest for ref in first.outputs] != [ref.digest for ref in execution.outputs]
        if first is not None and self.intact(first):
            if drifted:
                commit.append(execution_row(execution, "drift"))
            return first
        for digest in execution.inputs.values():
            if digest in self._put:
                self._adopt(commit, self._put[digest])
        if first is not None and drifted:
            commit.append(execution_row(first, "drift"))
        commit.append(execution_row(execution, "execution"))
        return execution

    def note(self, note: Note) -> Note:
        """Record what is said about a subject; the newest note of a kind on a subject counts.

        Raises:
            ValueError: if there is no such kind of note (a defect of the caller).
        """
        with self.log.write() as commit:
            commit.append(note_row(note))
        return note

    def _adopt(self, commit: Commit, ref: ArtifactRef) -> None:
        _refuse_withdrawn(ref.kind, ref.digest, commit.note("takedown", ref.digest))
        known = commit.artifact(ref.digest)
        if known is None or not self.whole(known):
            commit.append({"record": "source", "outputs": [output_row(ref.kind, ref)]})

    def producer(self, digest: str) -> Execution | None:
        """Return the execution that first made an artifact, or None for one that was brought from outside."""
        return self.log.producer(digest)

    def last_execution(self, stage: str, like: dict[str, str] | None = None) -> Execution | None:
        """Return the newest recorded execution of a stage, preferring the one that shares most inputs.

        Args:
            stage: stage name.
            like: artifact digest by parameter name.
        """
        for digests in (sorted((like or {}).items()), []):
            shared = " OR ".join(["(slot = ? AND digest = ?)"] * len(digests))
            query = (
                "SELECT key FROM edges JOIN executions USING (key) "
                f"WHERE direction = 'in' AND ({shared}) AND stage = ? "
                "GROUP BY key ORDER BY count(*) DESC, max(number) DESC LIMIT 1"
                if digests
                else "SELECT key FROM executions WHERE stage = ? ORDER BY number DESC LIMIT 1"
            )
            found = self.log.rows(query, (*(item for pair in digests for item in pair), stage))
            if found:
                return self.log.execution(found[0][0])
        return None

    # -- artifacts -------------------------------------------------------------------------------------------------

    def artifact(self, digest_or_prefix: str) -> ArtifactRef:
        """Return an artifact by its digest or the first four or more digits of it.

        Raises:
            WorldlineError: if none or several match; the message names the nearest.
        """
        found = self.log.artifact(digest_or_prefix) or self._put.get(digest_or_prefix)
        if found is not None:
            return found
        matches = self.digests_like(digest_or_prefix)
        if len(matches) == 1:
            return self.artifact(matches[0])
        if matches:
            raise WorldlineError(f"{digest_or_prefix} could mean {listed(matches)}: give more digits")
        prefix = digest_or_prefix
        while not (near := self.digests_like(prefix)) and prefix:
            prefix = prefix[:-1]
        hint = f"; the nearest are {listed(near)}" if near else ": nothing has been recorded here yet"
        raise WorldlineError(f"no artifact {digest_or_prefix} in {self.home}{hint}")

    def digests_like(self, prefix: str) -> list[str]:
        """Return up to five recorded artifacts whose digest begins so."""
        query = "SELECT digest FROM artifacts WHERE digest >= ? AND digest < ? ORDER BY digest LIMIT 5"
        return [digest for (digest,) in self.log.rows(query, (prefix, prefix + "g"))]

    def load(self, digest: str) -> Artifact:
        """Decode an artifact. Small parts are verified by hash, large ones by size; videos decode on use.

        Raises:
            WorldlineError: if the artifact is unknown, or a part of it missing or damaged.
        """
        ref = self.artifact(digest)
        parts = {name: self._part(ref, name) for name in ref.parts}
        if sum(path.stat().st_size for path in parts.values()) != ref.bytes:
            raise self._damaged(ref, self._first_damaged(ref))
        try:
            return decode(parts)
        except WorldlineError:
            raise
        except Exception as error:  # whatever a decoder says about bytes that are not what was stored
            damaged = self._first_damaged(ref)
            if damaged is None:
                raise
            raise self._damaged(ref, damaged) from error

    def _part(self, ref: ArtifactRef, name: str) -> Path:
        """Return where a part's bytes lie, hashed if it is small; a bad copy of a remote part is fetched again."""
        sha256 = ref.parts[name]
        try:
            for again in (False, True):
                path = self.objects.path(sha256, again=again)
                if path.stat().st_size > _HASHED_ON_LOAD or hash_file(path) == sha256:
                    return path
        except FileNotFoundError as error:
            raise WorldlineError(f"{ref.kind} {ref.digest[:12]} has lost its part {name} ({sha256}): build it again") from error
        raise self._damaged(ref, name)

    def _first_damaged(self, ref: ArtifactRef) -> str | None:
        return next((name for name, sha256 in sorted(ref.parts.items()) if not self.objects.verify(sha256)), None)

    def _damaged(self, ref: ArtifactRef, name: str | None) -> WorldlineError:
        sha256 = ref.parts[name] if name else ", ".join(ref.parts.values())
        return WorldlineError(
            f"part {name} of {ref.kind} {ref.digest[:12]} is damaged (object {sha256}): run `worldline repair` and build it again"
        )

    def whole(self, ref: ArtifactRef) -> bool:
        """Return whether all parts are on disk and have their size together (one stat each)."""
        sizes = [self.objects.size(sha256) for sha256 in ref.parts.values()]
        return None not in sizes and sum(size or 0 for size in sizes) == ref.bytes

    def intact(self, execution: Execution) -> bool:
        """Return whether all parts of all outputs of an execution are on disk."""
        return all(self.whole(ref) for ref in execution.outputs)

    # -- datasets --------------------------------------------------------------------------------------------------

    def datasets(self) -> list[DatasetVersion]:
        """Return all published versions that were not deleted, by name and version."""
        return standing.living(self.log)

    def dataset(self, reference: str) -> Dataset:
        """Return a version to read from by "NAME@3" or "NAME@TAG", or the latest one by "NAME".

        Raises:
            WorldlineError: if there is none; the message names what there is.
        """
        version = standing.resolve(self.log, reference)
        return Dataset(**{field.name: getattr(version, field.name) for field in dataclasses.fields(version)}, catalog=self)

    # -- questions -------------------------------------------------------------------------------------------------

    def sql(self, sql: str) -> pa.Table:
        """Answer one SELECT over the catalog's tables (see `catalogs.lens`).

        Raises:
            WorldlineError: if the SQL is wrong, writes, or names an unknown table.
        """
        from catalogs import lens  # here, because looking up and recording need no DuckDB (80 ms)

        return lens.answer(sql, self.log, self.objects)

    # -- folders ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Lend a private folder on the objects' disk that vanishes at the end, or with the process.

        Raises:
            WorldlineError: if the workspace cannot be written.
        """
        with self._writing():
            folder, lease = leases.create_held(self._scratch, folder=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            leases.release(lease)

    def checkpoint_folder(self, key: str) -> Path:
        """Return a folder that outlives the process until the execution is recorded.

        Where a living process works on the same key already, this one gets a folder of its own.

        Raises:
            WorldlineError: if the workspace cannot be written.
        """
        for name in (key, *(f"{key}-{number}" for number in range(2, 1000))):
            folder = self._checkpoints / name
            if folder in _CHECKPOINT_LEASES and folder.exists():
                return folder
            with self._writing():
                folder.mkdir(exist_ok=True)
            lease = leases.hold(folder)
            if lease is not None:
                _CHECKPOINT_LEASES[folder] = lease
                return folder
        raise WorldlineError(f"a thousand processes work on execution {key[:12]} at once")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorldlineError(f"the workspace {self.home} cannot be written ({error.strerror or error})") from error

    def _release_checkpoints(self, key: str, *, remove: bool) -> None:
        for folder in [folder for folder in list(_CHECKPOINT_LEASES) if folder.parent == self._checkpoints]:
            if folder.name.partition("-")[0] == key:
                if remove:
                    shutil.rmtree(folder, ignore_errors=True)
                leases.release(_CHECKPOINT_LEASES.pop(folder))

    def sweep(self) -> int:
        """Remove what dead processes left (temporary files, scratch folders, checkpoints of what is recorded); merge commits."""
        with contextlib.suppress(WorldlineError):  # a full disk: merging can wait, and reading goes on
            self.log.compact()
        removed = self.objects.sweep() + leases.sweep(self._scratch)
        if (locks := self.home / "locks").is_dir():  # where `tasks` lets one process at a time work on an execution
            removed += leases.sweep(locks)
        for folder in sorted(self._checkpoints.iterdir()):
            if self.find(folder.name.partition("-")[0]) is None:
                continue
            lease = leases.hold(folder)
            if lease is not None:
                shutil.rmtree(folder, ignore_errors=True)
                leases.release(lease)
                removed += 1
        return removed


def _refuse_withdrawn(kind: str, digest: str, takedown: Note | None) -> None:
    if takedown is not None:
        raise WorldlineError(
            f"{kind} {digest[:12]} was taken down ({takedown.reason}) and may not come in again: use another source"
        )
