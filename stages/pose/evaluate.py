"""Stage `pose.evaluate`: how good a camera path is, against the truth where there is one, and by its own checks.

Errors are those of Sturm et al. (A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012). The absolute trajectory
error is the root mean square distance of camera centres after aligning the whole path, by a similarity (shape of the path)
or by a rigid transform (which also counts a wrong scale). The relative pose error compares the motion between two frames
with the true one, and shows drift where the absolute one shows where the path ends up.

Rotations are compared twice: after the turn that fits the axes of the cameras best, and after the turn that fits their
centres best. The second is the same for a rigid transform and for a similarity (the scale drops out of Umeyama's
rotation). It is not given for straight paths, whose centres leave the roll about the line open.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath
from schemas.reports import FIGURES, Metrics
from schemas.tracks import Truth
from stages.contract import Progress, stage
from worldline.cameras import Similarity, absolute_trajectory_error, relative_pose_errors, rotation_angle, rotation_errors

_STANDING_STILL_M, _SAME_TIME_S = 1e-6, 1e-6  # less than this is rounding


@dataclass(frozen=True)
class PoseEvaluationConfig:
    """How poses are evaluated.

    Attributes:
        min_frames: registered frames below which no error against the truth is given.
        apart_s: time between the frames of the longer relative pose error; frames up to a quarter nearer or farther count.
        roll_sigma_rad: the absolute error of the centres over the width of the path (the spread across its longest direction)
            is about how uncertain the roll about the path is; above this no rotation after aligning centres is given.
    """

    min_frames: int = 3
    apart_s: float = 1.0
    roll_sigma_rad: float = 0.02


@stage("pose.evaluate", version=2)
def evaluate_poses(path: CameraPath, truth: Truth, config: PoseEvaluationConfig, *, seed: int, progress: Progress) -> Metrics:
    """Measure a camera path.

    Always given: `pose.registered_share`, `pose.path_length_m` or (without scale) `pose.path_length_scene_units`, and
    `pose.reprojection_error_px` where points were triangulated.

    Against a known path, over the registered frames: `pose.rotation_error_deg` of cameras that moved or turned. Where both
    paths move also `pose.ate_similarity_m`, `pose.rotation_error_aligned_deg` (not of straight paths), and the relative pose
    errors after a similarity `pose.rpe_frame_similarity_m` and `pose.rpe_frame_deg` from one frame to the next,
    `pose.rpe_second_similarity_m` and `pose.rpe_second_deg` over `apart_s`. For metric paths also `pose.ate_rigid_m`,
    `pose.rpe_frame_rigid_m`, `pose.rpe_second_rigid_m` and `pose.scale_error_percent`. Where the true camera stands still there
    is no scale to find, and only the rigid ones of a metric path are given.
    """
    rows = self_checks(path)
    if truth.available and path.registered.sum() >= config.min_frames and path.verdict in ("moving", "static", "rotation"):
        rows += errors_against(path, truth, config)
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


def errors_against(path: CameraPath, truth: Truth, config: PoseEvaluationConfig) -> list[dict[str, object]]:
    """Figures against the true path, over the registered frames."""
    estimated, true = path.world_from_camera[path.registered], truth.world_from_camera[path.registered]
    length = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    against = f"{len(true)} frames against the known path of {length:.1f} m"
    turned = np.degrees(rotation_errors(estimated[:, :3, :3], true[:, :3, :3]))
    about = f"mean after aligning the axes; largest {turned.max():.2f}; {against}"
    rows = [_figure("rotation_error_deg", turned.mean(), "deg", about)]
    moves = np.ptp(estimated[:, :3, 3], axis=0).max() > 0
    truly_moves = np.ptp(true[:, :3, 3], axis=0).max() > _STANDING_STILL_M
    if moves and truly_moves:
        similar, alignment = absolute_trajectory_error(estimated[:, :3, 3], true[:, :3, 3], with_scale=True)
        rows.append(_figure("ate_similarity_m", similar, "m", f"RMSE after similarity alignment, {against}"))
        if _path_width(true) * config.roll_sigma_rad > similar:
            turned = np.degrees(rotation_angle(np.swapaxes(true[:, :3, :3], -1, -2) @ alignment.rotation @ estimated[:, :3, :3]))
            about = f"mean after aligning the centres; largest {turned.max():.2f}; {against}"
            rows.append(_figure("rotation_error_aligned_deg", turned.mean(), "deg", about))
        scaled = Similarity(alignment.scale, np.eye(3), np.zeros(3)).poses(estimated)
        for name, apart, translation_m, rotation_rad in relative_errors(path, scaled, true, config):
            rows.append(_figure(f"{name}_similarity_m", translation_m, "m", f"RMSE of the translation {apart}, scale aligned"))
            rows.append(_figure(f"{name}_deg", np.degrees(rotation_rad), "deg", f"RMSE of the rotation {apart}"))
        if path.metric and alignment.scale > 0:
            # alignment.scale is true metres per metre of ours: above one means that our path is too short
            stated = f"stated sigma {100 * path.scale_sigma:.1f} %; {against}"
            about = f"our lengths over true lengths, less one; {stated}"
            rows.append(_figure("scale_error_percent", 100 * (1 / alignment.scale - 1), "%", about))
    if moves and path.metric:
        rigid, _ = absolute_trajectory_error(estimated[:, :3, 3], true[:, :3, 3], with_scale=False)
        rows.append(_figure("ate_rigid_m", rigid, "m", f"RMSE after rigid alignment, scale from {path.scale_source}, {against}"))
        for name, apart, translation_m, _ in relative_errors(path, estimated, true, config):
            about = f"RMSE of the translation {apart}, scale from {path.scale_source}"
            rows.append(_figure(f"{name}_rigid_m", translation_m, "m", about))
    return rows


def _path_width(poses: np.ndarray) -> float:
    """Root mean square spread of camera centres in the second of their principal directions; 0 for a straight path."""
    centred = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False) / np.sqrt(len(poses))
    return float(spread[1]) if spread[1] > 1e-9 * spread[0] else 0.0


def relative_errors(
    path: CameraPath, estimated: np.ndarray, true: np.ndarray, config: PoseEvaluationConfig
) -> Iterator[tuple[str, str, float, float]]:
    """Yield relative pose errors over one frame and over `apart_s`, where there are registered frames so far apart.

    Args:
        path: whose frames they are.
        estimated: poses `[R, 4, 4]` of the registered frames, in metres.
        true: the same.
        config: how far apart.

    Yields:
        Name of the figure, how far apart in words, and root mean squares of translation (metres) and rotation (radians).
    """
    frame = np.flatnonzero(path.registered)
    next_frame = np.flatnonzero(np.diff(frame) == 1)
    times_s = path.times_s[frame]
    later_s = times_s + config.apart_s
    after = np.clip(np.searchsorted(times_s, later_s), 1, len(frame) - 1)
    nearest = after - (later_s - times_s[after - 1] < times_s[after] - later_s)
    # up to the end of the path, or its last frame would stand for many that are missing
    known = (np.abs(times_s[nearest] - later_s) <= 0.25 * config.apart_s) & (later_s < times_s[-1] + _SAME_TIME_S)
    here = np.flatnonzero(known & (nearest > np.arange(len(frame))))
    for name, apart, first, second in (
        ("rpe_frame", "to the next frame", next_frame, next_frame + 1),
        ("rpe_second", f"over {config.apart_s:g} s", here, nearest[here]),
    ):
        if len(first):
            translation, rotation = relative_pose_errors(estimated, true, first, second)
            pairs = f"{apart}, {len(first)} pairs"
            yield name, pairs, float(np.sqrt(np.mean(translation**2))), float(np.sqrt(np.mean(rotation**2)))
