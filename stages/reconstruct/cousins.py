"""Generated views beside recorded ones: which are drawn together, and what the generated are worth.

Zhao et al. 2025 (DriveDreamer4D), section 3.3, "cousin data training strategy": every step draws a recorded view and a
generated one of the same time, with L = L_recorded + w_novel L_novel + w_features ||F(recorded) - F(novel)||_1, no depth on the
novel view, whose lidar is full of holes, and a colour map of its own for each generated image, which takes up its exposure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.reconstruct.parameters import APPEARANCE, FitState
from stages.reconstruct.views import Views


@dataclass(frozen=True)
class CousinRules:
    """How generated views enter a fit.

    Attributes:
        pairing: every step takes recorded views and a generated one of the time of each; without it, any views together.
        weight: of a generated view's loss against a recorded one's.
        appearance: whether each generated view has an affine map of colours, trained with the scene.
        features: from an image `[H, W, 3]` to numbers that a recorded view and its cousin should share, or None.
        feature_weight: of their mean absolute difference; the paper's is a thousandth, and ten times that does harm.
    """

    pairing: bool = True
    weight: float = 1.0
    appearance: bool = True
    features: Callable[[Tensor], Tensor] | None = None
    feature_weight: float = 1e-3


def choose_pair(views: Views, training: np.ndarray, batch: int, step: int, seed: int) -> list[int]:
    """Return the views of a step: recorded ones, each epoch in another order, then a generated view of the time of each.

    A recorded frame that no fitted generated view shares its time with is never drawn; half of the batch, at least one, is
    recorded.

    Args:
        views: with `generated`.
        training: `[T]` indices of the views to fit.
        batch: views per step.
        step: which.
        seed: of the order.

    Raises:
        ValueError: if no generated view has the time of a recorded one.
    """
    generated = np.zeros(len(views.frames), bool) if views.generated is None else views.generated
    made = training[generated[training]]
    recorded = training[~generated[training]]
    recorded = recorded[np.isin(views.frames[recorded], views.frames[made])]
    if not len(recorded):
        raise ValueError("choose_pair: no generated view shows the time of a recorded one")
    pairs = max(1, batch // 2)
    first, second = [], []
    for index in range(step * pairs, (step + 1) * pairs):
        epoch, place = divmod(index, len(recorded))
        view = int(np.random.default_rng([seed, epoch, 1]).permutation(recorded)[place])
        alike = made[views.frames[made] == views.frames[view]]
        first.append(view)
        second.append(int(np.random.default_rng([seed, index, 4]).choice(alike)))
    return first + second


def first_appearance(state: FitState, views: Views) -> None:
    """Add the colour maps of all generated views to what is trained: as they are at first."""
    count = 0 if views.generated is None else int(views.generated.sum())
    state.values[APPEARANCE] = np.tile(np.eye(3, 4, dtype=np.float32), (count, 1, 1))
    for moments in (state.first, state.second):
        moments[APPEARANCE] = np.zeros((count, 3, 4), np.float32)


def seen_as_generated(colors: Tensor, values: Mapping[str, Tensor], views: Views, view: int) -> Tensor:
    """Return a drawn image `[H, W, 3]` in the colours of the generated view that it is compared with."""
    if APPEARANCE not in values:
        return colors
    assert views.generated is not None
    own = values[APPEARANCE][int(np.count_nonzero(views.generated[:view]))]
    return torch.einsum("hwc,dc->hwd", colors, own[:, :3]) + own[:, 3]
