"""The compiled smoother against its slow twin, and its reading of noise against what was put in."""

import numpy as np
import pytest

from worldline.kinematics import _smoother_reference as reference
from worldline.kinematics.smoother import (
    draw_paths,
    sampling_interval,
    seen_of_drift,
    stated_noise,
    unknown_noise,
    white_level,
)


@pytest.mark.parametrize("noise", [stated_noise(3.0), unknown_noise(0.1)], ids=["stated", "unknown"])
def test_the_compiled_smoother_draws_what_its_twin_draws(noise):
    generator = np.random.default_rng(0)
    rows, steps, axes, draws = 3, 24, 3, 16
    times = np.sort(generator.uniform(0, 4, (rows, steps)), axis=1)
    times[:, 5] = times[:, 4]  # a sample at the very time of the grid
    times[2, -4:] = times[2, -5]  # padding
    observed = generator.random((rows, steps)) > 0.3
    observed[:, 0], observed[2, -4:] = True, False
    values = generator.normal(size=(rows, steps, axes)).cumsum(axis=1)
    white, drift = np.full(values.shape, 0.05), np.full(values.shape, 0.02)
    normals = generator.standard_normal((rows, steps, axes, draws, 3))
    uniforms = generator.random((rows, 1 + axes, draws))
    change, spread = np.full((rows, axes), 0.1), np.linspace(0.3, 1.0, rows * axes).reshape(rows, axes)
    wanted = generator.random((rows, steps)) > 0.5
    wanted[2, -5], wanted[2, -4:] = True, False
    normals[2, -1] = normals[2, -5]  # the twin draws the last instant at the last step of the padding
    of_track = [lambda length, row=row: normals[row, :length] for row in range(rows)]
    found = draw_paths(times, observed, wanted, values, white, drift, change, spread, noise, of_track, uniforms)
    every = reference.draw_paths(times, observed, values, white, drift, change, spread, noise, normals, uniforms)
    np.testing.assert_allclose(found, every[wanted], rtol=0, atol=1e-4)


def wandering(times, generator):
    """Noise of 0.3 m that comes and goes within 4 s, `[R, S, 3]`."""
    phase = generator.uniform(0, 6, (len(times), 1, 3))
    return 0.4 * np.sin(1.6 * times[..., None] + phase)


def spread_along(height):
    """Spread of the 3 s that 20 cars drive along a road under slow noise, when this is what their height does."""
    generator = np.random.default_rng(5)
    rows, steps, draws = 20, 81, 200
    times = np.tile(np.arange(steps) * 0.1, (rows, 1))
    values = 0.1 * generator.standard_normal((rows, steps, 3)) + wandering(times, generator)
    values[..., 0] += 8.0 * times
    values[..., 2] = 0.1 * generator.standard_normal((rows, steps)) + height(times, generator)
    white, seen = np.full(values.shape, 0.01), np.ones((rows, steps), bool)
    wanted = np.isin(np.arange(steps), (25, 55)) & seen
    numbers = [lambda length: np.random.default_rng(6).standard_normal((length, 3, draws, 3))] * rows
    change, spread = np.tile([0.1, 0.03, 0.005], (rows, 1)), np.tile([1.0, 1.0, 0.35], (rows, 1))
    uniforms = generator.random((rows, 4, draws))
    found = draw_paths(times, seen, wanted, values, white, white, change, spread, unknown_noise(0.1), numbers, uniforms)
    along = found[:, 0, :, 0].reshape(rows, 2, draws)
    return np.median((along[:, 1] - along[:, 0]).std(axis=1))


def test_a_height_that_wanders_tells_that_the_way_along_the_road_is_unsure():
    steady = spread_along(lambda times, generator: 0.0)
    assert spread_along(lambda times, generator: wandering(times, generator)[..., 2]) > 1.15 * steady


def test_a_road_that_rises_steadily_tells_nothing_of_the_noise():
    steady = spread_along(lambda times, generator: 0.0)
    assert spread_along(lambda times, generator: 0.4 * times) == pytest.approx(steady, rel=0.1)


def test_the_white_level_follows_noise_that_falls_and_ignores_motion():
    generator = np.random.default_rng(1)
    times = np.arange(200) * 0.1
    sigma = np.where(times < 10, 0.5, 0.1)
    levels = []
    for _ in range(60):
        place = np.stack([4 * times + 0.3 * times**2, np.sin(times), 0 * times], 1) + sigma[:, None] * generator.standard_normal(
            (200, 3)
        )
        levels.append(white_level(np.zeros(200, int), times, place, 1))
    level = np.sqrt(np.mean(levels, axis=0))
    loud, quiet = level[20:80].mean(axis=0), level[120:180].mean(axis=0)
    assert (loud > 2 * quiet).all()
    assert ((loud < 0.5) & (quiet > 0.1)).all()  # both drawn towards the track's own level
    assert (np.ptp(level[20:80], axis=0) < 0.1 * loud).all()  # and speed, acceleration and turns are not taken for noise


