"""No motion: the Gaussians are the same at all times."""

from collections.abc import Mapping

import torch
from torch import Tensor

from worldline.gaussians import Gaussians


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the canonical Gaussians."""
    return canonical


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return zeros `[N, 3]`."""
    return torch.zeros_like(canonical.means)
