"""The fit on a clip that numpy draws: a textured wall, a moving patch on it, and a camera that slides past."""

import dataclasses
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from filmed_wall import FRAMES, HEIGHT, PATCH_VELOCITY, WIDTH, film

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.media import Video
from schemas.motion import Masks
from stages.contract import no_progress
from stages.reconstruct.gaussian_flow import GaussianFlowConfig, fit_gaussian_flow
from worldline import motion
from worldline.scenes import draw_scene

CONFIG = GaussianFlowConfig(max_side=64, gaussians=900, steps=240, checkpoint_every=50, grow_every=40)
SHORT = dataclasses.replace(CONFIG, gaussians=150, steps=45, checkpoint_every=10, grow_every=15)


@pytest.fixture(scope="module")
def filmed() -> tuple[Clip, CameraPath, PointCloud, Masks]:
    return film()


def run(inputs, config=SHORT, folder=Path("/nonexistent"), progress=no_progress, seed=0):
    config = config if folder != Path("/nonexistent") else dataclasses.replace(config, checkpoint_every=10**9)
    return fit_gaussian_flow(*inputs, config, seed=seed, progress=progress, checkpoints=folder)


def without_movers(masks: Masks) -> Masks:
    return dataclasses.replace(masks, labels=Video.from_array(np.zeros(masks.labels.shape, np.uint16)))


def digests(outputs) -> list[str]:
    return [content_digest(artifact) for artifact in outputs]


@pytest.fixture(scope="module")
def fitted(filmed):
    notes = []
    scene, metrics = run(filmed, CONFIG, progress=lambda done, total, note="": notes.append((done, total, note)))
    return scene, metrics, notes


def test_frames_that_were_held_out_are_drawn_better_than_the_best_neighbouring_frame(filmed, fitted):
    clip = filmed[0]
    frames = clip.frames.array().astype(float) / 255
    held_out = np.arange(4, FRAMES, 8)
    copied = [max(-10 * np.log10(np.mean((frames[i] - frames[i + s]) ** 2)) for s in (-1, 1)) for i in held_out]
    figures = fitted[1].facts()
    assert figures["reconstruct.heldout_psnr_db"] > np.mean(copied) + 3
    assert figures["reconstruct.heldout_psnr_db"] > 22
    assert figures["reconstruct.heldout_ssim"] > 0.75
    assert figures["reconstruct.gaussians"] == CONFIG.gaussians


def test_the_scene_drawn_by_itself_looks_like_the_frames_that_were_held_out(filmed, fitted):
    clip, path, _, _ = filmed
    held_out = np.arange(4, FRAMES, 8)
    frames = clip.frames.array()
    decibels = []
    for i in held_out:
        camera = np.linalg.inv(path.world_from_camera[i])
        image = draw_scene(fitted[0], path.times_s[i], camera, path.intrinsics, WIDTH, HEIGHT).numpy()
        decibels.append(-10 * np.log10(np.mean((image - frames[i] / 255) ** 2)))
    assert np.mean(decibels) == pytest.approx(fitted[1].facts()["reconstruct.heldout_psnr_db"], abs=0.1)


def test_the_patch_moves_at_its_true_velocity_and_the_wall_stands_still(fitted):
    scene = fitted[0]
    velocity = motion.velocity_at(scene, 1.15).numpy()
    still = np.setdiff1d(np.arange(len(velocity)), scene.motion["moving"])
    assert not velocity[still].any()
    on_patch = scene.motion["moving"][scene.opacities[scene.motion["moving"]] > 0.3]
    assert len(on_patch) > 20
    np.testing.assert_allclose(np.median(velocity[on_patch], axis=0), [PATCH_VELOCITY, 0, 0], atol=0.1)


def test_moving_gaussians_draw_the_moving_region_better_than_static_ones(filmed, fitted):
    # The regions are kept for the measure, but nothing may move.
    frozen = run(filmed, dataclasses.replace(CONFIG, moving_share=0.0))[1]
    name = "reconstruct.moving_psnr_db"
    assert fitted[1].facts()[name] > frozen.facts()[name] + 2


def test_progress_counts_up_to_the_end_and_shows_decibels(fitted):
    notes = fitted[2]
    assert [done for done, _, _ in notes] == sorted(done for done, _, _ in notes)
    assert notes[-1][:2] == (CONFIG.steps, CONFIG.steps)
    assert notes[-1][2].startswith("PSNR ")
    assert notes[-1][2].endswith(" dB")


@pytest.mark.parametrize(("killed_at", "next_report"), [(8, 10), (20, 20), (33, 40)])
def test_a_fit_that_was_killed_and_resumed_gives_the_same_bytes(filmed, tmp_path, killed_at, next_report):
    class Killed(BaseException):
        pass

    def kill(done: int, total: int, note: str = "") -> None:
        if done >= killed_at:
            raise Killed

    with pytest.raises(Killed):
        run(filmed, folder=tmp_path, progress=kill)
    steps = []
    resumed = run(filmed, folder=tmp_path, progress=lambda done, total, note="": steps.append(done))
    assert digests(resumed) == digests(run(filmed))
    assert steps[0] == next_report  # it did not start over


