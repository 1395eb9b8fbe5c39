"""Canvases: what a world model is told of a view, drawn as pictures: the boxes of road users, and the lines of the road."""

import cv2
import numpy as np

from schemas.driving import RoadMap
from worldline.cameras import invert_rigid, scale_intrinsics
from worldline.driving.boxes import BACK, BOTTOM, FRONT, LEFT, NEAR_M, RIGHT, TOP, Boxes, view_boxes

# Grey level of each face, so that a picture tells which way a box looks; left and right are told apart by front and back.
FACE_SHADES = np.zeros(6, np.uint8)
FACE_SHADES[[FRONT, BACK, LEFT, RIGHT, TOP, BOTTOM]] = (255, 95, 175, 175, 215, 55)
ROAD_CHANNELS = ("lane_line", "road_edge", "crosswalk")
FARTHEST_LINE_M = 75.0
_LINE_SHARE = 20 / 1280  # thickness of a line, as a share of the picture's height (DriveDreamer4D)
_BOX_SAMPLES, _LINE_SAMPLES = 2, 4  # per pixel and axis, averaged
_CUT_BITS = 4  # fractional bits in which OpenCV takes coordinates


def box_canvas(boxes: Boxes, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `[H, W, 3]` uint8: one channel per class group, the nearest box at every pixel in the shade of its face.

    Of boxes that cover one another the nearer one is drawn over the farther one, also across channels; boxes of no group
    hide nothing.

    Args:
        boxes: of the frame.
        world_from_camera: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]` in pixels.
        width: of the canvas in pixels.
        height: of the canvas in pixels.
    """
    shown = boxes.chosen(np.flatnonzero(boxes.groups >= 0))
    fine = _BOX_SAMPLES
    seen = view_boxes(shown, world_from_camera, scale_intrinsics(intrinsics, fine, fine), fine * width, fine * height)
    canvas = np.zeros((fine * height, fine * width, 3), np.uint8)
    rows, columns = np.nonzero(seen.index >= 0)
    canvas[rows, columns, shown.groups[seen.index[rows, columns]]] = FACE_SHADES[seen.face[rows, columns]]
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def road_canvas(road_map: RoadMap, world_from_camera: np.ndarray, intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `[H, W, 3]` uint8: one channel per kind of line (`ROAD_CHANNELS`), 255 on a line.

    Lines are cut at the near plane and `FARTHEST_LINE_M` ahead before they are projected.

    Args:
        road_map: lines in the world.
        world_from_camera: `[4, 4]`, OpenCV axes.
        intrinsics: `[3, 3]` in pixels.
        width: of the canvas in pixels.
        height: of the canvas in pixels.
    """
    fine = _LINE_SAMPLES
    size = (fine * height, fine * width)
    camera_from_world = invert_rigid(world_from_camera)
    matrix = scale_intrinsics(intrinsics, fine, fine) @ camera_from_world[:3]
    # OpenCV draws lines of odd thickness from 3 on two pixels thicker than asked for.
    thickness = max(2 * round((_LINE_SHARE * size[0] - 1) / 2) - 1, 1)
    channels = []
    for kind in ROAD_CHANNELS:
        canvas = np.zeros(size, np.uint8)
        segments = [np.stack([line[:-1], line[1:]], axis=1) for line in road_map.lines(kind) if len(line) > 1]
        if segments:
            ends = np.concatenate(segments)
            pixels = project_segments(ends @ matrix[:, :3].T + matrix[:, 3], size[1], size[0])
            steps = np.rint((pixels - 0.5) * 2**_CUT_BITS).astype(np.int32)
            cv2.polylines(canvas, list(steps), False, 255, thickness, cv2.LINE_8, _CUT_BITS)
        channels.append(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))
    return np.stack(channels, axis=-1)


def project_segments(rays: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the ends `[M, 2, 2]` in pixels of those parts of segments that lie ahead and near the picture.

    Segments are cut in homogeneous coordinates (Blinn and Newell, SIGGRAPH 1978) by the near plane, by
    `FARTHEST_LINE_M`, and by the sides of a picture of three times the size, so that ends stay finite.

    Args:
        rays: `[N, 2, 3]` ends as (u z, v z, z) with u and v in pixels.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    planes = np.array([[0, 0, 1], [0, 0, -1], [1, 0, width], [-1, 0, 2 * width], [0, 1, height], [0, -1, 2 * height]], float)
    offsets = np.array([-NEAR_M, FARTHEST_LINE_M, 0, 0, 0, 0])
    inside = rays @ planes.T + offsets  # [N, 2, 6], negative outside
    first, second = inside[:, 0], inside[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = first / (first - second)
    enter = np.where((first < 0) & (second >= 0), crossing, 0.0).max(axis=1)
    leave = np.where((first >= 0) & (second < 0), crossing, 1.0).min(axis=1)
    kept = ~((first < 0) & (second < 0)).any(axis=1) & (enter < leave)
    start, step = rays[kept, :1], rays[kept, 1:] - rays[kept, :1]
    cut = np.concatenate([start + enter[kept, None, None] * step, start + leave[kept, None, None] * step], axis=1)
    return cut[..., :2] / cut[..., 2:]
