"""Which way is up in the frame of a camera path, fused from all that tells it.

Every source gives an up direction and the information (inverse covariance) of its two axes of tilt: a ground plane knows
both about equally, altitudes along a straight road know the slope along the road and nothing of the tilt across it. They
are combined in the tangent plane of the best one. A source that is on both axes more than `contrast` times less certain
than what is known without it is left out: it would only carry its own assumptions in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from schemas.artifact import rows_to_table
from schemas.cameras import GRAVITY_ESTIMATES, CameraPath, GroundPlane
from stages.pose.drifting_noise import regress
from stages.pose.scale_from_travel import TravelConfig, fixes_on_path, scale_from_positions


@dataclass(frozen=True)
class GravityConfig:
    """How trustworthy the sources of gravity are.

    Attributes:
        up_in_first_camera: up direction (x right, y down, z forward) in the first registered camera, where it is known;
            None where it is not.
        up_sigma_rad: its standard deviation.
        road_slope_sigma_rad: standard deviation of the slope of the ground against the horizontal.
        camera_roll_sigma_rad: standard deviation of the roll of a camera that people hold or mount.
        camera_pitch_sigma_rad: the same of its pitch.
        travel_slope_sigma_rad: the same of the slope of its travel.
        mount_sigma_rad: standard deviation of a camera's tilt against the vehicle whose roll and pitch are given.
        gps_altitude_sigma_m: least standard deviation of the slowly drifting part of a GPS altitude.
        contrast: a source this many times less certain than the others is not used.
        max_sigma_rad: with a larger standard deviation than this, gravity is not known.
    """

    up_in_first_camera: tuple[float, float, float] | None = None
    up_sigma_rad: float = 0.01
    road_slope_sigma_rad: float = 0.02
    camera_roll_sigma_rad: float = 0.1
    camera_pitch_sigma_rad: float = 0.3
    travel_slope_sigma_rad: float = 0.15
    mount_sigma_rad: float = 0.05
    gps_altitude_sigma_m: float = 1.0
    contrast: float = 3.0
    max_sigma_rad: float = 0.35


@dataclass(frozen=True)
class GravityEstimate:
    """What one source says.

    Attributes:
        source: as in `schemas.cameras.GRAVITY_ESTIMATES`.
        up: unit vector `[3]` in the path's frame.
        information: `[3, 3]` inverse covariance of the tilt, zero along `up`.
        refused: why it must not be used; empty where it may.
    """

    source: str
    up: np.ndarray
    information: np.ndarray
    refused: str = ""

    @property
    def sigmas(self) -> tuple[float, float]:
        """Standard deviations in radians along the best and the worst known axis of tilt."""
        worst, best = np.linalg.eigvalsh(self.information)[1:]
        return float(1 / np.sqrt(max(best, 1e-12))), float(1 / np.sqrt(max(worst, 1e-12)))


def isotropic(source: str, up: np.ndarray, sigma_rad: float, refused: str = "") -> GravityEstimate:
    """Return an estimate that knows both axes of tilt equally well."""
    up = up / np.linalg.norm(up)
    return GravityEstimate(source, up, (np.eye(3) - np.outer(up, up)) / max(sigma_rad, 1e-6) ** 2, refused)


def up_from_cameras(poses: Float64[np.ndarray, "N 4 4"], config: GravityConfig) -> GravityEstimate:
    """Guess the up direction from how people film: little roll, some pitch, travel that is about level.

    It minimises `mean((x . up)^2) / roll^2 + mean((z . up)^2) / pitch^2 + (travel . up)^2 / slope^2` over unit vectors, with
    the cameras' x and z axes and the main direction of travel. Cameras that turned about the vertical so find it whatever
    their pitch was. Where they climb or dive more than 20 degrees against their own up, the travel is left out; beyond 45
    degrees a rising level camera and one that looks straight down while it travels are the same to the eye, and gravity
    is not known.
    """
    right, image_up, forward = poses[:, :3, 0], -poses[:, :3, 1], poses[:, :3, 2]
    mean_up = image_up.mean(axis=0)
    cost = right.T @ right / len(poses) / config.camera_roll_sigma_rad**2
    cost += forward.T @ forward / len(poses) / config.camera_pitch_sigma_rad**2
    centres = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    _, spread, axes = np.linalg.svd(centres, full_matrices=False)
    climb = 0.0
    if len(poses) >= 3 and spread[0] > 1e-9:
        climb = np.degrees(np.arcsin(min(abs(float(axes[0] @ mean_up)) / max(float(np.linalg.norm(mean_up)), 1e-9), 1.0)))
        if climb < 20:
            cost += np.outer(axes[0], axes[0]) / config.travel_slope_sigma_rad**2
    up = np.linalg.eigh(cost)[1][:, 0]
    up = up if up @ mean_up >= 0 else -up
    tangent = np.eye(3) - np.outer(up, up)
    rolled = np.degrees(np.arcsin(np.sqrt(((right @ up) ** 2).mean()).clip(0, 1)))
    steep = np.degrees(np.arcsin(np.sqrt(((forward @ up) ** 2).mean()).clip(0, 1)))
    refused = ""
    if rolled > 30 or mean_up @ up < 0.3:
        refused = f"the camera was not held upright (roll of {rolled:.0f} degrees)"
    elif steep > 65:
        refused = f"the camera looked up or down ({steep:.0f} degrees), so that the image's top is no up"
    elif climb > 45:
        refused = "the camera moved towards the top or bottom of its image: it rose, or it looked down while it travelled"
    return GravityEstimate("camera_up", up, tangent @ cost @ tangent, refused)


def up_from_ground(ground: GroundPlane, config: GravityConfig) -> GravityEstimate:
    """Take the road's normal for up; roads slope."""
    return isotropic("ground_plane", ground.normal, float(np.hypot(ground.normal_sigma_rad or 0.0, config.road_slope_sigma_rad)))


