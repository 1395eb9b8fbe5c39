"""Full disks and flipped bytes: a clear sentence, nothing lost, everything damaged found by name and healed."""

import collections
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.catalog_kills import Toll, check
from benchmarks.toys import toy_build, toy_figures
from benchmarks.victims import run_victim
from catalogs.catalog import Catalog
from catalogs.records import Note
from catalogs.repair import repair
from catalogs.stores import object_name
from catalogs.upkeep import heal, verify
from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError

_DISK_MB = 32
_MOST_FREE_BYTES = 1_500_000  # about 40 executions
_ROUNDS_PER_DISK = 8
_CLIPS, _DEPTH = 24, 5  # 72 tables of figures: enough of one kind for consolidated tables
_FLIPS_PER_KIND = 6


# -- full disks --------------------------------------------------------------------------------------------------------


def disk_full(rounds: int, folder: Path) -> dict[str, Any]:
    """Let the disk of a building process run full at random moments, and look at what is left once there is space again.

    Args:
        rounds: how often.
        folder: an empty folder; a small disk (tmpfs) is mounted in it, which needs root.

    Returns:
        "rounds"; "promised", how many acknowledgements were checked, "lost" of them; "unclean", what `verify` found,
        leftovers and next builds that did not complete; "unclear", what ended a build other than one sentence that names
        the space (these three are lists of text); "told", the sentences with their counts; "skipped", why nothing was
        measured, or None.
    """
    toll, told, unclear = Toll(), collections.Counter[str](), list[str]()
    dice, context = random.Random(0), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.victims", "benchmarks.catalog_faults"])
    done, skipped = 0, None
    try:
        while done < rounds:
            # Each at its own path: a connection to an earlier disk that is closed late would remove the write-ahead log
            # of the next at the same path, because SQLite knows the file by its inode number, which new disks repeat.
            with _small_disk(folder / f"disk{done}") as disk:
                for number in range(done, min(done + _ROUNDS_PER_DISK, rounds)):
                    promises, ending = folder / f"{number}.promises", folder / f"{number}.ending"
                    victim = context.Process(target=_build_until_full, args=(disk / "home", promises, ending, number))
                    _fill_while(victim, disk, dice, at_once=number % 2 == 0)
                    _judge_ending(ending, number, told, unclear)
                    _check_after(disk / "home", promises, number, toll)
                    done += 1
    except PermissionError as error:
        skipped = str(error)
    return {
        "rounds": done, "promised": toll.promised, "lost": toll.lost, "unclean": toll.unclean, "unclear": unclear,
        "told": dict(told), "skipped": skipped,
    }  # fmt: skip


