"""Whose factor a key of a LoRA file is: the spellings of the field, and one name for all of them.

diffusers     unet.LAYER.lora.down.weight, text_encoder.LAYER.lora_linear_layer.down.weight
diffusers '23 unet.ATTENTION.processor.to_q_lora.down.weight, and .self_attn.to_q_lora. for the text
peft          base_model.model.LAYER.lora_A.weight, also with unet. or text_encoder. before it
kohya         lora_unet_LAYER.lora_down.weight and lora_te_LAYER, LAYER with underscores for dots,
              and with the blocks counted as diffusers or as the original UNet (LDM) does

Sources: diffusers' loaders/lora_conversion_utils.py and utils/state_dict_utils.py, kohya-ss/
sd-scripts networks/lora.py.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .weights import Rule, rename

PREFIXES = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
}
SUFFIXES = {
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_mid.weight": "mid",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
}
_UNET = r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding)\."
RULES = (
    Rule(r"^(unet\.|text_encoder\.|)base_model\.model\.", r"\1", "peft"),
    Rule(rf"^(?={_UNET})", "unet.", "files of a UNet alone"),
    Rule(r"^(?=(text_model\.)?encoder\.layers\.)", "text_encoder.", "of a text encoder alone"),
    Rule(r"\.lora_([AB])\.default\.weight$", r".lora_\1.weight", "peft, with the adapter's name"),
    Rule(r"\.processor\.", ".", "attention processors, early 2023"),
    Rule(r"\.to_(q|k|v)_lora\.", r".to_\1.lora.", "attention processors, early 2023"),
    Rule(r"\.to_out_lora\.", ".to_out.0.lora.", "attention processors, early 2023"),
    Rule(r"\.self_attn\.to_(q|k|v)\.", r".self_attn.\1_proj.", "text encoders of 2023"),
    Rule(r"\.self_attn\.to_out\.0\.", ".self_attn.out_proj.", "text encoders of 2023"),
)
WORDS = (  # parts of layer names that have an underscore of their own
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "proj_in", "proj_out"),
    *("to_q", "to_k", "to_v", "to_out", "time_emb_proj", "conv_shortcut", "conv_in", "conv_out"),
    *("time_embedding", "linear_1", "linear_2", "input_blocks", "middle_block", "output_blocks"),
    *("in_layers", "out_layers", "emb_layers", "skip_connection", "time_embed"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
)
LDM_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
LDM_OUTSIDE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
}
RESNETS = 2  # per level, in every Stable Diffusion; a level of the decoder has one more


class Place(NamedTuple):
    """part: unet or text_encoder. layer: as the model calls it. role: down, mid, up or alpha."""

    part: str
    layer: str
    role: str


def place(key: str) -> Place | None:
    """What a key of a file speaks of; None if it is not understood."""
    key = rename(key, RULES) or ""
    prefix = next((p for p in PREFIXES if key.startswith(p)), None)
    suffix = next((s for s in SUFFIXES if key.endswith(s)), None)
    if prefix is None or suffix is None:
        return None
    layer = key[len(prefix) : -len(suffix)]
    if prefix.endswith("_"):
        layer = from_ldm(dotted(layer))
    if PREFIXES[prefix] == "text_encoder" and layer.startswith("encoder.layers."):
        layer = f"text_model.{layer}"  # transformers 5 has no such prefix
    return Place(PREFIXES[prefix], layer, SUFFIXES[suffix])


def dotted(layer: str) -> str:
    """down_blocks_0_resnets_1_conv1 -> down_blocks.0.resnets.1.conv1"""
    layer = layer.replace("_", ".")
    for word in WORDS:
        spelled = re.escape(word.replace("_", "."))
        layer = re.sub(rf"(^|\.){spelled}(?=\.|$)", rf"\g<1>{word}", layer)
    return layer


def from_ldm(layer: str) -> str:
    """input_blocks.1.1.LAYER -> down_blocks.0.attentions.0.LAYER, and so on; others stay."""
    if layer in LDM_OUTSIDE:
        return LDM_OUTSIDE[layer]
    found = re.fullmatch(r"middle_block\.([012])\.(.+)", layer)
    if found:
        kind = ("resnets.0", "attentions.0", "resnets.1")[int(found[1])]
        return f"mid_block.{kind}.{_inner(kind, found[2])}"
    found = re.fullmatch(r"(input|output)_blocks\.(\d{1,3})\.([012])\.(.+)", layer)
    if found is None:
        return layer
    down, number, column, rest = found[1] == "input", int(found[2]), int(found[3]), found[4]
    level, row = divmod(number - down, RESNETS + 1)
    block = f"{'down' if down else 'up'}_blocks.{level}"
    if down and row == RESNETS and rest == "op":
        return f"{block}.downsamplers.0.conv"
    if not down and rest == "conv":
        return f"{block}.upsamplers.0.conv"
    kind = f"{'attentions' if column else 'resnets'}.{row}"
    return f"{block}.{kind}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    return LDM_RESNET.get(rest, rest) if kind.startswith("resnets") else rest
