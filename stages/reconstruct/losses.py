"""What a fit pays for: the difference of images, and what is asked of the scene beyond them.

All return one number, differentiable and zero for what they ask for. Prices on motion are in `worldline.motion.regularisers`,
those on surfels beside their rasteriser.
"""

from collections.abc import Mapping

from torch import Tensor

from worldline.metrics import ssim
from worldline.metrics.images import WINDOW

_CERTAIN = 1e-3  # shares of a pixel nearer to 0 or 1 count as this near: the logarithm has no end


def image_difference(image: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
    """Return (1 - w) L1 + w (1 - SSIM) of images `[H, W, 3]` (Kerbl et al. 2023, equation 7); L1 alone where SSIM has no room."""
    loss = (1.0 - ssim_weight) * (image - target).abs().mean()
    if ssim_weight and min(image.shape[:2]) >= WINDOW:
        loss = loss + ssim_weight * (1.0 - ssim(image, target))
    return loss


def depth_difference(depths: Tensor, alphas: Tensor, known: Tensor) -> Tensor:
    """Return the mean over pixels of known depth D of alpha |d - D| / D: relative, so that far and near count alike.

    The opacity itself is not moved: what is transparent shall not hide to be right.

    Args:
        depths: `[H, W]` drawn.
        alphas: `[H, W]` drawn.
        known: `[H, W]`, 0 where unknown.
    """
    there = known > 0
    error = (depths - known).abs() / known.clamp_min(1e-6) * alphas.detach()
    return (error * there).sum() / there.sum().clamp_min(1)


def mask_difference(shares: Tensor, mask: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of the share of a pixel that moving objects have `[H, W]` against a mask `[H, W]`."""
    shares = shares.clamp(_CERTAIN, 1.0 - _CERTAIN)
    wanted = mask.to(shares.dtype)
    return -(wanted * shares.log() + (1.0 - wanted) * (1.0 - shares).log()).mean()


def sky_opacity(alphas: Tensor, sky: Tensor) -> Tensor:
    """Return the mean opacity `[H, W]` of the pixels where only sky `[H, W]` is; 0 where there are none."""
    return (alphas * sky).sum() / sky.sum().clamp_min(1)


def bending(motion: Mapping[str, Tensor]) -> Tensor:
    """Return what Gaussian-Flow's motion has beyond straight lines, per moving Gaussian: L1 of all other coefficients."""
    count = max(len(motion["time_centers"]), 1)
    bent = motion["position_polynomial"][:, 1:].abs().sum() + motion["position_fourier"].abs().sum()
    turned = motion["rotation_polynomial"].abs().sum() + motion["color_polynomial"].abs().sum()
    return (bent + turned) / count
