"""What holds for every motion model, and what each of them promises."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from worldline.gaussians import Gaussians
from worldline.motion import MODELS, cuts, gaussian_flow, native_4d, series

COUNT = 9


def random_model(name: str, seed: int = 0) -> tuple[Gaussians, dict[str, torch.Tensor]]:
    """Gaussians that move in every way the model knows, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    canonical = Gaussians(
        normal(COUNT, 3), normal(COUNT, 4), uniform(0.2, 1, COUNT, 3), uniform(0.1, 1, COUNT), uniform(0.3, 0.7, COUNT, 3)
    )
    if name == "static":
        return canonical, {}
    if name == "gaussian_flow":
        motion = {"moving": torch.tensor([1, 2, 5]), "time_centers": 0.3 * normal(3), "time_rates": uniform(0.3, 1.5, 3)}
        motion |= {f"{key}_polynomial": 0.1 * normal(3, p, d) for key, p, d in (("position", 3, 3), ("rotation", 2, 4))}
        motion |= {f"{key}_fourier": 0.1 * normal(3, 2 * n, d) for key, n, d in (("position", 2, 3), ("rotation", 1, 4))}
        return canonical, motion | {"color_polynomial": 0.03 * normal(3, 1, 3), "color_fourier": 0.03 * normal(3, 2, 3)}
    if name == "native_4d":
        motion = {"times": uniform(0, 1, COUNT), "time_scales": uniform(0.3, 0.6, COUNT), "right_quats": normal(COUNT, 4)}
        motion |= {"time_colors": 0.1 * normal(COUNT, 2, 3), "time_harmonics": 0.1 * normal(COUNT, 2, 8, 3)}
        return canonical._replace(harmonics=0.1 * normal(COUNT, 8, 3)), motion
    if name == "periodic_vibration":
        return canonical, {
            "velocities": normal(COUNT, 3),
            "peaks": uniform(0, 1, COUNT),
            "lifespans": uniform(0.2, 0.5, COUNT),
            "cycle": torch.tensor([0.7], dtype=torch.float64),
        }
    if name == "gaussian_birth":
        drift = {"velocities": normal(COUNT, 3), "peaks": uniform(0, 1, COUNT), "lifespans": uniform(0.2, 0.5, COUNT)}
        always = torch.full((COUNT,), torch.inf, dtype=torch.float64)
        return canonical, drift | {"starts": -always, "ends": always}
    assert name == "rigid_agents"
    times = torch.tensor([0.0, 0.25, 0.4, 0.9, 1.0], dtype=torch.float64)
    quats = torch.nn.functional.normalize(normal(2, len(times), 4), dim=-1)
    return canonical, {
        "agents": torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0]),
        "agent_times": times,
        "agent_quats": quats,
        "agent_positions": normal(2, len(times), 3),
        "agent_alive": torch.ones(2, len(times), dtype=torch.bool),
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("time", [0.05, 0.31, 0.77, 0.95])
def test_velocities_are_differences_of_places(name, time):
    canonical, motion = random_model(name)
    model, step = MODELS[name], 1e-6
    places = [model.state_at(canonical, motion, time + sign * step).means for sign in (-1, 1)]
    velocity = model.velocity_at(canonical, motion, time)
    assert name == "static" or velocity.abs().max() > 0.1
    torch.testing.assert_close(velocity, (places[1] - places[0]) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_states_are_differentiable_by_everything_that_is_a_number(name):
    canonical, motion = random_model(name)
    names = [key for key, value in motion.items() if value.is_floating_point() and key not in ("agent_times", "starts", "ends")]
    given = [field for field in canonical._fields if getattr(canonical, field) is not None]

    def state(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gaussians = canonical._replace(**dict(zip(given, inputs, strict=False)))
        moved = MODELS[name].state_at(gaussians, motion | dict(zip(names, inputs[len(given) :], strict=True)), 0.4321)
        return tuple(tensor for tensor in moved if tensor is not None)

    leaves = [tensor.clone().requires_grad_() for tensor in (*map(canonical.__getattribute__, given), *map(motion.get, names))]
    assert torch.autograd.gradcheck(state, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_no_gaussians_are_no_gaussians_at_every_time(name):
    canonical, motion = random_model(name)
    per_agent = ("agent_times", "agent_quats", "agent_positions", "agent_alive", "cycle")
    empty = Gaussians(*(None if tensor is None else tensor[:0] for tensor in canonical))
    nothing = {key: value if key in per_agent else value[:0] for key, value in motion.items()}
    assert MODELS[name].state_at(empty, nothing, 0.3).means.shape == (0, 3)
    assert MODELS[name].velocity_at(empty, nothing, 0.3).shape == (0, 3)


# -- native 4D Gaussians -------------------------------------------------------------------------------------------------


def covariance_4d(canonical: Gaussians, motion: dict[str, torch.Tensor]) -> np.ndarray:
    rotation = native_4d.rotation_4d(canonical.quats, motion["right_quats"]).permute(2, 0, 1).numpy()
    variances = torch.cat([canonical.scales, motion["time_scales"][:, None]], dim=1).square().numpy()
    return np.einsum("nij,nj,nkj->nik", rotation, variances, rotation)


def test_cuts_are_the_moments_of_the_4d_normal_on_a_slice_of_constant_time():
    canonical, motion = random_model("native_4d")
    state = native_4d.state_at(canonical, motion, 0.37)
    sigma = covariance_4d(canonical, motion)
    axis = np.linspace(-7, 7, 61)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    for n in range(3):
        # The 4D density on points of the slice, in no more than its definition: moments by summing over a grid.
        centre, root = state.means[n].numpy(), np.linalg.cholesky(sigma[n, :3, :3])
        points = centre + grid @ root.T
        offsets = np.concatenate(
            [points - canonical.means[n].numpy(), np.full((len(grid), 1), 0.37 - float(motion["times"][n]))], 1
        )
        weight = np.exp(-0.5 * np.einsum("pi,ij,pj->p", offsets, np.linalg.inv(sigma[n]), offsets))
        mean = weight @ points / weight.sum()
        spread = (weight[:, None] * (points - mean)).T @ (points - mean) / weight.sum()
        np.testing.assert_allclose(centre, mean, atol=1e-5)
        np.testing.assert_allclose(state.covars[n], spread, atol=1e-5)


def test_4d_rotations_are_orthonormal_and_keep_orientation():
    canonical, motion = random_model("native_4d")
    rotation = native_4d.rotation_4d(canonical.quats, motion["right_quats"]).permute(2, 0, 1)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(4, dtype=torch.float64).expand(COUNT, 4, 4))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(COUNT, dtype=torch.float64))


def test_equal_quaternions_stand_still_and_turn_space_like_a_3d_gaussian():
    canonical, motion = random_model("native_4d")
    motion["right_quats"] = 3.0 * canonical.quats
    state = native_4d.state_at(canonical, motion, 0.2)
    turns = Rotation.from_quat(canonical.quats.numpy(), scalar_first=True).as_matrix()
    covars = np.einsum("nij,nj,nkj->nik", turns, canonical.scales.numpy() ** 2, turns)
    np.testing.assert_allclose(state.covars, covars, atol=1e-12)
    assert native_4d.velocity_at(canonical, motion, 0.2).abs().max() < 1e-12
    torch.testing.assert_close(state.means, canonical.means)


def test_opacity_halves_where_the_normal_does_and_is_nothing_in_the_tails():
    canonical, motion = random_model("native_4d")
    sigma = np.sqrt(covariance_4d(canonical, motion)[:, 3, 3])
    for n in range(COUNT):
        peak, opacity = float(motion["times"][n]), float(canonical.opacities[n])
        half, tail = peak + sigma[n] * np.sqrt(2 * np.log(2)), sigma[n] * np.sqrt(2 * np.log(1 / native_4d.CULLED))
        shown = [float(native_4d.state_at(canonical, motion, t).opacities[n]) for t in (peak, half, peak - 0.99 * tail)]
        np.testing.assert_allclose(shown[:2], [opacity, opacity / 2], rtol=1e-9)
        assert shown[2] > 0.05 * opacity
        assert float(native_4d.state_at(canonical, motion, peak + 1.01 * tail).opacities[n]) == 0.0


def test_a_thin_fast_gaussian_keeps_a_positive_covariance_in_single_precision():
    # Spread along x 1 by its motion, 1e-4 across: the textbook's difference of covariances loses the latter in float32.
    angle = torch.tensor(np.arctan(2.0))
    left = torch.tensor([[torch.cos(angle / 2), torch.sin(angle / 2), 0, 0]], dtype=torch.float32)
    right = left * torch.tensor([1.0, -1, -1, -1])
    canonical = Gaussians(torch.zeros(1, 3), left, torch.full((1, 3), 1e-4), torch.ones(1), torch.ones(1, 3))
    motion = {"times": torch.zeros(1), "time_scales": torch.full((1,), 0.5), "right_quats": right}
    exact = native_4d.state_at(canonical._replace(**{k: getattr(canonical, k).double() for k in ("means", "quats", "scales")}),
                               {name: value.double() for name, value in motion.items()}, 0.0).covars  # fmt: skip
    found = native_4d.state_at(canonical, motion, 0.0).covars
    assert torch.linalg.eigvalsh(found.double()).min() > 0
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=1e-12)


