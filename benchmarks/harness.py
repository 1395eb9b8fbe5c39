"""Run a bench: every case in a process of its own, what is finished kept, what fails a figure like any other.

A bench is a module `benchmarks/NAME.py` with a table of cases:

    def measure_commits(folder: Path, quick: bool) -> list[Figure]:
        ...
        return [figure("catalog.commits_per_s", 119.0, "1/s", compared_with="100/s asked", detail="8 processes x 50")]

    CASES = (Case("commits", ("catalog.commits_per_s",), measure_commits),)

A case gets an empty folder of its own, on the disk that is measured, and may print its progress to stderr. Its process
is started fresh, so that imports are cold, memory is its own, and a crash or a hang takes nobody else along.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from schemas.errors import WorldlineError

ROOT = Path(__file__).resolve().parent.parent
_MEASURED = ("schemas", "worldline", "stages", "catalogs", "tasks", "flows", "conf", "benchmarks")
_CASE = "import sys; from benchmarks.harness import measure_case; sys.exit(measure_case(*sys.argv[1:]))"
_PACKAGES = ("duckdb", "gsplat", "numba", "numpy", "obstore", "pg8000", "prefect", "pyarrow", "torch")


class Figure(TypedDict):
    """One measured value.

    Attributes:
        id: stable name.
        value: the raw value, None where it could not be measured.
        unit: of the value.
        compared_with: the peer or the limit to read it against, with its own value.
        detail: on what it was measured, or what failed.
    """

    id: str
    value: float | None
    unit: str
    compared_with: str
    detail: str


def figure(id: str, value: float | None, unit: str, compared_with: str = "", detail: str = "") -> Figure:
    """Return one figure; a value that is not finite becomes None, because JSON has no word for it."""
    finite = value is not None and math.isfinite(value)
    return Figure(id=id, value=float(value) if finite and value is not None else None, unit=unit, compared_with=compared_with,
                  detail=detail)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One thing that a bench measures.

    Attributes:
        name: unique in the bench.
        ids: figure ids that it answers for; one that it does not return becomes a figure without a value.
        measure: takes an empty folder and whether to be quick; returns figures.
        limit_s: a case that takes longer is stopped and fails.
        goes_on: whether the folder stays when the case ends, however it ends, so that the next run of it finds what is there: for
            workspaces, which know by themselves what must be done again. Only a fresh run empties it.
    """

    name: str
    ids: tuple[str, ...]
    measure: Callable[[Path, bool], Sequence[Figure]]
    limit_s: float = 3600.0
    goes_on: bool = False


def measured_by(module: str, function: str) -> Callable[[Path, bool], Sequence[Figure]]:
    """Return what measures a case, imported when it runs in its own process, so that listing cases needs none of it."""

    def measure(folder: Path, quick: bool) -> Sequence[Figure]:
        figures: Sequence[Figure] = getattr(importlib.import_module(f"benchmarks.{module}"), function)(folder, quick)
        return figures

    return measure


@dataclass(frozen=True)
class Finished:
    """A case that was measured, as it is kept in the bench's folder.

    Attributes:
        case: its name.
        quick: whether it was a quick run.
        code: hash of the code that was measured.
        commit: git commit of that code, "+" where files differed from it.
        measured_at: Unix time in seconds.  seconds: how long it took.
        load: processes that wanted to run when it started (1 minute mean).
        failed: what went wrong, or None.
        figures: what it measured.
    """

    case: str
    quick: bool
    code: str
    commit: str
    measured_at: float
    seconds: float
    load: float
    failed: str | None
    figures: list[Figure]


# -- running -----------------------------------------------------------------------------------------------------------


def run_bench(
    name: str,
    folder: Path,
    *,
    quick: bool = False,
    only: str = "",
    fresh: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure the cases of a bench that are not measured yet and return its document.

    Args:
        name: module under `benchmarks`, or any module by its dotted name.
        folder: where finished cases are kept and cases work.
        quick: small sizes.
        only: prefix of figure ids (or "NAME.CASE"); cases that answer for none are left out.
        fresh: forget what was finished before.
        say: prints one line of progress.

    Raises:
        WorldlineError: if there is no such bench or no such figure, or the folder cannot be written.
    """
    chosen = choose_cases(name, only)
    code, commit = measured_code()
    finished = []
    for number, case in enumerate(chosen, 1):
        place = f"[{number}/{len(chosen)}] {case.name}"
        kept = None if fresh else _read(_kept_path(folder, case, quick))
        if kept is not None and kept.failed is None and kept.code == code:
            say(f"{place}: kept, measured {_ago(kept.measured_at)} in {kept.seconds:.0f} s")
            finished.append(kept)
            continue
        again = "" if kept is None else " again, because it failed" if kept.failed else " again, because the code has changed"
        say(f"{place}: running{again}")
        done = _measure_apart(name, case, folder, quick, fresh, code, commit)
        say(f"{place}: {f'FAILED, {done.failed}' if done.failed else 'done'} in {done.seconds:.1f} s")
        finished.append(done)
    return _document(name, quick, commit, folder, finished)


def choose_cases(name: str, only: str = "") -> list[Case]:
    """Return the cases of a bench that answer for a figure whose id begins with `only`.

    Raises:
        WorldlineError: if there is no such bench or no such figure; the message names what there is.
    """
    try:
        cases = importlib.import_module(_module(name)).CASES
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != _module(name):
            raise
        raise WorldlineError(f"there is no bench {name!r}: there is {', '.join(bench_names())}") from None
    chosen = [case for case in cases if any(id.startswith(only) for id in (*case.ids, f"{name}.{case.name}"))]
    if not chosen:
        known = ", ".join(id for case in cases for id in case.ids)
        raise WorldlineError(f"bench {name} has no figure that begins with {only!r}: it has {known}")
    return chosen


def bench_names() -> list[str]:
    """Return the benches that there are: modules here that have a table of cases."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\nCASES" in path.read_text())


