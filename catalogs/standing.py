"""Which dataset versions live, which is the latest, and what names them: numbers, tags, and what people said of them."""

import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalogs.log import CommitLog
from catalogs.records import RECORDS, DatasetVersion, Note, note_row, read_dataset, read_heading, read_note
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NUMBER = re.compile(r"[vV]?([0-9]{1,9})")
_LATEST = "latest"


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


def standing(log: CommitLog, name: str | None = None) -> list[Standing]:
    """Return how the versions stand that were not deleted, of one dataset or of all, by name and version."""
    deleted = {note.subject for note in log.notes("deleted")}
    verdicts = _verdicts(log)
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


def _verdicts(log: CommitLog) -> dict[str, Note]:
    """Return what people said of versions; of samples and questions they may have said much more."""
    query = "SELECT body FROM notes WHERE record = 'review' AND subject LIKE ?"
    notes = [read_note({**dict.fromkeys(RECORDS.names), **json.loads(body)}) for (body,) in log.rows(query, ("%@%",))]
    return {note.subject: note for note in notes}


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


def read_version(log: CommitLog, item: Standing) -> DatasetVersion:
    """Return a living version whole, with what holds it today."""
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
        return read_version(log, free[-1])
    number = _NUMBER.fullmatch(wanted)
    for item in known:
        if (number and item.version == int(number[1])) or wanted in item.tags:
            return read_version(log, item)
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
