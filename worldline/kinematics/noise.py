"""Noise models that corrupt true positions, to measure what labels made from them are worth."""

import numpy as np

NOISE_KINDS = ("clean", "independent", "depth_proportional", "drift", "dropouts")


def corrupt_positions(
    kind: str, row: np.ndarray, time_s: np.ndarray, positions: np.ndarray, ranges: np.ndarray, sigma: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corrupt tracks by one of `NOISE_KINDS`.

    - "independent": white, `sigma` per axis.
    - "depth_proportional": white, `sigma` per axis at a range of 20 and proportional to it.
    - "drift": Ornstein-Uhlenbeck per track and axis, standard deviation `sigma`, correlated over 3 s, plus sigma / 4 white.
    - "dropouts": independent, and a fifth of the samples lost, half of them in runs.

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
        drift = np.zeros_like(white)
        same = np.append(False, row[1:] == row[:-1])
        share = np.where(same, np.exp(-np.diff(time_s, prepend=time_s[:1]) / 3.0), 0.0)
        for index in range(len(row)):
            drift[index] = share[index] * drift[index - 1] + np.sqrt(1 - share[index] ** 2) * white[index]
        noise = sigma * (drift + 0.25 * generator.standard_normal(white.shape))
        return positions + noise, np.full(len(row), sigma * np.sqrt(1 + 0.25**2)), keep
    if kind == "dropouts":
        keep = generator.random(len(row)) > 0.1
        begins = generator.random(len(row)) < 0.1 / 6
        recent = np.convolve(begins, np.ones(6), mode="full")[: len(row)] > 0
        keep &= ~recent
    return positions + sigma * white, stated, keep
