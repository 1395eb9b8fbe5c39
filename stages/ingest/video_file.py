"""One video file: its frames in order with their true times, and what makes them upright RGB in square pixels."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from schemas.errors import WorldlineError
from stages.ingest.pictures import fitted_size, resize

# Demuxers that turn text into pictures, or that open further files and addresses.
_NOT_VIDEO_FORMATS = {"tty", "hls", "applehttp", "dash", "concat", "sdp", "webvtt", "srt", "ass"}
_SEEK_FROM_S = 5.0
_FAILURES = (av.FFmpegError, OSError, ValueError)


class VideoFile:
    """Decodes the frames of a file's main video stream, with their times in seconds from the file's first frame.

    Attributes:
        stream: the main video stream (pictures attached to sound files do not count).
        facts: what the container says of itself.
        decoded: number of frames decoded so far.
        untimed: frames that had no timestamp and got one from the stream's nominal rate.
        broken: the file ended before it should have, or a part of it did not decode.
        error: what FFmpeg said then.
    """

    def __init__(self, path: Path, name: str, start_s: float = 0.0) -> None:
        """Open a file; frames long before `start_s` may be passed over by seeking.

        Raises:
            WorldlineError: if it is not a video.
        """
        self.name = name
        self.decoded = self.untimed = 0
        self.broken, self.error = False, ""
        self._first_pts: int | None = None
        self._container, self.stream = _open(path, name)
        self.facts = self._file_facts()
        if start_s > _SEEK_FROM_S:
            self._skip_to(path, start_s)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        first, time_s, shown_s = self._first_pts, -math.inf, 0.0
        interval = 1.0 / float(self._nominal_rate())
        frames = self._container.decode(self.stream)
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except _FAILURES as error:
                self.broken, self.error = True, _reason(error)
                return
            self.decoded += 1
            before = time_s
            if frame.pts is None or frame.time_base is None:
                self.untimed += 1
                time_s = 0.0 if time_s == -math.inf else time_s + interval
            else:
                first = frame.pts if first is None else first
                time_s = float((frame.pts - first) * frame.time_base)
            interval = max(interval, time_s - before) if self.decoded > 1 else interval
            shown_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            yield time_s, frame
        declared = self._declared_duration_s()
        self.broken = declared is not None and time_s + max(2 * interval, shown_s) + 0.1 < declared

    def expected_frames(self, end_s: float | None, rate: float | None, limit: int | None) -> int:
        """Estimate how many frames will be kept (for a progress bar only)."""
        span = min(self._declared_duration_s() or 0.0, end_s or math.inf)
        frames = int(span * min(float(self._nominal_rate()), rate or math.inf)) + 1
        return frames if limit is None else min(frames, limit)

    def _nominal_rate(self) -> Fraction:
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    def _declared_duration_s(self) -> float | None:
        """Return how long the video stream says that it is, where it says so (other streams may be longer)."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        parts = self.stream.metadata.get("DURATION", "").split(":")  # Matroska
        if len(parts) == 3:
            return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2])
        if self._container.duration and len(self._container.streams) == 1:
            return self._container.duration / av.time_base
        return None

    def _file_facts(self) -> dict[str, Any]:
        created = self._container.metadata.get("creation_time") or self.stream.metadata.get("creation_time")
        return {
            "container": self._container.format.name,
            "codec": self.stream.codec_context.name,
            "pixel_format": self.stream.codec_context.pix_fmt or "",
            **({"creation_time": created} if created else {}),
        }

    def _skip_to(self, path: Path, start_s: float) -> None:
        """Seek to the key frame before `start_s`, if a trial on a second handle shows that the format can do that."""
        trial, stream = _open(path, self.name)
        with trial:
            try:
                first = next(trial.decode(stream)).pts
                if first is None or not stream.time_base:
                    return
                target = first + int(start_s / stream.time_base)
                trial.seek(target, stream=stream, backward=True)
                landed = next(trial.decode(stream)).pts
                if landed is None or landed > target:
                    return
            except (StopIteration, *_FAILURES):
                return
        self._first_pts = first
        self._container.seek(target, stream=self.stream, backward=True)


