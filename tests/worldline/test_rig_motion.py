"""Poses of cameras and rows between the times of a rig's path, against motions in closed form."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldline.cameras import invert_rigid, rotation_angle
from worldline.rigs import camera_poses, place_camera, row_poses, row_times

CAMERA_FROM_RIG = np.eye(4)
CAMERA_FROM_RIG[:3, :3] = Rotation.from_euler("xyz", [3, 70, -5], degrees=True).as_matrix()
CAMERA_FROM_RIG[:3, 3] = [-0.7, 0.1, 0.4]
SPEED_MPS, TURN_RADPS = 10.0, 0.4


def turning_drive(times_s: np.ndarray, acceleration: float = 0.0) -> np.ndarray:
    """A body that drives straight along x while it turns about z at a constant rate."""
    poses = np.repeat(np.eye(4)[None], len(times_s), axis=0)
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(TURN_RADPS * times_s, [0, 0, 1])).as_matrix()
    poses[:, 0, 3] = SPEED_MPS * times_s + 0.5 * acceleration * times_s**2
    return poses


TIMES = np.arange(11) * 0.1


def test_a_camera_that_fires_late_is_where_the_rig_has_driven_to() -> None:
    late = TIMES[:-1] + 0.037
    poses = camera_poses(TIMES, turning_drive(TIMES), CAMERA_FROM_RIG, late)
    np.testing.assert_allclose(poses, turning_drive(late) @ invert_rigid(CAMERA_FROM_RIG), atol=1e-12)


def test_acceleration_between_frames_costs_an_eighth_of_its_square() -> None:
    between = TIMES[:-1] + 0.05
    poses = camera_poses(TIMES, turning_drive(TIMES, acceleration=3.0), np.eye(4), between)
    error = np.abs(poses - turning_drive(between, acceleration=3.0)).max()
    assert error == pytest.approx(3.0 * 0.1**2 / 8, rel=1e-6)


def test_rows_are_exposed_from_the_top_with_the_middle_at_the_frames_time() -> None:
    times = row_times(2.0, 0.03, np.array([0.0, 240.0, 480.0]), 480)
    np.testing.assert_allclose(times, [1.985, 2.0, 2.015])
    np.testing.assert_allclose(row_times(2.0, -0.03, np.array([0.0]), 480), 2.015)


def test_every_row_has_the_pose_of_its_own_time() -> None:
    poses = row_poses(TIMES, turning_drive(TIMES), CAMERA_FROM_RIG, 0.45, 0.08, 4)
    true = turning_drive(0.45 + 0.08 * np.array([-0.375, -0.125, 0.125, 0.375])) @ invert_rigid(CAMERA_FROM_RIG)
    np.testing.assert_allclose(poses, true, atol=1e-12)


def noisy(poses: np.ndarray, seed: int, turn_rad: float, shift: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    moved = poses.copy()
    moved[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(turn_rad * rng.normal(size=(len(poses), 3))).as_matrix()
    moved[:, :3, 3] += shift * rng.normal(size=(len(poses), 3))
    return moved


def test_a_camera_is_placed_from_frames_between_those_of_the_reference() -> None:
    times = TIMES[:-1] + 0.06
    seen = turning_drive(times) @ invert_rigid(CAMERA_FROM_RIG)
    found = place_camera(TIMES, turning_drive(TIMES), times, seen, 0.5)
    assert found is not None
    np.testing.assert_allclose(found.camera_from_rig, CAMERA_FROM_RIG, atol=1e-9)
    assert found.frames == 10


def test_the_sigmas_of_a_place_are_the_errors_that_it_has() -> None:
    """Over repetitions the mean square of error over sigma is one, three parts each."""
    times = np.linspace(0.0, 1.0, 40)
    turns, shifts = [], []
    for seed in range(200):
        seen = noisy(turning_drive(times) @ invert_rigid(CAMERA_FROM_RIG), seed, 0.002, 0.01)
        found = place_camera(TIMES, turning_drive(TIMES), times, seen, 0.5)
        assert found is not None
        turn = rotation_angle(found.camera_from_rig[:3, :3] @ CAMERA_FROM_RIG[:3, :3].T)
        shift = np.linalg.norm(invert_rigid(found.camera_from_rig)[:3, 3] - invert_rigid(CAMERA_FROM_RIG)[:3, 3])
        turns.append((turn / found.rotation_sigma_rad) ** 2 / 3)
        shifts.append((shift / found.position_sigma) ** 2 / 3)
    assert np.mean(turns) == pytest.approx(1.0, abs=0.2)
    assert np.mean(shifts) == pytest.approx(1.0, abs=0.2)


def test_frames_that_went_astray_do_not_move_a_place() -> None:
    times = np.linspace(0.0, 1.0, 20)
    seen = noisy(turning_drive(times) @ invert_rigid(CAMERA_FROM_RIG), 0, 0.0005, 0.002)
    seen[[3, 11], :3, 3] += 2.0
    found = place_camera(TIMES, turning_drive(TIMES), times, seen, 0.5)
    assert found is not None
    assert found.frames == 18
    np.testing.assert_allclose(found.camera_from_rig, CAMERA_FROM_RIG, atol=0.005)


def test_holes_of_the_path_place_nothing() -> None:
    gap = TIMES[[0, 1, 9, 10]]
    times = np.array([0.4, 0.5, 0.6, 1.2])
    seen = turning_drive(times) @ invert_rigid(CAMERA_FROM_RIG)
    assert place_camera(gap, turning_drive(gap), times, seen, 0.5) is None
