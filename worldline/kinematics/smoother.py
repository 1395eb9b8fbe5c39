"""Smoothing of noisy positions before they are differentiated, with draws from what the path may have been.

Each axis of a track is an integrated Wiener process (white acceleration of spectral density q: a cubic smoothing
spline in disguise, Wahba 1978) seen through white noise plus an Ornstein-Uhlenbeck drift that is correlated in time:

    d(p, v) = (v dt, sqrt(q) dW),   y_i = p(t_i) + s_i u(t_i) + e_i,   u: unit variance, correlation exp(-|dt| / tau)

A Kalman filter gives the likelihood of every q on a grid, and forward filtering with backward sampling (Carter and
Kohn 1994) gives draws of the whole path, with q itself drawn from its likelihood. So the amount of smoothing follows
each track's own noise: what a fixed window of 0.9 s does for 0.1 m of noise at 10 Hz, without its fake motion of
parked objects at larger noise. Sums over noisy steps are biased; sums over posterior draws are not.
"""

import numpy as np

DENSITY_STEPS = 10.0 ** np.linspace(-6.0, 1.0, 8)  # of q, relative to a rough upper value from the data
# What moves changes its velocity by about this share of it in a second. Where the drift is large the data cannot tell
# changes of velocity from drift; without this floor under q they would then pass for drift, with too narrow intervals.
VELOCITY_CHANGE = 0.1


