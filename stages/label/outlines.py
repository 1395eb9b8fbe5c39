"""Outlines of labelled regions: box edges that can be seen, share of the object that is visible, colour, own tracks."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from schemas.clips import Clip
from schemas.motion import Masks, PointTracks
from stages.label.region_masks import painted_reach

LEAST_FRAMES = 8  # of a track of the background


@dataclass(frozen=True)
class Outlines:
    """One object over the frames from its first to its last.

    Attributes:
        name: label in the masks.
        frames: `[F]` consecutive frame indices.
        seen: `[F]` whether the region exists.
        edges: `[F, 4]` x0, y0, x1, y1 in clip pixels; NaN where the edge is cut by the image border or an occluder.
        clipped_edges: the same without that censoring.
        visible_share: `[F]` share of the region's box that is not covered by nearer regions or cut off.
        body_rgb: `[3]` over the region's own body (no edges, no roof and panes, no shadow) in all frames.
        road_rgb: `[3]` of the unlabelled strip in front of it; NaN where it was never seen.
        xy_px, point_visible: tracks whose points lie on the region in most of their frames there.
    """

    name: int
    frames: Int64[np.ndarray, " F"]
    seen: Bool[np.ndarray, " F"]
    edges: Float64[np.ndarray, "F 4"]
    clipped_edges: Float64[np.ndarray, "F 4"]
    visible_share: Float64[np.ndarray, " F"]
    body_rgb: Float64[np.ndarray, "3"]
    road_rgb: Float64[np.ndarray, "3"]
    xy_px: Float32[np.ndarray, "N F 2"]
    point_visible: Bool[np.ndarray, "N F"]


def measure_outlines(
    clip: Clip, masks: Masks, point_tracks: PointTracks, painted_reach_px: float
) -> tuple[list[Outlines], np.ndarray]:
    """Measure all objects in one pass over frames and masks, in order of their label; and which tracks `[N]` lie on none.

    Args:
        clip: frames.
        masks: regions.
        point_tracks: of the same clip.
        painted_reach_px: how far at most the masks were painted beyond the tracked points; the lower edge, where the
            object stands, is measured without it.
    """
    frame_count = len(clip.frames)
    measured: dict[int, dict[int, tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]]] = {}
    track_label = np.zeros(point_tracks.visible.shape, np.uint16)
    for frame, (image, labels) in enumerate(zip(clip.frames, masks.labels, strict=True)):
        here = np.flatnonzero(point_tracks.visible[:, frame])
        pixel = (point_tracks.xy_px[here, frame] * masks.scale).astype(int)
        pixel = np.clip(pixel, 0, np.array(labels.shape[::-1]) - 1)
        track_label[here, frame] = labels[pixel[:, 1], pixel[:, 0]]
        if not labels.any():
            continue
        small = cv2.resize(image, labels.shape[::-1], interpolation=cv2.INTER_AREA)
        for name in np.unique(labels[labels > 0]):
            measured.setdefault(int(name), {})[frame] = _measure(labels, int(name), small, masks.scale, painted_reach_px)
    outlines = []
    for name in sorted(measured):
        frames = np.arange(min(measured[name]), max(measured[name]) + 1)
        outlines.append(_collect(name, frames, measured[name], track_label, point_tracks))
    assert all(outline.frames[-1] < frame_count for outline in outlines)
    seen = point_tracks.visible.sum(axis=1)
    # what comes and goes is dragged along by an edge, or was never there
    return outlines, (seen >= LEAST_FRAMES) & ((track_label > 0).sum(axis=1) <= 0.2 * seen)


def _measure(
    labels: np.ndarray, name: int, image: np.ndarray, scale: float, painted_reach_px: float
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """Edges (censored and not) in clip pixels, visible share, body and road colour of one region in one frame."""
    height, width = labels.shape
    region = labels == name
    columns, rows = np.flatnonzero(region.any(axis=0)), np.flatnonzero(region.any(axis=1))
    left, right, top = columns[0], columns[-1], rows[0]
    inside = region[:, columns]
    lowest = height - 1 - inside[::-1].argmax(axis=0)
    # the lowest columns stand on the road; a few of them are shadow or a stray track
    bottom = float(np.percentile(lowest, 85))
    edges = np.array([left, top, right + 1, bottom + 1], np.float64) / scale
    edges[3] -= painted_reach((edges[3] - edges[1]) / 1.1, painted_reach_px)
    censored = edges.copy()
    border = 2
    censored[0] = np.nan if left < border or _covered(labels, region, -1) else edges[0]
    censored[1] = np.nan if top < border else edges[1]
    censored[2] = np.nan if right >= width - border or _covered(labels, region, 1) else edges[2]
    below = np.clip(lowest + 2, 0, height - 1)
    blocked = (labels[below, columns] != 0) & (labels[below, columns] != name)
    low = lowest >= np.percentile(lowest, 60)
    cut_off = (lowest >= height - border).mean() > 0.1
    censored[3] = np.nan if cut_off or blocked[low].mean() > 0.4 else edges[3]
    others = (labels[top : int(bottom) + 1, left : right + 1] != name) & (labels[top : int(bottom) + 1, left : right + 1] != 0)
    visible_share = 1.0 - float(others.mean()) if others.size else 1.0
    return censored, edges, visible_share, *_colours(labels, region, image, (left, top, right, round(bottom)))


def _colours(
    labels: np.ndarray, region: np.ndarray, image: np.ndarray, box: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Colour of a region's body (the brighter half of its middle, above the shadow) and of the road before it."""
    left, top, right, bottom = box
    width, height = right - left + 1, bottom - top + 1
    body = np.zeros_like(region)
    body[top + int(0.25 * height) : top + int(0.75 * height) + 1, left + int(0.2 * width) : left + int(0.8 * width) + 1] = True
    pixels = image[body & region] if (body & region).any() else image[region]
    # paint is brighter than panes, tyres, grille and gaps, which fill up to half of a vehicle's back
    light = pixels.sum(axis=1)
    pixels = pixels[light >= np.median(light)]
    strip = slice(bottom + 1 + int(0.1 * height), bottom + 2 + int(0.5 * height))
    road = image[strip, left : right + 1][labels[strip, left : right + 1] == 0]
    return np.median(pixels, axis=0), np.median(road, axis=0) if len(road) else np.full(3, np.nan)


