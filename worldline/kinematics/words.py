"""Columns of words: object arrays that hold text, or None where there is nothing to tell."""

from collections.abc import Sequence

import numpy as np


def is_none(words: np.ndarray) -> np.ndarray:
    """Return where a column of words holds None."""
    return np.asarray(np.equal(words, np.array(None, dtype=object)), dtype=bool)


def choose(conditions: Sequence[np.ndarray], words: Sequence[str | np.ndarray], default: str | None = None) -> np.ndarray:
    """Return the word of the first condition that holds, elementwise; `default` where none does.

    Args:
        conditions: boolean arrays of one shape.
        words: for each, a word or a column of words.
        default: for the rest.
    """
    result = np.full(np.shape(conditions[0]), default, dtype=object)
    for applies, word in zip(reversed(conditions), reversed(words), strict=True):
        chosen = np.asarray(applies, dtype=bool)
        result[chosen] = word[chosen] if isinstance(word, np.ndarray) else word
    return result
