"""Web video keeps every frame, its time and its colours."""

from pathlib import Path

import av
import numpy as np
import pytest

from stages.export.media import encode_mp4, fit_size

TIMES_S = np.array([0.0, 0.1, 0.15, 0.4, 0.5])


def colored_frames() -> np.ndarray:
    colors = [(200, 60, 30), (20, 200, 90), (240, 240, 240), (10, 20, 220), (128, 128, 128)]
    return np.stack([np.full((48, 64, 3), color, np.uint8) for color in colors])


def test_frames_keep_their_times_and_colours(tmp_path: Path) -> None:
    encode_mp4(tmp_path / "a.mp4", colored_frames(), TIMES_S + 7.0, crf=18)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].duration * container.streams.video[0].time_base) == pytest.approx(0.6, abs=1e-3)
        decoded = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    np.testing.assert_allclose([time for time, _ in decoded], TIMES_S, atol=1e-4)
    for (_, got), wanted in zip(decoded, colored_frames(), strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 6


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        encode_mp4(tmp_path / name, colored_frames(), TIMES_S, crf=30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_playback_can_start_before_the_whole_file_is_there(tmp_path: Path) -> None:
    encode_mp4(tmp_path / "a.mp4", colored_frames(), TIMES_S, crf=30)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_sizes_are_even_keep_the_shape_and_never_grow() -> None:
    assert fit_size(1921, 1081, 640) == (640, 360)
    assert fit_size(333, 201, 640) == (332, 200)
    assert fit_size(480, 854, 640) == (360, 640)


def test_frames_without_times_and_odd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more frames than the 4 times"):
        encode_mp4(tmp_path / "a.mp4", colored_frames(), TIMES_S[:4], crf=30)
    with pytest.raises(ValueError, match="4 frames but 5 times"):
        encode_mp4(tmp_path / "a.mp4", colored_frames()[:4], TIMES_S, crf=30)
    with pytest.raises(ValueError, match="even sides"):
        encode_mp4(tmp_path / "b.mp4", colored_frames()[:, :47], TIMES_S, crf=30)
