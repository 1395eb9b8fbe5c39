"""The surfel kernels against the dense reference, numerical derivatives, closed forms and gsplat's own projection."""

import math

import numpy as np
import pytest
import torch

from worldline import threads
from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, _surfel_reference, depth_distortion, normal_consistency, rasterize_surfels
from worldline.splatting.surfels import normals_of_depths

WIDTH, HEIGHT = 37, 41  # not multiples of anything; more than two bands of rows
NAMES = ("means", "quats", "scales", "opacities", "colors")
OUTPUTS = ("colors", "alphas", "depths", "median_depths", "normals", "distortion")


def make_scene(count: int = 50, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Gaussians, Cameras]:
    """Surfels in front of, beside and behind a slanted camera: large, opaque, tiny, nearly invisible, nearly edge-on."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    angle = 0.3
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 0] = pose[2, 2] = math.cos(angle)
    pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
    pose[:3, 3] = torch.tensor([0.1, -0.2, 0.5])
    opacities = uniform(count)
    opacities[:3] = torch.tensor([1.0, 0.999, 0.002])[:count]
    scales = 0.02 + 0.5 * uniform(count, 3) ** 2
    scales[3:6] = torch.tensor([[0.001, 0.4, 0.0], [0.001, 0.001, 0.0], [3.0, 2.0, 0.0]])[: max(count - 3, 0)]
    gaussians = Gaussians(
        means=(uniform(count, 3) - 0.5) * torch.tensor([4.0, 4.0, 5.0]) + torch.tensor([0.0, 0.0, 2.5]),
        quats=torch.randn(count, 4, generator=generator, dtype=torch.float64),
        scales=scales,
        opacities=opacities,
        colors=uniform(count, 3),
    )
    intrinsics = torch.tensor([[[40.0, 0, 17.5], [0, 43.0, 22.0], [0, 0, 1]]], dtype=torch.float64)
    cameras = Cameras(pose[None].to(dtype), intrinsics.to(dtype), WIDTH, HEIGHT)
    return Gaussians(*(value.to(dtype) for value in gaussians[:5])), cameras


def one(mean, quat=(1.0, 0.0, 0.0, 0.0), scale=(0.5, 0.5, 0.0), opacity=0.8) -> Gaussians:
    rows = [torch.tensor([row], dtype=torch.float64) for row in (mean, quat, scale)]
    return Gaussians(*rows, torch.tensor([opacity], dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))


def straight(size: int = 33, focal: float = 40.0) -> Cameras:
    matrix = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]], dtype=torch.float64)
    return Cameras(torch.eye(4, dtype=torch.float64)[None], matrix, size, size)


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def reference(gaussians: Gaussians, cameras: Cameras, depth_at: str) -> dict[str, torch.Tensor]:
    drawn = _surfel_reference.rasterize_one(
        *gaussians[:5], cameras.camera_from_world[0], cameras.intrinsics[0], cameras.width, cameras.height,
        at_hit=depth_at == "hit",
    )  # fmt: skip
    drawn["median_depths"] = drawn.pop("medians")
    return {name: value if value.dim() == 3 else value[..., None] for name, value in drawn.items()}


@pytest.mark.parametrize("depth_at", ["center", "hit"])
def test_every_image_equals_the_dense_reference(depth_at):
    gaussians, cameras = make_scene()
    rendering = rasterize_surfels(gaussians, cameras, depth_at=depth_at)
    assert rendering.alphas.min() < 0.1 < 0.9 < rendering.alphas.max()  # the scene has empty and full pixels
    for name, expected in reference(gaussians, cameras, depth_at).items():
        torch.testing.assert_close(getattr(rendering, name)[0], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("depth_at", ["center", "hit"])
def test_the_gradients_by_every_input_equal_the_reference_autograd(output, depth_at):
    gaussians, cameras = make_scene()
    gradients = []
    for draw in (rasterize_surfels, reference):
        leaves = Gaussians(*(value.clone().requires_grad_() for value in gaussians[:5]))
        pose = cameras.camera_from_world.clone().requires_grad_()
        eyes = Cameras(pose, cameras.intrinsics, WIDTH, HEIGHT)
        drawn = draw(leaves, eyes, depth_at=depth_at)
        image = getattr(drawn, output)[0] if draw is rasterize_surfels else drawn[output]
        (image * weights(*image.shape)).sum().backward()
        gradients.append([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (*leaves[:5], pose)])
    assert max(float(gradient.abs().max()) for gradient in gradients[1]) > 1.0
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
