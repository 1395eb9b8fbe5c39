"""From annotated tracks to labels and questions: what a user may rely on."""

import gzip
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from catalogs.catalog import Catalog
from flows.building import run_flow
from flows.command_line import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))
from track_logs import make_scene, scenario_bytes, write_argoverse2, write_kitti, write_tfrecord

PANDASET_002 = Path(__file__).resolve().parents[3] / "shared" / "data" / "pandaset_002"


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """Build the labels of one small KITTI drive; return its workspace and outcome."""
    folder = tmp_path_factory.mktemp("drive")
    write_kitti(folder / "training", make_scene(frames=51))
    return folder, run_flow("track_labels", (f"source={folder / 'training'}", "name=drive"), folder / "home", quiet=True)


def table(home: Path, sql: str) -> list[dict]:
    return Catalog.open(home).sql(sql).to_pylist()


def test_a_drive_becomes_labels_that_say_what_they_come_from(drive):
    folder, outcome = drive
    assert outcome["dataset"] == "drive@1"
    assert set(outcome["artifacts"]) == {"path", "tracks", "track_metrics", "kinematics", "questions", "lineage", "report"}
    rows = table(folder / "home", "select kind, question, answer, scale_source from labels where latest")
    assert len(rows) > 20
    assert {row["scale_source"] for row in rows} == {"annotations"}
    assert {"traveled_distance", "traveling_speed", "movement_direction"} <= {row["kind"] for row in rows}


def test_a_drive_ends_with_a_page_that_tells_its_objects_and_what_was_dropped(drive):
    folder, outcome = drive
    page = Path(outcome["reports"][0]).read_text()
    objects = table(folder / "home", "select * from objects where latest")
    assert f"{len(objects)} objects followed through 51 frames of 5.0 seconds" in page
    assert all(f"#{row['track_id']} {row['class_name']}" in page for row in objects)
    assert page.count('<svg class="chart') == len(objects) + 1  # and the car itself
    assert 'id="top-view"' in page
    assert page.count("<article>") > 5
    assert "<script" not in page


@pytest.mark.parametrize("name", ["trajectories-0750am-0805am.txt", "ngsim.csv", "ngsim.csv.gz"])
def test_a_road_seen_from_above_is_labelled_whatever_its_file_is_called_in_the_catalog(name, tmp_path):
    header = "Vehicle_ID Frame_ID Total_Frames Global_Time Local_X Local_Y Global_X Global_Y v_Length v_Width v_Class v_Vel"
    header += " v_Acc Lane_ID Preceding Following Space_Headway Time_Headway"
    lines = [
        f"{v} {f} 60 {1118846980200 + 100 * f} {12 * v} {4 * f} 0 0 14.5 4.9 2 40.00 0.00 2 0 0 0.00 0.00"
        for v in (1, 2)
        for f in range(60)
    ]
    text = "\n".join(lines) if name.endswith(".txt") else "\n".join([header, *lines]).replace(" ", ",")
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    run_flow("track_labels", (f"source={tmp_path / name}", "name=road"), tmp_path / "home", quiet=True)
    speeds = table(tmp_path / "home", "select speed_p50 from windows where latest and track_id > 0 and rejected is null")
    assert len(speeds) >= 6
    assert np.allclose([row["speed_p50"] for row in speeds], 40 * 0.3048, rtol=0.02)  # 4 feet in a tenth of a second


def test_a_build_says_in_a_line_what_became_of_every_log(drive, tmp_path, capsys):
    folder, _ = drive
    rows = (folder / "training" / "label_02" / "0000.txt").read_text().splitlines()
    copied = tmp_path / "training"
    shutil.copytree(folder / "training", copied)
    (copied / "label_02" / "0000.txt").write_text("\n".join([*rows, rows[0], "0 -1 DontCare" + " -1" * 14]) + "\n")
    run_flow("track_labels", (f"source={copied}", "name=again"), tmp_path / "home")
    told = capsys.readouterr()
    assert f"{len(rows) + 2} rows of 3 objects, dropped: 1 not an object, 1 repeated; " in told.out + told.err
    assert " questions" in told.out + told.err


def test_the_labels_hold_the_motion_that_the_drive_was_made_with(drive):
    folder, _ = drive
    rows = table(folder / "home", "select * from windows where latest and rejected is null")
    by_track = {name: [row for row in rows if row["track_id"] == name] for name in (0, 1, 2, 3)}
    for track, metres in ((0, 12.0), (1, 16.0)):  # the camera at 6 m/s and the car at 8 m/s, in windows of 2 s
        assert by_track[track]
        assert np.allclose([row["distance_p50"] for row in by_track[track]], metres, rtol=0.02)
    assert {row["state"] for row in by_track[2]} == {"static"}
    chord = 2 * 5 * np.sin(0.25)  # of half a second on a circle of 5 m at 1 rad/s
    assert by_track[3]
    assert np.allclose([row["distance_p50"] for row in by_track[3]], 4 * chord, rtol=0.02)
    assert {row["turn"] for row in by_track[3]} == {"left"}


