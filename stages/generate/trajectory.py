"""A trajectory that the ego vehicle never drove, beside the one that it drove (DriveDreamer4D, CVPR 2025, Algorithm 1).

The offset from the recorded drive grows step by step, each step halved until it is safe and held where none is; what could
not be reached is told with the reason. Published are steps drawn at random (and, for evaluation, 0.1 m per frame, in the
first ego frame); the default here is a smooth course that follows the road.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.driving import TRAJECTORY_CHECKS, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.tracks import Tracks
from stages.contract import Progress, no_progress, stage
from worldline.cameras import invert_rigid
from worldline.driving.boxes import boxes_by_frame
from worldline.driving.trajectories import (
    Clearance,
    Search,
    Surroundings,
    search_offsets,
    shift_poses,
    smooth_step,
    spline_offsets,
    turn_along,
)

# Manoeuvres that are searched: which of (forward, left) they change, and with which sign.
_SEARCHED = {
    "lane_change_left": (0.0, 1.0),
    "lane_change_right": (0.0, -1.0),
    "accelerate": (1.0, 0.0),
    "decelerate": (-1.0, 0.0),
}


@dataclass(frozen=True)
class TrajectoryConfig:
    """What is driven instead.

    Attributes:
        manoeuvre: what changes. Lane changes and changes of speed are searched; "spline" and "given" are taken as they are, and
            rejected where they are not safe.
        target_m: offset that is reached and then kept: to the side, forward (accelerate) or back (decelerate).
        steps: of the search: "smooth" (minimum jerk over `duration_s`), "random" (uniform from 0 to `step_m`, as published)
            or "constant" (`step_m` in each frame, the published evaluation).
        start_s: from when on the offset grows, seconds of the clip.
        duration_s: how long a smooth course takes; less where the clip ends before.
        step_m: largest or constant step per frame.
        halvings: of a step that is not safe, before the offset is held in this frame.
        min_clearance_m: from the ego's footprint to every other box's, or what the recorded drive left where that is less.
        turn: whether the vehicle turns into its direction of travel, else it keeps the recorded orientation, as published.
        offsets_in: "road" (forward along the recorded path, left of the vehicle there) or "first_ego" (the axes of the first
            ego frame, as published; "spline" is always meant so).
        waypoints_m: of "spline": points forward and left of the first ego position.
        offsets_m: of "given": rows of (seconds of the clip, forward, left), between which offsets change linearly.
        least_share: of the target that must be reached.
    """

    manoeuvre: Literal["lane_change_left", "lane_change_right", "accelerate", "decelerate", "spline", "given"] = (
        "lane_change_left"
    )
    target_m: PositiveFloat = 3.5
    steps: Literal["smooth", "random", "constant"] = "smooth"
    start_s: NonNegativeFloat = 0.0
    duration_s: PositiveFloat = 3.5
    step_m: PositiveFloat = 0.1
    halvings: NonNegativeInt = 5
    min_clearance_m: PositiveFloat = 0.5
    turn: bool = False
    offsets_in: Literal["road", "first_ego"] = "road"
    waypoints_m: tuple[tuple[float, float], ...] = ()
    offsets_m: tuple[tuple[float, float, float], ...] = ()
    least_share: PositiveFloat = 0.8


@stage("generate.trajectory", version=1)
def generate_trajectory(
    path: CameraPath,
    tracks: Tracks,
    recorded: Trajectory,
    road_map: RoadMap,
    config: TrajectoryConfig,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Trajectory, CameraPath]:
    """Find a trajectory beside the recorded one and the camera's path along it.

    Args:
        path: the recorded camera.
        tracks: boxes of everybody else.
        recorded: the ego vehicle as it drove.
        road_map: whose drivable areas are kept to; without any, that is not checked and `on_road` is null.
        config: what is driven instead.
        seed: of random steps.
        progress: called when done.

    Returns:
        The trajectory, accepted or rejected with a reason, and the camera mounted as recorded at every frame.

    Raises:
        WorldlineError: if a spline has no waypoints, or given offsets no rows.
    """
    frames = len(recorded.times_s)
    boxes = boxes_by_frame(tracks, frames)
    drivable = [line[:, :2] for line in road_map.lines("drivable")]
    surroundings = Surroundings(
        boxes, drivable, recorded.world_from_ego, recorded.length_m, recorded.width_m, config.min_clearance_m
    )
    found: Search | None = None
    if config.manoeuvre in _SEARCHED:
        found = _search(recorded, surroundings, config, seed)
        poses = _poses(recorded, found.offsets_m[:, None] * np.array(_SEARCHED[config.manoeuvre]), config)
    elif config.manoeuvre == "spline":
        if not config.waypoints_m:
            raise WorldlineError("generate.trajectory: a spline needs waypoints_m, points (forward, left) in metres")
        offsets = spline_offsets(recorded.world_from_ego, np.array(config.waypoints_m, np.float64))
        poses = _poses(recorded, offsets, dataclasses.replace(config, offsets_in="first_ego"))
    else:
        poses = _poses(recorded, _given_offsets(recorded.times_s, config), config)
    seen = surroundings.look(poses, np.arange(frames))
    names = dict(zip(tracks.objects["track_id"].to_pylist(), tracks.objects["class_name"].to_pylist(), strict=True))
    accepted, reason = _verdict(found, seen, names, config)
    trajectory = Trajectory(
        name=f"{config.manoeuvre}_{config.target_m:.1f}m" if found else config.manoeuvre,
        manoeuvre=config.manoeuvre,
        times_s=recorded.times_s,
        world_from_ego=poses,
        length_m=recorded.length_m,
        width_m=recorded.width_m,
        accepted=accepted,
        reason=reason,
        checks=_checks(recorded.world_from_ego, poses, seen, found.held if found else np.zeros(frames, bool)),
    )
    progress(1, 1, reason or "accepted")
    return trajectory, _mounted(path, recorded.world_from_ego, poses)


def _search(recorded: Trajectory, surroundings: Surroundings, config: TrajectoryConfig, seed: int) -> Search:
    rng = np.random.default_rng(seed)
    times, poses = recorded.times_s, recorded.world_from_ego
    direction = np.array(_SEARCHED[config.manoeuvre])
    duration = max(min(config.duration_s, float(times[-1] - config.start_s)), 1e-6)
    driven = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0, prepend=poses[:1, :2, 3]), axis=1)
    shares = np.linspace(0, 1, 2001)
    course = smooth_step(shares)

    def wanted_step(frame: int, offset: float) -> float:
        elapsed = times[frame] - times[frame - 1]
        if times[frame] <= config.start_s:
            return 0.0
        if config.steps == "smooth":  # from where the course stands at this offset, however long it was held
            share = float(np.interp(offset / config.target_m, course, shares)) + elapsed / duration
            step = config.target_m * float(smooth_step(share)) - offset
        else:
            step = float(rng.uniform(0, config.step_m)) if config.steps == "random" else config.step_m
        step = min(step, config.target_m - offset)
        return min(step, float(driven[frame])) if config.manoeuvre == "decelerate" else step  # nobody drives backwards

    def pose_at(frames: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        every = np.zeros(len(times))
        every[frames] = offsets
        return _shifted(recorded, every[:, None] * direction, config)[frames]

    return search_offsets(len(times), wanted_step, pose_at, surroundings, config.halvings)


def _shifted(recorded: Trajectory, offsets_m: np.ndarray, config: TrajectoryConfig) -> np.ndarray:
    return shift_poses(recorded.world_from_ego, offsets_m, along_road=config.offsets_in == "road")


def _poses(recorded: Trajectory, offsets_m: np.ndarray, config: TrajectoryConfig) -> np.ndarray:
    poses = _shifted(recorded, offsets_m, config)
    return turn_along(poses, recorded.world_from_ego) if config.turn else poses


def _given_offsets(times_s: np.ndarray, config: TrajectoryConfig) -> np.ndarray:
    if not config.offsets_m:
        raise WorldlineError(
            "generate.trajectory: a given trajectory needs offsets_m, rows of (seconds, forward, left) in seconds and metres"
        )
    rows = np.array(sorted(config.offsets_m), np.float64)
    return np.stack([np.interp(times_s, rows[:, 0], rows[:, axis]) for axis in (1, 2)], axis=1)


def _verdict(found: Search | None, seen: Clearance, names: dict[int, str], config: TrajectoryConfig) -> tuple[bool, str]:
    """Return whether the trajectory is accepted, and what is to be said of it."""
    said = []
    accepted = bool(seen.safe.all())
    if found is not None:
        reached = float(found.offsets_m[-1])
        accepted = accepted and reached >= config.least_share * config.target_m
        said += _holds(found, names, config.target_m)
        if not said and not accepted and reached < config.least_share * config.target_m:
            said.append(f"the clip ends at an offset of {reached:.1f} m; {config.target_m:.1f} m were asked")
    if not seen.safe.all():
        frame = int(np.flatnonzero(~seen.safe)[0])
        if seen.clear[frame]:
            said.append(f"at frame {frame} the vehicle is not wholly on drivable area")
        else:
            track, apart = int(seen.too_near[frame]), float(seen.too_near_m[frame])
            said.append(
                f"at frame {frame} {_who(track, names)} is {apart:.1f} m away; {config.min_clearance_m:.1f} m must be between"
            )
    return accepted, "; ".join(said)


def _holds(found: Search, names: dict[int, str], target_m: float) -> list[str]:
    """Tell of the longest time for which the search held."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], found.held.astype(int), [0]])))
    if not len(edges):
        return []
    start, end = max(edges.reshape(-1, 2), key=lambda run: run[1] - run[0])
    until = "on" if end == len(found.held) else f"to {end - 1}"
    track = int(found.too_near[start])
    why = "the vehicle would leave the drivable area"
    if track >= 0:
        why = f"{_who(track, names)} would be {found.too_near_m[start]:.1f} m away"
    reached = f"{target_m:.1f} m were asked"
    if end < len(found.held):
        reached += f", {found.offsets_m[-1]:.1f} m were reached"
    return [f"held at {found.offsets_m[start]:.1f} m from frame {start} {until}: {why}; {reached}"]


