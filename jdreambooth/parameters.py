"""Which parameters of a model are trained, and how a result with them is written."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jstyle.sd import lora
from jstyle.sd.pipeline import StableDiffusion
from jstyle.sd.startup import jt

from .config import TrainConfig
from .runs import LORA_FILE

log = logging.getLogger("jdreambooth")

PATTERNS = {  # train -> names inside the UNet, or the text encoder
    "full": r".*",
    "kv": r".*\.attn2\.to_[kv]\.weight",  # Custom Diffusion, arXiv:2212.04488
    "up": r"up_blocks\..*",
    "down": r"down_blocks\..*",
}


class Trained(NamedTuple):
    """parameters: by name, such as "unet.conv_in.weight". loras: part -> LoRA, if that is it."""

    parameters: dict[str, jt.Var]
    loras: dict[str, lora.LoRASet]


def choose(sd: StableDiffusion, cfg: TrainConfig) -> Trained:
    """Freeze the model but for what is trained; LoRA layers are added for train = "lora".

    Raises ValueError if the model has nothing of the kind.
    """
    modules = {"unet": sd.unet}
    if cfg.train_text_encoder:
        modules["text_encoder"] = sd.text_encoder
    for module in (sd.unet, sd.text_encoder, sd.vae):
        for parameter in module.parameters():
            parameter.stop_grad()
    loras, chosen = {}, {}
    for part, module in modules.items():
        if cfg.train == "lora":
            loras[part] = lora.add_lora(module, cfg.rank, cfg.alpha, cfg.targets, cfg.seed)
            found = loras[part].parameters()
        else:
            found = _matching(module, cfg.train)
        chosen |= {f"{part}.{name}": parameter for name, parameter in found.items()}
    if not chosen:
        raise ValueError(f"train = {cfg.train!r}: the model has nothing of the kind to train")
    for parameter in chosen.values():
        parameter.start_grad()
    names, total = list(chosen), count(chosen)
    log.info(
        "training %d tensors, %d parameters: %s ... %s", len(names), total, names[0], names[-1]
    )
    return Trained(chosen, loras)


def _matching(module, part: str) -> dict[str, jt.Var]:
    return {n: p for n, p in module.named_parameters() if re.fullmatch(PATTERNS[part], n)}


def count(parameters: Mapping[str, jt.Var]) -> int:
    """How many numbers they hold together."""
    return sum(parameter.numel() for parameter in parameters.values())


def fill(parameter: jt.Var, values: np.ndarray) -> None:
    """Give a trained parameter these values; it stays trained."""
    parameter.update(jt.array(np.asarray(values, np.float32)))
    parameter.start_grad()  # an update can hand down its source's flag


def values_of(parameters: Mapping[str, jt.Var]) -> dict[str, np.ndarray]:
    return {name: parameter.numpy() for name, parameter in parameters.items()}


def save_result(folder: Path, sd: StableDiffusion, trained: Trained, about: dict) -> None:
    """Write a LoRA file, or the whole model in diffusers format, into an existing folder.

    about: str -> str, for the metadata of the LoRA file.
    """
    if trained.loras:
        lora.save_lora(folder / LORA_FILE, sd, trained.loras, metadata=about)
    else:
        sd.save_pretrained(folder, "float32")
