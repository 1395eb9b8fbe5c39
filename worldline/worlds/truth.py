"""What is true of a world at a time: boxes in the world and in the image."""

from typing import Any

import numpy as np

from worldline.worlds.renderer import NEAR_M
from worldline.worlds.scene import Actor, Lens, Scene


def box_corners(actor: Actor, time_s: float) -> np.ndarray:
    """Return the corners `[8, 3]` of an actor's box in the world; the first four are the bottom, counter-clockwise."""
    x, y, z = actor.length / 2, actor.width / 2, actor.height
    flat = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
    local = np.concatenate([np.column_stack([flat, np.full(4, level)]) for level in (0.0, z)])
    pose = actor.motion.world_from_actor(time_s)
    return local @ pose[:3, :3].T + pose[:3, 3]


def projected_extent(corners: np.ndarray, lens: Lens, world_from_camera: np.ndarray) -> tuple[float, float, float, float] | None:
    """Return the extent (x0, y0, x1, y1) in pixels of a projected box, clipped to the image, or None out of view.

    Edges are cut at the near plane first, so that a box beside the camera keeps its true extent.
    """
    local = (corners - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    edges = [
        (a, b) for level in (0, 4) for a, b in zip(range(level, level + 4), [*range(level + 1, level + 4), level], strict=True)
    ]
    edges += [(k, k + 4) for k in range(4)]
    points = [local[k] for k in range(8) if local[k, 2] >= NEAR_M]
    for a, b in edges:
        if (local[a, 2] - NEAR_M) * (local[b, 2] - NEAR_M) < 0:
            share = (NEAR_M - local[a, 2]) / (local[b, 2] - local[a, 2])
            points.append(local[a] + share * (local[b] - local[a]))
    if not points:
        return None
    seen = np.array(points)
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
