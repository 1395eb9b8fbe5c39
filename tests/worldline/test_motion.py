import dataclasses

import numpy as np
import pytest
import torch

from schemas.scenes import Scene4D
from worldline import motion


def make_scene(model: str = "gaussian_flow", count: int = 7, seed: int = 0) -> Scene4D:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    quats = normal(count, 4)
    moving = np.array([1, 2, 5])
    series = {
        f"{name}_polynomial": 0.3 * normal(3, p, d) for name, p, d in (("position", 3, 3), ("rotation", 2, 4), ("color", 1, 3))
    }
    series |= {
        f"{name}_fourier": 0.1 * normal(3, 2 * n, d) for name, n, d in (("position", 2, 3), ("rotation", 1, 4), ("color", 0, 3))
    }
    return Scene4D(
        motion_model=model,
        means=normal(count, 3),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        scales=np.exp(normal(count, 3)),
        opacities=rng.random(count).astype(np.float32),
        colors=rng.random((count, 3)).astype(np.float32),
        motion=series | {"moving": moving, "time_centers": 0.3 * normal(3)} if model == "gaussian_flow" else {},
        start_s=1.0,
        end_s=5.0,
        background=np.zeros(3),
        scale_source="none",
        scale_sigma=0.0,
    )


def in_double(scene: Scene4D) -> Scene4D:
    """The same scene in float64, for differences; the artifact type itself is float32."""
    copy = object.__new__(Scene4D)
    for field in dataclasses.fields(scene):
        value = getattr(scene, field.name)
        if isinstance(value, np.ndarray):
            value = value.astype(np.float64)
        elif isinstance(value, dict):
            value = {name: array if name == "moving" else array.astype(np.float64) for name, array in value.items()}
        object.__setattr__(copy, field.name, value)
    return copy


@pytest.mark.parametrize("time_s", [1.5, 2.75, 4.9])
def test_velocity_is_the_derivative_of_position(time_s):
    scene = in_double(make_scene())
    step = 1e-5
    difference = (motion.state_at(scene, time_s + step).means - motion.state_at(scene, time_s - step).means) / (2 * step)
    velocity = motion.velocity_at(scene, time_s)
    assert velocity.abs().max() > 0.05
    torch.testing.assert_close(velocity, difference, rtol=1e-6, atol=1e-8)


def test_a_linear_coefficient_is_a_constant_speed_in_units_per_second():
    scene = make_scene()
    arrays = {name: np.zeros_like(array) for name, array in scene.motion.items()} | {"moving": scene.motion["moving"]}
    arrays["position_polynomial"][:, 0, 1] = 8.0  # t' covers 0.5 over the 4 s of the clip: 1 unit/s along y
    scene = dataclasses.replace(scene, motion=arrays)
    for time_s in (1.0, 3.3, 5.0):
        np.testing.assert_allclose(motion.velocity_at(scene, time_s)[[1, 2, 5]], [[0, 1, 0]] * 3, atol=1e-6)
    moved = motion.state_at(scene, 4.0).means - motion.state_at(scene, 2.0).means
    np.testing.assert_allclose(moved[1], [0, 2, 0], atol=1e-5)


def test_only_listed_gaussians_move():
    scene = make_scene()
    first, second = motion.state_at(scene, 1.0), motion.state_at(scene, 4.0)
    still = [0, 3, 4, 6]
    for before, after in zip(first[:5], second[:5], strict=True):
        assert torch.equal(before[still], after[still])
    assert (first.means[[1, 2, 5]] != second.means[[1, 2, 5]]).any(dim=1).all()
    assert not motion.velocity_at(scene, 2.0)[still].any()


def test_the_canonical_state_is_the_state_at_each_gaussians_time_centre():
    scene = make_scene()
    scene.motion["time_centers"][:] = 0.25  # half of the clip: 3 s
    state = motion.state_at(scene, 3.0)
    np.testing.assert_allclose(state.means, scene.means, atol=1e-6)
    np.testing.assert_allclose(state.quats, scene.quats, atol=1e-6)


def test_states_are_valid_gaussians_at_every_time():
    scene = make_scene()
    for time_s in np.linspace(0, 6, 13):
        state = motion.state_at(scene, float(time_s))
        np.testing.assert_allclose(state.quats.norm(dim=-1), 1.0, atol=1e-5)
        assert state.colors.min() >= 0
        assert state.colors.max() <= 1


def test_outside_the_fitted_span_the_scene_stands_still():
    scene = make_scene()
    assert torch.equal(motion.state_at(scene, -3.0).means, motion.state_at(scene, 1.0).means)
    assert torch.equal(motion.state_at(scene, 50.0).means, motion.state_at(scene, 5.0).means)
    assert not motion.velocity_at(scene, 50.0).any()


def test_a_static_scene_never_moves():
    scene = make_scene("static")
    assert torch.equal(motion.state_at(scene, 1.0).means, torch.from_numpy(scene.means))
    assert torch.equal(motion.state_at(scene, 4.0).means, torch.from_numpy(scene.means))
    assert not motion.velocity_at(scene, 2.0).any()


def test_states_at_several_times_are_one_batch():
    scene = make_scene()
    batch = motion.states_at(scene, [1.0, 2.5, 4.0])
    assert batch.means.shape == (3, 7, 3)
    for row, time_s in enumerate((1.0, 2.5, 4.0)):
        for found, expected in zip(batch, motion.state_at(scene, time_s), strict=True):
            assert found is expected is None or torch.equal(found[row], expected)
