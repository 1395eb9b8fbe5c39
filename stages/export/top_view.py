"""The camera's path and the objects' tracks seen from above, as an inline SVG drawing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from markupsafe import Markup

from schemas.cameras import CameraPath, PointCloud
from stages.export.shown import ShownTrack, Units, figure, nice_step

_WIDTH, _MIN_HEIGHT, _MAX_HEIGHT, _MARGIN = 1200.0, 300.0, 640.0, 44.0
_ELLIPSE_90 = float(np.sqrt(-2 * np.log(0.1)))  # radius in sigmas that holds 90 % of a two-dimensional normal
_ELLIPSES_PER_TRACK = 6
_LEAST_EXTENT = 1e-6  # metres or scene units


@dataclass(frozen=True)
class View:
    """An orthographic view: `pixel = scale * axes (world - origin)`, y of the drawing downwards.

    Attributes:
        axes: `[2, 3]` unit vectors of the drawing's right and up in the world.
        low, high: `[2]` bounds of the view along the axes.
        scale: pixels per unit of length.
        height: of the drawing in pixels.
    """

    axes: Float64[np.ndarray, "2 3"]
    low: Float64[np.ndarray, "2"]
    high: Float64[np.ndarray, "2"]
    scale: float
    height: float

    def project(self, xyz: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N 2"]:
        """Return drawing coordinates of world points."""
        middle = (self.low + self.high) / 2
        offset = (xyz @ self.axes.T - middle) * self.scale
        return np.stack([_WIDTH / 2 + offset[:, 0], self.height / 2 - offset[:, 1]], axis=1)


def view_axes(path: CameraPath) -> Float64[np.ndarray, "2 3"]:
    """Return the drawing's right (direction of travel) and up (its left), seen from above.

    Above is world z where gravity is known, else the camera's own mean up. A camera that stays put looks to the right.
    """
    poses = path.world_from_camera[path.registered]
    if not len(poses):
        return np.eye(3)[:2]
    up = np.array([0.0, 0.0, 1.0]) if path.gravity_source != "none" else -poses[:, :3, 1].mean(axis=0)
    up /= max(float(np.linalg.norm(up)), 1e-12)
    travel = poses[-1, :3, 3] - poses[0, :3, 3]
    travel -= up * (travel @ up)
    walked = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum()
    if np.linalg.norm(travel) < max(0.1 * float(walked), 1e-9):
        travel = poses[:, :3, 2].mean(axis=0)
        travel -= up * (travel @ up)
    norm = float(np.linalg.norm(travel))
    right = travel / norm if norm > 1e-9 else np.eye(3)[0]
    return np.stack([right, np.cross(up, right)])


def _longest_axes(places: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "2 3"]:
    """Return right and up of a view from above in which places spread most to the right; z is up."""
    if len(places) < 2:
        return np.eye(3)[:2]
    _, directions = np.linalg.eigh(np.cov(places[:, :2].T))
    right = np.append(directions[:, 1], 0.0)
    return np.stack([right, np.cross([0.0, 0.0, 1.0], right)])


def has_extent(path: CameraPath, points: PointCloud, objects: list[ShownTrack]) -> bool:
    """Return whether there is a place besides the camera's own: a fixed camera without depth has nothing to show from above."""
    places = path.world_from_camera[path.registered, :3, 3]
    if not len(places):
        return len(_places(objects)) > 0
    moved = float(np.ptp(places, axis=0).max()) >= _LEAST_EXTENT
    return moved or len(points.xyz) > 0 or len(_places(objects)) > 0


def _places(objects: list[ShownTrack]) -> Float64[np.ndarray, "N 3"]:
    """Return where all objects are in the world."""
    rows = [_position(row) for item in objects for row in item.samples.values() if row["x"] is not None]
    return np.array(rows, float).reshape(-1, 3)


def fit_view(path: CameraPath, points: PointCloud, objects: list[ShownTrack]) -> View:
    """Choose a view that holds the camera's path and the objects; stray objects and points may lie outside."""
    seen = _places(objects)
    axes = view_axes(path) if path.registered.any() else _longest_axes(seen)
    places = path.world_from_camera[path.registered, :3, 3] @ axes.T
    if len(seen):
        low, high = np.percentile(seen @ axes.T, [3, 97], axis=0)
        places = np.concatenate([places, low[None], high[None]])
    if (not len(places) or np.ptp(places, axis=0).max() < _LEAST_EXTENT) and len(points.xyz):
        places = np.concatenate([places, np.percentile(points.xyz @ axes.T, [10, 90], axis=0)])
    if not len(places):
        places = np.zeros((1, 2))
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.maximum(high - low, _LEAST_EXTENT)
    # A straight drive is a line: keep enough of both sides in view to see the street it went through.
    extent = np.maximum(extent, [extent.max() * 0.4, extent.max() * 0.2]) * 1.06
    height = float(np.clip((_WIDTH - 2 * _MARGIN) * extent[1] / extent[0] + 2 * _MARGIN, _MIN_HEIGHT, _MAX_HEIGHT))
    scale = float(min((_WIDTH - 2 * _MARGIN) / extent[0], (height - 2 * _MARGIN) / extent[1]))
    middle = (low + high) / 2
    return View(axes, middle - extent / 2, middle + extent / 2, scale, height)


