"""Video pipelines of diffusers with a few thousand random weights, saved in its own format.

Their pictures mean nothing; their path through an adapter is that of the real models.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

# A conversation as one string of words: a real tokenizer's template at its barest.
_CHAT = "{% for message in messages %}{{ message.role }} {{ message.content[0].text }} {% endfor %}"


def save_wan(class_name: str, folder: Path) -> Path:
    """Save a pipeline of Wan's family: "WanPipeline", "WanVideoToVideoPipeline" or "WanVACEPipeline"."""
    import diffusers
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    vae = tiny_wan_vae()
    shape = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": 16,
        "freq_dim": 32,
        "ffn_dim": 16,
        "rope_max_seq_len": 32,
    }
    if class_name == "WanVACEPipeline":  # kept and made pixels as latents, and the mask of 8 x 8 pixels
        masked = {"vace_layers": [0], "vace_in_channels": 2 * 16 + 64}
        transformer = diffusers.WanVACETransformer3DModel(num_layers=2, **masked, **shape)
    else:
        transformer = diffusers.WanTransformer3DModel(num_layers=1, **shape)
    pipeline = getattr(diffusers, class_name)(
        tokenizer=tiny_tokenizer(),
        text_encoder=UMT5EncoderModel(UMT5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_stable_video(folder: Path) -> Path:
    """Save an image-to-video pipeline: Stable Video Diffusion's classes at a fraction of their width."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        intermediate_size=16,
        patch_size=56,
    )
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=16,
        num_attention_heads=4,
        projection_class_embeddings_input_dim=48,
        addition_time_embed_dim=16,
    )
    pipeline = StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2),
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002, sigma_max=700.0
        ),
        feature_extractor=CLIPImageProcessor(size=224, crop_size=224),
    )
    pipeline.save_pretrained(folder)
    return folder


def save_cosmos_transfer(folder: Path) -> Path:
    """Save NVIDIA's control-video pipeline, Cosmos Transfer 2.5.

    Packages that it needs must be stood in for (`stand_in_for_packages`), here and when the pipeline is loaded.
    """
    from diffusers import (
        Cosmos2_5_TransferPipeline,
        CosmosControlNetModel,
        CosmosTransformer3DModel,
        UniPCMultistepScheduler,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "mlp_ratio": 2,
        "text_embed_dim": 32,
        "adaln_lora_dim": 4,
        "max_size": (16, 32, 32),
        "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0),
        "extra_pos_embed_type": "learnable",
        "img_context_dim_in": 32,
        "img_context_dim_out": 32,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 32,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000.0,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    pipeline = Cosmos2_5_TransferPipeline(
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=tiny_tokenizer(),
        transformer=CosmosTransformer3DModel(
            in_channels=17,
            out_channels=16,
            num_layers=2,
            concat_padding_mask=True,
            controlnet_block_every_n=1,
            img_context_num_tokens=4,
            **shape,
        ),
        vae=tiny_wan_vae(),
        scheduler=UniPCMultistepScheduler(),
        controlnet=CosmosControlNetModel(
            n_controlnet_blocks=2,
            in_channels=18,
            latent_channels=18,
            model_channels=32,
            use_crossattn_projection=False,
            **shape,
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def save_sana_wm(folder: Path) -> Path:
    """Save a camera-conditioned pipeline, SANA-WM."""
    from diffusers import (
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        SanaWMPipeline,
        SanaWMTransformer3DModel,
    )
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    text = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        down_block_types=("LTX2VideoDownBlock3D",),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        upsample_type=("spatiotemporal",),
    )
    transformer = SanaWMTransformer3DModel(
        in_channels=4,
        num_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        linear_head_dim=16,
        softmax_every_n=1,
        caption_channels=16,
        chunk_plucker_channels=6 * vae.temporal_compression_ratio,
        chunk_plucker_post_attn_blocks=1,
        mlp_ratio=1.0,
    )
    pipeline = SanaWMPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=Gemma2ForCausalLM(text),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder


def stand_in_for_packages(patch: pytest.MonkeyPatch) -> None:
    """Give Cosmos' pipelines what they take from packages that are not installed: a guardrail, and to resize a mask."""
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos
    from diffusers.pipelines.cosmos import pipeline_cosmos2_5_transfer
    from torch.nn.functional import interpolate

    patch.setattr(pipeline_cosmos2_5_transfer, "CosmosSafetyChecker", Harmless)
    resize = SimpleNamespace(resize=lambda mask, size, interpolation: interpolate(mask, size, mode="nearest"))
    transforms = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    for module in (controlnet_cosmos, transformer_cosmos):
        patch.setattr(module, "transforms", transforms, raising=False)


class Harmless:
    """Stands in for Cosmos' guardrail and lets everything pass."""

    def to(self, *_: Any) -> "Harmless":
        return self

    def check_text_safety(self, _: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def tiny_tokenizer() -> Any:
    """Return a tokenizer that knows eight words."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "a", "car", "street", "red", "dog"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=_CHAT, **special)


def tiny_wan_vae() -> Any:
    """Return Wan's autoencoder: 4 frames and 8 x 8 pixels a latent."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def model_index(folder: Path, class_name: str) -> Path:
    """Make a folder that names a pipeline class and holds no weights."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    return folder
