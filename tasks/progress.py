"""What a person sees while stages run: one line per stage, with a bar, a figure and the time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stages.contract import Progress as ProgressCall

_LOG_EVERY_SECONDS = 10.0


class Display:
    """Shows stages on a terminal as bars, elsewhere as one line at most every ten seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def kept(self, stage: str) -> None:
        """Say that a stage was not run because its result is recorded."""
        if not self.quiet:  # rich lays out what it does not print: a third of a millisecond for each of thousands
            self.console.print(f"  [dim]kept[/]  {stage}")

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text)

    @contextmanager
    def running(self, stage: str, why: str) -> Iterator[ProgressCall]:
        """Show a stage while it runs and yield the callable to pass to it."""
        started = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("  [bold]{task.description:<26}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("[cyan]{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bars:
                bar = bars.add_task(stage, total=None, note=why)
                yield lambda done, total, note="": bars.update(bar, completed=done, total=total, note=note)
        else:
            self.say(f"  run   {stage} ({why})")
            yield _line_progress(self, stage)
        self.say(f"  [green]done[/]  {stage} in {time.monotonic() - started:.1f} s")


def _line_progress(display: Display, stage: str) -> ProgressCall:
    last = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_EVERY_SECONDS:
            last = time.monotonic()
            display.say(f"        {stage} {done}/{total} {note}".rstrip())
            sys.stderr.flush()

    return report
