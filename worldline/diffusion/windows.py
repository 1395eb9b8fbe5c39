"""Windows: some frames of a clip with all that is known of them, read, augmented and turned into planes of numbers."""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from schemas.clips import Clip
from schemas.driving import Conditions
from schemas.errors import WorldlineError

# Filled prior (3), how far it is known, the same of the warped frames (4), boxes (3), road (3), nearness, row and column of the
# pixel in the whole frame.
PLANES = 17
PRIOR, WARPED, BOXES = slice(0, 3), slice(4, 7), slice(8, 11)
TEXT_LENGTH = 16  # words; further ones are not read
SIDE_MULTIPLE = 16  # of the pixels of a frame: the patches of 4 are halved twice
_NEARNESS_M = 10.0  # depth whose nearness is one half


_PICTURES = ("prior", "known", "warped", "warped_known", "boxes", "road", "depth_m", "target")


class Window(NamedTuple):
    """Frames of one clip and what is known of them.

    Attributes:
        prior: RGB of a scene's drawing, 0 where nothing is known.  known: 0 to 255.
        warped: RGB of recorded frames warped into the view.  warped_known: 0 to 255.
        boxes, road: canvases of `Conditions`.  depth_m: 0 where unknown.
        rows, columns: where the pixels lie in the whole frame, -1 at its first edge and 1 at its last.
        first_frame: the first recorded frame, whole.  text: what happens.
        offset_m: forward and left of the recorded position.
        target: the true frames, RGB; of no frames where they are not known.
    """

    prior: UInt8[np.ndarray, "F H W 3"]
    known: UInt8[np.ndarray, "F H W"]
    warped: UInt8[np.ndarray, "F H W 3"]
    warped_known: UInt8[np.ndarray, "F H W"]
    boxes: UInt8[np.ndarray, "F H W 3"]
    road: UInt8[np.ndarray, "F H W 3"]
    depth_m: Float32[np.ndarray, "F H W"]
    rows: Float32[np.ndarray, " H"]
    columns: Float32[np.ndarray, " W"]
    first_frame: UInt8[np.ndarray, "h w 3"]
    text: str
    offset_m: Float64[np.ndarray, "F 2"]
    target: UInt8[np.ndarray, "G H W 3"]


class Inputs(NamedTuple):
    """What the network is told of a batch of windows.

    Attributes:
        planes: `PLANES` of every frame; the filled prior is the first three, RGB in [-1, 1].
        words: numbers of the words, 0 where there is none.
        first_frame: RGB in [-1, 1], of a fixed size.
        offset_m: forward and left, mean of the window.
    """

    planes: Float[Tensor, "B F 17 H W"]
    words: Int64[Tensor, "B 16"]
    first_frame: Float[Tensor, "B 3 32 48"]
    offset_m: Float[Tensor, "B 2"]

    def to(self, device: str) -> "Inputs":
        """Return the same on another device."""
        return Inputs(*(item.to(device) for item in self))


def read_window(conditions: Conditions, drawn: Conditions, frames: Sequence[int], clip: Clip | None = None) -> Window:
    """Read frames of the conditions and, where it is given, of the true clip.

    Args:
        conditions: with the recorded frames warped into the view as prior.
        drawn: the same with a scene's drawing as prior; the conditions themselves where there is none.
        frames: which.
        clip: the true frames.

    Raises:
        WorldlineError: if sizes do not go together or are no multiples of 16 pixels.
    """
    _, height, width = conditions.known.shape
    check_size(conditions, drawn, clip)
    whole_rows, whole_columns = ((np.arange(side, dtype=np.float32) * 2 + 1) / side - 1 for side in (height, width))
    return Window(
        prior=drawn.prior.at(frames),
        known=drawn.known.at(frames).astype(np.uint8),
        warped=conditions.prior.at(frames),
        warped_known=conditions.known.at(frames).astype(np.uint8),
        boxes=conditions.boxes.at(frames),
        road=conditions.road.at(frames),
        depth_m=conditions.depth_cm.at(frames).astype(np.float32) / 100,
        rows=whole_rows,
        columns=whole_columns,
        first_frame=conditions.first_frame,
        text=conditions.text,
        offset_m=conditions.offset_m[list(frames)],
        target=np.zeros((0, height, width, 3), np.uint8) if clip is None else clip.frames.at(frames),
    )


def check_size(conditions: Conditions, drawn: Conditions, clip: Clip | None = None) -> None:
    """Refuse frames that the network cannot take.

    Raises:
        WorldlineError: if the size is no multiple of 16 pixels, or the drawing or the true clip has another size or number of
            frames.
    """
    count, height, width = conditions.known.shape
    if height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        raise WorldlineError(
            f"the conditions are {width} x {height} px: both sides must be multiples of {SIDE_MULTIPLE} px; "
            "make them at another size"
        )
    if drawn.known.shape != conditions.known.shape:
        raise WorldlineError(
            f"the drawn conditions are {list(drawn.known.shape)} and the warped ones {list(conditions.known.shape)} frames, rows "
            "and columns: give those of one view"
        )
    if clip is not None and (clip.size != (width, height) or len(clip.times_s) != count):
        raise WorldlineError(
            f"the clip {clip.name} has {len(clip.times_s)} frames of {clip.size[0]} x {clip.size[1]} px and its conditions "
            f"{count} of {width} x {height} px: give each clip the conditions of its own view"
        )


