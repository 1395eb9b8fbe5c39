import re
from collections import Counter

import numpy as np
import pytest
from motions import camera_path, right_turn, straight, tracks_of

from schemas.codec import content_digest
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.questions import QuestionsConfig, ask_questions, rounded_text
from stages.label.window_rules import WindowRules
from stages.label.wordings import WORDINGS

TIMES = np.arange(81) * 0.1
STREET = {
    1: straight((40, 9), (0, -3)),
    2: straight((30, -6), (0, 6)),
    3: right_turn((10, 2), 6.0, 3.0, 4.6),
    4: straight((25, 4), (0, 0)),
}
COLOURS = {1: "red", 2: "white", 3: "blue", 4: "grey"}
KINDS = {
    "traveled_distance",
    "traveling_speed",
    "movement_direction",
    "direction_timestamp",
    "distance_comparison",
    "speed_comparison",
    "direction_comparison",
}


def ask(path, motions, config=None, seed=5, kinematics_config=None, **options):
    tracks = tracks_of(path, motions, **({"colours": COLOURS} | options))
    limits = kinematics_config or KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9))
    kinematics = estimate_kinematics(tracks, path, limits, seed=3, progress=no_progress)
    return ask_questions(kinematics, tracks, path, config or QuestionsConfig(), seed=seed, progress=no_progress)


def rows(questions, kind):
    return [row for row in questions.rows.to_pylist() if row["kind"] == kind]


def refused(questions):
    return {(row["kind"], row["reason"]): row["count"] for row in questions.rejections.to_pylist()}


def test_a_street_with_a_turn_gives_all_seven_kinds():
    assert set(ask(camera_path(TIMES), STREET).rows["kind"].to_pylist()) == KINDS


def test_every_kind_has_at_least_eight_wordings_with_the_right_placeholders():
    for bank, templates in WORDINGS.items():
        assert len(set(templates)) == len(templates) >= 8
        needed = {"object", "start", "end"} | ({"other"} if "comparison" in bank else set())
        needed |= {"asked"} if "timestamp" in bank else set()
        for template in templates:
            assert set(re.findall(r"\{(\w+)\}", template)) == needed, template


def test_distances_are_told_in_metres_and_speeds_in_kilometres_per_hour():
    questions = ask(camera_path(TIMES), {2: STREET[2]})
    distance, speed = rows(questions, "traveled_distance")[0], rows(questions, "traveling_speed")[0]
    assert (distance["answer"], distance["answer_unit"]) == ("18.0 meters", "m")
    assert (speed["answer"], speed["answer_unit"]) == ("22 km/h", "km/h")  # 6 m/s is 21.6 km/h
    assert speed["answer_value"] == pytest.approx(3.6 * 6.0, rel=1e-3)
    assert speed["answer_p5"] <= speed["answer_value"] <= speed["answer_p95"]


def test_a_right_turn_is_answered_with_three_o_clock_and_asked_for_when():
    questions = ask(camera_path(TIMES), {3: STREET[3]})
    hours = {row["start_s"]: row["answer"] for row in rows(questions, "movement_direction")}
    assert hours[2.0] == "3 o'clock"
    straight_on, turned = sorted((row["answer_value"], row["answer_end_value"]) for row in rows(questions, "direction_timestamp"))
    # Straight on until 3.0 s; the bin of 12 o'clock ends a sixth into the turn. The turn is over at 4.6 s.
    assert straight_on == (0.0, pytest.approx(3.0, abs=0.5))
    assert turned == (pytest.approx(4.5, abs=0.5), pytest.approx(8.0, abs=0.5))


def test_static_objects_are_asked_no_distance():
    questions = ask(camera_path(TIMES), {4: STREET[4]}, QuestionsConfig(include_camera=False))
    assert questions.rows.num_rows == 0
    assert refused(questions)[("traveled_distance", "static")] == 6


def test_every_single_object_candidate_is_asked_or_counted():
    questions = ask(camera_path(TIMES), STREET, QuestionsConfig(max_per_kind=3))
    for kind in ("traveled_distance", "traveling_speed"):
        counted = sum(count for (name, _), count in refused(questions).items() if name == kind)
        assert counted + len(rows(questions, kind)) == 6 * (len(STREET) + 1)  # six windows of each object and the camera
    assert len(rows(questions, "traveled_distance")) == 3
    assert refused(questions)[("traveled_distance", "quota")] > 0


