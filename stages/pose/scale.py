"""Metric scale of a camera path from GPS positions, GPS speed and a known camera height, fused by inverse variance."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.cameras import CameraPath
from worldline.cameras import Similarity, interpolate_poses, umeyama

_WGS84_A, _WGS84_E2 = 6378137.0, 6.69437999014e-3
_RAYLEIGH_MEDIAN = 1.1774  # median length of a planar error of unit standard deviation per axis


@dataclass(frozen=True)
class ScaleConfig:
    """How trustworthy the sources of scale are.

    Attributes:
        gps_sigma_m: least horizontal standard deviation of a GPS position against its neighbours in time.
        gps_speed_sigma_mps: least standard deviation of a GPS speed.
        gps_correlation_s: GPS errors closer in time than this are taken as the same error.
        speed_correlation_s: the same for GPS speed.
        speed_window_s: time over which the camera's own speed is measured, to compare with GPS speed.
        camera_height_sigma: relative standard deviation of a camera height given without one.
        max_sigma: an estimate with a larger relative standard deviation is refused.
    """

    gps_sigma_m: float = 0.1
    gps_speed_sigma_mps: float = 0.1
    gps_correlation_s: float = 10.0
    speed_correlation_s: float = 2.0
    speed_window_s: float = 0.6
    camera_height_sigma: float = 0.05
    max_sigma: float = 0.2


@dataclass(frozen=True)
class ScaleEstimate:
    """Metres per unit of the path, its relative standard deviation, and the source ("gps", "camera_height")."""

    scale: float
    sigma: float
    source: str


def east_north_up(latitude_deg: np.ndarray, longitude_deg: np.ndarray, altitude_m: np.ndarray) -> np.ndarray:
    """Convert WGS84 fixes to local east, north, up metres `[N, 3]` about the first one."""
    lat, lon = np.radians(latitude_deg), np.radians(longitude_deg)
    curvature = _WGS84_A / np.sqrt(1 - _WGS84_E2 * np.sin(lat) ** 2)
    ecef = np.stack(
        [
            (curvature + altitude_m) * np.cos(lat) * np.cos(lon),
            (curvature + altitude_m) * np.cos(lat) * np.sin(lon),
            (curvature * (1 - _WGS84_E2) + altitude_m) * np.sin(lat),
        ],
        axis=1,
    )
    sl, cl, so, co = np.sin(lat[0]), np.cos(lat[0]), np.sin(lon[0]), np.cos(lon[0])
    enu_from_ecef = np.array([[-so, co, 0.0], [-sl * co, -sl * so, cl], [cl * co, cl * so, sl]])
    return (ecef - ecef[0]) @ enu_from_ecef.T


def robust_similarity(source: np.ndarray, target: np.ndarray, iterations: int = 20) -> Similarity:
    """Fit the similarity from points `[N, 2]` to `[N, 2]` with Huber weights at 1.345 robust standard deviations."""
    weights = np.ones(len(source))
    for _ in range(iterations):
        alignment = umeyama(source, target, weights=weights)
        residual = np.linalg.norm(target - alignment.points(source), axis=1)
        limit = 1.345 * max(float(np.median(residual)) / _RAYLEIGH_MEDIAN, 1e-6)
        weights = np.minimum(1.0, limit / np.maximum(residual, 1e-12))
    return alignment


def horizontal(vectors: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Drop the component along `up`: coordinates `[..., 2]` in a right-handed basis of the horizontal plane."""
    first = np.linalg.svd(up[None])[2][1]
    return vectors @ np.stack([first, np.cross(up, first)], axis=1)


def _solved_span(path: CameraPath) -> tuple[np.ndarray, np.ndarray]:
    return path.times_s[path.registered], path.world_from_camera[path.registered]


def _covered(times: np.ndarray, query: np.ndarray, gap_s: float) -> np.ndarray:
    """Which query times lie within the solved frames and not in a hole wider than `gap_s`."""
    after = np.clip(np.searchsorted(times, query), 1, len(times) - 1)
    return (query >= times[0]) & (query <= times[-1]) & (times[after] - times[after - 1] <= gap_s)


