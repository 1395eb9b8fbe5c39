"""Measures of novel driving views, against figures computed by hand."""

import numpy as np
import pytest
import scipy.linalg

from worldline.metrics.driving import (
    bootstrap_scenes,
    box_iou,
    counted_boxes,
    draw_lane_lines,
    frechet_distance,
    gap_closed,
    hidden_shares,
    nta_iou,
    nta_scores,
    ntl_iou,
)

BOX = np.array([[100.0, 100.0, 140.0, 120.0]])
INTRINSICS = np.array([[100.0, 0, 96], [0, 100, 56], [0, 0, 1]])
# camera 1.5 m over the ground, looking along world x: right is -y, down is -z
WORLD_FROM_CAMERA = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])


def shifted(box, x, y=0.0):
    return box + np.array([x, y, x, y])


def test_the_overlap_of_shifted_boxes_is_their_shared_part_over_all_they_cover():
    assert box_iou(BOX, shifted(BOX, 4))[0, 0] == pytest.approx(36 * 20 / (800 + 800 - 720))
    assert box_iou(BOX, shifted(BOX, 40))[0, 0] == 0
    assert box_iou(BOX, np.zeros((1, 4)))[0, 0] == 0
    assert box_iou(np.zeros((0, 4)), BOX).shape == (0, 1)


def test_the_score_of_a_box_is_its_overlap_with_the_detection_whose_centre_is_nearest():
    tiny = np.array([[119.0, 109.0, 123.0, 113.0]])  # its centre is 1.41 px away, its overlap is 16 / 800
    good = shifted(BOX, 3)
    assert nta_scores(BOX, np.concatenate([good, tiny]), 480) == pytest.approx([16 / 800])
    assert nta_scores(BOX, good, 480) == pytest.approx([37 / 43])


def test_a_detection_counts_up_to_ten_pixels_of_a_picture_480_pixels_wide():
    assert nta_scores(BOX, shifted(BOX, 9.99), 480)[0] > 0.5
    assert nta_scores(BOX, shifted(BOX, 10.0), 480)[0] == 0
    assert nta_scores(BOX, shifted(BOX, 3.99), 192)[0] > 0.8
    assert nta_scores(BOX, shifted(BOX, 4.0), 192)[0] == 0


def test_parts_of_pixels_count():
    assert nta_scores(BOX, shifted(BOX, 0.25), 480) == pytest.approx([39.75 / 40.25])


def test_one_detection_may_serve_two_boxes_and_without_any_all_score_nothing():
    two = np.concatenate([BOX, shifted(BOX, 2)])
    assert nta_scores(two, BOX, 480) == pytest.approx([1.0, 38 / 42])
    assert nta_scores(two, np.zeros((0, 5)), 480).tolist() == [0, 0]
    assert len(nta_scores(np.zeros((0, 4)), BOX, 480)) == 0


def test_the_mean_runs_over_the_boxes_of_all_frames_not_over_frames():
    boxes = [np.concatenate([BOX, shifted(BOX, 200), shifted(BOX, 0, 100)]), BOX]
    found = [np.zeros((0, 5)), np.column_stack([BOX, [0.9]])]
    assert nta_iou(boxes, found, 480) == pytest.approx(1 / 4)
    assert np.isnan(nta_iou([np.zeros((0, 4))], [BOX], 480))
    with pytest.raises(ValueError, match="one array of detections per frame"):
        nta_iou(boxes, found[:1], 480)


def test_only_boxes_fully_inside_and_large_and_seen_enough_count():
    boxes = np.array([[1.0, 1, 20, 20], [0, 5, 20, 20], [-3, 5, 20, 20], [5, 5, 64, 20], [5, 5, 10.9, 20], [5, 5, 25, 20]])
    assert counted_boxes(boxes, 64, 48).tolist() == [True, False, False, False, True, True]
    hidden = np.array([0.0, 0, 0, 0, 0, 0.51])
    assert counted_boxes(boxes, 64, 48, hidden=hidden, min_side_px=6).tolist() == [True, *[False] * 5]


def test_a_box_is_hidden_by_the_union_of_the_nearer_ones():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 5, 10], [2, 0, 6, 5], [20, 0, 30, 10]])
    assert hidden_shares(boxes, np.array([30.0, 10, 20, 5])) == pytest.approx([0.55, 0.0, 0.75, 0.0])
    assert hidden_shares(boxes, np.array([5.0, 10, 20, 30])) == pytest.approx([0, 1, 1, 0])


