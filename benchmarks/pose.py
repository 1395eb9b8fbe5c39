"""The bench `pose`: camera paths, calibration and metric scale on real footage and on worlds whose truth is known.

Real data (a PandaSet scene, the street of OpenSfM) is looked for in `../shared/data` or in `$WORLDLINE_DATA`; where it is
absent its figures have no value and say so.
"""

import os
from pathlib import Path

from benchmarks.harness import ROOT, Case, measured_by


def real_data(name: str) -> Path:
    """Return a folder of real data.

    Raises:
        FileNotFoundError: if it is not here, saying where it was looked for.
    """
    folder = Path(os.environ.get("WORLDLINE_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not here: set WORLDLINE_DATA to the folder that holds {name}")
    return folder


_PANDASET = (
    "registered_share",
    "ate_cm_known_intrinsics",
    "ate_cm_estimated_intrinsics",
    "scale_error_gps",
    "scale_error_camera_height",
    "seconds",
    "peak_memory_mb",
    "identical_again",
)

_MOVERS = ("mover_recall", "mover_precision", *(f"mover_recall.{direction}" for direction in ("away", "oncoming", "crossing")))

CASES = (
    Case("pandaset", tuple(f"pose.pandaset.{name}" for name in _PANDASET), measured_by("pose_pandaset", "measure_path")),
    Case("movers", tuple(f"pose.pandaset.{name}" for name in _MOVERS), measured_by("pose_movers", "measure_movers")),
    Case(
        "long",
        tuple(f"pose.long.{name}" for name in ("registered_share", "ate_cm", "seconds", "colmap_peak_memory_mb")),
        measured_by("pose_pandaset", "measure_long"),
        limit_s=7200.0,
    ),
    Case("lund", ("pose.lund.registered", "pose.lund.gps_residual_m"), measured_by("pose_lund", "measure_photos")),
    Case(
        "worlds",
        ("pose.worlds.ate_ratio_with_masks", "pose.worlds.worst_ratio"),
        measured_by("pose_worlds", "measure_masks"),
        limit_s=7200.0,
    ),
    Case("degenerate", ("pose.degenerate.right_verdicts",), measured_by("pose_degenerate", "measure_verdicts")),
)
