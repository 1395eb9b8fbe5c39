"""A build keeps what is recorded, runs what is not, and says why."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from catalogs.governance import review
from schemas.errors import WorldlineError
from schemas.motion import PointTracks
from stages import contract
from stages.contract import Progress, stage
from tasks import build as build_module
from tasks.build import Build, read_gate
from tasks.progress import Display

RUNS: list[str] = []


@dataclass(frozen=True)
class NumberConfig:
    value: float = 1.0
    fail: bool = False


@dataclass(frozen=True)
class RoundConfig:
    decimals: int = 0


def _points(value: float) -> PointTracks:
    return PointTracks(
        times_s=np.zeros(1),
        xy_px=np.full((1, 1, 2), value, np.float32),
        visible=np.ones((1, 1), bool),
        first_frame=np.zeros(1, np.int32),
    )


def make_number(config: NumberConfig, *, seed: int, progress: Progress) -> PointTracks:
    RUNS.append("number")
    if config.fail:
        raise WorldlineError("number: this value cannot be had")
    return _points(config.value)


def round_number(number: PointTracks, config: RoundConfig, *, seed: int, progress: Progress) -> PointTracks:
    RUNS.append("round")
    return _points(round(float(number.xy_px[0, 0, 0]), config.decimals))


def add_numbers(numbers: tuple[PointTracks, ...], config: RoundConfig, *, seed: int, progress: Progress) -> PointTracks:
    return _points(sum(float(number.xy_px[0, 0, 0]) for number in numbers))


def show_number(rounded: PointTracks, config: RoundConfig, *, seed: int, progress: Progress) -> PointTracks:
    RUNS.append("show")
    return rounded


@pytest.fixture(autouse=True)
def _toy_stages(monkeypatch):
    RUNS.clear()
    monkeypatch.setattr(contract, "STAGES", {})
    for name, function in (
        ("toy.number", make_number),
        ("toy.round", round_number),
        ("toy.show", show_number),
        ("toy.sum", add_numbers),
    ):
        stage(name, version=1)(function)
    for module in (build_module, sys.modules["tasks.edge"]):
        monkeypatch.setattr(module, "STAGES", contract.STAGES)
    monkeypatch.setattr(build_module, "load_stages", lambda: contract.STAGES)
    monkeypatch.setattr(build_module, "fingerprint_stage", lambda stage: {"stages/toy.py": "code"})


def run(home: Path, *, explain: bool = False, seed: int = 0, **settings) -> Build:
    recipe = {"name": "toy", "seed": seed, "toy": settings}
    build = Build(recipe, home, Display(quiet=True), explain=explain)
    (number,) = build.run("toy.number")
    (rounded,) = build.run("toy.round", number=number)
    build.run("toy.show", rounded=rounded)
    return build


def decisions(build: Build) -> list[tuple[str, str]]:
    return [(item.stage, item.action) for item in build.decisions]


def test_a_second_identical_build_runs_nothing(tmp_path):
    run(tmp_path)
    RUNS.clear()
    assert decisions(run(tmp_path)) == [("toy.number", "keep"), ("toy.round", "keep"), ("toy.show", "keep")]
    assert RUNS == []


def test_a_changed_setting_runs_its_stage_and_what_its_output_changes(tmp_path):
    run(tmp_path, number={"value": 1.0})
    RUNS.clear()
    run(tmp_path, number={"value": 5.0})
    assert RUNS == ["number", "round", "show"]


def test_a_stage_whose_output_stays_the_same_re_runs_nothing_downstream(tmp_path):
    run(tmp_path, number={"value": 1.0})
    RUNS.clear()
    run(tmp_path, number={"value": 1.2})
    assert RUNS == ["number", "round"]


def test_another_seed_is_another_execution(tmp_path):
    run(tmp_path)
    RUNS.clear()
    run(tmp_path, seed=1)
    assert "number" in RUNS


def test_changed_code_runs_the_stage(tmp_path, monkeypatch):
    run(tmp_path)
    RUNS.clear()
    monkeypatch.setattr(build_module, "fingerprint_stage", lambda stage: {"stages/toy.py": "other code"})
    build = run(tmp_path)
    assert RUNS == ["number", "round", "show"]
    assert build.decisions[0].why == "code changed in stages/toy.py"


def test_explaining_names_the_setting_and_runs_nothing(tmp_path):
    run(tmp_path, number={"value": 1.0})
    RUNS.clear()
    build = run(tmp_path, explain=True, number={"value": 5.0})
    assert [(item.action, item.why) for item in build.decisions] == [
        ("run", "config.value 1.0 -> 5.0"),
        ("may run", "if number comes out different"),
        ("may run", "if rounded comes out different"),
    ]
    assert RUNS == []


def test_explaining_many_inputs_of_one_kind_counts_those_that_differ(tmp_path):
    def add(*values: float, explain: bool = False) -> Build:
        build = Build({"name": "toy", "seed": 0, "toy": {}}, tmp_path, Display(quiet=True), explain=explain)
        build.run("toy.sum", numbers=[build.run("toy.number", {"value": value})[0] for value in values])
        return build

    add(1.0, 2.0, 3.0)
    assert add(1.0, 4.0, 5.0).decisions[-1].why == "2 other numbers"


def test_explaining_an_empty_catalog_says_never_run_before(tmp_path):
    assert run(tmp_path, explain=True).decisions[0].why == "never run before"


def test_a_failure_is_a_row_and_not_a_hit(tmp_path):
    for _ in range(2):
        with pytest.raises(WorldlineError, match="cannot be had"):
            run(tmp_path, number={"fail": True})
    assert RUNS == ["number", "number"]
    rows = Build({"seed": 0}, tmp_path, Display(quiet=True)).catalog.sql("select status, error_message from executions")
    assert set(rows["status"].to_pylist()) == {"error"}
    assert rows["error_message"].to_pylist()[0] == "number: this value cannot be had"


def test_a_failure_leaves_no_lock_and_no_scratch_behind(tmp_path):
    with pytest.raises(WorldlineError):
        run(tmp_path, number={"fail": True})
    assert [path.name for folder in ("locks", "scratch") for path in (tmp_path / folder).iterdir()] == []


def test_a_lost_object_is_made_again(tmp_path):
    build = run(tmp_path)
    for part in (tmp_path / "objects").rglob("*"):
        if part.is_file():
            os.chmod(part, 0o644)
            part.unlink()
    RUNS.clear()
    assert decisions(run(tmp_path))[0] == ("toy.number", "run")
    assert build.decisions[0].stage == "toy.number"


def test_an_unknown_setting_names_the_nearest(tmp_path):
    with pytest.raises(WorldlineError, match=r"toy\.number\.valeu is not a setting: did you mean value\?"):
        run(tmp_path, number={"valeu": 1.0})


def test_a_value_of_the_wrong_type_names_its_path(tmp_path):
    with pytest.raises(WorldlineError, match=r"toy\.round\.decimals='two' is not valid"):
        run(tmp_path, round={"decimals": "two"})


def test_two_processes_that_want_the_same_key_both_end_well(tmp_path):
    code = (
        "import sys, time, numpy as np; sys.path.insert(0, sys.argv[1])\n"
        "import test_build as t\n"
        "from stages import contract; from tasks import build, edge\n"
        "contract.STAGES.clear()\n"
        "slow = lambda config, *, seed, progress: (time.sleep(1), t.make_number(config, seed=seed, progress=progress))[1]\n"
        "slow.__annotations__ = t.make_number.__annotations__\n"
        "t.stage('toy.number', version=1)(slow)\n"
        "build.load_stages = lambda: None; build.fingerprint_stage = lambda stage: {'stages/toy.py': 'code'}\n"
        "from pathlib import Path\n"
        "b = t.Build({'name': 'toy', 'seed': 0, 'toy': {}}, Path(sys.argv[2]), t.Display(quiet=True))\n"
        "print(b.run('toy.number')[0].digest, len(t.RUNS))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(int(count) for _, count in outputs) == [0, 1]


def test_a_clip_that_fails_is_told_and_does_not_stop_the_others(tmp_path):
    recipe = {"name": "toy", "seed": 0, "source": ["world:a", "world:b"], "toy": {}}
    build = Build(recipe, tmp_path, Display(quiet=True))
    made = {}
    for name, _ in build.clips():
        with build.clip(name):
            made[f"{name}/number"] = build.run("toy.number", {"fail": name == "a"})[0]
    outcome = build.finish(made)
    assert outcome["failures"] == {"a": "number: this value cannot be had"}
    assert list(outcome["artifacts"]) == ["b/number"]


def test_where_every_clip_fails_nothing_is_published(tmp_path):
    build = Build(
        {"name": "toy", "seed": 0, "source": ["world:a", "world:b"], "toy": {"number": {"fail": True}}},
        tmp_path,
        Display(quiet=True),
    )
    for name, _ in build.clips():
        with build.clip(name):
            build.run("toy.number")
    with pytest.raises(WorldlineError, match="none of the 2 clips"):
        build.finish({})
    assert build.catalog.datasets() == []


def test_explain_tells_how_long_a_stage_took_before(tmp_path):
    run(tmp_path)
    recorded = {
        row["stage"]: row["seconds"]
        for row in Build({"seed": 0}, tmp_path, Display(quiet=True))
        .catalog.sql("select stage, seconds from executions")
        .to_pylist()
    }
    planned = run(tmp_path, explain=True, number={"value": 2.0})
    assert {item.stage: item.seconds for item in planned.decisions} == recorded


def test_a_build_keeps_others_from_removing_what_it_needs_until_it_ends(tmp_path):
    build = run(tmp_path)
    with build.catalog.log.lease(exclusive=True) as held:
        assert not held
    del build
    with Build({"seed": 0}, tmp_path, Display(quiet=True), explain=True).catalog.log.lease(exclusive=True) as held:
        assert held


def publish_number(home: Path, value: float, **recipe) -> dict:
    build = Build({"name": "toy", "seed": 0, "toy": {"number": {"value": value}}, **recipe}, home, Display(quiet=True))
    return build.finish({"number": build.run("toy.number")[0]})


def test_a_version_that_fails_its_gate_is_held_and_the_bare_name_stays_with_the_one_before(tmp_path):
    assert publish_number(tmp_path, 1.0)["held"] is None
    bad = publish_number(tmp_path, 2.0, gate={"min_clips": 2})
    assert "2" in bad["held"]
    catalog = Build({"seed": 0}, tmp_path, Display(quiet=True), explain=True).catalog
    assert (bad["dataset"], catalog.dataset("toy").reference, catalog.dataset("toy@2").held) == ("toy@2", "toy@1", bad["held"])


@pytest.mark.parametrize("figures", ["pose.ate_m < 3", "pose.ate_m >= much", "pose.ate_m"])
def test_a_gate_that_cannot_be_read_is_refused_by_name(figures):
    with pytest.raises(WorldlineError, match=r"gate\.figures='pose\.ate_m.*write a figure's name"):
        read_gate({"figures": figures})


def test_a_gate_reads_several_limits_of_one_figure():
    gate = read_gate({"figures": "pose.ate_m >= 0.5, pose.ate_m<=3, labels.tracks >= 1"})
    assert gate.figures == {"pose.ate_m": {"min": 0.5, "max": 3.0}, "labels.tracks": {"min": 1.0}}


def test_what_a_person_rejected_is_in_no_outcome_of_the_next_build(tmp_path):
    build = Build({"name": "toy", "seed": 0, "source": ["world:a", "world:b"], "toy": {}}, tmp_path, Display(quiet=True))
    made = {f"{name}/number": build.run("toy.number", {"value": value})[0] for name, value in (("a", 1.0), ("b", 2.0))}
    review(build.catalog, made["a/number"].digest, "reject", reason="blurred")
    assert list(build.finish(made)["artifacts"]) == ["b/number"]
