"""Tables in text files that other programs wrote: read whole, with what does not parse counted instead of fatal."""

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from schemas.errors import WorldlineError

_BLOCK_BYTES = 1 << 24
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def read_words(path: Path, shown: str, names: Sequence[str]) -> tuple[pa.Table, int]:
    """Return a file of words between blanks as a table of strings, and how many lines have fewer words; see `word_batches`."""
    schema = pa.schema([(name, pa.string()) for name in names])
    found = list(word_batches(path, shown, names))
    return pa.Table.from_batches([batch for batch, _ in found], schema), sum(broken for _, broken in found)


def word_batches(path: Path, shown: str, names: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield a file of words between blanks part by part: strings, and how many lines of the part have fewer words.

    Args:
        path: the file, UTF-8.
        shown: its name in errors.
        names: of the columns; a line may have more words than these, which are left out.

    Raises:
        WorldlineError: if the file cannot be read at all.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            while lines := stream.readlines(_BLOCK_BYTES):
                yield _word_batch(lines, names)
    except OSError as error:
        raise WorldlineError(f"{shown} cannot be read ({error}): copy it again") from error


def _word_batch(lines: list[str], names: Sequence[str]) -> tuple[pa.RecordBatch, int]:
    """Return what some lines say, and how many of them have too few words; empty ones are no lines."""
    text = re.sub(r"[ \t]+", " ", "".join(lines))
    lines = [line for line in (line.strip() for line in text.splitlines()) if line]
    width = len(names) - 1
    whole = [line for line in lines if line.count(" ") >= width]
    if not whole:
        return pa.record_batch({name: pa.array([], pa.string()) for name in names}), len(lines)
    joined = "\n".join(line if line.count(" ") == width else " ".join(line.split(" ")[: width + 1]) for line in whole)
    table = arrow_csv.read_csv(
        io.BytesIO(joined.encode()),
        read_options=arrow_csv.ReadOptions(column_names=list(names)),
        parse_options=arrow_csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    return pa.record_batch([column.combine_chunks() for column in table.columns], list(names)), len(lines) - len(whole)


def read_csv(path: Path, shown: str, wanted: Sequence[str] = ()) -> tuple[pa.Table, int]:
    """Return a comma-separated file with a header as a table of strings, and how many of its lines are broken.

    See `csv_batches`, of which this is all at once.
    """
    found = list(csv_batches(path, shown, wanted))
    return pa.Table.from_batches([batch for batch, _ in found]), sum(broken for _, broken in found)


def csv_batches(path: Path, shown: str, wanted: Sequence[str] = ()) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield a comma-separated file with a header part by part: strings, and how many lines had another number of fields.

    There is at least one part, which may have no rows.

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

    names = _header(path, shown)
    chosen = [name for name in names if not wanted or name.lower() in wanted]
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    options = {
        "read_options": arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, column_names=names, skip_rows=1),
        "parse_options": arrow_csv.ParseOptions(invalid_row_handler=skip),
        "convert_options": arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=chosen if wanted else None
        ),
    }
    try:
        with _unpacked(path) as stream:
            text = pa.TransformInputStream(stream, lambda data: decoder.decode(bytes(data)).encode())
            reader = arrow_csv.open_csv(text, **options)
            yield pa.RecordBatch.from_pylist([], reader.schema), 0
            for batch in reader:
                yield batch, broken
                broken = 0
        yield pa.RecordBatch.from_pylist([], reader.schema), broken
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorldlineError(f"{shown} is not a readable CSV table ({' '.join(str(error).split())}): write it again") from error


def _header(path: Path, shown: str) -> list[str]:
    """Return the names in a table's first line."""
    try:
        with _unpacked(path) as stream, io.BufferedReader(stream) as lines:
            header = lines.readline(_BLOCK_BYTES).decode("utf-8-sig", errors="replace").strip()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorldlineError(f"{shown} is not a readable CSV table ({' '.join(str(error).split())}): write it again") from error
    if not header:
        raise WorldlineError(f"{shown} has no header line: its first line must name the columns")
    names = header_names(header)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise WorldlineError(f"{shown} has two columns called {', '.join(twice)}: give each a name of its own")
    return names


def _unpacked(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" or _is_gzip(path) else None)


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
        column = _parsed(column)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        try:
            column = column.cast(pa.float64())
        except pa.ArrowException:
            return np.full(len(column), np.nan)
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _parsed(column: pa.Array) -> pa.Array:
    """Return words as float64, null for those that are no numbers."""
    with suppress(pa.ArrowInvalid):  # a column of nothing but numbers is the usual case, and ten times as fast
        return column.cast(pa.float64())
    column = pc.if_else(pc.match_substring_regex(column, _NUMBER), pc.utf8_trim_whitespace(column), None)
    column = pc.if_else(pc.starts_with(column, "+"), pc.utf8_slice_codeunits(column, 1), column)
    return column.cast(pa.float64())


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"
