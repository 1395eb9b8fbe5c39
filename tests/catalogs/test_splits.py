"""Splits by source and by place: what belongs together stays together, and what is published stays where it is."""

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_workers import figures, key_of, put, run_of

from catalogs.catalog import Catalog, DatasetVersion, Note
from catalogs.splits import SplitRule, first_frame_hash, leaks, near_clips, on_the_globe
from catalogs.versions import publish
from schemas.artifact import Files, make_table
from schemas.clips import GPS_FIXES, Clip, Source
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.reports import Metrics

_NUMBERS = itertools.count()


def video(catalog: Catalog, folder: Path, name: str) -> str:
    path = folder / name
    path.write_bytes(name.encode())
    return catalog.adopt(put(catalog, Source(Files({name: path}), "video", name))).digest


def clip_of_source(
    catalog: Catalog, inputs: dict[str, str], gps: tuple[float, float] | None = None, stage: str = "ingest.toy", **execution: Any
) -> str:
    number = next(_NUMBERS)
    frames = np.random.default_rng(number).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    fixes = None
    if gps is not None:
        columns = {"time_s": [0.0, 1.0], "latitude_deg": [gps[0]] * 2, "longitude_deg": [gps[1]] * 2}
        fixes = make_table(GPS_FIXES, {**columns, "altitude_m": [0.0] * 2, "speed_mps": [None] * 2})
    clip = Clip(Video.from_array(frames), np.array([0.0, 0.5]), f"clip {number}", gps=fixes)
    return made(catalog, stage, clip, inputs, **execution)


def made(catalog: Catalog, stage: str, artifact: Any, inputs: dict[str, str], **execution: Any) -> str:
    run = run_of(key_of(f"{stage}/{next(_NUMBERS)}"), stage, (put(catalog, artifact),), inputs, **execution)
    return catalog.record(run).outputs[0].digest


def label(catalog: Catalog, clip: str, **inputs: str) -> str:
    return made(catalog, "toy.label", figures(next(_NUMBERS), rows=1), {"clip": clip, **inputs})


def published(catalog: Catalog, clips: dict[str, str], rule: SplitRule | None = None, **roles: str) -> DatasetVersion:
    artifacts = {f"{name}/clip": digest for name, digest in clips.items()} | roles
    return publish(catalog, "streets", {"clips": sorted(clips)}, artifacts, {}, split_rule=rule)


def half_and_half() -> SplitRule:
    return SplitRule(train=0.5, val=0.0, test=0.5)


# -- what belongs together ------------------------------------------------------------------------------------------------


def test_clips_of_one_source_are_in_one_split(catalog: Catalog, tmp_path: Path) -> None:
    sources = [video(catalog, tmp_path, f"{index}.mp4") for index in range(8)]
    clips = {f"s{index}-{part}": clip_of_source(catalog, {"source": source})
             for index, source in enumerate(sources) for part in range(3)}  # fmt: skip
    splits = published(catalog, clips, half_and_half()).splits
    assert len({splits[f"s{index}-0"] for index in range(8)}) == 2  # else the test would show nothing
    for index in range(8):
        assert len({splits[f"s{index}-{part}"] for part in range(3)}) == 1


def test_clips_of_one_named_place_are_in_one_split(catalog: Catalog, tmp_path: Path) -> None:
    sources = [video(catalog, tmp_path, f"{index}.mp4") for index in range(8)]
    clips = {f"c{index}": clip_of_source(catalog, {"source": source}) for index, source in enumerate(sources)}
    assert len(set(published(catalog, clips, half_and_half()).splits.values())) == 2
    for source in sources:
        catalog.note(Note("terms", source, {"place": "Lombard Street"}))
    again = published(catalog, clips, half_and_half())
    assert len(set(again.splits.values())) == 1
    assert again.version == 2  # the same artifacts, but the first version leaks


def test_a_place_may_be_named_of_a_generated_clip_too(catalog: Catalog) -> None:
    clips = {f"w{seed}": clip_of_source(catalog, {}, stage="generate.world", config={"layout": "curve"}, seed=seed)
             for seed in range(8)}  # fmt: skip
    assert len(set(published(catalog, clips, half_and_half()).splits.values())) == 2
    for clip in clips.values():
        catalog.note(Note("terms", clip, {"place": "Lombard Street"}))
    assert len(set(published(catalog, clips, half_and_half()).splits.values())) == 1


