import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_workers import figures, key_of, put, run_of

from catalogs import takedowns
from catalogs.catalog import Catalog
from catalogs.objects import ObjectStore
from catalogs.records import execution_row, output_row
from catalogs.takedowns import takedown
from catalogs.upkeep import verify
from catalogs.versions import publish
from schemas.artifact import Files, rows_to_table
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.reports import LINEAGE_EDGES, LINEAGE_NODES, Lineage, Report


def adopted(catalog: Catalog, folder: Path, name: str) -> str:
    path = folder / name
    path.write_bytes(name.encode() * 40)
    return catalog.adopt(put(catalog, Source(files=Files({name: path}), layout="video", name=name))).digest


def made(catalog: Catalog, name: str, artifacts: list[Any], inputs: dict[str, str]) -> list[str]:
    refs = tuple(put(catalog, artifact) for artifact in artifacts)
    return [ref.digest for ref in catalog.record(run_of(key_of(name), "toy.make", refs, inputs)).outputs]


def lineage_naming(digest: str) -> Lineage:
    edge = {"execution_key": "k", "slot": "source", "direction": "in", "kind": "Source", "digest": digest}
    return Lineage(nodes=LINEAGE_NODES.empty_table(), edges=rows_to_table(LINEAGE_EDGES, [edge]))


@pytest.fixture
def streets(catalog: Catalog, tmp_path: Path) -> dict[str, str]:
    """Two sources; from each a clip, figures and an empty truth that both share; versions of one, and of both."""
    named: dict[str, str] = {}
    for number, name in enumerate(("ann", "bob")):
        named[name] = adopted(catalog, tmp_path, f"{name}.mp4")
        clip, nothing = made(catalog, f"{name} in", [figures(number), figures(0, rows=0)], {"source": named[name]})
        (labels,) = made(catalog, f"{name} out", [figures(10 + number)], {"clip": clip, "truth": nothing})
        page = catalog.adopt(put(catalog, lineage_naming(clip))).digest
        named |= {f"{name}/clip": clip, f"{name}/labels": labels, f"{name}/lineage": page, "nothing": nothing}
    publish(catalog, "ann", {}, {role.split("/")[1]: named[role] for role in named if role.startswith("ann/")}, {})
    publish(catalog, "both", {}, {role: named[role] for role in named if "/" in role}, {})
    return named


def removed(catalog: Catalog, named: dict[str, str]) -> set[str]:
    return {name for name, digest in named.items() if catalog.log.artifact(digest) is None}


ANNS = {"ann", "ann/clip", "ann/labels", "ann/lineage"}


@pytest.mark.both_dialects
def test_a_takedown_removes_the_source_and_what_could_not_be_made_without_it(catalog, streets):
    report = takedown(catalog, "ann.mp4", reason="Ann asked", author="me")
    assert removed(catalog, streets) == ANNS
    assert set(report.artifacts) == {streets[name] for name in ANNS}
    assert catalog.find(key_of("ann in")) is None
    assert catalog.find(key_of("ann out")) is None
    assert catalog.find(key_of("bob out")) is not None
    note = catalog.log.note("takedown", streets["ann"])
    assert note is not None
    assert (note.reason, note.author) == ("Ann asked", "me")


@pytest.mark.both_dialects
def test_the_bytes_of_what_was_taken_down_are_gone_and_nothing_else(catalog, streets):
    refs = {name: catalog.artifact(digest) for name, digest in streets.items()}
    takedown(catalog, streets["ann"], reason="Ann asked")
    kept = {sha for name in streets if name not in ANNS for sha in refs[name].parts.values()}
    gone = {sha for name in ANNS for sha in refs[name].parts.values()} - kept
    assert {sha for sha in gone if catalog.objects.exists(sha)} == set()
    assert all(catalog.objects.verify(sha) for sha in kept)
    assert verify(catalog) == []


def test_a_version_that_lost_everything_is_deleted_and_the_others_keep_the_rest(catalog, streets):
    report = takedown(catalog, "ann.mp4", reason="Ann asked")
    assert [(item.reference, item.lost, item.artifacts, item.deleted) for item in report.versions] == [
        ("ann@1", 3, 3, True),
        ("both@1", 3, 6, False),
    ]
    assert [version.reference for version in catalog.datasets()] == ["both@1"]
    deleted = catalog.log.note("deleted", "ann@1")
    assert deleted is not None
    assert "Ann asked" in str(deleted.reason)
    version = catalog.dataset("both")
    catalog.load(version.artifacts["bob/labels"])
    assert version.missing == dict.fromkeys(("ann/clip", "ann/labels", "ann/lineage"), "taken down (Ann asked)")


