"""Checking every byte of a workspace, and healing what can be healed without building again.

Everything has a hash on record: objects are named by theirs, record files are registered with theirs, and the log is
compared with the record files that it indexes. So every damaged file is found, whatever its kind, and says how it heals.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalogs import versions
from catalogs.consolidation import consolidate
from catalogs.garbage import bodies, objects_of_body, objects_of_version, referenced
from catalogs.lineage import manifest, read_artifacts, upstream
from catalogs.records import DatasetVersion, Note
from catalogs.repair import bad_files, index_difference
from catalogs.stores import file_blocks, hash_blocks, object_digest, object_name
from schemas.canonical import canonical_json
from schemas.errors import WorldlineError
from schemas.reports import Report

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

_REMOTE_READERS = 8
_REPORT_PART = "files/report.html"


@dataclass(frozen=True)
class Finding:
    """A file that is not as it was written.

    Attributes:
        kind: "artifact", "source", "manifest", "table", "object" (nothing refers to it), "copy" (of a remote file, on this
            machine), "record file", "log" or "report".
        name: SHA-256 of an object, else the file's name in the workspace.
        state: "damaged" or "missing".
        of: what it belongs to.
        remedy: how it is healed.
    """

    kind: str
    name: str
    state: str
    of: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.of}) is {self.state}: {self.remedy}"


def verify(catalog: "Catalog", dataset: str | None = None) -> list[Finding]:
    """Read every byte again: objects, record files, the log and reports, or all objects that one dataset version needs.

    Nothing is changed. Of a remote store the stored bytes are read, not the copies on this machine (these are checked too).

    Returns:
        What is damaged or missing, by kind and name.

    Raises:
        WorldlineError: if there is no such dataset version, or the store cannot be reached.
    """
    if dataset is not None:
        version = versions.resolve(catalog.log, dataset)
        found = _bad_objects(catalog, _needed_by(catalog, version))
    else:
        found = _bad_records(catalog)
        if not any(finding.kind == "log" for finding in found):  # else nothing that it says can be trusted
            found += _bad_objects(catalog, referenced(catalog) | set(catalog.objects.all()))
            found += [*_bad_copies(catalog), *_bad_reports(catalog)]
    return sorted(found, key=lambda finding: (finding.kind, finding.name))


def heal(catalog: "Catalog") -> list[tuple[Finding, str]]:
    """Heal what can be healed without building again; remove what is damaged and can only be built again.

    A log that is bad itself is `catalogs.repair.repair`'s, which comes before.

    Returns:
        Everything that was found, with what was done about it.
    """
    healers: dict[str, Callable[[Catalog, Finding], str]] = {
        "manifest": _heal_manifest,
        "table": _heal_table,
        "copy": _heal_copy,
        "record file": _heal_record_file,
        "log": lambda *_: "left as it is: something changed it since it was repaired",
        "report": _heal_report,
    }
    return [(finding, healers.get(finding.kind, _heal_object)(catalog, finding)) for finding in verify(catalog)]


# -- objects -----------------------------------------------------------------------------------------------------------


def _needed_by(catalog: "Catalog", version: DatasetVersion) -> set[str]:
    """Return the objects of a version and of all executions that it came from."""
    executions = upstream(catalog.log, sorted(set(version.artifacts.values())))
    inputs = {digest for execution in executions for digest in execution.inputs.values()}
    refs = [ref for execution in executions for ref in execution.outputs]
    refs += read_artifacts(catalog.log, inputs | set(version.artifacts.values())).values()
    return {*objects_of_version(catalog.log, version), *(sha256 for ref in refs for sha256 in ref.parts.values())}


def _bad_objects(catalog: "Catalog", names: set[str]) -> list[Finding]:
    states = _hashed(dict.fromkeys(names, catalog.objects.verify), _readers(catalog))
    bad = {sha256: "damaged" if catalog.objects.exists(sha256) else "missing" for sha256, good in states.items() if not good}
    if not bad:
        return []
    found = {sha256: _of_nothing(sha256, state) for sha256, state in bad.items()}
    for sha256, finding in _of_records(catalog, bad):
        found[sha256] = finding
    for version in versions.living(catalog.log):
        for sha256, what in objects_of_version(catalog.log, version).items():
            if sha256 in bad:
                kind, remedy = what.partition(" ")[0], "`worldline repair` makes it again"
                found[sha256] = Finding(kind, sha256, bad[sha256], f"{what} of {version.reference}", remedy)
    return list(found.values())


def _of_nothing(sha256: str, state: str) -> Finding:
    return Finding("object", sha256, state, "nothing recorded", "`worldline repair` removes it")


def _of_records(catalog: "Catalog", bad: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """Yield what the records say about bad objects: of which artifact they are part, and what made it."""
    stages = {}
    for _, body in bodies(catalog.log, "executions"):
        if bad.keys() & objects_of_body(body):
            stages.update({output["digest"]: body["stage"] for output in body["outputs"]})
            for output in body["outputs"]:
                for part in output["parts"]:
                    if part["sha256"] in bad:
                        yield part["sha256"], _of_artifact(output, part, bad[part["sha256"]], body["stage"])
    for digest, body in bodies(catalog.log, "artifacts"):
        for part in body["parts"]:
            if part["sha256"] in bad and digest not in stages:
                yield part["sha256"], _of_artifact(body, part, bad[part["sha256"]], None)


def _of_artifact(output: dict[str, str], part: dict[str, str], state: str, stage: str | None) -> Finding:
    first = "`worldline repair` removes it, then " if state == "damaged" else ""
    again = f"build again: {stage} makes it" if stage else "build again from the same file, which brings it in"
    of = f"{part['name']} of {output['kind']} {output['digest'][:12]}"
    return Finding("artifact" if stage else "source", part["sha256"], state, of, first + again)


def _hashed(checks: Mapping[str, Callable[[str], bool]], threads: int) -> dict[str, bool]:
    """Run checks in threads (hashing and reading let others run) and return their answers by name."""
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(checks, pool.map(lambda item: item[1](item[0]), checks.items()), strict=True))


def _readers(catalog: "Catalog") -> int:
    return _REMOTE_READERS if catalog.store.remote else min(4, os.cpu_count() or 1)


def _bad_copies(catalog: "Catalog") -> list[Finding]:
    if not catalog.store.remote:
        return []
    expected = {f"tables/{name}": sha256 for name, sha256 in catalog.log.rows("SELECT name, sha256 FROM files")}
    for path in catalog.objects.folder.glob("*/*"):
        name = f"objects/{path.parent.name}/{path.name}"
        if (sha256 := object_digest(name)) is not None:
            expected[name] = sha256
    found = []
    for name, sha256 in expected.items():
        path = catalog.store.folder / name
        with contextlib.suppress(FileNotFoundError):  # not in use here, or removed meanwhile
            if hash_blocks(file_blocks(path)) != sha256:
                remedy = "`worldline repair` removes it, and the next use fetches it again"
                found.append(Finding("copy", name, "damaged", f"of a file in {catalog.store.address}", remedy))
    return found


def _heal_object(catalog: "Catalog", finding: Finding) -> str:
    """Remove a damaged object, so that the next build makes it again; a good copy of a remote one is uploaded instead."""
    name = object_name(finding.name)
    copy = catalog.store.folder / name
    if catalog.store.remote and copy.is_file() and hash_blocks(file_blocks(copy)) == finding.name:
        catalog.store.place(copy, name)
        return "uploaded again from the copy on this machine"
    if finding.state == "missing":
        return finding.remedy
    catalog.objects.discard([finding.name])
    return "removed" if finding.kind == "object" else f"removed: {finding.remedy.partition(', then ')[2]}"


def _heal_copy(catalog: "Catalog", finding: Finding) -> str:
    (catalog.store.folder / finding.name).unlink(missing_ok=True)
    return "removed: the next use fetches it again"


def _heal_manifest(catalog: "Catalog", finding: Finding) -> str:
    version = next(item for item in versions.living(catalog.log) if item.manifest == finding.name)
    executions = upstream(catalog.log, sorted(set(version.artifacts.values())))
    made = manifest(version.name, version.version, version.recipe, version.artifacts, executions, version.lock, catalog.log)
    made |= {"splits": version.splits, "rejected": list(version.rejected)}
    if finding.state == "damaged":
        catalog.objects.discard([finding.name])
    sha256 = catalog.objects.put_bytes(canonical_json(made).encode())
    if sha256 == finding.name:
        return "made again from the records"
    catalog.objects.discard([sha256])
    return f"could not be made again with the same bytes: restore it from a backup, or publish {version.name} again"


def _heal_table(catalog: "Catalog", finding: Finding) -> str:
    """Make the consolidated tables of a version again; the damaged file is removed, so that none of it is taken over."""
    catalog.objects.discard([finding.name])
    for version in versions.living(catalog.log):
        if finding.name in objects_of_version(catalog.log, version):
            catalog.note(Note("tables", version.reference, {"tables": consolidate(catalog, version.artifacts)}))
    return "made again from the artifacts"


# -- records -----------------------------------------------------------------------------------------------------------


def _bad_records(catalog: "Catalog") -> list[Finding]:
    """Check the log's storage and record files, and, where these are good, the log against what they say."""
    wrong, bad = catalog.log.database.check(), list[tuple[str, str]]()
    if wrong is None:
        bad = bad_files(catalog.log)
        wrong = None if bad else index_difference(catalog.log)
    if wrong is not None:
        remedy = "`worldline repair` keeps it aside and makes it again from the record files; then verify again"
        return [Finding("log", catalog.log.database.where, "damaged", wrong, remedy)]
    remedy = "`worldline repair` writes it again from the log"
    return [Finding("record file", name, state, "what was recorded", remedy) for name, state in bad]


