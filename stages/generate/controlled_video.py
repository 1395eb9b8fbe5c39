"""Stage `generate.controlled_video`: frames of a view that nobody filmed, from a diffusers pipeline that can be told of it.

What a pipeline can be told is read off the signature of its call, so that none is known here by name; `ADAPTERS` has one
function per way of telling. diffusers and torch are imported where they are used: they take seconds to load.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from PIL import Image
from pydantic import Field

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import Progress, stage
from stages.generate.diffusers_pipeline import (
    FRAME_COUNT_NAMES,
    PipelineSettings,
    call_settings,
    default_of,
    find_class,
    frame_stride,
    frames_of,
    load_pipeline,
    open_pipeline_folder,
    pin_pipeline,
    resolve_dtype,
    run_pipeline,
    step_reports,
)
from stages.ingest.pictures import resize
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.diffusion.devices import resolve_device
from worldline.driving.boxes import BACK, FRONT
from worldline.driving.canvases import FACE_SHADES

# Colours of NVIDIA's World Scenario Map (cosmos-transfer2.5, world_scenario_video_generation.md): a cuboid's front and back by
# class group (vehicle, pedestrian, cyclist), with what lies between them mixed; and lane lines, road edges, crosswalks.
FRONT_COLOURS = np.array([[0, 46, 136], [148, 0, 62], [0, 80, 66]], float)
BACK_COLOURS = np.array([[126, 206, 255], [255, 124, 171], [102, 208, 198]], float)
LINE_COLOURS = np.array([[255, 255, 255], [253, 1, 232], [139, 93, 255]], float)
_GREY = 128  # of pixels that are to be made, as VACE was trained


@dataclass(frozen=True, kw_only=True)
class ControlledVideoConfig(PipelineSettings):
    """Which model ("Wan-AI/Wan2.1-VACE-1.3B-diffusers", see `PipelineSettings`), and how it is told of the view.

    Attributes:
        adapter: how the pipeline is told: a key of `ADAPTERS`, or "auto", which reads it off the pipeline's call.
        control: what a control video shows: boxes and lines drawn as in NVIDIA's World Scenario Map, nearness (white is near),
            or the prior.
        trusted: share from 0 to 1 of trust in a pixel of the prior from which on a masked pipeline keeps it.
        prompt: what the video shall show; None takes the conditions' text.
        height, width: size in pixels to work at; None takes the conditions'. What the pipeline is told is stretched to it, and
            what it makes back.
    """

    NO_MODEL: ClassVar = (
        "generate.controlled_video needs a model: set generate.controlled_video.model to a repository id or a folder"
    )

    adapter: Literal["auto", "camera", "masked", "control", "image", "video"] = "auto"
    control: Literal["boxes_and_road", "depth", "prior"] = "boxes_and_road"
    trusted: Annotated[float, Field(gt=0, le=1)] = 0.5
    prompt: str | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None


@stage(
    "generate.controlled_video",
    version=1,
    environment_packages=("diffusers", "torch", "transformers", "opencv-python-headless", "numpy"),
    pin=pin_pipeline,
)
def generate_controlled_video(
    conditions: Conditions, path: CameraPath, config: ControlledVideoConfig, *, seed: int, progress: Progress
) -> Clip:
    """Make the frames with a diffusers pipeline.

    Pipelines that make one frame and then several at a time are asked for the next number of frames that they can make: what
    they are told of the last one is repeated, and what they make of the repetitions is dropped. The noise comes from a CPU
    generator, so a seed means the same on every device.

    Args:
        conditions: of the view.
        path: of the view, with the conditions' times.
        config: model and settings.
        seed: of the noise.
        progress: called after every denoising step where the pipeline reports them.

    Returns:
        The clip, with the times and the size of the conditions.

    Raises:
        WorldlineError: if the model is not at hand, cannot be told of a view, lacks an option, or makes too few frames.
    """
    import diffusers
    import torch

    count, own_height, own_width = conditions.known.shape
    if len(path.times_s) != count or not path.registered.all():
        raise WorldlineError(
            f"the path has {int(path.registered.sum())} poses for {count} frames of conditions: give the path that they are of"
        )
    folder, revision, weights = open_pipeline_folder(config)
    pipeline_class = find_class(folder, config)
    name = pipeline_class.__name__
    accepted = inspect.signature(pipeline_class.__call__).parameters
    adapter = choose_adapter(accepted, name, config.adapter)
    height, width = config.height or own_height, config.width or own_width
    rate = round(1 / float(np.median(np.diff(conditions.times_s))), 3)
    settings = {"prompt": config.prompt or conditions.text, "height": height, "width": width}
    arguments, ignored = call_settings(accepted, name, config, settings, rate)

    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    pipeline = load_pipeline(pipeline_class, folder, config, device, dtype)
    stride = frame_stride(pipeline)
    made = 1 + -(-(count - 1) // stride) * stride
    told = ADAPTERS[adapter](*fit_view(conditions, path, made, width, height), config)
    told |= dict.fromkeys(FRAME_COUNT_NAMES, made)
    arguments = {item: value for item, value in told.items() if item in accepted} | arguments
    arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    arguments |= step_reports(accepted, pipeline, progress)
    frames = frames_of(run_pipeline(pipeline, arguments, config.model), config.model)[:count]
    if len(frames) < count:
        raise WorldlineError(f"{config.model} made {len(frames)} frames of {count}: give conditions of so few, or another model")
    return Clip(
        frames=Video.from_array(np.stack([resize(frame, own_width, own_height) for frame in frames])),
        times_s=conditions.times_s,
        name=f"{Path(config.model).name}:{conditions.text}",
        provenance={
            "kind": "generated",
            "generator": "diffusers",
            "pipeline_class": name,
            "model": config.model,
            "revision": revision,
            "weights": weights,
            "adapter": adapter,
            "control": config.control if adapter == "control" else "",
            "prior_source": conditions.prior_source,
            "text": conditions.text,
            "prompt": arguments.get("prompt", ""),
            "negative_prompt": arguments.get("negative_prompt"),
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


def choose_adapter(accepted: Mapping[str, inspect.Parameter], name: str, asked: str) -> str:
    """Return the first adapter all of whose arguments a pipeline takes; the one asked for, if it takes those.

    Args:
        accepted: parameters of the pipeline's call.
        name: of its class, for messages.
        asked: adapter, or "auto".

    Raises:
        WorldlineError: if there is none.
    """
    fits = {
        "camera": {"c2w", "intrinsics", "image"} <= accepted.keys(),
        "masked": {"video", "mask"} <= accepted.keys(),
        "control": bool({"controls", "control_video"} & accepted.keys()),
        "image": "image" in accepted,
        # Without a strength it is as a rule frames to go on from; some edit it all the same, and must be asked to by name.
        "video": "video" in accepted and (asked == "video" or "strength" in accepted),
    }
    # A pipeline that makes no video is none, whatever it takes; those that take a whole video make one as long.
    makes_video = any(item in accepted for item in (*FRAME_COUNT_NAMES, "video", "control_video"))
    found = next((item for item, fit in fits.items() if fit and makes_video and asked in ("auto", item)), None)
    if found is None:
        needs = "c2w and intrinsics, video and mask, controls or control_video, image, or video and strength"
        wanted = "any way" if asked == "auto" else f"adapter={asked}"
        raise WorldlineError(f"{name} cannot be told of a view by {wanted}: name a video pipeline whose call takes {needs}")
    return found


def fit_view(conditions: Conditions, path: CameraPath, frames: int, width: int, height: int) -> tuple[Conditions, CameraPath]:
    """Return a view stretched to a size in pixels, with its last frame repeated up to a number of frames.

    The prior's colours are averaged over those pixels alone of which anything is known, depth is taken from the nearest pixel.
    """
    known = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in conditions.known])
    depth = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST) for frame in conditions.depth_cm])
    if conditions.known.shape[1:] == (height, width):
        prior = conditions.prior.array()
    else:
        prior = np.zeros((*known.shape, 3), np.uint8)
        for row, (picture, trust) in enumerate(zip(conditions.prior, conditions.known, strict=True)):
            share = resize((trust > 0).astype(np.float32), width, height)[..., None]
            sums = resize(picture.astype(np.float32) * (trust > 0)[..., None], width, height)
            prior[row] = np.rint(np.divide(sums, share, out=np.zeros_like(sums), where=share > 0))

    def pad(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.repeat(values[-1:], frames - len(values), axis=0)])

    def fit(video: Video) -> Video:
        return Video.from_array(pad(np.stack([resize(frame, width, height) for frame in video])))

    fitted = dataclasses.replace(
        conditions,
        times_s=pad(conditions.times_s),
        boxes=fit(conditions.boxes),
        road=fit(conditions.road),
        depth_cm=Video.from_array(pad(depth)),
        prior=Video.from_array(pad(prior)),
        known=Video.from_array(pad(known)),
        first_frame=resize(conditions.first_frame, width, height),
        offset_m=pad(conditions.offset_m),
    )
    factors = width / path.width, height / path.height
    return fitted, dataclasses.replace(
        path,
        times_s=pad(path.times_s),
        world_from_camera=pad(path.world_from_camera),
        registered=pad(path.registered),
        intrinsics=scale_intrinsics(path.intrinsics, *factors),
        width=width,
        height=height,
        repeats=None,
    )


def tell_camera(conditions: Conditions, path: CameraPath, config: ControlledVideoConfig) -> dict[str, Any]:
    """Return the first frame, poses relative to it `[T, 4, 4]` (OpenCV axes, metres) and fx, fy, cx, cy in its pixels."""
    first_from_world = invert_rigid(path.world_from_camera[0])
    matrix = path.intrinsics
    return {
        "image": Image.fromarray(conditions.first_frame),
        "c2w": (first_from_world @ path.world_from_camera).astype(np.float32),
        "intrinsics": [float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])],
    }


def tell_masked(conditions: Conditions, path: CameraPath, config: ControlledVideoConfig) -> dict[str, Any]:
    """Return the prior, grey where it is not trusted, a mask that is white there, and the first frame as reference.

    Jiang et al., "VACE", ICCV 2025, section 3.1.
    """
    unknown = conditions.known.array() < config.trusted * 255
    return {
        "video": _pictures(np.where(unknown[..., None], np.uint8(_GREY), conditions.prior.array())),
        "mask": _pictures(np.where(unknown, np.uint8(255), np.uint8(0))),
        "reference_images": [Image.fromarray(conditions.first_frame)],
    }


def tell_control(conditions: Conditions, path: CameraPath, config: ControlledVideoConfig) -> dict[str, Any]:
    """Return the control video that the config asks for, under either name that pipelines have for it."""
    draw = {"boxes_and_road": draw_scenario, "depth": draw_nearness, "prior": fill_prior}[config.control]
    pictures = _pictures(draw(conditions))
    return {"controls": pictures, "control_video": pictures}


def tell_image(conditions: Conditions, path: CameraPath, config: ControlledVideoConfig) -> dict[str, Any]:
    """Return the first frame."""
    return {"image": Image.fromarray(conditions.first_frame)}


def tell_video(conditions: Conditions, path: CameraPath, config: ControlledVideoConfig) -> dict[str, Any]:
    """Return the prior without holes, to which noise is added up to the pipeline's strength."""
    return {"video": _pictures(fill_prior(conditions))}


