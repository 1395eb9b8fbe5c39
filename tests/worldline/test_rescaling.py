"""A scene in another unit of length is the same scene; a 4D Gaussian is known by its cuts."""

import numpy as np
import pytest
import torch

from schemas.scenes import Scene4D
from worldline import motion
from worldline.motion.native_4d import cut, rotation_4d
from worldline.motion.space_time import join_cuts, quaternions_of_rotation_4d
from worldline.scenes import rescale_scene

COUNT = 7


def scene(model: str, arrays: dict[str, np.ndarray]) -> Scene4D:
    rng = np.random.default_rng(1)
    quats = rng.standard_normal((COUNT, 4)).astype(np.float32)
    return Scene4D(
        motion_model=model,
        means=rng.standard_normal((COUNT, 3)).astype(np.float32),
        quats=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        scales=rng.uniform(0.1, 1, (COUNT, 3)).astype(np.float32),
        opacities=rng.uniform(0.1, 0.9, COUNT).astype(np.float32),
        colors=rng.uniform(0, 1, (COUNT, 3)).astype(np.float32),
        motion={name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()},
        start_s=0.0, end_s=2.0, background=np.zeros(3), scale_source="none", scale_sigma=0.0,
    )  # fmt: skip


def motions() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    draw = rng.standard_normal
    return {
        "static": {},
        "gaussian_flow": {
            "moving": np.arange(3), "time_centers": rng.uniform(0, 0.5, 3),
            "position_polynomial": draw((3, 2, 3)), "position_fourier": draw((3, 2, 3)),
            "rotation_polynomial": draw((3, 1, 4)), "rotation_fourier": draw((3, 0, 4)),
            "color_polynomial": draw((3, 1, 3)), "color_fourier": draw((3, 0, 3)),
        },
        "native_4d": {
            "times": rng.uniform(0, 1, COUNT), "time_scales": rng.uniform(0.2, 1, COUNT), "right_quats": draw((COUNT, 4)),
        },
        "periodic_vibration": {
            "velocities": draw((COUNT, 3)), "peaks": rng.uniform(0, 1, COUNT), "lifespans": rng.uniform(0.2, 1, COUNT),
            "cycle": np.array([0.3]),
        },
        "rigid_agents": {
            "agents": np.arange(COUNT) % 2, "agent_times": np.array([0.0, 1.0]), "agent_quats": draw((1, 2, 4)),
            "agent_positions": draw((1, 2, 3)), "agent_alive": np.ones((1, 2), bool),
        },
    }  # fmt: skip


@pytest.mark.parametrize("model", motions())
def test_lengths_are_multiplied_and_nothing_else(model):
    original = scene(model, motions()[model])
    large = rescale_scene(original, 5.0)
    for time_s in (0.0, 0.7, 2.0):
        before, after = motion.state_at(original, time_s), motion.state_at(large, time_s)
        np.testing.assert_allclose(after.means, 5 * before.means, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(after.opacities, before.opacities, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after.colors, before.colors, rtol=1e-5)
        if before.covars is not None:
            np.testing.assert_allclose(after.covars, 25 * before.covars, rtol=1e-3, atol=1e-3)
        else:
            np.testing.assert_allclose(after.scales, 5 * before.scales, rtol=1e-5)
            np.testing.assert_allclose(after.quats, before.quats, atol=1e-6)
        np.testing.assert_allclose(
            motion.velocity_at(large, time_s), 5 * motion.velocity_at(original, time_s), rtol=1e-3, atol=1e-3
        )


def test_a_gaussian_joined_from_cuts_has_these_cuts():
    rng = np.random.default_rng(0)
    velocities, deviations = rng.standard_normal((50, 3)) * 3, rng.uniform(0.05, 3, 50)
    factors = rng.standard_normal((50, 3, 3)) * 0.2
    covars = factors @ factors.transpose(0, 2, 1)
    left, right, scales, time_scales = map(torch.from_numpy, join_cuts(velocities, deviations, covars))
    found = cut(left, right, torch.cat([scales, time_scales[:, None]], dim=1))
    np.testing.assert_allclose(found.velocities, velocities, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.variances, deviations**2, rtol=1e-6)
    np.testing.assert_allclose(found.covars, covars, atol=1e-7)


def test_a_standing_gaussian_has_equal_quaternions():
    left, right, scales, time_scales = join_cuts(np.zeros((1, 3)), np.array([0.4]), np.diag([0.01, 0.04, 0.09])[None])
    np.testing.assert_allclose(np.abs(left @ right.T), 1.0)
    np.testing.assert_allclose(np.sort(scales[0]), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(time_scales, [0.4])


def test_quaternions_of_a_rotation_make_that_rotation():
    rng = np.random.default_rng(3)
    rotations = np.linalg.qr(rng.standard_normal((20, 4, 4)))[0]
    rotations[..., 0] *= np.linalg.det(rotations)[:, None]
    left, right = map(torch.from_numpy, quaternions_of_rotation_4d(rotations))
    np.testing.assert_allclose(rotation_4d(left, right).permute(2, 0, 1), rotations, atol=1e-12)
