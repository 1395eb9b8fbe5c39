"""A nuScenes scene as a driving log: key frames twice a second, images between them, sweeps and a map."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from track_logs import EGO_FROM_CAMERA, Scene, instants_ns, make_scene, write_nuscenes, wxyz

from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.driving_log import DrivingLog
from stages.ingest.log_source import describe_driving_log
from stages.ingest.nuscenes_log import NuscenesLogConfig, ingest_nuscenes_log

STEP, KEYS = 5, 7  # of the true scene's 10 Hz frames, every fifth is a key frame
WALL = np.array([[9.0, y, z] for y in np.arange(-4, 4, 0.5) for z in (-1.0, 0.5)])  # in the lidar's frame
EGO_FROM_LIDAR = np.array([1.0, 0.0, 1.8])


def every_fifth(scene: Scene) -> Scene:
    things = {
        name: type(thing)(thing.bottom[::STEP], thing.yaw[::STEP], thing.size, thing.classes,
                          np.array([frame // STEP for frame in thing.frames if frame % STEP == 0]))
        for name, thing in scene.things.items()
    }  # fmt: skip
    return Scene(scene.times_s[::STEP], scene.world_from_ego[::STEP], things)


def made_release(folder: Path, scene: Scene) -> Path:
    """Tables of key frames, to which images and ego poses at the true scene's 10 Hz are added, and a map."""
    write_nuscenes(folder / "v1.0-mini", {"scene-0001": every_fifth(scene)})
    for name in ("samples/CAM_FRONT", "sweeps/CAM_FRONT", "samples/LIDAR_TOP", "maps/expansion"):
        (folder / name).mkdir(parents=True)
    stamps = [stamp // 1000 for stamp in instants_ns(scene)]
    data, poses = [], []
    for frame, stamp in enumerate(stamps):
        key = frame % STEP == 0
        file = f"{'samples' if key else 'sweeps'}/CAM_FRONT/{frame}.jpg"
        Image.fromarray(np.full((90, 160, 3), 8 * frame, np.uint8)).save(folder / file)
        same = {"sample_token": f"scene-0001 sample {round(frame / STEP)}", "is_key_frame": key, "timestamp": stamp}
        data.append(same | {"token": f"image {frame}", "ego_pose_token": f"pose {frame}", "calibrated_sensor_token": "front",
                            "width": 1600, "height": 900, "filename": file})  # fmt: skip
        ego = scene.world_from_ego[frame]
        poses.append({"token": f"pose {frame}", "rotation": wxyz(ego[:3, :3]).tolist(), "translation": ego[:3, 3].tolist()})
        if key:
            sweep = f"samples/LIDAR_TOP/{frame}.pcd.bin"
            np.column_stack([WALL, np.zeros((len(WALL), 2))]).astype(np.float32).tofile(folder / sweep)
            data.append(same | {"token": f"sweep {frame}", "ego_pose_token": f"pose {frame}", "calibrated_sensor_token": "top",
                                "width": 0, "height": 0, "filename": sweep})  # fmt: skip
    change(folder, "sample_data", lambda rows: data)
    change(folder, "ego_pose", lambda rows: poses)
    change(folder, "scene", lambda rows: [rows[0] | {"log_token": "log"}])
    (folder / "v1.0-mini" / "log.json").write_text(json.dumps([{"token": "log", "location": "somewhere"}]))
    (folder / "maps" / "expansion" / "somewhere.json").write_text(json.dumps(made_map(scene.world_from_ego[0, :2, 3])))
    return folder


def made_map(at: np.ndarray) -> dict[str, Any]:
    """A lane, a divider along it, a crossing, a block with a hole, and a lane far away."""
    square = np.array([[-5, -5], [40, -5], [40, 5], [-5, 5]])
    shapes = {"lane": square + at, "cross": square / 10 + at, "block": square * 3 + at, "far": square + at + 500}
    nodes = {f"{name} {i}": place for name, shape in shapes.items() for i, place in enumerate(shape)}
    nodes |= {"start": at, "end": at + 30}
    polygons = [
        {"token": name, "exterior_node_tokens": [f"{name} {i}" for i in range(4)], "holes": [["x"]] if name == "block" else []}
        for name in shapes
    ]
    return {
        "node": [{"token": name, "x": float(place[0]), "y": float(place[1])} for name, place in nodes.items()],
        "polygon": polygons,
        "line": [{"token": "divider", "node_tokens": ["start", "end"]}],
        "lane": [{"polygon_token": "lane"}, {"polygon_token": "far"}],
        "road_segment": [{"polygon_token": "block"}],
        "ped_crossing": [{"polygon_token": "cross"}],
        "lane_divider": [{"line_token": "divider"}],
        "road_divider": [],
    }


def change(folder: Path, table: str, to: Any) -> None:
    path = folder / "v1.0-mini" / f"{table}.json"
    path.write_text(json.dumps(to(json.loads(path.read_text()))))


def ingest(path: Path, **settings: object) -> DrivingLog:
    stage, source, given = describe_driving_log(path)
    assert stage == "ingest.nuscenes_log"
    return ingest_nuscenes_log(source, NuscenesLogConfig(**{**given, **settings}), seed=0, progress=no_progress)


def test_images_between_key_frames_have_their_own_poses_and_boxes_on_the_line_between(tmp_path: Path) -> None:
    scene = make_scene(tilt=0.03, origin=(900.0, -300.0, 12.0))
    clip, path, tracks, trajectory, _, lidar, _ = ingest(made_release(tmp_path, scene))
    assert (clip.name, clip.size, len(clip.times_s)) == ("scene-0001", (160, 80), 31)
    assert np.allclose(clip.times_s, scene.times_s, atol=1e-6)
    expected = scene.world_from_ego @ EGO_FROM_CAMERA
    origin = expected[0, :3, 3].copy()
    expected[:, :3, 3] -= origin
    assert np.allclose(path.world_from_camera, expected, atol=1e-6)
    assert np.allclose(path.intrinsics, np.array([[126.6, 0, 81.6], [0, 126.6, 49.1 - 5], [0, 0, 1]]))
    rows = tracks.samples.to_pylist()
    car = [row for row in rows if row["track_id"] == 1]
    assert [row["frame"] for row in car] == list(range(31))
    assert np.allclose([[row[axis] for axis in "xyz"] for row in car], scene.things[3].bottom - origin, atol=1e-6)
    person = [row for row in rows if row["track_id"] == 2]  # annotated from the key frame at 0.5 s on
    assert [row["frame"] for row in person] == list(range(5, 31))
    cyclist = [row for row in rows if row["track_id"] == 3]  # turns with the angle of its circle
    assert np.allclose([row["yaw_rad"] for row in cyclist], scene.things[10].yaw[[row["frame"] for row in cyclist]], atol=1e-6)
    middle = scene.world_from_ego @ [1.38, 0, 0, 1]
    assert np.allclose(trajectory.world_from_ego[:, :3, 3], middle[:, :3] - origin, atol=1e-6)
    assert np.allclose(lidar.times_s, scene.times_s[::STEP], atol=1e-6)
    ego = scene.world_from_ego[10]
    assert np.allclose(lidar.xyz[lidar.sweep == 2], (WALL + EGO_FROM_LIDAR) @ ego[:3, :3].T + ego[:3, 3] - origin, atol=1e-4)


def test_the_map_near_the_path_is_taken_without_areas_that_have_holes(tmp_path: Path) -> None:
    scene = make_scene(origin=(900.0, -300.0, 12.0))
    road_map = ingest(made_release(tmp_path, scene))[4]
    assert road_map.facts() == {"lane_line": 1, "road_edge": 0, "crosswalk": 1, "drivable": 1}
    origin = (scene.world_from_ego[0] @ EGO_FROM_CAMERA)[:3, 3]
    start, end = road_map.lines("lane_line")[0] + origin
    assert np.allclose(start, [*scene.world_from_ego[0, :2, 3], 12.0])
    assert np.allclose(end[:2] - start[:2], 30)


def test_without_lidar_map_and_attributes_it_is_a_log_all_the_same(tmp_path: Path) -> None:
    folder = made_release(tmp_path, make_scene())
    (folder / "maps" / "expansion" / "somewhere.json").unlink()
    (folder / "v1.0-mini" / "attribute.json").unlink()
    for file in (folder / "samples" / "LIDAR_TOP").glob("*"):
        file.unlink()
    _, _, tracks, _, road_map, lidar, _ = ingest(folder, max_side=80, end_s=1.0)
    assert (road_map.elements.num_rows, len(lidar.xyz), tracks.objects.num_rows) == (0, 0, 3)


def test_a_box_that_turns_past_half_a_circle_takes_the_short_way(tmp_path: Path) -> None:
    folder = made_release(tmp_path, make_scene())

    def turned(rows: list[dict]) -> list[dict]:
        angles = {0: 3.0, 1: -3.0}  # 0.28 rad apart, across pi
        for row in rows:
            if row["instance_token"].endswith("03") and (key := int(row["sample_token"].split()[-1])) in angles:
                row["rotation"] = Rotation.from_euler("z", angles[key]).as_quat(scalar_first=True).tolist()
        return rows

    change(folder, "sample_annotation", turned)
    rows = ingest(folder)[2].samples.to_pylist()
    between = next(row["yaw_rad"] for row in rows if row["track_id"] == 1 and row["frame"] == 3)
    expected = 3.0 + 0.6 * (2 * np.pi - 6.0)
    assert np.cos(between - expected) == pytest.approx(1, abs=1e-9)


def test_missing_pictures_are_told(tmp_path: Path) -> None:
    folder = made_release(tmp_path, make_scene())
    (folder / "sweeps" / "CAM_FRONT" / "7.jpg").unlink()
    with pytest.raises(WorldlineError, match=r"has no sweeps/CAM_FRONT/7\.jpg"):
        ingest(folder)
    _, source, given = describe_driving_log(folder, camera="CAM_BACK")
    with pytest.raises(WorldlineError, match="has no images of CAM_BACK"):
        ingest_nuscenes_log(source, NuscenesLogConfig(**given), seed=0, progress=no_progress)
    with pytest.raises(WorldlineError, match="has no scene scene-9"):
        describe_driving_log(folder, part="scene-9")
