"""A disk that runs full: one clear sentence, nothing lost, nothing partial, and the work goes on once there is space."""

import contextlib
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalog_workers import figures, key_of, make, put

from benchmarks.catalog_faults import disk_full
from catalogs.catalog import Catalog, Execution
from catalogs.garbage import collect_garbage
from catalogs.upkeep import verify
from catalogs.versions import publish
from schemas.errors import WorldlineError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here, that needs root ({error})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def leave_free(folder: Path, free: int) -> Path:
    """Fill the disk but for so many bytes."""
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    with contextlib.suppress(OSError), ballast.open("wb") as stream:
        stream.write(bytes(max(0, status.f_bavail * status.f_frsize - free)))
    return ballast


def build_until_full(catalog: Catalog, round_number: int, acknowledged: dict[str, Execution]) -> tuple[str, int]:
    """Record and publish until the disk is full; return what was said, and at which execution."""
    for index in range(1000):
        try:
            build(catalog, round_number, index, acknowledged)
        except WorldlineError as error:
            return str(error), index
    raise AssertionError("the disk never ran full")


def build(catalog: Catalog, round_number: int, index: int, acknowledged: dict[str, Execution]) -> None:
    execution = make(catalog, f"{round_number}/{index}", round_number * 1000 + index)
    acknowledged[execution.key] = execution
    publish(catalog, "nightly", {"x": execution.key}, {"figures": execution.outputs[0].digest}, {})


def test_a_full_disk_is_told_and_costs_nothing_that_was_acknowledged(small_disk: Path) -> None:
    catalog = Catalog.open(small_disk / "home")
    moments = random.Random(0)
    acknowledged: dict[str, Execution] = {}
    for round_number in range(6):
        ballast = leave_free(small_disk, moments.randrange(0, 300_000))
        said, index = build_until_full(catalog, round_number, acknowledged)
        assert re.fullmatch(r".*(No space left|disk is full).*", said)
        ballast.unlink()
        catalog = Catalog.open(catalog.home)
        assert verify(catalog) == []
        for folder in ("scratch", "objects/incoming"):
            assert not list((catalog.home / folder).iterdir())
        assert {key: catalog.find(key) for key in acknowledged} == acknowledged
        build(catalog, round_number, index, acknowledged)
    versions = [version.version for version in catalog.datasets()]
    assert versions == list(range(1, len(versions) + 1))


def test_gc_makes_space_on_a_full_disk(small_disk: Path) -> None:
    catalog = Catalog.open(small_disk / "home")
    kept = make(catalog, "kept", 1)
    publish(catalog, "nightly", {}, {"figures": kept.outputs[0].digest}, {})
    make(catalog, "stale", 3)  # forgetting it takes a little space itself
    for number in range(20):
        put(catalog, figures(number + 100, rows=2000))
    leave_free(small_disk, 0)
    with pytest.raises(WorldlineError, match=r"No space left|disk is full"):
        make(catalog, "next", 2)
    found = collect_garbage(catalog, dry_run=False, grace_seconds=-1.0)
    assert catalog.find(key_of("stale")) is None
    assert sum(item.bytes for item in found.garbage) > 300_000
    assert make(catalog, "next", 2) == catalog.find(key_of("next"))
    assert catalog.find(kept.key) == kept
    assert verify(catalog) == []


@pytest.mark.slow
def test_a_building_process_whose_disk_runs_full_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    outcome = disk_full(12, tmp_path)
    if outcome["skipped"]:
        pytest.skip(outcome["skipped"])
    assert outcome["rounds"] == 12
    assert outcome["promised"] > 0
    assert (outcome["lost"], outcome["unclean"], outcome["unclear"]) == ([], [], [])
