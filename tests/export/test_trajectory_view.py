"""Trajectories seen from above: where lines lie in the drawing follows from where they lie in the world."""

import re

import numpy as np

from schemas.artifact import rows_to_table
from schemas.driving import MAP_ELEMENTS, TRAJECTORY_CHECKS, RoadMap, Trajectory
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.export.trajectory_view import draw_trajectories

NO_TRACKS = Tracks(TRACK_SAMPLES.empty_table(), TRACK_OBJECTS.empty_table(), "boxes", "annotations", 0.0, "given")


def drive(left_m: float, accepted: bool = True, yaw: float = 0.0) -> Trajectory:
    """20 m straight ahead, moved to the left by the end, in a world that is turned by `yaw`."""
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, :2, :2] = turn
    poses[:, :2, 3] = np.stack([np.linspace(0, 20, 5), np.linspace(0, left_m, 5)], axis=1) @ turn.T
    checks = rows_to_table(TRAJECTORY_CHECKS, [])
    return Trajectory("a", "lane_change_left", np.arange(5) / 10, poses, 4.5, 1.8, accepted, "", checks)


def points(drawing: str, css: str) -> np.ndarray:
    (found,) = re.findall(rf'points="([^"]*)" class="{css}"', drawing)
    return np.array([[float(number) for number in pair.split(",")] for pair in found.split()])


def test_a_novel_path_ends_as_far_to_the_left_of_the_recorded_one_as_it_drove_whatever_the_world_is_turned_by():
    for yaw in (0.0, 1.2):
        drawing = draw_trajectories(drive(0.0, yaw=yaw), (drive(3.0, yaw=yaw),), NO_TRACKS, RoadMap.none())
        recorded, novel = points(drawing, "recorded"), points(drawing, "novel")
        scale = (recorded[-1, 0] - recorded[0, 0]) / 20
        assert abs((recorded[-1, 1] - novel[-1, 1]) / scale - 3.0) < 0.05  # up in the drawing is the ego's left


def test_a_rejected_path_is_told_apart():
    drawing = draw_trajectories(drive(0.0), (drive(3.0, accepted=False),), NO_TRACKS, RoadMap.none())
    assert len(points(drawing, "novel rejected")) == 5


def test_lines_of_the_map_are_drawn_by_their_kind():
    rows = [{"element_id": 0, "kind": "lane_line", "first_point": 0, "points": 2}]
    road = RoadMap(rows_to_table(MAP_ELEMENTS, rows), np.array([[0.0, 2.0, 0.0], [20.0, 2.0, 0.0]]))
    drawing = draw_trajectories(drive(0.0), (), NO_TRACKS, road)
    line, recorded = points(drawing, "lane_line"), points(drawing, "recorded")
    scale = (recorded[-1, 0] - recorded[0, 0]) / 20
    assert np.allclose((recorded[0, 1] - line[:, 1]) / scale, 2.0, atol=0.05)
