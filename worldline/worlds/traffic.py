"""Who is on a street: parked and driving cars, buses and walkers."""

import dataclasses
from collections.abc import Callable

import numpy as np

from worldline.worlds import terrain
from worldline.worlds.ground import KERB_M, StreetPlan
from worldline.worlds.layouts import END_M, LANE_M, START_M, Layout
from worldline.worlds.people import make_pedestrian
from worldline.worlds.scene import Actor, Motion, Route
from worldline.worlds.vehicles import SHAPES, make_bus, make_car


def arc_at(route: Route, centre: Route, origin_m: float, s: float) -> float:
    """Return the arc length on a route beside the centre line where it passes s."""
    along = terrain.street_coordinates(centre, route.xy)[:, 0] - origin_m
    return float(route.arc_m[np.argmin(np.abs(along - s))])


def scripted_traffic(rng: np.random.Generator, kind: Layout, centre: Route, origin_m: float) -> list[Actor]:
    """Parked cars along both kerbs, then moving cars and walkers; track ids count from 1."""
    actors: list[Actor] = []

    def drive(d: float, s: float, knots: tuple[tuple[float, float], ...], backwards: bool = False, z: float = 0.0) -> Motion:
        route = centre.offset(d)
        start = arc_at(route, centre, origin_m, s)
        if backwards:
            route, start = route.reversed(), float(route.arc_m[-1]) - start
        times, speeds = np.array(knots, float).T
        return Motion(route, start, times, speeds, z)

    def clear(s: float) -> bool:
        crossing = kind.cross_street_m
        return all(abs(s - c - 1.6) > 6.5 for c in kind.crosswalk_m) and (crossing is None or abs(s - crossing) > 10.5)

    for side in (1, -1):
        s = START_M + rng.uniform(0, 6)
        while s < END_M - 30:
            if clear(s) and rng.random() < 0.62:
                motion = drive(side * (4.35 + rng.uniform(-0.1, 0.1)), s, ((0.0, 0.0),), backwards=side > 0)
                actors.append(make_car(rng, len(actors) + 1, motion))
            s += rng.uniform(5.6, 8.0)

    def add_car(motion: Motion, colour: str, shape: str) -> None:
        actors.append(make_car(rng, len(actors) + 1, motion, shape=shape, colour=colour))

    def add_walker(motion: Motion, colour: str) -> None:
        actors.append(make_pedestrian(rng, len(actors) + 1, motion, colour=colour))

    if kind.buses:
        _add_buses(rng, kind, drive, centre, origin_m, actors)
        return actors
    add_car(drive(LANE_M, 46.0, ((0, 8.5), (3, 7.8), (6, 8.6)), True), "red", "hatchback")
    add_car(drive(LANE_M, 92.0, ((0, 7.4), (4, 8.0)), True), "blue", "sedan")
    add_walker(drive(-7.4, 17.0, ((0, 1.35),), False, KERB_M), "orange")
    add_walker(drive(7.2, 38.0, ((0, 1.25),), True, KERB_M), "blue")
    if kind.cross_street_m is not None:
        _crossing_traffic(rng, kind.cross_street_m, centre, origin_m, actors)
    else:
        add_car(drive(-LANE_M, 21.0, ((0, 9.2), (2.5, 9.8), (6, 10.6))), "white", "sedan")
    if kind.crosswalk_m:  # waits at the kerb until the lead car has passed, then crosses
        across = centre.across(origin_m + kind.crosswalk_m[0] + 1.6, 60.0)
        times, speeds = np.array(((0.0, 0.0), (3.2, 0.0), (3.8, 1.5), (9.0, 1.5))).T
        add_walker(Motion(across, 60.0 - 5.0, times, speeds), "yellow")
    return actors


def _add_buses(
    rng: np.random.Generator, kind: Layout, drive: Callable[..., Motion], centre: Route, origin_m: float, actors: list[Actor]
) -> None:
    """Add the buses that fill about a third of the view in the mean, so close that they hide much of the street."""

    def add(motion: Motion) -> None:
        actors.append(make_bus(rng, len(actors) + 1, motion))

    ego = np.array(kind.ego_mps)
    if kind.buses == "ahead":
        faster = ego[:, 1] + np.array([0.2, 0.5, -0.4, -0.2]) * rng.uniform(0.7, 1.3)
        add(drive(-LANE_M, rng.uniform(9.6, 10.0), tuple(zip(ego[:, 0], faster, strict=True))))
    elif kind.buses == "beside":
        faster = ego[:, 1] + np.array([0.9, 1.5, 0.5]) * rng.uniform(0.7, 1.3)
        add(drive(LANE_M - 0.3, rng.uniform(1.0, 3.0), tuple(zip(ego[:, 0], faster, strict=True))))
    else:
        assert kind.cross_street_m is not None
        across = centre.across(origin_m + kind.cross_street_m - LANE_M, 60.0)
        middle, speed = float(across.arc_m[-1]) / 2, rng.uniform(3.6, 4.6)
        for place in range(2):
            start = middle - rng.uniform(5.0, 8.0) - place * (11.6 + rng.uniform(2.5, 4.0))
            add(Motion(across, start, np.array([0.0, 3.0]), np.array([speed, 1.1 * speed])))


