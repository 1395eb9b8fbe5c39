"""A rebuild says how equal every stage came out, where it first differs, and why."""

import functools
import json
from pathlib import Path

import pytest
from toy_stages import Toys

from catalogs.catalog import Catalog
from catalogs.upkeep import verify
from flows.command_line import main
from schemas import codec
from schemas.errors import WorldlineError
from tasks import build as build_module
from tasks import edge
from tasks.rebuild import Rebuilt, rebuild_dataset, rebuild_manifest, rebuild_sample

TOLERANT = ', tolerance={{Metrics: Tolerance("largest change of a figure", 0.01, "m")}}'.replace("{{", "{").replace("}}", "}")


@pytest.fixture
def toys(tmp_path, monkeypatch) -> Toys:
    return Toys(tmp_path, monkeypatch)


def rebuild(toys: Toys, folder: str = "rebuilt") -> Rebuilt:
    return rebuild_dataset(toys.catalog, "toys@1", toys.folder / folder, quiet=True)


def levels(rebuilt: Rebuilt) -> list[tuple[str, str]]:
    return [(verdict.stage, verdict.level) for verdict in rebuilt.verdicts]


def test_what_can_be_made_again_is_identical_to_the_last_bit(toys):
    toys.build()
    toys.runs()
    rebuilt = rebuild(toys)
    assert levels(rebuilt) == [("toy.measure", "identical"), ("toy.smooth", "identical"), ("toy.page", "identical")]
    assert toys.runs() == ["measure", "smooth", "page"]
    assert rebuilt.identical_share == 1.0
    assert rebuilt.differing == ()


def test_the_same_values_in_other_bytes_are_the_same_content(toys, monkeypatch):
    toys.build()
    monkeypatch.setattr(codec.pq, "write_table", functools.partial(codec.pq.write_table, data_page_version="2.0"))
    rebuilt = rebuild(toys)
    assert {verdict.level for verdict in rebuilt.verdicts} == {"same content"}
    assert (rebuilt.identical_share, rebuilt.differing) == (0.0, ())
    assert rebuilt.verdicts[0].cause == "the same values in other bytes: not reproducible on the same code, packages and machine"


def test_what_was_rebuilt_is_a_dataset_version_of_the_new_workspace(toys):
    toys.build()
    rebuilt = rebuild(toys)
    fresh = Catalog.open(toys.folder / "rebuilt")
    assert rebuilt.published == "toys@1"
    assert fresh.dataset("toys@1").artifacts == toys.catalog.dataset("toys@1").artifacts
    assert verify(fresh) == []


def test_what_came_out_different_is_not_published(toys):
    toys.build()
    toys.write(scale=4.0)
    assert rebuild(toys).published is None
    assert Catalog.open(toys.folder / "rebuilt").datasets() == []


def test_a_changed_constant_is_named_with_both_values_its_file_and_its_effect(toys):
    toys.build()
    toys.write(scale=4.0)
    measure, smooth, page = rebuild(toys).verdicts
    assert measure.level == "different"
    assert str(measure.artifacts[0].difference) == "Metrics.figures row 1 (name length), value: 18.0 -> 24.0"
    assert measure.cause == "code changed in stages/toys.py (SCALE 3.0 -> 4.0)"
    assert smooth.cause.startswith("inputs already different: metrics (toy.measure)")
    assert page.cause.startswith("inputs already different: smooth (toy.smooth)")


def test_a_refactoring_that_changes_no_result_is_identical_and_says_that_the_code_is_other(toys):
    toys.build()
    toys.edit(lambda text: text.replace("size * SCALE", "SCALE * size"))
    rebuilt = rebuild(toys)
    assert {verdict.level for verdict in rebuilt.verdicts} == {"identical"}
    assert [verdict.other_code for verdict in rebuilt.verdicts] == [True] * 3
    assert [verdict.cause for verdict in rebuilt.verdicts] == [""] * 3


def test_a_changed_function_is_named(toys):
    toys.build()
    toys.write(noise=" * 2.0")
    assert rebuild(toys).verdicts[1].cause == "code changed in stages/toys.py (smooth)"


def test_where_only_files_were_recorded_the_file_is_named(toys, monkeypatch):
    monkeypatch.setattr(build_module, "list_definitions", lambda files: {})
    toys.build()
    toys.write(scale=4.0)
    assert rebuild(toys).verdicts[0].cause == "code changed in stages/toys.py"


