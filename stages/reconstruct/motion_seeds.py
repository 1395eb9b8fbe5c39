"""How the Gaussians of each motion model move before the first step."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from stages.reconstruct.driving_seeds import Sightings
from stages.reconstruct.seeding import Seeds
from worldline.motion.gaussian_flow import TIME_SCALE
from worldline.motion.space_time import join_cuts

Arrays = dict[str, np.ndarray]
ALWAYS = 3.0  # standard deviation in normalised time of what is there from beginning to end: 1 % weaker at both


def gaussian_flow_motion(
    count: int,
    *,
    position_powers: int = 3,
    position_harmonics: int = 2,
    rotation_powers: int = 2,
    rotation_harmonics: int = 0,
    color_powers: int = 1,
    color_harmonics: int = 0,
    time: float | np.ndarray = 0.5,
) -> Arrays:
    """Return Gaussian-Flow's arrays for `count` Gaussians that all may move and stand still, canonical at `time`."""
    return {
        "moving": np.arange(count),
        "time_centers": np.full(count, TIME_SCALE * np.asarray(time)),
        "position_polynomial": np.zeros((count, position_powers, 3)),
        "position_fourier": np.zeros((count, 2 * position_harmonics, 3)),
        "rotation_polynomial": np.zeros((count, rotation_powers, 4)),
        "rotation_fourier": np.zeros((count, 2 * rotation_harmonics, 4)),
        "color_polynomial": np.zeros((count, color_powers, 3)),
        "color_fourier": np.zeros((count, 2 * color_harmonics, 3)),
    }


def gaussian_flow_drive(sightings: Sightings, **orders: int) -> Arrays:
    """Return Gaussian-Flow's arrays for Gaussians on moving objects: polynomials about the time of each one's sighting."""
    count, powers = sightings.paths.shape[:2]
    arrays = gaussian_flow_motion(count, position_powers=powers, time=sightings.times, **orders)
    return arrays | {"position_polynomial": sightings.paths / TIME_SCALE ** np.arange(1, powers + 1)[:, None]}


def native_4d_motion(
    count: int,
    rng: np.random.Generator,
    *,
    time_scale: float = 0.2,
    lasting_share: float = 0.5,
    lasting_scale: float = 1.5,
    color_orders: int = 0,
) -> Arrays:
    """Return native 4D Gaussians' arrays: standing still, centred anywhere in time and a tenth beyond (Yang et al. 2024).

    The paper begins with one life span for all, a variance of a fifth of the clip. Here some are there all the time from the
    start, for what stands still, which a chain of short-lived ones shows no better and for more of them; the rest live shorter.

    Args:
        count: how many.
        rng: source of randomness.
        time_scale: standard deviation in time of those that are there for a while.
        lasting_share: how many are there all the time.
        lasting_scale: their standard deviation.
        color_orders: of the cosine terms of the colours.
    """
    lasting = rng.random(count) < lasting_share
    arrays = {
        "times": np.where(lasting, rng.uniform(0.25, 0.75, count), rng.uniform(-0.1, 1.1, count)),
        "time_scales": np.where(lasting, lasting_scale, time_scale),
        "right_quats": np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
    }
    return arrays | ({"time_colors": np.zeros((count, color_orders, 3))} if color_orders else {})


def native_4d_drive(seeds: Seeds, sightings: Sightings, *, time_scale: float) -> Seeds:
    """Return seeds of native 4D Gaussians: those on moving objects about their sighting, flying as their object does.

    All others are there all the time.

    Args:
        seeds: those on moving objects first.
        sightings: of these.
        time_scale: for how long each is there: standard deviation in normalised time.
    """
    count, movers = len(seeds.means), len(sightings.times)
    velocities = np.zeros((count, 3))
    velocities[:movers] = sightings.paths[:, 0] if sightings.paths.shape[1] else 0.0
    times, deviations = np.full(count, 0.5), np.full(count, ALWAYS)
    times[:movers], deviations[:movers] = sightings.times, time_scale
    covars = np.eye(3) * np.square(seeds.sizes)[:, None, None]
    left, right, scales, time_scales = join_cuts(velocities, deviations, covars)
    motion = {"times": times, "time_scales": time_scales, "right_quats": right}
    return dataclasses.replace(seeds, quats=left, sizes=scales, motion=motion)


def periodic_vibration_motion(count: int, rng: np.random.Generator, *, cycle: float = 0.2, lifespan: float = 0.3) -> Arrays:
    """Return periodic vibration's arrays: standing still, most opaque at any time (Chen et al. 2023)."""
    return {
        "velocities": np.zeros((count, 3)),
        "peaks": rng.uniform(0.0, 1.0, count),
        "lifespans": np.full(count, lifespan),
        "cycle": np.array([cycle]),
    }


def periodic_vibration_drive(seeds: Seeds, sightings: Sightings, *, cycle: float, lifespan: float) -> Arrays:
    """Return periodic vibration's arrays: moving objects about their sighting, all others there all the time."""
    count, movers = len(seeds.means), len(sightings.times)
    velocities, peaks, lifespans = np.zeros((count, 3)), np.full(count, 0.5), np.full(count, ALWAYS)
    velocities[:movers] = sightings.paths[:, 0] if sightings.paths.shape[1] else 0.0
    peaks[:movers], lifespans[:movers] = sightings.times, lifespan
    return {"velocities": velocities, "peaks": peaks, "lifespans": lifespans, "cycle": np.array([cycle])}


_USUAL: Mapping[str, Callable[[int, np.random.Generator], Arrays]] = {
    "static": lambda count, rng: {},
    "gaussian_flow": lambda count, rng: gaussian_flow_motion(count),
    "native_4d": native_4d_motion,
    "periodic_vibration": periodic_vibration_motion,
}


def with_motion(seeds: Seeds, model: str, rng: np.random.Generator) -> Seeds:
    """Return the seeds with the usual start of a model's motion where they bring none.

    Raises:
        ValueError: for rigid agents without their boxes, which cannot be guessed, and models that are only read from files.
    """
    if seeds.motion or model == "static":
        return seeds
    if model not in _USUAL:
        raise ValueError(f"fit_scene: seeds of model {model!r} must bring its motion arrays")
    return dataclasses.replace(seeds, motion=_USUAL[model](len(seeds.means), rng))
