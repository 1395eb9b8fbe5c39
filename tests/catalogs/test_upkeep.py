"""Looking after a workspace: every flipped byte is found, named and healed; `gc` takes only what nothing needs."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import obstore
import pytest
from catalog_workers import figures, key_of, make, put, run_of

import catalogs.garbage
import catalogs.log
from catalogs.catalog import Catalog, Execution
from catalogs.garbage import GRACE_SECONDS, Garbage, collect_garbage
from catalogs.records import Note
from catalogs.repair import repair
from catalogs.upkeep import Finding, heal, verify
from catalogs.versions import delete, publish
from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.reports import Report

DAY = 86_400.0


def object_path(catalog: Catalog, execution: Execution, part: str = "figures.parquet") -> Path:
    return catalog.objects.path(execution.outputs[0].parts[part])


def flip_a_bit(path: Path, position: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def bad(catalog: Catalog, dataset: str | None = None) -> list[tuple[str, str]]:
    return [(finding.name, finding.state) for finding in verify(catalog, dataset)]


def gone(collection: catalogs.garbage.Collection, kind: str) -> set[str]:
    return {item.name for item in collection.garbage if item.kind == kind}


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@contextlib.contextmanager
def days_ago(catalog: Catalog, days: float) -> Iterator[None]:
    """Record and put as if it were some days ago."""
    before = {entry.name for entry in catalog.store.entries("objects")}
    then = time.time() - days * DAY
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogs.log.time, "time", lambda: then)
        yield
    for entry in catalog.store.entries("objects"):
        if entry.name not in before:
            os.utime(catalog.store.local(entry.name), (then, then))


# -- verify and heal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["meta.json", "figures.parquet"])
def test_a_flipped_bit_is_named_on_load_and_by_verify_and_healed_by_putting_again(catalog: Catalog, part: str) -> None:
    execution = make(catalog, "a", 1)
    flip_a_bit(object_path(catalog, execution, part))
    with pytest.raises(WorldlineError, match=f"part {part} of Metrics {execution.outputs[0].digest[:12]} is damaged"):
        catalog.load(execution.outputs[0].digest)
    assert bad(catalog) == [(execution.outputs[0].parts[part], "damaged")]
    put(catalog, figures(1))
    assert verify(catalog) == []


def test_a_damaged_part_names_its_artifact_and_stage_and_is_made_again_after_repair(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    flip_a_bit(object_path(catalog, execution))
    finding = only(verify(catalog))
    assert finding.kind == "artifact"
    assert finding.of == f"figures.parquet of Metrics {execution.outputs[0].digest[:12]}"
    assert finding.remedy == "`worldline repair` removes it, then build again: toy.make makes it"
    assert catalog.find(execution.key) == execution  # its size is right
    assert heal(catalog) == [(finding, "removed: build again: toy.make makes it")]
    assert catalog.find(execution.key) is None
    assert make(catalog, "a", 1) == execution
    assert verify(catalog) == []


def test_a_damaged_source_says_that_the_same_file_brings_it_in_again(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "drive.bin").write_bytes(b"drive" * 1000)
    source = Source(Files({"drive.bin": tmp_path / "drive.bin"}), "video", "drive")
    ref = catalog.adopt(put(catalog, source))
    flip_a_bit(catalog.objects.path(ref.parts["files/drive.bin"]))
    finding = only(verify(catalog))
    assert (finding.kind, finding.of) == ("source", f"files/drive.bin of Source {ref.digest[:12]}")
    assert "same file" in finding.remedy
    heal(catalog)
    assert not catalog.whole(ref)
    catalog.adopt(put(catalog, source))
    assert verify(catalog) == []


def test_verify_names_a_missing_object(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    object_path(catalog, execution, "meta.json").unlink()
    assert bad(catalog) == [(execution.outputs[0].parts["meta.json"], "missing")]
    assert only(verify(catalog)).remedy == "build again: toy.make makes it"


def test_a_damaged_object_that_nothing_refers_to_is_removed(catalog: Catalog) -> None:
    flip_a_bit(catalog.objects.path(put(catalog, figures(1)).parts["figures.parquet"]))
    assert only(verify(catalog)).kind == "object"
    assert [done for _, done in heal(catalog)] == ["removed"]
    assert verify(catalog) == []


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_a_bad_manifest_is_made_again_from_the_records(catalog: Catalog, state: str) -> None:
    second = make(catalog, "b", 2, {"figures": make(catalog, "a", 1).outputs[0].digest})
    version = publish(catalog, "nightly", {"x": 1}, {"figures": second.outputs[0].digest}, {"numpy": "2"})
    path = catalog.objects.path(version.manifest)
    before = path.read_bytes()
    flip_a_bit(path)
    if state == "missing":
        path.unlink()
    finding = only(verify(catalog, "nightly"))
    assert (finding.kind, finding.name, finding.state) == ("manifest", version.manifest, state)
    assert finding.of == "manifest of nightly@1"
    assert heal(catalog) == [(finding, "made again from the records")]
    assert catalog.objects.path(version.manifest).read_bytes() == before
    assert verify(catalog) == []


@pytest.mark.parametrize("state", ["damaged", "missing"])
def test_a_bad_consolidated_table_is_made_again_from_the_artifacts(
    catalog: Catalog, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogs.consolidation import consolidate

    monkeypatch.setattr("catalogs.consolidation.WORTH_IT", 1)
    digests = {f"clip{number}/figures": make(catalog, str(number), number).outputs[0].digest for number in range(3)}
    version = publish(catalog, "nightly", {}, digests, {})
    if catalog.log.note("tables", version.reference) is None:
        catalog.note(Note("tables", version.reference, {"tables": consolidate(catalog, version.artifacts)}))
    note = catalog.log.note("tables", version.reference)
    assert note is not None
    (sha256,) = note.body["tables"]["metrics"]
    flip_a_bit(catalog.objects.path(sha256))
    if state == "missing":
        catalog.objects.discard([sha256])
    finding = only(verify(catalog))
    assert (finding.kind, finding.name, finding.of) == ("table", sha256, "table metrics of nightly@1")
    assert heal(catalog) == [(finding, "made again from the artifacts")]
    assert verify(catalog) == []
    assert catalog.sql("SELECT count(*) AS n FROM metrics").to_pylist() == [{"n": 60}]


@pytest.mark.parametrize("state", ["damaged", "missing"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_bad_record_file_is_named_and_written_again(catalog: Catalog, merged: bool, state: str) -> None:
    for number in range(3):
        make(catalog, str(number), number)
    failed = run_of(key_of("failed"), "toy.make", (), status="error", error_type="E", error_message="no")
    catalog.record(failed)  # an error is in no index
    if merged:
        catalog.log.compact(minimum=1)
    rows = catalog.sql("SELECT * FROM executions").to_pylist()
    path = catalog.log.files()[-1]
    flip_a_bit(path, 0.3)
    if state == "missing":
        path.unlink()
    finding = only(verify(catalog))
    assert (finding.kind, finding.state) == ("record file", state)
    assert finding.name == path.relative_to(catalog.home).as_posix()
    assert heal(catalog) == [(finding, "written again from the log")]
    assert verify(catalog) == []
    assert catalog.sql("SELECT * FROM executions").to_pylist() == rows


@pytest.mark.parametrize("place", [0.0001, 0.35, 0.6, 0.9])
def test_a_flipped_byte_in_the_log_is_found_wherever_it_matters_and_repair_makes_it_again(catalog: Catalog, place: float) -> None:
    for number in range(20):
        make(catalog, str(number), number)
    publish(catalog, "nightly", {}, {"figures": catalog.find(key_of("3")).outputs[0].digest}, {})  # type: ignore[union-attr]
    path = catalog.home / "catalog.sqlite"
    catalog.log.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    before = catalog.sql("SELECT * FROM executions ORDER BY key").to_pylist()
    home = catalog.home
    data = bytearray(path.read_bytes())
    position = next(i for i in range(int(len(data) * place), len(data)) if data[i : i + 1].isalnum())
    data[position] ^= 1
    path.write_bytes(data)
    try:
        finding = only(verify(Catalog.open(home)))
        assert (finding.kind, finding.name, finding.state) == ("log", str(path), "damaged")
    except WorldlineError as error:
        assert str(path) in str(error)  # noqa: PT017  (so damaged that it cannot be opened)
    (done, *_) = repair(home)
    assert str(path) in done
    healed = Catalog.open(home)
    assert verify(healed) == []
    assert healed.sql("SELECT * FROM executions ORDER BY key").to_pylist() == before


def test_a_damaged_report_is_given_out_again(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>it went well</p>" * 100)
    ref = put(catalog, Report(Files({"report.html": tmp_path / "report.html"})))
    catalog.record(run_of(key_of("report"), "toy.report", (ref,)))
    publish(catalog, "nightly", {}, {"a-clip/report": ref.digest}, {})
    shown = catalog.home / "reports" / "nightly-1-a-clip.html"
    shown.parent.mkdir(exist_ok=True)
    catalog.objects.give(ref.parts["files/report.html"], shown)
    assert verify(catalog) == []
    text = shown.read_text()
    shown.unlink()
    shown.write_text(text)  # a copy, as another disk would have it
    flip_a_bit(shown)
    finding = only(verify(catalog))
    assert (finding.kind, finding.name, finding.of) == ("report", "reports/nightly-1-a-clip.html", "of nightly@1")
    assert heal(catalog) == [(finding, "given out again")]
    assert shown.read_text() == text
    shown.unlink()  # by a person, who may
    assert verify(catalog) == []


def test_verify_of_a_dataset_looks_at_what_it_came_from_and_nothing_else(catalog: Catalog) -> None:
    first = make(catalog, "a", 1)
    second = make(catalog, "b", 2, {"figures": first.outputs[0].digest})
    other = make(catalog, "c", 3)
    publish(catalog, "nightly", {}, {"figures": second.outputs[0].digest}, {})
    flip_a_bit(object_path(catalog, other))
    assert verify(catalog, "nightly") == []
    flip_a_bit(object_path(catalog, first))
    assert bad(catalog, "nightly@1") == [(first.outputs[0].parts["figures.parquet"], "damaged")]
    assert len(verify(catalog)) == 2


def test_a_finding_reads_as_a_sentence(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    flip_a_bit(object_path(catalog, execution))
    sha256, digest = execution.outputs[0].parts["figures.parquet"], execution.outputs[0].digest
    assert str(only(verify(catalog))) == (
        f"artifact {sha256} (figures.parquet of Metrics {digest[:12]}) is damaged: `worldline repair` removes it, then build "
        "again: toy.make makes it"
    )


# -- gc ----------------------------------------------------------------------------------------------------------------


def test_gc_removes_only_what_nothing_refers_to_and_nobody_touched_lately(catalog: Catalog) -> None:
    kept = make(catalog, "a", 1)
    publish(catalog, "nightly", {}, {"figures": kept.outputs[0].digest}, {})
    orphan = put(catalog, figures(2))  # shares its meta.json with the kept one
    lost = orphan.parts["figures.parquet"]
    assert collect_garbage(catalog, dry_run=False).garbage == ()
    found = collect_garbage(catalog, grace_seconds=-1.0)
    assert found.garbage == (Garbage("object", lost, catalog.objects.size(lost) or 0, "nothing recorded refers to it"),)
    assert catalog.objects.exists(lost)
    assert collect_garbage(catalog, dry_run=False, grace_seconds=-1.0) == found
    assert not catalog.objects.exists(lost)
    assert catalog.find(kept.key) == kept
    assert verify(catalog) == []
    with pytest.raises(ValueError, match="put Metrics"):
        catalog.record(run_of(key_of("b"), "toy.make", (orphan,)))


def test_putting_again_protects_an_old_object_from_gc(catalog: Catalog) -> None:
    ref = put(catalog, figures(1))
    for name in ref.parts.values():
        os.utime(catalog.objects.path(name), (0, 0))
    assert len(collect_garbage(catalog).garbage) == 2
    put(catalog, catalog.load(ref.digest))
    assert collect_garbage(catalog).garbage == ()


def test_gc_keeps_all_that_living_versions_came_from_and_what_was_recorded_lately(catalog: Catalog) -> None:
    with days_ago(catalog, 30):
        source = catalog.adopt(put(catalog, figures(10)))
        first = make(catalog, "first", 1, {"source": source.digest})
        second = make(catalog, "second", 2, {"figures": first.outputs[0].digest})
        publish(catalog, "nightly", {}, {"figures": second.outputs[0].digest}, {})
        base = make(catalog, "base", 3)  # in no version, but something made lately came from it
        stale = make(catalog, "stale", 4, {"source": source.digest})
        unused = catalog.adopt(put(catalog, figures(11)))
    recent = make(catalog, "recent", 5, {"figures": base.outputs[0].digest})
    brought = catalog.adopt(put(catalog, figures(12)))
    found = collect_garbage(catalog, dry_run=False)
    assert not found.building
    assert gone(found, "execution") == {stale.key}
    assert gone(found, "source") == {unused.digest}
    assert gone(found, "object") == {stale.outputs[0].parts["figures.parquet"], unused.parts["figures.parquet"]}
    assert {item.reason for item in found.garbage} == {"of no version, past the grace period"}
    for kept in (first, second, base, recent):
        assert catalog.find(kept.key) == kept
    assert catalog.whole(source)
    assert catalog.whole(brought)
    assert catalog.log.execution(stale.key) is None
    assert catalog.log.artifact(unused.digest) is None
    assert verify(catalog) == []
    assert collect_garbage(catalog).garbage == ()
    assert make(catalog, "stale", 4, {"source": source.digest}) == stale  # and can be recorded again


def test_gc_takes_a_deleted_version_with_its_report_but_not_what_others_use(catalog: Catalog) -> None:
    with days_ago(catalog, 30):
        shared, own = make(catalog, "shared", 1), make(catalog, "own", 2)
        publish(catalog, "kept", {}, {"figures": shared.outputs[0].digest}, {})
        digests = {"shared": shared.outputs[0].digest, "own": own.outputs[0].digest}
        version = publish(catalog, "old", {}, digests, {})
    reports = catalog.home / "reports"
    reports.mkdir(exist_ok=True)
    for name in ("old-1.html", "kept-1.html", "old-10.html"):
        (reports / name).write_text(name)
    assert collect_garbage(catalog).garbage == ()
    delete(catalog, "old@1", "made by mistake", "me")
    found = collect_garbage(catalog, dry_run=False)
    assert gone(found, "execution") == {own.key}
    assert gone(found, "object") == {own.outputs[0].parts["figures.parquet"], version.manifest}
    assert gone(found, "report") == {"reports/old-1.html"}
    assert [item.reason for item in found.garbage if item.kind == "execution"] == ["of the deleted version old@1"]
    assert sorted(path.name for path in reports.iterdir()) == ["kept-1.html", "old-10.html"]
    assert catalog.find(shared.key) == shared
    assert verify(catalog) == []


def test_gc_takes_checkpoints_that_nobody_went_on_from(catalog: Catalog, processes: ForkServerContext) -> None:
    for name in ("abandoned", "young"):
        folder = catalog.home / "checkpoints" / key_of(name)
        folder.mkdir()
        (folder / "state").write_bytes(b"x" * 1000)
    old = catalog.home / "checkpoints" / key_of("abandoned")
    for path in (old / "state", old):
        os.utime(path, (0, 0))
    found = collect_garbage(catalog, dry_run=False)
    assert [(item.kind, item.name, item.bytes) for item in found.garbage] == [("checkpoint", f"checkpoints/{old.name}", 1000)]
    assert [path.name for path in (catalog.home / "checkpoints").iterdir()] == [key_of("young")]


def hold_lease(home: Path, ready: Any, go_on: Any) -> None:
    """A build: it found `stale` up to date and will use it, and holds a put object that it has not recorded yet."""
    catalog = Catalog.open(home)
    with catalog.log.lease(exclusive=False):
        stale = catalog.find(key_of("stale"))
        assert stale is not None
        ref = put(catalog, figures(77))
        ready.put(ref.digest)
        go_on.get(timeout=60)
        catalog.record(run_of(key_of("next"), "toy.next", (ref,), {"figures": stale.outputs[0].digest}))


@pytest.mark.parametrize("grace_seconds", [GRACE_SECONDS, 0.0])
def test_gc_takes_nothing_that_a_running_build_needs_and_says_that_something_builds(
    catalog: Catalog, processes: ForkServerContext, grace_seconds: float
) -> None:
    with days_ago(catalog, 30):
        stale = make(catalog, "stale", 4)
        orphan = put(catalog, figures(5)).parts["figures.parquet"]
    ready, go_on = processes.Queue(), processes.Queue()
    worker = processes.Process(target=hold_lease, args=(catalog.home, ready, go_on))
    worker.start()
    ready.get(timeout=60)
    found = collect_garbage(catalog, dry_run=False, grace_seconds=grace_seconds)
    assert found.building
    assert [(item.kind, item.name) for item in found.garbage] == [("object", orphan)]
    assert not catalog.objects.exists(orphan)
    go_on.put(True)
    worker.join(60)
    assert worker.exitcode == 0
    for key in ("stale", "next"):
        assert catalog.find(key_of(key)) is not None
    assert verify(catalog) == []
    assert collect_garbage(catalog).garbage == ()  # `next` is recent and came from `stale`
    assert catalog.find(stale.key) == stale


def test_a_put_between_the_look_and_the_removal_saves_an_object(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    with days_ago(catalog, 30):
        ref = put(catalog, figures(5))
    remove = catalog.store.remove

    def put_first(*arguments: Any, **options: Any) -> None:
        put(catalog, figures(5))
        remove(*arguments, **options)

    monkeypatch.setattr(catalog.store, "remove", put_first)
    assert len(collect_garbage(catalog, dry_run=False).garbage) == 2
    assert catalog.whole(ref)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_removing(call: int, every: int) -> Callable[[Catalog], None]:
    """Die at the n-th removal of objects (first those that no record names, then those forgotten), after every n-th of them."""

    def arm(catalog: Catalog) -> None:
        remove, calls = catalog.store.remove, itertools.count(1)

        def remove_some(names: Any, **options: Any) -> None:
            if next(calls) == call:
                remove(list(names)[::every] if every else [], **options)
                die()
            remove(names, **options)

        catalog.store.remove = remove_some  # type: ignore[method-assign]

    return arm


GC_POINTS: dict[str, Callable[[Catalog], None]] = {
    "decided, nothing removed": die_while_removing(call=1, every=0),
    "half of the unrecorded objects removed": die_while_removing(call=1, every=2),
    "unrecorded objects removed, nothing recorded": lambda _: setattr(catalogs.garbage, "_removal", die),
    "recorded, no forgotten object removed": die_while_removing(call=2, every=0),
    "half of the forgotten objects removed": die_while_removing(call=2, every=2),
    "objects removed, no other file": lambda _: setattr(catalogs.garbage, "_remove_files", die),
    "all removed, nothing merged": lambda _: setattr(catalogs.log.CommitLog, "compact", die),
}


def collect_and_die(home: Path, point: str) -> None:
    catalog = Catalog.open(home)
    GC_POINTS[point](catalog)
    collect_garbage(catalog, dry_run=False)


@pytest.mark.parametrize("point", GC_POINTS)
def test_gc_killed_at_any_point_leaves_a_whole_workspace_and_the_next_one_finishes(
    point: str, catalog: Catalog, processes: ForkServerContext
) -> None:
    with days_ago(catalog, 30):
        kept = make(catalog, "kept", 1)
        publish(catalog, "nightly", {}, {"figures": kept.outputs[0].digest}, {})
        stale = [make(catalog, f"stale {number}", 10 + number) for number in range(4)]
        put(catalog, figures(99))
    worker = processes.Process(target=collect_and_die, args=(catalog.home, point))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    catalog = Catalog.open(catalog.home)
    assert verify(catalog) == []
    assert catalog.find(kept.key) == kept
    forgotten = list(GC_POINTS).index(point) > 2
    assert all((catalog.find(execution.key) is None) == forgotten for execution in stale)
    collect_garbage(catalog, dry_run=False)
    assert verify(catalog) == []
    assert len(list(catalog.objects.all())) == 3  # meta.json, figures.parquet and the manifest
    for number, execution in enumerate(stale):
        assert make(catalog, f"stale {number}", 10 + number) == execution


def test_gc_finishes_before_it_forgets_anything_where_a_record_file_is_damaged(catalog: Catalog) -> None:
    with days_ago(catalog, 30):
        stale = make(catalog, "stale", 1)
    catalog.log.files()[0].chmod(0o644)
    catalog.log.files()[0].write_bytes(b"not Parquet")
    with pytest.raises(WorldlineError, match="nothing was removed: tables/commits"):
        collect_garbage(catalog, dry_run=False)
    assert catalog.find(stale.key) == stale


# -- a remote store ----------------------------------------------------------------------------------------------------

remote = pytest.mark.parametrize("home", ["postgres+s3"], indirect=True)


def flip_remotely(catalog: Catalog, sha256: str) -> None:
    """Change one bit of the stored bytes behind the store's back."""
    name = f"objects/{sha256[:2]}/{sha256[2:]}"
    data = bytearray(b"".join(catalog.store.blocks(name)))
    data[len(data) // 2] ^= 1
    obstore.put(catalog.store._client, name, bytes(data))  # type: ignore[attr-defined]


def without_copies(catalog: Catalog) -> None:
    for path in catalog.objects.folder.glob("*/*"):
        path.unlink()


@remote
def test_a_lost_remote_object_is_made_again_by_the_next_build(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    sha256 = execution.outputs[0].parts["figures.parquet"]
    settings = (catalog.home / "worldline.toml").read_text()
    (catalog.home.with_name("other host")).mkdir()
    (catalog.home.with_name("other host") / "worldline.toml").write_text(settings)
    other = Catalog.open(catalog.home.with_name("other host"))  # it looked before the object was lost
    assert other.find(execution.key) == execution
    catalog.objects.discard([sha256])
    assert bad(catalog) == [(sha256, "missing")]
    with pytest.raises(WorldlineError, match="lost its part"):
        other.load(execution.outputs[0].digest)
    for host in (catalog, other):
        assert host.find(execution.key) is None
    assert make(other, "a", 1) == execution
    assert other.find(execution.key) == execution
    assert verify(catalog) == []


@remote
def test_a_damaged_remote_object_is_uploaded_again_from_a_good_copy_else_built_again(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    sha256 = execution.outputs[0].parts["figures.parquet"]
    flip_remotely(catalog, sha256)
    finding = only(verify(catalog))
    assert (finding.name, finding.state) == (sha256, "damaged")
    assert heal(catalog) == [(finding, "uploaded again from the copy on this machine")]
    assert verify(catalog) == []
    flip_remotely(catalog, sha256)
    without_copies(catalog)
    with pytest.raises(WorldlineError, match=f"{sha256} .* is damaged"):
        catalog.load(execution.outputs[0].digest)
    assert [done for _, done in heal(catalog)] == ["removed: build again: toy.make makes it"]
    assert make(catalog, "a", 1) == execution
    assert verify(catalog) == []


@remote
def test_a_damaged_copy_of_a_remote_object_is_found_and_removed(catalog: Catalog) -> None:
    execution = make(catalog, "a", 1)
    flip_a_bit(object_path(catalog, execution))
    finding = only(verify(catalog))
    assert (finding.kind, finding.state) == ("copy", "damaged")
    heal(catalog)
    assert verify(catalog) == []
    assert catalog.load(execution.outputs[0].digest) is not None


@remote
def test_a_damaged_remote_record_file_is_written_again(catalog: Catalog) -> None:
    make(catalog, "a", 1)
    rows = catalog.sql("SELECT * FROM executions").to_pylist()
    (path,) = catalog.log.files()
    name = path.relative_to(catalog.store.folder).as_posix()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    obstore.put(catalog.store._client, name, bytes(data))  # type: ignore[attr-defined]
    finding = only(verify(catalog))
    assert (finding.kind, finding.name) == ("record file", name)
    assert heal(catalog) == [(finding, "written again from the log")]
    assert verify(catalog) == []
    assert catalog.sql("SELECT * FROM executions").to_pylist() == rows


@remote
def test_gc_in_a_remote_store_takes_what_nothing_needs_and_nothing_while_something_builds(catalog: Catalog) -> None:
    kept, stale = make(catalog, "kept", 1), make(catalog, "stale", 2)
    publish(catalog, "nightly", {}, {"figures": kept.outputs[0].digest}, {})
    with catalog.log.lease(exclusive=False):
        found = collect_garbage(catalog, dry_run=False, grace_seconds=-5.0)  # the server's clock counts whole seconds
        assert found.building
        assert found.garbage == ()
    found = collect_garbage(catalog, dry_run=False, grace_seconds=-5.0)
    assert gone(found, "execution") == {stale.key}
    assert gone(found, "object") == {stale.outputs[0].parts["figures.parquet"]}
    assert catalog.find(kept.key) == kept
    assert verify(catalog) == []
