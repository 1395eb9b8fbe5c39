import numpy as np
import pytest

from worldline.cameras import rigid, rotation_from_vector
from worldline.driving.boxes import Boxes
from worldline.driving.trajectories import (
    Surroundings,
    search_offsets,
    shift_poses,
    smooth_step,
    spline_offsets,
    turn_along,
)


def _straight(frames: int = 40, step_m: float = 0.8) -> np.ndarray:
    xyz = np.zeros((frames, 3))
    xyz[:, 0] = step_m * np.arange(frames)
    return rigid(np.eye(3), xyz)


def _circle(frames: int = 40, radius_m: float = 30.0, step_m: float = 0.8) -> np.ndarray:
    """To the left around (0, radius), from the origin along x."""
    angle = step_m * np.arange(frames) / radius_m
    xyz = radius_m * np.stack([np.sin(angle), 1 - np.cos(angle), np.zeros(frames)], axis=1)
    turn = np.zeros((frames, 3))
    turn[:, 2] = angle
    return rigid(rotation_from_vector(turn), xyz)


def _car(x: float, y: float) -> Boxes:
    return Boxes(np.array([7], np.int32), ("car",), np.array([[x, y, 0.0]]), np.array([[4.0, 2.0, 1.5]]), np.zeros(1))


def test_no_offset_is_the_recorded_drive_bit_for_bit() -> None:
    poses = _circle()
    for along_road in (True, False):
        assert np.array_equal(shift_poses(poses, np.zeros((40, 2)), along_road=along_road), poses)
    assert np.array_equal(turn_along(poses, poses)[:, :3, 3], poses[:, :3, 3])
    assert np.allclose(turn_along(poses, poses), poses, atol=1e-15)


def test_along_a_curve_left_is_towards_its_middle_and_forward_follows_it() -> None:
    poses = _circle()
    left = shift_poses(poses, np.tile([0.0, 3.0], (40, 1)), along_road=True)
    assert np.allclose(np.linalg.norm(left[:, :2, 3] - [0, 30.0], axis=1), 27.0)
    forward = shift_poses(poses, np.tile([4.0, 0.0], (40, 1)), along_road=True)
    on_record = forward[:34]  # beyond the end of the record it goes straight on
    assert np.allclose(np.linalg.norm(on_record[:, :2, 3] - [0, 30.0], axis=1), 30.0, atol=0.01)
    assert np.allclose(on_record[:, :3, :3], poses[5:39, :3, :3], atol=1e-3)
    assert np.linalg.norm(forward[-1, :3, 3] - poses[-1, :3, 3] - 4.0 * poses[-1, :3, 0]) < 1e-9


def test_as_published_offsets_are_in_the_first_ego_frame() -> None:
    first = rigid(rotation_from_vector(np.array([0, 0, 0.7])), np.array([5.0, -2.0, 1.0]))
    poses = first @ _circle()
    offsets = np.stack([0.1 * np.arange(40), -0.2 * np.arange(40)], axis=1)
    expected = first @ rigid(np.eye(3), np.column_stack([offsets, np.zeros(40)])) @ np.linalg.inv(first) @ poses
    assert np.allclose(shift_poses(poses, offsets, along_road=False), expected)


def test_a_spline_passes_its_waypoints_at_the_recorded_pace() -> None:
    poses = _straight(60)
    waypoints = np.array([(10.0, 0.5), (20.0, 3.0), (32.0, 3.5)])
    path = poses[:, :2, 3] + spline_offsets(poses, waypoints)
    for point in waypoints:
        assert np.linalg.norm(path - point, axis=1).min() < 0.45  # half of a frame's way
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.allclose(steps, 0.8, atol=0.01)


def test_a_vehicle_that_turns_looks_where_it_drives() -> None:
    poses = _straight()
    slanted = shift_poses(poses, np.stack([np.zeros(40), 0.2 * np.arange(40)], axis=1), along_road=True)
    turned = turn_along(slanted, poses)
    assert np.arctan2(turned[1:, 1, 0], turned[1:, 0, 0]) == pytest.approx(np.arctan2(0.2, 0.8))
    assert np.array_equal(turned[:, :3, 3], slanted[:, :3, 3])


def test_the_smooth_course_starts_and_ends_at_rest() -> None:
    course = smooth_step(np.linspace(-0.5, 1.5, 2001))
    assert (course[[0, -1]] == [0, 1]).all()
    assert (np.diff(course) >= 0).all()
    speed = np.gradient(course, 1e-3)
    assert speed.max() == pytest.approx(1.875, rel=1e-3)
    assert abs(speed[500]) < 1e-3


def test_the_search_steps_on_only_where_it_can_stay_and_holds_until_then() -> None:
    poses = _straight()
    parked_left = [_car(16.0, 3.5)] * 40  # its rear at 14 m, its front at 18 m; 1.6 m beside the ego's left side
    surroundings = Surroundings(parked_left, [], poses, 4.5, 1.8, 1.0)

    def pose_at(frames: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        every = np.zeros((40, 2))
        every[frames, 1] = offsets
        return shift_poses(poses, every, along_road=True)[frames]

    found = search_offsets(40, lambda frame, offset: min(0.1, 3.0 - offset), pose_at, surroundings, 5)
    passed = np.flatnonzero(poses[:, 0, 3] - 2.25 > 18.0)[0]  # its rear is past the other's front
    assert found.held.any()
    assert not found.held[passed + 2 :].any()
    assert found.offsets_m[passed - 1] == pytest.approx(0.6, abs=0.01)  # 1.6 m of room, 1.0 m of clearance
    assert found.too_near[found.held].tolist() == [7] * found.held.sum()
    assert surroundings.look(pose_at(np.arange(40), found.offsets_m), np.arange(40)).safe.all()


def test_what_was_passed_closely_in_truth_may_be_passed_as_closely_but_not_closer() -> None:
    poses = _straight()
    surroundings = Surroundings([_car(16.0, 2.2)] * 40, [], poses, 4.5, 1.8, 1.0)  # 0.3 m beside the ego
    assert surroundings.look(poses, np.arange(40)).safe.all()
    closer = shift_poses(poses, np.tile([0.0, 0.1], (40, 1)), along_road=True)
    assert not surroundings.look(closer, np.arange(40)).safe.all()
    away = shift_poses(poses, np.tile([0.0, -0.1], (40, 1)), along_road=True)
    assert surroundings.look(away, np.arange(40)).safe.all()


def test_the_whole_footprint_must_be_on_the_road() -> None:
    poses = _straight()
    road = [np.array([(-20.0, -2.0), (60.0, -2.0), (60.0, 2.0), (-20.0, 2.0)])]
    surroundings = Surroundings([_car(500.0, 0.0)] * 40, road, poses, 4.5, 1.8, 1.0)
    for left, on_road in ((1.0, True), (1.4, False)):
        seen = surroundings.look(shift_poses(poses, np.tile([0.0, left], (40, 1)), along_road=True), np.arange(40))
        assert seen.on_road is not None
        assert (seen.on_road == on_road).all()
        assert (seen.safe == on_road).all()
