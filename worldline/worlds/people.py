"""Pedestrians: a body of tubes and ellipsoids with arms and legs that swing as far as they walk."""

import numpy as np

from worldline.worlds.noise import fractal_noise, tinted, to_bytes
from worldline.worlds.scene import Actor, Mesh, Motion, Part
from worldline.worlds.shapes import ellipsoid, tube

CLOTHES = {
    "red": (186, 44, 40),
    "blue": (48, 84, 160),
    "green": (52, 122, 74),
    "yellow": (226, 182, 58),
    "white": (222, 220, 214),
    "black": (38, 38, 42),
    "orange": (222, 112, 38),
}
STRIDE_RAD_PER_M = 2 * np.pi / 1.45


def make_pedestrian(rng: np.random.Generator, track_id: int, motion: Motion, *, colour: str = "") -> Actor:
    """Build a walking person of 1.6 to 1.85 m; the colour is that of the jacket."""
    colour = colour or str(rng.choice(list(CLOTHES)))
    scale = rng.uniform(0.92, 1.06)
    cloth = _cloth(rng, CLOTHES[colour])
    trousers = _cloth(rng, ((52, 56, 76), (92, 84, 70), (40, 40, 44))[rng.integers(3)])
    skin = _cloth(rng, ((224, 180, 150), (150, 104, 76), (96, 66, 50))[rng.integers(3)], grain=0.03)
    hair = _cloth(rng, ((40, 30, 24), (110, 80, 46), (150, 146, 140))[rng.integers(3)])
    torso = _flattened(tube(_column([0.82, 0.9, 1.15, 1.38, 1.46, 1.5]), np.array([0.0, 0.16, 0.17, 0.22, 0.16, 0.0]), cloth))
    head = ellipsoid((0.095, 0.08, 0.125), skin, centre=(0.01, 0, 1.63))
    cap = ellipsoid((0.105, 0.09, 0.115), hair, centre=(-0.015, 0, 1.665))
    bag = ellipsoid((0.07, 0.11, 0.15), _cloth(rng, (96, 70, 52)), centre=(-0.17, 0, 1.22))
    parts = [Part(_scaled(mesh, scale)) for mesh in (torso, head, cap, bag)]
    for side in (-1, 1):
        leg = tube(_column([0.0, -0.02, -0.42, -0.84]), np.array([0.0, 0.105, 0.075, 0.055]), trousers, sides=8)
        shoe = ellipsoid((0.13, 0.05, 0.05), hair, centre=(0.05, 0, -0.84))
        arm = tube(_column([0.0, -0.03, -0.3, -0.62]), np.array([0.0, 0.065, 0.052, 0.03]), cloth, sides=8)
        hand = ellipsoid((0.04, 0.03, 0.06), skin, centre=(0, 0, -0.65))
        phase = np.pi * (side > 0)
        for meshes, pivot, swing, shift in (
            ((leg, shoe), (0, side * 0.1, 0.89), 0.42, 0.0),
            ((arm, hand), (0, side * 0.235, 1.42), 0.36, np.pi),
        ):
            at = (scale * pivot[0], scale * pivot[1], scale * pivot[2])
            parts += [Part(_scaled(mesh, scale), at, 0.0, swing, STRIDE_RAD_PER_M, phase + shift) for mesh in meshes]
    return Actor(track_id, "pedestrian", colour, 0.6 * scale, 0.58 * scale, 1.785 * scale, tuple(parts), motion)


def _column(heights: list[float]) -> np.ndarray:
    return np.array([[0.0, 0.0, z] for z in heights])


def _cloth(rng: np.random.Generator, rgb: tuple[int, int, int], grain: float = 0.12) -> np.ndarray:
    return to_bytes(tinted(rgb, 1 + grain * fractal_noise(rng, (48, 48), 16, 4)))


def _flattened(mesh: Mesh) -> Mesh:
    """Make a round torso shallower than wide."""
    mesh.points[:, 0] *= 0.68
    return mesh


def _scaled(mesh: Mesh, scale: float) -> Mesh:
    return Mesh(mesh.points * scale, mesh.faces, mesh.uv, mesh.normals, mesh.texture, mesh.specular)
