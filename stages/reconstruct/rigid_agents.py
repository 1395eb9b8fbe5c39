"""Stage `reconstruct.rigid_agents`: a static street and Gaussians that ride in the boxes of tracked objects.

Yan et al. 2024 (Street Gaussians; `worldline.motion.rigid_agents`). Boxes come from the tracks that the flow made of the same
clip, never from a log's annotations, which are for evaluation; their poses are refined with the picture. Objects whose
tracks have no size or heading stay part of the background, which blurs them.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks
from schemas.reports import Metrics
from schemas.scenes import Scene4D
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.reconstruct.box_seeds import Boxes, outside_boxes, read_boxes, seeds_from_boxes
from stages.reconstruct.drive import Drive, DriveSettings, fit_drive
from stages.reconstruct.driving_seeds import seed_drive
from stages.reconstruct.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class RigidAgentsConfig(DriveSettings):
    """How the scene is fitted, beside what every fit of a drive has (`DriveSettings`, `FitSettings`).

    Attributes:
        gaussians_per_agent: how many ride in each box, all together at most half of `gaussians`; the rest is the street.
    """

    moving_share: float = 0.0
    gaussians_per_agent: Annotated[int, Field(ge=1)] = 400


@stage("reconstruct.rigid_agents", version=1, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_rigid_agents(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    tracks: Tracks,
    config: RigidAgentsConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a street and the agents that ride through it; see `fit_drive`."""

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        boxes = read_boxes(tracks.samples, path.times_s, minimum_travel=0.0, scale=drive.scale)
        return seed_agents(drive, boxes, points, config.gaussians, config.gaussians_per_agent, config.moving_share, rng)

    return fit_drive(
        clip, path, points, masks, "rigid_agents", config, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints
    )


def seed_agents(
    drive: Drive, boxes: Boxes, points: PointCloud, gaussians: int, per_agent: int, moving_share: float, rng: np.random.Generator
) -> Seeds:
    """Return the first Gaussians of a street and of the agents in it, each Gaussian's instance the track of its box.

    Args:
        drive: the frames.
        boxes: of the agents, in the drive's unit.
        points: of the static scene, in the camera path's unit.
        gaussians: how many there are in all.
        per_agent: how many ride in each box, all together at most half of them.
        moving_share: largest share of the street's on moving regions.
        rng: source of randomness.
    """
    per_agent = min(per_agent, gaussians // (2 * max(len(boxes.sizes), 1)))
    street = gaussians - per_agent * len(boxes.sizes)
    background, _ = seed_drive(outside_boxes(drive.training, boxes), points, drive.scale, street, moving_share, 0, rng)
    seeds = seeds_from_boxes(boxes, drive.training, background, per_agent, rng)
    numbers = np.concatenate([[0], boxes.track_ids])
    return dataclasses.replace(seeds, instances=numbers[seeds.motion["agents"]].astype(np.int32))
