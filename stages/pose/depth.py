"""Stage `pose.depth`: the depth of every frame by a pretrained model, where one is named.

Any depth-estimation checkpoint of Hugging Face transformers: relative ones (MiDaS and DPT, Ranftl et al. 2020 and 2021;
Depth Anything, Yang et al. 2024) give inverse depth up to an unknown factor and addend, metric ones (ZoeDepth, Bhat et al.
2023; Depth Pro, Bochkovskii et al. 2024; metric Depth Anything) metres. transformers and torch are imported where they are
used: they take seconds to load, and most builds name no model.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from schemas.clips import Clip
from schemas.depth import DepthVideo, half_bits_of
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import Progress, Tolerance, stage
from stages.ingest.pictures import fitted_size, resize
from stages.pretrained import licence_of, load_processor_and_model, open_checkpoint, pin_checkpoint

_SETTING = "pose.depth.model"
# Architectures whose config does not say it: what all their depth-estimation checkpoints predict.
_QUANTITY = {
    "chmv2": "metric_depth",
    "depth_pro": "metric_depth",
    "dpt": "relative_inverse_depth",
    "glpn": "metric_depth",
    "tipsv2_dpt": "metric_depth",
    "zoedepth": "metric_depth",
}


@dataclass(frozen=True)
class DepthConfig:
    """Which model, and how its depth is kept.

    Attributes:
        model: repository id ("depth-anything/Depth-Anything-V2-Small-hf") or folder in transformers' format; "" asks no
            model, and the depth is empty.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have (see `pin_depth_model`); "" accepts any, and the depth records it.
        quantity: "metric_depth" or "relative_inverse_depth"; "auto" as the checkpoint says.
        max_side: longer side in pixels at which depth is kept; the model itself looks at frames of its own size.
        batch: frames given to the model at a time.
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    """

    model: str = ""
    revision: str | None = None
    weights: str = ""
    quantity: Literal["auto", "metric_depth", "relative_inverse_depth"] = "auto"
    max_side: PositiveInt = 518
    batch: PositiveInt = 4
    device: str = "auto"


def pin_depth_model(config: DepthConfig) -> DepthConfig:
    """Return the config with the model's present state and this machine's device in it; see `pin_checkpoint`."""
    return pin_checkpoint(config, _SETTING)


def _largest_relative_difference(recorded: DepthVideo, remade: DepthVideo) -> float:
    if recorded.half_bits is None or remade.half_bits is None or recorded.half_bits.shape != remade.half_bits.shape:
        return 0.0 if recorded.half_bits is remade.half_bits is None else float("inf")
    differences = [
        np.abs(a - b) / np.maximum(np.maximum(a, b), np.finfo(np.float32).tiny)
        for a, b in ((recorded.at([index]), remade.at([index])) for index in range(len(recorded)))
    ]
    return float(np.max(differences, initial=0.0))


@stage(
    "pose.depth",
    version=1,
    environment_packages=("torch", "transformers"),
    # the sums inside torch are cut by the number of threads, and on CUDA by the card
    tolerance={DepthVideo: Tolerance("largest relative difference of a value", 0.01, "", _largest_relative_difference)},
    pin=pin_depth_model,
)
def estimate_depth(clip: Clip, config: DepthConfig, *, seed: int, progress: Progress) -> DepthVideo:
    """Estimate the depth of every frame; without a model the result has no frames.

    Raises:
        WorldlineError: if the model is not at hand, is none for depth, or does not say what it predicts.
    """
    if not config.model:
        return DepthVideo.none()
    import torch
    from transformers import AutoModelForDepthEstimation

    checkpoint = open_checkpoint(config, _SETTING)
    processor, model = load_processor_and_model(checkpoint, _SETTING, "a depth-estimation model", AutoModelForDepthEstimation)
    if model.config.model_type == "zoedepth" and importlib.util.find_spec("torchvision") is None:
        # transformers 5.23 falls back to a processor without torchvision that calls it all the same
        raise WorldlineError(
            f"{_SETTING}: {config.model} is a zoedepth, whose results need torchvision: run `pip install torchvision`"
        )
    quantity = _quantity(model.config, config)
    kept = fitted_size(*clip.size, config.max_side)
    bits = np.zeros((len(clip.frames), kept[1], kept[0]), np.uint16)
    for start in range(0, len(clip.frames), config.batch):
        frames = clip.frames.at(range(start, min(start + config.batch, len(clip.frames))))
        sizes = [clip.size[::-1]] * len(frames)
        with torch.inference_mode():
            outputs = model(**processor(images=list(frames), return_tensors="pt").to(checkpoint.device))
            # the size of the frames: ZoeDepth's second argument is the source's size, all others' the target's
            found = processor.post_process_depth_estimation(outputs, sizes)
        for index, item in enumerate(found, start):
            bits[index] = half_bits_of(resize(item["predicted_depth"].float().cpu().numpy(), *kept))
        progress(start + len(frames), len(clip.frames), "frames")
    return DepthVideo(
        times_s=clip.times_s,
        quantity=quantity,
        half_bits=Video.from_array(bits),
        clip_width=clip.size[0],
        clip_height=clip.size[1],
        model=config.model,
        revision=checkpoint.revision,
        weights=checkpoint.weights,
        licence=licence_of(checkpoint.folder),
    )


def _quantity(settings: Any, config: DepthConfig) -> str:
    """Return what a checkpoint predicts, by its own config or by its architecture."""
    if config.quantity != "auto":
        return config.quantity
    told = {"metric": "metric_depth", "relative": "relative_inverse_depth"}.get(getattr(settings, "depth_estimation_type", ""))
    found = told or _QUANTITY.get(settings.model_type)
    if found is None:
        raise WorldlineError(
            f"{_SETTING}: {config.model} (a {settings.model_type}) does not say whether its depth is metric: set "
            "pose.depth.quantity to metric_depth or relative_inverse_depth"
        )
    return found
