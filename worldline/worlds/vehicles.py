"""Cars, a body lofted over cross-sections and painted in its own texture, and buses, a painted box; on wheels that turn."""

from dataclasses import dataclass

import cv2
import numpy as np

from worldline.worlds.noise import fractal_noise, paint, tinted, to_bytes
from worldline.worlds.scene import Actor, Mesh, Motion, Part
from worldline.worlds.shapes import grid, merged, quad, tube

PAINTS = {
    "white": (232, 232, 228),
    "silver": (168, 172, 176),
    "grey": (98, 102, 106),
    "black": (34, 35, 38),
    "red": (172, 30, 26),
    "blue": (34, 66, 146),
    "green": (38, 92, 62),
    "yellow": (222, 176, 38),
}
GLASS = (38, 46, 54)
WHEEL_RADIUS_M = 0.33


@dataclass(frozen=True)
class BodyShape:
    """The side view of a body: heights in metres at fractions of the length, from the rear to the front.

    Attributes:
        length, width, height: of the box.
        roof: (fraction, height) of the silhouette.  belt: (fraction, height) of the lower edge of the windows.
        glass: fractions between which there are side windows.
        pillars: fractions of the pillars between side windows.
    """

    length: float
    width: float
    height: float
    roof: tuple[tuple[float, float], ...]
    belt: tuple[tuple[float, float], ...]
    glass: tuple[float, float]
    pillars: tuple[float, ...]


SHAPES = {
    "sedan": BodyShape(
        4.6, 1.82, 1.45,
        ((0, 0.82), (0.02, 0.96), (0.15, 1.02), (0.29, 1.38), (0.40, 1.45), (0.55, 1.43), (0.72, 1.02), (0.95, 0.78), (1, 0.62)),
        ((0, 0.80), (0.02, 0.92), (0.3, 0.97), (0.7, 0.93), (0.95, 0.74), (1, 0.60)),
        (0.20, 0.69), (0.47,),
    ),
    "hatchback": BodyShape(
        4.1, 1.78, 1.5,
        ((0, 0.86), (0.02, 1.06), (0.12, 1.42), (0.25, 1.5), (0.52, 1.48), (0.72, 1.03), (0.95, 0.82), (1, 0.66)),
        ((0, 0.84), (0.02, 1.0), (0.3, 1.0), (0.7, 0.95), (0.95, 0.78), (1, 0.64)),
        (0.13, 0.69), (0.30, 0.48),
    ),
    "van": BodyShape(
        4.9, 1.92, 1.95,
        ((0, 1.2), (0.01, 1.7), (0.05, 1.92), (0.2, 1.95), (0.66, 1.92), (0.84, 1.2), (0.97, 0.98), (1, 0.8)),
        ((0, 1.05), (0.02, 1.12), (0.5, 1.12), (0.8, 1.08), (0.97, 0.94), (1, 0.78)),
        (0.08, 0.80), (0.31, 0.54),
    ),
    "estate": BodyShape(
        4.7, 1.82, 1.48,
        ((0, 0.84), (0.02, 1.02), (0.09, 1.36), (0.2, 1.46), (0.40, 1.48), (0.56, 1.44), (0.73, 1.02), (0.95, 0.78), (1, 0.62)),
        ((0, 0.80), (0.02, 0.95), (0.3, 0.97), (0.7, 0.93), (0.95, 0.74), (1, 0.60)),
        (0.10, 0.70), (0.28, 0.49),
    ),
    "suv": BodyShape(
        4.5, 1.88, 1.7,
        ((0, 1.0), (0.02, 1.3), (0.08, 1.6), (0.22, 1.7), (0.52, 1.68), (0.70, 1.2), (0.95, 1.02), (1, 0.8)),
        ((0, 0.98), (0.02, 1.1), (0.3, 1.12), (0.7, 1.1), (0.95, 0.96), (1, 0.78)),
        (0.10, 0.67), (0.30, 0.48),
    ),
}  # fmt: skip


