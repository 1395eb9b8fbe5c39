"""The bench `labels`: what kinematic labels are worth under known noise, from pixels, how fast they come, and who reads them.

PandaSet is looked for as in `benchmarks.pose`; where it is absent its figures have no value and say so.
"""

from benchmarks.harness import Case, measured_by
from worldline.kinematics.noise import FITTED_KINDS

_OF_NOISE = ("distance_error_median", "within_25", "naive_error_median")
_OF_VIDEO = ("found_moving", "distance_error_median", "distance_error_mean", "speed_error_median", "kept_share")


CASES = (
    Case(
        "noise",
        (
            *(f"labels.noise.{kind}.{name}" for kind in FITTED_KINDS for name in _OF_NOISE),
            "labels.static_moving_balanced_accuracy",
            "labels.parked_speed_mps",
        ),
        measured_by("labels_noise", "measure_noise"),
    ),
    Case(
        "coverage",
        (
            *(f"labels.coverage90.{name}" for name in ("distance", "speed", "half_width")),
            *(f"labels.noise.{kind}.coverage90" for kind in FITTED_KINDS),
        ),
        measured_by("labels_noise", "measure_coverage"),
    ),
    Case("evaluator", ("labels.evaluator_right",), measured_by("labels_answers", "measure_evaluator")),
    Case("exports", ("labels.exports_loaded",), measured_by("labels_exports", "measure_exports")),
    Case(
        "throughput",
        ("labels.seconds_per_million_questions", "labels.growth_exponent"),
        measured_by("labels_throughput", "measure_throughput"),
    ),
    Case(
        "kinematics_throughput",
        ("labels.kinematics_tracks_per_s", "labels.kinematics_growth_exponent"),
        measured_by("labels_throughput", "measure_kinematics"),
    ),
    Case(
        "pandaset_video",
        tuple(f"labels.pandaset_video.{name}" for name in _OF_VIDEO),
        measured_by("labels_video", "measure_pandaset"),
        limit_s=5400.0,
        goes_on=True,
    ),
    Case(
        "worlds_video",
        tuple(f"labels.worlds_video.{name}" for name in _OF_VIDEO),
        measured_by("labels_video", "measure_worlds"),
        limit_s=4 * 3600.0,
        goes_on=True,
    ),
)
