"""A small published version with everything that a label export can hold: two clips of a street in closed form.

The camera is 1.6 m over the ground, looks 5 degrees down and drives at 8 m/s; a red car ahead pulls away to the left, a
pedestrian stands, and of a third object only the place is known. `free` may be sold, `bound` may not.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from catalogs.catalog import Catalog, Execution
from catalogs.governance import give_terms
from catalogs.versions import publish
from schemas.artifact import Artifact, Files, make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip, Source
from schemas.labels import KINEMATIC_STATES, KINEMATIC_WINDOWS, QUESTIONS, REJECTIONS, Kinematics, Questions
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks

LICENCES = {"free": "CC-BY-4.0", "bound": "CC-BY-NC-4.0"}
COUNT, WIDTH, HEIGHT, FOCAL, CAMERA_HEIGHT = 30, 160, 90, 130.0, 1.6
TIMES_S = np.cumsum(np.r_[0.0, np.tile([0.1, 0.05, 0.15], COUNT)])[:COUNT]  # not quite even
INTRINSICS = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
PITCH_DEG = 5.0
# Camera axes in the world: x right is -y, y down is -z, z forward is x; then it looks down.
AXES = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]) @ Rotation.from_euler("x", -PITCH_DEG, degrees=True).as_matrix()
SIZES = {1: (4.2, 1.8, 1.5), 2: (0.5, 0.6, 1.75)}
CLASSES = {1: "car", 2: "pedestrian", 3: "unknown"}
YAW_RAD = {1: float(np.arctan2(0.9, 10.0)), 2: 2.5, 3: None}
_SCALE: dict[str, Any] = {"scale_source": "camera_height", "scale_sigma": 0.05, "gravity_source": "ground_plane"}


def place(track_id: int, time_s: float) -> np.ndarray:
    """Return the bottom centre of an object in the world, metres (the first camera is at the origin)."""
    where = {1: [12 + 10 * time_s, -1.0 + 0.9 * time_s], 2: [20.0, 4.5], 3: [34.0, -4.5]}
    return np.array([*where[track_id], -CAMERA_HEIGHT])


def project(xyz: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """Return pixels of points in front of a camera."""
    in_camera = (xyz - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    return np.asarray(in_camera[:, :2] / in_camera[:, 2:] * FOCAL + INTRINSICS[:2, 2])


def made_clip(name: str, width: int = WIDTH) -> Clip:
    """A drifting pattern without hard edges, so that a codec hardly changes it."""
    x, y = np.meshgrid(np.arange(width), np.arange(HEIGHT))
    waves = [np.sin(x / 23 + 0.2 * frame + channel) * np.cos(y / 19 - channel) for frame in range(COUNT) for channel in range(3)]
    frames = (128 + 90 * np.array(waves)).astype(np.uint8).reshape(COUNT, 3, HEIGHT, width).transpose(0, 2, 3, 1)
    return Clip(frames=Video.from_array(frames), times_s=TIMES_S, name=name)


def made_path(**changes: Any) -> CameraPath:
    """The camera's drive."""
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    poses[:, :3, :3] = AXES
    poses[:, 0, 3] = 8.0 * TIMES_S
    values: dict[str, Any] = {
        "times_s": TIMES_S, "world_from_camera": poses, "registered": np.ones(COUNT, bool), "intrinsics": INTRINSICS,
        "distortion": np.zeros(4), "width": WIDTH, "height": HEIGHT, "verdict": "moving", **_SCALE, "gravity_sigma_rad": 0.01,
        "reprojection_error_px": 0.4,
    }  # fmt: skip
    return CameraPath(**(values | changes))


def made_tracks(**changes: Any) -> Tracks:
    """Every object in every frame."""
    poses, rows = made_path().world_from_camera, []
    for number, name in CLASSES.items():
        for frame in range(COUNT):
            where = place(number, TIMES_S[frame])
            pixel = project(where[None], poses[frame])[0]
            row = dict.fromkeys(TRACK_SAMPLES.names) | {
                "track_id": number,
                "frame": frame,
                "time_s": TIMES_S[frame],
                "visible": 0.9,
            }
            row |= dict(zip("xyz", where, strict=True)) | {"yaw_rad": YAW_RAD[number], "touches_border": False}
            row |= {"range": float(np.linalg.norm(where - poses[frame, :3, 3]))}
            row |= {"x0_px": pixel[0] - 9, "y0_px": pixel[1] - 20, "x1_px": pixel[0] + 9, "y1_px": pixel[1]}
            row |= dict(zip(("length", "width", "height"), SIZES.get(number, (None, None, None)), strict=True))
            rows.append(row | {"class_name": name})
    objects = [{"track_id": number, "class_name": name, "colour": "red" if number == 1 else "", "first_s": 0.0,
                "last_s": TIMES_S[-1], "samples": COUNT} for number, name in CLASSES.items()]  # fmt: skip
    samples = rows_to_table(TRACK_SAMPLES, [{key: row[key] for key in TRACK_SAMPLES.names} for row in rows])
    return Tracks(
        **({"samples": samples, "objects": rows_to_table(TRACK_OBJECTS, objects), "origin": "video"} | _SCALE | changes)
    )


