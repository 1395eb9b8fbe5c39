"""The surfel rasteriser again, slow and plain: dense torch operations under autograd, every surfel against every pixel.

Tests compare the kernels with it. Rays are met with planes in the camera's frame, in three dimensions, not through the
ray transform that the kernels use. One camera, no batch.
"""

import torch
from torch import Tensor

from worldline.splatting._reference import rotation_matrices


def surfels_in_camera(means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return centres `[N, 3]`, tangents `[N, 3, 2]` as long as the scales, and world normals `[N, 3]` turned to the camera."""
    centres = means @ viewmat[:3, :3].mT + viewmat[:3, 3]
    rotations = rotation_matrices(quats)
    eye = -viewmat[:3, :3].mT @ viewmat[:3, 3]
    normals = rotations[..., 2]
    away = (normals * (means - eye)).sum(dim=-1, keepdim=True) >= 0
    return centres, viewmat[:3, :3] @ rotations[..., :2] * scales[:, None, :2], torch.where(away, -normals, normals)


def filter_places(centres: Tensor, tangents: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels `[N, 2]` where the low-pass filters sit, and which surfels have one.

    The middle of the image of the unit circle: half way between the two image lines, across each axis, that touch it. For
    the column u that is where (fx X + cx Z - u Z) has a double zero on the circle, a quadratic in u.
    """
    places = []
    for axis in range(2):
        numerator = K[axis, axis] * tangents[:, axis] + K[axis, 2] * tangents[:, 2]  # [N, 2], along the tangents
        constant = K[axis, axis] * centres[:, axis] + K[axis, 2] * centres[:, 2]
        # (constant - u z)^2 = |numerator - u w|^2: its two roots have the middle -B / (2 A)
        a = centres[:, 2] ** 2 - (tangents[:, 2] ** 2).sum(dim=-1)
        b = -2 * (constant * centres[:, 2] - (numerator * tangents[:, 2]).sum(dim=-1))
        places.append(-b / (2 * a))
    return torch.stack(places, dim=-1), centres[:, 2] ** 2 > (tangents[:, 2] ** 2).sum(dim=-1)


def meet(centre: Tensor, tangents: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distance `[H, W]` from a centre, in standard deviations, and depth where rays meet a surfel's plane.

    The distance is infinite where they do not meet in front of the camera.
    """
    normal = torch.linalg.cross(tangents[:, 0], tangents[:, 1])
    slope = rays @ normal
    nowhere = slope * (centre @ normal) <= 0
    depth = (centre @ normal) / torch.where(nowhere, torch.ones_like(slope), slope)
    steps = (depth[..., None] * rays - centre) @ tangents @ torch.linalg.inv(tangents.mT @ tangents)
    return torch.where(nowhere, torch.full_like(depth, torch.inf), steps.square().sum(dim=-1)), depth


def rasterize_one(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmat: Tensor, K: Tensor,
    width: int, height: int, near_plane: float = 0.01, at_hit: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """Draw one image: colors `[H, W, D]`, normals `[H, W, 3]` in the world, and alphas, depths, medians, distortion `[H, W]`."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=means.dtype) + 0.5, torch.arange(width, dtype=means.dtype) + 0.5, indexing="ij"
    )
    rays = torch.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], torch.ones_like(rows)], dim=-1)
    centres, tangents, normals = surfels_in_camera(means, quats, scales, viewmat)
    places, filtered = filter_places(centres, tangents, K)
    order = [i for i in torch.argsort(centres[:, 2], stable=True).tolist() if centres[i, 2] > near_plane]
    transmittance = torch.ones(height, width, dtype=means.dtype)
    done = torch.zeros(height, width, dtype=torch.bool)
    median = torch.zeros_like(transmittance)
    weights, depths = [], []
    for i in order:
        square, hit = meet(centres[i], tangents[i], rays)
        blurred = torch.full_like(square, torch.inf)
        if filtered[i]:
            blurred = 2 * ((columns - places[i, 0]) ** 2 + (rows - places[i, 1]) ** 2)
        alpha = (opacities[i] * torch.exp(-0.5 * torch.minimum(square, blurred))).clamp(max=0.999)
        alpha = torch.where(alpha < 1.0 / 255.0, torch.zeros_like(alpha), alpha)
        done = done | ((alpha > 0) & (transmittance * (1 - alpha) <= 1e-4))
        alpha = torch.where(done, torch.zeros_like(alpha), alpha)
        depth = torch.where((square <= blurred) & (alpha > 0), hit, centres[i, 2]) if at_hit else centres[i, 2].expand_as(hit)
        median = torch.where((alpha > 0) & (transmittance > 0.5), depth, median)
        weights.append(alpha * transmittance)
        depths.append(depth)
        transmittance = transmittance * (1 - alpha)
    none = transmittance.new_zeros(0, height, width)
    weight, depth = (torch.stack(parts) if parts else none for parts in (weights, depths))
    # sum over all ordered pairs of w_i w_j (m_later - m_earlier), both ways round
    later = torch.tril(torch.ones(len(order), len(order), dtype=means.dtype), -1)
    distortion = 2 * torch.einsum("ihw,ij,jhw,ijhw->hw", weight, later, weight, depth[:, None] - depth[None])
    return {
        "colors": torch.einsum("nhw,nd->hwd", weight, colors[order]),
        "normals": torch.einsum("nhw,nd->hwd", weight, normals[order]),
        "alphas": 1 - transmittance,
        "depths": (weight * depth).sum(dim=0) / (1 - transmittance).clamp(min=1e-10),
        "medians": median,
        "distortion": distortion,
    }