def test_colours_run_through_their_cosines():
    canonical, motion = random_model("native_4d")
    time = 0.83
    state, since = native_4d.state_at(canonical, motion, time), time - motion["times"].numpy()
    one, two = (np.cos(2 * np.pi * order * since) for order in (1, 2))
    terms, bands = motion["time_colors"].numpy(), motion["time_harmonics"].numpy()
    colors = canonical.colors.numpy() + one[:, None] * terms[:, 0] + two[:, None] * terms[:, 1]
    harmonics = canonical.harmonics.numpy() + one[:, None, None] * bands[:, 0] + two[:, None, None] * bands[:, 1]
    np.testing.assert_allclose(state.colors, colors)
    np.testing.assert_allclose(state.harmonics, harmonics)


def test_splits_scatter_as_the_4d_gaussian_does():
    canonical, motion = random_model("native_4d")
    pick, draws = 4, 200_000
    one = Gaussians(
        *(None if tensor is None else tensor[pick : pick + 1].expand(draws, *tensor.shape[1:]) for tensor in canonical)
    )
    many = {name: value[pick : pick + 1].expand(draws, *value.shape[1:]) for name, value in motion.items()}
    noise = torch.randn(draws, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    space, time = native_4d.spread(one, many, noise)
    found = np.cov(torch.cat([space, time[:, None]], dim=1).numpy().T)
    np.testing.assert_allclose(found, covariance_4d(canonical, motion)[pick], atol=0.01)


def test_the_compiled_cut_agrees_with_its_readable_twin_forward_and_backward():
    canonical, motion = random_model("native_4d")
    sizes = torch.cat([canonical.scales, motion["time_scales"][:, None]], dim=1)
    leaves = [tensor.clone().requires_grad_() for tensor in (canonical.quats, motion["right_quats"], sizes)]
    slopes = [torch.sin(torch.arange(n * COUNT, dtype=torch.float64)).reshape(COUNT, *shape)
              for n, shape in ((3, (3,)), (1, ()), (9, (3, 3)))]  # fmt: skip
    found, expected = (
        (*results, *torch.autograd.grad(results, leaves, slopes))
        for results in (cuts.cut_gaussians(*leaves), tuple(native_4d.cut(*leaves)))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


# -- Gaussian-Flow -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("powers", "harmonics"), [(3, 2), (0, 2), (2, 0), (0, 0)])
def test_the_compiled_series_agrees_with_its_readable_twin_forward_and_backward(powers, harmonics):
    generator = torch.Generator().manual_seed(0)
    shapes = (5,), (5, powers, 3), (5, 2 * harmonics, 3)
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    slope = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    found, expected = (
        (values, *torch.autograd.grad(values, leaves, slope, allow_unused=True, materialize_grads=True))
        for values in (series.evaluate_series(*leaves), gaussian_flow.series(*leaves))
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gaussian_with_a_doubled_time_rate_lives_twice_as_fast():
    canonical, motion = random_model("gaussian_flow")
    motion["time_centers"] = torch.zeros_like(motion["time_centers"])
    slow = motion | {"time_rates": torch.full((3,), 0.4, dtype=torch.float64)}
    fast = motion | {"time_rates": torch.full((3,), 0.8, dtype=torch.float64)}
    for one, other in zip(
        gaussian_flow.state_at(canonical, slow, 0.6)[:5], gaussian_flow.state_at(canonical, fast, 0.3)[:5], strict=True
    ):
        torch.testing.assert_close(one, other)


# -- periodic vibration --------------------------------------------------------------------------------------------------


def test_a_vibrating_gaussian_is_back_after_a_cycle_and_fades_with_its_life_span():
    canonical, motion = random_model("periodic_vibration")
    model = MODELS["periodic_vibration"]
    cycle = float(motion["cycle"])
    first, again = (model.state_at(canonical, motion, 0.1 + turn * cycle).means for turn in (0, 1))
    torch.testing.assert_close(first, again)
    motion["peaks"] = torch.full((COUNT,), 0.5, dtype=torch.float64)
    motion["lifespans"] = torch.full((COUNT,), 0.2, dtype=torch.float64)
    peak = model.state_at(canonical, motion, 0.5)
    torch.testing.assert_close(peak.means, canonical.means)
    torch.testing.assert_close(peak.opacities, canonical.opacities)
    torch.testing.assert_close(model.velocity_at(canonical, motion, 0.5), motion["velocities"])
    later = model.state_at(canonical, motion, 0.7)
    torch.testing.assert_close(later.opacities, canonical.opacities * np.exp(-0.5))


# -- rigid agents --------------------------------------------------------------------------------------------------------


def test_agents_turn_along_great_circles_and_move_along_lines():
    canonical, motion = random_model("rigid_agents")
    times, model = motion["agent_times"].numpy(), MODELS["rigid_agents"]
    for time in (0.0, 0.1, 0.25, 0.33, 0.6, 0.95, 1.0):
        state = model.state_at(canonical, motion, time)
        for agent in (1, 2):
            mine = motion["agents"].numpy() == agent
            path = Slerp(times, Rotation.from_quat(motion["agent_quats"][agent - 1].numpy(), scalar_first=True))(time)
            track = motion["agent_positions"][agent - 1].numpy()
            origin = [np.interp(time, times, track[:, k]) for k in range(3)]
            np.testing.assert_allclose(state.means[mine], path.apply(canonical.means[mine].numpy()) + origin, atol=1e-9)
            turned = path * Rotation.from_quat(canonical.quats[mine].numpy(), scalar_first=True)
            found = Rotation.from_quat(state.quats[mine].numpy(), scalar_first=True)
            np.testing.assert_allclose(found.as_matrix(), turned.as_matrix(), atol=1e-9)
        background = motion["agents"] == 0
        torch.testing.assert_close(state.means[background], canonical.means[background])


def test_agents_keep_their_ends_and_stand_still_beyond_them():
    canonical, motion = random_model("rigid_agents")
    model, motion = MODELS["rigid_agents"], motion | {"agent_times": 0.2 + 0.6 * motion["agent_times"]}
    for outside, end in ((0.0, 0.2), (1.0, 0.8)):
        torch.testing.assert_close(model.state_at(canonical, motion, outside).means, model.state_at(canonical, motion, end).means)
        assert not model.velocity_at(canonical, motion, outside).any()


def test_agents_move_without_jumps_through_their_poses():
    canonical, motion = random_model("rigid_agents")
    model, step = MODELS["rigid_agents"], 1e-7
    for time in motion["agent_times"].tolist():
        before, after = (model.state_at(canonical, motion, time + sign * step).means for sign in (-1, 1))
        assert (before - after).abs().max() < 1e-4


def test_an_agent_that_is_not_there_cannot_be_seen():
    canonical, motion = random_model("rigid_agents")
    motion["agent_alive"][0] = torch.tensor([False, True, True, False, False])
    model, first = MODELS["rigid_agents"], motion["agents"] == 1
    for time, there in ((0.0, False), (0.1, False), (0.25, True), (0.3, True), (0.4, True), (0.5, False), (1.0, False)):
        opacities = model.state_at(canonical, motion, time).opacities
        torch.testing.assert_close(opacities[first], canonical.opacities[first] * there)
        torch.testing.assert_close(opacities[~first], canonical.opacities[~first])


def test_an_agent_seen_once_is_where_it_was_seen():
    canonical, motion = random_model("rigid_agents")
    once = motion | {name: motion[name][:, :1] for name in ("agent_quats", "agent_positions", "agent_alive")}
    once["agent_times"] = motion["agent_times"][2:3]
    model = MODELS["rigid_agents"]
    shown = model.state_at(canonical, once, 0.9)
    torch.testing.assert_close(shown.means, model.state_at(canonical, motion, 0.0).means)
    assert not model.velocity_at(canonical, once, 0.4).any()


def test_poses_that_do_not_change_have_finite_slopes():
    canonical, motion = random_model("rigid_agents")
    quats = motion["agent_quats"][:, :1].expand(-1, 5, -1).clone().requires_grad_()
    MODELS["rigid_agents"].state_at(canonical, motion | {"agent_quats": quats}, 0.3).means.square().sum().backward()
    assert torch.isfinite(quats.grad).all()
    assert quats.grad.abs().max() > 0
