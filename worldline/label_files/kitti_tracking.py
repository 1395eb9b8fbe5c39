"""KITTI tracking: a text file of boxes per clip in the camera's frame, and its calibration (Geiger et al., CVPR 2012).

The camera is "camera 2" and "rectified" at once: P0 to P3 are the same, R0 is the identity, so that a point of the labels
times P2 is a pixel. KITTI boxes stand upright in the camera's frame; where the camera looks down or leans over, position,
size and heading are exact and that lean is lost.
"""

from pathlib import Path

import numpy as np

from schemas.cameras import CameraPath
from worldline.cameras import invert_rigid, transform_points
from worldline.label_files.labelled_clip import Boxes

# KITTI's names for classes that it knows; others keep their own, as one word with a capital letter.
_CLASSES = {"car": "Car", "van": "Van", "truck": "Truck", "pedestrian": "Pedestrian", "person": "Pedestrian",
            "cyclist": "Cyclist", "bicycle": "Cyclist", "tram": "Tram", "unknown": "Misc"}  # fmt: skip


def write_kitti_tracking(boxes: Boxes | None, path: CameraPath, folder: Path, sequence: int) -> int:
    """Write `label_02/NNNN.txt` and `calib/NNNN.txt`; return the number of boxes.

    A line is: frame, track, class, truncation (0 or 1: touches the border), occlusion (0 seen, 1 partly, 2 largely hidden, 3
    not known), alpha, box in pixels (-1 where it is not seen), height, width, length, bottom centre in the camera's frame,
    rotation about its y axis, in metres and radians.
    """
    (folder / "label_02").mkdir(exist_ok=True)
    (folder / "calib").mkdir(exist_ok=True)
    name = f"{sequence:04d}.txt"
    lines = [] if boxes is None else _lines(boxes, path)
    (folder / "label_02" / name).write_text("".join(f"{line}\n" for line in lines))
    projection = " ".join(f"{value:.12e}" for value in np.hstack([path.intrinsics, np.zeros((3, 1))]).ravel())
    identity = " ".join(f"{value:.12e}" for value in np.eye(3, 4).ravel())
    rotation = " ".join(f"{value:.12e}" for value in np.eye(3).ravel())
    calibration = [f"P{number}: {projection}" for number in range(4)]
    calibration += [f"R_rect {rotation}", f"Tr_velo_cam {identity}", f"Tr_imu_velo {identity}"]
    (folder / "calib" / name).write_text("\n".join(calibration) + "\n")
    return len(lines)


def _lines(boxes: Boxes, path: CameraPath) -> list[str]:
    camera_from_world = invert_rigid(path.world_from_camera[boxes.frame])
    bottom = boxes.centre - np.stack([*np.zeros((2, len(boxes.centre))), boxes.size[:, 2] / 2], 1)
    location = transform_points(camera_from_world, bottom[:, None])[:, 0]
    heading = np.stack([np.cos(boxes.yaw_rad), np.sin(boxes.yaw_rad), np.zeros(len(boxes.yaw_rad))], 1)
    heading = np.einsum("kij,kj->ki", camera_from_world[:, :3, :3], heading)
    turn = np.arctan2(-heading[:, 2], heading[:, 0])
    alpha = _wrapped(turn - np.arctan2(location[:, 0], location[:, 2]))
    seen = np.isfinite(boxes.box_px).all(1)
    pixels = np.where(seen[:, None], boxes.box_px, -1.0)
    inside = (pixels[:, 0] > 0) & (pixels[:, 1] > 0) & (pixels[:, 2] < path.width - 1) & (pixels[:, 3] < path.height - 1)
    share = np.where(np.isfinite(boxes.visible), boxes.visible, -1.0)
    hidden = np.select([share < 0, share >= 0.8, share >= 0.4], [3, 0, 1], 2)
    order = np.lexsort((boxes.track_id, boxes.frame))
    return [
        f"{boxes.frame[k]} {boxes.track_id[k]} {_class(boxes.class_name[k])} {int(seen[k] and not inside[k])} {hidden[k]} "
        f"{alpha[k]:.6f} {' '.join(f'{value:.2f}' for value in pixels[k])} "
        f"{boxes.size[k, 2]:.6f} {boxes.size[k, 1]:.6f} {boxes.size[k, 0]:.6f} "
        f"{' '.join(f'{value:.6f}' for value in location[k])} {turn[k]:.6f}"
        for k in order
    ]


def _class(name: str) -> str:
    return _CLASSES.get(name, "".join(word.capitalize() for word in name.replace("_", " ").split()) or "Misc")


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)
