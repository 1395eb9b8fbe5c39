"""What differs between two dataset versions, and the settings, sources, code and packages that explain it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalogs.contents import Contents, artifact_refs, contents_of
from catalogs.gates import total_variation
from catalogs.lineage import read_executions, rows_in
from catalogs.records import DatasetVersion
from schemas.canonical import canonical_json, leaves

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


@dataclass(frozen=True)
class RoleChange:
    """How the artifact of one role compares.

    Attributes:
        role, kind: what it is.
        change: "same", "different", "only in a" or "only in b".
        a, b: digests, None where a version has no such role.
    """

    role: str
    kind: str
    change: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class LabelChange:
    """Number of labels of a kind and answer in both versions."""

    kind: str
    answer: str
    a: int
    b: int


@dataclass(frozen=True)
class FigureChange:
    """A figure in both versions (the mean over the artifacts that have it); None where one has it not."""

    name: str
    unit: str
    a: float | None
    b: float | None


@dataclass(frozen=True)
class Change:
    """Something that has a text in both versions; None where one has it not."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Difference:
    """What differs between the versions `a` and `b`.

    Attributes:
        a, b: NAME@V.
        roles: every role of either version.
        rows: number of rows in a and b by table.
        labels: number of labels by kind and answer, of every kind and answer of either version.
        label_distance: total variation distance of their distributions, 0 (equal) to 1 (nothing in common).
        figures: of either version.
        settings: recipe settings that differ, as JSON by dotted path.
        sources: artifacts that no execution made and only one version came from, by digest, with their name or kind.
        stages: stages whose declared version or code differ, as "version CODE", all that occur.
        code_files: source files of stages that both ran and whose fingerprints differ.
        packages: packages of stages that both ran and whose versions differ.
        splits: clips that are in another split, or in one version only.
        rejected: what people had rejected in one version only.
    """

    a: str
    b: str
    roles: tuple[RoleChange, ...]
    rows: dict[str, tuple[int, int]]
    labels: tuple[LabelChange, ...]
    label_distance: float
    figures: tuple[FigureChange, ...]
    settings: tuple[Change, ...]
    sources: tuple[Change, ...]
    stages: tuple[Change, ...]
    code_files: tuple[Change, ...]
    packages: tuple[Change, ...]
    splits: tuple[Change, ...]
    rejected: tuple[Change, ...]


def difference(catalog: "Catalog", a: str, b: str) -> Difference:
    """Compare two versions, of one dataset or of two.

    Args:
        catalog: the workspace.
        a: NAME, NAME@V or NAME@TAG.
        b: the same of the other version.

    Raises:
        WorldlineError: if there is no such version, or objects that hold its rows are lost.
    """
    versions = catalog.dataset(a), catalog.dataset(b)
    contents = tuple(contents_of(catalog, version) for version in versions)
    made_by = tuple(_Makers.of(catalog, version) for version in versions)
    both_ran = made_by[0].versions.keys() & made_by[1].versions.keys()
    return Difference(
        versions[0].reference,
        versions[1].reference,
        _roles(catalog, *versions),
        {table: (contents[0].rows[table], contents[1].rows[table]) for table in contents[0].rows},
        _labels(*contents),
        total_variation(contents[0].labels, contents[1].labels),
        _figures(*contents),
        _changes(*({name: canonical_json(value) for name, value in leaves(item.recipe).items()} for item in versions)),
        _sources(catalog, *made_by),
        _changes(*(_texts(makers.versions) for makers in made_by)),
        _changes(*(_texts(makers.of_stages(makers.code_files, both_ran)) for makers in made_by)),
        _changes(*(_texts(makers.of_stages(makers.packages, both_ran)) for makers in made_by)),
        _changes(*(version.splits for version in versions)),
        _changes(*(dict.fromkeys(version.rejected, "rejected") for version in versions)),
    )


