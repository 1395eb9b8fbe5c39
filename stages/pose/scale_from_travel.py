"""Metric scale from what was driven: satellite positions, satellite speed, wheel speed."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from schemas.cameras import CameraPath
from stages.pose.drifting_noise import regress
from stages.pose.scale_estimate import ScaleEstimate
from worldline.cameras import interpolate_poses

_WGS84_A, _WGS84_E2 = 6378137.0, 6.69437999014e-3
_MOST_GAP_S = 1.0
_AT_A_FRAME_S = 0.02


@dataclass(frozen=True)
class TravelConfig:
    """How trustworthy positions and speeds are.

    Attributes:
        gps_sigma_m: least standard deviation, per axis, of the slowly drifting part of a GPS position.
        gps_correlation_s: correlation time of that part.
        gps_speed_sigma_mps: least standard deviation of the drifting part of a GPS speed.
        wheel_speed_sigma_mps: the same of a wheel speed.
        speed_correlation_s: correlation time of both.
        wheel_scale_sigma: relative standard deviation of a wheel's circumference (wear, pressure, load), common to the clip.
        speed_window_s: time over which the camera's own speed is measured, to compare with a given speed.
    """

    gps_sigma_m: float = 0.2
    gps_correlation_s: float = 30.0
    gps_speed_sigma_mps: float = 0.1
    wheel_speed_sigma_mps: float = 0.1
    speed_correlation_s: float = 2.0
    wheel_scale_sigma: float = 0.02
    speed_window_s: float = 0.6


def east_north_up(
    latitude_deg: Float64[np.ndarray, " N"], longitude_deg: Float64[np.ndarray, " N"], altitude_m: Float64[np.ndarray, " N"]
) -> Float64[np.ndarray, "N 3"]:
    """Convert WGS84 fixes to local east, north, up metres about the first one."""
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


def horizontal(vectors: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Drop the component along `up`: coordinates `[..., 2]` in a right-handed basis of the horizontal plane."""
    first = np.linalg.svd(up[None])[2][1]
    return vectors @ np.stack([first, np.cross(up, first)], axis=1)


