"""Argoverse 2's sensor dataset: feather files per log (Wilson et al., NeurIPS 2021).

The ego vehicle is the camera with x forward, y left and z up: `egovehicle_SE3_sensor` has no translation, and the city's frame
is the clip's world.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import feather
from scipy.spatial.transform import Rotation

from worldline.cameras import invert_rigid
from worldline.label_files.labelled_clip import Boxes, LabelledClip

CAMERA = "ring_front_center"
# Columns: camera's x, y, z (right, down, forward) in an ego frame of x forward, y left, z up.
EGO_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
# Argoverse's names for classes that it knows; others keep theirs in capitals.
_CLASSES = {"car": "REGULAR_VEHICLE", "van": "REGULAR_VEHICLE", "truck": "TRUCK", "bus": "BUS", "pedestrian": "PEDESTRIAN",
            "person": "PEDESTRIAN", "cyclist": "BICYCLIST", "bicycle": "BICYCLE", "motorcycle": "MOTORCYCLE"}  # fmt: skip


def timestamps_ns(item: LabelledClip) -> np.ndarray:
    """Return the absolute time of every frame in nanoseconds; from 0 where the clip knows no epoch."""
    return item.epoch_ns + np.rint(item.times_s * 1e9).astype(np.int64)


def ego_poses(item: LabelledClip) -> np.ndarray:
    """Return `[T, 4, 4]` world_from_ego of a clip with a camera path."""
    assert item.path is not None
    poses = item.path.world_from_camera.copy()
    poses[:, :3, :3] = poses[:, :3, :3] @ EGO_FROM_CAMERA.T
    return poses


def write_argoverse(item: LabelledClip, boxes: Boxes | None, folder: Path) -> int:
    """Write one log: annotations in the ego frame, ego poses, calibration; return the number of boxes.

    Files: `annotations.feather`, `city_SE3_egovehicle.feather`, `calibration/egovehicle_SE3_sensor.feather`,
    `calibration/intrinsics.feather`.
    """
    assert item.path is not None
    (folder / "calibration").mkdir(parents=True)
    poses, times_ns = ego_poses(item), timestamps_ns(item)
    known = item.path.registered
    _feather(folder / "city_SE3_egovehicle.feather", {"timestamp_ns": times_ns[known], **_pose_columns(poses[known])})
    sensor = np.eye(4)[None].copy()
    sensor[0, :3, :3] = EGO_FROM_CAMERA
    _feather(folder / "calibration" / "egovehicle_SE3_sensor.feather", {"sensor_name": [CAMERA], **_pose_columns(sensor)})
    K, lens = item.path.intrinsics, item.path.distortion
    _feather(
        folder / "calibration" / "intrinsics.feather",
        {"sensor_name": [CAMERA], "fx_px": K[0, :1], "fy_px": K[1, 1:2], "cx_px": K[0, 2:], "cy_px": K[1, 2:],
         "k1": lens[:1], "k2": lens[1:2], "k3": np.zeros(1), "height_px": np.array([item.path.height]),
         "width_px": np.array([item.path.width])},
    )  # fmt: skip
    _feather(folder / "annotations.feather", _annotations(boxes, poses, times_ns))
    return 0 if boxes is None else len(boxes.frame)


def _annotations(boxes: Boxes | None, poses: np.ndarray, times_ns: np.ndarray) -> dict[str, object]:
    if boxes is None:
        frame, placed = np.zeros(0, np.int64), np.zeros((0, 4, 4))
        size, ids, names = np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, object)
    else:
        frame, size, ids, names = boxes.frame, boxes.size, boxes.track_id, boxes.class_name
        world_from_box = np.tile(np.eye(4), (len(frame), 1, 1))
        world_from_box[:, :3, :3] = Rotation.from_euler("z", boxes.yaw_rad[:, None]).as_matrix()
        world_from_box[:, :3, 3] = boxes.centre
        placed = invert_rigid(poses[frame]) @ world_from_box
    order = np.lexsort((ids, frame))
    return {
        "timestamp_ns": times_ns[frame[order]],
        "track_uuid": pa.array([f"{number:08d}" for number in ids[order]], pa.string()),
        "category": pa.array([_CLASSES.get(name, name.upper().replace(" ", "_")) for name in names[order]], pa.string()),
        **{f"{name}_m": size[order, axis] for axis, name in enumerate(("length", "width", "height"))},
        **_pose_columns(placed[order]),
        "num_interior_pts": np.zeros(len(order), np.int64),  # there is no LiDAR
    }


def _pose_columns(poses: np.ndarray) -> dict[str, np.ndarray]:
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat(scalar_first=True) if len(poses) else np.zeros((0, 4))
    turns = np.where(turns[:, :1] < 0, -turns, turns)
    columns = {name: turns[:, place] for place, name in enumerate(("qw", "qx", "qy", "qz"))}
    return columns | {name: poses[:, axis, 3] for axis, name in enumerate(("tx_m", "ty_m", "tz_m"))}


def _feather(path: Path, columns: dict[str, object]) -> None:
    feather.write_feather(pa.table(columns), path)
