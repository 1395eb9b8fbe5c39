import dataclasses

import numpy as np
import pytest
from drives import path_of, true_drive
from evo.core import metrics, trajectory
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath
from schemas.tracks import TRUTH_BOXES, Truth
from stages.contract import no_progress
from stages.pose.evaluate import PoseEvaluationConfig, evaluate_poses
from worldline.cameras import Similarity


def truth_of(poses: np.ndarray) -> Truth:
    return Truth(
        available=True,
        world_from_camera=poses,
        intrinsics=np.eye(3),
        boxes=TRUTH_BOXES.empty_table(),
        annotated=np.zeros(len(poses), bool),
    )


def evaluate(path: CameraPath, truth: Truth) -> dict[str, float]:
    result = evaluate_poses(path, truth, PoseEvaluationConfig(), seed=0, progress=no_progress)
    assert all(row["unit"] or row["name"] == "pose.registered_share" for row in result.figures.to_pylist())
    return result.facts()


def noisy_drive(seed: int = 0, noise_m: float = 0.1, turns_m: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = true_drive()
    true[:, 2, 3] += turns_m * np.sin(np.arange(60) / 10)  # up and down, so that the path has a width
    estimated = true.copy()
    estimated[:, :3, 3] += rng.normal(size=(60, 3)) * noise_m
    estimated[:, :3, :3] = estimated[:, :3, :3] @ Rotation.from_rotvec(rng.normal(size=(60, 3)) * 0.01).as_matrix()
    elsewhere = Similarity(1.04, Rotation.random(random_state=rng).as_matrix(), np.array([5.0, 6, 7]))
    return true, elsewhere.poses(estimated)


def test_position_errors_agree_with_evo() -> None:
    true, estimated = noisy_drive()
    figures = evaluate(path_of(estimated, scale_source="gps", scale_sigma=0.02), truth_of(true))
    for name, correct_scale in (("pose.ate_similarity_m", True), ("pose.ate_rigid_m", False)):
        reference = trajectory.PosePath3D(poses_se3=list(true))
        other = trajectory.PosePath3D(poses_se3=list(estimated))
        other.align(reference, correct_scale=correct_scale)
        error = metrics.APE(metrics.PoseRelation.translation_part)
        error.process_data((reference, other))
        assert figures[name] == pytest.approx(error.get_statistic(metrics.StatisticsType.rmse), rel=1e-6)
    assert figures["pose.scale_error_percent"] == pytest.approx(4.0, abs=0.5)


@pytest.mark.parametrize("correct_scale", [True, False])
def test_rotation_errors_after_aligning_the_centres_agree_with_evo(correct_scale: bool) -> None:
    true, estimated = noisy_drive(turns_m=8.0, noise_m=0.01)
    reference, other = (trajectory.PosePath3D(poses_se3=list(poses)) for poses in (true, estimated))
    other.align(reference, correct_scale=correct_scale)
    error = metrics.APE(metrics.PoseRelation.rotation_angle_deg)
    error.process_data((reference, other))
    figures = evaluate(path_of(estimated), truth_of(true))
    assert figures["pose.rotation_error_aligned_deg"] == pytest.approx(error.get_statistic(metrics.StatisticsType.mean), rel=1e-5)


@pytest.mark.parametrize(("apart", "frames"), [("frame", 1), ("second", 10)])
def test_relative_errors_agree_with_evo(apart: str, frames: int) -> None:
    true, estimated = noisy_drive()
    figures = evaluate(path_of(estimated, scale_source="gps", scale_sigma=0.02), truth_of(true))
    for name, relation, correct_scale in (
        ("similarity_m", metrics.PoseRelation.translation_part, True),
        ("rigid_m", metrics.PoseRelation.translation_part, False),
        ("deg", metrics.PoseRelation.rotation_angle_deg, True),
    ):
        reference, other = (trajectory.PosePath3D(poses_se3=list(poses)) for poses in (true, estimated))
        other.align(reference, correct_scale=correct_scale)
        error = metrics.RPE(relation, delta=frames, delta_unit=metrics.Unit.frames, all_pairs=True)
        error.process_data((reference, other))
        expected = error.get_statistic(metrics.StatisticsType.rmse)
        assert figures[f"pose.rpe_{apart}_{name}"] == pytest.approx(expected, rel=1e-5)


def test_frames_between_which_one_is_missing_are_not_compared_as_neighbours() -> None:
    true = true_drive()
    estimated = true.copy()
    estimated[::2, :3, 3] += [0.0, 0.0, 0.5]  # wrong against every neighbour, right against the next but one
    registered = np.arange(60) % 2 == 0
    registered[1] = True  # one pair of neighbours on either side of it
    figures = evaluate(path_of(estimated, registered=registered, scale_source="gps"), truth_of(true))
    assert figures["pose.rpe_frame_rigid_m"] == pytest.approx(0.5)
    assert figures["pose.rpe_second_rigid_m"] < 0.1


def test_photos_minutes_apart_have_no_error_over_a_second() -> None:
    true, estimated = noisy_drive()
    figures = evaluate(path_of(estimated, times_s=np.arange(60) * 90.0), truth_of(true))
    assert "pose.rpe_frame_deg" in figures
    assert "pose.rpe_second_deg" not in figures


def test_a_straight_path_leaves_the_roll_open_and_only_that() -> None:
    true = true_drive(30)
    true[:, 1:3, 3] = 0.0
    estimated = Similarity(2.0, Rotation.from_euler("x", 0.7).as_matrix(), np.zeros(3)).poses(true)
    for noise in (0.0, 0.01):
        estimated[:, :3, 3] += np.random.default_rng(0).normal(size=(30, 3)) * noise
        figures = evaluate(path_of(estimated, scale_source="gps"), truth_of(true))
        assert figures["pose.ate_similarity_m"] == pytest.approx(0.0, abs=0.02)
        assert figures["pose.scale_error_percent"] == pytest.approx(100.0, abs=0.5)
        assert figures["pose.rotation_error_deg"] == pytest.approx(0.0, abs=1e-5)
        assert figures["pose.rpe_frame_deg"] == pytest.approx(0.0, abs=1e-5)
        assert "pose.rotation_error_aligned_deg" not in figures


def test_a_camera_that_truly_stands_still_has_no_scale_and_its_drift_is_told() -> None:
    true = np.repeat(np.eye(4)[None], 20, axis=0)
    drifting = true.copy()
    drifting[:, 0, 3] = np.arange(20) * 0.1
    figures = evaluate(path_of(drifting, scale_source="gps"), truth_of(true))
    assert figures["pose.ate_rigid_m"] == pytest.approx(np.std(np.arange(20) * 0.1))  # nothing fits better than the mean
    assert figures["pose.rpe_frame_rigid_m"] == pytest.approx(0.1)
    assert {"pose.scale_error_percent", "pose.ate_similarity_m", "pose.rpe_frame_similarity_m"}.isdisjoint(figures)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_fit_anything_and_are_not_compared(count: int) -> None:
    true, estimated = noisy_drive()
    registered = np.arange(60) < count
    assert "pose.rotation_error_deg" not in evaluate(path_of(estimated, registered=registered), truth_of(true))


def test_a_camera_that_only_turns_is_judged_by_its_rotation() -> None:
    turns = np.repeat(np.eye(4)[None], 20, axis=0)
    turns[:, :3, :3] = Rotation.from_euler("y", np.linspace(0, 40, 20)[:, None], degrees=True).as_matrix()
    found = turns.copy()
    found[:, :3, :3] = Rotation.from_euler("y", np.linspace(0, 41, 20)[:, None], degrees=True).as_matrix()
    figures = evaluate(path_of(found, "rotation"), truth_of(turns))
    # angles of 0 to 1 degree in 20 even steps, less their mean of half a degree: 1/19 x mean |i - 9.5|
    assert figures["pose.rotation_error_deg"] == pytest.approx(5.0 / 19, abs=1e-6)
    assert not [name for name in figures if "ate" in name.split("_") or "rpe" in name]


def test_rotation_error_is_the_mean_angle_that_was_put_in() -> None:
    true, estimated = noisy_drive()
    # the length of a rotation vector with three normal components of sigma has mean 2 sigma sqrt(2 / pi)
    expected = np.degrees(0.01 * 2 * np.sqrt(2 / np.pi))
    assert evaluate(path_of(estimated), truth_of(true))["pose.rotation_error_deg"] == pytest.approx(expected, rel=0.15)


def test_a_path_without_scale_gets_no_metric_figures() -> None:
    true, estimated = noisy_drive()
    figures = evaluate(path_of(estimated), truth_of(true))
    assert {"pose.ate_rigid_m", "pose.scale_error_percent", "pose.path_length_m"}.isdisjoint(figures)
    assert figures["pose.path_length_scene_units"] > 0


def test_only_registered_frames_are_compared() -> None:
    true, estimated = noisy_drive()
    path = path_of(estimated)
    registered = path.registered.copy()
    registered[10:20] = False
    broken = estimated.copy()
    broken[10:20] = np.eye(4)
    figures = evaluate(dataclasses.replace(path, world_from_camera=broken, registered=registered), truth_of(true))
    assert figures["pose.registered_share"] == pytest.approx(50 / 60)
    assert figures["pose.ate_similarity_m"] < 0.25


@pytest.mark.parametrize("verdict", ["static", "rotation", "textureless", "failed", "moving"])
def test_degenerate_paths_give_self_checks_and_what_can_be_said_of_their_rotation(verdict: str) -> None:
    poses = np.repeat(np.eye(4)[None], 4, axis=0)
    registered = np.full(4, verdict in ("static", "rotation", "moving"))
    path = path_of(poses, verdict, registered=registered, reprojection_error_px=0.0)
    always = {"pose.registered_share": registered.mean(), "pose.path_length_scene_units": 0.0}
    assert evaluate(path, Truth.unavailable()) == always
    figures = evaluate(path, truth_of(true_drive()[:4]))
    if registered.all():
        assert figures.pop("pose.rotation_error_deg") < 1.0  # of a car that drove two metres
    assert figures == always
