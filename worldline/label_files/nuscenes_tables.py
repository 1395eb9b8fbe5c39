"""nuScenes tables: JSON files that point at each other by token, and pictures (Caesar et al., CVPR 2020).

A clip is a scene. Key frames are those nearest to every half second; all other frames are sweeps of the same camera. The ego
vehicle is the camera with x forward, y left and z up, so that `calibrated_sensor` has no translation. There is no LiDAR
(`num_lidar_pts` is 0) and no map: the devkit asks for a mask, and gets an empty one.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from worldline.label_files.argoverse import EGO_FROM_CAMERA, ego_poses
from worldline.label_files.labelled_clip import Boxes, LabelledClip

VERSION = "v1.0-worldline"
SENSOR = "CAM_FRONT"
_KEY_FRAME_S = 0.5
_TABLES = ("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene", "sample",
           "sample_data", "sample_annotation", "map")  # fmt: skip
_CATEGORIES = {"car": "vehicle.car", "van": "vehicle.car", "truck": "vehicle.truck", "bus": "vehicle.bus.rigid",
               "motorcycle": "vehicle.motorcycle", "cyclist": "vehicle.bicycle", "bicycle": "vehicle.bicycle",
               "pedestrian": "human.pedestrian.adult", "person": "human.pedestrian.adult"}  # fmt: skip
_ATTRIBUTES = {("vehicle", "moving"): "vehicle.moving", ("vehicle", "static"): "vehicle.stopped",
               ("human", "moving"): "pedestrian.moving", ("human", "static"): "pedestrian.standing"}  # fmt: skip
_VISIBILITY = (("1", "v0-40"), ("2", "v40-60"), ("3", "v60-80"), ("4", "v80-100"))


class NuscenesTables:
    """Tables that grow clip by clip and are written at the end."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
        self.rows["visibility"] = [{"token": token, "level": level, "description": f"visibility {level[1:]} %"}
                                   for token, level in _VISIBILITY]  # fmt: skip
        names = sorted(set(_ATTRIBUTES.values()))
        self.rows["attribute"] = [{"token": _token("attribute", name), "name": name, "description": ""} for name in names]
        self.rows["sensor"] = [{"token": _token("sensor", SENSOR), "channel": SENSOR, "modality": "camera"}]
        self.rows["map"] = [
            {"token": _token("map", ""), "log_tokens": [], "category": "semantic_prior", "filename": "maps/empty.png"}
        ]

    def add(self, item: LabelledClip, boxes: Boxes | None, picture: Callable[[int, str], None]) -> int:
        """Add one clip as a scene; return its number of annotations.

        Args:
            item: a clip with a camera path; frames without a pose are left out.
            boxes: of its objects, or None.
            picture: writes a frame to a place relative to the data root.
        """
        assert item.path is not None
        frames = np.flatnonzero(item.path.registered)
        keys = _key_frames(item.times_s, frames)
        micros = item.epoch_ns // 1000 + np.rint(item.times_s * 1e6).astype(np.int64)
        samples = [_token("sample", item.file, frame) for frame in keys]
        log, scene, sensor = (_token(table, item.file) for table in ("log", "scene", "calibrated_sensor"))
        self.rows["map"][0]["log_tokens"].append(log)
        self.rows["log"].append({"token": log, "logfile": item.file, "vehicle": "", "date_captured": "", "location": item.file})
        self.rows["scene"].append(
            {"token": scene, "log_token": log, "nbr_samples": len(keys), "first_sample_token": samples[0],
             "last_sample_token": samples[-1], "name": item.file, "description": item.name}
        )  # fmt: skip
        turn = Rotation.from_matrix(EGO_FROM_CAMERA).as_quat(scalar_first=True)
        self.rows["calibrated_sensor"].append(
            {"token": sensor, "sensor_token": _token("sensor", SENSOR), "translation": [0.0, 0.0, 0.0],
             "rotation": turn.tolist(), "camera_intrinsic": item.path.intrinsics.tolist()}
        )  # fmt: skip
        for place, frame in enumerate(keys):
            self.rows["sample"].append(
                {"token": samples[place], "timestamp": int(micros[frame]), "scene_token": scene, **_neighbours(samples, place)}
            )
        self._add_frames(item, frames, keys, samples, micros, sensor, picture)
        return 0 if boxes is None else self._add_boxes(item, boxes, dict(zip(keys.tolist(), samples, strict=True)))

    def _add_frames(
        self,
        item: LabelledClip,
        frames: np.ndarray,
        keys: np.ndarray,
        samples: list[str],
        micros: np.ndarray,
        sensor: str,
        picture: Callable[[int, str], None],
    ) -> None:
        assert item.path is not None
        poses = ego_poses(item)
        tokens = [_token("sample_data", item.file, frame) for frame in frames]
        for place, frame in enumerate(frames):
            key = bool(np.isin(frame, keys))
            file = f"{'samples' if key else 'sweeps'}/{SENSOR}/{item.file}__{SENSOR}__{micros[frame]}.jpg"
            picture(int(frame), file)
            pose = _token("ego_pose", item.file, frame)
            turn = Rotation.from_matrix(poses[frame, :3, :3]).as_quat(scalar_first=True)
            self.rows["ego_pose"].append(
                {"token": pose, "timestamp": int(micros[frame]), "rotation": turn.tolist(),
                 "translation": poses[frame, :3, 3].tolist()}
            )  # fmt: skip
            self.rows["sample_data"].append(
                {"token": tokens[place], "sample_token": samples[int(np.abs(keys - frame).argmin())], "ego_pose_token": pose,
                 "calibrated_sensor_token": sensor, "timestamp": int(micros[frame]), "fileformat": "jpg", "is_key_frame": key,
                 "height": item.path.height, "width": item.path.width, "filename": file, **_neighbours(tokens, place)}
            )  # fmt: skip

    def _add_boxes(self, item: LabelledClip, boxes: Boxes, samples: dict[int, str]) -> int:
        states = _states(item)
        total = 0
        for number in np.unique(boxes.track_id):
            rows = np.flatnonzero((boxes.track_id == number) & np.isin(boxes.frame, list(samples)))
            if not len(rows):
                continue
            rows = rows[np.argsort(boxes.frame[rows])]
            category = self._category(str(boxes.class_name[rows[0]]))
            tokens = [_token("sample_annotation", item.file, number, boxes.frame[row]) for row in rows]
            instance = _token("instance", item.file, number)
            self.rows["instance"].append(
                {"token": instance, "category_token": _token("category", category), "nbr_annotations": len(rows),
                 "first_annotation_token": tokens[0], "last_annotation_token": tokens[-1]}
            )  # fmt: skip
            for place, row in enumerate(rows):
                length, width, height = boxes.size[row].tolist()
                state = states(int(number), float(item.times_s[boxes.frame[row]]))
                attribute = _ATTRIBUTES.get((category.partition(".")[0], state))
                turn = Rotation.from_euler("z", boxes.yaw_rad[row]).as_quat(scalar_first=True)
                self.rows["sample_annotation"].append(
                    {"token": tokens[place], "sample_token": samples[int(boxes.frame[row])], "instance_token": instance,
                     "visibility_token": _visibility(boxes.visible[row]),
                     "attribute_tokens": [_token("attribute", attribute)] if attribute else [],
                     "translation": boxes.centre[row].tolist(), "size": [width, length, height], "rotation": turn.tolist(),
                     "num_lidar_pts": 0, "num_radar_pts": 0, **_neighbours(tokens, place)}
                )  # fmt: skip
            total += len(rows)
        return total

    def _category(self, name: str) -> str:
        category = _CATEGORIES.get(name, f"movable_object.{name.replace(' ', '_')}")
        if all(row["name"] != category for row in self.rows["category"]):
            index = len(self.rows["category"])
            self.rows["category"].append(
                {"token": _token("category", category), "name": category, "description": name, "index": index}
            )
        return category

    def write(self, folder: Path) -> None:
        """Write all tables and the empty map under a data root."""
        from PIL import Image

        (folder / VERSION).mkdir()
        (folder / "maps").mkdir()
        Image.new("L", (1, 1)).save(folder / "maps" / "empty.png")
        for name, rows in self.rows.items():
            (folder / VERSION / f"{name}.json").write_text(json.dumps(rows, indent=0) + "\n")


