"""Stage `pose.colmap`: the camera's path and a sparse cloud of static points from the frames alone.

Footage that cannot be reconstructed (tripod, no texture, a camera that only turns) is recognised first and gets the poses
that can be had; the rest goes to COLMAP (`stages.pose.mapping`). The result lives in a frame and unit of its own:
the first registered camera is the origin, and nothing is known of metres or gravity. `pose.align` adds those.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import PositiveInt

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from stages.contract import Progress, stage
from stages.pose.flow_tracks import features_per_frame, follow_corners, spread_frames
from stages.pose.footage import Footage, FootageConfig, classify_footage, with_focal
from stages.pose.mapping import MapRequest, image_name, write_request
from stages.pose.repeats import find_repeats, keep_frames, repeat_poses
from stages.pose.strategy import Strategy, StrategyConfig, choose_strategy, describe_strategy, measure_continuity
from worldline.cameras import invert_rigid, transform_points


@dataclass(frozen=True)
class ColmapConfig:
    """How `pose.colmap` reconstructs.

    Attributes:
        max_features: SIFT features kept per frame of a video, largest first.
        photo_features: the same for photos, whose views are further apart: fewer of their features match.
        max_image_size: longer side in pixels at which features are looked for; larger frames are reduced.
        peak_threshold: SIFT contrast threshold; lower finds more features in flat footage.
        few_features: where the median frame has fewer features they are looked for again, in frames doubled in size and at
            a quarter of the threshold, and in video corners are followed by optical flow as well.
        upsample_below_px: frames whose longer side is smaller are doubled in size for feature extraction; photos always are.
        overlap: every frame of a video is matched with this many next frames, and at powers of two beyond.
        strategy: which other frames are matched, and what is solved at once.
        mapper: "global", "incremental", or "auto": global, then incremental where frames are left out.
        loop_matches: verified matches from which a pair far apart in time counts as a return to the same place.
        tracks_per_view: feature tracks per frame that position the cameras, longest first.
        min_observations: triangulated points that a frame must see to count as registered.
        incremental_below: share of registered frames below which incremental mapping is tried as well.
        lens: camera model where the clip has no intrinsics: "pinhole" (no distortion), "simple_radial" (one term), "radial"
            (two) or "opencv" (two focal lengths, two radial and two tangential terms).
        focal_guess: first guess of the focal length over the longer image side, where the clip has no intrinsics and its
            photos do not say.
        footage: thresholds of the classification before mapping.
    """

    max_features: PositiveInt = 2500
    photo_features: PositiveInt = 8000
    max_image_size: PositiveInt = 1280
    peak_threshold: float = 0.0067
    few_features: int = 300
    upsample_below_px: int = 800
    overlap: PositiveInt = 8
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    mapper: Literal["auto", "global", "incremental"] = "auto"
    loop_matches: int = 30
    tracks_per_view: int = 200
    min_observations: int = 15
    incremental_below: float = 0.9
    lens: Literal["pinhole", "simple_radial", "radial", "opencv"] = "simple_radial"
    focal_guess: float = 1.2
    footage: FootageConfig = field(default_factory=FootageConfig)


_LOOKING, READING, MAPPING = 10, 5, 100  # shares of the work, for progress
_DECODE_ONCE_BYTES = 1 << 29


@stage("pose.colmap", version=2, environment_packages=("pycolmap", "opencv-python-headless"))
def solve_camera_path(clip: Clip, config: ColmapConfig, *, seed: int, progress: Progress) -> tuple[CameraPath, PointCloud]:
    """Solve the camera path of a clip in an arbitrary frame and unit.

    Returns:
        The path, whose `verdict` says what was found, and the points of the static scene: empty for every verdict but
        "moving". Where the verdict is "static" or "rotation" all frames are registered at the origin; where it is
        "textureless" or "failed" none is.
    """
    total = _LOOKING + READING + MAPPING
    count = len(clip.frames)
    if np.prod(clip.frames.shape) <= _DECODE_ONCE_BYTES:
        clip.frames.array()  # the frames are read three times below
    intrinsics = clip.intrinsics if clip.intrinsics is not None else guess_intrinsics(clip.size, focal_guess(clip, config))
    footage = classify_footage(
        clip.frames,
        clip.size,
        intrinsics,
        clip.intrinsics is not None,
        config.footage,
        lambda index: progress(_LOOKING * index // count, total, f"looking at frame {index + 1}/{count}"),
    )
    if footage.verdict != "moving":
        progress(total, total, footage.verdict)
        return degenerate_path(clip, footage, intrinsics), PointCloud.none()
    return map_frames(clip, intrinsics, config, seed, lambda done, note: progress(_LOOKING + done, total, note))


def map_frames(
    clip: Clip,
    intrinsics: np.ndarray,
    config: ColmapConfig,
    seed: int,
    on_step: Callable[[int, str], None],
    ignored: Iterable[np.ndarray] | None = None,
) -> tuple[CameraPath, PointCloud]:
    """Reconstruct footage with parallax, leaving out the features in `ignored` (per frame, bool `[H, W]`) where it is given.

    Frames that repeat the picture before them are left out, and get its pose (`stages.pose.repeats`). `on_step` gets the
    steps of `READING + MAPPING` that are done. The verdict is "moving" or "failed".
    """
    shown = find_repeats(clip.frames, clip.size)
    kept = np.unique(shown)
    if len(kept) in (1, len(shown)):  # one picture alone has no structure, however often it is shown
        return map_distinct_frames(clip, intrinsics, config, seed, on_step, ignored)
    if ignored is not None:
        ignored = (mask for index, mask in enumerate(ignored) if shown[index] == index)
    on_step(0, f"{len(shown) - len(kept)} of {len(shown)} frames repeat the one before")
    path, cloud = map_distinct_frames(keep_frames(clip, kept), intrinsics, config, seed, on_step, ignored)
    return repeat_poses(path, cloud, clip, shown)


def map_distinct_frames(
    clip: Clip,
    intrinsics: np.ndarray,
    config: ColmapConfig,
    seed: int,
    on_step: Callable[[int, str], None],
    ignored: Iterable[np.ndarray] | None,
) -> tuple[CameraPath, PointCloud]:
    """Reconstruct footage with parallax of which no frame repeats another; see `map_frames`."""
    continuity = measure_continuity(clip.frames, clip.size, config.footage.corner_strength)
    strategy = choose_strategy(len(clip.frames), continuity, config.overlap, config.strategy)
    with tempfile.TemporaryDirectory(prefix="worldline-colmap-") as name:
        folder = Path(name)
        write_frames(clip, folder / "images")
        if ignored is not None:
            write_masks(ignored, folder / "masks")
        found = features_per_frame(clip.frames.at(spread_frames(len(clip.frames))), config.peak_threshold)
        # corners know no masks
        followed = ignored is None and not strategy.photos and found < config.few_features
        if followed:
            write_tracks(clip, folder, config.footage.corner_strength)
        on_step(READING, f"{len(clip.frames)} frames read")
        request = make_request(clip, intrinsics, strategy, config, seed)
        write_request(folder, dataclasses.replace(request, masked=ignored is not None, followed=followed))
        run_mapping(folder, lambda done, note: on_step(READING + done, note))
        with np.load(folder / "result.npz") as archive:
            result = dict(archive)
    loops = int(result["loops"])
    also = [f"{loops} loops"] if loops else []
    also += ["corners followed by optical flow because frames have few features"] if followed else []
    words = describe_strategy(strategy, [*also, str(result["method"])])
    if str(result["method"]) == "none":
        failed = degenerate_path(clip, Footage("failed"), intrinsics)
        return dataclasses.replace(failed, strategy=words), PointCloud.none()
    return dataclasses.replace(solved_path(clip, result), strategy=words), solved_cloud(clip, result)


def guess_intrinsics(size: tuple[int, int], focal_guess: float) -> np.ndarray:
    """Return a pinhole matrix with the principal point in the middle."""
    focal = focal_guess * max(size)
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def focal_guess(clip: Clip, config: ColmapConfig) -> float:
    """Return the focal length over the longer image side that the clip's photos say, else the configured one."""
    prior = clip.provenance.get("focal_prior_px")
    return float(prior) / max(clip.size) if prior else config.focal_guess


