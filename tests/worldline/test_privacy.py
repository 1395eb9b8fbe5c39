"""Faces are found where they are, and what was blurred cannot be told from what had the same averages.

The face is NASA's portrait of the astronaut Eileen Collins, in the public domain; where her eyes and mouth are was read off
the picture by hand.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from schemas.canonical import hash_file
from schemas.media import Video
from worldline.privacy.blurring import BlurredVideo, blur, hold
from worldline.privacy.faces import MODEL, anchors, decode_faces, find_faces, open_face_network, suppress, tiles

FACE = cv2.imread(str(Path(__file__).parent / "faces" / "astronaut.jpg"))[..., ::-1]
EYES_AND_MOUTH = np.array([[104, 101], [151, 103], [129, 145]])
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("ai_edge_litert", reason="pip install 'worldline[privacy]'")
    return open_face_network()


# -- finding -------------------------------------------------------------------------------------------------------------


def test_the_detector_is_the_one_that_the_notice_names():
    assert hash_file(MODEL) in MODEL.with_name("NOTICE").read_text()


@pytest.mark.parametrize("size", [700, 256, 128, 64])
def test_a_face_is_found_where_it_is_down_to_25_pixels(network, size):
    frame = np.full((720, 1280, 3), 120, np.uint8)
    left, top = 413, 7
    frame[top : top + size, left : left + size] = cv2.resize(FACE, (size, size), interpolation=cv2.INTER_AREA)
    boxes, scores = find_faces(frame, network)
    assert scores[0] >= 0.5
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(size * 100 / 256, rel=0.25)
    marks = EYES_AND_MOUTH * size / 256 + [left, top]
    assert ((boxes[0, :2] < marks) & (marks < boxes[0, 2:])).all()


def test_noise_and_plain_walls_have_no_face(network):
    for frame in (RANDOM.integers(0, 255, (200, 300, 3)).astype(np.uint8), np.full((200, 300, 3), 200, np.uint8)):
        assert find_faces(frame, network)[0].shape == (0, 4)


def test_anchors_are_the_centres_of_two_grids():
    centres = anchors()
    assert centres.shape == (896, 2)
    np.testing.assert_allclose(centres[:3], [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]])
    np.testing.assert_allclose(centres[512], [1 / 16, 1 / 16])
    np.testing.assert_allclose(centres[-1], [15 / 16, 15 / 16])


def test_a_box_is_relative_to_its_anchor_in_128ths():
    raw, logits = np.zeros((896, 16), np.float32), np.full(896, -9, np.float32)
    raw[512, :4], logits[512] = [8, -4, 32, 64], np.log(3)
    boxes, scores = decode_faces(raw, logits, 0.5)
    np.testing.assert_allclose(boxes, [[1 / 16 + 1 / 16 - 1 / 8, 1 / 16 - 1 / 32 - 1 / 4, 1 / 16 + 1 / 16 + 1 / 8,
                                        1 / 16 - 1 / 32 + 1 / 4]], atol=1e-7)  # fmt: skip
    np.testing.assert_allclose(scores, [0.75])


def test_of_overlapping_boxes_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [0, 8, 10, 18], [50, 50, 60, 60]], float)
    assert suppress(boxes, np.array([0.6, 0.9, 0.7, 0.5])).tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (641, 480), (193, 500)])
def test_what_is_smaller_than_a_third_of_the_smallest_tile_lies_whole_in_one(size):
    corners = [(left, top, side) for left, top, side in tiles(*size) if side == 192]
    for left, top in RANDOM.uniform(0, np.array(size) - 63, (300, 2)):
        assert any(x <= left and y <= top and left + 63 <= x + side and top + 63 <= y + side for x, y, side in corners)


# -- blurring ------------------------------------------------------------------------------------------------------------


def test_of_a_blurred_box_only_the_averages_of_its_cells_are_left():
    frame = RANDOM.integers(0, 255, (80, 90, 3)).astype(np.uint8)
    shuffled = frame.copy()
    for top in range(12, 60, 12):  # the box with its margin: 48 pixels in 4 cells
        for left in range(22, 70, 12):
            cell = shuffled[top : top + 12, left : left + 12].reshape(144, 3)
            shuffled[top : top + 12, left : left + 12] = RANDOM.permutation(cell).reshape(12, 12, 3)
    box = np.array([[30, 20, 62, 52]], float)
    assert (frame != shuffled).mean() > 0.2
    np.testing.assert_array_equal(blur(frame, box), blur(shuffled, box))


def test_nothing_but_the_box_and_its_margin_changes_and_the_frame_given_stays():
    frame = RANDOM.integers(0, 255, (80, 90, 3)).astype(np.uint8)
    before = frame.copy()
    changed = (blur(frame, np.array([[30, 20, 62, 52], [-50, -50, -40, -40], [85, 70, 95, 90]], float)) != frame).any(2)
    np.testing.assert_array_equal(frame, before)
    assert changed[12:60, 22:70].mean() > 0.95
    assert changed[65:, 82:].mean() > 0.95
    changed[12:60, 22:70] = changed[65:, 82:] = False
    assert not changed.any()


def test_a_frame_in_which_a_face_was_missed_shows_nothing_either():
    frames = RANDOM.integers(0, 255, (9, 40, 40, 3)).astype(np.uint8)
    box, none = np.array([[10, 10, 30, 30]], float), np.zeros((0, 4))
    found = [none, box, none, none, box, none, none, none, none]
    assert [len(boxes) for boxes in hold(found)] == [1, 2, 2, 2, 2, 1, 1, 1, 0]
    video = BlurredVideo(Video.from_array(frames), lambda source: found)
    hidden = [(frame[10:30, 10:30] != whole[10:30, 10:30]).mean() > 0.9 for frame, whole in zip(video, frames, strict=True)]
    assert hidden == [True] * 8 + [False]


def test_frames_out_of_order_are_blurred_as_they_are_in_order():
    frames = RANDOM.integers(0, 255, (9, 40, 40, 3)).astype(np.uint8)
    found = [np.array([[index, 0, index + 20, 20]], float) for index in range(9)]
    video = BlurredVideo(Video.from_array(frames), lambda source: found)
    np.testing.assert_array_equal(video.at([7, 2]), np.stack(list(video))[[7, 2]])
