"""A fixed budget: Gaussians that do little go beside those whose image pulls most.

Kheradmand et al., "3D Gaussian splatting as Markov chain Monte Carlo", 2024, section 3.2, relocate what became transparent; a
short fit has no time to wait for that, so a fixed share goes each time. No opacity is ever reset.
"""

import numpy as np
import torch

from stages.reconstruct.parameters import OPACITY_RANGE, FitState, activate, rows_of
from stages.reconstruct.settings import FitSettings
from worldline.cameras import rotation_from_quaternion
from worldline.motion import native_4d

SPLIT_SIZE = 0.8  # of a Gaussian and its copies, beyond what sharing its opacity makes of them
SPLIT_SPREAD = 0.7  # of a standard deviation: how far copies go


def grow(state: FitState, settings: FitSettings, rng: np.random.Generator) -> None:
    """Move `relocate_share` of each group's Gaussians, and forget the momentum of both.

    Copies at one place would get equal gradients and stay together: each is put somewhere inside its source, and both
    become smaller (the split of Kerbl et al. 2023, section 5.2).
    """
    opacities = 1.0 / (1.0 + np.exp(-state.values["opacities"].astype(np.float64)))
    dead, source = choose_relocations(_mass(state, opacities), state.importance, settings.relocate_share, state.groups(), rng)
    state.importance[:] = 0
    state.seen[:] = 0
    if not len(dead):
        return
    shared, copies = np.unique(source, return_counts=True)
    opacity, factor = share_opacity(opacities[shared], copies + 1)
    opacity = opacity.clip(*OPACITY_RANGE)
    state.values["opacities"][shared] = np.log(opacity / (1.0 - opacity))
    state.values["scales"][shared] += np.log(SPLIT_SIZE * factor)[:, None].astype(np.float32)
    _copy_rows(state, dead, source, shared)
    spread_out(state, dead, SPLIT_SPREAD, rng)


def _mass(state: FitState, opacities: np.ndarray) -> np.ndarray:
    """Return what each covers in the nearest camera's image: its two longer axes, seen from there."""
    axes = np.sort(state.values["scales"], axis=1)[:, -2:].sum(axis=1)
    return opacities * np.exp(axes) / np.square(state.distance)


def _copy_rows(state: FitState, dead: np.ndarray, source: np.ndarray, shared: np.ndarray) -> None:
    """Give the dead all that their source has, and take the momentum from both."""
    for name, value in state.values.items():
        if rows_of(name) == "scene":
            continue
        rows = dead < len(value)
        value[dead[rows]] = value[source[rows]]
        touched = shared[shared < len(value)]
        for moments in (state.first[name], state.second[name]):
            moments[dead[rows]] = 0
            moments[touched] = 0
    if "instances" in state.fixed:
        state.fixed["instances"][dead] = state.fixed["instances"][source]


def spread_out(state: FitState, rows: np.ndarray, spread: float, rng: np.random.Generator) -> None:
    """Move Gaussians to random places inside themselves; native 4D Gaussians to random times too (Yang et al. 2024)."""
    if "times" in state.values:
        canonical, motion = activate({name: torch.from_numpy(array[rows]) for name, array in state.values.items()}, {})
        noise = torch.from_numpy((spread * rng.standard_normal((len(rows), 4))).astype(np.float32))
        place, time = native_4d.spread(canonical, motion, noise)
        state.values["means"][rows] += place.numpy()
        state.values["times"][rows] += time.numpy()
        return
    rotations = rotation_from_quaternion(state.values["quats"][rows])
    scales = np.exp(state.values["scales"][rows])
    inside = np.zeros((len(rows), 3))
    inside[:, : scales.shape[1]] = spread * scales * rng.standard_normal(scales.shape)
    state.values["means"][rows] += np.einsum("nij,nj->ni", rotations, inside).astype(np.float32)


def choose_relocations(
    mass: np.ndarray, importance: np.ndarray, share: float, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pick the Gaussians that do least, and for each a better place beside another one of its group.

    Places are drawn in proportion to `importance`. Groups keep what moves and what stands still apart.

    Args:
        mass: `[N]` how much each Gaussian covers.
        importance: `[N]` how hard the images pull at it.
        share: of each group that is relocated.
        groups: `[N]` the group of each.
        rng: source of randomness.

    Returns:
        Indices of the relocated and of the Gaussians beside which they go.
    """
    moved, sources = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        chosen = np.argsort(mass[members], kind="stable")[: int(share * len(members))]
        weight = importance[members].astype(np.float64)
        weight[chosen] = 0.0
        if not len(chosen) or not weight.sum() > 0:
            continue
        moved.append(members[chosen])
        sources.append(members[rng.choice(len(weight), size=len(chosen), p=weight / weight.sum())])
    return np.concatenate(moved), np.concatenate(sources)


def share_opacity(opacities: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return opacity and size factor with which `copies` Gaussians at one place look like the one that was there.

    Kheradmand et al. 2024, equation 9: o' = 1 - (1 - o)^(1/n) and
    s' = s o / sum_{i=1..n} sum_{k=0..i-1} C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1).

    Args:
        opacities: `[P]` of the Gaussians that are shared.
        copies: `[P]` how many there are afterwards, themselves included; counted as 51 beyond that.
    """
    copies = np.minimum(copies, 51)
    shared = 1.0 - (1.0 - opacities) ** (1.0 / copies)
    factors = np.empty(len(opacities))
    for row, (opacity, count) in enumerate(zip(shared, copies, strict=True)):
        # sum_k C(i-1, k) (-1)^k o^(k+1) / sqrt(k+1), summed over i = 1..n, is sum_k C(n, k+1) (-1)^k o^(k+1) / sqrt(k+1)
        k = np.arange(count)
        signs = np.where(k % 2, -1.0, 1.0)
        factors[row] = opacities[row] / np.sum(_binomials(int(count))[1:] * signs * opacity ** (k + 1) / np.sqrt(k + 1))
    return shared, factors


def _binomials(n: int) -> np.ndarray:
    """Return C(n, 0) to C(n, n)."""
    row = np.ones(n + 1)
    for k in range(1, n + 1):
        row[k] = row[k - 1] * (n - k + 1) / k
    return row
