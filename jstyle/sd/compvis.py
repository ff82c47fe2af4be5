"""The names of CompVis and Stability AI's programs for the tensors of Stable Diffusion, both ways.

One table of modules per part, made from its configuration, serves for reading and for writing. The
text encoder of SD 2.x is OpenCLIP's, which keeps query, key and value in one matrix.
Sources of the names: github.com/CompVis/latent-diffusion, github.com/Stability-AI/stablediffusion,
github.com/mlfoundations/open_clip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from .config import CLIPTextConfig, UNetConfig, VAEConfig
from .weights import StoredTensor

Tensor = TypeVar("Tensor")  # a StoredTensor, an array, or a name in their place
Names = dict[str, str]  # module here -> module there; what is below it has the same name in both

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
AVERAGED = "model_ema."

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PACKED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
POSITIONS = "text_model.embeddings.position_embedding.weight"
_CONVOLUTION = re.compile(rf"{re.escape(VAE)}(en|de)coder\.mid\.attn_1\.(q|k|v|proj_out)\.weight")
UNUSED = ("text_projection", "logit_scale", "attn_mask")  # of OpenCLIP; pictures need none of it


def unet_names(cfg: UNetConfig) -> Names:
    """input_blocks count on through the levels: convolution, then resnets and a downsampler each"""
    levels, layers = len(cfg.block_out_channels), cfg.layers_per_block
    names = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "mid_block.attentions.0": "middle_block.1",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    names |= _within("mid_block.resnets.0", "middle_block.0", RESNET)
    names |= _within("mid_block.resnets.1", "middle_block.2", RESNET)
    for i in range(levels):
        down, up = f"down_blocks.{i}", f"up_blocks.{i}"
        for j in range(layers):
            place = f"input_blocks.{1 + i * (layers + 1) + j}"
            names |= _within(f"{down}.resnets.{j}", f"{place}.0", RESNET)
            names[f"{down}.attentions.{j}"] = f"{place}.1"
        for j in range(layers + 1):
            place = f"output_blocks.{i * (layers + 1) + j}"
            names |= _within(f"{up}.resnets.{j}", f"{place}.0", RESNET)
            if "CrossAttn" in cfg.up_block_types[i]:
                names[f"{up}.attentions.{j}"] = f"{place}.1"
        if i < levels - 1:
            place = f"input_blocks.{(i + 1) * (layers + 1)}"
            names[f"{down}.downsamplers.0.conv"] = f"{place}.0.op"
            after = 2 if "CrossAttn" in cfg.up_block_types[i] else 1
            place = f"output_blocks.{i * (layers + 1) + layers}"
            names[f"{up}.upsamplers.0.conv"] = f"{place}.{after}.conv"
    return names


def vae_names(cfg: VAEConfig) -> Names:
    """The decoder's levels are numbered from the outermost there, as the encoder's."""
    levels, layers = len(cfg.block_out_channels), cfg.layers_per_block
    names = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        middle, middle_there = f"{side}.mid_block", f"{side}.mid"
        names |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        names[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        names |= _within(f"{middle}.attentions.0", f"{middle_there}.attn_1", VAE_ATTENTION)
        for j in (0, 1):
            names |= _vae_resnet(f"{middle}.resnets.{j}", f"{middle_there}.block_{j + 1}")
    for i in range(levels):
        down, up, up_there = f"down_blocks.{i}", f"up_blocks.{i}", f"up.{levels - 1 - i}"
        for j in range(layers):
            names |= _vae_resnet(f"encoder.{down}.resnets.{j}", f"encoder.down.{i}.block.{j}")
        for j in range(layers + 1):
            names |= _vae_resnet(f"decoder.{up}.resnets.{j}", f"decoder.{up_there}.block.{j}")
        names[f"encoder.{down}.downsamplers.0.conv"] = f"encoder.down.{i}.downsample.conv"
        names[f"decoder.{up}.upsamplers.0.conv"] = f"decoder.{up_there}.upsample.conv"
    return names


def _vae_resnet(here: str, there: str) -> Names:
    same = {name: name for name in ("norm1", "conv1", "norm2", "conv2")}
    return _within(here, there, {**same, "conv_shortcut": "nin_shortcut"})


def open_clip_names(cfg: CLIPTextConfig) -> Names:
    names = {
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.final_layer_norm": "ln_final",
    }
    for i in range(cfg.num_hidden_layers):
        names |= _within(_layer(i), _block(i), OPEN_CLIP_LAYER)
    return names


def _within(here: str, there: str, names: Mapping[str, str]) -> Names:
    return {f"{here}.{a}": f"{there}.{b}" for a, b in names.items()}


def _layer(i: int) -> str:
    return f"text_model.encoder.layers.{i}"


def _block(i: int) -> str:
    return f"transformer.resblocks.{i}"


def renamed(tensors: Mapping[str, Tensor], names: Names, mark: str = "") -> dict[str, Tensor]:
    """The tensors with each module called what `names` says; `mark` goes before other names."""
    found = {}
    for name, tensor in tensors.items():
        module, dot, rest = name, "", ""
        while module and module not in names:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}" if rest else last
            dot = "."
        found[f"{names[module]}{dot}{rest}" if module else mark + name] = tensor
    return found


def inverse(names: Names) -> Names:
    return {there: here for here, there in names.items()}


def from_open_clip(tensors: Mapping[str, Tensor], cfg: CLIPTextConfig) -> dict[str, Tensor]:
    """Names and tensors of the text encoder here; layers after the last one in use are left out.

    tensors: without OPEN_CLIP before their names.
    """
    tensors = {n: t for n, t in tensors.items() if n not in UNUSED}
    tensors = {
        n: t for n, t in tensors.items() if not n.startswith(f"{_block(cfg.num_hidden_layers)}.")
    }
    found: dict[str, Tensor] = {}
    if "positional_embedding" in tensors:
        found[POSITIONS] = tensors.pop("positional_embedding")
    for i in range(cfg.num_hidden_layers):
        for kind in ("weight", "bias"):
            packed = tensors.pop(f"{_block(i)}.attn.in_proj_{kind}", None)
            if packed is not None:
                for name, rows in zip(PACKED, thirds(packed), strict=True):
                    found[f"{_layer(i)}.{name}.{kind}"] = rows
    return {**found, **renamed(tensors, inverse(open_clip_names(cfg)), OPEN_CLIP)}


def to_open_clip(names: Iterable[str], cfg: CLIPTextConfig) -> dict[str, tuple[str, ...]]:
    """Name there -> the names here whose rows it holds, one after the other.

    Pictures are made from what comes before the last layer there, so there is one more, which is
    the same as the one before.
    """
    there = renamed({name: name for name in names}, open_clip_names(cfg))
    found: dict[str, tuple[str, ...]] = {
        name: (here,) for name, here in there.items() if not name.startswith("text_model.")
    }
    found["positional_embedding"] = (POSITIONS,)
    for i in range(cfg.num_hidden_layers):
        for kind in ("weight", "bias"):
            rows = tuple(f"{_layer(i)}.{name}.{kind}" for name in PACKED)
            found[f"{_block(i)}.attn.in_proj_{kind}"] = rows
    last, beyond = f"{_block(cfg.num_hidden_layers - 1)}.", f"{_block(cfg.num_hidden_layers)}."
    again = {n: rows for n, rows in found.items() if n.startswith(last)}
    return found | {beyond + name[len(last) :]: rows for name, rows in again.items()}


def is_convolution(name: str) -> bool:
    """Whether a matrix here is a 1x1 convolution there: those of the autoencoder's attention."""
    return _CONVOLUTION.fullmatch(name) is not None


def thirds(tensor: Any) -> list:
    """The first, second and last third of the rows. Raises ValueError if there is none."""
    rows, rest = divmod(tensor.shape[0] if tensor.shape else 0, 3)
    if rest or not rows:
        raise ValueError(f"a packed projection of shape {list(tensor.shape)}")
    if not isinstance(tensor, StoredTensor):
        return [tensor[i * rows : (i + 1) * rows] for i in range(3)]
    shape, size = (rows, *tensor.shape[1:]), (tensor.stop - tensor.start) // 3
    starts = [tensor.start + i * size for i in range(3)]
    return [replace(tensor, shape=shape, start=start, stop=start + size) for start in starts]
