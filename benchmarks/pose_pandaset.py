"""The front camera of a PandaSet scene (a street, driven straight ahead after a slow start) against the car's localisation."""

import dataclasses
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.pose import real_data
from benchmarks.pose_placing import place_in_world
from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.codec import content_digest
from schemas.media import Video
from schemas.tracks import Truth
from stages.contract import no_progress
from stages.ingest.pandaset import PandasetConfig, ingest_pandaset
from stages.ingest.source import describe_source
from stages.pose.colmap import ColmapConfig, solve_camera_path
from worldline.cameras import absolute_trajectory_error

SCENE, CAMERA = "pandaset_002", "front_camera"
CAMERA_HEIGHT_M, CAMERA_HEIGHT_SIGMA_M = 2.07, 0.05  # over the lidar's ground plane


@dataclass(frozen=True)
class Solved:
    """What `pose.colmap` made of the clip, and in how many seconds."""

    path: CameraPath
    points: PointCloud
    seconds: float


def read_scene(quick: bool) -> tuple[Clip, Truth]:
    """Return the clip with its calibration and GPS, and its true poses; quick: every second frame."""
    source = describe_source(real_data(SCENE), camera=CAMERA)
    clip, truth = ingest_pandaset(source, PandasetConfig(), seed=0, progress=no_progress)
    if not quick:
        return clip, truth
    half = dataclasses.replace(clip, frames=Video.from_array(clip.frames.array()[::2]), times_s=clip.times_s[::2])
    return half, dataclasses.replace(
        truth, world_from_camera=truth.world_from_camera[::2], annotated=truth.annotated[::2], boxes=truth.boxes.slice(0, 0)
    )


def solve(clip: Clip, what: str) -> Solved:
    """Solve the path with the default configuration."""
    started = time.perf_counter()
    path, points = solve_camera_path(clip, ColmapConfig(), seed=0, progress=no_progress)
    solved = Solved(path, points, time.perf_counter() - started)
    print(f"{what}: {path.registered.sum()} frames in {solved.seconds:.0f} s, {path.strategy}", file=sys.stderr, flush=True)
    return solved


def error_cm(path: CameraPath, truth: Truth) -> float:
    """Return the root mean square error of the registered camera centres after a similarity alignment, in cm."""
    placed = path.registered
    estimated, true = path.world_from_camera[placed, :3, 3], truth.world_from_camera[placed, :3, 3]
    return 100 * absolute_trajectory_error(estimated, true, with_scale=True)[0]


def scale_error_percent(clip: Clip, solved: Solved, truth: Truth) -> tuple[float, str]:
    """Return how far lengths are off after `pose.align`, in percent (infinite without a scale), and what it says itself."""
    world = place_in_world(clip, solved.path, solved.points)[0]
    if not world.metric:
        return np.inf, "no scale was found"
    placed = world.registered
    estimated, true = world.world_from_camera[placed, :3, 3], truth.world_from_camera[placed, :3, 3]
    alignment = absolute_trajectory_error(estimated, true, with_scale=True)[1]
    off = 100 * (1 / alignment.scale - 1)
    return abs(off), f"lengths are {off:+.2f} %, stated sigma {100 * world.scale_sigma:.1f} % from {world.scale_source}"


