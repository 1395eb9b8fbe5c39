"""Files appear whole or not at all, and what is wrong with one is said in one sentence."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import WorldlineError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Lend a path beside `path` that replaces it at the end, durably, or vanishes if anything fails.

    Raises:
        WorldlineError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise WorldlineError(f"{path} could not be written ({error.strerror or error}): name another place") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Lend a folder beside `path` that becomes it at the end, or vanishes if anything fails.

    Raises:
        WorldlineError: if `path` is there already and holds something, or cannot be written.
    """
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if os.path.lexists(path):
        raise WorldlineError(f"{path} exists already: name a new folder, a sequence never writes into one")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
        yield partial
        os.rename(partial, path)
    except OSError as error:
        raise WorldlineError(f"{path} could not be written ({error.strerror or error}): name another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the bytes of a file, at most the first `limit`.

    Raises:
        WorldlineError: if it is not there or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read() if limit is None else stream.read(limit)
    except OSError as error:
        raise WorldlineError(f"{path} cannot be read ({error.strerror or error}): name a file that is there") from error
