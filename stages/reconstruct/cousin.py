"""Stage `reconstruct.cousin`: a scene fitted to a log's frames and to generated frames of trajectories that nobody drove.

DriveDreamer4D (Zhao et al. 2025) section 3.3: recorded and generated views of the same time in every step, any motion model as
the scene. Without generated clips it is the plain fit of the log that the others are compared with, of as many recorded views.
Boxes are the log's own: an annotated log is what is augmented here.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from schemas.artifact import rows_to_table
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.driving import LidarSweeps
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.motion import Masks
from schemas.reports import FIGURES, Metrics
from schemas.scenes import Scene4D
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.pretrained import open_checkpoint, pin_checkpoint
from stages.reconstruct.box_seeds import Boxes, read_boxes
from stages.reconstruct.cousins import CousinRules
from stages.reconstruct.drive import Drive, DriveSettings, fit_drive
from stages.reconstruct.driving_seeds import seed_drive
from stages.reconstruct.feature_networks import TEXTURE, checkpoint_features, texture_features
from stages.reconstruct.lidar_views import label_boxes, with_lidar_depths
from stages.reconstruct.motion_seeds import gaussian_flow_drive, native_4d_drive, periodic_vibration_drive
from stages.reconstruct.rigid_agents import seed_agents
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.views import Views, load_views

MotionModel = Literal["rigid_agents", "gaussian_flow", "periodic_vibration", "native_4d", "static"]
_POWERS, _TIME_SCALE, _CYCLE, _LIFESPAN = (
    3,
    0.15,
    1.0,
    0.1,
)  # of the models that move without boxes, as their own stages have them


@dataclass(frozen=True, kw_only=True)
class CousinConfig(DriveSettings):
    """How the scene is fitted, beside what every fit of a drive has (`DriveSettings`, `FitSettings`).

    Attributes:
        motion: the scene's motion model; "rigid_agents" needs boxes.
        gaussians_per_agent: of rigid agents: how many ride in each box, all together at most half of `gaussians`.
        minimum_travel_m: boxes that never get so far from where they were first are part of the street.
        batch: recorded views per step; where there are generated clips as many generated views come on top, so that what is
            learnt of the recorded ones stays the same.
        pairing: whether the generated views of a step are of the times of its recorded ones; else any views are drawn.
        novel_weight: of a generated view's loss. At 1, as published, what the model got wrong costs as much as what was filmed,
            and the recorded path suffers; at a half it hardly does, and novel views are as good.
        appearance: whether each generated view has a colour map of its own.
        model: feature network that a recorded view and its cousin are compared by: "texture", which needs no weights, the
            repository id or folder of a transformers vision model, or "" for none.
        revision, weights, device: of that model; see `stages.pretrained`.
        feature_weight: of the difference of their features.
    """

    motion: MotionModel = "rigid_agents"
    gaussians: Annotated[int, Field(ge=16)] = 9000
    gaussians_per_agent: Annotated[int, Field(ge=1)] = 300
    minimum_travel_m: NonNegativeFloat = 1.0
    batch: Annotated[int, Field(ge=1)] = 2
    steps: Annotated[int, Field(ge=1)] = 600
    depth_weight: NonNegativeFloat = 0.1
    pairing: bool = True
    novel_weight: NonNegativeFloat = 0.5
    appearance: bool = True
    model: str = TEXTURE
    revision: str | None = None
    weights: str = ""
    device: str = "auto"
    feature_weight: NonNegativeFloat = 1e-3


def pin_features(config: CousinConfig) -> CousinConfig:
    """Return the config with the feature network's present state in it."""
    return config if config.model in ("", TEXTURE) else pin_checkpoint(config, "reconstruct.cousin.model")


