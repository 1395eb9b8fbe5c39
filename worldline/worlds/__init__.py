"""Procedural worlds: driving clips and small scenes with exact truth.

`build_street` describes a street and its traffic, `build_random_street` one of endlessly many. `renderer.Renderer` draws
it (VTK loads with it, 1.4 s), `truth.boxes_at` says where everything is, `road_map` and `lidar` what a survey and a laser
say. `protocols.capture` films one of the small worlds of `toys` with a ray caster.
"""

from worldline.worlds.layouts import LAYOUTS
from worldline.worlds.scene import Lens, Scene
from worldline.worlds.street import build_random_street, build_street

__all__ = ["LAYOUTS", "Lens", "Scene", "build_random_street", "build_street"]
