"""Dataset versions: published once, immutable, told apart by what they hold; which of them live, and what names them."""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalogs import lineage
from catalogs.contents import artifact_refs, clip_of, question_ids_among
from catalogs.gates import Gate, judge
from catalogs.log import CommitLog
from catalogs.records import DatasetVersion, Execution, Note, dataset_row, note_row, read_dataset, read_heading
from catalogs.splits import SplitRule, split
from schemas.canonical import TaggedHash, canonical_json
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NUMBER = re.compile(r"[vV]?([0-9]{1,9})")
_LATEST = "latest"
_LISTED_MISSING = 3


@dataclass(frozen=True)
class Standing:
    """How a living version stands today.

    Attributes:
        name, version: `name@version` names it.
        published_at: Unix time in seconds.
        fingerprint: of recipe, artifacts and rejections.
        held: why it is kept from being the latest, or None.
        tags: what else names it.
    """

    name: str
    version: int
    published_at: float
    fingerprint: str
    held: str | None
    tags: tuple[str, ...]

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


def check_dataset_name(name: str) -> None:
    """Raise a `WorldlineError` if a dataset cannot have this name."""
    if not _NAME.fullmatch(name):
        raise WorldlineError(
            f"{_shown(name)} cannot name a dataset: use up to 100 letters, digits, dots, dashes and underscores, "
            "starting with a letter or digit"
        )


def check_tag(tag: str) -> None:
    """Raise a `WorldlineError` if this cannot be a tag."""
    if not _NAME.fullmatch(tag) or _NUMBER.fullmatch(tag) or tag.lower() == _LATEST:
        raise WorldlineError(
            f"{_shown(tag)} cannot be a tag: use up to 100 letters, digits, dots, dashes and underscores, starting with a "
            "letter or digit, but no version number and not 'latest'"
        )


def _shown(text: str) -> str:
    """Quote what a person typed so that it fits in one line."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


# -- publishing -----------------------------------------------------------------------------------------------------------


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
    with catalog.log.lease(exclusive=False):  # so that `gc` does not take what is written before the record
        while True:
            seen = _Seen.of(catalog.log, name)
            draft, fingerprint = _draft(catalog, seen, name, recipe, artifacts, lock, split_rule or SplitRule())
            known = _already_published(catalog.log, seen, draft, fingerprint)
            if known is not None:
                return known
            draft = dataclasses.replace(draft, held=_judged(catalog, gate, draft))
            with catalog.log.write() as commit:
                if _Seen.of(catalog.log, name) != seen:
                    continue
                row = commit.append(dataset_row(draft, fingerprint))
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
        rejected = {note.subject for note in log.notes("review") if note.body.get("verdict") == "reject"}
        return cls(highest, tuple(standing(log, name)), frozenset(rejected))


def _draft(
    catalog: "Catalog",
    seen: _Seen,
    name: str,
    recipe: dict[str, Any],
    artifacts: dict[str, str],
    lock: dict[str, Any],
    split_rule: SplitRule,
) -> tuple[DatasetVersion, str]:
    """Return the next version as it would be published, and its fingerprint; the manifest's object is stored."""
    check_whole(catalog, name, artifacts)
    executions = lineage.upstream(catalog.log, sorted(set(artifacts.values())))
    kept, rejected = without_rejected(catalog, artifacts, executions, seen.rejected)
    if artifacts and not kept:
        raise WorldlineError(f"{name} cannot be published: people rejected everything in it ({len(artifacts)} artifacts)")
    if len(kept) < len(artifacts):
        executions = lineage.upstream(catalog.log, sorted(set(kept.values())))
    fingerprint = TaggedHash("dataset/1").json(recipe).json(kept)
    if rejected:
        fingerprint.json(rejected)
    number = seen.highest + 1
    splits = split(catalog, kept, executions, split_rule)
    manifest = lineage.manifest(name, number, recipe, kept, executions, lock, catalog.log)
    manifest |= {"splits": splits, "rejected": list(rejected)}
    stored = catalog.objects.put_bytes(canonical_json(manifest).encode())
    keys = tuple(execution.key for execution in executions)
    draft = DatasetVersion(name, number, recipe, kept, keys, lock, stored, 0.0, splits=splits, rejected=rejected)
    return draft, fingerprint.hexdigest()


def _already_published(log: CommitLog, seen: _Seen, draft: DatasetVersion, fingerprint: str) -> DatasetVersion | None:
    """Return the latest version, or a held one after it, if it holds the same; versions from before splits had none."""
    for standing_version in reversed(seen.living):
        if standing_version.fingerprint == fingerprint:
            version = _version(log, standing_version)
            if version.splits in ({}, draft.splits):
                return version
        if standing_version.held is None:
            return None
    return None