def made_kinematics(scale_sigma: float = 0.05) -> Kinematics:
    """The car moves, the pedestrian stands."""
    rows = [
        dict.fromkeys(KINEMATIC_STATES.names)
        | {"track_id": number, "time_s": time_s, "state": "moving" if number < 2 else "static"}
        | {"speed_p5": 0.9 * speed, "speed_p50": speed, "speed_p95": 1.1 * speed}
        for number, speed in ((0, 8.0), (1, float(np.hypot(10, 0.9))), (2, 0.0))
        for time_s in np.arange(0, TIMES_S[-1], 0.5)
    ]  # fmt: skip
    windows = make_table(KINEMATIC_WINDOWS, {name: [] for name in KINEMATIC_WINDOWS.names})
    return Kinematics(
        states=rows_to_table(KINEMATIC_STATES, rows), windows=windows, grid_s=0.5, **(_SCALE | {"scale_sigma": scale_sigma})
    )


def made_questions(clip: str) -> Questions:
    """Six questions of two kinds, and two reasons why others were not asked."""
    common = {"start_s": 0.5, "end_s": 2.5, "frames": [5, 25], "wording": 0, "requires_level": 3, "scale_source": "camera_height",
              "scale_sigma": 0.05}  # fmt: skip
    rows: list[dict[str, Any]] = []
    for index in range(5):
        rows.append(
            common | {"kind": "traveled_distance", "question": f"How far does the red car travel, to {index} digits?",
                      "answer": "20 meters", "answer_value": 20.08 + index, "answer_unit": "m", "answer_p5": 18.4,
                      "answer_p95": 21.7, "track_ids": [1], "metric": True}
        )  # fmt: skip
    rows.append(
        common | {"kind": "speed_comparison", "question": "Which is faster: the red car or the pedestrian?", "metric": False,
                  "answer": "the red car", "answer_value": None, "answer_unit": "", "track_ids": [1, 2]}
    )  # fmt: skip
    for index, row in enumerate(rows):
        row["question_id"] = hashlib.sha256(f"{clip}/{index}".encode()).hexdigest()[:32]
    rows.sort(key=lambda row: (row["kind"], row["question_id"]))
    refused = [{"kind": "movement_direction", "reason": "near_bin_edge", "count": 4},
               {"kind": "traveled_distance", "reason": "static", "count": 1}]  # fmt: skip
    full = [dict.fromkeys(QUESTIONS.names) | row for row in rows]
    return Questions(rows=rows_to_table(QUESTIONS, full), rejections=rows_to_table(REJECTIONS, refused))


def artifacts_of(clip: str) -> dict[str, Artifact]:
    """Return what the version holds of a clip, by role. Clips share no artifact, because their licences differ."""
    sigma = {"scale_sigma": 0.05 if clip == "free" else 0.06}
    return {"clip": made_clip(clip), "path": made_path(**sigma), "tracks": made_tracks(**sigma),
            "kinematics": made_kinematics(**sigma), "questions": made_questions(clip)}  # fmt: skip


def publish_street(home: Path, changes: dict[str, Any] | None = None) -> Catalog:
    """Publish `street`; `changes` replaces artifacts of `free` by role (None leaves one out)."""
    catalog = Catalog.open(home)
    roles = {}
    for name, licence in LICENCES.items():
        path = home.parent / f"{name}.mp4"
        path.write_bytes(name.encode())
        source = Source(files=Files({path.name: path}), layout="video", name=path.name)
        with catalog.scratch_folder() as scratch:
            given = catalog.adopt(catalog.put(source, scratch)).digest
        give_terms(catalog, given, licence=licence, attribution=f"{name} people")
        found = artifacts_of(name) | ((changes or {}) if name == "free" else {})
        for role, artifact in found.items():
            if artifact is not None:
                roles[f"{name}/{role}"] = _record(catalog, artifact, f"{name}/{role}", given)
    publish(catalog, "street", {"source": "two"}, roles, {})
    return catalog


def _record(catalog: Catalog, artifact: Artifact, name: str, source: str) -> str:
    with catalog.scratch_folder() as scratch:
        made = catalog.put(artifact, scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        key = hashlib.sha256(name.encode()).hexdigest()
        run = Execution(key=key, stage=f"toy.{name.rpartition('/')[2]}", version=3, code="c", code_files={}, config={}, seed=0,
                        inputs={"source": source}, outputs=(made,), status="ok", started_at=0.0, seconds=1.0,
                        peak_memory_bytes=1, machine={}, packages={}, **fields)  # fmt: skip
        catalog.record(run)
    return made.digest
