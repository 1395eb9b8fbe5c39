"""Fit the small worlds with every method, beside two that know nothing of motion, and measure all on what was held out.

The methods: `static` (one set of Gaussians for all times), `per_frame` (one set for every time that was filmed, together as many
steps as the others take; at a time between two, the nearer one, at a tie the earlier), and the motion models. All start from the
same number of random Gaussians in the scene's box and see the same pictures.

Every fit runs in a process of its own with one torch and one numba thread, two at a time.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.harness import Figure, figure

SIZE = 128  # pixels, width and height
GAUSSIANS = 10_000
STEPS = 3000
SEEDS = (0, 1, 2)
MOTION_MODELS = ("gaussian_flow", "native_4d")
METHODS = ("static", "per_frame", *MOTION_MODELS)
RECOMMENDED = "gaussian_flow"  # whose velocities the engine takes for labels
HELD_OUT = ("heldout_views", "heldout_times")


@dataclass(frozen=True)
class Fit:
    """One fit to make: which world, filmed how, with which method and seed."""

    scene: str
    protocol: str
    method: str
    seed: int


# -- one fit, in a process of its own ------------------------------------------------------------------------------------


def run_fit(fit: Fit) -> dict[str, Any]:
    """Fit and measure.

    Returns:
        `seconds` and `cpu_seconds` of the fit alone; for each held-out split the mean scores; for motion models the velocity
        error on held-out cameras at trained times as `angle_deg` and `ratio`, and as `drawn` that of the scene flow.
    """
    from stages.reconstruct.evaluation import compare_drawn_velocities, compare_velocities, join_scores, score_views
    from stages.reconstruct.views import choose_views
    from worldline.worlds.protocols import capture

    film = capture(fit.scene, fit.protocol, size=SIZE, seed=fit.seed, split="train")
    views = _views(film)
    _warm_up(views, fit.method, film.background)
    wall, cpu = time.perf_counter(), time.process_time()
    if fit.method == "per_frame":
        scenes = _fit_frames(views, film.background, fit.seed)
    else:
        scenes = [(0.5, _fit(views, fit.method, STEPS, film.background, fit.seed))]
    found: dict[str, Any] = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    moments = np.array([moment for moment, _ in scenes])
    for split in HELD_OUT:
        film = capture(fit.scene, fit.protocol, size=SIZE, seed=fit.seed, split=split)
        held_out = _views(film)
        nearest = np.abs(held_out.times[:, None] - moments).round(9).argmin(axis=1)
        chosen = [(scenes[k][1], choose_views(held_out, np.flatnonzero(nearest == k))) for k in np.unique(nearest)]
        found[split] = join_scores([score_views(scene, part) for scene, part in chosen]).means()
        if fit.method in MOTION_MODELS and split == "heldout_views":
            found |= dataclasses.asdict(compare_velocities(scenes[0][1], held_out, film.velocities))
            found["drawn"] = dataclasses.asdict(compare_drawn_velocities(scenes[0][1], held_out, film.velocities))
    return found


def _views(film: Any) -> Any:
    from stages.reconstruct.views import Views

    count = len(film.times)
    return Views(
        film.images, film.instances, film.camera_from_world, film.intrinsics, film.times, np.arange(count), depths=film.depths
    )  # fmt: skip


def _fit(views: Any, model: str, steps: int, background: np.ndarray, seed: int) -> Any:
    from stages.reconstruct.fitting import fit_scene
    from stages.reconstruct.seeding import random_seeds
    from stages.reconstruct.settings import FitSettings
    from worldline.worlds.toys import HIGH, LOW

    # A random start is mostly in the wrong place: more of it moves than where a fit begins on known points, and opacity is free.
    # A short fit grows as often in its life as a long one, but not so often that nothing settles in between.
    settings = FitSettings(
        steps=steps, relocate_share=0.1, opacity_weight=0.0, grow_every=max(10, steps // 40), final_place_rate=0.01
    )
    seeds = random_seeds(LOW, HIGH, GAUSSIANS, np.random.default_rng([seed, 1]))
    every, none = np.arange(len(views.times)), np.zeros(0, np.int64)
    return fit_scene(views, seeds, model, settings, training=every, validation=none, background=background, seed=seed)


def _fit_frames(views: Any, background: np.ndarray, seed: int) -> list[tuple[float, Any]]:
    """Fit each time that was filmed by itself, with its share of the steps."""
    from stages.reconstruct.views import choose_views

    moments = np.unique(views.times)
    steps = [len(part) for part in np.array_split(np.arange(STEPS), len(moments))]
    return [
        (float(moment), _fit(choose_views(views, np.flatnonzero(views.times == moment)), "static", share, background, seed))
        for moment, share in zip(moments, steps, strict=True)
    ]


def _warm_up(views: Any, method: str, background: np.ndarray) -> None:
    """Compile what a fit needs, which is done once on a machine and no part of a fit."""
    from stages.reconstruct.views import choose_views

    _fit(choose_views(views, np.arange(2)), "static" if method == "per_frame" else method, 12, background, 0)


# -- one case: a world, filmed one way, all methods and seeds ------------------------------------------------------------


def measure(scene: str, protocol: str, quick: bool) -> list[Figure]:
    """Fit with all methods and seeds (quick: one) and return the figures of this world filmed this way."""
    seeds = SEEDS[:1] if quick else SEEDS
    fits = [Fit(scene, protocol, method, seed) for method in METHODS for seed in seeds]
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for number, (fit, found) in enumerate(zip(fits, run_fits(fits), strict=True), 1):
        results[fit.method].append(found)
        told = f"{found['heldout_views']['psnr_db']:.2f} dB, {found['heldout_times']['psnr_db']:.2f} dB at held-out times"
        print(f"  fit {number}/{len(fits)}: {fit.method} {scene} {protocol} seed {fit.seed}: {told}", file=sys.stderr, flush=True)
    return figures(scene, protocol, results)


def run_fits(fits: Sequence[Fit]) -> Iterator[dict[str, Any]]:
    """Run fits in processes of one thread each, two at a time, and yield their results in order."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ |= limits  # what the processes are started with; this one computes nothing
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        yield from pool.map(run_fit, fits)


