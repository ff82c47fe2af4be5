"""The parts of a model in a folder of diffusers' format, found and unread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import hub, weights
from .config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig

CONFIGS: dict[str, Any] = {
    "unet": UNetConfig,
    "vae": VAEConfig,
    "text_encoder": CLIPTextConfig,
    "scheduler": ScheduleConfig,
}
Tensors = Mapping[str, "weights.StoredTensor | np.ndarray"]


class Found(NamedTuple):
    """configs: component -> configuration. weights: part -> (name -> tensor, where they are).
    tokenizer: folder of its files; pad_token: None for the folder's own. notes: for the user.
    scheduler: its file as it is, which names a sampler too; None: there is no such file."""

    configs: dict[str, Any]
    weights: dict[str, tuple[Tensors, Path]]
    tokenizer: Path
    pad_token: str | None = None
    notes: tuple[str, ...] = ()
    scheduler: dict | None = None


def find(source: hub.Source) -> Found:
    """Raises HubError, ConfigError or WeightsError, one line."""
    folder = hub.resolve(source)
    configs = {
        part: kind.from_json(hub.read_config(folder, part), hub.config_file(folder, part))
        for part, kind in CONFIGS.items()
    }
    stored = {}
    for part in ("unet", "vae", "text_encoder"):
        path = hub.weight_file(folder, part, source.variant)
        stored[part] = (weights.read_weights(path), path)
    scheduler = hub.read_config(folder, "scheduler")
    return Found(configs, stored, folder / "tokenizer", scheduler=scheduler)
