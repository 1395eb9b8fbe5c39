"""A driving log and a trajectory that nobody drove go out in drivestudio's layout and come back with the same numbers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_street import write
from scipy.spatial.transform import Rotation

from catalogs.catalog import Catalog, Execution
from catalogs.governance import give_terms
from catalogs.versions import publish
from schemas.artifact import Artifact, Files, make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip, Source
from schemas.driving import MAP_ELEMENTS, TRAJECTORY_CHECKS, LidarSweeps, RoadMap, Trajectory
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.contract import no_progress
from stages.ingest.drivestudio import DrivestudioConfig, ingest_drivestudio
from stages.ingest.driving_log import DrivingLog
from stages.ingest.log_source import describe_driving_log
from stages.ingest.nuscenes_log import NuscenesLogConfig, ingest_nuscenes_log

FRAMES, WIDTH, HEIGHT = 8, 64, 48
TIMES_S = np.cumsum([0.0, 0.1, 0.1, 0.12, 0.1, 0.1, 0.08, 0.1])
INTRINSICS = np.array([[50.0, 0, 31.5], [0, 51, 23], [0, 0, 1]])
EGO_FROM_CAMERA = np.array([[0.05, 0, 1, 1.4], [-1, 0, 0.05, 0.1], [0, -1, 0, 1.6], [0, 0, 0, 1]])
EGO_FROM_CAMERA[:3, :3] = np.linalg.qr(EGO_FROM_CAMERA[:3, :3])[0] * [[-1, -1, 1]]


def egos(left_m: float) -> np.ndarray:
    """The vehicle in a left bend, shifted to the left by a growing offset, its first camera at the origin without it."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("z", (0.4 + 0.2 * TIMES_S)[:, None]).as_matrix()
    poses[:, :2, 3] = np.cumsum(poses[:, :2, 0], axis=0) * 0.8
    poses[:, :2, 3] += (left_m * np.linspace(0, 1, FRAMES))[:, None] * poses[:, :2, 1]
    start = Rotation.from_euler("z", 0.4).as_matrix()
    first = np.append(0.8 * start[:2, 0], 0) + start @ EGO_FROM_CAMERA[:3, 3]
    poses[:, :3, 3] -= first
    return poses


def path_of(ego: np.ndarray) -> CameraPath:
    return CameraPath(
        times_s=TIMES_S, world_from_camera=ego @ EGO_FROM_CAMERA, registered=np.ones(FRAMES, bool), intrinsics=INTRINSICS,
        distortion=np.zeros(4), width=WIDTH, height=HEIGHT, verdict="moving", scale_source="annotations", scale_sigma=0.0,
        gravity_source="given", gravity_sigma_rad=0.0, reprojection_error_px=0.0,
    )  # fmt: skip


def trajectory_of(ego: np.ndarray, name: str) -> Trajectory:
    return Trajectory(name, "lane_change_left" if name != "recorded" else name, TIMES_S, ego, 4.9, 1.9, True, "",
                      TRAJECTORY_CHECKS.empty_table())  # fmt: skip


def made_tracks() -> Tracks:
    """A truck that drives ahead, a pedestrian from the third frame on, and a cone, of which drivestudio knows nothing."""
    rows: list[dict[str, Any]] = []
    objects = [("truck", (8.0, 2.5, 3.1), range(FRAMES)), ("pedestrian", (0.6, 0.5, 1.8), range(2, FRAMES))]
    objects.append(("cone", (0.3, 0.3, 0.7), range(FRAMES)))
    for track, (_, size, frames) in enumerate(objects, start=1):
        for frame in frames:
            place = (10 * track + 5 * TIMES_S[frame], 2.0 * track, -1.6 + 0.1 * track)
            rows.append(
                dict.fromkeys(TRACK_SAMPLES.names)
                | {"track_id": track, "frame": frame, "time_s": TIMES_S[frame], "yaw_rad": 0.3 * track, "touches_border": False}
                | dict(zip("xyz", place, strict=True))
                | dict(zip(("length", "width", "height"), size, strict=True))
            )
    told = [
        {"track_id": track, "class_name": name, "colour": "", "first_s": 0.0, "last_s": 1.0, "samples": len(frames)}
        for track, (name, _, frames) in enumerate(objects, start=1)
    ]
    return Tracks(
        samples=rows_to_table(TRACK_SAMPLES, rows), objects=rows_to_table(TRACK_OBJECTS, told), origin="boxes",
        scale_source="annotations", scale_sigma=0.0, gravity_source="given",
    )  # fmt: skip


