"""How many bytes recorded features take."""

from __future__ import annotations

from collections.abc import Sequence

from ..sd.config import UNetConfig

ITEM_BYTES = {"float32": 4, "float16": 2}


def feature_bytes(
    config: UNetConfig,
    sites: Sequence[str],
    parts: str,
    timesteps: int,
    latent_size: tuple[int, int],
    dtype: str,
) -> int:
    """Bytes of what one image's inversion records, exactly.

    sites: full names of self-attentions; parts: letters of "qkv"; timesteps: how many are recorded;
    latent_size: (height, width) of its latent.
    """
    channels, numbers = config.block_out_channels, 0
    for site in sites:
        level = level_of(site, len(channels))
        numbers += channels[level] * (latent_size[0] >> level) * (latent_size[1] >> level)
    return numbers * len(parts) * timesteps * ITEM_BYTES[dtype]


def level_of(name: str, levels: int) -> int:
    """How often H and W have been halved where a module of the UNet stands, by its name."""
    place, index = name.split(".")[:2]
    if place == "mid_block":
        return levels - 1
    return levels - 1 - int(index) if place == "up_blocks" else int(index)


def self_attentions(config: UNetConfig) -> tuple[str, ...]:
    """Their names in the order in which they run, as UNet2DConditionModel.attention_sites."""
    count, names = config.layers_per_block, []
    for i, kind in enumerate(config.down_block_types):
        names += [f"down_blocks.{i}.attentions.{j}" for j in range(count) if "CrossAttn" in kind]
    names.append("mid_block.attentions.0")
    for i, kind in enumerate(config.up_block_types):
        names += [f"up_blocks.{i}.attentions.{j}" for j in range(count + 1) if "CrossAttn" in kind]
    return tuple(f"{name}.transformer_blocks.0.attn1" for name in names)
