"""Rigid agents: a static background and Gaussians that ride in tracked boxes, as driving logs give them.

The street of Yan et al., "Street Gaussians", 2024, and of its relatives: each Gaussian belongs to the background or to one
agent, whose pose is known at some times. Between two of them a pose follows the great circle of rotations (Shoemake, "Animating
rotation with quaternion curves", 1985) and the straight line of positions; before the first and after the last it stays.

Means and quaternions of an agent's Gaussians are in its box frame. Spherical harmonics keep to the directions of the world.

Arrays of `motion`, for N Gaussians, A agents and F times:
    agents: `[N]` int64, 0 for the background, a for agent a (from 1).
    agent_times: `[F]` normalised, rising.
    agent_quats: `[A, F, 4]` wxyz, rotations world_from_agent.
    agent_positions: `[A, F, 3]` of the agents' origins in the world.
    agent_alive: `[A, F]` bool, whether the agent is there; between two times it is there if it is at both.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from worldline.gaussians import Gaussians

# Below this sine of the half angle between two poses the great circle is a straight line, to float32's last digit.
_NEARLY_EQUAL = 1e-4


class Poses(NamedTuple):
    """The agents at a time, the background first with the identity.

    Attributes:
        quats: `[A + 1, 4]`.  positions: `[A + 1, 3]`.  alive: `[A + 1]` bool.
        velocities: `[A + 1, 3]` of the positions.  turns: `[A + 1, 3]` angular velocities in the world, radians.
            Both by the normalised time.
    """

    quats: Tensor
    positions: Tensor
    alive: Tensor
    velocities: Tensor
    turns: Tensor


def poses_at(motion: Mapping[str, Tensor], time: float) -> Poses:
    """Return the agents' poses and how they change, at a normalised time; differentiable by poses.

    Velocities are those of the interval that begins at the time, of the last interval at the last time, and zero outside.
    """
    times = motion["agent_times"]
    quats = torch.nn.functional.normalize(motion["agent_quats"], dim=-1)
    positions, alive = motion["agent_positions"], motion["agent_alive"].bool()
    before = min(max(int(torch.searchsorted(times, time, right=True)) - 1, 0), max(len(times) - 2, 0))
    after = min(before + 1, len(times) - 1)
    length = float(times[after] - times[before])
    inside = length > 0 and float(times[before]) <= time <= float(times[after])
    share = min(max((time - float(times[before])) / length, 0.0), 1.0) if length > 0 else 0.0
    rate = 1.0 / length if inside else 0.0
    turned, axis_angles = _great_circle(quats[:, before], quats[:, after], share)
    there = torch.stack([alive[:, before] | (share == 1.0), alive[:, after] | (share == 0.0)]).all(dim=0)
    step = positions[:, after] - positions[:, before]
    identity = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=quats.dtype, device=quats.device)
    still = torch.zeros(1, 3, dtype=quats.dtype, device=quats.device)
    return Poses(
        quats=torch.cat([identity, turned]),
        positions=torch.cat([still, positions[:, before] + share * step]),
        alive=torch.cat([torch.ones_like(there[:1]) if len(there) else torch.ones(1, dtype=torch.bool), there]),
        velocities=torch.cat([still, rate * step]),
        turns=torch.cat([still, rate * axis_angles]),
    )


def state_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Gaussians:
    """Return the Gaussians in the world at a normalised time; differentiable by the Gaussians and by the poses.

    Those of an agent that is not there have opacity 0.
    """
    poses, agents = poses_at(motion, time), motion["agents"]
    quats = poses.quats[agents]
    return canonical._replace(
        means=_turn(quats, canonical.means) + poses.positions[agents],
        quats=_multiply(quats, cast(Tensor, canonical.quats)),
        opacities=canonical.opacities * poses.alive[agents],
    )


def velocity_at(canonical: Gaussians, motion: Mapping[str, Tensor], time: float) -> Tensor:
    """Return `[N, 3]` velocities by the normalised time: v + omega x r, r from the agent's origin to the Gaussian."""
    poses, agents = poses_at(motion, time), motion["agents"]
    arms = _turn(poses.quats[agents], canonical.means)
    return poses.velocities[agents] + torch.linalg.cross(poses.turns[agents], arms)


def _great_circle(start: Tensor, end: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return quaternions `[A, 4]` a share of the shorter way, and the whole way as axis times angle `[A, 3]` in the world."""
    difference = _multiply(end, start * start.new_tensor([1.0, -1.0, -1.0, -1.0]))
    difference = torch.where(difference[:, :1] < 0, -difference, difference)
    sine_axis, cosine = difference[:, 1:], difference[:, :1]
    squared = sine_axis.square().sum(dim=-1, keepdim=True)
    small = squared < _NEARLY_EQUAL**2
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()  # no square root of 0, whose slope is not finite
    half = torch.atan2(sine, cosine)
    along = torch.where(small, torch.full_like(sine, share), torch.sin(share * half) / sine) * sine_axis
    turned = _multiply(torch.cat([torch.where(small, torch.ones_like(sine), torch.cos(share * half)), along], dim=-1), start)
    angles = torch.where(small, torch.full_like(sine, 2.0), 2.0 * half / sine) * sine_axis
    return torch.nn.functional.normalize(turned, dim=-1), angles


def _multiply(first: Tensor, second: Tensor) -> Tensor:
    """Return Hamilton products `[..., 4]`."""
    a, b, c, d = first.unbind(-1)
    e, f, g, h = second.unbind(-1)
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        dim=-1,
    )


def _turn(quats: Tensor, points: Tensor) -> Tensor:
    """Rotate points `[N, 3]` by unit quaternions `[N, 4]`: p + 2 w (u x p) + 2 u x (u x p)."""
    axis = quats[:, 1:]
    once = torch.linalg.cross(axis, points)
    return points + 2.0 * (quats[:, :1] * once + torch.linalg.cross(axis, once))
