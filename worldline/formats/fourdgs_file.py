"""The 4dgs container (.4dgs, 4dgs.dev): one file with time, seekable, quantised within bounds that it declares.

Two temporal models hold a scene:

- `gaussian-birth` is exact for native 4D Gaussians, static ones and what was read from such a file: a Gaussian drifts in a
  straight line and fades as a bell curve in time. A native 4D Gaussian's cut is just that: its conditional mean moves with
  Sigma_xt / Sigma_tt, its covariance is constant, its presence has the deviation sqrt(Sigma_tt). Both cut it off where it is
  at 5 % of its peak.
- `keyframe-delta` holds everything else as key frames of Gaussians with stable identities, which move in straight lines
  from one to the next; rotation, size, colour and opacity jump.

What is lost: precision, by profile (positions within 2, 5 or 20 % of the median scale for "fine", "default" and "coarse",
colours and opacities within 0.5, 1 or 3 of 255, sizes within 0.5, 2 or 6 %); harmonics keep 8 bits over [-4, 4], and
key frames keep none; native 4D Gaussians keep the colour of their peak, not its change in time; key frames keep no
instances; the background and the source of the scale are lost in all.

The file's clock starts at 0; when in the clip that is stands behind the name of the writing library,
because key frames have no metadata. Coordinates are the house's, right-handed with z up; `gaussian-birth` files say so.
"""

import dataclasses
import io
import re
import struct
import zlib
from pathlib import Path

import fourdgs
import numpy as np
import torch
from fourdgs.keyframe_delta_file import DecodedSequence, _dequantize, decode_streamed, write_sequence
from fourdgs.keyframe_delta_writer import KeyframeDeltaOptions, Sample
from fourdgs.quantization import SH_QUANT_HI, SH_QUANT_LO
from fourdgs.records import Header

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.files import new_file, read_bytes
from worldline.formats.births import Births, held, scene_of_births
from worldline.formats.frames import frame_of_world, out_of_frame
from worldline.formats.moments import (
    FAINTEST,
    THINNEST,
    harmonics_degree,
    moment_at,
    moment_of_file,
    quats_and_scales,
    some,
)
from worldline.motion import native_4d

PROFILES = ("fine", "default", "coarse")
_LIVES = ("velocities", "peaks", "lifespans", "starts", "ends")
_FIELDS = ("positions", "scales", "rotations", "colors", "motions", "mu_t", "sigma_t")
_FOREVER = 1e4  # clip lengths: the deviation that stands for no fading, where the writer of key frames wants a finite one


def write_fourdgs(scene: Scene4D, path: Path | str, *, profile: str = "fine", key_frames: int = 24) -> None:
    """Write the whole scene as .4dgs.

    Args:
        scene: any motion model; native 4D, static and gaussian_birth go exactly but for the profile, others as key frames.
        path: of the file, replaced if it is there.
        profile: "fine", "default" or "coarse".
        key_frames: how many where the scene needs them, evenly spaced, from its first moment on.

    Raises:
        WorldlineError: if there is nothing to write, a parameter is not finite, or the file cannot be written.
    """
    path = Path(path)
    if profile not in PROFILES:
        raise WorldlineError(f"{profile!r} is no profile of .4dgs files: there is {', '.join(PROFILES)}")
    if key_frames < 1:
        raise WorldlineError(f"{path} was not written: {key_frames} key frames hold nothing; ask for at least 1")
    if not len(scene.means):
        raise WorldlineError(f"{path} was not written: the scene has no Gaussians")
    try:
        data = _encoded(scene, path, profile, key_frames)
    except (fourdgs.FourdgsError, ValueError, OverflowError) as error:
        raise WorldlineError(f"{path} was not written: {error}; try the profile coarse") from error
    with new_file(path) as partial:
        partial.write_bytes(data)


def _encoded(scene: Scene4D, path: Path, profile: str, key_frames: int) -> bytes:
    seconds, library = scene.end_s - scene.start_s, f"worldline start_s {scene.start_s!r}"
    if seconds > 0 and scene.motion_model not in ("static", "native_4d", "gaussian_birth"):
        samples = _key_frames(scene, path, seconds, key_frames)
        cadence = KeyframeDeltaOptions(keyframe_every=8)
        return write_sequence(samples, seconds, profile=profile, library=library, kd=cadence)
    births = _births_of(scene, path)
    metadata = {"coordinate_system": "z-up-right-handed", "color_space": "srgb-rec709-display"}
    instances = None if scene.instances is None else scene.instances[births.moment.rows].astype(np.uint32)
    stream = io.BytesIO()
    options = fourdgs.WriteOptions(profile=profile, metadata=metadata, library=library, cutoff=native_4d.CULLED)
    fourdgs.write(stream, _gaussian_set(births, scene.start_s, instances), max(seconds, 0.0), options=options)
    return stream.getvalue()


