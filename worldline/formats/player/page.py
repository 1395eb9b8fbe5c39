"""A self-contained HTML page that plays a 4D scene in a browser."""

import base64
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from schemas.cameras import CameraPath
from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.formats.player.packing import pack_scene
from worldline.scenes import NEAR_SHARE

_FOLDER = Path(__file__).parent
_SCRIPTS = ("view.js", "engine.js", "drawing.js", "player.js")
_SHADERS = ("splat.vert", "splat.frag", "line.vert", "line.frag", "show.vert", "show.frag")
# A scene without a recorded camera is looked at from the side, so that nine tenths of it are seen by a lens of this height.
_FIELD_OF_VIEW = np.radians(50.0)
# The point that the view turns around lies at this share of the median depth: what one walks around is near.
_PIVOT_SHARE = 0.4


def write_player(scene: Scene4D, path: Path, *, title: str, cameras: CameraPath | None = None) -> int:
    """Write a page that plays the scene and needs neither a network nor anything beside it.

    Args:
        scene: any motion model; see `worldline.formats.player.packing` for what is evaluated and what is sampled.
        path: the file to write; one that is there is replaced.
        title: shown on the page.
        cameras: the path that the scene was fitted to: the page begins at its middle and can look through it.

    Returns:
        The size of the page in bytes.

    Raises:
        WorldlineError: if the scene holds numbers that are not finite, or the file cannot be written.
    """
    page = _render("page.html", title=title, fragment=player_fragment(scene, title=title, cameras=cameras, whole=True)).encode()
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(page)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise WorldlineError(f"the player cannot be written to {path} ({error.strerror}): name another file") from None
    return len(page)


def player_fragment(scene: Scene4D, *, title: str, cameras: CameraPath | None = None, whole: bool = False) -> Markup:
    """Return the player as a piece of HTML for another page.

    An element `#worldline-player`, which the page gives a height, its data, and a script. Unless `whole`, nothing happens
    until the page calls `startPlayer()`; `player` is then what scripts drive it with. A page with a content security policy
    must allow inline styles and scripts; without `worker-src blob:` sorting happens on the page's own thread.
    """
    packed = pack_scene(scene)
    header = packed.header | _describe_view(scene, cameras) | {"title": title, "nearShare": NEAR_SHARE}
    assets = {
        "style": _read("player.css"),
        "markup": _read("markup.html"),
        "shaders": {name: _read(name) for name in _SHADERS},
        "whole": whole,
    }
    return Markup(
        _render(
            "fragment.html",
            assets=_script_json(assets),
            header=_script_json(header),
            data=Markup(base64.b64encode(packed.data).decode()),
            script=Markup("\n".join(_read(name) for name in _SCRIPTS)),
            whole=whole,
        )
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(**values)


def _script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@dataclass(frozen=True)
class _Cloud:
    """Where a scene is: its middle and the radius that holds nine tenths of its opaque Gaussians."""

    middle: np.ndarray
    radius: float


def _describe_view(scene: Scene4D, cameras: CameraPath | None) -> dict[str, Any]:
    """Return the pose, lens, pivot, up direction and time that the page begins with, and the recorded cameras."""
    posed = np.flatnonzero(cameras.registered) if cameras is not None else np.zeros(0, int)
    if cameras is None or not len(posed):
        return _view_from_the_side(scene)
    middle = posed[len(posed) // 2]
    pose = cameras.world_from_camera[middle]
    K = cameras.intrinsics
    if cameras.gravity_source != "none":
        up = np.array([0.0, 0.0, 1.0])
    else:
        mean = -cameras.world_from_camera[posed, :3, 1].mean(axis=0)
        up = mean / max(np.linalg.norm(mean), 1e-9)
    depths = (scene.means - pose[:3, 3]) @ pose[:3, 2]
    ahead = depths[depths > 0]
    return {
        "pose": _rounded(pose[:3]),
        "lens": [*_rounded(K[[0, 1, 0, 1], [0, 1, 2, 2]]), cameras.width, cameras.height],
        "pivot": _PIVOT_SHARE * float(np.median(ahead)) if len(ahead) else 1.0,
        "up": _rounded(up),
        "shown": float(np.clip(cameras.times_s[middle], scene.start_s, scene.end_s)),
        "cameras": {
            "times_s": _rounded(cameras.times_s[posed]),
            "poses": [_rounded(row[:3]) for row in cameras.world_from_camera[posed]],
            "intrinsics": _rounded(K),
            "width": cameras.width,
            "height": cameras.height,
        },
    }


def _view_from_the_side(scene: Scene4D) -> dict[str, Any]:
    cloud = _measure(scene)
    distance = cloud.radius / np.sin(0.5 * _FIELD_OF_VIEW)
    forward = np.array([0.0, np.cos(0.3), -np.sin(0.3)])  # from the south, looking a little down
    right = np.array([1.0, 0.0, 0.0])
    pose = np.column_stack([right, np.cross(forward, right), forward, cloud.middle - distance * forward])
    height = 1000
    focal = 0.5 * height / np.tan(0.5 * _FIELD_OF_VIEW)
    lens = [focal, focal, 0.5 * height, 0.5 * height, height, height]
    return {"pose": _rounded(pose), "lens": lens, "pivot": distance, "up": [0, 0, 1], "shown": scene.start_s, "cameras": None}


def _measure(scene: Scene4D) -> _Cloud:
    solid = scene.means[scene.opacities > 0.1] if np.any(scene.opacities > 0.1) else scene.means
    if not len(solid):
        return _Cloud(np.zeros(3), 1.0)
    middle = np.median(solid, axis=0)
    return _Cloud(middle, max(float(np.percentile(np.linalg.norm(solid - middle, axis=1), 90)), 1e-3))


def _rounded(array: np.ndarray) -> list[float]:
    """Return the numbers row by row with nine significant digits."""
    return [float(f"{value:.9g}") for value in np.ravel(array)]
