"""Number plates in pictures, by a pretrained object detector that is named: any of Hugging Face transformers.

No detector of plates under a licence for everybody comes along, so one must be given. It sees the whole frame at the size
that its own processor makes of it; how many plates it finds is the detector's, and not measured here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from schemas.errors import WorldlineError
from stages.pretrained import Checkpoint, first_line, load_processor_and_model, open_checkpoint

_SETTING = "--plate-model"


@dataclass(frozen=True)
class PlateConfig:
    """Which model finds number plates.

    Attributes:
        model: repository id OWNER/NAME, or folder in transformers' format.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have; "" accepts any.
        classes: names of the classes that are plates, in any case and with "-" or "_" for a space; those that the checkpoint
            does not know are passed over.
        threshold: least score, 0 to 1; low, because a plate shown weighs more than a patch blurred.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    """

    model: str
    revision: str | None = None
    weights: str = ""
    classes: tuple[str, ...] = (
        "license plate", "licence plate", "number plate", "numberplate", "plate", "vehicle registration plate",
    )  # fmt: skip
    threshold: float = 0.3
    device: str = "auto"


def open_plate_detector(
    config: PlateConfig,
) -> tuple[Callable[[UInt8[np.ndarray, "H W 3"]], Float64[np.ndarray, "N 4"]], Checkpoint]:
    """Load the detector; return the function from a frame to its boxes (x0, y0, x1, y1 in pixels), and what was loaded.

    Raises:
        WorldlineError: if the model is not at hand, detects no objects, or knows none of the classes.
    """
    import torch
    from transformers import AutoModelForObjectDetection

    checkpoint = open_checkpoint(config, _SETTING)
    processor, model = load_processor_and_model(checkpoint, _SETTING, "an object detector", AutoModelForObjectDetection)
    classes = _classes(model.config.id2label, config)

    def find(frame: UInt8[np.ndarray, "H W 3"]) -> Float64[np.ndarray, "N 4"]:
        try:
            with torch.inference_mode():
                outputs = model(**processor(images=[frame], return_tensors="pt").to(checkpoint.device))
                size = [frame.shape[:2]]
                found = processor.post_process_object_detection(outputs, threshold=config.threshold, target_sizes=size)[0]
        except (AttributeError, TypeError, ValueError) as error:
            raise WorldlineError(
                f"{_SETTING}: {config.model} does not find objects in a picture alone ({first_line(error)}): name an object "
                "detection checkpoint that needs no prompt"
            ) from error
        wanted = np.isin(found["labels"].cpu().numpy(), classes)
        boxes: np.ndarray = found["boxes"].cpu().numpy().astype(np.float64)[wanted]
        return boxes

    return find, checkpoint


def _classes(names: dict[int, str], config: PlateConfig) -> list[int]:
    wanted = {_plain(name) for name in config.classes}
    found = [int(index) for index, name in names.items() if _plain(name) in wanted]
    if not found:
        known = ", ".join(list(names.values())[:12])
        raise WorldlineError(
            f"{_SETTING}: {config.model} knows no class {', '.join(config.classes)}; it knows {known}"
            f"{', ...' if len(names) > 12 else ''}: say with --plate-classes which of them are plates"
        )
    return found


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
