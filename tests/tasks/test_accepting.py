"""After a refactoring, recorded results are kept if a sample of them comes out the same, and nothing is touched if not."""

import json

import pytest
from toy_stages import Toys

from flows.command_line import main
from schemas.errors import WorldlineError
from tasks.accepting import Acceptance, accept

CLIPS = {f"clip{number}.mp4": b"x" * number for number in range(1, 9)}


@pytest.fixture
def toys(tmp_path, monkeypatch) -> Toys:
    return Toys(tmp_path, monkeypatch)


def refactor(toys: Toys) -> None:
    toys.edit(lambda text: text.replace("size * SCALE", "SCALE * size"))


def accept_all(toys: Toys, share: float = 0.1) -> list[Acceptance]:
    stages = ("toy.measure", "toy.smooth", "toy.page")
    return [accept(toys.catalog, stage, share, 0, quiet=True) for stage in stages]


def test_a_sample_that_agrees_keeps_everything_so_that_nothing_runs_again(toys):
    toys.build(CLIPS)
    refactor(toys)
    toys.runs()
    found = accept(toys.catalog, "toy.measure", 0.25, 0, quiet=True)
    assert found == Acceptance("toy.measure", candidates=8, sampled=2, accepted=8, left_out=0)
    assert toys.runs() == ["measure", "measure"]
    accept_all(toys)
    toys.runs()
    build = toys.build(CLIPS)
    assert {decision.action for decision in build.decisions} == {"keep"}
    assert toys.runs() == []


def test_without_accepting_a_refactoring_runs_everything_again(toys):
    toys.build(CLIPS)
    refactor(toys)
    toys.runs()
    toys.build(CLIPS)
    assert toys.runs().count("measure") == 8


def test_an_accepted_execution_says_what_really_ran_and_how_it_was_accepted(toys):
    toys.build(CLIPS)
    query = "SELECT code, started_at, seconds, packages, machine FROM executions WHERE stage = 'toy.measure' ORDER BY commit"
    before = toys.catalog.sql(query).to_pylist()
    refactor(toys)
    accept(toys.catalog, "toy.measure", 0.25, 3, quiet=True)
    after = toys.catalog.sql(query).to_pylist()
    assert after[:8] == before
    assert {row["code"] for row in after[8:]} != {row["code"] for row in before}
    assert sorted(row["started_at"] for row in after[8:]) == sorted(row["started_at"] for row in before)
    marks = [json.loads(row["machine"])["accepted"] for row in after[8:]]
    assert marks == [{"code": before[0]["code"], "of": 8, "run_again": 2, "seed": 3}] * 8


def test_where_one_disagrees_it_is_named_and_nothing_is_changed(toys):
    toys.build(CLIPS)
    # wrong for a single clip, which a full sample must find
    toys.edit(lambda text: text.replace("size * SCALE", "(size * SCALE if size != 7 else 0.0)"))
    commits = toys.catalog.sql("SELECT max(commit) AS n FROM executions")
    difference = r"\(Metrics\.figures row 1 \(name length\), value: 21\.0 -> 0\.0\); code changed in stages/toys\.py"
    with pytest.raises(WorldlineError, match=rf"nothing was accepted: 1 of 8 executions of toy\.measure .* {difference}"):
        accept(toys.catalog, "toy.measure", 1.0, 0, quiet=True)
    assert toys.catalog.sql("SELECT max(commit) AS n FROM executions") == commits
    assert list((toys.home / "scratch").iterdir()) == []


def test_a_raised_version_is_never_accepted(toys):
    toys.build()
    toys.write(version=2)
    with pytest.raises(WorldlineError, match=r"toy\.measure is now version 2 and was recorded as version 1"):
        accept(toys.catalog, "toy.measure", 1.0, 0, quiet=True)


def test_accepting_again_finds_nothing_to_do(toys):
    toys.build(CLIPS)
    refactor(toys)
    accept_all(toys)
    toys.runs()
    assert [found.candidates for found in accept_all(toys)] == [0, 0, 0]
    assert toys.runs() == []


def test_a_new_setting_is_accepted_with_its_default_where_results_stay_the_same(toys):
    toys.build()
    toys.write(settings="\n    extra: float = 0.0", noise=" + config.extra")
    accept_all(toys)
    toys.runs()
    toys.build()
    assert toys.runs() == []
    toys.build(smooth={"extra": 1.0})
    assert "smooth" in toys.runs()


def test_results_of_every_recorded_state_of_the_code_are_run_again(toys):
    toys.build({"a.mp4": b"a"})
    toys.write(scale=4.0)  # another result under the same version
    toys.build({"b.mp4": b"bb"})
    toys.write(scale=4.0 + 0.0, settings="\n    unused: float = 0.0")
    with pytest.raises(WorldlineError, match=r"1 of 2 executions .* 3\.0 -> 4\.0"):
        accept(toys.catalog, "toy.measure", 0.01, 0, quiet=True)


def test_executions_whose_artifacts_are_lost_are_left_out(toys):
    build = toys.build({"a.mp4": b"a", "b.mp4": b"bb"})
    metrics = build.catalog.sql("SELECT digest FROM edges WHERE direction = 'out' AND slot = 'Metrics'")["digest"].to_pylist()
    lost = build.catalog.log.execution(
        build.catalog.sql("SELECT key FROM executions WHERE stage = 'toy.measure'")["key"][0].as_py()
    )
    assert lost is not None
    assert lost.outputs[0].digest in metrics
    path = build.catalog.objects.path(lost.outputs[0].parts["figures.parquet"])
    path.chmod(0o644)
    path.unlink()
    refactor(toys)
    found = accept(toys.catalog, "toy.measure", 1.0, 0, quiet=True)
    assert (found.candidates, found.accepted, found.left_out) == (1, 1, 1)


def test_an_unknown_stage_names_the_nearest(toys, capsys):
    toys.build()
    assert main(["accept", "toy.mesure", "--home", str(toys.home)]) == 1
    assert "there is no stage toy.mesure: did you mean toy.measure" in capsys.readouterr().err


def test_the_command_says_how_many_were_kept(toys, capsys):
    toys.build(CLIPS)
    refactor(toys)
    assert main(["accept", "toy.measure", "--home", str(toys.home), "--quiet"]) == 0
    assert "accepted  8 executions keep their results under the new code" in capsys.readouterr().out
