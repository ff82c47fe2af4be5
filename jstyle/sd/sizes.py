"""Does a weights file belong to a configuration? Asked of its header, before anything is built.

A configuration that names other sizes than its file would build a network for minutes, or beyond
memory, only to find out that nothing fits. A few tensors tell widths and depths; `load_strict`
compares all of them later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .config import CLIPTextConfig, UNetConfig, VAEConfig
from .weights import RULES, StoredTensor, WeightsError, rename

Sizes = dict[str, tuple[int, ...]]


def require_sizes(
    part: str, config: Any, tensors: Mapping[str, StoredTensor], where: object
) -> None:
    """Raise WeightsError unless the tensors that tell widths and depths are in the file as the
    configuration has them. part: unet, vae or text_encoder; `where` names the file."""
    found = {rename(name, RULES): tensor.shape for name, tensor in tensors.items()}
    wanted = SIZES[part](config)
    missing = [name for name in wanted if name not in found]
    wrong = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != shape
    ]
    kinds = {"missing": missing, "wrong shape": wrong}
    texts = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    if texts:
        raise WeightsError(f"{where} does not fit the model; " + "; ".join(texts))


def unet_sizes(cfg: UNetConfig) -> Sizes:
    widths, last = cfg.block_out_channels, cfg.layers_per_block - 1
    found = {
        "conv_in.weight": (widths[0], cfg.in_channels, 3, 3),
        "time_embedding.linear_1.weight": (4 * widths[0], widths[0]),
        "mid_block.resnets.0.conv1.weight": (widths[-1], widths[-1], 3, 3),
        "conv_out.weight": (cfg.out_channels, widths[0], 3, 3),
    }
    for i, width in enumerate(widths):
        found[f"down_blocks.{i}.resnets.{last}.conv2.weight"] = (width, width, 3, 3)
        if "CrossAttn" in cfg.down_block_types[i]:
            site = f"down_blocks.{i}.attentions.{last}.transformer_blocks.0.attn2.to_k.weight"
            found[site] = (width, cfg.cross_attention_dim)
    return found


def vae_sizes(cfg: VAEConfig) -> Sizes:
    widths, latent = cfg.block_out_channels, cfg.latent_channels
    found: Sizes = {
        "encoder.conv_in.weight": (widths[0], cfg.in_channels, 3, 3),
        "decoder.conv_out.weight": (cfg.out_channels, widths[0], 3, 3),
        "post_quant_conv.weight": (latent, latent, 1, 1),
    }
    for i, width in enumerate(widths):
        layer = f"encoder.down_blocks.{i}.resnets.{cfg.layers_per_block - 1}.conv2.weight"
        found[layer] = (width, width, 3, 3)
    return found


def text_sizes(cfg: CLIPTextConfig) -> Sizes:
    width, inner = cfg.hidden_size, cfg.intermediate_size
    layer = f"text_model.encoder.layers.{cfg.num_hidden_layers - 1}"
    return {
        "text_model.embeddings.token_embedding.weight": (cfg.vocab_size, width),
        "text_model.embeddings.position_embedding.weight": (cfg.max_position_embeddings, width),
        f"{layer}.mlp.fc1.weight": (inner, width),
        f"{layer}.self_attn.q_proj.weight": (width, width),
    }


SIZES: dict[str, Callable[..., Sizes]] = {
    "unet": unet_sizes,
    "vae": vae_sizes,
    "text_encoder": text_sizes,
}
