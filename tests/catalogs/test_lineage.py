"""Lineage both ways: what something came from, and what something touched."""

import json
from pathlib import Path
from typing import Any

import pytest
from catalog_workers import figures, key_of, put, run_of

from catalogs.catalog import Catalog, Execution, Note
from catalogs.downstream import Downstream, downstream_of
from catalogs.lineage import lineage_of, read_executions, read_manifest, upstream
from catalogs.records import execution_row
from catalogs.traces import Step, trace
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import Files, rows_to_table
from schemas.clips import Clip, Source
from schemas.errors import WorldlineError
from schemas.labels import QUESTIONS, REJECTIONS, Questions
from schemas.media import Video


def ran(catalog: Catalog, name: str, stage: str, artifact: Any, inputs: dict[str, str] | None = None, **other: Any) -> Execution:
    return catalog.record(run_of(key_of(name), stage, (put(catalog, artifact),), inputs, **other))


def only(execution: Execution) -> str:
    return execution.outputs[0].digest


def film(folder: Path, name: str, data: bytes) -> Source:
    (folder / name).write_bytes(data)
    return Source(files=Files({name: folder / name}), layout="video", name=name)


def city(catalog: Catalog, folder: Path) -> dict[str, Execution]:
    """Two films, each filmed -> detected -> counted; the second film was detected by version 2 with other code and numpy."""
    made = {}
    for number, name in enumerate(("north", "south")):
        source = catalog.adopt(put(catalog, film(folder, f"{name}.mp4", name.encode())))
        made[f"{name}/clip"] = ran(catalog, f"{name}/clip", "toy.clip", figures(10 + number), {"source": source.digest})
        made[f"{name}/boxes"] = ran(
            catalog, f"{name}/boxes", "toy.detect", figures(20 + number), {"clip": only(made[f"{name}/clip"])},
            version=number + 1, code_files={"stages/toy.py": f"f{number}1", "stages/toy.py:LIMIT": f"0.{number}",
                                           "stages/boxes.py": "b"},
            packages={"numpy": f"2.{number}.3"}, config={"model": f"acme/detector-{number}", "tiles": [1, 2]},
        )  # fmt: skip
        made[f"{name}/count"] = ran(
            catalog, f"{name}/count", "toy.count", figures(30 + number), {"boxes": only(made[f"{name}/boxes"])}
        )
        publish(catalog, name, {}, {"clip": only(made[f"{name}/clip"]), "count": only(made[f"{name}/count"])}, {})
    return made


def touched(found: Downstream) -> tuple[set[str], set[str]]:
    return {item.key for item in found.executions}, {item.reference for item in found.datasets}


# -- up ---------------------------------------------------------------------------------------------------------------


@pytest.mark.both_dialects
def test_the_closure_lists_makers_before_users_whatever_the_order_of_recording(catalog: Catalog, tmp_path: Path) -> None:
    made = city(catalog, tmp_path)
    found = upstream(catalog.log, [only(made["south/count"]), only(made["north/count"])])
    assert [item.key for item in found] == [
        key_of(f"{name}/{stage}") for name in ("south", "north") for stage in ("clip", "boxes", "count")
    ]
    assert found[1] == catalog.log.execution(key_of("south/boxes"))


def test_an_execution_recorded_again_after_its_objects_were_lost_is_still_the_maker(catalog: Catalog) -> None:
    first = ran(catalog, "first", "toy.first", figures(1))
    ran(catalog, "second", "toy.second", figures(2), {"x": only(first)})
    ran(catalog, "back", "toy.back", figures(1), {"y": put(catalog, figures(2)).digest})  # makes the first artifact again
    ran(catalog, "same", "toy.same", figures(1), {"x": only(first)})  # gives back its own input
    with catalog.log.write() as commit:  # as where its parts came out with other bytes of the same content
        commit.append(execution_row(first, "execution"))
    assert catalog.log.rows("SELECT number FROM executions WHERE key = ?", (first.key,)) == [(5,)]
    assert [item.stage for item in upstream(catalog.log, [only(first)])] == ["toy.first"]
    assert [item.stage for item in upstream(catalog.log, [put(catalog, figures(2)).digest])] == ["toy.first", "toy.second"]


