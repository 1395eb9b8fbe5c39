"""The .splat of antimatter15's web viewer: 32 bytes a Gaussian, nothing around them.

Position and linear scale as three float32 each, RGBA as four bytes, the quaternion wxyz as four bytes, 128 being 0.

What is lost: all that a PLY loses (see `ply`), harmonics, and colours, opacities and rotations beyond 8 bits a number.
Gaussians come in the order of importance, opacity times volume, because viewers show them while they load. The file tells
nothing of itself: it is known by its name alone, and read with y down unless told otherwise.
"""

from pathlib import Path

import numpy as np

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.files import new_file, read_bytes
from worldline.formats.frames import into_frame, out_of_frame
from worldline.formats.moments import moment_of_file, shown_at, static_scene

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def write_splat(scene: Scene4D, path: Path | str, *, at_s: float | None = None, up: str = "-y") -> None:
    """Write the scene at one time as .splat; arguments and errors as in `write_ply`."""
    path = Path(path)
    moment = into_frame(shown_at(scene, at_s, path)[0], up)
    moment = moment.taken(np.argsort(-moment.opacities * moment.scales.prod(axis=1), kind="stable"))
    rows = np.zeros(len(moment), _ROW)
    rows["means"], rows["scales"] = moment.means, moment.scales
    rgba = np.concatenate([moment.colors, moment.opacities[:, None]], axis=1)
    rows["rgba"] = np.rint(255.0 * np.clip(rgba, 0.0, 1.0))
    rows["quats"] = np.clip(np.rint(128.0 + 128.0 * moment.quats), 0, 255)
    with new_file(path) as partial:
        partial.write_bytes(rows.tobytes())


def read_splat(path: Path | str, *, up: str = "-y") -> Scene4D:
    """Read a .splat as a static scene.

    Args:
        path: of the file.
        up: which axis of the file points up.

    Raises:
        WorldlineError: if its size is no multiple of 32 bytes, it is empty, or it holds no numbers that make Gaussians.
    """
    path = Path(path)
    data = read_bytes(path)
    if len(data) % _ROW.itemsize:
        raise WorldlineError(f"{path} is no .splat or is cut short: its {len(data)} bytes are no multiple of 32; fetch it again")
    rows = np.frombuffer(data, _ROW)
    if (rows["scales"] <= 0).any():
        raise WorldlineError(f"{path} is no .splat file: it holds scales that are not positive; name a file that is one")
    rgba = rows["rgba"].astype(np.float64) / 255.0
    moment = moment_of_file(
        path,
        means=rows["means"].astype(np.float64),
        quats=(rows["quats"].astype(np.float64) - 128.0) / 128.0,
        scales=rows["scales"].astype(np.float64),
        opacities=rgba[:, 3],
        colors=rgba[:, :3],
    )
    return static_scene(out_of_frame(moment, up))