def test_a_result_within_the_declared_tolerance_is_equal_with_its_figure(toys):
    toys.write(tolerance=TOLERANT)
    toys.build()
    toys.write(tolerance=TOLERANT, noise=" + 0.004")
    verdict = rebuild(toys).verdicts[1]
    assert (verdict.stage, verdict.level) == ("toy.smooth", "equal within tolerance")
    assert verdict.artifacts[0].measured == pytest.approx(0.004)
    assert verdict.cause.startswith("code changed in stages/toys.py")


def test_what_follows_a_result_within_its_tolerance_is_judged_on_the_recorded_one(toys):
    toys.write(tolerance=TOLERANT)
    toys.build()
    toys.write(tolerance=TOLERANT, noise=" + 0.004")
    assert levels(rebuild(toys))[2] == ("toy.page", "identical")


def test_a_result_beyond_the_declared_tolerance_is_different(toys):
    toys.write(tolerance=TOLERANT)
    toys.build()
    toys.write(tolerance=TOLERANT, noise=" + 0.4")
    verdict = rebuild(toys).verdicts[1]
    assert (verdict.level, verdict.artifacts[0].measured) == ("different", pytest.approx(0.4))


def test_other_packages_and_another_machine_are_named_as_causes(toys, monkeypatch):
    toys.write(noise=" + float(__import__('random').random())")
    toys.build()
    verdict = rebuild(toys).verdicts[1]
    assert (verdict.level, verdict.cause) == ("different", "not reproducible on the same code, packages and machine")
    then, there = edge.packages(), edge.machine()
    monkeypatch.setattr(edge, "packages", lambda: then | {"numpy": "9.9"})
    monkeypatch.setattr(edge, "machine", lambda: there | {"cores": 999})
    cause = rebuild(toys, "elsewhere").verdicts[1].cause
    assert f"other packages: numpy {then['numpy']} -> 9.9" in cause
    assert f"other machine: cores {there['cores']} -> 999" in cause


def test_a_setting_that_came_later_is_named_with_its_default(toys):
    toys.build()
    toys.write(settings="\n    extra: float = 2.0", noise=" + config.extra")
    assert "config.extra None -> 2.0" in rebuild(toys).verdicts[1].cause


def test_a_stage_that_refuses_its_recorded_settings_fails_and_says_so(toys):
    toys.build(smooth={"offset": 0.25})
    toys.edit(lambda text: text.replace("offset", "shift"))
    measure, smooth, page = rebuild(toys).verdicts
    assert (measure.level, smooth.level, page.level) == ("identical", "failed", "failed")
    assert "toy.smooth.offset is not a setting" in smooth.cause
    assert "code changed in stages/toys.py" in smooth.cause
    assert page.cause == "inputs are missing: smooth (toy.smooth)"


def test_a_rebuild_that_was_interrupted_goes_on_where_it_stopped(toys):
    toys.build()
    rebuild(toys)
    toys.runs()
    assert rebuild(toys).identical_share == 1.0
    assert toys.runs() == []


def test_a_folder_that_holds_anything_else_is_refused_and_left_alone(toys):
    toys.build()
    other = toys.folder / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(WorldlineError, match="is not empty: rebuild toys@1 into a new folder"):
        rebuild(toys, "other")
    assert [path.name for path in other.iterdir()] == ["letter.txt"]
    with pytest.raises(WorldlineError, match="is the workspace that holds toys@1"):
        rebuild(toys, "home")


def test_a_stage_that_is_gone_is_said_before_anything_runs(toys):
    toys.build()
    toys.edit(lambda text: text.replace('"toy.page"', '"toy.sheet"'))
    toys.runs()
    with pytest.raises(WorldlineError, match=r"made by the stage toy\.page, which this version of Worldline does not have"):
        rebuild(toys)
    assert toys.runs() == []


def test_a_damaged_source_is_said_and_not_rebuilt_from(toys):
    build = toys.build()
    source = build.catalog.log.artifacts("Source")[0]
    path = build.catalog.objects.path(source.parts["files/street.mp4"])
    path.chmod(0o644)
    path.write_bytes(b"strEEt")
    with pytest.raises(WorldlineError, match=r"part files/street.mp4 of Source .* is missing or damaged"):
        rebuild(toys)


# -- from the manifest alone -------------------------------------------------------------------------------------------


def take_manifest(toys: Toys) -> Path:
    """Keep the manifest of toys@1 and throw the workspace away."""
    catalog = toys.catalog
    file = toys.folder / "manifest.json"
    file.write_bytes(catalog.objects.path(catalog.dataset("toys@1").manifest).read_bytes())
    toys.home.rename(toys.folder / "gone")
    return file


