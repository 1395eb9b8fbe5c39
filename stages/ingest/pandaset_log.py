"""PandaSet scenes as driving logs: the front camera, its path, the boxes, the lidar, and the road as the lidar's classes tell it.

PandaSet's files give no pose of the car itself that says where its wheels stand. The car's pose is derived from the front
camera's: it heads where the camera looks (in the ground plane), stands upright, and its ground lies under it as the lidar
measured it. Scenes have no map. Where the sweeps carry PandaSet's point classes, the drivable area is where points of road
lie, and lane lines are straight pieces through points of their paint; otherwise the map is empty.

Sweeps are read from `lidar/NN.npz` (arrays only, no pickles): `xyz_cm` int16 or `xyz` float, in PandaSet's world, and where
given `sensor` (0 the spinning lidar, 1 the second, forward one), `semseg` (class numbers of the devkit) and `origin`.
"""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from schemas.clips import Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.contract import Progress, stage
from stages.ingest.driving_log import (
    DrivingLog,
    EgoBody,
    LogSelection,
    RecordedLog,
    Sweep,
    assemble_log,
    ego_under_camera,
    height_over_road,
    no_boxes,
    outside_body,
    pick_frames,
    road_map,
)
from stages.ingest.pandaset import PandasetConfig, ingest_pandaset, nanoseconds, read_json
from stages.ingest.pandaset_tracks import CUBOIDS, annotated_cuboids

CAMERA = "front_camera"
_SWEEP = re.compile(r"lidar/(\d+)\.npz")
# Classes of PandaSet's points: smoke, exhaust, spray and reflections are no surfaces; road and what is painted on it.
_NO_SURFACE, _ROAD, _LANE_PAINT = (1, 2, 3, 4), (7, 8, 9, 10), 8
_USUAL_HEIGHT_M = 2.07
_CELL_M, _CLOSED_M, _AROUND_M = 0.25, 2.0, 60.0
_TILE_M, _PAINT_GAP_M, _PAINT_WIDTH_M, _SHORTEST_M = 4.0, 0.7, 0.15, 0.8


@dataclass(frozen=True, kw_only=True)
class PandasetLogConfig(LogSelection):
    """How a PandaSet scene is read as a driving log, beside `LogSelection`; max_side=256 cuts nothing of its 16:9.

    Attributes:
        camera_height_m: height of the front camera over the road; None measures it by the lidar (2.07 m where there is none).
        camera_forward_m: how far the camera stands before the car's middle.
        length_m, width_m: of the car (a Chrysler Pacifica).
        second_lidar: also take the points of the forward lidar, which sees moving things up to 50 ms earlier or later.
    """

    camera_height_m: PositiveFloat | None = None
    camera_forward_m: float = 0.9
    length_m: PositiveFloat = 5.18
    width_m: PositiveFloat = 2.02
    second_lidar: bool = False


@dataclass(frozen=True)
class _Points:
    """The points of a frame's sweep in PandaSet's world, where the sensor stood if that is told, and what is road or paint."""

    frame: int
    origin: np.ndarray | None
    points: np.ndarray
    road: np.ndarray
    paint: np.ndarray


