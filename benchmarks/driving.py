"""The bench `driving`: what generated views of trajectories that nobody drove are worth, on streets that no model has seen."""

from benchmarks.harness import Case, measured_by

ARMS = ("original", "unpaired", "cousin", "oracle")
_OF_ARMS = tuple(
    f"driving.{arm}.{name}" for arm in ARMS for name in ("nta_iou", "ntl_iou_lane", "novel_psnr_db", "original_psnr_db")
)
_WITH_INTERVAL = tuple(
    f"driving.{name}{end}" for name in ("nta_gap_closed", "novel_psnr_gap_closed") for end in ("", ".low", ".high")
)

CASES = (
    Case(
        "streets",
        (
            *_OF_ARMS, *_WITH_INTERVAL, "driving.boxes", "driving.layouts", "driving.novel_psnr_gain_db",
            "driving.original_psnr_change_db", "driving.detector_ceiling", "driving.condition_obedience_m",
        ),
        measured_by("driving_streets", "measure"),
        limit_s=7200.0,
    ),
    Case(
        "pandaset",
        tuple(
            f"driving.pandaset.{arm}.{name}"
            for arm in ("original", "cousin")
            for name in ("heldout_psnr_db", "lidar_depth_error_m")
        ),
        measured_by("driving_pandaset", "measure"),
        limit_s=7200.0,
    ),
)  # fmt: skip
