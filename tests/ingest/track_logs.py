"""A small true scene, and its log in every format that is read: written here from the formats' definitions alone."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from scipy.spatial.transform import Rotation

EPOCH_NS = 1_557_539_956_450_180_123


@dataclass(frozen=True)
class Thing:
    """An object of the scene: bottom centres `[F, 3]`, headings `[F]`, and frames in which it is annotated."""

    bottom: np.ndarray
    yaw: np.ndarray
    size: tuple[float, float, float]
    classes: dict[str, str]
    frames: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What is true: seconds `[F]`, the car's poses `[F, 4, 4]` (x forward, y left, z up), objects by id."""

    times_s: np.ndarray
    world_from_ego: np.ndarray
    things: dict[int, Thing]


def pose(yaw: float, pitch: float, roll: float, place: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    matrix[:3, 3] = place
    return matrix


def make_scene(*, step_s: float = 0.1, frames: int = 31, tilt: float = 0.0, origin: Sequence[float] = (0.0, 0.0, 0.0)) -> Scene:
    """A car drives a left bend at 6 m/s past a car at 8 m/s, a standing pedestrian and a cyclist on a circle."""
    t = np.arange(frames) * step_s
    yaw = 0.4 + 0.1 * t
    path = np.cumsum(np.stack([np.cos(yaw), np.sin(yaw), 0 * t], -1) * 6 * step_s, axis=0) + origin
    ego = np.stack([pose(y, tilt * np.sin(s), tilt * np.cos(s), p) for y, s, p in zip(yaw, t, path, strict=True)])
    at, still = np.asarray(origin), np.zeros((frames, 3))
    ahead = np.stack([8 * t * np.cos(0.3), 8 * t * np.sin(0.3), 0 * t], -1)
    circle = np.stack([5 * np.cos(t), 5 * np.sin(t), 0.02 * t], -1)
    everywhere = np.arange(frames)
    cycling = everywhere[: max(20, frames - 11)]
    names = {
        "car": ("Car", "REGULAR_VEHICLE", "vehicle.car", 1),
        "pedestrian": ("Pedestrian", "PEDESTRIAN", "human.pedestrian.adult", 2),
        "cyclist": ("Cyclist", "BICYCLIST", "vehicle.bicycle", 3),
    }
    classes = {
        ours: dict(zip(("kitti", "argoverse2", "nuscenes", "waymo"), map(str, theirs), strict=True))
        for ours, theirs in names.items()
    }
    return Scene(
        t,
        ego,
        {
            3: Thing(at + np.array([12, 4, 0.1]) + ahead, np.full(frames, 0.3), (4.5, 1.9, 1.6), classes["car"], everywhere),
            7: Thing(
                at + np.array([20, 14, -0.2]) + still,
                np.full(frames, -2.0),
                (0.6, 0.7, 1.8),
                classes["pedestrian"],
                everywhere[5:],
            ),
            10: Thing(
                at + np.array([25, 6, 0]) + circle,
                t + np.pi / 2,
                (1.8, 0.6, 1.7),
                classes["cyclist"],
                cycling,
            ),
        },
    )


def rows_of(scene: Scene) -> list[tuple[int, int, Thing]]:
    """Every annotated box as (frame, id, object), frame by frame."""
    rows = [(int(frame), name, thing) for name, thing in scene.things.items() for frame in thing.frames]
    return sorted(rows, key=lambda row: row[:2])


# --- KITTI ---------------------------------------------------------------------------------------------------------
CAMERA_FROM_LIDAR = np.array([[0.0, -1, 0, 0.02], [0, 0, -1, -0.06], [1, 0, 0, -0.33], [0, 0, 0, 1]])
LIDAR_FROM_IMU = pose(0.01, -0.004, 0.002, (-0.81, 0.32, -0.8))
RECTIFY = pose(0.003, 0.002, -0.009, (0, 0, 0))
P2 = np.array([[721.5, 0, 609.6, 44.86], [0, 721.5, 172.9, 0.2164], [0, 0, 1, 0.0027]])
LATITUDE, LONGITUDE, ALTITUDE, EARTH = 49.011, 8.423, 112.8, 6378137.0


def write_kitti(folder: Path, scene: Scene, sequence: str = "0000", extra: Sequence[str] = ()) -> Path:
    """Labels, calibration and oxts of one sequence; the scene's world is metres east, north and up of LATITUDE, LONGITUDE."""
    for name in ("label_02", "calib", "oxts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rect_from_imu = RECTIFY @ CAMERA_FROM_LIDAR @ LIDAR_FROM_IMU
    lines = list(extra)
    for frame, name, thing in rows_of(scene):
        rect_from_world = rect_from_imu @ np.linalg.inv(scene.world_from_ego[frame])
        place = rect_from_world @ np.append(thing.bottom[frame], 1)
        ahead = rect_from_world[:3, :3] @ [np.cos(thing.yaw[frame]), np.sin(thing.yaw[frame]), 0]
        turn = np.arctan2(-ahead[2], ahead[0])
        length, width, height = thing.size
        box = "100.0 120.0 180.0 200.0"
        lines.append(
            f"{frame} {name} {thing.classes['kitti']} 0 0 -1.5 {box} {height} {width} {length} "
            f"{place[0]:.9f} {place[1]:.9f} {place[2]:.9f} {turn:.9f}"
        )
    (folder / "label_02" / f"{sequence}.txt").write_text("\n".join(lines) + "\n")
    matrices = {"P2:": P2, "R_rect": RECTIFY[:3, :3], "Tr_velo_cam": CAMERA_FROM_LIDAR[:3], "Tr_imu_velo": LIDAR_FROM_IMU[:3]}
    text = "\n".join(f"{key} {' '.join(f'{value:.12e}' for value in matrix.ravel())}" for key, matrix in matrices.items())
    (folder / "calib" / f"{sequence}.txt").write_text(text + "\n")
    # The projection's scale is the cosine of the first latitude, so the first pose must be the reference itself.
    first = scene.world_from_ego[0, :3, 3]
    scale = np.cos(np.radians(LATITUDE))
    packets = []
    velocity = np.gradient(scene.world_from_ego[:, :3, 3], scene.times_s, axis=0)
    for matrix, (east_mps, north_mps, _) in zip(scene.world_from_ego, velocity, strict=True):
        east, north, up = matrix[:3, 3] - first
        longitude = LONGITUDE + np.degrees(east / (scale * EARTH))
        beyond = np.arctanh(np.sin(np.radians(LATITUDE))) + north / (scale * EARTH)  # isometric latitude
        yaw, pitch, roll = Rotation.from_matrix(matrix[:3, :3]).as_euler("ZYX")
        packets.append(
            [np.degrees(np.arcsin(np.tanh(beyond))), longitude, ALTITUDE + up, roll, pitch, yaw, north_mps, east_mps, *[0.0] * 22]
        )
    text = "\n".join(" ".join(f"{value:.14g}" for value in packet) for packet in packets)
    (folder / "oxts" / f"{sequence}.txt").write_text(text + "\n")
    return folder


# --- Argoverse 2 ---------------------------------------------------------------------------------------------------
EGO_FROM_CAMERA = np.array([[0.0, 0, 1, 1.6], [-1, 0, 0, 0.1], [0, -1, 0, 1.4], [0, 0, 0, 1]])


def wxyz(rotation: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(rotation).as_quat(scalar_first=True)


def upright(yaw: float) -> np.ndarray:
    return Rotation.from_euler("Z", yaw).as_matrix()


def instants_ns(scene: Scene) -> list[int]:
    return [EPOCH_NS + round(float(time) * 1e9) for time in scene.times_s]


def write_argoverse2(folder: Path, scene: Scene, *, calibrated: bool = True) -> Path:
    """Annotations in the car's frame, and the car's poses between the sweeps too, as the data set has them."""
    (folder / "calibration").mkdir(parents=True, exist_ok=True)
    stamps = instants_ns(scene)
    rows = []
    for frame, name, thing in rows_of(scene):
        ego_from_world = np.linalg.inv(scene.world_from_ego[frame])
        centre = ego_from_world @ np.append(thing.bottom[frame] + [0, 0, thing.size[2] / 2], 1)
        quaternion = wxyz(ego_from_world[:3, :3] @ upright(thing.yaw[frame]))
        rows.append(
            {"timestamp_ns": stamps[frame], "track_uuid": f"uuid-{name:02d}", "category": thing.classes["argoverse2"]}
            | dict(zip(("length_m", "width_m", "height_m"), thing.size, strict=True))
            | dict(zip(("qw", "qx", "qy", "qz"), quaternion, strict=True))
            | dict(zip(("tx_m", "ty_m", "tz_m"), centre[:3], strict=True))
        )
    feather.write_feather(pa.Table.from_pylist(rows), folder / "annotations.feather")
    poses = [_av2_pose(matrix) | {"timestamp_ns": stamp} for stamp, matrix in zip(stamps, scene.world_from_ego, strict=True)]
    feather.write_feather(pa.Table.from_pylist(poses[::-1]), folder / "city_SE3_egovehicle.feather")
    if calibrated:
        mounted = [_av2_pose(EGO_FROM_CAMERA) | {"sensor_name": "ring_front_center"}]
        lens = {"sensor_name": "ring_front_center", "fx_px": 1000.0, "fy_px": 1000.0, "cx_px": 775.0, "cy_px": 1024.0}
        lens |= {"k1": 0.0, "k2": 0.0, "k3": 0.0, "height_px": 2048, "width_px": 1550}
        feather.write_feather(pa.Table.from_pylist(mounted), folder / "calibration" / "egovehicle_SE3_sensor.feather")
        feather.write_feather(pa.Table.from_pylist([lens]), folder / "calibration" / "intrinsics.feather")
    return folder


def _av2_pose(matrix: np.ndarray) -> dict[str, float]:
    quaternion = dict(zip(("qw", "qx", "qy", "qz"), wxyz(matrix[:3, :3]), strict=True))
    return quaternion | dict(zip(("tx_m", "ty_m", "tz_m"), matrix[:3, 3], strict=True))


# --- nuScenes ------------------------------------------------------------------------------------------------------
def write_nuscenes(folder: Path, scenes: dict[str, Scene]) -> Path:
    """The tables of some scenes; tokens are words, so that a failure can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[dict]] = {
        name: [] for name in ("scene", "sample", "sample_annotation", "instance", "ego_pose", "sample_data")
    }
    tables["category"] = [
        {"token": f"category {name}", "name": name} for name in ("vehicle.car", "human.pedestrian.adult", "vehicle.bicycle")
    ]
    tables["attribute"] = [{"token": f"attribute {name}", "name": name} for name in ("vehicle.moving", "pedestrian.standing")]
    tables["sensor"] = [{"token": name, "channel": name, "modality": ""} for name in ("CAM_FRONT", "LIDAR_TOP")]
    rotation, place = wxyz(EGO_FROM_CAMERA[:3, :3]).tolist(), EGO_FROM_CAMERA[:3, 3].tolist()
    matrix = [[1266.0, 0.0, 816.0], [0.0, 1266.0, 491.0], [0.0, 0.0, 1.0]]
    tables["calibrated_sensor"] = [
        {"token": "front", "sensor_token": "CAM_FRONT", "rotation": rotation, "translation": place, "camera_intrinsic": matrix},
        {
            "token": "top",
            "sensor_token": "LIDAR_TOP",
            "rotation": [1, 0, 0, 0],
            "translation": [1, 0, 1.8],
            "camera_intrinsic": [],
        },
    ]
    for name, scene in scenes.items():
        tokens = [f"{name} sample {frame}" for frame in range(len(scene.times_s))]
        tables["scene"].append({"token": f"{name} token", "name": name, "first_sample_token": tokens[0]})
        for frame, (token, stamp) in enumerate(zip(tokens, instants_ns(scene), strict=True)):
            following = tokens[frame + 1] if frame + 1 < len(tokens) else ""
            tables["sample"].append(
                {"token": token, "timestamp": stamp // 1000, "scene_token": f"{name} token", "next": following}
            )
            for sensor, size in (("front", (1600, 900)), ("top", (0, 0))):
                own = f"{token} {sensor}"
                data = {"token": own, "sample_token": token, "ego_pose_token": own, "calibrated_sensor_token": sensor}
                tables["sample_data"].append(data | {"is_key_frame": True, "width": size[0], "height": size[1]})
                ego = scene.world_from_ego[frame]
                given = {"rotation": wxyz(ego[:3, :3]).tolist(), "translation": ego[:3, 3].tolist()}
                tables["ego_pose"].append({"token": own, "timestamp": stamp // 1000} | given)
        for number, thing in scene.things.items():
            tables["instance"].append(
                {"token": f"{name} {number:02d}", "category_token": f"category {thing.classes['nuscenes']}"}
            )
        for frame, number, thing in rows_of(scene):
            length, width, height = thing.size
            moving = {3: ["attribute vehicle.moving"], 7: ["attribute pedestrian.standing"], 10: []}[number]
            given = {
                "token": f"{name} box {frame} {number}",
                "sample_token": tokens[frame],
                "instance_token": f"{name} {number:02d}",
                "attribute_tokens": moving,
                "translation": (thing.bottom[frame] + [0, 0, height / 2]).tolist(),
                "size": [width, length, height],
                "rotation": wxyz(upright(thing.yaw[frame])).tolist(),
            }
            tables["sample_annotation"].append(given)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


# --- Waymo ---------------------------------------------------------------------------------------------------------
def scenario_class() -> type:
    """Return Scenario as Google's own library makes it from the fields of the published scenario.proto that are read."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="scenario.proto", package="waymo.test", syntax="proto2")

    def message(name: str, **fields: tuple) -> None:
        added = file.message_type.add(name=name)
        for field, (number, kind, *rest) in fields.items():
            label = kinds.LABEL_REPEATED if "repeated" in rest else kinds.LABEL_OPTIONAL
            kept = {"type": kind} if isinstance(kind, int) else {"type": kinds.TYPE_MESSAGE, "type_name": f".waymo.test.{kind}"}
            added.field.add(name=field, number=number, label=label, **kept)

    double, single, whole = kinds.TYPE_DOUBLE, kinds.TYPE_FLOAT, kinds.TYPE_INT32
    message(
        "ObjectState",
        **{f"center_{axis}": (number, double) for number, axis in enumerate("xyz", 2)},
        **{
            name: (number, single)
            for number, name in enumerate(("length", "width", "height", "heading", "velocity_x", "velocity_y"), 5)
        },
        valid=(11, kinds.TYPE_BOOL),
    )
    message("Track", id=(1, whole), object_type=(2, whole), states=(3, "ObjectState", "repeated"))
    message(
        "Scenario",
        timestamps_seconds=(1, double, "repeated"),
        tracks=(2, "Track", "repeated"),
        objects_of_interest=(4, whole, "repeated"),
        scenario_id=(5, kinds.TYPE_STRING),
        sdc_track_index=(6, whole),
        current_time_index=(10, whole),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("waymo.test.Scenario"))


def scenario_bytes(scene: Scene, name: str) -> bytes:
    scenario = scenario_class()(
        scenario_id=name, timestamps_seconds=scene.times_s.tolist(), sdc_track_index=1, current_time_index=10
    )
    scenario.objects_of_interest.extend([3, 7])
    frames = range(len(scene.times_s))
    for number, thing in scene.things.items():
        if len(scenario.tracks) == 1:
            own = scenario.tracks.add(id=2000, object_type=1)
            for ego in scene.world_from_ego:
                x, y, z = ego[:3, 3].tolist()
                heading = float(np.arctan2(ego[1, 0], ego[0, 0]))
                own.states.add(center_x=x, center_y=y, center_z=z, length=5, width=2, height=2, heading=heading, valid=True)
        track = scenario.tracks.add(id=number, object_type=int(thing.classes["waymo"]))
        length, width, height = thing.size
        for frame in frames:
            if frame not in thing.frames:
                track.states.add(center_x=0, valid=False)
                continue
            x, y, z = thing.bottom[frame].tolist()
            state = track.states.add(center_x=x, center_y=y, center_z=z + height / 2, heading=float(thing.yaw[frame]), valid=True)
            state.length, state.width, state.height = length, width, height
    return scenario.SerializeToString()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit (RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def write_tfrecord(path: Path, records: Sequence[bytes]) -> Path:
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    with path.open("wb") as stream:
        for record in records:
            length = struct.pack("<Q", len(record))
            stream.write(length + masked(length) + record + masked(record))
    return path


# --- our own table -------------------------------------------------------------------------------------------------
def table_rows(scene: Scene) -> list[dict]:
    """Rows of docs/tracks.md; the observer is the object of class "ego"."""
    rows = []
    for frame, number, thing in rows_of(scene):
        x, y, z = thing.bottom[frame].tolist()
        length, width, height = thing.size
        row = {"track_id": str(number), "time_s": float(scene.times_s[frame]), "class_name": thing.classes["kitti"]}
        row |= {"x": x, "y": y, "z": z, "length": length, "width": width, "height": height}
        rows.append(row | {"yaw_rad": float(thing.yaw[frame]), "moving": number != 7})
    for time, ego in zip(scene.times_s.tolist(), scene.world_from_ego, strict=True):
        x, y, z = ego[:3, 3].tolist()
        row = dict.fromkeys(rows[0]) | {"track_id": "me", "time_s": time, "class_name": "ego", "x": x, "y": y, "z": z}
        rows.append(row | {"yaw_rad": float(np.arctan2(ego[1, 0], ego[0, 0]))})
    return rows
