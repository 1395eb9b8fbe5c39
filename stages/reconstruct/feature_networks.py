"""What an image is like, as numbers: the feature networks that a recorded view and its cousin can be compared by.

DriveDreamer4D takes InceptionV3's pooled features. Its weights are not in any package; any vision checkpoint can be named, and
without one a pyramid of band-pass energies, which needs no weights, stands for texture and colour.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stages.pretrained import Checkpoint

TEXTURE = "texture"
_LEVELS = 4


def texture_features(image: Tensor) -> Tensor:
    """Return `[30]` numbers of an image `[H, W, 3]`: mean and spread of its colours, and of its details at four sizes.

    Differentiable; the same for images that differ by a shift, up to their borders.
    """
    level = image.permute(2, 0, 1)[None]
    found = [level.mean((2, 3)), level.std((2, 3))]
    for _ in range(_LEVELS):
        if min(level.shape[2:]) < 4:
            break
        smaller = torch.nn.functional.avg_pool2d(level, 2)
        wide = torch.nn.functional.interpolate(smaller, size=level.shape[2:], mode="bilinear", align_corners=False)
        detail = level - wide
        found += [detail.abs().mean((2, 3)), detail.std((2, 3))]
        level = smaller
    return torch.cat(found, 1)[0]


def checkpoint_features(checkpoint: Checkpoint, setting: str) -> Callable[[Tensor], Tensor]:
    """Return the pooled features of a transformers vision model as a function of an image `[H, W, 3]` in [0, 1].

    Args:
        checkpoint: the model.
        setting: the setting that names it, for messages.

    Raises:
        WorldlineError: if it is not one that reads images, or not whole.
    """
    from transformers import AutoModel

    from stages.pretrained import load_processor_and_model

    processor, model = load_processor_and_model(checkpoint, setting, "a vision model", AutoModel)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    mean, deviation = (torch.tensor(getattr(processor, name)).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    size = dict(processor.size)
    shape = [int(size.get(side) or size.get("shortest_edge") or 224) for side in ("height", "width")]

    def features(image: Tensor) -> Tensor:
        pixels = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=shape, mode="bilinear", align_corners=False)
        hidden = model(pixel_values=((pixels - mean) / deviation).to(checkpoint.device)).last_hidden_state
        return hidden.flatten(2).mean(2)[0] if hidden.ndim == 4 else hidden.mean(1)[0]

    return features
