"""Two cameras of a PandaSet scene made here: the log's poses say where one sits, at its own times, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.pandaset_rig import ingest_pandaset_rig
from stages.ingest.rig_sets import RigConfig
from stages.ingest.source import describe_source
from worldline.cameras import invert_rigid

BOTH = "left_camera+front_camera"
START_S, FRAMES, LATE_S = 1557539956.0, 12, 0.03
LEFT_FROM_FRONT = np.eye(4)
LEFT_FROM_FRONT[:3, :3] = Rotation.from_euler("y", 80, degrees=True).as_matrix()
LEFT_FROM_FRONT[:3, 3] = [0.3, -0.1, -0.4]


def front_pose(time_s: float) -> np.ndarray:
    """10 m/s along y while turning by 0.2 rad/s."""
    pose = np.eye(4)
    pose[:3, :3] = (Rotation.from_euler("z", 0.2 * time_s) * Rotation.from_euler("x", -90, degrees=True)).as_matrix()
    pose[1, 3] = 10.0 * time_s
    return pose


def write_camera(scene: Path, name: str, late_s: float, camera_from_front: np.ndarray) -> None:
    folder = scene / "camera" / name
    folder.mkdir(parents=True)
    poses, times = [], []
    for index in range(FRAMES):
        time_s = 0.1 * index + late_s
        pose = front_pose(time_s) @ invert_rigid(camera_from_front)
        wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True)
        poses.append({"position": dict(zip("xyz", pose[:3, 3], strict=True)), "heading": dict(zip("wxyz", wxyz, strict=True))})
        times.append(round(START_S + time_s, 6))
        Image.fromarray(np.full((54, 96, 3), index, np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "poses.json").write_text(json.dumps(poses))
    (folder / "timestamps.json").write_text(json.dumps(times))
    (folder / "intrinsics.json").write_text(json.dumps({"fx": 1000.0, "fy": 1000.0, "cx": 959.5, "cy": 539.5}))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    write_camera(tmp_path / "002", "front_camera", 0.0, np.eye(4))
    write_camera(tmp_path / "002", "left_camera", LATE_S, LEFT_FROM_FRONT)
    return tmp_path / "002"


def test_a_camera_is_placed_at_its_own_times(scene: Path) -> None:
    source = describe_source(scene, camera=BOTH)
    assert source.layout == "pandaset_rig"
    _, _, rig = ingest_pandaset_rig(source, RigConfig(), seed=0, progress=no_progress)
    assert rig.cameras == ["front_camera", "left_camera"]
    np.testing.assert_allclose(rig.camera_from_rig[1], LEFT_FROM_FRONT, atol=1e-4)
    np.testing.assert_allclose(rig.times_s["left_camera"] - rig.times_s["front_camera"], LATE_S, atol=1e-5)
    np.testing.assert_allclose(rig.intrinsics[1], [[50, 0, 48], [0, 50, 27], [0, 0, 1]])


def test_the_path_is_truth_and_belongs_to_the_frames_that_were_kept(scene: Path) -> None:
    source = describe_source(scene, camera=BOTH)
    clip, truth, _ = ingest_pandaset_rig(source, RigConfig(start_s=0.25, max_frames=4), seed=0, progress=no_progress)
    expected = [front_pose(0.1 * index) for index in range(3, 7)]
    np.testing.assert_allclose(truth.world_from_camera, expected, atol=1e-9)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [3, 4, 5, 6]
    assert clip.epoch_ns == round(START_S * 1e9) + 300_000_000


def test_a_camera_that_is_not_there_is_named(scene: Path) -> None:
    with pytest.raises(WorldlineError, match="has no camera back_camera: it has front_camera, left_camera"):
        describe_source(scene, camera="front_camera+back_camera")
