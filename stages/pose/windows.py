"""Long videos: windows of frames that are solved one by one and joined over what they share.

Every window comes out in a frame and unit of its own. Two that overlap see the same frames, and points on the same
features of them: from these follows the similarity between the two, robustly, since a far point is poorly placed in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from worldline.cameras import Similarity, interpolate_poses, mean_rotation, umeyama

_FEATURES = 1 << 32  # more than an image has: makes one number of frame and feature
_FEWEST_POINTS, _FEWEST_FRAMES = 20, 2


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


def similarity_between(first: Piece, second: Piece) -> Similarity | None:
    """Return `first_from_second` over what both have solved, or None where they share too little.

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
    return found


def join_poses(pieces: Sequence[Piece]) -> tuple[Int[np.ndarray, " F"], Float64[np.ndarray, "F 4 4"], list[int]]:
    """Join pieces in order into one path; on shared frames the poses pass gradually from one piece to the next.

    Where two neighbours share too little the chain breaks, and the longest part of it is kept.

    Returns:
        The frames, their poses in the frame of the first piece that is kept, and which pieces those are.
    """
    chains: list[tuple[dict[int, np.ndarray], list[int]]] = []
    maps: list[Similarity] = []
    for index, piece in enumerate(pieces):
        link = similarity_between(pieces[index - 1], piece) if index else None
        if link is None:
            maps.append(Similarity(1.0, np.eye(3), np.zeros(3)))
            chains.append((dict(zip(piece.frames.tolist(), piece.world_from_camera, strict=True)), [index]))
            continue
        before = maps[-1]
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
    return frames, np.stack([path[int(frame)] for frame in frames]), members
