import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from motions import camera_path, right_turn, straight, tracks_of, truth_of

from schemas.tracks import TRUTH_BOXES, Truth
from stages.contract import no_progress
from stages.label.evaluate import LabelEvaluationConfig, evaluate_labels
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.questions import QuestionsConfig, ask_questions
from stages.label.window_rules import WindowRules

TIMES = np.arange(81) * 0.1
MOTIONS = {11: straight((30, 9), (0, -2)), 12: right_turn((10, 2), 3.0, 3.0, 4.6), 13: straight((25, 4), (0, 0))}
NOT_JUDGED = {"stop_count", "turn_count", "turn_order", "counting", "absent_object", "relation"}  # spans, scenes, lanes
MOVING = {11: True, 12: True, 13: False}


def figures(estimated, truth, path=None, seed=0, **options):
    path = path or camera_path(TIMES)
    options = {"colours": {1: "red", 2: "blue", 3: "grey", 4: "green"}} | options
    tracks = tracks_of(path, estimated, **options)
    config = KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9, min_box_iou=0.0))
    kinematics = estimate_kinematics(tracks, path, config, seed=seed, progress=no_progress)
    questions = ask_questions(kinematics, tracks, path, QuestionsConfig(), seed=seed, progress=no_progress)
    metrics = evaluate_labels(
        tracks, kinematics, questions, path, truth, LabelEvaluationConfig(), seed=seed, progress=no_progress
    )
    rows = metrics.figures.to_pylist()
    assert all(row["unit"] and row["detail"] for row in rows)
    judged = sum(kind not in NOT_JUDGED for kind in questions.rows["kind"].to_pylist())
    return {row["name"]: row["value"] for row in rows} | {"questions of judged kinds": judged}


def test_perfect_tracks_have_no_errors_and_all_answers_are_right():
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    found = figures(dict(zip((1, 2, 3), MOTIONS.values(), strict=True)), truth)
    assert found["labels.movers_visible"] == 2
    assert found["labels.movers_found"] == 2
    assert found["labels.false_objects"] == 0
    assert found["labels.distance_error_median_percent"] < 0.5
    assert found["labels.position_error_median_m"] < 1e-6
    assert found["labels.static_moving_accuracy"] == 1.0
    assert found["labels.answers_right_share"] == 1.0
    assert found["labels.questions_judged"] == found["questions of judged kinds"] > 100


def test_tracks_of_lengths_too_long_by_a_tenth_are_off_by_ten_percent():
    """The same boxes in the image, with every position ten percent further from the camera, as a wrong scale puts them."""
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    longer = {1: lambda times: 1.1 * MOTIONS[11](times), 2: lambda times: 1.1 * MOTIONS[12](times)}
    found = figures(longer, truth, boxes={1: MOTIONS[11], 2: MOTIONS[12]})
    assert found["labels.distance_error_median_percent"] == pytest.approx(10.0, abs=0.3)
    assert found["labels.distance_error_mean_percent"] == pytest.approx(10.0, abs=0.5)
    assert found["labels.speed_error_median_percent"] == pytest.approx(10.0, abs=0.3)
    assert found["labels.coverage90_distance"] == 0.0
    expected = np.concatenate([0.1 * np.linalg.norm(MOTIONS[identity](TIMES), axis=1) for identity in (11, 12)])
    assert found["labels.position_error_median_m"] == pytest.approx(np.median(expected), rel=0.02)
    assert found["labels.answers_right_share.traveled_distance"] == 1.0  # within 25 %


def test_answers_off_by_more_than_a_quarter_are_wrong_but_comparisons_stay_right():
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    longer = {1: lambda times: 1.4 * MOTIONS[11](times), 2: lambda times: 1.4 * MOTIONS[12](times)}
    found = figures(longer, truth, boxes={1: MOTIONS[11], 2: MOTIONS[12]})
    assert found["labels.answers_right_share.traveled_distance"] == 0.0
    assert found["labels.answers_right_share.traveling_speed"] == 0.0
    assert found["labels.answers_right_share.distance_comparison"] == 1.0
    assert found["labels.answers_right_share.movement_direction"] == 1.0


