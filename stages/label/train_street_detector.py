"""Stage `label.train_street_detector`: a small network learns to find vehicles and lane lines in the frames of driving logs.

It is the detector behind NTA-IoU and NTL-IoU (`worldline.metrics.driving`) where no pretrained one is at hand. Its worth is
measured on true frames of logs that it was not trained on: the ceiling of every score that it gives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from schemas.artifact import Files, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import RoadMap
from schemas.errors import WorldlineError
from schemas.models import Model
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.reconstruct.checkpoint import load_checkpoint, save_checkpoint
from worldline.cameras import scale_intrinsics
from worldline.detection import StreetDetector, detect_vehicles, save_detector, segment_lanes
from worldline.detection.agents import Agents, vehicles_in_view
from worldline.detection.augmentation import degrade, random_view
from worldline.detection.network import COARSEST, pixels_of
from worldline.detection.targets import Targets, centre_loss, lane_loss, sides_loss, targets_of
from worldline.diffusion.devices import resolve_device
from worldline.metrics.driving import box_iou, counted_boxes, draw_lane_lines, nta_scores, ntl_iou

_SAME_IOU = 0.5  # a detection finds a box from this overlap on
_WARM_UP_SHARE = 0.05
_MAX_GRADIENT = 10.0
_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class TrainStreetDetectorConfig:
    """How the detector is trained.

    Attributes:
        width, height: of the crops that it is trained on, pixels; multiples of 16.
        steps: number of them.
        batch: frames of a step.
        learning_rate: at its highest; it rises over the first twentieth of the steps and falls as a cosine.
        held_out: that many clips, the last ones, are kept for measuring.
        min_side_px: vehicles with a shorter side than this are neither asked for nor counted.
        max_hidden: vehicles of which a larger share is hidden are neither asked for nor counted.
        checkpoint_every: steps after which the state is saved, so that a killed training goes on from there.
        device: "cpu", "cuda", ..., or "auto" (CUDA where there is one).
    """

    width: PositiveInt = 192
    height: PositiveInt = 112
    steps: PositiveInt = 1200
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    held_out: NonNegativeInt = 2
    min_side_px: PositiveFloat = 6.0
    max_hidden: Annotated[float, Field(ge=0, le=1)] = 0.5
    checkpoint_every: PositiveInt = 100
    device: str = "cpu"


class _Example(NamedTuple):
    """One frame and what is known of it: picture `[H, W, 3]`, vehicles, lane lines `[H, W]`."""

    image: np.ndarray
    agents: Agents
    lanes: np.ndarray


@stage("label.train_street_detector", version=1, environment_packages=("torch", "numpy", "opencv-python-headless"))
def train_street_detector(
    clips: tuple[Clip, ...],
    paths: tuple[CameraPath, ...],
    tracks: tuple[Tracks, ...],
    maps: tuple[RoadMap, ...],
    config: TrainStreetDetectorConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Model, Metrics]:
    """Train on all clips but the last ones, and measure on those.

    Args:
        clips: frames of logs.
        paths: their cameras.
        tracks: their annotated boxes.
        maps: their lane lines.
        config: settings.
        seed: of the first weights and, with the number of the step, of every batch.
        progress: called after every step.
        checkpoints: where the state is kept.

    Returns:
        The model, and of the clips held out the figures `street_detector.*`; those without anything to be measured on are
        left out.

    Raises:
        WorldlineError: if the numbers of inputs differ, no clip is left to train on, or none of them shows a vehicle.
    """
    _check(clips, paths, tracks, maps, config)
    logs = list(zip(clips, paths, tracks, maps, strict=True))
    split = len(logs) - config.held_out
    training = [example for log in logs[:split] for example in _examples(*log)]
    vehicles = sum(int(_known(example.agents, config).sum()) for example in training)
    if not vehicles:
        raise WorldlineError(
            f"label.train_street_detector: the {len(training)} frames to train on show no vehicle of {config.min_side_px:g} px "
            "or more: give logs with annotated vehicles in view"
        )
    with _one_thread():
        network, loss = _train(training, config, seed, progress, checkpoints)
        figures = _measure([_examples(*log) for log in logs[split:]], network, config)
    facts = {
        "clips": split,
        "frames": len(training),
        "vehicles": vehicles,
        "steps": config.steps,
        "batch": config.batch,
        "width_px": config.width,
        "height_px": config.height,
        "learning_rate": config.learning_rate,
        "min_side_px": config.min_side_px,
        "seed": seed,
        "loss": round(loss, 4),
        "torch": torch.__version__,
        **{name: round(value, 4) for name, value, _, _ in figures},
    }
    names = ", ".join(clip.name for clip in clips[:split])
    model = Model(
        files=Files(save_detector(checkpoints / "model", network, facts)),
        role="street_detector",
        architecture=StreetDetector.__name__,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        training=facts,
        name="street detector",
        trained_on=f"{vehicles} vehicles in {len(training)} frames of {split} clips: {names}",
    )
    rows = [dict(zip(FIGURES.names, figure, strict=True)) for figure in sorted(figures)]
    return model, Metrics(rows_to_table(FIGURES, rows))


def _check(
    clips: tuple[Clip, ...],
    paths: tuple[CameraPath, ...],
    tracks: tuple[Tracks, ...],
    maps: tuple[RoadMap, ...],
    config: TrainStreetDetectorConfig,
) -> None:
    if not len(clips) == len(paths) == len(tracks) == len(maps):
        raise WorldlineError(
            f"label.train_street_detector needs camera path, tracks and map of every clip, got {len(clips)} clips, {len(paths)} "
            f"paths, {len(tracks)} tracks and {len(maps)} maps"
        )
    if len(clips) <= config.held_out:
        raise WorldlineError(
            f"label.train_street_detector: held_out={config.held_out} of {len(clips)} clips leaves none to train on: give more "
            "clips or hold out fewer"
        )
    if config.width % COARSEST or config.height % COARSEST:
        raise WorldlineError(
            f"label.train_street_detector: width={config.width} and height={config.height} must be multiples of {COARSEST}"
        )


def _examples(clip: Clip, path: CameraPath, tracks: Tracks, road_map: RoadMap) -> list[_Example]:
    """Return the frames of a log that have a pose."""
    width, height = clip.size
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    lines = road_map.lines("lane_line")
    agents = vehicles_in_view(tracks, path, width, height)
    return [
        _Example(frame, agents[index], draw_lane_lines(lines, path.world_from_camera[index], intrinsics, width, height))
        for index, frame in enumerate(clip.frames)
        if path.registered[index]
    ]


def _known(agents: Agents, config: TrainStreetDetectorConfig) -> np.ndarray:
    sides = (agents.boxes[:, 2:] - agents.boxes[:, :2]).min(axis=1, initial=np.inf)
    return (agents.hidden <= config.max_hidden) & (sides >= config.min_side_px)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: its sums are cut by the number of threads, and two of them would give other bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    examples: list[_Example], config: TrainStreetDetectorConfig, seed: int, progress: Progress, checkpoints: Path
) -> tuple[StreetDetector, float]:
    """Return the trained network, ready to be asked, and the mean loss over the last tenth of the steps."""
    device = resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StreetDetector().to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
    step, losses = 0, np.zeros(config.steps, np.float32)
    if saved := load_checkpoint(checkpoints):
        step, arrays = saved
        losses[:] = arrays.pop("losses")
        _restore(network, optimiser, arrays, step)
    while step < config.steps:
        rng = np.random.default_rng([seed, step])
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config.steps)
        loss = _loss(network, _batch(rng, examples, config), device)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
        optimiser.step()
        losses[step] = float(loss.detach())
        step += 1
        if step % config.checkpoint_every == 0 or step == config.steps:
            save_checkpoint(checkpoints, step, {**_state(network, optimiser), "losses": losses})
        progress(step, config.steps, f"loss {losses[max(step - 20, 0) : step].mean():.3f}")
    return network.cpu().eval(), float(losses[-max(config.steps // 10, 1) :].mean())


def _rate(step: int, steps: int) -> float:
    warm_up = max(_WARM_UP_SHARE * steps, 1)
    return float(min((step + 1) / warm_up, 1) * (1 + np.cos(np.pi * step / steps)) / 2)


def _batch(
    rng: np.random.Generator, examples: list[_Example], config: TrainStreetDetectorConfig
) -> tuple[np.ndarray, list[Targets], np.ndarray, np.ndarray]:
    """Return pictures `[N, H, W, 3]`, targets, lane lines and where these count `[N, H, W]`."""
    images, targets, lanes, clear = [], [], [], []
    limits = (config.width, config.height, config.width, config.height)
    for index in rng.integers(0, len(examples), config.batch):
        own = examples[index]
        image, boxes, lines = random_view(rng, own.image, own.agents.boxes, own.lanes, config.width, config.height)
        cut = np.clip(boxes, 0, limits)
        sizes, whole = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
        inside = (sizes > 0).all(axis=1)
        # What the crop hides of a vehicle is hidden too.
        hidden = 1 - (1 - own.agents.hidden) * sizes.prod(axis=1) / np.maximum(whole.prod(axis=1), 1e-9)
        known = (hidden <= config.max_hidden) & (sizes.min(axis=1, initial=np.inf) >= config.min_side_px)
        images.append(degrade(rng, image))
        targets.append(targets_of(cut[inside], known[inside], config.width, config.height))
        lanes.append(lines)
        clear.append(_outside(cut[inside], config.width, config.height))
    return np.stack(images), targets, np.stack(lanes), np.stack(clear)


def _outside(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the pixels `[H, W]` in no vehicle's box: inside, whether a line of the map is seen is not known."""
    clear = np.ones((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        clear[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
    return clear


def _loss(network: StreetDetector, batch: tuple[np.ndarray, list[Targets], np.ndarray, np.ndarray], device: str) -> torch.Tensor:
    images, targets, lanes, clear = batch

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(target, name) for target in targets])).to(device)

    centres, sides, lane_logits = network(pixels_of(images, device))
    vehicles = centre_loss(centres, stacked("centre"), stacked("counted"))
    extents = sides_loss(sides, stacked("sides"), stacked("taught"))
    lines, seen = (torch.from_numpy(mask.astype(np.float32)).to(device) for mask in (lanes, clear))
    return vehicles + 2 * extents + lane_loss(lane_logits, lines, seen)


