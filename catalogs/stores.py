"""The byte layer under objects and record files: a local folder, or an S3-compatible, GCS or Azure store.

Both stores keep one promise: a name appears only when all bytes behind it are durable, so that what is found is whole.
Names are paths with "/", such as `objects/ab/cdef...` or `tables/commits/000000000001.parquet`; the last component of
an object's name, joined to the one before it, is the SHA-256 of its bytes.
"""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from catalogs.leases import create_held, release, sweep
from catalogs.workspace import Settings
from schemas.errors import WorldlineError

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A stored file as a listing tells it.

    Attributes:
        name: its name in the store.
        size: bytes.
        modified: when it was last placed, Unix time in seconds, by the clock of the store.
    """

    name: str
    size: int
    modified: float


class Store(Protocol):
    """Where bytes lie. Any number of threads and processes may use one at once.

    Attributes:
        folder: the local folder that every path from `local` lies in.
        remote: whether placing a file costs an upload.
    """

    folder: Path
    remote: bool

    @property
    def address(self) -> str:
        """The folder or URL, for messages."""

    def new_file(self) -> contextlib.AbstractContextManager[Path]:
        """Lend an empty private file to be filled and placed; it vanishes at the end, or with the process."""

    def place(self, path: Path, name: str, *, new: bool = False) -> None:
        """Give a finished local file its name, durably; the file is consumed.

        Args:
            path: the file; a name that is taken is replaced, all bytes at once.
            name: its name from now on.
            new: create, never replace: of several that place one name at once, exactly one succeeds.

        Raises:
            FileExistsError: with `new`, if the name is taken; the file stays.
        """

    def renew(self, name: str, seconds: float) -> bool:
        """Make a file count as placed lately, where that is cheap: return False if it is missing or must be placed again.

        Args:
            name: of the file.
            seconds: how long ago a file may have been placed that a store cannot renew.
        """

    def local(self, name: str, *, again: bool = False) -> Path:
        """Return a local path that holds the bytes, to be read only; a remote store fetches them first.

        Args:
            name: of the file.
            again: a copy fetched earlier is not trusted.

        Raises:
            FileNotFoundError: if there is none.
        """

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the stored bytes themselves, never those of a local copy; raise FileNotFoundError if there are none."""

    def size(self, name: str) -> int | None:
        """Return the size in bytes, or None where there is no such file."""

    def modified(self, name: str) -> float | None:
        """Return when a file was last placed (Unix time in seconds), or None where there is none."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the files in a folder and all folders below it, in no order; unfinished ones are not among them."""

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names in a folder and all folders below it, sorted."""

    def remove(self, names: Iterable[str], *, placed_before: float = math.inf) -> None:
        """Remove files; those that are gone already are no error.

        Args:
            names: of the files.
            placed_before: spare those placed since then (Unix time in seconds). A folder checks that in the same step;
                a remote store cannot, so that nobody else may place files meanwhile (an exclusive lease sees to that).
        """

    def sweep(self) -> int:
        """Remove the temporary files of dead processes and return how many there were."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold a `flock` (shared or exclusive) on a folder; the kernel drops it when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        release(descriptor)


@contextlib.contextmanager
def held_file(folder: Path) -> Iterator[Path]:
    """Lend an empty private file in a folder of temporary files, which `sweep` spares while this process lives."""
    path, lease = create_held(folder, folder=False)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        release(lease)


def file_blocks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, a block at a time."""
    with path.open("rb") as reader:
        while block := reader.read(BLOCK_BYTES):
            yield block


def hash_blocks(blocks: Iterable[bytes]) -> str:
    """Return the SHA-256 of bytes that come in blocks."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def written(blocks: Iterable[bytes], writer: IO[bytes]) -> Iterator[bytes]:
    """Yield blocks that have been written to a file."""
    for block in blocks:
        writer.write(block)
        yield block


def sync_file(path: Path) -> None:
    """Make a finished file's bytes durable and the file read-only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o444)
    finally:
        os.close(descriptor)


class LocalStore:
    """Files under one folder on a local disk, each named by one rename after its bytes are on disk."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "objects" / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.folder)

    def new_file(self) -> contextlib.AbstractContextManager[Path]:
        """Lend a private file on the store's disk."""
        return held_file(self.incoming)

    def place(self, path: Path, name: str, *, new: bool = False) -> None:
        """Give a finished file its name by a rename (or a hard link, where it must be new)."""
        if path.stat().st_dev != self.incoming.stat().st_dev:
            with self.new_file() as copy:
                shutil.copyfile(path, copy)
                self.place(copy, name, new=new)
            path.unlink()
            return
        sync_file(path)
        final = self.folder / name
        if not final.parent.exists():
            self._make_folder(final.parent)
        with locked(self.incoming, fcntl.LOCK_SH):  # not between a look at what is to be removed and removing it
            if new:
                os.link(path, final)
                path.unlink()
            else:
                os.utime(path)
                os.replace(path, final)
        sync_folder(final.parent)

    def _make_folder(self, folder: Path) -> None:
        if not folder.parent.exists():
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)

    def local(self, name: str, *, again: bool = False) -> Path:
        """Return where a file lies."""
        path = self.folder / name
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        return file_blocks(self.local(name))

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def modified(self, name: str) -> float | None:
        """Return when a file was last placed, or None."""
        try:
            return (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def renew(self, name: str, seconds: float) -> bool:
        """Make a file as if it had been placed just now."""
        with locked(self.incoming, fcntl.LOCK_SH), contextlib.suppress(FileNotFoundError):
            os.utime(self.folder / name)
            return True
        return False

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the files under a folder."""
        pending = [self.folder / prefix]
        while pending:
            with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as found:
                for item in found:
                    if item.name.startswith("."):
                        continue
                    if item.is_dir(follow_symlinks=False):
                        if Path(item.path) != self.incoming:
                            pending.append(Path(item.path))
                        continue
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        stat = item.stat()
                        yield Entry(Path(item.path).relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names under a folder, sorted."""
        yield from sorted(entry.name for entry in self.entries(prefix))

    def remove(self, names: Iterable[str], *, placed_before: float = math.inf) -> None:
        """Remove files."""
        for name in names:
            path = self.folder / name
            with locked(self.incoming, fcntl.LOCK_EX), contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < placed_before:
                    path.unlink()

    def sweep(self) -> int:
        """Remove the temporary files of dead processes."""
        return sweep(self.incoming)


def object_name(sha256: str) -> str:
    """Return the name of the object with this SHA-256."""
    return f"objects/{sha256[:2]}/{sha256[2:]}"


def object_digest(name: str) -> str | None:
    """Return the SHA-256 that an object's name stands for; other files have none."""
    folder, _, rest = name.partition("/")
    digest = rest.replace("/", "", 1)
    return digest if folder == "objects" and len(digest) == 64 and rest[2:3] == "/" else None


def open_store(home: Path, settings: Settings) -> Store:
    """Open the store of a workspace: its folder, or what its settings name.

    Raises:
        WorldlineError: if the URL or an option is not understood.
    """
    if settings.store is None:
        return LocalStore(home)
    from catalogs.remote_stores import CACHE_GB, remote_store  # a client that a workspace on a disk need not load

    options = dict(settings.store_options)
    given = options.pop("cache_gb", str(CACHE_GB))
    try:
        cache_gb = float(given)
    except ValueError:
        raise WorldlineError(f"cache_gb of the workspace {home} must be a number of gigabytes, not {given!r}") from None
    return remote_store(settings.store, tuple(sorted(options.items())), home / "cache", cache_gb, os.getpid())
