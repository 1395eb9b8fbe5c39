"""Trajectories that nobody drove: offsets from the recorded one, searched so that they stay clear of everybody and on the road.

Zhao et al., "DriveDreamer4D", CVPR 2025, Algorithm 1: from frame to frame a step is tried, halved while it is not safe, and
given up for this frame where it is still unsafe after so many halvings: the offset is held, never pushed through.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32
from scipy.interpolate import CubicSpline

from worldline.cameras import interpolate_poses, rotation_from_vector
from worldline.driving.boxes import Boxes
from worldline.driving.footprints import covered, distance, outline_and_inside, rectangle

_STANDING_M = 0.02  # a vehicle that moves less than this from one frame to the next has no direction of travel
_SHARPEST_TURN_RAD = 0.5  # a car that creeps while its offset changes does not turn across its lane
_CAR_HEIGHT_M = 2.0  # boxes that lie wholly above or below the ego are no obstacle
_ROUNDING_M = 1e-6


def smooth_step(share: np.ndarray | float) -> np.ndarray:
    """Return the minimum-jerk course from 0 to 1 over `share` from 0 to 1 (Flash and Hogan, J. Neuroscience 5(7), 1985)."""
    s = np.clip(share, 0.0, 1.0)
    return s**3 * (10 - 15 * s + 6 * s**2)


def shift_poses(recorded: np.ndarray, offsets_m: np.ndarray, *, along_road: bool) -> np.ndarray:
    """Return ego poses `[T, 4, 4]` that lie forward and left of the recorded ones; exactly these where the offset is 0.

    Args:
        recorded: `[T, 4, 4]` world from ego.
        offsets_m: `[T, 2]` forward and left.
        along_road: forward follows the recorded path (straight on beyond its ends) and left is the vehicle's own there; else
            both are axes of the first ego frame, as published: M_0 T(dx, dy) M_0^-1 M_t.
    """
    shifted = recorded.copy()
    if not along_road:
        shifted[:, :3, 3] += offsets_m @ recorded[0, :3, :2].T
        return shifted
    steps = np.linalg.norm(np.diff(recorded[:, :2, 3], axis=0), axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    kept = np.concatenate([[True], steps > 1e-4])
    moved = np.flatnonzero(offsets_m[:, 0] != 0)
    at = travelled[moved] + offsets_m[moved, 0]
    shifted[moved] = interpolate_poses(travelled[kept], recorded[kept], at)
    beyond = at - np.clip(at, travelled[0], travelled[-1])
    shifted[moved, :3, 3] += beyond[:, None] * shifted[moved, :3, 0]
    shifted[:, :3, 3] += offsets_m[:, 1:] * shifted[:, :3, 1]
    return shifted


def spline_offsets(recorded: np.ndarray, waypoints_m: np.ndarray) -> np.ndarray:
    """Return offsets `[T, 2]` in the first ego frame that lead through points, at the pace of the recorded drive.

    A cubic spline begins at the first ego position along its heading and goes through the points; after as many metres of
    it as the recorded ego had driven, the new one is there. Beyond the last point it goes straight on.

    Args:
        recorded: `[T, 4, 4]` world from ego.
        waypoints_m: `[W, 2]` forward and left of the first ego position, in the order in which they are passed.
    """
    points = np.concatenate([[(0.0, 0.0)], waypoints_m])
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    spline = CubicSpline(knots, points, bc_type=((1, (1.0, 0.0)), (2, (0.0, 0.0))))
    fine = np.linspace(0, knots[-1], 50 * len(knots))
    curve = spline(fine)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    local = (recorded[:, :3, 3] - recorded[0, :3, 3]) @ recorded[0, :3, :3]
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(local[:, :2], axis=0), axis=1))])
    at = np.stack([np.interp(travelled, arc, curve[:, axis]) for axis in range(2)], axis=1)
    end = (curve[-1] - curve[-2]) / np.linalg.norm(curve[-1] - curve[-2])
    at += np.maximum(travelled - arc[-1], 0)[:, None] * end
    return at - local[:, :2]


def turn_along(poses: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Return the poses `[T, 4, 4]` turned about the vertical as their direction of travel differs from the recorded one.

    The direction is atan2(dy, dx) of the step from the frame before; that the difference is added to the recorded heading
    leaves the recorded drive as it was, with its slip and the noise of its positions.
    """
    step, own = (np.diff(each[:, :2, 3], axis=0, prepend=each[:1, :2, 3]) for each in (poses, recorded))
    turn = np.arctan2(step[:, 1], step[:, 0]) - np.arctan2(own[:, 1], own[:, 0])
    turn = np.clip((turn + np.pi) % (2 * np.pi) - np.pi, -_SHARPEST_TURN_RAD, _SHARPEST_TURN_RAD)
    standing = np.minimum(np.linalg.norm(step, axis=1), np.linalg.norm(own, axis=1)) < _STANDING_M
    driving = np.maximum.accumulate(np.where(standing, 0, np.arange(len(turn))))  # who stands looks where it last drove to
    turned = poses.copy()
    about = np.zeros((len(turn), 3))
    about[:, 2] = np.where(driving > 0, turn[driving], 0.0)
    turned[:, :3, :3] = rotation_from_vector(about) @ poses[:, :3, :3]
    return turned