def _who(track: int, names: dict[int, str]) -> str:
    return f"track {track} ({names.get(track, 'unknown')})"


def _checks(recorded: np.ndarray, poses: np.ndarray, seen: Clearance, held: np.ndarray) -> pa.Table:
    moved = (poses[:, :3, 3] - recorded[:, :3, 3]) @ recorded[0, :3, :3]
    alone = seen.nearest < 0
    return make_table(
        TRAJECTORY_CHECKS,
        {
            "frame": np.arange(len(poses), dtype=np.int32),
            "forward_m": moved[:, 0],
            "left_m": moved[:, 1],
            "clearance_m": [None if none else float(apart) for none, apart in zip(alone, seen.distance_m, strict=True)],
            "nearest_track": [None if none else int(track) for none, track in zip(alone, seen.nearest, strict=True)],
            "on_road": [None] * len(poses) if seen.on_road is None else seen.on_road.tolist(),
            "held": held,
        },
    )


def _mounted(path: CameraPath, recorded: np.ndarray, poses: np.ndarray) -> CameraPath:
    """Return the path of the camera that sits on the vehicle as it did at every recorded frame."""
    cameras = poses @ invert_rigid(recorded) @ path.world_from_camera
    same = (poses == recorded).all(axis=(1, 2)) | ~path.registered
    cameras[same] = path.world_from_camera[same]
    return dataclasses.replace(path, world_from_camera=cameras, strategy=None, repeats=None)
