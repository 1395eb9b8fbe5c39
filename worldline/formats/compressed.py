"""Small files for the web, through gsply: PlayCanvas' compressed PLY and Niantic's SPZ.

| format | bytes a Gaussian without harmonics | position | scale |
|---|---|---|---|
| compressed PLY | 17 | 11, 10, 11 bits of the box of its chunk of 256 | the same, of logarithms |
| SPZ version 3 | 16 to 20 | 24 bits, steps of 1/4096 unit by default | 8 bits of the logarithm: within 3 % |

Lost in both: all that a PLY loses, and precision as in the table; rotations keep 2 + 3 x 10 bits, colours, opacities and
coefficients of harmonics 8 bits each. SPZ holds positions up to 2,048 units with the default step; a farther one is refused
here rather than cut off.

Compressed PLYs have y down, like PLYs, and remember the axis in a comment. SPZ has y up and z towards the viewer by its
specification, and tells no more, so that is what is written and assumed.
"""

import contextlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from gsply import GSData, compress_to_bytes, create_ply_format, decompress_from_bytes
from gsply import read_spz as gsply_read_spz
from gsply import write_spz as gsply_write_spz

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.files import new_file, read_bytes
from worldline.formats.frames import into_frame, out_of_frame
from worldline.formats.moments import C0, Moment, harmonics_degree, moment_of_file, shown_at, static_scene
from worldline.formats.ply import LARGEST, SMALLEST, remembered, told

_SPZ_FARTHEST = 2.0**23  # steps of a position, 24 bits with a sign
_SPZ_MAGIC = b"NGSP"


def write_compressed_ply(scene: Scene4D, path: Path | str, *, at_s: float | None = None, up: str = "-y") -> None:
    """Write the scene at one time as a PlayCanvas compressed PLY; arguments and errors as in `write_ply`."""
    path = Path(path)
    moment, time_s = shown_at(scene, at_s, path)
    data = compress_to_bytes(_gsply_of(into_frame(moment, up)))
    first, rest = data.split(b"\n", 1)
    with new_file(path) as partial:
        partial.write_bytes(b"\n".join([first, remembered(up, time_s).encode(), rest]))


def read_compressed_ply(path: Path | str, *, up: str | None = None) -> Scene4D:
    """Read a PlayCanvas compressed PLY as a static scene; arguments and errors as in `read_ply`."""
    path = Path(path)
    data = read_bytes(path)
    if not data.startswith(b"ply") or b"packed_position" not in data[:4096]:
        raise WorldlineError(f"{path} is no compressed PLY: it has no property packed_position; read it with `read_scene`")
    try:
        held = decompress_from_bytes(data)
    except (ValueError, KeyError, IndexError) as error:
        raise WorldlineError(f"{path} is cut short or damaged ({error}): fetch it again") from error
    told_up, time_s = told(data)
    return static_scene(out_of_frame(_moment_of(held, path), up or told_up), time_s)


def write_spz(scene: Scene4D, path: Path | str, *, at_s: float | None = None, fractional_bits: int = 12) -> None:
    """Write the scene at one time as SPZ, version 3.

    Args:
        scene: any motion model.
        path: of the file, replaced if it is there.
        at_s: seconds of the clip, the nearest moment that the scene has; None for the first.
        fractional_bits: of a position, 1 to 22: steps of 2^-bits units, and 2^(23 - bits) units at most.

    Raises:
        WorldlineError: as `write_ply`; also if a position is farther out than the bits allow.
    """
    path = Path(path)
    moment = into_frame(shown_at(scene, at_s, path)[0], "y")
    farthest, limit = float(np.abs(moment.means).max()), (_SPZ_FARTHEST - 1) / 2**fractional_bits
    if farthest > limit:
        fitting = math.floor(math.log2((_SPZ_FARTHEST - 1) / farthest))
        raise WorldlineError(
            f"{path} was not written: a Gaussian lies {farthest:.0f} units out, {fractional_bits} fractional bits reach "
            f"{limit:.0f}; ask for fractional_bits={fitting}"
        )
    with new_file(path) as partial:
        gsply_write_spz(partial, _gsply_of(moment), fractional_bits=fractional_bits)


def read_spz(path: Path | str) -> Scene4D:
    """Read an SPZ file of versions 1 to 4 (4 needs the package zstandard) as a static scene; errors as in `read_ply`."""
    path = Path(path)
    if not is_spz(read_bytes(path, 4096)):
        raise WorldlineError(f"{path} is no SPZ file: it does not begin as one; name a file that is one")
    try:
        held = gsply_read_spz(path)
    except (ValueError, KeyError, IndexError, EOFError, OSError, struct.error) as error:
        raise WorldlineError(f"{path} cannot be read as SPZ ({error}): fetch it again, or save it as version 3") from error
    return static_scene(out_of_frame(_moment_of(held, path), "y"))


def is_spz(data: bytes) -> bool:
    """Return whether bytes begin an SPZ file: one of its own container, or one of gzip that unpacks to its mark."""
    if data[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, 4)
    return data[:4] == _SPZ_MAGIC


def _gsply_of(moment: Moment) -> GSData:
    degree = harmonics_degree(moment)
    opacities = np.clip(moment.opacities, SMALLEST, LARGEST)
    arrays = (
        moment.means,
        np.log(moment.scales),
        moment.quats,
        np.log(opacities / (1.0 - opacities)),
        (moment.colors - 0.5) / C0,
    )
    means, scales, quats, logits, constant = (np.ascontiguousarray(array, np.float32) for array in arrays)
    harmonics = np.zeros((len(moment), 0, 3)) if moment.harmonics is None else moment.harmonics
    return GSData(means, scales, quats, logits, constant, harmonics.astype(np.float32), create_ply_format(degree))


def _moment_of(data: GSData, path: Path) -> Moment:
    harmonics = None if data.shN is None or not data.shN.size else np.asarray(data.shN, np.float64)
    with np.errstate(over="ignore"):
        scales = np.exp(np.asarray(data.scales, np.float64))
        opacities = 1.0 / (1.0 + np.exp(-np.asarray(data.opacities, np.float64).reshape(-1)))
    return moment_of_file(
        path,
        means=np.asarray(data.means, np.float64),
        quats=np.asarray(data.quats, np.float64),
        scales=scales,
        opacities=opacities,
        colors=0.5 + C0 * np.asarray(data.sh0, np.float64),
        harmonics=harmonics,
    )
