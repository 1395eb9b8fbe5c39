"""A set of Gaussians at one moment."""

from typing import NamedTuple

from torch import Tensor


class Gaussians(NamedTuple):
    """Gaussians as every rasteriser takes them: a shape is either quats and scales, or covars.

    Attributes:
        means: `[..., N, 3]`.
        quats: `[..., N, 4]` wxyz of any length, or None where `covars` is given.
        scales: `[..., N, 3]` linear, positive, or None where `covars` is given. A surfel's third scale is 0.
        opacities: `[..., N]` in [0, 1].
        colors: `[..., N, 3]` RGB in [0, 1]: what is seen from all sides together.
        harmonics: `[..., N, K, 3]` real spherical harmonics of degrees 1 and up, K = (degree + 1)^2 - 1, added to `colors`;
            None where the colour is the same from all sides.
        covars: `[..., N, 3, 3]` symmetric, or None.
    """

    means: Tensor
    quats: Tensor | None
    scales: Tensor | None
    opacities: Tensor
    colors: Tensor
    harmonics: Tensor | None = None
    covars: Tensor | None = None
