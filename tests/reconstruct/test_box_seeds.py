"""First Gaussians of a log with boxes, held to ray-cast boxes that drive along known paths."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.reconstruct.box_seeds import outside_boxes, read_boxes, seeds_from_boxes
from stages.reconstruct.seeding import seeds_from_depth
from stages.reconstruct.views import Views
from worldline.cameras import invert_rigid, rotation_from_vector
from worldline.gaussians import Gaussians
from worldline.motion import rigid_agents
from worldline.worlds.protocols import look_at
from worldline.worlds.raycast import Paint, Solid, cast

SIZE = np.array([1.2, 0.6, 0.5])
TIMES_S = np.array([2.0, 2.5, 3.0, 3.5, 4.0])
K = np.array([[60.0, 0, 32.0], [0, 60.0, 24.0], [0, 0, 1]])


def pose(time_s):
    """Return place and yaw of the box at a time: it drives a bend."""
    share = (time_s - 2.0) / 2.0
    return np.array([-1.0 + 2.0 * share, 0.3 * share**2, 0.0]), 0.3 * share


def box(time_s, instance=1):
    place, yaw = pose(time_s)
    turn = rotation_from_vector(np.array([0.0, 0.0, yaw]))
    return Solid("box", tuple(SIZE / 2), Paint((0.8, 0.1, 0.1), (0.9, 0.3, 0.2), 0.5), np.add(place, [0, 0, SIZE[2] / 2]), turn,
                 np.zeros(3), np.zeros(3), instance)  # fmt: skip


def floor():
    return Solid(
        "floor", (9.0, 9.0), Paint((0.2, 0.5, 0.2), (0.3, 0.6, 0.3), 0.5), np.zeros(3), np.eye(3), np.zeros(3), np.zeros(3)
    )


@pytest.fixture(scope="module")
def views():
    poses = invert_rigid(look_at(np.array([0.2, 0.6, 1.0, 1.4, 1.8]), np.full(5, 0.5), 4.0))
    pictures = [
        cast([floor(), box(time)], camera, K, 64, 48, supersampling=2) for time, camera in zip(TIMES_S, poses, strict=True)
    ]
    return Views(
        images=np.stack([picture.rgb for picture in pictures]),
        labels=np.stack([picture.instances for picture in pictures]),
        camera_from_world=poses,
        intrinsics=K,
        times=(TIMES_S - 2.0) / 2.0,
        frames=np.arange(5),
        depths=np.stack([picture.depths for picture in pictures]),
    )


def rows(track, frames, where):
    places = [(*where(TIMES_S[frame])[0], where(TIMES_S[frame])[1]) for frame in frames]
    return [
        {"track_id": track, "frame": frame, "x": x, "y": y, "z": z, "length": SIZE[0], "width": SIZE[1], "height": SIZE[2],
         "yaw_rad": yaw}
        for frame, (x, y, z, yaw) in zip(frames, places, strict=True)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def boxes():
    parked = rows(4, range(5), lambda time: (np.array([3.0, 3.0, 0.0]), 0.0))
    return read_boxes(pa.Table.from_pylist(rows(7, range(5), pose) + parked), TIMES_S, minimum_travel=0.5)


def test_boxes_that_stay_where_they_are_are_no_agents(boxes):
    assert boxes.track_ids.tolist() == [7]
    np.testing.assert_allclose(boxes.times, [0, 0.25, 0.5, 0.75, 1])


def test_an_agent_is_alive_where_the_table_has_it(boxes):
    table = pa.Table.from_pylist(rows(7, [1, 2, 4], pose))
    partial = read_boxes(table, TIMES_S, minimum_travel=0.5)
    assert partial.alive.tolist() == [[False, True, True, False, True]]
    np.testing.assert_allclose(partial.world_from_agent[0, 4], boxes.world_from_agent[0, 4])
    scaled = read_boxes(table, TIMES_S, minimum_travel=0.5, scale=2.0)
    np.testing.assert_allclose(scaled.sizes[0], SIZE / 2)
    np.testing.assert_allclose(scaled.world_from_agent[0, 4, :3, 3], pose(4.0)[0] / 2)


@pytest.mark.parametrize("known", [True, False], ids=["depth", "no depth"])
def test_an_agents_seeds_lie_on_it_at_every_time_and_have_its_colours(views, boxes, known):
    rng = np.random.default_rng(0)
    background = seeds_from_depth(outside_boxes(views, boxes), 300, rng)
    seen = views if known else dataclasses.replace(views, depths=None)
    seeds = seeds_from_boxes(boxes, seen, background, 200, rng)
    agents = seeds.motion["agents"]
    assert (agents == 0).sum() == 300
    assert 100 < (agents == 1).sum() <= 200
    canonical = Gaussians(
        torch.from_numpy(seeds.means), torch.zeros(len(agents), 4, dtype=torch.float64).index_fill(1, torch.tensor(0), 1.0),
        torch.from_numpy(seeds.sizes)[:, None].expand(-1, 3), torch.from_numpy(seeds.opacities), torch.from_numpy(seeds.colors),
    )  # fmt: skip
    arrays = {name: torch.from_numpy(np.asarray(array)) for name, array in seeds.motion.items()}
    for time_s in TIMES_S:
        means = rigid_agents.state_at(canonical, arrays, float((time_s - 2.0) / 2.0)).means.numpy()
        thing = box(time_s)
        local = (means[agents == 1] - thing.position) @ thing.rotation
        beyond = (np.abs(local) - SIZE / 2).max(axis=1)
        assert beyond.max() < 1e-5
        assert beyond.min() > (-1e-5 if known else -0.0601)
    red = seeds.colors[agents == 1]
    assert (red[:, 0] > 2 * red[:, 1]).mean() > 0.9


def test_nothing_of_an_agent_is_left_in_the_background(views, boxes):
    left = outside_boxes(views, boxes).depths
    assert (left[views.labels == 1] == 0).mean() > 0.97  # but for the lowest rim, which the floor has too
    street = views.labels == 0
    np.testing.assert_array_equal(left[street] > 0, views.depths[street] > 0)


def test_a_log_without_moving_boxes_has_only_a_background(views):
    empty = read_boxes(pa.Table.from_pylist(rows(4, range(5), lambda time: (np.zeros(3), 0.0))), TIMES_S, minimum_travel=0.5)
    background = seeds_from_depth(views, 50, np.random.default_rng(0))
    seeds = seeds_from_boxes(empty, views, background, 100, np.random.default_rng(0))
    assert len(seeds.means) == 50
    assert seeds.motion["agent_quats"].shape == (0, 5, 4)