def measure_path(folder: Path, quick: bool) -> Sequence[Figure]:
    """Solve with the calibration, again, and without it; find metres by GPS and by the camera's height."""
    clip, truth = read_scene(quick)
    clip.frames.array()
    known = solve(clip, "known intrinsics")
    own, child = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    again = solve(clip, "again")
    unknown = dataclasses.replace(clip, intrinsics=None)
    estimated = solve(unknown, "estimated intrinsics")
    same = [content_digest(item) for item in (known.path, known.points)] == [
        content_digest(item) for item in (again.path, again.points)
    ]
    by_gps, gps_says = scale_error_percent(dataclasses.replace(clip, camera_height_m=None), known, truth)
    height = {"camera_height_m": CAMERA_HEIGHT_M, "camera_height_sigma_m": CAMERA_HEIGHT_SIGMA_M}
    by_height, height_says = scale_error_percent(dataclasses.replace(clip, gps=None, **height), known, truth)  # type: ignore[arg-type]
    length = np.linalg.norm(np.diff(truth.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    width, rows = clip.size
    of = f"{SCENE} {CAMERA}, {len(clip.frames)} frames of {width}x{rows} px over {length:.1f} m"
    placed, placed_unknown = (int(solved.path.registered.sum()) for solved in (known, estimated))
    focal, true_focal = estimated.path.intrinsics[0, 0], truth.intrinsics[0, 0]
    name = "pose.pandaset"
    return [
        figure(f"{name}.registered_share", placed / len(clip.frames), "share", "0.98 asked",
               f"{placed} of {len(clip.frames)}; {known.path.strategy}; {of}"),
        figure(f"{name}.ate_cm_known_intrinsics", error_cm(known.path, truth), "cm", "3 cm asked; COLMAP's global mapper 1.46 cm",
               f"after similarity alignment; {of}"),
        figure(f"{name}.ate_cm_estimated_intrinsics", error_cm(estimated.path, truth), "cm", "15 cm asked",
               f"after similarity alignment; {placed_unknown} frames registered; focal length {focal:.0f} px, true "
               f"{true_focal:.0f}; {estimated.path.strategy}; {of}"),
        figure(f"{name}.scale_error_gps", by_gps, "%", "3 % asked", f"{gps_says}; {of}"),
        figure(f"{name}.scale_error_camera_height", by_height, "%", "5 % asked",
               f"{height_says}; height given as {CAMERA_HEIGHT_M} m, sigma {CAMERA_HEIGHT_SIGMA_M} m; {of}"),
        figure(f"{name}.seconds", known.seconds, "s", "180 s asked on two cores",
               f"with known intrinsics; again {again.seconds:.0f} s, without intrinsics {estimated.seconds:.0f} s; {of}"),
        figure(f"{name}.peak_memory_mb", own + child, "MB", "",
               f"this process {own:.0f} MB with the frames, COLMAP's {child:.0f} MB; {of}"),
        figure(f"{name}.identical_again", float(same), "1 is identical", "1 asked",
               f"path and points of a second run, bit by bit; {of}"),
    ]  # fmt: skip


def measure_long(folder: Path, quick: bool) -> Sequence[Figure]:
    """Solve a long video: the drive forwards and backwards again and again, each frame with sensor noise of its own."""
    clip, truth = read_scene(quick=False)
    count, shown = (240 if quick else 1000), clip.frames.array()
    there_and_back = [*range(len(shown)), *range(len(shown) - 2, 0, -1)]
    order = np.resize(there_and_back, count)
    size = (clip.size[0] // 2, clip.size[1] // 2)
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in shown])
    generator = np.random.default_rng(0)
    noisy = (small[index] + generator.normal(0, 2.0, small[index].shape) for index in order)
    frames = np.stack([np.clip(frame, 0, 255).astype(np.uint8) for frame in noisy])
    assert clip.intrinsics is not None
    long = dataclasses.replace(
        clip,
        frames=Video.from_array(frames),
        times_s=0.1 * np.arange(count),
        intrinsics=np.diag([0.5, 0.5, 1.0]) @ clip.intrinsics,
        gps=None,
    )
    solved = solve(long, "long")
    placed = int(solved.path.registered.sum())
    true = dataclasses.replace(truth, world_from_camera=truth.world_from_camera[order], annotated=truth.annotated[order])
    child_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    of = f"{count} frames of {size[0]}x{size[1]} px, {SCENE} forwards and backwards; {solved.path.strategy}"
    return [
        figure("pose.long.registered_share", placed / count, "share", "", f"{placed} of {count}; {of}"),
        figure("pose.long.ate_cm", error_cm(solved.path, true), "cm", "", f"after similarity alignment; {of}"),
        figure("pose.long.seconds", solved.seconds, "s", "", of),
        figure("pose.long.colmap_peak_memory_mb", child_mb, "MB", "", of),
    ]
