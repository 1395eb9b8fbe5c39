"""Recorded frames seen from where nobody drove: every pixel of a new view looked up where recorded cameras saw its surface.

Image-based rendering with depth from lasers (Shum and Kang, "A review of image-based rendering", VCIP 2000; Buehler et al.,
"Unstructured lumigraph rendering", SIGGRAPH 2001, for the weights): a source counts more the nearer its ray is to the new
one, the finer it saw the surface, and the nearer in time it was taken, and not at all where its own surface lies nearer.
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float64, UInt8

from worldline.cameras import invert_rigid
from worldline.driving.boxes import NEAR_M, Boxes
from worldline.driving.surfaces import STATIC, Surface


@dataclass(frozen=True, eq=False)
class Sources:
    """Recorded frames to look up.

    Attributes:
        frames: `[S, H, W, 3]`.
        world_from_camera: `[S, 4, 4]`.
        intrinsics: `[3, 3]` of the frames.
        surfaces: `S` of them, at the frames' size.
        boxes: of every frame.
    """

    frames: UInt8[np.ndarray, "S H W 3"]
    world_from_camera: Float64[np.ndarray, "S 4 4"]
    intrinsics: Float64[np.ndarray, "3 3"]
    surfaces: list[Surface]
    boxes: list[Boxes]


def warp(
    sources: Sources, use: np.ndarray, frame: int, surface: Surface, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the recorded frames show of a view `[H, W, 3]` uint8, and how far to trust it `[H, W]` from 0 to 1.

    Args:
        sources: recorded frames.
        use: which of them may be looked up, `[n]`.
        frame: the one at whose time the view is.
        surface: of the view.
        world_from_camera: `[4, 4]` of the view.
        intrinsics: `[3, 3]` of the view.
    """
    here = dict(zip(sources.boxes[frame].track_ids.tolist(), sources.boxes[frame].world_from_box(), strict=True))
    tracks = np.array(sorted(here), np.int32)
    # Of a track that is seen at a source's time as well: world there from world here; row 0 is what stands still.
    motions = np.full((len(use), len(tracks) + 1, 4, 4), np.nan)
    motions[:, 0] = np.eye(4)
    for place, source in enumerate(use):
        there = dict(zip(sources.boxes[source].track_ids.tolist(), sources.boxes[source].world_from_box(), strict=True))
        for row, track in enumerate(tracks.tolist()):
            if track in there:
                motions[place, row + 1] = there[track] @ invert_rigid(here[track])
    rows = np.where(surface.label == STATIC, 0, np.searchsorted(tracks, surface.label) + 1).astype(np.int32)
    cameras = invert_rigid(sources.world_from_camera[use])[:, None] @ motions
    depths = np.stack([sources.surfaces[source].depth_m for source in use])
    marks = np.stack([sources.surfaces[source].label for source in use])
    return _look_up(
        sources.frames[use], cameras, sources.intrinsics, depths, marks, np.abs(use - frame).astype(np.float64),
        surface.depth_m, surface.label, rows, surface.sure, world_from_camera, np.linalg.inv(intrinsics), intrinsics[0, 0],
    )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _look_up(
    frames: np.ndarray,
    cameras: np.ndarray,
    intrinsics: np.ndarray,
    depths: np.ndarray,
    marks: np.ndarray,
    apart: np.ndarray,
    depth: np.ndarray,
    label: np.ndarray,
    rows: np.ndarray,
    sure: np.ndarray,
    world_from_camera: np.ndarray,
    inverse: np.ndarray,
    focal: float,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = depth.shape
    count, rows_s, columns_s = depths.shape
    picture = np.zeros((height, width, 3), np.uint8)
    trust = np.zeros((height, width))
    colours = np.zeros((count, 3))
    weights = np.zeros(count)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    for row in range(height):
        for column in range(width):
            x = inverse[0, 0] * (column + 0.5) + inverse[0, 1] * (row + 0.5) + inverse[0, 2]
            y = inverse[1, 1] * (row + 0.5) + inverse[1, 2]
            far = depth[row, column]
            if np.isnan(far):
                continue
            sky = np.isinf(far)
            reach = 1.0 if sky else far
            ray = world_from_camera[:3, 0] * x + world_from_camera[:3, 1] * y + world_from_camera[:3, 2]
            point = ray * reach
            if not sky:
                point = point + world_from_camera[:3, 3]
            length = np.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
            best = 0.0
            for k in range(count):
                weights[k] = 0.0
                pose = cameras[k, rows[row, column]]
                if np.isnan(pose[0, 0]):
                    continue
                shift = 0.0 if sky else 1.0
                a = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2] + shift * pose[0, 3]
                b = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2] + shift * pose[1, 3]
                c = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2] + shift * pose[2, 3]
                if c < NEAR_M:
                    continue
                u, v = fx * a / c + cx - 0.5, fy * b / c + cy - 0.5
                if u < 0 or v < 0 or u > columns_s - 1 or v > rows_s - 1:
                    continue
                left, top = min(int(u), columns_s - 2), min(int(v), rows_s - 2)
                du, dv = u - left, v - top
                seen = True
                if sky:
                    seen = np.isinf(depths[k, int(v + 0.5), int(u + 0.5)])
                else:
                    own = depths[k, int(v + 0.5), int(u + 0.5)]
                    tolerance = 0.03 * c + 0.25
                    seen = abs(own - c) < tolerance and marks[k, int(v + 0.5), int(u + 0.5)] == label[row, column]
                if not seen:
                    continue
                for channel in range(3):
                    colours[k, channel] = (1 - dv) * (
                        (1 - du) * frames[k, top, left, channel] + du * frames[k, top, left + 1, channel]
                    ) + dv * ((1 - du) * frames[k, top + 1, left, channel] + du * frames[k, top + 1, left + 1, channel])
                weight = np.exp(-apart[k] / 8.0) + 1e-3
                if not sky:
                    # the angle between both rays, in the source's camera: the new camera's centre seen from there
                    o = world_from_camera[:3, 3]
                    oa = pose[0, 0] * o[0] + pose[0, 1] * o[1] + pose[0, 2] * o[2] + pose[0, 3]
                    ob = pose[1, 0] * o[0] + pose[1, 1] * o[1] + pose[1, 2] * o[2] + pose[1, 3]
                    oc = pose[2, 0] * o[0] + pose[2, 1] * o[1] + pose[2, 2] * o[2] + pose[2, 3]
                    to_source = np.sqrt(a * a + b * b + c * c)
                    to_view = length * far
                    dot = a * (a - oa) + b * (b - ob) + c * (c - oc)
                    angle = np.arccos(min(1.0, dot / (to_source * to_view)))
                    coarse = max(1.0, (c / fx) / (far / focal))
                    weight = np.exp(-angle / 0.15) / coarse**2 * (0.3 + 0.7 * np.exp(-apart[k] / 8.0))
                edge = min(min(u, columns_s - 1 - u), min(v, rows_s - 1 - v))
                weight *= 0.05 + 0.95 * min(1.0, edge / 8.0)
                weights[k] = weight
                best = max(best, weight)
            if best <= 0.0:
                continue
            total = 0.0
            red, green, blue = 0.0, 0.0, 0.0
            for k in range(count):
                if weights[k] > 0.3 * best:
                    share = (weights[k] / best) ** 3
                    total += share
                    red += share * colours[k, 0]
                    green += share * colours[k, 1]
                    blue += share * colours[k, 2]
            picture[row, column, 0] = int(red / total + 0.5)
            picture[row, column, 1] = int(green / total + 0.5)
            picture[row, column, 2] = int(blue / total + 0.5)
            trust[row, column] = min(1.0, best * 2.0) * (0.3 + 0.7 * sure[row, column])
    return picture, trust
