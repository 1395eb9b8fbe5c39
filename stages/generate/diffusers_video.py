"""Generated video: one adapter for the text-to-video and image-to-video pipelines of Hugging Face diffusers.

What a pipeline can be told is read off the signature of its call, so no pipeline is known here by name. diffusers and
torch are imported where they are used: they take seconds to load, and most runs never need them.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from schemas.clips import Clip, Source
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.generate.diffusers_pipeline import (
    FRAME_COUNT_NAMES,
    PipelineSettings,
    call_settings,
    default_of,
    find_class,
    frames_of,
    load_pipeline,
    open_pipeline_folder,
    pin_pipeline,
    resolve_dtype,
    run_pipeline,
    step_reports,
)
from stages.ingest.pictures import read_picture, resize
from worldline.diffusion.devices import resolve_device

_VIDEO_CLASS_MARKS = ("VideoToVideo", "Video2Video", "V2V")
_IMAGE_CLASS_MARKS = ("ImageToVideo", "Image2Video", "I2V", "StableVideoDiffusion")


@dataclass(frozen=True, kw_only=True)
class DiffusersConfig(PipelineSettings):
    """Which model (see `PipelineSettings`), and what it is asked for. None leaves a setting at the pipeline's own default.

    Attributes:
        prompt: what the video shall show.
        num_frames, height, width: size in frames and pixels.
        frames_per_second: times of the frames; also told to pipelines that take a rate.
    """

    NO_MODEL: ClassVar = "generate.diffusers needs a model: give source=diffusers:ID_OR_FOLDER"

    prompt: str = "a car drives along a street, view from a moving car"
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    frames_per_second: float = 16.0


@stage("generate.diffusers", version=1, environment_packages=("diffusers", "torch", "transformers"), pin=pin_pipeline)
def generate_video(conditioning: Source, config: DiffusersConfig, *, seed: int, progress: Progress) -> tuple[Clip, Truth]:
    """Make a video with a diffusers pipeline; there is no truth.

    The noise comes from a CPU generator, so a seed means the same on every device.

    Args:
        conditioning: layout "image" with the first frame for image-to-video, or layout "none" without files.
        config: model and settings.
        seed: of the noise.
        progress: called after every denoising step where the pipeline reports them.

    Raises:
        WorldlineError: if the model is not at hand or makes no video, or does not take what it is asked for.
    """
    import diffusers
    import torch

    if config.frames_per_second <= 0:
        raise WorldlineError(f"frames_per_second is {config.frames_per_second}: it must be positive")
    folder, revision, weights = open_pipeline_folder(config)
    pipeline_class = _find_class(folder, config)
    accepted = inspect.signature(pipeline_class.__call__).parameters
    image = _conditioning_image(conditioning, pipeline_class.__name__, accepted)
    settings = {name: getattr(config, name) for name in ("prompt", "num_frames", "height", "width")}
    arguments, ignored = call_settings(accepted, pipeline_class.__name__, config, settings, config.frames_per_second)

    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    pipeline = load_pipeline(pipeline_class, folder, config, device, dtype)
    if image is not None:
        height = config.height or default_of(accepted, "height")
        width = config.width or default_of(accepted, "width")
        arguments["image"] = _cover(image, width, height)
    arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    arguments |= step_reports(accepted, pipeline, progress)
    frames = frames_of(run_pipeline(pipeline, arguments, config.model), config.model)
    clip = Clip(
        frames=Video.from_array(frames),
        times_s=np.arange(len(frames)) / config.frames_per_second,
        name=Path(config.model).name,
        provenance={
            "kind": "generated",
            "generator": "diffusers",
            "pipeline_class": pipeline_class.__name__,
            "model": config.model,
            "revision": revision,
            "weights": weights,
            "prompt": config.prompt if "prompt" in accepted else "",
            "negative_prompt": config.negative_prompt if "negative_prompt" in arguments else None,
            "conditioning": conditioning.name,
            "steps": config.steps or default_of(accepted, "num_inference_steps"),
            "guidance": config.guidance,
            "options": dict(config.options),
            "seed": seed,
            "dtype": dtype,
            "device": device.split(":")[0],
            "diffusers": diffusers.__version__,
            "not_taken_by_pipeline": ignored,
        },
    )
    return clip, Truth.unavailable()


def _find_class(folder: Path, config: DiffusersConfig) -> Any:
    found = find_class(folder, config)
    name = found.__name__
    accepted = inspect.signature(found.__call__).parameters
    needed = [
        item
        for item, parameter in accepted.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and item not in ("self", "image", "prompt", *FRAME_COUNT_NAMES, *config.options)
    ]
    if "video" in accepted and any(mark in name for mark in _VIDEO_CLASS_MARKS):
        needed.append("video")
    makes_video = any(item in accepted for item in FRAME_COUNT_NAMES)
    if needed and (makes_video or "video" in needed):
        wanted = " and ".join(dict.fromkeys(needed))
        raise WorldlineError(f"{config.model} is a {name}, which needs {wanted} besides a prompt or an image: name another model")
    if not makes_video:
        raise WorldlineError(f"{config.model} is a {name}, which makes no video: name a text-to-video or image-to-video model")
    return found


def _conditioning_image(conditioning: Source, name: str, accepted: Any) -> np.ndarray | None:
    """Return the first frame where one is given, refusing a mismatch with what the pipeline takes."""
    files = sorted(conditioning.files)
    needs = "image" in accepted and (
        accepted["image"].default is inspect.Parameter.empty or any(mark in name for mark in _IMAGE_CLASS_MARKS)
    )
    if needs and not files:
        raise WorldlineError(f"{name} continues a first frame and none is given: set generate.image to an image file")
    if files and "image" not in accepted:
        raise WorldlineError(f"{name} makes video from text alone: remove generate.image, or name an image-to-video model")
    if len(files) > 1:
        raise WorldlineError(f"{name} takes one first frame, but {len(files)} files are given: {', '.join(files[:3])}")
    return read_picture(conditioning.files[files[0]], files[0]) if files else None


def _cover(picture: np.ndarray, width: int | None, height: int | None) -> Image.Image:
    """Return the middle of a picture in the wanted aspect and size; the picture as it is where none is wanted."""
    if width is None or height is None:
        return Image.fromarray(picture)
    rows, columns = picture.shape[:2]
    scale = max(width / columns, height / rows)
    crop_columns, crop_rows = min(columns, round(width / scale)), min(rows, round(height / scale))
    left, top = (columns - crop_columns) // 2, (rows - crop_rows) // 2
    middle = picture[top : top + crop_rows, left : left + crop_columns]
    return Image.fromarray(resize(np.ascontiguousarray(middle), width, height))
