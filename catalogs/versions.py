"""Publishing dataset versions: once, immutable, told apart by what they hold."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalogs import lineage
from catalogs.consolidation import consolidate
from catalogs.contents import Contents, artifact_refs, clip_of, measure, question_ids_among
from catalogs.gates import Gate, judge
from catalogs.governance import rejected_by_people
from catalogs.log import CommitLog
from catalogs.records import ArtifactRef, DatasetVersion, Execution, Note, dataset_row, note_row
from catalogs.splits import SPLITS, SplitRule, split
from catalogs.standing import (
    Standing,
    check_dataset_name,
    check_tag,
    delete,
    latest,
    living,
    read_version,
    resolve,
    standing,
    tag,
    untag,
)
from schemas.canonical import TaggedHash, to_plain
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

__all__ = [
    "Standing",
    "check_dataset_name",
    "check_tag",
    "delete",
    "latest",
    "living",
    "publish",
    "resolve",
    "standing",
    "tag",
    "untag",
]

_LISTED_MISSING = 3
_ASKED_AT_ONCE = 32
# A rejected sample does not condemn the model that it once trained, nor the empty truth that all plain videos share.
_UNCONDEMNED = ("Model", "Truth")


def publish(
    catalog: "Catalog",
    name: str,
    recipe: dict[str, Any],
    artifacts: dict[str, str],
    lock: dict[str, Any],
    *,
    gate: Gate | None = None,
    split_rule: SplitRule | None = None,
) -> DatasetVersion:
    """Publish a new version of a dataset, or return the one that already holds the same.

    What people rejected leaves the version first (see `without_rejected`). A version that fails its gate is published
    but held: it can be read as NAME@V, and never is what the bare name stands for unless a person accepts it.
    Everything that takes long happens before the write lock is taken; where another publisher of the same dataset was
    faster meanwhile, it is judged again against the version that stands then.

    Args:
        catalog: the workspace.
        name: letters, digits, dots, dashes and underscores.
        recipe: the resolved config.
        artifacts: artifact digest by role ("labels", or "CLIP/labels" in a version of many clips).
        lock: package versions of the environment.
        gate: what the version must fulfil to become the latest.
        split_rule: how its clips are split; the rule's defaults where None.

    Raises:
        WorldlineError: if the name is not allowed, or an artifact is unknown, not recorded, or not whole.
    """
    check_dataset_name(name)
    recipe, lock = to_plain(recipe), to_plain(lock)
    with catalog.log.lease(exclusive=False):  # so that `gc` does not take what is written before the record
        while True:
            seen = _Seen.of(catalog.log, name)
            refs = whole_refs(catalog, name, artifacts)
            draft, executions = _draft(catalog, seen, name, recipe, artifacts, refs, lock, split_rule or SplitRule())
            fingerprint = _fingerprint(draft)
            known = _already_published(catalog.log, seen, draft, fingerprint)
            if known is not None:
                return known
            draft = dataclasses.replace(draft, manifest=_stored_manifest(catalog, draft, executions))
            del executions  # half a gigabyte for 100,000 of them
            tables = consolidate(catalog, draft.artifacts)
            contents = measure(
                catalog, draft.artifacts, draft.rejected, tables, {digest: refs[digest] for digest in draft.artifacts.values()}
            )
            draft = dataclasses.replace(draft, held=_judged(catalog, gate, name, contents), facts=_facts(contents, draft.splits))
            with catalog.log.write() as commit:
                if _Seen.of(catalog.log, name) != seen:
                    continue
                row = commit.append(dataset_row(draft, fingerprint))
                if tables:
                    commit.append(note_row(Note("tables", draft.reference, {"tables": tables})))
            return dataclasses.replace(draft, published_at=row["recorded_at"])


@dataclass(frozen=True)
class _Seen:
    """What a draft depends on besides the artifacts; if it changed meanwhile, the draft is made again."""

    highest: int  # version number ever given out
    living: tuple[Standing, ...]
    rejected: frozenset[str]

    @classmethod
    def of(cls, log: CommitLog, name: str) -> "_Seen":
        ((highest,),) = log.rows("SELECT coalesce(max(version), 0) FROM datasets WHERE name = ?", (name,))
        return cls(highest, tuple(standing(log, name)), frozenset(rejected_by_people(log)))


def _draft(
    catalog: "Catalog",
    seen: _Seen,
    name: str,
    recipe: dict[str, Any],
    artifacts: dict[str, str],
    refs: Mapping[str, ArtifactRef],
    lock: dict[str, Any],
    split_rule: SplitRule,
) -> tuple[DatasetVersion, list[Execution]]:
    """Return the next version as it would be published, without its manifest, and everything upstream of it."""
    executions = lineage.upstream(catalog.log, sorted(set(artifacts.values())))
    kept, rejected = without_rejected(catalog, artifacts, executions, seen.rejected)
    if artifacts and not kept:
        raise WorldlineError(f"{name} cannot be published: people rejected everything in it ({len(artifacts)} artifacts)")
    if len(kept) < len(artifacts):
        executions = lineage.upstream(catalog.log, sorted(set(kept.values())))
    splits = split(catalog, {role: refs[digest] for role, digest in kept.items()}, executions, split_rule)
    keys = tuple(execution.key for execution in executions)
    draft = DatasetVersion(name, seen.highest + 1, recipe, kept, keys, lock, "", 0.0, splits=splits, rejected=rejected)
    return draft, executions


def _fingerprint(draft: DatasetVersion) -> str:
    fingerprint = TaggedHash("dataset/1").json(draft.recipe).json(draft.artifacts)
    if draft.rejected:  # else as it was before people could reject
        fingerprint.json(draft.rejected)
    return fingerprint.hexdigest()


def _stored_manifest(catalog: "Catalog", draft: DatasetVersion, executions: Sequence[Execution]) -> str:
    """Store the manifest and return its SHA-256."""
    manifest = lineage.manifest(draft.name, draft.version, draft.recipe, draft.artifacts, executions, draft.lock, catalog.log) | {
        "splits": draft.splits,
        "rejected": list(draft.rejected),
    }
    # What records hold is in JSON's types already; `canonical_json` would walk 100,000 executions for seconds.
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return catalog.objects.put_bytes(text.encode())


def _already_published(log: CommitLog, seen: _Seen, draft: DatasetVersion, fingerprint: str) -> DatasetVersion | None:
    """Return the latest version, or a held one after it, if it holds the same; versions from before splits had none."""
    for item in reversed(seen.living):
        if item.fingerprint == fingerprint:
            version = read_version(log, item)
            if version.splits in ({}, draft.splits):
                return version
        if item.held is None:
            return None
    return None


def _judged(catalog: "Catalog", gate: Gate | None, name: str, contents: Contents) -> str | None:
    if gate is None:
        return None
    number = latest(catalog.log, name).get(name)
    return judge(catalog, gate, contents, resolve(catalog.log, f"{name}@{number}") if number else None)


def _facts(contents: Contents, splits: Mapping[str, str]) -> dict[str, Any]:
    counts = Counter(splits.values())
    by_split = {split_name: counts[split_name] for split_name in SPLITS}
    rows = {table: count for table, count in contents.rows.items() if count}
    return {"bytes": contents.bytes, "clips": contents.clips, "rows": rows, "splits": by_split}


def whole_refs(catalog: "Catalog", name: str, artifacts: Mapping[str, str]) -> dict[str, ArtifactRef]:
    """Return the artifacts by digest.

    Raises:
        WorldlineError: if some are unknown or have lost parts, naming their roles.
    """
    refs = artifact_refs(catalog.log, artifacts.values())
    sizes = _sizes(catalog, {name for ref in refs.values() for name in ref.parts.values()})
    whole = {digest for digest, ref in refs.items() if sum(sizes[name] for name in ref.parts.values()) == ref.bytes}
    missing = [(role, digest) for role, digest in sorted(artifacts.items()) if digest not in whole]
    if missing:
        named = ", ".join(f"{role} {digest[:12]}" for role, digest in missing[:_LISTED_MISSING])
        more = f" and {len(missing) - _LISTED_MISSING} more" if len(missing) > _LISTED_MISSING else ""
        parts = "has lost parts" if missing[0][1] in refs else "is not in the catalog"
        raise WorldlineError(f"{name} cannot be published: its {named}{more} {parts}; build it again")
    return refs


def _sizes(catalog: "Catalog", names: set[str]) -> dict[str, float]:
    """Return the size of each object in bytes, not a number where it is lost; a remote store is asked for many at once."""
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        sizes = pool.map(catalog.objects.size, names) if catalog.store.remote else map(catalog.objects.size, names)
        return {name: math.nan if size is None else size for name, size in zip(names, sizes, strict=True)}


def without_rejected(
    catalog: "Catalog", artifacts: Mapping[str, str], executions: Sequence[Execution], rejected: frozenset[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the artifacts that stay after what people rejected, and the rejections that concern this version.

    A rejected artifact leaves together with everything that was made from it for the same clip (reject a clip, and
    its labels go; reject tracks, and their questions go); what was made from it for another clip stays. A rejected
    question stays in its artifact, where it counts for the version through its `rejected`.
    """
    kept = dict(sorted(artifacts.items()))
    if not rejected:
        return kept, ()
    causes = {digest: {digest} for digest in rejected}
    for execution in executions:
        found = set().union(*(causes.get(digest, ()) for digest in execution.inputs.values()))
        for ref in execution.outputs:
            if found and ref.kind not in _UNCONDEMNED:
                causes.setdefault(ref.digest, set()).update(found)
    owners: dict[str, set[str]] = {}
    for role, digest in artifacts.items():
        owners.setdefault(digest, set()).add(clip_of(role))
    many = any(clip_of(role) for role in artifacts)
    concerned: set[str] = set()
    for role, digest in artifacts.items():
        clip = clip_of(role)
        of_all_clips = many and not clip  # a report over all clips stays where one of them goes
        why = {
            cause
            for cause in causes.get(digest, ())
            if cause == digest or (not of_all_clips and clip in owners.get(cause, {clip}))
        }
        if why:
            del kept[role]
            concerned |= why
    return kept, tuple(sorted(concerned | question_ids_among(catalog, kept.values(), rejected)))
