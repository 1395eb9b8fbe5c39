import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from motions import FOCAL, HEIGHT, WIDTH, Motion, camera_path, straight, tracks_of

from schemas.cameras import CameraPath
from schemas.driving import TRAJECTORY_CHECKS, Trajectory
from schemas.tracks import Tracks
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.novel_tracks import NovelTracksConfig, see_novel_tracks

TIMES = np.arange(41) / 10
SIZE = {"length": 4.0, "width": 2.0, "height": 1.5, "yaw_rad": 0.0}


def _standing(x: float, y: float) -> Motion:
    return lambda times: straight((x, y), (0, 0))(times) - [0, 0, 1.5]


def _boxes(path: CameraPath, places: dict[int, tuple[float, float]]) -> Tracks:
    """Cars that stand at (x, y), 1.5 m under the camera."""
    motions = {
        track: (lambda times, start=start: straight(start, (0, 0))(times) - [0, 0, 1.5]) for track, start in places.items()
    }
    tracks = tracks_of(path, motions)
    samples = tracks.samples
    for name, value in SIZE.items():
        samples = samples.set_column(samples.schema.get_field_index(name), name, pa.array(np.full(samples.num_rows, value)))
    return dataclasses.replace(tracks, samples=samples)


def _see(tracks: Tracks, path: CameraPath, **config: int) -> Tracks:
    trajectory = Trajectory(
        "aside", "given", path.times_s, path.world_from_camera, 4.5, 1.8, True, "", TRAJECTORY_CHECKS.empty_table()
    )
    return see_novel_tracks(tracks, trajectory, path, NovelTracksConfig(**config), seed=0, progress=no_progress)


def _shifted(path: CameraPath, left_m: np.ndarray) -> CameraPath:
    poses = path.world_from_camera.copy()
    poses[:, 1, 3] += left_m
    return dataclasses.replace(path, world_from_camera=poses)


def _of(tracks: Tracks, track: int, frame: int) -> dict:
    (row,) = [row for row in tracks.samples.to_pylist() if (row["track_id"], row["frame"]) == (track, frame)]
    return row


def test_the_pixel_box_is_that_of_the_projected_corners() -> None:
    path = camera_path(TIMES)
    row = _of(_see(_boxes(path, {1: (22.0, 3.0)}), path), 1, 0)
    # nearest face at x = 20, farthest at 24; the box spans y 2 to 4 (to the left) and z -1.5 to 0
    assert row["x0_px"] == pytest.approx(WIDTH / 2 - FOCAL * 4 / 20)
    assert row["x1_px"] == pytest.approx(WIDTH / 2 - FOCAL * 2 / 24)
    assert row["y0_px"] == pytest.approx(HEIGHT / 2)
    assert row["y1_px"] == pytest.approx(HEIGHT / 2 + FOCAL * 1.5 / 20)
    assert row["range"] == pytest.approx(np.sqrt(22**2 + 3**2 + 1.5**2))
    assert row["visible"] == 1.0
    assert not row["touches_border"]


def test_of_a_box_across_the_border_the_share_in_view_is_told() -> None:
    path = camera_path(TIMES)
    edge = 20.0 * WIDTH / 2 / FOCAL  # y of the image's left border on the plane of the box's back
    row = _of(_see(_boxes(path, {1: (22.0, edge)}), path, width_px=960), 1, 0)
    assert row["touches_border"]
    assert row["x0_px"] == 0.0
    back = FOCAL * np.array([edge - 1, edge + 1]) / 20
    side = FOCAL * (edge - 1) / 24  # its right side ends here, still in view
    assert row["visible"] == pytest.approx((WIDTH / 2 - side) / (back[1] - side), abs=0.03)


def test_a_box_behind_a_nearer_one_is_hidden_and_seen_again_from_the_side() -> None:
    path = camera_path(TIMES)
    tracks = _boxes(path, {1: (12.0, 0.0), 2: (40.0, 0.0)})
    assert _of(_see(tracks, path), 2, 0)["visible"] == 0.0
    aside = _shifted(path, np.full(len(TIMES), 3.5))
    assert _of(_see(tracks, aside), 2, 0)["visible"] > 0.9


def test_a_box_behind_the_camera_keeps_its_place_and_has_no_pixels() -> None:
    path = camera_path(TIMES)
    row = _of(_see(_boxes(path, {1: (-12.0, 0.0)}), path), 1, 0)
    assert row["x0_px"] is None
    assert row["visible"] == 0.0
    assert row["range"] == pytest.approx(np.hypot(12.0, 1.5))
    assert row["x"] == -12.0


def test_what_is_relative_follows_the_path_that_nobody_drove() -> None:
    recorded = camera_path(TIMES, speed=8.0)
    novel = _shifted(recorded, 3.5 * TIMES / TIMES[-1])
    tracks = _boxes(recorded, {1: (45.0, 1.8)})
    states = {}
    for name, path in (("recorded", recorded), ("novel", novel)):
        seen = _see(tracks, path)
        found = estimate_kinematics(seen, path, KinematicsConfig(), seed=0, progress=no_progress).states.to_pylist()
        states[name] = [row for row in found if row["track_id"] == 1][-1]
        assert _of(seen, 1, 40)["range"] == pytest.approx(np.linalg.norm([45 - 32, 1.8 - path.world_from_camera[-1, 1, 3], 1.5]))
    assert states["recorded"]["bearing_rad"] > 0.1  # it stands on the left of the ego that stays in its lane,
    assert states["novel"]["bearing_rad"] < -0.1  # and on the right of the one that changed to the left
    assert states["recorded"]["speed_p50"] == pytest.approx(states["novel"]["speed_p50"], abs=0.1)  # it stands either way
