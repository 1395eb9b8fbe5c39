"""What the rasteriser does with input that is wrong, empty or unusual, and with many cameras and moments at once."""

import math

import pytest
import torch

from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, rasterization, rasterize
from worldline.splatting.projection import MODELS

WIDTH, HEIGHT = 19, 13


def make_gaussians(count: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    means = normal(count, 3) * torch.tensor([0.5, 0.4, 0.3], dtype=dtype) + torch.tensor([0.0, 0.0, 3.0], dtype=dtype)
    colors, harmonics = 0.5 + 0.2 * normal(count, 3), 0.1 * normal(count, 3, 3)
    return Gaussians(means, normal(count, 4), 0.1 + 0.2 * normal(count, 3).abs(), normal(count).sigmoid(), colors, harmonics)


def make_cameras(model: str = "pinhole", count: int = 1, dtype: torch.dtype = torch.float64) -> Cameras:
    views = torch.eye(4, dtype=dtype).repeat(count, 1, 1)
    views[:, 0, 3] = 0.1 * torch.arange(count)
    K = torch.tensor([[14.0, 0, 9.5], [0, 14, 6.5], [0, 0, 1]], dtype=dtype).repeat(count, 1, 1)
    return Cameras(views, K, WIDTH, HEIGHT, model)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "harmonics"])
def test_numbers_that_are_not_finite_are_named_and_counted(name, bad):
    gaussians = make_gaussians()
    values = getattr(gaussians, name).clone()
    values.view(-1)[[3, 7]] = bad
    with pytest.raises(ValueError, match=rf"{name} has 2 of {values.numel()} numbers NaN or infinite, the first at \["):
        rasterize(gaussians._replace(**{name: values}), make_cameras())


def test_bad_covariances_features_cameras_and_backgrounds_are_named_too():
    gaussians, cameras = make_gaussians(), make_cameras()
    covars = torch.eye(3).double().repeat(12, 1, 1)
    covars[4, 1, 1] = math.nan
    with pytest.raises(ValueError, match="covars has 1 of 108"):
        rasterize(gaussians._replace(covars=covars), cameras)
    features = torch.zeros(12, 2).double()
    features[5, 1] = math.inf
    with pytest.raises(ValueError, match="features has 1 of 24"):
        rasterize(gaussians, cameras, features=features)
    with pytest.raises(ValueError, match="backgrounds has 3 of 3"):
        rasterize(gaussians, cameras, backgrounds=torch.full((1, 3), math.nan).double())
    views = cameras.camera_from_world.clone()
    views[0, 1, 3] = math.nan
    for blind in (gaussians, gaussians._replace(harmonics=None)):
        with pytest.raises(ValueError, match="viewmats has 1 of 16"):
            rasterize(blind, Cameras(views, cameras.intrinsics, WIDTH, HEIGHT))


def test_large_finite_numbers_whose_sum_overflows_are_not_refused():
    gaussians = make_gaussians(dtype=torch.float32)._replace(harmonics=None)
    features = torch.full((12, 2), 3e38)
    assert rasterize(gaussians, make_cameras(dtype=torch.float32), features=features).features is not None


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_no_gaussians_at_all_are_the_background(model, antialiased):
    gaussians = make_gaussians(0)
    leaves = Gaussians(*(None if value is None else value.requires_grad_() for value in gaussians))
    backgrounds = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    features = torch.zeros(0, 4, dtype=torch.float64)
    rendering = rasterize(
        leaves, make_cameras(model), features=features, depths=True, backgrounds=backgrounds, antialiased=antialiased
    )
    torch.testing.assert_close(rendering.colors, backgrounds.expand(1, HEIGHT, WIDTH, 3))
    assert rendering.features.shape == (1, HEIGHT, WIDTH, 4)
    assert not rendering.alphas.any()
    assert not rendering.depths.any()
    rendering.colors.sum().backward()
    assert leaves.means.grad.shape == (0, 3)


