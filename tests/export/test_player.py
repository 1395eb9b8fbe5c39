"""What the player promises: the engine's own picture, in a browser, from one file that asks nothing of any network."""

import base64
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headless_chromium
import numpy as np
import pytest
import street_dataset
from PIL import Image

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.formats.player import player_fragment, write_player
from worldline.formats.player.packing import pack_scene
from worldline.motion import MODELS
from worldline.scenes import draw_scene

needs_chromium = pytest.mark.skipif(headless_chromium.CHROMIUM is None, reason="Debian's package chromium is not installed")
WIDTH, HEIGHT = 200, 150
INTRINSICS = np.array([[180.0, 0.0, 96.0], [0.0, 175.0, 80.0], [0.0, 0.0, 1.0]])
COUNT = 400
START_S, END_S = 0.5, 2.5


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    quats = rng.normal(size=(*shape, 4))
    return (quats / np.linalg.norm(quats, axis=-1, keepdims=True)).astype(np.float32)


def motion_arrays(model: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A lively motion of every model: by a fifth of the scene and more."""

    def normal(size: float, *shape: int) -> np.ndarray:
        return (size * rng.normal(size=shape)).astype(np.float32)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, size=shape).astype(np.float32)

    pulse = {"velocities": normal(0.6, COUNT, 3), "peaks": uniform(0, 1, COUNT), "lifespans": uniform(0.1, 1.0, COUNT)}
    match model:
        case "static":
            return {}
        case "gaussian_flow":
            moving = rng.permutation(COUNT)[: COUNT // 2]
            arrays = {"moving": moving.astype(np.int64), "time_centers": uniform(0, 0.5, len(moving))}
            for name, width, size in (("position", 3, 0.4), ("rotation", 4, 0.5), ("color", 3, 0.3)):
                arrays[f"{name}_polynomial"] = normal(size, len(moving), 2, width)
                arrays[f"{name}_fourier"] = normal(0.5 * size, len(moving), 4, width)
            return arrays
        case "native_4d":
            arrays = {"times": uniform(0, 1, COUNT), "time_scales": uniform(0.1, 0.6, COUNT), "right_quats": unit(rng, COUNT)}
            return arrays | {"time_colors": normal(0.1, COUNT, 2, 3)}
        case "periodic_vibration":
            return pulse | {"cycle": np.array([0.4], np.float32)}
        case "gaussian_birth":
            starts = np.floor(rng.uniform(0, 1, COUNT) * 4) / 4
            pulse["lifespans"][::3] = np.inf
            return pulse | {"starts": np.where(rng.uniform(size=COUNT) < 0.3, -np.inf, starts), "ends": starts + 0.5}
        case "rigid_agents":
            arrays = {"agents": rng.integers(0, 3, COUNT), "agent_times": np.array([0.1, 0.4, 0.9], np.float32)}
            arrays |= {"agent_quats": unit(rng, 2, 3), "agent_positions": normal(0.5, 2, 3, 3)}
            return arrays | {"agent_alive": np.array([[True, True, True], [False, True, True]])}
    raise NotImplementedError(model)


def make_scene(model: str, *, harmonics: int = 0, **changes: Any) -> Scene4D:
    rng = np.random.default_rng(5)
    scene = Scene4D(
        motion_model=model,
        means=rng.normal(size=(COUNT, 3)).astype(np.float32),
        quats=unit(rng, COUNT),
        scales=np.exp(rng.normal(-2.5, 0.7, size=(COUNT, 3))).astype(np.float32),
        opacities=rng.uniform(0.05, 1.0, COUNT).astype(np.float32),
        colors=rng.uniform(size=(COUNT, 3)).astype(np.float32),
        motion=motion_arrays(model, rng),
        start_s=START_S,
        end_s=END_S,
        background=np.array([0.1, 0.2, 0.3]),
        scale_source="none",
        scale_sigma=0.0,
        harmonics=rng.normal(0, 0.3, size=(COUNT, harmonics, 3)).astype(np.float32) if harmonics else None,
    )
    return dataclasses.replace(scene, **changes)


def pose_beside(angle: float) -> np.ndarray:
    """A camera 4 units away that looks at the origin, turned about the vertical and rolled a little."""
    forward = np.array([np.sin(angle), np.cos(angle), -0.2])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.1, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -4 * forward
    return pose


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(1 / np.mean((first - second) ** 2)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[headless_chromium.Page]:
    blank = tmp_path_factory.mktemp("browser") / "blank.html"
    blank.write_text("<!doctype html><title>blank</title>")
    with headless_chromium.open_page(blank, width=900, height=700) as page:
        yield page


def visit(browser: headless_chromium.Page, file: Path, hash_: str = "") -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=file.resolve().as_uri() + hash_)
    assert browser.wait_for("document.readyState === 'complete' && window.player")
    assert browser.ask("player.ready") is True


def part(name: str) -> str:
    """JavaScript for a part of the player's own tree."""
    return f"document.getElementById('worldline-player').shadowRoot.querySelector('[data-part={name}]')"


def press(browser: headless_chromium.Page, key: str, code: str = "") -> None:
    text = {"text": key} if len(key) == 1 else {}
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, **text)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)


