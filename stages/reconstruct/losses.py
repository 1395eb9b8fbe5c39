"""What a fit pays for: the difference of images, and what is asked of the scene beyond them."""

from collections.abc import Mapping

from torch import Tensor

from worldline.metrics import ssim
from worldline.metrics.images import WINDOW


def image_difference(image: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
    """Return (1 - w) L1 + w (1 - SSIM) of images `[H, W, 3]` (Kerbl et al. 2023, equation 7); L1 alone where SSIM has no room."""
    loss = (1.0 - ssim_weight) * (image - target).abs().mean()
    if ssim_weight and min(image.shape[:2]) >= WINDOW:
        loss = loss + ssim_weight * (1.0 - ssim(image, target))
    return loss


def bending(motion: Mapping[str, Tensor]) -> Tensor:
    """Return what Gaussian-Flow's motion has beyond straight lines, per moving Gaussian: L1 of all other coefficients."""
    count = max(len(motion["time_centers"]), 1)
    bent = motion["position_polynomial"][:, 1:].abs().sum() + motion["position_fourier"].abs().sum()
    turned = motion["rotation_polynomial"].abs().sum() + motion["color_polynomial"].abs().sum()
    return (bent + turned) / count
