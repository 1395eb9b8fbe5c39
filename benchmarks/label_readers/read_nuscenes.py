"""Read every key frame's boxes with the nuScenes devkit: in the camera's frame and in the world, with their velocities."""

import json
import sys

from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility

tables = NuScenes(version="v1.0-worldline", dataroot=sys.argv[1], verbose=False)
found = []
for sample in tables.sample:
    _, boxes, _ = tables.get_sample_data(sample["data"]["CAM_FRONT"], box_vis_level=BoxVisibility.NONE)
    for box in boxes:
        annotation = tables.get("sample_annotation", box.token)
        world = tables.get_box(box.token)
        found.append(
            {
                "clip": tables.get("scene", sample["scene_token"])["name"],
                "timestamp_us": sample["timestamp"],
                "category": box.name,
                "attributes": [tables.get("attribute", token)["name"] for token in annotation["attribute_tokens"]],
                "in_camera": box.center.tolist(),
                "in_world": world.center.tolist(),
                "size_wlh": box.wlh.tolist(),
                "yaw_rad": world.orientation.yaw_pitch_roll[0],
                "velocity": tables.box_velocity(box.token).tolist(),
            }
        )
print(json.dumps({"boxes": found, "frames": len(tables.sample_data), "clips": len(tables.scene)}))