def test_comparisons_name_the_one_that_is_faster_and_need_a_ratio_of_five_to_four():
    motions = {1: straight((40, 9), (0, -5)), 2: straight((30, -9), (0, 10)), 3: straight((50, 0), (0, 4.5))}
    questions = ask(camera_path(TIMES), motions, QuestionsConfig(include_camera=False))
    for kind in ("distance_comparison", "speed_comparison"):
        pairs = Counter(frozenset(row["track_ids"]) for row in rows(questions, kind))
        assert pairs == {frozenset({1, 2}): 6, frozenset({2, 3}): 6}  # 5 against 4.5 m/s is too close
        assert refused(questions)[(kind, "ratio_below_margin")] == 6
        assert all(row["answer"] == "the white car" for row in rows(questions, kind))


def test_who_is_named_first_does_not_tell_the_answer():
    motions = {identity: straight((30 + identity, -6), (0, 1.5 * 1.3**identity)) for identity in range(1, 9)}
    colours = dict(zip(motions, ("red", "white", "blue", "grey", "black", "green", "silver", "brown"), strict=True))
    questions = ask(camera_path(TIMES), motions, QuestionsConfig(include_camera=False, max_per_kind=500), colours=colours)
    found = rows(questions, "speed_comparison")
    first = np.mean([row["question"].index(row["answer"]) < len(row["question"]) / 2 for row in found])
    larger_first = np.mean([row["answer_value"] > 1 for row in found])
    assert len(found) > 100
    assert 0.35 < larger_first < 0.65
    assert 0.2 < first < 0.8


def test_a_difference_within_the_noise_is_not_compared():
    motions = {1: straight((40, 9), (0, -1.0)), 2: straight((40, -9), (0, 1.35))}
    noisy = ask(camera_path(np.arange(31) * 0.1), motions, QuestionsConfig(include_camera=False), noise=1.2)
    assert not rows(noisy, "speed_comparison")


def test_the_common_error_of_the_scale_does_not_stop_a_comparison():
    motions = {1: straight((40, 9), (0, -4)), 2: straight((40, -9), (0, 6))}
    questions = ask(camera_path(TIMES, scale_sigma=0.4), motions, QuestionsConfig(include_camera=False))
    assert len(rows(questions, "distance_comparison")) == 6
    assert not rows(questions, "traveled_distance")


def test_without_scale_no_question_is_metric_and_comparisons_and_directions_remain():
    questions = ask(camera_path(TIMES, scale_source="none"), STREET)
    kinds = set(questions.rows["kind"].to_pylist())
    assert kinds == KINDS - {"traveled_distance", "traveling_speed"}
    assert not any(questions.rows["metric"].to_pylist())
    assert not re.search(r"\d (meters|km/h)", " ".join(questions.rows["answer"].to_pylist()))
    assert refused(questions)[("traveled_distance", "no_metric_scale")] > 0


def test_opposite_and_crossing_directions_are_told():
    motions = {1: straight((40, 12), (0, -4)), 2: straight((30, -12), (0, 4)), 3: straight((5, 0), (4, 0))}
    config = QuestionsConfig(include_camera=False, max_answer_share=0.9)
    answers = {
        frozenset(row["track_ids"]): row["answer"]
        for row in rows(ask(camera_path(TIMES), motions, config), "direction_comparison")
    }
    assert answers == {frozenset({1, 2}): "opposite", frozenset({1, 3}): "crossing", frozenset({2, 3}): "crossing"}


def test_twins_are_told_apart_by_box_and_time_and_singles_by_colour_and_class():
    motions = {1: straight((40, 9), (0, -3)), 2: straight((30, -6), (0, 6)), 3: straight((20, 5), (0, -2))}
    questions = ask(camera_path(TIMES), motions, colours={1: "white", 2: "white", 3: "red"})
    for row in rows(questions, "traveled_distance"):
        if row["track_ids"] == [3]:
            assert "the red car" in row["question"]
            assert "box" not in row["question"]
        elif row["track_ids"] != [0]:
            assert re.search(r"the white car in box \[\d+, \d+, \d+, \d+\] at \d+\.\d s", row["question"])


