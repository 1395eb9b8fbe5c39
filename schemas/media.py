"""Frame sequences: held in memory or decoded on demand from a lossless file.

The container is FFV1 (version 3, one slice set per frame, CRC on) in Matroska, written bit-exactly: the only open
codec that is lossless for RGB and for 16-bit labels and that every FFmpeg build reads. Times are not kept in the
container (Matroska rounds them to milliseconds); the artifact that owns the frames keeps them as float64 seconds.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np

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
        if self._array is not None:
            yield from self._array
            return
        assert self.path is not None
        exchange, _ = _LAYOUTS[self.layout]
        with av.open(str(self.path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format=exchange)

    def array(self) -> np.ndarray:
        """Return all frames at once; decoded on the first call and kept."""
        if self._array is None:
            dtype = np.uint8 if self.layout == "rgb" else np.uint16
            frames = np.empty(self.shape, dtype)
            for index, frame in enumerate(self):
                frames[index] = frame
            self._array = frames
        return self._array


def write_video(path: Path, frames: Iterable[np.ndarray], layout: str) -> None:
    """Write frames losslessly; the same frames give the same bytes with the same FFmpeg build."""
    exchange, stored = _LAYOUTS[layout]
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream("ffv1", rate=1000)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = stored
                stream.codec_context.options = {"level": "3", "slicecrc": "1", "slices": "4", "flags": "+bitexact"}
                stream.codec_context.thread_count = 2
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=exchange)
            picture.pts = index
            for packet in stream.encode(picture):
                container.mux(packet)
        if stream is not None:
            for packet in stream.encode():
                container.mux(packet)
