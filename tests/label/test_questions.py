import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from motions import camera_path, right_turn, stop_and_go, straight, tracks_of

from benchmarks.labels_noise import as_tracks, traffic
from schemas.artifact import make_table
from schemas.codec import content_digest
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.questions import QuestionsConfig, ask_questions
from stages.label.rounding import rounded_text
from stages.label.scene_candidates import absent_candidates
from stages.label.window_rules import WindowRules
from stages.label.wordings import WORDINGS
from worldline.answers.question_files import to_questions
from worldline.answers.scoring import RULES, score
from worldline.kinematics.noise import corrupt_positions

TIMES = np.arange(81) * 0.1
STREET = {
    1: straight((40, 9), (0, -3)),
    2: straight((30, -6), (0, 6)),
    3: right_turn((10, 2), 6.0, 3.0, 4.6),
    4: straight((25, 4), (0, 0)),
}
COLOURS = {1: "red", 2: "white", 3: "blue", 4: "grey"}
ST_VLM_KINDS = {
    "traveled_distance",
    "traveling_speed",
    "movement_direction",
    "direction_timestamp",
    "distance_comparison",
    "speed_comparison",
    "direction_comparison",
}
PAIRED = ("perspective", "relation", "range_change", "closing_speed", "time_to_contact")
RELATION_KINDS = {"clock_bearing", "clock_heading", "relation", "range_change", "closing_speed", "time_to_contact"}
VLM4D_KINDS = {"translation", "turning", "rotation", "perspective", "stop_count", "turn_count", "turn_order", "counting"}


def ask(path, motions, config=None, seed=5, kinematics_config=None, **options):
    tracks = tracks_of(path, motions, **({"colours": COLOURS} | options))
    limits = kinematics_config or KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9))
    kinematics = estimate_kinematics(tracks, path, limits, seed=3, progress=no_progress)
    return ask_questions(kinematics, tracks, path, config or QuestionsConfig(), seed=seed, progress=no_progress)


def rows(questions, kind):
    return [row for row in questions.rows.to_pylist() if row["kind"] == kind]


def refused(questions):
    return {(row["kind"], row["reason"]): row["count"] for row in questions.rejections.to_pylist()}


def test_a_street_with_a_turn_gives_all_kinds_of_st_vlm_and_vlm4d():
    assert set(ask(camera_path(TIMES), STREET).rows["kind"].to_pylist()) == ST_VLM_KINDS | VLM4D_KINDS | RELATION_KINDS


def test_every_kind_has_at_least_eight_wordings_with_the_right_placeholders():
    for bank, templates in WORDINGS.items():
        assert len(set(templates)) == len(templates) >= 8
        paired = "comparison" in bank or bank.endswith(".other") or bank in PAIRED
        needed = {"object", "end"} | ({"other"} if paired else set()) | (set() if bank.startswith("clock") else {"start"})
        needed |= {"asked"} if "timestamp" in bank or bank == "counting" else set()
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
    assert not rows(questions, "traveled_distance")
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
    needing_scale = {"traveled_distance", "traveling_speed", "closing_speed", "relation"}
    assert kinds == (ST_VLM_KINDS | VLM4D_KINDS | RELATION_KINDS) - needing_scale
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
    assert set(questions.rows["kind"].to_pylist()) <= {"counting", "absent_object"}
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


# -- VLM4D's kinds -------------------------------------------------------------------------------------------------------


def answers(questions, kind, *tracks):
    return {row["answer"] for row in rows(questions, kind) if tuple(row["track_ids"]) == tracks}


ALL_ANSWERS = QuestionsConfig(max_answer_share=1.0)


def test_translation_is_told_in_the_camera_s_axes():
    ways = {1: (0, 4), 2: (0, -4), 3: (-3, 0), 4: (4, 0), 5: (0, 0)}
    motions = {identity: straight((60, 6.0 * identity - 18), way) for identity, way in ways.items()}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    expected = ("left", "right", "toward the camera", "away from the camera", "not moving")
    assert [answers(told, "translation", identity) for identity in ways] == [{word} for word in expected]
    diagonal = ask(camera_path(TIMES), {1: straight((40, 9), (3, -3))}, ALL_ANSWERS)
    assert not answers(diagonal, "translation", 1)
    assert refused(diagonal)[("translation", "direction_undefined")] == 6


def test_a_parked_car_that_the_camera_drives_past_does_not_move():
    told = ask(camera_path(TIMES, speed=4.0), {1: straight((60, 4), (0, 0))}, ALL_ANSWERS)
    assert answers(told, "translation", 1) == {"not moving"}
    assert answers(told, "turning", 1) == {"not moving"}


