"""Long videos: windows of frames that are solved one by one and joined over what they share.

Every window comes out in a frame and unit of its own. Two that overlap see the same frames, and points on the same
features of them: from these follows the similarity between the two, robustly, since a far point is poorly placed in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worldline.cameras import Similarity, interpolate_poses, mean_rotation, rotation_angle, umeyama

_FEATURES = 1 << 32  # more than an image has: makes one number of frame and feature
_FEWEST_POINTS, _FEWEST_FRAMES = 20, 2
_MAX_CAMERA_ERROR_RAD, _MAX_POINT_ERROR = 0.03, 0.15
_SAME_POINT = 0.2


@dataclass(frozen=True)
class Piece:
    """A solved window.

    Attributes:
        frames: indices of the frames that were placed, increasing.
        world_from_camera: their poses `[F, 4, 4]`.
        xyz: points `[P, 3]`.
        observation_frame, observation_feature, observation_point: `[O]`: the feature of the frame that sees the point.
    """

    frames: Int[np.ndarray, " F"]
    world_from_camera: Float64[np.ndarray, "F 4 4"]
    xyz: Float64[np.ndarray, "P 3"]
    observation_frame: Int[np.ndarray, " O"]
    observation_feature: Int[np.ndarray, " O"]
    observation_point: Int[np.ndarray, " O"]


@dataclass(frozen=True)
class Joint:
    """How a window lies to another one that shares frames with it, and how well the two agree on what they share.

    Attributes:
        first_from_second: where the second lies in the first.
        camera_error_rad: by how much the two see the scene from a shared camera apart, in 9 of 10 shared cameras at most: the
            angle between its two axes, and its two centres' distance over that of the points.
        point_error: distance between the two places of a shared point over that from the camera, the median.
    """

    first_from_second: Similarity
    camera_error_rad: float
    point_error: float

    @property
    def holds(self) -> bool:
        """Whether the two can both be right."""
        return self.camera_error_rad <= _MAX_CAMERA_ERROR_RAD and self.point_error <= _MAX_POINT_ERROR


def plan_windows(count: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return ranges `(start, stop)` of at most `window` frames that cover `count` frames, neighbours sharing `overlap` or more.

    All windows have nearly one length: a short last one would hang on little.

    Raises:
        ValueError: if the overlap leaves a window nothing of its own.
    """
    if not 0 < overlap < window:
        raise ValueError(f"windows of {window} frames cannot overlap by {overlap}: the overlap must lie between 0 and the window")
    if count <= window:
        return [(0, count)]
    number = int(np.ceil((count - overlap) / (window - overlap)))
    starts = np.linspace(0, count - window, number).round().astype(int)
    return [(int(start), int(start) + window) for start in starts]


