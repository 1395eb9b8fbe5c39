"""A small network that finds vehicles and lane lines in street frames.

Vehicles are found as in CenterNet (Zhou et al., "Objects as points", 2019): peaks of a heatmap of box centres. What is
read off at a peak are the distances to the four sides of the box, as in FCOS (Tian et al., ICCV 2019). Lane lines are a
mask. The encoder is a plain residual network whose features also serve Frechet distances.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from worldline.metrics.driving import box_iou

STRIDE = 4  # pixels per cell of the heatmap
COARSEST = 16  # frames are padded to a multiple of this
_CELL_RANGE = 4.0  # side distances are exp(raw) times this many pixels
_MAX_PEAKS = 64
_SAME_VEHICLE_IOU = 0.6
_BATCH = 16


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al., CVPR 2016), halving the size with stride 2."""

    def __init__(self, taken: int, given: int, stride: int = 1):
        super().__init__()
        self.first = nn.Conv2d(taken, given, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(given, given, 3, 1, 1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(given), nn.BatchNorm2d(given)
        same = stride == 1 and taken == given
        self.shortcut = nn.Identity() if same else nn.Conv2d(taken, given, 1, stride, 0, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return features `[N, given, H / stride, W / stride]`."""
        inner = functional.relu(self.first_norm(self.first(features)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(features))


class StreetDetector(nn.Module):
    """Vehicle centres, sides and lane lines of frames whose sides are multiples of 16 px.

    Attributes:
        widths: channels at strides 2, 4, 8 and 16.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 96)):
        super().__init__()
        self.widths = tuple(widths)
        two, four, eight, sixteen = widths
        self.stem = nn.Sequential(nn.Conv2d(3, two, 3, 2, 1, bias=False), nn.BatchNorm2d(two), nn.ReLU())
        self.at_four = nn.Sequential(Residual(two, four, 2), Residual(four, four))
        self.at_eight = nn.Sequential(Residual(four, eight, 2), Residual(eight, eight))
        self.at_sixteen = nn.Sequential(Residual(eight, sixteen, 2), Residual(sixteen, sixteen))
        self.up_eight, self.up_four = nn.Conv2d(sixteen, eight, 1), nn.Conv2d(eight, four, 1)
        self.merge_eight, self.merge_four = Residual(eight, eight), Residual(four, four)
        self.centre = _head(four, 1)
        self.sides = _head(four, 4)
        self.up_two, self.lane = nn.Conv2d(four, two, 1), _head(two, 1)
        nn.init.constant_(self.centre[-1].bias, -4.0)  # type: ignore[arg-type, union-attr]  # few cells are centres (RetinaNet's prior)
        nn.init.constant_(self.lane[-1].bias, -3.0)  # type: ignore[arg-type, union-attr]

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features at strides 2, 4, 8 and 16 of pixels `[N, 3, H, W]` in [-1, 1]."""
        two = self.stem(pixels)
        four = self.at_four(two)
        eight = self.at_eight(four)
        return two, four, eight, self.at_sixteen(eight)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of centres `[N, H/4, W/4]`, sides `[N, 4, H/4, W/4]` in pixels and logits of lanes `[N, H, W]`.

        The sides are distances from the middle of the cell to the box's left, top, right and bottom.
        """
        two, four, eight, sixteen = self.encode(pixels)
        eight = self.merge_eight(eight + _doubled(self.up_eight(sixteen)))
        four = self.merge_four(four + _doubled(self.up_four(eight)))
        sides = _CELL_RANGE * torch.exp(self.sides(four).clamp(-4.0, 5.0))
        lanes = self.lane(two + _doubled(self.up_two(four)))
        return self.centre(four)[:, 0], sides, _doubled(lanes)[:, 0]


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, outputs, 1))


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def pixels_of(images: UInt8[np.ndarray, "N H W 3"], device: torch.device | str = "cpu") -> Tensor:
    """Return images as the network takes them: `[N, 3, H', W']` in [-1, 1], padded at right and bottom to multiples of 16."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    down, right = -pixels.shape[2] % COARSEST, -pixels.shape[3] % COARSEST
    return functional.pad(pixels, (0, right, 0, down), mode="replicate") if down or right else pixels


@torch.inference_mode()
def detect_vehicles(
    network: StreetDetector, images: UInt8[np.ndarray, "T H W 3"], min_score: float = 0.35
) -> list[Float32[np.ndarray, "n 5"]]:
    """Find vehicles: one array of (x0, y0, x1, y1, score) per frame, in pixels, best first.

    Args:
        network: in evaluation mode.
        images: frames of any size; vehicles smaller than about 6 px are not what it was trained for.
        min_score: between 0 and 1.
    """
    height, width = images.shape[1:3]
    found = []
    for start in range(0, len(images), _BATCH):
        logits, sides, _ = network(pixels_of(images[start : start + _BATCH], _device(network)))
        heat = torch.sigmoid(logits)
        heat = heat * (heat == functional.max_pool2d(heat[:, None], 3, 1, 1)[:, 0])
        for own, own_sides in zip(heat.cpu().numpy(), sides.cpu().numpy(), strict=True):
            rows, columns = np.nonzero(own >= min_score)
            order = np.argsort(-own[rows, columns], kind="stable")[:_MAX_PEAKS]
            rows, columns = rows[order], columns[order]
            middle = (np.stack([columns, rows], axis=1) + 0.5) * STRIDE
            left_top, right_bottom = np.split(own_sides[:, rows, columns].T, 2, axis=1)
            boxes = np.concatenate([middle - left_top, middle + right_bottom], axis=1)
            boxes = np.clip(boxes, 0, (width, height, width, height))
            scored = np.concatenate([boxes, own[rows, columns, None]], axis=1).astype(np.float32)
            found.append(scored[_best_of_each(boxes)])
    return found


def _best_of_each(boxes: np.ndarray) -> np.ndarray:
    """Return indices of boxes sorted best first without those that overlap a better one almost fully."""
    overlap = box_iou(boxes, boxes)
    kept: list[int] = []
    for index in range(len(boxes)):
        if not kept or overlap[index, kept].max() < _SAME_VEHICLE_IOU:
            kept.append(index)
    return np.array(kept, int)


@torch.inference_mode()
def segment_lanes(
    network: StreetDetector, images: UInt8[np.ndarray, "T H W 3"], min_score: float = 0.5
) -> Bool[np.ndarray, "T H W"]:
    """Find the pixels of lane lines."""
    height, width = images.shape[1:3]
    masks = [
        torch.sigmoid(network(pixels_of(images[start : start + _BATCH], _device(network)))[2]).cpu().numpy() >= min_score
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate([np.zeros((0, height, width), bool), *(mask[:, :height, :width] for mask in masks)])


@torch.inference_mode()
def encoder_features(network: StreetDetector, images: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "T D"]:
    """Return mean and standard deviation over the frame of the encoder's features at strides 4, 8 and 16, for `frechet_distance`.

    They know streets as this network was taught to see them; they are not the features of FID.
    """
    rows = [np.zeros((0, 2 * sum(network.widths[1:])), np.float32)]
    for start in range(0, len(images), _BATCH):
        levels = network.encode(pixels_of(images[start : start + _BATCH], _device(network)))[1:]
        parts = [part for level in levels for part in (level.mean(dim=(2, 3)), level.std(dim=(2, 3)))]
        rows.append(torch.cat(parts, dim=1).cpu().numpy())
    return np.concatenate(rows)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
