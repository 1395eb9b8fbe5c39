"""Both strategies of growth: what they promise of numbers, of pictures and of what belongs to a Gaussian."""

import dataclasses

import numpy as np
import pytest
import torch

from stages.reconstruct.growth import densification, relocation
from stages.reconstruct.growth.relocation import choose_relocations, share_opacity
from stages.reconstruct.motion_seeds import gaussian_flow_motion, with_motion
from stages.reconstruct.parameters import activate, initial_state, measure_distances, rows_of
from stages.reconstruct.seeding import Seeds
from stages.reconstruct.settings import FitSettings
from worldline.motion import MODELS
from worldline.splatting import Cameras, rasterize


@pytest.mark.parametrize(("opacity", "copies"), [(0.9, 2), (0.3, 5), (0.97, 51)])
def test_shared_gaussians_hide_together_what_one_hid(opacity, copies):
    (shared,), (factor,) = share_opacity(np.array([opacity]), np.array([copies]))
    assert 1 - (1 - shared) ** copies == pytest.approx(opacity)  # at the centre
    x = np.linspace(-30, 30, 200001)  # and in sum over a line through it
    together = 1 - (1 - shared * np.exp(-0.5 * (x / factor) ** 2)) ** copies
    alone = opacity * np.exp(-0.5 * x**2)
    assert np.trapezoid(together, x) == pytest.approx(np.trapezoid(alone, x), rel=1e-6)


def test_gaussians_that_cover_least_go_beside_important_ones_of_their_own_group():
    mass = np.array([0.5, 0.1, 0.5, 0.2, 0.3, 0.9, 0.8])
    importance = np.array([1.0, 9.0, 0.0, 9.0, 9.0, 0.0, 2.0])
    moved, source = choose_relocations(mass, importance, 0.5, np.array([0, 0, 0, 1, 1, 1, 1]), np.random.default_rng(0))
    assert moved.tolist() == [1, 3, 4]
    assert source.tolist() == [0, 6, 6]


def test_a_group_that_no_image_pulls_at_is_left_alone():
    moved, source = choose_relocations(np.ones(4), np.zeros(4), 0.5, np.zeros(4, np.int64), np.random.default_rng(0))
    assert len(moved) == len(source) == 0


def state_of(model: str, opacity: float = 0.8, size: float = 0.15):
    """Five Gaussians before a camera at the origin; the first two may move, where the model tells movers apart."""
    rng = np.random.default_rng(0)
    means = np.array([[x, 0.0, 3.0] for x in np.linspace(-0.8, 0.8, 5)])
    seeds = Seeds(means, np.full(5, size), rng.uniform(0, 1, (5, 3)), np.full(5, opacity), instances=np.array([7, 7, 0, 0, 0]))
    if model == "gaussian_flow":
        motion = gaussian_flow_motion(2)
        motion["position_polynomial"][:, 0] = [[1, 2, 3], [4, 5, 6]]
        seeds = dataclasses.replace(seeds, motion=motion)
    state = initial_state(with_motion(seeds, model, rng), "gaussian", 0)
    measure_distances(state, np.zeros((1, 3)))
    for moments in (state.first, state.second):
        for array in moments.values():
            array[:] = 1.0
    state.seen[:] = 1
    return state


def picture(state, model: str) -> np.ndarray:
    canonical, motion = activate(*({k: torch.from_numpy(v) for k, v in part.items()} for part in (state.values, state.fixed)))
    camera = Cameras.single(np.eye(4), np.array([[40.0, 0, 24], [0, 40.0, 24], [0, 0, 1]]), 48, 48)
    return rasterize(MODELS[model].state_at(canonical, motion, 0.5), camera).colors[0].numpy()


FITTED = ("static", "gaussian_flow", "native_4d", "periodic_vibration")
RELOCATE, DENSIFY = FitSettings(relocate_share=0.5), FitSettings(growth="densification", densify_gradient=0.5, gaussians_limit=7)


@pytest.mark.parametrize("model", FITTED)
def test_relocation_keeps_the_number_and_all_arrays_in_step(model):
    state = state_of(model)
    state.importance[:] = [1, 0, 0, 0, 5]
    relocation.grow(state, RELOCATE, np.random.default_rng(0))
    for name, array in {**state.values, **state.fixed}.items():
        assert len(array) == {"gaussians": 5, "movers": state.movers, "scene": len(array)}[rows_of(name)], name
    assert not state.importance.any()


