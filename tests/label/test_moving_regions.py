"""What moves in the world, from points of known motion seen by a known camera."""

import cv2
import numpy as np
import pytest

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import PointTracks
from stages.label.floating import floating_points
from stages.label.motion_groups import GroupingConfig, contract_greedily, cut_at_contact_jumps
from stages.label.motion_hypotheses import fit_static
from stages.label.moving_regions import MovingRegionsConfig, find_moving_regions
from stages.label.point_tracks import track_points

K = np.array([[500.0, 0, 320], [0, 500.0, 180], [0, 0, 1]])
HEIGHT = 1.6
GROUND = (np.array([0.0, 0.0, 1.0]), 0.0)
# camera axes in a world with z up, looking along +x
LOOKING_FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
NO_POINTS = PointCloud(
    np.zeros((0, 3)),
    np.zeros((0, 3), np.uint8),
    np.zeros(0, np.float32),
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros((0, 2), np.float32),
)


def forward_poses(frames: int, metres_per_frame: float) -> np.ndarray:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = LOOKING_FORWARD
    poses[:, 0, 3] = np.arange(frames) * metres_per_frame
    poses[:, 2, 3] = HEIGHT
    return poses


def project(world: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Pixels of `[N, J, 3]` world points in J frames."""
    camera = np.einsum("jab,njb->nja", np.linalg.inv(poses)[:, :3, :3], world - poses[:, :3, 3])
    pixel = camera @ K.T
    return pixel[..., :2] / pixel[..., 2:]


def residuals(world: np.ndarray, poses: np.ndarray, noise_px: float = 0.0) -> np.ndarray:
    pixels = project(world, poses) + np.random.default_rng(0).normal(0, noise_px, (*world.shape[:2], 2))
    return fit_static(pixels, np.ones(world.shape[:2], bool), poses, K, len(poses) // 2, GROUND).residual_px


def test_static_points_at_all_depths_pass_with_the_residual_of_their_noise() -> None:
    poses = forward_poses(13, 0.5)
    rng = np.random.default_rng(1)
    count = 400
    start = np.stack([rng.uniform(12, 80, count), rng.uniform(-9, 9, count), rng.uniform(0, 6, count)], axis=1)
    world = np.repeat(start[:, None], 13, axis=1)
    assert residuals(world, poses).max() < 1e-6
    assert np.quantile(residuals(world, poses, noise_px=0.2), 0.99) < 1.0


@pytest.mark.parametrize(("speed", "what"), [(0.5, "as fast"), (1.0, "faster"), (0.25, "slower")])
def test_a_point_that_moves_along_its_epipolar_line_at_constant_speed_fails(speed: float, what: str) -> None:
    poses = forward_poses(13, 0.5)
    world = np.repeat(np.array([[[20.0, -2.0, 0.4]]]), 13, axis=1)
    world[0, :, 0] += speed * (np.arange(13) - 6)
    pixels = project(world, poses)[0]
    epipole = K[:2, 2]
    direction = (pixels[0] - epipole) / np.linalg.norm(pixels[0] - epipole)
    off_line = np.abs((pixels - epipole) @ np.array([-direction[1], direction[0]]))
    assert off_line.max() < 1e-6, "the epipolar distance sees nothing"
    assert residuals(world, poses)[0] > 2.0, what


def test_a_crossing_point_fails_without_any_ground() -> None:
    poses = forward_poses(13, 0.5)
    world = np.repeat(np.array([[[20.0, -2.0, 1.0]]]), 13, axis=1)
    world[0, :, 1] += 0.1 * np.arange(13)
    pixels = project(world, poses)
    fit = fit_static(pixels, np.ones((1, 13), bool), poses, K, 6, None)
    assert fit.residual_px[0] > 5


def test_with_a_fixed_camera_the_residual_is_the_displacement() -> None:
    poses = forward_poses(13, 0.0)
    world = np.repeat(np.array([[[20.0, -2.0, 1.0], [20.0, 2.0, 1.0]]]).transpose(1, 0, 2), 13, axis=1)
    world[0, :, 1] += 0.02 * np.arange(13)
    residual = residuals(world, poses)
    # 0.12 m at 20 m is 3 px for the outermost, 2.5 or 3 for the second outermost frame
    assert residual[0] == pytest.approx(3.0, abs=0.6)
    assert residual[1] < 1e-9


def road_and_car(car_speed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Static fit inputs: a road, and the front of a car between 0.3 and 1.4 m over it, 24 m ahead in the middle frame."""
    poses = forward_poses(13, 0.5)
    grid = np.stack(np.meshgrid(np.arange(8, 50, 0.8), np.arange(-6, 6, 0.4), [0.0], indexing="ij"), axis=-1).reshape(-1, 3)
    front = np.stack(np.meshgrid([27.0], np.arange(1.2, 3.0, 0.15), np.arange(0.3, 1.4, 0.15), indexing="ij"), axis=-1)
    road = np.repeat(grid[:, None], 13, axis=1)
    car = np.repeat(front.reshape(-1, 1, 3), 13, axis=1)
    car[..., 0] += car_speed * (np.arange(13) - 6)
    # the car hides the road behind it
    pixels_road, pixels_car = project(road, poses)[:, 6], project(car, poses)[:, 6]
    hidden = ((pixels_road >= pixels_car.min(axis=0)) & (pixels_road <= pixels_car.max(axis=0))).all(axis=1)
    world = np.concatenate([road[~hidden], car])
    return world, poses, np.arange(len(world)) >= (~hidden).sum()


def test_an_oncoming_car_floats_over_the_road_and_a_parked_one_does_not() -> None:
    for speed, expected in ((-0.6, True), (0.0, False)):
        world, poses, is_car = road_and_car(speed)
        pixels = project(world, poses)
        fit = fit_static(pixels, np.ones(pixels.shape[:2], bool), poses, K, 6, GROUND)
        assert fit.residual_px[is_car].max() < 1.5, "the static test alone is blind to it"
        floating = floating_points(fit, pixels[:, 6].astype(np.float32), np.ones(len(world), bool), 640)
        assert floating[is_car].mean() > 0.9 if expected else floating[is_car].mean() == 0
        assert not floating[~is_car].any()


def test_pieces_at_different_ranges_are_cut_where_their_contact_jumps_and_wheels_do_not_cut() -> None:
    x = np.arange(0.0, 160.0, 2.0)
    near_then_far = np.where(x < 100, 120.0, 60.0)
    parts = cut_at_contact_jumps(x, near_then_far, GroupingConfig())
    assert set(parts[x < 92]) == {0}
    assert set(parts[x > 108]) == {1}
    wheels = np.where((x % 36) < 20, 120.0, 80.0)
    assert set(cut_at_contact_jumps(x, wheels, GroupingConfig())) == {0}


def test_contraction_lets_many_separations_outvote_one_merger() -> None:
    weights = {(0, 1): 10.0, (2, 3): 10.0, (1, 2): 3.0, (0, 2): -4.0, (1, 3): -4.0}
    clusters = contract_greedily(4, weights)
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]


