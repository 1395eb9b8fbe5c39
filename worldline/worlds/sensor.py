"""What a camera adds to a clean picture: exposure that wanders, vignetting, noise; and a satellite receiver's errors."""

from typing import Any

import numpy as np

# WGS84 ellipsoid
EQUATOR_M, FLATTENING = 6378137.0, 1 / 298.257223563


def exposure_gains(rng: np.random.Generator, frames: int, variation: float) -> np.ndarray:
    """Return one brightness factor per frame `[frames]`: two slow waves with amplitude `variation` in all."""
    phase = np.linspace(0, 2 * np.pi, frames)
    waves = np.sin(1.3 * phase + rng.uniform(0, 2 * np.pi)) + 0.6 * np.sin(3.7 * phase + rng.uniform(0, 2 * np.pi))
    return 1 + variation * waves / 1.6


def expose(rng: np.random.Generator, rgb: np.ndarray, gain: float, noise_grey_levels: float, vignetting: float) -> np.ndarray:
    """Return an image `[H, W, 3]` uint8 with gain, corners darker by `vignetting`, and noise that grows with brightness."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    radius = ((x + 0.5) / width * 2 - 1) ** 2 + ((y + 0.5) / height * 2 - 1) ** 2
    light = rgb.astype(np.float32) * (gain * (1 - vignetting * radius / 2)).astype(np.float32)[..., None]
    grain = rng.standard_normal(rgb.shape, np.float32) * (0.5 + 0.5 * np.sqrt(np.clip(light, 0, 255) / 128))
    return np.clip(light + noise_grey_levels * grain + 0.5, 0, 255).astype(np.uint8)


def gps_fixes(
    rng: np.random.Generator,
    times_s: np.ndarray,
    positions: np.ndarray,
    speeds_mps: np.ndarray,
    *,
    sigma_m: float,
    origin_deg: tuple[float, float] = (48.0, 11.0),
) -> dict[str, Any]:
    """Return columns of `schemas.clips.GPS_FIXES`: true positions with white noise (1.8 times as much in altitude).

    World x is east and y is north, on the tangent plane at `origin_deg` (latitude, longitude), altitude 500 m at z = 0.
    The speed over ground has a deviation of 0.1 m/s.
    """
    noisy = positions + rng.normal(size=positions.shape) * sigma_m * np.array([1, 1, 1.8])
    latitude, longitude = np.radians(origin_deg[0]), np.radians(origin_deg[1])
    squared = FLATTENING * (2 - FLATTENING)
    curvature = 1 - squared * np.sin(latitude) ** 2
    meridian = EQUATOR_M * (1 - squared) / curvature**1.5
    normal = EQUATOR_M / np.sqrt(curvature)
    return {
        "time_s": times_s,
        "latitude_deg": np.degrees(latitude + noisy[:, 1] / meridian),
        "longitude_deg": np.degrees(longitude + noisy[:, 0] / (normal * np.cos(latitude))),
        "altitude_m": 500.0 + noisy[:, 2],
        "speed_mps": np.clip(speeds_mps + 0.1 * rng.normal(size=len(times_s)), 0, None),
    }
