"""A second pass without what moves, on points and footage whose static part is known."""

import dataclasses

import cv2
import numpy as np
import pytest
from drives import INTRINSICS, LEVEL, blank_clip, clip_of, draw_corridor, path_of, texture, true_drive

import stages.pose.refine
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import Masks, PointTracks
from stages.contract import no_progress
from stages.label.point_tracks import track_points
from stages.pose.colmap import ColmapConfig
from stages.pose.refine import RefineConfig, judge_tracks, refine_camera_path
from worldline.cameras import absolute_trajectory_error, invert_rigid, project, transform_points

COUNT = 14
SIZE = (480, 270)
K = np.diag([0.75, 0.75, 1.0]) @ INTRINSICS


def poses_of_drive() -> np.ndarray:
    """Camera-to-world, looking along x: forward, first slowly, then faster."""
    poses = np.repeat(np.eye(4)[None], COUNT, axis=0)
    poses[:, :3, :3] = LEVEL
    poses[:, 0, 3] = 0.02 * np.arange(COUNT) ** 2
    return poses


def board_at(frame: int) -> np.ndarray:
    """World from the board, which rises from right to left 5 m ahead of the first camera."""
    return np.array([[1.0, 0, 0, 5 + 0.05 * frame], [0, 1, 0, -0.9 + 0.14 * frame], [0, 0, 1, -0.6 + 0.1 * frame], [0, 0, 0, 1]])


