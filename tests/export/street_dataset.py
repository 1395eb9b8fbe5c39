"""A drive down a checkered street in exact geometry, as the artifacts that a report is made from.

The camera is 1.6 m over the ground and drives at 8 m/s; a red car ahead pulls away to the left, a blue one stands.
"""

import hashlib
import json
from typing import Any

import cv2
import numpy as np

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.labels import KINEMATIC_STATES, KINEMATIC_WINDOWS, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.media import Video
from schemas.motion import Masks
from schemas.reports import FIGURES, LINEAGE_EDGES, LINEAGE_NODES, Lineage, Metrics
from schemas.scenes import Scene4D
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks

COUNT, WIDTH, HEIGHT, FOCAL, CAMERA_HEIGHT, SPEED = 30, 320, 180, 260.0, 1.6, 8.0
CLIP_NAME = 'Elm & "Oak" <script>window.injected = true</script>'
# Variable frame rate: what a page that counts frames would get wrong.
TIMES_S = np.cumsum(np.r_[0.0, np.tile([0.1, 0.05, 0.15], COUNT)])[:COUNT]
INTRINSICS = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT * 0.42], [0, 0, 1.0]])
# Camera axes in the world: x right is -y, y down is -z, z forward is x.
AXES = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
CAR_SIZE = (4.2, 1.8, 1.5)


def car_position(track_id: int, time_s: float) -> np.ndarray:
    """Bottom centre of a car in the world (origin at the first camera, so the ground is at z = -1.6)."""
    if track_id == 1:
        return np.array([12 + 10 * time_s, -1.0 + 0.9 * time_s, -CAMERA_HEIGHT])
    return np.array([34.0, -4.5, -CAMERA_HEIGHT])


def project(xyz: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    in_camera = (xyz - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    return in_camera[:, :2] / in_camera[:, 2:] * FOCAL + INTRINSICS[:2, 2]


def car_corners(track_id: int, time_s: float) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)])
    return car_position(track_id, time_s) + signs * CAR_SIZE


