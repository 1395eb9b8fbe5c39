"""What the bench says of audits, on hand-made windows: the asked figures, and the whole curve."""

import numpy as np
import pytest

from benchmarks.labels import CASES
from benchmarks.labels_video import LIGHT, QUICK_WORLDS, WORLDS, video_figures
from flows.building import run_flow
from schemas.artifact import rows_to_table
from schemas.audits import AUDITED_OBJECTS, AUDITED_WINDOWS, LabelAudit


def window(distance, sigma, rejected=None, true=10.0):
    row = dict.fromkeys(AUDITED_WINDOWS.names) | {"track_id": 1, "start_s": 0.0, "end_s": 2.0, "truth_id": 1, "class_name": "car"}
    low, high = distance * (1 - 1.645 * sigma), distance * (1 + 1.645 * sigma)
    row |= {"range_m": 15.0, "track_seconds": 4.0, "state": "moving", "rejected": rejected, "true_distance_m": true}
    return row | {"distance_p5_m": low, "distance_p50_m": distance, "distance_p95_m": high} | {
        f"{name}_distance_m": distance for name in ("smoothing", "pose", "tracking")
    }  # fmt: skip


def mover(identity, found):
    values = (identity, "mover", "car", 15.0, 5.0, 4.0, found, found)
    return dict(zip(AUDITED_OBJECTS.names, values, strict=True))


def test_the_asked_figures_are_those_of_the_kept_windows_and_the_curve_goes_on_beyond_them():
    rows = [window(11.0, 0.01), window(12.0, 0.02), window(8.5, 0.03), window(40.0, 0.5, rejected="uncertain")]
    objects = rows_to_table(AUDITED_OBJECTS, [mover(1, True), mover(2, False)])
    audit = LabelAudit(rows_to_table(AUDITED_WINDOWS, rows), objects, "gps")
    told = {item["id"]: item for item in video_figures("labels.pandaset_video", [audit], "toys")}
    value = {name.removeprefix("labels.pandaset_video."): item["value"] for name, item in told.items()}
    assert value["found_moving"] == 1
    assert told["labels.pandaset_video.found_moving"]["compared_with"] == "half of 2 asked"
    assert value["distance_error_median"] == pytest.approx(0.15)
    assert value["distance_error_mean"] == pytest.approx(0.15)
    assert value["kept_share"] == pytest.approx(0.75)
    curve = [value[f"risk_coverage.{percent:03d}"] for percent in (20, 50, 80, 100)]
    assert curve == pytest.approx([0.1, 0.15, 0.15, 0.175])
    assert value["aurc"] == pytest.approx(np.mean([0.1, 0.15, 0.15, (0.45 + 3.0) / 4]))


def test_every_figure_that_a_case_answers_for_is_told_even_where_nothing_was_found():
    audit = LabelAudit(AUDITED_WINDOWS.empty_table(), rows_to_table(AUDITED_OBJECTS, [mover(1, False)]), "none")
    for case in CASES:
        if case.name.endswith("_video"):
            told = {item["id"]: item["value"] for item in video_figures(f"labels.{case.name}", [audit], "toys")}
            assert set(case.ids) <= set(told)
            assert told[f"labels.{case.name}.found_moving"] == 0
            assert told[f"labels.{case.name}.distance_error_median"] is None


def test_the_clips_of_the_bench_are_planned_by_the_flow_as_they_stand(tmp_path):
    assert len(set(WORLDS)) == 10
    assert set(QUICK_WORLDS) <= set(WORLDS)
    layout, seed = WORLDS[0]
    settings = (f"name={layout}_{seed}", f"source=world:{layout}", f"seed={seed}", *LIGHT)
    planned = run_flow("pseudo_labels", settings, tmp_path, explain=True)
    stages = [decision["stage"] for decision in planned["decisions"]]
    assert "reconstruct.static" in stages
    assert "label.evaluate" in stages
