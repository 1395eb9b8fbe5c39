"""Make a dataset version again from its manifest, in an empty workspace, and say how equal it came out and why.

The recorded executions are replayed in order with their recorded settings and seeds on what the replay itself made;
only what no execution made (a source, a lineage) is copied.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.catalog import ArtifactRef, Catalog, Execution
from catalogs.lineage import Manifest, lineage_table, read_executions, read_manifest
from catalogs.splits import SplitRule
from catalogs.versions import publish
from schemas.artifact import Artifact, Files
from schemas.canonical import TaggedHash, hash_file, to_plain
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.reports import Lineage
from stages.contract import STAGES, Tolerance, load_stages
from stages.fingerprint import fingerprint_stage, list_definitions
from tasks.causes import likely_cause
from tasks.comparing import Difference, first_difference, largest_difference
from tasks.configs import make_config
from tasks.edge import Work, execute, machine, packages
from tasks.keys import code_digest, execution_key

LEVELS = ("identical", "same content", "equal within tolerance", "different", "failed")


@dataclass(frozen=True)
class Remade:
    """How one artifact came out.

    Attributes:
        kind: of the artifact.
        level: one of `LEVELS`: every part has the same bits, the decoded values are the same, they lie within the
            stage's declared tolerance, or not.
        recorded, remade: content digests.
        measured: figure of the declared tolerance's metric, or None.
        tolerance: that the stage declares for this kind, or None.
        difference: where it first differs, if it is not the same content and both can be read.
    """

    kind: str
    level: str
    recorded: str
    remade: str
    measured: float | None = None
    tolerance: Tolerance | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class Verdict:
    """How one execution came out.

    Attributes:
        stage: its stage.
        key: of the recorded execution.
        level: the worst of its artifacts, or "failed" where the stage could not run.
        artifacts: in the stage's order; empty where it could not run.
        cause: what may have made it differ, "" where it is identical.
        other_code: whether the code is another than when it was recorded.
    """

    stage: str
    key: str
    level: str
    artifacts: tuple[Remade, ...]
    cause: str
    other_code: bool


@dataclass(frozen=True)
class Rebuilt:
    """How a rebuild came out: one verdict per execution, in the order in which they ran.

    Attributes:
        reference: "NAME@V".
        verdicts: one per execution.
        recorded_artifacts: how many artifacts the executions made when they were recorded.
        published: "NAME@V" in the new workspace; None where it was not rebuilt whole, or came out different.
    """

    reference: str
    verdicts: tuple[Verdict, ...]
    recorded_artifacts: int
    published: str | None = None

    @property
    def identical_share(self) -> float:
        """Share of the artifacts that came out with the same bits."""
        same = sum(item.level == "identical" for verdict in self.verdicts for item in verdict.artifacts)
        return same / self.recorded_artifacts if self.recorded_artifacts else 1.0

    @property
    def differing(self) -> tuple[Verdict, ...]:
        """The executions that failed or came out different, by more than their stage's tolerance."""
        return tuple(verdict for verdict in self.verdicts if verdict.level in ("different", "failed"))

    def figures(self) -> list[dict[str, Any]]:
        """Return the figures of a rebuild, as benches print them."""
        detail = f"{self.recorded_artifacts} artifacts of {len(self.verdicts)} executions of {self.reference}"
        value, name = self.identical_share, "catalog.rebuild.identical_share"
        return [{"id": name, "value": value, "unit": "share", "compared_with": "the recorded bits", "detail": detail}]


_Bring = Callable[[Catalog, str], None]  # brings an artifact that no execution made into the new workspace
_Open = Callable[[str], Artifact]  # opens a recorded artifact; WorldlineError where it cannot be had


def rebuild_dataset(catalog: Catalog, reference: str, home: Path, *, quiet: bool) -> Rebuilt:
    """Replay the executions of a dataset version in the workspace `home`.

    A replay that was interrupted goes on where it stopped.

    Raises:
        WorldlineError: if the version is not whole, `home` holds anything else, or a stage that made it is gone.
    """
    with catalog.log.lease(exclusive=False):
        manifest = _manifest_of(catalog, reference)
        return _replay(manifest, _new_workspace(home, manifest, catalog), _copying(catalog), catalog.load, quiet)


