"""How much of the traffic the motion masks find on a real street, by the direction in which it moves.

A sample is one annotated object in one frame: moving, no farther than `FARTHEST_M`, its projected box no smaller than
`SMALLEST_PX` pixels (at 960 of width) and not mostly behind nearer boxes. It is found where the moving regions cover at least
`COVERED` of its box, of which a car fills some two thirds. Precision is the share of masked pixels that lie in the box of
any moving object, seen as generously as annotation and resampling blur it (`MARGIN_PX`): shadows on the road count as false.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.pose import real_data
from benchmarks.pose_pandaset import CAMERA, CAMERA_HEIGHT_M, CAMERA_HEIGHT_SIGMA_M, SCENE
from benchmarks.pose_placing import place_in_world
from schemas.clips import Clip
from schemas.motion import Masks
from schemas.tracks import Truth
from stages.contract import no_progress
from stages.ingest.pandaset import PandasetConfig, ingest_pandaset
from stages.ingest.source import describe_source
from stages.label.moving_regions import MovingRegionsConfig, find_moving_regions
from stages.label.point_tracks import PointTracksConfig, track_points
from stages.pose.colmap import ColmapConfig, solve_camera_path
from stages.pose.refine import RefineConfig, refine_camera_path

FARTHEST_M = 40.0
SMALLEST_PX = 300
COVERED = 0.3
MARGIN_PX = 8
HIDDEN = 0.6  # share of a box behind nearer boxes from which it counts as hidden
DIRECTIONS = ("away", "oncoming", "crossing")
QUICK_FRAMES = 30


@dataclass(frozen=True)
class Sample:
    """A moving object in a frame.

    Attributes:
        frame: its index.
        direction: of its motion against the camera's viewing direction: "away", "oncoming" (each within 45 degrees) or
            "crossing".
        covered: share of its box that the moving regions cover.
    """

    frame: int
    direction: str
    covered: float


def measure_movers(folder: Path, quick: bool) -> Sequence[Figure]:
    """Find the moving regions of the PandaSet scene from its frames alone, and compare them with the annotated boxes."""
    source = describe_source(real_data(SCENE), camera=CAMERA)
    config = PandasetConfig(
        camera_height_m=CAMERA_HEIGHT_M,
        camera_height_sigma_m=CAMERA_HEIGHT_SIGMA_M,
        max_frames=QUICK_FRAMES if quick else None,
    )
    clip, truth = ingest_pandaset(source, config, seed=0, progress=no_progress)
    masks = find_movers(clip)
    samples, precision = compare(masks, truth, clip)
    of = (
        f"PandaSet 002, front camera, {len(clip.frames)} frames of {clip.size[0]}x{clip.size[1]}; samples: an object moves, "
        f"within {FARTHEST_M:.0f} m, its box over {SMALLEST_PX} pixels and less than {HIDDEN:.0%} behind nearer boxes; found: "
        f"{COVERED:.0%} of its box masked"
    )
    beside = f"at a precision of {precision:.3f}"
    figures = [
        figure("pose.pandaset.mover_recall", _found(samples), "share", beside, f"{len(samples)} samples; {of}"),
        figure(
            "pose.pandaset.mover_precision",
            precision,
            "share",
            f"at a recall of {_found(samples):.3f}",
            f"masked pixels in moving boxes widened by {MARGIN_PX} px; {of}",
        ),
    ]
    for direction in DIRECTIONS:
        own = [sample for sample in samples if sample.direction == direction]
        figures.append(
            figure(f"pose.pandaset.mover_recall.{direction}", _found(own), "share", beside, f"{len(own)} samples; {of}")
        )
    return figures


def find_movers(clip: Clip) -> Masks:
    """Take a clip from its frames to its moving regions, as the flow does."""
    first = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    tracks = track_points(clip, PointTracksConfig())
    path, points, ground = place_in_world(clip, *first)
    masks = find_moving_regions(clip, path, points, ground, tracks, MovingRegionsConfig())
    second = refine_camera_path(clip, *first, masks, tracks, RefineConfig(), seed=0, progress=no_progress)
    if second[0] is not first[0]:
        path, points, ground = place_in_world(clip, *second)
        masks = find_moving_regions(clip, path, points, ground, tracks, MovingRegionsConfig())
    return masks


def compare(masks: Masks, truth: Truth, clip: Clip) -> tuple[list[Sample], float]:
    """Return the samples, and the share of masked pixels in moving boxes; frames without a pose have no masks and count."""
    assert truth.world_from_camera is not None
    assert truth.boxes is not None
    rows = [row for row in truth.boxes.to_pylist() if row["x0_px"] is not None]
    headings = directions(rows, truth.world_from_camera)
    width, height = clip.size
    samples: list[Sample] = []
    true_px = masked_px = 0
    for frame, labels in enumerate(masks.labels):
        mask = cv2.resize((np.asarray(labels) > 0).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        here = [row for row in rows if row["frame"] == frame]
        centre = truth.world_from_camera[frame][:3, 3]
        distance = [float(np.linalg.norm([row[axis] for axis in "xyz"] - centre)) for row in here]
        movers = np.zeros((height, width), bool)
        for row in here:
            if row["moving"]:
                movers[_window(row, MARGIN_PX, width, height)] = True
        masked_px, true_px = masked_px + int(mask.sum()), true_px + int((mask & movers).sum())
        nearer = np.zeros((height, width), bool)
        for index in np.argsort(distance, kind="stable"):
            row, window = here[index], _window(here[index], 0, width, height)
            is_seen = mask[window].size >= SMALLEST_PX * (width / 960) ** 2 and nearer[window].mean() < HIDDEN
            if row["moving"] and is_seen and distance[index] <= FARTHEST_M:
                samples.append(Sample(frame, headings[row["track_id"], frame], float(mask[window].mean())))
            nearer[window] = True
    return samples, true_px / max(masked_px, 1)


def directions(rows: list[dict[str, Any]], world_from_camera: np.ndarray) -> dict[tuple[int, int], str]:
    """Return the direction of motion by track and frame, from where the object is in its neighbouring frames."""
    places: dict[int, dict[int, np.ndarray]] = {}
    for row in rows:
        places.setdefault(row["track_id"], {})[row["frame"]] = np.array([row["x"], row["y"]])
    found = {}
    for track, by_frame in places.items():
        for frame in by_frame:
            near = [other for other in by_frame if abs(other - frame) <= 5]
            moved = by_frame[max(near)] - by_frame[min(near)]
            axis = world_from_camera[frame][:2, 2]
            along = moved @ axis / max(float(np.linalg.norm(moved) * np.linalg.norm(axis)), 1e-9)
            found[track, frame] = "away" if along > np.sqrt(0.5) else "oncoming" if along < -np.sqrt(0.5) else "crossing"
    return found


def _window(row: dict[str, Any], margin: float, width: int, height: int) -> tuple[slice, slice]:
    x0, y0 = max(0, round(row["x0_px"] - margin)), max(0, round(row["y0_px"] - margin))
    return slice(y0, min(height, round(row["y1_px"] + margin))), slice(x0, min(width, round(row["x1_px"] + margin)))


def _found(samples: list[Sample]) -> float | None:
    return float(np.mean([sample.covered >= COVERED for sample in samples])) if samples else None
