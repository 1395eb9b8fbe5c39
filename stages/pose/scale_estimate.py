"""One source's word on the scale of a camera path, and how several become one."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_LEAST_SIGMA = 1e-6  # nothing is known beyond doubt, and weights must stay finite
# What comes from one instrument shares its errors: a receiver's positions and speeds come out of one filter.
_INSTRUMENTS = {"gps_position": "gps", "gps_speed": "gps"}


@dataclass(frozen=True)
class ScaleEstimate:
    """What one source says.

    Attributes:
        source: as in `schemas.cameras.SCALE_ESTIMATES`.
        scale: metres per unit of the path (or, for drift, the ratio of two such); NaN where refused before it was known.
        sigma: relative standard deviation.
        observations: number that it rests on.
        refused: why it must not be used; empty where it may.
    """

    source: str
    scale: float = float("nan")
    sigma: float = float("nan")
    observations: int = 0
    refused: str = ""

    @property
    def instrument(self) -> str:
        """The source as a camera path names it; sources of one instrument share its errors."""
        return _INSTRUMENTS.get(self.source, self.source)


def judged(estimate: ScaleEstimate, max_sigma: float) -> ScaleEstimate:
    """Return an estimate, refused where it is no positive number or less certain than `max_sigma`."""
    if estimate.refused:
        return estimate
    reason = ""
    if not (np.isfinite(estimate.scale) and estimate.scale > 0 and np.isfinite(estimate.sigma)):
        reason = "no positive scale fits it"
    elif estimate.sigma > max_sigma:
        reason = f"its relative sigma of {estimate.sigma:.2g} exceeds {max_sigma:g}"
    return dataclasses.replace(estimate, sigma=max(estimate.sigma, _LEAST_SIGMA), refused=reason)


def fuse(estimates: Sequence[ScaleEstimate]) -> ScaleEstimate | None:
    """Combine the estimates that were not refused by inverse variance of the logarithm of scale; None without any.

    The sigma is multiplied by Birge's ratio where the scatter exceeds what the sigmas allow (Birge, Phys. Rev. 40, 1932).
    Estimates of one instrument are first combined among themselves, and then are only as certain as the best of them,
    since they share errors to an unknown degree.
    """
    usable = [estimate for estimate in estimates if not estimate.refused]
    instruments = list(dict.fromkeys(estimate.instrument for estimate in usable))
    if not instruments:
        return None
    logs, sigmas = [], []
    for instrument in instruments:
        own = [estimate for estimate in usable if estimate.instrument == instrument]
        mean, _, birge = weighted_mean([float(np.log(item.scale)) for item in own], [item.sigma for item in own])
        logs.append(mean)
        sigmas.append(birge * min(item.sigma for item in own))
    mean, sigma, birge = weighted_mean(logs, sigmas)
    count = sum(estimate.observations for estimate in usable)
    return ScaleEstimate("+".join(instruments), float(np.exp(mean)), birge * sigma, count)


def weighted_mean(logs: Sequence[float], sigmas: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean by inverse variance, its sigma were they independent and right, and Birge's ratio, at least 1."""
    weights = 1 / np.square(sigmas)
    mean = float(weights @ np.asarray(logs) / weights.sum())
    scatter = np.sqrt(weights @ (np.asarray(logs) - mean) ** 2 / max(len(logs) - 1, 1))
    return mean, float(1 / np.sqrt(weights.sum())), max(1.0, float(scatter))
