"""A scene at one moment, as plain arrays: what every file format without time holds.

Colours are those of the 3D Gaussian splatting literature: the file's constant coefficient f_dc is (colour - 0.5) / C0, and
the coefficients of degrees 1 and up are the scene's `harmonics` as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.cameras import quaternion_from_rotation
from worldline.motion import state_at
from worldline.splatting.harmonics import DC

C0 = DC  # the constant spherical harmonic, 1 / (2 sqrt(pi))
FAINTEST = 1.0 / 255.0  # rasterisers draw nothing of a Gaussian that is weaker than this
THINNEST = 1e-9  # share of the largest scale that stands for a surfel's third one, whose logarithm no file can hold

# number of harmonics of degrees 1 and up -> the degree they reach
DEGREE_OF_COUNT = {0: 0, 3: 1, 8: 2, 15: 3}


@dataclass(frozen=True)
class Moment:
    """Gaussians at one time.

    Attributes:
        means: `[N, 3]`.  quats: `[N, 4]` wxyz, unit.  scales: `[N, 3]` linear, positive.
        opacities: `[N]` in [0, 1].  colors: `[N, 3]` RGB seen from all sides, 0.5 + C0 f_dc.
        harmonics: `[N, K, 3]` of degrees 1 and up, K in (3, 8, 15), or None.
        rows: `[N]` their places in the scene.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    harmonics: np.ndarray | None
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.means)

    def taken(self, rows: np.ndarray) -> "Moment":
        """Return some of the Gaussians, by index or mask."""
        harmonics = None if self.harmonics is None else self.harmonics[rows]
        parts = (self.means, self.quats, self.scales, self.opacities, self.colors)
        means, quats, scales, opacities, colors = (array[rows] for array in parts)
        return Moment(means, quats, scales, opacities, colors, harmonics, self.rows[rows])


def moment_at(scene: Scene4D, time_s: float, faintest: float = FAINTEST) -> Moment:
    """Return the Gaussians that can be seen at a time; covariances become quaternions and scales.

    Args:
        scene: any motion model.
        time_s: seconds of the clip.
        faintest: Gaussians of a lower opacity are left out.

    Raises:
        WorldlineError: if a parameter is not finite; the sentence names it.
    """
    state = state_at(scene, time_s)
    means, opacities, colors = (array.detach().double().numpy() for array in (state.means, state.opacities, state.colors))
    harmonics = None if state.harmonics is None else state.harmonics.detach().double().numpy()
    if state.covars is not None:
        covars = state.covars.detach().double().numpy()
        _refuse_nan({"covariances": covars})
        quats, scales = quats_and_scales(covars)
    else:
        quats, scales = (cast(Tensor, array).detach().double().numpy() for array in (state.quats, state.scales))
    arrays = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors, "harmonics": harmonics}
    _refuse_nan(arrays)
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    if not lengths.all():
        raise WorldlineError(f"{int((lengths == 0).sum())} quats of the scene have length 0: they name no rotation, remove them")
    scales = np.maximum(scales, THINNEST * np.maximum(scales.max(axis=1, keepdims=True, initial=0.0), 1e-12))
    everything = Moment(
        means, quats / lengths, scales, np.clip(opacities, 0.0, 1.0), colors, harmonics, rows=np.arange(len(means))
    )
    return everything.taken(np.flatnonzero(opacities >= faintest))


def _refuse_nan(arrays: dict[str, np.ndarray | None]) -> None:
    for name, array in arrays.items():
        if array is None or np.isfinite(array).all():
            continue
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        raise WorldlineError(f"{bad} of {len(array)} Gaussians of the scene have {name} that are not finite: remove them first")


def moment_of_file(path: Path, harmonics: np.ndarray | None = None, **arrays: np.ndarray) -> Moment:
    """Return what was read from a file, with unit quaternions.

    Args:
        path: for what is said of it.
        harmonics: `[N, K, 3]` or None.
        arrays: means, quats, scales, opacities, colors.

    Raises:
        WorldlineError: if it holds nothing, or values that are no Gaussian's; the sentence names the file and the field.
    """
    if not len(arrays["means"]):
        raise WorldlineError(f"{path} holds no Gaussians: name a file that has some")
    for name, array in {**arrays, "harmonics": harmonics}.items():
        if array is not None and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
            raise WorldlineError(
                f"{path} is damaged: {bad} of its {len(array)} Gaussians have {name} that are not finite; export it again"
            )
    lengths = np.linalg.norm(arrays["quats"], axis=1, keepdims=True)
    if not lengths.all():
        raise WorldlineError(f"{path} is damaged: {int((lengths == 0).sum())} of its rotations have length 0; export it again")
    rows = np.arange(len(lengths))
    return Moment(**{**arrays, "quats": arrays["quats"] / lengths}, harmonics=harmonics, rows=rows)