def path_of(poses: np.ndarray, verdict: str, registered: bool = True) -> CameraPath:
    frames = len(poses)
    return CameraPath(
        np.arange(frames) * 0.1,
        poses,
        np.full(frames, registered),
        K,
        np.zeros(4),
        640,
        360,
        verdict,
        "given",
        0.01,
        "given",
        0.01,
        0.3,
    )


def textured(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def tripod_clip(frames: int = 20) -> Clip:
    """A textured square slides 4 px a frame over a textured background that stands still."""
    background, square = textured(360, 640, 0), textured(60, 80, 1)
    images = np.repeat(background[None], frames, axis=0)
    for frame in range(frames):
        images[frame, 150:210, 60 + 4 * frame : 140 + 4 * frame] = square
    return Clip(Video.from_array(images), np.arange(frames) * 0.1, "tripod")


GROUND_MISSING = GroundPlane(False, np.zeros(3), 0.0, 0.0, 0)


def test_a_fixed_camera_finds_the_one_thing_that_moves_under_one_name() -> None:
    clip = tripod_clip()
    path = path_of(np.tile(np.eye(4), (20, 1, 1)), "static", registered=False)
    tracks = track_points(clip)
    masks = find_moving_regions(clip, path, NO_POINTS, GROUND_MISSING, tracks)
    labels = masks.labels.array()
    assert set(np.unique(labels)) == {0, 1}
    for frame in (3, 10, 16):
        truth = np.zeros((360, 640), bool)
        truth[150:210, 60 + 4 * frame : 140 + 4 * frame] = True
        region = labels[frame] == 1
        assert (region & truth).sum() / (region | truth).sum() > 0.7


def test_point_tracks_follow_a_known_shift_to_a_tenth_of_a_pixel() -> None:
    big = textured(300, 400, 3)
    images = np.stack([big[20 : 20 + 200, 3 * frame : 3 * frame + 300] for frame in range(8)])
    tracks = track_points(Clip(Video.from_array(images), np.arange(8) * 0.1, "shift"))
    both = tracks.visible[:, :-1] & tracks.visible[:, 1:]
    steps = np.diff(tracks.xy_px, axis=1)[both]
    assert len(steps) > 1000
    assert np.median(np.linalg.norm(steps - [-3, 0], axis=1)) < 0.1


@pytest.mark.parametrize("verdict", ["failed", "textureless", "static", "moving"])
def test_nothing_to_follow_gives_empty_masks(verdict: str) -> None:
    clip = Clip(Video.from_array(np.zeros((6, 64, 96, 3), np.uint8)), np.arange(6) * 0.1, "black")
    path = path_of(np.tile(np.eye(4), (6, 1, 1)), verdict, registered=False)
    tracks = track_points(clip)
    assert tracks.xy_px.shape == (0, 6, 2)
    masks = find_moving_regions(clip, path, NO_POINTS, GROUND_MISSING, tracks)
    assert masks.labels.shape == (6, 64, 96)
    assert not masks.labels.array().any()


def test_a_drive_through_a_static_scene_has_no_moving_regions() -> None:
    poses = forward_poses(20, 0.4)
    rng = np.random.default_rng(5)
    start = np.stack([rng.uniform(15, 60, 1500), rng.uniform(-12, 12, 1500), rng.uniform(0, 5, 1500)], axis=1)
    pixels = project(np.repeat(start[:, None], 20, axis=1), poses) + rng.normal(0, 0.15, (1500, 20, 2))
    visible = ((pixels > 0) & (pixels < [640, 360])).all(axis=2)
    tracks = PointTracks(np.arange(20) * 0.1, pixels.astype(np.float32), visible, np.zeros(1500, np.int32))
    clip = Clip(Video.from_array(np.zeros((20, 360, 640, 3), np.uint8)), np.arange(20) * 0.1, "drive")
    ground = GroundPlane(True, GROUND[0], GROUND[1], 0.02, 100)
    masks = find_moving_regions(clip, path_of(poses, "moving"), NO_POINTS, ground, tracks, MovingRegionsConfig())
    assert not masks.labels.array().any()
