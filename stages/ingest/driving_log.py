"""What every reader of driving logs ends with: the seven artifacts of a log, in one world frame.

World frame: metres, z up, the axes of the source, moved so that the first frame with a pose has its camera at the origin.
Frames: sides are multiples of 16 pixels, as the world models need them; what is over is cut off evenly on both sides.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, UInt8

from schemas.artifact import make_table, rows_to_table
from schemas.cameras import CameraPath
from schemas.clips import Clip, Source
from schemas.driving import MAP_ELEMENTS, MAP_KINDS, TRAJECTORY_CHECKS, LidarSweeps, RoadMap, Trajectory
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.tracks import TRUTH_BOXES, Tracks, Truth
from stages.contract import Progress
from stages.ingest.ego_poses import Timeline, poses_at
from stages.ingest.pictures import fitted_size, keep_frame, read_picture, resize, stack_frames
from stages.ingest.settle_tracks import AnnotatedBoxes, AnnotationRules, settle_tracks
from stages.ingest.timing import FramePicker

DrivingLog = tuple[Clip, CameraPath, Tracks, Trajectory, RoadMap, LidarSweeps, Truth]

SIDE_MULTIPLE = 16
# Frames are picked before the boxes are settled, so that no pause may split the log again.
_RULES = AnnotationRules(max_pause_s=1e9)
_MOTION_WINDOW_S, _MOVING_MPS = 0.5, 0.3


@dataclass(frozen=True, kw_only=True)
class LogSelection:
    """Which frames of a log are read, and how large; the settings of every reader of logs.

    Attributes:
        start_s, end_s: span in seconds from the first frame; None goes to the end.
        max_frames: stop after this many frames.
        max_side: longer side of the frames in pixels, before they are cut to multiples of 16; larger ones are shrunk, None keeps
            them.
        frames_per_second: keep at most this many frames per second; None keeps all.
    """

    start_s: float = 0.0
    end_s: float | None = None
    max_frames: int | None = 300
    max_side: int | None = 960
    frames_per_second: float | None = None


@dataclass(frozen=True)
class EgoBody:
    """The vehicle that recorded a log.

    Attributes:
        length_m, width_m: of its footprint.
    """

    length_m: float
    width_m: float


@dataclass(frozen=True)
class Sweep:
    """What lasers measured around one instant, in the source's own world.

    Attributes:
        time_s: seconds of the clip.
        origin: `[3]` where the sensor stood, metres.
        points: `[N, 3]` metres.
    """

    time_s: float
    origin: Float64[np.ndarray, "3"]
    points: Float64[np.ndarray, "N 3"]


@dataclass(frozen=True)
class RecordedLog:
    """A log as its files give it, in the source's own world (metres, z up), one entry per kept frame.

    Attributes:
        clip: the kept frames.
        world_from_camera: `[T, 4, 4]` OpenCV axes.
        known: `[T]` frames whose pose is known.
        world_from_ego: `[T, 4, 4]` x forward, y left, z up, on the ground under the vehicle's middle.
        ego_known: `[T]` frames in which it is known; None where that is so wherever the camera's pose is.
        boxes: the annotated boxes; their `frame` counts the frames of the source.
        kept: the frames of the source that the clip shows.
        body: of the vehicle.
        road_map: in the source's world.
        sweeps: of the lidar, in any order.
        provenance: kept with the tracks: at least `log` and `format`.
        scale_source: "annotations", or "given" where the log has no boxes.
    """

    clip: Clip
    world_from_camera: Float64[np.ndarray, "T 4 4"]
    known: Bool[np.ndarray, " T"]
    world_from_ego: Float64[np.ndarray, "T 4 4"]
    boxes: AnnotatedBoxes
    kept: Sequence[int]
    body: EgoBody
    road_map: RoadMap
    sweeps: Sequence[Sweep] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scale_source: str = "annotations"
    ego_known: Bool[np.ndarray, " T"] | None = None


def assemble_log(log: RecordedLog) -> DrivingLog:
    """Return the artifacts of a log: boxes settled into tracks, everything moved to the log's world frame.

    Boxes in no kept frame are left out without a count; all others are counted in `tracks.provenance["counts"]` under the
    names of `settle_tracks` where a count is not zero. The trajectory needs a pose for every frame: where none is known
    it is interpolated, and held before the first and after the last. The truth says the same as the tracks and the path,
    for evaluation: a box moves where it covers 0.3 m/s over the second around the frame and the source does not say that
    it stands.

    Raises:
        WorldlineError: if no frame has a pose, or the boxes cannot be settled.
    """
    clip = _cropped(log.clip)
    if not log.known.any():
        raise WorldlineError(f"{clip.name}: no frame has a usable pose of the camera: check the poses of the log")
    assert clip.intrinsics is not None
    origin = log.world_from_camera[np.argmax(log.known), :3, 3]
    world_from_camera = _moved(log.world_from_camera, -origin)
    boxes = _in_kept_frames(log.boxes, log.kept, -origin)
    timeline = Timeline(clip.times_s, world_from_camera, log.known, clip.intrinsics, *clip.size)
    tracks, path, metrics = settle_tracks(boxes, timeline, _RULES, log.provenance)
    counts = {row["name"]: int(row["value"]) for row in metrics.figures.to_pylist() if row["value"]}
    if log.scale_source != path.scale_source:
        path = replace(path, scale_source=log.scale_source)
        tracks = replace(tracks, scale_source=log.scale_source)
    tracks = replace(tracks, provenance={**log.provenance, "counts": counts, "world_origin_in_source_m": origin.tolist()})
    trajectory = Trajectory(
        name="recorded",
        manoeuvre="recorded",
        times_s=clip.times_s,
        world_from_ego=_moved(
            _without_gaps(clip.times_s, log.world_from_ego, log.known if log.ego_known is None else log.ego_known), -origin
        ),
        length_m=log.body.length_m,
        width_m=log.body.width_m,
        accepted=True,
        reason="",
        checks=TRAJECTORY_CHECKS.empty_table(),
    )
    road_map = replace(log.road_map, xyz=log.road_map.xyz - origin)
    return clip, path, tracks, trajectory, road_map, _lidar(log.sweeps, -origin), _truth(tracks, path)


def pick_frames(times_s: Sequence[float], selection: LogSelection, name: str) -> list[int]:
    """Return the frames that a selection keeps, by their times in seconds from the first.

    Raises:
        WorldlineError: if fewer than two are kept.
    """
    picker = FramePicker(selection, selection.frames_per_second)
    kept = [index for index, time_s in enumerate(times_s) if picker.take(time_s)]
    if len(kept) < 2:
        raise WorldlineError(
            f"{name}: {len(kept)} of {len(times_s)} frames lie in the chosen span and a clip needs at least 2: "
            "check start_s, end_s, max_frames and frames_per_second"
        )
    return kept


def read_frames(
    source: Source,
    names: Sequence[str],
    max_side: int | None,
    progress: Progress,
    repair: Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W 3"]] | None = None,
) -> tuple[Video, tuple[int, int]]:
    """Return images of one size as a video no larger than `max_side`, and their own width and height in pixels.

    Args:
        source: holds the images.
        names: of the images, in order.
        max_side: longer side of the frames in pixels; None keeps the images as they are.
        progress: told of every image.
        repair: what is done to each image at its own size, such as taking out the lens.

    Raises:
        WorldlineError: if an image cannot be read or sizes differ.
    """
    frames: list[np.ndarray] = []
    original = size = (0, 0)
    for index, name in enumerate(names):
        picture = read_picture(source.files[name], f"{source.name}/{name}")
        if index == 0:
            original = (picture.shape[1], picture.shape[0])
            size = fitted_size(*original, max_side)
        elif picture.shape[1::-1] != original:
            raise WorldlineError(f"{source.name}/{name} differs in size from {names[0]}: all frames of a log must have one size")
        keep_frame(frames, resize(repair(picture) if repair else picture, *size), source.name)
        progress(index + 1, len(names), "frames")
    return stack_frames(frames), original


def without_lens(matrix: Float64[np.ndarray, "3 3"], distortion: Sequence[float]) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what takes an image of a lens (OpenCV's k1, k2, p1, p2, k3) to that of a pinhole of the same matrix, if needed."""
    if not any(distortion):
        return None
    centred = matrix - [[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]  # OpenCV counts from pixel centres
    return lambda picture: np.asarray(cv2.undistort(picture, centred, np.array(distortion, float)))


def height_over_road(
    sweeps: Iterable[tuple[Float64[np.ndarray, "N 3"], Float64[np.ndarray, "3"]]],
) -> float | None:
    """Return how far over the road a camera is in the median of some sweeps; None where none shows the road.

    The road is the plane through the points within 10 m that form the densest layer 1 to 3.5 m below the camera.

    Args:
        sweeps: points in a world with z up, in metres, and where the camera was.
    """
    heights = []
    for points, camera in sweeps:
        local = points - camera
        near = local[(np.hypot(local[:, 0], local[:, 1]) < 10.0) & (local[:, 2] < -1.0) & (local[:, 2] > -3.5)]
        if len(near) < 50:
            continue
        counts, edges = np.histogram(near[:, 2], np.arange(-3.5, -0.99, 0.1))
        plane = np.array([0.0, 0.0, edges[counts.argmax()] + 0.05])
        for reach in (0.2, 0.1, 0.1):
            layer = near[np.abs(near[:, 2] - near[:, :2] @ plane[:2] - plane[2]) < reach]
            plane = np.linalg.lstsq(np.column_stack([layer[:, :2], np.ones(len(layer))]), layer[:, 2], rcond=None)[0]
        heights.append(-plane[2])
    return float(np.median(heights)) if heights else None


def read_points(path: Path, shown: str, columns: int) -> Float32[np.ndarray, "N C"]:
    """Return the rows of a file of float32 numbers, `columns` a row; rows with a number that is none are left out.

    Raises:
        WorldlineError: if the file is no whole number of rows.
    """
    numbers = np.frombuffer(path.read_bytes(), np.uint8)
    if len(numbers) % (4 * columns):
        raise WorldlineError(
            f"{shown} is no whole number of rows of {columns} float32 numbers ({len(numbers)} bytes): copy it again"
        )
    rows = numbers.view("<f4").reshape(-1, columns)
    return rows[np.isfinite(rows).all(1)]


def road_map(elements: Iterable[tuple[str, np.ndarray]], name: str) -> RoadMap:
    """Return a map of lines (kind, points `[n, 3]`).

    Raises:
        WorldlineError: if a kind is unknown, a line has too few points or a coordinate is no number; `name` is the file's.
    """
    rows, points, count = [], [], 0
    for number, (kind, xyz) in enumerate(elements):
        if kind not in MAP_KINDS:
            raise WorldlineError(f"{name}: element {number} is of kind {kind!r}: give one of {', '.join(MAP_KINDS)}")
        least = 3 if kind == "drivable" else 2
        if xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) < least or not np.isfinite(xyz).all():
            raise WorldlineError(f"{name}: element {number} ({kind}) needs at least {least} points of three finite metres each")
        rows.append({"element_id": number, "kind": kind, "first_point": count, "points": len(xyz)})
        points.append(xyz.astype(np.float64))
        count += len(xyz)
    return RoadMap(rows_to_table(MAP_ELEMENTS, rows), np.concatenate(points) if points else np.zeros((0, 3)))


