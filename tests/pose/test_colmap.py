import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from drives import INTRINSICS, clip_of, draw_corridor, true_drive

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.codec import content_digest
from stages.contract import no_progress
from stages.pose.colmap import (
    ColmapConfig,
    guess_intrinsics,
    lens_of,
    make_request,
    map_frames,
    run_mapping,
    solve_camera_path,
    write_frames,
)
from stages.pose.mapping import write_request
from stages.pose.strategy import StrategyConfig, choose_strategy
from worldline.cameras import absolute_trajectory_error, invert_rigid, project, rotation_errors, transform_points

SIZE = (480, 270)
SMALL_INTRINSICS = np.diag([0.75, 0.75, 1.0]) @ INTRINSICS
QUICK = ColmapConfig(max_features=1200)
IN_ORDER = choose_strategy(12, 1.0, 8, StrategyConfig())


def solve(clip: Clip, config: ColmapConfig | None = None, seed: int = 0) -> tuple[CameraPath, PointCloud]:
    return solve_camera_path(clip, config or ColmapConfig(), seed=seed, progress=no_progress)


@pytest.fixture(scope="module")
def drive() -> tuple[np.ndarray, Clip]:
    poses = true_drive(12)
    return poses, clip_of(draw_corridor(poses, SMALL_INTRINSICS, SIZE), intrinsics=SMALL_INTRINSICS)


@pytest.fixture(scope="module")
def solved(drive: tuple[np.ndarray, Clip]) -> tuple[CameraPath, PointCloud]:
    return solve(drive[1], QUICK)


def test_a_forward_drive_through_a_corridor_is_solved(
    drive: tuple[np.ndarray, Clip], solved: tuple[CameraPath, PointCloud]
) -> None:
    true, (path, _) = drive[0], solved
    assert path.verdict == "moving"
    assert path.registered.all()
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.02  # metres, over 5.5 m
    assert np.degrees(rotation_errors(path.world_from_camera[:, :3, :3], true[:, :3, :3])).max() < 0.2


def test_known_intrinsics_are_kept_exactly_and_the_first_camera_is_the_origin(solved: tuple[CameraPath, PointCloud]) -> None:
    path, _ = solved
    np.testing.assert_array_equal(path.intrinsics, SMALL_INTRINSICS)
    np.testing.assert_allclose(path.world_from_camera[0], np.eye(4), atol=1e-12)
    assert (path.scale_source, path.gravity_source) == ("none", "none")


def test_every_observation_is_where_its_point_projects_to_in_its_frame(solved: tuple[CameraPath, PointCloud]) -> None:
    path, points = solved
    local = transform_points(
        invert_rigid(path.world_from_camera[points.observation_frame]), points.xyz[points.observation_point][:, None]
    )
    pixels, _ = project(local[:, 0], path.intrinsics)
    error = np.linalg.norm(pixels - points.observation_xy_px, axis=1)
    assert np.median(error) < 0.5
    assert error.mean() == pytest.approx(path.reprojection_error_px, abs=0.02)
    assert np.bincount(points.observation_point).min() >= 2


def test_points_have_the_colours_of_the_frames_that_saw_them(
    drive: tuple[np.ndarray, Clip], solved: tuple[CameraPath, PointCloud]
) -> None:
    (_, clip), (_, points) = drive, solved
    first = points.observation_frame == 0
    x, y = points.observation_xy_px[first].astype(int).T
    seen = clip.frames.array()[0][y, x].astype(float)
    assert np.corrcoef(seen.ravel(), points.rgb[points.observation_point[first]].astype(float).ravel())[0, 1] > 0.8


def test_the_path_says_how_it_was_solved_and_why(solved: tuple[CameraPath, PointCloud]) -> None:
    path, _ = solved
    assert path.strategy is not None
    assert path.strategy.startswith("sequential pairs, global mapping (video: ")
    assert path.facts()["strategy"] == path.strategy


def test_a_path_from_before_strategies_were_recorded_keeps_its_digest(solved: tuple[CameraPath, PointCloud]) -> None:
    unsaid = dataclasses.replace(solved[0], strategy=None)
    assert "strategy" not in unsaid.facts()
    assert content_digest(unsaid) != content_digest(solved[0])