def joined(moments: Sequence[Moment]) -> Moment:
    """Return all Gaussians as one moment; harmonics are widened with zeros to the highest degree among them."""
    count = max(0 if moment.harmonics is None else moment.harmonics.shape[1] for moment in moments)
    wide = [np.zeros((len(moment), count, 3)) for moment in moments]
    for harmonics, moment in zip(wide, moments, strict=True):
        if moment.harmonics is not None:
            harmonics[:, : moment.harmonics.shape[1]] = moment.harmonics
    names = ("means", "quats", "scales", "opacities", "colors")
    arrays = {name: np.concatenate([getattr(moment, name) for moment in moments]) for name in names}
    rows = np.arange(len(arrays["means"]))
    return Moment(**arrays, harmonics=np.concatenate(wide) if count else None, rows=rows)


def shown_at(scene: Scene4D, at_s: float | None, path: Path) -> tuple[Moment, float]:
    """Return what a file of one moment shows, and when that is in seconds of the clip.

    Args:
        scene: any motion model.
        at_s: when; the nearest moment that the scene has, None for its first.
        path: of the file, for what is said of it.

    Raises:
        WorldlineError: if nothing is seen then.
    """
    time_s = scene.start_s if at_s is None else min(max(at_s, scene.start_s), scene.end_s)
    return some(moment_at(scene, time_s), path, time_s), time_s


def some(moment: Moment, path: Path, time_s: float) -> Moment:
    """Return the moment; refuse one of no Gaussians."""
    if not len(moment):
        raise WorldlineError(f"{path} was not written: the scene shows no Gaussian at {time_s:g} s; choose another time")
    return moment


def quats_and_scales(covars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split covariances `[N, 3, 3]` into unit quaternions `[N, 4]` wxyz and scales `[N, 3]`, the largest first.

    The axes are eigenvectors, made right-handed by turning the last round.
    """
    variances, axes = np.linalg.eigh(covars)
    variances, axes = variances[:, ::-1], axes[:, :, ::-1].copy()
    axes[:, :, 2] *= np.sign(np.linalg.det(axes))[:, None]
    return quaternion_from_rotation(axes), np.sqrt(np.maximum(variances, 0.0))


def harmonics_degree(moment: Moment) -> int:
    """Return the degree of a moment's harmonics, 0 where it has none.

    Raises:
        WorldlineError: if it is higher than 3, which no file format holds.
    """
    count = 0 if moment.harmonics is None else moment.harmonics.shape[1]
    if count not in DEGREE_OF_COUNT:
        raise WorldlineError(f"{count} harmonics per Gaussian make no degree up to 3: keep the first 3, 8 or 15")
    return DEGREE_OF_COUNT[count]


def static_scene(moment: Moment, time_s: float = 0.0) -> Scene4D:
    """Return a static scene of what a file held."""
    return scene_of(moment, "static", {}, time_s, time_s)


def scene_of(
    moment: Moment,
    motion_model: str,
    motion: dict[str, np.ndarray],
    start_s: float,
    end_s: float,
    instances: np.ndarray | None = None,
) -> Scene4D:
    """Return a scene of what a file held.

    No file keeps the background and the source of the scale: the background is black, the scale source "none".
    """
    harmonics = None if moment.harmonics is None else np.ascontiguousarray(moment.harmonics, np.float32)
    return Scene4D(
        motion_model=motion_model,
        means=moment.means.astype(np.float32),
        quats=moment.quats.astype(np.float32),
        scales=moment.scales.astype(np.float32),
        opacities=moment.opacities.astype(np.float32),
        colors=moment.colors.astype(np.float32),
        motion=motion,
        start_s=start_s,
        end_s=end_s,
        background=np.zeros(3),
        scale_source="none",
        scale_sigma=0.0,
        harmonics=harmonics,
        instances=instances,
    )
