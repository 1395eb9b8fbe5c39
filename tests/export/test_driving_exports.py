"""Boxes of a version go out as KITTI tracking, Argoverse 2 and nuScenes, with the numbers of the street in closed form."""

import json

import numpy as np
import pandas
import pytest
from exported_street import write
from scipy.spatial.transform import Rotation

from benchmarks.labels_exports import READERS, difference
from benchmarks.labels_street import CAMERA_HEIGHT, COUNT, TIMES_S, made_path, made_tracks, place, project, publish_street
from schemas.errors import WorldlineError

DRIVING = ("kitti-tracking", "argoverse2", "nuscenes")


@pytest.mark.slow  # installs readers that cannot share our environment
@pytest.mark.parametrize("form", READERS)
def test_the_reader_of_its_own_ecosystem_gives_back_the_numbers(street, tmp_path, tmp_path_factory, form):
    write(street, form, tmp_path / "out")
    read, allowed = READERS[form]
    assert difference(*read(tmp_path / "out", tmp_path_factory.getbasetemp())) <= allowed


def test_a_kitti_location_times_p2_is_the_pixel_that_it_stands_on(exported):
    folder = exported("kitti-tracking")
    calibration = (folder / "calib" / "0000.txt").read_text().splitlines()
    projection = np.array(next(line for line in calibration if line.startswith("P2:")).split()[1:], float).reshape(3, 4)
    lines = [line.split() for line in (folder / "label_02" / "0000.txt").read_text().splitlines()]
    assert len(lines) == 2 * COUNT
    assert {line[2] for line in lines} == {"Car", "Pedestrian"}
    for line in lines:
        numbers = np.array(line[3:], float)
        homogeneous = projection @ [*numbers[10:13], 1.0]
        left, _, right, bottom = numbers[3:7]
        assert homogeneous[:2] / homogeneous[2] == pytest.approx([(left + right) / 2, bottom], abs=0.02)
    assert len(list((folder / "image_02" / "0000").glob("*.png"))) == COUNT


def test_kitti_angles_are_about_the_camera_and_about_the_ray():
    """A car that drives the way a level camera looks turns by -pi/2; seen straight ahead its alpha is the same."""
    from worldline.label_files.kitti_tracking import _lines
    from worldline.label_files.labelled_clip import Boxes

    level = made_path().world_from_camera.copy()
    level[:, :3, :3] = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    level[:, 0, 3] = 0
    path = made_path(world_from_camera=level)
    boxes = Boxes(track_id=np.array([1, 2]), frame=np.array([0, 0]), class_name=np.array(["car", "car"], object),
                  centre=np.array([[20.0, 0, -0.85], [20, -20, -0.85]]), size=np.tile([4.2, 1.8, 1.5], (2, 1)),
                  yaw_rad=np.zeros(2), box_px=np.full((2, 4), np.nan), visible=np.array([1.0, np.nan]))  # fmt: skip
    ahead, beside = ([float(word) for word in line.split()[3:]] for line in _lines(boxes, path))
    assert (ahead[13], ahead[2]) == pytest.approx((-np.pi / 2, -np.pi / 2), abs=1e-6)
    assert (beside[13], beside[2]) == pytest.approx((-np.pi / 2, -np.pi / 2 - np.pi / 4), abs=1e-6)  # 45 degrees to the right
    assert (ahead[1], beside[1]) == (0, 3)  # seen, not known
    assert ahead[3:7] == [-1, -1, -1, -1]
    assert ahead[10:13] == pytest.approx([0, CAMERA_HEIGHT, 20])


