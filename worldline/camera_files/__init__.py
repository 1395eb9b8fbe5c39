"""File formats of camera paths: every one that people exchange, written and read.

    from worldline.camera_files import read_colmap, write_transforms

    images = read_colmap("garden/sparse/0")     # binary or text
    write_transforms(images, "garden/transforms.json")

| format | holds | frames without a pose |
|---|---|---|
| `colmap_model` | poses, lenses, points and where they were seen | left out |
| `nerfstudio` (transforms.json) | poses, lenses | left out |
| `tum` | times and poses | left out |
| `kitti` | one pose per frame | cannot be told, so a path with gaps is refused by who writes it |

Poses are `world_from_camera` in OpenCV's camera axes on our side, whatever the file has; the world is the file's own. Pixel
centres lie at +0.5, as in COLMAP.
"""

from worldline.camera_files.colmap_model import find_colmap, read_colmap, write_colmap
from worldline.camera_files.images import PosedImages, posed_images
from worldline.camera_files.kitti import read_kitti, write_kitti
from worldline.camera_files.nerfstudio import read_transforms, write_transforms
from worldline.camera_files.tum import read_tum, write_tum
from worldline.camera_files.undistortion import undistorted, undistorter

__all__ = [
    "PosedImages",
    "find_colmap",
    "posed_images",
    "read_colmap",
    "read_kitti",
    "read_transforms",
    "read_tum",
    "undistorted",
    "undistorter",
    "write_colmap",
    "write_kitti",
    "write_transforms",
    "write_tum",
]
