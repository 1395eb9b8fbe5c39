"""Frames that repeat the one before: found, left out of the reconstruction, and given its pose."""

import io

import av
import numpy as np
import pytest
from drives import INTRINSICS, LEVEL, clip_of, draw_corridor, path_of

from schemas.cameras import PointCloud
from stages.pose.repeats import find_repeats, keep_frames, repeat_poses

SIZE = (480, 270)


def walk(count: int, step: float, noise: float = 2.0) -> np.ndarray:
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    poses[:, :3, :3] = LEVEL
    poses[:, 0, 3] = np.arange(count) * step
    frames = draw_corridor(poses, INTRINSICS * np.array([[0.75], [0.75], [1]]), SIZE)
    return np.clip(frames + np.random.default_rng(0).normal(size=frames.shape) * noise, 0, 255).astype(np.uint8)


def recode(frames: np.ndarray, quality: int) -> np.ndarray:
    """What is left of frames after MPEG-4, which every build of FFmpeg writes."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=30, options={"qmin": str(quality), "qmax": str(quality), "g": "250"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return walk(16, 0.2)


def test_a_clip_whose_frames_all_differ_repeats_nothing(frames: np.ndarray) -> None:
    assert np.array_equal(find_repeats(frames, SIZE), np.arange(16))


@pytest.mark.parametrize("quality", [None, 2, 6])
def test_a_rate_doubled_by_showing_frames_twice_is_found_even_through_a_codec(frames: np.ndarray, quality: int | None) -> None:
    twice = frames[np.repeat(np.arange(16), 2)]
    shown = find_repeats(twice if quality is None else recode(twice, quality), SIZE)
    assert np.array_equal(shown, np.repeat(np.arange(0, 32, 2), 2))


@pytest.mark.parametrize("quality", [None, 4])
def test_a_frozen_middle_is_one_picture_even_through_a_codec(frames: np.ndarray, quality: int | None) -> None:
    stuck = frames[np.array([*range(6), *[5] * 9, *range(6, 16)])]
    shown = find_repeats(stuck if quality is None else recode(stuck, quality), SIZE)
    assert np.array_equal(shown, [*range(6), *[5] * 9, *range(15, 25)])


def test_a_sensor_that_films_a_still_scene_repeats_nothing() -> None:
    assert np.array_equal(find_repeats(walk(6, 0.0), SIZE), np.arange(6))


def test_a_mover_before_a_noiseless_still_background_makes_new_pictures() -> None:
    frames = np.repeat(walk(1, 0.0, noise=0.0), 6, axis=0)
    for index in range(6):
        frames[index, 100:130, 50 + 10 * index : 80 + 10 * index] = 200
    assert np.array_equal(find_repeats(frames, SIZE), np.arange(6))


def test_a_slow_drift_is_not_copies_of_copies() -> None:
    frames = np.concatenate([walk(8, 0.3), walk(12, 0.002, noise=0.0)])
    shown = find_repeats(frames, SIZE)
    assert np.abs(frames[shown].astype(int) - frames).mean(axis=(1, 2, 3)).max() < 3.0  # each shows what it is said to show


def test_no_frames_and_one_frame_repeat_nothing() -> None:
    assert len(find_repeats(np.zeros((0, 4, 4, 3), np.uint8), (4, 4))) == 0
    assert find_repeats(np.zeros((1, 4, 4, 3), np.uint8), (4, 4)).tolist() == [0]


def test_copies_get_the_pose_of_their_picture_and_observe_nothing(frames: np.ndarray) -> None:
    shown = np.array([0, 0, 2, 3, 3, 3], np.int32)
    clip = clip_of(frames[:6])
    kept = keep_frames(clip, np.unique(shown))
    assert np.array_equal(kept.frames.array(), frames[[0, 2, 3]])
    poses = np.repeat(np.eye(4)[None], 3, axis=0)
    poses[:, 0, 3] = [0.0, 1.0, 2.0]
    cloud = PointCloud(
        xyz=np.zeros((1, 3)),
        rgb=np.zeros((1, 3), np.uint8),
        error_px=np.zeros(1, np.float32),
        observation_frame=np.array([0, 1, 2], np.int32),
        observation_point=np.zeros(3, np.int32),
        observation_xy_px=np.zeros((3, 2), np.float32),
    )
    path, seen = repeat_poses(path_of(poses, registered=np.array([True, False, True])), cloud, clip, shown)
    assert path.world_from_camera[:, 0, 3].tolist() == [0, 0, 1, 2, 2, 2]
    assert path.registered.tolist() == [True, True, False, True, True, True]
    assert seen.observation_frame.tolist() == [0, 2, 3]
    assert path.facts()["repeated_frames"] == 3
