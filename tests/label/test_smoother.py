"""The compiled smoother against its slow twin, and its reading of noise against what was put in."""

import numpy as np
import pytest

from worldline.kinematics import _smoother_reference as reference
from worldline.kinematics.smoother import draw_paths, stated_noise, unknown_noise, white_level


@pytest.mark.parametrize("noise", [stated_noise(3.0), unknown_noise()], ids=["stated", "unknown"])
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
    uniforms = generator.random((rows, axes, draws))
    wanted = generator.random((rows, steps)) > 0.5
    wanted[2, -5], wanted[2, -4:] = True, False
    normals[2, -1] = normals[2, -5]  # the twin draws the last instant at the last step of the padding
    of_track = [lambda length, row=row: normals[row, :length] for row in range(rows)]
    found = draw_paths(times, observed, wanted, values, white, drift, noise, of_track, uniforms)
    every = reference.draw_paths(times, observed, values, white, drift, noise, normals, uniforms)
    np.testing.assert_allclose(found, every[wanted], rtol=0, atol=1e-4)


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
