"""A clip of one of the small worlds: a camera that goes once around `bounce`, `appear`, `arm` or `pulse`.

The orbit protocol of `worldline.worlds.protocols` as a source like any other: one azimuth per time, a unit of the scene taken for
a metre, the camera's height over the floor known. The truth holds the path, depths and instances, and no boxes: a ball has no
heading, and a limb no upright box.
"""

import numpy as np

from schemas.clips import Clip
from schemas.media import Video
from schemas.tracks import Truth
from stages.contract import Progress
from worldline.cameras import invert_rigid
from worldline.worlds import Lens
from worldline.worlds.protocols import orbit
from worldline.worlds.raycast import cast
from worldline.worlds.toys import BACKGROUND, TOYS


def draw_small_world(
    layout: str, lens: Lens, times_s: np.ndarray, depth_unit_m: float, camera_height_sigma_m: float, seed: int, progress: Progress
) -> tuple[Clip, Truth]:
    """Draw a clip.

    Args:
        layout: one of `worldline.worlds.toys.TOYS`.
        lens: of the camera.
        times_s: `[T]` frame times; the world's normalised time goes from 0 at the first to 1 at the last.
        depth_unit_m: steps in which the truth keeps depths.
        camera_height_sigma_m: how well the clip's given camera height is known; it is off by a draw from this.
        seed: chooses the azimuth of the first frame.
        progress: told of each frame.
    """
    poses = orbit(len(times_s), seed)
    pictures = []
    for index, (pose, time) in enumerate(zip(invert_rigid(poses), times_s / times_s[-1], strict=True)):
        solids = TOYS[layout](float(time))
        pictures.append(cast(solids, pose, lens.intrinsics, lens.width, lens.height, background=BACKGROUND))
        progress(index + 1, len(times_s), "frames drawn")
    height = poses[0, 2, 3] + camera_height_sigma_m * np.random.default_rng([seed, 1]).normal()
    clip = Clip(
        frames=Video.from_array(np.stack([picture.rgb for picture in pictures])),
        times_s=times_s,
        name=f"world:{layout}",
        intrinsics=lens.intrinsics,
        camera_height_m=float(height),
        camera_height_sigma_m=camera_height_sigma_m,
        provenance={"generator": "worldline.worlds", "layout": layout, "seed": seed},
    )
    steps = np.rint(np.stack([picture.depths for picture in pictures]) / depth_unit_m).astype(np.uint16)
    truth = Truth(
        available=True,
        world_from_camera=poses,
        intrinsics=lens.intrinsics,
        boxes=Truth.unavailable().boxes,
        annotated=np.zeros(len(times_s), bool),
        instances=Video.from_array(np.stack([picture.instances for picture in pictures])),
        depth_2mm=Video.from_array(steps),
    )
    return clip, truth
