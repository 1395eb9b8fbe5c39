"""Moving point tracks grouped into objects: pieces in each frame, joined over time by the tracks that they share.

In a frame, two points belong to one piece if they are close and their velocities differ by no more than a rigid body
allows, with two common neighbours as witnesses; a piece is cut where its lower outline jumps, because objects that
stand on the same road at different ranges touch it in different rows (traffic that moves in parallel is not separable
by motion alone). Over time the pieces are clustered by greedy additive edge contraction (Keuper et al., "Efficient
decomposition of image and mesh graphs by lifted multicuts", ICCV 2015) with the signed number of tracks that two
pieces share or do not; each track then takes the object of most of its pieces.
"""

import heapq
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class GroupingConfig:
    """How moving points become objects.

    Attributes:
        link_share: points closer than this share of the image width can belong together.
        velocity_px: their velocities may differ by this many pixels per frame,
        expansion: plus this share of their distance per frame,
        relative: plus this share of their mean velocity.
        witnesses: common neighbours that a link needs.
        contact_jump: natural logarithm of the ratio of ranges at which the lower outline is cut.
        min_points: smaller pieces are noise.
        compare_frames: pieces are compared over gaps of up to so many frames.
        same_object_share: shared tracks, as a share of all that could be, above which two pieces attract each other.
    """

    link_share: float = 0.018
    velocity_px: float = 0.25
    expansion: float = 0.03
    relative: float = 0.06
    witnesses: int = 2
    contact_jump: float = 0.25
    min_points: int = 6
    compare_frames: int = 10
    same_object_share: float = 0.4


