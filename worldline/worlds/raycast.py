"""Exact pictures of a few solids: every pixel's colour, instance, depth, normal and velocity from the formulas of the solids.

No triangles and no graphics library: a ray meets a sphere, a box, a capsule or a flat floor where an equation says, so
what a picture shows is known to rounding. The paint is a smooth function of the solid's own coordinates: it turns with
the solid, has no seams, and no detail finer than its wavelength.

Conventions: z up, lengths in scene units, velocities in scene units per unit of time, camera frame x right, y down,
z forward, centre of the first pixel at (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sin, sqrt, tanh

import numba
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

from worldline.cameras import invert_rigid, rigid
from worldline.threads import map_pieces

SHAPES = ("sphere", "box", "capsule", "floor")
SUN = np.array([0.36, -0.48, 0.8])  # unit vector from the scene to the light
AMBIENT, DIFFUSE = 0.45, 0.55
WAVES = np.array([[0.86, 0.26, 0.43], [-0.36, 0.89, 0.27], [0.18, -0.44, 0.88]])  # directions of the paint's three waves
SOFTNESS = 1.3  # of the edges between the two colours: tanh(SOFTNESS * sum of the waves)
SHADE = 0.18  # how much lighter one side of a solid is painted than the other, so that no turn maps the paint on itself
NEAREST = 1e-6  # depth below which nothing is seen
_SPHERE, _BOX, _CAPSULE, _FLOOR = range(4)
_BAND = 16  # rows of a picture that one thread takes at a time


@dataclass(frozen=True)
class Paint:
    """Two colours in soft blobs.

    Attributes:
        first, second: RGB in [0, 1].
        wavelength: distance after which the blobs come round, scene units.
        phase: radians, so that equal solids do not look the same.
    """

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    wavelength: float
    phase: float = 0.0


@dataclass(frozen=True, eq=False)
class Solid:
    """A rigid thing at one moment.

    Attributes:
        shape: one of `SHAPES`.
        size: sphere (radius,); box (half length, half width, half height); capsule (radius, half length of its axis, which is
            the solid's z axis, without the caps); floor (half length, half width) of a rectangle in the solid's plane z = 0.
        paint: its colours.
        position: `[3]` of its origin in the world.
        rotation: `[3, 3]` world from solid.
        linear: `[3]` velocity of its origin.
        angular: `[3]` angular velocity in the world frame, radians per unit of time.
        instance: 0 for the static scene, or the number of a moving object.
    """

    shape: str
    size: tuple[float, ...]
    paint: Paint
    position: Float64[np.ndarray, "3"]
    rotation: Float64[np.ndarray, "3 3"]
    linear: Float64[np.ndarray, "3"]
    angular: Float64[np.ndarray, "3"]
    instance: int = 0


@dataclass(frozen=True, eq=False)
class Picture:
    """What a camera sees. All but the colours hold for the ray through the pixel's centre.

    Attributes:
        rgb: `[H, W, 3]`, the mean over a grid of rays in each pixel.
        instances: `[H, W]`, 0 where static or empty.
        depths: `[H, W]` along the optical axis, 0 where empty.
        normals: `[H, W, 3]` unit, camera frame, towards the camera; 0 where empty.
        velocities: `[H, W, 3]` of the surface in the world frame; 0 where empty.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    instances: UInt16[np.ndarray, "H W"]
    depths: Float32[np.ndarray, "H W"]
    normals: Float32[np.ndarray, "H W 3"]
    velocities: Float32[np.ndarray, "H W 3"]


def cast(
    solids: Sequence[Solid],
    camera_from_world: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
    *,
    background: np.ndarray | Sequence[float] = (1.0, 1.0, 1.0),
    supersampling: int = 4,
) -> Picture:
    """Draw solids with a pinhole camera.

    Args:
        solids: what there is.
        camera_from_world: `[4, 4]` rigid.
        intrinsics: `[3, 3]` in pixels.
        width: pixels.
        height: pixels.
        background: RGB in [0, 1] where a ray meets nothing.
        supersampling: rays per pixel along each side, for the colours.
    """
    shapes, sizes, instances, colors, waves = _looks(solids)
    poses = np.array([rigid(solid.rotation, solid.position) for solid in solids]).reshape(-1, 4, 4)
    camera_from_solid = np.asarray(camera_from_world, np.float64) @ poses
    solid_from_camera = invert_rigid(camera_from_solid)
    eyes, turns = solid_from_camera[:, :3, 3].copy(), solid_from_camera[:, :3, :3] @ np.linalg.inv(intrinsics)
    rotations = np.stack([poses[:, :3, :3], camera_from_solid[:, :3, :3]], axis=1)
    suns = SUN @ poses[:, :3, :3]
    linear = np.array([solid.linear for solid in solids], float).reshape(-1, 3)
    angular = np.array([solid.angular for solid in solids], float).reshape(-1, 3)
    rgb = np.empty((height, width, 3), np.uint8)
    labels = np.zeros((height, width), np.uint16)
    depths = np.zeros((height, width), np.float32)
    normals, velocities = np.zeros((2, height, width, 3), np.float32)

    def band(piece: int) -> None:
        _cast_rows(
            shapes, sizes, instances, colors, waves, suns, eyes, turns, rotations, linear, angular,
            np.asarray(background, np.float64), supersampling, _BAND * piece, min(_BAND * (piece + 1), height),
            rgb, labels, depths, normals, velocities,
        )  # fmt: skip

    map_pieces(band, -(-height // _BAND))
    return Picture(rgb, labels, depths, normals, velocities)


def _looks(solids: Sequence[Solid]) -> tuple[np.ndarray, ...]:
    """Return shape, size, instance, colours and wave (number, phase) of the solids, one row each."""
    count = len(solids)
    shapes, instances = np.zeros(count, np.int64), np.zeros(count, np.uint16)
    sizes, colors, waves = np.zeros((count, 3)), np.zeros((count, 2, 3)), np.zeros((count, 2))
    for row, solid in enumerate(solids):
        if solid.shape not in SHAPES:
            raise ValueError(f"Solid.shape must be one of {', '.join(SHAPES)}, not {solid.shape!r}")
        shapes[row], instances[row] = SHAPES.index(solid.shape), solid.instance
        sizes[row, : len(solid.size)] = solid.size
        colors[row] = solid.paint.first, solid.paint.second
        waves[row] = 2 * np.pi / solid.paint.wavelength, solid.paint.phase
    return shapes, sizes, instances, colors, waves


@numba.njit(nogil=True, cache=True, inline="always")
def _hit_sphere(ox, oy, oz, dx, dy, dz, radius):  # type: ignore[no-untyped-def]
    """Return the smallest ray parameter beyond `NEAREST` at which |o + t d| = radius, or infinity."""
    a, b = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    discriminant = b * b - a * (ox * ox + oy * oy + oz * oz - radius * radius)
    if discriminant < 0.0:
        return inf
    root = sqrt(discriminant)
    if (-b - root) / a > NEAREST:
        return (-b - root) / a
    return (-b + root) / a if (-b + root) / a > NEAREST else inf


@numba.njit(nogil=True, cache=True, inline="always")
def _slab(o, d, half):  # type: ignore[no-untyped-def]
    """Return the ray parameters between which |o + t d| <= half holds in one coordinate."""
    if d == 0.0:
        return (-inf, inf) if abs(o) <= half else (inf, -inf)
    first, second = (-half - o) / d, (half - o) / d
    return min(first, second), max(first, second)


@numba.njit(nogil=True, cache=True)
def _hit_box(ox, oy, oz, dx, dy, dz, size):  # type: ignore[no-untyped-def]
    """Return where the ray enters the box (or leaves it, from inside)."""
    x0, x1 = _slab(ox, dx, size[0])
    y0, y1 = _slab(oy, dy, size[1])
    z0, z1 = _slab(oz, dz, size[2])
    enter, leave = max(x0, y0, z0), min(x1, y1, z1)
    if enter > leave or leave <= NEAREST:
        return inf
    return enter if enter > NEAREST else leave


@numba.njit(nogil=True, cache=True)
def _hit_capsule(ox, oy, oz, dx, dy, dz, radius, half):  # type: ignore[no-untyped-def]
    """Return where a ray from outside first meets the tube between the caps, or one of the spheres at its ends."""
    a, b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - radius * radius
    if a > 0.0:
        discriminant = b * b - a * c
        if discriminant < 0.0:
            return inf
        t = (-b - sqrt(discriminant)) / a
        if t > NEAREST and abs(oz + t * dz) <= half:
            return t
    return min(_hit_sphere(ox, oy, oz - half, dx, dy, dz, radius), _hit_sphere(ox, oy, oz + half, dx, dy, dz, radius))


@numba.njit(nogil=True, cache=True)
def _hit(shape, size, ox, oy, oz, dx, dy, dz):  # type: ignore[no-untyped-def]
    """Return the ray parameter of the first point of a solid, in its own frame, or infinity."""
    if shape == _SPHERE:
        return _hit_sphere(ox, oy, oz, dx, dy, dz, size[0])
    if shape == _BOX:
        return _hit_box(ox, oy, oz, dx, dy, dz, size)
    if shape == _CAPSULE:
        return _hit_capsule(ox, oy, oz, dx, dy, dz, size[0], size[1])
    t = -oz / dz if dz != 0.0 else inf
    return t if t > NEAREST and abs(ox + t * dx) <= size[0] and abs(oy + t * dy) <= size[1] else inf


@numba.njit(nogil=True, cache=True)
def _nearest(shapes, sizes, eyes, turns, u, v):  # type: ignore[no-untyped-def]
    """Return the solid that the ray through image point (u, v) meets first, or -1, and the depth there.

    `eyes` and `turns` put the eye and the ray, one unit of depth long, into each solid's frame.
    """
    best, found = inf, -1
    for k in range(len(shapes)):
        m = turns[k]
        dx, dy = m[0, 0] * u + m[0, 1] * v + m[0, 2], m[1, 0] * u + m[1, 1] * v + m[1, 2]
        dz = m[2, 0] * u + m[2, 1] * v + m[2, 2]
        t = _hit(shapes[k], sizes[k], eyes[k, 0], eyes[k, 1], eyes[k, 2], dx, dy, dz)
        if t < best:
            best, found = t, k
    return found, best


@numba.njit(nogil=True, cache=True)
def _surface(shape, size, eye, turn, u, v, t, point, normal):  # type: ignore[no-untyped-def]
    """Write the point that was met and its unit normal towards the eye, in the solid's frame."""
    along = 0.0
    for axis in range(3):
        point[axis] = eye[axis] + t * (turn[axis, 0] * u + turn[axis, 1] * v + turn[axis, 2])
        normal[axis] = point[axis]
    if shape == _BOX:
        face = np.argmax(np.abs(point) / size)
        for axis in range(3):
            normal[axis] = point[axis] if axis == face else 0.0
    elif shape == _CAPSULE:
        normal[2] -= min(max(point[2], -size[1]), size[1])
    elif shape == _FLOOR:
        normal[0], normal[1], normal[2] = 0.0, 0.0, 1.0
    for axis in range(3):
        along += normal[axis] * (eye[axis] - point[axis])
    length = sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    for axis in range(3):
        normal[axis] /= length if along >= 0.0 else -length


@numba.njit(nogil=True, cache=True)
def _paint(colors, wave, size, point, light, out):  # type: ignore[no-untyped-def]
    """Add the colour of a solid at a point of its own frame, under so much light, to `out`."""
    total = 0.0
    for j in range(3):
        total += sin(wave[0] * (WAVES[j, 0] * point[0] + WAVES[j, 1] * point[1] + WAVES[j, 2] * point[2]) + (j + 1.0) * wave[1])
    share = 0.5 + 0.5 * tanh(SOFTNESS * total)
    side = 1.0 + SHADE * tanh(2.0 * (point[0] + 0.5 * point[1]) / size[0])
    for channel in range(3):
        color = side * ((1.0 - share) * colors[0, channel] + share * colors[1, channel])
        out[channel] += min(light * color, 1.0)


@numba.njit(nogil=True, cache=True)
def _cast_rows(  # type: ignore[no-untyped-def]
    shapes, sizes, instances, colors, waves, suns, eyes, turns, rotations, linear, angular,
    background, supersampling, row0, row1, rgb, labels, depths, normals, velocities,
):  # fmt: skip
    """Fill rows `row0` to `row1`."""
    point, normal, total = np.zeros(3), np.zeros(3), np.zeros(3)
    rays = supersampling * supersampling
    for y in range(row0, row1):
        for x in range(rgb.shape[1]):
            total[:] = 0.0
            for sample in range(rays):
                u = x + (sample % supersampling + 0.5) / supersampling
                v = y + (sample // supersampling + 0.5) / supersampling
                k, t = _nearest(shapes, sizes, eyes, turns, u, v)
                if k < 0:
                    total += background
                    continue
                _surface(shapes[k], sizes[k], eyes[k], turns[k], u, v, t, point, normal)
                facing = normal[0] * suns[k, 0] + normal[1] * suns[k, 1] + normal[2] * suns[k, 2]
                _paint(colors[k], waves[k], sizes[k], point, AMBIENT + DIFFUSE * max(facing, 0.0), total)
            for channel in range(3):
                rgb[y, x, channel] = np.uint8(255.0 * total[channel] / rays + 0.5)
            k, t = _nearest(shapes, sizes, eyes, turns, x + 0.5, y + 0.5)
            if k < 0:
                continue
            _surface(shapes[k], sizes[k], eyes[k], turns[k], x + 0.5, y + 0.5, t, point, normal)
            labels[y, x], depths[y, x] = instances[k], t
            for axis in range(3):
                for j in range(3):
                    normals[y, x, axis] += rotations[k, 1, axis, j] * normal[j]
            arm = rotations[k, 0] @ point
            velocities[y, x] = linear[k] + np.cross(angular[k], arm)