def test_a_bare_class_word_is_not_unique_beside_a_coloured_one():
    motions = {1: straight((40, 9), (0, -3)), 2: straight((30, -6), (0, 6))}
    questions = ask(camera_path(TIMES), motions, colours={1: "", 2: "white"})
    assert all("in box" in row["question"] for row in rows(questions, "traveled_distance") if row["track_ids"] == [1])


def test_tracks_from_video_always_carry_a_box_and_unknown_classes_are_objects():
    questions = ask(camera_path(TIMES), {1: straight((12, 5), (0, -1.2))}, origin="video", classes={1: "unknown"})
    mine = [row for row in rows(questions, "traveled_distance") if row["track_ids"] == [1]]
    assert mine
    assert all("the red object in box [" in row["question"] for row in mine)


def test_objects_in_the_same_box_are_not_asked_about():
    motions = {1: straight((40, 9), (0, -3)), 2: straight((40, 9.05), (0, -3))}
    questions = ask(camera_path(TIMES), motions, QuestionsConfig(include_camera=False), colours={1: "red", 2: "red"})
    assert questions.rows.num_rows == 0
    assert refused(questions)[("traveled_distance", "no_unique_phrase")] == 12


def test_twelve_o_clock_does_not_fill_the_answers():
    motions = {identity: straight((30 + identity, -6), (0, 1 + identity)) for identity in range(1, 9)}
    motions |= {identity: right_turn((5, identity), 6.0, 3.0, 4.6) for identity in range(9, 12)}
    answers = Counter(row["answer"] for row in rows(ask(camera_path(TIMES), motions, colours={}), "movement_direction"))
    assert answers["12 o'clock"] <= 0.4 * answers.total() + 1
    assert answers["3 o'clock"] > 0


def test_a_tripod_without_positions_gets_directions_in_the_camera_s_view_only():
    def there_and_back(times):
        return np.stack([20 + 0 * times, 8 - 4 * np.minimum(times, 8 - times), 0 * times], -1)

    motions = {1: straight((20, 9), (0, -3)), 2: straight((20, -9), (0, 3)), 3: there_and_back}
    questions = ask(camera_path(TIMES, scale_source="none"), motions, located=False)
    assert set(questions.rows["kind"].to_pylist()) == {"movement_direction", "direction_comparison", "direction_timestamp"}
    assert {row["answer"] for row in rows(questions, "movement_direction") if row["track_ids"] == [2]} <= {"left"}
    assert {row["answer"] for row in rows(questions, "movement_direction") if row["track_ids"] == [1]} <= {"right"}
    assert {row["answer"] for row in rows(questions, "direction_comparison") if set(row["track_ids"]) == {1, 2}} == {"opposite"}
    times = sorted((row["answer_value"], row["answer_end_value"]) for row in rows(questions, "direction_timestamp"))
    assert len(times) == 2
    assert times[0][1] == pytest.approx(4.0, abs=1.0)
    assert times[1][0] == pytest.approx(4.0, abs=1.0)


def test_the_same_seed_gives_the_same_questions_and_ids_are_unique():
    path = camera_path(TIMES, scale_sigma=0.05)
    first, second, other = (ask(path, STREET, seed=seed) for seed in (5, 5, 6))
    assert content_digest(first) == content_digest(second)
    assert first.rows["question"].to_pylist() != other.rows["question"].to_pylist()
    ids = first.rows["question_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_frames_are_those_at_the_window_s_ends():
    for row in ask(camera_path(TIMES), STREET).rows.to_pylist():
        assert row["frames"] == [round(row["start_s"] * 10), round(row["end_s"] * 10)]


def test_no_tracks_give_questions_about_the_camera_or_none():
    assert ask(camera_path(TIMES), {}).rows.num_rows == 0
    moving = ask(camera_path(TIMES, speed=6.0), {})
    assert {row["question"].count("the camera") > 0 for row in rows(moving, "traveled_distance")} == {True}


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [(7.34, 0.01, "7.3"), (7.34, 0.3, "7.5"), (24.6, 0.1, "24.5"), (24.6, 0.8, "25"), (131.4, 0.2, "131"), (131.4, 8.0, "130")],
)
def test_numbers_are_rounded_to_what_their_sigma_allows(value, sigma, text):
    assert rounded_text(np.array([value]), np.array([sigma]), (0.1, 0.5, 1.0)).tolist() == [text]