def scale_from_gps_positions(path: CameraPath, gps: pa.Table, up: np.ndarray, config: ScaleConfig) -> ScaleEstimate | None:
    """Scale that lays the camera path over the GPS fixes, horizontally (GPS altitude is two to three times worse).

    The error of a fix is at least `gps_sigma_m`, and counts once per `gps_correlation_s`, since a receiver's error drifts
    slowly; over a path with root mean square extent L the relative sigma of the scale is then sigma / (L sqrt(count)).
    Returns None where that exceeds `max_sigma` (too short a path against the noise) or there are fewer than three fixes.
    """
    times, poses = _solved_span(path)
    if len(times) < 2:
        return None
    columns = [
        np.asarray(gps.column(name).to_numpy(zero_copy_only=False), np.float64)
        for name in ("time_s", "latitude_deg", "longitude_deg", "altitude_m")
    ]
    columns[3] = np.nan_to_num(columns[3])
    usable = np.isfinite(columns).all(axis=0) & _covered(times, columns[0], 1.0)
    if usable.sum() < 3:
        return None
    fix_times, latitude, longitude, altitude = (column[usable] for column in columns)
    target = east_north_up(latitude, longitude, altitude)[:, :2]
    source = horizontal(interpolate_poses(times, poses, fix_times)[:, :3, 3], up)
    extent = np.sqrt(((source - source.mean(axis=0)) ** 2).sum(axis=1).mean())
    if extent == 0:
        return None
    alignment = robust_similarity(source, target)
    if alignment.scale <= 0:
        return None
    residual = np.linalg.norm(target - alignment.points(source), axis=1)
    noise = max(float(np.median(residual)) / _RAYLEIGH_MEDIAN, config.gps_sigma_m)
    count = min(len(source), 1 + float(np.ptp(fix_times)) / config.gps_correlation_s)
    return _accepted(ScaleEstimate(alignment.scale, noise / (alignment.scale * extent * np.sqrt(count)), "gps"), config)


def scale_from_gps_speed(path: CameraPath, gps: pa.Table, config: ScaleConfig) -> ScaleEstimate | None:
    """Scale that fits the camera's speed to GPS speed (Doppler), by robust regression through the origin."""
    times, poses = _solved_span(path)
    fix_times = np.asarray(gps.column("time_s").to_numpy(zero_copy_only=False), np.float64)
    speed = np.asarray(gps.column("speed_mps").cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    half = config.speed_window_s / 2
    if len(times) < 2:
        return None
    usable = np.isfinite(speed) & _covered(times, fix_times - half, 0.5) & _covered(times, fix_times + half, 0.5)
    if usable.sum() < 3:
        return None
    ends = [interpolate_poses(times, poses, fix_times[usable] + shift)[:, :3, 3] for shift in (-half, half)]
    own, speed = np.linalg.norm(ends[1] - ends[0], axis=1) / config.speed_window_s, speed[usable]
    if not np.any(own > 0):
        return None
    weights = np.ones(len(own))
    for _ in range(20):
        scale = float((weights * own * speed).sum() / (weights * own * own).sum())
        residual = np.abs(speed - scale * own)
        limit = 1.345 * max(1.4826 * float(np.median(residual)), 1e-6)
        weights = np.minimum(1.0, limit / np.maximum(residual, 1e-12))
    if scale <= 0:
        return None
    noise = max(1.4826 * float(np.median(residual)), config.gps_speed_sigma_mps)
    count = min(len(own), 1 + float(np.ptp(fix_times[usable])) / config.speed_correlation_s)
    typical = scale * float(np.sqrt((own**2).mean()))
    return _accepted(ScaleEstimate(scale, noise / (typical * np.sqrt(count)), "gps"), config)


def scale_from_camera_height(
    height_m: float, sigma_m: float | None, height: float, height_sigma: float, config: ScaleConfig
) -> ScaleEstimate | None:
    """Scale that makes the cameras' mean height over the fitted plane the given one.

    Args:
        height_m: given height, with standard deviation `sigma_m`.
        sigma_m: None takes `camera_height_sigma` of the height.
        height: height over the plane in the path's unit, with relative standard deviation `height_sigma`.
        height_sigma: from the fit of the plane.
        config: trust.
    """
    given = config.camera_height_sigma if sigma_m is None else sigma_m / height_m
    return _accepted(ScaleEstimate(height_m / height, float(np.hypot(given, height_sigma)), "camera_height"), config)


def _accepted(estimate: ScaleEstimate, config: ScaleConfig) -> ScaleEstimate | None:
    return estimate if np.isfinite(estimate.scale) and estimate.sigma <= config.max_sigma else None


def fuse(estimates: list[ScaleEstimate]) -> ScaleEstimate | None:
    """Combine estimates by inverse variance of the logarithm of scale; sources that disagree widen the result.

    The sigma is multiplied by Birge's ratio where the scatter exceeds what the sigmas allow (Birge, Phys. Rev. 40, 1932).
    """
    if not estimates:
        return None
    logs = np.log([estimate.scale for estimate in estimates])
    weights = 1 / np.array([estimate.sigma for estimate in estimates]) ** 2
    mean = float(weights @ logs / weights.sum())
    sigma = float(1 / np.sqrt(weights.sum()))
    if len(estimates) > 1:
        sigma *= max(1.0, float(np.sqrt(weights @ (logs - mean) ** 2 / (len(estimates) - 1))))
    sources = list(dict.fromkeys(estimate.source for estimate in estimates))
    return ScaleEstimate(float(np.exp(mean)), sigma, "+".join(sources))
