"""A driving log that nobody recorded: a procedural street with frames, path, boxes, map and laser points of a data set."""

import difflib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.driving import TRAJECTORY_CHECKS, LidarSweeps, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.tracks import Tracks, Truth
from stages.contract import Progress, no_progress, stage
from stages.ingest.ego_poses import Timeline
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from worldline.worlds import LAYOUTS, Lens, Scene, build_random_street, build_street
from worldline.worlds.filming import film
from worldline.worlds.lidar import LaserScanner, scan
from worldline.worlds.road_map import road_map

RANDOM = "street"
EGO_LENGTH_M, EGO_WIDTH_M = 4.5, 1.8
CAMERA_AHEAD_M = 1.25  # of the vehicle's middle


@dataclass(frozen=True)
class WorldLogConfig:
    """Which street, and what its sensors are like.

    Attributes:
        layout: "street" for a random street, or one of the named layouts ("straight", "curve", "junction", ...).
        street: its number; geometry, traffic and weather follow from layout and number alone.
        frames: number of frames.
        frames_per_second: their rate.
        width, height: pixels.
        field_of_view_deg: horizontal.
        texture_detail: texels per metre relative to what 640 pixels of width can show; raise it with the width.
        camera_height_m: height of the camera over the road.
        noise_grey_levels: standard deviation of the sensor noise at mid grey, of 255.
        exposure_variation: relative amplitude of the exposure over the clip.
        vignetting: relative darkening of the corners.
        lidar_every: a laser sweep with every so many frames; 0 for none.
        lidar: the laser scanner.
    """

    layout: str = RANDOM
    street: int = 0
    frames: int = 40
    frames_per_second: float = 10.0
    width: int = 192
    height: int = 112
    field_of_view_deg: float = 64.0
    texture_detail: float = 0.35
    camera_height_m: float = 1.6
    noise_grey_levels: float = 1.5
    exposure_variation: float = 0.04
    vignetting: float = 0.08
    lidar_every: int = 2
    lidar: LaserScanner = field(default_factory=LaserScanner)


@stage("ingest.world_log", version=1, environment_packages=("vtk", "opencv-python-headless", "numpy"))
def ingest_world_log(
    *, config: WorldLogConfig, seed: int, progress: Progress = no_progress
) -> tuple[Clip, CameraPath, Tracks, Trajectory, RoadMap, LidarSweeps, Truth]:
    """Return the log of a drive down a procedural street; the seed chooses nothing but the sensors' noise.

    Poses, boxes and map are as they are in the world frame of the street: z up, road at z = 0, the camera starts near the
    origin and looks along x. Boxes are given for every actor in every frame, in view or not.

    Raises:
        WorldlineError: if the layout is unknown, the clip would be empty, or this machine cannot draw.
    """
    scene = build_world(config)
    times = np.arange(config.frames) / config.frames_per_second
    poses = np.stack([scene.world_from_camera(float(time)) for time in times])
    clip, truth = film_world(scene, config, times, poses, seed, progress)
    tracks, path = _annotated(scene, config, truth)
    lidar = LidarSweeps.none()
    if config.lidar_every:
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
        lidar = scan(scene, config.lidar, times[:: config.lidar_every].tolist(), rng)
    return clip, path, tracks, _recorded(scene, times), road_map(scene.plan, scene.centre, scene.origin_m), lidar, truth


def build_world(config: WorldLogConfig) -> Scene:
    """Describe the street of a config, with its traffic and weather.

    Raises:
        WorldlineError: if the layout is unknown, or the clip would be empty.
    """
    known = [RANDOM, *sorted(LAYOUTS)]
    if config.layout not in known:
        near = difflib.get_close_matches(config.layout, known, n=1, cutoff=0.0)[0]
        raise WorldlineError(f"world_log: layout={config.layout!r} is not one of {', '.join(known)}; did you mean {near!r}?")
    if config.frames < 2 or config.frames_per_second <= 0:
        raise WorldlineError(
            f"world_log: frames={config.frames} at frames_per_second={config.frames_per_second} is no clip; "
            "give at least 2 frames and a positive rate"
        )
    if config.street < 0:
        raise WorldlineError(f"world_log: street={config.street} is below 0; streets are numbered from 0")
    camera_height_m, detail = config.camera_height_m, config.texture_detail
    if config.layout == RANDOM:
        return build_random_street(config.street, camera_height_m=camera_height_m, detail=detail)
    rng = np.random.default_rng(config.street)
    return build_street(config.layout, rng, camera_height_m=camera_height_m, detail=detail)


def film_world(
    scene: Scene, config: WorldLogConfig, times_s: np.ndarray, world_from_camera: np.ndarray, seed: int, progress: Progress
) -> tuple[Clip, Truth]:
    """Film the street of a config at times along a path; the seed chooses the sensor's noise."""
    lens = Lens(config.width, config.height, float(config.width / 2 / np.tan(np.radians(config.field_of_view_deg) / 2)))
    frames, truth = film(
        scene,
        lens,
        times_s,
        world_from_camera,
        np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0]),
        noise_grey_levels=config.noise_grey_levels,
        exposure_variation=config.exposure_variation,
        vignetting=config.vignetting,
        progress=progress,
    )
    clip = Clip(
        frames=frames,
        times_s=times_s,
        name=_name(config),
        intrinsics=lens.intrinsics,
        camera_height_m=config.camera_height_m,
        camera_height_sigma_m=0.0,
        provenance={
            "generator": "worldline.worlds",
            "layout": config.layout,
            "street": config.street,
            "weather": scene.weather.name,
            "seed": seed,
        },
    )
    return clip, truth


def _name(config: WorldLogConfig) -> str:
    return f"world:{config.layout}:{config.street}"


def _annotated(scene: Scene, config: WorldLogConfig, truth: Truth) -> tuple[Tracks, CameraPath]:
    """Return the boxes of every actor in every frame as annotations, and the path of the camera."""
    rows = truth.boxes

    def stacked(*names: str) -> np.ndarray:
        return np.stack([rows[name].to_numpy() for name in names], axis=-1).astype(float)

    boxes = AnnotatedBoxes(
        source_id=rows["track_id"].cast(pa.string()).combine_chunks(),
        source_class=rows["class_name"].combine_chunks(),
        frame=rows["frame"].to_numpy().astype(np.int64),
        position=stacked("x", "y", "z"),
        position_is="bottom",
        size=stacked("length", "width", "height"),
        yaw_rad=stacked("yaw_rad")[:, 0],
        moving=stacked("moving")[:, 0],
    )
    times = np.arange(config.frames) / config.frames_per_second
    known = np.ones(len(times), bool)
    timeline = Timeline(times, truth.world_from_camera, known, truth.intrinsics, config.width, config.height)
    provenance = {"format": "world_log", "log": _name(config), "camera": "front"}
    tracks, path, _ = settle_tracks(boxes, timeline, AnnotationRules(), provenance)
    return tracks, path


def _recorded(scene: Scene, times: np.ndarray) -> Trajectory:
    behind = np.eye(4)
    behind[0, 3] = -CAMERA_AHEAD_M
    return Trajectory(
        name="recorded",
        manoeuvre="recorded",
        times_s=times,
        world_from_ego=np.stack([scene.ego.world_from_actor(float(time)) @ behind for time in times]),
        length_m=EGO_LENGTH_M,
        width_m=EGO_WIDTH_M,
        accepted=True,
        reason="",
        checks=TRAJECTORY_CHECKS.empty_table(),
    )
