"""A procedural world says the same thing in its picture, its depth, its ids, its boxes and its motion."""

import cv2
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.spatial import ConvexHull

from worldline.worlds import LAYOUTS, Lens, build_street
from worldline.worlds.renderer import Renderer
from worldline.worlds.scene import Motion, Route
from worldline.worlds.truth import box_corners, projected_extent

LENS = Lens(320, 180, 256.0)
TIMES = (0.0, 2.0, 2.3)


@pytest.fixture(scope="module")
def street():
    return build_street("straight", np.random.default_rng(7), detail=0.25)


@pytest.fixture(scope="module")
def views(street):
    with Renderer(street, LENS) as renderer:
        return {time: renderer.draw(street.world_from_camera(time), time) for time in TIMES}


def rays(pose):
    """Return viewing directions `[H, W, 3]` in the world, one metre of depth long."""
    v, u = np.mgrid[0 : LENS.height, 0 : LENS.width] + 0.5
    directions = np.stack([(u - LENS.width / 2) / LENS.focal_px, (v - LENS.height / 2) / LENS.focal_px, np.ones_like(u)], -1)
    return directions @ pose[:3, :3].T


def project(points, pose):
    """Return pixels `[N, 2]` and depth `[N]`."""
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    return local[:, :2] / local[:, 2:] * LENS.focal_px + np.array([LENS.width, LENS.height]) / 2, local[:, 2]


def test_the_camera_looks_along_the_street_with_its_image_upright(street):
    pose = street.world_from_camera(0.0)
    right, down, forward = pose[:3, :3].T
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    assert forward @ [1, 0, 0] > 0.98
    assert down @ [0, 0, -1] > 0.99
    assert right @ [0, -1, 0] > 0.98
    assert pose[2, 3] == pytest.approx(1.6, abs=0.01)


def test_depth_on_the_road_is_that_of_the_plane_at_height_zero(street, views):
    for time, view in views.items():
        pose = street.world_from_camera(time)
        expected = -pose[2, 3] / rays(pose)[..., 2]
        lane = np.s_[130:180, 140:180]
        road = view.ids[lane] == 0
        assert road.mean() > 0.5
        np.testing.assert_allclose(view.depth_m[lane][road], expected[lane][road], rtol=2e-4)


def test_the_sky_has_neither_depth_nor_id(street, views):
    sky = rays(street.world_from_camera(0.0))[..., 2] > 0.25
    view = views[0.0]
    empty = sky & (view.depth_m == 0)
    assert empty.sum() > 200
    assert (view.ids[empty] == 0).all()
    assert view.rgb[empty].mean() > 120


def test_static_points_lie_where_the_depth_of_another_frame_says(street, views):
    before, after = views[2.0], views[2.3]
    pose = street.world_from_camera(2.0)
    known = (before.depth_m > 0) & (before.depth_m < 60) & (before.ids == 0)
    points = (pose[:3, 3] + rays(pose) * before.depth_m[..., None])[known]
    pixels, depth = project(points, street.world_from_camera(2.3))
    column, row = np.floor(pixels).astype(int).T
    inside = (column >= 0) & (column < LENS.width) & (row >= 0) & (row < LENS.height) & (depth > 1)
    there = after.depth_m[row[inside], column[inside]]
    agree = np.abs(there - depth[inside]) < 0.03 * depth[inside]
    assert agree.mean() > 0.85  # the rest is hidden now, thin, or seen at a grazing angle
    colour_error = np.abs(before.rgb[known][inside].astype(int) - after.rgb[row[inside], column[inside]]).mean(axis=1)[agree]
    unmoved = np.abs(before.rgb[known][inside].astype(int) - after.rgb[known][inside]).mean(axis=1)[agree]
    assert np.median(colour_error) < 0.6 * np.median(unmoved)


def test_every_visible_pixel_of_an_actor_lies_in_its_projected_box(street, views):
    checked = 0
    for time, view in views.items():
        pose = street.world_from_camera(time)
        for actor in street.actors:
            seen = view.ids == actor.track_id
            extent = projected_extent(box_corners(actor, time), LENS, pose)
            if seen.sum() == 0:
                continue
            rows, columns = np.nonzero(seen)
            assert extent[0] - 1 <= columns.min()
            assert extent[1] - 1 <= rows.min()
            assert columns.max() <= extent[2]
            assert rows.max() <= extent[3]
            checked += 1
    assert checked > 10


