"""A log fitted with and without generated frames, drawn from another path and measured there, on a small procedural street."""

import dataclasses

import numpy as np
import pytest

from schemas.depth import DepthVideo, half_bits_of
from schemas.driving import LidarSweeps
from schemas.errors import WorldlineError
from schemas.media import Video
from stages.contract import no_progress
from stages.export.driving_report import _judged
from stages.ingest.lidar_points import LidarPointsConfig, colour_lidar_points
from stages.ingest.world_log import WorldLogConfig, ingest_world_log
from stages.reconstruct.cousin import CousinConfig, fit_cousins
from stages.reconstruct.draw_path import DrawPathConfig, draw_path
from stages.reconstruct.evaluate_novel import EvaluateNovelConfig, depth_figures, evaluate_novel_view
from tasks.models import shipped_model
from worldline.cameras import transform_points

WORLD = WorldLogConfig(street=301, frames=8, width=96, height=64, texture_detail=0.1)
QUICK = CousinConfig(steps=40, gaussians=1500, gaussians_per_agent=60, hold_out_every=4)


@pytest.fixture(scope="module")
def log():
    return ingest_world_log(config=WORLD, seed=0, progress=no_progress)


@pytest.fixture(scope="module")
def points(log):
    clip, path, tracks, _, _, lidar, _ = log
    return colour_lidar_points(clip, path, tracks, lidar, LidarPointsConfig(), seed=0, progress=no_progress)


def fit(log, points, tmp_path, films=(), paths=(), config=QUICK):
    clip, path, tracks, _, _, lidar, _ = log
    return fit_cousins(
        clip, path, points, tracks, lidar, films, paths, config, seed=0, progress=no_progress, checkpoints=tmp_path
    )


def test_lidar_points_lie_on_surfaces_and_have_the_colours_of_the_frames_that_see_them(log, points):
    path, truth = log[1], log[6]
    frame = 0
    seen = points.observation_point[points.observation_frame == frame]
    local = transform_points(np.linalg.inv(path.world_from_camera[frame]), points.xyz[seen])
    column, row = np.floor((local @ path.intrinsics.T)[:, :2] / local[:, 2:]).astype(int).T
    depth = truth.depth_2mm.array()[frame].astype(float) * 0.002
    around = np.stack([np.roll(depth, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)])
    near, far = around.min(axis=0)[row, column], around.max(axis=0)[row, column]
    known = near > 0
    assert known.sum() > 300
    assert np.mean((local[known, 2] > 0.98 * near[known]) & (local[known, 2] < 1.02 * far[known])) > 0.9


def test_no_point_lies_on_what_moves(log, points):
    *_, truth = log
    moving = {row["track_id"] for row in truth.boxes.to_pylist() if row["moving"]}
    instances = truth.instances.array()
    on_movers = np.isin(instances[points.observation_frame, points.observation_xy_px[:, 1].astype(int),
                                  points.observation_xy_px[:, 0].astype(int)], list(moving))  # fmt: skip
    assert on_movers.mean() < 0.03  # points behind a mover's edge, at this size


def test_a_fit_without_generated_frames_is_measured_on_recorded_frames_alone(log, points, tmp_path):
    scene, metrics = fit(log, points, tmp_path)
    figures = metrics.facts()
    assert figures["reconstruct.generated_frames"] == 0
    assert "reconstruct.generated_psnr_db" not in figures
    assert figures["reconstruct.heldout_psnr_db"] > 15
    assert scene.motion_model == "rigid_agents"
    assert set(np.unique(scene.instances)) - {0} <= set(log[2].objects["track_id"].to_pylist())


def test_generated_frames_enter_the_fit_but_not_the_held_out_figures(log, points, tmp_path):
    clip, path = log[0], log[1]
    _, metrics = fit(log, points, tmp_path, (clip,), (path,))
    rows = {row["name"]: row for row in metrics.figures.to_pylist()}
    assert rows["reconstruct.generated_frames"]["value"] == 8
    assert rows["reconstruct.heldout_psnr_db"]["detail"].startswith("2 frames")
    assert rows["reconstruct.generated_psnr_db"]["detail"].startswith("6 generated")  # a held out frame is so from every side