def test_a_track_beside_every_true_box_is_a_false_object_and_an_untracked_mover_is_not_found():
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    found = figures({1: MOTIONS[11], 4: straight((15, -8), (0, 1))}, truth)
    assert (found["labels.movers_visible"], found["labels.movers_found"]) == (2, 1)
    assert found["labels.false_objects"] == 1


def test_movers_too_far_away_or_too_slow_to_get_anywhere_do_not_count_as_visible():
    motions = {11: straight((70, 9), (0, -2)), 12: straight((20, 3), (0, 0.2)), 13: straight((20, -4), (0, 1))}
    truth = truth_of(camera_path(TIMES), motions, dict.fromkeys(motions, True))
    assert figures({}, truth)["labels.movers_visible"] == 1


def test_a_parked_car_called_moving_halves_the_static_recall():
    motions = {11: straight((30, 9), (0, -2)), 12: straight((20, 3), (0, 0)), 13: straight((20, -6), (0, 0))}
    truth = truth_of(camera_path(TIMES), motions, {11: True, 12: False, 13: False})
    drifting = {1: motions[11], 2: straight((20, 3), (1.5, 0)), 3: motions[13]}
    found = figures(drifting, truth, boxes=dict(zip((1, 2, 3), motions.values(), strict=True)))
    assert found["labels.static_moving_accuracy"] == pytest.approx((1.0 + 0.5) / 2)


def test_tracks_without_scale_are_compared_after_scaling_the_camera_path():
    true_path = camera_path(TIMES, speed=4.0)
    motions = {11: straight((40, 4), (1, -1))}
    truth = truth_of(true_path, motions, {11: True})
    poses = true_path.world_from_camera.copy()
    poses[:, :3, 3] *= 0.1
    path = dataclasses.replace(true_path, world_from_camera=poses, scale_source="none")
    found = figures({1: lambda times: 0.1 * motions[11](times)}, truth, path=path, height=0.15)
    assert found["labels.distance_error_median_percent"] < 1.0
    assert found["labels.position_error_median_m"] < 1e-6


def test_without_truth_there_are_counts_only():
    nothing = Truth(False, np.zeros((0, 4, 4)), np.eye(3), TRUTH_BOXES.empty_table(), np.zeros(0, bool))
    found = figures({1: MOTIONS[11]}, nothing)
    assert {name for name in found if name.startswith("labels.")} == {"labels.tracks", "labels.windows_kept", "labels.questions"}
    assert found["labels.tracks"] == 1


def test_truth_and_tracks_that_are_both_empty_are_no_error():
    empty = Truth(True, camera_path(TIMES).world_from_camera, np.eye(3), TRUTH_BOXES.empty_table(), np.ones(len(TIMES), bool))
    assert figures({}, empty)["labels.questions"] == 0
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    assert figures({}, truth)["labels.movers_found"] == 0


def test_image_directions_of_a_tripod_clip_are_judged_in_the_camera_s_axes():
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    found = figures({1: MOTIONS[11], 3: MOTIONS[13]}, truth, path=camera_path(TIMES, scale_source="none"), located=False)
    assert found["labels.answers_right_share.movement_direction"] == 1.0


def test_every_third_frame_annotated_is_enough():
    truth = truth_of(camera_path(TIMES), MOTIONS, MOVING)
    every_third = np.asarray(truth.boxes["frame"]) % 3 == 0
    sparse = dataclasses.replace(truth, boxes=truth.boxes.filter(pa.array(every_third)), annotated=np.arange(len(TIMES)) % 3 == 0)
    found = figures({1: MOTIONS[11], 2: MOTIONS[12]}, sparse)
    assert found["labels.movers_found"] == 2
    assert found["labels.distance_error_median_percent"] < 1.0
