"""Sky: a gradient with clouds and, on the horizon, roofs and trees far away."""

import numpy as np

from worldline.worlds.light import CLEAR, Weather
from worldline.worlds.noise import fractal_noise, paint, to_bytes


def paint_sky(rng: np.random.Generator, width: int = 1536, height: int = 384, weather: Weather = CLEAR) -> np.ndarray:
    """Paint the upper half of a panorama, `[h, w, 3]` uint8; the bottom row is the horizon. Left and right edge meet."""
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    image = np.empty((height, width, 3), np.float32)
    for channel, (zenith, horizon) in enumerate(((62, 198), (116, 216), (196, 234))):
        image[..., channel] = horizon + (zenith - horizon) * np.clip(up * 1.5, 0, 1) ** 0.6
    clouds = _ring(fractal_noise(rng, (height, width + width // 8), 90, 6, stretch=2.5), width)
    thick = np.clip(0.8 * clouds - 0.05, 0, 1) * np.clip(1.3 - 0.9 * up, 0, 1)
    shade = 1 - 0.16 * np.clip(clouds - 1.0, 0, 1)
    paint(image, 0.9 * thick, np.array([250, 249, 246], np.float32) * shade[..., None])
    far = _ring(fractal_noise(rng, (8, width + width // 8), 60, 4), width)[4]
    roofs = np.repeat(rng.uniform(0, 1, width // 16), 16)[:width] * (np.repeat(rng.random(width // 16), 16)[:width] < 0.5)
    level = 0.035 + 0.008 * far + 0.03 * roofs
    texture = 1 + 0.08 * _ring(fractal_noise(rng, (height, width + width // 8), 12, 3), width)
    paint(image, np.clip((level[None, :] - up) * height, 0, 1), np.array([150, 164, 172], np.float32) * texture[..., None])
    trees = 0.016 + 0.008 * _ring(fractal_noise(rng, (8, width + width // 8), 24, 5), width)[4]
    paint(image, np.clip((trees[None, :] - up) * height, 0, 1), np.array([112, 130, 112], np.float32) * texture[..., None])
    horizon_share, zenith_share = weather.sky_share
    veil = (zenith_share + (horizon_share - zenith_share) * (1 - up) ** 3).astype(np.float32)[..., None]
    image += veil * (np.array(weather.sky_rgb, np.float32) - image)
    return to_bytes(image * np.float32(weather.sky_gain))


def _ring(noise: np.ndarray, width: int) -> np.ndarray:
    """Cross-fade the surplus on the right into the left, so that the edges meet."""
    surplus = noise.shape[1] - width
    blend = np.linspace(0, 1, surplus, dtype=np.float32)[None, :]
    ring = noise[:, :width].copy()
    ring[:, :surplus] = blend * noise[:, :surplus] + (1 - blend) * noise[:, width:]
    return ring
