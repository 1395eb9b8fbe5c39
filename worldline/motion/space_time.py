"""Native 4D Gaussians from what is known of their cuts: the way back from `worldline.motion.native_4d.cut`."""

import itertools

import numpy as np
import torch

from worldline.motion.native_4d import rotation_4d


def join_cuts(
    velocities: np.ndarray, deviations: np.ndarray, covars: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the 4D Gaussians whose cuts have given velocities, extents in time and covariances.

    Sigma_xt = velocity sigma_t^2 and Sigma_xx = covariance + velocity velocity^T sigma_t^2, whose eigenvectors are the rotation;
    the one nearest to the time axis becomes the fourth axis.

    Args:
        velocities: `[N, 3]` by normalised time.
        deviations: `[N]` standard deviations sigma_t of the time at which each is there.
        covars: `[N, 3, 3]` of the cuts.

    Returns:
        Left quaternions `[N, 4]`, right quaternions `[N, 4]`, spatial scales `[N, 3]` and time scales `[N]`, float64.
    """
    count = len(velocities)
    sigma = np.zeros((count, 4, 4))
    flown = np.asarray(velocities, np.float64) * np.asarray(deviations, np.float64)[:, None]
    sigma[:, :3, :3] = covars + flown[:, :, None] * flown[:, None]
    sigma[:, :3, 3] = sigma[:, 3, :3] = flown * np.asarray(deviations)[:, None]
    sigma[:, 3, 3] = np.square(deviations)
    squares, axes = np.linalg.eigh(sigma)
    last = np.abs(axes[:, 3]).argmax(axis=1)
    order = np.argsort(np.arange(4)[None] == last[:, None], axis=1, kind="stable")
    axes = np.take_along_axis(axes, order[:, None], axis=2)
    squares = np.take_along_axis(squares, order, axis=1)
    axes[..., 3] *= np.where(axes[:, 3, 3] < 0, -1.0, 1.0)[:, None]
    axes[..., 0] *= np.sign(np.linalg.det(axes))[:, None]
    left, right = quaternions_of_rotation_4d(axes)
    scales = np.sqrt(np.maximum(squares, 1e-20))
    return left, right, scales[:, :3], scales[:, 3]


def quaternions_of_rotation_4d(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit quaternions left and right `[N, 4]` whose `rotation_4d` are the rotations `[N, 4, 4]` of (x, y, z, t).

    A rotation is bilinear in the two, so its products with the sixteen rotations of unit quaternions form a matrix of rank one,
    left right^T (the "associate matrix": Mebius, "A matrix-based proof of the quaternion representation theorem", 2005).
    """
    identity = torch.eye(4, dtype=torch.float64)
    first, second = (torch.stack(column) for column in zip(*itertools.product(identity, identity), strict=True))
    units = rotation_4d(first, second).numpy()  # [4, 4, 16]
    associate = np.einsum("nij,ijk->nk", rotations, units).reshape(-1, 4, 4) / 4.0
    left, _, right = np.linalg.svd(associate)
    return left[:, :, 0], right[:, 0]
