import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from worldline.gaussians import Gaussians
from worldline.motion.regularisers import (
    Neighbours,
    find_neighbours,
    motion_price,
    rigidity,
    time_smoothness,
    velocity_rigidity,
)


def cloud(count: int = 30, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    means, quats = (torch.randn(count, width, generator=generator, dtype=torch.float64) for width in (3, 4))
    return Gaussians(means, quats, torch.ones(count, 3).double(), torch.ones(count).double(), torch.ones(count, 3).double())


def moved(gaussians: Gaussians, turn: Rotation, shift: list[float], turn_axes: bool = True) -> Gaussians:
    means = torch.from_numpy(turn.apply(gaussians.means.numpy()) + shift)
    quats = (turn * Rotation.from_quat(gaussians.quats.numpy(), scalar_first=True)).as_quat(scalar_first=True)
    # Quaternions of any length and either sign say the same.
    return gaussians._replace(means=means, quats=-2.0 * torch.from_numpy(quats) if turn_axes else gaussians.quats)


TURN = Rotation.from_rotvec([0.3, -0.8, 0.5])


def test_a_body_that_turns_and_moves_as_one_is_rigid():
    body = cloud()
    assert rigidity(body, moved(body, TURN, [1.0, 2.0, -3.0]), find_neighbours(body.means, 8, 0.5)) < 1e-24


def test_rigidity_charges_what_a_turning_gaussian_sees_its_neighbours_do():
    body = cloud()
    neighbours = find_neighbours(body.means, 4, 0.5)
    stretched = moved(body._replace(means=1.5 * body.means), TURN, [0, 1, 0])
    arms = (body.means[neighbours.indices] - body.means[:, None]).norm(dim=-1)
    expected = (neighbours.weights * (0.5 * arms).square()).mean()
    torch.testing.assert_close(rigidity(body, stretched, neighbours), expected)
    # Places that turn about each other while the Gaussians do not: each sees its neighbours pass by.
    assert rigidity(body, moved(body, TURN, [0, 1, 0], turn_axes=False), neighbours) > 0.1 * expected


def test_neighbours_are_the_nearest_others_weighted_by_distance():
    means = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [3, 0, 0]])
    found = find_neighbours(means, 1, 2.0)
    assert found.indices.tolist() == [[1], [0], [3], [2]]
    torch.testing.assert_close(found.weights, torch.exp(torch.tensor([[-2.0], [-2.0], [0.0], [0.0]])))
    assert find_neighbours(means[:1], 5, 1.0).indices.shape == (1, 0)
    assert find_neighbours(means, 20, 1.0).indices.shape == (4, 3)


def test_velocity_rigidity_is_the_weighted_difference_of_velocities():
    neighbours = Neighbours(torch.tensor([[1], [0], [1]]), torch.tensor([[1.0], [1.0], [0.5]], dtype=torch.float64))
    velocities = torch.tensor([[1.0, 0, 0], [1, 3, 4], [1, 3, 4]], dtype=torch.float64)
    assert float(velocity_rigidity(velocities, neighbours)) == pytest.approx((5 + 5 + 0) / 3)
    together = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)
    velocity_rigidity(together, neighbours).backward()
    assert not together.grad.any()  # and not NaN, which a length has for a slope at 0


def test_time_smoothness_pulls_the_future_to_the_present_and_not_back():
    now, later = torch.zeros(2, 3, requires_grad=True), torch.tensor([[1.0, -2, 0], [0, 0, 3]], requires_grad=True)
    price = time_smoothness(later, now)
    assert price.item() == pytest.approx(1.0)
    price.backward()
    assert now.grad is None
    torch.testing.assert_close(later.grad, torch.tensor([[1.0, -1, 0], [0, 0, 1]]) / 6)


def test_motion_costs_the_distance_of_the_unit_quaternions():
    left = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0]])
    assert float(motion_price(left, 5.0 * left)) == 0.0
    right = torch.tensor([[0.0, 1, 0, 0], [0, 1, 0, 0]])
    assert float(motion_price(left, right)) == pytest.approx(1.0)


def test_prices_have_the_slopes_of_their_differences():
    body = cloud(8)
    later = moved(body, TURN, [0.1, 0.0, 0.2])
    neighbours = find_neighbours(body.means, 3, 0.3)

    def prices(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = body._replace(means=inputs[0], quats=inputs[1])
        second = later._replace(means=inputs[2], quats=inputs[3])
        return (
            rigidity(first, second, neighbours),
            velocity_rigidity(inputs[2], neighbours),
            motion_price(inputs[1], inputs[3]),
        )

    rng = np.random.default_rng(0)
    leaves = [
        (tensor + 0.1 * torch.from_numpy(rng.standard_normal(tuple(tensor.shape)))).requires_grad_()
        for tensor in (body.means, body.quats, later.means, later.quats)
    ]
    assert torch.autograd.gradcheck(prices, leaves, eps=1e-6, atol=1e-6)
