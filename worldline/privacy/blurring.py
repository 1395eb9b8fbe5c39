"""Boxes of a video made unrecognisable, for good: four averages a side are all that is left of what they held."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from schemas.media import Video

HELD_FRAMES = 3
MARGIN = 0.25
CELLS = 4


class BlurredVideo(Video):
    """A video whose boxes are blurred whenever it is read; where they are is asked once, at the first reading.

    Attributes:
        source: the video as it was.
        find: returns the boxes `[N, 4]` (x0, y0, x1, y1 in pixels) of every frame of a video.
    """

    def __init__(self, source: Video, find: Callable[[Video], Sequence[Float64[np.ndarray, "N 4"]]]):
        super().__init__(source.shape, source.layout)
        self.source = source
        self.find = find

    @cached_property
    def boxes(self) -> list[Float64[np.ndarray, "N 4"]]:
        """Boxes that are blurred, of every frame."""
        return hold(self.find(self.source))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode in order, blurred."""
        for frame, boxes in zip(self.source, self.boxes, strict=True):
            yield blur(frame, boxes)

    def at(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames of these indices, in this order, blurred."""
        frames = self.source.at(indices)
        return np.stack([blur(frame, self.boxes[index]) for frame, index in zip(frames, indices, strict=True)])


def hold(boxes: Sequence[Float64[np.ndarray, "N 4"]], frames: int = HELD_FRAMES) -> list[Float64[np.ndarray, "M 4"]]:
    """Return for every frame its own boxes and those of so many frames before and after.

    A detector that misses a face in one frame, or in a few, then shows nothing: what was there before and what comes after
    lies over it.
    """
    return [np.concatenate(boxes[max(index - frames, 0) : index + frames + 1]) for index in range(len(boxes))]


def blur(frame: UInt8[np.ndarray, "H W 3"], boxes: Float64[np.ndarray, "N 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame with its boxes, and a margin of a quarter of their sides around each, reduced to a smear.

    A box is averaged down to at most four cells along its longer side, drawn at its size again and blurred by half a cell.
    No more than these averages is left, so that nothing can bring back what they were averaged from; a Gaussian blur alone
    could be sharpened again.
    """
    done = frame.copy()
    for x0, y0, x1, y1 in boxes:
        margin_x, margin_y = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
        left, top = max(0, int(np.floor(x0 - margin_x))), max(0, int(np.floor(y0 - margin_y)))
        part = frame[top : max(0, int(np.ceil(y1 + margin_y))), left : max(0, int(np.ceil(x1 + margin_x)))]
        height, width = part.shape[:2]
        if not height or not width:
            continue
        cell = max(height, width) / CELLS
        cells = max(1, int(width / cell)), max(1, int(height / cell))
        mosaic = cv2.resize(cv2.resize(part, cells, interpolation=cv2.INTER_AREA), (width, height),
                            interpolation=cv2.INTER_NEAREST)  # fmt: skip
        done[top : top + height, left : left + width] = cv2.GaussianBlur(mosaic, (0, 0), max(cell / 2, 0.5))
    return done
