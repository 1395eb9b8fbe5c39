"""Generated video: one adapter for the text-to-video and image-to-video pipelines of Hugging Face diffusers.

What a pipeline can be told is read off the signature of its call, so no pipeline is known here by name. diffusers and
torch are imported where they are used: they take seconds to load, and most runs never need them.
"""

import dataclasses
import difflib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schemas.clips import Clip, Source
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.tracks import Truth
from stages.contract import Progress, stage
from stages.generate.diffusers_pipeline import (
    INDEX,
    default_of,
    frames_of,
    load_pipeline,
    locate_pipeline,
    resolve_dtype,
    run_pipeline,
    step_reports,
)
from stages.ingest.pictures import read_picture, resize
from stages.pretrained import first_line, folder_digest, is_folder, resolve_device

# What pipelines call the number of frames to make; one without any of these makes no video of chosen length.
_FRAME_COUNT_NAMES = ("num_frames", "video_length", "frames")
_RATE_NAMES = ("frame_rate", "fps")
_GUIDANCE_NAMES = ("guidance_scale", "max_guidance_scale")
_VIDEO_CLASS_MARKS = ("VideoToVideo", "Video2Video", "V2V")
_NO_MODEL = "generate.diffusers needs a model: give source=diffusers:ID_OR_FOLDER"
_IMAGE_CLASS_MARKS = ("ImageToVideo", "Image2Video", "I2V", "StableVideoDiffusion")


@dataclass(frozen=True)
class DiffusersConfig:
    """Which model, and what it is asked for. None leaves a setting at the pipeline's own default.

    Attributes:
        model: repository id ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") or folder in diffusers' format.
        pipeline_class: class in diffusers; None takes the one that the model names.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have (see `pin_model`); "" accepts any, and the clip records it.
        prompt, negative_prompt: what the video shall show, and what not.
        num_frames, height, width: size in frames and pixels.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        frames_per_second: times of the frames; also told to pipelines that take a rate.
        options: further arguments of the pipeline's call, by their own names.
        dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on CUDA, else float32).
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
        cpu_offload: keep only the active part of the model on the device (needs the package accelerate).
    """

    model: str = ""
    pipeline_class: str | None = None
    revision: str | None = None
    weights: str = ""
    prompt: str = "a car drives along a street, view from a moving car"
    negative_prompt: str | None = None
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    frames_per_second: float = 16.0
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str = "auto"
    cpu_offload: bool = False


def pin_model(config: DiffusersConfig) -> DiffusersConfig:
    """Return the config with everything resolved that this machine or the model's present state decides.

    A repository gets the commit that its revision stands for, a local folder the digest of its files, and "auto" its
    meaning here. A key made from the result changes when the model does.

    Raises:
        WorldlineError: if the model is not at hand.
    """
    if not config.model:
        raise WorldlineError(_NO_MODEL)
    folder, revision = locate_pipeline(config.model, config.revision)
    device = resolve_device(config.device)
    return dataclasses.replace(
        config,
        revision=revision or config.revision,
        weights=folder_digest(folder) if is_folder(config.model) else "",
        device=device,
        dtype=resolve_dtype(config.dtype, device),
    )


@stage("generate.diffusers", version=1, environment_packages=("diffusers", "torch", "transformers"), pin=pin_model)
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

    if not config.model:
        raise WorldlineError(_NO_MODEL)
    if config.frames_per_second <= 0:
        raise WorldlineError(f"frames_per_second is {config.frames_per_second}: it must be positive")
    folder, revision = locate_pipeline(config.model, config.revision)
    pipeline_class = _find_class(folder, config)
    accepted = inspect.signature(pipeline_class.__call__).parameters
    image = _conditioning_image(conditioning, pipeline_class.__name__, accepted)
    arguments, ignored = _arguments(config, pipeline_class.__name__, accepted)
    weights = folder_digest(folder) if is_folder(config.model) else ""
    if config.weights and config.weights != weights:
        raise WorldlineError(f"the model folder {config.model} has digest {weights or 'none'}, not the pinned {config.weights}")

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
    import diffusers

    try:
        named = json.loads((folder / INDEX).read_text()).get("_class_name")
    except (OSError, ValueError) as error:
        raise WorldlineError(f"{config.model}/{INDEX} is not readable ({first_line(error)}): download the model again") from error
    name = config.pipeline_class or named
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        known = [item for item in dir(diffusers) if item.endswith("Pipeline")]
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise WorldlineError(f"{config.model}: diffusers {diffusers.__version__} has no pipeline class {name}{hint}")
    accepted = inspect.signature(found.__call__).parameters
    needed = [
        item
        for item, parameter in accepted.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and item not in ("self", "image", "prompt", *_FRAME_COUNT_NAMES, *config.options)
    ]
    if "video" in accepted and any(mark in name for mark in _VIDEO_CLASS_MARKS):
        needed.append("video")
    makes_video = any(item in accepted for item in _FRAME_COUNT_NAMES)
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


def _arguments(config: DiffusersConfig, name: str, accepted: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the call's arguments, and the names of the settings that this pipeline has no argument for."""
    unknown = [item for item in config.options if item not in accepted]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(accepted), n=1)
        raise WorldlineError(f"{name} has no option {unknown[0]}{f', did you mean {near[0]}?' if near else ''}")
    wanted: list[tuple[str, tuple[str, ...], Any]] = [
        ("prompt", ("prompt",), config.prompt),
        ("negative_prompt", ("negative_prompt",), config.negative_prompt),
        ("num_frames", _FRAME_COUNT_NAMES, config.num_frames),
        ("height", ("height",), config.height),
        ("width", ("width",), config.width),
        ("steps", ("num_inference_steps",), config.steps),
        ("guidance", _GUIDANCE_NAMES, config.guidance),
    ]
    arguments: dict[str, Any] = {}
    ignored = []
    for setting, candidates, value in wanted:
        taken = next((item for item in candidates if item in accepted), None)
        if value is not None and taken is not None:
            arguments[taken] = value
        elif value is not None:
            ignored.append(setting)
    rate = next((item for item in _RATE_NAMES if item in accepted), None)
    if rate is not None:
        whole = float(config.frames_per_second).is_integer()
        arguments[rate] = int(config.frames_per_second) if whole else config.frames_per_second
    if "output_type" in accepted:
        arguments["output_type"] = "np"
    return arguments | config.options, ignored


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
