"""Pack a 4D scene for the player: a description in JSON and the arrays in one stretch of bytes.

What is packed is what the player evaluates, so every motion model moves in the browser as it does here:

    still       nothing moves.
    series      Gaussian-Flow: polynomial and Fourier terms of position, rotation and colour.
    pulse       native 4D and periodic vibration: a mean that flies straight (or swings) past a peak in time, and an
                opacity that fades with the distance from it. A native 4D Gaussian is cut once, here: its covariance does not
                depend on the time.
    frames      any other model: its state at evenly spaced times, linear in between.

The Gaussians that move come first, so that the player need not look at the others when the time changes. Numbers are
quantised to 16 bits between the least and the greatest of each column; scales, time scales by their logarithm. Where half
a step is more than `POSITION_TOLERANCE` of the scene's small Gaussians, positions and motions stay 32-bit floats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.cameras import quaternion_from_rotation
from worldline.gaussians import Gaussians
from worldline.motion import MODELS, gaussian_flow, native_4d, state_at

FORMAT = "worldline-player-1"
KEY_FRAMES_PER_S, MOST_KEY_FRAMES = 10.0, 60
# Share of the 5th percentile of the Gaussians' sizes that quantisation may move a Gaussian by.
POSITION_TOLERANCE = 0.05
_STEPS = 65535
# How the arrays of the motions are stored: the others "even", like colours.
_KINDS = {
    "centers": "exact", "rates": "exact", "peaks": "exact", "spreads": "logarithm", "position_terms": "position",
    "velocities": "position", "frame_means": "position", "frame_scales": "logarithm",
}  # fmt: skip


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
    first = np.unique(motion.moving)
    order = np.concatenate([motion.moving, np.setdiff1d(np.arange(count), first)]).astype(np.int64)
    quats, scales = _quats_and_scales(canonical)
    arrays: dict[str, tuple[np.ndarray, str]] = {
        "means": (_numpy(canonical.means)[order], "position"),
        "quats": (quats[order], "even"),
        "scales": (scales[order], "logarithm"),
        "opacities": (_numpy(canonical.opacities)[order], "even"),
        "colors": (_numpy(canonical.colors)[order], "even"),
    }
    if canonical.harmonics is not None and canonical.harmonics.shape[1]:
        arrays["harmonics"] = (_numpy(canonical.harmonics)[order].reshape(count, -1), "even")
    arrays |= {name: (array, _KINDS.get(name, "even")) for name, array in motion.arrays.items()}
    small = float(np.percentile(scales.max(axis=1), 5)) if count else 1.0
    described, data = {}, bytearray()
    for name, (array, kind) in arrays.items():
        described[name] = _append(data, array.astype(np.float32), kind, POSITION_TOLERANCE * small)
    header = {
        "format": FORMAT,
        "count": count,
        "moving": len(motion.moving),
        "motion": motion.kind,
        "settings": motion.settings,
        "note": motion.note,
        "model": scene.motion_model,
        "start": scene.start_s,
        "end": scene.end_s,
        "background": [float(value) for value in scene.background],
        "unit": "m" if scene.scale_source != "none" else "",
        "arrays": described,
    }
    return Packed(header, bytes(data))


def _require_finite(scene: Scene4D) -> None:
    named = {name: getattr(scene, name) for name in ("means", "quats", "scales", "opacities", "colors", "harmonics")}
    for name, array in (named | {f"motion.{name}": array for name, array in scene.motion.items()}).items():
        # An infinite life span is one way of saying that a Gaussian stays.
        if array is not None and np.isnan(array).any() or (name in named and array is not None and np.isinf(array).any()):
            raise WorldlineError(f"the scene's {name} hold numbers that are not finite: fit it again, or drop those Gaussians")


def _describe_motion(scene: Scene4D) -> tuple[Gaussians, _Motion]:
    """Return the Gaussians before motion, and the motion."""
    arrays = [torch.from_numpy(getattr(scene, name)) for name in ("means", "quats", "scales", "opacities", "colors")]
    harmonics = None if scene.harmonics is None else torch.from_numpy(scene.harmonics)
    canonical = Gaussians(*arrays, harmonics=harmonics)
    none = np.zeros(0, np.int64)
    if scene.motion_model not in MODELS:
        raise WorldlineError(f"the scene's motion model {scene.motion_model!r} is none of {', '.join(MODELS)}")
    if scene.motion_model == "static" or not len(scene.means) or scene.end_s <= scene.start_s:
        return (canonical if scene.motion_model == "static" else state_at(scene, scene.start_s)), _Motion("still", none, {}, {})
    match scene.motion_model:
        case "gaussian_flow":
            return canonical, _series(scene.motion)
        case "native_4d":
            return _native_4d(canonical, scene.motion)
        case "periodic_vibration":
            return canonical, _vibration(scene.motion)
    return _key_frames(scene)


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
    return _Motion("series" if len(moving) else "still", moving, arrays if len(moving) else {}, settings)


def _native_4d(canonical: Gaussians, motion: Mapping[str, np.ndarray]) -> tuple[Gaussians, _Motion]:
    tensors = {name: torch.from_numpy(array) for name, array in motion.items()}
    cut = native_4d.cut(canonical, tensors)
    arrays = {
        "velocities": _numpy(cut.velocities),
        "peaks": motion["times"],
        "spreads": np.sqrt(_numpy(cut.variances)),
    }
    settings = {"culled": native_4d.CULLED, "cycle": 0.0, "orders": 0}
    if (orders := motion.get("time_colors")) is not None and orders.shape[1]:
        arrays["time_colors"], settings["orders"] = orders, orders.shape[1]
    note = "view-dependent colour does not change with time" if "time_harmonics" in motion else ""
    still = canonical._replace(quats=None, scales=None, covars=cut.covars)
    return still, _Motion("pulse", np.arange(len(canonical.means)), arrays, settings, note)


def _vibration(motion: Mapping[str, np.ndarray]) -> _Motion:
    arrays = {"velocities": motion["velocities"], "peaks": motion["peaks"], "spreads": motion["lifespans"]}
    settings = {"culled": 0.0, "cycle": float(motion["cycle"].item()), "orders": 0}
    return _Motion("pulse", np.arange(len(motion["peaks"])), arrays, settings)


def _key_frames(scene: Scene4D) -> tuple[Gaussians, _Motion]:
    """Sample a model that the player cannot evaluate; the first sample is the state before motion."""
    span = scene.end_s - scene.start_s
    count = int(np.clip(round(span * KEY_FRAMES_PER_S) + 1, 2, MOST_KEY_FRAMES))
    states = [state_at(scene, scene.start_s + span * index / (count - 1)) for index in range(count)]
    shapes = [_quats_and_scales(state) for state in states]
    quats = np.stack([quat for quat, _ in shapes])
    for index in range(1, count):  # the same rotation has two quaternions: take the one near its neighbour's
        quats[index] *= np.where((quats[index] * quats[index - 1]).sum(axis=1, keepdims=True) < 0, -1, 1)
    tables = {
        "frame_means": np.stack([_numpy(state.means) for state in states], axis=1),
        "frame_quats": quats.swapaxes(0, 1),
        "frame_scales": np.stack([scales for _, scales in shapes], axis=1),
        "frame_opacities": np.stack([_numpy(state.opacities) for state in states], axis=1)[..., None],
        "frame_colors": np.stack([_numpy(state.colors) for state in states], axis=1),
    }
    changes = [np.ptp(table, axis=1).max(axis=1) > 0 for table in tables.values()]
    moving = np.flatnonzero(np.any(changes, axis=0))
    tables = {name: table[moving] for name, table in tables.items() if len(moving)}
    note = f"motion in steps of {span / (count - 1):.3g} s, linear in between"
    return states[0], _Motion("frames" if len(moving) else "still", moving, tables, {"frames": count}, note)


def _quats_and_scales(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    if gaussians.covars is None:
        quats = _numpy(gaussians.quats)
        lengths = np.linalg.norm(quats, axis=1, keepdims=True)
        return quats / np.maximum(lengths, 1e-12), _numpy(gaussians.scales)
    variances, axes = np.linalg.eigh(_numpy(gaussians.covars).astype(np.float64))
    axes *= np.linalg.det(axes)[:, None, None]  # a rotation, not a reflection
    return quaternion_from_rotation(axes), np.sqrt(np.maximum(variances, 0.0))


def _append(data: bytearray, array: np.ndarray, kind: str, tolerance: float) -> dict[str, Any]:
    """Quantise an array `[N, columns]` or `[N]`, append it, and return how to read it."""
    table = array.reshape(len(array), -1).astype(np.float64)
    columns = table.shape[1]
    entry: dict[str, Any] = {"at": len(data), "columns": columns, "length": int(table.size)}
    if kind == "logarithm":
        table = np.log(np.clip(table, 1e-12, 1e12))
    low = table.min(axis=0) if len(table) else np.zeros(columns)
    step = (table.max(axis=0) - low) / _STEPS if len(table) else np.zeros(columns)
    if kind == "exact" or (kind == "position" and len(table) and 0.5 * step.max() > tolerance):
        data += array.astype("<f4").tobytes()
        return entry | {"type": "float32"}
    codes = np.round((table - low) / np.where(step > 0, step, 1.0)).astype("<u2")
    data += codes.tobytes()
    data += bytes(-len(data) % 4)
    return entry | {"type": "uint16", "low": low.tolist(), "step": step.tolist(), "logarithm": kind == "logarithm"}


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().numpy())
