"""Labels from tracks that are corrupted in known ways: closed-form motions, and PandaSet's cuboids where they are."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from motions import camera_path, right_turn, stop_and_go, straight, tracks_of

from schemas.artifact import make_table
from schemas.tracks import TRACK_OBJECTS, TRACK_SAMPLES, Tracks
from stages.contract import no_progress
from stages.label.kinematics import KinematicsConfig, estimate_kinematics
from stages.label.window_rules import WindowRules
from worldline.kinematics.definitions import cumulative_path
from worldline.kinematics.noise import FITTED_KINDS, corrupt_positions

PANDASET = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pandaset_002"
SENSOR_KINDS = ("clean", *(kind for kind in FITTED_KINDS if kind != "identity_switches"))
CONFIG = KinematicsConfig(window_seconds=3.0, rules=WindowRules(max_range_m=1e9, min_visible=0.5, max_position_sigma=1.0))


def corrupted(tracks: Tracks, kind: str, sigma: float, seed: int, *, states_noise: bool = True) -> Tracks:
    """The same tracks with noise, stating what an honest tracker would, or nothing."""
    samples = {name: tracks.samples[name].to_numpy(zero_copy_only=False) for name in TRACK_SAMPLES.names}
    place = np.stack([samples[name] for name in "xyz"], -1)
    noisy, stated, keep = corrupt_positions(kind, samples["track_id"], samples["time_s"], place, samples["range"], sigma, seed)
    samples |= {name: noisy[:, axis] for axis, name in enumerate("xyz")} | {
        f"cov_{axis}": stated**2 for axis in ("xx", "yy", "zz")
    }
    if not states_noise:
        samples |= {name: np.full(len(stated), np.nan) for name in ("cov_xx", "cov_xy", "cov_yy", "cov_zz")}
    changed = tracks.samples
    for name in ("x", "y", "z", "cov_xx", "cov_xy", "cov_yy", "cov_zz"):
        column = pa.array(samples[name], from_pandas=True)
        changed = changed.set_column(changed.schema.get_field_index(name), TRACK_SAMPLES.field(name), column)
    return Tracks(
        changed.filter(pa.array(keep)),
        tracks.objects,
        tracks.origin,
        tracks.scale_source,
        tracks.scale_sigma,
        tracks.gravity_source,
    )


def against_truth(clean: Tracks, path, kind: str, sigma: float, **other) -> dict[str, np.ndarray]:
    """Windows of the corrupted tracks beside true path lengths on the half-second grid and naive sums of noisy steps."""
    noisy = corrupted(clean, kind, sigma, seed=4, **other)
    windows = estimate_kinematics(noisy, path, CONFIG, seed=1, progress=no_progress).windows
    rows = [row for row in windows.to_pylist() if row["track_id"] > 0 and row["distance_p50"] is not None]
    true, naive = [], []
    by_id = {}
    for name, tracks in (("clean", clean), ("noisy", noisy)):
        ids, times = tracks.samples["track_id"].to_numpy(), tracks.samples["time_s"].to_numpy()
        place = np.stack([tracks.samples[axis].to_numpy() for axis in "xyz"], -1)
        by_id[name] = {identity: (times[ids == identity], place[ids == identity]) for identity in np.unique(ids)}
    for row in rows:
        times, place = by_id["clean"][row["track_id"]]
        grid = np.arange(row["start_s"], row["end_s"] + 0.01, 0.5)
        on_grid = np.stack([np.interp(grid, times, place[:, axis]) for axis in range(3)], -1)
        true.append(cumulative_path(on_grid)[-1])
        times, place = by_id["noisy"][row["track_id"]]
        inside = (times >= row["start_s"] - 1e-6) & (times <= row["end_s"] + 1e-6)
        naive.append(cumulative_path(place[inside])[-1])
    names = ("distance_p5", "distance_p50", "distance_p95")
    return {name: np.array([row[name] for row in rows]) for name in names} | {
        "state": np.array([row["state"] for row in rows]),
        "true": np.array(true),
        "naive": np.array(naive),
        "track": np.array([row["track_id"] for row in rows]),
    }


def procedural_tracks() -> tuple[Tracks, object]:
    generator = np.random.default_rng(2)
    path = camera_path(np.arange(101) * 0.1)
    motions = {}
    for index in range(30):
        speed, start = generator.uniform(2, 14), tuple(generator.uniform(-15, 15, 2))
        motions[4 * index + 1] = right_turn(start, speed, generator.uniform(0, 6), 9.0, generator.uniform(-2, 2))
        motions[4 * index + 2] = stop_and_go(start, speed / 2, 3.5, 4.5 + generator.uniform(0, 3))
        motions[4 * index + 3] = straight(start, (generator.uniform(0.6, 1.5), 0.3))
        motions[4 * index + 4] = straight(start, (0.0, 0.0))
    return tracks_of(path, motions), path


@pytest.mark.parametrize("kind", SENSOR_KINDS)
def test_distances_states_and_intervals_survive_the_noise_on_closed_form_motions(kind):
    clean, path = procedural_tracks()
    found = against_truth(clean, path, kind, 0.3)
    speed = found["true"] / 3.0
    moving = speed > 0.6
    error = np.abs(found["distance_p50"] / np.maximum(found["true"], 1e-9) - 1)[moving]
    assert np.median(error) <= 0.03
    assert np.mean(error <= 0.25) >= 0.95
    decided = found["state"] != "undecided"
    recalls = [np.mean(found["state"][rows & decided] == word) for rows, word in ((moving, "moving"), (speed < 0.01, "static"))]
    assert np.mean(recalls) >= 0.95
    assert np.mean(decided[moving]) > 0.8
    inside = ((found["distance_p5"] <= found["true"]) & (found["true"] <= found["distance_p95"]))[moving]
    assert np.mean(inside) >= 0.8
    if kind in ("independent", "depth_proportional", "dropouts"):
        assert np.median(np.abs(found["naive"] / np.maximum(found["true"], 1e-9) - 1)[moving]) > 0.2


@pytest.mark.parametrize("kind", ["independent", "dropouts", "heavy_tails", "short_memory", "changing", "sway"])
def test_intervals_of_tracks_that_state_no_noise_hold_the_truth(kind):
    clean, path = procedural_tracks()
    found = against_truth(clean, path, kind, 0.3, states_noise=False)
    moving = found["true"] > 0.6 * 3.0
    inside = ((found["distance_p5"] <= found["true"]) & (found["true"] <= found["distance_p95"]))[moving]
    assert 0.85 <= np.mean(inside) <= 0.99
    assert np.median((found["distance_p95"] - found["distance_p5"])[moving] / found["true"][moving]) < 0.25  # and are of use


def test_intervals_of_tracks_that_drift_and_do_not_say_so_hold_the_truth_four_times_in_five():
    clean, path = procedural_tracks()
    found = against_truth(clean, path, "drift", 0.3, states_noise=False)  # 3 s of memory in 10 s: much of it looks like motion
    moving = found["true"] > 0.6 * 3.0
    inside = ((found["distance_p5"] <= found["true"]) & (found["true"] <= found["distance_p95"]))[moving]
    assert 0.78 <= np.mean(inside) <= 0.95


def test_windows_in_which_a_track_goes_on_as_another_object_are_refused():
    path = camera_path(np.arange(81) * 0.1)
    switched = lambda times: straight((5.0, 0.0), (8.0, 0.0))(times) + np.where(times > 4.0, 6.0, 0.0)[:, None] * [0, 1, 0]  # noqa: E731
    tracks = tracks_of(
        path,
        {1: switched, 2: straight((5.0, 9.0), (8.0, 0.0))},
        noise=0.3,
        boxes=dict.fromkeys((1, 2), straight((5.0, 0.0), (8.0, 0.0))),
    )
    windows = estimate_kinematics(tracks, path, CONFIG, seed=1, progress=no_progress).windows.to_pylist()
    refused = {(row["track_id"], row["start_s"]) for row in windows if row["rejected"] == "identity_break"}
    assert refused == {(1, start) for start in (1.0, 2.0, 3.0, 4.0)}  # three seconds each, and half a second around the jump


def pandaset_tracks() -> tuple[Tracks, object]:
    """Cuboids of the scene as tracks; of boxes that name a sibling (seen by the second lidar) the first of a pair is kept."""
    with gzip.open(PANDASET / "cuboids.csv.gz", "rt") as stream:
        rows = [row for row in csv.DictReader(stream) if row["cuboids.sensor_id"] != "1"]
    times = np.array(json.loads((PANDASET / "meta" / "timestamps.json").read_text()))
    times -= times[0]
    poses = json.loads((PANDASET / "camera" / "front_camera" / "poses.json").read_text())
    path = camera_path(times, verdict="moving")
    path.world_from_camera[:, :3, 3] = [[pose["position"][axis] for axis in "xyz"] for pose in poses]
    ids = {uuid: index + 1 for index, uuid in enumerate(sorted({row["uuid"] for row in rows}))}
    rows.sort(key=lambda row: (ids[row["uuid"]], int(row["frame"])))
    place = np.array([[float(row[f"position.{axis}"]) for axis in "xyz"] for row in rows])
    frame = np.array([int(row["frame"]) for row in rows])
    number = np.array([ids[row["uuid"]] for row in rows])
    blank = [None] * len(rows)
    small = np.full(len(rows), 1e-4)
    columns = dict.fromkeys(TRACK_SAMPLES.names, blank) | {"track_id": number, "frame": frame, "time_s": times[frame]}
    columns |= {name: place[:, axis] for axis, name in enumerate("xyz")} | {f"cov_{axis}": small for axis in ("xx", "yy", "zz")}
    columns |= {"cov_xy": 0 * small, "visible": 1 + 0 * small, "touches_border": np.zeros(len(rows), bool)}
    columns["range"] = np.linalg.norm(place - path.world_from_camera[frame, :3, 3], axis=1)
    names = sorted(ids.values())
    spans = {name: [0.0] * len(names) for name in ("first_s", "last_s")}
    objects = {
        "track_id": names,
        "class_name": ["car"] * len(names),
        "colour": [""] * len(names),
        "samples": [0] * len(names),
    } | spans
    return Tracks(make_table(TRACK_SAMPLES, columns), make_table(TRACK_OBJECTS, objects), "boxes", "given", 0.0, "given"), path


@pytest.mark.skipif(not PANDASET.exists(), reason="needs PandaSet scene 002 beside the repository (shared/data/pandaset_002)")
@pytest.mark.parametrize("kind", SENSOR_KINDS)
def test_distances_and_states_survive_the_noise_on_pandaset_cuboids(kind):
    clean, path = pandaset_tracks()
    found = against_truth(clean, path, kind, 0.3)
    speed = found["true"] / 3.0
    moving = speed > 0.5
    error = np.abs(found["distance_p50"] / np.maximum(found["true"], 1e-9) - 1)[moving]
    assert moving.sum() > 80
    assert np.median(error) <= 0.03
    assert np.mean(error <= 0.25) >= 0.95
    decided = found["state"] != "undecided"
    recalls = [np.mean(found["state"][rows & decided] == word) for rows, word in ((moving, "moving"), (speed < 0.15, "static"))]
    assert np.mean(recalls) >= 0.95


def test_an_unknown_noise_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown noise 'rain'"):
        corrupt_positions("rain", np.zeros(1, int), np.zeros(1), np.zeros((1, 3)), np.ones(1), 0.1, 0)
