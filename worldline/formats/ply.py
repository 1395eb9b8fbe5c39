"""The PLY of 3D Gaussian splatting: the file that every viewer opens; and folders of them, one a frame.

Binary little-endian, one `vertex` element of float properties: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (channel by
channel: all red coefficients, then green, then blue), opacity (logit), scale_0..2 (logarithm), rot_0..3 (wxyz).

What is lost in one file: time (it is one moment), instances, background, the source of the scale, Gaussians that nothing
draws (opacity under 1/255). A surfel becomes a Gaussian a billionth as thick as wide. Nothing else: values are float32, as
in the scene. What a sequence loses besides: what happens between its frames, and which Gaussian of one frame is which of
the next.

Viewers expect these files with y down (COLMAP's habit), so they are written so; see `frames`. A comment in the header
remembers the axis and the time, and reading undoes the turn. Files of others, without that comment, are read as they are.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.files import new_file, new_folder, read_bytes
from worldline.formats.births import held, scene_of_births
from worldline.formats.frames import into_frame, out_of_frame
from worldline.formats.moments import (
    C0,
    DEGREE_OF_COUNT,
    Moment,
    harmonics_degree,
    moment_at,
    moment_of_file,
    shown_at,
    static_scene,
)

_KINDS = {"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
          "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8",
          "float64": "f8"}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_MEMORY = re.compile(rb"^comment worldline up (z|y|-y) time_s (-?\d+\.?\d*(?:e[-+]\d\d?)?)\s*$", re.MULTILINE)
LARGEST = 1.0 - 2.0**-24  # opacity below 1 in float32: the logit of 1 is infinite
SMALLEST = 1e-12


# -- one file ----------------------------------------------------------------------------------------------------------


def write_ply(scene: Scene4D, path: Path | str, *, at_s: float | None = None, up: str = "-y") -> None:
    """Write the scene at one time as a standard 3DGS PLY.

    Args:
        scene: any motion model; harmonics of degree 3 at most.
        path: of the file, replaced if it is there.
        at_s: seconds of the clip, the nearest moment that the scene has; None for the first.
        up: which axis of the file points up, see `worldline.formats.frames`.

    Raises:
        WorldlineError: if nothing is seen at that time, a parameter is not finite, or the file cannot be written.
    """
    path = Path(path)
    moment, time_s = shown_at(scene, at_s, path)
    with new_file(path) as partial:
        partial.write_bytes(ply_bytes(into_frame(moment, up), remembered(up, time_s)))


def read_ply(path: Path | str, *, up: str | None = None) -> Scene4D:
    """Read a standard 3DGS PLY as a static scene.

    Args:
        path: a PLY of float properties as above, binary or ASCII; normals and unknown properties are passed over.
        up: which axis of the file points up; None for what the file's comment says, or for axes as they are.

    Raises:
        WorldlineError: if it is no such file, is cut short, holds nothing or holds values that are not finite.
    """
    path = Path(path)
    data = read_bytes(path)
    told_up, time_s = told(data)
    moment = moment_of_ply(data, path)
    return static_scene(out_of_frame(moment, up or told_up), time_s)


def remembered(up: str, time_s: float) -> str:
    """Return the comment of a PLY header that tells its frame and time."""
    return f"comment worldline up {up} time_s {time_s!r}"


def told(data: bytes) -> tuple[str, float]:
    """Return the axis up and the time in seconds that a PLY header's comment tells; "z" and 0 where it tells none."""
    found = _MEMORY.search(data[: data.find(b"end_header")])
    return ("z", 0.0) if found is None else (found[1].decode(), float(found[2]))


