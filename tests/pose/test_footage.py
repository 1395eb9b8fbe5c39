import cv2
import numpy as np
import pytest
from drives import INTRINSICS, LEVEL, draw_corridor, texture
from scipy.spatial.transform import Rotation

from stages.pose.footage import Footage, FootageConfig, classify_footage
from worldline.cameras import rotation_angle

SIZE = (640, 360)


def classify(frames: np.ndarray, focal_known: bool = True, intrinsics: np.ndarray = INTRINSICS) -> Footage:
    return classify_footage(frames, SIZE, intrinsics, focal_known, FootageConfig())


def turning_poses(count: int, degrees: float) -> np.ndarray:
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    turns = Rotation.from_euler("ZY", np.stack([np.linspace(0, degrees, count), np.linspace(0, 5, count)], axis=1), degrees=True)
    poses[:, :3, :3] = turns.as_matrix() @ LEVEL
    return poses


def with_noise(frames: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=frames.shape) * sigma
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return draw_corridor(turning_poses(1, 0), INTRINSICS, SIZE)[0]


def test_a_tripod_is_static_although_the_sensor_is_noisy_and_something_walks_by(still: np.ndarray) -> None:
    frames = with_noise(np.repeat(still[None], 20, axis=0))
    walker = texture(256, 77)[:, :120]
    for index in range(20):
        frames[index, 80:336, 20 + 24 * index : 140 + 24 * index] = walker
    assert classify(frames).verdict == "static"


def test_a_bus_that_fills_most_of_the_view_for_a_while_does_not_move_the_tripod(still: np.ndarray) -> None:
    frames = np.repeat(still[None], 24, axis=0).copy()
    bus = np.tile(texture(360, 5), (1, 4, 1))
    for index in range(8, 14):
        frames[index] = bus[:, 50 * index : 50 * index + 640]
    assert classify(frames).verdict == "static"


def test_a_car_that_waits_and_then_drives_is_moving() -> None:
    poses = turning_poses(24, 0)
    poses[:, 0, 3] = np.maximum(0, np.arange(24) - 16) * 0.3
    assert classify(draw_corridor(poses, INTRINSICS, SIZE)).verdict == "moving"


@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_a_grey_wall_is_textureless_with_and_without_sensor_noise(sigma: float) -> None:
    assert classify(with_noise(np.full((6, 360, 640, 3), 128, np.uint8), sigma)).verdict == "textureless"


def test_a_smooth_gradient_is_textureless() -> None:
    ramp = np.linspace(30, 220, 640, dtype=np.float32)[None, :, None].repeat(360, 0).repeat(3, 2).astype(np.uint8)
    assert classify(np.stack([np.roll(ramp, 3 * k, axis=1) for k in range(5)])).verdict == "textureless"


def test_a_camera_that_only_turns_gets_its_rotations() -> None:
    poses = turning_poses(20, 40)
    found = classify(with_noise(draw_corridor(poses, INTRINSICS, SIZE)))
    assert found.verdict == "rotation"
    assert found.first_from_camera is not None
    true = poses[0, :3, :3].T @ poses[:, :3, :3]
    errors = rotation_angle(np.swapaxes(true, 1, 2) @ found.first_from_camera)
    assert np.degrees(errors).max() < 0.3


def test_the_focal_length_of_a_turning_camera_is_found_where_it_is_not_known() -> None:
    guess = INTRINSICS.copy()
    guess[[0, 1], [0, 1]] = 768.0  # 1.2 times the longer side; the truth is 500
    found = classify(draw_corridor(turning_poses(20, 40), INTRINSICS, SIZE), focal_known=False, intrinsics=guess)
    assert found.verdict == "rotation"
    assert found.focal_px == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("direction", [[0.25, 0, 0], [0, 0.12, 0]])
def test_a_camera_that_travels_is_moving_forwards_as_well_as_sideways(direction: list[float]) -> None:
    poses = turning_poses(12, 0)
    poses[:, :3, 3] = np.arange(12)[:, None] * np.array(direction)
    assert classify(draw_corridor(poses, INTRINSICS, SIZE)).verdict == "moving"


def test_a_camera_that_travels_along_a_flat_wall_is_not_taken_for_a_turning_one() -> None:
    wall = cv2.resize(texture(1024, 3), (1600, 1600))
    frames = np.stack([wall[300:660, 20 * k : 20 * k + 640] for k in range(20)])
    assert classify(frames).verdict == "moving"


def test_one_frame_says_nothing_of_motion(still: np.ndarray) -> None:
    assert classify(still[None]).verdict == "failed"


def test_two_frames_are_judged_like_many(still: np.ndarray) -> None:
    assert classify(with_noise(np.stack([still, still]))).verdict == "static"
    poses = turning_poses(2, 0)
    poses[1, 1, 3] = 0.4
    assert classify(draw_corridor(poses, INTRINSICS, SIZE)).verdict == "moving"


def test_black_frames_are_textureless() -> None:
    assert classify(np.zeros((5, 360, 640, 3), np.uint8)).verdict == "textureless"
