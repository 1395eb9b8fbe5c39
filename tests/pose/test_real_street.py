"""The camera path of a real street, against the poses of the car's own localisation (PandaSet scene 002)."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from schemas.clips import Clip
from schemas.depth import DepthVideo
from schemas.media import Video
from stages.contract import no_progress
from stages.pose.align import AlignConfig, align_to_world
from stages.pose.colmap import ColmapConfig, solve_camera_path
from stages.pose.ground import GroundConfig, find_ground
from stages.pose.scale import ScaleConfig, find_scale
from worldline.cameras import absolute_trajectory_error, rigid, rotation_from_quaternion

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pandaset_002" / "camera" / "front_camera"


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.exists(), reason="needs ../shared/data/pandaset_002")
def test_a_street_driven_straight_ahead_after_a_slow_start_is_solved_to_centimetres_and_scaled_by_camera_height() -> None:
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(FOLDER.glob("*.jpg"))]
    calibration = json.loads((FOLDER / "intrinsics.json").read_text())  # of 1920x1080; the images are half of that
    K = np.diag([0.5, 0.5, 1.0]) @ [
        [calibration["fx"], 0, calibration["cx"] + 0.5],
        [0, calibration["fy"], calibration["cy"] + 0.5],
        [0, 0, 1],
    ]
    poses = json.loads((FOLDER / "poses.json").read_text())
    true = rigid(
        rotation_from_quaternion(np.array([[pose["heading"][axis] for axis in "wxyz"] for pose in poses])),
        np.array([[pose["position"][axis] for axis in "xyz"] for pose in poses]),
    )
    times = np.array(json.loads((FOLDER / "timestamps.json").read_text()))
    clip = Clip(
        frames=Video.from_array(np.stack(images)),
        times_s=times - times[0],
        name="street",
        intrinsics=K,
        camera_height_m=2.07,
        camera_height_sigma_m=0.05,
    )
    path, points = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    assert path.registered.all()
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.03

    plane = find_ground(path, points, GroundConfig(), seed=0, progress=no_progress)
    scale = find_scale(clip, path, points, plane, DepthVideo.none(), ScaleConfig(), seed=0, progress=no_progress)
    world, _, ground = align_to_world(path, points, plane, scale, AlignConfig(), seed=0, progress=no_progress)
    assert ground.found
    assert world.scale_source == "camera_height"
    _, alignment = absolute_trajectory_error(world.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert 1 / alignment.scale == pytest.approx(1, abs=0.05)
    up = alignment.rotation.T @ [0, 0, 1]  # the path is nearly straight: only its pitch is held by the alignment
    assert abs(up[0]) < 0.05
