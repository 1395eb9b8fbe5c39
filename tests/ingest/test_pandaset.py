"""PandaSet scenes: a scene made here, whose geometry is known in closed form, and the real scene 002 where it is present."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linprog

from schemas.clips import Clip
from schemas.errors import WorldlineError
from schemas.tracks import Truth
from stages.contract import no_progress
from stages.ingest.box_extents import image_extents
from stages.ingest.pandaset import PandasetConfig, ingest_pandaset
from stages.ingest.source import describe_source
from worldline.box_corners import upright_corners

SCENE_002 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pandaset_002"
FRAMES, RATE_HZ, START_S = 21, 10.0, 1557539956
COLUMNS = ["uuid", "label", "yaw", "stationary", "attributes.object_motion", "cuboids.sibling_id", "cuboids.sensor_id", "frame"]
COLUMNS += [f"{quantity}.{axis}" for quantity in ("position", "dimensions") for axis in "xyz"]
# Looking along world +y from 1.5 m up: camera x = world x, camera y = -world z, camera z = world y.
LOOK_NORTH_WXYZ = (np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0)


def cuboid(uuid: str, frame: int, position: tuple[float, float, float], **changes: object) -> dict[str, object]:
    row = dict.fromkeys(COLUMNS, "")
    row |= {"uuid": uuid, "label": "Car", "yaw": 0.0, "stationary": "False", "frame": frame}
    row |= dict(zip(("position.x", "position.y", "position.z"), position, strict=True))
    row |= {"dimensions.x": 2.0, "dimensions.y": 4.0, "dimensions.z": 1.5}
    row |= {"attributes.object_motion": "Moving", "cuboids.sibling_id": "-", "cuboids.sensor_id": -1}
    return row | {key.replace("__", "."): value for key, value in changes.items()}


def make_scene(scene: Path, rows: list[dict[str, object]] | None) -> Path:
    """A still camera of 960x540 pixels at (0, 0, 1.5) that looks along +y, calibrated at 1920x1080 with focal length 1000."""
    camera = scene / "camera" / "front_camera"
    camera.mkdir(parents=True)
    (scene / "meta").mkdir()
    for index in range(FRAMES):
        Image.fromarray(np.full((540, 960, 3), 5 * index, np.uint8)).save(camera / f"{index:02d}.jpg")
    pose = {
        "position": {"x": 0.0, "y": 0.0, "z": 1.5},
        "heading": dict(zip("wxyz", LOOK_NORTH_WXYZ, strict=True)),
    }
    times = [START_S + 0.25 + index / RATE_HZ for index in range(FRAMES)]
    (camera / "poses.json").write_text(json.dumps([pose] * FRAMES))
    (camera / "timestamps.json").write_text(json.dumps([round(item, 6) for item in times]))
    (camera / "intrinsics.json").write_text(json.dumps({"fx": 1000.0, "fy": 1000.0, "cx": 959.5, "cy": 539.5}))
    fix = {"lat": 37.5, "long": -122.5, "height": 3.0, "xvel": 3.0, "yvel": -4.0}
    (scene / "meta" / "gps.json").write_text(json.dumps([fix] * FRAMES))
    (scene / "meta" / "timestamps.json").write_text(json.dumps([round(item + 0.05, 6) for item in times]))
    if rows is not None:
        with gzip.open(scene / "cuboids.csv.gz", "wt", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return scene


def ingest(scene: Path, **config: object) -> tuple[Clip, Truth]:
    return ingest_pandaset(describe_source(scene), PandasetConfig(**config), seed=0, progress=no_progress)


def boxes_of(truth: Truth, track: int) -> list[dict]:
    return [row for row in truth.boxes.to_pylist() if row["track_id"] == track]


def test_frames_times_intrinsics_and_fixes_of_a_chosen_span(tmp_path: Path) -> None:
    clip, truth = ingest(make_scene(tmp_path / "s", []), start_s=0.45, end_s=1.05, max_side=480)
    assert clip.size == (480, 270)
    assert [round(float(frame.mean()) / 5) for frame in clip.frames.array()] == [5, 6, 7, 8, 9, 10]
    assert np.allclose(clip.times_s, np.arange(6) / RATE_HZ, atol=1e-9)
    assert clip.epoch_ns == START_S * 10**9 + 750_000_000
    # 1920 wide with centres at whole pixels -> 480 wide with centres at +0.5: (959.5 + 0.5) / 4.
    assert np.allclose(clip.intrinsics, [[250, 0, 240], [0, 250, 135], [0, 0, 1]])
    assert clip.gps is not None
    first = clip.gps.to_pylist()[0]
    assert first["time_s"] == pytest.approx(-0.45)
    assert first["speed_mps"] == pytest.approx(5.0)
    assert truth.available
    assert not truth.annotated.any()


def test_poses_map_camera_axes_to_the_world(tmp_path: Path) -> None:
    _, truth = ingest(make_scene(tmp_path / "s", []))
    expected = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], float)
    assert np.allclose(truth.world_from_camera, expected, atol=1e-12)


def test_boxes_stand_on_their_bottom_and_head_where_they_drive(tmp_path: Path) -> None:
    # PandaSet boxes point along their +y: yaw 0.5 drives along (-sin 0.5, cos 0.5).
    heading = np.array([-np.sin(0.5), np.cos(0.5)])
    rows = [cuboid("u", frame, (*(np.array([1.0, 20.0]) + frame * heading), 0.75), yaw=0.5) for frame in range(FRAMES)]
    _, truth = ingest(make_scene(tmp_path / "s", rows))
    boxes = boxes_of(truth, 1)
    assert (boxes[0]["length"], boxes[0]["width"], boxes[0]["height"]) == (4.0, 2.0, 1.5)
    assert boxes[0]["z"] == pytest.approx(0.0)
    drive = np.arctan2(boxes[-1]["y"] - boxes[0]["y"], boxes[-1]["x"] - boxes[0]["x"])
    assert boxes[0]["yaw_rad"] == pytest.approx(drive)
    assert truth.annotated.all()
    assert all(box["moving"] for box in boxes)


def test_the_extent_of_a_box_ahead_is_that_of_its_near_face(tmp_path: Path) -> None:
    rows = [cuboid("u", 0, (0.0, 12.0, 0.75))]
    _, truth = ingest(make_scene(tmp_path / "s", rows))
    (box,) = boxes_of(truth, 1)
    # Near face at y = 10 m, 2 m wide, from the ground to 1.5 m; focal length 500 px, centre (480, 270), camera 1.5 m up.
    assert [box[name] for name in ("x0_px", "y0_px", "x1_px", "y1_px")] == pytest.approx([430, 270, 530, 345])


def test_boxes_behind_beside_or_beyond_the_border_have_no_extent_or_a_clipped_one(tmp_path: Path) -> None:
    positions = {"a": (0.0, -10.0, 0.75), "b": (50.0, 5.0, 0.75), "c": (2.0, 1.0, 0.75)}
    _, truth = ingest(make_scene(tmp_path / "s", [cuboid(uuid, 0, position) for uuid, position in positions.items()]))
    assert [boxes_of(truth, track)[0]["x0_px"] for track in (1, 2)] == [None, None]
    (beside,) = boxes_of(truth, 3)  # reaches from 1 m behind the camera to 3 m ahead, inner side at x = 1 m
    assert beside["x0_px"] == pytest.approx(480 + 500 / 3)
    assert (beside["x1_px"], beside["y1_px"]) == (960, 540)


def test_what_the_annotators_call_moving_counts_only_while_it_moves(tmp_path: Path) -> None:
    def position(frame: int) -> tuple[float, float, float]:
        return 0.0, 20.0 + max(0, frame - 10) * 0.5, 0.75  # waits one second, then drives 5 m/s

    rows = [cuboid("a", frame, position(frame)) for frame in range(FRAMES)]
    rows += [cuboid("b", frame, (5.0, 20.0 + frame, 0.75), attributes__object_motion="Parked") for frame in range(FRAMES)]
    rows += [
        cuboid("c", frame, (9.0, 20 + 0.1 * frame, 0.9), label="Pedestrian", attributes__object_motion="") for frame in range(4)
    ]
    rows += [cuboid("d", 3, (5.0, 40.0, 0.75))]
    _, truth = ingest(make_scene(tmp_path / "s", rows))
    moving = [box["moving"] for box in boxes_of(truth, 1)]
    assert not any(moving[:5])
    assert all(moving[11:])
    assert not any(box["moving"] for box in boxes_of(truth, 2))
    assert all(box["moving"] and box["class_name"] == "pedestrian" for box in boxes_of(truth, 3))
    assert boxes_of(truth, 4)[0]["moving"]


def test_of_two_siblings_the_longer_is_kept_and_ids_follow_the_uuids(tmp_path: Path) -> None:
    rows = [cuboid("m", frame, (0.0, 20.0, 0.75), cuboids__sibling_id="z", cuboids__sensor_id=1) for frame in range(5)]
    rows += [cuboid("z", frame, (0.5, 20.0, 0.75), cuboids__sibling_id="m", cuboids__sensor_id=0) for frame in range(9)]
    # A pair of equal length, of which one names its sibling wrongly (cut short, as happens in the real data).
    rows += [cuboid("b", frame, (3.0, 30.0, 0.75), cuboids__sibling_id="x9", cuboids__sensor_id=1) for frame in range(4)]
    rows += [cuboid("x95", frame, (3.5, 30.0, 0.75), cuboids__sibling_id="b", cuboids__sensor_id=0) for frame in range(4)]
    rows += [cuboid("a", 0, (7.0, 20.0, 0.75))]
    _, truth = ingest(make_scene(tmp_path / "s", rows))
    assert {track: len(boxes_of(truth, track)) for track in (1, 2, 3)} == {1: 1, 2: 4, 3: 9}
    assert truth.boxes.num_rows == 14
    assert boxes_of(truth, 2)[0]["x"] == 3.5


def test_track_ids_do_not_depend_on_the_chosen_span(tmp_path: Path) -> None:
    rows = [cuboid("a", frame, (0.0, 20.0, 0.75)) for frame in range(5)]
    rows += [cuboid("b", frame, (5.0, 20.0, 0.75)) for frame in range(FRAMES)]
    _, truth = ingest(make_scene(tmp_path / "s", rows), start_s=1.0)
    assert set(truth.boxes["track_id"].to_pylist()) == {2}
    assert truth.boxes["frame"].to_pylist() == list(range(11))
    assert truth.boxes["time_s"][0].as_py() == 0.0


def test_extents_equal_those_of_the_clipped_solid_for_random_boxes() -> None:
    rng = np.random.default_rng(2)
    count, width, height = 60, 96.0, 54.0
    intrinsics = np.array([[50, 0, 48], [0, 50, 27], [0, 0, 1.0]])
    bottom = rng.uniform([-6, -2, -3], [6, 10, 1], (count, 3))
    corners = upright_corners(bottom, rng.uniform(1, 4, (count, 3)), rng.uniform(-4, 4, count))
    pose = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    extents = image_extents(corners, np.tile(pose, (count, 1, 1)), intrinsics, int(width), int(height))
    assert 10 < np.isnan(extents[:, 0]).sum() < 50
    for box, extent in zip(corners, extents, strict=True):
        rays = (box @ pose[:3, :3]) @ intrinsics.T
        # Charnes and Cooper (1962): extremes of x / z over a convex solid are those of a linear programme on z = 1.
        u, v, z = rays.T
        bounds = {"A_ub": [-u, u, -v, v, np.full(8, 0.1)], "b_ub": [0, width, 0, height, 1], "A_eq": [z], "b_eq": [1]}
        extremes = [linprog(sign * axis, **bounds) for sign, axis in ((1, u), (1, v), (-1, u), (-1, v))]
        if np.isnan(extent).any():
            assert not any(result.success for result in extremes)
        else:
            assert np.abs([result.fun for result in extremes] * np.array([1, 1, -1, -1]) - extent).max() < 1e-6


def test_pickled_boxes_are_never_opened(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "s", None)
    (scene / "annotations" / "cuboids").mkdir(parents=True)
    (scene / "annotations" / "cuboids" / "00.pkl.gz").write_bytes(b"never read")
    with pytest.raises(WorldlineError, match=r"s has no cuboids\.csv\.gz.*pickles.*require_boxes=false"):
        ingest(scene)
    _, truth = ingest(scene, require_boxes=False)
    assert truth.available
    assert truth.boxes.num_rows == 0
    assert not truth.annotated.any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("camera/front_camera/timestamps.json", "has no camera/front_camera/timestamps.json"),
        ("camera/front_camera/07.jpg", "20 images, 21 timestamps and 21 poses"),
        ("camera/front_camera/intrinsics.json", "has no camera/front_camera/intrinsics.json"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, damage: str, message: str) -> None:
    scene = make_scene(tmp_path / "s", [])
    (scene / damage).unlink()
    with pytest.raises(WorldlineError, match=message):
        ingest(scene)


@pytest.mark.parametrize(
    "name", ["cuboids.csv.gz", "camera/front_camera/poses.json", "meta/gps.json", "camera/front_camera/03.jpg"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    scene = make_scene(tmp_path / "s", [cuboid("a", 0, (0.0, 20.0, 0.75))])
    (scene / name).write_bytes((scene / name).read_bytes()[:40])
    with pytest.raises(WorldlineError, match=name):
        ingest(scene)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("camera/front_camera/poses.json", [{"position": {"x": 0}}] * FRAMES, "poses.json: each pose needs"),
        ("camera/front_camera/intrinsics.json", {"fx": 1}, "intrinsics.json must give"),
        ("camera/front_camera/timestamps.json", ["noon"] * FRAMES, "timestamps.json must hold one Unix time"),
        ("meta/gps.json", [{"lat": 1}] * FRAMES, "gps.json must give"),
        ("meta/gps.json", [], "gps.json must give"),
    ],
)
def test_a_file_with_other_fields_is_named(tmp_path: Path, name: str, content: object, message: str) -> None:
    scene = make_scene(tmp_path / "s", [])
    (scene / name).write_text(json.dumps(content))
    with pytest.raises(WorldlineError, match=message):
        ingest(scene)


@pytest.fixture(scope="module")
def scene_002() -> tuple[Clip, Truth]:
    if not SCENE_002.is_dir():
        pytest.skip("the PandaSet scene 002 is not on this machine")
    return ingest(SCENE_002, max_side=120)


def test_the_real_scene_has_its_frames_and_deduplicated_tracks(scene_002: tuple[Clip, Truth]) -> None:
    clip, truth = scene_002
    assert len(clip.frames) == 80
    assert truth.annotated.all()
    tracks = set(truth.boxes["track_id"].to_pylist())
    assert tracks == set(range(1, len(tracks) + 1))
    assert len(tracks) == 128 - 30  # 59 uuids name a sibling, in 30 pairs of which one names it wrongly


def test_in_the_real_scene_moving_cars_drive_where_their_boxes_point(scene_002: tuple[Clip, Truth]) -> None:
    rows = scene_002[1].boxes.to_pandas()
    errors = []
    for _, track in rows[rows.class_name == "car"].groupby("track_id"):
        step = track[["x", "y"]].to_numpy()[10:] - track[["x", "y"]].to_numpy()[:-10]
        fast = np.linalg.norm(step, axis=1) > 3.0
        turn = np.arctan2(step[:, 1], step[:, 0]) - track.yaw_rad.to_numpy()[5 : 5 + len(step)]
        errors.extend(np.abs(np.angle(np.exp(1j * turn[fast]))))
    assert len(errors) > 1000
    assert np.degrees(np.median(errors)) < 1.0


def test_in_the_real_scene_gps_speed_agrees_with_the_camera_path(scene_002: tuple[Clip, Truth]) -> None:
    clip, truth = scene_002
    assert clip.gps is not None
    length = np.linalg.norm(np.diff(truth.world_from_camera[:, :3, 3], axis=0), axis=1).sum()
    speed = clip.gps["speed_mps"].to_numpy()
    travelled = np.trapezoid(np.interp(clip.times_s, clip.gps["time_s"].to_numpy(), speed), clip.times_s)
    assert travelled == pytest.approx(length, rel=0.05)
