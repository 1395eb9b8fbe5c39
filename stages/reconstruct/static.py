"""Stage `reconstruct.static`: what stands still in a clip, as 3D Gaussians (Kerbl et al. 2023).

Moving regions are not fitted: what is behind a mover in one frame is seen in another, and nothing smears where it went by.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks
from schemas.reports import Metrics
from schemas.scenes import Scene4D
from stages.contract import Progress, stage
from stages.reconstruct.drive import Drive, DriveSettings, fit_drive
from stages.reconstruct.driving_seeds import seed_drive
from stages.reconstruct.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class StaticConfig(DriveSettings):
    """How the scene is fitted; see `DriveSettings` and `FitSettings`."""

    moving_share: float = 0.0
    ignore_labelled: bool = True


@stage("reconstruct.static", version=1, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_static(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    config: StaticConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene in which nothing moves to what does not; see `fit_drive`."""

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        return seed_drive(drive.training, points, drive.scale, config.gaussians, config.moving_share, 0, rng)[0]

    return fit_drive(
        clip, path, points, masks, "static", config, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints
    )
