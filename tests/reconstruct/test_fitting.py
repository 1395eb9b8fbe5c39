"""The fit of every motion model on a scene that numpy draws: a ball of changing place before a grey wall."""

import dataclasses

import numpy as np
import pytest

from schemas.codec import content_digest
from stages.reconstruct.fitting import fit_scene
from stages.reconstruct.seeding import Seeds, random_seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views

MODELS = ("static", "gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents")
SIZE, FOCAL, DISTANCE, VIEWS = 24, 24.0, 3.0, 12
TINY = FitSettings(steps=12, grow_every=5, checkpoint_every=4, resolutions=1)
EVERY = np.arange(VIEWS)


def looking_at_origin(azimuth: float) -> np.ndarray:
    cosine, sine = np.cos(azimuth), np.sin(azimuth)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    pose[2, 3] = DISTANCE
    return pose


@pytest.fixture(scope="module")
def views() -> Views:
    """A red ball of radius 0.3 that moves from x = -0.5 to 0.5 while the camera goes an eighth of a circle."""
    times = np.linspace(0, 1, VIEWS)
    poses = np.stack([looking_at_origin(0.8 * (k / VIEWS - 0.5)) for k in (np.arange(VIEWS) * 5) % VIEWS])
    rows, columns = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
    images, labels = np.full((VIEWS, SIZE, SIZE, 3), 128, np.uint8), np.zeros((VIEWS, SIZE, SIZE), np.uint16)
    depths = np.zeros((VIEWS, SIZE, SIZE), np.float32)
    for view, time in enumerate(times):
        x, y, z = poses[view, :3, :3] @ [time - 0.5, 0, 0] + poses[view, :3, 3]
        ball = (columns - SIZE / 2 - FOCAL * x / z) ** 2 + (rows - SIZE / 2 - FOCAL * y / z) ** 2 < (0.3 * FOCAL / z) ** 2
        images[view][ball], labels[view][ball], depths[view][ball] = [200, 40, 30], 1, z - 0.2
    intrinsics = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    return Views(images, labels, poses, intrinsics, times, EVERY, depths, depths == 0)


def seeds_for(model: str, count: int = 60) -> Seeds:
    seeds = random_seeds([-1, -0.5, -0.5], [1, 0.5, 0.5], count, np.random.default_rng(0))
    if model != "rigid_agents":
        return seeds
    motion = {
        "agents": (np.arange(count) % 3 > 0).astype(np.int64),
        "agent_times": np.array([0.0, 1.0]),
        "agent_quats": np.tile([1.0, 0, 0, 0], (1, 2, 1)),
        "agent_positions": np.array([[[-0.5, 0, 0], [0.5, 0, 0]]]),
        "agent_alive": np.ones((1, 2), bool),
    }
    return dataclasses.replace(seeds, motion=motion)


def fit(views: Views, model: str, settings: FitSettings = TINY, seeds: Seeds | None = None, **more):
    given = {"training": EVERY, "validation": np.zeros(0, np.int64), "background": np.full(3, 128 / 255), "seed": 0} | more
    return fit_scene(views, seeds or seeds_for(model), model, settings, **given)


@pytest.mark.parametrize("model", MODELS)
def test_the_picture_comes_nearer_with_every_motion_model(views, model):
    errors = []
    scene = fit(views, model, dataclasses.replace(TINY, steps=60), after_step=lambda done, error: errors.append(error))
    assert scene.motion_model == model
    assert (scene.start_s, scene.end_s) == (0.0, 1.0)
    assert np.mean(errors[-12:]) < (0.85 if model == "static" else 0.6) * np.mean(errors[:12])


@pytest.mark.parametrize("growth", ["relocation", "densification"])
@pytest.mark.parametrize("model", MODELS)
def test_a_fit_that_was_killed_and_resumed_gives_the_same_bytes(views, model, growth, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done: int, error: float) -> None:
        if done == 10:
            raise Killed

    settings = dataclasses.replace(TINY, growth=growth, densify_gradient=1e-6)
    with pytest.raises(Killed):
        fit(views, model, settings, after_step=kill, checkpoints=tmp_path)
    steps = []
    resumed = fit(views, model, settings, after_step=lambda done, error: steps.append(done), checkpoints=tmp_path)
    assert steps[0] == 9  # it did not start over
    assert content_digest(resumed) == content_digest(fit(views, model, settings))
