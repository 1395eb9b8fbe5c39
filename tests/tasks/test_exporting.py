"""Scenes of a version go out as files that other programs open."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reconstruct_formats import random_scene
from catalogs.catalog import Catalog, Execution
from catalogs.exports import FORMATS, Export, export
from catalogs.governance import give_terms
from catalogs.versions import publish
from flows.command_line import main
from schemas.artifact import Files
from schemas.clips import Source
from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from tasks.exporting import scene_formats
from worldline.formats import read_scene

SCENES = {"free": "native_4d", "bound": "gaussian_flow"}
LICENCES = {"free": "CC-BY-4.0", "bound": "CC-BY-NC-4.0"}


def recorded(catalog: Catalog, name: str, scene: Scene4D, licence: str) -> str:
    """Put a scene into the catalog as made from a source under a licence; return its digest."""
    path = catalog.home.parent / f"{name}.mp4"
    path.write_bytes(name.encode())
    with catalog.scratch_folder() as scratch:
        given = catalog.adopt(catalog.put(Source(files=Files({path.name: path}), layout="video", name=path.name), scratch))
        made = catalog.put(scene, scratch)
        fields: dict[str, Any] = dict.fromkeys(("error_type", "error_message"))
        key = hashlib.sha256(name.encode()).hexdigest()
        run = Execution(key=key, stage="reconstruct.toy", version=1, code="c", code_files={}, config={}, seed=0,
                        inputs={"source": given.digest}, outputs=(made,), status="ok", started_at=0.0, seconds=1.0,
                        peak_memory_bytes=1, machine={}, packages={}, **fields)  # fmt: skip
        catalog.record(run)
    give_terms(catalog, given.digest, licence=licence)
    return made.digest


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A version of two scenes: one free, one not for money."""
    catalog = Catalog.open(tmp_path / "home")
    artifacts = {
        f"{name}/scene": recorded(catalog, name, random_scene(model, 60, degree=1), LICENCES[name])
        for name, model in SCENES.items()
    }
    publish(catalog, "toys", {"source": "two"}, artifacts, {})
    return catalog


def export_scenes(catalog: Catalog, form: str, out: Path, **options: Any) -> Export:
    chosen = {name: options.pop(name) for name in ("licence", "split") if name in options}
    return export(catalog, "toys", form, out, **chosen, formats=FORMATS | scene_formats(form, **options))


@pytest.mark.parametrize("form", ["ply", "ply-sequence", "compressed-ply", "spz", "splat", "glb", "4dgs"])
def test_every_scene_of_a_version_goes_out_and_can_be_read_back(catalog, tmp_path, form):
    report = export_scenes(catalog, form, tmp_path / "out")
    assert report.rows == {"scenes": 2}
    index = json.loads((tmp_path / "out" / "scenes.json").read_text())
    assert {row["role"] for row in index} == {"free/scene", "bound/scene"}
    for row in index:
        scene = read_scene(tmp_path / "out" / row["file"])
        assert 0 < len(scene.means) <= (60 if form not in ("ply-sequence", "4dgs") else 60 * 24)


def test_a_page_that_plays_it_goes_out(catalog, tmp_path):
    export_scenes(catalog, "html", tmp_path / "out")
    (page, _) = (tmp_path / "out" / "scenes").iterdir()
    assert "<html" in page.read_text()[:500].lower()


def test_only_scenes_that_may_be_used_so_go_out(catalog, tmp_path):
    report = export_scenes(catalog, "ply", tmp_path / "out", licence="commercial")
    assert (report.rows, report.licences) == ({"scenes": 1}, {"CC-BY-4.0": 1})
    assert [item.licence for item in report.left_out] == ["CC-BY-NC-4.0"]
    (file,) = (tmp_path / "out" / "scenes").iterdir()
    assert file.name.startswith("free-scene-")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [member["role"] for member in manifest["members"]] == ["free/scene"]


def test_the_moment_the_frames_and_the_axis_can_be_chosen(catalog, tmp_path):
    export_scenes(catalog, "ply", tmp_path / "moment", at_s=2.5, up="z")
    for file in (tmp_path / "moment" / "scenes").iterdir():
        assert b"comment worldline up z time_s 2.5" in file.read_bytes()[:200]
    export_scenes(catalog, "ply-sequence", tmp_path / "frames", frames=3)
    assert [len(list(folder.iterdir())) for folder in (tmp_path / "frames" / "scenes").iterdir()] == [3, 3]


def test_an_option_that_the_format_does_not_take_is_told(tmp_path):
    with pytest.raises(
        WorldlineError, match=r"4dgs takes no --at: leave it out, or export as ply, compressed-ply, spz, splat, glb"
    ):
        scene_formats("4dgs", at_s=1.0)
    with pytest.raises(WorldlineError, match="parquet takes no --frames"):
        scene_formats("parquet", frames=3)


def test_a_scene_that_cannot_be_written_is_named_and_nothing_is_left(catalog, tmp_path):
    far = random_scene("static", 5)
    far.means[0] = 1e5
    digest = recorded(catalog, "far", far, "CC-BY-4.0")
    publish(catalog, "far", {"source": "far"}, {"far/scene": digest}, {})
    with pytest.raises(WorldlineError, match=r"far/scene of far@1: .*ask for fractional_bits=6"):
        export(catalog, "far", "spz", tmp_path / "out", formats=FORMATS | scene_formats("spz"))
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob(".*partial"))


def test_a_scene_without_gaussians_has_a_row_and_no_file(catalog, tmp_path):
    digest = recorded(catalog, "none", random_scene("static", 0), "CC-BY-4.0")
    publish(catalog, "none", {"source": "none"}, {"none/scene": digest}, {})
    with pytest.raises(WorldlineError, match="no scene of none@1 has any Gaussians"):
        export(catalog, "none", "ply", tmp_path / "out", formats=FORMATS | scene_formats("ply"))
    publish(catalog, "both", {"source": "both"}, dict(catalog.dataset("toys").artifacts) | {"none/scene": digest}, {})
    export(catalog, "both", "ply", tmp_path / "out", formats=FORMATS | scene_formats("ply"))
    index = {row["role"]: row["file"] for row in json.loads((tmp_path / "out" / "scenes.json").read_text())}
    assert index["none/scene"] is None
    assert len(list((tmp_path / "out" / "scenes").iterdir())) == 2


def test_the_command_says_what_went_out(catalog, tmp_path, capsys):
    arguments = ["export", "toys", "glb", str(tmp_path / "out"), "--at", "1.5", "--home", str(catalog.home)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "scenes" in said
    assert len(list((tmp_path / "out" / "scenes").glob("*.glb"))) == 2
    assert (tmp_path / "out" / "SHA256SUMS").exists()
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "The scenes lie in `scenes/`" in readme
    assert "videos" not in readme
    assert main(["export", "toys", "stl", str(tmp_path / "other"), "--home", str(catalog.home)]) == 1
    assert "'stl' is no format: there is parquet, ply, ply-sequence" in capsys.readouterr().err
