import itertools

import numpy as np
import pytest
from drives import true_drive
from scipy.spatial.transform import Rotation

from stages.pose.windows import Piece, join_poses, plan_windows, similarity_between
from worldline.cameras import Similarity, absolute_trajectory_error, rotation_errors


def piece_of(poses: np.ndarray, start: int, stop: int, seed: int, noise: float = 0.0, outliers: float = 0.0) -> Piece:
    """A window as mapping gives it, anywhere and in any unit: feature k of every frame sees landmark k, for those in view."""
    rng, of_frame = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    landmarks = np.random.default_rng(99).uniform([-5, -15, -2], [110, 60, 10], (6000, 3))
    frames, seen = [], []
    for frame in range(start, stop):
        depth = ((landmarks - poses[frame, :3, 3]) @ poses[frame, :3, :3])[:, 2]
        visible = np.flatnonzero((depth > 2) & (depth < 20))
        frames.append(np.full(len(visible), frame))
        seen.append(visible)
    frame, landmark = np.concatenate(frames), np.concatenate(seen)
    used, point = np.unique(landmark, return_inverse=True)
    xyz = landmarks[used] + rng.normal(size=(len(used), 3)) * noise
    wrong = rng.random(len(used)) < outliers
    xyz[wrong] += rng.normal(size=(wrong.sum(), 3)) * 50
    noisy = poses[start:stop].copy()
    noisy[:, :3, 3] += rng.normal(size=(stop - start, 3)) * noise / 10
    turn = Rotation.random(random_state=of_frame).as_matrix()
    elsewhere = Similarity(float(of_frame.uniform(0.2, 5)), turn, of_frame.normal(size=3) * 10)
    order = rng.permutation(len(used))  # points are numbered otherwise in every window
    return Piece(
        np.arange(start, stop), elsewhere.poses(noisy), elsewhere.points(xyz[np.argsort(order)]), frame, landmark, order[point]
    )


@pytest.mark.parametrize(("count", "window", "overlap"), [(10, 400, 60), (400, 400, 60), (401, 400, 60), (10_000, 400, 60)])
def test_windows_cover_all_frames_and_share_enough(count: int, window: int, overlap: int) -> None:
    windows = plan_windows(count, window, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == count
    assert all(stop - start <= window for start, stop in windows)
    assert all(before[1] - after[0] >= overlap for before, after in itertools.pairwise(windows))
    assert len(windows) <= count / (window - overlap) + 1


def test_an_overlap_that_leaves_a_window_nothing_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap must lie between 0 and the window"):
        plan_windows(1000, 60, 60)


def test_the_similarity_between_two_windows_is_found_exactly_without_noise() -> None:
    poses = true_drive(60)
    first, second = piece_of(poses, 0, 40, 1), piece_of(poses, 25, 60, 2)
    found = similarity_between(first, second)
    assert found is not None
    # the same frame, seen from both windows, must come to lie in one place
    np.testing.assert_allclose(found.poses(second.world_from_camera[:15]), first.world_from_camera[25:], atol=1e-6)


def test_a_fifth_of_wrong_points_does_not_move_the_joint() -> None:
    poses = true_drive(60)
    first, second = piece_of(poses, 0, 40, 1, noise=0.02, outliers=0.2), piece_of(poses, 25, 60, 2, noise=0.02, outliers=0.2)
    found = similarity_between(first, second)
    assert found is not None
    clean = similarity_between(piece_of(poses, 0, 40, 1), piece_of(poses, 25, 60, 2))
    assert clean is not None
    assert found.scale == pytest.approx(clean.scale, rel=2e-3)


def test_windows_on_a_straight_road_keep_their_roll() -> None:
    poses = true_drive(60)
    poses[:, 1:3, 3] = 0  # all centres on one line: only the cameras' axes and the points tell the roll around it
    first, second = piece_of(poses, 0, 40, 5), piece_of(poses, 30, 60, 6)
    frames, joined, _ = join_poses([first, second])
    assert len(frames) == 60
    assert np.degrees(rotation_errors(joined[:, :3, :3], poses[:, :3, :3])).max() < 0.01


def test_joined_windows_make_one_path() -> None:
    poses = true_drive(200)
    pieces = [piece_of(poses, start, stop, start, noise=0.02) for start, stop in plan_windows(200, 60, 20)]
    frames, joined, members = join_poses(pieces)
    assert frames.tolist() == list(range(200))
    assert members == list(range(len(pieces)))
    error, _ = absolute_trajectory_error(joined[:, :3, 3], poses[:, :3, 3], with_scale=True)
    assert error < 0.05  # metres, over 100 m and four joints
    steps = np.linalg.norm(np.diff(joined[:, :3, 3], axis=0), axis=1)
    assert steps.max() / steps.min() < 1.2  # no jump where one window ends


def test_where_windows_share_nothing_the_longest_chain_is_kept() -> None:
    poses = true_drive(120)
    pieces = [piece_of(poses, 0, 30, 1), piece_of(poses, 40, 80, 2), piece_of(poses, 65, 120, 3)]
    frames, _, members = join_poses(pieces)
    assert members == [1, 2]
    assert frames.tolist() == list(range(40, 120))
    assert similarity_between(pieces[0], pieces[1]) is None