def make_request(clip: Clip, intrinsics: np.ndarray, strategy: Strategy, config: ColmapConfig, seed: int) -> MapRequest:
    """Put clip, strategy and config into COLMAP's terms."""
    width, height = clip.size
    calibrated = clip.intrinsics is not None
    fx, fy, cx, cy = intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    lens = "pinhole" if calibrated else config.lens
    params = {
        "pinhole": [fx, fy, cx, cy],
        "simple_radial": [fx, cx, cy, 0.0],
        "radial": [fx, cx, cy, 0.0, 0.0],
        "opencv": [fx, fy, cx, cy, 0.0, 0.0, 0.0, 0.0],
    }[lens]
    return MapRequest(
        frames=len(clip.frames),
        width=width,
        height=height,
        camera_model=lens.upper(),
        camera_params=[float(value) for value in params],
        calibrated=calibrated,
        seed=seed % 2**31,
        max_features=config.photo_features if strategy.photos else config.max_features,
        max_image_size=config.max_image_size,
        peak_threshold=config.peak_threshold,
        few_features=config.few_features,
        double=strategy.photos or max(width, height) < config.upsample_below_px,
        pairing=strategy.pairing,
        overlap=config.overlap,
        loop_neighbours=config.strategy.loop_neighbours if strategy.loops else 0,
        loop_matches=config.loop_matches,
        photo_neighbours=config.strategy.photo_neighbours,
        windows=[list(window) for window in strategy.windows],
        mapper=config.mapper,
        tracks_per_view=config.tracks_per_view,
        min_observations=config.min_observations,
        incremental_below=config.incremental_below,
    )


