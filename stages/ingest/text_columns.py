"""Tables in text files that other programs wrote: read whole, with what does not parse counted instead of fatal."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from schemas.errors import WorldlineError

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def read_words(path: Path, shown: str, names: Sequence[str]) -> tuple[pa.Table, int]:
    """Return a file of words between blanks as a table of strings, and how many lines have another number of words.

    Args:
        path: the file, UTF-8.
        shown: its name in errors.
        names: of the columns; a line may have more words than these, which are left out.

    Raises:
        WorldlineError: if the file cannot be read at all.
    """
    text = re.sub(r"[ \t]+", " ", _text(path, shown))
    lines = [line for line in (line.strip() for line in text.splitlines()) if line]
    whole = [line for line in lines if line.count(" ") >= len(names) - 1]
    if not whole:
        return pa.table({name: pa.array([], pa.string()) for name in names}), len(lines)
    width = len(names) - 1
    joined = "\n".join(line if line.count(" ") == width else " ".join(line.split(" ")[: width + 1]) for line in whole)
    table = arrow_csv.read_csv(
        io.BytesIO(joined.encode()),
        read_options=arrow_csv.ReadOptions(column_names=list(names)),
        parse_options=arrow_csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    return table, len(lines) - len(whole)


def read_csv(path: Path, shown: str, wanted: Sequence[str] = ()) -> tuple[pa.Table, int]:
    """Return a comma-separated file with a header as a table of strings, and how many lines have another number of fields.

    Args:
        path: the file, UTF-8, or that packed by gzip.
        shown: its name in errors.
        wanted: names in small letters of the columns to read; all where there are none.

    Raises:
        WorldlineError: if the file cannot be read, or has no header.
    """
    broken = 0

    def skip(row: object) -> str:
        nonlocal broken
        broken += 1
        return "skip"

    try:
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" or _is_gzip(path) else None) as stream:
            content = stream.read().removeprefix(b"\xef\xbb\xbf")
        content = content if content.isascii() else content.decode(errors="replace").encode()
        header = content.split(b"\n", 1)[0].decode().strip()
        if not header:
            raise WorldlineError(f"{shown} has no header line: its first line must name the columns")
        names = header_names(header)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise WorldlineError(f"{shown} has two columns called {', '.join(twice)}: give each a name of its own")
        chosen = [name for name in names if not wanted or name.lower() in wanted]
        found = arrow_csv.read_csv(
            io.BytesIO(content),
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=chosen if wanted else None
            ),
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorldlineError(f"{shown} is not a readable CSV table ({' '.join(str(error).split())}): write it again") from error
    return found, broken


def header_names(line: str) -> list[str]:
    """Return the column names of a CSV header."""
    return [name.strip().strip('"') for name in line.strip().split(",")]


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a column as float64, NaN where it holds no number (words such as "nan" and "inf" are none)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.if_else(pc.match_substring_regex(column, _NUMBER), pc.utf8_trim_whitespace(column), None)
        column = pc.if_else(pc.starts_with(column, "+"), pc.utf8_slice_codeunits(column, 1), column)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        try:
            column = column.cast(pa.float64())
        except pa.ArrowException:
            return np.full(len(column), np.nan)
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _text(path: Path, shown: str) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise WorldlineError(f"{shown} cannot be read ({error}): copy it again") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"
