import dataclasses

import numpy as np
import pytest
from drives import CAMERA_HEIGHT, blank_clip, gps_of, path_of, reconstruction, true_drive
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.depth import DepthVideo
from stages.contract import no_progress
from stages.pose.align import AlignConfig, align_to_world
from stages.pose.ground import GroundConfig, find_ground
from stages.pose.scale import ScaleConfig, find_scale
from stages.pose.scale_estimate import ScaleEstimate, fuse
from stages.pose.scale_from_travel import east_north_up
from worldline.cameras import Similarity

SCALE = 0.37  # path units per metre


def anywhere(seed: int = 4) -> Similarity:
    return Similarity(SCALE, Rotation.random(random_state=np.random.default_rng(seed)).as_matrix(), np.array([3.0, -1, 7]))


def align(clip: Clip, path: CameraPath, points: PointCloud):
    ground = find_ground(path, points, GroundConfig(), seed=0, progress=no_progress)
    scale = find_scale(clip, path, points, ground, DepthVideo.none(), ScaleConfig(), seed=0, progress=no_progress)
    return align_to_world(path, points, ground, scale, AlignConfig(), seed=0, progress=no_progress)


def test_a_known_camera_height_over_the_road_gives_gravity_scale_and_origin() -> None:
    poses = true_drive()
    path, points = reconstruction(poses, anywhere())
    clip = blank_clip(60, camera_height_m=CAMERA_HEIGHT, camera_height_sigma_m=0.03)
    world, cloud, ground = align(clip, path, points)

    assert world.scale_source == "camera_height"
    assert world.gravity_source == "ground_plane"
    # the stated sigma is that of the given height (1.9 %) and of the plane together; the error must lie within it
    assert 0.018 < world.scale_sigma < 0.03
    length = np.linalg.norm(np.diff(world.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    assert length == pytest.approx(59 * 0.5, rel=2 * world.scale_sigma)

    assert ground.found
    np.testing.assert_allclose(ground.normal, [0, 0, 1], atol=1e-12)
    assert ground.offset == pytest.approx(CAMERA_HEIGHT, rel=0.01)
    assert np.median(np.abs(cloud.xyz[:300] @ ground.normal + ground.offset)) < 0.03  # the road points come first
    np.testing.assert_allclose(world.world_from_camera[0, :3, 3], 0, atol=1e-12)


def test_world_axes_are_the_first_cameras_forward_laid_flat_left_and_up() -> None:
    path, points = reconstruction(true_drive(pitch=0.2), anywhere(), noise=0.0)
    world, _, _ = align(blank_clip(60, camera_height_m=CAMERA_HEIGHT), path, points)
    first = world.world_from_camera[0, :3, :3]
    assert first[1, 2] == pytest.approx(0, abs=1e-9)  # looks along x, not to the side
    assert np.degrees(np.arcsin(-first[2, 2])) == pytest.approx(np.degrees(0.2), abs=0.5)  # and down by its pitch
    assert world.world_from_camera[-1, 1, 3] > 3  # the drive curves to the left: to positive y


def test_car_roofs_beside_the_road_are_not_taken_for_it() -> None:
    path, points = reconstruction(true_drive(), anywhere())
    roofs_only = points.xyz.copy()
    roofs_only[60:300] += 1000  # most of the road was never seen; 60 points of it stand against 150 on the roofs
    world, _, ground = align(blank_clip(60, camera_height_m=CAMERA_HEIGHT), path, dataclasses.replace(points, xyz=roofs_only))
    assert ground.found
    length = np.linalg.norm(np.diff(world.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    assert length == pytest.approx(59 * 0.5, rel=0.05)


@pytest.mark.parametrize(("noise_m", "outliers"), [(0.05, 0), (0.3, 4)])
def test_gps_gives_the_scale_within_its_stated_sigma_despite_outliers(noise_m: float, outliers: int) -> None:
    poses = true_drive()
    path, points = reconstruction(poses, anywhere())
    world, _, _ = align(blank_clip(60, gps=gps_of(poses, noise_m, outliers=outliers)), path, points)
    assert world.scale_source == "gps"
    length = np.linalg.norm(np.diff(world.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    assert world.scale_sigma < 0.05
    assert abs(length / (59 * 0.5) - 1) < 2 * world.scale_sigma


def test_gps_is_refused_where_the_path_is_short_against_its_noise() -> None:
    poses = true_drive()[:8]  # 3.5 m
    path, points = reconstruction(poses, anywhere())
    world, _, _ = align(blank_clip(8, gps=gps_of(poses, 3.0)), path, points)
    assert world.scale_source == "none"
    assert not world.metric


def test_gps_speed_helps_where_positions_are_poor() -> None:
    poses = true_drive()
    path, points = reconstruction(poses, anywhere())
    world, _, _ = align(blank_clip(60, gps=gps_of(poses, 6.0, speed=True)), path, points)
    assert world.scale_source == "gps"
    length = np.linalg.norm(np.diff(world.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    assert length == pytest.approx(59 * 0.5, rel=0.02)


def test_sources_are_fused_by_inverse_variance_and_disagreement_widens_the_sigma() -> None:
    fused = fuse([ScaleEstimate("gps", 2.0, 0.01), ScaleEstimate("camera_height", 2.02, 0.02)])
    assert fused is not None
    assert np.log(fused.scale) == pytest.approx((4 * np.log(2.0) + np.log(2.02)) / 5)
    assert fused.sigma == pytest.approx(1 / np.sqrt(100**2 + 50**2))
    assert fused.source == "gps+camera_height"
    torn = fuse([ScaleEstimate("gps", 2.0, 0.01), ScaleEstimate("camera_height", 2.4, 0.01)])
    assert torn is not None
    assert torn.sigma > 0.08  # ten sigma apart: the answer is no better than their distance
    assert fuse([]) is None


def test_without_a_source_of_scale_the_median_point_is_ten_units_away_and_nothing_is_called_metric() -> None:
    path, points = reconstruction(true_drive(), anywhere())
    world, cloud, ground = align(blank_clip(60), path, points)
    centres = world.world_from_camera[cloud.observation_frame, :3, 3]
    assert np.median(np.linalg.norm(cloud.xyz[cloud.observation_point] - centres, axis=1)) == pytest.approx(10)
    assert (world.scale_source, world.scale_sigma, world.metric) == ("none", 0.0, False)
    assert ground.found
    assert world.gravity_source == "ground_plane"


def test_without_ground_points_gravity_comes_from_the_cameras_with_a_wide_sigma() -> None:
    path, points = reconstruction(true_drive(), anywhere(), ground=False)
    world, _, ground = align(blank_clip(60, camera_height_m=CAMERA_HEIGHT), path, points)
    assert not ground.found
    assert world.gravity_source == "camera_up"
    assert world.gravity_sigma_rad >= 0.1
    assert world.scale_source == "none"  # a camera height without ground says nothing
    assert np.degrees(np.arccos(-world.world_from_camera[:, 2, 1])).max() < 10


def test_a_tripod_clip_is_level_and_has_no_scale() -> None:
    poses = np.repeat(np.eye(4)[None], 5, axis=0)
    clip = blank_clip(5, camera_height_m=CAMERA_HEIGHT)
    world, _, ground = align(clip, path_of(poses, "static"), PointCloud.none())
    np.testing.assert_allclose(world.world_from_camera[0, :3, :3], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    assert (world.scale_source, world.gravity_source, ground.found) == ("none", "camera_up", False)


def test_a_clip_of_which_nothing_was_solved_passes_through() -> None:
    poses = np.repeat(np.eye(4)[None], 5, axis=0)
    path = path_of(poses, "failed", registered=np.zeros(5, bool))
    world, cloud, ground = align(blank_clip(5), path, PointCloud.none())
    assert world.gravity_source == "none"
    assert len(cloud.xyz) == 0
    assert not ground.found


def test_unregistered_frames_keep_the_identity() -> None:
    path, points = reconstruction(true_drive(), anywhere())
    registered = path.registered.copy()
    registered[[0, 30]] = False
    poses = path.world_from_camera.copy()
    poses[[0, 30]] = np.eye(4)
    keep = ~np.isin(points.observation_frame, [0, 30])
    points = dataclasses.replace(
        points,
        observation_frame=points.observation_frame[keep],
        observation_point=points.observation_point[keep],
        observation_xy_px=points.observation_xy_px[keep],
    )
    world, _, _ = align(blank_clip(60), dataclasses.replace(path, world_from_camera=poses, registered=registered), points)
    np.testing.assert_array_equal(world.world_from_camera[[0, 30]], np.eye(4)[None].repeat(2, axis=0))
    np.testing.assert_allclose(world.world_from_camera[1, :3, 3], 0, atol=1e-12)  # the first registered one is the origin


def test_one_millidegree_of_latitude_and_longitude_has_the_length_that_the_ellipsoid_gives_it() -> None:
    # lengths of a degree at 45 degrees north on WGS84 (NGA tables): 111131.745 m of latitude, 78846.806 m of longitude
    enu = east_north_up(np.array([45.0, 45.001, 45.0]), np.array([7.0, 7.0, 7.001]), np.array([100.0, 100.0, 100.0]))
    # at 100 m altitude both grow by about 100 m over the radius of curvature
    assert enu[1, 1] == pytest.approx(111.131745 * (1 + 100 / 6367382), abs=2e-3)
    assert enu[2, 0] == pytest.approx(78.846806 * (1 + 100 / 6388838), abs=2e-3)
    np.testing.assert_allclose(enu[1:, 2], 0, atol=2e-3)