@pytest.mark.both_dialects
def test_many_executions_are_read_as_they_were_recorded(catalog: Catalog) -> None:
    made = [ran(catalog, f"run {number}", "toy.make", figures(number), machine={"cores": number % 3}) for number in range(7)]
    assert read_executions(catalog.log, [item.key for item in made] + ["0" * 64]) == {item.key: item for item in made}


def test_reading_lineage_takes_a_number_of_queries_that_grows_with_depth_and_not_with_width(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queries(width: int) -> int:
        parts = {f"p{number}": only(ran(catalog, f"{width}/{number}", "toy.part", figures(number))) for number in range(width)}
        whole = ran(catalog, f"{width}/whole", "toy.whole", figures(1000 + width), parts)
        asked = []
        rows = catalog.log.rows
        with monkeypatch.context() as patch:
            patch.setattr(catalog.log, "rows", lambda *question: asked.append(question) or rows(*question))
            assert lineage_of(catalog, only(whole)).nodes.num_rows == width + 1
        return len(asked)

    assert queries(40) == queries(4)


@pytest.mark.both_dialects
def test_a_manifest_is_read_back_and_keeps_equal_documents_once(catalog: Catalog, tmp_path: Path) -> None:
    made = city(catalog, tmp_path)
    version = publish(catalog, "both", {"a": 1}, {name: only(made[f"{name}/count"]) for name in ("north", "south")}, {"b": 2})
    data = catalog.objects.path(version.manifest).read_bytes()
    read = read_manifest(data)
    assert (read.name, read.version, read.recipe, read.lock) == ("both", 1, {"a": 1}, {"b": 2})
    assert read.artifacts == version.artifacts
    assert {ref.facts["name"] for ref in read.sources.values()} == {"north.mp4", "south.mp4"}
    assert [item.key for item in read.executions] == list(version.executions)
    for item in read.executions:
        recorded = catalog.log.execution(item.key)
        assert recorded is not None
        assert (item.code_files, item.packages, item.config, item.inputs) == (
            recorded.code_files, recorded.packages, recorded.config, recorded.inputs,
        )  # fmt: skip
        assert [(ref.digest, ref.parts) for ref in item.outputs] == [(ref.digest, ref.parts) for ref in recorded.outputs]
    assert len(json.loads(data)["documents"]) == 6  # three sets of code files, three of packages, for six executions


def test_a_manifest_of_a_released_version_is_still_read_and_a_newer_one_refused() -> None:
    ref = {"digest": "d", "kind": "Metrics", "schema_version": 1, "bytes": 3, "parts": {"meta.json": "s"}}
    execution = {
        "key": "k", "stage": "toy.a", "version": 1, "code": "c", "code_files": {"a.py": "1"}, "config": {}, "seed": 0,
        "inputs": {}, "outputs": [ref], "packages": {"numpy": "2"},
    }  # fmt: skip
    said = {"manifest": 1, "name": "old", "version": 3, "recipe": {}, "artifacts": {"a": "d"}, "sources": [], "lock": {}}
    read = read_manifest(json.dumps(said | {"executions": [execution]}).encode())
    assert (read.executions[0].code_files, read.executions[0].packages) == ({"a.py": "1"}, {"numpy": "2"})
    with pytest.raises(WorldlineError, match="manifest has version 99"):
        read_manifest(json.dumps(said | {"manifest": 99}).encode())


# -- down -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "whole", "direct"),
    [
        ("toy.detect", {"north", "south"}, {"boxes"}),
        ("toy.detect@1", {"north"}, {"boxes"}),
        ("stages/boxes.py", {"north", "south"}, {"boxes"}),
        ("stages/toy.py@f11", {"south"}, {"boxes"}),
        ("stages/toy.py:LIMIT@0.1", {"south"}, {"boxes"}),
        ("numpy==2.0.3", {"north"}, {"boxes"}),
        ("numpy==2.1.*", {"south"}, {"boxes"}),
        ("acme/detector-1", {"south"}, {"boxes"}),
        ("model:acme/detector-1", {"south"}, {"boxes"}),
    ],
)
def test_what_a_stage_code_package_or_model_touched(
    catalog: Catalog, tmp_path: Path, identifier: str, whole: set[str], direct: set[str]
) -> None:
    city(catalog, tmp_path)
    found = downstream_of(catalog, identifier)
    assert touched(found)[0] == {key_of(f"{name}/{stage}") for name in whole for stage in ("boxes", "count")}
    assert {item.key for item in found.executions if item.direct} == {
        key_of(f"{name}/{stage}") for name in whole for stage in direct
    }
    assert {(item.reference, item.roles, item.artifacts) for item in found.datasets} == {
        (f"{name}@1", ("count",), 2) for name in whole
    }