def picture(browser: headless_chromium.Page) -> np.ndarray:
    address = browser.ask("player.picture()")
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(image.convert("RGB"), np.float64) / 255


def photograph(browser: headless_chromium.Page, time_s: float, pose: np.ndarray) -> np.ndarray:
    """What the player shows at a time to a camera of our own."""
    asked = f"time: {time_s}, world_from_camera: {pose.tolist()}, intrinsics: {INTRINSICS.tolist()}"
    browser.ask(f"player.show({{{asked}, width: {WIDTH}, height: {HEIGHT}}})")
    return picture(browser)


def complaints(browser: headless_chromium.Page) -> list[str]:
    """All but the driver's remark that a test that reads pixels back has to wait for them."""
    return [text for text in browser.complaints if "GPU stall due to ReadPixels" not in text]


def test_the_page_needs_nothing_from_outside_and_shows_foreign_text_as_text(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "page.html"
    size = write_player(make_scene("static"), file, title='</script><img src="https://example.org/x">')
    text = file.read_text()
    assert size == file.stat().st_size
    assert re.findall(r"<(?:img|link|script|iframe)[^>]*(?:src|href)=\"(?!data:)[^\"]*", text) == []
    assert text.count("<script") == text.count("</script>") == 4, "assets, scene, data and code"
    assert not (tmp_path / "deep" / "page.html.part").exists()


def test_the_same_scene_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        write_player(make_scene("gaussian_flow"), page, title="scene", cameras=street_dataset.make_path())
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_a_gaussian_takes_few_bytes(model: str) -> None:
    packed = pack_scene(make_scene(model))
    own = 6 * 2 + 4 * 2 + 3 * 2 + 2 + 3 * 4  # colours, scales; rotation; means 16 or 32 bits; opacity
    assert len(packed.data) <= COUNT * (own + {"gaussian_flow": 2 * 4 * 30, "native_4d": 36}.get(model, 30)) + 200


def test_packed_numbers_are_within_half_a_step_of_the_scenes() -> None:
    scene = make_scene("static")
    packed = pack_scene(scene)
    for name, tolerance in (("means", 1e-4), ("colors", 1e-5), ("opacities", 1e-5), ("scales", 1e-4)):
        entry = packed.header["arrays"][name]
        codes = np.frombuffer(packed.data, "<u2", entry["length"], entry["at"]).reshape(COUNT, -1)
        values = np.array(entry["low"]) + np.array(entry["step"]) * codes
        values = np.exp(values) if entry["logarithm"] else values
        np.testing.assert_allclose(values.squeeze(), getattr(scene, name), rtol=tolerance, atol=tolerance)


def test_positions_stay_floats_where_sixteen_bits_would_shift_small_gaussians() -> None:
    scene = make_scene("static")
    far = np.concatenate([scene.means[:-1], [[4000.0, 0.0, 0.0]]]).astype(np.float32)
    assert pack_scene(scene).header["arrays"]["means"]["type"] == "uint16"
    packed = pack_scene(dataclasses.replace(scene, means=far))
    entry = packed.header["arrays"]["means"]
    assert entry["type"] == "float32"
    np.testing.assert_array_equal(np.frombuffer(packed.data, "<f4", entry["length"], entry["at"]).reshape(-1, 3), far)


@pytest.mark.parametrize("name", ["means", "opacities"])
def test_a_scene_with_numbers_that_are_none_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    scene = make_scene("static")
    broken = getattr(scene, name).copy()
    broken[3] = np.nan
    with pytest.raises(WorldlineError, match=f"the scene's {name} are not all finite numbers"):
        write_player(dataclasses.replace(scene, **{name: broken}), tmp_path / "page.html", title="broken")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldlineError, match=r"cannot be written to .*file/page\.html"):
        write_player(make_scene("static"), tmp_path / "file" / "page.html", title="scene")


