"""A set of Gaussians at one moment."""

from typing import NamedTuple

from torch import Tensor


class Gaussians(NamedTuple):
    """Gaussians as every rasteriser takes them.

    Attributes:
        means: `[N, 3]`.
        quats: `[N, 4]` wxyz.
        scales: `[N, 3]` linear, positive.
        opacities: `[N]` in [0, 1].
        colors: `[N, 3]` RGB in [0, 1].
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
