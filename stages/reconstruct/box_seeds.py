"""Where the first Gaussians of a log with boxes go: those on an agent into its box's frame, the others into the street.

Points that depth maps (or lidar) saw inside a box at different times are gathered in the frame of that box, where a rigid agent
stands still (Yan et al., "Street Gaussians", 2024, section 3.3). An agent that no depth was seen on gets points on the faces
of its box, with the colours of the nearest picture that sees them from outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from stages.reconstruct.seeding import OPACITY, Seeds, neighbour_spacing
from stages.reconstruct.views import Views
from worldline.cameras import pixel_centres, pixel_rays, quaternion_from_rotation, rigid, rotation_from_vector

MARGIN = 0.05  # share of its size by which a box is taken larger: annotations cut off mirrors and bumpers
INWARD = 0.9  # where points on faces go, of the way from the middle: no car is as angular as its box
_LARGEST = 0.08  # of the box's diagonal: standard deviation of an agent's Gaussian


@dataclass(frozen=True)
class Boxes:
    """Boxes of A agents over F times. A box's frame: origin at its bottom centre, x forward, y left, z up.

    Attributes:
        times: `[F]` normalised, of the clip's frames.
        world_from_agent: `[A, F, 4, 4]`; the nearest known pose where an agent is not alive.
        alive: `[A, F]` bool, whether the agent has a box then.
        sizes: `[A, 3]` length, width, height.
        track_ids: `[A]` of the table that they come from.
    """

    times: np.ndarray
    world_from_agent: np.ndarray
    alive: np.ndarray
    sizes: np.ndarray
    track_ids: np.ndarray

    def motion(self, agents: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the arrays of `worldline.motion.rigid_agents` for Gaussians of the agents `[N]` (0 = background)."""
        return {
            "agents": agents.astype(np.int64),
            "agent_times": self.times.astype(np.float32),
            "agent_quats": quaternion_from_rotation(self.world_from_agent[..., :3, :3]),
            "agent_positions": self.world_from_agent[..., :3, 3],
            "agent_alive": self.alive,
        }


def read_boxes(table: pa.Table, times_s: np.ndarray, *, minimum_travel: float, scale: float = 1.0) -> Boxes:
    """Take the boxes of what moves from a table of boxes.

    Args:
        table: rows with the columns track_id, frame, x, y, z (bottom centre), length, width, height and yaw_rad, as
            `schemas.tracks.TRUTH_BOXES` and `TRACK_SAMPLES` have them; rows in which one of these is null are left out.
        times_s: `[T]` times of the clip's frames.
        minimum_travel: boxes whose centre never gets so far from where it was first seen belong to the background; in the
            table's unit.
        scale: length of one unit of the fit in the table's unit.
    """
    wanted = ("track_id", "frame", "x", "y", "z", "length", "width", "height", "yaw_rad")
    track, frame, x, y, z, length, width, height, yaw = (table.select(wanted).drop_null()[name].to_numpy() for name in wanted)
    place, size = np.stack([x, y, z], axis=1), np.stack([length, width, height], axis=1)
    poses, alive, sizes, kept = [], [], [], []
    for number in np.unique(track):
        rows = np.flatnonzero(track == number)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        if np.linalg.norm(place[rows] - place[rows[0]], axis=1).max() < minimum_travel:
            continue
        nearest = rows[np.abs(frame[rows][None] - np.arange(len(times_s))[:, None]).argmin(axis=1)]
        turn = rotation_from_vector(yaw[nearest][:, None] * np.array([0.0, 0.0, 1.0]))
        poses.append(rigid(turn, place[nearest] / scale))
        alive.append(np.isin(np.arange(len(times_s)), frame[rows]))
        sizes.append(np.median(size[rows], axis=0) / scale)
        kept.append(number)
    span = max(float(times_s[-1] - times_s[0]), 1e-9)
    count, every = len(kept), len(times_s)
    return Boxes(
        times=(np.asarray(times_s) - times_s[0]) / span,
        world_from_agent=np.array(poses).reshape(count, every, 4, 4),
        alive=np.array(alive, bool).reshape(count, every),
        sizes=np.array(sizes).reshape(count, 3),
        track_ids=np.array(kept, np.int64),
    )


