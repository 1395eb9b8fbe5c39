"""`transforms.json` of nerfstudio and instant-ngp: a camera-to-world matrix and a lens for every image.

Cameras look along -z with y up (OpenGL), so two axes turn on the way in and out. The world keeps its axes: nerfstudio has z up,
as we do. `applied_transform` tells how the file's world came from that of the reconstruction before it. It is written as
the identity, so that what nerfstudio trains can be mapped back to our world, and not undone in reading, because points and
scenes beside the file are in the file's world.

Format: https://docs.nerf.studio/quickstart/data_conventions.html.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schemas.cameras import PointCloud
from schemas.errors import WorldlineError
from worldline.camera_files.images import PosedImages
from worldline.camera_files.lines import refuse
from worldline.cameras import nearest_rotation, rigid
from worldline.files import new_file, read_bytes

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_PLAIN = (None, "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_TURNED_AWAY = ("k3", "k4", "k5", "k6")
_POINTS = "points.ply"


def write_transforms(images: PosedImages, path: Path | str, *, image_folder: str = "images") -> None:
    """Write `transforms.json`, and the points, if there are any, as `points.ply` beside it.

    Args:
        images: what to write; the lens goes to the top of the file where all have the same.
        path: of the JSON file.
        image_folder: where the images lie, seen from the file.

    Raises:
        WorldlineError: if it cannot be written.
    """
    path = Path(path)
    first, lens_of_image = images.lenses()
    lenses = [_written_lens(images, int(index)) for index in first]
    shared = len(lenses) == 1
    frames = [
        {"file_path": f"{image_folder}/{name}" if image_folder else name, "transform_matrix": pose.tolist()}
        | ({} if shared else lenses[lens])
        for name, pose, lens in zip(images.names, images.world_from_camera @ _OPENGL, lens_of_image, strict=True)
    ]
    document: dict[str, Any] = lenses[0].copy() if shared else {"camera_model": "OPENCV"}
    document["applied_transform"] = np.eye(4)[:3].tolist()
    if len(images.points.xyz):
        document["ply_file_path"] = _POINTS
        _write_points(images, path.with_name(_POINTS))
    with new_file(path) as partial:
        partial.write_text(json.dumps(document | {"frames": frames}, indent=1) + "\n")


def _written_lens(images: PosedImages, index: int) -> dict[str, Any]:
    matrix, distortion, (width, height) = images.intrinsics[index], images.distortion[index], images.sizes_px[index].tolist()
    return {"camera_model": "OPENCV", "w": width, "h": height, "fl_x": matrix[0, 0], "fl_y": matrix[1, 1], "cx": matrix[0, 2],
            "cy": matrix[1, 2], **dict(zip(("k1", "k2", "p1", "p2"), distortion.tolist(), strict=True))}  # fmt: skip


def _write_points(images: PosedImages, path: Path) -> None:
    rows = np.empty(len(images.points.xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = images.points.xyz, images.points.rgb
    properties = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {name}" for name in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *properties, "end_header", ""]
    with new_file(path) as partial:
        partial.write_bytes("\n".join(header).encode() + rows.tobytes())


def read_transforms(path: Path | str, *, size_px: tuple[int, int] | None = None) -> PosedImages:
    """Read poses and lenses in the file's own order; points are not read.

    Args:
        path: of the JSON file; names are `file_path` as written there.
        size_px: width and height of images whose size neither the file nor a frame of it tells. None asks the image, which
            must then lie where `file_path` says (with .png added where it has no suffix, as in NeRF's synthetic scenes).

    Raises:
        WorldlineError: if it is no such file, a lens is a fisheye or a panorama, or a matrix is no pose.
    """
    path = Path(path)
    try:
        document = json.loads(read_bytes(path))
        frames = document["frames"]
        shared = {key: value for key, value in document.items() if key != "frames"}
        found = [(frame["file_path"], _read_pose(frame["transform_matrix"]), shared | frame) for frame in frames]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise WorldlineError(
            f"{path} is no transforms.json ({told}): it needs frames with file_path and transform_matrix (4 x 4)"
        ) from error
    if not found:
        refuse(path, "it has no frames", "name a file that has some")
    lenses = [_read_lens(path, str(name), fields, size_px) for name, _, fields in found]
    return PosedImages(
        names=tuple(str(name) for name, _, _ in found),
        world_from_camera=np.stack([pose for _, pose, _ in found]),
        intrinsics=np.stack([lens[0] for lens in lenses]),
        distortion=np.stack([lens[1] for lens in lenses]),
        sizes_px=np.array([lens[2] for lens in lenses], np.int64),
        points=PointCloud.none(),
    )


def _read_pose(matrix: Any) -> np.ndarray:
    pose = np.array(matrix, np.float64)
    if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
        raise ValueError("a transform_matrix is not 4 x 4 numbers")
    rotation = nearest_rotation(pose[:3, :3])
    if np.abs(rotation - pose[:3, :3]).max() > 0.01:
        raise ValueError("a transform_matrix has no rotation")
    return rigid(rotation, pose[:3, 3]) @ _OPENGL


def _read_lens(
    path: Path, name: str, fields: dict[str, Any], size_px: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    model = fields.get("camera_model")
    if model not in _PLAIN or any(fields.get(key) for key in _TURNED_AWAY) or fields.get("is_fisheye"):
        refuse(path, f"the lens of {name} ({model or 'with k3'}) is not read", "undistort the images to OPENCV or PINHOLE first")
    try:
        width, height = int(fields.get("w", 0)), int(fields.get("h", 0))
        if width <= 0 or height <= 0:
            width, height = size_px or _picture_size(path, name)
        if "fl_x" in fields:
            focal_x = float(fields["fl_x"])
            focal_y = float(fields.get("fl_y", focal_x))
        elif "camera_angle_x" in fields:
            focal_x = focal_y = 0.5 * width / float(np.tan(0.5 * float(fields["camera_angle_x"])))
            if "camera_angle_y" in fields:
                focal_y = 0.5 * height / float(np.tan(0.5 * float(fields["camera_angle_y"])))
        else:
            refuse(path, f"{name} has no focal length", "add fl_x and fl_y in pixels, or camera_angle_x in radians")
        centre = (float(fields.get("cx", width / 2)), float(fields.get("cy", height / 2)))
        distortion = np.array([float(fields.get(key) or 0.0) for key in ("k1", "k2", "p1", "p2")])
    except (TypeError, ValueError) as error:
        refuse(path, f"the lens of {name} cannot be read ({error})", "w, h, fl_x, fl_y, cx, cy, k1, k2, p1, p2 are numbers")
    if not (np.isfinite([*centre, *distortion, focal_x, focal_y]).all() and min(focal_x, focal_y) > 0):
        refuse(path, f"the focal length of {name} is {focal_x:g}, {focal_y:g}", "give fl_x and fl_y in pixels")
    if model in ("PINHOLE", "SIMPLE_PINHOLE"):
        distortion = np.zeros(4)
    return np.array([[focal_x, 0.0, centre[0]], [0.0, focal_y, centre[1]], [0.0, 0.0, 1.0]]), distortion, (width, height)


def _picture_size(path: Path, name: str) -> tuple[int, int]:
    for place in (path.parent / name, path.parent / f"{name}.png"):
        if place.is_file():
            try:
                with Image.open(place) as picture:
                    return picture.size
            except OSError as error:
                raise WorldlineError(f"{place} cannot be read as an image: replace it, or give w and h in {path}") from error
    refuse(path, f"it tells no w and h and {name} does not lie beside it", "add the size of the images in pixels")
