"""Prices on motion that nothing in nature makes: neighbours that tear apart, jumps in time, motion for its own sake.

All return one number, zero for what they ask for, and are differentiable. Weights are the caller's.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from worldline.gaussians import Gaussians


class Neighbours(NamedTuple):
    """The nearest neighbours of points.

    Attributes:
        indices: `[N, K]` int64.
        weights: `[N, K]` exp(-falloff d^2), d the distance.
    """

    indices: Tensor
    weights: Tensor


def find_neighbours(means: Tensor, count: int, falloff: float) -> Neighbours:
    """Return the `count` nearest other points of each of `[N, 3]` means (fewer where there are fewer).

    Args:
        means: `[N, 3]`, taken as they are: found once, used for many steps.
        count: K; the papers take 20.
        falloff: one over the square of the distance at which a neighbour hardly counts.
    """
    points = means.detach().cpu().numpy()
    count = min(count, len(points) - 1)
    if count < 1:
        return Neighbours(torch.zeros(len(points), 0, dtype=torch.int64), means.new_zeros(len(points), 0))
    distances, indices = cKDTree(points).query(points, k=count + 1)
    # Itself is among the nearest but not always the first: points may coincide.
    own = indices == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    distances, indices = (array[~own].reshape(-1, count) for array in (distances, indices))
    return Neighbours(torch.from_numpy(indices).to(means.device), torch.from_numpy(np.exp(-falloff * distances**2)).to(means))


def rigidity(first: Gaussians, second: Gaussians, neighbours: Neighbours) -> Tensor:
    """Return how far neighbourhoods are from moving as rigid bodies between two states.

    Mean of w_ij |(x_j - x_i)(t1) - R_i(t1) R_i(t2)^-1 (x_j - x_i)(t2)|^2: a neighbour, seen from the turning Gaussian, stays
    where it is (Luiten et al., "Dynamic 3D Gaussians", 2024, equation 5; the KNN term of Gaussian-Flow). Gaussians given by
    covariances have no rotation of their own and count as not turning.

    Args:
        first: state at t1, `[N]` Gaussians.
        second: state at t2.
        neighbours: of the N.
    """
    indices, weights = neighbours
    arms = first.means[indices] - first.means[:, None]
    others = second.means[indices] - second.means[:, None]
    if first.quats is not None and second.quats is not None:
        # R1 R2^-1 b = a  <=>  R2^-1 b = R1^-1 a, and lengths do not change.
        arms, others = _unturn(first.quats, arms), _unturn(second.quats, others)
    return (weights * (arms - others).square().sum(dim=-1)).mean()


def velocity_rigidity(velocities: Tensor, neighbours: Neighbours) -> Tensor:
    """Return the mean of w_ij |v_i - v_j| over `[N, 3]` velocities: neighbours fly together (Yang et al. 2024)."""
    squared = (velocities[neighbours.indices] - velocities[:, None]).square().sum(dim=-1)
    # The length of a difference has no slope at 0; there it is flat here.
    lengths = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)
    return (neighbours.weights * lengths).mean()


def time_smoothness(later: Tensor, now: Tensor) -> Tensor:
    """Return the mean of |later - now| where `now` is taken as given.

    Gaussian-Flow's time term: the same attribute a random short while later, `[N, D]`. Only `later` has a gradient: the
    present is held by the images, and what no image sees follows it.
    """
    return (later - now.detach()).abs().mean()


def motion_price(left: Tensor, right: Tensor) -> Tensor:
    """Return the mean |q_left - q_right| of unit quaternions: how much native 4D Gaussians move.

    Args:
        left: `[N, 4]` of any length.
        right: `[N, 4]` of any length.
    """
    unit = torch.nn.functional.normalize
    return (unit(left, dim=-1) - unit(right, dim=-1)).abs().sum(dim=-1).mean()


def _unturn(quats: Tensor, vectors: Tensor) -> Tensor:
    """Turn vectors `[N, K, 3]` back by quaternions `[N, 4]` of any length."""
    unit = torch.nn.functional.normalize(quats, dim=-1)[:, None]
    axis = -unit[..., 1:].expand_as(vectors)
    once = torch.linalg.cross(axis, vectors)
    return vectors + 2.0 * (unit[..., :1] * once + torch.linalg.cross(axis, once))
