"""PSNR, SSIM and gradient-magnitude similarity of images in [0, 1]."""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from worldline.threads import map_pieces

_C1, _C2 = 0.01**2, 0.03**2
WINDOW = 11  # pixels across the Gaussian window, sigma 1.5
_GMS_C = 170.0 / 255.0**2  # the paper's constant, which is for grey levels up to 255
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, clamping the image to [0, 1] first.

    Args:
        image: `[H, W, D]`.
        target: `[H, W, D]`.
        mask: `[H, W]` bool, the pixels that count; all by default.

    Returns:
        -10 log10 of the mean squared error: infinite for equal images, NaN where no pixel counts.
    """
    error = (image.clamp(0.0, 1.0).double() - target.double()).square()
    if mask is not None:
        error = error[mask]
    if not error.numel():
        return math.nan
    mean = float(error.mean())
    return -10.0 * math.log10(mean) if mean > 0 else math.inf


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean structural similarity, differentiable by `image`.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004: an 11x11 Gaussian
    window with sigma 1.5, K1 = 0.01, K2 = 0.03, dynamic range 1, averaged over the channels and over the pixels whose
    window lies inside the image. CPU only.

    Args:
        image: `[H, W, D]`, at least 11 pixels on each side.
        target: `[H, W, D]` of the same dtype.

    Raises:
        ValueError: if the image is smaller than the window or the shapes differ.
    """
    if image.shape != target.shape or min(image.shape[:2]) < WINDOW:
        raise ValueError(
            f"ssim needs two images of one size, at least {WINDOW} px, got {list(image.shape)}, {list(target.shape)}"
        )
    return _Ssim.apply(image, target)


def gradient_magnitude_similarity(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Return how alike the edges of two images are: 1 for equal ones.

    The mean over the pixels of the similarity map of Xue et al., "Gradient magnitude similarity deviation: a highly
    efficient perceptual image quality index", 2014, eq. 4 and 5 (their GMSM): Prewitt gradients of the luma after a 2x2
    mean and a step of two pixels. Clamps the image to [0, 1] first.

    Args:
        image: `[H, W, 3]`.
        target: `[H, W, 3]`.
        mask: `[H, W]` bool; a pixel of the reduced map counts where one of its four pixels does. All count by default.

    Returns:
        The mean similarity; NaN where no pixel counts.

    Raises:
        ValueError: if the shapes differ or a side is shorter than 6 pixels.
    """
    if image.shape != target.shape or min(image.shape[:2]) < 6:
        shapes = f"{list(image.shape)}, {list(target.shape)}"
        raise ValueError(f"gradient_magnitude_similarity needs two images of one size, at least 6 px, got {shapes}")
    first, second = _gradient_magnitude(image.clamp(0.0, 1.0)), _gradient_magnitude(target)
    similarity = (2 * first * second + _GMS_C) / (first.square() + second.square() + _GMS_C)
    if mask is not None:
        similarity = similarity[torch.nn.functional.max_pool2d(mask[None, None].float(), 2)[0, 0, 1:-1, 1:-1] > 0]
    return float(similarity.mean()) if similarity.numel() else math.nan


def _gradient_magnitude(image: Tensor) -> Tensor:
    """Return the Prewitt gradient's length `[H // 2 - 2, W // 2 - 2]` of the halved luma, where its window lies inside."""
    luma = torch.einsum("hwc,c->hw", image.double(), torch.tensor(_LUMA, dtype=torch.float64))
    half = torch.nn.functional.avg_pool2d(luma[None, None], 2)
    across = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64).expand(3, 3) / 3
    slopes = torch.nn.functional.conv2d(half, torch.stack([across, across.T])[:, None])
    return slopes.square().sum(dim=1).sqrt()[0]


def _window(dtype: np.dtype) -> np.ndarray:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / 1.5) ** 2)
    return (weights / weights.sum()).astype(dtype)


