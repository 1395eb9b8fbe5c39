"""Cuts are found, nothing else is taken for one, and each shot becomes a clip of its own."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from flows.building import begin
from flows.pseudo_labels import take_shots
from schemas.artifact import make_table, rows_to_table
from schemas.clips import GPS_FIXES, Clip
from schemas.errors import WorldlineError
from schemas.media import Video
from schemas.shots import Shots
from schemas.tracks import TRUTH_BOXES, Truth
from stages.contract import no_progress
from stages.ingest.shots import ShotConfig, ShotsConfig, find_shots, take_shot

PANORAMA = Path(__file__).resolve().parents[3] / "shared" / "data" / "pannellum" / "examplepano.jpg"
WIDTH, HEIGHT = 320, 180


def random_panorama(seed: int) -> np.ndarray:
    """A panorama with detail at several scales, and nothing that repeats."""
    rng = np.random.default_rng(seed)
    total = np.zeros((1024, 2048, 3), np.float32)
    for cells, weight in ((6, 90), (40, 70), (160, 50)):
        total += weight * cv2.resize(
            rng.random((cells, 2 * cells, 3), np.float32) - 0.5, (2048, 1024), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def turn(panorama: np.ndarray, yaw_deg: np.ndarray, blur: int = 1) -> np.ndarray:
    """What a camera with 70 degrees of view sees of a panorama while it turns; each frame is the mean over its exposure."""
    focal = WIDTH / 2 / np.tan(np.radians(35))
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5 - WIDTH / 2) / focal, (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / focal)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) / np.sqrt(x**2 + y**2 + 1)[..., None]
    steps = np.append(np.diff(yaw_deg), 0.0)
    film = []
    for yaw, step in zip(yaw_deg, steps, strict=True):
        exposures = []
        for part in range(blur):
            seen = rays @ Rotation.from_euler("Y", yaw + step * part / blur, degrees=True).as_matrix().T
            column = (np.arctan2(seen[..., 0], seen[..., 2]) / (2 * np.pi) + 0.5) * panorama.shape[1] - 0.5
            row = (np.arcsin(seen[..., 1]) / np.pi + 0.5) * panorama.shape[0] - 0.5
            at = (column.astype(np.float32), row.astype(np.float32))
            exposures.append(cv2.remap(panorama, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(np.float32))
        film.append(np.mean(exposures, axis=0))
    return np.array(film).astype(np.uint8)


@pytest.fixture(scope="module", params=["random", "real"])
def panoramas(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two scenes: random ones, or the two halves of a real photo."""
    if request.param == "random":
        return random_panorama(0), random_panorama(1)
    if not PANORAMA.is_file():
        pytest.skip(f"the real panorama is not here: {PANORAMA}")
    photo = cv2.cvtColor(cv2.resize(cv2.imread(str(PANORAMA)), (2048, 1024), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
    return photo, np.roll(photo, 1024, axis=1)


SLOW = np.linspace(0, 12, 16)


@pytest.fixture(scope="module")
def calm(panoramas: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Two shots of 16 frames."""
    return turn(panoramas[0], SLOW), turn(panoramas[1], SLOW)


def clip_of(frames: np.ndarray, rate: float = 10.0, **fields: object) -> Clip:
    return Clip(frames=Video.from_array(frames), times_s=np.arange(len(frames)) / rate, name="film", **fields)


def shots_of(frames: np.ndarray, rate: float = 10.0) -> Shots:
    return find_shots(clip_of(frames, rate), ShotsConfig(), seed=0, progress=no_progress)


def starts_of(frames: np.ndarray, rate: float = 10.0) -> list[int]:
    return shots_of(frames, rate).shots["start_frame"].to_pylist()


def test_one_shot_is_one_shot(calm: tuple[np.ndarray, np.ndarray]) -> None:
    assert starts_of(calm[0]) == [0]


def test_a_cut_is_found_at_its_frame(calm: tuple[np.ndarray, np.ndarray]) -> None:
    found = shots_of(np.concatenate(calm)).shots.to_pylist()
    assert [(row["start_frame"], row["end_frame"], row["opens_with"]) for row in found] == [(0, 16, "clip"), (16, 32, "cut")]
    assert found[1]["start_s"] == pytest.approx(1.6)
    assert "no features in common" in found[1]["evidence"]


def test_several_cuts_are_found(calm: tuple[np.ndarray, np.ndarray]) -> None:
    assert starts_of(np.concatenate([calm[0][:12], calm[1], calm[0][4:]])) == [0, 12, 28]


def test_a_cut_between_fast_pans_is_found(panoramas: tuple[np.ndarray, np.ndarray]) -> None:
    assert starts_of(np.concatenate([turn(panorama, np.arange(12) * 9.0) for panorama in panoramas])) == [0, 12]


def test_a_fade_through_black_is_a_cut_where_the_scene_is_another_one(calm: tuple[np.ndarray, np.ndarray]) -> None:
    down = np.linspace(1, 0, 16)[:, None, None, None]
    faded = np.concatenate([calm[0] * down, np.zeros((4, HEIGHT, WIDTH, 3)), calm[1] * down[::-1]]).astype(np.uint8)
    found = shots_of(faded).shots.to_pylist()
    assert [row["opens_with"] for row in found] == ["clip", "blank"]
    assert 18 <= found[1]["start_frame"] <= 30


def test_a_black_gap_within_one_scene_is_no_cut(calm: tuple[np.ndarray, np.ndarray]) -> None:
    black = np.zeros((4, HEIGHT, WIDTH, 3), np.uint8)
    assert starts_of(np.concatenate([calm[0][:8], black, calm[0][8:]])) == [0]


@pytest.mark.parametrize("degrees_per_frame", [5.0, 15.0, 30.0])
def test_a_fast_pan_is_no_cut(panoramas: tuple[np.ndarray, np.ndarray], degrees_per_frame: float) -> None:
    assert starts_of(turn(panoramas[0], np.arange(20) * degrees_per_frame)) == [0]


@pytest.mark.parametrize("blur", [1, 12])
def test_a_whip_pan_is_no_cut_sharp_or_blurred(panoramas: tuple[np.ndarray, np.ndarray], blur: int) -> None:
    yaw = np.concatenate([np.linspace(0, 2, 10), np.arange(1, 8) * 25.0, 177 + np.linspace(0, 2, 10)])
    assert starts_of(turn(panoramas[0], yaw, blur)) == [0]


@pytest.mark.parametrize("frames", [1, 4])
def test_a_flash_is_no_cut(calm: tuple[np.ndarray, np.ndarray], frames: int) -> None:
    film = calm[0].copy()
    film[7 : 7 + frames] = np.clip(film[7 : 7 + frames].astype(int) + 170, 0, 255)
    assert starts_of(film) == [0]


def test_a_light_that_is_switched_on_is_no_cut(calm: tuple[np.ndarray, np.ndarray]) -> None:
    film = calm[0].copy()
    film[8:] = np.clip(film[8:] * 1.6 + 40, 0, 255)
    assert starts_of(film) == [0]


def test_a_bus_that_fills_the_view_for_a_while_is_no_cut(calm: tuple[np.ndarray, np.ndarray]) -> None:
    film, bus = np.repeat(calm[0][:1], 24, axis=0), random_panorama(7)
    for index in range(8, 14):
        film[index] = bus[300 : 300 + HEIGHT, 60 * index : 60 * index + WIDTH]
    assert starts_of(film) == [0]


@pytest.mark.parametrize("value", [0, 128])
def test_what_shows_nothing_is_one_shot(value: int) -> None:
    noise = np.random.default_rng(0).normal(size=(12, HEIGHT, WIDTH, 3)) * 3
    assert starts_of(np.clip(value + noise, 0, 255).astype(np.uint8)) == [0]


def test_photos_far_apart_in_time_are_never_cut(calm: tuple[np.ndarray, np.ndarray]) -> None:
    assert starts_of(np.concatenate(calm), rate=1.0) == [0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_clips_are_one_shot(calm: tuple[np.ndarray, np.ndarray], count: int) -> None:
    assert shots_of(np.concatenate([calm[0][:1], calm[1]])[:count]).facts() == {"shots": 1, "kept": 1}


def test_a_shot_too_short_to_work_on_is_named_and_left_out(calm: tuple[np.ndarray, np.ndarray]) -> None:
    found = shots_of(np.concatenate([calm[0], calm[1][:5]]))
    assert found.facts() == {"shots": 2, "kept": 1}
    assert found.shots["kept"].to_pylist() == [True, False]


def test_a_shot_is_a_clip_that_begins_at_zero_with_the_truth_of_its_frames(calm: tuple[np.ndarray, np.ndarray]) -> None:
    gps = make_table(GPS_FIXES, {"time_s": np.arange(4.0), **dict.fromkeys(GPS_FIXES.names[1:], np.arange(4.0))})
    clip = clip_of(np.concatenate(calm), gps=gps, epoch_ns=10**18, provenance={"kind": "video"})
    empty = dict.fromkeys(TRUTH_BOXES.names)
    rows = [{**empty, "track_id": 1, "frame": frame, "time_s": frame / 10, "moving": True} for frame in (3, 15, 16, 20)]
    poses = np.repeat(np.eye(4)[None], 32, axis=0)
    poses[:, 0, 3] = np.arange(32)
    truth = dataclasses.replace(
        Truth.unavailable(),
        available=True,
        world_from_camera=poses,
        annotated=np.arange(32) % 2 == 0,
        boxes=rows_to_table(TRUTH_BOXES, rows),
        instances=Video.from_array(np.arange(32, dtype=np.uint16)[:, None, None].repeat(2, 1).repeat(2, 2)),
    )
    shots = shots_of(np.concatenate(calm))
    shot, known = take_shot(clip, truth, shots, ShotConfig(1), seed=0, progress=no_progress)
    assert np.array_equal(shot.frames.array(), calm[1])
    np.testing.assert_allclose(shot.times_s, np.arange(16) / 10)
    assert shot.epoch_ns == 10**18 + 1_600_000_000
    assert isinstance(shot.gps, pa.Table)
    np.testing.assert_allclose(shot.gps["time_s"].to_numpy(), [-1.6, -0.6, 0.4, 1.4])
    assert known.world_from_camera[:, 0, 3].tolist() == list(range(16, 32))
    assert known.boxes["frame"].to_pylist() == [0, 4]
    np.testing.assert_allclose(known.boxes["time_s"].to_numpy(), [0.0, 0.4], atol=1e-12)
    assert known.instances is not None
    assert known.instances.array()[:, 0, 0].tolist() == list(range(16, 32))
    assert shot.provenance == {"kind": "video", "shot": 1, "shot_start_frame": 16, "shot_end_frame": 32}


def test_a_shot_that_is_not_there_is_refused(calm: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(WorldlineError, match=r"ingest\.shot\.index=1: film has 1 shots"):
        take_shot(clip_of(calm[0]), Truth.unavailable(), shots_of(calm[0]), ShotConfig(1), seed=0, progress=no_progress)


def build_of(frames: np.ndarray, folder: Path):
    source = folder / "film"
    source.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(source / f"{index:03d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return begin("pseudo_labels", (f"source={source}", "name=film"), str(folder / "home"), explain=False, quiet=True), str(source)


def test_the_flow_works_on_each_shot_and_on_an_uncut_clip_as_it_is(tmp_path: Path) -> None:
    calm = [turn(random_panorama(seed), SLOW) for seed in (0, 1)]
    build, source = build_of(np.concatenate(calm), tmp_path)
    found = take_shots(build, "", source)
    assert list(found) == ["shot-1", "shot-2"]
    second = build.catalog.load(found["shot-2"][0].digest)
    assert np.array_equal(second.frames.array(), calm[1])
    (tmp_path / "other").mkdir()
    build, source = build_of(calm[0], tmp_path / "other")
    whole = take_shots(build, "mine", source)
    assert list(whole) == ["mine"]
    assert build.catalog.load(whole["mine"][0].digest).provenance["kind"] == "frames"
    assert [decision.stage for decision in build.decisions] == ["ingest.frames", "ingest.shots"]
