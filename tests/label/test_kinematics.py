import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from motions import camera_path, right_turn, stop_and_go, straight, tracks_of

from schemas.codec import content_digest
from schemas.tracks import TRACK_SAMPLES
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.window_rules import WindowRules

TIMES = np.arange(81) * 0.1
FREE = WindowRules(max_range_m=1e9)


def measure(path, motions, config=None, **options):
    tracks = tracks_of(path, motions, **options)
    return estimate_kinematics(
        tracks, path, config or KinematicsConfig(window_seconds=3.0, rules=FREE), seed=3, progress=no_progress
    )


def windows(kinematics, identity=1):
    table = kinematics.windows
    return [row for row in table.to_pylist() if row["track_id"] == identity]


def states(kinematics, identity=1):
    return [row for row in kinematics.states.to_pylist() if identity in (None, row["track_id"])]


def test_distance_and_speed_of_a_car_at_constant_speed_are_exact():
    found = windows(measure(camera_path(TIMES), {1: straight((5, 2), (6, 8))}))
    assert len(found) == 6
    for row in found:
        assert row["distance_p50"] == pytest.approx(30.0, rel=1e-3)
        assert row["displacement_p50"] == pytest.approx(30.0, rel=1e-3)
        assert row["speed_p50"] == pytest.approx(10.0, rel=1e-3)
        assert (row["state"], row["clock"], row["turn"], row["rejected"]) == ("moving", 12, "straight", None)


def test_path_length_on_a_circle_is_the_sum_of_chords_on_the_half_second_grid():
    radius, rate = 10.0, 0.6

    def circle(times):
        return np.stack([30 + radius * np.cos(rate * times), radius * np.sin(rate * times), 0 * times], -1)

    chord = 2 * radius * np.sin(rate * 0.5 / 2)
    for row in windows(measure(camera_path(TIMES), {1: circle})):
        assert row["distance_p50"] == pytest.approx(6 * chord, rel=0.005)
        assert row["displacement_p50"] == pytest.approx(2 * radius * np.sin(rate * 3 / 2), rel=0.01)
        assert row["turn"] == "left"


def test_a_right_turn_seen_from_above_is_three_o_clock():
    found = windows(measure(camera_path(TIMES), {1: right_turn((5, 0), 6.0, 3.0, 4.6)}))
    turned = next(row for row in found if row["start_s"] == 2.0)
    assert (turned["clock"], turned["turn"]) == (3, "right")


def test_a_left_turn_seen_from_above_is_nine_o_clock():
    found = windows(measure(camera_path(TIMES), {1: right_turn((5, 0), 6.0, 3.0, 4.6, -np.pi / 2)}))
    turned = next(row for row in found if row["start_s"] == 2.0)
    assert (turned["clock"], turned["turn"]) == (9, "left")


def test_turning_round_is_a_u_turn_to_six_o_clock():
    found = windows(measure(camera_path(TIMES), {1: right_turn((5, 0), 6.0, 3.0, 4.6, np.pi)}))
    turned = next(row for row in found if row["start_s"] == 2.0)
    assert (turned["clock"], turned["turn"]) == (6, "u_turn")


def test_a_stop_is_static_between_two_stretches_of_moving():
    config = KinematicsConfig(window_seconds=2.0, rules=FREE)
    found = states(measure(camera_path(TIMES), {1: stop_and_go((5, 0), 8.0, 3.0, 5.0)}, config))
    by_time = {row["time_s"]: row["state"] for row in found}
    assert [by_time[time] for time in (1.0, 3.5, 4.0, 4.5, 7.0)] == ["moving", "static", "static", "static", "moving"]


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_parked_cars_stay_static_under_noise_that_makes_summed_steps_drive(noise):
    parked = {identity: straight((10.0 + identity, 3.0), (0, 0)) for identity in range(1, 21)}
    found = measure(camera_path(TIMES), parked, noise=noise)
    rows = [row for row in found.windows.to_pylist() if row["track_id"] > 0]
    assert np.mean([row["state"] == "static" for row in rows]) > 0.9
    assert not any(row["state"] == "moving" for row in rows)
    assert np.median([row["speed_p50"] for row in rows]) < 0.15


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_slow_walkers_are_moving_under_the_same_noise(noise):
    walkers = {identity: straight((10.0, identity), (0.0, 1.0)) for identity in range(1, 21)}
    rows = [row for row in measure(camera_path(TIMES), walkers, noise=noise).windows.to_pylist() if row["track_id"] > 0]
    assert np.mean([row["state"] == "moving" for row in rows]) > 0.9


