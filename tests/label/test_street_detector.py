"""Training the street detector, asking it or a checkpoint of transformers, and what its answers say of generated traffic."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from streets_drawn import HEIGHT, WIDTH, drawn_log

from schemas.cameras import CameraPath
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.models import Model
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import no_progress
from stages.label.detect_vehicles import DetectorConfig, open_detector
from stages.label.obedience import ObedienceConfig, measure_obedience, pin_obedience
from stages.label.train_street_detector import TrainStreetDetectorConfig, train_street_detector
from worldline.detection.agents import vehicles_in_view

CONFIG = TrainStreetDetectorConfig(
    width=WIDTH, height=HEIGHT, steps=70, batch=8, learning_rate=4e-3, held_out=1, checkpoint_every=10
)


class KilledError(Exception):
    pass


def train(folder: Path, logs: list, config: TrainStreetDetectorConfig = CONFIG, progress=no_progress) -> tuple[Model, Metrics]:
    folder.mkdir(parents=True, exist_ok=True)
    clips, paths, tracks, maps = zip(*logs, strict=True)
    return train_street_detector(clips, paths, tracks, maps, config, seed=0, progress=progress, checkpoints=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Metrics]:
    return train(tmp_path_factory.mktemp("detector"), [drawn_log(seed) for seed in (1, 2, 3, 4, 5)])


def test_vehicles_and_lines_of_streets_it_never_saw_are_found(trained: tuple[Model, Metrics]) -> None:
    figures = trained[1].facts()
    assert figures["street_detector.nta_iou"] > 0.6
    assert figures["street_detector.recall"] > 0.8
    assert figures["street_detector.precision"] > 0.8
    assert figures["street_detector.ntl_iou_lane"] > 0.4


def test_the_model_says_what_it_was_trained_on(trained: tuple[Model, Metrics]) -> None:
    model = trained[0]
    assert (model.role, model.architecture) == ("street_detector", "StreetDetector")
    assert model.training["clips"] == 4
    assert model.training["frames"] == 48
    assert model.trained_on.endswith("in 48 frames of 4 clips: drawn 1, drawn 2, drawn 3, drawn 4")
    assert model.training["street_detector.nta_iou"] == pytest.approx(trained[1].facts()["street_detector.nta_iou"], abs=1e-4)
    assert sum(path.stat().st_size for path in model.files.values()) < 3e6


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    logs = [drawn_log(seed, frames=4) for seed in (1, 2)]
    config = dataclasses.replace(CONFIG, steps=6, batch=2, checkpoint_every=2)
    whole, _ = train(tmp_path / "whole", logs, config)

    def kill(done: int, total: int, note: str = "") -> None:
        if done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "killed", logs, config, progress=kill)
    steps: list[int] = []
    again, _ = train(tmp_path / "killed", logs, config, progress=lambda done, total, note="": steps.append(done))
    assert steps == [5, 6]
    assert content_digest(again) == content_digest(whole)


def test_training_without_vehicles_or_clips_is_refused(tmp_path: Path) -> None:
    clip, path, tracks, road_map = drawn_log(1, frames=2)
    bare = dataclasses.replace(tracks, samples=tracks.samples.slice(0, 0), objects=tracks.objects.slice(0, 0))
    with pytest.raises(WorldlineError, match="show no vehicle of 6 px"):
        train(tmp_path, [(clip, path, bare, road_map)] * 2)
    with pytest.raises(WorldlineError, match="held_out=1 of 1 clips leaves none"):
        train(tmp_path, [(clip, path, tracks, road_map)])
    with pytest.raises(WorldlineError, match="got 2 clips, 1 paths"):
        train_street_detector(
            (clip, clip), (path,), (tracks,) * 2, (road_map,) * 2, CONFIG, seed=0, progress=no_progress, checkpoints=tmp_path
        )
    with pytest.raises(WorldlineError, match="multiples of 16"):
        train(tmp_path, [(clip, path, tracks, road_map)] * 2, dataclasses.replace(CONFIG, width=100))


def test_measured_visibility_goes_before_nearer_boxes() -> None:
    _, path, tracks, _ = drawn_log(1, frames=1)
    hidden = vehicles_in_view(tracks, path, WIDTH, HEIGHT)[0].hidden
    assert hidden.tolist() == pytest.approx([0, 0, 0], abs=0.2)
    column = tracks.samples.schema.get_field_index("visible")
    samples = tracks.samples.set_column(column, "visible", [[1.0, 0.25, None]])
    told = vehicles_in_view(dataclasses.replace(tracks, samples=samples), path, WIDTH, HEIGHT)[0].hidden
    assert told[:2].tolist() == [0.0, 0.75]
    assert told[2] == hidden[2]


def test_boxes_are_told_at_the_size_of_the_pictures_and_not_where_there_is_no_pose() -> None:
    _, path, tracks, _ = drawn_log(1, frames=2)
    path = dataclasses.replace(path, registered=np.array([True, False]))
    half, whole = (vehicles_in_view(tracks, path, WIDTH // scale, HEIGHT // scale) for scale in (2, 1))
    np.testing.assert_allclose(half[0].boxes * 2, whole[0].boxes)
    assert [len(frame.boxes) for frame in whole] == [3, 0]


def obey(log: tuple, model: Model, **settings: object) -> dict[str, float]:
    clip, path, tracks, _ = log
    config = ObedienceConfig(**settings)  # type: ignore[arg-type]
    return measure_obedience(clip, path, tracks, model, config, seed=0, progress=no_progress).facts()


def test_obedient_traffic_is_found_where_its_boxes_are(trained: tuple[Model, Metrics]) -> None:
    figures = obey(drawn_log(7), trained[0])
    assert figures["driving.condition_boxes"] > 20
    assert figures["driving.condition_found"] > 0.8
    assert figures["driving.condition_obedience_m"] < 1.0
    assert figures["driving.condition_false_vehicles"] < 0.3


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tracks, CameraPath], None]:
    """Put a detector in the place of any other that sees all vehicles of some tracks, exactly."""

    def see(tracks: Tracks, path: CameraPath) -> None:
        frames = iter(vehicles_in_view(tracks, path, WIDTH, HEIGHT))

        def detect(images: np.ndarray) -> list[np.ndarray]:
            return [np.insert(next(frames).boxes, 4, 1.0, axis=1) for _ in images]

        monkeypatch.setattr("stages.label.obedience.open_detector", lambda *asked: detect)

    return see


def test_traffic_that_drives_ahead_of_its_boxes_is_so_much_farther_away(
    trained: tuple[Model, Metrics], watch: Callable[[Tracks, CameraPath], None]
) -> None:
    log = drawn_log(7)
    _, path, tracks, _ = log
    column = tracks.samples.schema.get_field_index("x")
    ahead = tracks.samples.set_column(column, "x", pc.add(tracks.samples["x"], 3.0))
    watch(dataclasses.replace(tracks, samples=ahead), path)
    assert obey(log, trained[0])["driving.condition_obedience_m"] == pytest.approx(3.0, abs=1e-3)


def test_vehicles_without_a_box_are_false(trained: tuple[Model, Metrics], watch: Callable[[Tracks, CameraPath], None]) -> None:
    clip, path, tracks, road_map = drawn_log(7)
    watch(tracks, path)
    one = tracks.samples.filter(np.asarray(tracks.samples["track_id"]) == 1)
    alone = dataclasses.replace(tracks, samples=one)
    assert obey((clip, path, alone, road_map), trained[0])["driving.condition_false_vehicles"] == 2


def test_boxes_without_a_vehicle_are_not_found(trained: tuple[Model, Metrics]) -> None:
    clip, path, tracks, road_map = drawn_log(7)
    grey = dataclasses.replace(clip, frames=Video.from_array(np.full_like(clip.frames.array(), 40)))
    nothing = obey((grey, path, tracks, road_map), trained[0])
    assert nothing["driving.condition_found"] == 0
    assert "driving.condition_obedience_m" not in nothing


def test_a_clip_of_another_path_is_refused(trained: tuple[Model, Metrics]) -> None:
    clip, _, tracks, _ = drawn_log(7)
    _, path, _, _ = drawn_log(7, frames=3)
    with pytest.raises(WorldlineError, match="has 12 frames but its path 3"):
        obey((clip, path, tracks, None), trained[0])


def test_a_model_of_another_role_is_refused(trained: tuple[Model, Metrics]) -> None:
    other = dataclasses.replace(trained[0], role="street_video")
    with pytest.raises(WorldlineError, match="is a street_video, not a street_detector"):
        open_detector(DetectorConfig(), other, "label.obedience.model")


def save_checkpoint(folder: Path, words: dict[int, str]) -> Path:
    """Save a tiny RT-DETR with random weights: its boxes mean nothing, their way through the adapter is that of real ones."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrResNetConfig

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8, 8],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        num_queries=20,
        num_denoising=0,
        id2label=words,
        label2id={word: number for number, word in words.items()},
    )
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "rtdetr", {0: "person", 1: "car", 2: "Bus"})


