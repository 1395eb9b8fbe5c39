"""Footprints on the ground: oriented rectangles, how far apart they are, and whether they lie on the road."""

import numba
import numpy as np


def rectangle(xy: np.ndarray, yaw_rad: np.ndarray, length_m: np.ndarray | float, width_m: np.ndarray | float) -> np.ndarray:
    """Return the corners `[..., 4, 2]`, counter-clockwise, of rectangles around `xy` `[..., 2]` with headings `[...]`."""
    along = np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], axis=-1) * np.asarray(length_m)[..., None] / 2
    across = np.stack([-np.sin(yaw_rad), np.cos(yaw_rad)], axis=-1) * np.asarray(width_m)[..., None] / 2
    return xy[..., None, :] + np.stack([along - across, along + across, across - along, -along - across], axis=-2)


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distance between convex quadrilaterals `[..., 4, 2]`, 0 where they touch or overlap.

    Two convex polygons that do not overlap are separated along a normal of one of their edges (the separating axis theorem),
    and are then as far apart as the nearest corner of one is from an edge of the other.
    """
    apart = _separated(first, second) | _separated(second, first)
    nearest = np.minimum(_corners_to_edges(first, second), _corners_to_edges(second, first))
    return np.where(apart, nearest, 0.0)


def _separated(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    edges = np.roll(first, -1, axis=-2) - first
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=-1)  # outwards: the corners go round counter-clockwise
    own = (normals * first).sum(axis=-1)
    other = (normals[..., :, None, :] * second[..., None, :, :]).sum(axis=-1).min(axis=-1)
    return (other > own).any(axis=-1)


def _corners_to_edges(corners: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    start = polygon[..., None, :, :]
    edge = np.roll(polygon, -1, axis=-2)[..., None, :, :] - start
    offset = corners[..., :, None, :] - start
    share = np.clip((offset * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-12), 0, 1)
    return np.linalg.norm(offset - share[..., None] * edge, axis=-1).min(axis=(-2, -1))


def outline_and_inside(corners: np.ndarray, spacing_m: float = 0.25) -> np.ndarray:
    """Return points `[..., P, 2]` that cover rectangles `[..., 4, 2]` at this spacing or closer, border and corners included."""
    sides = np.linalg.norm(corners[..., [1, 3], :] - corners[..., [0, 0], :], axis=-1).reshape(-1, 2).max(axis=0)
    counts = np.maximum(np.ceil(sides / spacing_m).astype(int) + 1, 2)
    shares = np.stack(np.meshgrid(*(np.linspace(0, 1, count) for count in counts), indexing="ij"), axis=-1).reshape(-1, 2)
    one, other = (corners[..., side, :] - corners[..., 0, :] for side in (1, 3))
    return corners[..., 0, None, :] + shares[:, :1] * one[..., None, :] + shares[:, 1:] * other[..., None, :]


def covered(points: np.ndarray, polygons: list[np.ndarray], slack_m: float = 0.05) -> np.ndarray:
    """Return which points `[..., 2]` lie in any of the polygons `[n, 2]` or closer than the slack to one.

    The slack closes the seams between areas that a map draws side by side.
    """
    flat = points.reshape(-1, 2)
    found = np.zeros(len(flat), bool)
    for polygon in polygons:
        low, high = polygon.min(axis=0) - slack_m, polygon.max(axis=0) + slack_m
        near = np.flatnonzero(~found & ((flat >= low) & (flat <= high)).all(axis=1))
        if len(near):
            found[near] = _in_polygon(flat[near], np.ascontiguousarray(polygon, np.float64), slack_m)
    return found.reshape(points.shape[:-1])


@numba.njit(cache=True)
def _in_polygon(points: np.ndarray, polygon: np.ndarray, slack_m: float) -> np.ndarray:
    """Return which points `[N, 2]` lie in a polygon, by the number of edges that a ray to the right crosses, or beside it."""
    found = np.zeros(len(points), np.bool_)
    for number in range(len(points)):
        x, y = points[number]
        for edge in range(len(polygon)):
            x0, y0 = polygon[edge - 1]
            across, up = polygon[edge][0] - x0, polygon[edge][1] - y0
            if (y0 > y) != (polygon[edge][1] > y) and x < x0 + (y - y0) * across / up:
                found[number] = not found[number]
        if found[number]:
            continue
        for edge in range(len(polygon)):
            x0, y0 = polygon[edge - 1]
            across, up = polygon[edge][0] - x0, polygon[edge][1] - y0
            share = ((x - x0) * across + (y - y0) * up) / max(across * across + up * up, 1e-12)
            share = min(max(share, 0.0), 1.0)
            if (x - x0 - share * across) ** 2 + (y - y0 - share * up) ** 2 <= slack_m**2:
                found[number] = True
                break
    return found
