"""Canonical JSON and type-tagged hashing: the only two ways in which the engine names things.

Every pre-image starts with a record type ("execution/1", "artifact/1"), so that a digest of one kind can never
equal a digest of another (redun's rule), and every field is length-prefixed, so that no two field lists share bytes.
"""

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Reduce dataclasses, enums, mappings, sequences and numpy scalars to JSON's own types.

    Raises:
        TypeError: for a value that has no canonical form (a path, an array, a NaN, a non-string key).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Path):
        raise TypeError(f"a path ({value}) is not part of any key: pass its content as an input")
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} has no canonical JSON form")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("mapping keys must be strings")
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [to_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces, shortest round-trip floats and no NaN."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class TaggedHash:
    """SHA-256 over length-prefixed fields behind a record type."""

    def __init__(self, record_type: str) -> None:
        self._hash = hashlib.sha256()
        self.field(record_type.encode())

    def field(self, data: bytes | memoryview) -> "TaggedHash":
        """Append one field."""
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        self._hash.update(view.nbytes.to_bytes(8, "little"))
        self._hash.update(view)
        return self

    def json(self, value: Any) -> "TaggedHash":
        """Append a value as canonical JSON."""
        return self.field(canonical_json(value).encode())

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return self._hash.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return what a nested mapping holds by dotted path ("pose.colmap.max_features"); lists are values, not levels."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= leaves(item, f"{prefix}.{key}" if prefix else key)
    return found
