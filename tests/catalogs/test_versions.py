"""Dataset versions: published once by whoever comes first, named, tagged, deleted, and never numbered twice."""

import os
import signal
import threading
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from catalog_workers import figures, figures_digest, key_of, make, publish_one, put, run_of

from catalogs import versions
from catalogs.catalog import Catalog, Note
from catalogs.garbage import collect_garbage
from catalogs.upkeep import verify
from catalogs.versions import delete, latest, publish, resolve, tag, untag
from schemas.artifact import make_table
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions


def published(catalog: Catalog, name: str = "streets", count: int = 1) -> None:
    for index in range(count):
        digest = make(catalog, f"{name}/{index}", seed=index).outputs[0].digest
        publish(catalog, name, {"build": index}, {"figures": digest}, {})


def questions(*ids: str) -> Questions:
    columns: dict[str, list[object]] = {name: [None] * len(ids) for name in QUESTIONS.names}
    columns |= {"question_id": list(ids), "kind": ["turn"] * len(ids), "answer": ["left"] * len(ids)}
    return Questions(make_table(QUESTIONS, columns), REJECTIONS.empty_table())


def reject(catalog: Catalog, subject: str, verdict: str = "reject") -> None:
    catalog.note(Note("review", subject, {"verdict": verdict}, reason="blurred", author="ada"))


# -- create if absent -----------------------------------------------------------------------------------------------------


def test_the_same_recipe_and_artifacts_are_the_same_version_and_a_change_is_the_next(catalog: Catalog) -> None:
    digest = make(catalog, "a", 1).outputs[0].digest
    first = publish(catalog, "streets", {"rate": 1}, {"figures": digest}, {"numpy": "2.0"})
    assert publish(catalog, "streets", {"rate": 1}, {"figures": digest}, {"numpy": "2.1"}) == first
    assert publish(catalog, "streets", {"rate": 2}, {"figures": digest}, {}).version == 2
    assert publish(catalog, "streets", {"rate": 1}, {"figures": digest}, {}).version == 3


@pytest.mark.both_dialects
def test_threads_that_publish_at_once_get_numbers_of_their_own(catalog: Catalog) -> None:
    digest = make(catalog, "a", 1).outputs[0].digest
    got: list[int] = []

    def work(worker: int) -> None:
        for index in range(3):
            got.append(publish(catalog, "raced", {"by": worker, "build": index}, {"figures": digest}, {}).version)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 13))
    assert sorted(item.recipe["build"] for item in catalog.datasets()) == sorted(list(range(3)) * 4)


@pytest.mark.both_dialects
def test_processes_that_publish_the_same_at_once_get_one_version(catalog: Catalog, processes: ForkServerContext) -> None:
    make(catalog, "base", 1)
    results = processes.Queue()
    workers = [processes.Process(target=publish_one, args=(catalog.home, recipe, results)) for recipe in (1, 2, 1, 2)]
    for worker in workers:
        worker.start()
    got = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    held = {item.version: item.manifest for item in catalog.datasets()}
    assert set(got) == set(held.items())
    assert sorted(held) == list(range(1, len(held) + 1))


