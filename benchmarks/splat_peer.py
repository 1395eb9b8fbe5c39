"""The peer: the same computation in vectorised PyTorch, with the parts of gsplat 1.5.3 that run without a GPU.

gsplat's own reference compositing calls a CUDA operator, so that part is written here: tile by tile, all pixels of a
tile against all its Gaussians at once, under autograd.
"""

import itertools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TILE = 16


@dataclass
class PeerTimes:
    """Seconds of one forward and backward pass.

    Attributes:
        projection: gsplat's projection, forward.
        tiles: gsplat's `_isect_tiles` and `_isect_offset_encode`, or the vectorised twin.
        compositing: forward.
        backward: through compositing and, in a whole step, through projection.
    """

    projection: float
    tiles: float
    compositing: float
    backward: float

    @property
    def total(self) -> float:
        """Return the sum."""
        return self.projection + self.tiles + self.compositing + self.backward


def project(scene: dict[str, Any], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gsplat's radii, means2d, depths and conics `[1, N, ...]`."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    covars = _quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)[0]
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], size, size
    )
    return radii, means2d, depths, conics


def list_tiles(means2d: Tensor, radii: Tensor, depths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return gsplat's offsets `[tiles]` and ids `[M]`: an interpreter loop over Gaussians."""
    from gsplat.cuda._torch_impl import _isect_offset_encode, _isect_tiles

    across = -(-size // TILE)
    _, keys, ids = _isect_tiles(means2d, radii, depths, TILE, across, across)
    return _isect_offset_encode(keys, 1, across, across).flatten(), ids


@torch.no_grad()
def list_tiles_vectorised(means2d: Tensor, radii: Tensor, depths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the same lists without a loop in the interpreter."""
    across = -(-size // TILE)
    low = ((means2d[0] - radii[0]) / TILE).floor().long().clamp(0, across)
    high = ((means2d[0] + radii[0]) / TILE).ceil().long().clamp(0, across)
    wide = (high - low) * (radii[0] > 0).all(dim=-1, keepdim=True)
    counts = wide.prod(dim=-1)
    ids = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(ids)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    x, y = low[ids, 0] + within % wide[ids, 0], low[ids, 1] + within // wide[ids, 0]
    by_depth = torch.argsort(depths[0, ids])
    tiles = (y * across + x)[by_depth]
    order = torch.argsort(tiles, stable=True)
    sizes = torch.bincount(tiles, minlength=across * across)
    return sizes.cumsum(0) - sizes, ids[by_depth][order]


def composite(
    means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, offsets: Tensor, ids: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return colours `[H, W, D]` and alphas `[H, W]` of Gaussians `[N, ...]`."""
    across = -(-size // TILE)
    bounds = [*offsets.tolist(), len(ids)]
    inside = torch.arange(TILE * TILE)
    pixels = torch.stack([inside % TILE, inside // TILE], dim=-1) + 0.5
    images, alphas = [], []
    for tile in range(across * across):
        chosen = ids[bounds[tile] : bounds[tile + 1]].long()
        corner = torch.tensor([tile % across * TILE, tile // across * TILE], dtype=means2d.dtype)
        dx, dy = (pixels[:, None] + corner - means2d[chosen]).unbind(-1)
        a, b, c = conics[chosen].unbind(-1)
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (opacities[chosen] * torch.exp(-sigma)).clamp(max=0.999)
        alpha = torch.where((alpha >= 1.0 / 255.0) & (sigma >= 0), alpha, 0.0)
        after = torch.cumprod(1.0 - alpha, dim=-1)
        weight = torch.where(after > 1e-4, alpha * after / (1.0 - alpha), 0.0)
        images.append(weight @ colors[chosen])
        alphas.append(weight.sum(dim=-1))
    grid = (across, across, TILE, TILE)
    image = torch.stack(images).reshape(*grid, -1).permute(0, 2, 1, 3, 4).reshape(across * TILE, across * TILE, -1)
    alpha_image = torch.stack(alphas).reshape(grid).permute(0, 2, 1, 3).reshape(across * TILE, across * TILE)
    return image[:size, :size], alpha_image[:size, :size]


def step(scene: dict[str, Any], upstream: Tensor, size: int, fair_tiles: bool) -> tuple[PeerTimes, Tensor]:
    """Draw one image and take the gradient; return the times and the image.

    Args:
        scene: with leaves that require gradients.
        upstream: `[H, W, D]` gradient by the image.
        size: of the image in pixels.
        fair_tiles: list tiles without gsplat's interpreter loop.
    """
    marks = [time.perf_counter()]
    radii, means2d, depths, conics = project(scene, size)
    marks.append(time.perf_counter())
    listed = (list_tiles_vectorised if fair_tiles else list_tiles)(means2d.detach(), radii, depths.detach(), size)
    marks.append(time.perf_counter())
    image, _ = composite(means2d[0], conics[0], scene["opacities"], scene["colors"], *listed, size)
    marks.append(time.perf_counter())
    image.backward(upstream)
    marks.append(time.perf_counter())
    return PeerTimes(*(later - earlier for earlier, later in itertools.pairwise(marks))), image.detach()


def step_of_compositing(projected: list[Tensor], upstream: Tensor, size: int) -> float:
    """Composite what our projection returned, on lists made before, with its gradient; return the seconds."""
    listed = list_tiles_vectorised(projected[0][None], projected[5][None], projected[4][None], size)
    means2d, conics, opacities, colors = (tensor.detach().clone().requires_grad_() for tensor in projected[:4])
    start = time.perf_counter()
    image, _ = composite(means2d, conics, opacities, colors, *listed, size)
    image.backward(upstream)
    return time.perf_counter() - start
