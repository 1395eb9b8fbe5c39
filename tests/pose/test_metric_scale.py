"""Metric scale, its drift and its sigma, against made-up drives of which all three are known."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from drives import CAMERA_HEIGHT, blank_clip, gps_of, path_of, reconstruction, true_drive
from scipy.spatial.transform import Rotation

from schemas.cameras import CameraPath, MetricScale, PointCloud
from schemas.clips import Clip
from schemas.depth import DepthVideo, half_bits_of
from schemas.media import Video
from stages.contract import no_progress
from stages.pose.drifting_noise import regress
from stages.pose.ground import GroundConfig, find_ground
from stages.pose.scale import ScaleConfig, find_scale
from stages.pose.scale_estimate import ScaleEstimate, fuse
from stages.pose.scale_from_sizes import scale_from_baseline
from worldline.cameras import Similarity

SCALE = 0.37  # path units per metre
ANYWHERE = Similarity(SCALE, Rotation.random(random_state=np.random.default_rng(4)).as_matrix(), np.array([3.0, -1, 7]))


def measure(clip: Clip, path: CameraPath, points: PointCloud, depth: DepthVideo | None = None) -> MetricScale:
    ground = find_ground(path, points, GroundConfig(), seed=0, progress=no_progress)
    depth = depth or DepthVideo.none()
    return find_scale(clip, path, points, ground, depth, ScaleConfig(), seed=0, progress=no_progress)


def gravity_of(poses: np.ndarray) -> MetricScale:
    """Without points there is no ground: only the cameras tell."""
    return measure(blank_clip(len(poses)), path_of(poses), PointCloud.none())


def said(scale: MetricScale, quantity: str = "scale") -> dict[str, dict]:
    return {row["source"]: row for row in scale.estimates.to_pylist() if row["quantity"] == quantity}


def drifting(poses: np.ndarray, change: float) -> np.ndarray:
    """Steps that shrink or grow along the way, by `change` (relative) from the middle of the first third to that of the last."""
    steps = np.diff(poses[:, :3, 3], axis=0)
    share = np.cumsum(np.linalg.norm(steps, axis=1)) / np.linalg.norm(steps, axis=1).sum()
    moved = poses.copy()
    moved[1:, :3, 3] = poses[0, :3, 3] + np.cumsum(steps * np.exp(np.log1p(change) * 1.5 * (share - 0.5))[:, None], axis=0)
    return moved


def gauss_markov(rng: np.random.Generator, times: np.ndarray, sigma: float, correlation_s: float) -> np.ndarray:
    """Two axes as one complex series, by the recursion that defines the process (Gelb, Applied Optimal Estimation, 1974)."""
    keep = np.exp(-np.diff(times) / correlation_s)
    series = np.empty(len(times), np.complex128)
    kicks = rng.normal(size=(len(times), 2)) @ [1, 1j] * sigma
    series[0] = kicks[0]
    for index in range(1, len(times)):
        series[index] = keep[index - 1] * series[index - 1] + np.sqrt(1 - keep[index - 1] ** 2) * kicks[index]
    return series


@pytest.mark.parametrize(
    ("duration_s", "rate", "independent_m", "drifting_m"),
    [(8, 4, 0.5, 0.0), (8, 4, 0.0, 2.0), (20, 1, 0.3, 2.0), (60, 1, 0.5, 2.0), (8, 3, 0.0, 0.2)],
)
def test_nine_in_ten_true_scales_lie_within_the_ninety_percent_interval_whatever_part_of_the_error_drifts(
    duration_s: float, rate: float, independent_m: float, drifting_m: float
) -> None:
    times = np.arange(0, duration_s, 1 / rate)
    place = np.cumsum(8 / rate * np.exp(0.3j * np.sin(times / 5)))  # 8 m/s along a winding road
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        noise = rng.normal(size=(len(times), 2)) @ [1, 1j] * independent_m + gauss_markov(rng, times, drifting_m, 30.0)
        design = np.stack([place - place.mean(), np.ones(len(times))], axis=1)
        fitted = regress(design, place + noise, times, correlation_s=30.0, least_drift=0.2)
        assert fitted is not None
        held += abs(np.log(abs(fitted.coefficients[0]))) < 1.645 * np.sqrt(fitted.covariance[0, 0])
    assert 0.84 <= held / 100 <= 0.99


def test_the_sigma_of_independent_errors_is_that_of_the_text_book() -> None:
    times = np.arange(0, 40, 0.1)
    own = 5 + np.sin(times)
    rng = np.random.default_rng(0)
    sigmas = [
        np.sqrt(regress(own[:, None], own + rng.normal(size=400), times, correlation_s=2.0, least_drift=0.0).covariance[0, 0])
        for _ in range(20)
    ]
    assert np.median(sigmas) == pytest.approx(1 / np.sqrt((own**2).sum()), rel=0.15)


def test_wild_records_do_not_move_the_fit() -> None:
    times = np.arange(0, 10, 0.1)
    given = np.full(100, 20.0)
    given[::10] = 90.0
    fitted = regress(np.full((100, 1), 10.0), given, times, correlation_s=2.0, least_drift=0.1)
    assert fitted is not None
    assert fitted.coefficients[0] == pytest.approx(2.0)
    assert fitted.used == 90


@pytest.mark.parametrize("change", [-0.1, 0.0, 0.15])
@pytest.mark.parametrize("source", ["gps", "camera_height"])
def test_a_path_whose_scale_drifts_gets_that_drift_within_its_sigma(source: str, change: float) -> None:
    poses = true_drive(count=240)
    if source == "gps":
        path, points = reconstruction(poses, ANYWHERE)
        path = dataclasses.replace(path, world_from_camera=ANYWHERE.poses(drifting(poses, change)))
        scale = measure(blank_clip(240, gps=gps_of(poses, 0.02, speed=True)), path, points)
    else:  # a camera that sinks towards a plane: the same height shrinks with the unit
        path, points = reconstruction(poses, ANYWHERE)
        sinking = poses.copy()
        share = np.linspace(0, 1, 240)
        sinking[:, 2, 3] += CAMERA_HEIGHT * (np.exp(np.log1p(change) * 1.5 * (share - 0.5)) - 1)
        path = dataclasses.replace(path, world_from_camera=ANYWHERE.poses(sinking))
        scale = measure(blank_clip(240, camera_height_m=CAMERA_HEIGHT), path, points)
    assert scale.drift_source == source
    assert scale.drift is not None
    assert scale.drift_sigma is not None
    # a unit of a path whose steps came out longer is fewer metres
    assert scale.drift == pytest.approx(1 / (1 + change) - 1, abs=2 * scale.drift_sigma)
    assert scale.drift_sigma < 0.04
    if change == 0.15:
        assert scale.sigma > 0.04  # one scale for the whole path is that wrong at its ends


def test_a_path_too_short_for_its_gps_says_why_and_tells_no_drift() -> None:
    poses = true_drive()[:8]
    path, points = reconstruction(poses, ANYWHERE)
    scale = measure(blank_clip(8, gps=gps_of(poses, 3.0)), path, points)
    row = said(scale)["gps_position"]
    assert (scale.scale, scale.source, scale.drift, row["used"]) == (None, "none", None, False)
    assert "exceeds 0.2" in row["reason"]
    assert said(scale)["gps_speed"]["reason"] == "no speed is given"


def test_two_words_of_one_receiver_are_no_more_certain_than_the_better_one() -> None:
    fused = fuse([ScaleEstimate("gps_position", 2.0, 0.01), ScaleEstimate("gps_speed", 2.01, 0.02)])
    assert fused is not None
    assert (fused.source, fused.sigma) == ("gps", 0.01)
    assert 2.0 < fused.scale < 2.01


def test_what_is_refused_does_not_count() -> None:
    fused = fuse([ScaleEstimate("gps_position", 2.0, 0.01), ScaleEstimate("camera_height", 9.0, 0.001, refused="no plane")])
    assert fused is not None
    assert (fused.source, fused.scale) == ("gps", pytest.approx(2.0))


def test_the_distance_of_two_cameras_gives_the_scale_with_both_errors() -> None:
    rng = np.random.default_rng(0)
    estimate = scale_from_baseline(0.27 + rng.normal(size=400) * 0.005, given_m=0.54, sigma_m=0.0054)
    assert estimate.scale == pytest.approx(2.0, rel=0.003)
    # 1 % of the given length; the median of 400 instants adds sqrt(pi / 2) * 1.85 % / 20
    assert estimate.sigma == pytest.approx(np.hypot(0.01, np.sqrt(np.pi / 2) * 0.005 / 0.27 / 20), rel=0.02)
    assert scale_from_baseline(np.zeros(3), 0.54, 0.01).refused


def test_a_path_in_metres_by_its_baseline_says_so_beside_the_other_sources() -> None:
    poses = true_drive(60)
    path = path_of(poses, scale_source="baseline", scale_sigma=0.004)
    scale = measure(blank_clip(60, gps=gps_of(poses, noise_m=0.3)), path, PointCloud.none())
    baseline = said(scale)["baseline"]
    assert (baseline["value"], baseline["sigma"], baseline["used"]) == (1.0, 0.004, True)
    assert scale.source == "baseline+gps"
    assert scale.scale == pytest.approx(1.0, abs=0.02)
    assert scale.sigma <= 0.004 * 1.5


def test_a_camera_that_turned_about_the_vertical_finds_it_however_steeply_it_looked_down() -> None:
    ring = Rotation.from_euler("ZY", [[angle, 0.6] for angle in np.linspace(0, 2.2, 30)]).as_matrix()
    level = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    poses = np.repeat(np.eye(4)[None], 30, axis=0)
    poses[:, :3, :3] = ring @ level
    poses[:, :3, 3] = -3 * ring[:, :, 0] + [0, 0, 1.0]  # around an object at the origin, looking at it
    scale = gravity_of(poses)
    assert scale.gravity_source == "camera_up"
    tops = -poses[:, :3, 1].mean(axis=0)
    assert np.arccos(tops[2] / np.linalg.norm(tops)) > 0.25  # the images' tops lean inwards
    assert np.arccos(scale.up[2]) < 0.12 < 2 * scale.gravity_sigma_rad


@pytest.mark.parametrize("turn", ["x", "down"])
def test_a_camera_that_rolls_over_or_looks_straight_down_does_not_know_gravity(turn: str) -> None:
    poses = true_drive()
    if turn == "x":
        spin = Rotation.from_euler("z", np.linspace(0, 6, 60)[:, None]).as_matrix()
    else:
        spin = Rotation.from_euler("x", np.full((60, 1), -np.pi / 2)).as_matrix()
    poses[:, :3, :3] = poses[:, :3, :3] @ spin
    scale = gravity_of(poses)
    assert (scale.gravity_source, scale.gravity_sigma_rad) == ("none", 0.0)
    assert scale.gravity_estimates.to_pylist()[0]["reason"]


def test_gps_without_altitude_still_tells_the_scale() -> None:
    poses = true_drive()
    path, points = reconstruction(poses, ANYWHERE)
    gps = gps_of(poses, 0.02)
    gps = gps.set_column(3, "altitude_m", pa.nulls(60, pa.float64()))
    scale = measure(blank_clip(60, gps=gps), path, points)
    assert scale.scale == pytest.approx(1 / SCALE, rel=2 * scale.sigma)


@pytest.mark.parametrize("bias", [1.0, 1.1])
def test_a_metric_depth_model_gives_the_scale_and_its_bias_lies_within_the_floor_of_its_sigma(bias: float) -> None:
    poses = true_drive()
    path, points = reconstruction(poses, ANYWHERE, noise=0.0)
    rng = np.random.default_rng(0)
    pictures = np.zeros((60, 90, 160), np.float32)  # a quarter of the frames' 640 x 360 pixels
    column, row = (points.observation_xy_px / 4).astype(int).T
    world = Similarity(1 / SCALE, ANYWHERE.rotation.T, -ANYWHERE.rotation.T @ ANYWHERE.translation / SCALE)
    xyz = world.points(points.xyz)[points.observation_point]
    poses_of = poses[points.observation_frame]
    pictures[points.observation_frame, row, column] = np.einsum("ni,ni->n", xyz - poses_of[:, :3, 3], poses_of[:, :3, 2])
    pictures *= bias * np.exp(0.05 * rng.normal(size=(60, 1, 1)))  # the model's mood from frame to frame
    depth = DepthVideo(
        path.times_s, "metric_depth", Video.from_array(half_bits_of(pictures)), 640, 360, "a model", "", "digest", ""
    )
    scale = measure(blank_clip(60), path, points, depth)
    assert scale.source == "depth_model"
    assert scale.scale == pytest.approx(bias / SCALE, rel=0.03)
    assert abs(np.log(scale.scale * SCALE)) < scale.sigma
    assert 0.15 < scale.sigma < 0.17
    assert scale.drift == pytest.approx(0, abs=2 * scale.drift_sigma)


def test_depth_without_a_unit_is_no_source_of_scale() -> None:
    path, points = reconstruction(true_drive(), ANYWHERE)
    pictures = Video.from_array(half_bits_of(np.ones((60, 9, 16))))
    depth = DepthVideo(path.times_s, "relative_inverse_depth", pictures, 640, 360, "a model", "", "digest", "")
    assert measure(blank_clip(60), path, points, depth).estimates.num_rows == 0


def test_metres_and_up_that_came_with_the_poses_are_kept_and_others_join_them() -> None:
    poses = true_drive()
    given = {"scale_source": "given", "scale_sigma": 0.005, "gravity_source": "given", "gravity_sigma_rad": 0.001}
    alone = measure(blank_clip(len(poses)), path_of(poses, **given), PointCloud.none())
    assert (alone.scale, alone.sigma, alone.source) == (1.0, pytest.approx(0.005), "given")
    assert alone.gravity_source.split("+")[0] == "given"
    assert np.degrees(np.arccos(alone.up[2])) < 0.1  # the cameras look down by 2.9 degrees and count for little
    with_gps = measure(blank_clip(len(poses), gps=gps_of(poses, noise_m=0.5)), path_of(poses, **given), PointCloud.none())
    assert set(with_gps.source.split("+")) == {"given", "gps"}
    assert with_gps.sigma <= 0.005
