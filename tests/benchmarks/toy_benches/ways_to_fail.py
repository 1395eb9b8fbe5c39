"""A bench for the tests of the harness: counts its runs in a file, and can fail in every way that a case can."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Case, Figure, figure


def _count(folder: Path) -> int:
    runs = folder.parent.parent / "runs"
    count = int(runs.read_text()) + 1 if runs.exists() else 1
    runs.write_text(str(count))
    return count


def measure_size(folder: Path, quick: bool) -> Sequence[Figure]:
    assert list(folder.iterdir()) == []
    (folder / "left behind").write_text("x")
    return [figure("toy.size", 10 if quick else 1000, "rows", "12 rows of another", f"run {_count(folder)}")]


def measure_broken(folder: Path, quick: bool) -> Sequence[Figure]:
    if (folder.parent.parent / "mended").exists():
        return [figure("toy.broken", 1.0, "s"), figure("toy.broken_share", 0.5, "")]
    raise ValueError("the disk is\nmade of cheese")


def measure_killed(folder: Path, quick: bool) -> Sequence[Figure]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def measure_for_ever(folder: Path, quick: bool) -> Sequence[Figure]:
    time.sleep(600)
    return []


def measure_half(folder: Path, quick: bool) -> Sequence[Figure]:
    return [figure("toy.half", float("nan"), "s")]


def measure_workspace(folder: Path, quick: bool) -> Sequence[Figure]:
    with (folder / "done").open("a") as stream:
        stream.write("x")
    done = (folder / "done").stat().st_size
    if done == 1:
        raise ValueError("stopped half way")
    return [figure("toy.workspace", done, "runs")]


CASES = (
    Case("size", ("toy.size",), measure_size),
    Case("broken", ("toy.broken", "toy.broken_share"), measure_broken),
    Case("killed", ("toy.killed",), measure_killed),
    Case("for_ever", ("toy.for_ever",), measure_for_ever, limit_s=2.0),
    Case("half", ("toy.half", "toy.other_half"), measure_half),
    Case("workspace", ("toy.workspace",), measure_workspace, goes_on=True),
)