def _module(name: str) -> str:
    return f"benchmarks.{name}" if "." not in name else name


def _measure_apart(name: str, case: Case, folder: Path, quick: bool, fresh: bool, code: str, commit: str) -> Finished:
    """Measure one case in a process of its own and keep the outcome."""
    work, answer = folder / "work" / case.name, folder / "work" / f"{case.name}.json"
    try:
        if fresh or not case.goes_on:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        answer.unlink(missing_ok=True)
    except OSError as error:
        raise WorldlineError(f"the bench cannot work in {folder} ({error.strerror}): name another with --folder") from None
    started, load = time.time(), os.getloadavg()[0]
    failed = _run_apart([name, case.name, str(work), "quick" if quick else "full", str(answer)], case.limit_s)
    seconds = time.time() - started
    figures: list[Figure] = []
    if failed is None:
        figures = json.loads(answer.read_text())
    known = {item["id"] for item in figures}
    why = f"failed: {failed}" if failed else "the case did not report it"
    figures += [figure(id, None, "", detail=why) for id in case.ids if id not in known]
    done = Finished(case.name, quick, code, commit, started, seconds, load, failed, figures)
    _keep(_kept_path(folder, case, quick), done)
    answer.unlink(missing_ok=True)
    if not case.goes_on:
        shutil.rmtree(work, ignore_errors=True)
    return done


def _run_apart(arguments: list[str], limit_s: float) -> str | None:
    """Run one case in a new process group; return what went wrong, or None."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))}
    process = subprocess.Popen(
        [sys.executable, "-c", _CASE, *arguments],
        start_new_session=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else None,
    )
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"still running after {limit_s:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what the case itself started and left
        process.wait()
    if status == 0:
        return None
    told = Path(arguments[-1])
    if status == 1 and told.exists():
        return str(json.loads(told.read_text())["failed"])
    return f"its process was ended by {signal.Signals(-status).name}" if status < 0 else f"its process ended with status {status}"


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, AttributeError, ValueError):
        return False
    return True


def measure_case(name: str, case_name: str, work: str, size: str, answer: str) -> int:
    """Measure one case in this process, write its figures or why it failed to a file, and return the exit status."""
    case = next(item for item in choose_cases(name) if item.name == case_name)
    try:
        found: Any = list(case.measure(Path(work), size == "quick"))
        status = 0
    except Exception as error:
        import traceback

        traceback.print_exc()
        found, status = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}, 1
    Path(answer).write_text(json.dumps(found))
    return status


# -- what is kept ------------------------------------------------------------------------------------------------------


def _kept_path(folder: Path, case: Case, quick: bool) -> Path:
    return folder / ("quick" if quick else "full") / f"{case.name}.json"


def _keep(path: Path, done: Finished) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(done), indent=2))
    os.replace(temporary, path)


def _read(path: Path) -> Finished | None:
    try:
        return Finished(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # not there, or of another version of this harness
        return None


def _ago(when: float) -> str:
    return f"{(time.time() - when) / 60:.0f} min ago"


# -- what is written ---------------------------------------------------------------------------------------------------


def _document(name: str, quick: bool, commit: str, folder: Path, finished: Sequence[Finished]) -> dict[str, Any]:
    cases = [
        {"case": item.case, "commit": item.commit, "measured_at": item.measured_at, "seconds": item.seconds, "load": item.load,
         "failed": item.failed}
        for item in finished
    ]  # fmt: skip
    return {
        "bench": name.rpartition(".")[2],
        "machine": describe_machine(folder),
        "commit": commit,
        "quick": quick,
        "figures": [row for item in finished for row in item.figures],
        "cases": cases,
    }


def describe_machine(folder: Path) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory in GB, the file system of the folder, versions."""
    from importlib.metadata import version

    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "processor": model or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "file_system": _file_system(folder.resolve()),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _file_system(folder: Path) -> str:
    best, kind = "", ""
    for line in _lines("/proc/self/mounts"):
        _, mount, found, *_ = line.split(" ")
        if folder.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _lines(path: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from Path(path).read_text().splitlines()


def measured_code() -> tuple[str, str]:
    """Return a hash of all code that a bench can measure, and the git commit ("+" where files differ from it)."""
    hashed = hashlib.sha256()
    for package in _MEASURED:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                hashed.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return hashed.hexdigest(), _commit()


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *_MEASURED) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