def draw_top_view(
    path: CameraPath, points: PointCloud, objects: list[ShownTrack], frames: np.ndarray, units: Units, max_points: int
) -> tuple[Markup, dict[str, Any]]:
    """Return the drawing and, for the moving markers, positions by shown frame in the drawing's coordinates.

    The data hold `camera`: `[x, y, degrees]` or None per frame, and `tracks`: by track id
    `[x, y, rx, ry, degrees]` or None per frame. Where nothing but a fixed camera has a place, both are empty.
    """
    if not has_extent(path, points, objects):
        return Markup(), {"camera": [None] * len(frames), "tracks": {}}
    view = fit_view(path, points, objects)
    places = view.project(path.world_from_camera[:, :3, 3])
    parts = [_draw_points(view, points, max_points)]
    parts += [_draw_track(view, item, units) for item in objects]
    parts.append(_draw_camera_path(places, path))
    parts += [_draw_marker(item) for item in objects]
    parts.append(_draw_camera_marker(path))
    parts.append(_draw_scale_bar(view, units))
    label = "Top view of the camera path" + (f" and {len(objects)} object tracks" if objects else "")
    drawing = Markup(
        '<svg id="top-view" class="drawing" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">'
        '<clipPath id="top-view-frame"><rect width="{}" height="{:.0f}"/></clipPath>'
        '<g clip-path="url(#top-view-frame)">{}</g></svg>'
    ).format(int(_WIDTH), view.height, label, int(_WIDTH), view.height, Markup("").join(parts))
    forward = view.project(path.world_from_camera[:, :3, 3] + path.world_from_camera[:, :3, 2]) - places
    camera = [
        [round(float(places[f, 0]), 1), round(float(places[f, 1]), 1), round(float(np.degrees(np.arctan2(*forward[f, ::-1]))), 1)]
        if path.registered[f]
        else None
        for f in frames
    ]
    moving = {str(item.track_id): [_marker(view, item.samples.get(int(f))) for f in frames] for item in objects}
    return drawing, {"camera": camera, "tracks": moving}


def _position(row: dict[str, Any]) -> list[float]:
    return [row["x"], row["y"], row["z"] or 0.0]


def _marker(view: View, row: dict[str, Any] | None) -> list[float] | None:
    if row is None or row["x"] is None:
        return None
    place = view.project(np.array([_position(row)]))[0]
    return [round(float(value), 1) for value in (*place, *_ellipse(view, row))]


def _ellipse(view: View, row: dict[str, Any]) -> tuple[float, float, float]:
    """Return semi-axes in pixels and the angle in degrees (clockwise, as SVG turns) of the 90 % ellipse."""
    if row["cov_xx"] is None or row["cov_yy"] is None:
        return 0.0, 0.0, 0.0
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = [[row["cov_xx"], row["cov_xy"] or 0.0], [row["cov_xy"] or 0.0, row["cov_yy"]]]
    covariance[2, 2] = row["cov_zz"] or 0.0
    values, vectors = np.linalg.eigh(view.axes @ covariance @ view.axes.T)
    radii = _ELLIPSE_90 * np.sqrt(np.maximum(values, 0)) * view.scale
    angle = -np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return float(radii[1]), float(radii[0]), float(angle)


def _draw_points(view: View, points: PointCloud, max_points: int) -> Markup:
    """Draw as many dots as allowed of the points inside the view, the best triangulated ones."""
    if not len(points.xyz):
        return Markup("")
    places = view.project(points.xyz)
    inside = np.flatnonzero(np.all((places >= 0) & (places <= [_WIDTH, view.height]), axis=1))
    inside = inside[np.argsort(points.error_px[inside], kind="stable")[:max_points]]
    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in np.unique(np.round(places[inside]), axis=0))
    return Markup('<path class="points" d="{}"><title>{} triangulated points</title></path>').format(dots, len(inside))


