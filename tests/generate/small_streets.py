"""Examples for the world model that need no renderer: a textured wall before which a coloured box slides."""

import numpy as np

from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.media import Video


def slide(seed: int = 0, frames: int = 6, width: int = 48, height: int = 32) -> tuple[Conditions, Clip]:
    """Return a view and its true frames.

    The prior lacks the left quarter of every frame and the box that slides; the canvas of boxes tells where that is.
    """
    rng = np.random.default_rng(seed)
    wall = np.kron(rng.integers(60, 200, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    truth = np.tile(wall, (frames, 1, 1, 1))
    prior, known = truth.copy(), np.full((frames, height, width), 255, np.uint16)
    boxes = np.zeros_like(truth)
    known[:, :, : width // 4] = 0
    for frame in range(frames):
        place = np.s_[frame, height // 2 : height // 2 + 8, width // 2 + frame : width // 2 + frame + 10]
        truth[place] = 200, 30, 30
        boxes[place] = 255, 0, 0
        known[place] = 0
    prior[known == 0] = 0
    times = np.arange(frames) / 10
    conditions = Conditions(
        times_s=times,
        boxes=Video.from_array(boxes),
        road=Video.from_array(np.zeros_like(truth)),
        depth_cm=Video.from_array(np.where(known > 0, 1500, 0).astype(np.uint16)),
        prior=Video.from_array(prior),
        known=Video.from_array(known),
        first_frame=truth[0],
        text="the ego vehicle changes to the left lane",
        offset_m=np.linspace([0, 0], [0, 1], frames),
        prior_source="lidar",
    )
    return conditions, Clip(frames=Video.from_array(truth), times_s=times, name=f"slide {seed}")