def write_frames(clip: Clip, folder: Path) -> None:
    """Write the frames losslessly, in grey: SIFT sees nothing else."""
    folder.mkdir()
    for index, frame in enumerate(clip.frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        cv2.imwrite(str(folder / image_name(index)), grey, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def write_masks(ignored: Iterable[np.ndarray], folder: Path) -> None:
    """Write the masks as COLMAP reads them: one picture per frame, black where no features are wanted."""
    folder.mkdir()
    for index, mask in enumerate(ignored):
        cv2.imwrite(str(folder / f"{image_name(index)}.png"), np.where(mask, 0, 255).astype(np.uint8))


def write_tracks(clip: Clip, folder: Path, corner_strength: float) -> None:
    """Write corners followed by optical flow, without those that lie where a mask says so."""
    tracks = follow_corners(clip.frames, clip.size, corner_strength)
    kept = np.ones(len(tracks.frame), bool)
    for index in range(len(clip.frames) if (folder / "masks").exists() else 0):
        mask = np.asarray(cv2.imread(str(folder / "masks" / f"{image_name(index)}.png"), cv2.IMREAD_GRAYSCALE))
        here = np.flatnonzero(tracks.frame == index)
        x, y = tracks.xy[here].astype(int).T
        kept[here] = mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)] > 0
    np.savez(folder / "tracks.npz", frame=tracks.frame[kept], track=tracks.track[kept], xy=tracks.xy[kept])


