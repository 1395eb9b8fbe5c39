"""Measure the rasteriser on a CUDA device: the same images as on the CPU, and our overhead over a bare gsplat loop."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Figure, figure
from benchmarks.splat_scene import make_scene
from worldline.gaussians import Gaussians
from worldline.splatting import Cameras, rasterize

UNITS = {
    "splat.gpu.image_difference": "",
    "splat.gpu.gradient_difference": "",
    "splat.gpu.images_per_s": "1/s",
    "splat.gpu.steps_per_s": "1/s",
    "splat.gpu.overhead_share": "share",
}
LEAVES = ("means", "quats", "scales", "opacities", "colors")
WIDTH, HEIGHT = 1920, 1080


def measure_gpu(folder: Path, quick: bool) -> Sequence[Figure]:
    """Return the figures, without values where there is no CUDA device."""
    if not torch.cuda.is_available():
        why = "not measured: torch finds no CUDA device on this machine"
        return [figure(id, None, unit, "", why) for id, unit in UNITS.items()]
    return [*_compare_with_cpu(), *_measure_speed(100_000 if quick else 1_000_000, 20 if quick else 100)]


def draw(scene: dict[str, Any], width: int, height: int) -> Tensor:
    """Return the image `[1, H, W, 3]` of our `rasterize`."""
    gaussians = Gaussians(*(scene[name] for name in LEAVES))
    return rasterize(gaussians, Cameras(scene["viewmats"], scene["Ks"], width, height)).colors


def _compare_with_cpu() -> list[Figure]:
    """Draw the same scenes on both; the largest differences over three seeds, gradients by their own largest value."""
    size, count, image_difference, gradient_difference = 256, 20_000, 0.0, 0.0
    upstream = torch.randn(1, size, size, 3, generator=torch.Generator().manual_seed(9))
    for seed in range(3):
        images, gradients = [], []
        for device in ("cpu", "cuda"):
            scene = make_scene(count, size, seed, device)
            leaves = {name: scene[name].requires_grad_() for name in LEAVES}
            image = draw(scene | leaves, size, size)
            image.backward(upstream.to(device))
            images.append(image.detach().cpu())
            gradients.append([leaf.grad.cpu() for leaf in leaves.values() if leaf.grad is not None])
        image_difference = max(image_difference, float((images[0] - images[1]).abs().max()))
        for ours, theirs in zip(*gradients, strict=True):
            gradient_difference = max(gradient_difference, float((ours - theirs).abs().max() / theirs.abs().max()))
    of = f"CPU against {torch.cuda.get_device_name()}: {count:,} Gaussians at {size} x {size}, 3 seeds"
    # A pair whose alpha is 1/255 but for rounding counts on one side only: 1/255 of a colour, and its gradient.
    return [
        figure("splat.gpu.image_difference", image_difference, "", "colours in [0, 1]", f"largest difference; {of}"),
        figure("splat.gpu.gradient_difference", gradient_difference, "", "share of a tensor's largest gradient",
               f"largest difference over {', '.join(LEAVES)}; {of}"),
    ]  # fmt: skip


def _measure_speed(count: int, rounds: int) -> list[Figure]:
    from gsplat import rasterization

    scene = make_scene(count, HEIGHT, 0, "cuda")
    scene["Ks"][0, 0, 2] = WIDTH / 2
    leaves = {name: scene[name].requires_grad_() for name in LEAVES}
    target = torch.rand(1, HEIGHT, WIDTH, 3, device="cuda")

    def bare(scene: dict[str, Any]) -> Tensor:
        image: Tensor = rasterization(**scene, width=WIDTH, height=HEIGHT, packed=False)[0]
        return image

    def ours(scene: dict[str, Any]) -> Tensor:
        return draw(scene, WIDTH, HEIGHT)

    def image(renderer: Callable[[dict[str, Any]], Tensor]) -> None:
        with torch.no_grad():
            renderer(scene)

    parameters = list(leaves.values())
    optimizers: dict[Any, Any] = {renderer: torch.optim.Adam(parameters, lr=1e-6, fused=True) for renderer in (ours, bare)}

    def train(renderer: Callable[[dict[str, Any]], Tensor]) -> None:
        (renderer(scene) - target).abs().mean().backward()
        optimizers[renderer].step()
        optimizers[renderer].zero_grad()

    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 5):  # the first ones build kernels and warm up
        for renderer in (ours, bare):
            for work in (image, train):
                torch.cuda.synchronize()
                start = time.perf_counter()
                work(renderer)
                torch.cuda.synchronize()
                if turn >= 5:
                    times.setdefault((renderer.__name__, work.__name__), []).append(time.perf_counter() - start)
    seconds = {key: median(found) for key, found in times.items()}
    overhead = seconds["ours", "train"] / seconds["bare", "train"] - 1.0
    memory = torch.cuda.max_memory_allocated() / 1e6
    of = f"{torch.cuda.get_device_name()}, {count:,} Gaussians at {WIDTH} x {HEIGHT}, {rounds} in turns, {memory:,.0f} MB"
    return [
        figure("splat.gpu.images_per_s", 1 / seconds["ours", "image"], "1/s",
               f"bare gsplat {1 / seconds['bare', 'image']:.1f}", f"no gradients; {of}"),
        figure("splat.gpu.steps_per_s", 1 / seconds["ours", "train"], "1/s",
               f"bare gsplat {1 / seconds['bare', 'train']:.1f}", f"forward, L1, backward and fused Adam; {of}"),
        figure("splat.gpu.overhead_share", overhead, "share", "0.10 asked", f"of a bare gsplat training step; {of}"),
    ]  # fmt: skip
