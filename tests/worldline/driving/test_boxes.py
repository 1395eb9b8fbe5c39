import numpy as np
import pytest

from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, rigid
from worldline.driving.boxes import BACK, FRONT, NEAR_M, RIGHT, TOP, Boxes, view_boxes

INTRINSICS = np.array([[150.0, 0, 96], [0, 150, 56], [0, 0, 1]])
CAMERA = rigid(WORLD_FROM_LEVEL_CAMERA, np.array([0.0, 0.0, 1.6]))


def _boxes(*rows: tuple[float, ...]) -> Boxes:
    """Rows of x, y, z, length, width, height, yaw."""
    table = np.array(rows, float)
    return Boxes(np.arange(1, len(table) + 1, dtype=np.int32), ("car",) * len(table), table[:, :3], table[:, 3:6], table[:, 6])


def test_a_box_ahead_fills_the_rectangle_into_which_its_back_projects() -> None:
    seen = view_boxes(_boxes((12, 0, 0.6, 4, 2, 2, 0)), CAMERA, INTRINSICS, 192, 112)  # its back stands at x = 10
    rows, columns = np.nonzero(seen.index == 0)
    assert (columns.min(), columns.max()) == (96 - 15, 96 + 15 - 1)
    assert (rows.min(), rows.max()) == (56 - 15, 56 + 15 - 1)
    assert np.allclose(seen.depth_m[rows, columns], 10.0)
    assert set(seen.face[rows, columns]) == {BACK}


def test_the_face_that_is_seen_tells_which_way_the_box_looks() -> None:
    towards = view_boxes(_boxes((12, 0, 0.6, 4, 2, 2, np.pi)), CAMERA, INTRINSICS, 192, 112)
    assert towards.face[56, 96] == FRONT
    to_the_right = view_boxes(_boxes((12, 0, 0.6, 4, 2, 2, -np.pi / 2)), CAMERA, INTRINSICS, 192, 112)
    assert to_the_right.face[56, 96] == RIGHT
    low = view_boxes(_boxes((12, 0, 0, 4, 2, 0.5, 0)), CAMERA, INTRINSICS, 192, 112)
    assert low.face[56 + 15, 96] == TOP  # 1.1 m below the camera at 11 m


def test_the_nearer_of_two_boxes_hides_the_farther_one() -> None:
    seen = view_boxes(_boxes((30, 0, 0.6, 4, 2, 2, 0), (12, 0, 0.6, 4, 2, 2, 0)), CAMERA, INTRINSICS, 192, 112)
    assert seen.alone[0] > 0
    assert seen.seen[0] == 0
    assert seen.seen[1] == seen.alone[1] == 30 * 30


def test_of_a_box_that_reaches_behind_the_camera_only_what_lies_ahead_is_seen() -> None:
    beside = view_boxes(_boxes((0, 2.0, 0, 20, 1.0, 3.0, 0)), CAMERA, INTRINSICS, 192, 112)  # its near side is y = 1.5
    rows, columns = np.nonzero(beside.index == 0)
    assert columns.max() < 96  # it is on the left
    far_end = 96 - 150 * 1.5 / 10  # where the near side ends, ten metres ahead
    assert columns.max() + 1 == pytest.approx(far_end, abs=1)
    assert columns.min() == 0
    side = beside.depth_m[rows, columns]
    assert side.min() >= NEAR_M
    assert np.allclose(side, 1.5 * 150 / (96 - columns - 0.5), rtol=1e-5)


def test_a_box_behind_the_camera_or_around_it_is_not_seen() -> None:
    seen = view_boxes(_boxes((-12, 0, 0, 4, 2, 2, 0), (0, 0, 0, 4, 2, 3, 0)), CAMERA, INTRINSICS, 192, 112)
    assert (seen.index == -1).all()
    assert np.isinf(seen.depth_m).all()
