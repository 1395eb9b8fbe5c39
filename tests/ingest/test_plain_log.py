"""A plain folder as a driving log: one drive whose numbers are known, with its poses in every format that is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.driving_log import DrivingLog
from stages.ingest.log_source import describe_driving_log
from stages.ingest.plain_log import PlainLogConfig, ingest_plain_log

FRAMES, WIDTH, HEIGHT = 8, 80, 48
FOCAL, CENTRE = 70.0, (40.0, 22.0)
TIMES_S = np.array([0.0, 0.1, 0.2, 0.31, 0.4, 0.5, 0.59, 0.7])
START = np.array([30.0, -12.0, 4.0])
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera that looks along the vehicle's x


def camera(frame: int) -> np.ndarray:
    matrix = np.eye(4)
    turn = Rotation.from_euler("z", 0.5 + 0.05 * frame).as_matrix()
    matrix[:3, :3] = turn @ AXES
    matrix[:3, 3] = START + np.array([0.9 * frame, 0.5 * frame, 0])
    return matrix


def made_folder(folder: Path, poses: str = "transforms", boxes: str = "csv", table: list[dict[str, Any]] | None = None) -> Path:
    (folder / "images").mkdir(parents=True)
    for frame in range(FRAMES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 30 * frame, np.uint8)).save(folder / "images" / f"frame{frame}.png")
    (folder / "images" / "timestamps.csv").write_text("\n".join(str(time_s) for time_s in TIMES_S))
    match poses:
        case "transforms":
            opengl = np.diag([1.0, -1, -1, 1])
            frames = [
                {"file_path": f"images/frame{frame}.png", "transform_matrix": (camera(frame) @ opengl).tolist()}
                for frame in range(FRAMES)
            ]
            lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": CENTRE[0], "cy": CENTRE[1], "w": WIDTH, "h": HEIGHT}
            (folder / "transforms.json").write_text(json.dumps(lens | {"frames": frames}))
        case "tum":
            rows = []
            for frame, time_s in enumerate(TIMES_S):
                quaternion = Rotation.from_matrix(camera(frame)[:3, :3]).as_quat()  # x, y, z, w
                rows.append(" ".join(f"{value:.12f}" for value in (time_s, *camera(frame)[:3, 3], *quaternion)))
            (folder / "poses.txt").write_text("\n".join(rows))
        case "kitti":
            rows = [" ".join(f"{value:.12f}" for value in camera(frame)[:3].ravel()) for frame in range(FRAMES)]
            (folder / "poses.txt").write_text("\n".join(rows))
    rows = pa.Table.from_pylist(car_rows() if table is None else table)
    if boxes == "csv":
        pyarrow.csv.write_csv(rows, folder / "boxes.csv")
    else:
        pq.write_table(rows, folder / "boxes.parquet")
    elements = [
        {"kind": "lane_line", "points": [[30, -10, 2.5], [60, 5, 2.4]]},
        {"kind": "drivable", "points": [[20, -20], [70, -20], [70, 10], [20, 10]]},
    ]
    (folder / "map.json").write_text(json.dumps(elements))
    (folder / "lidar").mkdir()
    np.savez(folder / "lidar" / "000.npz", xyz=road_points(), origin=START + np.array([0, 0, 0.3]), time_s=0.15)
    np.column_stack([road_points(), np.zeros(len(road_points()))]).astype(np.float32).tofile(folder / "lidar" / "sweep_0004.bin")
    return folder


def car_rows(**own: Any) -> list[dict[str, Any]]:
    """A car that drives 6 m/s along x, in the frames from the second on."""
    same = {"track_id": "a", "class_name": "car", "length": 4.4, "width": 1.8, "height": 1.5, "yaw_rad": 0.1, "y": -3.0, "z": 2.4}
    return [same | {"time_s": TIMES_S[frame], "x": 45 + 6 * TIMES_S[frame]} | own for frame in range(1, FRAMES)]


def road_points() -> np.ndarray:
    """A level road 1.55 m under the camera."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(-8, 8, 0.4), np.arange(-8, 8, 0.4)))
    return START + np.stack([x, y, np.full_like(x, -1.55)], -1)


def ingest(path: Path, **settings: object) -> DrivingLog:
    stage, source, given = describe_driving_log(path)
    assert stage == "ingest.plain_log"
    return ingest_plain_log(source, PlainLogConfig(**{**given, **settings}), seed=0, progress=no_progress)


LENS = {"intrinsics": (FOCAL, FOCAL, *CENTRE)}