def make_car(
    rng: np.random.Generator, track_id: int, motion: Motion, *, shape: str = "", colour: str = "", detail: float = 1.0
) -> Actor:
    """Build a car; an empty shape or colour is chosen at random.

    Args:
        rng: source of everything random.
        track_id: from 1.
        motion: where it is when.
        shape: one of `SHAPES`.
        colour: one of `PAINTS`.
        detail: corners and texels along each axis relative to what a camera of 640 pixels can use, 0.3 to 1.
    """
    shape = shape or str(rng.choice(["sedan", "hatchback", "van"], p=[0.45, 0.4, 0.15]))
    colour = colour or str(rng.choice(list(PAINTS)))
    body = SHAPES[shape]
    section = _sections(body, round(46 * detail))
    shell = grid(
        section, _paint_shell(rng, body, section, PAINTS[colour], (round(384 * detail), round(320 * detail))), specular=0.55
    )
    front, rear = _end_caps(rng, body, section, PAINTS[colour])
    tyre = _wheel(rng, max(10, round(24 * detail)))
    axles = (-0.5 + 0.19) * body.length, (0.5 - 0.185) * body.length
    wheels = [
        Part(_mirrored(tyre, side), (x, side * (body.width / 2 - 0.12), WHEEL_RADIUS_M), spin_rad_per_m=1 / WHEEL_RADIUS_M)
        for x in axles
        for side in (-1, 1)
    ]
    mirror_texture = to_bytes(np.full((4, 4, 3), PAINTS[colour], np.float32))
    mirrors = merged([_mirror(side, body, mirror_texture) for side in (-1, 1)])
    parts = (Part(shell), Part(front), Part(rear), Part(mirrors), *wheels)
    return Actor(track_id, "car", colour, body.length, body.width, body.height, parts, motion)


def make_bus(rng: np.random.Generator, track_id: int, motion: Motion, *, colour: str = "") -> Actor:
    """Build a city bus 11.6 m long, painted with windows and an advertisement; an empty colour is chosen at random."""
    colour = colour or str(rng.choice(list(PAINTS)))
    length, width, height, floor = 11.6, 2.5, 3.1, 0.3
    x, y = length / 2, width / 2
    walls = (((x, -y), (x, y)), ((-x, y), (-x, -y)), ((x, y), (-x, y)), ((-x, -y), (x, -y)))  # front, rear, left, right
    parts = []
    for (x0, y0), (x1, y1) in walls:
        corners = np.array([(x0, y0, floor), (x1, y1, floor), (x1, y1, height), (x0, y0, height)])
        picture = _paint_bus_wall(rng, float(np.hypot(x1 - x0, y1 - y0)), height - floor, PAINTS[colour])
        parts.append(Part(quad(corners, picture, specular=0.2)))
    roof = to_bytes(tinted(PAINTS["white"], 0.9 + 0.05 * fractal_noise(rng, (64, 128), 12, 3)))
    parts.append(Part(quad(np.array([(-x, -y, height), (x, -y, height), (x, y, height), (-x, y, height)]), roof)))
    tyre = _wheel(rng)
    for axle in (-0.26 * length, 0.27 * length):
        for side in (-1, 1):
            pivot = (axle, side * (y - 0.1), WHEEL_RADIUS_M)
            parts.append(Part(_mirrored(tyre, side), pivot, spin_rad_per_m=1 / WHEEL_RADIUS_M))
    return Actor(track_id, "bus", colour, length, width, height, tuple(parts), motion)


def _paint_bus_wall(rng: np.random.Generator, length: float, height: float, rgb: tuple[int, int, int]) -> np.ndarray:
    """Paint one wall, 64 texels per metre: a row of windows over an advertisement in blocks of colour."""
    rows, columns = round(64 * height), round(64 * length)
    image = tinted(rgb, 1 + 0.04 * fractal_noise(rng, (rows, columns), 40, 4))
    up = np.linspace(height, 0, rows)[:, None]
    along = np.linspace(0, length, columns)[None, :]
    blocks = rng.uniform(30, 230, (int(np.ceil(height * 5)), int(np.ceil(length * 5)), 3)).astype(np.float32)
    poster = cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_NEAREST)
    paint(image, ((up > 0.25) & (up < 1.05) & (along > 0.3) & (along < length - 0.3)).astype(np.float32), poster)
    pane = (up > 1.2) & (up < 2.35) & ((along % 1.45) > 0.12) & (along > 0.12) & (along < length - 0.12)
    glass = np.asarray(GLASS, np.float32) * (1.2 + 0.6 * fractal_noise(rng, (rows, columns), 60, 5))[..., None]
    paint(image, pane.astype(np.float32), glass)
    return to_bytes(image)


def _profile(knots: tuple[tuple[float, float], ...], fraction: np.ndarray) -> np.ndarray:
    """Interpolate a side profile with slightly rounded corners."""
    fine = np.linspace(0, 1, 201)
    height = np.interp(fine, [k[0] for k in knots], [k[1] for k in knots])
    rounded = np.convolve(np.pad(height, 4, mode="edge"), np.hanning(11)[1:-1] / np.hanning(11).sum(), mode="valid")
    return np.interp(fraction, fine, rounded)


