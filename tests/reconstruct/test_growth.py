import numpy as np
import pytest

from stages.reconstruct.growth.relocation import choose_relocations, share_opacity


@pytest.mark.parametrize(("opacity", "copies"), [(0.9, 2), (0.3, 5), (0.97, 51)])
def test_shared_gaussians_hide_together_what_one_hid(opacity, copies):
    (shared,), (factor,) = share_opacity(np.array([opacity]), np.array([copies]))
    assert 1 - (1 - shared) ** copies == pytest.approx(opacity)  # at the centre
    x = np.linspace(-30, 30, 200001)  # and in sum over a line through it
    together = 1 - (1 - shared * np.exp(-0.5 * (x / factor) ** 2)) ** copies
    alone = opacity * np.exp(-0.5 * x**2)
    assert np.trapezoid(together, x) == pytest.approx(np.trapezoid(alone, x), rel=1e-6)


def test_gaussians_that_cover_least_go_beside_important_ones_of_their_own_group():
    mass = np.array([0.5, 0.1, 0.5, 0.2, 0.3, 0.9, 0.8])
    importance = np.array([1.0, 9.0, 0.0, 9.0, 9.0, 0.0, 2.0])
    moved, source = choose_relocations(mass, importance, 0.5, np.array([0, 0, 0, 1, 1, 1, 1]), np.random.default_rng(0))
    assert moved.tolist() == [1, 3, 4]
    assert source.tolist() == [0, 6, 6]


def test_a_group_that_no_image_pulls_at_is_left_alone():
    moved, source = choose_relocations(np.ones(4), np.zeros(4), 0.5, np.zeros(4, np.int64), np.random.default_rng(0))
    assert len(moved) == len(source) == 0
