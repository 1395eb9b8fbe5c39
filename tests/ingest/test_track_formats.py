"""Readers of annotated tracks: one true scene in every format, against the truth that it was written from."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from track_logs import (
    CAMERA_FROM_LIDAR,
    EGO_FROM_CAMERA,
    EPOCH_NS,
    LIDAR_FROM_IMU,
    P2,
    RECTIFY,
    Scene,
    crc32c,
    instants_ns,
    make_scene,
    pose,
    scenario_bytes,
    table_rows,
    write_argoverse2,
    write_kitti,
    write_nuscenes,
    write_tfrecord,
)

from schemas.cameras import CameraPath
from schemas.errors import WorldlineError
from schemas.reports import Metrics
from schemas.tracks import Tracks
from stages.contract import load_stages, no_progress
from stages.ingest.ego_poses import poses_at
from stages.ingest.text_columns import numbers
from stages.ingest.tfrecord import masked_crc
from stages.ingest.track_source import describe_logs

SCENE_002 = Path(__file__).resolve().parents[3] / "shared" / "data" / "pandaset_002"


def read(path: Path, which: int = 0, **config: object) -> tuple[Tracks, CameraPath, Metrics]:
    log = describe_logs(path)[which]
    stage = load_stages()[log.stage]
    return stage.function(log.source, stage.config_type(**log.settings, **config), seed=0, progress=no_progress)


def figures(metrics: Metrics) -> dict[str, float]:
    return {row["name"]: row["value"] for row in metrics.figures.to_pylist()}


def column(tracks: Tracks, *names: str) -> np.ndarray:
    return np.stack([tracks.samples[name].to_numpy() for name in names], -1).squeeze(-1 if len(names) == 1 else ())


def write(kind: str, folder: Path, scene: Scene) -> Path:
    match kind:
        case "kitti":
            return write_kitti(folder, scene)
        case "argoverse2":
            return write_argoverse2(folder, scene)
        case "nuscenes":
            return write_nuscenes(folder, {"scene-0001": scene})
        case "waymo":
            return write_tfrecord(folder / "scenarios.tfrecord-00000-of-00001", [scenario_bytes(scene, "abc")])
        case "ngsim":
            lines = [f"{v},{f},5,{10**12 + 100 * f},{9 * v},{4 * f},15,6,2,us-101" for v in range(3) for f in range(5)]
            (folder / "n.csv").write_text("\n".join([NGSIM_HEADER, *lines]))
            return folder / "n.csv"
        case "csv":
            pyarrow.csv.write_csv(pa.Table.from_pylist(table_rows(scene)), folder / "tracks.csv")
            return folder / "tracks.csv"
    pq.write_table(pa.Table.from_pylist(table_rows(scene)), folder / "tracks.parquet")
    return folder / "tracks.parquet"


NGSIM_HEADER = "Vehicle_ID,Frame_ID,Total_Frames,Global_Time,Local_X,Local_Y,v_Length,v_Width,v_Class,Location"
FORMATS = ("kitti", "argoverse2", "nuscenes", "waymo", "csv", "parquet")
TILTED = ("kitti", "argoverse2", "nuscenes")  # the others tell the car's heading alone


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_scene_comes_out_of_every_format(kind: str, tmp_path: Path) -> None:
    scene = make_scene(tilt=0.05 if kind in TILTED else 0.0, origin=(900.0, -300.0, 12.0))
    tracks, path, metrics = read(write(kind, tmp_path, scene))
    assert [(row["class_name"], row["samples"]) for row in tracks.objects.to_pylist()] == [
        ("vehicle" if kind == "waymo" else "car", 31),
        ("pedestrian", 26),
        ("bicycle" if kind == "nuscenes" else "cyclist", 20),
    ]
    assert np.allclose(path.times_s, scene.times_s, atol=1e-7)
    assert path.registered.all()
    # KITTI's world begins at its first camera, all others are given in a world of their own.
    shift = _kitti_camera(scene)[0, :3, 3] if kind == "kitti" else np.zeros(3)
    for track, thing in enumerate(scene.things.values(), start=1):
        mine = column(tracks, "track_id") == track
        assert (column(tracks, "frame")[mine] == thing.frames).all()
        assert np.allclose(column(tracks, "x", "y", "z")[mine] + shift, thing.bottom[thing.frames], atol=2e-6)
        assert np.allclose(column(tracks, "length", "width", "height")[mine], thing.size, atol=1e-6)
        turn = column(tracks, "yaw_rad")[mine] - thing.yaw[thing.frames]
        assert np.abs(np.arctan2(np.sin(turn), np.cos(turn))).max() < (3e-3 if kind == "kitti" else 1e-6)
    assert (tracks.origin, tracks.scale_source, tracks.gravity_source) == ("boxes", "annotations", "given")
    told = figures(metrics)
    assert told["tracks.rows"] == told["tracks.samples"] + sum(v for k, v in told.items() if k.startswith("tracks.dropped."))
    assert told["tracks.samples"] == 31 + 26 + 20


def _kitti_camera(scene: Scene) -> np.ndarray:
    rectified_from_camera = np.eye(4)
    rectified_from_camera[:3, 3] = -np.linalg.inv(P2[:, :3]) @ P2[:, 3]
    return scene.world_from_ego @ np.linalg.inv(RECTIFY @ CAMERA_FROM_LIDAR @ LIDAR_FROM_IMU) @ rectified_from_camera


@pytest.mark.parametrize("kind", FORMATS)
def test_the_path_is_that_of_the_camera_or_looks_forward_from_the_car(kind: str, tmp_path: Path) -> None:
    scene = make_scene(tilt=0.05 if kind in TILTED else 0.0)
    _, path, _ = read(write(kind, tmp_path, scene))
    if kind == "kitti":
        expected = _kitti_camera(scene)
        expected[:, :3, 3] -= expected[0, :3, 3].copy()
    elif kind in TILTED:
        expected = scene.world_from_ego @ EGO_FROM_CAMERA
    else:
        expected = scene.world_from_ego.copy()
        forward, left, up = (expected[:, :3, axis].copy() for axis in range(3))
        expected[:, :3, :3] = np.stack([-left, -up, forward], -1)
    assert np.allclose(path.world_from_camera, expected, atol=2e-6)


def test_boxes_are_seen_where_the_calibrated_camera_sees_them(tmp_path: Path) -> None:
    scene = make_scene()
    tracks, _, _ = read(write_argoverse2(tmp_path, scene))
    camera_from_world = np.linalg.inv(scene.world_from_ego[8] @ EGO_FROM_CAMERA)
    thing = scene.things[7]
    half_length, half_width, height = thing.size[0] / 2, thing.size[1] / 2, thing.size[2]
    cosine, sine = np.cos(thing.yaw[8]), np.sin(thing.yaw[8])
    pixels = []
    for along in (-half_length, half_length):
        for across in (-half_width, half_width):
            for up in (0, height):
                corner = thing.bottom[8] + [along * cosine - across * sine, along * sine + across * cosine, up]
                x, y, z, _ = camera_from_world @ np.append(corner, 1)
                pixels.append([775 + 1000 * x / z, 1024 + 1000 * y / z])
    mine = (column(tracks, "track_id") == 2) & (column(tracks, "frame") == 8)
    low, high = np.min(pixels, axis=0), np.max(pixels, axis=0)
    assert np.allclose(column(tracks, "x0_px", "y0_px", "x1_px", "y1_px")[mine][0], [*low, *high], atol=1e-6)


def test_times_are_exact_to_the_nanosecond_of_the_source(tmp_path: Path) -> None:
    scene = make_scene(step_s=0.1000000071)
    tracks, path, _ = read(write_argoverse2(tmp_path, scene))
    assert tracks.provenance is not None
    assert tracks.provenance["epoch_ns"] == EPOCH_NS
    whole = np.array([stamp - EPOCH_NS for stamp in instants_ns(scene)])
    assert (path.times_s == whole / 1e9).all()


def test_argoverse_poses_between_their_own_times_are_interpolated_and_no_further(tmp_path: Path) -> None:
    write_argoverse2(tmp_path, make_scene(frames=11), calibrated=False)
    poses = feather.read_table(tmp_path / "city_SE3_egovehicle.feather").to_pylist()
    for row in poses[1:]:
        row["timestamp_ns"] += 40_000_000  # all but the last pose come 40 ms after their sweep
    del poses[4]  # that of sweep 6, for the last pose stands first in the file
    feather.write_feather(pa.Table.from_pylist(poses), tmp_path / "city_SE3_egovehicle.feather")
    tracks, path, metrics = read(tmp_path, max_pose_gap_s=0.15)
    assert path.registered.tolist() == [False, *[True] * 5, False, False, *[True] * 3]
    told = figures(metrics)
    assert told["tracks.dropped.no_ego_pose"] == 2 + 3 + 3
    assert tracks.samples.num_rows == told["tracks.rows"] - told["tracks.dropped.no_ego_pose"]


def test_argoverse_logs_of_scenario_mining_list_the_car_itself_which_is_no_object(tmp_path: Path) -> None:
    write_argoverse2(tmp_path, make_scene(), calibrated=False)
    rows = feather.read_table(tmp_path / "annotations.feather").to_pylist()
    rows += [
        rows[0] | {"track_uuid": "ego", "category": "EGO_VEHICLE", "timestamp_ns": stamp} for stamp in instants_ns(make_scene())
    ]
    feather.write_feather(pa.Table.from_pylist(rows), tmp_path / "annotations_with_ego.feather")
    (tmp_path / "annotations.feather").unlink()
    tracks, _, metrics = read(tmp_path)
    assert tracks.objects["class_name"].to_pylist() == ["car", "pedestrian", "cyclist"]
    assert figures(metrics)["tracks.dropped.not_an_object"] == 31


def test_poses_between_two_are_halfway_in_place_and_turn() -> None:
    poses = np.stack([pose(yaw, 0, 0, place) for yaw, place in ((0.2, (0, 0, 0)), (1.0, (4, 2, 0)))])
    found, known = poses_at(np.array([10**18, 10**18 + 1000]), poses, np.array([10**18 + 250, 10**18 + 1001]), 1e6)
    assert known.tolist() == [True, False]
    assert np.allclose(found[0], pose(0.4, 0, 0, (1, 0.5, 0)), atol=1e-9)


def test_kitti_gives_its_own_boxes_in_pixels_of_our_convention_and_skips_what_is_no_object(tmp_path: Path) -> None:
    extra = ["0 -1 DontCare -1 -1 -10 219.3 188.5 245.5 218.6 -1000 -1000 -1000 -10 -1 -1 -1", "0 5 Car 0 0"]
    extra += ["99 4 Car 0 0 0 1 1 2 2 1.5 1.6 4 1 1 9 0", "1 five Car 0 0 0 1 1 2 2 1.5 1.6 4 1 1 9 0"]
    tracks, path, metrics = read(write_kitti(tmp_path, make_scene(), extra=extra))
    told = figures(metrics)
    assert [told[f"tracks.dropped.{reason}"] for reason in ("not_an_object", "no_time", "no_id")] == [1, 1, 1]
    assert told["tracks.broken_lines"] == 1
    assert (column(tracks, "x0_px", "y0_px", "x1_px", "y1_px") == [100.5, 120.5, 180.5, 200.5]).all()
    assert np.allclose(path.intrinsics, [[721.5, 0, 610.1], [0, 721.5, 173.4], [0, 0, 1]])
    assert tracks.provenance is not None
    assert tracks.provenance["time_source"] == "10 frames per second"


def test_kitti_takes_true_times_where_they_lie_beside_the_labels(tmp_path: Path) -> None:
    scene = make_scene(frames=12)
    write_kitti(tmp_path, scene)
    (tmp_path / "timestamps").mkdir()
    dates = [f"2011-09-26 13:02:{25 + 0.1037 * frame:012.9f}" for frame in range(12)]
    (tmp_path / "timestamps" / "0000.txt").write_text("\n".join(dates) + "\n")
    tracks, path, _ = read(tmp_path)
    assert np.allclose(path.times_s, 0.1037 * np.arange(12), atol=1e-9)
    assert tracks.provenance is not None
    assert tracks.provenance["epoch_ns"] == 1317042145 * 10**9


def test_kitti_tells_the_frame_rate_that_the_speed_of_the_car_speaks_for(tmp_path: Path) -> None:
    _, _, metrics = read(write_kitti(tmp_path, make_scene(step_s=0.1037)))
    assert figures(metrics)["tracks.frames_per_second_by_speed"] == pytest.approx(1 / 0.1037, rel=0.002)


def test_kitti_drops_what_belongs_to_a_lost_fix_and_keeps_the_rest(tmp_path: Path) -> None:
    write_kitti(tmp_path, make_scene())
    oxts = tmp_path / "oxts" / "0000.txt"
    lines = oxts.read_text().splitlines()
    lines[3], lines[4] = "nan " + lines[3].split(" ", 1)[1], "49.0 8.4"
    oxts.write_text("\n".join(lines))
    tracks, path, metrics = read(tmp_path)
    assert np.flatnonzero(~path.registered).tolist() == [3, 4]
    assert figures(metrics)["tracks.dropped.no_ego_pose"] == 4
    assert not np.isin(column(tracks, "frame"), [3, 4]).any()


def test_several_scenes_of_nuscenes_tables_are_several_logs(tmp_path: Path) -> None:
    write_nuscenes(tmp_path / "v1.0-mini", {"scene-0061": make_scene(step_s=0.5, frames=8), "scene-0103": make_scene(frames=4)})
    logs = describe_logs(tmp_path)
    assert [(log.name, log.stage) for log in logs] == [("scene-0061", "ingest.nuscenes"), ("scene-0103", "ingest.nuscenes")]
    tracks, path, _ = read(tmp_path)
    assert np.allclose(path.times_s, 0.5 * np.arange(8), atol=1e-9)
    assert (path.width, path.height) == (1600, 900)
    assert tracks.annotated_motion is not None
    moving = tracks.annotated_motion.to_pylist()
    assert {(row["track_id"], row["moving"]) for row in moving} == {(1, True), (2, False)}
    second, _, _ = read(tmp_path, which=1)
    assert set(second.annotated_objects["source_id"].to_pylist()) == {"scene-0103 03", "scene-0103 10"}


def test_nuscenes_without_a_calibrated_camera_looks_forward_from_the_car(tmp_path: Path) -> None:
    write_nuscenes(tmp_path, {"scene-0001": make_scene(frames=5)})
    for name in ("sensor", "calibrated_sensor", "attribute"):
        (tmp_path / f"{name}.json").unlink()
    tracks, path, _ = read(tmp_path)
    assert path.registered.all()
    assert path.width == 0
    assert tracks.samples["x0_px"].null_count == tracks.samples.num_rows


def test_scenarios_of_one_file_are_logs_and_the_car_itself_is_no_object(tmp_path: Path) -> None:
    scenes = [make_scene(), make_scene(frames=20, origin=(5.0, 0.0, 0.0))]
    file = write_tfrecord(
        tmp_path / "training.tfrecord-00000-of-01000", [scenario_bytes(s, n) for s, n in zip(scenes, "ab", strict=True)]
    )
    assert [log.name for log in describe_logs(file)] == ["a", "b"]
    tracks, path, metrics = read(file, which=1)
    assert len(path.times_s) == 20
    assert tracks.annotated_objects is not None
    assert tracks.annotated_objects["source_id"].to_pylist() == ["3", "7", "10"]
    assert figures(metrics)["tracks.dropped.not_an_object"] == 5  # states that are not valid


def test_records_that_are_no_scenarios_are_refused(tmp_path: Path) -> None:
    example = bytes([0x0A, 0x08]) + b"features"  # a tf.Example: its field 1 is a message, a Scenario's are timestamps
    with pytest.raises(WorldlineError, match="is no Scenario"):
        read(write_tfrecord(tmp_path / "x.tfrecord", [example]))


def test_a_log_that_cannot_be_listed_stops_no_other(tmp_path: Path) -> None:
    write_nuscenes(tmp_path / "broken", {"scene-0001": make_scene(frames=4)})
    (tmp_path / "broken" / "scene.json").write_text("[{")
    write_argoverse2(tmp_path / "log-a", make_scene(frames=4))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    logs = {log.name: log.trouble for log in describe_logs(tmp_path)}
    assert "scene.json is not readable JSON" in logs["broken"]
    assert "is not a readable table" in logs["torn"]
    assert logs["log-a"] == ""


def test_the_checksum_of_records_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4
    crc = crc32c(b"worldline")
    assert masked_crc(b"worldline") == ((((crc >> 15) | (crc << 17)) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_damaged_record_costs_its_own_scenario_and_no_other(tmp_path: Path) -> None:
    data = [scenario_bytes(make_scene(frames=6), name) for name in "abc"]
    file = write_tfrecord(tmp_path / "x.tfrecord", data)
    content = bytearray(file.read_bytes())
    content[12 + len(data[0]) + 4 + 12 + 40] ^= 1  # in the data of the second record
    file.write_bytes(content)
    logs = describe_logs(file)
    assert [(log.name, bool(log.trouble)) for log in logs] == [("a", False), ("x.tfrecord-1", True), ("c", False)]
    assert "checksum" in logs[1].trouble
    file.write_bytes(content[:-30])
    assert [(log.name, bool(log.trouble)) for log in describe_logs(file)] == [
        ("a", False),
        ("x.tfrecord-1", True),
        ("x.tfrecord-2", True),
    ]


def test_ngsim_feet_become_metres_and_a_number_used_again_another_vehicle(tmp_path: Path) -> None:
    rows = [(5, f, 1118847869000 + 100 * f, 20.0, 100 + 4.0 * f, 15.0, 6.0, 2, "us-101") for f in range(20)]
    rows += [(5, 200 + f, 1118847889000 + 100 * f, 32.0, 900 - 5.0 * f, 40.0, 8.5, 3, "us-101") for f in range(20)]
    rows += [(9, 0, 1118847869000, 0, 0, 1, 1, 2, "i-80"), (9, 1, "soon", 0, 0, 1, 1, 2, "us-101")]
    lines = [f"{v},{f},20,{t},{x},{y},{length},{width},{kind},{where}" for v, f, t, x, y, length, width, kind, where in rows]
    (tmp_path / "ngsim.csv").write_text("\n".join([NGSIM_HEADER, *lines]))
    assert [log.name for log in describe_logs(tmp_path)] == ["ngsim-i-80", "ngsim-us-101"]
    tracks, path, metrics = read(tmp_path / "ngsim.csv", which=1)
    assert tracks.annotated_objects is not None
    assert tracks.annotated_objects["source_id"].to_pylist() == ["5", "5/2"]
    assert tracks.objects["class_name"].to_pylist() == ["car", "truck"]
    first, second = (column(tracks, "track_id") == track for track in (1, 2))
    assert np.allclose(column(tracks, "x", "y")[first][0], [20 * 0.3048, (100 - 7.5) * 0.3048])
    assert np.allclose(column(tracks, "x", "y")[second][0], [32 * 0.3048, (900 + 20) * 0.3048])  # it comes the other way
    assert np.allclose(column(tracks, "yaw_rad")[first], np.pi / 2)
    assert np.allclose(column(tracks, "yaw_rad")[second], -np.pi / 2)
    speed = np.diff(column(tracks, "y")[first]) / np.diff(column(tracks, "time_s")[first])
    assert np.allclose(speed, 40 * 0.3048)
    assert not path.registered.any()
    told = figures(metrics)
    assert (told["tracks.dropped.no_time"], told["tracks.size_repaired"]) == (1, 0)


def test_ngsim_vehicles_that_stop_keep_their_heading_and_such_that_never_move_have_none(tmp_path: Path) -> None:
    gone = np.minimum(np.arange(60) * 3.0, 90.0)  # stands from frame 30 on
    lines = [f"1,{f},60,{10**12 + 100 * f},{x},0,15,6,2,a" for f, x in enumerate(gone)]
    lines += [f"2,{f},60,{10**12 + 100 * f},50,0,15,6,2,a" for f in range(60)]
    (tmp_path / "n.csv").write_text("\n".join([NGSIM_HEADER, *lines]))
    tracks, _, metrics = read(tmp_path)
    moving = column(tracks, "track_id") == 1
    assert np.allclose(column(tracks, "yaw_rad")[moving], 0.0)
    assert np.isnan(column(tracks, "yaw_rad")[~moving]).all()
    assert figures(metrics)["tracks.yaw_unknown"] == 60


def test_long_ngsim_recordings_without_a_header_are_a_log_per_minute(tmp_path: Path) -> None:
    line = "{v} {f} 1900 {t} {x} {y} 6451137.6 1873344.9 14.5 4.9 2 40.00 0.00 2 0 0 0.00 0.00"
    rows = [line.format(v=v, f=f, t=1118846980200 + 100 * f, x=6 + 12 * v, y=4 * f) for v in (1, 2) for f in range(1500)]
    (tmp_path / "trajectories-0750am-0805am.txt").write_text("\n".join(rows).replace(" ", "  "))
    (tmp_path / "readme.txt").write_text("Vehicle trajectories\n")
    logs = describe_logs(tmp_path)
    assert [log.name for log in logs] == [f"trajectories-0750am-0805am-{part:02d}" for part in range(3)]
    tracks, path, metrics = read(tmp_path, which=2)
    assert len(path.times_s) == 300
    assert figures(metrics)["tracks.rows"] == 600
    assert tracks.provenance is not None
    assert tracks.provenance["epoch_ns"] == (1118846980200 + 120_000) * 10**6
    assert sum(read(tmp_path, which=part)[0].samples.num_rows for part in range(3)) == 3000


def test_a_portal_table_of_several_sites_gives_every_row_to_one_log_or_tells_why_not(tmp_path: Path) -> None:
    rows = [
        f'5,{f},1800,"{start + 100 * f:,}",10,"{1000 + 2.0 * f:,.3f}",15,6,2,{where}'
        for where, start in (("us-101", 1118846980200), ("i-80", 1113433135300))
        for f in range(1800)
    ]
    np.random.default_rng(0).shuffle(rows)
    rows += ["5,0,1800,0,10,1000,15,6,2,i-80", "6,0,1,1118846980200,10,1000,15,6,2,", "1,2,3"]
    (tmp_path / "n.csv").write_text("\n".join([NGSIM_HEADER, *rows]))
    logs = describe_logs(tmp_path)
    assert [log.name for log in logs] == [f"n-{where}-{part:02d}" for where in ("i-80", "us-101") for part in range(3)]
    read_rows = [figures(read(tmp_path, which=which)[2]) for which in range(6)]
    assert [told["tracks.samples"] for told in read_rows] == [600] * 6
    assert [told["tracks.dropped.time_far_off"] for told in read_rows] == [1, 0, 0, 0, 0, 0]  # 1970
    assert all((told["tracks.no_location"], told["tracks.broken_lines"]) == (1, 1) for told in read_rows)
    tracks, _, _ = read(tmp_path, which=5)
    assert np.allclose(column(tracks, "y")[0], (1000 + 2.0 * 1200 - 7.5) * 0.3048)


def test_argoverse2_forecasting_scenarios_are_read_without_their_own_car(tmp_path: Path) -> None:
    rows = [
        {"track_id": name, "object_type": kind, "timestep": step, "position_x": x + v * step / 10, "position_y": -5.0,
         "heading": 0.0, "start_timestamp": EPOCH_NS}
        for name, kind, x, v in (("AV", "vehicle", 0.0, 8.0), ("17", "bus", 20.0, 6.0), ("18", "static", 9.0, 0.0))
        for step in range(110)
    ]  # fmt: skip
    rows[150]["position_x"] = None
    folder = tmp_path / "val" / "0000b0f9"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "scenario_0000b0f9.parquet")
    logs = describe_logs(tmp_path)
    assert [(log.name, log.stage) for log in logs] == [("0000b0f9", "ingest.argoverse2_motion")]
    tracks, path, metrics = read(tmp_path)
    assert [(row["class_name"], row["samples"]) for row in tracks.objects.to_pylist()] == [("bus", 109), ("unknown", 110)]
    assert np.allclose(path.times_s, np.arange(110) / 10)
    assert np.allclose(path.world_from_camera[10, :3, 3], [8.0, -5.0, 0.0])
    bus = column(tracks, "track_id") == 1
    assert np.allclose(column(tracks, "range")[bus][10], 18.0)  # 20 + 6 - 8
    told = figures(metrics)
    assert (told["tracks.dropped.not_an_object"], told["tracks.dropped.no_position"]) == (110, 1)
    assert tracks.provenance is not None
    assert tracks.provenance["epoch_ns"] == EPOCH_NS


def test_columns_of_numbers_and_columns_with_other_words_are_read_alike() -> None:
    words = ["1", "-2.5", "1e3", " 7 ", "+4", ".5", "6."]
    clean, mixed = numbers(pa.array(words)), numbers(pa.array([*words, "0x10", "nan", "inf", "", "1_000", None]))
    assert clean.tolist() == [1, -2.5, 1000, 7, 4, 0.5, 6] == mixed[:7].tolist()
    assert np.isnan(mixed[7:]).all()
    assert np.isnan(numbers(pa.array(["1", "nan", "inf"]))[1:]).all()


def test_a_table_may_hold_several_logs_and_nothing_but_positions(tmp_path: Path) -> None:
    rows = [
        {"log": log, "track_id": 1, "timestamp_ns": EPOCH_NS + 10**8 * f, "x": 1.0 * f, "y": 0.0}
        for log in "ba"
        for f in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    logs = describe_logs(tmp_path)
    assert [log.name for log in logs] == ["t-a", "t-b"]
    tracks, path, _ = read(tmp_path)
    assert tracks.samples.num_rows == 5
    assert (path.times_s == np.arange(5) * 10**8 / 1e9).all()
    assert tracks.samples["length"].null_count == 5
    assert tracks.objects["class_name"].to_pylist() == ["unknown"]


def test_formats_are_told_apart_and_folders_of_logs_are_searched(tmp_path: Path) -> None:
    write_kitti(tmp_path / "kitti" / "training", make_scene(), "0007")
    write_argoverse2(tmp_path / "av2" / "val" / "log-a", make_scene())
    write_argoverse2(tmp_path / "av2" / "val" / "log-b", make_scene())
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    found = {log.name: log.stage for log in describe_logs(tmp_path)}
    assert found == {"0007": "ingest.kitti_tracking", "log-a": "ingest.argoverse2", "log-b": "ingest.argoverse2"}
    with pytest.raises(WorldlineError, match=r"holds no tracks that Worldline knows: give a KITTI tracking folder"):
        describe_logs(tmp_path / "notes.csv")


@pytest.mark.parametrize(
    ("kind", "broken", "message"),
    [
        ("kitti", "calib/0000.txt", r"has no file calib/0000\.txt"),
        ("argoverse2", "city_SE3_egovehicle.feather", "has no city_SE3_egovehicle.feather"),
        ("nuscenes", "ego_pose.json", "has no ego_pose.json"),
    ],
)
def test_a_missing_file_is_named(kind: str, broken: str, message: str, tmp_path: Path) -> None:
    write(kind, tmp_path, make_scene(frames=4))
    (tmp_path / broken).unlink()
    with pytest.raises(WorldlineError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("kind", [*FORMATS, "ngsim"])
def test_damaged_files_give_what_is_left_or_one_sentence(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, make_scene(frames=5))
    files = sorted(file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    intact = {file: file.read_bytes() for file in files}
    rng = np.random.default_rng(0)
    read_anyway = 0
    for _ in range(120):
        file = files[rng.integers(len(files))]
        content = bytearray(intact[file])
        for _ in range(rng.integers(1, 4)):
            at, count = rng.integers(len(content)), rng.integers(1, 9)
            content[at : at + count] = rng.choice(
                [b"", b"nan", b"-", b"\xff\x00", b"1e999", b"9" * 30, b"\n", b",", rng.bytes(4)]
            )
            content = content or bytearray(b"x")
        if rng.random() < 0.2:
            content = content[: rng.integers(1, len(content) + 1)]
        file.write_bytes(content)
        with contextlib.suppress(WorldlineError):  # any other error is a defect
            log = describe_logs(path)[0]
            if not log.trouble:
                _, _, metrics = read(path)
                told = figures(metrics)
                dropped = sum(value for name, value in told.items() if name.startswith("tracks.dropped."))
                assert told["tracks.rows"] == told["tracks.samples"] + dropped
                read_anyway += 1
        file.write_bytes(intact[file])
    assert kind not in ("kitti", "nuscenes", "csv") or read_anyway > 10  # binary files seldom survive


@pytest.mark.parametrize("kind", ["argoverse2", "parquet"])
def test_impossible_values_in_intact_tables_are_counted_row_by_row(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, make_scene(frames=8))
    file = path / "annotations.feather" if kind == "argoverse2" else path
    intact = feather.read_table(file) if kind == "argoverse2" else pq.read_table(file)
    rng = np.random.default_rng(1)
    for _ in range(60):
        columns = {name: intact[name].to_pylist() for name in intact.column_names}
        for _ in range(rng.integers(1, 30)):
            name = intact.column_names[rng.integers(intact.num_columns)]
            choices = {
                "string": ["", "x", "3", "ego", None],
                "double": [np.nan, np.inf, -1e308, 1e-308, 0.0, -1.0, 1e7, None],
                "int64": [0, -1, 2**62, -(2**62)],
                "bool": [True, False, None],
            }[str(intact.schema.field(name).type)]
            columns[name][rng.integers(intact.num_rows)] = choices[rng.integers(len(choices))]
        table = pa.table({name: pa.array(values, intact.schema.field(name).type) for name, values in columns.items()})
        feather.write_feather(table, file) if kind == "argoverse2" else pq.write_table(table, file)
        tracks, _, metrics = read(path)
        told = figures(metrics)
        dropped = sum(value for name, value in told.items() if name.startswith("tracks.dropped."))
        assert told["tracks.rows"] == told["tracks.samples"] + dropped
        assert np.isfinite(column(tracks, "x", "y", "z")).all()
        assert (column(tracks, "length")[~np.isnan(column(tracks, "length"))] > 0).all()


def test_a_real_scene_gives_the_tracks_that_its_truth_holds() -> None:
    from stages.ingest.pandaset import PandasetConfig, ingest_pandaset
    from stages.ingest.source import describe_source

    if not SCENE_002.is_dir():
        pytest.skip(f"{SCENE_002} is not here: it is real data for development, not part of the project")
    tracks, path, metrics = read(SCENE_002)
    config = PandasetConfig(max_side=None)
    clip, truth = ingest_pandaset(describe_source(SCENE_002), config, seed=0, progress=no_progress)
    assert np.allclose(path.times_s, clip.times_s, atol=1e-9)
    assert np.allclose(path.world_from_camera, truth.world_from_camera)
    for name in ("track_id", "frame", "x", "y", "z", "length", "yaw_rad", "x0_px", "y1_px"):
        ours, true = column(tracks, name), truth.boxes[name].to_numpy()
        assert np.allclose(ours, true, atol=1e-6, equal_nan=True), name
    assert figures(metrics)["tracks.identity_breaks"] == 0
    assert json.dumps(tracks.provenance)
