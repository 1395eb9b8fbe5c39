"""Who may use what: terms of what came in, licences of what was made from it, and what people accept or reject.

Terms are given to origins: artifacts that nobody here made (videos, logs, weights), generated clips, and generators
("model:NAME"). Everything else carries the licences of all origins upstream of it, found by walking the lineage.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catalogs.contents import artifact_refs
from catalogs.licences import UNKNOWN, allows, joined, normalise
from catalogs.lineage import rows_in
from catalogs.log import CommitLog
from catalogs.records import Note, listed, note_row
from catalogs.standing import resolve
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.reports import Lineage

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

MODEL_PREFIX = "model:"
_GENERATORS = "generate."  # stages that bring in frames which nobody filmed
_OURS = {"generate.world": "CC0-1.0"}  # procedural worlds are drawn from nothing by this code: stage, licence


@dataclass(frozen=True)
class Origin:
    """Something that came in from outside, or out of a generator.

    Attributes:
        subject: artifact digest; "model:NAME" for clips of a generator that have no licence of their own; or the stage
            that draws procedural worlds.
        name: what a person calls it.
        licence: SPDX expression, or "unknown".
        terms, attribution, place: as its owner gave them.
    """

    subject: str
    name: str
    licence: str
    terms: str | None = None
    attribution: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Licences:
    """Everything that an artifact came from, with its terms.

    Attributes:
        origins: by subject; none for what came from nothing at all.
    """

    origins: tuple[Origin, ...] = ()

    @property
    def expression(self) -> str:
        """All licences, which hold at once, as one SPDX expression; "unknown" stands for missing terms."""
        return joined(origin.licence for origin in self.origins)

    @property
    def attribution(self) -> str:
        """Whom to name, parted by semicolons."""
        return "; ".join(sorted({origin.attribution for origin in self.origins if origin.attribution}))

    def allow(self, use: str) -> bool:
        """Return whether every origin's licence allows a use of `licences.USES`."""
        return all(allows(origin.licence, use) for origin in self.origins)


# -- terms -------------------------------------------------------------------------------------------------------------


def give_terms(
    catalog: "Catalog",
    subject: str,
    *,
    licence: str | None = None,
    terms: str | None = None,
    attribution: str | None = None,
    place: str | None = None,
    author: str | None = None,
) -> Origin:
    """Record the terms of an origin; what is None stays as it was given before.

    Args:
        catalog: the workspace.
        subject: digest (or its first digits) of a source, of weights or of a generated clip, the name of a source, or
            "model:NAME" for everything that a generator made.
        licence: SPDX expression, see `licences.normalise`.
        terms: what else holds, in words or as a web address.
        attribution: whom to name.
        place: where it was recorded, for splits by place.
        author: who says so.

    Raises:
        WorldlineError: if the subject is unknown or no origin, or the licence is none.
    """
    given = {"licence": licence, "terms": terms, "attribution": attribution, "place": place}
    said = {name: value.strip() for name, value in given.items() if value is not None and value.strip()}
    if not said:
        raise WorldlineError(f"nothing is said of {subject}: give a licence, terms, an attribution or a place")
    if "licence" in said:
        said["licence"] = normalise(said["licence"])
    found = origin_like(catalog, subject)
    with catalog.log.write() as commit:
        before = commit.note("terms", found)
        after = {**(before.body if before else {}), **said}
        if before is None or after != before.body:  # nightly builds say the same again and again
            commit.append(note_row(Note("terms", found, after, author=author)))
    return _origins(catalog.log, [found])[found]


def origin_like(catalog: "Catalog", identifier: str) -> str:
    """Return the subject under which terms of something are kept.

    Raises:
        WorldlineError: if nothing has this identifier, several have, or it was made from something else.
    """
    if identifier.startswith(MODEL_PREFIX):
        if not identifier.removeprefix(MODEL_PREFIX).strip():
            raise WorldlineError(f"{identifier!r} names no model: write model:NAME as generate.diffusers was given it")
        return identifier.strip()
    named = [ref.digest for ref in catalog.log.artifacts(Source.kind) if ref.facts.get("name") == identifier]
    if len(named) > 1:
        raise WorldlineError(f"{identifier} is the name of {len(named)} sources, {listed(named)}: give the digits of one")
    ref = catalog.artifact(named[0] if named else identifier)
    producer = catalog.producer(ref.digest)
    if producer is not None and not (producer.stage.startswith(_GENERATORS) and ref.kind == "Clip"):
        above = licence_of(catalog, ref.digest).origins
        hint = f": speak of {listed([origin.subject for origin in above])}" if above else ""
        raise WorldlineError(f"{ref.kind} {ref.digest[:12]} was made by {producer.stage} and has the terms of its origins{hint}")
    return ref.digest


