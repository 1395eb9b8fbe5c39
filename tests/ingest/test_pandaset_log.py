"""PandaSet scenes as driving logs: a scene made here, whose street is known, and the real scene 002 where it is present."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.driving_log import DrivingLog
from stages.ingest.log_source import describe_driving_log
from stages.ingest.pandaset_log import PandasetLogConfig, ingest_pandaset_log
from worldline.cameras import invert_rigid, project, transform_points

SCENE_002 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pandaset_002"
FRAMES, STEP_M, HEADING, HEIGHT = 11, 0.6, np.deg2rad(30), 1.9
AHEAD, LEFT = np.array([np.cos(HEADING), np.sin(HEADING), 0]), np.array([-np.sin(HEADING), np.cos(HEADING), 0])
START = np.array([50.0, -20.0, 1.6])  # of the camera; the road lies at z = 1.6 - 1.9 = -0.3


def made_scene(scene: Path) -> Path:
    """A camera 1.9 m over a level road of 8 m width drives 6 m/s along 30 degrees past a parked car 10 m ahead, 3 m left."""
    camera = scene / "camera" / "front_camera"
    for folder in (camera, scene / "lidar"):
        folder.mkdir(parents=True)
    looks = Rotation.from_matrix(np.stack([-LEFT, [0, 0, -1], AHEAD], -1)).as_quat(scalar_first=True)
    places = START + STEP_M * np.arange(FRAMES)[:, None] * AHEAD
    poses = [{"position": dict(zip("xyz", p, strict=True)), "heading": dict(zip("wxyz", looks, strict=True))} for p in places]
    (camera / "poses.json").write_text(json.dumps(poses))
    (camera / "timestamps.json").write_text(json.dumps([1557539956 + index / 10 for index in range(FRAMES)]))
    (camera / "intrinsics.json").write_text(json.dumps({"fx": 1000.0, "fy": 1000.0, "cx": 959.5, "cy": 539.5}))
    for index in range(FRAMES):
        Image.fromarray(np.full((135, 240, 3), 20 * index, np.uint8)).save(camera / f"{index:02d}.jpg")
    with gzip.open(scene / "cuboids.csv.gz", "wt", newline="") as stream:
        rows = [parked_car(frame, sibling) for frame in range(FRAMES) for sibling in (False, True)]
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    forward, left = (grid.ravel() for grid in np.meshgrid(np.arange(-20, 30, 0.2), np.arange(-4, 4, 0.2)))
    road = START + forward[:, None] * AHEAD + left[:, None] * LEFT - [0, 0, HEIGHT]
    wall = START + np.linspace(0, 30, 50)[:, None] * AHEAD + 9 * LEFT
    spray = START + 4 * AHEAD + np.zeros((5, 1))
    dash = START + np.linspace(10, 13, 30)[:, None] * AHEAD + 1.5 * LEFT - [0, 0, HEIGHT]
    points = np.concatenate([road, wall, spray, dash])
    classes = np.repeat([7, 41, 3, 8], [len(road), len(wall), len(spray), len(dash)])
    for frame in (0, 4, 8):
        arrays = {"xyz_cm": np.round(points * 100).astype(np.int16), "semseg": classes.astype(np.uint8)}
        np.savez(scene / "lidar" / f"{frame:02d}.npz", **arrays, sensor=np.zeros(len(points), np.uint8))
    return scene


def parked_car(frame: int, sibling: bool) -> dict[str, object]:
    """The car as annotated by the first lidar, or again by the second; PandaSet's yaw points along the box's -x."""
    names = ("car", "copy") if not sibling else ("copy", "car")
    centre = START + 10 * AHEAD + 3 * LEFT + [0, 0, -HEIGHT + 0.8]
    row: dict[str, object] = {"uuid": names[0], "label": "Car", "yaw": HEADING - np.pi / 2, "stationary": "True"}
    row |= {"frame": frame, "attributes.object_motion": "Parked", "cuboids.sibling_id": names[1]}
    row |= {"cuboids.sensor_id": int(sibling), "dimensions.x": 1.8, "dimensions.y": 4.4, "dimensions.z": 1.6}
    return row | dict(zip(("position.x", "position.y", "position.z"), centre, strict=True))


def ingest(path: Path, **settings: object) -> DrivingLog:
    stage, source, given = describe_driving_log(path)
    assert stage == "ingest.pandaset_log"
    return ingest_pandaset_log(source, PandasetLogConfig(**{**given, **settings}), seed=0, progress=no_progress)


def test_the_camera_starts_at_the_origin_and_the_ego_stands_on_the_road_that_the_lidar_measured(tmp_path: Path) -> None:
    clip, path, _, trajectory, *_ = ingest(made_scene(tmp_path / "scene"), camera_forward_m=1.5)
    driven = STEP_M * np.arange(FRAMES)[:, None] * AHEAD
    assert np.allclose(path.world_from_camera[:, :3, 3], driven, atol=1e-9)
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], driven - 1.5 * AHEAD - [0, 0, HEIGHT], atol=0.01)
    assert np.allclose(trajectory.world_from_ego[:, :3, :3], np.stack([AHEAD, LEFT, [0, 0, 1]], -1), atol=1e-9)
    assert np.allclose(trajectory.times_s, clip.times_s)
    assert trajectory.manoeuvre == "recorded"


def test_boxes_are_bottom_centres_in_that_world_with_one_annotation_per_object(tmp_path: Path) -> None:
    _, path, tracks, _, _, _, truth = ingest(made_scene(tmp_path / "scene"))
    rows = tracks.samples.to_pylist()
    assert len(rows) == FRAMES
    assert tracks.objects["class_name"].to_pylist() == ["car"]
    place = 10 * AHEAD + 3 * LEFT - [0, 0, HEIGHT]
    assert np.allclose([[row[axis] for axis in "xyz"] for row in rows], place, atol=1e-9)
    assert np.allclose(
        [[row[name] for name in ("length", "width", "height", "yaw_rad")] for row in rows], [4.4, 1.8, 1.6, HEADING]
    )
    assert tracks.provenance is not None
    assert tracks.provenance["counts"]["tracks.siblings"] == FRAMES
    assert truth.boxes["x"].to_pylist() == tracks.samples["x"].to_pylist()
    assert not any(truth.boxes["moving"].to_pylist())
    assert np.allclose(truth.world_from_camera, path.world_from_camera)


def test_sweeps_lie_in_that_world_without_spray_at_the_time_of_their_frame(tmp_path: Path) -> None:
    _, _, _, _, _, lidar, _ = ingest(made_scene(tmp_path / "scene"), start_s=0.15)
    assert np.allclose(lidar.times_s, [0.2, 0.6])  # sweeps 4 and 8 of a clip that starts with frame 2
    left, up = lidar.xyz @ LEFT, lidar.xyz[:, 2]
    wall = left > 8
    assert np.allclose(left[wall], 9, atol=0.011)
    assert np.allclose(up[wall], 0, atol=0.011)
    assert np.allclose(up[~wall], -HEIGHT, atol=0.011)
    assert np.allclose(lidar.origins, STEP_M * np.array([[2], [6]]) * AHEAD)


def test_the_drivable_area_is_where_the_points_of_road_lie(tmp_path: Path) -> None:
    road_map = ingest(made_scene(tmp_path / "scene"))[4]
    (outline,) = road_map.lines("drivable")
    assert abs(np.abs(outline @ LEFT).max() - 4) < 0.4
    assert np.allclose(outline[:, 2], -HEIGHT, atol=0.02)
    assert np.ptp(outline @ AHEAD) == pytest.approx(50, abs=0.8)


def test_paint_on_the_road_gives_pieces_of_lane_lines(tmp_path: Path) -> None:
    """The dash of 3 m, of which a tile of 4 m may cut off too short a piece, all of it 1.5 m left of the first camera."""
    lines = ingest(made_scene(tmp_path / "scene"))[4].lines("lane_line")
    ends = np.concatenate(lines)
    assert np.allclose(ends @ LEFT, 1.5, atol=0.05)
    assert np.allclose(ends[:, 2], -HEIGHT, atol=0.02)
    assert (ends @ AHEAD).min() > 9.9
    assert (ends @ AHEAD).max() < 13.1
    assert 2.0 < sum(np.linalg.norm(end - start) for start, end in lines) <= 3.1


def test_a_scene_without_lidar_and_boxes_still_is_a_log(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene")
    for file in (*scene.glob("lidar/*"), scene / "cuboids.csv.gz"):
        file.unlink()
    _, path, tracks, trajectory, road_map, lidar, _ = ingest(scene, max_side=64)
    assert (path.width, path.height, tracks.samples.num_rows, road_map.elements.num_rows, len(lidar.xyz)) == (64, 32, 0, 0, 0)
    assert np.allclose(trajectory.world_from_ego[:, 2, 3], -2.07)


def test_a_damaged_sweep_is_named(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene")
    (scene / "lidar" / "04.npz").write_bytes(b"no archive")
    with pytest.raises(WorldlineError, match=r"scene/lidar/04\.npz must hold"):
        ingest(scene)


def test_a_folder_of_something_else_is_no_driving_log(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match="is no driving log that Worldline knows"):
        describe_driving_log(tmp_path)


@pytest.mark.skipif(not SCENE_002.is_dir(), reason="the shared PandaSet scene 002 is not on this machine")
def test_the_real_scene_stands_on_its_road_and_its_boxes_hold_lidar_points() -> None:
    clip, path, tracks, trajectory, road_map, lidar, _ = ingest(SCENE_002, max_side=256)
    assert clip.size == (256, 144)
    assert len(clip.times_s) == 80
    assert len(lidar.times_s) == 20
    assert path.world_from_camera[0, 2, 3] - trajectory.world_from_ego[0, 2, 3] == pytest.approx(2.07, abs=0.02)
    drivable = road_map.lines("drivable")
    assert len(drivable) >= 1
    assert len(road_map.lines("lane_line")) > 40
    assert tracks.objects.num_rows == 98
    # The white car ahead stands on what the lidar calls road, and the points on its back project into its box.
    frame = 20
    seen = tracks.samples.filter(pc.equal(tracks.samples["frame"], frame)).to_pylist()
    sweep = int(np.argmin(np.abs(lidar.times_s - clip.times_s[frame])))
    points = lidar.xyz[lidar.sweep == sweep]
    ahead = min(
        (row for row in seen if row["x0_px"] is not None and row["x0_px"] < 128 < row["x1_px"]), key=lambda row: row["range"]
    )
    turn = np.array([[np.cos(ahead["yaw_rad"]), np.sin(ahead["yaw_rad"])], [-np.sin(ahead["yaw_rad"]), np.cos(ahead["yaw_rad"])]])
    local = (points[:, :2] - [ahead["x"], ahead["y"]]) @ turn.T
    on_it = (np.abs(local) < [ahead["length"] / 2 + 0.1, ahead["width"] / 2 + 0.1]).all(1)
    on_it &= (points[:, 2] > ahead["z"] + 0.3) & (points[:, 2] < ahead["z"] + ahead["height"])
    in_camera = transform_points(invert_rigid(path.world_from_camera[frame]), points[on_it])
    pixels, depth = project(in_camera, path.intrinsics)
    assert on_it.sum() > 100
    assert (depth > 0).all()
    inside = (pixels > [ahead["x0_px"] - 1, ahead["y0_px"] - 1]) & (pixels < [ahead["x1_px"] + 1, ahead["y1_px"] + 1])
    assert inside.all(1).mean() > 0.98