def test_the_same_fit_again_gives_the_same_scene(log, points, tmp_path):
    clip, path = log[0], log[1]
    first, second = (fit(log, points, tmp_path / name, (clip,), (path,))[0] for name in ("a", "b"))
    assert np.array_equal(first.means, second.means)
    assert np.array_equal(first.colors, second.colors)


@pytest.mark.parametrize("motion", ["gaussian_flow", "periodic_vibration", "native_4d", "static"])
def test_any_motion_model_can_be_the_scene(log, points, tmp_path, motion):
    config = dataclasses.replace(QUICK, motion=motion, steps=4, gaussians=400)
    scene, _ = fit(log, points, tmp_path, (log[0],), (log[1],), config)
    assert scene.motion_model == motion


def test_clips_without_their_paths_are_refused(log, points, tmp_path):
    with pytest.raises(WorldlineError, match="1 generated clips but 0 paths"):
        fit(log, points, tmp_path, (log[0],), ())


def test_generated_frames_of_another_shape_are_refused(log, points, tmp_path):
    square = dataclasses.replace(log[0], frames=Video.from_array(log[0].frames.array()[:, :, :64]))
    with pytest.raises(WorldlineError, match="64x64 px where the log's are 96x64 px"):
        fit(log, points, tmp_path, (square,), (dataclasses.replace(log[1], width=64),))


def test_a_scene_is_drawn_at_the_paths_times_with_metric_depth(log, points, tmp_path):
    scene, _ = fit(log, points, tmp_path)
    clip, depth = draw_path(scene, log[1], DrawPathConfig(max_side=48), seed=0, progress=no_progress)
    assert clip.frames.shape == (8, 32, 48, 3)
    assert np.array_equal(clip.times_s, log[0].times_s)
    assert depth.quantity == "metric_depth"
    truth = log[6].depth_2mm.array()[4][1::2, 1::2] * 0.002
    drawn = depth.at([4])[0]
    near = (truth > 2) & (truth < 20) & (drawn > 0)
    assert np.median(np.abs(drawn - truth)[near] / truth[near]) < 0.1


def test_depth_is_compared_where_lidar_points_can_be_seen(log):
    path = log[1]
    count, height, width = 8, 64, 96
    flat = np.full((height, width), 10.0)
    depth = DepthVideo(path.times_s, "metric_depth", Video.from_array(np.stack([half_bits_of(flat)] * count)), width, height,
                       "test", "", "", "")  # fmt: skip
    ahead = np.array([[0.1, 0.1, 10.5], [0.3, 0.3, 30.0], [2.0, 0.1, 9.0]])  # the second is hidden by the first
    world = transform_points(path.world_from_camera[0], ahead).astype(np.float32)
    lidar = LidarSweeps(path.times_s[:1], np.zeros((1, 3)), world, np.zeros(3, np.int32))
    (row,) = depth_figures(depth, path, lidar)
    assert row["value"] == pytest.approx(0.75, abs=0.01)  # the median of 0.5 and 1.0
    assert row["detail"].startswith("median over 2 lidar points")


def judged(log, **recorded) -> set[str]:
    """Names of the figures of the log's own frames, seen from where they were taken."""
    clip, path, tracks, _, road_map, lidar, _ = log
    of = dataclasses.replace(clip, **recorded)
    metrics = evaluate_novel_view(
        clip, DepthVideo.none(), path, tracks, road_map, lidar, of, shipped_model("street_detector"), EvaluateNovelConfig(),
        seed=0, progress=no_progress,
    )  # fmt: skip
    return set(metrics.facts())


def test_our_detector_judges_procedural_streets_and_no_filmed_ones(log):
    """It was taught on such streets; what it makes of San Francisco would be a number without a meaning."""
    own = judged(log)
    assert {"driving.nta_iou", "driving.ntl_iou_lane", "driving.frechet"} <= own
    filmed = judged(log, provenance={"kind": "pandaset"})
    assert own - filmed == {"driving.boxes", "driving.nta_iou", "driving.ntl_iou", "driving.ntl_iou_lane"}


def test_the_report_says_of_a_filmed_log_what_nobody_could_judge(log):
    clip = dataclasses.replace(log[0], provenance={"kind": "pandaset"})
    rows = {row["name"]: row for row in _judged(clip, ())}
    assert all(row["value"] is None for row in rows.values())
    assert "reconstruct.evaluate_novel.model" in rows["driving.nta_iou"]["detail"]
    assert _judged(log[0], ()) == []
