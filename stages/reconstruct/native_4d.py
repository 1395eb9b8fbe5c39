"""Stage `reconstruct.native_4d`: a scene of Gaussians in space and time from one moving camera.

Yang et al. 2024 (`worldline.motion.native_4d`): each Gaussian is there for a while and flies straight meanwhile. What stands
still begins as Gaussians that are there all the time, what moves as short-lived ones about the moment at which they were
seen; the fit may change either.
"""

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
from stages.reconstruct.motion_seeds import native_4d_drive
from stages.reconstruct.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Native4DConfig(DriveSettings):
    """How the scene is fitted, beside what every fit of a drive has (`DriveSettings`, `FitSettings`).

    Attributes:
        time_scale: for how long a Gaussian on a moving object is there at first: standard deviation, as a share of the clip.
    """

    time_scale: Annotated[float, Field(gt=0)] = 0.15


@stage("reconstruct.native_4d", version=1, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_native_4d(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    config: Native4DConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene of native 4D Gaussians; see `fit_drive`."""

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        seeds, sightings = seed_drive(drive.training, points, drive.scale, config.gaussians, config.moving_share, 3, rng)
        return native_4d_drive(seeds, sightings, time_scale=config.time_scale)

    return fit_drive(
        clip, path, points, masks, "native_4d", config, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints
    )