def test_a_torn_checkpoint_is_ignored(filmed, tmp_path):
    (tmp_path / "fit.safetensors").write_bytes(b"\x20\x00\x00\x00\x00\x00\x00\x00{torn")
    assert digests(run(filmed, folder=tmp_path)) == digests(run(filmed))


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was(filmed):
    before = numba.get_num_threads(), torch.get_num_threads()
    results = []
    try:
        for threads in (1, before[0]):
            numba.set_num_threads(threads)
            torch.set_num_threads(3 - min(threads, 2))
            results.append(digests(run(filmed)))
            assert torch.get_num_threads() == 3 - min(threads, 2)
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])
    assert results[0] == results[1]


def test_another_seed_gives_another_fit(filmed):
    assert digests(run(filmed, seed=1)) != digests(run(filmed))


def test_frames_without_a_pose_are_not_used(filmed):
    clip, path, cloud, masks = filmed
    registered = path.registered.copy()
    registered[[0, 5, 9]] = False
    path = dataclasses.replace(path, registered=registered)
    frames = clip.frames.array().copy()
    frames[[0, 5, 9]] = 255
    spoiled = dataclasses.replace(clip, frames=Video.from_array(frames))
    assert digests(run((spoiled, path, cloud, masks))) == digests(run((clip, path, cloud, masks)))


def test_the_unit_of_the_camera_path_does_not_matter(filmed):
    clip, path, cloud, masks = filmed
    poses = path.world_from_camera.copy()
    poses[:, :3, 3] *= 8
    scaled = clip, dataclasses.replace(path, world_from_camera=poses), dataclasses.replace(cloud, xyz=cloud.xyz * 8), masks
    (large, large_metrics), (scene, metrics) = run(scaled), run(filmed)
    np.testing.assert_allclose(large.means, 8 * scene.means, rtol=0, atol=2e-2)
    for name, value in metrics.facts().items():
        assert large_metrics.facts()[name] == pytest.approx(value, abs=0.05)


def test_a_camera_on_a_tripod_without_points_is_still_drawn(filmed):
    clip, path, cloud, masks = filmed
    nothing = np.zeros(0, np.int32)
    cloud = dataclasses.replace(
        cloud, xyz=np.zeros((0, 3)), rgb=np.zeros((0, 3), np.uint8), error_px=np.zeros(0, np.float32),
        observation_frame=nothing, observation_point=nothing, observation_xy_px=np.zeros((0, 2), np.float32),
    )  # fmt: skip
    path = dataclasses.replace(path, world_from_camera=np.tile(np.eye(4), (FRAMES, 1, 1)), verdict="static")
    still = clip.frames.array()[:1].repeat(FRAMES, axis=0)
    clip = dataclasses.replace(clip, frames=Video.from_array(still))
    scene, metrics = run((clip, path, cloud, without_movers(masks)), dataclasses.replace(SHORT, gaussians=500))
    assert metrics.facts()["reconstruct.heldout_psnr_db"] > 18
    assert "reconstruct.moving_psnr_db" not in metrics.facts()  # nothing moves, so there is nothing to measure
    assert np.isfinite(scene.means).all()
    # A fit without movers has no moving Gaussians.
    assert not len(scene.motion["moving"])


def test_movers_before_a_camera_on_a_tripod_are_followed_without_points(filmed):
    clip, path, cloud, masks = filmed
    nothing = np.zeros(0, np.int32)
    cloud = dataclasses.replace(
        cloud, observation_frame=nothing, observation_point=nothing, observation_xy_px=np.zeros((0, 2), np.float32)
    )
    scene, _ = run((clip, dataclasses.replace(path, world_from_camera=np.tile(np.eye(4), (FRAMES, 1, 1))), cloud, masks))
    assert len(scene.motion["moving"])
    assert np.isfinite(motion.velocity_at(scene, 1.0).numpy()).all()


def test_without_any_registered_frame_the_scene_is_empty_and_no_figure_is_claimed(filmed):
    clip, path, cloud, masks = filmed
    scene, metrics = run((clip, dataclasses.replace(path, registered=np.zeros(FRAMES, bool), verdict="failed"), cloud, masks))
    assert len(scene.means) == 0
    assert metrics.facts() == {}
    assert len(motion.state_at(scene, 1.0).means) == 0


def test_two_frames_are_enough(filmed):
    clip, path, cloud, masks = filmed
    registered = np.zeros(FRAMES, bool)
    registered[[3, 20]] = True
    _, metrics = run((clip, dataclasses.replace(path, registered=registered), cloud, masks))
    assert metrics.facts()["reconstruct.train_psnr_db"] > 12
