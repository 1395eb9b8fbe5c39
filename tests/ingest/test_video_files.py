"""What becomes of video files: times, orientation, size, colour, and every way in which a file can be bad."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from schemas.artifact import Files
from schemas.clips import Clip, Source
from schemas.codec import content_digest
from schemas.errors import WorldlineError
from stages.contract import no_progress
from stages.ingest.source import describe_source
from stages.ingest.video import VideoConfig, ingest_video

RED, GREEN, BLUE, GREY = (230, 20, 20), (20, 230, 20), (20, 20, 230), (128, 128, 128)


def corner_picture(width: int, height: int) -> np.ndarray:
    """Red top left, green top right, blue bottom left, grey elsewhere."""
    picture = np.full((height, width, 3), GREY, np.uint8)
    h, w = height // 3, width // 3
    picture[:h, :w], picture[:h, -w:], picture[-h:, :w] = RED, GREEN, BLUE
    return picture


def write_file(
    path: Path,
    pictures: list[np.ndarray],
    *,
    codec: str = "ffv1",
    pixel_format: str = "bgr0",
    times: list[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    exchange: str = "rgb24",
) -> Path:
    """Write pictures with given timestamps (units of `time_base`; default 10 frames per second)."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(1, time_base))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=exchange)
            frame.pts = times[index] if times else index * int(Fraction(1, 10) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ingest(path: Path, **config: object) -> Clip:
    source = Source(Files({path.name: path}), "video", path.name)
    return ingest_video(source, VideoConfig(**config), seed=0, progress=no_progress)[0]


def noise(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def close_to(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


def patch_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite the 2x2 part of the mp4 track header's matrix (ISO 14496-12, 8.3.2): 16.16 a, b, u, c, d, v, x, y, w."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16
    assert struct.unpack(">9i", data[start : start + 36])[0] == 1 << 16
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def test_a_lossless_file_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    pictures = noise(3)
    clip = ingest(write_file(tmp_path / "a.mkv", pictures))
    assert np.array_equal(clip.frames.array(), np.stack(pictures))


def test_times_of_a_variable_frame_rate_are_the_files_own_from_the_first_frame(tmp_path: Path) -> None:
    stamps = [500, 533, 700, 701, 1900]
    clip = ingest(write_file(tmp_path / "a.mkv", noise(5), times=stamps))
    assert clip.times_s.dtype == np.float64
    assert np.allclose(clip.times_s, (np.array(stamps) - 500) / 1000, atol=1e-12)
    assert clip.provenance["variable_frame_rate"] is True


def test_times_are_exact_fractions_of_the_streams_time_base(tmp_path: Path) -> None:
    base = Fraction(1, 30000)
    stamps = [1001 * index for index in range(6)]
    clip = ingest(write_file(tmp_path / "a.mov", noise(6), codec="libx264", pixel_format="yuv444p", times=stamps, time_base=base))
    assert np.allclose(clip.times_s, np.array(stamps) / 30000, atol=1e-12)
    assert clip.provenance["variable_frame_rate"] is False


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), (RED, GREEN, BLUE, GREY)),
        ((0, 1, -1, 0), (BLUE, RED, GREY, GREEN)),  # a quarter turn clockwise, as phones held upright write it
        ((-1, 0, 0, -1), (GREY, BLUE, GREEN, RED)),
        ((0, -1, 1, 0), (GREEN, GREY, RED, BLUE)),
        ((-1, 0, 0, 1), (GREEN, RED, GREY, BLUE)),  # a mirrored front camera
    ],
)
def test_frames_are_turned_as_the_display_matrix_says(tmp_path: Path, matrix: tuple, expected: tuple) -> None:
    path = write_file(tmp_path / "a.mp4", [corner_picture(96, 60)] * 2, codec="libx264", pixel_format="yuv444p")
    patch_display_matrix(path, matrix)
    clip = ingest(path)
    assert clip.size == ((60, 96) if matrix[0] == 0 else (96, 60))
    frame = clip.frames.array()[0]
    corners = (frame[5, 5], frame[5, -5], frame[-5, 5], frame[-5, -5])
    assert all(close_to(pixel, colour) for pixel, colour in zip(corners, expected, strict=True))