@pytest.mark.both_dialects
def test_what_a_source_touched_is_found_by_its_path_its_name_and_its_digest(catalog: Catalog, tmp_path: Path) -> None:
    made = city(catalog, tmp_path)
    everything = {key_of(f"north/{stage}") for stage in ("clip", "boxes", "count")}
    source = made["north/clip"].inputs["source"]
    (tmp_path / "copy.bin").write_bytes(b"north")
    for identifier in (str(tmp_path / "north.mp4"), str(tmp_path / "copy.bin"), "north.mp4", source, source[:10]):
        assert touched(downstream_of(catalog, identifier)) == (everything, {"north@1"})
    folder = downstream_of(catalog, str(tmp_path))
    assert touched(folder)[1] == {"north@1", "south@1"}


def test_an_artifact_touched_what_used_it_and_a_dataset_what_used_its_artifacts(catalog: Catalog, tmp_path: Path) -> None:
    made = city(catalog, tmp_path)
    assert touched(downstream_of(catalog, only(made["north/boxes"]))) == ({key_of("north/count")}, {"north@1"})
    assert touched(downstream_of(catalog, key_of("north/count"))) == ({key_of("north/count")}, {"north@1"})
    assert touched(downstream_of(catalog, "north@1")) == ({key_of("north/boxes"), key_of("north/count")}, {"north@1"})


@pytest.mark.both_dialects
def test_held_and_deleted_versions_are_told_too_and_how_they_stand(catalog: Catalog, tmp_path: Path) -> None:
    made = city(catalog, tmp_path)
    for build in range(3):
        publish(catalog, "nightly", {"build": build}, {"count": only(made["north/count"])}, {})
    catalog.note(Note("deleted", "nightly@1", {}))
    catalog.note(Note("review", "nightly@3", {"verdict": "reject"}))
    found = {item.reference: item.state for item in downstream_of(catalog, "toy.detect@1").datasets}
    assert found == {"nightly@1": "deleted", "nightly@2": "latest", "nightly@3": "held", "north@1": "latest"}


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("toy.detekt", "did you mean toy.detect"),
        ("toy.detect@7", "toy.detect never ran as version 7: it ran as 1, 2"),
        ("stages/bokes.py", "did you mean stages/boxes.py"),
        ("stages/toy.py@zz", "never used with the fingerprint zz: it was with f01, f1, f11"),
        ("numpy==3.0", "nothing ran with numpy==3.0: executions ran with numpy 2.0, 2.0.3, 2.1.3"),
        ("numpi==3.0", "recorded are numpy"),
        ("numpy", "numpy is a package: name its version, as in numpy==2.0"),
        ("nort.mp4", "did you mean north.mp4"),
        ("north@4", "north has no version 4"),
        ("acme/detector", "nothing recorded in .* is or used acme/detector"),
        ("it's; --", "name a stage, code file, package, source, artifact or dataset"),
    ],
)
def test_what_nothing_recorded_is_called_is_refused_with_the_nearest(
    catalog: Catalog, tmp_path: Path, identifier: str, message: str
) -> None:
    city(catalog, tmp_path)
    with pytest.raises(WorldlineError, match=message):
        downstream_of(catalog, identifier)


def test_a_file_that_was_never_a_source_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    city(catalog, tmp_path)
    (tmp_path / "north.mp4").write_bytes(b"cut anew")
    with pytest.raises(WorldlineError, match=r"no source in .* holds the bytes of .*north\.mp4"):
        downstream_of(catalog, str(tmp_path / "north.mp4"))


# -- the story of a label ---------------------------------------------------------------------------------------------


def question(**values: Any) -> Questions:
    row = dict.fromkeys(QUESTIONS.names) | {
        "question_id": "feedbeef01", "kind": "speed", "question": "How fast?", "answer": "50 km/h", "answer_unit": "km/h",
        "answer_p5": 47.0, "answer_p95": 54.0, "track_ids": [0], "frames": [1, 3], "start_s": 0.1, "end_s": 0.45, "metric": True,
        "scale_source": "gps", "scale_sigma": 0.02,
    } | values  # fmt: skip
    return Questions(rows_to_table(QUESTIONS, [row]), REJECTIONS.empty_table())


