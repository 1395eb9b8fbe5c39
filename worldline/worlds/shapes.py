"""Meshes of simple shapes, each with texture coordinates and outward normals."""

import cv2
import numpy as np

from worldline.worlds.scene import Mesh


def quad(corners: np.ndarray, texture: np.ndarray, *, specular: float = 0.0, casts_shadow: bool = True) -> Mesh:
    """Return a rectangle from its corners `[4, 3]`: bottom left, bottom right, top right, top left, seen from outside."""
    corners = np.asarray(corners, float)
    normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
    normals = np.tile(normal / np.linalg.norm(normal), (4, 1))
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    return Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), uv, normals, texture, specular, casts_shadow)


def grid(points: np.ndarray, texture: np.ndarray, *, specular: float = 0.0, casts_shadow: bool = True) -> Mesh:
    """Return a smooth sheet through points `[rows, columns, 3]`.

    The texture runs with u along columns and v along rows; the outside is where columns x rows points.
    """
    rows, columns, _ = points.shape
    along_rows, along_columns = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = np.cross(along_columns, along_rows)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None, :]).ravel()
    a, b, c, d = corner, corner + 1, corner + columns + 1, corner + columns
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int64)
    uv = np.stack([u, v], -1).reshape(-1, 2)
    return Mesh(points.reshape(-1, 3).astype(float), faces, uv, normals.reshape(-1, 3), texture, specular, casts_shadow)


def merged(meshes: list[Mesh]) -> Mesh:
    """Join meshes that share the first one's texture and material."""
    starts = np.concatenate([[0], np.cumsum([len(mesh.points) for mesh in meshes])[:-1]])
    return Mesh(
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        meshes[0].texture,
        meshes[0].specular,
        meshes[0].casts_shadow,
        meshes[0].lit,
    )


def box(size: tuple[float, float, float], texture: np.ndarray, *, specular: float = 0.0) -> Mesh:
    """Return a box with its bottom centre at the origin; every side shows the whole texture."""
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    sides = [
        [(x, -y, 0), (x, y, 0), (x, y, z), (x, -y, z)],
        [(-x, y, 0), (-x, -y, 0), (-x, -y, z), (-x, y, z)],
        [(x, y, 0), (-x, y, 0), (-x, y, z), (x, y, z)],
        [(-x, -y, 0), (x, -y, 0), (x, -y, z), (-x, -y, z)],
        [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)],
        [(-x, y, 0), (x, y, 0), (x, -y, 0), (-x, -y, 0)],
    ]
    return merged([quad(np.array(side), texture, specular=specular) for side in sides])


def tube(path: np.ndarray, radius: np.ndarray, texture: np.ndarray, *, sides: int = 10, specular: float = 0.0) -> Mesh:
    """Return a round tube around a polyline `[K, 3]` with one radius per point; zero radii close it."""
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # any fixed vector that is not along the tube gives a steady frame for the gentle bends used here
    helper = np.array([0.0, 1.0, 0.0]) if abs(direction[:, 1]).max() < 0.9 else np.array([1.0, 0.0, 0.0])
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(direction, first)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None]
    mesh = grid(path[:, None] + radius[:, None, None] * ring, texture, specular=specular)
    return Mesh(mesh.points, mesh.faces, mesh.uv, ring.reshape(-1, 3), texture, specular)


def ellipsoid(radii: tuple[float, float, float], texture: np.ndarray, *, centre: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    """Return an ellipsoid; the texture wraps around z."""
    latitude, longitude = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 9), np.linspace(0, 2 * np.pi, 13), indexing="ij")
    unit = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], -1)
    mesh = grid(unit * np.asarray(radii) + np.asarray(centre), texture)
    normals = (unit / np.asarray(radii)).reshape(-1, 3)
    return Mesh(mesh.points, mesh.faces, mesh.uv, normals / np.linalg.norm(normals, axis=1, keepdims=True), texture)


def leaf_crown(
    rng: np.random.Generator, texture: np.ndarray, radii: tuple[float, float, float], leaves: int, leaf_m: float
) -> Mesh:
    """Return a tree crown around the origin: irregular leaf clumps in the shells of a few overlapping balls.

    Normals point away from the crown's centre, so that the whole crown is shaded like one round body.
    """
    lobes = rng.normal(size=(7, 3)) * 0.38
    lobes[0] = 0
    direction = rng.normal(size=(leaves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    unit = lobes[rng.integers(0, len(lobes), leaves)] + direction * rng.uniform(0.35, 0.68, (leaves, 1))
    centre = unit * np.asarray(radii)
    # leaves face roughly outwards, with a random tilt
    facing = direction + 0.8 * rng.normal(size=(leaves, 3))
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    first = np.cross(facing, rng.normal(size=(leaves, 3)))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(facing, first)
    angle = np.arange(6) * np.pi / 3
    reach = leaf_m * rng.uniform(0.45, 1.0, (leaves, 6))
    rim = reach[..., None] * (np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None])
    points = (centre[:, None] + rim).reshape(-1, 3)
    base = (np.arange(leaves) * 6)[:, None]
    fan = np.concatenate([base + np.array([[0, k, k + 1]]) for k in range(1, 5)]).astype(np.int64)
    patch = rng.uniform(0.05, 0.95, (leaves, 1, 2)) + 0.05 * np.stack([np.cos(angle), np.sin(angle)], -1)[None]
    outward = unit + 0.5 * direction + np.array([0, 0, 0.25])
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    return Mesh(points, fan, patch.reshape(-1, 2), np.repeat(outward, 6, axis=0), texture)


def shadow_outline(points: np.ndarray, sun_direction: np.ndarray, ground_m: float = 0.0) -> np.ndarray:
    """Return the convex outline `[K, 2]` of the shadow that points `[N, 3]` throw on the plane z = `ground_m`."""
    fallen = points[:, :2] - (points[:, 2:] - ground_m) * (sun_direction[:2] / sun_direction[2])
    return cv2.convexHull(fallen.astype(np.float32))[:, 0].astype(float)
