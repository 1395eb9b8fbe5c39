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
import difflib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs import leases, lens, lineage
from catalogs.log import Commit, CommitLog
from catalogs.objects import ObjectStore
from catalogs.records import ArtifactRef, DatasetVersion, Execution, dataset_row, execution_row, output_row, plain_facts
from schemas.artifact import Artifact
from schemas.canonical import TaggedHash, canonical_json
from schemas.codec import content_digest, decode, encode
from schemas.errors import WorldlineError
from schemas.reports import Lineage

__all__ = ["ArtifactRef", "Catalog", "DatasetVersion", "Execution", "check_dataset_name"]

_HASHED_ON_LOAD = 1 << 20  # parts up to this size are hashed when loaded (about 1 ms); larger ones are checked by size
_CHECKPOINT_LEASES: dict[Path, int] = {}  # checkpoint folders that this process holds
_HEX = re.compile(r"[0-9a-f]{4,64}")
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_dataset_name(name: str) -> None:
    """Raise a `WorldlineError` if a dataset cannot have this name."""
    if not _DATASET_NAME.fullmatch(name):
        raise WorldlineError(
            f"{name!r} cannot name a dataset: use up to 100 letters, digits, dots, dashes and underscores, "
            "starting with a letter or digit"
        )


class Catalog:
    """One workspace folder. Safe to share between threads; pickles as its folder, for workers in other processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = CommitLog(home)
        self.objects = ObjectStore(home / "objects")
        self._scratch, self._checkpoints = home / "scratch", home / "checkpoints"
        for folder in (self._scratch, self._checkpoints):
            folder.mkdir(exist_ok=True)
        self._put: dict[str, ArtifactRef] = {}  # put by this process and perhaps not recorded yet

    @classmethod
    def open(cls, home: Path) -> "Catalog":
        """Open a workspace, creating it on first use, and sweep what dead processes left behind.

        Raises:
            WorldlineError: if the folder cannot be written, lies on a network file system, or belongs to another
                tool or a newer version.
        """
        home = Path(home).expanduser().resolve()
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
        return execution if execution is not None and self._intact(execution) else None

    def put(self, artifact: Artifact, scratch: Path) -> ArtifactRef:
        """Store an artifact's parts durably; no query shows it until an execution that made it is recorded.

        Args:
            artifact: what to store; files that it refers to are copied, files in `scratch` are moved.
            scratch: an existing folder for temporary files, best from `scratch_folder`.

        Raises:
            WorldlineError: if the disk is full, or a file that the artifact refers to cannot be read.
        """
        digest = content_digest(artifact)
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
        """Record an artifact that no execution made (a source that a person brought); again is a no-op."""
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
            if not self._whole(ref):
                raise ValueError(f"{execution.stage}: put {ref.kind} {ref.digest[:12]} before recording it")
        for name, digest in execution.inputs.items():
            if digest not in self._put and commit.artifact(digest) is None:
                raise ValueError(f"{execution.stage}: input {name} {digest[:12]} is not in the catalog: put or adopt it first")

    def _record_ok(self, commit: Commit, execution: Execution) -> Execution:
        first = commit.execution(execution.key)
        drifted = first is not None and [ref.digest for ref in first.outputs] != [ref.digest for ref in execution.outputs]
        if first is not None and self._intact(first):
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

    def _adopt(self, commit: Commit, ref: ArtifactRef) -> None:
        known = commit.artifact(ref.digest)
        if known is None or not self._whole(known):
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
                f"WHERE direction = 'in' AND ({shared}) AND stage = ? GROUP BY key ORDER BY count(*) DESC, number DESC LIMIT 1"
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
        matches = self._digests_like(digest_or_prefix)
        if len(matches) == 1:
            return self.artifact(matches[0])
        if matches:
            raise WorldlineError(f"{digest_or_prefix} could mean {_listed(matches)}: give more digits")
        prefix = digest_or_prefix
        while not (near := self._digests_like(prefix)) and prefix:
            prefix = prefix[:-1]
        hint = f"; the nearest are {_listed(near)}" if near else ": nothing has been recorded here yet"
        raise WorldlineError(f"no artifact {digest_or_prefix} in {self.home}{hint}")

    def _digests_like(self, prefix: str) -> list[str]:
        query = "SELECT digest FROM artifacts WHERE digest >= ? AND digest < ? ORDER BY digest LIMIT 5"
        return [digest for (digest,) in self.log.rows(query, (prefix, prefix + "g"))]

    def load(self, digest: str) -> Artifact:
        """Decode an artifact. Small parts are verified by hash, large ones by size; videos decode on use.

        Raises:
            WorldlineError: if the artifact is unknown, or a part of it missing or damaged.
        """
        ref = self.artifact(digest)
        parts = {name: self.objects.path(sha256) for name, sha256 in ref.parts.items()}
        for name, path in parts.items():
            if not path.exists():
                raise WorldlineError(f"{ref.kind} {ref.digest[:12]} has lost its part {name} ({path}): build it again")
            if path.stat().st_size <= _HASHED_ON_LOAD and not self.objects.verify(ref.parts[name]):
                raise self._damaged(ref, name)
        if not self._whole(ref):
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

    def _first_damaged(self, ref: ArtifactRef) -> str | None:
        return next((name for name, sha256 in sorted(ref.parts.items()) if not self.objects.verify(sha256)), None)

    def _damaged(self, ref: ArtifactRef, name: str | None) -> WorldlineError:
        path = self.objects.path(ref.parts[name]) if name else self.objects.folder
        return WorldlineError(f"part {name} of {ref.kind} {ref.digest[:12]} is damaged: delete {path} and build it again")

    def _whole(self, ref: ArtifactRef) -> bool:
        """Return whether all parts are on disk and have their size together (one stat each)."""
        sizes = [self.objects.size(sha256) for sha256 in ref.parts.values()]
        return None not in sizes and sum(size or 0 for size in sizes) == ref.bytes

    def _intact(self, execution: Execution) -> bool:
        return all(self._whole(ref) for ref in execution.outputs)

    def verify(self, dataset: str | None = None) -> list[tuple[str, str]]:
        """Hash every object, or those of one dataset version and of all executions that it came from.

        Nothing is changed: an object found damaged can be deleted, then the next build makes it again.

        Returns:
            The SHA-256 of each bad object with "damaged" or "missing", sorted.
        """
        needed = self._referenced(self.dataset(dataset) if dataset else None)
        checked = needed if dataset else needed | set(self.objects.all())
        found = {name: "damaged" if self.objects.exists(name) else "missing" for name in checked if not self.objects.verify(name)}
        return sorted(found.items())

    def _referenced(self, version: DatasetVersion | None = None) -> set[str]:
        """Objects that recorded artifacts and datasets refer to, or those that one dataset version came from."""
        if version is not None:
            executions = [found for key in version.executions if (found := self.log.execution(key))]
            refs = [ref for execution in executions for ref in execution.outputs]
            given = [self.log.artifact(digest) for digest in version.artifacts.values()]
            given += [self.log.artifact(digest) for execution in executions for digest in execution.inputs.values()]
            refs += [ref for ref in given if ref is not None]
            return {version.manifest, *(name for ref in refs for name in ref.parts.values())}
        names = {version.manifest for version in self.log.datasets()}
        for (body,) in self.log.rows("SELECT body FROM artifacts"):
            names.update(part["sha256"] for part in json.loads(body)["parts"])
        for (body,) in self.log.rows("SELECT body FROM executions"):
            names.update(part["sha256"] for output in json.loads(body)["outputs"] for part in output["parts"])
        return names

    def gc(self, *, dry_run: bool = True, grace_seconds: float = 7 * 86400.0) -> list[tuple[str, int]]:
        """Remove objects that nothing recorded refers to, and merge commit files.

        Args:
            dry_run: only tell what would go.
            grace_seconds: objects put or touched later than this ago stay: a running build may be about to record them.

        Returns:
            SHA-256 and size in bytes of each object that goes.
        """
        with self.log.write():
            newest = time.time() - grace_seconds
            unused = [name for name in self.objects.all() if self.objects.untouched_since(name, newest)]
            needed = self._referenced()
            gone = [(name, self.objects.size(name) or 0) for name in unused if name not in needed]
            if not dry_run:
                self.objects.discard([name for name, _ in gone])
        if not dry_run:
            self.log.compact()
        return gone

    # -- datasets --------------------------------------------------------------------------------------------------

    def publish(self, name: str, recipe: dict[str, Any], artifacts: dict[str, str], lock: dict[str, Any]) -> DatasetVersion:
        """Publish a new version of a dataset, or return the latest one if recipe and artifacts are the same.

        Args:
            name: letters, digits, dots, dashes and underscores.
            recipe: the resolved config.
            artifacts: artifact digest by role.
            lock: package versions of the environment.

        Raises:
            WorldlineError: if the name is not allowed, or an artifact is unknown, not recorded, or not whole.
        """
        check_dataset_name(name)
        refs = {role: self.log.artifact(digest) for role, digest in sorted(artifacts.items())}
        for role, ref in refs.items():
            if ref is None or not self._whole(ref):
                raise WorldlineError(
                    f"{name} cannot be published: its {role} {artifacts[role][:12]} is not in the catalog; build it again"
                )
        executions = lineage.upstream(self.log, sorted(artifacts.values()))
        fingerprint = TaggedHash("dataset/1").json(recipe).json(artifacts).hexdigest()
        with self.log.write() as commit:
            latest = commit.latest(name)
            if latest is not None and latest[1] == fingerprint:
                return latest[0]
            number = latest[0].version + 1 if latest else 1
            manifest = lineage.manifest(name, number, recipe, artifacts, executions, lock, self.log)
            digest = self.objects.put_bytes(canonical_json(manifest).encode())
            keys = tuple(execution.key for execution in executions)
            version = DatasetVersion(name, number, recipe, dict(sorted(artifacts.items())), keys, lock, digest, published_at=0.0)
            row = commit.append(dataset_row(version, fingerprint))
        return dataclasses.replace(version, published_at=row["recorded_at"])

    def datasets(self) -> list[DatasetVersion]:
        """Return all published versions by name and version."""
        return self.log.datasets()

    def dataset(self, reference: str) -> DatasetVersion:
        """Return a version by "NAME@3", or the latest one by "NAME".

        Raises:
            WorldlineError: if there is none; the message names what there is.
        """
        name, _, number = reference.partition("@")
        versions = self.log.datasets(name)
        if not versions:
            names = sorted({version.name for version in self.log.datasets()})
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
            hint = f"there is {_listed(near)}" if near else "nothing has been published here yet"
            raise WorldlineError(f"no dataset {name} in {self.home}: {hint}")
        if not number:
            return versions[-1]
        for version in versions:
            if str(version.version) == number.removeprefix("v"):
                return version
        raise WorldlineError(f"{name} has no version {number}: it has {versions[0].version} to {versions[-1].version}")

    # -- questions -------------------------------------------------------------------------------------------------

    def query(self, sql: str) -> pa.Table:
        """Answer one SELECT over the catalog's tables (see `catalogs.lens`).

        Raises:
            WorldlineError: if the SQL is wrong, writes, or names an unknown table.
        """
        return lens.answer(sql, self.log, self.objects)

    def lineage(self, identifier: str) -> Lineage:
        """Return all executions upstream of an artifact (digest or prefix), execution (key), dataset version or question.

        Raises:
            WorldlineError: if nothing has this identifier; the message names the nearest.
        """
        if "@" in identifier or self.log.datasets(identifier):
            version = self.dataset(identifier)
            return lineage.as_artifact([found for key in version.executions if (found := self.log.execution(key))], self.log)
        if _HEX.fullmatch(identifier):
            query = "SELECT key FROM executions WHERE key >= ? AND key < ? ORDER BY key LIMIT 5"
            keys = [key for (key,) in self.log.rows(query, (identifier, identifier + "g"))]
            digests = self._digests_like(identifier)
            if len(keys) == 1 and not digests:
                execution = self.log.execution(keys[0])
                assert execution is not None
                return lineage.as_artifact([*lineage.upstream(self.log, sorted(execution.inputs.values())), execution], self.log)
            if (keys and digests) or len(keys) > 1:
                raise WorldlineError(f"{identifier} could mean {_listed(keys + digests)}: give more digits")
            if digests:
                return lineage.as_artifact(lineage.upstream(self.log, [self.artifact(identifier).digest]), self.log)
        questions = self._questions_like(identifier)
        if len(questions) == 1:
            return lineage.as_artifact(lineage.upstream(self.log, questions), self.log)
        if questions:
            raise WorldlineError(
                f"{identifier} is the question id in {len(questions)} artifacts {_listed(questions)}: give one of these"
            )
        names = difflib.get_close_matches(identifier, sorted({version.name for version in self.log.datasets()}), n=3, cutoff=0.4)
        hint = f"; did you mean the dataset {_listed(names)}?" if names else ": give NAME@3, or four or more digits of a digest"
        raise WorldlineError(f"no artifact, execution, dataset or question {identifier} in {self.home}{hint}")

    def _questions_like(self, identifier: str) -> list[str]:
        quoted = identifier.replace("'", "''")
        exact = self.query(f"SELECT DISTINCT artifact FROM labels WHERE question_id = '{quoted}' ORDER BY 1")
        if not exact.num_rows and len(identifier) >= 4:
            exact = self.query(f"SELECT DISTINCT artifact FROM labels WHERE starts_with(question_id, '{quoted}') ORDER BY 1")
        return exact.column(0).to_pylist()

    # -- folders ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Lend a private folder on the objects' disk that vanishes at the end, or with the process."""
        folder, lease = leases.create_held(self._scratch, folder=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            leases.release(lease)

    def checkpoint_folder(self, key: str) -> Path:
        """Return a folder that outlives the process until the execution is recorded.

        Where a living process works on the same key already, this one gets a folder of its own.
        """
        for name in (key, *(f"{key}-{number}" for number in range(2, 1000))):
            folder = self._checkpoints / name
            if folder in _CHECKPOINT_LEASES and folder.exists():
                return folder
            folder.mkdir(exist_ok=True)
            lease = leases.hold(folder)
            if lease is not None:
                _CHECKPOINT_LEASES[folder] = lease
                return folder
        raise WorldlineError(f"a thousand processes work on execution {key[:12]} at once")

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
        for folder in sorted(self._checkpoints.iterdir()):
            if self.find(folder.name.partition("-")[0]) is None:
                continue
            lease = leases.hold(folder)
            if lease is not None:
                shutil.rmtree(folder, ignore_errors=True)
                leases.release(lease)
                removed += 1
        return removed


def _listed(items: list[str]) -> str:
    return ", ".join(item[:16] for item in items)
