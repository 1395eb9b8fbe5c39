"""Rigs whose places, path and metres are known, drawn in a corridor from two cameras."""

import dataclasses

import numpy as np
import pytest
from drives import INTRINSICS, draw_corridor, path_of, true_drive
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath, PointCloud
from schemas.codec import content_digest
from schemas.media import Video
from schemas.rigs import Rig, RigClip
from stages.contract import no_progress
from stages.pose.align_rig import AlignRigConfig, align_rig
from stages.pose.colmap import ColmapConfig
from stages.pose.rig import (
    RigPoseConfig,
    coupled_cameras,
    given_rig,
    keep_given_places,
    list_images,
    list_pairs,
    place_sigmas,
    solve_rig_path,
)
from worldline.cameras import Similarity, absolute_trajectory_error, interpolate_poses, invert_rigid, project, rotation_angle
from worldline.rigs import camera_poses

SIZE, SETS = (480, 270), 6
SMALL_INTRINSICS = np.diag([0.75, 0.75, 1.0]) @ INTRINSICS
QUICK = ColmapConfig(max_features=600, overlap=4)
BASELINE_M = 0.5
RIGHT_FROM_LEFT = np.eye(4)
RIGHT_FROM_LEFT[:3, :3] = Rotation.from_euler("xyz", [1, 8, -1], degrees=True).as_matrix()
RIGHT_FROM_LEFT[:3, 3] = BASELINE_M * np.array([-0.999, 0.04, 0.02]) / np.linalg.norm([-0.999, 0.04, 0.02])
DRIVE_S, DRIVE = np.arange(60) * 0.1, true_drive(60)  # 5 m/s


def film(late_s: float, given: np.ndarray | None, sets: int = SETS) -> tuple[RigClip, np.ndarray]:
    """A rig that drives through the corridor, its right camera firing `late_s` after the left; and the left one's true poses."""
    times = 0.2 + 0.1 * np.arange(sets)
    left = interpolate_poses(DRIVE_S, DRIVE, times)
    right = camera_poses(DRIVE_S, DRIVE, RIGHT_FROM_LEFT, times + late_s)
    clip = RigClip(
        name="corridor",
        cameras=["left", "right"],
        frames={
            "left": Video.from_array(draw_corridor(left, SMALL_INTRINSICS, SIZE)),
            "right": Video.from_array(draw_corridor(right, SMALL_INTRINSICS, SIZE)),
        },
        times_s={"left": times - times[0], "right": times - times[0] + late_s},
        sets=np.stack([np.arange(sets, dtype=np.int32)] * 2, axis=1),
        calibrated=True,
        intrinsics=np.stack([SMALL_INTRINSICS] * 2),
        distortion=np.zeros((2, 4)),
        placed=np.array([True, given is not None]),
        camera_from_rig=np.stack([np.eye(4), np.eye(4) if given is None else given]),
        position_sigma_m=np.array([0.0, 0.0 if given is None else 0.002]),
        rotation_sigma_rad=np.array([0.0, 0.0 if given is None else 0.001]),
        readout_s=np.zeros(2),
    )
    return clip, left


def solve(clip: RigClip, **config: object) -> tuple[CameraPath, PointCloud, Rig]:
    return solve_rig_path(clip, RigPoseConfig(colmap=QUICK, **config), seed=0, progress=no_progress)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stereo() -> tuple[RigClip, np.ndarray]:
    return film(0.0, RIGHT_FROM_LEFT)


@pytest.fixture(scope="module")
def solved(stereo: tuple[RigClip, np.ndarray]) -> tuple[CameraPath, PointCloud, Rig]:
    return solve(stereo[0])


def check_metric(path: CameraPath, true: np.ndarray) -> None:
    """The path is right up to a similarity, and its unit is a metre within three sigmas."""
    assert path.registered.all()
    error, alignment = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.01  # metres, over 3 m
    assert path.scale_source == "baseline"
    assert path.scale_sigma < 0.02
    assert abs(alignment.scale - 1) < 3 * path.scale_sigma


def check_places(rig: Rig, unit_m: float) -> None:
    """The right camera sits where it was put, within a tenth of a degree and five millimetres."""
    turn = rig.camera_from_rig[1, :3, :3] @ RIGHT_FROM_LEFT[:3, :3].T
    assert np.degrees(rotation_angle(turn)) < 0.1
    centres = [invert_rigid(place)[:3, 3] for place in (rig.camera_from_rig[1], RIGHT_FROM_LEFT)]
    np.testing.assert_allclose(centres[0] * unit_m, centres[1], atol=0.005)


