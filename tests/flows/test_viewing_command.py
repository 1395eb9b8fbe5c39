"""`view`: a page of a version's 4D scene, in a browser where there is one."""

import json
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs.catalog import Catalog
from catalogs.versions import publish
from flows.command_line import main
from flows.commands.viewing import has_display
from schemas.cameras import CameraPath
from schemas.scenes import Scene4D


def scene(red: float) -> Scene4D:
    return Scene4D(
        motion_model="static",
        means=np.array([[3.0, 0.0, 0.0], [4.0, 1.0, 0.0]], np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (2, 1)),
        scales=np.full((2, 3), 0.2, np.float32),
        opacities=np.full(2, 0.9, np.float32),
        colors=np.tile(np.float32([red, 0.4, 0.1]), (2, 1)),
        motion={},
        start_s=0.0,
        end_s=1.0,
        background=np.zeros(3),
        scale_source="none",
        scale_sigma=0.0,
    )


def camera_path() -> CameraPath:
    intrinsics = np.array([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]])
    return CameraPath(
        times_s=np.array([0.0, 1.0]),
        world_from_camera=np.tile(np.eye(4), (2, 1, 1)),
        registered=np.ones(2, bool),
        intrinsics=intrinsics,
        distortion=np.zeros(4),
        width=64,
        height=48,
        verdict="moving",
        scale_source="none",
        scale_sigma=0.0,
        gravity_source="none",
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.1,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with the scene of one clip, of two, and of none."""
    catalog = Catalog.open(tmp_path / "home")

    def put(artifact: Any) -> str:
        with catalog.scratch_folder() as scratch:
            return catalog.adopt(catalog.put(artifact, scratch)).digest

    first, second, path = put(scene(0.2)), put(scene(0.8)), put(camera_path())
    publish(catalog, "one", {"source": "a"}, {"scene": first, "path": path}, {})
    publish(catalog, "two", {"source": "ab"}, {"a/scene": first, "a/path": path, "b c/scene": second}, {})
    publish(catalog, "none", {"source": "c"}, {"path": path}, {})
    return catalog.home


@pytest.fixture
def worldline(home: Path, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--home", str(home)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_the_page_lies_beside_the_workspace_and_its_path_is_printed(worldline, home):
    status, out, _ = worldline("view", "one", "--no-open")
    assert (status, out.strip()) == (0, str(home.parent / "one-1-scene.html"))
    page = Path(out.strip()).read_text()
    assert "one@1" in page
    assert '"cameras":{"times_s"' in page, "the recorded camera comes along"


def test_with_a_display_the_page_is_opened_and_not_with_no_open(worldline, home, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    worldline("view", "one", "--no-open")
    assert opened == []
    worldline("view", "one")
    assert opened == [(home.parent / "one-1-scene.html").as_uri()]


def test_without_a_display_no_browser_is_started(worldline, monkeypatch):
    def refuse(address: str) -> bool:
        raise AssertionError("a browser without a display")

    monkeypatch.setattr(webbrowser, "open", refuse)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    status, _, said = worldline("view", "one")
    assert status == 0
    assert "open this file" in said
    assert has_display({}, "darwin")
    assert not has_display({"DISPLAY": ""}, "linux")


def test_of_several_clips_one_must_be_named(worldline, home):
    status, _, said = worldline("view", "two", "--no-open")
    assert (status, said.count("\n")) == (1, 1)
    assert "2 clips: name one with --clip a, b c" in said
    status, out, _ = worldline("view", "two", "--clip", "b c", "--no-open", "--json")
    document = json.loads(out)
    assert (status, document["clip"], document["gaussians"], document["opened"]) == (0, "b c", 2, False)
    assert document["file"] == str(home.parent / "two-1-b-c-scene.html")
    assert document["bytes"] == Path(document["file"]).stat().st_size
    assert '"cameras":null' in Path(document["file"]).read_text(), "this clip has no path"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none"], "none@1 has no 4D scene"),
        (["two", "--clip", "d"], "no scene of a clip 'd'; it has a, b c"),
        (["one", "--clip", "d"], "leave --clip out"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(arguments, sentence, worldline, home):
    status, _, said = worldline("view", *arguments, "--no-open")
    assert (status, said.count("\n")) == (1, 1)
    assert sentence in said
    assert not list(home.parent.glob("*.html"))