def _births_of(scene: Scene4D, path: Path) -> Births:
    """Return the lives of the Gaussians of a scene whose motion is of the kind that `gaussian-birth` holds."""
    seconds = scene.end_s - scene.start_s if scene.end_s > scene.start_s else 1.0
    if scene.motion_model not in ("native_4d", "gaussian_birth"):
        return held(some(moment_at(scene, scene.start_s), path, scene.start_s), scene.start_s, np.inf)
    lives = _cuts(scene) if scene.motion_model == "native_4d" else {name: scene.motion[name] for name in _LIVES}
    lives = {name: np.asarray(array, np.float64) for name, array in lives.items()}
    colors, harmonics = _colors_at_peaks(scene)
    at_peaks = dataclasses.replace(scene, motion_model="static", motion={}, colors=colors, harmonics=harmonics)
    moment = moment_at(at_peaks, scene.start_s)
    if "covars" in lives:
        quats, scales = quats_and_scales(lives.pop("covars")[moment.rows])
        moment = dataclasses.replace(moment, quats=quats, scales=np.maximum(scales, THINNEST * scales[:, :1]))
    reach = lives["lifespans"] * np.sqrt(-2.0 * np.log(native_4d.CULLED))
    first, last = np.maximum(lives["peaks"] - reach, lives["starts"]), np.minimum(lives["peaks"] + reach, lives["ends"])
    ever = (first <= 1.0) & (last >= 0.0) & (first < last)
    moment = some(moment.taken(ever[moment.rows]), path, scene.start_s)
    lives = {name: array[moment.rows] for name, array in lives.items()}
    times = {name: scene.start_s + seconds * lives[name] for name in ("peaks", "starts", "ends")}
    return Births(moment, lives["velocities"] / seconds, lifespans=seconds * lives["lifespans"], **times)


def _cuts(scene: Scene4D) -> dict[str, np.ndarray]:
    """Return the lives of native 4D Gaussians in normalised time, and the covariances of their cuts."""
    sizes = np.concatenate([scene.scales, scene.motion["time_scales"][:, None]], axis=1)
    arrays = (scene.quats, scene.motion["right_quats"], sizes)
    cut = native_4d.cut(*(torch.from_numpy(array).double() for array in arrays))
    for name, array in cut._asdict().items():
        if not torch.isfinite(array).all():
            raise WorldlineError(
                f"the scene's 4D Gaussians have {name} that are not finite: remove those with NaN quats or scales"
            )
    count = len(sizes)
    return {"velocities": cut.velocities.numpy(), "peaks": scene.motion["times"], "lifespans": np.sqrt(cut.variances.numpy()),
            "starts": np.full(count, -np.inf), "ends": np.full(count, np.inf), "covars": cut.covars.numpy()}  # fmt: skip


def _colors_at_peaks(scene: Scene4D) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the colours and harmonics that native 4D Gaussians have at their peaks, where all cosines are 1."""
    colors, harmonics = scene.colors, scene.harmonics
    if "time_colors" in scene.motion:
        colors = colors + scene.motion["time_colors"].sum(axis=1)
    if "time_harmonics" in scene.motion and harmonics is not None:
        harmonics = harmonics + scene.motion["time_harmonics"].sum(axis=1)
    return colors, harmonics


def _gaussian_set(births: Births, start_s: float, instances: np.ndarray | None = None) -> fourdgs.GaussianSet:
    """Return what fourdgs writes, on a clock that starts at 0."""
    moment, degree = births.moment, harmonics_degree(births.moment)
    codes = None
    if moment.harmonics is not None:
        steps = np.rint((moment.harmonics - SH_QUANT_LO) * (255.0 / (SH_QUANT_HI - SH_QUANT_LO)))
        codes = np.clip(steps, 0, 255).astype(np.uint8).swapaxes(1, 2).reshape(len(moment), -1)
    colors = np.concatenate([np.clip(moment.colors, 0.0, 1.0), moment.opacities[:, None]], axis=1)
    floats = (moment.means, moment.scales, np.roll(moment.quats, -1, axis=1), colors, births.velocities, births.peaks - start_s,
              births.lifespans)  # fmt: skip
    return fourdgs.GaussianSet(
        *(np.asarray(array, np.float32) for array in floats),
        win_lo=np.maximum(births.starts - start_s, 0.0),
        win_hi=births.ends - start_s,
        sh=codes,
        sh_degree=degree,
        object_id=instances,
    )


def _key_frames(scene: Scene4D, path: Path, seconds: float, count: int) -> list[Sample]:
    """Return states at `count` times; between them Gaussians move in straight lines to where they are next."""
    times = np.linspace(scene.start_s, scene.end_s, count + 1)
    states = [moment_at(scene, time_s, faintest=0.0) for time_s in times.tolist()]
    seen = np.flatnonzero(np.max([state.opacities for state in states], axis=0) >= FAINTEST)
    if not len(seen):
        raise WorldlineError(f"{path} was not written: the scene shows no Gaussian at any of {count + 1} times")
    samples = []
    for state, following, time_s in zip(states, states[1:], times.tolist(), strict=False):
        now, later = state.taken(seen), following.taken(seen)
        always = (time_s, _FOREVER * seconds, scene.start_s, scene.start_s + 2 * seconds)
        peaks, lifespans, starts, ends = (np.full(len(seen), value) for value in always)
        velocities = (later.means - now.means) * (count / seconds)
        births = Births(dataclasses.replace(now, harmonics=None), velocities, peaks, lifespans, starts, ends)
        samples.append(Sample(time_s - scene.start_s, seen, _gaussian_set(births, scene.start_s)))
    return samples


# -- reading -----------------------------------------------------------------------------------------------------------


def read_fourdgs(path: Path | str) -> Scene4D:
    """Read a .4dgs file of either temporal model as a scene with the motion model `gaussian_birth`.

    Sound and cameras in the file are passed over.

    Raises:
        WorldlineError: if it is no such file, is cut short or damaged, is of an unknown version, holds nothing, or moves
            objects by tracks, which are not known here.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        try:
            scene = fourdgs.read(data, recover_truncated=False)
        except fourdgs.UnsupportedCodec as error:
            if error.code != "unknown-temporal-model":
                raise
            return _of_key_frames(decode_streamed(data), path)
    except fourdgs.FourdgsError as error:
        raise WorldlineError(f"{path} cannot be read as .4dgs ({error}): fetch it again, or name another file") from error
    except (ValueError, KeyError, IndexError, OverflowError, struct.error, zlib.error) as error:
        raise WorldlineError(f"{path} is damaged ({error}): fetch it again") from error
    if scene.objects.tracks:
        raise WorldlineError(
            f"{path} moves {len(scene.objects.tracks)} objects by tracks, which are not known here: bake them in first"
        )
    attributes = dict(scene.header.attributes)
    start_s = _start_s(scene.header)
    births = _births_of_set(scene.gaussians, start_s, path)
    up = "y" if attributes.get("coordinate_system") == "y-up-right-handed" else "z"
    births = dataclasses.replace(
        births, moment=out_of_frame(births.moment, up), velocities=births.velocities @ frame_of_world(up)
    )
    instances = None if scene.gaussians.object_id is None else scene.gaussians.object_id.astype(np.int32)
    return scene_of_births([births], start_s, start_s + scene.duration_sec, instances)