def seen(world: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Pixels `[N, T, 2]` of points `[N, 3]`, or `[N, T, 3]` where they move."""
    world = np.broadcast_to(world if world.ndim == 3 else world[:, None], (len(world), len(poses), 3))
    pixels = [project(transform_points(invert_rigid(pose), world[:, t]), K)[0] for t, pose in enumerate(poses)]
    return np.stack(pixels, axis=1)


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, PointTracks]:
    """Tracks of a street and of a board that carries more of them; which are the board's."""
    rng = np.random.default_rng(0)
    street = np.stack([rng.uniform(8, 30, 300), rng.uniform(-7, 7, 300), rng.uniform(-3, 4, 300)], axis=1)
    board = np.stack([np.zeros(400), rng.uniform(-0.9, 0.9, 400), rng.uniform(-0.6, 0.6, 400)], axis=1)
    moved = np.stack([transform_points(board_at(frame), board) for frame in range(COUNT)], axis=1)
    xy = np.concatenate([seen(street, poses_of_drive()), seen(moved, poses_of_drive())])
    visible = ((xy > 0) & (xy < SIZE)).all(axis=2)
    tracks = PointTracks(np.arange(COUNT) * 0.1, xy.astype(np.float32), visible, np.zeros(len(xy), np.int32))
    return np.arange(len(xy)) >= 300, tracks


def path(poses: np.ndarray, **fields: object) -> CameraPath:
    return path_of(poses, intrinsics=K, width=SIZE[0], height=SIZE[1], **fields)


def path_that_follows_the_board() -> CameraPath:
    return path(np.stack([np.linalg.inv(board_at(frame)) @ pose for frame, pose in enumerate(poses_of_drive())]))


def still_masks(count: int = COUNT) -> Masks:
    return Masks(Video.from_array(np.zeros((count, SIZE[1], SIZE[0]), np.uint16)), 1.0, "none")


def test_the_true_path_agrees_with_the_street_and_one_that_follows_the_board_with_the_board(
    points: tuple[np.ndarray, PointTracks],
) -> None:
    of_board, tracks = points
    frames = np.arange(COUNT)
    true = judge_tracks(path(poses_of_drive()), tracks, frames, RefineConfig())
    assert true.agrees[~of_board[true.track]].all()
    assert true.agrees[of_board[true.track]].mean() < 0.05
    locked = judge_tracks(path_that_follows_the_board(), tracks, frames, RefineConfig())
    assert locked.agrees[of_board[locked.track]].all()
    assert locked.agrees[~of_board[locked.track]].mean() < 0.2


def test_frames_without_a_pose_explain_nothing(points: tuple[np.ndarray, PointTracks]) -> None:
    _, tracks = points
    registered = np.arange(COUNT) < 8
    judged = judge_tracks(path(poses_of_drive(), registered=registered), tracks, np.arange(COUNT), RefineConfig())
    assert (judged.misfit[judged.frame >= 8] == 1).all()
    assert judged.agrees[judged.frame < 6].any()


def refine(clip: Clip, path: CameraPath, masks: Masks, tracks: PointTracks, config: RefineConfig | None = None):
    return refine_camera_path(
        clip, path, PointCloud.none(), masks, tracks, config or RefineConfig(), seed=0, progress=no_progress
    )


@pytest.fixture
def unsolvable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a second pass was made")

    monkeypatch.setattr(stages.pose.refine, "map_frames", refuse)


@pytest.mark.usefixtures("unsolvable")
def test_where_nothing_moves_the_first_pass_stands_and_costs_no_second(points: tuple[np.ndarray, PointTracks]) -> None:
    of_board, tracks = points
    alone = PointTracks(tracks.times_s, tracks.xy_px[~of_board], tracks.visible[~of_board], tracks.first_frame[~of_board])
    clip = Clip(Video.from_array(np.zeros((COUNT, SIZE[1], SIZE[0], 3), np.uint8)), tracks.times_s, "blank")
    first = path(poses_of_drive())
    assert refine(clip, first, still_masks(), alone)[0] is first


@pytest.mark.usefixtures("unsolvable")
@pytest.mark.parametrize("verdict", ["static", "rotation", "textureless"])
def test_footage_without_structure_is_passed_on(verdict: str, points: tuple[np.ndarray, PointTracks]) -> None:
    first = path(poses_of_drive(), verdict=verdict)
    assert refine(blank_clip(COUNT), first, still_masks(), points[1])[0] is first


def board_of_film(frame: int, pose: np.ndarray) -> np.ndarray:
    board = np.eye(4)
    board[:3, 3] = pose[:3, 3] * [1.05, 1, 1] + [4.2, -1.0 + 0.13 * frame, -0.6 + 0.1 * frame]
    return board


@pytest.fixture(scope="module")
def film() -> Clip:
    """The corridor, a fifth of it hidden by a board with stronger texture than the walls."""
    poses = true_drive(COUNT)
    frames = draw_corridor(poses, K, SIZE)
    picture = texture(256, 5)
    corners = np.array([[0.0, 1.1, 0.7], [0, -1.1, 0.7], [0, -1.1, -0.7], [0, 1.1, -0.7]])
    for index, pose in enumerate(poses):
        pixels, _ = project(transform_points(invert_rigid(pose) @ board_of_film(index, pose), corners), K)
        warp = cv2.getPerspectiveTransform(np.float32([[0, 0], [256, 0], [256, 256], [0, 256]]), pixels.astype(np.float32))
        drawn = cv2.warpPerspective(picture, warp, SIZE, flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.full((256, 256), 255, np.uint8), warp, SIZE) > 127
        frames[index][inside] = drawn[inside]
    return clip_of(frames, intrinsics=K)


def error_m(path: CameraPath) -> float:
    true = true_drive(COUNT)[path.registered, :3, 3]
    return float(absolute_trajectory_error(path.world_from_camera[path.registered][:, :3, 3], true, with_scale=True)[0])


@pytest.mark.slow
def test_a_path_that_followed_a_board_is_solved_again_without_the_board(film: Clip) -> None:
    true = true_drive(COUNT)
    first = path(np.stack([invert_rigid(board_of_film(index, pose)) @ pose for index, pose in enumerate(true)]))
    assert error_m(first) > 0.1
    settings = RefineConfig(colmap=ColmapConfig(max_features=1200))
    second, _ = refine(film, first, still_masks(), track_points(film), settings)
    assert second.registered.all()
    assert error_m(second) < 0.03  # metres, over 6.5 m


def test_a_second_pass_that_agrees_less_with_the_street_is_dropped(
    monkeypatch: pytest.MonkeyPatch, points: tuple[np.ndarray, PointTracks]
) -> None:
    _, tracks = points
    clip = Clip(Video.from_array(np.zeros((COUNT, SIZE[1], SIZE[0], 3), np.uint8)), tracks.times_s, "blank", intrinsics=K)
    first = path(poses_of_drive())
    shaken = poses_of_drive()
    shaken[:, 1, 3] += np.random.default_rng(1).normal(0, 0.1, COUNT)
    labels = np.zeros((COUNT, SIZE[1], SIZE[0]), np.uint16)
    labels[:, 90:180, 160:320] = 1
    masks = Masks(Video.from_array(labels), 1.0, "by hand")
    monkeypatch.setattr(stages.pose.refine, "map_frames", lambda *_: (path(shaken), PointCloud.none()))
    assert refine(clip, first, masks, tracks)[0] is first
    better = dataclasses.replace(first, reprojection_error_px=0.4)
    monkeypatch.setattr(stages.pose.refine, "map_frames", lambda *_: (better, PointCloud.none()))
    assert refine(clip, first, masks, tracks)[0].reprojection_error_px == 0.4
