"""`worldline audit`: a table for people with units, a document for programs, one sentence where there is no truth."""

import json
import sys
from pathlib import Path

from flows.building import run_flow
from flows.command_line import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))
from track_logs import make_scene, write_kitti


def test_an_audit_is_recorded_and_says_how_many_movers_were_found(small_street, capsys):
    arguments = ["audit", small_street.outcome["dataset"], "--home", str(small_street.home), "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    figures = {row["name"]: row["value"] for row in small_street.outcome["figures"]}
    told = {item["measure"]: item["value"] for item in document["figures"] if item["grouping"] == "all"}
    assert document["clips"] == [""]
    for audited, evaluated in (("visible", "visible"), ("found", "found"), ("labelled", "labelled")):
        assert told.get(f"movers {audited}", 0) == figures[f"labels.movers_{evaluated}"]
    assert all(item["unit"] for item in document["figures"])
    assert main(arguments[:-1]) == 0
    assert "labels of 1 clip against the truth" in capsys.readouterr().out
    recorded = "select count(*) as runs from executions where stage = 'label.audit'"
    assert main(["query", recorded, "--home", str(small_street.home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"runs": 1}]


def test_annotated_tracks_are_the_truth_and_have_none_to_be_audited_against(tmp_path, capsys):
    write_kitti(tmp_path / "training", make_scene(frames=31))
    run_flow("track_labels", (f"source={tmp_path / 'training'}", "name=drive"), tmp_path / "home", quiet=True)
    assert main(["audit", "drive", "--home", str(tmp_path / "home")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("worldline: drive@1 has no truth to audit against: ")
    assert told.count("\n") == 1