def test_the_manifest_and_the_films_alone_give_the_same_bits(toys):
    toys.build({"street.mp4": b"street", "road.mp4": b"a longer road"})
    file = take_manifest(toys)
    (toys.folder / "films" / "street.mp4").rename(toys.folder / "films" / "renamed.mp4")
    rebuilt = rebuild_manifest(file, toys.folder / "films", toys.folder / "rebuilt", quiet=True)
    assert [level for _, level in levels(rebuilt)] == ["identical"] * 6
    assert rebuilt.identical_share == 1.0


def test_a_film_that_is_missing_is_named(toys):
    toys.build()
    file = take_manifest(toys)
    (toys.folder / "films" / "street.mp4").write_bytes(b"another film")
    with pytest.raises(WorldlineError, match=r"no file has the bytes of street\.mp4 .*--sources"):
        rebuild_manifest(file, toys.folder / "films", toys.folder / "rebuilt", quiet=True)


def test_what_is_no_manifest_is_refused(toys):
    file = toys.folder / "manifest.json"
    for content in (b"not json", b"[]", b"{}"):
        file.write_bytes(content)
        with pytest.raises(WorldlineError, match="not the manifest of a dataset version"):
            rebuild_manifest(file, None, toys.folder / "rebuilt", quiet=True)
    assert not (toys.folder / "rebuilt").exists()


# -- samples ----------------------------------------------------------------------------------------------------------

CLIPS = {f"clip{number}.mp4": b"x" * number for number in range(1, 6)}


def test_a_sample_replays_a_share_of_the_executions_on_their_recorded_inputs(toys):
    toys.build(CLIPS)
    toys.runs()
    rebuilt = rebuild_sample(toys.catalog, "toys@1", 0.4, 0, toys.folder / "a", quiet=True)
    assert len(rebuilt.verdicts) == len(toys.runs()) == 6
    assert rebuilt.identical_share == 1.0
    same = rebuild_sample(toys.catalog, "toys@1", 0.4, 0, toys.folder / "b", quiet=True)
    other = rebuild_sample(toys.catalog, "toys@1", 0.4, 1, toys.folder / "c", quiet=True)
    assert [item.key for item in same.verdicts] == [item.key for item in rebuilt.verdicts]
    assert [item.key for item in other.verdicts] != [item.key for item in rebuilt.verdicts]


def test_a_sample_tells_the_stage_that_drifted_from_those_that_only_follow_it(toys):
    toys.build(CLIPS)
    toys.write(scale=4.0)
    rebuilt = rebuild_sample(toys.catalog, "toys@1", 1.0, 0, toys.folder / "a", quiet=True)
    assert {verdict.stage for verdict in rebuilt.differing} == {"toy.measure"}
    assert rebuilt.identical_share == pytest.approx(10 / 15)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(toys, share):
    toys.build()
    with pytest.raises(WorldlineError, match="above 0 and up to 1"):
        rebuild_sample(toys.catalog, "toys@1", share, 0, toys.folder / "a", quiet=True)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_verdicts_and_the_share_and_fails_where_anything_differs(toys, capsys):
    toys.build()
    assert main(["rebuild", "toys@1", "--home", str(toys.home), "--json"]) == 0
    figure = json.loads(capsys.readouterr().out)["figures"][0]
    assert (figure["id"], figure["value"]) == ("catalog.rebuild.identical_share", 1.0)
    toys.write(scale=4.0)
    assert main(["rebuild", "toys@1", "--home", str(toys.home), "--quiet"]) == 1
    printed = capsys.readouterr()
    assert "identical  0 of 3 artifacts of toys@1 have the same bits" in printed.out
    assert "first toy.measure: code changed in stages/toys.py (SCALE 3.0 -> 4.0)" in printed.err
    assert list((toys.home / "scratch").iterdir()) == []


def test_a_manifest_is_written_to_a_new_file_and_rebuilt_from_there(toys, capsys):
    toys.build()
    file, films = toys.folder / "toys.json", toys.folder / "films"
    assert main(["lineage", "toys@1", "--manifest", str(file), "--home", str(toys.home)]) == 0
    assert main(["lineage", "toys@1", "--manifest", str(file), "--home", str(toys.home)]) == 1
    assert "name a new file" in capsys.readouterr().err
    command = ["rebuild", "--manifest", str(file), "--sources", str(films), "--into", str(toys.folder / "new"), "--json"]
    assert main([*command, "--home", str(toys.folder / "nowhere")]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == "toys@1"


def test_the_command_needs_either_a_dataset_or_a_manifest(toys, capsys):
    toys.build()
    assert main(["rebuild", "--home", str(toys.home)]) == 1
    assert "either NAME[@V] or --manifest FILE" in capsys.readouterr().err
    assert isinstance(Catalog.open(toys.home), Catalog)