def _origins(log: CommitLog, subjects: Iterable[str]) -> dict[str, Origin]:
    terms = {note.subject: note.body for note in log.notes("terms")}
    digests = [subject for subject in subjects if not subject.startswith(MODEL_PREFIX) and subject not in _OURS]
    refs = artifact_refs(log, digests)
    query = "SELECT digest, stage FROM edges JOIN executions USING (key) WHERE direction = 'out' AND digest IN"
    makers = dict(rows_in(log, query, digests))
    origins = {}
    for subject in subjects:
        said, licence = terms.get(subject, {}), UNKNOWN
        if subject.startswith(MODEL_PREFIX):
            name = subject.removeprefix(MODEL_PREFIX)
        elif subject in _OURS:
            name, licence = "procedural worlds", _OURS[subject]
        else:
            name = str(refs[subject].facts.get("name") or refs[subject].kind) if subject in refs else subject[:12]
            licence = _OURS.get(makers.get(subject, ""), UNKNOWN)
        told = {key: said.get(key) for key in ("terms", "attribution", "place")}
        origins[subject] = Origin(subject, name, said.get("licence", licence), **told)
    return origins


# -- licences flow down ------------------------------------------------------------------------------------------------


def licence_of(catalog: "Catalog", digest: str) -> Licences:
    """Return the terms of everything that an artifact came from."""
    return licences_of(catalog, [digest])[digest]


def licences_of(catalog: "Catalog", digests: Iterable[str]) -> dict[str, Licences]:
    """Return the terms of everything that each of some artifacts came from, in one walk up the lineage.

    Where several executions made the same bits, an artifact has the terms of one of them: of one that also made
    other things on its way (the empty truth of every unlabelled video is the same artifact), else of the first.
    """
    wanted = list(dict.fromkeys(digests))
    upstream = _Upstream(catalog.log)
    upstream.explore(wanted)
    subjects = _flow_down(upstream, wanted)
    origins = _origins(catalog.log, sorted(set().union(*subjects.values())))
    # thousands of artifacts share few sets of origins
    made: dict[frozenset[str], Licences] = {}
    for found in subjects.values():
        if found not in made:
            made[found] = Licences(tuple(origins[subject] for subject in sorted(found)))
    return {digest: made[found] for digest, found in subjects.items()}


@dataclass
class _Upstream:
    """Digests and keys upstream of some artifacts, read from the index in batches without decoding any record."""

    log: CommitLog
    makers: dict[str, list[str]] = field(default_factory=dict)  # digest -> keys of explored executions that made it
    inputs: dict[str, list[str]] = field(default_factory=dict)  # key -> digests
    stages: dict[str, str] = field(default_factory=dict)  # key -> stage

    def explore(self, digests: Sequence[str]) -> None:
        """Read what is upstream. Of many makers of an artifact only those count that are upstream anyway, or the first."""
        ambiguous: dict[str, list[str]] = {}
        frontier = list(digests)
        while frontier:
            frontier = [digest for digest in dict.fromkeys(frontier) if digest not in self.makers and digest not in ambiguous]
            found: dict[str, list[str]] = defaultdict(list)
            for digest, key in rows_in(self.log, "SELECT digest, key FROM edges WHERE direction = 'out' AND digest IN", frontier):
                found[digest].append(key)
            for digest in frontier:
                if len(found[digest]) > 1:
                    ambiguous[digest] = found[digest]
                else:
                    self.makers[digest] = found[digest]
            frontier = self._read(key for digest in frontier if digest in self.makers for key in self.makers[digest])
            if not frontier and ambiguous:
                frontier = self._settle(ambiguous)
        for digest, keys in ambiguous.items():
            self.makers[digest] = sorted(key for key in keys if key in self.stages)

    def _settle(self, ambiguous: dict[str, list[str]]) -> list[str]:
        """Read the first maker of one artifact none of whose makers is known yet; return its inputs."""
        for digest, keys in ambiguous.items():
            if not any(key in self.stages for key in keys):
                first = self.log.producer(digest)
                inputs = self._read([first.key] if first else [])
                if inputs:
                    return inputs
        return []

    def _read(self, keys: Iterable[str]) -> list[str]:
        new = [key for key in dict.fromkeys(keys) if key not in self.stages]
        inputs: list[str] = []
        for key, stage in rows_in(self.log, "SELECT key, stage FROM executions WHERE key IN", new):
            self.stages[key], self.inputs[key] = stage, []
        for key, digest in rows_in(self.log, "SELECT key, digest FROM edges WHERE direction = 'in' AND key IN", new):
            self.inputs[key].append(digest)
            inputs.append(digest)
        return inputs


