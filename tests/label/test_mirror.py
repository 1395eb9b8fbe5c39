import dataclasses

import numpy as np
import pytest
from motions import HEIGHT, WIDTH, camera_path, right_turn, straight, tracks_of

from schemas.clips import Clip
from schemas.media import Video
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.mirror import MirrorConfig, mirror_clip, mirror_path, mirror_tracks
from stages.label.questions import QuestionsConfig, ask_questions
from stages.label.window_rules import WindowRules

TIMES = np.arange(81) * 0.1
MOTIONS = {1: straight((40, 9), (0, -3)), 2: right_turn((10, 2), 6.0, 3.0, 4.6), 3: straight((60, 3), (-4, 0))}
COLOURS = {1: "red", 2: "blue", 3: "grey"}


def off_centre_path():
    path = camera_path(TIMES, speed=2.0)
    intrinsics = path.intrinsics.copy()
    intrinsics[0, 2] += 37.0
    return dataclasses.replace(path, intrinsics=intrinsics)


def pixels(path, samples):
    place = np.stack([samples[name].to_numpy() for name in "xyz"], -1)
    poses = path.world_from_camera[samples["frame"].to_numpy()]
    rays = np.einsum("mji,mj->mi", poses[:, :3, :3], place - poses[:, :3, 3]) @ path.intrinsics.T
    return rays[:, :2] / rays[:, 2:]


def answers(path, tracks):
    limits = KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9))
    kinematics = estimate_kinematics(tracks, path, limits, seed=3, progress=no_progress)
    config = QuestionsConfig(max_answer_share=1.0)
    rows = ask_questions(kinematics, tracks, path, config, seed=5, progress=no_progress).rows.to_pylist()
    return {(row["kind"], row["reference"], tuple(row["track_ids"]), row["start_s"]): row["answer"] for row in rows
            if row["kind"] not in ("counting", "absent_object") and "comparison" not in row["kind"]}  # fmt: skip


def test_frames_are_flipped_and_the_clip_says_so():
    picture = np.zeros((2, 4, 6, 3), np.uint8)
    picture[:, :, 0] = 255
    clip = Clip(Video.from_array(picture), np.array([0.0, 0.1]), "street")
    path = camera_path(np.array([0.0, 0.1]))
    mirrored, _, _ = mirror_clip(clip, path, tracks_of(path, {}), MirrorConfig(), seed=0, progress=no_progress)
    assert mirrored.frames.array()[:, :, 5].min() == 255
    assert mirrored.frames.array()[:, :, :5].max() == 0
    assert mirrored.provenance["mirrored"]


def test_the_mirrored_camera_sees_mirrored_tracks_where_the_flipped_pictures_show_them():
    path = off_centre_path()
    tracks = tracks_of(path, MOTIONS)
    flipped = mirror_path(path)
    there = mirror_tracks(tracks, WIDTH)
    before, after = pixels(path, tracks.samples), pixels(flipped, there.samples)
    np.testing.assert_allclose(after, np.stack([WIDTH - before[:, 0], before[:, 1]], -1), atol=1e-6)
    assert np.linalg.det(flipped.world_from_camera[:, :3, :3]) == pytest.approx(1.0)
    assert flipped.height == HEIGHT
    width = [table["x1_px"].to_numpy() - table["x0_px"].to_numpy() for table in (tracks.samples, there.samples)]
    np.testing.assert_allclose(*width, atol=1e-9)


def test_a_mirror_s_mirror_is_the_original():
    path = off_centre_path()
    tracks = tracks_of(path, MOTIONS)
    np.testing.assert_allclose(mirror_path(mirror_path(path)).world_from_camera, path.world_from_camera, atol=1e-12)
    twice = mirror_tracks(mirror_tracks(tracks, WIDTH), WIDTH).samples
    for name in ("x", "y", "yaw_rad", "x0_px"):
        np.testing.assert_allclose(twice[name].to_numpy(), tracks.samples[name].to_numpy(), atol=1e-9)


def test_sides_and_clock_hours_are_swapped_and_distances_stay():
    path = off_centre_path()
    tracks = tracks_of(path, MOTIONS, colours=COLOURS)
    before, after = answers(path, tracks), answers(mirror_path(path), mirror_tracks(tracks, WIDTH))
    swapped = {"left": "right", "right": "left", "clockwise": "counter-clockwise", "left only": "right only",
               "right only": "left only", "to the left": "to the right", "to the right": "to the left"}  # fmt: skip
    hours = {f"{hour} o'clock": f"{12 - hour if hour < 12 else 12} o'clock" for hour in range(1, 13)}
    assert before.keys() == after.keys()
    assert len(before) > 60
    assert any(answer in swapped for answer in before.values())
    assert [after[key] for key in before] == [(swapped | hours).get(answer, answer) for answer in before.values()]
