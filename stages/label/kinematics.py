"""Kinematics of the camera and of every object on a time grid and in windows, each quantity with a 90 % interval.

Positions are smoothed before they are differentiated (`worldline.kinematics.smoother`), and every quantity is computed
on draws of the whole path: path length is the sum of steps on the stated grid (ST-VLM, arXiv 2503.19355), clock
direction the signed angle between the window's first and last step. One draw of the scale multiplies all tracks alike,
because the error of the scale is common to them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import PositiveFloat, PositiveInt
from scipy.special import ndtri

from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.labels import EGO_TRACK_ID, KINEMATIC_STATES, KINEMATIC_WINDOWS, Kinematics
from schemas.tracks import Tracks
from stages.contract import Progress, stage
from stages.label.image_motion import image_motion_word, image_rates
from stages.label.plausibility import PlausibilityRules, plausibility_rules
from stages.label.window_rules import CAR_LIMITS, CLASS_LIMITS, WindowRules, sample_rules, visible_share, window_samples
from worldline.kinematics.definitions import (
    camera_direction_word,
    clock_edge_distance,
    clock_hour,
    clockwise_angle,
    cumulative_path,
    turn_word,
    wrap_angle,
)
from worldline.kinematics.smoother import draw_paths, sampling_interval, stated_noise, unknown_noise, white_level, white_share
from worldline.kinematics.words import choose

QUANTILES = (0.05, 0.5, 0.95)
_ELEMENTS_AT_ONCE = 24_000_000
_FLYING = frozenset({"airplane", "ball", "bird", "drone", "frisbee", "helicopter", "kite", "sports ball"})
_LEAST_SPAN = 16  # grid steps: tracks that are shorter are measured with those of this length


@dataclass(frozen=True)
class KinematicsConfig:
    """How kinematics are measured.

    Attributes:
        window_seconds: length of the windows that labels tell of (a shorter clip is one window).
        stride_seconds: from one window's start to the next.
        grid_seconds: spacing of the grid on which path length is summed (ST-VLM: 0.5 s).
        draws: Monte Carlo draws per track.
        drift_seconds: correlation time of the part of the stated position error that is not white noise; tracks that state
            no covariance have their noise, drift and its correlation time read off their own samples.
        camera_sigma_m: standard deviation of the camera's own position, before its jitter is measured.
        moving_mps, static_mps: above the first for a second is moving, below the second static, between undecided.
        min_displacement_m: and moving needs to get this far from where the window began, or 3 sigma if that is more.
        nominal_range_m: without a scale, these dead bands assume that the median object is this far away.
        max_scale_sigma: lengths are told in metres up to this relative error of the scale.
        clock_margin_deg: no clock direction is told closer to the border between two hours, or within 2 sigma.
        image_threshold: change of bearing (rad) or of log size in a window that counts as image motion.
        rules: limits of the rule filter.
        plausibility: what boxes on the ground cannot do, of estimated tracks in metres that know what is up.
    """

    window_seconds: PositiveFloat = 2.0
    stride_seconds: PositiveFloat = 1.0
    grid_seconds: PositiveFloat = 0.5
    draws: PositiveInt = 96
    drift_seconds: float = 3.0
    camera_sigma_m: float = 0.02
    moving_mps: float = 0.5
    static_mps: float = 0.25
    min_displacement_m: float = 1.0
    nominal_range_m: float = 20.0
    max_scale_sigma: float = 0.2
    clock_margin_deg: float = 3.0
    image_threshold: float = 0.05
    rules: WindowRules = field(default_factory=WindowRules)
    plausibility: PlausibilityRules = field(default_factory=PlausibilityRules)


@dataclass(frozen=True)
class _Problem:
    """What is known before drawing: of the whole clip (row 0 is the camera) but its samples, or of some tracks in their time."""

    ids: np.ndarray  # [N] track of each row
    row: np.ndarray  # [M] row of each sample
    columns: dict[str, np.ndarray]  # [M] each
    span: np.ndarray  # [N, 2] seconds of first and last sample; infinity and minus infinity without samples
    grid: np.ndarray  # [G] seconds
    starts: np.ndarray  # [W] grid index of each window's start
    steps: int  # grid steps per window
    windows: np.ndarray  # [N, 2] half-open range of the windows that each track is seen in some part of
    unit: float  # length that plays the part of a metre
    gravity: bool
    forward: np.ndarray  # [G, 3] viewing direction of the camera in the world
    right: np.ndarray  # [G, 3]
    limits: np.ndarray  # [N, 2] largest plausible speed and acceleration
    on_ground: np.ndarray  # [N] objects that the ground carries, where up is known


@stage("label.kinematics", version=6)
def estimate_kinematics(
    tracks: Tracks, path: CameraPath, config: KinematicsConfig, *, seed: int, progress: Progress
) -> Kinematics:
    """Measure how the camera and every object move.

    Args:
        tracks: object tracks; objects without world positions get image motion and visibility only.
        path: the camera path of the same clip.
        config: windows, thresholds and draws.
        seed: of the draws; those of a track depend on the seed and the track's id alone.
        progress: called per block of tracks.

    Returns:
        States on the grid and windows, with quantiles that hold position and scale uncertainty.
    """
    problem, samples = _set_up(tracks, path, config)
    count = samples.placed
    scale = _scale_draws(tracks.scale_sigma, config.draws, seed)
    states: list[pa.Table] = []
    windows: list[pa.Table] = []
    camera, done = np.full((len(problem.grid), 6), np.nan), 0
    for rows in _blocks(problem, samples, np.flatnonzero(count >= 4), config.draws):
        part, first = _part(problem, samples, rows)
        draws = _draw(part, config, seed)
        if part.ids[0] == EGO_TRACK_ID:  # it comes first and alone, and ranges of all others are measured from it
            camera = draws[0].mean(axis=0)
        state, window = _measure(part, draws, camera[first : first + len(part.grid)], scale, config)
        states.append(_states_table(state))
        windows.append(_windows_table(part, window, True, tracks, path, config))
        done += len(rows)
        progress(done, len(problem.ids), f"{len(rows)} tracks")
    for rows in _blocks(problem, samples, np.flatnonzero(count < 4), config.draws):
        part, _ = _part(problem, samples, rows)
        windows.append(_windows_table(part, _unmeasured(part, path, config), False, tracks, path, config))
        done += len(rows)
        progress(done, len(problem.ids), f"{len(rows)} tracks without positions")
    return Kinematics(
        states=_in_order(states, KINEMATIC_STATES, "time_s"),
        windows=_in_order(windows, KINEMATIC_WINDOWS, "start_s"),
        grid_s=float(config.grid_seconds),
        scale_source=tracks.scale_source,
        scale_sigma=float(tracks.scale_sigma),
        gravity_source=tracks.gravity_source,
    )


@dataclass(frozen=True)
class _Samples:
    """Where the samples of each row of the whole clip lie; the numbers themselves are taken block by block."""

    table: pa.Table  # `TRACK_SAMPLES`
    order: np.ndarray  # [M] its rows by track and time, of objects only
    bounds: np.ndarray  # [N + 1] where each row's begin and end in that order; the camera, row 0, has none there
    camera: dict[str, np.ndarray]  # the camera's own, by column
    placed: np.ndarray  # [N] how many of each row's have a place in the world

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return which of some rows each of their samples belongs to, and the samples by column."""
        lengths = self.bounds[rows + 1] - self.bounds[rows]
        row = np.repeat(np.arange(len(rows)), lengths)
        at = np.arange(len(row)) + (self.bounds[rows] - np.cumsum(lengths) + lengths)[row]
        table = self.table.take(pa.array(self.order[at]))
        columns = {name: _numbers(table[name]) for name in table.schema.names}
        if len(rows) and rows[0] == 0:
            row = np.concatenate([np.zeros(len(self.camera["time_s"]), int), row])
            columns = {name: np.concatenate([self.camera[name], values]) for name, values in columns.items()}
        return row, columns

    def counts(self) -> np.ndarray:
        """Return how many samples each row has."""
        counts = np.diff(self.bounds)
        counts[0] = len(self.camera["time_s"])
        return counts


