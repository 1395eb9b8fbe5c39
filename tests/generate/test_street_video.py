"""The world model of streets: what an untrained one makes, what training changes, and that both can be repeated."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.artifact import Files
from schemas.codec import content_digest
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.models import Model
from stages.contract import no_progress
from stages.generate.street_video import StreetVideoConfig, generate_street_video
from stages.generate.train_street_video import TrainStreetVideoConfig, train_street_video
from stages.generate.tune_street_video import TuneStreetVideoConfig, tune_street_video
from tests.generate.small_streets import slide
from worldline.diffusion.network import StreetVideoNetwork, open_network, save_network
from worldline.diffusion.sampling import draw_priors

SMALL = TrainStreetVideoConfig(
    channels=(32, 32, 32), steps=4, window=4, crop_width=48, crop_height=32, hold_out_every=0, threads=1, dtype="float32"
)
MAKE = StreetVideoConfig(steps=2, window=4, overlap=2, threads=1, dtype="float32")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.manual_seed(0)
    network = StreetVideoNetwork(channels=(32, 32, 32))
    files = save_network(network, tmp_path_factory.mktemp("untrained"))
    return Model(files=files, role="street_video", architecture="StreetVideoNetwork", parameters=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return train(tmp_path_factory.mktemp("trained"), SMALL)


def train(folder: Path, config: TrainStreetVideoConfig, progress=no_progress) -> Model:
    views, clips = zip(*(slide(seed) for seed in range(2)), strict=True)
    return train_street_video(views, views, clips, config, seed=3, progress=progress, checkpoints=folder)[0]


def make(conditions: Conditions, model: Model, config: StreetVideoConfig = MAKE, seed: int = 0) -> np.ndarray:
    clip = generate_street_video(conditions, conditions, model, config, seed=seed, progress=no_progress)
    return clip.frames.array().astype(int)


def test_an_untrained_model_returns_the_prior_where_something_is_known(untrained):
    conditions, _ = slide()
    known = conditions.known.array() > 0
    difference = np.abs(make(conditions, untrained) - conditions.prior.array())
    assert difference[known].max() <= 1
    assert np.abs(make(conditions, untrained) - draw_priors(conditions, conditions, 6)[0]).max() <= 1


def test_an_untrained_model_returns_the_mean_of_what_is_drawn_and_what_is_warped(untrained):
    conditions, _ = slide()
    brighter = np.minimum(conditions.prior.array().astype(int) + 20, 255).astype(np.uint8)
    everywhere = Video.from_array(np.full(conditions.known.shape, 255, np.uint16))
    drawn = dataclasses.replace(conditions, prior=Video.from_array(brighter), known=everywhere)
    made = generate_street_video(conditions, drawn, untrained, MAKE, seed=5, progress=no_progress).frames.array().astype(int)
    seen = conditions.known.array() > 0
    between = (brighter.astype(int) + conditions.prior.array()) / 2
    assert np.abs(made - between)[seen].max() <= 1
    assert np.abs(made - brighter)[~seen].max(initial=0) <= 1


def test_a_clip_made_twice_with_one_seed_is_the_same_and_with_another_it_is_not(trained):
    conditions, _ = slide()
    assert np.array_equal(make(conditions, trained, seed=1), make(conditions, trained, seed=1))
    assert not np.array_equal(make(conditions, trained, seed=1), make(conditions, trained, seed=2))


def test_a_model_of_any_window_makes_clips_of_any_length(trained):
    for frames in (3, 4, 5, 9):
        assert len(make(slide(frames=frames)[0], trained)) == frames


def test_the_clip_says_what_made_it(trained):
    conditions, _ = slide()
    clip = generate_street_video(conditions, conditions, trained, MAKE, seed=5, progress=no_progress)
    assert clip.provenance["model"] == content_digest(trained)
    assert clip.provenance["seed"] == 5
    assert clip.provenance["text"] == conditions.text
    assert np.array_equal(clip.times_s, conditions.times_s)


def test_a_model_saved_and_opened_makes_the_same_clip(trained, tmp_path):
    again = dataclasses.replace(trained, files=save_network(open_network(trained), tmp_path))
    assert content_digest(again) == content_digest(trained)
    conditions, _ = slide()
    assert np.array_equal(make(conditions, again), make(conditions, trained))


def test_an_interrupted_training_ends_in_the_same_bytes(trained, tmp_path):
    class KilledError(Exception):
        pass

    def kill_after_three(done: int, total: int, note: str = "") -> None:
        if done == 3:
            raise KilledError

    config = dataclasses.replace(SMALL, checkpoint_every=2)
    with pytest.raises(KilledError):
        train(tmp_path, config, kill_after_three)
    steps: list[int] = []
    resumed = train(tmp_path, config, lambda done, total, note="": steps.append(done))
    assert steps == [3, 4]
    assert content_digest(resumed) == content_digest(trained)


def test_training_learns_what_the_prior_lacks(tmp_path):
    views, clips = zip(*(slide(seed) for seed in range(2)), strict=True)
    config = dataclasses.replace(SMALL, steps=80, rate=3e-3, hold_out_every=0, drop_text=0.0)
    model, _ = train_street_video(views, views, clips, config, seed=0, progress=no_progress, checkpoints=tmp_path)
    truth = clips[0].frames.array().astype(int)
    box = views[0].boxes.array().any(axis=-1)
    made, prior = make(views[0], model), draw_priors(views[0], views[0], 6)[0].astype(int)
    assert np.square(made - truth)[box].mean() < np.square(prior - truth)[box].mean() / 4


def test_all_views_of_a_held_out_street_are_measured_beside_the_models_input(tmp_path):
    views, clips = zip(*(slide(seed) for seed in (0, 1, 1)), strict=True)
    config = dataclasses.replace(SMALL, steps=1, hold_out_every=2, held_out_frames=5)
    model, metrics = train_street_video(views, views, clips, config, seed=0, progress=no_progress, checkpoints=tmp_path)
    figures = metrics.facts()
    assert model.training["examples"] == 1
    error = (draw_priors(views[1], views[1], 5)[0].astype(float) - clips[1].frames.array()[:5]) / 255
    assert figures["street_video.prior_psnr_db"] == pytest.approx(-10 * np.log10(np.square(error).mean()))
    assert {"street_video.sample_psnr_db", "street_video.mean_hole_psnr_db", "street_video.sample_box_psnr_db"} <= set(figures)


def test_tuning_starts_from_the_given_model_and_says_so(trained, tmp_path):
    conditions, clip = slide(7)
    config = TuneStreetVideoConfig(steps=2, rate=1e-9, window=4, crop_width=48, crop_height=32, threads=1, dtype="float32")
    tuned, _ = tune_street_video(
        trained, (conditions,), (conditions,), (clip,), config, seed=0, progress=no_progress, checkpoints=tmp_path
    )
    assert tuned.training["started_from"] == trained.training
    for before, after in zip(open_network(trained).parameters(), open_network(tuned).parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)


def test_a_model_without_its_weights_is_refused_in_one_sentence(trained):
    files = Files({"config.json": trained.files["config.json"]})
    with pytest.raises(WorldlineError, match=r"no file diffusion_pytorch_model.safetensors: give the whole folder"):
        make(slide()[0], dataclasses.replace(trained, files=files))


def test_weights_of_another_network_are_refused_in_one_sentence(trained, tmp_path):
    torch.manual_seed(0)
    other = save_network(StreetVideoNetwork(channels=(64, 32, 32)), tmp_path)
    files = Files({**trained.files, "config.json": other["config.json"]})
    with pytest.raises(WorldlineError, match=r"safetensors is not that of a StreetVideoNetwork .* train the model again"):
        make(slide()[0], dataclasses.replace(trained, files=files))


def test_a_detector_is_refused_as_a_world_model(trained):
    with pytest.raises(WorldlineError, match="a StreetVideoNetwork for street_video is needed"):
        make(slide()[0], dataclasses.replace(trained, role="street_detector"))


def test_sides_that_are_no_multiples_of_16_are_refused(trained):
    with pytest.raises(WorldlineError, match="56 x 32 px: both sides must be multiples of 16 px"):
        make(slide(width=56)[0], trained)


def test_a_clip_of_another_size_than_its_conditions_is_refused(tmp_path):
    (conditions, _), (_, clip) = slide(), slide(width=64)
    with pytest.raises(WorldlineError, match=r"slide 0 has 6 frames of 64 x 32 px and its conditions 6 of 48 x 32 px"):
        train_street_video((conditions,), (conditions,), (clip,), SMALL, seed=0, progress=no_progress, checkpoints=tmp_path)
