"""How Gaussians come to where they are needed: each module has `grow(state, settings, rng)`, which changes a fit in place."""

from collections.abc import Callable, Mapping

import numpy as np

from stages.reconstruct.growth import densification, relocation
from stages.reconstruct.parameters import FitState
from stages.reconstruct.settings import FitSettings

GROWTHS: Mapping[str, Callable[[FitState, FitSettings, np.random.Generator], None]] = {
    "relocation": relocation.grow,
    "densification": densification.grow,
    "none": lambda state, settings, rng: None,
}
