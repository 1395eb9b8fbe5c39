"""Two artifacts of one kind, field by field: where they first differ, and how far their numbers lie apart."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.artifact import Artifact, Files
from schemas.canonical import to_plain
from schemas.media import Video

_BLOCK = 1 << 20  # bytes of a file compared at once


@dataclass(frozen=True)
class Difference:
    """The first place where two artifacts differ.

    Attributes:
        kind: of the artifact.
        field: which field, "" where the kinds differ.
        where: row, index, frame or byte within the field, "" where the field as a whole differs.
        recorded, remade: both values there, for people.
    """

    kind: str
    field: str
    where: str
    recorded: str
    remade: str

    def __str__(self) -> str:
        place = f"{self.kind}.{self.field}" if self.field else self.kind
        return f"{place}{' ' if self.where else ''}{self.where}: {self.recorded} -> {self.remade}"


def first_difference(recorded: Artifact, remade: Artifact) -> Difference | None:
    """Return the first difference in the order of field names, or None where all decoded values are equal."""
    if type(recorded) is not type(remade):
        return Difference(recorded.kind, "", "", recorded.kind, remade.kind)
    for name, before, after in _fields(recorded, remade):
        found = _compare(before, after)
        if found is not None:
            return Difference(recorded.kind, name, *found)
    return None


def largest_difference(recorded: Artifact, remade: Artifact) -> float:
    """Return the largest absolute difference of any two numbers in corresponding places, in whatever units they have.

    Infinite where anything but numbers differs: shapes, texts, flags, rows, files, or what is finite.
    """
    if type(recorded) is not type(remade):
        return math.inf
    return max((_distance(before, after) for _, before, after in _fields(recorded, remade)), default=0.0)


def _fields(recorded: Artifact, remade: Artifact) -> Iterator[tuple[str, Any, Any]]:
    for field in sorted(dataclasses.fields(recorded), key=lambda field: field.name):  # type: ignore[arg-type]
        yield field.name, getattr(recorded, field.name), getattr(remade, field.name)


def _is_array_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, np.ndarray) for item in value.values())


# -- the first difference: (where, recorded, remade) -------------------------------------------------------------------

_Found = tuple[str, str, str]


def _compare(before: Any, after: Any) -> _Found | None:
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        return _compare_arrays(before, after)
    if isinstance(before, pa.Table) and isinstance(after, pa.Table):
        return _compare_tables(before, after)
    if isinstance(before, Video) and isinstance(after, Video):
        return _compare_videos(before, after)
    if isinstance(before, Files) and isinstance(after, Files):
        return _compare_files(before, after)
    if _is_array_dict(before) and _is_array_dict(after):
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                return name, "there" if name in before else "missing", "there" if name in after else "missing"
            found = _compare_arrays(before[name], after[name])
            if found is not None:
                return f"{name} {found[0]}".strip(), *found[1:]
        return None
    if isinstance(before, _STORED) or isinstance(after, _STORED):  # one of them is None
        return "", _told(before), _told(after)
    return _compare_plain(to_plain(before), to_plain(after))


_STORED = (np.ndarray, pa.Table, Video, Files)


def _compare_arrays(before: np.ndarray, after: np.ndarray) -> _Found | None:
    if before.dtype != after.dtype or before.shape != after.shape:
        return "", _told(before), _told(after)
    if before.tobytes() == after.tobytes():
        return None
    same = (before == after) | ((before != before) & (after != after))
    if before.dtype.kind == "f":
        same &= np.signbit(before) == np.signbit(after)  # a digest tells 0 from -0
    different = np.argwhere(~same)
    if not len(different):
        return None
    index = tuple(different[0].tolist())
    return f"[{', '.join(map(str, index))}]", _told(before[index]), _told(after[index])


def _compare_tables(before: pa.Table, after: pa.Table) -> _Found | None:
    if not before.schema.equals(after.schema):
        return "", f"columns {before.column_names}", f"columns {after.column_names}"
    first: tuple[int, str] | None = None
    rows = min(before.num_rows, after.num_rows)
    for name in before.column_names:
        one, other = before[name].slice(0, rows), after[name].slice(0, rows)
        row = _first_different_row(one, other)
        if row is not None and (first is None or row < first[0]):
            first = row, name
    if first is not None:
        row, name = first
        label = before.column_names[0]
        known = (
            f" ({label} {before[label][row].as_py()})" if label != name and before[label][row].equals(after[label][row]) else ""
        )
        return f"row {row}{known}, {name}", _told(before[name][row].as_py()), _told(after[name][row].as_py())
    if before.num_rows != after.num_rows:
        return "", f"{before.num_rows} rows", f"{after.num_rows} rows"
    return None


def _first_different_row(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int | None:
    if one.equals(other):
        return None
    for row, (before, after) in enumerate(zip(one.to_pylist(), other.to_pylist(), strict=True)):
        if before != after and not (_is_nan(before) and _is_nan(after)):
            return row
    return None


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _compare_videos(before: Video, after: Video) -> _Found | None:
    if before.shape != after.shape:
        return "", _told(before), _told(after)
    for frame, (one, other) in enumerate(zip(before, after, strict=True)):
        if not np.array_equal(one, other):
            y, x = np.argwhere((one != other).reshape(*one.shape[:2], -1).any(axis=2))[0].tolist()
            return f"frame {frame}, pixel x {x} y {y}", _told(one[y, x].tolist()), _told(other[y, x].tolist())
    return None


def _compare_files(before: Files, after: Files) -> _Found | None:
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            return name, "there" if name in before else "missing", "there" if name in after else "missing"
        offset = _first_different_byte(before[name], after[name])
        if offset is not None:
            return f"{name}, byte {offset}", _excerpt(before[name], offset), _excerpt(after[name], offset)
    return None


def _first_different_byte(before: Path, after: Path) -> int | None:
    with before.open("rb") as one, after.open("rb") as other:
        offset = 0
        while True:
            block, others = one.read(_BLOCK), other.read(_BLOCK)
            if block != others:
                pairs = enumerate(zip_longest(block, others))
                return offset + next(index for index, (x, y) in pairs if x != y)
            if not block:
                return None
            offset += len(block)


def _excerpt(path: Path, offset: int) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, offset - 10))
        return repr(stream.read(30).decode("utf-8", "replace"))


def _compare_plain(before: Any, after: Any, where: str = "") -> _Found | None:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            found = _compare_plain(before.get(name), after.get(name), f"{where}.{name}" if where else name)
            if found is not None:
                return found
        return None
    if isinstance(before, Sequence) and isinstance(after, Sequence) and not isinstance(before, str) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            found = _compare_plain(*pair, f"{where}[{index}]")
            if found is not None:
                return found
        return None
    return None if before == after and type(before) is type(after) else (where, _told(before), _told(after))


def _told(value: Any) -> str:
    if isinstance(value, Video) or (isinstance(value, np.ndarray) and value.ndim):
        return f"{value.dtype if isinstance(value, np.ndarray) else 'video'} {list(value.shape)}"
    if isinstance(value, pa.Table):
        return f"{value.num_rows} rows"
    if isinstance(value, Files):
        return f"{len(value)} files"
    text = "nothing" if value is None else repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 80 else text[:77] + "..."


# -- how far numbers lie apart ----------------------------------------------------------------------------------------


def _distance(before: Any, after: Any) -> float:
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        return _array_distance(before, after)
    if isinstance(before, Video) and isinstance(after, Video):
        if before.shape != after.shape:
            return math.inf
        return max((_array_distance(one, other) for one, other in zip(before, after, strict=True)), default=0.0)
    if isinstance(before, pa.Table) and isinstance(after, pa.Table):
        if not before.schema.equals(after.schema) or before.num_rows != after.num_rows:
            return math.inf
        return _plain_distance(before.to_pydict(), after.to_pydict())
    if _is_array_dict(before) and _is_array_dict(after):
        if before.keys() != after.keys():
            return math.inf
        return max(_array_distance(before[name], after[name]) for name in before)
    if isinstance(before, _STORED) or isinstance(after, _STORED):
        return 0.0 if _compare(before, after) is None else math.inf
    return _plain_distance(to_plain(before), to_plain(after))


def _array_distance(before: np.ndarray, after: np.ndarray) -> float:
    if before.dtype != after.dtype or before.shape != after.shape:
        return math.inf
    if before.dtype.kind not in "iuf":
        return 0.0 if np.array_equal(before, after) else math.inf
    one, other = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return math.inf
    return float(np.abs(one[finite] - other[finite]).max(initial=0.0))


def _plain_distance(before: Any, after: Any) -> float:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.keys() != after.keys():
            return math.inf
        return max((_plain_distance(before[name], after[name]) for name in before), default=0.0)
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return math.inf
        return max((_plain_distance(*pair) for pair in zip(before, after, strict=True)), default=0.0)
    if _is_number(before) and _is_number(after):
        if math.isfinite(before) and math.isfinite(after):
            return abs(float(before) - float(after))
        return 0.0 if before == after or (_is_nan(before) and _is_nan(after)) else math.inf
    return 0.0 if before == after else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