def test_given_places_give_a_path_in_metres(
    stereo: tuple[RigClip, np.ndarray], solved: tuple[CameraPath, PointCloud, Rig]
) -> None:
    path, _, rig = solved
    check_metric(path, stereo[1])
    check_places(rig, 1.0)
    assert rig.placed_by == ["reference", "refined"]
    assert (rig.scale_source, rig.scale_sigma) == (path.scale_source, path.scale_sigma)
    np.testing.assert_allclose(path.world_from_camera[0], np.eye(4), atol=1e-9)
    np.testing.assert_array_equal(rig.frames_solved, [SETS, SETS])


def test_points_are_where_the_reference_saw_them(solved: tuple[CameraPath, PointCloud, Rig]) -> None:
    path, points, _ = solved
    pose = path.world_from_camera[points.observation_frame]
    local = np.einsum("nij,ni->nj", pose[:, :3, :3], points.xyz[points.observation_point] - pose[:, :3, 3])
    pixels, _ = project(local, path.intrinsics)
    assert np.median(np.linalg.norm(pixels - points.observation_xy_px, axis=1)) < 0.5
    assert np.bincount(points.observation_point, minlength=len(points.xyz)).min() >= 1


@pytest.mark.slow
def test_the_same_rig_gives_the_same_bytes(
    stereo: tuple[RigClip, np.ndarray], solved: tuple[CameraPath, PointCloud, Rig]
) -> None:
    assert [content_digest(item) for item in solve(stereo[0])] == [content_digest(item) for item in solved]


@pytest.mark.slow
def test_unknown_places_are_solved_and_leave_the_unit_open() -> None:
    clip, true = film(0.0, None)
    path, _, rig = solve(clip)
    error, alignment = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.01
    assert (path.scale_source, rig.placed_by[1]) == ("none", "solved")
    check_places(rig, alignment.scale)


@pytest.mark.slow
def test_held_places_are_kept_exactly(stereo: tuple[RigClip, np.ndarray]) -> None:
    path, _, rig = solve(stereo[0], places="hold")
    check_metric(path, stereo[1])
    assert rig.placed_by == ["reference", "given"]
    np.testing.assert_allclose(rig.camera_from_rig[1, :3, :3], RIGHT_FROM_LEFT[:3, :3], atol=1e-12)
    assert np.linalg.norm(rig.camera_from_rig[1, :3, 3]) == pytest.approx(BASELINE_M, rel=1e-9)


def test_a_camera_that_fires_between_the_frames_of_the_reference_is_placed_at_its_own_times() -> None:
    """40 ms at 5 m/s are 20 cm, nearly half the baseline: the place would be that wrong."""
    clip, true = film(0.04, RIGHT_FROM_LEFT)
    path, _, rig = solve(clip)
    check_metric(path, true)
    check_places(rig, 1.0)
    assert rig.placed_by == ["reference", "solved"]


def test_a_rig_that_stands_still_keeps_the_places_that_were_given(stereo: tuple[RigClip, np.ndarray]) -> None:
    frames = {name: Video.from_array(video.at([0] * SETS)) for name, video in stereo[0].frames.items()}
    path, points, rig = solve(dataclasses.replace(stereo[0], frames=frames))
    assert (path.verdict, path.scale_source, len(points.xyz)) == ("static", "none", 0)
    assert rig.placed_by == ["reference", "given"]
    np.testing.assert_array_equal(rig.camera_from_rig[1], RIGHT_FROM_LEFT)


def test_a_rig_follows_its_path_into_another_unit(stereo: tuple[RigClip, np.ndarray]) -> None:
    solved = dataclasses.replace(given_rig(stereo[0]), placed_by=["reference", "solved"])
    turn = Similarity(2.5, Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix(), np.array([1.0, 2.0, 3.0]))
    before = path_of(stereo[1])
    after = path_of(turn.poses(stereo[1]), scale_source="gps+baseline", scale_sigma=0.003)
    rig = align_rig(solved, before, after, AlignRigConfig(), seed=0, progress=no_progress)
    np.testing.assert_array_equal(rig.camera_from_rig[1, :3, :3], RIGHT_FROM_LEFT[:3, :3])
    right = camera_poses(before.times_s, before.world_from_camera, RIGHT_FROM_LEFT, before.times_s)
    moved = camera_poses(after.times_s, after.world_from_camera, rig.camera_from_rig[1], after.times_s)
    np.testing.assert_allclose(moved, turn.poses(right), atol=1e-9)
    np.testing.assert_allclose(rig.position_sigma, 2.5 * solved.position_sigma)
    assert (rig.scale_source, rig.scale_sigma) == ("gps+baseline", 0.003)


