"""Draw Gaussians: `rasterize` on our own types, and `rasterization` with the signature of gsplat 1.5.3 under it."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.splatting.cameras import Cameras
from worldline.splatting.compositing import Composite
from worldline.splatting.harmonics import DC, MAXIMUM_DEGREE, harmonic_degree, view_colors
from worldline.splatting.projection import Project

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]

# Arguments of gsplat that only the CUDA kernels have, with the values that mean "off".
_OFF: dict[str, Any] = {
    "sparse_grad": False,
    "absgrad": False,
    "distributed": False,
    "segmented": False,
    "with_ut": False,
    "with_eval3d": False,
    "radial_coeffs": None,
    "tangential_coeffs": None,
    "thin_prism_coeffs": None,
    "ftheta_coeffs": None,
    "viewmats_rs": None,
}


class Rendering(NamedTuple):
    """Images of Gaussians.

    Attributes:
        colors: `[..., C, H, W, 3]`.
        alphas: `[..., C, H, W, 1]`.
        depths: `[..., C, H, W, 1]` mean camera z of what a pixel shows, weighted by its share, or None.
        features: `[..., C, H, W, F]` composited like colours before black, or None.
        meta: what the rasteriser knows of the projected Gaussians; see `rasterization`.
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor | None
    features: Tensor | None
    meta: dict[str, Any]


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    features: Tensor | None = None,
    depths: bool = False,
    backgrounds: Tensor | None = None,
    antialiased: bool = False,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    radius_clip: float = 0.0,
) -> Rendering:
    """Draw Gaussians into cameras, differentiably.

    Args:
        gaussians: at one moment, or at several with leading batch dimensions.
        cameras: with the same leading dimensions.
        features: `[..., N, F]` further channels: velocities, one-hot instances, anything.
        depths: whether to return depths.
        backgrounds: `[..., C, 3]` colours behind; black where not given.
        antialiased: dim small Gaussians by what `eps2d` blows them up (Mip-Splatting).
        near_plane: Gaussians whose centre is nearer are not drawn.
        far_plane: Gaussians whose centre is farther are not drawn.
        eps2d: variance in square pixels added to every projected Gaussian.
        radius_clip: Gaussians with a radius in pixels of at most this are not drawn.
    """
    channels, sh_degree = _channels(gaussians, cameras, features)
    if backgrounds is not None and features is not None:
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(*backgrounds.shape[:-1], features.shape[-1])], dim=-1)
    images, alphas, meta = rasterization(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        channels,
        cameras.camera_from_world,
        cameras.intrinsics,
        cameras.width,
        cameras.height,
        near_plane=near_plane,
        far_plane=far_plane,
        radius_clip=radius_clip,
        eps2d=eps2d,
        sh_degree=sh_degree,
        backgrounds=backgrounds,
        render_mode="RGB+ED" if depths else "RGB",
        rasterize_mode="antialiased" if antialiased else "classic",
        camera_model=cameras.model,
        covars=gaussians.covars,
    )
    return Rendering(
        colors=images[..., :3],
        alphas=alphas,
        depths=images[..., -1:] if depths else None,
        features=None if features is None else images[..., 3 : 3 + features.shape[-1]],
        meta=meta,
    )


def _channels(gaussians: Gaussians, cameras: Cameras, features: Tensor | None) -> tuple[Tensor, int | None]:
    """Return what `rasterization` takes as colours, and as sh_degree.

    gsplat's kernels evaluate harmonics themselves, but not beside features: then, and on the CPU, it is done before.
    """
    colors, harmonics = gaussians.colors, gaussians.harmonics
    if harmonics is not None:
        if features is None and gaussians.means.is_cuda:
            first = (colors.unsqueeze(-2) - 0.5) / DC
            return torch.cat([first, harmonics], dim=-2), harmonic_degree(harmonics.shape[-2])
        colors = view_colors(gaussians.means, colors, harmonics, cameras.camera_from_world)
    if features is None:
        return colors, None
    if harmonics is not None:
        features = features.unsqueeze(-3).expand(*colors.shape[:-1], features.shape[-1])
    return torch.cat([colors, features], dim=-1), None