def read_map(source: Source, name: str) -> RoadMap:
    """Return the map in a JSON file: a list of elements with a `kind` and `points`, each of two or three metres (z is 0 then).

    Raises:
        WorldlineError: if the file is no such list.
    """
    shown = f"{source.name}/{name}"
    try:
        elements = [(str(row["kind"]), np.array(row["points"], float)) for row in json.loads(source.files[name].read_bytes())]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WorldlineError(f'{shown} must be a JSON list of {{"kind": ..., "points": [[x, y, z], ...]}} ({error!r})') from error
    flat = [(kind, np.pad(xyz, ((0, 0), (0, 1))) if xyz.ndim == 2 and xyz.shape[1] == 2 else xyz) for kind, xyz in elements]
    return road_map(flat, shown)


def outside_body(points: Float64[np.ndarray, "N 3"], world_from_ego: Float64[np.ndarray, "4 4"], body: EgoBody) -> np.ndarray:
    """Return which points do not lie on the recording vehicle itself: outside its footprint and 0.3 m around it."""
    local = (points - world_from_ego[:3, 3]) @ world_from_ego[:3, :3]
    return (np.abs(local[:, 0]) > body.length_m / 2 + 0.3) | (np.abs(local[:, 1]) > body.width_m / 2 + 0.3)


