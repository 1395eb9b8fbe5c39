"""Stage `reconstruct.periodic_vibration`: a street of Gaussians that swing about their place and are there for a while.

Chen et al. 2023 (PVG, `worldline.motion.periodic_vibration`). What stands still begins without velocity and with a long life,
what moves about the moment at which it was seen, with its object's velocity then.
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
from stages.contract import Progress, stage
from stages.reconstruct.drive import Drive, DriveSettings, fit_drive
from stages.reconstruct.driving_seeds import seed_drive
from stages.reconstruct.motion_seeds import periodic_vibration_drive
from stages.reconstruct.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class PeriodicVibrationConfig(DriveSettings):
    """How the scene is fitted, beside what every fit of a drive has (`DriveSettings`, `FitSettings`).

    Attributes:
        cycle: period of the swing, as a share of the clip. Longer than the paper's 0.2: within its life a Gaussian shall
            fly as its object does, and not turn back.
        lifespan: for how long a Gaussian on a moving object is there at first: standard deviation, as a share of the clip.
    """

    cycle: Annotated[float, Field(gt=0)] = 1.0
    lifespan: Annotated[float, Field(gt=0)] = 0.1


@stage("reconstruct.periodic_vibration", version=1, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_periodic_vibration(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    config: PeriodicVibrationConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene of periodically vibrating Gaussians; see `fit_drive`."""

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        seeds, sightings = seed_drive(drive.training, points, drive.scale, config.gaussians, config.moving_share, 3, rng)
        motion = periodic_vibration_drive(seeds, sightings, cycle=config.cycle, lifespan=config.lifespan)
        return dataclasses.replace(seeds, motion=motion)

    return fit_drive(
        clip, path, points, masks, "periodic_vibration", config, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints
    )