def _covered(labels: np.ndarray, region: np.ndarray, side: int) -> bool:
    """Whether most of the region's rows end at another region on this side (-1 left, 1 right)."""
    rows = np.flatnonzero(region.any(axis=1))
    flipped = region[rows] if side < 0 else region[rows, ::-1]
    first = flipped.argmax(axis=1)
    column = first - 2 if side < 0 else region.shape[1] - 1 - first + 2
    column = np.clip(column, 0, region.shape[1] - 1)
    neighbour = labels[rows, column]
    own = labels[region][0]
    return bool(((neighbour != 0) & (neighbour != own)).mean() > 0.5)


def _collect(name: int, frames: np.ndarray, measured: dict, track_label: np.ndarray, point_tracks: PointTracks) -> Outlines:
    span = slice(int(frames[0]), int(frames[-1]) + 1)
    seen = np.array([frame in measured for frame in frames])
    nothing = (np.full(4, np.nan), np.full(4, np.nan), 0.0, np.zeros(3), np.full(3, np.nan))
    values = [measured.get(int(frame), nothing) for frame in frames]
    visible = point_tracks.visible[:, span] & seen
    on_region = (track_label[:, span] == name) & visible
    own = np.flatnonzero(on_region.sum(axis=1) > 0.6 * np.maximum(visible.sum(axis=1), 1))
    return Outlines(
        name=name,
        frames=frames,
        seen=seen,
        edges=np.array([value[0] for value in values]),
        clipped_edges=np.array([value[1] for value in values]),
        visible_share=np.array([value[2] for value in values]),
        body_rgb=np.median([value[3] for value, exists in zip(values, seen, strict=True) if exists], axis=0),
        road_rgb=_median_known(np.array([value[4] for value in values])),
        xy_px=point_tracks.xy_px[own, span],
        point_visible=point_tracks.visible[own, span],
    )


def cut_outline(outline: Outlines, name: int, stretch: slice) -> Outlines:
    """Return a stretch of the frames of an outline under a name."""
    return replace(
        outline,
        name=name,
        frames=outline.frames[stretch],
        seen=outline.seen[stretch],
        edges=outline.edges[stretch],
        clipped_edges=outline.clipped_edges[stretch],
        visible_share=outline.visible_share[stretch],
        xy_px=outline.xy_px[:, stretch],
        point_visible=outline.point_visible[:, stretch],
    )


def _median_known(rows: np.ndarray) -> np.ndarray:
    """Median over the rows without NaN; NaN where there is none."""
    known = rows[np.isfinite(rows).all(axis=1)]
    return np.median(known, axis=0) if len(known) else np.full(rows.shape[1], np.nan)
