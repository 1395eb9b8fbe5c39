"""Streets: where everything stands and how everything moves, drawn from a random generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldline.worlds import terrain
from worldline.worlds.buildings import make_house
from worldline.worlds.ground import KERB_M, StreetPlan
from worldline.worlds.noise import fractal_noise, tinted, to_bytes
from worldline.worlds.people import make_pedestrian
from worldline.worlds.scene import Actor, Mesh, Motion, Route, Scene, planar_pose
from worldline.worlds.shapes import box, leaf_crown, merged, tube
from worldline.worlds.sky import paint_sky
from worldline.worlds.vehicles import make_bus, make_car

LANE_M = 1.6  # distance of a lane's middle from the centre line


@dataclass(frozen=True)
class Layout:
    """A kind of street.

    Attributes:
        turn_rad_per_m: curvature of the centre line (positive: to the left) over `turn_m`.
        turn_m: where it turns, metres along the street.
        cross_street_m: where another street crosses, or None.
        crosswalk_m: where zebra crossings begin.
        ego_mps: (time, speed) of the camera car.
        buses: how buses fill the view: "" (none), "ahead" (the camera follows one), "beside" (one passes slowly on the
            left) or "across" (they cross right before the camera, on the crossing street).
    """

    turn_rad_per_m: float
    turn_m: tuple[float, float]
    cross_street_m: float | None
    crosswalk_m: tuple[float, ...]
    ego_mps: tuple[tuple[float, float], ...]
    buses: str = ""


LAYOUTS = {
    "straight": Layout(0.0, (0, 0), None, (58.0,), ((0, 8.4), (2.2, 9.0), (4.4, 7.6), (6.6, 4.2), (9, 3.6))),
    "curve": Layout(1 / 70, (12, 92), None, (), ((0, 7.6), (2.5, 8.2), (5, 7.2), (8, 7.8))),
    "junction": Layout(0.0, (0, 0), 56.0, (46.0,), ((0, 8.6), (2.0, 8.0), (5.0, 2.0), (9.0, 1.6))),
    "bus_ahead": Layout(0.0, (0, 0), None, (), ((0, 6.0), (2.0, 7.4), (4.0, 5.6), (6.0, 6.0)), "ahead"),
    "bus_beside": Layout(1 / 120, (12, 92), None, (), ((0, 6.4), (2.0, 6.0), (4.0, 6.6)), "beside"),
    "buses_across": Layout(0.0, (0, 0), 18.5, (), ((0, 3.6), (1.5, 2.6), (3.0, 0.8), (5.0, 1.4)), "across"),
}
START_M, END_M = -14.0, 150.0


def build_street(layout: str, rng: np.random.Generator, *, camera_height_m: float = 1.6, detail: float = 1.0) -> Scene:
    """Describe a street of a layout in `LAYOUTS`; the ego car is at s = 0 at time 0, world x along the street there.

    Args:
        layout: which kind.
        rng: source of everything random.
        camera_height_m: height of the camera over the road.
        detail: texels per metre relative to what a camera of 640 pixels can use.

    Raises:
        KeyError: if there is no such layout.
    """
    kind = LAYOUTS[layout]
    plan = StreetPlan(START_M, END_M, 5.4, 8.8, 44.0, kind.crosswalk_m, kind.cross_street_m, 4.6, 48.0 * detail)
    centre, origin_m = _centre_line(kind)
    angle = rng.uniform(0.55, 0.95) * rng.choice([-1, 1]) + np.pi * rng.choice([0, 1])
    sun = np.array([np.cos(angle) * 0.62, np.sin(angle) * 0.62, 0.785])
    sun /= np.linalg.norm(sun)
    static = _houses(rng, plan, centre, origin_m, detail) + _furniture(rng, plan, centre, origin_m)
    actors = _traffic(rng, kind, centre, origin_m)
    parked = [mesh for actor in actors if not actor.moving(0.0) for mesh in _standing(actor)]
    static += terrain.street_meshes(rng, plan, centre, origin_m, static + parked, sun)
    wander = 0.18 * np.sin(2 * np.pi * (centre.arc_m - origin_m) / 45 + rng.uniform(0, 2 * np.pi))
    ego_route = centre.offset(-LANE_M + wander)
    knots = np.array(kind.ego_mps)
    ego = Motion(ego_route, _arc_at(ego_route, centre, origin_m, 0.0), knots[:, 0], knots[:, 1])
    phases = rng.uniform(0, 2 * np.pi, 3)
    return Scene(layout, tuple(static), tuple(actors), ego, camera_height_m, np.radians(2.0), phases, paint_sky(rng), sun)


def _centre_line(kind: Layout) -> tuple[Route, float]:
    """Return the centre line, longer than what is drawn, and the arc length at which s = 0 (world x = y = 0)."""
    s = np.arange(START_M - 60, END_M + 60, 0.1)
    heading = kind.turn_rad_per_m * np.clip(s - kind.turn_m[0], 0, kind.turn_m[1] - kind.turn_m[0])
    middle = (heading[1:] + heading[:-1]) / 2
    xy = np.concatenate([[(0.0, 0.0)], np.cumsum(0.1 * np.stack([np.cos(middle), np.sin(middle)], 1), axis=0)])
    zero = int(np.argmin(np.abs(s)))
    return Route.through(xy - xy[zero]), float(zero) * 0.1


def _arc_at(route: Route, centre: Route, origin_m: float, s: float) -> float:
    """Return the arc length on a route beside the centre line where it passes s."""
    along = terrain.street_coordinates(centre, route.xy)[:, 0] - origin_m
    return float(route.arc_m[np.argmin(np.abs(along - s))])


def _place(centre: Route, origin_m: float, s: float, d: float, z: float = 0.0, turn_rad: float = 0.0) -> np.ndarray:
    """Return the pose of something at street coordinates (s, d), turned from the street's heading."""
    xy, heading = centre.at(origin_m + s)
    x, y = xy[0] - d * np.sin(heading), xy[1] + d * np.cos(heading)
    return planar_pose(float(x), float(y), z, float(heading) + turn_rad)