def rebuild_manifest(file: Path, sources: Path | None, home: Path, *, quiet: bool) -> Rebuilt:
    """Replay the executions of a manifest in the workspace `home`, without the workspace where it was published.

    Args:
        file: the manifest object.
        sources: a folder that has, somewhere below it and under any names, the files of the dataset's sources.
        home: the new workspace.
        quiet: no progress.

    Raises:
        WorldlineError: if the manifest cannot be read, a source's file is not there, or a stage that made it is gone.
    """
    try:
        manifest = read_manifest(file.read_bytes())
    except OSError as error:
        raise WorldlineError(f"the manifest {file} cannot be read ({error.strerror}): name the file of a manifest") from None

    def absent(digest: str) -> Artifact:
        raise WorldlineError(f"the recorded {digest[:12]} is not here to compare with")

    return _replay(manifest, _new_workspace(home, manifest, None), _finding(manifest, sources), absent, quiet)


def rebuild_sample(catalog: Catalog, reference: str, share: float, seed: int, home: Path, *, quiet: bool) -> Rebuilt:
    """Replay a share of the executions of a dataset version, each on its recorded inputs: an alarm for drift.

    Args:
        catalog: the workspace.
        reference: NAME[@V].
        share: of the executions, above 0 and up to 1; at least one is replayed.
        seed: another seed takes others.
        home: an empty workspace.
        quiet: no progress.

    Raises:
        WorldlineError: if the share is out of range, or a recorded input is missing or damaged.
    """
    verdicts = []
    with catalog.log.lease(exclusive=False):
        manifest = _manifest_of(catalog, reference)
        chosen = sample(manifest.executions, share, seed)
        fresh = _new_workspace(home, manifest, catalog)
        for recorded in chosen:
            for digest in recorded.inputs.values():
                copy_artifact(catalog, fresh, digest)
            verdicts.append(judge(recorded, recorded.inputs, fresh, catalog.load, f"sampling {reference}", quiet))
    return Rebuilt(f"{manifest.name}@{manifest.version}", tuple(verdicts), sum(len(item.outputs) for item in chosen))


def sample(executions: Sequence[Execution], share: float, seed: int) -> list[Execution]:
    """Return a share of executions (at least one, if there is any) that depends on keys and seed only, in their order.

    Raises:
        WorldlineError: if the share is not above 0 and up to 1.
    """
    if not 0.0 < share <= 1.0:
        raise WorldlineError(f"a share of {share:g} cannot be sampled: give one above 0 and up to 1, such as 0.05")
    count = min(len(executions), max(1, round(share * len(executions))))
    drawn = sorted(executions, key=lambda item: TaggedHash("sample/1").json([seed, item.key]).hexdigest())[:count]
    keys = {execution.key for execution in drawn}
    return [execution for execution in executions if execution.key in keys]


# -- replaying --------------------------------------------------------------------------------------------------------


def _replay(manifest: Manifest, fresh: Catalog, bring: _Bring, open_recorded: _Open, quiet: bool) -> Rebuilt:
    reference = f"{manifest.name}@{manifest.version}"
    remade: dict[str, str | None] = {}  # recorded digest -> digest in the new workspace, None where it could not be made
    makers: dict[str, str] = {}  # recorded digest that came out otherwise -> stage
    verdicts = []
    for recorded in manifest.executions:
        for digest in recorded.inputs.values():
            if digest not in remade:
                bring(fresh, digest)
                remade[digest] = digest
        upstream = [f"{name} ({makers[digest]})" for name, digest in sorted(recorded.inputs.items()) if digest in makers]
        inputs = {name: found for name, digest in recorded.inputs.items() if (found := remade[digest]) is not None}
        if len(inputs) == len(recorded.inputs):
            verdict = judge(recorded, inputs, fresh, open_recorded, f"rebuilding {reference}", quiet, upstream)
        else:
            verdict = Verdict(recorded.stage, recorded.key, "failed", (), f"inputs are missing: {', '.join(upstream)}", False)
        verdicts.append(verdict)
        for index, before in enumerate(recorded.outputs):
            item = verdict.artifacts[index] if verdict.artifacts else None
            if item is not None and item.level == "equal within tolerance":
                bring(fresh, before.digest)  # it counts as equal: what follows is judged by itself, on the recorded one
                remade[before.digest] = before.digest
                continue
            remade[before.digest] = item.remade if item is not None else None
            if remade[before.digest] != before.digest:
                makers[before.digest] = recorded.stage
    rebuilt = Rebuilt(reference, tuple(verdicts), sum(len(item.outputs) for item in manifest.executions))
    return dataclasses.replace(rebuilt, published=None if rebuilt.differing else _publish(manifest, remade, fresh, bring))


