"""Rasterisers of 3D Gaussians and of surfels with the conventions of gsplat: numba kernels on the CPU, gsplat on CUDA."""

from worldline.splatting.cameras import Cameras
from worldline.splatting.rasterize import Rendering, rasterization, rasterize
from worldline.splatting.surfels import SurfelRendering, depth_distortion, normal_consistency, rasterize_surfels

__all__ = [
    "Cameras",
    "Rendering",
    "SurfelRendering",
    "depth_distortion",
    "normal_consistency",
    "rasterization",
    "rasterize",
    "rasterize_surfels",
]
