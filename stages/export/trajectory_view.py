"""Trajectories of the ego vehicle, the road and the traffic seen from above, as an inline SVG drawing."""

import numpy as np
from markupsafe import Markup

from schemas.driving import RoadMap, Trajectory
from schemas.tracks import Tracks
from worldline.cameras import invert_rigid, transform_points

_WIDTH, _MARGIN_M, _LEAST_HALF_M = 1200.0, 12.0, 9.0
_SCALE_M = (1, 2, 5, 10, 20, 50)


def draw_trajectories(recorded: Trajectory, trajectories: tuple[Trajectory, ...], tracks: Tracks, road_map: RoadMap) -> Markup:
    """Return the drawing: right is where the ego first headed, up its left.

    Novel paths that were rejected are dashed; moving objects are lines that end in a dot where they are last.

    Args:
        recorded: where the ego drove.
        trajectories: where it did not.
        tracks: of the log's objects.
        road_map: lines and areas of the road.
    """
    ego_from_world = invert_rigid(recorded.world_from_ego[0])
    paths = [transform_points(ego_from_world, item.world_from_ego[:, :3, 3])[:, :2] for item in (recorded, *trajectories)]
    every = np.concatenate(paths)
    low, high = every.min(axis=0) - _MARGIN_M, every.max(axis=0) + _MARGIN_M
    low[1], high[1] = min(low[1], -_LEAST_HALF_M), max(high[1], _LEAST_HALF_M)
    scale = _WIDTH / (high[0] - low[0])
    height = (high[1] - low[1]) * scale

    def line(xy: np.ndarray, css: str, closed: bool = False) -> Markup:
        points = " ".join(f"{(x - low[0]) * scale:.1f},{(high[1] - y) * scale:.1f}" for x, y in xy)
        return Markup('<{} points="{}" class="{}"/>').format("polygon" if closed else "polyline", points, css)

    parts = [line(_flat(ego_from_world, area), "drivable", True) for area in road_map.lines("drivable")]
    for kind in ("road_edge", "lane_line", "crosswalk"):
        parts += [line(_flat(ego_from_world, points), kind) for points in road_map.lines(kind)]
    for track in _tracks(tracks):
        xy = _flat(ego_from_world, track)
        if np.ptp(xy, axis=0).max() > 1.0:
            parts.append(line(xy, "object"))
        x, y = (xy[-1, 0] - low[0]) * scale, (high[1] - xy[-1, 1]) * scale
        parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" class="object"/>').format(x, y))
    parts.append(line(paths[0], "recorded"))
    for item, xy in zip(trajectories, paths[1:], strict=True):
        parts.append(line(xy, "novel" if item.accepted else "novel rejected"))
    metres = next((step for step in reversed(_SCALE_M) if step * scale < 0.2 * _WIDTH), _SCALE_M[0])
    bar = Markup(
        '<g class="scale"><line x1="20" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/><text x="20" y="{:.1f}">{} m</text></g>'
    ).format(20 + metres * scale, height - 18, height - 18, height - 26, metres)
    label = f"Top view of the recorded path and {len(trajectories)} novel trajectories"
    return Markup(
        '<svg id="trajectory-view" class="drawing" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}{}</svg>'
    ).format(_WIDTH, height, label, Markup("").join(parts), bar)


def _flat(ego_from_world: np.ndarray, points: np.ndarray) -> np.ndarray:
    return transform_points(ego_from_world, points)[:, :2]


def _tracks(tracks: Tracks) -> list[np.ndarray]:
    """Return the places `[n, 3]` of every object in time."""
    rows = tracks.samples.select(["track_id", "x", "y", "z"]).drop_null()
    track = rows["track_id"].to_numpy()
    xyz = np.stack([rows[name].to_numpy() for name in "xyz"], axis=1)
    return [xyz[track == number] for number in np.unique(track)]
