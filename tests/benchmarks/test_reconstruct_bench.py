import importlib
import inspect

import numpy as np
import pytest

from benchmarks import reconstruct, reconstruct_fits
from benchmarks.harness import choose_cases

SCORES = ("psnr_db", "ssim", "gms", "dynamic_psnr_db", "dynamic_gms")


def results(seeds: int = 3) -> dict[str, list[dict]]:
    """Made-up scores: method m, seed s scores 10 m + s, and 5 less at held-out times."""

    def fit(level: float) -> dict:
        scores = {split: dict.fromkeys(SCORES, level - 5 * late) for late, split in enumerate(reconstruct_fits.HELD_OUT)}
        return (
            scores
            | {"seconds": level, "cpu_seconds": level, "angle_deg": level, "ratio": level / 100}
            | {"drawn": {"angle_deg": level, "ratio": level / 100}}
        )

    return {m: [fit(10 * k + seed * (1 + k)) for seed in range(seeds)] for k, m in enumerate(reconstruct_fits.METHODS)}


def values(scene: str, protocol: str, seeds: int = 3) -> dict[str, float]:
    return {row["id"]: row["value"] for row in reconstruct_fits.figures(scene, protocol, results(seeds))}


def test_gains_are_medians_of_the_differences_seed_by_seed():
    found = values("bounce", "mono")
    # static scores 0, 1, 2; per-frame 10, 12, 14; Gaussian-Flow 20, 23, 26; native 4D 30, 34, 38
    assert found["reconstruct.bounce.mono.gaussian_flow.dynamic_gain_over_static_db"] == 22
    assert found["reconstruct.bounce.mono.native_4d.heldout_time_gain_over_per_frame_db"] == 22
    assert found["reconstruct.bounce.mono.native_4d.psnr_db"] == 34
    assert found["reconstruct.bounce.mono.native_4d.heldout_time_psnr_db"] == 29


@pytest.mark.parametrize("case", [case for case in reconstruct.CASES if case.name.endswith((".multi", ".mono"))])
def test_a_world_answers_for_every_figure_that_its_case_names(case):
    scene, protocol = case.name.split(".")
    found = values(scene, protocol, seeds=1)
    assert set(case.ids) <= set(found)
    assert all(np.isfinite(list(found.values())))


def test_what_the_issue_asks_for_is_in_the_bench():
    ids = {id for case in reconstruct.CASES for id in case.ids}
    for scene in ("bounce", "appear"):
        for protocol in ("multi", "mono"):
            for model in ("gaussian_flow", "native_4d"):
                for kind in ("dynamic_gain_over_static_db", "heldout_time_gain_over_per_frame_db", "psnr_db", "seconds"):
                    assert f"reconstruct.{scene}.{protocol}.{model}.{kind}" in ids
    assert {"reconstruct.appear.native_4d_over_gaussian_flow_db", "reconstruct.bounce.velocity_angle_deg"} <= ids
    assert {"reconstruct.bounce.velocity_ratio", "formats.worst_lossless_drop_db"} <= ids


def test_every_case_can_be_chosen_alone_and_is_there():
    for case in reconstruct.CASES:
        assert case in choose_cases("reconstruct", f"reconstruct.{case.name}")
    for module, function in (("streets", "measure"), ("surfels", "measure_arm"), ("formats", "measure_formats")):
        assert inspect.isfunction(getattr(importlib.import_module(f"benchmarks.reconstruct_{module}"), function))