def test_argoverse_annotations_lie_in_the_ego_frame_of_their_time(exported):
    log = exported("argoverse2") / "logs" / "free"
    annotations, poses = (pandas.read_feather(log / name) for name in ("annotations.feather", "city_SE3_egovehicle.feather"))
    assert list(annotations.columns) == ["timestamp_ns", "track_uuid", "category", "length_m", "width_m", "height_m", "qw", "qx",
                                         "qy", "qz", "tx_m", "ty_m", "tz_m", "num_interior_pts"]  # fmt: skip
    assert poses["timestamp_ns"].tolist() == np.rint(TIMES_S * 1e9).astype(int).tolist()
    both = annotations.merge(poses, on="timestamp_ns", suffixes=("", "_ego"))
    assert len(both) == 2 * COUNT
    quats = both[["qw_ego", "qx_ego", "qy_ego", "qz_ego"]].to_numpy()
    turned = Rotation.from_quat(quats, scalar_first=True).apply(both[["tx_m", "ty_m", "tz_m"]].to_numpy(copy=True))
    world = turned + both[["tx_m_ego", "ty_m_ego", "tz_m_ego"]].to_numpy()
    times = both["timestamp_ns"].to_numpy() / 1e9
    true = [place(int(track), time) + np.array([0, 0, height / 2])
            for track, time, height in zip(both["track_uuid"], times, both["height_m"], strict=True)]  # fmt: skip
    assert np.abs(world - true).max() < 1e-7


def test_nuscenes_tokens_all_point_somewhere_and_chains_go_both_ways(exported):
    root = exported("nuscenes")
    tables = {path.stem: json.loads(path.read_text()) for path in (root / "v1.0-worldline").iterdir()}
    rows = {name: {row["token"]: row for row in table} for name, table in tables.items()}
    assert all(len(rows[name]) == len(tables[name]) for name in tables)
    points = {
        "sample": {"scene_token": "scene"},
        "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
        "sample_data": {"sample_token": "sample", "ego_pose_token": "ego_pose", "calibrated_sensor_token": "calibrated_sensor"},
        "sample_annotation": {"sample_token": "sample", "instance_token": "instance", "visibility_token": "visibility"},
        "instance": {
            "category_token": "category",
            "first_annotation_token": "sample_annotation",
            "last_annotation_token": "sample_annotation",
        },
        "calibrated_sensor": {"sensor_token": "sensor"},
    }
    for table, fields in points.items():
        for row in tables[table]:
            assert all(row[field] in rows[target] for field, target in fields.items()), (table, row)
    for table in ("sample", "sample_data", "sample_annotation"):
        for row in tables[table]:
            assert not row["next"] or rows[table][row["next"]]["prev"] == row["token"]
            assert not row["prev"] or rows[table][row["prev"]]["next"] == row["token"]
    assert all((root / row["filename"]).is_file() for row in tables["sample_data"] + tables["map"])
    keys = [row["timestamp"] for row in tables["sample"]]
    assert len(keys) == 2 * 6  # half seconds of 2.85 s
    names = {token: row["name"] for token, row in rows["attribute"].items()}
    told = {tuple(names[token] for token in row["attribute_tokens"]) for row in tables["sample_annotation"]}
    assert told == {("vehicle.moving",), ("pedestrian.standing",)}


def test_a_nuscenes_box_projects_to_where_the_object_is_seen(exported):
    root = exported("nuscenes") / "v1.0-worldline"
    tables = {
        name: json.loads((root / f"{name}.json").read_text())
        for name in ("sample_annotation", "sample_data", "ego_pose", "calibrated_sensor", "instance", "category")
    }
    poses, sensor = {row["token"]: row for row in tables["ego_pose"]}, tables["calibrated_sensor"][0]
    shown = {row["sample_token"]: row for row in tables["sample_data"] if row["is_key_frame"]}
    for row in tables["sample_annotation"]:
        ego = poses[shown[row["sample_token"]]["ego_pose_token"]]
        in_ego = (
            Rotation.from_quat(ego["rotation"], scalar_first=True)
            .inv()
            .apply(np.subtract(row["translation"], ego["translation"]))
        )
        in_camera = Rotation.from_quat(sensor["rotation"], scalar_first=True).inv().apply(in_ego)
        pixel = np.array(sensor["camera_intrinsic"]) @ in_camera
        frame = int(np.abs(TIMES_S * 1e6 - ego["timestamp"]).argmin())
        true = project(np.array([row["translation"]]), made_path().world_from_camera[frame])[0]
        assert pixel[:2] / pixel[2] == pytest.approx(true, abs=1e-9)
        assert row["size"] in ([1.8, 4.2, 1.5], [0.6, 0.5, 1.75])  # width, length, height