# In the order in which they are tried.
ADAPTERS: dict[str, Callable[[Conditions, CameraPath, ControlledVideoConfig], dict[str, Any]]] = {
    "camera": tell_camera,
    "masked": tell_masked,
    "control": tell_control,
    "image": tell_image,
    "video": tell_video,
}


def draw_scenario(conditions: Conditions) -> np.ndarray:
    """Return boxes before lines as RGB `[T, H, W, 3]` uint8 on black, in the colours of NVIDIA's World Scenario Map."""
    front, back = float(FACE_SHADES[FRONT]), float(FACE_SHADES[BACK])
    frames = []
    for boxes, road in zip(conditions.boxes, conditions.road, strict=True):
        lines = (road[..., None] / 255 * LINE_COLOURS).max(axis=-2)
        towards_front = np.clip((boxes.astype(float) - back) / (front - back), 0, 1)[..., None]
        faces = towards_front * FRONT_COLOURS + (1 - towards_front) * BACK_COLOURS
        shown = boxes.max(axis=-1, keepdims=True)
        group = boxes.argmax(axis=-1)[..., None, None]
        frames.append(np.where(shown > 0, np.take_along_axis(faces, group, axis=-2)[..., 0, :], lines))
    return np.rint(np.stack(frames)).astype(np.uint8)


def draw_nearness(conditions: Conditions) -> np.ndarray:
    """Return inverse depth as grey `[T, H, W, 3]` uint8: 255 at the nearest known point of all frames, 0 where none is."""
    depth = conditions.depth_cm.array()
    if not depth.any():
        raise WorldlineError("control=depth needs depth and the conditions have none: set control to boxes_and_road or prior")
    nearness = np.divide(float(depth[depth > 0].min()), depth, out=np.zeros(depth.shape), where=depth > 0)
    return np.repeat(np.rint(255 * nearness).astype(np.uint8)[..., None], 3, axis=-1)


def fill_prior(conditions: Conditions) -> np.ndarray:
    """Return the prior `[T, H, W, 3]` uint8, filled smoothly where nothing of it is known."""
    import torch

    from worldline.diffusion.windows import fill_holes

    colours = torch.from_numpy(conditions.prior.array().astype(np.float32)).permute(0, 3, 1, 2)
    weight = torch.from_numpy((conditions.known.array() > 0).astype(np.float32))[:, None]
    return np.rint(fill_holes(colours, weight).permute(0, 2, 3, 1).numpy()).astype(np.uint8)


def _pictures(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
