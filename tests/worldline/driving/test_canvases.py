import numpy as np
import pytest

from schemas.artifact import rows_to_table
from schemas.driving import MAP_ELEMENTS, RoadMap
from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, rigid
from worldline.driving.boxes import BACK, FRONT, Boxes
from worldline.driving.canvases import FACE_SHADES, FARTHEST_LINE_M, box_canvas, project_segments, road_canvas

INTRINSICS = np.array([[150.0, 0, 96], [0, 150, 56], [0, 0, 1]])
CAMERA = rigid(WORLD_FROM_LEVEL_CAMERA, np.array([0.0, 0.0, 1.6]))
SIZE = (192, 112)


def _road_map(*lines: tuple[str, np.ndarray]) -> RoadMap:
    counts = [len(points) for _, points in lines]
    rows = [
        {"element_id": number, "kind": kind, "first_point": sum(counts[:number]), "points": len(points)}
        for number, (kind, points) in enumerate(lines)
    ]
    return RoadMap(rows_to_table(MAP_ELEMENTS, rows), np.concatenate([points for _, points in lines]).astype(float))


def _boxes(classes: tuple[str, ...], *rows: tuple[float, ...]) -> Boxes:
    table = np.array(rows, float)
    return Boxes(np.arange(1, len(table) + 1, dtype=np.int32), classes, table[:, :3], table[:, 3:6], table[:, 6])


def test_each_class_group_has_its_channel_and_the_nearer_box_is_painted_over_the_farther_one() -> None:
    boxes = _boxes(("pedestrian", "car", "cone"), (9, 0, 0.6, 1, 0.6, 2, np.pi), (30, 0, 0, 4, 4, 3, 0), (5, 0, 0, 1, 1, 3, 0))
    canvas = box_canvas(boxes, CAMERA, INTRINSICS, *SIZE)
    assert canvas[56, 96].tolist() == [0, FACE_SHADES[FRONT], 0]  # the cone before both is of no group
    assert canvas[56, 96 + 8].tolist() == [FACE_SHADES[BACK], 0, 0]


def test_half_a_pixel_of_a_box_is_half_its_shade() -> None:
    edge = 10 * 15.5 / 150  # projects to half a pixel beyond column 96 + 15
    canvas = box_canvas(_boxes(("car",), (12, 0, 0.6, 4, 2 * edge, 2, 0)), CAMERA, INTRINSICS, *SIZE)
    assert canvas[56, 96 + 15, 0] == pytest.approx(FACE_SHADES[BACK] / 2, abs=1)
    assert canvas[56, 96 + 16, 0] == 0


def test_a_line_on_the_road_is_drawn_where_it_projects() -> None:
    x = np.arange(-20.0, 120.0, 2.0)
    line = np.stack([x, np.full_like(x, 1.5), np.zeros_like(x)], axis=1)
    canvas = road_canvas(_road_map(("road_edge", line)), CAMERA, INTRINSICS, *SIZE)
    for depth in (6.0, 10.0, 20.0):
        column, row = 96 - 150 * 1.5 / depth, 56 + 150 * 1.6 / depth
        if row < SIZE[1]:
            assert canvas[int(row), int(column), 1] > 60
    assert (canvas[..., [0, 2]] == 0).all()
    farthest = int(56 + 150 * 1.6 / FARTHEST_LINE_M)
    assert (canvas[: farthest - 2] == 0).all()  # nothing beyond 75 m, and nothing over the horizon from behind the camera


def test_a_segment_from_behind_the_camera_is_cut_at_the_near_plane() -> None:
    ends = np.array([[(-1.0, -1.6, -5.0), (-1.0, 1.6, 5.0)]])  # crosses the plane of the camera at its height
    rays = ends @ INTRINSICS.T
    cut = project_segments(rays, *SIZE)
    whole = np.linspace(ends[0, 0], ends[0, 1], 100001)
    ahead = whole[whole[:, 2] > 0.1]
    pixels = (ahead @ INTRINSICS.T)[:, :2] / ahead[:, 2:]
    inside = pixels[((pixels > -np.array(SIZE)) & (pixels < 2 * np.array(SIZE))).all(axis=1)]
    assert np.allclose(cut[0], [inside[0], inside[-1]], atol=0.5)


def test_a_segment_wholly_behind_or_beyond_is_not_drawn() -> None:
    ends = np.array([[(0.0, 1.0, -5.0), (0.0, 1.0, -1.0)], [(0.0, 1.0, 80.0), (0.0, 1.0, 90.0)]])
    assert len(project_segments(ends @ INTRINSICS.T, *SIZE)) == 0


def test_lines_are_as_thick_as_a_share_of_the_height() -> None:
    across = np.array([(10.0, -30.0, 1.6), (10.0, 30.0, 1.6)])  # a level line at the height of the camera
    for factor in (1, 4):
        intrinsics = np.diag([factor, factor, 1]) @ INTRINSICS
        canvas = road_canvas(_road_map(("lane_line", across)), CAMERA, intrinsics, SIZE[0] * factor, SIZE[1] * factor)
        thickness = canvas[:, SIZE[0] * factor // 2, 0].sum() / 255
        assert thickness == pytest.approx(20 / 1280 * SIZE[1] * factor, abs=0.3)
