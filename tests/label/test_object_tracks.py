"""Where objects are: ground contact, its covariance, and a simulated box followed through a simulated drive."""

import numpy as np
import pytest

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.media import Video
from schemas.motion import Masks, PointTracks
from stages.label.box_smoothing import frame_similarities, scale_links, smooth_edge, steady_log_rows, unbroken_stretches
from stages.label.ground_contact import intersect_ground
from stages.label.object_appearance import colour_word
from stages.label.object_tracks import track_objects

K = np.array([[900.0, 0, 480], [0, 900.0, 270], [0, 0, 1]])
HEIGHT = 1.6
LOOKING_FORWARD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
UP = np.array([0.0, 0.0, 1.0])


def camera_at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = LOOKING_FORWARD
    pose[:3, 3] = (x, 0, HEIGHT)
    return pose


def contact_pixel(x: float, y: float) -> np.ndarray:
    return np.array([480 - 900 * y / x, 270 + 900 * HEIGHT / x])


def test_a_contact_pixel_returns_the_point_it_was_projected_from() -> None:
    contact = intersect_ground(contact_pixel(20, 3)[None], np.ones((1, 2)), camera_at(0)[None], K, UP, 0.0, 0.0)
    assert contact.xyz[0] == pytest.approx([20, 3, 0], abs=1e-9)
    assert contact.depth[0] == pytest.approx(20)


def test_the_error_along_the_ray_grows_with_range_squared() -> None:
    ranges = np.array([10.0, 20.0, 40.0])
    pixels = np.array([contact_pixel(x, 0) for x in ranges])
    contact = intersect_ground(pixels, np.full((3, 2), 0.5), np.repeat(camera_at(0)[None], 3, axis=0), K, UP, 0.0, 0.0)
    sigma = np.sqrt(contact.covariance[:, 0, 0])
    assert sigma == pytest.approx(ranges**2 * 0.5 / (900 * HEIGHT))


def test_the_covariance_agrees_with_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    count = 20000
    pixel = contact_pixel(18, -4)
    noisy = pixel + rng.normal(0, 1, (count, 2)) * [2.0, 0.7]
    poses = np.repeat(camera_at(0)[None], count, axis=0)
    offsets = rng.normal(0, 0.03, count)
    drawn = np.array(
        [
            intersect_ground(noisy[i : i + 1], np.ones((1, 2)), poses[:1], K, UP, offsets[i], 0.0).xyz[0, :2]
            for i in range(0, count, 10)
        ]
    )
    stated = intersect_ground(pixel[None], np.array([[2.0, 0.7]]), poses[:1], K, UP, 0.0, 0.03).covariance[0, :2, :2]
    assert np.cov(drawn.T) == pytest.approx(stated, rel=0.12, abs=0.004)


def test_above_the_horizon_there_is_no_contact() -> None:
    contact = intersect_ground(np.array([[480.0, 200.0]]), np.ones((1, 2)), camera_at(0)[None], K, UP, 0.0, 0.0)
    assert np.isnan(contact.xyz).all()


def test_an_edge_seen_in_few_frames_is_carried_by_the_tracked_motion() -> None:
    frames = 30
    truth = 300 * 0.98 ** np.arange(frames) + 5
    rng = np.random.default_rng(1)
    measured = truth + rng.normal(0, 2, frames)
    measured[10:25] = np.nan
    measured[5] += 60
    scale, shift = np.full(frames - 1, 0.98), np.full(frames - 1, 5 * 0.02)
    value, sigma = smooth_edge(measured, np.full(frames, 2.0), scale, shift, np.full(frames - 1, 0.1))
    assert np.abs(value - truth).max() < 2.5
    assert (sigma < 2).all()
    assert np.isnan(smooth_edge(np.full(frames, np.nan), np.full(frames, 2.0), scale, shift, np.full(frames - 1, 0.1))[0]).all()


def test_similarities_survive_a_third_of_wrong_tracks() -> None:
    rng = np.random.default_rng(2)
    before = rng.uniform(100, 200, (60, 2))
    after = 1.05 * before + [3, -2]
    after[:18] += rng.uniform(-20, 20, (18, 2))
    motion = frame_similarities(np.stack([before, after], axis=1), np.ones((60, 2), bool))
    assert motion.scale[0] == pytest.approx(1.05, abs=1e-6)
    assert motion.shift[0] == pytest.approx([3, -2], abs=1e-4)


