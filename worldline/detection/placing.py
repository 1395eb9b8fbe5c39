"""Where on the ground a vehicle of known size must stand to be seen as it was detected."""

import numpy as np
from jaxtyping import Float64

from worldline.detection.agents import projected_extents

_STEP_M = 0.01  # of the finite differences
_TOLERANCE_M = 1e-4
_ITERATIONS = 30
_LARGEST_STEP = 0.3  # of the distance, at a time


def place_detections(
    boxes: Float64[np.ndarray, "N 4"],
    bottoms: Float64[np.ndarray, "N 3"],
    sizes: Float64[np.ndarray, "N 3"],
    yaws_rad: Float64[np.ndarray, " N"],
    world_from_camera: Float64[np.ndarray, "4 4"],
    intrinsics: Float64[np.ndarray, "3 3"],
) -> Float64[np.ndarray, "N 3"]:
    """Return the places `[N, 3]` whose projected boxes fit the detected ones best.

    A vehicle of given size and heading is moved over the horizontal plane at the height of its place until the four sides
    of its projection agree with the detection's in the least-squares sense (Gauss and Newton, damped). The lower side alone
    would tell the distance too, but one pixel of it is metres far away; width and height of the box tell it again.

    Args:
        boxes: detected (x0, y0, x1, y1), pixels; not cut at the border.
        bottoms: where to begin; only the height above the world's origin is kept.
        sizes: length, width, height, metres.
        yaws_rad: headings.
        world_from_camera: pose, world z up.
        intrinsics: pinhole matrix.

    Returns:
        Bottom centres; NaN where the projection left the view of the camera on the way.
    """
    places = np.array(bottoms, np.float64)
    centre = world_from_camera[:2, 3]
    damping = 1e-3
    for _ in range(_ITERATIONS):
        error = projected_extents(places, sizes, yaws_rad, world_from_camera, intrinsics) - boxes
        slopes = [
            (projected_extents(places + shift, sizes, yaws_rad, world_from_camera, intrinsics) - boxes - error) / _STEP_M
            for shift in (np.array([_STEP_M, 0, 0]), np.array([0, _STEP_M, 0]))
        ]
        jacobian = np.stack(slopes, axis=-1)
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian
        normal = normal * (1 + damping * np.eye(2))
        unknown = ~np.isfinite(normal).all(axis=(1, 2)) | ~np.isfinite(error).all(axis=1)
        normal[unknown] = np.eye(2)
        step = -np.linalg.solve(normal, np.swapaxes(jacobian, 1, 2) @ error[..., None])[..., 0]
        reach = _LARGEST_STEP * np.linalg.norm(places[:, :2] - centre, axis=1)
        length = np.linalg.norm(step, axis=1)
        step *= np.minimum(1, reach / np.maximum(length, 1e-12))[:, None]
        places[:, :2] += step
        places[unknown] = np.nan
        if not np.nanmax(np.abs(step), initial=0) > _TOLERANCE_M:
            break
    return places
