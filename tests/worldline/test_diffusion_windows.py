"""Windows of the world model: holes filled, mirrored and cropped consistently, cut so that they cover a clip."""

import itertools

import numpy as np
import pytest
import torch

from tests.generate.small_streets import slide
from worldline.diffusion.sampling import window_starts
from worldline.diffusion.windows import crop, degrade, fill_holes, mirror, number_words, read_window, to_inputs


def test_known_colours_stay_and_holes_lie_between_them():
    colors = torch.zeros(1, 3, 16, 24)
    colors[..., 12:] = 1.0
    weight = torch.ones(1, 1, 16, 24)
    weight[..., 9:15] = 0
    filled = fill_holes(colors * weight, weight)
    assert torch.equal(filled[..., :9], colors[..., :9])
    assert torch.equal(filled[..., 15:], colors[..., 15:])
    hole = filled[..., 9:15]
    assert hole.min() >= 0
    assert hole.max() <= 1
    assert (hole.mean(dim=(0, 1, 2)).diff() > -1e-6).all()


def test_holes_in_a_plain_picture_take_its_colour():
    weight = (torch.rand(2, 1, 14, 24, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    colors = torch.tensor([0.3, -0.5, 0.9])[None, :, None, None].expand(2, 3, 14, 24)
    assert torch.allclose(fill_holes(colors * weight, weight), colors, atol=1e-5)


def test_a_view_of_which_nothing_is_known_becomes_grey():
    assert torch.equal(fill_holes(torch.zeros(1, 3, 12, 8), torch.zeros(1, 1, 12, 8)), torch.zeros(1, 3, 12, 8))


def test_a_mirrored_window_mirrored_again_is_the_same():
    conditions, clip = slide()
    window = read_window(conditions, conditions, range(4), clip)
    for before, after in zip(window, mirror(mirror(window)), strict=True):
        assert np.array_equal(before, after)


def test_the_mirror_exchanges_left_and_right():
    conditions, clip = slide()
    window = read_window(conditions, conditions, range(4), clip)
    mirrored = mirror(window)
    assert mirrored.text == "the ego vehicle changes to the right lane"
    assert np.array_equal(mirrored.offset_m, window.offset_m * [1, -1])
    assert np.array_equal(mirrored.target[:, :, 0], window.target[:, :, -1])
    assert np.allclose(mirrored.columns, window.columns)


def test_a_crop_knows_where_in_the_frame_it_lies():
    conditions, clip = slide()
    window = read_window(conditions, conditions, range(4), clip)
    part = crop(window, 16, 16, np.random.default_rng(0))
    left, top = np.flatnonzero(window.columns == part.columns[0])[0], np.flatnonzero(window.rows == part.rows[0])[0]
    assert np.array_equal(part.target, window.target[:, top : top + 16, left : left + 16])
    assert np.array_equal(part.boxes, window.boxes[:, top : top + 16, left : left + 16])


def test_a_worse_prior_never_touches_the_truth_and_lost_patches_are_marked():
    conditions, clip = slide()
    window = read_window(conditions, conditions, range(4), clip)
    worse = [degrade(window, np.random.default_rng(seed)) for seed in range(40)]
    assert all(np.array_equal(item.target, window.target) for item in worse)
    assert all(not item.warped[item.warped_known == 0].any() for item in worse)
    assert sum(np.array_equal(item.warped, window.warped) for item in worse) > 10
    assert any(item.warped_known.sum() < window.warped_known.sum() for item in worse)


def test_words_are_numbered_the_same_everywhere_and_padded():
    numbers = number_words("Turn left, turn")
    assert len(numbers) == 16
    assert numbers[0] == numbers[2] != numbers[1]
    assert numbers[3:] == [0] * 13
    assert all(1 <= number <= 255 for number in numbers[:3])


def test_the_network_is_told_the_prior_in_the_first_three_planes():
    conditions, _ = slide()
    inputs = to_inputs([read_window(conditions, conditions, range(4))])
    known = torch.from_numpy(conditions.known.array()[:4].astype(np.int64)) > 0
    prior = torch.from_numpy(conditions.prior.array()[:4]).float() / 127.5 - 1
    assert torch.allclose(inputs.planes[0, :, :3].permute(0, 2, 3, 1)[known], prior[known])
    assert torch.equal(inputs.planes[0, :, 3] > 0, known)


@pytest.mark.parametrize(("count", "window", "overlap"), [(40, 8, 4), (41, 8, 2), (8, 8, 4), (5, 8, 4), (9, 8, 0)])
def test_windows_cover_every_frame_and_share_what_was_asked_for(count, window, overlap):
    starts = window_starts(count, window, overlap)
    covered = np.zeros(count, int)
    for start in starts:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert all(later - earlier <= window - overlap for earlier, later in itertools.pairwise(starts))
    assert starts[-1] + min(window, count) == count