@pytest.mark.both_dialects
def test_what_was_taken_down_may_not_come_in_again(catalog, streets, tmp_path):
    takedown(catalog, "ann.mp4", reason="Ann asked")
    objects = sorted(catalog.objects.all())
    with pytest.raises(WorldlineError, match="taken down"):
        adopted(catalog, tmp_path, "ann.mp4")
    assert removed(catalog, streets) == ANNS
    assert sorted(catalog.objects.all()) == objects


@pytest.mark.parametrize("by", ["digest", "name"])
def test_a_second_takedown_says_that_it_was_done(catalog, streets, by):
    takedown(catalog, "ann.mp4", reason="Ann asked")
    with pytest.raises(WorldlineError, match=r"taken down already \(Ann asked\)"):
        takedown(catalog, streets["ann"][:8] if by == "digest" else "ann.mp4", reason="again")


def test_a_dry_run_tells_the_same_and_changes_nothing(catalog, streets):
    before = sorted(catalog.objects.all())
    planned = takedown(catalog, "ann.mp4", reason="Ann asked", dry_run=True)
    assert (sorted(catalog.objects.all()), removed(catalog, streets)) == (before, set())
    assert takedown(catalog, "ann.mp4", reason="Ann asked") == planned
    assert planned.rows == {"metrics": 40}
    freed = set(before) - set(catalog.objects.all())
    assert len(freed) > 0


def test_the_reported_size_is_that_of_the_bytes_that_went(catalog, streets):
    def used() -> int:
        return sum(catalog.objects.size(name) or 0 for name in catalog.objects.all())

    before = used()
    report = takedown(catalog, "ann.mp4", reason="Ann asked")
    assert report.bytes == before - used()


def test_everything_made_in_a_circle_from_the_source_goes(catalog, tmp_path):
    source = adopted(catalog, tmp_path, "loop.mp4")
    (clip,) = made(catalog, "in", [figures(1)], {"source": source})
    made(catalog, "same again", [figures(1)], {"clip": clip})  # an idempotent stage makes its input
    takedown(catalog, source, reason="asked")
    assert catalog.log.artifact(clip) is None
    assert catalog.find(key_of("same again")) is None


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_is_what_no_sequence_of_runs_can_make_without_the_source(catalog, seed):
    generator = np.random.default_rng(seed)
    names = [key_of(f"{seed}/{number}") for number in range(12)]
    sources, there = names[:3], names[:3]
    runs: dict[str, tuple[list[str], str]] = {}  # inputs and output by key
    for number in range(20):  # some make what others made before them, from other things or from itself
        inputs = sorted(set(generator.choice(there, generator.integers(1, 3)).tolist()))
        output = str(generator.choice(names[3:]))
        runs[key_of(f"run {seed}/{number}")] = (inputs, output)
        there = [*there, *({output} - set(there))]
    blank = put(catalog, figures(0))
    with catalog.log.write() as commit:
        for digest in sources:
            commit.append({"record": "source", "outputs": [output_row("Source", dataclasses.replace(blank, digest=digest))]})
        for key, (inputs, output) in runs.items():
            run = run_of(key, "toy.make", (dataclasses.replace(blank, digest=output),), dict(zip("ab", inputs, strict=False)))
            commit.append(execution_row(run, "execution"))

    left = set(sources[1:])
    while new := {output for inputs, output in runs.values() if left.issuperset(inputs)} - left:
        left |= new
    report = takedown(catalog, sources[0], reason="asked", dry_run=True)
    assert set(report.artifacts) == set(there) - left
    assert set(report.executions) == {key for key, (inputs, _) in runs.items() if not left.issuperset(inputs)}


@pytest.mark.both_dialects
def test_bytes_of_a_drifted_output_go_too(catalog, tmp_path):
    source = adopted(catalog, tmp_path, "drift.mp4")
    made(catalog, "in", [figures(1)], {"source": source})
    other = put(catalog, figures(2))
    catalog.record(run_of(key_of("in"), "toy.make", (other,), {"source": source}))
    takedown(catalog, source, reason="asked")
    assert [sha for name, sha in other.parts.items() if name == "figures.parquet" and catalog.objects.exists(sha)] == []


def test_reports_and_checkpoints_of_what_was_taken_down_go_too(catalog, streets, tmp_path):
    (tmp_path / "report.html").write_text("frames of Ann")
    (page,) = made(
        catalog, "page", [Report(files=Files({"report.html": tmp_path / "report.html"}))], {"clip": streets["ann/clip"]}
    )
    publish(catalog, "paged", {}, {"ann/report": page, "bob/labels": streets["bob/labels"]}, {})
    reports = [catalog.home / "reports" / name for name in ("paged-1-ann.html", "paged-1-bob.html")]
    for path in reports:
        path.parent.mkdir(exist_ok=True)
        path.write_text("frames")
    checkpoint = catalog.checkpoint_folder(key_of("ann failed"))
    (checkpoint / "state").write_bytes(b"frames of Ann")
    failed = run_of(key_of("ann failed"), "toy.make", (), {"clip": streets["ann/clip"]}, status="error")
    catalog.record(failed)
    takedown(catalog, "ann.mp4", reason="asked")
    assert [path.exists() for path in reports] == [False, True]
    assert not checkpoint.exists()