def _houses(rng: np.random.Generator, plan: StreetPlan, centre: Route, origin_m: float, detail: float) -> list[Mesh]:
    meshes: list[Mesh] = []
    for side in (1, -1):
        s = plan.start_m + rng.uniform(0, 3)
        while s < plan.end_m - 8:
            width = rng.uniform(8, 14)
            depth = rng.uniform(9, 14)
            if plan.cross_street_m is not None and abs(s + width / 2 - plan.cross_street_m) < plan.cross_half_m + 3.6 + width / 2:
                s = plan.cross_street_m + plan.cross_half_m + 3.7 if s + width > plan.cross_street_m - 8.2 else s
                if s < plan.cross_street_m:
                    s += 0.5
                    continue
            setback = plan.pavement_half_m + (rng.uniform(0.05, 0.5) if rng.random() < 0.75 else rng.uniform(2, 4))
            resolution = detail * (52.0 if s < 90 else 28.0)
            house = make_house(rng, width, depth, resolution)
            if side < 0:
                pose = _place(centre, origin_m, s, -setback, KERB_M)
            else:
                pose = _place(centre, origin_m, s + width, setback, KERB_M, np.pi)
            meshes += [mesh.moved(pose) for mesh in house]
            s += width + (rng.uniform(0.0, 0.4) if rng.random() < 0.6 else rng.uniform(2.5, 6))
    for d in (-22.0, -8.0, 6.5, 20.0):  # the street ends at a row of houses across it
        house = make_house(rng, 13.5, 10, 28.0 * detail)
        meshes += [mesh.moved(_place(centre, origin_m, plan.end_m + 1, d, KERB_M, np.pi / 2)) for mesh in house]
    return meshes


def _furniture(rng: np.random.Generator, plan: StreetPlan, centre: Route, origin_m: float) -> list[Mesh]:
    """Trees, lamps, signs, bins and parcels of hedge along both pavements."""
    meshes: list[Mesh] = []
    blocked = [c + 1.6 for c in plan.crosswalk_m]
    for side in (1, -1):
        s = plan.start_m + rng.uniform(2, 8)
        while s < plan.end_m - 3:
            near = min((abs(s - b) for b in blocked), default=99.0)
            crossing = plan.cross_street_m is not None and abs(s - plan.cross_street_m) < plan.cross_half_m + 5
            if near > 5 and not crossing:
                choice = rng.random()
                d = side * (plan.road_half_m + rng.uniform(0.6, 0.85))
                pose = _place(centre, origin_m, s, d, KERB_M, rng.uniform(-0.2, 0.2) + (np.pi if side > 0 else 0))
                items = (
                    _tree(rng)
                    if choice < 0.55
                    else _lamp(rng)
                    if choice < 0.75
                    else _sign_post(rng)
                    if choice < 0.9
                    else _bin(rng)
                )
                meshes += [mesh.moved(pose) for mesh in items]
            s += rng.uniform(4.0, 9.5)
    for _ in range(16):  # trees in the yards
        side = rng.choice([-1, 1])
        pose = _place(centre, origin_m, rng.uniform(plan.start_m, plan.end_m), side * rng.uniform(26, 40), KERB_M)
        meshes += [mesh.moved(pose) for mesh in _tree(rng, 1.35, 450)]
    return meshes


