"""The scenes of the bench `splat`, and the pairs of a pixel and a Gaussian that they need, counted one by one."""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from worldline.splatting import rasterization
from worldline.splatting.compositing import ALPHA_MAXIMUM, TRANSMITTANCE_MINIMUM
from worldline.splatting.projection import ALPHA_THRESHOLD

MEDIAN_SIZE = 1.8  # pixels: standard deviation of a Gaussian of median size
SCENE = (
    f"sizes lognormal around {MEDIAN_SIZE} px (0.5 between Gaussians, 0.4 between axes, in natural logarithms), any rotation, "
    "opacities sigmoid(-1 + 1.5 normal), positions uniform in the view's pyramid, 3 channels, float32"
)


class Pairs(NamedTuple):
    """Pairs of a pixel and a Gaussian.

    Attributes:
        touched: with an alpha of at least 1/255.
        needed: of those, the ones that meet a pixel that is not finished: they change the image, or finish a pixel.
    """

    touched: int
    needed: int


def make_scene(count: int, size: int, seed: int = 0, device: str = "cpu") -> dict[str, Any]:
    """Return the arguments of `rasterization` for one square image of `size` pixels: as many pairs per Gaussian at any size."""
    generator = torch.Generator().manual_seed(seed)
    depth = 2.0 + 4.0 * torch.rand(count, 1, generator=generator)
    across = (torch.rand(count, 2, generator=generator) - 0.5) * 1.05
    spread = torch.exp(0.5 * torch.randn(count, 1, generator=generator) + math.log(MEDIAN_SIZE))
    scales = spread * torch.exp(0.4 * torch.randn(count, 3, generator=generator)) * depth / size
    opacities = torch.sigmoid(1.5 * torch.randn(count, generator=generator) - 1.0)
    scene = {
        "means": torch.cat([across * depth, depth], dim=1),
        "quats": torch.randn(count, 4, generator=generator),
        "scales": scales,
        "opacities": opacities,
        "colors": torch.rand(count, 3, generator=generator),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[float(size), 0.0, size / 2], [0.0, float(size), size / 2], [0.0, 0.0, 1.0]]]),
    }
    return {name: value.to(device) for name, value in scene.items()}


def project(scene: dict[str, Any], size: int) -> list[Tensor]:
    """Return what is composited: means2d, conics, opacities, colours, depths and radii of one image."""
    with torch.no_grad():
        meta = rasterization(**scene, width=size, height=size)[2]
    projected = {name: meta[name][0].contiguous() for name in ("means2d", "conics", "opacities", "depths", "radii")}
    projected["colors"] = scene["colors"]
    return [projected[name] for name in ("means2d", "conics", "opacities", "colors", "depths", "radii")]


def count_pairs(projected: list[Tensor], size: int) -> Pairs:
    """Count the pairs of a square image."""
    means2d, conics, opacities, _, depths, radii = (tensor.numpy() for tensor in projected)
    seen = np.flatnonzero(radii[:, 0] > 0)
    order = seen[np.argsort(depths[seen], kind="stable")]
    return Pairs(*_count(order, means2d, conics, opacities, radii, size, size))


@numba.njit(nogil=True, cache=True)
def _count(order, means2d, conics, opacities, radii, width, height):  # type: ignore[no-untyped-def]
    transmittance = np.ones((height, width))
    touched = needed = 0
    for i in order:
        u, v = means2d[i, 0], means2d[i, 1]
        for y in range(max(0, math.floor(v - radii[i, 1])), min(height, math.ceil(v + radii[i, 1]) + 1)):
            for x in range(max(0, math.floor(u - radii[i, 0])), min(width, math.ceil(u + radii[i, 0]) + 1)):
                dx, dy = x + 0.5 - u, y + 0.5 - v
                sigma = 0.5 * (conics[i, 0] * dx * dx + conics[i, 2] * dy * dy) + conics[i, 1] * dx * dy
                alpha = min(ALPHA_MAXIMUM, opacities[i] * math.exp(-sigma))
                if alpha < ALPHA_THRESHOLD:
                    continue
                touched += 1
                if transmittance[y, x] <= TRANSMITTANCE_MINIMUM:
                    continue
                needed += 1
                after = transmittance[y, x] * (1.0 - alpha)
                transmittance[y, x] = after if after > TRANSMITTANCE_MINIMUM else 0.0
    return touched, needed
