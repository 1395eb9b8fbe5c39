"""Which frames are matched with which: neighbours in time, all with all, or those that look alike."""

import itertools

import numpy as np
from jaxtyping import Float32

Pairs = list[tuple[int, int]]
_RISE = 0.1
_ROWS = 512  # signatures compared at a time: similarities of 10,000 frames would fill 400 MB at once


def sequential_steps(overlap: int) -> list[int]:
    """Return how far apart the frames of a pair are: up to `overlap`, and powers of two beyond it (slow motion needs them)."""
    return sorted({*range(1, overlap + 1), *(2**power for power in range(overlap + 1))})


def sequential_pairs(count: int, overlap: int) -> Pairs:
    """Return pairs of frames up to `overlap` apart, and at powers of two beyond it (long baselines for slow motion)."""
    steps = sequential_steps(overlap)
    return [(first, first + step) for first in range(count) for step in steps if first + step < count]


def exhaustive_pairs(count: int) -> Pairs:
    """Return all pairs of frames."""
    return list(itertools.combinations(range(count), 2))


def alike_pairs(signatures: Float32[np.ndarray, "N D"], neighbours: int) -> Pairs:
    """Pair every frame with those whose unit signatures are most like its own, and with the next two in order.

    Photos are mostly taken in the order of a walk, which costs nothing to try.
    """
    count = len(signatures)
    pairs = {(first, first + step) for first in range(count) for step in (1, 2) if first + step < count}
    for query in range(count):
        similarity = signatures[query] @ signatures.T
        similarity[query] = -np.inf
        # a stable sort: equal similarities keep the order of the frames
        best = np.argsort(-similarity, kind="stable")[: min(neighbours, count - 1)]
        pairs.update((min(query, int(other)), max(query, int(other))) for other in best)
    return sorted(pairs)


def loop_gap(count: int, overlap: int) -> int:
    """Return how many frames apart two views of one place must be to count as a return to it."""
    return min(max(3 * overlap, count // 4), 100)


def loop_pairs(signatures: Float32[np.ndarray, "N D"], overlap: int, neighbours: int, rise: float = _RISE) -> Pairs:
    """Pair every `overlap / 2`-th frame with the frames far away in time that look most like it.

    A return is a likeness that has come back: higher by `rise` than the lowest on the way there. On a road driven straight
    ahead likeness only falls, however long one house stays in view. Of frames beside each other only the most similar is
    taken. Whether a pair does show one place is for the matches to say.
    """
    count = len(signatures)
    gap, pairs = loop_gap(count, overlap), set()
    queries = np.arange(0, count, max(overlap // 2, 1))
    for start in range(0, len(queries), _ROWS):
        part = queries[start : start + _ROWS]
        rows = signatures[part] @ signatures.T
        for query, similarity in zip(part, rows, strict=True):
            lowest = np.concatenate(
                [np.minimum.accumulate(similarity[query::-1])[::-1], np.minimum.accumulate(similarity[query:])[1:]]
            )
            likeness = np.where(similarity >= lowest + rise, similarity, -np.inf)
            likeness[max(query - gap + 1, 0) : query + gap] = -np.inf
            for _ in range(neighbours):
                best = int(np.argmax(likeness))
                if likeness[best] == -np.inf:
                    break
                pairs.add((min(int(query), best), max(int(query), best)))
                likeness[max(best - overlap + 1, 0) : best + overlap] = -np.inf
    return sorted(pairs)


def pairs_around(loops: Pairs, count: int, known: Pairs) -> Pairs:
    """Return the pairs two frames to either side of verified loops that are not among `known`."""
    around = {
        (first + left, second + right)
        for first, second in loops
        for left in (-2, 0, 2)
        for right in (-2, 0, 2)
        if 0 <= first + left < second + right < count
    }
    return sorted(around - set(known))