def test_positions_that_are_lost_are_named(catalog: Catalog, tmp_path: Path) -> None:
    clip = clip_of_source(catalog, {"source": video(catalog, tmp_path, "a.mp4")}, (48.0, 11.0))
    labels = label(catalog, clip)
    catalog.objects.path(catalog.artifact(clip).parts["gps.parquet"]).unlink()
    with pytest.raises(WorldlineError, match=f"Clip {clip[:12]} has lost its part gps.parquet, which splits are made by"):
        publish(catalog, "streets", {}, {"a/labels": labels}, {})


@pytest.mark.both_dialects
def test_clips_that_come_near_each_other_are_in_one_split_and_distant_ones_need_not(catalog: Catalog, tmp_path: Path) -> None:
    degree_m = 2 * math.pi * 6_371_008.8 / 360
    for step_m, groups in ((90.0, 1), (200.0, 2)):
        clips = {
            f"c{index:02d}": clip_of_source(
                catalog, {"source": video(catalog, tmp_path, f"{step_m}-{index}.mp4")}, (48.0 + index * step_m / degree_m, 11.5)
            )
            for index in range(12)
        }
        assert len(set(published(catalog, clips, half_and_half()).splits.values())) == groups


def test_one_procedural_world_is_one_place_whatever_the_lens(catalog: Catalog) -> None:
    clips = {}
    for seed in range(8):
        for width in (64, 128):
            config = {"layout": "curve", "width": width}
            clips[f"w{seed}-{width}"] = clip_of_source(catalog, {}, stage="generate.world", config=config, seed=seed)
    splits = published(catalog, clips, half_and_half()).splits
    assert len(set(splits.values())) == 2
    assert all(splits[f"w{seed}-64"] == splits[f"w{seed}-128"] for seed in range(8))


def test_a_clip_rendered_from_another_clip_goes_where_that_one_goes(catalog: Catalog, tmp_path: Path) -> None:
    clips = {}
    for index in range(8):
        clips[f"c{index}"] = clip_of_source(catalog, {"source": video(catalog, tmp_path, f"{index}.mp4")})
        clips[f"r{index}"] = clip_of_source(catalog, {"clip": clips[f"c{index}"]}, stage="toy.render")
    splits = published(catalog, clips, half_and_half()).splits
    assert len(set(splits.values())) == 2
    assert all(splits[f"c{index}"] == splits[f"r{index}"] for index in range(8))


def test_sharing_weights_or_an_empty_source_or_a_common_report_does_not_join_clips(catalog: Catalog, tmp_path: Path) -> None:
    nothing = catalog.adopt(put(catalog, Source(Files(), "none", ""))).digest
    clips = {f"g{index}": clip_of_source(catalog, {"conditioning": nothing}, stage="generate.toy") for index in range(8)}
    report = made(catalog, "toy.report", figures(1), clips)
    version = published(catalog, clips, half_and_half(), report=report)
    assert len(set(version.splits.values())) == 2
    assert sorted(version.splits) == sorted(clips)
    assert leaks(catalog, version) == []


def test_what_comes_out_the_same_for_every_clip_does_not_join_them(catalog: Catalog, tmp_path: Path) -> None:
    nothing_moves = figures(0, rows=1)
    artifacts = {}
    for index in range(8):
        clip = clip_of_source(catalog, {"source": video(catalog, tmp_path, f"{index}.mp4")})
        for _ in range(2):  # with two versions of the stage, so that one clip has two makers too
            masks = made(catalog, "toy.masks", nothing_moves, {"clip": clip})
        artifacts[f"{index}/clip"] = clip_of_source(catalog, {"clip": clip, "masks": masks}, stage="toy.render")
    version = publish(catalog, "streets", {}, artifacts, {}, split_rule=half_and_half())
    assert len(set(version.splits.values())) == 2
    assert leaks(catalog, version) == []


def test_a_version_of_one_clip_has_one_split(catalog: Catalog, tmp_path: Path) -> None:
    clip = clip_of_source(catalog, {"source": video(catalog, tmp_path, "a.mp4")})
    version = publish(catalog, "one", {}, {"clip": clip, "labels": label(catalog, clip)}, {})
    assert list(version.splits) == [""]


def test_labels_without_their_clip_are_split_by_what_is_upstream(catalog: Catalog, tmp_path: Path) -> None:
    sources = [video(catalog, tmp_path, f"{index}.mp4") for index in range(6)]
    artifacts = {f"{index}{part}/labels": label(catalog, clip_of_source(catalog, {"source": source}))
                 for index, source in enumerate(sources) for part in "ab"}  # fmt: skip
    splits = publish(catalog, "streets", {}, artifacts, {}, split_rule=half_and_half()).splits
    assert len(set(splits.values())) == 2
    assert all(splits[f"{index}a"] == splits[f"{index}b"] for index in range(6))


