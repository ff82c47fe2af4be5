"""What a file is that is no plain LoRA, told from its names, and what can be done with it instead.

The line names the kind and the way out; a file that is none of these is refused by its names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .weights import WeightsError

RESULT = "and give the result with --model"
MERGE = "merge it into its model with"
PEFT = f"{MERGE} peft (merge_and_unload, save_pretrained) {RESULT}"
DIFFUSERS = f"{MERGE} diffusers (load_lora_weights, fuse_lora, save_pretrained) {RESULT}"
LYCORIS = f"{MERGE} LyCORIS (tools/merge.py) {RESULT}"
MODELS = "the models here are Stable Diffusion 1.x and 2.x, whose layers are others"
NO_EMBEDDINGS = (
    "embeddings are not taken; a LoRA of the same subject is, and jdreambooth train makes one"
)
NO_CONDITIONS = "pictures as conditions are not taken, only LoRAs of the UNet and the text encoder"
WHOLE = "a model is given with --model"
MOST_TOKENS = 64  # of an embeddings file
TEXT_WIDTHS = (768, 1024, 1280)  # of the text encoders of Stable Diffusion


class Kind(NamedTuple):
    pattern: str  # one key that matches tells
    what: str
    way_out: str


KINDS = (
    Kind(r"lora_magnitude_vector|\.dora_scale$", "a DoRA adapter", DIFFUSERS),
    Kind(r"\.hada_(w[12]_[ab]|t[12])$", "a LoHa adapter", LYCORIS),
    Kind(r"\.lokr_(w[12](_[ab])?|t2)$", "a LoKr adapter", LYCORIS),
    Kind(r"\.b?oft_", "an OFT adapter", LYCORIS),
    Kind(r"\.on_input$|\bia3_l\b", "an IA3 adapter", PEFT),
    Kind(r"\.vera_lambda|\bvera_[AB]\b", "a VeRA adapter", PEFT),
    Kind(r"\.lora_E\b|\.ranknum\b", "an AdaLoRA adapter", PEFT),
    Kind(r"\.(diff|diff_b|w_norm|b_norm)$", "a file of whole differences (LyCORIS full)", LYCORIS),
    Kind(r"\.lora_embedding_[AB]\b", "a LoRA of the table of tokens", PEFT),
    Kind(r"\.lora_B\.bias$|\.lora_up\.bias$", "a LoRA with biases (lora_bias)", PEFT),
    Kind(r"^(unet|text_encoder):\d+:(up|down)$", "a LoRA of 2022 with numbers for names", PEFT),
    Kind(r"motion_modules", "a LoRA of an AnimateDiff motion module", MODELS),
    Kind(
        r"^(base_model\.model\.)?transformer\.(?!text)|^lora_transformer_|^diffusion_model\."
        r"|(double|single|joint)_(stream_|transformer_)?blocks|^lora_te3_",
        "a LoRA for a transformer (Flux, Stable Diffusion 3)",
        MODELS,
    ),
    Kind(r"^lora_te[12]_|^text_encoder_2\.|transformer_blocks[._][1-9]", "a LoRA for SDXL", MODELS),
    Kind(r"custom_diffusion", "a Custom Diffusion adapter", DIFFUSERS),
    Kind(r"^(image_proj|ip_adapter)\.|\.to_[kv]_ip\b", "an IP-Adapter", NO_CONDITIONS),
    Kind(
        r"^control_model\.|^(model\.)?controlnet_|input_hint_block|^lllite_|^lora_controlnet$",
        "a ControlNet",
        NO_CONDITIONS,
    ),
    Kind(r"^emb_params$|^string_to_param\.|^clip_[gl]$", "a textual inversion", NO_EMBEDDINGS),
    Kind(r"^(model\.diffusion_model|cond_stage_model)\.", "a whole model", WHOLE),
    Kind(r"^conv_in\.weight$|^unet\.conv_in\.weight$", "a whole UNet", WHOLE),
    Kind(r"^(first_stage_model|encoder|decoder)\.conv_in\.", "a VAE", WHOLE),
    Kind(r"^(text_model\.)?embeddings\.token_embedding\.", "a whole text encoder", WHOLE),
)
FIRST_CONVOLUTION = ("conv_in.weight", "unet.conv_in.weight")
LDM_FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
INPAINTING_CHANNELS = 9
SDXL_WIDTH = 2048  # of the text features that SDXL attends to


def refuse_other_kinds(path: Path, tensors: Mapping) -> None:
    """Raise WeightsError that names the kind, if the file is one of KINDS or holds embeddings.

    tensors: name -> anything with a `shape`.
    """
    for kind in KINDS:
        if any(re.search(kind.pattern, name) for name in tensors):
            raise_kind(path, kind.what + _inpainting(tensors), kind.way_out)
    for name, tensor in tensors.items():
        if re.search(r"attn2.to_[kv]\.", name) and tensor.shape[-1:] == (SDXL_WIDTH,):
            raise_kind(path, "a LoRA for SDXL", MODELS)
    if 0 < len(tensors) <= MOST_TOKENS and all(map(_is_word, tensors, tensors.values())):
        names = ", ".join(list(tensors)[:3])
        raise_kind(path, f"a textual inversion ({names})", NO_EMBEDDINGS)


def _is_word(name: str, tensor) -> bool:
    """An embedding under its own name, as diffusers writes it."""
    if len(tensor.shape) not in (1, 2) or "." in name:
        return False
    return re.fullmatch(r"<.+>", name) is not None or tensor.shape[-1] in TEXT_WIDTHS


def raise_kind(path: Path, what: str, way_out: str) -> None:
    raise WeightsError(f"{path} is {what}, not a plain LoRA; {way_out}")


def _inpainting(tensors: Mapping) -> str:
    for name in (*FIRST_CONVOLUTION, LDM_FIRST_CONVOLUTION):
        if name in tensors and tuple(tensors[name].shape[1:2]) == (INPAINTING_CHANNELS,):
            return f" for inpainting ({INPAINTING_CHANNELS} channels go in)"
    return ""
