"""Solid bodies on the ground: how far boxes reach into each other, and what floats."""

import dataclasses

import cv2
import numpy as np
import pyarrow as pa
import pytest
from motions import camera_path, straight, tracks_of

from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.plausibility import height_off_ground, penetrating, penetration_depth

TIMES = np.arange(61) * 0.1


def depth(first, second):
    """Depth of one pair, each (x, y, length, width, yaw)."""
    one, other = (np.array([values], float) for values in (first, second))
    return penetration_depth(one[:, :2], one[:, 2:4], one[:, 4], other[:, :2], other[:, 2:4], other[:, 4])[0]


def test_a_car_that_follows_too_closely_is_as_deep_in_the_other_as_their_lengths_say():
    assert depth((0, 0, 4, 2, 0), (3.5, 0.5, 4, 2, 0)) == pytest.approx(0.5)
    assert depth((0, 0, 4, 2, 0), (6.0, 0.0, 4, 2, 0)) == pytest.approx(-2.0)


def test_a_corner_that_points_at_a_side_is_measured_along_that_side():
    reach = 1 + np.sqrt(2)  # half a square of 2 m, and half the diagonal of another
    assert depth((0, 0, 2, 2, 0), (reach - 0.3, 0, 2, 2, np.pi / 4)) == pytest.approx(0.3)
    assert depth((0, 0, 2, 2, np.pi / 4), (0, reach + 0.1, 2, 2, 0)) == pytest.approx(-0.1)


def test_boxes_have_a_depth_where_opencv_says_that_they_meet():
    generator = np.random.default_rng(0)
    boxes = generator.uniform((-3, -3, 1, 1, -np.pi), (3, 3, 5, 2, np.pi), (200, 2, 5))
    depths = np.array([depth(*pair) for pair in boxes])
    meets = [
        cv2.rotatedRectangleIntersection(*(((b[0], b[1]), (b[2], b[3]), np.degrees(b[4])) for b in pair))[0] != cv2.INTERSECT_NONE
        for pair in boxes
    ]
    clear = np.abs(depths) > 1e-3
    assert (depths > 0)[clear].tolist() == np.array(meets)[clear].tolist()
    assert 20 < sum(meets) < 180


def test_boxes_of_other_frames_or_on_a_bridge_do_not_meet_and_the_track_with_fewer_samples_gives_way():
    row, frame = np.array([1, 1, 2, 3, 4]), np.array([0, 1, 0, 2, 0])
    place = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0.2], [0, 0, 0], [0, 0, 6.0]], float)
    size, yaw = np.tile([4.0, 2.0, 1.5], (5, 1)), np.zeros(5)
    told = penetrating(row, frame, place, size, yaw, 0.7, np.zeros(5))
    assert told.tolist() == [False, False, True, False, False]
    assert not penetrating(row, frame, place, size, yaw, 0.7, np.full(5, 2.0)).any()  # not that sure of where they are


def test_what_floats_is_as_high_as_it_floats_over_a_sloping_road():
    generator = np.random.default_rng(1)
    row = np.repeat(np.arange(1, 8), 5)
    place = np.column_stack([generator.uniform(-30, 30, (35, 2)), np.zeros(35)])
    place[:, 2] = 0.03 * place[:, 0] - 0.01 * place[:, 1] + 4.0
    floats = row == 3
    place[floats, 2] += 2.0
    height = height_off_ground(row, place, 4)
    assert np.allclose(height[floats], 2.0, atol=0.02)
    assert np.allclose(height[~floats], 0.0, atol=0.02)
    assert not height_off_ground(row, place, 8).any()


def windows(motions, origin):
    """Windows of cars of 4 x 2 m that head along world x."""
    tracks = tracks_of(camera_path(TIMES), motions, origin=origin, stated=0.05)
    samples = tracks.samples
    for name, value in (("length", 4.0), ("width", 2.0), ("height", 1.5), ("yaw_rad", 0.0)):
        values = pa.array(np.full(samples.num_rows, value))
        samples = samples.set_column(samples.schema.get_field_index(name), samples.schema.field(name), values)
    tracks = dataclasses.replace(tracks, samples=samples)
    table = estimate_kinematics(tracks, camera_path(TIMES), KinematicsConfig(), seed=0, progress=no_progress).windows
    return {(row["track_id"], row["start_s"]): row["rejected"] for row in table.to_pylist() if row["track_id"]}


def test_a_car_that_drives_through_a_standing_one_is_refused_while_it_is_in_it():
    motions = {1: straight((15, 2), (0, 0)), 2: straight((6, 2), (3, 0))}
    found = windows(motions, "video")
    assert {found[1, start] for start in (0.0, 1.0, 2.0, 3.0)} == {None}
    # the second is in the first from 6 + 3 t = 11.7 to 18.3, from 1.9 to 4.1 s
    assert [found[2, start] for start in (0.0, 2.0, 3.0)] == [None, "penetration", "penetration"]
    assert set(windows(motions, "boxes").values()) == {None}


def test_a_car_that_flies_is_refused_and_those_on_the_road_are_not():
    motions = {index: straight((10 + 3 * index, 3 * index - 9), (0.8, 0)) for index in range(1, 6)}
    road = motions[3]
    motions[3] = lambda times: road(times) + np.array([0, 0, 2.5])
    found = windows(motions, "video")
    assert {reason for (track, _), reason in found.items() if track == 3} == {"off_ground"}
    assert {reason for (track, _), reason in found.items() if track != 3} == {None}