def test_hidden_shares_of_whole_pixels_are_those_that_counting_gives():
    rng = np.random.default_rng(3)
    for _ in range(20):
        corner = rng.integers(0, 30, (6, 2))
        boxes = np.concatenate([corner, corner + rng.integers(1, 20, (6, 2))], axis=1).astype(float)
        ranges = rng.permutation(6).astype(float)
        counted = []
        for box, own in zip(boxes.astype(int), ranges, strict=True):
            grid = np.zeros((60, 60), bool)
            for x0, y0, x1, y1 in boxes[ranges < own].astype(int):
                grid[y0:y1, x0:x1] = True
            counted.append(grid[box[1] : box[3], box[0] : box[2]].mean())
        np.testing.assert_allclose(hidden_shares(boxes, ranges), counted)


def masks(*columns):
    found = np.zeros((len(columns), 10, 10), bool)
    for frame, own in enumerate(columns):
        found[frame, :, own] = True
    return found


def test_lane_scores_of_one_frame():
    scores = ntl_iou(masks([3]), masks([3, 4]))
    assert scores.lane == pytest.approx(1 / 2)
    assert scores.mean == pytest.approx((1 / 2 + 80 / 90) / 2)
    assert (scores.pooled_lane, scores.pooled_mean) == (scores.lane, scores.mean)


def test_published_lane_scores_average_frames_and_pooled_ones_pixels():
    scores = ntl_iou(masks([3], [0, 1, 2, 3]), masks([3], [0, 5, 6, 7]))
    assert scores.lane == pytest.approx((1 + 1 / 7) / 2)
    assert scores.pooled_lane == pytest.approx(2 / 8)
    assert scores.mean == pytest.approx(((1 + 1) / 2 + (1 / 7 + 30 / 90) / 2) / 2)
    assert scores.pooled_mean == pytest.approx((2 / 8 + 120 / 180) / 2)


def test_frames_without_any_line_do_not_count():
    scores = ntl_iou(masks([3], []), masks([3, 4], []))
    assert (scores.frames, scores.lane) == (1, pytest.approx(0.5))
    assert np.isnan(ntl_iou(masks([]), masks([])).mean)
    with pytest.raises(ValueError, match="one shape"):
        ntl_iou(masks([]), masks([], []))


def test_a_line_on_the_ground_is_drawn_where_the_camera_sees_it_and_not_flipped_behind_it():
    line = np.array([[-200.0, 1.6, 0], [200.0, 1.6, 0]])  # 1.6 m to the left, from far behind to far ahead
    drawn = draw_lane_lines([line], WORLD_FROM_CAMERA, INTRINSICS, 192, 112)
    rows = np.flatnonzero(drawn.any(axis=1))
    horizon = 56 + 100 * 1.5 / 75
    assert rows.min() >= horizon - 3
    assert rows.max() == 111
    for row in range(64, 110, 9):
        depth = 100 * 1.5 / (row + 0.5 - 56)
        middle = np.flatnonzero(drawn[row]).mean() + 0.5
        assert middle == pytest.approx(96 - 100 * 1.6 / depth, abs=0.6)


def test_lines_behind_the_camera_beyond_the_farthest_depth_or_far_above_are_not_drawn():
    for line in ([[-5.0, 1, 0], [-50, 1, 0]], [[80.0, 1, 0], [90, 1, 0]], [[20.0, 1, 12], [30, 1, 12]], [[20.0, 1, 0]]):
        assert not draw_lane_lines([np.array(line)], WORLD_FROM_CAMERA, INTRINSICS, 192, 112).any()


def test_the_frechet_distance_of_one_feature_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 2, (500, 1)), rng.normal(3, 1, (300, 1))
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_the_frechet_distance_is_that_by_the_root_of_the_product():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(80, 5)) + 0.5
    one, two = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(one @ two).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_the_frechet_distance_of_a_set_to_itself_is_zero_also_with_fewer_images_than_features():
    features = np.random.default_rng(2).normal(size=(6, 40))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 1) == pytest.approx(40)
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(features[:1], features)


def test_what_all_scenes_gain_alike_is_sure_although_scenes_differ():
    hard = np.array([0.1, 0.9, 0.4, 0.6])
    gain = bootstrap_scenes(np.column_stack([hard, hard + 0.05]), lambda means: means[..., 1] - means[..., 0])
    assert gain == pytest.approx((0.05, 0.05, 0.05))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_where_there_are_many_scenes():
    values = np.random.default_rng(4).normal(2, 3, (400, 1))
    mean = bootstrap_scenes(values, lambda means: means[..., 0])
    half = 1.96 * values.std() / np.sqrt(400)
    assert mean.value == pytest.approx(values.mean())
    np.testing.assert_allclose([mean.value - mean.low, mean.high - mean.value], half, rtol=0.06)


def test_the_gap_that_is_closed_is_a_share_of_the_way_to_the_oracle():
    values = np.array([[0.2, 0.5, 0.8], [0.1, 0.3, 0.5]])
    assert bootstrap_scenes(values, gap_closed) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(gap_closed(np.array([0.3, 0.4, 0.3])))
