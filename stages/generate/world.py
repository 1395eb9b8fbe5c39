"""A clip that nobody filmed: a procedural street, or a camera around a small world, drawn with exact truth.

The clip carries what a recorded one could carry: frames, times, the calibration, the camera's mounting height as a
car maker knows it, and satellite fixes if asked for. The truth goes into its own artifact, for evaluation alone.
"""

import difflib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.clips import GPS_FIXES, Clip
from schemas.errors import WorldlineError
from schemas.tracks import Truth
from stages.contract import Progress, no_progress, stage
from stages.generate.small_world import draw_small_world
from worldline.worlds import LAYOUTS, Lens, Scene, build_street
from worldline.worlds.filming import DEPTH_UNIT_M, film
from worldline.worlds.sensor import gps_fixes
from worldline.worlds.toys import TOYS


@dataclass(frozen=True)
class WorldConfig:
    """What to draw.

    Attributes:
        layout: "straight" (lead car, oncoming cars, zebra crossing), "curve" or "junction" (crossing cars); or one of the small
            worlds "bounce", "appear", "arm" and "pulse", of which only size, frames, rate, field of view and the sigma of the
            camera's height are chosen here.
        frames: number of frames.
        frames_per_second: their rate.
        width, height: pixels.
        field_of_view_deg: horizontal.
        texture_detail: texels per metre relative to what 640 pixels of width can show; raise it with the width.
        camera_height_m: true height of the camera over the road.
        camera_height_sigma_m: how well the clip's given camera height is known; it is off by a draw from this.
        gps: whether the clip carries satellite fixes.
        gps_sigma_m: standard deviation of their horizontal position.
        noise_grey_levels: standard deviation of the sensor noise at mid grey, of 255.
        exposure_variation: relative amplitude of the exposure over the clip.
        vignetting: relative darkening of the corners.
    """

    layout: str = "straight"
    frames: int = 72
    frames_per_second: float = 10.0
    width: int = 640
    height: int = 360
    field_of_view_deg: float = 64.0
    texture_detail: float = 1.0
    camera_height_m: float = 1.6
    camera_height_sigma_m: float = 0.02
    gps: bool = False
    gps_sigma_m: float = 0.5
    noise_grey_levels: float = 1.5
    exposure_variation: float = 0.04
    vignetting: float = 0.08


@stage("generate.world", version=1, environment_packages=("vtk", "opencv-python-headless", "numpy"))
def generate_world(*, config: WorldConfig, seed: int, progress: Progress = no_progress) -> tuple[Clip, Truth]:
    """Draw a clip of a procedural street or of a small world.

    Raises:
        WorldlineError: if the layout is unknown, or the clip would be empty.
    """
    _check(config)
    focal = config.width / 2 / np.tan(np.radians(config.field_of_view_deg) / 2)
    lens = Lens(config.width, config.height, float(focal))
    times = np.arange(config.frames) / config.frames_per_second
    if config.layout in TOYS:
        return draw_small_world(config.layout, lens, times, DEPTH_UNIT_M, config.camera_height_sigma_m, seed, progress)
    world_seed, sensor_seed, receiver_seed = np.random.SeedSequence(seed).spawn(3)
    rng = np.random.default_rng(world_seed)
    scene = build_street(config.layout, rng, camera_height_m=config.camera_height_m, detail=config.texture_detail)
    poses = np.stack([scene.world_from_camera(float(time)) for time in times])
    frames, truth = film(
        scene,
        lens,
        times,
        poses,
        np.random.default_rng(sensor_seed),
        noise_grey_levels=config.noise_grey_levels,
        exposure_variation=config.exposure_variation,
        vignetting=config.vignetting,
        progress=progress,
    )
    rng = np.random.default_rng(receiver_seed)
    clip = Clip(
        frames=frames,
        times_s=times,
        name=f"world:{config.layout}",
        intrinsics=lens.intrinsics,
        gps=_gps(scene, times, poses, config, rng) if config.gps else None,
        camera_height_m=float(config.camera_height_m + config.camera_height_sigma_m * rng.normal()),
        camera_height_sigma_m=config.camera_height_sigma_m,
        provenance={"generator": "worldline.worlds", "layout": config.layout, "seed": seed},
    )
    return clip, truth


def _check(config: WorldConfig) -> None:
    known = sorted({**LAYOUTS, **TOYS})
    if config.layout not in known:
        near = difflib.get_close_matches(config.layout, known, n=1, cutoff=0.0)[0]
        raise WorldlineError(f"generate.world: layout={config.layout!r} is not one of {', '.join(known)}; did you mean {near!r}?")
    if config.frames < 2 or config.frames_per_second <= 0:
        raise WorldlineError(
            f"generate.world: frames={config.frames} at frames_per_second={config.frames_per_second} is no clip; "
            "give at least 2 frames and a positive rate"
        )


def _gps(scene: Scene, times: np.ndarray, poses: np.ndarray, config: WorldConfig, rng: np.random.Generator) -> pa.Table:
    speeds = np.array([scene.ego.speed(float(time)) for time in times])
    return make_table(GPS_FIXES, gps_fixes(rng, times, poses[:, :3, 3], speeds, sigma_m=config.gps_sigma_m))
