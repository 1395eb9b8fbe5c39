"""The bench `driving`: what generated views of trajectories that nobody drove are worth, on streets that no model has seen."""

from benchmarks.harness import Case, measured_by

ARMS = ("original", "unpaired", "cousin", "oracle")
SPEED_PARTS = (
    "street", "reading", "trajectory", "conditions", "scene_prior", "generating", "cousin_fit", "drawing", "labelling",
    "detector",
)  # fmt: skip
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
        (
            *(
                f"driving.pandaset.{arm}.{name}"
                for arm in ("original", "cousin")
                for name in ("heldout_psnr_db", "lidar_depth_error_m", "nta_iou", "ntl_iou_lane")
            ),
            "driving.pandaset.condition_obedience_m",
        ),
        measured_by("driving_pandaset", "measure"),
        limit_s=7200.0,
    ),
    Case(
        "speed",
        (
            *(f"driving.speed.{part}.{name}" for part in SPEED_PARTS for name in ("frames_per_second", "peak_memory_mb")),
            "driving.speed.cousin_fit.steps_per_second",
        ),
        measured_by("driving_speed", "measure"),
        limit_s=1800.0,
    ),
)  # fmt: skip
