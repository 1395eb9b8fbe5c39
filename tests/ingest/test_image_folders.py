"""What becomes of folders of images: order, times, orientation, positions, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.clips import Clip
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.frames import FramesConfig, ingest_frames
from stages.ingest.source import describe_source

LUND = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "opensfm_lund"


def ingest(folder: Path, **config: object) -> Clip:
    clip, truth = ingest_frames(describe_source(folder), FramesConfig(**config), seed=0, progress=no_progress)
    assert not truth.available
    return clip


def save(path: Path, value: int, size: tuple[int, int] = (40, 30), exif: Image.Exif | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path, **({} if exif is None else {"exif": exif}))


def numbered_folder(folder: Path, count: int) -> Path:
    """Images frame0.png, frame1.png, ... whose grey value is ten times their number."""
    for index in range(count):
        save(folder / f"frame{index}.png", 10 * index)
    return folder


def values(clip: Clip) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in clip.frames.array()]


def test_images_come_in_natural_order_at_the_assumed_rate(tmp_path: Path) -> None:
    clip = ingest(numbered_folder(tmp_path / "a", 12), frames_per_second=5.0)
    assert values(clip) == [10 * index for index in range(12)]
    assert np.allclose(clip.times_s, np.arange(12) / 5)
    assert clip.provenance["times"] == "assumed 5 frames per second"


def test_bare_numbers_in_times_txt_are_seconds_in_order(tmp_path: Path) -> None:
    folder = numbered_folder(tmp_path / "a", 3)
    (folder / "times.txt").write_text("3.000000e+00\n3.103736e+00\n3.25e+00\n")
    clip = ingest(folder)
    assert np.allclose(clip.times_s, [0, 0.103736, 0.25], atol=1e-12)
    assert clip.epoch_ns is None


def test_timestamps_csv_pairs_names_with_unix_nanoseconds_exactly(tmp_path: Path) -> None:
    folder = numbered_folder(tmp_path / "a", 3)
    (folder / "timestamps.csv").write_text(
        "#timestamp [ns],filename\n1403636579963555584,frame1.png\n"
        "1403636579763555583,frame0.png\n1403636580163555584,frame2.png\n"
    )
    clip = ingest(folder)
    assert clip.epoch_ns == 1403636579763555583
    assert np.allclose(clip.times_s, [0, 0.200000001, 0.400000001], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n0.1\n", "holds 2 times for 3 images"),
        ("frame0.png,0\nframe2.png,1\n", "no time for frame1.png"),
        ("0\nsoon\n2\n", "line 2"),
    ],
)
def test_bad_time_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = numbered_folder(tmp_path / "a", 3)
    (folder / "times.txt").write_text(text)
    with pytest.raises(WorldlineError, match=message):
        ingest(folder)


def test_times_that_go_backwards_drop_the_image_and_count_it(tmp_path: Path) -> None:
    folder = numbered_folder(tmp_path / "a", 4)
    (folder / "times.txt").write_text("0\n1\n0.5\n2\n")
    clip = ingest(folder)
    assert values(clip) == [0, 10, 30]
    assert clip.provenance["dropped_out_of_order"] == 1


def test_exif_times_count_when_they_increase(tmp_path: Path) -> None:
    for index, fraction in enumerate(["25", "75"]):
        exif = Image.Exif()
        exif.get_ifd(0x8769).update({0x9003: "2024:05:01 12:00:07", 0x9291: fraction, 0x9011: "+02:00"})
        save(tmp_path / "a" / f"{index}.jpg", 100, exif=exif)
    clip = ingest(tmp_path / "a")
    assert np.allclose(clip.times_s, [0, 0.5])
    assert clip.epoch_ns == 1714557607_250_000_000  # date -u -d '2024-05-01 10:00:07' +%s
    assert clip.provenance["times"] == "exif"


def test_equal_exif_times_fall_back_to_the_rate(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 12:00:07"
    for index in range(2):
        save(tmp_path / "a" / f"{index}.jpg", 100, exif=exif)
    assert np.allclose(ingest(tmp_path / "a").times_s, [0, 0.1])


def test_exif_orientation_turns_images_upright(tmp_path: Path) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :16] = 250  # bright top left as stored; orientation 6 shows it at the top right
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    for index in range(2):
        Image.fromarray(picture).save(tmp_path / "a" / f"{index}.jpg", exif=exif, quality=95)
    frame = ingest(tmp_path / "a").frames.array()[0]
    assert frame.shape == (48, 32, 3)
    assert frame[8, 24, 0] > 230
    assert frame[8, 8, 0] < 20


def test_exif_positions_become_fixes_with_signs_and_units(tmp_path: Path) -> None:
    for index in range(2):
        exif = Image.Exif()
        position = {1: "S", 2: (33.0, 30.0, 36.0), 3: "W", 4: (70.0, 45.0, 0.0), 5: b"\x01", 6: 12.0, 12: "K", 13: 36.0}
        exif.get_ifd(0x8825).update(position)
        save(tmp_path / "a" / f"{index}.jpg", 100, exif=exif)
    gps = ingest(tmp_path / "a").gps
    assert gps is not None
    fix = gps.to_pylist()[1]
    assert fix["time_s"] == pytest.approx(0.1)
    assert fix["latitude_deg"] == pytest.approx(-33.51)
    assert fix["longitude_deg"] == pytest.approx(-70.75)
    assert fix["altitude_m"] == pytest.approx(-12.0)
    assert fix["speed_mps"] == pytest.approx(10.0)


def test_transparent_and_grey_images_become_rgb(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[..., 3] = 0
    Image.fromarray(rgba).save(folder / "0.png")
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(folder / "1.png")
    Image.fromarray(np.full((16, 16), 0x1234, np.uint16)).save(folder / "2.png")
    assert values(ingest(folder)) == [0, 77, 0x12]


def test_intrinsics_scale_with_the_frames(tmp_path: Path) -> None:
    clip = ingest(numbered_folder(tmp_path / "a", 2), max_side=20, intrinsics=(36.0, 36.0, 20.0, 15.0))
    assert clip.size == (20, 15)
    assert np.allclose(clip.intrinsics, [[18, 0, 10], [0, 18, 7.5], [0, 0, 1]])


def test_span_and_rate_are_chosen_by_time(tmp_path: Path) -> None:
    clip = ingest(numbered_folder(tmp_path / "a", 20), start_s=0.5, end_s=1.5, keep_frames_per_second=2.0)
    assert values(clip) == [50, 100, 150]
    assert np.allclose(clip.times_s, [0, 0.5, 1.0])


def test_mixed_sizes_are_refused_naming_both_files(tmp_path: Path) -> None:
    folder = numbered_folder(tmp_path / "walk", 2)
    save(folder / "frame2.png", 5, size=(40, 31))
    with pytest.raises(WorldlineError, match=r"walk/frame2\.png is 40x31 pixels but frame0\.png is 40x30"):
        ingest(folder)


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes | str) -> None:
    folder = numbered_folder(tmp_path / "walk", 3)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / "frame1.png")
    whole = (folder / "frame1.png").read_bytes()
    (folder / "frame1.png").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(WorldlineError, match=r"cannot read the image walk/frame1\.png"):
        ingest(folder)


def test_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match="one frame has no motion"):
        ingest(numbered_folder(tmp_path / "a", 1))


@pytest.mark.skipif(not LUND.is_dir(), reason="the opensfm_lund photos are not on this machine")
def test_the_walk_in_lund_has_a_fix_for_every_photo_and_the_length_that_its_gps_says() -> None:
    clip = ingest(LUND, max_side=256)
    assert clip.size == (256, 192)
    assert clip.provenance["times"] == "exif"
    assert clip.gps is not None
    fixes = clip.gps.to_pydict()
    assert np.allclose(fixes["time_s"], clip.times_s)
    # Small-angle distances on a sphere of 6371 km; the data's notes say 197 m.
    north = np.radians(fixes["latitude_deg"]) * 6371e3
    east = np.radians(fixes["longitude_deg"]) * 6371e3 * np.cos(np.radians(55.7))
    assert np.hypot(np.diff(north), np.diff(east)).sum() == pytest.approx(197, abs=5)
