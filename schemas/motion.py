"""What moves in the image: point tracks and labelled regions."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from schemas.artifact import Artifact
from schemas.media import Video


@dataclass(frozen=True, eq=False)
class PointTracks(Artifact):
    """Image points followed over time.

    Attributes:
        times_s: the clip's frame times.
        xy_px: `[N, T, 2]` pixel positions (pixel centres at +0.5); meaningless where not visible.
        visible: `[N, T]`.
        first_frame: `[N]` frame in which each point was picked.
    """

    level: ClassVar[int] = 1
    times_s: Float64[np.ndarray, " T"]
    xy_px: Float32[np.ndarray, "N T 2"]
    visible: Bool[np.ndarray, "N T"]
    first_frame: Int32[np.ndarray, " N"]

    def facts(self) -> dict[str, Any]:
        """Return the number of tracks and their median length in frames."""
        lengths = self.visible.sum(axis=1)
        return {"tracks": len(lengths), "median_length_frames": float(np.median(lengths)) if len(lengths) else 0.0}


@dataclass(frozen=True, eq=False)
class Masks(Artifact):
    """Moving regions of every frame, labelled by object.

    Attributes:
        labels: `[T, h, w]` uint16 at `scale` times the clip's resolution; 0 is static, k > 0 is moving object k,
            the same k in all frames.
        scale: mask pixels per clip pixel (0.5 means half resolution).
        method: how the regions were decided.
    """

    level: ClassVar[int] = 2
    labels: Video
    scale: float
    method: str

    def facts(self) -> dict[str, Any]:
        """Return the size of the masks."""
        return {"frames": len(self.labels), "scale": self.scale, "method": self.method}
