"""Stage `label.obedience`: did the generated traffic go where its conditions put it?

Vehicles are found in the generated frames, stood on the ground where a vehicle of the condition's size would look like that,
and compared with the conditioned boxes. What a detector cannot see at this size is not asked for; what it gets wrong on true
frames is in the figure too, so measure those as well and read the difference.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.optimize import linear_sum_assignment

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.models import Model
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.label.detect_vehicles import DetectorConfig, open_detector, pin_detector
from worldline.cameras import scale_intrinsics
from worldline.detection.agents import Agents, vehicles_in_view
from worldline.detection.placing import place_detections
from worldline.metrics.driving import box_iou, counted_boxes

_SETTING = "label.obedience.model"
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class ObedienceConfig(DetectorConfig):
    """Which detector is asked (see `DetectorConfig`), and of which boxes.

    Attributes:
        min_side_px: boxes with a shorter side than this do not count.
        max_hidden: boxes of which a larger share is hidden do not count.
        min_iou: a detection can be that of a box from this overlap on; one that overlaps no box so far is a false vehicle.
    """

    min_side_px: PositiveFloat = 6.0
    max_hidden: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_iou: Annotated[float, Field(gt=0, lt=1)] = 0.1


def pin_obedience(config: ObedienceConfig) -> ObedienceConfig:
    """Return the config with everything resolved that this machine or the named model's present state decides."""
    return pin_detector(config, _SETTING)


class _Frame(NamedTuple):
    """What one frame tells: distances and ranges `[found]` in metres, boxes that count, detections without a box."""

    distances_m: np.ndarray
    ranges_m: np.ndarray
    counted: int
    false: int


@stage("label.obedience", version=1, environment_packages=("torch", "transformers", "scipy", "numpy"), pin=pin_obedience)
def measure_obedience(
    clip: Clip, novel_path: CameraPath, tracks: Tracks, detector: Model, config: ObedienceConfig, *, seed: int, progress: Progress
) -> Metrics:
    """Compare the vehicles seen in a generated clip with the boxes that it was made from.

    Args:
        clip: generated frames.
        novel_path: the cameras that they were made for.
        tracks: the conditioned boxes.
        detector: what finds vehicles, where the config names no other.
        config: rules.
        seed: not used, nothing is drawn.
        progress: called after every few frames.

    Returns:
        Figures `driving.condition_*`; those without anything to be measured on are left out.

    Raises:
        WorldlineError: if the clip has other frames than the path, or the detector is not at hand.
    """
    if len(clip.frames) != len(novel_path.times_s):
        raise WorldlineError(
            f"label.obedience: the clip {clip.name} has {len(clip.frames)} frames but its path {len(novel_path.times_s)}: give "
            "the path that it was generated for"
        )
    width, height = clip.size
    detect = open_detector(config, detector, _SETTING)
    intrinsics = scale_intrinsics(novel_path.intrinsics, width / novel_path.width, height / novel_path.height)
    agents = vehicles_in_view(tracks, novel_path, width, height)
    frames = []
    for start in range(0, len(agents), _BATCH):
        images = clip.frames.at(range(start, min(start + _BATCH, len(agents))))
        for index, found in enumerate(detect(images), start):
            pose = novel_path.world_from_camera[index]
            frames.append(_compare(agents[index], found[:, :4], pose, intrinsics, (width, height), config))
        progress(len(frames), len(agents), "frames")
    rows = [dict(zip(FIGURES.names, figure, strict=True)) for figure in sorted(_figures(frames))]
    return Metrics(rows_to_table(FIGURES, rows))


def _compare(
    agents: Agents,
    found: np.ndarray,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    config: ObedienceConfig,
) -> _Frame:
    counted = counted_boxes(
        agents.boxes, *size, hidden=agents.hidden, max_hidden=config.max_hidden, min_side_px=config.min_side_px
    )
    overlap = box_iou(agents.boxes, found)
    own, theirs = linear_sum_assignment(overlap, maximize=True)
    # Boxes that do not count take their detections too, so that those are nobody else's.
    kept = (overlap[own, theirs] >= config.min_iou) & counted[own]
    own, theirs = own[kept], theirs[kept]
    places = place_detections(
        found[theirs], agents.bottoms[own], agents.sizes[own], agents.yaws_rad[own], world_from_camera, intrinsics
    )
    distances = np.linalg.norm((places - agents.bottoms[own])[:, :2], axis=1)
    ranges = np.linalg.norm(agents.bottoms[own] - world_from_camera[:3, 3], axis=1)
    placed = np.isfinite(distances)
    false = int((overlap.max(axis=0, initial=0) < config.min_iou).sum())
    return _Frame(distances[placed], ranges[placed], int(counted.sum()), false)


def _figures(frames: list[_Frame]) -> list[tuple[str, float, str, str]]:
    counted = sum(frame.counted for frame in frames)
    false = sum(frame.false for frame in frames)
    rows = [
        ("driving.condition_boxes", float(counted), "boxes", f"conditioned boxes that count, in {len(frames)} frames"),
    ]
    if frames:
        rows.append(("driving.condition_false_vehicles", false / len(frames), "per frame", "vehicles seen where no box is"))
    if not counted:
        return rows
    distances = np.concatenate([frame.distances_m for frame in frames])
    rows.append(("driving.condition_found", len(distances) / counted, "", f"share of the {counted} boxes seen as vehicles"))
    if len(distances):
        ranges = float(np.median(np.concatenate([frame.ranges_m for frame in frames])))
        where = f"on the ground, of {len(distances)} vehicles seen from their boxes, in the median {ranges:.1f} m away"
        rows.append(("driving.condition_obedience_m", float(np.median(distances)), "m", f"median distance {where}"))
        rows.append(("driving.condition_obedience_p90_m", float(np.quantile(distances, 0.9)), "m", f"90 % quantile {where}"))
    return rows