def test_intervals_of_noisy_turning_cars_hold_the_truth_nine_times_out_of_ten():
    generator = np.random.default_rng(8)
    motions, truths = {}, {}
    for identity in range(1, 121):
        speed, begin = generator.uniform(2, 12), generator.uniform(0, 5)
        angle = generator.uniform(-2, 2)
        motions[identity] = right_turn((5, 0), speed, begin, begin + 2.5, angle)
    found = measure(camera_path(TIMES), motions, noise=0.3).windows.to_pylist()
    inside, errors = [], []
    for identity, motion in motions.items():
        row = next(row for row in found if row["track_id"] == identity and row["start_s"] == 2.0)
        grid = motion(np.arange(0, 8.01, 0.5))[4:11]
        truths[identity] = np.linalg.norm(np.diff(grid, axis=0), axis=1).sum()
        inside.append(row["distance_p5"] <= truths[identity] <= row["distance_p95"])
        errors.append(abs(row["distance_p50"] / truths[identity] - 1))
    assert 0.82 <= np.mean(inside) <= 0.98
    assert np.median(errors) < 0.02


def test_irregular_frame_times_are_used_as_they_are():
    generator = np.random.default_rng(1)
    times = np.concatenate([[0.0], np.cumsum(generator.uniform(0.02, 0.18, 90))])
    for row in windows(measure(camera_path(times), {1: straight((5, 2), (6, 8))})):
        assert row["distance_p50"] == pytest.approx(30.0, rel=2e-3)


def test_the_scale_error_is_in_the_interval_and_leaves_the_median_alone():
    rows = [windows(measure(camera_path(TIMES, scale_sigma=sigma), {1: straight((5, 2), (6, 8))}))[2] for sigma in (0.0, 0.1)]
    assert rows[1]["distance_p50"] == pytest.approx(30.0, rel=0.01)
    assert rows[0]["distance_p95"] - rows[0]["distance_p5"] < 0.1
    for name, quantile in (("p5", -1.645), ("p95", 1.645)):
        assert rows[1][f"distance_{name}"] == pytest.approx(30.0 * np.exp(0.1 * quantile), rel=0.005)


def test_speed_and_acceleration_of_braking_are_found_on_the_grid():
    def braking(times):
        return np.stack([5 + 12 * times - 0.5 * 1.2 * times**2, 0 * times, 0 * times], -1)

    for row in states(measure(camera_path(TIMES), {1: braking}))[2:-2]:
        assert row["speed_p50"] == pytest.approx(12 - 1.2 * row["time_s"], rel=0.02)
        assert row["acceleration_p50"] == pytest.approx(-1.2, abs=0.1)


def test_range_bearing_and_closing_speed_are_measured_from_the_moving_camera():
    path = camera_path(TIMES, speed=5.0)
    row = next(row for row in states(measure(path, {1: straight((60, 10), (0, 0))})) if row["time_s"] == 4.0)
    offset = np.array([60 - 20, 10])
    assert row["range"] == pytest.approx(np.linalg.norm(offset), rel=1e-3)
    assert row["bearing_rad"] == pytest.approx(np.arctan2(10, 40), abs=1e-3)  # left positive
    assert row["closing_speed"] == pytest.approx(5 * 40 / np.linalg.norm(offset), rel=1e-2)


def test_the_camera_itself_is_track_zero():
    path = camera_path(TIMES, speed=5.0)
    for row in windows(measure(path, {}), identity=0):
        assert row["distance_p50"] == pytest.approx(15.0, rel=5e-3)
        assert (row["state"], row["clock"]) == ("moving", 12)


def test_windows_follow_their_length_and_stride():
    config = KinematicsConfig(window_seconds=2.0, stride_seconds=0.5, rules=FREE)
    found = windows(measure(camera_path(TIMES), {1: straight((5, 0), (5, 0))}, config))
    assert [row["start_s"] for row in found] == [0.5 * index for index in range(13)]
    assert {row["end_s"] - row["start_s"] for row in found} == {2.0}


