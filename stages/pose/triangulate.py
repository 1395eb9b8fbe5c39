"""Stage `pose.triangulate`: points of the static scene of a log whose poses are known and which has no lidar."""

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from stages.contract import Progress, stage
from stages.pose.colmap import MAPPING, READING, ColmapConfig
from stages.pose.given import triangulate


@stage("pose.triangulate", version=1, environment_packages=("pycolmap", "opencv-python-headless"))
def triangulate_log(clip: Clip, path: CameraPath, config: ColmapConfig, *, seed: int, progress: Progress) -> PointCloud:
    """Triangulate matches between the frames with the poses held as they are; see `stages.pose.given`.

    Raises:
        WorldlineError: if COLMAP fails.
    """
    total = READING + MAPPING
    return triangulate(clip, path, config, seed, lambda done, note: progress(done, total, note))
