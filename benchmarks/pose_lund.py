"""Photos of a walk down a street in Lund (OpenSfM's example data), each with the phone's GPS position."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.pose import real_data
from benchmarks.pose_placing import place_in_world
from schemas.cameras import CameraPath
from schemas.clips import Clip
from stages.contract import no_progress
from stages.ingest.frames import FramesConfig, ingest_frames
from stages.ingest.source import describe_source
from stages.pose.colmap import ColmapConfig, solve_camera_path
from stages.pose.scale_from_travel import east_north_up
from worldline.cameras import Similarity, umeyama


def gps_residuals(clip: Clip, path: CameraPath) -> np.ndarray:
    """Return the horizontal distances in metres from the fixes to the registered cameras, laid over them by a similarity.

    The path must have its z against gravity. Fixes are taken at the times of the photos.
    """
    assert clip.gps is not None
    columns = [clip.gps.column(name).to_numpy(zero_copy_only=False) for name in ("latitude_deg", "longitude_deg", "altitude_m")]
    fixes = east_north_up(*(np.nan_to_num(np.asarray(column, np.float64)) for column in columns))
    of_fix = np.searchsorted(clip.times_s, clip.gps.column("time_s").to_numpy())
    here = path.registered[of_fix]
    source, target = path.world_from_camera[of_fix[here], :2, 3], fixes[here, :2]
    return np.linalg.norm(target - robust_similarity(source, target).points(source), axis=1)


def robust_similarity(source: np.ndarray, target: np.ndarray) -> Similarity:
    """Fit the similarity from points `[N, 2]` to `[N, 2]` with Huber weights at 1.345 robust standard deviations."""
    weights = np.ones(len(source))
    for _ in range(20):
        alignment = umeyama(source, target, weights=weights)
        residual = np.linalg.norm(target - alignment.points(source), axis=1)
        limit = 1.345 * max(float(np.median(residual)) / 1.1774, 1e-6)  # median of Rayleigh's distribution
        weights = np.minimum(1.0, limit / np.maximum(residual, 1e-12))
    return alignment


def measure_photos(folder: Path, quick: bool) -> Sequence[Figure]:
    """Solve the photos without calibration, and lay the cameras over their GPS positions."""
    source = describe_source(real_data("opensfm_lund") / "images")
    clip, _ = ingest_frames(source, FramesConfig(), seed=0, progress=no_progress)
    started = time.perf_counter()
    path, points = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    seconds = time.perf_counter() - started
    world = place_in_world(clip, path, points)[0]
    count, placed = len(clip.frames), int(path.registered.sum())
    of = f"{count} photos over {clip.times_s[-1]:.0f} s; {path.strategy}; {seconds:.0f} s"
    focal, k1 = path.intrinsics[0, 0], path.distortion[0]
    of += f"; focal length {focal:.0f} px, k1 {k1:.3f}; reprojection error {path.reprojection_error_px:.2f} px"
    figures = [figure("pose.lund.registered", placed, "photos", f"{count} asked", of)]
    if placed >= 3:
        residuals = gps_residuals(clip, world)
        spread = f"90 % within {np.quantile(residuals, 0.9):.1f} m; horizontal; scale from {world.scale_source}, "
        spread += f"stated sigma {100 * world.scale_sigma:.1f} %"
        figures.append(figure("pose.lund.gps_residual_m", float(np.median(residuals)), "m", "a phone's GPS: 3 to 5 m",
                              f"median; {spread}; {of}"))  # fmt: skip
    return figures
