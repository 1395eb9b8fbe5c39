"""Noise models that corrupt true positions, to measure what labels made from them are worth."""

import numpy as np

FITTED_KINDS = ("independent", "depth_proportional", "drift", "dropouts", "identity_switches")  # what the smoother models
UNFITTED_KINDS = ("heavy_tails", "short_memory", "sway", "changing")  # and families that it does not
NOISE_KINDS = ("clean", *FITTED_KINDS, *UNFITTED_KINDS)
_HEAVY_DEGREES = 4.0  # of freedom of the t distribution
_SHORT_MEMORY_S = 0.3
_SWAY_HZ = 0.25


def corrupt_positions(
    kind: str, row: np.ndarray, time_s: np.ndarray, positions: np.ndarray, ranges: np.ndarray, sigma: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corrupt tracks by one of `NOISE_KINDS`.

    - "independent": white, `sigma` per axis.
    - "depth_proportional": white, `sigma` per axis at a range of 20 and proportional to it.
    - "drift": Ornstein-Uhlenbeck per track and axis, standard deviation `sigma`, correlated over 3 s, plus sigma / 4 white.
    - "dropouts": independent, and a fifth of the samples lost, half of them in runs.
    - "identity_switches": independent, and a third of the tracks jump to another place for good at a random time.
    - "heavy_tails": t-distributed with 4 degrees of freedom, `sigma` per axis.
    - "short_memory": autoregressive, correlated over 0.3 s, as of a tracker that filters.
    - "sway": a sine of 0.25 Hz per track and axis of random phase, plus white, half the variance each.
    - "changing": white, its standard deviation falling over the track from 1.6 to 0.4 `sigma`, as of an object that comes near.

    Args:
        kind: one of `NOISE_KINDS`.
        row: `[M]` track of each sample, sorted; times sorted within.
        time_s: `[M]` seconds.
        positions: `[M, 3]`.
        ranges: `[M]` distance from the camera.
        sigma: standard deviation in the unit of the positions.
        seed: of the noise.

    Returns:
        Corrupted positions `[M, 3]`, the standard deviation per axis `[M]` that an honest tracker would state, and
        which samples are kept `[M]`.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"unknown noise {kind!r}: one of {', '.join(NOISE_KINDS)}")
    generator = np.random.default_rng(seed)
    white = generator.standard_normal(positions.shape)
    keep = np.ones(len(row), bool)
    stated = np.full(len(row), float(sigma))
    if kind == "clean":
        return positions.copy(), np.full(len(row), 0.02), keep
    if kind == "depth_proportional":
        stated = sigma * ranges / 20.0
        return positions + stated[:, None] * white, stated, keep
    if kind == "drift":
        noise = sigma * (_remembering(white, row, time_s, 3.0) + 0.25 * generator.standard_normal(white.shape))
        return positions + noise, np.full(len(row), sigma * np.sqrt(1 + 0.25**2)), keep
    if kind == "short_memory":
        return positions + sigma * _remembering(white, row, time_s, _SHORT_MEMORY_S), stated, keep
    if kind == "heavy_tails":
        spread = np.sqrt(_HEAVY_DEGREES / (_HEAVY_DEGREES - 2))
        return positions + sigma / spread * generator.standard_t(_HEAVY_DEGREES, white.shape), stated, keep
    if kind in ("sway", "changing", "identity_switches"):
        ids, owner = np.unique(row, return_inverse=True)
        first = np.full(len(ids), np.inf)
        last = np.full(len(ids), -np.inf)
        np.minimum.at(first, owner, time_s)
        np.maximum.at(last, owner, time_s)
        progress = (time_s - first[owner]) / np.maximum(last - first, 1e-9)[owner]
        if kind == "sway":
            phase = generator.uniform(0, 2 * np.pi, (len(ids), 3))[owner]
            return (
                positions + sigma * (np.sin(2 * np.pi * _SWAY_HZ * time_s[:, None] + phase) + np.sqrt(0.5) * white),
                stated,
                keep,
            )
        if kind == "changing":
            stated = sigma * 1.6 * 0.25**progress
            return positions + stated[:, None] * white, stated, keep
        when = np.where(generator.random(len(ids)) < 1 / 3, generator.uniform(0.2, 0.8, len(ids)), np.inf)
        angle = generator.uniform(0, 2 * np.pi, len(ids))
        jump = generator.uniform(4.0, 12.0, len(ids))[:, None] * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
        return positions + sigma * white + np.where((progress > when[owner])[:, None], jump[owner], 0.0), stated, keep
    if kind == "dropouts":
        keep = generator.random(len(row)) > 0.1
        begins = generator.random(len(row)) < 0.1 / 6
        recent = np.convolve(begins, np.ones(6), mode="full")[: len(row)] > 0
        keep &= ~recent
    return positions + sigma * white, stated, keep


def _remembering(white: np.ndarray, row: np.ndarray, time_s: np.ndarray, memory_s: float) -> np.ndarray:
    """Return Ornstein-Uhlenbeck noise `[M, 3]` of unit variance that forgets with `memory_s`, track by track."""
    noise = np.zeros_like(white)
    same = np.append(False, row[1:] == row[:-1])
    share = np.where(same, np.exp(-np.diff(time_s, prepend=time_s[:1]) / memory_s), 0.0)
    for index in range(len(row)):
        noise[index] = share[index] * noise[index - 1] + np.sqrt(1 - share[index] ** 2) * white[index]
    return noise
