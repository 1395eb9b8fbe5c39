"""Light of a clear day: a sun, a blue sky above and light thrown back by the ground."""

import numpy as np

SUN = np.array([0.66, 0.61, 0.52])
SKY = np.array([0.56, 0.60, 0.66])
BOUNCE = np.array([0.40, 0.38, 0.34])


def light_on(normals: np.ndarray, sun_direction: np.ndarray, sunlit: float = 1.0) -> np.ndarray:
    """Return the light `[N, 3]` (1 is white in the image) that matt surfaces with normals `[N, 3]` send back.

    Lambert's law for the sun, and hemisphere lighting for sky and ground: their shares are those of a tilted plane's
    view of the sky, (1 + n_z) / 2, and of the ground, (1 - n_z) / 2.
    """
    above = (1 + normals[:, 2:]) / 2
    sun = np.clip(normals @ sun_direction, 0, None)[:, None] * sunlit
    return SKY * above + BOUNCE * (1 - above) + SUN * sun


def highlight(normals: np.ndarray, sun_direction: np.ndarray, strength: float) -> np.ndarray:
    """Return the extra light `[N]` of a glossy coat: sky mirrored by surfaces that face up, and a soft sun spot.

    The viewer is taken to be far away and level, so that the highlight stays where it is as the camera moves and the
    image of a static scene stays consistent between frames.
    """
    halfway = sun_direction + np.array([-0.8, 0.0, 0.3])
    halfway /= np.linalg.norm(halfway)
    return strength * (0.10 * np.clip(normals[:, 2], 0, None) + 0.5 * np.clip(normals @ halfway, 0, None) ** 24)