def _key_frames(times_s: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the frames nearest to every half second from the first one on."""
    grid = np.arange(times_s[frames[0]], times_s[frames[-1]] + 1e-6, _KEY_FRAME_S)
    return frames[np.unique(np.abs(times_s[frames][None] - grid[:, None]).argmin(1))]


def _neighbours(tokens: list[str], place: int) -> dict[str, str]:
    return {"prev": tokens[place - 1] if place else "", "next": tokens[place + 1] if place + 1 < len(tokens) else ""}


def _visibility(share: float) -> str:
    """Return the token of a share that is seen, "" where it is not known."""
    return "" if not np.isfinite(share) else str(1 + int(np.searchsorted([0.4, 0.6, 0.8], share, side="right")))


def _states(item: LabelledClip) -> Callable[[int, float], str]:
    """Return what tells whether a track is "moving" or "static" at a time: the state at the nearest time of the grid."""
    if item.kinematics is None:
        return lambda number, time_s: ""
    table = item.kinematics.states
    ids, times = table["track_id"].to_numpy(), table["time_s"].to_numpy()
    words = table["state"].cast(pa.string()).to_pylist()

    def state(number: int, time_s: float) -> str:
        own = np.flatnonzero(ids == number)
        return words[own[np.abs(times[own] - time_s).argmin()]] or "" if len(own) else ""

    return state


def _token(*names: Any) -> str:
    return hashlib.sha256("/".join(str(name) for name in names).encode()).hexdigest()[:32]
