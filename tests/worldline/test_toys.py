"""The small worlds move as they say they do, and a capture of them holds what its protocol promises."""

import itertools

import numpy as np
import pytest

from worldline.cameras import invert_rigid, pixel_centres, pixel_rays, rotation_from_vector, vector_from_rotation
from worldline.worlds.protocols import SPLITS, TIMES, capture
from worldline.worlds.toys import APPEARS, HIGH, JUMPS, LOW, TOYS, bounce

MOMENTS = (0.03, 0.2, 0.41, 0.63, 0.77, 0.97)


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("time", MOMENTS)
def test_velocities_are_the_finite_differences_of_the_poses(name, time):
    step = 1e-5
    for before, now, after in zip(*(TOYS[name](time + offset) for offset in (-step, 0.0, step)), strict=True):
        np.testing.assert_allclose((after.position - before.position) / (2 * step), now.linear, atol=1e-6)
        turned = vector_from_rotation(after.rotation @ before.rotation.T) / (2 * step)
        np.testing.assert_allclose(turned, now.angular, atol=1e-5)


@pytest.mark.parametrize("name", TOYS)
def test_only_what_is_static_stands_still_and_keeps_its_colours(name):
    first, last = TOYS[name](0.1), TOYS[name](0.35)
    for before, after in zip(first, last, strict=True):
        changed = before.paint != after.paint or not np.allclose(before.position, after.position)
        changed |= not np.allclose(before.rotation, after.rotation)
        assert changed == (before.instance > 0)


@pytest.mark.parametrize("name", TOYS)
def test_everything_stays_within_the_bounds(name):
    for time in np.linspace(0, 1, 41):
        for solid in TOYS[name](float(time)):
            assert (solid.position >= LOW).all()
            assert (solid.position <= HIGH).all()


def test_the_ball_falls_freely_and_touches_the_floor_without_entering_it():
    def ball(time):
        return next(solid for solid in bounce(time) if solid.instance == 1)

    heights = np.array([ball(time).position[2] - ball(time).size[0] for time in np.linspace(0, 1, 2001)])
    assert heights.min() >= 0
    assert heights.min() < 1e-4
    assert ball(0.3).position[2] == pytest.approx(ball(0.3).size[0], abs=1e-9)
    assert ball(0.3 - 1e-9).linear[2] == pytest.approx(-ball(0.3 + 1e-9).linear[2], rel=1e-6)  # it loses nothing
    curvature = np.diff([ball(time).linear[2] for time in np.linspace(0.32, 0.88, 8)])
    np.testing.assert_allclose(curvature, curvature[0])


def test_the_box_is_there_from_its_moment_on_and_not_before():
    def there(time):
        return 2 in {solid.instance for solid in TOYS["appear"](time)}

    assert not there(np.nextafter(APPEARS, 0))
    assert there(APPEARS)
    assert there(1.0)


def test_each_limb_begins_where_the_one_before_ends():
    for time in MOMENTS:
        limbs = [solid for solid in TOYS["arm"](time) if solid.instance]
        assert [limb.instance for limb in limbs] == [1, 2, 3, 4]
        for limb, following in itertools.pairwise(limbs):
            end = limb.position + limb.size[1] * limb.rotation[:, 2]
            start = following.position - following.size[1] * following.rotation[:, 2]
            np.testing.assert_allclose(end, start, atol=1e-12)


@pytest.mark.parametrize("protocol", TIMES)
def test_a_protocol_trains_on_its_views_and_holds_out_other_cameras(protocol):
    captures = {split: capture("pulse", protocol, size=8, split=split, supersampling=1) for split in SPLITS}
    train, views, times = (captures[split] for split in SPLITS)
    assert len(train.images) == {"multi": 120, "mono": 100, "orbit": 24}[protocol]
    assert len(np.unique(train.cameras)) == {"multi": 10, "mono": 100, "orbit": 1}[protocol]
    assert len(np.unique(train.times)) == TIMES[protocol]
    assert train.times.min() == 0
    assert train.times.max() == 1
    assert set(views.times) <= set(train.times)
    between = (np.unique(train.times)[1:] + np.unique(train.times)[:-1]) / 2
    assert all(np.isclose(between, time).any() for time in times.times)
    held = invert_rigid(np.concatenate([views.camera_from_world, times.camera_from_world]))[:, :3, 3]
    used = invert_rigid(train.camera_from_world)[:, :3, 3]
    assert np.linalg.norm(held[:, None] - used[None], axis=-1).min() > 1e-3
    assert len(np.unique(views.cameras)) == 3
    for made in captures.values():
        count = len(made.images)
        assert made.images.shape == (count, 8, 8, 3)
        assert made.images.dtype == np.uint8
        assert made.instances.shape == made.depths.shape == (count, 8, 8)
        assert made.normals.shape == made.velocities.shape == (count, 8, 8, 3)
        assert made.camera_from_world.shape == (count, 4, 4)


def test_the_moment_at_which_a_scene_jumps_is_not_asked_for():
    for protocol in TIMES:
        asked = capture("appear", protocol, size=4, split="heldout_times", supersampling=1).times
        assert np.abs(asked[:, None] - JUMPS["appear"]).min() > 1e-3
        assert asked.min() < 0.2
        assert asked.max() > 0.8


def test_the_same_seed_films_the_same_bytes_and_another_moves_the_cameras():
    first, again = (capture("arm", "orbit", size=16, seed=4) for _ in range(2))
    assert first.images.tobytes() == again.images.tobytes()
    np.testing.assert_array_equal(first.camera_from_world, again.camera_from_world)
    for protocol in TIMES:
        poses = [capture("arm", protocol, size=4, seed=seed, supersampling=1).camera_from_world for seed in (0, 1)]
        assert np.abs(poses[0] - poses[1]).max() > 0.01


def test_a_surface_point_carried_by_its_velocity_is_found_in_the_next_picture():
    made = capture("bounce", "multi", size=64, supersampling=1)
    step = made.times[10] - made.times[0]
    first, later = 0, 10  # camera 0 at the first two times
    ball = made.instances[first] == 1
    points = pixel_rays(pixel_centres(64, 64), made.intrinsics)[ball] * made.depths[first][ball][:, None]
    pose = invert_rigid(made.camera_from_world[first])
    world = points @ pose[:3, :3].T + pose[:3, 3]
    # Half the step's change of speed is left out by one velocity: free fall over the step, known from the scene.
    velocity = made.velocities[first][ball].mean(axis=0)
    thing = next(solid for solid in TOYS["bounce"](0.0) if solid.instance == 1)
    after = next(solid for solid in TOYS["bounce"](float(step)) if solid.instance == 1)
    fall = after.position - thing.position - step * thing.linear
    turned = rotation_from_vector(step * thing.angular)
    moved = thing.position + step * thing.linear + fall + (world - thing.position) @ turned.T
    local = moved @ made.camera_from_world[later][:3, :3].T + made.camera_from_world[later][:3, 3]
    pixels = local @ made.intrinsics.T
    column, row = np.floor(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    there = made.depths[later][row.clip(0, 63), column.clip(0, 63)]
    assert (np.abs(there - local[:, 2]) < 0.05).mean() > 0.6  # the rest has turned out of sight
    assert np.linalg.norm(velocity - thing.linear) < np.linalg.norm(thing.angular) * thing.size[0]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="bounce, appear, arm, pulse"):
        capture("bonce", "multi")
    with pytest.raises(ValueError, match="multi, mono, orbit"):
        capture("bounce", "stereo")
