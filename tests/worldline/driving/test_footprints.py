import numpy as np
import pytest

from worldline.driving.footprints import covered, distance, outline_and_inside, rectangle


def _dense(corners: np.ndarray) -> np.ndarray:
    shares = np.stack(np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41)), -1).reshape(-1, 2)
    return corners[0] + shares[:, :1] * (corners[1] - corners[0]) + shares[:, 1:] * (corners[3] - corners[0])


def test_the_distance_of_rectangles_is_that_of_their_densely_sampled_points() -> None:
    rng = np.random.default_rng(0)
    xy, yaw = rng.uniform(-5, 5, (2, 60, 2)), rng.uniform(-4, 4, (2, 60))
    first, second = rectangle(xy[0], yaw[0], 4.5, 1.8), rectangle(xy[1], yaw[1], 3.0, 1.2)
    found = distance(first, second)
    for one, other, apart in zip(first, second, found, strict=True):
        sampled = np.linalg.norm(_dense(one)[:, None] - _dense(other), axis=-1).min()
        assert apart <= sampled + 1e-9
        assert sampled - apart < 0.12


def test_rectangles_that_cross_without_a_corner_in_one_another_are_not_apart() -> None:
    upright, lying = rectangle(np.zeros(2), np.pi / 2, 6.0, 1.0), rectangle(np.zeros(2), np.array(0.0), 6.0, 1.0)
    assert distance(upright, lying) == 0.0


def test_rectangles_side_by_side_are_as_far_apart_as_their_sides() -> None:
    assert distance(rectangle(np.zeros(2), 0.0, 4.0, 2.0), rectangle(np.array([1.0, 3.5]), 0.0, 4.0, 2.0)) == pytest.approx(1.5)


def test_the_points_that_cover_a_rectangle_reach_its_corners_and_leave_no_gap() -> None:
    corners = rectangle(np.array([1.0, 2.0]), 0.4, 4.5, 1.8)
    points = outline_and_inside(corners, 0.25)
    assert np.abs(points[:, None] - corners).max(axis=-1).min(axis=0).max() < 1e-9
    anywhere = _dense(corners)
    assert np.linalg.norm(anywhere[:, None] - points, axis=-1).min(axis=1).max() <= 0.25 / np.sqrt(2) + 1e-9


def test_a_point_is_on_the_road_in_any_of_its_areas_and_in_the_seam_between_them() -> None:
    left, right = (np.array([(0, y), (10, y), (10, y + 3), (0, y + 3)], float) for y in (0.0, 3.04))
    points = np.array([(5, 1), (5, 5), (5, 3.02), (5, 7), (-0.2, 1)], float)
    assert covered(points, [left, right]).tolist() == [True, True, True, False, False]
    assert covered(points, [left]).tolist() == [True, False, True, False, False]


def test_an_area_may_have_a_bay() -> None:
    bay = np.array([(0, 0), (10, 0), (10, 10), (6, 10), (6, 4), (4, 4), (4, 10), (0, 10)], float)
    assert covered(np.array([(5.0, 8.0), (5.0, 2.0), (2.0, 8.0)]), [bay]).tolist() == [False, True, True]
