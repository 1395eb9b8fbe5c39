"""What a procedural world is made of: plain descriptions, with the motion of everything in closed form.

World frame: metres, right-handed, z up, road surface at z = 0. Actor frame: origin at the bottom centre of the
actor's box, x forward, y left, z up.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from worldline.worlds.ground import StreetPlan
from worldline.worlds.light import CLEAR, Weather


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one texture.

    Attributes:
        points: `[N, 3]` metres.  faces: `[M, 3]` vertex indices.
        uv: `[N, 2]` texture coordinates; (0, 0) is the texture's bottom left.  normals: `[N, 3]` unit.
        texture: `[h, w, 3]` RGB, first row on top.
        specular: strength of the sun's highlight, 0 (chalk) to 1 (glass).
        casts_shadow: whether it darkens the ground.
        lit: whether the texture already holds the light that falls on it.
    """

    points: Float64[np.ndarray, "N 3"]
    faces: Int64[np.ndarray, "M 3"]
    uv: Float64[np.ndarray, "N 2"]
    normals: Float64[np.ndarray, "N 3"]
    texture: UInt8[np.ndarray, "h w 3"]
    specular: float = 0.0
    casts_shadow: bool = True
    lit: bool = False

    def moved(self, target_from_mesh: np.ndarray) -> "Mesh":
        """Return the mesh under a rigid transform `[4, 4]`."""
        rotation, translation = target_from_mesh[:3, :3], target_from_mesh[:3, 3]
        return Mesh(
            self.points @ rotation.T + translation,
            self.faces,
            self.uv,
            self.normals @ rotation.T,
            self.texture,
            self.specular,
            self.casts_shadow,
            self.lit,
        )