@pytest.mark.parametrize("model", MODELS)
@needs_chromium
@pytest.mark.browser
def test_the_browser_draws_what_the_engine_draws(model: str, browser: headless_chromium.Page, tmp_path: Path) -> None:
    scene, file = make_scene(model), tmp_path / "page.html"
    write_player(scene, file, title=model)
    visit(browser, file)
    seen = []
    for time_s, angle in ((0.9, 0.3), (2.1, -2.0)):
        pose = pose_beside(angle)
        seen.append(photograph(browser, time_s, pose))
        drawn = draw_scene(scene, time_s, np.linalg.inv(pose), INTRINSICS, WIDTH, HEIGHT).numpy()
        assert psnr_db(seen[-1], drawn) > 50  # 58.9 dB is what rounding to 8 bits leaves
    assert psnr_db(seen[0], seen[1]) < 25
    assert complaints(browser) == []
    assert all(address.startswith(("file:", "data:", "blob:")) for address in browser.requests)


@pytest.mark.parametrize("terms", [3, 8, 15, 24])
@needs_chromium
@pytest.mark.browser
def test_colours_that_depend_on_the_view_do_so_in_the_browser(
    terms: int, browser: headless_chromium.Page, tmp_path: Path
) -> None:
    scene, file = make_scene("static", harmonics=terms), tmp_path / "page.html"
    write_player(scene, file, title="harmonics")
    visit(browser, file)
    drawn = draw_scene(scene, 1.0, np.linalg.inv(pose_beside(0.7)), INTRINSICS, WIDTH, HEIGHT).numpy()
    plain = dataclasses.replace(scene, harmonics=None)
    without = draw_scene(plain, 1.0, np.linalg.inv(pose_beside(0.7)), INTRINSICS, WIDTH, HEIGHT).numpy()
    assert psnr_db(photograph(browser, 1.0, pose_beside(0.7)), drawn) > 50
    assert psnr_db(without, drawn) < 30


@needs_chromium
@pytest.mark.browser
def test_without_a_worker_the_page_sorts_by_itself(browser: headless_chromium.Page, tmp_path: Path) -> None:
    scene, file = make_scene("gaussian_flow"), tmp_path / "page.html"
    write_player(scene, file, title="no worker")
    file.write_text(file.read_text().replace("worker-src blob:", "worker-src 'none'"))
    visit(browser, file)
    assert browser.ask("player.inWorker") is False
    drawn = draw_scene(scene, 1.7, np.linalg.inv(pose_beside(0.3)), INTRINSICS, WIDTH, HEIGHT).numpy()
    assert psnr_db(photograph(browser, 1.7, pose_beside(0.3)), drawn) > 50