def test_a_second_build_runs_nothing(drive):
    folder, outcome = drive
    again = run_flow("track_labels", (f"source={folder / 'training'}", "name=drive"), folder / "home", quiet=True)
    assert {decision["action"] for decision in again["decisions"]} == {"keep"}
    assert again["dataset"] == outcome["dataset"]


def test_several_logs_are_one_dataset_and_a_broken_one_is_told_and_stops_no_other(tmp_path, capsys):
    write_kitti(tmp_path / "logs" / "kitti", make_scene(), "0000")
    write_kitti(tmp_path / "logs" / "kitti", make_scene(), "0001")
    (tmp_path / "logs" / "kitti" / "oxts" / "0001.txt").unlink()
    write_argoverse2(tmp_path / "logs" / "av2" / "log-a", make_scene())
    records = [scenario_bytes(make_scene(), "one"), scenario_bytes(make_scene(), "two")]
    file = write_tfrecord(tmp_path / "logs" / "x.tfrecord", records)
    file.write_bytes(file.read_bytes()[:-9])
    status = main(
        ["build", "track_labels", f"source={tmp_path / 'logs'}", "name=logs", "--home", str(tmp_path / "home"), "--quiet"]
    )
    told = capsys.readouterr()
    assert status == 1
    assert "2 clips are missing from logs@1" in told.err
    assert "has no file oxts/0001.txt" in told.err
    assert "ends inside record 1" in told.err
    assert "tracks.dropped.no_position" in told.out
    roles = Catalog.open(tmp_path / "home").dataset("logs").artifacts
    assert {role.partition("/")[0] for role in roles} == {"0000", "log-a", "one"}


def test_every_kind_of_bad_row_in_one_table_is_told_and_the_rest_is_labelled(tmp_path):
    lines = ["track_id,time_s,x,y,z,length,width,height,yaw_rad,class_name"]
    lines += [f"ok,{f / 10:.1f},{8 * f / 10:.2f},3,0,4.5,1.9,1.6,0,car" for f in range(40)]
    lines += [f"same,{f / 10:.1f},{20 + f / 10:.2f},{y},0,0,0,0,nan,hovercraft" for f in range(40) for y in (9, 19)]
    lines += ["once,0.5,1,1,0,4,2,1,0,car", "nan,0.5,nan,1,0,4,2,1,0,car", "late,never,1,1,0,4,2,1,0,car", ",1,1,1,0,4,2,1,0,car"]
    lines += [f"back,{t},{10 * t},30,0,4,2,1.5,0,car" for t in (0.0, 0.1, 0.2, 0.3, 0.4, 0.1, 0.5, 0.6, 0.7, 0.8)] + ["a,b"]
    (tmp_path / "tracks.csv").write_text("\n".join(lines))
    outcome = run_flow("track_labels", (f"source={tmp_path / 'tracks.csv'}", "name=bad"), tmp_path / "home", quiet=True)
    told = {row["name"].removeprefix("tracks."): row["value"] for row in outcome["figures"] if row["value"]}
    assert told["dropped.duplicate_id"] == 80
    assert (told["dropped.no_position"], told["dropped.no_time"], told["dropped.no_id"]) == (1, 1, 1)
    assert (told["dropped.time_backwards"], told["broken_lines"], told["one_sample"]) == (1, 1, 1)
    windows = table(tmp_path / "home", "select distance_p50 from windows where latest and track_id = 2 and rejected is null")
    assert windows
    assert np.allclose([row["distance_p50"] for row in windows], 16.0, rtol=0.02)


def test_a_real_street_of_annotated_boxes_is_labelled(tmp_path):
    if not PANDASET_002.is_dir():
        pytest.skip(f"{PANDASET_002} is not here: it is real data for development, not part of the project")
    outcome = run_flow("track_labels", (f"source={PANDASET_002}", "name=street"), tmp_path, quiet=True)
    told = {row["name"]: row["value"] for row in outcome["figures"]}
    assert told["tracks.objects"] == 98
    assert told["tracks.identity_breaks"] == 0
    rows = table(tmp_path, "select state, avg(speed_p50) as speed from windows where latest and rejected is null group by state")
    speeds = {row["state"]: row["speed"] for row in rows}
    assert speeds["static"] < 0.1
    assert speeds["moving"] > 1
