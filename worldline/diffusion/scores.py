"""How far made frames are from true ones, over many clips and parts of the picture."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8


class Squares:
    """Sums of squared errors by part of the picture.

    PSNR is taken of the mean over all pixels of all clips, so that a part with few pixels in a clip weighs as little.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(
        self,
        made: UInt8[np.ndarray, "T H W 3"],
        truth: UInt8[np.ndarray, "T H W 3"],
        places: Mapping[str, Bool[np.ndarray, "T H W"]],
    ) -> None:
        """Add the frames of a clip; `places` are the pixels that count, by the name of the part."""
        error = ((made.astype(np.float64) - truth) / 255) ** 2
        for name, place in places.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(error[place].sum()), count + 3 * int(place.sum())

    def psnr_db(self) -> dict[str, float]:
        """Return the peak signal-to-noise ratio of every part in dB; parts without a pixel or an error are left out."""
        return {name: -10 * float(np.log10(total / count)) for name, (total, count) in self._sums.items() if total > 0}
