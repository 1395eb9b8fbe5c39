"""Where an object stands: its lower edge on the ground plane, with what is not known of it.

A monocular camera at height H over a plane sees a contact point v rows under the horizon at depth Z = f H / v, so an
error of sigma_v rows becomes sigma_Z = Z^2 sigma_v / (f H): the error along the ray grows with range squared. The
plane's own error adds Z sigma_H / H. (Hoiem, Efros and Hebert, "Putting objects in perspective", CVPR 2006, use the
same geometry.)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from stages.label.box_smoothing import scale_links, steady_log_rows


@dataclass(frozen=True)
class Contact:
    """Ground contacts `[N]` in the world frame, in the camera path's unit.

    Attributes:
        xyz: `[N, 3]`; NaN where the ray does not meet the ground in front of the camera.
        covariance: `[N, 3, 3]`.
        range: distance from the camera.
        depth: along the optical axis.
    """

    xyz: Float64[np.ndarray, "N 3"]
    covariance: Float64[np.ndarray, "N 3 3"]
    range: Float64[np.ndarray, " N"]
    depth: Float64[np.ndarray, " N"]


def intersect_ground(
    xy_px: Float64[np.ndarray, "N 2"],
    sigma_px: Float64[np.ndarray, "N 2"],
    world_from_camera: Float64[np.ndarray, "N 4 4"],
    K: Float64[np.ndarray, "3 3"],
    normal: Float64[np.ndarray, "3"],
    offset: float,
    plane_sigma: float | Float64[np.ndarray, " N"],
) -> Contact:
    """Intersect the rays of undistorted pixels with the plane and propagate pixel and plane errors to first order.

    Args:
        xy_px: one pixel per row.
        sigma_px: standard deviations of its column and row.
        world_from_camera: one pose per row.
        K: pinhole matrix.
        normal: upward unit normal of `normal . x + offset = 0`.
        offset: as above.
        plane_sigma: standard deviation of the plane's height under the object.
    """
    rotation, centre = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
    inverse_K = np.linalg.inv(K)
    rays_camera = np.concatenate([xy_px, np.ones((len(xy_px), 1))], axis=1) @ inverse_K.T
    rays = np.einsum("nab,nb->na", rotation, rays_camera)
    height = centre @ normal + offset
    downward = -(rays @ normal)
    meets = (downward > 1e-6) & (height > 0)
    depth = np.where(meets, height / np.where(meets, downward, 1.0), np.nan)
    xyz = centre + depth[:, None] * rays
    # x = c + (h / d) r with d = -n.r: dx = (h / d) (I + r n^T / d) dr, and dx/dh = r / d
    spread = np.eye(3) + rays[:, :, None] * normal[None, None, :] / np.where(meets, downward, np.nan)[:, None, None]
    by_pixel = depth[:, None, None] * spread @ rotation @ inverse_K[:, :2]
    by_height = rays / np.where(meets, downward, np.nan)[:, None]
    covariance = np.einsum("nai,ni,nbi->nab", by_pixel, sigma_px**2, by_pixel)
    height_variance = np.broadcast_to(np.asarray(plane_sigma, np.float64) ** 2, depth.shape)
    covariance += height_variance[:, None, None] * by_height[:, :, None] * by_height[:, None, :]
    return Contact(xyz, covariance, depth * np.linalg.norm(rays_camera, axis=1), depth)


def steady_contact_rows(
    xy_px: Float64[np.ndarray, "F 2"],
    sigma_px: float,
    points_px: Float64[np.ndarray, "N F 2"],
    visible: Bool[np.ndarray, "N F"],
    step_s: float,
    world_from_camera: Float64[np.ndarray, "F 4 4"],
    K: Float64[np.ndarray, "3 3"],
    normal: Float64[np.ndarray, "3"],
    offset: float,
) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, " F"], Float64[np.ndarray, " F"]]:
    """Return the row of the contact in all frames, its standard deviation, and how far it is under the horizon, in pixels.

    How far a point of the object lies under the horizon is inversely proportional to its range, and points tracked on it
    give the ratio to a part in a hundred over seconds, while its lower edge wanders with shadows and gaps between points:
    the edge says where it is, the points how that changes (`scale_links`, `steady_log_rows`).

    Args:
        xy_px: undistorted contacts of consecutive frames; NaN rows where the edge was not seen.
        sigma_px: standard deviation of a row.
        points_px: undistorted positions of the tracks on the object.
        visible: where they were seen.
        step_s: seconds from frame to frame.
        world_from_camera: one pose per frame.
        K: pinhole matrix.
        normal: upward unit normal of `normal . x + offset = 0`.
        offset: as above.
    """
    per_pixel = normal @ world_from_camera[:, :3, :3] @ np.linalg.inv(K)
    slope = -per_pixel[:, 1]
    horizon = (per_pixel[:, 0] * xy_px[:, 0] + per_pixel[:, 2]) / slope
    height = world_from_camera[:, :3, 3] @ normal + offset
    usual = float(np.nanmedian(height))
    share = height / max(usual, 1e-9)  # rows per inverse range follow the height of the camera
    rows = (points_px[..., 1] - (per_pixel[:, 0] * points_px[..., 0] + per_pixel[:, 2]) / slope) / share
    links = scale_links(rows, visible & np.isfinite(rows), step_s)
    value, sigma = steady_log_rows((xy_px[:, 1] - horizon) / share, sigma_px, links)
    below = np.exp(value) * share
    return horizon + below, sigma * below, below
