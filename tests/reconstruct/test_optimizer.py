import numpy as np
import pytest
import torch

from stages.reconstruct.optimizer import adam_step, choose_relocations, share_opacity


def test_adam_steps_equal_those_of_torch():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((9, 2, 3)).astype(np.float32)
    gradients = rng.standard_normal((5, 9, 2, 3)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    adam = torch.optim.Adam([parameter], lr=0.01, eps=1e-15)
    values, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step, gradient in enumerate(gradients, start=1):
        parameter.grad = torch.from_numpy(gradient)
        adam.step()
        adam_step(values, gradient, first, second, np.full(9, 0.01, np.float32), step)
    np.testing.assert_allclose(values, parameter.detach().numpy(), rtol=1e-5, atol=1e-7)


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
    moved, source = choose_relocations(mass, importance, 0.5, [slice(0, 3), slice(3, 7)], np.random.default_rng(0))
    assert moved.tolist() == [1, 3, 4]
    assert source.tolist() == [0, 6, 6]


def test_a_group_that_no_image_pulls_at_is_left_alone():
    moved, source = choose_relocations(np.ones(4), np.zeros(4), 0.5, [slice(0, 4)], np.random.default_rng(0))
    assert len(moved) == len(source) == 0
