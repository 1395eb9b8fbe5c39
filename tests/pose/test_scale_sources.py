"""Sources of metres and of gravity beyond GPS and the camera's height, each against a made-up drive."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from drives import CAMERA_HEIGHT, INTRINSICS, LEVEL, blank_clip, gps_of, path_of, reconstruction, true_drive
from scipy.spatial.transform import Rotation
from test_metric_scale import ANYWHERE, SCALE, measure, said

from schemas.artifact import make_table
from schemas.cameras import GroundPlane, PointCloud
from schemas.clips import ATTITUDES, WHEEL_SPEEDS
from schemas.depth import DepthVideo
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.pose.scale import ScaleConfig, find_scale
from stages.pose.scale_from_sizes import KnownObject, SizeConfig, scale_from_known_objects

GROUND = GroundPlane(
    found=True, normal=np.array([0, 0, 1.0]), offset=CAMERA_HEIGHT, sigma=0.01, inliers=200,
    normal_sigma_rad=0.001, camera_height=CAMERA_HEIGHT, camera_height_sigma=0.01,
)  # fmt: skip


def speeds_of(poses: np.ndarray, factor: float = 1.0) -> pa.Table:
    speed = np.linalg.norm(np.gradient(poses[:, :3, 3], 0.1, axis=0), axis=1)
    return make_table(WHEEL_SPEEDS, {"time_s": np.arange(len(poses)) * 0.1, "speed_mps": factor * speed})


@pytest.mark.parametrize("worn", [1.0, 1.02])
def test_wheel_speed_gives_the_scale_up_to_the_wheels_own(worn: float) -> None:
    poses = true_drive()
    path, points = reconstruction(poses, ANYWHERE)
    scale = measure(blank_clip(60, wheel_speed=speeds_of(poses, worn)), path, points)
    assert scale.source == "wheel_speed"
    assert scale.scale == pytest.approx(worn / SCALE, rel=0.003)
    assert abs(np.log(scale.scale * SCALE)) < 1.645 * scale.sigma
    assert 0.02 < scale.sigma < 0.03
    assert scale.drift == pytest.approx(0, abs=0.01)  # what the tyre gets wrong, it gets wrong all the way
    assert scale.drift_sigma == pytest.approx(0, abs=0.03)


def test_kilometres_per_hour_given_for_metres_per_second_contradict_the_gps_and_then_there_is_no_scale() -> None:
    poses = true_drive()
    path, points = reconstruction(poses, ANYWHERE)
    scale = measure(blank_clip(60, gps=gps_of(poses, 0.02), wheel_speed=speeds_of(poses, 3.6)), path, points)
    assert (scale.scale, scale.source) == (None, "none")
    assert "contradict" in said(scale)["gps_position"]["reason"]


def boxes_of_people(poses: np.ndarray, heights: np.ndarray, rng: np.random.Generator, noise_px: float) -> list[KnownObject]:
    """People 8 to 15 m ahead of the camera on the ground at z = -1.6, projected."""
    found = []
    for frame, height in zip(range(0, 60, 60 // len(heights)), heights, strict=False):
        foot = np.array([rng.uniform(8, 15), rng.uniform(-2, 2), 0])
        place = poses[frame, :3, 3] + Rotation.from_euler("Z", 0.5 * frame / 59).apply(foot)
        ends = np.array([[*place[:2], -CAMERA_HEIGHT], [*place[:2], -CAMERA_HEIGHT + height]])
        local = (ends - poses[frame, :3, 3]) @ poses[frame, :3, :3]
        (x, bottom), (_, top) = (local[:, :2] / local[:, 2:] * 500 + INTRINSICS[:2, 2]) + rng.normal(size=(2, 2)) * noise_px
        found.append(KnownObject(frame, (x - 20, top, x + 20, bottom), kind="person"))
    return found


def test_an_object_of_known_height_on_the_ground_gives_the_exact_scale() -> None:
    poses = true_drive()
    path, _ = reconstruction(poses, ANYWHERE)
    rng = np.random.default_rng(0)
    (person,) = boxes_of_people(poses, np.array([1.8]), rng, 0.0)
    person = dataclasses.replace(person, height_m=1.8, height_sigma_m=0.01)
    normal = ANYWHERE.rotation @ [0, 0, 1.0]
    offset = SCALE * CAMERA_HEIGHT - float(normal @ ANYWHERE.translation)
    ground = dataclasses.replace(GROUND, normal=normal, offset=offset, camera_height=SCALE * CAMERA_HEIGHT)
    estimate = scale_from_known_objects(path, ground, SizeConfig(known_objects=(person,)))
    assert estimate.scale == pytest.approx(1 / SCALE, rel=1e-4)  # the box is upright in the image, the rolled person is not


def test_people_of_unknown_height_give_the_scale_within_the_stated_interval_nine_times_in_ten() -> None:
    poses = true_drive(pitch=0.1)
    path = path_of(poses)
    rng = np.random.default_rng(1)
    held = []
    for _ in range(200):
        mean = 1.70 * np.exp(0.03 * rng.normal())  # people of this place
        people = boxes_of_people(poses, mean + 0.1 * rng.normal(size=5), rng, 2.0)
        estimate = scale_from_known_objects(path, GROUND, SizeConfig(known_objects=tuple(people)))
        held.append(abs(np.log(estimate.scale)) < 1.645 * estimate.sigma)
    assert 0.85 < np.mean(held) < 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 60}, r"known_objects\[0\]\.frame=60: the clip has the frames 0 to 59"),
        ({"box_px": (0.0, 90.0, 10.0, 20.0)}, r"box_px=.*top first"),
        ({"kind": "giraffe"}, "give height_m in metres, or a kind among person, car"),
        ({"height_m": 1.8, "height_sigma_m": 0.0}, "height_sigma_m=0.0: it must be positive"),
    ],
)
def test_a_known_object_that_cannot_be_used_is_refused_in_one_sentence(change: dict[str, object], message: str) -> None:
    item = dataclasses.replace(KnownObject(3, (0.0, 10.0, 20.0, 90.0), kind="person"), **change)
    with pytest.raises(WorldlineError, match=message):
        scale_from_known_objects(path_of(true_drive()), GROUND, SizeConfig(known_objects=(item,)))


def hill(slope: float, count: int = 600) -> np.ndarray:
    """A winding 300 m drive up a plane that climbs towards +x by `slope`; the camera is pitched with the road."""
    heading = 1.2 * np.sin(np.arange(count) / 60)
    climb = Rotation.from_euler("Y", -slope)
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    along = np.cumsum(np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=1) * 0.5, axis=0)
    poses[:, :3, 3] = climb.apply(along)
    poses[:, :3, :3] = (climb * Rotation.from_euler("Z", heading[:, None])).as_matrix() @ LEVEL
    return poses


def gravity(clip, poses: np.ndarray, **config):
    ground = dataclasses.replace(GROUND, normal=hill_normal(poses), offset=0.0)
    trust = dataclasses.replace(ScaleConfig().gravity, **config)
    return find_scale(
        clip, path_of(poses), PointCloud.none(), ground, DepthVideo.none(), dataclasses.replace(ScaleConfig(), gravity=trust),
        seed=0, progress=no_progress,
    )  # fmt: skip


def hill_normal(poses: np.ndarray) -> np.ndarray:
    return poses[0, :3, :3] @ [0, -1.0, 0]


def test_altitudes_tell_a_steady_climb_from_the_level_that_the_road_itself_looks_like() -> None:
    poses = hill(0.05)
    gps = gps_of(poses, 0.0)
    rng = np.random.default_rng(0)
    gps = gps.set_column(3, "altitude_m", pa.array(poses[:, 2, 3] + 0.3 * rng.normal(size=600)))
    found = gravity(blank_clip(600, gps=gps), poses)
    assert found.gravity_source == "ground_plane+gps"
    off = np.arccos(found.up[2])
    assert off < 0.035  # the road alone is off by 0.05
    assert off < 2 * found.gravity_sigma_rad


def test_a_vehicles_roll_and_pitch_tell_gravity_through_the_way_its_camera_looks() -> None:
    poses = hill(0.1)
    body = np.einsum("tij,kj->tik", poses[:, :3, :3], LEVEL)  # vehicle axes x forward, y left, z up in the world
    yaw, pitch, roll = Rotation.from_matrix(body).as_euler("ZYX").T
    table = make_table(ATTITUDES, {"time_s": np.arange(600) * 0.1, "roll_rad": roll, "pitch_rad": pitch, "yaw_rad": yaw})
    found = gravity(blank_clip(600, attitudes=table), poses, mount_sigma_rad=0.001)
    assert found.gravity_source == "inertial"
    np.testing.assert_allclose(found.up, [0, 0, 1], atol=1e-9)


def test_gravity_that_is_given_in_the_first_camera_counts() -> None:
    poses = hill(0.1)
    up = poses[0, :3, :3].T @ [0, 0, 1.0]
    found = gravity(blank_clip(600), poses, up_in_first_camera=tuple(up), up_sigma_rad=0.002)
    assert found.gravity_source == "given"
    np.testing.assert_allclose(found.up, [0, 0, 1], atol=1e-9)
    assert found.gravity_sigma_rad == pytest.approx(0.002, rel=0.01)
