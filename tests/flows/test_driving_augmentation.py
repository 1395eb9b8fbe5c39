"""From a driving log to trajectories that nobody drove: what a user may rely on, on a street of few and small frames."""

from pathlib import Path

import pytest

from catalogs.catalog import Catalog
from flows.building import run_flow
from flows.recipes import compose_recipe
from schemas.errors import WorldlineError
from tasks.rebuild import rebuild_dataset
from tests.ingest.test_plain_log import made_folder

SMALL = (
    "name=small_drive", "ingest.world_log.street=300", "ingest.world_log.frames=12", "ingest.world_log.width=96",
    "ingest.world_log.height=64", "ingest.world_log.texture_detail=0.1", "generate.trajectory.duration_s=1.0",
    "reconstruct.cousin.steps=30", "reconstruct.cousin.gaussians=1200", "generate.street_video.steps=1",
    "trajectories=[lane_change_left:1.0,lane_change_right:30.0]",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("driving")


@pytest.fixture(scope="module")
def built(home):
    return run_flow("driving_augmentation", SMALL, home, quiet=True)


def test_a_novel_trajectory_has_everything_that_the_recorded_one_has(built):
    assert built["dataset"] == "small_drive@1"
    novel = {role.partition("/")[2] for role in built["artifacts"] if role.startswith("lane_change_left-1.0m/")}
    assert novel == {
        "trajectory", "path", "tracks", "conditions", "drawn_conditions", "generated", "clip", "depth", "kinematics",
        "questions", "obedience", "novel_metrics",
    }  # fmt: skip
    assert {"clip", "path", "tracks", "trajectory", "road_map", "lidar", "points", "scene", "cousins", "report"} <= set(
        built["artifacts"]
    )
    assert "truth" not in built["artifacts"]


def test_what_is_not_safe_is_rejected_with_the_reason_and_generates_nothing(built, home):
    roles = {role.partition("/")[2] for role in built["artifacts"] if role.startswith("lane_change_right-30.0m/")}
    assert roles == {"trajectory", "path", "tracks"}
    trajectory = Catalog.open(home).dataset("small_drive").load("lane_change_right-30.0m/trajectory")
    assert not trajectory.accepted
    assert "30.0 m were asked" in trajectory.reason


def test_every_generated_frame_is_linked_to_its_recorded_cousin(built, home):
    catalog = Catalog.open(home)
    rows = catalog.sql("SELECT trajectory, frame, recorded, generated, left_m FROM cousins ORDER BY frame").to_pylist()
    assert [row["frame"] for row in rows] == list(range(12))
    recorded, generated = (built["artifacts"][role] for role in ("clip", "lane_change_left-1.0m/generated"))
    assert {row["recorded"] for row in rows} == {recorded}
    assert {row["generated"] for row in rows} == {generated}
    assert rows[0]["left_m"] == pytest.approx(0.0, abs=0.01)
    assert rows[-1]["left_m"] == pytest.approx(1.0, abs=0.1)


def test_labels_are_those_of_the_new_path_not_of_the_old_one(built, home):
    dataset = Catalog.open(home).dataset("small_drive")
    old, new = dataset.load("tracks").samples, dataset.load("lane_change_left-1.0m/tracks").samples
    last = max(old["frame"].to_pylist())
    ranges = [
        {row["track_id"]: row["range"] for row in table.to_pylist() if row["frame"] == last and row["range"] is not None}
        for table in (old, new)
    ]
    shared = set(ranges[0]) & set(ranges[1])
    assert shared
    assert all(abs(ranges[0][track] - ranges[1][track]) < 1.1 for track in shared)  # the camera moved by a metre
    assert any(abs(ranges[0][track] - ranges[1][track]) > 0.02 for track in shared)


def test_the_same_build_again_runs_no_stage(built, home):
    again = run_flow("driving_augmentation", SMALL, home, quiet=True)
    assert {decision["action"] for decision in again["decisions"]} == {"keep"}
    assert again["dataset"] == built["dataset"]


def test_another_trajectory_keeps_the_log_and_runs_what_depends_on_it(built, home):
    planned = run_flow("driving_augmentation", (*SMALL, "trajectories=[accelerate:1.0]"), home, explain=True)
    actions = {decision["stage"]: decision["action"] for decision in planned["decisions"]}
    assert (actions["ingest.world_log"], actions["ingest.lidar_points"]) == ("keep", "keep")
    assert actions["generate.trajectory"] == "run"


def test_filmed_traffic_is_not_judged_by_a_detector_that_knows_procedural_streets_alone(home, tmp_path):
    filmed = run_flow("driving_augmentation", (*SMALL, f"source={made_folder(tmp_path / 'log')}"), home, explain=True)
    drawn = run_flow("driving_augmentation", SMALL, home, explain=True)
    asked = [{decision["stage"] for decision in plan["decisions"]} for plan in (filmed, drawn)]
    assert asked[1] - asked[0] == {"ingest.world_log", "label.obedience"}


def test_the_report_shows_what_was_told_and_made(built):
    page = Path(built["reports"][0]).read_text()
    assert page.count("<video") == 4  # recorded, told, generated, drawn
    assert "lane_change_right" in page
    assert "rejected" in page


@pytest.mark.slow
def test_an_augmented_drive_is_rebuilt_from_its_manifest(built, home, tmp_path):
    rebuilt = rebuild_dataset(Catalog.open(home), built["dataset"], tmp_path / "again", quiet=True)
    assert [(verdict.stage, verdict.cause) for verdict in rebuilt.verdicts if verdict.level != "identical"] == []


def test_a_version_without_a_world_model_is_refused_by_name(home, built):
    with pytest.raises(WorldlineError, match="small_drive@1 holds no street_video"):
        run_flow("driving_augmentation", (*SMALL, "world_model=small_drive@1", "name=other"), home, quiet=True)


def test_training_films_every_street_along_every_trajectory(tmp_path):
    planned = run_flow("train_world_model", ("streets.count=2",), tmp_path / "home", explain=True)
    stages = [decision["stage"] for decision in planned["decisions"]]
    trajectories = len(compose_recipe("train_world_model")["trajectories"])
    assert stages.count("ingest.world_log") == 2
    assert stages.count("generate.world_view") == 2 * trajectories
    assert stages[-2:] == ["generate.train_street_video", "label.train_street_detector"]