def test_an_actor_that_nothing_hides_fills_its_projected_box(street, views):
    filled = []
    for time, view in views.items():
        pose = street.world_from_camera(time)
        for actor in street.actors:
            corners, depth = project(box_corners(actor, time), pose)
            low, high = corners.min(axis=0), corners.max(axis=0)
            if depth.min() < 4 or low.min() < 2 or (high > (LENS.width - 2, LENS.height - 2)).any() or high[1] - low[1] < 12:
                continue
            around = view.depth_m[int(low[1]) : int(high[1]) + 1, int(low[0]) : int(high[0]) + 1]
            if ((around > 0) & (around < depth.min() - 0.3) & (around < 100)).mean() > 0.3:
                continue
            hull = ConvexHull(corners).volume  # area in two dimensions
            filled.append(((view.ids == actor.track_id).sum() / hull, actor.class_name))
    cars = [share for share, name in filled if name == "car"]
    assert len(cars) >= 2
    assert max(cars) > 0.7
    assert max(share for share, _ in filled) <= 1.05


def test_actors_travel_the_integral_of_their_speed(street):
    movers = [actor for actor in street.actors if actor.moving(5.0)]
    assert len(movers) >= 5
    for actor in movers:
        for start, end in ((0.0, 0.1), (1.0, 3.7), (2.9, 6.9)):
            moved = actor.motion.world_from_actor(end)[:3, 3] - actor.motion.world_from_actor(start)[:3, 3]
            expected, _ = quad(actor.motion.speed, start, end, points=[k for k in actor.motion.knot_s if start < k < end] or None)
            assert np.linalg.norm(moved) == pytest.approx(expected, abs=1e-3)


def test_distance_is_the_integral_of_speed_before_between_and_after_the_knots():
    route = Route.through(np.stack([np.arange(0, 100, 0.1), np.zeros(1000)], axis=1))
    motion = Motion(route, 10.0, np.array([1.0, 3.0, 4.0]), np.array([2.0, 6.0, 1.0]))
    assert motion.distance(0.0) == 0.0
    assert motion.distance(1.0) == pytest.approx(2.0)  # constant before the first knot
    assert motion.distance(3.0) == pytest.approx(2.0 + 8.0)  # mean speed 4 over 2 s
    assert motion.distance(4.0) == pytest.approx(10.0 + 3.5)
    assert motion.distance(6.0) == pytest.approx(13.5 + 2.0)  # constant after the last


def test_a_route_along_an_arc_knows_its_heading():
    angle = np.linspace(0, 1.2, 2000)
    route = Route.through(50 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1))
    xy, heading = route.at(50 * 0.7)
    np.testing.assert_allclose(xy, [50 * np.sin(0.7), 50 * (1 - np.cos(0.7))], atol=1e-3)
    assert heading == pytest.approx(0.7, abs=1e-4)
    assert route.offset(3.0).arc_m[-1] == pytest.approx(47 * 1.2, abs=1e-2)  # the inner lane is shorter


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_nobody_drives_through_anybody(layout):
    scene = build_street(layout, np.random.default_rng(3), detail=0.1)
    for time in np.arange(0.0, 7.2, 0.3):
        outlines = [box_corners(actor, time)[:4, :2].astype(np.float32) for actor in scene.actors]
        pose = scene.ego.world_from_actor(float(time))
        ego = np.array([(-3.5, -0.9), (1.0, -0.9), (1.0, 0.9), (-3.5, 0.9)]) @ pose[:2, :2].T + pose[:2, 3]
        outlines.append(ego.astype(np.float32))
        for index, first in enumerate(outlines):
            for other, second in enumerate(outlines[:index]):
                area, _ = cv2.intersectConvexConvex(first, second)
                assert area == 0, f"{layout}: actors {index + 1} and {other + 1} overlap at {time:.1f} s"


def test_at_a_junction_cars_cross_the_cameras_way():
    scene = build_street("junction", np.random.default_rng(3), detail=0.1)
    ego = scene.ego.world_from_actor(0.0)[:3, 0]
    headings = [actor.motion.world_from_actor(0.0)[:3, 0] @ ego for actor in scene.actors if actor.class_name == "car"]
    assert sum(abs(value) < 0.1 for value in headings) == 2


def test_no_patch_of_the_road_looks_like_another(street):
    road = max((mesh for mesh in street.static if mesh.lit), key=lambda mesh: mesh.texture.size)
    grey = cv2.cvtColor(road.texture, cv2.COLOR_RGB2GRAY)
    rng = np.random.default_rng(0)
    for _ in range(4):
        row, column = (int(rng.integers(0, size - 24)) for size in grey.shape)
        score = cv2.matchTemplate(grey, grey[row : row + 24, column : column + 24], cv2.TM_CCOEFF_NORMED)
        assert score[row, column] > 0.99
        score[max(row - 12, 0) : row + 12, max(column - 12, 0) : column + 12] = 0
        assert score.max() < 0.93
