"""Small worlds in which every question about time has an exact answer.

A scene is a function of normalised time in [0, 1] that returns its solids with poses and velocities in closed form. The
four scenes put the questions that motion models differ in: `bounce` (speed that changes, a turn, a spin in place),
`appear` (something is suddenly there), `arm` (parts that move with parts), `pulse` (colour changes, nothing moves).
"""

from collections.abc import Callable
from dataclasses import replace
from math import cos, floor, pi, sin

import numpy as np

from worldline.cameras import rotation_from_vector
from worldline.worlds.raycast import Paint, Solid

# What the objects of all scenes stay within: x, y, z from and to.
LOW, HIGH = np.array([-1.6, -1.6, -0.1]), np.array([1.6, 1.6, 1.7])
BACKGROUND = np.array([0.80, 0.86, 0.92])
APPEARS = 0.5  # when the box of `appear` comes into being
_STILL = np.zeros(3)
_UPRIGHT = np.eye(3)


def _solid(
    shape: str,
    size: tuple[float, ...],
    paint: Paint,
    position: np.ndarray | tuple[float, float, float],
    rotation: np.ndarray = _UPRIGHT,
    linear: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 0.0),
    angular: np.ndarray = _STILL,
    instance: int = 0,
) -> Solid:
    return Solid(shape, size, paint, np.array(position, float), rotation, np.array(linear, float), angular, instance)


def _stage() -> tuple[Solid, ...]:
    """Return what never moves: the floor and three things at its border."""
    return (
        _solid("floor", (1.6, 1.6), Paint((0.52, 0.50, 0.46), (0.78, 0.74, 0.66), 0.85), (0.0, 0.0, 0.0)),
        _solid("box", (0.16, 0.3, 0.2), Paint((0.30, 0.42, 0.30), (0.55, 0.66, 0.42), 0.4), (-1.2, 0.9, 0.2)),
        _solid("capsule", (0.13, 0.3), Paint((0.42, 0.34, 0.50), (0.70, 0.60, 0.74), 0.4, 1.0), (1.15, 1.0, 0.43)),
        _solid("sphere", (0.2,), Paint((0.66, 0.60, 0.30), (0.88, 0.84, 0.60), 0.4, 2.0), (1.1, -1.1, 0.2)),
    )


def bounce(time: float) -> tuple[Solid, ...]:
    """Return a ball that bounces across the floor while it turns, and a box that spins in place.

    The ball falls from its highest point at time 0 and meets the floor at 0.3 and 0.9.
    """
    radius, drop, period = 0.33, 0.55, 0.6
    phase = time / period + 0.5
    phase -= floor(phase)  # 0 and 1 on the floor, 1/2 at the top
    height, climb = 4 * drop * phase * (1 - phase), 4 * drop * (1 - 2 * phase) / period
    ball_spin = np.array([0.6, 2.6, 1.2])
    box_spin = np.array([0.0, 0.0, 0.9 * pi])
    ball, box = Paint((0.80, 0.18, 0.14), (0.96, 0.80, 0.36), 0.42), Paint((0.12, 0.30, 0.66), (0.66, 0.86, 0.94), 0.45, 0.7)
    return (
        *_stage(),
        _solid(
            "sphere", (radius,), ball, (-0.75 + 1.5 * time, -0.45, radius + height),
            rotation_from_vector(ball_spin * time), (1.5, 0.0, climb), ball_spin, 1,
        ),
        _solid(
            "box", (0.32, 0.24, 0.3), box, (0.05, 0.55, 0.3),
            rotation_from_vector(box_spin * time), angular=box_spin, instance=2,
        ),
    )  # fmt: skip


def appear(time: float) -> tuple[Solid, ...]:
    """Return a ball on a circle, and from `APPEARS` on a box that was not there before."""
    radius, rate, reach = 0.3, 1.5 * pi, 0.8
    angle = rate * time - 0.5
    around, spin = np.array([cos(angle), sin(angle), 0.0]), np.array([0.0, 0.0, rate])
    ball, box = Paint((0.10, 0.42, 0.34), (0.80, 0.92, 0.50), 0.42), Paint((0.74, 0.20, 0.44), (0.96, 0.72, 0.62), 0.45, 0.4)
    solids = (
        *_stage(),
        _solid(
            "sphere", (radius,), ball, reach * around + (0.0, 0.0, 0.55),
            rotation_from_vector(spin * time), reach * rate * np.array([-sin(angle), cos(angle), 0.0]), spin, 1,
        ),
    )  # fmt: skip
    return solids if time < APPEARS else (*solids, _solid("box", (0.3, 0.3, 0.3), box, (0.0, 0.0, 0.3), instance=2))