def shared_points(first: Piece, second: Piece) -> np.ndarray:
    """Return pairs `[N, 3]` (point of first, point of second, frame) that lie on the same feature of a frame."""
    keys = [
        piece.observation_frame.astype(np.int64) * _FEATURES + piece.observation_feature.astype(np.int64)
        for piece in (first, second)
    ]
    common, in_first, in_second = np.intersect1d(keys[0], keys[1], return_indices=True)
    return np.stack([first.observation_point[in_first], second.observation_point[in_second], common // _FEATURES], axis=1)


def joint_between(first: Piece, second: Piece) -> Joint | None:
    """Return how `second` lies to `first` by what both have solved, or None where they share too little.

    The rotation begins as the mean over shared cameras (centres on a straight path say nothing about the roll around it), the
    scale as the median ratio of distances from a camera to a point; then both are refined on points and camera centres by
    reweighted least squares, with errors counted relative to the distance that the point is seen from (Cauchy weights).
    """
    frames, at_first, at_second = np.intersect1d(first.frames, second.frames, return_indices=True)
    pairs = shared_points(first, second)
    pairs = pairs[np.isin(pairs[:, 2], frames)]
    if len(frames) < _FEWEST_FRAMES or len(pairs) < _FEWEST_POINTS:
        return None
    a_poses, b_poses = first.world_from_camera[at_first], second.world_from_camera[at_second]
    rotation = mean_rotation(a_poses[:, :3, :3] @ np.swapaxes(b_poses[:, :3, :3], 1, 2))
    at = np.searchsorted(frames, pairs[:, 2])
    a, b = first.xyz[pairs[:, 0]], second.xyz[pairs[:, 1]]
    a_distance = np.linalg.norm(a - a_poses[at, :3, 3], axis=1)
    b_distance = np.linalg.norm(b - b_poses[at, :3, 3], axis=1)
    scale = float(np.median(a_distance / np.maximum(b_distance, 1e-12)))
    translation = np.median(a_poses[:, :3, 3] - scale * b_poses[:, :3, 3] @ rotation.T, axis=0)
    found = Similarity(scale, rotation, translation)
    source = np.concatenate([b, b_poses[:, :3, 3]])
    target = np.concatenate([a, a_poses[:, :3, 3]])
    # a camera's centre is placed as well as the points that it sees, each of which is placed worse
    distance = np.concatenate([a_distance, np.full(len(frames), np.median(a_distance) / np.sqrt(len(pairs) / len(frames)))])
    for _ in range(20):
        residual = np.linalg.norm(target - found.points(source), axis=1) / distance
        spread = max(float(np.median(residual)), 1e-9)
        found = umeyama(source, target, weights=1 / (distance**2 * (1 + (residual / spread) ** 2)))
    moved = found.poses(b_poses)
    turned = rotation_angle(np.swapaxes(a_poses[:, :3, :3], 1, 2) @ moved[:, :3, :3])
    shifted = np.linalg.norm(moved[:, :3, 3] - a_poses[:, :3, 3], axis=1) / np.median(a_distance)
    return Joint(
        found,
        camera_error_rad=float(np.percentile(turned + shifted, 90)),
        point_error=float(np.median(np.linalg.norm(a - found.points(b), axis=1) / a_distance)),
    )


@dataclass(frozen=True)
class Joined:
    """Windows in one frame.

    Attributes:
        frames: indices of the frames that were placed, increasing.
        world_from_camera: their poses `[F, 4, 4]`, in the frame of the first window that is kept.
        members: which windows those are.
        world_from_piece: where each of them lies.
    """

    frames: Int[np.ndarray, " F"]
    world_from_camera: Float64[np.ndarray, "F 4 4"]
    members: list[int]
    world_from_piece: list[Similarity]


def join_poses(pieces: Sequence[Piece]) -> Joined:
    """Join pieces in order into one path; on shared frames the poses pass gradually from one piece to the next.

    Where two neighbours share too little, or contradict each other, the chain breaks, and the longest part of it is kept.
    """
    chains: list[tuple[dict[int, np.ndarray], list[int]]] = []
    maps: list[Similarity] = []
    for index, piece in enumerate(pieces):
        joint = joint_between(pieces[index - 1], piece) if index else None
        if joint is None or not joint.holds:
            maps.append(Similarity(1.0, np.eye(3), np.zeros(3)))
            chains.append((dict(zip(piece.frames.tolist(), piece.world_from_camera, strict=True)), [index]))
            continue
        before, link = maps[-1], joint.first_from_second
        turned = before.rotation @ link.rotation
        maps.append(Similarity(before.scale * link.scale, turned, before.points(link.translation)))
        path, members = chains[-1]
        poses = maps[-1].poses(piece.world_from_camera)
        shared = [position for position, frame in enumerate(piece.frames.tolist()) if frame in path]
        for rank, position in enumerate(shared):
            frame, share = int(piece.frames[position]), (rank + 1) / (len(shared) + 1)
            both = np.stack([path[frame], poses[position]])
            poses[position] = interpolate_poses(np.array([0.0, 1.0]), both, np.array([share]))[0]
        path.update(zip(piece.frames.tolist(), poses, strict=True))
        members.append(index)
    path, members = max(chains, key=lambda chain: len(chain[0]))
    frames = np.array(sorted(path), np.int32)
    poses = np.stack([path[int(frame)] for frame in frames])
    return Joined(frames, poses, members, [maps[index] for index in members])


def join_points(
    pieces: Sequence[Piece], joined: Joined, matches: Int[np.ndarray, "M 4"]
) -> tuple[Float64[np.ndarray, "P 3"], Int[np.ndarray, " O"], Int[np.ndarray, " O"], Int[np.ndarray, " O"]]:
    """Make one point of those that windows have of the same thing: on one feature, or on two that match across windows.

    Two that lie further apart than `_SAME_POINT` of their distance from the camera are not made one: a match may be wrong.

    Args:
        pieces: all windows.
        joined: how they lie.
        matches: rows of (frame, feature, frame, feature).

    Returns:
        Points `[P, 3]` in the common frame, and their observations: frame, feature of the frame, point. A feature sees one point
        at most, and a point has one feature at most in a frame.
    """
    chosen = [pieces[index] for index in joined.members]
    offsets = np.concatenate([[0], np.cumsum([len(piece.xyz) for piece in chosen])])
    xyz = np.concatenate([to.points(piece.xyz) for to, piece in zip(joined.world_from_piece, chosen, strict=True)])
    frame = np.concatenate([piece.observation_frame for piece in chosen]).astype(np.int64)
    feature = np.concatenate([piece.observation_feature for piece in chosen]).astype(np.int64)
    point = np.concatenate([piece.observation_point + offset for piece, offset in zip(chosen, offsets, strict=False)])
    key = frame * _FEATURES + feature
    order = np.argsort(key, kind="stable")
    key, frame, feature, point = key[order], frame[order], feature[order], point[order]
    twice = np.flatnonzero(key[1:] == key[:-1])
    ends = [key[twice], point[twice], point[twice + 1]]
    matched = np.asarray(matches, np.int64).reshape(-1, 4)
    a, b = (matched[:, column] * _FEATURES + matched[:, column + 1] for column in (0, 2))
    at_a, at_b = (np.minimum(np.searchsorted(key, side), len(key) - 1) for side in (a, b))
    known = (key[at_a] == a) & (key[at_b] == b)
    ends = [np.concatenate(pair) for pair in zip(ends, [a[known], point[at_a[known]], point[at_b[known]]], strict=True)]
    centre = joined.world_from_camera[np.searchsorted(joined.frames, ends[0] // _FEATURES), :3, 3]
    distance = np.linalg.norm(xyz[ends[1]] - centre, axis=1)
    near = np.linalg.norm(xyz[ends[1]] - xyz[ends[2]], axis=1) < _SAME_POINT * distance
    edges = coo_matrix((np.ones(near.sum()), (ends[1][near], ends[2][near])), shape=(len(xyz), len(xyz)))
    count, of_point = connected_components(edges, directed=False)
    weight = np.bincount(point, minlength=len(xyz))
    total = np.maximum(np.bincount(of_point, weights=weight, minlength=count), 1)
    merged = np.stack([np.bincount(of_point, weights=weight * axis, minlength=count) for axis in xyz.T], axis=1) / total[:, None]
    # where a feature has two points that are not one, the one that is seen more often keeps it
    rank = np.lexsort((-weight[point], key))
    rank = rank[np.unique(key[rank], return_index=True)[1]]
    frame, feature, point = frame[rank], feature[rank], of_point[point[rank]].astype(np.int64)
    single = np.sort(np.unique(point * _FEATURES + frame, return_index=True)[1])
    return merged, frame[single], feature[single], point[single]


def thin_points(frame: Int[np.ndarray, " O"], point: Int[np.ndarray, " O"], per_frame: int) -> np.ndarray:
    """Return which observations stay when points are left out that no frame needs to see `per_frame`; the longest tracks stay.

    Points that are seen from one frame alone go.
    """
    order = np.argsort(point, kind="stable")
    bounds = np.concatenate([np.flatnonzero(np.diff(point[order], prepend=-1)), [len(order)]])
    seen, stays = np.zeros(int(frame.max(initial=0)) + 1, np.int64), np.zeros(len(frame), bool)
    lengths = np.diff(bounds)
    for track in np.argsort(-lengths, kind="stable"):
        if lengths[track] < 2:
            break
        rows = order[bounds[track] : bounds[track + 1]]
        if (seen[frame[rows]] < per_frame).any():
            seen[frame[rows]] += 1
            stays[rows] = True
    return stays
