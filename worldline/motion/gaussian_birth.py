"""Gaussians that are born, drift, fade and are gone: how files with time describe them.

The temporal model of the 4dgs container (4dgs.dev, "gaussian-birth"), which a sequence of frames is a case of:

    mean(t)    = mean + (t - peak) velocity
    opacity(t) = opacity exp(-(t - peak)^2 / (2 lifespan^2))   for start <= t < end, else 0
                                                               0 too where the exponential is under `CULLED`

Nothing is fitted with it: scenes that were read from files have it. It is exact for native 4D Gaussians, whose cuts drift
in straight lines, and holds key frames as Gaussians whose windows follow each other.

Arrays of `motion`, for N Gaussians, in normalised time:
    velocities: `[N, 3]` scene units.
    peaks: `[N]` when each is where `means` says, and most opaque.
    lifespans: `[N]` standard deviations, infinite for those that do not fade.
    starts, ends: `[N]` float64, each is there from its start until before its end; infinite where it has none.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.motion.native_4d import CULLED  # the container's own default


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time; those outside their window have opacity 0."""
    since = time - motion["peaks"]
    presence = torch.exp(-0.5 * (since / motion["lifespans"]).square())
    presence = torch.where(presence >= CULLED, presence, torch.zeros_like(presence)) * _there(motion, time)
    means = canonical.means + since[:, None] * motion["velocities"]
    return canonical._replace(means=means, opacities=canonical.opacities * presence)


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` derivatives of the centres by the normalised time; 0 for those that are not there."""
    return motion["velocities"] * _there(motion, time)[:, None]


def _there(motion: Mapping[str, Tensor], time: float) -> Tensor:
    return ((motion["starts"] <= time) & (time < motion["ends"])).to(motion["velocities"].dtype)