def test_windows_of_a_long_clip_are_joined_and_adjusted_as_one(drive: tuple[np.ndarray, Clip]) -> None:
    true, clip = drive
    path, points = solve(clip, dataclasses.replace(QUICK, strategy=StrategyConfig(window=8, window_overlap=4)))
    assert path.registered.all()
    assert path.strategy is not None
    assert "2 windows, 2 of them joined" in path.strategy
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.02
    assert points.observation_frame.max() == 11
    longest = np.bincount(points.observation_point)  # a point is one point in both windows
    assert longest.max() > 8


@pytest.mark.parametrize("mapper", ["global", "incremental"])
def test_a_mapper_that_is_asked_for_is_used(drive: tuple[np.ndarray, Clip], mapper: str) -> None:
    path, _ = solve(drive[1], dataclasses.replace(QUICK, mapper=mapper))
    assert path.strategy is not None
    assert f"{mapper} mapping" in path.strategy
    assert path.registered.sum() >= 8


@pytest.mark.parametrize(
    ("model", "params", "distortion"),
    [
        ("PINHOLE", [500, 510, 320, 180], [0, 0, 0, 0]),
        ("SIMPLE_RADIAL", [500, 320, 180, 0.1], [0.1, 0, 0, 0]),
        ("RADIAL", [500, 320, 180, 0.1, -0.02], [0.1, -0.02, 0, 0]),
        ("OPENCV", [500, 510, 320, 180, 0.1, -0.02, 0.003, 0.004], [0.1, -0.02, 0.003, 0.004]),
    ],
)
def test_lenses_project_as_colmap_projects_them(model: str, params: list[float], distortion: list[float]) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    intrinsics, terms = lens_of(model, np.array(params, float))
    np.testing.assert_array_equal(terms, distortion)
    points = np.array([[0.1, 0.2, 1.0], [-0.5, 0.3, 2.0], [0.4, -0.4, 1.0]])
    camera = pycolmap.Camera(model=model, width=640, height=360, params=params)
    np.testing.assert_allclose(project(points, intrinsics, terms)[0], camera.img_from_cam(points), atol=1e-9)


def test_frames_that_do_not_belong_are_left_out_and_the_others_kept(drive: tuple[np.ndarray, Clip]) -> None:
    true, clip = drive
    strangers = np.random.default_rng(1).integers(0, 255, (2, 27, 48, 3), np.uint8).repeat(10, axis=1).repeat(10, axis=2)
    path, points = solve(clip_of(np.concatenate([clip.frames.array(), strangers]), intrinsics=SMALL_INTRINSICS), QUICK)
    assert path.registered.tolist() == [True] * 12 + [False] * 2
    np.testing.assert_array_equal(path.world_from_camera[12:], np.eye(4)[None].repeat(2, axis=0))
    assert points.observation_frame.max() < 12
    error, _ = absolute_trajectory_error(path.world_from_camera[:12, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.02


@pytest.mark.parametrize("pairs", ["exhaustive", "retrieval"])
def test_pairs_that_are_asked_for_solve_the_clip_too(
    drive: tuple[np.ndarray, Clip], pairs: Literal["exhaustive", "retrieval"]
) -> None:
    true, clip = drive
    config = dataclasses.replace(QUICK, photo_features=1200, strategy=StrategyConfig(pairs=pairs, photo_neighbours=6))
    path, _ = solve(clip, config)
    assert path.strategy is not None
    assert path.strategy.startswith(f"{pairs} pairs, global mapping (asked for)")
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert path.registered.all()
    assert error < 0.02


def test_where_frames_have_few_features_corners_are_followed_too() -> None:
    poses = true_drive(10)
    poses[:, :2, 3] *= 0.4
    film = draw_corridor(poses, SMALL_INTRINSICS, SIZE).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=film.shape)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in film])
    dim = np.clip(128 + 0.5 * (smooth - 128) + noise, 0, 255).astype(np.uint8)
    path, _ = solve(clip_of(dim, intrinsics=SMALL_INTRINSICS))
    assert path.registered.all()
    assert path.strategy is not None
    assert "corners followed by optical flow" in path.strategy
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], poses[:, :3, 3], with_scale=True)
    assert error < 0.005  # metres over 1.8 m; the features alone give 0.008


