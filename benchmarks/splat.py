"""The bench `splat`: how fast the CPU rasteriser is, beside vectorised PyTorch and beside what the machine can do at all."""

from benchmarks.harness import Case, measured_by

CASES = (
    Case(
        "speedup",
        ("splat.speedup_vs_torch", "splat.compositing_speedup_vs_torch", "splat.speedup_vs_torch_vectorised_tiles"),
        measured_by("splat_cpu", "measure_speedup"),
    ),
    Case(
        "limit",
        ("splat.fraction_of_limit", "splat.step_ms", "splat.pairs_per_s", "splat.speedup_vs_cpp"),
        measured_by("splat_cpu", "measure_limit"),
    ),
    Case(
        "flatness",
        ("splat.flatness_5k_to_100k", "splat.flatness_all_threads", "splat.flatness_fixed_image"),
        measured_by("splat_cpu", "measure_flatness"),
    ),
    Case("threads", ("splat.identical_across_threads",), measured_by("splat_cpu", "measure_threads")),
    Case("memory", ("splat.peak_memory_mb",), measured_by("splat_cpu", "measure_memory")),
    Case(
        "gpu",
        (
            "splat.gpu.image_difference",
            "splat.gpu.gradient_difference",
            "splat.gpu.images_per_s",
            "splat.gpu.steps_per_s",
            "splat.gpu.overhead_share",
        ),
        measured_by("splat_gpu", "measure_gpu"),
    ),
)
