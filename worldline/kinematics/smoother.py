"""Smoothing of noisy positions before they are differentiated, with draws from what the path may have been.

Each axis of a track is an integrated Wiener process (white acceleration of spectral density q: a cubic smoothing
spline in disguise, Wahba 1978) seen through white noise plus an Ornstein-Uhlenbeck drift that is correlated in time:

    d(p, v) = (v dt, sqrt(q) dW),   y_i = p(t_i) + s_i u(t_i) + e_i,   u: unit variance, correlation exp(-|dt| / tau)

A Kalman filter gives the likelihood of every q on a grid, and of every model of the noise where the track states none;
forward filtering with backward sampling (Carter and Kohn 1994) gives draws of the whole path, with q and the noise drawn
from their posterior. So the amount of smoothing follows each track's own noise: what a fixed window of 0.9 s does for
0.1 m of noise at 10 Hz, without its fake motion of parked objects at larger noise. Sums over noisy steps are biased; sums
over posterior draws are not.

Slow noise along the path looks like motion. Two things tell them apart: a prior of q by what objects do (things on the
ground hardly change their vertical velocity, so what sways up and down is noise), and that the axes of a track have
the same sensor and tracker behind them, so that the colour of the noise, which one axis shows, is expected of the others.
Where no motion tells them apart the prior decides: noise without any white part that swings at its own period, or that is
as slow as the window, still gets intervals that are too narrow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from worldline.threads import map_pieces

DENSITY_STEPS = 10.0 ** np.linspace(-6.0, 1.0, 8)  # of q, relative to a rough upper value from the data
_TAIL_DEGREES = 3.0  # of freedom of the prior of log q: emergency stops are rare, not impossible


@dataclass(frozen=True)
class NoiseModels:
    """What the noise of a track may be, relative to the variances that the tracks come with.

    Attributes:
        white: `[K]` factor on the white variance.  drift: `[K]` factor on the drift's variance.
        seconds: `[K]` correlation time of the drift.  weight: `[K]` prior probability.
        colour: `[K]` models of the same number have the same spectrum but for its level.
        common: prior probability that the colour is the same on all axes of a track.
    """

    white: np.ndarray
    drift: np.ndarray
    seconds: np.ndarray
    weight: np.ndarray
    colour: np.ndarray
    common: float


def stated_noise(drift_seconds: float) -> NoiseModels:
    """Return the one model of tracks that state their noise."""
    one = np.ones(1)
    return NoiseModels(one, one, np.array([drift_seconds]), one, colour=np.zeros(1, int), common=1.0)


_WHITE_WEIGHT = 0.5  # prior probability that the noise has no memory
_WHITE_LEVELS, _SLOW_LEVELS = (0.75, 1.0, 1.3), (0.8, 1.25)  # the level that neighbours tell may be this far off
_MEMORIES_S = 0.1 * 2.0 ** np.arange(7)
_MOST_SEEN, _STEP, _LEAST_DRIFT, _LEAN = 0.9, 3.0, 1.4, 0.25


def unknown_noise(interval_s: float) -> NoiseModels:
    """Return models for tracks that state nothing and are sampled every `interval_s` seconds.

    What neighbouring samples tell (`white_level`) is the sum of white noise and of the little that a drift shows from one
    sample to the next (`seen_of_drift`). For every memory the drift makes nine tenths of that level, or a third of that,
    and so on until its variance is about the level itself; white noise makes the rest. So all models agree with what the
    neighbours tell, and lie close to each other where they are hard to tell apart: along one level, a drift of twice the
    memory has about twice the variance, and is felt four times as much in a window of seconds. Memories double from 0.1 to
    6.4 s; what is slower moves a window as a whole.

    Half of the prior is white noise. The rest leans to large drifts, by the fourth root of their variance, and to slow ones,
    which have more variances to choose from: 8 s of samples hardly show them, and intervals that leave them out are far too
    narrow.
    """
    rows = [(level, 0.0, 1.0, _WHITE_WEIGHT / len(_WHITE_LEVELS), 0) for level in _WHITE_LEVELS]
    slow: list[tuple[float, float, float, float, int]] = []
    colours = 1
    for seconds in _MEMORIES_S:
        seen = seen_of_drift(interval_s, seconds)
        shares = _MOST_SEEN / _STEP ** np.arange(1 + max(0.0, np.log(_MOST_SEEN / seen / _LEAST_DRIFT) // np.log(_STEP)))
        for share in shares:
            levels = _SLOW_LEVELS if share > 0.2 else (1.0,)
            weight = (share / seen) ** _LEAN / len(levels)
            slow += [(level * (1 - share), level * share / seen, seconds, weight, colours) for level in levels]
            colours += 1
    total = sum(weight for *_, weight, _ in slow)
    rows += [
        (white, drift, seconds, (1 - _WHITE_WEIGHT) * weight / total, number) for white, drift, seconds, weight, number in slow
    ]
    white, drift, memory, weight, colour = np.array(rows).T
    return NoiseModels(white, drift, memory, weight, colour.astype(int), common=0.98)


def seen_of_drift(interval_s: float, seconds: float) -> float:
    """Return what share of a drift's variance its pseudo-residuals show, of samples every `interval_s` seconds.

    With correlation r from a sample to the next, the variance of (y_0 + y_2) / 2 - y_1 is 3/2 - 2 r + r^2 / 2 times that
    of the drift, where white noise gives 3/2.
    """
    keep = np.exp(-interval_s / seconds)
    return float((1.5 - 2 * keep + 0.5 * keep**2) / 1.5)


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
    residual, expected, owner = _pseudo_residuals(row, time_s, value, variance, max_span_s)
    ratio = residual**2 / np.maximum(expected, 1e-300)
    count = np.bincount(owner, minlength=rows)
    prior = 4.0
    for axis in range(value.shape[1]):
        has, middle = _medians(ratio[:, axis], owner, rows)
        share[has, axis] = (prior + count[has] * middle / _CHI_SQUARED_MEDIAN) / (prior + count[has])
    return share


def white_level(row: np.ndarray, time_s: np.ndarray, value: np.ndarray, rows: int, max_span_s: float = 0.6) -> np.ndarray:
    """Estimate the variance of white noise around each sample, from the samples alone (`white_share` has the method).

    The track's robust level, and within 1.5 s the mean of squares that are cut at nine times that level: noise that falls
    as an object comes near is followed, single outliers are not.

    Args:
        row: `[M]` track of each sample, sorted.
        time_s: `[M]` sorted within a track.
        value: `[M, A]` positions.
        rows: number of tracks.
        max_span_s: neighbours further apart than this are not used.

    Returns:
        `[M, A]`; 0 where a track has no three samples near each other.
    """
    level = np.zeros(value.shape)
    residual, expected, owner = _pseudo_residuals(row, time_s, value, np.ones(value.shape), max_span_s)
    square = residual**2 / expected
    centre = time_s[1:-1][_near(row, time_s, max_span_s)]
    # one sorted axis for all tracks: windows never reach from one into the next
    stride = 2 * _LEVEL_REACH_S + (float(time_s.max() - time_s.min()) if len(time_s) else 0.0) + 1.0
    place, wanted = owner * stride + centre, row * stride + time_s
    # a microsecond more: rounding must not let other tracks decide whether a sample at the very end of the reach counts
    first, stop = (np.searchsorted(place, wanted + reach) for reach in (-_LEVEL_REACH_S - 1e-6, _LEVEL_REACH_S + 1e-6))
    prior = 8.0
    for axis in range(value.shape[1]):
        has, middle = _medians(square[:, axis], owner, rows)
        track = np.zeros(rows)
        track[has] = middle / _CHI_SQUARED_MEDIAN
        total = np.concatenate([[0.0], np.cumsum(np.minimum(square[:, axis], 9 * track[owner]))])
        level[:, axis] = (prior * track[row] + total[stop] - total[first]) / (prior + stop - first)
    return level


_CHI_SQUARED_MEDIAN = 0.4549  # with 1 degree of freedom: medians resist single outliers
_LEVEL_REACH_S = 1.5


def _near(row: np.ndarray, time_s: np.ndarray, max_span_s: float) -> np.ndarray:
    """Return which inner samples have two neighbours of their own track within `max_span_s`, `[M - 2]`."""
    span = time_s[2:] - time_s[:-2]
    return (row[2:] == row[:-2]) & (span > 0) & (span <= max_span_s)


def _pseudo_residuals(
    row: np.ndarray, time_s: np.ndarray, value: np.ndarray, variance: np.ndarray, max_span_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each inner sample's distance from the line through its neighbours, its variance, and its track."""
    use = _near(row, time_s, max_span_s)
    span = np.where(use, time_s[2:] - time_s[:-2], 1.0)
    right = ((time_s[1:-1] - time_s[:-2]) / span)[:, None]
    residual = (1 - right) * value[:-2] + right * value[2:] - value[1:-1]
    expected = (1 - right) ** 2 * variance[:-2] + right**2 * variance[2:] + variance[1:-1]
    return residual[use], expected[use], row[1:-1][use]