def _sections(body: BodyShape, stations: int) -> np.ndarray:
    """Return cross-sections `[stations + 2, points, 3]` from rear to front, each running from the left sill over the roof."""
    fraction = np.unique(np.concatenate([np.linspace(0, 1, stations), [0.01, 0.985]]))
    roof, belt = _profile(body.roof, fraction), _profile(body.belt, fraction)
    roof = np.maximum(roof, belt + 0.02)
    half = body.width / 2 * (1 - 0.10 * np.abs(2 * fraction - 1) ** 3.5 - 0.04 * (fraction > 0.98) - 0.04 * (fraction < 0.01))
    cabin = np.clip((roof - belt) / 0.45, 0, 1)
    roof_half = half * (0.93 - 0.17 * cabin)
    edge = belt + 0.88 * (roof - belt)
    rows = []
    for f, top, low, wide, narrow, side_top in zip(fraction, roof, belt, half, roof_half, edge, strict=True):
        key_y = np.array([0.90 * wide, 0.985 * wide, wide, 0.965 * wide, narrow, 0.8 * narrow, 0.0])
        key_z = np.array([0.2, 0.34, 0.58, low, side_top, top - 0.02 * (top - low), top])
        at = np.concatenate([np.linspace(0, 3, 7), np.linspace(3, 4, 6)[1:], np.linspace(4, 6, 5)[1:]])
        y, z = np.interp(at, range(7), key_y), np.interp(at, range(7), key_z)
        z = np.minimum(z, np.maximum.accumulate(z))
        x = np.full_like(y, (f - 0.5) * body.length)
        left = np.stack([x, y, z], -1)
        right = np.stack([x, -y, z], -1)
        rows.append(np.concatenate([left, right[-2::-1]]))
    return np.array(rows)


