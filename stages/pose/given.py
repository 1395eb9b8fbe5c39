"""Stage `pose.given`: the camera's path from files that a person has, instead of solving it.

Images of COLMAP models and of `transforms.json` are matched to frames by name, lines of KITTI trajectories by number, and
poses of TUM trajectories by time; nothing is interpolated, and a frame without a pose is not registered. Points of the
static scene are those of the model; where there are none they are triangulated from matches between the frames, with the
poses held as they are.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip, Source
from schemas.errors import WorldlineError
from stages.contract import Progress, stage
from stages.pose.colmap import (
    MAPPING,
    READING,
    ColmapConfig,
    make_request,
    run_mapping,
    solved_cloud,
    write_frames,
)
from stages.pose.mapping import write_request
from stages.pose.strategy import choose_strategy, measure_continuity
from worldline.camera_files import PosedImages, read_colmap, read_kitti, read_transforms, read_tum
from worldline.cameras import Similarity, rotation_between

_UNIX_SECONDS_FROM = 1e8
_UP = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0), "-y": (0.0, -1.0, 0.0)}
_LENSES_ALIKE = 0.01


@dataclass(frozen=True)
class GivenConfig:
    """What is known of given poses, beyond the poses.

    Attributes:
        metric: whether their lengths are metres.
        scale_sigma: relative standard deviation of these metres.
        up: axis of their world that points up, "unknown" where none does.
        up_sigma_rad: standard deviation of that direction.
        time_tolerance_s: a frame takes the pose of a TUM trajectory that lies at most so far from it in time.
        colmap: how points are triangulated where none are given.
    """

    metric: bool = False
    scale_sigma: float = 0.01
    up: Literal["unknown", "x", "y", "z", "-y"] = "unknown"
    up_sigma_rad: float = 0.02
    time_tolerance_s: float = 0.02
    colmap: ColmapConfig = field(default_factory=ColmapConfig)


class _Given(NamedTuple):
    """Poses in the files' world, of some frames, with one lens in pixels of the clip, and points if there are any."""

    frames: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray
    points: PointCloud


@stage("pose.given", version=1, environment_packages=("pycolmap", "opencv-python-headless"))
def take_given_poses(
    clip: Clip, poses: Source, config: GivenConfig, *, seed: int, progress: Progress
) -> tuple[CameraPath, PointCloud]:
    """Take the camera path of a clip from files.

    Returns:
        The path in the files' world, turned so that z is up where `up` is told, and the points of the static scene.

    Raises:
        WorldlineError: if a file is damaged, no frame or only one finds its pose, or the lens is not told.
    """
    total = READING + MAPPING
    progress(0, total, f"poses of {poses.name}")
    path, points = read_given_poses(clip, poses, config)
    if len(points.xyz) == 0 and path.verdict == "moving":
        points = triangulate(clip, path, config.colmap, seed, lambda done, note: progress(done, total, note))
    progress(total, total, f"{int(path.registered.sum())} of {len(clip.frames)} frames have a pose")
    return dataclasses.replace(path, reprojection_error_px=_mean_error(points)), points


def read_given_poses(clip: Clip, poses: Source, config: GivenConfig) -> tuple[CameraPath, PointCloud]:
    """Return the camera path of a clip as files tell it, and the points that they hold, if any: nothing is triangulated.

    Raises:
        WorldlineError: if a file is damaged, no frame or only one finds its pose, or the lens is not told.
    """
    given = _read(clip, poses, config)
    if len(given.frames) < 2:
        raise WorldlineError(
            f"{poses.name} has a pose for {len(given.frames)} of {len(clip.frames)} frames of {clip.name}: "
            f"{_how_matched(poses.layout)}"
        )
    up = np.eye(3) if config.up == "unknown" else rotation_between(np.array(_UP[config.up]), np.array([0.0, 0.0, 1.0]))
    turned = Similarity(1.0, up, np.zeros(3))
    path = dataclasses.replace(_path(clip, given, turned, config), strategy=f"given by {poses.name}")
    return path, dataclasses.replace(given.points, xyz=turned.points(given.points.xyz))