def crop(window: Window, width: int, height: int, rng: np.random.Generator) -> Window:
    """Return a random part of all frames, as large as asked for where the frames are."""
    rows, columns = window.known.shape[1:]
    height, width = min(height, rows), min(width, columns)
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    part = np.s_[:, top : top + height, left : left + width]
    return window._replace(
        **{name: getattr(window, name)[part] for name in _PICTURES},
        rows=window.rows[top : top + height],
        columns=window.columns[left : left + width],
    )


def mirror(window: Window) -> Window:
    """Return the window as a camera in the mirror sees it: images flipped, left and right exchanged in offsets and words."""
    swap = {"left": "right", "right": "left"}
    return window._replace(
        **{name: getattr(window, name)[:, :, ::-1] for name in _PICTURES},
        first_frame=window.first_frame[:, ::-1],
        columns=-window.columns[::-1],
        text=" ".join(swap.get(word, word) for word in window.text.split()),
        offset_m=window.offset_m * [1.0, -1.0],
    )


def degrade(window: Window, rng: np.random.Generator) -> Window:
    """Return the window with worse warped frames: gone, with patches lost, out of place, blurred, or of another exposure.

    One draw holds for all frames, as the errors of a warp do; about half of the windows stay as they are.
    """
    warped, known = window.warped.copy(), window.warped_known.copy()
    _, height, width = known.shape
    if rng.random() < 0.05:
        warped[:], known[:] = 0, 0
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 5)):
            high, wide = rng.integers(height // 16, height // 4 + 1), rng.integers(width // 16, width // 4 + 1)
            top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
            warped[:, top : top + high, left : left + wide] = 0
            known[:, top : top + high, left : left + wide] = 0
    if rng.random() < 0.1:
        down, right = rng.integers(-1, 2, 2)
        warped, known = (np.roll(item, (down, right), (1, 2)) for item in (warped, known))
    if rng.random() < 0.1:
        warped = np.stack([cv2.GaussianBlur(np.ascontiguousarray(item), (0, 0), 0.8) for item in warped])
        warped[known == 0] = 0
    if rng.random() < 0.1:
        warped = np.clip(warped * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.uint8)
    return window._replace(warped=warped, warped_known=known)


def to_inputs(windows: Sequence[Window]) -> Inputs:
    """Return what the network is told of windows of one size."""
    planes = []
    for window in windows:
        frames, height, width = window.known.shape
        known, seen = (
            torch.from_numpy(np.ascontiguousarray(item)).float()[:, None] / 255 for item in (window.known, window.warped_known)
        )
        prior = fill_holes(_picture(window.prior), (known > 0).float())
        warped = torch.where(seen > 0, _picture(window.warped), prior)
        depth = torch.from_numpy(np.ascontiguousarray(window.depth_m))[:, None]
        nearness = torch.where(depth > 0, _NEARNESS_M / (_NEARNESS_M + depth), 0.0)
        rows = torch.from_numpy(window.rows.copy())[None, None, :, None].expand(frames, 1, height, width)
        columns = torch.from_numpy(window.columns.copy())[None, None, None].expand(frames, 1, height, width)
        canvases = [(_picture(canvas) + 1) / 2 for canvas in (window.boxes, window.road)]
        planes.append(torch.cat([prior, known, warped, seen, *canvases, nearness, rows, columns], dim=1))
    first = [functional.interpolate(_picture(window.first_frame[None]), (32, 48), mode="area")[0] for window in windows]
    return Inputs(
        torch.stack(planes),
        torch.tensor([number_words(window.text) for window in windows]),
        torch.stack(first),
        torch.tensor(np.stack([window.offset_m.mean(axis=0) for window in windows]), dtype=torch.float32),
    )


def to_targets(windows: Sequence[Window]) -> Float[Tensor, "B F 3 H W"]:
    """Return the true frames of windows, RGB in [-1, 1]."""
    return torch.stack([_picture(window.target) for window in windows])


def number_words(text: str) -> list[int]:
    """Return the numbers of the first words, 1 to 255 by their checksum (words may share one), and 0 where there is none.

    Figures in the text are passed over: offsets are told apart from it.
    """
    numbers = [1 + zlib.crc32(word.encode()) % 255 for word in re.findall("[a-z]+", text.lower())[:TEXT_LENGTH]]
    return numbers + [0] * (TEXT_LENGTH - len(numbers))


def fill_holes(colors: Float[Tensor, "F 3 H W"], weight: Float[Tensor, "F 1 H W"]) -> Float[Tensor, "F 3 H W"]:
    """Return colours with those of weight 0 taken smoothly from around them, by pull and push over a pyramid.

    Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.5. Where nothing at all is known the result is 0.
    """
    if min(weight.shape[-2:]) == 1 and max(weight.shape[-2:]) == 1:
        return colors * weight
    share, sums = (functional.avg_pool2d(item, 2, ceil_mode=True, count_include_pad=False) for item in (weight, colors * weight))
    coarse = sums / share.clamp_min(1e-6)
    filled = fill_holes(coarse, (share * 4).clamp_max(1.0))
    finer = functional.interpolate(filled, weight.shape[-2:], mode="bilinear", align_corners=False)
    return weight * colors + (1 - weight) * finer


def _picture(frames: UInt8[np.ndarray, "F H W 3"]) -> Float[Tensor, "F 3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
