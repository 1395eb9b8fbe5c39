"""Known motions, corrupted in known ways: what labels made from them are worth, and whether their intervals hold.

The estimator is told nothing of the noise: the tracks state no covariance, so it must be read off each track. Truth is the
path length of the uncorrupted track on the label grid. Beside it stands what a sum over the noisy steps would give.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import Figure, figure
from benchmarks.pose import real_data
from schemas.artifact import make_table
from schemas.cameras import CameraPath
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.contract import no_progress
from stages.ingest.pandaset import PandasetConfig, ingest_pandaset
from stages.ingest.source import describe_source
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.window_rules import WindowRules
from worldline.kinematics.definitions import cumulative_path
from worldline.kinematics.noise import FITTED_KINDS, UNFITTED_KINDS, corrupt_positions

SIGMA_M = 0.3
WINDOW_S = 3.0
# What is asked is the worth of the estimate: windows are not refused for the noise that they were given.
RULES = WindowRules(max_range_m=math.inf, min_visible=0.5, max_position_sigma=math.inf, max_relative_sigma=math.inf)
CONFIG = KinematicsConfig(window_seconds=WINDOW_S, rules=RULES)
MOVING_MPS, STANDING_MPS = 0.5, 0.15  # true mean speeds over a window that count as moving and as standing


@dataclass(frozen=True)
class Motions:
    """True positions of many objects.

    Attributes:
        track: `[M]` ids from 1, sorted.  time_s: `[M]` sorted within a track.
        position: `[M, 3]` metres.
        camera: `[T, 3]` where the camera is at `times_s` `[T]`.
    """

    track: np.ndarray
    time_s: np.ndarray
    position: np.ndarray
    times_s: np.ndarray
    camera: np.ndarray

    @property
    def range_m(self) -> np.ndarray:
        """Distance from the camera, `[M]`."""
        return np.linalg.norm(self.position - self.camera[np.searchsorted(self.times_s, self.time_s - 1e-6)], axis=1)


def traffic(tracks: int, seed: int, seconds: float = 8.0, rate_hz: float = 10.0) -> Motions:
    """Make up traffic: cars that cruise, brake, turn, stop and go, slow walkers, and parked cars, a sixth each."""
    generator = np.random.default_rng([seed, 7])
    times = np.arange(round(seconds * rate_hz) + 1) / rate_hz
    fine = np.arange(0.0, seconds + 0.005, 0.01)
    blocks = []
    for index in range(tracks):
        kind, cruise = index % 6, generator.uniform(3.0, 15.0)
        start, heading = generator.uniform(-25, 25, 2), generator.uniform(-np.pi, np.pi)
        begin, duration = generator.uniform(0.5, 4.0), generator.uniform(2.0, 4.0)
        ramp = np.clip((fine - begin) / duration, 0.0, 1.0)
        speed = {
            0: np.full_like(fine, cruise),
            1: cruise * (1 - generator.uniform(0.3, 0.9) * ramp),
            2: np.full_like(fine, min(cruise, 9.0)),
            3: cruise * np.abs(1 - 2 * ramp),
            4: np.full_like(fine, generator.uniform(0.5, 2.0)),
            5: np.zeros_like(fine),
        }[kind]
        turn = generator.uniform(0.6, 1.6) * generator.choice([-1, 1]) * ramp if kind == 2 else 0.1 * np.sin(0.3 * fine)
        steps = 0.01 * speed[:-1, None] * np.stack([np.cos(heading + turn), np.sin(heading + turn)], 1)[:-1]
        place = start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        blocks.append(np.column_stack([*(np.interp(times, fine, place[:, axis]) for axis in (0, 1)), np.zeros(len(times))]))
    track = np.repeat(np.arange(1, tracks + 1), len(times))
    return Motions(track, np.tile(times, tracks), np.concatenate(blocks), times, np.zeros((len(times), 3)))


def pandaset_motions() -> Motions:
    """Read the cuboids of PandaSet's scene 002, one per object (its reader removes siblings)."""
    config = PandasetConfig()
    source = describe_source(real_data("pandaset_002"), camera=config.camera)
    clip, truth = ingest_pandaset(source, config, seed=0, progress=no_progress)
    boxes = {name: truth.boxes[name].to_numpy(zero_copy_only=False) for name in ("track_id", "time_s", "x", "y", "z")}
    position = np.stack([boxes[name] for name in "xyz"], 1)
    return Motions(boxes["track_id"], boxes["time_s"], position, clip.times_s, truth.world_from_camera[:, :3, 3])


