import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stages.reconstruct.driving_seeds import DepthField, Sightings, _shift, follow_object
from stages.reconstruct.motion_seeds import gaussian_flow_drive
from stages.reconstruct.seeding import random_seeds, seeds_from_depth, seeds_from_points
from stages.reconstruct.views import Views

FRAMES, WIDTH, HEIGHT, FOCAL = 20, 160, 90, 120.0


def road_scene(speed: float) -> tuple[Views, DepthField, np.ndarray]:
    """A camera 1.5 over a flat road (y down); a box of a car comes towards it from 40 ahead, 3 to the left."""
    times = np.linspace(0, 1, FRAMES)
    feet = np.stack([np.full(FRAMES, -3.0), np.full(FRAMES, 1.5), 40 - speed * times], axis=1)
    labels = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    for frame, (x, y, z) in enumerate(feet):
        left, right = WIDTH / 2 + FOCAL * (x - 1) / z, WIDTH / 2 + FOCAL * (x + 1) / z
        top, bottom = HEIGHT / 2 + FOCAL * (y - 1.5) / z, HEIGHT / 2 + FOCAL * y / z
        labels[frame, round(top) : round(bottom), max(0, round(left)) : max(0, round(right))] = 3
    rng = np.random.default_rng(0)
    road = np.stack([rng.uniform(-8, 8, 4000), np.full(4000, 1.5), rng.uniform(4, 60, 4000)], axis=1)
    pixels = road[:, :2] / road[:, 2:] * FOCAL + [WIDTH / 2, HEIGHT / 2]
    field = DepthField([cKDTree(pixels)] * FRAMES, [road[:, 2]] * FRAMES, far=200.0, typical=20.0, reach=20.0)
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    images = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    return Views(images, labels, np.tile(np.eye(4), (FRAMES, 1, 1)), intrinsics, times, np.arange(FRAMES)), field, feet


def test_an_oncoming_car_is_followed_on_the_road():
    views, field, feet = road_scene(speed=28.0)
    trajectory = follow_object(views, field, 3, powers=3)
    places = np.polynomial.polynomial.polyval(views.times, trajectory).T
    error = np.linalg.norm(places - feet, axis=1)
    assert (error / feet[:, 2]).max() < 0.1  # of its distance, although a pixel is worth 8 % of it at 40
    assert np.median(error[-8:]) < 0.6
    speeds = np.diff(places[:, 2]) / np.diff(views.times)
    assert np.median(speeds) == pytest.approx(-28, rel=0.1)


def test_a_motion_around_a_time_centre_is_the_same_motion():
    rng = np.random.default_rng(1)
    trajectory = rng.standard_normal((4, 3))
    paths = _shift(trajectory, 0.3)[1:]
    local = gaussian_flow_drive(Sightings(np.array([0.3]), paths[None]))["position_polynomial"][0]
    for time in (0.0, 0.3, 0.9):
        scaled = 0.5 * (time - 0.3)
        moved = sum(local[n] * scaled ** (n + 1) for n in range(3))
        expected = sum(trajectory[n] * (time**n - 0.3**n) for n in range(1, 4))
        np.testing.assert_allclose(moved, expected, atol=1e-12)


def test_random_seeds_fill_their_box():
    seeds = random_seeds([-1, 0, 2], [1, 4, 3], 500, np.random.default_rng(0))
    assert (seeds.means >= [-1, 0, 2]).all()
    assert (seeds.means <= [1, 4, 3]).all()
    np.testing.assert_allclose(seeds.means.mean(axis=0), [0, 2, 2.5], atol=0.2)
    assert 500 * (2 * seeds.sizes[0]) ** 3 == pytest.approx(8.0)  # together as large as the box


def test_seeds_on_points_reach_halfway_to_their_neighbours():
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    seeds = seeds_from_points(grid, np.full((64, 3), 0.2), 100, np.random.default_rng(0))
    assert len(seeds.means) == 64
    np.testing.assert_allclose(seeds.sizes, 0.5)
    some = seeds_from_points(grid, np.arange(192).reshape(64, 3) / 192, 10, np.random.default_rng(0))
    assert len(some.means) == 10
    for mean, color in zip(some.means, some.colors, strict=True):
        np.testing.assert_array_equal(color, np.arange(192).reshape(64, 3)[(grid == mean).all(axis=1)][0] / 192)


def test_seeds_from_depth_lie_on_the_surface_with_its_colours_and_labels():
    views, _, _ = road_scene(speed=28.0)
    rows = np.arange(HEIGHT) + 0.5 - HEIGHT / 2
    depth = np.where(rows > 2, 1.5 * FOCAL / np.maximum(rows, 1), 0.0)[None, :, None]
    depths = np.broadcast_to(depth, views.labels.shape).astype(np.float32)
    images = np.broadcast_to(np.arange(HEIGHT, dtype=np.uint8)[None, :, None, None], views.images.shape)
    seeds = seeds_from_depth(dataclasses.replace(views, depths=depths, images=images), 300, np.random.default_rng(0))
    np.testing.assert_allclose(seeds.means[:, 1], 1.5, rtol=1e-5)  # on the road
    row = np.round(HEIGHT / 2 + FOCAL * 1.5 / seeds.means[:, 2] - 0.5)
    np.testing.assert_allclose(seeds.colors[:, 0], row / 255.0)
    assert set(np.unique(seeds.instances)) <= {0, 3}
    assert (seeds.sizes > 0).all()


def test_without_depths_there_are_no_seeds_from_depth():
    with pytest.raises(ValueError, match="no depth"):
        seeds_from_depth(road_scene(speed=28.0)[0], 10, np.random.default_rng(0))