@needs_chromium
@pytest.mark.browser
def test_slider_and_keys_move_time_and_view(browser: headless_chromium.Page, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_player(make_scene("gaussian_flow"), file, title="keys")
    visit(browser, file, "#t=1.0")
    assert browser.ask("[player.playing, player.time]") == [False, 1.0], "a link to a moment stands still there"
    first = picture(browser)
    browser.ask(f"(s => {{ s.value = 2.0; s.dispatchEvent(new Event('input')) }})({part('time')})")
    assert browser.wait_for("player.shownTime === 2.0")
    assert psnr_db(picture(browser), first) < 25
    assert browser.ask(f"{part('clock')}.textContent") == "2.00 / 2.50 s"

    browser.ask(f"{part('canvas')}.focus()")
    press(browser, ",")
    assert browser.ask("player.time") < 2.0
    press(browser, "Home")
    assert browser.ask("player.time") == START_S
    press(browser, " ")
    assert browser.wait_for(f"player.time > {START_S} + 0.1")
    press(browser, " ")
    assert browser.ask("player.playing") is False

    home = browser.ask("player.camera")
    for key, changed in (("ArrowRight", "x"), ("ArrowUp", "y"), ("w", "eye"), ("+", "eye")):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        before = browser.ask(f"player.camera.{changed}")
        if key != "+":
            assert browser.wait_for(f"player.camera.{changed}.some((v, k) => Math.abs(v - {before}[k]) > 0.01)"), key
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)
    press(browser, "r")
    assert browser.ask("player.camera") == home
    assert complaints(browser) == []


@needs_chromium
@pytest.mark.browser
def test_the_mouse_turns_pans_and_zooms_about_the_point_ahead(browser: headless_chromium.Page, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_player(make_scene("static"), file, title="mouse")
    visit(browser, file)
    apart = "Math.hypot(...player.camera.eye.map((v, k) => v - {0}[k]))"
    start = browser.ask("player.camera")

    def drag(dx: int, dy: int, **options: Any) -> dict[str, Any]:
        browser.ask("player.reset()")
        for kind, x, y in (("mousePressed", 400, 300), ("mouseMoved", 400 + dx, 300 + dy), ("mouseReleased", 400 + dx, 300 + dy)):
            options["buttons"] = 0 if kind == "mouseReleased" else 2 if options.get("button") == "right" else 1
            browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **({"button": "left"} | options))
        return browser.ask("player.camera")

    turned = drag(80, 0)
    assert np.linalg.norm(np.subtract(turned["eye"], start["eye"])) > 0.1
    pivot = np.add(start["eye"], np.multiply(start["z"], browser.ask("player.distance")))
    np.testing.assert_allclose(np.add(turned["eye"], np.multiply(turned["z"], browser.ask("player.distance"))), pivot, atol=1e-4)
    assert turned["x"][2] == pytest.approx(0, abs=1e-6), "the horizon stays level"
    panned = drag(80, 40, button="right")
    np.testing.assert_allclose(panned["z"], start["z"], atol=1e-9)
    assert np.dot(np.subtract(panned["eye"], start["eye"]), start["x"]) < -0.05, "the scene follows the hand"
    browser.ask("player.reset()")
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=300, deltaX=0, deltaY=-300)
    assert browser.wait_for(apart.format(start["eye"]) + " > 0.1")
    nearer = browser.ask("player.camera")
    assert np.dot(np.subtract(nearer["eye"], start["eye"]), start["z"]) > 0.1


