"""Parameters of the model itself: all of the UNet, or those whose names match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Trainable

if TYPE_CHECKING:
    from jstyle.sd.startup import jt

PATTERNS = {  # train -> names inside the UNet, or the text encoder
    "full": r".*",
    "kv": r".*\.attn2\.to_[kv]\.weight",  # Custom Diffusion, arXiv:2212.04488
    "up": r"up_blocks\..*",
    "down": r"down_blocks\..*",
}


class Subset(Trainable):
    """The result is the whole model, in diffusers format."""

    whole_model = True

    def choose(self) -> dict[str, jt.Var]:
        modules = {"unet": self.sd.unet}
        if self.cfg.train_text_encoder:
            modules["text_encoder"] = self.sd.text_encoder
        pattern = re.compile(PATTERNS[self.cfg.train])
        return {
            f"{part}.{name}": parameter
            for part, module in modules.items()
            for name, parameter in module.named_parameters()
            if pattern.fullmatch(name)
        }

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        self.sd.save_pretrained(folder, "float32")


TRAINABLE = Subset