def _open(path: Path, name: str) -> tuple[InputContainer, VideoStream]:
    try:
        # Only plain files: a playlist posing as a video must not fetch anything.
        container = av.open(str(path), options={"protocol_whitelist": "file"})
    except _FAILURES as error:
        raise WorldlineError(
            f"{name} cannot be opened as a video ({_reason(error)}): it is another kind of file, or was cut off before its "
            "index was written"
        ) from error
    streams = [item for item in container.streams.video if not item.disposition & Disposition.attached_pic]
    problem = ""
    if _NOT_VIDEO_FORMATS & set(container.format.name.split(",")):
        problem = f"{name} is not a video (it reads as {container.format.long_name}): give a video file"
    elif not streams:
        kinds = " and ".join(sorted({item.type for item in container.streams} - {"video"})) or "no"
        problem = f"{name} holds {kinds} streams but no video: give a file with moving pictures"
    elif streams[0].codec_context is None:
        problem = f"{name} is in a video format that this FFmpeg cannot decode: convert it to H.264 first"
    if problem:
        container.close()
        raise WorldlineError(problem)
    streams[0].thread_type = "AUTO"
    return container, streams[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@dataclass(frozen=True)
class FrameGeometry:
    """How decoded frames become upright RGB frames in square pixels.

    Attributes:
        decoded: size of the decoded frames, (width, height) as are all sizes here.
        upright: size in square pixels after turning, before shrinking: what a player shows.
        kept: size of the clip's frames.
        matrix: rows (a, b), (c, d) of the display matrix: pixel (x, y) goes to (a x + c y, b x + d y), up to a shift.
        pixel_aspect: width over height of a stored pixel.
        interlaced: rows of two instants alternate.
    """

    decoded: tuple[int, int]
    upright: tuple[int, int]
    kept: tuple[int, int]
    matrix: tuple[tuple[float, float], tuple[float, float]]
    pixel_aspect: Fraction
    interlaced: bool

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream, max_side: int | None) -> "FrameGeometry":
        """Read the geometry off the first frame of a stream."""
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = aspect if Fraction(1, 8) <= aspect <= 8 else Fraction(1)
        width, height = frame.width, frame.height
        # Square pixels by stretching the coarser side, so that no detail is lost.
        square = (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
        matrix = _display_matrix(frame)
        upright = square[::-1] if _swaps_axes(matrix) else square
        return cls((width, height), upright, fitted_size(*upright, max_side), matrix, aspect, frame.interlaced_frame)

    def apply(self, frame: VideoFrame) -> np.ndarray:
        """Return the frame as RGB `[H, W, 3]` uint8 of the kept size."""
        picture = _to_rgb(frame)
        if self.interlaced:
            picture = _first_field(picture)
        width, height = self.kept[::-1] if _swaps_axes(self.matrix) else self.kept
        return _turn(resize(picture, width, height), self.matrix)

    def facts(self) -> dict[str, Any]:
        """Return what was done to the frames, for the clip's provenance."""
        (a, b), (c, d) = self.matrix
        return {
            "original_width_px": self.decoded[0],
            "original_height_px": self.decoded[1],
            "pixel_aspect": f"{self.pixel_aspect.numerator}:{self.pixel_aspect.denominator}",
            "turned_clockwise_deg": round(math.degrees(math.atan2(b, a))) % 360,
            "mirrored": a * d - b * c < 0,
            "interlaced": self.interlaced,
        }


def _display_matrix(frame: VideoFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 2x2 part of the frame's display matrix (libavutil/display.h: 16.16 fixed point, row by row)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(cast("bytearray", data))[:36])
        if a or b or c or d:
            return (float(a), float(b)), (float(c), float(d))
    return (1.0, 0.0), (0.0, 1.0)


def _swaps_axes(matrix: tuple[tuple[float, float], tuple[float, float]]) -> bool:
    (a, b), (c, d) = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _turn(picture: np.ndarray, matrix: tuple[tuple[float, float], tuple[float, float]]) -> np.ndarray:
    """Apply the quarter turn and mirroring that is nearest to a display matrix to `[H, W, 3]`."""
    (x_to_x, x_to_y), (y_to_x, y_to_y) = matrix
    if _swaps_axes(matrix):
        picture = picture.swapaxes(0, 1)
        flip_rows, flip_columns = x_to_y < 0, y_to_x < 0
    else:
        flip_rows, flip_columns = y_to_y < 0, x_to_x < 0
    picture = picture[::-1] if flip_rows else picture
    return np.ascontiguousarray(picture[:, ::-1] if flip_columns else picture)


def _to_rgb(frame: VideoFrame) -> np.ndarray:
    """Convert any pixel format to RGB `[H, W, 3]` uint8; transparent pixels are blended with black."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba")
        return ((rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    return frame.to_ndarray(format="rgb24")


def _first_field(picture: np.ndarray) -> np.ndarray:
    """Keep the rows of one instant and interpolate the others between their neighbours."""
    rows = picture[::2]
    below = np.concatenate([rows[1:], rows[-1:]])
    filled = picture.copy()
    odd = filled[1::2]
    odd[:] = ((rows.astype(np.uint16) + below + 1) // 2)[: len(odd)]
    return filled
