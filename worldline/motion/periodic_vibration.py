"""Periodic vibration: Gaussians that swing about their place and are there for a while.

Chen, Gu, Jiang, Zhu, Zhang, "Periodic vibration Gaussian: dynamic urban scene reconstruction and real-time rendering", 2023,
section 3.2:

    mean(t)    = mean + cycle / (2 pi) sin(2 pi (t - peak) / cycle) velocity
    opacity(t) = opacity exp(-(t - peak)^2 / (2 lifespan^2))

A static Gaussian is one with a long life span and no velocity, so a street needs no split into what moves and what does not.

Arrays of `motion`, for N Gaussians, all in normalised time:
    velocities: `[N, 3]` at the peak, in scene units.
    peaks: `[N]` when each is most opaque.
    lifespans: `[N]` standard deviations, positive.
    cycle: `[1]` the period of the swing, one for all.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from worldline.gaussians import Gaussians


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time; differentiable by all tensors."""
    since, cycle = time - motion["peaks"], motion["cycle"]
    swing = cycle / (2 * math.pi) * torch.sin(2 * math.pi * since / cycle)
    presence = torch.exp(-0.5 * (since / motion["lifespans"]).square())
    return canonical._replace(
        means=canonical.means + swing[:, None] * motion["velocities"], opacities=canonical.opacities * presence
    )


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` derivatives of the centres by the normalised time: velocity cos(2 pi (t - peak) / cycle)."""
    return torch.cos(2 * math.pi * (time - motion["peaks"]) / motion["cycle"])[:, None] * motion["velocities"]