# -- what stays -----------------------------------------------------------------------------------------------------------


def test_later_clips_move_no_other_group_and_the_split_does_not_depend_on_the_workspace(catalog: Catalog, tmp_path: Path) -> None:
    clips = {f"c{index}": clip_of_source(catalog, {"source": video(catalog, tmp_path, f"{index}.mp4")}) for index in range(20)}
    before = published(catalog, clips).splits
    more = {f"d{index}": clip_of_source(catalog, {"source": video(catalog, tmp_path, f"d{index}.mp4")}) for index in range(20)}
    after = published(catalog, clips | more).splits
    assert {clip: after[clip] for clip in clips} == before
    other = Catalog.open(tmp_path / "other")
    again = {name: clip_of_source(other, {"source": video(other, tmp_path, f"{name[1:]}.mp4")}) for name in clips}
    assert published(other, again).splits == before


def test_shares_are_kept_over_many_groups(catalog: Catalog, tmp_path: Path) -> None:
    source = [catalog.adopt(put(catalog, Metrics(figures(index, 1).figures))).digest for index in range(500)]
    version = publish(catalog, "many", {}, {f"c{index}/figures": digest for index, digest in enumerate(source)}, {})
    counts = Counter(version.splits.values())
    assert 370 <= counts["train"] <= 430  # 400 expected, standard deviation 9
    assert 25 <= counts["val"] <= 75
    assert 25 <= counts["test"] <= 75


@pytest.mark.parametrize(
    "rule", [{"train": 0.9}, {"train": 1.1, "val": -0.1, "test": 0.0}, {"radius_m": 0}, {"radius_m": float("nan")}, {"vall": 0.1}]
)
def test_a_rule_that_is_none_is_refused(rule: dict[str, float]) -> None:
    with pytest.raises(WorldlineError, match="splits"):
        SplitRule.of(rule)


# -- positions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "size_m"), [(3, 3000.0), (4, 1500.0), (5, 600.0)])
def test_clips_are_connected_exactly_as_comparing_all_their_fixes_connects_them(seed: int, size_m: float) -> None:
    random = np.random.default_rng(seed)
    positions = {}
    for index in range(60):
        start, heading = random.uniform(0, size_m, 2), random.uniform(0, 2 * np.pi)
        along = np.arange(0, random.uniform(0, size_m / 8), 10.0)[:, None] * [np.cos(heading), np.sin(heading)]
        positions[f"{index:02d}"] = np.concatenate([start + along, np.zeros((len(along), 1))], axis=1)
    positions = {clip: points for clip, points in positions.items() if len(points)}

    def groups(pairs: Any) -> set[frozenset[str]]:
        found = [{clip} for clip in positions]
        for one, other in pairs:
            joined = [group for group in found if one in group or other in group]
            found = [group for group in found if group not in joined] + [set().union(*joined)]
        return {frozenset(group) for group in found}

    def within(radius_m: float) -> set[frozenset[str]]:
        pairs = itertools.combinations(positions, 2)
        return groups(
            (one, other)
            for one, other in pairs
            if np.sqrt(((positions[one][:, None] - positions[other][None]) ** 2).sum(axis=2)).min() <= radius_m
        )

    got = groups(near_clips(positions, 50.0))
    assert all(any(group <= bigger for bigger in got) for group in within(50.0))  # none within the radius is missed
    assert all(any(group <= bigger for bigger in within(60.0)) for group in got)  # none beyond 1.2 radii is joined
    assert 1 < len(got) < len(positions)


@pytest.mark.parametrize("distance_m", [49.0, 61.0, 80.0, 104.0, 1e6])
def test_two_clips_alone_in_the_world_are_joined_within_the_radius_and_parted_beyond_1_2_of_it(distance_m: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):  # wherever they lie in the cells of the search
        start, direction = random.uniform(0, 1000, 3), random.normal(size=3)
        other = start + distance_m * direction / np.linalg.norm(direction)
        assert len(list(near_clips({"a": start[None], "b": other[None]}, 50.0))) == (distance_m <= 50.0)


def test_distances_on_the_globe_are_those_on_the_ground() -> None:
    munich, vienna = on_the_globe(np.array([48.137, 48.208]), np.array([11.575, 16.373]))
    assert np.linalg.norm(munich - vienna) == pytest.approx(355_000, rel=0.01)
    assert len(on_the_globe(np.array([np.nan, 48.0]), np.array([11.0, 11.0]))) == 1