@dataclass(frozen=True, eq=False)
class Clearance:
    """How ego poses stand to everything else.

    Attributes:
        distance_m: `[T]` from the ego's footprint to the nearest box's, infinite where there is none.
        nearest: `[T]` track id of that box, -1 where there is none.
        on_road: `[T]` whether the whole footprint lies in drivable area; None where the log has no map.
        clear: `[T]` whether no box is nearer than it must be (see `Surroundings`).
        too_near: `[T]` track id of the nearest box that is nearer than it must be, -1 where there is none.
        too_near_m: `[T]` how near.
        held_to_road: `[T]` whether no more of the footprint is off the road than in the recorded drive.
    """

    distance_m: Float64[np.ndarray, " T"]
    nearest: Int32[np.ndarray, " T"]
    on_road: Bool[np.ndarray, " T"] | None
    clear: Bool[np.ndarray, " T"]
    too_near: Int32[np.ndarray, " T"]
    too_near_m: Float64[np.ndarray, " T"]
    held_to_road: Bool[np.ndarray, " T"]

    @property
    def safe(self) -> np.ndarray:
        """Return the frames `[T]` in which the ego is clear of all boxes and on the road."""
        return self.clear & self.held_to_road


class Surroundings:
    """The boxes and the road around an ego vehicle, at every frame.

    A box must be as far away as asked for, or as far as the recorded drive was from it in that frame where that is less: who
    was passed closely in truth may be passed as closely. The road is asked for in the same way.

    Args:
        boxes: of every frame.
        drivable: polygons `[n, 2]`; empty where the log has no map.
        recorded: `[T, 4, 4]` world from ego.
        length_m: of the ego's footprint.
        width_m: of the ego's footprint.
        least_m: smallest distance between footprints.
    """

    def __init__(
        self,
        boxes: Sequence[Boxes],
        drivable: list[np.ndarray],
        recorded: np.ndarray,
        length_m: float,
        width_m: float,
        least_m: float,
    ):
        self._size = (length_m, width_m)
        self._drivable = drivable
        most = max((len(each.yaws_rad) for each in boxes), default=0)
        self._corners = np.full((len(boxes), most, 4, 2), np.nan)
        self._ids = np.full((len(boxes), most), -1, np.int32)
        for frame, each in enumerate(boxes):
            ego_z = recorded[frame, 2, 3]
            level = (each.bottoms[:, 2] < ego_z + _CAR_HEIGHT_M) & (each.bottoms[:, 2] + each.sizes[:, 2] > ego_z - _CAR_HEIGHT_M)
            count = int(level.sum())
            corners = rectangle(each.bottoms[:, :2], each.yaws_rad, each.sizes[:, 0], each.sizes[:, 1])
            self._corners[frame, :count] = corners[level]
            self._ids[frame, :count] = each.track_ids[level]
        frames = np.arange(len(boxes))
        own = self._footprints(recorded)
        self._least = np.minimum(least_m, np.nan_to_num(self._distances(own, frames), nan=np.inf))
        self._off_road = self._outside(own)

    def _footprints(self, poses: np.ndarray) -> np.ndarray:
        yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
        return rectangle(poses[:, :2, 3], yaw, *self._size)

    def _distances(self, own: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return `[n, N]`, NaN where a frame has fewer boxes."""
        with np.errstate(invalid="ignore"):
            apart = distance(own[:, None], self._corners[frames])
        return np.where(self._ids[frames] >= 0, apart, np.nan)

    def _outside(self, own: np.ndarray) -> np.ndarray:
        """Return how many points of each footprint `[n]` are off the road."""
        if not self._drivable:
            return np.zeros(len(own), int)
        return (~covered(outline_and_inside(own), self._drivable)).sum(axis=1)

    def look(self, poses: np.ndarray, frames: np.ndarray) -> Clearance:
        """Measure ego poses `[n, 4, 4]` at these frames `[n]`."""
        own = self._footprints(poses)
        apart = np.nan_to_num(self._distances(own, frames), nan=np.inf)
        bad = np.where(apart < self._least[frames] - _ROUNDING_M, apart, np.inf)
        outside = self._outside(own)

        def nearest(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if not distances.shape[1]:
                return np.full(len(frames), np.inf), np.full(len(frames), -1, np.int32)
            at = distances.argmin(axis=1)
            least = distances[np.arange(len(frames)), at]
            return least, np.where(np.isfinite(least), self._ids[frames, at], -1).astype(np.int32)

        (least, who), (near, too_near) = nearest(apart), nearest(bad)
        on_road = outside == 0 if self._drivable else None
        return Clearance(least, who, on_road, too_near < 0, too_near, near, outside <= self._off_road[frames])


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found.

    Attributes:
        offsets_m: `[T]` from 0 on, never falling.
        held: `[T]` frames in which a step was asked for and none was safe.
        too_near: `[T]` track that the first refused step came too near to, -1 where it was the road or none was refused.
        too_near_m: `[T]` how near.
    """

    offsets_m: Float64[np.ndarray, " T"]
    held: Bool[np.ndarray, " T"]
    too_near: Int32[np.ndarray, " T"]
    too_near_m: Float64[np.ndarray, " T"]


def search_offsets(
    frames: int,
    wanted_step: Callable[[int, float], float],
    pose_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
    surroundings: Surroundings,
    halvings: int,
) -> Search:
    """Go from frame to frame by steps that are halved until they are safe, and hold where none is.

    A step is safe if the ego can be there, and can stay at that offset until the end: so nobody is met head-on by an ego that
    changed its lane in time for now only. (The published algorithm looks at the present frame alone.)

    Args:
        frames: their number.
        wanted_step: metres to add at a frame to the offset so far.
        pose_at: ego poses `[n, 4, 4]` at frames `[n]` with offsets `[n]`.
        surroundings: what to keep clear of.
        halvings: how often a step is halved before it is given up for this frame.
    """
    offsets, held = np.zeros(frames), np.zeros(frames, bool)
    too_near, too_near_m = np.full(frames, -1, np.int32), np.full(frames, np.inf)
    for frame in range(1, frames):
        step = wanted_step(frame, offsets[frame - 1])
        offsets[frame] = offsets[frame - 1]
        if step <= 0:
            continue
        ahead = np.arange(frame, frames)
        for attempt in range(halvings + 1):
            offset = offsets[frame - 1] + step / 2**attempt
            seen = surroundings.look(pose_at(ahead, np.full(len(ahead), offset)), ahead)
            if seen.safe.all():
                offsets[frame] = offset
                break
            if attempt == 0:
                first = int(np.flatnonzero(~seen.safe)[0])
                too_near[frame], too_near_m[frame] = seen.too_near[first], seen.too_near_m[first]
        else:
            held[frame] = True
    return Search(offsets, held, too_near, too_near_m)
