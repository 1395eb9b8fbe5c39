"""What is true of a world at a time: boxes in the world and in the image."""

from typing import Any

import numpy as np

from worldline.box_corners import cut_at_plane
from worldline.worlds.renderer import NEAR_M
from worldline.worlds.scene import Actor, Lens, Scene

_BY_SIDES = [0, 1, 3, 2, 4, 5, 7, 6]  # corners in the order of `worldline.box_corners`


def box_corners(actor: Actor, time_s: float) -> np.ndarray:
    """Return the corners `[8, 3]` of an actor's box in the world; the first four are the bottom, counter-clockwise."""
    x, y, z = actor.length / 2, actor.width / 2, actor.height
    flat = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
    local = np.concatenate([np.column_stack([flat, np.full(4, level)]) for level in (0.0, z)])
    pose = actor.motion.world_from_actor(time_s)
    return local @ pose[:3, :3].T + pose[:3, 3]


def projected_extent(corners: np.ndarray, lens: Lens, world_from_camera: np.ndarray) -> tuple[float, float, float, float] | None:
    """Return the extent (x0, y0, x1, y1) in pixels of a box with corners as of `box_corners`, clipped to the image.

    The box is cut at the near plane first, so that one beside the camera keeps its true extent. None where it is out of view.
    """
    local = (corners[_BY_SIDES] - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    points, ahead = cut_at_plane(local, NEAR_M)
    if not ahead.any():
        return None
    seen = points[ahead]
    xy = lens.focal_px * seen[:, :2] / seen[:, 2:] + np.array([lens.width, lens.height]) / 2
    low = np.clip(xy.min(axis=0), 0, (lens.width, lens.height))
    high = np.clip(xy.max(axis=0), 0, (lens.width, lens.height))
    if high[0] - low[0] <= 0 or high[1] - low[1] <= 0:
        return None
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def boxes_at(scene: Scene, lens: Lens, frame: int, time_s: float, world_from_camera: np.ndarray) -> list[dict[str, Any]]:
    """Return one row per actor for the table `schemas.tracks.TRUTH_BOXES`, as a camera (`[4, 4]`) sees them."""
    rows = []
    for actor in scene.actors:
        pose = actor.motion.world_from_actor(time_s)
        extent = projected_extent(box_corners(actor, time_s), lens, world_from_camera) or (None,) * 4
        rows.append(
            {
                "track_id": actor.track_id,
                "frame": frame,
                "time_s": time_s,
                "class_name": actor.class_name,
                "x": pose[0, 3],
                "y": pose[1, 3],
                "z": pose[2, 3],
                "length": actor.length,
                "width": actor.width,
                "height": actor.height,
                "yaw_rad": float(np.arctan2(pose[1, 0], pose[0, 0])),
                "moving": actor.moving(time_s),
                **dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), extent, strict=True)),
            }
        )
    return rows