def test_no_cameras_are_no_images():
    rendering = rasterize(make_gaussians(), make_cameras(count=0), depths=True)
    assert rendering.colors.shape == (0, HEIGHT, WIDTH, 3)
    assert rendering.depths.shape == (0, HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_cameras_that_look_away_see_the_background_and_give_zero_gradients(model):
    gaussians = make_gaussians()
    leaves = Gaussians(*(None if value is None else value.requires_grad_() for value in gaussians))
    cameras = make_cameras(model)
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    cameras = Cameras(turned @ cameras.camera_from_world, cameras.intrinsics, WIDTH, HEIGHT, model)
    rendering = rasterize(leaves, cameras, backgrounds=torch.ones(1, 3).double())
    rendering.colors.sum().backward()
    assert (rendering.colors == 1).all()
    for leaf in leaves[:6]:
        assert leaf.grad is not None
        assert not leaf.grad.any()


@pytest.mark.parametrize("factor", [1e-3, 0.5, 1e3])
def test_quaternions_of_any_length_are_as_good_as_normalised_ones(factor):
    gaussians = make_gaussians()
    unit = gaussians._replace(quats=torch.nn.functional.normalize(gaussians.quats, dim=-1))
    scaled = unit._replace(quats=unit.quats * factor)
    torch.testing.assert_close(
        rasterize(scaled, make_cameras()).colors, rasterize(unit, make_cameras()).colors, rtol=1e-12, atol=0
    )


def test_a_zero_quaternion_is_no_rotation_and_has_no_gradient():
    gaussians = make_gaussians()
    zero = gaussians.quats.clone()
    zero[:] = 0.0
    quats = zero.requires_grad_()
    identity = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(12, 4)
    rendering = rasterize(gaussians._replace(quats=quats), make_cameras())
    rendering.colors.sum().backward()
    torch.testing.assert_close(rendering.colors, rasterize(gaussians._replace(quats=identity), make_cameras()).colors)
    assert not quats.grad.any()


def test_the_sign_of_a_scale_has_no_effect():
    gaussians = make_gaussians()
    mirrored = gaussians._replace(scales=gaussians.scales * torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(rasterize(mirrored, make_cameras()).colors, rasterize(gaussians, make_cameras()).colors)


def test_a_gaussian_without_extent_is_a_dot_of_the_pixel_blur_and_antialiased_it_is_nothing():
    one = torch.ones(1, dtype=torch.float64)
    mean = torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64)
    point = Gaussians(mean, torch.eye(4).double()[:1], torch.zeros(1, 3).double(), 0.9 * one, one.expand(1, 3))
    alphas = rasterize(point, make_cameras()).alphas[0, ..., 0]
    x, y = torch.arange(WIDTH).double() + 0.5 - 9.5, torch.arange(HEIGHT).double() + 0.5 - 6.5
    expected = 0.9 * torch.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2) / 0.3)
    torch.testing.assert_close(alphas, torch.where(expected < 1 / 255, 0.0, expected))
    assert rasterize(point, make_cameras(), antialiased=True).alphas.max() == 0


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"means": torch.zeros(12, 2).double()}, r"means must have shape \[..., N, 3\], got \[12, 2\]"),
        ({"quats": torch.zeros(12, 3).double()}, r"quats must have shape \[12, 4\], got \[12, 3\]"),
        ({"quats": None}, r"quats must have shape \[12, 4\], got None"),
        ({"scales": torch.zeros(11, 3).double()}, r"scales must have shape \[12, 3\], got \[11, 3\]"),
        ({"opacities": torch.zeros(12, 1).double()}, r"opacities must have shape \[12\], got \[12, 1\]"),
        ({"colors": torch.zeros(12, 4).double()}, r"colors must have shape \[12, 3\], got \[12, 4\]"),
        ({"harmonics": torch.zeros(12, 4, 3).double()}, "not 4"),
        ({"harmonics": torch.zeros(12, 9).double()}, r"harmonics must have shape \[12, 12, 3\], got \[12, 9\]"),
        ({"covars": torch.zeros(12, 6).double()}, r"covars must have shape \[12, 3, 3\], got \[12, 6\]"),
        ({"scales": torch.zeros(12, 3)}, "scales is torch.float32 but means are torch.float64"),
        ({"harmonics": torch.zeros(12, 3, 3)}, "harmonics is torch.float32"),
    ],
)
def test_gaussians_that_do_not_fit_together_are_named_with_the_shape_they_should_have(change, names):
    with pytest.raises(ValueError, match=names):
        rasterize(make_gaussians()._replace(**change), make_cameras())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"camera_from_world": torch.eye(4).double()}, r"viewmats must have shape \[1, 4, 4\], got \[4, 4\]"),
        ({"intrinsics": torch.eye(3).double()}, r"Ks must have shape \[1, 3, 3\], got \[3, 3\]"),
        ({"width": 0}, "width must be at least 1 pixel, got 0"),
        ({"height": -5}, "height must be at least 1 pixel, got -5"),
        ({"model": "panorama"}, "camera_model 'panorama' is none of pinhole, ortho, fisheye, equirectangular"),
    ],
)
def test_cameras_that_cannot_be_are_named(change, names):
    cameras = make_cameras()
    given = {name: getattr(cameras, name) for name in ("camera_from_world", "intrinsics", "width", "height", "model")}
    with pytest.raises(ValueError, match=names):
        rasterize(make_gaussians(), Cameras(**(given | change)))