def made_lidar() -> LidarSweeps:
    """Two sweeps, near the second and the sixth frame: a wall, and points on the truck's back."""
    wall = np.array([[5.0 + x, 8.0, z] for x in range(20) for z in (0.0, 0.5)])
    sweeps = [np.concatenate([wall, made_truck_back(time_s)]) for time_s in (TIMES_S[1], TIMES_S[5])]
    return LidarSweeps(
        times_s=np.array([TIMES_S[1] + 0.02, TIMES_S[5]]), origins=np.array([[0.5, 0.1, 0.3], [4.0, 1.0, 0.3]]),
        xyz=np.concatenate(sweeps).astype(np.float32), sweep=np.repeat(np.arange(2, dtype=np.int32), len(sweeps[0])),
    )  # fmt: skip


def made_truck_back(time_s: float) -> np.ndarray:
    ahead = np.array([np.cos(0.3), np.sin(0.3), 0])
    return np.array([10 + 5 * time_s, 2.0, -1.5]) - 4.0 * ahead + np.array([[0, 0, height] for height in (0.5, 1.0, 2.0)])


def made_map() -> RoadMap:
    elements = make_table(MAP_ELEMENTS, {"element_id": [0, 1], "kind": ["lane_line", "drivable"], "first_point": [0, 2],
                                         "points": [2, 4]})  # fmt: skip
    return RoadMap(
        elements, np.array([[0, 0, -1.6], [30, 2, -1.6], [-5, -5, -1.6], [40, -5, -1.6], [40, 9, -1.5], [-5, 9, -1.6]])
    )


