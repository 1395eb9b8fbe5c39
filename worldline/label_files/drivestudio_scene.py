"""Scenes as drivestudio reads its processed Waymo data (https://github.com/ziyc/drivestudio): one front camera, boxes, lidar.

The camera sits on the vehicle as it does in the first frame with a pose, and the vehicle's poses are those that put it exactly
where the path has it: where the road tilts a camera and the trajectory does not say so, the vehicle tilts. Without a trajectory
the vehicle is the camera. Camera axes are Waymo's (x forward, y left, z up), intrinsics those of OpenCV's lens with pixel
centres at +0.5, as drivestudio's rays have them.

drivestudio wants a sweep for every frame. A frame without one gets the nearest sweep's points outside all boxes: what stands
still is there at any time. `worldline.json` tells which sweeps are measured, with the frames' own times, which drivestudio
does not know; `map.json` holds the lines of the road, where there are any. Only what drivestudio has a model for goes out:
vehicles, pedestrians and cyclists, under its names; ours stand beside them.
"""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from schemas.driving import LidarSweeps, RoadMap
from worldline.cameras import invert_rigid
from worldline.label_files.labelled_clip import Boxes, LabelledClip

# OpenCV's camera axes to Waymo's: x forward, y left, z up.
_WAYMO_FROM_OPENCV = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_CLASSES = {
    **dict.fromkeys(
        ("car", "van", "truck", "trailer", "bus", "construction vehicle", "tram", "vehicle", "motorcycle"), "Vehicle"
    ),
    **dict.fromkeys(("pedestrian", "person", "wheelchair", "stroller"), "Pedestrian"),
    **dict.fromkeys(("cyclist", "bicycle", "pedicab"), "Cyclist"),
}
_COLUMNS = 14
_MARGIN_M = 0.2


def write_drivestudio(item: LabelledClip, boxes: Boxes | None, folder: Path, dropped: dict[str, int]) -> tuple[int, list[int]]:
    """Write one scene but for its images.

    Args:
        item: a clip with a camera path; frames without a pose are left out.
        boxes: of its objects, or None.
        folder: of the scene; its sub-folders are made.
        dropped: what is left out is counted here by its reason: "no_class_in_drivestudio".

    Returns:
        The number of boxes, and the frames that are to be written as `images/TTT_0.jpg`, in the order of TTT.
    """
    assert item.path is not None
    frames = np.flatnonzero(item.path.registered)
    for name in ("images", "intrinsics", "extrinsics", "ego_pose", "lidar", "instances"):
        (folder / name).mkdir(parents=True)
    cameras = item.path.world_from_camera[frames]
    ego_from_camera = _WAYMO_FROM_OPENCV
    if item.trajectory is not None:
        ego_from_camera = invert_rigid(item.trajectory.world_from_ego[frames[0]]) @ cameras[0]
    poses = cameras @ invert_rigid(ego_from_camera)
    matrix, lens = item.path.intrinsics, item.path.distortion
    np.savetxt(folder / "intrinsics" / "0.txt", [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *lens, 0.0])
    np.savetxt(folder / "extrinsics" / "0.txt", ego_from_camera @ invert_rigid(_WAYMO_FROM_OPENCV))
    for place, pose in enumerate(poses):
        np.savetxt(folder / "ego_pose" / f"{place:03d}.txt", pose)
    sweeps = _write_lidar(item.lidar, poses, item.times_s[frames], boxes, frames, folder / "lidar")
    own = {
        "times_s": item.times_s[frames].tolist(),
        "epoch_ns": item.clip.epoch_ns if item.clip is not None else None,
        "length_m": None if item.trajectory is None else item.trajectory.length_m,
        "width_m": None if item.trajectory is None else item.trajectory.width_m,
        "sweeps": sweeps,
    }
    (folder / "worldline.json").write_text(json.dumps(own, indent=1) + "\n")
    if item.road_map is not None and item.road_map.elements.num_rows:
        (folder / "map.json").write_text(json.dumps(map_elements(item.road_map)) + "\n")
    return _write_boxes(boxes, frames, folder / "instances", dropped), frames.tolist()


def map_elements(road_map: RoadMap) -> list[dict[str, object]]:
    """Return the lines of a map as JSON holds them: a kind and points of three metres each."""
    rows = zip(*(road_map.elements[name].to_pylist() for name in ("kind", "first_point", "points")), strict=True)
    return [{"kind": kind, "points": road_map.xyz[first : first + count].tolist()} for kind, first, count in rows]