def seeds_from_boxes(boxes: Boxes, views: Views, background: Seeds, per_agent: int, rng: np.random.Generator) -> Seeds:
    """Return seeds of the model "rigid_agents": the background's, then those of each agent that some view shows.

    Args:
        boxes: of the agents, in the unit of the views.
        views: with the frames in which to look at the agents, and `depths` where known.
        background: seeds in the world; make them from `outside_boxes(views, boxes)`, or the agents stand in the street twice.
        per_agent: how many Gaussians each agent gets.
        rng: source of randomness.
    """
    means, colors, agents = [background.means], [background.colors], [np.zeros(len(background.means), np.int64)]
    sizes, opacities = [background.sizes], [background.opacities]
    seen = [_points_inside(boxes, views, agent) for agent in range(len(boxes.sizes))]
    for agent, (points, tints) in enumerate(seen):
        chosen = np.sort(rng.permutation(len(points))[:per_agent])
        faces, face_colors = _points_on_faces(boxes, views, agent, per_agent - len(chosen), rng)
        own = np.concatenate([points[chosen], faces])
        means.append(own)
        colors.append(np.concatenate([tints[chosen], face_colors]))
        sizes.append(np.clip(0.5 * neighbour_spacing(own), 1e-3, _LARGEST * np.linalg.norm(boxes.sizes[agent])))
        opacities.append(np.full(len(own), OPACITY))
        agents.append(np.full(len(own), agent + 1))
    riders = np.concatenate(agents)
    return Seeds(
        means=np.concatenate(means),
        sizes=np.concatenate(sizes),
        colors=np.concatenate(colors),
        opacities=np.concatenate(opacities),
        instances=riders.astype(np.int32),
        motion=boxes.motion(riders),
    )


def outside_boxes(views: Views, boxes: Boxes) -> Views:
    """Return the views without the depths that lie inside a box: what is left belongs to the background."""
    if views.depths is None:
        return views
    depths = views.depths.copy()
    for view, frame in enumerate(views.frames):
        for agent in range(len(boxes.sizes)):
            inside = _inside(boxes, views, agent, view, int(frame))[0]
            depths[view][inside] = 0
    return replace(views, depths=depths)


def _inside(boxes: Boxes, views: Views, agent: int, view: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels `[H, W]` of a view show a point in an agent's box, and those points in its frame."""
    nothing = np.zeros(views.images.shape[1:3], bool)
    if views.depths is None or not boxes.alive[agent, frame]:
        return nothing, np.zeros((0, 3))
    agent_from_camera = np.linalg.inv(views.camera_from_world[view] @ boxes.world_from_agent[agent, frame])
    depths = views.depths[view]
    distance = np.linalg.norm(agent_from_camera[:3, 3])
    reach = np.linalg.norm(boxes.sizes[agent])
    rows, columns = np.nonzero((depths > 0) & (depths < distance + reach))
    rays = pixel_rays(pixel_centres(*views.size)[rows, columns], views.intrinsics)
    points = rays * depths[rows, columns, None] @ agent_from_camera[:3, :3].T + agent_from_camera[:3, 3]
    half, margin = boxes.sizes[agent] / 2, MARGIN * boxes.sizes[agent]
    within = (np.abs(points - [0, 0, half[2]]) <= half + margin).all(axis=1) & (points[:, 2] > 0.02 * boxes.sizes[agent, 2])
    nothing[rows[within], columns[within]] = True
    return nothing, points[within]


def _points_inside(boxes: Boxes, views: Views, agent: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all points `[P, 3]` that the views' depths show inside an agent's box, in its frame, and their colours."""
    points, colors = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for view, frame in enumerate(views.frames):
        inside, found = _inside(boxes, views, agent, view, int(frame))
        points.append(found)
        colors.append(views.images[view][inside] / 255.0)
    return np.concatenate(points), np.concatenate(colors)


def _points_on_faces(
    boxes: Boxes, views: Views, agent: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the faces of a box but its bottom that some view shows from outside, and their colours there."""
    half = boxes.sizes[agent] / 2
    faces = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], float)
    areas = np.array([half[1] * half[2]] * 2 + [half[0] * half[2]] * 2 + [half[0] * half[1]])
    normals = faces[rng.choice(len(faces), size=max(count, 0), p=areas / areas.sum())]
    points = np.where(normals != 0, normals, rng.uniform(-1, 1, normals.shape)) * half * INWARD + [0, 0, half[2]]
    colors, nearest = np.full(points.shape, 0.5), np.full(len(points), np.inf)
    width, height = views.size
    for view, frame in enumerate(views.frames):
        if not boxes.alive[agent, frame]:
            continue
        camera_from_agent = views.camera_from_world[view] @ boxes.world_from_agent[agent, frame]
        local = points @ camera_from_agent[:3, :3].T + camera_from_agent[:3, 3]
        outward = normals @ camera_from_agent[:3, :3].T
        pixels = local @ views.intrinsics.T
        with np.errstate(divide="ignore", invalid="ignore"):
            column, row = np.floor(pixels[:, :2] / pixels[:, 2:]).T
        distance = np.linalg.norm(local, axis=1)
        shown = (local[:, 2] > 0) & ((outward * local).sum(axis=1) < 0) & (distance < nearest)
        shown &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
        colors[shown] = views.images[view, row[shown].astype(int), column[shown].astype(int)] / 255.0
        nearest[shown] = distance[shown]
    shown = np.isfinite(nearest)
    return points[shown], colors[shown]
