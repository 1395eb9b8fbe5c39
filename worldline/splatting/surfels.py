"""Draw surfels, flat Gaussians that know their normals, and the two losses that lay them onto surfaces.

Huang, Yu, Chen, Geiger, Gao, "2D Gaussian splatting for geometrically accurate radiance fields", 2024. Conventions are those
of gsplat 1.5.3's `rasterization_2dgs`, which is what draws CUDA tensors; CPU tensors go through our own kernels.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.splatting.cameras import Cameras
from worldline.splatting.harmonics import view_colors
from worldline.splatting.surfel_compositing import CompositeSurfels
from worldline.splatting.surfel_kernels import ProjectSurfels


class SurfelRendering(NamedTuple):
    """Images of surfels.

    Attributes:
        colors: `[..., C, H, W, 3]`.
        alphas: `[..., C, H, W, 1]`.
        depths: `[..., C, H, W, 1]` mean camera z of what a pixel shows, weighted by its share; 0 where that is nothing.
        median_depths: `[..., C, H, W, 1]` camera z of the last surfel before which more than half of the light passes;
            0 where there is none.
        normals: `[..., C, H, W, 3]` in the world, turned to the camera, composited: as long as the pixel is opaque.
        surface_normals: `[..., C, H, W, 3]` in the world, of unit length: normals of the surface that the rendered depths
            form. 0 on the image's border.
        distortion: `[..., C, H, W, 1]` sum over pairs of surfels of the product of their shares and their distance in depth.
        features: `[..., C, H, W, F]` composited like colours before black, or None.
        meta: `means2d` `[..., C, N, 2]` pixels of the centres (retain its gradient to see how hard images pull), `depths`,
            `radii` (0 for what is not seen), `normals` `[..., C, N, 3]` of the surfels in the world; on CUDA, gsplat's own.
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor
    median_depths: Tensor
    normals: Tensor
    surface_normals: Tensor
    distortion: Tensor
    features: Tensor | None
    meta: dict[str, Any]


def rasterize_surfels(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    features: Tensor | None = None,
    backgrounds: Tensor | None = None,
    depth_at: Literal["center", "hit"] = "center",
    surface: Literal["expected", "median"] = "expected",
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
) -> SurfelRendering:
    """Draw surfels into cameras, differentiably by everything but the intrinsics.

    The result does not depend on the number of threads. A surfel whose ellipse crosses the camera's plane is drawn where it
    lies in front of it; one seen edge-on, or of no size, is a spot of less than a pixel.

    Args:
        gaussians: at one moment, or at several with leading batch dimensions; with quats and scales, of which the first two
            are the standard deviations along the first two axes and the third is not read. The third axis is the normal.
        cameras: pinhole cameras with the same leading dimensions.
        features: `[..., N, F]` further channels.
        backgrounds: `[..., C, 3]` colours behind; black where not given.
        depth_at: the depth of a surfel at a pixel is that of its centre, as in gsplat, or of the point where the ray meets
            it, as in the paper ("hit", on the CPU only).
        surface: which depths `surface_normals` are taken from.
        near_plane: surfels whose centre is nearer are not drawn.
        far_plane: surfels whose centre is farther are not drawn.
        radius_clip: surfels with a radius in pixels of at most this are not drawn.

    Raises:
        ValueError: for shapes or types that do not fit together, for covariances, and for values that are not finite.
        NotImplementedError: for cameras that are not pinholes, and for `depth_at="hit"` on CUDA.
    """
    _check(gaussians, cameras, features, backgrounds, depth_at, surface)
    channels = _channels(gaussians, cameras, features)
    behind = None
    if backgrounds is not None:
        behind = torch.cat([backgrounds, backgrounds.new_zeros(*backgrounds.shape[:-1], channels.shape[-1] - 3)], dim=-1)
    draw = _on_cuda if gaussians.means.is_cuda else _on_cpu
    return draw(gaussians, cameras, channels, behind, depth_at, surface, (near_plane, far_plane, radius_clip))


def normals_of_depths(depths: Tensor, cameras: Cameras) -> Tensor:
    """Return the world normals `[..., C, H, W, 3]` of the surface that depths `[..., C, H, W, 1]` form, turned to the camera.

    Cross product of central differences of the points; 0 on the image's border.
    """
    if min(cameras.width, cameras.height) < 3:
        return depths.new_zeros(*depths.shape[:-1], 3)
    columns = torch.arange(cameras.width, dtype=depths.dtype, device=depths.device) + 0.5
    rows = torch.arange(cameras.height, dtype=depths.dtype, device=depths.device) + 0.5
    K = cameras.intrinsics[..., None, None, :, :]
    x, y = (columns - K[..., 0, 2]) / K[..., 0, 0], (rows[:, None] - K[..., 1, 2]) / K[..., 1, 1]
    z = depths[..., 0]
    points = torch.stack([x * z, y * z, z], dim=-1)
    right = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    down = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    normals = normals @ cameras.camera_from_world[..., None, :3, :3]
    return torch.nn.functional.pad(normals, (0, 0, 1, 1, 1, 1))


