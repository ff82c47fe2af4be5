"""What a file is that is no Stable Diffusion 1.x or 2.x, and what can be done with it instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .compvis import AVERAGED, CLIP, OPEN_CLIP, UNET, VAE
from .weights import WeightsError

ONLY = "only Stable Diffusion 1.x and 2.x for text to image are supported"
LORA = "give it with --lora, beside a --model (jdreambooth lora says what is in it)"
FOLDER = "a model needs all its parts: put it into the folder {} of a model in diffusers format"
CONVERSION = "convert the whole model with diffusers (save_pretrained) and give that folder"
FIRST_CONVOLUTION = (f"{UNET}input_blocks.0.0.weight", "conv_in.weight", "unet.conv_in.weight")
BY_CHANNELS = {  # that go into the UNet, beside those of plain models
    5: "a model that takes depth as well (5 channels go in)",
    7: "an upscaler (7 channels go in)",
    8: "a model that edits pictures, as InstructPix2Pix (8 channels go in)",
    9: "an inpainting model (9 channels go in)",
}
LISTED = 3


class Kind(NamedTuple):
    pattern: str  # one name that matches tells
    what: str
    way_out: str


KINDS = (
    Kind(
        r"\.lora_(up|down|A|B)\b|\.lora_[AB]\.|^lora_(te|unet)|\.hada_w|\.lokr_w|dora_scale"
        r"|_lora\.(up|down)\.",
        "a LoRA or another adapter",
        LORA,
    ),
    Kind(r"^conditioner\.embedders\.", "a Stable Diffusion XL checkpoint", ONLY),
    Kind(r"^(model\.diffusion_model\.)?joint_blocks\.", "a Stable Diffusion 3 model", ONLY),
    Kind(
        r"^(model\.diffusion_model\.)?(double|single)_blocks\.|^(single_)?transformer_blocks\.",
        "a Flux model or another transformer",
        ONLY,
    ),
    Kind(r"^control_model\.|input_hint_block|^controlnet_", "a ControlNet", ONLY),
    Kind(r"^depth_model\.", "a model that takes depth as well", ONLY),
    Kind(r"^noise_augmentor\.|^embedder\.", "an unCLIP model or another one on pictures", ONLY),
    Kind(r"motion_modules|temporal_transformer|time_stack", "a model of videos", ONLY),
    Kind(r"^emb_params$|^string_to_param\.|^clip_[gl]$", "a textual inversion", ONLY),
)
PARTS = {UNET: "a UNet", VAE: "an autoencoder", "cond_stage_model.": "a text encoder"}
ALONE = (  # a part under names of its own
    (r"^(unet\.)?(conv_in|down_blocks\.\d+)\.", "a UNet alone", "unet"),
    (r"^input_blocks\.\d", "a UNet alone, in CompVis' names", None),
    (r"^(encoder|decoder)\.(down|up)_blocks\.", "a VAE alone", "vae"),
    (r"^(encoder|decoder)\.(down|up)\.", "a VAE alone, in CompVis' names", None),
    (r"^(text_model\.)?embeddings\.token_embedding\.", "a text encoder alone", "text_encoder"),
    (r"resblocks\.\d", "a text encoder alone, in OpenCLIP's names", None),
)


def require_checkpoint(path: Path, tensors: Mapping) -> None:
    """Raise WeightsError that says what the file is, unless it has the three parts of a model.

    tensors: name -> anything with a `shape`.
    """
    for kind in KINDS:
        if any(re.search(kind.pattern, name) for name in tensors):
            raise WeightsError(f"{path}: is {kind.what}; {kind.way_out}")
    for name in FIRST_CONVOLUTION:
        what = BY_CHANNELS.get(_channels(tensors, name))
        if what is not None:
            raise WeightsError(f"{path}: is {what}; {ONLY}")
    missing = [what for start, what in PARTS.items() if not _has(tensors, start)]
    if not missing:
        if not _has(tensors, CLIP) and not _has(tensors, OPEN_CLIP):
            raise WeightsError(f"{path}: has a text encoder of another kind; {ONLY}")
        return
    if len(missing) < len(PARTS):
        if _has(tensors, AVERAGED) and not _has(tensors, UNET):
            raise WeightsError(f"{path}: has no UNet but an averaged one; {CONVERSION}")
        raise WeightsError(f"{path}: has no part that is {' or '.join(missing)}; {CONVERSION}")
    for pattern, what, folder in ALONE:
        if any(re.search(pattern, name) for name in tensors):
            way_out = CONVERSION if folder is None else FOLDER.format(f"{folder}/")
            raise WeightsError(f"{path}: is {what}; {way_out}")
    names = ", ".join(list(tensors)[:LISTED]) or "nothing"
    raise WeightsError(f"{path}: is no Stable Diffusion checkpoint; it holds {names[:200]}; {ONLY}")


def _has(tensors: Mapping, start: str) -> bool:
    return any(name.startswith(start) for name in tensors)


def _channels(tensors: Mapping, name: str) -> int | None:
    shape = tuple(tensors[name].shape) if name in tensors else ()
    return shape[1] if len(shape) == 4 else None
