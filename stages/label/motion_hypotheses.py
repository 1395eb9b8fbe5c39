"""Could this image point be a fixed point of the scene? Static hypotheses for point tracks over a window of frames.

A track whose camera is known fixes one unknown, the inverse depth along the ray of a reference frame (the inverse
depth parametrisation of Civera, Davison and Montiel, IEEE T-RO 2008). The distance from the epipolar line alone is
blind to traffic, which moves along these lines; what a fixed point cannot do is lie behind the camera or below the
road, so the fit is constrained to inverse depths between that of the road (or infinity) and a near limit, and the
residual of the constrained fit is the evidence of motion: it sees crossing objects (off the line), objects that drive
ahead (behind the camera or below the road) and changing speeds (inconsistent over more than two frames). Oncoming
objects have a legal depth, closer than the true one; they float over the road (`floating_ratio`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

NEAREST_HEIGHTS = 0.4  # the near limit of depth, in heights of the camera over the ground


@dataclass(frozen=True)
class StaticFit:
    """Constrained static fit of `[N]` tracks at a reference frame.

    Attributes:
        inverse_depth: along the optical axis, within its bounds.
        sigma: its standard deviation for one pixel of noise per coordinate.
        free_inverse_depth: without the bounds.
        ground_inverse_depth: of the ground on the same ray; 0 on and above the horizon.
        residual_px: largest distance between seen and predicted positions in the window.
        flow_px: largest displacement in the window that the camera's rotation does not explain.
        frames: how many frames of the window saw the track.
    """

    inverse_depth: Float64[np.ndarray, " N"]
    sigma: Float64[np.ndarray, " N"]
    free_inverse_depth: Float64[np.ndarray, " N"]
    ground_inverse_depth: Float64[np.ndarray, " N"]
    residual_px: Float64[np.ndarray, " N"]
    flow_px: Float64[np.ndarray, " N"]
    frames: Float64[np.ndarray, " N"]


def ground_inverse_depth(
    rays: Float64[np.ndarray, "N 3"], world_from_camera: np.ndarray, normal: np.ndarray, offset: float
) -> Float64[np.ndarray, " N"]:
    """Return the inverse depth at which rays (camera frame, z = 1) meet the plane `normal . x + offset = 0`; 0 if never."""
    height = float(normal @ world_from_camera[:3, 3] + offset)
    downward = -(rays @ world_from_camera[:3, :3].T) @ normal
    return np.maximum(downward / max(height, 1e-9), 0.0)


def fit_static(
    xy_px: Float64[np.ndarray, "N J 2"],
    visible: Bool[np.ndarray, "N J"],
    world_from_camera: Float64[np.ndarray, "J 4 4"],
    K: Float64[np.ndarray, "3 3"],
    reference: int,
    plane: tuple[np.ndarray, float] | None,
    ground_tolerance: float = 0.06,
) -> StaticFit:
    """Fit one fixed point per track, in front of the camera and not below the ground.

    Args:
        xy_px: undistorted positions in the window's frames.
        visible: which of them exist; all tracks must be visible in the reference frame.
        world_from_camera: poses of the window's frames.
        K: pinhole matrix.
        reference: index of the reference frame within the window.
        plane: normal and offset of the ground, or None where there is none.
        ground_tolerance: how far a fixed point may lie under the plane, as a share of the camera's height.
    """
    focal = (K[0, 0] + K[1, 1]) / 2
    inverse_K = np.linalg.inv(K)
    homogeneous = np.concatenate([xy_px, np.ones((*xy_px.shape[:2], 1))], axis=2)
    seen = (homogeneous @ inverse_K.T)[..., :2]
    rays = homogeneous[:, reference] @ inverse_K.T
    camera_from_reference = np.linalg.inv(world_from_camera) @ world_from_camera[reference]
    rotated = np.einsum("jab,nb->nja", camera_from_reference[:, :3, :3], rays)
    shift = camera_from_reference[:, :3, 3]
    weight = visible.astype(np.float64)
    # u (c + rho e) = a + rho b is linear in rho; dividing by the depth turns it into pixels on the next round
    slope = seen * shift[None, :, 2:] - shift[None, :, :2]
    target = rotated[..., :2] - seen * rotated[..., 2:]
    rho = np.zeros(len(xy_px))
    depth = np.ones(weight.shape)
    for _ in range(4):
        w = weight / np.maximum(depth, 0.05) ** 2
        information = np.einsum("nj,njk->n", w, slope**2)
        rho = np.einsum("nj,njk,njk->n", w, slope, target) / np.maximum(information, 1e-12)
        depth = rotated[..., 2] + rho[:, None] * shift[None, :, 2]
    lowest, highest, on_ground = _bounds(rays, world_from_camera[reference], plane, ground_tolerance)
    bounded = np.clip(rho, lowest, highest)
    residual = _residual(rotated, shift, seen, bounded) * focal * weight
    flow = np.linalg.norm(rotated[..., :2] / np.maximum(rotated[..., 2:], 0.05) - seen, axis=2) * focal * weight
    return StaticFit(
        inverse_depth=bounded,
        sigma=1 / (focal * np.sqrt(np.maximum(information, 1e-12))),
        free_inverse_depth=rho,
        ground_inverse_depth=on_ground,
        residual_px=_second_largest(residual),
        flow_px=_second_largest(flow),
        frames=weight.sum(axis=1),
    )


def _bounds(
    rays: np.ndarray, world_from_camera: np.ndarray, plane: tuple[np.ndarray, float] | None, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if plane is None:
        zeros = np.zeros(len(rays))
        return zeros, np.full(len(rays), np.inf), zeros
    on_ground = ground_inverse_depth(rays, world_from_camera, *plane)
    height = max(float(plane[0] @ world_from_camera[:3, 3] + plane[1]), 1e-9)
    return on_ground * (1 - tolerance), np.full(len(rays), 1 / (NEAREST_HEIGHTS * height)), on_ground


def _residual(rotated: np.ndarray, shift: np.ndarray, seen: np.ndarray, rho: np.ndarray) -> np.ndarray:
    point = rotated + rho[:, None, None] * shift[None]
    return np.linalg.norm(point[..., :2] / np.maximum(point[..., 2:], 0.05) - seen, axis=2)


def _second_largest(values: np.ndarray) -> np.ndarray:
    """Return the second largest of each row: one wrong match in a window is not motion."""
    return np.sort(values, axis=1)[:, -2] if values.shape[1] > 1 else values[:, 0]