def normal_consistency(rendering: SurfelRendering) -> Tensor:
    """Return the mean over pixels of sum_i w_i (1 - n_i . N): surfels' normals against those of the surface they form.

    Huang et al. 2024, equation 14, each pixel weighed with how opaque it is, as in the authors' program: at an outline, the
    depths form no surface. The opacity itself is not moved, so that the term turns surfels and does not hide them.
    """
    opaque = rendering.alphas.detach()
    shown = rendering.surface_normals.detach().square().sum(dim=-1, keepdim=True) > 0
    agreement = (rendering.normals * rendering.surface_normals).sum(dim=-1, keepdim=True)
    return (shown * opaque * (opaque - agreement)).mean()


def depth_distortion(rendering: SurfelRendering) -> Tensor:
    """Return the mean over pixels of the depth distortion: surfels that share a pixel draw together.

    gsplat's form of Huang et al. 2024, equation 13: distances in depth, not their squares.
    """
    return rendering.distortion.mean()


def _channels(gaussians: Gaussians, cameras: Cameras, features: Tensor | None) -> Tensor:
    """Return what is composited, by camera: `[..., C, N, 3 + F]`."""
    eyes = cameras.camera_from_world.shape[-3]
    colors = gaussians.colors.unsqueeze(-3).expand(*gaussians.colors.shape[:-2], eyes, *gaussians.colors.shape[-2:])
    if gaussians.harmonics is not None:
        colors = view_colors(gaussians.means, gaussians.colors, gaussians.harmonics, cameras.camera_from_world)
    if features is None:
        return colors
    return torch.cat([colors, features.unsqueeze(-3).expand(*colors.shape[:-1], features.shape[-1])], dim=-1)


