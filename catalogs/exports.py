"""Getting a version out: a folder that needs no Worldline, with the licences of everything in it.

    report = export(catalog, "streets@3", "parquet", Path("streets-3"), licence="commercial", split="train")

What may go is chosen here, once for all formats; a format is one function that writes the chosen members into an empty
folder. `FORMATS` are those that need nothing but the catalog; whoever knows more artifacts than the catalog does hands
others in. The folder appears under its name when it is whole, or not at all.
"""

import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogs import leases
from catalogs.cards import card
from catalogs.contents import artifact_refs, clip_of, measure
from catalogs.governance import Licences, licences_of
from catalogs.licences import USES
from catalogs.records import ArtifactRef, DatasetVersion, listed
from catalogs.stores import sync_folder
from catalogs.tables import CONTENT_TABLES, ContentTable, read_rows, with_artifact
from schemas.canonical import hash_file
from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

EXPORT_VERSION = 1
UNSPLIT = "unsplit"  # split of what belongs to no clip
_ROW_GROUP = 128 * 1024
_FILE_ROWS = 4 * 1024 * 1024
_TOLD = pa.schema([(name, pa.string()) for name in ("clip", "role", "split", "licence", "attribution")])


@dataclass(frozen=True)
class Member:
    """An artifact of the version that goes out.

    Attributes:
        role, clip, split: its place in the version.
        ref: the artifact.
        licences: of everything that it came from.
    """

    role: str
    clip: str
    split: str
    ref: ArtifactRef
    licences: Licences


@dataclass(frozen=True)
class Selection:
    """What a format writes.

    Attributes:
        catalog, version: where it comes from.
        members: by split, clip and role.
    """

    catalog: "Catalog"
    version: DatasetVersion
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Format:
    """One way out.

    Attributes:
        write: writes a selection into an empty folder; returns the number of rows by table.
        kinds: of artifacts that it has a place for.
        about: what README.md says of the files, beyond tables and videos.
    """

    write: Callable[[Selection, Path], dict[str, int]]
    kinds: frozenset[str]
    about: str = ""


