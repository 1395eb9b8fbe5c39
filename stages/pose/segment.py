"""Stage `pose.segment`: what may move by its class, by a pretrained segmenter, where one is named.

Any semantic, panoptic or universal segmentation checkpoint of Hugging Face transformers that is told nothing but the picture
(SegFormer, Xie et al. 2021; Mask2Former, Cheng et al. 2022, ...). A class says what may move, not what does: the result is
for leaving features out of the camera's path (`pose.refine`), and names no objects. transformers and torch are imported
where they are used: they take seconds to load, and most builds name no model.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import PositiveInt

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.motion import Masks
from stages.contract import Progress, Tolerance, stage
from stages.pretrained import first_line, folder_digest, is_folder, licence_of, locate_transformer, resolve_device

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
    """Return the config with the model's present state and this machine's device in it.

    Raises:
        WorldlineError: if the model is not at hand.
    """
    if not config.model:
        return config
    folder, revision = locate_transformer(config.model, config.revision, _SETTING)
    weights = folder_digest(folder) if is_folder(config.model) else ""
    return dataclasses.replace(config, revision=revision or None, weights=weights, device=resolve_device(config.device))


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

    folder, revision = locate_transformer(config.model, config.revision, _SETTING)
    weights = folder_digest(folder) if is_folder(config.model) else ""
    if config.weights and config.weights != weights:
        raise WorldlineError(f"the model folder {config.model} has digest {weights or 'none'}, not the pinned {config.weights}")
    device = resolve_device(config.device)
    processor, model = _load(folder, config.model, device)
    classes = _classes(model.config.id2label, config)
    _, height, width = masks.labels.shape[:3]
    labels = np.zeros((len(clip.frames), height, width), np.uint16)
    for start in range(0, len(clip.frames), config.batch):
        frames = clip.frames.at(range(start, min(start + config.batch, len(clip.frames))))
        try:
            with torch.inference_mode():
                outputs = model(**processor(images=list(frames), return_tensors="pt").to(device))
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
    state = f"{config.model} at {revision or weights[:12]}, licence {licence_of(folder) or 'not stated'}"
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


def _load(folder: Path, name: str, device: str) -> tuple[Any, Any]:
    """Return the image processor and the model, in single precision and on the device."""
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shows_bars = is_progress_bar_enabled()
    disable_progress_bar()
    arguments = {"local_files_only": True, "use_safetensors": True, "dtype": "float32"}
    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        try:
            model = AutoModelForUniversalSegmentation.from_pretrained(folder, **arguments)
        except ValueError:  # of another kind: the config's type is in the other list
            model = AutoModelForSemanticSegmentation.from_pretrained(folder, **arguments)
        return processor, model.to(device).eval()
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise WorldlineError(
            f"{_SETTING}: {name} does not load as a segmentation model ({first_line(error)}): check that it is one, that the "
            "folder is whole, and that its weights are safetensors"
        ) from error
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise WorldlineError(
            f"{_SETTING}: {name} does not fit on {device} ({first_line(error)}): set pose.segment.device"
        ) from error
    finally:
        if shows_bars:
            enable_progress_bar()
