"""The CPU kernels against the dense reference, and against numerical derivatives."""

import inspect
import math

import numpy as np
import pytest
import torch

from worldline import threads
from worldline.splatting import _reference, rasterization
from worldline.splatting.rasterize import _OFF

WIDTH, HEIGHT = 37, 41  # not multiples of anything; more than two bands of rows


def make_scene(count: int = 40, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    """Gaussians in front of, beside and behind a slanted camera, some large, some opaque, some nearly invisible."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    angle = 0.3
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[0, 0] = viewmat[2, 2] = math.cos(angle)
    viewmat[0, 2], viewmat[2, 0] = math.sin(angle), -math.sin(angle)
    viewmat[:3, 3] = torch.tensor([0.1, -0.2, 0.5])
    opacities = uniform(count)
    opacities[:3] = torch.tensor([1.0, 0.999, 0.002])[:count]
    scene = {
        "means": (uniform(count, 3) - 0.5) * torch.tensor([4.0, 4.0, 5.0]) + torch.tensor([0.0, 0.0, 2.5]),
        "quats": torch.randn(count, 4, generator=generator, dtype=torch.float64),
        "scales": 0.02 + 0.4 * uniform(count, 3) ** 2,
        "opacities": opacities,
        "colors": uniform(count, 3),
        "viewmats": viewmat[None],
        "Ks": torch.tensor([[[40.0, 0, 17.5], [0, 43.0, 22.0], [0, 0, 1]]], dtype=torch.float64),
    }
    return {name: value.to(dtype) for name, value in scene.items()}


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_image_alpha_and_depth_equal_the_dense_reference(mode):
    scene = make_scene()
    images, alphas, _ = rasterization(**scene, width=WIDTH, height=HEIGHT, render_mode="RGB+D", rasterize_mode=mode)
    covars = _reference.covariances(scene["quats"], scene["scales"])
    expected, expected_alpha = _reference.rasterize_one(
        scene["means"], covars, scene["opacities"], scene["colors"], scene["viewmats"][0], scene["Ks"][0], WIDTH, HEIGHT,
        antialiased=mode == "antialiased",
    )  # fmt: skip
    assert alphas.min() < 0.1 < 0.9 < alphas.max()  # the scene has empty and full pixels
    torch.testing.assert_close(images[0], expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(alphas[0, ..., 0], expected_alpha, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats"])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_gradients_equal_the_reference_autograd(name, mode):
    scene = make_scene()
    weight = weights(HEIGHT, WIDTH, 5)
    value = scene[name].clone().requires_grad_()
    ours = scene | {name: value}
    images, alphas, _ = rasterization(**ours, width=WIDTH, height=HEIGHT, render_mode="RGB+D", rasterize_mode=mode)
    (torch.cat([images, alphas], dim=-1)[0] * weight).sum().backward()
    reference_value = scene[name].clone().requires_grad_()
    theirs = scene | {name: reference_value}
    image, alpha = _reference.rasterize_one(
        theirs["means"], _reference.covariances(theirs["quats"], theirs["scales"]), theirs["opacities"], theirs["colors"],
        theirs["viewmats"][0], theirs["Ks"][0], WIDTH, HEIGHT, antialiased=mode == "antialiased",
    )  # fmt: skip
    (torch.cat([image, alpha[..., None]], dim=-1) * weight).sum().backward()
    assert reference_value.grad.abs().max() > 0.1
    gradient = value.grad
    if name == "viewmats":  # the last row of a rigid transform is not an input
        assert (gradient[0, 3] == 0).all()
    torch.testing.assert_close(gradient, reference_value.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats", "covars", "backgrounds"])
def test_gradients_equal_finite_differences(name):
    # Alpha jumps at 1/255 where a Gaussian ends, so the scene keeps every pixel inside all of them.
    generator = torch.Generator().manual_seed(4)
    scene = make_scene(count=3)
    scene["means"] = torch.tensor([[0.0, 0.1, 2.0], [0.2, -0.1, 2.6], [-0.2, 0.0, 3.1]], dtype=torch.float64)
    scene["scales"] = 1.0 + 0.3 * torch.rand(3, 3, generator=generator, dtype=torch.float64)
    scene["opacities"] = torch.tensor([0.3, 0.5, 0.6], dtype=torch.float64)
    scene["Ks"] = torch.tensor([[[12.0, 0, 4.5], [0, 13.0, 3.5], [0, 0, 1]]], dtype=torch.float64)
    scene["backgrounds"] = torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64)
    if name == "covars":
        scene["covars"] = _reference.covariances(scene["quats"], scene["scales"])
    weight = weights(7, 9, 5)

    def loss(value: torch.Tensor) -> torch.Tensor:
        inputs = scene | {name: value}
        images, alphas, _ = rasterization(**inputs, width=9, height=7, render_mode="RGB+ED", rasterize_mode="antialiased")
        return (torch.cat([images, alphas], dim=-1)[0] * weight).sum()

    assert torch.autograd.gradcheck(loss, scene[name].clone().requires_grad_(), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_one_gaussian_on_the_axis_has_the_closed_form_of_a_projected_ball():
    # A ball of radius 0.5 at depth 4 under focal length 64: standard deviation 8 px, variance 64 + 0.3.
    one = torch.ones(1, dtype=torch.float64)
    images, alphas, _ = rasterization(
        means=torch.tensor([[0.0, 0.0, 4.0]], dtype=torch.float64), quats=torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        scales=torch.full((1, 3), 0.5, dtype=torch.float64), opacities=0.8 * one, colors=torch.tensor([[7.0]]).double(),
        viewmats=torch.eye(4, dtype=torch.float64)[None], width=65, height=65,
        Ks=torch.tensor([[[64.0, 0, 32.5], [0, 64.0, 32.5], [0, 0, 1]]], dtype=torch.float64),
    )  # fmt: skip
    offset = np.arange(65) - 32.0
    expected = 0.8 * np.exp(-0.5 * (offset[:, None] ** 2 + offset[None] ** 2) / 64.3)
    expected[expected < 1 / 255] = 0
    np.testing.assert_allclose(alphas[0, ..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(images[0, ..., 0], 7 * expected, atol=1e-11)


def test_colours_of_any_width_batches_and_cameras_equal_one_image_at_a_time():
    first, second = make_scene(seed=1), make_scene(seed=2)
    views = torch.cat([first["viewmats"], torch.eye(4, dtype=torch.float64)[None]])
    intrinsics = first["Ks"].expand(2, 3, 3)
    batched = {name: torch.stack([first[name], second[name]]) for name in ("means", "quats", "scales", "opacities")}
    colors = weights(2, 2, 40, 7)
    images, _, meta = rasterization(
        **batched, colors=colors, viewmats=views.expand(2, 2, 4, 4), Ks=intrinsics.expand(2, 2, 3, 3), width=20, height=18
    )
    assert images.shape == (2, 2, 18, 20, 7)
    assert meta["means2d"].shape == (2, 2, 40, 2)
    for b, scene in enumerate((first, second)):
        for c in range(2):
            single = scene | {"colors": colors[b, c], "viewmats": views[c : c + 1], "Ks": intrinsics[c : c + 1]}
            expected, _, _ = rasterization(**single, width=20, height=18)
            torch.testing.assert_close(images[b, c], expected[0], rtol=0, atol=0)


def test_the_gradient_by_image_positions_can_be_retained():
    scene = make_scene()
    scene["means"].requires_grad_()
    images, _, meta = rasterization(**scene, width=WIDTH, height=HEIGHT)
    meta["means2d"].retain_grad()
    (images[0] * weights(HEIGHT, WIDTH, 3)).sum().backward()
    seen = meta["radii"][0, :, 0] > 0
    assert meta["means2d"].grad[0, seen].abs().sum(dim=-1).gt(0).sum() > 10
    assert not meta["means2d"].grad[0, ~seen].any()


def test_expected_depth_of_an_opaque_wall_is_its_depth():
    scene = make_scene(count=1)
    scene |= {"means": torch.tensor([[0.0, 0.0, 3.0]]).double(), "viewmats": torch.eye(4).double()[None]}
    scene |= {"scales": torch.tensor([[9.0, 9.0, 0.001]]).double(), "quats": torch.tensor([[1.0, 0, 0, 0]]).double()}
    scene["opacities"] = torch.tensor([0.7]).double()
    depth, _, _ = rasterization(**scene, width=16, height=16, render_mode="ED")
    torch.testing.assert_close(depth, torch.full_like(depth, 3.0))


def test_image_and_gradients_have_the_same_bits_with_one_and_with_several_threads(monkeypatch):
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda count=count: count)
        scene = make_scene(count=9000, dtype=torch.float32)
        leaves = {name: value.requires_grad_() for name, value in scene.items() if name != "Ks"}
        images, alphas, _ = rasterization(**scene, width=96, height=80)
        (images.sum() + alphas.sum()).backward()
        results.append([images.detach(), *(leaf.grad for leaf in leaves.values())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nothing_in_view_gives_the_background_and_zero_gradients():
    scene = make_scene()
    scene["means"] = (scene["means"] - torch.tensor([0.0, 0.0, 50.0])).requires_grad_()
    background = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    images, alphas, _ = rasterization(**scene, width=8, height=8, backgrounds=background)
    images.sum().backward()
    torch.testing.assert_close(images, background.expand(1, 8, 8, 3))
    assert not alphas.any()
    assert not scene["means"].grad.any()


@pytest.mark.parametrize(
    ("argument", "error", "names"),
    [
        ({"sh_degree": 2}, ValueError, "sh_degree 2"),
        ({"camera_model": "ftheta"}, NotImplementedError, "ftheta"),
        ({"camera_model": "fish"}, ValueError, "camera_model"),
        ({"with_ut": True}, NotImplementedError, "with_ut"),
        ({"render_mode": "rgb"}, ValueError, "render_mode"),
        ({"no_such_argument": 1}, TypeError, "no_such_argument"),
        ({"opacities": torch.ones(3, dtype=torch.float64)}, ValueError, "opacities"),
    ],
)
def test_an_unsupported_argument_is_named(argument, error, names):
    with pytest.raises(error, match=names):
        rasterization(**(make_scene() | {"width": 8, "height": 8} | argument))


def test_the_signature_takes_every_argument_of_gsplat_by_name():
    theirs = inspect.signature(pytest.importorskip("gsplat").rasterization).parameters
    ours = [name for name in inspect.signature(rasterization).parameters if name != "cuda_only"]
    assert set(theirs) == {*ours, *_OFF, "rolling_shutter"}
    assert list(theirs)[:17] == ours[:17]  # up to render_mode also by position
