from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import MAP_ELEMENTS, TRAJECTORY_CHECKS, Conditions, LidarSweeps, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.generate.conditions import ConditionsConfig, generate_conditions
from worldline.cameras import WORLD_FROM_LEVEL_CAMERA, pixel_centres, pixel_rays, rigid
from worldline.driving.boxes import Boxes, view_boxes

WIDTH, HEIGHT, FRAMES = 96, 64, 12
TIMES = np.arange(FRAMES) / 10
INTRINSICS = np.array([[80.0, 0, 48], [0, 80, 32], [0, 0, 1]])
WALL_M, RED = 24.0, (200, 30, 30)
EGO = rigid(np.eye(3), np.stack([0.6 * np.arange(FRAMES), np.zeros(FRAMES), np.zeros(FRAMES)], axis=1))
EGO_FROM_CAMERA = rigid(WORLD_FROM_LEVEL_CAMERA, np.array([0.0, 0.0, 1.6]))


def _car(frame: int) -> Boxes:
    """A red car that crosses twelve metres ahead of where the ego starts, towards the left."""
    bottom = np.array([[14.0, -2.5 + 0.4 * frame, 0.0]])
    return Boxes(np.array([5], np.int32), ("car",), bottom, np.array([[3.0, 1.8, 1.5]]), np.array([np.pi / 2]))


def _texture(points: np.ndarray) -> np.ndarray:
    """Colours `[..., 3]` of the road and of the wall behind it, smooth and without a repeat."""
    x, y, z = np.moveaxis(points, -1, 0)
    waves = [np.sin(1.1 * x + 0.7 * y), np.sin(0.9 * y - 0.5 * x + 1.3 * z), np.sin(1.3 * z + 0.6 * y + 0.3 * x)]
    return 120 + 50 * np.stack(waves, axis=-1)


