"""From one source to a labelled, catalogued 4D dataset: what a user may rely on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import flows.pseudo_labels
from catalogs.catalog import Catalog
from catalogs.lineage import lineage_of
from catalogs.upkeep import verify
from flows.building import run_flow
from tasks.rebuild import rebuild_dataset

WORLDLINE = (sys.executable, "-m", "worldline")


def actions(outcome) -> dict[str, str]:
    return {decision["stage"]: decision["action"] for decision in outcome["decisions"]}


def test_a_build_publishes_every_artifact_and_a_report(small_street):
    outcome = small_street.outcome
    assert outcome["dataset"] == "small_street@1"
    assert set(outcome["artifacts"]) == {
        "clip", "scale", "path", "points", "ground", "masks", "scene", "tracks", "kinematics", "questions",
        "fit_metrics", "pose_metrics", "label_metrics", "lineage", "report",
    }  # fmt: skip
    assert Path(outcome["reports"][0]).read_text().startswith("<!doctype html>")


def test_the_camera_of_the_small_street_is_found_in_metres(small_street):
    figures = {row["name"]: row["value"] for row in small_street.outcome["figures"]}
    assert figures["pose.registered_share"] == 1.0
    assert figures["pose.ate_similarity_m"] < 0.05
    assert abs(figures["pose.scale_error_percent"]) < 5.0


def test_every_figure_has_a_unit(small_street):
    assert [row["name"] for row in small_street.outcome["figures"] if not row["unit"]] == []


def test_a_second_identical_build_runs_no_stage_and_makes_no_new_version(small_street):
    again = run_flow("pseudo_labels", small_street.overrides, small_street.home, quiet=True)
    assert set(actions(again).values()) == {"keep"}
    assert (again["dataset"], again["artifacts"]) == (small_street.outcome["dataset"], small_street.outcome["artifacts"])


def test_prefect_is_not_started_where_everything_is_recorded(small_street, monkeypatch):
    class Unstartable:
        fn = staticmethod(flows.pseudo_labels.pseudo_labels.fn)

        def __call__(self, *_, **__):
            raise AssertionError("a Prefect flow run was started")

    monkeypatch.setattr(flows.pseudo_labels, "pseudo_labels", Unstartable())
    again = run_flow("pseudo_labels", (*small_street.overrides, "execute=prefect"), small_street.home, quiet=True)
    assert again["dataset"] == small_street.outcome["dataset"]


def test_a_rig_is_solved_as_one_and_its_reference_is_labelled(tmp_path):
    for camera in ("left", "right"):
        (tmp_path / "car" / camera).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (32, 24), (index, 0, 0)).save(tmp_path / "car" / camera / f"{index}.png")
    (tmp_path / "car" / "rig.json").write_text('{"cameras": [{"name": "left"}, {"name": "right"}]}')
    planned = run_flow("pseudo_labels", (f"source={tmp_path / 'car'}",), tmp_path / "home", explain=True)
    stages = [decision["stage"] for decision in planned["decisions"]]
    assert stages[:2] == ["ingest.rig", "pose.rig"]
    assert not {"pose.colmap", "pose.refine"} & set(stages)
    assert {"pose.align_rig", "label.questions"} <= set(stages)


def test_a_changed_window_runs_only_what_lies_downstream_and_explain_says_so_before(small_street):
    changed = (*small_street.overrides, "label.window_seconds=1.5", "name=other_window")
    planned = run_flow("pseudo_labels", changed, small_street.home, explain=True)
    reasons = {decision["stage"]: decision["why"] for decision in planned["decisions"]}
    assert reasons["label.kinematics"] == "config.window_seconds 2.0 -> 1.5"
    ran = {
        stage
        for stage, action in actions(run_flow("pseudo_labels", changed, small_street.home, quiet=True)).items()
        if action == "run"
    }
    assert "label.kinematics" in ran
    assert ran <= {"label.kinematics", "label.questions", "label.evaluate", "export.report"}
    assert ran <= {stage for stage, action in actions(planned).items() if action != "keep"}


def test_a_question_leads_back_to_the_stages_that_made_its_frames(small_street):
    catalog = Catalog.open(small_street.home)
    question = catalog.sql("select question_id from labels where latest limit 1").column(0)[0].as_py()
    stages = set(lineage_of(catalog, question).nodes["stage"].to_pylist())
    assert {"generate.world", "pose.colmap", "pose.align", "label.object_tracks", "label.kinematics", "label.questions"} <= stages
    assert "label.evaluate" not in stages


def test_a_build_under_prefect_gives_the_same_digests(small_street, tmp_path):
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")}
    command = [
        *WORLDLINE,
        "build",
        "pseudo_labels",
        "execute=prefect",
        *small_street.overrides,
        "--quiet",
        "--home",
        str(tmp_path / "home"),
    ]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert Catalog.open(tmp_path / "home").dataset("small_street").artifacts == small_street.outcome["artifacts"]


def test_a_build_killed_in_the_reconstruction_resumes_to_the_same_bytes(small_street, tmp_path):
    command = [*WORLDLINE, "build", "pseudo_labels", *small_street.overrides, "--home", str(tmp_path)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("checkpoints/*/*")):
        assert killed.poll() is None, "the build ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    catalog = Catalog.open(tmp_path)
    assert catalog.sql("select count(*) from executions where stage = 'reconstruct.gaussian_flow'").column(0)[0].as_py() == 0
    assert catalog.datasets() == []
    assert verify(catalog) == []

    resumed = run_flow("pseudo_labels", small_street.overrides, tmp_path, quiet=True)
    assert actions(resumed)["label.object_tracks"] == "keep"
    assert resumed["artifacts"] == small_street.outcome["artifacts"]
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_dataset_is_rebuilt_from_its_manifest_bit_by_bit(small_street, tmp_path):
    rebuilt = rebuild_dataset(Catalog.open(small_street.home), "small_street@1", tmp_path, quiet=True)
    assert [(verdict.stage, verdict.cause) for verdict in rebuilt.verdicts if verdict.level != "identical"] == []
    assert rebuilt.identical_share == 1.0
    assert {item.kind for verdict in rebuilt.verdicts for item in verdict.artifacts} >= {
        "Clip",
        "CameraPath",
        "Scene4D",
        "Tracks",
        "Questions",
        "Report",
    }


@pytest.mark.slow
def test_a_real_street_gives_labels_within_the_published_error():
    scene = Path(__file__).resolve().parents[3] / "shared" / "data" / "pandaset_002"
    if not scene.is_dir():
        pytest.skip(f"{scene} is not here: it is real data for development, not part of the project")
    home = Path(os.environ.get("WORLDLINE_TEST_HOME", "/tmp/worldline-test-pandaset"))
    outcome = run_flow("pseudo_labels", (f"source={scene}", "name=pandaset"), home, quiet=True)
    figures = {row["name"]: row["value"] for row in outcome["figures"]}
    assert figures["pose.registered_share"] >= 0.95
    assert figures["pose.ate_similarity_m"] < 0.03
    assert figures["labels.distance_error_median_percent"] < 29.0