@dataclass(frozen=True)
class LeftOut:
    """What a licence kept out.

    Attributes:
        licence: the expression that does not allow the use.
        artifacts, clips: how many.
        rows: by table.
    """

    licence: str
    artifacts: int
    clips: int
    rows: dict[str, int]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        reference, format, destination: what, how, where.
        licence, split: what was asked for, or None.
        clips, rows: how many, rows by table.
        bytes: size of all files.
        licences: number of artifacts by licence expression.
        left_out: what the licence kept out, by licence expression.
        others: number of artifacts by kind that the format has no place for.
        missing: roles whose artifacts are not there any more.
    """

    reference: str
    format: str
    destination: Path
    licence: str | None
    split: str | None
    clips: int
    rows: dict[str, int]
    bytes: int
    licences: dict[str, int]
    left_out: tuple[LeftOut, ...]
    others: dict[str, int]
    missing: tuple[str, ...]


# -- the formats -------------------------------------------------------------------------------------------------------


def write_parquet(selection: Selection, folder: Path) -> dict[str, int]:
    """Write every content table as sorted Parquet, a file or a few per split, and every clip as a video file.

    Returns:
        Number of rows by table.
    """
    videos = _give_videos(selection, folder)
    rows = {}
    for name, table in CONTENT_TABLES.items():
        members = [member for member in selection.members if member.ref.kind == table.kind]
        if members:
            rows[name] = _write_table(selection, name, table, members, folder, videos)
    return rows


FORMATS = {"parquet": Format(write_parquet, frozenset(table.kind for table in CONTENT_TABLES.values()))}


def _give_videos(selection: Selection, folder: Path) -> dict[str, str]:
    """Put the video file of every clip into `videos/`; return the files by artifact digest."""
    videos: dict[str, str] = {}
    for member in selection.members:
        if "frames.mkv" not in member.ref.parts or member.ref.kind != "Clip" or member.ref.digest in videos:
            continue
        words = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(member.ref.facts.get("name") or "clip")).strip(".-") or "clip"
        videos[member.ref.digest] = f"videos/{words[:80]}-{member.ref.digest[:12]}.mkv"
        path = folder / videos[member.ref.digest]
        path.parent.mkdir(exist_ok=True)
        selection.catalog.objects.give(member.ref.parts["frames.mkv"], path)
    return videos


def _write_table(
    selection: Selection, name: str, table: ContentTable, members: Sequence[Member], folder: Path, videos: Mapping[str, str]
) -> int:
    extra = [("video", pa.string())] if name == "clips" else []
    schema = pa.schema([*_TOLD, *extra, *with_artifact(table.columns)])
    (folder / name).mkdir()
    total = 0
    for split in dict.fromkeys(member.split for member in members):
        blocks = _blocks(selection, name, table, [member for member in members if member.split == split], videos)
        with contextlib.ExitStack() as stack:
            writer, written, number = None, 0, 0
            for block in blocks:
                if writer is None or written >= _FILE_ROWS:
                    stack.close()
                    path = folder / name / f"{split}-{number:05d}.parquet"
                    writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                    written, number = 0, number + 1
                writer.write_table(block.select(schema.names).cast(schema), row_group_size=_ROW_GROUP)
                written, total = written + len(block), total + len(block)
    return total


def _blocks(
    selection: Selection, name: str, table: ContentTable, members: Sequence[Member], videos: Mapping[str, str]
) -> Iterator[pa.Table]:
    """Yield the rows of members in row groups of even size, each with where it belongs and what its licence is."""
    waiting: list[pa.Table] = []
    count = 0
    rejected = pa.array(selection.version.rejected, pa.string())
    order = [(column, "ascending") for column in table.order if column != "artifact"]
    for member in members:
        parts = {part: selection.catalog.objects.path(member.ref.parts[part]) for part in table.needs}
        rows = read_rows(table, member.ref, parts)
        if name == "labels" and len(rejected):
            rows = rows.filter(pc.invert(pc.is_in(rows["question_id"], value_set=rejected)))
        told = {"clip": member.clip, "role": member.role, "split": member.split, "licence": member.licences.expression,
                "attribution": member.licences.attribution, "video": videos.get(member.ref.digest)}  # fmt: skip
        rows = rows.sort_by(order) if order else rows
        for column in (*_TOLD.names, *(["video"] if name == "clips" else [])):
            rows = rows.append_column(column, pa.repeat(pa.scalar(told[column], pa.string()), len(rows)))
        waiting.append(rows)
        count += len(rows)
        if count >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


# -- what goes out -----------------------------------------------------------------------------------------------------


def export(
    catalog: "Catalog",
    reference: str,
    form: str,
    destination: Path,
    *,
    licence: str | None = None,
    split: str | None = None,
    formats: Mapping[str, Format] = FORMATS,
) -> Export:
    """Write a dataset version, or the part of it that a licence and a split leave, into a new folder.

    Args:
        catalog: the workspace.
        reference: NAME or NAME@V.
        form: a name in `formats`.
        destination: the folder to make.
        licence: a use in `licences.USES` that every licence must allow; everything goes out where None.
        split: "train", "val" or "test"; all where None.
        formats: the ways out by name.

    Raises:
        WorldlineError: if the destination exists or cannot be written, the version, format, use or split is unknown, an
            artifact is damaged, or nothing is left to write. Nothing is then left at the destination.
    """
    _check(form, formats, "format")
    if licence is not None:
        _check(licence, USES, "--licence")
    destination = destination.expanduser().absolute()
    if os.path.lexists(destination):
        raise WorldlineError(f"{destination} exists already: name a new folder, an export never writes into one")
    if destination.is_relative_to(catalog.home):
        raise WorldlineError(f"{destination} lies inside the workspace {catalog.home}: name a folder outside of it")
    with catalog.log.lease(exclusive=False):  # nothing may be removed while it is read
        version = catalog.dataset(reference)
        if split is not None:
            _check(split, sorted(set(version.splits.values())), f"split of {version.reference}")
        members, missing = _members(catalog, version)
        kept, left_out = _allowed(catalog, version, [item for item in members if split in (None, item.split)], licence)
        kinds = formats[form].kinds
        written = [member for member in kept if member.ref.kind in kinds]
        if not written:
            raise WorldlineError(_nothing_left(version, licence, split, left_out))
        selection = Selection(catalog, version, tuple(kept))
        with _new_folder(destination) as folder:
            rows = formats[form].write(selection, folder)
            others = Counter(member.ref.kind for member in kept if member.ref.kind not in kinds)
            weights = Counter(member.licences.expression for member in written)
            report = Export(version.reference, form, destination, licence, split, _clips(written), rows, 0,
                            _sorted(weights), left_out, _sorted(others), tuple(sorted(missing)))  # fmt: skip
            _describe(Selection(catalog, version, tuple(written)), report, folder, formats[form].about)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return dataclasses.replace(report, bytes=size)


def _check(value: str, known: Mapping[str, Any] | Sequence[str], what: str) -> None:
    if value not in known:
        raise WorldlineError(f"{value!r} is no {what}: there is {', '.join(known) or 'none'}")


def _members(catalog: "Catalog", version: DatasetVersion) -> tuple[list[Member], list[str]]:
    """Return the artifacts of a version that are there, with their licences, and the roles of those that are not."""
    refs = artifact_refs(catalog.log, version.artifacts.values())
    licences = licences_of(catalog, refs)
    members, missing = [], []
    for role, digest in version.artifacts.items():
        if digest not in refs:
            missing.append(role)
            continue
        if not catalog.whole(refs[digest]):
            raise WorldlineError(f"{role} of {version.reference} has lost bytes: see `worldline verify {version.reference}`")
        clip = clip_of(role)
        members.append(Member(role, clip, version.splits.get(clip, UNSPLIT), refs[digest], licences[digest]))
    return sorted(members, key=lambda member: (member.split, member.clip, member.role)), missing


def _allowed(
    catalog: "Catalog", version: DatasetVersion, members: Sequence[Member], use: str | None
) -> tuple[list[Member], tuple[LeftOut, ...]]:
    if use is None:
        return list(members), ()
    allowed: dict[Licences, bool] = {}
    for member in members:
        if member.licences not in allowed:
            allowed[member.licences] = member.licences.allow(use)
    refused: dict[str, list[Member]] = {}
    for member in members:
        if not allowed[member.licences]:
            refused.setdefault(member.licences.expression, []).append(member)
    left_out = []
    for expression, group in sorted(refused.items()):
        rows = measure(catalog, {member.role: member.ref.digest for member in group}, version.rejected).rows
        left_out.append(LeftOut(expression, len(group), _clips(group), {name: count for name, count in rows.items() if count}))
    return [member for member in members if allowed[member.licences]], tuple(left_out)


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _clips(members: Sequence[Member]) -> int:
    return len({member.ref.digest for member in members if member.ref.kind == "Clip"})


def _nothing_left(version: DatasetVersion, use: str | None, split: str | None, left_out: Sequence[LeftOut]) -> str:
    part = f"the split {split} of {version.reference}" if split else version.reference
    if not left_out:
        return f"there is nothing to export in {part}"
    rows = sum(sum(item.rows.values()) for item in left_out)
    unknown = "; say what holds with `worldline terms`" if any("unknown" in item.licence for item in left_out) else ""
    return (
        f"nothing in {part} may go out for {use} use: its {rows} rows are under {listed([item.licence for item in left_out])}"
        f"{unknown}"
    )


def _describe(selection: Selection, report: Export, folder: Path, about: str) -> None:
    """Write manifest, card and checksums, and make everything durable."""
    version = selection.version
    origins = sorted(
        {origin for member in selection.members for origin in member.licences.origins}, key=lambda item: item.subject
    )
    manifest = {
        "export": EXPORT_VERSION,
        "dataset": version.reference,
        "format": report.format,
        "manifest_sha256": version.manifest,
        "recipe": version.recipe,
        "licence_filter": report.licence,
        "split_filter": report.split,
        "rows": report.rows,
        "clips": report.clips,
        "members": [
            {"role": member.role, "clip": member.clip, "split": member.split, "kind": member.ref.kind,
             "digest": member.ref.digest, "licence": member.licences.expression}
            for member in selection.members
        ],
        "origins": [dataclasses.asdict(origin) for origin in origins],
        "left_out": [dataclasses.asdict(item) for item in report.left_out],
        "missing": list(report.missing),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(card(selection, report, origins, folder, about))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    for path in (*files, folder / "SHA256SUMS"):
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_nlink == 1:  # a hard link's bytes are those of a stored object, durable already
                os.fsync(stream.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)


@contextlib.contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """Lend a folder beside the destination that becomes it at the end, or vanishes; sweep those of dead processes."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        for leftover in destination.parent.glob(f".{glob.escape(destination.name)}.*.partial"):
            lease = leases.hold(leftover)
            if lease is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                leases.release(lease)
        folder = destination.parent / f".{destination.name}.{uuid.uuid4().hex}.partial"
        folder.mkdir()
    except OSError as error:
        raise WorldlineError(f"{destination} cannot be written ({error.strerror or error}): name another folder") from error
    held = leases.hold(folder)
    try:
        yield folder
        os.rename(folder, destination)
        sync_folder(destination.parent)
    except OSError as error:
        raise WorldlineError(f"{destination} could not be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            leases.release(held)
