import numpy as np
import pytest

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.driving import MAP_ELEMENTS, TRAJECTORY_CHECKS, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.generate.trajectory import TrajectoryConfig, generate_trajectory
from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, rigid

FRAMES = 40
TIMES = np.arange(FRAMES) / 10
EGO = rigid(np.eye(3), np.stack([0.8 * np.arange(FRAMES), np.zeros(FRAMES), np.zeros(FRAMES)], axis=1))
EGO_FROM_CAMERA = rigid(WORLD_FROM_LEVEL_CAMERA, np.array([1.2, 0.1, 1.6]))
INTRINSICS = np.array([[150.0, 0, 96], [0, 150, 56], [0, 0, 1]])
PATH = CameraPath(
    TIMES, EGO @ EGO_FROM_CAMERA, np.ones(FRAMES, bool), INTRINSICS, np.zeros(4), 192, 112,
    "moving", "given", 0.0, "given", 0.0, 0.0,
)  # fmt: skip
RECORDED = Trajectory("recorded", "recorded", TIMES, EGO, 4.5, 1.8, True, "", TRAJECTORY_CHECKS.empty_table())


def _cars(*places: tuple[float, float, float]) -> Tracks:
    """Cars of 4 by 2 m at (x, y) in the first frame, driving along x at so many m/s."""
    rows = []
    for track, (x, y, speed) in enumerate(places, start=1):
        for frame in range(FRAMES):
            row = {"track_id": track, "frame": frame, "time_s": TIMES[frame], "touches_border": False}
            row |= {"x": x + speed * TIMES[frame], "y": y, "z": 0.0, "length": 4.0, "width": 2.0, "height": 1.5, "yaw_rad": 0.0}
            rows.append(row)
    objects = [
        {"track_id": track, "class_name": "car", "colour": "", "first_s": 0.0, "last_s": TIMES[-1], "samples": FRAMES}
        for track in range(1, len(places) + 1)
    ]
    samples = make_table(TRACK_SAMPLES, {name: [row.get(name) for row in rows] for name in TRACK_SAMPLES.names})
    return Tracks(samples, rows_to_table(TRACK_OBJECTS, objects), "boxes", "given", 0.0, "given")


def _road(left_m: float) -> RoadMap:
    area = np.array([(-20.0, -2.0, 0), (80.0, -2.0, 0), (80.0, left_m, 0), (-20.0, left_m, 0)])
    return RoadMap(rows_to_table(MAP_ELEMENTS, [{"element_id": 0, "kind": "drivable", "first_point": 0, "points": 4}]), area)


def _drive(tracks: Tracks | None = None, road: RoadMap | None = None, seed: int = 0, **config) -> tuple[Trajectory, CameraPath]:
    return generate_trajectory(PATH, tracks or _cars(), RECORDED, road or RoadMap.none(), TrajectoryConfig(**config), seed=seed)


def test_on_a_free_road_the_lane_is_changed_smoothly_and_kept() -> None:
    trajectory, path = _drive(target_m=3.5, duration_s=3.0)
    left = trajectory.checks["left_m"].to_numpy()
    assert trajectory.accepted
    assert trajectory.reason == ""
    assert trajectory.name == "lane_change_left_3.5m"
    share = np.minimum(TIMES / 3.0, 1)
    assert left == pytest.approx(3.5 * (10 * share**3 - 15 * share**4 + 6 * share**5), abs=0.01)
    assert np.allclose(path.world_from_camera, trajectory.world_from_ego @ EGO_FROM_CAMERA)
    assert np.array_equal(path.world_from_camera[0], PATH.world_from_camera[0])
    assert trajectory.checks["clearance_m"].null_count == FRAMES
    assert trajectory.checks["on_road"].null_count == FRAMES  # there is no map to tell


def test_what_comes_towards_the_ego_is_let_past_first() -> None:
    trajectory, _ = _drive(_cars((40.0, 3.5, -10.0)), min_clearance_m=1.0)  # meets the ego about frame 22
    checks = trajectory.checks
    held = np.flatnonzero(checks["held"].to_numpy(zero_copy_only=False))
    assert len(held)
    assert min(checks["clearance_m"].to_pylist()) >= 1.0
    assert checks["left_m"].to_numpy()[held[0]] == pytest.approx(3.5 - 1.0 - 0.9 - 1.0, abs=0.1)
    assert checks["left_m"].to_numpy()[-1] > 1.5  # and goes on behind it
    assert "track 1 (car) would be" in trajectory.reason
    assert "3.5 m were asked" in trajectory.reason