def test_a_clip_shorter_than_a_window_is_one_window():
    found = windows(measure(camera_path(np.arange(21) * 0.1), {1: straight((5, 0), (5, 0))}))
    assert [(row["start_s"], row["end_s"]) for row in found] == [(0.0, 2.0)]


def test_without_scale_nothing_is_metric_and_movement_is_still_decided():
    path = camera_path(TIMES, speed=0.05, scale_source="none")  # one unit is a hundred metres or so
    found = measure(path, {1: straight((0.2, 0), (0.06, 0.0)), 2: straight((0.3, 0.1), (0, 0))}, stated=0.001)
    assert not any(row["metric"] for row in found.windows.to_pylist())
    assert {row["state"] for row in windows(found, 1)} == {"moving"}
    assert {row["state"] for row in windows(found, 2)} == {"static"}


def test_without_gravity_no_heading_bearing_clock_or_turn_is_told():
    found = measure(camera_path(TIMES, gravity_source="none"), {1: right_turn((5, 0), 6.0, 3.0, 4.6)})
    assert all(row["clock"] is None and row["turn"] is None for row in found.windows.to_pylist())
    assert all(row["heading_rad"] is None and row["bearing_rad"] is None for row in found.states.to_pylist())
    assert windows(found)[0]["distance_p50"] == pytest.approx(18.0, rel=0.01)


def test_an_uncertain_scale_keeps_lengths_out_of_metres():
    found = measure(camera_path(TIMES, scale_sigma=0.3), {1: straight((5, 2), (6, 8))})
    assert not any(row["metric"] for row in windows(found))


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("gap", {"keep": lambda times: (times < 2.0) | (times > 3.4)}),
        ("low_visibility", {"keep": lambda times: np.sin(times * 9) > -0.2}),
        ("implausible_speed", {"classes": {1: "pedestrian"}}),
        ("far", {}),
    ],
)
def test_windows_are_rejected_by_name(reason, options):
    config = KinematicsConfig(
        window_seconds=3.0, rules=WindowRules(max_range_m=30.0, min_visible=0.0 if reason == "gap" else 0.8)
    )
    start = (100, 0) if reason == "far" else (5, 0)
    found = windows(measure(camera_path(TIMES), {1: straight(start, (6.0, 0))}, config, **options))
    assert reason in {row["rejected"] for row in found}


def test_an_identity_that_jumps_to_another_object_is_rejected():
    def jumping(times):
        return np.stack([20 + 0 * times, np.where(times < 5.5, -6.0, 6.0), 0 * times], -1)

    by_start = {row["start_s"]: row["rejected"] for row in windows(measure(camera_path(TIMES), {1: jumping}))}
    assert by_start[0.0] is None
    assert by_start[4.0] == "identity_break"


def test_motion_seen_from_the_camera_is_told_in_its_own_axes():
    motions = {
        1: straight((40, 9), (0, -3)),
        2: straight((40, -9), (0, 3)),
        3: straight((50, 1), (-5, 0)),
        4: straight((9, -2), (5, 0)),
    }
    found = measure(camera_path(TIMES), motions | {5: straight((20, 5), (0, 0))})
    words = [{row["image_motion"] for row in windows(found, identity)} for identity in range(1, 6)]
    assert words == [{"right"}, {"left"}, {"toward"}, {"away"}, {"none"}]


def test_a_tripod_without_positions_still_tells_image_motion_and_times():
    motions = {1: straight((20, 9), (0, -3)), 2: straight((45, 1), (-5, 0)), 3: straight((20, 5), (0, 0))}
    found = measure(camera_path(TIMES, scale_source="none"), motions, located=False)
    assert [{row["image_motion"] for row in windows(found, identity)} for identity in (1, 2, 3)] == [
        {"right"},
        {"toward"},
        {"none"},
    ]
    assert {row["rejected"] for row in windows(found)} == {"no_world_position"}
    assert all(row["distance_p50"] is None and not row["metric"] for row in windows(found))
    assert not states(found)


