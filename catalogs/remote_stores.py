"""Files in an S3-compatible, GCS or Azure store, with copies of those in use on this machine."""

import contextlib
import errno
import fcntl
import functools
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import obstore.store
from obstore.exceptions import AlreadyExistsError, BaseError

from catalogs.leases import create_held, sweep
from catalogs.stores import BLOCK_BYTES, Entry, hash_blocks, held_file, locked, object_digest, sync_file, written
from schemas.errors import WorldlineError

CACHE_GB = 50.0  # of copies of remote files, unless `cache_gb` in the settings' store_options says otherwise
_PART_BYTES = 8 << 20  # of a multipart upload or a streamed download; four are under way at once
_HEADS_BEFORE_LISTING = 32
_LISTED_AT_ONCE = 20_000
_SCANNED_SHARE = 0.05  # of the cache limit: what may come in before its size is counted again
_CLIENT_OPTIONS = frozenset(
    [
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "http1_only",
        "http2_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "root_certificate",
        "read_timeout",
        "timeout",
        "user_agent",
    ]
)


class RemoteStore:
    """Files in an S3-compatible, GCS or Azure store, with copies of those in use in a folder of this machine.

    A file appears under its name when its upload is complete (single or multipart, as the store promises); creation is
    conditional on the server. Objects are hashed while they are fetched, so that no damaged one gets into the cache.

    The cache is bounded: when it outgrows its limit, the copies used longest ago go. A copy that was handed out since
    the oldest process now using the cache began stays, whatever the limit says: paths of living processes stay good.

    Whether an object exists is asked of the server one at a time at first; a process that asks about more than a few lists
    instead and remembers what it saw (names are added and removed by it too), so that an intact check of ten thousand
    objects costs a dozen requests. What another host removes meanwhile is found missing when it is fetched, and is
    then forgotten, so that the next look misses and builds it again.
    """

    remote = True

    def __init__(self, url: str, options: dict[str, str], cache_folder: Path, *, cache_gb: float = CACHE_GB) -> None:
        self.url = url
        self.cache_folder = cache_folder
        self.incoming, self.folder, users = (cache_folder / name for name in ("incoming", "files", "users"))
        for folder in (self.incoming, self.folder, users):
            folder.mkdir(parents=True, exist_ok=True)
        self._cache_bytes = int(cache_gb * 1e9)
        self._uncounted = self._cache_bytes  # count before the first copy is added
        self._users = users
        sweep(users)
        self._user = create_held(users, folder=False)  # until the process ends
        self._sizes: dict[str, int] = {}
        self._asked = 0
        self._listed: set[str] = set()
        self._lock = threading.Lock()
        self._options = tuple(sorted(options.items()))
        with self._told():
            _client(self.url, self._options)

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    @property
    def _client(self) -> Any:
        """The client; its threads do not survive a fork, and a request would wait for them for ever."""
        client, process = _client(self.url, self._options)
        if process != os.getpid():
            raise WorldlineError(
                f"the store {self.url} cannot be used in a forked process, only files that are copied to {self.cache_folder} "
                "already: start workers with forkserver or spawn (a DataLoader takes multiprocessing_context='forkserver')"
            )
        return client

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the client says into one sentence; a missing file stays FileNotFoundError."""
        try:
            yield
        except (BaseError, ValueError) as error:
            said = str(error).partition("\n")[0].strip()
            raise WorldlineError(
                f"the store {self.url} could not be used ({said}): check its URL, store_options, credentials and network"
            ) from error

    def new_file(self) -> contextlib.AbstractContextManager[Path]:
        """Lend a private file on this machine."""
        return held_file(self.incoming)

    # -- writing ---------------------------------------------------------------------------------------------------

    def place(self, path: Path, name: str, *, new: bool = False) -> None:
        """Upload a finished file, in parts if it is large and may replace another; an object stays as the cached copy.

        A record file is cached when it is first read, which is after it was registered: until then another host may
        replace it, if the process that placed it dies.
        """
        size = path.stat().st_size
        with self._told():
            try:
                if new:
                    obstore.put(self._client, name, path, mode="create")
                else:  # a store takes at most 10,000 parts
                    part = max(_PART_BYTES, size // 9_000)
                    obstore.put(self._client, name, path, chunk_size=part, max_concurrency=4)
            except AlreadyExistsError:
                raise FileExistsError(errno.EEXIST, "the name is taken", f"{self.url}/{name}") from None
        with self._lock:
            self._sizes[name] = size
        if object_digest(name) is not None and path.stat().st_dev == self.cache_folder.stat().st_dev:
            self._keep(path, name)
        else:
            (self.folder / name).unlink(missing_ok=True)
            path.unlink()

    def remove(self, names: Iterable[str], *, placed_before: float = math.inf) -> None:
        """Remove files, many in one request where the store can, and their cached copies."""
        gone = list(names)
        with self._lock:
            for name in gone:
                self._sizes.pop(name, None)
        for start in range(0, len(gone), 1000):
            batch = gone[start : start + 1000]
            with self._told():
                try:
                    obstore.delete(self._client, batch)
                except FileNotFoundError:  # some stores stop at the first that is gone already
                    for name in batch:
                        with contextlib.suppress(FileNotFoundError):
                            obstore.delete(self._client, name)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove the temporary files of dead processes on this machine."""
        sweep(self._users)
        return sweep(self.incoming)

    # -- reading ---------------------------------------------------------------------------------------------------

    def local(self, name: str, *, again: bool = False) -> Path:
        """Return the cached copy, fetched first if there is none yet."""
        copy = self.folder / name
        if not again:
            with locked(self.folder, fcntl.LOCK_SH), contextlib.suppress(FileNotFoundError):
                os.utime(copy)  # under the lock, so that it is not being evicted
                return copy
        try:
            with self.new_file() as temporary:
                with temporary.open("wb") as writer:
                    found = hash_blocks(written(self.blocks(name), writer))
                expected = object_digest(name)
                if expected is not None and found != expected:
                    raise WorldlineError(
                        f"the object {expected} in {self.url} is damaged: run `worldline repair`, then build again what made it"
                    )
                sync_file(temporary)
                self._keep(temporary, name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise WorldlineError(
                f"{name} of {self.url} could not be copied to {self.cache_folder} ({error.strerror or error}): make space there"
            ) from error
        return copy

    def blocks(self, name: str) -> Iterator[bytes]:
        """Stream a file from the store."""
        try:
            with self._told():
                for block in obstore.get(self._client, name).stream(min_chunk_size=BLOCK_BYTES):
                    yield bytes(block)
        except FileNotFoundError:
            with self._lock:
                self._sizes.pop(name, None)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}") from None

    def size(self, name: str) -> int | None:
        """Return a file's size as this process last saw it, else ask the store (see the class)."""
        if object_digest(name) is None:  # a name of the log can be taken, given up and taken again by other hosts
            found = self._head(name)
            return found.size if found else None
        with self._lock:
            if name not in self._sizes:
                self._asked += 1
                if self._asked > _HEADS_BEFORE_LISTING:
                    self._list_around(name)
            if name in self._sizes:
                return self._sizes[name]
        found = self._head(name)
        return found.size if found else None

    def modified(self, name: str) -> float | None:
        """Return when a file was last placed, by the store's clock, or None."""
        found = self._head(name)
        return found.modified if found else None

    def renew(self, name: str, seconds: float) -> bool:
        """Return whether a file was placed lately by the store's clock; it cannot be touched."""
        modified = self.modified(name)
        return modified is not None and modified > time.time() - seconds

    def _head(self, name: str) -> Entry | None:
        with self._told():
            try:
                entry = _entry(obstore.head(self._client, name))
            except FileNotFoundError:
                return None
        with self._lock:
            self._sizes[name] = entry.size
        return entry

    def _list_around(self, name: str) -> None:
        """Learn the sizes of all objects if they are not too many, else of those in the folder of this one; once each."""
        if "objects" in self._listed:
            return
        if not self._listed and self._learn("objects", _LISTED_AT_ONCE):
            return
        folder = name.rpartition("/")[0]
        if folder not in self._listed:
            self._learn(folder)

    def _learn(self, folder: str, most: int | None = None) -> bool:
        """Remember the sizes of a folder's files; return False if there were more than `most`."""
        for count, entry in enumerate(self.entries(folder)):
            if count == most:
                return False
            self._sizes[entry.name] = entry.size
        self._listed.add(folder)
        return True

    def entries(self, prefix: str) -> Iterator[Entry]:
        """List the files under a prefix."""
        with self._told():
            for batch in obstore.list(self._client, prefix.rstrip("/") or None, chunk_size=1000):
                yield from map(_entry, batch)

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names under a prefix, sorted."""
        yield from sorted(entry.name for entry in self.entries(prefix))

    # -- the cache -------------------------------------------------------------------------------------------------

    def _keep(self, path: Path, name: str) -> None:
        size = path.stat().st_size
        copy = self.folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.utime(path)
        path.chmod(0o444)  # as in a local store: nobody writes into what others read
        os.replace(path, copy)
        with self._lock:
            self._uncounted += size
            if self._uncounted <= self._cache_bytes * _SCANNED_SHARE:
                return
            self._uncounted = 0
        self._evict()

    def _evict(self) -> None:
        sweep(self._users)
        with locked(self.folder, fcntl.LOCK_EX):
            copies = [(path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.rglob("*") if path.is_file()]
            excess = sum(size for _, size, _ in copies) - self._cache_bytes
            oldest_user = min((path.stat().st_mtime_ns for path in self._users.iterdir()), default=0)
            for used, size, path in sorted(copies):
                if excess <= 0 or used >= oldest_user:
                    break
                path.unlink(missing_ok=True)
                excess -= size


@functools.cache
def remote_store(
    url: str, options: tuple[tuple[str, str], ...], cache_folder: Path, cache_gb: float, _process: int
) -> RemoteStore:
    """Return the one `RemoteStore` of a process for a workspace, however often that is opened: it remembers what exists."""
    return RemoteStore(url, dict(options), cache_folder, cache_gb=cache_gb)


@functools.cache
def _client(url: str, options: tuple[tuple[str, str], ...]) -> tuple[Any, int]:
    """Return the client of a store, which keeps connections (and `memory://` its files), and the process that it works in."""
    if url.startswith("memory:"):
        return obstore.store.MemoryStore(), os.getpid()
    if url.startswith("file:"):
        return obstore.store.from_url(url, mkdir=True), os.getpid()
    config: Any = {key: value for key, value in options if key not in _CLIENT_OPTIONS}
    client: Any = {key: value for key, value in options if key in _CLIENT_OPTIONS}
    retry: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
    made = obstore.store.from_url(url, config=config or None, client_options=client or None, retry_config=retry)
    return made, os.getpid()


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())
