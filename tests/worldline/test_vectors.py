"""Vectors in numba kernels against numpy, lane by lane."""

import numba
import numpy as np
import pytest

from worldline.splatting.vectors import (
    LANES,
    count,
    exp2,
    get,
    greater,
    load,
    magnitude,
    pattern,
    put,
    root,
    select,
    smaller,
    splat,
    store,
    store_floor,
    store_run,
    total,
    totals,
    variables,
)

DTYPES = [np.float32, np.float64]
ramp = pattern(range(LANES))


@numba.njit
def _exp2_of(values, out):
    for index in range(0, len(values), LANES):
        store(out, index, exp2(load(values, index)))


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1.0), (np.float64, 1.0)])
def test_powers_of_two_are_within_one_unit_in_the_last_place(dtype, limit):
    values = np.concatenate([np.linspace(-8, 0, 80_000), np.linspace(-120, 120, 80_000)]).astype(dtype)
    out = np.empty_like(values)
    _exp2_of(values, out)
    expected = np.exp2(values.astype(np.longdouble))
    assert np.max(np.abs(out - expected) / np.spacing(np.abs(out))) < limit
    assert out[np.flatnonzero(values == 0)[0]] == 1.0


@numba.njit
def _arithmetic(a, b, number, out):
    left, right = load(a, 0), load(b, 0)
    store(out[0], 0, left + right * number)
    store(out[1], 0, number - left)
    store(out[2], 0, left / right)
    store(out[3], 0, select((left < right) & (left > number), left, splat(number)))
    store(out[4], 0, smaller(left, right))
    store(out[5], 0, greater(left, number))
    store(out[6], 0, root(magnitude(left)))
    store(out[7], 0, totals(left, right, left, right, left, right, ramp(number), left))
    return total(left), count(left <= right), count(left >= right)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic_equals_numpy(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, LANES)).astype(dtype)
    number, out = dtype(-0.25), np.empty((8, LANES), dtype)
    summed, fewer, more = _arithmetic(a, b, number, out)
    near = {"rtol": 10 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
    np.testing.assert_allclose(out[0], a + b * number, **near)
    np.testing.assert_allclose(out[1], number - a, **near)
    np.testing.assert_allclose(out[2], a / b, **near)
    np.testing.assert_array_equal(out[3], np.where((a < b) & (a > number), a, number))
    np.testing.assert_array_equal(out[4], np.minimum(a, b))
    np.testing.assert_array_equal(out[5], np.maximum(a, number))
    np.testing.assert_allclose(out[6], np.sqrt(np.abs(a)), **near)
    np.testing.assert_allclose(out[7], [a.sum(), b.sum(), a.sum(), b.sum(), a.sum(), b.sum(), 28, a.sum()], **near)
    assert summed == pytest.approx(a.sum(), rel=1e-5)
    assert (fewer, more) == ((a <= b).sum(), (a >= b).sum())


@numba.njit
def _write_whole(values, names, whole, run, out):
    kept = variables(values[0], names)
    for name in range(len(names)):
        put(kept, name, load(values, 0) + values.dtype.type(name))
    for name in range(len(names)):
        store(out, name * LANES, get(kept, name))
    store_floor(whole, 2, load(values, 0))
    store_run(run, 3, 250)


def test_whole_numbers_runs_and_variables_land_where_they_should():
    values = np.array([0.0, 0.99, 1.0, 2.5, 63.999, 64.0, 7.2, 3.0], np.float32)
    whole, run, out = np.full(12, -1, np.int32), np.zeros(20, np.uint8), np.empty(3 * LANES, np.float32)
    _write_whole(values, (0, 1, 2), whole, run, out)
    assert whole.tolist() == [-1, -1, 0, 0, 1, 2, 63, 64, 7, 3, -1, -1]
    assert run.tolist() == [0, 0, 0, *(number % 256 for number in range(250, 266)), 0]
    np.testing.assert_array_equal(out.reshape(3, LANES), values + np.arange(3, dtype=np.float32)[:, None])
