"""KITTI drives: the oxts records beside the images, and the clock that both share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.clips import Clip
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.frames import FramesConfig, ingest_frames
from stages.ingest.source import describe_source
from stages.pose.scale_from_travel import east_north_up

# The first records of raw drive 2011_09_26_drive_0001 look like this: 30 numbers.
REST = "0.03 0.003 0.02 0.1 0.2 9.8 0.1 0.2 9.8 0.001 0.002 0.003 0.001 0.002 0.003 0.05 0.01 4 11 6 6 6"
STAMPS = ["2011-09-26 13:02:25.964389445", "2011-09-26 13:02:26.074343445", "2011-09-26 13:02:26.173389445"]


def record(latitude: float, longitude: float, north: float = 3.0, east: float = -4.0) -> str:
    return f"{latitude} {longitude} 112.834 0.035447 0.002 -1.21 {north} {east} {REST}\n"


def images(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((24, 32, 3), 40 * index, np.uint8)).save(folder / f"{index:010d}.png")
    return folder


def raw_drive(folder: Path) -> Path:
    images(folder / "image_02" / "data")
    (folder / "image_02" / "timestamps.txt").write_text("\n".join(STAMPS) + "\n")
    (folder / "oxts" / "data").mkdir(parents=True)
    for index in range(3):
        (folder / "oxts" / "data" / f"{index:010d}.txt").write_text(record(49.015 + 1e-5 * index, 8.4344 + 2e-5 * index))
    (folder / "oxts" / "timestamps.txt").write_text(
        "2011-09-26 13:02:25.951199337\n2011-09-26 13:02:26.061187301\n2011-09-26 13:02:26.160171768\n"
    )
    return folder


def ingest(path: Path, **config: object) -> Clip:
    return ingest_frames(describe_source(path), FramesConfig(**config), seed=0, progress=no_progress)[0]


@pytest.mark.parametrize("inside", ["image_02", "image_02/data"])
def test_a_raw_drive_gives_times_fixes_speed_and_attitude_on_one_clock(tmp_path: Path, inside: str) -> None:
    clip = ingest(raw_drive(tmp_path / "2011_09_26_drive_0001_sync") / inside)
    assert clip.epoch_ns == 1317042145_964389445  # 26 September 2011, 13:02:25 UTC, by the calendar
    np.testing.assert_allclose(clip.times_s, [0, 0.109954, 0.209], atol=1e-9)
    assert clip.gps is not None
    assert clip.attitudes is not None
    fixes = clip.gps.to_pydict()
    np.testing.assert_allclose(fixes["time_s"], [-0.013190108, 0.096797856, 0.195782323], atol=1e-9)
    assert fixes["speed_mps"] == [5.0, 5.0, 5.0]
    assert fixes["altitude_m"] == [112.834] * 3
    assert clip.attitudes.column("roll_rad").to_pylist() == [0.035447] * 3


def test_positions_agree_with_the_mercator_projection_of_the_devkit(tmp_path: Path) -> None:
    # devkit, convertOxtsToPose.m: s = cos(lat0), x = s R lon, y = s R log(tan(pi / 4 + lat / 2)), R = 6378137 m, on a sphere
    gps = ingest(raw_drive(tmp_path / "drive") / "image_02").gps
    assert gps is not None
    latitude, longitude, altitude = (gps.column(name).to_numpy() for name in ("latitude_deg", "longitude_deg", "altitude_m"))
    shrink = np.cos(np.radians(latitude[0]))
    x = shrink * 6378137 * np.radians(longitude)
    y = shrink * 6378137 * np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    # the ellipsoid is up to 0.3 % from that sphere
    ours = east_north_up(latitude, longitude, altitude)[:, :2]
    np.testing.assert_allclose(ours, np.stack([x - x[0], y - y[0]], axis=1), rtol=5e-3, atol=1e-9)


def test_a_clip_that_starts_later_has_its_fixes_in_its_own_time(tmp_path: Path) -> None:
    clip = ingest(raw_drive(tmp_path / "drive") / "image_02", start_s=0.1)
    assert clip.gps is not None
    assert clip.gps.column("time_s")[1].as_py() == pytest.approx(0.096797856 - 0.109954, abs=1e-9)


def test_a_tracking_sequence_has_one_record_a_line_for_every_image(tmp_path: Path) -> None:
    folder = images(tmp_path / "training" / "image_02" / "0007")
    (tmp_path / "training" / "oxts").mkdir()
    (tmp_path / "training" / "oxts" / "0007.txt").write_text("".join(record(49 + 1e-5 * index, 8.4) for index in range(3)))
    clip = ingest(folder)
    assert clip.gps is not None
    np.testing.assert_allclose(clip.gps.column("time_s"), clip.times_s)
    (tmp_path / "training" / "oxts" / "0007.txt").write_text(record(49, 8.4))
    with pytest.raises(WorldlineError, match=r"oxts\.txt has 1 records for 3 images: give one line per image"):
        ingest(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("oxts/data/0000000001.txt", "49 8.4 112\n", r"0000000001\.txt: 3 numbers instead of the 30 of an oxts record"),
        ("oxts/data/0000000001.txt", record(49, 8.4).replace("112.834", "high"), r"0000000001\.txt: .* must hold 30 numbers"),
        ("oxts/data/0000000001.txt", record(149, 8.4), r"0000000001\.txt: latitude 149, .* on the globe"),
        ("oxts/data/0000000001.txt", record(float("nan"), 8.4), r"0000000001\.txt: latitude nan, .* must be finite"),
        ("oxts/timestamps.txt", "\n".join(STAMPS[:2]), r"oxts/timestamps\.txt holds 2 times for 3 records"),
        (
            "oxts/timestamps.txt",
            "\n".join([STAMPS[0], STAMPS[2], STAMPS[1]]),
            r"timestamps\.txt, line 3: the time does not increase",
        ),
        ("oxts/timestamps.txt", "yesterday", r"timestamps\.txt, line 1: 'yesterday' is no time like"),
        ("image_02/timestamps.txt", STAMPS[0], r"timestamps\.txt holds 1 times for 3 images"),
    ],
)
def test_a_broken_drive_is_refused_in_one_sentence(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = raw_drive(tmp_path / "drive")
    (folder / file).write_text(text)
    with pytest.raises(WorldlineError, match=message):
        ingest(folder / "image_02")


def test_wheel_speeds_beside_the_images_are_read_in_the_clips_time(tmp_path: Path) -> None:
    folder = images(tmp_path / "walk")
    (folder / "speed.csv").write_text("time_s,speed_mps\n0.2,5.5\n0.0,-1\n")
    clip = ingest(folder, start_s=0.1, frames_per_second=10.0)
    assert clip.wheel_speed is not None
    assert clip.wheel_speed.to_pylist() == [
        {"time_s": pytest.approx(-0.1), "speed_mps": -1.0},
        {"time_s": pytest.approx(0.1), "speed_mps": 5.5},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,speed_kmh\n0,30\n", r"walk/speed\.csv has no column speed_mps: its header must be time_s,speed_mps"),
        ("time_s,speed_mps\n0,nan\n", r"speed\.csv, line 2: speed_mps must be a finite number"),
        ("time_s,speed_mps\n0,180\n", r"speed\.csv, line 2: speed_mps is 180, .* give metres per second, not km/h"),
    ],
)
def test_a_bad_speed_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    folder = images(tmp_path / "walk")
    (folder / "speed.csv").write_text(text)
    with pytest.raises(WorldlineError, match=message):
        ingest(folder)