def _crossing_traffic(rng: np.random.Generator, s: float, centre: Route, origin_m: float, actors: list[Actor]) -> None:
    """Two cars that pass the junction on the other street, one from each side."""
    across = centre.across(origin_m + s + LANE_M, 60.0)
    middle = float(across.arc_m[-1]) / 2
    for route, start, speeds, colour in (
        (across, middle - 26, ((0, 8.0), (4, 7.2), (7, 8.5)), "silver"),
        (centre.across(origin_m + s - LANE_M, 60.0).reversed(), middle - 50, ((0, 8.4), (5, 8.8)), "green"),
    ):
        times, values = np.array(speeds, float).T
        actors.append(make_car(rng, len(actors) + 1, Motion(route, start, times, values), colour=colour))


_CHECKED_S = np.arange(0.0, 8.01, 0.25)
_APART_M = 0.5
_LEAST_AHEAD_M = 12.0  # from the camera to the middle of a car in its lane


def busy_traffic(
    rng: np.random.Generator, kind: Layout, plan: StreetPlan, centre: Route, origin_m: float, detail: float, ego: Motion
) -> list[Actor]:
    """Draw traffic for a street with several lanes; nobody comes within 0.5 m of anybody in the first 8 s.

    Most often the lane to the left of the camera's is free beside it, with cars further ahead and behind.

    Returns:
        Actors whose track ids count from 1.
    """
    actors: list[Actor] = []
    own, left = kind.ego_d_m, kind.ego_d_m + 2 * LANE_M
    routes: dict[float, Route] = {}
    reverse: dict[float, Route] = {}
    taken = [_discs(ego, 12.0, 1.8, 2.5)]  # the camera's car, which is 3.5 m behind the camera and 1 m ahead, and room to brake

    def along(d: float, s: float, speed: float, backwards: bool = False, z: float = 0.0) -> Motion:
        route = routes[d] if d in routes else routes.setdefault(d, centre.offset(d))
        start = float(np.interp(origin_m + s, centre.arc_m, route.arc_m))
        if backwards:
            start = float(route.arc_m[-1]) - start
            route = reverse[d] if d in reverse else reverse.setdefault(d, route.reversed())
        if speed == 0:
            return Motion(route, start, np.array([0.0]), np.array([0.0]), z)
        return Motion(route, start, np.array([0.0, 3.0, 6.0]), speed * rng.uniform(0.94, 1.06, 3), z)

    def add(motion: Motion, what: str = "car") -> bool:
        length, width = {"car": (4.9, 1.92), "bus": (11.6, 2.5), "person": (0.6, 0.6)}[what]
        discs = _discs(motion, length, width)
        if any(_meet(discs, other) for other in taken):
            return False
        taken.append(discs)
        number = len(actors) + 1
        if what == "car":
            shape = str(rng.choice(list(SHAPES)))
            actors.append(make_car(rng, number, motion, shape=shape, detail=float(np.clip(1.5 * detail, 0.3, 1.0))))
        elif what == "bus":
            actors.append(make_bus(rng, number, motion))
        else:
            actors.append(make_pedestrian(rng, number, motion))
        return True

    speed = float(ego.knot_mps.mean())
    ahead = rng.uniform(14, 24)
    for _ in range(int(rng.integers(1, 4))):
        leader = along(own, ahead, speed * rng.uniform(0.92, 1.12))
        nearest = min(ahead + leader.distance(time) - ego.distance(time) for time in _CHECKED_S.tolist())
        ahead += max(0.0, _LEAST_AHEAD_M - nearest)
        add(dataclasses.replace(leader, start_m=leader.start_m + max(0.0, _LEAST_AHEAD_M - nearest)))
        ahead += rng.uniform(12, 26)
    if rng.random() < 0.25:  # somebody beside the camera
        add(along(left, rng.uniform(-4, 9), speed * rng.uniform(0.95, 1.08)))
    else:
        add(along(left, rng.uniform(-13.5, -11), speed * rng.uniform(0.8, 0.98)))
    ahead = rng.uniform(15, 34)
    for _ in range(int(rng.integers(1, 4))):
        add(along(left, ahead, speed * rng.uniform(0.98, 1.25)))
        ahead += rng.uniform(12, 28)
    if plan.cross_street_m is not None:
        _cross_traffic(rng, plan, centre.across(origin_m + plan.cross_street_m, 60.0), add)
    for d in (LANE_M, 3 * LANE_M):
        s, lane_speed = rng.uniform(12, 40), rng.uniform(5.5, 10)
        while s < END_M - 8:
            add(along(d, s, lane_speed * rng.uniform(0.97, 1.03), True), "bus" if rng.random() < 0.05 else "car")
            s += rng.uniform(15, 42)
    for side, share in zip((1, -1), kind.parked or (0.0, 0.0), strict=True):
        s = START_M + rng.uniform(0, 6)
        while s < END_M - 30:
            if rng.random() < share and _open(plan, s):
                add(along(side * (plan.road_half_m - 1.05 + rng.uniform(-0.1, 0.1)), s, 0.0, side > 0))
            s += rng.uniform(5.6, 8.0)
    for _ in range(int(rng.integers(3, 8))):
        side = rng.choice([-1, 1])
        d = side * (plan.road_half_m + rng.uniform(1.5, 2.9))
        add(along(d, rng.uniform(6, 70), rng.uniform(0.9, 1.6), rng.random() < 0.5, KERB_M), "person")
    for start in plan.crosswalk_m:
        across = centre.across(origin_m + start + rng.uniform(0.6, 2.6), 60.0)
        across = across.reversed() if rng.random() < 0.5 else across
        kerb = float(across.arc_m[-1]) / 2 - plan.road_half_m
        for begin in (kerb + rng.uniform(0.5, plan.road_half_m), kerb - 0.8):  # on its way, or about to go
            if add(Motion(across, begin, np.array([0.0]), np.array([rng.uniform(1.1, 1.6)])), "person"):
                break
        else:
            add(Motion(across, kerb - 0.7, np.array([0.0]), np.array([0.0]), KERB_M), "person")
    return actors


