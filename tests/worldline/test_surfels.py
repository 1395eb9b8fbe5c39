"""The surfel kernels against the dense reference, numerical derivatives, closed forms and gsplat's own projection."""

import math

import pytest
import torch

from worldline import threads
from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, _surfel_reference, depth_distortion, normal_consistency, rasterize_surfels
from worldline.splatting.surfels import normals_of_depths

WIDTH, HEIGHT = 37, 41  # not multiples of anything; more than two bands of rows
NAMES = ("means", "quats", "scales", "opacities", "colors")
OUTPUTS = ("colors", "alphas", "depths", "median_depths", "normals", "distortion")


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Many small operations: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.mark.parametrize("depth_at", ["center", "hit"])
def test_the_gradients_by_every_input_equal_the_reference_autograd(depth_at):
    gaussians, cameras = make_scene()
    gradients = []
    for draw in (rasterize_surfels, reference):
        leaves = Gaussians(*(value.clone().requires_grad_() for value in gaussians[:5]))
        pose = cameras.camera_from_world.clone().requires_grad_()
        drawn = draw(leaves, Cameras(pose, cameras.intrinsics, WIDTH, HEIGHT), depth_at=depth_at)
        inputs = (*leaves[:5], pose)
        for output in OUTPUTS:
            image = getattr(drawn, output)[0] if draw is rasterize_surfels else drawn[output]
            loss = (image * weights(*image.shape)).sum()
            gradients.append(torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True))
    for output, ours, theirs in zip(OUTPUTS, gradients[:6], gradients[6:], strict=True):
        assert sum(gradient is not None and bool(gradient.abs().max() > 1.0) for gradient in theirs) >= 2, output
        for given, expected in zip(ours, theirs, strict=True):
            expected = torch.zeros_like(given) if expected is None else expected
            torch.testing.assert_close(given, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["means", "quats", "scales", "opacities", "colors", "harmonics", "features", "backgrounds", "camera_from_world"]
)
@pytest.mark.parametrize("depth_at", ["center", "hit"])
def test_gradients_equal_finite_differences(name, depth_at):
    # Alpha jumps at 1/255 where a surfel ends, so the scene keeps every pixel inside all of them.
    generator = torch.Generator().manual_seed(4)
    inputs = {
        "means": torch.tensor([[0.0, 0.1, 2.0], [0.2, -0.1, 2.6], [-0.2, 0.0, 3.1]], dtype=torch.float64),
        "quats": torch.tensor([[2.0, 0.3, 0.2, 0.1], [1.0, -0.2, 0.1, 0.9], [0.5, 0.0, 0.1, 0.0]], dtype=torch.float64),
        "scales": 1.0 + 0.3 * torch.rand(3, 3, generator=generator, dtype=torch.float64),
        "opacities": torch.tensor([0.3, 0.5, 0.6], dtype=torch.float64),
        "colors": torch.rand(3, 3, generator=generator, dtype=torch.float64) + 1.0,
        "harmonics": 0.1 * torch.randn(3, 8, 3, generator=generator, dtype=torch.float64),
        "features": torch.randn(3, 3, generator=generator, dtype=torch.float64),
        "backgrounds": torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64),
        "camera_from_world": torch.eye(4, dtype=torch.float64)[None],
    }
    matrix = torch.tensor([[[12.0, 0, 4.5], [0, 13.0, 3.5], [0, 0, 1]]], dtype=torch.float64)
    kept = ("means", "quats", "scales", "opacities", "colors", "harmonics")

    def loss(value: torch.Tensor) -> torch.Tensor:
        given = inputs | {name: value}
        drawn = rasterize_surfels(
            Gaussians(**{key: given[key] for key in kept}), Cameras(given["camera_from_world"], matrix, 9, 7),
            features=given["features"], backgrounds=given["backgrounds"], depth_at=depth_at,
        )  # fmt: skip
        everything = torch.cat([image for image in drawn[:8] if image is not None], dim=-1)[0]
        return (everything * weights(*everything.shape)).sum()

    assert torch.autograd.gradcheck(loss, inputs[name].clone().requires_grad_(), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_the_loss_on_normals_does_not_move_opacity_where_normals_agree_with_themselves():
    surfel = one((0.0, 0.0, 2.0), scale=(3.0, 3.0, 0.0))
    opacities = surfel.opacities.requires_grad_()
    loss = normal_consistency(rasterize_surfels(surfel, straight(), depth_at="hit"))
    (gradient,) = torch.autograd.grad(loss, opacities)
    assert gradient < 0  # what lies right may become denser
    assert loss.abs() < 1e-9


def test_a_surfel_that_faces_the_camera_is_an_image_of_its_gaussian():
    # Standard deviations 0.5 and 0.25 at depth 4 under focal length 40: 5 and 2.5 px, wider everywhere than the filter.
    drawn = rasterize_surfels(one((0.0, 0.0, 4.0), scale=(0.5, 0.25, 0.0)), straight())
    offset = torch.arange(33, dtype=torch.float64) - 16
    square = (offset / 5) ** 2 + (offset[:, None] / 2.5) ** 2
    expected = 0.8 * torch.exp(-0.5 * torch.minimum(square, 2 * (offset**2 + offset[:, None] ** 2)))
    expected[expected < 1 / 255] = 0
    torch.testing.assert_close(drawn.alphas[0, ..., 0], expected, rtol=0, atol=1e-12)
    seen = drawn.alphas > 0
    torch.testing.assert_close(drawn.depths[seen], torch.full_like(drawn.depths[seen], 4.0))
    torch.testing.assert_close(drawn.normals, drawn.alphas * torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("quat", [(1.0, 0.5, -0.2, 0.3), (-0.5, 1.0, 0.3, 0.2)])
def test_a_wide_slanted_surfel_is_a_plane_seen_from_either_side(quat):
    # The plane n . (x - p) = 0 meets the ray d at depth n . p / n . d.
    surfel, cameras = one((0.1, -0.2, 4.0), quat, (30.0, 30.0, 0.0), 0.9), straight()
    drawn = rasterize_surfels(surfel, cameras, depth_at="hit")
    normal = _surfel_reference.rotation_matrices(surfel.quats)[0, :, 2]
    place = (torch.arange(33, dtype=torch.float64) - 16) / 40
    rays = torch.stack([place.expand(33, 33), place[:, None].expand(33, 33), torch.ones(33, 33, dtype=torch.float64)], dim=-1)
    expected = (normal @ surfel.means[0]) / (rays @ normal)
    torch.testing.assert_close(drawn.depths[0, ..., 0], expected)
    torch.testing.assert_close(drawn.median_depths[0, ..., 0], expected)
    toward = -normal if normal @ surfel.means[0] > 0 else normal
    inner = drawn.surface_normals[0, 1:-1, 1:-1]
    torch.testing.assert_close(inner, toward.expand_as(inner))
    torch.testing.assert_close(drawn.normals / drawn.alphas, toward.expand(1, 33, 33, 3))
    assert not drawn.surface_normals[0, 0].any()
    assert normal_consistency(drawn).abs() < 1e-9


def test_two_layers_have_the_median_and_the_distortion_of_their_shares():
    near, far = one((0.0, 0.0, 2.0), scale=(50.0, 50.0, 0.0), opacity=0.4), one((0.0, 0.0, 3.0), scale=(50.0, 50.0, 0.0))
    both = Gaussians(*(torch.cat(pair) for pair in zip(near[:5], far[:5], strict=True)))
    drawn = rasterize_surfels(both, straight())
    center = (0, 16, 16, 0)
    # Shares 0.4 and 0.6 * 0.8; more than half of the light passes the first, so the second is the median.
    assert drawn.median_depths[center] == 3.0
    assert drawn.depths[center] == pytest.approx((0.4 * 2 + 0.48 * 3) / 0.88)
    assert drawn.distortion[center] == pytest.approx(2 * 0.4 * 0.48 * 1.0)
    opaque = both._replace(opacities=torch.tensor([0.6, 0.8], dtype=torch.float64))
    assert rasterize_surfels(opaque, straight()).median_depths[center] == 2.0
    assert depth_distortion(drawn) == pytest.approx(float(drawn.distortion.mean()))


def test_turning_a_surfel_off_its_surface_costs_and_the_gradient_turns_it_back():
    # A patch of a wall, and one surfel on it that is turned by 0.2 rad.
    grid = torch.linspace(-1, 1, 9, dtype=torch.float64)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    count = x.numel()
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).repeat(count, 1)
    quats[40] = torch.tensor([math.cos(0.1), math.sin(0.1), 0, 0])
    wall = Gaussians(
        torch.stack([x, y, torch.full_like(x, 4.0)], dim=-1).reshape(-1, 3), quats,
        torch.full((count, 3), 0.15, dtype=torch.float64), torch.full((count,), 0.9, dtype=torch.float64),
        torch.ones(count, 3, dtype=torch.float64),
    )  # fmt: skip
    straightened = quats.clone()
    straightened[40] = quats[0]
    turned = quats.clone().requires_grad_()
    loss = normal_consistency(rasterize_surfels(wall._replace(quats=turned), straight()))
    assert loss > normal_consistency(rasterize_surfels(wall._replace(quats=straightened), straight()))
    loss.backward()
    assert turned.grad[40, 1] > 0


def test_a_surfel_seen_edge_on_or_of_no_size_is_a_spot_of_less_than_a_pixel():
    spots = {
        "edge-on": one((0.0, 0.0, 4.0), (math.cos(math.pi / 4), math.sin(math.pi / 4), 0.0, 0.0), (0.02, 0.02, 0.0)),
        "no size": one((0.0, 0.0, 4.0), scale=(0.0, 0.0, 0.0)),
        "tiny": one((0.0, 0.0, 4.0), scale=(1e-7, 1e-7, 0.0)),
    }
    offset = torch.arange(33, dtype=torch.float64) - 16
    expected = 0.8 * torch.exp(-(offset**2 + offset[:, None] ** 2))  # variance 1 / 2 square pixel
    expected[expected < 1 / 255] = 0
    for dtype in (torch.float32, torch.float64):
        for surfel in spots.values():
            leaves = Gaussians(*(value.to(dtype).requires_grad_() for value in surfel[:5]))
            cameras = straight()
            view = Cameras(cameras.camera_from_world.to(dtype), cameras.intrinsics.to(dtype), 33, 33)
            drawn = rasterize_surfels(leaves, view)
            torch.testing.assert_close(drawn.alphas[0, ..., 0].double(), expected, rtol=0, atol=1e-4)
            (drawn.colors.square().sum() + drawn.distortion.sum() + drawn.normals.sum()).backward()
            assert all(torch.isfinite(leaf.grad).all() for leaf in leaves[:5])


def test_a_floor_that_passes_under_the_camera_is_drawn_only_in_front_of_it():
    # A floor 1 below the camera (y down), reaching far to both sides of the camera's plane; its centre is 2 ahead.
    quarter = math.cos(math.pi / 4)
    floor = one((0.0, 1.0, 2.0), (quarter, quarter, 0.0, 0.0), (50.0, 50.0, 0.0), 0.9)
    drawn = rasterize_surfels(floor, straight(), depth_at="hit")
    below = (torch.arange(33, dtype=torch.float64) - 16) / 40
    assert not drawn.alphas[0, :17].any()  # at and above the horizon
    assert (drawn.alphas[0, 20:] > 0.85).all()
    torch.testing.assert_close(drawn.depths[0, 20:, :, 0], (1 / below[20:, None]).expand(13, 33))
    torch.testing.assert_close(drawn.normals[0, 25, 5] / drawn.alphas[0, 25, 5], torch.tensor([0.0, -1.0, 0.0]).double())


def test_cameras_and_batches_equal_one_image_at_a_time():
    first, cameras = make_scene(seed=1)
    second, _ = make_scene(seed=2)
    poses = torch.cat([cameras.camera_from_world, torch.eye(4, dtype=torch.float64)[None]])
    both = Gaussians(*(torch.stack(pair) for pair in zip(first[:5], second[:5], strict=True)))
    features, backgrounds = weights(2, 50, 3), weights(2, 2, 3)
    matrices = cameras.intrinsics.expand(2, 2, 3, 3)
    drawn = rasterize_surfels(
        both, Cameras(poses.expand(2, 2, 4, 4), matrices, 20, 18), features=features, backgrounds=backgrounds
    )
    assert drawn.colors.shape == (2, 2, 18, 20, 3)
    assert drawn.features.shape == (2, 2, 18, 20, 3)
    assert drawn.meta["means2d"].shape == drawn.meta["radii"].shape == (2, 2, 50, 2)
    for b, gaussians in enumerate((first, second)):
        for c in range(2):
            camera = Cameras(poses[c : c + 1], cameras.intrinsics, 20, 18)
            single = rasterize_surfels(gaussians, camera, features=features[b], backgrounds=backgrounds[b, c : c + 1])
            for ours, expected in zip(drawn[:8], single[:8], strict=True):
                torch.testing.assert_close(ours[b, c], expected[0], rtol=0, atol=0)


def test_features_are_composited_like_colours():
    gaussians, cameras = make_scene()
    drawn = rasterize_surfels(gaussians, cameras, features=gaussians.colors, backgrounds=torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(drawn.features, drawn.colors)


def test_images_and_gradients_have_the_same_bits_with_one_and_with_several_threads(monkeypatch):
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda count=count: count)
        gaussians, cameras = make_scene(count=9000, dtype=torch.float32)
        leaves = Gaussians(*(value.requires_grad_() for value in gaussians[:5]))
        drawn = rasterize_surfels(leaves, Cameras(cameras.camera_from_world.requires_grad_(), cameras.intrinsics, 96, 80))
        (drawn.colors.sum() + drawn.normals.sum() + drawn.depths.sum() + drawn.distortion.sum()).backward()
        results.append([*(image.detach() for image in drawn[:7]), *(leaf.grad for leaf in leaves[:5])])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_gradient_by_image_positions_can_be_retained():
    gaussians, cameras = make_scene()
    gaussians.means.requires_grad_()
    drawn = rasterize_surfels(gaussians, cameras)
    drawn.meta["means2d"].retain_grad()
    (drawn.colors[0] * weights(HEIGHT, WIDTH, 3)).sum().backward()
    seen = drawn.meta["radii"][0, :, 0] > 0
    assert drawn.meta["means2d"].grad[0, seen].abs().sum(dim=-1).gt(0).sum() > 10
    assert not drawn.meta["means2d"].grad[0, ~seen].any()


@pytest.mark.parametrize("empty", ["none", "behind", "near", "far"])
def test_nothing_in_view_gives_the_background_and_zero_gradients(empty):
    gaussians, cameras = make_scene(count=0 if empty == "none" else 20)
    means = gaussians.means - torch.tensor([0.0, 0.0, 50.0]) if empty == "behind" else gaussians.means
    means = means.clone().requires_grad_()
    limits = {"near": {"near_plane": 100.0}, "far": {"far_plane": 1e-3, "near_plane": 0.0}}.get(empty, {})
    background = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    drawn = rasterize_surfels(gaussians._replace(means=means), cameras, backgrounds=background, **limits)
    torch.testing.assert_close(drawn.colors, background.expand(1, HEIGHT, WIDTH, 3))
    assert not any(image.any() for image in drawn[1:7])
    (drawn.colors.sum() + drawn.surface_normals.sum()).backward()
    assert not means.grad.any()


def test_the_length_of_a_quaternion_and_the_third_scale_have_no_effect():
    gaussians, cameras = make_scene()
    other = gaussians._replace(quats=7.0 * gaussians.quats, scales=gaussians.scales * torch.tensor([1.0, 1.0, 0.0]).double())
    for ours, expected in zip(rasterize_surfels(other, cameras)[:7], rasterize_surfels(gaussians, cameras)[:7], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


BAD: list[tuple[dict, dict, type[Exception], str]] = [
    ({"means": torch.zeros(49, 3, dtype=torch.float64)}, {}, ValueError, r"quats must have shape \[49, 4\]"),
    ({"scales": torch.ones(50, 2, dtype=torch.float64)}, {}, ValueError, r"scales must have shape \[50, 3\], got \[50, 2\]"),
    ({"quats": None}, {}, ValueError, "quats must have shape"),
    ({"opacities": torch.ones(50)}, {}, ValueError, "opacities is torch.float32 but means are torch.float64"),
    ({"covars": torch.zeros(50, 3, 3, dtype=torch.float64)}, {}, ValueError, "covars"),
    ({}, {"features": torch.zeros(49, 2, dtype=torch.float64)}, ValueError, "features must have shape"),
    ({}, {"backgrounds": torch.zeros(3, dtype=torch.float64)}, ValueError, "backgrounds must have shape"),
    ({}, {"depth_at": "mean"}, ValueError, "depth_at 'mean'"),
    ({}, {"surface": "mode"}, ValueError, "surface 'mode'"),
]


@pytest.mark.parametrize(("fields", "arguments", "error", "message"), BAD)
def test_what_does_not_fit_is_named(fields, arguments, error, message):
    gaussians, cameras = make_scene()
    with pytest.raises(error, match=message):
        rasterize_surfels(gaussians._replace(**fields), cameras, **arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_named(name, value):
    gaussians, cameras = make_scene()
    broken = getattr(gaussians, name).clone()
    broken.view(-1)[7] = value
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        rasterize_surfels(gaussians._replace(**{name: broken}), cameras)


def test_cameras_that_are_no_pinholes_are_refused():
    gaussians, cameras = make_scene()
    with pytest.raises(NotImplementedError, match="fisheye"):
        rasterize_surfels(gaussians, Cameras(cameras.camera_from_world, cameras.intrinsics, 8, 8, "fisheye"))


def test_the_projection_is_gsplats():
    # gsplat's own torch projection runs on the CPU; it puts the filter, as means2d, where our kernels do.
    theirs = pytest.importorskip("gsplat.cuda._torch_impl_2dgs")
    gaussians, cameras = make_scene(seed=3)
    gaussians.scales[:, 2] = 1.0  # by which gsplat's torch code, unlike its kernels, multiplies the normals
    radii, middles, depths, _, normals = theirs._fully_fused_projection_2dgs(
        gaussians.means, gaussians.quats, gaussians.scales, cameras.camera_from_world, cameras.intrinsics, WIDTH, HEIGHT
    )
    meta = rasterize_surfels(gaussians, cameras).meta
    centres, tangents, _ = _surfel_reference.surfels_in_camera(*gaussians[:3], cameras.camera_from_world[0])
    places, filtered = _surfel_reference.filter_places(centres, tangents, cameras.intrinsics[0])
    seen = (meta["radii"][0, :, 0] > 0) & (radii[0, :, 0] > 0) & filtered
    assert seen.sum() > 15
    torch.testing.assert_close(places[seen], middles[0, seen])
    torch.testing.assert_close(meta["depths"][0, seen], depths[0, seen])
    in_camera = meta["normals"][0, seen] @ cameras.camera_from_world[0, :3, :3].mT
    torch.testing.assert_close(in_camera, normals[0, seen])


def test_surface_normals_are_gsplats():
    # A bumpy surface; gsplat's function of depths runs on the CPU.
    theirs = pytest.importorskip("gsplat.utils").depth_to_normal
    _, cameras = make_scene()
    depths = 3.0 + 0.1 * weights(1, HEIGHT, WIDTH, 1)
    expected = theirs(depths, torch.linalg.inv(cameras.camera_from_world), cameras.intrinsics)
    torch.testing.assert_close(normals_of_depths(depths, cameras), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gsplats_kernels_on_cuda_draw_the_same():
    gaussians, cameras = make_scene(dtype=torch.float32)
    ours = rasterize_surfels(gaussians, cameras)
    there = Cameras(cameras.camera_from_world.cuda(), cameras.intrinsics.cuda(), WIDTH, HEIGHT)
    theirs = rasterize_surfels(Gaussians(*(value.cuda() for value in gaussians[:5])), there)
    for name in ("colors", "alphas", "normals"):
        assert (getattr(ours, name) - getattr(theirs, name).cpu()).abs().mean() < 1e-3
