"""One camera of a rig, at its own times, against a motion in closed form."""

import dataclasses

import numpy as np
import pytest
from drives import path_of

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.rigs import Rig, RigClip
from stages.contract import no_progress
from stages.pose.rig import given_rig
from stages.pose.rig_camera import RigCameraConfig, take_camera

SIDE_FROM_FRONT = np.array([[0.0, 0, -1, 0.2], [0, 1, 0, 0.1], [1, 0, 0, -0.5], [0, 0, 0, 1]])
FRAMES, LATE_S = 8, 0.04


def drive(times_s: np.ndarray) -> np.ndarray:
    """10 m/s along the camera's axis."""
    poses = np.repeat(np.eye(4)[None], len(times_s), axis=0)
    poses[:, 2, 3] = 10.0 * times_s
    return poses


@pytest.fixture
def rig_clip() -> RigClip:
    times = np.arange(FRAMES) * 0.1
    return RigClip(
        name="car",
        cameras=["front", "side"],
        frames={
            "front": Video.from_array(np.zeros((FRAMES, 4, 6, 3), np.uint8)),
            "side": Video.from_array(np.ones((FRAMES, 6, 8, 3), np.uint8)),
        },
        times_s={"front": times, "side": times + LATE_S},
        sets=np.stack([np.arange(FRAMES, dtype=np.int32)] * 2, axis=1),
        calibrated=True,
        intrinsics=np.stack([np.diag([5.0, 5.0, 1.0]), np.diag([7.0, 7.0, 1.0])]),
        distortion=np.array([[0.0, 0, 0, 0], [0.1, 0, 0, 0]]),
        placed=np.array([True, True]),
        camera_from_rig=np.stack([np.eye(4), SIDE_FROM_FRONT]),
        position_sigma_m=np.zeros(2),
        rotation_sigma_rad=np.zeros(2),
        readout_s=np.zeros(2),
    )


def take(rig_clip: RigClip, path: CameraPath, rig: Rig | None = None, **config: object) -> tuple[Clip, CameraPath]:
    chosen = RigCameraConfig(**config)  # type: ignore[arg-type]
    return take_camera(rig_clip, path, rig or given_rig(rig_clip), chosen, seed=0, progress=no_progress)


def test_a_camera_is_where_the_rig_has_driven_to_when_it_fires(rig_clip: RigClip) -> None:
    path = path_of(drive(rig_clip.times_s["front"]), scale_source="baseline", scale_sigma=0.01)
    clip, side = take(rig_clip, path, camera="side")
    assert (clip.size, side.width, side.height) == ((8, 6), 8, 6)
    np.testing.assert_array_equal(side.times_s, clip.times_s)
    assert side.registered.tolist() == [True] * (FRAMES - 1) + [False]  # the last frame was taken after the end of the path
    true = drive(clip.times_s) @ np.linalg.inv(SIDE_FROM_FRONT)
    np.testing.assert_allclose(side.world_from_camera[:-1], true[:-1], atol=1e-12)
    assert (side.scale_source, side.intrinsics[0, 0], side.distortion[0]) == ("baseline", 7.0, 0.1)


def test_the_reference_keeps_its_own_path(rig_clip: RigClip) -> None:
    path = path_of(drive(rig_clip.times_s["front"]))
    _, front = take(rig_clip, path)
    assert front.registered.all()
    np.testing.assert_allclose(front.world_from_camera, path.world_from_camera, atol=1e-12)


def test_nothing_is_registered_in_a_hole_of_the_path(rig_clip: RigClip) -> None:
    registered = np.ones(FRAMES, bool)
    registered[2:6] = False  # solved at 0.1 s and 0.6 s
    _, side = take(rig_clip, path_of(drive(rig_clip.times_s["front"]), registered=registered), camera="side", max_gap_s=0.4)
    assert np.flatnonzero(side.registered).tolist() == [0, 6]


def test_a_camera_without_a_name_or_a_place_is_refused(rig_clip: RigClip) -> None:
    path = path_of(drive(rig_clip.times_s["front"]))
    with pytest.raises(WorldlineError, match="is no camera of car: it has front, side"):
        take(rig_clip, path, camera="rear")
    lost = dataclasses.replace(given_rig(rig_clip), placed_by=["reference", "none"])
    with pytest.raises(WorldlineError, match="where camera side of car sits was neither given nor found"):
        take(rig_clip, path, lost, camera="side")
