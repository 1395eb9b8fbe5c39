import numpy as np
import pytest
from evo.core import geometry as evo_geometry
from scipy.spatial.transform import Rotation, Slerp

from worldline import cameras


def random_rotations(count: int, seed: int = 0) -> Rotation:
    return Rotation.random(count, random_state=np.random.default_rng(seed))


def test_quaternions_become_the_matrices_that_scipy_gives() -> None:
    rotations = random_rotations(200)
    np.testing.assert_allclose(
        cameras.rotation_from_quaternion(rotations.as_quat(scalar_first=True) * 3.0), rotations.as_matrix(), atol=1e-14
    )


def test_matrices_become_the_quaternions_that_scipy_gives() -> None:
    half_turns = Rotation.from_rotvec(np.pi * np.eye(3))
    for rotations in (random_rotations(200), Rotation.identity(3), Rotation.from_rotvec(1e-9 * np.eye(3))):
        np.testing.assert_allclose(
            cameras.quaternion_from_rotation(rotations.as_matrix()),
            rotations.as_quat(canonical=True, scalar_first=True),
            atol=1e-12,
        )
    recovered = cameras.rotation_from_quaternion(cameras.quaternion_from_rotation(half_turns.as_matrix()))
    np.testing.assert_allclose(recovered, half_turns.as_matrix(), atol=1e-12)


def test_rotation_vectors_agree_with_scipy_down_to_tiny_angles() -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 3)) * np.logspace(-12, 0, 100)[:, None]
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(cameras.rotation_from_vector(vectors), matrices, atol=1e-14)
    np.testing.assert_allclose(cameras.vector_from_rotation(matrices), vectors, atol=1e-14)


def test_the_angle_of_a_small_rotation_is_not_lost_to_rounding() -> None:
    assert cameras.rotation_angle(Rotation.from_euler("z", 1e-7).as_matrix()) == pytest.approx(1e-7, rel=1e-6)


@pytest.mark.parametrize("target", [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 2.0, 3.0]])
def test_the_smallest_rotation_between_directions_takes_one_to_the_other(target: list[float]) -> None:
    source = np.array([0.0, 0.0, 2.0])
    rotation = cameras.rotation_between(source, np.array(target))
    np.testing.assert_allclose(rotation @ [0, 0, 1], np.array(target) / np.linalg.norm(target), atol=1e-12)
    angle = np.arccos(np.clip(np.array(target)[2] / np.linalg.norm(target), -1, 1))
    assert cameras.rotation_angle(rotation) == pytest.approx(angle, abs=1e-9)


def test_inverting_a_rigid_transform_undoes_it() -> None:
    poses = cameras.rigid(random_rotations(5).as_matrix(), np.arange(15.0).reshape(5, 3))
    points = np.random.default_rng(0).normal(size=(5, 7, 3))
    there = cameras.transform_points(poses, points)
    np.testing.assert_allclose(cameras.transform_points(cameras.invert_rigid(poses), there), points, atol=1e-12)
    np.testing.assert_allclose(cameras.invert_rigid(poses), np.linalg.inv(poses), atol=1e-12)


def test_interpolated_rotations_follow_scipys_slerp_and_ends_are_held() -> None:
    times = np.array([0.0, 0.5, 2.0])
    rotations = random_rotations(3, seed=3)
    poses = cameras.rigid(rotations.as_matrix(), np.array([[0.0, 0, 0], [1, 0, 0], [1, 3, 0]]))
    query = np.array([-1.0, 0.0, 0.2, 0.5, 1.7, 2.0, 9.0])
    result = cameras.interpolate_poses(times, poses, query)
    np.testing.assert_allclose(result[:, :3, :3], Slerp(times, rotations)(np.clip(query, 0, 2)).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(result[2, :3, 3], [0.4, 0, 0], atol=1e-12)
    np.testing.assert_allclose(result[4, :3, 3], [1, 2.4, 0], atol=1e-12)


def test_projection_agrees_with_opencv_including_distortion() -> None:
    import cv2

    K = np.array([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]])
    distortion = np.array([-0.2, 0.05, 0.001, -0.002])
    points = np.random.default_rng(0).uniform([-2, -1.5, 4], [2, 1.5, 9], (50, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]
    pixels, depth = cameras.project(points, K, distortion)
    np.testing.assert_allclose(pixels, expected, atol=1e-9)
    np.testing.assert_allclose(depth, points[:, 2])


def test_rays_lead_back_to_the_points_that_were_projected() -> None:
    K = np.array([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]])
    for distortion in (None, np.zeros(4), np.array([-0.2, 0.05, 0.001, -0.002])):
        points = np.random.default_rng(0).uniform([-2, -1.5, 4], [2, 1.5, 9], (50, 3))
        pixels, depth = cameras.project(points, K, distortion)
        np.testing.assert_allclose(cameras.pixel_rays(pixels, K, distortion) * depth[:, None], points, atol=1e-8)


def test_points_behind_the_camera_have_no_image() -> None:
    pixels, _ = cameras.project(np.array([[0.0, 0, -1], [0, 0, 0]]), np.eye(3))
    assert np.isnan(pixels).all()


def test_the_first_pixel_centre_is_half_a_pixel_in_and_survives_resizing() -> None:
    K = np.array([[100.0, 0, 8], [0, 100, 6], [0, 0, 1]])
    centres = cameras.pixel_centres(16, 12)
    assert centres.shape == (12, 16, 2)
    assert centres[0, 0].tolist() == [0.5, 0.5]
    # the corner of the image stays the corner: the ray through it must not change
    half = cameras.scale_intrinsics(K, 0.5, 0.5)
    np.testing.assert_allclose(cameras.pixel_rays(np.array([8.0, 6.0]), half), cameras.pixel_rays(np.array([16.0, 12.0]), K))