def _publish(manifest: Manifest, remade: dict[str, str | None], fresh: Catalog, bring: _Bring) -> str:
    """Publish what was rebuilt in the new workspace, where its numbers begin at 1."""
    artifacts = {}
    for role, digest in manifest.artifacts.items():
        if digest not in remade:  # a source that nothing read
            bring(fresh, digest)
        artifacts[role] = remade.get(digest) or digest
    lock = {"machine": machine(), "packages": packages()}
    split_rule = SplitRule(**manifest.recipe.get("splits", {}))
    return publish(fresh, manifest.name, manifest.recipe, artifacts, lock, split_rule=split_rule).reference


def judge(
    recorded: Execution,
    inputs: Mapping[str, str],
    fresh: Catalog,
    open_recorded: _Open,
    why: str,
    quiet: bool,
    upstream: Sequence[str] = (),
) -> Verdict:
    """Run a recorded execution again in another workspace, with today's code, and compare.

    Args:
        recorded: the execution.
        inputs: digest by parameter name of what it runs on, present in `fresh`.
        fresh: the other workspace.
        open_recorded: opens a recorded artifact.
        why: why it runs, for the progress display.
        quiet: no progress.
        upstream: those of its inputs that are different already, for people.
    """
    stage, files = STAGES[recorded.stage], fingerprint_stage(STAGES[recorded.stage])
    code, files = code_digest(files), files | list_definitions(files)
    key = execution_key(stage, code, recorded.config, inputs, recorded.seed)
    work = Work(str(fresh.home), key, stage.name, code, files, recorded.config, recorded.seed, dict(inputs), why, quiet)
    other_code = code != recorded.code
    try:
        refs = execute(work)
        config = to_plain(make_config(stage.config_type, recorded.config, stage.name))
    except WorldlineError as error:
        tried = dataclasses.replace(recorded, version=stage.version, code_files=files)
        cause = f"{error} ({likely_cause(recorded, tried, recorded.config, upstream)})"
        return Verdict(stage.name, recorded.key, "failed", (), cause, other_code)
    now = fresh.log.execution(key)
    assert now is not None  # just recorded
    artifacts = tuple(
        _compare(before, after, stage.tolerances.get(before.kind), open_recorded, fresh)
        for before, after in zip(recorded.outputs, refs, strict=True)
    )
    level = max((item.level for item in artifacts), key=LEVELS.index)
    cause = "" if level == "identical" else likely_cause(recorded, now, config, upstream)
    if level == "same content":
        cause = f"the same values in other bytes: {cause}"
    return Verdict(stage.name, recorded.key, level, artifacts, cause, other_code)


def _compare(
    before: ArtifactRef, after: ArtifactRef, tolerance: Tolerance | None, open_recorded: _Open, fresh: Catalog
) -> Remade:
    if before.digest == after.digest:
        level = "identical" if before.parts == after.parts else "same content"
        return Remade(before.kind, level, before.digest, after.digest, tolerance=tolerance)
    try:
        recorded = open_recorded(before.digest)
    except WorldlineError:  # lost, or only its manifest is here
        return Remade(before.kind, "different", before.digest, after.digest, tolerance=tolerance)
    remade = fresh.load(after.digest)
    measured = (tolerance.measure or largest_difference)(recorded, remade) if tolerance else None
    within = tolerance is not None and measured is not None and measured <= tolerance.limit
    level = "equal within tolerance" if within else "different"
    difference = first_difference(recorded, remade)
    return Remade(before.kind, level, before.digest, after.digest, measured, tolerance, difference)


def _manifest_of(catalog: Catalog, reference: str) -> Manifest:
    """Read the manifest of a version, with the machines that the log remembers of its executions."""
    version = catalog.dataset(reference)
    if not catalog.objects.verify(version.manifest):
        raise WorldlineError(f"the manifest of {version.reference} ({version.manifest[:12]}) is missing or damaged: restore it")
    manifest = read_manifest(catalog.objects.path(version.manifest).read_bytes())
    known = read_executions(catalog.log, [execution.key for execution in manifest.executions])
    executions = tuple(
        dataclasses.replace(item, machine=known[item.key].machine) if item.key in known else item for item in manifest.executions
    )
    return dataclasses.replace(manifest, executions=executions)


