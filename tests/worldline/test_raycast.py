"""A ray caster is right where its pictures agree with the equations of what they show."""

import dataclasses

import numba
import numpy as np
import pytest

from worldline.cameras import invert_rigid, pixel_centres, pixel_rays, project, rigid, rotation_from_vector, scale_intrinsics
from worldline.worlds.protocols import look_at
from worldline.worlds.raycast import SUN, Paint, Solid, cast

RED = Paint((0.8, 0.1, 0.1), (0.9, 0.6, 0.2), 0.4)
SIZE = 48
K = np.array([[50.0, 0, 23.0], [0, 55.0, 25.0], [0, 0, 1]])
TURN = rotation_from_vector(np.array([0.4, -0.7, 0.3]))
SIZES = {"sphere": (0.7,), "box": (0.7, 0.4, 0.5), "capsule": (0.3, 0.6), "floor": (0.8, 0.6)}


def solid(shape, **changes):
    values = {
        "shape": shape, "size": SIZES[shape], "paint": RED, "position": np.array([0.1, -0.2, 0.3]), "rotation": TURN,
        "linear": np.array([1.0, -2.0, 0.5]), "angular": np.array([0.7, 0.2, -1.5]), "instance": 3,
    }  # fmt: skip
    return Solid(**(values | changes))


def camera():
    return invert_rigid(look_at(np.array([0.6]), np.array([0.5]), 3.0))[0]


def seen(shape, **changes):
    return cast([solid(shape, **changes)], camera(), K, SIZE, SIZE, supersampling=1)


def surface_points(picture):
    """Return the world points `[M, 3]` that the depths say, and the pixels `[M]` they belong to."""
    mask = picture.depths > 0
    points = pixel_rays(pixel_centres(SIZE, SIZE), K)[mask] * picture.depths[mask][:, None].astype(np.float64)
    world_from_camera = invert_rigid(camera())
    return points @ world_from_camera[:3, :3].T + world_from_camera[:3, 3], mask


def distance_outside(shape, points):
    """Return the signed distance of points `[M, 3]` in the solid's frame from its surface; for a floor, from its rectangle."""
    if shape == "sphere":
        return np.linalg.norm(points, axis=-1) - SIZES[shape][0]
    if shape == "box":
        beyond = np.abs(points) - SIZES[shape]
        return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(axis=-1), 0)
    if shape == "capsule":
        radius, half = SIZES[shape]
        nearest = np.clip(points[..., 2], -half, half)[..., None] * [0, 0, 1]
        return np.linalg.norm(points - nearest, axis=-1) - radius
    beyond = np.abs(points) - [*SIZES[shape], 0.0]
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1)


@pytest.mark.parametrize("shape", SIZES)
def test_every_hit_lies_on_the_surface_and_every_ray_that_passes_near_enough_hits(shape):
    picture = seen(shape)
    points, mask = surface_points(picture)
    local = (points - solid(shape).position) @ TURN
    np.testing.assert_allclose(distance_outside(shape, local), 0, atol=2e-6)
    # Brute force: march along every ray in steps far shorter than a pixel is wide, and see which get inside.
    steps = np.linspace(1.0, 5.0, 3000)[:, None, None, None]
    pose = invert_rigid(camera())
    eye, rays = (pose[:3, 3] - solid(shape).position) @ TURN, pixel_rays(pixel_centres(SIZE, SIZE), K) @ pose[:3, :3].T @ TURN
    closest = np.min([distance_outside(shape, eye + step * rays) for step in steps], axis=0)
    assert mask[closest < -2e-3].all()
    assert not mask[closest > 2e-3].any()
    assert 100 < mask.sum() < SIZE * SIZE / 2


