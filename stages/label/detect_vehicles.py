"""Detectors of vehicles by name: any object-detection checkpoint of Hugging Face transformers, or a small one of ours.

RT-DETR (Zhao et al., CVPR 2024), DETR (Carion et al., ECCV 2020) and their kin all load through the same auto class.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field, PositiveInt

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.models import Model
from stages.pretrained import load_processor_and_model, open_checkpoint, pin_checkpoint
from worldline.diffusion.devices import resolve_device
from worldline.metrics.driving import Detector


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Which detector is asked, and what it must say.

    Attributes:
        model: repository id ("PekingU/rtdetr_v2_r18vd") or folder in transformers' format; "" asks the trained model that the
            stage is given.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have; "" accepts any.
        classes: what a checkpoint calls vehicles, by the words of its config.
        min_score: detections below this are not believed.
        batch: frames given to a checkpoint at a time.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    """

    model: str = ""
    revision: str | None = None
    weights: str = ""
    classes: tuple[str, ...] = ("car", "truck", "bus", "van", "trailer", "vehicle")
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.35
    batch: PositiveInt = 4
    device: str = "auto"


Config = TypeVar("Config", bound=DetectorConfig)


def knows_streets_of(clip: Clip) -> bool:
    """Return whether our own detector can be believed on a log's frames: it was taught on procedural streets alone."""
    return clip.provenance.get("generator") == "worldline.worlds"


def open_detector(config: DetectorConfig, trained: Model, setting: str) -> Detector:
    """Return the detector that a config names: images `[T, H, W, 3]` uint8 to one `[n, 5]` (x0, y0, x1, y1, score) per frame.

    Args:
        config: which one.
        trained: one of ours, asked where the config names no other.
        setting: the setting that names the model, for messages.

    Raises:
        WorldlineError: if the named model is not at hand, finds none of the classes, or the trained one is no detector.
    """
    if config.model:
        return _open_checkpoint(config, setting)
    if trained.role != "street_detector":
        raise WorldlineError(
            f"{setting}: the model given is a {trained.role}, not a street_detector: give the one that "
            "label.train_street_detector made, or name a checkpoint"
        )
    from worldline.detection import detect_vehicles, load_detector

    network = load_detector(trained.files, resolve_device(config.device))
    return lambda images: detect_vehicles(network, images, config.min_score)


def _open_checkpoint(config: DetectorConfig, setting: str) -> Detector:
    import torch
    from transformers import AutoModelForObjectDetection

    checkpoint = open_checkpoint(config, setting)
    processor, model = load_processor_and_model(checkpoint, setting, "an object-detection model", AutoModelForObjectDetection)
    words = model.config.id2label
    wanted = sorted(int(number) for number, word in words.items() if word.lower() in config.classes)
    if not wanted:
        room = setting.rpartition(".")[0]
        some = ", ".join(list(words.values())[:8])
        raise WorldlineError(
            f"{setting}: {config.model} finds none of {', '.join(config.classes)} (it knows {some}, ...): set {room}.classes"
        )

    def detect(images: np.ndarray) -> list[np.ndarray]:
        found = []
        for start in range(0, len(images), config.batch):
            frames = images[start : start + config.batch]
            with torch.inference_mode():
                outputs = model(**processor(images=list(frames), return_tensors="pt").to(checkpoint.device))
            sizes = [images.shape[1:3]] * len(frames)
            for own in processor.post_process_object_detection(outputs, threshold=config.min_score, target_sizes=sizes):
                labels, scores, boxes = (own[name].float().cpu().numpy() for name in ("labels", "scores", "boxes"))
                kept = np.isin(labels, wanted)
                order = np.argsort(-scores[kept], kind="stable")
                found.append(np.concatenate([boxes, scores[:, None]], axis=1)[kept][order].astype(np.float32))
        return found

    return detect


def pin_detector(config: Config, setting: str) -> Config:
    """Return the config with the present state of the model it names, if any, and this machine's device in it.

    Raises:
        WorldlineError: if the model is not at hand.
    """
    return pin_checkpoint(config, setting) if config.model else dataclasses.replace(config, device=resolve_device(config.device))
