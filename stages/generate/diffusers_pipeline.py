"""Pipelines of Hugging Face diffusers: found, loaded, run, and their output as frames; errors in one sentence.

diffusers and torch are imported where they are used: they take seconds to load, and most runs never need them.
"""

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field

from schemas.errors import WorldlineError
from stages.contract import Progress
from stages.pretrained import first_line, folder_digest, is_folder
from worldline.diffusion.devices import resolve_device

INDEX = "model_index.json"
# What pipelines call the number of frames to make, their rate, and the scale of guidance.
FRAME_COUNT_NAMES = ("num_frames", "video_length", "frames")
RATE_NAMES = ("frame_rate", "fps")
GUIDANCE_NAMES = ("guidance_scale", "max_guidance_scale")


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """Which model, and what every pipeline can be told. None leaves a setting at the pipeline's own default.

    Attributes:
        model: repository id ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") or folder in diffusers' format.
        pipeline_class: class in diffusers; None takes the one that the model names.
        revision: commit, tag or branch of a repository.
        weights: digest that a local folder must have (see `pin_pipeline`); "" accepts any, and the clip records it.
        negative_prompt: what the video shall not show.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        options: further arguments of the pipeline's call, by their own names; they win over all others.
        dtype: "float32", "bfloat16", "float16", or "auto" (bfloat16 on CUDA, else float32).
        device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
        cpu_offload: keep only the active part of the model on the device (needs the package accelerate).
    """

    NO_MODEL: ClassVar = "no model is named"  # how to name one, of each stage

    model: str = ""
    pipeline_class: str | None = None
    revision: str | None = None
    weights: str = ""
    negative_prompt: str | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str = "auto"
    cpu_offload: bool = False


Settings = TypeVar("Settings", bound=PipelineSettings)


def pin_pipeline(config: Settings) -> Settings:
    """Return a stage's config with everything resolved that this machine or the model's present state decides.

    A repository gets the commit that its revision stands for, a local folder the digest of its files, and "auto" its
    meaning here. A key made from the result changes when the model does.

    Raises:
        WorldlineError: if no model is named, or it is not at hand.
    """
    folder, revision = _locate(config)
    device = resolve_device(config.device)
    return dataclasses.replace(
        config,
        revision=revision or config.revision,
        weights=folder_digest(folder) if is_folder(config.model) else "",
        device=device,
        dtype=resolve_dtype(config.dtype, device),
    )


def open_pipeline_folder(config: PipelineSettings) -> tuple[Path, str, str]:
    """Return the folder with the files of a config's model, their commit ("" for a plain folder), and a folder's digest.

    Raises:
        WorldlineError: if none is named, it is not at hand, or is not in the state that `config.weights` pins.
    """
    folder, revision = _locate(config)
    weights = folder_digest(folder) if is_folder(config.model) else ""
    if config.weights and config.weights != weights:
        raise WorldlineError(f"the model folder {config.model} has digest {weights or 'none'}, not the pinned {config.weights}")
    return folder, revision, weights


def _locate(config: PipelineSettings) -> tuple[Path, str]:
    """Return the folder with the model's files, and the commit that they are from ("" for a plain folder).

    Raises:
        WorldlineError: if none is named, or it is neither here nor can be downloaded.
    """
    model, revision = config.model, config.revision
    if not model:
        raise WorldlineError(config.NO_MODEL)
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            raise WorldlineError(f"the folder {model} holds no {INDEX}: save the pipeline there with save_pretrained")
        return folder, ""
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise WorldlineError(f"there is no folder {model}: give a folder in diffusers' format or a repository id OWNER/NAME")
    import diffusers

    try:
        try:  # what is cached needs no network, and stays the same
            found = diffusers.DiffusionPipeline.download(model, revision=revision, use_safetensors=True, local_files_only=True)
        except Exception:
            found = diffusers.DiffusionPipeline.download(model, revision=revision, use_safetensors=True)
    except Exception as error:  # the hub's client raises a dozen unrelated types
        at = f" at revision {revision}" if revision else ""
        fetch = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        raise WorldlineError(
            f"the model {model}{at} is not in the local cache and cannot be downloaded ({first_line(error)}): connect once and "
            f"run `{fetch}`, or give a local folder"
        ) from error
    snapshot = Path(found)
    return snapshot, snapshot.name if snapshot.parent.name == "snapshots" else ""


def find_class(folder: Path, config: PipelineSettings) -> Any:
    """Return the pipeline class of diffusers that the config names, or else the model.

    Args:
        folder: with the model's files.
        config: with `model`, its name for messages, and `pipeline_class`.

    Raises:
        WorldlineError: if diffusers has no such class.
    """
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
    return found


