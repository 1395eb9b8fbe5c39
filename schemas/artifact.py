"""What an artifact is: a frozen dataclass of arrays, tables, frames and plain values, checked when it is made.

A subclass declares its fields with types and nothing else; `schemas.codec` stores and hashes it from these types.
Field types: jaxtyping arrays (dtype and shape are checked, a dimension name means the same size in all fields),
`dict[str, numpy.ndarray]`, `pyarrow.Table` (checked against `TABLES`), `Video`, `dict[str, Video]`, `Files`, and anything
that has a canonical JSON form. Any field may be `None` if its type says so.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jaxtyping
import numpy as np
import pyarrow as pa

# Metadata of a field that its type did not have at first: None by default, and no part of digests while it is None, so
# that artifacts from before keep theirs.
ADDED: Mapping[str, bool] = types.MappingProxyType({"added": True})

ARTIFACT_TYPES: dict[str, type["Artifact"]] = {}


class Files(dict[str, Path]):
    """Files kept byte for byte, by their relative POSIX names."""


class Artifact:
    """Base of all artifact types.

    Attributes:
        kind: the type's name in the catalog (the class name).
        schema_version: raised when fields change meaning; part of every digest.
        level: level of 4D spatial intelligence, 1 (depth, pose, point tracks) to 5 (physics).
        TABLES: Arrow schema of each table field.
    """

    kind: ClassVar[str]
    schema_version: ClassVar[int] = 1
    level: ClassVar[int] = 1
    TABLES: ClassVar[Mapping[str, pa.Schema]] = {}

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__
        ARTIFACT_TYPES[cls.kind] = cls

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        with jaxtyping.jaxtyped("context"):
            for field in dataclasses.fields(self):  # type: ignore[arg-type]
                self._check(field.name, getattr(self, field.name), hints[field.name])

    def _check(self, name: str, value: Any, hint: Any) -> None:
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if value is None and type(None) in options:
            return
        if isinstance(value, np.ndarray):
            if not any(isinstance(option, type) and isinstance(value, option) for option in options):
                raise ValueError(f"{self.kind}.{name}: expected {hint}, got {value.dtype} {list(value.shape)}")
        elif isinstance(value, pa.Table):
            expected = self.TABLES[name]
            if not value.schema.equals(expected):
                raise ValueError(f"{self.kind}.{name}: expected columns\n{expected}\ngot\n{value.schema}")

    def facts(self) -> dict[str, Any]:
        """Return a few plain figures that describe this artifact in listings; subclasses say which."""
        return {}


def make_table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """Build a table with exactly the columns of `schema` from arrays or lists (all columns must be given).

    Raises:
        KeyError: if a column is missing or unknown.
    """
    unknown = set(columns) ^ set(schema.names)
    if unknown:
        raise KeyError(f"columns missing or unknown: {sorted(unknown)}")
    return pa.table([_column(columns[field.name], field.type) for field in schema], schema=schema)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow array. Lists of strings or of integers go around `pa.array`, which imports pandas (0.2 s)."""
    found = set(map(type, values)) if isinstance(values, list) else None
    if found is not None and pa.types.is_string(kind) and found <= {str, type(None)}:
        strings = pa.lib.StringBuilder()
        strings.append_values(values)
        return strings.finish()
    if found is not None and pa.types.is_integer(kind) and found <= {int}:
        numbers = np.array(values, kind.to_pandas_dtype())
        return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])
    return pa.array(values, type=kind)


def fit_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in the columns of `schema`: null where it was written before one was, without those given up since."""
    columns = {name: table.column(name) for name in table.column_names}
    missing = pa.nulls(table.num_rows)
    return pa.table([columns.get(field.name, missing).cast(field.type) for field in schema], schema=schema)


def rows_to_table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """Build a table from one mapping per row; use for small tables only."""
    return make_table(schema, {name: [row[name] for row in rows] for name in schema.names})
