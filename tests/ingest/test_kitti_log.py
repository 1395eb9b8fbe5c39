"""A sequence of KITTI tracking as a driving log: one true scene, its images and its sweeps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from track_logs import CAMERA_FROM_LIDAR, LIDAR_FROM_IMU, P2, RECTIFY, Scene, make_scene, write_kitti

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.driving_log import DrivingLog
from stages.ingest.kitti_log import KittiLogConfig, ingest_kitti_log
from stages.ingest.log_source import describe_driving_log

WIDTH, HEIGHT = 124, 37
WALL = np.array([[12.0, y, z] for y in np.arange(-5, 5, 0.5) for z in (-1.0, 0.0, 1.0)])  # in the lidar's frame


def made_folder(folder: Path, scene: Scene) -> Path:
    write_kitti(folder, scene, "0004")
    (folder / "image_02" / "0004").mkdir(parents=True)
    (folder / "velodyne" / "0004").mkdir(parents=True)
    for frame in range(len(scene.times_s)):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 8 * frame, np.uint8)).save(folder / "image_02" / "0004" / f"{frame:06d}.png")
        if frame != 5:
            rows = np.column_stack([WALL, np.ones(len(WALL))]).astype(np.float32)
            rows.tofile(folder / "velodyne" / "0004" / f"{frame:06d}.bin")
    return folder


def ingest(path: Path, part: str = "", **settings: object) -> DrivingLog:
    stage, source, given = describe_driving_log(path, part=part)
    assert stage == "ingest.kitti_log"
    return ingest_kitti_log(source, KittiLogConfig(**{**given, **settings}), seed=0, progress=no_progress)


def world(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The poses of the left colour camera and of the lidar in the scene's world."""
    rectified = scene.world_from_ego @ np.linalg.inv(RECTIFY @ CAMERA_FROM_LIDAR @ LIDAR_FROM_IMU)
    from_camera = np.eye(4)
    from_camera[:3, 3] = -np.linalg.inv(P2[:, :3]) @ P2[:, 3]
    return rectified @ from_camera, scene.world_from_ego @ np.linalg.inv(LIDAR_FROM_IMU)


def test_the_scene_comes_out_in_the_world_of_its_first_camera(tmp_path: Path) -> None:
    scene = make_scene(tilt=0.02)
    cameras, lidars = world(scene)
    origin = cameras[3, :3, 3]
    clip, path, tracks, trajectory, road_map, lidar, _ = ingest(
        made_folder(tmp_path, scene), start_s=0.25, max_frames=4, max_side=62
    )
    assert clip.name == "0004"
    assert (clip.size, clip.frames.array()[:, 0, 0, 0].tolist()) == ((48, 16), [24, 32, 40, 48])
    expected = cameras[3:7].copy()
    expected[:, :3, 3] -= origin
    assert np.allclose(path.world_from_camera, expected, atol=2e-6)
    scale = np.array([62 / WIDTH, 18 / HEIGHT])
    assert np.allclose(path.intrinsics[[0, 1], [2, 2]], (P2[:2, 2] + 0.5) * scale - [7, 1])
    rows = [row for row in tracks.samples.to_pylist() if row["track_id"] == 1]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    car = scene.things[3].bottom[3:7] - origin
    assert np.allclose([[row[axis] for axis in "xyz"] for row in rows], car, atol=1e-5)
    middle = scene.world_from_ego[3:7] @ [1.3, -0.32, -0.93, 1]
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], middle[:, :3] - origin, atol=2e-6)
    assert np.allclose(lidar.times_s, [0, 0.1, 0.3])  # the sequence lacks the sweep of frame 5
    points = WALL @ lidars[4, :3, :3].T + lidars[4, :3, 3] - origin
    assert np.allclose(lidar.xyz[lidar.sweep == 1], points, atol=1e-5)
    assert np.allclose(lidar.origins[1], lidars[4, :3, 3] - origin, atol=2e-6)
    assert road_map.elements.num_rows == 0


def test_a_sequence_is_chosen_by_its_name(tmp_path: Path) -> None:
    folder = made_folder(tmp_path, make_scene())
    write_kitti(folder, make_scene(), "0002")
    assert ingest(folder, "0004")[0].name == "0004"
    with pytest.raises(WorldlineError, match="0002 has no images image_02/0002"):
        ingest(folder)
    with pytest.raises(WorldlineError, match="has no sequence 7: it has 0002, 0004"):
        describe_driving_log(folder, part="7")


# --- raw drives ----------------------------------------------------------------------------------------------------------
CAR, CAR_YAW, CAR_SIZE = (
    np.array([14.0, 2.0, -1.7]),
    0.4,
    (4.0, 1.7, 1.5),
)  # before the lidar, from the third frame on


