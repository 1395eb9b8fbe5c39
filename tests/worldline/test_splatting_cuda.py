"""The two backends give the same images and gradients: ours on the CPU, gsplat's kernels on CUDA. Needs a GPU.

Stated tolerances, in float32: pixels within 2e-3 of the largest absolute value of their channel but for 0.1 % of them, where a
Gaussian at the edge of what counts (alpha of 1/255, a transmittance of 1e-4) may fall on either side; gradients within 1 % of
their norm.
"""

import pytest
import torch

from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, Rendering, rasterize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

WIDTH, HEIGHT, COUNT = 160, 112, 3000
PIXEL_TOLERANCE, PIXEL_SHARE, GRADIENT_TOLERANCE = 2e-3, 1e-3, 1e-2


def make_gaussians(harmonics: int, covars: bool) -> Gaussians:
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    means = normal(COUNT, 3) * torch.tensor([1.5, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 4.0])
    quats, scales = normal(COUNT, 4), 0.02 + 0.08 * torch.rand(COUNT, 3, generator=generator)
    sphere = Gaussians(means, quats, scales, normal(COUNT).sigmoid(), torch.rand(COUNT, 3, generator=generator))
    if harmonics:
        sphere = sphere._replace(harmonics=0.1 * normal(COUNT, harmonics, 3))
    if covars:
        spread = torch.linalg.qr(normal(COUNT, 3, 3))[0] * scales[:, None]
        sphere = sphere._replace(quats=None, scales=None, covars=spread @ spread.mT)
    return sphere


def make_cameras(model: str) -> Cameras:
    views = torch.eye(4).repeat(2, 1, 1)
    views[1, :3, 3] = torch.tensor([0.4, -0.2, 0.5])
    focal = 30.0 if model == "ortho" else 120.0
    K = torch.tensor([[focal, 0, 80], [0, 1.05 * focal, 56], [0, 0, 1]]).repeat(2, 1, 1)
    return Cameras(views, K, WIDTH, HEIGHT, model)


def draw(
    device: str, gaussians: Gaussians, cameras: Cameras, features: torch.Tensor | None, antialiased: bool
) -> tuple[Rendering, dict[str, torch.Tensor]]:
    """Return the rendering and the gradients by every input, on the CPU."""
    named = gaussians._asdict() | {"features": features, "viewmats": cameras.camera_from_world}
    named |= {"backgrounds": torch.tensor([[0.1, 0.4, 0.7], [0.9, 0.2, 0.3]])}
    leaves = {name: value.to(device).detach().requires_grad_() for name, value in named.items() if value is not None}
    here = Cameras(leaves["viewmats"], cameras.intrinsics.to(device), WIDTH, HEIGHT, cameras.model)
    shown = rasterize(
        Gaussians(**{name: leaves.get(name) for name in Gaussians._fields}), here, features=leaves.get("features"), depths=True,
        backgrounds=leaves["backgrounds"], antialiased=antialiased,
    )  # fmt: skip
    shown = shown._replace(depths=shown.depths * shown.alphas)  # an expected depth is arbitrary where nearly nothing is
    images = [image for image in (shown.colors, shown.alphas, shown.depths, shown.features) if image is not None]
    generator = torch.Generator().manual_seed(8)
    loss = sum((image * torch.randn(image.shape, generator=generator).to(device)).sum() for image in images)
    loss.backward()
    return shown, {name: leaf.grad.cpu() for name, leaf in leaves.items()}


@pytest.mark.parametrize("featured", [False, True], ids=["colours", "features"])
@pytest.mark.parametrize("harmonics", [0, 15], ids=["one colour", "harmonics"])
@pytest.mark.parametrize("covars", [False, True], ids=["quats", "covars"])
@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_images_and_gradients_are_the_same_on_both_devices(model, antialiased, covars, harmonics, featured):
    gaussians, cameras = make_gaussians(harmonics, covars), make_cameras(model)
    features = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(2)) if featured else None
    ours, our_gradients = draw("cpu", gaussians, cameras, features, antialiased)
    theirs, their_gradients = draw("cuda", gaussians, cameras, features, antialiased)
    for name in ("colors", "alphas", "depths", "features"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None)
        if mine is not None:
            off = (mine - other.cpu()).abs() > PIXEL_TOLERANCE * mine.abs().max()
            assert off.float().mean() <= PIXEL_SHARE, f"{name}: {int(off.sum())} of {off.numel()}"
    for name, mine in our_gradients.items():
        other = their_gradients[name]
        if name == "covars":  # gsplat reads the upper triangle
            mine, other = mine + mine.mT, other + other.mT
        if name == "viewmats":  # the last row of a rigid transform is not an input; gsplat inverts the whole matrix
            mine, other = mine[:, :3], other[:, :3]
        assert (mine - other).norm() <= GRADIENT_TOLERANCE * mine.norm(), name


def test_moments_of_native_4d_gaussians_in_one_call_are_the_same_on_both_devices():
    first, second = make_gaussians(0, True), make_gaussians(0, True)
    means = torch.stack([first.means, second.means + 0.1])
    opacities = torch.stack([first.opacities, 0.3 * second.opacities])
    covars, colors = (torch.stack([value, value]) for value in (first.covars, first.colors))
    gaussians, cameras = Gaussians(means, None, None, opacities, colors, covars=covars), make_cameras("pinhole")
    views, K = (tensor.expand(2, *tensor.shape).contiguous() for tensor in (cameras.camera_from_world, cameras.intrinsics))
    images = []
    for device in ("cpu", "cuda"):
        here = Gaussians(*(None if value is None else value.to(device) for value in gaussians))
        images.append(rasterize(here, Cameras(views.to(device), K.to(device), WIDTH, HEIGHT)).colors.cpu())
    off = (images[0] - images[1]).abs() > PIXEL_TOLERANCE
    assert off.float().mean() <= PIXEL_SHARE


def test_a_panorama_on_cuda_is_refused_with_what_to_do_instead():
    gaussians = Gaussians(*(None if value is None else value.cuda() for value in make_gaussians(0, False)))
    cameras = make_cameras("equirectangular")
    with pytest.raises(NotImplementedError, match="six pinhole cameras"):
        rasterize(gaussians, Cameras(cameras.camera_from_world.cuda(), cameras.intrinsics.cuda(), 64, 32, "equirectangular"))
