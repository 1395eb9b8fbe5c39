"""What a fit pays for, against closed forms and finite differences."""

import math

import pytest
import torch

from stages.reconstruct import losses
from worldline.metrics import ssim


def differences(function, point: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    """Central finite differences of a function of one number in float64."""
    slopes = torch.zeros_like(point)
    for index in range(point.numel()):
        shifted = [point.clone(), point.clone()]
        shifted[0].view(-1)[index] += step
        shifted[1].view(-1)[index] -= step
        slopes.view(-1)[index] = (function(shifted[0]) - function(shifted[1])) / (2 * step)
    return slopes


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.8 + 0.1


def test_images_differ_by_shares_of_l1_and_of_dissimilarity():
    image, target = noise(12, 13, 3), noise(12, 13, 3, seed=1)
    expected = 0.7 * (image - target).abs().mean() + 0.3 * (1 - ssim(image, target))
    assert float(losses.image_difference(image, target, 0.3)) == pytest.approx(float(expected))
    assert float(losses.image_difference(image, image, 0.3)) == pytest.approx(0.0, abs=1e-12)


def test_images_too_small_for_ssim_differ_by_l1():
    image, target = noise(5, 6, 3), noise(5, 6, 3, seed=1)
    assert float(losses.image_difference(image, target, 0.2)) == pytest.approx(0.8 * float((image - target).abs().mean()))


def test_a_depth_ten_percent_off_costs_ten_percent_wherever_it_is_known():
    known = torch.tensor([[1.0, 10.0], [100.0, 0.0]])
    assert float(losses.depth_difference(1.1 * known + 5.0 * (known == 0), torch.ones(2, 2), known)) == pytest.approx(0.1)
    assert float(losses.depth_difference(known, torch.ones(2, 2), torch.zeros(2, 2))) == 0.0


def test_depth_does_not_ask_for_transparency():
    alphas = torch.full((2, 2), 0.5, requires_grad=True)
    depths = torch.full((2, 2), 2.0, requires_grad=True)
    losses.depth_difference(depths, alphas, torch.ones(2, 2)).backward()
    assert alphas.grad is None
    assert (depths.grad > 0).all()


def test_a_mask_costs_the_surprise_of_each_pixel():
    shares, mask = torch.tensor([[0.9, 0.2]]), torch.tensor([[True, False]])
    assert float(losses.mask_difference(shares, mask)) == pytest.approx(-0.5 * (math.log(0.9) + math.log(0.8)))
    hopeless = losses.mask_difference(torch.tensor([[0.0]]), torch.tensor([[True]]))
    assert math.isfinite(float(hopeless))


def test_sky_costs_its_opacity_and_nothing_else_does():
    alphas, sky = torch.tensor([[0.5, 1.0], [0.1, 0.7]]), torch.tensor([[True, False], [True, False]])
    assert float(losses.sky_opacity(alphas, sky)) == pytest.approx(0.3)
    assert float(losses.sky_opacity(alphas, torch.zeros(2, 2, dtype=torch.bool))) == 0.0


@pytest.mark.parametrize("name", ["image", "depth", "mask", "sky"])
def test_gradients_equal_finite_differences(name):
    target, flags = noise(12, 11, 3, seed=1), noise(12, 11, seed=2) > 0.5
    functions = {
        "image": (lambda x: losses.image_difference(x, target, 0.4), noise(12, 11, 3)),
        "depth": (lambda x: losses.depth_difference(x, noise(12, 11, seed=3), target[..., 0] * flags), noise(12, 11)),
        "mask": (lambda x: losses.mask_difference(x, flags), noise(12, 11)),
        "sky": (lambda x: losses.sky_opacity(x, flags), noise(12, 11)),
    }
    function, point = functions[name]
    leaf = point.clone().requires_grad_()
    function(leaf).backward()
    torch.testing.assert_close(leaf.grad, differences(function, point), rtol=1e-4, atol=1e-8)


def test_straight_flight_is_free_and_bent_flight_is_not():
    motion = {
        "time_centers": torch.zeros(2),
        "position_polynomial": torch.tensor([[[3.0, 0, 0], [0, 0, 0]]] * 2),
        "position_fourier": torch.zeros(2, 2, 3),
        "rotation_polynomial": torch.zeros(2, 1, 4),
        "color_polynomial": torch.zeros(2, 1, 3),
    }
    assert float(losses.bending(motion)) == 0.0
    bent = motion | {"position_polynomial": torch.tensor([[[3.0, 0, 0], [0, -0.5, 0]]] * 2)}
    assert float(losses.bending(bent)) == pytest.approx(0.5)
