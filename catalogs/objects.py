"""Content-addressed objects: `objects/ab/cdef...` in a store, named by the SHA-256 of their bytes, read-only.

An object appears under its name after its bytes are durable, so that whatever is found is whole. Bytes are stored once,
and read and written in blocks, whatever their size.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from catalogs.stores import Store, file_blocks, hash_blocks, object_digest, object_name, written
from schemas.canonical import hash_file
from schemas.errors import WorldlineError

_FICLONE = 0x40049409  # share the blocks of another file, copied when either is written (btrfs, xfs, bcachefs)
_FRESH_SECONDS = 86_400.0  # a remote object placed later than this ago is not uploaded again


class ObjectStore:
    """The objects of a workspace; any number of threads and processes may put and read at once."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def folder(self) -> Path:
        """The local folder that every path of an object lies in (of a remote store: the copies of this machine)."""
        return self.store.folder / "objects"

    def path(self, sha256: str, *, again: bool = False) -> Path:
        """Return a local path of an object's bytes, to be read only; a remote one is fetched first.

        Args:
            sha256: its name.
            again: a copy fetched earlier was found damaged: fetch another (where the object itself lies here, the
                path is the same).

        Raises:
            FileNotFoundError: if it is missing.
            WorldlineError: if a remote object is damaged, or its store cannot be reached.
        """
        return self.store.local(object_name(sha256), again=again)

    def exists(self, sha256: str) -> bool:
        """Return whether an object is there (its bytes are not read)."""
        return self.size(sha256) is not None

    def size(self, sha256: str) -> int | None:
        """Return an object's size in bytes, or None where it is missing."""
        return self.store.size(object_name(sha256))

    def verify(self, sha256: str) -> bool:
        """Return whether an object is there and its stored bytes still have its name."""
        try:
            return hash_blocks(self.store.blocks(object_name(sha256))) == sha256
        except FileNotFoundError:
            return False

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
            own = self._own_digest(source)
            if own is not None and self.store.renew(object_name(own), _FRESH_SECONDS):
                return own
            if take:
                return self._place(source, hash_file(source))
            with self.store.new_file() as copy:
                with copy.open("wb") as writer:
                    sha256 = hash_blocks(written(file_blocks(source), writer))
                return self._place(copy, sha256)
        except OSError as error:
            raise WorldlineError(f"{source} could not be stored in {self.store.address}: {error.strerror or error}") from error

    def put_bytes(self, data: bytes) -> str:
        """Store bytes durably and return their SHA-256."""
        try:
            with self.store.new_file() as temporary:
                temporary.write_bytes(data)
                return self._place(temporary, hashlib.sha256(data).hexdigest())
        except OSError as error:
            raise WorldlineError(f"nothing can be stored in {self.store.address}: {error.strerror or error}") from error

    def _place(self, path: Path, sha256: str) -> str:
        """Give a finished file its name.

        In a folder an object already there is replaced: that heals a damaged one, keeps it from `gc` and costs the
        same. A remote one is uploaded again only when it is not fresh; a damaged one must be discarded first.
        """
        if self.store.remote and self.store.renew(object_name(sha256), _FRESH_SECONDS):
            path.unlink()
        else:
            self.store.place(path, object_name(sha256))
        return sha256

    def give(self, sha256: str, destination: Path) -> None:
        """Put an object's bytes at a new path without doubling them: a reflink where the disk can, else a hard link, else a copy.

        A hard link is the stored object itself under a second name: read-only, and to be replaced rather than edited.

        Raises:
            FileExistsError: if the destination exists.
            FileNotFoundError: if the object is missing.
        """
        source = self.path(sha256)
        if os.path.lexists(destination):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
        temporary = destination.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            if not _reflink(source, temporary):
                try:
                    os.link(source, temporary)
                except OSError:  # another disk, or one without hard links
                    shutil.copyfile(source, temporary)
            os.rename(temporary, destination)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def all(self) -> Iterator[str]:
        """Yield the name of every object, sorted."""
        for name in self.store.names("objects"):
            if (sha256 := object_digest(name)) is not None:
                yield sha256

    def untouched_since(self, sha256: str, when: float) -> bool:
        """Return whether an object was last put before a Unix time in seconds."""
        modified = self.store.modified(object_name(sha256))
        return modified is not None and modified < when

    def discard(self, names: Iterable[str]) -> None:
        """Remove objects that were found damaged, or that nothing refers to."""
        self.store.remove([object_name(name) for name in names])

    def sweep(self) -> int:
        """Remove the temporary files of dead processes and return how many there were."""
        return self.store.sweep()

    def _own_digest(self, source: Path) -> str | None:
        if not source.is_relative_to(self.folder):
            return None
        sha256 = object_digest(f"objects/{source.relative_to(self.folder).as_posix()}")
        return sha256 if sha256 is not None and source.is_file() else None


def _reflink(source: Path, destination: Path) -> bool:
    """Make `destination` share the blocks of `source`; return False, leaving nothing, where the file system cannot."""
    with source.open("rb") as reader, destination.open("xb") as writer, contextlib.suppress(OSError):
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        return True
    destination.unlink()
    return False
