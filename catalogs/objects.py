"""Content-addressed files in a local folder: `objects/ab/cdef...`, named by the SHA-256 of their bytes, read-only.

An object appears under its name by one rename after its bytes are on disk, so that whatever is found is whole.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from catalogs.leases import create_held, release, sweep
from schemas.canonical import hash_file
from schemas.errors import WorldlineError

_BLOCK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ObjectStore:
    """Objects under one local folder; any number of threads and processes may put and read at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where an object lies, whether or not it is there."""
        return self.folder / sha256[:2] / sha256[2:]

    def exists(self, sha256: str) -> bool:
        """Return whether an object is there (its bytes are not read)."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int | None:
        """Return an object's size in bytes, or None where it is missing."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def verify(self, sha256: str) -> bool:
        """Return whether an object is there and its bytes still have its name."""
        return self.exists(sha256) and hash_file(self.path(sha256)) == sha256

    def put(self, source: Path, *, take: bool = False) -> str:
        """Store a file's bytes durably and return their SHA-256.

        Args:
            source: the file; an object of this store is recognised by its path and not read again.
            take: the file is ours to move (it lies in a scratch folder); else it is copied while hashing, never
                linked, because its owner may write to it later.

        Raises:
            WorldlineError: if the file cannot be read, or the disk is full.
        """
        try:
            name = self._own_name(source)
            if name is None:
                name = self._move(source) if take else self._copy(source)
            else:
                os.utime(self.path(name))  # a sweep of unused objects spares what was touched lately
        except OSError as error:
            raise WorldlineError(f"{source} could not be stored in {self.folder}: {error.strerror or error}") from error
        return name

    def put_bytes(self, data: bytes) -> str:
        """Store bytes durably and return their SHA-256."""
        temporary, lease = create_held(self.incoming, folder=False)
        try:
            temporary.write_bytes(data)
            return self._place(temporary, hashlib.sha256(data).hexdigest())
        except OSError as error:
            raise WorldlineError(f"nothing can be stored in {self.folder}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
            release(lease)

    def all(self) -> Iterator[str]:
        """Yield the name of every object, sorted."""
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                yield folder.name + path.name

    def untouched_since(self, sha256: str, when: float) -> bool:
        """Return whether an object was last put before a Unix time in seconds."""
        return self.path(sha256).stat().st_mtime < when

    def discard(self, names: Iterable[str]) -> None:
        """Remove objects that were found damaged, or that nothing refers to."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove the temporary files of dead processes and return how many there were."""
        return sweep(self.incoming)

    def _own_name(self, source: Path) -> str | None:
        folder = source.parent
        if folder.parent == self.folder and len(folder.name) == 2 and len(source.name) == 62 and source.is_file():
            return folder.name + source.name
        return None

    def _move(self, source: Path) -> str:
        if source.stat().st_dev != self.folder.stat().st_dev:
            return self._copy(source)
        return self._place(source, hash_file(source))

    def _copy(self, source: Path) -> str:
        temporary, lease = create_held(self.incoming, folder=False)
        digest = hashlib.sha256()
        try:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while block := reader.read(_BLOCK):
                    digest.update(block)
                    writer.write(block)
            return self._place(temporary, digest.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
            release(lease)

    def _place(self, temporary: Path, name: str) -> str:
        """Give a finished file its name. An object already there is replaced: that heals a damaged one and costs the same."""
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o444)
        finally:
            os.close(descriptor)
        final = self.path(name)
        if not final.parent.exists():
            final.parent.mkdir(exist_ok=True)
            sync_folder(self.folder)
        os.replace(temporary, final)
        sync_folder(final.parent)
        return name
