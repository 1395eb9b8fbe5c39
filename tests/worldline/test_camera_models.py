"""Every camera model and mode against dense autograd, gsplat's torch functions and geometry."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, _reference, rasterize
from worldline.splatting.harmonics import harmonic_basis
from worldline.splatting.projection import MODELS, Project, Settings
from worldline.splatting.rasterize import _across_the_seam

WIDTH, HEIGHT = 33, 21
NAMES = ["means", "quats", "scales", "opacities", "colors", "harmonics", "features", "viewmats", "backgrounds"]


def make_scene(model: str, covars: bool = False, count: int = 24) -> dict[str, torch.Tensor]:
    """Gaussians around a turned camera, as float64 arrays by the names of what is differentiated."""
    generator = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = torch.tensor([[math.cos(0.3), 0, math.sin(0.3)], [0, 1, 0], [-math.sin(0.3), 0, math.cos(0.3)]])
    viewmat[:3, 3] = torch.tensor([0.1, -0.2, 0.5])
    scene = {"means": normal(count, 3) * torch.tensor([1.2, 0.8, 1.0]) + torch.tensor([0.0, 0.0, 2.0])}
    if model == "equirectangular":  # on all sides, but not so near that a Gaussian is wider than half the image
        turn = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
        scene["means"] = 1.2 * torch.stack([turn.sin(), (0.4 * normal(count)).clamp(-0.8, 0.8), turn.cos()], dim=-1)
        scene["means"][0] = torch.tensor([0.4, 0.1, -1.3])  # over the seam
    quats, scales = normal(count, 4), 0.04 + 0.2 * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    scene |= {"covars": _reference.covariances(quats, scales)} if covars else {"quats": quats, "scales": scales}
    scene |= {"opacities": (1.5 * normal(count)).sigmoid(), "colors": 0.5 + 0.3 * normal(count, 3)}
    scene |= {"harmonics": 0.2 * normal(count, 8, 3), "features": normal(count, 2), "viewmats": viewmat[None]}
    return scene | {"backgrounds": torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64)}


def intrinsics(model: str) -> torch.Tensor:
    focal = {"pinhole": 20.0, "ortho": 8.0, "fisheye": 14.0, "equirectangular": 1.0}[model]
    return torch.tensor([[[focal, 0, 15.5], [0, 1.1 * focal, 11.0], [0, 0, 1]]], dtype=torch.float64)


def draw(scene: dict[str, torch.Tensor], model: str, antialiased: bool) -> torch.Tensor:
    """Return `[H, W, 3 + 2 + 1 + 1]`: colours, features, depths times alphas, alphas."""
    gaussians = Gaussians(
        scene["means"], scene.get("quats"), scene.get("scales"), scene["opacities"], scene["colors"], scene["harmonics"],
        scene.get("covars"),
    )  # fmt: skip
    cameras = Cameras(scene["viewmats"], intrinsics(model), WIDTH, HEIGHT, model)
    shown = rasterize(
        gaussians, cameras, features=scene["features"], depths=True, backgrounds=scene["backgrounds"], antialiased=antialiased
    )
    return torch.cat([shown.colors, shown.features, shown.depths * shown.alphas, shown.alphas], dim=-1)[0]


def draw_densely(scene: dict[str, torch.Tensor], model: str, antialiased: bool) -> torch.Tensor:
    """Return the same from dense torch operations under autograd."""
    viewmat = scene["viewmats"][0]
    covars = scene["covars"] if "covars" in scene else _reference.covariances(scene["quats"], scene["scales"])
    center = -viewmat[:3, :3].inverse() @ viewmat[:3, 3]
    basis = harmonic_basis(scene["means"] - center, 2)[:, 1:]
    colors = (scene["colors"] + (basis[..., None] * scene["harmonics"]).sum(dim=1)).clamp(min=0)
    channels = torch.cat([colors, scene["features"]], dim=-1)
    K = intrinsics(model)[0]
    image, alpha = _reference.rasterize_one(
        scene["means"], covars, scene["opacities"], channels, viewmat, K, WIDTH, HEIGHT, antialiased=antialiased, model=model
    )
    behind = (1 - alpha[..., None]) * scene["backgrounds"]
    return torch.cat([image[..., :3] + behind, image[..., 3:], alpha[..., None]], dim=-1)


@cache
def truth(model: str, antialiased: bool, covars: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the dense image and its gradients by every input."""
    leaves = {name: value.clone().requires_grad_() for name, value in make_scene(model, covars).items()}
    image = draw_densely(leaves, model, antialiased)
    (image * weights()).sum().backward()
    return image.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def weights() -> torch.Tensor:
    return torch.randn(HEIGHT, WIDTH, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("covars", [False, True], ids=["quats", "covars"])
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("model", MODELS)
def test_images_and_gradients_by_every_input_equal_dense_autograd(model, antialiased, covars):
    expected, expected_gradients = truth(model, antialiased, covars)
    leaves = {name: value.clone().requires_grad_() for name, value in make_scene(model, covars).items()}
    image = draw(leaves, model, antialiased)
    assert expected[..., -1].min() < 0.1 < 0.6 < expected[..., -1].max()  # empty and full pixels
    torch.testing.assert_close(image, expected, rtol=1e-9, atol=1e-10)
    (image * weights()).sum().backward()
    for name, leaf in leaves.items():
        gradient, wanted = leaf.grad, expected_gradients[name]
        assert wanted.abs().max() > 0.05, name
        if name == "viewmats":  # the last row of a rigid transform is not an input
            assert (gradient[0, 3] == 0).all()
            gradient, wanted = gradient[:, :3], wanted[:, :3]
        if name == "covars":  # only the symmetric part is an input
            wanted = 0.5 * (wanted + wanted.mT)
        torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def project(model: str, means, quats, scales, viewmat, K, width=WIDTH, height=HEIGHT):
    """Our projection of one moment into one camera."""
    settings = Settings(MODELS[model], width, height, 0.01, 1e10, 0.3, 0.0, False)
    empty, ones = means.new_zeros(1, 0, 3, 3), means.new_ones(1, len(means))
    parts = Project.apply(means[None], quats[None], scales[None], empty, ones, viewmat[None, None], K[None, None], settings)
    return [part[0, 0] for part in parts]


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_the_projection_is_gsplats_torch_code(model):
    implementation = pytest.importorskip("gsplat.cuda._torch_impl")
    scene, K = make_scene(model, count=200), intrinsics(model)
    covars, _ = implementation._quat_scale_to_covar_preci(scene["quats"], scene["scales"], True, False)
    radii, means2d, depths, conics, compensations = implementation._fully_fused_projection(
        scene["means"], covars, scene["viewmats"], K, WIDTH, HEIGHT, calc_compensations=True, camera_model=model
    )
    ours = project(model, scene["means"], scene["quats"], scene["scales"], scene["viewmats"][0], K[0])
    seen = (ours[4] > 0).all(dim=-1)
    assert torch.equal(seen, (radii[0] > 0).all(dim=-1))
    assert 50 < seen.sum() < 200
    assert ((ours[4] - radii[0])[seen].abs() <= 1).all()  # boxes: theirs is always 3.33 deviations, ours no more than needed
    # gsplat's fisheye has 1e-7 here and there against division by zero
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if model == "fisheye" else {"rtol": 1e-10, "atol": 1e-10}
    for mine, theirs in zip(ours[:4], (means2d, conics, depths, compensations), strict=True):
        torch.testing.assert_close(mine[seen], theirs[0][seen], **tolerance)


def test_fisheye_on_its_axis_is_a_pinhole_camera_to_the_last_digits():
    # the series near the axis: no jump where it starts, the limit where it ends
    K = torch.tensor([[30.0, 0, 16], [0, 30, 10], [0, 0, 1]], dtype=torch.float64)
    view = torch.eye(4, dtype=torch.float64)
    means = torch.tensor([[0.0, 0, 2], [1e-9, 0, 2], [1e-200, 1e-170, 2]], dtype=torch.float64)
    shape = torch.ones(3, 4, dtype=torch.float64), torch.full((3, 3), 0.2, dtype=torch.float64)
    fisheye, pinhole = (project(model, means, *shape, view, K) for model in ("fisheye", "pinhole"))
    for a, b in zip(fisheye, pinhole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_fisheye_derivatives_do_not_jump_where_the_series_takes_over():
    K = torch.tensor([[30.0, 0, 16], [0, 30, 10], [0, 0, 1]], dtype=torch.float64)
    shape = torch.tensor([[1.0, 0.4, 0.2, 0.1]]).double(), torch.tensor([[0.1, 0.2, 0.3]]).double()
    results = []
    for side in (-1e-9, 1e-9):  # the switch is at a tangent of 0.1
        means = torch.tensor([[0.08 * 2, 0.06 * 2, 2.0]], dtype=torch.float64) * torch.tensor([1 + side, 1 + side, 1])
        means.requires_grad_()
        _, conics, *_ = project("fisheye", means, *shape, torch.eye(4, dtype=torch.float64), K)
        (conics * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        results.append((conics.detach(), means.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-7, atol=1e-9)


def ball(direction: list[float], sigma: float = 0.1, opacity: float = 0.9) -> Gaussians:
    """A round white Gaussian one unit away."""
    mean = torch.nn.functional.normalize(torch.tensor([direction], dtype=torch.float64), dim=-1)
    one = torch.ones(1, dtype=torch.float64)
    return Gaussians(mean, torch.eye(4).double()[:1], sigma * one.expand(1, 3), opacity * one, one.expand(1, 3))


def panorama(width: int = 64, height: int = 32) -> Cameras:
    return Cameras(torch.eye(4).double()[None], torch.eye(3).double()[None], width, height, "equirectangular")


def directions(width: int, height: int) -> np.ndarray:
    """Return the unit vectors `[H, W, 3]` that the pixels of a panorama look along."""
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    latitude = ((np.arange(height) + 0.5) / height - 0.5) * np.pi
    longitude, latitude = np.meshgrid(longitude, latitude)
    return np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1)


@pytest.mark.parametrize(
    ("direction", "column", "row"),
    [([0, 0, 1], 32, 16), ([1, 0, 0], 48, 16), ([-1, 0, 0], 16, 16), ([0, 1, 1], 32, 24), ([0, -1, 1], 32, 8)],
    ids=["ahead is in the middle", "right is right", "left is left", "below is below", "above is above"],
)
def test_a_panorama_shows(direction, column, row):
    alphas = rasterize(ball(direction), panorama()).alphas[0, ..., 0].numpy()
    weight = alphas / alphas.sum()
    assert (weight.sum(axis=0) * (np.arange(64) + 0.5)).sum() == pytest.approx(column, abs=0.1)
    assert (weight.sum(axis=1) * (np.arange(32) + 0.5)).sum() == pytest.approx(row, abs=0.3)


def test_what_is_behind_a_panorama_crosses_its_seam_and_is_the_same_as_ahead_turned_by_half_a_turn():
    ahead = rasterize(ball([0.03, 0.2, 1]), panorama(), depths=True, antialiased=True)
    behind = rasterize(ball([-0.03, 0.2, -1]), panorama(), depths=True, antialiased=True)
    assert behind.alphas[0, 16, 0] > 0.2
    assert behind.alphas[0, 16, -1] > 0.2
    for a, b in ((ahead.colors, behind.colors), (ahead.alphas, behind.alphas), (ahead.depths, behind.depths)):
        torch.testing.assert_close(b, torch.roll(a, 32, dims=2), rtol=1e-9, atol=1e-12)


def test_depth_in_a_panorama_is_distance_and_in_the_others_z():
    gaussians = ball([0.6, 0.0, 0.8], sigma=0.2)
    K = torch.tensor([[[20.0, 0, 16], [0, 20, 10], [0, 0, 1]]], dtype=torch.float64)
    for model, depth in {"pinhole": 0.8, "ortho": 0.8, "fisheye": 0.8, "equirectangular": 1.0}.items():
        rendering = rasterize(gaussians, Cameras(torch.eye(4).double()[None], K, 32, 20, model), depths=True)
        shown = rendering.alphas > 0.1
        assert shown.any()
        torch.testing.assert_close(rendering.depths[shown], torch.full_like(rendering.depths[shown], depth))


def test_a_panorama_has_no_front_and_its_near_plane_is_a_ball():
    gaussians = ball([0.0, 0.0, -1.0])
    assert rasterize(gaussians, panorama(), near_plane=0.99).alphas.max() > 0.5
    assert rasterize(gaussians, panorama(), near_plane=1.01).alphas.max() == 0
    assert rasterize(gaussians, panorama(), far_plane=0.99).alphas.max() == 0


@pytest.mark.parametrize("degrees", [0.0, 30.0, 60.0])
def test_a_small_ball_in_a_panorama_looks_as_it_does_along_every_pixels_ray(degrees):
    # exp(-angle^2 / 2 sigma^2) on the sphere, exact for a small ball; EWA keeps only the first order in the angle
    sigma, latitude = 0.05, math.radians(degrees)
    direction = [0.3 * math.cos(latitude), math.sin(latitude), math.sqrt(1 - 0.09) * math.cos(latitude)]
    drawn = rasterize(ball(direction, sigma), panorama(256, 128), eps2d=0.0).alphas[0, ..., 0].numpy()
    angle = np.arccos(np.clip(directions(256, 128) @ direction, -1, 1))
    assert (
        np.abs(drawn - 0.9 * np.exp(-0.5 * (np.tan(angle) / sigma) ** 2) * (angle < 1)).max()
        < {0: 0.006, 30: 0.03, 60: 0.09}[degrees]
    )


def test_projections_and_their_gradients_near_the_poles_of_a_panorama_equal_dense_autograd():
    generator = torch.Generator().manual_seed(3)
    colatitude = torch.tensor([1e-4, 1e-3, 0.02, 0.05, 0.1, 0.3]).double()  # a row is 0.15
    turn = 6.0 * torch.rand(6, generator=generator, dtype=torch.float64)
    side = torch.tensor([1.0, -1.0]).double().repeat(3)
    means = torch.stack([colatitude.sin() * turn.sin(), side * colatitude.cos(), colatitude.sin() * turn.cos()], dim=-1)
    inputs = [means, torch.randn(6, 4, generator=generator).double(), 0.05 + 0.1 * torch.rand(6, 3, generator=generator).double()]
    inputs.append(torch.eye(4).double())
    K, gradients = torch.eye(3).double(), []
    for ours in (True, False):
        leaves = [value.clone().requires_grad_() for value in inputs]
        if ours:
            pixels, conics, depths, compensations, _ = project("equirectangular", *leaves, K)
        else:
            covars = _reference.covariances(leaves[1], leaves[2])
            pixels, spread, depths, compensations = _reference.project(
                leaves[0], covars, leaves[3], K, WIDTH, HEIGHT, model="equirectangular"
            )
            conics = torch.linalg.inv(spread).flatten(1)[:, [0, 1, 3]]
        parts = torch.cat([pixels, conics, depths[:, None], compensations[:, None]], dim=-1)
        weight = torch.randn(6, 7, generator=torch.Generator().manual_seed(4)).double()
        (parts * weight).sum().backward()
        gradients.append([parts.detach(), *(leaf.grad[..., :3, :] if len(leaf) == 4 else leaf.grad for leaf in leaves)])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7 * float(theirs.abs().max()))


def test_a_ball_at_a_pole_of_a_panorama_covers_its_rows_all_around():
    # the affine map would make it as wide as three turns; it is drawn with the alpha of one, in the rows that it covers
    drawn = rasterize(ball([0.0, 1.0, 0.0], 0.15), panorama(128, 64), eps2d=0.0).alphas[0, ..., 0].numpy()
    angle = np.arccos(directions(128, 64) @ [0.0, 1.0, 0.0])
    expected = 0.9 * np.exp(-0.5 * (np.tan(angle) / 0.15) ** 2) * (angle < 1)
    assert np.abs(drawn - expected).max() < 0.13
    assert (drawn[-1] > 0.8).all()
    assert (drawn[-12:].max(axis=1) - drawn[-12:].min(axis=1)).max() < 0.13


def test_a_gaussian_exactly_at_a_pole_has_finite_gradients():
    gaussians = ball([0.0, -1.0, 0.0])
    leaves = [value.clone().requires_grad_() for value in (gaussians.means, gaussians.quats, gaussians.scales)]
    rasterize(gaussians._replace(means=leaves[0], quats=leaves[1], scales=leaves[2]), panorama()).colors.sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_what_is_shared_among_the_copies_of_a_gaussian_that_meets_itself_is_differentiated():
    generator = torch.Generator().manual_seed(6)
    means = torch.tensor([[3.0, 5.0], [30.0, 6.0], [62.0, 7.0]]).double()
    conics = torch.tensor([[0.002, 0.001, 0.3], [4e-4, 1e-4, 0.2], [0.1, 0.0, 0.2]]).double()
    opacities, radii = (
        torch.tensor([0.9, 0.4, 0.7], dtype=torch.float64),
        torch.tensor([[70, 6], [160, 7], [10, 7]], dtype=torch.int32),
    )
    weights = [torch.randn(shape, generator=generator).double() for shape in ((8, 2), (8, 3), (8,))]

    def loss(*parts):
        found = _across_the_seam(*parts, torch.zeros(3, 1), torch.zeros(3), radii, 64)
        return sum((weight[: len(value)] * value).sum() for weight, value in zip(weights, found[:3], strict=True))

    copies = _across_the_seam(means, conics, opacities, torch.zeros(3, 1), torch.zeros(3), radii, 64)
    assert copies[0][:, 0].tolist() == [3, 30, 62, 67, 94, -61, -34, -2]
    assert copies[2][2] == 0.7  # not wide: untouched
    assert (copies[2][:2] < opacities[:2]).all()
    assert torch.autograd.gradcheck(loss, [value.requires_grad_() for value in (means, conics, opacities)])
