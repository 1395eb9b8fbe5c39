"""Slow, readable twin of `worldline.kinematics.smoother.draw_paths`: every step a few lines of NumPy, all draws kept."""

import numpy as np

from worldline.kinematics.smoother import NoiseModels, hypotheses


def draw_paths(
    times_s: np.ndarray,
    observed: np.ndarray,
    values: np.ndarray,
    white: np.ndarray,
    drift: np.ndarray,
    change: np.ndarray,
    spread: np.ndarray,
    noise: NoiseModels,
    normals: np.ndarray,
    uniforms: np.ndarray,
) -> np.ndarray:
    """See `worldline.kinematics.smoother.draw_paths`."""
    rows, steps, axes = values.shape
    values = np.where(observed[..., None], values, 0.0)
    origin = values[np.arange(rows), np.argmax(observed, axis=1)]
    values = np.where(observed[..., None], values - origin[:, None], 0.0)
    density, prior, position_prior, velocity_prior, of_model = hypotheses(times_s, observed, values, white, change, spread, noise)
    white_scale, drift_scale, seconds = noise.white[of_model], noise.drift[of_model], noise.seconds[of_model]
    intervals = np.diff(times_s, axis=1)
    mean = np.zeros((rows, axes, len(of_model), 3))
    covariance = np.zeros((*mean.shape, 3))
    covariance[..., 0, 0] = position_prior[..., None]
    covariance[..., 1, 1] = velocity_prior[..., None]
    covariance[..., 2, 2] = 1.0
    likelihood = prior.copy()
    means, covariances = [], []
    for step in range(steps):
        if step:
            mean, covariance = _predict(mean, covariance, intervals[:, step - 1], density, seconds)
        seen = observed[:, step, None, None]
        load = np.sqrt(drift[:, step][..., None] * drift_scale)
        cross = covariance[..., 0] + load[..., None] * covariance[..., 2]
        variance = np.where(seen, cross[..., 0] + load * cross[..., 2] + white[:, step][..., None] * white_scale, 1.0)
        innovation = values[:, step][..., None] - mean[..., 0] - load * mean[..., 2]
        gain = np.where(seen[..., None], cross / variance[..., None], 0.0)
        likelihood -= np.where(seen, 0.5 * (np.log(variance) + innovation**2 / variance), 0.0)
        mean = mean + gain * innovation[..., None]
        covariance = covariance - gain[..., :, None] * cross[..., None, :]
        means.append(mean)
        covariances.append(covariance)
    choice = np.stack([_choose(likelihood[row], of_model, noise, uniforms[row]) for row in range(rows)])
    draws = _sample_backwards(means, covariances, intervals, density, seconds, normals, choice)
    draws[..., 0] += origin[:, None, :, None]
    return draws


def _choose(logs: np.ndarray, of_model: np.ndarray, noise: NoiseModels, uniforms: np.ndarray) -> np.ndarray:
    """Draw hypotheses `[A, D]`: the colour that all axes have, or that each has its own; then each axis given that."""
    colours = range(noise.colour.max() + 1)
    groups = [np.flatnonzero(noise.colour[of_model] == colour) for colour in colours]
    groups.append(np.arange(len(of_model)))
    weight = np.exp(logs - logs.max(-1, keepdims=True))
    share = []
    for colour, group in zip(colours, groups, strict=False):
        prior = noise.weight[noise.colour == colour].sum()
        share.append(noise.common * prior * np.prod([weight[axis, group].sum() / prior for axis in range(len(logs))]))
    share.append((1 - noise.common) * np.prod(weight.sum(-1)))
    result = np.empty((len(logs), uniforms.shape[1]), int)
    for draw in range(uniforms.shape[1]):
        group = groups[_pick(np.array(share), uniforms[0, draw])]
        for axis in range(len(logs)):
            result[axis, draw] = group[_pick(weight[axis, group], uniforms[1 + axis, draw])]
    return result


def _pick(weight: np.ndarray, uniform: float) -> int:
    """Return the index that a uniform number picks with probability proportional to `weight`."""
    return int(min((uniform * weight.sum() >= np.cumsum(weight)).sum(), len(weight) - 1))


