"""Generated clips: tiny pipelines with random weights make them as the real models would."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.artifact import Files
from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.generate.diffusers_pipeline import pin_pipeline
from stages.generate.diffusers_video import DiffusersConfig, generate_video
from tests.generate.tiny_pipelines import model_index, save_stable_video, save_wan

NO_IMAGE = Source(files=Files(), layout="none", name="")
SMALL = {"num_frames": 5, "height": 16, "width": 32, "steps": 2, "options": {"max_sequence_length": 16}}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Models this small are slower on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-video pipeline."""
    return save_wan("WanPipeline", tmp_path_factory.mktemp("models") / "tiny-text")


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image-to-video pipeline."""
    return save_stable_video(tmp_path_factory.mktemp("models") / "tiny-image")


def generate(
    model: Path | str, conditioning: Source = NO_IMAGE, seed: int = 3, progress: Any = no_progress, **config: Any
) -> Clip:
    settings = DiffusersConfig(model=str(model), **config)
    clip, truth = generate_video(conditioning, settings, seed=seed, progress=progress)
    assert not truth.available
    return clip


def first_frame(folder: Path, seed: int = 0, size: tuple[int, int] = (48, 32)) -> Source:
    path = folder / f"first{seed}.png"
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return Source(files=Files({path.name: path}), layout="image", name=path.name)


def test_text_becomes_a_clip_with_its_recipe(text_model: Path) -> None:
    clip = generate(text_model, prompt="a red car", negative_prompt="a dog", frames_per_second=8.0, **SMALL)
    assert clip.frames.shape == (5, 16, 32, 3)
    assert np.allclose(clip.times_s, np.arange(5) / 8)
    assert clip.name == "tiny-text"
    recipe = {
        key: clip.provenance[key] for key in ("pipeline_class", "model", "prompt", "negative_prompt", "seed", "steps", "device")
    }
    assert recipe == {
        "pipeline_class": "WanPipeline",
        "model": str(text_model),
        "prompt": "a red car",
        "negative_prompt": "a dog",
        "seed": 3,
        "steps": 2,
        "device": clip.provenance["device"],
    }
    assert clip.provenance["not_taken_by_pipeline"] == []
    assert len(clip.provenance["weights"]) == 64


def test_the_frames_are_those_of_the_pipeline_itself(text_model: Path) -> None:
    from diffusers import WanPipeline

    clip = generate(text_model, prompt="a red car", device="cpu", dtype="float32", **SMALL)
    pipeline = WanPipeline.from_pretrained(text_model)
    noise = torch.Generator().manual_seed(3)
    size = {"num_frames": 5, "height": 16, "width": 32}
    video = pipeline(
        "a red car", num_inference_steps=2, max_sequence_length=16, generator=noise, output_type="np", **size
    ).frames[0]
    assert np.abs(clip.frames.array() - video * 255).max() <= 0.5 + 1e-3


def test_the_seed_and_the_prompt_decide(text_model: Path) -> None:
    first = generate(text_model, seed=1, prompt="a car", **SMALL)
    assert content_digest(first) == content_digest(generate(text_model, seed=1, prompt="a car", **SMALL))
    for changes in ({"seed": 2, "prompt": "a car"}, {"seed": 1, "prompt": "a dog"}):
        assert not np.array_equal(first.frames.array(), generate(text_model, **changes, **SMALL).frames.array())


def test_every_denoising_step_is_reported(text_model: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(text_model, progress=lambda done, total, note="": seen.append((done, total)), **(SMALL | {"steps": 3}))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_image_is_continued(image_model: Path, tmp_path: Path) -> None:
    size = {"num_frames": 2, "height": 32, "width": 48, "steps": 1, "frames_per_second": 7.0}
    first = generate(image_model, first_frame(tmp_path, 0), prompt="a dog", **size)
    other = generate(image_model, first_frame(tmp_path, 1), prompt="a dog", **size)
    assert first.frames.shape == (2, 32, 48, 3)
    assert not np.array_equal(first.frames.array(), other.frames.array())
    assert first.provenance["conditioning"] == "first0.png"
    assert first.provenance["not_taken_by_pipeline"] == ["prompt"]  # this pipeline listens to the picture alone


def test_an_image_of_another_shape_is_cropped_in_the_middle(image_model: Path, tmp_path: Path) -> None:
    size = {"num_frames": 2, "height": 32, "width": 48, "steps": 1}
    wide = first_frame(tmp_path, 4, size=(96, 32))
    cropped = tmp_path / "cropped.png"
    Image.open(wide.files["first4.png"]).crop((24, 0, 72, 32)).save(cropped)
    middle = Source(files=Files({"cropped.png": cropped}), layout="image", name="cropped.png")
    assert np.array_equal(
        generate(image_model, wide, **size).frames.array(), generate(image_model, middle, **size).frames.array()
    )


def refusal(model: Path | str, conditioning: Source = NO_IMAGE, **config: Any) -> str:
    with pytest.raises(WorldlineError) as error:
        generate(model, conditioning, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_image_pipeline_without_an_image_is_refused(tmp_path: Path) -> None:
    assert "set generate.image" in refusal(model_index(tmp_path / "m", "StableVideoDiffusionPipeline"))
    assert "set generate.image" in refusal(model_index(tmp_path / "n", "LTXImageToVideoPipeline"))  # its default is None


def test_a_text_pipeline_with_an_image_is_refused(tmp_path: Path) -> None:
    assert "from text alone" in refusal(model_index(tmp_path / "m", "WanPipeline"), first_frame(tmp_path))


def test_a_pipeline_that_makes_no_video_is_refused(tmp_path: Path) -> None:
    assert "makes no video" in refusal(model_index(tmp_path / "m", "StableDiffusionPipeline"))


def test_a_pipeline_that_needs_a_video_is_refused(tmp_path: Path) -> None:
    assert "needs video" in refusal(model_index(tmp_path / "m", "CogVideoXVideoToVideoPipeline"))


def test_an_unknown_pipeline_class_names_the_nearest(tmp_path: Path) -> None:
    assert "did you mean WanPipeline?" in refusal(model_index(tmp_path / "m", "WanPipeline"), pipeline_class="WanPipline")


def test_an_unknown_option_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(model_index(tmp_path / "m", "WanPipeline"), options={"guidance_scale2": 1.0})
    assert "did you mean guidance_scale_2?" in message


def test_no_model_or_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "needs a model" in refusal("")
    assert "there is no folder" in refusal(tmp_path / "none")
    (tmp_path / "bare").mkdir()
    assert "holds no model_index.json" in refusal(tmp_path / "bare")


def test_a_model_that_is_not_cached_is_refused_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("nobody/no-such-video-model", revision="v7")
    assert message.startswith("the model nobody/no-such-video-model at revision v7 is not in the local cache")
    assert "hf download nobody/no-such-video-model --revision v7" in message


def test_settings_that_the_pipeline_refuses_are_its_words(text_model: Path) -> None:
    assert "`height` and `width`" in refusal(text_model, **(SMALL | {"height": 31}))


def test_one_frame_is_refused(text_model: Path) -> None:
    assert "one frame has no motion" in refusal(text_model, **(SMALL | {"num_frames": 1}))


def test_pickled_weights_are_never_loaded(text_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(text_model, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    assert "weights are safetensors" in refusal(folder, **SMALL)


def test_a_pinned_model_is_noticed_when_it_changes(text_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_model, folder)
    pinned = pin_pipeline(DiffusersConfig(model=str(folder)))
    assert pinned.weights == pin_pipeline(DiffusersConfig(model=str(text_model))).weights
    assert "auto" not in (pinned.device, pinned.dtype)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert pin_pipeline(DiffusersConfig(model=str(folder))).weights != pinned.weights
    assert f"not the pinned {pinned.weights}" in refusal(folder, weights=pinned.weights)
