"""A solved camera path in metres and with gravity: what the stages after `pose.colmap` make of it, for the pose benches."""

from schemas.cameras import CameraPath, GroundPlane, PointCloud
from schemas.clips import Clip
from schemas.depth import DepthVideo
from stages.contract import no_progress
from stages.pose.align import AlignConfig, align_to_world
from stages.pose.ground import GroundConfig, find_ground
from stages.pose.scale import ScaleConfig, find_scale


def place_in_world(clip: Clip, path: CameraPath, points: PointCloud) -> tuple[CameraPath, PointCloud, GroundPlane]:
    """Return path, points and ground as `pose.ground`, `pose.scale` and `pose.align` place them by default."""
    ground = find_ground(path, points, GroundConfig(), seed=0, progress=no_progress)
    scale = find_scale(clip, path, points, ground, DepthVideo.none(), ScaleConfig(), seed=0, progress=no_progress)
    return align_to_world(path, points, ground, scale, AlignConfig(), seed=0, progress=no_progress)
