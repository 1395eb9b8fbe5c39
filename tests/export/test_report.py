"""What the report promises: one file, nothing from outside, everything escaped, the same bytes, and it plays."""

import dataclasses
import html.parser
import re
from pathlib import Path
from typing import Any

import headless_chromium
import numpy as np
import pyarrow as pa
import pytest
import street_dataset

from schemas.artifact import make_table
from schemas.labels import KINEMATIC_STATES, QUESTIONS, REJECTIONS, Questions
from schemas.reports import FIGURES, LINEAGE_EDGES, LINEAGE_NODES, Lineage, Metrics
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES
from stages.contract import no_progress
from stages.export.lineage_graph import list_executions
from stages.export.report import ReportConfig, write_report
from stages.export.top_view import fit_view

needs_chromium = pytest.mark.skipif(headless_chromium.CHROMIUM is None, reason="Debian's package chromium is not installed")
TITLE = street_dataset.CLIP_NAME


def write(folder: Path, inputs: dict[str, Any], **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    report = write_report(**inputs, config=ReportConfig(**options), checkpoints=folder, seed=0, progress=no_progress)
    return report.files["report.html"]


@pytest.fixture(scope="module")
def street() -> dict[str, Any]:
    return street_dataset.make_street()


@pytest.fixture(scope="module")
def report_file(street: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report"), street)


class Elements(html.parser.HTMLParser):
    """All start tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def empty_metrics() -> Metrics:
    return Metrics(figures=make_table(FIGURES, {name: [] for name in FIGURES.names}))


def without_objects(inputs: dict[str, Any], **path_changes: Any) -> dict[str, Any]:
    """The same clip as a flow leaves it that found nothing: no objects, no questions, no truth."""

    def bare(schema: Any) -> Any:
        return make_table(schema, {name: [] for name in schema.names})

    scale = {"scale_source": path_changes.get("scale_source", "camera_height")}
    return inputs | {
        "path": street_dataset.make_path(**path_changes),
        "tracks": dataclasses.replace(inputs["tracks"], samples=bare(TRACK_SAMPLES), objects=bare(TRACK_OBJECTS), **scale),
        "kinematics": dataclasses.replace(inputs["kinematics"], states=bare(KINEMATIC_STATES), **scale),
        "questions": Questions(rows=bare(QUESTIONS), rejections=bare(REJECTIONS)),
        "pose_metrics": empty_metrics(),
        "label_metrics": empty_metrics(),
    }


def empty_scene(inputs: dict[str, Any]) -> Any:
    arrays = {name: getattr(inputs["scene"], name)[:0] for name in ("means", "quats", "scales", "opacities", "colors")}
    return dataclasses.replace(inputs["scene"], **arrays)


def test_the_page_needs_nothing_from_outside(report_file: Path) -> None:
    page = Elements(report_file.read_text())
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "poster")]
    assert len(addresses) > 4
    assert all(address is not None and address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\(\s*['\"]?http", report_file.read_text())


def test_the_same_inputs_give_the_same_bytes(street: dict[str, Any], report_file: Path, tmp_path: Path) -> None:
    assert write(tmp_path, street).read_bytes() == report_file.read_bytes()


def test_text_from_outside_is_shown_as_text_and_never_becomes_an_element(report_file: Path) -> None:
    text = report_file.read_text()
    page = Elements(text)
    assert TITLE in page.text
    assert "<b>the red car</b>" in page.text
    scripts = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert scripts.count(None) == 2, "the page's own script and the player's; what has a type is data"
    assert len(scripts) == 6
    assert "window.injected" not in "".join(re.findall(r"<script>(.*?)</script>", text, re.S))


def test_key_figures_carry_their_units(report_file: Path) -> None:
    text = " ".join(Elements(report_file.read_text()).text.split())
    assert "22.8 m" in text  # 8 m/s over the 2.85 s between the first and the last frame
    assert "camera height ± 5.0 %" in text
    assert "22.6 dB" in text, "the figure of frames that were not fitted goes before that of frames that were"
    assert "18.4 to 21.7 m" in text


def test_the_page_stays_under_its_size_by_compressing_the_videos_more(street: dict[str, Any], tmp_path: Path) -> None:
    generous = write(tmp_path / "generous", street)
    tight = write(tmp_path / "tight", street, max_megabytes=1.75)
    assert tight.stat().st_size < generous.stat().st_size


def test_a_scene_that_is_too_large_for_the_page_is_named_with_the_command_that_shows_it(
    street: dict[str, Any], report_file: Path, tmp_path: Path
) -> None:
    small = write(tmp_path, street, max_player_megabytes=0.1)
    text = Elements(small.read_text()).text
    assert "4,800 Gaussians and would add 0.2 MB" in " ".join(text.split())
    assert "worldline view" in text
    assert "player-data" not in small.read_text()
    assert 'id="player-data"' in report_file.read_text()


def test_a_long_clip_is_shown_with_every_kth_frame_at_its_true_time(street: dict[str, Any], tmp_path: Path) -> None:
    text = write(tmp_path, street, max_frames=10).read_text()
    assert "10 of 30 frames" in text
    times = [float(time) for time in re.search(r'"times":\[([^]]*)\]', text).group(1).split(",")]  # type: ignore[union-attr]
    np.testing.assert_allclose(times, street_dataset.TIMES_S[::3], atol=1e-4)


def test_a_tripod_clip_without_scale_says_what_that_means(street: dict[str, Any], tmp_path: Path) -> None:
    still = {
        "verdict": "static",
        "world_from_camera": np.tile(np.eye(4), (street_dataset.COUNT, 1, 1)),
        "scale_source": "none",
        "scale_sigma": 0.0,
        "gravity_source": "none",
    }
    text = Elements(write(tmp_path, without_objects(street, **still) | {"scene": empty_scene(street)}).read_text()).text
    for said in (
        "as on a tripod",
        "no metric scale",
        "No moving object",
        "No ground truth",
        "There is no reconstruction",
        "scene units",
    ):
        assert said in text
    assert "km/h" not in text.replace("metres and km/h are not given", "")


def test_a_camera_that_stayed_in_its_place_and_saw_no_depth_gets_no_empty_map(street: dict[str, Any], tmp_path: Path) -> None:
    poses = np.tile(np.eye(4), (street_dataset.COUNT, 1, 1))
    points = street["points"]
    nothing = dataclasses.replace(
        points,
        **{
            item.name: getattr(points, item.name)[:0]
            for item in dataclasses.fields(points)
            if np.ndim(getattr(points, item.name))
        },
    )
    inputs = without_objects(street, verdict="static", world_from_camera=poses) | {
        "points": nothing,
        "scene": empty_scene(street),
    }
    page = write(tmp_path, inputs).read_text()
    assert "nothing but the camera, which stayed in its place" in page
    assert 'id="top-view"' not in page


def test_a_clip_whose_path_failed_still_gets_its_page(street: dict[str, Any], tmp_path: Path) -> None:
    inputs = without_objects(street, verdict="failed", registered=np.zeros(street_dataset.COUNT, bool), scale_source="none")
    inputs |= {
        "lineage": Lineage(
            **{n: make_table(s, {c: [] for c in s.names}) for n, s in (("nodes", LINEAGE_NODES), ("edges", LINEAGE_EDGES))}
        )
    }
    text = Elements(write(tmp_path, inputs).read_text()).text
    assert "could not be solved" in text
    assert "There is no top view" in text
    assert "No lineage was recorded" in text


def test_objects_without_a_world_position_are_drawn_in_the_image_only(street: dict[str, Any], tmp_path: Path) -> None:
    samples = street["tracks"].samples
    for name in ("x", "y", "z", "cov_xx", "cov_xy", "cov_yy", "cov_zz", "range"):
        column = samples.schema.get_field_index(name)
        samples = samples.set_column(column, samples.schema.field(name), pa.nulls(samples.num_rows, pa.float64()))
    text = write(tmp_path, street | {"tracks": dataclasses.replace(street["tracks"], samples=samples)}).read_text()
    assert "only where they are in the image is known" in text
    assert '"boxes":[[{' in text


def test_the_top_view_keeps_angles_and_lengths(street: dict[str, Any]) -> None:
    view = fit_view(street["path"], street["points"], [])
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    origin, ahead, left = view.project(square)
    assert (ahead - origin)[0] == pytest.approx(view.scale)  # driving forward is to the right
    assert (left - origin)[1] == pytest.approx(-view.scale)  # left of the camera is up, as seen from above
    np.testing.assert_allclose([(ahead - origin)[1], (left - origin)[0]], 0, atol=1e-9)


def test_lineage_puts_every_execution_below_all_that_it_read(street: dict[str, Any]) -> None:
    executions = list_executions(street["lineage"])
    layer_of_output = {row["digest"]: item["layer"] for item in executions for row in item["outputs"]}
    assert sum(bool(item["stage"]) for item in executions) == street["lineage"].nodes.num_rows
    for item in executions:
        assert all(layer_of_output[row["digest"]] < item["layer"] for row in item["inputs"])


@needs_chromium
@pytest.mark.browser
def test_in_a_browser_the_page_plays_scrubs_and_complains_of_nothing(report_file: Path) -> None:
    with headless_chromium.open_page(report_file) as page:
        assert page.wait_for("window.worldlineReport && worldlineReport.videos.every(video => video.readyState >= 2)")
        videos = page.ask("worldlineReport.videos")
        assert len(videos) == 4
        # The last frame is shown for the median spacing of 0.1 s.
        assert all(video["duration"] == pytest.approx(street_dataset.TIMES_S[-1] + 0.1, abs=0.01) for video in videos)
        start = page.ask("worldlineReport.time")
        assert page.wait_for(f"worldlineReport.time > {start} + 0.3")

        page.ask("worldlineReport.pause()")
        page.ask("(s => { s.value = 1.66; s.dispatchEvent(new Event('input')) })(document.getElementById('time'))")
        assert page.wait_for("worldlineReport.videos.every(video => Math.abs(video.currentTime - 1.652) < 0.002)")
        assert page.wait_for("worldlineReport.pictureFrame === 17")  # the frame at 1.65 s of this variable rate
        marker = page.ask("document.querySelector('[data-camera]').getAttribute('transform')")
        page.ask("worldlineReport.seek(2.6)")
        assert page.wait_for("worldlineReport.pictureFrame === 26")
        assert page.ask("document.querySelector('[data-camera]').getAttribute('transform')") != marker
        assert page.ask("document.querySelector('.readout').textContent") == "29 (27 to 31) km/h"
        assert page.ask("document.querySelectorAll('#overlay g rect').length") == 4  # two boxes with their edges

        sizes = "(s => { const r = document.querySelector(s).getBoundingClientRect(); return [r.width, r.height] })"
        for drawing in ("#top-view", ".chart", "#lineage"):
            width, height = page.ask(f"{sizes}('{drawing}')")
            assert 250 < width < 1400, drawing
            assert 100 < height < 3000, drawing
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
        assert page.ask("window.injected") is None
        assert page.complaints == []
        assert all(address.startswith(("file:", "data:")) for address in page.requests)


@needs_chromium
@pytest.mark.browser
def test_in_a_browser_one_walks_around_the_scene_after_asking_for_it(report_file: Path) -> None:
    with headless_chromium.open_page(report_file) as page:
        assert page.wait_for("window.worldlineReport && worldlineReport.videos.every(video => video.readyState >= 2)")
        page.ask("worldlineReport.pause()")
        assert page.ask("!window.player && document.getElementById('worldline-player').shadowRoot === null")
        page.ask("document.getElementById('walk').click()")
        assert page.ask("player.ready") is True
        assert page.ask("[player.inWorker, player.following, document.getElementById('walk')]") == [True, False, None]
        time, before = page.ask("worldlineReport.time"), page.ask("player.camera.x")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")  # the player has the focus, so the view turns
        assert page.wait_for(f"Math.abs(player.camera.x[0] - {before[0]}) > 0.01")
        page.call("Input.dispatchKeyEvent", type="keyUp", key="ArrowRight")
        assert page.ask("worldlineReport.time") == time, "and the report's clock stands"
        assert [text for text in page.complaints if "GPU stall due to ReadPixels" not in text] == []
        assert all(address.startswith(("file:", "data:", "blob:")) for address in page.requests)


@needs_chromium
@pytest.mark.browser
def test_on_a_phone_nothing_is_wider_than_the_screen(report_file: Path) -> None:
    with headless_chromium.open_page(report_file, width=390, height=800) as page:
        assert page.wait_for("window.worldlineReport")
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
