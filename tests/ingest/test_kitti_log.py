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