@pytest.mark.parametrize("shape", ["sphere", "box", "capsule"])
def test_the_first_hit_is_the_near_side(shape):
    picture = seen(shape)
    points, mask = surface_points(picture)
    eye = invert_rigid(camera())[:3, 3]
    inward = points + 0.01 * (points - eye) / np.linalg.norm(points - eye, axis=1, keepdims=True)
    inside = distance_outside(shape, (inward - solid(shape).position) @ TURN) < 0
    assert inside.mean() > 0.95  # but for the rim, where a ray leaves again at once
    assert (picture.normals[mask] * pixel_rays(pixel_centres(SIZE, SIZE), K)[mask]).sum(axis=1).max() <= 1e-6


@pytest.mark.parametrize("shape", ["sphere", "box", "capsule"])
def test_normals_are_the_slope_of_the_distance(shape):
    picture = seen(shape)
    points, mask = surface_points(picture)
    step = 1e-4
    local = (points - solid(shape).position) @ TURN
    slope = np.stack(
        [distance_outside(shape, local + step * axis) - distance_outside(shape, local - step * axis) for axis in np.eye(3)],
        axis=1,
    )
    expected = slope / (2 * step) @ TURN.T @ camera()[:3, :3].T
    smooth = np.abs(np.linalg.norm(expected, axis=1) - 1) < 1e-3  # not on an edge
    assert smooth.mean() > 0.98
    np.testing.assert_allclose(picture.normals[mask][smooth], expected[smooth], atol=2e-3)


def test_normals_agree_with_the_depths_around_them():
    picture = seen("sphere")
    cloud = pixel_rays(pixel_centres(SIZE, SIZE), K) * picture.depths[..., None].astype(np.float64)
    across, along = cloud[1:-1, 2:] - cloud[1:-1, :-2], cloud[2:, 1:-1] - cloud[:-2, 1:-1]
    met = picture.depths > 0
    inner = met[1:-1, 2:] & met[1:-1, :-2] & met[2:, 1:-1] & met[:-2, 1:-1] & (picture.normals[1:-1, 1:-1, 2] < -0.6)
    normal = np.cross(along[inner], across[inner])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    assert inner.sum() > 80
    assert (normal * picture.normals[1:-1, 1:-1][inner]).sum(axis=-1).min() > 0.99


def test_a_sphere_at_the_centre_of_the_image_has_the_textbook_depth():
    pose = rigid(np.eye(3), np.array([0.0, 0.0, 5.0]))
    ball = solid("sphere", size=(2.0,), position=np.zeros(3), rotation=np.eye(3))
    picture = cast([ball], pose, np.array([[40.0, 0, 10.5], [0, 40, 10.5], [0, 0, 1]]), 21, 21, supersampling=1)
    assert picture.depths[10, 10] == pytest.approx(3.0, abs=1e-6)
    np.testing.assert_allclose(picture.normals[10, 10], [0, 0, -1], atol=1e-6)


def test_known_points_are_drawn_where_the_camera_model_projects_them():
    beads = np.array([[0.3, 0.2, 0.1], [-0.4, 0.5, 0.3], [0.1, -0.6, 0.7]])
    solids = [solid("sphere", size=(0.05,), position=bead, instance=k) for k, bead in enumerate(beads, 1)]
    fine = scale_intrinsics(K, 8, 8)
    picture = cast(solids, camera(), fine, 8 * SIZE, 8 * SIZE, supersampling=1)
    pixels, depths = project(beads @ camera()[:3, :3].T + camera()[:3, 3], fine)
    for k, (pixel, depth) in enumerate(zip(pixels, depths, strict=True), 1):
        rows, columns = np.nonzero(picture.instances == k)
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], pixel, atol=0.3)
        assert depth - 0.0501 < picture.depths[rows, columns].min() < depth - 0.049


@pytest.mark.parametrize("shape", SIZES)
def test_the_velocity_of_a_surface_point_is_where_it_goes(shape):
    picture = seen(shape)
    points, mask = surface_points(picture)
    thing, step = solid(shape), 1e-5
    carried = []
    for sign in (1, -1):
        turned = rotation_from_vector(sign * step * thing.angular)
        carried.append(thing.position + sign * step * thing.linear + (points - thing.position) @ turned.T)
    np.testing.assert_allclose(picture.velocities[mask], (carried[0] - carried[1]) / (2 * step), atol=1e-5)
    assert not picture.velocities[~mask].any()