@pytest.mark.parametrize(
    ("angle", "side", "sense"), [(np.pi / 2, "right", "clockwise"), (-np.pi / 2, "left", "counter-clockwise")]
)
def test_turns_are_told_by_the_object_s_own_sides_and_from_above(angle, side, sense):
    motions = {1: right_turn((10, 2), 6.0, 3.0, 4.6, angle)}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    assert answers(told, "turning", 1) == {side, "straight on"}
    assert answers(told, "rotation", 1) == {sense, "neither, it goes straight on"}
    assert answers(told, "turn_order", 1) == {f"{side} only"}
    assert {row["answer_value"] for row in rows(told, "turn_count") if row["track_ids"] == [1]} == {1.0}
    windows = {row["start_s"]: row["answer"] for row in rows(told, "perspective") if row["track_ids"] == [1]}
    assert windows[0.0] == "straight ahead"


def test_another_s_motion_is_told_from_the_place_and_heading_of_the_one_that_is_asked():
    # The first drives along world y, to the camera's left; the second crosses ahead of it, away from the camera.
    motions = {1: straight((40, -20), (0, 4)), 2: straight((36, 20), (3, 0))}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    assert answers(told, "perspective", 1, 2) == {"right"}
    assert not answers(told, "perspective", 2, 1)  # does not see it ahead
    assert answers(told, "translation", 2) == {"away from the camera"}


def test_a_double_bend_is_two_turns_in_their_order():
    def double_bend(times):
        fine = np.arange(0, 8.02, 0.005)
        heading = np.interp(fine, [1.5, 3.0, 5.0, 6.5], [0, np.pi / 2, np.pi / 2, 0])
        steps = 6.0 * 0.005 * np.stack([np.cos(heading), np.sin(heading)], -1)
        place = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)[:-1]]) + np.array([10, -8])
        return np.stack([*(np.interp(times, fine, place[:, axis]) for axis in range(2)), 0 * times], -1)

    told = ask(camera_path(TIMES), {1: double_bend}, ALL_ANSWERS)
    assert answers(told, "turn_order", 1) == {"left then right"}
    assert answers(told, "turn_count", 1) == {"2"}
    assert answers(told, "stop_count", 1) == {"0"}


def test_stops_are_counted():
    path = camera_path(np.arange(141) * 0.1)
    told = ask(path, {1: stop_and_go((10, 2), 5.0, 5.0, 9.0)}, ALL_ANSWERS)
    assert answers(told, "stop_count", 1) == {"1"}


def test_cars_that_move_the_same_way_are_counted_where_all_are_known():
    ways = {1: (0, 4), 2: (0, 3), 3: (0, -4), 4: (0, 0)}
    motions = {identity: straight((60, 6.0 * identity - 15), way) for identity, way in ways.items()}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    counts = {re.sub(r".* (move|do not) ", "", words): number for words, number in _counted(told)}
    assert counts == {"left": 2, "right": 1, "toward": 0, "away": 0, "not moving": 1}
    assert refused(ask(camera_path(TIMES), motions, ALL_ANSWERS, origin="video"))[("counting", "not_all_objects_known")] == 30
    unsure = ask(camera_path(TIMES), motions | {5: straight((80, 20), (3, 3))}, ALL_ANSWERS)
    assert refused(unsure)[("counting", "not_all_directions_known")] == 30


def _counted(questions):
    words = {"to the left": "left", "to the right": "right", "toward the camera": "toward", "away from": "away"}
    for row in rows(questions, "counting"):
        name = next((word for text, word in words.items() if text in row["question"]), "not moving")
        yield name, int(row["answer"])


def test_what_is_not_there_is_asked_for_in_a_tenth_of_the_questions():
    motions = {1: straight((40, 9), (0, -3)), 2: straight((30, -6), (0, 6))}
    told = ask(camera_path(TIMES), motions, colours={1: "red", 2: "black"})
    absent = rows(told, "absent_object")
    assert absent
    assert len(absent) <= 0.1 * told.rows.num_rows + 1
    assert {row["answer"] for row in absent} == {"there is no such object"}
    assert not any(re.search(r"the (red|black) car", row["question"]) for row in absent)
    assert all(re.search(r"the (green|yellow) car", row["question"]) for row in absent)  # blue may be taken for black
    unsure = ask(camera_path(TIMES), motions, colours={1: "red", 2: ""})
    assert not rows(unsure, "absent_object")


