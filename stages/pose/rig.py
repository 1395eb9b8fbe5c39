"""Stage `pose.rig`: the path of a rig of cameras, and where its cameras sit, from their frames.

All cameras are solved in one world (`stages.pose.rig_mapping`): neighbours in time of one camera are matched, and frames of
different cameras within a set and between near sets. What fires together moves as one body. A camera that fires at other
times than the reference is mapped freely, and its place is the mean of what its frames say against the path of the
reference at their own times.

A given place of a camera is the strongest source of metric scale: its distance to the reference in metres over the same
distance in the world that was solved. Sigma of that ratio: what is given of the distance, and what the disparities of points
seen by both cameras allow.

Not done: the rows of a rolling shutter are mapped as if they were exposed together with the middle row
(`worldline.rigs.row_poses` gives the pose of each row on the solved path); clocks are taken as given.
"""

import dataclasses
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import PositiveInt

from schemas.cameras import CameraPath, PointCloud
from schemas.clips import Clip
from schemas.rigs import Rig, RigClip
from stages.contract import Progress, stage
from stages.pose.colmap import (
    ColmapConfig,
    degenerate_path,
    guess_intrinsics,
    lens_of,
    make_path,
    make_request,
    run_mapping,
    solved_cloud,
)
from stages.pose.footage import Footage, classify_footage
from stages.pose.mapping import image_name
from stages.pose.pairs import sequential_pairs
from stages.pose.rig_mapping import RigCamera, RigRequest, write_request
from stages.pose.scale_estimate import ScaleEstimate, fuse, judged
from stages.pose.scale_from_sizes import scale_from_baseline
from stages.pose.strategy import Strategy
from worldline.cameras import Similarity, invert_rigid, transform_points
from worldline.rigs import place_camera

_LOOKING, _READING = 10, 5  # shares of the work before mapping starts, for progress
_MIN_SHARED_POINTS = 10
_MEAN_OF_NORM = 1.2533  # mean length of a planar error of unit standard deviation per axis


@dataclass(frozen=True)
class RigPoseConfig:
    """How `pose.rig` reconstructs.

    Attributes:
        colmap: features, matching and mapping of the single frames.
        cross_overlap: frames of different cameras are matched within their set, and between sets 1, 2, 4, ... apart up to this.
        simultaneous_s: a camera whose frames are all taken within this of the reference's moves with it as one body.
        places: what becomes of given places of cameras that fire with the reference: "hold" keeps them, "refine" adjusts them to
            the frames, "solve" uses only their distances, for scale; "auto" refines where the cameras overlap enough, and
            holds elsewhere. A camera that fires at other times is solved, and its given place kept where it cannot be.
        min_cross_matches: verified matches per set between a camera and the others that "auto" needs to refine.
        max_gap_s: a path is not interpolated over longer holes to place a camera that fires at other times.
        max_scale_sigma: a scale with a larger relative standard deviation is refused.
    """

    colmap: ColmapConfig = field(default_factory=ColmapConfig)
    cross_overlap: PositiveInt = 2
    simultaneous_s: float = 0.002
    places: Literal["auto", "hold", "refine", "solve"] = "auto"
    min_cross_matches: int = 30
    max_gap_s: float = 0.5
    max_scale_sigma: float = 0.2


@dataclass(frozen=True)
class _Image:
    camera: int
    frame: int
    in_set: int


