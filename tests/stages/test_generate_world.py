"""The stage that draws a world gives a clip without its truth, and a truth that fits the clip."""

import dataclasses

import numpy as np
import pytest

from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.generate.world import WorldConfig, generate_world

SMALL = WorldConfig(frames=3, width=160, height=96, gps=True, texture_detail=0.2)


@pytest.fixture(scope="module")
def made():
    return generate_world(config=SMALL, seed=5, progress=no_progress)


def test_clip_and_truth_cover_the_same_frames(made):
    clip, truth = made
    assert clip.frames.shape == (3, 96, 160, 3)
    assert truth.instances.shape == truth.depth_2mm.shape == (3, 96, 160)
    assert truth.world_from_camera.shape == (3, 4, 4)
    np.testing.assert_allclose(clip.times_s, [0.0, 0.1, 0.2])
    np.testing.assert_array_equal(clip.intrinsics, truth.intrinsics)


def test_every_actor_has_a_box_in_every_frame_and_ids_are_track_ids(made):
    _, truth = made
    rows = truth.boxes.to_pylist()
    tracks = {row["track_id"] for row in rows}
    assert len(rows) == 3 * len(tracks)
    assert set(np.unique(truth.instances.array())) - {0} <= tracks
    assert {row["class_name"] for row in rows} == {"car", "pedestrian"}
    assert {True, False} == {row["moving"] for row in rows}


def test_boxes_move_as_far_as_the_moving_flag_allows(made):
    _, truth = made
    rows = truth.boxes.to_pylist()
    for track in {row["track_id"] for row in rows}:
        own = [row for row in rows if row["track_id"] == track]
        step = np.hypot(own[1]["x"] - own[0]["x"], own[1]["y"] - own[0]["y"])
        assert (step > 0.05 * 0.1) == own[0]["moving"]


def test_the_stored_depth_is_in_steps_of_two_millimetres(made):
    _, truth = made
    pose, K = truth.world_from_camera[0], truth.intrinsics
    pixel = np.array([80.5, 90.5, 1.0])  # a pixel's centre on the road ahead
    direction = pose[:3, :3] @ np.linalg.solve(K, pixel)
    expected = -pose[2, 3] / direction[2]
    assert truth.depth_2mm.array()[0, 90, 80] * 0.002 == pytest.approx(expected, abs=0.003)


def test_same_seed_same_bytes_other_seed_other_world(made):
    again = generate_world(config=SMALL, seed=5, progress=no_progress)
    assert [content_digest(item) for item in again] == [content_digest(item) for item in made]
    other = generate_world(config=dataclasses.replace(SMALL, frames=2), seed=6, progress=no_progress)
    assert np.abs(other[0].frames.array()[0].astype(int) - made[0].frames.array()[0]).mean() > 10


def test_satellite_fixes_lie_around_the_true_path(made):
    clip, truth = made
    latitude, longitude = (np.radians(clip.gps[name].to_numpy()) for name in ("latitude_deg", "longitude_deg"))
    east, north = _tangent_plane(latitude, longitude, clip.gps["altitude_m"].to_numpy())
    error = np.stack([east, north], axis=1) - truth.world_from_camera[:, :2, 3]
    assert 0.0 < np.abs(error).max() < 5 * SMALL.gps_sigma_m


def test_the_given_camera_height_is_near_the_true_one_but_not_it(made):
    clip, _ = made
    assert 0.0 < abs(clip.camera_height_m - SMALL.camera_height_m) < 5 * SMALL.camera_height_sigma_m


@pytest.mark.parametrize("layout", ["bounce", "arm"])
def test_a_small_world_is_a_clip_with_the_path_and_depth_that_it_was_drawn_with(layout):
    config = WorldConfig(layout=layout, frames=5, width=64, height=48)
    clip, truth = generate_world(config=config, seed=2, progress=no_progress)
    assert clip.frames.shape == (5, 48, 64, 3)
    assert truth.available
    assert not truth.boxes.num_rows
    assert clip.camera_height_m == pytest.approx(truth.world_from_camera[0, 2, 3], abs=0.1)
    depth, ids = truth.depth_2mm.array() * 0.002, truth.instances.array()
    rows, columns = np.mgrid[0:48, 0:64] + 0.5
    rays = np.linalg.solve(truth.intrinsics, np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1))
    for frame, pose in enumerate(truth.world_from_camera):  # the floor lies at height 0, and most of what stands still is floor
        floor = (-pose[2, 3] / (pose[2, :3] @ rays)).reshape(48, 64)
        still = (ids[frame] == 0) & (depth[frame] > 0)
        assert (np.abs(depth[frame] - floor)[still] < 0.0011 + 1e-6 * floor[still]).mean() > 0.6
        assert (depth[frame] <= floor + 0.0011)[still].all()
    inside = np.isin(np.unique(truth.instances.array()), [0, 1, 2, 3, 4])
    assert inside.all()
    again = generate_world(config=config, seed=2, progress=no_progress)
    assert [content_digest(item) for item in again] == [content_digest(item) for item in (clip, truth)]


def test_an_unknown_layout_names_the_nearest():
    with pytest.raises(WorldlineError, match="did you mean 'junction'"):
        generate_world(config=WorldConfig(layout="juncton"), seed=0, progress=no_progress)


def test_one_frame_is_no_clip():
    with pytest.raises(WorldlineError, match="at least 2 frames"):
        generate_world(config=WorldConfig(frames=1), seed=0, progress=no_progress)


def _tangent_plane(latitude, longitude, altitude):
    """Go through earth-centred coordinates, the long way, to east and north of 48 N 11 E."""
    a, e2 = 6378137.0, 6.69437999014e-3

    def earth_centred(lat, lon, h):
        n = a / np.sqrt(1 - e2 * np.sin(lat) ** 2)
        along = (n + h) * np.cos(lat)
        return np.stack([along * np.cos(lon), along * np.sin(lon), (n * (1 - e2) + h) * np.sin(lat)], axis=-1)

    lat, lon = np.radians(48.0), np.radians(11.0)
    offset = earth_centred(latitude, longitude, altitude) - earth_centred(lat, lon, 500.0)
    east = offset @ np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = offset @ np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    return east, north
