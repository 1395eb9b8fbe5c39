"""Stage `reconstruct.evaluate_novel`: what a scene looks like from a trajectory that nobody drove, in figures.

NTA-IoU and NTL-IoU (DriveDreamer4D, section 4.1): are vehicles and lane lines where the log says that they must appear? Beside
them the distance of the drawn depth from the lidar, and the Frechet distance of drawn from recorded frames.

Our own network was taught on procedural streets: on a filmed log it is not asked for vehicles, which then takes a detector
named in the config, nor for lane lines.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.depth import DepthVideo
from schemas.driving import LidarSweeps, RoadMap
from schemas.models import Model
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.label.detect_vehicles import DetectorConfig, knows_streets_of, open_detector, pin_detector
from stages.reconstruct.lidar_views import project_points, sweeps_of
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.detection.agents import vehicles_in_view
from worldline.detection.network import StreetDetector, encoder_features, segment_lanes
from worldline.detection.weights import load_detector
from worldline.metrics.driving import Detector, counted_boxes, draw_lane_lines, frechet_distance, nta_scores, ntl_iou

_SETTING = "reconstruct.evaluate_novel.model"
_NEAR_M, _FAR_M = 1.0, 60.0
_CELL, _BEHIND = 4, 1.05  # points this much behind the nearest in a cell of so many pixels are hidden from the new path


@dataclass(frozen=True, kw_only=True)
class EvaluateNovelConfig(DetectorConfig):
    """Which detector is asked (see `DetectorConfig`), and which boxes count.

    Attributes:
        min_side_px: boxes with a shorter side than this do not: the detector cannot see them.
        max_hidden: boxes of which a larger share is hidden do not.
    """

    min_side_px: PositiveFloat = 6.0
    max_hidden: Annotated[float, Field(ge=0, le=1)] = 0.5


def pin_evaluation(config: EvaluateNovelConfig) -> EvaluateNovelConfig:
    """Return the config with everything resolved that this machine or the named model's present state decides."""
    return pin_detector(config, _SETTING)


@stage("reconstruct.evaluate_novel", version=2, environment_packages=("torch", "transformers", "numpy"), pin=pin_evaluation)
def evaluate_novel_view(
    clip: Clip,
    depth: DepthVideo,
    path: CameraPath,
    tracks: Tracks,
    road_map: RoadMap,
    lidar: LidarSweeps,
    recorded: Clip,
    detector: Model,
    config: EvaluateNovelConfig,
    *,
    seed: int,
    progress: Progress,
) -> Metrics:
    """Measure the frames that a scene shows along a novel path; figures without anything to be measured on are left out.

    Args:
        clip: frames drawn along the path.
        depth: drawn with them.
        path: the cameras.
        tracks: the log's boxes.
        road_map: its lines.
        lidar: its sweeps.
        recorded: the log's own frames.
        detector: a street detector of ours, which finds lane lines and, where the config names no other model, vehicles, of
            procedural streets.
        config: which boxes count.
        seed: not used.
        progress: told of each part.
    """
    network = load_detector(detector.files)
    frames = clip.frames.array()
    named = config.model or "ours, trained on procedural streets"
    rows: list[dict[str, Any]] = []
    if config.model or knows_streets_of(recorded):
        rows += agent_figures(open_detector(config, detector, _SETTING), named, frames, tracks, path, config)
    progress(1, 3, "vehicles")
    if knows_streets_of(recorded):
        rows += lane_figures(network, frames, road_map, path)
    progress(2, 3, "lanes")
    if len(frames) > 1 and len(recorded.frames) > 1:
        apart = frechet_distance(encoder_features(network, frames), encoder_features(network, recorded.frames.array()))
        detail = f"features of our street detector, {len(frames)} drawn and {len(recorded.frames)} recorded frames; not FID"
        rows.append({"name": "driving.frechet", "value": apart, "unit": "", "detail": detail})
    rows += depth_figures(depth, path, lidar)
    progress(3, 3, "depth")
    return Metrics(rows_to_table(FIGURES, sorted(rows, key=lambda row: row["name"])))


