"""Numbers as texts, rounded to what their uncertainty allows."""

import numpy as np

# Finest rounding below 10, below 50 and above: of distances and times, and of speeds.
DISTANCE_STEPS = (0.1, 0.5, 1.0)
SPEED_STEPS = (1.0, 1.0, 1.0)
_STEPS = np.array([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0])


def rounded_text(value: np.ndarray, sigma: np.ndarray, base_steps: tuple[float, float, float]) -> np.ndarray:
    """Round numbers to what their standard deviation allows, as texts.

    Args:
        value: `[K]`.
        sigma: `[K]` standard deviations.
        base_steps: finest rounding below 10, below 50 and above.

    Returns:
        `[K]` texts such as "7.3", "24.5" or "120".
    """
    finest = np.select([np.abs(value) < 10, np.abs(value) < 50], base_steps[:2], base_steps[2])
    allowed = _STEPS[np.clip(np.searchsorted(_STEPS, np.minimum(sigma, _STEPS[-1])), 0, len(_STEPS) - 1)]
    step = np.maximum(finest, np.where(np.isfinite(sigma), allowed, finest))
    # Never round half of the number away.
    step = np.where(step > np.abs(value) / 2, np.maximum(finest, _STEPS[0]), step)
    number = np.rint(value / step) * step
    return np.array([("%.1f" if fine else "%.0f") % told for fine, told in zip(step < 1, number.tolist(), strict=True)], object)


def in_text(form: str, numbers: np.ndarray) -> np.ndarray:
    """Return each number of an array as a text in a `%` format, as objects (`np.char.mod` takes longer for a few rows)."""
    return np.array([form % number for number in numbers.ravel().tolist()], object).reshape(numbers.shape)
