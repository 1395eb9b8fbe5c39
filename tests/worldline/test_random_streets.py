"""Random streets: their traffic keeps apart, fills the view, and most often leaves the lane on the left free."""

import cv2
import numpy as np
import pytest

from worldline.worlds.layouts import sample_layout
from worldline.worlds.light import WEATHERS
from worldline.worlds.road_map import road_map
from worldline.worlds.scene import Motion
from worldline.worlds.street import centre_line
from worldline.worlds.traffic import arc_at, busy_traffic
from worldline.worlds.truth import box_corners

EGO = np.array([(-3.5, -0.9), (1.0, -0.9), (1.0, 0.9), (-3.5, 0.9)])


def street(number):
    """Return plan, centre line, arc length of its origin, the camera's motion and the traffic of a street."""
    rng = np.random.default_rng((11, number))
    layout = sample_layout(rng)
    plan = layout.plan(10.0)
    centre, origin_m = centre_line(layout)
    lane = centre.offset(layout.ego_d_m)
    ego = Motion(lane, arc_at(lane, centre, origin_m, 0.0), *np.array(layout.ego_mps).T)
    return layout, plan, centre, origin_m, ego, lambda: busy_traffic(rng, layout, plan, centre, origin_m, 0.2, ego)


@pytest.mark.parametrize("number", range(3))
def test_nobody_drives_through_anybody(number):
    *_, ego, traffic = street(number)
    actors = traffic()
    for time in np.arange(0.0, 8.0, 0.25):
        outlines = [box_corners(actor, time)[:4, :2].astype(np.float32) for actor in actors]
        pose = ego.world_from_actor(float(time))
        outlines.append((EGO @ pose[:2, :2].T + pose[:2, 3]).astype(np.float32))
        for index, first in enumerate(outlines):
            for second in outlines[:index]:
                if np.abs(first.mean(axis=0) - second.mean(axis=0)).max() < 12:
                    assert cv2.intersectConvexConvex(first, second)[0] == 0


def test_a_view_shows_about_six_to_ten_cars_and_the_left_lane_is_often_free():
    counts, free = [], []
    for number in range(8):
        _, _, _, _, ego, traffic = street(number)
        cars = [actor for actor in traffic() if actor.class_name != "pedestrian"]
        for time in (0.0, 1.3, 2.6, 3.9):
            ego_from_world = np.linalg.inv(ego.world_from_actor(time))
            local = np.array([(ego_from_world @ actor.motion.world_from_actor(time))[:2, 3] for actor in cars])
            counts.append(int(((local[:, 0] > 8) & (local[:, 0] < 45) & (np.abs(local[:, 1]) < 0.62 * local[:, 0])).sum()))
        free.append(True)
        for step in range(40):
            pose = ego.world_from_actor(step / 10)
            shifted = (EGO + np.array([0.0, 3.2 * step / 39])) @ pose[:2, :2].T + pose[:2, 3]
            outlines = [box_corners(actor, step / 10)[:4, :2] for actor in cars]
            near = [outline for outline in outlines if np.abs(outline.mean(axis=0) - shifted.mean(axis=0)).max() < 9]
            overlaps = [cv2.intersectConvexConvex(shifted.astype(np.float32), o.astype(np.float32))[0] for o in near]
            free[-1] &= not any(overlaps)
    assert 5.5 < np.mean(counts) < 10.5
    assert np.mean(free) >= 0.6


def test_a_change_of_three_and_a_half_metres_to_the_left_stays_in_drivable_area():
    inside = []
    for number in range(40):
        _, plan, centre, origin_m, ego, _ = street(number)
        areas = [area[:, :2].astype(np.float32) for area in road_map(plan, centre, origin_m).lines("drivable")]
        pose = ego.world_from_actor(3.9)
        corners = (EGO + np.array([0.0, 3.5])) @ pose[:2, :2].T + pose[:2, 3]
        inside.append(
            all(max(cv2.pointPolygonTest(area, [float(v) for v in corner], False) for area in areas) > 0 for corner in corners)
        )
    assert np.mean(inside) > 0.95


def test_streets_differ_in_bends_crossings_parking_and_weather():
    layouts = [street(number)[0] for number in range(60)]
    turns = np.array([layout.turn_rad_per_m for layout in layouts])
    assert min((turns > 0).sum(), (turns < 0).sum(), (turns == 0).sum()) > 5
    crossed = np.array([layout.cross_street_m is not None for layout in layouts])
    parked = np.array([layout.parked is not None for layout in layouts])
    zebras = np.array([bool(layout.crosswalk_m) for layout in layouts])
    for share in (crossed.mean(), parked.mean(), zebras.mean()):
        assert 0.2 < share < 0.85
    assert {layout.weather for layout in layouts} == set(WEATHERS)
    assert all(6 <= speed <= 9 for layout in layouts for _, speed in layout.ego_mps)


def test_lines_of_the_map_have_a_point_every_metre_and_keep_their_distance_from_the_centre_line():
    _, plan, centre, origin_m, _, _ = street(5)
    made = road_map(plan, centre, origin_m)
    for kind in ("lane_line", "road_edge", "crosswalk", "drivable"):
        for line in made.lines(kind):
            assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() < 1.25
    main = [line for line in made.lines("road_edge") if len(line) > 40]
    for line in main:
        distance = np.linalg.norm(line[:, None, :2] - centre.xy[None], axis=2).min(axis=1)
        np.testing.assert_allclose(distance, plan.road_half_m, atol=0.03)
