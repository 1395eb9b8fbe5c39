import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, prewitt

from worldline.metrics import gradient_magnitude_similarity, psnr, ssim


def pair(height: int = 30, width: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    target = gaussian_filter(rng.random((height, width, 3)), (2, 2, 0))
    return torch.from_numpy(np.clip(target + 0.02 * rng.standard_normal(target.shape), 0, 1)), torch.from_numpy(target)


def scipy_ssim(x: np.ndarray, y: np.ndarray) -> float:
    def blur(a: np.ndarray) -> np.ndarray:  # truncate 3.5 sigma gives the 11 pixel window
        return gaussian_filter(a, 1.5, truncate=3.5, axes=(0, 1))[5:-5, 5:-5]

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    value = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    return float(value.mean())


def test_ssim_equals_the_closed_form_on_scipy_filters():
    image, target = pair()
    expected = scipy_ssim(image.numpy(), target.numpy())
    assert 0.3 < expected < 0.95
    assert float(ssim(image, target)) == pytest.approx(expected, abs=1e-12)
    assert float(ssim(target, target)) == pytest.approx(1.0, abs=1e-12)


def test_ssim_gradient_equals_finite_differences():
    image, target = pair(13, 14)
    assert torch.autograd.gradcheck(lambda x: ssim(x, target), image.clone().requires_grad_(), atol=1e-7)


def test_psnr_of_a_known_error_is_its_decibels():
    target = torch.full((4, 4, 3), 0.5)
    assert psnr(target + 0.1, target) == pytest.approx(20.0, abs=1e-4)
    assert psnr(target, target) == math.inf


def test_psnr_counts_only_the_mask_and_clamps_the_image():
    target = torch.ones(4, 4, 3)
    image = target.clone()
    image[0] = 0.0
    image[1] = 1.7  # as bright as white can be
    mask = torch.zeros(4, 4, dtype=torch.bool)
    assert math.isnan(psnr(image, target, mask))
    mask[1:] = True
    assert psnr(image, target, mask) == math.inf
    mask[0] = True
    assert psnr(image, target, mask) == pytest.approx(10 * math.log10(4), abs=1e-6)


def test_ssim_refuses_an_image_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 px"):
        ssim(torch.zeros(10, 30, 3), torch.zeros(10, 30, 3))


def scipy_gms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the similarity map of Xue et al. 2014 in their own units, grey levels up to 255."""

    def magnitude(image: np.ndarray) -> np.ndarray:
        grey = 255 * (image @ np.array([0.299, 0.587, 0.114]))
        half = (grey[0:-1:2, 0:-1:2] + grey[1::2, 0:-1:2] + grey[0:-1:2, 1::2] + grey[1::2, 1::2]) / 4
        return np.hypot(prewitt(half, axis=0) / 3, prewitt(half, axis=1) / 3)[1:-1, 1:-1]

    mx, my = magnitude(x), magnitude(y)
    return (2 * mx * my + 170) / (mx**2 + my**2 + 170)


def test_gradient_magnitude_similarity_equals_the_formula_on_scipy_filters():
    image, target = pair(30, 38)
    expected = scipy_gms(image.numpy(), target.numpy()).mean()
    assert 0.5 < expected < 0.999
    assert gradient_magnitude_similarity(image, target) == pytest.approx(expected, abs=1e-12)
    assert gradient_magnitude_similarity(target, target) == 1.0


def test_gradient_magnitude_similarity_sees_a_lost_edge_only_where_the_mask_does():
    target = torch.zeros(24, 40, 3)
    target[:, 20:] = 1.0
    flat = torch.zeros_like(target)
    left, right = torch.zeros(24, 40, dtype=torch.bool), torch.zeros(24, 40, dtype=torch.bool)
    left[:, :14], right[:, 16:24] = True, True
    assert gradient_magnitude_similarity(flat, target, left) == 1.0
    assert gradient_magnitude_similarity(flat, target, right) < 0.6
    assert math.isnan(gradient_magnitude_similarity(flat, target, torch.zeros_like(left)))


def test_gradient_magnitude_similarity_refuses_images_of_two_sizes():
    with pytest.raises(ValueError, match="one size"):
        gradient_magnitude_similarity(torch.zeros(8, 8, 3), torch.zeros(8, 9, 3))
