"""Depth of every frame of a clip: level 1 geometry that a model gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from schemas.artifact import Artifact
from schemas.media import Video

LARGEST = 65504.0  # of half precision


@dataclass(frozen=True, eq=False)
class DepthVideo(Artifact):
    """Depth along the optical axis, or inverse depth, of the frames of a clip; empty where no model was named.

    Values are kept in half precision: 11 significant bits, a relative error under 0.05 % at any distance from 0.06 mm on,
    which no depth model comes near. The bits of such numbers, none negative, order as they do, so that they make a
    16-bit picture that the lossless video codec packs as well as one of whole numbers.

    Attributes:
        times_s: `[T]` the clip's frame times; empty where there is no depth.
        quantity: "metric_depth" (metres), "relative_inverse_depth" (without a unit: 1 / depth up to an unknown factor and
            an unknown addend, in each frame by itself), or "none".
        half_bits: `[T, h, w]` uint16, the bits of half-precision values, 0 where there is none; see `at`.
        clip_width, clip_height: size of the clip's frames in pixels; `h, w` has the same aspect up to rounding.
        model: what made it: repository id or folder.
        revision: commit of a repository, "" for a folder.
        weights: digest of a folder's files, "" for a repository.
        licence: as the model's card says, "" where it says none.
    """

    level: ClassVar[int] = 1
    times_s: Float64[np.ndarray, " T"]
    quantity: str
    half_bits: Video | None
    clip_width: int
    clip_height: int
    model: str
    revision: str
    weights: str
    licence: str

    @classmethod
    def none(cls) -> "DepthVideo":
        """Return the depth of a clip that no model was asked about."""
        return cls(np.zeros(0), "none", None, 0, 0, "", "", "", "")

    def __post_init__(self) -> None:
        super().__post_init__()
        frames = 0 if self.half_bits is None else len(self.half_bits)
        if frames != len(self.times_s):
            raise ValueError(f"DepthVideo: {frames} frames but {len(self.times_s)} times")

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of depth per pixel of the clip, across and down; a clip's pixel x lies at `scale[0] * x`."""
        if self.half_bits is None:
            return 1.0, 1.0
        _, height, width = self.half_bits.shape
        return width / self.clip_width, height / self.clip_height

    def at(self, indices: Sequence[int]) -> Float32[np.ndarray, "N h w"]:
        """Return the values of these frames (metres, or relative inverse depth); 0 where there is none.

        Raises:
            IndexError: if there is no such frame.
        """
        if self.half_bits is None:
            raise IndexError("this clip has no depth: name a model in pose.depth.model")
        return self.half_bits.at(indices).view(np.float16).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """Return what it is, of how many frames, and the model that made it."""
        return {"quantity": self.quantity, "frames": len(self), "model": self.model, "licence": self.licence}


def half_bits_of(values: np.ndarray) -> np.ndarray:
    """Return values `[h, w]` as the bits of half precision; what is no number or not positive becomes 0."""
    positive = np.where(np.isfinite(values) & (values > 0), values, 0.0)
    return np.minimum(positive, LARGEST).astype(np.float16).view(np.uint16)
