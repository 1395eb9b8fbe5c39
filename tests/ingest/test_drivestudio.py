"""Scenes in drivestudio's layout, written here as its preprocessing writes them for each data set, with one truth behind them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.drivestudio import DrivestudioConfig, ingest_drivestudio
from stages.ingest.driving_log import DrivingLog
from stages.ingest.log_source import describe_driving_log

FRAMES, WIDTH, HEIGHT = 6, 64, 48
LENS = (60.0, 62.0, 31.0, 25.0)
# x right, y down, z forward, given in x forward, y left, z up.
OPENCV_AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
CENTRE, SIZE, YAW = np.array([112.0, 203.0, 1.0]), (4.2, 1.9, 1.6), 0.7
ROAD = np.array([[x, y, 0.0] for x in np.arange(-9, 9.1, 0.5) for y in np.arange(-9, 9.1, 0.5)])  # around the ego, in its frame


def rigid(rotation: np.ndarray, place: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, place
    return matrix


def ego(frame: int) -> np.ndarray:
    """The vehicle drives along its heading of 0.3 rad, one metre a frame, its origin on the road at z = 0."""
    return rigid(Rotation.from_euler("z", 0.3).as_matrix(), np.array([100 + frame * np.cos(0.3), 200 + frame * np.sin(0.3), 0]))


EGO_FROM_CAMERA = rigid(OPENCV_AXES, (1.7, 0.1, 1.5))


def made_scene(folder: Path, dataset: str, lens: tuple[float, ...] = (0.0,) * 5) -> Path:
    for name in ("images", "intrinsics", "extrinsics", "lidar", "instances"):
        (folder / name).mkdir(parents=True)
    np.savetxt(folder / "intrinsics" / "0.txt", [*LENS, *lens])
    for frame in range(FRAMES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 30 * frame, np.uint8)).save(folder / "images" / f"{frame:03d}_0.jpg")
    match dataset:
        case "waymo":
            np.savetxt(folder / "extrinsics" / "0.txt", rigid(np.eye(3), EGO_FROM_CAMERA[:3, 3]))
            frame_folder, from_ego, columns = "ego_pose", np.eye(4), 14
        case "kitti":  # the ego is the lidar, 1.73 m over the road and 0.2 m before the middle
            from_ego = rigid(np.eye(3), (0.2, 0, 1.73))
            np.savetxt(folder / "extrinsics" / "0.txt", np.linalg.inv(from_ego) @ EGO_FROM_CAMERA)
            frame_folder, columns = "ego_pose", 4
        case "nuscenes":  # the lidar looks to the left
            from_ego = rigid(Rotation.from_euler("z", np.pi / 2).as_matrix(), (0.9, 0, 1.8))
            frame_folder, columns = "lidar_pose", 4
            for frame in range(FRAMES):
                np.savetxt(folder / "extrinsics" / f"{frame:03d}_0.txt", ego(frame) @ EGO_FROM_CAMERA)
    (folder / frame_folder).mkdir()
    for frame in range(FRAMES):
        np.savetxt(folder / frame_folder / f"{frame:03d}.txt", ego(frame) @ from_ego)
        rows = np.zeros((len(ROAD), columns), np.float32)
        points = (ROAD - from_ego[:3, 3]) @ from_ego[:3, :3]
        if dataset == "waymo":
            rows[:, :3], rows[:, 3:6] = (1.43, 0, 2.2), points
        else:
            rows[:, :3] = points
        rows.tofile(folder / "lidar" / f"{frame:03d}.bin")
    box = rigid(Rotation.from_euler("z", YAW).as_matrix(), CENTRE).tolist()
    car = {"frame_idx": [1, 2, 4], "obj_to_world": [box] * 3, "box_size": [list(SIZE)] * 3}
    name = "vehicle.car" if dataset == "nuscenes" else "Vehicle"
    instances = {"0": {"id": "abc", "class_name": name, "frame_annotations": car}}
    (folder / "instances" / "instances_info.json").write_text(json.dumps(instances))
    return folder


def ingest(path: Path, **settings: object) -> DrivingLog:
    stage, source, given = describe_driving_log(path)
    assert stage == "ingest.drivestudio"
    return ingest_drivestudio(source, DrivestudioConfig(**{**given, **settings}), seed=0, progress=no_progress)


@pytest.mark.parametrize("dataset", ["waymo", "kitti", "nuscenes"])
def test_every_data_set_s_habits_give_the_same_path_boxes_and_points(dataset: str, tmp_path: Path) -> None:
    clip, path, tracks, _, _, lidar, _ = ingest(made_scene(tmp_path / "scene", dataset))
    assert clip.provenance["dataset"] == dataset
    first = (ego(0) @ EGO_FROM_CAMERA)[:3, 3]
    expected = np.stack([ego(frame) @ EGO_FROM_CAMERA for frame in range(FRAMES)])
    expected[:, :3, 3] -= first
    assert np.allclose(path.world_from_camera, expected, atol=1e-9)
    assert np.allclose(path.intrinsics, [[60, 0, 31], [0, 62, 25], [0, 0, 1]])
    assert np.allclose(path.times_s, np.arange(FRAMES) / 10)
    assert tracks.samples["frame"].to_pylist() == [1, 2, 4]
    place = CENTRE - [0, 0, SIZE[2] / 2] - first
    rows = tracks.samples.to_pylist()
    assert np.allclose([[row[axis] for axis in "xyz"] for row in rows], place, atol=1e-9)
    assert np.allclose([[row[name] for name in ("length", "width", "height", "yaw_rad")] for row in rows], [*SIZE, YAW])
    assert tracks.objects["class_name"].to_pylist() == ["car" if dataset == "nuscenes" else "vehicle"]
    points = lidar.xyz[lidar.sweep == 3]
    assert np.allclose(points, ROAD @ ego(3)[:3, :3].T + ego(3)[:3, 3] - first, atol=1e-4)


@pytest.mark.parametrize(("dataset", "settings"), [
    ("waymo", {"middle_m": (0.0, 0.0, 0.0)}),
    ("kitti", {"middle_m": (-0.2, 0.0, -1.73)}),
    ("nuscenes", {"camera_forward_m": 1.7}),
])  # fmt: skip
def test_the_trajectory_is_on_the_road_under_the_middle(dataset: str, settings: dict, tmp_path: Path) -> None:
    trajectory = ingest(made_scene(tmp_path / "scene", dataset), **settings)[3]
    expected = np.stack([ego(frame) for frame in range(FRAMES)])
    expected[:, :3, 3] -= (ego(0) @ EGO_FROM_CAMERA)[:3, 3]
    sideways = 0.1 if dataset == "nuscenes" else 0.0  # there the camera is taken to be in the middle of the vehicle
    assert np.allclose(trajectory.world_from_ego, expected, atol=sideways + 1e-6)
    assert np.allclose(trajectory.world_from_ego[:, 2, 3], -1.5, atol=1e-6)


def test_waymo_sweeps_tell_where_the_sensor_stood(tmp_path: Path) -> None:
    lidar = ingest(made_scene(tmp_path / "scene", "waymo"))[5]
    first = (ego(0) @ EGO_FROM_CAMERA)[:3, 3]
    assert np.allclose(lidar.origins[2], (ego(2) @ [1.43, 0, 2.2, 1])[:3] - first, atol=1e-5)
    assert np.allclose(lidar.times_s, np.arange(FRAMES) / 10)


def test_images_are_freed_of_their_lens(tmp_path: Path) -> None:
    """A bright dot at a point that OpenCV projects through the lens ends where a pinhole of the same matrix sees the point."""
    lens = (-0.3, 0.1, 0.002, -0.001, 0.05)
    scene = made_scene(tmp_path / "scene", "waymo", lens)
    ray = np.array([[0.28, -0.22, 1.0]])
    centred = np.array([[LENS[0], 0, LENS[2] - 0.5], [0, LENS[1], LENS[3] - 0.5], [0, 0, 1.0]])
    seen = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), centred, np.array(lens))[0].ravel()
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    dot = 255 * np.exp(-((x - seen[0]) ** 2 + (y - seen[1]) ** 2) / 4)
    for frame in range(FRAMES):
        Image.fromarray(np.repeat(dot[..., None], 3, 2).astype(np.uint8)).save(
            scene / "images" / f"{frame:03d}_0.jpg", quality=100, subsampling=0
        )
    clip, path, *_ = ingest(scene)
    weight = clip.frames.array()[0].astype(float).mean(2)
    weight[weight < 60] = 0
    found = [(weight * (axis + 0.5)).sum() / weight.sum() for axis in (x, y)]
    ideal = (path.intrinsics @ ray[0])[:2]
    assert np.allclose(found, ideal, atol=0.15)
    assert np.linalg.norm(seen + 0.5 - ideal) > 0.8  # the lens moved it


def test_a_span_at_half_the_size_keeps_its_own_boxes_and_sweeps_and_is_cut_to_sixteens(tmp_path: Path) -> None:
    clip, path, tracks, _, _, lidar, _ = ingest(made_scene(tmp_path / "scene", "waymo"), start_s=0.15, end_s=0.45, max_side=32)
    assert clip.size == (32, 16)
    assert np.allclose(path.intrinsics[:2], [[30, 0, 15.5], [0, 31, 12.5 - 4]])
    assert tracks.samples["frame"].to_pylist() == [0, 2]  # frames 2 and 4 of the scene
    assert np.allclose(lidar.times_s, [0, 0.1, 0.2])


def test_a_frame_without_a_pose_is_kept_and_not_registered(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene", "waymo")
    (scene / "ego_pose" / "002.txt").unlink()
    clip, path, _, trajectory, *_ = ingest(scene)
    assert path.registered.tolist() == [True, True, False, True, True, True]
    between = (trajectory.world_from_ego[1, :3, 3] + trajectory.world_from_ego[3, :3, 3]) / 2
    assert np.allclose(trajectory.world_from_ego[2, :3, 3], between)
    assert len(clip.times_s) == FRAMES


@pytest.mark.parametrize(("file", "text", "told"), [
    ("intrinsics/0.txt", "1 2 3", "intrinsics/0.txt holds 3 numbers where 9 belong"),
    ("extrinsics/0.txt", "one", "extrinsics/0.txt does not parse as numbers"),
    ("instances/instances_info.json", '{"0": {}}', "instances_info.json needs class_name and frame_annotations"),
    ("lidar/001.bin", "xyz", "lidar/001.bin is no whole number of rows"),
])  # fmt: skip
def test_a_damaged_file_is_named(file: str, text: str, told: str, tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene", "waymo")
    (scene / file).write_text(text)
    with pytest.raises(WorldlineError, match=told):
        ingest(scene)