@stage(
    "reconstruct.cousin",
    version=1,
    environment_packages=("torch", "numba", "numpy", "opencv-python-headless"),
    pin=pin_features,
)
def fit_cousins(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    tracks: Tracks,
    lidar: LidarSweeps,
    novel_clips: tuple[Clip, ...],
    novel_paths: tuple[CameraPath, ...],
    config: CousinConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene to recorded and generated frames, and measure it on recorded frames that were held out.

    Args:
        clip: recorded frames.
        path: their cameras, in metres.
        points: of the static scene.
        tracks: annotated boxes.
        lidar: depths of recorded views; generated views get none.
        novel_clips: generated frames of each trajectory, in the aspect of the recorded ones.
        novel_paths: their cameras, one path per clip, at the times of the recorded frames.
        config: how.
        seed: of all randomness.
        progress: told of every tenth step.
        checkpoints: folder.

    Raises:
        WorldlineError: if clips and paths do not go together, or a model needs boxes that the log has not.
    """
    _check(clip, novel_clips, novel_paths)
    blank = _nothing_moves(clip)
    boxes = read_boxes(tracks.samples, path.times_s, minimum_travel=config.minimum_travel_m)
    if config.motion == "rigid_agents" and not tracks.samples.num_rows:
        raise WorldlineError(
            "reconstruct.cousin: motion=rigid_agents needs boxes and the log has none; take motion=gaussian_flow"
        )

    def prepare(drive: Drive) -> Drive:
        views = label_boxes(with_lidar_depths(drive.views, lidar, clip.times_s, drive.scale), _in_unit(boxes, drive.scale))
        recorded = len(views.frames)
        for novel_clip, novel_path in zip(novel_clips, novel_paths, strict=True):
            views = _append(views, novel_clip, novel_path, drive.scale)
        more = len(views.frames) - recorded
        held_out, stopping = (np.pad(array, (0, more)) for array in (drive.held_out, drive.stopping))
        # a frame that is held out is held out from every side
        held_out[recorded:] = np.isin(views.frames[recorded:], views.frames[:recorded][drive.held_out])
        return dataclasses.replace(drive, views=views, held_out=held_out, stopping=stopping)

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        return _seeds(drive, _in_unit(boxes, drive.scale), points, config, rng)

    rules = CousinRules(
        pairing=config.pairing, weight=config.novel_weight, appearance=config.appearance, features=_features(config),
        feature_weight=config.feature_weight,
    )  # fmt: skip
    settings = dataclasses.replace(config, batch=2 * config.batch) if novel_clips else config
    scene, metrics = fit_drive(
        clip, path, points, blank, config.motion, settings, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints,
        prepare=prepare, cousins=rules if novel_clips else None,
    )  # fmt: skip
    count = {
        "name": "reconstruct.generated_frames",
        "value": float(sum(len(item.frames) for item in novel_clips)),
        "unit": "frames",
        "detail": f"of {len(novel_clips)} trajectories, {'paired with recorded frames' if config.pairing else 'unpaired'}",
    }
    rows = sorted([*metrics.figures.to_pylist(), count], key=lambda row: row["name"])
    return scene, Metrics(rows_to_table(FIGURES, rows))


def _check(clip: Clip, novel_clips: tuple[Clip, ...], novel_paths: tuple[CameraPath, ...]) -> None:
    if len(novel_clips) != len(novel_paths):
        raise WorldlineError(
            f"reconstruct.cousin: {len(novel_clips)} generated clips but {len(novel_paths)} paths: give one path per clip"
        )
    for novel in novel_clips:
        if len(novel.times_s) != len(clip.times_s):
            raise WorldlineError(
                f"reconstruct.cousin: {novel.name} has {len(novel.times_s)} frames and the log {len(clip.times_s)}: generate one "
                "for each recorded frame"
            )


def _nothing_moves(clip: Clip) -> Masks:
    """Return masks without a region: the boxes tell what moves, once the views are loaded."""
    return Masks(Video.from_array(np.zeros((len(clip.frames), 8, 8), np.uint16)), 8 / clip.size[0], "none")


def _features(config: CousinConfig) -> Callable[[Tensor], Tensor] | None:
    if not config.model or not config.feature_weight:
        return None
    if config.model == TEXTURE:
        return texture_features
    return checkpoint_features(open_checkpoint(config, "reconstruct.cousin.model"), "reconstruct.cousin.model")


def _in_unit(boxes: Boxes, scale: float) -> Boxes:
    """Return boxes in metres in a unit of `scale` metres."""
    poses = boxes.world_from_agent.copy()
    poses[..., :3, 3] /= scale
    return dataclasses.replace(boxes, world_from_agent=poses, sizes=boxes.sizes / scale)


def _append(views: Views, clip: Clip, path: CameraPath, scale: float) -> Views:
    """Return the views with those of a generated clip behind them, which know no depth and no label."""
    width, height = views.size
    novel = load_views(clip, path, _nothing_moves(clip), max(views.size))
    if novel.size != views.size:
        raise WorldlineError(
            f"reconstruct.cousin: {clip.name} has frames of {novel.size[0]}x{novel.size[1]} px where the log's are "
            f"{width}x{height} px: generate in the log's aspect, and not smaller than max_side"
        )
    poses = novel.camera_from_world.copy()
    poses[:, :3, 3] /= scale
    more = len(novel.frames)
    generated = np.zeros(len(views.frames), bool) if views.generated is None else views.generated
    return dataclasses.replace(
        views,
        images=np.concatenate([views.images, novel.images]),
        labels=np.concatenate([views.labels, novel.labels]),
        camera_from_world=np.concatenate([views.camera_from_world, poses]),
        times=np.concatenate([views.times, novel.times]),
        frames=np.concatenate([views.frames, novel.frames]),
        depths=None if views.depths is None else np.pad(views.depths, ((0, more), (0, 0), (0, 0))),
        generated=np.concatenate([generated, np.ones(more, bool)]),
    )


def _seeds(drive: Drive, boxes: Boxes, points: PointCloud, config: CousinConfig, rng: np.random.Generator) -> Seeds:
    """Return the first Gaussians of the scene's motion model, in the drive's unit."""
    if config.motion == "rigid_agents":
        return seed_agents(drive, boxes, points, config.gaussians, config.gaussians_per_agent, 0.0, rng)
    moving = 0.0 if config.motion == "static" else config.moving_share
    seeds, sightings = seed_drive(drive.training, points, drive.scale, config.gaussians, moving, _POWERS, rng)
    if config.motion == "gaussian_flow":
        return dataclasses.replace(seeds, motion=gaussian_flow_drive(sightings))
    if config.motion == "periodic_vibration":
        motion = periodic_vibration_drive(seeds, sightings, cycle=_CYCLE, lifespan=_LIFESPAN)
        return dataclasses.replace(seeds, motion=motion)
    return native_4d_drive(seeds, sightings, time_scale=_TIME_SCALE) if config.motion == "native_4d" else seeds