@numba.njit(nogil=True, cache=True)
def _blur(source, window, out):  # type: ignore[no-untyped-def]
    """Filter `[H, W, K]` to `[H - 10, W - 10, K]`, rows first; the channels run in the innermost loop."""
    height, width, channels = source.shape
    flat = width * channels
    rows = np.zeros((height - WINDOW + 1, flat), source.dtype)
    lines = source.reshape(height, flat)
    for y in range(len(rows)):
        for k in range(WINDOW):
            for x in range(flat):
                rows[y, x] += window[k] * lines[y + k, x]
    span = (width - WINDOW + 1) * channels
    result = out.reshape(len(rows), span)
    for y in range(len(rows)):
        for x in range(span):
            result[y, x] = 0
        for k in range(WINDOW):
            for x in range(span):
                result[y, x] += window[k] * rows[y, x + k * channels]


@numba.njit(nogil=True, cache=True)
def _spread(source, window, out):  # type: ignore[no-untyped-def]
    """Apply the transpose of `_blur`."""
    height, width, channels = out.shape
    flat, span = width * channels, source.shape[1] * channels
    columns = np.zeros((source.shape[0], flat), source.dtype)
    lines, result = source.reshape(source.shape[0], span), out.reshape(height, flat)
    for y in range(len(lines)):
        for k in range(WINDOW):
            for x in range(span):
                columns[y, x + k * channels] += window[k] * lines[y, x]
    result[:] = 0
    for y in range(len(lines)):
        for k in range(WINDOW):
            for x in range(flat):
                result[y + k, x] += window[k] * columns[y, x]


@numba.njit(nogil=True, cache=True)
def _compare(image, target, moments):  # type: ignore[no-untyped-def]
    """Write x, y, x^2, y^2 and xy, each with all channels."""
    height, width, channels = image.shape
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                x, y = image[i, j, k], target[i, j, k]
                moments[0, i, j, k], moments[1, i, j, k] = x, y
                moments[2, i, j, k], moments[3, i, j, k], moments[4, i, j, k] = x * x, y * y, x * y


@numba.njit(nogil=True, cache=True)
def _similarity(means, slopes):  # type: ignore[no-untyped-def]
    """Return the summed SSIM and write its derivatives by the blurred x, x^2 and xy."""
    total = 0.0
    _, height, width, channels = means.shape
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                mx, my = means[0, i, j, k], means[1, i, j, k]
                vx, vy, cov = means[2, i, j, k] - mx * mx, means[3, i, j, k] - my * my, means[4, i, j, k] - mx * my
                a1, a2 = 2 * mx * my + _C1, 2 * cov + _C2
                b1, b2 = mx * mx + my * my + _C1, vx + vy + _C2
                value = a1 * a2 / (b1 * b2)
                total += value
                by_variance, by_covariance = -value / b2, 2 * a1 / (b1 * b2)
                slopes[0, i, j, k] = 2 * my * a2 / (b1 * b2) - 2 * mx * value / b1 - 2 * mx * by_variance - my * by_covariance
                slopes[1, i, j, k], slopes[2, i, j, k] = by_variance, by_covariance
    return total


class _Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image, target):  # type: ignore[no-untyped-def]
        x, y = image.detach().contiguous().numpy(), target.detach().contiguous().numpy()
        window, inner = _window(x.dtype), (x.shape[0] - WINDOW + 1, x.shape[1] - WINDOW + 1, x.shape[2])
        moments, means, slopes = (np.empty((n, *shape), x.dtype) for n, shape in ((5, x.shape), (5, inner), (3, inner)))
        _compare(x, y, moments)
        map_pieces(lambda moment: _blur(moments[moment], window, means[moment]), 5)
        total = _similarity(means, slopes)
        ctx.saved = x, y, window, slopes
        return image.new_tensor(total / means[0].size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v):  # type: ignore[no-untyped-def]
        x, y, window, slopes = ctx.saved
        spread = np.empty((3, *x.shape), x.dtype)
        map_pieces(lambda slope: _spread(slopes[slope], window, spread[slope]), 3)
        gradient = spread[0] + 2 * x * spread[1] + y * spread[2]
        return torch.from_numpy(gradient) * (v / slopes[0].size), None