def rasterization(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
    *,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    camera_model: str = "pinhole",
    covars: Tensor | None = None,
    **cuda_only: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Draw Gaussians into images, differentiably.

    On CUDA tensors this is `gsplat.rasterization` itself; on CPU tensors our own kernels give the same images. Every input
    but `Ks` is differentiable. The result does not depend on the number of threads.

    Args:
        means: `[..., N, 3]` in the world.
        quats: `[..., N, 4]` wxyz, of any length; not read where `covars` is given.
        scales: `[..., N, 3]` linear; not read where `covars` is given.
        opacities: `[..., N]` in [0, 1].
        colors: `[..., N, D]`, or `[..., C, N, D]` for colours by camera. Any number of channels.
        viewmats: `[..., C, 4, 4]` camera_from_world, OpenCV axes.
        Ks: `[..., C, 3, 3]` in pixels, pixel centres at +0.5.
        width: of the images in pixels.
        height: of the images in pixels.
        near_plane: Gaussians whose centre is nearer are not drawn.
        far_plane: Gaussians whose centre is farther are not drawn.
        radius_clip: Gaussians with a radius in pixels of at most this are not drawn.
        eps2d: variance in square pixels added to every projected Gaussian.
        sh_degree: if given, `colors` are coefficients of spherical harmonics, `[..., N, K, 3]` or `[..., C, N, K, 3]`, of which
            degrees up to this one are used; colours are 0.5 more than their sum, and at least 0.
        packed: memory layout of the CUDA kernels; no effect on the CPU, where `meta` is never packed.
        tile_size: of the CUDA kernels; no effect on the CPU.
        backgrounds: `[..., C, D]`.
        render_mode: colours, accumulated depth (D), expected depth (ED), or colours with one of them as last channel.
        rasterize_mode: "antialiased" dims small Gaussians by what `eps2d` blows them up (Mip-Splatting).
        channel_chunk: of the CUDA kernels; no effect on the CPU.
        camera_model: only "pinhole" is supported on the CPU.
        covars: `[..., N, 3, 3]` symmetric covariances instead of quats and scales.
        **cuda_only: gsplat's other arguments; on the CPU they must be off.

    Returns:
        Colours `[..., C, H, W, D]`, alphas `[..., C, H, W, 1]` and a dictionary with `means2d`, `depths`, `conics`,
        `radii`, `opacities` (`[..., C, N, ...]`), `width`, `height` and `n_cameras`.

    Raises:
        TypeError: for an argument that gsplat does not have.
        NotImplementedError: for an argument that the CPU kernels do not support.
        ValueError: for shapes that do not fit together.
    """
    if means.is_cuda:
        # gsplat builds and loads its kernels on first touch, which fails without a device: only import it here.
        import gsplat

        given = {name: value for name, value in locals().items() if name not in ("cuda_only", "gsplat")}
        return gsplat.rasterization(**given, **cuda_only)
    _refuse_unsupported(cuda_only, camera_model, render_mode, rasterize_mode)
    if sh_degree is not None and "RGB" in render_mode:
        colors = _evaluate(means, colors, viewmats, sh_degree)
    batch, cameras = _check_shapes(means, quats, scales, opacities, colors, viewmats, Ks, covars, backgrounds, render_mode)
    settings = (width, height, near_plane, far_plane, eps2d, radius_clip, rasterize_mode == "antialiased")
    count = means.shape[-2]
    flat = means.reshape(-1, count, 3)
    none = means.new_zeros(flat.shape[0], 0, 4), means.new_zeros(flat.shape[0], 0, 3), means.new_zeros(flat.shape[0], 0, 3, 3)
    rotations = none[0] if covars is not None or quats is None else quats.reshape(-1, count, 4)
    sizes = none[1] if covars is not None or scales is None else scales.reshape(-1, count, 3)
    shapes = none[2] if covars is None else (0.5 * (covars + covars.mT)).reshape(-1, count, 3, 3)
    views, intrinsics = viewmats.reshape(-1, cameras, 4, 4), Ks.reshape(-1, cameras, 3, 3)
    alpha = opacities.reshape(-1, count)
    projected = [
        Project.apply(flat[b], rotations[b], sizes[b], shapes[b], alpha[b], views[b, c], intrinsics[b, c], settings)
        for b in range(flat.shape[0])
        for c in range(cameras)
    ]
    means2d, conics, depths, compensations, radii = (torch.stack(parts) for parts in zip(*projected, strict=True))
    shown2d = means2d.reshape(*batch, cameras, count, 2)  # on the path of the gradient, so that users may retain it
    means2d = shown2d.reshape(-1, count, 2)
    seen = alpha.repeat_interleave(cameras, dim=0)
    if rasterize_mode == "antialiased":
        seen = seen * compensations
    features = _features(colors, depths, batch, cameras, render_mode)
    drawn = [
        Composite.apply(means2d[n], conics[n], seen[n], features[n], depths[n], radii[n], width, height)
        for n in range(len(means2d))
    ]
    images, alphas = torch.stack([image for image, _ in drawn]), torch.stack([alpha for _, alpha in drawn])[..., None]
    if backgrounds is not None and "RGB" in render_mode:
        behind = backgrounds.reshape(-1, 1, 1, backgrounds.shape[-1])
        if render_mode != "RGB":
            behind = torch.cat([behind, torch.zeros_like(behind[..., :1])], dim=-1)
        images = images + (1.0 - alphas) * behind
    if render_mode.endswith("ED"):
        images = torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    meta: dict[str, Any] = {"conics": conics, "depths": depths, "radii": radii, "opacities": seen}
    meta = {name: value.reshape(*batch, cameras, *value.shape[1:]) for name, value in meta.items()}
    meta |= {"means2d": shown2d, "width": width, "height": height, "n_cameras": cameras}
    return images.reshape(*batch, cameras, *images.shape[1:]), alphas.reshape(*batch, cameras, *alphas.shape[1:]), meta


def _features(colors: Tensor, depths: Tensor, batch: torch.Size, cameras: int, render_mode: str) -> Tensor:
    """Return what is composited: `[B * C, N, D]` colours, depth, or both."""
    if render_mode in ("D", "ED"):
        return depths[..., None]
    if colors.dim() == len(batch) + 2:
        colors = colors.unsqueeze(-3).expand(*batch, cameras, *colors.shape[-2:])
    colors = colors.reshape(len(depths), *colors.shape[-2:])
    return colors if render_mode == "RGB" else torch.cat([colors, depths[..., None]], dim=-1)


def _evaluate(means: Tensor, coefficients: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """Return the colours `[..., C, N, 3]` of gsplat's coefficients `[..., (C,) N, K, 3]` up to a degree."""
    count = (degree + 1) ** 2
    if not 0 <= degree <= MAXIMUM_DEGREE:
        raise ValueError(f"rasterization: sh_degree must be from 0 to {MAXIMUM_DEGREE}, got {degree}")
    if coefficients.dim() < 3 or coefficients.shape[-1] != 3 or coefficients.shape[-2] < count:
        shape = list(coefficients.shape)
        raise ValueError(
            f"rasterization: with sh_degree {degree}, colors must have shape [..., N, K, 3], K >= {count}, got {shape}"
        )
    return view_colors(means, 0.5 + DC * coefficients[..., 0, :], coefficients[..., 1:count, :], viewmats)


def _refuse_unsupported(cuda_only: dict[str, Any], camera_model: str, render_mode: str, rasterize_mode: str) -> None:
    for name, value in cuda_only.items():
        if name == "rolling_shutter":
            if getattr(value, "name", "GLOBAL") != "GLOBAL":
                raise NotImplementedError("rasterization: rolling_shutter needs CUDA tensors; the CPU kernels know only GLOBAL")
        elif name not in _OFF:
            raise TypeError(f"rasterization() got an unexpected keyword argument {name!r}")
        elif value is not _OFF[name]:
            raise NotImplementedError(f"rasterization: {name} needs CUDA tensors; the CPU kernels support only {_OFF[name]}")
    if camera_model != "pinhole":
        raise NotImplementedError(f"rasterization: camera_model {camera_model!r} is not supported on the CPU, only 'pinhole'")
    if render_mode not in ("RGB", "D", "ED", "RGB+D", "RGB+ED"):
        raise ValueError(f"rasterization: render_mode {render_mode!r} is none of RGB, D, ED, RGB+D, RGB+ED")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f"rasterization: rasterize_mode {rasterize_mode!r} is neither 'classic' nor 'antialiased'")