def up_from_attitudes(path: CameraPath, attitudes: pa.Table, config: GravityConfig) -> GravityEstimate:
    """Take the vehicle's roll and pitch for those of a camera that looks ahead, up to how it is mounted.

    With `R = Rz(yaw) Ry(pitch) Rx(roll)` the world's up in the vehicle's axes is `(-sin pitch, cos pitch sin roll, cos pitch cos
    roll)`; a camera along its x axis has x right = -y left, y down = -z up and z forward = x.
    """
    times, roll, pitch = (attitudes.column(name).to_numpy(zero_copy_only=False) for name in ("time_s", "roll_rad", "pitch_rad"))
    frames = path.registered & (path.times_s >= times.min(initial=np.inf)) & (path.times_s <= times.max(initial=-np.inf))
    if not frames.any():
        return isotropic("inertial", np.array([0.0, -1.0, 0.0]), np.pi, "no attitude falls within the solved frames")
    r, p = np.interp(path.times_s[frames], times, roll), np.interp(path.times_s[frames], times, pitch)
    in_camera = np.stack([-np.cos(p) * np.sin(r), -np.cos(p) * np.cos(r), -np.sin(p)], axis=1)
    ups = np.einsum("tij,tj->ti", path.world_from_camera[frames, :3, :3], in_camera)
    return isotropic("inertial", ups.mean(axis=0), config.mount_sigma_rad)


def up_from_altitudes(
    path: CameraPath, gps: pa.Table, about: np.ndarray, config: GravityConfig, travel: TravelConfig
) -> GravityEstimate:
    """Find the tilt at which the camera's way climbs as the GPS altitude does.

    Args:
        path: in any unit and frame.
        gps: fixes; all within the solved frames need an altitude.
        about: rough up direction `[3]`, from which the tilt is small.
        config: trust in altitudes.
        travel: trust in positions, for the scale.
    """
    times, enu, centres = fixes_on_path(path, gps)
    scale = scale_from_positions(path, gps, about, travel)
    if scale.refused or np.isnan(enu[:, 2]).any():
        reason = scale.refused or "not every fix has an altitude"
        return isotropic("gps", about, np.pi, reason)
    centres = centres - centres.mean(axis=0)
    flat = centres - np.outer(centres @ about, about)
    _, spread, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:2][spread[:2] > 1e-3 * spread[0]]
    fitted = regress(
        np.column_stack([flat @ axes.T, np.ones(len(flat))]),
        enu[:, 2] / scale.scale - centres @ about,
        times,
        correlation_s=travel.gps_correlation_s,
        least_drift=config.gps_altitude_sigma_m / scale.scale,
    )
    if fitted is None:
        return isotropic("gps", about, np.pi, "too few fixes lie within the solved frames")
    tilted = about + fitted.coefficients[:-1] @ axes
    information = axes.T @ np.linalg.inv(fitted.covariance[:-1, :-1]) @ axes
    return GravityEstimate("gps", tilted / np.linalg.norm(tilted), information)


