"""Stage `reconstruct.gaussian_flow`: a 4D scene of Gaussians from one moving camera.

Kerbl et al. 2023 (3D Gaussian splatting) for what stands still, Lin et al. 2024 (Gaussian-Flow, `worldline.motion.gaussian_flow`)
for what moves, Kheradmand et al. 2024 (3DGS-MCMC) for a fixed budget without opacity resets. The moving regions say
where Gaussians may move; everything else stays where it is, at all times.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.motion import Masks
from schemas.reports import Metrics
from schemas.scenes import Scene4D
from stages.contract import Progress, stage
from stages.reconstruct.drive import Drive, DriveSettings, fit_drive
from stages.reconstruct.driving_seeds import seed_drive
from stages.reconstruct.motion_seeds import gaussian_flow_drive
from stages.reconstruct.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class GaussianFlowConfig(DriveSettings):
    """How the scene is fitted, beside what every fit of a drive has (`DriveSettings`, `FitSettings`).

    Attributes:
        position_powers: polynomial order of the positions of moving Gaussians.
        position_harmonics: Fourier order of their positions.
        rotation_powers: polynomial order of their rotations.
        color_powers: polynomial order of their colours.
    """

    position_powers: NonNegativeInt = 3
    position_harmonics: NonNegativeInt = 2
    rotation_powers: NonNegativeInt = 1
    color_powers: NonNegativeInt = 1


@stage("reconstruct.gaussian_flow", version=2, environment_packages=("torch", "numba", "numpy", "opencv-python-headless"))
def fit_gaussian_flow(
    clip: Clip,
    path: CameraPath,
    points: PointCloud,
    masks: Masks,
    config: GaussianFlowConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Path,
) -> tuple[Scene4D, Metrics]:
    """Fit a scene whose Gaussians on moving regions follow polynomials and Fourier series in time; see `fit_drive`."""

    def make_seeds(drive: Drive, rng: np.random.Generator) -> Seeds:
        seeds, sightings = seed_drive(
            drive.training, points, drive.scale, config.gaussians, config.moving_share, config.position_powers, rng
        )
        orders = {name: getattr(config, name) for name in ("position_harmonics", "rotation_powers", "color_powers")}
        return dataclasses.replace(seeds, motion=gaussian_flow_drive(sightings, **orders))

    return fit_drive(
        clip, path, points, masks, "gaussian_flow", config, make_seeds, seed=seed, progress=progress, checkpoints=checkpoints
    )