def test_the_date_line_does_not_part_neighbours() -> None:
    east, west = on_the_globe(np.array([-16.8, -16.8]), np.array([179.9999, -179.9999]))
    ((one, other),) = near_clips({"east": east[None], "west": west[None]}, 100.0)  # 21 m apart
    assert {one, other} == {"east", "west"}


# -- leaks ----------------------------------------------------------------------------------------------------------------


def with_splits(version: DatasetVersion, **splits: str) -> DatasetVersion:
    return DatasetVersion(**{**version.__dict__, "splits": splits})


def test_what_the_rule_splits_does_not_leak(catalog: Catalog, tmp_path: Path) -> None:
    sources = [video(catalog, tmp_path, f"{index}.mp4") for index in range(10)]
    clips = {f"s{index}-{part}": clip_of_source(catalog, {"source": source}, (48.0 + index / 100, 11.0))
             for index, source in enumerate(sources) for part in range(2)}  # fmt: skip
    version = published(catalog, clips, half_and_half())
    assert leaks(catalog, version, frames=True) == []


@pytest.mark.both_dialects
def test_splits_by_frame_leak_and_every_reason_is_named(catalog: Catalog, tmp_path: Path) -> None:
    source, far, near = (video(catalog, tmp_path, name) for name in ("a.mp4", "b.mp4", "c.mp4"))
    for place in (source, far):
        catalog.note(Note("terms", place, {"place": "Lombard Street"}))
    clips = {
        "a1": clip_of_source(catalog, {"source": source}),
        "a2": clip_of_source(catalog, {"source": source}),
        "b": clip_of_source(catalog, {"source": far}, (48.0, 11.0)),
        "c": clip_of_source(catalog, {"source": near}, (48.0005, 11.0)),  # 56 m north
    }
    version = published(catalog, clips)
    assert len(set(version.splits.values())) == 1
    assert leaks(catalog, version) == []
    torn = with_splits(version, a1="train", a2="test", b="train", c="val")
    found = {(leak.why, leak.shared): leak.clips for leak in leaks(catalog, torn)}
    assert found == {
        ("source", source): {"a1": "train", "a2": "test"},
        ("place", "Lombard Street"): {"a1": "train", "a2": "test", "b": "train"},
        ("position", "56 m apart"): {"b": "train", "c": "val"},
    }


def test_the_same_frames_under_two_names_are_found(catalog: Catalog, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    brighter = np.clip(frames.astype(int) // 2 + 90, 0, 255).astype(np.uint8)
    clips = {}
    for name, shown in (("one", frames), ("two", brighter)):
        clip = Clip(Video.from_array(shown), np.array([0.0, 0.5]), name)
        clips[name] = made(catalog, "ingest.toy", clip, {"source": video(catalog, tmp_path, f"{name}.mp4")})
    clips["three"] = clip_of_source(catalog, {"source": video(catalog, tmp_path, "three.mp4")})
    torn = with_splits(published(catalog, clips), one="train", two="test", three="val")
    assert leaks(catalog, torn) == []
    (leak,) = leaks(catalog, torn, frames=True)
    assert (leak.why, leak.clips) == ("frame", {"one": "train", "two": "test"})


def test_clips_that_fade_in_from_black_are_not_taken_for_the_same(catalog: Catalog, tmp_path: Path) -> None:
    clips = {}
    for index, name in enumerate(("one", "two")):
        frames = np.random.default_rng(index).integers(0, 3, (2, 32, 48, 3), dtype=np.uint8)
        clip = Clip(Video.from_array(frames), np.array([0.0, 0.5]), name)
        clips[name] = made(catalog, "ingest.toy", clip, {"source": video(catalog, tmp_path, f"{name}.mp4")})
    torn = with_splits(published(catalog, clips), one="train", two="test")
    assert leaks(catalog, torn, frames=True) == []


def test_the_hash_of_a_frame_survives_scaling_and_tells_frames_apart() -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (16, 17, 3), dtype=np.uint8)
    small, large = (np.kron(coarse, np.ones((scale, scale, 1), np.uint8)) for scale in (4, 10))
    assert (first_frame_hash(small) == first_frame_hash(large)).all()
    other = np.kron(random.integers(0, 255, (16, 17, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    assert 90 < (first_frame_hash(small) != first_frame_hash(other)).sum() < 166