def _state(network: StreetDetector, optimiser: torch.optim.AdamW) -> dict[str, np.ndarray]:
    arrays = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        own = optimiser.state[parameter]
        arrays |= {f"{moment}.{name}": own[moment] for moment in ("exp_avg", "exp_avg_sq")}
    return {name: value.detach().cpu().numpy() for name, value in arrays.items()}


def _restore(network: StreetDetector, optimiser: torch.optim.AdamW, arrays: dict[str, np.ndarray], step: int) -> None:
    network.load_state_dict({name: torch.from_numpy(arrays[f"network.{name}"]) for name in network.state_dict()})
    for name, parameter in network.named_parameters():
        moments = {m: torch.from_numpy(arrays[f"{m}.{name}"]).to(parameter.device) for m in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {"step": torch.tensor(float(step)), **moments}


def _measure(
    logs: list[list[_Example]], network: StreetDetector, config: TrainStreetDetectorConfig
) -> list[tuple[str, float, str, str]]:
    """Return the rows of `FIGURES` that say how well true frames of unseen logs are read."""
    scores, lanes, found, asked, right, given = [], [], 0, 0, 0, 0
    for log in logs:
        if not log:
            continue
        height, width = log[0].image.shape[:2]
        images = np.stack([example.image for example in log])
        lanes.append(ntl_iou(segment_lanes(network, images), np.stack([example.lanes for example in log])))
        own_scores = [np.zeros(0)]
        for example, detections in zip(log, detect_vehicles(network, images), strict=True):
            agents = example.agents
            rules = {"hidden": agents.hidden, "max_hidden": config.max_hidden, "min_side_px": config.min_side_px}
            counted = counted_boxes(agents.boxes, width, height, **rules)  # type: ignore[arg-type]
            own_scores.append(nta_scores(agents.boxes[counted], detections, width))
            overlap = box_iou(agents.boxes, detections[:, :4])
            found += int((overlap[counted].max(axis=1, initial=0) >= _SAME_IOU).sum())
            asked += int(counted.sum())
            # What shows a vehicle that is not asked for is neither right nor wrong.
            sure, unsure = (overlap[part].max(axis=0, initial=0) >= _SAME_IOU for part in (counted, ~counted))
            right += int(sure.sum())
            given += int((sure | ~unsure).sum())
        scores.append(np.concatenate(own_scores))
    boxes = f"{asked} vehicles in true frames of {len(logs)} clips not trained on"
    rows = []
    if asked:
        per_clip = [own.mean() for own in scores if len(own)]
        rows.append(("street_detector.nta_iou", float(np.mean(per_clip)), "", f"mean over clips; {boxes}"))
        rows.append(("street_detector.recall", found / asked, "", f"found with an IoU of {_SAME_IOU}; {boxes}"))
    if given:
        rows.append(("street_detector.precision", right / given, "", f"of {given} detections, right from an IoU of {_SAME_IOU}"))
    for name, values in (("mean", [lane.mean for lane in lanes]), ("lane", [lane.lane for lane in lanes])):
        kept = [value for value in values if np.isfinite(value)]
        if kept:
            frames = sum(lane.frames for lane in lanes)
            rows.append((f"street_detector.ntl_iou_{name}", float(np.mean(kept)), "", f"mean over clips; {frames} true frames"))
    return rows
