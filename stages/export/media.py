"""Frames as web media: H.264 video and JPEG pictures, the same bytes every time.

H.264 in MP4 with 4:2:0 chroma is the one combination that every browser plays, Debian's Chromium included. Frames keep
their true times (the track is of variable rate), there are no B-frames, and a key frame comes every few frames, so that
setting a video's time shows that frame at once.
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import UInt8

_COARSEST_CRF, _CRF_STEP = 41, 3
_CLOCK = 90_000  # ticks per second of the container, MPEG's own


def fit_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Return the largest even width and height of the same shape whose longer side is at most `max_side` pixels.

    Frames are never enlarged. Both sides are even because 4:2:0 chroma has half of each.
    """
    factor = min(1.0, max_side / max(width, height))
    return max(2, round(width * factor / 2) * 2), max(2, round(height * factor / 2) * 2)


def resize(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Resize RGB to `size` (width, height): area averages when it shrinks."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    shrinks = size[0] <= frame.shape[1] and size[1] <= frame.shape[0]
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def encode_mp4(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], times_s: np.ndarray, crf: int) -> int:
    """Write RGB frames as H.264 with their times and return the file's size in bytes.

    The last frame is shown for the median spacing of the others, so a video of T frames lasts a little longer than
    `times_s[-1] - times_s[0]`. Same frames, times and FFmpeg build give the same bytes: one thread, no dates, no
    version strings in the container.

    Args:
        path: the file to write.
        frames: `[H, W, 3]` uint8 each, H and W even.
        times_s: `[T]` seconds, strictly increasing; the first frame is shown at 0.
        crf: x264's constant rate factor, 18 (no visible loss) to 40.

    Raises:
        ValueError: if a side of a frame is odd, or there are not as many frames as times.
    """
    ticks = np.round((times_s - times_s[0]) * _CLOCK).astype(np.int64)
    last = int(np.median(np.diff(ticks))) if len(ticks) > 1 else _CLOCK // 10
    durations = [*np.diff(ticks).tolist(), last]
    written = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = None
        for index, frame in enumerate(frames):
            if index == len(ticks):
                raise ValueError(f"more frames than the {len(ticks)} times")
            if stream is None:
                stream = _add_h264_stream(container, frame.shape[1], frame.shape[0], crf)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            picture.pts, picture.duration, picture.time_base = int(ticks[index]), durations[index], Fraction(1, _CLOCK)
            for packet in stream.encode(picture):
                container.mux(_lasting(packet, ticks, durations))
            written += 1
        if stream is not None:
            for packet in stream.encode():
                container.mux(_lasting(packet, ticks, durations))
    if written != len(times_s):
        raise ValueError(f"{written} frames but {len(ticks)} times")
    return path.stat().st_size


def encode_within(
    budget: float,
    videos: Mapping[str, Iterable[UInt8[np.ndarray, "h w 3"]]],
    times_s: np.ndarray,
    folder: Path,
    finest_crf: int,
    after_each: Callable[[int], None] = lambda done: None,
) -> dict[str, Path]:
    """Write videos as well as a budget in bytes allows, all with the same quality, and return their files by name.

    Args:
        budget: bytes of all together; where even the coarsest quality takes more, it is overdrawn.
        videos: frames by name, each of which can be gone through more than once.
        times_s: `[T]` their times.
        folder: where the files go.
        finest_crf: x264's constant rate factor to begin with.
        after_each: called with the number of videos written at this quality.
    """
    files = {name: folder / f"{name}.mp4" for name in videos}
    for crf in range(finest_crf, _COARSEST_CRF + 1, _CRF_STEP):
        size = 0
        for done, (name, frames) in enumerate(videos.items(), 1):
            size += encode_mp4(files[name], frames, times_s, crf)
            after_each(done)
        if size <= budget:
            break
    return files


def _lasting(packet: av.Packet, ticks: np.ndarray, durations: list[int]) -> av.Packet:
    """Give a packet the duration of its frame: the encoder guesses one from a constant rate, wrong for the last frame."""
    assert packet.pts is not None
    packet.duration = durations[int(np.searchsorted(ticks, packet.pts))]
    return packet


def _add_h264_stream(container: av.container.OutputContainer, width: int, height: int, crf: int) -> av.VideoStream:
    if width % 2 or height % 2:
        raise ValueError(f"4:2:0 video needs even sides, not {width}x{height}")
    stream = container.add_stream("libx264", rate=30)  # a formality: every frame carries its own time
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = Fraction(1, _CLOCK)
    context = stream.codec_context
    context.time_base = Fraction(1, _CLOCK)
    context.thread_count = 1
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    context.options = {"crf": str(crf), "preset": "medium", "bf": "0", "g": "12", "flags": "+bitexact"}
    return stream


def encode_jpeg(image: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """Encode an RGB image as JPEG, `quality` 1 to 100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV writes any uint8 image"
    return data.tobytes()


def data_uri(data: bytes, mime: str) -> str:
    """Return bytes as a `data:` address that a page can hold in itself."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