def test_classes_are_absent_only_where_the_annotators_name_them_and_nothing_looks_like_them():
    tracks = tracks_of(camera_path(TIMES), {1: STREET[1], 2: STREET[2]}, classes={2: "cyclist"}, colours=COLOURS)
    windows = {"start_s": np.array([0.0, 0.0]), "end_s": np.array([3.0, 3.0])}

    def asked(provenance):
        found = absent_candidates(windows, dataclasses.replace(tracks, provenance=provenance))
        return {subject for subject, reason in zip(found.subject, found.reason, strict=True) if reason is None}

    assert "the bus" in asked({"format": "nuscenes"})
    assert not asked({"format": "nuscenes"}) & {"the motorcycle", "the bicycle", "the pedestrian"}  # of a cyclist
    assert "the tram" in asked({"format": "pandaset_tracks"}) - asked({"format": "nuscenes"})
    assert "the bus" not in asked({"format": "ngsim"})


# -- clocks and relations ------------------------------------------------------------------------------------------------


def reached(questions, kind, reference, *tracks, end_s=3.0):
    return [
        row["answer"]
        for row in rows(questions, kind)
        if (row["reference"], tuple(row["track_ids"]), row["end_s"]) == (reference, tracks, end_s)
    ]


def test_clock_directions_from_the_camera_count_clockwise_from_where_it_looks():
    motions = {1: straight((20, -20 * np.sqrt(3)), (0, 0)), 2: straight((30, 13), (0, -3)), 3: straight((60, 10), (-3, 0))}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    assert reached(told, "clock_bearing", "ego", 1) == ["2 o'clock"]
    assert reached(told, "clock_heading", "ego", 2) == ["3 o'clock"]
    assert reached(told, "clock_heading", "ego", 3) == ["6 o'clock"]
    assert not reached(told, "clock_heading", "ego", 1)  # it stands


def test_clock_directions_from_another_object_count_from_where_it_heads():
    # At 3 s the first is at (40, 12) and heads along world y: world x is to its right.
    motions = {1: straight((40, 0), (0, 4)), 2: straight((80, 12), (0, 0)), 3: straight((20, 12), (-3, 0))}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    assert reached(told, "clock_bearing", "other_object", 1, 2) == ["3 o'clock"]
    assert reached(told, "clock_bearing", "other_object", 1, 3) == ["9 o'clock"]
    assert reached(told, "clock_heading", "other_object", 1, 3) == ["9 o'clock"]
    assert reached(told, "clock_heading", "other_object", 3, 1) == ["3 o'clock"]


def test_followers_and_overtakers_are_told_from_both_sides():
    motions = {1: straight((10, 3), (6, 0)), 2: straight((25, 3), (6, 0)), 3: straight((2, -1), (12, 0))}
    told = ask(camera_path(TIMES), motions, ALL_ANSWERS)
    assert answers(told, "relation", 1, 2) == {"the first follows the second"}
    assert answers(told, "relation", 2, 1) == {"the first drives ahead of the second"}
    assert reached(told, "relation", "other_object", 3, 1) == ["the first overtakes the second"]
    assert reached(told, "relation", "other_object", 1, 3) == ["the second overtakes the first"]
    assert reached(told, "relation", "other_object", 3, 2, end_s=8.0) == ["same direction, side by side or in another lane"]


def test_closing_speed_and_time_to_contact_come_from_the_distance():
    told = ask(camera_path(TIMES), {1: straight((60, 0), (-5, 0)), 2: straight((20, 8), (5, 0))}, ALL_ANSWERS)
    assert answers(told, "range_change", 0, 1) == {"they approach each other"}
    assert answers(told, "range_change", 0, 2) == {"they move apart"}
    assert reached(told, "closing_speed", "", 0, 1) == ["18 km/h"]
    assert reached(told, "time_to_contact", "", 0, 1) == ["9.0 seconds"]  # 45 m are left at 5 m/s
    assert not reached(told, "closing_speed", "", 0, 2)
    row = next(row for row in rows(told, "time_to_contact") if row["track_ids"] == [0, 1])
    assert row["answer_p5"] < row["answer_value"] < row["answer_p95"]
    assert not row["metric"]


def test_noise_of_thirty_centimetres_makes_fewer_questions_and_hardly_any_wrong_answer():
    motions = traffic(12, seed=4)
    noisy, _, keep = corrupt_positions(
        "independent", motions.track, motions.time_s, motions.position, motions.range_m, 0.3, seed=4
    )
    told = [_told(motions, position, keep) for position in (motions.position, noisy)]
    both = told[0].keys() & told[1].keys()
    wrong = [key for key in both if told[0][key] != told[1][key]]
    assert len(told[1]) < len(told[0])
    assert len(both) > 500
    assert len(wrong) <= 0.01 * len(both), wrong