@stage("pose.rig", version=1, environment_packages=("pycolmap", "opencv-python-headless"))
def solve_rig_path(
    rig_clip: RigClip, config: RigPoseConfig, *, seed: int, progress: Progress
) -> tuple[CameraPath, PointCloud, Rig]:
    """Solve the path of a rig's reference camera and the places of the others.

    Returns:
        The path of the reference, with its first registered frame as origin: in metres where places are given, else in a unit of
        its own. The points that the reference saw. The rig in the same unit. Where the reference stands still, only turns or
        sees nothing, the path says so as in `pose.colmap`, given places are passed on, and no others are found.
    """
    total = _LOOKING + _READING + 100
    clip = rig_clip.clip(rig_clip.reference)
    calibrated = clip.intrinsics is not None
    intrinsics = clip.intrinsics if clip.intrinsics is not None else guess_intrinsics(clip.size, config.colmap.focal_guess)
    footage = classify_footage(
        clip.frames,
        clip.size,
        intrinsics,
        calibrated,
        config.colmap.footage,
        lambda index: progress(_LOOKING * index // len(clip.frames), total, f"looking at frame {index + 1}/{len(clip.frames)}"),
    )
    if footage.verdict != "moving":
        progress(total, total, footage.verdict)
        return degenerate_path(clip, footage, intrinsics), PointCloud.none(), given_rig(rig_clip)
    images = list_images(rig_clip)
    with tempfile.TemporaryDirectory(prefix="worldline-rig-") as name:
        folder = Path(name)
        write_images(rig_clip, images, folder / "images")
        progress(_LOOKING + _READING, total, f"{len(images)} frames of {len(rig_clip.cameras)} cameras read")
        write_request(folder, make_rig_request(rig_clip, images, config, seed))
        run_mapping(folder, lambda done, note: progress(_LOOKING + _READING + done, total, note), "stages.pose.rig_mapping")
        with np.load(folder / "result.npz") as archive:
            result = dict(archive)
    solved = None if str(result["method"]) == "none" else assemble(rig_clip, clip, images, result, config)
    if solved is None:
        return degenerate_path(clip, Footage("failed"), intrinsics), PointCloud.none(), given_rig(rig_clip)
    return solved


def list_images(rig_clip: RigClip) -> list[_Image]:
    """Return what is mapped, in the order of COLMAP's images: camera by camera, every frame that belongs to a set."""
    return [
        _Image(camera, int(frame), in_set)
        for camera in range(len(rig_clip.cameras))
        for in_set, frame in enumerate(rig_clip.sets[:, camera])
        if frame >= 0
    ]


def write_images(rig_clip: RigClip, images: list[_Image], folder: Path) -> None:
    """Write what is mapped losslessly, in grey, under the names of COLMAP's images."""
    folder.mkdir()
    numbers = {(image.camera, image.frame): index for index, image in enumerate(images)}
    for camera, name in enumerate(rig_clip.cameras):
        for frame, picture in enumerate(rig_clip.frames[name]):
            if (camera, frame) in numbers:
                grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
                path = folder / image_name(numbers[camera, frame])
                cv2.imwrite(str(path), grey, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def list_pairs(images: list[_Image], overlap: int, cross_overlap: int) -> list[tuple[int, int]]:
    """Return the pairs of images to match: neighbours within a camera as in `pose.colmap`, and across cameras near in time."""
    by_camera: dict[int, dict[int, int]] = {}
    for index, image in enumerate(images):
        by_camera.setdefault(image.camera, {})[image.in_set] = index
    pairs = []
    for indices in by_camera.values():
        order = list(indices.values())
        pairs += [(order[first], order[second]) for first, second in sequential_pairs(len(order), overlap)]
    apart = [0, *(sign * 2**power for power in range(cross_overlap.bit_length()) for sign in (1, -1))]
    for one, other in itertools.combinations(by_camera.values(), 2):
        pairs += [(one[at], other[at + step]) for at in one for step in apart if at + step in other]
    return pairs


def coupled_cameras(rig_clip: RigClip, simultaneous_s: float) -> np.ndarray:
    """Return which cameras `[C]` always fire together with the reference."""
    reference = rig_clip.times_s[rig_clip.reference]
    coupled = []
    for column, camera in enumerate(rig_clip.cameras):
        there = rig_clip.sets[:, column]
        away = np.abs(rig_clip.times_s[camera][there[there >= 0]] - reference[there >= 0])
        coupled.append(bool(away.max(initial=0.0) <= simultaneous_s))
    return np.array(coupled)


def make_rig_request(rig_clip: RigClip, images: list[_Image], config: RigPoseConfig, seed: int) -> RigRequest:
    """Put rig and config into COLMAP's terms."""
    coupled = coupled_cameras(rig_clip, config.simultaneous_s)
    cameras = []
    for number, name in enumerate(rig_clip.cameras):
        model, params = camera_model(rig_clip, number, config.colmap)
        given = number > 0 and rig_clip.placed[number] and config.places != "solve"
        place = rig_clip.camera_from_rig[number, :3].tolist() if given else None
        width, height = rig_clip.size(name)
        cameras.append(RigCamera(model, params, width, height, bool(coupled[number]), place))
    pairs = list_pairs(images, config.colmap.overlap, config.cross_overlap)
    strategy = Strategy("sequential", False, ((0, len(images)),), len(pairs), "a rig's frames are a film")
    intrinsics = rig_clip.intrinsics[0] if rig_clip.calibrated else np.eye(3)
    reference = make_request(rig_clip.clip(rig_clip.reference), intrinsics, strategy, config.colmap, seed)
    return RigRequest(
        mapping=dataclasses.replace(reference, frames=len(images)),
        cameras=cameras,
        image_camera=[image.camera for image in images],
        image_set=[image.in_set for image in images],
        pairs=pairs,
        places="refine" if config.places == "solve" else config.places,
        min_cross_matches=config.min_cross_matches,
    )


def camera_model(rig_clip: RigClip, number: int, config: ColmapConfig) -> tuple[str, list[float]]:
    """Return COLMAP's model and parameters of a camera: its own, or a first guess."""
    if not rig_clip.calibrated:
        matrix = guess_intrinsics(rig_clip.size(rig_clip.cameras[number]), config.focal_guess)
        return "SIMPLE_RADIAL", [float(matrix[0, 0]), float(matrix[0, 2]), float(matrix[1, 2]), 0.0]
    pinhole = [float(value) for value in rig_clip.intrinsics[number][[0, 1, 0, 1], [0, 1, 2, 2]]]
    distortion = [float(value) for value in rig_clip.distortion[number]]
    return ("OPENCV", pinhole + distortion) if any(distortion) else ("PINHOLE", pinhole)


def assemble(
    rig_clip: RigClip, clip: Clip, images: list[_Image], result: dict[str, np.ndarray], config: RigPoseConfig
) -> tuple[CameraPath, PointCloud, Rig] | None:
    """Turn what COLMAP solved into a path, points and a rig; None where fewer than two frames of the reference are placed."""
    coupled = coupled_cameras(rig_clip, config.simultaneous_s)
    solved = solved_images(images, result, coupled, len(clip.frames))
    if solved.registered.sum() < 2:
        return None
    models = [camera_model(rig_clip, number, config.colmap)[0] for number in range(len(rig_clip.cameras))]
    calibrations = [lens_of(model, result[f"params_{number}"]) for number, model in enumerate(models)]
    rig = solved_rig(rig_clip, solved, calibrations, coupled, result, config)
    scale = scale_from_places(rig_clip, rig, config)
    unit = scale.scale if scale else 1.0
    source, sigma = (scale.source, scale.sigma) if scale else ("none", 0.0)

    metric = Similarity(unit, np.eye(3), np.zeros(3))
    poses = np.where(solved.registered[:, None, None], metric.poses(solved.world_from_rig), np.eye(4))
    path = make_path(clip, poses, solved.registered, *calibrations[0], "moving", solved.error_px)
    camera_from_rig = rig.camera_from_rig.copy()
    camera_from_rig[:, :3, 3] *= unit
    rig = dataclasses.replace(
        rig,
        camera_from_rig=camera_from_rig,
        position_sigma=rig.position_sigma * unit,
        scale_source=source,
        scale_sigma=sigma,
    )
    return (
        dataclasses.replace(path, scale_source=source, scale_sigma=sigma),
        reference_cloud(clip, solved, unit),
        keep_given_places(rig, rig_clip) if scale else rig,
    )


def keep_given_places(rig: Rig, rig_clip: RigClip) -> Rig:
    """Return a rig in metres with the given places of those cameras that the frames did not place."""
    kept = np.array([placed_by == "none" for placed_by in rig.placed_by]) & rig_clip.placed
    return dataclasses.replace(
        rig,
        camera_from_rig=np.where(kept[:, None, None], rig_clip.camera_from_rig, rig.camera_from_rig),
        placed_by=["given" if here else placed_by for here, placed_by in zip(kept, rig.placed_by, strict=True)],
        position_sigma=np.where(kept, rig_clip.position_sigma_m, rig.position_sigma),
        rotation_sigma_rad=np.where(kept, rig_clip.rotation_sigma_rad, rig.rotation_sigma_rad),
    )


@dataclass(frozen=True)
class _Solved:
    """What COLMAP solved, in its own unit, with the first pose of the reference as origin.

    Attributes:
        camera, in_set, world_from_camera: `[I]`, `[I]`, `[I, 4, 4]` of the images that were placed.
        frame: `[I]` their frames in the clip of their camera.
        world_from_rig, registered: `[N, 4, 4]`, `[N]` by set: poses of the reference.
        xyz, point_error_px: `[P, 3]`, `[P]`.
        seen_point, seen_camera, seen_frame, seen_xy: `[M]` and `[M, 2]` observations.
    """

    camera: np.ndarray
    in_set: np.ndarray
    frame: np.ndarray
    world_from_camera: np.ndarray
    world_from_rig: np.ndarray
    registered: np.ndarray
    xyz: np.ndarray
    point_error_px: np.ndarray
    seen_point: np.ndarray
    seen_camera: np.ndarray
    seen_frame: np.ndarray
    seen_xy: np.ndarray

    @property
    def error_px(self) -> float:
        """Mean reprojection error over the observations."""
        seen = np.bincount(self.seen_point, minlength=len(self.xyz))
        return float(self.point_error_px @ seen / max(seen.sum(), 1))


def solved_images(images: list[_Image], result: dict[str, np.ndarray], coupled: np.ndarray, sets: int) -> _Solved:
    """Sort COLMAP's images by camera and set; a set is placed by its reference, or by a camera that fires with it."""
    camera_of, frame_of, set_of = np.array([(image.camera, image.frame, image.in_set) for image in images]).T
    placed = result["frames"]
    camera, in_set, world_from_camera = camera_of[placed], set_of[placed], result["world_from_camera"]
    places = result["camera_from_rig"]
    world_from_rig, registered = np.repeat(np.eye(4)[None], sets, axis=0), np.zeros(sets, bool)
    for number in np.flatnonzero(coupled & np.isfinite(places).all(axis=(1, 2))):
        rows = np.flatnonzero((camera == number) & ~registered[in_set])
        world_from_rig[in_set[rows]] = world_from_camera[rows] @ places[number]
        registered[in_set[rows]] = True
    origin = invert_rigid(world_from_rig[np.argmax(registered)])
    return _Solved(
        camera=camera,
        in_set=in_set,
        frame=frame_of[placed],
        world_from_camera=origin @ world_from_camera,
        world_from_rig=origin @ world_from_rig,
        registered=registered,
        xyz=transform_points(origin, result["xyz"]),
        point_error_px=result["error_px"],
        seen_point=result["observation_point"],
        seen_camera=camera_of[result["observation_frame"]],
        seen_frame=frame_of[result["observation_frame"]],
        seen_xy=result["observation_xy_px"],
    )


def solved_rig(
    rig_clip: RigClip,
    solved: _Solved,
    calibrations: list[tuple[np.ndarray, np.ndarray]],
    coupled: np.ndarray,
    result: dict[str, np.ndarray],
    config: RigPoseConfig,
) -> Rig:
    """Find where every camera sits, in the unit of the solved world: from COLMAP's rig, or from the two paths."""
    rig = given_rig(rig_clip)
    places, placed_by = np.repeat(np.eye(4)[None], len(rig_clip.cameras), axis=0), ["reference"]
    position, rotation = np.zeros(len(places)), np.zeros(len(places))
    reference_times = rig_clip.times_s[rig_clip.reference][solved.registered]
    for number, name in enumerate(rig_clip.cameras[1:], 1):
        here = solved.camera == number
        given = bool(rig_clip.placed[number]) and config.places != "solve"
        if coupled[number] and here.any() and np.isfinite(result["camera_from_rig"][number]).all():
            places[number] = result["camera_from_rig"][number]
            held = given and bool(result["held"])
            placed_by.append("given" if held else "refined" if given else "solved")
            position[number], rotation[number] = place_sigmas(
                shared_points(solved, number),
                places[number],
                float(calibrations[number][0][0, 0]),
                solved.error_px / _MEAN_OF_NORM,
                float(rig_clip.rotation_sigma_rad[number]) if held else None,
            )
            continue
        found = place_camera(
            reference_times,
            solved.world_from_rig[solved.registered],
            rig_clip.times_s[name][solved.frame[here]],
            solved.world_from_camera[here],
            config.max_gap_s,
        )
        placed_by.append("solved" if found else "none")
        if found:
            places[number], rotation[number], position[number], _ = found
    return dataclasses.replace(
        rig,
        camera_from_rig=places,
        placed_by=placed_by,
        position_sigma=position,
        rotation_sigma_rad=rotation,
        intrinsics=np.stack([matrix for matrix, _ in calibrations]),
        distortion=np.stack([distortion for _, distortion in calibrations]),
        frames_solved=np.bincount(solved.camera, minlength=len(places)).astype(np.int32),
    )


def shared_points(solved: _Solved, number: int) -> np.ndarray:
    """Return the points `[P, 3]` that a camera and another one saw, in the camera's frame at its first view of each."""
    mine = solved.seen_camera == number
    rows = np.flatnonzero(mine & np.isin(solved.seen_point, solved.seen_point[~mine]))
    _, first = np.unique(solved.seen_point[rows], return_index=True)
    pose = {frame: solved.world_from_camera[i] for i, frame in enumerate(solved.frame) if solved.camera[i] == number}
    rows = rows[first]
    poses = np.array([pose[frame] for frame in solved.seen_frame[rows]]).reshape(-1, 4, 4)
    return transform_points(invert_rigid(poses), solved.xyz[solved.seen_point[rows]][:, None])[:, 0]


def place_sigmas(
    points: np.ndarray, camera_from_rig: np.ndarray, focal_px: float, noise_px: float, held_sigma_rad: float | None
) -> tuple[float, float]:
    """Return the standard deviations of a camera's distance to the reference and of its rotation (per axis).

    From the normal matrix of the camera's place over the points that it shares with others: one observation per point, since
    those of one feature share their error, and the noise of both cameras.

    Args:
        points: `[P, 3]` in the camera's frame.
        camera_from_rig: where it sits, in the same unit.
        focal_px: of the camera.
        noise_px: of an observation, per axis.
        held_sigma_rad: for a place that was held: only its distance, that is the unit of the world, was free, and the error of
            the given rotation, of this standard deviation per axis, went into it. None where the whole place was free.
    """
    distance = float(np.linalg.norm(camera_from_rig[:3, 3]))
    if len(points) < _MIN_SHARED_POINTS or distance == 0:
        return np.inf, np.inf if held_sigma_rad is None else held_sigma_rad
    x, y, z = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    by_shift = focal_px / z[:, None, None] * np.stack([[one, zero, -x / z], [zero, one, -y / z]]).transpose(2, 0, 1)
    by_turn = by_shift @ np.stack([[zero, z, -y], [-z, zero, x], [y, -x, zero]]).transpose(2, 0, 1)  # of w: w x point
    away = camera_from_rig[:3, 3] / distance
    variance = 2 * noise_px**2
    if held_sigma_rad is not None:
        by_distance = by_shift @ away
        information = float((by_distance**2).sum())
        of_turn = np.einsum("pi,pij->j", by_distance, by_turn) / information
        return float(np.hypot(np.sqrt(variance / information), held_sigma_rad * np.linalg.norm(of_turn))), held_sigma_rad
    jacobian = np.concatenate([by_turn, by_shift], axis=2)
    covariance = np.linalg.pinv(np.einsum("pij,pik->jk", jacobian, jacobian) / variance, hermitian=True)
    return float(np.sqrt(away @ covariance[3:, 3:] @ away)), float(np.sqrt(np.trace(covariance[:3, :3]) / 3))


def scale_from_places(rig_clip: RigClip, rig: Rig, config: RigPoseConfig) -> ScaleEstimate | None:
    """Return metres per unit from the given distances of cameras to the reference; None where they cannot tell."""
    estimates = []
    for number, placed_by in enumerate(rig.placed_by):
        if rig_clip.placed[number] and placed_by not in ("reference", "none"):
            given = float(np.linalg.norm(rig_clip.camera_from_rig[number, :3, 3]))
            found = float(np.linalg.norm(rig.camera_from_rig[number, :3, 3]))
            own_sigma = float(rig.position_sigma[number]) / max(found, 1e-12)
            estimates.append(scale_from_baseline(found, given, float(rig_clip.position_sigma_m[number]), own_sigma))
    return fuse([judged(estimate, config.max_scale_sigma) for estimate in estimates])


def reference_cloud(clip: Clip, solved: _Solved, unit: float) -> PointCloud:
    """Return the points that the reference saw in frames with a pose, with its observations of them."""
    seen = (solved.seen_camera == 0) & solved.registered[solved.seen_frame]
    kept, point = np.unique(solved.seen_point[seen], return_inverse=True)
    return solved_cloud(
        clip,
        {
            "world_from_camera": np.eye(4)[None],
            "xyz": solved.xyz[kept] * unit,
            "error_px": solved.point_error_px[kept],
            "observation_frame": solved.seen_frame[seen].astype(np.int32),
            "observation_point": point.astype(np.int32),
            "observation_xy_px": solved.seen_xy[seen],
        },
    )


def given_rig(rig_clip: RigClip) -> Rig:
    """Return the rig as it was given, for frames that say nothing of it."""
    count = len(rig_clip.cameras)
    sizes = np.array([rig_clip.size(camera) for camera in rig_clip.cameras], np.int32)
    return Rig(
        cameras=rig_clip.cameras,
        camera_from_rig=rig_clip.camera_from_rig,
        placed_by=["reference", *("given" if placed else "none" for placed in rig_clip.placed[1:])],
        position_sigma=rig_clip.position_sigma_m,
        rotation_sigma_rad=rig_clip.rotation_sigma_rad,
        intrinsics=rig_clip.intrinsics,
        distortion=rig_clip.distortion,
        widths=sizes[:, 0],
        heights=sizes[:, 1],
        frames_solved=np.zeros(count, np.int32),
        times_s=rig_clip.times_s,
        readout_s=rig_clip.readout_s,
        scale_source="none",
        scale_sigma=0.0,
    )
