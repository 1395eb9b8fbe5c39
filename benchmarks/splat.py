"""The bench `splat`: how fast the CPU rasteriser is, beside vectorised PyTorch and beside what the machine can do at all."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Case, Figure


def _of(module: str, function: str) -> Callable[[Path, bool], Sequence[Figure]]:
    """Return what measures a case, imported when it runs in its own process, so that listing cases needs none of it."""

    def measure(folder: Path, quick: bool) -> Sequence[Figure]:
        figures: Sequence[Figure] = getattr(importlib.import_module(f"benchmarks.{module}"), function)(folder, quick)
        return figures

    return measure


CASES = (
    Case(
        "speedup",
        ("splat.speedup_vs_torch", "splat.compositing_speedup_vs_torch", "splat.speedup_vs_torch_vectorised_tiles"),
        _of("splat_cpu", "measure_speedup"),
    ),
    Case(
        "limit",
        ("splat.fraction_of_limit", "splat.step_ms", "splat.pairs_per_s", "splat.speedup_vs_cpp"),
        _of("splat_cpu", "measure_limit"),
    ),
    Case(
        "flatness",
        ("splat.flatness_5k_to_100k", "splat.flatness_all_threads", "splat.flatness_fixed_image"),
        _of("splat_cpu", "measure_flatness"),
    ),
    Case("threads", ("splat.identical_across_threads",), _of("splat_cpu", "measure_threads")),
    Case("memory", ("splat.peak_memory_mb",), _of("splat_cpu", "measure_memory")),
    Case(
        "gpu",
        (
            "splat.gpu.image_difference",
            "splat.gpu.gradient_difference",
            "splat.gpu.images_per_s",
            "splat.gpu.steps_per_s",
            "splat.gpu.overhead_share",
        ),
        _of("splat_gpu", "measure_gpu"),
    ),
)
