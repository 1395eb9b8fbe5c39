"""Measures of images against references."""

from worldline.metrics.images import psnr, ssim

__all__ = ["psnr", "ssim"]
