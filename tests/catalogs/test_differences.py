"""What differs between two versions, and what explains it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from catalog_workers import key_of, put, run_of
from test_gates import metrics, questions

from catalogs.catalog import Catalog, Note
from catalogs.differences import Change, FigureChange, LabelChange, difference
from catalogs.versions import publish
from schemas.artifact import Files
from schemas.canonical import leaves
from schemas.clips import Source
from schemas.errors import WorldlineError


def made(catalog: Catalog, stage: str, artifact: Any, inputs: dict[str, str] | None = None, **execution: Any) -> str:
    ref = put(catalog, artifact)
    key = key_of(f"{stage}/{ref.digest}/{inputs}/{execution}")
    return catalog.record(run_of(key, stage, (ref,), inputs, **execution)).outputs[0].digest


def published(catalog: Catalog, recipe: Mapping[str, Any], artifacts: Mapping[str, str], name: str = "streets") -> str:
    return publish(catalog, name, dict(recipe), dict(artifacts), {}).reference


def test_a_version_does_not_differ_from_itself(catalog: Catalog) -> None:
    published(catalog, {"seed": 0}, {"labels": made(catalog, "toy.q", questions(["left"] * 3))})
    found = difference(catalog, "streets", "streets@1")
    assert [role.change for role in found.roles] == ["same"]
    assert found.label_distance == 0
    assert {(count, other) for count, other in found.rows.values()} == {(3, 3), (0, 0)}
    lists = ("settings", "sources", "stages", "code_files", "packages", "splits", "rejected")
    assert all(getattr(found, name) == () for name in lists)


def test_roles_are_the_same_different_or_in_one_version_only(catalog: Catalog) -> None:
    digests = [made(catalog, "toy.q", questions(["left"] * count)) for count in range(1, 5)]
    published(catalog, {"build": 1}, {"kept": digests[0], "changed": digests[1], "gone": digests[2]})
    published(catalog, {"build": 2}, {"kept": digests[0], "changed": digests[2], "new": digests[3]})
    found = difference(catalog, "streets@1", "streets@2")
    assert {role.role: (role.change, role.kind, role.a, role.b) for role in found.roles} == {
        "kept": ("same", "Questions", digests[0], digests[0]),
        "changed": ("different", "Questions", digests[1], digests[2]),
        "gone": ("only in a", "Questions", digests[2], None),
        "new": ("only in b", "Questions", None, digests[3]),
    }
    assert (found.a, found.b) == ("streets@1", "streets@2")


def test_rows_labels_and_figures_are_counted_in_both(catalog: Catalog) -> None:
    def roles(answers: list[str], **figures: float) -> dict[str, str]:
        return {"labels": made(catalog, "toy.q", questions(answers)), "m": made(catalog, "toy.m", metrics(**figures))}

    published(catalog, {"build": 1}, roles(["left"] * 6 + ["right"] * 2, a=1.0, b=2.0))
    published(catalog, {"build": 2}, roles(["left"] * 3 + ["back"] * 3, a=1.5, c=3.0))
    found = difference(catalog, "streets@1", "streets@2")
    assert found.rows["labels"] == (8, 6)
    assert found.rows["metrics"] == (2, 2)
    assert found.labels == (
        LabelChange("turn", "back", 0, 3),
        LabelChange("turn", "left", 6, 3),
        LabelChange("turn", "right", 2, 0),
    )
    assert found.label_distance == pytest.approx(0.5)  # shares 0.75, 0.25, 0 against 0.5, 0, 0.5
    assert found.figures == (
        FigureChange("a", "m", 1.0, 1.5), FigureChange("b", "m", 2.0, None), FigureChange("c", "m", None, 3.0)
    )  # fmt: skip


def test_the_settings_that_explain_it_are_named_leaf_by_leaf(catalog: Catalog) -> None:
    digest = made(catalog, "toy.q", questions(["left"]))
    before = {"seed": 0, "pose": {"colmap": {"features": 800, "mask": None}}, "sources": ["a.mp4"]}
    after = {"seed": 0, "pose": {"colmap": {"features": 1200}}, "sources": ["a.mp4", "b.mp4"], "gate": {"min_clips": 2}}
    published(catalog, before, {"labels": digest})
    published(catalog, after, {"labels": digest})
    assert difference(catalog, "streets@1", "streets@2").settings == (
        Change("gate.min_clips", None, "2"),
        Change("pose.colmap.features", "800", "1200"),
        Change("pose.colmap.mask", "null", None),
        Change("sources", '["a.mp4"]', '["a.mp4","b.mp4"]'),
    )


@pytest.mark.both_dialects
def test_stages_code_and_packages_that_differ_are_named_and_equal_ones_are_not(catalog: Catalog) -> None:
    code = {"stages/toy.py": "f1", "worldline/cameras.py": "e1"}
    clip = made(catalog, "ingest.toy", metrics(a=1.0), code_files={"stages/ingest.py": "d1"}, packages={"av": "18"})
    same = {"code": "c1", "code_files": code, "packages": {"numpy": "2.0", "av": "18"}}
    before = made(catalog, "toy.q", questions(["left"]), {"clip": clip}, **same)
    newer = {"version": 2, "code": "c2", "code_files": code | {"stages/toy.py": "f2"}, "packages": {"numpy": "2.1", "av": "18"}}
    after = made(catalog, "toy.q", questions(["right"]), {"clip": clip}, **newer)
    added = made(catalog, "toy.new", metrics(b=1.0), {"clip": clip}, packages={"scipy": "1"}, code_files={"stages/new.py": "a"})
    published(catalog, {"build": 1}, {"labels": before})
    published(catalog, {"build": 2}, {"labels": after, "new": added})
    found = difference(catalog, "streets@1", "streets@2")
    assert found.stages == (
        Change("toy.new", None, "version 1, code c0de"),
        Change("toy.q", "version 1, code c1", "version 2, code c2"),
    )
    assert found.code_files == (Change("stages/toy.py", "f1", "f2"),)
    assert found.packages == (Change("numpy", "2.0", "2.1"),)


@pytest.mark.both_dialects
def test_sources_splits_and_rejections_that_differ_are_named(catalog: Catalog, tmp_path: Path) -> None:
    sources = []
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(name.encode())
        sources.append(catalog.adopt(put(catalog, Source(Files({name: tmp_path / name}), "video", name))).digest)
    roles = {f"{name}/labels": made(catalog, "toy.q", questions(["left"], offset=index), {"source": sources[index]})
             for index, name in enumerate("ab")}  # fmt: skip
    published(catalog, {}, {"a/labels": roles["a/labels"]})
    rejected = questions(["left"], offset=1).rows.column("question_id").to_pylist()[0]
    catalog.note(Note("review", rejected, {"verdict": "reject"}))
    published(catalog, {}, roles)
    found = difference(catalog, "streets@1", "streets@2")
    assert found.sources == (Change(sources[1], None, "b.mp4"),)
    assert [(change.name, change.a) for change in found.splits] == [("b", None)]
    assert found.rejected == (Change(rejected, None, "rejected"),)
    assert found.rows["labels"] == (1, 1)  # the rejected one does not count


def test_versions_of_two_datasets_can_be_compared_by_tag_or_latest(catalog: Catalog) -> None:
    digest = made(catalog, "toy.q", questions(["left"]))
    published(catalog, {"seed": 0}, {"labels": digest})
    published(catalog, {"seed": 1}, {"labels": digest}, name="roads")
    catalog.note(Note("tag", "roads@golden", {"version": 1}))
    found = difference(catalog, "streets", "roads@golden")
    assert (found.a, found.b, found.settings) == ("streets@1", "roads@1", (Change("seed", "0", "1"),))
    with pytest.raises(WorldlineError, match="no dataset nothing"):
        difference(catalog, "streets", "nothing")


def test_a_difference_is_plain_data(catalog: Catalog) -> None:
    published(catalog, {"seed": 0}, {"labels": made(catalog, "toy.q", questions(["left"]))})
    found = dataclasses.asdict(difference(catalog, "streets", "streets"))
    assert found["roles"][0]["change"] == "same"


def test_leaves_are_named_by_their_path() -> None:
    assert leaves({"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": {}}) == {"a.b": 1, "a.c.d": [1, {"e": 2}]}