def as_tracks(motions: Motions, position: np.ndarray, keep: np.ndarray) -> tuple[Tracks, CameraPath]:
    """Return tracks that state no covariance, and the camera's path."""
    track, time, range_m = motions.track[keep], motions.time_s[keep], motions.range_m[keep]
    columns = {name: pa.nulls(len(track), TRACK_SAMPLES.field(name).type) for name in TRACK_SAMPLES.names}
    columns |= {
        "track_id": track,
        "frame": np.searchsorted(motions.times_s, time - 1e-6),
        "time_s": time,
        "range": range_m,
        "visible": np.ones(len(track)),
        "touches_border": np.zeros(len(track), bool),
        **{name: position[keep, axis] for axis, name in enumerate("xyz")},
    }
    ids, first = np.unique(track, return_index=True)
    stop = np.append(first[1:], len(track))
    objects = {
        "track_id": ids,
        "class_name": np.full(len(ids), "car", object),
        "colour": np.full(len(ids), "", object),
        "first_s": time[first],
        "last_s": time[stop - 1],
        "samples": stop - first,
    }
    poses = np.tile(np.eye(4), (len(motions.times_s), 1, 1))
    poses[:, :3, :3] = [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    poses[:, :3, 3] = motions.camera
    path = CameraPath(
        times_s=motions.times_s,
        world_from_camera=poses,
        registered=np.ones(len(poses), bool),
        intrinsics=np.array([[500.0, 0, 480], [0, 500, 270], [0, 0, 1]]),
        distortion=np.zeros(4),
        width=960,
        height=540,
        verdict="moving",
        scale_source="given",
        scale_sigma=0.0,
        gravity_source="given",
        gravity_sigma_rad=0.0,
        reprojection_error_px=0.0,
    )
    samples = make_table(TRACK_SAMPLES, columns)
    return Tracks(samples, make_table(TRACK_OBJECTS, objects), "boxes", "given", 0.0, "given"), path


@dataclass(frozen=True)
class Windows:
    """Labelled windows beside the truth.

    Attributes:
        track: `[W]`.  true_m: `[W]` path length on the grid.  naive_m: `[W]` sum of the noisy steps.
        distance_m: `[W, 3]` the estimate's 5, 50 and 95 % quantiles.
        state: `[W]` "moving", "static" or "undecided".
    """

    track: np.ndarray
    true_m: np.ndarray
    naive_m: np.ndarray
    distance_m: np.ndarray
    state: np.ndarray

    @property
    def moving(self) -> np.ndarray:
        """Windows in which the object truly moves, `[W]`."""
        return self.true_m >= MOVING_MPS * WINDOW_S

    @property
    def error(self) -> np.ndarray:
        """Relative errors of the moving windows."""
        return np.abs(self.distance_m[self.moving, 1] / self.true_m[self.moving] - 1)

    @property
    def covered(self) -> np.ndarray:
        """Whether the 90 % intervals of the moving windows hold the truth."""
        low, _, high = self.distance_m[self.moving].T
        return (low <= self.true_m[self.moving]) & (self.true_m[self.moving] <= high)

    @property
    def half_width(self) -> np.ndarray:
        """Half the width of the 90 % intervals of the moving windows, as a share of the distance told."""
        low, middle, high = self.distance_m[self.moving].T
        return (high - low) / 2 / middle


def label(motions: Motions, kind: str, seed: int) -> Windows:
    """Corrupt tracks, estimate their kinematics, and put truth and naive sums beside them."""
    position, _, keep = corrupt_positions(kind, motions.track, motions.time_s, motions.position, motions.range_m, SIGMA_M, seed)
    tracks, path = as_tracks(motions, position, keep)
    table = estimate_kinematics(tracks, path, CONFIG, seed=seed, progress=no_progress).windows
    found = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    use = (found["track_id"] > 0) & np.isfinite(found["distance_p50"].astype(float))
    if kind == "identity_switches":  # windows that are refused are no labels
        use &= np.array([reason is None for reason in found["rejected"]])
    found = {name: values[use] for name, values in found.items()}
    true, naive = np.zeros(use.sum()), np.zeros(use.sum())
    for track in np.unique(found["track_id"]):
        rows = np.flatnonzero(found["track_id"] == track)
        mine = motions.track == track
        grid = found["start_s"][rows, None] + np.arange(0.0, WINDOW_S + 0.01, 0.5)
        on_grid = np.stack([np.interp(grid, motions.time_s[mine], motions.position[mine, axis]) for axis in range(3)], -1)
        true[rows] = cumulative_path(on_grid)[:, -1]
        seen = mine & keep
        travelled, times = cumulative_path(position[seen]), motions.time_s[seen]
        naive[rows] = np.interp(found["end_s"][rows], times, travelled) - np.interp(found["start_s"][rows], times, travelled)
    quantiles = np.stack([found[f"distance_{name}"].astype(float) for name in ("p5", "p50", "p95")], 1)
    return Windows(found["track_id"], true, naive, quantiles, found["state"])


def balanced_accuracy(windows: Sequence[Windows]) -> float:
    """Mean recall of "moving" and "static"; a window that is left undecided where truth is clear counts as wrong."""
    state = np.concatenate([item.state for item in windows])
    speed = np.concatenate([item.true_m for item in windows]) / WINDOW_S
    return float(np.mean([np.mean(state[speed >= MOVING_MPS] == "moving"), np.mean(state[speed < STANDING_MPS] == "static")]))


def decided_accuracy(windows: Sequence[Windows]) -> tuple[float, float]:
    """Mean recall of "moving" and "static" among decided windows, and the share of windows that are decided."""
    state = np.concatenate([item.state for item in windows])
    speed = np.concatenate([item.true_m for item in windows]) / WINDOW_S
    decided = state != "undecided"
    clear = (speed >= MOVING_MPS) | (speed < STANDING_MPS)
    moving, standing = decided & (speed >= MOVING_MPS), decided & (speed < STANDING_MPS)
    recall = np.mean([np.mean(state[moving] == "moving"), np.mean(state[standing] == "static")])
    return float(recall), float(np.mean(decided[clear]))


def _moving_tracks(windows: Windows) -> int:
    return len(np.unique(windows.track[windows.moving]))


def measure_noise(folder: Path, quick: bool) -> list[Figure]:
    """Corrupt PandaSet's cuboids by every noise that is modelled; errors, naive sums, and static or moving."""
    motions, seeds = pandaset_motions(), range(1 if quick else 3)
    figures, everything = [], []
    for kind in FITTED_KINDS:
        windows = [label(motions, kind, seed) for seed in seeds]
        everything += windows
        error = np.concatenate([item.error for item in windows])
        naive = np.concatenate([np.abs(item.naive_m / np.maximum(item.true_m, 1e-9) - 1)[item.moving] for item in windows])
        of = (
            f"travelled distance over {WINDOW_S:g} s, noise {SIGMA_M} m ({kind}) that the estimator is not told; "
            f"{len(error)} moving windows of {_moving_tracks(windows[0])} PandaSet tracks, {len(seeds)} draws"
        )
        figures += [
            figure(f"labels.noise.{kind}.distance_error_median", float(np.median(error)), "share", "at most 0.03", of),
            figure(f"labels.noise.{kind}.within_25", float(np.mean(error <= 0.25)), "share", "at least 0.95", of),
            figure(
                f"labels.noise.{kind}.naive_error_median", float(np.median(naive)), "share", "", f"sum of the noisy steps; {of}"
            ),
        ]
    recall, share = decided_accuracy(everything)
    slow = [item.state[(item.true_m >= MOVING_MPS * WINDOW_S) & (item.true_m < 2.0 * WINDOW_S)] for item in everything]
    of_slow = np.concatenate(slow)
    parked = np.concatenate([item.distance_m[item.true_m < STANDING_MPS * WINDOW_S, 1] for item in everything]) / WINDOW_S
    figures += [
        figure(
            "labels.static_moving_balanced_accuracy",
            recall,
            "share",
            "at least 0.95",
            f"of the {100 * share:.0f} % of windows that are decided; moving from {MOVING_MPS} m/s, standing below "
            f"{STANDING_MPS} m/s of true speed; true movers of 0.5 to 2 m/s: {100 * np.mean(of_slow == 'moving'):.0f} % called "
            f"moving, {100 * np.mean(of_slow == 'static'):.0f} % static, of {len(of_slow)}; all kinds of noise",
        ),
        figure(
            "labels.static_moving_balanced_accuracy_all",
            balanced_accuracy(everything),
            "share",
            "",
            "undecided windows counted as wrong",
        ),
        figure("labels.parked_speed_mps", float(np.median(parked)), "m/s", "0", f"median over {len(parked)} standing windows"),
    ]
    return figures


def measure_coverage(folder: Path, quick: bool) -> list[Figure]:
    """Share of 90 % intervals that hold the truth, and how wide they are.

    The figures asked for are of noise families that the estimator does not model; those that it does have their own.
    """
    known = {"traffic": traffic(120 if quick else 480, seed=0), "pandaset": pandaset_motions()}
    seeds = {kind: 100 + index for index, kind in enumerate((*UNFITTED_KINDS, *FITTED_KINDS))}
    found = {(name, kind): label(motions, kind, seed=seed) for kind, seed in seeds.items() for name, motions in known.items()}
    covered = {key: float(windows.covered.mean()) for key, windows in found.items()}
    tracks = sum(_moving_tracks(found[name, UNFITTED_KINDS[0]]) for name in known)
    unfitted = [(name, kind) for name in known for kind in UNFITTED_KINDS]
    share = float(np.mean([covered[key] for key in unfitted]))
    width = float(np.median(np.concatenate([found[key].half_width for key in unfitted])))
    told = "; ".join(f"{name} {kind} {covered[name, kind]:.3f}" for name, kind in unfitted)
    detail = (
        f"90 % intervals over {WINDOW_S:g} s windows of {tracks} moving tracks, median half width {100 * width:.1f} % of the "
        f"distance; mean over {told}"
    )
    figures = [
        figure("labels.coverage90.distance", share, "share", "0.87 to 0.93", detail),
        figure(
            "labels.coverage90.speed",
            share,
            "share",
            "0.87 to 0.93",
            f"mean speed is distance over the window's length; {detail}",
        ),
        figure("labels.coverage90.half_width", width, "share", "", f"of the distance, median; {detail}"),
    ]
    for name, kind in unfitted:
        figures.append(
            figure(
                f"labels.coverage90.{name}.{kind}", covered[name, kind], "share", "0.87 to 0.93", _of_intervals(found[name, kind])
            )
        )
    for kind in FITTED_KINDS:
        both = [covered[name, kind] for name in known]
        told = "; ".join(f"{name} {covered[name, kind]:.3f}, {_of_intervals(found[name, kind])}" for name in known)
        figures.append(
            figure(
                f"labels.noise.{kind}.coverage90",
                float(np.mean(both)),
                "share",
                "0.87 to 0.93",
                f"a noise that is modelled; {told}",
            )
        )
    return figures


def _of_intervals(windows: Windows) -> str:
    width, error = np.median(windows.half_width), np.quantile(windows.error, 0.9)
    return (
        f"{_moving_tracks(windows)} tracks, median half width {100 * width:.1f} %, nine errors in ten below {100 * error:.1f} % "
        "of the distance"
    )
