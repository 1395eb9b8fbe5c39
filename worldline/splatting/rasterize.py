"""Draw Gaussians: `rasterize` on our own types, and `rasterization` with the signature of gsplat 1.5.3 under it."""

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from worldline.gaussians import Gaussians
from worldline.splatting.cameras import Cameras
from worldline.splatting.compositing import ALPHA_MAXIMUM, Composite
from worldline.splatting.harmonics import DC, MAXIMUM_DEGREE, harmonic_degree, view_colors
from worldline.splatting.projection import MODELS, Project, Settings

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
_RENDER_MODES = get_args(RenderMode)
_TENSORS = ("means", "quats", "scales", "covars", "opacities", "colors", "viewmats", "Ks", "backgrounds")

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
        depths: `[..., C, H, W, 1]` mean depth of what a pixel shows, weighted by its share, or None. The depth is the camera's
            z of a Gaussian's centre; for equirectangular cameras its distance.
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
    """Draw Gaussians into cameras, differentiably by everything but the intrinsics.

    Args:
        gaussians: at one moment, or at several with leading batch dimensions.
        cameras: with the same leading dimensions.
        features: `[..., N, F]` further channels: velocities, one-hot instances, anything.
        depths: whether to return depths.
        backgrounds: `[..., C, 3]` colours behind; black where not given.
        antialiased: dim small Gaussians by what `eps2d` blows them up (Mip-Splatting).
        near_plane: Gaussians whose centre is nearer are not drawn; measured like depths.
        far_plane: Gaussians whose centre is farther are not drawn.
        eps2d: variance in square pixels added to every projected Gaussian.
        radius_clip: Gaussians with a radius in pixels of at most this are not drawn.

    Raises:
        ValueError: for shapes that do not fit together, and on the CPU for numbers that are NaN or infinite.
        NotImplementedError: for equirectangular cameras on CUDA.
    """
    _check_channels(gaussians, cameras, features, backgrounds)
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
    """Draw Gaussians into images, differentiably, with the arguments of gsplat 1.5.3.

    On CUDA tensors this is `gsplat.rasterization` itself; on CPU tensors our own kernels give the same images. Every input
    but `Ks` is differentiable. The result does not depend on the number of threads.

    Args:
        means: `[..., N, 3]` in the world.
        quats: `[..., N, 4]` wxyz, of any length; not read where `covars` is given.
        scales: `[..., N, 3]` linear, the sign has no effect; not read where `covars` is given.
        opacities: `[..., N]` in [0, 1].
        colors: `[..., N, D]`, or `[..., C, N, D]` for colours by camera. Any number of channels.
        viewmats: `[..., C, 4, 4]` camera_from_world, OpenCV axes.
        Ks: `[..., C, 3, 3]` in pixels, pixel centres at +0.5; not read for equirectangular cameras.
        width: of the images in pixels.
        height: of the images in pixels.
        near_plane: Gaussians whose centre is nearer are not drawn. Measured like depths.
        far_plane: Gaussians whose centre is farther are not drawn.
        radius_clip: Gaussians with a radius in pixels of at most this are not drawn.
        eps2d: variance in square pixels added to every projected Gaussian.
        sh_degree: if given, `colors` are coefficients of spherical harmonics, `[..., N, K, 3]` or `[..., C, N, K, 3]`, of which
            degrees up to this one are used; colours are 0.5 more than their sum, and at least 0.
        packed: memory layout of the CUDA kernels; no effect on the CPU, where `meta` is never packed.
        tile_size: of the CUDA kernels; no effect on the CPU.
        backgrounds: `[..., C, D]`.
        render_mode: colours, accumulated depth (D), expected depth (ED), or colours with one of them as last channel.
            Depth is the centre's camera z; for equirectangular cameras its distance.
        rasterize_mode: "antialiased" dims small Gaussians by what `eps2d` blows them up (Mip-Splatting).
        channel_chunk: of the CUDA kernels; no effect on the CPU.
        camera_model: "pinhole", "ortho", "fisheye", or, on the CPU, "equirectangular"; see `worldline.splatting.Cameras`.
        covars: `[..., N, 3, 3]` symmetric covariances instead of quats and scales.
        **cuda_only: gsplat's other arguments; on the CPU they must be off.

    Returns:
        Colours `[..., C, H, W, D]`, alphas `[..., C, H, W, 1]` and a dictionary with `means2d`, `depths`, `conics`,
        `radii`, `opacities` (`[..., C, N, ...]`), `width`, `height` and `n_cameras`.

    Raises:
        TypeError: for an argument that gsplat does not have.
        NotImplementedError: for an argument that the CPU kernels, or gsplat's, do not support.
        ValueError: for shapes that do not fit together, and on the CPU for numbers that are NaN or infinite.
    """
    given = {name: value for name, value in locals().items() if name != "cuda_only"}
    if means.is_cuda:
        return _on_cuda(given, cuda_only)
    return _on_cpu(_Request(**given), cuda_only)


