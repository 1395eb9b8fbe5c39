"""The compositing kernels alone, over several tiles, against a dense double-precision twin."""

import math

import numpy as np
import pytest
import torch

from worldline import threads
from worldline.splatting.compositing import Composite

WIDTH, HEIGHT = 131, 35  # three tiles across, three down, none of them full at the edge


def make_splats(count=150, channels=3, dtype=torch.float64, seed=0, opacity=0.9):
    """Round and needle-like splats all over an image and beyond its borders, some of a pixel, some wider than the image."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = (uniform(count, 2) * 1.2 - 0.1) * torch.tensor([WIDTH, HEIGHT])
    long, wide = torch.exp(4.0 * uniform(count)), 0.5 + 3.0 * uniform(count)
    long[0], wide[0] = 90.0, 70.0
    turn = math.pi * uniform(count)
    cos, sin = turn.cos(), turn.sin()
    conics = torch.stack(
        [cos**2 / long**2 + sin**2 / wide**2, cos * sin * (1 / long**2 - 1 / wide**2), sin**2 / long**2 + cos**2 / wide**2],
        dim=-1,
    )
    splats = (means, conics, opacity * uniform(count) + 0.01, uniform(count, channels))
    radii = torch.full((count, 2), 400, dtype=torch.int32)
    return [tensor.to(dtype) for tensor in splats], uniform(count).to(dtype), radii


def dense(splats, depths):
    """Composite every splat at every pixel."""
    means, conics, opacities, colors = splats
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    order = torch.argsort(depths, stable=True)
    dx, dy = x.double() - means[order, 0, None, None], y.double() - means[order, 1, None, None]
    a, b, c = conics[order].T[:, :, None, None]
    raw = opacities[order, None, None] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
    alpha = torch.where(raw < 1 / 255, 0.0, raw.clamp(max=0.999))
    after = torch.cumprod(1 - alpha, dim=0)
    weights = torch.where(after > 1e-4, alpha * after / (1 - alpha), 0.0)
    return torch.einsum("nhw,nd->hwd", weights, colors[order]), weights.sum(dim=0)


@pytest.mark.parametrize("opacity", [0.15, 1.1])  # no pixel finished; most pixels finished, opacities over 0.999 too
def test_images_and_gradients_equal_the_dense_twin(opacity):
    splats, depths, radii = make_splats(opacity=opacity)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in splats] for _ in range(2))
    image, alpha = Composite.apply(*ours, depths, radii, WIDTH, HEIGHT)
    expected, expected_alpha = dense(theirs, depths)
    assert (float(expected_alpha.detach().max()) > 0.9998) == (opacity > 1)
    torch.testing.assert_close(image, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(alpha, expected_alpha, rtol=1e-9, atol=1e-11)
    weight = torch.randn(HEIGHT, WIDTH, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for drawn, opaque in ((image, alpha), (expected, expected_alpha)):
        ((drawn * weight[..., :3]).sum() + (opaque * weight[..., 3]).sum()).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-8 * float(other.grad.abs().max()))


def test_single_precision_is_close_to_double_precision():
    splats, depths, radii = make_splats(opacity=0.6)
    single = [tensor.float().requires_grad_() for tensor in splats]
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    image, _ = Composite.apply(*single, depths.float(), radii, WIDTH, HEIGHT)
    expected, _ = Composite.apply(*double, depths.float().double(), radii, WIDTH, HEIGHT)
    weight = torch.randn(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (image.double() * weight).sum().backward()
    (expected * weight).sum().backward()
    # Where alpha is 1/255 but for rounding a splat may end a pixel earlier or later: at most a few pixels, by 1/255.
    difference = (image - expected).detach().abs().amax(dim=-1)
    assert float(difference.max()) < 1 / 255
    assert float((difference > 2e-5).double().mean()) < 1e-3
    for mine, other in zip(single, double, strict=True):
        assert float((mine.grad - other.grad).abs().max()) < 5e-3 * float(other.grad.abs().max())


@pytest.mark.parametrize("channels", [1, 2, 17])
def test_each_channel_is_composited_like_a_colour_alone(channels):
    splats, depths, radii = make_splats(count=40, channels=channels, dtype=torch.float32)
    leaves = [tensor.clone().requires_grad_() for tensor in splats]
    image, _ = Composite.apply(*leaves, depths, radii, WIDTH, HEIGHT)
    image.sum().backward()
    summed = [torch.zeros_like(leaf) for leaf in leaves[:3]]
    for k in range(channels):
        own = [tensor.clone().requires_grad_() for tensor in (*splats[:3], splats[3][:, k : k + 1].repeat(1, 3))]
        expected, _ = Composite.apply(*own, depths, radii, WIDTH, HEIGHT)
        expected[..., 0].sum().backward()
        torch.testing.assert_close(image[..., k], expected[..., 0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(leaves[3].grad[:, k], own[3].grad[:, 0], rtol=1e-5, atol=1e-5)
        summed = [total + leaf.grad for total, leaf in zip(summed, own[:3], strict=True)]
    for leaf, total in zip(leaves[:3], summed, strict=True):
        torch.testing.assert_close(leaf.grad, total, rtol=1e-3, atol=1e-4 * float(total.abs().max()))


def test_equal_depths_are_drawn_in_the_order_of_the_arrays():
    splats, depths, radii = make_splats(count=60, dtype=torch.float32)
    image, _ = Composite.apply(*splats, torch.full_like(depths, 2.0), radii, WIDTH, HEIGHT)
    expected, _ = Composite.apply(*splats, torch.arange(60).float() - 30.0, radii, WIDTH, HEIGHT)  # negative depths too
    assert torch.equal(image, expected)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    results = []
    for count in (1, 2, 7):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda count=count: count)
        splats, depths, radii = make_splats(count=5000, dtype=torch.float32)
        leaves = [tensor.requires_grad_() for tensor in splats]
        image, alpha = Composite.apply(*leaves, depths, radii, WIDTH, HEIGHT)
        (image.sum() + alpha.sum()).backward()
        results.append(
            np.concatenate([part.detach().numpy().ravel() for part in (image, alpha, *(leaf.grad for leaf in leaves))])
        )
    assert all(np.array_equal(results[0], other) for other in results[1:])
