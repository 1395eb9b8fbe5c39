"""Sparse models of COLMAP, binary (cameras.bin, images.bin, points3D.bin) and text (the same as .txt).

Written are models that every COLMAP from 1 to 4 reads, and every program for Gaussian splatting: the files of rigs and frames
that COLMAP 3.12 added say nothing about one camera, are not written and not read. COLMAP gives no meaning to the axes of
its world, so ours is kept: z up, metres where the scale is known.

Lenses are SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL and OPENCV; a model with another is refused. Written is the simplest of
PINHOLE, SIMPLE_RADIAL and OPENCV that holds the lens exactly.

Format: https://colmap.github.io/format.html and https://colmap.github.io/cameras.html.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from schemas.cameras import PointCloud
from schemas.errors import WorldlineError
from worldline.camera_files.images import PosedImages
from worldline.cameras import invert_rigid, quaternion_from_rotation, rigid, rotation_from_quaternion
from worldline.files import read_bytes

# number in binary files and name in text files -> which of (fx, fy, cx, cy, k1, k2, p1, p2) the parameters are
_MODELS = {
    (0, "SIMPLE_PINHOLE"): ("f", "cx", "cy"),
    (1, "PINHOLE"): ("fx", "fy", "cx", "cy"),
    (2, "SIMPLE_RADIAL"): ("f", "cx", "cy", "k1"),
    (3, "RADIAL"): ("f", "cx", "cy", "k1", "k2"),
    (4, "OPENCV"): ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
}
_KNOWN = ", ".join(name for _, name in _MODELS)
_CAMERA, _IMAGE, _POINT = struct.Struct("<iiQQ"), struct.Struct("<i7di"), struct.Struct("<Q3d3BdQ")
_COUNT = struct.Struct("<Q")
_SEEN = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
_NO_POINT = np.uint64(2**64 - 1)  # of a feature that no point of the model explains
_LensRow = tuple[int, str, int, int, list[float]]  # number and name of the model, width, height, parameters
_ImageRow = tuple[np.ndarray, int, str, np.ndarray]  # pose, number of the lens, name, features
_PointRow = tuple[np.ndarray, np.ndarray, float, np.ndarray]  # xyz, rgb, error, where it was seen
_Read = TypeVar("_Read")
_PLACES = (".", "sparse/0", "sparse", "colmap/sparse/0")


@dataclass(frozen=True)
class _Lens:
    intrinsics: np.ndarray
    distortion: np.ndarray
    size_px: tuple[int, int]


@dataclass(frozen=True)
class _Image:
    name: str
    world_from_camera: np.ndarray
    lens: int
    seen: np.ndarray  # of _SEEN


@dataclass(frozen=True)
class _Points:
    number: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    error_px: np.ndarray


def find_colmap(folder: Path) -> Path | None:
    """Return where in a folder a sparse model lies: there, in `sparse/0`, `sparse` or `colmap/sparse/0`; None if nowhere."""
    return next((folder / place for place in _PLACES if _suffix(folder / place)), None)


def _suffix(folder: Path) -> str | None:
    """Return the suffix of the model in a folder, None if there is none; COLMAP too takes the binary one where both are."""
    return next(
        (end for end in (".bin", ".txt") if all((folder / f"{part}{end}").is_file() for part in ("cameras", "images"))), None
    )


# -- writing -----------------------------------------------------------------------------------------------------------


def write_colmap(images: PosedImages, folder: Path | str, *, text: bool = False) -> None:
    """Write a sparse model.

    Args:
        images: names must hold no spaces, as COLMAP's own text files demand.
        folder: where its three files go; made if it is not there.
        text: write text files.

    Raises:
        WorldlineError: if the folder holds a model already or cannot be written, or a name has a space.
    """
    folder = Path(folder)
    if spaced := [name for name in images.names if any(letter.isspace() for letter in name)]:
        raise WorldlineError(f"{folder} was not written: COLMAP takes no image name with spaces ({spaced[0]!r}): rename it")
    if _suffix(folder):
        raise WorldlineError(f"{folder} holds a COLMAP model already: name another folder")
    first, lens_of_image = images.lenses()
    lenses = [_written_lens(images, index) for index in first]
    cloud = images.points
    # where in its image's list of features each observation stands, which is what points refer to
    by_image = np.argsort(cloud.observation_frame, kind="stable")
    starts = np.searchsorted(cloud.observation_frame[by_image], np.arange(len(images.names) + 1))
    position = np.empty(len(by_image), np.int64)
    position[by_image] = np.arange(len(by_image)) - starts[cloud.observation_frame[by_image]]
    seen = np.empty(len(by_image), _SEEN)
    seen["xy"], seen["point"] = cloud.observation_xy_px[by_image], cloud.observation_point[by_image] + 1
    by_point = np.argsort(cloud.observation_point, kind="stable")
    bounds = np.searchsorted(cloud.observation_point[by_point], np.arange(len(cloud.xyz) + 1))
    tracks = np.stack([cloud.observation_frame[by_point] + 1, position[by_point]], axis=1).astype("<i4")
    camera_from_world = invert_rigid(images.world_from_camera)
    poses = np.concatenate([quaternion_from_rotation(camera_from_world[:, :3, :3]), camera_from_world[:, :3, 3]], axis=1)
    image_rows = [
        (poses[index], int(lens_of_image[index]) + 1, name, seen[starts[index] : starts[index + 1]])
        for index, name in enumerate(images.names)
    ]
    point_rows = [
        (cloud.xyz[index], cloud.rgb[index], float(cloud.error_px[index]), tracks[bounds[index] : bounds[index + 1]])
        for index in range(len(cloud.xyz))
    ]
    made = _text_files(lenses, image_rows, point_rows) if text else _binary_files(lenses, image_rows, point_rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise WorldlineError(f"{folder} could not be written ({error.strerror or error}): name another place") from error


def _written_lens(images: PosedImages, index: int) -> _LensRow:
    """Return number and name of the simplest model that holds the lens of an image, its size and its parameters."""
    matrix, distortion = images.intrinsics[index], images.distortion[index]
    fx, fy, cx, cy = (float(value) for value in matrix[[0, 1, 0, 1], [0, 1, 2, 2]])
    values = dict(zip(("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"), (fx, fy, cx, cy, *distortion.tolist()), strict=True))
    values["f"] = fx
    name = "PINHOLE" if not distortion.any() else "SIMPLE_RADIAL" if fx == fy and not distortion[1:].any() else "OPENCV"
    ((number, _), parameters) = next((key, value) for key, value in _MODELS.items() if key[1] == name)
    width, height = (int(side) for side in images.sizes_px[index])
    return number, name, width, height, [values[parameter] for parameter in parameters]


def _binary_files(lenses: list[_LensRow], images: list[_ImageRow], points: list[_PointRow]) -> dict[str, bytes]:
    camera_parts, image_parts, point_parts = ([_COUNT.pack(len(rows))] for rows in (lenses, images, points))
    for index, (number, _, width, height, parameters) in enumerate(lenses, start=1):
        camera_parts += [_CAMERA.pack(index, number, width, height), np.array(parameters, "<f8").tobytes()]
    for index, (pose, lens, name, seen) in enumerate(images, start=1):
        image_parts += [_IMAGE.pack(index, *pose, lens), name.encode() + b"\0", _COUNT.pack(len(seen)), seen.tobytes()]
    for index, (xyz, rgb, error_px, track) in enumerate(points, start=1):
        point_parts += [_POINT.pack(index, *xyz, *rgb, error_px, len(track)), track.tobytes()]
    parts = {"cameras.bin": camera_parts, "images.bin": image_parts, "points3D.bin": point_parts}
    return {name: b"".join(part) for name, part in parts.items()}


def _text_files(lenses: list[_LensRow], images: list[_ImageRow], points: list[_PointRow]) -> dict[str, bytes]:
    camera_lines, image_lines, point_lines = (
        ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"],
        ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"],
        ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)"],
    )
    for index, (_, model, width, height, parameters) in enumerate(lenses, start=1):
        camera_lines.append(f"{index} {model} {width} {height} {_numbers(parameters)}")
    for index, (pose, lens, name, seen) in enumerate(images, start=1):
        image_lines.append(f"{index} {_numbers(pose)} {lens} {name}")
        image_lines.append(" ".join(f"{_numbers(xy)} {point}" for xy, point in zip(seen["xy"], seen["point"], strict=True)))
    for index, (xyz, rgb, error_px, track) in enumerate(points, start=1):
        colour, seen_in = (" ".join(map(str, values)) for values in (rgb.tolist(), track.ravel().tolist()))
        point_lines.append(f"{index} {_numbers(xyz)} {colour} {error_px!r} {seen_in}".rstrip())
    lines = {"cameras.txt": camera_lines, "images.txt": image_lines, "points3D.txt": point_lines}
    return {name: ("\n".join(line) + "\n").encode() for name, line in lines.items()}


def _numbers(values: np.ndarray | list[float]) -> str:
    """Write numbers so that reading them gives the same bits."""
    return " ".join(repr(float(value)) for value in values)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_colmap(folder: Path | str) -> PosedImages:
    """Read a sparse model, binary or text; the images come sorted by name.

    Args:
        folder: with `cameras`, `images` and (if there are any points) `points3D`, all `.bin` or all `.txt`.

    Raises:
        WorldlineError: if there is no model, a file is damaged, or a lens is of a model that is not known; the sentence names
            the file and the fix.
    """
    folder = Path(folder)
    suffix = _suffix(folder)
    if suffix is None:
        raise WorldlineError(f"{folder} holds no COLMAP model: name the folder with cameras.bin and images.bin (or .txt)")
    binary = suffix == ".bin"
    lens_path, image_path, point_path = (folder / f"{part}{suffix}" for part in ("cameras", "images", "points3D"))
    lenses = _guarded(_binary_lenses if binary else _text_lenses, lens_path)
    images = sorted(_guarded(_binary_images if binary else _text_images, image_path), key=lambda image: image.name)
    points = _guarded(_binary_points if binary else _text_points, point_path) if point_path.is_file() else None
    if not images:
        raise WorldlineError(f"{image_path} holds no image: reconstruct again, or name another model")
    if missing := [image for image in images if image.lens not in lenses]:
        raise WorldlineError(
            f"{image_path}: {missing[0].name} has camera {missing[0].lens}, which is not in {lens_path.name}: "
            "export the model again"
        )
    return PosedImages(
        names=tuple(image.name for image in images),
        world_from_camera=np.stack([image.world_from_camera for image in images]),
        intrinsics=np.stack([lenses[image.lens].intrinsics for image in images]),
        distortion=np.stack([lenses[image.lens].distortion for image in images]),
        sizes_px=np.array([lenses[image.lens].size_px for image in images], np.int64),
        points=PointCloud.none() if points is None else _cloud(images, points),
    )


def _guarded(reader: Callable[[bytes, Path], _Read], path: Path) -> _Read:
    data = read_bytes(path)
    try:
        return reader(data, path)
    except (ValueError, struct.error, IndexError, OverflowError) as error:
        raise WorldlineError(f"{path} is cut short or damaged ({error}): export the model again") from error


def _lens(path: Path, number: int | None, name: str | None, width: int, height: int, parameters: list[float]) -> _Lens:
    found = _model(path, number, name)
    if len(parameters) != len(found):
        raise ValueError(f"a lens has {len(parameters)} parameters instead of {len(found)}")
    values = dict(zip(found, parameters, strict=True))
    fx, fy = values.get("fx", values.get("f", 0.0)), values.get("fy", values.get("f", 0.0))
    if not (np.isfinite(parameters).all() and min(fx, fy) > 0 and width > 0 and height > 0):
        raise ValueError(f"a lens has size {width} x {height} and parameters {parameters}")
    matrix = np.array([[fx, 0.0, values["cx"]], [0.0, fy, values["cy"]], [0.0, 0.0, 1.0]])
    return _Lens(matrix, np.array([values.get(key, 0.0) for key in ("k1", "k2", "p1", "p2")]), (width, height))


def _model(path: Path, number: int | None, name: str | None) -> tuple[str, ...]:
    for (of_binary, of_text), parameters in _MODELS.items():
        if number == of_binary or name == of_text:
            return parameters
    raise WorldlineError(
        f"{path}: camera model {name or f'number {number}'} is not read, only {_KNOWN} are: "
        "undistort the images with COLMAP first"
    )


def _pose(quaternion: np.ndarray, translation: np.ndarray) -> np.ndarray:
    norm = float(np.linalg.norm(quaternion))
    if not (0.5 < norm < 2.0 and np.isfinite(translation).all()):
        raise ValueError(f"an image has the quaternion {quaternion.tolist()} and the translation {translation.tolist()}")
    return invert_rigid(rigid(rotation_from_quaternion(quaternion), translation))


def _cloud(images: list[_Image], points: _Points) -> PointCloud:
    order = np.argsort(points.number, kind="stable")
    sorted_numbers = points.number[order]
    frames, indices, pixels = [], [], []
    for index, image in enumerate(images):
        found = np.searchsorted(sorted_numbers, image.seen["point"])
        known = found < len(sorted_numbers)
        known[known] = sorted_numbers[found[known]] == image.seen["point"][known]
        frames.append(np.full(int(known.sum()), index, np.int32))
        indices.append(order[found[known]])
        pixels.append(image.seen["xy"][known])
    return PointCloud(
        xyz=points.xyz,
        rgb=points.rgb,
        error_px=points.error_px,
        observation_frame=np.concatenate(frames),
        observation_point=np.concatenate(indices).astype(np.int32),
        observation_xy_px=np.concatenate(pixels).astype(np.float32).reshape(-1, 2),
    )


def _points(rows: list[tuple[int, list[float], list[int], float]]) -> _Points:
    return _Points(
        number=np.array([row[0] for row in rows], np.uint64),
        xyz=np.array([row[1] for row in rows], np.float64).reshape(-1, 3),
        rgb=np.array([row[2] for row in rows], np.uint8).reshape(-1, 3),
        error_px=np.array([row[3] for row in rows], np.float32),
    )


def _whole(data: bytes, end: int) -> None:
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes too many")


def _binary_lenses(data: bytes, path: Path) -> dict[int, _Lens]:
    (count,), end = _COUNT.unpack_from(data), _COUNT.size
    lenses = {}
    for _ in range(count):
        key, number, width, height = _CAMERA.unpack_from(data, end)
        parameters = np.frombuffer(data, "<f8", len(_model(path, number, None)), end + _CAMERA.size)
        lenses[key] = _lens(path, number, None, width, height, parameters.tolist())
        end += _CAMERA.size + parameters.nbytes
    _whole(data, end)
    return lenses


def _binary_images(data: bytes, path: Path) -> list[_Image]:
    (count,), end = _COUNT.unpack_from(data), _COUNT.size
    images = []
    for _ in range(count):
        _, *pose, lens = _IMAGE.unpack_from(data, end)
        end += _IMAGE.size
        stop = data.index(b"\0", end)
        name, (features,) = data[end:stop].decode(), _COUNT.unpack_from(data, stop + 1)
        end = stop + 1 + _COUNT.size
        if features * _SEEN.itemsize > len(data) - end:
            raise ValueError(f"{name} should have {features} features")
        seen = np.frombuffer(data, _SEEN, features, end)
        end += seen.nbytes
        images.append(_Image(name, _pose(np.array(pose[:4]), np.array(pose[4:])), lens, seen))
    _whole(data, end)
    return images


def _binary_points(data: bytes, path: Path) -> _Points:
    (count,), end = _COUNT.unpack_from(data), _COUNT.size
    rows = []
    for _ in range(count):
        number, x, y, z, red, green, blue, error_px, track = _POINT.unpack_from(data, end)
        rows.append((number, [x, y, z], [red, green, blue], error_px))
        end += _POINT.size + 8 * track
    _whole(data, end)
    return _points(rows)


def _text_rows(data: bytes) -> Iterator[list[str]]:
    for line in data.decode().splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split()


def _text_lenses(data: bytes, path: Path) -> dict[int, _Lens]:
    lenses = {}
    for key, name, width, height, *parameters in _text_rows(data):
        lenses[int(key)] = _lens(path, None, name, int(width), int(height), [float(value) for value in parameters])
    return lenses


def _text_images(data: bytes, path: Path) -> list[_Image]:
    images = []
    lines = iter(data.decode().splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        _, *pose, lens, name = line.split(maxsplit=9)
        cells = next(lines, "").split()  # the features; the line is empty where there are none
        if len(cells) % 3:
            raise ValueError(f"{name} has {len(cells)} numbers of features, which is no multiple of 3")
        seen = np.empty(len(cells) // 3, _SEEN)
        seen["xy"] = np.array([cells[0::3], cells[1::3]], np.float64).T
        seen["point"] = [int(cell) % 2**64 for cell in cells[2::3]]  # -1 is "no point", as in binary files
        values = np.array(pose, np.float64)
        images.append(_Image(name.strip(), _pose(values[:4], values[4:]), int(lens), seen))
    return images


def _text_points(data: bytes, path: Path) -> _Points:
    rows = []
    for number, x, y, z, red, green, blue, error_px, *_ in _text_rows(data):
        rows.append((int(number), [float(x), float(y), float(z)], [int(red), int(green), int(blue)], float(error_px)))
    return _points(rows)
