"""4D scenes of Gaussians."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int32

from schemas.artifact import ADDED, Artifact


@dataclass(frozen=True, eq=False)
class Scene4D(Artifact):
    """Canonical Gaussians and the parameters of the motion model that moves them.

    The frame and unit are those of the camera path that the scene was fitted to. `worldline.motion` turns it into
    Gaussians at a time.

    Attributes:
        motion_model: name in `worldline.motion.MODELS`.
        means: `[N, 3]`.  quats: `[N, 4]` wxyz, unit.  scales: `[N, 3]` linear, positive.
        opacities: `[N]` in [0, 1].  colors: `[N, 3]` RGB in [0, 1].
        motion: the motion model's arrays by name; empty for a static scene.
        start_s, end_s: the time span that was fitted; models normalise time over it.
        background: RGB in [0, 1] behind the Gaussians.
        scale_source, scale_sigma: copied from the camera path.
        harmonics: `[N, K, 3]` real spherical harmonics of degrees 1 and up, added to `colors` by viewing direction; None
            where colours are the same from all sides.
        instances: `[N]` which object each Gaussian belongs to, 0 for none; None where that is not known.
        primitive: "gaussian", or "surfel" for flat ones (third scale 0, drawn by `rasterize_surfels`); None means "gaussian".
    """

    level: ClassVar[int] = 3
    motion_model: str
    means: Float32[np.ndarray, "N 3"]
    quats: Float32[np.ndarray, "N 4"]
    scales: Float32[np.ndarray, "N 3"]
    opacities: Float32[np.ndarray, " N"]
    colors: Float32[np.ndarray, "N 3"]
    motion: dict[str, np.ndarray]
    start_s: float
    end_s: float
    background: Float64[np.ndarray, "3"]
    scale_source: str
    scale_sigma: float
    harmonics: Float32[np.ndarray, "N K 3"] | None = field(default=None, metadata=ADDED)
    instances: Int32[np.ndarray, " N"] | None = field(default=None, metadata=ADDED)
    primitive: str | None = field(default=None, metadata=ADDED)

    def facts(self) -> dict[str, Any]:
        """Return the model and its number of Gaussians."""
        return {"motion_model": self.motion_model, "gaussians": len(self.means)}
