"""Views that nobody filmed, by pipelines of diffusers: what each kind is told in its call, and what is made of its answer.

The pipelines are real ones with tiny random weights.
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import no_progress
from stages.generate import controlled_video
from stages.generate.controlled_video import (
    ControlledVideoConfig,
    choose_adapter,
    draw_nearness,
    draw_scenario,
    fit_view,
    generate_controlled_video,
    tell_masked,
)
from stages.generate.diffusers_pipeline import pin_pipeline
from tests.generate.small_streets import slide
from tests.generate.tiny_pipelines import (
    model_index,
    save_cosmos_transfer,
    save_sana_wm,
    save_stable_video,
    save_wan,
    stand_in_for_packages,
)

CONDITIONS, _ = slide()  # 6 frames of 48 x 32 pixels; the prior lacks their left quarter and a box
STEP_M = np.array([0.1, 0.0, 1.0])  # of the camera from frame to frame, in its own axes


def make_path(frames: int = 6) -> CameraPath:
    start = np.eye(4)
    start[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # looks along world x, z is up
    start[:3, 3] = [7, -2, 1.5]
    steps = np.tile(np.eye(4), (frames, 1, 1))
    steps[:, :3, 3] = np.arange(frames)[:, None] * STEP_M
    return CameraPath(
        times_s=CONDITIONS.times_s[:frames],
        world_from_camera=start @ steps,
        registered=np.ones(frames, bool),
        intrinsics=np.array([[80.0, 0, 48], [0, 80, 32], [0, 0, 1]]),
        distortion=np.zeros(4),
        width=96,
        height=64,
        verdict="moving",
        scale_source="given",
        scale_sigma=0.0,
        gravity_source="given",
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.0,
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Models this small are slower on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def masked_model(models: Path) -> Path:
    return save_wan("WanVACEPipeline", models / "masked")


@pytest.fixture(scope="module")
def image_model(models: Path) -> Path:
    return save_stable_video(models / "image")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every call of a pipeline, which is called all the same."""
    seen: list[dict[str, Any]] = []
    run = controlled_video.run_pipeline

    def record(pipeline: Any, arguments: dict[str, Any], model: str) -> Any:
        seen.append(arguments)
        return run(pipeline, arguments, model)

    monkeypatch.setattr(controlled_video, "run_pipeline", record)
    return seen


def generate(model: Path | str, seed: int = 3, path: CameraPath | None = None, **config: Any) -> Clip:
    settings = ControlledVideoConfig(**({"model": str(model), "steps": 1, "device": "cpu"} | config))
    return generate_controlled_video(CONDITIONS, path or make_path(), settings, seed=seed, progress=no_progress)


def pixels(pictures: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures])


def repeated(video: Video, frames: int) -> np.ndarray:
    """A video up to a number of frames, by more of its last one."""
    return video.array()[np.minimum(np.arange(frames), len(video) - 1)]


SHORT_TEXT = {"options": {"max_sequence_length": 16}}


def test_a_masked_pipeline_is_told_what_to_keep_and_what_to_make(masked_model: Path, calls: list[dict[str, Any]]) -> None:
    clip = generate(masked_model, negative_prompt="a dog", **SHORT_TEXT)
    (call,) = calls
    unknown = repeated(CONDITIONS.known, 9) == 0
    assert np.array_equal(pixels(call["mask"]), np.where(unknown, 255, 0))
    video = pixels(call["video"])
    assert (video[unknown] == 128).all()
    assert np.array_equal(video[~unknown], repeated(CONDITIONS.prior, 9)[~unknown])
    assert np.array_equal(np.asarray(call["reference_images"][0]), CONDITIONS.first_frame)
    assert (call["num_frames"], call["height"], call["width"]) == (9, 32, 48)  # 1 + 4 k
    assert (call["prompt"], call["negative_prompt"]) == (CONDITIONS.text, "a dog")
    assert clip.frames.shape == (6, 32, 48, 3)
    assert np.array_equal(clip.times_s, CONDITIONS.times_s)
    recipe = {key: clip.provenance[key] for key in ("kind", "generator", "pipeline_class", "model", "seed", "adapter", "control")}
    assert recipe == {
        "kind": "generated",
        "generator": "diffusers",
        "pipeline_class": "WanVACEPipeline",
        "model": str(masked_model),
        "seed": 3,
        "adapter": "masked",
        "control": "",
    }
    assert len(clip.provenance["weights"]) == 64


