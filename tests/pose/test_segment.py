"""Learned segmenters: tiny checkpoints with random weights, made here and saved in transformers' own format.

Their classes mean nothing; their path through the stage is that of the real models.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from drives import clip_of

from schemas.codec import content_digest
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.motion import Masks
from stages.contract import no_progress
from stages.pose.segment import SEGMENTED, SegmentConfig, pin_segmenter, segment_movers

CLIP = clip_of(np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3)).astype(np.uint8))
NAMES = {0: "road", 1: "car, auto", 2: "person"}


def found_to_move() -> Masks:
    labels = np.zeros((3, 32, 48), np.uint16)
    labels[:, 4:9, 5:12] = 3
    return Masks(Video.from_array(labels), 0.5, "by hand")


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8, id2label=NAMES,
        label2id={name: index for index, name in NAMES.items()},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "segformer"
    model = SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model that means nothing.\n")
    return folder


@pytest.fixture(scope="module")
def universal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessorPil,
        SwinConfig,
    )

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8,
        encoder_layers=1, decoder_layers=2, num_attention_heads=1, dim_feedforward=8, num_queries=5, id2label=NAMES,
        label2id={name: index for index, name in NAMES.items()},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "mask2former"
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def segment(masks: Masks, **settings: object) -> Masks:
    return segment_movers(CLIP, masks, SegmentConfig(device="cpu", **settings), seed=0, progress=no_progress)  # type: ignore[arg-type]


def test_the_union_keeps_what_was_found_to_move_and_adds_pixels_of_the_named_classes(semantic: Path) -> None:
    every = segment(found_to_move(), model=str(semantic), may_move=("road", "car", "person"))
    before, after = found_to_move().labels.array(), every.labels.array()
    np.testing.assert_array_equal(after[before > 0], 3)
    assert (after[before == 0] == SEGMENTED).all()  # every pixel has one of the three classes


def test_classes_that_are_not_named_stay(semantic: Path) -> None:
    masks = [
        segment(found_to_move(), model=str(semantic), may_move=(name,), combine="alone") for name in ("road", "car", "person")
    ]
    segmented = np.stack([one.labels.array() == SEGMENTED for one in masks])
    assert segmented.any(axis=(1, 2, 3)).sum() >= 2, "the tiny model must see at least two classes"
    assert segmented.any(axis=0).all()
    assert segmented.mean() < 0.9


def test_a_universal_segmenter_goes_the_same_way(universal: Path) -> None:
    found = segment(found_to_move(), model=str(universal), may_move=tuple(name.split(",")[0] for name in NAMES.values()))
    assert (found.labels.array() == SEGMENTED).any()


def test_model_state_and_licence_are_recorded(semantic: Path) -> None:
    pinned = pin_segmenter(SegmentConfig(model=str(semantic)))
    method = segment(found_to_move(), model=str(semantic), weights=pinned.weights).method
    assert str(semantic) in method
    assert pinned.weights[:12] in method
    assert "apache-2.0" in method
    assert method.startswith("by hand; ")


def test_without_a_model_the_masks_stay_as_they_are() -> None:
    masks = found_to_move()
    assert segment(masks) is masks
    assert pin_segmenter(SegmentConfig()) == SegmentConfig()


def test_the_same_frames_give_the_same_bytes(semantic: Path) -> None:
    one, other = (segment(found_to_move(), model=str(semantic)) for _ in range(2))
    assert content_digest(one) == content_digest(other)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match=r"pose\.segment\.model: the folder .* holds no config\.json"):
        pin_segmenter(SegmentConfig(model=str(tmp_path)))


def test_a_model_of_another_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(WorldlineError, match="does not load as a segmentation model") as refusal:
        segment(found_to_move(), model=str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_classes_that_the_model_does_not_know_are_answered_with_those_that_it_does(semantic: Path) -> None:
    with pytest.raises(WorldlineError, match=r"knows none of these classes; it knows road, car, auto, person"):
        segment(found_to_move(), model=str(semantic), may_move=("elephant",))