def piece_of_points(
    xy_px: Float32[np.ndarray, "N 2"],
    velocity_px: Float32[np.ndarray, "N 2"],
    below_horizon_px: Float64[np.ndarray, " N"] | None,
    width: int,
    config: GroupingConfig,
) -> Int64[np.ndarray, " N"]:
    """Return a piece index per moving point of one frame, -1 for points in pieces below `min_points`.

    Args:
        xy_px: positions.
        velocity_px: pixels per frame.
        below_horizon_px: distance under the horizon of the ground, or None where there is no ground.
        width: of the image.
        config: distances.
    """
    if len(xy_px) < config.min_points:
        return np.full(len(xy_px), -1, np.int64)
    pairs = cKDTree(xy_px).query_pairs(config.link_share * width, output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    distance = np.linalg.norm(xy_px[first] - xy_px[second], axis=1)
    speed = np.linalg.norm(velocity_px[first] + velocity_px[second], axis=1) / 2
    difference = np.linalg.norm(velocity_px[first] - velocity_px[second], axis=1)
    pairs = pairs[difference < config.velocity_px + config.expansion * distance + config.relative * speed]
    piece = _witnessed_components(pairs, len(xy_px), config.witnesses)
    if below_horizon_px is not None:
        for index in np.unique(piece):
            members = np.flatnonzero(piece == index)
            if len(members) >= 2 * config.min_points:
                part = cut_at_contact_jumps(xy_px[members, 0], below_horizon_px[members], config)
                piece[members] = np.where(part == 0, index, len(xy_px) * (1 + index) + part)
    _, piece = np.unique(piece, return_inverse=True)
    return np.where(np.bincount(piece)[piece] >= config.min_points, piece, -1).astype(np.int64)


def _witnessed_components(pairs: np.ndarray, count: int, witnesses: int) -> np.ndarray:
    """Connect points over links whose ends have at least `witnesses` linked neighbours in common."""
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
    links = links + links.T
    common = (links @ links).multiply(links).tocoo()
    kept = common.data >= witnesses
    graph = coo_matrix((common.data[kept], (common.row[kept], common.col[kept])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def cut_at_contact_jumps(x_px: np.ndarray, below_horizon_px: np.ndarray, config: GroupingConfig) -> np.ndarray:
    """Cut a piece between columns where the range of its ground contact jumps; return a part index per point.

    The contact range is inversely proportional to the rows under the horizon. Each side of a candidate cut is
    summarised by its second lowest column over about 0.35 camera heights, so that the gap between two wheels is no jump.
    """
    column_px = 4.0
    column = ((x_px - x_px.min()) // column_px).astype(int)
    lowest = np.full(column.max() + 1, -np.inf)
    np.maximum.at(lowest, column, np.maximum(below_horizon_px, 4.0))
    candidates = []
    for cut in range(2, len(lowest) - 1):
        side = 4
        for _ in range(2):
            left, right = lowest[max(0, cut - side) : cut], lowest[cut : cut + side]
            left, right = left[np.isfinite(left)], right[np.isfinite(right)]
            if len(left) < 2 or len(right) < 2:
                break
            contact_left, contact_right = np.sort(left)[-2], np.sort(right)[-2]
            side = max(4, int(0.35 * min(contact_left, contact_right) / column_px))
        else:
            jump = abs(np.log(contact_left / contact_right))
            if jump > config.contact_jump:
                candidates.append((-jump, cut, side))
    part = np.zeros(len(x_px), np.int64)
    cuts: list[int] = []
    for _, cut, side in sorted(candidates):
        if all(abs(cut - other) >= side for other in cuts):
            cuts.append(cut)
            part += column >= cut
    return part


def objects_from_pieces(pieces: Int64[np.ndarray, "N T"], config: GroupingConfig) -> Int64[np.ndarray, " N"]:
    """Join pieces over time and return the object of each track, 0 for none.

    Args:
        pieces: piece index of each track in each frame, -1 where it is in none.
        config: how far and how strictly pieces are compared.
    """
    node = _number_nodes(pieces)
    if not (node >= 0).any():
        return np.zeros(len(pieces), np.int64)
    weights = _signed_weights(node, config)
    object_of_node = contract_greedily(node.max() + 1, weights)
    objects = np.zeros(len(pieces), np.int64)
    for track in range(len(pieces)):
        seen = node[track][node[track] >= 0]
        if len(seen):
            votes = Counter(object_of_node[seen].tolist())
            objects[track] = 1 + min(votes, key=lambda name: (-votes[name], name))
    return objects


def _number_nodes(pieces: np.ndarray) -> np.ndarray:
    """Number the pieces of all frames consecutively; -1 stays."""
    node = np.full(pieces.shape, -1, np.int64)
    count = 0
    for frame in range(pieces.shape[1]):
        used = pieces[:, frame] >= 0
        _, index = np.unique(pieces[used, frame], return_inverse=True)
        node[used, frame] = index + count
        count += index.max() + 1 if used.any() else 0
    return node


def _signed_weights(node: np.ndarray, config: GroupingConfig) -> dict[tuple[int, int], float]:
    """Weight of two pieces in different frames: shared tracks minus the share expected of one object's pieces."""
    weights: dict[tuple[int, int], float] = {}
    frames = node.shape[1]
    for gap in range(1, min(config.compare_frames, frames - 1) + 1):
        for frame in range(frames - gap):
            both = (node[:, frame] >= 0) & (node[:, frame + gap] >= 0)
            if not both.any():
                continue
            first, second = node[both, frame], node[both, frame + gap]
            size_first, size_second = Counter(first.tolist()), Counter(second.tolist())
            for (a, b), shared in sorted(Counter(zip(first.tolist(), second.tolist(), strict=True)).items()):
                union = size_first[a] + size_second[b] - shared
                weights[a, b] = shared - config.same_object_share * union
    return weights


def contract_greedily(count: int, weights: dict[tuple[int, int], float]) -> np.ndarray:
    """Merge the two clusters with the largest positive summed weight until none is left; return cluster indices.

    Greedy additive edge contraction: weights of parallel edges add up, so separations that are seen in many frames
    outvote a merger that is seen in a few.
    """
    neighbours: list[dict[int, float]] = [{} for _ in range(count)]
    for (a, b), weight in weights.items():
        neighbours[a][b] = neighbours[a].get(b, 0.0) + weight
        neighbours[b][a] = neighbours[a][b]
    heap = [(-weight, a, b) for a in range(count) for b, weight in neighbours[a].items() if a < b and weight > 0]
    heapq.heapify(heap)
    parent = np.arange(count)
    while heap:
        weight, a, b = heapq.heappop(heap)
        if parent[a] != a or parent[b] != b or neighbours[a].get(b) != -weight:
            continue
        parent[b] = a
        del neighbours[a][b]
        for other, extra in neighbours[b].items():
            if other == a:
                continue
            total = neighbours[a].get(other, 0.0) + extra
            neighbours[a][other] = total
            neighbours[other][a] = total
            neighbours[other].pop(b, None)
            if total > 0:
                heapq.heappush(heap, (-total, min(a, other), max(a, other)))
        neighbours[b] = {}
    for index in range(count):
        root = index
        while parent[root] != root:
            root = parent[root]
        parent[index] = root
    return np.unique(parent, return_inverse=True)[1]


def smooth_velocities(
    xy_px: Float32[np.ndarray, "N T 2"], visible: Bool[np.ndarray, "N T"], half_frames: int
) -> Float32[np.ndarray, "N T 2"]:
    """Return pixels per frame by a straight-line fit over `half_frames` before and after, where visible."""
    count = np.zeros(visible.shape, np.float32)
    first = np.zeros(visible.shape, np.float32)
    second = np.zeros(visible.shape, np.float32)
    value = np.zeros(xy_px.shape, np.float32)
    product = np.zeros(xy_px.shape, np.float32)
    frames = visible.shape[1]
    for shift in range(-half_frames, half_frames + 1):
        here = slice(max(0, -shift), frames - max(0, shift))
        there = slice(max(0, shift), frames - max(0, -shift))
        seen = visible[:, there].astype(np.float32)
        relative = np.where(visible[:, there, None] & visible[:, here, None], xy_px[:, there] - xy_px[:, here], 0)
        count[:, here] += seen
        first[:, here] += seen * shift
        second[:, here] += seen * shift * shift
        value[:, here] += relative
        product[:, here] += relative * shift
    spread = np.maximum(count * second - first**2, 1e-6)
    velocity = (count[..., None] * product - first[..., None] * value) / spread[..., None]
    return np.where((visible & (count >= 2))[..., None], velocity, 0).astype(np.float32)
