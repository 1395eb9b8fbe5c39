"""Depth by pretrained models: tiny checkpoints with random weights, made here and saved in transformers' own format.

Their depth means nothing; their path through the stage is that of the real models.
"""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drives import clip_of
from PIL import Image

from flows.building import begin
from schemas.codec import content_digest, decode, encode
from schemas.depth import DepthVideo, half_bits_of
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.pose.depth import DepthConfig, estimate_depth, pin_depth_model

CLIP = clip_of(np.random.default_rng(0).integers(0, 255, (5, 60, 96, 3)).astype(np.uint8))
CARD = "---\nlicense: apache-2.0\n---\nA model that means nothing.\n"


def with_lively_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh heads answer almost the same everywhere: weights ten times as large make every pixel differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    return model


def save_depth_anything(folder: Path, **settings: Any) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_features=stages,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4] * 4,
        fusion_hidden_size=4,
        head_hidden_size=4,
        **settings,
    )
    with_lively_weights(DepthAnythingForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "relative")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_anything(tmp_path_factory.mktemp("models") / "metric", depth_estimation_type="metric", max_depth=80)


def estimate(model: Path | str, **settings: Any) -> DepthVideo:
    return estimate_depth(CLIP, DepthConfig(model=str(model), **settings), seed=0, progress=no_progress)


def refusal(model: Path | str, **settings: Any) -> str:
    with pytest.raises(WorldlineError) as caught:
        estimate(model, **settings)
    return str(caught.value)


def test_without_a_model_there_is_no_depth_and_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(CLIP.frames), "at", None)  # not one frame is read
    depth = estimate("")
    assert (len(depth), depth.quantity) == (0, "none")
    assert pin_depth_model(DepthConfig()) == DepthConfig()


def test_the_depth_of_a_frame_is_that_of_the_bare_transformers_call(relative: Path) -> None:
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    processor = AutoImageProcessor.from_pretrained(relative)
    with torch.no_grad():
        seen = processor(images=CLIP.frames.array()[3], return_tensors="pt")
        raw = DepthAnythingForDepthEstimation.from_pretrained(relative)(**seen).predicted_depth
        bare = torch.nn.functional.interpolate(raw[None], (60, 96), mode="bicubic", align_corners=False)[0, 0].numpy()
    assert bare.std() > 0.01
    np.testing.assert_allclose(estimate(relative).at([3])[0], np.maximum(bare, 0), rtol=2e-3, atol=1e-5)


def test_relative_and_metric_are_told_apart_by_the_checkpoint(relative: Path, metric: Path) -> None:
    assert estimate(relative).quantity == "relative_inverse_depth"
    found = estimate(metric)
    assert found.quantity == "metric_depth"
    assert 0 < found.at(range(5)).max() <= 80


def test_the_setting_has_the_last_word_on_what_a_checkpoint_predicts(relative: Path) -> None:
    assert estimate(relative, quantity="metric_depth").quantity == "metric_depth"


def test_depth_is_kept_no_larger_than_asked_and_says_how_it_lies_on_the_clip(relative: Path) -> None:
    depth = estimate(relative, max_side=48)
    assert depth.at([0, 4]).shape == (2, 30, 48)
    assert depth.scale == (0.5, 0.5)
    assert np.array_equal(depth.times_s, CLIP.times_s)


def test_depth_is_the_same_bytes_again_and_in_other_batches(metric: Path) -> None:
    first = content_digest(estimate(metric))
    assert content_digest(estimate(metric)) == first
    alone, together = estimate(metric, batch=1).at(range(5)), estimate(metric, batch=5).at(range(5))
    np.testing.assert_allclose(alone, together, rtol=2e-3)


def test_the_model_and_its_licence_are_recorded(relative: Path) -> None:
    depth = estimate(relative)
    assert (depth.model, depth.licence, depth.revision) == (str(relative), "apache-2.0", "")
    assert depth.weights == pin_depth_model(DepthConfig(model=str(relative))).weights != ""


def test_a_pinned_model_is_noticed_when_it_changes(relative: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(relative, folder)
    pinned = pin_depth_model(DepthConfig(model=str(folder)))
    assert pinned.device != "auto"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert pin_depth_model(DepthConfig(model=str(folder))) != pinned
    assert f"not the pinned {pinned.weights}" in refusal(folder, weights=pinned.weights)


def test_a_model_that_is_not_here_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = refusal("someone/some-depth", revision="v2")
    assert message.startswith("pose.depth.model: the model someone/some-depth at revision v2 is not in the local cache")
    assert "`hf download someone/some-depth --revision v2`" in message
    assert "\n" not in message
    assert "there is no folder ./nowhere" in refusal("./nowhere")
    assert "holds no config.json" in refusal(tmp_path)


def test_a_model_that_is_none_for_depth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "does not load as a depth-estimation model" in refusal(tmp_path)


def test_pickled_weights_are_never_loaded(relative: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(relative, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "weights are safetensors" in refusal(folder)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_zoedepth_without_torchvision_says_what_it_needs(tmp_path: Path) -> None:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessorPil

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = BeitConfig(
        image_size=32, hidden_size=8, num_hidden_layers=4, num_attention_heads=2, out_features=stages, reshape_hidden_states=False
    )
    config = ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[4] * 4, fusion_hidden_size=4, bottleneck_features=4, num_relative_features=4
    )
    ZoeDepthForDepthEstimation(config).save_pretrained(tmp_path)
    ZoeDepthImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    assert "pip install torchvision" in refusal(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_depth_on_cuda_is_that_on_the_cpu(metric: Path) -> None:
    on_card, here = (estimate(metric, device=device).at(range(5)) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(on_card, here, rtol=0.01)


def test_values_survive_storage_bit_by_bit(tmp_path: Path, metric: Path) -> None:
    depth = estimate(metric)
    again = decode(encode(depth, tmp_path))
    assert isinstance(again, DepthVideo)
    assert np.array_equal(again.at(range(5)), depth.at(range(5)))
    assert content_digest(again) == content_digest(depth)
    empty = decode(encode(DepthVideo.none(), tmp_path))
    assert dataclasses.asdict(empty)["quantity"] == "none"


def test_half_precision_keeps_any_distance_to_a_twentieth_of_a_percent() -> None:
    metres = np.geomspace(1e-4, 6e4, 4001)[None]
    kept = half_bits_of(metres).view(np.float16).astype(np.float64)
    assert np.abs(kept / metres - 1).max() < 5e-4
    assert np.all(np.diff(half_bits_of(metres).astype(int)) >= 0)  # the bits order as the values do
    assert np.array_equal(half_bits_of(np.array([[np.nan, -1.0, np.inf, 0.0]])), np.zeros((1, 4), np.uint16))


def test_a_build_asks_a_model_again_only_when_it_has_changed(relative: Path, tmp_path: Path) -> None:
    model, source = tmp_path / "model", tmp_path / "film"
    shutil.copytree(relative, model)
    source.mkdir()
    for index, frame in enumerate(CLIP.frames.array()):
        Image.fromarray(frame).save(source / f"{index}.png")

    def decision() -> tuple[str, str]:
        settings = (f"source={source}", "name=film", f"pose.depth.model={model}")
        build = begin("pseudo_labels", settings, str(tmp_path / "home"), explain=False, quiet=True)
        clip, _ = build.open_source(str(source))
        build.run("pose.depth", clip=clip)
        return build.decisions[-1].action, build.decisions[-1].why

    assert decision()[0] == "run"
    assert decision() == ("keep", "recorded and intact")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    action, why = decision()
    assert action == "run"
    assert why.startswith("config.weights")