def receding(frames: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of a flat thing 1.8 m wide that recedes from 18 to 30 m, its tracked points from the horizon, where they are seen.

    Beside the 40 points on it, 24 hang for 8 frames each on its edges without following its size.
    """
    depth = np.linspace(18, 30, frames)
    rng = np.random.default_rng(4)
    body = rng.uniform([-0.9, 0.1], [0.9, 1.4], (40, 2))
    on = 900 * np.stack([body[:, None, 0] / depth, (HEIGHT - body[:, None, 1]) / depth], axis=2)
    start = rng.integers(0, frames - 8, 24)
    aside = np.where(rng.uniform(size=24) < 0.5, -1, 1) * 900 * 1.0 / depth[start]
    dragged = np.repeat(np.stack([aside, rng.uniform(10, 70, 24)], axis=1)[:, None], frames, axis=1)
    visible = np.ones((64, frames), bool)
    visible[40:] = (np.arange(frames) >= start[:, None]) & (np.arange(frames) < start[:, None] + 8)
    return depth, np.concatenate([on, dragged]) + rng.normal(0, 0.1, (64, frames, 2)), visible


def test_scale_over_a_second_and_a_half_is_that_of_the_object_though_edges_drag_background_along() -> None:
    depth, xy_px, visible = receding()
    links = scale_links(xy_px[..., 1], visible, 0.1)
    long = links.later - links.earlier == 15
    truth = np.log(depth[links.earlier] / depth[links.later])
    assert np.abs(links.log_scale - truth)[long].max() < 0.01
    assert (np.abs(links.log_scale - truth)[long] < 3 * links.sigma[long]).all()


def test_road_that_edges_drag_along_for_a_while_does_not_slow_the_steps_from_frame_to_frame() -> None:
    depth, xy_px, visible = receding()
    since = np.arange(40) - visible.argmax(axis=1)[:, None]
    rows_px = xy_px[..., 1].copy()
    rows_px[40:] = 900 * HEIGHT / depth + 0.3 * since[40:]  # slides from the lower edge to where the road goes
    links = scale_links(rows_px, visible, 0.1)
    step = links.later - links.earlier == 1
    error = links.log_scale - np.log(depth[links.earlier] / depth[links.later])
    assert abs(error[step].mean()) < 0.0002  # all points together: 0.001, a tenth of the step


def nearing_side() -> tuple[np.ndarray, np.ndarray]:
    """Depths `[N, F]` of points on the side of a vehicle 4.4 m long that comes nearer at 45 degrees, and their rows."""
    along, up = (values.ravel() for values in np.meshgrid(np.linspace(-2.2, 2.2, 12), np.linspace(0.2, 1.4, 5)))
    travelled = np.linspace(0, 16, 40)
    depth = 25 + np.sqrt(0.5) * (along[:, None] - travelled)
    return depth, 900 * (HEIGHT - up[:, None]) / depth


def test_a_side_that_turns_to_the_camera_scales_no_more_than_its_points_come_nearer() -> None:
    depth, rows_px = nearing_side()
    links = scale_links(rows_px, np.ones(depth.shape, bool), 0.1)
    nearer = np.log(depth[:, links.earlier] / depth[:, links.later])
    assert (links.log_scale > nearer.min(axis=0)).all()
    assert (links.log_scale < nearer.max(axis=0)).all()
    middle = np.log(depth.mean(axis=0)[links.earlier] / depth.mean(axis=0)[links.later])
    assert links.log_scale == pytest.approx(middle, rel=0.05, abs=0.002)


def test_a_wandering_lower_edge_does_not_change_the_course_that_the_scale_tells() -> None:
    depth, xy_px, visible = receding()
    truth = 900 * HEIGHT / depth
    shadow = np.where(np.arange(40) < 20, 0.0, 6.0)
    measured = truth + shadow + np.random.default_rng(5).normal(0, 1, 40)
    measured[12:16] = np.nan
    value, sigma = steady_log_rows(measured, 4.0, scale_links(xy_px[..., 1], visible, 0.1))
    course = np.exp(value) / truth
    assert np.ptp(course) < 0.03  # the shadow is 10 to 12 % of the rows
    assert (np.abs(np.log(course)) < 0.09).all()
    assert (sigma < 0.03).all()


def test_an_edge_that_was_never_seen_tells_no_contact() -> None:
    _, xy_px, visible = receding()
    value, sigma = steady_log_rows(np.full(40, np.nan), 4.0, scale_links(xy_px[..., 1], visible, 0.1))
    assert np.isnan(value).all()
    assert np.isinf(sigma).all()


def test_a_region_that_goes_over_to_another_object_is_cut_there() -> None:
    _, car, _ = receding(40)
    # someone walks across in front of it: at frame 22 the car's points are lost, and the region lives on with other ones
    rng = np.random.default_rng(6)
    walker = rng.uniform([-60, 0], [-20, 110], (30, 2))[:, None] + np.arange(40)[:, None] * [4.0, 0.0]
    visible = np.zeros((70, 40), bool)
    visible[:40, :22] = visible[40:, 22:] = True
    first, second = unbroken_stretches(np.concatenate([car[:40], walker]), visible, 0.1, 1.0)
    assert (first.start, second.stop) == (0, 40)
    assert 20 <= first.stop <= second.start <= 24


def test_two_things_in_one_region_that_part_are_not_followed_any_longer() -> None:
    together = np.random.default_rng(7).uniform(0, 80, (40, 2))
    moved = np.repeat(together[:, None], 40, axis=1)
    moved[:22, 20:, 0] += 6.0 * np.arange(20)
    moved[22:, 20:, 0] -= 6.0 * np.arange(20)
    stretches = unbroken_stretches(moved, np.ones((40, 40), bool), 0.1, 1.0)
    assert stretches[0].start == 0
    assert max(stretch.stop for stretch in stretches if stretch.start < 15) <= 24


def test_what_bends_a_little_or_has_few_points_is_not_cut() -> None:
    rng = np.random.default_rng(8)
    body = rng.uniform([0, 0], [20, 70], (30, 2))[:, None] + np.arange(40)[:, None] * [2.0, 0.0]
    swing = np.where(rng.uniform(size=30) < 0.4, 1.0, 0.0)[:, None] * 5 * np.sin(np.arange(40) / 3 + rng.uniform(0, 6, (30, 1)))
    walker = body + np.stack([swing, 0 * swing], axis=2)
    assert unbroken_stretches(walker, np.ones((30, 40), bool), 0.1, 1.0) == [slice(0, 40)]
    jumping = rng.uniform(0, 80, (5, 40, 2))
    assert unbroken_stretches(jumping, np.ones((5, 40), bool), 0.1, 1.0) == [slice(0, 40)]


def drive(frames: int = 30) -> tuple[Clip, CameraPath, PointTracks, Masks, np.ndarray]:
    """A camera at 6 m/s follows the rear of a 1.8 x 1.5 m box at 9 m/s that starts 15 m ahead and 1 m to the left."""
    times = np.arange(frames) * 0.1
    poses = np.stack([camera_at(6 * time) for time in times])
    rear_x = 15 + 9 * times
    rng = np.random.default_rng(3)
    body = np.stack([rng.uniform(0.1, 1.9, 80) - 1.0 + 1.0, rng.uniform(0.05, 1.45, 80)], axis=1)  # y left, z up
    depth = rear_x - 6 * times
    pixels = np.stack(
        [480 - 900 * body[:, None, 0] / depth[None], 270 + 900 * (HEIGHT - body[:, None, 1]) / depth[None]], axis=2
    ) + rng.normal(0, 0.1, (80, frames, 2))
    labels = np.zeros((frames, 270, 480), np.uint16)
    for frame in range(frames):
        left, right = 480 - 900 * 2.0 / depth[frame], 480 - 900 * 0.0 / depth[frame]
        top, bottom = 270 + 900 * (HEIGHT - 1.5) / depth[frame], 270 + 900 * HEIGHT / depth[frame]
        wobble = rng.normal(0, 1.5)
        labels[frame, int(top / 2) : round((bottom + wobble) / 2), round(left / 2) : round(right / 2)] = 1
    images = np.full((frames, 540, 960, 3), (200, 20, 20), np.uint8)
    clip = Clip(Video.from_array(images), times, "drive")
    path = CameraPath(times, poses, np.ones(frames, bool), K, np.zeros(4), 960, 540, "moving", "given", 0.01, "given", 0.01, 0.3)
    tracks = PointTracks(times, pixels.astype(np.float32), np.ones((80, frames), bool), np.zeros(80, np.int32))
    return clip, path, tracks, Masks(Video.from_array(labels), 0.5, "drawn"), rear_x


POINTS = PointCloud(
    np.zeros((0, 3)),
    np.zeros((0, 3), np.uint8),
    np.zeros(0, np.float32),
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros((0, 2), np.float32),
)
ROAD = GroundPlane(True, UP, 0.0, 0.02, 500)
NO_ROAD = GroundPlane(False, np.zeros(3), 0.0, 0.0, 0)


def test_a_simulated_car_is_recovered_in_metres_with_honest_covariance() -> None:
    clip, path, point_tracks, masks, rear_x = drive()
    tracks = track_objects(clip, path, POINTS, ROAD, point_tracks, masks)
    (car,) = tracks.objects.to_pylist()
    assert (car["class_name"], car["colour"], car["samples"]) == ("car", "red", 30)
    x, y = (np.array(tracks.samples[name].to_pylist()) for name in ("x", "y"))
    travelled = x[-1] - x[0]
    assert travelled == pytest.approx(rear_x[-1] - rear_x[0], rel=0.05)
    error = x - (rear_x + 2.25)
    sigma = np.sqrt(np.array(tracks.samples["cov_xx"].to_pylist()))
    assert (np.abs(error) < 3 * sigma).all()
    assert np.abs(y - 1.0).max() < 0.3
    assert (np.diff(sigma) > 0).mean() > 0.8
    assert tracks.samples["yaw_rad"].to_pylist()[15] == pytest.approx(0, abs=0.1)


def test_both_parts_of_a_region_that_changed_over_keep_their_own_name_and_time() -> None:
    clip, path, point_tracks, masks, _ = drive(40)
    visible = np.ones((160, 40), bool)
    visible[:80, 20:] = visible[80:, :20] = False
    twice = PointTracks(point_tracks.times_s, np.tile(point_tracks.xy_px, (2, 1, 1)), visible, np.zeros(160, np.int32))
    tracks = track_objects(clip, path, POINTS, ROAD, twice, masks)
    first, second = tracks.objects.to_pylist()
    assert (first["track_id"], second["track_id"]) == (1, 2)
    assert first["last_s"] < second["first_s"]
    assert first["samples"] + second["samples"] == 40


def test_without_ground_there_are_boxes_and_no_positions() -> None:
    clip, path, point_tracks, masks, _ = drive()
    tracks = track_objects(clip, path, POINTS, NO_ROAD, point_tracks, masks)
    assert tracks.samples.num_rows == 30
    assert tracks.samples["x"].null_count == tracks.samples["cov_xx"].null_count == tracks.samples["range"].null_count == 30
    assert tracks.samples["y1_px"].null_count == 0
    assert tracks.objects["class_name"].to_pylist() == ["unknown"]


def test_empty_masks_give_empty_tables() -> None:
    clip, path, point_tracks, masks, _ = drive(6)
    empty = Masks(Video.from_array(np.zeros(masks.labels.shape, np.uint16)), 0.5, "none")
    tracks = track_objects(clip, path, POINTS, ROAD, point_tracks, empty)
    assert tracks.samples.num_rows == tracks.objects.num_rows == 0
    assert tracks.scale_source == "given"


@pytest.mark.parametrize(
    ("rgb", "word"), [((220, 30, 30), "red"), ((30, 40, 200), "blue"), ((240, 240, 240), "white"), ((15, 15, 18), "black")]
)
def test_clear_colours_get_their_word(rgb: tuple[int, int, int], word: str) -> None:
    assert colour_word(np.array(rgb, float)) == word


@pytest.mark.parametrize("exposure", [0.35, 0.6, 1.0])
@pytest.mark.parametrize(("reflectance", "word"), [(0.8, "white"), (0.02, "black"), (0.17, "grey"), (0.28, "")])
def test_white_grey_and_black_do_not_depend_on_the_exposure(reflectance: float, word: str, exposure: float) -> None:
    body, road = (np.full(3, 255 * (exposure * value) ** (1 / 2.2)) for value in (reflectance, 0.13))
    assert colour_word(body, road) == word