def _judged(catalog: "Catalog", gate: Gate | None, draft: DatasetVersion) -> str | None:
    if gate is None:
        return None
    number = latest(catalog.log, draft.name).get(draft.name)
    previous = resolve(catalog.log, f"{draft.name}@{number}") if number else None
    return judge(catalog, gate, draft, previous)


def check_whole(catalog: "Catalog", name: str, artifacts: Mapping[str, str]) -> None:
    """Raise a `WorldlineError` that names the roles whose artifacts are unknown or have lost parts."""
    refs = artifact_refs(catalog.log, artifacts.values())
    whole = {digest for digest, ref in refs.items() if catalog.whole(ref)}
    missing = [(role, digest) for role, digest in sorted(artifacts.items()) if digest not in whole]
    if missing:
        named = ", ".join(f"{role} {digest[:12]}" for role, digest in missing[:_LISTED_MISSING])
        more = f" and {len(missing) - _LISTED_MISSING} more" if len(missing) > _LISTED_MISSING else ""
        parts = "has lost parts" if missing[0][1] in refs else "is not in the catalog"
        raise WorldlineError(f"{name} cannot be published: its {named}{more} {parts}; build it again")


def without_rejected(
    catalog: "Catalog", artifacts: Mapping[str, str], executions: Sequence[Execution], rejected: frozenset[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the artifacts that stay after what people rejected, and the rejections that concern this version.

    A rejected artifact leaves together with everything that was made from it for the same clip (reject a clip, and
    its labels go; reject tracks, and their questions go). A rejected question stays in its artifact, where it counts
    for the version through its `rejected`.
    """
    kept = dict(sorted(artifacts.items()))
    if not rejected:
        return kept, ()
    causes = {digest: {digest} for digest in rejected}
    for execution in executions:
        found = set().union(*(causes.get(digest, ()) for digest in execution.inputs.values()))
        for ref in execution.outputs:
            if found and ref.kind != "Model":  # a rejected sample does not condemn the model that it once trained
                causes.setdefault(ref.digest, set()).update(found)
    many = any(clip_of(role) for role in artifacts)
    concerned: set[str] = set()
    for role, digest in artifacts.items():
        of_all_clips = many and not clip_of(role)  # a report over all clips stays where one of them goes
        why = causes.get(digest, set()) & {digest} if of_all_clips else causes.get(digest, set())
        if why:
            del kept[role]
            concerned |= why
    return kept, tuple(sorted(concerned | question_ids_among(catalog, kept.values(), rejected)))


# -- standing -------------------------------------------------------------------------------------------------------------


def standing(log: CommitLog, name: str | None = None) -> list[Standing]:
    """Return how the versions stand that were not deleted, of one dataset or of all, by name and version."""
    deleted = {note.subject for note in log.notes("deleted")}
    verdicts = {note.subject: note for note in log.notes("review") if "@" in note.subject}
    tags = _tags(log)
    query = "SELECT fingerprint, heading FROM datasets WHERE name = coalesce(?, name) ORDER BY name, version"
    rows = []
    for fingerprint, text in log.rows(query, (name,)):
        heading = read_heading(json.loads(text))
        reference = heading.reference
        if reference not in deleted:
            held, named = _held(heading.held, verdicts.get(reference)), tuple(tags.get(reference, ()))
            rows.append(Standing(heading.name, heading.version, heading.published_at, fingerprint, held, named))
    return rows


def _held(by_gate: str | None, verdict: Note | None) -> str | None:
    """A person's word goes over the gate's."""
    if verdict is None:
        return by_gate
    if verdict.body.get("verdict") == "accept":
        return None
    return f"rejected by {verdict.author or 'a person'}: {verdict.reason or 'no reason given'}"


def living(log: CommitLog, name: str | None = None) -> list[DatasetVersion]:
    """Return the versions that were not deleted, of one dataset or of all, by name and version."""
    held = {item.reference: item.held for item in standing(log, name)}
    versions = log.datasets(name)
    return [dataclasses.replace(item, held=held[item.reference]) for item in versions if item.reference in held]


def latest(log: CommitLog, name: str | None = None) -> dict[str, int]:
    """Return the version that each dataset's bare name stands for: the last one that lives and is not held."""
    return {item.name: item.version for item in standing(log, name) if item.held is None}


def _version(log: CommitLog, item: Standing) -> DatasetVersion:
    query = "SELECT body FROM datasets WHERE name = ? AND version = ?"
    ((body,),) = log.rows(query, (item.name, item.version))
    return dataclasses.replace(read_dataset(json.loads(body)), held=item.held)


# -- references -----------------------------------------------------------------------------------------------------------


def resolve(log: CommitLog, reference: str) -> DatasetVersion:
    """Return a version by "NAME@3", "NAME@v3" or "NAME@TAG", or the latest one by "NAME".

    Raises:
        WorldlineError: if there is none; the message names what there is.
    """
    name, _, wanted = reference.partition("@")
    check_dataset_name(name)
    known = standing(log, name)
    if not known:
        raise _unknown_dataset(log, name)
    if not wanted or wanted.lower() == _LATEST:
        free = [item for item in known if item.held is None]
        if not free:
            last = known[-1]
            raise WorldlineError(
                f"{name} has no version that may be the latest: {last.reference} is held because {last.held}; "
                f"read it as {last.reference}, or accept it"
            )
        return _version(log, free[-1])
    number = _NUMBER.fullmatch(wanted)
    for item in known:
        if (number and item.version == int(number[1])) or wanted in item.tags:
            return _version(log, item)
    if not number:
        check_tag(wanted)
    raise _unknown_version(log, known, wanted, int(number[1]) if number else None)


def _unknown_dataset(log: CommitLog, name: str) -> WorldlineError:
    names = sorted({item.name for item in standing(log)})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
    hint = f"there is {', '.join(near)}" if near else "nothing has been published here yet"
    return WorldlineError(f"no dataset {name} in {log.home}: {hint}")


def _unknown_version(log: CommitLog, known: Sequence[Standing], wanted: str, number: int | None) -> WorldlineError:
    name, numbers = known[0].name, [item.version for item in known]
    deleted = log.note("deleted", f"{name}@{number}")
    if number is not None and deleted is not None:
        when = datetime.fromtimestamp(deleted.recorded_at, UTC).date().isoformat()
        return WorldlineError(f"{name}@{number} was deleted on {when} by {deleted.author} ({deleted.reason})")
    tags = sorted(tag for item in known for tag in item.tags)
    tagged = f" and the tags {', '.join(tags[:10])}" if tags else ""
    what = f"version {wanted}" if number is not None else f"version or tag {wanted}"
    span = f"{numbers[0]} to {numbers[-1]}"
    return WorldlineError(f"{name} has no {what}: it has {span}{tagged}")


# -- tags and deletion ----------------------------------------------------------------------------------------------------


def _tags(log: CommitLog) -> dict[str, list[str]]:
    """Return the tags of every version that has some."""
    tags: dict[str, list[str]] = {}
    for note in log.notes("tag"):
        name, _, tag_name = note.subject.partition("@")
        if note.body.get("version") is not None:
            tags.setdefault(f"{name}@{note.body['version']}", []).append(tag_name)
    return tags


def tag(catalog: "Catalog", reference: str, tag: str, *, author: str | None = None) -> DatasetVersion:
    """Give a version one more name, NAME@TAG; a tag that named another version moves.

    Raises:
        WorldlineError: if there is no such version, or this cannot be a tag.
    """
    check_tag(tag)
    with catalog.log.write() as commit:  # looked up under the lock, so that nobody deletes it meanwhile
        version = resolve(catalog.log, reference)
        commit.append(note_row(Note("tag", f"{version.name}@{tag}", {"version": version.version}, author=author)))
    return version


def untag(catalog: "Catalog", reference: str, *, author: str | None = None) -> DatasetVersion:
    """Take the tag away that NAME@TAG names and return the version that it named.

    Raises:
        WorldlineError: if there is no such tag.
    """
    name, _, tag = reference.partition("@")
    with catalog.log.write() as commit:
        version = resolve(catalog.log, reference)
        note = commit.note("tag", f"{name}@{tag}")
        if note is None or note.body.get("version") is None:
            raise WorldlineError(f"{reference} is no tag: name one as NAME@TAG")
        commit.append(note_row(Note("tag", f"{name}@{tag}", {"version": None}, author=author)))
    return version


def delete(catalog: "Catalog", reference: str, reason: str, author: str) -> DatasetVersion:
    """Delete a version: nothing shows it again, its number is never given out again, and `gc` keeps what others use.

    Raises:
        WorldlineError: if the version is not named by its number, is tagged, or no reason is given.
    """
    _, _, wanted = reference.partition("@")
    if not _NUMBER.fullmatch(wanted):
        raise WorldlineError(f"{_shown(reference)} does not say which version to delete: give its number, NAME@3")
    if not reason.strip():
        raise WorldlineError(f"{reference} is not deleted without a reason: give one")
    with catalog.log.write() as commit:
        version = resolve(catalog.log, reference)
        tags = _tags(catalog.log).get(version.reference, [])
        if tags:
            raise WorldlineError(f"{version.reference} is tagged {', '.join(tags)}: remove the tag first, then delete it")
        commit.append(note_row(Note("deleted", version.reference, {}, reason=reason, author=author)))
    return version