def _on_cpu(
    gaussians: Gaussians, cameras: Cameras, channels: Tensor, behind: Tensor | None, depth_at: str, surface: str,
    limits: tuple[float, float, float],
) -> SurfelRendering:  # fmt: skip
    """Draw with our own kernels."""
    shape = channels.shape[:-1]  # [..., C, N]
    eyes, count = shape[-2:]
    scenes = math.prod(shape[:-2])
    means, quats, scales = (tensor.reshape(scenes, count, tensor.shape[-1]) for tensor in gaussians[:3])  # type: ignore[union-attr]
    opacities = gaussians.opacities.reshape(scenes, count)
    colors = channels.reshape(scenes * eyes, count, channels.shape[-1])
    poses, matrices = cameras.camera_from_world.reshape(-1, 4, 4), cameras.intrinsics.reshape(-1, 3, 3)
    size = (cameras.width, cameras.height)
    projected = [
        ProjectSurfels.apply(means[b], quats[b], scales[b], opacities[b], poses[n], matrices[n], (*size, *limits))
        for n in range(len(poses))
        for b in [n // eyes]
    ]
    means2d, planes, normals, radii, boxes = (torch.stack(parts) for parts in zip(*projected, strict=True))
    shown2d = means2d.reshape(*shape, 2)  # on the path of the gradient, so that users may retain it
    means2d = shown2d.reshape(scenes * eyes, count, 2)
    colors = torch.cat([colors, normals], dim=-1)
    drawn = [
        CompositeSurfels.apply(means2d[n], planes[n], opacities[n // eyes], colors[n], boxes[n], *size, depth_at == "hit")
        for n in range(len(poses))
    ]
    images, planes_ = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    images = images.reshape(*shape[:-1], *images.shape[1:])
    alphas, sums, medians, distortion = planes_.reshape(*shape[:-1], *planes_.shape[1:])[..., None].unbind(-4)
    color_images, normal_images = images[..., :-3], images[..., -3:]
    if behind is not None:
        color_images = color_images + (1.0 - alphas) * behind[..., None, None, :]
    depths = sums / alphas.clamp(min=1e-10)
    meta = {"depths": planes[..., 6], "radii": radii, "normals": normals}
    meta = {name: value.reshape(*shape, *value.shape[2:]) for name, value in meta.items()}
    return SurfelRendering(
        colors=color_images[..., :3],
        alphas=alphas,
        depths=depths,
        median_depths=medians,
        normals=normal_images,
        surface_normals=normals_of_depths(medians if surface == "median" else depths, cameras),
        distortion=distortion,
        features=color_images[..., 3:] if color_images.shape[-1] > 3 else None,
        meta={"means2d": shown2d, **meta, "width": cameras.width, "height": cameras.height, "n_cameras": eyes},
    )


def _on_cuda(
    gaussians: Gaussians, cameras: Cameras, channels: Tensor, behind: Tensor | None, depth_at: str, surface: str,
    limits: tuple[float, float, float],
) -> SurfelRendering:  # fmt: skip
    """Draw with gsplat's kernels."""
    if depth_at != "center":
        raise NotImplementedError("rasterize_surfels: depth_at='hit' needs CPU tensors; gsplat knows only depths of centres")
    # gsplat builds and loads its kernels on first touch, which fails without a device: only import it here.
    import gsplat

    near_plane, far_plane, radius_clip = limits
    images, alphas, normals, surface_normals, distortion, medians, meta = gsplat.rasterization_2dgs(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, channels, cameras.camera_from_world,
        cameras.intrinsics, cameras.width, cameras.height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip,
        backgrounds=behind, render_mode="RGB+ED", distloss=True, depth_mode=surface,
    )  # fmt: skip
    return SurfelRendering(
        colors=images[..., :3],
        alphas=alphas,
        depths=images[..., -1:],
        median_depths=medians,
        normals=normals,
        surface_normals=surface_normals.reshape(normals.shape),  # gsplat drops a leading 1
        distortion=distortion,
        features=images[..., 3:-1] if channels.shape[-1] > 3 else None,
        meta=meta,
    )


def _check(
    gaussians: Gaussians, cameras: Cameras, features: Tensor | None, backgrounds: Tensor | None, depth_at: str, surface: str
) -> None:
    """Raise naming the first argument that does not fit."""
    if gaussians.covars is not None:
        raise ValueError("rasterize_surfels: a surfel is made of quats and scales, but covars are given")
    if cameras.model != "pinhole":
        raise NotImplementedError(f"rasterize_surfels: cameras must be pinholes, not {cameras.model!r}")
    if depth_at not in ("center", "hit"):
        raise ValueError(f"rasterize_surfels: depth_at {depth_at!r} is neither 'center' nor 'hit'")
    if surface not in ("expected", "median"):
        raise ValueError(f"rasterize_surfels: surface {surface!r} is neither 'expected' nor 'median'")
    means, views = gaussians.means, cameras.camera_from_world
    if means.dim() < 2 or views.dim() < 3:
        shapes = f"{list(means.shape)} and {list(views.shape)}"
        raise ValueError(f"rasterize_surfels: means must be [..., N, 3] and cameras [..., C, 4, 4], got {shapes}")
    batch, count, eyes = means.shape[:-2], means.shape[-2], views.shape[-3]
    if not math.prod(batch) * eyes:
        raise ValueError(f"rasterize_surfels: no camera: camera_from_world has shape {list(views.shape)}")
    wide = 0 if features is None else features.shape[-1]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("means", means, (*batch, count, 3)),
        ("quats", gaussians.quats, (*batch, count, 4)),
        ("scales", gaussians.scales, (*batch, count, 3)),
        ("opacities", gaussians.opacities, (*batch, count)),
        ("colors", gaussians.colors, (*batch, count, 3)),
        ("camera_from_world", views, (*batch, eyes, 4, 4)),
        ("intrinsics", cameras.intrinsics, (*batch, eyes, 3, 3)),
    ]
    if gaussians.harmonics is not None:
        expected.append(("harmonics", gaussians.harmonics, (*batch, count, gaussians.harmonics.shape[-2], 3)))
    expected += [] if features is None else [("features", features, (*batch, count, wide))]
    expected += [] if backgrounds is None else [("backgrounds", backgrounds, (*batch, eyes, 3))]
    for name, tensor, shape in expected:
        if tensor is None or tuple(tensor.shape) != shape:
            got = None if tensor is None else list(tensor.shape)
            raise ValueError(f"rasterize_surfels: {name} must have shape {list(shape)}, got {got}")
        if tensor.dtype != means.dtype:
            raise ValueError(f"rasterize_surfels: {name} is {tensor.dtype} but means are {means.dtype}")
        if not tensor.is_cuda and not torch.isfinite(tensor).all():
            raise ValueError(f"rasterize_surfels: {name} must be finite, but holds NaN or infinite values")
