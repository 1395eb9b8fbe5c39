"""Programs that write to a catalog without end, to be killed at any moment.

Each one writes a line to its file of promises when the catalog has acknowledged something: "begin" before the first
operation, then "artifact DIGEST" and "version NAME@V MANIFEST".
"""

from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from benchmarks.toys import toy_build, toy_execution, toy_figures
from catalogs.catalog import Catalog
from catalogs.garbage import collect_garbage
from catalogs.versions import publish
from stages.contract import load_stages
from tasks.build import Build, Handle
from tasks.progress import Display

DEPTH = 5  # executions per clip
load_stages()  # when imported, so that a fork server that has this module hands them to every victim


def build(home: Path, promises: TextIO, number: int) -> None:
    """Build one clip after the other through `tasks.build.Build` and publish each."""
    for clip in range(number * 1000, number * 1000 + 1000):
        build_clip(home, promises, clip)


def build_clip(home: Path, promises: TextIO, clip: int) -> None:
    """Build and publish one clip, and promise what each step acknowledged."""
    running = Build({"name": "built", "seed": 0, "clip": clip}, home, Display(quiet=True))
    artifacts: dict[str, Handle] = {}
    (made,) = running.run("toy.clip", {"clip": clip})
    for step in range(DEPTH):
        promise(promises, f"artifact {made.digest}")
        artifacts[f"step{step}"] = made
        if step < DEPTH - 1:
            (made,) = running.run("toy.step" if step < DEPTH - 2 else "toy.measure", {"step": step}, tracks=made)
    name, _, version = running.finish(artifacts)["dataset"].partition("@")
    promise(promises, f"version {name}@{version} {running.catalog.dataset(f'{name}@{version}').manifest}")


def publish_versions(home: Path, promises: TextIO, number: int) -> None:
    """Publish one version after the other."""
    catalog = Catalog.open(home)
    digests = {"figures": _record(catalog, promises, f"{number}/published", number)}
    for turn in range(1000):
        version = publish(catalog, f"published{number}", {"turn": turn}, digests, {})
        promise(promises, f"version {version.reference} {version.manifest}")


def compact(home: Path, promises: TextIO, number: int) -> None:
    """Record a little and merge commit files, again and again."""
    catalog = Catalog.open(home)
    for turn in range(1000):
        _record(catalog, promises, f"{number}/{turn}", number * 1000 + turn)
        catalog.log.compact(minimum=2)


def collect(home: Path, promises: TextIO, number: int) -> None:
    """Leave objects that nothing refers to and remove what nothing needs, again and again, without any grace."""
    catalog = Catalog.open(home)
    for turn in range(1000):
        digest = _record(catalog, promises, f"{number}/{turn}", number * 1000 + turn)
        publish(catalog, f"kept{number}", {"turn": turn}, {"figures": digest}, {})  # without grace, only versions are kept
        with catalog.scratch_folder() as scratch:
            for garbage in range(5):
                catalog.put(toy_figures(-1 - garbage - 10 * turn + 10**9), scratch)
        collect_garbage(catalog, dry_run=False, grace_seconds=0.0)


VICTIMS: dict[str, Callable[[Path, TextIO, int], None]] = {
    "build": build,
    "publish": publish_versions,
    "compact": compact,
    "gc": collect,
}


def run_victim(home: Path, path: Path, program: str, number: int) -> None:
    """Run a program until it is killed."""
    with path.open("a") as promises:
        promise(promises, "begin")
        VICTIMS[program](home, promises, number)


def build_beside(home: Path, clips: range) -> None:
    """Build and publish some clips: the other process, which must end well whatever happens to the victim."""
    for clip in clips:
        toy_build(home, "beside", range(clip, clip + 1), depth=DEPTH)


def promise(promises: TextIO, line: str) -> None:
    """Write down what was acknowledged, before anything else happens."""
    promises.write(line + "\n")
    promises.flush()


def _record(catalog: Catalog, promises: TextIO, name: str, number: int) -> str:
    with catalog.scratch_folder() as scratch:
        execution = catalog.record(toy_execution(name, (catalog.put(toy_figures(number), scratch),)))
    digest = execution.outputs[0].digest
    promise(promises, f"artifact {digest}")
    return digest