def test_intrinsics_of_the_upright_original_scale_with_the_frames(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mp4", [corner_picture(96, 60)] * 2, codec="libx264", pixel_format="yuv444p")
    patch_display_matrix(path, (0, 1, -1, 0))
    clip = ingest(path, intrinsics=(80.0, 82.0, 30.0, 48.0), max_side=48)
    assert clip.size == (30, 48)
    assert np.allclose(clip.intrinsics, [[40, 0, 15], [0, 41, 24], [0, 0, 1]])


def test_odd_sizes_survive(tmp_path: Path) -> None:
    pictures = noise(2, width=67, height=35)
    assert np.array_equal(ingest(write_file(tmp_path / "a.mkv", pictures)).frames.array(), np.stack(pictures))


def test_odd_sizes_with_halved_colour_survive(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mkv", [corner_picture(67, 35)] * 2, pixel_format="yuv420p")
    frame = ingest(path).frames.array()[0]
    assert frame.shape == (35, 67, 3)
    assert close_to(frame[0, 0], RED)
    assert close_to(frame[0, -1], GREEN)
    assert close_to(frame[-1, 0], BLUE)


def test_non_square_pixels_become_square_by_stretching_the_coarser_side(tmp_path: Path) -> None:
    pictures, coding = [corner_picture(60, 60)] * 2, {"codec": "libx264", "pixel_format": "yuv444p"}
    wide = ingest(write_file(tmp_path / "a.mp4", pictures, aspect=Fraction(16, 15), **coding))
    tall = ingest(write_file(tmp_path / "b.mp4", pictures, aspect=Fraction(2, 3), **coding))
    assert wide.size == (64, 60)
    assert tall.size == (60, 90)
    assert close_to(tall.frames.array()[0][-5, 5], BLUE)


def test_shrinking_averages_over_areas(tmp_path: Path) -> None:
    pictures = noise(2, width=64, height=48)
    small = ingest(write_file(tmp_path / "a.mkv", pictures), max_side=16).frames.array()
    means = np.stack(pictures).reshape(2, 12, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(small - means).max() <= 0.51


def test_transparent_pixels_are_blended_with_black(tmp_path: Path) -> None:
    rgba = np.full((16, 16, 4), (200, 100, 50, 255), np.uint8)
    rgba[:, 8:, 3] = 0
    path = write_file(tmp_path / "a.mov", [rgba] * 2, codec="png", pixel_format="rgba", exchange="rgba")
    frame = ingest(path).frames.array()[0]
    assert tuple(frame[8, 2]) == (200, 100, 50)
    assert tuple(frame[8, 12]) == (0, 0, 0)


def test_grey_frames_become_equal_channels(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (32, 1))
    path = write_file(tmp_path / "a.mkv", [ramp] * 2, pixel_format="gray", exchange="gray")
    frame = ingest(path).frames.array()[0].astype(int)
    assert np.abs(frame - ramp[..., None]).max() <= 1


def test_ten_bit_frames_keep_their_colours(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mkv", [corner_picture(60, 60)] * 2, pixel_format="yuv444p10le")
    frame = ingest(path).frames.array()[0]
    assert close_to(frame[5, 5], RED)
    assert close_to(frame[5, -5], GREEN)


def test_interlaced_frames_show_one_instant(tmp_path: Path) -> None:
    comb = np.zeros((48, 64, 3), np.uint8)
    comb[::2] = 200  # the rows of the first field; the second field's instant is black
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("prores_ks", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv422p10le"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(comb, format="rgb24")))
        container.mux(stream.encode())
    clip = ingest(path)
    if not clip.provenance["interlaced"]:
        pytest.skip("this FFmpeg's encoder wrote no interlaced flag")
    assert clip.frames.array()[1].min() > 150


def test_span_rate_and_number_of_frames_are_chosen_by_time(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mkv", noise(30))  # 10 frames per second, 0 to 2.9 s
    assert np.allclose(ingest(path, start_s=1.0, end_s=1.35).times_s, [0, 0.1, 0.2, 0.3])
    assert np.allclose(ingest(path, frames_per_second=4.0, max_frames=4).times_s, [0, 0.3, 0.5, 0.8])
    assert ingest(path, start_s=1.0, end_s=1.35).provenance["first_kept_s"] == pytest.approx(1.0)


def test_a_late_start_gives_the_same_frames_as_decoding_everything(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), 5 + 2 * index, np.uint8) for index in range(100)]
    path = write_file(
        tmp_path / "a.mp4", pictures, codec="libx264", pixel_format="yuv444p", time_base=Fraction(1, 10), times=list(range(100))
    )
    whole, late = ingest(path), ingest(path, start_s=7.0)
    assert len(late.frames) == 30
    assert np.array_equal(late.frames.array(), whole.frames.array()[70:])
    assert np.allclose(late.times_s, whole.times_s[70:] - whole.times_s[70])


def test_more_frames_than_the_limit_are_cut_and_recorded(tmp_path: Path) -> None:
    clip = ingest(write_file(tmp_path / "a.mkv", noise(6)), max_frames=4)
    assert len(clip.frames) == 4
    assert clip.provenance["stopped_at_max_frames"] is True
    assert clip.provenance["truncated"] is False


def test_frames_whose_time_does_not_increase_are_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    stamps = [0, 100, 100, 50, 200]
    with av.open(str(tmp_path / "a.nut"), "w") as container:
        stream = container.add_stream("rawvideo", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.time_base = Fraction(1, 1000)
        path = tmp_path / "a.nut"
        for index, (picture, pts) in enumerate(zip(noise(5), stamps, strict=True)):
            packet = av.Packet(picture.tobytes())
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 1000), pts, index
            container.mux(packet)
    clip = ingest(path)
    assert np.allclose(clip.times_s, [0, 0.1, 0.2])
    assert clip.provenance["dropped_out_of_order"] == 2
    assert np.array_equal(clip.frames.array(), np.stack(noise(5))[[0, 1, 4]])


def test_a_truncated_file_keeps_what_decodes_and_says_so(tmp_path: Path) -> None:
    path = write_file(tmp_path / "whole.mkv", noise(20))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = ingest(cut)
    assert 8 <= len(clip.frames) <= 12
    assert clip.provenance["truncated"] is True
    assert np.array_equal(clip.frames.array()[:8], np.stack(noise(20)[:8]))
    assert ingest(path).provenance["truncated"] is False


def test_a_truncated_streaming_mp4_keeps_what_decodes_and_says_so(tmp_path: Path) -> None:
    options = {"movflags": "+faststart"}
    path = write_file(tmp_path / "whole.mp4", noise(20), codec="libx264", pixel_format="yuv444p", options=options)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = ingest(cut)
    assert 2 <= len(clip.frames) < 20
    assert clip.provenance["truncated"] is True


@pytest.mark.parametrize("container", ["gif", "flv", "mpegts", "webm"])
def test_whole_files_of_many_containers_are_not_called_truncated(tmp_path: Path, container: str) -> None:
    coding = {
        "gif": ("gif", "rgb8"),
        "flv": ("flv1", "yuv420p"),
        "mpegts": ("mpeg4", "yuv420p"),
        "webm": ("libvpx-vp9", "yuv420p"),
    }
    suffix = "ts" if container == "mpegts" else container
    stamps = [0, 100, 200, 1100, 1200]  # with a pause in the middle
    base = Fraction(1, 100) if container == "gif" else Fraction(1, 1000)
    times = [int(Fraction(stamp, 1000) / base) for stamp in stamps]
    codec, pixel_format = coding[container]
    pictures = [corner_picture(96, 64)] * 5
    path = write_file(tmp_path / f"a.{suffix}", pictures, codec=codec, pixel_format=pixel_format, times=times, time_base=base)
    clip = ingest(path)
    assert np.allclose(clip.times_s, np.array(stamps) / 1000, atol=1e-3)
    assert clip.provenance["truncated"] is False


def test_frames_without_timestamps_get_the_nominal_rate_and_are_counted(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mp4", [corner_picture(96, 64)] * 6, codec="libx264", pixel_format="yuv420p")
    raw = tmp_path / "a.h264"
    with av.open(str(path)) as whole, av.open(str(raw), "w", format="h264") as bare:
        stream = bare.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                bare.mux(packet)
    clip = ingest(raw)
    assert clip.provenance["frames_without_time"] == 6
    assert np.allclose(np.diff(clip.times_s), 0.04)


@pytest.mark.parametrize("matrix", [1, 5])  # BT.709 and BT.601, in H.273's numbers
@pytest.mark.parametrize("full_range", [1, 2])
def test_colours_follow_the_files_matrix_and_range(tmp_path: Path, matrix: int, full_range: int) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, full_range
        for index in range(2):
            rgb = av.VideoFrame.from_ndarray(corner_picture(96, 64), format="rgb24")
            frame = rgb.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=full_range)
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frame = ingest(path).frames.array()[0]
    assert close_to(frame[5, 5], RED, 4)
    assert close_to(frame[5, -5], GREEN, 4)
    assert close_to(frame[-5, 5], BLUE, 4)


def test_the_same_file_gives_the_same_digest_twice(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mp4", noise(5), codec="libx264", pixel_format="yuv420p")
    assert content_digest(ingest(path)) == content_digest(ingest(path))


def test_progress_ends_complete(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mkv", noise(7))
    seen: list[tuple[int, int]] = []
    source = Source(Files({path.name: path}), "video", path.name)
    ingest_video(source, VideoConfig(), seed=0, progress=lambda done, total, note="": seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, 8))
    assert all(done <= total for done, total in seen)


def test_gps_beside_the_file_is_read_in_the_clips_time(tmp_path: Path) -> None:
    path = write_file(tmp_path / "drive.mkv", noise(20))
    (tmp_path / "drive.gps.csv").write_text(
        "time_s,latitude_deg,longitude_deg,altitude_m,speed_mps\n0.5,55.5,13.25,30,8.5\n0.0,55.0,13.0,,\n"
    )
    source = describe_source(path)
    clip, truth = ingest_video(source, VideoConfig(start_s=0.5), seed=0, progress=no_progress)
    assert not truth.available
    assert clip.gps is not None
    assert clip.gps.to_pylist() == [
        {"time_s": -0.5, "latitude_deg": 55.0, "longitude_deg": 13.0, "altitude_m": None, "speed_mps": None},
        {"time_s": 0.0, "latitude_deg": 55.5, "longitude_deg": 13.25, "altitude_m": 30.0, "speed_mps": 8.5},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,lat\n1,2\n", r"gps\.csv has no column time_s"),
        ("time_s,latitude_deg,longitude_deg\n0,north,3\n", r"line 2: latitude_deg is 'north'"),
        ("time_s,latitude_deg,longitude_deg\n0,,3\n", r"line 2: latitude_deg must be a finite number"),
        ("time_s,latitude_deg,longitude_deg\n0,155,3\n", r"line 2: latitude 155"),
    ],
)
def test_a_bad_gps_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write_file(tmp_path / "drive.mkv", noise(2))
    (tmp_path / "drive.mkv.gps.csv").write_text(text)
    with pytest.raises(WorldlineError, match=message):
        ingest_video(describe_source(path), VideoConfig(), seed=0, progress=no_progress)


def test_more_frames_than_memory_holds_are_refused_before_they_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.ingest.pictures.MEMORY_LIMIT_BYTES", 5 * 64 * 48 * 3)
    path = write_file(tmp_path / "a.mkv", noise(6))
    assert len(ingest(path, max_frames=5).frames) == 5
    assert "set max_frames, max_side or end_s" in refusal(path)


def refusal(path: Path, **config: object) -> str:
    with pytest.raises(WorldlineError) as error:
        ingest(path, **config)
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message or config
    return message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "none.mp4")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["notes.mp4", "notes.txt", "notes", "notes.srt", "notes.ans"])
@pytest.mark.parametrize("text", ["1\n00:00:00,000 --> 00:00:01,000\nA subtitle.\n\n", "Nothing moves in this file.\n"])
def test_a_text_file_is_refused_whatever_its_name(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text * 40)
    assert "video" in refusal(tmp_path / name)


def test_a_playlist_is_refused_before_it_opens_anything(tmp_path: Path) -> None:
    video = write_file(tmp_path / "a.ts", noise(5), codec="libx264", pixel_format="yuv420p")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{video.name}\n#EXT-X-ENDLIST\n")
    refusal(playlist)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(20000))
    assert "cannot be opened as a video" in refusal(tmp_path / "noise.mp4")


def test_a_sound_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "audio streams but no video" in refusal(path)


def test_one_frame_is_refused(tmp_path: Path) -> None:
    assert "one frame has no motion" in refusal(write_file(tmp_path / "still.mkv", noise(1)))


def test_a_photo_is_refused_as_one_frame(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(noise(1)[0]).save(tmp_path / "photo.jpg")
    assert "one frame has no motion" in refusal(tmp_path / "photo.jpg")


def test_a_file_cut_before_its_index_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "whole.mp4", noise(20), codec="libx264", pixel_format="yuv444p")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut off before its index" in refusal(cut)


def test_a_file_of_which_no_frame_decodes_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mkv", noise(2))
    cut = tmp_path / "head.mkv"
    cut.write_bytes(path.read_bytes()[:1500])
    refusal(cut)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"start_s": 100.0}, "start_s"),
        ({"start_s": -1.0}, "start_s"),
        ({"start_s": 2.0, "end_s": 1.0}, "end_s"),
        ({"max_frames": 1}, "max_frames"),
        ({"frames_per_second": 0.0}, "frames_per_second"),
        ({"max_side": 2}, "max_side"),
        ({"camera_height_m": -1.0}, "camera_height_m"),
        ({"camera_height_sigma_m": 0.1}, "camera_height_m"),
        ({"intrinsics": (0.0, 1.0, 2.0, 3.0)}, "intrinsics"),
    ],
)
def test_a_config_that_can_keep_nothing_names_its_field(tmp_path: Path, config: dict, field: str) -> None:
    assert field in refusal(write_file(tmp_path / "a.mkv", noise(3)), **config)
