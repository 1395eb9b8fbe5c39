"""Rasterisers of 3D Gaussians with the conventions of gsplat: numba kernels on the CPU, gsplat on CUDA."""

from worldline.splatting.cameras import Cameras
from worldline.splatting.rasterize import Rendering, rasterization, rasterize

__all__ = ["Cameras", "Rendering", "rasterization", "rasterize"]
