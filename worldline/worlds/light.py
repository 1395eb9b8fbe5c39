"""Light and weather: a sun, a sky above, light thrown back by the ground, and haze that grows with distance."""

from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Weather:
    """What the air and the sky do to a picture.

    Attributes:
        name: what a person would say.
        sun, sky, bounce: light in the image (1 is white) that a white surface sends back which faces the sun, the sky and the
            ground.
        shadow: how much of the light cars and people take from the ground beside them, 0 to 1.
        haze_rgb, haze_m: colour of the haze (0 to 255) and the distance at which it hides all but 1/e.
        sky_rgb, sky_share: colour towards which the painted sky is blended, and how far at the horizon and at the zenith
            (0 leaves it as it is, 1 hides it).
        sky_gain: factor on the painted sky.
        ground_gain: factor on the ground: a wet road is darker.
        overcast: whether light comes from the whole sky, so that shadows lie under what throws them.
    """

    name: str
    sun: RGB
    sky: RGB
    bounce: RGB
    shadow: float
    haze_rgb: RGB
    haze_m: float
    sky_rgb: RGB
    sky_share: tuple[float, float]
    sky_gain: float
    ground_gain: float
    overcast: bool


WEATHERS = {
    weather.name: weather
    for weather in (
        Weather("clear", (0.66, 0.61, 0.52), (0.56, 0.60, 0.66), (0.40, 0.38, 0.34), 0.5, (206, 218, 230), 420.0,
                (0, 0, 0), (0.0, 0.0), 1.0, 1.0, False),
        Weather("overcast", (0.0, 0.0, 0.0), (0.92, 0.94, 0.97), (0.52, 0.51, 0.48), 0.3, (204, 208, 212), 320.0,
                (206, 210, 214), (0.9, 0.8), 1.0, 1.0, True),
        Weather("dusk", (0.64, 0.43, 0.25), (0.36, 0.37, 0.46), (0.25, 0.22, 0.20), 0.45, (178, 150, 138), 340.0,
                (246, 172, 112), (0.75, 0.15), 0.78, 1.0, False),
        Weather("fog", (0.0, 0.0, 0.0), (0.84, 0.86, 0.88), (0.56, 0.56, 0.55), 0.2, (196, 200, 203), 62.0,
                (200, 204, 207), (1.0, 1.0), 1.0, 0.92, True),
        Weather("wet", (0.0, 0.0, 0.0), (0.78, 0.82, 0.88), (0.42, 0.43, 0.44), 0.35, (172, 180, 188), 190.0,
                (168, 176, 186), (0.95, 0.85), 0.92, 0.76, True),
    )
}  # fmt: skip
CLEAR = WEATHERS["clear"]


def light_on(normals: np.ndarray, sun_direction: np.ndarray, sunlit: float = 1.0, weather: Weather = CLEAR) -> np.ndarray:
    """Return the light `[N, 3]` (1 is white in the image) that matt surfaces with normals `[N, 3]` send back.

    Lambert's law for the sun, and hemisphere lighting for sky and ground: their shares are those of a tilted plane's
    view of the sky, (1 + n_z) / 2, and of the ground, (1 - n_z) / 2.
    """
    above = (1 + normals[:, 2:]) / 2
    sun = np.clip(normals @ sun_direction, 0, None)[:, None] * sunlit
    return np.array(weather.sky) * above + np.array(weather.bounce) * (1 - above) + np.array(weather.sun) * sun


def highlight(normals: np.ndarray, sun_direction: np.ndarray, strength: float) -> np.ndarray:
    """Return the extra light `[N]` of a glossy coat: sky mirrored by surfaces that face up, and a soft sun spot.

    The viewer is taken to be far away and level, so that the highlight stays where it is as the camera moves and the
    image of a static scene stays consistent between frames.
    """
    halfway = sun_direction + np.array([-0.8, 0.0, 0.3])
    halfway /= np.linalg.norm(halfway)
    return strength * (0.10 * np.clip(normals[:, 2], 0, None) + 0.5 * np.clip(normals @ halfway, 0, None) ** 24)
