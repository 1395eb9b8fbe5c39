"""The bench of driving: every figure that it promises is reported, and what nobody could judge says so."""

import pytest

from benchmarks import driving
from benchmarks.driving_pandaset import DETECTOR, _judged
from benchmarks.driving_speed import Ledger, Spent, figures
from benchmarks.harness import choose_cases


def made_up(*left_out: str) -> Ledger:
    """A run in which every part took 2 s for 40 frames, and the fit 100 steps."""
    spent = {part: Spent(40, 2.0, 3.0, 500.0, 700.0, 0.0) for part in driving.SPEED_PARTS if part not in left_out}
    alone = {"generating": (1.6, 3.1, "the network alone"), "cousin_fit": (1.25, 2.4, "the rasteriser alone")}
    return Ledger(spent, alone, 100, 4)


def test_what_the_speed_case_promises_is_what_it_reports():
    promised = next(case for case in driving.CASES if case.name == "speed").ids
    assert sorted(row["id"] for row in figures(made_up())) == sorted(promised)


def test_rates_are_frames_of_the_log_per_second_and_stand_beside_their_main_computation():
    found = {row["id"]: row for row in figures(made_up())}
    generating = found["driving.speed.generating.frames_per_second"]
    assert (generating["value"], generating["unit"]) == (20.0, "1/s")
    assert "the network alone 25 (3.1 s CPU)" in generating["compared_with"]
    assert found["driving.speed.generating.peak_memory_mb"]["value"] == 700.0
    steps = found["driving.speed.cousin_fit.steps_per_second"]
    assert steps["value"] == 50.0
    assert "the rasteriser alone 80" in steps["compared_with"]


def test_a_log_that_is_not_at_hand_has_figures_that_say_so():
    found = {row["id"]: row for row in figures(made_up("reading"))}
    row = found["driving.speed.reading.frames_per_second"]
    assert row["value"] is None
    assert row["detail"].startswith("not run: there is no")


def test_filmed_streets_are_judged_by_a_named_detector_alone():
    assert _judged("x", [], "of 1", "", "")["value"] is None
    assert DETECTOR in _judged("x", [], "of 1", "", "")["detail"]
    told = _judged("x", [0.4, 0.6], "of 1", "PekingU/rtdetr_v2_r18vd", "PandaSet 002")
    assert told["value"] == pytest.approx(0.5)
    assert "PekingU/rtdetr_v2_r18vd" in told["detail"]


@pytest.mark.parametrize("arm", ["original", "cousin"])
def test_what_the_issue_asks_of_pandaset_is_in_the_bench(arm):
    ids = {id for case in choose_cases("driving", "driving.pandaset") for id in case.ids}
    asked = ("heldout_psnr_db", "lidar_depth_error_m", "nta_iou", "ntl_iou_lane")
    assert {f"driving.pandaset.{arm}.{name}" for name in asked} <= ids
