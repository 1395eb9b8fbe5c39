"""Leases on files and folders that end with the process that holds them, however it ends.

A lease is `flock` on the file or folder itself. The kernel drops it when its holder dies, so that leftovers of a
killed process are told from work in progress without process ids (which repeat, and differ between containers).
"""

import fcntl
import os
import shutil
import uuid
from pathlib import Path


def hold(path: Path) -> int | None:
    """Take the lease on an existing file or folder; return it to be released, or None if another holds it or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
    except OSError:  # held by another, or swept between open and flock
        pass
    os.close(descriptor)
    return None


def release(lease: int) -> None:
    """Give a lease back, also where a forked child has inherited the descriptor and would keep it by living on."""
    fcntl.flock(lease, fcntl.LOCK_UN)
    os.close(lease)


def create_held(parent: Path, *, folder: bool) -> tuple[Path, int]:
    """Create a new file or folder under `parent` with its lease taken; return its path and the lease."""
    while True:
        path = parent / uuid.uuid4().hex
        if folder:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        lease = hold(path)
        if lease is not None:  # else a sweeper was faster than our flock
            return path, lease


def sweep(parent: Path) -> int:
    """Remove everything under `parent` that no living process holds; return how many entries went."""
    removed = 0
    for path in sorted(parent.iterdir()):
        lease = hold(path)
        if lease is None:
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed += 1
        finally:
            release(lease)
    return removed
