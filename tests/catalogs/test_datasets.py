"""A dataset version is read by role, by clip and by table; what was removed is skipped and told."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from catalog_workers import figures, key_of, put, run_of
from clips_of_versions import publish_clips

from catalogs.catalog import Catalog
from catalogs.records import Note
from catalogs.versions import publish
from schemas.clips import Clip
from schemas.errors import WorldlineError

LENGTHS = {"avenue": 9, "bridge": 5, "corner": 7}


@pytest.fixture
def made(catalog: Catalog) -> dict[str, dict[str, Any]]:
    return publish_clips(catalog, LENGTHS)


def test_clips_are_found_by_name_with_their_artifacts_and_split(catalog: Catalog, made: Any) -> None:
    dataset = catalog.dataset("streets@1")
    assert list(dataset.clips) == ["avenue", "bridge", "corner"]
    assert {name: clip.split for name, clip in dataset.clips.items()} == dataset.splits
    bridge = dataset.clips["bridge"]
    assert {role: ref.digest for role, ref in bridge.artifacts.items()} == {
        role.removeprefix("bridge/"): digest for role, digest in dataset.artifacts.items() if role.startswith("bridge/")
    }
    assert bridge.of_kind("Clip")["clip"].facts["frames"] == 5


def test_a_version_of_one_clip_has_a_clip_without_a_name(catalog: Catalog) -> None:
    publish_clips(catalog, {"": 4}, name="single")
    dataset = catalog.dataset("single")
    assert sorted(dataset.clips[""].artifacts) == ["clip", "kinematics", "path", "questions", "tracks"]
    assert dataset.load("clip").kind == "Clip"


def test_an_artifact_is_loaded_by_its_role(catalog: Catalog, made: Any) -> None:
    clip = catalog.dataset("streets").load("corner/clip")
    assert isinstance(clip, Clip)
    assert clip.name == "clip 2"
    assert np.array_equal(clip.frames.array(), made["corner"]["clip"].frames.array())


def test_a_role_that_is_not_there_names_the_nearest(catalog: Catalog, made: Any) -> None:
    with pytest.raises(WorldlineError, match=r"streets@1 has no artifact corner/clop: there is corner/clip"):
        catalog.dataset("streets").load("corner/clop")


def test_a_table_holds_the_rows_of_this_version_alone(catalog: Catalog, made: Any) -> None:
    publish_clips(catalog, {"dam": 8}, name="other")
    labels = catalog.dataset("streets").table("labels")
    expected = pa.concat_tables([artifacts["questions"].rows for artifacts in made.values()])
    assert sorted(labels["question_id"].to_pylist()) == sorted(expected["question_id"].to_pylist())
    assert labels.schema.names == [*expected.schema.names, "artifact"]


def test_a_label_that_people_rejected_is_not_in_the_table(catalog: Catalog, made: Any) -> None:
    question = made["bridge"]["questions"].rows["question_id"][0].as_py()
    catalog.note(Note("review", question, {"verdict": "reject"}, author="reader"))
    before = catalog.dataset("streets").table("labels")
    publish_clips(catalog, LENGTHS)
    after = catalog.dataset("streets@2").table("labels")
    assert set(before["question_id"].to_pylist()) - set(after["question_id"].to_pylist()) == {question}
    assert len(after) == len(before) - 1


def test_a_table_that_is_not_there_is_named(catalog: Catalog, made: Any) -> None:
    with pytest.raises(WorldlineError, match=r"streets@1 has no table speeds: there is labels, "):
        catalog.dataset("streets").table("speeds")


def test_what_was_removed_is_skipped_and_told(catalog: Catalog, made: Any) -> None:
    gone = {role: digest for role, digest in catalog.dataset("streets").artifacts.items() if role.startswith("bridge/")}
    catalog.note(Note("removal", "takedown 1", {"digests": sorted(gone.values()), "keys": []}, reason="the owner asked"))
    dataset = catalog.dataset("streets@1")
    assert dataset.missing == dict.fromkeys(gone, "removed (the owner asked)")
    assert list(dataset.clips) == ["avenue", "corner"]
    assert "5 missing: bridge/clip" in repr(dataset)
    with pytest.raises(
        WorldlineError, match=r"bridge/clip of streets@1 is not there any more: it was removed \(the owner asked\)"
    ):
        dataset.load("bridge/clip")


def test_a_version_prints_as_what_it_holds(catalog: Catalog, made: Any) -> None:
    ref = put(catalog, figures(1))
    catalog.record(run_of(key_of("figures"), "toy.figures", (ref,)))
    publish(catalog, "figures", {}, {"figures": ref.digest}, {})
    assert repr(catalog.dataset("figures")).startswith("figures@1: 1 artifact, published 20")
    splits = list(catalog.dataset("streets").splits.values())
    shares = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "test") if name in splits)
    assert repr(catalog.dataset("streets")).startswith(f"streets@1: 3 clips ({shares}), 15 artifacts, published 20")
