"""Logs of a bare street: vehicles are bright blocks on a dark ground with one white line, drawn from their true boxes."""

import cv2
import numpy as np

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import MAP_ELEMENTS, RoadMap
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from worldline.detection.agents import projected_extents

WIDTH, HEIGHT, FOCAL = 96, 64, 80.0
INTRINSICS = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
SIZE = (4.2, 1.8, 1.6)


def drawn_log(seed: int, frames: int = 12) -> tuple[Clip, CameraPath, Tracks, RoadMap]:
    """Return clip, path, tracks and map of a log."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / 10
    poses = np.tile(np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]]), (frames, 1, 1))
    poses[:, 0, 3] = 0.5 * np.arange(frames)
    line = np.array([[-20.0, -2.0, 0], [120, -2.0, 0]])
    starts = np.array([[rng.uniform(9, 14), 0.5, 0], [rng.uniform(16, 26), 5.0, 0], [rng.uniform(16, 22), -5.0, 0]])
    yaws = np.array([0.0, np.pi, 0.3])
    images, rows = [], []
    for frame in range(frames):
        centres = starts + np.array([0.6, 0, 0]) * frame
        image = rng.integers(20, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        far = line_ends(line, poses[frame])
        cv2.line(image, *far, (230, 230, 230), 3)
        boxes = projected_extents(centres, np.tile(SIZE, (3, 1)), yaws, poses[frame], INTRINSICS)
        for index in np.argsort(-centres[:, 0]):
            x0, y0, x1, y1 = boxes[index]
            y, x = np.arange(HEIGHT)[:, None] + 0.5, np.arange(WIDTH)[None] + 0.5
            image[(x > x0) & (x < x1) & (y > y0) & (y < y1)] = (190, 60 + 50 * index, 80)
        images.append(image)
        for index, (centre, box) in enumerate(zip(centres, boxes, strict=True)):
            row = dict.fromkeys(TRACK_SAMPLES.names) | {"track_id": index + 1, "frame": frame, "time_s": float(times[frame])}
            row |= dict(zip("xyz", centre, strict=True)) | dict(zip(("length", "width", "height"), SIZE, strict=True))
            row |= dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), box, strict=True)) | {"yaw_rad": yaws[index]}
            rows.append(row)
    rows.sort(key=lambda row: (row["track_id"], row["frame"]))
    objects = {
        "track_id": [1, 2, 3],
        "class_name": ["car", "van", "truck"],
        "colour": [""] * 3,
        "first_s": [0.0] * 3,
        "last_s": [float(times[-1])] * 3,
        "samples": [frames] * 3,
    }
    path = CameraPath(
        times_s=times,
        world_from_camera=poses,
        registered=np.ones(frames, bool),
        intrinsics=INTRINSICS,
        distortion=np.zeros(4),
        width=WIDTH,
        height=HEIGHT,
        verdict="moving",
        scale_source="given",
        scale_sigma=0.0,
        gravity_source="given",
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.0,
    )
    tracks = Tracks(
        samples=rows_to_table(TRACK_SAMPLES, rows),
        objects=make_table(TRACK_OBJECTS, objects),
        origin="boxes",
        scale_source="given",
        scale_sigma=0.0,
        gravity_source="given",
    )
    elements = {"element_id": [0], "kind": ["lane_line"], "first_point": [0], "points": [2]}
    road_map = RoadMap(make_table(MAP_ELEMENTS, elements), line)
    clip = Clip(frames=Video.from_array(np.stack(images)), times_s=times, name=f"drawn {seed}", intrinsics=INTRINSICS)
    return clip, path, tracks, road_map


def line_ends(line: np.ndarray, pose: np.ndarray) -> list[list[int]]:
    """Return the two ends in whole pixels of a straight line on the ground from 2 m to 75 m ahead."""
    depths = np.array([2.0, 75.0])
    right, down = pose[1, 3] - line[0, 1], pose[2, 3]
    return np.stack([WIDTH / 2 + FOCAL * right / depths, HEIGHT / 2 + FOCAL * down / depths], 1).astype(int).tolist()
