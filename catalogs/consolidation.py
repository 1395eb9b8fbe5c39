"""The tables of a dataset version as few, sorted, well-sized Parquet files instead of one small part per artifact.

Each file ("segment") holds all rows of a set of artifacts. A new version takes over the segments of earlier versions
whose artifacts it still holds, and writes only what they lack, so that a version that adds 1 % writes about 1 %. Small
segments are merged when there are too many. Rows are sorted by what is looked up (a label by its question id, all else
by artifact, track and time), so that the statistics of row groups spare a query most of a file.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.contents import artifact_refs
from catalogs.objects import ObjectStore
from catalogs.records import ArtifactRef
from catalogs.standing import standing
from catalogs.tables import CONTENT_TABLES, ContentTable, read_rows, with_artifact
from schemas.artifact import fit_table

if TYPE_CHECKING:
    from catalogs.catalog import Catalog

WORTH_IT = 64  # artifacts of one kind: 64 parts of 100 labels are read in 20 ms, one file of them in 4
SEGMENT_ROWS = 1_000_000
_SEGMENT_BYTES = 256 << 20  # in memory, before compression
ROW_GROUP_ROWS = 16_384  # a point lookup decodes one row group of each segment
_SMALL_SEGMENTS = 16  # that many segments of less than half the size may stand beside each other
_EARLIER_VERSIONS = 8  # how many of the newest versions are looked through for segments to take over
_READERS = 8  # parts read at once
_PARTS_AT_ONCE = 32


@dataclass(frozen=True)
class _Segment:
    """A file of an earlier version and the artifacts that have rows in it."""

    sha256: str
    path: Path
    rows: int
    artifacts: frozenset[str]


def consolidate(catalog: "Catalog", artifacts: Mapping[str, str]) -> dict[str, list[str]]:
    """Store the content tables of a version as Parquet objects; memory stays bounded whatever the size.

    Args:
        catalog: the workspace.
        artifacts: artifact digest by role.

    Returns:
        SHA-256 of the objects by table, an empty list where a table has no rows. Empty where the version is so small
        that its artifacts' own parts are read as fast; a table of which parts are missing is left out.
    """
    members: dict[str, dict[str, ArtifactRef]] = defaultdict(dict)
    for digest, ref in artifact_refs(catalog.log, artifacts.values()).items():
        members[ref.kind][digest] = ref
    if max(map(len, members.values()), default=0) < WORTH_IT:
        return {}
    earlier = _earlier_files(catalog)
    tables: dict[str, list[str]] = {}
    for name, table in CONTENT_TABLES.items():
        try:
            tables[name] = _consolidate_table(catalog, table, members[table.kind], earlier.get(name, []))
        except FileNotFoundError as error:
            logging.getLogger(__name__).warning("table %s is not consolidated, because %s is missing", name, error.filename)
    return tables


def _earlier_files(catalog: "Catalog") -> dict[str, list[str]]:
    """Return the files of the newest living versions by table, those of the newest version first."""
    living = {item.reference: item.published_at for item in standing(catalog.log)}
    notes = [note for note in catalog.log.notes("tables") if note.subject in living]
    notes.sort(key=lambda note: living[note.subject], reverse=True)
    files: dict[str, list[str]] = defaultdict(list)
    for note in notes[:_EARLIER_VERSIONS]:
        for name, names in note.body["tables"].items():
            files[name] += [sha256 for sha256 in names if sha256 not in files[name]]
    return files


def _consolidate_table(
    catalog: "Catalog", table: ContentTable, members: Mapping[str, ArtifactRef], earlier: Sequence[str]
) -> list[str]:
    if not members:
        return []
    kept: list[_Segment] = []
    broken: list[_Segment] = []  # they hold wanted rows among others
    covered: set[str] = set()
    for segment in _segments(catalog, members, earlier):
        if segment.artifacts <= members.keys() and not segment.artifacts & covered:
            kept.append(segment)
            covered |= segment.artifacts
        else:
            broken.append(segment)
        if len(covered) == len(members):
            break
    small = [segment for segment in kept if segment.rows < SEGMENT_ROWS // 2]
    if len(small) + (len(covered) < len(members)) > _SMALL_SEGMENTS:
        kept = [segment for segment in kept if segment not in small]
        broken = small + broken
        covered = {digest for segment in kept for digest in segment.artifacts}
    missing = {digest: members[digest] for digest in sorted(members.keys() - covered)}
    written = _write(catalog, table, _rows(catalog, table, missing, broken))
    return [segment.sha256 for segment in kept] + written


def _segments(catalog: "Catalog", members: Mapping[str, ArtifactRef], names: Sequence[str]) -> Iterator[_Segment]:
    """Yield the segments that hold rows of `members`."""
    import pyarrow.compute as pc  # here and below: 50 ms that only consolidating pays, not every look into the catalog

    for sha256 in names:
        try:
            path = catalog.objects.path(sha256)
            with pq.ParquetFile(path) as file:
                first = pc.unique(file.read_row_group(0, columns=["artifact"]).column(0)).to_pylist()
                if not any(digest in members for digest in first):  # a cheap look: most belong to other datasets
                    continue
                artifacts = frozenset(_artifacts_in(file))
                yield _Segment(sha256, path, file.metadata.num_rows, artifacts)
        except (FileNotFoundError, pa.ArrowInvalid):  # lost or damaged: the parts are still there
            continue


def _artifacts_in(file: pq.ParquetFile) -> set[str]:
    import pyarrow.compute as pc

    found: set[str] = set()
    for batch in file.iter_batches(batch_size=1 << 17, columns=["artifact"]):
        found.update(pc.unique(batch.column(0)).to_pylist())
    return found


def _rows(
    catalog: "Catalog", table: ContentTable, missing: dict[str, ArtifactRef], broken: Iterable[_Segment]
) -> Iterator[pa.Table]:
    """Yield the rows of artifacts: from segments that cannot stay whole where they hold them, else from their parts."""
    import pyarrow.compute as pc

    columns = with_artifact(table.columns)
    for segment in broken:
        wanted = segment.artifacts & missing.keys()
        if not wanted:
            continue
        chosen = pa.array(sorted(wanted), pa.string())
        with pq.ParquetFile(segment.path) as file:
            for batch in file.iter_batches(batch_size=1 << 17):
                rows = pa.Table.from_batches([batch])
                yield fit_table(rows.filter(pc.is_in(rows.column("artifact"), value_set=chosen)), columns)
        for digest in wanted:
            del missing[digest]

    yield from rows_of_parts(catalog.objects, table, missing.values())


def rows_of_parts(objects: ObjectStore, table: ContentTable, refs: Iterable[ArtifactRef]) -> Iterator[pa.Table]:
    """Yield the rows of artifacts from their own parts, a few artifacts at a time.

    Raises:
        FileNotFoundError: if a part is lost.
    """

    def read(ref: ArtifactRef) -> pa.Table:
        return read_rows(table, ref, {name: objects.path(ref.parts[name]) for name in table.needs})

    readable = (ref for ref in refs if table.readable(ref))
    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(islice(readable, _PARTS_AT_ONCE)):
            yield pa.concat_tables(pool.map(read, some))


def _write(catalog: "Catalog", table: ContentTable, rows: Iterator[pa.Table]) -> list[str]:
    """Store rows as segments and return their names."""
    written: list[str] = []
    with catalog.scratch_folder() as scratch:
        for segment in gathered(rows):
            path = scratch / f"{len(written)}.parquet"
            write_segment(table, segment, path)
            written.append(catalog.objects.put(path, take=True))
    return written


def write_segment(table: ContentTable, rows: pa.Table, path: Path) -> None:
    """Write rows of a content table as one file, sorted as the table is looked up."""
    order = [(name, "ascending") for name in (*table.order, "artifact")]
    pq.write_table(rows.sort_by(order), path, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Gather small tables into ones of a segment's size, so that memory is bounded by it."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for some in tables:
        waiting.append(some)
        rows, size = rows + len(some), size + some.nbytes
        if rows >= SEGMENT_ROWS or size >= _SEGMENT_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(waiting)