def figures(scene: str, protocol: str, results: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Return medians over the seeds; differences of methods are taken seed by seed."""
    name = f"reconstruct.{scene}.{protocol}"
    seeds = len(results["static"])
    of = f"{SIZE} px, {GAUSSIANS} Gaussians, {STEPS} steps"

    def scores(method: str, split: str, score: str) -> np.ndarray:
        return np.array([found[split][score] for found in results[method]])

    def row(suffix: str, values: np.ndarray, unit: str, compared_with: str, what: str) -> Figure:
        spread = ", ".join(f"{value:.2f}" for value in values)
        median = f"median of {seeds} seeds ({spread})" if seeds > 1 else "one seed"
        return figure(f"{name}.{suffix}", float(np.median(values)), unit, compared_with, f"{what}; {median}; {of}")

    rows = []
    for model in MOTION_MODELS:
        views, static = (scores(who, "heldout_views", "dynamic_psnr_db") for who in (model, "static"))
        rows.append(
            row(f"{model}.dynamic_gain_over_static_db", views - static, "dB", f"static {np.median(static):.2f} dB; 3 asked",
                "dynamic region, held-out cameras at trained times")
        )  # fmt: skip
        for score, kind, region in (("psnr_db", "", "whole image"), ("dynamic_psnr_db", "dynamic_", "dynamic region")):
            asked = _ASKED.get((protocol, kind))
            own, frames = (scores(who, "heldout_times", score) for who in (model, "per_frame"))
            rows.append(row(f"{model}.heldout_time_{kind}gain_over_per_frame_db", own - frames, "dB",
                            f"per-frame {np.median(frames):.2f} dB" + (f"; {asked} asked" if asked else ""),
                            f"{region}, held-out cameras half way between trained times; as many steps in all"))  # fmt: skip
        seconds = np.array([found["seconds"] for found in results[model]])
        busy = np.median([found["cpu_seconds"] for found in results[model]])
        rows.append(row(f"{model}.seconds", seconds, "s", "180 s on two cores asked",
                        f"one fit on one thread, another beside it on the second core; {busy:.0f} s of processor"))  # fmt: skip
    rows += _absolute(row, results)
    rows += _velocities(scene, protocol, results, row)
    if scene == "appear":
        better, later = (scores("native_4d", split, "psnr_db") - scores("gaussian_flow", split, "psnr_db") for split in HELD_OUT)
        told = f"whole image, held-out cameras at trained times, {protocol}; half way between them {np.median(later):+.2f} dB"
        above = row("native_4d_over_gaussian_flow_db", better, "dB", "more than 0 asked", told)
        if protocol == "multi":  # the figure has no protocol in its name
            above["id"] = f"reconstruct.{scene}.native_4d_over_gaussian_flow_db"
        rows.append(above)
    return rows


# Gains in dB at held-out times that the engine asks of itself, by protocol and region.
_ASKED = {("multi", ""): 1.5, ("multi", "dynamic_"): 0.4, ("mono", ""): 8.0, ("mono", "dynamic_"): 2.0}


def _absolute(row: Any, results: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Return what each method scores by itself."""
    rows = []
    for method, split in ((method, split) for method in METHODS for split in HELD_OUT):
        kind = "" if split == "heldout_views" else "heldout_time_"
        where = "held-out cameras at " + ("trained times" if split == "heldout_views" else "times half way between trained ones")
        for score, unit, what in (
            ("psnr_db", "dB", "PSNR, whole image"), ("dynamic_psnr_db", "dB", "PSNR, dynamic region"), ("ssim", "", "SSIM"),
            ("gms", "", "gradient-magnitude similarity"), ("dynamic_gms", "", "gradient-magnitude similarity, dynamic region"),
        ):  # fmt: skip
            values = np.array([found[split][score] for found in results[method]])
            rows.append(row(f"{method}.{kind}{score}", values, unit, "", f"{what}, {where}"))
    return rows


def _velocities(scene: str, protocol: str, results: dict[str, list[dict[str, Any]]], row: Any) -> list[Figure]:
    """Return how `velocity_at` compares with the true surfaces that held-out cameras see."""
    rows = []
    for model in MOTION_MODELS:
        for key, unit, asked, what in (
            ("angle_deg", "degrees", "20 asked", "median angle to the true velocity"),
            ("ratio", "", "0.75 to 1.25 asked", "median speed over the true one"),
        ):
            found = np.array([each[key] for each in results[model]])
            drawn = np.array([each["drawn"][key] for each in results[model]])
            told = f"{what}, nearest Gaussian to each surface point of movers, {protocol}, {model}"
            rows.append(row(f"{model}.velocity_{key}", found, unit, asked, told))
            rows.append(
                row(f"{model}.drawn_velocity_{key}", drawn, unit, "", f"{what}, velocities splatted, {protocol}, {model}")
            )
            if scene == "bounce" and protocol == "multi" and model == RECOMMENDED:
                told += f" (recommended for velocities); splatted instead {np.median(drawn):.2f}"
                answer = row(f"{model}.velocity_{key}", found, unit, asked, told)
                answer["id"] = f"reconstruct.bounce.velocity_{key}"
                rows.append(answer)
    return rows