def test_the_seed_decides(masked_model: Path) -> None:
    first = generate(masked_model, seed=1, **SHORT_TEXT)
    assert content_digest(first) == content_digest(generate(masked_model, seed=1, **SHORT_TEXT))
    assert not np.array_equal(first.frames.array(), generate(masked_model, seed=2, **SHORT_TEXT).frames.array())


def test_another_size_is_worked_at_and_brought_back(masked_model: Path, calls: list[dict[str, Any]]) -> None:
    clip = generate(masked_model, height=64, width=96, **SHORT_TEXT)
    assert pixels(calls[0]["video"]).shape == (9, 64, 96, 3)
    assert pixels(calls[0]["mask"]).shape == (9, 64, 96)
    assert clip.frames.shape == (6, 32, 48, 3)


def test_pixels_of_little_trust_are_made_anew() -> None:
    known = np.full((6, 32, 48), 100, np.uint16)
    known[:, :16] = 200
    conditions = dataclasses.replace(CONDITIONS, known=Video.from_array(known))
    for trusted, white in ((0.3, []), (0.5, [100]), (0.9, [100, 200])):
        mask = pixels(tell_masked(conditions, make_path(), ControlledVideoConfig(trusted=trusted))["mask"])
        assert np.array_equal(mask == 255, np.isin(known, white))


def test_a_video_to_video_pipeline_starts_from_the_prior_without_holes(models: Path, calls: list[dict[str, Any]]) -> None:
    clip = generate(save_wan("WanVideoToVideoPipeline", models / "video"), steps=2, options={"strength": 0.5})
    video = pixels(calls[0]["video"])
    known = repeated(CONDITIONS.known, 9) > 0
    assert np.array_equal(video[known], repeated(CONDITIONS.prior, 9)[known])
    assert video[~known].min() >= 59  # the wall has 60 to 199 everywhere
    assert calls[0]["strength"] == 0.5
    assert clip.frames.shape == (6, 32, 48, 3)
    assert clip.provenance["adapter"] == "video"


def test_an_image_pipeline_goes_on_from_the_first_frame(image_model: Path, calls: list[dict[str, Any]]) -> None:
    clip = generate(image_model)
    assert np.array_equal(np.asarray(calls[0]["image"]), CONDITIONS.first_frame)
    assert (calls[0]["num_frames"], calls[0]["fps"]) == (6, 10)  # it makes any number of frames
    assert clip.frames.shape == (6, 32, 48, 3)
    assert clip.provenance["not_taken_by_pipeline"] == ["prompt"]


