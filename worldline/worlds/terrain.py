"""The shape of the ground: sheets along a street at their heights, and the shadows that lie on them."""

import cv2
import numpy as np
from scipy.spatial import cKDTree

from worldline.worlds.ground import KERB_M, StreetPlan, ground_bytes, paint_street, paint_yard, single_lane_lines
from worldline.worlds.light import CLEAR, Weather, light_on
from worldline.worlds.scene import Mesh, Route
from worldline.worlds.shapes import shadow_outline

SHADOW_PIXELS_PER_M = 12.0
YARD_PIXELS_PER_M = 12.0
SIDE_PAVEMENT_M = 3.4


def street_coordinates(route: Route, xy: np.ndarray) -> np.ndarray:
    """Return (s, d) `[N, 2]` of points `[N, 2]`: distance along a route from its nearest point, and to its left."""
    _, nearest = cKDTree(route.xy).query(xy)
    heading = route.heading_rad[nearest]
    offset = xy - route.xy[nearest]
    along = np.cos(heading) * offset[:, 0] + np.sin(heading) * offset[:, 1]
    left = -np.sin(heading) * offset[:, 0] + np.cos(heading) * offset[:, 1]
    return np.stack([route.arc_m[nearest] + along, left], axis=1)


def shadow_map(plan: StreetPlan, route: Route, origin_m: float, meshes: list[Mesh], sun_direction: np.ndarray) -> np.ndarray:
    """Draw the shadows of static meshes on the ground, `[rows, columns]` float32 in 0..1.

    Rows run from d = +yard_half_m down, columns from s = start_m up, `SHADOW_PIXELS_PER_M` pixels per metre.

    Args:
        plan: extent of the map.
        route: centre line.
        origin_m: arc length on the route at s = 0.
        meshes: small faces fall as they are (foliage), anything else as its convex outline.
        sun_direction: unit vector to the sun.
    """
    scale = SHADOW_PIXELS_PER_M
    shape = round(2 * plan.yard_half_m * scale), round((plan.end_m - plan.start_m) * scale)
    shadow = np.zeros(shape, np.uint8)
    outlines: list[np.ndarray] = []
    for mesh in meshes:
        if not mesh.casts_shadow:
            continue
        if len(mesh.faces) > 400 and len(mesh.points) == len(mesh.faces) // 4 * 6:  # leaf clumps: six corners, four triangles
            fallen = mesh.points[:, :2] - mesh.points[:, 2:] * (sun_direction[:2] / sun_direction[2])
            outlines += list(fallen.reshape(-1, 6, 2))
        else:
            outlines.append(shadow_outline(mesh.points, sun_direction))
    s_and_d = street_coordinates(route, np.concatenate(outlines)) - (origin_m + plan.start_m, plan.yard_half_m)
    pixels = np.split(s_and_d * (scale, -scale), np.cumsum([len(outline) for outline in outlines])[:-1])
    for outline in pixels:
        cv2.fillPoly(shadow, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(shadow, (0, 0), 0.9).astype(np.float32) / 255


def lit(image: np.ndarray, shadow: np.ndarray, sun_direction: np.ndarray, weather: Weather = CLEAR) -> np.ndarray:
    """Return the texture of a painted ground `[h, w, 3]` under sun and shadow (a map of any size over the same area)."""
    part = cv2.resize(shadow, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    up = np.array([[0.0, 0.0, 1.0]])
    sunny, shady = (light_on(up, sun_direction, share, weather)[0] * weather.ground_gain for share in (1.0, 0.0))
    shady = shady * 0.93
    for channel in range(3):
        image[..., channel] *= np.float32(sunny[channel]) + part * np.float32(shady[channel] - sunny[channel])
    return ground_bytes(image)


def strip_mesh(
    plan: StreetPlan,
    route: Route,
    origin_m: float,
    texture: np.ndarray,
    s_range: tuple[float, float],
    d_edges: tuple[float, float],
    z_edges: tuple[float, float],
    d_texture: tuple[float, float],
) -> Mesh:
    """Return the sheet between two edges along the street, mapped to a texture that covers d_texture and all of s."""
    s = np.linspace(*s_range, max(2, int((s_range[1] - s_range[0]) / 1.0) + 1))
    xy, heading = route.at(origin_m + s)
    normal = np.stack([-np.sin(heading), np.cos(heading)], axis=1)
    edges = [np.column_stack([xy + d * normal, np.full(len(s), z)]) for d, z in zip(d_edges, z_edges, strict=True)]
    points = np.concatenate(edges)
    u = (s - plan.start_m) / (plan.end_m - plan.start_m)
    v = [(d - d_texture[0]) / (d_texture[1] - d_texture[0]) for d in d_edges]
    uv = np.concatenate([np.column_stack([u, np.full(len(s), value)]) for value in v])
    k = np.arange(len(s) - 1)
    n = len(s)
    faces = np.concatenate([np.stack([k, k + 1, n + k + 1], 1), np.stack([k, n + k + 1, n + k], 1)]).astype(np.int64)
    normals = np.tile([0.0, 0.0, 1.0], (2 * n, 1))
    return Mesh(points, faces, uv, normals, texture, casts_shadow=False, lit=True)


def street_meshes(
    rng: np.random.Generator,
    plan: StreetPlan,
    route: Route,
    origin_m: float,
    solid: list[Mesh],
    sun_direction: np.ndarray,
    weather: Weather = CLEAR,
) -> list[Mesh]:
    """Build the road, both pavements with their kerbs, the yards behind them and the street that crosses, if any."""
    shadow = shadow_map(plan, route, origin_m, solid, sun_direction)

    def shadow_between(low_m: float, high_m: float) -> np.ndarray:
        rows = [round((plan.yard_half_m - d) * SHADOW_PIXELS_PER_M) for d in (high_m, low_m)]
        return shadow[rows[0] : rows[1]]

    half = plan.pavement_half_m
    texture = lit(paint_street(rng, plan), shadow_between(-half, half), sun_direction, weather)
    span = (plan.start_m, plan.end_m)
    meshes = [strip_mesh(plan, route, origin_m, texture, span, (-half, half), (0.0, 0.0), (-half, half))]
    crossing, side_half = plan.cross_street_m, plan.cross_half_m
    kerbs = [span] if crossing is None else [(span[0], crossing - side_half), (crossing + side_half, span[1])]
    meshes += _pavements(plan, route, origin_m, texture, kerbs)
    side_pavement = side_half + SIDE_PAVEMENT_M
    yards = [span] if crossing is None else [(span[0], crossing - side_pavement), (crossing + side_pavement, span[1])]
    for edges in ((half, plan.yard_half_m), (-plan.yard_half_m, -half)):
        shape = round((edges[1] - edges[0]) * YARD_PIXELS_PER_M), round((span[1] - span[0]) * YARD_PIXELS_PER_M)
        yard = lit(paint_yard(rng, shape, YARD_PIXELS_PER_M), shadow_between(*edges), sun_direction, weather)
        meshes += [strip_mesh(plan, route, origin_m, yard, part, edges, (KERB_M, KERB_M), edges) for part in yards]
    if crossing is not None:
        columns = [round((crossing + x - span[0]) * SHADOW_PIXELS_PER_M) for x in (-side_pavement, side_pavement)]
        # along the side street s runs where the main street's d runs, and its left is the main street's backward
        side_shadow = np.ascontiguousarray(shadow[::-1, columns[0] : columns[1]].T)
        meshes += _side_street(rng, plan, route.across(origin_m + crossing, 60.0), side_shadow, sun_direction, weather)
    return meshes


def _pavements(
    plan: StreetPlan, route: Route, origin_m: float, texture: np.ndarray, spans: list[tuple[float, float]]
) -> list[Mesh]:
    """Raise the pavements on both sides over the spans, each with the kerb's upright face."""
    half = plan.pavement_half_m
    meshes = []
    for side in (1, -1):
        near, far = side * plan.road_half_m, side * half
        for span in spans:
            face = strip_mesh(plan, route, origin_m, texture, span, (near, near), (0.0, KERB_M), (-half, half))
            # the upright face shows the kerb stones' own row of the texture
            face.uv[:, 1] = (near + side * np.where(face.points[:, 2] > 0, 0.04, 0.16) + half) / (2 * half)
            meshes += [face, strip_mesh(plan, route, origin_m, texture, span, (near, far), (KERB_M, KERB_M), (-half, half))]
    return meshes


def side_plan(main: StreetPlan) -> StreetPlan:
    """Return the plan of the street that crosses a main one at its s = 0, from the main one's right to its left."""
    reach, half = main.yard_half_m, main.cross_half_m + SIDE_PAVEMENT_M
    lines = single_lane_lines(main.cross_half_m)
    return StreetPlan(-reach, reach, main.cross_half_m, half, half, (), 0.0, main.road_half_m, 36.0, lines, 2.15, 3.1)


def _side_street(
    rng: np.random.Generator, main: StreetPlan, route: Route, shadow: np.ndarray, sun_direction: np.ndarray, weather: Weather
) -> list[Mesh]:
    """Build the crossing street on both sides of the main one, which owns the junction itself."""
    plan = side_plan(main)
    reach, half = plan.end_m, plan.pavement_half_m
    texture = lit(paint_street(rng, plan), shadow, sun_direction, weather)
    origin_m = float(route.arc_m[-1]) / 2
    spans = [(-reach, -main.pavement_half_m), (main.pavement_half_m, reach)]
    meshes = [strip_mesh(plan, route, origin_m, texture, part, (-half, half), (0.0, 0.0), (-half, half)) for part in spans]
    meshes += _pavements(plan, route, origin_m, texture, spans)
    corner = [(-main.pavement_half_m, -main.road_half_m), (main.road_half_m, main.pavement_half_m)]
    return meshes + _pavements(plan, route, origin_m, texture, corner)[::2]  # kerb faces round the corners