def _film(world_from_camera: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the true picture, by rays, and depth of the road at z = 0 with a wall across it and the car."""
    rays = pixel_rays(pixel_centres(WIDTH, HEIGHT), INTRINSICS)
    directions = rays @ world_from_camera[:3, :3].T
    centre = world_from_camera[:3, 3]
    with np.errstate(divide="ignore"):
        road = np.where(directions[..., 2] < 0, -centre[2] / directions[..., 2], np.inf)
    depth = np.minimum(road, (WALL_M - centre[0]) / directions[..., 0])
    picture = _texture(centre + depth[..., None] * directions)
    seen = view_boxes(_car(frame), world_from_camera, INTRINSICS, WIDTH, HEIGHT)
    ahead = seen.depth_m < depth
    picture[ahead] = RED
    return np.rint(picture).astype(np.uint8), np.where(ahead, seen.depth_m, depth)


def _path(left_m: float) -> CameraPath:
    poses = EGO @ EGO_FROM_CAMERA
    poses[:, 1, 3] += left_m
    return CameraPath(
        TIMES, poses, np.ones(FRAMES, bool), INTRINSICS, np.zeros(4), WIDTH, HEIGHT, "moving", "given", 0.0, "given", 0.0, 0.0
    )


def _trajectory(left_m: float) -> Trajectory:
    poses = EGO.copy()
    poses[:, 1, 3] += left_m
    name = "recorded" if left_m == 0 else "given"
    return Trajectory(name, name, TIMES, poses, 4.5, 1.8, True, "", TRAJECTORY_CHECKS.empty_table())


def _tracks() -> Tracks:
    rows = []
    for frame in range(FRAMES):
        car = _car(frame)
        values = dict(zip(("x", "y", "z"), car.bottoms[0], strict=True))
        values |= dict(zip(("length", "width", "height"), car.sizes[0], strict=True)) | {"yaw_rad": car.yaws_rad[0]}
        rows.append({"track_id": 5, "frame": frame, "time_s": TIMES[frame], "touches_border": False} | values)
    samples = make_table(TRACK_SAMPLES, {name: [row.get(name) for row in rows] for name in TRACK_SAMPLES.names})
    car = {"track_id": 5, "class_name": "car", "colour": "red", "first_s": 0.0, "last_s": TIMES[-1], "samples": FRAMES}
    return Tracks(samples, rows_to_table(TRACK_OBJECTS, [car]), "boxes", "given", 0.0, "given")


def _lidar() -> LidarSweeps:
    """Every third pixel of a camera on the roof, in every frame."""
    clouds, origins = [], []
    for frame in range(FRAMES):
        pose = EGO[frame] @ EGO_FROM_CAMERA
        pose[2, 3] += 0.3
        depth = _film(pose, frame)[1][1::3, 1::3, None]
        rays = pixel_rays(pixel_centres(WIDTH, HEIGHT), INTRINSICS)[1::3, 1::3]
        clouds.append(((depth * rays).reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32))
        origins.append(pose[:3, 3])
    sweep = np.repeat(np.arange(FRAMES, dtype=np.int32), [len(cloud) for cloud in clouds])
    return LidarSweeps(TIMES, np.array(origins), np.concatenate(clouds), sweep)


def _road_map() -> RoadMap:
    line = np.array([(-5.0, 1.75, 0.0), (24.0, 1.75, 0.0)])
    return RoadMap(rows_to_table(MAP_ELEMENTS, [{"element_id": 0, "kind": "lane_line", "first_point": 0, "points": 2}]), line)


@cache
def _conditions(left_m: float, lidar: bool = True, **config: int) -> Conditions:
    frames = np.stack([_film(pose, frame)[0] for frame, pose in enumerate(_path(0).world_from_camera)])
    return generate_conditions(
        Clip(frames=Video.from_array(frames), times_s=TIMES, name="wall"),
        _path(0.0),
        _tracks(),
        _trajectory(0.0),
        _trajectory(left_m),
        _path(left_m),
        _road_map(),
        _lidar() if lidar else LidarSweeps.none(),
        ConditionsConfig(**config),
        seed=0,
    )


def _psnr(picture: np.ndarray, true: np.ndarray) -> float:
    return -10 * np.log10(np.mean((picture.astype(float) - true) ** 2) / 255**2)


def test_the_prior_of_the_recorded_path_is_the_recording() -> None:
    conditions = _conditions(0.0)
    for frame, pose in enumerate(_path(0).world_from_camera):
        assert np.array_equal(conditions.prior.array()[frame], _film(pose, frame)[0])
    assert (conditions.known.array() == 255).all()
    assert conditions.text == "the ego vehicle drives as recorded"


def test_frames_that_are_left_out_are_told_by_the_others() -> None:
    conditions = _conditions(0.0, leave_out=0)
    frame = 6
    true = _film(_path(0).world_from_camera[frame], frame)[0]
    known = conditions.known.array()[frame] > 0
    assert not np.array_equal(conditions.prior.array()[frame], true)
    assert known.mean() > 0.9
    assert _psnr(conditions.prior.array()[frame][known], true[known]) > 30


def test_the_prior_of_a_novel_path_is_what_a_camera_there_would_film() -> None:
    conditions = _conditions(1.5)
    for frame in (2, 6, 10):
        true, depth = _film(_path(1.5).world_from_camera[frame], frame)
        known = conditions.known.array()[frame] > 0
        assert known.mean() > 0.85
        assert _psnr(conditions.prior.array()[frame][known], true[known]) > 27
        told = known & (conditions.depth_cm.array()[frame] > 0)
        found = conditions.depth_cm.array()[frame] / 100
        nearest, farthest = minimum_filter(depth, 3), maximum_filter(depth, 3)  # what the surface has within a pixel
        assert np.mean(((found > 0.98 * nearest) & (found < 1.02 * farthest))[told]) > 0.97
    assert conditions.prior_source == "lidar"
    assert np.allclose(conditions.offset_m, [0.0, 1.5])


def test_what_moves_is_where_its_box_is_at_the_time_of_the_view() -> None:
    conditions = _conditions(1.5)
    for frame in (2, 6, 10):
        seen = view_boxes(_car(frame), _path(1.5).world_from_camera[frame], INTRINSICS, WIDTH, HEIGHT).index == 0
        red = np.abs(conditions.prior.array()[frame].astype(int) - RED).max(axis=-1) < 12
        inside = seen & np.roll(seen, 2, 0) & np.roll(seen, -2, 0) & np.roll(seen, 2, 1) & np.roll(seen, -2, 1)
        outside = ~(seen | np.roll(seen, 3, 0) | np.roll(seen, -3, 0) | np.roll(seen, 3, 1) | np.roll(seen, -3, 1))
        assert red[inside].mean() > 0.95
        assert red[outside].mean() < 0.01


def test_canvases_show_the_novel_view() -> None:
    conditions = _conditions(1.5)
    frame = 6
    pose = _path(1.5).world_from_camera[frame]
    box = view_boxes(_car(frame), pose, INTRINSICS, WIDTH, HEIGHT)
    drawn = conditions.boxes.array()[frame]
    assert np.array_equal(drawn[..., 0] > 128, box.index == 0)
    assert (drawn[..., 1:] == 0).all()
    column = 48 - 80 * (1.75 - 1.5) / 5.0  # the line five metres ahead
    assert conditions.road.array()[frame, int(32 + 80 * 1.6 / 5.0), int(column), 0] > 128


def test_without_lidar_there_is_no_prior_and_the_boxes_are_all_that_is_known_of_depth() -> None:
    conditions = _conditions(1.5, lidar=False)
    assert conditions.prior_source == "none"
    assert (conditions.prior.array() == 0).all()
    assert (conditions.known.array() == 0).all()
    seen = view_boxes(_car(6), _path(1.5).world_from_camera[6], INTRINSICS, WIDTH, HEIGHT)
    assert np.array_equal(conditions.depth_cm.array()[6] > 0, seen.index == 0)


def test_canvases_have_sides_that_are_multiples_of_16() -> None:
    assert _conditions(1.5, lidar=False, max_side=50).known.shape == (FRAMES, 32, 48)


def test_a_trajectory_of_another_log_is_refused() -> None:
    trajectory = replace(_trajectory(0.0), times_s=TIMES[:5], world_from_ego=EGO[:5])
    with pytest.raises(WorldlineError, match="12 frames, the trajectory 5"):
        generate_conditions(
            Clip(frames=Video.from_array(np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)), times_s=TIMES, name="black"),
            _path(0.0), _tracks(), _trajectory(0.0), trajectory, _path(0.0), _road_map(), LidarSweeps.none(), ConditionsConfig(),
            seed=0,
        )  # fmt: skip
