"""A procedural driving log says the same thing in its picture, depth, ids, boxes, map and laser points."""

import dataclasses

import cv2
import numpy as np
import pytest

from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.generate.world_view import generate_world_view
from stages.ingest.world_log import WorldLogConfig, build_world, ingest_world_log
from worldline.worlds.lidar import scan

# a bend to the right under an overcast sky, without parked rows, with a zebra crossing 27 m ahead
CONFIG = WorldLogConfig(street=381, frames=4, frames_per_second=2.0)
PARTS = ("clip", "path", "tracks", "trajectory", "road_map", "lidar", "truth")


@pytest.fixture(scope="module")
def log():
    made = ingest_world_log(config=CONFIG, seed=1, progress=no_progress)
    return dict(zip(PARTS, made, strict=True))


def project(points, pose, intrinsics):
    """Return pixels `[N, 2]` and depth `[N]`."""
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    ahead = np.maximum(local[:, 2], 1e-6)
    return (local @ intrinsics.T)[:, :2] / ahead[:, None], local[:, 2]


def surfaces(log, frame):
    """Return the world point `[H, W, 3]` that every pixel shows, as truth's depth says; NaN in the sky."""
    truth = log["truth"]
    depth = truth.depth_2mm.array()[frame] * 0.002
    rows, columns = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]] + 0.5
    rays = np.linalg.solve(truth.intrinsics, np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)).T
    pose = truth.world_from_camera[frame]
    points = (rays * np.where(depth > 0, depth, np.nan).reshape(-1, 1)) @ pose[:3, :3].T + pose[:3, 3]
    return points.reshape(*depth.shape, 3)


def seen(log, frame, points):
    """Return rows, columns of the pixels that show these points and which points nothing hides."""
    path = log["path"]
    pixels, depth = project(points, path.world_from_camera[frame], path.intrinsics)
    column, row = np.floor(pixels).astype(int).T
    inside = (depth > 2) & (column >= 0) & (column < path.width) & (row >= 0) & (row < path.height)
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    true = log["truth"].depth_2mm.array()[frame][row, column] * 0.002
    return row, column, inside & (np.abs(true - depth) < 0.03 * depth)


def beside(line, left_m):
    """Return the points of a line moved to its left."""
    along = np.gradient(line[:, :2], axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return line + left_m * np.column_stack([-along[:, 1], along[:, 0], np.zeros(len(line))])


def dense(line):
    """Return a line with a point every 10 cm."""
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.arange(0, arc[-1], 0.1)
    return np.column_stack([np.interp(wanted, arc, line[:, axis]) for axis in range(3)])


def test_lane_lines_of_the_map_lie_on_paint_that_is_brighter_than_the_road_beside(log):
    contrasts = []
    for line in map(dense, log["road_map"].lines("lane_line")):
        for frame, picture in enumerate(log["clip"].frames.array()):
            near = line[np.linalg.norm(line - log["path"].world_from_camera[frame, :3, 3], axis=1) < 18]
            if len(near) < 30:
                continue
            bright = []
            for left in (0.0, -0.7, 0.7):
                row, column, shown = seen(log, frame, beside(near, left))
                grey = picture[row, column].mean(axis=-1)[shown]
                bright.append(np.percentile(grey, 75) if len(grey) > 25 else np.nan)  # a dashed line is paint half of the time
            contrasts.append(bright[0] - max(bright[1:]))
    contrasts = np.array(contrasts)[np.isfinite(contrasts)]
    assert len(contrasts) >= 8
    assert np.median(contrasts) > 15
    assert (contrasts > 0).mean() >= 0.8  # a stretch may be worn


def test_road_edges_of_the_map_are_where_the_ground_rises_by_a_kerb(log):
    heights = {-0.3: [], 0.3: []}
    for frame in range(4):
        pose, shown_points = log["path"].world_from_camera[frame], surfaces(log, frame)
        for line in map(dense, log["road_map"].lines("road_edge")):
            right = (line - pose[:3, 3]) @ pose[:3, 0]
            line = line[(np.linalg.norm(line - pose[:3, 3], axis=1) < 14) & (right > 0)]  # the left kerb is further away
            for across in heights if len(line) > 20 else ():
                points = beside(line, -across)
                points[:, 2] = 0.13 * (across > 0)
                row, column, shown = seen(log, frame, points)
                heights[across] += shown_points[row[shown], column[shown], 2].tolist()
    assert min(len(values) for values in heights.values()) > 30
    assert np.median(heights[-0.3]) == pytest.approx(0.0, abs=0.01)
    assert np.median(heights[0.3]) == pytest.approx(0.13, abs=0.01)


def test_a_zebra_crossing_of_the_map_is_bright_inside_and_not_before_it(log):
    (outline,) = log["road_map"].lines("crosswalk")
    np.testing.assert_allclose(outline[0], outline[-1])
    pose, picture, ground = log["path"].world_from_camera[3], log["clip"].frames.array()[3].mean(axis=-1), surfaces(log, 3)
    road = (np.abs(ground[..., 2]) < 0.01) & (log["truth"].instances.array()[3] == 0)
    shown = {}
    for back_m in (0.0, 5.0):
        area = (outline - back_m * pose[:3, 2])[:, :2].astype(np.float32)
        inside = [cv2.pointPolygonTest(area, point, False) > 0 for point in ground[road][:, :2].tolist()]
        shown[back_m] = picture[road][inside]
    assert min(len(values) for values in shown.values()) > 50
    assert np.percentile(shown[0.0], 80) > np.percentile(shown[5.0], 80) + 15


def test_every_pixel_of_an_object_lies_in_its_annotated_box(log):
    samples = log["tracks"].samples.to_pylist()
    assert log["tracks"].origin == "boxes"
    checked = set()
    for frame in range(4):
        points, ids = surfaces(log, frame), log["truth"].instances.array()[frame]
        boxes = {row["track_id"]: row for row in samples if row["frame"] == frame}
        for track in set(np.unique(ids)) - {0}:
            box = boxes[track]
            offset = points[(ids == track) & np.isfinite(points[..., 0])] - [box["x"], box["y"], box["z"]]
            cos, sin = np.cos(box["yaw_rad"]), np.sin(box["yaw_rad"])
            local = np.column_stack(
                [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]]
            )
            # bags and mirrors stand out a little, and feet swing
            margin = 0.35 if log["tracks"].objects["class_name"].to_pylist()[track - 1] == "pedestrian" else 0.12
            assert (np.abs(local[:, 0]) < box["length"] / 2 + margin).all()
            assert (np.abs(local[:, 1]) < box["width"] / 2 + margin).all()
            assert (local[:, 2] > -0.05).all()
            assert (local[:, 2] < box["height"] + 0.05).all()
            rows, columns = np.nonzero(ids == track)
            assert box["x0_px"] - 1 <= columns.min()
            assert columns.max() <= box["x1_px"] + 1
            assert box["y0_px"] - 1 <= rows.min()
            assert rows.max() <= box["y1_px"] + 1
            checked.add(track)
    assert len(checked) >= 6


