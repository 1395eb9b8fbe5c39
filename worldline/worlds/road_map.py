"""The map of a street: its painted lines, kerbs, zebra crossings and where cars may be, as a survey would give them."""

import itertools

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.driving import MAP_ELEMENTS, RoadMap
from worldline.worlds.ground import StreetPlan
from worldline.worlds.scene import Route
from worldline.worlds.terrain import side_plan

STEP_M = 1.0
ZEBRA_M = 3.2  # length of a zebra crossing along the street


def road_map(plan: StreetPlan, centre: Route, origin_m: float) -> RoadMap:
    """Return the map of a street, on the road surface at z = 0, with a point every metre or closer.

    Lane lines run on through the gaps of their dashes and end where the paint does: at junctions and zebra crossings. The
    drivable areas are the whole road between its kerbs, parking bays and the lanes of oncoming traffic included, and the
    street that crosses: who drives there must look out for boxes.

    Args:
        plan: the street in street coordinates.
        centre: its centre line.
        origin_m: arc length on it where s = 0.
    """
    elements = _street(plan, centre, origin_m)
    if plan.cross_street_m is not None:
        across = centre.across(origin_m + plan.cross_street_m, 60.0)
        elements += _street(side_plan(plan), across, float(across.arc_m[-1]) / 2)
    counts = [len(points) for _, points in elements]
    table = make_table(
        MAP_ELEMENTS,
        {
            "element_id": np.arange(len(elements)),
            "kind": pa.array([kind for kind, _ in elements]),
            "first_point": np.cumsum([0, *counts[:-1]]),
            "points": counts,
        },
    )
    return RoadMap(table, np.concatenate([points for _, points in elements]))


def _street(plan: StreetPlan, route: Route, origin_m: float) -> list[tuple[str, np.ndarray]]:
    """Return (kind, points) of every element of one street."""

    def along(s: np.ndarray, d: np.ndarray | float) -> np.ndarray:
        xy, heading = route.at(origin_m + s)
        left = np.stack([-np.sin(heading), np.cos(heading)], axis=1)
        return np.column_stack([xy + np.broadcast_to(d, s.shape)[:, None] * left, np.zeros(len(s))])

    def closed(corners: list[tuple[float, float]]) -> np.ndarray:
        """Go around corners (s, d) and back to the first."""
        path = np.concatenate([_line(np.array(a), np.array(b)) for a, b in itertools.pairwise([*corners, corners[0]])])
        return along(path[:, 0], path[:, 1])

    span = plan.start_m, plan.end_m
    elements: list[tuple[str, np.ndarray]] = []
    for start, end in _without(span, plan.closed_to_lines()):
        elements += [("lane_line", along(_steps(start, end), line.d_m)) for line in plan.lines]
    crossing, half = plan.cross_street_m, plan.road_half_m
    junction = [] if crossing is None else [(crossing - plan.cross_half_m, crossing + plan.cross_half_m)]
    for start, end in _without(span, junction):
        elements += [("road_edge", along(_steps(start, end), side * half)) for side in (1, -1)]
    reach = half - 0.5
    for start in plan.crosswalk_m:
        corners = [(start, -reach), (start + ZEBRA_M, -reach), (start + ZEBRA_M, reach), (start, reach)]
        elements.append(("crosswalk", closed(corners)))
    elements.append(("drivable", closed([(span[0], -half), (span[1], -half), (span[1], half), (span[0], half)])))
    return elements


def _steps(start: float, end: float) -> np.ndarray:
    return np.linspace(start, end, max(2, int(np.ceil((end - start) / STEP_M)) + 1))


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return points `[n, 2]` from start to end."""
    count = max(2, int(np.ceil(np.linalg.norm(end - start) / STEP_M)) + 1)
    return start + np.linspace(0, 1, count)[:, None] * (end - start)


def _without(span: tuple[float, float], gaps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return what is left of a span without the gaps."""
    left, start = [], span[0]
    for begin, end in sorted(gaps):
        if begin > start:
            left.append((start, begin))
        start = max(start, end)
    return [*left, (start, span[1])] if start < span[1] else left
