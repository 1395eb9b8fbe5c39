"""Corners of boxes, and the part of a box before a plane, held to linear programmes over the solid."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation

from worldline.box_corners import centred_corners, cut_at_plane, upright_corners

NEAR = 0.1


def test_a_box_stands_on_its_bottom_and_looks_along_its_heading():
    (corners,) = upright_corners(np.array([[10.0, 20.0, 1.0]]), np.array([[4.0, 2.0, 1.5]]), np.array([np.pi / 2]))
    assert corners.min(axis=0) == pytest.approx([9, 18, 1])  # as long in y as it is wide in x
    assert corners.max(axis=0) == pytest.approx([11, 22, 2.5])
    assert corners[1] == pytest.approx([11, 22, 1])  # ahead (+y) and to the right (+x), at the bottom


def random_boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    turned = Rotation.random(count, rng=rng).as_matrix()
    sizes, places = rng.uniform(0.5, 4, (count, 3)), rng.uniform([-3, -3, -3], [3, 3, 4], (count, 3))
    return centred_corners(sizes) @ turned + places[:, None]


def test_pictures_of_the_cut_box_span_what_the_solid_before_the_plane_spans():
    """Extremes of x / z over a convex solid are those of a linear programme on z = 1 (Charnes and Cooper, 1962)."""
    corners = random_boxes(60)
    points, kept = cut_at_plane(corners, NEAR)
    assert 10 < (corners[..., 2] < NEAR).any(axis=1).sum() < 60
    for box, own, counts in zip(corners, points, kept, strict=True):
        x, y, z = box.T
        bounds = {"A_ub": [np.full(8, NEAR)], "b_ub": [1], "A_eq": [z], "b_eq": [1]}
        extremes = [linprog(sign * axis, **bounds) for sign, axis in ((1, x), (1, y), (-1, x), (-1, y))]
        if not counts.any():
            assert not any(result.success for result in extremes)
            continue
        seen = own[counts, :2] / own[counts, 2:]
        expected = [result.fun for result in extremes] * np.array([1, 1, -1, -1])
        assert np.abs([*seen.min(axis=0), *seen.max(axis=0)] - expected).max() < 1e-6


def test_a_box_before_the_plane_is_its_corners_and_one_behind_is_nothing():
    box = centred_corners(np.array([2.0, 2.0, 2.0]))
    _, before = cut_at_plane(box + np.array([0, 0, 5.0]), NEAR)
    assert before.tolist() == [True] * 8 + [False] * 12
    _, behind = cut_at_plane(box - np.array([0, 0, 5.0]), NEAR)
    assert not behind.any()