def _heal_record_file(catalog: "Catalog", finding: Finding) -> str:
    try:
        if catalog.log.restore(finding.name.removeprefix("tables/")):
            return "written again from the log"
    except WorldlineError as error:
        return f"left as it is: {error}"
    return "left as it is, because the log keeps no copy of a file of this size: restore it from a backup"


# -- reports -----------------------------------------------------------------------------------------------------------


def report_files(catalog: "Catalog") -> dict[str, tuple[str, str]]:
    """Return the SHA-256 and dataset version of every report that living versions have in the folder `reports`, by file."""
    reports = {ref.digest: ref for ref in catalog.log.artifacts(Report.kind)}
    found = {}
    for version in versions.living(catalog.log) if reports else ():
        for role, digest in version.artifacts.items():
            if digest in reports:
                clip = role.rpartition("/")[0]
                name = f"reports/{version.name}-{version.version}{'-' if clip else ''}{clip}.html"
                found[name] = (reports[digest].parts[_REPORT_PART], version.reference)
    return found


def _bad_reports(catalog: "Catalog") -> list[Finding]:
    """Return the reports that are not those of their versions; one that a person removed is not missed."""
    found = []
    for name, (sha256, reference) in report_files(catalog).items():
        path = catalog.home / name
        if path.is_file() and hash_blocks(file_blocks(path)) != sha256:
            found.append(Finding("report", name, "damaged", f"of {reference}", "`worldline repair` gives it out again"))
    return found


def _heal_report(catalog: "Catalog", finding: Finding) -> str:
    sha256, reference = report_files(catalog)[finding.name]
    if not catalog.objects.verify(sha256):
        return f"left as it is: its object is bad too, build {reference} again"
    path: Path = catalog.home / finding.name
    path.unlink()
    catalog.objects.give(sha256, path)
    return "given out again"
