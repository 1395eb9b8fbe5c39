"""The network: the spatio-temporal UNet of Stable Video Diffusion, small, over patches of pixels instead of a latent space.

It is told the noisy difference between the frames and the filled prior, and predicts the clean difference: a share of the
difference between warped frames and prior, pixel by pixel, and a correction. Its last layer starts at zero: before training
the frames are the mean of the two.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import ConfigMixin, ModelMixin, UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from schemas.artifact import Files
from schemas.errors import WorldlineError
from schemas.models import Model
from worldline.diffusion.windows import PLANES, PRIOR, WARPED, Inputs

ROLE = "street_video"
# Differences are learnt enlarged: in [-1, 1] their spread is about 0.15, and the noise that covers them is of spread 1.
DIFFERENCE_GAIN = 3.0
_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_PATCH = 4  # pixels
_LEVEL_SCALE = 1000.0  # of the noise level, for the sinusoidal embedding
_CENTIMETRES = 100.0


class StreetVideoNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predict the difference between frames and their filled prior from a noisy one and what is known of the frames.

    Args:
        channels: of the levels of the UNet at 1/4, 1/8, 1/16 of the pixels; multiples of 32.
        layers: residual blocks on each level on the way down.
        token_width: of the words and of the pieces of the first frame, to which the coarsest level attends.
        heads: of attention.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (64, 96, 128), layers: int = 1, token_width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.unet: Any = UNetSpatioTemporalConditionModel(
            in_channels=(3 + PLANES) * _PATCH**2,
            out_channels=4 * _PATCH**2,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlockSpatioTemporal",) * len(channels),
            up_block_types=("UpBlockSpatioTemporal",) * len(channels),
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=64,  # two offsets of 32 numbers each
            cross_attention_dim=token_width,
            num_attention_heads=heads,
        )
        self.words = nn.Embedding(256, token_width, padding_idx=0)
        self.pieces = nn.Conv2d(3, token_width, 8, stride=8)  # 4 x 6 pieces of the first frame
        last = cast(Any, self.unet).conv_out
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, noisy: Float[Tensor, "B F 3 H W"], level: Float[Tensor, " B"], inputs: Inputs
    ) -> Float[Tensor, "B F 3 H W"]:
        """Return the clean difference, enlarged by `DIFFERENCE_GAIN` as the noisy one is.

        Args:
            noisy: `(1 - level) difference + level noise`.
            level: of the noise, 0 to 1.
            inputs: what is known of the frames.
        """
        patches = functional.pixel_unshuffle(torch.cat([noisy, inputs.planes], dim=2), _PATCH)
        tokens = torch.cat([self.words(inputs.words), self.pieces(inputs.first_frame).flatten(2).transpose(1, 2)], dim=1)
        found = self.unet(patches, level * _LEVEL_SCALE, tokens, added_time_ids=inputs.offset_m * _CENTIMETRES).sample
        correction, share = functional.pixel_shuffle(found, _PATCH).float().split((3, 1), dim=2)
        apart = inputs.planes[:, :, WARPED] - inputs.planes[:, :, PRIOR]
        return correction + DIFFERENCE_GAIN * share.sigmoid() * apart


def save_network(network: StreetVideoNetwork, folder: Path) -> Files:
    """Write weights in half precision and config as diffusers lays them out, and return the files.

    The config holds nothing of where the network came from: equal weights give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    halved = StreetVideoNetwork.from_config(network.config)
    halved.load_state_dict(network.state_dict())
    halved.half().save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / _CONFIG).read_text())
    kept = {name: value for name, value in config.items() if name != "_name_or_path"}
    (folder / _CONFIG).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    return Files({name: folder / name for name in (_CONFIG, _WEIGHTS)})


def open_network(model: Model) -> StreetVideoNetwork:
    """Return the network of a model in single precision, ready to be asked.

    Raises:
        WorldlineError: if the model is of another role or architecture, or its files are not whole.
    """
    if model.role != ROLE or model.architecture != StreetVideoNetwork.__name__:
        raise WorldlineError(
            f"the model is a {model.architecture} for {model.role}: a {StreetVideoNetwork.__name__} for {ROLE} is needed; "
            "train one with generate.train_street_video"
        )
    missing = [name for name in (_CONFIG, _WEIGHTS) if name not in model.files or not model.files[name].is_file()]
    if missing:
        raise WorldlineError(f"the model has no file {missing[0]}: give the whole folder that save_pretrained wrote")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = model.files[_CONFIG]
    try:
        network = StreetVideoNetwork.from_config(json.loads(file.read_text()))
        file = model.files[_WEIGHTS]
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    except (json.JSONDecodeError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WorldlineError(
            f"{file} is not that of a {StreetVideoNetwork.__name__} ({reason}): train the model again"
        ) from error
    return network.eval()