def is_fourdgs(data: bytes) -> bool:
    """Return whether bytes begin a .4dgs file, of any version."""
    return data[1:5] == b"4DGS"


def _start_s(header: Header) -> float:
    """Return when in the clip the file's clock starts, 0 where the file does not tell."""
    found = re.fullmatch(r"worldline start_s (-?\d+\.?\d*(?:e[-+]\d\d?)?)", header.library)
    return float(found[1]) if found else 0.0


def _births_of_set(gaussians: fourdgs.GaussianSet, start_s: float, path: Path) -> Births:
    count = gaussians.count
    harmonics = None
    if gaussians.sh is not None and gaussians.sh_degree:
        values = gaussians.sh.astype(np.float64) * ((SH_QUANT_HI - SH_QUANT_LO) / 255.0) + SH_QUANT_LO
        harmonics = values.reshape(count, 3, -1).swapaxes(1, 2)
    moment = moment_of_file(
        path,
        means=gaussians.positions.astype(np.float64),
        quats=np.roll(gaussians.rotations, 1, axis=1).astype(np.float64),
        scales=gaussians.scales.astype(np.float64),
        opacities=gaussians.colors[:, 3].astype(np.float64),
        colors=gaussians.colors[:, :3].astype(np.float64),
        harmonics=harmonics,
    )
    times = (gaussians.mu_t, gaussians.win_lo, gaussians.win_hi)
    peaks, starts, ends = (start_s + np.asarray(array, np.float64) for array in times)
    return Births(moment, gaussians.motions.astype(np.float64), peaks, gaussians.sigma_t.astype(np.float64), starts, ends)


def _of_key_frames(decoded: DecodedSequence, path: Path) -> Scene4D:
    """Return the scene of a file of key frames: the population of every piece, there from its start until the next."""
    start_s = _start_s(decoded.header)
    pieces, windows = [], np.asarray(decoded.windows or [(0.0, np.inf)])
    for chunk in decoded.chunks:
        values = _dequantize(chunk.state, decoded.grids)
        if not len(values["mu_t"]):
            continue
        opening, closing = windows[values["window_index"]].T
        gaussians = fourdgs.GaussianSet(*(values[name] for name in _FIELDS), win_lo=np.maximum(opening, chunk.t0),
                                        win_hi=np.minimum(closing, chunk.t1))  # fmt: skip
        births = _births_of_set(gaussians, start_s, path)
        fading = births.lifespans < _FOREVER / 2 * decoded.header.duration_sec
        pieces.append(dataclasses.replace(births, lifespans=np.where(fading, births.lifespans, np.inf)))
    if not pieces:
        raise WorldlineError(f"{path} holds no Gaussians: name a file that has some")
    return scene_of_births(pieces, start_s, start_s + decoded.header.duration_sec)