def white_share(
    row: np.ndarray, time_s: np.ndarray, value: np.ndarray, variance: np.ndarray, rows: int, max_span_s: float = 0.6
) -> np.ndarray:
    """Estimate how much of the stated variance is white noise, from the samples themselves.

    Pseudo-residuals (Gasser, Sroka and Jennen-Steinmetz 1986): each sample against the line through its neighbours.

    Args:
        row: `[M]` track of each sample, sorted.
        time_s: `[M]` sorted within a track.
        value: `[M, A]` positions.
        variance: `[M, A]` their stated variance.
        rows: number of tracks.
        max_span_s: neighbours further apart than this are not used (the path bends between them).

    Returns:
        `[rows, A]` factor on the stated variance, shrunk towards 1 where there are few samples; may exceed 1.
    """
    share = np.ones((rows, value.shape[1]))
    if len(row) < 3:
        return share
    span = time_s[2:] - time_s[:-2]
    use = (row[2:] == row[:-2]) & (span > 0) & (span <= max_span_s)
    right = ((time_s[1:-1] - time_s[:-2]) / np.where(span > 0, span, 1.0))[:, None]
    residual = (1 - right) * value[:-2] + right * value[2:] - value[1:-1]
    expected = (1 - right) ** 2 * variance[:-2] + right**2 * variance[2:] + variance[1:-1]
    ratio = residual[use] ** 2 / np.maximum(expected[use], 1e-300)
    owner = row[1:-1][use]
    count = np.bincount(owner, minlength=rows)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    prior = 4.0
    for axis in range(value.shape[1]):  # the median resists single outliers; 0.4549 is that of chi-squared with 1 degree
        order = np.lexsort((ratio[:, axis], owner))
        has = count > 0
        low = ratio[order[(start + (count - 1) // 2)[has]], axis]
        high = ratio[order[(start + count // 2)[has]], axis]
        share[has, axis] = (prior + count[has] * (low + high) / 2 / 0.4549) / (prior + count[has])
    return share


def draw_paths(
    times_s: np.ndarray,
    observed: np.ndarray,
    values: np.ndarray,
    white: np.ndarray,
    drift: np.ndarray,
    drift_seconds: float,
    normals: np.ndarray,
    uniforms: np.ndarray,
) -> np.ndarray:
    """Draw paths given noisy samples.

    Args:
        times_s: `[R, S]` times of the steps of each track, non-decreasing; trailing padding repeats the last time.
        observed: `[R, S]` steps that carry a sample (others are times at which the path is wanted).
        values: `[R, S, A]` samples; read where observed.
        white: `[R, S, A]` variance of the white part of the noise.
        drift: `[R, S, A]` variance of the time-correlated part.
        drift_seconds: correlation time of the latter.
        normals: `[R, S, A, D, 3]` standard normal numbers for D draws.
        uniforms: `[R, A, D]` uniform numbers.

    Returns:
        `[R, S, A, D, 2]` position and velocity of each draw at each step.
    """
    rows, steps, axes = values.shape
    values = np.where(observed[..., None], values, 0.0)
    origin = values[np.arange(rows), np.argmax(observed, axis=1)]
    values = np.where(observed[..., None], values - origin[:, None], 0.0)
    density, position_prior, velocity_prior = _priors(times_s, observed, values, white)
    intervals = np.diff(times_s, axis=1)
    mean = np.zeros((rows, axes, len(DENSITY_STEPS), 3))
    covariance = np.zeros((*mean.shape, 3))
    covariance[..., 0, 0] = position_prior[..., None]
    covariance[..., 1, 1] = velocity_prior[..., None]
    covariance[..., 2, 2] = 1.0
    likelihood = np.zeros(mean.shape[:-1])
    means, covariances = [], []
    for step in range(steps):
        if step:
            mean, covariance = _predict(mean, covariance, intervals[:, step - 1], density, drift_seconds)
        seen = observed[:, step, None, None]
        load = np.sqrt(drift[:, step])[..., None]
        cross = covariance[..., 0] + load[..., None] * covariance[..., 2]
        variance = np.where(seen, cross[..., 0] + load * cross[..., 2] + white[:, step][..., None], 1.0)
        innovation = values[:, step][..., None] - mean[..., 0] - load * mean[..., 2]
        gain = np.where(seen[..., None], cross / variance[..., None], 0.0)
        likelihood -= np.where(seen, 0.5 * (np.log(variance) + innovation**2 / variance), 0.0)
        mean = mean + gain * innovation[..., None]
        covariance = covariance - gain[..., :, None] * cross[..., None, :]
        means.append(mean)
        covariances.append(covariance)
    weight = np.exp(likelihood - likelihood.max(-1, keepdims=True))
    cumulative = np.cumsum(weight / weight.sum(-1, keepdims=True), axis=-1)
    choice = np.minimum((uniforms[..., None] > cumulative[:, :, None, :]).sum(-1), len(DENSITY_STEPS) - 1)
    draws = _sample_backwards(means, covariances, intervals, density, drift_seconds, normals, choice)
    draws[..., 0] += origin[:, None, :, None]
    return draws


def _priors(
    times_s: np.ndarray, observed: np.ndarray, values: np.ndarray, white: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the grid of q `[R, A, Q]` and wide prior variances of position and velocity `[R, A]`, from the data's own size."""
    weight = observed.astype(float)
    noise = (white * weight[..., None]).sum(1) / weight.sum(1)[:, None]
    start = times_s[:, :1]
    bins = np.floor((times_s - start) / 0.5).astype(int)
    width = bins.max() + 1
    flat = (np.arange(len(bins))[:, None] * width + bins).ravel()
    count = np.bincount(flat, weight.ravel(), len(bins) * width).reshape(len(bins), width)
    axes = values.shape[2]
    sums = np.stack(
        [np.bincount(flat, (values[..., a] * weight).ravel(), count.size).reshape(count.shape) for a in range(axes)], -1
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = sums / count[..., None]
    bend = np.diff(centre, n=2, axis=1) / 0.25
    with np.errstate(invalid="ignore"):
        known = np.isfinite(bend)
        square = np.where(known, bend, 0.0) ** 2
        acceleration = square.sum(1) / np.maximum(known.sum(1), 1)
    extent = np.abs(values).max(1)
    duration = np.maximum(times_s[:, -1] - times_s[:, 0], 0.1)[:, None]
    highest = 4 * acceleration + noise + np.where(known.any(1), 0.0, (extent / duration**2) ** 2)
    speed = 10 * extent / duration + 10 * np.sqrt(noise)
    floor = (VELOCITY_CHANGE * np.linalg.norm(extent, axis=1, keepdims=True) / duration) ** 2
    density = np.maximum(highest[..., None] * DENSITY_STEPS, floor[..., None])
    return density, (10 * extent) ** 2 + 100 * noise, speed**2


def _predict(
    mean: np.ndarray, covariance: np.ndarray, interval: np.ndarray, density: np.ndarray, drift_seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Carry means `[R, A, Q, 3]` and covariances over `interval` `[R]` seconds."""
    dt = interval[:, None, None]
    keep = np.exp(-dt / drift_seconds)
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
    drift_seconds: float,
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
        ahead_mean, ahead = _predict(means[step], covariances[step], dt, density, drift_seconds)
        transition = np.zeros((rows, 1, 1, 3, 3))
        transition[..., 0, 0] = transition[..., 1, 1] = 1.0
        transition[..., 0, 1] = dt[:, None, None]
        transition[..., 2, 2] = np.exp(-dt / drift_seconds)[:, None, None]
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
