"""Stage `pose.segment`: what may move by its class, by a pretrained segmenter, where one is named.

Any semantic, panoptic or universal segmentation checkpoint of Hugging Face transformers that is told nothing but the picture
(SegFormer, Xie et al. 2021; Mask2Former, Cheng et al. 2022, ...). A class says what may move, not what does: the result is
for leaving features out of the camera's path (`pose.refine`), and names no objects. transformers and torch are imported
where they are used: they take seconds to load, and most builds name no model.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pydantic import PositiveInt

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.motion import Masks
from stages.contract import Progress, Tolerance, stage
from stages.pretrained import first_line, licence_of, load_processor_and_model, open_checkpoint, pin_checkpoint

SEGMENTED = 65535  # the label of what a segmenter says may move
_SETTING = "pose.segment.model"


@dataclass(frozen=True)
class SegmentConfig:
    """Which model, and what may move.

    Attributes:
        model: repository id ("nvidia/segformer-b0-finetuned-cityscapes-512-1024") or folder in transformers' format; "" asks
            no model, and the masks stay as they are.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have (see `pin_segmenter`); "" accepts any.
        may_move: names of classes, as the checkpoint spells them in any case; those that it does not know are passed over.
        combine: "union" adds to what was found to move, "alone" takes its place.
        batch: frames given to the model at a time.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    """

    model: str = ""
    revision: str | None = None
    weights: str = ""
    may_move: tuple[str, ...] = (
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "van", "boat", "airplane", "animal", "dog",
        "cat", "horse", "cow", "sheep", "bird",
    )  # fmt: skip
    combine: Literal["union", "alone"] = "union"
    batch: PositiveInt = 4
    device: str = "auto"


def pin_segmenter(config: SegmentConfig) -> SegmentConfig:
    """Return the config with the model's present state and this machine's device in it; see `pin_checkpoint`."""
    return pin_checkpoint(config, _SETTING)


def _differing_share(recorded: Masks, remade: Masks) -> float:
    if recorded.labels.shape != remade.labels.shape:
        return float("inf")
    return float(np.mean([(a != b).mean() for a, b in zip(recorded.labels, remade.labels, strict=True)]))


@stage(
    "pose.segment",
    version=1,
    environment_packages=("torch", "transformers"),
    # the sums inside torch are cut by the number of threads, and on CUDA by the card
    tolerance={Masks: Tolerance("share of pixels that differ", 0.005, "share", _differing_share)},
    pin=pin_segmenter,
)
def segment_movers(clip: Clip, masks: Masks, config: SegmentConfig, *, seed: int, progress: Progress) -> Masks:
    """Add the pixels of classes that may move to the masks, with the label `SEGMENTED`; without a model nothing changes.

    The result's `method` names the model, its state and its licence.

    Raises:
        WorldlineError: if the model is not at hand, segments nothing, or knows none of the classes.
    """
    if not config.model:
        return masks
    import torch
    from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    checkpoint = open_checkpoint(config, _SETTING)
    kinds = AutoModelForUniversalSegmentation, AutoModelForSemanticSegmentation
    processor, model = load_processor_and_model(checkpoint, _SETTING, "a segmentation model", *kinds)
    classes = _classes(model.config.id2label, config)
    _, height, width = masks.labels.shape[:3]
    labels = np.zeros((len(clip.frames), height, width), np.uint16)
    for start in range(0, len(clip.frames), config.batch):
        frames = clip.frames.at(range(start, min(start + config.batch, len(clip.frames))))
        try:
            with torch.inference_mode():
                outputs = model(**processor(images=list(frames), return_tensors="pt").to(checkpoint.device))
                found = processor.post_process_semantic_segmentation(outputs, target_sizes=[clip.size[::-1]] * len(frames))
        except (AttributeError, TypeError, ValueError) as error:
            raise WorldlineError(
                f"{_SETTING}: {config.model} does not segment a picture alone ({first_line(error)}): name a semantic or "
                "universal segmentation checkpoint that needs no prompt"
            ) from error
        if config.combine == "union":
            labels[start : start + len(frames)] = masks.labels.at(range(start, start + len(frames)))
        for index, item in enumerate(found, start):
            moves = np.isin(item.cpu().numpy(), classes).astype(np.uint8)
            here = cv2.resize(moves, (width, height), interpolation=cv2.INTER_AREA) > 0
            labels[index][here & (labels[index] == 0)] = SEGMENTED
        progress(start + len(frames), len(clip.frames), "frames")
    licence = licence_of(checkpoint.folder) or "not stated"
    state = f"{config.model} at {checkpoint.revision or checkpoint.weights[:12]}, licence {licence}"
    method = f"classes that may move by {state}"
    return Masks(Video.from_array(labels), masks.scale, f"{masks.method}; {method}" if config.combine == "union" else method)


def _classes(names: dict[int, str], config: SegmentConfig) -> list[int]:
    """Return the checkpoint's numbers of the classes that may move; names such as "car, auto" count by their first word."""
    wanted = {name.casefold() for name in config.may_move}
    found = [int(index) for index, name in names.items() if {name.casefold(), name.split(",")[0].strip().casefold()} & wanted]
    if not found:
        known = ", ".join(list(names.values())[:12])
        raise WorldlineError(
            f"pose.segment.may_move: {config.model} knows none of these classes; it knows {known}"
            f"{', ...' if len(names) > 12 else ''}"
        )
    return found