def triangulate(clip: Clip, path: CameraPath, config: ColmapConfig, seed: int, on_step: Callable[[int, str], None]) -> PointCloud:
    """Return the points that the frames of a path see, in its world; none where nothing is seen from two places."""
    distorted = bool(path.distortion.any())
    params = [*path.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), *(path.distortion.tolist() if distorted else [])]
    continuity = measure_continuity(clip.frames, clip.size, config.footage.corner_strength)
    strategy = choose_strategy(len(clip.frames), continuity, config.overlap, config.strategy)
    request = dataclasses.replace(
        make_request(clip, path.intrinsics, strategy, config, seed),
        camera_model="OPENCV" if distorted else "PINHOLE",
        camera_params=params,
        calibrated=True,
        min_observations=0,  # a frame keeps its pose however little it sees
    )
    frames = np.flatnonzero(path.registered)
    with tempfile.TemporaryDirectory(prefix="worldline-triangulation-") as name:
        folder = Path(name)
        write_frames(clip, folder / "images")
        write_request(folder, request)
        np.savez(folder / "poses.npz", frames=frames, world_from_camera=path.world_from_camera[frames])
        on_step(READING, f"{len(clip.frames)} frames read")
        run_mapping(folder, lambda done, note: on_step(READING + done, note))
        with np.load(folder / "result.npz") as archive:
            result = dict(archive)
    # in the world that they are in already
    return solved_cloud(clip, result | {"world_from_camera": np.eye(4)[None]}) if "xyz" in result else PointCloud.none()


def _mean_error(points: PointCloud) -> float:
    seen = np.bincount(points.observation_point, minlength=len(points.xyz))
    return float(points.error_px @ seen / max(seen.sum(), 1))


def _how_matched(layout: str) -> str:
    if layout == "trajectory":
        return "its times must be those of the clip, from its first frame or in Unix seconds"
    return "its images must have the names of the frames"


def _path(clip: Clip, given: _Given, turned: Similarity, config: GivenConfig) -> CameraPath:
    count = len(clip.frames)
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    poses[given.frames] = turned.poses(given.world_from_camera)
    registered = np.zeros(count, bool)
    registered[given.frames] = True
    moved = float(np.ptp(poses[registered, :3, 3], axis=0).max()) > 0
    turns = bool(np.ptp(poses[registered, :3, :3], axis=0).max() > 0)
    return CameraPath(
        times_s=clip.times_s,
        world_from_camera=poses,
        registered=registered,
        intrinsics=given.intrinsics,
        distortion=given.distortion,
        width=clip.size[0],
        height=clip.size[1],
        verdict="moving" if moved else "rotation" if turns else "static",
        scale_source="given" if config.metric and moved else "none",
        scale_sigma=config.scale_sigma if config.metric and moved else 0.0,
        gravity_source="none" if config.up == "unknown" else "given",
        gravity_sigma_rad=0.0 if config.up == "unknown" else config.up_sigma_rad,
        reprojection_error_px=0.0,
    )


def _read(clip: Clip, poses: Source, config: GivenConfig) -> _Given:
    """Read the files under the names that they had; the store keeps them under others."""
    with tempfile.TemporaryDirectory(prefix="worldline-poses-") as name:
        folder = Path(name)
        for file, path in poses.files.items():
            (folder / file).symlink_to(path.resolve())
        try:
            if poses.layout == "colmap":
                return _of_images(clip, read_colmap(folder), poses.name)
            (file,) = poses.files
            if poses.layout == "transforms":
                return _of_images(clip, read_transforms(folder / file, size_px=_original_size(clip)), poses.name)
            return _of_trajectory(clip, folder / file, config)
        except WorldlineError as error:
            raise WorldlineError(str(error).replace(f"{folder}/", "").replace(str(folder), poses.name)) from error


def _original_size(clip: Clip) -> tuple[int, int]:
    width, height = clip.size
    return int(clip.provenance.get("original_width_px", width)), int(clip.provenance.get("original_height_px", height))