def _set_up(tracks: Tracks, path: CameraPath, config: KinematicsConfig) -> tuple[_Problem, _Samples]:
    """Lay out grid and windows, and say what samples the camera and the objects have; `_part` fills them in."""
    names = tracks.samples.schema.names
    track, time = (_numbers(tracks.samples[name]) for name in ("track_id", "time_s"))
    object_ids = tracks.objects["track_id"].to_numpy().astype(np.int64)
    order = np.lexsort((time, track))
    order = order[np.isin(track, object_ids)[order]]
    repeated = np.zeros(len(order), bool)
    repeated[1:] = (np.diff(track[order]) == 0) & (np.diff(time[order]) <= 0)
    order = order[~repeated]
    track, time = track[order], time[order]

    times = path.times_s
    moved = path.registered & (path.verdict not in ("failed", "textureless"))
    if path.verdict in ("static", "rotation"):
        moved = np.ones(len(times), bool)
    index = np.flatnonzero(moved)
    unit = 1.0
    if tracks.scale_source == "none":
        away = _numbers(tracks.samples["range"])[order]
        median_range = np.nanmedian(away) if np.isfinite(away).any() else np.nan
        unit = median_range / config.nominal_range_m if median_range > 0 else 1.0
    centre = np.where(path.verdict == "moving", path.world_from_camera[index, :3, 3], 0.0)
    camera = {name: np.full(len(index), np.nan) for name in names}
    sigma = (config.camera_sigma_m * unit) ** 2
    camera |= {"frame": index.astype(float), "time_s": times[index], "touches_border": np.zeros(len(index))}
    camera |= {"x": centre[:, 0], "y": centre[:, 1], "z": centre[:, 2], "range": np.full(len(index), np.nan)}
    camera |= {name: np.full(len(index), sigma) for name in ("cov_xx", "cov_yy", "cov_zz")} | {"cov_xy": np.zeros(len(index))}

    ids = np.concatenate([[EGO_TRACK_ID], np.unique(object_ids)])
    row = np.searchsorted(ids, track)
    bounds = np.searchsorted(row, np.arange(len(ids) + 1))
    finite = np.isfinite(_numbers(tracks.samples["x"])[order])
    placed = np.bincount(row[finite], minlength=len(ids))
    placed[0] = np.isfinite(centre[:, 0]).sum()
    samples = _Samples(tracks.samples, order, bounds, camera, placed)
    span = np.stack([np.full(len(ids), np.inf), np.full(len(ids), -np.inf)], 1)
    np.minimum.at(span[:, 0], row, time)
    np.maximum.at(span[:, 1], row, time)
    span[0] = times[index].min(initial=np.inf), times[index].max(initial=-np.inf)

    duration = times[-1] - times[0] if len(times) else 0.0
    grid = (times[0] if len(times) else 0.0) + config.grid_seconds * np.arange(int(duration / config.grid_seconds + 1e-6) + 1)
    steps = max(1, min(round(config.window_seconds / config.grid_seconds), len(grid) - 1))
    stride = max(1, round(config.stride_seconds / config.grid_seconds))
    starts = np.arange(0, max(len(grid) - steps, 0), stride)
    first_window = np.searchsorted(grid[starts + steps], span[:, 0] - 1e-6)
    stop_window = np.searchsorted(grid[starts], span[:, 1] + 1e-6, side="right")
    windows = np.stack([first_window, np.maximum(first_window, stop_window)], 1)
    nearest = np.searchsorted((times[index][1:] + times[index][:-1]) / 2, grid)
    axes = path.world_from_camera[index[nearest], :3, :3] if len(index) else np.full((len(grid), 3, 3), np.nan)
    classes = dict(zip(tracks.objects["track_id"].to_pylist(), tracks.objects["class_name"].to_pylist(), strict=True))
    limits = np.array([CLASS_LIMITS.get(classes.get(identity, ""), CAR_LIMITS) for identity in ids.tolist()])
    gravity = tracks.gravity_source != "none"
    flying = np.array([classes.get(identity, "") in _FLYING or identity == EGO_TRACK_ID for identity in ids.tolist()])
    forward, right = axes[..., 2], axes[..., 0]
    nothing = np.zeros(0, int)
    problem = _Problem(
        ids, nothing, {}, span, grid, starts, steps, windows, unit, gravity, forward, right, limits, ~flying & gravity
    )
    return problem, samples


