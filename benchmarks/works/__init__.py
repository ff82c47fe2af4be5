"""The works that are measured, and what both sides are given.

A work is a function of a Setting that prepares everything and returns a step: a function without
arguments that does the work once, waits for the device, and returns an array that the other side
must agree with. `ours` and `reference` hold one function per work, under the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import flops
from jstyle.sd import hub
from jstyle.sd.config import CLIPTextConfig, ScheduleConfig, UNetConfig, VAEConfig
from jstyle.sd.schedule import Schedule

TOKENS = 77
TIMESTEP = 500
LORA_RANK = 4
LEARNING_RATE = 1e-4
GAMMA, TAU = 0.75, 1.5
STYLE_SITES = "decoder:6-11"
STYLE_PATTERN = re.compile(r"up_blocks\.[23]\..*\.attn1")  # the same sites, by name


class Work(NamedTuple):
    group: str  # what --only names
    told: str
    limit: float | None = None  # the ratio to the reference that is aimed at
    once: bool = False  # can be done only once in a process
    memory_limit: float | None = None


WORKS = {
    "matrix": Work("matrix", "product of two 2048 x 2048 matrices"),
    "unet": Work("unet", "UNet forward, batch 1", 0.75, memory_limit=1.0),
    "unet_batch2": Work("unet", "UNet forward, batch 2"),
    "vae": Work("vae", "VAE encode and decode", 1.0),
    "text": Work("text", "text encoder, one prompt"),
    "style": Work("style", "StyleID pair, per UNet evaluation", 0.70),
    "style_nth": Work("style", "Nth pair of a folder, per step"),
    "lora": Work("lora", "LoRA training step, batch 1", 0.70),
    "lora_checkpointed": Work(
        "lora", "LoRA training step with gradient checkpointing", memory_limit=0.7
    ),
    "load": Work("load", "checkpoint load, float16 file", 1.0, once=True, memory_limit=1.0),
}
GROUPS = tuple(dict.fromkeys(work.group for work in WORKS.values()))


@dataclass(frozen=True)
class Setting:
    """model: a folder in diffusers format. size_px: side of the pictures. steps: DDIM steps of the
    pair, few of them, since the time per evaluation is what is measured. dtype: what the network
    computes in; of this package in the works "unet", "unet_batch2" and "lora", whose parameters
    stay float32, and all others are in float32; of the reference in all but "text" and "load"."""

    model: str
    size_px: int
    device: str = "cpu"
    steps: int = 2
    dtype: str = "float32"

    @property
    def latent(self) -> int:
        return self.size_px // 2 ** (len(self.config("vae").block_out_channels) - 1)

    def config(self, part: str):
        classes = {"unet": UNetConfig, "vae": VAEConfig, "text_encoder": CLIPTextConfig}
        folder = Path(self.model)
        where = hub.config_file(folder, part)
        return classes[part].from_json(hub.read_config(folder, part), where)

    def schedule(self) -> Schedule:
        folder = Path(self.model)
        where = hub.config_file(folder, "scheduler")
        return Schedule(ScheduleConfig.from_json(hub.read_config(folder, "scheduler"), where))

    def latents(self, batch: int = 1, seed: int = 1) -> np.ndarray:
        return normal((batch, self.config("unet").in_channels, self.latent, self.latent), seed)

    def context(self, batch: int = 1) -> np.ndarray:
        return normal((batch, TOKENS, self.config("unet").cross_attention_dim), 2)

    def picture(self) -> np.ndarray:
        """(1, 3, S, S) in [-1, 1]."""
        return np.tanh(normal((1, 3, self.size_px, self.size_px), 3))

    def ids(self) -> np.ndarray:
        vocabulary = self.config("text_encoder").vocab_size
        return np.random.default_rng(4).integers(0, vocabulary, (1, TOKENS))


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def units(work: str, setting: Setting) -> int:
    """What a work's time is divided by."""
    return {"style": 3 * setting.steps, "style_nth": setting.steps}.get(work, 1)


def operations(work: str, setting: Setting) -> float:
    """Counted floating-point operations of the whole work; 0 where none are counted."""
    side = setting.latent
    forward = flops.unet(setting.config("unet"), side, side, TOKENS)
    vae, pixels = setting.config("vae"), (setting.size_px, setting.size_px)
    count = {
        "matrix": flops.linear(2048, 2048, 2048),
        "unet": forward,
        "unet_batch2": flops.times(forward, 2),
        "vae": flops.vae_encode(vae, *pixels) + flops.vae_decode(vae, *pixels),
        "text": flops.text_encoder(setting.config("text_encoder"), TOKENS),
        "style": flops.times(forward, 3 * setting.steps),
        "style_nth": flops.times(forward, setting.steps),
        "lora": flops.lora_step(forward, False),
        "lora_checkpointed": flops.lora_step(forward, True),
    }
    return flops.total(count.get(work, flops.Flops()))
