import numpy as np
import pytest

from stages.pose.pairs import alike_pairs, exhaustive_pairs, loop_gap, loop_pairs, pairs_around, sequential_pairs
from stages.pose.retrieval import find_words, image_signatures


def places(indices: list[int], seed: int = 0, per_image: int = 120) -> list[np.ndarray]:
    """Descriptors of images of numbered places: every place has features of its own, every image noise and strays."""
    rng = np.random.default_rng(seed)
    own = {place: rng.random((per_image, 128)) for place in sorted(set(indices))}
    images = []
    for place in indices:
        seen = own[place][rng.permutation(per_image)[: per_image // 2]] + rng.normal(size=(per_image // 2, 128)) * 0.05
        images.append((255 * np.concatenate([seen, rng.random((20, 128))]).clip(0, 1)).astype(np.uint8))
    return images


def signatures_of(images: list[np.ndarray], seed: int = 0) -> np.ndarray:
    return image_signatures(lambda index: images[index], len(images), 16, seed)


def test_pairs_reach_to_powers_of_two_for_slow_motion() -> None:
    pairs = sequential_pairs(40, 4)
    assert {second - first for first, second in pairs} == {1, 2, 3, 4, 8, 16}
    assert len(pairs) == len(set(pairs)) == 39 + 38 + 37 + 36 + 32 + 24


def test_exhaustive_pairs_are_every_pair_once() -> None:
    pairs = exhaustive_pairs(7)
    assert len(pairs) == len(set(pairs)) == 7 * 6 / 2
    assert all(first < second for first, second in pairs)


def test_images_of_one_place_are_each_others_nearest() -> None:
    where = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    similarity = (found := signatures_of(places(where))) @ found.T
    np.fill_diagonal(similarity, -1)
    assert similarity.argmax(axis=1).tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_signatures_are_unit_vectors_and_the_same_every_time() -> None:
    images = places([0, 1, 2])
    found = signatures_of(images)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, signatures_of(images))


def test_images_without_features_have_a_signature_of_zeros() -> None:
    images = [*places([0, 1]), np.zeros((0, 128), np.uint8)]
    assert np.linalg.norm(signatures_of(images), axis=1) == pytest.approx([1, 1, 0], abs=1e-5)
    assert not signatures_of([np.zeros((0, 128), np.uint8)] * 2).any()


def test_words_lie_in_the_middle_of_the_clusters() -> None:
    rng = np.random.default_rng(3)
    centres = np.array([[0.0, 0], [10, 0], [0, 10]], np.float32)
    descriptors = (centres.repeat(50, axis=0) + rng.normal(size=(150, 2)) * 0.1).astype(np.float32)
    words = find_words(descriptors, 12, rng)
    assert np.linalg.norm(words[:, None] - centres, axis=2).min(axis=1).max() < 0.5
    assert np.linalg.norm(words[:, None] - centres, axis=2).min(axis=0).max() < 0.5


def test_photos_are_paired_with_those_of_the_same_place_and_with_the_next_two() -> None:
    where = [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    pairs = alike_pairs(signatures_of(places(where)), neighbours=1)
    assert {(index, index + 6) for index in range(6)} <= set(pairs)
    assert {(index, index + 1) for index in range(11)} <= set(pairs)
    assert len(pairs) <= 11 + 10 + 12


def test_a_walk_around_a_block_closes_its_loop() -> None:
    where = [*range(40), *range(8)]  # the last eight frames see what the first eight saw
    pairs = loop_pairs(signatures_of(places(where)), overlap=4, neighbours=1)
    returns = {pair for pair in pairs if pair[1] - pair[0] == 40}
    assert returns >= {(0, 40), (2, 42), (4, 44), (6, 46)}
    assert min(second - first for first, second in pairs) >= loop_gap(48, 4)


def test_of_frames_beside_each_other_one_candidate_is_taken() -> None:
    where = [0] * 4 + list(range(1, 40)) + [0] * 16
    pairs = loop_pairs(signatures_of(places(where)), overlap=8, neighbours=3)
    of_first = sorted(second for first, second in pairs if first == 0 and second >= 43)
    assert len(of_first) == 2  # of sixteen
    assert np.diff(of_first).min() >= 8


def test_a_road_that_is_driven_straight_ahead_has_no_loops() -> None:
    # every frame shares nine tenths of its view with the next
    angle = np.arange(60)[:, None] * 0.05 - np.linspace(0, 3, 61)
    ahead = np.exp(-((angle / 0.7) ** 2)).astype(np.float32)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    assert loop_pairs(ahead, overlap=4, neighbours=3) == []
    there_and_back = np.concatenate([ahead, ahead[::-1]])
    assert (0, 119) in loop_pairs(there_and_back, overlap=4, neighbours=3)


def test_around_a_verified_loop_the_pairs_beside_it_are_tried_once() -> None:
    around = pairs_around([(10, 60)], count=62, known=[(10, 60), (8, 58)])
    assert set(around) == {(8, 60), (10, 58), (12, 58), (12, 60)}