def test_features_and_backgrounds_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"features must have shape \[12, 2\], got \[5, 2\]"):
        rasterize(make_gaussians(), make_cameras(), features=torch.zeros(5, 2).double())
    with pytest.raises(ValueError, match=r"backgrounds must have shape \[1, 3\], got \[3\]"):
        rasterize(make_gaussians(), make_cameras(), backgrounds=torch.zeros(3).double())


def test_integers_and_half_floats_are_refused():
    gaussians = make_gaussians()
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.float16"):
        rasterize(
            Gaussians(*(None if value is None else value.half() for value in gaussians[:5])), make_cameras(dtype=torch.float16)
        )


@pytest.mark.parametrize("model", MODELS)
def test_many_moments_and_cameras_at_once_equal_one_at_a_time(model):
    moments, cameras = [make_gaussians(seed=seed) for seed in (1, 2, 3)], make_cameras(model, count=2)
    stacked = Gaussians(*(None if parts[0] is None else torch.stack(parts) for parts in zip(*moments, strict=True)))
    views, K = (tensor.expand(3, *tensor.shape) for tensor in (cameras.camera_from_world, cameras.intrinsics))
    leaf = stacked.means.clone().requires_grad_()
    features = torch.stack([moment.colors[:, :2] for moment in moments])
    together = rasterize(stacked._replace(means=leaf), Cameras(views, K, WIDTH, HEIGHT, model), features=features, depths=True)
    weight = torch.randn(together.colors.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (together.colors * weight).sum().backward()
    for t, moment in enumerate(moments):
        total = torch.zeros(12, 3, dtype=torch.float64)
        for c in range(2):
            alone, means = (
                Cameras(views[t, c : c + 1], K[t, c : c + 1], WIDTH, HEIGHT, model),
                moment.means.clone().requires_grad_(),
            )
            one = rasterize(moment._replace(means=means), alone, features=features[t], depths=True)
            for a, b in ((together.colors, one.colors), (together.features, one.features), (together.depths, one.depths)):
                torch.testing.assert_close(a[t, c], b[0], rtol=0, atol=0)
            (one.colors[0] * weight[t, c]).sum().backward()
            total += means.grad
        torch.testing.assert_close(leaf.grad[t], total, rtol=1e-12, atol=1e-12)


def test_a_camera_at_the_centre_of_a_gaussian_does_not_see_it():
    gaussians = make_gaussians()
    means = gaussians.means.clone()
    means[0] = 0.0
    for model in MODELS:
        shown = rasterize(gaussians._replace(means=means), make_cameras(model), near_plane=0.0)
        assert torch.isfinite(shown.colors).all()
        assert (shown.meta["radii"][0, 0] == 0).all() or model == "ortho"


def test_rasterization_says_which_argument_of_gsplat_needs_cuda():
    gaussians, cameras = make_gaussians(), make_cameras()
    given = (*gaussians[:5], cameras.camera_from_world, cameras.intrinsics, WIDTH, HEIGHT)
    with pytest.raises(NotImplementedError, match="absgrad needs CUDA"):
        rasterization(*given, absgrad=True)
    with pytest.raises(NotImplementedError, match="ftheta"):
        rasterization(*given, camera_model="ftheta")
