"""What the street detector is taught of a frame, and how far off it is."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional

from worldline.detection.network import STRIDE

_SPREAD = 0.54 / 3  # standard deviation of a centre's bump relative to the box, as TTFNet's (Liu et al., AAAI 2020)
_TAUGHT_BUMP = 0.5  # sides are taught where the bump is at least so high


@dataclass(frozen=True)
class Targets:
    """Teaching of one frame.

    Attributes:
        centre: `[h, w]` bumps of height 1 at the cells of box centres.
        counted: `[h, w]` 0 where the truth is not known: vehicles too small or too hidden to be asked for.
        sides: `[4, h, w]` distances in pixels from the cell's middle to the sides of its box.
        taught: `[h, w]` weight of the sides, 0 where none are taught.
    """

    centre: Float32[np.ndarray, "h w"]
    counted: Float32[np.ndarray, "h w"]
    sides: Float32[np.ndarray, "4 h w"]
    taught: Float32[np.ndarray, "h w"]


def targets_of(boxes: Float[np.ndarray, "n 4"], known: Bool[np.ndarray, " n"], width: int, height: int) -> Targets:
    """Return what is taught of a frame with these boxes; of two that claim a cell the smaller one has it.

    Args:
        boxes: in pixels.
        known: which of them must be found; the others may be.
        width: of the frame, a multiple of the stride.
        height: the same.
    """
    rows, columns = height // STRIDE, width // STRIDE
    x, y = (np.arange(columns) + 0.5) * STRIDE, (np.arange(rows) + 0.5) * STRIDE
    centre, counted, taught = (np.full((rows, columns), value, np.float32) for value in (0, 1, 0))
    sides = np.ones((4, rows, columns), np.float32)
    for x0, y0, x1, y1 in boxes[~known]:
        counted[np.ix_((y > y0 - STRIDE) & (y < y1 + STRIDE), (x > x0 - STRIDE) & (x < x1 + STRIDE))] = 0
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-area, kind="stable"):
        if not known[index]:
            continue
        x0, y0, x1, y1 = boxes[index]
        column = min(max(int((x0 + x1) / 2 / STRIDE), 0), columns - 1)
        row = min(max(int((y0 + y1) / 2 / STRIDE), 0), rows - 1)
        across, down = (max(_SPREAD * side, 0.4 * STRIDE) for side in (x1 - x0, y1 - y0))
        bump = np.outer(np.exp(-(((y - y[row]) / down) ** 2) / 2), np.exp(-(((x - x[column]) / across) ** 2) / 2))
        np.maximum(centre, bump, out=centre)
        own = (bump >= _TAUGHT_BUMP) & ((y > y0) & (y < y1))[:, None] & ((x > x0) & (x < x1))[None]
        own[row, column] = True
        for side, value in enumerate((x[None] - x0, y[:, None] - y0, x1 - x[None], y1 - y[:, None])):
            sides[side][own] = np.broadcast_to(value, own.shape)[own].clip(0.1)
        taught[own] = bump[own] / bump[own].sum()
        counted[row, column] = 1
    return Targets(centre, counted, sides, taught)


def centre_loss(logits: Tensor, centre: Tensor, counted: Tensor) -> Tensor:
    """Return CornerNet's focal loss of bumps (Law and Deng, ECCV 2018, eq. 1) per box. All `[N, h, w]`."""
    positive = (centre == 1).float() * counted
    log_yes, log_no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    chance = torch.sigmoid(logits)
    found = positive * (1 - chance) ** 2 * log_yes
    spared = (counted - positive) * (1 - centre) ** 4 * chance**2 * log_no
    return -(found + spared).sum() / positive.sum().clamp(min=1)


def sides_loss(sides: Tensor, true_sides: Tensor, taught: Tensor) -> Tensor:
    """Return the mean generalised-IoU loss (Rezatofighi et al., CVPR 2019) of boxes given by their sides.

    Args:
        sides: `[N, 4, h, w]` distances to left, top, right, bottom from a point.
        true_sides: the same, from the same point.
        taught: `[N, h, w]` weights.
    """
    low = torch.minimum(sides, true_sides)
    high = torch.maximum(sides, true_sides)
    shared = (low[:, 0] + low[:, 2]) * (low[:, 1] + low[:, 3])
    around = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
    union = sum((s[:, 0] + s[:, 2]) * (s[:, 1] + s[:, 3]) for s in (sides, true_sides)) - shared
    loss = 1 - shared / union + (around - union) / around
    return (loss * taught).sum() / taught.sum().clamp(min=1)


def lane_loss(logits: Tensor, lanes: Tensor, counted: Tensor) -> Tensor:
    """Return cross entropy plus one minus the soft overlap (Dice; Milletari et al., 3DV 2016). All `[N, H, W]`."""
    entropy = functional.binary_cross_entropy_with_logits(logits, lanes, reduction="none")
    chance = torch.sigmoid(logits) * counted
    overlap = (2 * (chance * lanes).sum() + 1) / (chance.sum() + (lanes * counted).sum() + 1)
    return (entropy * counted).sum() / counted.sum().clamp(min=1) + 1 - overlap