def _write_boxes(boxes: Boxes | None, frames: np.ndarray, folder: Path, dropped: dict[str, int]) -> int:
    """Write the boxes by object and by frame; return how many there are."""
    place_of = {int(frame): place for place, frame in enumerate(frames)}
    instances: dict[str, dict[str, object]] = {}
    by_frame: dict[str, list[int]] = {str(place): [] for place in range(len(frames))}
    total = 0
    for track in np.unique(boxes.track_id) if boxes is not None else ():
        assert boxes is not None
        rows = np.flatnonzero(boxes.track_id == track)
        rows = rows[np.argsort(boxes.frame[rows], kind="stable")]
        ours = str(boxes.class_name[rows[0]])
        if ours not in _CLASSES:
            dropped["no_class_in_drivestudio"] = dropped.get("no_class_in_drivestudio", 0) + len(rows)
            continue
        poses = np.tile(np.eye(4), (len(rows), 1, 1))
        poses[:, :3, :3] = Rotation.from_euler("z", boxes.yaw_rad[rows, None]).as_matrix()
        poses[:, :3, 3] = boxes.centre[rows]
        places = [place_of[int(frame)] for frame in boxes.frame[rows]]
        for place in places:
            by_frame[str(place)].append(len(instances))
        instances[str(len(instances))] = {
            "id": str(track),
            "class_name": _CLASSES[ours],
            "worldline_class": ours,
            "frame_annotations": {"frame_idx": places, "obj_to_world": poses.tolist(), "box_size": boxes.size[rows].tolist()},
        }
        total += len(rows)
    (folder / "instances_info.json").write_text(json.dumps(instances) + "\n")
    (folder / "frame_instances.json").write_text(json.dumps(by_frame) + "\n")
    return total


def _write_lidar(
    lidar: LidarSweeps | None,
    poses: Float64[np.ndarray, "T 4 4"],
    times_s: Float64[np.ndarray, " T"],
    boxes: Boxes | None,
    frames: np.ndarray,
    folder: Path,
) -> list[tuple[int, float]]:
    """Write a sweep for every frame; return the frames that have one of their own, and when it was measured."""
    if lidar is None or not len(lidar.times_s):
        return []
    nearest_frame = np.abs(times_s - lidar.times_s[:, None]).argmin(1)
    own: dict[int, int] = {}
    for sweep in np.argsort(-np.abs(times_s[nearest_frame] - lidar.times_s), kind="stable"):  # of several, the nearest stays
        own[int(nearest_frame[sweep])] = int(sweep)
    still: dict[int, np.ndarray] = {}  # by sweep, and which of its points are in no box
    for place, pose in enumerate(poses):
        sweep = own.get(place, int(np.abs(lidar.times_s - times_s[place]).argmin()))
        points = lidar.xyz[lidar.sweep == sweep].astype(np.float64)
        if place not in own and boxes is not None:
            if sweep not in still:
                still[sweep] = ~_in_boxes(points, boxes, int(frames[nearest_frame[sweep]]))
            points = points[still[sweep]]
        rows = np.zeros((len(points), _COLUMNS), np.float32)
        from_world = invert_rigid(pose)
        rows[:, 0:3] = from_world[:3, :3] @ lidar.origins[sweep] + from_world[:3, 3]
        rows[:, 3:6] = points @ from_world[:3, :3].T + from_world[:3, 3]
        rows[:, 9] = -1.0  # no flow is known
        (folder / f"{place:03d}.bin").write_bytes(rows.tobytes())
    return sorted((place, float(lidar.times_s[sweep])) for place, sweep in own.items())


def _in_boxes(points: Float64[np.ndarray, "N 3"], boxes: Boxes, frame: int) -> np.ndarray:
    """Return which points lie in a box of a frame, or close to it."""
    inside = np.zeros(len(points), bool)
    if not len(points):
        return inside
    tree = cKDTree(points)
    for row in np.flatnonzero(boxes.frame == frame):
        half = boxes.size[row] / 2 + _MARGIN_M
        near = np.array(tree.query_ball_point(boxes.centre[row], float(np.linalg.norm(half))), np.int64)
        local = points[near] - boxes.centre[row]
        cos, sin = np.cos(boxes.yaw_rad[row]), np.sin(boxes.yaw_rad[row])
        turned = np.stack([cos * local[:, 0] + sin * local[:, 1], cos * local[:, 1] - sin * local[:, 0], local[:, 2]], -1)
        inside[near[(np.abs(turned) <= half).all(1)]] = True
    return inside
