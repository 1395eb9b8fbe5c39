import itertools
from pathlib import Path

import numpy as np
import pytest
from drives import INTRINSICS, blank_clip, true_drive
from scipy.spatial.transform import Rotation

from stages.pose import mapping
from stages.pose.colmap import ColmapConfig, make_request
from stages.pose.strategy import StrategyConfig, choose_strategy
from stages.pose.windows import Piece, join_points, join_poses, joint_between, plan_windows, thin_points
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


def similarity_between(first: Piece, second: Piece) -> Similarity:
    joint = joint_between(first, second)
    assert joint is not None
    assert joint.holds
    return joint.first_from_second


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
    # the same frame, seen from both windows, must come to lie in one place
    np.testing.assert_allclose(found.poses(second.world_from_camera[:15]), first.world_from_camera[25:], atol=1e-6)


def test_a_fifth_of_wrong_points_does_not_move_the_joint() -> None:
    poses = true_drive(60)
    first, second = piece_of(poses, 0, 40, 1, noise=0.02, outliers=0.2), piece_of(poses, 25, 60, 2, noise=0.02, outliers=0.2)
    found = similarity_between(first, second)
    clean = similarity_between(piece_of(poses, 0, 40, 1), piece_of(poses, 25, 60, 2))
    assert found.scale == pytest.approx(clean.scale, rel=2e-3)


def test_windows_on_a_straight_road_keep_their_roll() -> None:
    poses = true_drive(60)
    poses[:, 1:3, 3] = 0  # all centres on one line: only the cameras' axes and the points tell the roll around it
    first, second = piece_of(poses, 0, 40, 5), piece_of(poses, 30, 60, 6)
    joined = join_poses([first, second])
    assert len(joined.frames) == 60
    assert np.degrees(rotation_errors(joined.world_from_camera[:, :3, :3], poses[:, :3, :3])).max() < 0.01


def test_joined_windows_make_one_path() -> None:
    poses = true_drive(200)
    pieces = [piece_of(poses, start, stop, start, noise=0.02) for start, stop in plan_windows(200, 60, 20)]
    joined = join_poses(pieces)
    assert joined.frames.tolist() == list(range(200))
    assert joined.members == list(range(len(pieces)))
    centres = joined.world_from_camera[:, :3, 3]
    error, _ = absolute_trajectory_error(centres, poses[:, :3, 3], with_scale=True)
    assert error < 0.05  # metres, over 100 m and four joints
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.2  # no jump where one window ends


def test_where_windows_share_nothing_the_longest_chain_is_kept() -> None:
    poses = true_drive(120)
    pieces = [piece_of(poses, 0, 30, 1), piece_of(poses, 40, 80, 2), piece_of(poses, 65, 120, 3)]
    joined = join_poses(pieces)
    assert joined.members == [1, 2]
    assert joined.frames.tolist() == list(range(40, 120))
    assert joint_between(pieces[0], pieces[1]) is None


def test_a_window_that_is_bent_where_it_overlaps_another_is_not_joined() -> None:
    poses = true_drive(120)
    bent = poses.copy()
    bent[30:, 0, 3] += 5.0  # a leap of five metres amid the frames that both windows have
    first, second = piece_of(bent, 0, 50, 1), piece_of(poses, 20, 90, 2)
    joint = joint_between(first, second)
    assert joint is not None
    assert not joint.holds
    assert join_poses([first, second]).members == [1]


def test_points_of_one_thing_become_one_point_where_windows_overlap_and_where_a_return_matches() -> None:
    poses = true_drive(60)
    pieces = [piece_of(poses, start, stop, start) for start, stop in plan_windows(60, 30, 10)]
    first, last = pieces[0], pieces[-1]
    # a frame of the first window and one of the last, which overlap nowhere, see the same landmark: feature k is landmark k
    both = np.intersect1d(first.observation_feature, last.observation_feature)
    at = [np.flatnonzero(piece.observation_feature == both[0])[0] for piece in (first, last)]
    matches = np.array([[first.observation_frame[at[0]], both[0], last.observation_frame[at[1]], both[0]]])
    xyz, frame, feature, point = join_points(pieces, join_poses(pieces), matches)
    seen = {(f, k): p for f, k, p in zip(frame.tolist(), feature.tolist(), point.tolist(), strict=True)}
    assert len(seen) == len(frame)  # no feature sees two points
    for before, after in itertools.pairwise(pieces):
        shared = np.intersect1d(before.observation_feature, after.observation_feature)
        for landmark in shared:
            rows = [piece.observation_frame[piece.observation_feature == landmark] for piece in (before, after)]
            if np.intersect1d(*rows).size:  # seen in a frame that both have
                assert len({seen[int(f), int(landmark)] for f in np.concatenate(rows)}) == 1
    assert seen[tuple(matches[0, :2])] == seen[tuple(matches[0, 2:])]
    assert len(np.unique(point)) <= len(xyz)


def test_thinning_keeps_the_longest_tracks_and_leaves_every_frame_what_it_needs() -> None:
    rng = np.random.default_rng(0)
    start, length = rng.integers(0, 50, 3000), rng.integers(2, 20, 3000)
    frame = np.concatenate([np.arange(a, a + n) for a, n in zip(start, length, strict=True)])
    point = np.repeat(np.arange(3000), length)
    stays = thin_points(frame, point, 60)
    assert stays.mean() < 0.5
    assert (np.bincount(frame[stays]) >= np.minimum(np.bincount(frame), 60)).all()
    kept = np.bincount(point[stays], minlength=3000)
    assert set(np.unique(kept / length)) == {0.0, 1.0}  # a track stays whole or goes
    assert length[kept > 0].mean() > length[kept == 0].mean()


@pytest.mark.parametrize(
    ("bent", "again"),
    [
        (set(), []),
        ({(1, "auto")}, [(1, "incremental")]),
        ({(0, "auto")}, [(1, "incremental"), (0, "incremental")]),
        ({(2, "auto")}, [(2, "incremental")]),
        ({(0, "auto"), (1, "auto")}, [(1, "incremental"), (0, "incremental")]),
    ],
)
def test_of_two_windows_that_disagree_the_wrong_one_is_mapped_again(
    monkeypatch: pytest.MonkeyPatch, bent: set[tuple[int, str]], again: list[tuple[int, str]]
) -> None:
    poses, windows, tried = true_drive(120), ((0, 50), (35, 85), (70, 120)), []

    def reconstruct(
        pycolmap: object, folder: object, database: object, request: mapping.MapRequest, frames: range, report: object
    ):
        number = windows.index((frames.start, frames.stop))
        tried.append((number, request.mapper))
        shown = poses.copy()
        if tried[-1] in bent:
            shown[:, 0, 3] += 3.0 * np.sin(np.arange(120) * (1 + number))
        return piece_of(shown, frames.start, frames.stop, number), request.mapper

    monkeypatch.setattr(mapping, "reconstruct", reconstruct)
    monkeypatch.setattr(mapping, "arrays_of", lambda piece, request: vars(piece) | {"camera_params": None})
    monkeypatch.setattr(mapping, "hold_camera", lambda *arguments: None)
    strategy = choose_strategy(120, 0.9, 8, StrategyConfig(window=50, window_overlap=15))
    assert strategy.windows == windows
    request = make_request(blank_clip(120, intrinsics=INTRINSICS), INTRINSICS, strategy, ColmapConfig(), 0)
    pieces, _ = mapping.map_windows(None, Path(), Path(), request, lambda done, note: None)
    assert [one for one in tried if one[1] == "incremental"] == again
    assert len(join_poses(pieces).frames) == 120