def test_the_nearer_of_two_solids_hides_the_other():
    near = solid("box", position=np.array([0.8, 0.5, 0.5]), instance=1)
    far = solid("sphere", size=(3.0,), position=np.array([-3.0, -2.0, -2.0]), instance=2)
    for order in ([near, far], [far, near]):
        picture = cast(order, camera(), K, SIZE, SIZE, supersampling=1)
        alone = cast([near], camera(), K, SIZE, SIZE, supersampling=1)
        hidden = cast([far], camera(), K, SIZE, SIZE, supersampling=1)
        first = (alone.depths > 0) & ((hidden.depths == 0) | (alone.depths < hidden.depths))
        np.testing.assert_array_equal(picture.instances == 1, first)
        np.testing.assert_array_equal(picture.depths, np.where(first, alone.depths, hidden.depths))


def test_the_paint_turns_with_the_solid():
    # Turning the solid and the camera together about the axis of the light changes nothing in the picture.
    about_the_light = rotation_from_vector(0.9 * SUN / np.linalg.norm(SUN))
    thing = solid("capsule")
    moved = solid("capsule", position=about_the_light @ thing.position, rotation=about_the_light @ thing.rotation)
    world_from_world = rigid(about_the_light, np.zeros(3))
    before = cast([thing], camera(), K, SIZE, SIZE)
    after = cast([moved], camera() @ invert_rigid(world_from_world), K, SIZE, SIZE)
    assert np.abs(before.rgb.astype(int) - after.rgb).max() <= 1
    turned = cast(
        [solid("capsule", rotation=thing.rotation @ rotation_from_vector(np.array([0, 0, 1.5])))], camera(), K, SIZE, SIZE
    )
    np.testing.assert_array_equal(turned.instances, before.instances)  # the same outline
    assert np.abs(before.rgb.astype(int) - turned.rgb)[before.instances > 0].mean() > 10  # and another side


def test_supersampling_shows_the_covered_share_of_a_pixel():
    white = Paint((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.0)
    wall = solid("box", size=(90.0, 90.0, 1.0), paint=white, position=np.array([90.0, 0.0, 5.0]), rotation=np.eye(3))
    K_edge = np.array([[4.0, 0, 4.75], [0, 4.0, 4.5], [0, 0, 1]])  # the wall's edge x = 0 falls on image column 4.75
    picture = cast([wall], np.eye(4), K_edge, 9, 9, background=(0.0, 0.0, 0.0), supersampling=4)
    assert picture.rgb[4, 4, 0] / picture.rgb[4, 5, 0] == pytest.approx(0.25, abs=0.01)
    assert picture.depths[4, 4] == 0  # the ray through the centre misses


def test_what_lies_behind_the_camera_is_not_seen():
    pose = rigid(np.eye(3), np.array([0.0, 0.0, -4.0]))
    for shape in ("sphere", "box", "floor"):
        picture = cast([solid(shape)], pose, K, SIZE, SIZE, supersampling=1)
        assert not picture.depths.any()


def test_an_empty_world_shows_the_background():
    picture = cast([], camera(), K, 5, 4, background=(0.2, 0.4, 0.6))
    np.testing.assert_array_equal(picture.rgb, np.broadcast_to([51, 102, 153], (4, 5, 3)))


def test_one_thread_and_two_give_the_same_bytes():
    pictures = []
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            pictures.append(cast([solid("capsule"), solid("floor")], camera(), K, SIZE, SIZE))
    finally:
        numba.set_num_threads(before)
    for name in ("rgb", "depths", "normals", "velocities", "instances"):
        assert getattr(pictures[0], name).tobytes() == getattr(pictures[1], name).tobytes()


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="'cone'"):
        cast([dataclasses.replace(solid("box"), shape="cone")], camera(), K, 4, 4)
