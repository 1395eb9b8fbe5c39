"""Procedural worlds: driving clips with exact truth.

`build_street` describes a street and its traffic, `Renderer` draws it, `boxes_at` says where everything is.
"""

from worldline.worlds.renderer import Renderer, View, render
from worldline.worlds.scene import Lens, Scene
from worldline.worlds.street import LAYOUTS, build_street

__all__ = ["LAYOUTS", "Lens", "Renderer", "Scene", "View", "build_street", "render"]
