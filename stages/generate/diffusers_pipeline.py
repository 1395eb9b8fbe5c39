"""Pipelines of Hugging Face diffusers: found, loaded, run, and their output as frames; errors in one sentence.

diffusers and torch are imported where they are used: they take seconds to load, and most runs never need them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import WorldlineError
from stages.contract import Progress
from stages.pretrained import first_line

INDEX = "model_index.json"


def locate_pipeline(model: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder with the model's files, and the commit that they are from ("" for a plain folder).

    Raises:
        WorldlineError: if it is neither here nor can be downloaded.
    """
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


def load_pipeline(pipeline_class: Any, folder: Path, config: Any, device: str, dtype: str) -> Any:
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
    except (OSError, ValueError, ImportError, KeyError) as error:
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
        WorldlineError: if it refuses its arguments or runs out of memory.
    """
    import torch

    try:
        with torch.inference_mode():
            return pipeline(**arguments)
    except (ValueError, TypeError) as error:
        raise WorldlineError(f"{model}: the pipeline refuses these settings ({first_line(error)})") from error
    except torch.OutOfMemoryError as error:
        raise WorldlineError(f"{model}: out of device memory; lower num_frames, height or width, or set cpu_offload") from error


def frames_of(output: Any, model: str) -> np.ndarray:
    """Return the first video of a pipeline's output as `[T, H, W, 3]` uint8.

    Raises:
        WorldlineError: if it is no video.
    """
    videos = getattr(output, "frames", None)
    video = (output[0] if videos is None else videos)[0]
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
