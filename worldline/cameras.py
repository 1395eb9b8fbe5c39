"""Rotations, rigid and similarity transforms, pinhole cameras, and the alignment of camera paths.

Conventions: quaternions are wxyz; a transform is named `target_from_source` and maps source coordinates to target
coordinates; the camera frame is OpenCV's (x right, y down, z forward); the world is right-handed with z up; the centre
of the top left pixel lies at (0.5, 0.5). All functions broadcast over leading dimensions unless they say otherwise.
"""

from typing import NamedTuple

import numpy as np

# Axes of a level camera that looks along world x: forward x, left y, up z (the ego frame of the house).
WORLD_FROM_LEVEL_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Convert quaternions `[..., 4]` wxyz, of any non-zero norm, to rotation matrices `[..., 3, 3]`."""
    q = np.asarray(quaternion, np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Convert rotation matrices `[..., 3, 3]` to unit quaternions `[..., 4]` wxyz with w >= 0.

    The quaternion is the dominant eigenvector of Bar-Itzhack's symmetric 4x4 matrix (J. Guidance 23(6), 2000), which has
    no singular case and returns the nearest rotation where the input is slightly off orthonormal.
    """
    r = np.asarray(rotation, np.float64)
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., 0, 0] = trace
    skew = np.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1)
    k[..., 0, 1:] = k[..., 1:, 0] = skew
    k[..., 1:, 1:] = r + np.swapaxes(r, -1, -2) - trace[..., None, None] * np.eye(3)
    q = np.linalg.eigh(k)[1][..., -1]
    return np.where(q[..., :1] < 0, -q, q)


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Convert rotation vectors `[..., 3]` (axis times angle in radians) to matrices by Rodrigues' formula."""
    v = np.asarray(vector, np.float64)
    half = 0.5 * np.linalg.norm(v, axis=-1, keepdims=True)
    return rotation_from_quaternion(np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * v], axis=-1))


def vector_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Convert rotation matrices to rotation vectors `[..., 3]` with an angle of at most pi."""
    q = quaternion_from_rotation(rotation)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return q[..., 1:] * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)


def rotation_angle(rotation: np.ndarray) -> np.ndarray:
    """Return the angle of rotation matrices in radians, accurate also near 0 and pi."""
    return np.linalg.norm(vector_from_rotation(rotation), axis=-1)


def rotation_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the smallest rotation `[3, 3]` that takes the direction `source` `[3]` to the direction `target` `[3]`."""
    a = np.asarray(source, np.float64) / np.linalg.norm(source)
    b = np.asarray(target, np.float64) / np.linalg.norm(target)
    axis = np.cross(a, b)
    if np.linalg.norm(axis) < 1e-12 and a @ b < 0:  # opposite: any axis across will do
        axis = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
    norm = np.linalg.norm(axis)
    angle = np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)
    return rotation_from_vector(axis * (angle / norm if norm > 0 else 0.0))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation matrix nearest to `matrix` `[3, 3]` in the Frobenius norm (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """Return the chordal mean `[3, 3]` of rotations `[N, 3, 3]` (Hartley et al., Rotation averaging, 2013, sec. 5.3)."""
    return nearest_rotation(np.mean(rotations, axis=0))


def rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Assemble 4x4 transforms from rotations `[..., 3, 3]` and translations `[..., 3]`."""
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    matrix = np.zeros((*np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1]), 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1.0
    return matrix


def invert_rigid(target_from_source: np.ndarray) -> np.ndarray:
    """Invert rigid 4x4 transforms."""
    inverse_rotation = np.swapaxes(target_from_source[..., :3, :3], -1, -2)
    return rigid(inverse_rotation, -(inverse_rotation @ target_from_source[..., :3, 3:])[..., 0])


def transform_points(target_from_source: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points `[..., N, 3]` by 4x4 transforms `[..., 4, 4]`."""
    return points @ np.swapaxes(target_from_source[..., :3, :3], -1, -2) + target_from_source[..., None, :3, 3]


def interpolate_poses(times_s: np.ndarray, poses: np.ndarray, query_s: np.ndarray) -> np.ndarray:
    """Interpolate rigid poses `[T, 4, 4]` at increasing `times_s` to `query_s` `[Q]`.

    Positions go linearly, rotations at constant angular rate (slerp); outside the range the end poses are held.
    """
    query = np.clip(np.asarray(query_s, np.float64), times_s[0], times_s[-1])
    if len(times_s) == 1:
        return np.repeat(np.asarray(poses, np.float64), len(query), axis=0)
    low = np.clip(np.searchsorted(times_s, query, side="right") - 1, 0, len(times_s) - 2)
    share = (query - times_s[low]) / (times_s[low + 1] - times_s[low])
    first, second = poses[low], poses[low + 1]
    turn = vector_from_rotation(np.swapaxes(first[:, :3, :3], -1, -2) @ second[:, :3, :3])
    rotation = first[:, :3, :3] @ rotation_from_vector(turn * share[:, None])
    return rigid(rotation, first[:, :3, 3] * (1 - share[:, None]) + second[:, :3, 3] * share[:, None])


def scale_intrinsics(intrinsics: np.ndarray, factor_x: float, factor_y: float) -> np.ndarray:
    """Return the pinhole matrix after resizing the image by the factors (exact with pixel centres at +0.5)."""
    return np.diag([factor_x, factor_y, 1.0]) @ intrinsics


def pixel_centres(width: int, height: int) -> np.ndarray:
    """Return the image coordinates `[H, W, 2]` (x, y) of all pixel centres."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)


def distort(normalised: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Apply OpenCV's (k1, k2, p1, p2) lens distortion to normalised image coordinates `[..., 2]`."""
    k1, k2, p1, p2 = distortion
    x, y = normalised[..., 0], normalised[..., 1]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def undistort(distorted: np.ndarray, distortion: np.ndarray, iterations: int = 20) -> np.ndarray:
    """Invert `distort` by fixed-point iteration (as OpenCV does); exact for the mild distortion of ordinary lenses."""
    k1, k2, p1, p2 = distortion
    ideal = np.array(distorted, np.float64)
    if not np.any(distortion):
        return ideal
    for _ in range(iterations):
        x, y = ideal[..., 0], ideal[..., 1]
        r2 = x * x + y * y
        tangential = np.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=-1)
        ideal = (distorted - tangential) / (1 + k1 * r2 + k2 * r2 * r2)[..., None]
    return ideal


