"""Changes of training frames that a detector must not mind, down to what renderings of Gaussians look like."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

_MIN_ZOOM, _MAX_ZOOM = 0.75, 1.6


def random_view(
    rng: np.random.Generator,
    image: UInt8[np.ndarray, "H W 3"],
    boxes: Float[np.ndarray, "n 4"],
    lanes: Bool[np.ndarray, "H W"],
    width: int,
    height: int,
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "n 4"], Bool[np.ndarray, "h w"]]:
    """Return a random crop, zoomed and perhaps mirrored, at a chosen size; boxes follow, also where they leave it.

    Args:
        rng: source of the choice.
        image: a frame.
        boxes: of its vehicles, pixels.
        lanes: its lane lines.
        width: to return, pixels.
        height: to return, pixels.
    """
    fit = max(width / image.shape[1], height / image.shape[0])
    zoom = fit * float(np.exp(rng.uniform(np.log(_MIN_ZOOM), np.log(_MAX_ZOOM)))) if rng.random() < 0.7 else fit
    spare = np.array([image.shape[1] * zoom - width, image.shape[0] * zoom - height])
    corner = rng.uniform(np.minimum(spare, 0), np.maximum(spare, 0))
    mirror = rng.random() < 0.5
    scale = np.array([[-zoom if mirror else zoom, 0.0], [0.0, zoom]])
    shift = np.array([width + corner[0] if mirror else -corner[0], -corner[1]])
    # In OpenCV's pixels, whose centres are whole numbers.
    matrix = np.column_stack([scale, shift + scale @ [0.5, 0.5] - 0.5])
    grey = tuple(float(value) for value in image.mean(axis=(0, 1)))
    drawn = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=grey)
    lines = cv2.warpAffine(lanes.astype(np.float32), matrix, (width, height)) > 0.5
    moved = boxes.reshape(-1, 2, 2) @ scale.T + shift
    moved = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    return drawn, moved, lines


def degrade(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return the frame with random exposure, colour, blur, loss of resolution, noise, and the marks of Gaussian scenes.

    The marks are smooth oriented spots (floaters and missing detail) and a wobble of half a pixel or so.
    """
    height, width = image.shape[:2]
    result: np.ndarray = image.astype(np.float32)
    if rng.random() < 0.8:
        gain = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.06, 3))
        result = (result - 128) * np.exp(rng.normal(0, 0.15)) + 128
        result = result * gain + rng.normal(0, 8)
    if rng.random() < 0.3:
        result = _wobbled(rng, result)
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 12)):
            result = _with_spot(rng, result)
    if rng.random() < 0.35:
        result = cv2.GaussianBlur(result, (0, 0), float(rng.uniform(0.4, 1.6)))
    elif rng.random() < 0.35:
        share = rng.uniform(0.4, 0.9)
        small = cv2.resize(result, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
        result = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        result = result + rng.normal(0, rng.uniform(0.5, 8), result.shape)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _wobbled(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    coarse = rng.normal(0, rng.uniform(0.3, 1.0), (2, max(height // 12, 2), max(width // 12, 2))).astype(np.float32)
    across, down = (cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(image, x + across, y + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _with_spot(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Lay one translucent Gaussian of a colour of the frame over it."""
    height, width = image.shape[:2]
    place = rng.uniform(0, 1, 2) * (width, height)
    radii = np.exp(rng.uniform(np.log(1.0), np.log(0.09 * width), 2))
    angle = rng.uniform(0, np.pi)
    x, y = np.arange(width)[None] - place[0], np.arange(height)[:, None] - place[1]
    along = (np.cos(angle) * x + np.sin(angle) * y) / radii[0]
    across = (np.cos(angle) * y - np.sin(angle) * x) / radii[1]
    opacity = rng.uniform(0.2, 0.9) * np.exp(-(along**2 + across**2) / 2)
    colour = image[rng.integers(height), rng.integers(width)] + rng.normal(0, 15, 3)
    return image + opacity[..., None] * (colour - image)
