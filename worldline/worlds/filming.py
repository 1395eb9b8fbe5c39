"""Clips of a scene: what a sensor makes of every view along a path, with depth and ids that are exact."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from schemas.artifact import rows_to_table
from schemas.media import Video
from schemas.tracks import TRUTH_BOXES, Truth
from worldline.worlds.scene import Lens, Scene
from worldline.worlds.sensor import expose, exposure_gains

DEPTH_UNIT_M = 0.002


def film(
    scene: Scene,
    lens: Lens,
    times_s: Float64[np.ndarray, " T"],
    world_from_camera: Float64[np.ndarray, "T 4 4"],
    rng: np.random.Generator,
    *,
    noise_grey_levels: float,
    exposure_variation: float,
    vignetting: float,
    progress: Callable[[int, int, str], None],
) -> tuple[Video, Truth]:
    """Draw a scene at times along a path.

    Args:
        scene: the world.
        lens: the camera.
        times_s: of the frames.
        world_from_camera: its pose in every frame, OpenCV axes.
        rng: source of the sensor's noise.
        noise_grey_levels: standard deviation of the sensor noise at mid grey, of 255.
        exposure_variation: relative amplitude of the exposure over the clip.
        vignetting: relative darkening of the corners.
        progress: told after every frame.

    Returns:
        The frames, and the truth: poses, boxes, ids and depth in steps of 2 mm (0 beyond 131 m).

    Raises:
        WorldlineError: if this machine has no OpenGL, in hardware or in software.
    """
    # here, because VTK takes 1.4 s to load, and most builds draw nothing
    from worldline.worlds.renderer import Renderer
    from worldline.worlds.truth import boxes_at

    shape = (len(times_s), lens.height, lens.width)
    rgb, depth, ids = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint16), np.empty(shape, np.uint16)
    gains = exposure_gains(rng, len(times_s), exposure_variation)
    rows = []
    with Renderer(scene, lens) as renderer:
        for index, time in enumerate(times_s.tolist()):
            view = renderer.draw(world_from_camera[index], time)
            rgb[index] = expose(rng, view.rgb, float(gains[index]), noise_grey_levels, vignetting)
            steps = np.rint(view.depth_m / DEPTH_UNIT_M)
            depth[index] = np.where(steps <= np.iinfo(np.uint16).max, steps, 0)
            ids[index] = view.ids
            rows += boxes_at(scene, lens, index, time, world_from_camera[index])
            progress(index + 1, len(times_s), "frames drawn")
    truth = Truth(
        available=True,
        world_from_camera=np.array(world_from_camera, float),
        intrinsics=lens.intrinsics,
        boxes=rows_to_table(TRUTH_BOXES, sorted(rows, key=lambda row: (row["track_id"], row["frame"]))),
        annotated=np.ones(len(times_s), bool),
        instances=Video.from_array(ids),
        depth_2mm=Video.from_array(depth),
    )
    return Video.from_array(rgb), truth
