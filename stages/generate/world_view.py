"""The street of a procedural log filmed along another path: the true view of a trajectory that nobody drove.

It is what a bench compares generated views with, and the teacher of models that learn to make them; what it is shown
may never see it.
"""

from schemas.cameras import CameraPath
from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.tracks import Truth
from stages.contract import Progress, no_progress, stage
from stages.ingest.world_log import WorldLogConfig, build_world, film_world


@stage("generate.world_view", version=1, environment_packages=("vtk", "opencv-python-headless", "numpy"))
def generate_world_view(
    path: CameraPath, config: WorldLogConfig, *, seed: int, progress: Progress = no_progress
) -> tuple[Clip, Truth]:
    """Film the street of `ingest.world_log` of the same config along a path in the street's world frame, at its times.

    The picture has the config's width, height and field of view; the path's own calibration is not used.

    Raises:
        WorldlineError: if the layout is unknown, or a frame of the path has no pose.
    """
    if not path.registered.all() or not len(path.times_s):
        raise WorldlineError(
            f"generate.world_view: {int((~path.registered).sum())} of {len(path.times_s)} frames of the path have no pose; "
            "give a path whose frames are all registered"
        )
    scene = build_world(config)
    return film_world(scene, config, path.times_s, path.world_from_camera, seed, progress)
