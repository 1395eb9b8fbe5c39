"""The scene itself in the report: a player that waits behind a picture until somebody wants to walk around."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.scenes import Scene4D
from stages.export.media import data_uri, encode_jpeg
from stages.export.novel_views import render_path
from worldline.formats.player import player_fragment

_POSTER_QUALITY = 72


@dataclass(frozen=True)
class Walk:
    """A scene to walk around in.

    Attributes:
        html: the player; empty where there is no scene, or one that is too large for the page.
        poster: address of the picture to show until the player is started; empty where there is no scene.
        size: width and height of the player's first shape.
        megabytes: what the player takes or would take.
        count: of the scene's Gaussians.
    """

    html: Markup
    poster: str
    size: tuple[int, int]
    megabytes: float
    count: int


def make_walk(clip: Clip, path: CameraPath, scene: Scene4D, size: tuple[int, int], max_megabytes: float) -> Walk:
    """Return the player, which begins at the middle of the camera's path, and what that camera sees as its poster."""
    posed = np.flatnonzero(path.registered)
    if not len(posed) or not len(scene.means):
        return Walk(Markup(), "", size, 0.0, 0)
    html = player_fragment(scene, title=clip.name, cameras=path)
    middle = posed[[len(posed) // 2]]
    (picture,) = render_path(scene, path, path.world_from_camera, middle, size, lambda: None)
    poster = data_uri(encode_jpeg(picture, _POSTER_QUALITY), "image/jpeg")
    megabytes = len(html) / 1e6
    return Walk(html if megabytes <= max_megabytes else Markup(), poster, size, megabytes, len(scene.means))