def _predict(
    mean: np.ndarray, covariance: np.ndarray, interval: np.ndarray, density: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Carry means `[R, A, Q, 3]` and covariances over `interval` `[R]` seconds."""
    dt = interval[:, None, None]
    keep = np.exp(-dt / seconds)
    mean = np.stack([mean[..., 0] + dt * mean[..., 1], mean[..., 1], keep * mean[..., 2]], -1)
    half = covariance.copy()
    half[..., 0, :] += dt[..., None] * covariance[..., 1, :]
    half[..., 2, :] *= keep[..., None]
    moved = half.copy()
    moved[..., :, 0] += dt[..., None] * half[..., :, 1]
    moved[..., :, 2] *= keep[..., None]
    moved[..., 0, 0] += density * dt**3 / 3
    moved[..., 0, 1] += density * dt**2 / 2
    moved[..., 1, 0] += density * dt**2 / 2
    moved[..., 1, 1] += density * dt
    moved[..., 2, 2] += 1 - keep**2
    return mean, moved


def _sample_backwards(
    means: list[np.ndarray],
    covariances: list[np.ndarray],
    intervals: np.ndarray,
    density: np.ndarray,
    seconds: np.ndarray,
    normals: np.ndarray,
    choice: np.ndarray,
) -> np.ndarray:
    """Draw whole paths from the last step to the first; `choice` `[R, A, D]` is the index of q of each draw."""
    rows, steps, axes, draws = normals.shape[:4]
    result = np.empty((rows, steps, axes, draws, 2))
    pick = choice[..., None]
    state = np.take_along_axis(means[-1], pick, 2)
    spread = np.take_along_axis(_root(covariances[-1]), pick[..., None], 2)
    state = state + np.einsum("radij,radj->radi", spread, normals[:, -1])
    result[:, -1] = state[..., :2]
    for step in range(steps - 2, -1, -1):
        dt = intervals[:, step]
        ahead_mean, ahead = _predict(means[step], covariances[step], dt, density, seconds)
        transition = np.zeros((rows, 1, len(seconds), 3, 3))
        transition[..., 0, 0] = transition[..., 1, 1] = 1.0
        transition[..., 0, 1] = dt[:, None, None]
        transition[..., 2, 2] = np.exp(-dt[:, None, None] / seconds)
        gain = _solve(ahead, transition @ covariances[step]).swapaxes(-1, -2)
        left = covariances[step] - gain @ ahead @ gain.swapaxes(-1, -2)
        gain_of = np.take_along_axis(gain, pick[..., None], 2)
        spread = np.take_along_axis(_root(left), pick[..., None], 2)
        ahead_of = np.take_along_axis(ahead_mean, pick, 2)
        here = np.take_along_axis(means[step], pick, 2)
        state = here + np.einsum("radij,radj->radi", gain_of, state - ahead_of)
        state = state + np.einsum("radij,radj->radi", spread, normals[:, step])
        result[:, step] = state[..., :2]
    return result


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve symmetric positive 3x3 systems after scaling to unit diagonal (the states' units differ by orders)."""
    scale = 1 / np.sqrt(np.maximum(matrix[..., [0, 1, 2], [0, 1, 2]], 1e-300))
    scaled = matrix * scale[..., :, None] * scale[..., None, :] + 1e-13 * np.eye(3)
    return scale[..., :, None] * np.linalg.solve(scaled, scale[..., :, None] * right)


def _root(matrix: np.ndarray) -> np.ndarray:
    """Return a lower triangular root of positive semi-definite 3x3 matrices; rounding below zero counts as zero."""
    root = np.zeros_like(matrix)
    size = matrix[..., [0, 1, 2], [0, 1, 2]]
    for column in range(3):
        left = matrix[..., column, column] - (root[..., column, :column] ** 2).sum(-1)
        pivot = np.sqrt(np.where(left > 1e-14 * np.abs(size[..., column]), left, 0.0))
        root[..., column, column] = pivot
        for row in range(column + 1, 3):
            rest = matrix[..., row, column] - (root[..., row, :column] * root[..., column, :column]).sum(-1)
            root[..., row, column] = np.where(pivot > 0, rest / np.where(pivot > 0, pivot, 1.0), 0.0)
    return root
