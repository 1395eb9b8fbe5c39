"""Dual-domain deformation: every attribute of a moving Gaussian is a polynomial plus a Fourier series in time.

Lin, Dai, Zhu, Yao, "Gaussian-Flow: 4D reconstruction with dynamic 3D Gaussian particle", CVPR 2024, equations 4 to 7:

    S(t) = S0 + sum_n a_n t'^n + sum_l [ b_l sin(2 pi l t') + c_l (cos(2 pi l t') - 1) ],   t' = rate t - centre

for position, rotation and colour; sizes and opacities stay. Three choices of ours. The constant terms of the paper are
left out and the cosines start at zero, because they only repeat S0: the canonical state is then the true state at the
Gaussian's own time centre. The paper's global time bias is left out, because the centres contain it. And only the
Gaussians listed in `moving` carry coefficients: a street is mostly standing still.

Arrays of `motion`, for M moving Gaussians among N:
    moving: `[M]` int64, their indices in the canonical set, each once.
    time_centers: `[M]`.
    time_rates: `[M]`, optional: t' per normalised time, `TIME_SCALE` where not given.
    position_polynomial, rotation_polynomial, color_polynomial: `[M, P, 3 | 4 | 3]`, powers 1 to P (P may differ).
    position_fourier, rotation_fourier, color_fourier: `[M, 2 L, 3 | 4 | 3]`, L sines, then L cosines.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.motion.series import evaluate_series

# The paper's "adaptive timestamp scaling": the first Fourier term completes half a period over the clip, so a motion
# need not return to where it began.
TIME_SCALE = 0.5


def basis(local: Tensor, powers: int, harmonics: int) -> Tensor:
    """Return `[M, powers + 2 * harmonics]` of local times `[M]`: t'^n, sin(2 pi l t'), cos(2 pi l t') - 1."""
    columns = [local**n for n in range(1, powers + 1)]
    phases = [2 * math.pi * order * local for order in range(1, harmonics + 1)]
    columns += [torch.sin(phase) for phase in phases] + [torch.cos(phase) - 1.0 for phase in phases]
    return torch.stack(columns, dim=-1) if columns else local.new_zeros(len(local), 0)


def basis_rate(local: Tensor, powers: int, harmonics: int) -> Tensor:
    """Return the derivative of `basis` by the local time."""
    columns = [n * local ** (n - 1) for n in range(1, powers + 1)]
    rates = [2 * math.pi * order for order in range(1, harmonics + 1)]
    columns += [rate * torch.cos(rate * local) for rate in rates] + [-rate * torch.sin(rate * local) for rate in rates]
    return torch.stack(columns, dim=-1) if columns else local.new_zeros(len(local), 0)


def series(local: Tensor, polynomial: Tensor, fourier: Tensor) -> Tensor:
    """Return `[M, D]`: `basis` times the coefficients `[M, P, D]` and `[M, 2 L, D]`; `evaluate_series` is its fast twin."""
    terms = basis(local, polynomial.shape[1], fourier.shape[1] // 2)
    return (terms[..., None] * torch.cat([polynomial, fourier], dim=1)).sum(dim=1)


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians at a normalised time in [0, 1]; differentiable by all tensors."""
    moving = motion["moving"]
    if not len(moving):
        return canonical
    quats = _moved(cast(Tensor, canonical.quats), motion, "rotation", time)
    return canonical._replace(
        means=_moved(canonical.means, motion, "position", time),
        quats=torch.nn.functional.normalize(quats, dim=-1),
        colors=_moved(canonical.colors, motion, "color", time).clamp(0.0, 1.0),
    )


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` derivatives of the centres by the normalised time, in closed form."""
    polynomial, fourier = motion["position_polynomial"], motion["position_fourier"]
    rates = basis_rate(_local(motion, time), polynomial.shape[1], fourier.shape[1] // 2)
    change = (rates[..., None] * torch.cat([polynomial, fourier], dim=1)).sum(dim=1)
    velocity = torch.zeros_like(canonical.means)
    return velocity.index_add(0, motion["moving"], motion.get("time_rates", velocity.new_tensor([TIME_SCALE]))[:, None] * change)


def _local(motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return t' `[M]`."""
    rates = motion.get("time_rates")
    return (TIME_SCALE * time if rates is None else rates * time) - motion["time_centers"]


def _moved(canonical: Tensor, motion: Mapping[str, Tensor], attribute: str, time: float) -> Tensor:
    """Return an attribute `[N, D]` with the series of the moving Gaussians added."""
    polynomial, fourier = motion[f"{attribute}_polynomial"], motion[f"{attribute}_fourier"]
    if not polynomial.shape[1] + fourier.shape[1]:
        return canonical
    change = (series if canonical.is_cuda else evaluate_series)(_local(motion, time), polynomial, fourier)
    return canonical.index_add(0, motion["moving"], change)
