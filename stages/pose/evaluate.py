"""Stage `pose.evaluate`: how good a camera path is, against the truth where there is one, and by its own checks.

Errors are those of Sturm et al. (A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012): root mean square
distance of camera centres after aligning the whole path, by a similarity (shape of the path) or by a rigid transform (which
also counts a wrong scale).
"""

from dataclasses import dataclass

import numpy as np

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Truth
from stages.contract import Progress, stage
from worldline.cameras import absolute_trajectory_error, rotation_errors


@dataclass(frozen=True)
class PoseEvaluationConfig:
    """How poses are evaluated.

    Attributes:
        min_frames: registered frames below which no error against the truth is given.
    """

    min_frames: int = 3


@stage("pose.evaluate", version=1)
def evaluate_poses(path: CameraPath, truth: Truth, config: PoseEvaluationConfig, *, seed: int, progress: Progress) -> Metrics:
    """Measure a camera path.

    Always given: `pose.registered_share`, `pose.path_length_m` or (without scale) `pose.path_length_scene_units`, and
    `pose.reprojection_error_px` where points were triangulated. Against a known path: `pose.ate_similarity_m`,
    `pose.rotation_error_deg`, and for metric paths `pose.ate_rigid_m` and `pose.scale_error_percent`.
    """
    rows = self_checks(path)
    if truth.available and path.registered.sum() >= config.min_frames and path.verdict == "moving":
        rows += errors_against(path, truth)
    progress(1, 1)
    return Metrics(figures=rows_to_table(FIGURES, sorted(rows, key=lambda row: row["name"])))


def _figure(name: str, value: float, unit: str, detail: str) -> dict[str, object]:
    return {"name": f"pose.{name}", "value": float(value), "unit": unit, "detail": detail}


def self_checks(path: CameraPath) -> list[dict[str, object]]:
    """Figures that need no truth."""
    count, registered = len(path.registered), int(path.registered.sum())
    positions = path.world_from_camera[path.registered, :3, 3]
    length = np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()
    if path.metric:
        of_scale = f"scale from {path.scale_source}, sigma {100 * path.scale_sigma:.1f} %"
        rows = [_figure("path_length_m", length, "m", of_scale)]
    else:
        rows = [_figure("path_length_scene_units", length, "scene unit", "no source of metric scale")]
    detail = f"{registered} of {count} frames, {path.verdict}"
    rows.append(_figure("registered_share", registered / max(count, 1), "share", detail))
    if path.reprojection_error_px > 0:
        rows.append(_figure("reprojection_error_px", path.reprojection_error_px, "px", "mean over the observed points"))
    return rows


def errors_against(path: CameraPath, truth: Truth) -> list[dict[str, object]]:
    """Figures against the true path, over the registered frames."""
    estimated, true = path.world_from_camera[path.registered], truth.world_from_camera[path.registered]
    length = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    against = f"{len(true)} frames against the known path of {length:.1f} m"
    if np.ptp(estimated[:, :3, 3], axis=0).max() == 0:
        return []
    similar, alignment = absolute_trajectory_error(estimated[:, :3, 3], true[:, :3, 3], with_scale=True)
    turned = np.degrees(rotation_errors(estimated[:, :3, :3], true[:, :3, :3]))
    rows = [
        _figure("ate_similarity_m", similar, "m", f"RMSE after similarity alignment, {against}"),
        _figure(
            "rotation_error_deg", turned.mean(), "deg", f"mean after aligning the axes; largest {turned.max():.2f}; {against}"
        ),
    ]
    if path.metric:
        rigid, _ = absolute_trajectory_error(estimated[:, :3, 3], true[:, :3, 3], with_scale=False)
        # alignment.scale is true metres per metre of ours: above one means that our path is too short
        rows.append(_figure("ate_rigid_m", rigid, "m", f"RMSE after rigid alignment, scale from {path.scale_source}, {against}"))
        rows.append(
            _figure(
                "scale_error_percent",
                100 * (1 / alignment.scale - 1),
                "%",
                f"our lengths over true lengths, less one; stated sigma {100 * path.scale_sigma:.1f} %; {against}",
            )
        )
    return rows
