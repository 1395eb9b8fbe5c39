"""What every stage of the room promises, on a filmed wall with a moving patch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from filmed_wall import FRAMES, PATCH_VELOCITY, WALL, film

from schemas.artifact import rows_to_table
from schemas.codec import content_digest
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.contract import STAGES, load_stages, no_progress
from worldline import motion

load_stages()
METHODS = ("static", "gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents")
SHORT = {"max_side": 64, "gaussians": 300, "steps": 45, "checkpoint_every": 10, "grow_every": 15}


def tracks_of_the_patch(path) -> Tracks:
    """A thin box around the patch, upright."""
    rows = [
        dict.fromkeys(TRACK_SAMPLES.names)
        | {
            "track_id": 7, "frame": frame, "time_s": float(time), "x": -0.6 + PATCH_VELOCITY * time, "y": WALL, "z": -0.6,
            "length": 0.7, "width": 0.1, "height": 0.8, "yaw_rad": 0.0, "visible": 1.0, "touches_border": False,
        }
        for frame, time in enumerate(path.times_s)
    ]  # fmt: skip
    return Tracks(
        samples=rows_to_table(TRACK_SAMPLES, rows), objects=rows_to_table(TRACK_OBJECTS, []), origin="video",
        scale_source="none", scale_sigma=0.0, gravity_source="none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> dict:
    """The filmed wall in a world whose z is up, as boxes are."""
    clip, path, points, masks = film()
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    poses = path.world_from_camera.copy()
    poses[:, :3] = upright @ poses[:, :3]
    path = dataclasses.replace(path, world_from_camera=poses)
    points = dataclasses.replace(points, xyz=points.xyz @ upright.T)
    return {"clip": clip, "path": path, "points": points, "masks": masks, "tracks": tracks_of_the_patch(path)}


def run(method: str, inputs: dict, folder: Path, progress=no_progress, **settings):
    stage = STAGES[f"reconstruct.{method}"]
    config = stage.config_type(**SHORT | settings)
    given = [inputs[name] for name in stage.inputs]
    return stage.function(*given, config, seed=0, progress=progress, checkpoints=folder)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_scene_of_its_model_over_the_clip_with_figures(inputs, method, tmp_path):
    scene, metrics = run(method, inputs, tmp_path, steps=120)
    assert scene.motion_model == method
    assert (scene.start_s, scene.end_s) == (inputs["clip"].times_s[0], inputs["clip"].times_s[-1])
    figures = metrics.facts()
    assert set(figures) == {
        "reconstruct.heldout_psnr_db", "reconstruct.heldout_ssim", "reconstruct.heldout_gms", "reconstruct.moving_psnr_db",
        "reconstruct.train_psnr_db", "reconstruct.gaussians",
    }  # fmt: skip
    assert figures["reconstruct.heldout_psnr_db"] > 18
    for time_s in (0.0, 1.1, 2.3):
        state = motion.state_at(scene, time_s)
        assert all(np.isfinite(array).all() for array in state if array is not None)
        assert np.isfinite(motion.velocity_at(scene, time_s)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_stage_that_was_killed_and_resumed_gives_the_same_bytes(inputs, method, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done: int, total: int, note: str = "") -> None:
        if done >= 30:
            raise Killed

    with pytest.raises(Killed):
        run(method, inputs, tmp_path / "killed", progress=kill, patience=9, evaluate_every=10)
    reports = []
    resumed = run(
        method, inputs, tmp_path / "killed", progress=lambda done, total, note="": reports.append(done), patience=9,
        evaluate_every=10,
    )  # fmt: skip
    assert reports[0] == 30
    whole = run(method, inputs, tmp_path / "whole", patience=9, evaluate_every=10)
    assert [content_digest(artifact) for artifact in resumed] == [content_digest(artifact) for artifact in whole]


@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_moves_and_nothing_was_tracked_every_method_still_draws_the_wall(inputs, method, tmp_path):
    masks = dataclasses.replace(inputs["masks"], labels=Video.from_array(np.zeros(inputs["masks"].labels.shape, np.uint16)))
    tracks = dataclasses.replace(inputs["tracks"], samples=inputs["tracks"].samples.slice(0, 0))
    scene, metrics = run(method, inputs | {"masks": masks, "tracks": tracks}, tmp_path)
    assert metrics.facts()["reconstruct.heldout_psnr_db"] > 13
    assert "reconstruct.moving_psnr_db" not in metrics.facts()
    assert np.isfinite(scene.means).all()


@pytest.mark.parametrize("method", METHODS)
def test_without_any_registered_frame_the_scene_is_empty(inputs, method, tmp_path):
    path = dataclasses.replace(inputs["path"], registered=np.zeros(FRAMES, bool), verdict="failed")
    scene, metrics = run(method, inputs | {"path": path}, tmp_path)
    assert len(scene.means) == 0
    assert metrics.facts() == {}


@pytest.mark.parametrize("method", ["gaussian_flow", "native_4d", "periodic_vibration", "rigid_agents"])
def test_gaussians_on_the_patch_carry_its_number_and_move_with_it(inputs, method, tmp_path):
    scene, _ = run(method, inputs, tmp_path, steps=150, gaussians=600)
    assert set(np.unique(scene.instances)) == {0, 7}
    state = motion.state_at(scene, 1.15)
    own = (scene.instances == 7) & (state.opacities.numpy() > 0.2)
    assert own.sum() > 5
    velocity = np.median(motion.velocity_at(scene, 1.15).numpy()[own], axis=0)
    np.testing.assert_allclose(velocity, [PATCH_VELOCITY, 0, 0], atol=0.2)


def test_the_standing_scene_does_not_learn_from_moving_regions(inputs, tmp_path):
    """Frames with the patch painted over give the same scene: its pixels are never fitted."""
    frames = inputs["clip"].frames.array().copy()
    frames[np.array(inputs["masks"].labels.array()) > 0] = 255
    painted = dataclasses.replace(inputs["clip"], frames=Video.from_array(frames))
    settings = {"ssim_weight": 0.0, "resolutions": 1}
    scene, _ = run("static", inputs, tmp_path / "a", **settings)
    other, _ = run("static", inputs | {"clip": painted}, tmp_path / "b", **settings)
    np.testing.assert_array_equal(scene.means, other.means)


def test_frames_that_say_when_to_stop_are_not_scored(inputs, tmp_path):
    _, metrics = run("static", inputs, tmp_path, patience=3, evaluate_every=10)
    detail = {row["name"]: row["detail"] for row in metrics.figures.to_pylist()}["reconstruct.heldout_psnr_db"]
    assert detail.startswith("2 frames that were neither fitted nor asked when to stop")