def street(catalog: Catalog, folder: Path) -> None:
    import numpy as np

    source = catalog.adopt(put(catalog, film(folder, "street.mp4", b"street")))
    catalog.note(Note("terms", source.digest, {"licence": "CC-BY-4.0", "attribution": "City of Rouen"}))
    frames = Video.from_array(np.zeros((4, 8, 8, 3), np.uint8))
    clip = Clip(
        frames=frames, times_s=np.array([0.0, 0.1, 0.25, 0.45]), name="street", provenance={"generator": "gen/one", "seed": 4}
    )
    filmed = ran(catalog, "clip", "toy.clip", clip, {"source": source.digest}, config={"rate": 0.5})
    asked = ran(catalog, "labels", "toy.ask", question(), {"clip": only(filmed)}, version=3)
    publish(catalog, "streets", {}, {"questions": only(asked)}, {})


def test_a_label_tells_its_frames_scale_source_terms_and_stages(catalog: Catalog, tmp_path: Path) -> None:
    street(catalog, tmp_path)
    story = trace(catalog, "feedbeef01")
    told = {step.what: step for step in story}
    assert told["question"] == Step("question", "feedbeef01", "speed: How fast?")
    assert told["answer"] == Step("answer", "50 km/h", "90 % between 47 and 54 km/h")
    assert told["scale"] == Step("scale", "gps", "scale_sigma 2 %; lengths in metres")
    assert told["frames"] == Step("frames", "1 to 3", "at 0.100 s and 0.450 s of the clip; window 0.100 to 0.450 s")
    assert told["track"] == Step("track", "0", "the camera")
    assert told["dataset"] == Step("dataset", "streets@1", "latest")
    assert told["clip"].value == "street"
    assert told["clip"].detail.startswith("4 frames of 8x8 px, 0.450 s")
    assert told["generator"] == Step("generator", "gen/one", '{"seed":4}')
    assert told["source"].detail.startswith("video: street.mp4 (SHA-256 ")
    assert "CC-BY-4.0" in {step.value for step in story if step.what == "licence"}
    assert "City of Rouen" in " ".join(step.detail for step in story if step.what == "licence")
    assert [step.value for step in story if step.what == "stage"] == ["toy.clip@1", "toy.ask@3"]
    assert 'config {"rate":0.5}' in next(step.detail for step in story if step.value == "toy.clip@1")
    assert trace(catalog, "feedbe") == story


def test_a_label_that_is_none_or_several_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    street(catalog, tmp_path)
    with pytest.raises(WorldlineError, match="no label it's in"):
        trace(catalog, "it's")
    ran(catalog, "more", "toy.ask", question(question_id="feedbeef02"))
    with pytest.raises(WorldlineError, match="feedbeef could mean the labels feedbeef01, feedbeef02"):
        trace(catalog, "feedbeef")
    ran(catalog, "same", "toy.ask", question(answer="60 km/h"))
    with pytest.raises(WorldlineError, match="feedbeef01 is in 2 artifacts"):
        trace(catalog, "feedbeef01")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_was_touched_and_the_story_of_a_label(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city(catalog, tmp_path)
    street(catalog, tmp_path)
    home = ["--home", str(catalog.home)]
    assert main(["lineage", "toy.detect@2", "--down", *home]) == 0
    assert "stage version toy.detect@2 touched 2 executions, 2 artifacts and 1 dataset versions" in capsys.readouterr().out
    assert main(["lineage", "toy.detect@2", "--down", "--json", *home]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["datasets"] == [{"reference": "south@1", "state": "latest", "roles": ["count"], "artifacts": 2}]
    assert main(["lineage", "feedbeef01", "--trace", "--json", *home]) == 0
    assert {"what": "scale", "value": "gps", "detail": "scale_sigma 2 %; lengths in metres"} in json.loads(
        capsys.readouterr().out
    )
    assert main(["lineage", "feedbeef01", "--json", *home]) == 0
    assert [row["stage"] for row in json.loads(capsys.readouterr().out)] == ["toy.clip", "toy.ask"]
    assert main(["lineage", "toy.detect@9", "--down", *home]) == 1
    assert capsys.readouterr().err == "worldline: toy.detect never ran as version 9: it ran as 1, 2\n"