def test_what_is_relocated_becomes_its_source_and_both_forget_their_momentum():
    state = state_of("gaussian_flow")
    state.values["opacities"][1] = -4.0
    state.importance[:] = [1, 0, 0, 0, 0]  # static ones see nothing, so only the movers change
    relocation.grow(state, RELOCATE, np.random.default_rng(0))
    np.testing.assert_array_equal(state.values["position_polynomial"][1], state.values["position_polynomial"][0])
    np.testing.assert_array_equal(state.values["colors"][1], state.values["colors"][0])
    assert state.values["opacities"][0] == state.values["opacities"][1]
    assert not state.first["means"][:2].any()
    assert not state.second["position_polynomial"].any()
    assert state.first["means"][2:].all()


def test_relocation_of_transparent_gaussians_hardly_changes_the_picture():
    state = state_of("static", size=0.3)
    state.values["opacities"][1] = -6.0  # 0.25 % opaque
    state.importance[:] = [0, 0, 0, 1, 0]
    before = picture(state, "static")
    relocation.grow(state, FitSettings(relocate_share=0.2), np.random.default_rng(0))
    after = picture(state, "static")
    assert 0 < np.abs(after - before).mean() < 0.01  # of the range of colours
    assert np.abs(after - before).max() < 0.25


@pytest.mark.parametrize("model", FITTED)
def test_densification_doubles_what_is_pulled_up_to_the_limit_hardest_first(model):
    state = state_of(model)
    state.importance[:] = [0.6, 3.0, 0.1, 2.0, 1.0]
    places = state.values["means"].copy()
    densification.grow(state, DENSIFY, np.random.default_rng(0))
    assert len(state.values["means"]) == 7
    for name, array in {**state.values, **state.fixed, **state.first, **state.second}.items():
        assert len(array) == {"gaussians": 7, "movers": state.movers, "scene": len(array)}[rows_of(name)], name
    kept = [np.isclose(state.values["means"], place).all(axis=1).any() for place in places]
    assert kept[0]
    assert kept[2]
    assert kept[4]  # the limit left no room for the third hardest
    assert state.movers == (3 if model == "gaussian_flow" else 0)
    if model == "gaussian_flow":
        np.testing.assert_array_equal(state.fixed["moving"], [0, 1, 2])
        np.testing.assert_array_equal(state.values["position_polynomial"][1:, 0], [[4, 5, 6]] * 2)
        np.testing.assert_array_equal(state.fixed["instances"], [7, 7, 7, 0, 0, 0, 0])


def test_transparent_gaussians_are_dropped():
    state = state_of("gaussian_flow")
    state.values["opacities"][[0, 3]] = -6.0
    densification.grow(state, DENSIFY, np.random.default_rng(0))
    assert len(state.values["means"]) == 3
    assert state.movers == 1
    np.testing.assert_array_equal(state.values["position_polynomial"][:, 0], [[4, 5, 6]])


def test_native_gaussians_are_split_in_time_too():
    state = state_of("native_4d")
    state.importance[:] = [0, 0, 9.0, 0, 0]
    time, scale = state.values["times"][2], state.values["time_scales"][2]
    densification.grow(state, DENSIFY, np.random.default_rng(0))
    halves = np.flatnonzero(np.isclose(state.values["time_scales"], scale - np.log(1.6)))
    assert len(halves) == 2
    assert len(np.unique([time, *state.values["times"][halves]])) == 3


def test_small_gaussians_are_copied_and_keep_their_size():
    state = state_of("static", size=0.01)
    state.importance[:] = [0, 0, 9.0, 0, 0]
    densification.grow(state, DENSIFY, np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(state.values["scales"]), 0.01, rtol=1e-5)
    np.testing.assert_allclose(np.sort(1 / (1 + np.exp(-state.values["opacities"]))), [1 - 0.2**0.5] * 2 + [0.8] * 4, rtol=1e-5)


def test_nothing_is_left_to_double_where_all_is_transparent():
    state = state_of("static", opacity=0.001)
    densification.grow(state, DENSIFY, np.random.default_rng(0))
    assert len(state.values["means"]) == 5  # an empty scene could never come back