def _told(motions, position, keep):
    tracks, path = as_tracks(motions, position, keep)
    left = 60.0 * (tracks.samples["track_id"].to_numpy() - 1)
    columns = {name: tracks.samples[name].combine_chunks() for name in tracks.samples.schema.names}
    columns |= {"x0_px": left, "x1_px": left + 50, "y0_px": np.full(len(left), 200.0), "y1_px": np.full(len(left), 280.0)}
    tracks = dataclasses.replace(tracks, samples=make_table(tracks.samples.schema, columns))
    kinematics = estimate_kinematics(tracks, path, KinematicsConfig(draws=48), seed=4, progress=no_progress)
    config = QuestionsConfig(max_per_kind=100_000, max_answer_share=1.0)
    asked = ask_questions(kinematics, tracks, path, config, seed=5, progress=no_progress).rows.to_pylist()
    kinds = (VLM4D_KINDS | RELATION_KINDS) - {"closing_speed", "time_to_contact", "counting"}
    return {(row["kind"], row["reference"], tuple(row["track_ids"]), row["start_s"], row["end_s"]): row["answer"]
            for row in asked if row["kind"] in kinds}  # fmt: skip


# -- multiple choice -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    motions = {identity: straight((30 + identity, -6), (0, 1.5 * 1.3**identity)) for identity in range(1, 9)}
    motions |= {identity: right_turn((5, identity), 6.0, 3.0, 4.6) for identity in range(9, 12)}
    return ask(camera_path(TIMES), motions, QuestionsConfig(max_per_kind=1000), colours={}).rows.to_pylist()


def test_the_answer_is_among_the_options_at_every_place_equally_often(many):
    for row in many:
        assert not row["options"] or row["options"].count(row["answer"]) == 1
        assert len(set(row["options"])) == len(row["options"])
    four = [row["options"].index(row["answer"]) for row in many if len(row["options"]) == 4]
    assert len(four) > 150
    assert np.bincount(four, minlength=4) / len(four) == pytest.approx([0.25] * 4, abs=0.1)


def test_wrong_distances_are_far_from_the_right_one_on_both_sides_of_it(many):
    numbers = [
        [float(text.split()[0]) for text in (row["answer"], *row["options"])]
        for row in many
        if row["kind"] in ("traveled_distance", "traveling_speed") and row["options"]
    ]
    for right, *options in numbers:
        assert all(abs(option - right) > 0.25 * right for option in options if option != right)
    ranks = np.bincount([sorted(options).index(right) for right, *options in numbers], minlength=4)
    assert ranks / ranks.sum() == pytest.approx([0.25] * 4, abs=0.15)


def test_wrong_clock_hours_are_two_to_five_hours_off(many):
    hours = [row for row in many if row["answer_unit"] == "o'clock"]
    assert hours
    for row in hours:
        right, *rest = (int(text.split()[0]) for text in (row["answer"], *row["options"]))
        off = sorted(min((hour - right) % 12, (right - hour) % 12) for hour in rest)
        assert off[0] == 0
        assert all(2 <= hour <= 5 for hour in off[1:])


def test_wrong_intervals_overlap_little(many):
    found = [row for row in many if row["kind"] == "direction_timestamp" and row["options"]]
    assert found
    for row in found:
        begin, end = row["answer_value"], row["answer_end_value"]
        for text in row["options"]:
            start, stop = (float(number) for number in re.findall(r"[\d.]+", text))
            overlap = max(0.0, min(end, stop) - max(begin, start))
            assert text == row["answer"] or overlap / (end - begin + stop - start - overlap) < 0.3
            assert row["start_s"] - 0.26 <= start < stop <= row["end_s"] + 0.26


def test_the_evaluator_scores_options_by_letter_and_by_text(many):
    for multiple_choice, rules in ((False, "st_vlm"), (True, "mcq")):
        questions = to_questions(many, "ours", multiple_choice)
        by_text = score(questions, {row["question_id"]: row["answer"] for row in many}, RULES[rules])
        assert by_text.kinds[-1].correct_share == 1.0
    letters = {row["question_id"]: "ABCDEFG"[row["options"].index(row["answer"])] for row in many if row["options"]}
    chosen = [question for question in to_questions(many, "ours", True) if question.options]
    assert score(chosen, letters, RULES["mcq"]).kinds[-1].correct_share == 1.0
    wrong = {key: "ABCDEFG"[("ABCDEFG".index(letter) + 1) % 2] for key, letter in letters.items()}
    assert score(chosen, wrong, RULES["mcq"]).kinds[-1].correct_share == 0.0


def test_intrinsics_and_the_reference_of_directions_are_kept(many):
    assert {(row["fx_px"], row["fy_px"], row["cx_px"], row["cy_px"]) for row in many} == {(500.0, 500.0, 480.0, 270.0)}
    references = {row["kind"]: row["reference"] for row in many}
    assert references["movement_direction"] == "self_initial"
    assert references["translation"] == "camera"
    assert references["traveled_distance"] == ""
