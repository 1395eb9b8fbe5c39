"""Closed-form motions as tracks, for the tests of labels."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, TRUTH_BOXES, Tracks, Truth

WIDTH, HEIGHT, FOCAL = 960, 540, 500.0
# Camera axes (right, down, forward) of a camera that looks along world x, as columns in the world.
LOOKING_ALONG_X = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

Motion = Callable[[np.ndarray], np.ndarray]


def camera_path(
    times: np.ndarray, speed: float = 0.0, scale_source: str = "given", scale_sigma: float = 0.0, **other
) -> CameraPath:
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = LOOKING_ALONG_X
    poses[:, 0, 3] = speed * times
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    values = {
        "verdict": "moving" if speed else "static",
        "gravity_source": "given",
        "registered": np.ones(len(times), bool),
        "world_from_camera": poses,
    } | other
    return CameraPath(
        times_s=times,
        intrinsics=intrinsics,
        distortion=np.zeros(4),
        width=WIDTH,
        height=HEIGHT,
        scale_source=scale_source,
        scale_sigma=scale_sigma,
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.0,
        **values,
    )


def boxes_around(path: CameraPath, frames: np.ndarray, places: np.ndarray, height: float = 1.5) -> np.ndarray:
    """Square boxes that stand on the projected places."""
    poses = path.world_from_camera[frames]
    seen = np.einsum("mji,mj->mi", poses[:, :3, :3], places - poses[:, :3, 3])
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = seen @ path.intrinsics.T
        u, v = centre[:, 0] / seen[:, 2], centre[:, 1] / seen[:, 2]
        size = FOCAL * height / seen[:, 2]
    box = np.stack([u - size / 2, v - size, u + size / 2, v], -1)
    return np.where((seen[:, 2:] > 1) & np.isfinite(box), box, np.nan)


def tracks_of(
    path: CameraPath,
    motions: dict[int, Motion],
    classes: dict[int, str] | None = None,
    colours: dict[int, str] | None = None,
    noise: float = 0.0,
    stated: float | None = None,
    keep: Callable[[np.ndarray], np.ndarray] = lambda times: np.ones(len(times), bool),
    located: bool = True,
    origin: str = "boxes",
    seed: int = 0,
    boxes: dict[int, Motion] | None = None,
    height: float = 1.5,
) -> Tracks:
    generator = np.random.default_rng(seed)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in TRACK_SAMPLES.names}
    for identity in sorted(motions):
        frames = np.flatnonzero(keep(path.times_s))
        times = path.times_s[frames]
        true = motions[identity](times)
        place = true + noise * generator.standard_normal(true.shape)
        sigma = max(noise if stated is None else stated, 1e-3)
        box = boxes_around(path, frames, (boxes or motions)[identity](times), height)
        values = {
            "track_id": np.full(len(times), identity),
            "frame": frames,
            "time_s": times,
            "range": np.linalg.norm(true - path.world_from_camera[frames, :3, 3], axis=1),
            "visible": np.ones(len(times)),
            "touches_border": np.zeros(len(times), bool),
        }
        values |= {name: place[:, axis] if located else np.full(len(times), np.nan) for axis, name in enumerate("xyz")}
        values |= {name: np.full(len(times), sigma**2) for name in ("cov_xx", "cov_yy", "cov_zz")} | {
            "cov_xy": np.zeros(len(times))
        }
        values |= {name: np.full(len(times), np.nan) for name in ("length", "width", "height", "yaw_rad")}
        values |= {name: box[:, axis] for axis, name in enumerate(("x0_px", "y0_px", "x1_px", "y1_px"))}
        for name, value in values.items():
            columns[name].append(value)
    merged = {name: pa.array(np.concatenate(values), from_pandas=True) if values else [] for name, values in columns.items()}
    samples = make_table(TRACK_SAMPLES, merged)
    count = len(motions)
    times = path.times_s[keep(path.times_s)]
    objects = make_table(
        TRACK_OBJECTS,
        {
            "track_id": sorted(motions),
            "class_name": [(classes or {}).get(identity, "car") for identity in sorted(motions)],
            "colour": [(colours or {}).get(identity, "") for identity in sorted(motions)],
            "first_s": [times[0]] * count,
            "last_s": [times[-1]] * count,
            "samples": [len(times)] * count,
        },
    )
    return Tracks(samples, objects, origin, path.scale_source, path.scale_sigma, path.gravity_source)


def truth_of(path: CameraPath, motions: dict[int, Motion], moving: dict[int, bool]) -> Truth:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in TRUTH_BOXES.names}
    frames = np.arange(len(path.times_s))
    for identity in sorted(motions):
        place = motions[identity](path.times_s)
        box = boxes_around(path, frames, place)
        columns["track_id"].append(np.full(len(frames), identity))
        columns["frame"].append(frames)
        columns["time_s"].append(path.times_s)
        columns["class_name"].append(np.full(len(frames), "car"))
        columns["moving"].append(np.full(len(frames), moving[identity]))
        for axis, name in enumerate("xyz"):
            columns[name].append(place[:, axis])
        for name in ("length", "width", "height", "yaw_rad"):
            columns[name].append(np.ones(len(frames)))
        for axis, name in enumerate(("x0_px", "y0_px", "x1_px", "y1_px")):
            columns[name].append(box[:, axis])
    boxes = make_table(
        TRUTH_BOXES, {name: pa.array(np.concatenate(values), from_pandas=True) for name, values in columns.items()}
    )
    return Truth(True, path.world_from_camera, path.intrinsics, boxes, np.ones(len(frames), bool))


def straight(start: tuple[float, float], velocity: tuple[float, float]) -> Motion:
    return lambda times: np.stack([start[0] + velocity[0] * times, start[1] + velocity[1] * times, 0 * times], -1)


def right_turn(start: tuple[float, float], speed: float, begin_s: float, end_s: float, angle: float = np.pi / 2) -> Motion:
    """Heads along world x, then turns clockwise seen from above by `angle`, then goes straight on."""

    def motion(times: np.ndarray) -> np.ndarray:
        fine = np.arange(0, times.max() + 0.011, 0.005)
        heading = -angle * np.clip((fine - begin_s) / (end_s - begin_s), 0, 1)
        steps = speed * 0.005 * np.stack([np.cos(heading), np.sin(heading)], -1)
        place = np.array(start) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)[:-1]])
        return np.stack([*(np.interp(times, fine, place[:, axis]) for axis in range(2)), 0 * times], -1)

    return motion


def stop_and_go(start: tuple[float, float], speed: float, stop_s: float, go_s: float) -> Motion:
    """Drives along world x, brakes to a stop within a second before `stop_s`, and pulls away within a second after `go_s`."""

    def motion(times: np.ndarray) -> np.ndarray:
        fine = np.arange(0, times.max() + 0.011, 0.005)
        share = np.interp(fine, [stop_s - 1, stop_s, go_s, go_s + 1], [1, 0, 0, 1])
        gone = np.concatenate([[0], np.cumsum(speed * share * 0.005)[:-1]])
        return np.stack([start[0] + np.interp(times, fine, gone), start[1] + 0 * times, 0 * times], -1)

    return motion