def test_a_camera_that_the_frames_do_not_place_keeps_its_given_place(stereo: tuple[RigClip, np.ndarray]) -> None:
    lost = dataclasses.replace(
        given_rig(stereo[0]),
        camera_from_rig=np.repeat(np.eye(4)[None], 2, axis=0),
        placed_by=["reference", "none"],
        position_sigma=np.zeros(2),
    )
    rig = keep_given_places(lost, stereo[0])
    assert rig.placed_by == ["reference", "given"]
    np.testing.assert_array_equal(rig.camera_from_rig[1], RIGHT_FROM_LEFT)
    assert (rig.position_sigma[1], rig.rotation_sigma_rad[1]) == (0.002, 0.001)
    unknown = dataclasses.replace(stereo[0], placed=np.array([True, False]))
    assert keep_given_places(lost, unknown).placed_by == ["reference", "none"]


def test_cameras_move_as_one_body_only_if_they_fire_together(stereo: tuple[RigClip, np.ndarray]) -> None:
    clip = stereo[0]
    assert coupled_cameras(clip, 0.002).tolist() == [True, True]
    late = dataclasses.replace(clip, times_s=clip.times_s | {"right": clip.times_s["right"] + 0.004})
    assert coupled_cameras(late, 0.002).tolist() == [True, False]


def test_pairs_join_neighbours_of_a_camera_and_near_sets_of_two(stereo: tuple[RigClip, np.ndarray]) -> None:
    sets = stereo[0].sets.copy()
    sets[3, 1], sets[4:, 1] = -1, sets[4:, 1] - 1  # the right camera lost its fourth frame
    images = list_images(dataclasses.replace(stereo[0], sets=sets))
    assert len(images) == 2 * SETS - 1
    pairs = list_pairs(images, overlap=2, cross_overlap=2)
    assert len(pairs) == len(set(pairs))
    across = {(images[a].in_set, images[b].in_set) for a, b in pairs if images[a].camera != images[b].camera}
    apart = [(a, a + step) for a in range(SETS) for step in (-2, -1, 0, 1, 2) if 0 <= a + step < SETS and a + step != 3]
    assert across == set(apart)


def resected(points: np.ndarray, noise: np.ndarray, focal: float) -> np.ndarray:
    """Gauss-Newton for rotation and shift of a camera from noisy pixels of known points, by finite differences."""

    def pixels(w: np.ndarray) -> np.ndarray:
        moved = points @ Rotation.from_rotvec(w[:3]).as_matrix().T + w[3:]
        return (focal * moved[:, :2] / moved[:, 2:]).ravel()

    w = np.zeros(6)
    target = pixels(w) + noise.ravel()
    for _ in range(5):
        jacobian = np.stack([(pixels(w + step) - pixels(w - step)) / 2e-6 for step in 1e-6 * np.eye(6)], axis=1)
        w += np.linalg.lstsq(jacobian, target - pixels(w), rcond=None)[0]
    return w


def test_the_sigmas_of_a_solved_place_are_those_of_repeated_resections() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-5, -2, 4], [5, 2, 30], (200, 3))
    noise_px = 0.4
    errors = np.array([resected(points, np.sqrt(2) * noise_px * rng.normal(size=(200, 2)), 400.0) for _ in range(300)])
    distance, rotation = place_sigmas(points, RIGHT_FROM_LEFT, 400.0, noise_px, None)
    away = RIGHT_FROM_LEFT[:3, 3] / BASELINE_M
    assert distance == pytest.approx((errors[:, 3:] @ away).std(), rel=0.15)
    assert rotation == pytest.approx(np.sqrt((errors[:, :3] ** 2).mean()), rel=0.15)


def test_an_error_of_a_held_rotation_goes_into_the_distance() -> None:
    points = np.random.default_rng(0).uniform([-5, -2, 4], [5, 2, 30], (4000, 3))
    exact, _ = place_sigmas(points, RIGHT_FROM_LEFT, 400.0, 0.3, 1e-9)
    loose, rotation = place_sigmas(points, RIGHT_FROM_LEFT, 400.0, 0.3, 0.001)
    assert rotation == 0.001
    # a yaw of 1 mrad moves a point at depth z like a change of z mrad of the distance; weights go with 1 / z^2
    inverse = 1 / points[:, 2]
    assert loose == pytest.approx(0.001 * inverse.sum() / (inverse**2).sum(), rel=0.15)
    assert exact < 0.1 * loose


def test_too_few_shared_points_tell_no_distance() -> None:
    assert place_sigmas(np.ones((5, 3)), RIGHT_FROM_LEFT, 400.0, 0.3, None)[0] == np.inf