def test_boxes_are_given_for_everybody_in_every_frame_with_whether_they_move(log):
    tracks = log["tracks"]
    count = tracks.objects.num_rows
    assert tracks.samples.num_rows == tracks.annotated_motion.num_rows == 4 * count
    assert set(tracks.objects["class_name"].to_pylist()) <= {"car", "pedestrian", "bus"}
    rows = {(row["track_id"], row["frame"]): row for row in tracks.samples.to_pylist()}
    for row in tracks.annotated_motion.to_pylist():
        if row["frame"] < 3:
            here, there = rows[row["track_id"], row["frame"]], rows[row["track_id"], row["frame"] + 1]
            assert (np.hypot(here["x"] - there["x"], here["y"] - there["y"]) > 0.05 * 0.5) == row["moving"]


def test_laser_points_lie_on_the_surfaces_that_the_depth_shows(log):
    lidar, path = log["lidar"], log["path"]
    np.testing.assert_allclose(lidar.times_s, [0.0, 1.0])
    for sweep, frame in enumerate((0, 2)):
        points = lidar.xyz[lidar.sweep == sweep].astype(float)
        assert 5000 < len(points) < 15000
        pixels, depth = project(points, path.world_from_camera[frame], path.intrinsics)
        column, row = np.floor(pixels).astype(int).T
        inside = (depth > 2) & (column > 0) & (column < path.width - 1) & (row > 0) & (row < path.height - 1)
        column, row, depth = column[inside], row[inside], depth[inside]
        around = log["truth"].depth_2mm.array()[frame] * 0.002
        window = np.stack([around[row + down, column + right] for down in (-1, 0, 1) for right in (-1, 0, 1)])
        # a pixel spans a stretch of the road: the point lies between the depths around it
        low, high = window.min(axis=0) - 0.08, window.max(axis=0) + 0.08
        assert ((depth > low) & ((depth < high) | (window == 0).any(axis=0))).mean() > 0.97


def test_laser_points_lie_on_what_moves_too(log):
    lidar, samples = log["lidar"], log["tracks"].samples.to_pylist()
    moving = {(row["track_id"], row["frame"]) for row in log["tracks"].annotated_motion.to_pylist() if row["moving"]}
    most = 0
    for box in samples:
        if box["frame"] == 2 and (box["track_id"], 2) in moving:
            offset = lidar.xyz[lidar.sweep == 1] - [box["x"], box["y"], box["z"]]
            cos, sin = np.cos(box["yaw_rad"]), np.sin(box["yaw_rad"])
            along, across = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
            inside = (np.abs(along) < box["length"] / 2) & (np.abs(across) < box["width"] / 2) & (offset[:, 2] > 0.1)
            most = max(most, int((inside & (offset[:, 2] < box["height"])).sum()))
    assert most > 50


