"""Dual-domain deformation: every attribute of a moving Gaussian is a polynomial plus a Fourier series in time.

Lin, Dai, Zhu, Yao, "Gaussian-Flow: 4D reconstruction with dynamic 3D Gaussian particle", CVPR 2024, equations 4 to 7:

    S(t) = S0 + sum_n a_n t'^n + sum_l [ b_l sin(2 pi l t') + c_l (cos(2 pi l t') - 1) ],   t' = TIME_SCALE t - centre

for position, rotation and colour; sizes and opacities stay. Three choices of ours. The constant terms of the paper are
left out and the cosines start at zero, because they only repeat S0: the canonical state is then the true state at the
Gaussian's own time centre. The paper's global time bias is left out, because the centres contain it. And only the
Gaussians listed in `moving` carry coefficients: a street is mostly standing still.

Arrays of `motion`, for M moving Gaussians among N:
    moving: `[M]` int64, their indices in the canonical set.
    time_centers: `[M]`.
    position_polynomial, rotation_polynomial, color_polynomial: `[M, P, 3 | 4 | 3]`, powers 1 to P (P may differ).
    position_fourier, rotation_fourier, color_fourier: `[M, 2 L, 3 | 4 | 3]`, L sines, then L cosines.
"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor

from worldline.gaussians import Gaussians

# The paper's "adaptive timestamp scaling": the first Fourier term completes half a period over the clip, so a motion
# need not return to where it began.
TIME_SCALE = 0.5


def basis(time_centers: Tensor, time: float, powers: int, harmonics: int) -> Tensor:
    """Return `[M, powers + 2 * harmonics]`: t'^n, sin(2 pi l t'), cos(2 pi l t') - 1."""
    local = TIME_SCALE * time - time_centers
    columns = [local**n for n in range(1, powers + 1)]
    phases = [2 * math.pi * order * local for order in range(1, harmonics + 1)]
    columns += [torch.sin(phase) for phase in phases] + [torch.cos(phase) - 1.0 for phase in phases]
    return torch.stack(columns, dim=-1) if columns else local.new_zeros(len(local), 0)


def basis_rate(time_centers: Tensor, time: float, powers: int, harmonics: int) -> Tensor:
    """Return the derivative of `basis` by the normalised time."""
    local = TIME_SCALE * time - time_centers
    columns = [n * local ** (n - 1) for n in range(1, powers + 1)]
    rates = [2 * math.pi * order for order in range(1, harmonics + 1)]
    columns += [rate * torch.cos(rate * local) for rate in rates] + [-rate * torch.sin(rate * local) for rate in rates]
    return TIME_SCALE * torch.stack(columns, dim=-1) if columns else local.new_zeros(len(local), 0)


def _series(motion: Mapping[str, Tensor], attribute: str, time: float, function: Callable[..., Tensor] = basis) -> Tensor:
    polynomial, fourier = motion[f"{attribute}_polynomial"], motion[f"{attribute}_fourier"]
    terms = function(motion["time_centers"], time, polynomial.shape[1], fourier.shape[1] // 2)
    return (terms[..., None] * torch.cat([polynomial, fourier], dim=1)).sum(dim=1)


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time in [0, 1]; differentiable by all tensors."""
    moving = motion["moving"]
    if not len(moving):
        return canonical
    quats = cast(Tensor, canonical.quats)
    return canonical._replace(
        means=canonical.means.index_add(0, moving, _series(motion, "position", time)),
        quats=torch.nn.functional.normalize(quats.index_add(0, moving, _series(motion, "rotation", time)), dim=-1),
        colors=canonical.colors.index_add(0, moving, _series(motion, "color", time)).clamp(0.0, 1.0),
    )


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` derivatives of the centres by the normalised time, in closed form."""
    velocity = torch.zeros_like(canonical.means)
    return velocity.index_add(0, motion["moving"], _series(motion, "position", time, basis_rate))
