"""What the street case tells the models of moving objects is true of a box that is known to speed up."""

import dataclasses

import numpy as np
import pytest

from benchmarks import reconstruct_streets as streets
from stages.reconstruct.views import Views
from worldline.cameras import invert_rigid
from worldline.worlds.protocols import look_at
from worldline.worlds.raycast import Paint, Solid, cast

START, SPEED, PUSH = np.array([-0.8, 0.1, 0.3]), np.array([0.9, 0.2, 0.0]), np.array([0.5, -0.3, 0.0])
TIMES = np.linspace(0, 1, 9)
K = np.array([[60.0, 0, 32.0], [0, 60.0, 24.0], [0, 0, 1]])
STILL = np.zeros(3)


@pytest.fixture(scope="module")
def views():
    camera = invert_rigid(look_at(np.array([0.4]), np.array([0.6]), 4.0))[0]
    paint = Paint((0.8, 0.1, 0.1), (0.9, 0.3, 0.2), 0.5)
    floor = Solid("floor", (99.0, 99.0), paint, STILL, np.eye(3), STILL, STILL)
    pictures = []
    for time in TIMES:
        place = START + SPEED * time + PUSH * time**2
        pictures.append(cast([floor, Solid("sphere", (0.3,), paint, place, np.eye(3), STILL, STILL, 5)], camera, K, 64, 48))
    return Views(
        images=np.stack([picture.rgb for picture in pictures]),
        labels=np.stack([picture.instances for picture in pictures]),
        camera_from_world=np.repeat(camera[None], len(TIMES), axis=0),
        intrinsics=K,
        times=TIMES,
        frames=np.arange(len(TIMES)),
        depths=np.stack([picture.depths for picture in pictures]),
    )


@pytest.fixture(scope="module")
def points(views):
    return streets.sample_points(views, np.random.default_rng(0))


def test_points_lie_on_what_the_pixels_show_and_movers_come_first(points):
    movers = points.labels > 0
    assert 0 < movers.sum() <= streets.MOVING
    assert movers[: movers.sum()].all()
    centres = START + SPEED * points.times[movers, None] + PUSH * points.times[movers, None] ** 2
    np.testing.assert_allclose(np.linalg.norm(points.means[movers] - centres, axis=1), 0.3, atol=1e-5)
    np.testing.assert_allclose(points.means[~movers][:, 2], 0.0, atol=1e-5)


def test_the_parabola_of_an_objects_points_has_its_speed_and_its_push(views, points):
    sightings = streets.follow(views, points)
    np.testing.assert_array_equal(sightings.times, points.times[points.labels > 0])
    speeds = SPEED + 2 * PUSH * sightings.times[:, None]
    assert np.abs(sightings.paths[:, 0] - speeds).max() < 0.12  # the side that is seen changes a little as it passes by
    assert np.abs(sightings.paths[:, 1] - PUSH).max() < 0.1


def test_an_object_seen_too_seldom_is_taken_to_stand(views, points):
    seldom = dataclasses.replace(views, labels=np.where(np.arange(len(TIMES))[:, None, None] < 3, views.labels, 0))
    assert not streets.follow(seldom, points).paths.any()