def test_the_lasers_distances_are_off_by_its_sigma():
    scene = build_world(CONFIG)
    exact = scan(scene, dataclasses.replace(CONFIG.lidar, sigma_m=0.0, range_m=60.0), [0.0], np.random.default_rng(0))
    noisy = scan(scene, dataclasses.replace(CONFIG.lidar, sigma_m=0.02, range_m=60.0), [0.0], np.random.default_rng(0))
    distance = [np.linalg.norm(sweep.xyz - sweep.origins[0], axis=1) for sweep in (exact, noisy)]
    error = distance[1] - distance[0]
    assert np.std(error) == pytest.approx(0.02, rel=0.05)
    assert abs(error.mean()) < 0.001
    assert exact.origins[0, 2] == pytest.approx(1.9)
    road = exact.xyz[np.abs(exact.xyz[:, 2]) < 0.05]
    assert len(road) > 1000
    assert np.percentile(np.abs(road[:, 2]), 95) < 0.003  # the rest are the lowest points of tyres and kerbs


def test_the_same_street_along_the_recorded_path_is_the_log_again(log):
    clip, truth = generate_world_view(log["path"], CONFIG, seed=1, progress=no_progress)
    np.testing.assert_array_equal(clip.frames.array(), log["clip"].frames.array())
    np.testing.assert_array_equal(truth.instances.array(), log["truth"].instances.array())
    other, _ = generate_world_view(log["path"], CONFIG, seed=2, progress=no_progress)
    difference = np.abs(other.frames.array().astype(int) - clip.frames.array())
    assert 0.3 < difference.mean() < 8  # exposure wanders by 4 %, noise is 1.5 grey levels


def test_a_path_half_a_lane_to_the_left_shows_what_the_depth_predicts(log):
    poses = log["path"].world_from_camera.copy()
    poses[:, :3, 3] -= 1.6 * poses[:, :3, 0]
    path = dataclasses.replace(log["path"], world_from_camera=poses)
    _, truth = generate_world_view(path, CONFIG, seed=1, progress=no_progress)
    points = surfaces(log, 1)
    still = (log["truth"].instances.array()[1] == 0) & (points[..., 2] < 0.02)
    pixels, depth = project(points[still], poses[1], path.intrinsics)
    column, row = np.floor(pixels).astype(int).T
    inside = (depth > 3) & (depth < 25) & (column >= 0) & (column < path.width) & (row >= 0) & (row < path.height)
    there = truth.depth_2mm.array()[1][row[inside], column[inside]] * 0.002
    assert np.median(np.abs(there / depth[inside] - 1)) < 0.02


def test_the_trajectory_is_that_of_the_car_under_the_camera(log):
    trajectory, path = log["trajectory"], log["path"]
    camera = np.linalg.inv(trajectory.world_from_ego) @ path.world_from_camera
    np.testing.assert_allclose(camera[:, :2, 3], np.tile([1.25, 0.0], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(camera[:, 2, 3], CONFIG.camera_height_m, atol=0.01)
    assert (camera[:, 0, 2] > 0.99).all()  # looks forward


def test_config_alone_decides_the_world_and_the_seed_only_the_noise():
    config = dataclasses.replace(CONFIG, frames=2, texture_detail=0.1)
    first, again, other = (ingest_world_log(config=config, seed=seed, progress=no_progress) for seed in (1, 1, 2))
    digests = [[content_digest(item) for item in made] for made in (first, again, other)]
    assert digests[0] == digests[1]
    same = {name for name, one, two in zip(PARTS, digests[0], digests[2], strict=True) if one == two}
    assert same == {"path", "tracks", "trajectory", "road_map", "truth"}


def test_named_layouts_are_logs_too():
    config = WorldLogConfig(layout="junction", street=4, frames=2, texture_detail=0.1)
    *_, road_map, lidar, truth = ingest_world_log(config=config, seed=0, progress=no_progress)
    assert len(road_map.lines("drivable")) == 2  # the street and the one that crosses
    assert len(lidar.xyz) > 5000
    assert truth.boxes.num_rows


def test_an_unknown_layout_names_the_nearest():
    with pytest.raises(WorldlineError, match="did you mean 'junction'"):
        ingest_world_log(config=WorldLogConfig(layout="juncton"), seed=0, progress=no_progress)


def test_a_path_with_a_frame_without_pose_cannot_be_filmed(log):
    path = dataclasses.replace(log["path"], registered=np.array([True, False, True, True]))
    with pytest.raises(WorldlineError, match="1 of 4 frames of the path have no pose"):
        generate_world_view(path, CONFIG, seed=0, progress=no_progress)
