"""The parts of the bench `splat`: what it counts, and that its peer computes the same."""

import numpy as np
import pytest
import torch

from benchmarks import splat, splat_gpu, splat_peer
from benchmarks.splat_scene import count_pairs, make_scene, project
from worldline.splatting import rasterization

SIZE = 45


@pytest.fixture(scope="module")
def scene():
    return make_scene(400, SIZE, seed=3)


def test_pairs_equal_a_dense_count(scene):
    projected = project(scene, SIZE)
    means2d, conics, opacities, _, depths, radii = (tensor.double().numpy() for tensor in projected)
    order = np.argsort(depths, kind="stable")
    order = order[radii[order, 0] > 0]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    dx, dy = x - means2d[order, 0, None, None], y - means2d[order, 1, None, None]
    a, b, c = conics[order].T[:, :, None, None]
    alpha = np.minimum(opacities[order, None, None] * np.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy), 0.999)
    alpha[alpha < 1 / 255] = 0
    after = np.cumprod(1 - alpha, axis=0)
    before = np.concatenate([np.ones((1, SIZE, SIZE)), after[:-1]])
    counted = count_pairs(projected, SIZE)
    assert counted.touched == (alpha > 0).sum()
    assert counted.needed == ((alpha > 0) & (before > 1e-4)).sum()


def test_pairs_behind_a_finished_pixel_are_touched_but_not_needed():
    # Three opaque balls on the axis: 0.999 leaves 1e-3 behind the first, the second finishes the middle of the image.
    scene = make_scene(3, 9)
    scene["means"] = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    scene |= {"scales": torch.full((3, 3), 50.0), "opacities": torch.ones(3)}
    counted = count_pairs(project(scene, 9), 9)
    assert counted.touched == 3 * 81
    assert counted.needed == 2 * 81


@pytest.mark.parametrize("fair_tiles", [False, True])
def test_the_peer_draws_our_image_and_has_our_gradients(scene, fair_tiles):
    upstream = torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    names = ("means", "quats", "scales", "opacities", "colors")
    ours, theirs = ({name: value.clone().requires_grad_(name in names) for name, value in scene.items()} for _ in range(2))
    image = rasterization(**ours, width=SIZE, height=SIZE)[0][0]
    image.backward(upstream)
    _, expected = splat_peer.step(theirs, upstream, SIZE, fair_tiles)
    torch.testing.assert_close(image.detach(), expected, rtol=1e-4, atol=2e-5)
    for name in names:
        torch.testing.assert_close(
            ours[name].grad, theirs[name].grad, rtol=2e-3, atol=2e-4 * float(theirs[name].grad.abs().max())
        )


def test_without_a_gpu_its_figures_say_why(tmp_path, monkeypatch):
    monkeypatch.setattr(splat_gpu.torch.cuda, "is_available", lambda: False)
    figures = splat_gpu.measure_gpu(tmp_path, True)
    case = next(case for case in splat.CASES if case.name == "gpu")
    assert {item["id"] for item in figures} == set(case.ids)
    assert all(item["value"] is None and "no CUDA device" in item["detail"] for item in figures)
