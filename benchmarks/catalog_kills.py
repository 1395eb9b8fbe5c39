"""kill -9 at random moments: what was acknowledged is there, the catalog is clean, and the next build completes."""

import collections
import io
import multiprocessing
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

from benchmarks.harness import Figure, figure
from benchmarks.victims import build_beside, build_clip, run_victim
from catalogs.catalog import Catalog
from catalogs.records import DatasetVersion
from catalogs.upkeep import verify

ROUNDS = {"build": 200, "gc": 40, "publish": 40, "compact": 40}
QUICK_ROUNDS = {"build": 20, "gc": 5, "publish": 5, "compact": 5}
_ROUNDS_PER_WORKSPACE = 20  # a fresh one now and then: its creation is killed too, and hashing everything stays short
_ACKNOWLEDGED = (0, 0, 1, 2, 3, 5, 8, 13)  # a victim dies at a random moment after so many acknowledgements...
_LATEST_MOMENT_S = 0.15  # ... and within this time


@dataclass
class Toll:
    """What was found after the kills.

    Attributes:
        rounds: kills by program.
        promised: how many acknowledgements were checked.
        lost: acknowledged things that are not there.
        unclean: what `verify` found, leftovers, and builds that did not complete, one line per round that had any.
    """

    rounds: collections.Counter[str] = field(default_factory=collections.Counter)
    promised: int = 0
    lost: list[str] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)


def measure_kills(folder: Path, quick: bool) -> list[Figure]:
    """Kill building, collecting, publishing and merging processes at random moments and check the catalog after each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.victims"])
    planned = [program for program, count in (QUICK_ROUNDS if quick else ROUNDS).items() for _ in range(count)]
    dice = random.Random(0)
    dice.shuffle(planned)
    toll, told = Toll(), time.monotonic()
    for number, program in enumerate(planned):
        home = folder / f"home{number // _ROUNDS_PER_WORKSPACE}"
        kill_once(context, home, program, number, dice, toll)
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"    {number + 1} of {len(planned)} kills", file=sys.stderr, flush=True)
    counts = ", ".join(f"{count} of {program}" for program, count in toll.rounds.items())
    moment = f"each within {1000 * _LATEST_MOMENT_S:.0f} ms of a random acknowledgement"
    of = f"{sum(toll.rounds.values())} kills -9 ({counts}), {moment}"
    checks = "after each: verify, leftovers, next build"
    return [
        figure("catalog.kill9.rounds", sum(toll.rounds.values()), "kills", "200 of a building process asked", counts),
        figure("catalog.kill9.lost", len(toll.lost), "", "0 asked", _told(f"of {toll.promised} acknowledged; {of}", toll.lost)),
        figure("catalog.kill9.unclean", len(toll.unclean), "rounds", "0 asked", _told(f"{checks}; {of}", toll.unclean)),
    ]


def kill_once(context: ForkServerContext, home: Path, program: str, number: int, dice: random.Random, toll: Toll) -> None:
    """Start a program, kill it at a random moment, and look at what is left."""
    promises = home.with_name(f"{home.name}-{number}.promises")
    victim = context.Process(target=run_victim, args=(home, promises, program, number))
    other = context.Process(target=build_beside, args=(home, range(number * 1000 + 500, number * 1000 + 503)))
    beside = number % 2 == 1 and home.exists()
    victim.start()
    if beside:
        other.start()
    least = 1 + dice.choice(_ACKNOWLEDGED)  # the first line is "begin"
    while victim.is_alive() and not (promises.exists() and promises.read_bytes().count(b"\n") >= least):
        time.sleep(0.001)
    time.sleep(dice.uniform(0.0, _LATEST_MOMENT_S))
    victim.kill()
    victim.join()
    toll.rounds[program] += 1
    found = [] if victim.exitcode == -signal.SIGKILL else [f"the {program} had ended before with status {victim.exitcode}"]
    if beside:
        other.join(120)
        found += [] if other.exitcode == 0 else [f"the build beside it ended with status {other.exitcode}"]
    try:
        found += check(home, promises.read_text().splitlines(), number, toll)
    except Exception:
        found.append(traceback.format_exc().strip().splitlines()[-1])
    if found:
        toll.unclean.append(f"round {number} ({program}): {'; '.join(found)}"[:300])


def check(home: Path, lines: list[str], number: int, toll: Toll) -> list[str]:
    """Count what was promised and is not there; return what is not clean."""
    catalog = Catalog.open(home)
    found = [f"verify: {finding}" for finding in verify(catalog)]
    leftovers = [path for name in ("scratch", "objects/incoming", "locks") for path in (home / name).glob("*")]
    found += [f"left over: {path.relative_to(home)}" for path in leftovers]
    versions = {version.reference: version for version in catalog.datasets()}
    for kind, name, *manifest in (line.split(" ") for line in lines if " " in line):
        toll.promised += 1
        if not (_is_whole(catalog, name) if kind == "artifact" else _is_published(versions, name, manifest)):
            toll.lost.append(f"round {number}: {kind} {name[:24]}")
    again = io.StringIO()
    build_clip(home, again, number * 1000)  # the clip at which a killed build was, or began
    kept = [line for line in lines if line.startswith("artifact")]
    remade = [line for line in again.getvalue().splitlines() if line.startswith("artifact")]
    if kept and remade[0] in kept and kept[: len(remade)] != remade[: len(kept)]:
        found.append("the next build gave other artifacts")
    return found


def _is_whole(catalog: Catalog, digest: str) -> bool:
    ref = catalog.log.artifact(digest)
    return ref is not None and catalog.whole(ref)


def _is_published(versions: dict[str, DatasetVersion], reference: str, manifest: list[str]) -> bool:
    return reference in versions and [versions[reference].manifest] == manifest


def _told(text: str, findings: list[str]) -> str:
    return text + (f"; the first: {findings[0]}" if findings else "")
