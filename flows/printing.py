"""What every command prints with, and the workspace it looks at."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table

from schemas.errors import WorldlineError

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


class Add(Protocol):
    """What a module's `add_commands(add)` adds its commands with; it returns the parser to give arguments to."""

    def __call__(
        self, name: str, command: Callable[[argparse.Namespace], None], text: str, *, prints_json: bool = True
    ) -> argparse.ArgumentParser:
        """Add a command; one that prints no JSON gives `--json` a meaning of its own."""


def workspace(options: argparse.Namespace) -> Path:
    """Return the workspace folder that the options or the environment name."""
    return (options.home or Path(os.environ.get("WORLDLINE_HOME", "worldline-data"))).expanduser().absolute()


def open_catalog(options: argparse.Namespace) -> "Catalog":
    """Open the workspace that the options name.

    Raises:
        WorldlineError: if there is none.
    """
    from catalogs.catalog import Catalog  # here, because `worldline --help` needs no DuckDB

    home = workspace(options)
    if not home.is_dir():
        raise WorldlineError(f"there is no workspace at {home}: build a dataset first, or name one with --home")
    return Catalog.open(home)


def show_rows(options: argparse.Namespace, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a table for people or, with `--json`, as a list of objects."""
    if options.json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: cut to the width of a terminal where it has many columns, uncut into a file or pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis" if len(columns) > 6 else "fold", no_wrap=len(columns) > 6)
    count = 0
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell) for cell in row))
        count += 1
    console.print(table)
    if count == 0:
        console.print("(no rows)")
