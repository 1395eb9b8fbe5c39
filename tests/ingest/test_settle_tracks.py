"""What is wrong with annotated boxes is counted under its reason, and costs nothing but itself."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.ingest.ego_poses import EGO_FROM_FORWARD_CAMERA, Timeline
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, increasing, settle_tracks

FRAMES = 40
TIMES = np.arange(FRAMES) / 10


def boxes(objects: Mapping[str, np.ndarray], *, classes: Mapping[str, str] | None = None, **changes: object) -> AnnotatedBoxes:
    """A car-sized box per object and frame; `objects` gives the positions `[FRAMES, 3]` of each."""
    ids = np.repeat(list(objects), FRAMES)
    names = dict.fromkeys(objects, "car") | dict(classes or {})
    fields: dict = {
        "source_id": pa.array(ids),
        "source_class": pa.array([names[item] for item in ids]),
        "frame": np.tile(np.arange(FRAMES), len(objects)),
        "position": np.concatenate(list(objects.values())).astype(float),
        "position_is": "bottom",
        "size": np.tile([4.0, 2.0, 1.5], (len(ids), 1)),
        "yaw_rad": np.zeros(len(ids)),
    }
    return AnnotatedBoxes(**(fields | changes))


def timeline(times: np.ndarray = TIMES) -> Timeline:
    poses = np.tile(EGO_FROM_FORWARD_CAMERA, (len(times), 1, 1))
    return Timeline(times, poses, np.ones(len(times), bool))


def straight(start: tuple[float, float], velocity: tuple[float, float]) -> np.ndarray:
    return np.stack([start[0] + velocity[0] * TIMES, start[1] + velocity[1] * TIMES, 0 * TIMES], -1)


def settle(given: AnnotatedBoxes, when: Timeline | None = None, **rules: float) -> tuple[Tracks, dict[str, float], Metrics]:
    provenance = {"log": "drive", "format": "track_table"}
    tracks, _, metrics = settle_tracks(given, when or timeline(), AnnotationRules(**rules), provenance)
    told = {row["name"]: row["value"] for row in metrics.figures.to_pylist()}
    assert told["tracks.rows"] == told["tracks.samples"] + sum(v for k, v in told.items() if k.startswith("tracks.dropped."))
    return tracks, told, metrics


TWO = {"a": straight((20, 3), (8, 0)), "b": straight((20, 7), (7, 0))}


def test_a_clean_log_loses_nothing() -> None:
    tracks, told, _ = settle(boxes(TWO))
    assert told["tracks.samples"] == 2 * FRAMES
    assert [
        name for name, value in told.items() if value and name.split(".")[1] not in ("rows", "samples", "objects", "frames")
    ] == []
    assert tracks.objects["samples"].to_pylist() == [FRAMES, FRAMES]


def test_a_coordinate_that_is_no_number_costs_its_row_alone() -> None:
    place = np.concatenate(list(TWO.values()))
    place[3, 0], place[7, 2], place[50, 1] = np.nan, np.inf, -np.inf
    place[9] = 1e300
    _, told, metrics = settle(boxes(TWO, position=place))
    assert (told["tracks.dropped.no_position"], told["tracks.dropped.impossible_position"]) == (3, 1)
    detail = {row["name"]: row["detail"] for row in metrics.figures.to_pylist()}
    assert detail["tracks.dropped.no_position"].endswith("first a in frame 3, a in frame 7, b in frame 10")


def test_of_times_that_go_backwards_as_few_frames_as_possible_are_given_up() -> None:
    times = TIMES.copy()
    times[12] = 0.3  # behind
    times[20] = 99.0  # ahead: all later frames would lie before it
    times[30], times[35] = np.nan, 1e9
    tracks, told, _ = settle(boxes(TWO), timeline(times))
    reasons = ("time_backwards", "no_time", "time_far_off")
    assert [told[f"tracks.dropped.{reason}"] for reason in reasons] == [4, 2, 2]
    assert told["tracks.frames"] == FRAMES - 4
    assert np.allclose(np.diff(tracks.samples["time_s"].to_numpy()[: FRAMES - 4]).max(), 0.2)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_increasing_subsequence_is_as_long_as_trying_all_finds(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 9, 10).astype(float)
    chosen = values[increasing(values)]
    subsets = ([v for bit, v in enumerate(values) if mask >> bit & 1] for mask in range(1 << 10))
    longest = max(len(subset) for subset in subsets if all(np.diff(subset) > 0))
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == longest


def test_rows_that_repeat_are_taken_once_and_contradicting_ones_not_at_all() -> None:
    given = boxes({"a": TWO["a"], "b": TWO["b"]})
    frame = given.frame.copy()
    frame[5] = 4  # two different boxes of a in frame 4, none in frame 5
    place = given.position.copy()
    frame[FRAMES + 8], place[FRAMES + 8] = 7, place[FRAMES + 7]  # b in frame 7 twice, word for word
    _, told, _ = settle(boxes(TWO, frame=frame, position=place))
    assert (told["tracks.dropped.duplicate_id"], told["tracks.dropped.repeated"]) == (2, 1)


def test_an_id_that_stands_for_two_classes_at_once_is_two_objects() -> None:
    ids = pa.array(["7"] * (2 * FRAMES))
    tracks, told, _ = settle(boxes(TWO, classes={"b": "pedestrian"}, source_id=ids))
    assert (told["tracks.id_shared"], told["tracks.objects"], told["tracks.dropped.duplicate_id"]) == (1, 2, 0)
    assert sorted(tracks.objects["class_name"].to_pylist()) == ["car", "pedestrian"]
    assert tracks.annotated_objects is not None
    assert tracks.annotated_objects["source_id"].to_pylist() == ["7", "7"]


def test_ids_that_are_exchanged_cut_both_tracks_in_two() -> None:
    swapped = {name: path.copy() for name, path in TWO.items()}
    swapped["a"][15:], swapped["b"][15:] = TWO["b"][15:], TWO["a"][15:]
    tracks, told, _ = settle(boxes(swapped))
    assert (told["tracks.identity_breaks"], told["tracks.objects"]) == (2, 4)
    for row in tracks.objects.to_pylist():
        mine = tracks.samples["track_id"].to_numpy() == row["track_id"]
        assert np.ptp(tracks.samples["y"].to_numpy()[mine]) == 0


def test_one_sample_far_off_is_dropped_and_the_track_goes_on() -> None:
    off = {name: path.copy() for name, path in TWO.items()}
    off["b"][22] += (0, 12, 0)
    tracks, told, _ = settle(boxes(off))
    assert (told["tracks.dropped.outlier"], told["tracks.identity_breaks"], told["tracks.objects"]) == (1, 0, 2)
    assert tracks.objects["samples"].to_pylist() == [FRAMES, FRAMES - 1]


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_noise_is_no_jump(sigma: float) -> None:
    rng = np.random.default_rng(0)
    many = {f"{index:03d}": straight((0, 4 * index), (index, 0)) + sigma * rng.normal(size=(FRAMES, 3)) for index in range(50)}
    _, told, _ = settle(boxes(many))
    assert (told["tracks.identity_breaks"], told["tracks.dropped.outlier"]) == (0, 0)


def test_hard_braking_and_gaps_are_no_jumps() -> None:
    speed = np.clip(30 - 12 * np.maximum(TIMES - 1, 0), 0, None)
    braking = np.stack([np.cumsum(speed) / 10, 0 * TIMES, 0 * TIMES], -1)
    given = boxes({"a": braking, "b": straight((0, 5), (20, 0))})
    seen = np.ones(2 * FRAMES, bool)
    seen[50:70] = False
    fields = {name: getattr(given, name) for name in ("frame", "position", "size", "yaw_rad")}
    kept = {name: values[seen] for name, values in fields.items()}
    ids, classes = (column.filter(pa.array(seen)) for column in (given.source_id, given.source_class))
    _, told, _ = settle(AnnotatedBoxes(source_id=ids, source_class=classes, position_is="bottom", **kept))
    assert (told["tracks.identity_breaks"], told["tracks.objects"]) == (0, 2)


def test_sizes_that_are_none_come_from_the_rest_of_the_track_or_stay_unknown() -> None:
    size = np.tile([4.0, 2.0, 1.5], (2 * FRAMES, 1))
    size[3] = 0
    size[4, 1] = np.nan
    size[FRAMES:] = -1
    tracks, told, _ = settle(boxes(TWO, size=size, position_is="centre"))
    assert told["tracks.size_repaired"] == 2 + FRAMES
    length, z = (tracks.samples[name].to_numpy() for name in ("length", "z"))
    assert (length[:FRAMES] == 4.0).all()
    assert tracks.samples["length"].null_count == FRAMES
    assert (z[:FRAMES] == -0.75).all()  # the bottom lies half the height under the centre
    assert (z[FRAMES:] == 0).all()


def test_classes_that_nobody_knows_are_kept_as_unknown_with_the_source_word() -> None:
    tracks, told, metrics = settle(boxes(TWO, classes={"b": "Hovercraft"}))
    assert told["tracks.class_unknown"] == 1
    assert tracks.objects["class_name"].to_pylist() == ["car", "unknown"]
    assert tracks.annotated_objects is not None
    assert tracks.annotated_objects["source_class"].to_pylist() == ["car", "Hovercraft"]
    assert "'Hovercraft'" in str(metrics.figures.to_pylist())


def test_the_most_frequent_class_of_a_track_counts() -> None:
    classes = ["van"] * 15 + ["car"] * (FRAMES - 15) + ["car"] * FRAMES
    tracks, told, _ = settle(boxes(TWO, source_class=pa.array(classes)))
    assert told["tracks.class_changes"] == 1
    assert tracks.objects["class_name"].to_pylist() == ["car", "car"]


def test_ids_count_by_value_and_a_row_without_one_is_dropped() -> None:
    ids = ["10"] * FRAMES + ["9"] * (FRAMES - 2) + [None, ""]
    tracks, told, _ = settle(boxes(TWO, source_id=pa.array(ids)))
    assert told["tracks.dropped.no_id"] == 2
    assert tracks.annotated_objects is not None
    assert tracks.annotated_objects["source_id"].to_pylist() == ["9", "10"]


def test_a_span_is_cut_and_times_begin_with_it() -> None:
    tracks, told, _ = settle(boxes(TWO), start_s=1.0, end_s=2.0)
    assert told["tracks.dropped.outside_span"] == 2 * (FRAMES - 11)
    assert np.allclose(np.unique(tracks.samples["time_s"].to_numpy()), np.arange(11) / 10)
    with pytest.raises(WorldlineError, match=r"drive: no frame has a readable time in the span of ingest\.track_table\.rules"):
        settle(boxes(TWO), start_s=100.0)


def test_an_object_seen_once_is_an_object_and_told() -> None:
    given = boxes(TWO)
    fields = {name: getattr(given, name)[: FRAMES + 1] for name in ("frame", "position", "size", "yaw_rad")}
    one = AnnotatedBoxes(
        source_id=given.source_id[: FRAMES + 1], source_class=given.source_class[: FRAMES + 1], position_is="bottom", **fields
    )
    tracks, told, _ = settle(one)
    assert told["tracks.one_sample"] == 1
    assert tracks.objects["samples"].to_pylist() == [FRAMES, 1]


def test_a_log_in_which_every_row_is_bad_has_no_objects() -> None:
    tracks, told, _ = settle(boxes(TWO, position=np.full((2 * FRAMES, 3), np.nan)))
    assert (tracks.objects.num_rows, told["tracks.dropped.no_position"]) == (0, 2 * FRAMES)


def test_the_order_of_rows_does_not_matter() -> None:
    given = boxes(TWO, classes={"b": "bus"})
    order = np.random.default_rng(3).permutation(2 * FRAMES)
    fields = {name: getattr(given, name)[order] for name in ("frame", "position", "size", "yaw_rad")}
    shuffled = AnnotatedBoxes(
        source_id=given.source_id.take(pa.array(order)),
        source_class=given.source_class.take(pa.array(order)),
        position_is="bottom",
        **fields,
    )
    assert settle(shuffled)[0].samples.equals(settle(given)[0].samples)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_thrown_at_it_every_row_is_accounted_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = boxes({name: straight((0, 5 * index), (index, 1)) for index, name in enumerate("abcd")})
    rows = len(given.frame)
    poison = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 1e-300, 3e6])
    fields = {name: getattr(given, name).copy() for name in ("position", "size", "yaw_rad")}
    for values in fields.values():
        hit = rng.random(values.shape) < rng.choice([0.0, 0.05, 0.5])
        values[hit] = rng.choice(poison, hit.sum())
    frame = np.where(rng.random(rows) < 0.1, rng.integers(-3, FRAMES + 3, rows), given.frame)
    ids = np.where(rng.random(rows) < 0.1, rng.choice(["a", "b", "", "é"], rows), given.source_id.to_pylist())
    times = np.where(rng.random(FRAMES) < 0.1, rng.choice([np.nan, -5.0, 1e12, 0.5], FRAMES), TIMES)
    noise = {"covariance": rng.normal(size=(rows, 4)), "moving": rng.choice([0, 1, np.nan], rows)}
    classes = pa.array(rng.choice(["car", "person", "?"], rows))
    with np.errstate(all="raise", under="ignore"):
        tracks, _, _ = settle(
            boxes(dict.fromkeys("abcd", TWO["a"]), source_id=pa.array(ids), source_class=classes, frame=frame, **fields, **noise),
            timeline(times),
        )
    samples = tracks.samples
    assert np.isfinite(samples["x"].to_numpy()).all()
    key = samples["track_id"].to_numpy().astype(int) * FRAMES + samples["frame"].to_numpy()
    assert (np.diff(key) > 0).all()