def call_settings(
    accepted: Mapping[str, inspect.Parameter], name: str, config: PipelineSettings, settings: Mapping[str, Any], rate: float
) -> tuple[dict[str, Any], list[str]]:
    """Return those arguments of a pipeline's call that are settings, and the names of settings that it has no argument for.

    Args:
        accepted: parameters of the call.
        name: of the pipeline's class, for messages.
        config: with `negative_prompt`, `steps`, `guidance`, and `options`, which win over all others.
        settings: further settings by the names of their parameters; None leaves the pipeline's default, and the number of
            frames is called "num_frames" whatever the pipeline calls it.
        rate: frames per second.

    Raises:
        WorldlineError: if there is an option that the call does not take.
    """
    unknown = [item for item in config.options if item not in accepted]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(accepted), n=1)
        raise WorldlineError(f"{name} has no option {unknown[0]}{f', did you mean {near[0]}?' if near else ''}")
    wanted = [
        *((setting, FRAME_COUNT_NAMES if setting == "num_frames" else (setting,), value) for setting, value in settings.items()),
        ("negative_prompt", ("negative_prompt",), config.negative_prompt),
        ("steps", ("num_inference_steps",), config.steps),
        ("guidance", GUIDANCE_NAMES, config.guidance),
    ]
    arguments: dict[str, Any] = {}
    ignored = []
    for setting, candidates, value in wanted:
        taken = next((item for item in candidates if item in accepted), None)
        if value is not None and taken is not None:
            arguments[taken] = value
        elif value is not None:
            ignored.append(setting)
    called = next((item for item in RATE_NAMES if item in accepted), None)
    if called is not None:
        arguments[called] = int(rate) if float(rate).is_integer() else rate
    if "output_type" in accepted:
        arguments["output_type"] = "np"
    return arguments | config.options, ignored


def load_pipeline(pipeline_class: Any, folder: Path, config: PipelineSettings, device: str, dtype: str) -> Any:
    """Return a pipeline on its device.

    Args:
        pipeline_class: class in diffusers.
        folder: with its files.
        config: with `model`, its name for messages, and `cpu_offload`.
        device: torch's name.
        dtype: torch's name.

    Raises:
        WorldlineError: if it does not load or does not fit.
    """
    import torch

    try:
        # Only safetensors: pickled weights could run anything.
        pipeline = pipeline_class.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
    except ImportError as error:
        raise WorldlineError(f"{config.model} does not load as {pipeline_class.__name__}: {first_line(error)}") from error
    except (OSError, ValueError, KeyError) as error:
        raise WorldlineError(
            f"{config.model} does not load as {pipeline_class.__name__} ({first_line(error)}): check that the folder is whole "
            "and its weights are safetensors"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    try:
        if config.cpu_offload:
            pipeline.enable_model_cpu_offload(device=device)
        else:
            pipeline.to(device)
    except (ImportError, RuntimeError) as error:
        raise WorldlineError(
            f"{config.model} does not fit on {device} ({first_line(error)}): set cpu_offload or dtype"
        ) from error
    return pipeline


def frame_stride(pipeline: Any) -> int:
    """Return how many frames a pipeline makes at a time after its first one, which it makes alone."""
    named = (getattr(pipeline, name, None) for name in ("vae_scale_factor_temporal", "vae_temporal_compression_ratio"))
    return next((int(value) for value in named if value), 1)


def step_reports(accepted: Any, pipeline: Any, progress: Progress) -> dict[str, Callable[..., Any]]:
    """Return the argument that makes the pipeline report its steps; empty for pipelines that cannot."""

    def total(step: int) -> int:
        return max(int(getattr(pipeline, "_num_timesteps", 0) or 0), step + 1)

    def on_step_end(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        progress(step + 1, total(step), "denoising steps")
        return kept

    def on_step(step: int, timestep: Any, latents: Any) -> None:
        progress(step + 1, total(step), "denoising steps")

    if "callback_on_step_end" in accepted:
        return {"callback_on_step_end": on_step_end}
    return {"callback": on_step} if "callback" in accepted else {}


def run_pipeline(pipeline: Any, arguments: dict[str, Any], model: str) -> Any:
    """Return a pipeline's output.

    Raises:
        WorldlineError: if it refuses its arguments, lacks a package or runs out of memory.
    """
    import torch

    try:
        with torch.inference_mode():
            return pipeline(**arguments)
    except (ValueError, TypeError, AttributeError) as error:
        raise WorldlineError(f"{model}: the pipeline refuses these settings ({first_line(error)})") from error
    except NameError as error:  # where a package is missing, diffusers imports nothing in its stead
        raise WorldlineError(
            f"{model}: diffusers runs this pipeline only with a package that is not installed ({first_line(error)}): see its "
            "documentation; Cosmos needs torchvision"
        ) from error
    except torch.OutOfMemoryError as error:
        raise WorldlineError(f"{model}: out of device memory; lower num_frames, height or width, or set cpu_offload") from error


def frames_of(output: Any, model: str) -> np.ndarray:
    """Return the first video of a pipeline's output as `[T, H, W, 3]` uint8.

    Raises:
        WorldlineError: if it is no video.
    """
    videos = getattr(output, "frames", None)
    videos = output[0] if videos is None else videos
    video = videos if getattr(videos, "ndim", 5) == 4 else videos[0]  # some make one video and not a batch of one
    frames = np.stack([np.asarray(frame) for frame in video])
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise WorldlineError(f"{model} returned an array of shape {list(frames.shape)} and not a video of RGB frames")
    if frames.dtype != np.uint8:
        if not np.isfinite(frames).all():
            raise WorldlineError(f"{model} produced values that are no numbers: try dtype=float32 or bfloat16")
        frames = np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    if len(frames) < 2:
        raise WorldlineError(f"{model} made one frame, and one frame has no motion: raise num_frames")
    return frames


def default_of(accepted: Any, name: str) -> Any:
    """Return the default of a call's parameter; None where it has none."""
    parameter = accepted.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def resolve_dtype(dtype: str, device: str) -> str:
    """Return a torch dtype by name; "auto" is bfloat16 on CUDA, else float32."""
    if dtype == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise WorldlineError(f"dtype is {dtype}: it must be auto, float32, bfloat16 or float16")
    return dtype
