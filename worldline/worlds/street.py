"""Streets: where everything stands and how everything moves, drawn from a random generator."""

from collections.abc import Callable

import numpy as np

from worldline.worlds import terrain
from worldline.worlds.buildings import make_house
from worldline.worlds.ground import KERB_M, StreetPlan
from worldline.worlds.layouts import END_M, LAYOUTS, START_M, Layout, sample_layout
from worldline.worlds.light import WEATHERS
from worldline.worlds.noise import fractal_noise, tinted, to_bytes
from worldline.worlds.scene import Actor, Mesh, Motion, Route, Scene, planar_pose
from worldline.worlds.shapes import box, leaf_crown, merged, tube
from worldline.worlds.sky import paint_sky
from worldline.worlds.traffic import arc_at, busy_traffic, scripted_traffic

_RANDOM_STREETS = 20_261  # apart from the generators that other seeds make


def build_random_street(street: int, *, camera_height_m: float = 1.6, detail: float = 1.0) -> Scene:
    """Describe street number `street` of endlessly many: two lanes each way, traffic and weather drawn from the number."""
    rng = np.random.default_rng((_RANDOM_STREETS, street))
    return build_street(sample_layout(rng), rng, camera_height_m=camera_height_m, detail=detail)


def build_street(layout: str | Layout, rng: np.random.Generator, *, camera_height_m: float = 1.6, detail: float = 1.0) -> Scene:
    """Describe a street; the ego car is at s = 0 at time 0, world x along the street there.

    Args:
        layout: which kind: a name in `LAYOUTS`, or a layout.
        rng: source of everything random.
        camera_height_m: height of the camera over the road.
        detail: texels per metre relative to what a camera of 640 pixels can use.

    Raises:
        KeyError: if there is no such layout.
    """
    kind = LAYOUTS[layout] if isinstance(layout, str) else layout
    weather = WEATHERS[kind.weather]
    plan = kind.plan(48.0 * detail)
    centre, origin_m = centre_line(kind)
    angle = rng.uniform(0.55, 0.95) * rng.choice([-1, 1]) + np.pi * rng.choice([0, 1])
    sun = np.array([np.cos(angle) * 0.62, np.sin(angle) * 0.62, 0.785])
    sun = np.array([0.0, 0.0, 1.0]) if weather.overcast else sun / np.linalg.norm(sun)
    trees = _few_trees(rng, detail) if kind.busy else lambda scale, leaves: _tree(rng, scale, leaves)
    static = _houses(rng, plan, centre, origin_m, detail) + _furniture(rng, plan, centre, origin_m, trees)
    knots = np.array(kind.ego_mps)
    if kind.busy:
        lane = centre.offset(kind.ego_d_m)
        actors = busy_traffic(
            rng, kind, plan, centre, origin_m, detail, Motion(lane, arc_at(lane, centre, origin_m, 0.0), *knots.T)
        )
    else:
        actors = scripted_traffic(rng, kind, centre, origin_m)
    parked = [mesh for actor in actors if not actor.moving(0.0) for mesh in _standing(actor)]
    static += terrain.street_meshes(rng, plan, centre, origin_m, static + parked, sun, weather)
    wander = 0.18 * np.sin(2 * np.pi * (centre.arc_m - origin_m) / 45 + rng.uniform(0, 2 * np.pi))
    ego_route = centre.offset(kind.ego_d_m + wander)
    ego = Motion(ego_route, arc_at(ego_route, centre, origin_m, 0.0), knots[:, 0], knots[:, 1])
    phases = rng.uniform(0, 2 * np.pi, 3)
    return Scene(
        layout if isinstance(layout, str) else "street",
        tuple(_joined(static) if kind.busy else static),
        tuple(actors),
        ego,
        camera_height_m,
        float(np.radians(2.0)),
        phases,
        paint_sky(rng, weather=weather),
        sun,
        plan,
        centre,
        origin_m,
        weather,
    )


def centre_line(kind: Layout) -> tuple[Route, float]:
    """Return the centre line, longer than what is drawn, and the arc length at which s = 0 (world x = y = 0)."""
    s = np.arange(START_M - 60, END_M + 60, 0.1)
    heading = kind.turn_rad_per_m * np.clip(s - kind.turn_m[0], 0, kind.turn_m[1] - kind.turn_m[0])
    middle = (heading[1:] + heading[:-1]) / 2
    xy = np.concatenate([[(0.0, 0.0)], np.cumsum(0.1 * np.stack([np.cos(middle), np.sin(middle)], 1), axis=0)])
    zero = int(np.argmin(np.abs(s)))
    return Route.through(xy - xy[zero]), float(zero) * 0.1


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


def _furniture(
    rng: np.random.Generator, plan: StreetPlan, centre: Route, origin_m: float, trees: Callable[[float, int], list[Mesh]]
) -> list[Mesh]:
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
                    trees(1.0, 900)
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
        meshes += [mesh.moved(pose) for mesh in trees(1.35, 450)]
    return meshes


def _few_trees(rng: np.random.Generator, detail: float) -> Callable[[float, int], list[Mesh]]:
    """Return a nursery that has six trees of every size, turned at random: what shares a texture is drawn at once."""
    share = min(1.0, 1.3 * detail)
    grown: dict[tuple[float, int], list[list[Mesh]]] = {}

    def pick(scale: float, leaves: int) -> list[Mesh]:
        kinds = grown.setdefault((scale, leaves), [])
        if len(kinds) < 6:
            kinds.append(_tree(rng, scale, round(share * leaves)))
        turn = planar_pose(0, 0, 0, rng.uniform(0, 2 * np.pi))
        return [mesh.moved(turn) for mesh in kinds[rng.integers(len(kinds))]]

    return pick


def _joined(meshes: list[Mesh]) -> list[Mesh]:
    """Join meshes that look alike: every mesh costs time to draw, however small it is."""
    groups: dict[tuple[int, float, bool, bool], list[Mesh]] = {}
    for mesh in meshes:
        groups.setdefault((id(mesh.texture), mesh.specular, mesh.casts_shadow, mesh.lit), []).append(mesh)
    return [group[0] if len(group) == 1 else merged(group) for group in groups.values()]


def _tree(rng: np.random.Generator, scale: float, leaves: int) -> list[Mesh]:
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


def _standing(actor: Actor) -> list[Mesh]:
    """Return the meshes of an actor at time 0 in the world."""
    pose = actor.motion.world_from_actor(0.0)
    return [part.mesh.moved(pose @ part.actor_from_part(0.0)) for part in actor.parts]
