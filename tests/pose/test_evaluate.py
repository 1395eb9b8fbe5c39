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


def noisy_drive(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = true_drive()
    estimated = true.copy()
    estimated[:, :3, 3] += rng.normal(size=(60, 3)) * 0.1
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
def test_degenerate_paths_and_missing_truth_give_self_checks_only(verdict: str) -> None:
    poses = np.repeat(np.eye(4)[None], 4, axis=0)
    registered = np.full(4, verdict in ("static", "rotation", "moving"))
    path = path_of(poses, verdict, registered=registered, reprojection_error_px=0.0)
    for truth in (Truth.unavailable(), truth_of(true_drive()[:4])):
        figures = evaluate(path, truth)
        assert figures == {"pose.registered_share": registered.mean(), "pose.path_length_scene_units": 0.0}