@stage("ingest.pandaset_log", version=2)
def ingest_pandaset_log(source: Source, config: PandasetLogConfig, *, seed: int, progress: Progress) -> DrivingLog:
    """Read a PandaSet scene as a driving log.

    A sweep counts as measured at the time of the frame of its number: the spinning lidar passes the front camera's view within
    9 ms of the exposure. Where a file tells no `origin`, that of the sweep is taken to be the camera's place at that time,
    which is about a metre from the lidar. Points on the car itself, of smoke, spray and reflections are left out.

    Raises:
        WorldlineError: if a file is missing or does not parse, or fewer than two frames are kept.
    """
    body = EgoBody(config.length_m, config.width_m)
    clip, truth = ingest_pandaset(
        source,
        PandasetConfig(
            camera=CAMERA,
            start_s=config.start_s,
            end_s=config.end_s,
            max_frames=config.max_frames,
            max_side=config.max_side,
            frames_per_second=config.frames_per_second,
            require_boxes=False,
        ),
        seed=seed,
        progress=progress,
    )
    clock = nanoseconds(read_json(source, f"camera/{CAMERA}/timestamps.json"), f"camera/{CAMERA}/timestamps.json")
    kept = pick_frames([(instant - clock[0]) / 1e9 for instant in clock], config, source.name)
    poses = truth.world_from_camera
    sweeps = [
        _read_sweep(source, name, number, config.second_lidar)
        for number, name in _sweep_files(source)
        if kept[0] <= number <= kept[-1]
    ]
    seconds = [(clock[sweep.frame] - clock[kept[0]]) / 1e9 for sweep in sweeps]
    nearest = [int(np.argmin(np.abs(clip.times_s - time_s))) for time_s in seconds]
    height = config.camera_height_m or height_over_road(
        (sweep.points, poses[frame, :3, 3]) for sweep, frame in zip(sweeps, nearest, strict=True)
    )
    height = height or _USUAL_HEIGHT_M
    world_from_ego = ego_under_camera(poses, height, config.camera_forward_m)
    boxes = annotated_cuboids(source) if CUBOIDS in source.files else no_boxes()
    log = RecordedLog(
        clip=clip,
        world_from_camera=poses,
        known=np.ones(len(poses), bool),
        world_from_ego=world_from_ego,
        boxes=boxes,
        kept=kept,
        body=body,
        road_map=road_map(
            [*_drivable_area(sweeps, poses[:, :3, 3], world_from_ego), *_lane_lines(sweeps, poses[:, :3, 3])], source.name
        ),
        sweeps=[
            Sweep(
                time_s,
                poses[frame, :3, 3] if sweep.origin is None else sweep.origin,
                sweep.points[outside_body(sweep.points, world_from_ego[frame], body)],
            )
            for sweep, time_s, frame in zip(sweeps, seconds, nearest, strict=True)
        ],
        provenance={
            "format": "pandaset_log",
            "log": source.name,
            "source": content_digest(source),
            "camera": CAMERA,
            "time_source": f"camera/{CAMERA}/timestamps.json",
            "epoch_ns": clip.epoch_ns,
            "camera_height_m": height,
        },
    )
    return assemble_log(log)


def _sweep_files(source: Source) -> list[tuple[int, str]]:
    """Return the sweeps of a scene as (frame, file), in order."""
    found = ((_SWEEP.fullmatch(name), name) for name in source.files)
    return sorted((int(match[1]), name) for match, name in found if match)


def _read_sweep(source: Source, name: str, frame: int, second_lidar: bool) -> _Points:
    """Return the points of a file that lie on surfaces.

    Raises:
        WorldlineError: if the file is no archive of arrays or its arrays do not fit each other.
    """
    shown = f"{source.name}/{name}"
    try:
        with np.load(source.files[name], allow_pickle=False) as arrays:
            points = arrays["xyz_cm"] / 100.0 if "xyz_cm" in arrays else arrays["xyz"].astype(float)
            classes = arrays["semseg"] if "semseg" in arrays else np.zeros(len(points), np.uint8)
            sensor = arrays["sensor"] if "sensor" in arrays else np.zeros(len(points), np.uint8)
            origin = arrays["origin"].astype(float) if "origin" in arrays else None
        if points.ndim != 2 or points.shape[1] != 3 or not len(points) == len(classes) == len(sensor):
            raise ValueError(f"points {list(points.shape)}, {len(classes)} classes, {len(sensor)} sensors")
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise WorldlineError(
            f"{shown} must hold xyz_cm or xyz [N, 3] and may hold semseg [N], sensor [N] and origin [3] ({error!r})"
        ) from error
    used = np.isfinite(points).all(1) & ~np.isin(classes, _NO_SURFACE) & (second_lidar | (sensor == 0))
    return _Points(frame, origin, points[used], np.isin(classes[used], _ROAD), classes[used] == _LANE_PAINT)


