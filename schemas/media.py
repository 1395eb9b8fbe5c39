"""Frame sequences: held in memory or decoded on demand from a lossless file.

The container is FFV1 (version 3, one slice set per frame, CRC on) in Matroska, written bit-exactly: the only open
codec that is lossless for RGB and for 16-bit labels and that every FFmpeg build reads. Every frame is a key frame, so
that any of them is decoded alone (files written before had one key frame in twelve; they cost 1.3 % less space and
are read all the same). Times are not kept in the container (Matroska rounds them to milliseconds); the artifact that
owns the frames keeps them as float64 seconds.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import WorldlineError

# memory layout -> (PyAV format to exchange arrays with, pixel format inside FFV1)
_LAYOUTS = {"rgb": ("rgb24", "bgr0"), "gray16": ("gray16le", "gray16le")}


class Video:
    """A sequence of frames `[T, H, W, 3]` uint8 (layout "rgb") or `[T, H, W]` uint16 (layout "gray16").

    Built by `Video.from_array` or `Video.open`; iterating decodes in order and holds one frame at a time.
    """

    def __init__(self, shape: tuple[int, ...], layout: str, *, array: np.ndarray | None = None, path: Path | None = None):
        self.shape = shape
        self.layout = layout
        self._array = array
        self.path = path

    @classmethod
    def from_array(cls, frames: np.ndarray) -> "Video":
        """Wrap frames already in memory.

        Raises:
            ValueError: if the array is neither uint8 `[T, H, W, 3]` nor uint16 `[T, H, W]`.
        """
        if frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3:
            return cls(frames.shape, "rgb", array=np.ascontiguousarray(frames))
        if frames.dtype == np.uint16 and frames.ndim == 3:
            return cls(frames.shape, "gray16", array=np.ascontiguousarray(frames))
        raise ValueError(f"a video is uint8 [T,H,W,3] or uint16 [T,H,W], not {frames.dtype} {list(frames.shape)}")

    @classmethod
    def open(cls, path: Path, shape: tuple[int, ...]) -> "Video":
        """Open a file written by `write_video`; nothing is decoded yet."""
        return cls(tuple(shape), "rgb" if len(shape) == 4 else "gray16", path=path)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode in order.

        Raises:
            WorldlineError: if the file is damaged.
        """
        if self._array is not None:
            yield from self._array
            return
        assert self.path is not None
        exchange, _ = _LAYOUTS[self.layout]
        import av  # here and below: 40 ms that a look into the catalog does not pay

        decoded = 0
        try:
            with av.open(str(self.path), "r") as container:
                container.streams.video[0].thread_type = "AUTO"
                for packet in container.demux(video=0):
                    if packet.size and not slices_intact(bytes(packet)):
                        raise _damaged(self.path, packet.pts)
                    for frame in packet.decode():
                        decoded += 1
                        yield frame.to_ndarray(format=exchange)
        except av.error.FFmpegError as error:
            raise _damaged(self.path, decoded) from error
        if decoded != len(self):
            raise _damaged(self.path, decoded)

    def at(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames of these indices, in this order, decoding no others; see `FrameReader` for many calls.

        Raises:
            IndexError: if there is no such frame.
            WorldlineError: if the file is damaged there.
        """
        if self._array is not None:
            return self._array[list(indices)]
        with FrameReader(self) as reader:
            return reader.read(indices)

    def array(self) -> np.ndarray:
        """Return all frames at once; decoded on the first call and kept."""
        if self._array is None:
            dtype = np.uint8 if self.layout == "rgb" else np.uint16
            frames = np.empty(self.shape, dtype)
            for index, frame in enumerate(self):
                frames[index] = frame
            self._array = frames
        return self._array


_FARTHEST_STEP = 12  # a frame at most so far ahead is reached by reading on; farther, by seeking


class FrameReader:
    """Reads any frames of a file that `write_video` wrote; for one thread of one process.

    Attributes:
        path: the file, open until `close`.
    """

    def __init__(self, video: Video) -> None:
        if video.path is None:
            raise ValueError("frames in memory need no reader: use Video.at")
        self.path = video.path
        self._shape, self._stored = video.shape, _LAYOUTS[video.layout][1]
        # The format is known: nothing has to be probed. More threads would not survive a fork and fight over cores.
        options = {"analyzeduration": "0", "probesize": "32", "fpsprobesize": "0"}
        import av

        try:
            self._container = av.open(str(self.path), options=options)
        except av.error.FFmpegError as error:
            raise WorldlineError(f"{self.path} cannot be read as a video ({error.strerror}): build it again") from error
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._packets = self._container.demux(self._stream)
        self._next = 0  # the frame that comes next out of the file

    def read(self, indices: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Return frames `[len(indices), H, W(, 3)]`, each decoded once; nothing is decoded that they do not need.

        Args:
            indices: frame numbers in any order; they may repeat.
            out: array of that shape to decode into, else a new one is made.

        Raises:
            IndexError: if there is no such frame.
            WorldlineError: if the file is damaged there.
        """
        if out is None:
            out = np.empty((len(indices), *self._shape[1:]), np.uint8 if len(self._shape) == 4 else np.uint16)
        slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            if not 0 <= index < self._shape[0]:
                raise IndexError(f"{self.path} has frames 0 to {self._shape[0] - 1}, not {index}")
            slots.setdefault(index, []).append(slot)
        for index in sorted(slots):
            first, *others = slots[index]
            self._decode(index, out[first])
            for slot in others:
                out[slot] = out[first]
        return out

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, index: int, picture: np.ndarray) -> None:
        import av

        try:
            if not self._next <= index <= self._next + _FARTHEST_STEP:
                self._container.seek(index, stream=self._stream)
                self._packets = self._container.demux(self._stream)
            needed: list[av.Packet] = []
            for packet in self._packets:
                if packet.pts is None:  # the end of the file
                    break
                if packet.is_keyframe:
                    needed.clear()
                needed.append(packet)
                if packet.pts == index:
                    self._next = index + 1
                    self._fill(picture, needed)
                    return
        except av.error.FFmpegError as error:
            raise self._damaged(index) from error
        raise self._damaged(index)

    def _fill(self, picture: np.ndarray, needed: list[Any]) -> None:
        """Decode packets, and copy the last frame from where FFmpeg left it (its own conversion costs a tenth of decoding)."""
        for packet in needed:
            if not slices_intact(bytes(packet)):
                raise self._damaged(packet.pts)
            (frame,) = packet.decode()
        height, width = picture.shape[:2]
        if (frame.height, frame.width, frame.format.name) != (height, width, self._stored):
            raise self._damaged(packet.pts)
        if picture.ndim == 2:
            picture[:] = np.frombuffer(frame.planes[0], "<u2").reshape(height, -1)[:, :width]
            return
        blue_green_red_none = np.frombuffer(frame.planes[0], np.uint8).reshape(height, -1, 4)[:, :width]
        for channel in range(3):
            picture[..., channel] = blue_green_red_none[..., 2 - channel]

    def _damaged(self, index: int) -> WorldlineError:
        self._next = -_FARTHEST_STEP - 1  # where the file stands is unknown: the next read seeks
        return _damaged(self.path, index)


