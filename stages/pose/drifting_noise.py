"""Regression on measurements whose errors drift: what the residuals of a short record do not show.

The errors of a satellite receiver are correlated over seconds to minutes. Over a short path much of such an error looks
like a change of the fitted factor and leaves no residual, so the residuals, divided by the square root of their number,
promise far too much. Here an error is the sum of an independent part and a first-order Gauss-Markov part of given
correlation time. The variances of both are found from two moments, of the residuals and of their successive differences,
with account of what the fit has absorbed, and are carried through the fit (the sandwich of Huber 1967). Few residuals tell
a variance poorly, so each part is widened by Student's factor for the degrees of freedom that Satterthwaite (Biometrics
Bulletin 2, 1946) gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float64
from scipy.stats import norm, t

_INTERVAL = 0.95  # quantile at which the widened sigma is right: the end of a 90 % interval
_MOST_RECORDS = 400
_OUTLIER = 3.5  # robust standard deviations


class Regression(NamedTuple):
    """Coefficients `[K]` (complex for positions in the plane), their covariance `[K, K]` per axis, and records kept."""

    coefficients: np.ndarray
    covariance: np.ndarray
    used: int


def regress(
    design: Float64[np.ndarray, "N K"] | Complex128[np.ndarray, "N K"],
    target: Float64[np.ndarray, " N"] | Complex128[np.ndarray, " N"],
    times_s: Float64[np.ndarray, " N"],
    *,
    correlation_s: float,
    least_drift: float,
) -> Regression | None:
    """Fit `target = design @ coefficients` by least squares without the outliers, with an honest covariance.

    Args:
        design: regressors; complex numbers stand for vectors in the plane.
        target: what was measured.
        times_s: when, increasing.
        correlation_s: of the drifting part of the errors.
        least_drift: least standard deviation (per axis) of that part, whatever the residuals say: what drifts evenly
            over a short record leaves none.

    Returns:
        None where fewer records than coefficients and one remain, or they do not determine the coefficients.
    """
    step = -(-len(times_s) // _MOST_RECORDS)
    design, target, times_s = design[::step], target[::step], times_s[::step]
    kept = _inliers(design, target)
    if kept.sum() <= design.shape[1] or np.linalg.matrix_rank(design[kept]) < design.shape[1]:
        return None
    design, target, times_s = design[kept], target[kept], times_s[kept]
    solver = np.linalg.pinv(design)
    coefficients = solver @ target
    independent = np.eye(len(target))
    drifting = np.exp(-np.abs(times_s[:, None] - times_s) / correlation_s)
    leaves = independent - design @ solver  # residual = leaves @ error
    variances = _variances(target - design @ coefficients, leaves, drifting)
    covariance = np.zeros((len(coefficients), len(coefficients)))
    for variance, least, shape in zip(variances, (0.0, least_drift**2), (independent, drifting), strict=True):
        # half of the freedom, since the same residuals must also tell the two parts from each other
        freedom = max(_freedom(leaves, shape, _axes(target)) / 2, 1.0)
        widened = variance * (t.ppf(_INTERVAL, freedom) / norm.ppf(_INTERVAL)) ** 2
        covariance += max(widened, least) * (solver @ shape @ solver.conj().T).real
    return Regression(coefficients, covariance, len(target))


def _axes(target: np.ndarray) -> int:
    return 2 if np.iscomplexobj(target) else 1


def _inliers(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return which records lie within 3.5 robust standard deviations of a fit with Huber's weights."""
    to_sigma = 1.1774 if np.iscomplexobj(target) else 1 / 1.4826  # median of Rayleigh's, of the half normal distribution
    weights = np.ones(len(target))
    for _ in range(20):
        weighted = (weights[:, None] * design).conj().T
        # least norm, since the design may not determine all coefficients
        residual = np.abs(target - design @ np.linalg.lstsq(weighted @ design, weighted @ target, rcond=None)[0])
        sigma = max(float(np.median(residual)) / to_sigma, 1e-9 * float(np.abs(target).max(initial=1e-9)))
        weights = np.minimum(1.0, 1.345 * sigma / np.maximum(residual, 1e-300))
    return residual <= _OUTLIER * sigma


def _variances(residual: np.ndarray, leaves: np.ndarray, drifting: np.ndarray) -> tuple[float, float]:
    """Return the variances per axis of the independent and the drifting part that give the residuals' two moments."""
    difference = np.diff(leaves, axis=0)
    moments = np.array([np.sum(np.abs(residual) ** 2), np.sum(np.abs(np.diff(residual)) ** 2)]) / _axes(residual)
    expected = np.array(
        [[np.sum(np.abs(view) ** 2), np.sum((view @ drifting) * view.conj()).real] for view in (leaves, difference)]
    )
    if np.linalg.cond(expected) > 1e6:  # records so far apart, or so few, that the parts look alike
        return 0.0, float(moments[0] / expected[0, 1])
    white, drift = np.linalg.solve(expected, moments)
    if white < 0:
        return 0.0, float(moments[0] / expected[0, 1])
    if drift < 0:
        return float(moments[0] / expected[0, 0]), 0.0
    return float(white), float(drift)


def _freedom(leaves: np.ndarray, shape: np.ndarray, axes: int) -> float:
    """Return how many independent squares the residuals of an error with covariance `shape` hold (Satterthwaite)."""
    left = leaves @ shape @ leaves.conj().T
    return axes * float(np.trace(left).real) ** 2 / max(float(np.sum(np.abs(left) ** 2)), 1e-300)
