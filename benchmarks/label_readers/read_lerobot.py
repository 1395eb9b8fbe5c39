"""Read a dataset with LeRobot's own class: every frame's numbers and task, and the first video where it says it lies.

LeRobot asks for torchvision, whose compiled operators are for other builds of torch than ours: they are declared here and
never called. Frames are decoded by PyAV for the same reason.
"""

import json
import sys

import av
import torch

operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
    operators.define(f"{name}(Tensor input) -> Tensor")
    operators.define(f"_{name}_backward(Tensor input) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402  (after the operators)

dataset = LeRobotDataset("street", root=sys.argv[1])
rows = [dataset.hf_dataset[index] for index in range(len(dataset))]
videos = []
for episode in range(dataset.meta.total_episodes):
    with av.open(str(dataset.meta.root / dataset.meta.get_video_file_path(episode, dataset.meta.video_keys[0]))) as container:
        videos.append([float(frame.time) for frame in container.decode(video=0)])
frames = [
    {
        "episode": int(row["episode_index"]),
        "frame": int(row["frame_index"]),
        "time_s": float(row["timestamp"]),
        "state": row["observation.state"].tolist(),
        "task": dataset.meta.tasks.iloc[int(row["task_index"])].name,
    }
    for row in rows
]
clips = [row["clip"] for row in dataset.meta.episodes]
print(json.dumps({"fps": dataset.fps, "frames": frames, "videos": videos, "clips": clips}))
