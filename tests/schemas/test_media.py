"""Any frame of a video can be read alone, and what was damaged is never taken for a picture."""

from pathlib import Path

import av
import numpy as np
import pytest

from schemas.errors import WorldlineError
from schemas.media import FrameReader, Video, write_video

FRAMES = np.random.default_rng(5).integers(0, 256, (30, 24, 40, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Video:
    write_video(tmp_path / "frames.mkv", FRAMES, "rgb")
    return Video.open(tmp_path / "frames.mkv", FRAMES.shape)


def as_it_was_written_before(path: Path) -> Video:
    """Write one key frame in twelve, FFmpeg's own choice."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=1000, options={"level": "3", "slicecrc": "1", "slices": "4"})
        stream.height, stream.width, stream.pix_fmt = 24, 40, "bgr0"
        for index, frame in enumerate(FRAMES):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return Video.open(path, FRAMES.shape)


@pytest.mark.parametrize("indices", [[29], [0, 1, 2, 3], [28, 3, 3, 17], list(range(0, 30, 7)), []])
def test_any_frames_are_read_in_any_order(video, tmp_path, indices):
    for kept in (video, as_it_was_written_before(tmp_path / "old.mkv"), Video.from_array(FRAMES)):
        assert np.array_equal(kept.at(indices), FRAMES[indices])


def test_one_reader_serves_many_reads(video, tmp_path):
    orders = np.random.default_rng(0).integers(0, 30, (40, 4)).tolist()
    for kept in (video, as_it_was_written_before(tmp_path / "old.mkv")):
        with FrameReader(kept) as reader:
            assert all(np.array_equal(reader.read(order), FRAMES[order]) for order in orders)


def test_label_images_are_read_as_they_were_written(tmp_path):
    labels = np.random.default_rng(1).integers(0, 1 << 16, (5, 16, 16), dtype=np.uint16)
    write_video(tmp_path / "labels.mkv", labels, "gray16")
    assert np.array_equal(Video.open(tmp_path / "labels.mkv", labels.shape).at([4, 1]), labels[[4, 1]])


def test_every_frame_is_a_key_frame(video):
    with av.open(str(video.path)) as container:
        assert [packet.is_keyframe for packet in container.demux(video=0) if packet.size] == [True] * 30


def test_a_frame_is_read_without_decoding_those_before_it(video, monkeypatch):
    decoded = []
    monkeypatch.setattr("schemas.media.slices_intact", lambda packet: decoded.append(packet) or True)
    with FrameReader(video) as reader:
        reader.read([25, 3, 9])
    assert len(decoded) == 3


def test_a_frame_beyond_the_end_is_an_error(video):
    with pytest.raises(IndexError, match="frames 0 to 29, not 30"):
        video.at([30])


def test_a_flipped_bit_is_found_and_the_other_frames_are_read(video):
    with av.open(str(video.path)) as container:
        victim = bytes(next(packet for packet in container.demux(video=0) if packet.pts == 7))
    whole = video.path.read_bytes()
    for place in range(0, len(victim), 97):
        damaged = bytearray(whole)
        damaged[whole.index(victim) + place] ^= 4
        video.path.write_bytes(damaged)
        with FrameReader(video) as reader:
            with pytest.raises(WorldlineError, match=r"frame 7 of .*frames\.mkv is damaged"):
                reader.read([6, 7])
            assert np.array_equal(reader.read([8, 6]), FRAMES[[8, 6]])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_is_damaged_or_cut_off_is_found_when_all_frames_are_read(video, share):
    whole = video.path.read_bytes()
    place = int(share * len(whole))
    for broken in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
        video.path.write_bytes(broken)
        with pytest.raises(WorldlineError, match=r"of .*frames\.mkv is damaged"):
            list(Video.open(video.path, FRAMES.shape))


def test_a_file_that_is_no_video_is_named(video):
    video.path.write_bytes(b"not a video")
    with pytest.raises(WorldlineError, match=r"frames\.mkv cannot be read as a video"):
        video.at([0])