@pytest.mark.slow
def test_the_same_clip_gives_the_same_bytes(drive: tuple[np.ndarray, Clip], solved: tuple[CameraPath, PointCloud]) -> None:
    again = solve(drive[1], QUICK)
    assert [content_digest(item) for item in again] == [content_digest(item) for item in solved]


@pytest.mark.slow
def test_unknown_intrinsics_are_estimated(drive: tuple[np.ndarray, Clip]) -> None:
    true, clip = drive
    path, _ = solve(dataclasses.replace(clip, intrinsics=None))
    assert path.registered.all()
    assert path.intrinsics[0, 0] == pytest.approx(SMALL_INTRINSICS[0, 0], rel=0.1)
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.1


def test_a_tripod_clip_is_registered_at_the_origin_without_points() -> None:
    frame = draw_corridor(true_drive(1), SMALL_INTRINSICS, SIZE)
    path, points = solve(clip_of(np.repeat(frame, 4, axis=0)))
    assert path.verdict == "static"
    assert path.registered.all()
    np.testing.assert_array_equal(path.world_from_camera, np.eye(4)[None].repeat(4, axis=0))
    assert len(points.xyz) == 0
    assert path.intrinsics[0, 0] == guess_intrinsics(SIZE, 1.2)[0, 0]


def test_a_grey_clip_is_textureless_and_nothing_is_registered() -> None:
    path, points = solve(clip_of(np.full((3, 270, 480, 3), 90, np.uint8)))
    assert path.verdict == "textureless"
    assert not path.registered.any()
    assert len(points.xyz) == 0


def test_two_frames_are_solved_or_said_to_have_failed() -> None:
    frames = draw_corridor(true_drive(8)[[0, 3]], SMALL_INTRINSICS, SIZE)
    path, points = solve(clip_of(frames, intrinsics=SMALL_INTRINSICS))
    assert (path.verdict, path.registered.sum()) in (("moving", 2), ("failed", 0))
    assert (len(points.xyz) > 0) == (path.verdict == "moving")


def test_unrelated_frames_fail_without_a_crash() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 34, 60, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    path, _ = solve(clip_of(frames))
    assert path.verdict == "failed"
    assert not path.registered.any()


def test_mapping_that_dies_says_what_it_printed_last(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"status 1:(.|\n)*TypeError"):
        run_mapping(tmp_path, lambda done, note: None)


def test_nothing_of_colmap_reaches_the_terminal(
    drive: tuple[np.ndarray, Clip], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, clip = drive
    part = dataclasses.replace(clip, frames=type(clip.frames).from_array(clip.frames.array()[:3]), times_s=clip.times_s[:3])
    steps: list[tuple[int, str]] = []
    write_frames(part, tmp_path / "images")
    write_request(tmp_path, make_request(part, SMALL_INTRINSICS, IN_ORDER, ColmapConfig(), seed=0))
    run_mapping(tmp_path, lambda done, note: steps.append((done, note)))
    assert capfd.readouterr() == ("", "")
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert "features in 3/3 frames" in [note for _, note in steps]


def test_mapping_ends_with_the_process_that_started_it(drive: tuple[np.ndarray, Clip], tmp_path: Path) -> None:
    _, clip = drive
    write_frames(clip, tmp_path / "images")
    write_request(tmp_path, make_request(clip, SMALL_INTRINSICS, IN_ORDER, ColmapConfig(), seed=0))
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen(
        [sys.executable, "-m", "stages.pose.mapping", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline()  # at work
    child.stdin.close()  # what the kernel does when the parent is killed
    started = time.monotonic()
    assert child.wait(timeout=60) == 1
    assert time.monotonic() - started < 30
    assert not (tmp_path / "result.npz").exists()
    child.stdout.close()


def test_no_features_come_from_what_is_ignored(drive: tuple[np.ndarray, Clip]) -> None:
    true, clip = drive
    left = np.zeros((SIZE[1], SIZE[0]), bool)
    left[:, : SIZE[0] // 3] = True
    path, points = map_frames(clip, SMALL_INTRINSICS, QUICK, 0, lambda done, note: None, ignored=[left for _ in clip.frames])
    assert points.observation_xy_px[:, 0].min() > SIZE[0] // 3 - 1
    error, _ = absolute_trajectory_error(path.world_from_camera[:, :3, 3], true[:, :3, 3], with_scale=True)
    assert error < 0.05  # metres, over 5.5 m
