"""What an object is and how large: only as far as geometry and speed support it; otherwise "unknown".

Size priors in metres (AASHTO passenger car 5.8 x 2.1 m at most, typical cars 4.5 x 1.8 x 1.6; adults 1.5 to 2 m) are
used only with a metric scale.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from schemas.cameras import CameraPath
from stages.label.ground_contact import Contact

CAR_LENGTH_PER_WIDTH = 2.45


@dataclass(frozen=True)
class Size:
    """Class, size and where the middle of the footprint is.

    Attributes:
        class_name: "car", "pedestrian" or "unknown".
        length, width, height: in the path's unit; None where unknown.
        centre: `[F, 3]` middle of the footprint.
        centre_sigma: uncertainty of its distance from the contact point.
        yaw_rad: `[F]` heading from the motion, NaN where it is too slow.
    """

    class_name: str
    length: float | None
    width: float | None
    height: float | None
    centre: Float64[np.ndarray, "F 3"]
    centre_sigma: float
    yaw_rad: Float64[np.ndarray, " F"]


def class_and_size(box: np.ndarray, placed: Contact | None, times_s: np.ndarray, path: CameraPath, frames: np.ndarray) -> Size:
    """Estimate class, size, heading and footprint centre of an object from its boxes and ground contacts."""
    nothing = np.full(len(box), np.nan)
    if placed is None or not np.isfinite(placed.xyz).all(axis=1).any():
        return Size("unknown", None, None, None, np.full((len(box), 3), np.nan), 0.0, nothing)
    known = np.isfinite(placed.xyz).all(axis=1)
    velocity = _velocity(placed.xyz, times_s)
    speed = np.linalg.norm(velocity[:, :2], axis=1)
    ray = placed.xyz - path.world_from_camera[frames, :3, 3]
    ray = ray[:, :2] / np.linalg.norm(ray[:, :2], axis=1, keepdims=True)
    height = float(np.nanmedian((box[:, 3] - box[:, 1]) * placed.depth / path.intrinsics[1, 1]))
    across = (box[:, 2] - box[:, 0]) * placed.depth / path.intrinsics[0, 0]
    fast = known & (speed > 0.05 * np.nanmedian(placed.range)) if not path.metric else known & (speed > 1.0)
    cosine = np.where(fast, np.abs((velocity[:, :2] * ray).sum(axis=1)) / np.maximum(speed, 1e-9), 1.0)
    cosine = np.minimum(cosine, 1.0)
    sine = np.sqrt(1 - cosine**2)
    # across = sine * length + cosine * width, with the proportions of a car
    width = float(np.nanmedian(across / (sine * CAR_LENGTH_PER_WIDTH + cosine)))
    length = CAR_LENGTH_PER_WIDTH * width
    class_name = _classify(width, height, float(np.nanmedian(across)), float(np.nanpercentile(speed, 75)), path.metric)
    if class_name != "car":
        width = length = float(np.nanmedian(across))
    depth_extent = (cosine * length + sine * width) / 2 if class_name == "car" else np.full(len(box), width / 2)
    centre = placed.xyz.copy()
    centre[:, :2] += ray * depth_extent[:, None]
    yaw = np.where(fast, np.arctan2(velocity[:, 1], velocity[:, 0]), np.nan)
    return Size(class_name, length, width, height, centre, 0.25 * float(np.nanmedian(depth_extent)), yaw)


def _classify(width: float, height: float, across: float, speed: float, metric: bool) -> str:
    if not metric:
        return "unknown"
    if 1.3 < width < 2.4 and 1.1 < height < 2.3 and speed > 2.0:
        return "car"
    if 0.3 < across < 1.1 and 1.3 < height < 2.1 and across < 0.75 * height and speed < 3.0:
        return "pedestrian"
    return "unknown"


def _velocity(xyz: np.ndarray, times_s: np.ndarray, half_seconds: float = 0.6) -> np.ndarray:
    """Slope of a straight-line fit over +-`half_seconds`; NaN where fewer than three positions are known."""
    velocity = np.full(xyz.shape, np.nan)
    known = np.isfinite(xyz).all(axis=1)
    for index, time in enumerate(times_s):
        near = known & (np.abs(times_s - time) <= half_seconds)
        if near.sum() >= 3:
            shifted = times_s[near] - times_s[near].mean()
            velocity[index] = shifted @ xyz[near] / (shifted @ shifted)
    return velocity


def colour_word(rgb: Float64[np.ndarray, "3"], road_rgb: Float64[np.ndarray, "3"] | None = None) -> str:
    """Return a colour word, or "" where the colour lies between words.

    Black, grey and white are told by their linear luminance relative to the road's in the same frames, because exposure
    and light take a white car's grey level anywhere. Asphalt reflects about a tenth to a fifth of the light, white paint
    four times as much (silver comes close to it, so white must be clear), black paint at most half as much.

    Args:
        rgb: of the object's body, 0 to 255.
        road_rgb: of the road before it; None or NaN where it is not known: then only extremes are told.
    """
    hue, saturation, value = colorsys.rgb_to_hsv(*(np.asarray(rgb) / 255))
    chroma = saturation * value
    if chroma < 0.10:
        if road_rgb is None or not np.isfinite(road_rgb).all():
            return "black" if value < 0.12 else "white" if value > 0.85 else ""
        ratio = _luminance(rgb) / max(_luminance(road_rgb), 1e-4)
        if ratio > 3.2 or (ratio > 2.2 and value > 0.7):
            return "white"
        if ratio < 0.5:
            return "black"
        return "grey" if 0.95 < ratio < 2.0 and saturation < 0.2 else ""
    if chroma < 0.2:
        return ""
    names = ((15, "red"), (22, ""), (42, "orange"), (48, ""), (68, "yellow"), (80, ""), (165, "green"), (185, ""))
    for limit, word in (*names, (255, "blue"), (270, ""), (330, "purple"), (345, ""), (361, "red")):
        if hue * 360 < limit:
            return word
    return ""


def _luminance(rgb: Float64[np.ndarray, "3"]) -> float:
    """Linear luminance of an image colour (gamma 2.2, Rec. 709 weights)."""
    return float((np.asarray(rgb) / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722])