def _tree(rng: np.random.Generator, scale: float = 1.0, leaves: int = 900) -> list[Mesh]:
    trunk_m = rng.uniform(2.3, 3.1) * scale
    bark = to_bytes(tinted((104, 88, 72), 1 + 0.22 * fractal_noise(rng, (128, 64), 18, 5, stretch=0.3)))
    lean = rng.normal(0, 0.12, 2)
    path = np.array([[lean[0] * t * t, lean[1] * t * t, t * (trunk_m + 0.9)] for t in np.linspace(0, 1, 6)])
    trunk = tube(path, np.linspace(0.17, 0.07, 6) * scale * rng.uniform(0.8, 1.2), bark, sides=9)
    radii = tuple(float(v) for v in scale * rng.uniform([1.4, 1.4, 1.5], [1.9, 1.9, 2.2]))
    hue = np.array(((104, 142, 58), (84, 124, 56), (132, 148, 62), (92, 132, 78))[rng.integers(4)], float)
    brightness = 1 + 0.30 * fractal_noise(rng, (192, 192), 40, 6)
    crown = leaf_crown(
        rng, to_bytes(tinted(hue, brightness)), (radii[0], radii[1], radii[2]), leaves, 0.24 * scale * (900 / leaves) ** 0.5
    )
    crown = crown.moved(planar_pose(float(path[-1, 0]), float(path[-1, 1]), trunk_m + 0.72 * radii[2], 0))
    return [trunk, crown]


def _lamp(rng: np.random.Generator) -> list[Mesh]:
    metal = to_bytes(tinted((92, 98, 96), 1 + 0.12 * fractal_noise(rng, (128, 32), 10, 4)))
    pole = tube(np.array([(0, 0, 0), (0, 0, 0.8), (0, 0, 0.82), (0, 0, 5.2)]), np.array([0.11, 0.11, 0.07, 0.05]), metal)
    arm = box((0.09, 1.3, 0.09), metal).moved(planar_pose(0, 0.6, 5.1, 0))
    head = box((0.26, 0.6, 0.12), metal).moved(planar_pose(0, 1.35, 5.0, 0))
    return [pole, merged([arm, head])]


def _sign_post(rng: np.random.Generator) -> list[Mesh]:
    metal = to_bytes(tinted((140, 144, 146), 1 + 0.1 * fractal_noise(rng, (64, 16), 8, 3)))
    pole = tube(np.array([(0, 0, 0), (0, 0, 1.5), (0, 0, 2.9)]), np.array([0.04, 0.04, 0.04]), metal, sides=8)
    face = np.full((64, 64, 3), 226, np.float32) + 6 * rng.standard_normal((64, 64, 1)).astype(np.float32)
    rim = ((178, 30, 30), (30, 72, 150))[rng.integers(2)]
    face[:8], face[-8:], face[:, :8], face[:, -8:] = rim, rim, rim, rim
    glyph = rng.random((6, 6)) < 0.45
    face[14:50, 14:50][np.kron(glyph, np.ones((6, 6), bool))] = (40, 40, 44)
    plate = box((0.03, 0.62, 0.62), to_bytes(face)).moved(planar_pose(0, 0, 2.2, 0))
    return [pole, plate]


def _bin(rng: np.random.Generator) -> list[Mesh]:
    rgb = ((58, 96, 70), (74, 78, 84), (140, 84, 50))[rng.integers(3)]
    skin = to_bytes(tinted(rgb, 1 + 0.15 * fractal_noise(rng, (64, 64), 14, 5)))
    return [box((0.5, 0.5, 0.95), skin)]


def _traffic(rng: np.random.Generator, kind: Layout, centre: Route, origin_m: float) -> list[Actor]:
    """Parked cars along both kerbs, then moving cars and walkers; track ids count from 1."""
    actors: list[Actor] = []

    def drive(d: float, s: float, knots: tuple[tuple[float, float], ...], backwards: bool = False, z: float = 0.0) -> Motion:
        route = centre.offset(d)
        start = _arc_at(route, centre, origin_m, s)
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


def _standing(actor: Actor) -> list[Mesh]:
    """Return the meshes of an actor at time 0 in the world."""
    pose = actor.motion.world_from_actor(0.0)
    return [part.mesh.moved(pose @ part.actor_from_part(0.0)) for part in actor.parts]