@needs_chromium
@pytest.mark.browser
def test_the_recorded_camera_is_followed_where_it_went(browser: headless_chromium.Page, tmp_path: Path) -> None:
    path = street_dataset.make_path()
    scene, file = make_scene("static", start_s=0.0, end_s=float(path.times_s[-1])), tmp_path / "page.html"
    write_player(
        dataclasses.replace(scene, means=scene.means + np.array([12, 0, 0], np.float32)), file, title="path", cameras=path
    )
    visit(browser, file)
    middle = path.world_from_camera[len(path.times_s) // 2]
    np.testing.assert_allclose(browser.ask("player.camera.eye"), middle[:3, 3], atol=1e-5)
    browser.ask(f"{part('follow')}.click()")
    assert browser.ask(f"{part('follow')}.getAttribute('aria-pressed')") == "true"
    for frame in (3, 20):
        browser.ask(f"player.seek({path.times_s[frame]})")
        assert browser.wait_for(f"Math.abs(player.shownTime - {path.times_s[frame]}) < 1e-9")
        camera = browser.ask("player.camera")
        shown = np.column_stack([camera["x"], camera["y"], camera["z"], camera["eye"]])
        np.testing.assert_allclose(shown, path.world_from_camera[frame][:3], atol=1e-5)
    without = picture(browser)
    browser.ask("player.reset(); player.showPath(true)")
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=300, deltaX=0, deltaY=400)
    assert psnr_db(picture(browser), without) < 40
    assert browser.ask("player.following") is False


@needs_chromium
@pytest.mark.browser
def test_a_browser_without_webgl2_says_so_in_words(browser: headless_chromium.Page, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_player(make_scene("static"), file, title="words")
    file.write_text(
        file.read_text().replace("<head>", "<head><script>HTMLCanvasElement.prototype.getContext = () => null</script>")
    )
    browser.call("Page.navigate", url=file.resolve().as_uri())
    assert browser.wait_for("window.player && player.failed")
    assert "WebGL2" in browser.ask(f"{part('message')}.innerText")
    assert browser.ask(f"{part('message')}.hidden") is False


@needs_chromium
@pytest.mark.browser
def test_a_scene_without_gaussians_shows_its_background(browser: headless_chromium.Page, tmp_path: Path) -> None:
    scene, file = make_scene("static"), tmp_path / "page.html"
    nothing = {name: getattr(scene, name)[:0] for name in ("means", "quats", "scales", "opacities", "colors")}
    write_player(dataclasses.replace(scene, **nothing), file, title="empty")
    visit(browser, file)
    np.testing.assert_allclose(photograph(browser, 1.0, pose_beside(0.0)) - scene.background, 0, atol=1 / 255)
    assert complaints(browser) == []


@needs_chromium
@pytest.mark.browser
def test_every_control_has_a_name_and_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_player(make_scene("gaussian_flow"), file, title="phone", cameras=street_dataset.make_path())
    with headless_chromium.open_page(file, width=390, height=780) as page:
        assert page.wait_for("window.player")
        root = "document.getElementById('worldline-player').shadowRoot"
        controls = f"[...{root}.querySelectorAll('button, input, select, summary, canvas')]"
        unnamed = f"{controls}.filter(control => !(control.ariaLabel || control.innerText)).length"
        assert page.ask(unnamed) == 0
        assert page.ask(
            f"[...{root}.querySelectorAll('button, select, input, output')].every(e => e.getBoundingClientRect().right <= 390)"
        )
        assert page.ask("document.documentElement.scrollWidth <= innerWidth")
        assert page.ask(f"{part('canvas')}.clientHeight > 400")


def test_a_fragment_does_nothing_until_its_page_starts_it() -> None:
    fragment = player_fragment(make_scene("static"), title="piece")
    assert "window.startPlayer = start" in fragment
    assert 'id="worldline-player"' in fragment


def test_what_the_player_cannot_show_it_says() -> None:
    scene = make_scene("native_4d", harmonics=3)
    waves = scene.motion | {"time_harmonics": np.full((COUNT, 1, 3, 3), 0.1, np.float32)}
    assert pack_scene(scene).header["note"] == ""
    assert "without its change with time" in pack_scene(dataclasses.replace(scene, motion=waves)).header["note"]
    assert "drawn as flat Gaussians" in pack_scene(make_scene("static", primitive="surfel")).header["note"]