def test_umeyama_recovers_a_known_similarity_and_agrees_with_evo_under_noise() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 3))
    truth = cameras.Similarity(2.5, random_rotations(1).as_matrix()[0], np.array([1.0, -2, 3]))
    exact = cameras.umeyama(source, truth.points(source))
    assert exact.scale == pytest.approx(2.5)
    np.testing.assert_allclose(exact.rotation, truth.rotation, atol=1e-12)
    np.testing.assert_allclose(exact.translation, truth.translation, atol=1e-12)

    noisy = truth.points(source) + rng.normal(size=source.shape) * 0.3
    for with_scale in (True, False):
        rotation, translation, scale = evo_geometry.umeyama_alignment(source.T, noisy.T, with_scale)
        ours = cameras.umeyama(source, noisy, with_scale=with_scale)
        assert ours.scale == pytest.approx(scale)
        np.testing.assert_allclose(ours.rotation, rotation, atol=1e-10)
        np.testing.assert_allclose(ours.translation, translation, atol=1e-10)


def test_umeyama_never_returns_a_mirror_image() -> None:
    source = np.random.default_rng(0).normal(size=(10, 3))
    assert np.linalg.det(cameras.umeyama(source, source * [1, 1, -1]).rotation) == pytest.approx(1.0)


def test_coinciding_points_have_no_scale() -> None:
    with pytest.raises(ValueError, match="scale is not determined"):
        cameras.umeyama(np.ones((3, 3)), np.random.default_rng(0).normal(size=(3, 3)))


def test_trajectory_error_is_zero_for_a_similar_path_and_counts_what_is_left() -> None:
    path = np.random.default_rng(0).normal(size=(20, 3))
    moved = cameras.Similarity(0.5, random_rotations(1).as_matrix()[0], np.ones(3)).points(path)
    assert cameras.absolute_trajectory_error(moved, path, with_scale=True)[0] == pytest.approx(0, abs=1e-12)
    assert cameras.absolute_trajectory_error(moved, path, with_scale=False)[0] > 0.1


def test_rotation_errors_ignore_the_choice_of_world_axes() -> None:
    true = random_rotations(6).as_matrix()
    world = random_rotations(1, seed=9).as_matrix()[0]
    np.testing.assert_allclose(cameras.rotation_errors(world @ true, true), 0, atol=1e-12)
    off = true.copy()
    off[0] = off[0] @ Rotation.from_euler("x", 0.1).as_matrix()
    errors = cameras.rotation_errors(off, true)
    assert errors[0] == pytest.approx(0.1 * 5 / 6, rel=0.02)  # the mean rotation takes a sixth of it


def test_points_on_a_line_are_aligned_as_well_as_points_can_be_and_scale_is_that_of_the_line() -> None:
    along = np.outer(np.linspace(0, 9, 10), [1.0, 2, 2]) / 3
    target = np.outer(np.linspace(0, 27, 10), [0.0, 0, 1]) + np.array([5.0, 6, 7])
    error, fit = cameras.absolute_trajectory_error(along, target, with_scale=True)
    assert (error, fit.scale) == (pytest.approx(0.0, abs=1e-12), pytest.approx(3.0))
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(fit.rotation @ np.array([1.0, 2, 2]) / 3, [0, 0, 1], atol=1e-12)


def test_mirrored_points_are_turned_and_never_mirrored() -> None:
    source = np.random.default_rng(2).normal(size=(30, 3))
    fit = cameras.umeyama(source, source * [1.0, 1.0, -1.0], with_scale=False)
    assert np.linalg.det(fit.rotation) == pytest.approx(1.0)


def test_the_scale_of_an_alignment_has_a_closed_form_for_points_that_only_grew() -> None:
    # centred squares (1, 4, 1, 4) grow by 3 along x and 1 along y: least squares gives sum(a b) / sum(a a)
    source = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -2]])
    fit = cameras.umeyama(source, source * [3.0, 1.0])
    assert fit.scale == pytest.approx((3 * 2 + 1 * 8) / (2 + 8))
    np.testing.assert_allclose(fit.rotation, np.eye(2), atol=1e-12)


def test_rotation_errors_are_those_left_after_the_turn_that_all_share() -> None:
    shared = random_rotations(1, seed=5)[0]
    true = random_rotations(9, seed=6)
    wobble = np.radians([3.0, -3.0, 0, 0, 0, 0, 0, 0, 0])  # in the world, about one axis: the mean turn stays the shared one
    estimated = shared * Rotation.from_euler("z", wobble[:, None]) * true
    errors = cameras.rotation_errors(estimated.as_matrix(), true.as_matrix())
    np.testing.assert_allclose(np.degrees(errors), [3, 3, 0, 0, 0, 0, 0, 0, 0], atol=1e-9)


def test_relative_errors_do_not_see_the_worlds_and_see_the_motion_in_the_cameras_axes() -> None:
    true = cameras.rigid(random_rotations(6, seed=8).as_matrix(), np.random.default_rng(8).normal(size=(6, 3)))
    elsewhere = cameras.rigid(random_rotations(1, seed=9).as_matrix()[0], np.array([7.0, 8, 9]))
    slip = cameras.rigid(Rotation.from_euler("x", 0.2).as_matrix(), np.array([0.0, 0.3, 0.4]))
    estimated = elsewhere @ true
    estimated[5] = estimated[5] @ slip
    first, second = np.array([0, 1, 3]), np.array([1, 2, 5])
    translation, rotation = cameras.relative_pose_errors(estimated, true, first, second)
    np.testing.assert_allclose(translation, [0, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(rotation, [0, 0, 0.2], atol=1e-12)
