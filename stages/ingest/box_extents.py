"""Boxes seen by a camera: the extent, in pixels, of the part of a 3D box that lies in the image."""

import numpy as np

_NEAR_M = 0.1
# Each face lists four of its corners, numbered as in `worldline.box_corners`, around its border.
_FACES = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]])


def image_extents(
    corners: np.ndarray, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> np.ndarray:
    """Return (x0, y0, x1, y1) in pixels `[N, 4]` of the visible part of each box, NaN where none of it is in view.

    Faces are cut by the five planes of the viewing pyramid (Sutherland and Hodgman, 1974) before they are projected, so
    boxes that reach behind the camera or beyond the border give the extent of exactly what is inside the image.

    Args:
        corners: `[N, 8, 3]` numbered as in `worldline.box_corners`.
        world_from_camera: `[N, 4, 4]`, the pose of the camera that sees each box.
        intrinsics: `[3, 3]`.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    rotation = world_from_camera[:, :3, :3]
    in_camera = (corners - world_from_camera[:, None, :3, 3]) @ rotation
    rays = in_camera @ intrinsics.T  # (u z, v z, z)
    # Each row h means h . ray >= offset inside: near plane, left, right, top, bottom.
    planes = np.array([[0, 0, 1], [1, 0, 0], [-1, 0, width], [0, 1, 0], [0, -1, height]], float)
    offsets = np.array([_NEAR_M, 0, 0, 0, 0])
    inside = rays @ planes.T >= offsets
    extents = np.full((len(corners), 4), np.nan)
    for index in np.flatnonzero(inside.any(axis=1).all(axis=1)):
        points = rays[index]
        if not inside[index].all():
            faces = [_clip_polygon(points[face], planes, offsets) for face in _FACES]
            points = np.concatenate(faces)
            if not len(points):
                continue
        pixels = points[:, :2] / points[:, 2:]
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        limit = np.array([width, height], float)
        extents[index] = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)])
    return extents


def _clip_polygon(polygon: np.ndarray, planes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the part `[K, 3]` of a convex polygon on the inner side of all planes; empty where nothing is left."""
    for plane, offset in zip(planes, offsets, strict=True):
        if not len(polygon):
            break
        distance = polygon @ plane - offset
        following, distance_following = np.roll(polygon, -1, axis=0), np.roll(distance, -1)
        pieces = []
        for here, there, a, b in zip(polygon, following, distance, distance_following, strict=True):
            if a >= 0:
                pieces.append(here)
            if (a >= 0) != (b >= 0):
                pieces.append(here + (there - here) * (a / (a - b)))
        polygon = np.array(pieces).reshape(-1, 3)
    return polygon