@dataclass(frozen=True, eq=False)
class Route:
    """A curve on the ground by arc length, sampled densely enough that linear interpolation is exact to a millimetre.

    Attributes:
        arc_m: `[K]` increasing.  xy: `[K, 2]`.  heading_rad: `[K]` unwrapped.
    """

    arc_m: Float64[np.ndarray, " K"]
    xy: Float64[np.ndarray, "K 2"]
    heading_rad: Float64[np.ndarray, " K"]

    @classmethod
    def through(cls, xy: np.ndarray) -> "Route":
        """Build the route through dense points `[K, 2]`; arc length starts at 0."""
        arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
        tangent = np.gradient(xy, arc, axis=0)
        return cls(arc, np.asarray(xy, float), np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0])))

    def at(self, arc_m: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return position `[..., 2]` and heading `[...]` at an arc length."""
        xy = np.stack([np.interp(arc_m, self.arc_m, self.xy[:, axis]) for axis in (0, 1)], axis=-1)
        return xy, np.interp(arc_m, self.arc_m, self.heading_rad)

    def offset(self, left_m: np.ndarray | float) -> "Route":
        """Return the parallel route `left_m` to the left (one value, or one per sample)."""
        left = np.broadcast_to(left_m, self.arc_m.shape)[:, None]
        normal = np.stack([-np.sin(self.heading_rad), np.cos(self.heading_rad)], axis=1)
        return Route.through(self.xy + left * normal)

    def across(self, arc_m: float, reach_m: float) -> "Route":
        """Return a straight route over this one at right angles, from `reach_m` on its right to as much on its left."""
        xy, heading = self.at(arc_m)
        steps = np.linspace(-reach_m, reach_m, round(20 * reach_m) + 1)[:, None]
        return Route.through(xy + steps * np.array([-np.sin(heading), np.cos(heading)]))

    def reversed(self) -> "Route":
        """Return the same curve driven the other way."""
        return Route.through(self.xy[::-1])


@dataclass(frozen=True, eq=False)
class Motion:
    """Travel along a route with a piecewise linear speed.

    Attributes:
        route: where.
        start_m: arc length at time 0.
        knot_s, knot_mps: `[K]` times and speeds between which the speed is linear (constant outside).
        height_m: height of the surface moved on.
    """

    route: Route
    start_m: float
    knot_s: Float64[np.ndarray, " K"]
    knot_mps: Float64[np.ndarray, " K"]
    height_m: float = 0.0

    def speed(self, time_s: float) -> float:
        """Return the speed in m/s."""
        return float(np.interp(time_s, self.knot_s, self.knot_mps))

    def distance(self, time_s: float) -> float:
        """Return the metres travelled since time 0: the exact integral of `speed`."""
        if not self.knot_mps.any():
            return 0.0
        return self._integral(time_s) - self._integral(0.0)

    def _integral(self, time_s: float) -> float:
        first, last = self.knot_s[0], self.knot_s[-1]
        inside = np.unique(np.concatenate([self.knot_s[self.knot_s < time_s], [np.clip(time_s, first, last)], [first]]))
        speeds = np.interp(inside, self.knot_s, self.knot_mps)
        area = float(np.sum(np.diff(inside) * (speeds[1:] + speeds[:-1]) / 2))
        return area + min(time_s - first, 0.0) * self.knot_mps[0] + max(time_s - last, 0.0) * self.knot_mps[-1]

    def world_from_actor(self, time_s: float) -> np.ndarray:
        """Return the pose `[4, 4]` at a time."""
        xy, heading = self.route.at(self.start_m + self.distance(time_s))
        return planar_pose(xy[0], xy[1], self.height_m, float(heading))


def planar_pose(x: float, y: float, z: float, yaw_rad: float) -> np.ndarray:
    """Return the transform `[4, 4]` that turns by yaw about z and then moves to (x, y, z)."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], float)


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of an actor that may turn about a lateral axis as the actor travels: a wheel spins, a leg swings.

    Attributes:
        mesh: in its own frame, whose origin is the pivot.
        pivot: `[3]` in the actor frame.
        spin_rad_per_m: turn per metre travelled.
        swing_rad, swing_rad_per_m, swing_phase: amplitude, phase per metre and start of a pendulum.
    """

    mesh: Mesh
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spin_rad_per_m: float = 0.0
    swing_rad: float = 0.0
    swing_rad_per_m: float = 0.0
    swing_phase: float = 0.0

    def actor_from_part(self, travelled_m: float) -> np.ndarray:
        """Return the pose `[4, 4]` after so many metres."""
        angle = self.spin_rad_per_m * travelled_m
        angle += self.swing_rad * np.sin(self.swing_rad_per_m * travelled_m + self.swing_phase)
        cos, sin = np.cos(angle), np.sin(angle)
        x, y, z = self.pivot
        return np.array([[cos, 0, sin, x], [0, 1, 0, y], [-sin, 0, cos, z], [0, 0, 0, 1]], float)


@dataclass(frozen=True, eq=False)
class Actor:
    """A car or a person, moving or not.

    Attributes:
        track_id: from 1.
        class_name, colour: what a person would say.
        length, width, height: of its box, metres.
        parts: its pieces.
        motion: where it is when.
    """

    track_id: int
    class_name: str
    colour: str
    length: float
    width: float
    height: float
    parts: tuple[Part, ...]
    motion: Motion

    def moving(self, time_s: float) -> bool:
        """Return whether it moves faster than 5 cm/s."""
        return self.motion.speed(time_s) > 0.05


@dataclass(frozen=True, eq=False)
class Lens:
    """A pinhole camera with square pixels and its principal point in the middle.

    Attributes:
        width, height: pixels.  focal_px: focal length.
    """

    width: int
    height: int
    focal_px: float

    @property
    def intrinsics(self) -> np.ndarray:
        """Return the matrix `[3, 3]` for pixel centres at +0.5."""
        return np.array([[self.focal_px, 0, self.width / 2], [0, self.focal_px, self.height / 2], [0, 0, 1]], float)


@dataclass(frozen=True, eq=False)
class Scene:
    """A street and what happens in it.

    Attributes:
        layout: its name.
        static: everything that never moves and is no actor.
        actors: sorted by track_id.
        ego: the motion of the car that carries the camera.
        camera_height_m, camera_pitch_rad: mounting; positive pitch looks down.
        sway_phase: `[3]` phases of the suspension's sway in heave, pitch and roll.
        sky: `[h, w, 3]` panorama, azimuth along the width, zenith on top, horizon at the bottom row.
        sun_direction: unit vector from the ground to the sun; upwards where light comes from the whole sky.
        plan: the street's cross-section, paint and crossings in street coordinates.
        centre, origin_m: its centre line, and the arc length on it where s = 0.
        weather: light and haze.
    """

    layout: str
    static: tuple[Mesh, ...]
    actors: tuple[Actor, ...]
    ego: Motion
    camera_height_m: float
    camera_pitch_rad: float
    sway_phase: Float64[np.ndarray, "3"]
    sky: UInt8[np.ndarray, "h w 3"]
    sun_direction: Float64[np.ndarray, "3"]
    plan: StreetPlan
    centre: Route
    origin_m: float
    weather: Weather = CLEAR

    def world_from_camera(self, time_s: float) -> np.ndarray:
        """Return the camera's pose `[4, 4]` (OpenCV axes), with millimetres and minutes of arc of suspension sway."""
        heave = 0.006 * np.sin(2 * np.pi * 1.3 * time_s + self.sway_phase[0])
        pitch = self.camera_pitch_rad + 0.0025 * np.sin(2 * np.pi * 0.9 * time_s + self.sway_phase[1])
        roll = 0.002 * np.sin(2 * np.pi * 0.7 * time_s + self.sway_phase[2])
        cos_p, sin_p, cos_r, sin_r = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        # columns: image right, image down and viewing direction in the ego frame (x forward, y left, z up)
        level = np.array([[0, -sin_p, cos_p], [-1, 0, 0], [0, -cos_p, -sin_p]], float)
        turned = level @ np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]], float)
        ego_from_camera = np.eye(4)
        ego_from_camera[:3, :3] = turned
        ego_from_camera[2, 3] = self.camera_height_m + heave
        return self.ego.world_from_actor(time_s) @ ego_from_camera
