"""Signatures of images that are alike where the images show the same place, with no vocabulary trained elsewhere.

VLAD (Jegou et al., Aggregating Local Descriptors into a Compact Image Representation, CVPR 2010) over words that k-means
finds in the clip's own descriptors, each word's residual normalised by itself (Arandjelovic and Zisserman, All About VLAD,
CVPR 2013), so that a repeated pattern (a fence, leaves) does not drown the rest.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

_SAMPLED = 20_000  # descriptors that the words are found in
_ROUNDS = 12


def find_words(descriptors: Float32[np.ndarray, "N D"], count: int, rng: np.random.Generator) -> Float32[np.ndarray, "K D"]:
    """Cluster descriptors by Lloyd's k-means from `count` of them drawn at random; words that lose all theirs stay put."""
    words = descriptors[np.sort(rng.permutation(len(descriptors))[:count])].copy()
    for _ in range(_ROUNDS):
        word = nearest_word(descriptors, words)
        sums = np.zeros_like(words)
        np.add.at(sums, word, descriptors)
        members = np.bincount(word, minlength=len(words))
        words[members > 0] = sums[members > 0] / members[members > 0, None]
    return words


def nearest_word(descriptors: Float32[np.ndarray, "N D"], words: Float32[np.ndarray, "K D"]) -> np.ndarray:
    """Return the index of the nearest word of every descriptor."""
    nearest: np.ndarray = np.argmax(descriptors @ words.T - 0.5 * (words**2).sum(axis=1), axis=1)
    return nearest


def signature(descriptors: Float32[np.ndarray, "N D"], words: Float32[np.ndarray, "K D"]) -> Float32[np.ndarray, " KD"]:
    """Return the unit VLAD vector of one image; zeros where it has no descriptors."""
    residuals = np.zeros_like(words)
    if len(descriptors):
        word = nearest_word(descriptors, words)
        np.add.at(residuals, word, descriptors - words[word])
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-12)
    flat = residuals.ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-12)


def image_signatures(
    descriptors_of: Callable[[int], np.ndarray], count: int, words: int, seed: int
) -> Float32[np.ndarray, "count KD"]:
    """Return the signatures of all images of a clip, holding the descriptors of one image at a time.

    Args:
        descriptors_of: returns the descriptors `[N, D]` of an image (any number type).
        count: number of images.
        words: how many words the clip gets; fewer where it has fewer descriptors.
        seed: of the words.
    """
    rng = np.random.default_rng(seed)
    share = max(_SAMPLED // max(count, 1), 8)
    sampled = []
    for index in range(count):
        found = descriptors_of(index)
        sampled.append(found[np.sort(rng.permutation(len(found))[:share])].astype(np.float32))
    pool = np.concatenate(sampled)
    if not len(pool):
        return np.zeros((count, 1), np.float32)
    chosen = find_words(pool[np.sort(rng.permutation(len(pool))[:_SAMPLED])], min(words, len(pool)), rng)
    return np.stack([signature(descriptors_of(index).astype(np.float32), chosen) for index in range(count)])