@contextmanager
def _small_disk(path: Path) -> Iterator[Path]:
    """Mount an empty disk of a few megabytes."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PermissionError(f"a small disk cannot be mounted here ({error}): run this as root") from None
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)


def _build_until_full(home: Path, promises: Path, ending: Path, number: int) -> None:
    """Build until something ends it, and write down what it was."""
    try:
        run_victim(home, promises, "build", number)
    except WorldlineError as error:
        ending.write_text(f"told: {error}")
    except BaseException:
        ending.write_text(traceback.format_exc())


def _fill_while(victim: Any, disk: Path, dice: random.Random, *, at_once: bool) -> None:
    """Run the victim on a disk that is nearly full, or that something else fills while it runs; then make space again."""
    ballast = disk / "ballast"
    free = dice.randrange(0, _MOST_FREE_BYTES) if at_once else 3 * _MOST_FREE_BYTES
    _fill(ballast, free)
    victim.start()
    if not at_once:
        time.sleep(dice.uniform(0.3, 1.5))
        stop = threading.Event()

        def keep_full() -> None:
            while not stop.wait(0.001):
                _fill(ballast, 0)

        filler = threading.Thread(target=keep_full)
        filler.start()
        victim.join(60)
        stop.set()
        filler.join()
    victim.join(60)
    if victim.is_alive():
        victim.kill()
        victim.join()
    ballast.unlink()


def _fill(ballast: Path, free: int) -> None:
    """Write until only so many bytes are left on the disk."""
    with suppress(OSError), ballast.open("ab") as stream:
        status = os.statvfs(ballast)
        stream.write(bytes(max(0, status.f_bavail * status.f_frsize - free)))
        stream.flush()


def _judge_ending(ending: Path, number: int, told: collections.Counter[str], unclear: list[str]) -> None:
    text = ending.read_text() if ending.exists() else "the build was still running after a minute, or died without a word"
    sentence = text.removeprefix("told: ")
    if text.startswith("told: ") and any(word in sentence for word in ("space", "full")) and "\n" not in sentence:
        told[_shape(sentence)] += 1
    else:
        unclear.append(f"round {number}: {text.strip().splitlines()[-1][:300]}")


def _shape(sentence: str) -> str:
    """Return a sentence without its paths, so that equal ones count together."""
    return " ".join("PATH" if "/" in word else word for word in sentence.split())


def _check_after(home: Path, promises: Path, number: int, toll: Toll) -> None:
    try:
        found = check(home, promises.read_text().splitlines() if promises.exists() else [], number, toll)
    except Exception:
        found = [traceback.format_exc().strip().splitlines()[-1]]
    if found:
        toll.unclean.append(f"round {number}: {'; '.join(found)}"[:400])


# -- flipped bytes -----------------------------------------------------------------------------------------------------


def byte_flips(folder: Path, flips_per_kind: int = _FLIPS_PER_KIND) -> dict[str, Any]:
    """Flip single bits in every kind of file of a workspace; see that `verify` names the file and that it heals.

    Args:
        folder: an empty folder.
        flips_per_kind: at random places of each kind of file.

    Returns:
        "flips"; "found", how many `verify` (or opening the workspace) named; "healed", how many of all flips were gone
        after `repair` and building again; "harmless", flips in parts of the log's file that hold nothing (every row and
        every answer is as before), which are not among the flips; "kinds", found of flips by kind; "missed" and
        "unhealed", one line each.
    """
    pristine = folder / "pristine"
    files = _make_workspace(pristine, folder)
    dice = random.Random(0)
    found, flips = collections.Counter[str](), collections.Counter[str]()
    healed, harmless = 0, 0
    missed, unhealed = list[str](), list[str]()
    for kind, name in files:
        for _ in range(flips_per_kind):
            home = folder / f"flip{flips.total() + harmless}"
            shutil.copytree(pristine, home)
            place = _flip(home / name, dice)
            names = _named(home)
            if kind == "log" and not names:
                harmless += 1
                continue
            flips[kind] += 1
            if any(Path(name).name in said or name.replace("objects/", "").replace("/", "") in said for said in names):
                found[kind] += 1
            else:
                missed.append(f"{kind} {name}, byte {place}: {names}"[:300])
            left = _heal(home, folder)
            healed += not left
            unhealed += [f"{kind} {name}, byte {place}: {left}"[:300]] if left else []
            shutil.rmtree(home)
    kinds = {kind: f"{found[kind]} of {count}" for kind, count in flips.items()}
    return {
        "flips": flips.total(), "found": found.total(), "healed": healed, "harmless": harmless, "kinds": kinds,
        "missed": missed, "unhealed": unhealed,
    }  # fmt: skip


def _make_workspace(home: Path, folder: Path) -> list[tuple[str, str]]:
    """Build a workspace that has every kind of file; return one or two files of each kind by their names in it."""
    _build(home, folder)
    catalog = Catalog.open(home)
    catalog.log.compact(minimum=1)
    with catalog.scratch_folder() as scratch:
        orphan = catalog.put(toy_figures(123_456), scratch)
    version = catalog.dataset("flipped")
    catalog.note(Note("tag", "flipped@good", {"version": version.version}))
    source = next(ref for ref in catalog.log.artifacts(Source.kind))
    figures = catalog.artifact(version.artifacts["000000/metrics0"])
    tracks = catalog.artifact(version.artifacts["000000/clip"])
    note = catalog.log.note("tables", version.reference)
    tables = [names[0] for _, names in sorted((note.body["tables"] if note else {}).items()) if names]
    segment, commit = (next(f"tables/{p.parent.name}/{p.name}" for p in catalog.log.files() if p.parent.name == kind)
                       for kind in ("segments", "commits"))  # fmt: skip
    catalog.log.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return [
        ("artifact", object_name(figures.parts["figures.parquet"])),
        ("artifact", object_name(tracks.parts["arrays.safetensors"])),
        ("artifact", object_name(tracks.parts["meta.json"])),
        ("source", object_name(source.parts["files/drive.bin"])),
        ("unrecorded object", object_name(orphan.parts["figures.parquet"])),
        ("manifest", object_name(version.manifest)),
        *(("consolidated table", object_name(sha256)) for sha256 in tables[:2]),
        ("segment", segment),
        ("commit file", commit),
        ("log", "catalog.sqlite"),
        ("log", "catalog.sqlite"),
    ]


def _given(catalog: Catalog, folder: Path) -> Any:
    """Bring in the source that a person has."""
    path = folder / "drive.bin"
    path.write_bytes(random.Random(7).randbytes(50_000))
    with catalog.scratch_folder() as scratch:
        return catalog.put(Source(Files({"drive.bin": path}), "video", "drive"), scratch)


def _build(home: Path, folder: Path) -> None:
    toy_build(home, "flipped", range(_CLIPS), depth=_DEPTH)
    catalog = Catalog.open(home)
    catalog.adopt(_given(catalog, folder))


def _flip(path: Path, dice: random.Random) -> int:
    data = bytearray(path.read_bytes())
    place = dice.randrange(len(data))
    data[place] ^= 1 << dice.randrange(8)
    path.chmod(0o644)
    path.write_bytes(data)
    return place


def _named(home: Path) -> list[str]:
    """Return what opening and verifying a workspace say."""
    return _said(lambda: [str(finding) for finding in verify(Catalog.open(home))])


def _said(act: Callable[[], list[str]]) -> list[str]:
    try:
        return act()
    except WorldlineError as error:
        return [str(error)]
    except (sqlite3.Error, OSError, ValueError) as error:
        return [f"no sentence: {type(error).__name__} {error}"]


def _heal(home: Path, folder: Path) -> list[str]:
    """Repair and build again; return what is bad still."""

    def act() -> list[str]:
        repair(home)
        heal(Catalog.open(home))
        _build(home, folder)
        return [str(finding) for finding in verify(Catalog.open(home))]

    return _said(act)