def test_a_checkpoint_finds_what_the_bare_transformers_call_finds_of_the_classes_asked(
    checkpoint: Path, trained: tuple[Model, Metrics]
) -> None:
    from transformers import AutoImageProcessor, RTDetrForObjectDetection

    images = drawn_log(7)[0].frames.array()[:3]
    detect = open_detector(DetectorConfig(model=str(checkpoint), min_score=0.01, batch=2), trained[0], "label.obedience.model")
    found = detect(images)
    processor, model = AutoImageProcessor.from_pretrained(checkpoint), RTDetrForObjectDetection.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        outputs = model(**processor(images=list(images), return_tensors="pt"))
    bare = processor.post_process_object_detection(outputs, threshold=0.01, target_sizes=[(HEIGHT, WIDTH)] * 3)
    assert len(found) == 3
    for own, raw in zip(found, bare, strict=True):
        kept = raw["labels"] > 0
        assert 0 < len(own) == int(kept.sum())
        np.testing.assert_allclose(np.sort(own[:, 4]), np.sort(raw["scores"][kept].numpy()), rtol=1e-3)
        best = int(raw["scores"][kept].argmax())
        np.testing.assert_allclose(own[0, :4], raw["boxes"][kept][best].numpy(), rtol=1e-3, atol=1e-2)


def test_a_checkpoint_without_vehicles_is_refused(tmp_path: Path, trained: tuple[Model, Metrics]) -> None:
    animals = save_checkpoint(tmp_path / "animals", {0: "cat", 1: "dog"})
    with pytest.raises(WorldlineError, match=r"finds none of car, truck, .* \(it knows cat, dog, \.\.\.\)") as caught:
        open_detector(DetectorConfig(model=str(animals)), trained[0], "label.obedience.model")
    assert "set label.obedience.classes" in str(caught.value)


def test_a_named_checkpoint_is_pinned_and_our_own_needs_no_pin(checkpoint: Path) -> None:
    pinned = pin_obedience(ObedienceConfig(model=str(checkpoint)))
    assert pinned.weights
    assert pinned.device == pin_obedience(ObedienceConfig()).device != "auto"
