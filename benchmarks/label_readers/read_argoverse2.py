"""Read every log's cuboids with Argoverse 2's own code: in the city's frame, and the pixel of their centres."""

import json
import sys
from pathlib import Path

from av2.geometry.camera.pinhole_camera import PinholeCamera
from av2.structures.cuboid import CuboidList
from av2.utils.io import read_city_SE3_ego
from scipy.spatial.transform import Rotation

found = []
for log in sorted((Path(sys.argv[1]) / "logs").iterdir()):
    poses = read_city_SE3_ego(log)
    camera = PinholeCamera.from_feather(log, "ring_front_center")
    for cuboid in CuboidList.from_feather(log / "annotations.feather"):
        placed = poses[cuboid.timestamp_ns].compose(cuboid.dst_SE3_object)
        pixels, _, _ = camera.project_ego_to_img(cuboid.dst_SE3_object.translation[None])
        found.append(
            {
                "clip": log.name,
                "timestamp_ns": int(cuboid.timestamp_ns),
                "category": cuboid.category,
                "in_world": placed.translation.tolist(),
                "size_lwh": [float(cuboid.length_m), float(cuboid.width_m), float(cuboid.height_m)],
                "yaw_rad": float(Rotation.from_matrix(placed.rotation).as_euler("ZYX")[0]),
                "pixel": pixels[0, :2].tolist(),
                "picture": (log / "sensors" / "cameras" / "ring_front_center" / f"{cuboid.timestamp_ns}.jpg").exists(),
            }
        )
print(json.dumps({"boxes": found}))
