"""Depths and regions of views from lidar and boxes, held to closed forms."""

import numpy as np
import pytest

from schemas.driving import LidarSweeps
from stages.reconstruct.box_seeds import Boxes
from stages.reconstruct.lidar_views import label_boxes, with_lidar_depths
from stages.reconstruct.views import Views

K = np.array([[50.0, 0, 32.0], [0, 50.0, 24.0], [0, 0, 1]])
TIMES_S = np.array([0.0, 0.1, 0.2])


@pytest.fixture
def views() -> Views:
    """Three views of one camera that stands at the origin, world axes those of the camera."""
    return Views(
        images=np.zeros((3, 48, 64, 3), np.uint8), labels=np.zeros((3, 48, 64), np.uint16),
        camera_from_world=np.tile(np.eye(4), (3, 1, 1)), intrinsics=K, times=TIMES_S / 0.2, frames=np.arange(3),
    )  # fmt: skip


def sweeps(xyz, sweep, times_s=TIMES_S) -> LidarSweeps:
    return LidarSweeps(np.array(times_s), np.zeros((len(times_s), 3)), np.array(xyz, np.float32), np.array(sweep, np.int32))


def test_a_pixel_has_the_depth_of_the_nearest_point_on_it_of_the_sweep_of_its_time(views):
    lidar = sweeps([[0.05, 0.05, 8.0], [0.1, 0.1, 16.0], [1.0, 0.0, 10.0]], [0, 0, 2])
    depths = with_lidar_depths(views, lidar, TIMES_S, 2.0).depths
    assert depths[0, 24, 32] == 4.0  # in units of 2 metres
    assert np.count_nonzero(depths[0]) == 1
    assert not depths[1].any()
    assert depths[2, 24, 37] == 5.0


def test_a_sweep_too_far_in_time_says_nothing_of_a_frame(views):
    lidar = sweeps([[0.0, 0.0, 8.0]], [0], [0.0])
    depths = with_lidar_depths(views, lidar, TIMES_S, 1.0).depths
    assert [bool(item.any()) for item in depths] == [True, False, False]


def test_a_box_is_labelled_where_it_is_seen_and_the_nearer_one_hides_the_farther(views):
    # the box's own z is up: turned so that it points to the camera's -y
    up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    poses = np.tile(np.eye(4), (2, 3, 1, 1))
    poses[..., :3, :3] = up
    poses[0, :, :3, 3], poses[1, :, :3, 3] = [0.0, 1.0, 10.0], [0.5, 1.0, 20.0]
    boxes = Boxes(TIMES_S / 0.2, poses, np.array([[True] * 3, [True, True, False]]), np.full((2, 3), 2.0), np.array([7, 9]))
    labels = label_boxes(views, boxes).labels
    # the near face of the first spans x from -1 to 1 at depth 9, of the second from -0.5 to 1.5 at depth 19
    assert (labels[0, 24, 27:37] == 1).all()
    assert labels[0, 24, 36] == 1  # there the second is behind the first
    first = np.flatnonzero((labels[0] == 1).any(axis=0))
    assert abs(first[0] - (32 - 50 / 9)) <= 1.0
    assert abs(first[-1] - (32 + 50 / 9)) <= 1.0
    assert 2 not in labels[2]


def test_a_box_across_the_image_plane_is_cut_there(views):
    poses = np.tile(np.eye(4), (1, 3, 1, 1))
    poses[0, :, :3, :3] = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    poses[0, :, :3, 3] = [3.0, 1.0, 1.0]  # beside the camera, from 2 behind it to 4 before it
    boxes = Boxes(TIMES_S / 0.2, poses, np.ones((1, 3), bool), np.array([[2.0, 6.0, 2.0]]), np.array([1]))
    labelled = np.flatnonzero((label_boxes(views, boxes).labels[0] == 1).any(axis=0))
    # its inner side at x = 2 ends at depth 4: column 32 + 50 * 2 / 4 = 57, and reaches the border
    assert abs(labelled[0] - 57) <= 1
    assert labelled[-1] == 63
