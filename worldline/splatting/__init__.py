"""Rasterisers of 3D Gaussians with the conventions of gsplat: numba kernels on the CPU, gsplat on CUDA."""

from worldline.splatting.rasterize import rasterization

__all__ = ["rasterization"]