def _draw_track(view: View, item: ShownTrack, units: Units) -> Markup:
    rows = [row for _, row in sorted(item.samples.items()) if row["x"] is not None]
    if not rows:
        return Markup("")
    places = view.project(np.array([_position(row) for row in rows]))
    chosen: list[int] = []
    for index in np.unique(np.linspace(0, len(rows) - 1, _ELLIPSES_PER_TRACK).round().astype(int)):
        apart = np.linalg.norm(places[chosen[-1]] - places[index]) if chosen else np.inf
        if apart > _ellipse(view, rows[index])[0]:  # those of an object that stands would only lie over each other
            chosen.append(int(index))
    ellipses = Markup("").join(
        Markup(
            '<ellipse class="uncertainty" rx="{:.1f}" ry="{:.1f}" transform="translate({:.1f} {:.1f}) rotate({:.1f})">'
            "<title>{} at {:.1f} s, {} {} from the camera; the ellipse holds 90 %</title></ellipse>"
        ).format(
            *_ellipse(view, rows[index])[:2],
            *places[index],
            _ellipse(view, rows[index])[2],
            item.name,
            rows[index]["time_s"],
            figure(rows[index]["range"]) if rows[index]["range"] is not None else "unknown distance",
            units.length if rows[index]["range"] is not None else "",
        )
        for index in chosen
    )
    return Markup(
        '<g class="track k{}"><title>{}: {:.1f} to {:.1f} s, {} samples</title>{}'
        '<polyline class="trail" points="{}"/><circle class="start" cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
    ).format(
        item.palette,
        item.name,
        rows[0]["time_s"],
        rows[-1]["time_s"],
        len(rows),
        ellipses,
        " ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        *places[0],
    )


def _draw_camera_path(places: Float64[np.ndarray, "T 2"], path: CameraPath) -> Markup:
    """Draw registered stretches as lines with an arrow where the drive ends and ticks at whole seconds."""
    runs, indices = [], np.flatnonzero(path.registered)
    for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1):
        if len(run):
            runs.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places[run]))
    if not runs:
        return Markup("")
    seconds = []
    for second in range(int(np.ceil(path.times_s[indices[0]])), int(path.times_s[indices[-1]]) + 1):
        frame = indices[np.argmin(np.abs(path.times_s[indices] - second))]
        seconds.append(
            Markup('<circle class="second" cx="{:.1f}" cy="{:.1f}" r="2.2"><title>camera at {} s</title></circle>').format(
                *places[frame], second
            )
        )
    return Markup('<g class="ego"><title>Camera path</title><path class="trail" d="{}"/>{}{}</g>').format(
        "".join(runs), _draw_arrow(places[indices]), Markup("").join(seconds)
    )


def _draw_arrow(places: Float64[np.ndarray, "n 2"]) -> Markup:
    """Draw an arrow head at the end of the path along its last 24 pixels, if it is that long."""
    far = np.flatnonzero(np.linalg.norm(places - places[-1], axis=1) > 24)
    if not len(far):
        return Markup("")
    direction = places[-1] - places[far[-1]]
    angle = np.degrees(np.arctan2(direction[1], direction[0]))
    return Markup('<path class="arrow" d="M10 0L-4 7L-1 0L-4 -7Z" transform="translate({:.1f} {:.1f}) rotate({:.1f})"/>').format(
        *places[-1], angle
    )


def _draw_marker(item: ShownTrack) -> Markup:
    return Markup(
        '<g class="marker k{}" data-track="{}" hidden><ellipse class="now"/><circle r="5.5"/>'
        '<text x="9" y="-8">#{}</text><title>{}</title></g>'
    ).format(item.palette, item.track_id, item.track_id, item.name)


def _draw_camera_marker(path: CameraPath) -> Markup:
    """Draw the camera as a dot with its horizontal field of view."""
    half = float(np.arctan(path.width / (2 * path.intrinsics[0, 0]))) if path.intrinsics[0, 0] > 0 else 0.5
    x, y = 60 * np.cos(half), 60 * np.sin(half)
    return Markup(
        '<g class="marker ego" data-camera hidden><path class="sight" d="M0 0L{:.1f} {:.1f}A60 60 0 0 0 {:.1f} {:.1f}Z"/>'
        '<circle r="6"/><title>Camera and its field of view</title></g>'
    ).format(x, y, x, -y)


def _draw_scale_bar(view: View, units: Units) -> Markup:
    length = nice_step(_WIDTH / view.scale, 8)
    return Markup(
        '<g class="scale-bar" transform="translate(24 {:.0f})"><path d="M0 -5V0H{:.1f}V-5"/>'
        '<text x="{:.1f}" y="-8">{} {}</text></g>'
    ).format(view.height - 16, length * view.scale, length * view.scale / 2, figure(length), units.length)
