"""The fit of every motion model on a scene that numpy draws: a ball of changing place before a grey wall."""

import dataclasses

import numba
import numpy as np
import pytest
import torch

from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.reconstruct.checkpoint import load_checkpoint
from stages.reconstruct.fitting import draw, fit_scene
from stages.reconstruct.seeding import Seeds, random_seeds
from stages.reconstruct.settings import FitSettings
from stages.reconstruct.views import Views
from worldline import motion

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
    arrays = {
        "agents": (np.arange(count) % 3 > 0).astype(np.int64),
        "agent_times": np.array([0.0, 1.0]),
        "agent_quats": np.tile([1.0, 0, 0, 0], (1, 2, 1)),
        "agent_positions": np.array([[[-0.5, 0, 0], [0.5, 0, 0]]]),
        "agent_alive": np.ones((1, 2), bool),
    }
    return dataclasses.replace(seeds, motion=arrays)


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


def test_surfels_stay_flat_and_are_drawn_as_surfels(views):
    errors = []
    settings = dataclasses.replace(TINY, primitive="surfel", steps=60, distortion_weight=0.01)
    scene = fit(views, "static", settings, after_step=lambda done, error: errors.append(error))
    assert scene.primitive == "surfel"
    assert not scene.scales[:, 2].any()
    assert (scene.scales[:, :2] > 0).all()
    assert np.mean(errors[-12:]) < 0.85 * np.mean(errors[:12])


def test_colours_learn_to_depend_on_the_direction(views):
    scene = fit(views, "native_4d", dataclasses.replace(TINY, harmonics=1))
    assert scene.harmonics.shape == (60, 3, 3)
    assert scene.harmonics.any()


def test_a_fit_that_gets_no_better_stops_and_returns_its_best(views, tmp_path):
    """What is held out shows another scene, so that learning the others makes it worse."""
    images = views.images.copy()
    images[::4] = 255 - images[::4]
    spoiled = dataclasses.replace(views, images=images)
    held_out, steps = np.arange(0, VIEWS, 4), []
    settings = dataclasses.replace(TINY, steps=200, patience=2, evaluate_every=10)
    split = {"training": np.setdiff1d(EVERY, held_out), "validation": held_out}
    scene = fit(spoiled, "static", settings, after_step=lambda done, error: steps.append(done), **split)
    assert steps[-1] < 200
    best = steps[-1] - settings.patience * settings.evaluate_every

    def stop_at_best(done: int, error: float) -> None:
        if done == best + 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(
            spoiled,
            "static",
            dataclasses.replace(settings, checkpoint_every=best),
            after_step=stop_at_best,
            checkpoints=tmp_path,
            **split,
        )
    arrays = load_checkpoint(tmp_path)[1]
    np.testing.assert_array_equal(scene.means, arrays["values/means"])


def test_without_patience_every_step_is_taken(views):
    steps = []
    fit(views, "static", validation=EVERY[:2], training=EVERY[2:], after_step=lambda done, error: steps.append(done))
    assert steps == list(range(1, TINY.steps + 1))


def test_several_views_may_share_a_step(views):
    errors = []
    settings = dataclasses.replace(TINY, batch=3, steps=20)
    fit(views, "gaussian_flow", settings, after_step=lambda done, error: errors.append(error))
    assert len(errors) == 20
    assert np.mean(errors[-4:]) < np.mean(errors[:4])


def test_known_depths_pull_gaussians_to_their_surface(views):
    def depth_error(weight: float) -> float:
        scene = fit(views, "gaussian_flow", dataclasses.replace(TINY, steps=60, depth_weight=weight))
        errors = []
        for view in range(VIEWS):
            gaussians = motion.state_at(scene, float(views.times[view]))
            drawn = draw(gaussians, views, view, torch.from_numpy(scene.background).float(), 0.02, depths=True)
            there = views.depths[view] > 0
            errors.append(np.abs(drawn.depths.detach().numpy() - views.depths[view])[there].mean())
        return float(np.mean(errors))

    assert depth_error(0.3) < 0.7 * depth_error(0.0)


@pytest.mark.parametrize("weight", ["mask_weight", "sky_weight", "rigidity_weight", "smoothness_weight"])
def test_every_weight_changes_the_fit(views, weight):
    seeds = dataclasses.replace(seeds_for("gaussian_flow"), instances=(np.arange(60) % 2).astype(np.int32))
    plain = fit(views, "gaussian_flow", seeds=seeds)
    weighted = fit(views, "gaussian_flow", dataclasses.replace(TINY, **{weight: 0.5}), seeds)
    assert content_digest(plain) != content_digest(weighted)
    assert np.isfinite(weighted.means).all()


def test_labelled_regions_can_be_left_out(views):
    """The red ball is labelled: without its pixels nothing becomes red."""
    settings = dataclasses.replace(TINY, steps=60, ignore_labelled=True)
    ignoring, seeing = fit(views, "static", settings), fit(views, "static", dataclasses.replace(settings, ignore_labelled=False))

    def redness(scene):
        return float((scene.colors[:, 0] - scene.colors[:, 1]).max())

    assert redness(ignoring) < 0.5 * redness(seeing)


@pytest.mark.parametrize("spoilt", ["camera_from_world", "times", "intrinsics", "means", "sizes", "colors"])
def test_what_is_not_a_number_is_refused_by_name(views, spoilt):
    seeds = seeds_for("static")
    owner = views if hasattr(views, spoilt) else seeds
    array = getattr(owner, spoilt).copy()
    array.flat[0] = np.nan
    changed = dataclasses.replace(owner, **{spoilt: array})
    with pytest.raises(WorldlineError, match="not finite"):
        fit(changed if owner is views else views, "static", seeds=changed if owner is seeds else seeds)


def test_no_view_to_fit_is_refused(views):
    with pytest.raises(WorldlineError, match="no view to fit"):
        fit(views, "static", training=np.zeros(0, np.int64))


def test_surfels_of_space_and_time_are_refused(views):
    with pytest.raises(WorldlineError, match="primitive=surfel does not go with native_4d"):
        fit(views, "native_4d", dataclasses.replace(TINY, primitive="surfel"))


def test_boxes_cannot_be_guessed(views):
    with pytest.raises(ValueError, match="rigid_agents"):
        fit(views, "rigid_agents", seeds=seeds_for("static"))


@pytest.mark.parametrize("model", ["static", "gaussian_flow", "native_4d", "periodic_vibration"])
def test_no_gaussians_give_an_empty_scene(views, model):
    scene = fit(views, model, seeds=seeds_for(model, count=0))
    assert scene.means.shape == (0, 3)
    assert len(motion.state_at(scene, 0.5).means) == 0


def test_seeds_keep_their_instances(views):
    instances = (np.arange(60) % 3).astype(np.int32)
    seeds = dataclasses.replace(seeds_for("static"), instances=instances)
    np.testing.assert_array_equal(fit(views, "static", dataclasses.replace(TINY, growth="none"), seeds).instances, instances)


@pytest.mark.parametrize("model", MODELS)
def test_one_thread_and_two_give_the_same_bytes(views, model):
    before, digests = numba.get_num_threads(), []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            digests.append(content_digest(fit(views, model)))
    finally:
        numba.set_num_threads(before)
    assert digests[0] == digests[1]
