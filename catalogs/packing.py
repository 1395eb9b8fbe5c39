"""Rows of many loose artifacts, packed into a few files beside the workspace so that a query need not open each part.

While a large build runs, its artifacts are in no version yet, and their rows lie in one small part each: opening one
takes half a millisecond and 60 kB of memory. Whole blocks of them, in the order of recording, are packed once. What is
packed is derived: it may be deleted at any time, and goes when its artifacts are loose no more.
"""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from catalogs.consolidation import gathered, rows_of_parts, write_segment
from catalogs.objects import ObjectStore
from catalogs.records import ArtifactRef
from catalogs.tables import CONTENT_TABLES
from schemas.canonical import TaggedHash

BLOCK = 1024  # artifacts; fewer are read from their parts


def packed(
    folder: Path,
    name: str,
    digests: Sequence[str],
    objects: ObjectStore,
    find: Callable[[Iterable[str]], Mapping[str, ArtifactRef]],
) -> tuple[list[str], list[str]]:
    """Return files that hold a content table's rows of whole blocks of artifacts, and the artifacts that are in none.

    Args:
        folder: where the blocks of this table are kept; blocks that no longer are whole go.
        name: the table.
        digests: artifacts in the order of recording.
        objects: where their parts are.
        find: returns recorded artifacts by digest.
    """
    whole = len(digests) // BLOCK * BLOCK
    files: list[str] = []
    kept: set[str] = set()
    rest: list[str] = []
    for start in range(0, whole, BLOCK):
        block = list(digests[start : start + BLOCK])
        columns = str(CONTENT_TABLES[name].columns)
        place = folder / TaggedHash("packed/1").json(block).json(columns).hexdigest()
        try:
            if not place.is_dir():
                _pack(place, name, [find(block)[digest] for digest in block], objects)
            files += [str(path) for path in sorted(place.iterdir())]
            kept.add(place.name)
        except OSError:  # a part is lost, the disk full or not to be written: the parts are read, which tells
            rest += block
    with contextlib.suppress(FileNotFoundError):
        for stale in [path for path in folder.iterdir() if path.name not in kept and not path.name.startswith(".")]:
            shutil.rmtree(stale, ignore_errors=True)
    return files, [*rest, *digests[whole:]]


def _pack(place: Path, name: str, refs: Sequence[ArtifactRef], objects: ObjectStore) -> None:
    """Make the folder `place` appear with the rows of these artifacts in it."""
    table = CONTENT_TABLES[name]
    temporary = place.with_name(f".{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        for index, rows in enumerate(gathered(rows_of_parts(objects, table, refs))):
            write_segment(table, rows, temporary / f"{index}.parquet")
        with contextlib.suppress(FileExistsError):
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
