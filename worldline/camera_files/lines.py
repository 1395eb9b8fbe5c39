"""Text files with the same count of numbers on every line."""

from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float64

from schemas.errors import WorldlineError
from worldline.files import new_file, read_bytes


def refuse(path: Path, wrong: str, fix: str) -> NoReturn:
    """Say in one sentence what is wrong with a file, and what would be right.

    Raises:
        WorldlineError: always.
    """
    raise WorldlineError(f"{path}: {wrong}; {fix}")


def write_rows(rows: Float64[np.ndarray, "N C"], path: Path) -> None:
    """Write numbers so that reading them gives the same bits.

    Raises:
        WorldlineError: if it cannot be written.
    """
    with new_file(path) as partial:
        partial.write_text("".join(" ".join(repr(value) for value in row) + "\n" for row in rows.tolist()))


def number_rows(path: Path, count: int, kind: str, meaning: str) -> Float64[np.ndarray, "N C"]:
    """Read the rows of a file, without comments (#) and empty lines.

    Raises:
        WorldlineError: if it cannot be read, has no row, or a row is not `count` finite numbers; `kind` and `meaning` say what it
            should have been.
    """
    rows = []
    for number, line in enumerate(read_bytes(path).decode(errors="replace").splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells or cells[0].startswith("#"):
            continue
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            values = []
        if len(values) != count or not np.isfinite(values).all():
            refuse(path, f"line {number} is not one of a {kind}", f"it needs {count} numbers ({meaning})")
        rows.append(values)
    if not rows:
        refuse(path, f"it has no line of a {kind}", f"each needs {count} numbers ({meaning})")
    return np.array(rows)
