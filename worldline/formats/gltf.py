"""glTF with Khronos' extension KHR_gaussian_splatting (ratified): splats beside meshes, in every engine that has it.

A splat primitive is of POINTS with the attributes

    POSITION                                    VEC3    scene units, +Y up
    KHR_gaussian_splatting:ROTATION             VEC4    unit quaternion xyzw
    KHR_gaussian_splatting:SCALE                VEC3    linear
    KHR_gaussian_splatting:OPACITY              SCALAR  in [0, 1]
    KHR_gaussian_splatting:SH_DEGREE_d_COEF_n   VEC3    d = 0..3, n = 0..2 d; degree 0 is (colour - 0.5) / C0
    COLOR_0                                     VEC4    linear RGBA, drawn as a point cloud where the extension is unknown

and the extension object {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}.

What is lost: all that a PLY loses (see `ply`). Values are float32, nothing is quantised; the turn from z up to y up rounds
quaternions and harmonics in their last bit.
"""

import base64
import binascii
import dataclasses
import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import WorldlineError
from schemas.scenes import Scene4D
from worldline.cameras import rotation_from_quaternion
from worldline.files import new_file, read_bytes
from worldline.formats.frames import into_frame, out_of_frame, turned
from worldline.formats.moments import C0, Moment, harmonics_degree, joined, moment_of_file, shown_at, static_scene

EXTENSION = "KHR_gaussian_splatting"
COLOR_SPACE = "srgb_rec709_display"
_JSON, _BINARY = b"JSON", b"BIN\0"
_FLOAT, _BYTE = 5126, 5121
_VERTICES = 34962  # buffer view target ARRAY_BUFFER
_POINTS = 0
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def write_gltf(scene: Scene4D, path: Path | str, *, at_s: float | None = None) -> None:
    """Write the scene at one time as a binary glTF (.glb).

    Args:
        scene: any motion model; harmonics of degree 3 at most.
        path: of the file, replaced if it is there.
        at_s: seconds of the clip, the nearest moment that the scene has; None for the first.

    Raises:
        WorldlineError: if nothing is seen at that time, a parameter is not finite, or the file cannot be written.
    """
    path = Path(path)
    moment, time_s = shown_at(scene, at_s, path)
    moment = into_frame(moment, "y")
    columns = _columns(moment)
    document = _document(columns, time_s)
    binary = b"".join(column.tobytes() for column in columns.values())
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = b"".join(struct.pack("<I4s", len(part), kind) + part for part, kind in ((text, _JSON), (binary, _BINARY)))
    with new_file(path) as partial:
        partial.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _columns(moment: Moment) -> dict[str, np.ndarray]:
    """Return the attributes by name, every one `[N, C]`; their sizes are multiples of 4 bytes, as glTF asks."""
    degree = harmonics_degree(moment)
    linear = np.where(moment.colors <= 0.04045, moment.colors / 12.92, (np.maximum(moment.colors, 0.0) + 0.055) / 1.055)
    linear = np.where(moment.colors <= 0.04045, linear, linear**2.4)  # sRGB's curve; COLOR_0 is linear light
    fallback = np.concatenate([linear, moment.opacities[:, None]], axis=1)
    quats = moment.quats / np.linalg.norm(moment.quats, axis=1, keepdims=True)
    columns = {
        "POSITION": moment.means,
        f"{EXTENSION}:ROTATION": np.roll(quats, -1, axis=1),
        f"{EXTENSION}:SCALE": moment.scales,
        f"{EXTENSION}:OPACITY": moment.opacities[:, None],
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": (moment.colors - 0.5) / C0,
    }
    for d in range(1, degree + 1):
        assert moment.harmonics is not None
        for n in range(2 * d + 1):
            columns[f"{EXTENSION}:SH_DEGREE_{d}_COEF_{n}"] = moment.harmonics[:, d * d - 1 + n]
    floats = {name: np.ascontiguousarray(column, "<f4") for name, column in columns.items()}
    return floats | {"COLOR_0": np.rint(255.0 * np.clip(fallback, 0.0, 1.0)).astype(np.uint8)}