def ply_bytes(moment: Moment, comment: str) -> bytes:
    """Return the bytes of a standard 3DGS PLY."""
    harmonics_degree(moment)
    rest = np.zeros((len(moment), 0)) if moment.harmonics is None else moment.harmonics.swapaxes(1, 2).reshape(len(moment), -1)
    opacities = np.clip(moment.opacities, SMALLEST, LARGEST)
    columns = {
        "x y z": moment.means,
        "nx ny nz": np.zeros((len(moment), 3)),
        "f_dc_0 f_dc_1 f_dc_2": (moment.colors - 0.5) / C0,
        " ".join(f"f_rest_{k}" for k in range(rest.shape[1])): rest,
        "opacity": np.log(opacities / (1.0 - opacities))[:, None],
        "scale_0 scale_1 scale_2": np.log(moment.scales),
        "rot_0 rot_1 rot_2 rot_3": moment.quats,
    }
    names = [f"property float {name}" for group in columns for name in group.split()]
    header = ["ply", "format binary_little_endian 1.0", comment, f"element vertex {len(moment)}", *names, "end_header\n"]
    return "\n".join(header).encode() + np.concatenate(list(columns.values()), axis=1).astype("<f4").tobytes()


def moment_of_ply(data: bytes, path: Path) -> Moment:
    """Return the Gaussians in the bytes of a standard 3DGS PLY; `path` is for what is said of it."""
    table = _vertices(data, path)
    needed = ["x", "y", "z", "opacity", *(f"f_dc_{k}" for k in range(3)), *(f"scale_{k}" for k in range(3)),
              *(f"rot_{k}" for k in range(4))]  # fmt: skip
    missing = [name for name in needed if name not in table]
    if missing:
        raise WorldlineError(f"{path} holds no Gaussians: its vertices have no property {missing[0]}; export it as a 3DGS PLY")
    rest = sum(name.startswith("f_rest_") for name in table)
    if rest % 3 or rest // 3 not in DEGREE_OF_COUNT or any(f"f_rest_{k}" not in table for k in range(rest)):
        raise WorldlineError(
            f"{path} has {rest} properties f_rest_*: harmonics of degrees up to 3 have 0, 9, 24 or 45; export it again"
        )

    def columns(stem: str, count: int) -> np.ndarray:
        return np.stack([table[f"{stem}_{k}"] for k in range(count)], axis=1)

    with np.errstate(over="ignore"):
        scales, opacities = np.exp(columns("scale", 3)), 1.0 / (1.0 + np.exp(-table["opacity"]))
    return moment_of_file(
        path,
        means=np.stack([table["x"], table["y"], table["z"]], axis=1),
        quats=columns("rot", 4),
        scales=scales,
        opacities=opacities,
        colors=0.5 + C0 * columns("f_dc", 3),
        harmonics=columns("f_rest", rest).reshape(-1, 3, rest // 3).swapaxes(1, 2) if rest else None,
    )


def _vertices(data: bytes, path: Path) -> Mapping[str, np.ndarray]:
    """Return the properties of the vertices by name, float64."""
    if not data.startswith(b"ply"):
        raise WorldlineError(f"{path} is no PLY file: it does not begin with 'ply'; name a file that is one")
    end = data.find(b"end_header")
    body = data.find(b"\n", end) + 1
    if end < 0 or not body:
        raise WorldlineError(f"{path} is cut short or damaged: its header has no end_header; fetch it again")
    form, elements = _elements(data[:end].decode("ascii", "replace"), path)
    if form != "ascii" and form not in _ORDERS:
        raise WorldlineError(f"{path} has the unknown PLY format {form!r}: export it as binary_little_endian")
    for name, count, properties in elements:
        if not properties or any(kind not in _KINDS for _, kind in properties):
            raise WorldlineError(
                f"{path} holds no Gaussians: its element {name} comes first and has properties that are no numbers"
            )
        if form == "ascii":
            words = data[body:].split(maxsplit=count * len(properties))[: count * len(properties)]
            table = np.array(words, np.float64).reshape(-1, len(properties)) if len(words) == count * len(properties) else None
            if table is not None and name == "vertex":
                return {key: table[:, k] for k, (key, _) in enumerate(properties)}
            raise WorldlineError(f"{path} is cut short: it says {count} of element {name} and has fewer; fetch it again")
        kind = np.dtype([(key, _ORDERS[form] + _KINDS[word]) for key, word in properties])
        if body + count * kind.itemsize > len(data):
            told_bytes, there = count * kind.itemsize, len(data) - body
            raise WorldlineError(
                f"{path} is cut short: its {count} of element {name} need {told_bytes} bytes, {there} are there; fetch it again"
            )
        if name == "vertex":
            rows = np.frombuffer(data, kind, count, body)
            with np.errstate(invalid="ignore"):  # what is no number is told of later
                return {key: rows[key].astype(np.float64) for key, _ in properties}
        body += count * kind.itemsize
    raise WorldlineError(f"{path} holds no Gaussians: it has no element vertex; name a 3DGS PLY")


def _elements(header: str, path: Path) -> tuple[str, list[tuple[str, int, list[tuple[str, str]]]]]:
    """Return the format and the elements: name, count, properties as (name, type)."""
    form = ""
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    try:
        for line in header.splitlines():
            words = line.split()
            if words[:1] == ["format"]:
                form = words[1]
            elif words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"]:
                elements[-1][2].append((words[-1], words[1]))
    except (IndexError, ValueError) as error:
        raise WorldlineError(f"{path} is damaged: its PLY header has the line {line!r}; fetch it again") from error
    return form, elements


# -- a sequence --------------------------------------------------------------------------------------------------------


def write_ply_sequence(scene: Scene4D, folder: Path | str, *, frames: int = 24, prefix: str = "frame_", up: str = "-y") -> None:
    """Write the scene as a new folder of PLYs, `frame_0000.ply` and so on, at evenly spaced times from first to last.

    Every file holds the Gaussians that are seen at its time; one of a moment at which nothing is seen holds one
    transparent Gaussian, because viewers refuse files of none. SuperSplat plays a folder that is dropped on it.

    Args:
        scene: any motion model.
        folder: new, or empty.
        frames: how many files, at least 1.
        prefix: of their names.
        up: which axis of the files points up.

    Raises:
        WorldlineError: if nothing is seen at any of the times, or the folder cannot be written.
    """
    folder = Path(folder)
    if frames < 1:
        raise WorldlineError(f"{folder} was not written: {frames} frames are no sequence; ask for at least 1")
    times = np.linspace(scene.start_s, scene.end_s, frames)
    empty = 0
    with new_folder(folder) as partial:
        for number, time_s in enumerate(times.tolist()):
            moment = moment_at(scene, time_s)
            if not len(moment):
                moment, empty = _transparent(), empty + 1
            data = ply_bytes(into_frame(moment, up), remembered(up, time_s))
            (partial / f"{prefix}{number:0{max(4, len(str(frames - 1)))}d}.ply").write_bytes(data)
        if empty == frames:
            raise WorldlineError(f"{folder} was not written: the scene shows no Gaussian at any of {frames} times")


def _transparent() -> Moment:
    one = np.ones((1, 3))
    return Moment(0 * one, np.array([[1.0, 0, 0, 0]]), 1e-3 * one, np.zeros(1), 0.5 * one, None, np.zeros(1, np.int64))


def read_ply_sequence(folder: Path | str, *, fps: float | None = None, up: str | None = None) -> Scene4D:
    """Read a folder of PLYs as key frames: every moment shows the frame that is nearest in time.

    Frames are ordered by the last number in their names. Their Gaussians are not matched with each other.

    Args:
        folder: holds at least one `.ply`.
        fps: frames per second; None for the times that the files tell, or 30 where they tell none.
        up: as in `read_ply`.

    Raises:
        WorldlineError: if there is none, or one cannot be read.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.ply"), key=lambda path: (int((re.findall(r"\d+", path.stem) or ["0"])[-1]), path.name))
    if not paths:
        raise WorldlineError(f"{folder} holds no .ply files: name a folder of numbered PLY files")
    moments, times = [], []
    for path in paths:
        data = read_bytes(path)
        told_up, time_s = told(data)
        moments.append(out_of_frame(moment_of_ply(data, path), up or told_up))
        times.append(time_s)
    if fps is not None or (np.diff(times) <= 0).any():
        times = [number / (fps or 30.0) for number in range(len(paths))]
    edges = [-np.inf, *(0.5 * (np.array(times[1:]) + times[:-1])), np.inf]
    pieces = [held(moment, *edges[k : k + 2]) for k, moment in enumerate(moments)]
    return scene_of_births(pieces, times[0], times[-1])