def test_a_control_pipeline_is_shown_boxes_and_road(
    models: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_packages(monkeypatch)
    model = save_cosmos_transfer(models / "control")
    clip = generate(model, options={"num_frames_per_chunk": 9, "max_sequence_length": 16})
    assert np.array_equal(pixels(calls[0]["controls"])[:6], draw_scenario(CONDITIONS))
    assert clip.frames.shape == (6, 32, 48, 3)
    assert (clip.provenance["adapter"], clip.provenance["control"]) == ("control", "boxes_and_road")


def test_cosmos_without_its_guardrail_is_refused(models: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_packages(patch)
        model = save_cosmos_transfer(models / "unguarded")
    assert "cosmos_guardrail" in refusal(model)


def test_a_camera_pipeline_is_told_poses_relative_to_the_first_frame(models: Path, calls: list[dict[str, Any]]) -> None:
    clip = generate(save_sana_wm(models / "camera"), options={"max_sequence_length": 16, "chi_prompt": ["a"]})
    expected = np.tile(np.eye(4), (7, 1, 1))  # 1 + 2 k
    expected[:, :3, 3] = np.minimum(np.arange(7), 5)[:, None] * STEP_M
    assert np.allclose(calls[0]["c2w"], expected, atol=1e-6)
    assert np.allclose(calls[0]["intrinsics"], [40, 40, 24, 16])  # the path's are of twice the size
    assert np.array_equal(np.asarray(calls[0]["image"]), CONDITIONS.first_frame)
    assert clip.frames.shape == (6, 32, 48, 3)
    assert clip.provenance["adapter"] == "camera"


def test_a_scenario_has_a_colour_for_every_side_and_line() -> None:
    boxes, road = np.zeros((1, 1, 8, 3), np.uint8), np.zeros((1, 1, 8, 3), np.uint8)
    boxes[0, 0, 0, 0], boxes[0, 0, 1, 0], boxes[0, 0, 2, 0], boxes[0, 0, 3, 1] = 255, 95, 175, 95  # front, back, side; back
    for kind in range(3):
        road[0, 0, 4 + kind, kind] = 255
    road[0, 0, 0, 0] = 255  # under a box
    frames = {"boxes": Video.from_array(boxes), "road": Video.from_array(road)}
    assert draw_scenario(dataclasses.replace(CONDITIONS, **frames))[0, 0].tolist() == [
        [0, 46, 136],
        [126, 206, 255],
        [63, 126, 196],
        [255, 124, 171],
        [255, 255, 255],
        [253, 1, 232],
        [139, 93, 255],
        [0, 0, 0],
    ]


def test_nearness_is_inverse_depth() -> None:
    depth = np.array([[[500, 1000, 5000, 0]]], np.uint16)
    drawn = draw_nearness(dataclasses.replace(CONDITIONS, depth_cm=Video.from_array(depth)))
    assert drawn[0, 0, :, 0].tolist() == [255, 128, 26, 0]


def test_a_stretched_prior_is_made_of_what_is_known_alone() -> None:
    grey = np.where(CONDITIONS.known.array()[..., None] > 0, np.uint8(90), np.uint8(0)).repeat(3, axis=-1)
    conditions = dataclasses.replace(CONDITIONS, prior=Video.from_array(grey))
    for width, height in ((96, 64), (30, 20)):
        fitted, path = fit_view(conditions, make_path(), 6, width, height)
        prior = fitted.prior.array()
        assert set(np.unique(prior)) == {0, 90}
        assert (prior[fitted.known.array() >= 128] == 90).all()
        assert np.allclose(path.intrinsics[0], [80 * width / 96, 0, width / 2])


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("WanVACEPipeline", "masked"),
        ("Cosmos2_5_TransferPipeline", "control"),
        ("CogVideoXFunControlPipeline", "control"),
        ("CogVideoXVideoToVideoPipeline", "video"),
        ("StableVideoDiffusionPipeline", "image"),
        ("WanImageToVideoPipeline", "image"),
        ("SanaWMPipeline", "camera"),
    ],
)
def test_how_a_pipeline_is_told_is_read_off_its_call(name: str, adapter: str) -> None:
    import diffusers

    accepted = inspect.signature(getattr(diffusers, name).__call__).parameters
    assert choose_adapter(accepted, name, "auto") == adapter


def test_a_pipeline_that_takes_several_is_told_the_one_asked_for(masked_model: Path, calls: list[dict[str, Any]]) -> None:
    assert generate(masked_model, adapter="video", **SHORT_TEXT).provenance["adapter"] == "video"
    assert "mask" not in calls[0]


def refusal(model: Path | str, **config: Any) -> str:
    with pytest.raises(WorldlineError) as error:
        generate(model, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pipeline_that_cannot_be_told_of_a_view_is_refused(tmp_path: Path) -> None:
    assert "WanPipeline cannot be told of a view" in refusal(model_index(tmp_path / "text", "WanPipeline"))
    assert "cannot be told of a view" in refusal(model_index(tmp_path / "picture", "StableDiffusionImg2ImgPipeline"))
    assert "by adapter=camera" in refusal(model_index(tmp_path / "masked", "WanVACEPipeline"), adapter="camera")


def test_an_option_that_a_pipeline_has_not_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(model_index(tmp_path / "m", "WanVACEPipeline"), options={"condition_scale": 1.0})
    assert "has no option condition_scale, did you mean conditioning_scale?" in message


def test_a_model_that_is_not_at_hand_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "set generate.controlled_video.model" in refusal("")
    assert "there is no folder" in refusal(tmp_path / "none")
    assert "hf download nobody/no-such-video-model" in refusal("nobody/no-such-video-model")


def test_a_path_of_other_frames_is_refused(masked_model: Path) -> None:
    assert "5 poses for 6 frames" in refusal(masked_model, path=make_path(5))


def test_too_few_frames_are_refused(image_model: Path) -> None:
    assert "made 3 frames of 6" in refusal(image_model, options={"num_frames": 3})


def test_depth_that_is_not_there_is_refused() -> None:
    blank = dataclasses.replace(CONDITIONS, depth_cm=Video.from_array(np.zeros((6, 32, 48), np.uint16)))
    with pytest.raises(WorldlineError, match="control=depth needs depth"):
        draw_nearness(blank)


def test_a_pinned_model_is_noticed_when_it_changes(models: Path) -> None:
    folder = save_stable_video(models / "pinned")
    pinned = pin_pipeline(ControlledVideoConfig(model=str(folder)))
    assert "auto" not in (pinned.device, pinned.dtype)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert f"not the pinned {pinned.weights}" in refusal(folder, weights=pinned.weights)