def _flow_down(upstream: _Upstream, wanted: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the subjects of all origins of each artifact."""
    given = [digest for digest, keys in upstream.makers.items() if not keys]
    empty = _without_content(upstream.log, given)
    licensed = {note.subject for note in upstream.log.notes("terms") if "licence" in note.body}
    made_from: dict[str, frozenset[str]] = {}  # by execution key
    choices: dict[str, set[frozenset[str]]] = {
        digest: {frozenset() if digest in empty else frozenset([digest])} for digest in given
    }
    stack = [(digest, False) for digest in wanted]
    open_digests: set[str] = set()
    while stack:
        digest, complete = stack.pop()
        if complete:
            # an input still open here is made from this artifact itself: that way of making it adds nothing
            keys = [key for key in upstream.makers[digest] if all(item in choices for item in upstream.inputs[key])]
            for key in keys:
                if key not in made_from:
                    made_from[key] = _combined([choices[item] for item in upstream.inputs[key]])
            choices[digest] = {made_from[key] | _generated(upstream, digest, key, licensed) for key in keys}
        elif digest not in choices and digest not in open_digests:
            open_digests.add(digest)
            stack.append((digest, True))
            stack.extend((item, False) for key in upstream.makers[digest] for item in upstream.inputs[key])
    return {digest: _combined([choices[digest]]) for digest in wanted}


def _combined(inputs: Sequence[set[frozenset[str]]]) -> frozenset[str]:
    """Return the origins of what is made from some inputs, each of which may have come about in several ways."""
    certain = frozenset().union(*(next(iter(ways)) for ways in inputs if len(ways) == 1))
    for ways in inputs:
        if len(ways) > 1 and not (certain in ways or any(frozenset([subject]) in ways for subject in certain)):
            certain |= min(ways, key=lambda way: (len(way - certain), sorted(way)))
    return certain


def _generated(upstream: _Upstream, digest: str, key: str, licensed: set[str]) -> frozenset[str]:
    """Return what a generator adds to the origins of its output: a clip with its own licence, the model, or our own code."""
    stage = upstream.stages[key]
    if not stage.startswith(_GENERATORS):
        return frozenset()
    if stage in _OURS:
        return frozenset([digest if digest in licensed else stage])
    execution = upstream.log.execution(key)
    assert execution is not None
    own = [ref.digest for ref in execution.outputs if ref.digest in licensed]
    model = execution.config.get("model")
    return frozenset(own or [f"{MODEL_PREFIX}{model}" if model else execution.outputs[0].digest])


def _without_content(log: CommitLog, digests: Sequence[str]) -> set[str]:
    """Return which of some given artifacts hold nothing of anybody's: lineage that the catalog wrote, and empty sources."""
    refs = artifact_refs(log, digests).values()
    return {ref.digest for ref in refs if ref.kind == Lineage.kind or (ref.kind == Source.kind and ref.facts.get("files") == 0)}


# -- what people accept or reject --------------------------------------------------------------------------------------


def review(catalog: "Catalog", subject: str, verdict: str, *, reason: str | None = None, author: str | None = None) -> str:
    """Record that a person accepts or rejects something, and return what the record is about.

    Args:
        catalog: the workspace.
        subject: digest (or its first digits) of a clip or any artifact, the id of a question (or its first digits), or
            NAME@V.
        verdict: "accept" or "reject"; the newest one on a subject counts.
        reason: why; needed for a reject.
        author: who.

    Raises:
        WorldlineError: if there is no such subject, or the verdict is neither.
    """
    if verdict not in ("accept", "reject"):
        raise WorldlineError(f"{verdict!r} is no verdict: accept or reject")
    if verdict == "reject" and not (reason or "").strip():
        raise WorldlineError(f"say why {subject} is rejected, so that others can tell a year from now")
    found = _review_subject(catalog, subject)
    catalog.note(Note("review", found, {"verdict": verdict}, reason, author))
    return found


def _review_subject(catalog: "Catalog", identifier: str) -> str:
    if "@" in identifier:
        return resolve(catalog.log, identifier).reference
    if catalog.log.headings(identifier):
        raise WorldlineError(f"{identifier} has several versions: say which one, {identifier}@V")
    if catalog.digests_like(identifier):
        return catalog.artifact(identifier).digest
    quoted = identifier.replace("'", "''")
    test = f"starts_with(question_id, '{quoted}')" if len(identifier) >= 4 else f"question_id = '{quoted}'"
    ids = catalog.sql(f"SELECT DISTINCT question_id FROM labels WHERE {test} ORDER BY 1 LIMIT 5").column(0).to_pylist()
    if identifier in ids or len(ids) == 1:
        return identifier if identifier in ids else str(ids[0])
    if ids:
        raise WorldlineError(f"{identifier} could mean the questions {listed(ids)}: give more digits")
    raise WorldlineError(f"no artifact, question or dataset version {identifier!r} in {catalog.home}")


def rejected_by_people(log: CommitLog) -> set[str]:
    """Return the artifact digests and question ids whose newest review is a reject."""
    return {note.subject for note in log.notes("review") if note.body["verdict"] == "reject" and "@" not in note.subject}