def _of_images(clip: Clip, images: PosedImages, name: str) -> _Given:
    """Match images to frames by their file names, with or without folders and suffixes."""
    files = clip.provenance.get("files")
    if files is None:
        raise WorldlineError(
            f"{name} tells poses of images, and {clip.name} has no files for frames: give a TUM or KITTI trajectory"
        )
    frame_of = _unique({file: index for index, file in enumerate(files)})
    image_of = _unique({image: index for index, image in enumerate(images.names)})
    found = sorted((frame_of[key], image_of[key]) for key in frame_of.keys() & image_of.keys())
    frames, chosen = (np.array([pair[axis] for pair in found], np.int64) for axis in (0, 1))
    if not len(frames):
        return _Given(frames, np.zeros((0, 4, 4)), np.eye(3), np.zeros(4), PointCloud.none())
    intrinsics, distortion = _one_lens(clip, images, chosen, name)
    frame_of_image = np.full(len(images.names), -1)
    frame_of_image[chosen] = frames
    points = images.points
    seen = frame_of_image[points.observation_frame] >= 0
    factor = np.array(clip.size) / images.sizes_px[points.observation_frame[seen]]
    points = dataclasses.replace(
        points,
        observation_frame=frame_of_image[points.observation_frame[seen]].astype(np.int32),
        observation_point=points.observation_point[seen],
        observation_xy_px=(points.observation_xy_px[seen] * factor).astype(np.float32),
    )
    return _Given(frames, images.world_from_camera[chosen], intrinsics, distortion, points)


def _unique(numbers: dict[str, int]) -> dict[str, int]:
    """Return numbers by name without folder and suffix, without names that then mean several."""
    found: dict[str, int] = {}
    twice = set()
    for name, number in numbers.items():
        stem = Path(name).stem if Path(name).suffix else Path(name).name
        twice |= {stem} & found.keys()
        found[stem] = number
    return {stem: number for stem, number in found.items() if stem not in twice}


def _one_lens(clip: Clip, images: PosedImages, chosen: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the lens of the chosen images in pixels of the clip: the median where they differ by less than a percent."""
    sizes = images.sizes_px[chosen]
    factor = np.array(clip.size) / sizes
    if np.abs(factor[:, 0] / factor[:, 1] - 1).max() > 0.02:
        worst = int(np.argmax(np.abs(factor[:, 0] / factor[:, 1] - 1)))
        raise WorldlineError(
            f"{name}: {images.names[chosen[worst]]} is {sizes[worst, 0]} x {sizes[worst, 1]} pixels, which has not the shape of "
            f"the frames ({clip.size[0]} x {clip.size[1]}): give poses of these images"
        )
    matrices = np.einsum("ni,nij->nij", np.column_stack([factor, np.ones(len(factor))]), images.intrinsics[chosen])
    distortion = images.distortion[chosen]
    limit = _LENSES_ALIKE * matrices[0, 0, 0]
    if np.ptp(matrices, axis=0).max() > limit or np.ptp(distortion, axis=0).max() > _LENSES_ALIKE:
        raise WorldlineError(
            f"{name}: its images have different lenses, and a clip has one: give the images of one camera at one zoom as a clip"
        )
    return np.median(matrices, axis=0), np.median(distortion, axis=0)


def _of_trajectory(clip: Clip, file: Path, config: GivenConfig) -> _Given:
    """Read a TUM trajectory (8 numbers a line) or a KITTI one (12)."""
    if clip.intrinsics is None:
        raise WorldlineError(f"{file} tells no lens, nor does {clip.name}: set intrinsics of the ingest stage (fx, fy, cx, cy)")
    if _columns(file) == 12:
        poses = read_kitti(file)
        if len(poses) != len(clip.frames):
            raise WorldlineError(
                f"{file} has {len(poses)} poses for {len(clip.frames)} frames of {clip.name}: keep all frames (max_frames, "
                "start_s, end_s, keep_frames_per_second), or give a TUM trajectory, which has times"
            )
        return _Given(np.arange(len(poses)), poses, clip.intrinsics, np.zeros(4), PointCloud.none())
    times_s, poses = read_tum(file)
    if times_s[0] >= _UNIX_SECONDS_FROM:
        if clip.epoch_ns is None:
            raise WorldlineError(
                f"{file} has Unix times and {clip.name} has none: count from its first frame, or give timestamps.csv in Unix "
                "seconds"
            )
        times_s = times_s - clip.epoch_ns / 1e9
    middles_s = (times_s[:-1] + times_s[1:]) / 2
    nearest = np.searchsorted(middles_s, clip.times_s)
    frames = np.flatnonzero(np.abs(times_s[nearest] - clip.times_s) <= config.time_tolerance_s)
    return _Given(frames, poses[nearest[frames]], clip.intrinsics, np.zeros(4), PointCloud.none())


def _columns(file: Path) -> int:
    with file.open(errors="replace") as lines:
        return next((len(line.replace(",", " ").split()) for line in lines if line.strip() and not line.startswith("#")), 0)
