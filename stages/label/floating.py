"""Oncoming objects: legal static depths that float over the road.

A point that approaches along the direction of travel triangulates too close, at Z v_ego / (v_ego + v_object), and is
thereby lifted over the plane. A fixed thing at that depth would stand on the road at row f H / Z under the horizon and
hide the road above that row; where road is seen in between ("under" the object), the thing is not fixed. Only
pieces that reach below the horizon and are wider than a pole are judged: crowns of trees, signs and traffic lights
float rightly.
"""

import numpy as np
from jaxtyping import Bool, Float32
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from stages.label.motion_hypotheses import StaticFit

ROAD_TOLERANCE = 0.1  # relative difference of inverse depth within which a point lies on the road
LIFT = 1.25  # inverse depth over that of the road behind it, from which a point counts as lifted
CLEARANCE = 0.25  # a standing vehicle leaves so much free under it, in heights of the camera
LEAST_WIDTH = 0.2  # in heights of the camera


def floating_points(
    fit: StaticFit,
    xy_px: Float32[np.ndarray, "N 2"],
    candidate: Bool[np.ndarray, " N"],
    width: int,
    significance: float = 6.0,
) -> Bool[np.ndarray, " N"]:
    """Return which points belong to pieces under which the road is seen.

    Args:
        fit: static fits of one frame.
        xy_px: positions in that frame.
        candidate: points that pass the static test in enough frames.
        width: of the image.
        significance: inverse depth over its standard deviation, from which it is believed.
    """
    floating = np.zeros(len(xy_px), bool)
    believed = candidate & (fit.inverse_depth > significance * fit.sigma * 0.5)
    on_ground = fit.ground_inverse_depth
    below = on_ground > 0.02 * max(float(on_ground.max(initial=0.0)), 1e-12)
    road = believed & below & (np.abs(fit.free_inverse_depth - on_ground) < ROAD_TOLERANCE * on_ground)
    lifted = np.flatnonzero(believed & below & (fit.inverse_depth > LIFT * on_ground))
    if len(lifted) < 6 or road.sum() < 6:
        return floating
    radius = 0.018 * width
    piece = _pieces(xy_px[lifted], np.log(fit.inverse_depth[lifted]), radius)
    road_tree = cKDTree(xy_px[road])
    road_depth, road_row = on_ground[road], xy_px[road, 1]
    # rows are compared as ground inverse depths, which are proportional to rows under the horizon
    for index in np.unique(piece):
        members = lifted[piece == index]
        if len(members) >= 6 and _seen_through(fit, xy_px, members, road_tree, road_depth, road_row, radius):
            floating[members] = True
    return floating


def _pieces(xy_px: np.ndarray, log_inverse_depth: np.ndarray, radius: float) -> np.ndarray:
    pairs = cKDTree(xy_px).query_pairs(radius, output_type="ndarray")
    same = np.abs(log_inverse_depth[pairs[:, 0]] - log_inverse_depth[pairs[:, 1]]) < 0.12
    pairs, count = pairs[same], len(xy_px)
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
    links = links + links.T
    common = (links @ links).multiply(links).tocoo()
    kept = common.data >= 2
    graph = coo_matrix((common.data[kept], (common.row[kept], common.col[kept])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _seen_through(
    fit: StaticFit,
    xy_px: np.ndarray,
    members: np.ndarray,
    road_tree: cKDTree,
    road_depth: np.ndarray,
    road_row: np.ndarray,
    radius: float,
) -> bool:
    """Whether road is seen between the lower outline of a piece and where a fixed thing would stand."""
    column = (xy_px[members, 0] // (radius / 2)).astype(int)
    through, columns = 0, np.unique(column)
    inverse_depth = float(np.median(fit.inverse_depth[members]))
    span_px = float(np.ptp(xy_px[members, 0]))
    # in heights of the camera: width = span / (f rho H), and rho_ground grows by rho per f rho H rows
    rows = xy_px[members, 1]
    depths = fit.ground_inverse_depth[members]
    slope = float(np.polyfit(rows, depths, 1)[0]) if np.ptp(rows) > 2 else 0.0
    if slope <= 0 or span_px * slope < LEAST_WIDTH * inverse_depth:
        return False
    for name in columns:
        own = members[column == name]
        lowest = own[np.argmax(xy_px[own, 1])]
        gap_low, gap_high = fit.ground_inverse_depth[lowest], (1 - CLEARANCE) * inverse_depth
        if gap_high < LIFT * 0.9 * gap_low:
            continue
        reach = (gap_high - gap_low) / slope
        near = road_tree.query_ball_point(xy_px[lowest], max(reach, radius))
        x_near = road_tree.data[near, 0]
        inside = (np.abs(x_near - xy_px[lowest, 0]) < radius * 0.7) & (road_row[near] > xy_px[lowest, 1] + 2)
        inside &= road_depth[near] < gap_high
        through += int(inside.sum() >= 1)
    return through >= max(2, 0.5 * len(columns))