def _cross_traffic(rng: np.random.Generator, plan: StreetPlan, across: Route, add: Callable[[Motion, str], bool]) -> None:
    """Cars on the crossing street: they pass where nobody is in their way, else they wait before the junction."""
    middle = float(across.arc_m[-1]) / 2
    for backwards in (False, True):
        # each keeps to the right of its own direction
        lane = across.offset(-LANE_M)
        if backwards:
            lane = across.reversed().offset(-LANE_M)
        for _ in range(6):
            speed = rng.uniform(5, 9)
            start = middle - rng.uniform(14, 50)
            if add(Motion(lane, start, np.array([0.0, 3.0]), speed * rng.uniform(0.9, 1.1, 2)), "car"):
                break
        else:
            for place in range(int(rng.integers(1, 3))):
                start = middle - plan.pavement_half_m - 2.9 - 6.6 * place
                add(Motion(lane, start, np.array([0.0]), np.array([0.0])), "car")


def _open(plan: StreetPlan, s: float) -> bool:
    """Return whether a car may park at s."""
    crossing = plan.cross_street_m
    return all(abs(s - c - 1.6) > 6.5 for c in plan.crosswalk_m) and (crossing is None or abs(s - crossing) > 10.5)


def _discs(motion: Motion, length: float, width: float, shift_m: float = 0.0) -> tuple[np.ndarray, float]:
    """Return centres `[T, K, 2]` and radius of discs that cover a footprint at the times that are checked."""
    travelled = np.array([motion.distance(float(time)) for time in _CHECKED_S])
    xy, heading = motion.route.at(motion.start_m + travelled)
    count = int(np.ceil(2 * length / width))
    step = length / count
    along = shift_m + (np.arange(count) - (count - 1) / 2) * step
    forward = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    return xy[:, None] + along[None, :, None] * forward[:, None], float(np.hypot(step, width) / 2)


def _meet(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> bool:
    """Return whether two footprints come closer than `_APART_M` at any time that is checked."""
    reach = one[1] + other[1] + _APART_M
    gap = one[0][:, :, None] - other[0][:, None]
    return bool((np.einsum("tijk,tijk->tij", gap, gap) < reach * reach).any())
