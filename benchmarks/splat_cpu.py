"""Measure the CPU rasteriser: what is compared is taken in turns in one process, and medians are reported."""

import gc
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numba
import torch
from torch import Tensor

from benchmarks import splat_limit, splat_peer
from benchmarks.harness import Figure, figure
from benchmarks.splat_scene import SCENE, count_pairs, make_scene, project
from tasks.memory import forget_peak_memory, peak_memory
from worldline.splatting import rasterization
from worldline.splatting.compositing import Composite

COUNT, SIZE = 20_000, 256
SEEDS = (0, 1, 2)
LEAVES = ("means", "quats", "scales", "opacities", "colors")


def step(scene: dict[str, Any], upstream: Tensor, size: int) -> tuple[float, Tensor]:
    """Draw one image and take the gradient by every leaf; return the seconds and the image."""
    start = time.perf_counter()
    image = rasterization(**scene, width=size, height=size)[0][0]
    image.backward(upstream)
    return time.perf_counter() - start, image.detach()


def composite(projected: list[Tensor], upstream: Tensor, size: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Composite and take the gradient; return the seconds."""
    leaves = [tensor.detach().requires_grad_() for tensor in projected[:4]]
    start = clock()
    image, _ = Composite.apply(*leaves, *projected[4:], size, size)
    image.backward(upstream)
    return clock() - start


def with_leaves(scene: dict[str, Tensor]) -> dict[str, Any]:
    """Return the scene with fresh tensors, of which Gaussians require gradients."""
    return {name: value.clone().requires_grad_(name in LEAVES) for name, value in scene.items()}


def upstream_of(size: int) -> Tensor:
    """Return a gradient by the image."""
    return torch.randn(size, size, 3, generator=torch.Generator().manual_seed(9))


def measure_speedup(folder: Path, quick: bool) -> Sequence[Figure]:
    """Beside vectorised PyTorch with gsplat's projection and tile helpers, on all cores each.

    Our kernels have threads of their own. Torch gets one beside them, as in every fit of the engine: its others would spin.
    """
    cores = os.cpu_count() or 1
    upstream, rounds = upstream_of(SIZE), 1 if quick else 3
    ours, ours_alone, theirs_alone, difference = [], [], [], 0.0
    theirs: dict[bool, list[splat_peer.PeerTimes]] = {False: [], True: []}
    for seed in SEEDS:
        scene = make_scene(COUNT, SIZE, seed)
        projected = project(scene, SIZE)
        for _ in range(2):  # compile and warm up
            step(with_leaves(scene), upstream, SIZE)
            composite(projected, upstream, SIZE)
        for _ in range(rounds):
            for fair in (False, True):
                torch.set_num_threads(cores)
                times, image = splat_peer.step(with_leaves(scene), upstream, SIZE, fair)
                theirs[fair].append(times)
                torch.set_num_threads(1)
                taken = [step(with_leaves(scene), upstream, SIZE) for _ in range(5)]
                ours += [seconds for seconds, _ in taken]
                difference = max(difference, float((taken[0][1] - image).abs().max()))
            torch.set_num_threads(cores)
            theirs_alone.append(splat_peer.step_of_compositing(projected, upstream, SIZE))
            torch.set_num_threads(1)
            ours_alone += [composite(projected, upstream, SIZE) for _ in range(5)]
            gc.collect()
    mine, alone = median(ours), median(ours_alone)
    whole, fair_whole = (median(times.total for times in theirs[fair]) for fair in (False, True))
    parts = ", ".join(
        f"{name} {median(getattr(times, name) for times in theirs[False]):.2f} s"
        for name in ("projection", "tiles", "compositing", "backward")
    )
    of = f"{COUNT:,} Gaussians at {SIZE} x {SIZE}, forward and backward; {len(SEEDS)} seeds, medians, in turns; {cores} cores; "
    of += SCENE
    same = f"largest difference of the images {difference:.1e}"
    interpreter = "its tiles are gsplat's _isect_tiles, a loop of the interpreter over Gaussians"
    return [
        figure("splat.speedup_vs_torch", whole / mine, "x", f"60 asked; vectorised PyTorch {1000 * whole:,.0f} ms",
               f"whole step: ours {1000 * mine:.1f} ms; the peer's time is {parts}; {interpreter}; {same}; {of}"),
        figure("splat.compositing_speedup_vs_torch", median(theirs_alone) / alone, "x",
               f"vectorised PyTorch {1000 * median(theirs_alone):,.0f} ms, its tile lists not counted",
               f"compositing alone: ours {1000 * alone:.1f} ms with its lists counted; {of}"),
        figure("splat.speedup_vs_torch_vectorised_tiles", fair_whole / mine, "x",
               f"the same peer with tile lists made without a loop, {1000 * fair_whole:,.0f} ms",
               f"whole step: ours {1000 * mine:.1f} ms; the peer's tiles then take "
               f"{1000 * median(times.tiles for times in theirs[True]):.0f} ms; {of}"),
    ]  # fmt: skip


def measure_limit(folder: Path, quick: bool) -> Sequence[Figure]:
    """Beside the same arithmetic over registers, in turns."""
    torch.set_num_threads(1)
    upstream, rounds = upstream_of(SIZE), 5 if quick else 15
    shares, busy_shares, steps, alone, pairs, limits = [], [], [], [], [], []
    for seed in SEEDS:
        scene = make_scene(COUNT, SIZE, seed)
        projected = project(scene, SIZE)
        needed = count_pairs(projected, SIZE).needed
        for _ in range(2):
            composite(projected, upstream, SIZE)
            step(with_leaves(scene), upstream, SIZE)
            splat_limit.seconds_per_pair(False, 1e-3)
            splat_limit.seconds_per_pair(True, 1e-3)
        for _ in range(rounds):
            limit = [splat_limit.seconds_per_pair(backward) for backward in (False, True)]
            taken = median(composite(projected, upstream, SIZE) for _ in range(3))
            shares.append(needed * sum(limit) / taken)
            busy_shares.append(_share_of_one_core(projected, upstream, needed))
            limits.append(limit)
            alone.append(taken)
            steps.append(step(with_leaves(scene), upstream, SIZE)[0])
        pairs.append(needed)
    forward, backward = (1e9 * median(limit[part] for limit in limits) for part in (0, 1))
    threads = numba.get_num_threads()
    of = f"{COUNT:,} Gaussians at {SIZE} x {SIZE}, {median(pairs) / SIZE**2:.0f} pairs per pixel, {threads} threads; {SCENE}"
    counted = " ".join((splat_limit.__doc__ or "").split("\n\n", 1)[1].split())
    return [
        figure("splat.fraction_of_limit", median(shares), "share",
               f"0.30 asked; limit {forward:.2f} ns per pair forward, {backward:.2f} ns backward",
               f"compositing forward and backward, with sorting, listing and summing in our time; by the processor's time on one "
               f"thread, which other programs do not touch, {median(busy_shares):.2f}; {of}. {counted}"),
        figure("splat.step_ms", 1000 * median(steps), "ms", "", f"whole step forward and backward, projection included; {of}"),
        figure("splat.pairs_per_s", median(pairs) / median(alone), "1/s", "",
               f"pairs that change the image or finish a pixel; forward and backward in {1000 * median(alone):.1f} ms; {of}"),
        figure("splat.speedup_vs_cpp", None, "x", "",
               "no program that splats on a CPU could be installed from PyPI or npm; looked at: splatstream (C++ on Vulkan), "
               "gausscam (WebGPU), gaussian-renderer (gsplat), metal-gauss (Metal), splax (JAX)"),
    ]  # fmt: skip


def _share_of_one_core(projected: list[Tensor], upstream: Tensor, needed: int) -> float:
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        limit = sum(splat_limit.seconds_per_pair(backward, clock=time.process_time) for backward in (False, True))
        return needed * limit / median(composite(projected, upstream, SIZE, time.process_time) for _ in range(3))
    finally:
        numba.set_num_threads(threads)


def measure_flatness(folder: Path, quick: bool) -> Sequence[Figure]:
    """Cost per pair from 5,000 to 100,000 Gaussians, in turns."""
    torch.set_num_threads(1)
    available = numba.get_num_threads()
    ratio, told = _flatness(False, 1, quick)
    ratio_threads, told_threads = _flatness(False, available, quick)
    ratio_fixed, told_fixed = _flatness(True, 1, quick)
    return [
        figure("splat.flatness_5k_to_100k", ratio, "x", "1.3 asked",
               f"dearest over cheapest pair, one thread; as many per pixel for all, {SIZE} px at {COUNT:,}; {told}; {SCENE}"),
        figure("splat.flatness_all_threads", ratio_threads, "x", "",
               f"the same by the clock with {available} threads, of which small images make little use; {told_threads}"),
        figure("splat.flatness_fixed_image", ratio_fixed, "x", "",
               f"the same on one thread with all counts at {SIZE} x {SIZE}: at 100,000 most pairs lie behind finished pixels and "
               f"are walked past but not counted; {told_fixed}"),
    ]  # fmt: skip


def _flatness(fixed: bool, threads: int, quick: bool) -> tuple[float, str]:
    """Return the dearest over the cheapest pair, and what each count's pairs cost."""
    counts, rounds = (5_000, 20_000, 50_000, 100_000), 3 if quick else 7
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        taken: dict[int, list[float]] = {count: [] for count in counts}
        scenes = {}
        for count in counts:
            size = SIZE if fixed else round(SIZE * (count / COUNT) ** 0.5)
            projected = project(make_scene(count, size), size)
            scenes[count] = projected, upstream_of(size), size, count_pairs(projected, size)
        for _ in range(rounds + 1):
            for count, (projected, upstream, size, _) in scenes.items():
                taken[count].append(composite(projected, upstream, size))
        costs = {count: 1e9 * median(taken[count][1:]) / scenes[count][3].needed for count in counts}
    finally:
        numba.set_num_threads(before)
    of = "; ".join(f"{count:,}: {value:.2f} ns" for count, value in costs.items())
    return max(costs.values()) / min(costs.values()), f"{of} per pair forward and backward"


def measure_threads(folder: Path, quick: bool) -> Sequence[Figure]:
    """Hashes of the image and of all gradients with 1 and with 2 threads."""
    digests: dict[int, list[str]] = {1: [], 2: []}
    available = numba.get_num_threads()
    sizes = ((COUNT, SIZE), (3_000, 131)) if quick else ((COUNT, SIZE), (3_000, 131), (100_000, 573))
    # made once: torch's own sigmoid of 100,000 numbers differs in the last place of one, depending on its threads
    scenes = [(make_scene(count, size, seed), size) for count, size in sizes for seed in SEEDS]
    for threads, found in digests.items():
        numba.set_num_threads(min(threads, available))
        torch.set_num_threads(threads)
        for given, size in scenes:
            scene = with_leaves(given)
            image, alpha, _ = rasterization(**scene, width=size, height=size, render_mode="RGB+ED")
            (image.square().sum() + alpha.sum()).backward()
            hashed = hashlib.sha256(image.detach().numpy().tobytes() + alpha.detach().numpy().tobytes())
            for name in LEAVES:
                hashed.update(scene[name].grad.numpy().tobytes())
            found.append(hashed.hexdigest())
    of = f"image, alpha and the gradients by {', '.join(LEAVES)} of {len(sizes) * len(SEEDS)} scenes"
    if available < 2:
        return [figure("splat.identical_across_threads", None, "share", "1 asked", f"this machine gives numba one thread; {of}")]
    same = sum(one == two for one, two in zip(digests[1], digests[2], strict=True)) / len(digests[1])
    return [figure("splat.identical_across_threads", same, "share", "1 asked", f"bytes with 1 and with 2 threads; {of}")]


def measure_memory(folder: Path, quick: bool) -> Sequence[Figure]:
    """The most memory that one step takes above what the process held before."""
    told, peak = [], None
    for count, size in ((COUNT, SIZE), (100_000, 572)):
        scene, upstream = with_leaves(make_scene(count, size)), upstream_of(size)
        step(with_leaves(make_scene(1000, 64)), upstream_of(64), 64)  # compile
        if not forget_peak_memory():
            detail = "Linux tells a process its peak, this system does not"
            return [figure("splat.peak_memory_mb", None, "MB", "", detail)]
        before = peak_memory() / 1e6
        step(scene, upstream, size)
        after = peak_memory() / 1e6
        told.append(f"{after - before:.0f} MB for {count:,} at {size} x {size} ({after:.0f} MB with all libraries)")
        peak = after - before if peak is None else peak
    return [figure("splat.peak_memory_mb", peak, "MB", "", f"one step forward and backward, above before: {'; '.join(told)}")]
