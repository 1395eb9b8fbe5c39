"""Random textures: sums of smooth noise, never a repeated tile."""

import cv2
import numpy as np


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4, gain: float = 0.55, stretch: float = 1.0
) -> np.ndarray:
    """Return smooth noise with zero mean and unit deviation, `[h, w]` float32.

    Args:
        rng: source of randomness.
        shape: height and width.
        cell_px: size of the largest blobs.
        octaves: each halves the size of the blobs and multiplies their strength by `gain`.
        gain: strength of an octave relative to the one before.
        stretch: how much longer blobs are along rows (values under 1: along columns).
    """
    height, width = shape
    spare = int(cell_px * min(stretch, 1.0) / 2 ** (octaves - 1) / 3)
    if spare >= 2:  # even the finest octave is smooth: draw it small and enlarge it
        small = fractal_noise(rng, (height // spare + 2, width // spare + 2), cell_px / spare, octaves, gain, stretch)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    total = np.zeros(shape, np.float32)
    strength = 1.0
    for _ in range(octaves):
        rows, columns = max(2, round(height / cell_px) + 1), max(2, round(width / (cell_px * stretch)) + 1)
        if rows > height or columns > width:
            total += strength * rng.standard_normal(shape, np.float32)
        else:
            lattice = rng.standard_normal((rows, columns), np.float32)
            total += strength * cv2.resize(lattice, (width, height), interpolation=cv2.INTER_CUBIC)
        cell_px, strength = cell_px / 2, strength * gain
    mean, deviation = cv2.meanStdDev(total)
    total -= np.float32(mean[0, 0])
    total *= np.float32(1 / max(deviation[0, 0], 1e-6))
    return total


def tinted(rgb: tuple[float, float, float] | np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Return an image `[h, w, 3]` float32 of one colour (0 to 255) whose brightness varies around 1."""
    return np.asarray(rgb, np.float32) * brightness[..., None].astype(np.float32)


def blocks(rng: np.random.Generator, shape: tuple[int, int], block_px: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lay bricks, slabs or planks in running bond.

    Args:
        rng: source of randomness.
        shape: height and width.
        block_px: height and width of a block.

    Returns:
        One random value per block `[h, w]` (unit deviation), and how much of each pixel is joint, 0 to 1.
    """
    height, width = shape
    row_position = np.arange(height, dtype=np.float32) / block_px[0]
    row = row_position.astype(np.int64)
    shift = rng.random(row.max() + 1).astype(np.float32) * 0.2 + 0.5 * (np.arange(row.max() + 1) % 2)
    column_position = np.arange(width, dtype=np.float32)[None, :] / block_px[1] + shift[row][:, None] + 1
    column = column_position.astype(np.int64)
    values = rng.standard_normal((row.max() + 1, column.max() + 2)).astype(np.float32)[row[:, None], column]
    from_row = np.abs(row_position - row - 0.5) * 2
    from_column = np.abs(column_position - column - 0.5) * 2
    joint_rows = np.clip((from_row - 1) * block_px[0] / 2 + 1, 0, 1)[:, None]
    joint_columns = np.clip((from_column - 1) * block_px[1] / 2 + 1, 0, 1)
    return values, np.maximum(joint_rows, joint_columns)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Clip an image to 0..255 and return it as uint8."""
    return np.ascontiguousarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))


def paint(image: np.ndarray, mask: np.ndarray, rgb: tuple[float, float, float] | np.ndarray) -> None:
    """Blend a colour into a float image in place where `mask` (0 to 1, `[h, w]`) says."""
    colour = np.asarray(rgb, np.float32)
    where = np.nonzero(mask)
    if len(where[0]) > 0.4 * mask.size:
        image += mask[..., None].astype(np.float32) * (colour - image)
        return
    touched = image[where]
    image[where] = touched + mask[where].astype(np.float32)[:, None] * ((colour[where] if colour.ndim == 3 else colour) - touched)