def _medians(values: np.ndarray, owner: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `rows` own any value, and the median of each of these."""
    count = np.bincount(owner, minlength=rows)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    has = count > 0
    ordered = values[np.lexsort((values, owner))]
    return has, (ordered[(start + (count - 1) // 2)[has]] + ordered[(start + count // 2)[has]]) / 2


def sampling_interval(row: np.ndarray, time_s: np.ndarray, rows: int) -> np.ndarray:
    """Return the median seconds from a sample of each track to its next, `[rows]`; 0.1 s for a single sample.

    Args:
        row: `[M]` track of each sample, sorted.
        time_s: `[M]` rising within a track.
        rows: number of tracks.
    """
    same = row[1:] == row[:-1]
    interval = np.full(rows, 0.1)
    has, middle = _medians(np.diff(time_s)[same], row[1:][same], rows)
    interval[has] = middle
    return interval


def draw_paths(
    times_s: np.ndarray,
    observed: np.ndarray,
    wanted: np.ndarray,
    values: np.ndarray,
    white: np.ndarray,
    drift: np.ndarray,
    change: np.ndarray,
    spread: np.ndarray,
    noise: NoiseModels,
    normals: Sequence[Callable[[int], np.ndarray]],
    uniforms: np.ndarray,
) -> np.ndarray:
    """Draw paths given noisy samples; the same bits on any number of threads, and whatever the other tracks.

    Args:
        times_s: `[R, S]` times of the steps of each track, non-decreasing; trailing padding repeats the last time.
        observed: `[R, S]` steps that carry a sample.
        wanted: `[R, S]` steps at which the path is wanted; steps after a track's last observed or wanted one are padding.
        values: `[R, S, A]` samples; read where observed.
        white: `[R, S, A]` variance of the white part of the noise.
        drift: `[R, S, A]` variance of the time-correlated part.
        change: `[R, A]` by how much velocity usually changes in a second, as a share of the track's mean speed.
        spread: `[R, A]` how far the square of that may be from the truth, in powers of ten.
        noise: what is tried for the noise.
        normals: for each track, gives standard normal numbers `[s, A, D, 3]` for its s steps and D draws; called when the
            track is drawn, so that only the numbers of the tracks at work are held.
        uniforms: `[R, 1 + A, D]` uniform numbers: of the colour of the noise, and of the axes.

    Returns:
        `[K, A, D, 2]` position and velocity of each draw at each of the K wanted steps, in the order of `np.nonzero(wanted)`.
    """
    rows, _, axes = values.shape
    values = np.where(observed[..., None], values, 0.0)
    origin = values[np.arange(rows), np.argmax(observed, axis=1)]
    values = np.where(observed[..., None], values - origin[:, None], 0.0)
    density, prior, position_prior, velocity_prior, of_model = hypotheses(times_s, observed, values, white, change, spread, noise)
    scales = np.stack([noise.white[of_model], noise.drift[of_model], noise.seconds[of_model]], 1)
    lengths = values.shape[1] - np.argmax((observed | wanted)[:, ::-1], axis=1)
    colour = noise.colour[of_model]
    of_colour = np.bincount(noise.colour, noise.weight)
    first = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])
    draws = np.empty((first[-1], axes, uniforms.shape[-1], 2))

    def draw(row: int) -> None:
        steps = slice(lengths[row])
        numbers = normals[row](lengths[row])
        of_axis = [
            (
                times_s[row, steps],
                observed[row, steps],
                np.ascontiguousarray(values[row, steps, axis]),
                np.ascontiguousarray(white[row, steps, axis]),
                np.ascontiguousarray(drift[row, steps, axis]),
                np.ascontiguousarray(density[row, axis]),
                scales,
                position_prior[row, axis],
                velocity_prior[row, axis],
            )
            for axis in range(axes)
        ]
        logs = prior[row] + [_likelihoods(*known) for known in of_axis]
        choice = _choose(logs, colour, of_colour, noise.common, uniforms[row])
        for axis, known in enumerate(of_axis):
            _draw_axis(*known, wanted[row, steps], numbers[:, axis], choice[axis], draws[first[row] : first[row + 1], axis])
        draws[first[row] : first[row + 1], ..., 0] += origin[row][:, None]

    map_pieces(draw, rows)
    return draws


def _choose(logs: np.ndarray, colour: np.ndarray, of_colour: np.ndarray, common: float, uniforms: np.ndarray) -> np.ndarray:
    """Draw a hypothesis per axis and draw, `[A, D]`, from their joint posterior.

    Either one colour holds for all axes (prior `common`) or each axis has its own; given that, axes are independent.

    Args:
        logs: `[A, H]` log of prior times likelihood.
        colour: `[H]` colour of each hypothesis.
        of_colour: `[C]` prior of each colour.
        common: prior probability that all axes have the same.
        uniforms: `[1 + A, D]`.
    """
    colours, count = len(of_colour), len(colour)
    weight = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior = np.stack([np.bincount(colour, row, colours) for row in weight])  # [A, C]
    same = common * of_colour * (posterior / of_colour).prod(axis=0)
    apart = (1 - common) * posterior.sum(axis=1).prod()
    cumulative = np.cumsum(np.append(same, apart))
    chosen = np.minimum(np.searchsorted(cumulative, uniforms[0] * cumulative[-1], side="right"), colours)  # the last is apart
    allowed = np.concatenate([colour == np.arange(colours)[:, None], np.ones((1, count), bool)])
    result = np.empty((len(logs), uniforms.shape[1]), np.int64)
    for axis, row in enumerate(weight):
        of_hypothesis = np.cumsum(row * allowed, axis=1)[chosen]  # [D, H]
        result[axis] = (uniforms[1 + axis][:, None] * of_hypothesis[:, -1:] >= of_hypothesis).sum(axis=1)
    return np.minimum(result, count - 1)


@numba.njit(nogil=True, cache=True)
def _draw_axis(  # type: ignore[no-untyped-def]
    times, observed, values, white, drift, density, scales, position_prior, velocity_prior, wanted, normals, choice, result
):
    """Draw one axis of one track into `result` `[K, D, 2]`, at the wanted steps, each draw under the hypothesis chosen."""
    steps = len(times)
    means, covariances = np.empty((steps, 3)), np.empty((steps, 3, 3))
    for index in np.unique(choice):
        _filter(
            times,
            observed,
            values,
            white,
            drift,
            density[index],
            scales[index],
            position_prior,
            velocity_prior,
            means,
            covariances,
        )
        _sample_backwards(
            times, wanted, means, covariances, density[index], scales[index, 2], normals, np.flatnonzero(choice == index), result
        )


@numba.njit(nogil=True, cache=True)
def _predict(mean, covariance, dt, density, seconds, ahead_mean, ahead):  # type: ignore[no-untyped-def]
    """Carry the state (position, velocity, drift) over `dt` seconds."""
    keep = np.exp(-dt / seconds)
    ahead_mean[0] = mean[0] + dt * mean[1]
    ahead_mean[1] = mean[1]
    ahead_mean[2] = keep * mean[2]
    pp, pv, pu = covariance[0, 0], covariance[0, 1], covariance[0, 2]
    vv, vu, uu = covariance[1, 1], covariance[1, 2], covariance[2, 2]
    ahead[0, 0] = pp + 2 * dt * pv + dt * dt * vv + density * dt**3 / 3
    ahead[0, 1] = ahead[1, 0] = pv + dt * vv + density * dt**2 / 2
    ahead[0, 2] = ahead[2, 0] = keep * (pu + dt * vu)
    ahead[1, 1] = vv + density * dt
    ahead[1, 2] = ahead[2, 1] = keep * vu
    ahead[2, 2] = keep * keep * uu + 1 - keep * keep


@numba.njit(nogil=True, cache=True)
def _likelihoods(times, observed, values, white, drift, density, scales, position_prior, velocity_prior):  # type: ignore[no-untyped-def]
    """Return the log likelihood of the samples under every hypothesis `[H]`: the filter below, from sample to sample.

    All hypotheses go along together, which the processor does several times faster than one after the other: none has to
    wait for its own last result. The products of eight variances share a logarithm.
    """
    count = len(density)
    p, v, u = np.zeros(count), np.zeros(count), np.zeros(count)
    pp, pv, pu = np.full(count, position_prior), np.zeros(count), np.zeros(count)
    vv, vu, uu = np.full(count, velocity_prior), np.zeros(count), np.ones(count)
    square, product, logarithm = np.zeros(count), np.ones(count), np.zeros(count)
    white_scale, drift_scale = scales[:, 0].copy(), np.sqrt(scales[:, 1])
    memories = np.unique(scales[:, 2])
    memory = np.searchsorted(memories, scales[:, 2])
    before, pending = times[0], 0
    for step in range(len(times)):
        if not observed[step]:
            continue
        dt = times[step] - before
        before = times[step]
        decay = np.exp(-dt / memories)
        size = np.sqrt(drift[step])
        for index in range(count):
            keep, q, load = decay[memory[index]], density[index], size * drift_scale[index]
            position, drifted = p[index] + dt * v[index], keep * u[index]
            ahead_pp = pp[index] + 2 * dt * pv[index] + dt * dt * vv[index] + q * dt**3 / 3
            ahead_pv = pv[index] + dt * vv[index] + q * dt**2 / 2
            ahead_pu = keep * (pu[index] + dt * vu[index])
            ahead_vv = vv[index] + q * dt
            ahead_vu = keep * vu[index]
            ahead_uu = keep * keep * uu[index] + 1 - keep * keep
            cross0 = ahead_pp + load * ahead_pu
            cross1 = ahead_pv + load * ahead_vu
            cross2 = ahead_pu + load * ahead_uu
            variance = cross0 + load * cross2 + white[step] * white_scale[index]
            innovation = values[step] - position - load * drifted
            gain0, gain1, gain2 = cross0 / variance, cross1 / variance, cross2 / variance
            square[index] += innovation**2 / variance
            product[index] *= variance
            p[index] = position + gain0 * innovation
            v[index] += gain1 * innovation
            u[index] = drifted + gain2 * innovation
            pp[index] = ahead_pp - gain0 * cross0
            pv[index] = ahead_pv - gain0 * cross1
            pu[index] = ahead_pu - gain0 * cross2
            vv[index] = ahead_vv - gain1 * cross1
            vu[index] = ahead_vu - gain1 * cross2
            uu[index] = ahead_uu - gain2 * cross2
        pending += 1
        if pending % 8 == 0:
            logarithm += np.log(product)
            product[:] = 1.0
    return -0.5 * (square + logarithm + np.log(product))


@numba.njit(nogil=True, cache=True)
def _filter(times, observed, values, white, drift, density, scale, position_prior, velocity_prior, means, covariances):  # type: ignore[no-untyped-def]
    """Filter forwards under one hypothesis, and keep mean and covariance of every step."""
    mean, covariance = np.zeros(3), np.zeros((3, 3))
    covariance[0, 0], covariance[1, 1], covariance[2, 2] = position_prior, velocity_prior, 1.0
    ahead_mean, ahead = np.empty(3), np.empty((3, 3))
    for step in range(len(times)):
        if step and times[step] > times[step - 1]:
            _predict(mean, covariance, times[step] - times[step - 1], density, scale[2], ahead_mean, ahead)
            mean[:] = ahead_mean
            covariance[:] = ahead
        if observed[step]:
            load = np.sqrt(drift[step] * scale[1])
            cross0 = covariance[0, 0] + load * covariance[0, 2]
            cross1 = covariance[1, 0] + load * covariance[1, 2]
            cross2 = covariance[2, 0] + load * covariance[2, 2]
            variance = cross0 + load * cross2 + white[step] * scale[0]
            innovation = values[step] - mean[0] - load * mean[2]
            gain0, gain1, gain2 = cross0 / variance, cross1 / variance, cross2 / variance
            mean[0] += gain0 * innovation
            mean[1] += gain1 * innovation
            mean[2] += gain2 * innovation
            covariance[0, 0] -= gain0 * cross0
            covariance[0, 1] -= gain0 * cross1
            covariance[0, 2] -= gain0 * cross2
            covariance[1, 1] -= gain1 * cross1
            covariance[1, 2] -= gain1 * cross2
            covariance[2, 2] -= gain2 * cross2
            covariance[1, 0], covariance[2, 0], covariance[2, 1] = covariance[0, 1], covariance[0, 2], covariance[1, 2]
        means[step] = mean
        covariances[step] = covariance


@numba.njit(nogil=True, cache=True)
def _sample_backwards(times, wanted, means, covariances, density, seconds, normals, chosen, result):  # type: ignore[no-untyped-def]
    """Draw whole paths from the last step to the first, for the draws `chosen`; the wanted steps are kept."""
    states = np.empty((len(chosen), 3))
    ahead_mean, ahead, gain, left = np.empty(3), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    root, scaled, size = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    last, place = len(times) - 1, len(result)
    for step in range(last, -1, -1):
        mean, covariance = means[step], covariances[step]
        if step == last:
            _root(covariance, root)
            gain[:] = 0.0
            ahead_mean[:] = 0.0
            states[:] = 0.0
        elif times[step + 1] > times[step]:
            dt = times[step + 1] - times[step]
            keep = np.exp(-dt / seconds)
            _predict(mean, covariance, dt, density, seconds, ahead_mean, ahead)
            # gain' = ahead^-1 transition covariance, solved after scaling to unit diagonal: the units differ by orders
            for row in range(3):
                size[row] = 1.0 / np.sqrt(max(ahead[row, row], 1e-300))
            for row in range(3):
                for column in range(3):
                    scaled[row, column] = ahead[row, column] * size[row] * size[column] + (1e-13 if row == column else 0.0)
            _root(scaled, root)
            for column in range(3):
                first = size[0] * (covariance[0, column] + dt * covariance[1, column]) / root[0, 0]
                second = (size[1] * covariance[1, column] - root[1, 0] * first) / root[1, 1]
                third = size[2] * keep * covariance[2, column] - root[2, 0] * first - root[2, 1] * second
                third /= root[2, 2] * root[2, 2]
                second = (second - root[2, 1] * third) / root[1, 1]
                first = (first - root[1, 0] * second - root[2, 0] * third) / root[0, 0]
                gain[column, 0], gain[column, 1], gain[column, 2] = size[0] * first, size[1] * second, size[2] * third
            for row in range(3):
                for column in range(row + 1):
                    total = covariance[row, column]
                    for k in range(3):
                        for j in range(3):
                            total -= gain[row, k] * ahead[k, j] * gain[column, j]
                    left[row, column] = left[column, row] = total
            _root(left, root)
        if step == last or times[step + 1] > times[step]:  # else it is the same instant and the same state
            for index in range(len(chosen)):
                noise = normals[step, chosen[index]]
                x, y, z = states[index, 0] - ahead_mean[0], states[index, 1] - ahead_mean[1], states[index, 2] - ahead_mean[2]
                for row in range(3):
                    moved = mean[row] + gain[row, 0] * x + gain[row, 1] * y + gain[row, 2] * z
                    states[index, row] = moved + root[row, 0] * noise[0] + root[row, 1] * noise[1] + root[row, 2] * noise[2]
        if wanted[step]:
            place -= 1
            for index in range(len(chosen)):
                result[place, chosen[index], 0] = states[index, 0]
                result[place, chosen[index], 1] = states[index, 1]


@numba.njit(nogil=True, cache=True)
def _root(matrix, root):  # type: ignore[no-untyped-def]
    """Write a lower triangular root of a positive semi-definite 3x3 matrix; rounding below zero counts as zero."""
    root[:] = 0.0
    for column in range(3):
        left = matrix[column, column]
        for k in range(column):
            left -= root[column, k] ** 2
        pivot = np.sqrt(left) if left > 1e-14 * abs(matrix[column, column]) else 0.0
        root[column, column] = pivot
        if pivot > 0:
            for row in range(column + 1, 3):
                rest = matrix[row, column]
                for k in range(column):
                    rest -= root[row, k] * root[column, k]
                root[row, column] = rest / pivot


def hypotheses(
    times_s: np.ndarray,
    observed: np.ndarray,
    values: np.ndarray,
    white: np.ndarray,
    change: np.ndarray,
    spread: np.ndarray,
    noise: NoiseModels,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what is tried for each track and axis: every density q with every model of the noise.

    Returns:
        Densities `[R, A, H]`, the log of their prior `[R, A, H]`, wide prior variances of position and of velocity `[R, A]`
        from the data's own size, and the index of each hypothesis' model of the noise `[H]`.
    """
    weight = observed.astype(float)
    level = (white * weight[..., None]).sum(1) / weight.sum(1)[:, None]
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
    highest = 4 * acceleration + level + np.where(known.any(1), 0.0, (extent / duration**2) ** 2)
    speed = 10 * extent / duration + 10 * np.sqrt(level)
    squared_speed = (extent**2 + level).sum(1, keepdims=True) / duration**2
    usual = change**2 * squared_speed
    density = np.maximum(highest, usual)[..., None] * DENSITY_STEPS
    decades = np.log10(density / usual[..., None]) / spread[..., None]
    prior = (1 + decades**2 / _TAIL_DEGREES) ** (-(_TAIL_DEGREES + 1) / 2)
    models = len(noise.white)
    logs = np.tile(np.log(prior / prior.sum(-1, keepdims=True)), (1, 1, models))
    logs += np.repeat(np.log(noise.weight), len(DENSITY_STEPS))
    of_model = np.repeat(np.arange(models), len(DENSITY_STEPS))
    return np.tile(density, (1, 1, models)), logs, (10 * extent) ** 2 + 100 * level, speed**2, of_model