def test_a_takedown_waits_for_nobody_while_something_builds(catalog, streets):
    with catalog.log.lease(exclusive=False), pytest.raises(WorldlineError, match="wait until that is done"):
        takedown(catalog, "ann.mp4", reason="Ann asked")
    assert removed(catalog, streets) == set()


@pytest.mark.parametrize(
    ("source", "reason", "said"),
    [("nobody.mp4", "asked", "no artifact"), ("ann.mp4", " ", "why"), ("model:x", "asked", "come in from outside"),
     ("ann/labels", "asked", "was made by")],
)  # fmt: skip
def test_what_cannot_be_taken_down_is_said_in_one_sentence(catalog, streets, source, reason, said):
    with pytest.raises(WorldlineError, match=said) as refused:
        takedown(catalog, streets.get(source, source), reason=reason)
    assert "\n" not in str(refused.value)
    assert removed(catalog, streets) == set()


def test_a_takedown_survives_a_rebuilt_log(catalog, streets):
    takedown(catalog, "ann.mp4", reason="Ann asked")
    for path in catalog.home.glob("catalog.sqlite*"):
        path.unlink()
    again = Catalog.open(catalog.home)
    assert removed(again, streets) == ANNS
    assert verify(again) == []


# -- dying in the middle -----------------------------------------------------------------------------------------------


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after_one_object(store: ObjectStore, names: list[str]) -> None:
    store.path(names[0]).unlink()
    _die()


DEATHS = {
    "before the commit": lambda: setattr(takedowns, "_notes", _die),
    "committed, no byte removed": lambda: setattr(takedowns, "referenced", _die),
    "one object removed": lambda: setattr(ObjectStore, "discard", _die_after_one_object),
    "all removed, not said so": lambda: setattr(Catalog, "note", _die),
}


def _takedown_and_die(home: Path, death: str) -> None:
    catalog = Catalog.open(home)
    DEATHS[death]()
    takedown(catalog, "ann.mp4", reason="Ann asked")


@pytest.mark.both_dialects
@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_takedown_is_whole_or_not_at_all_and_the_next_one_finishes_it(catalog, streets, processes, death):
    refs = {name: catalog.artifact(digest) for name, digest in streets.items()}
    process = processes.Process(target=_takedown_and_die, args=(catalog.home, death))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = Catalog.open(catalog.home)
    assert verify(again) == []
    assert removed(again, streets) == (set() if death == "before the commit" else ANNS)
    takedown(again, "bob.mp4", reason="Bob asked")
    if death != "before the commit":
        left = {sha for ref in refs.values() for sha in ref.parts.values() if again.objects.exists(sha)}
        needed = {sha for (body,) in again.log.rows("SELECT body FROM artifacts") for sha in _parts(body)}
        assert left <= needed
    assert verify(again) == []


def _parts(body: str) -> set[str]:
    return {part["sha256"] for part in json.loads(body)["parts"]}


def test_a_large_version_loses_the_rows_of_a_source_from_its_consolidated_tables(catalog, tmp_path):
    source = adopted(catalog, tmp_path, "3.mp4")
    with catalog.scratch_folder() as scratch:
        refs = [catalog.put(figures(number), scratch) for number in range(70)]
    with catalog.log.write() as commit:
        for number, ref in enumerate(refs):
            inputs = {"source": source} if number == 3 else {}
            commit.append(execution_row(run_of(key_of(f"run {number}"), "toy.make", (ref,), inputs), "execution"))
    artifacts = {f"{number}/figures": ref.digest for number, ref in enumerate(refs)}
    publish(catalog, "many", {}, artifacts, {})
    tables = catalog.log.note("tables", "many@1")
    assert tables is not None
    takedown(catalog, "3.mp4", reason="asked")
    found = catalog.sql("SELECT DISTINCT artifact FROM metrics WHERE dataset = 'many' AND version = 1").column(0).to_pylist()
    assert set(found) == set(artifacts.values()) - {artifacts["3/figures"]}
    after = catalog.log.note("tables", "many@1")
    assert after is not None
    assert not any(catalog.objects.exists(name) for name in tables.body["tables"]["metrics"])
    assert all(catalog.objects.verify(name) for name in after.body["tables"]["metrics"])