def arm(time: float) -> tuple[Solid, ...]:
    """Return a post that turns and three limbs on it, each jointed to the one before: instances 1 to 4."""
    # Each joint: its axis in the frame of the limb before it, its angle and the angle's rate.
    swing = 2 * pi * time
    joints = (
        (np.array([0.0, 0.0, 1.0]), 0.9 * sin(swing), 0.9 * 2 * pi * cos(swing)),
        (np.array([0.0, 1.0, 0.0]), 0.7 + 0.35 * cos(swing), -0.35 * 2 * pi * sin(swing)),
        (np.array([0.0, 1.0, 0.0]), 0.8 + 0.5 * sin(swing + 0.8), 0.5 * 2 * pi * cos(swing + 0.8)),
        (np.array([1.0, 0.0, 0.0]), 0.6 * sin(swing + 2.0), 0.6 * 2 * pi * cos(swing + 2.0)),
    )
    lengths, radii = (0.42, 0.52, 0.44, 0.2), (0.2, 0.17, 0.15, 0.13)
    paints = (
        Paint((0.26, 0.28, 0.34), (0.60, 0.64, 0.70), 0.35),
        Paint((0.80, 0.34, 0.12), (0.96, 0.74, 0.40), 0.35, 0.5),
        Paint((0.14, 0.36, 0.62), (0.60, 0.84, 0.92), 0.35, 1.0),
        Paint((0.62, 0.16, 0.40), (0.94, 0.66, 0.74), 0.35, 1.5),
    )
    joint, speed = np.array([0.0, 0.0, 0.2]), np.zeros(3)
    rotation, angular = np.eye(3), np.zeros(3)
    limbs = []
    for number, ((axis, angle, rate), length, radius, paint) in enumerate(zip(joints, lengths, radii, paints, strict=True), 1):
        angular = angular + rotation @ axis * rate
        rotation = rotation @ rotation_from_vector(axis * angle)
        along = rotation[:, 2] * length
        limbs.append(
            _solid(
                "capsule", (radius, length / 2), paint, joint + along / 2, rotation,
                speed + np.cross(angular, along / 2), angular, number,
            )
        )  # fmt: skip
        joint, speed = joint + along, speed + np.cross(angular, along)
    return (*_stage(), *limbs)


def pulse(time: float) -> tuple[Solid, ...]:
    """Return a ball that glows up and down once, and a box that does so twice; neither moves."""
    ball, box = Paint((0.10, 0.16, 0.44), (0.36, 0.52, 0.80), 0.45), Paint((0.50, 0.14, 0.10), (0.80, 0.46, 0.24), 0.45, 0.7)
    slow, fast = 0.5 - 0.5 * cos(2 * pi * time), 0.5 - 0.5 * cos(4 * pi * time)
    return (
        *_stage(),
        _solid("sphere", (0.4,), _tinted(ball, (0.98, 0.86, 0.30), slow), (-0.45, -0.2, 0.4), instance=1),
        _solid("box", (0.28, 0.28, 0.28), _tinted(box, (0.40, 0.90, 0.56), fast), (0.5, 0.3, 0.28), instance=2),
    )


def _tinted(paint: Paint, color: tuple[float, float, float], share: float) -> Paint:
    """Return a paint of which so large a share of both colours became another colour, short of a fifth that stays."""

    def mix(old: tuple[float, float, float]) -> tuple[float, float, float]:
        red, green, blue = 0.8 * share * np.array(color) + (1 - 0.8 * share) * np.array(old)
        return float(red), float(green), float(blue)

    return replace(paint, first=mix(paint.first), second=mix(paint.second))


TOYS: dict[str, Callable[[float], tuple[Solid, ...]]] = {"bounce": bounce, "appear": appear, "arm": arm, "pulse": pulse}
# Times at which a scene is not continuous: a moment between two pictures on either side of one can look like either.
JUMPS: dict[str, tuple[float, ...]] = {"appear": (APPEARS,)}