def test_beside_a_car_that_keeps_pace_the_lane_change_is_rejected_with_the_reason() -> None:
    trajectory, _ = _drive(_cars((0.0, 3.0, 8.0)), target_m=3.0, min_clearance_m=0.5)
    assert not trajectory.accepted
    assert trajectory.reason.startswith("held at 0.6 m from frame")
    assert trajectory.reason.endswith("3.0 m were asked")
    assert trajectory.checks["nearest_track"].to_pylist() == [1] * FRAMES


def test_the_whole_footprint_stays_on_the_road() -> None:
    trajectory, _ = _drive(road=_road(left_m=3.0))
    assert not trajectory.accepted
    assert "the vehicle would leave the drivable area" in trajectory.reason
    assert trajectory.checks["on_road"].to_pylist() == [True] * FRAMES
    assert trajectory.checks["left_m"].to_numpy()[-1] == pytest.approx(3.0 - 0.9, abs=0.15)
    assert _drive(road=_road(left_m=5.0))[0].accepted


@pytest.mark.parametrize(("manoeuvre", "sign"), [("accelerate", 1), ("decelerate", -1)])
def test_a_change_of_speed_gains_or_loses_the_target_along_the_road(manoeuvre: str, sign: int) -> None:
    trajectory, _ = _drive(manoeuvre=manoeuvre, target_m=4.0)
    forward = trajectory.checks["forward_m"].to_numpy()
    assert trajectory.accepted
    assert forward[-1] == pytest.approx(sign * 4.0, abs=1e-6)
    assert (np.diff(trajectory.world_from_ego[:, 0, 3]) > -1e-9).all()  # nobody drives backwards
    assert np.allclose(trajectory.checks["left_m"].to_numpy(), 0.0)


def test_nobody_drives_into_the_car_ahead() -> None:
    trajectory, _ = _drive(_cars((8.0, 0.0, 8.0)), manoeuvre="accelerate", target_m=4.0, min_clearance_m=2.0)
    assert min(trajectory.checks["clearance_m"].to_pylist()) >= 2.0 - 1e-6
    assert not trajectory.accepted


def test_the_published_evaluation_moves_a_tenth_of_a_metre_per_frame() -> None:
    trajectory, _ = _drive(target_m=3.9, steps="constant", step_m=0.1, offsets_in="first_ego")
    assert trajectory.checks["left_m"].to_numpy() == pytest.approx(0.1 * np.arange(FRAMES))


def test_random_steps_follow_the_seed_and_are_no_longer_than_the_largest() -> None:
    lefts = [_drive(steps="random", step_m=0.1, seed=seed)[0].checks["left_m"].to_numpy() for seed in (1, 1, 2)]
    assert np.array_equal(lefts[0], lefts[1])
    assert not np.array_equal(lefts[0], lefts[2])
    steps = np.diff(lefts[0])
    assert (steps >= 0).all()
    assert steps.max() <= 0.1
    assert steps.mean() == pytest.approx(0.05, abs=0.02)


def test_a_vehicle_that_turns_looks_along_its_course() -> None:
    trajectory, _ = _drive(turn=True)
    poses = trajectory.world_from_ego
    course = np.arctan2(np.diff(poses[:, 1, 3]), np.diff(poses[:, 0, 3]))
    assert np.arctan2(poses[1:, 1, 0], poses[1:, 0, 0]) == pytest.approx(course)
    assert np.abs(course).max() > 0.1
    assert np.array_equal(_drive()[0].world_from_ego[:, :3, :3], EGO[:, :3, :3])  # as published, it does not


def test_a_given_trajectory_is_taken_as_it_is_and_told_to_be_unsafe() -> None:
    offsets = ((0.0, 0.0, 0.0), (2.0, 1.0, 3.0))
    trajectory, _ = _drive(_cars((0.0, 3.0, 8.0)), manoeuvre="given", offsets_m=offsets)
    checks = trajectory.checks
    assert checks["left_m"].to_numpy()[[10, 20, 39]] == pytest.approx([1.5, 3.0, 3.0])
    assert checks["forward_m"].to_numpy()[[10, 20, 39]] == pytest.approx([0.5, 1.0, 1.0])
    assert not trajectory.accepted
    assert "0.5 m must be between" in trajectory.reason


def test_a_spline_goes_through_its_waypoints() -> None:
    trajectory, _ = _drive(manoeuvre="spline", waypoints_m=((12.0, 1.0), (24.0, 3.0)), turn=True)
    for point in ((12.0, 1.0), (24.0, 3.0)):
        assert np.linalg.norm(trajectory.world_from_ego[:, :2, 3] - point, axis=1).min() < 0.45
    assert trajectory.accepted


@pytest.mark.parametrize(("manoeuvre", "needs"), [("spline", "waypoints_m"), ("given", "offsets_m")])
def test_a_trajectory_without_its_points_is_refused(manoeuvre: str, needs: str) -> None:
    with pytest.raises(WorldlineError, match=needs):
        _drive(manoeuvre=manoeuvre)