def ego_under_camera(
    world_from_camera: Float64[np.ndarray, "T 4 4"], height_m: float, camera_forward_m: float
) -> Float64[np.ndarray, "T 4 4"]:
    """Return the poses of an upright vehicle from those of a camera that looks straight ahead.

    Its x is the camera's viewing direction in the ground plane, its z is up, its origin lies `height_m` below the camera and
    `camera_forward_m` behind it.
    """
    ahead = world_from_camera[:, :2, 2]
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-12)
    poses = np.tile(np.eye(4), (len(ahead), 1, 1))
    poses[:, :2, 0] = ahead
    poses[:, :2, 1] = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
    poses[:, :3, 3] = world_from_camera[:, :3, 3]
    poses[:, :2, 3] -= camera_forward_m * ahead
    poses[:, 2, 3] -= height_m
    return poses


def no_boxes() -> AnnotatedBoxes:
    """Return the boxes of a log that has none."""
    words = pa.array([], pa.string())
    return AnnotatedBoxes(words, words, np.zeros(0, np.int64), np.zeros((0, 3)), "bottom")


def _cropped(clip: Clip) -> Clip:
    """Return a clip whose sides are multiples of 16 pixels: its middle; one that is smaller than that stays as it is."""
    width, height = (side - side % SIDE_MULTIPLE or side for side in clip.size)
    if (width, height) == clip.size or clip.intrinsics is None:
        return clip
    left, top = (clip.size[0] - width) // 2, (clip.size[1] - height) // 2
    frames = clip.frames.array()[:, top : top + height, left : left + width]
    return replace(
        clip,
        frames=Video.from_array(np.ascontiguousarray(frames)),
        intrinsics=clip.intrinsics - [[0, 0, left], [0, 0, top], [0, 0, 0]],
        provenance={**clip.provenance, "cut_left_px": left, "cut_top_px": top},
    )