def run_mapping(folder: Path, on_step: Callable[[int, str], None], module: str = "stages.pose.mapping") -> None:
    """Run a mapping module on a folder, passing its steps on; it ends with us however we end.

    Raises:
        RuntimeError: if it dies; the message ends with the last lines that it printed.
    """
    command = [sys.executable, "-m", module, str(folder)]
    root = str(Path(__file__).resolve().parents[2])  # the child must find our `stages` whatever folder we run in
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",  # the linear algebra inside COLMAP must not sum in an order that depends on load
    }
    with (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                done, _, note = json.loads(line)
                on_step(done, note)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
    if status:
        tail = "\n".join((folder / "stderr.txt").read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"COLMAP's process ended with status {status}:\n{tail}")


def degenerate_path(clip: Clip, footage: Footage, intrinsics: np.ndarray) -> CameraPath:
    """Build the path of footage without structure: a fixed or turning camera at the origin, or nothing at all."""
    count = len(clip.frames)
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    if footage.first_from_camera is not None:
        poses[:, :3, :3] = footage.first_from_camera
        intrinsics = with_focal(intrinsics, footage.focal_px)
    registered = np.full(count, footage.verdict in ("static", "rotation"))
    return make_path(clip, poses, registered, intrinsics, np.zeros(4), footage.verdict, 0.0)


def make_path(
    clip: Clip,
    poses: np.ndarray,
    registered: np.ndarray,
    intrinsics: np.ndarray,
    distortion: np.ndarray,
    verdict: str,
    reprojection_error_px: float,
) -> CameraPath:
    """Build a path of which neither scale nor gravity is known."""
    return CameraPath(
        times_s=clip.times_s,
        world_from_camera=poses,
        registered=registered,
        intrinsics=np.asarray(intrinsics, np.float64),
        distortion=distortion,
        width=clip.size[0],
        height=clip.size[1],
        verdict=verdict,
        scale_source="none",
        scale_sigma=0.0,
        gravity_source="none",
        gravity_sigma_rad=0.0,
        reprojection_error_px=reprojection_error_px,
    )


def solved_path(clip: Clip, result: dict[str, np.ndarray]) -> CameraPath:
    """Build the path of a model, with its first registered camera at the origin."""
    intrinsics, distortion = lens_of(str(result["camera_model"]), result["camera_params"])
    poses = np.repeat(np.eye(4)[None], len(clip.frames), axis=0)
    registered = np.zeros(len(clip.frames), bool)
    registered[result["frames"]] = True
    poses[result["frames"]] = invert_rigid(result["world_from_camera"][0]) @ result["world_from_camera"]
    observed = np.bincount(result["observation_point"], minlength=len(result["xyz"]))
    mean_error = float(result["error_px"] @ observed / max(observed.sum(), 1))
    return make_path(clip, poses, registered, intrinsics, distortion, "moving", mean_error)


def lens_of(model: str, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pinhole matrix and OpenCV's (k1, k2, p1, p2) of a COLMAP camera."""
    two = model in ("PINHOLE", "OPENCV")  # two focal lengths
    fx, fy, cx, cy = params[[0, 1, 2, 3] if two else [0, 0, 1, 2]]
    terms = params[4 if two else 3 :]
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.concatenate([terms, np.zeros(4 - len(terms))])


def solved_cloud(clip: Clip, result: dict[str, np.ndarray]) -> PointCloud:
    """Build the cloud of a model, coloured by the mean of the pixels that saw each point."""
    xyz = transform_points(invert_rigid(result["world_from_camera"][0]), result["xyz"])
    point, of_frame, xy = result["observation_point"], result["observation_frame"], result["observation_xy_px"]
    width, height = clip.size
    colour = np.zeros((len(xyz), 3))
    for index, frame in enumerate(clip.frames):
        here = of_frame == index
        column = np.clip(xy[here, 0].astype(int), 0, width - 1)
        row = np.clip(xy[here, 1].astype(int), 0, height - 1)
        np.add.at(colour, point[here], frame[row, column])
    colour /= np.maximum(np.bincount(point, minlength=len(xyz)), 1)[:, None]
    return PointCloud(
        xyz=xyz,
        rgb=np.round(colour).astype(np.uint8),
        error_px=result["error_px"],
        observation_frame=of_frame,
        observation_point=point,
        observation_xy_px=xy,
    )
