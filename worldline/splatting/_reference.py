"""The rasteriser again, slow and plain: dense torch operations under autograd, every Gaussian against every pixel.

Tests compare the kernels with it. Same conventions as `worldline.splatting.rasterize`, one camera, no batch.
"""

import math

import torch
from torch import Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """Return `[N, 3, 3]` of wxyz quaternions `[N, 4]` of any length."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """Return `[N, 3, 3]` R diag(s^2) R^T."""
    spread = rotation_matrices(quats) * scales[:, None, :]
    return spread @ spread.mT


def pixel(point: Tensor, K: Tensor, width: int, height: int, model: str) -> Tensor:
    """Return the pixel `[2]` of a camera-space point `[3]`."""
    x, y, z = point.unbind(-1)
    if model == "pinhole":
        along = torch.stack([x / z, y / z])
    elif model == "ortho":
        along = torch.stack([x, y])
    elif model == "fisheye":
        radius = (x * x + y * y).sqrt()
        along = torch.stack([x, y]) * torch.atan2(radius, z) / radius
    else:
        longitude, latitude = torch.atan2(x, z), torch.atan2(y, (x * x + z * z).sqrt())
        return torch.stack([width * (longitude / (2 * math.pi) + 0.5), height * (latitude / math.pi + 0.5)])
    return torch.stack([K[0, 0] * along[0] + K[0, 2], K[1, 1] * along[1] + K[1, 2]])


def jacobians(points: Tensor, K: Tensor, width: int, height: int, model: str) -> Tensor:
    """Return the derivatives `[N, 2, 3]` of pixels by camera-space points, found by differentiating `pixel`.

    A pinhole camera's are taken at most 0.3 times the half field of view beyond the border; a panorama's longitude has its
    rate softened within half a row of the poles.
    """
    x, y, z = points.unbind(-1)
    if model == "pinhole":
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
        tx = z * (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
        ty = z * (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
        points = torch.stack([tx, ty, z], dim=-1)
    derivative = torch.func.vmap(torch.func.jacfwd(lambda point: pixel(point, K, width, height, model)))(points)
    if model == "equirectangular":
        flat, ball = x * x + z * z, x * x + y * y + z * z
        soft = (flat / (flat + (0.5 * math.pi / height) ** 2 * ball)).sqrt()
        derivative = torch.stack([derivative[:, 0] * soft[:, None], derivative[:, 1]], dim=1)
    return derivative


def project(
    means: Tensor, covars: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, eps2d: float = 0.3, model: str = "pinhole"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image means `[N, 2]`, image covariances `[N, 2, 2]`, depths `[N]` and the antialiasing compensation `[N]`."""
    rotation = viewmat[:3, :3]
    points = means @ rotation.mT + viewmat[:3, 3]
    affine = jacobians(points, K, width, height, model) @ rotation
    sharp = affine @ covars @ affine.mT
    blurred = sharp + eps2d * torch.eye(2, dtype=means.dtype)
    compensation = (torch.linalg.det(sharp) / torch.linalg.det(blurred)).clamp(min=0).sqrt()
    pixels = torch.func.vmap(lambda point: pixel(point, K, width, height, model))(points)
    return pixels, blurred, depth_of(points, model), compensation


def depth_of(points: Tensor, model: str) -> Tensor:
    """Return the depths `[N]` of camera-space points: their z, or for panoramas their distance."""
    return points.norm(dim=-1) if model == "equirectangular" else points[:, 2]


def composite(
    means2d: Tensor, covars2d: Tensor, opacities: Tensor, colors: Tensor, depths: Tensor, width: int, height: int,
    around: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return colours `[H, W, D]` and alphas `[H, W]` of the Gaussians in depth order.

    Where the image goes all the way `around`, a pixel sees a Gaussian on the shorter way.
    """
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=means2d.dtype) + 0.5, torch.arange(width, dtype=means2d.dtype) + 0.5, indexing="ij"
    )
    image = torch.zeros(height, width, colors.shape[-1], dtype=means2d.dtype)
    transmittance = torch.ones(height, width, dtype=means2d.dtype)
    done = torch.zeros(height, width, dtype=torch.bool)
    inverse = torch.linalg.inv(covars2d)
    for i in torch.argsort(depths, stable=True).tolist():
        across = columns - means2d[i, 0]
        if around:
            across = torch.remainder(across + 0.5 * width, width) - 0.5 * width
        offset = torch.stack([across, rows - means2d[i, 1]], dim=-1)
        sigma = 0.5 * torch.einsum("hwi,ij,hwj->hw", offset, inverse[i], offset)
        alpha = (opacities[i] * torch.exp(-sigma)).clamp(max=0.999)
        alpha = torch.where(alpha < 1.0 / 255.0, torch.zeros_like(alpha), alpha)
        after = transmittance * (1 - alpha)
        done = done | ((alpha > 0) & (after <= 1e-4))
        alpha = torch.where(done, torch.zeros_like(alpha), alpha)
        image = image + (alpha * transmittance)[..., None] * colors[i]
        transmittance = transmittance * (1 - alpha)
    return image, 1 - transmittance


def rasterize_one(
    means: Tensor, covars: Tensor, opacities: Tensor, colors: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int,
    near_plane: float = 0.01, eps2d: float = 0.3, antialiased: bool = False, model: str = "pinhole",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Draw one image: colours with the depth as last channel `[H, W, D + 1]`, and alphas `[H, W]`."""
    in_front = torch.nonzero(depth_of(means @ viewmat[:3, :3].mT + viewmat[:3, 3], model) >= near_plane)[:, 0]
    projected = project(means[in_front], covars[in_front], viewmat, K, width, height, eps2d, model)
    means2d, covars2d, depths, compensation = projected
    seen = opacities[in_front] * compensation if antialiased else opacities[in_front]
    features = torch.cat([colors[in_front], depths[:, None]], dim=-1)
    return composite(means2d, covars2d, seen, features, depths, width, height, around=model == "equirectangular")
