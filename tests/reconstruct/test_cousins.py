"""Generated views in a fit: which are drawn together, what they are worth, and that they change nothing where there are none."""

import dataclasses

import numpy as np
import pytest
import torch

from stages.reconstruct.cousins import CousinRules, choose_pair
from stages.reconstruct.feature_networks import texture_features
from stages.reconstruct.fitting import draw, fit_scene
from stages.reconstruct.seeding import random_seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views
from worldline import motion
from worldline.metrics import psnr

SIZE, FOCAL, FRAMES = 24, 24.0, 6
SETTINGS = FitSettings(steps=150, resolutions=1, batch=2, growth="none", ssim_weight=0.0)


def picture(sideways: float) -> tuple[np.ndarray, np.ndarray]:
    """A wall at depth 3, half red and half blue, with a green strip that only a camera moved to the left can see: its image
    and the camera's pose."""
    pose = np.eye(4)
    pose[0, 3] = sideways  # the camera stands at x = -sideways
    columns = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL * 3.0 - sideways
    image = np.where(columns[:, None] < 0, [200, 40, 30], [40, 60, 180])
    image[columns < -1.6] = [30, 190, 60]
    return np.broadcast_to(image.astype(np.uint8), (SIZE, SIZE, 3)), pose


@pytest.fixture(scope="module")
def views() -> Views:
    """Recorded views from the middle, then a generated one of each time from 0.8 to the left, all 10 % too bright."""
    recorded, generated = [picture(0.0)] * FRAMES, [picture(0.8)] * FRAMES
    images = np.stack([image for image, _ in recorded + generated]).astype(np.float32)
    images[FRAMES:] *= 1.1
    intrinsics = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    times = np.linspace(0, 1, FRAMES)
    return Views(
        images=images.astype(np.uint8),
        labels=np.zeros(images.shape[:3], np.uint16),
        camera_from_world=np.stack([pose for _, pose in recorded + generated]),
        intrinsics=intrinsics,
        times=np.tile(times, 2),
        frames=np.tile(np.arange(FRAMES), 2),
        generated=np.arange(2 * FRAMES) >= FRAMES,
    )


def fit(views: Views, training: np.ndarray, rules: CousinRules | None):
    seeds = random_seeds([-2.2, -1.6, 2.9], [1.6, 1.6, 3.1], 400, np.random.default_rng(0))
    return fit_scene(
        views, seeds, "static", SETTINGS, training=training, validation=np.zeros(0, int), background=np.full(3, 0.5), seed=1,
        cousins=rules,
    )  # fmt: skip


def from_the_left(scene, views) -> float:
    """PSNR against what is truly to be seen from where the generated views were made."""
    truth = torch.from_numpy(picture(0.8)[0] / np.float32(255.0))
    with torch.no_grad():
        drawn = draw(motion.state_at(scene, 0.0), views, FRAMES, torch.full((3,), 0.5), 0.01)
    return psnr(drawn.colors.clamp(0, 1), truth)


def test_every_pair_is_a_recorded_view_and_a_generated_one_of_the_same_time(views):
    training = np.array([0, 1, 2, 4, 6, 7, 8, 9])  # 3 has no recorded view, 4 no generated one
    pairs = [choose_pair(views, training, 2, step, 0) for step in range(30)]
    assert {recorded for recorded, _ in pairs} == {0, 1, 2}
    assert all(novel == recorded + FRAMES for recorded, novel in pairs)
    counts = np.bincount([recorded for recorded, _ in pairs])
    assert (counts == 10).all()  # every epoch takes each once


def test_pairing_without_a_common_time_is_refused(views):
    with pytest.raises(ValueError, match="no generated view shows the time"):
        choose_pair(views, np.array([0, 1, 8]), 2, 0, 0)


def test_generated_views_teach_what_no_recorded_view_shows(views):
    alone = fit(views, np.arange(FRAMES), None)
    paired = fit(views, np.arange(2 * FRAMES), CousinRules())
    assert from_the_left(paired, views) > from_the_left(alone, views) + 3.0


def test_a_colour_map_of_its_own_takes_up_a_generated_views_exposure(views):
    with_map = fit(views, np.arange(2 * FRAMES), CousinRules(appearance=True))
    without = fit(views, np.arange(2 * FRAMES), CousinRules(appearance=False))
    assert from_the_left(with_map, views) > from_the_left(without, views) + 0.5
    assert "appearance" not in with_map.motion


def test_without_weight_generated_views_leave_the_scene_as_it_was_without_them(views):
    recorded = fit(views, np.arange(FRAMES), dataclasses.replace(CousinRules(), pairing=False))
    weightless = fit(views, np.arange(2 * FRAMES), CousinRules(weight=0.0))
    assert abs(from_the_left(weightless, views) - from_the_left(recorded, views)) < 1.0


def test_texture_features_are_those_of_the_image_wherever_its_content_lies():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.uniform(size=(32, 32, 3)).astype(np.float32))
    moved, other = (
        torch.roll(image, (8, 16), (0, 1)),
        torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), 3, 1, 1).permute(1, 2, 0),
    )
    same, apart = ((texture_features(item) - texture_features(image)).abs().mean() for item in (moved, other))
    assert same < 0.1 * apart
