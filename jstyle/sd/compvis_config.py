"""Configurations of a model in CompVis' layout, told from the shapes of its tensors.

Shapes tell widths and depths. What they cannot tell is what all models of a generation share: SD
1.x has 8 heads and quick_gelu, SD 2.x heads of 64 numbers and gelu; norms have 32 groups.
Source: the YAML files of github.com/CompVis/stable-diffusion and Stability-AI/stablediffusion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Any

from .config import CLIPTextConfig, UNetConfig, VAEConfig
from .weights import WeightsError, rename

GROUPS, HEADS, HEAD_WIDTH = 32, 8, 64
SIDE, SIDE_OF_V = 64, 96  # of latents: pictures of 512 pixels, and of 768 for SD 2.x with v
_BLOCK = re.compile(r"input_blocks\.(\d{1,4})\.")
PIXELS = 8  # of a picture, per latent
SCALING = 0.18215
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def shape_of(tensors: Mapping, name: str, axes: int) -> tuple[int, ...]:
    """Raises WeightsError unless there is such a tensor with so many axes."""
    if name not in tensors:
        raise WeightsError(f"there is no {name}")
    shape = tuple(tensors[name].shape)
    if len(shape) != axes:
        raise WeightsError(f"{name} has the shape {list(shape)}")
    return shape


def unet_config(tensors: Mapping, second: bool, side: int) -> UNetConfig:
    """tensors: of the UNet, under CompVis' names without a prefix. second: of SD 2.x."""
    levels = _levels(tensors)
    layers = len(levels[0])
    if layers < 1 or any(len(level) != layers or len(set(level)) > 1 for level in levels):
        raise WeightsError("the levels of the UNet (input_blocks) differ in depth")
    widths = tuple(level[-1][0] for level in levels)
    attends = [f"output_blocks.{i * (layers + 1)}.1.norm.weight" in tensors for i in _each(levels)]
    middle = "middle_block.1"
    features = shape_of(tensors, f"{middle}.transformer_blocks.0.attn2.to_k.weight", 2)[1]
    projection = f"{middle}.proj_in.weight"
    return UNetConfig(
        sample_size=side,
        in_channels=shape_of(tensors, "input_blocks.0.0.weight", 4)[1],
        out_channels=shape_of(tensors, "out.2.weight", 4)[0],
        down_block_types=tuple(
            "CrossAttnDownBlock2D" if level[-1][1] else "DownBlock2D" for level in levels
        ),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends),
        block_out_channels=widths,
        layers_per_block=layers,
        cross_attention_dim=features,
        num_heads=tuple(map(heads, widths)) if second else (HEADS,) * len(widths),
        use_linear_projection=projection in tensors and len(tensors[projection].shape) == 2,
        norm_num_groups=GROUPS,
    )


def _each(levels: list) -> range:
    return range(len(levels))


def _levels(tensors: Mapping) -> list[list[tuple[int, bool]]]:
    """Per level and resnet: its width, and whether an attention follows."""
    numbers = (match[1] for match in map(_BLOCK.match, tensors) if match)
    levels: list[list[tuple[int, bool]]] = [[]]
    for i in range(1, max(map(int, numbers), default=0) + 1):
        block = f"input_blocks.{i}"
        if f"{block}.0.in_layers.2.weight" in tensors:
            width = shape_of(tensors, f"{block}.0.in_layers.2.weight", 4)[0]
            levels[-1].append((width, f"{block}.1.norm.weight" in tensors))
        elif f"{block}.0.op.weight" in tensors:
            levels.append([])
        else:
            raise WeightsError(f"input_blocks.{i} of the UNet is not whole")
    return levels


def heads(width: int) -> int:
    """Of 64 numbers each. Raises WeightsError for a width that has none."""
    if width < 1 or width % HEAD_WIDTH:
        raise WeightsError(
            f"a width of {width}, no multiple of {HEAD_WIDTH}: the number of heads cannot be told"
        )
    return width // HEAD_WIDTH


def vae_config(tensors: Mapping, side: int) -> VAEConfig:
    """tensors: of the autoencoder, under CompVis' names without a prefix."""
    widths = []
    while f"encoder.down.{len(widths)}.block.0.conv2.weight" in tensors:
        widths.append(shape_of(tensors, f"encoder.down.{len(widths)}.block.0.conv2.weight", 4)[0])
    layers = 0
    while f"encoder.down.0.block.{layers}.conv2.weight" in tensors:
        layers += 1
    return VAEConfig(
        in_channels=shape_of(tensors, "encoder.conv_in.weight", 4)[1],
        out_channels=shape_of(tensors, "decoder.conv_out.weight", 4)[0],
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        latent_channels=shape_of(tensors, "post_quant_conv.weight", 4)[0],
        norm_num_groups=GROUPS,
        sample_size=side * PIXELS,
        scaling_factor=SCALING,
    )


def clip_config(tensors: Mapping) -> CLIPTextConfig:
    """tensors: of the text encoder of SD 1.x, under transformers' names."""
    tensors = {rename(name): tensor for name, tensor in tensors.items()}
    model = "text_model"
    layer = f"{model}.encoder.layers.{{}}.mlp.fc1.weight"
    return _text_config(
        shape_of(tensors, f"{model}.embeddings.token_embedding.weight", 2),
        shape_of(tensors, f"{model}.embeddings.position_embedding.weight", 2),
        shape_of(tensors, layer.format(0), 2),
        next(i for i in count() if layer.format(i) not in tensors),
        "quick_gelu",
    )


def open_clip_config(tensors: Mapping) -> CLIPTextConfig:
    """tensors: of the text encoder of SD 2.x, under OpenCLIP's names without a prefix.

    Its last layer is not counted: pictures are made from what comes before it.
    """
    layer = "transformer.resblocks.{}.mlp.c_fc.weight"
    return _text_config(
        shape_of(tensors, "token_embedding.weight", 2),
        shape_of(tensors, "positional_embedding", 2),
        shape_of(tensors, layer.format(0), 2),
        next(i for i in count() if layer.format(i) not in tensors) - 1,
        "gelu",
    )


def _text_config(tokens, positions, inner, layers: int, activation: str) -> CLIPTextConfig:
    vocabulary, width = tokens
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner[0],
        num_hidden_layers=layers,
        num_attention_heads=heads(width),
        max_position_embeddings=positions[0],
        hidden_act=activation,
        projection_dim=width,
    )