def _lidar(sweeps: Sequence[Sweep], offset: np.ndarray) -> LidarSweeps:
    """Return the sweeps in the order of their times, moved."""
    ordered = sorted(sweeps, key=lambda sweep: sweep.time_s)
    if not ordered:
        return LidarSweeps.none()
    return LidarSweeps(
        times_s=np.array([sweep.time_s for sweep in ordered]),
        origins=np.array([sweep.origin for sweep in ordered]) + offset,
        xyz=np.concatenate([sweep.points + offset for sweep in ordered]).astype(np.float32),
        sweep=np.repeat(np.arange(len(ordered), dtype=np.int32), [len(sweep.points) for sweep in ordered]),
    )


def _moved(poses: np.ndarray, offset: np.ndarray) -> np.ndarray:
    moved = poses.copy()
    moved[:, :3, 3] += offset
    return moved


def _without_gaps(times_s: np.ndarray, poses: np.ndarray, known: np.ndarray) -> np.ndarray:
    instants = times_s[known]
    return poses_at(instants, poses[known], np.clip(times_s, instants[0], instants[-1]), np.inf)[0]


def _in_kept_frames(boxes: AnnotatedBoxes, kept: Sequence[int], offset: np.ndarray) -> AnnotatedBoxes:
    """Return the boxes of kept frames alone, moved, with their frames counted among the kept ones."""
    kept_frames = np.asarray(kept)
    place = np.minimum(np.searchsorted(kept_frames, boxes.frame), len(kept_frames) - 1)
    rows = np.flatnonzero(kept_frames[place] == boxes.frame)

    def chosen(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return replace(
        boxes,
        source_id=boxes.source_id.take(pa.array(rows)),
        source_class=boxes.source_class.take(pa.array(rows)),
        frame=place[rows],
        position=boxes.position[rows] + offset,
        size=chosen(boxes.size),
        yaw_rad=chosen(boxes.yaw_rad),
        boxes_px=chosen(boxes.boxes_px),
        moving=chosen(boxes.moving),
        covariance=chosen(boxes.covariance),
        dropped={name: mask[rows] for name, mask in boxes.dropped.items()},
    )


def _truth(tracks: Tracks, path: CameraPath) -> Truth:
    samples = tracks.samples
    track, frame = samples["track_id"].to_numpy(), samples["frame"].to_numpy()
    names = dict(zip(tracks.objects["track_id"].to_pylist(), tracks.objects["class_name"].to_pylist(), strict=True))
    columns: dict[str, Any] = {name: samples[name].combine_chunks() for name in TRUTH_BOXES.names if name in samples.column_names}
    columns |= {"class_name": [names[item] for item in track.tolist()], "moving": _moving(tracks, track, frame)}
    return Truth(
        available=True,
        world_from_camera=path.world_from_camera,
        intrinsics=path.intrinsics,
        boxes=make_table(TRUTH_BOXES, columns),
        annotated=np.isin(np.arange(len(path.times_s)), frame),
    )


def _moving(tracks: Tracks, track: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return for each sample whether the object moves: by what it covers around the frame, unless the source says it stands.

    The source's word that it moves counts only where nothing can be covered: it is often given for a whole track.
    """
    motion = tracks.annotated_motion.to_pylist() if tracks.annotated_motion is not None else []
    told = {(row["track_id"], row["frame"]): row["moving"] for row in motion}
    times = tracks.samples["time_s"].to_numpy()
    place = np.stack([tracks.samples[axis].to_numpy() for axis in "xy"], -1)
    moving = np.zeros(len(track), bool)
    for item in np.unique(track):
        rows = np.flatnonzero(track == item)
        first = np.searchsorted(times[rows], times[rows] - _MOTION_WINDOW_S - 1e-3)
        last = np.searchsorted(times[rows], times[rows] + _MOTION_WINDOW_S + 1e-3, side="right") - 1
        covered = np.linalg.norm(place[rows[last]] - place[rows[first]], axis=1)
        word = [told.get((item, number)) for number in frame[rows].tolist()]
        shifted = covered >= _MOVING_MPS * (times[rows[last]] - times[rows[first]])
        moving[rows] = np.where(last > first, shifted, [answer is True for answer in word])
        moving[rows] &= [answer is not False for answer in word]
    return moving