def _blocks(problem: _Problem, samples: _Samples, rows: np.ndarray, draws: int) -> Iterator[np.ndarray]:
    """Split tracks into blocks that fit into memory, of tracks about as long as each other and seen at about the same time.

    So the time that a block spans is at most four times the time that each of its tracks is seen (or that of `_LEAST_SPAN`),
    and work and memory follow the samples that there are, not tracks times the length of the clip. The camera comes alone.
    """
    first, stop = _grid_range(problem, rows)
    level = np.ceil(np.log2(np.maximum(stop - first, _LEAST_SPAN))).astype(int)
    place = first >> level
    level[rows == 0] = -1
    order = np.lexsort((place, level))
    cuts = np.flatnonzero(np.diff(level[order]) | np.diff(place[order])) + 1
    counts = samples.counts()
    for together in np.split(order, cuts) if len(order) else []:
        steps = stop[together].max() - first[together].min() + 2 * problem.steps
        size = counts[rows[together]].max() * 40 + draws * steps * 16
        at_once = max(1, int(_ELEMENTS_AT_ONCE // size))
        for begin in range(0, len(together), at_once):
            yield rows[np.sort(together[begin : begin + at_once])]


def _grid_range(problem: _Problem, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the half-open range of grid times at which each of some tracks is seen."""
    first = np.searchsorted(problem.grid, problem.span[rows, 0] - 1e-6)
    return first, np.maximum(first, np.searchsorted(problem.grid, problem.span[rows, 1] + 1e-6, side="right"))


def _part(problem: _Problem, samples: _Samples, rows: np.ndarray) -> tuple[_Problem, int]:
    """Return what concerns some tracks alone, in the time that they and their windows span, and where its grid begins."""
    first, stop = _grid_range(problem, rows)
    begin, end = int(first.min()), int(stop.max())
    windows = problem.windows[rows]
    seen = windows[windows[:, 1] > windows[:, 0]]
    first_window, stop_window = (int(seen[:, 0].min()), int(seen[:, 1].max())) if len(seen) else (0, 0)
    starts = problem.starts[first_window:stop_window]
    if len(starts):
        begin, end = min(begin, starts[0]), max(end, starts[-1] + problem.steps + 1)
    begin = min(begin, len(problem.grid) - 1)
    grid = slice(begin, max(end, begin + 1))
    row, columns = samples.of(rows)
    part = replace(
        problem,
        ids=problem.ids[rows],
        row=row,
        columns=columns,
        span=problem.span[rows],
        grid=problem.grid[grid],
        starts=starts - begin,
        windows=windows - first_window,
        forward=problem.forward[grid],
        right=problem.right[grid],
        limits=problem.limits[rows],
        on_ground=problem.on_ground[rows],
    )
    return part, begin


def _scale_draws(sigma: float, draws: int, seed: int) -> np.ndarray:
    """Return factors on all lengths, one per draw: evenly spaced quantiles of a log-normal, in an order of their own."""
    factors = np.exp(sigma * ndtri(np.arange(1, draws + 1) / (draws + 1)))  # where `_quantiles` looks for them
    return np.random.default_rng([seed, 0]).permutation(factors)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as float64, NaN for null."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)


def _draw(problem: _Problem, config: KinematicsConfig, seed: int) -> np.ndarray:
    """Draw positions and velocities on the grid, `[R, D, G, 6]`, NaN outside the time that each track was seen."""
    chosen = np.isfinite(problem.columns["x"])
    row = problem.row[chosen]
    time = problem.columns["time_s"][chosen]
    position = np.stack([problem.columns[name][chosen] for name in "xyz"], -1)
    xx, xy, yy, zz = (problem.columns[f"cov_{name}"][chosen] for name in ("xx", "xy", "yy", "zz"))
    count = len(problem.ids)
    floor = (1e-4 * np.fmax(np.nan_to_num(problem.columns["range"][chosen]), 10 * problem.unit)) ** 2
    states_noise = np.bincount(row, np.isfinite(xx), count) > 0  # [R] tracks that say how good their positions are
    axes = np.where(states_noise[:, None, None], _principal_axes(row, xx, xy, yy, count), _travel_axes(row, position, count))
    turned = np.concatenate([np.einsum("mij,mi->mj", axes[row], position[:, :2]), position[:, 2:]], -1)
    cosine, sine = axes[row, 0, 0], axes[row, 1, 0]
    along = cosine**2 * xx + 2 * cosine * sine * xy + sine**2 * yy
    stated = np.stack([along, xx + yy - along, zz], -1)
    stated = np.maximum(np.nan_to_num(stated), floor[:, None])
    share = white_share(row, time, turned, stated, count)[row]
    white = np.where(states_noise[row, None], share * stated, white_level(row, time, turned, count))
    white = np.maximum(white, floor[:, None])
    drift = np.where(states_noise[row, None], np.maximum(stated - white, 0.0), white)

    first = np.full(count, np.inf)
    last = np.full(count, -np.inf)
    np.minimum.at(first, row, time)
    np.maximum.at(last, row, time)
    inside = (problem.grid >= first[:, None] - 1e-6) & (problem.grid <= last[:, None] + 1e-6)
    grid_row, grid_index = np.nonzero(inside)
    all_rows = np.concatenate([row, grid_row])
    all_times = np.concatenate([time, problem.grid[grid_index]])
    order = np.lexsort((all_times, all_rows))
    place = np.arange(len(order)) - np.searchsorted(all_rows[order], np.arange(count))[all_rows[order]]
    slot = np.empty(len(order), int)
    slot[order] = place
    length = slot.max() + 1
    times = np.repeat(last[:, None], length, axis=1)
    times[all_rows, slot] = all_times
    times = np.maximum.accumulate(times, axis=1)
    observed, wanted = np.zeros((count, length), bool), np.zeros((count, length), bool)
    observed[row, slot[: len(row)]] = True
    wanted[grid_row, slot[len(row) :]] = True
    padded_values, padded_white, padded_drift = (np.zeros((count, length, 3)) for _ in range(3))
    padded_values[row, slot[: len(row)]] = turned
    padded_white[row, slot[: len(row)]] = white
    padded_drift[row, slot[: len(row)]] = drift
    change, spread = _usual_changes(problem, states_noise)
    # a generator per track: order and neighbours do not matter
    generators = [np.random.default_rng([seed, 1, identity]) for identity in problem.ids.tolist()]
    uniforms = np.stack([generator.random((1 + 3, config.draws)) for generator in generators])
    on_grid = np.empty((len(grid_row), 3, config.draws, 2))
    # to a power of two, so that tracks of about the same rate share their models
    octave = np.clip(np.round(np.log2(sampling_interval(row, time, count) / 0.1)), -6, 6)
    kinds = [(stated_noise(config.drift_seconds), states_noise)]
    kinds += [(unknown_noise(0.1 * 2.0**exponent), ~states_noise & (octave == exponent)) for exponent in np.unique(octave)]
    for noise, mine in kinds:
        if mine.any():
            on_grid[mine[grid_row]] = draw_paths(
                times[mine],
                observed[mine],
                wanted[mine],
                padded_values[mine],
                padded_white[mine],
                padded_drift[mine],
                change[mine],
                spread[mine],
                noise,
                [partial(_normals, generators[index], config.draws) for index in np.flatnonzero(mine)],
                uniforms[mine],
            )
    on_grid = on_grid.swapaxes(1, 2).swapaxes(2, 3)  # [K, D, 2, 3]
    turn = np.zeros((count, 3, 3))
    turn[:, :2, :2], turn[:, 2, 2] = axes, 1.0
    on_grid = np.einsum("kij,kdvj->kdvi", turn[grid_row], on_grid)
    result = np.full((count, config.draws, len(problem.grid), 6), np.nan)
    result[grid_row, :, grid_index] = on_grid.reshape(len(grid_row), config.draws, 6)
    return result


def _usual_changes(problem: _Problem, states_noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by what share of its speed an object's velocity changes in a second on each axis, and how unsure that is.

    A tenth along the way it goes, where known a third of that across, and upwards what roads do (their slope changes by
    half a percent): both `[R, 3]`, the second in powers of ten of the square.
    """
    change = np.tile([0.1, 0.1, 0.03], (len(problem.ids), 1))
    spread = np.ones_like(change)
    change[~states_noise, 1] = 0.03
    change[problem.on_ground, 2], spread[problem.on_ground, 2] = 0.005, 0.35
    return change, spread


def _normals(generator: np.random.Generator, draws: int, steps: int) -> np.ndarray:
    """Return the normal numbers of one track, `[steps, 3, draws, 3]`."""
    return generator.standard_normal((steps, 3, draws, 3))


def _principal_axes(row: np.ndarray, xx: np.ndarray, xy: np.ndarray, yy: np.ndarray, rows: int) -> np.ndarray:
    """Return principal axes `[rows, 2, 2]` (columns) of each track's mean horizontal covariance: along and across the ray."""
    sums = [np.bincount(row, np.nan_to_num(values), rows) for values in (xx, xy, yy)]
    angle = 0.5 * np.arctan2(2 * sums[1], sums[0] - sums[2])
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)


def _travel_axes(row: np.ndarray, position: np.ndarray, rows: int) -> np.ndarray:
    """Return axes `[rows, 2, 2]` (columns) along and across the line that best follows each track on the ground."""
    count = np.maximum(np.bincount(row, minlength=rows), 1)
    x, y = (position[:, axis] - (np.bincount(row, position[:, axis], rows) / count)[row] for axis in (0, 1))
    return _principal_axes(row, x * x, x * y, y * y, rows)


def _measure(
    problem: _Problem, draws: np.ndarray, camera: np.ndarray, scale: np.ndarray, config: KinematicsConfig
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return quantities per state and per window from the draws, each as one column over all tracks."""
    reach = max(1, round(0.5 / config.grid_seconds))
    place, velocity = draws[..., :3], draws[..., 3:].copy()
    if place.shape[2] > 2 * reach:  # the slope over half a second to both sides; at a track's ends the draw's own velocity
        slope = (place[:, :, 2 * reach :] - place[:, :, : -2 * reach]) / (2 * reach * config.grid_seconds)
        inner = velocity[:, :, reach:-reach]
        inner[...] = np.where(np.isfinite(slope), slope, inner)
    speed = np.linalg.norm(velocity, axis=-1)
    acceleration = np.full_like(speed, np.nan)
    if speed.shape[-1] > 2 * reach:
        change = speed[..., 2 * reach :] - speed[..., : -2 * reach]
        acceleration[..., reach:-reach] = change / (2 * reach * config.grid_seconds)
    factor = scale[None, :, None]
    state = _quantiles("speed", speed * factor) | _quantiles("acceleration", acceleration * factor)
    centre, mean_velocity = place.mean(1), velocity.mean(1)
    state |= {name: centre[..., axis] for axis, name in enumerate("xyz")}
    offset = centre - camera[:, :3]
    distance = np.linalg.norm(offset, axis=-1)
    is_object = (problem.ids != EGO_TRACK_ID)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        state["range"] = np.where(is_object, distance, np.nan)
        closing = -(offset * (mean_velocity - camera[:, 3:])).sum(-1) / distance
        state["closing_speed"] = np.where(is_object, closing, np.nan)
        bearing = wrap_angle(
            np.arctan2(offset[..., 1], offset[..., 0]) - np.arctan2(problem.forward[:, 1], problem.forward[:, 0])
        )
        state["bearing_rad"] = np.where(is_object & problem.gravity, bearing, np.nan)
        slow = ~(state["speed_p50"] >= config.moving_mps * problem.unit)
        heading = np.arctan2(mean_velocity[..., 1], mean_velocity[..., 0])
        state["heading_rad"] = np.where(slow | (not problem.gravity), np.nan, heading)
    state["state"] = _state_words(state, centre, problem, config)
    window = _measure_windows(problem, place, speed, state, factor, config)
    row, column = np.nonzero(np.isfinite(state["x"]))
    state = {name: values[row, column] for name, values in state.items()}
    return state | {"track_id": problem.ids[row], "time_s": problem.grid[column]}, _overlapped(problem, window)


def _overlapped(problem: _Problem, window: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return of quantities `[R, W]` those of windows that the track overlaps, with the track's id and the window's times."""
    number = np.arange(len(problem.starts))
    row, column = np.nonzero((number >= problem.windows[:, :1]) & (number < problem.windows[:, 1:]))
    starts = problem.starts[column]
    times = {"start_s": problem.grid[starts], "end_s": problem.grid[starts + problem.steps]}
    return {name: values[row, column] for name, values in window.items()} | {"track_id": problem.ids[row]} | times


def _quantiles(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the 5, 50 and 95 % quantiles over the draws (axis 1).

    Weibull's rule: of n draws the k-th has a share of k / (n + 1) below it on average. NumPy's default puts 88 % of what
    is to come between the 5 and 95 % quantiles of 96 draws.
    """
    low, middle, high = np.quantile(values, QUANTILES, axis=1, method="weibull")
    return {f"{name}_p5": low, f"{name}_p50": middle, f"{name}_p95": high}


def _state_words(state: dict[str, np.ndarray], centre: np.ndarray, problem: _Problem, config: KinematicsConfig) -> np.ndarray:
    """Decide moving, static or undecided per grid time, with hysteresis (`[R, G]`).

    A run of speeds above the static threshold is moving if it holds a second above the moving threshold and gets
    far enough from its beginning; static needs the upper bound of the speed below the moving threshold too.
    """
    speed, unit = state["speed_p50"], problem.unit
    above = np.nan_to_num(speed) > config.static_mps * unit
    fast = np.nan_to_num(speed) > config.moving_mps * unit
    need = max(1, round(1.0 / config.grid_seconds))
    long = fast[:, need:].copy() if fast.shape[1] > need else np.zeros((len(fast), 0), bool)
    for shift in range(need):
        long &= fast[:, shift : shift + long.shape[1]]
    sure = np.zeros_like(fast)
    sure[:, need:] = long
    edge = np.zeros(above.shape, bool)
    edge[:, 0] = True
    edge[:, 1:] = above[:, 1:] != above[:, :-1]
    run = np.cumsum(edge.ravel()) - 1
    begin = np.flatnonzero(edge.ravel())[run].reshape(above.shape) % above.shape[1]
    from_begin = np.linalg.norm(centre - np.take_along_axis(centre, begin[..., None], 1), axis=-1)
    gained, confirmed = np.zeros(run.max() + 1), np.zeros(run.max() + 1, bool)
    np.maximum.at(gained, run, np.nan_to_num(from_begin).ravel())
    np.logical_or.at(confirmed, run, sure.ravel())
    moving = above & (confirmed & (gained > config.min_displacement_m * unit))[run].reshape(above.shape)
    still = (speed < config.static_mps * unit) & (state["speed_p95"] < config.moving_mps * unit)
    return choose([moving, still], ["moving", "static"], "undecided")


def _measure_windows(
    problem: _Problem,
    place: np.ndarray,
    speed: np.ndarray,
    state: dict[str, np.ndarray],
    factor: np.ndarray,
    config: KinematicsConfig,
) -> dict[str, np.ndarray]:
    """Return quantities per window, `[R, W]`, from draws of the positions `[R, D, G, 3]`."""
    starts, ends = problem.starts, problem.starts + problem.steps
    duration = problem.steps * config.grid_seconds
    covered = np.isfinite(place[:, 0, :, 0])
    covered = covered[:, starts] & covered[:, ends]
    path = cumulative_path(place)
    length = np.where(covered[:, None], path[..., ends] - path[..., starts], np.nan)
    gain = np.linalg.norm(place[:, :, ends] - place[:, :, starts], axis=-1)
    window = _quantiles("distance", length * factor) | _quantiles("displacement", gain * factor)
    window |= {f"speed_{name}": window[f"distance_{name}"] / duration for name in ("p5", "p50", "p95")}
    noise = np.diff(np.quantile(length, (0.05, 0.95), axis=1, method="weibull"), axis=0)[0] / 3.29
    with np.errstate(invalid="ignore", divide="ignore"):
        window["relative_sigma"] = noise / np.median(length, axis=1)
    inside = starts[:, None] + np.arange(problem.steps + 1)  # [W, K]
    centre = np.median(place, axis=1)
    away = np.linalg.norm(centre[:, inside] - centre[:, starts][:, :, None], axis=-1)  # [R, W, K]
    farthest = starts + np.nan_to_num(away).argmax(-1)  # [R, W]
    spread = np.linalg.norm(np.take_along_axis(place, farthest[:, None, :, None], 2) - place[:, :, starts], axis=-1)  # [R, D, W]
    sigma = spread.std(axis=1)
    gained = np.median(spread, axis=1)
    threshold = np.maximum(config.min_displacement_m * problem.unit, 3 * sigma)
    words = state["state"][:, inside]
    mean_speed = window["speed_p50"]
    moving = ((words == "moving").sum(-1) * config.grid_seconds >= 1.0) & (gained > threshold)
    still = (words != "moving").all(-1) & (mean_speed < config.static_mps * problem.unit)
    still &= window["speed_p95"] < config.moving_mps * problem.unit
    window["state"] = choose([moving, still], ["moving", "static"], "undecided")
    window["image_motion"] = _seen_motion(problem, centre, window["state"])
    window |= _directions(problem, place, config)
    fastest = np.nanmax(np.where(np.isfinite(state["speed_p50"]), state["speed_p50"], 0)[:, inside], axis=-1)
    hardest = np.nanmax(np.abs(np.nan_to_num(state["acceleration_p50"]))[:, inside], axis=-1)
    window["too_fast"] = fastest > problem.limits[:, :1]
    window["too_hard"] = hardest > problem.limits[:, 1:]
    window["covered"] = covered
    return window


def _directions(problem: _Problem, place: np.ndarray, config: KinematicsConfig) -> dict[str, np.ndarray]:
    """Return clock direction of the last step against the first, its standard deviation in hours, and the turn, `[R, W]`."""
    starts, ends = problem.starts, problem.starts + problem.steps
    steps = np.diff(place, axis=2)
    slow = np.linalg.norm(np.median(steps, axis=1)[..., :2], axis=-1) < config.moving_mps * config.grid_seconds * problem.unit
    angle = clockwise_angle(steps[:, :, starts], steps[:, :, ends - 1])  # [R, D, W]
    mean = np.arctan2(np.sin(angle).mean(1), np.cos(angle).mean(1))
    sigma = np.sqrt(np.mean(wrap_angle(angle - mean[:, None]) ** 2, axis=1))
    change = clockwise_angle(steps[:, :, :-1], steps[:, :, 1:])
    total = np.concatenate([np.zeros((*change.shape[:2], 1)), np.cumsum(np.nan_to_num(change), axis=-1)], axis=-1)
    turned = np.median(total[..., ends - 1] - total[..., starts], axis=1)
    with np.errstate(invalid="ignore"):
        defined = np.isfinite(sigma) & ~(slow[:, starts] | slow[:, ends - 1]) & problem.gravity
        clear = clock_edge_distance(mean) >= np.maximum(np.radians(config.clock_margin_deg), 2 * sigma)
        hour = np.where(defined & clear, clock_hour(np.nan_to_num(mean)), np.nan)
        sure = defined & (sigma < np.radians(30))
        turn = turn_word(np.where(sure, turned, np.nan), np.radians(30), np.radians(150), np.radians(10))
    return {"clock": hour, "clock_sigma_hours": np.where(defined, np.degrees(sigma) / 30, np.nan), "turn": turn}


def _seen_motion(problem: _Problem, centre: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Name the world motion of the window in the axes of the camera at its start, `[R, W]`."""
    starts, ends = problem.starts, problem.starts + problem.steps
    moved = centre[:, ends] - centre[:, starts]
    right = (moved * problem.right[starts]).sum(-1)
    away = (moved * problem.forward[starts]).sum(-1)
    named = camera_direction_word(right, away, 1.5)
    return choose([words == "moving", words == "static"], [named, "none"])


def _unmeasured(problem: _Problem, path: CameraPath, config: KinematicsConfig) -> dict[str, np.ndarray]:
    """Return windows of tracks without world positions: all lengths NaN, and motion in the image where the camera tells it."""
    shape = (len(problem.ids), len(problem.starts))
    names = [f"{name}_{q}" for name in ("distance", "displacement", "speed") for q in ("p5", "p50", "p95")]
    window = {name: np.full(shape, np.nan) for name in (*names, "relative_sigma", "clock", "clock_sigma_hours")}
    window |= {name: np.zeros(shape, bool) for name in ("too_fast", "too_hard", "covered")}
    window |= {"state": np.full(shape, "undecided", object), "turn": np.full(shape, None, object)}
    bearing, growth = image_rates(problem.row, problem.columns["time_s"], problem.columns, path, len(problem.ids), problem.grid)
    inside = problem.starts[:, None] + np.arange(problem.steps + 1)
    duration = problem.steps * config.grid_seconds
    window["image_motion"] = image_motion_word(
        bearing[:, inside].mean(-1) * duration, growth[:, inside].mean(-1) * duration, config.image_threshold, 1.5
    )
    return _overlapped(problem, window)


def _in_order(blocks: list[pa.Table], schema: pa.Schema, time: str) -> pa.Table:
    """Put the rows of all blocks together, by track and time."""
    merged = pa.concat_tables([schema.empty_table(), *blocks])
    order = np.lexsort((merged[time].to_numpy(), merged["track_id"].to_numpy()))
    return merged.take(pa.array(order)).combine_chunks()


def _states_table(state: dict[str, np.ndarray]) -> pa.Table:
    return make_table(KINEMATIC_STATES, {name: _nullable(state[name]) for name in KINEMATIC_STATES.names})


def _nullable(values: np.ndarray) -> pa.Array:
    """Return an Arrow array with null for NaN."""
    return pa.array(values, from_pandas=True)


def _windows_table(
    problem: _Problem,
    merged: dict[str, np.ndarray],
    has_place: bool,
    tracks: Tracks,
    path: CameraPath,
    config: KinematicsConfig,
) -> pa.Table:
    """Name why some windows of a block are rejected, and drop those that a track hardly overlaps.

    Everything in here is by pairs of a track and a window that it overlaps, `[P]`.
    """
    first_window, stop_window = problem.windows.T
    row = np.repeat(np.arange(len(problem.ids)), stop_window - first_window)
    before = np.cumsum(stop_window - first_window) - stop_window
    window = np.arange(len(row)) - before[row]
    bounds = [problem.grid[starts] + reach for starts, reach in ((problem.starts, -1e-6), (problem.starts + problem.steps, 1e-6))]
    first_frame, stop_frame = (np.searchsorted(path.times_s, bound)[window] for bound in bounds)
    frame = problem.columns["frame"].astype(int)
    samples = window_samples(problem.row, frame, row, first_frame, stop_frame)
    share = visible_share(problem.row, frame, len(problem.ids), samples)
    estimated, metric_source = tracks.origin == "video", tracks.scale_source != "none"
    flags = sample_rules(
        problem.row,
        problem.columns,
        len(problem.ids),
        samples,
        config.rules,
        path.width * path.height,
        estimated,
        metric_source,
        problem.unit,
    )
    with np.errstate(invalid="ignore"):
        unsure = (merged["state"] == "moving") & (merged["relative_sigma"] > config.rules.max_relative_sigma)
    reasons = {"partly_seen": ~merged["covered"] & has_place, "low_visibility": share < config.rules.min_visible} | flags
    if estimated and metric_source and problem.gravity:
        reasons |= plausibility_rules(problem.row, problem.columns, samples, config.plausibility)
    reasons |= {"implausible_speed": merged["too_fast"] & metric_source}
    reasons |= {
        "implausible_acceleration": merged["too_hard"] & metric_source,
        "uncertain": unsure,
        "no_world_position": np.full(len(row), not has_place),
    }
    trusted = metric_source and tracks.scale_sigma <= config.max_scale_sigma
    merged |= {
        "rejected": choose(list(reasons.values()), list(reasons)),
        "visible": share,
        "metric": np.full(len(row), trusted and has_place),
    }
    overlaps = np.maximum(share, merged["covered"]) >= 0.5
    return make_table(KINEMATIC_WINDOWS, {name: _nullable(merged[name][overlaps]) for name in KINEMATIC_WINDOWS.names})