@dataclass(frozen=True)
class _Makers:
    """What made a version: texts by stage, and by stage and name; and the artifacts that nothing made."""

    versions: dict[str, set[str]]
    code_files: dict[tuple[str, str], set[str]]
    packages: dict[tuple[str, str], set[str]]
    sources: set[str]

    @classmethod
    def of(cls, catalog: "Catalog", version: DatasetVersion) -> "_Makers":
        """Read one execution of every stage, code and environment, so that 100,000 executions take a second."""
        query = "SELECT stage, code_files, packages, key FROM executions WHERE key IN"
        one_of_each: dict[tuple[Any, ...], str] = {}
        for *what, key in rows_in(catalog.log, query, version.executions):
            one_of_each.setdefault(tuple(what), key)
        makers = cls({}, {}, {}, set())
        for execution in read_executions(catalog.log, one_of_each.values()).values():
            makers.versions.setdefault(execution.stage, set()).add(f"version {execution.version}, code {execution.code[:12]}")
            for name, fingerprint in execution.code_files.items():
                makers.code_files.setdefault((execution.stage, name), set()).add(fingerprint[:12])
            for name, number in execution.packages.items():
                makers.packages.setdefault((execution.stage, name), set()).add(number)
        used = {digest: set[str]() for digest in ("in", "out")}
        for digest, direction in rows_in(catalog.log, "SELECT digest, direction FROM edges WHERE key IN", version.executions):
            used[direction].add(digest)
        makers.sources.update((used["in"] | set(version.artifacts.values())) - used["out"])
        return makers

    @staticmethod
    def of_stages(texts: Mapping[tuple[str, str], set[str]], stages: set[str]) -> dict[str, set[str]]:
        """Return what these stages had, by name alone."""
        found: dict[str, set[str]] = {}
        for (stage, name), values in texts.items():
            if stage in stages:
                found.setdefault(name, set()).update(values)
        return found


def _roles(catalog: "Catalog", a: DatasetVersion, b: DatasetVersion) -> tuple[RoleChange, ...]:
    refs = artifact_refs(catalog.log, {*a.artifacts.values(), *b.artifacts.values()})
    changes = []
    for role in sorted(a.artifacts.keys() | b.artifacts.keys()):
        one, other = a.artifacts.get(role), b.artifacts.get(role)
        known = refs.get(one or other or "")
        change = "same" if one == other else "only in b" if one is None else "only in a" if other is None else "different"
        changes.append(RoleChange(role, known.kind if known else "", change, one, other))
    return tuple(changes)


def _labels(a: Contents, b: Contents) -> tuple[LabelChange, ...]:
    keys = sorted(a.labels.keys() | b.labels.keys())
    return tuple(LabelChange(*key, a.labels.get(key, 0), b.labels.get(key, 0)) for key in keys)


def _figures(a: Contents, b: Contents) -> tuple[FigureChange, ...]:
    changes = []
    for name in sorted(a.figures.keys() | b.figures.keys()):
        one, other = a.figures.get(name), b.figures.get(name)
        unit = next(figure.unit for figure in (one, other) if figure is not None)
        changes.append(FigureChange(name, unit, one.mean if one else None, other.mean if other else None))
    return tuple(changes)


def _changes(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Change, ...]:
    """Return only what differs."""
    names = sorted(a.keys() | b.keys())
    return tuple(Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def _texts(values: Mapping[str, set[str]]) -> dict[str, str]:
    return {name: " and ".join(sorted(found)) for name, found in values.items()}


def _sources(catalog: "Catalog", a: _Makers, b: _Makers) -> tuple[Change, ...]:
    refs = artifact_refs(catalog.log, a.sources ^ b.sources)
    named = {digest: str(ref.facts.get("name") or ref.kind) for digest, ref in refs.items() if ref.kind != "Lineage"}
    return _changes(*({digest: name for digest, name in named.items() if digest in makers.sources} for makers in (a, b)))
