import dataclasses

import numpy as np
import pytest

from schemas.scenes import Scene4D
from stages.reconstruct.evaluation import compare_drawn_velocities, compare_velocities, join_scores, score_views
from stages.reconstruct.views import Views
from worldline.scenes import draw_scene

SIZE = 32
INTRINSICS = np.array([[32.0, 0, 16], [0, 32.0, 16], [0, 0, 1]])


def sliding_wall(speed: float = 1.0) -> Scene4D:
    """A wall of Gaussians at depth 2 that fills the image and slides along x, one unit per unit of time."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-2, 2, 41)))
    count = len(x)
    colors = np.stack([0.5 + 0.4 * np.sin(9 * x), 0.5 + 0.4 * np.sin(7 * y), np.full(count, 0.5)], axis=1)
    return Scene4D(
        motion_model="periodic_vibration",
        means=np.stack([x, y, np.full(count, 2.0)], axis=1).astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        scales=np.full((count, 3), 0.08, np.float32),
        opacities=np.full(count, 0.9, np.float32),
        colors=colors.astype(np.float32),
        motion={
            "velocities": np.tile(np.float32([speed, 0, 0]), (count, 1)),
            "peaks": np.full(count, 0.5, np.float32),
            "lifespans": np.full(count, 1e6, np.float32),
            "cycle": np.full(1, 1e4, np.float32),
        },
        start_s=0.0,
        end_s=1.0,
        background=np.zeros(3),
        scale_source="none",
        scale_sigma=0.0,
    )


def views_of(scene: Scene4D, times: list[float], labels: np.ndarray) -> Views:
    images = [draw_scene(scene, time, np.eye(4), INTRINSICS, SIZE, SIZE).numpy() for time in times]
    count = len(times)
    return Views(
        images=(np.stack(images) * 255 + 0.5).astype(np.uint8),
        labels=np.broadcast_to(labels.astype(np.uint16), (count, SIZE, SIZE)),
        camera_from_world=np.tile(np.eye(4), (count, 1, 1)),
        intrinsics=INTRINSICS,
        times=np.array(times),
        frames=np.arange(count),
        depths=np.full((count, SIZE, SIZE), 2.0, np.float32),
    )


LEFT = np.tile(np.arange(SIZE) < SIZE // 2, (SIZE, 1))


def test_a_scene_scores_highly_on_its_own_pictures_and_less_at_other_times():
    scene = sliding_wall()
    views = views_of(scene, [0.2, 0.6], LEFT)
    right, wrong = score_views(scene, views), score_views(sliding_wall(-1.0), views)
    assert right.psnr_db.min() > 50  # what rounding to 8 bits leaves
    assert right.ssim.min() > 0.99
    assert right.gms.min() > 0.99
    assert (right.psnr_db - wrong.psnr_db > 15).all()
    assert (right.dynamic_psnr_db - wrong.dynamic_psnr_db > 15).all()


def test_the_dynamic_region_is_where_the_labels_say():
    scene = sliding_wall()
    views = views_of(scene, [0.5], LEFT)
    spoiled = views.images.copy()
    spoiled[:, :, SIZE // 2 :] = 0  # wrong outside the dynamic region only
    scores = score_views(scene, dataclasses.replace(views, images=spoiled))
    assert scores.dynamic_psnr_db[0] > 50
    assert scores.psnr_db[0] < 15


def test_views_without_movers_have_no_dynamic_score_and_means_leave_them_out():
    scene = sliding_wall()
    with_movers, without = (score_views(scene, views_of(scene, [0.5], labels)) for labels in (LEFT, np.zeros_like(LEFT)))
    assert np.isnan(without.dynamic_psnr_db).all()
    together = join_scores([with_movers, without]).means()
    assert together["dynamic_psnr_db"] == with_movers.dynamic_psnr_db[0]
    assert together["psnr_db"] == pytest.approx((with_movers.psnr_db[0] + without.psnr_db[0]) / 2)
    assert np.isnan(without.means()["dynamic_psnr_db"])


@pytest.mark.parametrize("compare", [compare_velocities, compare_drawn_velocities])
def test_a_scene_that_moves_as_its_surfaces_do_has_no_velocity_error(compare):
    scene = sliding_wall(0.8)
    views = views_of(scene, [0.3, 0.7], LEFT)
    truth = np.zeros((2, SIZE, SIZE, 3), np.float32)
    truth[..., 0] = 0.8
    error = compare(scene, views, truth)
    assert error.angle_deg < 0.1
    assert error.ratio == pytest.approx(1.0, abs=0.01)
    assert error.pixels == 2 * LEFT.sum()
    truth[..., 0], truth[..., 1] = 0.4, 0.4
    error = compare(scene, views, truth)
    assert error.angle_deg == pytest.approx(45, abs=0.1)
    assert error.ratio == pytest.approx(np.sqrt(2), abs=0.01)


def test_layers_that_fly_apart_stand_still_in_the_picture_but_not_where_each_of_them_is():
    near = sliding_wall(1.0)
    against = sliding_wall(-1.0)
    means = against.means + np.float32([0, 0, 0.02])
    both = dataclasses.replace(
        near,
        **{name: np.concatenate([getattr(near, name), getattr(against, name)]) for name in ("quats", "scales", "colors")},
        means=np.concatenate([near.means, means]),
        opacities=np.full(2 * len(means), 0.15, np.float32),
        motion=near.motion
        | {name: np.concatenate([near.motion[name], against.motion[name]]) for name in ("velocities", "peaks", "lifespans")},
    )
    truth = np.zeros((1, SIZE, SIZE, 3), np.float32)
    truth[..., 0] = 1.0
    views = views_of(both, [0.5], LEFT)
    assert compare_velocities(both, views, truth).ratio == pytest.approx(1.0, abs=0.01)
    assert compare_drawn_velocities(both, views, truth).ratio < 0.7


@pytest.mark.parametrize("compare", [compare_velocities, compare_drawn_velocities])
def test_a_scene_that_stands_still_is_a_right_angle_off(compare):
    scene = sliding_wall(0.0)
    truth = np.ones((1, SIZE, SIZE, 3), np.float32)
    error = compare(scene, views_of(scene, [0.3], LEFT), truth)
    assert error.angle_deg == pytest.approx(90)
    assert error.ratio == 0


@pytest.mark.parametrize("compare", [compare_velocities, compare_drawn_velocities])
def test_where_nothing_moves_there_is_no_velocity_error_to_tell(compare):
    scene = sliding_wall()
    error = compare(scene, views_of(scene, [0.3], LEFT), np.zeros((1, SIZE, SIZE, 3), np.float32))
    assert error.pixels == 0
    assert np.isnan(error.angle_deg)


def test_surfaces_cannot_be_found_without_depths():
    views = dataclasses.replace(views_of(sliding_wall(), [0.3], LEFT), depths=None)
    with pytest.raises(ValueError, match="know no depth"):
        compare_velocities(sliding_wall(), views, np.ones((1, SIZE, SIZE, 3), np.float32))
