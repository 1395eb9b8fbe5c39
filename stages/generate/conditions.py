"""What a world model is told of a novel view: boxes, road lines, depth, and what the recorded frames show of it.

DriveDreamer4D (CVPR 2025) gives boxes and map lines; the recorded frames warped into the view by depth are what StreetCrafter
(CVPR 2025) and ReconDreamer (CVPR 2025) add, there as coloured laser points and as renders.
"""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import Conditions, LidarSweeps, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.tracks import Tracks
from stages.contract import Progress, no_progress, stage
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.driving.boxes import boxes_by_frame, view_boxes
from worldline.driving.canvases import box_canvas, road_canvas
from worldline.driving.stereo import Recording, read_surfaces
from worldline.driving.surfaces import part_points
from worldline.driving.warping import see
from worldline.threads import map_pieces

_MULTIPLE = 16  # sizes of frames that world models make
_WORDS = {
    "recorded": "the ego vehicle drives as recorded",
    "lane_change_left": "the ego vehicle moves {left:.1f} m to the left",
    "lane_change_right": "the ego vehicle moves {right:.1f} m to the right",
    "accelerate": "the ego vehicle drives faster and gains {forward:.1f} m",
    "decelerate": "the ego vehicle drives slower and falls back by {back:.1f} m",
    "spline": "the ego vehicle takes another path",
    "given": "the ego vehicle takes another path",
}


@dataclass(frozen=True)
class ConditionsConfig:
    """How a novel view is described.

    Attributes:
        max_side: longer side of the canvases in pixels; 0 keeps the clip's. Sizes become multiples of 16.
        leave_out: recorded frames that are no more than so many frames away in time are not looked up, so that
            conditions of the recorded path do not simply hold its own frames; -1 looks up all.
    """

    max_side: Annotated[int, Field(ge=0)] = 0
    leave_out: Annotated[int, Field(ge=-1)] = -1


@stage("generate.conditions", version=1)
def generate_conditions(
    clip: Clip,
    path: CameraPath,
    tracks: Tracks,
    recorded: Trajectory,
    trajectory: Trajectory,
    novel_path: CameraPath,
    road_map: RoadMap,
    lidar: LidarSweeps,
    config: ConditionsConfig,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> Conditions:
    """Describe every frame of a novel path.

    Args:
        clip: the recorded frames.
        path: their cameras.
        tracks: boxes of everybody else.
        recorded: the ego vehicle as it drove.
        trajectory: as it is to drive.
        novel_path: the camera there.
        road_map: lines of the road.
        lidar: points; without sweeps there is no prior.
        config: size, and which frames may be looked up.
        seed: not used, nothing is random.
        progress: called per frame.

    Raises:
        WorldlineError: if the trajectory and the clip differ in their number of frames.
    """
    count = len(clip.times_s)
    if len(novel_path.times_s) != count or len(trajectory.times_s) != count:
        raise WorldlineError(
            f"generate.conditions: the clip has {count} frames, the trajectory {len(trajectory.times_s)}: give those of one log"
        )
    frames = _sized(clip.frames.array(), config.max_side)
    height, width = frames.shape[1:3]
    intrinsics = scale_intrinsics(path.intrinsics, width / path.width, height / path.height)
    boxes = boxes_by_frame(tracks, count)
    shape = (count, height, width)
    box_canvases, road_canvases, prior = np.zeros((3, *shape, 3), np.uint8)
    known, depth_cm = np.zeros((2, *shape), np.uint16)
    recording: Recording | None = None
    if len(lidar.xyz):
        ground = _ground(recorded.world_from_ego)
        points = part_points(lidar, boxes, clip.times_s)
        recording = read_surfaces(frames, path.world_from_camera, path.registered, intrinsics, boxes, points, ground)
    known_poses = np.flatnonzero(novel_path.registered)
    described: list[int] = []

    def describe(number: int) -> None:
        frame = int(known_poses[number])
        pose = novel_path.world_from_camera[frame]
        box_canvases[frame] = box_canvas(boxes[frame], pose, intrinsics, width, height)
        road_canvases[frame] = road_canvas(road_map, pose, intrinsics, width, height)
        if recording is not None:
            allowed = np.abs(np.arange(count) - frame) > config.leave_out
            seen = see(recording, allowed, frame, pose)
            prior[frame], known[frame] = seen.picture, np.rint(255 * seen.known)
            inverse = seen.inverse_depths
        else:
            inverse = 1 / view_boxes(boxes[frame], pose, intrinsics, width, height).depth_m
        told = inverse > 100 / np.iinfo(np.uint16).max
        depth_cm[frame] = np.where(told, np.rint(100 / np.where(told, inverse, 1.0)), 0)
        described.append(frame)
        progress(len(described), count, "frames described")

    map_pieces(describe, len(known_poses))
    moved = _offsets(recorded.world_from_ego, trajectory.world_from_ego)
    return Conditions(
        times_s=clip.times_s,
        boxes=Video.from_array(box_canvases),
        road=Video.from_array(road_canvases),
        depth_cm=Video.from_array(depth_cm),
        prior=Video.from_array(prior),
        known=Video.from_array(known),
        first_frame=frames[0],
        text=_text(trajectory.manoeuvre, moved[-1]),
        offset_m=moved,
        prior_source="none" if recording is None else "lidar",
    )


def _sized(frames: np.ndarray, max_side: int) -> np.ndarray:
    """Return frames whose longer side is `max_side` at most and whose sides are multiples of 16."""
    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width)) if max_side else 1.0
    size = [max(round(side * scale / _MULTIPLE), 1) * _MULTIPLE for side in (width, height)]
    if size == [width, height]:
        return frames
    shrink = cv2.INTER_AREA if size[0] <= width else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size, interpolation=shrink) for frame in frames])


def _ground(world_from_ego: np.ndarray) -> np.ndarray:
    """Return the plane `[T, 4]` under the vehicle at every frame: its normal, and the offset along it."""
    up, place = world_from_ego[:, :3, 2], world_from_ego[:, :3, 3]
    return np.concatenate([up, -(up * place).sum(axis=1, keepdims=True)], axis=1)


def _offsets(recorded: np.ndarray, novel: np.ndarray) -> np.ndarray:
    """Return how far forward and left `[T, 2]` of the recorded ego the novel one is."""
    return (invert_rigid(recorded) @ novel)[:, :2, 3]


def _text(manoeuvre: str, moved: np.ndarray) -> str:
    forward, left = moved
    return _WORDS[manoeuvre].format(left=left, right=-left, forward=forward, back=-forward)
