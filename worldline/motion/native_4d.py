"""Native 4D Gaussians: ellipsoids of space and time, cut at the moment that is asked for.

Yang, Yang, Pan, Zhang, "Real-time photorealistic dynamic scene representation and rendering with 4D Gaussian splatting",
ICLR 2024, section 3. A Gaussian has a mean (x, y, z, t), four standard deviations and a rotation of 4D space, which two unit
quaternions make: v -> q_left v conj(q_right) for a point v taken as a quaternion. Its cut at a time is a Gaussian of space:

    velocity    = Sigma_xt / Sigma_tt
    mean(t)     = mean + velocity (t - mean_t)
    covariance  = Sigma_xx - Sigma_xt Sigma_tx / Sigma_tt          the same at all times
    opacity(t)  = opacity exp(-(t - mean_t)^2 / (2 Sigma_tt))      0 where the exponential is at most `CULLED`

Equal quaternions leave the time axis alone: the Gaussian stands still, turned in space by q_left, as a 3D Gaussian with that
quaternion is. Where they differ space leans into time, and that is motion.

Colours change with time as the cosine half of a Fourier series over the clip, times the spherical harmonics of the viewing
direction ("4D spherindrical harmonics", section 3.3); the term of order 0 is the canonical colour.

Canonical arrays: `quats` are the left quaternions, `scales` the three spatial standard deviations before rotation.
Arrays of `motion`, for N Gaussians:
    times: `[N]` mean_t, normalised.
    time_scales: `[N]` standard deviation along the fourth axis before rotation, normalised time.
    right_quats: `[N, 4]` wxyz.
    time_colors: `[N, n, 3]`, optional: orders 1 to n of the colour seen from all sides.
    time_harmonics: `[N, n, K, 3]`, optional: the same of the harmonics of degrees 1 and up.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.motion.cuts import cut_gaussians, product_tables

CULLED = 0.05  # of the peak opacity: what is weaker at a time is not there


class Cut(NamedTuple):
    """What a 4D Gaussian is in every slice of space.

    Attributes:
        velocities: `[N, 3]` scene units per normalised time.
        variances: `[N]` Sigma_tt: of the time at which the Gaussian is there.
        covars: `[N, 3, 3]` of its cut.
    """

    velocities: Tensor
    variances: Tensor
    covars: Tensor


def rotation_4d(left: Tensor, right: Tensor) -> Tensor:
    """Return rotations of (x, y, z, t), `[4, 4, N]` with the Gaussians last, from quaternions `[N, 4]` of any length.

    The rotation is v -> left v conj(right): equal quaternions turn space alone.
    """
    left_index, left_sign, right_index, right_sign = map(torch.from_numpy, product_tables())
    unit_left, unit_right = (torch.nn.functional.normalize(quats, dim=-1).T for quats in (left, right))
    left_matrix = left_sign.to(left)[:, :, None] * unit_left[left_index.to(left.device)]
    right_matrix = right_sign.to(right)[:, :, None] * unit_right[right_index.to(right.device)]
    # The Gaussians lie last: ten thousand products of 4x4 matrices are slow one by one and fast entry by entry.
    return (left_matrix[:, :, None] * right_matrix[None]).sum(dim=1)


def cut(left: Tensor, right: Tensor, sizes: Tensor) -> Cut:
    """Condition 4D Gaussians on time; differentiable. `cut_gaussians` is its fast twin.

    Args:
        left: `[N, 4]` quaternions of any length.
        right: `[N, 4]` the same.
        sizes: `[N, 4]` standard deviations along x, y, z and time before rotation.
    """
    factor = rotation_4d(left, right) * sizes.T  # Sigma = factor factor^T
    space, time = factor[:3], factor[3]
    variances = time.square().sum(dim=0)
    velocities = (space * time).sum(dim=1) / variances
    # What is left of space without its part along time. Squared it is the conditional covariance, and unlike the textbook's
    # difference it stays positive when a thin Gaussian moves fast.
    rest = space - velocities[:, None] * time
    covars = (rest[:, None] * rest[None]).sum(dim=2)
    return Cut(velocities.T, variances, covars.permute(2, 0, 1))


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time, as means and covariances; differentiable by all tensors."""
    since = time - motion["times"]
    velocities, variances, covars = _cut(canonical, motion)
    presence = torch.exp(-0.5 * since.square() / variances)
    presence = torch.where(presence > CULLED, presence, torch.zeros_like(presence))
    colors, harmonics = canonical.colors, canonical.harmonics
    if (orders := motion.get("time_colors")) is not None:
        colors = colors + (_cosines(since, orders.shape[1])[..., None] * orders).sum(dim=1)
    if harmonics is not None and (orders := motion.get("time_harmonics")) is not None:
        harmonics = harmonics + (_cosines(since, orders.shape[1])[..., None, None] * orders).sum(dim=1)
    return Gaussians(
        means=canonical.means + velocities * since[:, None],
        quats=None,
        scales=None,
        opacities=canonical.opacities * presence,
        colors=colors,
        harmonics=harmonics,
        covars=covars,
    )


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` Sigma_xt / Sigma_tt by the normalised time: each Gaussian flies straight."""
    return _cut(canonical, motion).velocities


def spread(canonical: Gaussians, motion: Mapping[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return offsets in space `[N, 3]` and time `[N]`, drawn from the 4D Gaussians by standard normal noise `[N, 4]`.

    Where a Gaussian is split its children go apart in time as well (Yang et al. 2024, section 3.4).
    """
    rotation = rotation_4d(cast(Tensor, canonical.quats), motion["right_quats"])
    offsets = (rotation * (_sizes(canonical, motion) * noise).T).sum(dim=1).T
    return offsets[:, :3], offsets[:, 3]


def _cut(canonical: Gaussians, motion: Mapping[str, Tensor]) -> Cut:
    quats, sizes = cast(Tensor, canonical.quats), _sizes(canonical, motion)
    if quats.is_cuda:
        return cut(quats, motion["right_quats"], sizes)
    return Cut(*cut_gaussians(quats, motion["right_quats"], sizes))


def _sizes(canonical: Gaussians, motion: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([cast(Tensor, canonical.scales), motion["time_scales"][:, None]], dim=1)


def _cosines(since: Tensor, orders: int) -> Tensor:
    """Return `[N, orders]`: cos(2 pi n (t - mean_t)) for n from 1."""
    return torch.cos(2 * math.pi * since[:, None] * torch.arange(1, orders + 1, dtype=since.dtype, device=since.device))