def _new_workspace(home: Path, manifest: Manifest, catalog: Catalog | None) -> Catalog:
    """Open the workspace to rebuild in: empty, or left by an interrupted rebuild of the same version."""
    load_stages()
    reference = f"{manifest.name}@{manifest.version}"
    for execution in manifest.executions:
        if execution.stage not in STAGES:
            raise WorldlineError(
                f"{reference} was made by the stage {execution.stage}, which this version of Worldline does not have"
            )
    home, mark = home.expanduser().absolute(), {"rebuild": reference, "executions": len(manifest.executions)}
    if catalog is not None and home.resolve() == catalog.home:
        raise WorldlineError(f"{home} is the workspace that holds {reference}: rebuild it into another folder")
    try:
        file = home / "rebuild.json"
        if home.is_dir() and any(home.iterdir()) and not (file.is_file() and json.loads(file.read_text()) == mark):
            raise WorldlineError(f"{home} is not empty: rebuild {reference} into a new folder")
        home.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(mark))
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{home} cannot be used for a rebuild ({error}): name a new folder") from None
    return Catalog.open(home)


# -- what no execution made -------------------------------------------------------------------------------------------


def _copying(catalog: Catalog) -> _Bring:
    return lambda fresh, digest: copy_artifact(catalog, fresh, digest)


def copy_artifact(catalog: Catalog, fresh: Catalog, digest: str) -> None:
    """Bring a recorded artifact into another workspace, verified on the way; again is a no-op.

    Raises:
        WorldlineError: if it is unknown, or a part of it is missing or damaged.
    """
    ref = catalog.artifact(digest)
    known = fresh.log.artifact(digest)
    if known is not None and fresh.whole(known):
        return
    for name, sha256 in ref.parts.items():
        if not catalog.objects.exists(sha256) or fresh.objects.put(catalog.objects.path(sha256)) != sha256:
            raise WorldlineError(f"part {name} of {ref.kind} {digest[:12]} is missing or damaged: restore it or build it again")
    fresh.adopt(ref)


def _finding(manifest: Manifest, folder: Path | None) -> _Bring:
    """Bring sources whose files lie below a folder, and lineages, which the manifest itself tells."""
    files: dict[str, Path] = {}
    if folder is not None:
        if not folder.is_dir():
            raise WorldlineError(f"there is no folder {folder}: name one that has the files of the sources")
        wanted = {sha256 for ref in manifest.sources.values() for sha256 in ref.parts.values()}
        files = {sha256: path for sha256, path in _hashed(folder) if sha256 in wanted}

    def bring(fresh: Catalog, digest: str) -> None:
        ref = manifest.sources[digest]
        made = _lineage_like(manifest, digest) if ref.kind == Lineage.kind else _source_from(manifest, ref, files)
        with fresh.scratch_folder() as scratch:
            put = fresh.put(made, scratch)
            if put.digest != digest:
                raise WorldlineError(f"the {ref.kind} {digest[:12]} of {manifest.name} cannot be made again from its manifest")
            fresh.adopt(put)

    return bring


def _hashed(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield hash_file(path), path


def _source_from(manifest: Manifest, ref: ArtifactRef, files: Mapping[str, Path]) -> Artifact:
    if ref.kind != Source.kind or "layout" not in ref.facts:
        raise WorldlineError(
            f"{manifest.name}@{manifest.version} came from the {ref.kind} {ref.digest[:12]}, which its manifest does not tell: "
            "rebuild it from its workspace"
        )
    found = {}
    for part, sha256 in ref.parts.items():
        if part.startswith("files/"):
            name = part.removeprefix("files/")
            if sha256 not in files:
                raise WorldlineError(
                    f"no file has the bytes of {name} (SHA-256 {sha256[:12]}): name the folder that has it with --sources"
                )
            found[name] = files[sha256]
    return Source(files=Files(found), layout=ref.facts["layout"], name=ref.facts["name"])


def _lineage_like(manifest: Manifest, digest: str) -> Lineage:
    """Return the lineage that was brought in beside the other inputs of the execution that read it."""
    users = [execution for execution in manifest.executions if digest in execution.inputs.values()]
    makers = {ref.digest: execution for execution in manifest.executions for ref in execution.outputs}
    kinds = {ref.digest: ref.kind for execution in manifest.executions for ref in execution.outputs}
    kinds |= {source: ref.kind for source, ref in manifest.sources.items()}
    pending = [item for user in users[:1] for item in user.inputs.values() if item != digest]
    chosen: dict[str, Execution] = {}
    while pending:
        maker = makers.get(pending.pop())
        if maker is not None and maker.key not in chosen:
            chosen[maker.key] = maker
            pending += maker.inputs.values()
    lineage = lineage_table(list(chosen.values()), kinds)
    tables = {name: getattr(lineage, name) for name in ("nodes", "edges")}
    ordered = {name: table.sort_by([(column, "ascending") for column in table.column_names]) for name, table in tables.items()}
    return Lineage(**ordered)