def made_clip(name: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Clip:
    frames = np.stack([np.full((size[1], size[0], 3), 25 * frame, np.uint8) for frame in range(FRAMES)])
    return Clip(frames=Video.from_array(frames), times_s=TIMES_S, name=name, epoch_ns=1_600_000_000_000_000_000)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A log, a trajectory 2 m to the left, and one whose clip has half the size of its path."""
    home = tmp_path_factory.mktemp("logs") / "home"
    catalog = Catalog.open(home)
    path = home.parent / "log.bin"
    path.write_bytes(b"log")
    with catalog.scratch_folder() as scratch:
        source = catalog.adopt(catalog.put(Source(Files({path.name: path}), "drivestudio", "log"), scratch)).digest
    give_terms(catalog, source, licence="CC-BY-4.0", attribution="the street")
    recorded, left = egos(0.0), egos(2.0)
    artifacts: dict[str, Artifact] = {
        "clip": made_clip("log"), "path": path_of(recorded), "tracks": made_tracks(), "road_map": made_map(),
        "trajectory": trajectory_of(recorded, "recorded"), "lidar": made_lidar(),
        "left/clip": made_clip("left"), "left/generated": made_clip("drawn by a model"), "left/path": path_of(left),
        "left/tracks": made_tracks(), "left/trajectory": trajectory_of(left, "left"),
        "small/clip": made_clip("small", (WIDTH // 2, HEIGHT // 2)), "small/path": path_of(left), "small/tracks": made_tracks(),
        "small/trajectory": trajectory_of(left, "small"),
    }  # fmt: skip
    publish(
        catalog, "street", {"source": "log"}, {role: record(catalog, item, role, source) for role, item in artifacts.items()}, {}
    )
    return catalog


def record(catalog: Catalog, artifact: Artifact, role: str, source: str) -> str:
    with catalog.scratch_folder() as scratch:
        made = catalog.put(artifact, scratch)
        run = Execution(key=hashlib.sha256(role.encode()).hexdigest(), stage="toy.log", version=1, code="c", code_files={},
                        config={}, seed=0, inputs={"source": source}, outputs=(made,), status="ok", started_at=0.0, seconds=1.0,
                        peak_memory_bytes=1, machine={}, packages={}, error_type=None, error_message=None)  # fmt: skip
        catalog.record(run)
    return made.digest


@pytest.fixture(scope="module")
def exported(published: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drivestudio") / "out"
    write(published, "drivestudio", folder)
    return folder


def read(folder: Path) -> DrivingLog:
    stage, source, given = describe_driving_log(folder)
    assert stage == "ingest.drivestudio"
    return ingest_drivestudio(source, DrivestudioConfig(**given), seed=0, progress=no_progress)


@pytest.mark.parametrize(("scene", "left_m"), [("log", 0.0), ("left", 2.0)])
def test_it_comes_back_with_the_same_numbers(scene: str, left_m: float, exported: Path) -> None:
    clip, path, tracks, trajectory, road_map, lidar, _ = read(exported / "scenes" / scene)
    ego = egos(left_m)
    shift = (ego[0] @ EGO_FROM_CAMERA)[:3, 3]  # read back, the first camera is the origin
    expected = path_of(ego).world_from_camera
    expected[:, :3, 3] -= shift
    assert np.allclose(path.world_from_camera, expected, atol=1e-9)
    assert np.allclose(path.intrinsics, INTRINSICS)
    assert np.allclose(clip.times_s, TIMES_S)
    assert clip.epoch_ns == 1_600_000_000_000_000_000
    assert np.abs(clip.frames.array().astype(int).mean((1, 2, 3)) - 25 * np.arange(FRAMES)).max() < 2
    assert np.allclose(trajectory.world_from_ego[:, :3, :3], ego[:, :3, :3], atol=1e-9)
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], ego[:, :3, 3] - shift, atol=1e-9)
    assert (trajectory.length_m, trajectory.width_m) == (4.9, 1.9)
    true = made_tracks().samples.to_pylist()
    rows = tracks.samples.to_pylist()
    assert tracks.objects["class_name"].to_pylist() == ["truck", "pedestrian"]
    assert [(row["track_id"], row["frame"]) for row in rows] == [(r["track_id"], r["frame"]) for r in true if r["track_id"] < 3]
    for mine, own in zip(rows, true, strict=False):
        assert np.allclose([mine[name] for name in ("length", "width", "height", "yaw_rad")],
                           [own[name] for name in ("length", "width", "height", "yaw_rad")])  # fmt: skip
        assert np.allclose([mine[axis] for axis in "xyz"], np.array([own[axis] for axis in "xyz"]) - shift, atol=1e-9)
    assert np.allclose(lidar.times_s, made_lidar().times_s)
    assert np.allclose(lidar.xyz, made_lidar().xyz - shift, atol=1e-5)
    assert np.allclose(lidar.origins, made_lidar().origins - shift, atol=1e-5)
    assert np.allclose(road_map.xyz, made_map().xyz - shift)
    assert [len(road_map.lines(kind)) for kind in ("lane_line", "drivable")] == [1, 1]


def test_every_frame_has_a_sweep_and_those_not_measured_hold_only_what_stands_still(exported: Path) -> None:
    for frame in range(FRAMES):
        rows = np.fromfile(exported / "scenes" / "log" / "lidar" / f"{frame:03d}.bin", np.float32).reshape(-1, 14)
        assert len(rows) == (43 if frame in (1, 5) else 40)  # with the truck's back, without it


def test_the_file_is_what_drivestudio_s_loader_multiplies_out(exported: Path) -> None:
    """Its camera-to-world is inv(ego_0) ego_t extrinsics OPENCV2DATASET: relative poses must be those of the path."""
    scene = exported / "scenes" / "log"
    to_waymo = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    ego = [np.loadtxt(scene / "ego_pose" / f"{frame:03d}.txt") for frame in range(FRAMES)]
    mounted = np.loadtxt(scene / "extrinsics" / "0.txt") @ to_waymo
    world = [np.linalg.inv(ego[0]) @ pose @ mounted for pose in ego]
    true = path_of(egos(0.0)).world_from_camera
    for frame in range(FRAMES):
        assert np.allclose(np.linalg.inv(world[0]) @ world[frame], np.linalg.inv(true[0]) @ true[frame], atol=1e-9)
    instances = json.loads((scene / "instances" / "instances_info.json").read_text())
    assert [instance["class_name"] for instance in instances.values()] == ["Vehicle", "Pedestrian"]
    by_frame = json.loads((scene / "instances" / "frame_instances.json").read_text())
    assert [by_frame[str(frame)] for frame in range(FRAMES)] == [[0], [0]] + [[0, 1]] * 6


def test_what_drivestudio_has_no_model_for_is_counted(exported: Path) -> None:
    dropped = {(row["what"], row["reason"]): row["count"] for row in json.loads((exported / "dropped.json").read_text())}
    assert dropped == {("boxes", "no_class_in_drivestudio"): 3 * FRAMES}


def test_a_clip_smaller_than_its_path_goes_out_with_its_own_lens(exported: Path) -> None:
    fx, fy, cx, cy, *_ = np.loadtxt(exported / "scenes" / "small" / "intrinsics" / "0.txt")
    assert np.allclose([fx, fy, cx, cy], [25, 25.5, 15.75, 11.5])


def test_nuscenes_tables_hold_the_trajectory_that_nobody_drove(published: Catalog, tmp_path: Path) -> None:
    write(published, "nuscenes", tmp_path / "out")
    tables = {item.stem: json.loads(item.read_text()) for item in (tmp_path / "out" / "v1.0-worldline").iterdir()}
    scene = next(row for row in tables["scene"] if row["name"] == "left")
    sensor = {row["token"]: row for row in tables["calibrated_sensor"]}
    poses = {row["token"]: row for row in tables["ego_pose"]}
    samples = {row["token"] for row in tables["sample"] if row["scene_token"] == scene["token"]}
    data = sorted((row for row in tables["sample_data"] if row["sample_token"] in samples), key=lambda row: row["timestamp"])
    assert len(data) == FRAMES
    for frame, row in enumerate(data):
        ego, mounted = poses[row["ego_pose_token"]], sensor[row["calibrated_sensor_token"]]
        found = as_matrix(ego) @ as_matrix(mounted)
        assert np.allclose(found, path_of(egos(2.0)).world_from_camera[frame], atol=1e-9)
    boxes = [row for row in tables["sample_annotation"] if row["sample_token"] in samples]
    assert len(boxes) == 2 * 3 - 1  # key frames at 0 and 0.5 s; the pedestrian is not there at first


def test_nuscenes_tables_come_back_as_a_driving_log(published: Catalog, tmp_path: Path) -> None:
    write(published, "nuscenes", tmp_path / "out")
    stage, source, given = describe_driving_log(tmp_path / "out", part="left")
    assert (stage, given["scene"]) == ("ingest.nuscenes_log", "left")
    clip, path, tracks, *_ = ingest_nuscenes_log(source, NuscenesLogConfig(**given), seed=0, progress=no_progress)
    last = 6  # images more than 60 ms after the last key frame, at 0.5 s, are beyond what is annotated
    assert np.allclose(clip.times_s, TIMES_S[:last], atol=1e-6)
    ego = egos(2.0)
    expected = path_of(ego).world_from_camera[:last]
    shift = expected[0, :3, 3].copy()
    expected[:, :3, 3] -= shift
    assert np.allclose(path.world_from_camera, expected, atol=1e-9)
    truck = [row for row in tracks.samples.to_pylist() if row["length"] == 8.0]
    assert [row["frame"] for row in truck] == list(range(last))
    true = [row for row in made_tracks().samples.to_pylist() if row["track_id"] == 1 and row["frame"] < last]
    for mine, own in zip(truck, true, strict=True):
        assert np.allclose([mine[axis] for axis in "xyz"], np.array([own[axis] for axis in "xyz"]) - shift, atol=1e-5)


def as_matrix(row: dict[str, Any]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(row["rotation"], scalar_first=True).as_matrix()
    matrix[:3, 3] = row["translation"]
    return matrix


def test_without_a_trajectory_the_vehicle_is_under_the_camera(tmp_path: Path) -> None:
    from worldline.label_files.drivestudio_scene import write_drivestudio
    from worldline.label_files.labelled_clip import LabelledClip

    level = path_of(egos(0.0))
    level.world_from_camera[:, :3, :3] = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    clip = made_clip("log")
    item = LabelledClip("", "log", "train", clip, level, None, None, None, {})
    _, frames = write_drivestudio(item, None, tmp_path / "log", {})
    from PIL import Image

    for frame in frames:
        Image.fromarray(clip.frames.array()[frame]).save(tmp_path / "log" / "images" / f"{frame:03d}_0.jpg")
    trajectory = read(tmp_path / "log")[3]
    ahead = trajectory.world_from_ego[:, :3, 3] - level.world_from_camera[:, :3, 3] + level.world_from_camera[0, :3, 3]
    assert np.allclose(ahead, [-0.4, 0, -1.6])
    assert np.allclose(trajectory.world_from_ego[:, :3, :3], np.eye(3))