@pytest.mark.parametrize("form", DRIVING)
def test_what_has_no_place_is_counted_by_reason(exported, form):
    dropped = json.loads((exported(form) / "dropped.json").read_text())
    assert {"what": "boxes", "reason": "no_size", "count": 2 * COUNT} in dropped
    clips = {row["clip"]: row for row in json.loads((exported(form) / "sequences.json").read_text())}
    assert set(clips) == {"free", "bound"}
    assert clips["free"]["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize("form", DRIVING)
def test_a_clip_without_metres_is_left_out_and_none_at_all_is_one_sentence(tmp_path, form):
    catalog = publish_street(tmp_path / "home", {"tracks": made_tracks(scale_source="none", scale_sigma=0.0)})
    write(catalog, form, tmp_path / "both")
    assert [row["clip"] for row in json.loads((tmp_path / "both" / "sequences.json").read_text())] == ["bound"]
    dropped = json.loads((tmp_path / "both" / "dropped.json").read_text())
    assert {"what": "boxes", "reason": "no_metric_scale", "count": 3 * COUNT} in dropped
    with pytest.raises(WorldlineError, match=r"no boxes in metres to export \(90 boxes no_metric_scale, 1 clips no_boxes"):
        write(catalog, form, tmp_path / "out", licence="commercial")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("form", DRIVING)
def test_frames_without_a_pose_have_no_boxes(tmp_path, form):
    known = np.ones(COUNT, bool)
    known[3] = False
    catalog = publish_street(tmp_path / "home", {"path": made_path(registered=known)})
    write(catalog, form, tmp_path / "out", licence="commercial")
    dropped = json.loads((tmp_path / "out" / "dropped.json").read_text())
    assert {"what": "boxes", "reason": "no_camera_pose", "count": 3} in dropped


@pytest.mark.parametrize("form", DRIVING)
def test_the_same_version_gives_the_same_bytes(street, exported, tmp_path, form):
    write(street, form, tmp_path / "again")
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (exported(form) / "SHA256SUMS").read_text()


@pytest.mark.parametrize("form", ["kitti-tracking", "argoverse2"])
def test_annotated_logs_without_any_video_go_out_too(street, exported, tmp_path, form):
    bare = publish_street(tmp_path / "home", {"clip": None})
    write(bare, form, tmp_path / "out", licence="commercial")
    write(street, form, tmp_path / "filmed", licence="commercial")
    for path in (tmp_path / "filmed").rglob("*"):
        if path.suffix in (".feather", ".txt"):
            assert (tmp_path / "out" / path.relative_to(tmp_path / "filmed")).read_bytes() == path.read_bytes()
    facts = pandas.read_parquet(tmp_path / "out" / "label_facts.parquet")
    assert len(facts) == 6
    assert facts["video"].isna().all()


def test_formats_that_need_frames_count_clips_without(tmp_path):
    bare = publish_street(tmp_path / "home", {"clip": None})
    write(bare, "videofolder", tmp_path / "both")
    assert {"what": "clips", "reason": "no_frames", "count": 1} in json.loads((tmp_path / "both" / "dropped.json").read_text())
    for form, message in (
        ("videofolder", "no questions about clips with frames"),
        ("lerobot", "no clips with frames"),
        ("nuscenes", "1 clips no_frames"),
    ):
        with pytest.raises(WorldlineError, match=message):
            write(bare, form, tmp_path / "out", licence="commercial")
    assert not list(tmp_path.glob("*out*"))