def _damaged(path: Path, index: int | None) -> WorldlineError:
    return WorldlineError(f"frame {index} of {path} is damaged: delete the file and build it again")


_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def slices_intact(packet: bytes) -> bool:
    """Return whether all slices of an FFV1 packet have their checksums; FFmpeg itself only logs what is wrong.

    A slice ends with its size (3 bytes), a status byte and a CRC-32 that makes the CRC of the whole slice zero. That
    CRC runs over bits from the highest to the lowest, zlib's from the lowest: hence the reversed bytes.
    """
    end = len(packet)
    while end > 8:
        start = end - 8 - int.from_bytes(packet[end - 8 : end - 5])
        if start < 0 or zlib.crc32(packet[start:end].translate(_BITS_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return end == 0


def write_video(path: Path, frames: Iterable[np.ndarray], layout: str) -> None:
    """Write frames losslessly; the same frames give the same bytes with the same FFmpeg build."""
    exchange, stored = _LAYOUTS[layout]
    import av

    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream("ffv1", rate=1000)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = stored
                stream.codec_context.options = {"level": "3", "slicecrc": "1", "slices": "4", "g": "1", "flags": "+bitexact"}
                stream.codec_context.thread_count = 2
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=exchange)
            picture.pts = index
            for packet in stream.encode(picture):
                container.mux(packet)
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