def checker_rgb(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    light = ((np.floor(x / 1.5) + np.floor(y / 1.5)) % 2).astype(bool)
    return np.where(light[..., None], [168, 164, 150], [96, 100, 92])


def draw_frame(world_from_camera: np.ndarray, time_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Cast a ray through every pixel centre on the ground plane; draw cars as the hulls of their corners."""
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = np.stack([(u - INTRINSICS[0, 2]) / FOCAL, (v - INTRINSICS[1, 2]) / FOCAL, np.ones_like(u)], -1) @ AXES.T
    reach = -CAMERA_HEIGHT / np.minimum(rays[..., 2], -1e-3)
    ground = world_from_camera[:3, 3] + rays * reach[..., None]
    sky = np.array([150, 185, 215]) + 30 * (v / HEIGHT)[..., None]
    hits = (rays[..., 2] < -0.012)[..., None]
    frame = np.where(hits, checker_rgb(ground[..., 0], ground[..., 1]), sky).astype(np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for track_id, color in ((2, (40, 80, 180)), (1, (200, 50, 40))):
        hull = cv2.convexHull(np.round(project(car_corners(track_id, time_s), world_from_camera)).astype(np.int32))
        cv2.fillConvexPoly(frame, hull, color, cv2.LINE_AA)
        if track_id == 1:
            cv2.fillConvexPoly(labels, hull, 1)
    return frame, labels


def make_path(**changes: Any) -> CameraPath:
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, :3, :3] = AXES
    poses[:, 0, 3] = SPEED * TIMES_S
    values: dict[str, Any] = {
        "times_s": TIMES_S,
        "world_from_camera": poses,
        "registered": np.ones(COUNT, bool),
        "intrinsics": INTRINSICS,
        "distortion": np.zeros(4),
        "width": WIDTH,
        "height": HEIGHT,
        "verdict": "moving",
        "scale_source": "camera_height",
        "scale_sigma": 0.05,
        "gravity_source": "ground_plane",
        "gravity_sigma_rad": 0.01,
        "reprojection_error_px": 0.42,
    }
    return CameraPath(**(values | changes))


def make_scene() -> Scene4D:
    """Flat Gaussians on the centres of the checkers, a wall of sky, no cars: a static scene."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(0.25, 60, 0.5), np.arange(-9.75, 10, 0.5)))
    means = np.stack([x, y, np.full_like(x, -CAMERA_HEIGHT)], 1)
    return Scene4D(
        motion_model="static",
        means=means.astype(np.float32),
        quats=np.tile([1, 0, 0, 0], (len(x), 1)).astype(np.float32),
        scales=np.tile([0.24, 0.24, 0.01], (len(x), 1)).astype(np.float32),
        opacities=np.full(len(x), 0.95, np.float32),
        colors=(checker_rgb(x, y) / 255).astype(np.float32),
        motion={},
        start_s=0.0,
        end_s=float(TIMES_S[-1]),
        background=np.array([0.62, 0.75, 0.87]),
        scale_source="camera_height",
        scale_sigma=0.05,
    )


def make_tracks(path: CameraPath) -> Tracks:
    rows = []
    for track_id in (1, 2):
        for frame in range(COUNT):
            place = car_position(track_id, TIMES_S[frame])
            corners = project(car_corners(track_id, TIMES_S[frame]), path.world_from_camera[frame])
            reach = float(np.linalg.norm(place - path.world_from_camera[frame, :3, 3]))
            spread = (0.02 * reach) ** 2
            rows.append(
                dict.fromkeys(TRACK_SAMPLES.names)
                | {"track_id": track_id, "frame": frame, "time_s": TIMES_S[frame], "range": reach, "yaw_rad": 0.0}
                | dict(zip("xyz", place, strict=True))
                | {"cov_xx": 9 * spread, "cov_xy": 0.3 * spread, "cov_yy": spread, "cov_zz": 0.01}
                | dict(zip(("x0_px", "y0_px"), np.clip(corners.min(0), 0, [WIDTH, HEIGHT]), strict=True))
                | dict(zip(("x1_px", "y1_px"), np.clip(corners.max(0), 0, [WIDTH, HEIGHT]), strict=True))
                | dict(zip(("length", "width", "height"), CAR_SIZE, strict=True))
                | {"visible": 1.0, "touches_border": False}
            )
    objects = [
        {"track_id": 1, "class_name": "car", "colour": "red", "first_s": 0.0, "last_s": TIMES_S[-1], "samples": COUNT},
        {"track_id": 2, "class_name": "unknown", "colour": "blue", "first_s": 0.0, "last_s": TIMES_S[-1], "samples": COUNT},
    ]
    return Tracks(
        samples=rows_to_table(TRACK_SAMPLES, rows),
        objects=rows_to_table(TRACK_OBJECTS, objects),
        origin="video",
        scale_source="camera_height",
        scale_sigma=0.05,
        gravity_source="ground_plane",
    )


def make_kinematics() -> Kinematics:
    rows = []
    for track_id, speed in ((0, SPEED), (1, float(np.hypot(10, 0.9))), (2, 0.05)):
        for time_s in np.arange(0, TIMES_S[-1], 0.5):
            band = 0.05 * speed + 0.1 + 0.4 * (track_id == 1) * time_s
            rows.append(
                dict.fromkeys(KINEMATIC_STATES.names)
                | {"track_id": track_id, "time_s": time_s, "speed_p5": max(0.0, speed - band), "speed_p50": speed}
                | {"speed_p95": speed + band, "state": "static" if track_id == 2 else "moving"}
            )
    return Kinematics(
        states=rows_to_table(KINEMATIC_STATES, rows),
        windows=make_table(KINEMATIC_WINDOWS, {name: [] for name in KINEMATIC_WINDOWS.names}),
        grid_s=0.5,
        scale_source="camera_height",
        scale_sigma=0.05,
        gravity_source="ground_plane",
    )


def make_questions() -> Questions:
    common = {"start_s": 0.5, "end_s": 2.5, "frames": [5, 25], "wording": 0, "requires_level": 3, "answer_end_value": None}
    common |= dict.fromkeys(("options", "reference", "fx_px", "fy_px", "cx_px", "cy_px"))
    scale = {"metric": True, "scale_source": "camera_height", "scale_sigma": 0.05}
    rows = []
    for index in range(5):
        rows.append(
            {"question_id": f"{index:064x}", "kind": "traveled_distance", "track_ids": [1], **common, **scale}
            | {"question": "How far does <b>the red car</b> travel between 0.5 s and 2.5 s?", "answer": "About 20 meters."}
            | {"answer_value": 20.08, "answer_unit": "m", "answer_p5": 18.4, "answer_p95": 21.7}
        )
    rows.append(
        {"question_id": "f" * 64, "kind": "speed_comparison", "track_ids": [1, 2], **common, **scale, "metric": False}
        | {"question": "Which is faster, the red car or the blue object?", "answer": "The red car.", "answer_value": None}
        | {"answer_unit": "", "answer_p5": None, "answer_p95": None}
    )
    rows.sort(key=lambda row: (row["kind"], row["question_id"]))
    rejected = [{"kind": "movement_direction", "reason": "within 3 degrees of a bin edge", "count": 4}]
    return Questions(rows=rows_to_table(QUESTIONS, rows), rejections=rows_to_table(REJECTIONS, rejected))


def make_metrics(*rows: tuple[str, float, str, str]) -> Metrics:
    return Metrics(figures=rows_to_table(FIGURES, [dict(zip(FIGURES.names, row, strict=True)) for row in sorted(rows)]))


def make_lineage() -> Lineage:
    """The executions of the flow up to the report, with made-up digests."""
    flow = [
        ("ingest.video", ["source"], ["Clip", "Truth"]),
        ("pose.colmap", ["Clip"], ["CameraPath raw", "PointCloud raw"]),
        ("pose.align", ["Clip", "CameraPath raw", "PointCloud raw"], ["CameraPath", "PointCloud", "GroundPlane"]),
        ("label.point_tracks", ["Clip"], ["PointTracks"]),
        ("label.moving_regions", ["Clip", "CameraPath", "PointCloud", "GroundPlane", "PointTracks"], ["Masks"]),
        ("label.object_tracks", ["Clip", "CameraPath", "PointCloud", "GroundPlane", "PointTracks", "Masks"], ["Tracks"]),
        ("reconstruct.gaussian_flow", ["Clip", "CameraPath", "PointCloud", "Masks"], ["Scene4D", "Metrics fit"]),
        ("label.kinematics", ["Tracks", "CameraPath"], ["Kinematics"]),
        ("label.questions", ["Kinematics", "Tracks", "CameraPath"], ["Questions"]),
        ("pose.evaluate", ["CameraPath", "Truth"], ["Metrics pose"]),
        ("label.evaluate", ["Tracks", "Kinematics", "Questions", "CameraPath", "Truth"], ["Metrics label"]),
    ]
    nodes, edges = [], []
    for stage, taken, made in flow:
        key = hashlib.sha256(stage.encode()).hexdigest()
        config = json.dumps({"iterations": 800, "prompt": "</script><b>x"})
        nodes.append({"execution_key": key, "stage": stage, "version": 1, "config": config, "seed": 7})
        for direction, names in (("in", taken), ("out", made)):
            for name in names:
                digest = hashlib.sha256(name.encode()).hexdigest()
                kind = "Source" if name == "source" else name.split()[0]
                edges.append({"execution_key": key, "slot": name, "direction": direction, "kind": kind, "digest": digest})
    return Lineage(nodes=rows_to_table(LINEAGE_NODES, nodes), edges=rows_to_table(LINEAGE_EDGES, edges))


def make_street() -> dict[str, Any]:
    """Everything that the report stage takes, by parameter name."""
    path = make_path()
    drawn = [draw_frame(pose, time_s) for pose, time_s in zip(path.world_from_camera, TIMES_S, strict=True)]
    random = np.random.default_rng(0)
    xyz = np.stack([random.uniform(0, 60, 800), random.uniform(-9, 9, 800), random.uniform(-1.6, 2, 800)], 1)
    return {
        "clip": Clip(frames=Video.from_array(np.stack([frame for frame, _ in drawn])), times_s=TIMES_S, name=CLIP_NAME),
        "path": path,
        "points": PointCloud(
            xyz=xyz,
            rgb=np.zeros((800, 3), np.uint8),
            error_px=np.ones(800, np.float32),
            observation_frame=np.zeros(0, np.int32),
            observation_point=np.zeros(0, np.int32),
            observation_xy_px=np.zeros((0, 2), np.float32),
        ),
        "ground": GroundPlane(found=True, normal=np.array([0, 0, 1.0]), offset=CAMERA_HEIGHT, sigma=0.02, inliers=400),
        "masks": Masks(
            labels=Video.from_array(np.stack([labels[::2, ::2] for _, labels in drawn]).astype(np.uint16)),
            scale=0.5,
            method="drawn",
        ),
        "scene": make_scene(),
        "tracks": make_tracks(path),
        "kinematics": make_kinematics(),
        "questions": make_questions(),
        "fit_metrics": make_metrics(
            ("fit.psnr", 24.1, "dB", "mean over training frames"),
            ("fit.psnr_held_out", 22.6, "dB", "every 8th frame, not fitted"),
        ),
        "pose_metrics": make_metrics(("pose.ate_rmse", 0.0153, "m", "after similarity alignment, 30 frames")),
        "label_metrics": make_metrics(("label.tracks_found", 2, "tracks", "of 2 true moving tracks")),
        "lineage": make_lineage(),
    }