def fixes_on_path(path: CameraPath, gps: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times `[N]`, east-north-up metres `[N, 3]` and camera centres `[N, 3]` of the fixes within the solved frames.

    Altitude is NaN throughout where one of these fixes has none.
    """
    times, poses = path.times_s[path.registered], path.world_from_camera[path.registered]
    names = ("time_s", "latitude_deg", "longitude_deg", "altitude_m")
    fix_times, latitude, longitude, altitude = (
        np.asarray(gps.column(name).to_numpy(zero_copy_only=False), np.float64) for name in names
    )
    usable = np.isfinite(latitude) & np.isfinite(longitude) & _covered(times, fix_times, _MOST_GAP_S)
    if not usable.any():
        return np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3))
    fix_times, latitude, longitude, altitude = (column[usable] for column in (fix_times, latitude, longitude, altitude))
    known = bool(np.isfinite(altitude).all())
    enu = east_north_up(latitude, longitude, altitude if known else np.zeros(len(altitude)))
    enu[:, 2] = enu[:, 2] if known else np.nan
    return fix_times, enu, interpolate_poses(times, poses, fix_times)[:, :3, 3]


def scale_from_positions(path: CameraPath, gps: pa.Table, up: np.ndarray, config: TravelConfig) -> ScaleEstimate:
    """Scale that lays the camera path over the GPS fixes, horizontally (GPS altitude is two to three times worse).

    In the plane a similarity is `east + i north = a (x + i y) + b` with complex a and b, and the scale is |a|.
    """
    source = "gps_position"
    times, enu, centres = fixes_on_path(path, gps)
    if len(times) < 3:
        return ScaleEstimate(source, observations=len(times), refused=f"{len(times)} fixes lie within the solved frames, not 3")
    x, y = horizontal(centres - centres.mean(axis=0), up).T
    fitted = regress(
        np.stack([x + 1j * y, np.ones(len(x), np.complex128)], axis=1),
        enu[:, 0] + 1j * enu[:, 1],
        times,
        correlation_s=config.gps_correlation_s,
        least_drift=config.gps_sigma_m,
    )
    if fitted is None or abs(fitted.coefficients[0]) == 0:
        return ScaleEstimate(source, observations=len(times), refused="the camera or the fixes do not move")
    scale = float(abs(fitted.coefficients[0]))
    return ScaleEstimate(source, scale, float(np.sqrt(fitted.covariance[0, 0])) / scale, fitted.used)


def scale_from_gps_speed(path: CameraPath, gps: pa.Table, up: np.ndarray, config: TravelConfig) -> ScaleEstimate:
    """Scale that fits the camera's horizontal speed to GPS speed over ground (Doppler)."""
    own = np.eye(3) - np.outer(up, up)
    return _scale_from_speed("gps_speed", path, gps, own, config.gps_speed_sigma_mps, config)


def scale_from_wheel_speed(path: CameraPath, speeds: pa.Table, config: TravelConfig) -> ScaleEstimate:
    """Scale that fits the camera's speed along the road to the wheels'; their own scale error is added to its sigma."""
    estimate = _scale_from_speed("wheel_speed", path, speeds, np.eye(3), config.wheel_speed_sigma_mps, config)
    sigma = float(np.hypot(estimate.sigma, config.wheel_scale_sigma))
    return ScaleEstimate(estimate.source, estimate.scale, sigma, estimate.observations, estimate.refused)


def _scale_from_speed(
    source: str, path: CameraPath, speeds: pa.Table, counted: np.ndarray, least_drift: float, config: TravelConfig
) -> ScaleEstimate:
    """Regress given speed on the camera's own through the origin; `counted` projects on the directions that count."""
    times, poses = path.times_s[path.registered], path.world_from_camera[path.registered]
    instants = np.asarray(speeds.column("time_s").to_numpy(zero_copy_only=False), np.float64)
    given = np.asarray(speeds.column("speed_mps").cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    if not np.isfinite(given).any():
        return ScaleEstimate(source, refused="no speed is given")
    half = config.speed_window_s / 2
    usable = np.isfinite(given) & _covered(times, instants - half, 0.5) & _covered(times, instants + half, 0.5)
    if usable.sum() < 3:
        return ScaleEstimate(
            source, observations=int(usable.sum()), refused=f"{usable.sum()} speeds lie within the solved frames, not 3"
        )
    instants, given = instants[usable], given[usable]
    ends = [interpolate_poses(times, poses, instants + shift)[:, :3, 3] for shift in (-half, half)]
    own = np.linalg.norm((ends[1] - ends[0]) @ counted, axis=1) / config.speed_window_s
    fitted = regress(own[:, None], given, instants, correlation_s=config.speed_correlation_s, least_drift=least_drift)
    if fitted is None or fitted.coefficients[0] <= 0:
        return ScaleEstimate(source, observations=len(given), refused="the camera or the given speed stands still")
    scale = float(fitted.coefficients[0])
    return ScaleEstimate(source, scale, float(np.sqrt(fitted.covariance[0, 0])) / scale, fitted.used)


def _covered(times: np.ndarray, query: np.ndarray, gap_s: float) -> np.ndarray:
    """Return which query times lie at a solved frame, or between two that are not farther apart than `gap_s`."""
    if len(times) < 2:
        return np.zeros(len(query), bool)
    after = np.clip(np.searchsorted(times, query), 1, len(times) - 1)
    near = np.minimum(np.abs(times[after] - query), np.abs(query - times[after - 1])) <= _AT_A_FRAME_S
    return near | ((query >= times[0]) & (query <= times[-1]) & (times[after] - times[after - 1] <= gap_s))
