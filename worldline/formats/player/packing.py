"""Pack a 4D scene for the player: a description in JSON and the arrays in one stretch of bytes.

What is packed is what the player evaluates, so every motion model moves in the browser as it does here:

    still     nothing moves.
    series    Gaussian-Flow: polynomial and Fourier terms of position, rotation and colour.
    pulse     native 4D, periodic vibration and birth: a mean that flies straight (or swings) past a peak in time, and an
              opacity that fades with the distance from it. A native 4D Gaussian is cut once, here: its covariance is the same
              at all times.
    rigid     Gaussians that ride in boxes with poses.

What is lost: the change with time of native 4D's view-dependent colour (its colour from all sides changes), and surfels, which
are drawn as flat Gaussians by the projection of their covariance. The page says so where it applies.

The Gaussians that move come first, so that the player need not look at the others when the time changes. Numbers are
quantised to 16 bits between the least and the greatest of each column, scales and life spans by their logarithm. Positions and
motions stay 32-bit floats where half a step is more than `POSITION_TOLERANCE` of the scene's small Gaussians.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.cameras import quaternion_from_rotation
from worldline.gaussians import Gaussians
from worldline.motion import gaussian_flow, native_4d

FORMAT = "worldline-player-1"
_CANONICAL = ("means", "quats", "scales", "opacities", "colors")
# Share of the 5th percentile of the Gaussians' sizes that quantisation may move a Gaussian by.
POSITION_TOLERANCE = 0.05
_STEPS = 65535
_SURFELS = "The scene's surfels are drawn as flat Gaussians: at grazing angles they look thicker than they are."
_POSITIONS = ("means", "position_terms", "velocities")
_SPREADS = ("scales", "spreads")
# A small error in when a Gaussian is where is a large one in where it is when.
_EXACT = ("centers", "rates", "peaks", "starts", "ends", "agents", "agent_times", "agent_quats", "agent_positions", "agent_alive")


@dataclass(frozen=True)
class Packed:
    """A scene as the player reads it.

    Attributes:
        header: JSON: counts, times, the motion's kind and settings, and where each array lies in `data`.
        data: the arrays, each aligned to 4 bytes.
    """

    header: dict[str, Any]
    data: bytes


@dataclass(frozen=True)
class _Motion:
    """How the player moves a scene: what kind, of which Gaussians (the others stand still), with what numbers."""

    kind: str
    moving: np.ndarray
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]
    note: str = ""


def pack_scene(scene: Scene4D) -> Packed:
    """Return what the player needs of a scene.

    Raises:
        WorldlineError: if an array of the scene holds a number that is not finite.
    """
    _require_finite(scene)
    canonical, motion = _describe_motion(scene)
    count = len(canonical.means)
    still = np.ones(count, bool)
    still[motion.moving] = False
    order = np.concatenate([motion.moving, np.flatnonzero(still)]).astype(np.int64)
    quats, scales = _quats_and_scales(canonical)
    arrays = {
        "means": scene.means[order],
        "quats": quats[order],
        "scales": scales[order],
        "opacities": scene.opacities[order],
        "colors": scene.colors[order],
    }
    terms = 0
    if scene.harmonics is not None and scene.harmonics.shape[1]:
        arrays["harmonics"], terms = scene.harmonics[order], scene.harmonics.shape[1]
    arrays |= motion.arrays
    tolerance = POSITION_TOLERANCE * float(np.percentile(scales.max(axis=1), 5)) if count else 1.0
    described, data = {}, bytearray()
    for name, array in arrays.items():
        described[name] = _append(data, name, array.astype(np.float32), tolerance)
    header = {
        "format": FORMAT,
        "count": count,
        "moving": len(motion.moving),
        "motion": motion.kind,
        "settings": motion.settings,
        "terms": terms,
        "note": " ".join(filter(None, [motion.note, _SURFELS if scene.primitive == "surfel" else ""])),
        "model": scene.motion_model,
        "start": scene.start_s,
        "end": scene.end_s,
        "background": [float(value) for value in scene.background],
        "unit": "m" if scene.scale_source != "none" else "",
        "arrays": described,
    }
    return Packed(header, bytes(data))


def _require_finite(scene: Scene4D) -> None:
    shown = {name: getattr(scene, name) for name in (*_CANONICAL, "harmonics")}
    for name, array in shown.items():
        if array is not None and not np.isfinite(array).all():
            raise WorldlineError(f"the scene's {name} are not all finite numbers: fit it again, or drop those Gaussians")
    for name, array in scene.motion.items():
        if np.isnan(array).any():  # an infinite life span is one way of saying that a Gaussian stays
            raise WorldlineError(f"the scene's motion {name} are not all numbers: fit it again, or drop those Gaussians")


def _describe_motion(scene: Scene4D) -> tuple[Gaussians, _Motion]:
    """Return the Gaussians before motion, in the shapes that they keep, and the motion."""
    canonical = Gaussians(*(torch.from_numpy(getattr(scene, name)) for name in _CANONICAL))
    match scene.motion_model:
        case "static":
            return canonical, _Motion("still", np.zeros(0, np.int64), {}, {})
        case "gaussian_flow":
            return canonical, _series(scene.motion)
        case "native_4d":
            return _native_4d(canonical, scene.motion)
        case "periodic_vibration":
            settings = {"culled": 0.0, "cycle": float(scene.motion["cycle"].item()), "orders": 0}
            return canonical, _pulse(scene.motion, settings)
        case "gaussian_birth":
            return canonical, _pulse(scene.motion, {"culled": 0.0, "cycle": 0.0, "orders": 0})
        case "rigid_agents":
            return canonical, _rigid(scene.motion)
    raise WorldlineError(f"the player does not know the scene's motion model {scene.motion_model!r}")


def _series(motion: Mapping[str, np.ndarray]) -> _Motion:
    moving = motion["moving"]
    rates = motion.get("time_rates", np.full(len(moving), gaussian_flow.TIME_SCALE, np.float32))
    arrays = {"rates": rates, "centers": motion["time_centers"]}
    settings = {}
    for attribute in ("position", "rotation", "color"):
        polynomial, fourier = motion[f"{attribute}_polynomial"], motion[f"{attribute}_fourier"]
        settings[attribute] = [polynomial.shape[1], fourier.shape[1] // 2]
        terms = np.concatenate([polynomial, fourier], axis=1)
        if terms.shape[1]:
            arrays[f"{attribute}_terms"] = terms
    return _Motion("series", moving, arrays, settings) if len(moving) else _Motion("still", moving, {}, {})


def _native_4d(canonical: Gaussians, motion: Mapping[str, np.ndarray]) -> tuple[Gaussians, _Motion]:
    sizes = torch.cat([cast(torch.Tensor, canonical.scales), torch.from_numpy(motion["time_scales"])[:, None]], dim=1)
    cut = native_4d.cut(cast(torch.Tensor, canonical.quats), torch.from_numpy(motion["right_quats"]), sizes)
    arrays = {"velocities": cut.velocities.numpy(), "peaks": motion["times"], "spreads": cut.variances.sqrt().numpy()}
    settings = {"culled": native_4d.CULLED, "cycle": 0.0, "orders": 0}
    if (orders := motion.get("time_colors")) is not None and orders.shape[1]:
        arrays["time_colors"], settings["orders"] = orders, orders.shape[1]
    note = "View-dependent colour is shown without its change with time." if "time_harmonics" in motion else ""
    still = canonical._replace(quats=None, scales=None, covars=cut.covars)
    return still, _Motion("pulse", np.arange(len(canonical.means)), arrays, settings, note)


def _pulse(motion: Mapping[str, np.ndarray], settings: dict[str, Any]) -> _Motion:
    arrays = {"velocities": motion["velocities"], "peaks": motion["peaks"], "spreads": motion["lifespans"]}
    arrays |= {name: motion[name] for name in ("starts", "ends") if name in motion}
    stays = ~motion["velocities"].any(axis=1) & np.isinf(motion["lifespans"])
    stays &= np.isinf(motion.get("starts", -np.inf)) & np.isinf(motion.get("ends", np.inf))
    moving = np.flatnonzero(~stays)
    return _Motion("pulse", moving, {name: array[moving] for name, array in arrays.items()}, settings)


def _rigid(motion: Mapping[str, np.ndarray]) -> _Motion:
    moving = np.flatnonzero(motion["agents"] > 0)
    tables = {name: motion[name] for name in ("agent_times", "agent_quats", "agent_positions", "agent_alive")}
    settings = {"agents": len(motion["agent_quats"]), "times": len(motion["agent_times"])}
    return _Motion("rigid", moving, {"agents": motion["agents"][moving] - 1, **tables}, settings)


def _quats_and_scales(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rotations and standard deviations, of given ones or of covariances."""
    if gaussians.covars is None:
        quats = cast(torch.Tensor, gaussians.quats).numpy()
        lengths = np.linalg.norm(quats, axis=1, keepdims=True)
        return quats / np.maximum(lengths, 1e-12), cast(torch.Tensor, gaussians.scales).numpy()
    variances, axes = np.linalg.eigh(gaussians.covars.numpy().astype(np.float64))
    axes *= np.linalg.det(axes)[:, None, None]  # a rotation, not a reflection
    return quaternion_from_rotation(axes), np.sqrt(np.maximum(variances, 0.0))


def _append(data: bytearray, name: str, array: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Quantise an array whose last axes are columns, append it, and return how to read it."""
    table = array.reshape(len(array), -1).astype(np.float64) if array.size else np.zeros((0, 1))
    entry: dict[str, Any] = {"at": len(data), "length": table.size}
    if name in _SPREADS:
        table = np.log(np.clip(table, 1e-12, 1e12))
    low = table.min(axis=0, initial=np.inf) if len(table) else np.zeros(1)
    step = (table.max(axis=0, initial=-np.inf) - low) / _STEPS if len(table) and name not in _EXACT else np.zeros(table.shape[1])
    if name in _EXACT or (name in _POSITIONS and 0.5 * step.max(initial=0.0) > tolerance):
        data += array.astype("<f4").tobytes()
        return entry | {"type": "float32"}
    data += np.round((table - low) / np.where(step > 0, step, 1.0)).astype("<u2").tobytes()
    data += bytes(-len(data) % 4)
    return entry | {"type": "uint16", "low": low.tolist(), "step": step.tolist(), "logarithm": name in _SPREADS}