def _check_shapes(
    means: Tensor, quats: Tensor | None, scales: Tensor | None, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    covars: Tensor | None, backgrounds: Tensor | None, render_mode: str,
) -> tuple[torch.Size, int]:  # fmt: skip
    """Return the batch dimensions and the number of cameras.

    Raises:
        ValueError: naming the first argument whose shape does not fit, and the shape it should have.
    """
    batch, count, cameras = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("means", means, (*batch, count, 3)),
        ("opacities", opacities, (*batch, count)),
        ("viewmats", viewmats, (*batch, cameras, 4, 4)),
        ("Ks", Ks, (*batch, cameras, 3, 3)),
    ]
    if covars is not None:
        expected.append(("covars", covars, (*batch, count, 3, 3)))
    else:
        expected += [("quats", quats, (*batch, count, 4)), ("scales", scales, (*batch, count, 3))]
    if "RGB" in render_mode:
        by_camera = (cameras,) if colors.dim() == len(batch) + 3 else ()
        expected.append(("colors", colors, (*batch, *by_camera, count, colors.shape[-1])))
        if backgrounds is not None:
            expected.append(("backgrounds", backgrounds, (*batch, cameras, colors.shape[-1])))
    for name, tensor, shape in expected:
        if tensor is None or tuple(tensor.shape) != shape:
            got = None if tensor is None else list(tensor.shape)
            raise ValueError(f"rasterization: {name} must have shape {list(shape)}, got {got}")
        if tensor.dtype != means.dtype:
            raise ValueError(f"rasterization: {name} is {tensor.dtype} but means are {means.dtype}")
    return batch, cameras
