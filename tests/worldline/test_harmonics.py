"""View-dependent colours against scipy's spherical harmonics, gsplat's torch code and numerical derivatives."""

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from worldline import threads
from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, rasterization, rasterize
from worldline.splatting.harmonics import DC, harmonic_basis, harmonic_degree, view_colors


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def camera(seed: int = 3) -> torch.Tensor:
    """Return a rigid camera_from_world."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.linalg.qr(random(3, 3, seed=seed))[0]
    matrix[:3, 3] = random(3, seed=seed + 1)
    return matrix


def as_written(means, colors, harmonics, camera_from_world):
    """The formula of the docstring in plain torch, one camera."""
    degree = harmonic_degree(harmonics.shape[-2])
    center = -camera_from_world[:3, :3].inverse() @ camera_from_world[:3, 3]
    basis = harmonic_basis(means - center, degree)[:, 1:]
    return (colors + (basis[..., None] * harmonics).sum(dim=1)).clamp(min=0)


def test_the_basis_is_the_real_form_of_scipys_complex_harmonics():
    directions = torch.nn.functional.normalize(random(50, 3), dim=-1)
    x, y, z = directions.numpy().T
    expected = []
    for degree in range(5):
        for order in range(-degree, degree + 1):
            # scipy's harmonics have the Condon-Shortley phase already
            value = sph_harm_y(degree, abs(order), np.arccos(z), np.arctan2(y, x))
            part = value.imag if order < 0 else value.real
            expected.append(part * (math.sqrt(2) if order else 1))
    np.testing.assert_allclose(harmonic_basis(directions, 4), np.stack(expected, axis=-1), atol=1e-13)


def test_the_basis_is_gsplats():
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")._spherical_harmonics
    directions, coefficients = random(50, 3), random(50, 25, 3, seed=1)
    ours = (harmonic_basis(directions, 4)[..., None] * coefficients).sum(dim=1)
    torch.testing.assert_close(ours, theirs(4, directions, coefficients), atol=1e-12, rtol=0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_colours_are_the_formula_of_the_docstring(degree):
    means, colors, harmonics = random(30, 3), 0.4 * random(30, 3, seed=1), random(30, (degree + 1) ** 2 - 1, 3, seed=2)
    seen = view_colors(means, colors, harmonics, camera()[None])
    assert (seen == 0).any()
    assert (seen > 0).any()
    torch.testing.assert_close(seen[0], as_written(means, colors, harmonics, camera()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["means", "colors", "harmonics", "camera_from_world"])
def test_gradients_are_those_of_the_formula_and_nothing_is_detached(name, degree):
    inputs = {"means": random(30, 3), "colors": 0.4 * random(30, 3, seed=1), "camera_from_world": camera()}
    inputs["harmonics"] = random(30, (degree + 1) ** 2 - 1, 3, seed=2)
    weight = random(30, 3, seed=5)
    ours, theirs = (inputs[name].clone().requires_grad_() for _ in range(2))
    given = inputs | {name: ours}
    seen = view_colors(given["means"], given["colors"], given["harmonics"], given["camera_from_world"][None])
    (seen[0] * weight).sum().backward()
    given = inputs | {name: theirs}
    (as_written(given["means"], given["colors"], given["harmonics"], given["camera_from_world"]) * weight).sum().backward()
    assert theirs.grad.abs().max() > 0.1
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-11, rtol=1e-10)


def test_moments_cameras_and_colours_by_camera_equal_one_at_a_time():
    views = torch.stack([torch.stack([camera(3), camera(8)]), torch.stack([camera(11), camera(14)])])
    means, shared = random(2, 7, 3), (random(2, 7, 3, seed=1), random(2, 7, 8, 3, seed=2))
    own = (random(2, 2, 7, 3, seed=3), random(2, 2, 7, 8, 3, seed=4))
    together, separate = view_colors(means, *shared, views), view_colors(means, *own, views)
    for b in range(2):
        for c in range(2):
            expected = view_colors(means[b], shared[0][b], shared[1][b], views[b, c][None])[0]
            torch.testing.assert_close(together[b, c], expected, rtol=0, atol=0)
            expected = view_colors(means[b], own[0][b, c], own[1][b, c], views[b, c][None])[0]
            torch.testing.assert_close(separate[b, c], expected, rtol=0, atol=0)


def test_a_gaussian_at_the_camera_has_finite_colours_and_gradients():
    means = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    seen = view_colors(means, random(1, 3).abs(), random(1, 8, 3), torch.eye(4, dtype=torch.float64)[None])
    seen.sum().backward()
    assert torch.isfinite(seen).all()
    assert torch.isfinite(means.grad).all()


def test_gradients_have_the_same_bits_with_one_and_with_several_threads(monkeypatch):
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda count=count: count)
        leaves = [tensor.float().requires_grad_() for tensor in (random(9000, 3), random(9000, 3), random(9000, 8, 3))]
        view = camera().float()[None].requires_grad_()
        view_colors(*leaves, view).sum().backward()
        results.append([leaf.grad for leaf in (*leaves, view)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("count", [1, 4, 16, 35])
def test_a_number_of_harmonics_that_is_no_whole_degree_is_refused(count):
    with pytest.raises(ValueError, match=f"not {count}"):
        harmonic_degree(count)


def test_the_constant_harmonic_is_that_of_ply_files():
    assert pytest.approx(0.28209479177387814, abs=1e-15) == DC


def drawn(**more):
    """Keyword arguments of `rasterization` for a few Gaussians before two cameras."""
    views = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    views[:, 2, 3], views[1, 0, 3] = 4.0, 0.7
    K = torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
    scene = {"means": 0.5 * random(9, 3), "quats": random(9, 4, seed=1), "scales": 0.3 * random(9, 3, seed=2).abs() + 0.1}
    scene |= {"opacities": random(9, seed=4).sigmoid(), "viewmats": views, "Ks": K, "width": 16, "height": 16}
    return scene | more


@pytest.mark.parametrize(("degree", "given"), [(0, 1), (1, 4), (2, 16), (3, 16)])
def test_sh_degree_means_what_gsplat_means_by_it(degree, given):
    spherical_harmonics = pytest.importorskip("gsplat.cuda._torch_impl")._spherical_harmonics
    coefficients = random(9, given, 3, seed=6)
    scene = drawn()
    # as gsplat.rendering.rasterization does: direction from the camera's centre, 0.5 added, clamped from below
    directions = scene["means"] - torch.inverse(scene["viewmats"])[:, None, :3, 3]
    values = spherical_harmonics(degree, directions, coefficients.expand(2, -1, -1, -1)) + 0.5
    expected, _, _ = rasterization(**scene, colors=values.clamp(min=0))
    images, _, _ = rasterization(**scene, colors=coefficients, sh_degree=degree)
    torch.testing.assert_close(images, expected, atol=1e-12, rtol=0)


def test_rasterize_adds_harmonics_to_colours_and_leaves_features_alone():
    scene = drawn()
    harmonics, colors, features = random(9, 15, 3, seed=6), 0.5 * random(9, 3, seed=7).abs(), random(9, 2, seed=8)
    gaussians = Gaussians(scene["means"], scene["quats"], scene["scales"], scene["opacities"], colors, harmonics)
    cameras = Cameras(scene["viewmats"], scene["Ks"], 16, 16)
    rendering = rasterize(gaussians, cameras, features=features, depths=True)
    coefficients = torch.cat([(colors[:, None] - 0.5) / DC, harmonics], dim=1)
    expected, _, _ = rasterization(**scene, colors=coefficients, sh_degree=3)
    torch.testing.assert_close(rendering.colors, expected, atol=1e-12, rtol=0)
    alone = rasterize(gaussians._replace(harmonics=None), cameras, features=features)
    assert torch.equal(rendering.features, alone.features)
    assert not torch.allclose(rendering.colors, alone.colors)