def test_tracks_do_not_lend_each_other_their_noise():
    generator = np.random.default_rng(2)
    quiet, loud = (scale * generator.standard_normal((60, 3)) for scale in (0.01, 1.0))
    times = np.arange(60) * 0.1
    both = white_level(np.repeat([0, 1], 60), np.tile(times, 2), np.concatenate([quiet, loud]), 2)
    alone = white_level(np.zeros(60, int), times, quiet, 1)
    np.testing.assert_allclose(both[:60], alone)


def remembering(shape, interval, seconds, generator):
    """Ornstein-Uhlenbeck noise of unit variance along the second axis."""
    keep = np.exp(-interval / seconds)
    noise = generator.standard_normal(shape)
    for step in range(1, shape[1]):
        noise[:, step] = keep * noise[:, step - 1] + np.sqrt(1 - keep**2) * noise[:, step]
    return noise


@pytest.mark.parametrize("seconds", [0.1, 0.4, 3.0])
def test_neighbours_see_of_a_drift_what_is_said(seconds):
    generator = np.random.default_rng(8)
    noise = remembering((2000, 41, 1), 0.1, seconds, generator)
    rows = np.repeat(np.arange(2000), 41)
    level = white_level(rows, np.tile(np.arange(41) * 0.1, 2000), noise.reshape(-1, 1), 2000)
    assert level.mean() == pytest.approx(seen_of_drift(0.1, seconds), rel=0.1)


@pytest.mark.parametrize("interval", [1 / 30, 0.1, 0.2])
def test_every_model_of_the_noise_shows_its_neighbours_the_level_that_was_measured(interval):
    noise = unknown_noise(interval)
    shown = noise.white + noise.drift * np.array([seen_of_drift(interval, seconds) for seconds in noise.seconds])
    assert np.abs(np.log(shown)).max() < np.log(1.4)
    assert noise.weight.sum() == pytest.approx(1)


def errors_of_cars(seconds, interval=0.1, sigma=0.3, rows=100):
    """Root mean square error of 3 s of cars under noise of this memory, and what the draws say that it is.

    The cars change their speed by a tenth in a second, at random, as the smoother expects of them.
    """
    generator = np.random.default_rng(9)
    steps, draws = round(8 / interval) + 1, 100
    times = np.tile(np.arange(steps) * interval, (rows, 1))
    cruise = generator.uniform(5, 12, (rows, 1))
    speed = cruise + 0.1 * cruise * np.sqrt(interval) * generator.standard_normal((rows, steps)).cumsum(axis=1)
    truth = np.zeros((rows, steps, 3))
    truth[..., 0] = interval * speed.cumsum(axis=1)
    values = truth + sigma * remembering(truth.shape, interval, seconds, generator)
    level = white_level(np.repeat(np.arange(rows), steps), times.ravel(), values.reshape(-1, 3), rows).reshape(values.shape)
    seen = np.ones((rows, steps), bool)
    wanted = seen & np.isin(np.arange(steps), (round(2.5 / interval), round(5.5 / interval)))
    numbers = [lambda length: np.random.default_rng(6).standard_normal((length, 3, draws, 3))] * rows
    change, spread = np.tile([0.1, 0.03, 0.005], (rows, 1)), np.tile([1.0, 1.0, 0.35], (rows, 1))
    noise, uniforms = unknown_noise(interval), generator.random((rows, 4, draws))
    found = draw_paths(times, seen, wanted, values, level, level, change, spread, noise, numbers, uniforms)
    moved = np.diff(found[:, 0, :, 0].reshape(rows, 2, draws), axis=1)[:, 0]
    error = moved.mean(axis=1) - np.diff(truth[wanted][:, 0].reshape(rows, 2), axis=1)[:, 0]
    return np.sqrt(np.mean(error**2)), np.sqrt(np.mean(moved.var(axis=1)))


@pytest.mark.parametrize("seconds", [0.001, 0.2, 0.4, 2.0])
def test_the_spread_of_the_draws_is_the_size_of_the_errors_whatever_the_memory_of_the_noise(seconds):
    error, said = errors_of_cars(seconds)
    assert 0.85 < said / error < 1.3


def test_the_rate_of_the_samples_does_not_change_what_is_said_of_noise_that_remembers():
    assert errors_of_cars(0.3, 1 / 30)[1] == pytest.approx(errors_of_cars(0.3, 0.1)[1], rel=0.15)


def test_the_interval_of_the_samples_is_that_of_most_of_them():
    rows, times = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2]), np.array([0, 0.1, 0.2, 5.2, 3.0, 0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(sampling_interval(rows, times, 4), [0.1, 0.1, 0.5, 0.1])