def fuse_gravity(estimates: Sequence[GravityEstimate], config: GravityConfig) -> tuple[GravityEstimate | None, list[str]]:
    """Combine estimates; return the result (None where gravity is not known) and for each why it was not used ("" if it was).

    The covariance is widened by Birge's ratio where sources disagree by more than they allow.
    """
    reasons = [estimate.refused for estimate in estimates]
    order = sorted((estimate.sigmas[0], index) for index, estimate in enumerate(estimates) if not estimate.refused)
    used: list[int] = []
    total = np.zeros((3, 3))
    for _, index in order:
        if used and not _adds(estimates[index].information, total, estimates[used[0]].up, config.contrast):
            reasons[index] = "much less certain than the other sources"
            continue
        used.append(index)
        total = total + estimates[index].information
    if not used:
        return None, reasons
    start = estimates[used[0]].up
    tangents = _tangents(start)
    information = [tangents @ estimates[index].information @ tangents.T for index in used]
    tilts = [tangents @ estimates[index].up for index in used]
    # a source that knows one axis only must not make the sum singular: nothing is known worse than half a turn
    summed = sum(information, np.eye(2) / np.pi**2)
    tilt = np.linalg.solve(summed, sum((own @ at for own, at in zip(information, tilts, strict=True)), np.zeros(2)))
    scatter = sum(float((at - tilt) @ own @ (at - tilt)) for own, at in zip(information, tilts, strict=True))
    birge = max(1.0, scatter / max(2 * (len(used) - 1), 1))
    up = start + tilt @ tangents
    up /= np.linalg.norm(up)
    covariance = np.linalg.inv(summed) * birge
    fused = GravityEstimate(
        "+".join(estimates[index].source for index in sorted(used)), up, tangents.T @ np.linalg.inv(covariance) @ tangents
    )
    if fused.sigmas[1] > config.max_sigma_rad:
        for index in used:
            reasons[index] = f"its sigma of {fused.sigmas[1]:.2g} rad exceeds {config.max_sigma_rad:g} rad"
        return None, reasons
    return fused, reasons


def _tangents(up: np.ndarray) -> np.ndarray:
    """Return two unit vectors `[2, 3]` at right angles to `up` and each other."""
    first = np.linalg.svd(up[None])[2][1]
    return np.stack([first, np.cross(up, first)])


def _adds(information: np.ndarray, known: np.ndarray, up: np.ndarray, contrast: float) -> bool:
    """Return whether a source tells an axis of tilt at least 1 / `contrast` as well as it is known without."""
    tangents = _tangents(up)
    own, total = tangents @ information @ tangents.T, tangents @ known @ tangents.T
    # largest ratio of own to known information over all axes of tilt
    ratios = np.linalg.eigvals(np.linalg.solve(total + 1e-9 * np.trace(total) * np.eye(2), own)).real
    return bool(ratios.max() * contrast**2 > 1)


def gravity_table(estimates: Sequence[GravityEstimate], reasons: Sequence[str]) -> pa.Table:
    """Return estimates as a `GRAVITY_ESTIMATES` table."""
    rows = []
    for estimate, reason in zip(estimates, reasons, strict=True):
        best, worst = estimate.sigmas
        values = (estimate.source, *(float(part) for part in estimate.up), best, worst, not reason, reason)
        rows.append(dict(zip(GRAVITY_ESTIMATES.names, values, strict=True)))
    return rows_to_table(GRAVITY_ESTIMATES, rows)