@pytest.mark.both_dialects
def test_a_publisher_that_was_overtaken_takes_the_next_number(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = make(catalog, "a", 1).outputs[0].digest
    draft, overtaken = versions._draft, []

    def slow(*arguments: object) -> object:
        result = draft(*arguments)  # type: ignore[arg-type]
        if not overtaken:
            overtaken.append(True)
            publish(Catalog.open(catalog.home), "streets", {"by": "the faster one"}, {"figures": digest}, {})
        return result

    monkeypatch.setattr(versions, "_draft", slow)
    assert publish(catalog, "streets", {"by": "the slower one"}, {"figures": digest}, {}).version == 2
    assert [item.recipe["by"] for item in catalog.datasets()] == ["the faster one", "the slower one"]


def publish_and_die(home: Path) -> None:
    catalog = Catalog.open(home)
    versions.dataset_row = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # everything is stored, nothing is recorded
    publish(catalog, "streets", {}, {"figures": figures_digest(catalog)}, {})


def test_a_publisher_that_dies_leaves_no_version_and_no_gap(catalog: Catalog, processes: ForkServerContext) -> None:
    make(catalog, "base", 1)
    worker = processes.Process(target=publish_and_die, args=(catalog.home,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert catalog.datasets() == []
    assert publish(catalog, "streets", {}, {"figures": figures_digest(catalog)}, {}).version == 1
    assert verify(catalog) == []


def test_publishing_names_what_is_missing_and_publishes_nothing(catalog: Catalog) -> None:
    whole, broken = make(catalog, "a", 1), make(catalog, "b", 2)
    unknown = put(catalog, figures(3)).digest
    roles = {f"clip{index}/tracks": unknown for index in range(5)} | {"labels": whole.outputs[0].digest}
    with pytest.raises(WorldlineError, match=r"its clip0/tracks .*, clip1/tracks .*, clip2/tracks .* and 2 more is not in the"):
        publish(catalog, "streets", {}, roles, {})
    catalog.objects.path(broken.outputs[0].parts["meta.json"]).unlink()
    with pytest.raises(WorldlineError, match=f"its path {broken.outputs[0].digest[:12]} has lost parts; build it again"):
        publish(catalog, "streets", {}, {"path": broken.outputs[0].digest}, {})
    assert catalog.datasets() == []


# -- names ----------------------------------------------------------------------------------------------------------------

BAD_NAMES = ["../up", "a/b", "", "it's", 'say "hi"', "🙂", "straße", ".hidden", "a b", "a\nb", "x" * 101, "-rf"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_dataset_name_is_refused_in_one_sentence(catalog: Catalog, name: str) -> None:
    digest = make(catalog, "a", 1).outputs[0].digest
    for refused in (lambda: publish(catalog, name, {}, {"figures": digest}, {}), lambda: catalog.dataset(f"{name}@1")):
        with pytest.raises(WorldlineError, match="cannot name a dataset: use up to 100 letters") as caught:
            refused()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250
    assert catalog.datasets() == []


@pytest.mark.parametrize("name", [*BAD_NAMES, "7", "v7", "V12", "latest", "a@b"])
def test_a_bad_tag_is_refused_in_one_sentence(catalog: Catalog, name: str) -> None:
    published(catalog)
    with pytest.raises(WorldlineError, match="cannot be a tag: use up to 100 letters") as caught:
        tag(catalog, "streets@1", name)
    assert "\n" not in str(caught.value)
    assert catalog.log.notes("tag") == []


@pytest.mark.both_dialects
def test_a_version_is_named_by_number_tag_or_as_the_latest(catalog: Catalog) -> None:
    published(catalog, count=3)
    tag(catalog, "streets@2", "golden")
    named = {reference: catalog.dataset(reference).version for reference in
             ("streets", "streets@latest", "streets@1", "streets@v2", "streets@V3", "streets@golden")}  # fmt: skip
    assert list(named.values()) == [3, 3, 1, 2, 3, 2]


def test_an_unknown_version_names_those_that_there_are(catalog: Catalog) -> None:
    with pytest.raises(WorldlineError, match="nothing has been published here yet"):
        catalog.dataset("streets")
    published(catalog, count=2)
    tag(catalog, "streets@1", "golden")
    for reference, message in {
        "stretes": "no dataset stretes in .*: there is streets",
        "streets@7": "streets has no version 7: it has 1 to 2 and the tags golden",
        "streets@gloden": "no version or tag gloden: it has 1 to 2 and the tags golden",
        "streets@@": "'@' cannot be a tag",
    }.items():
        with pytest.raises(WorldlineError, match=message):
            catalog.dataset(reference)


# -- tags -----------------------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_a_tag_moves_and_can_be_taken_away(catalog: Catalog) -> None:
    published(catalog, count=2)
    tag(catalog, "streets@1", "golden")
    tag(catalog, "streets@golden", "paper")
    assert tag(catalog, "streets", "golden").version == 2
    assert {item.version: item.tags for item in versions.standing(catalog.log)} == {1: ("paper",), 2: ("golden",)}
    assert untag(catalog, "streets@golden").version == 2
    with pytest.raises(WorldlineError, match="no version or tag golden"):
        catalog.dataset("streets@golden")
    with pytest.raises(WorldlineError, match="streets@2 is no tag"):
        untag(catalog, "streets@2")


def test_tags_of_one_dataset_do_not_name_versions_of_another(catalog: Catalog) -> None:
    published(catalog, "streets", 2)
    published(catalog, "roads", 2)
    tag(catalog, "streets@1", "golden")
    tag(catalog, "roads@2", "golden")
    assert catalog.dataset("streets@golden").reference == "streets@1"
    assert catalog.dataset("roads@golden").reference == "roads@2"


# -- deletion -------------------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_a_deleted_version_is_gone_and_its_number_is_never_given_again(catalog: Catalog) -> None:
    published(catalog, count=2)
    again = catalog.dataset("streets@2")
    delete(catalog, "streets@2", "wrong camera", "ada")
    assert [item.reference for item in catalog.datasets()] == ["streets@1"]
    assert catalog.dataset("streets").version == 1
    with pytest.raises(WorldlineError, match=r"streets@2 was deleted on \d{4}-\d\d-\d\d by ada \(wrong camera\)"):
        catalog.dataset("streets@2")
    assert publish(catalog, "streets", again.recipe, again.artifacts, {}).version == 3
    assert Catalog.open(catalog.home).dataset("streets").version == 3


def test_a_dataset_whose_versions_are_all_deleted_is_unknown_and_counts_on(catalog: Catalog) -> None:
    published(catalog)
    version = delete(catalog, "streets@1", "a test", "ada")
    with pytest.raises(WorldlineError, match="no dataset streets"):
        catalog.dataset("streets")
    assert publish(catalog, "streets", version.recipe, version.artifacts, {}).version == 2


def test_what_other_versions_use_outlives_a_deleted_version(catalog: Catalog) -> None:
    shared, own = (make(catalog, name, seed).outputs[0].digest for name, seed in (("shared", 1), ("own", 2)))
    publish(catalog, "streets", {}, {"a": shared, "b": own}, {})
    publish(catalog, "roads", {}, {"a": shared}, {})
    delete(catalog, "streets@1", "a test", "ada")
    collect_garbage(catalog, dry_run=False, grace_seconds=0.0)
    assert catalog.load(catalog.dataset("roads").artifacts["a"]) is not None
    with pytest.raises(WorldlineError, match="no artifact"):
        Catalog.open(catalog.home).load(own)
    assert verify(catalog) == []


@pytest.mark.both_dialects
def test_deleting_needs_a_number_a_reason_and_no_tag(catalog: Catalog) -> None:
    published(catalog, count=2)
    tag(catalog, "streets@1", "golden")
    for reference, reason, message in (
        ("streets", "old", "does not say which version to delete"),
        ("streets@golden", "old", "does not say which version to delete"),
        ("streets@2", "  ", "without a reason"),
        ("streets@1", "old", "streets@1 is tagged golden: remove the tag first"),
        ("streets@9", "old", "no version 9"),
    ):
        with pytest.raises(WorldlineError, match=message):
            delete(catalog, reference, reason, "ada")
    assert len(catalog.datasets()) == 2
    untag(catalog, "streets@golden")
    delete(catalog, "streets@1", "old", "ada")
    assert len(catalog.datasets()) == 1


# -- what people said -----------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_a_version_that_a_person_rejected_is_not_the_latest_until_it_is_accepted(catalog: Catalog) -> None:
    published(catalog, count=2)
    reject(catalog, "streets@2")
    assert catalog.dataset("streets").version == 1
    assert catalog.dataset("streets@2").held == "rejected by ada: blurred"
    assert latest(catalog.log) == {"streets": 1}
    reject(catalog, "streets@2", "accept")
    assert catalog.dataset("streets").version == 2


def test_a_dataset_with_held_versions_only_has_no_latest_and_says_why(catalog: Catalog) -> None:
    published(catalog)
    reject(catalog, "streets@1")
    with pytest.raises(WorldlineError, match="streets@1 is held because rejected by ada: blurred; read it as streets@1"):
        resolve(catalog.log, "streets")
    assert resolve(catalog.log, "streets@1").version == 1


def test_a_rejected_artifact_leaves_the_next_version_with_all_that_was_made_from_it(catalog: Catalog) -> None:
    tracks = make(catalog, "tracks", 1).outputs[0].digest
    labels = make(catalog, "labels", 2, {"tracks": tracks}).outputs[0].digest
    path = make(catalog, "path", 3).outputs[0].digest
    roles = {"tracks": tracks, "labels": labels, "path": path}
    assert publish(catalog, "streets", {}, roles, {}).rejected == ()
    reject(catalog, tracks)
    version = publish(catalog, "streets", {}, roles, {})
    assert (version.version, version.artifacts, version.rejected) == (2, {"path": path}, (tracks,))
    reject(catalog, path)
    with pytest.raises(WorldlineError, match=r"rejected everything in it \(3 artifacts\)"):
        publish(catalog, "streets", {}, roles, {})
    reject(catalog, path, "accept")
    reject(catalog, tracks, "accept")
    assert publish(catalog, "streets", {}, roles, {}).artifacts == roles


def test_a_rejected_clip_leaves_and_the_other_clips_and_their_common_report_stay(catalog: Catalog) -> None:
    clips = [make(catalog, f"clip{index}", index).outputs[0].digest for index in (0, 1)]
    labels = [make(catalog, f"labels{index}", 10 + index, {"clip": clips[index]}).outputs[0].digest for index in (0, 1)]
    rendered = make(catalog, "rendered", 15, {"clip": clips[0]}).outputs[0].digest
    report = make(catalog, "report", 20, {"a": labels[0], "b": labels[1]}).outputs[0].digest
    roles = {"a/clip": clips[0], "a/labels": labels[0], "b/clip": clips[1], "b/labels": labels[1]}
    roles |= {"c/clip": rendered, "report": report}
    reject(catalog, clips[0])
    version = publish(catalog, "streets", {}, roles, {})
    assert sorted(version.artifacts) == ["b/clip", "b/labels", "c/clip", "report"]
    assert version.rejected == (clips[0],)


@pytest.mark.both_dialects
def test_only_rejections_that_concern_a_version_make_a_new_one(catalog: Catalog) -> None:
    ref = catalog.record(run_of(key_of("q"), "toy.questions", (put(catalog, questions("a" * 20, "b" * 20)),))).outputs[0]
    first = publish(catalog, "streets", {}, {"questions": ref.digest}, {})
    reject(catalog, "c" * 20)
    reject(catalog, make(catalog, "other", 5).outputs[0].digest)
    assert publish(catalog, "streets", {}, {"questions": ref.digest}, {}) == first
    reject(catalog, "b" * 20)
    second = publish(catalog, "streets", {}, {"questions": ref.digest}, {})
    assert (second.version, second.rejected, second.artifacts) == (2, ("b" * 20,), first.artifacts)


def test_publishing_ten_times_more_artifacts_asks_the_log_hardly_more_often(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = catalog.adopt(put(catalog, figures(0, rows=1))).digest
    made = [make(catalog, f"clip{index}", index + 1, {"source": source}).outputs[0].digest for index in range(80)]
    asked: list[str] = []
    execute = catalog.log.database.execute
    monkeypatch.setattr(
        catalog.log.database, "execute", lambda sql, parameters=(): (asked.append(sql), execute(sql, parameters))[1]
    )
    publish(catalog, "few", {}, {f"clip{index}/figures": digest for index, digest in enumerate(made[:8])}, {})
    few = len(asked)
    asked.clear()
    publish(catalog, "many", {}, {f"clip{index}/figures": digest for index, digest in enumerate(made)}, {})
    assert few > 10
    assert len(asked) <= few + 15  # its tables are consolidated, which the few are not