def _document(columns: dict[str, np.ndarray], time_s: float) -> dict[str, Any]:
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    offset = 0
    for name, column in columns.items():
        count, width = column.shape
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": column.nbytes, "target": _VERTICES})
        accessor = {"bufferView": len(accessors), "componentType": _FLOAT, "count": count,
                    "type": "SCALAR" if width == 1 else f"VEC{width}"}  # fmt: skip
        if name == "POSITION":
            accessor |= {"min": column.min(axis=0).tolist(), "max": column.max(axis=0).tolist()}
        if column.dtype == np.uint8:
            accessor |= {"componentType": _BYTE, "normalized": True}
        accessors.append(accessor)
        offset += column.nbytes
    primitive = {
        "mode": _POINTS,
        "attributes": {name: number for number, name in enumerate(columns)},
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": COLOR_SPACE}},
    }
    return {
        "asset": {"version": "2.0", "generator": "worldline", "extras": {"worldline": {"time_s": time_s}}},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }


# -- reading -----------------------------------------------------------------------------------------------------------


def read_gltf(path: Path | str) -> Scene4D:
    """Read the splats of a .glb or .gltf as a static scene, in the house's frame (z up).

    Splats of all nodes of the scene are joined, each under the transforms of its nodes: turns, moves and uniform scales.

    Raises:
        WorldlineError: if it is no glTF, is cut short, holds no splats, needs an extension that is not known here (splats
            compressed as SPZ, say), has colours of linear light, or stretches splats; the sentence names the field.
    """
    path = Path(path)
    document, binary = _opened(path)
    unknown = [name for name in document.get("extensionsRequired", []) if name != EXTENSION]
    if unknown:
        raise WorldlineError(f"{path} cannot be read: it requires the glTF extension {unknown[0]}; save it without")
    try:
        buffers = [_buffer(buffer, binary, path) for buffer in document.get("buffers", [])]
        moments = [
            _transformed(_splats(document, buffers, primitive, path), world, path)
            for mesh, world in _placed_meshes(document)
            for primitive in document["meshes"][mesh]["primitives"]
            if EXTENSION in primitive.get("extensions", {})
        ]
        time_s = float(document.get("asset", {}).get("extras", {}).get("worldline", {}).get("time_s", 0.0))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WorldlineError(f"{path} is damaged: its glTF document is not consistent ({error!r}); export it again") from error
    if not moments:
        raise WorldlineError(f"{path} holds no Gaussians: no primitive has the extension {EXTENSION}; export it with splats")
    return static_scene(out_of_frame(joined(moments), "y"), time_s)


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the document and the binary chunk."""
    data = read_bytes(path)
    text, binary = data, b""
    if data[:4] == b"glTF":
        if len(data) < 20:
            raise WorldlineError(f"{path} is cut short: it has {len(data)} bytes, less than a glTF header; fetch it again")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise WorldlineError(f"{path} is glTF version {version}: only version 2 is known; save it as glTF 2.0")
        if length > len(data):
            raise WorldlineError(f"{path} is cut short: its header tells {length} bytes, {len(data)} are there; fetch it again")
        chunks: dict[bytes, bytes] = {}
        offset = 12
        while offset + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, offset)
            chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
            offset += 8 + size
        text, binary = chunks.get(_JSON, b""), chunks.get(_BINARY, b"")
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
            raise ValueError("it has no asset")
    except (ValueError, RecursionError) as error:
        raise WorldlineError(f"{path} is no glTF file ({error}): name a .glb or .gltf file") from error
    return document, binary


def _buffer(buffer: dict[str, Any], binary: bytes, path: Path) -> bytes:
    uri = buffer.get("uri")
    if uri is None:
        data = binary
    elif uri.startswith("data:"):
        try:
            data = base64.b64decode(uri.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise WorldlineError(f"{path} is damaged: a buffer's data is no base64; export it again") from error
    else:
        beside = (path.parent / urllib.parse.unquote(uri)).resolve()
        if "://" in uri or not beside.is_relative_to(path.parent.resolve()):
            raise WorldlineError(f"{path} names the buffer {uri!r}, which does not lie beside it: save it as one .glb")
        data = read_bytes(beside)
    if len(data) < buffer["byteLength"]:
        raise WorldlineError(
            f"{path} is cut short: a buffer tells {buffer['byteLength']} bytes, {len(data)} are there; fetch it again"
        )
    return data


def _column(document: dict[str, Any], buffers: list[bytes], number: int, width: int, name: str, path: Path) -> np.ndarray:
    """Return an accessor `[N, C]` as float64."""
    accessor = document["accessors"][number]
    if "sparse" in accessor or _WIDTHS.get(accessor["type"]) != width or accessor["componentType"] not in _COMPONENTS:
        raise WorldlineError(f"{path} has an attribute {name} of a kind that the extension does not allow: export it again")
    view = document["bufferViews"][accessor["bufferView"]]
    kind = np.dtype(_COMPONENTS[accessor["componentType"]])
    count, size = accessor["count"], kind.itemsize * width
    stride, offset = view.get("byteStride", size), accessor.get("byteOffset", 0)
    if not count:
        return np.zeros((0, width))
    if offset < 0 or stride < size or offset + (count - 1) * stride + size > view["byteLength"]:
        raise WorldlineError(f"{path} is damaged: attribute {name} reaches beyond its buffer view; export it again")
    start = view.get("byteOffset", 0) + offset
    values = np.ndarray((count, width), kind, buffers[view["buffer"]], start, (stride, kind.itemsize)).astype(np.float64)
    if accessor.get("normalized"):
        values = np.maximum(values / np.iinfo(kind).max, -1.0)
    return values


def _splats(document: dict[str, Any], buffers: list[bytes], primitive: dict[str, Any], path: Path) -> Moment:
    extension, attributes = primitive["extensions"][EXTENSION], primitive["attributes"]
    if extension.get("extensions"):
        raise WorldlineError(f"{path} cannot be read: its splats need {', '.join(extension['extensions'])}; save it without")
    if extension.get("kernel", "ellipse") != "ellipse" or primitive.get("mode", 4) != _POINTS:
        raise WorldlineError(
            f"{path} cannot be read: its splats have the kernel {extension.get('kernel')!r}; only ellipses of POINTS are known"
        )
    if extension.get("colorSpace", COLOR_SPACE) != COLOR_SPACE:
        raise WorldlineError(f"{path} cannot be read: its colorSpace is {extension['colorSpace']!r}; export it as {COLOR_SPACE}")

    def column(name: str, width: int) -> np.ndarray:
        if name not in attributes:
            raise WorldlineError(f"{path} has splats without the attribute {name}: export it again")
        return _column(document, buffers, attributes[name], width, name, path)

    degree = max((d for d in range(4) if f"{EXTENSION}:SH_DEGREE_{d}_COEF_0" in attributes), default=0)
    harmonics = [column(f"{EXTENSION}:SH_DEGREE_{d}_COEF_{n}", 3) for d in range(1, degree + 1) for n in range(2 * d + 1)]
    return moment_of_file(
        path,
        means=column("POSITION", 3),
        quats=np.roll(column(f"{EXTENSION}:ROTATION", 4), 1, axis=1),
        scales=column(f"{EXTENSION}:SCALE", 3),
        opacities=column(f"{EXTENSION}:OPACITY", 1)[:, 0],
        colors=0.5 + C0 * column(f"{EXTENSION}:SH_DEGREE_0_COEF_0", 3),
        harmonics=np.stack(harmonics, axis=1) if harmonics else None,
    )


def _placed_meshes(document: dict[str, Any]) -> list[tuple[int, np.ndarray]]:
    """Return every mesh of the scene with its world matrix."""
    nodes, found = document.get("nodes", []), []

    def visit(number: int, parent: np.ndarray) -> None:
        node = nodes[number]
        world = parent @ _matrix(node)
        if "mesh" in node:
            found.append((node["mesh"], world))
        for child in node.get("children", []):
            visit(child, world)

    scenes = document.get("scenes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = scenes[document.get("scene", 0)].get("nodes", []) if scenes else sorted(set(range(len(nodes))) - children)
    for root in roots:
        visit(root, np.eye(4))
    return found


def _matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # glTF writes columns
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion(np.roll(node.get("rotation", [0.0, 0.0, 0.0, 1.0]), 1)) * node.get(
        "scale", [1.0] * 3
    )
    matrix[:3, 3] = node.get("translation", [0.0] * 3)
    return matrix


def _transformed(moment: Moment, world: np.ndarray, path: Path) -> Moment:
    linear = world[:3, :3]
    scale = float(np.cbrt(np.linalg.det(linear)))
    if not scale > 0 or not np.allclose(linear @ linear.T, scale**2 * np.eye(3), atol=1e-4 * scale**2):
        raise WorldlineError(f"{path} cannot be read: a node stretches or mirrors its splats; apply its transform in the editor")
    moment = turned(moment, np.eye(3) if np.allclose(linear, scale * np.eye(3), atol=1e-7 * scale) else linear / scale)
    return dataclasses.replace(moment, means=scale * moment.means + world[:3, 3], scales=scale * moment.scales)