def _drivable_area(
    sweeps: Sequence[_Points], cameras: Float64[np.ndarray, "T 3"], world_from_ego: Float64[np.ndarray, "T 4 4"]
) -> list[tuple[str, np.ndarray]]:
    """Return where points of road lie, as outlines without holes (what stands on the road hides the road under it).

    Points within 60 m of the path fall into cells of 0.25 m; gaps up to 2 m are closed; of the areas found those count that
    the car drives on. An island of a kerb amid the road counts as road.
    """
    road = _near_path([sweep.points[sweep.road] for sweep in sweeps], cameras)
    if not len(road):
        return []
    margin = int(_CLOSED_M / _CELL_M) + 2
    corner = road[:, :2].min(0) - margin * _CELL_M
    cells = ((road[:, :2] - corner) / _CELL_M).astype(int)
    grid = np.zeros(cells.max(0)[::-1] + margin + 1, np.uint8)
    np.add.at(grid, (cells[:, 1], cells[:, 0]), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(_CLOSED_M / _CELL_M) + 1,) * 2)
    closed = cv2.morphologyEx((grid > 0).astype(np.uint8), cv2.MORPH_CLOSE, disc)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    driven = (world_from_ego[:, :2, 3] - corner) / _CELL_M
    heights = cKDTree(road[:, :2])
    elements = []
    for outline in outlines:
        if not any(cv2.pointPolygonTest(outline, place, False) >= 0 for place in (driven - 0.5).tolist()):
            continue
        corners = cv2.approxPolyDP(outline, 1.0, True)[:, 0]
        places = corner + (corners + 0.5) * _CELL_M
        z = np.median(road[heights.query(places, k=min(10, len(road)))[1].reshape(len(places), -1), 2], axis=1)
        elements.append(("drivable", np.column_stack([places, z])))
    return [item for item in elements if len(item[1]) >= 3]


def _lane_lines(sweeps: Sequence[_Points], cameras: Float64[np.ndarray, "T 3"]) -> list[tuple[str, np.ndarray]]:
    """Return straight pieces of lane lines: a dash is one, a long line one in every tile of 4 m that it crosses.

    Points of paint within 60 m of the path are thinned to 0.1 m; in every tile those within 0.7 m of each other hang together.
    A group is a piece of a line if it is at least 0.8 m long and its points lie within 0.15 m (one sigma) of their principal
    axis; others (arrows, where lines meet) are left out.
    """
    paint = _near_path([sweep.points[sweep.paint] for sweep in sweeps], cameras)
    if not len(paint):
        return []
    paint = paint[np.unique(np.round(paint / 0.1).astype(int), axis=0, return_index=True)[1]]
    pairs = cKDTree(paint).query_pairs(_PAINT_GAP_M, output_type="ndarray")
    tile = np.floor(paint[:, :2] / _TILE_M).astype(int)
    pairs = pairs[(tile[pairs[:, 0]] == tile[pairs[:, 1]]).all(1)]
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(paint), len(paint)))
    _, group = connected_components(links, directed=False)
    order = np.argsort(group, kind="stable")
    elements = []
    for own in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        middle = paint[own].mean(0)
        along = np.linalg.svd(paint[own] - middle)[2][0] if len(own) > 2 else np.zeros(3)
        reach = (paint[own] - middle) @ along
        off = np.linalg.norm(paint[own] - middle - reach[:, None] * along, axis=1)
        if np.ptp(reach) >= _SHORTEST_M and np.sqrt(np.mean(off**2)) <= _PAINT_WIDTH_M:
            elements.append(("lane_line", middle + np.array([[reach.min()], [reach.max()]]) * along))
    return elements


def _near_path(parts: Sequence[np.ndarray], cameras: Float64[np.ndarray, "T 3"]) -> np.ndarray:
    """Return the points within 60 m of the path."""
    points = np.concatenate(parts) if parts else np.zeros((0, 3))
    if not len(points):
        return points
    distance = cKDTree(cameras[:, :2]).query(points[:, :2], distance_upper_bound=_AROUND_M)[0]
    return points[distance < _AROUND_M]
