"""What moves against the street, from tracks of points whose motion is known."""

import numpy as np
import pytest
from drives import INTRINSICS as K
from drives import LEVEL

from stages.pose.pair_motion import PairMotionConfig, explained_by_street, paint_moving
from worldline.cameras import invert_rigid, project, rigid, transform_points

CONFIG = PairMotionConfig()


def pair(moved: np.ndarray, points: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of points `[N, 3]` before and after the camera drove half a metre and turned a little; the points move, too."""
    before, after = np.eye(4), np.eye(4)
    before[:3, :3] = LEVEL
    after = rigid(LEVEL @ np.array([[1, 0, 0.02], [0, 1, 0], [-0.02, 0, 1]]), np.array([0.5, 0.02, 0.0]))
    noise = np.random.default_rng(seed).normal(0, 0.2, (2, len(points), 2))
    return (
        project(transform_points(invert_rigid(before), points), K)[0] + noise[0],
        project(transform_points(invert_rigid(after), points + moved), K)[0] + noise[1],
    )


@pytest.fixture
def street_and_board() -> tuple[np.ndarray, np.ndarray]:
    """Points of a street, and of a board before it that carries twice as many."""
    rng = np.random.default_rng(0)
    street = np.stack([rng.uniform(6, 30, 250), rng.uniform(-5, 5, 250), rng.uniform(-1.6, 4, 250)], axis=1)
    board = np.stack([np.full(500, 6.0), rng.uniform(-1.0, 1.0, 500), rng.uniform(-0.5, 1.0, 500)], axis=1)
    return street, board


def test_the_street_is_the_motion_that_is_spread_widest_not_the_one_of_most_points(
    street_and_board: tuple[np.ndarray, np.ndarray],
) -> None:
    street, board = street_and_board
    moved = np.concatenate([np.zeros_like(street), np.broadcast_to([0.1, 0.3, 0.25], board.shape)])
    explained = explained_by_street(*pair(moved, np.concatenate(street_and_board)), K, 1.0, CONFIG)
    assert explained[: len(street)].mean() > 0.95
    assert explained[len(street) :].mean() < 0.1


def test_what_drives_ahead_faster_than_the_camera_lies_on_its_epipolar_lines_and_is_found_all_the_same(
    street_and_board: tuple[np.ndarray, np.ndarray],
) -> None:
    street, board = street_and_board
    board = board[:200] + np.array([0, 1.5, 0])
    moved = np.concatenate([np.zeros_like(street), np.broadcast_to([1.2, 0.05, 0.0], board.shape)])
    explained = explained_by_street(*pair(moved, np.concatenate([street, board])), K, 1.0, CONFIG)
    assert explained[: len(street)].mean() > 0.95
    assert explained[len(street) :].mean() < 0.1


def test_scattered_tracks_fill_no_region_and_a_crowd_of_them_fills_its_own() -> None:
    rng = np.random.default_rng(1)
    still = rng.uniform(0, [640, 360], (1500, 2))
    crowd = rng.uniform([200, 100], [300, 160], (120, 2))
    still = still[~((still > [195, 95]) & (still < [305, 165])).all(axis=1)]
    xy, moving = np.concatenate([still, crowd]), np.concatenate([rng.random(len(still)) < 0.05, np.ones(120, bool)])
    region = paint_moving(xy, moving, (640, 360), CONFIG)
    inside = np.zeros_like(region)
    inside[50:80, 100:150] = True
    assert region[inside].mean() > 0.95
    assert region[~inside].mean() < 0.02