@pytest.mark.parametrize(("poses", "settings"), [("transforms", {}), ("tum", LENS), ("kitti", LENS)])
def test_path_boxes_map_and_lidar_come_in_one_world(poses: str, settings: dict, tmp_path: Path) -> None:
    clip, path, tracks, trajectory, road_map, lidar, _ = ingest(made_folder(tmp_path / "drive", poses), **settings)
    expected = np.stack([camera(frame) for frame in range(FRAMES)])
    expected[:, :3, 3] -= START
    assert np.allclose(path.world_from_camera, expected, atol=1e-9)
    assert path.scale_source == "annotations"
    assert np.allclose(clip.times_s, TIMES_S)
    assert np.allclose(clip.intrinsics, [[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]])
    rows = tracks.samples.to_pylist()
    assert [row["frame"] for row in rows] == list(range(1, FRAMES))
    assert np.allclose([row["x"] for row in rows], 45 + 6 * TIMES_S[1:] - START[0])
    assert np.allclose([(row["y"], row["z"]) for row in rows], np.array([-3.0, 2.4]) - START[1:])
    assert np.allclose(road_map.lines("lane_line")[0], np.array([[30, -10, 2.5], [60, 5, 2.4]]) - START)
    assert np.allclose(road_map.lines("drivable")[0][:, 2], -START[2])
    assert np.allclose(lidar.times_s, [0.15, TIMES_S[4]])
    assert np.allclose(lidar.xyz[lidar.sweep == 0], road_points() - START, atol=1e-5)
    assert np.allclose(lidar.xyz[lidar.sweep == 1], road_points() - START, atol=1e-5)
    assert np.allclose(lidar.origins, [[0, 0, 0.3], expected[4, :3, 3]])
    height = path.world_from_camera[:, 2, 3] - trajectory.world_from_ego[:, 2, 3]
    assert np.allclose(height, 1.55, atol=1e-3)  # as the lidar measured it
    forward = np.einsum("tij,tj->ti", path.world_from_camera[:, :3, :3].transpose(0, 2, 1), trajectory.world_from_ego[:, :3, 0])
    assert np.allclose(forward, [0, 0, 1], atol=1e-9)


def test_rows_of_class_ego_are_the_vehicle(tmp_path: Path) -> None:
    """Told in two frames of three, the vehicle is between where it is told in the others."""
    ego = [
        {"track_id": "me", "class_name": "ego", "time_s": TIMES_S[frame], "x": 28 + 9 * TIMES_S[frame], "y": -13.0, "z": 2.45,
         "length": None, "width": None, "height": None, "yaw_rad": 0.5}
        for frame in range(FRAMES) if frame % 3 != 1
    ]  # fmt: skip
    _, _, tracks, trajectory, *_ = ingest(made_folder(tmp_path / "drive", boxes="parquet", table=car_rows() + ego))
    assert tracks.objects.num_rows == 1
    times = np.minimum(TIMES_S, TIMES_S[6])  # the last frame has none: held
    place = np.stack([28 + 9 * times, np.full(FRAMES, -13.0), np.full(FRAMES, 2.45)], -1) - START
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], place)
    assert np.allclose(trajectory.world_from_ego[:, :2, 0], [np.cos(0.5), np.sin(0.5)])


def test_a_column_of_frames_counts_all_images_also_in_a_part_of_them(tmp_path: Path) -> None:
    table = [row | {"frame": frame} for frame, row in enumerate(car_rows(time_s=0.0), start=1)]
    clip, _, tracks, _, _, lidar, _ = ingest(
        made_folder(tmp_path / "drive", table=table), start_s=0.25, max_frames=3, max_side=40
    )
    assert clip.size == (32, 16)
    assert tracks.samples["frame"].to_pylist() == [0, 1, 2]
    assert np.allclose(tracks.samples["x"].to_numpy(), [row["x"] - camera(3)[0, 3] for row in table[2:5]])
    assert np.allclose(lidar.times_s, [TIMES_S[4] - TIMES_S[3]])


def test_a_part_of_the_frames_takes_its_own_poses_from_a_trajectory(tmp_path: Path) -> None:
    path = ingest(made_folder(tmp_path / "drive", "tum"), **LENS, start_s=0.25)[1]
    expected = np.stack([camera(frame) for frame in range(3, FRAMES)])
    expected[:, :3, 3] -= camera(3)[:3, 3]
    assert np.allclose(path.world_from_camera, expected, atol=1e-9)
    assert np.allclose(path.times_s, TIMES_S[3:] - TIMES_S[3])


def test_a_frame_without_a_pose_is_not_registered(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "drive", "tum")
    lines = (folder / "poses.txt").read_text().splitlines()
    (folder / "poses.txt").write_text("\n".join(lines[:3] + lines[4:]))
    path = ingest(folder, **LENS)[1]
    assert path.registered.tolist() == [True] * 3 + [False] + [True] * 4


@pytest.mark.parametrize(("file", "text", "told"), [
    ("map.json", '[{"kind": "hedge", "points": [[0, 0], [1, 1]]}]', "element 0 is of kind 'hedge': give one of lane_line"),
    ("map.json", '{"kind": 1}', "map.json must be a JSON list"),
    ("boxes.csv", "track_id,x,y\n1,2,3\n", "boxes.csv lacks the columns time_s"),
    ("boxes.csv", "track_id,x,y,time_s\n1,2,3,900\n", "no row belongs to a frame"),
    ("lidar/000.npz", "nothing", "lidar/000.npz must hold xyz"),
])  # fmt: skip
def test_a_damaged_file_is_named(file: str, text: str, told: str, tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "drive")
    (folder / file).write_text(text)
    with pytest.raises(WorldlineError, match=told):
        ingest(folder)


def test_boxes_without_poses_are_told_what_is_missing(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "drive")
    (folder / "transforms.json").unlink()
    with pytest.raises(WorldlineError, match="tells no poses"):
        describe_driving_log(folder)


def test_frames_without_poses_or_boxes_are_no_driving_log(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(WorldlineError, match="is no driving log that Worldline knows"):
        describe_driving_log(tmp_path)


def test_another_axis_up_goes_only_with_poses_alone(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match=r"turns the poses and leaves boxes\.csv as it is"):
        ingest(made_folder(tmp_path / "drive"), up="y")