def test_a_camera_that_travels_tells_no_image_motion_of_unlocated_objects():
    found = measure(camera_path(TIMES, speed=3.0, scale_source="none"), {1: straight((60, 9), (0, -3))}, located=False)
    assert {row["image_motion"] for row in windows(found)} == {None}


def test_a_failed_camera_path_and_no_tracks_give_empty_tables():
    path = camera_path(TIMES, verdict="failed", registered=np.zeros(len(TIMES), bool), gravity_source="none", scale_source="none")
    found = measure(path, {})
    assert found.states.num_rows == 0
    assert all(row["rejected"] for row in found.windows.to_pylist())


def test_the_same_seed_gives_the_same_bytes_and_other_tracks_do_not_matter():
    path, motions = camera_path(TIMES), {1: straight((5, 2), (6, 8)), 7: straight((9, 2), (-1, 1))}
    first, second = (measure(path, motions, noise=0.2) for _ in range(2))
    assert content_digest(first) == content_digest(second)
    tracks = tracks_of(path, motions, noise=0.2)
    alone = tracks.samples.filter(np.asarray(tracks.samples["track_id"]) == 7)
    objects = tracks.objects.filter(np.asarray(tracks.objects["track_id"]) == 7)
    single = type(tracks)(alone, objects, tracks.origin, tracks.scale_source, tracks.scale_sigma, tracks.gravity_source)
    found = estimate_kinematics(single, path, KinematicsConfig(window_seconds=3.0, rules=FREE), seed=3, progress=no_progress)
    assert windows(found, 7) == windows(first, 7)


def cut(tracks, spans):
    """The tracks, each of its own span of seconds only."""
    ids, times = (tracks.samples[name].to_numpy() for name in ("track_id", "time_s"))
    bounds = np.array([spans[identity] for identity in ids.tolist()])
    return dataclasses.replace(
        tracks, samples=tracks.samples.filter((times > bounds[:, 0] - 0.01) & (times < bounds[:, 1] + 0.01))
    )


def test_a_track_is_as_uncertain_at_its_end_as_at_its_beginning():
    path, count = camera_path(TIMES), 20
    motions = {identity: straight((10, identity), (5, 0)) for identity in range(1, count + 1)}
    tracks = cut(tracks_of(path, motions, noise=0.2), dict.fromkeys(motions, (2.0, 6.0)))
    found = states(estimate_kinematics(tracks, path, KinematicsConfig(), seed=3, progress=no_progress), identity=None)
    width = {
        time: np.median([row["speed_p95"] - row["speed_p5"] for row in found if row["track_id"] and row["time_s"] == time])
        for time in (2.0, 6.0)
    }
    assert width[6.0] == pytest.approx(width[2.0], rel=0.25)


def test_a_track_gives_the_same_in_a_short_recording_and_in_a_long_one_with_others_around_it():
    motions = {1: straight((5, 2), (6, 8)), 2: straight((9, 2), (-1.01, 1)), 3: straight((9, -5), (0, 2))}
    long = camera_path(np.arange(1201) * 0.1)
    spans = {1: (31.0, 36.3), 2: (0.0, 120.0), 3: (33.0, 60.0)}
    tracks = cut(tracks_of(long, motions, noise=0.2), spans)
    together = estimate_kinematics(tracks, long, KinematicsConfig(rules=FREE), seed=3, progress=no_progress)
    short = camera_path(np.arange(300, 381) * 0.1)
    alone = tracks.samples.filter(pc.equal(tracks.samples["track_id"], 1))
    alone = alone.set_column(
        alone.schema.get_field_index("frame"),
        TRACK_SAMPLES.field("frame"),
        pc.subtract(alone["frame"], pa.scalar(300, pa.int32())),
    )
    only = dataclasses.replace(tracks, samples=alone, objects=tracks.objects.slice(0, 1))
    apart = estimate_kinematics(only, short, KinematicsConfig(rules=FREE), seed=3, progress=no_progress)
    of_camera = {"range", "bearing_rad", "closing_speed"}  # its own draws are not the same
    for read in (windows, states):
        assert len(read(apart)) > 5
        for row, other in zip(read(together), read(apart), strict=True):
            for name in row.keys() - of_camera:
                number = isinstance(row[name], float)
                assert row[name] == (pytest.approx(other[name], rel=1e-6, abs=1e-6) if number else other[name]), name