def made_drive(day: Path, scene: Scene) -> Path:
    """The scene's sequence, written again as a raw drive, with a car that keeps its place before the lidar."""
    write_kitti(day / "tracking", scene)
    records = (day / "tracking" / "oxts" / "0000.txt").read_text().splitlines()
    drive = day / "2011_09_26_drive_0001_sync"
    for folder in ("image_02/data", "oxts/data", "velodyne_points/data"):
        (drive / folder).mkdir(parents=True)
    for frame, record in enumerate(records):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 8 * frame, np.uint8)).save(drive / "image_02" / "data" / f"{frame:010d}.png")
        (drive / "oxts" / "data" / f"{frame:010d}.txt").write_text(record + "\n")
        rows = np.column_stack([WALL, np.ones(len(WALL))]).astype(np.float32)
        rows.tofile(drive / "velodyne_points" / "data" / f"{frame:010d}.bin")
    stamps = [f"2011-09-26 13:02:{25 + frame / 10:.9f}" for frame in range(len(records))]
    (drive / "image_02" / "timestamps.txt").write_text("\n".join(stamps))
    numbers = {"R_rect_00": RECTIFY[:3, :3], "P_rect_02": P2}
    text = "\n".join(f"{key}: {' '.join(f'{value:.12e}' for value in matrix.ravel())}" for key, matrix in numbers.items())
    (day / "calib_cam_to_cam.txt").write_text(text)
    for name, matrix in (("velo_to_cam", CAMERA_FROM_LIDAR), ("imu_to_velo", LIDAR_FROM_IMU)):
        rotation, place = (" ".join(f"{value:.12e}" for value in part.ravel()) for part in (matrix[:3, :3], matrix[:3, 3]))
        (day / f"calib_{name}.txt").write_text(f"calib_time: 25-May-2012 16:47:16\nR: {rotation}\nT: {place}\n")
    length, width, height = CAR_SIZE
    poses = f"<item><tx>{CAR[0]}</tx><ty>{CAR[1]}</ty><tz>{CAR[2]}</tz><rx>0</rx><ry>0</ry><rz>{CAR_YAW}</rz></item>" * 3
    (drive / "tracklet_labels.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8" standalone="yes" ?><!DOCTYPE boost_serialization><boost_serialization>'
        f"<tracklets><count>1</count><item><objectType>Car</objectType><h>{height}</h><w>{width}</w><l>{length}</l>"
        f"<first_frame>2</first_frame><poses><count>3</count>{poses}</poses></item></tracklets></boost_serialization>"
    )
    return drive


def test_a_raw_drive_s_poses_points_and_tracklets_are_in_the_world_of_its_first_camera(tmp_path: Path) -> None:
    scene = make_scene(tilt=0.01)
    cameras, lidars = world(scene)
    clip, path, tracks, trajectory, _, lidar, _ = ingest(made_drive(tmp_path, scene), start_s=0.15, max_frames=4)
    origin = cameras[2, :3, 3]
    expected = cameras[2:6].copy()
    expected[:, :3, 3] -= origin
    assert np.allclose(path.world_from_camera, expected, atol=2e-6)
    assert clip.epoch_ns == 1_317_042_145_200_000_000  # 2011-09-26 13:02:25.2 UTC
    rows = tracks.samples.to_pylist()
    assert [row["frame"] for row in rows] == [0, 1, 2]
    for row, pose in zip(rows, lidars[2:5], strict=True):
        assert np.allclose([row[axis] for axis in "xyz"], (pose @ [*CAR, 1])[:3] - origin, atol=1e-5)
        ahead = pose[:3, :3] @ [np.cos(CAR_YAW), np.sin(CAR_YAW), 0]
        assert row["yaw_rad"] == pytest.approx(np.arctan2(ahead[1], ahead[0]), abs=1e-6)
        assert (row["length"], row["width"], row["height"]) == CAR_SIZE
    assert np.allclose(lidar.xyz[lidar.sweep == 3], WALL @ lidars[5, :3, :3].T + lidars[5, :3, 3] - origin, atol=1e-5)
    middle = scene.world_from_ego[2:6] @ [1.3, -0.32, -0.93, 1]
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], middle[:, :3] - origin, atol=2e-6)


def test_a_raw_drive_without_tracklets_has_no_boxes_and_without_calibration_is_told_so(tmp_path: Path) -> None:
    drive = made_drive(tmp_path, make_scene())
    (drive / "tracklet_labels.xml").unlink()
    _, path, tracks, *_ = ingest(drive)
    assert (tracks.objects.num_rows, path.scale_source) == (0, "given")
    (tmp_path / "calib_imu_to_velo.txt").unlink()
    with pytest.raises(WorldlineError, match=r"has no calib_imu_to_velo\.txt"):
        ingest(drive)