def project(
    points_camera: np.ndarray, intrinsics: np.ndarray, distortion: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Project camera-frame points `[..., 3]`.

    Returns:
        Pixel coordinates `[..., 2]` and depth along the optical axis `[...]`. Coordinates are NaN where depth <= 0.
    """
    points = np.asarray(points_camera, np.float64)
    depth = points[..., 2]
    normalised = points[..., :2] / np.where(depth > 0, depth, np.nan)[..., None]
    if distortion is not None and np.any(distortion):
        normalised = distort(normalised, distortion)
    return normalised @ intrinsics[:2, :2].T + intrinsics[:2, 2], depth


def pixel_rays(pixels: np.ndarray, intrinsics: np.ndarray, distortion: np.ndarray | None = None) -> np.ndarray:
    """Return camera-frame viewing directions `[..., 3]` of image points `[..., 2]`, with z = 1 (so depth times ray)."""
    normalised = (np.asarray(pixels, np.float64) - intrinsics[:2, 2]) @ np.linalg.inv(intrinsics[:2, :2]).T
    if distortion is not None:
        normalised = undistort(normalised, distortion)
    return np.concatenate([normalised, np.ones((*normalised.shape[:-1], 1))], axis=-1)


class Similarity(NamedTuple):
    """The map `scale * rotation @ x + translation` from a source frame to a target frame."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def points(self, points: np.ndarray) -> np.ndarray:
        """Map points `[..., 3]`."""
        return self.scale * np.asarray(points) @ self.rotation.T + self.translation

    def poses(self, world_from_camera: np.ndarray) -> np.ndarray:
        """Map rigid poses `[..., 4, 4]`: centres as points, axes by the rotation only."""
        return rigid(self.rotation @ world_from_camera[..., :3, :3], self.points(world_from_camera[..., :3, 3]))


def umeyama(source: np.ndarray, target: np.ndarray, *, with_scale: bool = True, weights: np.ndarray | None = None) -> Similarity:
    """Least-squares similarity (or rigid transform) from points `source` to `target` `[N, D]` (Umeyama, PAMI 1991).

    Where the points lie on a line the rotation about that line is not determined; the SVD then picks one.

    Raises:
        ValueError: if there are fewer than two points, or the source points coincide while a scale is asked for.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if len(source) < 2:
        raise ValueError(f"an alignment needs two points or more, not {len(source)}")
    w = np.full(len(source), 1 / len(source)) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.ones(source.shape[1])
    sign[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign) @ vt
    variance = float(w @ (a * a).sum(axis=1))
    if with_scale and variance == 0:
        raise ValueError("the source points coincide: their scale is not determined")
    scale = float(singular @ sign / variance) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def absolute_trajectory_error(estimated: np.ndarray, true: np.ndarray, *, with_scale: bool) -> tuple[float, Similarity]:
    """RMSE of camera centres `[N, 3]` after the best alignment, and that alignment (Sturm et al., IROS 2012, eq. 5-6).

    Returns:
        The error in the unit of `true`, and `true_from_estimated`.
    """
    alignment = umeyama(estimated, true, with_scale=with_scale)
    residual = np.asarray(true) - alignment.points(estimated)
    return float(np.sqrt((residual**2).sum(axis=1).mean())), alignment


def rotation_errors(estimated: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Angles in radians `[N]` between rotations `[N, 3, 3]` after the one world rotation that fits them best.

    Positions do not enter, so the figure stays meaningful on straight paths, where aligning positions leaves the
    roll about the path open.
    """
    true_from_estimated = mean_rotation(true @ np.swapaxes(estimated, -1, -2))
    return rotation_angle(np.swapaxes(true, -1, -2) @ true_from_estimated @ estimated)


def relative_pose_errors(
    estimated: np.ndarray, true: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the motion from pose `first[i]` to pose `second[i]` (Sturm et al., IROS 2012, eq. 2).

    Args:
        estimated: rigid poses `[N, 4, 4]`.
        true: the same, in a world of their own but in the same unit.
        first: indices `[M]` of the poses from which a motion is compared.
        second: indices `[M]` of those to which it leads.

    Returns:
        Lengths `[M]` of the wrong translation in that unit, and angles `[M]` of the wrong rotation in radians.
    """
    true_motion = invert_rigid(true[first]) @ true[second]
    error = invert_rigid(true_motion) @ invert_rigid(estimated[first]) @ estimated[second]
    return np.linalg.norm(error[:, :3, 3], axis=1), rotation_angle(error[:, :3, :3])