def _paint_shell(
    rng: np.random.Generator, body: BodyShape, section: np.ndarray, rgb: tuple[int, int, int], shape: tuple[int, int]
) -> np.ndarray:
    """Paint windows, pillars, doors, sills and wheel arches over the shell's texture; rows run from front (top) to rear."""
    height, width = shape
    xyz = cv2.resize(section[::-1].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    fraction = x / body.length + 0.5
    belt, roof = _profile(body.belt, fraction), _profile(body.roof, fraction)
    image = tinted(rgb, 1 + 0.025 * fractal_noise(rng, (height, width), 40, 4))
    cabin = roof - belt > 0.12
    half = body.width / 2
    across = np.abs(y) / half
    up = (z - belt) / np.maximum(roof - belt, 0.05)
    glass_rgb = np.asarray(GLASS, np.float32) * (1 + 1.5 * np.clip(up, 0, 1) ** 2)[..., None]
    glass_rgb *= (1 + 0.25 * fractal_noise(rng, (height, width), 60, 3))[..., None]
    inside = (fraction > body.glass[0]) & (fraction < body.glass[1])
    for pillar in body.pillars:
        inside &= np.abs(fraction - pillar) > 0.010
    side = cabin & inside & (up > 0.06) & (up < 0.84) & (across > 0.6)
    slope = np.abs(np.gradient(_profile(body.roof, np.linspace(0, 1, height))[::-1]) * height / body.length)
    screen = cabin & (slope[:, None] > 0.28) & (across < 0.70) & (up > 0.2) & (fraction < 0.97) & (fraction > 0.002)
    paint(image, cv2.GaussianBlur((side | screen).astype(np.float32), (3, 3), 0), glass_rgb)
    for seam in (body.glass[0] + 0.03, *body.pillars[-1:], body.glass[1] - 0.015):
        paint(image, 0.55 * ((np.abs(fraction - seam) < 0.0022) & (z < belt) & (z > 0.3)), (18, 18, 20))
        handle = (np.abs(fraction - seam - 0.05) < 0.018) & (np.abs(z - belt + 0.13) < 0.018) & (across > 0.8)
        paint(image, 0.5 * handle, (20, 20, 22))
    paint(image, 0.35 * (np.abs(z - 0.62) < 0.012), (20, 20, 22))
    paint(image, 0.85 * np.clip((0.34 - z) / 0.06, 0, 1), (26, 26, 28))
    for axle in ((-0.5 + 0.19) * body.length, (0.5 - 0.185) * body.length):
        arch = np.hypot(x - axle, z - WHEEL_RADIUS_M) < WHEEL_RADIUS_M + 0.07
        paint(image, (arch & (across > 0.8)).astype(np.float32), (12, 12, 13))
    dust = np.clip((0.75 - z) / 0.5, 0, 1) * np.clip(0.5 + 0.5 * fractal_noise(rng, (height, width), 24, 4), 0, 1)
    paint(image, 0.25 * dust, (120, 112, 100))
    lamp = (z > 0.56) & (z < 0.78) & (across > 0.6)
    paint(image, (lamp & (fraction > 0.965)).astype(np.float32), (236, 238, 240))
    paint(image, (lamp & (fraction < 0.03)).astype(np.float32), (176, 20, 18))
    return to_bytes(image)


def _end_caps(rng: np.random.Generator, body: BodyShape, section: np.ndarray, rgb: tuple[int, int, int]) -> tuple[Mesh, Mesh]:
    """Close the shell at the front (grille, lamps, plate) and at the rear (lamps, plate)."""
    caps = []
    for end, outline in ((1, section[-1]), (-1, section[0])):
        count = len(outline)
        middle = count // 2
        left, right = outline[: middle + 1], outline[middle:][::-1]
        # columns from the image's left to right as seen from outside
        sheet = np.stack([left, (left + right) / 2, right] if end < 0 else [right, (left + right) / 2, left], axis=1)
        sheet[..., 0] += end * 0.004
        top = float(outline[:, 2].max())
        image = tinted(rgb, 0.96 + 0.03 * fractal_noise(rng, (96, 192), 30, 3))
        z = np.interp(np.linspace(0, 1, 96), np.linspace(0, 1, middle + 1), right[:, 2])[::-1][:, None]
        across = np.abs(np.linspace(-1, 1, 192))[None, :]
        paint(image, ((z < 0.32) * np.ones_like(across)).astype(np.float32), (24, 24, 26))
        lamp = (z > 0.55) & (z < min(top, 0.80)) & (across > 0.62)
        paint(image, lamp.astype(np.float32), (238, 240, 236) if end > 0 else (172, 18, 20))
        if end > 0:
            grille = (z > 0.40) & (z < 0.56) & (across < 0.55)
            paint(image, grille.astype(np.float32), (22, 22, 24))
            paint(image, 0.6 * (grille & ((z * 60).astype(int) % 3 == 0)), (130, 130, 132))
        plate_row = int(np.argmin(np.abs(z[:, 0] - (0.47 if end > 0 else 0.9 if top > 1 else 0.68))))
        plate = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVWXYZ0123456789"), 6))
        cv2.rectangle(image, (66, plate_row - 8), (126, plate_row + 6), (222, 222, 214), -1)
        letters = np.zeros(image.shape[:2], np.uint8)
        cv2.putText(letters, plate, (69, plate_row + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
        paint(image, letters / 255, (20, 20, 40))
        mesh = grid(sheet, to_bytes(image), specular=0.3)
        mesh.normals[:] = (end, 0, 0)
        caps.append(mesh)
    return caps[0], caps[1]


def _wheel(rng: np.random.Generator, sides: int = 24) -> Mesh:
    """Return a wheel around the y axis with its outside at +y."""
    radius, wide = WHEEL_RADIUS_M, 0.21
    profile = [(0.0, 0.5), (0.62, 0.46), (0.68, 0.5), (0.95, 0.5), (1.0, 0.35), (1.0, -0.5), (0.0, -0.5)]
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    rings = np.array([[(radius * r * np.cos(a), wide * h, radius * r * np.sin(a)) for a in angle] for r, h in profile])
    size = 128
    image = np.full((size, 25 * 8, 3), 26, np.float32) + 4 * rng.standard_normal((size, 200, 1)).astype(np.float32)
    row = np.linspace(6, 0, size)[:, None]  # texture rows run from the last profile point (top) to the hub (bottom)
    spoke = (np.linspace(0, 5, 200) % 1)[None, :]
    rim = row < 1.15
    paint(image, rim * np.where(np.abs(spoke - 0.5) < 0.3, 1.0, 0.25), (176, 178, 182))
    paint(image, ((row > 1.0) & (row < 1.4)) * np.ones_like(spoke), (150, 152, 156))
    return grid(rings, to_bytes(image), specular=0.2)


def _mirrored(mesh: Mesh, side: int) -> Mesh:
    """Return the mesh with its outside on the left (+1) or right (-1)."""
    flip = np.array([1, side, 1])
    return Mesh(mesh.points * flip, mesh.faces, mesh.uv, mesh.normals * flip, mesh.texture, mesh.specular)


def _mirror(side: int, body: BodyShape, texture: np.ndarray) -> Mesh:
    x = (body.glass[1] - 0.5) * body.length - 0.12
    z = _profile(body.belt, np.array([body.glass[1]]))[0] + 0.06
    path = np.array([[x, side * body.width * f, z] for f in (0.46, 0.47, 0.5, 0.53, 0.54)])
    return tube(path, np.array([0, 0.07, 0.09, 0.07, 0]), texture, sides=8, specular=0.3)


def underbody(length: float, width: float) -> Mesh:
    """Return the dark patch that no light reaches under a car, just above the road."""
    x, y = length / 2 - 0.12, width / 2 - 0.06
    corners = np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)])
    return quad(corners, np.full((2, 2, 3), 12, np.uint8), casts_shadow=False)