def _on_cuda(given: dict[str, Any], cuda_only: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    if given["camera_model"] == "equirectangular":
        message = "rasterization: gsplat has no equirectangular cameras; draw on the CPU, or six pinhole cameras around the point"
        raise NotImplementedError(message)
    # gsplat builds and loads its kernels on first touch, which fails without a device: only import it here.
    import gsplat

    return gsplat.rasterization(**given, **cuda_only)


class _Request(NamedTuple):
    """The arguments of `rasterization`."""

    means: Tensor
    quats: Tensor | None
    scales: Tensor | None
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    packed: bool
    tile_size: int
    backgrounds: Tensor | None
    render_mode: str
    rasterize_mode: str
    channel_chunk: int
    camera_model: str
    covars: Tensor | None


def _on_cpu(request: _Request, cuda_only: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    _refuse_unsupported(cuda_only, request)
    batch, cameras = _check_shapes(request)
    unread = ("quats", "scales") if request.covars is not None else ()
    _refuse_infinite({name: getattr(request, name) for name in _TENSORS if name not in unread})
    if request.sh_degree is not None and "RGB" in request.render_mode:
        colors = _evaluate(request.means, request.colors, request.viewmats, request.sh_degree)
        request = request._replace(colors=colors)
    means2d, conics, depths, compensations, radii = _project(request, math.prod(batch), cameras)
    shown2d = means2d.reshape(*batch, *means2d.shape[1:])  # on the path of the gradient, so that users may retain it
    means2d = shown2d.reshape(means2d.shape)
    opacities = request.opacities.reshape(len(depths), 1, depths.shape[-1]).expand_as(depths)
    if request.rasterize_mode == "antialiased":
        opacities = opacities * compensations
    images, alphas = _composite(request, means2d, conics, opacities, depths, radii)
    meta: dict[str, Any] = {"conics": conics, "depths": depths, "radii": radii, "opacities": opacities}
    meta = {name: value.reshape(*batch, *value.shape[1:]) for name, value in meta.items()}
    meta |= {"means2d": shown2d, "width": request.width, "height": request.height, "n_cameras": cameras}
    return images.reshape(*batch, cameras, *images.shape[1:]), alphas.reshape(*batch, cameras, *alphas.shape[1:]), meta


def _project(request: _Request, moments: int, cameras: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return pixels, conics, depths, compensations and radii, `[B, C, N, ...]`, of B moments and C cameras each."""
    means, count = request.means, request.means.shape[-2]
    quats, scales, covars = means.new_zeros(moments, 0, 4), means.new_zeros(moments, 0, 3), means.new_zeros(moments, 0, 3, 3)
    if request.covars is not None:
        covars = (0.5 * (request.covars + request.covars.mT)).reshape(moments, count, 3, 3)
    elif request.quats is not None and request.scales is not None:
        quats, scales = request.quats.reshape(moments, count, 4), request.scales.reshape(moments, count, 3)
    settings = Settings(
        MODELS[request.camera_model], int(request.width), int(request.height), float(request.near_plane),
        float(request.far_plane), float(request.eps2d), float(request.radius_clip), request.rasterize_mode == "antialiased",
    )  # fmt: skip
    return Project.apply(
        means.reshape(moments, count, 3), quats, scales, covars, request.opacities.reshape(moments, count),
        request.viewmats.reshape(moments, cameras, 4, 4), request.Ks.reshape(moments, cameras, 3, 3), settings,
    )  # fmt: skip


def _composite(
    request: _Request, means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor
) -> tuple[Tensor, Tensor]:
    """Return images `[B * C, H, W, D]` and alphas `[B * C, H, W, 1]` of projected Gaussians `[B, C, N, ...]`.

    Images are drawn one by one from views of what they share: unbind, whose gradient is one stack, not a sum of as many
    arrays with zeros for all other images.
    """
    (moments, cameras), mode, drawn = depths.shape[:2], request.render_mode, []
    shared = request.colors.dim() == request.means.dim()
    colors = request.colors.reshape(moments, 1 if shared else cameras, *request.colors.shape[-2:]) if "RGB" in mode else None
    own_colors = None if colors is None else [moment.unbind(0) for moment in colors.unbind(0)]
    parts = [tensor.flatten(0, 1).unbind(0) for tensor in (means2d, conics, opacities, depths, radii)]
    for image, (pixels, conic, opacity, depth, radius) in enumerate(zip(*parts, strict=True)):
        b, c = divmod(image, cameras)
        channels = depth[:, None]
        if own_colors is not None:
            color = own_colors[b][0 if shared else c]
            channels = color if mode == "RGB" else torch.cat([color, channels], dim=-1)
        splats = (pixels, conic, opacity, channels, depth, radius)
        if request.camera_model == "equirectangular":
            splats = _across_the_seam(*splats, request.width)
        drawn.append(Composite.apply(*splats, request.width, request.height))
    if not drawn:
        channels_ = 1 if request.render_mode in ("D", "ED") else request.colors.shape[-1] + (mode != "RGB")
        empty = request.means.new_zeros(0, request.height, request.width, channels_)
        return empty, empty[..., :1]
    images, alphas = torch.stack([image for image, _ in drawn]), torch.stack([alpha for _, alpha in drawn])[..., None]
    if request.backgrounds is not None and "RGB" in mode:
        behind = request.backgrounds.reshape(-1, 1, 1, request.backgrounds.shape[-1])
        if mode != "RGB":
            behind = torch.cat([behind, torch.zeros_like(behind[..., :1])], dim=-1)
        images = images + (1.0 - alphas) * behind
    if mode.endswith("ED"):
        images = torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    return images, alphas


def _across_the_seam(
    means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, depths: Tensor, radii: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return a panorama's Gaussians, those that reach over its left or right edge also one turn further.

    One that is wider than half a turn, as at the poles, meets itself: its opacity is shared among its copies, so that together
    they have at its centre the alpha of one.
    """
    position, reach = means2d.detach()[:, 0], radii[:, 0]
    wide = torch.nonzero(2 * reach > width)[:, 0]
    if len(wide):
        a, b, c = conics[wide].unbind(-1)
        times = 1.0 + 2.0 * torch.exp(-0.5 * width**2 * (a - b * b / c))
        shared = 1.0 - (1.0 - opacities[wide].clamp(max=ALPHA_MAXIMUM)) ** (1.0 / times)
        opacities = opacities.index_put((wide,), shared)
    left, right = torch.nonzero(position < reach)[:, 0], torch.nonzero(position > width - reach)[:, 0]
    if len(left) + len(right) == 0:
        return means2d, conics, opacities, colors, depths, radii
    turn = means2d.new_zeros(len(left) + len(right), 2)
    turn[: len(left), 0], turn[len(left) :, 0] = width, -width
    again = torch.cat([left, right])
    copied = [torch.cat([tensor, tensor[again]]) for tensor in (conics, opacities, colors, depths, radii)]
    conics, opacities, colors, depths, radii = copied
    return torch.cat([means2d, means2d[again] + turn]), conics, opacities, colors, depths, radii


def _evaluate(means: Tensor, coefficients: Tensor, viewmats: Tensor, degree: int) -> Tensor:
    """Return the colours `[..., C, N, 3]` of gsplat's coefficients `[..., (C,) N, K, 3]` up to a degree."""
    return view_colors(means, 0.5 + DC * coefficients[..., 0, :], coefficients[..., 1 : (degree + 1) ** 2, :], viewmats)


def _refuse_unsupported(cuda_only: dict[str, Any], request: _Request) -> None:
    for name, value in cuda_only.items():
        if name == "rolling_shutter":
            if getattr(value, "name", "GLOBAL") != "GLOBAL":
                raise NotImplementedError("rasterization: rolling_shutter needs CUDA tensors; the CPU kernels know only GLOBAL")
        elif name not in _OFF:
            raise TypeError(f"rasterization() got an unexpected keyword argument {name!r}")
        elif value is not _OFF[name]:
            raise NotImplementedError(f"rasterization: {name} needs CUDA tensors; the CPU kernels support only {_OFF[name]}")
    if request.camera_model == "ftheta":
        raise NotImplementedError("rasterization: camera_model 'ftheta' needs CUDA tensors")
    choices = {"camera_model": tuple(MODELS), "render_mode": _RENDER_MODES, "rasterize_mode": ("classic", "antialiased")}
    for name, known in choices.items():
        if getattr(request, name) not in known:
            raise ValueError(f"rasterization: {name} {getattr(request, name)!r} is none of {', '.join(known)}")
    for name in ("width", "height"):
        if getattr(request, name) < 1:
            raise ValueError(f"rasterization: {name} must be at least 1 pixel, got {getattr(request, name)}")


def _refuse_infinite(tensors: dict[str, Tensor | None]) -> None:
    """Refuse NaN and infinite numbers, at the price of one sum per tensor where there are none.

    Raises:
        ValueError: naming the first such tensor and how many of its numbers are bad.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not math.isfinite(float(tensor.detach().sum())):
            bad = ~torch.isfinite(tensor.detach())
            if bad.any():  # a sum of large finite numbers may overflow
                where = torch.nonzero(bad)[0].tolist()
                raise ValueError(
                    f"rasterization: {name} has {int(bad.sum())} of {bad.numel()} numbers NaN or infinite, the first at {where}"
                )


def _check(name: str, tensor: Tensor | None, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise ValueError unless a tensor has a shape, and the dtype and device of the means."""
    if tensor is None or tuple(tensor.shape) != shape:
        got = None if tensor is None else list(tensor.shape)
        raise ValueError(f"rasterization: {name} must have shape {list(shape)}, got {got}")
    if tensor.dtype != like.dtype:
        raise ValueError(f"rasterization: {name} is {tensor.dtype} but means are {like.dtype}")
    if tensor.device != like.device:
        raise ValueError(f"rasterization: {name} is on {tensor.device} but means are on {like.device}")


def _check_channels(gaussians: Gaussians, cameras: Cameras, features: Tensor | None, backgrounds: Tensor | None) -> None:
    """Check what `rasterize` puts together before `rasterization` sees it."""
    means, harmonics = gaussians.means, gaussians.harmonics
    if means.dim() < 2 or means.shape[-1] != 3:
        raise ValueError(f"rasterization: means must have shape [..., N, 3], got {list(means.shape)}")
    batch, count = tuple(means.shape[:-2]), means.shape[-2]
    _check("colors", gaussians.colors, (*batch, count, 3), means)
    if harmonics is not None:
        _check("harmonics", harmonics, (*batch, count, harmonics.shape[-2] if harmonics.dim() > 1 else 0, 3), means)
        harmonic_degree(harmonics.shape[-2])
        _check_cameras(means, cameras.camera_from_world)
    if features is not None:
        _check("features", features, (*batch, count, features.shape[-1]), means)
    if backgrounds is not None:
        _check("backgrounds", backgrounds, (*batch, cameras.camera_from_world.shape[-3], 3), means)
    if not means.is_cuda:  # where looking would wait for the device
        evaluated = {} if harmonics is None else {"colors": gaussians.colors, "viewmats": cameras.camera_from_world}
        _refuse_infinite({"harmonics": harmonics, "features": features, **evaluated})


def _check_cameras(means: Tensor, viewmats: Tensor) -> None:
    cameras = viewmats.shape[-3] if viewmats.dim() > 2 else 1
    _check("viewmats", viewmats, (*means.shape[:-2], cameras, 4, 4), means)


def _check_shapes(request: _Request) -> tuple[torch.Size, int]:
    """Return the batch dimensions and the number of cameras.

    Raises:
        ValueError: naming the first argument whose shape or type does not fit, and what it should be.
    """
    means, colors = request.means, request.colors
    if means.dim() < 2 or means.shape[-1] != 3:
        raise ValueError(f"rasterization: means must have shape [..., N, 3], got {list(means.shape)}")
    if means.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rasterization: means must be float32 or float64, got {means.dtype}")
    _check_cameras(means, request.viewmats)
    batch, count, cameras = means.shape[:-2], means.shape[-2], request.viewmats.shape[-3]
    _check("opacities", request.opacities, (*batch, count), means)
    _check("Ks", request.Ks, (*batch, cameras, 3, 3), means)
    if request.covars is not None:
        _check("covars", request.covars, (*batch, count, 3, 3), means)
    else:
        _check("quats", request.quats, (*batch, count, 4), means)
        _check("scales", request.scales, (*batch, count, 3), means)
    if "RGB" in request.render_mode:
        last = colors.shape[-1:]
        if request.sh_degree is not None:
            last = _check_coefficients(colors, request.sh_degree)
        by_camera = (cameras,) if colors.dim() == len(batch) + 2 + len(last) else ()
        _check("colors", colors, (*batch, *by_camera, count, *last), means)
        if request.backgrounds is not None:
            _check("backgrounds", request.backgrounds, (*batch, cameras, colors.shape[-1]), means)
    return batch, cameras


def _check_coefficients(colors: Tensor, degree: int) -> torch.Size:
    """Return the last two dimensions (K, 3) of coefficients that suffice for a degree."""
    if not 0 <= degree <= MAXIMUM_DEGREE:
        raise ValueError(f"rasterization: sh_degree must be from 0 to {MAXIMUM_DEGREE}, got {degree}")
    if colors.dim() < 3 or colors.shape[-1] != 3 or colors.shape[-2] < (degree + 1) ** 2:
        wanted = f"[..., N, K, 3] with K of at least {(degree + 1) ** 2}"
        raise ValueError(f"rasterization: with sh_degree {degree}, colors must have shape {wanted}, got {list(colors.shape)}")
    return colors.shape[-2:]
