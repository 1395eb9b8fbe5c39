"""Procedural worlds: driving clips and small scenes with exact truth.

`build_street` describes a street and its traffic, `renderer.Renderer` draws it (VTK loads with it, 1.4 s), and
`truth.boxes_at` says where everything is. `protocols.capture` films one of the small worlds of `toys` with a ray caster.
"""

from worldline.worlds.scene import Lens, Scene
from worldline.worlds.street import LAYOUTS, build_street

__all__ = ["LAYOUTS", "Lens", "Scene", "build_street"]
