"""LoRA of the UNet, and of the text encoder with --train-text-encoder (arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Trainable

if TYPE_CHECKING:
    from jstyle.sd.pipeline import StableDiffusion
    from jstyle.sd.startup import jt

FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


class LoRA(Trainable):
    def choose(self) -> dict[str, jt.Var]:
        from jstyle.sd.lora import add_lora

        cfg, modules = self.cfg, {"unet": self.sd.unet}
        if cfg.train_text_encoder:
            modules["text_encoder"] = self.sd.text_encoder
        self.loras = {
            part: add_lora(module, cfg.rank, cfg.alpha, cfg.targets, cfg.seed)
            for part, module in modules.items()
        }
        return {
            f"{part}.{name}": var
            for part, lora in self.loras.items()
            for name, var in lora.parameters().items()
        }

    def remove(self) -> None:
        from jstyle.sd.lora import remove_lora

        for part, lora in self.loras.items():
            remove_lora(getattr(self.sd, part), lora)

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        from jstyle.sd.lora import save_lora

        save_lora(folder / FILE, self.sd, self.loras, metadata=about)

    @classmethod
    def put_on(cls, sd: StableDiffusion, folder: Path, weight: float = 1.0) -> None:
        from jstyle.sd.lora import load_lora

        load_lora(sd, folder / FILE, weight)

    @classmethod
    def take_off(cls, sd: StableDiffusion) -> None:
        from jstyle.sd.lora import PARTS, remove_lora

        for part in PARTS:
            remove_lora(getattr(sd, part))

    @classmethod
    def merge(cls, sd: StableDiffusion) -> None:
        from jstyle.sd.lora import PARTS, merge_lora

        for part in PARTS:
            merge_lora(getattr(sd, part))

    @classmethod
    def export(cls, sd: StableDiffusion, folder: Path, path: Path, format: str, dtype: str) -> None:
        from jstyle.sd.lora import load_lora, save_lora

        save_lora(path, sd, load_lora(sd, folder / FILE).loras, format, dtype)


TRAINABLE = LoRA