def agent_figures(
    detect: Detector, named: str, frames: np.ndarray, tracks: Tracks, path: CameraPath, config: EvaluateNovelConfig
) -> list[dict[str, Any]]:
    """Return NTA-IoU of frames `[T, H, W, 3]` as rows of `FIGURES`; none where no box counts.

    Args:
        detect: finds vehicles.
        named: what it is, in words.
        frames: drawn along the path.
        tracks: the log's boxes.
        path: the cameras.
        config: which boxes count.
    """
    height, width = frames.shape[1:3]
    scores = []
    for agents, found in zip(vehicles_in_view(tracks, path, width, height), detect(frames), strict=True):
        counted = counted_boxes(
            agents.boxes, width, height, hidden=agents.hidden, max_hidden=config.max_hidden, min_side_px=config.min_side_px
        )
        scores.append(nta_scores(agents.boxes[counted], found, width))
    every = np.concatenate(scores)
    if not len(every):
        return []
    detail = f"NTA-IoU over {len(every)} boxes of vehicles in {len(frames)} frames, detector: {named}"
    return [
        {
            "name": "driving.boxes",
            "value": float(len(every)),
            "unit": "boxes",
            "detail": "vehicles fully in view, half hidden at most",
        },
        {"name": "driving.nta_iou", "value": float(every.mean()), "unit": "of 1", "detail": detail},
    ]


def lane_figures(network: StreetDetector, frames: np.ndarray, road_map: RoadMap, path: CameraPath) -> list[dict[str, Any]]:
    """Return NTL-IoU of frames `[T, H, W, 3]` as rows of `FIGURES`; none where the map has no line in view."""
    height, width = frames.shape[1:3]
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    lines = road_map.lines("lane_line")
    drawn = np.stack([draw_lane_lines(lines, pose, intrinsics, width, height) for pose in path.world_from_camera])
    if not drawn.any():
        return []
    scores = ntl_iou(segment_lanes(network, frames), drawn)
    detail = f"lane lines of the map in {scores.frames} frames, segmented by our street detector"
    return [
        {"name": "driving.ntl_iou", "value": scores.mean, "unit": "of 1", "detail": f"mean over background and line, {detail}"},
        {"name": "driving.ntl_iou_lane", "value": scores.lane, "unit": "of 1", "detail": f"line alone, {detail}"},
    ]


def depth_figures(depth: DepthVideo, path: CameraPath, lidar: LidarSweeps) -> list[dict[str, Any]]:
    """Return the distance of drawn depth from the sweep nearest in time, where points are not hidden from the path."""
    if depth.quantity != "metric_depth" or not len(lidar.times_s):
        return []
    _, height, width = depth.half_bits.shape if depth.half_bits is not None else (0, 0, 0)
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    errors, frames = [np.zeros(0)], 0
    for frame, points in sweeps_of(lidar, path.times_s, range(len(path.times_s))):
        pose = invert_rigid(path.world_from_camera[frame])
        column, row, known = project_points(pose, intrinsics, (width, height), points, _NEAR_M)
        near = known < _FAR_M
        column, row, known = column[near], row[near], known[near]
        cell = row // _CELL * width + column // _CELL
        nearest = np.full(width * height, np.inf)
        np.minimum.at(nearest, cell, known)
        drawn = depth.at([frame])[0][row, column]
        kept = (drawn > 0) & (known <= _BEHIND * nearest[cell])
        errors.append(np.abs(drawn - known)[kept])
        frames += 1
    every = np.concatenate(errors)
    if not len(every):
        return []
    detail = f"median over {len(every)} lidar points between {_NEAR_M:.0f} and {_FAR_M:.0f} m in {frames} frames"
    return [{"name": "driving.lidar_depth_error_m", "value": float(np.median(every)), "unit": "m", "detail": detail}]
