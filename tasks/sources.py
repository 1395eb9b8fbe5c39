"""Which clips a recipe's `source` stands for: one, a list of them, a pattern of files, or a folder of videos."""

import glob
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import WorldlineError
from stages.ingest.source import VIDEO_SUFFIXES, describe_source, natural_order


def list_clips(source: str | Sequence[str]) -> dict[str, str]:
    """Return the sources by the clip's name, which is "" where there is only one.

    Raises:
        WorldlineError: if a pattern matches nothing.
    """
    if isinstance(source, str) and not _is_many(source):
        return {"": source}
    found = [item for given in ([source] if isinstance(source, str) else source) for item in _expand(given)]
    clips: dict[str, str] = {}
    for item in found:
        stem = item.partition(":")[2] if _has_scheme(item) else Path(item).stem
        name, count = stem.replace("/", "-"), 1
        while name in clips:
            count += 1
            name = f"{stem}-{count}"
        clips[name] = item
    return clips


def _is_many(source: str) -> bool:
    return _expand(source) != [source]


def _expand(source: str) -> list[str]:
    path = Path(source).expanduser()
    if _has_scheme(source):
        return [source]
    if not path.exists():
        if not glob.has_magic(source):
            return [source]
        found = natural_order(glob.glob(str(path)))
        if not found:
            raise WorldlineError(f"source={source!r} matches no file: check the pattern")
        return found
    if path.is_dir():
        videos = [item.name for item in path.iterdir() if item.suffix.lower() in VIDEO_SUFFIXES]
        if videos and not _is_clip(path):
            return [str(path / name) for name in natural_order(videos)]
    return [source]


def _has_scheme(source: str) -> bool:
    scheme, colon, _ = source.partition(":")
    return bool(colon) and "/" not in scheme and not Path(source).expanduser().exists()


def _is_clip(folder: Path) -> bool:
    """Return whether a folder is itself one clip: frames or a log."""
    try:
        describe_source(folder)
    except WorldlineError:
        return False
    return True
