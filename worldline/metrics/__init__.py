"""Measures of images against references."""

from worldline.metrics.images import gradient_magnitude_similarity, psnr, ssim

__all__ = ["gradient_magnitude_similarity", "psnr", "ssim"]
