"""A growing number: Gaussians that the images pull at are copied or split, transparent ones go.

Kerbl et al. 2023, section 5.2, with three differences. The two that come from one share its opacity so that together they hide
what it hid (Rota Bulo et al., "Revising densification in Gaussian splatting", 2024, section 4.1). Opacities are never reset:
in 4D what was reset comes back at the wrong times. And there is a limit, within which the hardest pulled go first. Native
4D Gaussians are split in all four dimensions (Yang et al. 2024, section 3.4).
"""

import numpy as np

from stages.reconstruct.growth.relocation import spread_out
from stages.reconstruct.parameters import OPACITY_RANGE, FitState, rows_of, take_rows
from stages.reconstruct.settings import FitSettings

LARGE = 0.01  # of the distance to the nearest camera: larger Gaussians are split, smaller ones copied
SPLIT_FACTOR = 1.6  # by which the halves are smaller, in space and in time
TRANSPARENT = 0.005


def grow(state: FitState, settings: FitSettings, rng: np.random.Generator) -> None:
    """Drop what is transparent and double what is pulled harder than `densify_gradient`, up to `gaussians_limit`."""
    opacities = 1.0 / (1.0 + np.exp(-state.values["opacities"].astype(np.float64)))
    pull = state.importance / np.maximum(state.seen, 1)
    kept = np.flatnonzero(opacities > TRANSPARENT)
    if not len(kept):  # nothing could ever come back
        return
    wanted = kept[pull[kept] > settings.densify_gradient]
    room = max(settings.gaussians_limit - len(kept), 0)
    chosen = wanted[np.argsort(-pull[wanted], kind="stable")[:room]]
    rows = np.concatenate([kept, chosen])
    doubled = np.isin(rows, chosen)
    order = np.argsort(rows >= state.movers, kind="stable")
    rows, doubled, copy = rows[order], doubled[order], (np.arange(len(rows)) >= len(kept))[order]
    take_rows(state, rows)
    _share(state, np.flatnonzero(doubled), np.flatnonzero(copy), rng)
    state.importance[:] = 0
    state.seen[:] = 0


def _share(state: FitState, doubled: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> None:
    """Make two of each: both less opaque; large ones smaller and apart, and of small ones only the copy moves."""
    opacity = 1.0 / (1.0 + np.exp(-state.values["opacities"][doubled].astype(np.float64)))
    opacity = (1.0 - np.sqrt(1.0 - opacity)).clip(*OPACITY_RANGE)
    state.values["opacities"][doubled] = np.log(opacity / (1.0 - opacity))
    large = np.exp(state.values["scales"][doubled].max(axis=1)) > LARGE * state.distance[doubled]
    split = doubled[large]
    spread_out(state, np.union1d(split, copies), 1.0, rng)
    for name in ("scales", "time_scales"):
        if name in state.values:
            state.values[name][split] -= np.float32(np.log(SPLIT_FACTOR))
    for moments in (state.first, state.second):
        for name, array in moments.items():
            if rows_of(name) != "scene":
                array[doubled[doubled < len(array)]] = 0
